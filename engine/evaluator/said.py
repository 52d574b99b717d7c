"""What a folded record says, in bits of a slice's packed situation: worked out once for each record, then kept with it.

A statement aims at an identifier, and a request has identifiers in a few inputs. So what a record says is a dictionary for each such input, from identifier to
bits; most records say nothing through most inputs. `engine.facts` is the definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from msgspec import structs

from engine.calendar import deadline, parse_instant
from engine.consent.fold import Record, Statement
from engine.evaluator.tables import Tables
from engine.vocabulary import Elapsed, Fact, Held, Path

Steps: TypeAlias = tuple[str, ...]


def _texts(value: Any) -> list[str]:
    """The identifiers in an input: the texts that are not blank, of a list or alone."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one.strip()]


class Said(dict[str, int]):
    """What a record says through one input: bits by identifier. `absent`: the bits of a request that has no identifier there."""

    __slots__ = ("absent",)

    def __init__(self) -> None:
        self.absent = 0

    def of(self, value: Any) -> int:
        """The bits of any value: of a list those of each, of nothing, of blank text and of what is no text `absent`."""
        words = _texts(value)
        made = 0 if words else self.absent
        for word in words:
            made |= self.get(word) or 0
        return made


class Spans(Said):
    """The same where a record speaks of intervals too. `intervals`: start, end, the bits of an instant between them, the bits of what is no instant."""

    __slots__ = ("intervals",)

    def __init__(self, said: Mapping[str, int], absent: int):
        super().__init__()
        self.update(said)
        self.absent = absent
        self.intervals: list[tuple[float, float, int, int]] = []

    def get(self, word: str, _default: Any = None) -> int:  # type: ignore[override]
        made, instant = super().get(word, 0), parse_instant(word)
        for start, end, bit, doubt in self.intervals:
            if instant is None:
                made |= doubt
            elif start <= instant < end:
                made |= bit
        return made


@dataclass(frozen=True, slots=True)
class _Aim:
    """What statements of one kind and form of target mean for one fact.

    `place` says through which input, `bit` is the fact being true, `doubt` its value where that input is absent.
    """

    fact: Held
    place: int
    bit: int
    doubt: int

    def takes(self, statement: Statement) -> bool:
        """Whether the statement has what the fact asks for. Of those that are narrowed `Narrowed` tells."""
        if self.fact.narrowed and any(statement.has(key) is not None for key, _ in self.fact.narrowed):
            return False
        return not self.fact.where or all(statement.has(key) == wanted for key, wanted in self.fact.where)


EVERYBODY = -1
"""The place of statements that aim at nobody in particular."""


class Plans:
    """What records say of the facts of a slice, for one action. Called with a record, makes its plan and keeps it with the record.

    A plan is the bits that the record settles alone; then for each of `inputs` what it says through it, or nothing; then for each of `asked`, facts that
    need the whole request, whether the record has any statement for them; then for each of `narrowed` what it says of some requests only, or nothing.
    """

    def __init__(self, held: Iterable[Fact], of_record: Sequence[Fact], tables: Tables, action: str):
        self.inputs: list[Steps] = []
        self.asked: list[Fact] = []
        self.narrowed: list[Narrowed] = []
        self._aims: tuple[dict[tuple[str, str], list[_Aim]], ...] = ({}, {})  # by kind and form of target: of statements in force, of ended ones
        self._groups: list[tuple[_Aim, dict[str, int]]] = []
        self._elapsed = [(fact.form, tables.code(fact.name, True), tables.code(fact.name, fact.absent)) for fact in of_record]
        for fact in held:
            form: Held = fact.form  # type: ignore[assignment]
            if any(isinstance(wanted, Path) for _, wanted in form.where):
                self.asked.append(fact)
            else:
                self._add(form, tables.code(fact.name, True), tables.code(fact.name, fact.absent), action)
                if form.narrowed:
                    self.narrowed.append(Narrowed(fact, tables, action))

    def _add(self, form: Held, bit: int, doubt: int, action: str) -> None:
        places: dict[str, int] = {}
        for shape, path in form.of:
            places[shape] = self._place(path.for_action(action)) if path else EVERYBODY
            self._aims[form.ended].setdefault((form.kind, shape), []).append(_Aim(form, places[shape], bit, doubt))
        if form.via:
            self._groups.append((_Aim(form, 0, bit, doubt), places))

    def _place(self, steps: Steps) -> int:
        if steps not in self.inputs:
            self.inputs.append(steps)
        return self.inputs.index(steps)

    @property
    def settles(self) -> bool:
        """Whether a record has anything to say at all."""
        return bool(self._elapsed or self._aims[0] or self._aims[1] or self.asked)

    def __call__(self, record: Record) -> tuple[Any, ...]:
        said: list[Said | None] = [None] * len(self.inputs)
        bits = 0
        for form, true, absent in self._elapsed:
            bits |= _elapsed(form, record, true, absent)  # type: ignore[arg-type]
        for statements, aims in zip((record.in_force, record.ended), self._aims, strict=True):
            for statement in statements if aims else ():
                for aim in aims.get((statement.kind, statement.target[0]), ()):
                    if aim.takes(statement):
                        if aim.place == EVERYBODY:
                            bits |= aim.bit
                        else:
                            said[aim.place] = _tell(said[aim.place], statement.target[1], aim)
        for aim, places in self._groups:
            _tell_members(said, record, aim, places)
        kinds = [{s.kind for s in statements} for statements in (record.in_force, record.ended)] if self.asked else []
        asked = [fact.form.kind in kinds[fact.form.ended] for fact in self.asked]  # type: ignore[union-attr]
        plan = record.index[self] = (bits, *said, *asked, *(one.of(record) for one in self.narrowed))
        return plan


def _elapsed(form: Elapsed, record: Record, true: int, absent: int) -> int:
    """An `elapsed` fact of the record: it does not turn before `holds_until`."""
    since = record.instant(form.since.steps)
    due = None if since is None else deadline(since, form.unit, form.amount, record.zone)
    return absent if due is None else true if due <= record.at else 0


def _tell(said: Said | None, value: Any, aim: _Aim) -> Said:
    """Add what one statement says through an input."""
    said = Said() if said is None else said
    said.absent |= aim.doubt
    if not isinstance(value, tuple):
        said[value] = dict.get(said, value, 0) | aim.bit
        return said
    spans = said if isinstance(said, Spans) else Spans(said, said.absent)
    spans.intervals.append((*value, aim.bit, aim.doubt))
    return spans


def _tell_members(said: list[Said | None], record: Record, aim: _Aim, places: Mapping[str, int]) -> None:
    """Add the members of the groups that a fact's statements name. Nobody's being absent is in doubt for that."""
    form = aim.fact
    statements = record.ended if form.ended else record.in_force
    groups = {s.target[1] for s in statements if s.kind == form.kind and s.target[0] == form.group and aim.takes(s)}
    for member in record.in_force if groups else ():
        shape, word = member.target
        place = places.get(shape, EVERYBODY)
        if member.kind == form.via and place != EVERYBODY and isinstance(word, str) and member.has(form.group) in groups:
            known = said[place] = said[place] if said[place] is not None else Said()
            known[word] = dict.get(known, word, 0) | aim.bit


# --- narrowed statements ---------------------------------------------------------------------------------------------


class Narrowed:
    """A fact whose statements may be narrowed. Those with the same words say together what they would say without them, where a request has the words.

    `words` are the inputs compared with these, `inputs` those compared with targets.
    """

    def __init__(self, fact: Fact, tables: Tables, action: str):
        form: Held = fact.form  # type: ignore[assignment]
        self.form, self.refuses = form, fact.absent is True
        self.words = [path.for_action(action) for _, path in form.narrowed]
        self._plans = Plans([replace(fact, form=replace(form, narrowed=()))], (), tables, action)
        self.inputs = self._plans.inputs

    def of(self, record: Record) -> Sayings | None:
        """What the narrowed statements of a record say of this fact; nothing when there are none."""
        form, groups = self.form, dict[tuple[str | None, ...], list[Statement]]()
        for statement in record.ended if form.ended else record.in_force:
            words = tuple(statement.has(key) for key, _ in form.narrowed)
            if statement.kind == form.kind and any(words):
                groups.setdefault(words, []).append(statement)
        return Sayings([(words, self._plans(self._part(record, several))) for words, several in groups.items()], self.refuses) if groups else None

    def _part(self, record: Record, several: Sequence[Statement]) -> Record:
        """A record of these statements, and of who is in which group."""
        members = tuple(one for one in record.in_force if one.kind == self.form.via)
        in_force, ended = (members, tuple(several)) if self.form.ended else ((*members, *several), ())
        return structs.replace(record, in_force=in_force, ended=ended, index={})


@dataclass(frozen=True, slots=True)
class Sayings:
    """What a record says of one fact, with the words of a request that each saying is for. `refuses`: it is for a request without such a word too."""

    several: Sequence[tuple[tuple[str | None, ...], tuple[Any, ...]]]
    refuses: bool

    def of(self, words: Sequence[Any], inputs: Sequence[Any]) -> int:
        """The bits of a request: the inputs that words are compared with, and those that targets are."""
        bits, given = 0, [_texts(one) for one in words]
        for wanted, (settled, *said) in self.several:
            if all(word is None or (word in texts if texts else self.refuses) for word, texts in zip(wanted, given, strict=True)):
                bits |= settled
                for one, value in zip(said, inputs, strict=True):
                    bits |= one.of(value) if one is not None else 0
        return bits
