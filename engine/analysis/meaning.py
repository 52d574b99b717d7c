"""The hash of what a pack decides. Equal meaning, equal hash, whatever the order of lines that do not matter, ids, comments and layout.

Each slice is written down as its reduced diagram over facts in alphabetical order, which is unique; leaves are (decision, obligations, discreet, reason). What the facts themselves compute
(codes, cells, settings in force) is part of it: a cell that turns changes what the pack decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from engine.evaluator.diagram import Store
from engine.evaluator.slices import Slice, copy_into
from engine.vocabulary import Grid

if TYPE_CHECKING:
    from engine.pdp import Pdp, Runner


def meaning(pdp: Pdp) -> str:
    """SHA-256 of the canonical diagrams of every slice and of the facts that they use."""
    slices = {}
    used: set[str] = set()
    for (subject, action), slice in pdp.slices.items():
        runner = pdp.runner(subject, action)
        assert runner is not None
        used |= {fact.name for fact in slice.order}
        slices[f"{subject} {action}"] = _diagram(slice, {outcome.leaf: _leaf(runner, outcome.number) for outcome in pdp.outcomes})
    facts = {name: _plain(pdp.pack.vocabulary.facts[name]) for name in sorted(used)}
    return _hash([slices, facts, pdp.pack.vocabulary.time_zone, dict(pdp.pack.discreet)])


def _leaf(runner: Runner, number: int) -> Any:
    outcome = runner.outcomes[number]
    owed = [[one.id, one.to, dict(one.properties)] for one in runner.owed[number]]
    reason = outcome.reason
    return [outcome.decision, owed, reason.discreet if reason else False, [reason.legal_basis, dict(reason.words)] if reason else []]


def _diagram(slice: Slice, leaves: Mapping[int, Any]) -> str:
    """The hash of a slice's function: its diagram rebuilt in alphabetical order (as `Slice.facts` is), children named by value, equal leaves merged."""
    names = {leaf: _hash(what) for leaf, what in leaves.items()}
    numbers = {name: -3 - place for place, name in enumerate(sorted(set(names.values())))}
    store = Store(slice.store.sizes, 10 * slice.store.budget)
    merged = slice.store.map_leaves(slice.root, lambda leaf: numbers[names[leaf]])
    (root,) = copy_into(store, slice.store, {v: v for v in range(len(slice.facts))}, [merged])
    words = {number: name for name, number in numbers.items()}
    made: dict[int, str] = {}
    for n in store.reachable(root):
        node, fact = store.nodes[n], slice.facts[store.nodes[n].variable]
        children = {str(value): node.child(place) for place, value in enumerate(fact.values)}
        made[n] = _hash([fact.name, {value: made[child] if child >= 0 else words[child] for value, child in children.items()}])
    return made[root] if root >= 0 else words[root]


def _plain(value: Any) -> Any:
    """Frozen things as JSON: what a fact computes, without where it was written or how it is explained."""
    if isinstance(value, Grid):
        return {row: dict(cells) for row, cells in value.rows.items()}
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name not in ("about", "vouched", "changeable", "at", "file", "labels")}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str).encode()).hexdigest()
