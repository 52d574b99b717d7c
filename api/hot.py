"""The two routes that document stores call a million times a day, before FastAPI: an ASGI application of its own, with msgspec.

FastAPI with pydantic answers 3,800 requests a second where this answers several times as many (docs/adr/0011-http.md); everything else is left to it.
Body in, question, answers logged, body out: nothing here decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

from opentelemetry.trace import Span

from api.authzen import Question, Questions, asked_of, mistake, parse_body, parse_one, parse_several
from api.callers import Caller, NotAllowed, authorization_of
from api.errors import JSON, Headers, HttpError, encode, headers_of, message_of, status_of
from api.runtime import Runtime
from api.telemetry import Telemetry, report
from engine.errors import RequestError
from engine.service import By, Look

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
            body = await _body(receive) if scope["method"] == "POST" else b""
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
            caller = await self.runtime.caller(authorization_of(headers), ROLE)
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
        _check_type(found.get(b"content-type", b""))
        data = parse_body(body)
        by = By(caller.name, found.get(b"x-request-id", b"").decode("latin-1"))
        service = self.runtime.service
        if path == SEVERAL:
            questions = parse_several(data, self.runtime.settings.max_batch, service.record_of)
            if questions is not None:
                return await self._several(questions, caller, by, span)
        question = parse_one(data)
        await self.runtime.check(caller, question.subject, by)
        look = await self.runtime.look(question.subject, question.action, question.resources, question.context, **asked_of(question.context))
        await service.log.append(service.entry(look, by, False))
        replies = self.runtime.replies(look.live)
        self._count(look, span)
        return replies.one(look, 0, replies.head(look))

    async def _several(self, questions: Questions, caller: Caller, by: By, span: Span | None) -> bytes:
        """Every question is looked at, what comes after the one that ends the evaluation is cut off, the rest is logged together, then told."""
        service, size = self.runtime.service, questions.size
        told: list[bytes] = [b""] * size
        looks: list[tuple[Question, Look]] = []
        refused = {place: (400, str(error)) for place, error in questions.mistakes.items()}
        for question in questions.asked:
            try:
                await self.runtime.check(caller, question.subject, by)
                asked = asked_of(question.context)
                looks.append((question, await self.runtime.look(question.subject, question.action, question.resources, question.context, **asked)))
            except (RequestError, NotAllowed) as error:
                refused |= dict.fromkeys(question.places, (status_of(error), message_of(error)))
        end = _end(questions, looks, refused)
        bodies = []
        for question, look in looks:
            kept = sum(place <= end for place in question.places) if end < size else len(question.places)
            if kept:
                look.answers = look.answers if kept == len(look.answers) else look.answers[:kept]
                bodies.append(service.entry(look, by, True))
                replies = self.runtime.replies(look.live)
                head = replies.head(look)
                for n in range(kept):
                    told[question.places[n]] = replies.one(look, n, head)
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


def _end(questions: Questions, looks: list[tuple[Question, Look]], refused: Mapping[int, Any]) -> int:
    """The last place that is answered."""
    if questions.until is None:
        return questions.size - 1
    ending = [place for question, look in looks for n, place in enumerate(question.places) if look.permits(n) is questions.until]
    if questions.until is False:
        ending += refused
    return min(ending, default=questions.size - 1)


# --- HTTP ------------------------------------------------------------------------------------------------------------

_WANTED = frozenset((b"content-type", b"x-request-id", b"traceparent"))


def _headers(headers: Headers) -> dict[bytes, bytes]:
    return {name: value for name, value in headers if name in _WANTED}


def _check_type(given: bytes) -> None:
    """JSON, with or without the charset that JSON has."""
    if given == b"application/json":
        return
    kind, _, rest = given.decode("latin-1").lower().partition(";")
    charset = rest.replace(" ", "").replace('"', "")
    if kind.strip() != "application/json" or charset not in ("", "charset=utf-8", "charset=us-ascii"):
        raise RequestError("Content-Type", "must be application/json", "in UTF-8")


async def _body(receive: Receive) -> bytes:
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


