"""The directory of professionals: every identifier of a person leads to one, and a caller's claim about him is compared with it.

A block names one identifier, and the person it means has several. So what comes in, requests and directives, is normalised to the main one before anything
is decided or kept. The directory is a sheet (any that a spreadsheet saves), read once; it fetches nothing, and says nothing about somebody it does not know.

    identifier      the main one, in the pack's format                                          needed
    profession      as requests have it (`G15_10`); blank: not known                            needed
    others          other identifiers of the same person, separated by spaces
    specialty       as requests have it
    organisations   identifiers of the structures that he works in, separated by spaces; blank: not known

Other columns are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

from msgspec import structs

from engine.consent.directives import Directive
from engine.consent.identifiers import Format, Formats
from engine.errors import Diagnostic, RequestError, shown, suggest
from engine.facts import input_value
from engine.pack import Pack
from engine.request import Action, Entity, Request
from engine.sheets import Row, read_sheet
from engine.vocabulary import Cell, Coded, Member, Path

One = TypeVar("One", Request, Directive, Mapping[str, Any])
NEEDS = ("identifier", "profession")


@dataclass(frozen=True, slots=True)
class Person:
    """A professional, as the directory knows him."""

    identifier: str
    others: tuple[str, ...] = ()
    profession: str = ""
    specialty: str = ""
    organisations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Directory:
    """People by main identifier, and the main identifier by any. `subjects`, `targets`, `paths`: where identifiers of theirs stand, as the pack says."""

    people: Mapping[str, Person]
    mains: Mapping[str, str]
    subjects: frozenset[str]
    targets: frozenset[str]
    paths: tuple[Path, ...]

    def main(self, identifier: str) -> str:
        """The main identifier of whoever bears this one; itself when nobody known does."""
        return self.mains.get(identifier, identifier)

    def find(self, identifier: str) -> Person | None:
        """Who bears an identifier, main or other."""
        return self.people.get(self.main(identifier))

    def settle(self, request: Request) -> Request:
        """A request with main identifiers, and with what the directory vouches for: its claims checked, its gaps filled. Raises `RequestError`."""
        return self.vouch(self.normalise(request))

    # --- identities ---

    def normalise(self, one: One) -> One:
        """The same request, directive, or directive in JSON, with every identifier that the directory knows replaced by the main one."""
        if isinstance(one, Request):
            return self._request(one)
        return self._directive(one) if isinstance(one, Directive) else self._json(one)

    def _request(self, request: Request) -> Request:
        if request.subject.type in self.subjects and (main := self.main(request.subject.id)) != request.subject.id:
            request = structs.replace(request, subject=structs.replace(request.subject, id=main))
        target = request.action.properties.get("target")
        if isinstance(target, Mapping) and target.get("type") in self.targets:
            request = self._replace(request, ("action", "target", "id"))
        for steps in {path.for_action(request.action.name) for path in self.paths}:
            request = self._replace(request, steps)
        return request

    def _replace(self, request: Request, steps: tuple[str, ...]) -> Request:
        value = request.look_up(steps)
        mains = self._mains(value)
        return request if mains == value else _with(request, steps, mains)

    def _directive(self, directive: Directive) -> Directive:
        targets = tuple((form, self._mains(value) if form in self.targets else value) for form, value in directive.targets)
        properties = {key: self._mains(text) if key in self.targets else text for key, text in directive.properties.items()}
        return replace(directive, targets=tuple(dict.fromkeys(targets)), properties=properties, source=self._source(directive.source))

    def _json(self, data: Mapping[str, Any]) -> dict[str, Any]:
        made = {key: self._mains(value) if key in self.targets else value for key, value in self._source(data).items()}
        target = data.get("target")
        if isinstance(target, Mapping):
            made["target"] = {form: self._mains(value) if form in self.targets else value for form, value in target.items()}
        return made

    def _source(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Who recorded a directive is one of these people when his capacity is a type of subject of theirs."""
        return {key: self._mains(value) if key == "recorded_by" and data.get("capacity") in self.subjects else value for key, value in data.items()}

    def _mains(self, value: Any) -> Any:
        """Main identifiers for those in a text, or in a list of texts, each once; anything else is left as it is."""
        if isinstance(value, list):
            several = [self._mains(one) for one in value]
            return [one for place, one in enumerate(several) if one not in several[:place]]
        return self.main(value) if isinstance(value, str) else value

    # --- claims ---

    def vouch(self, request: Request) -> Request:
        """A request whose subject and target have the profession and the specialty that the directory gives them, and work where they say.

        Raises `RequestError` for a claim that contradicts it. Somebody whom the directory does not know keeps what the caller says of him.
        """
        subject, target = request.subject, request.action.properties.get("target")
        if subject.type in self.subjects and (person := self.find(subject.id)) is not None:
            properties = _vouched(person, subject.properties, "subject")
            request = structs.replace(request, subject=Entity(subject.type, subject.id, properties))
        if isinstance(target, Mapping) and target.get("type") in self.targets:
            id = target.get("id")
            if isinstance(id, str) and (person := self.find(id)) is not None:
                named = {"target": _vouched(person, target, "action.target")}
                request = structs.replace(request, action=Action(request.action.name, {**request.action.properties, **named}))
        return request


def _vouched(person: Person, claims: Mapping[str, Any], where: str) -> dict[str, Any]:
    made = dict(claims)
    for key in ("profession", "specialty"):
        known: str = getattr(person, key)
        claim = input_value(claims.get(key))
        if known and claim is not None and claim != known:
            raise RequestError(f"{where}.{key}", f"is not the {key} that the directory gives", "leave it out, or have the directory corrected")
        if known:
            made[key] = known
    place = input_value(claims.get("structure"))
    if person.organisations and place is not None and place not in person.organisations:
        raise RequestError(f"{where}.structure", "is not one where the directory has this person work", "name one of his, or have the directory corrected")
    return made


def _with(request: Request, steps: tuple[str, ...], value: Any) -> Request:
    """The request with another value at the end of `steps`, where it has one."""
    head, *rest = steps
    part: Any = getattr(request, head)
    inside = part if head == "context" else part.properties
    changed = _changed(inside, rest, value)
    return structs.replace(request, **{head: changed if head == "context" else structs.replace(part, properties=changed)})


def _changed(inside: Mapping[str, Any], steps: list[str], value: Any) -> dict[str, Any]:
    first, *rest = steps
    return {**inside, first: _changed(inside[first], rest, value) if rest else value}


# --- reading ---------------------------------------------------------------------------------------------------------


def parse_directory(file: str, data: bytes, pack: Pack, found: list[Diagnostic], name: str | None = None) -> Directory:
    """Read a directory of the people whose identifiers have the format `name` of the pack, by default the one that the pack says.

    Mistakes are appended to `found`, and their rows are left out.
    """
    known = pack.identifiers
    name = name or pack.directory
    form = known.formats.get(name or "")
    if form is None:
        message = f"the pack has no format of identifier `{name}`" if name else "the pack does not say of whom a directory speaks"
        help = (name and suggest(name, known.formats)) or "write `identifier` under [directory] in pack.toml, and declare it under [identifier]"
        found.append(Diagnostic("directory-format", message, file, help=help))
        return Directory({}, {}, frozenset(), frozenset(), ())
    check = _Check(form, _formats_at(pack, "subject.structure"), _professions(pack))
    people: dict[str, Person] = {}
    mains: dict[str, str] = {}
    for row in read_sheet(file, data, NEEDS, found):
        person = _person(row)
        mistake = check.mistake(person, row.line)
        if mistake is not None:
            found.append(Diagnostic(mistake[0], mistake[1], file, row.line, help=mistake[2]))
        else:
            people[person.identifier] = person
            mains |= dict.fromkeys((person.identifier, *person.others), person.identifier)
    subjects, targets = _places(known.subjects, form), _places(known.targets, form)
    return Directory(MappingProxyType(people), MappingProxyType(mains), subjects, targets, tuple(path for path, several in known.paths if form in several))


def _person(row: Row) -> Person:
    others, organisations = (tuple(row.cells.get(column, "").split()) for column in ("others", "organisations"))
    return Person(row["identifier"], others, row["profession"], row.cells.get("specialty", ""), organisations)


@dataclass(frozen=True, slots=True)
class _Check:
    """What is asked of each row; `lines` says where each identifier was met first."""

    form: Format
    structures: Formats
    professions: set[str]
    lines: dict[str, int] = field(default_factory=dict)

    def mistake(self, person: Person, line: int) -> tuple[str, str, str] | None:
        """Code, sentence and help for the first mistake of a row."""
        if wrong := self.form.mistake(person.identifier):
            return "directory-identifier", f"{shown(person.identifier)} {wrong}", self.form.about
        if person.profession and self.professions and person.profession not in self.professions:
            help = suggest(person.profession, self.professions) or "write it as requests do"
            return "directory-profession", f"unknown profession {shown(person.profession)}", help
        for one in person.organisations:
            wrongs = [each.mistake(one) for each in self.structures]
            if wrongs and all(wrongs):
                return "directory-organisation", f"{shown(one)} {wrongs[0]}", self.structures[0].about
        for one in (person.identifier, *person.others):
            if one in self.lines:
                return "directory-repeated", f"{shown(one)} already stands on line {self.lines[one]}", "an identifier has one bearer, and a person one row"
        self.lines.update(dict.fromkeys((person.identifier, *person.others), line))
        return None


def _places(places: Mapping[str, Formats], form: Format) -> frozenset[str]:
    return frozenset(place for place, several in places.items() if form in several)


def _formats_at(pack: Pack, text: str) -> Formats:
    return next((formats for path, formats in pack.identifiers.paths if path.text == text), ())


def _professions(pack: Pack) -> set[str]:
    """Every code of a profession that some fact of the pack knows; none when no list names them."""
    known: set[str] = set()
    for fact in pack.vocabulary.facts.values():
        match fact.form:
            case Coded(Path(text="subject.profession"), codes):
                known |= codes.keys()
            case Cell(column=Path(text="subject.profession"), column_of=codes):
                known |= codes.keys()
            case Member(Path(text="subject.profession"), among):
                known |= among
    return known
