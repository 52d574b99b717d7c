"""Searches over HTTP: what is found is exactly what evaluations of every candidate permit, page by page, and nothing tells what was not found."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api_questions import ONE, SEVERAL, STRANGER, Json, act, document, logged, open_record, patient, professional, question, record, target
from api_server import NURSE, OTHER_PATIENT, PATIENT, PHYSICIAN, ROOT, Server, key_of, serving

from engine.consent.identifiers import luhn
from engine.pack import load_pack

PACK = load_pack(ROOT / "policies")
LIMITED = """
[caller.small-store]
key_sha256 = ["{digest}"]
roles = ["store"]
subjects = {{ professional = ["{one}", "{other}", "{third}"] }}
claims = {{ structure = "*", authentication = "*", profession = ["G15_60"] }}
"""
EMERGENCY = {"purpose": "care", "access_mode": "bris_de_glace", "justification": "coma"}
REQUIRED = [("subject",), ("subject", "type"), ("subject", "id"), ("action",), ("action", "name"), ("resource",), ("resource", "type"), ("resource", "id")]
SEARCH = {kind: f"/access/v1/search/{kind}" for kind in ("subject", "resource", "action")}


def rpps(number: int) -> str:
    return next(id for digit in range(10) if luhn(id := f"1{number:09d}{digit}"))


STAFF = {rpps(n): ["G15_10", "G15_60", "G15_21", "G15_40", "G15_26"][n % 5] for n in range(40)} | {PHYSICIAN: "G15_10", NURSE: "G15_60"}
"""The people of the directory."""
AUTHORISED, UNLISTED, GONE, ENDED = rpps(0), rpps(900), rpps(901), rpps(902)
"""A physician whom the patient authorised; three whom the directory does not know: one authorised, one excluded since, one who was the treating physician."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("search")
    (folder / "directory.csv").write_text("identifier,profession\n" + "".join(f"{id},{profession}\n" for id, profession in STAFF.items()))
    digest = hashlib.sha256(key_of("small-store").encode()).hexdigest()
    limited = LIMITED.format(digest=digest, one=rpps(1), other=rpps(6), third=NURSE)
    with serving(folder, limited, directory=str(folder / "directory.csv")) as one:
        open_record(one)
        open_record(one, OTHER_PATIENT)
        with one.client("consent_desk") as desk:
            for id in [*list(STAFF)[::3], UNLISTED, GONE]:
                act(desk, patient(), "grant_access", given="in_person", **target(id))
            act(desk, patient(), "revoke_access", **target(GONE))
            for name in ("declare_treating_physician", "end_treating_physician"):
                act(desk, patient(), name, **target(ENDED, profession="G15_10"))
            act(desk, patient(), "block", **target(rpps(3)))
            act(desk, patient(), "mask_documents", **target("60568-3", "type"))
        yield one


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


def asked(kind: str, **parts: Any) -> Json:
    """A search: for who may read a document, for the types that a physician may read, for what the treating physician may do."""
    whole = question(professional(AUTHORISED) if kind == "resource" else None, patient_request=True) | parts
    if "subject" not in parts and kind == "subject":
        whole["subject"] = {"type": "professional", "properties": {"structure": "750000010", "authentication": "DIRECTE"}}
    if "resource" not in parts and kind == "resource":
        whole["resource"] = {"type": "document", "properties": {"patient": PATIENT, "status": "Approved", "confidentiality": ["N"]}}
    if kind == "action":
        del whole["action"]
    return whole


def found(store: httpx.Client, kind: str, **parts: Any) -> list[Json]:
    answer = store.post(SEARCH[kind], json=asked(kind, **parts))
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert list(told) == ["page", "results"] and told["page"] == {"next_token": "", "count": len(told["results"]), "total": len(told["results"])}
    return told["results"]


def names(several: list[Json]) -> list[str]:
    return [one.get("id") or one["name"] for one in several]


def permitted(store: httpx.Client, items: list[Json]) -> list[int]:
    """The places of the evaluations that are permitted, asked one list at a time."""
    if not items:
        return []
    answer = store.post(SEVERAL, json={"evaluations": items})
    assert answer.status_code == 200, answer.text
    return [n for n, one in enumerate(answer.json()["evaluations"]) if one["decision"]]


# --- exactly what is permitted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "context"),
    [
        (document(), {}),
        (document(type="68599-0"), {}),
        (document(confidentiality=["MASQUE_PS"]), {}),
        (document(status="Deleted"), {}),
        (document(author=rpps(7)), {}),
        (document(), {"access_mode": "bris_de_glace", "justification": "coma"}),
        (document(patient=OTHER_PATIENT), {}),
    ],
)
def test_subjects_are_those_whom_an_evaluation_permits(store: httpx.Client, resource: Json, context: Json) -> None:
    parts = {"resource": resource, "context": {"purpose": "care", **context}}
    results = found(store, "subject", **parts)
    candidates = sorted({*STAFF, UNLISTED, GONE, ENDED, STRANGER})
    items = [question() | parts | {"subject": {**asked("subject")["subject"], "id": id}} for id in candidates]
    assert names(results) == [candidates[n] for n in permitted(store, items)]
    assert len(permitted(store, [question() | parts | {"subject": one} for one in results])) == len(results)


def test_who_is_named_in_the_record_is_found_though_no_directory_has_him(store: httpx.Client) -> None:
    subject = {"type": "professional", "properties": {"structure": "750000010", "authentication": "DIRECTE", "profession": "G15_10"}}
    results = names(found(store, "subject", subject=subject))
    assert UNLISTED in results and not {GONE, ENDED, rpps(3)} & set(results)
    # Whom the record named once may still come in an emergency.
    assert {UNLISTED, GONE, ENDED} <= set(names(found(store, "subject", subject=subject, context=EMERGENCY)))
    # What the search says of everybody contradicts the directory for most.
    assert all(STAFF.get(id, "G15_10") == "G15_10" for id in results) and PHYSICIAN in results and NURSE not in results


def test_the_patient_and_his_representatives_are_found_by_their_own_type(server: Server, store: httpx.Client) -> None:
    assert names(found(store, "subject", subject={"type": "patient"})) == [PATIENT]
    assert names(found(store, "subject", subject={"type": "patient"}, resource=document(confidentiality=["INVISIBLE_PATIENT"]))) == []
    mother = "268027512345632"
    with server.client("consent_desk") as desk:
        insurance = {"type": "organisation", "id": "750000036", "properties": {"kind": "assurance_maladie"}}
        parts = {"ground": "measure", **target(mother, "representative")}
        asked = {"subject": insurance, "action": {"name": "declare_representation", "properties": parts}, "resource": record(OTHER_PATIENT)}
        answer = desk.post("/consent/v1/acts", json=asked)
        assert answer.json()["decision"]
    parts = {"subject": {"type": "representative"}, "resource": document(patient=OTHER_PATIENT)}
    assert names(found(store, "subject", **parts)) == [mother]
    assert names(found(store, "subject", subject={"type": "robot"})) == []


@pytest.mark.parametrize("action", ["read", "list", "deposit", "mask", "replace", "no_such_action"])
@pytest.mark.parametrize("id", [PHYSICIAN, AUTHORISED, STRANGER, rpps(4)])
def test_resources_are_the_types_that_an_evaluation_permits(store: httpx.Client, id: str, action: str) -> None:
    properties = {"patient": PATIENT, "status": "Approved", "confidentiality": ["N"], "author": "10000023100"}
    subject = professional(id, profession=STAFF.get(id, "G15_21"))
    does = {"name": action, "properties": {"document": {"type": "11502-2"}}}
    parts = {"subject": subject, "action": does, "context": {"purpose": "care", "patient_request": True}}
    results = found(store, "resource", resource={"type": "document", "properties": properties}, **parts)
    types = sorted(PACK.vocabulary.grids["read"].rows)
    items = [question() | parts | {"resource": {"type": "document", "id": one, "properties": properties | {"type": one}}} for one in types]
    expected = [types[n] for n in permitted(store, items)]
    assert names(results) == expected
    assert len(types) > 100 and len(permitted(store, [question() | parts | {"resource": one} for one in results])) == len(results)
    if action == "read" and id == AUTHORISED:
        assert 0 < len(expected) < len(types) and "60568-3" not in expected


def test_records_are_not_searched(store: httpx.Client) -> None:
    answer = store.post(SEARCH["resource"], json=asked("resource", action={"name": "read_status"}, resource={"type": "record"}))
    assert answer.status_code == 400 and "one record at a time" in answer.json()
    about = asked("resource")["resource"] | {"type": "record"}
    assert found(store, "resource", resource=about) == []  # what is read is not a record


@pytest.mark.parametrize(
    "subject", [professional(), professional(NURSE), professional(STRANGER), patient(), professional(rpps(3), profession="G15_40")], ids=lambda one: one["id"]
)
@pytest.mark.parametrize("resource", [document(), document(status="Deleted"), record(), {"type": "unheard-of", "id": "x", "properties": {"patient": PATIENT}}])
def test_actions_are_those_that_an_evaluation_permits(store: httpx.Client, subject: Json, resource: Json) -> None:
    context = {"purpose": "care", "patient_request": True}
    results = found(store, "action", subject=subject, resource=resource, context=context)
    about = PACK.vocabulary.actions
    kinds = {resource["type"]} & set(about.values()) or {"document"}
    candidates = sorted(name for name, kind in about.items() if kind in kinds)
    items = [{"subject": subject, "action": {"name": name}, "resource": resource, "context": context} for name in candidates]
    assert names(results) == [candidates[n] for n in permitted(store, items)]
    assert all(one.keys() <= {"name", "obligations"} for one in results)


# --- what is searched is not named -----------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [None, "", 5, [], {}, "not an identifier", NURSE, "x" * 1000])
def test_the_identifier_of_what_is_searched_is_ignored(store: httpx.Client, id: Any) -> None:
    for kind, key in (("subject", "id"), ("resource", "id")):
        whole = asked(kind)
        whole[kind] = whole[kind] | {key: id}
        assert store.post(SEARCH[kind], json=whole).json() == store.post(SEARCH[kind], json=asked(kind)).json()
    for action in (id, {"name": id}, {"name": "read", "properties": {"target": 5}}):
        assert store.post(SEARCH["action"], json=asked("action") | {"action": action}).json() == store.post(SEARCH["action"], json=asked("action")).json()


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (kind, path)
        for kind in SEARCH
        for path in REQUIRED
        if path != (kind, "id") and not (kind == "action" and path[0] == "action")
    ],
)
def test_what_is_not_searched_must_be_named(store: httpx.Client, kind: str, path: tuple[str, ...]) -> None:
    for value in (None, 5, "", " "):
        whole = asked(kind)
        if len(path) == 1:
            whole[path[0]] = value
        else:
            whole[path[0]] = {**whole[path[0]], path[1]: value}
        answer = store.post(SEARCH[kind], json=whole)
        assert answer.status_code == 400 and isinstance(answer.json(), str)


def test_who_asks_and_whose_record_are_written_as_the_pack_says(store: httpx.Client) -> None:
    for kind in ("resource", "action"):
        answer = store.post(SEARCH[kind], json=asked(kind, subject=professional("10000023085")))
        assert answer.status_code == 400 and "subject.id" in answer.json()
    for kind in SEARCH:
        whole = asked(kind)
        whole["resource"] = {**whole["resource"], "properties": {**whole["resource"]["properties"], "patient": "279035121518988"}}
        assert store.post(SEARCH[kind], json=whole).status_code == 400


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEARCH)
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_pages_together_are_the_whole(store: httpx.Client, kind: str, limit: int) -> None:
    whole = found(store, kind)
    assert len(whole) > 7
    together, page = [], {"limit": limit}
    while True:
        told = store.post(SEARCH[kind], json=asked(kind) | {"page": page}).json()
        assert told["page"]["count"] == len(told["results"]) <= limit and told["page"]["total"] == len(whole)
        together += told["results"]
        if not (token := told["page"]["next_token"]):
            break
        assert len(told["results"]) == limit
        page = {"token": token} if len(together) % 2 else {"token": token, "limit": limit}
    assert together == whole


def test_a_page_may_be_empty_and_is_never_larger_than_the_service_allows(store: httpx.Client) -> None:
    whole = found(store, "resource")
    told = store.post(SEARCH["resource"], json=asked("resource") | {"page": {"limit": 0}}).json()
    assert told["results"] == [] and told["page"]["next_token"] and told["page"]["total"] == len(whole)
    assert store.post(SEARCH["resource"], json=asked("resource") | {"page": {"token": told["page"]["next_token"]}}).json()["results"] == []
    assert store.post(SEARCH["resource"], json=asked("resource") | {"page": {"limit": 10_000_000}}).json()["results"] == whole
    for page in ({}, None, {"limit": None, "token": None}, {"token": ""}, {"properties": {"sort": "x"}, "size": 3}):
        assert store.post(SEARCH["resource"], json=asked("resource") | {"page": page}).json()["results"] == whole
    nobody = store.post(SEARCH["resource"], json=asked("resource", subject=professional(STRANGER))).json()
    assert nobody == {"page": {"next_token": "", "count": 0, "total": 0}, "results": []}


@pytest.mark.parametrize("page", [5, [], "x", {"limit": -1}, {"limit": "5"}, {"limit": 2.5}, {"limit": True}, {"token": 5}, {"token": []}])
def test_a_page_that_is_none_is_400(store: httpx.Client, page: Any) -> None:
    answer = store.post(SEARCH["resource"], json=asked("resource") | {"page": page})
    assert answer.status_code == 400 and isinstance(answer.json(), str)


def token_of(store: httpx.Client, kind: str = "resource", limit: int = 3) -> str:
    return str(store.post(SEARCH[kind], json=asked(kind) | {"page": {"limit": limit}}).json()["page"]["next_token"])


@pytest.mark.parametrize(
    "change",
    [
        {"subject": professional(PHYSICIAN)},
        {"subject": professional(AUTHORISED, structure="750000028")},
        {"action": {"name": "list"}},
        {"resource": {"type": "document", "properties": {"patient": OTHER_PATIENT, "status": "Approved", "confidentiality": ["N"]}}},
        {"context": {"purpose": "care", "x": 1}},
        {"context": {"purpose": "care", "supported_obligations": []}},
        {"page": {"limit": 4}},
    ],
)
def test_a_token_with_changed_entities_or_limit_is_400(store: httpx.Client, change: Json) -> None:
    token = token_of(store)
    assert store.post(SEARCH["resource"], json=asked("resource") | {"page": {"token": token, "limit": 3}}).status_code == 200
    page = {"token": token, **change.pop("page", {})}
    answer = store.post(SEARCH["resource"], json=asked("resource", **change) | {"page": page})
    assert answer.status_code == 400 and "page." in answer.json()


def test_a_token_that_is_none_is_400(store: httpx.Client) -> None:
    token = token_of(store)
    bound, limit, last = json.loads(base64.urlsafe_b64decode(token))
    forged = [[bound, limit], [bound, limit, 5], [bound, -1, last], [bound, True, last], [bound, "3", last], ["x", limit, last], {}, 5, [bound, limit, last, 1]]
    tokens = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode() for one in forged]
    deep = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    for one in [*tokens, "x", "é", "=", token[:-3], token + "x", "  ", deep, base64.urlsafe_b64encode(b"\xff").decode()]:
        answer = store.post(SEARCH["resource"], json=asked("resource") | {"page": {"token": one}})
        assert answer.status_code == 400 and "page.token" in answer.json(), one[:50]
    for kind in ("subject", "action"):
        assert store.post(SEARCH[kind], json=asked(kind) | {"page": {"token": token}}).status_code == 400


def test_a_token_is_good_for_one_revision_of_the_record(server: Server, store: httpx.Client) -> None:
    token = token_of(store)
    with server.client("consent_desk") as desk:
        act(desk, patient(), "refuse_regulation")
    answer = store.post(SEARCH["resource"], json=asked("resource") | {"page": {"token": token}})
    assert answer.status_code == 400 and "changed" in answer.json()


# --- what is hidden leaves nothing -----------------------------------------------------------------------------------


def test_counts_and_pages_reveal_nothing_hidden(server: Server, store: httpx.Client) -> None:
    """A type that is masked from the physician and one that he may never read are missed alike: no gap, no count."""
    before = found(store, "resource", action={"name": "list"})
    with server.client("consent_desk") as desk:
        act(desk, patient(), "mask_documents", **target(before[3]["id"], "type"))
        first = store.post(SEARCH["resource"], json=asked("resource", action={"name": "list"}) | {"page": {"limit": 4}}).json()
        assert names(first["results"]) == names([*before[:3], before[4]])
        assert first["page"] | {"next_token": ""} == {"next_token": "", "count": 4, "total": len(before) - 1}
        act(desk, patient(), "unmask_documents", **target(before[3]["id"], "type"))
    assert found(store, "resource", action={"name": "list"}) == before


# --- what evaluations are asked too ----------------------------------------------------------------------------------

def test_obligations_are_told_with_each_result_and_unsupported_ones_leave_it_out(store: httpx.Client) -> None:
    parts = {"subject": professional(rpps(6), profession="G15_60"), "context": EMERGENCY}
    results = found(store, "resource", **parts)
    assert results and all(one["obligations"] == [{"id": "o1", "type": "flag_access", "properties": {}}] for one in results)
    assert found(store, "resource", **parts | {"context": EMERGENCY | {"supported_obligations": []}}) == []
    assert found(store, "resource", **parts | {"context": EMERGENCY | {"supported_obligations": ["flag_access"]}}) == results
    assert all("obligations" not in one for one in found(store, "resource"))
    assert store.post(SEARCH["resource"], json=asked("resource", context={"supported_obligations": "x"})).status_code == 400


def test_a_consent_token_binds_searches_too(store: httpx.Client) -> None:
    epoch, revision = map(int, store.post(ONE, json=question()).json()["context"]["consent_token"].split("."))
    for kind in SEARCH:
        assert store.post(SEARCH[kind], json=asked(kind, context={"consent_token": f"{epoch}.{revision}"})).status_code == 200
        assert store.post(SEARCH[kind], json=asked(kind, context={"consent_token": f"{epoch}.{revision + 1}"})).status_code == 409
        assert store.post(SEARCH[kind], json=asked(kind, context={"consent_token": 5})).status_code == 400


def test_a_caller_finds_only_subjects_that_it_may_speak_of(server: Server, store: httpx.Client) -> None:
    everybody = names(found(store, "subject", context=EMERGENCY))
    with server.client("small-store") as small:
        assert names(found(small, "subject", context=EMERGENCY)) == sorted({rpps(1), rpps(6), NURSE} & set(everybody)) != []
        for wrong in ({"type": "patient"}, {"type": "professional", "properties": {"role": "regulation"}}, professional(NURSE, profession="G15_10")):
            answer = small.post(SEARCH["subject"], json=asked("subject", subject=wrong))
            assert answer.status_code == 403 and isinstance(answer.json(), str)
            assert logged(server, "refused", caller="small-store")[-1]["why"] == answer.json()
        for kind in ("resource", "action"):
            assert small.post(SEARCH[kind], json=asked(kind, subject=professional(PHYSICIAN))).status_code == 403


def test_a_claim_that_the_directory_contradicts_is_403(server: Server, store: httpx.Client) -> None:
    for kind in ("resource", "action"):
        answer = store.post(SEARCH[kind], json=asked(kind, subject=professional(NURSE, profession="G15_10")))
        assert answer.status_code == 403 and "directory" in answer.json()
        assert logged(server, "refused")[-1]["why"] == answer.json()


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEARCH)
def test_a_search_is_one_entry_that_says_what_was_told(server: Server, store: httpx.Client, kind: str) -> None:
    before = len(logged(server))
    whole = asked(kind) | {"page": {"limit": 2}}
    whole["resource"] = whole["resource"] | {"properties": {**whole["resource"]["properties"], "content": "SECRET"}}
    told = store.post(SEARCH[kind], json=whole, headers={"x-request-id": "r-7"}).json()
    entries = logged(server)
    assert len(entries) == before + 1
    one = entries[-1]
    assert (one["kind"], one["searched"], one["patient"], one["caller"], one["request"]) == ("search", kind, PATIENT, "store", "r-7")
    assert [item[0] for item in one["items"]] == names(told["results"])
    assert one["permitted"] == told["page"]["total"] and one["candidates"] >= one["permitted"] > 2
    assert "SECRET" not in json.dumps(one) and "searched" not in json.dumps({key: one[key] for key in ("subject", "action", "items")})
    assert one["token"] and len(one["pack"]) == 64
    assert ("id" in one["subject"], "name" in one["action"]) == (kind != "subject", kind != "action")


def test_a_search_that_finds_nothing_is_logged_too(server: Server, store: httpx.Client) -> None:
    assert found(store, "resource", subject=professional(STRANGER)) == []
    one = logged(server, "search")[-1]
    assert one["subject"]["id"] == STRANGER and one["items"] == [] and one.get("permitted", 0) == 0 and one["candidates"] > 100


# --- another pack ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(tmp_path_factory.mktemp("library"), pack=str(ROOT / "examples" / "library_pack")) as server, server.client("store") as one:
        yield one


ITEMS = [row["id"] for row in csv.DictReader((ROOT / "examples/library_pack/data/items.csv").read_text().splitlines())]


@pytest.mark.parametrize("action", ["consult", "borrow", "reproduce", "read_register"])
@pytest.mark.parametrize(
    "subject",
    [
        {"type": "reader", "id": "ada", "properties": {"card": "adult"}},
        {"type": "reader", "id": "jim", "properties": {"card": "junior"}},
        {"type": "reader", "id": "rhea", "properties": {"card": "researcher"}},
        {"type": "librarian", "id": "carl", "properties": {"roles": ["desk", "curator"]}},
        {"type": "owner", "id": "town"},
    ],
    ids=lambda one: one["id"],
)
def test_the_entities_that_a_pack_lists_are_searched(library: httpx.Client, subject: Json, action: str) -> None:
    parts = {"subject": subject, "action": {"name": action}, "context": {"on_site": True, "supervised": True}}
    whole = parts | {"resource": {"type": "document", "properties": {"patient": "town"}}}
    answer = library.post(SEARCH["resource"], json=whole)
    if action == "read_register":
        assert answer.status_code == 400
        return
    results = answer.json()["results"]
    items = [parts | {"resource": {"type": "document", "id": id, "properties": {"patient": "town"}}} for id in sorted(ITEMS)]
    assert names(results) == [sorted(ITEMS)[n] for n in permitted(library, items)]
    assert all(one["properties"] == {"patient": "town"} for one in results)


def test_another_pack_finds_readers_and_actions(library: httpx.Client) -> None:
    context = {"on_site": True}
    letters = {"type": "document", "id": "D-400", "properties": {"patient": "aubin"}}
    who = library.post(SEARCH["subject"], json={"subject": {"type": "owner"}, "action": {"name": "consult"}, "resource": letters, "context": context})
    assert names(who.json()["results"]) == ["aubin"]
    what = library.post(SEARCH["action"], json={"subject": {"type": "owner", "id": "aubin"}, "resource": letters, "context": context})
    assert names(what.json()["results"]) == ["consult"]
    told = library.get("/.well-known/authzen-configuration").json()
    assert told["supported_obligations"] == ["sign_register"]


def test_nothing_of_this_was_an_internal_fault(server: Server) -> None:
    """The last test of the module."""
    assert "internal fault" not in server.output() and "Traceback" not in server.output()
