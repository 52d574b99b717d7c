"""What the routes have in common: the shapes of bodies, who calls and with which roles."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StrictStr

from api.callers import Caller, authorization_of
from api.limits import request_id
from api.runtime import Runtime
from engine.service import By


class Shape(BaseModel):
    """A body: unknown members are ignored, as AuthZEN asks."""

    model_config = ConfigDict(extra="ignore")


class EntityShape(Shape):
    type: StrictStr
    id: StrictStr
    properties: dict[str, Any] | None = None


class KindShape(Shape):
    """An entity that is searched: its identifier is ignored."""

    type: StrictStr
    properties: dict[str, Any] | None = None


class ActionShape(Shape):
    name: StrictStr
    properties: dict[str, Any] | None = None


class PageShape(Shape):
    """`token`: what the page before gave as `next_token`, which is what drafts of AuthZEN called it here too."""

    token: StrictStr | None = None
    next_token: StrictStr | None = None
    limit: Annotated[int | None, Field(ge=0, strict=True)] = None


class SubjectSearch(Shape):
    """Who may do this to this resource? `page`: how many to tell at a time."""

    subject: KindShape
    action: ActionShape
    resource: EntityShape
    context: dict[str, Any] | None = None
    page: PageShape | None = None


class ResourceSearch(Shape):
    """To which resources may this subject do this? Their common properties are given, such as whose record it is."""

    subject: EntityShape
    action: ActionShape
    resource: KindShape
    context: dict[str, Any] | None = None
    page: PageShape | None = None


class ActionSearch(Shape):
    """What may this subject do to this resource?"""

    subject: EntityShape
    resource: EntityShape
    context: dict[str, Any] | None = None
    page: PageShape | None = None


def runtime_of(request: Request) -> Runtime:
    return request.app.state.runtime


RuntimeOf = Annotated[Runtime, Depends(runtime_of)]


class Role:
    """A dependency: the caller, who has one of these roles. Every route has one, or is in `api.app.FREE`."""

    def __init__(self, *roles: str):
        self.roles = roles

    async def __call__(self, request: Request, runtime: RuntimeOf) -> Caller:
        return await runtime.caller(authorization_of(request.scope["headers"]), *self.roles)


Searcher = Annotated[Caller, Depends(Role("store", "officer"))]


def by_of(request: Request, caller: Caller) -> By:
    return By(caller.name, (request_id(request.scope["headers"]) or b"").decode())
