"""The two routes that document stores call a million times a day, before FastAPI: with msgspec, and as little else as goes.

FastAPI with pydantic answers 3,800 requests a second where this answers several times as many (docs/adr/0013-http.md); everything else is left to it.
Body in, question, answers, body out, which leaves when its entries are in the log: nothing here decides.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

from msgspec import Struct, field
from opentelemetry.trace import Span

from api.authzen import Question, Questions, asked_of, check_type, mistake, parse_one, parse_several
from api.callers import Caller, NotAllowed, authorization_of, digest_of
from api.errors import JSON, Headers, HttpError, encode, headers_of, message_of, status_of
from api.limits import request_id
from api.runtime import Runtime
from api.telemetry import Tally, Telemetry, report, tally
from api.tokens import NotAuthenticated
from engine.consent.store import StaleToken
from engine.errors import RequestError
from engine.service import By, FalseClaim, Look

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ONE, SEVERAL = "/access/v1/evaluation", "/access/v1/evaluations"
ROLE = "store"


class Head:
    """What the headers of a hot request say, read once: a client sends the same ones again and again."""

    __slots__ = ("headers", "id", "method", "parent", "path", "request", "token")

    def __init__(self, path: str, method: str, headers: Headers):
        self.path, self.method, self.headers = path, method, headers
        self.id = request_id(headers)
        self.request = (self.id or b"").decode()
        self.parent = next((value for name, value in headers if name == b"traceparent"), None)
        self.token: bytes | None = None
        """Of whom is known at a glance: the hash of the only key that is sent. INVARIANT: then the method and the type of the body are what they should be."""
        try:
            self.check()
            self.token = digest_of(authorization_of(headers))
        except (HttpError, RequestError, NotAuthenticated):
            pass

    def named(self, id: bytes | None) -> Head:
        """The same head, of a request with this identifier."""
        made = Head.__new__(Head)
        made.path, made.method, made.headers, made.parent, made.token = self.path, self.method, self.headers, self.parent, self.token
        made.id, made.request = id, (id or b"").decode()
        return made

    def check(self) -> None:
        """Raise `HttpError`, `RequestError` for what is not answered, whoever asks."""
        if self.method != "POST":
            raise HttpError(405, "this is asked with POST", [("allow", "POST")])
        check_type(next((value for name, value in self.headers if name == b"content-type"), b""))


class Told(Struct):
    """The answer to a request: status, headers beside the content type and length, body. It may leave when its entries are on the disk."""

    started: float
    span: Span | None
    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    entries: list[bytes] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)

    def fail(self, error: Exception) -> None:
        """Answer with an error. What was to be logged still is."""
        self.status = status_of(error)
        if self.status == 500:
            report(error, self.span)
        self.body, self.tallies = encode(message_of(error)), []
        self.headers = [(name.encode(), value.encode()) for name, value in headers_of(error).items()]


class Hot:
    """`/access/v1/evaluation` and `/access/v1/evaluations`, as an ASGI application before `otherwise`, and step by step for the connections of our own
    server, which take requests that arrive together through each step together (api/direct.py):

        begin   tell   (entries into the log)   end
    """

    paths = (ONE.encode(), SEVERAL.encode())

    def __init__(self, otherwise: App, runtime: Runtime):
        self.otherwise, self.runtime = otherwise, runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (ONE, SEVERAL):
            await self.otherwise(scope, receive, send)
            return
        head = Head(scope["path"], scope["method"], scope["headers"])
        try:
            body = await body_of(receive) if head.method == "POST" else b""
        except HttpError as error:
            await _send(send, error.status, [JSON], encode(str(error)))
        else:
            told = await self.answer(head, body)
            await _send(send, told.status, [JSON, *told.headers], told.body)

    async def answer(self, head: Head, body: bytes) -> Told:
        """The answer to a request, logged. Never raises: what goes wrong is an answer too."""
        told = self.begin(head)
        try:
            caller = await self.runtime.caller(authorization_of(head.headers))
        except Exception as error:
            told.fail(error)
            return self.end(head, told)
        if self.runtime.embedded:
            self.tell(told, head, body, caller)
        else:
            await self.runtime.blocking(self.tell, told, head, body, caller)
        try:
            if told.entries:
                await self.runtime.log.append(*told.entries)
        except Exception as error:
            told.fail(error)
        return self.end(head, told)

    # --- the steps ---

    def begin(self, head: Head) -> Told:
        return Told(perf_counter(), self.runtime.telemetry.begin(head.path, head.parent, head.headers))

    def tell(self, told: Told, head: Head, body: bytes, caller: Caller) -> None:
        """Decide, and fill in what is to be told and to be logged. Never raises. With a store that is a server away it waits for it."""
        try:
            caller.needs(ROLE)
            if head.token is None:
                head.check()
            by = By(caller.name, head.request)
            if head.path == SEVERAL:
                questions = parse_several(body, self.runtime.settings.max_batch, self.runtime.service.live.record_of)
                if questions.size:
                    self._several(told, questions, caller, by)
                else:
                    self._one(told, questions.asked[0], caller, by)
            else:
                self._one(told, parse_one(body), caller, by)
        except Exception as error:
            told.fail(error)

    def end(self, head: Head, told: Told) -> Told:
        """Count an answer that leaves."""
        metrics = self.runtime.metrics
        for one in told.tallies:
            metrics.decided(one)
        metrics.answered(head.path, told.status, perf_counter() - told.started)
        if told.span is not None:
            for one in told.tallies:
                Telemetry.told(told.span, one)
            told.headers = told.headers + Telemetry.end(told.span, told.status)
        return told

    # --- deciding ---

    def _look(self, question: Question, caller: Caller) -> Look:
        caller.check(question.subject)
        asked = asked_of(question.context)
        return self.runtime.service.look(question.subject, question.action, question.resources, question.context, witness=self.runtime.witness, **asked)

    def _one(self, told: Told, question: Question, caller: Caller, by: By) -> None:
        try:
            look = self._look(question, caller)
        except (NotAllowed, FalseClaim) as error:
            told.entries = [self.runtime.refusal(question.subject, by, error)]
            raise
        told.tallies, told.entries = [tally(look)], [self.runtime.service.entry(look, by, False)]
        told.body = self.runtime.replies(look.live).all(look)[0]

    def _several(self, told: Told, questions: Questions, caller: Caller, by: By) -> None:
        """Every question is looked at until one ends the evaluation; what comes after that is cut off; the rest is logged together, then told."""
        service, end = self.runtime.service, _end_of(questions)
        looks: list[tuple[Question, Look]] = []
        refused = {place: (400, str(error)) for place, error in questions.mistakes.items()}
        for question in questions.asked:
            if question.places[0] > end:
                break
            try:
                look = self._look(question, caller)
            except (RequestError, NotAllowed, StaleToken) as error:
                refused |= dict.fromkeys(question.places, (status_of(error), message_of(error)))
                if isinstance(error, NotAllowed | FalseClaim):
                    told.entries.append(self.runtime.refusal(question.subject, by, error))
                if questions.until is False:
                    end = min(end, question.places[0])
            else:
                looks.append((question, look))
                if questions.until is not None:
                    end = min(end, next((place for n, place in enumerate(question.places) if look.permits(n) is questions.until), end))
        items: list[bytes] = [b""] * questions.size
        for question, look in looks:
            kept = bisect_right(question.places, end)
            if kept < len(look.answers):
                look.answers = look.answers[:kept]
            if kept:
                told.tallies.append(tally(look))
                told.entries.append(service.entry(look, by, True))
                for place, one in zip(question.places, self.runtime.replies(look.live).all(look), strict=False):
                    items[place] = one
        for place, (status, message) in refused.items():
            items[place] = mistake(status, message)
        told.body = b'{"evaluations":[' + b",".join(items[: end + 1]) + b"]}"


def _end_of(questions: Questions) -> int:
    """The last place that may be answered, as far as what cannot be asked says it."""
    mistaken = questions.mistakes if questions.until is False else ()
    return min(mistaken, default=questions.size - 1)


# --- HTTP ------------------------------------------------------------------------------------------------------------


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
