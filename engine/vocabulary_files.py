"""From what an officer wrote in vocabulary.toml and the sheets beside it to the engine's `Vocabulary`.

Resolves what the file leaves to be looked up: aliases of paths, settings, code lists, grids. Collects diagnostics; a vocabulary with one is never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import Diagnostic, suggest
from engine.evaluator.check import attribute_problem, parse_checked
from engine.sheets import Sheet, read_sheet
from engine.specs import (
    AnyFact, CellSpec, CodedSpec, ConditionRef, ElapsedSpec, FactSpec, GivenSpec, GridSpec, HeldSpec, MemberSpec, SameSpec, Scalar, SettingTest, VocabularySpec,
)  # fmt: skip
from engine.vocabulary import Cell, Coded, Elapsed, Fact, Form, Given, Grid, Held, Kind, Member, Path, Same, Value, Vocabulary

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
        self.kinds = {name: Kind(name, tuple(k.targets), tuple(k.properties), tuple(k.ends), k.group) for name, k in spec.kind.items()}
        self.lists = {name: self.sheet(one.file, ()) for name, one in spec.code_list.items()}
        self.grids = {name: self.grid(name, one) for name, one in spec.grid.items()}

    def report(self, code: str, message: str, where: tuple[str, ...] = (), help: str = "") -> None:
        from engine.pack import _at_key

        self.found.append(_at_key(FILE, self.files, where, code, message, help))

    def build(self) -> Vocabulary:
        self.check_names()
        facts = {}
        for object, members in self.spec.fact.items():
            for attribute, one in members.items():
                name = f"{object}.{attribute}"
                if object not in OBJECTS:
                    self.report("fact-object", f"`{name}` is not in one of the six objects of a request", ("fact", object), "they are " + ", ".join(OBJECTS))
                if name in ("subject.type", "action.name"):
                    self.report("fact-name", f"`{name}` is always there: it cannot be declared again", ("fact", object, attribute))
                if problem := attribute_problem(attribute):
                    self.report("fact-name", f"`{name}` cannot be the name of a fact: {problem}", ("fact", object, attribute))
                if (fact := self.fact(name, one)) is not None:
                    facts[name] = fact
        patient = self.path("patient", ("alias", "patient")) if "patient" in self.spec.alias else None
        draft = Vocabulary(tuple(self.spec.subjects), self.actions, facts, self.kinds, self.grids, {}, self.zone, patient)
        conditions = {name: self.condition(text, draft, ("condition", name)) for name, text in self.spec.condition.items()}
        for name, fact in facts.items():
            if fact.conditional:
                bound = {value: conditions[value] for value in fact.values if isinstance(value, str) and conditions.get(value) is not None}
                facts[name] = Fact(fact.name, fact.form, fact.values, fact.absent, fact.unknown, fact.about, fact.vouched, fact.changeable, bound)  # type: ignore[arg-type]
        impossible = {name: self.condition(text, draft, ("impossible", name)) for name, text in self.spec.impossible.items()}
        possible = {name: tree for name, tree in impossible.items() if tree is not None}
        return Vocabulary(draft.subjects, self.actions, facts, self.kinds, self.grids, possible, self.zone, patient)

    def check_names(self) -> None:
        for what, words in (("subjects", self.spec.subjects), *(("actions." + about, actions) for about, actions in self.spec.actions.items())):
            for place, word in enumerate(words):
                if word in words[:place]:
                    self.report("name-repeated", f"`{word}` stands twice in `{what}`", tuple(what.split(".")))
        if sum(map(len, self.spec.actions.values())) != len(self.actions):
            self.report("name-repeated", "an action is about two things", ("actions",))
        for name, kind in self.kinds.items():
            for ended in kind.ends:
                if ended not in self.kinds:
                    self.report("kind-unknown", f"unknown kind `{ended}`", ("kind", name, "ends"), suggest(ended, self.kinds))

    def condition(self, text: str, vocabulary: Vocabulary, where: tuple[str, ...]) -> Any:
        before = len(self.found)
        tree = parse_checked(text, vocabulary, FILE, 0, 0, "", self.found)
        for one in self.found[before:]:  # placed again: the condition is inside a TOML string
            from engine.pack import _at_key

            self.found[self.found.index(one)] = _at_key(FILE, self.files, where, one.code, f"{one.message}, in `{text}`", one.help)
        return tree

    # --- sheets ---

    def sheet(self, file: str, needs: tuple[str, ...]) -> Sheet:
        if file not in self.files:
            self.found.append(Diagnostic("file-missing", f"the file `{file}` is missing", file, help=f"{FILE} names it"))
            return Sheet(file, needs or ("",), ())
        sheet = read_sheet(file, self.files[file], needs, self.found)
        keys: dict[str, int] = {}
        for row in sheet:
            key = row[sheet.first]
            if key in keys and "column" not in needs:
                self.found.append(Diagnostic("row-repeated", f"the row `{key}` stands twice, first on line {keys[key]}", file, row.line, help="keep one of them"))
            elif not key:
                self.found.append(Diagnostic("row-unnamed", f"this row has no `{sheet.first}`", file, row.line))
            keys.setdefault(key, row.line)
        return sheet

    def grid(self, name: str, spec: GridSpec) -> Grid:
        sheet = self.sheet(spec.file, ())
        columns = tuple(column for column in sheet.columns[1:] if column != "label")
        rows: dict[str, dict[str, str]] = {}
        for row in sheet:
            for column in columns:
                letter = row[column]
                if letter not in spec.letters:
                    help = "a cell holds one of " + ", ".join(f"`{one}`" for one in spec.letters if one)
                    message = f"unknown letter `{letter}` in the cell `{row[sheet.first]}`, `{column}`" if letter else f"the cell `{row[sheet.first]}`, `{column}` is empty"
                    self.found.append(Diagnostic("cell-letter", message, spec.file, row.line, help=help))
            rows.setdefault(row[sheet.first], {column: row[column] for column in columns})
        labels = {row[sheet.first]: row.cells.get("label", "") for row in sheet}
        inferred = frozenset(letter for letter, basis in spec.letters.items() if basis == "inferred")
        made = Grid(name, spec.file, columns, rows, inferred, labels, {})
        return made if spec.provenance is None else Grid(name, spec.file, columns, rows, inferred, labels, self.provenance(spec.provenance, made))

    def provenance(self, file: str, grid: Grid) -> dict[tuple[str, str], Mapping[str, str]]:
        """Where each cell comes from. A cell without a row, or whose letter says published while its row says inferred, is a mistake."""
        sheet = self.sheet(file, ("type_code", "column", "basis"))
        made: dict[tuple[str, str], Mapping[str, str]] = {}
        for row in sheet:
            place = (row["type_code"], row["column"])
            letter = grid.rows.get(place[0], {}).get(place[1])
            if letter is None:
                self.found.append(Diagnostic("cell-unknown", f"`{grid.file}` has no cell `{place[0]}`, `{place[1]}`", file, row.line))
            elif (letter in grid.inferred) != (row["basis"] == "inferred"):
                basis = "inferred" if letter in grid.inferred else "published"
                message = f"the cell `{place[0]}`, `{place[1]}` is written as {basis} (`{letter}`), and its basis is `{row['basis']}`"
                self.found.append(Diagnostic("cell-basis", message, file, row.line, help="change its letter, or its basis"))
            made[place] = {key: row[key] for key in sheet.columns[2:]}
        missing = [(row, column) for row, cells in grid.rows.items() for column in cells if (row, column) not in made]
        if missing and sheet.rows:
            message = f"{len(missing)} cells of `{grid.file}` have no row here, the first is `{missing[0][0]}`, `{missing[0][1]}`"
            self.found.append(Diagnostic("cell-provenance", message, file, help="say where each cell comes from"))
        return made

    # --- paths ---

    def path(self, text: str, where: tuple[str, ...]) -> Path | None:
        head, *rest = text.split(".")
        if head in self.spec.alias:
            by_action = {}
            for key, base in self.spec.alias[head].items():
                if key != "otherwise" and key not in self.actions and key not in self.spec.actions:
                    self.report("action-unknown", f"unknown action `{key}`", ("alias", head, key), suggest(key, [*self.actions, *self.spec.actions]))
                steps = (*base.split("."), *rest)
                if steps[0] not in INPUTS:
                    self.report("path-unknown", f"`{base}` is not part of a request", ("alias", head, key), "a path starts with " + ", ".join(INPUTS))
                for action, about in self.actions.items():
                    if key == action or key == about and action not in self.spec.alias[head]:
                        by_action[action] = steps
            otherwise = self.spec.alias[head].get("otherwise")
            steps = (*otherwise.split("."), *rest) if otherwise else (head, *rest)
            return Path(text, steps if otherwise else ("context", "", *steps), by_action)
        if head == "record":
            if len(rest) != 2 or rest[0] not in self.kinds or rest[1] not in (*self.kinds[rest[0]].properties, "from", "until"):
                self.report("path-unknown", f"`{text}` is nothing that a record holds", where, "write record.KIND.PROPERTY with a property that the kind declares, `from` or `until`")
                return None
        elif head not in INPUTS or not rest or not all(rest):
            help = suggest(head, [*INPUTS, *self.spec.alias]) or "a path starts with " + ", ".join([*INPUTS, "record", *self.spec.alias])
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
                left, right = (self.path(one, where) for one in spec.of)
                made = (Same(left, right) if left and right else None), (False, True)
            case MemberSpec():
                of = self.path(spec.of, where)
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
            if value is not None and not any(value is one or value == one and isinstance(one, str) for one in values):
                help = "it takes " + ", ".join(f"`{str(one).lower() if isinstance(one, bool) else one}`" for one in values)
                self.report("value-unknown", f"`{key}` is `{value}`, which is not a value of this fact", (*where, key), help)

    def given(self, spec: GivenSpec, where: tuple[str, ...]) -> tuple[Form | None, tuple[Value, ...]]:
        values: tuple[Value, ...] = tuple(spec.values) if spec.values else (False, True)
        for place, word in enumerate(spec.values or ()):
            if word in (spec.values or ())[:place]:
                self.report("name-repeated", f"`{word}` stands twice in `values`", (*where, "values"))
        if spec.of.startswith("setting."):
            name = spec.of.removeprefix("setting.")
            value = self.settings.get(name)
            if name not in self.settings:
                self.report("setting-unknown", f"there is no setting `{name}`", where, suggest(name, self.settings))
                return None, values
            if value not in values or isinstance(value, bool) != (values == (False, True)):
                self.report("setting-value", f"the setting `{name}` is `{value}`, which is not a value of this fact", where)
                return None, values
            return Given(Path(spec.of, ("context", "")), False, value), values  # type: ignore[arg-type]
        of = self.path(spec.of, where)
        return (Given(of, spec.text) if of else None), values

    def held(self, spec: HeldSpec, where: tuple[str, ...]) -> Form | None:
        kind = self.kinds.get(spec.kind)
        if kind is None:
            self.report("kind-unknown", f"unknown kind of directive `{spec.kind}`", (*where, "kind"), suggest(spec.kind, self.kinds))
            return None
        of: list[tuple[str, Path | None]] = []
        shapes = {"everybody": "everybody"} if spec.of == "everybody" else spec.of
        for shape, text in shapes.items():
            if shape not in kind.targets and not spec.via:
                self.report("target-unknown", f"a directive of kind `{spec.kind}` has no target `{shape}`", (*where, "of"), suggest(shape, kind.targets))
            path = None if shape == "everybody" else self.path(text, (*where, "of"))
            if path or shape == "everybody":
                of.append((shape, path))
        conditions: list[tuple[str, str | Path]] = []
        for key, word in spec.where.items():
            if key not in kind.properties:
                self.report("property-unknown", f"a directive of kind `{spec.kind}` has no `{key}`", (*where, "with"), suggest(key, kind.properties))
            wanted = self.path(word[1:], (*where, "with")) if word.startswith("@") else word
            if wanted is not None:
                conditions.append((key, wanted))
        group = ""
        if spec.via:
            member = self.kinds.get(spec.via)
            if member is None or not member.group:
                help = suggest(spec.via, [name for name, one in self.kinds.items() if one.group])
                self.report("kind-unknown", f"`{spec.via}` is not a kind of directive that puts somebody in a group", (*where, "via"), help)
                return None
            group = member.group
        return Held(spec.kind, tuple(of), tuple(conditions), spec.via, group, spec.ended)

    def elapsed(self, spec: ElapsedSpec, where: tuple[str, ...]) -> Form | None:
        since = self.path(spec.since, where)
        (unit, amount), *_ = spec.at_least.items()
        value: Any = self.settings.get(amount) if isinstance(amount, str) else amount
        if isinstance(amount, str) and amount not in self.settings:
            self.report("setting-unknown", f"there is no setting `{amount}`", (*where, "at_least"), suggest(amount, self.settings))
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.report("setting-value", f"`{value}` is not a number of {unit}", (*where, "at_least"))
            return None
        return Elapsed(since, unit, value) if since else None

    def coded(self, spec: CodedSpec, where: tuple[str, ...]) -> tuple[Form | None, tuple[Value, ...]]:
        codes: dict[str, Value] = dict(spec.codes or {})
        if spec.code_list is not None:
            column = self.column(spec.code_list, spec.column or "", where)
            codes = {code: (value in spec.among) if spec.among is not None else value for code, value in column.items()}
            if spec.among is not None:
                for word in spec.among:
                    if column and word not in column.values():
                        self.report("value-unknown", f"no code of the list has `{word}` in its column `{spec.column}`", (*where, "in"), suggest(word, set(column.values())))
        elif spec.codes is None:
            self.report("key-missing", "a coded fact has `codes`, or `list` and `column`", where)
        if not spec.values:
            values: tuple[Value, ...] = (False, True)
            if any(isinstance(value, str) for value in codes.values()):
                self.report("key-missing", "a coded fact whose codes give words has `values`", where)
                return None, values
        else:
            values = tuple(spec.values)
            for code, value in codes.items():
                if value not in values:
                    self.report("value-unknown", f"the code `{code}` gives `{value}`, which is not a value of this fact", where, suggest(str(value), values))
        of = self.path(spec.of, where)
        return (Coded(of, codes, spec.several) if of else None), values

    def column(self, name: str, column: str, where: tuple[str, ...]) -> dict[str, str]:
        """A column of a code list, by code; an empty cell gives nothing."""
        sheet = self.lists.get(name)
        if sheet is None:
            self.report("list-unknown", f"unknown code list `{name}`", where, suggest(name, self.lists))
            return {}
        if column not in sheet.columns:
            self.report("column-missing", f"the code list `{name}` has no column `{column}`", where, suggest(column, sheet.columns))
            return {}
        return {row[sheet.first]: row[column] for row in sheet if row[column]}

    def cell(self, spec: CellSpec, where: tuple[str, ...]) -> tuple[Form | None, tuple[Value, ...]]:
        grid = self.grids.get(spec.grid)
        values: tuple[Value, ...] = tuple(spec.values) if spec.values else (False, True)
        if grid is None:
            self.report("grid-unknown", f"unknown grid `{spec.grid}`", (*where, "grid"), suggest(spec.grid, self.grids))
            return None, values
        letters: dict[str, Value] = {}
        for letter, means in spec.letters.items():
            if isinstance(means, SettingTest):
                if means.setting not in self.settings:
                    self.report("setting-unknown", f"there is no setting `{means.setting}`", (*where, "letters"), suggest(means.setting, self.settings))
                letters[letter] = self.settings.get(means.setting) == means.equals
            elif isinstance(means, ConditionRef):
                if means.condition not in self.spec.condition:
                    self.report("condition-unknown", f"unknown condition `{means.condition}`", (*where, "letters"), suggest(means.condition, self.spec.condition))
                letters[letter] = means.condition
                values += (means.condition,) if means.condition not in values else ()
            else:
                letters[letter] = means
                if means not in values:
                    self.report("value-unknown", f"the letter `{letter}` gives `{means}`, which is not a value of this fact", (*where, "letters"))
        for letter in self.spec.grid[spec.grid].letters:
            if letter not in letters:
                self.report("cell-letter", f"the letter `{letter}` of the grid `{spec.grid}` has no meaning for this fact", (*where, "letters"))
        row = self.path(spec.row, where)
        column, codes = None, {}
        if (spec.column is None) == (spec.column_is is None):
            self.report("key-missing", "a cell has either `column` or `column_is`", where)
        elif spec.column is not None:
            column = self.path(spec.column.of, where)
            codes = self.column(spec.column.code_list, spec.column.column, where)
            for code, name in codes.items():
                if name not in grid.columns:
                    self.report("column-missing", f"`{code}` leads to the column `{name}`, which `{grid.file}` has not", where, suggest(name, grid.columns))
        elif spec.column_is not in grid.columns:
            self.report("column-missing", f"`{grid.file}` has no column `{spec.column_is}`", (*where, "column_is"), suggest(spec.column_is or "", grid.columns))
        return (Cell(grid, row, column, codes, spec.column_is, letters) if row else None), values
