"""Hot requests answered by the connection itself: no ASGI messages, no task, one write.

Half of what a small request costs a Python server is the way to its application and back. A request for a hot route that says how long its body is takes a
shorter one. Requests that are complete in one turn of the loop go together: the store is asked once what it is at, their entries are written together, and
then each answer is one write. Everything else, and a hot request that is out of the ordinary (chunked, or behind another on the same connection), goes
through ASGI to the same `Hot`. What is measured is in docs/benchmarks.md.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.callers import Caller
from api.errors import Headers
from api.hot import Head, Hot, Told
from api.limits import ADDED, ELSEWHERE, Header, InFlight, Rate, error_body, is_local
from engine.decision_log.log import LogUnavailable

_ADDED = b"".join(name + b": " + value + b"\r\n" for name, value in ADDED)
REMEMBERED = 4_096
"""Heads of requests that a worker remembers before it starts again."""
LONGEST = 4_096
"""Bytes of a head that is remembered."""

_ID = re.compile(rb"\r\nx-request-id: ([\x21-\x7e]{1,200})(?=\r\n[^ \t])", re.IGNORECASE)


def _without_id(begins: bytes) -> tuple[bytes, bytes | None]:
    """A head without the line that names the request, and that name. Only a line that no reader takes for two, for part of another, or for another name."""
    line = _ID.search(begins)
    return (begins, None) if line is None else (begins[: line.start()] + begins[line.end() :], line[1])


class Direct:
    """What a connection needs to answer hot requests: the limits that requests through ASGI meet in `api.limits`, and who answers."""

    def __init__(self, hot: Hot, in_flight: InFlight, max_body: int, body_seconds: float, rate: Rate | None = None, local_only: bool = False):
        self.hot, self.in_flight, self.max_body, self.body_seconds, self.rate, self.local_only = hot, in_flight, max_body, body_seconds, rate, local_only
        self.heads: dict[bytes, tuple[Head, int]] = {}
        """Bytes that requests begin with, up to the empty line: what they say, and how long the body is."""
        self._waiting: list[Exchange] = []

    def head(self, url: bytes, method: bytes, headers: list[Header]) -> Head | None:
        """The head of a request that goes this way."""
        if method != b"POST" or url not in self.hot.paths:
            return None
        length = None
        for name, value in headers:
            if name == b"content-length":
                length = value
            elif name in (b"transfer-encoding", b"expect", b"upgrade"):
                return None
        if length is None or len(length) > 9 or int(length) > self.max_body:
            return None
        head = Head(url.decode(), "POST", headers)
        return head if self.caller(head) is not None else None  # nobody else makes us keep a body

    def learn(self, chunk: bytes, exchange: Exchange) -> None:
        """Remember the head of a request that came in one piece, for those that begin alike: a client sends the same headers again and again.

        INVARIANT: the parser took what is before the empty line as the headers, and all of the rest as the body. Its first line is the request's, and each line
        ends in CR LF, so that no reader finds an earlier end. Its identifier is the one line that is left out, or it has none. What is part of a trace is not
        seen again.
        """
        head = exchange.head
        if head.parent is not None or not exchange.keep_alive:
            return
        end = chunk.find(b"\r\n\r\n") + 4
        begins, id = _without_id(chunk[:end])
        headers = [(name, value) for name, value in head.headers if name != b"x-request-id"]
        is_named_once = head.id == id and len(head.headers) - len(headers) == (id is not None)
        plain = begins.startswith(b"POST ") and begins.count(b"\n") == begins.count(b"\r\n") and end <= LONGEST
        if plain and is_named_once and chunk[end:] == exchange.body:
            if len(self.heads) >= REMEMBERED:
                self.heads.clear()
            kept = head.named(None)
            kept.headers = headers
            self.heads[begins] = kept, len(exchange.body)

    def known(self, begins: bytes) -> tuple[Head, int] | None:
        """What bytes up to an empty line say, and how long the body is: if others were parsed that differ from them in nothing but the request's identifier."""
        found = self.heads.get(begins)
        if found is None and len(begins) <= LONGEST:
            rest, id = _without_id(begins)
            found = self.heads.get(rest)
            if found is not None:
                found = found[0].named(id), found[1]
        return found

    def caller(self, head: Head) -> Caller | None:
        """Who asks, where that is known at a glance."""
        return self.hot.runtime.callers.known_by(head.token) if head.token is not None else None

    def answer(self, exchange: Exchange) -> None:
        """Answer a request with the others that arrive in this turn of the loop."""
        if not self._waiting:
            exchange.protocol.loop.call_soon(self._answer_all)
        self._waiting.append(exchange)

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        hot, runtime = self.hot, self.hot.runtime
        done: list[tuple[Exchange, Told]] = []
        with runtime.witnessed():
            for exchange in waiting:
                caller = self.caller(exchange.head) if runtime.embedded else None
                if caller is None:  # somebody has to be waited for
                    self._answer_later(exchange)
                else:
                    told = hot.begin(exchange.head)
                    hot.tell(told, exchange.head, exchange.body, caller)
                    exchange.body = b""
                    done.append((exchange, told))
        entries = [entry for _, told in done for entry in told.entries]
        if not entries:
            self._end(done, None)
            return
        try:
            runtime.log.submit(entries, partial(self._end, done))
        except LogUnavailable as error:
            self._end(done, str(error))

    def _answer_later(self, exchange: Exchange) -> None:
        task = exchange.protocol.loop.create_task(self.hot.answer(exchange.head, exchange.body))
        exchange.protocol.tasks.add(task)
        task.add_done_callback(exchange.protocol.tasks.discard)
        task.add_done_callback(lambda done: self._leave(exchange, done.result()))

    def _end(self, done: list[tuple[Exchange, Told]], reason: str | None) -> None:
        """The entries are in the log, or there is a reason why that cannot be said."""
        for exchange, told in done:
            if reason is not None and told.entries:
                told.fail(LogUnavailable(reason))
            self._leave(exchange, self.hot.end(exchange.head, told))

    def _leave(self, exchange: Exchange, told: Told) -> None:
        self.in_flight.now -= 1
        exchange.answer(told.status, told.headers, told.body)

    def refused(self, exchange: Exchange) -> tuple[int, Headers, bytes] | None:
        """Why a request is not answered at all."""
        if self.local_only or self.rate is not None:
            scope: dict[str, Any] = {"client": exchange.protocol.client, "headers": exchange.head.headers}
            if self.local_only and not is_local(scope):
                return 403, [], error_body(ELSEWHERE)
            if self.rate is not None and (wait := self.rate.take(self.rate.identify(scope))):
                return 429, [(b"retry-after", b"%d" % (int(wait) + 1))], error_body("too many requests: try again later")
        if self.in_flight.now >= self.in_flight.limit:
            return 503, [(b"retry-after", b"1")], error_body("too many requests at a time: try again later")
        return None


class Exchange:
    """One hot request and its answer: what uvicorn's protocol takes for its own cycle of request and response."""

    __slots__ = ("_timer", "body", "direct", "disconnected", "head", "keep_alive", "message_event", "more_body", "protocol", "response_complete")

    def __init__(self, protocol: HttpToolsProtocol, direct: Direct, head: Head, keep_alive: bool, body: bytes | None = None):
        self.protocol, self.direct, self.head, self.keep_alive = protocol, direct, head, keep_alive
        self.body: Any = bytearray() if body is None else body
        self.more_body, self.response_complete, self.disconnected = body is None, False, False
        self.message_event = self
        self._timer: asyncio.TimerHandle | None = None

    def set(self) -> None:
        """Something arrived, or the client is gone: uvicorn tells its application by an event."""
        if self.response_complete:
            return
        if self.disconnected:
            self._stop_timer()
        elif self.more_body:
            self.protocol.flow.resume_reading()  # it stops at 64 KB, for an application to catch up
        else:
            self._stop_timer()
            self.start()

    def wait(self) -> None:
        """What has not arrived with the headers, be it all of the body, has so long to come."""
        if self.more_body and self._timer is None and not (self.response_complete or self.disconnected):
            self._timer = self.protocol.loop.call_later(self.direct.body_seconds, self._too_slow)

    def start(self) -> None:
        """The request is here."""
        direct = self.direct
        refused = direct.refused(self)
        if refused is not None:
            self.answer(*refused)
            return
        direct.in_flight.now += 1
        direct.answer(self)

    def _too_slow(self) -> None:
        self.keep_alive = False
        self.answer(408, [], error_body(f"the body did not arrive within {self.direct.body_seconds:g} seconds"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """One write, then uvicorn goes on with the connection."""
        self.response_complete = True
        if self.disconnected:
            return
        told = [STATUS_LINE[status], b"content-type: application/json\r\n", _ADDED, b"content-length: %d\r\n" % len(body)]
        for name, value in headers:
            told += (name, b": ", value, b"\r\n")
        if self.head.id is not None:
            told += (b"x-request-id: ", self.head.id, b"\r\n")
        if not self.keep_alive:
            told.append(b"connection: close\r\n")
        told += (b"\r\n", body)
        self.protocol.transport.write(b"".join(told))
        if not self.keep_alive:
            self.protocol.transport.close()
        self.protocol.on_response_complete()
