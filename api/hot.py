"""The two routes that document stores call a million times a day, before FastAPI: an ASGI application of its own, with msgspec.

FastAPI with pydantic answers 3,800 requests a second where this answers several times as many (docs/adr/0013-http.md); everything else is left to it.
Body in, question, answers logged, body out: nothing here decides.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

from opentelemetry.trace import Span

from api.authzen import Question, Questions, asked_of, check_type, mistake, parse_body, parse_one, parse_several
from api.callers import Caller, NotAllowed, authorization_of
from api.errors import JSON, Headers, HttpError, encode, headers_of, message_of, status_of
from api.limits import request_id
from api.runtime import Runtime
from api.telemetry import Telemetry, report
from engine.consent.store import StaleToken
from engine.errors import RequestError
from engine.service import By, FalseClaim, Look

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ONE, SEVERAL = "/access/v1/evaluation", "/access/v1/evaluations"
ROLE = "store"


Answered = tuple[int, Headers, bytes]
"""Status, headers beside the content type and length, body."""


class Hot:
    """`/access/v1/evaluation` and `/access/v1/evaluations`, as a coroutine for each request, and as an ASGI application before `otherwise`.

    The connections of our own server call `answer` themselves (api/direct.py).
    """

    paths = (ONE.encode(), SEVERAL.encode())

    def __init__(self, otherwise: App, runtime: Runtime):
        self.otherwise, self.runtime = otherwise, runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (ONE, SEVERAL):
            await self.otherwise(scope, receive, send)
            return
        try:
            body = await body_of(receive) if scope["method"] == "POST" else b""
        except HttpError as error:
            status, headers, body = error.status, [], encode(str(error))
        else:
            status, headers, body = await self.answer(scope["path"], scope["method"], scope["headers"], body)
        await _send(send, status, [JSON, *headers], body)

    async def answer(self, path: str, method: str, headers: Headers, body: bytes) -> Answered:
        """The answer to a request. Never raises: what goes wrong is an answer too."""
        started = perf_counter()
        status: int = 200
        added: Headers = []
        found = _headers(headers)
        span = self.runtime.telemetry.begin(path, found.get(b"traceparent"))
        try:
            authorization = authorization_of(headers)
            caller = self.runtime.callers.known(authorization) or await self.runtime.caller(authorization)
            caller.needs(ROLE)
            told = await self._answer(path, method, found, body, caller, span)
        except Exception as error:
            status = status_of(error)
            if status == 500:
                report(error, span)
            told = encode(message_of(error))
            added = [(name.encode(), value.encode()) for name, value in headers_of(error).items()]
        self.runtime.metrics.answered(path, status, perf_counter() - started)
        if span is not None:
            added += Telemetry.end(span, status)
        return status, added, told

    async def _answer(self, path: str, method: str, found: Mapping[bytes, bytes], body: bytes, caller: Caller, span: Span | None) -> bytes:
        if method != "POST":
            raise HttpError(405, "this is asked with POST", [("allow", "POST")])
        check_type(found.get(b"content-type", b""))
        data = parse_body(body)
        by = By(caller.name, (request_id(found.items()) or b"").decode())
        service = self.runtime.service
        if path == SEVERAL:
            questions = parse_several(data, self.runtime.settings.max_batch, service.live.record_of)
            if questions is not None:
                return await self._several(questions, caller, by, span)
        question = parse_one(data)
        try:
            caller.check(question.subject)
            look = await self.runtime.look(question.subject, question.action, question.resources, question.context, **asked_of(question.context))
        except (NotAllowed, FalseClaim) as error:
            await service.log.append(self.runtime.refusal(question.subject, by, error))
            raise
        await service.log.append(service.entry(look, by, False))
        self._count(look, span)
        return self.runtime.replies(look.live).all(look)[0]

    async def _several(self, questions: Questions, caller: Caller, by: By, span: Span | None) -> bytes:
        """Every question is looked at until one ends the evaluation; what comes after that is cut off; the rest is logged together, then told."""
        service, end = self.runtime.service, _end_of(questions)
        looks: list[tuple[Question, Look]] = []
        refused = {place: (400, str(error)) for place, error in questions.mistakes.items()}
        bodies: list[bytes] = []
        for question in questions.asked:
            if question.places[0] > end:
                break
            try:
                caller.check(question.subject)
                look = await self.runtime.look(question.subject, question.action, question.resources, question.context, **asked_of(question.context))
            except (RequestError, NotAllowed, StaleToken) as error:
                refused |= dict.fromkeys(question.places, (status_of(error), message_of(error)))
                if isinstance(error, NotAllowed | FalseClaim):
                    bodies.append(self.runtime.refusal(question.subject, by, error))
                if questions.until is False:
                    end = min(end, question.places[0])
            else:
                looks.append((question, look))
                if questions.until is not None:
                    end = min(end, next((place for n, place in enumerate(question.places) if look.permits(n) is questions.until), end))
        told: list[bytes] = [b""] * questions.size
        for question, look in looks:
            kept = bisect_right(question.places, end)
            if kept < len(look.answers):
                look.answers = look.answers[:kept]
            if kept:
                bodies.append(service.entry(look, by, True))
                for place, one in zip(question.places, self.runtime.replies(look.live).all(look), strict=False):
                    told[place] = one
                self._count(look, span)
        if bodies:
            await service.log.append(*bodies)
        for place, (status, message) in refused.items():
            told[place] = mistake(status, message)
        return b'{"evaluations":[' + b",".join(told[: end + 1]) + b"]}"

    def _count(self, look: Look, span: Span | None) -> None:
        self.runtime.metrics.decided(look)
        if span is not None:
            Telemetry.told(span, look)


def _end_of(questions: Questions) -> int:
    """The last place that may be answered, as far as what cannot be asked says it."""
    mistaken = questions.mistakes if questions.until is False else ()
    return min(mistaken, default=questions.size - 1)


# --- HTTP ------------------------------------------------------------------------------------------------------------

_WANTED = frozenset((b"content-type", b"x-request-id", b"traceparent"))


def _headers(headers: Headers) -> dict[bytes, bytes]:
    """Of a header that is there twice the first, which is also the one that is echoed."""
    return {name: value for name, value in reversed(headers) if name in _WANTED}


async def body_of(receive: Receive) -> bytes:
    """The whole body of a request. Raises `HttpError` when it does not arrive."""
    message = await receive()
    body = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts = [body]
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, "the body did not arrive whole")
        parts.append(message.get("body", b""))
    return b"".join(parts)


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


