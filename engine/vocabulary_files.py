"""From what an officer wrote in vocabulary.toml and the sheets beside it to the engine's `Vocabulary`.

Resolves what the file leaves to be looked up: aliases of paths, settings, code lists, grids. Collects diagnostics; a vocabulary with one is never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from engine.consent.directives import OWN
from engine.errors import Diagnostic, shown, suggest
from engine.evaluator.check import attribute_problem, name_problem, parse_checked
from engine.evaluator.conditions import Condition, names
from engine.sheets import Sheet, read_sheet
from engine.specs import (
    ActSpec,
    AnyFact,
    CellSpec,
    CodedSpec,
    ConditionRef,
    ElapsedSpec,
    FactSpec,
    GivenSpec,
    GridSpec,
    HeldSpec,
    KindSpec,
    MemberSpec,
    SameSpec,
    Scalar,
    SettingTest,
    VocabularySpec,
)  # fmt: skip
from engine.toml_files import at_key
from engine.vocabulary import NEVER, Act, Cell, Coded, Elapsed, Fact, Form, Given, Grid, Held, Kind, Member, Path, Same, Value, Vocabulary

FILE = "vocabulary.toml"
OBJECTS = ("subject", "action", "resource", "context", "consent", "matrix")
INPUTS = ("subject", "action", "resource", "context")


def build_vocabulary(spec: VocabularySpec, settings: Mapping[str, Scalar], zone: str, files: Mapping[str, bytes], found: list[Diagnostic]) -> Vocabulary:
    """Build the vocabulary; mistakes are appended to `found`."""
    return _Builder(spec, settings, zone, files, found).build()


class _Builder:
    """The files, the settings and the diagnostics, shared by one method per form."""

    def __init__(self, spec: VocabularySpec, settings: Mapping[str, Scalar], zone: str, files: Mapping[str, bytes], found: list[Diagnostic]):
        self.spec, self.settings, self.zone, self.files, self.found = spec, settings, zone, files, found
        self.actions = {action: about for about, actions in spec.actions.items() for action in actions}
        self.lists = {name: self.sheet(one.file, ()) for name, one in spec.code_list.items()}
        self.grids = {name: self.grid(name, one) for name, one in spec.grid.items()}
        self.kinds = {name: self.kind(name, one) for name, one in spec.kind.items()}

    def report(self, code: str, message: str, where: tuple[str, ...] = (), help: str = "") -> None:
        self.found.append(at_key(FILE, self.files, where, code, message, help))

    def build(self) -> Vocabulary:
        self.check_names()
        self.check_aliases()
        facts = {}
        for object, members in self.spec.fact.items():
            for attribute, one in members.items():
                name = f"{object}.{attribute}"
                if object not in OBJECTS:
                    help = suggest(object, OBJECTS) or "they are " + ", ".join(OBJECTS)
                    self.report("fact-object", f"`{name}` is not in one of the six objects of a request", ("fact", object, attribute), help)
                if name in ("subject.type", "action.name"):
                    self.report("fact-name", f"`{name}` is always there: it cannot be declared again", ("fact", object, attribute), "leave it out")
                if problem := attribute_problem(attribute):
                    self.report("fact-name", f"`{name}` cannot be the name of a fact: {problem}", ("fact", object, attribute), "give it another name")
                facts[name] = self.fact(name, one) or _stand_in(name, one)
        patient = self.path("patient", ("alias", "patient")) if "patient" in self.spec.alias else None
        draft = Vocabulary(tuple(self.spec.subjects), self.actions, facts, self.kinds, self.grids, {}, self.zone, patient)
        conditions = {name: self.condition(text, draft, ("condition", name)) for name, text in self.spec.condition.items()}
        self.check_loops(facts, conditions)
        for name, fact in facts.items():
            if fact.conditional:
                bound = {value: conditions[value] for value in fact.values if isinstance(value, str) and conditions.get(value) is not None}
                facts[name] = Fact(fact.name, fact.form, fact.values, fact.absent, fact.unknown, fact.about, fact.vouched, fact.changeable, bound)  # type: ignore[arg-type]
        impossible = {name: self.condition(text, draft, ("impossible", name)) for name, text in self.spec.impossible.items()}
        possible = {name: tree for name, tree in impossible.items() if tree is not None}
        acts = {action: tuple(self.act(action, one, draft) for one in several) for action, several in self.spec.act.items()}
        return Vocabulary(draft.subjects, self.actions, facts, self.kinds, self.grids, possible, self.zone, patient, acts)

    def kind(self, name: str, spec: KindSpec) -> Kind:
        """A kind of directive. What an `elapsed` fact reads of it is a date, whether or not the kind says so."""
        read = [one.since.split(".") for facts in self.spec.fact.values() for one in facts.values() if isinstance(one, ElapsedSpec)]
        dates = [*spec.dates, *(steps[2] for steps in read if steps[:2] == ["record", name] and len(steps) == 3 and steps[2] in spec.properties)]
        rows = {form: self.grids[grid] for form, grid in spec.rows.items() if grid in self.grids}
        narrows, words = ({key: tuple(several) for key, several in said.items()} for said in (spec.narrows, spec.words))
        not_after = {key: tuple(("record", *other.split(".")) for other in others) for key, others in spec.not_after.items()}
        return Kind(
            name, tuple(spec.targets), tuple(spec.properties), tuple(spec.ends), spec.group, tuple(spec.intervals), narrows,
            tuple(dict.fromkeys(dates)), words, rows, not_after,
        )  # fmt: skip

    def act(self, action: str, spec: ActSpec, draft: Vocabulary) -> Act:
        """A directive that an action records; what is wrong with it is reported, and nothing is recorded of a pack that does not check."""
        where = ("act", action)
        if action not in self.actions:
            self.report("action-unknown", f"unknown action `{action}`", where, suggest(action, self.actions))
        kind = self.kinds.get(spec.kind)
        if kind is None:
            self.report("kind-unknown", f"unknown kind of directive `{spec.kind}`", where, suggest(spec.kind, self.kinds))
        for key in spec.properties:
            if kind and key not in kind.properties:
                self.report("property-unknown", f"a directive of kind `{spec.kind}` has no `{key}`", where, suggest(key, kind.properties))
            elif kind and not spec.properties[key].startswith("@"):
                self.check_word(kind, key, spec.properties[key], where)
        for key in spec.required:
            if key not in spec.properties:
                help = suggest(key, spec.properties) or "`required` names some of the act's `properties`"
                self.report("property-unknown", f"`{key}` is required, and the act does not record it", where, help)
        target: Path | tuple[str, Path] | None = None
        if isinstance(spec.target, str):
            target = self.path(spec.target, where)
        elif spec.target:
            (form, text), *_ = spec.target.items()
            if kind and form not in kind.targets:
                self.report("target-unknown", f"a directive of kind `{spec.kind}` has no target `{form}`", where, suggest(form, kind.targets))
            path = self.path(text, where)
            target = (form, path) if path else None
        days = self.settings.get(spec.days, 0) if spec.days else 0
        if spec.days and spec.days not in self.settings:
            self.report("setting-unknown", f"there is no setting `{spec.days}`", where, suggest(spec.days, self.settings))
        words: list[tuple[str, str | Path]] = []
        for key, word in spec.properties.items():
            read = self.path(word[1:], where) if word.startswith("@") else word
            if read is not None:
                words.append((key, read))
        when = self.condition(spec.when, draft, where) if spec.when else None
        until = self.path(spec.until, where) if spec.until else None
        length = days if isinstance(days, int) else 0
        return Act(spec.kind, when, spec.withdraw, target, spec.from_ == "now", until, length, tuple(words), spec.when, tuple(spec.required))

    def check_word(self, kind: Kind, key: str, word: str, where: tuple[str, ...]) -> None:
        """A word that a fact asks for or an act records is one of those that the kind declares, where it declares some."""
        words = kind.words.get(key, (word,))
        if word not in words:
            self.report("word-unknown", f"`{word}` is not a word of the `{key}` of a directive of kind `{kind.name}`", where, _close(word, words))

    def check_names(self) -> None:
        for what, words in (("subjects", self.spec.subjects), *(("actions." + about, actions) for about, actions in self.spec.actions.items())):
            for place, word in enumerate(words):
                if word in words[:place]:
                    self.report("name-repeated", f"`{word}` stands twice in `{what}`", tuple(what.split(".")), "keep one of them")
                if problem := name_problem(word):
                    self.report("name-plain", f"{shown(word)} is not a plain name", tuple(what.split(".")), problem)
        for about, actions in self.spec.actions.items():
            for action in actions:
                if self.actions[action] != about:
                    message = f"`{action}` is about `{about}` and about `{self.actions[action]}`"
                    self.report("name-repeated", message, ("actions", about), "an action is about one thing")
        for name, kind in self.kinds.items():
            for ended in kind.ends:
                if ended not in self.kinds:
                    self.report("kind-unknown", f"unknown kind of directive `{ended}`", ("kind", name, "ends"), _close(ended, self.kinds))
            for form in kind.intervals:
                if form not in kind.targets:
                    message = f"a directive of kind `{name}` has no target `{form}`"
                    self.report("target-unknown", message, ("kind", name, "intervals"), _close(form, kind.targets))
            for key in kind.properties:
                if key in OWN:
                    self.report("property-name", f"every directive has `{key}`: it cannot be a property", ("kind", name, "properties"), "give it another name")
            for what, keys in (("narrows", kind.narrows), ("dates", kind.dates), ("words", kind.words), ("not_after", kind.not_after)):
                for key in keys:
                    if key not in kind.properties:
                        help = suggest(key, kind.properties) or f"`{what}` names some of the kind's `properties`"
                        self.report("property-unknown", f"a directive of kind `{name}` has no `{key}`", ("kind", name, what), help)
            for what, several in (*(("narrows", forms) for forms in kind.narrows.values()), ("rows", self.spec.kind[name].rows)):
                for form in several:
                    if form not in kind.targets:
                        message = f"a directive of kind `{name}` has no target `{form}`"
                        self.report("target-unknown", message, ("kind", name, what), _close(form, kind.targets))
            for grid in self.spec.kind[name].rows.values():
                if grid not in self.grids:
                    self.report("grid-unknown", f"unknown grid `{grid}`", ("kind", name, "rows"), _close(grid, self.grids))
            for key, others in kind.not_after.items():
                if key in kind.properties and key not in kind.dates:
                    self.report("property-date", f"`{key}` of a directive of kind `{name}` is no date", ("kind", name, "not_after"), "add it to its `dates`")
                for _, *other in others:
                    known = self.kinds.get(other[0])
                    if known is None or len(other) != 2 or other[1] not in (*known.dates, "from", "until"):
                        help = "write KIND.PROPERTY with one of the kind's `dates`, `from` or `until`"
                        self.report("path-unknown", f"`{'.'.join(other)}` is no date of a record", ("kind", name, "not_after"), help)
            if kind.group and kind.narrows:
                help = "whoever is in a group is in it for everything"
                self.report("property-narrows", f"a directive of kind `{name}` puts somebody in a group: nothing narrows it", ("kind", name, "narrows"), help)
            if kind.group and kind.group not in kind.properties:
                help = suggest(kind.group, kind.properties) or "`group` names one of the kind's `properties`"
                self.report("property-unknown", f"a directive of kind `{name}` has no `{kind.group}`", ("kind", name, "group"), help)

    def check_aliases(self) -> None:
        for alias, bases in self.spec.alias.items():
            for key, base in bases.items():
                if key != "otherwise" and key not in self.actions and key not in self.spec.actions:
                    known = [*self.actions, *self.spec.actions, "otherwise"]
                    self.report("action-unknown", f"unknown action `{key}`", ("alias", alias, key), suggest(key, known))
                if base.split(".")[0] not in INPUTS:
                    self.report("path-unknown", f"`{base}` is not part of a request", ("alias", alias, key), "a path starts with " + ", ".join(INPUTS))

    def check_loops(self, facts: Mapping[str, Fact], conditions: Mapping[str, Condition | None]) -> None:
        """A cell names a condition that speaks of facts; none of them may be a cell that names it again."""
        asks = {name: {n.fact for n in names(tree)} for name, tree in conditions.items() if tree is not None}
        leads = {name: {other for fact in asked if fact in facts for other in facts[fact].conditional} for name, asked in asks.items()}
        for name in leads:
            seen: set[str] = set()
            waiting = list(leads[name])
            while waiting:
                one = waiting.pop()
                if one not in seen:
                    seen.add(one)
                    waiting += leads.get(one, ())
            if name in seen:
                help = "a condition cannot ask for the cell that names it"
                self.report("condition-loop", f"the condition `{name}` depends on itself", ("condition", name), help)

    def condition(self, text: str, vocabulary: Vocabulary, where: tuple[str, ...]) -> Any:
        before = len(self.found)
        tree = parse_checked(text, vocabulary, FILE, 0, 0, "", self.found)
        for one in self.found[before:]:  # placed again: the condition is inside a TOML string
            self.found[self.found.index(one)] = at_key(FILE, self.files, where, one.code, f"{one.message}, in `{text}`", one.help)
        return tree

    # --- sheets ---

    def sheet(self, file: str, needs: tuple[str, ...], keys: int = 1) -> Sheet:
        """A sheet whose first `keys` columns (those that it needs, when it needs some) name a row."""
        if file not in self.files:
            self.found.append(Diagnostic("file-missing", f"the file `{file}` is missing", file, help=f"{FILE} names it"))
            return Sheet(file, needs or ("",), ())
        sheet = read_sheet(file, self.files[file], needs, self.found)
        seen: dict[tuple[str, ...], int] = {}
        for row in sheet:
            key = tuple(row[name] for name in (needs or sheet.columns)[:keys])
            if not all(key):
                self.found.append(Diagnostic("row-unnamed", f"this row has no `{sheet.first}`", file, row.line, help="give it one, or remove it"))
            elif key in seen:
                message = f"the row {', '.join(map(shown, key))} stands twice, first on line {seen[key]}"
                self.found.append(Diagnostic("row-repeated", message, file, row.line, help="keep one of them"))
            seen.setdefault(key, row.line)
        return sheet

    def grid(self, name: str, spec: GridSpec) -> Grid:
        before = len(self.found)
        sheet = self.sheet(spec.file, ())
        whole = len(self.found) == before
        columns = tuple(column for column in sheet.columns[1:] if column != "label")
        rows: dict[str, dict[str, str]] = {}
        for row in sheet:
            for column in columns:
                letter = row[column]
                if letter not in spec.letters:
                    help = "a cell holds one of " + _list(one for one in spec.letters if one)
                    place = f"the cell `{row[sheet.first]}`, `{column}`"
                    message = f"unknown letter `{letter}` in {place}" if letter else f"{place} is empty"
                    self.found.append(Diagnostic("cell-letter", message, spec.file, row.line, help=help))
            rows.setdefault(row[sheet.first], {column: row[column] for column in columns})
        labels = {row[sheet.first]: row.cells.get("label", "") for row in sheet}
        inferred = frozenset(letter for letter, basis in spec.letters.items() if basis == "inferred")
        made = Grid(name, spec.file, columns, rows, inferred, labels, {})
        if spec.provenance is None:
            return made
        provenance = self.provenance(spec.provenance, made, spec.letters, whole)
        return Grid(name, spec.file, columns, rows, inferred, labels, provenance)

    def provenance(self, file: str, grid: Grid, bases: Mapping[str, str], whole: bool) -> dict[tuple[str, str], Mapping[str, str]]:
        """Where each cell comes from. A cell without a row, or whose letter says published while its row says inferred, is a mistake.

        Unless the `whole` grid could be read, its sheet is not compared with it.
        """
        sheet = self.sheet(file, ("type_code", "column", "basis"), keys=2)
        made: dict[tuple[str, str], Mapping[str, str]] = {}
        if not whole:
            return made
        for row in sheet:
            place = (row["type_code"], row["column"])
            letter = grid.rows.get(place[0], {}).get(place[1])
            if letter is None:
                known = grid.columns if place[0] in grid.rows else grid.rows
                help = suggest(place[1] if place[0] in grid.rows else place[0], known) or "remove this row, or add the cell"
                self.found.append(Diagnostic("cell-unknown", f"`{grid.file}` has no cell `{place[0]}`, `{place[1]}`", file, row.line, help=help))
            elif letter in bases and (letter in grid.inferred) != (row["basis"] == "inferred"):
                message = f"the cell `{place[0]}`, `{place[1]}` is written as {bases[letter]} (`{letter}`), and its basis is `{row['basis']}`"
                self.found.append(Diagnostic("cell-basis", message, file, row.line, help="change its letter, or its basis"))
            made[place] = {key: row[key] for key in sheet.columns[2:]}
        missing = [(row, column) for row, cells in grid.rows.items() for column in cells if (row, column) not in made]
        if missing and sheet.rows:
            message = f"cells of `{grid.file}` without a row here: {len(missing)}, the first is `{missing[0][0]}`, `{missing[0][1]}`"
            self.found.append(Diagnostic("cell-provenance", message, file, help="say where each cell comes from"))
        return made

    # --- paths ---

    def path(self, text: str, where: tuple[str, ...], of_record: bool = False) -> Path | None:
        """The path that a text means; nothing, and a diagnostic, when it means none. Only an `elapsed` fact reads the record."""
        head, *rest = text.split(".")
        if head in self.spec.alias:
            by_action = {}
            for key, base in self.spec.alias[head].items():
                steps = (*base.split("."), *rest)
                for action, about in self.actions.items():
                    if key == action or (key == about and action not in self.spec.alias[head]):
                        by_action[action] = steps
            otherwise = self.spec.alias[head].get("otherwise")
            steps = (*otherwise.split("."), *rest) if otherwise else (head, *rest)
            return Path(text, steps if otherwise else (NEVER, *steps), by_action)
        if head == "record" and of_record:
            if len(rest) != 2 or rest[0] not in self.kinds or rest[1] not in (*self.kinds[rest[0]].properties, "from", "until"):
                help = "write record.KIND.PROPERTY with a property that the kind declares, `from` or `until`"
                self.report("path-unknown", f"`{text}` is nothing that a record holds", where, help)
                return None
        elif head not in INPUTS or not rest or not all(rest):
            known = [*INPUTS, *self.spec.alias, *["record"][:of_record]]
            if head == "record":
                help = "only an `elapsed` fact reads the record"
            elif head in INPUTS:
                help = f"write {head}.NAME"
            else:
                help = suggest(head, known) or "a path starts with " + ", ".join(known)
            self.report("path-unknown", f"`{text}` is not part of a request", where, help)
            return None
        return Path(text, (head, *rest))

    # --- facts ---

    def fact(self, name: str, spec: AnyFact) -> Fact | None:
        where = ("fact", *name.split(".", 1))
        made: tuple[Form | None, tuple[Value, ...]]
        match spec:
            case GivenSpec():
                made = self.given(spec, where)
            case SameSpec():
                left, right = (self.path(one, (*where, "of")) for one in spec.of)
                made = (Same(left, right) if left and right else None), (False, True)
            case MemberSpec():
                of = self.path(spec.of, (*where, "of"))
                made = (Member(of, frozenset(spec.among), spec.several) if of else None), (False, True)
            case HeldSpec():
                made = self.held(spec, where), (False, True)
            case ElapsedSpec():
                made = self.elapsed(spec, where), (False, True)
            case CodedSpec():
                made = self.coded(spec, where)
            case CellSpec():
                made = self.cell(spec, where)
        form, values = made
        if form is None:
            return None
        self.check_values(spec, values, where)
        unknown = spec.absent if spec.unknown is None else spec.unknown
        named = {value: None for value in values if isinstance(value, str) and values[:2] == (False, True)}
        return Fact(name, form, values, spec.absent, unknown, spec.about, spec.from_, spec.changeable, named)  # type: ignore[arg-type]

    def check_values(self, spec: FactSpec, values: tuple[Value, ...], where: tuple[str, ...]) -> None:
        for key, value in (("absent", spec.absent), ("unknown", spec.unknown)):
            if value is not None and not any(value is one or (value == one and isinstance(one, str)) for one in values):
                help = "write it without quotes" if value in ("true", "false") and True in values else _takes(values)
                self.report("value-unknown", f"`{key}` is {shown(value)}, which is not a value of this fact", (*where, key), help)

    def given(self, spec: GivenSpec, where: tuple[str, ...]) -> tuple[Form | None, tuple[Value, ...]]:
        values: tuple[Value, ...] = tuple(spec.values) if spec.values else (False, True)
        for place, word in enumerate(spec.values or ()):
            if word in (spec.values or ())[:place]:
                self.report("name-repeated", f"`{word}` stands twice in `values`", (*where, "values"), "keep one of them")
        if spec.text and spec.values:
            self.report("value-unknown", "`text` makes this fact true or false", (*where, "values"), "leave out `values`, or `text`")
        if spec.of.startswith("setting."):
            name = spec.of.removeprefix("setting.")
            value = self.settings.get(name)
            if name not in self.settings:
                self.report("setting-unknown", f"there is no setting `{name}`", (*where, "of"), _close(name, self.settings))
                return None, values
            if value not in values or isinstance(value, bool) != (values == (False, True)):
                self.report("setting-value", f"the setting `{name}` is {shown(value)}, which is not a value of this fact", (*where, "of"), _takes(values))
                return None, values
            return Given(Path(spec.of, ("context", "")), False, value), values  # type: ignore[arg-type]
        of = self.path(spec.of, (*where, "of"))
        return (Given(of, spec.text) if of else None), values

    def held(self, spec: HeldSpec, where: tuple[str, ...]) -> Form | None:
        kind = self.kinds.get(spec.kind)
        if kind is None:
            self.report("kind-unknown", f"unknown kind of directive `{spec.kind}`", (*where, "kind"), _close(spec.kind, self.kinds))
            return None
        group, known = "", kind.targets
        if spec.via:
            member = self.kinds.get(spec.via)
            if member is None or not member.group:
                help = suggest(spec.via, [name for name, one in self.kinds.items() if one.group]) or "such a kind declares its `group`"
                self.report("kind-unknown", f"`{spec.via}` is not a kind of directive that puts somebody in a group", (*where, "via"), help)
                return None
            group, known = member.group, (*kind.targets, *member.targets)
            if group not in kind.targets and group in member.properties:
                message, help = f"a directive of kind `{spec.kind}` has no target `{group}`", f"`{spec.via}` puts somebody in a `{group}`"
                self.report("target-unknown", message, (*where, "via"), help)
        of: list[tuple[str, Path | None]] = []
        shapes = {"everybody": "everybody"} if spec.of == "everybody" else spec.of
        for shape, text in shapes.items():
            if shape not in known:
                help = _close(shape, known)
                self.report("target-unknown", f"a directive of kind `{spec.kind}` has no target `{shape}`", (*where, "of"), help)
            path = None if shape == "everybody" else self.path(text, (*where, "of"))
            if path or shape == "everybody":
                of.append((shape, path))
        conditions: list[tuple[str, str | Path]] = []
        for key, word in spec.where.items():
            if key not in kind.properties:
                help = suggest(key, kind.properties) or f"its kind declares {_list(kind.properties) or 'no properties'}"
                self.report("property-unknown", f"a directive of kind `{spec.kind}` has no `{key}`", (*where, "with"), help)
            if not word.startswith("@"):
                self.check_word(kind, key, word, (*where, "with"))
            wanted = self.path(word[1:], (*where, "with")) if word.startswith("@") else word
            if wanted is not None:
                conditions.append((key, wanted))
        narrowed = self.narrowed(spec, kind, {*shapes, group}, where)
        return Held(spec.kind, tuple(of), tuple(conditions), spec.via, group, spec.ended, narrowed)

    def narrowed(self, spec: HeldSpec, kind: Kind, shapes: Set[str], where: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
        """The inputs that narrow a kind's directives. INVARIANT: no fact takes a directive that is narrowed for one that is not."""
        made: list[tuple[str, Path]] = []
        for key, text in spec.narrowed.items():
            if key not in kind.narrows:
                help = suggest(key, kind.narrows) or "its kind declares " + (f"that {_list(kind.narrows)} does" if kind.narrows else "nothing that does")
                self.report("property-narrows", f"`{key}` does not narrow a directive of kind `{spec.kind}`", (*where, "narrowed"), help)
            path = self.path(text, (*where, "narrowed"))
            if path is not None:
                made.append((key, path))
        for key, forms in kind.narrows.items():
            if key not in spec.narrowed and not shapes.isdisjoint(forms):
                message = f"a directive of kind `{spec.kind}` may be narrowed by `{key}`, and this fact takes no notice"
                self.report("property-narrows", message, where, f'write narrowed = {{ {key} = "resource.{key}" }}, say')
        return tuple(made)

    def elapsed(self, spec: ElapsedSpec, where: tuple[str, ...]) -> Form | None:
        since = self.path(spec.since, (*where, "since"), of_record=True)
        (unit, amount), *_ = spec.at_least.items()
        value: Any = self.settings.get(amount) if isinstance(amount, str) else amount
        if isinstance(amount, str) and amount not in self.settings:
            self.report("setting-unknown", f"there is no setting `{amount}`", (*where, "at_least"), _close(amount, self.settings))
            return None
        if type(value) is not int or (value < 0 and value == amount):
            help = "write a whole number from 0, or a setting that is one"
            self.report("setting-value", f"{shown(value)} is not a number of {unit}", (*where, "at_least"), help)
            return None
        return Elapsed(since, unit, value) if since else None

    def coded(self, spec: CodedSpec, where: tuple[str, ...]) -> tuple[Form | None, tuple[Value, ...]]:
        codes: dict[str, Value] = dict(spec.codes or {})
        if (spec.codes is None) == (spec.code_list is None):
            self.report("key-missing", "a coded fact has either `codes`, or `list` and `column`", where, "say what each code stands for")
        elif spec.code_list is not None and not spec.column:
            help = _close("", self.lists[spec.code_list].columns) if spec.code_list in self.lists else ""
            self.report("key-missing", "a coded fact with a `list` has the `column` that it reads", where, help)
        elif spec.code_list is not None:
            column = self.column(spec.code_list, spec.column or "", (*where, "column"))
            codes = {code: (value in spec.among) if spec.among is not None else value for code, value in column.items()}
            for word in spec.among or ():
                if column and word not in column.values():
                    message = f"no code of the list has `{word}` in its column `{spec.column}`"
                    self.report("value-unknown", message, (*where, "in"), suggest(word, set(column.values())) or "choose a word of that column")
        if not spec.values:
            values: tuple[Value, ...] = (False, True)
            if any(isinstance(value, str) for value in codes.values()):
                help = "list the words, or write `in` for those that make it true"
                self.report("key-missing", "a coded fact whose codes give words has `values`", where, help)
                return None, values
        else:
            values = tuple(spec.values)
            if spec.several:
                self.report("value-unknown", "`several` makes this fact true or false", (*where, "values"), "leave out `values`, or `several`")
            for code, value in codes.items():
                if value not in values:
                    message = f"the code `{code}` gives {shown(value)}, which is not a value of this fact"
                    self.report("value-unknown", message, (*where, "values"), suggest(str(value), values) or _takes(values))
        of = self.path(spec.of, (*where, "of"))
        return (Coded(of, codes, spec.several) if of else None), values

    def column(self, name: str, column: str, where: tuple[str, ...]) -> dict[str, str]:
        """A column of a code list, by code; an empty cell gives nothing."""
        sheet = self.lists.get(name)
        if sheet is None:
            self.report("list-unknown", f"unknown code list `{name}`", where, _close(name, self.lists))
            return {}
        if sheet.rows and column not in sheet.columns:
            self.report("column-missing", f"the code list `{name}` has no column `{column}`", where, _close(column, sheet.columns))
            return {}
        return {row[sheet.first]: row[column] for row in reversed(sheet.rows) if row[column]}

    def cell(self, spec: CellSpec, where: tuple[str, ...]) -> tuple[Form | None, tuple[Value, ...]]:
        grid = self.grids.get(spec.grid)
        values: tuple[Value, ...] = tuple(spec.values) if spec.values else (False, True)
        if grid is None:
            self.report("grid-unknown", f"unknown grid `{spec.grid}`", (*where, "grid"), _close(spec.grid, self.grids))
            return None, values
        letters: dict[str, Value] = {}
        for letter, means in spec.letters.items():
            at, word = (*where, "letters"), f"the letter `{letter}`"
            if isinstance(means, SettingTest):
                if means.setting not in self.settings:
                    self.report("setting-unknown", f"there is no setting `{means.setting}`", at, _close(means.setting, self.settings))
                letters[letter] = self.settings.get(means.setting) == means.equals
            elif isinstance(means, ConditionRef):
                if means.condition not in self.spec.condition:
                    self.report("condition-unknown", f"unknown condition `{means.condition}`", at, _close(means.condition, self.spec.condition))
                letters[letter] = means.condition
                values += (means.condition,) if means.condition not in values else ()
            else:
                letters[letter] = means
                if means not in values:
                    self.report("value-unknown", f"{word} gives {shown(means)}, which is not a value of this fact", at, _takes(values))
            if spec.values and not isinstance(means, bool | str):
                self.report("value-unknown", f"{word} is true or false, and this fact is one of several words", at, "give it a word of `values`")
        for letter in self.spec.grid[spec.grid].letters:
            if letter not in letters:
                message = f"the letter `{letter}` of the grid `{spec.grid}` has no meaning for this fact"
                self.report("cell-letter", message, (*where, "letters"), "say what it stands for")
        row = self.path(spec.row, (*where, "row"))
        column, codes = None, {}
        if (spec.column is None) == (spec.column_is is None):
            self.report("key-missing", "a cell has either `column` or `column_is`", where, "say which column, or how to find it")
        elif spec.column is not None:
            column = self.path(spec.column.of, (*where, "column"))
            codes = self.column(spec.column.code_list, spec.column.column, (*where, "column"))
            for code, name in codes.items():
                if grid.rows and name not in grid.columns:
                    message = f"`{code}` leads to the column `{name}`, which `{grid.file}` has not"
                    self.report("column-missing", message, (*where, "column"), _close(name, grid.columns))
        elif grid.rows and spec.column_is not in grid.columns:
            message = f"`{grid.file}` has no column `{spec.column_is}`"
            self.report("column-missing", message, (*where, "column_is"), _close(spec.column_is or "", grid.columns))
        return (Cell(grid, row, column, codes, spec.column_is, letters) if row else None), values


def _stand_in(name: str, spec: AnyFact) -> Fact:
    """A fact with a mistake in it still has its name and its values, so that the rules that use it are checked for their own mistakes."""
    values: tuple[Value, ...] = tuple(getattr(spec, "values", None) or (False, True))
    return Fact(name, Given(Path("", ("context", ""))), values, values[0], values[0])


def _takes(values: Iterable[Value]) -> str:
    return "it takes " + ", ".join(map(shown, values))


def _list(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _close(word: str, known: Iterable[str]) -> str:
    """The help for an unknown word: the close one, or the first of all there are."""
    several = list(known)
    return suggest(word, several) or (f"there are {_list(several[:8])}" + (" ..." if len(several) > 8 else "") if several else "none is declared")
