"""Facts: a request and a folded record become a situation, one value for each fact. Seven forms, and nothing else computes one.

This is the definition, written to be read. `engine.evaluator.readers` computes the same in a tenth of the time, and is compared with this for ever.
Total: whatever the request holds, every fact has a value, and an input that is missing or makes no sense gives the one that the vocabulary chose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

from engine.calendar import deadline, parse_instant
from engine.consent.directives import Target
from engine.consent.fold import Record, Statement
from engine.request import Request
from engine.vocabulary import Cell, Coded, Elapsed, Fact, Given, Held, Member, Path, Same, Value

Situation: TypeAlias = Mapping[str, Value]
"""One value for each fact, by name."""


def situation(facts: Iterable[Fact], request: Request, record: Record, at: float) -> dict[str, Value]:
    """The value of each fact for this request, on this record, at this instant."""
    return {fact.name: value_of(fact, request, record, at) for fact in facts}


def value_of(fact: Fact, request: Request, record: Record, at: float) -> Value:
    """The value of one fact."""
    match fact.form:
        case Given(of) | Member(of) | Coded(of):
            return value_of_input(fact, request.look_up(of.for_action(request.action.name)))
        case Same(left, right):
            return _same(fact, _identifiers(left, request), _identifiers(right, request))
        case Held():
            return _held(fact, fact.form, request, record)
        case Elapsed():
            return _elapsed(fact, fact.form, request, record, at)
        case Cell():
            return _cell(fact, fact.form, request)
    raise AssertionError(f"no such form: {fact.form!r}")


def value_of_input(fact: Fact, value: Any) -> Value:
    """The value of a fact of one input, once that input is in hand."""
    match fact.form:
        case Given():
            return _given(fact, fact.form, value)
        case Member(_, among, several):
            return _coded(fact, input_value(value), dict.fromkeys(among, True), False, several)
        case Coded(_, codes, several):
            return _coded(fact, input_value(value), codes, fact.unknown, several)
    raise AssertionError(f"not a fact of one input: {fact.form!r}")


def input_value(value: Any) -> Any:
    """An input as facts see it: blank text and an empty list are as absent as nothing. A `given` word is not: blank is none of its words, so unknown."""
    return None if value == [] or (isinstance(value, str) and not value.strip()) else value


def _input(path: Path, request: Request) -> Any:
    return input_value(request.look_up(path.for_action(request.action.name)))


def _identifiers(path: Path, request: Request) -> set[str]:
    value = _input(path, request)
    several = value if isinstance(value, list) else [value]
    return {one for one in several if isinstance(one, str) and one.strip()}


def _given(fact: Fact, form: Given, value: Any) -> Value:
    if form.setting is not None:
        return form.setting
    if form.text:
        value = input_value(value)
        return fact.absent if value is None else True if isinstance(value, str) else fact.unknown
    if value is None:
        return fact.absent
    known = isinstance(value, bool if fact.is_boolean else str) and value in fact.values
    return value if known else fact.unknown


def _same(fact: Fact, left: set[str], right: set[str]) -> Value:
    return not left.isdisjoint(right) if left and right else fact.absent


def _coded(fact: Fact, value: Any, codes: Mapping[str, Value], otherwise: Value, several: bool) -> Value:
    """What a list says of a code, or of any of several; what is not text is unknown."""
    if value is None:
        return fact.absent
    if several and isinstance(value, list):
        return any(_coded(fact, one, codes, otherwise, False) for one in value)
    return codes.get(value, otherwise) if isinstance(value, str) else fact.unknown


Claim: TypeAlias = bool | None
"""Whether something is so; nothing when an input that would tell is absent."""


def _held(fact: Fact, form: Held, request: Request, record: Record) -> Value:
    """True when a statement is about this request. An absent input gives `absent` when one might be, otherwise false."""
    known = record.ended if form.ended else record.in_force
    found = _any([_all([_fits(s, form, request), _aims(s, form, request, record)]) for s in known if s.kind == form.kind])
    return fact.absent if found is None else found


def _all(claims: Collection[Claim]) -> Claim:
    return False if False in claims else None if None in claims else True


def _any(claims: Collection[Claim]) -> Claim:
    return True if True in claims else None if None in claims else False


def _fits(statement: Statement, form: Held, request: Request) -> Claim:
    """Whether a statement has the properties asked for, and its own words where it is narrowed."""
    asked = [(statement.has(key), {wanted} if isinstance(wanted, str) else _identifiers(wanted, request)) for key, wanted in form.where]
    narrowed = [(statement.has(key), _identifiers(path, request)) for key, path in form.narrowed if statement.has(key) is not None]
    return _all([word is not None and _hits(word, inputs) for word, inputs in (*asked, *narrowed)])


def _aims(statement: Statement, form: Held, request: Request, record: Record) -> Claim:
    """Whether a statement aims at one of the inputs, or at a group that one of them is in."""
    claims: list[Claim] = []
    for shape, path in form.of:
        inputs = _identifiers(path, request) if path else set()
        if statement.target[0] == shape:
            claims.append(path is None or _hits(statement.target[1], inputs))
        if form.via:
            claims.append(statement.target in _groups(form, shape, inputs, record))
    return _any(claims)


def _groups(form: Held, shape: str, inputs: set[str], record: Record) -> set[Target]:
    """The groups, as targets, that membership directives put these identifiers in."""
    members = (s for s in record.in_force if s.kind == form.via and s.target[0] == shape and s.target[1] in inputs)
    return {(form.group, s.has(form.group)) for s in members}


def _hits(value: Any, inputs: set[str]) -> Claim:
    """Whether a word is one of the inputs, or one of them an instant of an interval."""
    if not inputs:
        return None
    if not isinstance(value, tuple):
        return value in inputs
    instants = map(parse_instant, inputs)
    return _any([None if instant is None else value[0] <= instant < value[1] for instant in instants])


def _elapsed(fact: Fact, form: Elapsed, request: Request, record: Record, at: float) -> Value:
    if form.since.steps[0] == "record":
        since = record.instant(form.since.steps)
    else:
        value = _input(form.since, request)
        since = parse_instant(value) if isinstance(value, str) else None
    due = None if since is None else deadline(since, form.unit, form.amount, record.zone)
    return fact.absent if due is None else due <= at


def _cell(fact: Fact, form: Cell, request: Request) -> Value:
    row, column = cell_place(form, request)
    if row is None or column is None:
        return fact.absent
    letter = form.grid.rows.get(row, {}).get(column)
    return fact.unknown if letter is None else form.letters[letter]


def cell_place(form: Cell, request: Request) -> tuple[str | None, str | None]:
    """The row and the column that a request leads to: nothing where the input is absent, `""` where nobody knows it."""
    row = _input(form.row, request)
    if form.column is None:
        column: str | None = form.fixed_column
    else:
        code = _input(form.column, request)
        column = None if code is None else form.column_of.get(code, "") if isinstance(code, str) else ""
    return (row if row is None or isinstance(row, str) else ""), column
