"""The rest of the service, in FastAPI: searches, metadata, health, consent, accesses, journal, log. A route is shape in, call, shape out; it decides nothing.

Every decision goes through `engine.service`, so that what is asked here is logged like anything else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from api import accesses, consent, journal
from api.authzen import asked_of, check_type, obligations_of, parse_body
from api.callers import Caller, NotAllowed, authorization_of
from api.errors import headers_of, message_of, status_of
from api.hot import ONE, SEVERAL, App, Hot, Receive, Scope, Send, body_of
from api.limits import header, refuse
from api.openapi import described
from api.runtime import Runtime
from api.shapes import ActionSearch, ResourceSearch, RuntimeOf, Searcher, Shape, SubjectSearch, by_of
from api.telemetry import Traced, report
from engine.answer import Answer
from engine.errors import HabilisError
from engine.pdp import Pdp
from engine.request import Entity, parse_request
from engine.search import SEARCHED, search

SEARCH = "/access/v1/search/"
FREE = frozenset(("/.well-known/authzen-configuration", "/health/live", "/health/ready", "/openapi.json"))
"""What anybody may ask. Every other route names its roles."""


ROUTERS = (consent.router, accesses.router, journal.router)


def create_app(runtime: Runtime) -> Hot:
    """The ASGI application of one worker. It closes `runtime` when it shuts down."""
    app = build_app()
    app.state.runtime = runtime
    return Hot(Traced(Strict(app, runtime), runtime.telemetry), runtime)


def build_app() -> FastAPI:
    """Every route but the two hot ones. What they answer with is in `app.state.runtime`."""
    # Redirecting to a path with a slash more would name the host of the request; a page of documentation would run another site's script on ours.
    app = FastAPI(title="Habilis", version="1", lifespan=_life, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(RequestValidationError, _misshapen)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http)  # type: ignore[arg-type]
    app.add_exception_handler(HabilisError, _engine)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _internal)
    _metadata(app)
    _searches(app)
    _health(app)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: _described(app, app.state.runtime.service.live.pdp)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI, pdp: Pdp) -> dict[str, Any]:
    """The description, made once for each pack: anybody may ask for it."""
    known: tuple[Pdp, dict[str, Any]] | None = getattr(app.state, "description", None)
    if known is None or known[0] is not pdp:
        known = app.state.description = (pdp, described(app, routes_of(app), pdp, FREE))
    return known[1]


def routes_of(app: FastAPI) -> list[BaseRoute]:
    """Every route of the application, also of the routers that it includes."""
    return [route for router in (app.router, *ROUTERS) for route in router.routes]


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    runtime: Runtime = app.state.runtime
    watching = asyncio.create_task(runtime.callers.watch())
    yield
    watching.cancel()
    runtime.close()


# --- errors ----------------------------------------------------------------------------------------------------------


async def _misshapen(request: Request, error: RequestValidationError) -> Response:
    """The first member that is missing or of the wrong type, as one string: AuthZEN's 400, not FastAPI's 422."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "header")) or "body"
    return JSONResponse(f"{where}: {first['msg']}", 400)


async def _http(request: Request, error: HTTPException) -> Response:
    return JSONResponse(str(error.detail).lower(), error.status_code, headers=dict(error.headers or {}))


async def _engine(request: Request, error: HabilisError) -> Response:
    return JSONResponse(message_of(error), status_of(error), headers=headers_of(error))


async def _internal(request: Request, error: Exception) -> Response:
    report(error)
    return JSONResponse("internal error", 500)


# --- bodies ----------------------------------------------------------------------------------------------------------


class Strict:
    """What every body must be before FastAPI reads it: of somebody whom we know, JSON by its type, and JSON that all readers read alike."""

    def __init__(self, app: App, runtime: Runtime):
        self.app, self.runtime = app, runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in FREE:
            await self.app(scope, receive, send)
            return
        try:
            await self.runtime.caller(authorization_of(scope["headers"]))
            body = await body_of(receive)
            if body:
                check_type(header(scope, b"content-type") or b"")
                parse_body(body)
        except HabilisError as error:
            added = [(name.encode(), value.encode()) for name, value in headers_of(error).items()]
            await refuse(send, status_of(error), message_of(error), *added)
            return
        rest = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Any:
            return next(rest, None) or await receive()

        await self.app(scope, again, send)


# --- routes ----------------------------------------------------------------------------------------------------------


def _metadata(app: FastAPI) -> None:
    @app.get("/.well-known/authzen-configuration", tags=["AuthZEN"])
    async def configuration(runtime: RuntimeOf) -> dict[str, Any]:
        """What this policy decision point offers, and where.

        AuthZEN, section 9, and the Obligations profile: URLs come from the settings, never from a request; members that are empty are left out.
        """
        url = runtime.settings.url
        obligations = runtime.service.live.pdp.pack.obligations.values()
        supported = sorted(one.id for one in obligations if one.to == "requester")
        return {
            "policy_decision_point": url,
            "access_evaluation_endpoint": url + ONE,
            "access_evaluations_endpoint": url + SEVERAL,
            "search_subject_endpoint": url + SEARCH + "subject",
            "search_resource_endpoint": url + SEARCH + "resource",
            "search_action_endpoint": url + SEARCH + "action",
        } | ({"supported_obligations": supported} if supported else {})


def _searches(app: FastAPI) -> None:
    @app.post(SEARCH + "subject", tags=["AuthZEN"])
    async def subject(body: SubjectSearch, request: Request, runtime: RuntimeOf, caller: Searcher) -> dict[str, Any]:
        """Who, of the directory and of those whom the record names, may do this to this resource."""
        return await _search(runtime, caller, request, "subject", body, {"subject": {"id": SEARCHED}})

    @app.post(SEARCH + "resource", tags=["AuthZEN"])
    async def resource(body: ResourceSearch, request: Request, runtime: RuntimeOf, caller: Searcher) -> dict[str, Any]:
        """Which types of documents (or which entities that the pack lists) this subject may do this to, with the properties that the search gives."""
        return await _search(runtime, caller, request, "resource", body, {"resource": {"id": SEARCHED}})

    @app.post(SEARCH + "action", tags=["AuthZEN"])
    async def action(body: ActionSearch, request: Request, runtime: RuntimeOf, caller: Searcher) -> dict[str, Any]:
        """What this subject may do to this resource."""
        return await _search(runtime, caller, request, "action", body, {"action": {"name": SEARCHED}})


async def _search(runtime: Runtime, caller: Caller, request: Request, searched: str, body: Shape, filling: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    data = body.model_dump(exclude_none=True)
    page = data.pop("page", {})
    for part, words in filling.items():
        data[part] = {**data.get(part, {}), **words}
    question, by = parse_request(data), by_of(request, caller)
    token, size = page.get("token") or page.get("next_token") or "", runtime.settings.page_size
    asked = asked_of(question.context)
    async with runtime.honest(question.subject, by):
        may_ask = _speaks_of(caller, question.subject) if searched == "subject" else _anybody
        if searched != "subject":
            caller.check(question.subject)
        found = await runtime.blocking(search, runtime.service, searched, question, by, size, page.get("limit"), token, may_ask=may_ask, **asked)
    await runtime.log.append(found.entry)
    runtime.metrics.searched(searched)
    told = {"next_token": found.next_token, "count": len(found.found), "total": found.total}
    return {"page": told, "results": [_found(searched, one) for one in found.found]}


def _anybody(subject: Entity) -> bool:
    return True


def _speaks_of(caller: Caller, searched: Entity) -> Callable[[Entity], bool]:
    """Which subjects a caller may ask about, when it searches them. Raises `NotAllowed` when it may say this of nobody."""

    def may_ask(subject: Entity) -> bool:
        try:
            caller.check(subject)
        except NotAllowed as error:
            if error.where != "subject.id":
                raise
            return False
        return True

    may_ask(searched)
    return may_ask


def _found(searched: str, answer: Answer) -> dict[str, Any]:
    """A result as an evaluation takes it, with what its permit obliges the caller to."""
    request = answer.request
    if searched == "action":
        told: dict[str, Any] = {"name": request.action.name}
    else:
        entity = request.subject if searched == "subject" else request.resource
        told = {"type": entity.type, "id": entity.id} | ({"properties": dict(entity.properties)} if entity.properties else {})
    obligations = obligations_of(answer)
    return told | ({"obligations": obligations} if obligations else {})


def _health(app: FastAPI) -> None:
    @app.get("/health/live", tags=["health"])
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/health/ready", tags=["health"], responses={503: {"description": "The store or the log cannot be used: no decision is to be had."}})
    async def ready(runtime: RuntimeOf) -> dict[str, Any]:
        """Decisions are to be had: the store was read and the log took an entry just now."""
        await runtime.ready(time.time())
        pack = runtime.service.live.pdp.pack
        return {"status": "ready", "pack": {"name": pack.name, "version": pack.version, "digest": pack.digest}}
