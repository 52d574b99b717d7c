"""What an edit changes, exactly: two packs compared on their diagrams, before the edit goes live.

First what opens (a refusal that becomes a permit), then what closes, then what is decided alike for another reason. Three causes are told apart: rules (the diagrams differ),
cells of a grid and codes of a list (the same situation is reached from other inputs). Numbers count situations, not requests: how many people an edit touches
is a question to the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.analysis.dead import possible
from engine.evaluator.diagram import NONE, Store
from engine.evaluator.slices import FIRST_OUTCOME, Slice, case
from engine.vocabulary import Cell, Coded, Fact, Member, Value

if TYPE_CHECKING:
    from engine.pdp import Pdp

OPENS, CLOSES, OTHER = "opens", "closes", "other"
_TITLES = {OPENS: "Opens: a refusal becomes a permit", CLOSES: "Closes: a permit becomes a refusal", OTHER: "Same decision, for another reason or with other obligations"}


@dataclass(frozen=True, slots=True)
class Change:
    """Situations that two packs decide otherwise: by which rules, in which slices, how many, and one of them."""

    kind: str
    before: str
    after: str
    slices: tuple[str, ...]
    situations: int
    example: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class InputChange:
    """Places (cells, or codes of a list) that give a fact another value, and what that opens and closes, in situations."""

    fact: str
    before: Value
    after: Value
    places: tuple[str, ...]
    opens: int
    closes: int


@dataclass(frozen=True)
class Diff:
    """All that two packs do not share. Empty when they decide everything alike, whatever their files look like."""

    settings: Mapping[str, tuple[Any, Any]]
    rules: Mapping[str, str]
    inputs: tuple[InputChange, ...]
    changes: tuple[Change, ...]
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.settings or self.rules or self.inputs or self.changes or self.reasons or self.facts)

    @property
    def opens(self) -> bool:
        """Whether anything refused before is permitted after."""
        return any(change.kind == OPENS for change in self.changes) or any(change.opens for change in self.inputs)

    def as_dict(self) -> dict[str, Any]:
        return {
            "opens": self.opens,
            "changes": [
                {"kind": c.kind, "before": c.before, "after": c.after, "slices": list(c.slices), "situations": c.situations, "example": dict(c.example)}
                for c in self.changes
            ],
            "inputs": [
                {"fact": c.fact, "before": c.before, "after": c.after, "places": list(c.places), "opens": c.opens, "closes": c.closes} for c in self.inputs
            ],
            "settings": {name: {"before": a, "after": b} for name, (a, b) in self.settings.items()},
            "rules": dict(self.rules),
            "reasons": list(self.reasons),
            "facts": dict(self.facts),
        }

    def text(self) -> str:
        """For an officer to read."""
        if self.is_empty:
            return "The two packs decide everything alike."
        return "\n".join(line for part in (self._inputs_text(OPENS), self._changes_text(), self._inputs_text(""), self._files_text()) for line in part)

    def _inputs_text(self, wanted: str) -> Iterator[str]:
        several = [one for one in self.inputs if bool(one.opens) == (wanted == OPENS)]
        if several:
            yield "Opens, by cells and codes:" if wanted == OPENS else "Other cells and codes:"
        for one in several:
            shown = ", ".join(one.places[:6]) + (f" and {len(one.places) - 6} more" if len(one.places) > 6 else "")
            effect = f"opens {one.opens:,} and closes {one.closes:,} situations" if one.opens or one.closes else "changes no decision"
            yield f"  {one.fact}: {_word(one.before)} -> {_word(one.after)} in {len(one.places):,} places, {effect}"
            yield f"    {shown}"

    def _changes_text(self) -> Iterator[str]:
        for kind in (OPENS, CLOSES, OTHER):
            several = [change for change in self.changes if change.kind == kind]
            if several:
                yield _TITLES[kind] + ":"
            for change in several:
                yield f"  {change.before or 'no rule'} -> {change.after or 'no rule'} in {change.situations:,} situations of {', '.join(change.slices)}"
                if change.example:
                    yield "    such as: " + ", ".join(f"{name} {_word(value)}" for name, value in sorted(change.example.items()))

    def _files_text(self) -> Iterator[str]:
        for title, lines in (
            ("Settings:", [f"{name}: {_word(a)} -> {_word(b)}" for name, (a, b) in self.settings.items()]),
            ("Rules:", [f"{rule}: {what}" for rule, what in self.rules.items()]),
            ("Reasons changed:", list(self.reasons)),
            ("Facts:", [f"{name}: {what}" for name, what in self.facts.items()]),
        ):
            if lines:
                yield title
                yield from (f"  {line}" for line in lines)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def diff(before: Pdp, after: Pdp) -> Diff:
    """Everything that `after` decides otherwise than `before`, and the lines, cells, codes and settings behind it."""
    old, new = before.pack, after.pack
    settings = {name: (old.settings.get(name), new.settings.get(name)) for name in {*old.settings, *new.settings} if old.settings.get(name) != new.settings.get(name)}
    known = old.vocabulary.facts.keys() | new.vocabulary.facts.keys()
    inputs = [one for name in sorted(known) for one in _input_changes(before, after, name)]
    facts = {name: what for name in sorted(known) if (what := _fact_change(old.vocabulary.facts.get(name), new.vocabulary.facts.get(name)))}
    changes = sorted(_changes(before, after), key=lambda c: ([OPENS, CLOSES, OTHER].index(c.kind), -c.situations))
    reasons = tuple(rule for rule in sorted(old.reasons.keys() & new.reasons.keys()) if old.reasons[rule] != new.reasons[rule])
    return Diff(dict(sorted(settings.items())), _rule_changes(before, after), tuple(sorted(inputs, key=lambda c: (-c.opens, -c.closes))), tuple(changes), reasons, facts)


def _rule_changes(before: Pdp, after: Pdp) -> dict[str, str]:
    """What happened to each line of rules.csv that is not the same, and lines whose order among the others changed."""
    old, new = before.pack.by_id, after.pack.by_id
    made: dict[str, str] = {}
    for id in [*old, *(id for id in new if id not in old)]:
        if id not in new:
            made[id] = f"removed: {_line(old[id])}"
        elif id not in old:
            made[id] = f"added: {_line(new[id])}"
        elif _line(old[id]) != _line(new[id]):
            made[id] = f"{_line(old[id])} -> {_line(new[id])}"
    ranks = {id: place for place, id in enumerate(id for id in old if id in new)}
    highest = -1
    for id in (id for id in new if id in old):
        if ranks[id] < highest and id not in made:
            made[id] = "moved down"
        highest = max(highest, ranks[id])
    return made


def _line(rule: Any) -> str:
    return f"{rule.subject}, {rule.action}, {rule.text}, {rule.effect}"


def _fact_change(old: Fact | None, new: Fact | None) -> str:
    """How the definition of a fact changed, its codes, cells and settings apart."""
    if old is None or new is None:
        return "added" if old is None else "removed"
    if type(old.form) is not type(new.form):
        return "another form"
    if (old.values, old.absent, old.unknown) != (new.values, new.absent, new.unknown):
        return "other values, or other values when absent or unknown"
    return "" if _shape(old) == _shape(new) else "looks at other inputs"


def _shape(fact: Fact) -> object:
    """What a fact looks at, without its codes, letters and settings."""
    match fact.form:
        case Member(of) | Coded(of):
            return of
        case Cell(_, row, column, _, fixed):
            return (row, column, fixed)
        case form:
            return form


# --- cells and codes -------------------------------------------------------------------------------------------------


def _input_changes(before: Pdp, after: Pdp, name: str) -> Iterator[InputChange]:
    """The cells or codes that give the fact `name` another value, grouped by what they change it from and to."""
    old, new = before.pack.vocabulary.facts.get(name), after.pack.vocabulary.facts.get(name)
    if old is None or new is None:
        return
    was, now = dict(_table(old)), dict(_table(new))
    groups: dict[tuple[Value, Value], list[str]] = {}
    for place in [*was, *(place for place in now if place not in was)]:
        pair = was.get(place, old.unknown), now.get(place, new.unknown)
        if pair[0] is not pair[1] and pair[0] != pair[1]:
            groups.setdefault(pair, []).append(place)
    for (a, b), places in groups.items():
        counts = {OPENS: 0, CLOSES: 0}
        for change in _changes(before, after, {name: (a, b)}):
            if change.kind in counts:
                counts[change.kind] += change.situations
        yield InputChange(name, a, b, tuple(places), counts[OPENS], counts[CLOSES])


def _table(fact: Fact) -> Iterator[tuple[str, Value]]:
    """The value that each code or cell gives a fact."""
    match fact.form:
        case Member(_, among):
            yield from ((code, True) for code in sorted(among))
        case Coded(_, codes):
            yield from codes.items()
        case Cell(grid, _, column, _, fixed, letters):
            columns = grid.columns if column is not None else (fixed or "",)
            yield from ((f"{row} {name}", letters[cells[name]]) for row, cells in grid.rows.items() for name in columns if name in cells)


# --- rules -----------------------------------------------------------------------------------------------------------


def _changes(before: Pdp, after: Pdp, fixed: Mapping[str, tuple[Value, Value]] | None = None) -> Iterator[Change]:
    """Situations decided otherwise, by pair of rules. `fixed` gives a fact one value before and another after: what a changed cell does."""
    found: dict[tuple[str, str, str], list[tuple[str, int, Mapping[str, Value]]]] = {}
    seen: dict[tuple[int, int], list[tuple[tuple[str, str, str], int, Mapping[str, Value]]]] = {}
    for key in [*before.slices, *(key for key in after.slices if key not in before.slices)]:
        old, new = before.slices.get(key), after.slices.get(key)
        if fixed and not any(slice and name in slice.variable for slice in (old, new) for name in fixed):
            continue
        pair = (id(old), id(new))
        if pair not in seen:
            seen[pair] = list(_compare(before, after, key, old, new, fixed or {}))
        for change, number, example in seen[pair]:
            found.setdefault(change, []).append((f"{key[0]} {key[1]}", number, example))
    for (kind, a, b), places in found.items():
        yield Change(kind, a, b, tuple(where for where, _, _ in places), sum(number for _, number, _ in places), places[0][2])


def _compare(
    before: Pdp, after: Pdp, key: tuple[str, str], old: Slice | None, new: Slice | None, fixed: Mapping[str, tuple[Value, Value]]
) -> Iterator[tuple[tuple[str, str, str], int, Mapping[str, Value]]]:
    facts = _united([slice for slice in (old, new) if slice], after)
    store = Store([len(fact.values) for fact in facts], 1_000_000_000)
    place = {fact.name: n for n, fact in enumerate(facts)}
    ends = [{name: pair[side] for name, pair in fixed.items()} for side in (0, 1)]
    a = _translated(store, facts, old, before.outcomes[-1].leaf, ends[0], place)
    b = _translated(store, facts, new, after.outcomes[-1].leaf, ends[1], place)
    pairs: dict[tuple[int, int], int] = {}

    def leaf(x: int, y: int) -> int:
        return pairs.setdefault((x, y), FIRST_OUTCOME - len(pairs))

    now = {place[name]: facts[place[name]].values.index(value) for name, value in ends[1].items() if value in facts[place[name]].values}
    within = store.restrict(possible(after.pack, store, facts), now)
    joined = store.both(within, store.pairs(a, b, leaf, "pairs"))
    counts = store.count(joined, store.support(joined))
    for (x, y), number in pairs.items():
        if number not in counts or number == NONE:
            continue
        kind = _kind(before, after, key, FIRST_OUTCOME - x, FIRST_OUTCOME - y)
        if kind:
            example = store.find(joined, lambda one, number=number: one == number) or {}  # type: ignore[misc]
            situation = {facts[v].name: facts[v].values[n] for v, n in example.items()}
            yield (kind, before.outcomes[FIRST_OUTCOME - x].rule, after.outcomes[FIRST_OUTCOME - y].rule), counts[number], situation


def _kind(before: Pdp, after: Pdp, key: tuple[str, str], x: int, y: int) -> str:
    """How two outcomes differ; empty when they do not."""
    a, b = before.outcomes[x], after.outcomes[y]
    if a.permits != b.permits:
        return OPENS if b.permits else CLOSES
    runners = before.runner(*key), after.runner(*key)
    owed = [runner.owed[number] if runner else () for runner, number in zip(runners, (x, y), strict=True)]
    discreet = [outcome.reason is not None and outcome.reason.discreet for outcome in (a, b)]
    return OTHER if (a.rule, a.decision, owed[0], discreet[0]) != (b.rule, b.decision, owed[1], discreet[1]) else ""


def _united(slices: Iterable[Slice], after: Pdp) -> tuple[Fact, ...]:
    """The facts of both slices; one whose values changed has all of them."""
    made: dict[str, Fact] = {}
    for slice in slices:
        for fact in slice.facts:
            known = made.get(fact.name)
            if known is None:
                made[fact.name] = fact
            elif known.values != fact.values:
                values = tuple(dict.fromkeys([*known.values, *fact.values]))
                made[fact.name] = Fact(fact.name, fact.form, values, fact.absent, fact.unknown, conditional=fact.conditional)
    return tuple(made[name] for name in sorted(made))


def _translated(store: Store, facts: tuple[Fact, ...], slice: Slice | None, nothing: int, fixed: Mapping[str, Value], place: Mapping[str, int]) -> int:
    """A slice's function in another store; `fixed` facts have one value, and a value that the slice does not know is its fact's `unknown`."""
    if slice is None:
        return nothing
    made: dict[int, int] = {}

    def walk(n: int) -> int:
        if n < 0:
            return n
        if n not in made:
            node = slice.store.nodes[n]
            fact = slice.facts[node.variable]
            known = {_named(value): index for index, value in enumerate(fact.values)}
            unknown = known[_named(fact.unknown)]
            if fact.name in fixed:
                made[n] = walk(node.child(known.get(_named(fixed[fact.name]), unknown)))
            else:
                variable = place[fact.name]
                children = {index: walk(node.child(known.get(_named(value), unknown))) for index, value in enumerate(facts[variable].values)}
                default = children.pop(len(children) - 1)
                made[n] = case(store, variable, {v: c for v, c in children.items() if c != default}, default)
        return made[n]

    return walk(slice.root)


def _named(value: Value) -> tuple[bool, Value]:
    return isinstance(value, bool), value
