"""Facts, fast: a request and a folded record straight into the packed situation of a slice.

`engine.facts` is the definition; this computes the same with one look-up per *input* instead of one computation per fact. Whatever depends on one
input alone is a dictionary from its values to bits of the packed situation; what the record says of an identifier is bits kept with the record.
Property tests compare the two on whole requests with directives.

The look-ups of a slice are written out as one Python function when the pack is compiled: a call per input, however small, is most of the time
otherwise (5.3 microseconds a decision with a closure per input, 2.2 written out). Every line falls back to a plain function for values that are not
the usual ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from engine.calendar import deadline, parse_instant
from engine.consent.fold import Record
from engine.evaluator.tables import Tables
from engine.facts import value_of, value_of_input
from engine.request import Request
from engine.vocabulary import Cell, Coded, Elapsed, Fact, Given, Held, Member, Path, Same

Steps: TypeAlias = tuple[str, ...]
Reader: TypeAlias = Callable[[Request, Record, float], int]
"""Bits of the packed situation from a request, a record and the instant."""

UNKNOWN = "\0"
"""A word that no pack declares: what it gives every fact is what any unknown word gives."""

MANY = 4096
"""How many lists of codes an input remembers before it starts again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one record bears on a slice: the bits that it decides alone, and readers for the inputs of which it says something.

    Most records say nothing of most identifiers; a plan has no reader for what the record is silent on.
    """

    bits: int
    common: tuple[Reader, ...]
    of_resource: tuple[Reader, ...]


class Readers:
    """The facts of a slice, for one action.

    `common` and `of_resource` give the bits that depend on the request alone, apart for lists of resources; `plan` fits the rest to a record, and keeps
    the plan with the record.
    """

    def __init__(self, facts: Iterable[Fact], tables: Tables, zone: str, action: str):
        self.tables, self.zone, self.action = tables, zone, action
        used = [fact for fact in facts if fact.name in tables.fields]
        self.of_record = [fact for fact in used if isinstance(fact.form, Elapsed) and fact.form.since.steps[0] == "record"]
        self.held = [fact for fact in used if isinstance(fact.form, Held)]
        of_request = [fact for fact in used if fact not in self.of_record and fact not in self.held]
        late = [fact for fact in of_request if any(steps[0] == "resource" for steps in _inputs(fact, action))]
        self.common: Reader = _written([fact for fact in of_request if fact not in late], tables, action)
        self.of_resource: Reader = _written(late, tables, action)

    def plan(self, record: Record) -> Plan:
        """The plan for a record: made once, then kept as long as the record."""
        plan = record.index.get(self)
        if plan is None:
            plan = record.index[self] = self._plan(record)
        return plan

    def _plan(self, record: Record) -> Plan:
        bits = sum(self._elapsed(fact, record) for fact in self.of_record)
        common: list[Reader] = []
        of_resource: list[Reader] = []
        aims: dict[Steps, _Aim] = {}
        for fact in self.held:
            form: Held = fact.form  # type: ignore[assignment]
            if any(isinstance(wanted, Path) for _, wanted in form.where):
                if any(s.kind == form.kind for s in (record.ended if form.ended else record.in_force)):
                    of_resource.append(_by_definition(fact, self.tables))
                continue
            shapes: dict[Steps, list[str]] = {}
            for shape, path in form.of:
                shapes.setdefault(path.for_action(self.action) if path else (), []).append(shape)
            for steps, several in shapes.items():
                _aim(aims.setdefault(steps, _Aim()), form, several, record, self.tables.code(fact.name, True), self.tables.code(fact.name, fact.absent))
        for steps, aim in aims.items():
            if not steps:
                bits |= aim.absent
            elif aim.by_value or aim.intervals:
                (of_resource if steps[0] == "resource" else common).append(_aimed(steps, aim))
        return Plan(bits, tuple(common), tuple(of_resource))

    def _elapsed(self, fact: Fact, record: Record) -> int:
        """An `elapsed` fact of the record: it does not turn before `holds_until`."""
        form: Elapsed = fact.form  # type: ignore[assignment]
        since = record.instant(form.since.steps)
        due = None if since is None else deadline(since, form.unit, form.amount, self.zone)
        return self.tables.code(fact.name, fact.absent if due is None else due <= record.at)


def _inputs(fact: Fact, action: str) -> list[Steps]:
    """The inputs of the request that a fact depends on."""
    match fact.form:
        case Given(of) | Member(of) | Coded(of):
            paths: list[Path | None] = [of]
        case Same(left, right):
            paths = [left, right]
        case Elapsed(since):
            paths = [since]
        case Cell(_, row, column):
            paths = [row, column]
        case _:
            paths = []
    return [path.for_action(action) for path in paths if path is not None]


# --- facts of the request, written out -------------------------------------------------------------------------------


def _written(facts: list[Fact], tables: Tables, action: str) -> Reader:
    """Compile one function that reads these facts. Its text holds no word of a pack but property names, each as a `repr`."""
    known: dict[str, Any] = {}
    lines: list[str] = []

    def bind(value: Any) -> str:
        name = f"k{len(known)}"
        known[name] = value
        return name

    by_input: dict[Steps, list[Fact]] = {}
    for fact in facts:
        match fact.form:
            case Given() | Member() | Coded():
                by_input.setdefault(_inputs(fact, action)[0], []).append(fact)
            case Same():
                lines += _write_same(fact, fact.form, tables, action, bind)
            case Cell():
                lines += _write_cell(fact, fact.form, tables, action, bind)
            case _:
                lines.append(f"code |= {bind(_by_definition(fact, tables))}(request, record, at)")
    for steps, group in by_input.items():
        lines += _write_input(steps, group, tables, bind)
    if not lines:
        return lambda _request, _record, _at: 0
    body = ["subject, resource, context = request.subject, request.resource, request.context", "code = 0", *lines, "return code"]
    exec("def read(request, record, at):\n" + "\n".join("    " + line for line in body), known)
    return known["read"]  # type: ignore[no-any-return]


def _expression(steps: Steps, bind: Callable[[Any], str]) -> str:
    """Python for `request.look_up(steps)`."""
    head, *rest = steps
    if len(rest) == 1 and head in ("subject", "resource"):
        return f"{head}.id" if rest[0] == "id" else f"{head}.properties.get({rest[0]!r})"
    if len(rest) == 1 and head == "context":
        return f"context.get({rest[0]!r})"
    return f"request.look_up({bind(steps)})"


def _write_input(steps: Steps, facts: list[Fact], tables: Tables, bind: Callable[[Any], str]) -> list[str]:
    """Every `given`, `member` and `coded` fact of one input: a dictionary from its known words to bits, `None` being the input that is missing."""
    of_value = _of_value(facts, tables)
    words: set[str] = set()
    for fact in facts:
        match fact.form:
            case Member(_, among):
                words |= among
            case Coded(_, codes):
                words |= codes.keys()
            case _:
                words |= {value for value in fact.values if isinstance(value, str)}
    lists: dict[tuple[Any, ...], int] = {}
    table, memory, other = bind({word: of_value(word) for word in [*words, None]}), bind(lists), bind(_of_any(of_value, lists))
    look_up = f"    code |= {table}[v] if v.__class__ is not list else {memory}[tuple(v)]"
    return [f"v = {_expression(steps, bind)}", "try:", look_up, "except (KeyError, TypeError):", f"    code |= {other}(v)"]


def _of_value(facts: list[Fact], tables: Tables) -> Callable[[Any], int]:
    """The bits of some facts of one input, by the definition."""

    def bits(value: Any) -> int:
        return sum(tables.code(fact.name, value_of_input(fact, value)) for fact in facts)

    return bits


def _of_any(of_value: Callable[[Any], int], lists: dict[tuple[Any, ...], int]) -> Callable[[Any], int]:
    """The bits of values that are not known words. Lists are remembered: `1`, `1.0` and `True` share a place there, and all three are unknown codes."""

    unknown = of_value(UNKNOWN)

    def bits(value: Any) -> int:
        if value.__class__ is str and not value.isspace() and value:
            return unknown
        made = of_value(value)
        if value.__class__ is list and all(one.__hash__ for one in value):
            if len(lists) >= MANY:
                lists.clear()
            lists[tuple(value)] = made
        return made

    return bits


def _write_same(fact: Fact, form: Same, tables: Tables, action: str, bind: Callable[[Any], str]) -> list[str]:
    true, slow = tables.code(fact.name, True), bind(_by_definition(fact, tables))
    a, b = (_expression(steps, bind) for steps in _inputs(fact, action))
    lines = [f"a, b = {a}, {b}"]
    if fact.absent is False:  # two words that differ are false, blank or not
        lines += ["if a.__class__ is str and b.__class__ is str and a != b:", "    pass", "elif a is None or b is None:", "    pass", "else:"]
    else:
        lines += ["if a.__class__ is str and a == b and not a.isspace() and a:", f"    code |= {true}", "else:"]
    return [*lines, f"    code |= {slow}(request, record, at)"]


def _write_cell(fact: Fact, form: Cell, tables: Tables, action: str, bind: Callable[[Any], str]) -> list[str]:
    """The bits of a cell's letter, found in the grid itself: a million cells are not copied for each slice."""
    bits = bind({letter: tables.code(fact.name, value) for letter, value in form.letters.items()})
    slow, inputs = bind(_by_definition(fact, tables)), _inputs(fact, action)
    column = repr(form.fixed_column) if form.column is None else f"{bind(form.column_of)}[{_expression(inputs[1], bind)}]"
    found = f"{bits}[{bind(form.grid.rows)}[{_expression(inputs[0], bind)}][{column}]]"
    return ["try:", f"    code |= {found}", "except (KeyError, TypeError):", f"    code |= {slow}(request, record, at)"]


def _by_definition(fact: Fact, tables: Tables) -> Reader:
    codes = [(value, tables.code(fact.name, value)) for value in fact.values]

    def read(request: Request, record: Record, at: float) -> int:
        value = value_of(fact, request, record, at)
        return next(code for one, code in codes if one is value or (one == value and isinstance(one, str)))

    return read


# --- facts of the record ---------------------------------------------------------------------------------------------


class _Aim:
    """What a record says through one input: bits by identifier, bits of intervals, the bits when the input is absent."""

    __slots__ = ("absent", "by_value", "intervals")

    def __init__(self) -> None:
        self.by_value: dict[str, int] = {}
        self.intervals: list[tuple[float, float, int, int]] = []
        self.absent = 0


def _aim(aim: _Aim, form: Held, shapes: list[str], record: Record, bit: int, doubt: int) -> None:
    """Add one fact's statements to what the record says through one input."""
    wanted = dict(form.where)
    statements = [s for s in (record.ended if form.ended else record.in_force) if s.kind == form.kind and all(s.has(k) == v for k, v in wanted.items())]
    for statement in statements:
        shape, value = statement.target
        if shape not in shapes:
            continue
        if value is None:
            aim.absent |= bit
            continue
        if isinstance(value, tuple):
            aim.intervals.append((*value, bit, doubt))
        else:
            aim.by_value[value] = aim.by_value.get(value, 0) | bit
        aim.absent |= doubt
    if form.via:
        groups = {s.target[1] for s in statements if s.target[0] == form.group}
        for member in record.in_force:
            shape, word = member.target
            if member.kind == form.via and shape in shapes and isinstance(word, str) and member.has(form.group) in groups:
                aim.by_value[word] = aim.by_value.get(word, 0) | bit


def _aimed(steps: Steps, aim: _Aim) -> Reader:
    by_value, intervals, absent = aim.by_value, aim.intervals, aim.absent

    def read(request: Request, _record: Record, _at: float) -> int:
        value = request.look_up(steps)
        if value.__class__ is str and value and not value.isspace():
            made = by_value.get(value, 0)
            return made | _within(aim, value) if intervals else made
        words = [one for one in value if isinstance(one, str) and one.strip()] if isinstance(value, list) else []
        made = 0 if words else absent
        for word in words:
            made |= by_value.get(word, 0) | _within(aim, word)
        return made

    return read


def _within(aim: _Aim, word: str) -> int:
    made, instant = 0, parse_instant(word) if aim.intervals else None
    for start, end, bit, doubt in aim.intervals:
        if instant is None:
            made |= doubt
        elif start <= instant < end:
            made |= bit
    return made


