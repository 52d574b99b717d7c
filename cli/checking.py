"""What `habilis check` tells of a pack: its mistakes, or what it is, which columns of the matrix are shut, what was proved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from engine.analysis.dead import dead_rules
from engine.errors import Diagnostic
from engine.pack import Pack
from engine.pdp import Pdp
from engine.vocabulary import Cell, Fact, Grid


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a grid that give a fact nothing, under the settings in force, and those among them that no code leads to."""

    fact: str
    grid: str
    all: tuple[str, ...]
    shut: tuple[str, ...]
    unreached: tuple[str, ...]

    @property
    def open(self) -> tuple[str, ...]:
        return tuple(column for column in self.all if column not in self.shut)


def columns_of(pack: Pack) -> list[Columns]:
    """For each fact that reads a grid by column: the columns in which it never has another value than when the input is absent."""
    facts = (fact for fact in pack.vocabulary.facts.values() if isinstance(fact.form, Cell) and fact.form.column is not None)
    return [_columns(fact, fact.form) for fact in facts]  # type: ignore[arg-type]


def _columns(fact: Fact, form: Cell) -> Columns:
    names = form.grid.columns
    unreached = tuple(name for name in names if name not in set(form.column_of.values()))
    shut = tuple(name for name in names if name in unreached or all(form.letters[row[name]] == fact.absent for row in form.grid.rows.values() if name in row))
    return Columns(fact.name, form.grid.name, names, shut, unreached)


def cells_of(grid: Grid) -> dict[str, int]:
    """How many cells of a grid are published, and how many inferred."""
    letters = [letter for row in grid.rows.values() for letter in row.values()]
    inferred = sum(letter in grid.inferred for letter in letters)
    return {"cells": len(letters), "published": len(letters) - inferred, "inferred": inferred}


def summary(pdp: Pdp) -> dict[str, Any]:
    """All that `check` says of a pack that checks, as data."""
    pack = pdp.pack
    slices = {id(slice): slice for slice in pdp.slices.values()}.values()
    return {
        "fine": True,
        "name": pack.name,
        "version": pack.version,
        "title": pack.title,
        "digest": pack.digest,
        "meaning": pdp.meaning,
        "settings": dict(pack.settings),
        "rules": len(pack.rules),
        "facts": len(pack.vocabulary.facts),
        "slices": {"questions": len(pdp.slices), "distinct": len(slices), "nodes": sum(slice.size for slice in slices)},
        "grids": {grid.name: cells_of(grid) for grid in pack.vocabulary.grids.values()},
        "columns": [asdict(one) for one in columns_of(pack)],
        "invariants": [one.id for one in pack.invariants],
        "warnings": [asdict(one) for one in (*pack.warnings, *dead_rules(pdp))],
    }


def lines_of(told: dict[str, Any]) -> Iterator[str]:
    """The summary for people."""
    yield f"{told['name']} {told['version']}: {told['title']}"
    yield f"  digest    {told['digest']}"
    yield f"  meaning   {told['meaning']}"
    slices = told["slices"]
    yield f"  rules     {told['rules']}, over {told['facts']} facts"
    yield f"  slices    {slices['questions']} (subject type x action), {slices['distinct']} distinct, {slices['nodes']:,} nodes"
    for name, cells in told["grids"].items():
        share = round(100 * cells["inferred"] / cells["cells"]) if cells["cells"] else 0
        yield f"  grid      {name}: {cells['cells']:,} cells, {cells['published']:,} published, {cells['inferred']:,} inferred ({share} %)"
    for one in told["columns"]:
        yield from _column_lines(one)
    yield f"  proved    {len(told['invariants'])} invariants: " + ", ".join(told["invariants"])
    for one in told["warnings"]:
        yield Diagnostic(**one).render()


def _column_lines(one: dict[str, Any]) -> Iterator[str]:
    left = [name for name in one["all"] if name not in one["shut"]]
    yield f"  columns   {one['fact']}: {len(left)} of {len(one['all'])} open: {', '.join(left) or 'none'}"
    closed = [name for name in one["shut"] if name not in one["unreached"]]
    if closed:
        yield f"            shut under these settings: {', '.join(closed)}"
    if one["unreached"]:
        yield f"            no code leads to: {', '.join(one['unreached'])}"
