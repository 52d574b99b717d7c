"""The whole job: a request becomes an answer, and the answer is in the log before anybody reads it.

    look    identities settled, the record read once, every resource decided       pure but for one read of the store
    log     one entry for the question, durable when the call returns              only then may an answer leave
    act     a change of the record: logged as asked, done, logged as done

    StoreUnavailable, LogUnavailable     no decision is to be had          StaleToken     the caller knows more than the store: no decision either
    RequestError                         the caller's mistake

What the caller may claim, and how an answer looks on the wire, are the edge's business (api/).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.answer import Answer
from engine.consent.acts import Done, patient_of, perform
from engine.consent.directory import Directory
from engine.consent.fold import Record
from engine.consent.identifiers import Formats
from engine.consent.store import Conflict, ConsentStore, Token
from engine.decision_log.entries import ActEntry, DecisionEntry, Scribe, encode, new_id, pack_entry
from engine.errors import RequestError
from engine.pdp import Pdp
from engine.request import Action, Entity, Request

REMEMBERED = 100_000
"""Identifiers found well-formed that a service remembers before it starts again."""


class Log(Protocol):
    """What a service needs of the decision log (`engine.decision_log.log`). Both raise when the entries are not durable."""

    async def append(self, *bodies: bytes) -> None: ...

    def append_now(self, *bodies: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class By:
    """On whose behalf: the caller as the edge knows it, and the identifier that it gave its request."""

    caller: str
    request: str = ""


@dataclass(slots=True)
class Look:
    """A question about one record, answered and not yet told to anybody. `withheld`: places of permits that this caller may not have."""

    id: str
    received: float
    patient: str
    token: Token | None
    answers: Sequence[Answer]
    live: Live
    withheld: Collection[int] = ()

    def permits(self, place: int) -> bool:
        return self.answers[place].permitted and place not in self.withheld


@dataclass(frozen=True, slots=True)
class Live:
    """A pack in use, with the store read by its vocabulary and what its entries need."""

    pdp: Pdp
    store: ConsentStore | None
    scribe: Scribe
    known: set[tuple[str, str]] = field(default_factory=set)


class Service:
    """Decisions, logged. `store` may be left out for a pack whose rules ask nothing of a record."""

    def __init__(self, pdp: Pdp, store: ConsentStore | None, log: Log, directory: Directory | None = None, clock: Callable[[], float] = time.time):
        self.store, self.log, self.directory, self.clock = store, log, directory, clock
        self.use(pdp)

    def use(self, pdp: Pdp) -> None:
        """Decide with this pack from now on. Its entry is in the log before its first decision."""
        self.log.append_now(pack_entry(pdp, self.clock()))
        self.live = Live(pdp, self.store and self.store.with_vocabulary(pdp.pack.vocabulary), Scribe(pdp))

    # --- deciding ---

    def look(
        self,
        subject: Entity,
        action: Action,
        resources: Sequence[Entity],
        context: Mapping[str, Any],
        at_least: Token | None = None,
        supported: Collection[str] | None = None,
    ) -> Look:
        """Decide one question for resources of one patient, and tell nobody yet.

        `supported`: the obligations that the caller says it can do; a permit that owes it another one is withheld. Raises `RequestError` for identifiers that
        are not written as the pack says, `StoreUnavailable`, `StaleToken`.
        """
        live, now = self.live, self.clock()
        if self.directory is not None:
            settled = [self.directory.settle(Request(subject, action, resource, context)) for resource in resources]
            subject, action, resources = settled[0].subject, settled[0].action, [one.resource for one in settled]
        first = Request(subject, action, resources[0], context)
        _check_subject(live, subject)
        patient, record, token = self.record(live, first, now, at_least)
        if len(resources) > 1 and len({self.record_of(action.name, one) for one in resources}) > 1:
            raise RequestError("resource", "resources of several records are decided one record at a time")
        if len(resources) == 1:
            answers: Sequence[Answer] = [live.pdp.decide(first, record)]
        else:
            answers = live.pdp.decide_many(subject, action, resources, context, record)
        return Look(new_id(), now, patient, token, answers, live, _withheld(answers, supported) if supported is not None else ())

    def record_of(self, action: str, resource: Entity) -> Any:
        """What tells apart the records that resources belong to: the input that names the patient, where the resource has it."""
        path = self.live.pdp.pack.vocabulary.patient
        steps = path.for_action(action) if path is not None else ()
        if len(steps) != 2 or steps[0] != "resource":
            return None
        return resource.id if steps[1] == "id" else resource.properties.get(steps[1])

    def of_record(self, action: str, resource: Entity, patient: str) -> Entity:
        """The resource as one of this patient's record. Raises `RequestError` when it says that it is another's."""
        path = self.live.pdp.pack.vocabulary.patient
        steps = path.for_action(action) if path is not None else ()
        said = self.record_of(action, resource)
        if said not in (None, patient):
            raise RequestError(resource.type, "is of another record than the one that is asked about")
        return resource if said is not None or len(steps) != 2 else Entity(resource.type, resource.id, {**resource.properties, steps[1]: patient})

    def record(self, live: Live, request: Request, now: float, at_least: Token | None = None) -> tuple[str, Record, Token | None]:
        """Whose record a request is about, and that record now. Raises as `look` does."""
        if live.pdp.pack.vocabulary.patient is None or live.store is None:
            return "", live.pdp.fold((), now), None
        patient = patient_of(live.pdp, request)
        _check_patient(live, patient)
        record, token = live.store.read(patient, now, at_least)
        return patient, record, token

    def entry(self, look: Look, by: By, listed: bool) -> bytes:
        """The log's entry for what is about to be told."""
        return encode(DecisionEntry(mode="list" if listed else "one", **said(look, by)))

    async def decide(self, subject: Entity, action: Action, resources: Sequence[Entity], context: Mapping[str, Any], by: By, **more: Any) -> Look:
        """Decide one question and log it: when this returns, the answers may leave. Raises what `look` does, and `LogUnavailable`."""
        look = self.look(subject, action, resources, context, **more)
        await self.log.append(self.entry(look, by, len(resources) > 1))
        return look

    # --- acts ---

    def act(self, request: Request, by: By) -> tuple[str, Done]:
        """Do an act on a record, if the policy permits it: the identifier of its entries, and what became of it.

        Blocks, so call it from a thread. It is in the log as `asked` before anything is written and as `done` or `refused` after: a log that fails in
        between raises `LogUnavailable`, and the record's own list of acts says which. Raises what `engine.consent.acts.perform` does.
        """
        live, now = self.live, self.clock()
        if live.store is None:
            raise RequestError("action", "there is no consent store to act on")
        if self.directory is not None:
            request = self.directory.settle(request)
        _check_subject(live, request.subject)
        patient, record, token = self.record(live, request, now)
        look = Look(new_id(), now, patient, token, [live.pdp.decide(request, record)], live)
        self.log.append_now(encode(ActEntry(mode="one", state="asked", **said(look, by))))
        done = perform(live.pdp, live.store, request, now, Conflict)
        state = "done" if done.answer.permitted else "refused"
        look.answers = [done.answer]
        self.log.append_now(encode(ActEntry(mode="one", state=state, directives=done.directives, after=str(done.token), **said(look, by))))
        return look.id, done


def _check_subject(live: Live, subject: Entity) -> None:
    """One person under two spellings is two people to a block: whoever asks is written as the pack says, and so is whose record it is."""
    if (subject.type, subject.id) not in live.known:
        _check(live, subject.type, subject.id, "subject.id", live.pdp.pack.identifiers.subjects.get(subject.type, ()))


def _check_patient(live: Live, patient: str) -> None:
    if ("", patient) not in live.known:
        pack = live.pdp.pack
        formats = [several for path, several in pack.identifiers.paths if path == pack.vocabulary.patient]
        _check(live, "", patient, "patient", formats[0] if formats else ())


def _check(live: Live, kind: str, value: str, where: str, formats: Formats) -> None:
    mistakes = [one.mistake(value) for one in formats]
    if formats and all(mistakes):
        raise RequestError(where, mistakes[0], "; ".join(one.about for one in formats if one.about))
    if len(live.known) >= REMEMBERED:
        live.known.clear()
    live.known.add((kind, value))


def _withheld(answers: Sequence[Answer], supported: Collection[str]) -> list[int]:
    """The places of permits that oblige the caller to something it does not say it can do."""
    return [place for place, one in enumerate(answers) if one.permitted and any(owed.to == "requester" and owed.id not in supported for owed in one.owed)]


def said(look: Look, by: By) -> dict[str, Any]:
    """What every entry about a question says."""
    scribe, answers = look.live.scribe, look.answers
    request, kept = answers[0].request, scribe.inputs.kept
    subject, action = request.subject, request.action
    return {
        "id": look.id,
        "at": answers[0].at,
        "received": look.received,
        "caller": by.caller,
        "patient": look.patient,
        "subject": {"type": subject.type, "id": subject.id, "properties": kept("subject", subject.properties)},
        "action": {"name": action.name, "properties": kept("action", action.properties)},
        "context": kept("context", request.context),
        "token": str(look.token) if look.token else "",
        "pack": look.live.pdp.pack.digest,
        "items": scribe.items(answers),
        "request": by.request,
        "withheld": [place for place in look.withheld if place < len(answers)],
    }
