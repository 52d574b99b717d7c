"""The journal says what the log says: no more, no less, in whatever order it was read, and to nobody what he may not know."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from consent_workers import Worker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_workers import (
    BREAK_GLASS,
    NOON,
    NURSE,
    PATIENT,
    PHYSICIAN,
    STRUCTURE,
    act,
    asked,
    follow,
    grant,
    other,
    pack,
    pdp,
    read,
    search,
    shown,
    written,
)
from sqlalchemy import select
from typer.testing import CliRunner

from cli import journal
from cli.main import app
from engine.consent.store import ConsentStore
from engine.decision_log.expunge import expunge
from engine.decision_log.log import DecisionLog
from engine.decision_log.read import LogReader
from engine.decision_log.storage import LogUnavailable
from engine.errors import RequestError
from engine.journal import tables as t
from engine.journal.database import Database, JournalUnavailable
from engine.journal.derive import PATIENCE, derive
from engine.journal.follower import Follower, keep, rebuild
from engine.journal.notices import LEASE, LONGEST_WAIT, STALE, Notice, Outbox
from engine.journal.queries import EVERYTHING, Journal, View, position, view_of
from engine.request import Action, Entity, Request
from engine.service import By, Service

pytest_plugins = ["servers"]

LATER = NOON + 86_400
"""When every notice is due."""


class World:
    """A log, its journal, and a follower, in one kind of database."""

    def __init__(self, log: str, journal: str):
        self.log_url, self.journal_url = log, journal
        self.log = DecisionLog(log, name="worker-1", create=True, timeout=20)
        self.reader = LogReader(log, timeout=20)
        self.database = Database(journal, create=True, timeout=20)
        self.follower = Follower(self.reader, self.database)
        self.journal = Journal(self.database)
        self.outbox = Outbox(self.database, self.log.append_now)

    def write(self, *entries: Mapping[str, Any] | bytes, log: DecisionLog | None = None) -> None:
        (log or self.log).append_now(*written(*entries))

    def told(self, *entries: Mapping[str, Any] | bytes) -> World:
        """The same after the follower has read these, and the pack."""
        self.write(pack(), *entries)
        self.follower.step()
        return self

    def documents(self, view: View = EVERYTHING, hidden: Sequence[str] = (), **more: Any) -> list[str]:
        return [one.document for one in self.journal.page(PATIENT, view, may_see_all_but(*hidden), **more).traces]

    def pending(self, now: float = LATER, **more: Any) -> list[Notice]:
        return self.outbox.pending(100, now, **more)

    def close(self) -> None:
        self.follower.stop()
        self.log.close()
        self.reader.close()
        self.database.close()


def may_see_all_but(*hidden: str) -> Callable[[Any], set[str]]:
    return lambda documents: {one for one in documents if one not in hidden}


@pytest.fixture(params=["sqlite", "postgresql"])
def addresses(request: pytest.FixtureRequest, place: Path) -> tuple[str, str]:
    if request.param == "sqlite":
        return f"sqlite:///{place}/log", f"sqlite:///{place}/journal.db"
    server = request.getfixturevalue("postgres")
    return server.new_place(), server.new_place()


@pytest.fixture
def world(addresses: tuple[str, str]) -> Iterator[World]:
    made = World(*addresses)
    yield made
    made.close()


@pytest.fixture
def here(place: Path) -> Iterator[World]:
    """The same in files: for what does not depend on the kind of database."""
    made = World(f"sqlite:///{place}/log", f"sqlite:///{place}/journal.db")
    yield made
    made.close()


def dump(database: Database) -> dict[str, list[Any]]:
    """All that was derived. Where entries are, and how often it was tried to send a notice, is not."""
    apart = {"cursors", "problems", "entries"}
    dumped = {}
    with database.reading() as connection:
        for table in t.metadata.sorted_tables:
            columns = [one for one in table.columns if one.name not in ("attempts", "not_before", "trouble", "complete", "origin")]
            if (name := table.name.removeprefix("journal_")) not in apart:
                dumped[name] = sorted(tuple(row) for row in connection.execute(select(*columns)))
        dumped["entries"] = sorted(tuple(row) for row in connection.execute(select(t.entries.c.id, t.entries.c.kind, t.entries.c.at, t.entries.c.patient)))
        dumped["problems"] = sorted(connection.execute(select(t.problems.c.why)).scalars())
    return dumped


# --- what is an access -----------------------------------------------------------------------------------------------


def test_an_access_tells_who_when_what_and_how(world: World) -> None:
    decision = read(at=60, context={"access_mode": "normal", "patient_request": True})
    world.told(decision, shown(decision))
    (trace,) = world.journal.page(PATIENT, EVERYTHING).traces
    assert asdict(trace) == {
        "decision": decision["id"], "at": NOON + 60, "action": "read", "document": "DOC-1", "type": "11488-4", "target": None, "access_mode": "normal",
        "subject": {"type": "professional", "id": PHYSICIAN, "properties": {"profession": "G15_10", "structure": STRUCTURE}},
        "patient_request": True, "first": True, "emergency": False, "secret": False, "status": "confirmed", "rule": "R18",
    }  # fmt: skip
    assert world.journal.problems() == []


@pytest.mark.parametrize("action", ["list", "preview"])
def test_looking_without_seeing_is_no_access(here: World, action: str) -> None:
    here.told(asked(action, "R18", ["DOC-1", "DOC-2"]), search(), other("read", what="journal", caller="cli"), other("ready"))
    assert here.documents() == [] and here.pending() == [] and here.journal.problems() == []


def test_what_was_refused_or_withheld_is_no_access(here: World) -> None:
    here.told(read(rule="R09"), read(rule=""), asked("read", "R18", ["DOC-1", "DOC-2"], withheld=[0]))
    assert here.documents() == ["DOC-2"]


def test_each_document_of_a_list_that_is_read_is_an_access_once(world: World) -> None:
    decision = asked("read", "R18", ["DOC-1", "DOC-2", "DOC-1"])
    world.told(decision, shown(decision, "DOC-2"))
    assert [(one.document, one.status) for one in world.journal.page(PATIENT, EVERYTHING).traces] == [("DOC-2", "confirmed"), ("DOC-1", "unconfirmed")]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ([], "unconfirmed"),
        (["shown"], "confirmed"),
        (["not_shown"], "not shown"),
        (["not_shown", "shown"], "confirmed"),
        (["shown", "not_shown"], "confirmed"),
    ],
)
def test_the_store_says_what_became_of_a_permit_before_or_after(here: World, said: list[str], status: str) -> None:
    early, late = read(), read("DOC-2")
    here.told(*(shown(early, word=word) for word in said), early, late, *(shown(late, word=word) for word in said))
    assert {one.status for one in here.journal.page(PATIENT, EVERYTHING).traces} == {status}
    assert len(here.journal.unconfirmed()) == (2 if status == "unconfirmed" else 0)


def test_nobody_else_can_say_what_became_of_it(here: World) -> None:
    decision = read()
    here.told(decision, shown(decision, caller="store-2"), shown(decision, "DOC-9"))
    assert here.journal.page(PATIENT, EVERYTHING).traces[0].status == "unconfirmed"


@pytest.mark.parametrize(
    ("states", "status"), [(["asked"], "unconfirmed"), (["asked", "done"], "confirmed"), (["done", "asked"], "confirmed"), (["refused", "asked"], "not shown")]
)
def test_an_act_says_itself_what_became_of_it(here: World, states: list[str], status: str) -> None:
    target = {"type": "professional", "id": NURSE}
    rules = {"asked": "A01-block", "done": "A01-block", "refused": "A02-block"}
    here.told(*(act("block", rules[state], state, id="0" * 26, said={"target": target}) for state in states))
    (trace,) = here.journal.page(PATIENT, EVERYTHING).traces
    assert (trace.action, trace.document, trace.target, trace.status) == ("block", "", target, status)
    assert [one.kind for one in here.journal.places("0" * 26)] == ["act"] * len(states)


def test_a_whole_decision_is_found_by_its_identifier(world: World) -> None:
    decisions = [read(f"DOC-{n}") for n in range(20)]
    world.told(*decisions)
    (place,) = world.journal.places(decisions[13]["id"])
    entry = world.reader.entry(place.segment, place.index)
    assert entry is not None and entry.body == json.loads(json.dumps(decisions[13]))


def test_what_a_professional_did_in_every_record(here: World) -> None:
    here.told(read(), read(patient="160022A12345676", at=5), read(subject=NURSE))
    found = here.journal.by_subject(Entity("professional", PHYSICIAN))
    assert [patient for patient, _ in found] == ["160022A12345676", PATIENT]
    assert [patient for patient, _ in here.journal.by_subject(Entity("professional", PHYSICIAN), before=position(found[0][1]))] == [PATIENT]


# --- who may see what ------------------------------------------------------------------------------------------------

HOLDER = view_of([{"id": "any", "properties": {"traces": "known"}}], Entity("patient", PATIENT))
REPRESENTATIVE = view_of([{"id": "any", "properties": {"traces": "not secret"}}], Entity("representative", "160022A12345676"))
OWN = view_of([{"id": "any", "properties": {"traces": "own"}}], Entity("professional", PHYSICIAN))


def test_the_policy_says_what_a_reader_sees() -> None:
    assert View(secret=True) == HOLDER
    assert REPRESENTATIVE == View() == view_of([], Entity("patient", PATIENT)), "what the pack does not open stays shut"
    assert View(own=Entity("professional", PHYSICIAN), documents=False, secret=True) == OWN
    both = [{"id": "a", "properties": {"traces": "known"}}, {"id": "b", "properties": {"traces": "not secret", "without": "mask_documents unmask_documents"}}]
    assert view_of(both, Entity("patient", PATIENT)) == View(without=frozenset({"mask_documents", "unmask_documents"}))
    for rule, view in (("A06", HOLDER), ("A06-holder", HOLDER), ("A06-representative", REPRESENTATIVE), ("A06-own", OWN)):
        said = [{"id": one.id, "properties": one.properties} for one in (pdp().pack.obligations[id] for id in pdp().pack.reasons[rule].obligations)]
        assert view_of(said, Entity("professional", PHYSICIAN)) == view


def test_the_holder_sees_no_trace_of_what_is_hidden_from_him(here: World) -> None:
    here.told(read("DOC-1"), read("HIDDEN", at=1), act("block", "A01-block", at=2))
    assert here.documents(HOLDER, ["HIDDEN"]) == ["", "DOC-1"]
    assert [one.rule for one in here.journal.page(PATIENT, HOLDER, may_see_all_but()).traces] == ["A01-block", "R18", "R18"]


def test_a_representative_sees_nothing_of_secret_sessions(here: World) -> None:
    here.told(read("DOC-1", context={"secret_session": True}), read("DOC-2", at=1), read("DOC-3", at=2, context={"secret_session": "?"}))
    page = here.journal.page(PATIENT, REPRESENTATIVE, may_see_all_but())
    assert [(one.document, one.first, one.rule) for one in page.traces] == [("DOC-2", True, "")]
    assert here.documents(HOLDER) == ["DOC-3", "DOC-2", "DOC-1"]


def test_a_professional_sees_his_own_acts_whatever_was_masked_since(here: World) -> None:
    here.told(read("DOC-1"), read("DOC-2", at=1, subject=NURSE), read("DOC-3", at=2))
    page = here.journal.page(PATIENT, OWN)
    assert [(one.document, one.first, one.rule) for one in page.traces] == [("DOC-3", False, ""), ("DOC-1", True, "")]


def test_acts_that_are_nothing_for_a_reader_are_left_out(here: World) -> None:
    here.told(act("mask_documents", "A01"), act("block", "A01-block", at=1))
    assert [one.action for one in here.journal.page(PATIENT, View(without=frozenset({"mask_documents"})), may_see_all_but()).traces] == ["block"]


def test_no_page_without_knowing_what_may_be_seen(here: World) -> None:
    here.told(read())
    with pytest.raises(AssertionError):
        here.journal.page(PATIENT, HOLDER)

    def unavailable(documents: object) -> set[str]:
        raise JournalUnavailable("gone")

    with pytest.raises(JournalUnavailable, match="gone"):
        here.journal.page(PATIENT, HOLDER, unavailable)


def pages(journal: Journal, view: View, hidden: Sequence[str], limit: int) -> list[Any]:
    """Every page, with the places where the next ones begin."""
    made, before = [], ""
    while True:
        page = journal.page(PATIENT, view, may_see_all_but(*hidden), limit, before)
        made.append(page)
        if not (before := page.next):
            return made


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([PHYSICIAN, NURSE]), st.booleans(), st.integers(0, 3)), max_size=14), st.integers(1, 4))
def test_what_is_hidden_leaves_no_mark(place: Path, several: list[tuple[int, str, bool, int]], limit: int) -> None:
    """The pages of a reader are those of a journal in which what he may not see never happened: traces, marks, sizes, positions."""
    hidden = ["DOC-0", "DOC-1"]
    entries = [
        read(f"DOC-{document}", at=at, subject=who, context={"secret_session": True} if secret else {}, id=f"{n:026}")
        for n, (document, who, secret, at) in enumerate(several)
    ]
    for view in (HOLDER, REPRESENTATIVE):
        open_to_him = [one for one in entries if one["items"][0][0] not in hidden and (view.secret or "secret_session" not in one["context"])]
        whole, bare = (Journal(derived(place, [pack(), *some])) for some in (entries, open_to_him))
        assert pages(whole, view, hidden, limit) == pages(bare, view, hidden, limit)
        for one in (whole, bare):
            one.database.close()


def derived(place: Path, entries: Sequence[Any], order: random.Random | None = None) -> Database:
    """A journal of these entries, kept in some order, so many at a time."""
    path = place / f"derived-{time.monotonic_ns()}.db"
    database = Database(f"sqlite:///{path}", create=True)
    meanings: dict[str, Any] = {}
    rows = [derive(json.loads(one), "segment", n, meanings) for n, one in enumerate(written(*entries))]
    if order is not None:
        order.shuffle(rows)
    while rows:
        batch, rows = (rows, []) if order is None else (rows[: (size := order.randrange(1, 5))], rows[size:])
        together = batch[0]
        for one in batch[1:]:
            together.add(one)
        with database.writing() as connection:
            keep(connection, together)
    return database


def test_pages_go_on_where_they_stopped_while_others_write(here: World) -> None:
    here.told(*(read(f"DOC-{n}", at=n // 3) for n in range(10)))
    first = here.journal.page(PATIENT, EVERYTHING, limit=4)
    here.write(read("LATER", at=60))
    here.follower.step()
    second = here.journal.page(PATIENT, EVERYTHING, limit=4, before=first.next)
    third = here.journal.page(PATIENT, EVERYTHING, limit=4, before=second.next)
    assert len({one.document for page in (first, second, third) for one in page.traces}) == 10 and third.next == ""
    for nonsense in ("x", "AAAA", "W10=", "é"):
        with pytest.raises(RequestError, match="before: is not the position of a page"):
            here.journal.page(PATIENT, EVERYTHING, before=nonsense)


# --- notices ---------------------------------------------------------------------------------------------------------


def told_to(notices: Sequence[Notice]) -> list[tuple[str, str, bool]]:
    return sorted((one.what, one.to, one.private) for one in notices)


def test_the_first_access_of_a_professional_is_told_to_the_holder_once(world: World) -> None:
    world.told(read(at=5), read("DOC-2", at=3, properties={}), read(at=9, subject=NURSE), read(rule="R07", at=99))
    world.told(read(rule="H01", kind="patient", subject=PATIENT))
    assert world.pending(NOON + 3) == [], "its store may yet say that it showed nothing"
    notices = world.pending(NOON + 9 + PATIENCE)
    assert [(one.what, one.to, one.private, one.subject["id"], one.at) for one in notices] == [
        ("notify_first_access", "holder", False, PHYSICIAN, NOON + 3),
        ("notify_first_access", "holder", False, NURSE, NOON + 9),
    ]
    assert notices[0].words == pdp().pack.obligations["notify_first_access"].words and "DOC" not in str(notices)


def test_an_access_that_was_not_shown_is_not_told(here: World) -> None:
    first, second, third = read(at=1), read("DOC-2", at=2), asked("read", "R18", ["DOC-3", "DOC-4"], at=3)
    here.told(first, shown(first, word="not_shown"), shown(second, word="not_shown"), second, third, shown(third, "DOC-3", "not_shown"))
    assert [one.at for one in here.pending()] == [NOON + 3]
    here.write(shown(third, "DOC-4", "not_shown"))
    here.follower.step()
    assert here.pending(LATER + LEASE) == []
    here.write(shown(second))
    here.follower.step()
    assert [one.at for one in here.pending(LATER + LEASE)] == [NOON + 2]
    assert [(one.document, one.first) for one in here.journal.page(PATIENT, EVERYTHING).traces if one.first] == [("DOC-2", True)]


@pytest.mark.parametrize(
    ("target", "count"), [({"professional": PHYSICIAN}, 2), ({"structure": STRUCTURE}, 2), ({"professional": NURSE}, 1), ({"structure": "750000044"}, 1)]
)
def test_after_a_new_authorisation_the_first_access_is_told_again(here: World, target: dict[str, str], count: int) -> None:
    entries = [read(at=1), read(at=2), grant(3, **target), read(at=4), read(at=5)]
    here.write(pack("authorisation"), *entries)
    here.follower.step()
    assert [one.at for one in here.pending()] == [NOON + 1, NOON + 4][:count]


def test_a_withdrawal_is_no_new_authorisation(here: World) -> None:
    withdrawn = act("revoke_access", "A01", at=3, directives=[{"kind": "authorisation", "withdraw": True, "target": {"professional": PHYSICIAN}}])
    here.write(pack("authorisation"), read(at=1), withdrawn, read(at=4))
    here.follower.step()
    assert [one.at for one in here.pending()] == [NOON + 1]


def test_an_emergency_is_told_once_for_a_session_also_when_only_a_list_was_seen(here: World) -> None:
    session = {**BREAK_GLASS, "session": "S-1"}
    here.told(asked("list", "R14", ["DOC-1", "DOC-2"], context=session), read(rule="R14", at=1, context=session), read(rule="R14", at=2, context=session))
    assert told_to(here.pending()) == [("notify_holder", "holder", False), ("notify_treating_physician", "treating physicians", False)]
    here.write(
        read(rule="R14", at=3, context={**BREAK_GLASS, "session": "S-2"}),
        read(rule="R14", at=4, context=session, caller="store-2"),
        read(rule="R14", at=86_400, context=session),
    )
    here.follower.step()
    assert len(here.pending(LATER + LEASE * 2)) == 2 + 3 * 2, "another session, another caller's session of the same name, another day"


def test_without_a_session_every_emergency_is_told(here: World) -> None:
    here.told(*(read(rule="R11", at=n, context={"access_mode": "centre_15"}) for n in range(3)), read(rule="R11", at=9, context={"session": " "}))
    assert len(here.pending(NOON + 9)) == 8, "at once"


def test_a_secret_session_is_told_to_the_holder_alone(here: World) -> None:
    secret = {"secret_session": True}
    here.told(read(at=1, context=secret), read(rule="R14", at=2, context=BREAK_GLASS | secret), read(at=3))
    assert told_to(here.pending()) == [("notify_first_access", "holder", False), ("notify_first_access", "holder", True), ("notify_holder", "holder", True)]
    assert {one.at for one in here.pending(LATER + LEASE * 2) if not one.private} == {NOON + 3}, "what others are told does not depend on it"


def test_an_emergency_is_marked_and_queued(here: World) -> None:
    here.told(
        read(rule="R14", context=BREAK_GLASS), read(rule="R11", at=1), read(at=2), asked("deposit", "W02", ["NEW"], at=3), asked("list", "R14", ["DOC-1"], at=4)
    )
    assert [one.emergency for one in here.journal.page(PATIENT, EVERYTHING).traces] == [True, False, True, True]
    assert [one.at - NOON for one in here.journal.reviews()] == [4, 3, 0]
    assert here.journal.reviews(since=NOON, until=NOON + 1)[0].context["justification"] == "unconscious"


def test_a_reviewer_says_what_he_found(world: World) -> None:
    emergencies = [read(rule="R14", at=n, context=BREAK_GLASS) for n in range(3)]
    world.told(*emergencies)
    first, second, _ = (one["id"] for one in emergencies)
    world.journal.review(first, "reviewer-1", "abuse", "was not on duty", NOON + 9, world.log.append_now)
    world.journal.review(first, "reviewer-2", "justified", "", NOON + 10, world.log.append_now)
    for _ in range(2):
        states = {one.decision: (one.state, one.reviewer, one.verdict, one.reviewed) for one in world.journal.reviews(state="reviewed")}
        assert states == {first: ("reviewed", "reviewer-2", "justified", NOON + 10)}
        assert len(world.journal.reviews(state="open")) == 2
        rebuild(world.database)
        world.follower.step()
    latest = world.journal.reviews(limit=1)
    assert [one.decision for one in world.journal.reviews(before=position(latest[0]))] == [second, first]
    with pytest.raises(RequestError, match="is not one of those to be reviewed"):
        world.journal.review("0" * 26, "reviewer-1", "abuse", "", NOON, world.log.append_now)
    with pytest.raises(RequestError, match="verdict: is blank"):
        world.journal.review(first, "reviewer-1", " ", "", NOON, world.log.append_now)
    with pytest.raises(RequestError, match="state: is `open` or `reviewed`"):
        world.journal.reviews(state="shut")


# --- sending ---------------------------------------------------------------------------------------------------------


def test_a_notice_is_given_to_one_sender_at_a_time_until_it_is_sent(world: World) -> None:
    world.told(read(), read(subject=NURSE))
    one = world.outbox.pending(1, LATER)
    two = world.outbox.pending(5, LATER)
    assert len(one) == len(two) == 1 and one != two
    assert world.pending() == []
    assert len(world.pending(LATER + LEASE)) == 2, "a sender that died has told nobody"
    world.outbox.sent(one[0].id, LATER)
    world.outbox.nobody(two[0].id, LATER)
    assert world.pending(LATER + 10 * LEASE) == [] and world.outbox.waiting() == []


def test_what_fails_is_given_again_later_and_later(here: World) -> None:
    here.told(read())
    now, waits = LATER, []
    for n in range(12):
        (notice,) = here.pending(now)
        assert notice.attempts == n
        here.outbox.failed(notice.id, "the channel is shut", now)
        assert here.pending(now + 29) == []
        (waiting,) = here.outbox.waiting()
        assert (waiting.attempts, waiting.trouble) == (n + 1, "the channel is shut")
        with here.database.reading() as connection:
            due = connection.execute(select(t.notices.c.not_before)).scalar_one()
        waits.append(due - now)
        now = due
    assert waits == [min(30 * 2**n, LONGEST_WAIT) for n in range(12)]


def test_a_journal_made_anew_does_not_send_again(world: World) -> None:
    world.told(read(), read(subject=NURSE))
    sent, kept = world.pending()
    world.outbox.sent(sent.id, LATER)
    rebuild(world.database)
    assert world.pending(LATER + LEASE) == [], "what was sent is not known yet"
    world.follower.step()
    assert [one.id for one in world.pending(LATER + LEASE)] == [kept.id]


def test_nothing_is_sent_before_the_log_was_read_to_its_end(here: World) -> None:
    here.told(read())
    with DecisionLog(here.log_url, name="z-last", timeout=20) as log:
        Outbox(here.database, log.append_now).sent(here.pending()[0].id, LATER)
    rebuild(here.database)
    here.follower.step()
    assert here.pending(LATER + LEASE) == []
    rebuild(here.database)
    damage(here, "z-last")
    with pytest.raises(LogUnavailable):
        here.follower.step()
    assert len(here.outbox.waiting()) == 1 and here.pending(LATER + LEASE) == []


def test_nothing_is_sent_that_the_log_does_not_know_of(here: World) -> None:
    here.told(read())
    (notice,) = here.pending()
    here.log.close()
    with pytest.raises(LogUnavailable):
        here.outbox.sent(notice.id, LATER)
    assert len(here.pending(LATER + LEASE)) == 1


def damage(world: World, name: str) -> None:
    """Put nonsense in the place of a segment of the log."""
    first, *others = sorted(Path(world.database.path).parent.glob(f"log/{name}*"))
    for one in (first, *others):
        one.unlink()
    first.write_bytes(b"nothing that SQLite knows" * 1000)


# --- what cannot be understood ---------------------------------------------------------------------------------------


BROKEN: list[tuple[Any, str]] = [
    ({"kind": "decision", "id": "1" * 26, "at": NOON}, "missing required field `subject`"),
    ({"kind": "tea", "id": "2" * 26, "at": NOON}, "its kind is not one that the journal knows"),
    ({"id": "3" * 26}, "missing required field `kind`"),
    (b"[]", "Expected `object`"),
    (b"no json", "Expected `object`"),
    (read() | {"at": -1}, "Expected `float` >= 0"),
    (read() | {"pack": "another"}, "the log does not say what the codes of its pack mean"),
    (read() | {"items": [["DOC-1", None, 0, 9_999, ""]]}, "it has an outcome that its pack does not have"),
    (read() | {"items": [["D" * 600, None, 0, 0, ""]]}, "Expected `str` of length <= 512"),
    (other("outcome", decision="x", document="y", outcome="maybe", caller="z"), "an outcome is `shown` or `not_shown`"),
    (other("review", decision="x"), "missing required field `verdict`"),
]


def test_what_is_not_understood_is_counted_and_stops_nothing(world: World) -> None:
    world.told(*(one for one, _ in BROKEN), read())
    assert len(world.documents()) == 1
    found = world.journal.problems()
    assert [number for _, number, _ in found] == list(range(1, len(BROKEN) + 1))
    for (_, _, why), (_, expected) in zip(found, BROKEN, strict=True):
        assert expected in why and PATIENT not in why and "DOC" not in why


@pytest.mark.parametrize("poison", ["DOC-\x00", "DOC-\ud800"], ids=["a null", "half a character"])
def test_what_a_database_cannot_hold_stops_nothing(world: World, poison: str) -> None:
    world.told(*(read(f"DOC-{n}", at=n) for n in range(5)), read(poison, at=5), *(read(f"DOC-{n}", at=n) for n in range(6, 9)))
    assert [one for one in world.documents() if one != poison] == [f"DOC-{n}" for n in (8, 7, 6, 4, 3, 2, 1, 0)]
    assert len(world.journal.problems()) + (poison in world.documents()) == 1


def test_an_entry_waits_for_the_meaning_of_its_codes(world: World) -> None:
    world.write(read())
    assert world.follower.step() == 1
    assert world.documents() == [] and "pack" in world.journal.problems()[0][2]
    with DecisionLog(world.log_url, name="another", timeout=20) as log:
        world.write(pack(), log=log)
        world.follower.step()
    assert world.documents() == ["DOC-1"] and world.journal.problems() == [] and len(world.pending()) == 1


def test_of_entries_that_waited_one_that_cannot_be_kept_stops_nothing(world: World) -> None:
    world.write(read("DOC-\x00"), read())
    world.follower.step()
    assert len(world.journal.problems()) == 2
    world.told(read("DOC-2", at=1))
    assert {"DOC-2", "DOC-1"} <= set(world.documents())
    assert len(world.journal.problems()) == 3 - len(world.documents())
    assert world.follower.step() == 0


def test_a_pack_that_owes_what_nobody_does_is_reported(here: World) -> None:
    body = json.loads(pack())
    body["obligations"] |= {"ring_a_bell": {"to": "service", "properties": {}}, "tell": {"to": "service", "properties": {"to": "x", "y": "@resource.z"}}}
    here.write(json.dumps(body).encode(), read())
    here.follower.step()
    ((_, _, why),) = here.journal.problems()
    assert why == "the pack owes by the service what the journal does not know: ring_a_bell, tell"
    assert here.documents() == ["DOC-1"]


def test_what_is_expunged_is_forgotten(world: World) -> None:
    """What the journal knew of it goes, and what was told once is not told again; a journal made anew knows the same."""
    old, new = [read(rule="R14", context=BREAK_GLASS), read("DOC-2", at=1), grant(2)], [read("DOC-3", at=10), read("DOC-4", subject=NURSE, at=11)]
    world.write(pack("authorisation"), *old, *(shown(one) for one in old[:2]), *new)
    world.follower.step()
    world.journal.review(old[0]["id"], "reviewer-1", "fine", "", NOON + 4, world.log.append_now)
    told = {one.at for one in world.pending()}
    assert told == {NOON, NOON + 1, NOON + 10, NOON + 11}
    expunge(world.log_url, NOON + 5, LATER, "officer")
    world.follower.step()
    assert world.documents() == ["DOC-4", "DOC-3"] and world.journal.reviews() == [] and world.journal.places(old[0]["id"]) == []
    assert [one.at - NOON for one in world.pending(LATER + 2 * LEASE)] == [10, 11]
    kept = dump(world.database)
    rebuild(world.database)
    world.follower.step()
    assert world.journal.problems() == []
    assert {name: rows for name, rows in dump(world.database).items() if name != "counts"} == {name: rows for name, rows in kept.items() if name != "counts"}


def test_a_notice_of_long_ago_is_listed_and_not_given(here: World) -> None:
    here.told(read())
    assert here.pending(NOON + 2 * STALE) == [] and len(here.outbox.waiting()) == 1


def test_a_segment_that_cannot_be_read_does_not_stop_the_others(here: World) -> None:
    here.told(read())
    with DecisionLog(here.log_url, name="a-first", timeout=20) as log:
        here.write(read("DOC-2", at=1), log=log)
    damage(here, "a-first")
    here.write(read("DOC-3", at=2))
    with pytest.raises(LogUnavailable, match=r"segment a-first.* is damaged: verify the log"):
        here.follower.step()
    assert here.documents() == ["DOC-3", "DOC-1"]


def test_a_journal_follows_one_log(here: World, place: Path) -> None:
    here.told(read())
    with DecisionLog(f"sqlite:///{place}/other", create=True) as log, LogReader(f"sqlite:///{place}/other") as reader:
        log.append_now(pack())
        other_one = Follower(reader, here.database)
        here.follower.stop()
        with pytest.raises(JournalUnavailable, match="the journal was derived from another log"):
            other_one.step()
        other_one.stop()
    assert here.documents() == ["DOC-1"]


def test_a_journal_of_another_shape_is_not_touched(here: World) -> None:
    with here.database.writing() as connection:
        connection.execute(t.journal.update().values(version=99))
    with pytest.raises(JournalUnavailable, match="made by another version of Habilis: delete it, and it is derived from the log again"):
        Database(here.journal_url)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("sqlite://", "needs a file"),
        ("mysql://x/y", "SQLite or PostgreSQL, not in `mysql`"),
        ("x", "not the address"),
        ("sqlite:////nowhere/x.db", "no journal at"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(address: str, message: str) -> None:
    with pytest.raises(JournalUnavailable, match=message):
        Database(address)


def test_a_database_that_is_gone_is_said_without_a_patient(here: World) -> None:
    here.told(read())
    with sqlite3.connect(here.database.path) as connection:
        connection.execute("DROP TABLE journal_accesses")
    with pytest.raises(JournalUnavailable) as error:
        here.documents()
    assert str(error.value).startswith("the journal cannot be reached (OperationalError") and PATIENT not in str(error.value)


# --- order, interruption, two followers ------------------------------------------------------------------------------


def story(chance: random.Random, length: int) -> list[dict[str, Any]]:
    """Entries of a busy day: accesses, lists, emergencies, acts, outcomes of all of them, verdicts, deliveries."""
    made: list[dict[str, Any]] = []
    for n in range(length):
        more: dict[str, Any] = {"at": chance.randrange(50), "subject": chance.choice([PHYSICIAN, NURSE])}
        more["patient"] = chance.choice([PATIENT, "160022A12345676"])
        more["context"] = chance.choice([{}, {}, {"secret_session": True}, {"session": "S"}, {**BREAK_GLASS, "session": "S"}])
        document = f"DOC-{chance.randrange(4)}"
        kind = chance.randrange(8)
        if kind < 3:
            made.append(read(document, chance.choice(["R18", "R16", "R14", "R09"]), **more))
        elif kind == 3:
            made.append(asked("list", chance.choice(["R14", "R18"]), [document, "DOC-9"], **more))
        elif kind == 4:
            target = chance.choice([{"professional": PHYSICIAN}, {"structure": STRUCTURE}])
            made.append(grant(chance.randrange(50), **target))
        elif kind == 5:
            id = f"{n:026}"
            states = (("asked", n), (chance.choice(["done", "refused"]), n + 1))
            name, rule, on = chance.choice([("block", "A01-block", PATIENT), ("deposit", "W02", document)])
            made += [act(name, rule, state, on=on, id=id, at=at, context=more["context"]) for state, at in states]
        elif made and (before := chance.choice(made))["kind"] == "decision":
            word = chance.choice(["shown", "not_shown"])
            made += [shown(before, one[0], word) for one in before["items"]]
            made += [other("review", n, decision=before["id"], caller="r", verdict="fine", comment="")] if kind == 7 else []
    return made


@pytest.mark.parametrize("seed", range(8))
def test_the_order_in_which_entries_are_read_does_not_matter(place: Path, seed: int) -> None:
    entries = [pack("authorisation"), *story(random.Random(seed), 40)]
    straight = derived(place, entries)
    shuffled = derived(place, entries, random.Random(seed + 100))
    assert dump(straight) == dump(shuffled)
    assert len(dump(straight)["notices"]) > 2
    straight.close()
    shuffled.close()


def test_a_journal_made_anew_is_the_same(world: World) -> None:
    entries = story(random.Random(1), 60)
    with DecisionLog(world.log_url, name="worker-2", timeout=20) as second:
        world.write(pack("authorisation"))
        for n, one in enumerate(entries):
            world.write(one, log=second if n % 3 else world.log)
            if n % 7 == 0:
                world.follower.step()
        world.follower.step()
        for notice in world.pending()[:3]:
            world.outbox.sent(notice.id, LATER)
        world.follower.step()
    before = dump(world.database)
    rebuild(world.database)
    world.follower.step()
    assert dump(world.database) == before and len(before["deliveries"]) == 3


def kill_followers(world: World, times: int) -> None:
    """Let a follower work, two entries at a time, and kill it at any moment, again and again; then compare with a journal made without a break."""
    chance = random.Random(times)
    entries = story(chance, 60 * times)
    world.write(pack("authorisation"), *entries)
    with DecisionLog(world.log_url, name="worker-2", timeout=20) as second:
        world.write(*(shown(one) for one in entries if one["kind"] == "decision"), log=second)
    for _ in range(times):
        with Worker(follow, world.log_url, world.journal_url, 2) as worker:
            assert [worker.hear(), worker.hear()] == ["ready", "at work"]
            before = followed(world)
            wait_until(lambda before=before: followed(world) > before)
            time.sleep(chance.random() * 0.02)
            worker.kill()
    assert world.follower.step() > 0, "they were killed at work"
    found = dump(world.database)
    rebuild(world.database)
    world.follower.step()
    assert dump(world.database) == found
    assert sum(row[-1] for row in found["counts"]) == sum(len(one["items"]) for one in entries if one.get("state") != "asked" and "items" in one)


def test_a_follower_that_is_killed_loses_nothing_and_doubles_nothing(world: World) -> None:
    kill_followers(world, 4)


@pytest.mark.long
def test_followers_that_are_killed_a_hundred_times_lose_nothing(world: World) -> None:
    kill_followers(world, 100)


def test_one_follows_and_the_other_takes_over(world: World) -> None:
    world.write(pack(), read())
    with Worker(follow, world.log_url, world.journal_url) as first:
        assert [first.hear(), first.hear(), first.hear()] == ["ready", "at work", 2]
        with Worker(follow, world.log_url, world.journal_url) as second:
            assert [second.hear(), second.hear(), second.hear()] == ["ready", "at work", "waiting"]
            assert world.follower.step() == 0 and not world.follower.leading
            world.write(read("DOC-2"))
            assert first.hear() == 1
            first.kill()
            world.write(read("DOC-3"))
            while (said := second.hear()) == "waiting":
                pass
            assert said == 1
    assert len(world.documents()) == 3


def test_two_that_follow_at_once_do_no_harm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn taken away: cursors alone keep them apart."""
    monkeypatch.setattr("engine.journal.database.Turn.take", lambda self: True)
    monkeypatch.setattr("engine.journal.follower.BATCH", 7)
    entries = story(random.Random(3), 150)
    world.write(pack("authorisation"), *entries)
    databases = [Database(world.journal_url, timeout=20) for _ in range(3)]
    several = [Follower(world.reader, one) for one in databases]
    threads = [threading.Thread(target=lambda one=one: [one.step() for _ in range(20)]) for one in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in databases:
        one.close()
    found = dump(world.database)
    rebuild(world.database)
    world.follower.step()
    assert dump(world.database) == found and found["accesses"]


def test_a_thread_follows_and_says_what_stops_it(here: World) -> None:
    here.follower.start(0.01)
    here.write(pack(), read())
    wait_until(lambda: here.documents() == ["DOC-1"])
    with here.database.writing() as connection:
        connection.execute(t.journal.update().values(origin="another"))
    wait_until(lambda: "another log" in here.follower.trouble)
    with here.database.writing() as connection:
        connection.execute(t.journal.update().values(origin=here.reader.origin))
    here.write(read("DOC-2", at=1))
    wait_until(lambda: here.documents() == ["DOC-2", "DOC-1"] and not here.follower.trouble)
    here.follower.stop()
    assert not here.follower.leading


def followed(world: World) -> int:
    with world.database.reading() as connection:
        return sum(connection.execute(select(t.cursors.c.next)).scalars())


def wait_until(claim: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- reports ---------------------------------------------------------------------------------------------------------


def test_decisions_are_counted_by_caller_and_rule(world: World) -> None:
    several = asked("list", "R18", ["A", "B", "C"], withheld=[2])
    world.told(read(), read(caller="store-2"), read(rule="R09"), several, other("refused", caller="store-3", why="x"), read(at=86_400))
    assert world.journal.counts("2026-11-21", "2026-11-21") == [
        ("store-1", "list", "R18", "permit", 2),
        ("store-1", "list", "R18", "withheld", 1),
        ("store-1", "read", "R09", "refuse", 1),
        ("store-1", "read", "R18", "permit", 1),
        ("store-2", "read", "R18", "permit", 1),
        ("store-3", "", "", "refused", 1),
    ]
    assert ("store-1", "read", "R18", "permit", 2) in world.journal.counts()


def test_what_was_shown_without_a_permit_is_found(world: World) -> None:
    decision, listed, refused = read(), asked("list", "R18", ["DOC-2"], at=1), read("DOC-3", rule="R09", at=2)
    world.told(decision, listed, refused, shown(decision), shown(decision, "DOC-9"), shown(decision, caller="store-2"), shown(listed), shown(refused))
    world.told(other("outcome", decision="f" * 26, document="DOC-5", outcome="shown", caller="store-1"), act("block", "A01-block", "refused"))
    found = {(one.decision, one.document, one.caller, one.at, one.patient) for one in world.journal.shown_without_permit()}
    assert found == {
        (decision["id"], "DOC-9", "store-1", NOON, PATIENT),
        (decision["id"], "DOC-1", "store-2", NOON, PATIENT),
        (listed["id"], "DOC-2", "store-1", NOON + 1, PATIENT),
        (refused["id"], "DOC-3", "store-1", NOON + 2, PATIENT),
        ("f" * 26, "DOC-5", "store-1", None, None),
    }


def test_permits_that_nobody_confirmed(world: World) -> None:
    confirmed, not_shown, lost = read(), read("DOC-2", at=1), read("DOC-3", at=2)
    world.told(confirmed, shown(confirmed), not_shown, shown(not_shown, word="not_shown"), lost, read("DOC-4", at=3))
    world.told(act("block", "A01-block", "asked", at=-1), asked("read_traces", "A06-holder", [PATIENT], kind="patient", subject=PATIENT))
    *found, stopped = world.journal.unconfirmed()
    assert (stopped.action, stopped.document) == ("block", ""), "an act that was never finished"
    assert [(one.document, one.caller, one.rule) for one in found] == [("DOC-4", "store-1", "R18"), ("DOC-3", "store-1", "R18")]
    assert world.journal.unconfirmed(before=position(found[0])) == [*found[1:], stopped] == world.journal.unconfirmed(until=NOON + 3)
    with suppress(RequestError):
        world.journal.unconfirmed(before="nonsense")
        raise AssertionError


# --- with the service that writes the log ----------------------------------------------------------------------------


def test_what_the_service_decides_is_in_the_journal(here: World, place: Path) -> None:
    """The entries are the service's own: acts, a reading, an emergency, a list; and the journal is shown by the policy itself."""
    holder, physician = Entity("patient", PATIENT), Entity("professional", PHYSICIAN, {"profession": "G15_10", "authentication": "DIRECTE"})
    document = Entity("document", "DOC-1", {"patient": PATIENT, "type": "11488-4", "status": "Approved", "confidentiality": ["N"], "author": NURSE})
    record, care = Entity("record", PATIENT), {"purpose": "care"}
    hours = count(NOON, 3600.0)
    with ConsentStore(f"sqlite:///{place}/consent.db", pdp().pack.vocabulary, create=True) as store:
        service = Service(pdp(), store, here.log, clock=lambda: next(hours))
        by = By("store-1", "")
        target = {"type": "professional", "id": PHYSICIAN}
        service.act(Request(holder, Action("open", {"birth_date": "1979-03-28"}), record, care), by)
        emergency = asyncio.run(service.decide(physician, Action("read"), [document], care | BREAK_GLASS | {"session": "S-1"}, by))
        service.act(Request(holder, Action("grant_access", {"target": target, "given": "in_person"}), record, care), by)
        asyncio.run(service.decide(physician, Action("list"), [document, document], care, by))
        reading = asyncio.run(service.decide(physician, Action("read"), [document], care | {"patient_request": True}, by))
        here.write(other("outcome", decision=reading.id, document="DOC-1", outcome="shown", caller="store-1"))
        traces = asyncio.run(service.decide(holder, Action("read_traces"), [record], care, by))
        assert [one.answers[0].rule for one in (emergency, reading, traces)] == ["R14", "R18", "A06-holder"]
        here.follower.step()

        def may_see(documents: Any) -> set[str]:
            answers = pdp().decide_many(holder, Action("read"), [document], care, store.read(PATIENT, next(hours))[0])
            return {one.request.resource.id for one in answers if one.permitted}

        page = here.journal.page(PATIENT, view_of(traces.answers[0].obligations, holder), may_see)
    assert [(one.action, one.document, one.rule, one.status, one.first, one.emergency, one.patient_request) for one in page.traces] == [
        ("read_traces", "", "A06-holder", "unconfirmed", False, False, False),
        ("read", "DOC-1", "R18", "confirmed", False, False, True),
        ("grant_access", "", "A01-someone", "confirmed", False, False, False),
        ("read", "DOC-1", "R14", "unconfirmed", True, True, False),
        ("open", "", "A10", "confirmed", False, False, False),
    ]
    assert page.traces[2].target == target and here.journal.problems() == []
    assert told_to(here.pending(NOON + 86_400)) == [
        ("notify_first_access", "holder", False),
        ("notify_holder", "holder", False),
        ("notify_treating_physician", "treating physicians", False),
    ]
    assert [one.decision for one in here.journal.reviews()] == [emergency.id]


# --- from a shell ----------------------------------------------------------------------------------------------------


def habilis(world: World, *arguments: str, code: int = 0) -> str:
    environment = {"HABILIS_LOG": world.log_url, "HABILIS_JOURNAL": world.journal_url}
    result = CliRunner().invoke(app, ["journal", *arguments], env=environment, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def readings(world: World) -> list[tuple[str, Any]]:
    return [(one.body["what"], one.body.get("patient")) for one in world.reader.matching(lambda body: body["kind"] == "read") if one.body]


def test_the_journal_is_read_from_a_shell_and_that_is_logged(here: World) -> None:
    nurse = {"target": {"type": "professional", "id": NURSE}}
    decisions = [read("DOC-1"), read(rule="R14", context=BREAK_GLASS, at=1), act("block", "A01-block", at=2, said=nurse)]
    here.write(pack(), *decisions, shown(decisions[0]))
    assert habilis(here, "follow", "--once") == "5 entries were read\n"
    physician, ids = f"professional {PHYSICIAN} of {STRUCTURE}", [one["id"] for one in decisions]
    assert habilis(here, "show", PATIENT).splitlines() == [
        f"2026-11-21T11:00:02Z  patient {PATIENT}  block professional {NURSE}  by A01-block: confirmed  {ids[2]}",
        f"2026-11-21T11:00:01Z  {physician}  read DOC-1 (11488-4), bris_de_glace  by R14: unconfirmed, emergency  {ids[1]}",
        f"2026-11-21T11:00:00Z  {physician}  read DOC-1 (11488-4)  by R18: confirmed, first  {ids[0]}",
    ]
    page = json.loads(habilis(here, "show", PATIENT, "--limit", "2", "--json"))
    rest = json.loads(habilis(here, "show", PATIENT, "--json", "--before", page["next"]))
    assert [one["action"] for one in page["traces"] + rest["traces"]] == ["block", "read", "read"]
    nothing = "nothing was done to this record, as far as the journal has read\n"
    nobody = "114067505601208"
    assert habilis(here, "show", nobody) == habilis(here, "show", "nobody", "--pack", "none") == nothing
    policies = str(Path(__file__).parents[1] / "policies")
    assert "patient: is not written like an identifier of a patient" in habilis(here, "show", "nobody", "--pack", policies, code=2)
    assert readings(here) == [("journal", PATIENT)] * 3 + [("journal", nobody)] + [("journal", "nobody")] * 2


def test_reviews_and_notices_from_a_shell(here: World) -> None:
    decision = read(rule="R14", context=BREAK_GLASS)
    here.told(decision)
    assert habilis(here, "reviews", "--state", "open", "--since", "2026-11-21") == (
        f'2026-11-21T11:00:00Z  professional {PHYSICIAN}  read, bris_de_glace "unconscious"  {decision["id"]}: open\n'
    )
    assert habilis(here, "review", decision["id"], "justified", "--comment", "on duty") == "the review is recorded\n"
    assert habilis(here, "reviews", "--state", "open") == "no emergency to review\n"
    assert ": justified, by shell:" in habilis(here, "reviews", "--until", "2026-11-22") and habilis(here, "reviews", "--until", "2026-11-21").startswith("no ")
    assert json.loads(habilis(here, "reviews", "--json"))["reviews"][0]["state"] == "reviewed"
    notice = here.pending()[0]
    here.outbox.failed(notice.id, "the channel is shut", LATER)
    lines = habilis(here, "outbox").splitlines()
    assert [line.endswith("tried 1 times: the channel is shut") for line in lines if notice.id in line] == [True] and len(lines) == 2
    assert "is not one of those to be reviewed" in habilis(here, "review", "0" * 26, "justified", code=2)
    assert "unknown state `shut`" in habilis(here, "reviews", "--state", "shut", code=2)
    assert "is neither a date nor an instant" in habilis(here, "reviews", "--since", "yesterday", code=2)


def test_a_report_from_a_shell(here: World) -> None:
    decision = read()
    here.told(decision)
    assert habilis(here, "report").splitlines() == [
        "        1  store-1  read permit by R18",
        f"unconfirmed: 2026-11-21T11:00:00Z  store-1  read DOC-1 by R18  {decision['id']}",
    ]
    assert habilis(here, "report", "--since", "2026-11-22") == ""
    here.told(shown(decision, "DOC-9"), {"kind": "tea", "id": "2" * 26, "at": NOON})
    said = habilis(here, "report", code=1)
    assert f"shown without a permit: DOC-9 by store-1  {decision['id']}" in said and "its kind is not one that the journal knows" in said
    told = json.loads(habilis(here, "report", "--json", code=1))
    assert {name: len(found) for name, found in told.items()} == {"counts": 1, "unconfirmed": 1, "shown_without_permit": 1, "not_understood": 1}
    here.follower.stop()
    assert "not understood" in habilis(here, "follow", "--rebuild", "--once", code=1)
    assert "is not a date" in habilis(here, "report", "--since", "soon", code=2)


def test_nothing_is_shown_that_cannot_be_logged(here: World, place: Path) -> None:
    here.told(read())
    gone = {"HABILIS_LOG": f"sqlite:///{place}/gone", "HABILIS_JOURNAL": here.journal_url}
    for arguments in (["show", PATIENT], ["reviews"], ["outbox"], ["report"]):
        result = CliRunner().invoke(app, ["journal", *arguments], env=gone)
        assert (result.exit_code, result.stdout) == (2, "")


def test_another_follower_is_not_disturbed_from_a_shell(here: World) -> None:
    here.told(read())
    for option in ("--once", "--rebuild"):
        assert habilis(here, "follow", option, code=2) == "another follower is at work\n"
    assert here.documents() == ["DOC-1"]


def test_every_command_of_the_journal_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    for one in journal.app.registered_commands:
        assert f"\n    habilis journal {one.callback.__name__}" in page
