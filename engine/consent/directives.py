"""Directives: dated, sourced statements in a patient's record. Appended, never edited.

A directive grants, refuses, blocks, masks or withdraws; `engine.consent.fold` says what all of one patient's amount to at an instant. This module
parses one and refuses what the pack does not declare. It keeps nothing: stores do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from engine.calendar import FOREVER, end_of_day, parse_date, parse_instant, start_of_day
from engine.errors import RequestError, shown, suggest
from engine.vocabulary import Kind, Vocabulary

Interval: TypeAlias = tuple[float, float]
Target: TypeAlias = tuple[str, str | Interval | None]
"""A form and its value: ("professional", "10000000017"), ("deposited", (from, until)), ("everybody", None)."""

EVERYBODY = "everybody"
"""The form of a target that names nobody in particular."""
OWN = {"kind", "target", "withdraw", "from", "until", "revision", "recorded", "recorded_by", "capacity", "basis", "id"}
"""What every directive may have; anything else is a property that its kind declares."""
DATED = "must be a date, or a date and time with its offset"
SUCH = "such as 2026-11-21 or 2026-11-21T10:00:00+01:00"


@dataclass(frozen=True, slots=True)
class Directive:
    """One statement. In force when `start <= instant < end`; `revision` is its place in the patient's record.

    `withdraw`: from this revision on, whatever the clock says, earlier directives of the same kind and target (narrowed by the same words or by none; of the
    same other properties, where it states some) no longer hold.
    """

    kind: str
    targets: tuple[Target, ...]
    revision: int
    start: float = -FOREVER
    end: float = FOREVER
    withdraw: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)


def parse_directives(data: Any, vocabulary: Vocabulary, where: str = "directives", *, kept: bool = False) -> tuple[Directive, ...]:
    """Build a patient's directives from decoded JSON, oldest first; a revision left out is the place in the list, from 1.

    `kept`: they were accepted once, as for `parse_directive`.
    """
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        raise RequestError(where, "must be a list of directives")
    made = [parse_directive(item, vocabulary, place, f"{where}[{place - 1}]", kept=kept) for place, item in enumerate(data, 1)]
    revisions = [directive.revision for directive in made]
    if len(set(revisions)) != len(revisions):
        raise RequestError(where, "two directives have the same revision", "number them in the order they were recorded")
    return tuple(sorted(made, key=lambda directive: directive.revision))


def parse_directive(
    data: Any, vocabulary: Vocabulary, revision: int = 1, where: str = "directive", *, at: float | None = None, kept: bool = False
) -> Directive:
    """Build one directive from decoded JSON; raises `RequestError` for what the pack does not declare.

    `at` is the instant at which it is recorded; left out, its own `recorded`, if it has one. `kept`: it was accepted once, and stands: its dates, words and
    rows are not looked at again. A fact that cannot read one takes the value that refuses.
    """
    if not isinstance(data, Mapping):
        raise RequestError(where, "must be an object")
    if data.get("kind") is None:
        raise RequestError(f"{where}.kind", "is missing")
    word = _word(data["kind"], f"{where}.kind")
    kind = vocabulary.kinds.get(word)
    if kind is None:
        raise RequestError(f"{where}.kind", f"{shown(word)} is not a kind of directive", suggest(word, vocabulary.kinds))
    for key in data:
        if key not in OWN and key not in kind.properties:
            raise RequestError(where, f"a directive of kind `{kind.name}` has no {shown(key)}", suggest(str(key), (*kind.properties, *OWN)))
    properties = {key: _word(value, f"{where}.{key}") for key, value in data.items() if key not in OWN}
    if kind.group and kind.group not in properties and not data.get("withdraw"):
        raise RequestError(f"{where}.{kind.group}", "is missing", "a membership names its group")
    number = data.get("revision", revision)
    if isinstance(number, str) and re.fullmatch(r"[0-9]{1,18}", number):
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise RequestError(f"{where}.revision", "must be a whole number from 1")
    withdraw = data.get("withdraw", False)
    if not isinstance(withdraw, bool):
        raise RequestError(f"{where}.withdraw", "must be true or false")
    for bound in ("from", "until"):
        if withdraw and data.get(bound) is not None:
            help = "leave it out, or record the withdrawal later"
            raise RequestError(f"{where}.{bound}", "a withdrawal holds from its revision on, whatever the clock says", help)
    start = _bound(data.get("from"), -FOREVER, start_of_day, vocabulary.time_zone, f"{where}.from")
    end = _bound(data.get("until"), FOREVER, end_of_day, vocabulary.time_zone, f"{where}.until")
    if end <= start:
        raise RequestError(f"{where}.until", "is not after `from`")
    targets = _targets(data.get("target"), kind, vocabulary.time_zone, f"{where}.target")
    for key, forms in kind.narrows.items():
        if key in properties and targets[0][0] not in forms:
            aimed = " or ".join(f"`{form}`" for form in forms)
            raise RequestError(f"{where}.{key}", f"narrows a target {aimed}, and this one is `{targets[0][0]}`", "leave it out, or aim at what it narrows")
    made = Directive(kind.name, targets, number, start, end, withdraw, properties, {key: value for key, value in data.items() if key in OWN})
    if not (kept or withdraw):  # what nobody would accept today can still be withdrawn
        recorded = data.get("recorded")
        _check_new(made, kind, vocabulary.time_zone, parse_instant(recorded) if at is None and isinstance(recorded, str) else at, where)
    return made


def _check_new(directive: Directive, kind: Kind, zone: str, at: float | None, where: str) -> None:
    """Refuse a new statement that would be recorded and mean nothing, or something else. No sentence repeats a date: it may be of a birth."""
    for key in (key for key in kind.dates if key in directive.properties):
        instant = instant_of(directive.properties[key], zone)
        if instant is None:
            raise RequestError(f"{where}.{key}", DATED, SUCH)
        if at is not None and not instant <= at:
            raise RequestError(f"{where}.{key}", "is yet to come", "record it once it is past, or mend the year")
    for key, words in kind.words.items():
        if (word := directive.properties.get(key)) is not None and word not in words:
            raise RequestError(f"{where}.{key}", f"{shown(word)} is not a word of this kind", suggest(word, words) or "it takes " + ", ".join(words))
    for form, value in directive.targets:
        grid = kind.rows.get(form)
        if grid is not None and value not in grid.rows:
            help = suggest(str(value), grid.rows) or "look in its first column"
            raise RequestError(f"{where}.target.{form}", f"{shown(str(value))} is not a row of `{grid.file}`", help)


def instant_of(text: str, zone: str) -> float | None:
    """The instant of a date, from its midnight, or of a date and time with its offset; nothing for any other text."""
    day = parse_date(text)
    return parse_instant(text) if day is None else start_of_day(day, zone)


def _word(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RequestError(where, "must be text that is not blank")
    return value


def _bound(value: Any, otherwise: float, of_day: Any, zone: str, where: str) -> float:
    """An instant, or a whole day: its start for `from`, the instant after it for `until`."""
    if value is None:
        return otherwise
    if isinstance(value, str):
        if (instant := parse_instant(value)) is not None:
            return instant
        if (day := parse_date(value)) is not None:
            return of_day(day, zone)
    raise RequestError(where, DATED, SUCH)


def _targets(value: Any, kind: Kind, zone: str, where: str) -> tuple[Target, ...]:
    forms = kind.targets
    takes = "it takes " + ", ".join(forms)
    if value is None and EVERYBODY not in forms:
        raise RequestError(where, "is missing", takes)
    if value is None:
        return ((EVERYBODY, None),)
    if not isinstance(value, Mapping) or len(value) != 1:
        raise RequestError(where, "must be one form and its value", f"such as {{{forms[0]}: ...}}")
    form, named = next(iter(value.items()))
    if form not in forms:
        raise RequestError(where, f"{shown(form)} is not a target of this kind", suggest(str(form), forms) or takes)
    if form == EVERYBODY:
        return ((EVERYBODY, None),)
    if form in kind.intervals:
        if not isinstance(named, Mapping) or not any(named.values()) or not named.keys() <= {"from", "until"}:
            raise RequestError(f"{where}.{form}", "must have `from`, `until` or both, and nothing else")
        start = _bound(named.get("from"), -FOREVER, start_of_day, zone, f"{where}.{form}.from")
        end = _bound(named.get("until"), FOREVER, end_of_day, zone, f"{where}.{form}.until")
        if end <= start:
            raise RequestError(f"{where}.{form}.until", "is not after `from`")
        return ((form, (start, end)),)
    several = named if isinstance(named, list) else [named]
    if not several:
        raise RequestError(f"{where}.{form}", "names nobody")
    return tuple((form, _word(one, f"{where}.{form}")) for one in several)
