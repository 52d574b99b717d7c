"""The policy decision point as a library: a compiled pack that folds records and decides requests.

    pdp = load_pdp("policies")
    record = pdp.fold(directives, at)
    answer = pdp.decide(request, record)

Evaluation is pure and total: it reads no clock, asks no store, and answers every request that has the shape of one. What it cannot decide it refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from engine.analysis.invariants import prove
from engine.analysis.meaning import meaning
from engine.answer import Answer, Answers
from engine.consent.directives import Directive, parse_directives
from engine.consent.fold import Record, fold
from engine.errors import Diagnostic, PackError, RequestError, TooLarge
from engine.evaluator.diagram import Store
from engine.evaluator.readers import Readers
from engine.evaluator.slices import Outcome, Slice, compile_slices, outcomes_of
from engine.evaluator.tables import Tables, build_tables
from engine.facts import cell_place
from engine.pack import Obligation, Pack, load_pack
from engine.request import Action, Entity, Request
from engine.specs import Scalar
from engine.vocabulary import Cell, Fact, Value


class Runner:
    """One slice for one action, ready to run: readers of facts, tables, and what each outcome owes."""

    def __init__(self, pack: Pack, slice: Slice, tables: Tables, outcomes: tuple[Outcome, ...], action: str):
        self.pack, self.slice, self.tables, self.outcomes, self.action = pack, slice, tables, outcomes, action
        self.evaluate = tables.evaluate
        self.decide, self.decide_many = Readers(slice.facts, tables, action).functions(Answer, self, outcomes)
        self.owed = [self._owed_by(outcome) for outcome in outcomes]
        self.cells = [fact for fact in slice.facts if isinstance(fact.form, Cell) and fact.name in tables.fields]

    def _owed_by(self, outcome: Outcome) -> tuple[Obligation, ...]:
        several = [self.pack.obligations[id] for id in outcome.reason.obligations] if outcome.reason else []
        return tuple(one for one in several if one.is_owed_by(self.action))

    def properties(self, obligation: Obligation, request: Request) -> dict[str, Any]:
        """An obligation's properties, `@path` read from the request."""
        return {key: request.look_up(tuple(text[1:].split("."))) if text.startswith("@") else text for key, text in obligation.properties.items()}

    def words(self, outcome: Outcome, language: str) -> str:
        if outcome.reason is None:
            return ""
        return self.pack.discreet.get(language, "") if outcome.reason.discreet else outcome.reason.words.get(language, "")

    @staticmethod
    def letter(fact: Fact, request: Request) -> str | None:
        """What stands in the cell to which a request leads, as the grid has it; nothing where there is no such cell."""
        form: Cell = fact.form  # type: ignore[assignment]
        row, column = cell_place(form, request)
        return form.grid.rows.get(row or "", {}).get(column or "")

    def leans_on(self, answer: Answer) -> list[str]:
        """The inferred cells on which the decision turns."""
        made = []
        for fact in self.cells:
            form: Cell = fact.form  # type: ignore[assignment]
            if self.letter(fact, answer.request) in form.grid.inferred:
                shift, bits = self.tables.fields[fact.name]
                bare = answer.code & ~((1 << bits) - 1 << shift)
                others = (bare | self.tables.code(fact.name, value) for value in fact.values)
                if any(self.evaluate(code) != answer.outcome.number for code in others):
                    made.append(fact.name)
        return made


class Pdp:
    """A compiled pack. Immutable, and safe to use from many threads. `slices` and `tables` come from a compiled file; left out, they are made."""

    def __init__(self, pack: Pack, slices: Mapping[tuple[str, str], Slice] | None = None, tables: Mapping[int, Tables] | None = None):
        self.pack = pack
        self.outcomes = outcomes_of(pack)
        self.slices = compile_slices(pack) if slices is None else slices
        self._runners = self._build(dict(tables or {}))
        self._nothing = Runner(pack, *_empty(self.outcomes[-1]), self.outcomes, "")
        self._decide: dict[str, dict[str, Any]] = {}
        for (subject, action), runner in self._runners.items():
            self._decide.setdefault(subject, {})[action] = runner.decide

    def _build(self, tables: dict[int, Tables]) -> dict[tuple[str, str], Runner]:
        made: dict[tuple[str, str], Runner] = {}
        for (subject, action), slice in self.slices.items():
            key = id(slice)
            if key not in tables:
                default = next(o.number for o in self.outcomes if o.rule == (self.pack.default_for(action) or ""))
                try:
                    tables[key] = build_tables(slice, default)
                except OverflowError as error:
                    message = f"{subject}, {action} depends on {error}"
                    raise TooLarge([Diagnostic("too-many-facts", message, "rules.csv", help="split what these rules ask into fewer facts")]) from None
            made[subject, action] = Runner(self.pack, slice, tables[key], self.outcomes, action)
        return made

    def runner(self, subject: str, action: str) -> Runner | None:
        """What runs a slice; nothing for a subject type or an action that the pack does not declare."""
        return self._runners.get((subject, action))

    # --- records ---

    def fold(self, directives: Iterable[Directive] | Sequence[Mapping[str, Any]], at: float, revision: int | None = None) -> Record:
        """The record that directives (or their JSON, as it was kept) amount to at an instant, in seconds since 1970. Raises `RequestError` for JSON that is no
        directive."""
        several = list(directives)
        known = several if all(isinstance(one, Directive) for one in several) else parse_directives(several, self.pack.vocabulary, kept=True)
        return fold(known, self.pack.vocabulary, at, revision)  # type: ignore[arg-type]

    # --- decisions ---

    def decide(self, request: Request, record: Record, at: float | None = None) -> Answer:
        """Decide one request at the record's instant, or at a later one at which the record still holds. Raises `RequestError` for a record out of date."""
        if at is None:
            at = record.at
        elif not record.at <= at < record.holds_until:
            raise RequestError("record", "does not hold at this instant", "fold the directives again")
        try:
            decide = self._decide[request.subject.type][request.action.name]
        except KeyError:  # the pack declares no such subject or action: no rule applies, so nothing opens
            decide = self._nothing.decide
        return decide(request, record, at)

    def decide_many(
        self, subject: Entity, action: Action, resources: Sequence[Entity], context: Mapping[str, Any], record: Record, at: float | None = None
    ) -> Answers:
        """Decide the same question for a list of resources of one patient, in their order. The same answers as one by one."""
        if at is None:
            at = record.at
        elif not record.at <= at < record.holds_until:
            raise RequestError("record", "does not hold at this instant", "fold the directives again")
        runner = self._runners.get((subject.type, action.name), self._nothing)
        resources = tuple(resources)
        codes, outcomes = runner.decide_many(subject, action, resources, context, record, at)
        return Answers(subject, action, resources, context, record, at, runner, codes, outcomes)

    # --- what it is ---

    @cached_property
    def meaning(self) -> str:
        """The hash of what the pack decides: equal for packs that decide alike, whatever the order of lines that do not matter."""
        return meaning(self)

    def evaluate(self, subject: str, action: str, situation: Mapping[str, Value]) -> Outcome:
        """Facts to outcome, for one slice: `situation` has a value for each fact that the slice depends on."""
        runner = self._runners.get((subject, action))
        if runner is None:
            return self.outcomes[-1]
        return self.outcomes[runner.evaluate(runner.tables.pack(situation))]


def _empty(nothing: Outcome) -> tuple[Slice, Tables]:
    slice = Slice((), Store([]), nothing.leaf, ())
    return slice, build_tables(slice, nothing.number)


def compile_pack(pack: Pack) -> Pdp:
    """Compile a checked pack and prove its invariants.

    Raises `PackError` with a counterexample for each that does not hold, `TooLarge` over the node budget.
    """
    pdp = Pdp(pack)
    if violations := prove(pdp):
        raise PackError(violation.diagnostic() for violation in violations)
    return pdp


def load_pdp(folder: str | FilePath, settings: Mapping[str, Scalar] | None = None) -> Pdp:
    """Read, check and compile the pack in a folder, and prove its invariants. Raises `PackError` with every mistake."""
    return compile_pack(load_pack(folder, settings))
