"""What must hold in every situation, proved on the diagrams: no sampling, no solver. A violation comes with a situation that shows it.

    never_permit     no situation where the condition holds is permitted
    permit_only_if   every situation that is permitted has the condition
    monotone         a fact that becomes true never turns a permit into anything else

Proved over every situation, the impossible ones included: an invariant does not rest on what facts happen to exclude.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import Diagnostic, TooLarge
from engine.evaluator.conditions import Condition
from engine.evaluator.diagram import HOLDS, NONE, BudgetExceeded, Store
from engine.evaluator.slices import Builder, Slice, copy_into, facts_of, fold_constants
from engine.pack import Invariant, Pack
from engine.vocabulary import Fact, Value

if TYPE_CHECKING:
    from engine.pdp import Pdp

MORE = 10
"""How many times its node budget a pack may use for one proof."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A situation in which an invariant does not hold, as values of the facts that matter, and the rule that decides it."""

    invariant: Invariant
    subject: str
    action: str
    situation: Mapping[str, Value]
    rule: str

    def diagnostic(self) -> Diagnostic:
        seen = ", ".join(f"{name} is {_word(value)}" for name, value in sorted(self.situation.items()))
        when = f"when {seen}" if seen else "in every situation"
        message = f"the invariant `{self.invariant.id}` does not hold: `{self.rule}` permits {self.subject}, {self.action} {when}"
        if self.invariant.form == "monotone":
            message += f", and nothing does once {self.invariant.fact} is true"
        return Diagnostic("invariant-violated", message, "invariants.csv", self.invariant.line, help=f"mend the rule `{self.rule}`, or a line above it")


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"`{value}`"


def prove(pdp: Pdp) -> list[Violation]:
    """Every violation, at most one for each invariant and distinct slice. Nothing: all invariants are proved. Raises `TooLarge` for one that cannot be."""
    found: list[Violation] = []
    for invariant in pdp.pack.invariants:
        seen: set[object] = set()
        for (subject, action), slice in pdp.slices.items():
            if not _speaks_of(invariant, pdp.pack, subject, action):
                continue
            condition = fold_constants(invariant.condition, pdp.pack, subject, action) if invariant.condition else True
            if (id(slice), condition) in seen:
                continue
            seen.add((id(slice), condition))
            try:
                found += _violations(pdp, invariant, subject, action, slice, condition)
            except BudgetExceeded:
                raise TooLarge([_too_large(pdp.pack, invariant, subject, action)]) from None
    return found


def _too_large(pack: Pack, invariant: Invariant, subject: str, action: str) -> Diagnostic:
    message = f"to prove the invariant `{invariant.id}` takes a diagram of more than {MORE * pack.node_budget:,} nodes for {subject}, {action}"
    return Diagnostic("invariant-too-large", message, "invariants.csv", invariant.line, help="say it in several invariants, or raise node_budget in pack.toml")


def _speaks_of(invariant: Invariant, pack: Pack, subject: str, action: str) -> bool:
    return invariant.subject in ("*", subject) and (invariant.action == "*" or invariant.action in pack.groups_of(action))


def _violations(pdp: Pdp, invariant: Invariant, subject: str, action: str, slice: Slice, condition: Condition | bool) -> Iterator[Violation]:
    store, facts, (root,), holds = with_condition(pdp, (slice,), condition)
    permits = {outcome.leaf for outcome in pdp.outcomes if outcome.permits}
    if invariant.form == "monotone":
        bad, decided = _turned(store, facts, root, invariant.fact, holds, permits)
    else:
        wanted = holds if invariant.form == "never_permit" else store.negate(holds)
        bad = decided = store.both(wanted, root)
    found = store.find(bad, lambda leaf: leaf in permits)
    if found is not None:
        rule = next(o.rule for o in pdp.outcomes if o.leaf == store.value(decided, _complete(store, found)))
        yield Violation(invariant, subject, action, {facts[v].name: facts[v].values[n] for v, n in found.items()}, rule)


def _turned(store: Store, facts: tuple[Fact, ...], root: int, name: str, holds: int, permits: set[int]) -> tuple[int, int]:
    """Where the fact being false is permitted and its being true is not: the permits that it takes away."""
    variable = next((n for n, fact in enumerate(facts) if fact.name == name), None)
    if variable is None:
        return NONE, NONE
    without, granted = store.restrict(root, {variable: 0}), store.restrict(root, {variable: 1})
    refused = store.map_leaves(granted, lambda leaf: NONE if leaf in permits else HOLDS)
    lost = store.both(store.both(holds, refused), without)
    return lost, lost


def _complete(store: Store, found: Mapping[int, int]) -> list[int]:
    return [found.get(variable, size - 1) for variable, size in enumerate(store.sizes)]


def with_condition(pdp: Pdp, slices: tuple[Slice, ...], condition: Condition | bool) -> tuple[Store, tuple[Fact, ...], list[int], int]:
    """A store over the facts of some slices and of a condition: the slices' functions in it, and where the condition holds."""
    named = {fact.name: fact for slice in slices for fact in slice.facts}
    if not isinstance(condition, bool):
        named |= {fact.name: fact for fact in facts_of(pdp.pack, [condition])}
    facts = tuple(named.values())
    place = {fact.name: n for n, fact in enumerate(facts)}
    store = Store([len(fact.values) for fact in facts], MORE * pdp.pack.node_budget)
    first = slices[0]
    ahead = [place[first.facts[v].name] for v in first.store.order]
    store.order = ahead + [n for n in range(len(facts)) if n not in ahead]
    store.level = [store.order.index(n) for n in range(len(facts))]
    roots = []
    for slice in slices:
        roots += copy_into(store, slice.store, {v: place[fact.name] for v, fact in enumerate(slice.facts)}, [slice.root])
    holds = (HOLDS if condition else NONE) if isinstance(condition, bool) else Builder(store, facts).build(condition)
    return store, facts, roots, holds
