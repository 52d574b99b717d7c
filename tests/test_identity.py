"""Who the holder is: what the identity service may say of him, and what becomes of a birth date that nobody can read or that is yet to come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_acts import ADULT, CHILD, HOLDER, INSURANCE, NOW, OPEN, PARENT, PATIENT, PDP, REPRESENTED, Conflict, Memory, ask, reads, rule
from test_french_pack import french

from engine.analysis.dead import copy_of
from engine.consent.acts import perform, preview
from engine.consent.directives import parse_directives
from engine.consent.store import ConsentStore
from engine.errors import RequestError
from engine.evaluator.diagram import HOLDS, NONE
from engine.vocabulary import Elapsed

READABLE = "must be a date, or a date and time with its offset (such as 2026-11-21 or 2026-11-21T10:00:00+01:00)"
TO_COME = "is yet to come (record it once it is past, or mend the year)"
OPENED_IN_2024 = {"kind": "opened", "from": "2024-03-01T09:00:00+01:00"}
DIED = {"kind": "deceased", "date_of_death": "2026-01-10"}

WRONG: dict[str, tuple[Any, list[dict[str, Any]], str]] = {
    "a birth date of another country": (ask(HOLDER, "open", birth_date="12/05/2012"), [], f"the directive `identity` of `open`.birth_date: {READABLE}"),
    "a birth date to come": (ask(HOLDER, "open", birth_date="2999-01-01"), [], f"the directive `identity` of `open`.birth_date: {TO_COME}"),
    "a birth date that is a number": (
        ask(HOLDER, "open", birth_date=1985), [], "the directive `identity` of `open`.birth_date: must be text that is not blank"
    ),
    "a correction that nobody can read": (
        ask(INSURANCE, "correct_identity", birth_date="1985"), [OPEN], f"the directive `identity` of `correct_identity`.birth_date: {READABLE}"
    ),
    "a correction to come": (
        ask(INSURANCE, "correct_identity", birth_date="2026-11-22"), [OPEN], f"the directive `identity` of `correct_identity`.birth_date: {TO_COME}"
    ),
    "a correction of nothing": (ask(INSURANCE, "correct_identity"), [OPEN], "action.birth_date: is missing (`correct_identity` says it)"),
    "a blank correction": (ask(INSURANCE, "correct_identity", birth_date=" "), [OPEN], "action.birth_date: is missing (`correct_identity` says it)"),
    "a correction to after the opening": (
        ask(INSURANCE, "correct_identity", birth_date="2025-05-12"), [OPENED_IN_2024],
        "the directive `identity` of `correct_identity`.birth_date: is after `opened.from` of the record (correct the one that is wrong)",
    ),
    "a correction to after the death": (
        ask(INSURANCE, "correct_identity", birth_date="2026-01-11"), [OPEN, DIED],
        "the directive `identity` of `correct_identity`.birth_date: is after `deceased.date_of_death` of the record (correct the one that is wrong)",
    ),
    "a death to come": (
        ask(INSURANCE, "record_death", date_of_death="2027-11-20"), [OPEN], f"the directive `deceased` of `record_death`.date_of_death: {TO_COME}"
    ),
    "a death that nobody can read": (
        ask(INSURANCE, "record_death", date_of_death="yesterday"), [OPEN], f"the directive `deceased` of `record_death`.date_of_death: {READABLE}"
    ),
    "a death before the birth": (
        ask(INSURANCE, "record_death", date_of_death="1979-03-27"), [OPEN, ADULT],
        "the directive `deceased` of `record_death`.date_of_death: is before `identity.birth_date` of the record (correct the one that is wrong)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "known", "expected"), WRONG.values(), ids=WRONG)
def test_a_date_that_cannot_be_is_an_error_and_nothing_is_written(request_: Any, known: list[dict[str, Any]], expected: str) -> None:
    store = Memory(*known)
    with pytest.raises(RequestError) as caught:
        perform(PDP, store, request_, NOW, Conflict)
    assert str(caught.value) == expected
    assert store.written(len(known)) == [] and store.acts == []


@pytest.mark.parametrize(
    ("request_", "known"),
    [
        (ask(INSURANCE, "correct_identity", birth_date="2024-03-01"), [OPENED_IN_2024]),
        (ask(INSURANCE, "correct_identity", birth_date="1985-07-02"), [OPENED_IN_2024, DIED]),
        (ask(INSURANCE, "correct_identity", birth_date="2026-01-11"), [OPEN, DIED, {"kind": "deceased", "withdraw": True}]),
        (ask(INSURANCE, "correct_identity", birth_date="1985-07-02"), [OPEN, {"kind": "identity", "birth_date": "2999-01-01"}]),
        (ask(INSURANCE, "record_death", date_of_death="1979-03-28"), [OPEN, ADULT]),
        (ask(INSURANCE, "record_death", date_of_death="2026-01-10"), [OPEN, {"kind": "identity", "birth_date": "12/05/2012"}]),
        (ask(INSURANCE, "record_death"), [OPEN, ADULT]),
        (ask(HOLDER, "open", birth_date="2026-11-21"), []),
    ],
    ids=[
        "born on the day of the opening", "born before he died", "the death was withdrawn", "in the place of one to come", "died on the day of birth",
        "of whom nobody can read when he was born", "of whom nobody says when he died", "born today",
    ],
)  # fmt: skip
def test_a_date_that_can_be_is_recorded(request_: Any, known: list[dict[str, Any]]) -> None:
    assert perform(PDP, Memory(*known), request_, NOW, Conflict).directives


def test_the_representative_of_somebody_whose_birth_date_is_corrected_has_his_powers_from_then_on() -> None:
    store = Memory(OPEN, {"kind": "identity", "birth_date": "12/05/2012"}, REPRESENTED)
    assert rule(reads(PARENT), store.kept[PATIENT]) == "H05"
    assert perform(PDP, store, ask(INSURANCE, "correct_identity", birth_date="2012-05-12"), NOW, Conflict).answer.rule == "A16"
    assert rule(reads(PARENT), store.kept[PATIENT]) == "H03"


# --- what was stored before anybody looked at dates ------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Any:
    """A store whose directives were accepted by a pack that asked nothing of dates, words and rows, read with the pack of today."""
    vocabulary = PDP.pack.vocabulary
    careless = {name: replace(kind, dates=(), words={}, rows={}) for name, kind in vocabulary.kinds.items()}
    with ConsentStore(f"sqlite:///{tmp_path}/consent.db", replace(vocabulary, kinds=careless), create=True) as made:
        made.append(PATIENT, [OPEN, {"kind": "identity", "birth_date": "2999-01-01"}, REPRESENTED], NOW - 60)
        made.append("112057510804351", [OPEN, {"kind": "identity", "birth_date": "12/05/2012"}, REPRESENTED], NOW - 60)
        yield made.with_vocabulary(vocabulary)


@pytest.mark.parametrize("patient", [PATIENT, "112057510804351"], ids=["to-come", "unreadable"])
def test_what_is_stored_still_folds_and_to_the_value_that_refuses(old: ConsentStore, patient: str) -> None:
    record, _ = old.read(patient, NOW)
    assert [one.kind for one in record.in_force] == ["opened", "identity", "representation"]
    assert PDP.decide(reads(PARENT, resource=replace_patient(patient)), record).rule == "H05"
    assert [one.kind for one in old.as_of(patient, NOW, known_at=NOW).in_force] == ["opened", "identity", "representation"]


def test_what_is_stored_can_be_looked_ahead_from(old: ConsentStore) -> None:
    kept = parse_directives([one.directive for one in old.history(PATIENT)], PDP.pack.vocabulary, kept=True)
    correct = ask(INSURANCE, "correct_identity", birth_date="2014-06-01")
    (seen,) = preview(PDP, kept, correct, PARENT, [reads().resource], {}, NOW)
    assert (seen.now.rule, seen.then.rule) == ("H05", "H03")


def test_the_store_refuses_what_nobody_can_read_whoever_appends_it(old: ConsentStore) -> None:
    before = old.history(PATIENT)
    for date, expected in (("12/05/2012", READABLE), ("2999-01-01", TO_COME), ("2026-11-22", TO_COME)):
        with pytest.raises(RequestError) as caught:
            old.append(PATIENT, [CHILD, {"kind": "identity", "birth_date": date}], NOW)
        assert str(caught.value) == f"directives[1].birth_date: {expected}"
    assert old.history(PATIENT) == before


def replace_patient(patient: str) -> Any:
    report = reads().resource
    return type(report)(report.type, report.id, {**report.properties, "patient": patient})


# --- which value refuses ---------------------------------------------------------------------------------------------

REFUSES = {"consent.of_age": True, "consent.majority_proved": False, "consent.retention_over": True}
"""For each fact about a date of the record, the value that permits less, whatever else is so; what it is when the date is unknown, unreadable or to come."""


def test_every_fact_about_a_date_of_the_record_is_absent_as_it_refuses() -> None:
    facts = french().pack.vocabulary.facts
    told = {name: fact.absent for name, fact in facts.items() if isinstance(fact.form, Elapsed) and fact.form.since.steps[0] == "record"}
    assert told == REFUSES


@pytest.mark.parametrize("name", REFUSES)
def test_the_other_value_permits_all_that_this_one_does(name: str) -> None:
    """Proved on the diagrams: nothing is permitted with the refusing value that is not permitted with the other, all else being the same."""
    permits = {outcome.leaf for outcome in french().outcomes if outcome.permits}
    looked = 0
    for slice in french().slices.values():
        place = next((n for n, fact in enumerate(slice.facts) if fact.name == name), None)
        if place is not None:
            store, root = copy_of(slice, slice.facts)
            refusing, other = (store.restrict(root, {place: int(value)}) for value in (REFUSES[name], not REFUSES[name]))
            refused = store.map_leaves(other, lambda leaf: NONE if leaf in permits else HOLDS)
            assert store.find(store.both(refused, refusing), lambda leaf: leaf in permits) is None
            looked += 1
    assert looked
