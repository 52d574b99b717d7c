"""Which rules decide, and in how many situations. A rule that never decides is dead: it says something that no request will ever hear.

Situations that the vocabulary calls impossible are left out; those that differ only in facts on which nothing depends are counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import Diagnostic
from engine.evaluator.conditions import names
from engine.evaluator.diagram import HOLDS, NONE, Store
from engine.evaluator.slices import Builder, Slice
from engine.pack import Pack
from engine.vocabulary import Fact

if TYPE_CHECKING:
    from engine.pdp import Pdp


def possible(pack: Pack, store: Store, facts: Sequence[Fact]) -> int:
    """Where no `impossible` condition over some facts (the variables of the store) holds, as a condition in it."""
    builder = Builder(store, facts)
    known = {fact.name for fact in facts}
    made = HOLDS
    for condition in pack.vocabulary.impossible.values():
        if {name.fact for name in names(condition)} <= known:
            made = store.both(store.negate(builder.build(condition)), made)
    return made


def deciding(pdp: Pdp, slice: Slice) -> dict[str, int]:
    """In how many possible situations of a slice each rule decides; rules that never do are left out."""
    store = slice.store
    within = store.both(possible(pdp.pack, store, slice.facts), slice.root)
    over = store.support(within, slice.root)
    rules = {outcome.leaf: outcome.rule for outcome in pdp.outcomes}
    return {rules[leaf]: number for leaf, number in store.count(within, over).items() if leaf != NONE}


def dead_rules(pdp: Pdp) -> list[Diagnostic]:
    """A warning for each rule that decides in no possible situation of any slice."""
    alive: set[str] = set()
    for slice in {id(slice): slice for slice in pdp.slices.values()}.values():
        alive |= deciding(pdp, slice).keys()
    return [
        Diagnostic(
            "rule-dead", f"the rule `{rule.id}` never decides", "rules.csv", rule.line, text=rule.text, severity="warning",
            help="an earlier rule always decides first, or its condition cannot hold under the settings in force",
        )
        for rule in pdp.pack.rules if rule.id not in alive
    ]  # fmt: skip
