"""Test vectors: questions with the answers that a person expects, read from YAML and put to a pack.

    bytes -> tree with places -> checked shape -> flat cases -> results -> report        (the format: test_vectors/README.md)

This module words no report and writes no expected answer. It knows a pack only through `load`, which gives a compiled one for a folder and some settings.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, ValidationError

from engine.answer import Answer
from engine.calendar import iso, parse_instant
from engine.consent.directives import FOREVER
from engine.errors import Diagnostic, PackError, RequestError, suggest
from engine.facts import cell_place
from engine.pack import load_pack
from engine.pdp import Pdp
from engine.request import Request, parse_request
from engine.specs import Scalar
from engine.vocabulary import Cell, Value
from engine.yaml_tree import Node, Source, VectorError, read_tree

Table: TypeAlias = Mapping[str, Any]
SettingText: TypeAlias = bool | str
Load: TypeAlias = Callable[[str, Mapping[str, SettingText]], Pdp]
"""A compiled pack for a folder and the settings that differ, as text."""


# --- the shape of a file ---------------------------------------------------------------------------------------------


def _record(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, dict) for one in value)):
        return value
    raise ValueError("must be the name of a record or a list of directives")


def _reference(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise ValueError("must be a name or a table")
    if isinstance(value, dict) and not isinstance(value.get("like", ""), str):
        raise ValueError("`like` must be a name")
    return value


def _setting(value: Any) -> Any:
    if isinstance(value, bool | str):
        return value
    raise ValueError("must be true, false or text")


def _instant(value: str) -> str:
    if parse_instant(value) is None:
        raise ValueError("must be a date and a time with its offset, such as 2026-11-21T10:00:00+01:00")
    return value


Reference = Annotated[Any, AfterValidator(_reference)]
Instant = Annotated[str, AfterValidator(_instant)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Defaults(_Shape):
    at: Instant | None = None
    context: dict[str, Any] = {}


class _Subject(_Shape):
    model_config = ConfigDict(extra="allow")
    type: str
    id: str


class _Document(_Shape):
    model_config = ConfigDict(extra="allow")
    id: str


class _Given(_Shape):
    record: Annotated[Any, AfterValidator(_record)] = None
    more: list[dict[str, Any]] = Field(default=[], alias="and")
    settings: dict[str, Annotated[Any, AfterValidator(_setting)]] = {}


class _Ask(_Shape):
    subject: Reference = None
    action: Reference = None
    resource: Reference = None
    context: dict[str, Any] = {}


class Expectation(_Shape):
    """What a person expects of the answer; nothing where it does not matter."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    decision: Literal["permit", "refuse", "no_rule"]
    rule: str | None = None
    obligations: list[str] | None = None
    discreet: StrictBool | None = None
    inferred: StrictBool | None = None
    holds_until: Instant | None = None


class _Variation(_Shape):
    id: str | None = None
    at: Instant | None = None
    patient: str | None = None
    given: _Given = _Given()
    ask: _Ask = _Ask()
    expect: Expectation


class _Vector(_Shape):
    id: str = Field(min_length=1)
    title: str = Field(min_length=1)
    article: str = Field(min_length=1)
    at: Instant | None = None
    patient: str | None = None
    given: _Given = _Given()
    ask: _Ask
    expect: Expectation | None = None
    each: list[_Variation] | None = Field(default=None, min_length=1)


class _File(_Shape):
    pack: str
    patient: str | None = None
    defaults: _Defaults = _Defaults()
    subjects: dict[str, _Subject] = {}
    documents: dict[str, _Document] = {}
    records: dict[str, list[dict[str, Any]]] = {}
    vectors: list[_Vector] = Field(min_length=1)


_SENTENCES = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "too_short": "is empty",
    "string_too_short": "is empty",
}


def check_shape(source: Source, root: Node) -> _File | None:
    """The file as a checked shape, or nothing: every mistake is then in `source.found`, at its line."""
    try:
        return _File.model_validate(root.plain())
    except ValidationError as error:
        for one in error.errors():
            _report_shape(source, root, one)
        return None


def _report_shape(source: Source, root: Node, error: Any) -> None:
    path = error["loc"]
    name, kind = path[-1] if path else "this file", error["type"]
    parent = root.find(*path[:-1])
    if kind == "extra_forbidden":
        known = _keys_at(path[:-1])
        help = suggest(str(name), known) or "known here: " + ", ".join(f"`{key}`" for key in known)
        source.report("key-unknown", f"`{name}` is not a key here", parent.keys.get(str(name)), help)
    elif kind == "missing":
        source.report("key-missing", f"the key `{name}` is missing", parent)
    elif kind == "literal_error":
        node = root.find(*path)
        source.report("value-type", f"`{name}` must be permit, refuse or no_rule", node, suggest(str(node.value), ("permit", "refuse", "no_rule")))
    else:
        sentence = str(error["ctx"]["error"]) if kind == "value_error" else _SENTENCES.get(kind, error["msg"])
        source.report("value-type", f"`{name}` {sentence}" if not sentence.startswith("`") else sentence, root.find(*path))


def _keys_at(path: Sequence[str | int]) -> list[str]:
    """The keys that the table at a path may have."""
    shape: type[BaseModel] = _File
    inner: dict[str, type[BaseModel]] = {"defaults": _Defaults, "vectors": _Vector, "each": _Variation, "given": _Given, "ask": _Ask, "expect": Expectation}
    for step in path:
        shape = inner.get(str(step), shape)
    return [info.alias or name for name, info in shape.model_fields.items()]


# --- flat cases ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """One question with its expected answer, nothing left to look up. `problem` says why there is no `request`, when there is none."""

    id: str
    title: str
    article: str
    file: str
    line: int
    pack: str
    settings: Mapping[str, SettingText]
    directives: tuple[Table, ...]
    request: Request | None
    at: float
    expect: Expectation
    problem: str = ""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class _Question:
    """What a vector asks, before and after a variation is laid over it. Properties that are `None` are taken away at the end."""

    record: Any = None
    more: tuple[Table, ...] = ()
    settings: Mapping[str, SettingText] = field(default_factory=dict)
    subject: Table | None = None
    action: Table | None = None
    resource: Table | None = None
    written: Table = field(default_factory=dict)
    context: Table = field(default_factory=dict)
    at: str | None = None
    patient: str | None = None


def read_vectors(paths: Iterable[str | FilePath], load: Load) -> list[Case]:
    """The cases of files, and of every `.yaml` file in folders. Raises `VectorError` with the mistakes of all of them, `OSError` for what cannot be read."""
    cases: list[Case] = []
    found: list[Diagnostic] = []
    for path in files_of(paths):
        try:
            cases += parse_vectors(str(path), path.read_bytes(), load)
        except VectorError as error:
            found += error.diagnostics
    if found:
        raise VectorError(found)
    return cases


def files_of(paths: Iterable[str | FilePath]) -> list[FilePath]:
    """The files themselves, and the `.yaml` files of folders, in order."""
    made: list[FilePath] = []
    for path in map(FilePath, paths):
        made += sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")]) if path.is_dir() else [path]
    return list(dict.fromkeys(made))


def parse_vectors(file: str, data: bytes, load: Load) -> list[Case]:
    """The cases of one file. Raises `VectorError` with every mistake, and `PackError` when its pack does not check."""
    source, root = read_tree(file, data)
    shape = check_shape(source, root)
    if shape is None:
        raise VectorError(source.found)
    folder = find_pack(shape.pack, file)
    try:
        pdp = load(folder, {})
    except FileNotFoundError:
        help = "name the folder that holds pack.toml, from the root of the repository"
        source.report("pack-missing", f"there is no pack `{shape.pack}`", root.find("pack"), help)
        raise VectorError(source.found) from None
    cases = list(_Expansion(shape, root, source, pdp, folder).cases())
    if source.found:
        raise VectorError(source.found)
    return cases


def find_pack(name: str, file: str) -> str:
    """The folder of a pack that a file of vectors names: from the first folder above the file that has it, otherwise as it is written."""
    if not (FilePath(name) / "pack.toml").is_file():
        for above in FilePath(file).resolve().parents:
            if (above / name / "pack.toml").is_file():
                return str(above / name)
    return name


class _Expansion:
    """One file's vectors, laid over its defaults and with its names looked up. Mistakes go to the source."""

    def __init__(self, shape: _File, root: Node, source: Source, pdp: Pdp, folder: str):
        self.shape, self.root, self.source, self.pack, self.folder = shape, root, source, pdp.pack, folder
        self.subjects = {name: one.model_dump() for name, one in shape.subjects.items()}
        self.documents = {name: one.model_dump() for name, one in shape.documents.items()}
        self.rules = {rule.id for rule in self.pack.rules} | {rule for _, rule in self.pack.defaults}

    def cases(self) -> Iterator[Case]:
        seen: dict[str, int] = {}
        defaults = self.shape.defaults
        start = _Question(context=defaults.context, at=defaults.at, patient=self.shape.patient)
        for number, vector in enumerate(self.shape.vectors):
            path = ("vectors", number)
            question = self._lay(start, vector, path)
            if (vector.expect is None) == (vector.each is None):
                sentence = "this vector expects nothing" if vector.each is None else "this vector has both `expect` and `each`"
                self.source.report("vector-expect", sentence, self.root.find(*path), "give it `expect`, or `each` with an `expect` in every variation")
            elif vector.expect is not None:
                yield self._case(vector, vector.id, question, vector.expect, path, seen)
            for place, variation in enumerate(vector.each or (), 1):
                inner = (*path, "each", place - 1)
                yield self._case(vector, f"{vector.id}/{variation.id or place}", self._lay(question, variation, inner), variation.expect, inner, seen)

    def _lay(self, base: _Question, over: _Vector | _Variation, path: tuple[str | int, ...]) -> _Question:
        ask, given = over.ask, over.given
        if isinstance(given.record, str) and given.record not in self.shape.records:
            self._unknown("record", given.record, self.shape.records, (*path, "given", "record"))
        for name in given.settings:
            if name not in self.pack.settings:
                place = self.root.find(*path, "given", "settings").keys.get(name)
                self.source.report("setting-unknown", f"unknown setting `{name}`", place, suggest(name, self.pack.settings))
        return _Question(
            base.record if given.record is None else given.record,
            (*base.more, *given.more),
            {**base.settings, **given.settings},
            self._entity("subject", ask.subject, base.subject, self.subjects, path),
            _action(ask.action, base.action),
            self._entity("document", ask.resource, base.resource, self.documents, path),
            _written(ask.resource, base.written),
            {**base.context, **ask.context},
            over.at or base.at,
            over.patient or base.patient,
        )

    def _entity(self, what: str, given: Any, base: Table | None, known: Mapping[str, Table], path: tuple[str | int, ...]) -> Table | None:
        """What a name, a name with changes, or a table means: see test_vectors/README.md."""
        if given is None:
            return base
        name = given if isinstance(given, str) else given.get("like")
        if name is not None and name not in known:
            place = (*path, "ask", "subject" if what == "subject" else "resource")
            self._unknown(what, name, known, place if isinstance(given, str) else (*place, "like"))
            return base
        start = known[name] if name is not None else base or {}
        return start if isinstance(given, str) else {**start, **{key: value for key, value in given.items() if key != "like"}}

    def _unknown(self, what: str, name: str, known: Iterable[str], path: tuple[str | int, ...]) -> None:
        self.source.report(f"{what}-unknown", f"unknown {what} `{name}`", self.root.find(*path), suggest(name, known))

    def _case(self, vector: _Vector, id: str, question: _Question, expect: Expectation, path: tuple[str | int, ...], seen: dict[str, int]) -> Case:
        node = self.root.find(*path)
        if id in seen:
            self.source.report("vector-repeated", f"the vector `{id}` stands twice, first on line {seen[id]}", node, "give it an id of its own")
        seen.setdefault(id, node.line)
        self._check(expect, (*path, "expect"))
        if question.at is None:
            self.source.report("key-missing", f"nothing says at which instant `{id}` is decided", node, "write `at`, here or under `defaults`")
        if self._names_nobody(question):
            self.source.report("key-missing", f"nothing says whose record `{id}` is about", node, "write `patient`, here or at the top of the file")
        record = self.shape.records.get(question.record, []) if isinstance(question.record, str) else question.record or []
        request, problem = self._request(question)
        at = parse_instant(question.at or "") or 0.0
        directives = (*record, *question.more)
        return Case(id, vector.title, vector.article, self.source.file, node.line, self.folder, question.settings, directives, request, at, expect, problem)

    def _check(self, expect: Expectation, path: tuple[str | int, ...]) -> None:
        if expect.rule is not None and expect.rule not in self.rules:
            self._unknown("rule", expect.rule, self.rules, (*path, "rule"))
        if (expect.rule is None) != (expect.decision == "no_rule"):
            sentence = "`rule` is missing" if expect.rule is None else "when no rule applies, no `rule` decides"
            self.source.report("vector-expect", sentence, self.root.find(*path), "name the line of rules.csv that decides" if expect.rule is None else "")
        for place, one in enumerate(expect.obligations or ()):
            if one not in self.pack.obligations:
                self._unknown("obligation", one, self.pack.obligations, (*path, "obligations", place))

    def _names_nobody(self, question: _Question) -> bool:
        """Whether a question leaves out whose record it is about, in a pack that asks. A document may say so itself, that nobody knows (`null`) included."""
        if question.patient is not None or self.pack.vocabulary.patient is None:
            return False
        return "id" not in question.written if self._is_about_record(question) else question.resource is not None and "patient" not in question.resource

    def _is_about_record(self, question: _Question) -> bool:
        about = self.pack.vocabulary.actions.get(str((question.action or {}).get("name")))
        return about == "record" or (about is None and question.resource is None)

    def _request(self, question: _Question) -> tuple[Request | None, str]:
        """The request in AuthZEN's shape, or why it is none."""
        data = {"action": _members(question.action, "name"), "context": _present(question.context)}
        if question.subject is not None:
            data["subject"] = _members(question.subject, "type", "id")
        if self._is_about_record(question):
            data["resource"] = _members({"type": "record", "id": question.patient, **question.written}, "type", "id")
        elif question.resource is not None:
            document = {"patient": question.patient, **question.resource}
            data["resource"] = {"type": "document"} | _members(document, "id")
        try:
            return parse_request(data), ""
        except RequestError as error:
            return None, str(error)


def _action(given: Any, base: Table | None) -> Table | None:
    if given is None:
        return base
    if isinstance(given, str):
        return {"name": given}
    return given if "name" in given else {**(base or {}), **given}


def _written(given: Any, base: Table) -> Table:
    """What was written out about the resource of an act on the record: a document named beside it does not count."""
    if given is None:
        return base
    return {} if isinstance(given, str) or "like" in given else {**base, **given}


def _present(table: Table) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _members(table: Table | None, *members: str) -> dict[str, Any]:
    """An entity or an action: its own members, and every other key as a property."""
    known = _present(table or {})
    return {key: known[key] for key in members if key in known} | {"properties": {key: value for key, value in known.items() if key not in members}}


# --- packs -----------------------------------------------------------------------------------------------------------


class Packs:
    """Compiled packs, each once: the `load` of everything here. Invariants are not proved: that is the business of `habilis check`.

    `pack` replaces the pack that the files name; `settings` lie under those of a vector.
    """

    def __init__(self, pack: str | None = None, settings: Mapping[str, SettingText] | None = None):
        self.pack, self.settings = pack, settings or {}
        self._kept: dict[tuple[str, tuple[tuple[str, SettingText], ...]], Pdp] = {}
        self._known: dict[str, Mapping[str, Scalar]] = {}

    def __call__(self, folder: str, settings: Mapping[str, SettingText]) -> Pdp:
        folder = self.pack or folder
        wanted = {**self.settings, **settings}
        key = (folder, tuple(sorted(wanted.items())))
        if key not in self._kept:
            if not (FilePath(folder) / "pack.toml").is_file():
                raise FileNotFoundError(folder)
            if wanted and folder not in self._known:
                self._known[folder] = load_pack(folder).settings
            self._kept[key] = Pdp(load_pack(folder, typed_settings(wanted, self._known[folder]) if wanted else None))
        return self._kept[key]


def typed_settings(given: Mapping[str, SettingText], known: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Settings written as text, as the kind of value that the pack declares. What does not fit is left as it is, for the pack's check to report."""
    return {name: _typed(value, known.get(name)) for name, value in given.items()}


def _typed(value: SettingText, like: Any) -> Scalar:
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(str(value).lower(), value)
    return int(value) if isinstance(like, int) and isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value


# --- running ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case. `differences` are sentences, empty when the answer is the expected one; `error` says why there is no answer."""

    case: Case
    differences: tuple[str, ...] = ()
    error: str = ""
    answer: Answer | None = None
    seconds: float = 0.0

    @property
    def status(self) -> str:
        return "error" if self.error else "failed" if self.differences else "passed"

    def as_dict(self) -> dict[str, Any]:
        case = self.case
        return {"id": case.id, "file": case.file, "line": case.line, "status": self.status, "differences": list(self.differences), "error": self.error}


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the cases of one pack made happen: rules that decided, values that facts had, cells that were looked at."""

    pack: str
    rules: int
    undecided: tuple[str, ...]
    values: int
    unseen: tuple[tuple[str, Value], ...]
    cells: Mapping[str, tuple[int, int]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "pack": self.pack,
            "rules": {"decided": self.rules - len(self.undecided), "of": self.rules, "undecided": list(self.undecided)},
            "facts": {"seen": self.values - len(self.unseen), "of": self.values, "unseen": [[name, value] for name, value in self.unseen]},
            "cells": {grid: {"seen": seen, "of": total} for grid, (seen, total) in self.cells.items()},
        }


@dataclass(frozen=True)
class Report:
    """The results of a run. It is fine when every case passed and, where `complete` is asked, every rule decided one of them."""

    results: tuple[Result, ...]
    coverage: tuple[Coverage, ...]
    complete: bool = True
    seconds: float = 0.0

    @cached_property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.status != "passed")

    @property
    def is_fine(self) -> bool:
        return not self.failures and not (self.complete and any(one.undecided for one in self.coverage))

    def count(self, status: str) -> int:
        return sum(result.status == status for result in self.results)

    def as_dict(self) -> dict[str, Any]:
        return {
            "fine": self.is_fine,
            "vectors": len(self.results),
            **{status: self.count(status) for status in ("passed", "failed", "error")},
            "failures": [result.as_dict() for result in self.failures],
            "coverage": [one.as_dict() for one in self.coverage],
        }


def run_case(pdp: Pdp, case: Case) -> Result:
    """Put one case to a compiled pack and compare the answer with what is expected of it."""
    start = time.perf_counter()
    if case.request is None:
        return Result(case, error=case.problem)
    try:
        record = pdp.fold(case.directives, case.at)
        answer = pdp.decide(case.request, record)
    except RequestError as error:
        return Result(case, error=str(error))
    return Result(case, tuple(_differences(case.expect, answer, pdp)), "", answer, time.perf_counter() - start)


def _differences(expect: Expectation, answer: Answer, pdp: Pdp) -> Iterator[str]:
    if expect.decision != answer.decision or expect.rule != (answer.rule or None):
        wanted, got = _verdict(expect.decision, expect.rule), _verdict(answer.decision, answer.rule)
        yield f"expected {wanted}, got {got}"
    owed = [one.id for one in answer.owed]
    if expect.obligations is not None and expect.obligations != owed:
        yield f"expected the obligations {_list(expect.obligations)}, got {_list(owed)}"
    for name in ("discreet", "inferred"):
        wanted, got = getattr(expect, name), getattr(answer, name)
        if wanted is not None and wanted is not got:
            yield f"expected {'' if wanted else 'not '}{name}, got {'' if got else 'not '}{name}"
    if expect.holds_until is not None and parse_instant(expect.holds_until) != answer.record.holds_until:
        yield f"expected a record that holds until {expect.holds_until}, got {_when(answer.record.holds_until, pdp.pack.vocabulary.time_zone)}"


def _verdict(decision: str, rule: str | None) -> str:
    return f"{decision} by {rule}" if rule else decision


def _list(names: Sequence[str]) -> str:
    return "[" + ", ".join(names) + "]"


def _when(instant: float, zone: str) -> str:
    try:
        return "for ever" if instant == FOREVER else iso(instant, zone)
    except (ValueError, OverflowError):
        return "beyond the calendar"


def run(cases: Iterable[Case], load: Load, complete: bool = True) -> Report:
    """Run cases and measure what they cover. `complete`: a rule that no case makes decide fails the run."""
    start = time.perf_counter()
    results: list[Result] = []
    covered: dict[str, _Covered] = {}
    for case in cases:
        try:
            pdp = load(case.pack, case.settings)
        except PackError as error:
            results.append(Result(case, error=f"under these settings the pack does not check: {error.diagnostics[0].message}"))
            continue
        results.append(run_case(pdp, case))
        covered.setdefault(case.pack, _Covered()).add(pdp, results[-1])
    coverage = tuple(covered[pack].coverage(pack) for pack in covered)
    return Report(tuple(results), coverage, complete, time.perf_counter() - start)


class _Covered:
    """Adds up the coverage of one pack's cases."""

    def __init__(self) -> None:
        self.pdps: dict[int, Pdp] = {}
        self.rules: set[str] = set()
        self.values: set[tuple[str, Value]] = set()
        self.cells: set[tuple[str, str, str]] = set()

    def add(self, pdp: Pdp, result: Result) -> None:
        self.pdps[id(pdp)] = pdp
        answer = result.answer
        if answer is None:
            return
        self.rules.add(answer.rule)
        self.values |= answer.situation.items()
        for fact in answer.runner.cells:
            form = fact.form
            assert isinstance(form, Cell)
            row, column = cell_place(form, answer.request)
            if row in form.grid.rows and column in form.grid.columns:
                self.cells.add((form.grid.name, row, column))  # type: ignore[arg-type]

    def coverage(self, name: str) -> Coverage:
        pack = next(iter(self.pdps.values())).pack
        rules = dict.fromkeys([*(rule.id for rule in pack.rules), *(rule for _, rule in pack.defaults)])
        runners = [runner for pdp in self.pdps.values() for key in pdp.slices if (runner := pdp.runner(*key))]
        values = dict.fromkeys((fact, value) for runner in runners for fact, known in runner.tables.values.items() for value in known)
        cells = {grid.name: (sum(one[0] == grid.name for one in self.cells), len(grid.rows) * len(grid.columns)) for grid in pack.vocabulary.grids.values()}
        undecided = tuple(rule for rule in rules if rule not in self.rules)
        return Coverage(name, len(rules), undecided, len(values), tuple(sorted(values.keys() - self.values, key=str)), cells)
