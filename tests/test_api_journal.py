"""The journal, the reviews, the notices and the log over HTTP: each reader is told what he may know, and nothing of the rest."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from api_questions import STRANGER, Json, act, document, logged, open_record, patient, professional, question, record, target
from api_server import NURSE, PATIENT, PHYSICIAN, Server, key_of, serving

from engine.decision_log.checkpoint import open_note, parse_private_key, verifier_key
from engine.decision_log.read import LogReader

pytest_plugins = ["servers"]

CHILD, PARENT = "118045412345627", "290027505601745"
EQUAL = "10000023126"
"""A physician to whom the patient gave equal rights, and no authorisation."""
MOST = 60.0
"""Seconds to wait for the follower; it takes about one."""
GLASS = {"access_mode": "bris_de_glace", "justification": "Patient inconscient", "session": "night-1"}
YESTERDAY = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).isoformat()

BIOLOGY, MASKED = document("DOC-BIO"), document("DOC-MASKED")
HIDDEN = document("DOC-HIDDEN", confidentiality=["INVISIBLE_PATIENT"], deposited=YESTERDAY)
URGENT, SECRET, OPEN = document("DOC-URGENT"), document("DOC-SECRET", patient=CHILD), document("DOC-OPEN", patient=CHILD)
LIMITED = """
[caller.small-portal]
key_sha256 = ["{digest}"]
roles = ["portal"]
subjects = {{ patient = ["{patient}"] }}
"""


class World:
    """A service whose two records have been read by several people; `decisions` are those readings, by a name."""

    def __init__(self, server: Server):
        self.server = server
        self.decisions: dict[str, str] = {}

    def ask(self, name: str, subject: Json, resource: Json, outcome: str = "shown", **context: Any) -> Json:
        """A reading by a store, which then says what became of it."""
        with self.server.client("store") as store:
            answer = store.post("/access/v1/evaluation", json=question(subject, "read", resource, **context)).json()
            self.decisions[name] = answer["context"]["id"]
            if answer["decision"] and outcome:
                said = {"decision": self.decisions[name], "document": resource["id"], "outcome": outcome}
                assert store.post("/access/v1/outcome", json=said).json() == {"recorded": True}
        return answer

    def journal(self, subject: Json, *documents: Json, caller: str = "portal", of: str = PATIENT, status: int = 200, **more: Any) -> Json:
        body = {"subject": subject, "resource": record(of), "context": {"purpose": "care"}, "documents": list(documents), **more}
        with self.server.client(caller) as client:
            answer = client.post("/journal/v1/accesses", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def told(self, subject: Json, *documents: Json, **more: Any) -> list[tuple[str, str]]:
        """Who read what, newest first, as this reader is told."""
        traces = self.journal(subject, *documents, **more)["accesses"]
        return [(one["subject"]["id"], one["document"]["id"]) for one in traces if one["action"] == "read"]

    def soon(self, find: Callable[[], Any]) -> Any:
        until = time.monotonic() + MOST
        while not (found := find()) and time.monotonic() < until:
            time.sleep(0.1)
        assert found, self.server.output()
        return found

    def get(self, path: str, caller: str = "reviewer", status: int = 200, **query: Any) -> Any:
        with self.server.client(caller) as client:
            answer = client.get(path, params=query)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.headers["content-type"] == "application/json" else answer.text

    def post(self, path: str, body: Mapping[str, Any], caller: str, status: int = 200) -> Any:
        with self.server.client(caller) as client:
            answer = client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    limited = LIMITED.format(digest=sha256(key_of("small-portal").encode()).hexdigest(), patient=PATIENT)
    with serving(tmp_path_factory.mktemp("journal"), limited) as server:
        made = World(server)
        _happened(made)
        yield made


def _happened(world: World) -> None:
    """What the tests ask about, in the order in which it happened."""
    open_record(world.server)
    with world.server.client("consent_desk") as desk:
        _adult(world, desk)
        _child(world, desk)
    world.soon(lambda: world.told(patient(CHILD), OPEN, of=CHILD))


def _adult(world: World, desk: Any) -> None:
    act(desk, patient(), "grant_access", **target(NURSE))
    act(desk, patient(), "grant_access", **target(STRANGER))
    act(desk, patient(), "grant_equal_rights", **target(EQUAL))
    for name, subject, resource in (
        ("nurse", professional(NURSE), BIOLOGY),
        ("nurse-again", professional(NURSE), BIOLOGY),
        ("masked", professional(STRANGER), MASKED),
        ("hidden", professional(), HIDDEN),
    ):
        assert world.ask(name, subject, resource)["decision"]
    assert world.ask("not-shown", professional(STRANGER), BIOLOGY, "not_shown")["decision"]
    assert world.ask("unspoken", professional(), BIOLOGY, "")["decision"]
    assert world.ask("emergency", professional(EQUAL), URGENT, **GLASS)["decision"]
    act(desk, patient(), "mask", MASKED)
    assert not world.ask("discreet", professional(STRANGER), MASKED)["decision"]


def _child(world: World, desk: Any) -> None:
    insurance = {"type": "organisation", "id": "750000010", "properties": {"kind": "assurance_maladie", "structure": "750000010"}}
    act(desk, insurance, "open", record(CHILD), birth_date="2018-04-02")
    act(desk, insurance, "declare_representation", record(CHILD), ground="minority", until="2036-04-01", **target(PARENT, "representative"))
    act(desk, patient(CHILD), "grant_access", record(CHILD), **target(PHYSICIAN))
    assert world.ask("secret", professional(), SECRET, secret_session=True)["decision"]
    assert world.ask("open", professional(), OPEN)["decision"]


# --- a patient's journal ---------------------------------------------------------------------------------------------


def test_the_patient_is_told_who_came_when_to_what_and_how(world: World) -> None:
    answer = world.journal(patient(), BIOLOGY, MASKED, URGENT)
    assert answer["decision"] is True and answer["context"]["reason_user"]["fr"]
    emergency, unspoken, *_ = [one for one in answer["accesses"] if one["action"] == "read"]
    assert emergency.pop("at").endswith(("+01:00", "+02:00"))
    assert emergency == {
        "decision": world.decisions["emergency"],
        "subject": professional(EQUAL),
        "action": "read",
        "document": {"id": "DOC-URGENT", "type": "11502-2"},
        "access_mode": "bris_de_glace",
        "emergency": True,
        "first_access": True,
        "patient_request": False,
        "secret_session": False,
        "status": "confirmed",
        "rule": "R14",
    }
    assert (unspoken["subject"]["id"], unspoken["status"], unspoken["emergency"]) == (PHYSICIAN, "unconfirmed", False)
    statuses = {one["decision"]: (one["status"], one["first_access"]) for one in answer["accesses"]}
    assert statuses[world.decisions["nurse"]] == ("confirmed", True) and statuses[world.decisions["nurse-again"]] == ("confirmed", False)
    assert statuses[world.decisions["not-shown"]] == ("not shown", False)
    assert world.decisions["discreet"] not in statuses


def test_acts_are_told_with_whom_they_aim_at(world: World) -> None:
    acts = [(one["action"], one.get("target", {}).get("id")) for one in world.journal(patient())["accesses"] if one["action"] != "read_traces"]
    assert acts[-4:] == [("grant_access", STRANGER), ("grant_access", NURSE), ("declare_treating_physician", PHYSICIAN), ("open", None)]


def test_only_documents_that_the_caller_names_are_told(world: World) -> None:
    assert world.told(patient()) == []
    assert set(world.told(patient(), BIOLOGY)) == {(NURSE, "DOC-BIO"), (STRANGER, "DOC-BIO"), (PHYSICIAN, "DOC-BIO")}


def test_a_document_that_is_hidden_from_the_patient_leaves_no_trace_for_him(world: World) -> None:
    assert "DOC-HIDDEN" not in str(world.journal(patient(), BIOLOGY, HIDDEN))
    assert (PHYSICIAN, "DOC-HIDDEN") in world.told(professional(), BIOLOGY, HIDDEN, caller="consent_desk")


def test_a_masked_document_leaves_no_trace_for_whom_it_is_masked_from(world: World) -> None:
    assert (STRANGER, "DOC-MASKED") in world.told(patient(), MASKED)
    assert (STRANGER, "DOC-MASKED") in world.told(professional(), MASKED, caller="consent_desk")
    told = world.journal(professional(EQUAL), BIOLOGY, MASKED, caller="consent_desk")
    assert told["decision"] is True and "DOC-MASKED" not in str(told)


def test_a_document_that_is_said_to_be_two_things_is_known_to_whoever_may_know_of_both(world: World) -> None:
    """Or else a caller that mixes up its own metadata opens what a mask hides."""
    seen = world.told(professional(EQUAL), BIOLOGY, caller="consent_desk")
    assert seen == []  # equal rights without an authorisation list nothing
    masked = document("DOC-BIO", confidentiality=["INVISIBLE_PATIENT"], deposited=YESTERDAY)
    assert world.told(patient(), BIOLOGY, masked) == [] == world.told(patient(), masked, BIOLOGY)


def test_a_professional_is_told_his_own_acts_whatever_was_masked_since(world: World) -> None:
    answer = world.journal(professional(STRANGER), caller="consent_desk")
    read = [(one["subject"]["id"], one["document"]["id"], one.get("rule")) for one in answer["accesses"] if one["action"] == "read"]
    assert read == [(STRANGER, "DOC-BIO", None), (STRANGER, "DOC-MASKED", None)]


def test_a_representative_is_told_nothing_of_secret_sessions(world: World) -> None:
    representative = {"type": "representative", "id": PARENT}
    told = world.journal(representative, SECRET, OPEN, of=CHILD)
    assert "DOC-SECRET" not in str(told) and world.decisions["secret"] not in str(told)
    assert world.told(representative, SECRET, OPEN, of=CHILD) == [(PHYSICIAN, "DOC-OPEN")]
    assert world.told(patient(CHILD), SECRET, OPEN, of=CHILD) == [(PHYSICIAN, "DOC-OPEN"), (PHYSICIAN, "DOC-SECRET")]


def test_whoever_may_not_read_traces_is_told_why_and_nothing_else(world: World) -> None:
    answer = world.journal(patient(CHILD), BIOLOGY)
    assert answer["decision"] is False and "accesses" not in answer and answer["context"]["reason_user"]["en"]


def test_pages_follow_each_other(world: World) -> None:
    whole = [one["decision"] for one in world.journal(patient(), BIOLOGY, MASKED, URGENT, page={"limit": 500})["accesses"] if one["action"] != "read_traces"]
    seen, token = [], None
    while token != "":
        page = world.journal(patient(), BIOLOGY, MASKED, URGENT, page={"limit": 3} | ({"token": token} if token else {}))
        assert len(page["accesses"]) == page["page"]["count"] <= 3
        seen += [one["decision"] for one in page["accesses"] if one["action"] != "read_traces"]
        token = page["page"]["next_token"]
    assert seen == whole
    assert "before" in world.journal(patient(), status=400, page={"token": "elsewhere"})


def test_a_document_of_another_record_is_a_mistake(world: World) -> None:
    assert "another record" in world.journal(patient(), document("X", patient=CHILD), status=400)


def test_reading_the_journal_is_itself_in_the_log_and_in_the_journal(world: World) -> None:
    answer = world.journal(patient(), BIOLOGY)
    id = answer["context"]["id"]
    (decision,) = logged(world.server, "decision", containing=id, id=id)
    assert (decision["action"]["name"], decision["caller"], decision["patient"]) == ("read_traces", "portal", PATIENT)
    (outcome,) = logged(world.server, "outcome", containing=id, decision=id)
    assert (outcome["outcome"], outcome["caller"]) == ("shown", "portal")
    asked = logged(world.server, "decision", caller="portal", subject={"type": "patient", "id": PATIENT, "properties": {}})[-1]
    assert (asked["action"]["name"], [item[0] for item in asked["items"]]) == ("list", ["DOC-BIO"])
    traces = world.soon(lambda: [one for one in world.journal(patient())["accesses"] if one["decision"] == id])
    assert (traces[0]["action"], traces[0]["status"]) == ("read_traces", "confirmed")


def test_a_caller_shows_only_whom_it_may_speak_for(world: World) -> None:
    assert world.journal(patient(), BIOLOGY, caller="small-portal")["decision"] is True
    world.journal(professional(), BIOLOGY, caller="small-portal", status=403)
    assert logged(world.server, "refused")[-1]["caller"] == "small-portal"


@pytest.mark.parametrize("caller", ["store", "officer", "reviewer"])
def test_only_portals_and_desks_show_a_journal(world: World, caller: str) -> None:
    world.journal(patient(), caller=caller, status=403)


# --- reviews ---------------------------------------------------------------------------------------------------------


def test_an_emergency_is_reviewed_and_the_last_verdict_counts(world: World) -> None:
    id = world.decisions["emergency"]
    (waiting,) = world.get("/journal/v1/reviews", state="open")["reviews"]
    assert (waiting["decision"], waiting["patient"], waiting["subject"]["id"], waiting["state"]) == (id, PATIENT, EQUAL, "open")
    assert waiting["context"]["justification"] == "Patient inconscient"
    for verdict in ("to be clarified", "justified"):
        made = world.post(f"/journal/v1/reviews/{id}", {"verdict": verdict, "comment": "seen with the ward"}, "reviewer")
        assert logged(world.server, "review", containing=made["id"])[0]["verdict"] == verdict
    assert world.get("/journal/v1/reviews", state="open")["reviews"] == []
    (done,) = world.get("/journal/v1/reviews", since=waiting["at"])["reviews"]
    assert (done["state"], done["verdict"], done["reviewer"]) == ("reviewed", "justified", "reviewer")
    assert world.get("/journal/v1/reviews", until=waiting["at"])["reviews"] == []
    assert logged(world.server, "read")[-1] | {"what": "reviews", "caller": "reviewer"} == logged(world.server, "read")[-1]


def test_what_is_no_verdict_is_a_mistake(world: World) -> None:
    id = world.decisions["emergency"]
    world.post(f"/journal/v1/reviews/{id}", {"verdict": " "}, "reviewer", 400)
    world.post(f"/journal/v1/reviews/{world.decisions['nurse']}", {"verdict": "fine"}, "reviewer", 400)
    world.post("/journal/v1/reviews/everything", {"verdict": "fine"}, "reviewer", 400)
    world.get("/journal/v1/reviews", status=400, since="yesterday")
    world.get("/journal/v1/reviews", status=400, state="lost")
    world.get("/journal/v1/reviews", status=400, before="elsewhere")


@pytest.mark.parametrize("caller", ["store", "officer", "portal", "consent_desk"])
def test_only_reviewers_review_and_read_the_log(world: World, caller: str) -> None:
    id = world.decisions["emergency"]
    world.get("/journal/v1/reviews", caller, 403)
    world.post(f"/journal/v1/reviews/{id}", {"verdict": "justified"}, caller, 403)
    world.get(f"/log/v1/decisions/{id}", caller, 403)
    world.get("/log/v1/checkpoint", caller, 403)


# --- notices ---------------------------------------------------------------------------------------------------------


def test_notices_are_taken_once_sent_and_remembered(world: World) -> None:
    listed = world.get("/journal/v1/notices", "officer")["notices"]
    assert {one["what"] for one in listed} >= {"notify_holder", "notify_treating_physician", "notify_first_access"}
    assert PATIENT not in str(listed)
    taken = world.post("/journal/v1/notices", {"lease": 600}, "portal")["notices"]
    assert sorted((one["what"], one["to"], one["patient"]) for one in taken) == [
        ("notify_holder", "holder", PATIENT), ("notify_treating_physician", "treating physicians", PATIENT),
    ]  # fmt: skip
    assert all(one["subject"]["id"] == EQUAL and one["access_mode"] == "bris_de_glace" and one["words"]["fr"] for one in taken)
    assert world.post("/journal/v1/notices", {}, "portal")["notices"] == []
    sent, failed = (one["id"] for one in taken)
    world.post(f"/journal/v1/notices/{sent}", {"state": "sent"}, "portal")
    assert logged(world.server, "notice", containing=sent)[0]["state"] == "sent"
    world.post(f"/journal/v1/notices/{failed}", {"state": "failed", "why": "mailbox full"}, "portal")
    waiting = {one["id"]: one for one in world.get("/journal/v1/notices", "officer")["notices"]}
    assert sent not in waiting and (waiting[failed]["attempts"], waiting[failed]["trouble"]) == (1, "mailbox full")
    world.post(f"/journal/v1/notices/{failed}", {"state": "nobody"}, "portal")
    assert failed not in {one["id"] for one in world.get("/journal/v1/notices", "portal")["notices"]}


def test_whoever_writes_rules_or_reviews_sends_no_notices(world: World) -> None:
    for caller in ("officer", "reviewer", "store", "consent_desk"):
        world.post("/journal/v1/notices", {}, caller, 403)
        world.post(f"/journal/v1/notices/{'0' * 32}", {"state": "sent"}, caller, 403)
    world.post(f"/journal/v1/notices/{'0' * 32}", {"state": "lost"}, "portal", 400)


# --- the log ---------------------------------------------------------------------------------------------------------


def test_a_reviewer_reads_why_a_discreet_refusal_was_one_and_the_reading_is_logged(world: World) -> None:
    id = world.decisions["discreet"]
    told = world.get(f"/log/v1/decisions/{id}")
    (entry,) = told["entries"]
    (item,) = entry["items"]
    assert (entry["subject"]["id"], entry["patient"], entry["caller"]) == (STRANGER, PATIENT, "store")
    assert (item["resource"], item["decision"], item["rule"], item["discreet"]) == ("DOC-MASKED", "refuse", "R09", True)
    assert item["legal_basis"] == "CSP R1111-49" and "masqué" in item["words"]["fr"] and item["facts"]["consent.masked"] is True
    (reading,) = logged(world.server, "read", containing=id, of=id)
    assert (reading["caller"], reading["what"], reading["patient"]) == ("reviewer", "decision", PATIENT)
    with LogReader(f"sqlite:///{world.server.folder}/decision-log") as log:
        assert log.entry(entry["segment"], entry["index"]).body["id"] == id


def test_a_decision_is_read_before_the_journal_has_read_it(world: World) -> None:
    answer = world.ask("just-now", professional(NURSE), BIOLOGY, "")
    assert world.get(f"/log/v1/decisions/{answer['context']['id']}")["entries"][0]["items"][0]["rule"] == "R18"


def test_a_reviewer_has_a_decision_taken_again_on_the_record_as_it_was_known(world: World) -> None:
    for name in ("discreet", "not-shown"):
        told = world.get(f"/log/v1/decisions/{world.decisions[name]}", replay="true")["replay"]
        assert told["same"] is True and told["problem"] == "" and len(told["resources"]) == 1, told
    with world.server.client("consent_desk") as desk:
        id = act(desk, patient(), "refuse_regulation")["context"]["id"]
        act(desk, patient(), "accept_regulation")
    (one,) = world.get(f"/log/v1/decisions/{id}", replay="true")["replay"]["resources"]
    assert one["same"] is True and one["taken"] == [] and one["now"]["decision"] == "permit"
    assert "replay" not in world.get(f"/log/v1/decisions/{id}")


def test_an_act_is_read_as_it_was_asked_and_as_it_ended(world: World) -> None:
    with world.server.client("consent_desk") as desk:
        id = act(desk, patient(), "unmask", MASKED)["context"]["id"]
        act(desk, patient(), "mask", MASKED)
    entries = world.get(f"/log/v1/decisions/{id}")["entries"]
    assert [one["state"] for one in entries] == ["asked", "done"] and entries[1]["items"][0]["rule"] == "W10"


def test_a_decision_that_is_not_in_the_log_is_not_found(world: World) -> None:
    assert "no decision" in world.get(f"/log/v1/decisions/{'0' * 26}", status=404)
    world.get("/log/v1/decisions/everything", status=400)
    outcome = logged(world.server, "outcome")[0]
    world.get(f"/log/v1/decisions/{outcome['id']}", status=404)


def test_the_checkpoint_is_signed(world: World) -> None:
    note = world.soon(lambda: world.get("/log/v1/checkpoint"))
    key = parse_private_key((world.server.folder / "log-key.pem").read_bytes())
    text, signers = open_note(note, [verifier_key(note.split("\n")[0], key)])
    assert len(signers) == 1 and int(text.split("\n")[1]) > 0


# --- the follower ----------------------------------------------------------------------------------------------------


def test_a_journal_that_is_away_stops_its_own_routes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    with serving(tmp_path) as server:
        away = World(server)
        open_record(server)
        assert away.ask("read", professional(), BIOLOGY)["decision"]
        assert "journal" in away.journal(patient(), BIOLOGY, status=503)
        assert "journal" in away.get("/journal/v1/reviews", status=503)
        away.get(f"/log/v1/decisions/{away.decisions['read']}", status=503)
        assert away.get("/health/ready", "store")["status"] == "ready"
        assert "the journal cannot be kept" in server.output() and PATIENT not in server.output()


def test_nothing_is_followed_unless_a_setting_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, follow="false") as server:
        quiet = World(server)
        open_record(server)
        assert quiet.journal(patient(), status=200)["accesses"] == []
        assert quiet.get(f"/log/v1/decisions/{quiet.ask('read', professional(), BIOLOGY)['context']['id']}")["entries"]


@pytest.mark.long
def test_of_two_workers_one_follows_and_both_tell(tmp_path: Path) -> None:
    with serving(tmp_path, workers="2") as server:
        both = World(server)
        open_record(server)
        for n in range(20):
            assert both.ask(str(n), professional(), document(f"DOC-{n}"))["decision"]
        documents = [document(f"DOC-{n}") for n in range(20)]
        both.soon(lambda: len(both.told(patient(), *documents)) == 20)
        assert all(len(both.told(patient(), *documents)) == 20 for _ in range(10))


@pytest.mark.long
def test_log_and_journal_may_live_in_postgresql(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    places = request.getfixturevalue("postgres")
    with serving(tmp_path, log=places.new_place(), journal=places.new_place(), follow="true") as server:
        far = World(server)
        open_record(server)
        assert far.ask("read", professional(), BIOLOGY)["decision"]
        assert far.soon(lambda: far.told(patient(), BIOLOGY)) == [(PHYSICIAN, "DOC-BIO")]
        assert far.get(f"/log/v1/decisions/{far.decisions['read']}")["entries"][0]["items"][0]["rule"] == "R07"
        assert far.get("/log/v1/checkpoint").count("\n") >= 4
