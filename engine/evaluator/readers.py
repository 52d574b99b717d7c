"""Facts, fast: a request and a folded record straight into the packed situation of a slice.

`engine.facts` is the definition; this computes the same with one look-up per *input* instead of one computation per fact. Whatever depends on one input
alone is a dictionary from its values to bits of the packed situation; what the record says of an identifier is a mask kept in the record's index; both are
or-ed together. Property tests compare the two on whole requests with directives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from engine.calendar import deadline, parse_instant
from engine.consent.fold import Record
from engine.evaluator.tables import Tables
from engine.facts import _any, _coded, _identifiers, value_of
from engine.request import Request
from engine.vocabulary import Cell, Coded, Elapsed, Fact, Form, Given, Held, Member, Path, Same

Reader: TypeAlias = Callable[[Request, Record, float], int]
"""Bits of the packed situation from a request, a record and the instant."""

MANY = 4096
"""How many lists of codes a reader remembers before it starts again."""

@dataclass(frozen=True, slots=True)
class Plan:
    """How to read a request on one record: bits that the record alone decides, readers that do not look at the resource, and those that do.

    Most records say nothing of most identifiers; a plan has no reader for what the record is silent on.
    """

    bits: int
    common: tuple[Reader, ...]
    of_resource: tuple[Reader, ...]
    all: tuple[Reader, ...]


class Readers:
    """The facts of a slice, for one action. `plan` fits them to a record, and keeps the plan in the record's index."""

    def __init__(self, facts: Iterable[Fact], tables: Tables, zone: str, action: str):
        self.tables, self.zone, self.action = tables, zone, action
        self.held: list[Fact] = []
        self.of_record: list[Fact] = []
        by_path: dict[tuple[str, ...], list[Fact]] = {}
        made: list[tuple[bool, Reader]] = []
        for fact in facts:
            if fact.constant is not None or fact.name not in tables.fields:
                continue
            form = fact.form
            if isinstance(form, Given | Member | Coded):
                by_path.setdefault(form.of.for_action(action), []).append(fact)
            elif isinstance(form, Held):
                self.held.append(fact)
            elif isinstance(form, Elapsed) and form.since.steps[0] == "record":
                self.of_record.append(fact)
            else:
                made.append((_about_resource(form, action), _other(fact, form, tables, zone, action)))
        made += [(steps[0] == "resource", _of_one_input(steps, group, tables)) for steps, group in by_path.items()]
        self.common = [read for late, read in made if not late]
        self.of_resource = [read for late, read in made if late]

    def plan(self, record: Record) -> Plan:
        """The plan for a record: made once, then kept as long as the record."""
        plan = record.index.get(self)
        if plan is None:
            plan = record.index[self] = self._plan(record)
        return plan

    def _plan(self, record: Record) -> Plan:
        bits = sum(self._elapsed(fact, record) for fact in self.of_record)
        common, of_resource = list(self.common), list(self.of_resource)
        aims: dict[tuple[str, ...], _Aim] = {}
        for fact in self.held:
            form: Held = fact.form  # type: ignore[assignment]
            if any(isinstance(wanted, Path) for _, wanted in form.where):
                if any(s.kind == form.kind for s in (record.ended if form.ended else record.in_force)):
                    of_resource.append(_by_definition(fact, self.tables))
                continue
            shapes: dict[tuple[str, ...], list[str]] = {}
            for shape, path in form.of:
                shapes.setdefault(path.for_action(self.action) if path else (), []).append(shape)
            for steps, several in shapes.items():
                _aim(aims.setdefault(steps, _Aim()), form, several, record, self.tables.code(fact.name, True), self.tables.code(fact.name, fact.absent))
        for steps, aim in aims.items():
            if not steps:
                bits |= aim.absent
            elif aim.by_value or aim.intervals or aim.absent:
                (of_resource if steps[0] == "resource" else common).append(_aimed(getter(steps), aim))
        return Plan(bits, tuple(common), tuple(of_resource), (*common, *of_resource))

    def _elapsed(self, fact: Fact, record: Record) -> int:
        """An `elapsed` fact of the record: it does not turn before `holds_until`."""
        form: Elapsed = fact.form  # type: ignore[assignment]
        since = record.instant(form.since.steps)
        due = None if since is None else deadline(since, form.unit, form.amount, self.zone)
        return self.tables.code(fact.name, fact.absent if due is None else due <= record.at)


def _about_resource(form: Form, action: str) -> bool:
    paths: list[Path | None]
    match form:
        case Same(left, right):
            paths = [left, right]
        case Elapsed(since):
            paths = [since]
        case Cell(_, row, column):
            paths = [row, column]
        case _:
            paths = []
    return any(path is not None and path.for_action(action)[0] == "resource" for path in paths)


def getter(steps: tuple[str, ...]) -> Callable[[Request], Any]:
    """`request.look_up(steps)`, unrolled for the usual paths."""
    head, *rest = steps
    if len(rest) == 1:
        (key,) = rest
        if head == "context":
            return lambda request: request.context.get(key)
        if head == "subject":
            return (lambda request: request.subject.id) if key == "id" else lambda request: request.subject.properties.get(key)
        if head == "resource":
            return (lambda request: request.resource.id) if key == "id" else lambda request: request.resource.properties.get(key)
    return lambda request: request.look_up(steps)


# --- facts of one input ----------------------------------------------------------------------------------------------


def _of_one_input(steps: tuple[str, ...], facts: list[Fact], tables: Tables) -> Reader:
    """Every `given`, `member` and `coded` fact of one input: one dictionary from its values to bits."""
    get = getter(steps)
    known: dict[object, int] = {}
    words: set[str] = set()
    for fact in facts:
        match fact.form:
            case Member(_, among):
                words |= among
            case Coded(_, codes):
                words |= codes.keys()
            case _:
                words |= {value for value in fact.values if isinstance(value, str)}
    absent = sum(tables.code(fact.name, fact.absent) for fact in facts)

    def slow(value: Any) -> int:
        """Whatever is not a known word: blank text, other types, lists."""
        if value is None or value == [] or isinstance(value, str) and not value.strip():
            return absent
        return sum(tables.code(fact.name, _value(fact, value)) for fact in facts)

    for word in words:
        if word.strip():
            known[word] = slow(word)
    true, false = slow(True), slow(False)
    lists: dict[tuple[Any, ...], int] = {}

    def read(request: Request, _record: Record, _at: float) -> int:
        value = get(request)
        kind = value.__class__
        if kind is str:
            bits = known.get(value)
            return slow(value) if bits is None else bits
        if value is None:
            return absent
        if kind is bool:
            return true if value else false
        if kind is list:
            try:
                key = tuple(value)
                bits = lists.get(key)
                if bits is None or not all(one.__class__ is str for one in key):
                    bits = slow(value)
                    if len(lists) >= MANY:
                        lists.clear()
                    lists[key] = bits
                return bits
            except TypeError:
                return slow(value)
        return slow(value)

    return read


def _value(fact: Fact, value: Any) -> Any:
    """The value of a fact of one input that is present: the same as `engine.facts` computes."""
    match fact.form:
        case Given(_, text):
            if text:
                return True if isinstance(value, str) else fact.unknown
            return value if isinstance(value, bool if fact.is_boolean else str) and value in fact.values else fact.unknown
        case Member(_, among):
            return _any(fact, value, dict.fromkeys(among, True), False)
        case Coded(_, codes):
            return _coded(fact, value, codes)
    raise AssertionError(fact)


# --- same, elapsed, cell ---------------------------------------------------------------------------------------------


def _other(fact: Fact, form: Form, tables: Tables, zone: str, action: str) -> Reader:
    match form:
        case Same():
            return _same(fact, form, tables, action)
        case Elapsed():
            return _elapsed(fact, form, tables, zone, action)
        case Cell():
            return _cell(fact, form, tables, action)
    raise AssertionError(form)


def _same(fact: Fact, form: Same, tables: Tables, action: str) -> Reader:
    left, right = getter(form.left.for_action(action)), getter(form.right.for_action(action))
    true, false, absent = (tables.code(fact.name, value) for value in (True, False, fact.absent))

    def read(request: Request, _record: Record, _at: float) -> int:
        a, b = left(request), right(request)
        if a.__class__ is str and b.__class__ is str:
            if a == b:
                return true if a.strip() else absent
            return false if a.strip() and b.strip() else absent
        these, those = _identifiers(form.left, request), _identifiers(form.right, request)
        return absent if not these or not those else false if these.isdisjoint(those) else true

    return read


def _elapsed(fact: Fact, form: Elapsed, tables: Tables, zone: str, action: str) -> Reader:
    true, false, absent = (tables.code(fact.name, value) for value in (True, False, fact.absent))
    unit, amount = form.unit, form.amount
    get = getter(form.since.for_action(action))

    def read(request: Request, _record: Record, at: float) -> int:
        value = get(request)
        since = parse_instant(value) if value.__class__ is str else None
        due = None if since is None else deadline(since, unit, amount, zone)
        return absent if due is None else true if due <= at else false

    return read


def _cell(fact: Fact, form: Cell, tables: Tables, action: str) -> Reader:
    absent, unknown = tables.code(fact.name, fact.absent), tables.code(fact.name, fact.unknown)
    bits = {letter: tables.code(fact.name, value) for letter, value in form.letters.items()}
    cells = {column: {row: bits[letters[column]] for row, letters in form.grid.rows.items()} for column in form.grid.columns}
    row_of = getter(form.row.for_action(action))
    column_of = None if form.column is None else getter(form.column.for_action(action))
    fixed = cells.get(form.fixed_column or "", {})
    by_code = {code: cells[column] for code, column in form.column_of.items()}

    def read(request: Request, _record: Record, _at: float) -> int:
        row = row_of(request)
        if row is None or row == [] or row.__class__ is str and not row.strip():
            return absent
        rows: Mapping[str, int] | None = fixed
        if column_of is not None:
            code = column_of(request)
            if code is None or code == [] or code.__class__ is str and not code.strip():
                return absent
            rows = by_code.get(code) if code.__class__ is str else None
        if rows is None or row.__class__ is not str:
            return unknown
        return rows.get(row, unknown)

    return read


# --- held ------------------------------------------------------------------------------------------------------------


def _by_definition(fact: Fact, tables: Tables) -> Reader:
    """A `held` fact whose properties depend on the request: rare, and never on the path of a list."""
    codes = {value: tables.code(fact.name, value) for value in fact.values}
    return lambda request, record, at: codes[value_of(fact, request, record, at)]


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
            if member.kind == form.via and member.target[0] in shapes and member.has(form.group) in groups:
                word = str(member.target[1])
                aim.by_value[word] = aim.by_value.get(word, 0) | bit


def _aimed(get: Callable[[Request], Any], aim: _Aim) -> Reader:
    by_value, intervals, absent = aim.by_value, aim.intervals, aim.absent

    def read(request: Request, _record: Record, _at: float) -> int:
        value = get(request)
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
