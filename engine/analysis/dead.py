"""Which rules decide, and in how many situations. A rule that never decides is dead: it says something that no request will ever hear.

Situations that the vocabulary calls impossible are left out; those that differ only in facts on which nothing depends are counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from engine.errors import Diagnostic
from engine.evaluator.conditions import Condition
from engine.evaluator.diagram import HOLDS, NONE, Store
from engine.evaluator.slices import Builder, Slice, copy_into, facts_of, fold_constants
from engine.pack import Pack
from engine.vocabulary import Fact

if TYPE_CHECKING:
    from engine.pdp import Pdp

Excluded: TypeAlias = tuple[Condition | bool, ...]
"""What cannot hold for one subject type and action."""


def excluded_from(pack: Pack, subject: str, action: str) -> Excluded:
    """The `impossible` conditions that are left for a subject type and an action, constants in place."""
    folded = (fold_constants(condition, pack, subject, action) for condition in pack.vocabulary.impossible.values())
    return tuple(condition for condition in folded if condition is not False)


def possible(pack: Pack, store: Store, facts: Sequence[Fact], excluded: Excluded) -> int:
    """Where nothing excluded holds, as a condition in a store over some facts. What depends on other facts excludes nothing."""
    builder = Builder(store, facts)
    known = {fact.name for fact in facts}
    made = HOLDS
    for condition in excluded:
        if isinstance(condition, bool):
            return NONE
        if {fact.name for fact in facts_of(pack, [condition])} <= known:
            made = store.both(store.negate(builder.build(condition)), made)
    return made


def copy_of(slice: Slice, facts: Sequence[Fact]) -> tuple[Store, int]:
    """A slice's function in a store of its own, over its facts and any that follow them: an analysis makes nodes, and a compiled pack is not to change."""
    store = Store([len(fact.values) for fact in facts], 1_000_000_000)
    store.order = [*slice.store.order, *range(len(slice.facts), len(facts))]
    store.level = [store.order.index(v) for v in range(len(facts))]
    (root,) = copy_into(store, slice.store, {v: v for v in range(len(slice.facts))}, [slice.root])
    return store, root


def deciding(pdp: Pdp, subject: str, action: str) -> dict[str, int]:
    """In how many possible situations of a slice each rule decides; rules that never do are left out."""
    slice = pdp.slices[subject, action]
    store, root = copy_of(slice, slice.facts)
    within = store.both(possible(pdp.pack, store, slice.facts, excluded_from(pdp.pack, subject, action)), root)
    rules = {outcome.leaf: outcome.rule for outcome in pdp.outcomes}
    return {rules[leaf]: number for leaf, number in store.count(within, store.support(within, root)).items() if leaf != NONE}


def dead_rules(pdp: Pdp) -> list[Diagnostic]:
    """A warning for each rule that decides in no possible situation of any slice."""
    alive: set[str] = set()
    for subject, action in {(id(slice), excluded_from(pdp.pack, *key)): key for key, slice in pdp.slices.items()}.values():
        alive |= deciding(pdp, subject, action).keys()
    return [
        Diagnostic(
            "rule-dead", f"the rule `{rule.id}` never decides", "rules.csv", rule.line, text=rule.text, severity="warning",
            help="an earlier rule always decides first, or its condition cannot hold under the settings in force",
        )
        for rule in pdp.pack.rules if rule.id not in alive
    ]  # fmt: skip
