"""Acts are kept, permitted and refused alike: who asked for what, the rule and its reason, on which record; with the directives or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from consent_workers import VOCABULARY, pdp
from sqlalchemy import NullPool, create_engine

from engine.consent.acts import Done, perform, perform_all
from engine.consent.database import Database
from engine.consent.directory import parse_directory
from engine.consent.store import LONGEST_ACT, Act, Conflict, ConsentStore, StaleToken, StoreUnavailable, Token
from engine.errors import RequestError
from engine.request import Action, Entity, Request

if TYPE_CHECKING:
    from servers import Postgres

pytest_plugins = ["servers"]

NOW = 1_795_266_300.0  # 2026-11-21T14:05:00+01:00
PATIENT, OTHER_PATIENT, DOCTOR, NURSE, HOSPITAL = "279035121518989", "114067505601208", "10000000017", "10000000033", "750000028"
HOLDER, HOME = Entity("patient", PATIENT), Entity("record", PATIENT)
HIM = {"type": "professional", "id": DOCTOR}


def ask(action: str, subject: Entity = HOLDER, resource: Entity = HOME, context: dict[str, Any] | None = None, **properties: Any) -> Request:
    return Request(subject, Action(action, properties), resource, {"purpose": "care", **(context or {})})


OPEN, BLOCK = ask("open", birth_date="1979-03-28"), ask("block", target=HIM)
DECLARE = ask("declare_treating_physician", target={**HIM, "profession": "G15_10"})


@pytest.fixture
def store(address: str) -> Iterator[ConsentStore]:
    with ConsentStore(address, VOCABULARY, create=True) as opened:
        yield opened


def do(store: ConsentStore, *requests: Request, at: float = NOW, **more: Any) -> list[Done]:
    return [perform(pdp(), store, request, at, Conflict, **more) for request in requests]


def told(store: ConsentStore, patient: str = PATIENT) -> list[tuple[int, str, str, str, int, int]]:
    """What the acts come to: number, action, decision, rule, revisions before and after."""
    return [(one.number, one.act.action, one.act.decision, one.act.rule, one.before.revision, one.after.revision) for one in store.acts(patient)]


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_acts_are_kept_in_their_order_whatever_became_of_them(store: ConsentStore):
    opened, declared, blocked = do(store, OPEN, DECLARE, BLOCK)
    assert told(store) == [
        (1, "open", "permit", "A10", 0, 2),
        (2, "declare_treating_physician", "permit", "A12-declare", 2, 3),
        (3, "block", "refuse", "A02-block", 3, 3),
    ]
    first, _, last = store.acts(PATIENT)
    assert [first.act.id, last.act.id] == [opened.id, blocked.id] and len(last.act.id) == 26
    assert (first.before, first.after) == (Token(opened.token.epoch, 0), opened.token)
    assert (last.before, last.after) == (declared.token, blocked.token)
    assert store.read(PATIENT, NOW)[1].revision == 3 and [one.directive["kind"] for one in store.history(PATIENT)][-1] == "treating_physician"


def test_a_refused_act_says_who_asked_for_what_when_and_why_not(store: ConsentStore):
    do(store, OPEN, DECLARE)
    do(store, ask("block", context={"basis": "asked by telephone"}, target=HIM), at=NOW + 60)
    kept = store.acts(PATIENT)[-1]
    assert kept.recorded == NOW + 60
    assert kept.act.told == {
        "subject": {"type": "patient", "id": PATIENT, "properties": {}},
        "action": {"name": "block", "properties": {"target": HIM}},
        "resource": {"type": "record", "id": PATIENT, "properties": {}},
        "context": {"purpose": "care", "basis": "asked by telephone"},
        "at": NOW + 60,
        "pack": pdp().pack.digest,
        "legal_basis": pdp().pack.reasons["A02-block"].legal_basis,
        "reason": dict(pdp().pack.reasons["A02-block"].words),
        "discreet": False,
        "done": False,
        "directives": 0,
    }


def test_an_act_is_replayed_from_what_is_kept_of_it(store: ConsentStore):
    do(store, OPEN, DECLARE, BLOCK)
    for kept in store.acts(PATIENT):
        parts = kept.act.told
        entities = [Entity(parts[one]["type"], parts[one]["id"], parts[one]["properties"]) for one in ("subject", "resource")]
        request = Request(entities[0], Action(parts["action"]["name"], parts["action"]["properties"]), entities[1], parts["context"])
        answer = pdp().decide(request, store.as_of(PATIENT, parts["at"], token=kept.before))
        assert (answer.decision, answer.rule) == (kept.act.decision, kept.act.rule)


def test_who_is_refused_at_a_record_that_is_not_his_is_kept_there(store: ConsentStore):
    do(store, OPEN, ask("mask", Entity("patient", OTHER_PATIENT), Entity("document", "DOC-1", {"patient": PATIENT, "status": "Approved"})))
    kept = store.acts(PATIENT)[-1]
    assert (kept.act.action, kept.act.decision, kept.act.told["subject"]["id"]) == ("mask", "refuse", OTHER_PATIENT)
    assert store.acts(OTHER_PATIENT) == ()


def test_an_action_that_records_nothing_is_no_act(store: ConsentStore):
    for done in do(store, ask("read_status"), ask("read_traces", Entity("patient", OTHER_PATIENT))):
        assert (done.id, done.directives) == ("", ())
    assert store.acts(PATIENT) == ()


def test_an_act_may_be_kept_under_the_identifier_of_its_entry_in_the_log(store: ConsentStore):
    (done,) = do(store, OPEN, id="0123456789abcdefghjkmnpqrs")
    assert done.id == store.acts(PATIENT)[0].act.id == "0123456789abcdefghjkmnpqrs"


def test_of_acts_that_are_done_together_each_says_whether_it_was_done(store: ConsentStore):
    do(store, OPEN)
    hospital = Entity("organisation", HOSPITAL, {"kind": "health", "structure": HOSPITAL})
    both = [ask("oppose_feeding", hospital), ask("accept_break_glass", hospital)]
    perform_all(pdp(), store, both, NOW, Conflict)
    perform_all(pdp(), store, [both[0], ask("refuse_regulation", hospital)], NOW, Conflict)
    assert told(store)[1:] == [
        (2, "oppose_feeding", "permit", "A15", 2, 2),
        (3, "accept_break_glass", "refuse", "A15-lifting", 2, 2),
        (4, "oppose_feeding", "permit", "A15", 2, 4),
        (5, "refuse_regulation", "permit", "A15", 2, 4),
    ]
    assert [one.act.told["done"] for one in store.acts(PATIENT)] == [True, False, False, True, True]


def test_the_last_acts_may_be_asked_for_alone(store: ConsentStore):
    do(store, OPEN, *[ask("refuse_break_glass")] * 4)
    assert [one.number for one in store.acts(PATIENT, 2)] == [4, 5]
    assert len(store.acts(PATIENT, 100)) == len(store.acts(PATIENT)) == 5


# --- with the directives, or not at all ------------------------------------------------------------------------------


class Broken(Exception):
    pass


def test_what_is_written_beside_the_directives_is_written_with_them_or_nothing_is(store: ConsentStore):
    do(store, OPEN)

    def breaks(connection: Any) -> None:
        raise Broken

    for request in (BLOCK, ask("unblock", target=HIM)):
        with pytest.raises(Broken):
            perform_all(pdp(), store, [request], NOW, Conflict, also=breaks)
    assert store.read(PATIENT, NOW)[1].revision == 2 and len(store.acts(PATIENT)) == 1


def test_an_act_that_cannot_be_kept_is_not_done(store: ConsentStore, monkeypatch: pytest.MonkeyPatch):
    import engine.consent.store as module

    do(store, OPEN)

    def fails(*_: Any) -> None:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_keep_acts", fails)
        with pytest.raises(StoreUnavailable):
            do(store, BLOCK)
        with pytest.raises(StoreUnavailable):
            do(store, ask("close", Entity("patient", OTHER_PATIENT)))
    assert store.read(PATIENT, NOW)[1].revision == 2 and len(store.acts(PATIENT)) == 1


@pytest.mark.parametrize("request_", [ask("block", context={"note": "x" * LONGEST_ACT}, target=HIM), ask("close", context={"note": "é" * (LONGEST_ACT // 2)})])
def test_an_act_that_is_too_long_to_be_kept_is_an_error_and_nothing_is_written(store: ConsentStore, request_: Request):
    do(store, OPEN)
    expected = r"^request: has 1\d,\d{3} bytes, more than 16,384 \(an act is kept as it was asked: say less in it\)$"
    with pytest.raises(RequestError, match=expected):
        do(store, request_)
    with pytest.raises(RequestError, match="more than 16,384"):
        do(store, Request(Entity("patient", OTHER_PATIENT), request_.action, request_.resource, request_.context))
    assert store.read(PATIENT, NOW)[1].revision == 2 and len(store.acts(PATIENT)) == 1


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800"], ids=["not a number", "an object", "half a character"])
def test_an_act_that_is_not_json_is_an_error(store: ConsentStore, value: object):
    do(store, OPEN)
    with pytest.raises(RequestError, match=r"^request: is not JSON"):
        do(store, ask("close", context={"note": value}))
    assert len(store.acts(PATIENT)) == 1


def test_an_act_that_is_decided_again_is_kept_once_as_it_was_decided_last(store: ConsentStore, monkeypatch: pytest.MonkeyPatch):
    do(store, OPEN)
    append = store.append

    def late(*args: Any, **more: Any) -> Token:
        monkeypatch.setattr(store, "append", append)
        do(store, DECLARE)
        return append(*args, **more)

    monkeypatch.setattr(store, "append", late)
    (done,) = do(store, BLOCK)
    assert done.answer.rule == "A02-block"
    assert told(store)[1:] == [(2, "declare_treating_physician", "permit", "A12-declare", 2, 3), (3, "block", "refuse", "A02-block", 3, 3)]


def test_those_who_are_refused_at_once_are_numbered_one_after_the_other(address: str):
    with ConsentStore(address, VOCABULARY, create=True, timeout=20.0) as store:
        stranger = Entity("patient", OTHER_PATIENT)
        threads = [threading.Thread(target=lambda: do(store, *[ask("close", stranger)] * 5)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [one.number for one in store.acts(PATIENT)] == list(range(1, 31))
        assert store.read(PATIENT, NOW)[1].revision == 0, "nobody opened it"


def test_the_database_itself_refuses_to_edit_an_act(store: ConsentStore, address: str):
    do(store, BLOCK)
    engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    for statement in ("UPDATE acts SET decision = 'permit'", "DELETE FROM acts"):
        with pytest.raises(Exception, match="an act is kept as it was asked, never edited"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    assert told(store) == [(1, "block", "refuse", "R01", 0, 0)]


def test_no_decision_looks_at_acts(store: ConsentStore, monkeypatch: pytest.MonkeyPatch):
    do(store, OPEN, DECLARE, BLOCK)

    def never(*_: Any) -> None:
        raise AssertionError("a read of a record needs its one statement, and nothing else")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "reading", never)
        patch.setattr(type(store._database), "writing", never)
        assert store.read(PATIENT, NOW)[1].revision == 3


def test_acts_are_told_by_a_store_whose_reader_locks_nobody_out(store: ConsentStore):
    do(store, OPEN)
    with store.writing():
        assert len(store.acts(PATIENT)) == 1


@pytest.mark.parametrize("patient", ["", "a\nb", None])
def test_what_is_no_identifier_has_no_acts(store: ConsentStore, patient: Any):
    for call in (lambda: store.acts(patient), lambda: store.note(patient, [Act("1", "block", "refuse", "R01", {})], NOW, Token(1, 0))):
        with pytest.raises(RequestError, match="patient: must be an identifier"):
            call()


# --- backups ---------------------------------------------------------------------------------------------------------


def test_a_backup_carries_the_acts_to_either_kind_of_database(store: ConsentStore, postgres: Postgres, place: Path, address: str):
    do(store, OPEN, DECLARE, BLOCK)
    store.backup(str(place / "backup.db"))
    (lost,) = do(store, ask("refuse_break_glass"))
    with ConsentStore(f"sqlite:///{place}/other.db" if address.startswith("postgresql") else postgres.new_place(), VOCABULARY, create=True) as other:
        do(other, OPEN)
        for one in (other, store):
            one.restore(str(place / "backup.db"))
            assert [(kept.act.action, kept.act.decision) for kept in one.acts(PATIENT)] == [
                ("open", "permit"), ("declare_treating_physician", "permit"), ("block", "refuse"),
            ]  # fmt: skip
            do(one, ask("refuse_regulation"))
            assert told(one)[-1] == (4, "refuse_regulation", "permit", "A01", 3, 4)
            with pytest.raises(StaleToken):
                one.read(PATIENT, NOW, at_least=lost.token)


# --- dates that mislead ----------------------------------------------------------------------------------------------


def test_a_grant_that_ends_before_one_in_force_is_an_error(store: ConsentStore):
    do(store, OPEN, ask("grant_access", target=HIM, until="2026-12-31"))
    with pytest.raises(RequestError) as caught:
        do(store, ask("grant_access", target=HIM, until="2026-12-24"))
    assert str(caught.value) == (
        "the directive `authorisation` of `grant_access`.until: overlaps one that is in force and ends later, and would change nothing "
        "(withdraw that one first)"
    )
    for until in ("2026-12-31", "2027-06-30"):
        assert do(store, ask("grant_access", target=HIM, until=until))[0].directives, "what lasts as long, or longer, is said"
    do(store, ask("revoke_access", target=HIM))
    assert do(store, ask("grant_access", target=HIM, until="2026-12-24"))[0].directives, "and after a withdrawal anything is"
    do(store, ask("consent_care_team", target={"type": "team", "id": HOSPITAL}))
    with pytest.raises(RequestError, match="overlaps one that is in force and has no end"):
        do(store, ask("consent_care_team", target={"type": "team", "id": HOSPITAL}, until="2026-12-24"))


# --- one person under two identifiers --------------------------------------------------------------------------------


def test_a_directive_that_was_recorded_under_another_identifier_holds_for_the_main_one(store: ConsentStore):
    found: list[Any] = []
    directory = parse_directory("people.csv", f"identifier,profession,others\n{DOCTOR},G15_10,8{DOCTOR}\n".encode(), pdp().pack, found)
    settled = store.with_directory(directory)
    store.append(PATIENT, [{"kind": "opened"}, {"kind": "block", "target": {"professional": f"8{DOCTOR}"}}], NOW)
    physician = Entity("professional", DOCTOR, {"profession": "G15_10", "authentication": "DIRECTE"})
    report = Entity("document", "DOC-1", {"patient": PATIENT, "type": "11488-4", "status": "Approved", "confidentiality": ["N"]})
    request = Request(physician, Action("read"), report, {"purpose": "care"})
    assert [pdp().decide(request, one.read(PATIENT, NOW)[0]).rule for one in (store, settled, settled.with_vocabulary(VOCABULARY))] == ["R19", "R05", "R05"]
    assert settled.history(PATIENT)[1].directive["target"] == {"professional": f"8{DOCTOR}"}, "what was said is shown as it was said"
