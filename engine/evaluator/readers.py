"""Facts, fast: a request and a folded record straight into the packed situation of a slice.

`engine.facts` is the definition; this computes the same with one look-up per *input* instead of one computation per fact. Whatever depends on one
input alone is a dictionary from its words to bits of the packed situation; what the record says of an identifier is bits kept with the record.
Property tests compare the two on whole requests with directives.

The look-ups of a slice and of its tables are written out as two Python functions, for one resource and for a list of them:

    status = of_resource.get('status')
    if status is not None:
        try:
            code |= bits_of_status[status]
        except (KeyError, TypeError):
            code |= bits_of_any_status(status)

A call for each input, however small, is most of the time otherwise: over distinct requests 5.3 microseconds a decision with a function for each input of the
record and two for the request, 2.4 written out, where a program written by hand takes 1.6. So every line has the usual values in it and leaves all others to a
function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, TypeAlias

from engine.calendar import deadline, parse_instant
from engine.consent.fold import Record
from engine.evaluator.said import Plans, Steps
from engine.evaluator.tables import Tables
from engine.facts import value_of, value_of_input
from engine.request import Action, Entity, Request
from engine.vocabulary import Cell, Coded, Elapsed, Fact, Given, Held, Member, Same

UNKNOWN = "\0"
"""A word that no pack declares: what it gives every fact is what any unknown word gives."""

MANY = 4096
"""How many lists of codes an input remembers before it starts again."""

NOTHING: Mapping[str, Any] = {}

Block: TypeAlias = list[str]


class Readers:
    """The functions of a slice for one action, being written. `before` are the lines that ask nothing of the resource, `each` the others.

    Their text holds no word of a pack but the names of properties, each as a `repr`; all values are bound to names.
    """

    def __init__(self, facts: Sequence[Fact], tables: Tables, action: str):
        self.tables, self.action = tables, action
        self.known: dict[str, Any] = {"Mapping": Mapping, "NOTHING": NOTHING}
        self.before: Block = []
        self.each: Block = []
        self._named: dict[Steps, str] = {}
        used = [fact for fact in facts if fact.name in tables.fields]
        of_record = [fact for fact in used if isinstance(fact.form, Elapsed) and fact.form.since.steps[0] == "record"]
        held = [fact for fact in used if isinstance(fact.form, Held)]
        self.plans = Plans(held, of_record, tables, action)
        self._request([fact for fact in used if fact not in of_record and fact not in held])
        self._record()

    # --- inputs ------------------------------------------------------------------------------------------------------

    def bind(self, value: Any) -> str:
        """A name for a value."""
        name = f"k{len(self.known)}"
        self.known[name] = value
        return name

    def block(self, *inputs: Steps) -> Block:
        """Where lines go that ask for these inputs."""
        return self.each if any(steps[0] == "resource" for steps in inputs) else self.before

    def input(self, steps: Steps) -> str:
        """A local variable that holds `request.look_up(steps)`."""
        if steps not in self._named:
            value = self._value(steps)
            self._named[steps] = f"i{len(self._named)}"
            self.block(steps).append(f"{self._named[steps]} = {value}")
        return self._named[steps]

    def _value(self, steps: Steps) -> str:
        """Python for `request.look_up(steps)`."""
        head, *rest = steps
        if head not in ("subject", "action", "resource", "context"):  # an alias that leads nowhere
            return "None"
        if rest == ["id"] and head in ("subject", "resource"):
            return f"{head}.id"
        if rest:
            return f"{self._mapping(steps[:-1])}.get({steps[-1]!r})"
        return "context" if head == "context" else f"{head}.properties"

    def _mapping(self, steps: Steps) -> str:
        """A local variable that holds the mapping at these steps, an empty one where there is something else."""
        key = (*steps, "")
        if steps == ("context",):
            return "context"
        if key not in self._named:
            if len(steps) == 1:
                self._named[key] = f"of_{steps[0]}"
                self.block(steps).append(f"of_{steps[0]} = {steps[0]}.properties")
            else:
                name = self.input(steps)
                self._named[key] = f"of_{name}"
                self.block(steps).append(f"of_{name} = {name} if {name}.__class__ is dict or isinstance({name}, Mapping) else NOTHING")
        return self._named[key]

    # --- facts of the request ----------------------------------------------------------------------------------------

    def _request(self, facts: Sequence[Fact]) -> None:
        by_input: dict[Steps, list[Fact]] = {}
        for fact in facts:
            match fact.form:
                case Given(of) | Member(of) | Coded(of):
                    by_input.setdefault(of.for_action(self.action), []).append(fact)
        for steps, group in by_input.items():
            self._one_input(steps, group)
        for fact in facts:
            match fact.form:
                case Same(left, right):
                    self._same(fact, left.for_action(self.action), right.for_action(self.action))
                case Cell():
                    self._cell(fact, fact.form)
                case Elapsed(since):
                    steps = since.for_action(self.action)
                    self.block(steps).append(f"code |= {self.bind(_elapsed(fact, fact.form, self.tables))}({self.input(steps)}, at, record.zone)")

    def _one_input(self, steps: Steps, facts: Sequence[Fact]) -> None:
        """Every `given`, `member` and `coded` fact of one input: a dictionary from its known words to bits."""
        of_value = _of_value(facts, self.tables)
        v, lists, absent = self.input(steps), {}, of_value(None)
        words = {word: of_value(word) for word in _words(facts)}
        other = self.bind(_of_any(of_value, lists))
        found = f"{self.bind(words)}[{v}]"
        if any(isinstance(fact.form, Member | Coded) and fact.form.several for fact in facts):
            found = f"{found} if {v}.__class__ is not list else {self.bind(lists)}[tuple({v})]"
        flags = any(fact.is_boolean and isinstance(fact.form, Given) and not fact.form.text for fact in facts)
        if flags:
            found = f"{self.bind({value: of_value(value) for value in (False, True)})}[{v}] if {v}.__class__ is bool else {found}"
        lines = ["try:", f"    code |= {found}", "except (KeyError, TypeError):", f"    code |= {other}({v})"]
        if not words and not flags:  # text: there or not
            nothing = f"{absent} if {v} is None else " if absent else ""
            lines = [f"code |= {of_value(UNKNOWN)} if {v}.__class__ is str and {v} and not {v}.isspace() else {nothing}{other}({v})"]
        if absent:
            words[None] = absent  # type: ignore[index]
        else:
            lines = [f"if {v} is not None:", *_indented(lines)]
        self.block(steps).extend(lines)

    def _same(self, fact: Fact, left: Steps, right: Steps) -> None:
        a, b, true = self.input(left), self.input(right), self.tables.code(fact.name, True)
        other = f"code |= {self.bind(_same(fact, self.tables))}({a}, {b})"
        usual = f"if {a}.__class__ is str and {b}.__class__ is str"
        if fact.absent is False:  # two words that differ are false, blank or not
            lines = [f"{usual}:", f"    if {a} == {b} and {a} and not {a}.isspace():", f"        code |= {true}"]
            lines += [f"elif {a} is not None and {b} is not None:", f"    {other}"]
        else:
            lines = [f"{usual} and {a} and {b} and not {a}.isspace() and not {b}.isspace():", f"    if {a} == {b}:", f"        code |= {true}"]
            lines += ["else:", f"    {other}"]
        self.block(left, right).extend(lines)

    def _cell(self, fact: Fact, form: Cell) -> None:
        """The bits of a cell's letter. A column that is always the same is copied; of others, the letter is found in the grid itself: it may have a million."""
        row, rows = form.row.for_action(self.action), form.grid.rows
        bits = {letter: self.tables.code(fact.name, value) for letter, value in form.letters.items()}
        if form.column is None:
            column: str = form.fixed_column  # type: ignore[assignment]
            inputs = [row]
            found = f"{self.bind({word: bits[letters[column]] for word, letters in rows.items() if column in letters})}[{self.input(row)}]"
        else:
            inputs = [row, form.column.for_action(self.action)]
            column = f"{self.bind(form.column_of)}[{self.input(inputs[1])}]"
            found = f"{self.bind(bits)}[{self.bind(rows)}[{self.input(row)}][{column}]]"
        self.block(*inputs).extend(["try:", f"    code |= {found}", "except (KeyError, TypeError):", f"    code |= {self._defined(fact, *inputs)}"])

    def _defined(self, fact: Fact, *inputs: Steps) -> str:
        """The bits of a fact by its definition, of the whole request."""
        resource = "resource" if self.block(*inputs) is self.each else "None"
        return f"{self.bind(_by_definition(fact, self.tables))}(subject, action, {resource}, context, record, at)"

    # --- facts of the record -----------------------------------------------------------------------------------------

    def _record(self) -> None:
        for place, steps in enumerate(self.plans.inputs):
            v, said = self._named.get(steps, "v"), f"s{place}"
            lines = [f"if {v}.__class__ is str and {v} and not {v}.isspace():", f"    bits = {said}.get({v})", "    if bits:", "        code |= bits"]
            lines += ["else:", f"    code |= {said}.of({v})"]
            if steps not in self._named:  # no other fact asks for it
                lines = [f"v = {self._value(steps)}", *lines]
            self.block(steps).extend([f"if {said} is not None:", *_indented(lines)])
        for place, fact in enumerate(self.plans.asked, len(self.plans.inputs)):
            self.each.extend([f"if s{place}:", f"    code |= {self._defined(fact, ('resource',))}"])
        for place, narrowed in enumerate(self.plans.narrowed, len(self.plans.inputs) + len(self.plans.asked)):
            words, inputs = (", ".join(map(self._value, several)) for several in (narrowed.words, narrowed.inputs))
            self.block(*narrowed.words, *narrowed.inputs).extend([f"if s{place} is not None:", f"    code |= s{place}.of([{words}], [{inputs}])"])

    # --- functions ---------------------------------------------------------------------------------------------------

    def functions(self, answer: Callable[..., Any], runner: Any, outcomes: Sequence[Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """One resource to an `Answer`; a list of resources to their codes and the numbers of their outcomes."""
        outcome = self.tables.expression(self.bind)
        self.known |= {"Answer": answer, "runner": runner, "outcomes": outcomes, "plans": self.plans}
        places = len(self.plans.inputs) + len(self.plans.asked) + len(self.plans.narrowed)
        names = "code, " + "".join(f"s{place}, " for place in range(places))
        plan = ["try:", f"    {names}= record.index[plans]", "except KeyError:", f"    {names}= plans(record)"] if self.plans.settles else ["code = 0"]
        parts = [f"{part} = request.{part}" for part in ("subject", "action", "resource", "context")]
        one = [*plan, *parts, *self.before, *self.each, f"return Answer(request, record, at, runner, code, outcomes[{outcome}])"]
        each = ["code = common", *self.each, "codes.append(code)", f"numbers.append({outcome})"]
        many = [*plan, *self.before, "codes, numbers, common = [], [], code", "for resource in resources:", *_indented(each), "return codes, numbers"]
        text = ["def decide(request, record, at):", *_indented(one)]
        text += ["def decide_many(subject, action, resources, context, record, at):", *_indented(many)]
        exec(_compiled("\n".join(text)), self.known)
        return self.known["decide"], self.known["decide_many"]


def _indented(lines: Sequence[str]) -> Block:
    return ["    " + line for line in lines]


@lru_cache(maxsize=1024)
def _compiled(text: str) -> CodeType:
    """Slices that differ in their values alone have the same text."""
    return compile(text, "<facts of a slice>", "exec")


# --- all other values ------------------------------------------------------------------------------------------------


def _words(facts: Sequence[Fact]) -> set[str]:
    """The words that some of these facts know."""
    words: set[str] = set()
    for fact in facts:
        match fact.form:
            case Member(_, among):
                words |= among
            case Coded(_, codes):
                words |= codes.keys()
            case _:
                words |= {value for value in fact.values if isinstance(value, str)}
    return words


def _of_value(facts: Sequence[Fact], tables: Tables) -> Callable[[Any], int]:
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


def _same(fact: Fact, tables: Tables) -> Callable[[Any, Any], int]:
    true, absent = tables.code(fact.name, True), tables.code(fact.name, fact.absent)

    def bits(a: Any, b: Any) -> int:
        left, right = ({one for one in (v if isinstance(v, list) else [v]) if isinstance(one, str) and one.strip()} for v in (a, b))
        return absent if not left or not right else 0 if left.isdisjoint(right) else true

    return bits


def _elapsed(fact: Fact, form: Elapsed, tables: Tables) -> Callable[[Any, float, str], int]:
    true, absent = tables.code(fact.name, True), tables.code(fact.name, fact.absent)

    def bits(value: Any, at: float, zone: str) -> int:
        since = parse_instant(value) if isinstance(value, str) else None
        due = None if since is None else deadline(since, form.unit, form.amount, zone)
        return absent if due is None else true if due <= at else 0

    return bits


def _by_definition(fact: Fact, tables: Tables) -> Callable[..., int]:
    codes = [(value, tables.code(fact.name, value)) for value in fact.values]

    def bits(subject: Entity, action: Action, resource: Entity, context: Mapping[str, Any], record: Record, at: float) -> int:
        value = value_of(fact, Request(subject, action, resource, context), record, at)
        return next(code for one, code in codes if one is value or (one == value and isinstance(one, str)))

    return bits
