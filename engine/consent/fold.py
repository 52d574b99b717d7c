"""Directives folded into a record: what all of one patient's statements amount to, up to a revision, at an instant.

Two clocks. The revision says what was known: a withdrawal holds from its own on. The instant says what is in force: from `start` until just before `end`.
A record is never reused from `holds_until` on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct, field

from engine.calendar import deadline, parse_instant
from engine.consent.directives import FOREVER, Directive, Target, instant_of
from engine.vocabulary import Elapsed, Vocabulary


@dataclass(frozen=True, slots=True)
class Statement:
    """One target of one directive: what is compared with an attribute of the request."""

    kind: str
    target: Target
    directive: Directive

    def has(self, key: str) -> Any:
        return self.directive.properties.get(key)


class Record(Struct, frozen=True, eq=False):
    """The record of one patient at an instant: statements in force, statements that no longer are, and until when this is true.

    `index` is where a compiled pack keeps its own view of the record (see `engine.evaluator.readers`); records are equal whatever is in it. A struct because
    one is made for each decision: time goes on.
    """

    at: float
    revision: int
    in_force: tuple[Statement, ...]
    ended: tuple[Statement, ...]
    holds_until: float
    zone: str
    index: dict[Any, Any] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and all(getattr(self, name) == getattr(other, name) for name in self.__struct_fields__ if name != "index")

    __hash__ = None  # type: ignore[assignment]

    def latest(self, kind: str) -> Directive | None:
        """The last recorded directive of a kind that is in force."""
        found = [s.directive for s in self.in_force if s.kind == kind]
        return max(found, key=lambda d: d.revision) if found else None

    def instant(self, steps: tuple[str, ...]) -> float | None:
        """The instant at `record.KIND.PROPERTY`; `from` (or else the instant it was recorded) and `until` are the directive's own.

        A date counts from its midnight. INVARIANT: a property that is yet to come is none: nothing can have passed since, so a fact takes its value for an
        input that is absent. Whoever would be born in 2999 is not a minor.
        """
        since = self.dated(steps)
        return None if since is not None and since > self.at and steps[2] not in ("from", "until") else since

    def dated(self, steps: tuple[str, ...]) -> float | None:
        """The same, past or to come."""
        _, kind, key = steps
        directive = self.latest(kind)
        if directive is None:
            return None
        if key in ("from", "until"):
            own = directive.start if key == "from" else directive.end
            if abs(own) != FOREVER:
                return own
            recorded = directive.source.get("recorded") if key == "from" else None
            return parse_instant(recorded) if isinstance(recorded, str) else None
        return instant_of(directive.properties.get(key, ""), self.zone)


def fold(directives: Iterable[Directive], vocabulary: Vocabulary, at: float, revision: int | None = None) -> Record:
    """Fold directives up to `revision` (all, when left out) at the instant `at`."""
    known = sorted((d for d in directives if revision is None or d.revision <= revision), key=lambda d: d.revision)
    in_force: list[Statement] = []
    ended: list[Statement] = []
    holds_until = FOREVER
    withdrawing = _withdrawing(known, vocabulary)
    for place, directive in enumerate(known):
        if directive.withdraw:
            continue
        for target in directive.targets:
            withdrawn = any(after > place and _withdraws(one, directive, vocabulary) for after, one in withdrawing.get(target, ()))
            if directive.start <= at and (withdrawn or directive.end <= at):
                ended.append(Statement(directive.kind, target, directive))
            elif directive.start <= at and not withdrawn:
                in_force.append(Statement(directive.kind, target, directive))
            edges = (directive.start,) if withdrawn else (directive.start, directive.end)  # one withdrawn before it starts has ended from then on
            holds_until = min([holds_until, *(edge for edge in edges if edge > at)])
    number = known[-1].revision if known else 0
    record = Record(at, number, tuple(in_force), tuple(ended), holds_until, vocabulary.time_zone)
    return _until(record, min([holds_until, *_deadlines(record, vocabulary)]))


def _withdrawing(known: Sequence[Directive], vocabulary: Vocabulary) -> dict[Target, list[tuple[int, Directive]]]:
    """The directives that may withdraw something, by target, each with its place: a record of thousands is folded in one pass."""
    made: dict[Target, list[tuple[int, Directive]]] = {}
    for place, directive in enumerate(known):
        if directive.withdraw or vocabulary.kinds[directive.kind].ends:
            for target in directive.targets:
                made.setdefault(target, []).append((place, directive))
    return made


def _withdraws(later: Directive, earlier: Directive, vocabulary: Vocabulary) -> bool:
    """Whether a later directive withdraws an earlier one of the same target: by `withdraw`, or because its kind ends that kind.

    What narrows a directive is part of what it aims at: a withdrawal is of that very one, and a kind ends what it covers.
    """
    over, under = _narrowing(later, vocabulary), _narrowing(earlier, vocabulary)
    if later.withdraw:
        return later.kind == earlier.kind and over == under and later.properties.items() <= earlier.properties.items()
    return earlier.kind in vocabulary.kinds[later.kind].ends and over.items() <= under.items()


def _narrowing(directive: Directive, vocabulary: Vocabulary) -> dict[str, str]:
    narrows = vocabulary.kinds[directive.kind].narrows
    return {key: directive.properties[key] for key in narrows if key in directive.properties}


def _deadlines(record: Record, vocabulary: Vocabulary) -> Iterator[float]:
    """The instants to come at which an `elapsed` fact about this record turns."""
    for fact in vocabulary.facts.values():
        if isinstance(fact.form, Elapsed) and fact.form.since.steps[0] == "record":
            since = record.dated(fact.form.since.steps)
            due = None if since is None else deadline(since, fact.form.unit, fact.form.amount, record.zone)
            yield from (edge for edge in (since, due) if edge is not None and edge > record.at)


def _until(record: Record, holds_until: float) -> Record:
    return Record(record.at, record.revision, record.in_force, record.ended, holds_until, record.zone)
