"""Consent over HTTP: acts on a record, the list of who has access, the history of what was said, previews. Each is itself an action that the policy decides.

Bodies are AuthZEN requests, so that no patient's identifier stands in a URL, where proxies and journals of web servers keep it.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from api.callers import Caller
from api.runtime import Runtime
from api.shapes import ActionShape, EntityShape, Role, RuntimeOf, Shape, by_of
from engine.answer import Answer
from engine.calendar import FOREVER, iso
from engine.consent.acts import Access, access_list, preview
from engine.consent.directives import parse_directives
from engine.request import Action, Entity, parse_entity, parse_request
from engine.request import Request as Question
from engine.service import By, Look

router = APIRouter(prefix="/consent/v1", tags=["consent"])
Desk = Annotated[Caller, Depends(Role("consent_desk", "portal"))]
Viewer = Annotated[Caller, Depends(Role("portal", "officer"))]

READ_LIST, READ_TRACES, PREVIEW = "read_access_list", "read_traces", "preview"


class Asked(Shape):
    """Who asks about which record."""

    subject: EntityShape
    resource: EntityShape
    context: dict[str, Any] | None = None


class ActAsked(Asked):
    action: ActionShape


class HistoryAsked(Asked):
    kind: str | None = None


class PreviewAsked(Asked):
    """`viewer`: through whose eyes; `documents`: what he would look at; `act`: what the patient thinks of doing."""

    viewer: EntityShape
    documents: Annotated[list[EntityShape], Field(min_length=1, max_length=1000)]
    act: ActionShape | None = None
    viewer_context: dict[str, Any] | None = None


@router.post("/acts")
async def act(body: ActAsked, request: Request, runtime: RuntimeOf, caller: Desk) -> dict[str, Any]:
    """Do an act on a record, if the policy permits it: grant, block, mask ... It holds for every decision asked for after the answer."""
    question, by = parse_request(body.model_dump(exclude_none=True)), by_of(request, caller)
    await runtime.check(caller, question.subject, by)
    id, done = await runtime.blocking(runtime.service.act, question, by)
    return {**told_of(runtime, id, done.answer), "directives": list(done.directives), "consent_token": str(done.token)}


@router.post("/access-list")
async def who_has_access(body: Asked, request: Request, runtime: RuntimeOf, caller: Desk) -> dict[str, Any]:
    """Who is named in the record, why, and until when."""
    question = about(body, READ_LIST)
    look = await decided(runtime, caller, question, by_of(request, caller))
    told = told_of(runtime, look.id, look.answers[0])
    if not look.permits(0):
        return told
    pack, record = look.live.pdp.pack, look.answers[0].record
    several = access_list(record, pack.vocabulary.kinds)
    zone = pack.vocabulary.time_zone
    return {**told, "access_list": [_named(one, zone) for one in several]}


@router.post("/history")
async def history(body: HistoryAsked, request: Request, runtime: RuntimeOf, caller: Desk) -> dict[str, Any]:
    """What was ever said in the record, oldest first; of one `kind`, such as masks. Whoever may see only his own traces sees only what he said himself."""
    question = about(body, READ_TRACES)
    look = await decided(runtime, caller, question, by_of(request, caller))
    told = told_of(runtime, look.id, look.answers[0])
    if not look.permits(0):
        return told
    store = look.live.store
    assert store is not None
    kept = await runtime.blocking(store.history, look.patient)
    restricted = any(owed.to == "requester" for owed in look.answers[0].owed)
    said = [{"revision": one.revision, "recorded": _when(one.recorded, store.vocabulary.time_zone), **one.directive} for one in kept]
    return {**told, "history": [one for one in said if body.kind in (None, one["kind"]) and not (restricted and one.get("recorded_by") != question.subject.id)]}


@router.post("/preview")
async def preview_access(body: PreviewAsked, request: Request, runtime: RuntimeOf, caller: Viewer) -> dict[str, Any]:
    """What somebody would see of these documents, now and if the patient did something. Documents that the one who asks may not preview are not told apart."""
    subject = parse_entity(body.subject.model_dump(exclude_none=True), "subject")
    patient = body.resource.id
    documents = [_document(runtime, one, patient) for one in body.documents]
    by = by_of(request, caller)
    await runtime.check(caller, subject, by)
    look = await runtime.look(subject, Action(PREVIEW), documents, body.context or {})
    await runtime.log.append(runtime.service.entry(look, by, True))
    shown = [document for n, document in enumerate(documents) if look.permits(n)]
    if not shown:
        return {"documents": []}
    viewer = parse_entity(body.viewer.model_dump(exclude_none=True), "viewer")
    seen = await runtime.blocking(_previewed, look, viewer, shown, body, subject)
    language = look.live.pdp.pack.languages
    return {
        "documents": [
            {"id": one.document.id, "now": {"decision": one.now.permitted, "reason_user": {w: one.now.words(w) for w in language}}}
            | ({"then": {"decision": one.then.permitted, "reason_user": {w: one.then.words(w) for w in language}}} if body.act else {})
            for one in seen
        ]
    }


def _previewed(look: Look, viewer: Entity, documents: list[Entity], body: PreviewAsked, subject: Entity) -> Any:
    store, pdp = look.live.store, look.live.pdp
    assert store is not None
    directives = parse_directives([one.directive for one in store.history(look.patient)], pdp.pack.vocabulary)
    act = None
    if body.act is not None:
        act = Question(subject, Action(body.act.name, body.act.properties or {}), Entity(body.resource.type, look.patient), body.context or {})
    return preview(pdp, directives, act, viewer, documents, body.viewer_context or body.context or {}, look.answers[0].at)


def _document(runtime: Runtime, shape: EntityShape, patient: str) -> Entity:
    """A document of this record: what it says of its patient, if anything, is him."""
    return runtime.service.of_record(PREVIEW, parse_entity(shape.model_dump(exclude_none=True), "documents"), patient)


# --- shared ----------------------------------------------------------------------------------------------------------


def about(body: Asked, action: str) -> Question:
    return parse_request({**body.model_dump(exclude_none=True, include={"subject", "resource", "context"}), "action": {"name": action}})


async def decided(runtime: Runtime, caller: Caller, question: Question, by: By) -> Look:
    """The decision on looking at a record, logged."""
    await runtime.check(caller, question.subject, by)
    look = await runtime.look(question.subject, question.action, [question.resource], question.context)
    await runtime.log.append(runtime.service.entry(look, by, False))
    return look


def told_of(runtime: Runtime, id: str, answer: Answer) -> dict[str, Any]:
    languages = runtime.service.live.pdp.pack.languages
    told = answer.for_requester(languages)
    obligations = [{"id": f"o{n}", "type": one["id"], "properties": one["properties"]} for n, one in enumerate(told["obligations"], 1)]
    return {"decision": told["decision"], "context": {"id": id, "reason_user": told["reason"], "obligations": obligations}}


def _named(one: Access, zone: str) -> dict[str, Any]:
    start, end = _when(one.start, zone), _when(one.end, zone)
    return {"type": one.form, "id": one.who, "kind": one.kind, "from": start, "until": end, "via": one.via, "recorded_by": one.recorded_by}


def _when(instant: float, zone: str) -> str | None:
    return None if abs(instant) in (FOREVER, math.inf) else iso(instant, zone)
