"""Identifiers as the pack says they are written: checked where they come in (acts, imports, command line), never by a decision.

One person under two spellings is two people to a block. So each kind of identifier has one spelling, `[identifier.*]` of pack.toml: a pattern, a check by
name, and the places where it stands. Which spellings belong to one person is the business of `engine.consent.directory`; whether anybody bears an identifier
is not asked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.consent.directives import Directive
from engine.errors import RequestError, suggest
from engine.request import Request
from engine.specs import IdentifierSpec
from engine.vocabulary import NEVER, Path, Vocabulary

if TYPE_CHECKING:
    from engine.pack import Pack

LONGEST = 200
"""Characters of an identifier: longer text is not even compared with a pattern."""


# --- checks ----------------------------------------------------------------------------------------------------------


_DOUBLED = dict(zip("0123456789", (0, 2, 4, 6, 8, 1, 3, 5, 7, 9), strict=True))


def luhn(digits: str) -> bool:
    """Every second digit from the right counts double, its own digits added; the sum ends in 0 (ISO/IEC 7812-1, annex B)."""
    return (sum(map(int, digits[-1::-2])) + sum(map(_DOUBLED.__getitem__, digits[-2::-2]))) % 10 == 0


def mod97(digits: str) -> bool:
    """The last two digits are 97 less the rest of the others divided by 97 (the key of the French NIR)."""
    return len(digits) > 2 and 97 - int(digits[:-2]) % 97 == int(digits[-2:])


CHECKS: Mapping[str, Callable[[str], bool]] = {"luhn": luhn, "mod97": mod97}


# --- formats ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write an identifier. `letters`: what stands for them when the check is computed."""

    name: str
    pattern: re.Pattern[str]
    check: str | None = None
    letters: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    example: str = ""

    def mistake(self, value: Any) -> str:
        """What is wrong with a value; empty when it is one. The sentence does not repeat the value: it may end in a journal that must not name a patient."""
        if not isinstance(value, str):
            return "must be one identifier, as text"
        if len(value) > LONGEST or not self.pattern.fullmatch(value):
            return f"is not written like an identifier of a {self.name}"
        if self.check is not None:
            for letters, digits in self.letters.items():
                value = value.replace(letters, digits)
            if not (value.isascii() and value.isdigit() and CHECKS[self.check](value)):
                return f"is not an identifier of a {self.name}: its check digits do not fit the others"
        return ""


Formats = tuple[Format, ...]
"""The formats of one place: an identifier in any of them will do."""


@dataclass(frozen=True, slots=True)
class Identifiers:
    """The formats of a pack, by name, and where each stands: types of subject, forms of target (of directives and acts), other places of a request; among
    these, where acts find a property that is named like a form of target."""

    formats: Mapping[str, Format] = field(default_factory=dict)
    subjects: Mapping[str, Formats] = field(default_factory=dict)
    targets: Mapping[str, Formats] = field(default_factory=dict)
    paths: tuple[tuple[Path, Formats], ...] = ()


Report = Callable[[tuple[str, ...], str, str, str], None]
"""Where in pack.toml, code, sentence, help."""


def build_identifiers(specs: Mapping[str, IdentifierSpec], vocabulary: Vocabulary, report: Report) -> Identifiers:
    """Build the formats of a pack; mistakes are reported."""
    formats: dict[str, Format] = {}
    subjects: dict[str, Formats] = {}
    targets: dict[str, Formats] = {}
    paths: dict[str, tuple[Path, Formats]] = {}
    known = {form for kind in vocabulary.kinds.values() for form in kind.targets}
    for name, spec in specs.items():
        where = ("identifier", name)
        one = formats[name] = Format(name, _pattern(spec, where, report), spec.check, spec.letters, spec.about, spec.example)
        if spec.example and (mistake := one.mistake(spec.example)):
            report((*where, "example"), "identifier-example", f"`{spec.example}` {mistake}", "an example is an identifier, of nobody")
        for digits in spec.letters.values():
            if not (digits.isascii() and digits.isdigit()):
                report((*where, "letters"), "identifier-letters", f"`{digits}` is not digits", "say which digits stand for the letters")
        for subject in spec.subjects:
            if subject not in vocabulary.subjects:
                report((*where, "subjects"), "subject-unknown", f"unknown subject type `{subject}`", suggest(subject, vocabulary.subjects))
            subjects[subject] = (*subjects.get(subject, ()), one)
        for form in spec.targets:
            if form not in known:
                report((*where, "targets"), "target-unknown", f"no kind of directive has a target `{form}`", suggest(form, known))
            targets[form] = (*targets.get(form, ()), one)
        for text in spec.paths:
            path = _path(text, vocabulary)
            if path is None:
                help = "write `patient`, or a path that starts with subject, action, resource or context"
                report((*where, "paths"), "path-unknown", f"`{text}` is not part of a request", help)
            else:
                paths[text] = (path, (*paths.get(text, (path, ()))[1], one))
    named = {text: (path, targets[key]) for key, text, path in _properties(vocabulary) if key in targets and text not in paths}
    return Identifiers(formats, subjects, targets, (*paths.values(), *named.values()))


def _properties(vocabulary: Vocabulary) -> Iterator[tuple[str, str, Path]]:
    """Where acts find the properties of what they record: the property, the path, and the path for the actions that have such an act."""
    found: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
    for action, acts in vocabulary.acts.items():
        for key, path in (one for act in acts for one in act.properties):
            if isinstance(path, Path):
                found.setdefault((key, path.text), {})[action] = path.for_action(action)
    for (key, text), by_action in found.items():
        yield key, text, Path(text, (NEVER, text), by_action)


def _pattern(spec: IdentifierSpec, where: tuple[str, ...], report: Report) -> re.Pattern[str]:
    try:
        return re.compile(spec.pattern, re.ASCII)
    except re.error as error:
        report((*where, "pattern"), "identifier-pattern", f"`{spec.pattern}` is not a pattern: {error.msg}", "write it like [0-9]{11}")
        return re.compile("")


def _path(text: str, vocabulary: Vocabulary) -> Path | None:
    if text == "patient":
        return vocabulary.patient
    head, *rest = text.split(".")
    return Path(text, (head, *rest)) if head in ("subject", "action", "resource", "context") and rest and all(rest) else None


# --- checking --------------------------------------------------------------------------------------------------------


def check_identifiers(pack: Pack, one: Request | Directive, where: str = "") -> None:
    """Check every identifier of a request or a directive, wherever the pack says that one stands. Raises `RequestError` at the first that is none.

    One that is absent is not missed here: what a decision does without it is the vocabulary's business.
    """
    places = _of_request(pack, one) if isinstance(one, Request) else _of_directive(pack.identifiers, one)
    for place, value, formats in places:
        _check(formats, value, f"{where}.{place}" if where else place)


def check_patient(pack: Pack, patient: Any, where: str = "patient") -> str:
    """The identifier of a patient, as requests have it where the vocabulary looks for whose record it is; the text itself. Raises `RequestError`."""
    for path, formats in pack.identifiers.paths:
        if path == pack.vocabulary.patient:
            _check(formats, patient, where)
    return str(patient)


def check_identifier(pack: Pack, name: str, value: Any, where: str) -> str:
    """One identifier in the format of that name; the text itself. Raises `RequestError`."""
    _check((pack.identifiers.formats[name],), value, where)
    return str(value)


def _check(formats: Formats, value: Any, where: str) -> None:
    mistakes = [one.mistake(value) for one in formats]
    if all(mistakes):
        message = mistakes[0] if len(formats) == 1 or not isinstance(value, str) else "is an identifier of none of: " + ", ".join(one.name for one in formats)
        raise RequestError(where, message, "; ".join(one.about for one in formats if one.about))


Places = Iterator[tuple[str, Any, Formats]]


def _of_request(pack: Pack, request: Request) -> Places:
    known = pack.identifiers
    if request.subject.type in known.subjects:
        yield "subject.id", request.subject.id, known.subjects[request.subject.type]
    for target, form, value in _targets(pack.vocabulary, request):
        if form in known.targets and value is not None:
            yield target, value, known.targets[form]
    for path, formats in known.paths:
        steps = path.for_action(request.action.name)
        value = request.look_up(steps)
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                yield ".".join(steps), each, formats


def _targets(vocabulary: Vocabulary, request: Request) -> Iterator[tuple[str, str, Any]]:
    """Where the directives that this action records find their target, its form, and its identifier."""
    action = request.action.name
    for target in (act.target for act in vocabulary.acts.get(action, ())):
        if isinstance(target, tuple):
            steps = target[1].for_action(action)
            yield ".".join(steps), target[0], request.look_up(steps)
        elif target is not None:
            steps = target.for_action(action)
            named = request.look_up(steps)
            if isinstance(named, Mapping) and isinstance(form := named.get("type"), str):
                yield ".".join((*steps, "id")), form, named.get("id")


def _of_directive(known: Identifiers, directive: Directive) -> Places:
    """The targets, and the properties that name one (`team` of a membership)."""
    for form, value in directive.targets:
        if form in known.targets:
            yield f"target.{form}", value, known.targets[form]
    for key, text in directive.properties.items():
        if key in known.targets:
            yield key, text, known.targets[key]
