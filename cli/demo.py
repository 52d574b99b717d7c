"""`habilis demo`: an afternoon in two shared records, decided before your eyes.

The scenario is a file of vectors (examples/demo.yaml), so the demonstration also checks itself: an answer that is not the expected one ends it with 1.
"""

from __future__ import annotations

from pathlib import Path

from engine.calendar import iso
from engine.explain import explain
from engine.pdp import Pdp, load_pdp
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
    shown += _settings(pdp, packs(str(ROOT / "policies"), {"inferred_cells": "follow"}))
    return shown, all(result.status == "passed" for result in results)


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
