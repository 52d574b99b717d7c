"""Mutants of a pack: the small mistakes an author makes, and whether the vectors would notice.

Four kinds: a rule deleted, an effect flipped, two neighbours swapped, one fact negated. A mutant that decides every possible situation by the same rule with
the same effect is equivalent, by the diagram and not by opinion; vectors must kill all the others. Only slices that the mutation touches are compiled again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.analysis.dead import Excluded, copy_of, excluded_from, possible
from engine.evaluator.conditions import And, Compare, Condition, Name, Not, Or
from engine.evaluator.diagram import HOLDS, NONE, Store
from engine.evaluator.reference import deciding_rule, is_for
from engine.evaluator.slices import Builder, Slice, facts_of, fold_constants, overlay, written_for
from engine.facts import Situation
from engine.pack import Pack, Rule
from engine.vocabulary import Fact, Value

if TYPE_CHECKING:
    from engine.pdp import Pdp

FLIPPED = 1_000_000
"""What is added to a leaf to mean the same rule with the other effect."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A pack with one mistake, and the lines that it touches."""

    name: str
    pack: Pack
    touched: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutant that no vector kills, and a situation that would: the original rule and the mutant's."""

    mutant: Mutant
    subject: str
    action: str
    situation: Mapping[str, Value]
    original: str
    mutated: str


def mutants(pack: Pack) -> Iterator[Mutant]:
    """Every mutant of a pack's rules."""
    rules = pack.rules
    for place, rule in enumerate(rules):
        yield _mutant(pack, f"{rule.id}: deleted", (*rules[:place], *rules[place + 1 :]), rule)
        flipped = replace(rule, effect="deny" if rule.permits else "allow")
        yield _mutant(pack, f"{rule.id}: effect flipped", (*rules[:place], flipped, *rules[place + 1 :]), rule)
        if place + 1 < len(rules):
            after = rules[place + 1]
            yield _mutant(pack, f"{rule.id}: swapped with {after.id}", (*rules[:place], after, rule, *rules[place + 2 :]), rule, after)
        for what, condition in _negations(rule.when):
            yield _mutant(pack, f"{rule.id}: {what} negated", (*rules[:place], replace(rule, when=condition), *rules[place + 1 :]), rule)


def _mutant(pack: Pack, name: str, rules: tuple[Rule, ...], *touched: Rule) -> Mutant:
    return Mutant(name, replace(pack, rules=rules), touched)


def _negations(condition: Condition) -> Iterator[tuple[str, Condition]]:
    """The condition with one mention of a fact negated, for each mention."""
    match condition:
        case Name(fact):
            yield fact, Not(condition)
        case Compare(left, right, equal):
            yield left.fact, Compare(left, right, not equal)
        case Not(item):
            for what, inner in _negations(item):
                yield what, Not(inner)
        case And(items) | Or(items):
            for place, item in enumerate(items):
                for what, inner in _negations(item):
                    yield what, type(condition)((*items[:place], inner, *items[place + 1 :]))


def killed(mutant: Mutant, pack: Pack, subject: str, action: str, situation: Situation, expected: str) -> bool:
    """Whether a vector's situation tells the mutant: another rule decides, or the same rule with another effect."""
    if not any(is_for(pack, rule, subject, action) for rule in mutant.touched):
        return False
    rule = deciding_rule(mutant.pack, subject, action, situation)
    return (rule or "") != expected or effect_of(mutant.pack, rule) != effect_of(pack, expected)


def effect_of(pack: Pack, rule: str | None) -> str:
    return next((one.effect for one in pack.rules if one.id == rule), "")


class Differences:
    """Compares mutants with the pack they come from, slice by slice, in one working copy of each slice's store."""

    def __init__(self, pdp: Pdp):
        self.pdp = pdp
        self.leaves = {outcome.rule: outcome.leaf for outcome in pdp.outcomes}
        self.rules = {outcome.leaf: outcome.rule for outcome in pdp.outcomes}
        self.excluded = {key: excluded_from(pdp.pack, *key) for key in pdp.slices}
        self.work: dict[object, tuple[Store, int, int]] = {}

    def find(self, mutant: Mutant) -> Survivor | None:
        """A possible situation that the mutant decides otherwise; nothing when it is equivalent."""
        seen: set[object] = set()
        for (subject, action), slice in self.pdp.slices.items():
            if not any(is_for(self.pdp.pack, rule, subject, action) for rule in mutant.touched):
                continue
            rules = tuple((self._leaf(rule), fold_constants(rule.when, mutant.pack, subject, action)) for rule in written_for(mutant.pack, subject, action))
            key = (id(slice), rules, self.excluded[subject, action])
            if key in seen:
                continue
            seen.add(key)
            if (shown := self._in_slice(mutant, subject, action, slice, rules)) is not None:
                return shown
        return None

    def _in_slice(self, mutant: Mutant, subject: str, action: str, slice: Slice, rules: Sequence[tuple[int, Condition | bool]]) -> Survivor | None:
        wanted = facts_of(self.pdp.pack, (condition for _, condition in rules if not isinstance(condition, bool)))
        facts = (*slice.facts, *(fact for fact in wanted if fact.name not in slice.variable))
        store, root, within = self._working(slice, facts, self.excluded[subject, action])
        default = self.leaves[self.pdp.pack.default_for(action) or ""]
        mutated = overlay(Builder(store, facts), [rule for rule in rules if rule[1] is not False], default)
        differs = store.pairs(root, mutated, lambda a, b: NONE if a == b else HOLDS, "differ")
        found = store.find(store.both(within, differs), lambda leaf: leaf == HOLDS)
        if found is None:
            return None
        values = [found.get(v, size - 1) for v, size in enumerate(store.sizes)]
        shown = {*found, *_tested(store, root, values), *_tested(store, mutated, values)}
        situation = {facts[v].name: facts[v].values[values[v]] for v in sorted(shown)}
        now = store.value(mutated, values)
        return Survivor(mutant, subject, action, situation, self.rules[store.value(root, values)], self.rules[now + FLIPPED if now <= -FLIPPED else now])

    def _leaf(self, rule: Rule) -> int:
        """The leaf of a rule; one of its own when its effect is not the original's."""
        return self.leaves[rule.id] - (FLIPPED if rule.permits != self.pdp.pack.by_id[rule.id].permits else 0)

    def _working(self, slice: Slice, facts: tuple[Fact, ...], excluded: Excluded) -> tuple[Store, int, int]:
        """A store over the slice's facts and those that a mutation brought in, with the slice's function and what is possible in it."""
        key = (id(slice), tuple(fact.name for fact in facts[len(slice.facts) :]), excluded)
        if key not in self.work:
            store, root = copy_of(slice, facts)
            self.work[key] = store, root, possible(self.pdp.pack, store, facts, excluded)
        return self.work[key]


def _tested(store: Store, n: int, values: Sequence[int]) -> Iterator[int]:
    """The variables on the way to a leaf."""
    while n >= 0:
        node = store.nodes[n]
        yield node.variable
        n = node.child(values[node.variable])


def survivors(pdp: Pdp, asked: Iterable[tuple[str, str, Situation]]) -> tuple[list[Survivor], int, int]:
    """The mutants that no question kills, how many mutants there are, and how many of them are equivalent."""
    questions = [(s, a, situation, deciding_rule(pdp.pack, s, a, situation) or "") for s, a, situation in asked]
    differences = Differences(pdp)
    alive: list[Survivor] = []
    total = equivalent = 0
    for mutant in mutants(pdp.pack):
        total += 1
        if any(killed(mutant, pdp.pack, *question) for question in questions):
            continue
        shown = differences.find(mutant)
        if shown is None:
            equivalent += 1
        else:
            alive.append(shown)
    return alive, total, equivalent
