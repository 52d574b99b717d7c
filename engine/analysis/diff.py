"""What an edit changes, exactly: two packs compared on their diagrams, before the edit goes live.

First what opens (a refusal that becomes a permit), then what closes, then what is decided alike for another reason. Three causes are told apart: rules (the
diagrams differ), cells of a grid and codes of a list (the same situation is reached from other inputs). Numbers count situations, not requests: how many people
an edit touches is a question to the log.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias

from engine.analysis.dead import Excluded, excluded_from, possible
from engine.analysis.meaning import acts_of, ended_by
from engine.evaluator.diagram import Store
from engine.evaluator.slices import FIRST_OUTCOME, Slice, case
from engine.pack import Pack, Rule
from engine.vocabulary import Cell, Coded, Elapsed, Fact, Given, Member, Value, Vocabulary

if TYPE_CHECKING:
    from engine.pdp import Pdp

OPENS, CLOSES, OTHER = "opens", "closes", "other"
ADDED, REMOVED = "added", "removed"
_TITLES = {
    OPENS: "Opens: a refusal becomes a permit",
    CLOSES: "Closes: a permit becomes a refusal",
    OTHER: "Same decision, for another reason or with other obligations",
}


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
    """Places (cells, codes of a list, inputs that are absent or unknown) that give a fact another value, and what that opens and closes, in situations.

    `examples`: of what opens and of what closes, the rules between which the most situations go over, with one situation.
    """

    fact: str
    before: Value
    after: Value
    places: tuple[str, ...]
    opens: int
    closes: int
    examples: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Diff:
    """All that two packs do not share. Empty when they decide everything alike for the same reasons, whatever their files look like."""

    settings: Mapping[str, tuple[Any, Any]]
    rules: Mapping[str, str]
    inputs: tuple[InputChange, ...]
    changes: tuple[Change, ...]
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    acts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.settings or self.rules or self.inputs or self.changes or self.reasons or self.facts or self.acts)

    @property
    def opens(self) -> bool:
        """Whether anything refused before may be permitted after. Who defines a fact otherwise may open anything that asks it, and so may an act that
        records something else.
        """
        redefined = any(what not in (ADDED, REMOVED) for what in self.facts.values()) or bool(self.acts)
        return redefined or any(change.kind == OPENS for change in self.changes) or any(change.opens for change in self.inputs)

    def as_dict(self) -> dict[str, Any]:
        return {
            "opens": self.opens,
            "changes": list(map(_as_dict, self.changes)),
            "inputs": [
                {
                    "fact": c.fact,
                    "before": c.before,
                    "after": c.after,
                    "places": list(c.places),
                    "opens": c.opens,
                    "closes": c.closes,
                    "examples": list(map(_as_dict, c.examples)),
                }
                for c in self.inputs
            ],
            "settings": {name: {"before": a, "after": b} for name, (a, b) in self.settings.items()},
            "rules": dict(self.rules),
            "reasons": list(self.reasons),
            "facts": dict(self.facts),
            "acts": dict(self.acts),
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
            effect = f"opens {one.opens:,} and closes {_number(one.closes, 'situation')}" if one.opens or one.closes else "changes no decision"
            yield f"  {one.fact}: {_word(one.before)} -> {_word(one.after)} in {_number(len(one.places), 'place')}, {effect}"
            yield f"    {shown}"
            for example in one.examples:
                yield f"    such as {_rules(example)}, {example.slices[0]}: {_situation(example.example)}"

    def _changes_text(self) -> Iterator[str]:
        for kind in (OPENS, CLOSES, OTHER):
            several = [change for change in self.changes if change.kind == kind]
            if several:
                yield _TITLES[kind] + ":"
            for change in several:
                yield f"  {_rules(change)} in {_number(change.situations, 'situation')} of {', '.join(change.slices)}"
                if change.example:
                    yield f"    such as: {_situation(change.example)}"

    def _files_text(self) -> Iterator[str]:
        for title, lines in (
            ("Settings:", [f"{name}: {_word(a)} -> {_word(b)}" for name, (a, b) in self.settings.items()]),
            ("Rules:", [f"{rule}: {what}" for rule, what in self.rules.items()]),
            ("Reasons changed:", list(self.reasons)),
            ("Facts:", [f"{name}: {what}" for name, what in self.facts.items()]),
            ("What acts record:", [f"{action}: {what}" for action, what in self.acts.items()]),
        ):
            if lines:
                yield title
                yield from (f"  {line}" for line in lines)


def _as_dict(one: Change) -> dict[str, Any]:
    told = {"kind": one.kind, "before": one.before, "after": one.after, "slices": list(one.slices), "situations": one.situations}
    return told | {"example": dict(one.example)}


def _rules(change: Change) -> str:
    return f"{change.before or 'no rule'} -> {change.after or 'no rule'}"


def _situation(facts: Mapping[str, Value]) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in sorted(facts.items()))


def _word(value: Any) -> str:
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _number(number: int, of: str) -> str:
    return f"{number:,} {of}" if number == 1 else f"{number:,} {of}s"


def diff(before: Pdp, after: Pdp) -> Diff:
    """Everything that `after` decides otherwise than `before`, and the lines, cells, codes and settings behind it."""
    old, new = _settings(before.pack), _settings(after.pack)
    settings = {name: (old.get(name), new.get(name)) for name in sorted({*old, *new}) if old.get(name) != new.get(name)}
    vocabularies = before.pack.vocabulary, after.pack.vocabulary
    known = sorted({*vocabularies[0].facts, *vocabularies[1].facts})
    inputs = [one for name in known for one in _input_changes(before, after, name)]
    facts = {name: what for name in known if (what := _fact_change(name, *vocabularies))}
    changes = sorted(_changes(before, after), key=lambda c: ([OPENS, CLOSES, OTHER].index(c.kind), -c.situations))
    reasons = before.pack.reasons, after.pack.reasons
    reworded = tuple(rule for rule in sorted(reasons[0].keys() & reasons[1].keys()) if reasons[0][rule] != reasons[1][rule])
    acts = _act_changes(before.pack, after.pack)
    return Diff(settings, _rule_changes(before, after), tuple(sorted(inputs, key=lambda c: (-c.opens, -c.closes))), tuple(changes), reworded, facts, acts)


def _settings(pack: Pack) -> dict[str, Any]:
    """The settings, and what else pack.toml says to every decision."""
    return {**pack.settings, "time_zone": pack.vocabulary.time_zone, **{f"discreet.{language}": text for language, text in pack.discreet.items()}}


def _rule_changes(before: Pdp, after: Pdp) -> dict[str, str]:
    """What happened to each line of rules.csv that is not the same, and the lines that changed places with another of their slices."""
    old, new = before.pack.by_id, after.pack.by_id
    made: dict[str, str] = {}
    for id in [*old, *(id for id in new if id not in old)]:
        if id not in new:
            made[id] = f"removed: {_line(old[id])}"
        elif id not in old:
            made[id] = f"added: {_line(new[id])}"
        elif _line(old[id]) != _line(new[id]):
            made[id] = f"{_line(old[id])} -> {_line(new[id])}"
    return made | {id: where for id, where in _moved(before, after).items() if id not in made}


def _line(rule: Rule) -> str:
    return f"{rule.subject}, {rule.action}, {rule.text}, {rule.effect}"


def _moved(before: Pdp, after: Pdp) -> dict[str, str]:
    """The fewest lines that, moved, explain the new order; only those that passed a line that some request meets too."""
    rank = {rule.id: place for place, rule in enumerate(before.pack.rules)}
    ids = [rule.id for rule in after.pack.rules]
    stayed = _longest_rise([rank[id] for id in ids if id in rank])
    made: dict[str, str] = {}
    for slice in {id(slice): slice for slice in after.slices.values()}.values():
        ranks = [rank[ids[number]] for number in slice.rules if ids[number] in rank]
        above, below = list(accumulate(ranks, max)), list(accumulate(reversed(ranks), min))[::-1]
        for n, highest, lowest in zip(ranks, above, below, strict=True):
            if n not in stayed and (n < highest or n > lowest):
                made[before.pack.rules[n].id] = "moved down" if n < highest else "moved up"
    return made


def _longest_rise(numbers: Sequence[int]) -> set[int]:
    """A longest part of different numbers that rises (patience sorting)."""
    tops: list[int] = []
    under: dict[int, int | None] = {}
    for n in numbers:
        pile = bisect_left(tops, n)
        under[n] = tops[pile - 1] if pile else None
        tops[pile:] = [n, *tops[pile + 1 :]]
    made: set[int] = set()
    last = tops[-1] if tops else None
    while last is not None:
        made.add(last)
        last = under[last]
    return made


def _act_changes(before: Pack, after: Pack) -> dict[str, str]:
    """What each action that records something else recorded, and records."""
    old, new = before.vocabulary.acts, after.vocabulary.acts
    changed = [action for action in dict.fromkeys([*old, *new]) if acts_of(before, action) != acts_of(after, action)]
    said = {action: ["; ".join(map(str, acts.get(action, ()))) or "nothing" for acts in (old, new)] for action in changed}
    return {action: f"{was}, of other words, rows or dates" if was == now else f"{was} -> {now}" for action, (was, now) in said.items()}


def _fact_change(name: str, before: Vocabulary, after: Vocabulary) -> str:
    """How the definition of a fact changed, its codes, cells and settings apart, and what it says of an input that is absent or unknown."""
    old, new = before.facts.get(name), after.facts.get(name)
    if old is None or new is None:
        return ADDED if old is None else REMOVED
    if type(old.form) is not type(new.form):
        return "another form"
    if set(map(_named, old.values)) != set(map(_named, new.values)):
        return "other values"
    if _shape(old) != _shape(new):
        return "looks at other inputs"
    if isinstance(old.form, Elapsed) and isinstance(new.form, Elapsed) and (old.form.amount, old.form.unit) != (new.form.amount, new.form.unit):
        return f"{old.form.amount} {old.form.unit} -> {new.form.amount} {new.form.unit}"
    if isinstance(old.form, Elapsed) and before.time_zone != after.time_zone:
        return "in another time zone"
    return "" if ended_by(old, before) == ended_by(new, after) else "ended by other kinds of directives"


def _shape(fact: Fact) -> object:
    """What a fact looks at, without its codes, letters and settings."""
    match fact.form:
        case Given(of, text, setting):
            return of, text, setting is None
        case Member(of, _, several) | Coded(of, _, several):
            return of, several
        case Elapsed(since):
            return since
        case Cell(_, row, column, _, fixed):
            return row, column, fixed
        case form:
            return form


# --- cells and codes -------------------------------------------------------------------------------------------------


def _input_changes(before: Pdp, after: Pdp, name: str) -> Iterator[InputChange]:
    """The cells, codes and missing inputs that give the fact `name` another value, grouped by what they change it from and to."""
    old, new = before.pack.vocabulary.facts.get(name), after.pack.vocabulary.facts.get(name)
    if old is None or new is None or type(old.form) is not type(new.form) or not old.constant is new.constant is None:
        return
    was, now = dict(_missing(old)), dict(_missing(new))
    if not isinstance(old.form, Cell) or _shape(old) == _shape(new):
        was, now = {**was, **dict(_table(old, new))}, {**now, **dict(_table(new, old))}
    groups: dict[tuple[Value, Value], list[str]] = {}
    for place in [*was, *(place for place in now if place not in was)]:
        pair = was.get(place, _otherwise(old)), now.get(place, _otherwise(new))
        if _named(pair[0]) != _named(pair[1]):
            groups.setdefault(pair, []).append(" ".join(place[1:]))
    for (a, b), places in groups.items():
        several: dict[str, list[Change]] = {OPENS: [], CLOSES: []}
        for change in _changes(before, after, {name: (a, b)}):
            several.get(change.kind, []).append(change)
        examples = tuple(max(changes, key=lambda one: one.situations) for changes in several.values() if changes)
        opens, closes = (sum(one.situations for one in changes) for changes in several.values())
        yield InputChange(name, a, b, tuple(places), opens, closes, examples)


def _missing(fact: Fact) -> Iterator[tuple[tuple[str, ...], Value]]:
    """The value of a fact whose input is absent, or is there and says nothing known."""
    yield ("missing", "(absent)"), fact.absent
    if isinstance(fact.form, Given | Member | Coded | Cell):
        yield ("missing", "(unknown)"), fact.unknown


def _table(fact: Fact, other: Fact) -> Iterator[tuple[tuple[str, ...], Value]]:
    """The value that each code or cell gives a fact. A cell has a row and a column, or a row and a code that leads elsewhere for the `other` fact."""
    match fact.form:
        case Member(_, among):
            yield from ((("code", code), True) for code in sorted(among))
        case Coded(_, codes):
            yield from ((("code", code), value) for code, value in codes.items())
        case Cell(grid, _, None, _, fixed, letters):
            yield from ((("cell", row, fixed or ""), letters[cells[fixed or ""]]) for row, cells in grid.rows.items())
        case Cell(grid, _, _, column_of, _, letters):
            elsewhere = other.form.column_of if isinstance(other.form, Cell) else {}
            reached = {column for code, column in column_of.items() if elsewhere.get(code) == column}
            turned = {code: column for code, column in column_of.items() if elsewhere.get(code) != column}
            for row, cells in grid.rows.items():
                yield from ((("cell", row, column), letters[letter]) for column, letter in cells.items() if column in reached)
                yield from ((("code", row, code), letters[cells[column]]) for code, column in turned.items() if column in cells)


def _otherwise(fact: Fact) -> Value:
    """The value that a code or a cell without a line of its own gives a fact."""
    return False if isinstance(fact.form, Member) else fact.unknown


# --- rules -----------------------------------------------------------------------------------------------------------


Pair: TypeAlias = tuple[int, int]
"""The numbers of two outcomes, before and after."""


def _changes(before: Pdp, after: Pdp, fixed: Mapping[str, tuple[Value, Value]] | None = None) -> Iterator[Change]:
    """Situations decided otherwise, by pair of rules. `fixed` gives a fact one value before and another after: what a changed cell does."""
    found: dict[tuple[str, str, str], list[tuple[str, int, Mapping[str, Value]]]] = {}
    compared: dict[object, dict[Pair, tuple[int, Mapping[str, Value]]]] = {}
    for key in [*before.slices, *(key for key in after.slices if key not in before.slices)]:
        old, new = before.slices.get(key), after.slices.get(key)
        if fixed and not any(slice and name in slice.variable for slice in (old, new) for name in fixed):
            continue
        excluded = excluded_from(after.pack, *key)
        slices = (id(old), id(new), excluded)
        if slices not in compared:
            compared[slices] = _compare(before, after, old, new, excluded, fixed or {})
        for (x, y), (number, example) in compared[slices].items():
            if kind := _kind(before, after, key, x, y):
                found.setdefault((kind, before.outcomes[x].rule, after.outcomes[y].rule), []).append((f"{key[0]} {key[1]}", number, example))
    for (kind, a, b), places in found.items():
        yield Change(kind, a, b, tuple(where for where, _, _ in places), sum(number for _, number, _ in places), places[0][2])


def _compare(
    before: Pdp, after: Pdp, old: Slice | None, new: Slice | None, excluded: Excluded, fixed: Mapping[str, tuple[Value, Value]]
) -> dict[Pair, tuple[int, Mapping[str, Value]]]:
    """For each pair of outcomes that some possible situation has before and after: how many do, and one of them."""
    facts = _united(before.pack.vocabulary, after.pack.vocabulary, [slice for slice in (old, new) if slice])
    store = Store([len(fact.values) for fact in facts], 1_000_000_000)
    place = {fact.name: n for n, fact in enumerate(facts)}
    ends = [{name: pair[side] for name, pair in fixed.items()} for side in (0, 1)]
    a = _translated(store, facts, old, before.outcomes[-1].leaf, ends[0], place)
    b = _translated(store, facts, new, after.outcomes[-1].leaf, ends[1], place)
    pairs: dict[Pair, int] = {}

    def leaf(x: int, y: int) -> int:
        return pairs.setdefault((FIRST_OUTCOME - x, FIRST_OUTCOME - y), FIRST_OUTCOME - len(pairs))

    within = possible(after.pack, store, facts, excluded)
    if fixed:  # both sides have to be possible: what a changed cell does is what undoing it undoes
        within = store.both(*(store.restrict(within, {place[name]: facts[place[name]].values.index(value) for name, value in end.items()}) for end in ends))
    joined = store.both(within, store.pairs(a, b, leaf, "pairs"))
    counts = store.count(joined, store.support(joined))
    made = {}
    for pair, number in pairs.items():
        if number in counts:
            example = store.find(joined, lambda one, number=number: one == number) or {}  # type: ignore[misc]
            made[pair] = counts[number], {facts[v].name: facts[v].values[n] for v, n in example.items()}
    return made


def _kind(before: Pdp, after: Pdp, key: tuple[str, str], x: int, y: int) -> str:
    """How two outcomes differ; empty when they do not."""
    a, b = before.outcomes[x], after.outcomes[y]
    if a.permits != b.permits:
        return OPENS if b.permits else CLOSES
    owed = [_owed(pdp, key, number) for pdp, number in ((before, x), (after, y))]
    discreet = [outcome.reason is not None and outcome.reason.discreet for outcome in (a, b)]
    return OTHER if (a.rule, a.decision, owed[0], discreet[0]) != (b.rule, b.decision, owed[1], discreet[1]) else ""


def _owed(pdp: Pdp, key: tuple[str, str], number: int) -> list[object]:
    """What an outcome owes in a slice, as it is told."""
    runner = pdp.runner(*key)
    return [(one.id, one.to, one.properties, one.words) for one in runner.owed[number]] if runner else []


def _united(before: Vocabulary, after: Vocabulary, slices: Iterable[Slice]) -> tuple[Fact, ...]:
    """The facts of two slices, as `after` defines them; one whose values changed has all of them."""
    made: list[Fact] = []
    for name in sorted({fact.name for slice in slices for fact in slice.facts}):
        known = [vocabulary.facts[name] for vocabulary in (after, before) if name in vocabulary.facts]
        values = tuple(dict.fromkeys(value for fact in reversed(known) for value in fact.values))
        made.append(replace(known[0], values=values))
    return tuple(made)


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
            others = dict(node.others)
            child = {_named(value): others.get(index, node.default) for index, value in enumerate(fact.values)}
            unknown = child[_named(fact.unknown)]
            if fact.name in fixed:
                made[n] = walk(child.get(_named(fixed[fact.name]), unknown))
            else:
                variable = place[fact.name]
                children = {index: walk(child.get(_named(value), unknown)) for index, value in enumerate(facts[variable].values)}
                default = children.pop(len(children) - 1)
                made[n] = case(store, variable, {v: c for v, c in children.items() if c != default}, default)
        return made[n]

    return walk(slice.root)


def _named(value: Value) -> tuple[bool, Value]:
    return isinstance(value, bool), value
