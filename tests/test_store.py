"""The consent store, on SQLite and on a real PostgreSQL alike: what it keeps, what it says, and when it would rather say nothing."""

from __future__ import annotations

import math
import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from consent_workers import BLOCK, OPEN, PHYSICIAN, UNBLOCK, VOCABULARY
from sqlalchemy import NullPool, create_engine, inspect, text

from engine.consent import migrations, store
from engine.consent.backup import BackupError
from engine.consent.cache import Cache
from engine.consent.database import Database, Sqlite, open_database
from engine.consent.directives import parse_directives
from engine.consent.fold import Record, fold
from engine.consent.store import Conflict, ConsentStore, OutcomeUnknown, StaleToken, StoreUnavailable, Token, parse_token
from engine.errors import HabilisError, RequestError
from engine.vocabulary import Vocabulary

if TYPE_CHECKING:
    from servers import Postgres

pytest_plugins = ["servers"]

NOW = 1_795_266_300.0  # 2026-11-21T14:05:00+01:00
DAY = 86_400.0
PATIENT = "279035121518989"

Opener = Callable[..., ConsentStore]


@pytest.fixture
def opened(address: str) -> Iterator[Opener]:
    """Opens the store at the test's address, as another process would; each is closed at the end."""
    several: list[ConsentStore] = []

    def open_store(vocabulary: Vocabulary = VOCABULARY, cache: Cache | None = None, url: str = address, **more: Any) -> ConsentStore:
        several.append(ConsentStore(url, vocabulary, cache, **{"create": True} | more))
        return several[-1]

    yield open_store
    for one in several:
        one.close()


@pytest.fixture
def consent(opened: Opener) -> ConsentStore:
    return opened()


def block(who: str, **more: str) -> dict[str, Any]:
    return {"kind": "block", "target": {"professional": who}} | more


def authorise(who: str, **more: str) -> dict[str, Any]:
    return {"kind": "authorisation", "target": {"professional": who}} | more


def said(record: Record) -> set[tuple[str, object]]:
    """What is in force: kinds and targets."""
    return {(one.kind, one.target[1]) for one in record.in_force}


def execute(address: str, *statements: str) -> None:
    """Statements of somebody who goes to the database himself."""
    url = address.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


# --- what it keeps ---------------------------------------------------------------------------------------------------


def test_nobody_said_anything(consent: ConsentStore) -> None:
    record, token = consent.read(PATIENT, NOW)
    assert (record.in_force, record.ended, record.revision, token.revision) == ((), (), 0, 0)
    assert consent.history(PATIENT) == ()


def test_directives_are_kept_as_they_were_said(consent: ConsentStore, opened: Opener) -> None:
    act = [block("10000000017", recorded_by="279035121518989", basis="à l'accueil"), {"kind": "mask", "target": {"document": ["D1", "D2"]}}]
    token = consent.append(PATIENT, act, NOW)
    assert token.revision == 2
    for one in (consent, opened()):
        assert [(kept.revision, kept.recorded, kept.epoch, dict(kept.directive)) for kept in one.history(PATIENT)] == [
            (number, NOW, token.epoch, directive) for number, directive in enumerate(act, 1)
        ]
        record, again = one.read(PATIENT, NOW)
        assert again == token
        assert said(record) == {("block", "10000000017"), ("mask", "D1"), ("mask", "D2")}
        assert record.in_force[0].directive.source["basis"] == "à l'accueil"


def test_each_patient_has_his_own_revisions(consent: ConsentStore) -> None:
    assert [consent.append(patient, OPEN, NOW).revision for patient in ("a", "b", "a")] == [2, 2, 4]
    assert consent.read("c", NOW)[1].revision == 0


def test_an_act_is_recorded_whole_or_not_at_all(consent: ConsentStore) -> None:
    with pytest.raises(RequestError):
        consent.append(PATIENT, [block("1"), {"kind": "blok"}], NOW)
    assert consent.read(PATIENT, NOW)[1].revision == 0


REFUSED: dict[str, tuple[object, str]] = {
    "none": ([], "directives: must be a list of at least one directive"),
    "one": ({"kind": "opened"}, "directives: must be a list of at least one directive"),
    "unknown-kind": ([{"kind": "blok"}], "directives[0].kind: `blok` is not a kind of directive (did you mean `block`?)"),
    "revision": ([{"kind": "opened", "revision": 7}], "directives[0].revision: is given by the store (leave it out)"),
    "not-json": ([{"kind": "opened", "basis": object()}], "directives[0]: is not JSON"),
    "not-a-number": ([{"kind": "opened", "basis": math.nan}], "directives[0]: is not JSON"),
    "half-a-character": ([{"kind": "opened", "basis": "\ud800"}], "directives[0]: is not JSON"),
    "not-as-said": ([{"kind": "opened", "basis": (1, 2)}], "directives[0]: does not read back from JSON as it was said"),
    "too-long": ([{"kind": "opened"}, {"kind": "opened", "basis": "x" * 70_000}], "directives[1]: is longer than 65536 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_directive_is_refused_before_anything_is_written(consent: ConsentStore, case: str) -> None:
    directives, message = REFUSED[case]
    with pytest.raises(RequestError) as caught:
        consent.append(PATIENT, directives, NOW)  # type: ignore[arg-type]
    assert str(caught.value) == message
    assert consent.read(PATIENT, NOW)[1].revision == 0


@pytest.mark.parametrize("patient", ["", "  ", "a\nb", "a\x00b", "\ud800", "x" * 257, None, 7], ids=repr)
def test_what_is_no_identifier_is_no_patient(consent: ConsentStore, patient: str) -> None:
    for ask in (lambda: consent.read(patient, NOW), lambda: consent.append(patient, OPEN, NOW), lambda: consent.history(patient)):
        with pytest.raises(RequestError, match="patient: must be an identifier"):
            ask()


@pytest.mark.parametrize("patient", ["Zoë", "a'; DROP TABLE records; --", "%s %(patient)s :patient ?", "a" * 256])
def test_any_identifier_will_do(consent: ConsentStore, patient: str) -> None:
    assert consent.append(patient, OPEN, NOW) == consent.read(patient, NOW)[1]


# --- changes and their tokens ----------------------------------------------------------------------------------------


def test_what_one_process_acknowledged_another_says(opened: Opener) -> None:
    ours, theirs = opened(), opened()
    for number in range(1, 20):
        writer, reader = (ours, theirs) if number % 2 else (theirs, ours)
        token = writer.append(PATIENT, [block(str(number))], NOW)
        record, seen = reader.read(PATIENT, NOW)
        assert (seen, len(record.in_force)) == (token, number)


def test_a_change_may_be_made_to_the_record_that_was_read_alone(opened: Opener) -> None:
    ours, theirs = opened(), opened()
    _, empty = ours.read(PATIENT, NOW)
    first = ours.append(PATIENT, [block("1")], NOW, expect=empty)
    with pytest.raises(Conflict, match="the record changed since it was read: nothing was written"):
        theirs.append(PATIENT, [block("2")], NOW, expect=empty)
    assert theirs.append(PATIENT, [block("3")], NOW, expect=first).revision == 2
    with pytest.raises(Conflict):
        theirs.append(PATIENT, [block("4")], NOW, expect=Token(first.epoch - 1, 2))
    assert said(ours.read(PATIENT, NOW)[0]) == {("block", "1"), ("block", "3")}


def test_a_token_that_the_store_cannot_honour_fails_closed(consent: ConsentStore) -> None:
    consent.append(PATIENT, OPEN, NOW)
    epoch = consent.read(PATIENT, NOW)[1].epoch
    for revision in (0, 1, 2):
        assert consent.read(PATIENT, NOW, at_least=Token(epoch, revision))[1].revision == 2
    with pytest.raises(StaleToken, match="the token names a change that the consent store does not have"):
        consent.read(PATIENT, NOW, at_least=Token(epoch, 3))
    for other in (epoch - 1, epoch + 1):
        with pytest.raises(StaleToken, match="the token is of another epoch of the consent store"):
            consent.read(PATIENT, NOW, at_least=Token(other, 1))
    with pytest.raises(StaleToken):
        consent.read("nobody", NOW, at_least=Token(epoch, 1))


def test_a_token_is_text_and_back() -> None:
    token = Token(1882513182829679, 12)
    assert str(token) == "1882513182829679.12"
    assert parse_token(str(token)) == token
    for other in ("", "12", "1.", ".1", "1.-1", "1.2.3", "a.b", "1.²", "1." + "9" * 30, " 1.2"):
        with pytest.raises(RequestError, match="token: is not a token of a consent store"):
            parse_token(other)


def test_epochs_do_not_meet() -> None:
    assert len({migrations.next_epoch(0) for _ in range(50)}) == 50
    assert migrations.next_epoch(5, 2**52) > 2**52
    assert migrations.next_epoch(0) < 2**53


# --- one question to the primary -------------------------------------------------------------------------------------


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many directives each statement brought."""
    seen: list[int] = []
    ask = Database.changes

    def changes(self: Database, *arguments: Any) -> Any:
        found = ask(self, *arguments)
        seen.append(len(found.rows))
        return found

    monkeypatch.setattr(Database, "changes", changes)
    return seen


def test_a_read_is_one_statement_that_brings_only_what_is_new(opened: Opener, statements: list[int]) -> None:
    ours, theirs = opened(), opened()
    ours.append(PATIENT, [block(str(number)) for number in range(5)], NOW)
    for _ in range(3):
        theirs.read(PATIENT, NOW)
    ours.append(PATIENT, [block("6"), block("7")], NOW)
    theirs.read(PATIENT, NOW)
    theirs.read(PATIENT, NOW)
    ours.raise_epoch()
    theirs.read(PATIENT, NOW)
    theirs.read(PATIENT, NOW)
    assert statements == [5, 0, 0, 2, 0, 7, 0]


def test_a_witness_spares_the_statement_until_somebody_writes(opened: Opener, statements: list[int]) -> None:
    """Whoever writes, to whichever record: another process, this one, a restored backup."""
    ours, theirs = opened(), opened()
    if not theirs.embedded:
        assert theirs.witness() is None, "a server is asked for each record"
        return

    def said_now() -> int:
        return theirs.read(PATIENT, NOW, witness=theirs.witness())[1].revision

    ours.append(PATIENT, [block("1")], NOW)
    assert [said_now() for _ in range(3)] == [1, 1, 1]
    assert statements == [1]
    theirs.append(PATIENT, [block("2")], NOW)
    assert [said_now(), said_now()] == [2, 2]
    assert statements == [1, 1]
    ours.append("somebody else", [block("1")], NOW)
    assert [said_now(), said_now()] == [2, 2]
    assert statements == [1, 1, 0]
    ours.raise_epoch()
    assert [said_now(), said_now()] == [2, 2]
    assert statements == [1, 1, 0, 2]


def test_a_witness_of_before_a_change_is_no_excuse(opened: Opener) -> None:
    ours, theirs = opened(), opened()
    ours.append(PATIENT, [block("1")], NOW)
    before = theirs.witness()
    ours.append(PATIENT, [block("2")], NOW)
    assert theirs.read(PATIENT, NOW, witness=before)[1].revision == 2, "the record was not known: it was asked for"
    ours.append(PATIENT, [block("3")], NOW)
    assert theirs.read(PATIENT, NOW, witness=theirs.witness())[1].revision == 3


def test_a_store_that_is_gone_has_no_witness(opened: Opener, tmp_path: Path) -> None:
    theirs = opened(url=f"sqlite:///{tmp_path}/gone.db")
    theirs.append(PATIENT, [block("1")], NOW)
    assert theirs.witness() is not None
    (tmp_path / "gone.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(StoreUnavailable):
        theirs.witness()
    (tmp_path / "elsewhere.db").rename(tmp_path / "gone.db")
    assert theirs.witness() is not None


def test_no_two_connections_give_the_same_witness(opened: Opener, tmp_path: Path) -> None:
    theirs = opened(url=f"sqlite:///{tmp_path}/one.db")
    seen = set()
    for _ in range(20):
        seen.add(theirs.witness())
        theirs.close()
    assert len(seen) == 20


def test_a_record_is_folded_once_until_it_ends_or_changes(consent: ConsentStore) -> None:
    consent.append(PATIENT, [authorise("1", until="2026-11-21T15:00:00+01:00")], NOW)
    first, second, ended = (consent.read(PATIENT, at)[0] for at in (NOW, NOW + 60, NOW + 3300))
    assert second.in_force is first.in_force
    assert second.index is first.index, "what a compiled pack keeps with a record is kept"
    assert (first.at, second.at, ended.in_force) == (NOW, NOW + 60, ())
    assert consent.append(PATIENT, BLOCK, NOW + 3300).revision == consent.read(PATIENT, NOW + 3300)[0].revision


def test_the_statement_looks_nothing_up_but_by_key(place: Path) -> None:
    database = open_database(f"sqlite:///{place}/consent.db", create=True, timeout=1)
    assert isinstance(database, Sqlite)
    with database.open() as connection:
        plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + database._text, ("a", 1, 2, 3))]
    connection.close()
    database.close()
    assert plan == [
        "SEARCH store USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH records USING PRIMARY KEY (patient=?) LEFT-JOIN",
        "SEARCH directives USING PRIMARY KEY (patient=? AND revision>?) LEFT-JOIN",
    ]


def test_a_process_keeps_so_many_directives_and_forgets_the_rest(opened: Opener, statements: list[int]) -> None:
    small = opened(memory=9)
    for patient in "abcd":
        small.append(patient, OPEN, NOW)
        small.read(patient, NOW)
    statements.clear()
    for patient in "dcb":
        small.read(patient, NOW)
    assert statements == [0, 0, 0], "three patients of two directives, and one each for the patient"
    small.read("a", NOW)
    small.read("d", NOW)
    assert statements[3:] == [2, 2], "`a` was forgotten, and `d`, met longest ago, is for `a`"


# --- two clocks ------------------------------------------------------------------------------------------------------


def test_a_record_is_of_the_instant_it_is_asked_for_and_holds_until_the_next_start_or_end(consent: ConsentStore) -> None:
    consent.append(PATIENT, [authorise("1", until="2026-11-21T15:00:00+01:00"), block("2", **{"from": "2026-11-21T16:00:00+01:00"})], NOW)
    three, four = NOW + 3300, NOW + 6900
    for at, expected, until in (
        (NOW, {("authorisation", "1")}, three),
        (NOW + 60, {("authorisation", "1")}, three),
        (three - 0.001, {("authorisation", "1")}, three),
        (three, set(), four),
        (four - 1, set(), four),
        (four, {("block", "2")}, math.inf),
    ):
        record, _ = consent.read(PATIENT, at)
        assert (record.at, said(record), record.holds_until) == (at, expected, until)


def test_a_clock_that_steps_back_revives_no_grant_and_suspends_no_block(opened: Opener) -> None:
    consent = opened()
    consent.append(PATIENT, [authorise("1", until="2026-11-21T15:00:00+01:00"), block("2", **{"from": "2026-11-21T15:00:00+01:00"})], NOW)
    assert said(consent.read(PATIENT, NOW)[0]) == {("authorisation", "1")}
    later = NOW + 3300
    expected = consent.read(PATIENT, later)[0]
    assert said(expected) == {("block", "2")}
    for back in (0.001, 1.0, 300.0, 900.0):
        assert consent.read(PATIENT, later - back)[0] == expected, f"{back} seconds back"
        assert consent.with_vocabulary(VOCABULARY).read(PATIENT, later - back)[0] == expected
    with pytest.raises(StoreUnavailable, match=r"^the clock is 901 seconds behind an instant that this store has seen"):
        consent.read(PATIENT, later - 901)
    assert consent.read(PATIENT, later + 1)[0].at == later + 1, "it recovers by itself when the clock does"


def test_a_withdrawal_holds_whatever_the_clock_says(opened: Opener) -> None:
    ours, theirs = opened(), opened()
    ours.append(PATIENT, [authorise("1")], NOW)
    theirs.read(PATIENT, NOW - 600)
    ours.append(PATIENT, [{**authorise("1"), "withdraw": True}], NOW + 1)
    for at in (NOW - 600, NOW, NOW + DAY):
        assert said(theirs.read(PATIENT, at)[0]) == set()


def test_a_block_from_now_holds_on_a_machine_whose_clock_lags(opened: Opener) -> None:
    ours, theirs = opened(), opened()
    for number in range(50):
        now = NOW + number * 60 + random.Random(number).random()
        start = math.ceil(now * 1e6)  # as text has it, to the microsecond
        stated = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(start // 1_000_000))}.{start % 1_000_000:06d}+00:00"
        ours.append(PATIENT, [block(str(number), **{"from": stated})], now)
        assert ("block", str(number)) in said(theirs.read(PATIENT, now - 30)[0])


def test_what_was_recorded_is_never_earlier_than_what_was_recorded_before(opened: Opener) -> None:
    opened().append(PATIENT, [block("1")], NOW)
    other = opened()
    other.append(PATIENT, [block("2")], NOW - 60)
    assert [kept.recorded for kept in other.history(PATIENT)] == [NOW, NOW]
    with pytest.raises(StoreUnavailable, match="the clock is 86400 seconds behind"):
        opened().append(PATIENT, [block("3")], NOW - DAY)


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_no_instant_decides_nothing(consent: ConsentStore, at: float) -> None:
    consent.append(PATIENT, OPEN, NOW)
    for ask in (lambda: consent.read(PATIENT, at), lambda: consent.append(PATIENT, OPEN, at), lambda: consent.as_of(PATIENT, at)):
        with pytest.raises(RequestError, match="at: must be an instant"):
            ask()
    assert consent.read(PATIENT, NOW)[0].at == NOW


# --- what did the record say, and what did we know of it -------------------------------------------------------------


def test_what_the_record_said_and_what_was_known_of_it(consent: ConsentStore) -> None:
    noon, two, three = NOW, NOW + 7200, NOW + 10_800
    consent.append(PATIENT, [authorise("1", until="2026-11-22")], noon)
    token = consent.append(PATIENT, [block("2")], two)
    consent.append(PATIENT, [authorise("3", **{"from": "2026-11-21T00:00:00+01:00"}), {**block("2"), "withdraw": True}], three)
    then = noon + 60
    assert said(consent.as_of(PATIENT, then)) == {("authorisation", "1"), ("authorisation", "3")}, "as it is known now"
    assert said(consent.as_of(PATIENT, then, known_at=then)) == {("authorisation", "1")}, "as it was known then"
    assert said(consent.as_of(PATIENT, noon + 3 * DAY, known_at=two)) == {("block", "2")}, "what would have been in force, as was known at two"
    assert said(consent.as_of(PATIENT, then, token=token)) == {("authorisation", "1"), ("block", "2")}
    assert said(consent.as_of(PATIENT, then, revision=2)) == {("authorisation", "1"), ("block", "2")}
    assert consent.as_of(PATIENT, then, revision=0).in_force == consent.as_of(PATIENT, then, known_at=noon - 1).in_force == ()
    assert consent.as_of(PATIENT, then, known_at=two).revision == 2
    assert consent.as_of(PATIENT, then - 20 * 365 * DAY, known_at=then).at == then - 20 * 365 * DAY, "no clock holds an audit"


def test_what_a_decision_was_taken_on_is_found_by_its_token_and_instant(consent: ConsentStore) -> None:
    seen = []
    for number in range(20):
        consent.append(PATIENT, [block(str(number)) if number % 3 else {**block(str(number - 1)), "withdraw": True}], NOW + number)
        seen.append(consent.read(PATIENT, NOW + number + 0.5))
    for record, token in seen:
        assert consent.as_of(PATIENT, record.at, token=token) == record


def test_an_audit_asks_for_what_there_is(consent: ConsentStore) -> None:
    token = consent.append(PATIENT, OPEN, NOW)
    with pytest.raises(RequestError, match="revision: the record has 2, not 3"):
        consent.as_of(PATIENT, NOW, revision=3)
    with pytest.raises(RequestError, match="revision: the record has 2, not -1"):
        consent.as_of(PATIENT, NOW, revision=-1)
    with pytest.raises(RequestError, match="takes one of"):
        consent.as_of(PATIENT, NOW, revision=1, token=token)
    for unknown in (Token(token.epoch, 3), Token(token.epoch + 1, 1)):
        with pytest.raises(StaleToken, match="what the token names is not in the consent store"):
            consent.as_of(PATIENT, NOW, token=unknown)


def test_whatever_the_order_of_writes_reads_and_clocks_a_record_is_the_fold_of_its_directives(opened: Opener) -> None:
    chance = random.Random(7)
    workers = [opened(), opened(memory=3), opened()]
    everything: dict[str, list[dict[str, Any]]] = {patient: [] for patient in "abc"}
    now = {id(worker): NOW for worker in workers}
    for _ in range(400):
        worker, patient = chance.choice(workers), chance.choice("abc")
        at = now[id(worker)] = now[id(worker)] + chance.choice([0, 0.25, 1])
        if chance.random() < 0.3:
            start = chance.choice([{}, {"from": "2026-11-21T14:06:00+01:00"}, {"until": "2026-11-21T14:06:30+01:00"}])
            act = [
                chance.choice([block, authorise])(str(chance.randrange(4))) | chance.choice([start, {"withdraw": True}]) for _ in range(chance.randrange(1, 3))
            ]
            everything[patient] += act
            assert worker.append(patient, act, at).revision == len(everything[patient])
        record, token = worker.read(patient, at)
        assert token.revision == len(everything[patient])
        again = fold(parse_directives(everything[patient], VOCABULARY), VOCABULARY, record.at)
        assert (said(record), record.holds_until, record.revision) == (said(again), again.holds_until, again.revision)
        assert record.at >= at


# --- what cannot be believed -----------------------------------------------------------------------------------------

NOT_BELIEVED = "what the consent store says of a record is not what was acknowledged: altered, or put back from a backup without `restore`"


def unguarded(address: str) -> None:
    """Take away the triggers that keep directives as they are, as an owner of the database can."""
    if address.startswith("sqlite"):
        execute(address, "DROP TRIGGER directives_UPDATE", "DROP TRIGGER directives_DELETE")
    else:
        execute(address, "DROP TRIGGER directives_stay ON directives")


@pytest.mark.parametrize("statement", ["UPDATE directives SET body = '{}'", "DELETE FROM directives"], ids=["update", "delete"])
def test_the_database_itself_refuses_to_edit_a_directive(consent: ConsentStore, address: str, statement: str) -> None:
    consent.append(PATIENT, OPEN, NOW)
    with pytest.raises(Exception, match="a directive is appended, never edited"):
        execute(address, statement)
    assert consent.read(PATIENT, NOW)[1].revision == 2


ALTERED = {
    "edited": f"UPDATE directives SET body = REPLACE(body, '{PHYSICIAN}', '1') WHERE patient = '{PATIENT}' AND revision = 2",
    "last-removed": f"DELETE FROM directives WHERE patient = '{PATIENT}' AND revision = 3",
    "first-removed": f"DELETE FROM directives WHERE patient = '{PATIENT}' AND revision = 1",
    "moved-in-time": f"UPDATE directives SET recorded = recorded - 1 WHERE patient = '{PATIENT}' AND revision = 3",
    "another-patients": f"UPDATE directives SET patient = '{PATIENT}', revision = 4 WHERE patient = 'other' AND revision = 1",
    "revision-back": f"UPDATE records SET revision = 2 WHERE patient = '{PATIENT}'",
}


@pytest.mark.parametrize("how", ALTERED)
def test_a_record_that_was_altered_decides_nothing(opened: Opener, address: str, how: str) -> None:
    consent = opened()
    for patient in (PATIENT, "other"):
        consent.append(patient, [*OPEN, *BLOCK], NOW)
    consent.append("third", OPEN, NOW)
    unguarded(address)
    execute(address, ALTERED[how])
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as caught:
            opened().read(PATIENT, NOW)
        assert str(caught.value) == NOT_BELIEVED
    assert opened().read("third", NOW)[1].revision == 2, "nobody else's record suffers"


def test_a_revision_that_goes_back_decides_nothing_even_for_who_knew_better(opened: Opener, address: str) -> None:
    consent = opened()
    consent.append(PATIENT, OPEN, NOW)
    digest = "(SELECT digest FROM records WHERE patient = 'twin')"
    consent.append("twin", [OPEN[0]], NOW)
    consent.append(PATIENT, BLOCK, NOW)
    consent.read(PATIENT, NOW)
    unguarded(address)
    execute(
        address,
        f"DELETE FROM directives WHERE patient = '{PATIENT}' AND revision > 1",
        f"UPDATE records SET revision = 1, digest = {digest} WHERE patient = '{PATIENT}'",
    )
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="is not what was acknowledged"):
            consent.read(PATIENT, NOW)
    execute(address, f"DELETE FROM directives WHERE patient = '{PATIENT}'", f"DELETE FROM records WHERE patient = '{PATIENT}'")
    with pytest.raises(StoreUnavailable, match="is not what was acknowledged"):
        consent.read(PATIENT, NOW)


def test_a_directive_that_the_pack_does_not_know_decides_nothing(opened: Opener) -> None:
    consent = opened()
    consent.append(PATIENT, OPEN, NOW)
    consent.append("other", BLOCK, NOW)
    kinds = {name: kind for name, kind in VOCABULARY.kinds.items() if name != "authorisation"}
    later = consent.with_vocabulary(_with_kinds(kinds))
    with pytest.raises(StoreUnavailable) as caught:
        later.read(PATIENT, NOW)
    assert str(caught.value) == "a directive in the record cannot be read with this pack: revision 2.kind: `authorisation` is not a kind of directive"
    assert later.read("other", NOW)[1].revision == 1
    assert consent.read(PATIENT, NOW)[1].revision == 2, "the pack that still answers is not disturbed"


def _with_kinds(kinds: dict[str, Any]) -> Vocabulary:
    import dataclasses

    return dataclasses.replace(VOCABULARY, kinds=kinds)


# --- migrations ------------------------------------------------------------------------------------------------------


def test_the_migrations_make_what_the_statements_are_written_with(consent: ConsentStore, address: str) -> None:
    engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    found = inspect(engine)
    assert set(found.get_table_names()) == set(migrations.tables.tables)
    for name, table in migrations.tables.tables.items():
        assert [column["name"] for column in found.get_columns(name)] == [column.name for column in table.columns]
        assert all(not column["nullable"] or column["name"] == "one" for column in found.get_columns(name))
        assert found.get_pk_constraint(name)["constrained_columns"] == [column.name for column in table.primary_key]


@pytest.mark.parametrize("version", range(1, len(migrations.MIGRATIONS)))
def test_a_store_of_each_earlier_version_is_brought_up_and_keeps_what_it_holds(
    opened: Opener, address: str, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations.migrate, "__defaults__", (migrations.MIGRATIONS[:version],))
        token = opened().append(PATIENT, OPEN, NOW)
    consent = opened(create=False)
    assert consent.read(PATIENT, NOW, at_least=token)[1] == token
    assert consent.acts(PATIENT) == ()
    with pytest.raises(Exception, match="never edited"):
        execute(address, "DELETE FROM directives")


def test_a_store_made_by_a_later_habilis_is_refused(opened: Opener, address: str) -> None:
    opened()
    execute(address, "UPDATE store SET version = 99")
    with pytest.raises(StoreUnavailable, match=r"was made by a later Habilis \(version 99; this one knows \d+\)"):
        opened()


def test_a_migration_that_fails_leaves_the_store_as_it_was(opened: Opener, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    consent = opened()
    token = consent.append(PATIENT, OPEN, NOW)
    half = migrations.Migration("half", *[["CREATE TABLE extra (a INTEGER)", "CREATE TABLE store (a INTEGER)"]] * 2)
    with monkeypatch.context() as patch:
        patch.setattr(migrations.migrate, "__defaults__", ((*migrations.MIGRATIONS, half),))
        with pytest.raises(StoreUnavailable):
            opened()
    engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    assert "extra" not in inspect(engine).get_table_names()
    assert opened().read(PATIENT, NOW)[1] == token


def test_processes_that_open_a_new_store_at_once_make_one(address: str, opened: Opener) -> None:
    found: list[Token] = []
    several = [threading.Thread(target=lambda: found.append(opened(timeout=20.0).read(PATIENT, NOW)[1])) for _ in range(6)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_a_store_that_is_not_there_is_not_made_unless_asked_for(opened: Opener, address: str) -> None:
    told = r"^there is no consent store at .*: an empty one is only made when asked for \(create=True, or `habilis consent init`\)$"
    with pytest.raises(StoreUnavailable, match=told):
        opened(create=False)
    if address.startswith("sqlite"):
        assert not os.path.exists(address.removeprefix("sqlite:///"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "this is not the address of a consent store: sqlite:///FILE or postgresql://USER@HOST/DATABASE"),
        ("mysql://root@localhost/consent", "a consent store lives in SQLite or PostgreSQL, not in `mysql`"),
        ("sqlite://", "the consent store needs a file (sqlite:///FILE): what is only in memory is in one process only"),
        ("sqlite:///:memory:", "the consent store needs a file (sqlite:///FILE): what is only in memory is in one process only"),
        ("sqlite:////nowhere/at/all/consent.db", "the consent store cannot be reached (FileNotFoundError)"),
    ],
)
def test_an_address_that_leads_nowhere_says_so(url: str, message: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        ConsentStore(url, VOCABULARY, create=True)
    assert str(caught.value) == message


# --- backup and restore ----------------------------------------------------------------------------------------------


def test_a_restore_brings_back_what_was_and_raises_the_epoch(opened: Opener, place: Path) -> None:
    ours, theirs = opened(), opened()
    kept = ours.append(PATIENT, OPEN, NOW)
    theirs.read(PATIENT, NOW)
    ours.backup(str(place / "backup.db"))
    lost = ours.append(PATIENT, BLOCK, NOW)
    ours.append("other", BLOCK, NOW)
    theirs.read(PATIENT, NOW)
    epoch = ours.restore(str(place / "backup.db"))
    assert epoch > kept.epoch
    for one in (ours, theirs, opened()):
        record, token = one.read(PATIENT, NOW)
        assert (token, said(record)) == (Token(epoch, 2), {("opened", None), ("authorisation", PHYSICIAN)})
        assert one.read("other", NOW)[1] == Token(epoch, 0)
        for before in (kept, lost):
            with pytest.raises(StaleToken, match="another epoch"):
                one.read(PATIENT, NOW, at_least=before)
            with pytest.raises(Conflict):
                one.append(PATIENT, BLOCK, NOW, expect=before)
    assert theirs.append(PATIENT, BLOCK, NOW, expect=Token(epoch, 2)) == Token(epoch, 3)


def test_an_audit_tells_what_was_lost_in_a_restore_from_what_took_its_place(consent: ConsentStore, place: Path) -> None:
    kept = consent.append(PATIENT, OPEN, NOW)
    consent.backup(str(place / "backup.db"))
    lost = consent.append(PATIENT, [block("1")], NOW)
    consent.restore(str(place / "backup.db"))
    new = consent.append(PATIENT, [block("2")], NOW)
    assert lost.revision == new.revision == 3
    assert said(consent.as_of(PATIENT, NOW, token=kept)) == {("opened", None), ("authorisation", PHYSICIAN)}
    assert ("block", "2") in said(consent.as_of(PATIENT, NOW, token=new))
    with pytest.raises(StaleToken, match="it was lost when a backup was restored"):
        consent.as_of(PATIENT, NOW, token=lost)
    assert [one.epoch for one in consent.history(PATIENT)] == [kept.epoch, kept.epoch, new.epoch]


def test_two_restores_of_one_backup_are_two_epochs(opened: Opener, place: Path) -> None:
    consent = opened()
    consent.append(PATIENT, OPEN, NOW)
    consent.backup(str(place / "backup.db"))
    epochs = [consent.restore(str(place / "backup.db")) for _ in range(3)]
    assert epochs == sorted(set(epochs))


def test_a_backup_moves_a_store_from_one_kind_of_database_to_the_other(opened: Opener, postgres: Postgres, place: Path, address: str) -> None:
    consent = opened()
    for number in range(2500):
        patient = f"patient-{number % 700}"
        if number < 700 or number % 50 == 0:
            consent.append(patient, [block(str(number)), authorise(str(number), until="2030-01-01")], NOW + number)
    consent.backup(str(place / "backup.db"))
    other = opened(url=f"sqlite:///{place}/other.db" if address.startswith("postgresql") else postgres.new_place())
    other.append("patient-0", OPEN, NOW)
    other.append("gone", OPEN, NOW)
    other.restore(str(place / "backup.db"))
    for number in range(700):
        assert other.history(f"patient-{number}") == consent.history(f"patient-{number}")
    assert other.read("gone", NOW)[1].revision == 0
    assert other.append("patient-0", BLOCK, NOW + 3000).revision == consent.append("patient-0", BLOCK, NOW + 3000).revision
    with pytest.raises(Exception, match="never edited"):
        execute(str(other._database), "DELETE FROM directives")


def test_a_backup_replaces_nothing(consent: ConsentStore, place: Path, address: str) -> None:
    (place / "backup.db").write_text("dear")
    with pytest.raises(BackupError, match=r"there is a file at .*backup.db: a backup is written to a new one"):
        consent.backup(str(place / "backup.db"))
    assert (place / "backup.db").read_text() == "dear"
    assert not [path for path in place.iterdir() if path.name.startswith(".habilis")]
    with pytest.raises(BackupError, match="there is no folder"):
        consent.backup(str(place / "nowhere" / "backup.db"))


def test_a_backup_is_one_file_of_one_instant_while_others_write(opened: Opener, place: Path) -> None:
    ours, theirs = opened(timeout=20.0), opened(timeout=20.0)
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            for patient in ("first", "second"):
                theirs.append(patient, [block(str(number)), block(f"{number}b")], NOW)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            ours.backup(str(place / f"{number}.db"))
    finally:
        done.set()
        writer.join()
    for number in range(5):
        assert {path.name for path in place.glob(f"{number}.db*")} == {f"{number}.db"}
        ours.restore(str(place / f"{number}.db"))
        first, second = (ours.read(patient, NOW)[1].revision for patient in ("first", "second"))
        assert first - second in (0, 2)
        assert first % 2 == second % 2 == 0


def _torn(path: Path) -> None:
    body = path.read_bytes()
    half = len(body) // 2
    path.write_bytes(body[:half] + bytes(len(body) - half))


def _edited(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER directives_UPDATE")
        connection.execute("UPDATE directives SET body = REPLACE(body, 'block', 'BLOCK')")
    connection.close()


def _emptied(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER directives_DELETE")
        connection.execute("DELETE FROM directives")
    connection.close()


def _of_something_else(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE groceries (name TEXT)")
    connection.close()


def _later(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE store SET version = 99")
    connection.close()


DAMAGED: dict[str, Callable[[Path], object]] = {
    "torn": _torn,
    "edited": _edited,
    "emptied": _emptied,
    "of-something-else": _of_something_else,
    "of-a-later-habilis": _later,
    "text": lambda path: path.write_text("not a database at all, but long enough to be read as one" * 100),
    "nothing": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_backup_that_is_not_whole_changes_nothing(consent: ConsentStore, place: Path, how: str) -> None:
    consent.append(PATIENT, [*OPEN, *BLOCK], NOW)
    for number in range(40):
        consent.append(f"patient-{number}", BLOCK, NOW)
    consent.backup(str(place / "backup.db"))
    token = consent.append(PATIENT, UNBLOCK, NOW)
    DAMAGED[how](place / "backup.db")
    with pytest.raises(BackupError):
        consent.restore(str(place / "backup.db"))
    assert consent.read(PATIENT, NOW, at_least=token)[1] == token


def test_an_epoch_raised_by_hand_makes_every_token_fail_closed(opened: Opener) -> None:
    ours, theirs = opened(), opened()
    token = ours.append(PATIENT, BLOCK, NOW)
    theirs.read(PATIENT, NOW, at_least=token)
    epoch = ours.raise_epoch()
    with pytest.raises(StaleToken):
        theirs.read(PATIENT, NOW, at_least=token)
    record, again = theirs.read(PATIENT, NOW)
    assert (again, said(record)) == (Token(epoch, 1), {("block", PHYSICIAN)})


def test_a_backup_copied_over_the_store_by_hand_is_noticed_by_who_knew_more(place: Path) -> None:
    path = place / "consent.db"
    ours = ConsentStore(f"sqlite:///{path}", VOCABULARY, create=True)
    ours.append(PATIENT, OPEN, NOW)
    ours.append("other", OPEN, NOW)
    ours.backup(str(place / "backup.db"))
    lost = ours.append(PATIENT, BLOCK, NOW)
    ours.read(PATIENT, NOW)
    ours.read("other", NOW)
    os.replace(place / "backup.db", path)
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{path}{suffix}")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="is not what was acknowledged"):
            ours.read(PATIENT, NOW)
    assert ours.read("other", NOW)[1].revision == 2
    with pytest.raises(StaleToken), ConsentStore(f"sqlite:///{path}", VOCABULARY) as theirs:
        theirs.read(PATIENT, NOW, at_least=lost)
    epoch = ours.raise_epoch()
    assert ours.read(PATIENT, NOW)[1] == Token(epoch, 2), "and says so until somebody raised the epoch"
    ours.close()


# --- the database gone -----------------------------------------------------------------------------------------------


def assert_silent(consent: ConsentStore, message: str) -> None:
    """No decision, no write, and not a word about the patient."""
    for ask in (lambda: consent.read(PATIENT, NOW), lambda: consent.append(PATIENT, BLOCK, NOW), lambda: consent.history(PATIENT)):
        with pytest.raises(StoreUnavailable) as caught:
            ask()
        assert message in str(caught.value)
        error: BaseException | None = caught.value
        while error is not None:
            assert PATIENT not in str(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_file_that_is_moved_away_is_no_store_and_comes_back_by_itself(place: Path) -> None:
    path = place / "consent.db"
    with ConsentStore(f"sqlite:///{path}", VOCABULARY, create=True) as consent:
        token = consent.append(PATIENT, OPEN, NOW)
        consent.read(PATIENT, NOW)
        for suffix in ("", "-wal", "-shm"):
            os.replace(f"{path}{suffix}", f"{path}{suffix}.away")
        assert_silent(consent, "the consent store cannot be reached (")
        assert not path.exists(), "no empty store was made in its place"
        time.sleep(0.15)
        for suffix in ("", "-wal", "-shm"):
            os.replace(f"{path}{suffix}.away", f"{path}{suffix}")
        assert consent.read(PATIENT, NOW)[1] == token
        assert consent.append(PATIENT, BLOCK, NOW).revision == 3


def test_a_file_that_is_replaced_is_read_at_once(place: Path) -> None:
    """What a reader holds open is the old file; a block acknowledged in the new one must not be missed."""
    path = place / "consent.db"
    with ConsentStore(f"sqlite:///{path}", VOCABULARY, create=True) as ours:
        ours.append(PATIENT, OPEN, NOW)
        ours.read(PATIENT, NOW)
        ours.backup(str(place / "copy.db"))
        os.replace(place / "copy.db", path)
        with ConsentStore(f"sqlite:///{path}", VOCABULARY) as theirs:
            theirs.append(PATIENT, BLOCK, NOW)
        assert ("block", PHYSICIAN) in said(ours.read(PATIENT, NOW)[0])
        assert ours.append(PATIENT, UNBLOCK, NOW).revision == 4


@pytest.mark.parametrize("body", [b"", b"nonsense" * 1000], ids=["emptied", "overwritten"])
def test_a_file_that_is_spoilt_is_no_store(place: Path, body: bytes) -> None:
    path = place / "consent.db"
    with ConsentStore(f"sqlite:///{path}", VOCABULARY, create=True) as consent:
        consent.append(PATIENT, OPEN, NOW)
    path.write_bytes(body)
    with pytest.raises(StoreUnavailable):
        ConsentStore(f"sqlite:///{path}", VOCABULARY)


def test_a_writer_that_does_not_let_go_stops_writes_but_no_decision(place: Path) -> None:
    path = place / "consent.db"
    with ConsentStore(f"sqlite:///{path}", VOCABULARY, create=True, timeout=0.2) as consent:
        consent.append(PATIENT, OPEN, NOW)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match=r"^the consent store cannot be reached \(OperationalError SQLITE_BUSY\)$"):
            consent.append(PATIENT, BLOCK, NOW)
        assert consent.read(PATIENT, NOW)[1].revision == 2
        other.execute("ROLLBACK")
        other.close()
        assert consent.append(PATIENT, BLOCK, NOW).revision == 3


def test_a_server_that_is_killed_is_no_store_and_comes_back_by_itself(postgres: Postgres) -> None:
    with ConsentStore(postgres.new_place(), VOCABULARY, create=True) as consent:
        token = consent.append(PATIENT, OPEN, NOW)
        consent.read(PATIENT, NOW)
        postgres.kill()
        assert_silent(consent, "the consent store cannot be reached (")
        postgres.start()
        time.sleep(0.15)
        assert consent.read(PATIENT, NOW)[1] == token
        assert consent.append(PATIENT, BLOCK, NOW).revision == 3


def test_a_server_that_restarted_unnoticed_costs_no_request(postgres: Postgres) -> None:
    with ConsentStore(postgres.new_place(), VOCABULARY, create=True) as consent:
        token = consent.append(PATIENT, OPEN, NOW)
        consent.read(PATIENT, NOW)
        postgres.kill()
        postgres.start()
        assert consent.read(PATIENT, NOW)[1] == token
        assert consent.append(PATIENT, BLOCK, NOW).revision == 3


def test_a_server_that_does_not_answer_is_no_store_within_its_time(postgres: Postgres) -> None:
    with ConsentStore(postgres.new_place(), VOCABULARY, create=True, timeout=1.0) as consent:
        token = consent.append(PATIENT, OPEN, NOW)
        consent.read(PATIENT, NOW)
        postgres.freeze()
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            consent.read(PATIENT, NOW)
        assert time.monotonic() - started < 60
        with pytest.raises(StoreUnavailable):
            consent.append(PATIENT, BLOCK, NOW)
        postgres.thaw()
        time.sleep(0.5)
        assert consent.read(PATIENT, NOW)[1].revision in (token.revision, token.revision + 1)
        assert consent.append(PATIENT, BLOCK, NOW).revision in (3, 4)


def test_a_server_that_only_reads_is_no_primary(postgres: Postgres) -> None:
    address = postgres.new_place()
    ConsentStore(address, VOCABULARY, create=True).close()
    with pytest.raises(StoreUnavailable):
        ConsentStore(address + "%20-cdefault_transaction_read_only=on", VOCABULARY)


def test_an_acknowledgement_waits_for_the_disk(opened: Opener, address: str) -> None:
    consent = opened(url=address + "%20-csynchronous_commit=off" if address.startswith("postgresql") else address)
    with consent._database.writing() as connection:
        if address.startswith("postgresql"):
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
        else:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2


def test_a_change_whose_end_is_not_heard_is_said_to_be_unknown(consent: ConsentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.engine import RootTransaction
    from sqlalchemy.exc import OperationalError

    commit = RootTransaction.commit

    def lose_the_answer(self: RootTransaction) -> None:
        commit(self)
        raise OperationalError("COMMIT", {}, psycopg.OperationalError(f"lost while writing {PATIENT}"))

    _, before = consent.read(PATIENT, NOW)
    with monkeypatch.context() as patch:
        patch.setattr(RootTransaction, "commit", lose_the_answer)
        with pytest.raises(OutcomeUnknown) as caught:
            consent.append(PATIENT, BLOCK, NOW, expect=before)
    assert str(caught.value) == "the consent store went away while it acknowledged a change: recorded or not, nobody knows (OperationalError)"
    with pytest.raises(Conflict):
        consent.append(PATIENT, BLOCK, NOW, expect=before)
    assert consent.read(PATIENT, NOW)[1].revision == 1


def test_every_error_is_one_of_ours() -> None:
    assert all(issubclass(error, HabilisError) for error in (StoreUnavailable, OutcomeUnknown, StaleToken, Conflict, BackupError))
    assert all(hasattr(store, name) for name in store.__all__)


# --- threads and forks -----------------------------------------------------------------------------------------------


def test_many_threads_share_a_store(opened: Opener) -> None:
    consent = opened(timeout=30.0, memory=12)
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for number in range(12):
                patient = f"patient-{(name + number) % 5}"
                token = consent.append(patient, [block(f"{name}-{number}")], NOW + number)
                record, seen = consent.read(patient, NOW + number, at_least=token)
                assert seen.revision == len(record.in_force) >= token.revision
                assert ("block", f"{name}-{number}") in said(record)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sum(consent.read(f"patient-{number}", NOW + 20)[1].revision for number in range(5)) == 96


def test_a_child_leaves_its_parents_connections_alone(consent: ConsentStore) -> None:
    consent.append(PATIENT, OPEN, NOW)
    consent.read(PATIENT, NOW)
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = not consent._database._idle
            ok = ok and consent.read(PATIENT, NOW)[1].revision == 2 and consent.append(PATIENT, BLOCK, NOW).revision == 3
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    record, token = consent.read(PATIENT, NOW)
    assert token.revision == 3
    assert ("block", PHYSICIAN) in said(record)
    assert consent.append(PATIENT, UNBLOCK, NOW).revision == 4


def test_nobody_else_on_the_machine_reads_a_store_or_its_backup(place: Path) -> None:
    with ConsentStore(f"sqlite:///{place}/consent.db", VOCABULARY, create=True) as consent:
        consent.append(PATIENT, OPEN, NOW)
        consent.backup(str(place / "backup.db"))
        assert {path.name: path.stat().st_mode & 0o077 for path in place.iterdir()} == dict.fromkeys(
            ("consent.db", "consent.db-wal", "consent.db-shm", "backup.db"), 0
        )


def test_a_store_needs_nothing_but_its_file(place: Path) -> None:
    with ConsentStore(f"sqlite:///{place}/dossiers 100%#é.db", VOCABULARY, create=True) as consent:
        token = consent.append(PATIENT, OPEN, NOW)
    shutil.copy(place / "dossiers 100%#é.db", place / "moved.db")
    with ConsentStore(f"sqlite:///{place}/moved.db", VOCABULARY) as moved:
        assert moved.read(PATIENT, NOW)[1] == token
