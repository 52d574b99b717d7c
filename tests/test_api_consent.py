"""Consent over HTTP: acts that hold at once and everywhere, lists and histories that give away nothing hidden, previews, and bodies that mean harm."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api_questions import ONE, STRANGER, Json, act, document, logged, open_record, patient, professional, question, record, target
from api_server import NURSE, PATIENT, PHYSICIAN, ROOT, Server, compiled_pack, serving

from api.consent import _Reader
from engine.compiled import load
from engine.consent.store import Act, ConsentStore, Kept, KeptAct, Token
from engine.pdp import Pdp
from engine.request import Action, Entity, Request

ACTS, ACCESS, HISTORY, PREVIEW = (f"/consent/v1/{name}" for name in ("acts", "access-list", "history", "preview"))
TEAM, MEMBER, CHILD, MOTHER = "750000036", "10000023126", "112057510804351", "279035121518989"
MAN, BOY = "185077505601435", "114067505601307"
INSURANCE = {"type": "organisation", "id": "750000036", "properties": {"kind": "assurance_maladie"}}
CARE = {"purpose": "care"}
DEPOSITED = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 86400))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("consent")) as one:
        open_record(one)
        yield one


@pytest.fixture(scope="module")
def second(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another server, on the same store and log."""
    here = server.folder
    with serving(tmp_path_factory.mktemp("second"), store=f"sqlite:///{here}/consent.db", log=f"sqlite:///{here}/decision-log", follow="false") as one:
        yield one


@pytest.fixture(scope="module")
def desk(server: Server) -> Iterator[httpx.Client]:
    with server.client("consent_desk") as one:
        yield one


@pytest.fixture(scope="module")
def portal(server: Server) -> Iterator[httpx.Client]:
    with server.client("portal") as one:
        yield one


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[httpx.Client]:
    with server.client("store") as one:
        yield one


@pytest.fixture(scope="module")
def pdp() -> Pdp:
    return load(compiled_pack().read_bytes())


@pytest.fixture(scope="module")
def kept(server: Server, pdp: Pdp) -> Iterator[ConsentStore]:
    """The store itself, read by the test."""
    with ConsentStore(f"sqlite:///{server.folder}/consent.db", pdp.pack.vocabulary) as one:
        yield one


def token(kept: ConsentStore, id: str = PATIENT) -> Token:
    return kept.read(id, time.time())[1]


def everything(kept: ConsentStore, id: str = PATIENT) -> tuple[tuple[Kept, ...], tuple[KeptAct, ...]]:
    return kept.history(id), kept.acts(id)


def asked(subject: Json, name: str, resource: Json | None = None, context: Json | None = None, **properties: Any) -> Json:
    return {"subject": subject, "action": {"name": name, "properties": properties}, "resource": resource or record(), "context": context or {}}


def about(subject: Json | None = None, id: str = PATIENT, **more: Any) -> Json:
    return {"subject": subject or patient(), "resource": record(id), "context": CARE} | more


# --- acts ------------------------------------------------------------------------------------------------------------


def test_a_permitted_act_holds_for_the_next_decision_in_every_server(server: Server, second: Server, desk: httpx.Client, store: httpx.Client) -> None:
    with second.client("store") as elsewhere, second.client("consent_desk") as other_desk:
        reads = question(professional(NURSE))
        steps = [(desk, "grant_access", True), (other_desk, "block", False), (desk, "unblock", True), (other_desk, "revoke_access", False)]
        for doing, name, permitted in steps:
            told = act(doing, patient(), name, **target(NURSE))
            assert told["directives"] and told["directives"][0]["recorded_by"] == PATIENT
            fresh = {**reads, "context": reads["context"] | {"consent_token": told["context"]["consent_token"]}}
            for client in (store, elsewhere):
                answer = client.post(ONE, json=fresh).json()
                assert answer["decision"] is permitted
                assert answer["context"]["consent_token"] == told["context"]["consent_token"]


def test_an_act_is_in_the_log_before_and_after_under_the_identifier_of_the_record(server: Server, desk: httpx.Client, kept: ConsentStore) -> None:
    before = token(kept)
    told = act(desk, patient(), "refuse_break_glass", context={"basis": "asked for at the desk", "content": "SECRET"})
    first, last = logged(server, "act", id=told["context"]["id"])
    assert (first["state"], last["state"]) == ("asked", "done")
    assert first["token"] == last["token"] == str(before) and last["after"] == told["context"]["consent_token"] == str(token(kept))
    assert last["directives"] == told["directives"] and "directives" not in first
    assert (first["caller"], first["patient"], first["context"]) == ("consent_desk", PATIENT, {"basis": "asked for at the desk"})
    assert kept.acts(PATIENT)[-1].act.id == told["context"]["id"]
    assert not logged(server, containing="SECRET")
    act(desk, patient(), "accept_break_glass")


def test_a_refused_act_writes_nothing(server: Server, desk: httpx.Client, kept: ConsentStore) -> None:
    before = token(kept)
    answer = desk.post(ACTS, json=asked(professional(STRANGER), "block", context=CARE, **target(NURSE)))
    assert answer.status_code == 200 and answer.json()["decision"] is False and answer.json()["directives"] == []
    assert token(kept) == before and answer.json()["context"]["consent_token"] == str(before)
    states = [one["state"] for one in logged(server, "act", id=answer.json()["context"]["id"])]
    assert states == ["asked", "refused"]
    refused = kept.acts(PATIENT)[-1]
    assert (refused.act.id, refused.act.decision, refused.act.told["done"]) == (answer.json()["context"]["id"], "refuse", False)


def test_a_stay_is_masked_previewed_and_unmasked(server: Server, desk: httpx.Client, portal: httpx.Client, store: httpx.Client, kept: ConsentStore) -> None:
    """What one structure deposited in an interval: of these documents, and of those of which nobody knows the structure; no others."""
    days = {"from": "2026-10-10", "until": "2026-10-20"}
    stay = {"target": {"type": "deposited", **days}, "structure": TEAM}
    within, after = "2026-10-12T09:00:00+02:00", "2026-10-21T09:00:00+02:00"
    several = [
        document("DOC-STAY", structure=TEAM, deposited=within), document("DOC-AFTER", structure=TEAM, deposited=after),
        document("DOC-ELSEWHERE", structure="750000028", deposited=within), document("DOC-NOWHERE", structure=None, deposited=within),
    ]  # fmt: skip
    act(desk, patient(), "grant_access", **target(NURSE))

    def seen() -> list[bool]:
        return [store.post(ONE, json=question(professional(NURSE), resource=one)).json()["decision"] for one in several]

    assert seen() == [True, True, True, True]
    before = everything(kept)
    thought = about(viewer=professional(NURSE), viewer_context=CARE, documents=several, act={"name": "mask_documents", "properties": stay})
    assert [one["then"]["decision"] for one in portal.post(PREVIEW, json=thought).json()["documents"]] == [False, True, True, False]
    misspelt = thought | {"act": {"name": "mask_documents", "properties": {"target": stay["target"], "structur": TEAM}}}
    assert portal.post(PREVIEW, json=misspelt).json().startswith("action.structur: is read by nothing")
    for wrong in ({"structure": "750000018"}, {"structure": [TEAM, "750000028"]}, {"target": target(TEAM, "structure")["target"]}):
        answer = desk.post(ACTS, json=asked(patient(), "mask_documents", context=CARE, **{**stay, **wrong}))
        assert answer.status_code == 400 and ("structure: " in answer.json()), wrong
    assert everything(kept) == before
    told = act(desk, patient(), "mask_documents", **stay)
    assert [(one["target"], one["structure"]) for one in told["directives"]] == [({"deposited": days}, TEAM)]
    assert logged(server, "act", id=told["context"]["id"])[0]["action"]["properties"] == stay
    assert seen() == [False, True, True, False]
    act(desk, patient(), "unmask_documents", target=stay["target"])
    assert seen() == [False, True, True, False]
    assert [one["structure"] for one in portal.post(HISTORY, json=about(kind="mask")).json()["history"] if "structure" in one] == [TEAM]
    assert TEAM not in [one["id"] for one in desk.post(ACCESS, json=about()).json()["access_list"]]
    act(desk, patient(), "unmask_documents", **stay)
    assert seen() == [True, True, True, True]
    act(desk, patient(), "revoke_access", **target(NURSE))


@pytest.mark.parametrize(
    ("date", "told"),
    [("2999-01-01", "is yet to come"), ("12/05/2012", "must be a date, or a date and time with its offset"), ("2012-02-30", "must be a date")],
)
def test_a_birth_date_that_cannot_be_opens_no_record(
    server: Server, desk: httpx.Client, portal: httpx.Client, kept: ConsentStore, date: str, told: str
) -> None:
    """A man born in 1985 of whom somebody said 2999 would be a minor for ever, and whoever was declared his parent would read."""
    holder, entries = patient(MAN), len(logged(server, "act"))
    answer = desk.post(ACTS, json=asked(holder, "open", record(MAN), CARE, birth_date=date))
    assert answer.status_code == 400 and answer.json().startswith("the directive `identity` of `open`.birth_date: " + told) and date not in answer.json()
    thought = about(holder, MAN, viewer=professional(), viewer_context=CARE, documents=[document(patient=MAN)])
    answer = portal.post(PREVIEW, json=thought | {"act": {"name": "open", "properties": {"birth_date": date}}})
    assert answer.status_code in (200, 400) and "then" not in answer.text
    assert everything(kept, MAN) == ((), ()) and len(logged(server, "act")) == entries


def test_the_identity_service_corrects_a_birth_date_and_a_representative_is_heard(desk: httpx.Client, store: httpx.Client) -> None:
    act(desk, patient(BOY), "open", record(BOY), birth_date="1985-07-02")
    act(desk, INSURANCE, "declare_representation", record(BOY), **target(MOTHER, "representative"), ground="minority")
    reads = question({"type": "representative", "id": MOTHER}, resource=document(patient=BOY))
    decisions = [store.post(ONE, json=reads).json()["decision"]]
    for name, said in (("correct_identity", {"birth_date": "2014-06-02"}), ("record_death", {"date_of_death": "2026-01-10"}), ("withdraw_death", {})):
        refused = desk.post(ACTS, json=asked(patient(BOY), name, record(BOY), CARE, **said))
        assert refused.status_code == 200 and refused.json()["decision"] is False and refused.json()["directives"] == []
        act(desk, INSURANCE, name, record(BOY), **said)
        decisions.append(store.post(ONE, json=reads).json()["decision"])
    assert decisions == [False, True, False, True]


@pytest.mark.parametrize(
    ("who", "name", "properties", "told"),
    [
        (patient(), "mask_documents", {"target": {"type": "type", "id": "11502-3"}}, "`11502-3` is not a row of `matrix/read.csv` (did you mean `11502-2`?)"),
        (INSURANCE, "declare_representation", target(MOTHER, "representative") | {"ground": "minor"}, "(did you mean `minority`?)"),
        (INSURANCE, "declare_representation", target(MOTHER, "representative"), "action.ground: is missing"),
    ],
    ids=["a type", "a ground", "no ground"],
)
def test_what_would_be_recorded_and_mean_nothing_is_400(desk: httpx.Client, kept: ConsentStore, who: Json, name: str, properties: Json, told: str) -> None:
    before = everything(kept)
    answer = desk.post(ACTS, json=asked(who, name, context=CARE, **properties))
    assert answer.status_code == 400 and told in answer.json()
    assert everything(kept) == before


@pytest.mark.parametrize(
    ("member", "meant"),
    [
        ("reasn", "reason"), ("reasson", "reason"), ("raeson", "reason"), ("Reason", "reason"), ("bases", ""), ("patient_requests", "patient_request"),
        ("acces_mode", "access_mode"), ("secretSession", "secret_session"), ("bassis", "basis"),
        ("region", ""), ("ward", ""), ("time", ""), ("urn:example:reason", ""), ("x" * 5000, ""), ("", ""),
    ],
)  # fmt: skip
def test_a_slip_in_the_context_of_an_act_is_400_and_what_callers_say_for_themselves_is_left_to_them(
    desk: httpx.Client, portal: httpx.Client, kept: ConsentStore, member: str, meant: str
) -> None:
    before = everything(kept)
    context = CARE | {member: "leaving the country"}
    answers = [desk.post(ACTS, json=asked(patient(), "oppose_feeding", context=context))]
    if meant:
        answers.append(portal.post(PREVIEW, json=previewed(act={"name": "oppose_feeding"}, context=context)))
        assert {answer.status_code for answer in answers} == {400} and everything(kept) == before
        told = f"context.{member}: is read by nothing when `oppose_feeding` is asked for (did you mean `{meant}`?)"
        assert {answer.json() for answer in answers} == {told}
    else:
        assert answers[0].status_code == 200 and answers[0].json()["decision"] and "reason" not in answers[0].json()["directives"][0]
        act(desk, patient(), "withdraw_feeding_opposition")


@pytest.mark.parametrize("name", ["read", "list", "deposit", "read_traces", "preview", "no_such_action"])
def test_what_is_no_act_is_400(server: Server, desk: httpx.Client, kept: ConsentStore, name: str) -> None:
    before, entries = everything(kept), len(logged(server))
    answer = desk.post(ACTS, json=asked(patient(), name, document(), CARE))
    assert answer.status_code == 400 and name in answer.json()
    assert everything(kept) == before and len(logged(server)) == entries


MISSING = {
    "no target": {},
    "a target of nobody": {"target": {"type": "professional"}},
    "a target that is text": {"target": NURSE},
    "several targets": {"target": {"type": "professional", "id": [NURSE, PHYSICIAN]}},
    "an identifier that is none": target("10000023085"),
    "an identifier of another kind": target(PATIENT),
    "an end that is no date": {**target(NURSE), "until": "tomorrow"},
    "an end that has passed": {**target(NURSE), "until": "2020-01-01"},
    "a target that is huge": {"target": {"type": "professional", "id": NURSE, "x": "y" * 30_000}},
}


@pytest.mark.parametrize("properties", MISSING.values(), ids=MISSING)
def test_an_act_that_leaves_out_what_it_needs_writes_nothing(server: Server, desk: httpx.Client, kept: ConsentStore, properties: Json) -> None:
    before, entries = everything(kept), logged(server)
    answer = desk.post(ACTS, json=asked(patient(), "grant_access", **properties))
    if answer.status_code == 200:  # the policy refuses what aims at nobody
        assert answer.json()["decision"] is False and answer.json()["directives"] == []
    else:
        assert answer.status_code == 400 and isinstance(answer.json(), str)
    assert kept.history(PATIENT) == before[0]
    acts = {one["id"] for one in logged(server)[len(entries) :] if one["kind"] == "act"}
    for id in acts:  # nothing asked for is left without what became of it
        assert [one["state"] for one in logged(server, "act", id=id)] == ["asked", "refused"]


def test_acts_ask_for_a_record_as_fresh_as_the_token(desk: httpx.Client, kept: ConsentStore) -> None:
    before, now = everything(kept), token(kept)
    stale = {"consent_token": str(Token(now.epoch, now.revision + 1))}
    for route, body in ((ACTS, asked(patient(), "close", context=stale)), (ACCESS, about(context=stale)), (HISTORY, about(context=stale))):
        assert desk.post(route, json=body).status_code == 409
    assert everything(kept) == before


def test_routes_about_a_record_withhold_what_the_caller_cannot_do(server: Server, portal: httpx.Client) -> None:
    answer = portal.post(HISTORY, json=about(context={"supported_obligations": []})).json()
    assert answer["decision"] is False and "history" not in answer and answer["context"]["unsupported_obligations"] == ["only_known_documents"]
    assert logged(server, "decision", id=answer["context"]["id"])[0]["withheld"] == [0]
    assert "history" in portal.post(HISTORY, json=about(context={"supported_obligations": ["only_known_documents"]})).json()


def test_two_at_once_are_one_after_the_other(server: Server, second: Server, kept: ConsentStore) -> None:
    """Nobody blocks his treating physician: of a block and a declaration at once, one is refused."""
    from concurrent.futures import ThreadPoolExecutor

    with server.client("consent_desk") as here, second.client("consent_desk") as there, ThreadPoolExecutor(2) as both:
        for _ in range(5):
            block = asked(patient(), "block", **target(STRANGER))
            declare = asked(patient(), "declare_treating_physician", **target(STRANGER, profession="G15_10"))
            told = list(both.map(lambda one: one[0].post(ACTS, json=one[1]).json()["decision"], [(here, block), (there, declare)]))
            assert sorted(told) == [False, True]
            undo = "unblock" if told[0] else "end_treating_physician"
            act(here, patient(), undo, **target(STRANGER, profession="G15_10"))


# --- who has access --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def furnished(server: Server, desk: httpx.Client) -> None:
    """A record with a team, a mask, and a document that a physician hides from the patient."""
    act(desk, patient(), "consent_care_team", **target(TEAM, "team"), until="2099-12-31")
    team = {"type": "organisation", "id": TEAM, "properties": {"kind": "health", "structure": TEAM}}
    act(desk, team, "join_care_team", context=CARE, **target(MEMBER, team=TEAM))
    act(desk, patient(), "mask", document("DOC-MASKED"))
    act(desk, patient(), "mask_documents", **target("60568-3", "type"))
    author = professional("10000023100", structure="750000028")
    act(desk, author, "hide_from_patient", document("DOC-HIDDEN", deposited=DEPOSITED, opened_by_patient=False), CARE)


def test_the_access_list_says_who_why_and_until_when(server: Server, portal: httpx.Client, furnished: None) -> None:
    told = portal.post(ACCESS, json=about()).json()
    assert told["decision"] is True
    listed = {(one["kind"], one["type"], one["id"], one["via"]): one for one in told["access_list"]}
    assert all(one.keys() == {"type", "id", "kind", "from", "until", "via", "recorded_by"} for one in told["access_list"])
    assert listed["treating_physician", "professional", PHYSICIAN, ""]["until"] is None
    team = listed["care_team_consent", "team", TEAM, ""]
    assert team["recorded_by"] == PATIENT and team["until"].startswith("2100-01-01")
    assert ("care_team_consent", "professional", MEMBER, f"team {TEAM}") in listed
    assert logged(server, "decision", id=told["context"]["id"])[0]["action"]["name"] == "read_access_list"


def test_the_access_list_names_no_document(portal: httpx.Client, furnished: None) -> None:
    text = portal.post(ACCESS, json=about()).text
    assert not re.search("DOC-|mask|hidden|60568-3", text)


def test_who_may_not_read_the_access_list_learns_nothing(desk: httpx.Client, furnished: None) -> None:
    for subject in (professional(NURSE), professional(STRANGER), patient(CHILD), professional()):
        told = desk.post(ACCESS, json=about(subject)).json()
        assert told["decision"] is False and told.keys() == {"decision", "context"}
    told = desk.post(ACCESS, json=about(professional(), context=CARE | {"patient_request": True})).json()
    assert told["decision"] is True and told["access_list"]


# --- what was said ---------------------------------------------------------------------------------------------------


def test_a_history_is_in_order_and_of_one_kind_when_asked(portal: httpx.Client, furnished: None) -> None:
    told = portal.post(HISTORY, json=about()).json()["history"]
    assert told[0]["kind"] == "opened" and [one["recorded"] for one in told] == sorted(one["recorded"] for one in told)
    masks = portal.post(HISTORY, json=about(kind="mask")).json()["history"]
    assert masks and masks == [one for one in told if one["kind"] == "mask"]
    assert {"document": "DOC-MASKED"} in [one["target"] for one in masks]
    answer = portal.post(HISTORY, json=about(kind="masc"))
    assert answer.status_code == 400 and "did you mean `mask`" in answer.text


def test_an_act_that_calls_a_document_a_record_is_one_about_a_document(pdp: Pdp) -> None:
    asks = Request(Entity("patient", PATIENT), Action("read_traces"), Entity("record", PATIENT), CARE)
    reader = _Reader(pdp.decide(asks, pdp.fold([{"kind": "opened"}], time.time())))

    def act_of(action: str, resource: Json, **properties: Any) -> KeptAct:
        who = {"type": "professional", "id": NURSE, "properties": {}}
        told = {"subject": who, "resource": resource | {"properties": {}}, "action": {"name": action, "properties": properties}, "context": {}}
        return KeptAct(1, Act("0" * 26, action, "refuse", "W99", told), 1.0, Token(1, 1), Token(1, 1))

    disguised = act_of("mask", {"type": "record", "id": "DOC-1"})
    aimed = act_of("mask_documents", {"type": "record", "id": PATIENT}, target={"type": "document", "id": "DOC-1"})
    several = act_of("mask_documents", {"type": "record", "id": PATIENT}, target={"type": "document", "id": ["DOC-1"]})
    assert [reader.may_know_what_was_asked(one) for one in (disguised, aimed, several)] == [False] * 3
    reader.knows = frozenset({"DOC-1"})
    assert [reader.may_know_what_was_asked(one) for one in (disguised, aimed, several)] == [True, True, False]
    assert not reader.may_know_what_was_said({"kind": "mask", "target": [{"document": "DOC-2"}], "recorded_by": NURSE})


def test_a_history_tells_the_patient_nothing_of_what_is_hidden_from_him(portal: httpx.Client, kept: ConsentStore, furnished: None) -> None:
    answer = portal.post(HISTORY, json=about())
    assert not re.search("DOC-HIDDEN|hidden_from_patient|10000023100|revision", answer.text)
    told = answer.json()["history"]
    assert len(told) == len(kept.history(PATIENT)) - 1  # all but one: others' grants and memberships are told
    assert any(one["recorded_by"] == TEAM for one in told)
    assert portal.post(HISTORY, json=about(kind="hidden_from_patient")).json()["history"] == []


def test_a_professional_reads_in_a_history_what_he_said_himself(desk: httpx.Client, furnished: None) -> None:
    author = professional("10000023100", structure="750000028")
    told = desk.post(HISTORY, json=about(author)).json()
    assert [one["kind"] for one in told["history"]] == ["hidden_from_patient"] and told["history"][0]["target"] == {"document": "DOC-HIDDEN"}
    assert desk.post(HISTORY, json=about(professional(STRANGER))).json()["history"] == []
    assert desk.post(HISTORY, json=about(patient(CHILD))).json().keys() == {"decision", "context"}


def test_somebody_with_the_same_identifier_in_another_capacity_is_somebody_else(pdp: Pdp) -> None:
    opened = pdp.fold([{"kind": "opened"}], time.time())
    asks = Request(Entity("patient", PATIENT), Action("read_traces"), Entity("record", PATIENT), CARE)
    shown = _Reader(pdp.decide(asks, opened))
    directive = {"kind": "hidden_from_patient", "target": {"document": "DOC-1"}, "recorded_by": PATIENT}
    assert shown.may_know_what_was_said(directive) and shown.may_know_what_was_said(directive | {"capacity": "patient"})
    assert not shown.may_know_what_was_said(directive | {"capacity": "representative"}) and not shown.may_know_what_was_said(directive | {"recorded_by": NURSE})
    assert shown.may_know_what_was_said({"kind": "block", "target": {"professional": NURSE}, "recorded_by": NURSE})


def test_a_treating_physician_reads_what_others_said_but_of_documents(desk: httpx.Client, furnished: None) -> None:
    told = desk.post(HISTORY, json=about(professional())).json()
    assert told["decision"] is True and not re.search("DOC-", json.dumps(told))
    assert {"opened", "care_team_consent", "membership"} <= {one["kind"] for one in told["history"]}


def test_a_representative_reads_what_he_said_himself(server: Server, desk: httpx.Client) -> None:
    """He may read all but secret sessions and what he may not see. The service cannot tell those, so it tells less."""
    act(desk, patient(CHILD), "open", record(CHILD), birth_date="2012-05-07")
    act(desk, INSURANCE, "declare_representation", record(CHILD), **target(MOTHER, "representative"), ground="minority")
    author = professional("10000023142", structure="750000093", profession="G15_50")
    secret = document("DOC-SECRET", patient=CHILD, author="10000023142", structure="750000093")
    act(desk, author, "hide_from_representatives", secret, CARE | {"patient_request": True})
    mother = {"type": "representative", "id": MOTHER}
    act(desk, mother, "mask", document("DOC-HERS", patient=CHILD))
    told = desk.post(HISTORY, json=about(mother, CHILD)).json()
    assert told["decision"] is True and [one["target"] for one in told["history"]] == [{"document": "DOC-HERS"}]
    assert "DOC-SECRET" not in desk.post(ACCESS, json=about(mother, CHILD)).text


def test_the_history_of_masking_is_whole_for_the_holder(portal: httpx.Client, desk: httpx.Client, furnished: None) -> None:
    """What his physician masked at his request, what was refused, by whom; of the documents that he may know of."""
    report, request = document("DOC-ASKED"), CARE | {"patient_request": True}
    act(desk, professional(), "mask", report, request)
    refused = desk.post(ACTS, json=asked(professional(STRANGER), "unmask", report, request)).json()
    assert refused["decision"] is False
    wanted = about(kind="mask", documents=[report], acts=True)
    told = portal.post(HISTORY, json=wanted).json()
    assert [one["recorded_by"] for one in told["history"] if one["target"] == {"document": "DOC-ASKED"}] == [PHYSICIAN]
    mine = [one for one in told["acts"] if one["document"] == "DOC-ASKED"]
    assert [(one["subject"]["id"], one["action"], one["permitted"], one["done"], one["patient_request"]) for one in mine] == [
        (PHYSICIAN, "mask", True, True, True), (STRANGER, "unmask", False, False, True),
    ]  # fmt: skip
    assert mine[1]["decision"] == refused["context"]["id"] and mine[1]["reason_user"] == refused["context"]["reason_user"]
    assert {"mask", "mask_documents"} <= {one["action"] for one in told["acts"]} <= {"mask", "unmask", "mask_documents", "unmask_documents"}
    assert not re.search("rule|legal_basis|revision|number", json.dumps(told["acts"]))
    for documents in ([], [document("DOC-OTHER")], [report, document("DOC-ASKED", status="Deleted")]):
        less = portal.post(HISTORY, json=wanted | {"documents": documents}).json()
        assert "DOC-ASKED" not in json.dumps(less) and {one["document"] for one in less["acts"]} >= {"DOC-MASKED"}
    assert "acts" not in portal.post(HISTORY, json=about(documents=[report])).json()


def test_a_masking_is_not_told_to_whom_it_is_masked_from_whatever_documents_he_names(portal: httpx.Client, desk: httpx.Client, furnished: None) -> None:
    masked, hidden = document("DOC-MASKED"), document("DOC-HIDDEN", deposited=DEPOSITED, opened_by_patient=False)
    desk.post(ACTS, json=asked(patient(), "mask", masked))
    attempt = desk.post(ACTS, json=asked(professional(STRANGER), "unmask", masked, CARE | {"patient_request": True})).json()
    told = desk.post(HISTORY, json=about(professional(STRANGER), documents=[masked, hidden], acts=True)).json()
    assert told["history"] == [] and {one["subject"]["id"] for one in told["acts"]} == {STRANGER}
    assert told["acts"][-1]["reason_user"] == attempt["context"]["reason_user"], "what he was told then, and nothing more"
    told = portal.post(HISTORY, json=about(documents=[masked, hidden], acts=True))
    assert not re.search("DOC-HIDDEN|hid.*_from_patient|10000023100", told.text) and "DOC-MASKED" in told.text


# --- previews --------------------------------------------------------------------------------------------------------


def previewed(**more: Any) -> Json:
    return about(viewer=professional(), viewer_context=CARE, documents=[document("DOC-1"), document("DOC-2", type="68599-0")], **more)


def test_a_preview_shows_what_somebody_would_see_and_what_an_act_would_change(server: Server, portal: httpx.Client, kept: ConsentStore) -> None:
    before = everything(kept)
    told = portal.post(PREVIEW, json=previewed()).json()["documents"]
    assert [(one["id"], one["now"]["decision"]) for one in told] == [("DOC-1", True), ("DOC-2", True)]
    assert all(one.keys() == {"id", "now"} and one["now"]["reason_user"].keys() == {"fr", "en"} for one in told)
    ended = {"name": "end_treating_physician", "properties": target(PHYSICIAN)}
    told = portal.post(PREVIEW, json=previewed(act=ended)).json()["documents"]
    assert [(one["now"]["decision"], one["then"]["decision"]) for one in told] == [(True, False), (True, False)]
    seen = previewed(act={"name": "mask", "resource": document("DOC-1")}) | {"viewer": professional(NURSE)}
    seen |= {"viewer_context": CARE | {"access_mode": "bris_de_glace", "justification": "coma"}}
    told = {one["id"]: one for one in portal.post(PREVIEW, json=seen).json()["documents"]}
    assert (told["DOC-1"]["now"]["decision"], told["DOC-1"]["then"]["decision"]) == (True, False)
    assert told["DOC-2"]["now"] == told["DOC-2"]["then"]
    assert everything(kept) == before
    assert logged(server, "decision")[-1]["action"]["name"] == "preview" and logged(server, "decision")[-1]["mode"] == "list"


def test_a_preview_leaves_out_what_is_hidden_like_what_never_was(portal: httpx.Client, furnished: None) -> None:
    documents = [document("DOC-HIDDEN"), document("DOC-1"), document("DOC-NEVER", status=None), document("DOC-GONE", status="Deleted")]
    told = portal.post(PREVIEW, json=previewed() | {"documents": documents}).json()
    assert [one["id"] for one in told["documents"]] == ["DOC-1"]
    hidden = portal.post(PREVIEW, json=previewed() | {"documents": documents[:1]})
    assert hidden.json() == portal.post(PREVIEW, json=previewed() | {"documents": documents[2:3]}).json() == {"documents": []}


def test_a_preview_of_what_cannot_be_is_400(portal: httpx.Client, kept: ConsentStore) -> None:
    before = everything(kept)
    for thought in (
        {"name": "block", "properties": target(PHYSICIAN)},  # a treating physician is not blocked
        {"name": "grant_access", "properties": {"target": {"type": "professional"}}},
        {"name": "grant_access", "properties": {**target(NURSE), "untill": "2027-01-01"}},
        {"name": "grant_access", "properties": {**target(NURSE), "until": "2020-01-01"}},
        {"name": "grant_access", "properties": {"target": {"type": "professional", "id": NURSE, "x": "y" * 30_000}}},
        {"name": "block", "properties": target("10000023085")},
        {"name": "mask_documents", "properties": target("NOSUCH", "type")},
        {"name": "read_status"},
        {"name": "read", "resource": document("DOC-1")},
        {"name": "mask", "resource": document("DOC-9", patient=CHILD)},
        {"name": "mask", "resource": {"type": "document"}},
        {"name": ""},
    ):
        answer = portal.post(PREVIEW, json=previewed(act=thought))
        assert answer.status_code == 400 and isinstance(answer.json(), str), thought
    for documents in ([], [document(patient=CHILD)], [document(), document(patient=5)], [document(f"D{n}") for n in range(1001)], "DOC-1", [5]):
        assert portal.post(PREVIEW, json=previewed() | {"documents": documents}).status_code == 400
    assert everything(kept) == before


def test_documents_of_a_preview_are_of_the_record_though_they_do_not_say_so(portal: httpx.Client) -> None:
    told = portal.post(PREVIEW, json=previewed() | {"documents": [document("DOC-1", patient=None)]}).json()
    assert [one["id"] for one in told["documents"]] == ["DOC-1"]


def test_somebody_else_previews_nothing(server: Server, portal: httpx.Client) -> None:
    for subject in (patient(CHILD), professional(), professional(NURSE)):
        assert portal.post(PREVIEW, json=previewed() | {"subject": subject}).json() == {"documents": []}
    with server.client("officer") as officer:
        assert len(officer.post(PREVIEW, json=previewed()).json()["documents"]) == 2


# --- packs that offer less -------------------------------------------------------------------------------------------


def test_what_a_pack_does_not_offer_is_404(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(tmp_path_factory.mktemp("library"), pack=str(ROOT / "examples" / "library_pack")) as server, server.client("portal") as portal:
        body = {"subject": {"type": "owner", "id": "aubin"}, "resource": {"type": "record", "id": "aubin"}}
        for route, key in ((ACCESS, "access_list"), (HISTORY, "traces"), (PREVIEW, "preview")):
            answer = portal.post(route, json=body | {"viewer": body["subject"], "documents": [{"type": "document", "id": "D-400"}]})
            assert answer.status_code == 404 and "library" in answer.json() and key in answer.json()
        answer = portal.post(ACTS, json=body | {"action": {"name": "change_terms"}})
        assert answer.status_code == 400 and "no act" in answer.json()


# --- hostile bodies --------------------------------------------------------------------------------------------------

BODIES = {
    ACTS: asked(patient(), "block", context=CARE, **target(STRANGER)),
    ACCESS: about(),
    HISTORY: about(kind="mask"),
    PREVIEW: previewed(act={"name": "block", "properties": target(STRANGER)}),
}
RAW = {
    "huge": b'{"subject": "' + b"x" * 2_000_001 + b'"}',
    "deep": b'{"subject":' * 5000 + b"1" + b"}" * 5000,
    "deep lists": b'{"context": ' + b"[" * 40 + b"]" * 40 + b"}",
    "not JSON": b"{",
    "nothing": b"",
    "a list": b"[]",
}
VALUES = [None, True, -1, "", "x" * 3000, [], {}]
MORE = [0, 1e300, 2**70, " ", "\x00", "‮", [[]], {"type": {}}, [None] * 50, "профессионал", "a\nb", [True, {}]]


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("name", RAW)
def test_a_body_that_is_none_is_refused(server: Server, kept: ConsentStore, route: str, name: str) -> None:
    before = everything(kept)
    with server.client("portal") as portal:
        answer = portal.post(route, content=RAW[name], headers={"content-type": "application/json"})
        assert answer.status_code == (413 if name == "huge" else 400) and isinstance(answer.json(), str)
    assert everything(kept) == before


SPLICED = [("NaN", "NaN"), ("infinity", "1e999"), ("half a character", '"\\udc00"'), ("many digits", "9" * 5000)]


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize(("name", "value"), SPLICED)
def test_a_value_that_readers_disagree_on_is_refused(portal: httpx.Client, kept: ConsentStore, route: str, name: str, value: str) -> None:
    before = everything(kept)
    for spliced in ('"purpose": "care", "basis": VALUE', '"purpose": VALUE', '"basis": {"x": [VALUE]}, "purpose": "care"'):
        body = json.dumps(BODIES[route]).replace('"purpose": "care"', spliced.replace("VALUE", value))
        answer = portal.post(route, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400 and isinstance(answer.json(), str)
    assert everything(kept) == before


@pytest.mark.parametrize("route", BODIES)
def test_a_key_that_stands_twice_is_refused(portal: httpx.Client, kept: ConsentStore, route: str) -> None:
    before = everything(kept)
    for key in ("subject", "id", "purpose"):
        body = re.sub(rf'("{key}": )', rf'"{key}": null, \1', json.dumps(BODIES[route]), count=1)
        answer = portal.post(route, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400 and "twice" in answer.json()
    assert everything(kept) == before


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a body."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from places(one, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    first, *rest = path
    if isinstance(value, list):
        return [replaced(one, tuple(rest), by) if n == first else one for n, one in enumerate(value)]
    return {key: replaced(one, tuple(rest), by) if key == first else one for key, one in value.items()}


def ask_with(values: list[Any], server: Server, portal: httpx.Client, kept: ConsentStore, route: str) -> None:
    """Every member in turn is something else: refused by its shape, or by the policy, or of no consequence; never half done."""
    history, acts = everything(kept)
    for path, value in itertools.product(places(BODIES[route]), values):
        answer = portal.post(route, json=replaced(BODIES[route], path, value))
        assert answer.status_code < 500, (path, value, answer.text)
        told = answer.json()
        assert (answer.status_code == 200) is isinstance(told, dict)
        before = len(history), len(acts)
        history, acts = everything(kept)
        if answer.status_code == 200 and route == ACTS:
            assert (len(history), len(acts)) == (before[0] + len(told["directives"]), before[1] + 1)
            assert bool(told["directives"]) is told["decision"]
        else:
            assert (len(history), len(acts)) == before, (path, value)
    assert "internal fault" not in server.output()


@pytest.mark.parametrize("route", BODIES)
def test_a_wrong_type_anywhere_is_no_internal_fault(server: Server, portal: httpx.Client, kept: ConsentStore, route: str) -> None:
    ask_with(VALUES, server, portal, kept, route)


@pytest.mark.long
@pytest.mark.parametrize("route", BODIES)
def test_stranger_things_anywhere_are_no_internal_fault(server: Server, portal: httpx.Client, kept: ConsentStore, route: str) -> None:
    ask_with(MORE, server, portal, kept, route)


def test_nothing_of_this_was_an_internal_fault(server: Server, second: Server) -> None:
    """The last test of the module."""
    for one in (server, second):
        assert "internal fault" not in one.output() and "Traceback" not in one.output() and PATIENT not in one.output()
