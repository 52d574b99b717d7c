"""From rules to decision diagrams: one function per (subject type, action), a slice.

    rules of the slice -> constants folded -> one diagram per condition -> overlaid, first match first -> default below -> sifted

Slices whose rules and constants are the same share one diagram. What the diagrams are asked is the business of `engine.analysis`; how they are run, of
`tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.errors import Diagnostic, TooLarge
from engine.evaluator.conditions import And, Compare, Condition, Literal, Name, Not, Or, names
from engine.evaluator.diagram import HOLDS, NONE, WIDE, BudgetExceeded, Store
from engine.evaluator.reference import is_for
from engine.pack import Pack, Reason, Rule
from engine.vocabulary import Fact, Value

FIRST_OUTCOME = -3
MAX_FACTS = 300
"""How many facts the rules of one slice may speak of: diagrams are walked by recursion, one call a fact. What tables hold is far less."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a leaf stands for: the rule that decides and what it says. `decision` is `permit`, `refuse`, or `no_rule` when no rule applies."""

    number: int
    rule: str
    decision: str
    reason: Reason | None

    @property
    def leaf(self) -> int:
        return FIRST_OUTCOME - self.number

    @property
    def permits(self) -> bool:
        return self.decision == "permit"


def outcomes_of(pack: Pack) -> tuple[Outcome, ...]:
    """Every way a request to this pack can end: its rules in order, its defaults, and "no rule applies" last."""
    made = [(rule.id, "permit" if rule.permits else "refuse") for rule in pack.rules]
    known = {id for id, _ in made}
    made += [(id, "refuse") for id in dict.fromkeys(rule for _, rule in pack.defaults) if id not in known]
    return (*(Outcome(n, id, what, pack.reasons.get(id)) for n, (id, what) in enumerate(made)), Outcome(len(made), "", "no_rule", None))


@dataclass(frozen=True)
class Slice:
    """The function of one or more (subject type, action): a diagram over `facts` (by variable number) whose leaves are outcomes."""

    facts: tuple[Fact, ...]
    store: Store
    root: int
    rules: tuple[int, ...]

    @cached_property
    def variable(self) -> Mapping[str, int]:
        return {fact.name: number for number, fact in enumerate(self.facts)}

    @cached_property
    def order(self) -> tuple[Fact, ...]:
        """The facts that the function depends on, in the order they are tested."""
        return tuple(self.facts[variable] for variable in self.store.support(self.root))

    @property
    def size(self) -> int:
        """Nodes."""
        return len(self.store.reachable(self.root))


def compile_slices(pack: Pack) -> dict[tuple[str, str], Slice]:
    """The slices of a pack, by subject type and action. Raises `TooLarge`, naming the rules and facts responsible, when one outgrows the pack's node budget."""
    outcomes = {outcome.rule: outcome for outcome in outcomes_of(pack)}
    shared: dict[object, Slice] = {}
    made: dict[tuple[str, str], Slice] = {}
    for subject in pack.vocabulary.subjects:
        for action in pack.vocabulary.actions:
            rules = [(n, fold_constants(rule.when, pack, subject, action)) for n, rule in enumerate(pack.rules) if is_for(pack, rule, subject, action)]
            live = tuple((n, condition) for n, condition in rules if condition is not False)
            default = pack.default_for(action)
            key = (live, default)
            if key not in shared:
                shared[key] = _compile(pack, live, outcomes[default or ""].leaf, f"{subject}, {action}")
            made[subject, action] = shared[key]
    return made


def _compile(pack: Pack, rules: Sequence[tuple[int, Condition | bool]], default: int, where: str) -> Slice:
    """One slice. Wide facts are tested last, and where that explodes (rules that are a variant of each other for each value), first."""
    named = facts_of(pack, (condition for _, condition in rules if not isinstance(condition, bool)))
    if len(named) > MAX_FACTS:
        message = f"the rules for {where} speak of {len(named)} facts, more than {MAX_FACTS}"
        raise TooLarge([Diagnostic("too-many-facts", message, "rules.csv", help="split what these rules ask into fewer facts")])
    wide = [fact for fact in named if len(fact.values) > WIDE]
    for facts in (named, (*wide, *(fact for fact in named if fact not in wide)))[: 1 + bool(wide)]:
        store = Store([len(fact.values) for fact in facts], pack.node_budget)
        try:
            root = overlay(Builder(store, facts), [(FIRST_OUTCOME - number, condition) for number, condition in rules], default)
        except OverlayTooLarge as error:
            mistake = _too_large(pack, store, facts, [number for number, _ in rules][error.start : error.end], where)
        else:
            small, (root,) = compact(store, facts, root)
            small.sift(root)
            return Slice(facts, small, root, tuple(number for number, _ in rules))
    raise TooLarge([mistake])


class OverlayTooLarge(Exception):
    """The rules from place `start` to just before `end` need more nodes than the budget allows."""

    def __init__(self, start: int, end: int):
        super().__init__(start, end)
        self.start, self.end = start, end


def overlay(builder: Builder, rules: Sequence[tuple[int, Condition | bool]], default: int) -> int:
    """Leaves and their conditions overlaid, first match first, with `default` below.

    By halves: near-copies of rules meet only after each half has been reduced, so that ten thousand of them cost what they distinguish. What no half needs
    any more is
    forgotten before the budget is said to be exceeded.
    """
    store = builder.store
    waiting: list[int] = []

    def within_budget(make: Callable[[], int], start: int, end: int, *needed: int) -> int:
        try:
            return make()
        except BudgetExceeded:
            store.forget_all_but(*waiting, *needed)
        try:
            return make()
        except BudgetExceeded:
            raise OverlayTooLarge(start, end) from None

    def one(leaf: int, condition: Condition | bool) -> int:
        return store.both(builder.build(condition), leaf) if not isinstance(condition, bool) else leaf if condition else NONE

    def between(start: int, end: int) -> int:
        if end - start == 1:
            return within_budget(lambda: one(*rules[start]), start, end)
        middle = (start + end) // 2
        above = between(start, middle)
        waiting.append(above)
        below = between(middle, end)
        waiting.pop()
        return within_budget(lambda: store.first(above, below), start, end, above, below)

    if not rules:
        return default
    decided = between(0, len(rules))
    return within_budget(lambda: store.first(decided, default), 0, len(rules), decided)


def _too_large(pack: Pack, store: Store, facts: Sequence[Fact], rules: Sequence[int], where: str) -> Diagnostic:
    first, last = pack.rules[rules[0]], pack.rules[rules[-1]]
    crowded = sorted(range(len(facts)), key=lambda v: -len(store._by_variable[v]))[:5]
    return Diagnostic(
        "diagram-too-large",
        f"the rules `{first.id}` to `{last.id}` ({len(rules)} rules) need a diagram of more than {store.budget:,} nodes for {where}",
        "rules.csv", first.line, text=first.text,
        help="the facts that multiply are " + ", ".join(f"`{facts[v].name}`" for v in crowded)
        + "; let fewer of them meet in one condition, or raise node_budget in pack.toml",
    )  # fmt: skip


def compact(store: Store, facts: Sequence[Fact], *roots: int) -> tuple[Store, list[int]]:
    """A store of the same order that holds only what is under the roots."""
    small = Store(store.sizes, store.budget)
    small.order, small.level = list(store.order), list(store.level)
    return small, list(copy_into(small, store, {v: v for v in range(len(facts))}, roots))


def copy_into(target: Store, source: Store, variables: Mapping[int, int], roots: Iterable[int]) -> Iterable[int]:
    """Rebuild functions of one store in another; `variables` maps the one's variables to the other's, of the same sizes. Any orders."""
    made: dict[int, int] = {}

    def walk(n: int) -> int:
        if n < 0:
            return n
        if n not in made:
            node = source.nodes[n]
            variable = variables[node.variable]
            made[n] = case(target, variable, {v: walk(c) for v, c in node.others}, walk(node.default))
        return made[n]

    return [walk(root) for root in roots]


def case(store: Store, variable: int, children: Mapping[int, int], default: int) -> int:
    """`node` for children that may test variables above this one."""
    level = store.level[variable]
    if all(child < 0 or store.level[store.nodes[child].variable] > level for child in (*children.values(), default)):
        return store.node(variable, children, default)
    made = store.both(store.negate(store.test(variable, children)), default) if children else default
    for value, child in children.items():
        made = store.first(store.both(store.test(variable, [value]), child), made)
    return made


class Builder:
    """Conditions without constants (see `fold_constants`) as diagrams over some facts."""

    def __init__(self, store: Store, facts: Sequence[Fact]):
        self.store = store
        self.variable = {fact.name: number for number, fact in enumerate(facts)}
        self.fact = {fact.name: fact for fact in facts}

    def build(self, condition: Condition) -> int:
        """The diagram of a condition; its leaves are HOLDS and NONE."""
        store = self.store
        match condition:
            case Name(fact):
                return self._is(fact, [True], True)
            case Compare(left, Literal(value), equal):
                return self._is(left.fact, [value], equal)
            case Compare(left, Name(right), equal):
                same = self._same(left.fact, right)
                return same if equal else store.negate(same)
            case Not(item):
                return store.negate(self.build(item))
            case And(items):
                made = HOLDS
                for item in reversed(items):
                    made = store.both(self.build(item), made)
                return made
            case Or(items):
                made = NONE
                for item in reversed(items):
                    made = store.first(self.build(item), made)
                return made
        raise AssertionError(f"no such condition: {condition!r}")

    def _same(self, left: str, right: str) -> int:
        """Where two facts of the same words have the same word. Built from the one tested first, so that it costs a node for each word."""
        if left == right:
            return HOLDS
        upper, lower = sorted((left, right), key=lambda name: self.store.level[self.variable[name]])
        place = {value: n for n, value in enumerate(self.fact[lower].values)}
        children = {n: self.store.test(self.variable[lower], [place[value]]) for n, value in enumerate(self.fact[upper].values)}
        return self.store.node(self.variable[upper], children, children[len(children) - 1])

    def _is(self, name: str, values: Iterable[Value], equal: bool) -> int:
        known = self.fact[name].values
        wanted = {known.index(value) for value in values}
        return self.store.test(self.variable[name], wanted if equal else set(range(len(known))) - wanted)


def facts_of(pack: Pack, conditions: Iterable[Condition]) -> tuple[Fact, ...]:
    """The facts that conditions without constants mention, by name and the wide ones last: an order that does not depend on the order of lines.

    A fact of thousands of values (a specialty) is tested last: below the few ways in which everything else may have come out, rather than above a copy of
    everything else for each value.
    """
    found = {name.fact: pack.vocabulary.facts[name.fact] for condition in conditions for name in names(condition)}
    return tuple(sorted(found.values(), key=lambda fact: (max(WIDE, len(fact.values)), fact.name)))


def fold_constants(condition: Condition, pack: Pack, subject: str, action: str) -> Condition | bool:
    """A condition with the subject's type, the action's name, the settings and the conditions that cells name in place: simpler, or decided."""
    facts = pack.vocabulary.facts
    known: dict[str, Value] = {"subject.type": subject, "action.name": action}
    known |= {name: fact.constant for name, fact in facts.items() if fact.constant is not None}

    def walk(part: Condition) -> Condition | bool:
        match part:
            case Name(fact):
                return known[fact] is True if fact in known else is_true(part)
            case Compare(left, right, equal):
                a = known.get(left.fact)
                b = right.value if isinstance(right, Literal) else known.get(right.fact)
                if a is not None and b is not None:
                    return (a == b) is equal
                if a is not None and isinstance(right, Name):
                    return Compare(right, Literal(str(a), left.at), equal)
                return Compare(left, Literal(str(b), right.at), equal) if isinstance(right, Name) and b is not None else part
            case Not(item):
                inner = walk(item)
                return not inner if isinstance(inner, bool) else Not(inner)
            case And(items):
                return _joined([walk(item) for item in items], And, False)
            case Or(items):
                return _joined([walk(item) for item in items], Or, True)
        raise AssertionError(f"no such condition: {part!r}")

    def is_true(name: Name) -> Condition | bool:
        """Where a fact counts as true: its value is, or names a condition that holds."""
        ways: list[Condition | bool] = [name]
        for value, condition in facts[name.fact].conditional.items():
            ways.append(_joined([Compare(name, Literal(value, name.at), True), walk(condition)], And, False))
        return _joined(ways, Or, True)

    return walk(condition)


def _joined(items: list[Condition | bool], kind: type[And] | type[Or], decisive: bool) -> Condition | bool:
    if decisive in [item for item in items if isinstance(item, bool)]:
        return decisive
    open = tuple(item for item in items if not isinstance(item, bool))
    return kind(open) if len(open) > 1 else open[0] if open else not decisive


def written_for(pack: Pack, subject: str, action: str) -> list[Rule]:
    """The rules that a subject type and an action meet, in order."""
    return [rule for rule in pack.rules if is_for(pack, rule, subject, action)]
