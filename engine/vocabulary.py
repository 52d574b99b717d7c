"""What a rule may speak of: the facts, in seven forms, and the kinds of directives behind them.

These are the engine's own types, frozen, with nothing left to look up: settings are resolved, code lists and grids are in place. `engine.pack` builds them from
the pack's files; `engine.facts` says what each form computes; `engine.evaluator.readers` computes the same fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from engine.evaluator.conditions import Condition

Value: TypeAlias = bool | str
"""A value of a fact: true or false, or one of the words that the fact declares."""


NEVER = "never"
"""The first step of a path that leads nowhere: it is no part of a request."""


@dataclass(frozen=True, slots=True)
class Path:
    """Where an input is: `subject.profession`, `action.target.id`, `record.identity.birth_date`.

    `by_action` gives the steps for one action where an alias depends on it; `steps` serve the others. `id` is the identifier of an entity;
    anything else is one of its properties.
    """

    text: str
    steps: tuple[str, ...]
    by_action: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text

    def for_action(self, action: str) -> tuple[str, ...]:
        return self.by_action.get(action, self.steps)


@dataclass(frozen=True, slots=True)
class Given:
    """An attribute of the request. `text`: true when it is text that is not blank. `setting`: a value of the pack instead, always the same."""

    of: Path
    text: bool = False
    setting: Value | None = None


@dataclass(frozen=True, slots=True)
class Same:
    """Two identifiers are equal; of a list, any. Two absent ones never are."""

    left: Path
    right: Path


@dataclass(frozen=True, slots=True)
class Member:
    """A value is among these; of a list, any, where `several` says that there may be a list."""

    of: Path
    among: frozenset[str]
    several: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A directive of `kind` is in force (or, `ended`, once was) whose target is `of`.

    `of` maps a form of target to the input compared with it; `everybody` alone stands for a directive that aims at nobody in particular. `where` are
    properties that the directive must have: a constant, or a path of the request. `narrowed` are those that it may have, each a path of the request: a
    directive that has one holds only where the input is that very word. `via` names the kind of membership directives that put the target in a `group`.
    """

    kind: str
    of: tuple[tuple[str, Path | None], ...]
    where: tuple[tuple[str, str | Path], ...] = ()
    via: str | None = None
    group: str = ""
    ended: bool = False
    narrowed: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class Elapsed:
    """At least `amount` `unit` (days, months, years of the calendar in the pack's time zone) have passed since an instant."""

    since: Path
    unit: str
    amount: int


@dataclass(frozen=True, slots=True)
class Coded:
    """What a code list says of a code; of a list of codes, true when it says so of any, where `several` says that there may be a list."""

    of: Path
    codes: Mapping[str, Value]
    several: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid: letters by (row, column), and which letters are inferred."""

    name: str
    file: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]
    inferred: frozenset[str]
    labels: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell of a grid says: the row of one input, the column that a code list gives for another (or always the same one)."""

    grid: Grid
    row: Path
    column: Path | None
    column_of: Mapping[str, str]
    fixed_column: str | None
    letters: Mapping[str, Value]


Form: TypeAlias = Given | Same | Member | Held | Elapsed | Coded | Cell


@dataclass(frozen=True, slots=True)
class Fact:
    """A named value that a rule may use.

    `values` are all it can take, false before true. `absent` is its value when an input is missing, `unknown` when an input is there and nobody knows it.
    `conditional` maps a value to the condition that decides whether it counts as true (a cell that names a condition).
    """

    name: str
    form: Form
    values: tuple[Value, ...]
    absent: Value
    unknown: Value
    about: str = ""
    vouched: str = ""
    changeable: bool = False
    conditional: Mapping[str, Condition] = field(default_factory=dict)

    @property
    def is_boolean(self) -> bool:
        return self.values[:2] == (False, True)

    @property
    def constant(self) -> Value | None:
        """The value of a fact that is a setting; nothing for the others."""
        return self.form.setting if isinstance(self.form, Given) else None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of directive: the forms of its target, its properties, the kinds it withdraws, the property that names a group, the forms that are intervals.

    `narrows` maps a property to the forms of target that it narrows: with it, a directive holds for less. What follows is asked of new directives alone, since
    what was accepted stands: `dates` are properties that are a date or an instant, not to come when it is recorded (all that an `elapsed` fact reads are);
    `words` maps a property to all the words it takes, `rows` a form of target to the grid of which it names a row, `not_after` a date to those of the record
    before which it lies.
    """

    name: str
    targets: tuple[str, ...]
    properties: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    group: str | None = None
    intervals: tuple[str, ...] = ()
    narrows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dates: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: Mapping[str, Grid] = field(default_factory=dict)
    not_after: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Act:
    """A directive that a permitted action records, where `when` holds.

    `target` is a path to an object `{type, id}` (or `{type, from, until}`) or a form and the path to its value; nothing: everybody. `until` is a path;
    without one there, `days` after the
    act, 0 being no end. `properties` are words or paths; one whose input is missing is left out, unless it is `required`. `text` is `when` as it is written.
    """

    kind: str
    when: Condition | None = None
    withdraw: bool = False
    target: Path | tuple[str, Path] | None = None
    from_now: bool = False
    until: Path | None = None
    days: int = 0
    properties: tuple[tuple[str, str | Path], ...] = ()
    text: str = ""
    required: tuple[str, ...] = ()

    def __str__(self) -> str:
        target = self.target[1] if isinstance(self.target, tuple) else self.target
        said = [f"{'withdraws' if self.withdraw else 'records'} {self.kind}" + (f" of {target}" if target else "")]
        said += [f"when {self.text}"] if self.text else []
        said += ["from now"] if self.from_now else []
        said += [f"until {self.until}"] if self.until else []
        said += [f"for {self.days} days"] if self.days else []
        return ", ".join([*said, *(f"{key} {word}" + (", required" if key in self.required else "") for key, word in self.properties)])


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All that a pack can speak of. `actions` maps an action to what it is about (`document`, `record`); `acts` to the directives that it records."""

    subjects: tuple[str, ...]
    actions: Mapping[str, str]
    facts: Mapping[str, Fact]
    kinds: Mapping[str, Kind]
    grids: Mapping[str, Grid]
    impossible: Mapping[str, Condition]
    time_zone: str
    patient: Path | None = None
    acts: Mapping[str, tuple[Act, ...]] = field(default_factory=dict)
