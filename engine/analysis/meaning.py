"""The hash of what a pack decides. Equal meaning, equal hash, whatever the order of lines that do not matter, ids, comments and layout.

Each slice is written down as its reduced diagram over facts in the order of `Slice.facts`, which is unique; leaves are (decision, obligations, discreet,
reason). What the facts themselves compute (codes, cells, settings in force, what ends a directive) is part of it: a cell that turns changes what the pack
decides. So is what a permitted act records: it changes the next decision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from engine.evaluator.conditions import Condition, names
from engine.evaluator.diagram import HOLDS, NONE, Store
from engine.evaluator.slices import FIRST_OUTCOME, Builder, Slice, copy_into, facts_of, fold_constants
from engine.pack import Pack
from engine.vocabulary import Cell, Coded, Elapsed, Fact, Held, Kind, Member, Path, Vocabulary

if TYPE_CHECKING:
    from engine.pdp import Pdp, Runner

UNLIMITED = 1_000_000_000
"""Nodes: what compiled within its budget may be written down in an order that takes more."""


def meaning(pdp: Pdp) -> str:
    """SHA-256 of the canonical diagrams of every slice and of the facts that they use."""
    slices = {}
    used: set[str] = set()
    for (subject, action), slice in pdp.slices.items():
        runner = pdp.runner(subject, action)
        assert runner is not None
        used |= {fact.name for fact in slice.order}
        slices[f"{subject} {action}"] = _diagram(slice, {leaf: _leaf(runner, FIRST_OUTCOME - leaf) for leaf in slice.store.leaves(slice.root)})
    vocabulary = pdp.pack.vocabulary
    used |= {name.fact for acts in vocabulary.acts.values() for act in acts if act.when for name in names(act.when)} & vocabulary.facts.keys()
    facts = {name: _fact(vocabulary.facts[name], vocabulary) for name in sorted(used)}
    acts = {action: acts_of(pdp.pack, action) for action in vocabulary.acts}
    return _hash([slices, facts, vocabulary.time_zone, dict(pdp.pack.discreet), acts])


def acts_of(pack: Pack, action: str) -> list[Any]:
    """What an action records, for whom and when, in order and without how it is written."""
    return [
        [
            act.kind, act.withdraw, _plain(act.target), act.from_now, _plain(act.until), act.days, sorted(_plain(act.properties), key=str),
            sorted(act.required), [] if act.withdraw else _asked_of(pack.vocabulary.kinds[act.kind]),
            {subject: _where(pack, act.when, subject, action) for subject in pack.vocabulary.subjects},
        ]
        for act in pack.vocabulary.acts.get(action, ())
    ]  # fmt: skip


def _asked_of(kind: Kind) -> list[Any]:
    """What a new directive of a kind must be to be accepted: its dates, words and rows."""
    words, not_after = ({key: sorted(several) for key, several in said.items()} for said in (kind.words, kind.not_after))
    return [sorted(kind.dates), words, {form: sorted(grid.rows) for form, grid in kind.rows.items()}, not_after]


def _where(pack: Pack, condition: Condition | None, subject: str, action: str) -> bool | str:
    """When a condition holds, for one subject type and action: the hash of its diagram."""
    folded = True if condition is None else fold_constants(condition, pack, subject, action)
    if isinstance(folded, bool):
        return folded
    facts = facts_of(pack, [folded])
    store = Store([len(fact.values) for fact in facts], UNLIMITED)
    return _diagram(Slice(facts, store, Builder(store, facts).build(folded), ()), {HOLDS: True, NONE: False})


def _leaf(runner: Runner, number: int) -> Any:
    outcome = runner.outcomes[number]
    owed = [[one.id, one.to, dict(one.properties)] for one in runner.owed[number]]
    reason = outcome.reason
    return [outcome.decision, owed, reason.discreet if reason else False, [reason.legal_basis, dict(reason.words)] if reason else []]


def _diagram(slice: Slice, leaves: Mapping[int, Any]) -> str:
    """The hash of a slice's function: its diagram rebuilt in the order of its facts, children named by value, equal leaves merged."""
    names = {leaf: _hash(what) for leaf, what in leaves.items()}
    numbers = {name: -3 - place for place, name in enumerate(sorted(set(names.values())))}
    store = Store(slice.store.sizes, UNLIMITED)
    (copied,) = copy_into(store, slice.store, {v: v for v in range(len(slice.facts))}, [slice.root])
    root = store.map_leaves(copied, lambda leaf: numbers[names[leaf]])
    made = {number: name for name, number in numbers.items()}
    values = [[json.dumps(value) for value in fact.values] for fact in slice.facts]
    for n in store.reachable(root):
        node = store.nodes[n]
        others, default = dict(node.others), made[node.default]
        children = {word: made[others[place]] if place in others else default for place, word in enumerate(values[node.variable])}
        made[n] = _hash([slice.facts[node.variable].name, children])
    return made[root]


def _fact(fact: Fact, vocabulary: Vocabulary) -> Any:
    """What a fact computes, without where it is written or how it is explained. What has no order gets one, and what says the same as nothing is left out."""
    head = [sorted(map(json.dumps, fact.values)), fact.absent, fact.unknown, ended_by(fact, vocabulary)]
    match fact.form:
        case Held(kind, of, where, via, group, ended, narrowed):
            said = [sorted(_plain(several), key=str) for several in (of, where, narrowed)]
            return [*head, "held", kind, *said, via, group, ended]
        case Member(of, among, several):
            return [*head, "member", _plain(of), sorted(among), several]
        case Coded(of, codes, several):
            return [*head, "coded", _plain(of), {code: value for code, value in codes.items() if value != fact.unknown}, several]
        case Cell(grid, row, column, column_of, fixed, letters):
            said = {name: {place: letters[cells[name]] for place, cells in grid.rows.items() if letters[cells[name]] != fact.unknown} for name in grid.columns}
            columns = {name: _hash(cells) for name, cells in said.items() if cells}
            led = {code: columns[name] for code, name in column_of.items() if name in columns}
            return [*head, "cell", _plain(row), _plain(column), columns.get(fixed or ""), led]
        case form:
            return [*head, _plain(form)]


def ended_by(fact: Fact, vocabulary: Vocabulary) -> dict[str, list[str]]:
    """For each kind of directive behind a fact, the kinds that end it."""
    match fact.form:
        case Held(kind, via=via):
            behind = [kind, *([via] if via else ())]
        case Elapsed(Path(steps=("record", kind, _))):
            behind = [kind]
        case _:
            behind = []
    return {kind: sorted(name for name, one in vocabulary.kinds.items() if kind in one.ends) for kind in behind}


def _plain(value: Any) -> Any:
    """Frozen things as JSON, without how they were written."""
    if isinstance(value, Path):
        return [list(value.steps), {action: list(steps) for action, steps in value.by_action.items()}]
    if is_dataclass(value):
        return [type(value).__name__, *(_plain(getattr(value, f.name)) for f in fields(value))]
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
