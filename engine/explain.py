"""One decision explained, to two readers: all of it to a reviewer, and to the requester what a reply may say.

For the reviewer: the facts, the rule, the article, the cell and where it comes from, and the fewest `changeable` facts that would turn the decision. For the
requester of a discreet refusal: the one text that is always the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from engine.analysis.dead import excluded_from, possible
from engine.answer import Answer
from engine.calendar import iso
from engine.evaluator.diagram import Store
from engine.evaluator.slices import copy_into
from engine.facts import cell_place
from engine.vocabulary import Cell, Fact, Value

UNLIMITED = 1_000_000_000
"""Nodes: an explanation of a pack that compiled does not fail over its budget."""


@dataclass(frozen=True, slots=True)
class CellSeen:
    """A cell that a decision looked at: grid, row, column, letter, what is known of its source, and whether the decision turns on it being inferred."""

    fact: str
    grid: str
    row: str
    column: str
    letter: str
    label: str
    provenance: Mapping[str, str]
    leans: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "fact": self.fact, "grid": self.grid, "row": self.row, "column": self.column, "letter": self.letter, "label": self.label,
            "provenance": dict(self.provenance), "leans": self.leans,
        }  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """Why a request was answered so."""

    answer: Answer
    situation: Mapping[str, Value]
    tested: tuple[str, ...]
    cells: tuple[CellSeen, ...]
    turns: tuple[Mapping[str, Value], ...]

    @property
    def requester(self) -> dict[str, Any]:
        """What the requester may be told."""
        return self.answer.for_requester(self.answer.runner.pack.languages)

    @property
    def reviewer(self) -> dict[str, Any]:
        """Everything."""
        return {
            **self.answer.for_reviewer(self.answer.runner.pack.languages),
            "at": iso(self.answer.at, self.answer.record.zone),
            "situation": dict(self.situation),
            "tested": list(self.tested),
            "cells": [cell.as_dict() for cell in self.cells],
            "would_turn": [dict(turn) for turn in self.turns],
        }

    def text(self, language: str = "en") -> str:
        """For a reviewer to read."""
        answer, facts = self.answer, self.answer.runner.pack.vocabulary.facts
        subject, action, resource = answer.request.subject, answer.request.action, answer.request.resource
        reason = answer.outcome.reason
        lines = [
            f"{subject.type} {subject.id}, {action.name}, {resource.type} {resource.id}, at {iso(answer.at, answer.record.zone)}",
            f"{answer.decision} by {answer.rule}" + (" (discreet)" if answer.discreet else "") if answer.rule else "no rule applies",
        ]
        if reason:
            lines += [f"  {reason.words.get(language, '')}", f"  legal basis: {reason.legal_basis}"]
        lines += [f"  the requester reads: {answer.words(language)}"] if answer.discreet else []
        lines += [f"  owes: {one.id}" + _beside(one.words.get(language, "")) for one in answer.owed]
        lines += ["facts, in the order in which they were looked at:"] if self.tested else []
        lines += [f"  {name:<34} {_word(self.situation[name]):<14} {facts[name].about}" for name in self.tested]
        for cell in self.cells:
            source = ", ".join(f"{key} {value}" for key, value in cell.provenance.items() if value)
            lean = "; the decision leans on it" if cell.leans else ""
            lines.append(f"cell {cell.grid}: {cell.row}{_beside(cell.label)}, {cell.column}: `{cell.letter}`{_beside(source)}{lean}")
        for turn in self.turns:
            lines.append("would turn it: " + ", ".join(f"{name} {_word(value)}" for name, value in turn.items()))
        return "\n".join(lines)


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def _beside(words: str) -> str:
    return f" ({words})" if words else ""


def explain(answer: Answer) -> Explanation:
    """Explain an answer of a `Pdp`."""
    situation = answer.situation
    tested = _tested(answer, situation)
    return Explanation(answer, situation, tuple(tested), tuple(_cells(answer, tested)), tuple(_turns(answer, situation)))


def _tested(answer: Answer, situation: Mapping[str, Value]) -> list[str]:
    """The facts on the path from the top of the diagram to the decision."""
    slice, found = answer.runner.slice, []
    n = slice.root
    while n >= 0:
        node = slice.store.nodes[n]
        fact = slice.facts[node.variable]
        found.append(fact.name)
        n = node.child(_place(fact, situation[fact.name]))
    return found


def _place(fact: Fact, value: Value) -> int:
    return next(n for n, one in enumerate(fact.values) if one is value or (one == value and isinstance(one, str)))


def _cells(answer: Answer, tested: Collection[str]) -> list[CellSeen]:
    made = []
    leans = answer.runner.leans_on(answer)
    for fact in (fact for fact in answer.runner.cells if fact.name in tested):
        form: Cell = fact.form  # type: ignore[assignment]
        row, column = cell_place(form, answer.request)
        letter = form.grid.rows.get(row or "", {}).get(column or "")
        if letter is not None and row and column:
            source = form.grid.provenance.get((row, column), {})
            made.append(CellSeen(fact.name, form.grid.name, row, column, letter, form.grid.labels.get(row, ""), source, fact.name in leans))
    return made


def _turns(answer: Answer, situation: Mapping[str, Value]) -> list[dict[str, Value]]:
    """The smallest sets of changeable facts that would turn the decision, a permit into anything else or anything else into a permit. At most three.

    None leads where the vocabulary says that nothing can be: nobody could bring it about.
    """
    facts, store, root = _possible(answer)
    wanted = {outcome.leaf for outcome in answer.runner.outcomes if outcome.permits != answer.permitted}
    best: dict[int, float] = {}
    for n in store.reachable(root):
        node = store.nodes[n]
        fact = facts[node.variable]
        here = _place(fact, situation[fact.name])
        options = [here] if not fact.changeable else range(len(fact.values))
        best[n] = min((value != here) + _cost(node.child(value), best, wanted) for value in options)
    fewest = _cost(root, best, wanted)
    if fewest in (0, float("inf")):
        return []
    found: list[dict[str, Value]] = []

    def walk(n: int, left: float, changed: dict[str, Value]) -> None:
        if len(found) == 3:
            return
        if n < 0:
            found.append(dict(changed))
            return
        node = store.nodes[n]
        fact = facts[node.variable]
        here = _place(fact, situation[fact.name])
        for value in [here, *(v for v in range(len(fact.values)) if v != here and fact.changeable)]:
            spent = value != here
            if spent + _cost(node.child(value), best, wanted) <= left:
                if spent:
                    changed[fact.name] = fact.values[value]
                walk(node.child(value), left - spent, changed)
                changed.pop(fact.name, None)

    walk(root, fewest, {})
    return found


def _possible(answer: Answer) -> tuple[tuple[Fact, ...], Store, int]:
    """The slice over the facts that it depends on, in a store of its own, without an outcome where nothing can be."""
    slice, request, pack = answer.runner.slice, answer.request, answer.runner.pack
    facts = slice.order
    store = Store([len(fact.values) for fact in facts], UNLIMITED)
    (root,) = copy_into(store, slice.store, {slice.variable[fact.name]: place for place, fact in enumerate(facts)}, [slice.root])
    return facts, store, store.both(possible(pack, store, facts, excluded_from(pack, request.subject.type, request.action.name)), root)


def _cost(n: int, best: Mapping[int, float], wanted: set[int]) -> float:
    return best[n] if n >= 0 else 0 if n in wanted else float("inf")


