"""A pack: one regime's policy, read from its folder, checked, frozen.

    pack.toml vocabulary.toml matrix/*.csv -> vocabulary        rules.csv model.conf -> rules        reasons.csv invariants.csv

The only module of the policy side that touches a disk, in `read_folder`. Everything after it is a function of the bytes. Every mistake of the author is
collected; a pack with one is never loaded. Whether two rules contradict each other is a question to the diagram, not to this module.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any
from zoneinfo import available_timezones

from engine.consent.identifiers import Identifiers, Report, build_identifiers
from engine.errors import Diagnostic, PackError, shown, suggest
from engine.evaluator.check import check_condition, name_problem, parse_checked
from engine.evaluator.conditions import Condition
from engine.sheets import Row, Sheet, decode, read_sheet
from engine.specs import AdmissionSpec, FhirSpec, ObligationSpec, PackSpec, Scalar, ServiceSpec, VocabularySpec
from engine.toml_files import at_key, parse_toml
from engine.vocabulary import Vocabulary
from engine.vocabulary_files import INPUTS, build_vocabulary

MODEL = """
[request_definition]
r = subject, action, resource, context, consent, matrix
[policy_definition]
p = rule, subject, action, when, eft
[role_definition]
g = _, _
[policy_effect]
e = priority(p.eft) || deny
[matchers]
m = (p.subject == '*' || r.subject.type == p.subject) && (p.action == '*' || g(r.action.name, p.action)) && eval(p.when)
"""
"""The one Casbin model that a pack may have. Casbin's other effects and its EnforceContext mean something else, or nothing."""

FILES = ("pack.toml", "vocabulary.toml", "model.conf", "rules.csv", "reasons.csv")
INVARIANTS = "invariants.csv"
"""A pack need not have any."""
FORMS = ("never_permit", "permit_only_if", "monotone")


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of rules.csv."""

    id: str
    subject: str
    action: str
    when: Condition
    effect: str
    text: str
    line: int

    @property
    def permits(self) -> bool:
        return self.effect == "allow"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a rule decides as it does: legal basis, words for the requester by language, obligations, whether the refusal is discreet."""

    rule: str
    legal_basis: str
    discreet: bool
    obligations: tuple[str, ...]
    words: Mapping[str, str]
    sure: str = ""


@dataclass(frozen=True, slots=True)
class Obligation:
    """What goes with an answer. `to` the requester it is part of the reply; to the service it is done from the log."""

    id: str
    to: str
    actions: frozenset[str] | None
    properties: Mapping[str, str]
    words: Mapping[str, str]

    def is_owed_by(self, action: str) -> bool:
        return self.actions is None or action in self.actions


@dataclass(frozen=True, slots=True)
class Invariant:
    """What must hold in every situation of the slices it names; proved at each compile."""

    id: str
    form: str
    subject: str
    action: str
    fact: str
    condition: Condition | None
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Pack:
    """A checked pack. `groups` maps each action to every name that a rule may call it by; `defaults` answer when no rule does, first match first.

    `directory` is the format of identifier of the people of whom a directory speaks.
    """

    name: str
    version: int
    title: str
    languages: tuple[str, ...]
    node_budget: int
    settings: Mapping[str, Scalar]
    vocabulary: Vocabulary
    groups: Mapping[str, frozenset[str]]
    rules: tuple[Rule, ...]
    defaults: tuple[tuple[str, str], ...]
    reasons: Mapping[str, Reason]
    obligations: Mapping[str, Obligation]
    invariants: tuple[Invariant, ...]
    discreet: Mapping[str, str]
    fhir: FhirSpec
    identifiers: Identifiers
    admission: AdmissionSpec | None
    digest: str
    files: Mapping[str, bytes] = field(repr=False)
    overrides: Mapping[str, Scalar] = field(default_factory=dict)
    warnings: tuple[Diagnostic, ...] = ()
    directory: str | None = None
    service: ServiceSpec = field(default_factory=ServiceSpec)

    def groups_of(self, action: str) -> frozenset[str]:
        return self.groups.get(action, frozenset())

    def default_for(self, action: str) -> str | None:
        """The rule that answers when no line does; nothing: no rule applies."""
        return next((rule for name, rule in self.defaults if name in self.groups_of(action)), None)

    @property
    def language(self) -> str:
        """The language of Habilis' own messages, where the pack speaks it; otherwise its first."""
        return "en" if "en" in self.languages else self.languages[0]

    @property
    def by_id(self) -> Mapping[str, Rule]:
        return {rule.id: rule for rule in self.rules}


def load_pack(folder: str | FilePath, settings: Mapping[str, Scalar] | None = None) -> Pack:
    """Read and check the pack in a folder; `settings` replace values of pack.toml. Raises `PackError` with every mistake."""
    return parse_pack(read_folder(folder), settings)


def read_folder(folder: str | FilePath) -> dict[str, bytes]:
    """The files of a pack: those at its top and the sheets of its folders, by relative path."""
    root = FilePath(folder)
    if not root.is_dir():
        raise PackError([Diagnostic("pack-missing", f"there is no folder `{folder}`", str(folder), help="name the folder that holds pack.toml")])
    paths = [root / name for name in (*FILES, INVARIANTS)] + sorted(root.glob("*/*.csv"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def parse_pack(files: Mapping[str, bytes], settings: Mapping[str, Scalar] | None = None) -> Pack:
    """Check the files of a pack. Raises `PackError` with every mistake found."""
    found: list[Diagnostic] = []
    for name in FILES:
        if name not in files:
            found.append(Diagnostic("file-missing", f"the file `{name}` is missing", name, help="a pack has " + ", ".join(FILES)))
    spec = parse_toml(PackSpec, "pack.toml", files, found)
    words = parse_toml(VocabularySpec, "vocabulary.toml", files, found)
    if spec is None or words is None:
        raise PackError(found)
    if spec.pack.time_zone not in available_timezones():
        message, help = f"{shown(spec.pack.time_zone)} is not a time zone", suggest(spec.pack.time_zone, available_timezones()) or "such as Europe/Paris"
        found.append(at_key("pack.toml", files, ("pack", "time_zone"), "time-zone", message, help))
    values = _settings(spec, settings or {}, files, found)
    vocabulary = build_vocabulary(words, values, spec.pack.time_zone, files, found)
    identifiers = build_identifiers(spec.identifier, vocabulary, _reporter(files, found))
    if spec.directory and (name := spec.directory.identifier) not in spec.identifier:
        help = suggest(name, spec.identifier) or "declare it under [identifier]"
        found.append(at_key("pack.toml", files, ("directory", "identifier"), "value-unknown", f"there is no format of identifier `{name}`", help))
    _check_admission(spec, vocabulary, _reporter(files, found))
    _check_service(spec, vocabulary, _reporter(files, found))
    _check_model(files, found)
    actions = tuple(vocabulary.actions)
    groups, rules, lines = _parse_rules(files, vocabulary, found)
    obligations = {id: _obligation(id, one, spec.pack.languages) for id, one in spec.obligation.items()}
    _check_obligations(spec, actions, files, found)
    known = None if lines is None else {*set().union(*groups.values()), "*"}
    defaults = _defaults(spec, known, rules, files, found)
    reasons = _parse_reasons(files, spec, rules, lines, defaults, obligations, found)
    invariants = _parse_invariants(files, vocabulary, known, found)
    if any(reason.discreet for reason in reasons.values()) and (missing := [one for one in spec.pack.languages if not spec.discreet.get(one)]):
        found.append(at_key("pack.toml", files, ("discreet",), "discreet-words", f"the discreet text in `{missing[0]}` is missing", "add it under [discreet]"))
    if any(d.severity == "error" for d in found):
        raise PackError(found)
    return Pack(
        spec.pack.name, spec.pack.version, spec.pack.title, tuple(spec.pack.languages), spec.pack.node_budget, values, vocabulary, groups,
        rules, defaults, reasons, obligations, invariants, spec.discreet, spec.fhir, identifiers, spec.admission,
        _digest(files, settings), dict(files), dict(settings or {}), tuple(found), spec.directory.identifier if spec.directory else None, spec.service,
    )  # fmt: skip


# --- what pack.toml's optional tables say ----------------------------------------------------------------------------


def _reporter(files: Mapping[str, bytes], found: list[Diagnostic]) -> Report:
    """What the builders of pack.toml's optional tables say their mistakes to."""
    return lambda where, code, message, help: found.append(at_key("pack.toml", files, where, code, message, help))


def _check_service(spec: PackSpec, vocabulary: Vocabulary, report: Report) -> None:
    """What `[service]` names: actions of the vocabulary, obligations of the pack; a preview is a preview of something."""
    one = spec.service
    for key in ("access_list", "traces", "preview", "previewed"):
        action = getattr(one, key)
        if action is not None and action not in vocabulary.actions:
            report(("service", key), "action-unknown", f"unknown action `{action}`", suggest(action, vocabulary.actions))
    for id in one.known_documents:
        if id not in spec.obligation:
            help = suggest(id, spec.obligation) or "declare it in pack.toml"
            report(("service", "known_documents"), "obligation-unknown", f"unknown obligation `{id}`", help)
    if (one.preview is None) != (one.previewed is None):
        key, other = ("preview", "previewed") if one.previewed is None else ("previewed", "preview")
        report(("service", key), "key-missing", f"the key `{other}` is missing", f"`{key}` says nothing without it: add it to `service`")


_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
_FIELD = re.compile(_SEGMENT.pattern + r"-[1-9][0-9]?")
_PLACE = re.compile(_FIELD.pattern + r"(\.[1-9][0-9]?)?")


def _check_admission(spec: PackSpec, vocabulary: Vocabulary, report: Report) -> None:
    """What `[admission]` says of places in a message, of formats of identifiers, and of what the vocabulary declares."""
    one = spec.admission
    if one is None:
        return
    named = [(("admission", "patient", "at"), one.patient.at, _FIELD), (("admission", "structure", "at"), one.structure.at, _FIELD)]
    named += [(("admission", "structure", "authorities"), place, _PLACE) for place in one.structure.authorities]
    named += [(("admission", "segments"), segment, _SEGMENT) for segment in one.segments]
    for place, said in one.places.items():
        where = ("admission", "field", place)
        named += [(where, place, _PLACE), ((*where, "date"), said.date or place, _PLACE)]
        for action in filter(None, said.codes.values()):
            if action not in vocabulary.actions:
                report((*where, "codes"), "action-unknown", f"unknown action `{action}`", suggest(action, vocabulary.actions))
    for where, text, shape in named:
        if not shape.fullmatch(text):
            help = "write a segment like ZFA, a field like PID-3, a component like PID-3.4"
            report(where, "path-unknown", f"`{text}` is not a place in a message", help)
    for action in one.action:
        if action not in vocabulary.actions:
            report(("admission", "action", action), "action-unknown", f"unknown action `{action}`", suggest(action, vocabulary.actions))
    for key, name in (("patient", one.patient.identifier), ("structure", one.structure.identifier)):
        if name not in spec.identifier:
            help = suggest(name, spec.identifier) or "declare it under [identifier]"
            report(("admission", key, "identifier"), "value-unknown", f"there is no format of identifier `{name}`", help)
    where, kind = ("admission", "subject"), one.subject.get("type", "")
    if kind and kind not in vocabulary.subjects:
        report(where, "subject-unknown", f"unknown subject type `{kind}`", suggest(kind, vocabulary.subjects))
    for key in ("type", "id"):
        if key not in one.subject:
            report(where, "key-missing", f"the key `{key}` is missing", "say who asks; the sender's identifier is `@structure`")


def _obligation(id: str, spec: ObligationSpec, languages: Collection[str]) -> Obligation:
    actions = None if spec.actions is None else frozenset(spec.actions)
    return Obligation(id, spec.to, actions, spec.properties, {one: text for one in languages if (text := (spec.model_extra or {}).get(one))})


def _check_obligations(spec: PackSpec, actions: tuple[str, ...], files: Mapping[str, bytes], found: list[Diagnostic]) -> None:
    keys = [*ObligationSpec.model_fields, *spec.pack.languages]
    for id, one in spec.obligation.items():
        words = one.model_extra or {}
        for key in words.keys() - keys:
            help = suggest(key, keys) or "its words are in the languages of the pack: " + ", ".join(f"`{one}`" for one in spec.pack.languages)
            found.append(at_key("pack.toml", files, ("obligation", id, key), "key-unknown", f"`{key}` is not a key here", help))
        for language in spec.pack.languages:
            if not words.get(language):
                message = f"the words of the obligation `{id}` in `{language}` are missing"
                found.append(at_key("pack.toml", files, ("obligation", id, language), "obligation-words", message, "say what is to be done"))
        for action in one.actions or ():
            if action not in actions:
                at = ("obligation", id, "actions")
                found.append(at_key("pack.toml", files, at, "action-unknown", f"unknown action `{action}`", suggest(action, actions)))
        for text in one.properties.values():
            head, *rest = text.removeprefix("@").split(".")
            if text.startswith("@") and (head not in INPUTS or not all(rest) or not rest):
                help = suggest(head, INPUTS) or "a path starts with " + ", ".join(INPUTS)
                found.append(at_key("pack.toml", files, ("obligation", id, "properties"), "path-unknown", f"`{text[1:]}` is not part of a request", help))


def _settings(spec: PackSpec, given: Mapping[str, Scalar], files: Mapping[str, bytes], found: list[Diagnostic]) -> dict[str, Scalar]:
    """The value of every setting: the file's, or the one given instead."""
    values: dict[str, Scalar] = {}
    for name in given:
        if name not in spec.setting:
            found.append(Diagnostic("setting-unknown", f"there is no setting `{name}`", "pack.toml", help=suggest(name, spec.setting)))
    for name, one in spec.setting.items():
        value, message, help = given.get(name, one.value), "", ""
        if one.choices is not None and value not in one.choices:
            message, help = f"{shown(value)} is not a value of the setting `{name}`", "choose one of " + ", ".join(map(shown, one.choices))
        elif type(value) is not type(one.value):
            message, help = f"{shown(value)} is not of the kind of the setting `{name}`", f"such as {shown(one.value)}"
        elif (one.unit and type(value) is not int) or (type(value) is int and value < 0):
            message, help = f"the setting `{name}` is a number" + (f" of {one.unit}" if one.unit else ""), "write a whole number from 0"
        if message:
            found.append(at_key("pack.toml", files, ("setting", name, "value"), "setting-value", message, help))
        values[name] = one.value if message else value
    return values


# --- Casbin's two files ----------------------------------------------------------------------------------------------


def _check_model(files: Mapping[str, bytes], found: list[Diagnostic]) -> None:
    if "model.conf" not in files:
        return
    if files["model.conf"].startswith(b"\xef\xbb\xbf"):
        found.append(Diagnostic("casbin-bom", "this file starts with a byte-order mark", "model.conf", 1, help="save it as UTF-8 without one"))
    text = decode("model.conf", files["model.conf"], found)
    if text is not None and _statements(text) != _statements(MODEL):
        message = "this is not the model that a pack has: another effect or matcher would mean something else"
        found.append(Diagnostic("model-changed", message, "model.conf", help="restore it:" + MODEL.rstrip().replace("\n", "\n    ")))


def _statements(text: str) -> list[str]:
    lines = (re.sub(r"\s+", " ", line).strip() for line in _casbin_lines(text))
    return [line for line in lines if line and not line.startswith("#")]


def _casbin_lines(text: str) -> list[str]:
    """The lines of a file as Casbin's readers end them: at a line feed alone, where Python would also end one at a form feed and others."""
    return re.split(r"\r?\n", text)


def _parse_rules(
    files: Mapping[str, bytes], vocabulary: Vocabulary, found: list[Diagnostic]
) -> tuple[dict[str, frozenset[str]], tuple[Rule, ...], dict[str, int] | None]:
    """The groups of actions and the rules of rules.csv, read as pycasbin and node-casbin read it, and refusing what one of them would drop or twist.

    Also the line of every rule, those with mistakes too; nothing when some line cannot be read, so that nobody knows what rules it has.
    """
    name = "rules.csv"
    data = files.get(name, b"")
    if data.startswith(b"\xef\xbb\xbf"):
        message = "this file starts with a byte-order mark: Casbin would drop its first line"
        found.append(Diagnostic("casbin-bom", message, name, 1, help="save it as UTF-8 without one"))
    text = decode(name, data, found)
    links: list[_Link] = []
    written: list[tuple[int, str, list[str]]] = []
    before = len(found)
    for number, raw in enumerate(_casbin_lines(text or ""), 1):
        line = raw.strip()
        if not line or line.startswith("#") or _casbin_hazard(name, number, raw, found):
            continue
        cells = [cell.strip() for cell in line.split(",")]
        if cells[0] == "g" and len(cells) == 3 and all(cells):
            links.append(_Link(number, raw, cells[1], cells[2]))
        elif cells[0] == "p" and len(cells) == 6 and all(cells):
            written.append((number, raw, cells))
        elif cells[0] in ("p", "g"):
            shape = "p, rule, subject, action, when, effect" if cells[0] == "p" else "g, action or group, group"
            message = f"this line has {len(cells)} parts" + (", one of them empty" if not all(cells) else "")
            found.append(Diagnostic("rule-parts", message, name, number, text=raw, help=f"write `{shape}`"))
        else:
            message = f"a line starts with `p` or `g`, not `{cells[0]}`: Casbin would drop it"
            found.append(Diagnostic("rule-line", message, name, number, *_span(raw, 0), raw, "write `p` before a rule, `g` before a group"))
    unreadable = text is None or name not in files or len(found) > before
    if not written and not unreadable:
        found.append(Diagnostic("rules-empty", "this file has no rule", name, help="an empty policy decides nothing; write at least one `p` line"))
    groups = _groups(links, vocabulary, found)
    names = {*set().union(*groups.values()), "*"}
    lines: dict[str, int] = {}
    rules: list[Rule] = []
    for number, raw, (_, id, subject, action, when, effect) in written:
        if id in lines:
            message = f"the rule `{id}` stands twice, first on line {lines[id]}"
            found.append(Diagnostic("rule-repeated", message, name, number, *_span(raw, 1), raw, "give it an id of its own"))
        lines.setdefault(id, number)
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", id):
            found.append(Diagnostic("rule-id", f"`{id}` is not an id", name, number, *_span(raw, 1), raw, "use letters, digits, `_`, `.` and `-`"))
        if subject not in (*vocabulary.subjects, "*"):
            help = _one_of(subject, [*vocabulary.subjects, "*"])
            found.append(Diagnostic("subject-unknown", f"unknown subject type `{subject}`", name, number, *_span(raw, 2), raw, help))
        if action not in names and not unreadable:
            found.append(Diagnostic("action-unknown", f"unknown action or group `{action}`", name, number, *_span(raw, 3), raw, suggest(action, names)))
        if effect not in ("allow", "deny"):
            help = suggest(effect.lower(), ("allow", "deny")) or "write `allow` or `deny`"
            found.append(Diagnostic("effect-unknown", f"`{effect}` is no effect: Casbin would take it for neither", name, number, *_span(raw, 5), raw, help))
        tree = parse_checked(when, vocabulary, name, number, _span(raw, 4)[0] - 1, raw, found)
        if tree is not None:
            rules.append(Rule(id, subject, action, tree, effect, when, number))
    return groups, tuple(rules), None if unreadable or not written else lines


def _one_of(word: str, known: Collection[str]) -> str:
    """The help for an unknown word: the close one, or all."""
    return suggest(word, known) or "it is one of " + ", ".join(f"`{one}`" for one in known)


def _casbin_hazard(name: str, number: int, raw: str, found: list[Diagnostic]) -> bool:
    """What Casbin's readers would silently twist: quotes, comments at the end of a line, semicolons, brackets, characters that cannot be seen."""
    unseen = next((sign for sign in raw if not sign.isprintable()), "")
    for sign, code, message, help in (
        ('"', "casbin-quotes", "Casbin takes a condition in double quotes for a constant that is true", "leave the quotes out"),
        ("#", "casbin-comment", "Casbin takes a comment at the end of a line for part of the effect", "put the comment on a line of its own"),
        (";", "casbin-semicolons", "Casbin separates by commas", "replace the semicolons"),
        ("[", "casbin-bracket", "Casbin counts brackets when it splits a line", "leave them out"),
        ("]", "casbin-bracket", "Casbin counts brackets when it splits a line", "leave them out"),
        ("\t", "casbin-tab", "Casbin separates by commas", "replace the tabs"),
        (unseen, "casbin-invisible", "Casbin's readers disagree on characters that cannot be seen", "type the line again"),
    ):
        if sign and sign in raw:
            found.append(Diagnostic(code, message, name, number, raw.index(sign) + 1, 1, raw, help))
            return True
    return False


def _span(raw: str, place: int) -> tuple[int, int]:
    """The column (from 1) and the length of a part of a line of rules.csv."""
    parts = raw.split(",")
    word = parts[place].strip()
    return sum(len(part) + 1 for part in parts[:place]) + parts[place].index(word) + 1, max(1, len(word))


@dataclass(frozen=True, slots=True)
class _Link:
    """A `g` line: an action or a group, and the group that it is in."""

    line: int
    raw: str
    child: str
    parent: str

    def mistake(self, code: str, message: str, part: int, help: str) -> Diagnostic:
        return Diagnostic(code, message, "rules.csv", self.line, *_span(self.raw, part), self.raw, help)


MAX_GROUPS_UP = 9
"""How far up pycasbin follows groups; node-casbin goes one further."""


def _groups(links: list[_Link], vocabulary: Vocabulary, found: list[Diagnostic]) -> dict[str, frozenset[str]]:
    """Every name that each action answers to: its own, and those of the groups it is in, however far up."""
    above: dict[str, set[str]] = {}
    parents = {link.parent for link in links}
    for link in links:
        above.setdefault(link.child, set()).add(link.parent)
        if link.child not in vocabulary.actions and link.child not in parents:
            help = suggest(link.child, [*vocabulary.actions, *parents])
            found.append(link.mistake("action-unknown", f"unknown action or group `{link.child}`", 1, help))
        if problem := name_problem(link.parent):
            found.append(link.mistake("name-plain", f"`{link.parent}` is not a plain name", 2, problem))
        if link.parent in vocabulary.actions:
            found.append(link.mistake("group-name", f"`{link.parent}` is an action, not a group", 2, "give the group a name of its own"))
    made: dict[str, frozenset[str]] = {}
    far: set[str] = set()
    for action in vocabulary.actions:
        names, level, distance = {action}, {action}, 0
        while level:
            level = set().union(*(above.get(one, ()) for one in level)) - names
            names |= level
            distance += 1
            far |= level if distance > MAX_GROUPS_UP else set()
        made[action] = frozenset(names)
    reached = set().union(*made.values())
    for link in links:
        if link.child not in reached and link.child in parents:
            help = "a group holds actions, or groups that hold some; not itself"
            found.append(link.mistake("group-loop", f"no action reaches the group `{link.child}`", 1, help))
        if link.parent in far and link.child not in far:
            message = f"the group `{link.parent}` is more than {MAX_GROUPS_UP} groups above an action: Casbin does not look so far"
            found.append(link.mistake("group-far", message, 2, "put the actions in it directly"))
    return made


# --- defaults, reasons, invariants -----------------------------------------------------------------------------------


def _defaults(
    spec: PackSpec, known: Collection[str] | None, rules: tuple[Rule, ...], files: Mapping[str, bytes], found: list[Diagnostic]
) -> tuple[tuple[str, str], ...]:
    """What answers when no rule does: always a refusal. `known`: the actions and groups; nothing when rules.csv cannot be read."""
    permits = {rule.id for rule in rules if rule.permits}
    for name, rule in spec.default.items():
        at = ("pack.toml", files, ("default", name))
        if known is not None and name not in known:
            found.append(at_key(*at, "action-unknown", f"unknown action or group `{name}`", suggest(name, known)))
        if rule in permits:
            message = f"the default of `{name}` is the rule `{rule}`, which permits"
            found.append(at_key(*at, "default-permit", message, "a default refuses: give it an id of its own"))
    return tuple(spec.default.items())


def _parse_reasons(
    files: Mapping[str, bytes], spec: PackSpec, rules: tuple[Rule, ...], lines: Mapping[str, int] | None,
    defaults: tuple[tuple[str, str], ...], obligations: Mapping[str, Obligation], found: list[Diagnostic],
) -> dict[str, Reason]:  # fmt: skip
    """The reasons, one for each rule and default. `lines`: where each rule stands; nothing when some cannot be read."""
    if "reasons.csv" not in files:
        return {}
    name, languages = "reasons.csv", tuple(spec.pack.languages)
    sheet = read_sheet(name, files[name], ("rule", "legal_basis", "discreet", "obligations", *languages), found)
    if not sheet.rows:
        return {}
    permits = {rule.id for rule in rules if rule.permits}
    ids = {*(lines or ()), *(rule for _, rule in defaults)}
    made: dict[str, Reason] = {}
    for id, row in _unrepeated(sheet, "rule", "reason-repeated", "the rule `{}` has two reasons", found).items():
        at = {"file": name, "line": row.line}
        if id not in ids and lines is not None:
            help = suggest(id, ids) or "remove this row, or write the rule"
            found.append(Diagnostic("reason-without-rule", f"there is no rule `{id}`", help=help, **at))
        if row["discreet"] not in ("yes", "no"):
            found.append(Diagnostic("reason-discreet", f"`discreet` is `{row['discreet']}`", help="write `yes` or `no`", **at))
        owed = tuple(row["obligations"].split())
        for one in owed:
            if one not in obligations:
                help = suggest(one, obligations) or "declare it in pack.toml; a space separates several"
                found.append(Diagnostic("obligation-unknown", f"unknown obligation `{one}`", help=help, **at))
        discreet = row["discreet"] == "yes"
        if discreet and (told := [one for one in owed if one in obligations and obligations[one].to == "requester"]):
            message = f"the discreet refusal `{id}` owes `{told[0]}` to the requester: that would reveal what it conceals"
            found.append(Diagnostic("discreet-obligation", message, help="leave it to the service, or out", **at))
        if discreet and id in permits:
            found.append(Diagnostic("discreet-permit", f"the rule `{id}` permits: only a refusal is discreet", help="write `no`", **at))
        for language in languages:
            if not row[language]:
                message = f"the words of `{id}` in `{language}` are missing"
                found.append(Diagnostic("reason-words", message, help="say to the requester what was decided", **at))
        if not row["legal_basis"]:
            found.append(Diagnostic("reason-basis", f"the rule `{id}` has no legal basis", help="name the article, or say that it is a choice", **at))
        made[id] = Reason(id, row["legal_basis"], discreet, owed, {one: row[one] for one in languages}, row.cells.get("sure", ""))
    for id in sorted(ids - made.keys()):
        code, message, help = "rule-without-reason", f"the rule `{id}` has no row in reasons.csv", "say why it decides so"
        if lines and id in lines:
            found.append(Diagnostic(code, message, "rules.csv", lines[id], help=help))
        else:
            action = next(name for name, rule in defaults if rule == id)
            found.append(at_key("pack.toml", files, ("default", action), code, message, help))
    return made


def _unrepeated(sheet: Sheet, column: str, code: str, sentence: str, found: list[Diagnostic]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for row in sheet:
        key = row[column]
        if key in rows:
            found.append(Diagnostic(code, sentence.format(key) + f", first on line {rows[key].line}", sheet.file, row.line, help="keep one of them"))
        else:
            rows[key] = row
    return rows


def _parse_invariants(
    files: Mapping[str, bytes], vocabulary: Vocabulary, known: Collection[str] | None, found: list[Diagnostic]
) -> tuple[Invariant, ...]:
    name = INVARIANTS
    if name not in files:
        return ()
    sheet = read_sheet(name, files[name], ("id", "form", "subject", "action", "fact", "condition"), found, may_be_empty=True)
    texts = re.split(r"\r\n|\r|\n", files[name].decode("utf-8-sig", "replace"))
    made: list[Invariant] = []
    for id, row in _unrepeated(sheet, "id", "invariant-repeated", "the invariant `{}` stands twice", found).items():
        at = {"file": name, "line": row.line}
        raw = texts[row.line - 1]
        if row["form"] not in FORMS:
            found.append(Diagnostic("invariant-form", f"`{row['form']}` is not a form of invariant", help=_one_of(row["form"], FORMS), **at))
        if row["subject"] not in (*vocabulary.subjects, "*"):
            help = _one_of(row["subject"], [*vocabulary.subjects, "*"])
            found.append(Diagnostic("subject-unknown", f"unknown subject type `{row['subject']}`", help=help, **at))
        if known is not None and row["action"] not in known:
            found.append(Diagnostic("action-unknown", f"unknown action or group `{row['action']}`", help=suggest(row["action"], known), **at))
        fact = row["fact"].removeprefix("r.")
        if row["form"] == "monotone":
            turning = [name for name, one in vocabulary.facts.items() if one.is_boolean]
            if fact not in turning:
                help = suggest(fact, turning) or "such a fact turns from false to true"
                found.append(Diagnostic("fact-unknown", f"`{row['fact']}` is not a fact that is true or false", help=help, **at))
        elif not row["condition"]:
            found.append(Diagnostic("invariant-condition", f"the invariant `{id}` has no condition", help="say what it is about", **at))
        offset = max(0, raw.find(row["condition"]))
        tree = parse_checked(row["condition"], vocabulary, name, row.line, offset, raw, found) if row["condition"] else None
        made.append(Invariant(id, row["form"], row["subject"], row["action"], fact, tree, row["condition"], row.line))
    return tuple(made)


# --- digest ----------------------------------------------------------------------------------------------------------


def _digest(files: Mapping[str, bytes], settings: Mapping[str, Scalar] | None) -> str:
    """SHA-256 of the pack's canonical bytes: what the files say, whatever the spreadsheet's dialect, comments and line ends.

    Keys stay in the order of the file, which decides between defaults.
    """
    canonical = {name: canonical_file(name, files[name]) for name in sorted(files)}
    text = json.dumps([canonical, dict(sorted((settings or {}).items()))], ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def canonical_file(name: str, data: bytes) -> Any:
    """What a file says, without how it is written down."""
    if name.endswith(".toml"):
        return tomllib.loads(data.decode("utf-8-sig"))
    if name.endswith(".csv") and name != "rules.csv":
        sheet = read_sheet(name, data, (), [])
        return [list(sheet.columns), *([row[column] for column in sheet.columns] for row in sheet)]
    return [[part.strip() for part in line.split(",")] for line in _statements(data.decode("utf-8-sig"))]


__all__ = ["Invariant", "Obligation", "Pack", "Reason", "Rule", "check_condition", "load_pack", "parse_pack", "read_folder"]
