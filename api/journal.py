"""Who did what to a record, for whoever may know; reviews, notices and the reason of one decision, for whoever answers for them.

The policy decides who may read traces, and which documents their reader may know of now. Reading is itself in the log, before it is told. No patient's
identifier stands in a URL.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import Field, StringConstraints

from api.callers import Caller
from api.consent import Asked, decided, told_of, visible
from api.errors import HttpError
from api.runtime import Runtime
from api.shapes import EntityShape, PageShape, Role, RuntimeOf, Shape, by_of
from engine.calendar import iso, parse_instant
from engine.consent.store import StaleToken
from engine.decision_log.entries import entry, pack_entry
from engine.decision_log.read import Entry, readable
from engine.decision_log.storage import open_storage
from engine.errors import RequestError
from engine.journal.notices import Notice, Waiting
from engine.journal.queries import Page, Review, Trace, position, view_of
from engine.replay import replay as take_again
from engine.service import By

router = APIRouter()
Shower = Annotated[Caller, Depends(Role("portal", "consent_desk"))]
Reviewer = Annotated[Caller, Depends(Role("reviewer"))]
Sender = Annotated[Caller, Depends(Role("portal"))]
"""Who sends notices is the portal: it has the holder's own channel, and may show the holder every access that a notice tells of. An officer writes rules, and
has no business with who came to whose record; a reviewer has, and must not be the one who could leave a notice unsent."""
Keeper = Annotated[Caller, Depends(Role("portal", "officer"))]

MOST, SHOWN = 500, 50
"""Of one page: traces at most, and when nobody says how many."""
RECENT = 600.0
"""Seconds for which a decision that the journal has not read yet is looked for in the log itself."""

Id = Annotated[str, Path(pattern=r"^[0-9a-f]{26}$")]
NoticeId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Text = Annotated[str, StringConstraints(strict=True, max_length=4000)]
Limit = Annotated[int, Query(ge=1, le=MOST)]


# --- a patient's journal ---------------------------------------------------------------------------------------------


class AccessesAsked(Asked):
    """`documents`: those that the caller knows of, with what the policy asks about them. A trace of another document is not told."""

    documents: Annotated[list[EntityShape], Field(default_factory=list, max_length=1000)]
    page: PageShape | None = None


@router.post("/journal/v1/accesses", tags=["journal"])
async def accesses(body: AccessesAsked, request: Request, runtime: RuntimeOf, caller: Shower) -> dict[str, Any]:
    """What was done to a record, newest first, as far as whoever asks may know of it now. It shows what was in the log a second or two ago."""
    by = by_of(request, caller)
    look = await decided(runtime, caller, body, "traces", by)
    told = told_of(runtime, look)
    if not look.permits(0):
        return told
    view, page = view_of(look.answers[0].obligations, look.answers[0].request.subject), body.page or PageShape()
    may_see = (await visible(runtime, look, body.documents, by)).intersection if view.documents else None
    before, limit = page.token or page.next_token or "", min(page.limit or SHOWN, MOST)
    found = await runtime.books.ask(lambda: runtime.books.journal.page(look.patient, view, may_see, limit, before))
    await runtime.log.append(entry("outcome", runtime.service.clock(), decision=look.id, outcome="shown", caller=by.caller, request=by.request or None))
    return {**told, **_traces(found, look.live.pdp.pack.vocabulary.time_zone)}


def _traces(page: Page, zone: str) -> dict[str, Any]:
    return {"accesses": [_trace(one, zone) for one in page.traces], "page": {"next_token": page.next, "count": len(page.traces)}}


def _trace(one: Trace, zone: str) -> dict[str, Any]:
    told = {
        "decision": one.decision,
        "at": iso(one.at, zone),
        "subject": one.subject,
        "action": one.action,
        "document": {"id": one.document, "type": one.type} if one.document else None,
        "target": one.target,
        "access_mode": one.access_mode,
        "emergency": one.emergency,
        "first_access": one.first,
        "patient_request": one.patient_request,
        "secret_session": one.secret,
        "status": one.status,
        "rule": one.rule,
    }
    return {key: value for key, value in told.items() if value not in (None, "")}


# --- reviews ---------------------------------------------------------------------------------------------------------


class Verdict(Shape):
    verdict: Annotated[Text, Field(pattern=r"\S")]
    comment: Text = ""


@router.get("/journal/v1/reviews", tags=["journal"])
async def reviews(
    request: Request,
    runtime: RuntimeOf,
    caller: Reviewer,
    state: Literal["open", "reviewed"] | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: Limit = SHOWN,
    before: str = "",
) -> dict[str, Any]:
    """Emergencies that wait for a review, or had one, newest first."""
    start, end = _instant(since, "since"), _instant(until, "until")
    found = await runtime.books.ask(lambda: runtime.books.journal.reviews(start, end, state or "", limit + 1, before))
    told = found[:limit]
    await _read(runtime, by_of(request, caller), what="reviews", entries=len(told))
    return {
        "reviews": [_review(one, runtime) for one in told],
        "page": {"next_token": position(told[-1]) if len(found) > limit else "", "count": len(told)},
    }


@router.post("/journal/v1/reviews/{id}", tags=["journal"])
async def review(id: Id, body: Verdict, request: Request, runtime: RuntimeOf, caller: Reviewer) -> dict[str, str]:
    """Say what the review of an emergency found. It is an entry of the log; a later verdict counts instead of an earlier one, and both stay."""
    now, append = runtime.service.clock(), runtime.log.append_now
    made = await runtime.books.ask(lambda: runtime.books.journal.review(id, caller.name, body.verdict, body.comment, now, append))
    return {"id": made}


def _review(one: Review, runtime: Runtime) -> dict[str, Any]:
    zone = _zone(runtime)
    at = math.floor(one.at * 1e6) / 1e6  # as text has it, not after the instant itself: `since` and `until` take it back
    told = asdict(one) | {"at": iso(at, zone), "reviewed": iso(one.reviewed, zone) if one.reviewed is not None else None}
    return {key: value for key, value in told.items() if value not in (None, "")}


# --- notices ---------------------------------------------------------------------------------------------------------


class Take(Shape):
    """`lease`: seconds for which those taken are given to nobody else."""

    limit: Annotated[int, Field(ge=1, le=MOST)] = SHOWN
    lease: Annotated[float, Field(ge=1, le=3600)] = 60.0


class Delivery(Shape):
    """`nobody`: there is nobody to tell. `why` names no patient."""

    state: Literal["sent", "nobody", "failed"]
    why: Annotated[str, StringConstraints(strict=True, max_length=500)] = ""


@router.get("/journal/v1/notices", tags=["journal"])
async def notices(runtime: RuntimeOf, caller: Keeper, limit: Limit = SHOWN) -> dict[str, Any]:
    """What was not delivered yet, oldest first, and why not, for whoever looks after the sending. It names no patient and takes nothing."""
    found = await runtime.books.ask(lambda: runtime.books.outbox.waiting(limit))
    return {"notices": [_notice(one, runtime) for one in found]}


@router.post("/journal/v1/notices", tags=["journal"])
async def take_notices(body: Take, request: Request, runtime: RuntimeOf, caller: Sender) -> dict[str, Any]:
    """Take notices that are due, to send them. What is not said to be sent before the lease ends is given again."""
    now = runtime.service.clock()
    found = await runtime.books.ask(lambda: runtime.books.outbox.pending(body.limit, now, body.lease))
    if found:
        await _read(runtime, by_of(request, caller), what="notices", entries=len(found))
    return {"notices": [_notice(one, runtime) for one in found]}


@router.post("/journal/v1/notices/{id}", tags=["journal"])
async def deliver(id: NoticeId, body: Delivery, runtime: RuntimeOf, caller: Sender) -> dict[str, bool]:
    """Say what became of a notice. It is in the log when this answers, but for `failed`, after which it is given again."""
    now, books = runtime.service.clock(), runtime.books

    def done() -> None:
        match body.state:
            case "sent":
                books.outbox.sent(id, now)
            case "nobody":
                books.outbox.nobody(id, now)
            case "failed":
                books.outbox.failed(id, body.why, now)

    await books.ask(done)
    return {"recorded": True}


def _notice(one: Notice | Waiting, runtime: Runtime) -> dict[str, Any]:
    return asdict(one) | {"at": iso(one.at, _zone(runtime))}


# --- the log ---------------------------------------------------------------------------------------------------------


@router.get("/log/v1/decisions/{id}", tags=["log"])
async def decision(id: Id, request: Request, runtime: RuntimeOf, caller: Reviewer, replay: bool = False) -> dict[str, Any]:
    """The full reason of a decision, by the identifier that its answer gave: rule, article, facts, cells. That it was read is in the log, before it is told.

    With `replay` it is taken again, on the record as it was known then: does the same rule decide?
    """
    told = await runtime.books.ask(_decision, runtime, id, replay)
    if not told["entries"]:
        raise HttpError(404, "the log has no decision with this identifier")
    await _read(runtime, by_of(request, caller), what="decision", of=id, patient=told["entries"][0].get("patient") or None, replay=replay or None)
    return told


def _decision(runtime: Runtime, id: str, replay: bool) -> dict[str, Any]:
    found = _entries(runtime, id)
    told: dict[str, Any] = {"id": id, "entries": [{"segment": one.segment, "index": one.index, **_in_words(runtime, one.body or {})} for one in found]}
    return told | {"replay": _taken_again(runtime, found[-1].body or {})} if replay and found else told


def _taken_again(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    live = runtime.service.live
    try:
        several = take_again(live.pdp, live.store, body)
    except (RequestError, StaleToken) as error:
        return {"same": False, "problem": str(error), "resources": []}
    return {"same": all(one.is_same for one in several), "problem": "", "resources": [one.as_dict() for one in several]}


def _entries(runtime: Runtime, id: str) -> list[Entry]:
    """A decision as the log has it, or an act, which has several entries: where the journal says, or else among what it has not read yet."""
    reader = runtime.books.reader
    entries = [reader.entry(one.segment, one.index) for one in runtime.books.journal.places(id)]
    if not entries:
        entries = list(reader.matching(lambda body: body.get("id") == id, containing=id, since=runtime.service.clock() - RECENT))
    several = [one for one in entries if one is not None and one.body is not None and "items" in one.body]
    several.sort(key=lambda one: (one.at, one.index))
    return several


def _in_words(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """An entry with its codes in words. What the codes of the pack in use mean is at hand; for another pack's, the log is read through once."""
    pdp = runtime.service.live.pdp
    if body.get("pack") != pdp.pack.digest:
        return runtime.books.reader.readable(body)
    return readable(body, msgspec.json.decode(pack_entry(pdp, 0.0)))


@router.get("/log/v1/checkpoint", tags=["log"], response_class=PlainTextResponse)
async def checkpoint(runtime: RuntimeOf, caller: Reviewer) -> Response:
    """The latest checkpoint, a signed note (C2SP tlog-checkpoint), to be kept elsewhere: by it is seen that the log was rolled back, or written anew."""
    note = await runtime.books.ask(_checkpoint, runtime)
    if note is None:
        raise HttpError(404, "there is no checkpoint yet: no key signs this log, or nothing has been written")
    return PlainTextResponse(note)


def _checkpoint(runtime: Runtime) -> str | None:
    storage = open_storage(runtime.settings.log.get_secret_value())
    try:
        last = storage.last_checkpoint()
    finally:
        storage.close()
    return last.note if last is not None else None


# --- shared ----------------------------------------------------------------------------------------------------------


async def _read(runtime: Runtime, by: By, **said: Any) -> None:
    await runtime.log.append(entry("read", runtime.service.clock(), caller=by.caller, request=by.request or None, **said))


def _zone(runtime: Runtime) -> str:
    return runtime.service.live.pdp.pack.vocabulary.time_zone


def _instant(text: str | None, where: str) -> float | None:
    if text is None:
        return None
    instant = parse_instant(text)
    if instant is None:
        raise RequestError(where, "is not an instant", "write it with its offset, as 2026-11-21T10:00:00+01:00")
    return instant


