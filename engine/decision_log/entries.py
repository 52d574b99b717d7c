"""What the decision log says: one entry for each request, made from its answers after they were given.

An entry holds identifiers, the situation as a code, the rule and the letters of the cells that were looked at; never the content of a document. Of what a
caller sent it keeps the inputs that the pack declares and nothing else. What the codes mean is said once, by the `pack` entry of the process that uses a pack,
so that a log is read without the pack. A list of five hundred documents is one entry: one row for each would cost four fifths of the throughput.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, TypeAlias

import msgspec

from engine.answer import Answer, Answers
from engine.consent.database import after_fork
from engine.evaluator.slices import Outcome
from engine.pack import Pack
from engine.pdp import Pdp, Runner
from engine.request import Entity, Request, reader
from engine.vocabulary import Act, Cell, Coded, Elapsed, Form, Given, Held, Member, Path, Same

encode = msgspec.json.Encoder().encode
LONGEST_WORD = 256
"""Characters of a code that an entry repeats; what is longer is no code."""
REMEMBERED = 10_000
"""Cells of which a slice remembers the letters before it starts again."""


class _Ids:
    """Random identifiers, made by the page: to ask the operating system for each costs more than all the rest of it."""

    def __init__(self) -> None:
        self._page: Iterator[str] = iter(())
        after_fork(self._forked)

    def _forked(self) -> None:
        self._page = iter(())

    def take(self) -> str:
        try:
            return next(self._page)  # of an iterator over a list, no two threads get the same
        except StopIteration:
            page = os.urandom(13 * 128).hex()
            self._page = iter([page[start : start + 26] for start in range(0, len(page), 26)])
            return self.take()


_ids = _Ids()


def new_id() -> str:
    """The identifier of an entry and of its decisions: 26 random characters."""
    return _ids.take()


class DecisionEntry(msgspec.Struct, tag_field="kind", tag="decision", omit_defaults=True):
    """One question about one patient's record: by one subject, about one document or a list of them.

    `items`: for each resource its id, its code in the grids (nothing where it has none), the situation, the number of the outcome, the letters of the cells.
    `withheld`: the places of items that were permitted, and refused to this caller because it does not do what the permit obliges it to.
    """

    id: str
    at: float
    received: float
    caller: str
    patient: str
    subject: Mapping[str, Any]
    action: Mapping[str, Any]
    context: Mapping[str, Any]
    token: str
    pack: str
    mode: str
    items: Sequence[tuple[str, Any, int, int, str]]
    request: str = ""
    withheld: Sequence[int] = ()


class SearchEntry(DecisionEntry, tag="search"):
    """A search among `candidates` declared ones, of whom `permitted` were. `items` are those that this page told, by the identifier of what was `searched`."""

    searched: str = ""
    candidates: int = 0
    permitted: int = 0


class ActEntry(DecisionEntry, tag="act"):
    """An act on a record, with the directives that it wrote and the token of the record `after`.

    `state`: `asked` before it is done, then `done`, or `refused` when nothing was written, whatever its item says.
    """

    state: str = ""
    directives: Sequence[Mapping[str, Any]] = ()
    after: str = ""


# --- inputs ----------------------------------------------------------------------------------------------------------

BESIDE = {"context": {"basis", "session"}, "subject": set(), "action": set(), "resource": set()}
"""What no fact asks for, and a reviewer does: on what basis an act was asked for, and the session of which emergencies are told once."""


Tree: TypeAlias = dict[str, "Tree"]
"""Names of properties, each with those that are declared inside it; of one with none inside, the value itself is declared."""


class Inputs:
    """Which properties of a request the entries of a pack repeat: those that its facts, acts, identifiers and obligations read, and of these nothing more.

    INVARIANT: what a caller hangs on beside or inside them (the content of a document, say) is in no entry.
    """

    def __init__(self, pack: Pack):
        self.declared: dict[str, Tree] = {part: {word: {} for word in words} for part, words in BESIDE.items()}
        for head, *rest in _all_steps(pack):
            if head in self.declared and rest and rest != ["id"]:
                here = self.declared[head]
                for step in rest:
                    here = here.setdefault(step, {})

    def kept(self, part: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return _kept(properties, self.declared[part])


_PLAIN = frozenset((str, int, float, bool))


def _kept(properties: Mapping[str, Any], declared: Tree) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in properties.items():
        inside = declared.get(key)
        if inside is None:
            continue
        if inside:
            if isinstance(value, Mapping):
                made[key] = _kept(value, inside)
        elif value.__class__ in _PLAIN:
            made[key] = value
        elif value.__class__ is list:
            made[key] = [one for one in value if one.__class__ in _PLAIN]
    return made


def _all_steps(pack: Pack) -> Iterable[tuple[str, ...]]:
    for path in _paths(pack):
        yield path.steps
        yield from path.by_action.values()
    for obligation in pack.obligations.values():
        yield from (tuple(text[1:].split(".")) for text in obligation.properties.values() if text.startswith("@"))


def read_of(pack: Pack, action: str, part: str = "action") -> set[str]:
    """The properties of an action (or members of another part of a request, the `context`) that something in the pack reads, when that action is asked for: its
    facts, its identifiers, and what this act records."""
    paths = (*_paths_of_facts(pack), *_paths_of_acts(pack.vocabulary.acts.get(action, ())), *(path for path, _ in pack.identifiers.paths))
    several = [path.for_action(action) for path in paths]
    return {steps[1] for steps in several if steps[0] == part and len(steps) > 1}


def _paths(pack: Pack) -> Iterable[Path]:
    yield from _paths_of_facts(pack)
    for acts in pack.vocabulary.acts.values():
        yield from _paths_of_acts(acts)
    yield from (path for path, _ in pack.identifiers.paths)


def _paths_of_facts(pack: Pack) -> Iterable[Path]:
    for fact in pack.vocabulary.facts.values():
        if fact.constant is None:
            yield from paths_of(fact.form)


def paths_of(form: Form) -> Iterable[Path]:
    """The inputs that a fact of this form reads."""
    match form:
        case Given(of) | Member(of) | Coded(of) | Elapsed(of):
            yield of
        case Same(left, right):
            yield from (left, right)
        case Held():
            yield from (path for _, path in form.of if path is not None)
            yield from (wanted for _, wanted in (*form.where, *form.narrowed) if isinstance(wanted, Path))
        case Cell():
            yield from (path for path in (form.row, form.column) if path is not None)


def _paths_of_acts(acts: Iterable[Act]) -> Iterable[Path]:
    for act in acts:
        if isinstance(act.target, tuple):
            yield act.target[1]
        elif act.target is not None:
            yield from (Path(f"{act.target}.{word}", (*act.target.steps, word)) for word in ("type", "id", "from", "until"))
        if act.until is not None:
            yield act.until
        yield from (word for _, word in act.properties if isinstance(word, Path))


# --- decisions -------------------------------------------------------------------------------------------------------


Seen: TypeAlias = tuple[str | None, str]
"""What leads to a row of the grids, and the letters that stand there."""
_NOTHING: Seen = (None, "")


class Scribe:
    """Writes the items of one pack's entries."""

    def __init__(self, pdp: Pdp):
        self.pdp, self.inputs = pdp, Inputs(pdp.pack)
        self._cells: dict[Runner, _Cells] = {}

    def items(self, answers: Sequence[Answer]) -> list[tuple[str, Any, int, int, str]]:
        """One item for each answer of one question."""
        if type(answers) is Answers:
            return list(map(_item, answers.resources, self._seen_by(answers.runner).of_list(answers), answers.codes, answers.outcomes))
        cells = self._seen_by(answers[0].runner)
        return [_item(one.request.resource, cells.seen(one.request), one.code, one.outcome.number) for one in answers]

    def _seen_by(self, runner: Runner) -> _Cells:
        cells = self._cells.get(runner)
        if cells is None:
            cells = self._cells[runner] = _Cells(runner)
        return cells


def _item(resource: Entity, seen: Seen, code: int, outcome: int) -> tuple[str, Any, int, int, str]:
    row, letters = seen
    return resource.id, row, code, outcome, letters


class _Cells:
    """What a slice sees of the grids: the code that leads to a row, and the letters in the order of its cells, `-` where there is no cell."""

    def __init__(self, runner: Runner):
        self.runner = runner
        forms: list[Cell] = [fact.form for fact in runner.cells]  # type: ignore[misc]
        rows = list(dict.fromkeys(form.row.for_action(runner.action) for form in forms))
        columns = [form.column.for_action(runner.action) for form in forms if form.column is not None]
        self.inputs = [reader(steps) for steps in dict.fromkeys([*rows, *columns])]
        self._of_resource = [steps for steps in dict.fromkeys([*rows, *columns]) if steps[0] == "resource"]
        self._letters: dict[tuple[Any, ...], Seen] = {}

    def seen(self, request: Request) -> Seen:
        if not self.inputs:
            return _NOTHING
        key = tuple([read(request) for read in self.inputs])
        try:
            return self._letters[key]
        except (KeyError, TypeError):
            pass
        row = key[0] if isinstance(key[0], str) and len(key[0]) <= LONGEST_WORD else None
        made = row, "".join(self.runner.letter(fact, request) or "-" for fact in self.runner.cells)
        if row is not None and all(one.__class__ is str for one in key):
            if len(self._letters) >= REMEMBERED:
                self._letters.clear()
            self._letters[key] = made
        return made

    def of_list(self, answers: Answers) -> Iterable[Seen]:
        """The same for each resource of a list. Where they differ in one property, as they do, each value of it is looked up once."""
        if not self._of_resource:
            return repeat(self.seen(answers[0].request), len(answers))
        _, *rest = self._of_resource[0]
        if len(self._of_resource) > 1 or len(rest) != 1 or rest[0] == "id":
            return [self.seen(one.request) for one in answers]
        found: dict[Any, Seen] = {}
        made = []
        for place, resource in enumerate(answers.resources):
            value = resource.properties.get(rest[0])
            told = found.get(value) if value.__class__ is str else None
            if told is None:
                told = self.seen(answers[place].request)
                if value.__class__ is str:
                    found[value] = told
            made.append(told)
        return made


# --- packs -----------------------------------------------------------------------------------------------------------


def pack_entry(pdp: Pdp, at: float) -> bytes:
    """What the codes of a pack's entries mean: written by a process that starts to use the pack."""
    pack = pdp.pack
    slices: dict[str, Any] = {}
    for subject, action in pdp.slices:
        runner = pdp.runner(subject, action)
        assert runner is not None
        facts = {name: [shift, bits, list(runner.tables.values[name])] for name, (shift, bits) in runner.tables.fields.items()}
        slices[f"{subject}/{action}"] = {"facts": facts, "cells": [fact.name for fact in runner.cells]}
    outcomes = [_outcome(pack, one) for one in pdp.outcomes]
    obligations = {
        one.id: {"to": one.to, "actions": sorted(one.actions or pack.vocabulary.actions), "properties": dict(one.properties), "words": dict(one.words)}
        for one in pack.obligations.values()
    }
    return encode(
        {
            "kind": "pack",
            "id": new_id(),
            "at": at,
            "digest": pack.digest,
            "name": pack.name,
            "version": pack.version,
            "time_zone": pack.vocabulary.time_zone,
            "actions": dict(pack.vocabulary.actions),
            "slices": slices,
            "outcomes": outcomes,
            "obligations": obligations,
        }
    )


def _outcome(pack: Pack, outcome: Outcome) -> dict[str, Any]:
    reason = outcome.reason
    made: dict[str, Any] = {"rule": outcome.rule, "decision": outcome.decision}
    if reason is not None:
        owed = [pack.obligations[id] for id in reason.obligations]
        obligations = {action: [one.id for one in owed if one.is_owed_by(action)] for action in pack.vocabulary.actions} if owed else {}
        made |= {"discreet": reason.discreet, "legal_basis": reason.legal_basis, "words": dict(reason.words), "obligations": obligations}
    return made


# --- other entries ---------------------------------------------------------------------------------------------------


def entry(kind: str, at: float, **said: Any) -> bytes:
    """An entry that is no decision: `outcome` of an access, `read` of a log or a journal, `refused` caller, `review`. Members that are nothing are left out."""
    return encode({"kind": kind, "id": new_id(), "at": at} | {key: value for key, value in said.items() if value is not None})
