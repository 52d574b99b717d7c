"""Consent over HTTP: acts on a record, the list of who has access, the history of what was said, previews. Each is itself an action that the policy decides.

Bodies are AuthZEN requests, so that no patient's identifier stands in a URL, where proxies and journals of web servers keep it. Which of its actions a pack
means by an access list, by traces and by a preview is said in its `[service]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field, StrictBool, StrictStr

from api.authzen import asked_of
from api.callers import Caller
from api.errors import HttpError
from api.runtime import Runtime
from api.shapes import ActionShape, EntityShape, Role, RuntimeOf, Shape, by_of
from api.telemetry import tally
from engine.answer import Answer
from engine.calendar import FOREVER, iso
from engine.consent.acts import Access, access_list, naming_who_asks
from engine.consent.store import Kept, KeptAct
from engine.errors import RequestError, shown, suggest
from engine.pack import Pack
from engine.request import Action, Entity, parse_entity, parse_request
from engine.request import Request as Question
from engine.service import By, Look
from engine.vocabulary import Held

router = APIRouter(prefix="/consent/v1", tags=["consent"])
Desk = Annotated[Caller, Depends(Role("consent_desk", "portal"))]
Viewer = Annotated[Caller, Depends(Role("portal", "officer"))]

LIST, RECORD = "list", "record"


class Asked(Shape):
    """Who asks about which record."""

    subject: EntityShape
    resource: EntityShape
    context: dict[str, Any] | None = None


class ActAsked(Asked):
    """Who does what to which record, or to which document of it."""

    action: ActionShape


class HistoryAsked(Asked):
    """`kind`: of directives; every kind, where none is said. `documents`: those that the caller knows of, with what the policy asks about them: what others
    said of another document is not told. `acts`: what was asked for too, refused or done."""

    kind: StrictStr | None = None
    documents: Annotated[list[EntityShape], Field(default_factory=list, max_length=1000)]
    acts: StrictBool = False


class Thought(ActionShape):
    """An act that the patient thinks of: on his record, unless another resource is named, such as a document of it."""

    resource: EntityShape | None = None


class PreviewAsked(Asked):
    """`viewer`: through whose eyes; `documents`: what he would look at; `act`: what the patient thinks of doing."""

    viewer: EntityShape
    documents: Annotated[list[EntityShape], Field(min_length=1, max_length=1000)]
    act: Thought | None = None
    viewer_context: dict[str, Any] | None = None


@router.post("/acts")
async def act(body: ActAsked, request: Request, runtime: RuntimeOf, caller: Desk) -> dict[str, Any]:
    """Do an act on a record, if the policy permits it: grant, block, mask ... It holds for every decision asked for after the answer."""
    question, by = parse_request(body.model_dump(exclude_none=True)), by_of(request, caller)
    async with runtime.honest(question.subject, by):
        caller.check(question.subject)
        look, done = await runtime.blocking(runtime.service.act, question, by, **asked_of(question.context))
    look.token = done.token
    runtime.metrics.decided(tally(look))
    return {**told_of(runtime, look), "directives": list(done.directives)}


@router.post("/access-list")
async def who_has_access(body: Asked, request: Request, runtime: RuntimeOf, caller: Desk) -> dict[str, Any]:
    """Who is named in the record, why, and until when."""
    look = await decided(runtime, caller, body, "access_list", by_of(request, caller))
    told = told_of(runtime, look)
    if not look.permits(0):
        return told
    vocabulary = look.live.pdp.pack.vocabulary
    several = access_list(look.answers[0].record, vocabulary, naming_who_asks(vocabulary))
    return {**told, "access_list": [_named(one, vocabulary.time_zone) for one in several]}


@router.post("/history")
async def history(body: HistoryAsked, request: Request, runtime: RuntimeOf, caller: Desk) -> dict[str, Any]:
    """What was ever said in the record, oldest first; of one `kind`, such as masks; with `acts`, what was asked for.

    What somebody else said or asked of a document is told of those `documents` that the reader may list now. Whoever may see only his own traces sees only what
    he said and asked himself. Nothing is numbered, so that what is left out leaves no gap.
    """
    kinds = runtime.service.live.pdp.pack.vocabulary.kinds
    if body.kind is not None and body.kind not in kinds:
        raise RequestError("kind", f"{shown(body.kind)} is not a kind of directive", suggest(body.kind, kinds))
    by = by_of(request, caller)
    look = await decided(runtime, caller, body, "traces", by)
    told = told_of(runtime, look)
    if not look.permits(0):
        return told
    store, vocabulary = look.live.store, look.live.pdp.pack.vocabulary
    assert store is not None
    reader = _Reader(look.answers[0])
    if not reader.only_own:
        reader.knows = await visible(runtime, look, body.documents, by)
    kept = await runtime.blocking(store.history, look.patient)
    said = [one for one in kept if body.kind in (None, one.directive["kind"]) and reader.may_know_what_was_said(one.directive)]
    told["history"] = [_said(one, vocabulary.time_zone) for one in said]
    if body.acts:
        recording = {name for name, several in vocabulary.acts.items() if body.kind is None or any(one.kind == body.kind for one in several)}
        asked = await runtime.blocking(store.acts, look.patient)
        known = [one for one in asked if one.act.action in recording and reader.may_know_what_was_asked(one)]
        told["acts"] = [_asked_for(one, reader.document_of(one), look.live.pdp.pack) for one in known]
    return told


@router.post("/preview")
async def preview_access(body: PreviewAsked, request: Request, runtime: RuntimeOf, caller: Viewer) -> dict[str, Any]:
    """What somebody would see of these documents, now and if the patient did something. Documents that the one who asks may not preview are not told apart."""
    action, patient = offered(runtime, "preview"), body.resource.id
    subject, context = _entity(body.subject, "subject"), body.context or {}
    documents = [runtime.service.of_record(action, _entity(one, "documents"), patient) for one in body.documents]
    by, asked = by_of(request, caller), asked_of(context)
    async with runtime.honest(subject, by):
        caller.check(subject)
        look = await runtime.look(subject, Action(action), documents, context, **asked)
    await runtime.log.append(runtime.service.entry(look, by, True))
    runtime.metrics.decided(tally(look))
    visible = [document for n, document in enumerate(documents) if look.permits(n)]
    if not visible:
        return {"documents": []}
    viewer = _entity(body.viewer, "viewer")
    seen_in = context if body.viewer_context is None else body.viewer_context
    thought = None if body.act is None else _thought(runtime, body.act, subject, body.resource, context)
    async with runtime.honest(viewer, by):
        seen = await runtime.blocking(runtime.service.preview, look, viewer, visible, seen_in, thought)
    return {"documents": [_previewed(one.document, one.now, one.then if thought else None) for one in seen]}


def _thought(runtime: Runtime, act: Thought, subject: Entity, record: EntityShape, context: Mapping[str, Any]) -> Question:
    about = Entity(record.type, record.id) if act.resource is None else _entity(act.resource, "act.resource")
    return Question(subject, Action(act.name, act.properties or {}), runtime.service.of_record(act.name, about, record.id), context)


def _previewed(document: Entity, now: Answer, then: Answer | None) -> dict[str, Any]:
    told = {"id": document.id, "now": _decision(now)}
    return told if then is None else told | {"then": _decision(then)}


def _decision(answer: Answer) -> dict[str, Any]:
    return {"decision": answer.permitted, "reason_user": {language: answer.words(language) for language in answer.runner.pack.languages}}


# --- what is told of a record ----------------------------------------------------------------------------------------


class _Reader:
    """Which directives and acts the reader of a record's history may know of. `knows`: the documents that he may list now.

    INVARIANT: none by somebody else about a document that he may not know of.
    """

    def __init__(self, answer: Answer):
        pack = answer.runner.pack
        self.himself, self.knows, self.actions = answer.request.subject, frozenset[str](), pack.vocabulary.actions
        owed = {one.id for one in answer.owed if one.to == "requester"}
        self.only_own = bool(owed - set(pack.service.known_documents))
        compared = [of for fact in pack.vocabulary.facts.values() if isinstance(fact.form, Held) for of in fact.form.of]
        self.forms = {shape for shape, path in compared if path is not None and ("resource", "id") in (path.steps, *path.by_action.values())}

    def may_know_what_was_said(self, directive: Mapping[str, Any]) -> bool:
        if directive.get("recorded_by") == self.himself.id and directive.get("capacity", self.himself.type) == self.himself.type:
            return True
        target = directive.get("target") or {}
        named = [target[form] for form in self.forms if form in target] if isinstance(target, Mapping) else [target]
        return self._may_know(named)

    def may_know_what_was_asked(self, one: KeptAct) -> bool:
        subject, target, document = one.act.told["subject"], one.act.told["action"]["properties"].get("target"), self.document_of(one)
        if (subject["type"], subject["id"]) == (self.himself.type, self.himself.id):
            return True
        named = [document] if document is not None else []
        if isinstance(target, Mapping) and target.get("type") in self.forms:
            named.append(target.get("id"))
        return self._may_know(named)

    def document_of(self, one: KeptAct) -> Any:
        """The document of an act that is about one, whatever the request called it."""
        return None if self.actions.get(one.act.action) == RECORD else one.act.told["resource"]["id"]

    def _may_know(self, documents: Sequence[Any]) -> bool:
        return not self.only_own and all(isinstance(one, str) and one in self.knows for one in documents)


def _asked_for(one: KeptAct, document: str | None, pack: Pack) -> dict[str, Any]:
    """An act as it may be told to somebody who knows of it. INVARIANT: of a discreet refusal, the one text that all of them have, and no rule."""
    told, zone = one.act.told, pack.vocabulary.time_zone
    subject = told["subject"]
    return {
        "decision": one.act.id, "at": _when(told["at"], zone), "subject": {"type": subject["type"], "id": subject["id"]}, "action": one.act.action,
        "document": document, "target": told["action"]["properties"].get("target"),
        "patient_request": told["context"].get("patient_request") is True, "permitted": one.act.decision == "permit", "done": told["done"],
        "reason_user": dict(pack.discreet if told["discreet"] else told["reason"]),
    }  # fmt: skip


def _said(one: Kept, zone: str) -> dict[str, Any]:
    return {"recorded": _when(one.recorded, zone), **one.directive}


def _named(one: Access, zone: str) -> dict[str, Any]:
    start, end = _when(one.start, zone), _when(one.end, zone)
    return {"type": one.form, "id": one.who, "kind": one.kind, "from": start, "until": end, "via": one.via, "recorded_by": one.recorded_by}


def _when(instant: float, zone: str) -> str | None:
    return None if abs(instant) in (FOREVER, math.inf) else iso(instant, zone)


# --- shared ----------------------------------------------------------------------------------------------------------


def offered(runtime: Runtime, key: str) -> str:
    """The action that the pack means by this (`access_list`, `traces`, `preview`). Raises `HttpError` when it does not offer it."""
    pack = runtime.service.live.pdp.pack
    action: str | None = getattr(pack.service, key)
    if action is None:
        raise HttpError(404, f"the pack {pack.name} does not offer this: its [service] names no action for `{key}`")
    return action


async def decided(runtime: Runtime, caller: Caller, body: Asked, key: str, by: By) -> Look:
    """The decision on looking at a record, logged. `key`: what for, as in `offered`."""
    data = body.model_dump(exclude_none=True, include={"subject", "resource", "context"})
    question = parse_request(data | {"action": {"name": offered(runtime, key)}})
    async with runtime.honest(question.subject, by):
        caller.check(question.subject)
        look = await runtime.look(question.subject, question.action, [question.resource], question.context, **asked_of(question.context))
    await runtime.log.append(runtime.service.entry(look, by, False))
    runtime.metrics.decided(tally(look))
    return look


async def visible(runtime: Runtime, look: Look, documents: Sequence[EntityShape], by: By) -> frozenset[str]:
    """Which of these documents the reader of a record's traces may know of: those that he may list, as they are said to be. Asked once, and logged."""
    service, patient = runtime.service, look.patient
    several = [service.of_record(LIST, _entity(one, "documents"), patient) for one in documents]
    if not several:
        return frozenset()
    subject, context = look.answers[0].request.subject, look.answers[0].request.context
    seen = await runtime.look(subject, Action(LIST), several, context, **asked_of(context))
    await runtime.log.append(service.entry(seen, by, True))
    runtime.metrics.decided(tally(seen))
    # A document that is said to be two things is only known to whoever may know of both.
    hidden = {one.id for n, one in enumerate(several) if not seen.permits(n)}
    return frozenset(one.id for one in several if one.id not in hidden)


def told_of(runtime: Runtime, look: Look) -> dict[str, Any]:
    """A decision as an evaluation tells it, to be added to."""
    return runtime.replies(look.live).whole(look)


def _entity(shape: EntityShape, where: str) -> Entity:
    return parse_entity(shape.model_dump(exclude_none=True), where)
