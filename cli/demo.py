"""`habilis demo`: an afternoon in two shared records, decided before your eyes.

The scenario is a file of vectors (examples/demo.yaml), so the demonstration also checks itself: an answer that is not the expected one ends it with 1. Then
the same record lives in a consent store for a minute, in a temporary file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from engine.calendar import iso
from engine.consent.acts import perform
from engine.consent.store import Conflict, ConsentStore
from engine.explain import explain
from engine.pdp import Pdp, load_pdp
from engine.request import Action, Entity, Request
from engine.vectors import Packs, Result, read_vectors, run_case
from engine.vocabulary import Cell

ROOT = Path(__file__).parent.parent
SCENARIO = ROOT / "examples" / "demo.yaml"
EXPLAINED = "team-nurse"


def lines(language: str = "en") -> tuple[list[str], bool]:
    """The demonstration as text, and whether every answer was the expected one."""
    pdp = load_pdp(ROOT / "policies")
    packs = Packs()
    cases = read_vectors([SCENARIO], packs)
    results = [run_case(packs(case.pack, case.settings), case) for case in cases]
    shown = [f"{pdp.pack.title} (pack {pdp.pack.name} {pdp.pack.version}, {len(pdp.pack.rules)} rules, digest {pdp.pack.digest[:12]})", ""]
    for number, result in enumerate(results, 1):
        shown += _step(number, result, language)
    explained = next(result for result in results if result.case.id == EXPLAINED)
    if explained.answer is not None:
        shown += [f"Why number {results.index(explained) + 1} was answered so, for a reviewer:", "", explain(explained.answer).text(language), ""]
    asked = next(result.answer.request for result in results if result.case.id == EXPLAINED and result.answer)
    kept, as_expected = _in_a_store(pdp, asked, results[0].case.at, language)
    shown += kept
    shown += _settings(pdp, packs(str(ROOT / "policies"), {"inferred_cells": "follow"}))
    return shown, as_expected and all(result.status == "passed" for result in results)


def _step(number: int, result: Result, language: str) -> list[str]:
    case, answer = result.case, result.answer
    shown = [f"{number:>2}. {case.title}"]
    if answer is None:
        return [*shown, f"    {result.error}", ""]
    request = answer.request
    at = iso(answer.at, answer.record.zone)[:16].replace("T", " ")
    shown.append(f"    {request.subject.type} {request.subject.id} asks: {request.action.name} {request.resource.id}, {at}")
    discreet = ", discreet: nothing says that the document exists" if answer.discreet else ""
    shown.append(f"    {answer.decision.upper()} by {answer.rule} ({answer.legal_basis}){discreet}")
    shown.append(f"    the requester reads: {answer.words(language)}")
    shown += [f"    owes: {one.words.get(language, one.id)}" for one in answer.owed]
    shown += ["    leans on an inferred cell of the matrix"] if answer.inferred else []
    shown += [f"    UNEXPECTED: {difference}" for difference in result.differences]
    return [*shown, ""]


def _in_a_store(pdp: Pdp, reading: Request, at: float, language: str) -> tuple[list[str], bool]:
    """The record in a consent store: every change is an act that the policy decides, and the very next decision honours it. Whether all went as expected."""
    patient, nurse = str(reading.resource.properties["patient"]), reading.subject
    holder, physician = Entity("patient", patient), {"type": "professional", "id": "10000023084", "profession": "G15_10"}

    def does(action: str, **properties: object) -> Request:
        return Request(holder, Action(action, properties), Entity("record", patient), {"purpose": "care"})

    him = {"type": nurse.type, "id": nurse.id}
    asked = [
        ("The holder opens her record", does("open", birth_date="1979-03-28"), "A10"),
        ("She lets the nurse consult it", does("grant_access", target=him, until="2026-12-31"), "A01-someone"),
        ("The nurse reads laboratory results", reading, "R18"),
        ("She blocks him", does("block", target=him), "A01-block"),
        ("The very next decision", reading, "R05"),
        ("She declares her treating physician", does("declare_treating_physician", target=physician), "A12-declare"),
        ("She wants to block that physician", does("block", target=physician), "A02-block"),
    ]
    shown, rules = ["The same record in a consent store (SQLite, a temporary file):", ""], []
    with TemporaryDirectory(prefix="habilis-") as folder, ConsentStore(f"sqlite:///{folder}/consent.db", pdp.pack.vocabulary, create=True) as store:
        for minute, (title, request, _) in enumerate(asked):
            now = at + 60 * minute
            answer = pdp.decide(request, store.read(patient, now)[0]) if request is reading else perform(pdp, store, request, now, Conflict).answer
            rules.append(answer.rule)
            shown.append(f"  {title + ':':<38}{answer.decision.upper()} by {answer.rule}: {answer.words(language)}")
        shown += ["", "  What was asked for, as the store keeps it:", *_acts(store, patient, pdp.pack.vocabulary.time_zone), ""]
    return shown, rules == [expected for _, _, expected in asked]


def _acts(store: ConsentStore, patient: str, zone: str) -> Iterator[str]:
    for one in store.acts(patient):
        revisions = f"revision {one.before.revision} -> {one.after.revision}" if one.before != one.after else f"revision {one.before.revision} stays"
        yield f"    {iso(one.recorded, zone)[:16].replace('T', ' ')}  {one.act.action:<28}{one.act.decision} by {one.act.rule}, {revisions}"


def _settings(refuse: Pdp, follow: Pdp) -> list[str]:
    """How many cells each profession reads under the two settings for inferred cells, side by side."""
    shown = ["Cells of the matrix that let a profession read, of 107 types: inferred cells refused (the default), and followed as marked.", ""]
    cells = [_cell(refuse), _cell(follow)]
    for column in cells[0].grid.columns:
        counts = [sum(cell.letters[row[column]] is True for row in cell.grid.rows.values()) for cell in cells]
        reached = "" if column in cells[0].column_of.values() else "   (no profession leads to this column)"
        shown.append(f"  {column:<20}{counts[0]:>5}{counts[1]:>7}{reached}")
    return [*shown, ""]


def _cell(pdp: Pdp) -> Cell:
    form = pdp.pack.vocabulary.facts["matrix.read"].form
    assert isinstance(form, Cell)
    return form
