"""The whole job: a request becomes an answer, and the answer is in the log before anybody reads it.

    look    identities settled, the record read once, every resource decided       pure but for one read of the store
    log     one entry for the question, durable when the call returns              only then may an answer leave
    act     a change of the record: logged as asked, done, logged as done

    StoreUnavailable, LogUnavailable     no decision is to be had          StaleToken     the caller knows more than the store: no decision either
    RequestError                         the caller's mistake          FalseClaim     of somebody, contradicted by the directory

What the caller may claim, and how an answer looks on the wire, are the edge's business (api/).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from msgspec import Struct
from msgspec.structs import asdict

from engine.answer import Answer
from engine.consent.acts import Done, Preview, directives_of, patient_of, perform_all, preview
from engine.consent.directives import parse_directives
from engine.consent.directory import Directory
from engine.consent.fold import Record
from engine.consent.identifiers import Formats, check_identifiers
from engine.consent.store import Also, Conflict, ConsentStore, Token, Witness
from engine.decision_log.entries import ActEntry, DecisionEntry, Scribe, encode, new_id, pack_entry, read_of
from engine.errors import RequestError, shown, suggest
from engine.pack import Pack
from engine.pdp import Pdp
from engine.request import Action, Entity, Request
from engine.vocabulary import Path

REMEMBERED = 100_000
"""Identifiers of a kind found well-formed that a service remembers before it starts again."""
PATIENT = ("patient", "")


class FalseClaim(RequestError):
    """A claim about the one who asks, or about whom an act aims at, that the directory contradicts. To be logged, and never decided upon."""


class Log(Protocol):
    """What a service needs of the decision log (`engine.decision_log.log`). Both raise when the entries are not durable."""

    async def append(self, *bodies: bytes) -> None: ...

    def submit(self, bodies: Sequence[bytes], told: Callable[[str | None], None]) -> None: ...

    def append_now(self, *bodies: bytes) -> None: ...


class By(Struct, frozen=True):
    """On whose behalf: the caller as the edge knows it, and the identifier that it gave its request."""

    caller: str
    request: str = ""


class Look(Struct):
    """A question about one record, answered and not yet told to anybody. `withheld`: places of permits that this caller may not have."""

    id: str
    received: float
    patient: str
    token: Token | None
    answers: Sequence[Answer]
    live: Live
    withheld: frozenset[int] = frozenset()

    def permits(self, place: int) -> bool:
        return self.answers[place].permitted and place not in self.withheld


@dataclass(frozen=True, slots=True)
class Live:
    """A pack in use, with the store read by its vocabulary and what its entries need."""

    pdp: Pdp
    store: ConsentStore | None
    scribe: Scribe
    known: dict[tuple[str, str], set[Any]] = field(default_factory=dict)
    """Identifiers found well-formed, and nothing, which is nobody's; by what says their formats: a type of subject, or a path."""
    readers: dict[str, RecordOf] = field(default_factory=dict)
    places: dict[str, Spelled] = field(default_factory=dict)

    def spelled(self, action: str) -> Spelled:
        """Where a resource names somebody, for an action, and the formats of each place. Whose record it is, is checked apart."""
        found = self.places.get(action)
        if found is None:
            pack = self.pdp.pack
            found = tuple(
                (rest[0], self.known.setdefault(("path", str(path)), {None}), formats)
                for path, formats in pack.identifiers.paths
                for head, *rest in [path.for_action(action)]
                if path != pack.vocabulary.patient and head == "resource" and len(rest) == 1 and rest != ["id"]
            )
            if action in pack.vocabulary.actions:
                self.places[action] = found
        return found

    def record_of(self, action: str) -> RecordOf:
        """What tells apart the records that resources belong to, for an action: the input of a resource that says whose it is."""
        reader = self.readers.get(action)
        if reader is None:
            reader = _record_of(self.pdp.pack.vocabulary.patient, action)
            if action in self.pdp.pack.vocabulary.actions:
                self.readers[action] = reader
        return reader


RecordOf: TypeAlias = Callable[[Entity], Any]


def of_one_record(record_of: RecordOf, resources: Sequence[Entity]) -> bool:
    """Whether resources, of which there is at least one, all belong to the same record."""
    records = [record_of(one) for one in resources]
    return records.count(records[0]) == len(records)


Spelled: TypeAlias = tuple[tuple[str, set[Any], Formats], ...]
"""Properties of a resource, each with what was found well-formed there, and the formats that it has."""


def _record_of(patient: Path | None, action: str) -> RecordOf:
    head, *rest = patient.for_action(action) if patient is not None else ("",)
    if head != "resource" or not rest:
        return lambda resource: None
    if rest == ["id"]:
        return lambda resource: resource.id
    if len(rest) == 1:
        name = rest[0]
        return lambda resource: resource.properties.get(name)
    steps, nobody, does = (head, *rest), Entity("", ""), Action(action)
    return lambda resource: Request(nobody, does, resource).look_up(steps)


class Service:
    """Decisions, logged. `store` may be left out for a pack whose rules ask nothing of a record."""

    def __init__(self, pdp: Pdp, store: ConsentStore | None, log: Log, directory: Directory | None = None, clock: Callable[[], float] = time.time):
        self.store, self.log, self.directory, self.clock = store, log, directory, clock
        self.use(pdp)

    def use(self, pdp: Pdp) -> None:
        """Decide with this pack from now on. Its entry is in the log before its first decision."""
        self.log.append_now(pack_entry(pdp, self.clock()))
        store = self.store and self.store.with_vocabulary(pdp.pack.vocabulary).with_directory(self.directory)
        self.live = Live(pdp, store, Scribe(pdp))

    # --- deciding ---

    def look(
        self,
        subject: Entity,
        action: Action,
        resources: Sequence[Entity],
        context: Mapping[str, Any],
        at_least: Token | None = None,
        supported: Collection[str] | None = None,
        witness: Witness | None = None,
    ) -> Look:
        """Decide one question for resources of one patient, and tell nobody yet.

        `supported`: the obligations that the caller says it can do; a permit that owes it another one is withheld. Raises `RequestError` for identifiers that
        are not written as the pack says, `StoreUnavailable`, `StaleToken`.
        """
        live, now = self.live, self.clock()
        first = Request(subject, action, resources[0], context)
        if self.directory is not None:
            first, resources = self.settled(first, resources)
        check_subject(live, first.subject)
        resources = _readable(live, action.name, resources)
        if resources[0] is not first.resource:
            first = Request(first.subject, first.action, resources[0], first.context)
        patient, record, token = self.record(live, first, now, at_least, witness)
        if len(resources) == 1:
            answers: Sequence[Answer] = [live.pdp.decide(first, record)]
        else:
            if not of_one_record(live.record_of(action.name), resources):
                raise RequestError("resource", "resources of several records are decided one record at a time")
            answers = live.pdp.decide_many(first.subject, first.action, resources, first.context, record)
        return Look(new_id(), now, patient, token, answers, live, withheld(answers, supported))

    def settle(self, request: Request) -> Request:
        """A request with main identifiers and what the directory vouches for. Raises `FalseClaim`."""
        if self.directory is None:
            return request
        try:
            return self.directory.settle(request)
        except RequestError as error:
            raise FalseClaim(error.where, error.message, error.help) from None

    def settled(self, first: Request, resources: Sequence[Entity]) -> tuple[Request, Sequence[Entity]]:
        """The same question settled, with every resource; the one who asks is looked up once, and a resource only where it names somebody by another name."""
        directory = self.directory
        if directory is None:
            return first, resources
        request = self.settle(first)
        paths = {path.for_action(first.action.name) for path in directory.paths}
        names = ["" if rest == ["id"] or len(rest) > 1 else rest[0] for head, *rest in paths if head == "resource"]
        made = []
        for one in resources:
            if not all(name and _is_main(directory, one.properties.get(name)) for name in names):
                one = directory.normalise(Request(request.subject, request.action, one, request.context)).resource
            made.append(one)
        return Request(request.subject, request.action, made[0], request.context), made

    def of_record(self, action: str, resource: Entity, patient: str) -> Entity:
        """The resource as one of this patient's record. Raises `RequestError` when it says that it is another's."""
        path = self.live.pdp.pack.vocabulary.patient
        steps = path.for_action(action) if path is not None else ()
        said = self.live.record_of(action)(resource)
        if said not in (None, patient):
            raise RequestError(resource.type, "is of another record than the one that is asked about")
        return resource if said is not None or len(steps) != 2 else Entity(resource.type, resource.id, {**resource.properties, steps[1]: patient})

    def record(
        self, live: Live, request: Request, now: float, at_least: Token | None = None, witness: Witness | None = None
    ) -> tuple[str, Record, Token | None]:
        """Whose record a request is about, and that record now; nobody's for an action that the pack does not have, for which no rule applies. Raises as
        `look` does."""
        vocabulary = live.pdp.pack.vocabulary
        if vocabulary.patient is None or live.store is None or request.action.name not in vocabulary.actions:
            return "", live.pdp.fold((), now), None
        patient = live.record_of(request.action.name)(request.resource)
        if patient.__class__ is not str or patient not in live.known.get(PATIENT, ()):
            patient = patient_of(live.pdp, request)
            _check_patient(live, patient)
        record, token = live.store.read(patient, now, at_least, witness)
        return patient, record, token

    def entry(self, look: Look, by: By, listed: bool) -> bytes:
        """The log's entry for what is about to be told."""
        return encode(said(look, by, "list" if listed else "one"))

    async def decide(self, subject: Entity, action: Action, resources: Sequence[Entity], context: Mapping[str, Any], by: By, **more: Any) -> Look:
        """Decide one question and log it: when this returns, the answers may leave. Raises what `look` does, and `LogUnavailable`."""
        look = self.look(subject, action, resources, context, **more)
        await self.log.append(self.entry(look, by, len(resources) > 1))
        return look

    # --- acts ---

    def act(self, request: Request, by: By, at_least: Token | None = None, supported: Collection[str] | None = None) -> tuple[Look, Done]:
        """Do an act on a record, if the policy permits it and the caller does what the permit obliges it to: the question as it is in the log, and what became
        of it.

        Blocks, so call it from a thread. It is in the log as `asked` before anything is written and as `done` or `refused` after: a log that fails in
        between raises `LogUnavailable`, and the record's own list of acts, where it has the same identifier, says which. Raises what `look` and
        `engine.consent.acts.perform` do.
        """
        return self.act_together([request], by, self.clock(), at_least, supported)[0]

    def act_together(
        self, requests: Sequence[Request], by: By, now: float, at_least: Token | None = None, supported: Collection[str] | None = None,
        also: Also | None = None,
    ) -> list[tuple[Look, Done]]:  # fmt: skip
        """Do several acts on one record, all of them or none (`engine.consent.acts.perform_all`), each in the log like one that is done alone."""
        live = self.live
        if live.store is None:
            raise RequestError("action", "there is no consent store to act on")
        requests = [self._acceptable(live, one) for one in requests]
        patient, record, token = self.record(live, requests[0], now, at_least)
        if any(patient_of(live.pdp, one) != patient for one in requests):
            raise RequestError("patient", "acts that are done together are about one record")
        answers = [live.pdp.decide(one, record) for one in requests]
        looks = [Look(new_id(), now, patient, token, [one], live, withheld([one], supported)) for one in answers]
        if all(one.permits(0) for one in looks):
            for request in requests:
                directives_of(live.pdp, request, record, record.at)  # what an act leaves out is said before anything is
        self._log_acts(looks, by, "asked")
        ids = [one.id for one in looks]
        try:
            done = perform_all(
                live.pdp, live.store, requests, now, Conflict, ids=ids, also=also, admits=lambda one: one.permitted and not withheld([one], supported)
            )
        except (RequestError, Conflict):
            self._log_acts(looks, by, "refused")  # nothing was written
            raise
        for look, one in zip(looks, done, strict=True):
            look.answers, look.withheld = [one.answer], withheld([one.answer], supported)
        self._log_acts(looks, by, "done" if all(one.permits(0) for one in looks) else "refused", done)
        return list(zip(looks, done, strict=True))

    def _acceptable(self, live: Live, request: Request) -> Request:
        check_act(live.pdp.pack, request)
        request = self.settle(request)
        check_identifiers(live.pdp.pack, request)
        return request

    def _log_acts(self, looks: Sequence[Look], by: By, state: str, done: Sequence[Done] = ()) -> None:
        became: list[dict[str, Any]] = [{"directives": one.directives, "after": str(one.token)} for one in done] or [{} for _ in looks]
        self.log.append_now(*(encode(ActEntry(**asdict(said(look, by)), state=state, **more)) for look, more in zip(looks, became, strict=True)))

    # --- looking ahead ---

    def preview(self, look: Look, viewer: Entity, documents: Sequence[Entity], context: Mapping[str, Any], act: Request | None = None) -> list[Preview]:
        """What somebody would be answered for documents of the record that was looked at, now and if `act` were done. Blocks.

        Raises what `engine.consent.acts.preview` does, `FalseClaim`, and `RequestError` for a viewer whom no decision would know.
        """
        live = look.live
        assert live.store is not None
        previewed = live.pdp.pack.service.previewed or ""
        asked, documents = self.settled(Request(viewer, Action(previewed), documents[0], context), documents)
        check_subject(live, asked.subject)
        kept = parse_directives([one.directive for one in live.store.history(look.patient)], live.pdp.pack.vocabulary, kept=True)
        directives = kept if self.directory is None else tuple(map(self.directory.normalise, kept))
        if act is not None:
            act = self._acceptable(live, act)
            if patient_of(live.pdp, act) != look.patient:
                raise RequestError("act", "is of another record than the one that is looked at")
        return preview(live.pdp, directives, act, asked.subject, documents, asked.context, look.answers[0].at, previewed)


# --- identifiers -----------------------------------------------------------------------------------------------------


def check_act(pack: Pack, request: Request) -> None:
    """An act is one that the pack declares, and says nothing that nobody reads. Raises `RequestError`."""
    name, acts = request.action.name, pack.vocabulary.acts
    if name not in acts:
        raise RequestError("action.name", f"{shown(name)} is no act on a record", suggest(name, acts))
    check_read(pack, request)


SLIP = 0.83
"""How close an unknown word is to a known one to be a slip of it: in a word of six letters or more, one that is wrong, missing, doubled or changed places."""


def check_read(pack: Pack, request: Request) -> None:
    """An act says nothing that nobody reads: who writes `untill` means an end, and would give an authorisation without one. Of its context, which callers fill
    for themselves too, what is unknown is left to them unless it is a slip of a member that is read. Raises `RequestError`."""
    name, context = request.action.name, {*read_of(pack, request.action.name, "context"), "basis"}
    for member, value in request.context.items():
        if member not in context and value is not None and (help := suggest(member, context, SLIP)):
            raise RequestError(f"context.{shown(member)[1:-1]}", f"is read by nothing when `{name}` is asked for", help)
    known = read_of(pack, request.action.name)
    for member, value in request.action.properties.items():
        if member not in known and value is not None:
            where, help = f"action.{shown(member)[1:-1]}", suggest(member, known) or "leave it out"
            raise RequestError(where, f"is read by nothing when `{name}` is asked for", help)


def check_subject(live: Live, subject: Entity) -> None:
    """One person under two spellings is two people to a block: whoever asks is written as the pack says, and so is whose record it is."""
    formats = live.pdp.pack.identifiers.subjects.get(subject.type)
    if formats:
        _check(live.known.setdefault(("subject", subject.type), set()), subject.id, "subject.id", formats)


def _check_patient(live: Live, patient: str) -> None:
    pack = live.pdp.pack
    formats = next((several for path, several in pack.identifiers.paths if path == pack.vocabulary.patient), ())
    _check(live.known.setdefault(PATIENT, set()), patient, "patient", formats)


def _check(known: set[Any], value: str, where: str, formats: Formats) -> None:
    if not formats or value in known:
        return
    mistakes = [one.mistake(value) for one in formats]
    if all(mistakes):
        raise RequestError(where, mistakes[0], "; ".join(one.about for one in formats if one.about))
    if len(known) >= REMEMBERED:
        known.clear()
    known |= {None, value}


def _readable(live: Live, action: str, resources: Sequence[Entity]) -> Sequence[Entity]:
    """Resources as the policy reads them: somebody named in a spelling that the pack does not have counts as nobody, so that a fact about him takes the value
    that refuses. The same person under another spelling would be somebody of whom the record says nothing."""
    for name, known, formats in live.spelled(action):
        try:
            plain = known.issuperset([one.properties.get(name) for one in resources])
        except TypeError:  # a list of several
            plain = False
        if not plain:
            resources = [_without_misspelt(known, name, formats, one) for one in resources]
    return resources


def _without_misspelt(known: set[Any], name: str, formats: Formats, resource: Entity) -> Entity:
    value = resource.properties.get(name)
    try:
        for one in () if value is None else value if isinstance(value, list) else [value]:
            _check(known, one, name, formats)
    except (RequestError, TypeError):
        return Entity(resource.type, resource.id, {key: kept for key, kept in resource.properties.items() if key != name})
    return resource


def _is_main(directory: Directory, value: Any) -> bool:
    """Whether the directory has nothing to change in an input of a resource."""
    return value is None or (value.__class__ is str and directory.mains.get(value, value) == value)


# --- answers ---------------------------------------------------------------------------------------------------------


def withheld(answers: Sequence[Answer], supported: Collection[str] | None) -> frozenset[int]:
    """The places of permits that oblige the caller to something it does not say it can do. `supported`: what it can; nothing when it does not say."""
    if supported is None:
        return frozenset()
    return frozenset(
        place for place, one in enumerate(answers) if one.permitted and any(owed.to == "requester" and owed.id not in supported for owed in one.owed)
    )


def said(look: Look, by: By, mode: str = "one") -> DecisionEntry:
    """The entry about a question."""
    scribe, answers = look.live.scribe, look.answers
    request, kept = answers[0].request, scribe.inputs.kept
    subject, action = request.subject, request.action
    return DecisionEntry(
        look.id,
        answers[0].at,
        look.received,
        by.caller,
        look.patient,
        {"type": subject.type, "id": subject.id, "properties": kept("subject", subject.properties)},
        {"name": action.name, "properties": kept("action", action.properties) if action.properties else {}},
        kept("context", request.context),
        look.token.text if look.token else "",
        look.live.pdp.pack.digest,
        mode,
        scribe.items(answers),
        by.request,
        sorted(place for place in look.withheld if place < len(answers)) if look.withheld else (),
    )
