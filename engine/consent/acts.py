"""Acts on a record: what a permitted action records, decided by the policy like anything else.

    request -> decision on the record as it is -> directives of the action (vocabulary.toml, [act]) -> appended, unless the record changed meanwhile

Nothing here knows what a block or a mask is: the pack says which directives an action records. An act that the policy refuses writes no directive. Both are
kept: who asked for what, the rule and its reason, on which record; with the directives in one transaction, or alone. Actions that record nothing (reading,
depositing) are no acts: of these the decision log speaks.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from msgspec import structs

from engine.answer import Answer
from engine.calendar import FOREVER, deadline, iso, parse_instant
from engine.consent.directives import EVERYBODY, Directive, parse_directive
from engine.consent.fold import Record, Statement, fold
from engine.consent.identifiers import check_identifiers
from engine.consent.store import Act as KeptAct
from engine.consent.store import Also, act_body
from engine.errors import RequestError
from engine.evaluator.reference import holds
from engine.facts import input_value, situation
from engine.pdp import Pdp
from engine.request import Action, Entity, Request
from engine.vocabulary import Act, Held, Path, Vocabulary


def directives_of(pdp: Pdp, request: Request, record: Record, at: float) -> list[dict[str, Any]]:
    """The directives, as JSON, that a permitted action records. Raises `RequestError` when the request leaves out what one of them needs.

    An action that records nothing (reading, archiving) gives an empty list. On what basis it was asked for is read from `context.basis`.
    """
    acts = pdp.pack.vocabulary.acts.get(request.action.name, ())
    made = [_directive(act, request, at, pdp.pack.vocabulary) for act in acts if _applies(act, pdp, request, record, at)]
    said = {"recorded": _just_before(at), "recorded_by": request.subject.id, "capacity": request.subject.type}
    basis = request.context.get("basis")
    if isinstance(basis, str) and basis.strip():
        said["basis"] = basis
    for one in made:
        one |= said
        where = f"the directive `{one['kind']}` of `{request.action.name}`"
        directive = parse_directive(one, pdp.pack.vocabulary, where=where, at=at)
        check_identifiers(pdp.pack, directive, where)
        _check_changes(directive, record, where)
        _check_order(directive, record, pdp.pack.vocabulary, where)
    return made


def _check_changes(directive: Directive, record: Record, where: str) -> None:
    """Refuse a statement that ends before another in force that says the same: the longer one would still hold, and whoever asked would believe otherwise."""
    for statement in record.in_force if not directive.withdraw else ():
        known = statement.directive
        same = statement.kind == directive.kind and statement.target in directive.targets and known.properties == directive.properties
        if same and directive.end < known.end:
            until = "has no end" if known.end == FOREVER else "ends later"
            raise RequestError(f"{where}.until", f"overlaps one that is in force and {until}, and would change nothing", "withdraw that one first")


def _check_order(directive: Directive, record: Record, vocabulary: Vocabulary, where: str) -> None:
    """Refuse a date that comes a day or more after what it lies before (`not_after` of its kind). What the record does not say is compared with nothing."""
    if directive.withdraw:
        return
    stated = Statement(directive.kind, directive.targets[0], replace(directive, revision=record.revision + 1))
    said = structs.replace(record, in_force=(*record.in_force, stated), index={})
    for kind in vocabulary.kinds.values():
        for key, others in kind.not_after.items():
            for other in others:
                if directive.kind not in (kind.name, other[1]):
                    continue
                first, then = said.dated(("record", kind.name, key)), said.dated(other)
                due = None if then is None else deadline(then, "days", 1, record.zone)
                if first is not None and due is not None and first >= due:
                    own = directive.kind == kind.name
                    place, sentence = (key, f"is after `{other[1]}.{other[2]}`") if own else (other[2], f"is before `{kind.name}.{key}`")
                    raise RequestError(f"{where}.{place}", f"{sentence} of the record", "correct the one that is wrong")


def _applies(act: Act, pdp: Pdp, request: Request, record: Record, at: float) -> bool:
    if act.when is None:
        return True
    known = situation(pdp.pack.vocabulary.facts.values(), request, record, at)  # all of them: a cell may name a condition that asks for others
    return holds(act.when, known | {"subject.type": request.subject.type, "action.name": request.action.name}, pdp.pack)


def _directive(act: Act, request: Request, at: float, vocabulary: Vocabulary) -> dict[str, Any]:
    made: dict[str, Any] = {"kind": act.kind}
    if act.withdraw:
        made["withdraw"] = True
    if act.target is not None and (target := _target(act.target, request)) is not None:
        made["target"] = target
    if act.from_now and not act.withdraw:
        made["from"] = _just_before(at)
    end = None if act.until is None else _read(act.until, request)
    if end is None and act.days:
        due = deadline(at, "days", act.days, vocabulary.time_zone)
        end = None if due is None else iso(due)
    if end is not None and not act.withdraw:
        made["until"] = end
    for key, word in act.properties:
        value = word if isinstance(word, str) else _read(word, request)
        if isinstance(word, Path) and key in vocabulary.kinds[act.kind].narrows:  # blank, it would be left out, and the act would be wider than it was meant
            value = request.look_up(word.for_action(request.action.name))
        if value is not None:
            made[key] = value
        elif isinstance(word, Path) and key in act.required:
            raise RequestError(".".join(word.for_action(request.action.name)), "is missing", f"`{request.action.name}` says it")
    return made


def _just_before(at: float) -> str:
    """An instant as text, which counts microseconds: the last one that is not after it, so that what starts now is in force now."""
    text = iso(at)
    return text if (parse_instant(text) or at) <= at else iso(at - 1e-6)


def _target(target: Path | tuple[str, Path], request: Request) -> dict[str, Any] | None:
    """At whom or what an act aims; nothing: everybody, of whom a directive says nothing."""
    if isinstance(target, tuple):
        form, path = target
        return {form: _text(_read(path, request), str(path))}
    named = _read(target, request)
    if not isinstance(named, Mapping) or not isinstance(named.get("type"), str):
        raise RequestError(str(target), "must be an object with `type` and `id`", "say at whom or what the act aims")
    interval = {key: named[key] for key in ("from", "until") if named.get(key) is not None}
    if named["type"] == EVERYBODY:
        if interval or named.get("id") is not None:
            raise RequestError(str(target), f"is `{EVERYBODY}`, and names something", "leave out `id`, `from` and `until`, or say what it names")
        return None
    if interval and "id" in named:
        raise RequestError(str(target), "has both an `id` and an interval", "aim at one thing, or at what lies between two instants")
    return {named["type"]: interval or _text(named.get("id"), f"{target}.id")}


def _text(value: Any, where: str) -> str:
    """INVARIANT: an act aims at one thing. Facts about several targets hold when they hold for any of them: what is permitted for one would be done to all."""
    if not isinstance(value, str):
        raise RequestError(where, "must be one identifier, as text", "ask once for each")
    return value


def _read(path: Path, request: Request) -> Any:
    return input_value(request.look_up(path.for_action(request.action.name)))


# --- doing ---------------------------------------------------------------------------------------------------------


class Store(Protocol):
    """What an act needs of a store of directives (`engine.consent.store`): a fresh read, an append that fails when the record changed since, and a place for
    acts that wrote nothing.

    A record's own `at` is the instant to decide at: a store whose clock stepped back gives a later one than it was asked for.
    """

    def read(self, patient: str, at: float) -> tuple[Record, Any]: ...

    def append(
        self, patient: str, directives: Sequence[Mapping[str, Any]], at: float, expect: Any = None, *, acts: Sequence[KeptAct] = (), also: Also | None = None
    ) -> Any: ...

    def note(self, patient: str, acts: Sequence[KeptAct], at: float, token: Any, also: Also | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Done:
    """What became of an act: the policy's answer, the directives written (none when refused), the token of the record as it is now, and the identifier
    under which the act is kept (for an action that is no act: none)."""

    answer: Answer
    directives: tuple[Mapping[str, Any], ...]
    token: Any
    id: str = ""


Admits: TypeAlias = Callable[[Answer], bool]


def patient_of(pdp: Pdp, request: Request) -> str:
    """Whose record a request is about. Raises `RequestError` when it does not say."""
    path = pdp.pack.vocabulary.patient
    value = None if path is None else _read(path, request)
    if not isinstance(value, str):
        raise RequestError(str(path.for_action(request.action.name)[-1]) if path else "patient", "does not say whose record it is")
    return value


def perform(
    pdp: Pdp, store: Store, request: Request, at: float, conflict: type[Exception], tries: int = 5, *, id: str = "", admits: Admits = lambda one: one.permitted
) -> Done:
    """Decide an act on the record as it is and, if it is permitted, append its directives to that very record.

    `conflict` is what the store raises when somebody else wrote first: the act is then decided again on the new record, so that rules about rules (nobody
    blocks a treating physician) hold between two writers too. `id`: what it is to be kept under, such as its entry's in the decision log; a new one, when left
    out. `admits`: whether an answer lets the act be done, for a caller that does not do all that a permit obliges it to. Raises `RequestError` for identifiers
    that are not written as the pack says, and for what is too long to be kept.
    """
    return perform_all(pdp, store, [request], at, conflict, tries, ids=[id] if id else None, admits=admits)[0]


def perform_all(
    pdp: Pdp, store: Store, requests: Sequence[Request], at: float, conflict: type[Exception], tries: int = 5, *,
    ids: Sequence[str] | None = None, also: Also | None = None, admits: Admits = lambda one: one.permitted,
) -> list[Done]:  # fmt: skip
    """Several acts on one patient's record, all of them or none: each is decided on the record as it is, and one that is refused leaves it so.

    `also` writes in the same transaction when they are done, and does not run when one is refused.
    """
    patients = {patient_of(pdp, request) for request in requests}
    if len(patients) != 1:
        raise RequestError("patient", "acts that are done together are about one record")
    for request in requests:
        check_identifiers(pdp.pack, request)
    (patient,) = patients
    acts = pdp.pack.vocabulary.acts
    names = [one if request.action.name in acts else "" for request, one in zip(requests, ids or [new_id() for _ in requests], strict=True)]
    for left in reversed(range(tries)):
        record, token = store.read(patient, at)
        answers = [pdp.decide(request, record) for request in requests]
        if not all(map(admits, answers)):
            if kept := _kept(names, answers, None):
                store.note(patient, kept, record.at, token)
            return [Done(answer, (), token, id) for answer, id in zip(answers, names, strict=True)]
        made = [directives_of(pdp, request, record, record.at) for request in requests]
        several = [one for each in made for one in each]
        kept = _kept(names, answers, made)
        try:
            if several:
                token = store.append(patient, several, record.at, expect=token, acts=kept, also=also)
            elif kept or also:
                store.note(patient, kept, record.at, token, also)
        except conflict:
            if not left:
                raise
        else:
            return [Done(answer, tuple(each), token, id) for answer, each, id in zip(answers, made, names, strict=True)]
    raise AssertionError("tries is at least 1")


def new_id() -> str:
    """A new identifier of an act: 26 characters."""
    return secrets.token_hex(13)


def _kept(ids: Sequence[str], answers: Sequence[Answer], made: Sequence[Sequence[Mapping[str, Any]]] | None) -> list[KeptAct]:
    """The acts among these answers, as they are kept. `made`: the directives of each; none at all when they were not done.

    INVARIANT: the policy's whole reason, of a discreet refusal too; it is for reviewers.
    """
    several = []
    for place, (id, answer) in enumerate(zip(ids, answers, strict=True)):
        if id:
            told = _told(answer) | {"done": made is not None, "directives": len(made[place]) if made is not None else 0}
            act_body(told)  # what is too long is said before anything is written
            several.append(KeptAct(id, answer.request.action.name, answer.decision, answer.rule, told))
    return several


def _told(answer: Answer) -> dict[str, Any]:
    """Who asked for what, at which instant, and what the policy said to it."""
    request, reason = answer.request, answer.outcome.reason
    return {
        "subject": {"type": request.subject.type, "id": request.subject.id, "properties": dict(request.subject.properties)},
        "action": {"name": request.action.name, "properties": dict(request.action.properties)},
        "resource": {"type": request.resource.type, "id": request.resource.id, "properties": dict(request.resource.properties)},
        "context": dict(request.context),
        "at": answer.at,
        "pack": answer.runner.pack.digest,
        "legal_basis": answer.legal_basis,
        "reason": dict(reason.words) if reason else {},
        "discreet": answer.discreet,
    }


# --- looking -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preview:
    """What somebody would be answered for each document: now, and if a patient did something."""

    document: Entity
    now: Answer
    then: Answer


def preview(
    pdp: Pdp, directives: Iterable[Directive], act: Request | None, subject: Entity, documents: Sequence[Entity], context: Mapping[str, Any], at: float,
    previewed: str = "read",
) -> list[Preview]:  # fmt: skip
    """What `subject` would be answered when he reads each document (or does what is `previewed`), now and if `act` were done. The act itself must be one that
    the policy permits.

    Raises `RequestError` when the act would be refused, or is one that could not be done as it is asked for: a preview of what cannot be would mislead.
    """
    known = tuple(directives)
    record = fold(known, pdp.pack.vocabulary, at)
    changed = record
    if act is not None:
        check_identifiers(pdp.pack, act)
        answer = pdp.decide(act, record)
        if not answer.permitted:
            raise RequestError(f"action {act.action.name}", f"would be refused: {answer.words()}")
        act_body(_told(answer))
        place = record.revision + 1
        more = [parse_directive(one, pdp.pack.vocabulary, place + n) for n, one in enumerate(directives_of(pdp, act, record, at))]
        changed = fold((*known, *more), pdp.pack.vocabulary, at)
    reading = Action(previewed)
    now = pdp.decide_many(subject, reading, documents, context, record)
    then = pdp.decide_many(subject, reading, documents, context, changed)
    return [Preview(*one) for one in zip(documents, now, then, strict=True)]


def naming_who_asks(vocabulary: Vocabulary) -> set[str]:
    """The kinds of directives by which somebody who asks may be known: of him, of his structure, of his team. The others speak of documents."""
    return _compared_with(vocabulary, "subject")


def speaking_of_documents(vocabulary: Vocabulary) -> set[str]:
    """The kinds of directives that are compared with a document, such as masks."""
    return _compared_with(vocabulary, "resource")


def _compared_with(vocabulary: Vocabulary, part: str) -> set[str]:
    forms = [fact.form for fact in vocabulary.facts.values() if isinstance(fact.form, Held)]
    return {form.kind for form in forms if any(path is not None and path.steps[0] == part for _, path in form.of)}


def refusing(vocabulary: Vocabulary) -> set[str]:
    """The kinds of directives by which somebody is kept out: what grants starts when it is said, and what refuses holds whatever a clock says."""
    return {one.kind for several in vocabulary.acts.values() for one in several if not one.withdraw and not one.from_now}


@dataclass(frozen=True, slots=True)
class Access:
    """One line of the patient's access list: who, by which statement, between which instants, by way of which group, and who recorded the statement."""

    form: str
    who: str
    kind: str
    start: float
    end: float
    via: str
    recorded_by: str


def access_list(record: Record, vocabulary: Vocabulary, kinds: Iterable[str]) -> list[Access]:
    """Who is named by statements in force of these kinds; the members of a group that one names are listed with it, for as long as both statements hold.

    Says who is named, not who would be permitted: a rule may refuse somebody on this list.
    """
    wanted = set(kinds)
    members = [one for one in record.in_force if vocabulary.kinds[one.kind].group]
    made: list[Access] = []
    for statement in record.in_force:
        form, who = statement.target
        if statement.kind in wanted and isinstance(who, str):
            made.append(_access(statement, statement, ""))
            made += [_access(statement, one, f"{form} {who}") for one in members if vocabulary.kinds[one.kind].group == form and one.has(form) == who]
    return made


def _access(statement: Statement, named: Statement, via: str) -> Access:
    by, who = statement.directive, named.directive
    form, value = named.target
    recorded_by = str(by.source.get("recorded_by", ""))
    return Access(form, str(value), by.kind, max(by.start, who.start), min(by.end, who.end), via, recorded_by)
