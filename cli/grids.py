"""A grid of a pack as a person reads it: all of it, one column, one row or one cell, each with where it comes from and what it gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli.edge import Misuse, choose
from engine.pack import Pack
from engine.vocabulary import Cell, Coded, Grid, Value

CODE = 14


class GridView:
    """The part of a grid that was asked for."""

    def __init__(self, pack: Pack, action: str | None, profession: str | None, column: str | None, type: str | None):
        if not pack.vocabulary.grids:
            raise Misuse(f"the pack `{pack.name}` has no grid")
        if profession and column:
            raise Misuse("give --profession or --column, not both")
        grids = pack.vocabulary.grids
        self.grid = grids[choose("grid", action, grids) if action else next(iter(grids))]
        self.facts = [fact for fact in pack.vocabulary.facts.values() if isinstance(fact.form, Cell) and fact.form.grid is self.grid]
        self.profession = profession
        self.forms: list[Cell] = [fact.form for fact in self.facts]  # type: ignore[misc]
        self.columns = self._columns(pack, profession, column)
        self.rows = [choose("document type", type, self.grid.rows)] if type else list(self.grid.rows)
        self.type = type

    def _columns(self, pack: Pack, profession: str | None, column: str | None) -> list[str]:
        if column:
            return [choose("column", column, self.grid.columns)]
        if not profession:
            return list(self.grid.columns)
        known = {code: name for form in self.forms for code, name in form.column_of.items()}
        choose("profession", profession, dict.fromkeys([*known, *self._listed(pack)]))
        return [name for name in [known.get(profession)] if name in self.grid.columns]

    def _listed(self, pack: Pack) -> Iterator[str]:
        """The codes that the pack's lists know of what the columns are found by, with or without a column."""
        paths = {str(form.column) for form in self.forms if form.column is not None}
        for fact in pack.vocabulary.facts.values():
            if isinstance(fact.form, Coded) and str(fact.form.of) in paths:
                yield from fact.form.codes

    @property
    def whole(self) -> bool:
        return len(self.columns) == len(self.grid.columns) and not self.type

    def cells(self) -> Iterator[dict[str, Any]]:
        """Each cell: row, column, letter, basis, provenance, and the value that it gives each fact that reads this column."""
        for row in self.rows:
            for column in self.columns:
                letter = self.grid.rows[row].get(column)
                if letter is not None:
                    yield {
                        "type": row, "column": column, "letter": letter, "basis": self._basis(letter),
                        "provenance": dict(self.grid.provenance.get((row, column), {})), "gives": dict(self._gives(column, letter)),
                    }  # fmt: skip

    def _basis(self, letter: str) -> str:
        return "inferred" if letter in self.grid.inferred else "published"

    def _gives(self, column: str, letter: str) -> Iterator[tuple[str, Value]]:
        for fact in self.facts:
            form = fact.form
            assert isinstance(form, Cell)
            if form.column is not None or form.fixed_column == column:
                yield fact.name, form.letters[letter]

    def as_dict(self) -> dict[str, Any]:
        labels = {row: self.grid.labels.get(row, "") for row in self.rows}
        return {"grid": self.grid.name, "columns": self.columns, "labels": labels, "cells": list(self.cells())}

    # --- text ---

    def lines(self) -> Iterator[str]:
        """The view for people."""
        yield f"{self.grid.name} ({self.grid.file}): " + ", ".join(f"{letter or '(empty)'} {self._basis(letter)}" for letter in self._letters())
        if not self.columns:
            gives = (f"{fact.name} {_word(fact.unknown)}" for fact in self.facts if fact.form.column is not None)  # type: ignore[union-attr]
            yield f"`{self.profession}` has no column: whatever the type, {', '.join(gives)}"
        elif self.whole:
            yield from _whole(self.grid)
        else:
            yield from self._detail()

    def _letters(self) -> list[str]:
        used = {letter for row in self.grid.rows.values() for letter in row.values()}
        return sorted(used, key=lambda letter: (letter in self.grid.inferred, letter))

    def _detail(self) -> Iterator[str]:
        by_row = len(self.columns) == 1
        if by_row:
            yield f"column {self.columns[0]}"
        if self.type:
            yield f"type {self.type} {self.grid.labels.get(self.type, '')}"
        for cell in self.cells():
            gives = ", ".join(f"{name} {_word(value):<5}" for name, value in cell["gives"].items())
            source = ", ".join(f"{key} {value}" for key, value in cell["provenance"].items() if value)
            name = cell["type"] if by_row and not self.type else cell["column"]
            label = f"  {self.grid.labels.get(cell['type'], '')}" if by_row and not self.type else ""
            line = f"  {name:<{CODE + 7}} {cell['letter'] or '-'}  {cell['basis']:<9}  {gives}{label}" + (f"  ({source})" if source and self.type else "")
            yield line.rstrip()


def _whole(grid: Grid) -> Iterator[str]:
    """Columns by number, a legend above."""
    for place, column in enumerate(grid.columns, 1):
        yield f"  {place:>2} {column}"
    yield " " * CODE + "".join(f"{place:>3}" for place in range(1, len(grid.columns) + 1))
    for row, cells in grid.rows.items():
        yield f"{row:<{CODE}}" + "".join(f"{cells.get(column) or '-':>3}" for column in grid.columns) + f"  {grid.labels.get(row, '')}"


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else value
