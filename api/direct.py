"""Hot requests answered by the connection itself: no ASGI messages, no task, one write.

Half of what a small request costs a Python server is the way to its application and back. A request for a hot route that says how long its body is takes a
shorter one: the body is gathered, `Hot.answer` is run as far as it goes at once, and its answer is one write. Everything else, and a hot request that is out
of the ordinary (chunked, or behind another on the same connection), goes through ASGI, to the same `Hot.answer`. What is measured is in docs/benchmarks.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.hot import Answered, Hot
from api.limits import ADDED, ELSEWHERE, Header, InFlight, Rate, error_body, is_local, request_id

T = TypeVar("T")

_ADDED = b"".join(name + b": " + value + b"\r\n" for name, value in ADDED)


class Direct:
    """What a connection needs to answer hot requests: the limits that requests through ASGI meet in `api.limits`, and who answers."""

    def __init__(self, hot: Hot, in_flight: InFlight, max_body: int, body_seconds: float, rate: Rate | None = None, local_only: bool = False):
        self.hot, self.in_flight, self.max_body, self.body_seconds, self.rate, self.local_only = hot, in_flight, max_body, body_seconds, rate, local_only
        self._waiting: list[Exchange] = []

    def takes(self, url: bytes, method: bytes, headers: list[Header]) -> bool:
        """Whether a request goes this way."""
        if method != b"POST" or url not in self.hot.paths:
            return False
        length = authorization = None
        for name, value in headers:
            if name == b"content-length":
                length = value
            elif name == b"authorization":
                authorization = value
            elif name in (b"transfer-encoding", b"expect", b"upgrade"):
                return False
        if length is None or len(length) > 9 or int(length) > self.max_body:
            return False
        return self.hot.runtime.callers.known(authorization) is not None  # nobody else makes us keep a body

    def answer(self, exchange: Exchange) -> None:
        """Answer a request with the others that arrive in this turn of the loop: what the store is at is asked once for all, after the last has come."""
        if not self._waiting:
            exchange.loop.call_soon(self._answer_all)
        self._waiting.append(exchange)

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        with self.hot.runtime.witnessed():
            for exchange in waiting:
                drive(self.hot.answer(exchange.path, "POST", exchange.headers, bytes(exchange.body)), exchange.done, exchange.loop)

    def refused(self, scope: dict[str, Any]) -> Answered | None:
        """Why a request is not answered at all."""
        if self.local_only and not is_local(scope):
            return 403, [], error_body(ELSEWHERE)
        if self.rate is not None and (wait := self.rate.take(self.rate.identify(scope))):
            return 429, [(b"retry-after", str(int(wait) + 1).encode())], error_body("too many requests: try again later")
        if self.in_flight.now >= self.in_flight.limit:
            return 503, [(b"retry-after", b"1")], error_body("too many requests at a time: try again later")
        return None


class Exchange:
    """One hot request and its answer: what uvicorn's protocol takes for its own cycle of request and response."""

    def __init__(self, protocol: HttpToolsProtocol, direct: Direct):
        self.protocol, self.direct, self.loop = protocol, direct, protocol.loop
        self.path, self.scope, self.headers = protocol.url.decode("latin-1"), protocol.scope, protocol.headers
        self.keep_alive = protocol.parser.get_http_version() != "1.0" and protocol.parser.should_keep_alive()
        self.body = bytearray()
        self.more_body, self.response_complete, self.disconnected = True, False, False
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
            self._start()

    def wait(self) -> None:
        """What has not arrived with the headers, be it all of the body, has so long to come."""
        if self.more_body and self._timer is None and not (self.response_complete or self.disconnected):
            self._timer = self.loop.call_later(self.direct.body_seconds, self._too_slow)

    def _start(self) -> None:
        refused = self.direct.refused(self.scope)
        if refused is not None:
            self._answer(refused)
            return
        self.direct.in_flight.now += 1
        self.direct.answer(self)

    def done(self, answered: Answered) -> None:
        self.direct.in_flight.now -= 1
        self._answer(answered)

    def _too_slow(self) -> None:
        self.keep_alive = False
        self._answer((408, [], error_body(f"the body did not arrive within {self.direct.body_seconds:g} seconds")))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _answer(self, answered: Answered) -> None:
        """One write, then uvicorn goes on with the connection."""
        status, headers, body = answered
        self.response_complete = True
        if self.disconnected:
            return
        told = [STATUS_LINE[status], b"content-type: application/json\r\ncontent-length: ", str(len(body)).encode(), b"\r\n", _ADDED]
        told += [name + b": " + value + b"\r\n" for name, value in headers]
        id = request_id(self.headers)
        if id is not None:
            told += [b"x-request-id: ", id, b"\r\n"]
        if not self.keep_alive:
            told.append(b"connection: close\r\n")
        self.protocol.transport.write(b"".join([*told, b"\r\n", body]))
        if not self.keep_alive:
            self.protocol.transport.close()
        self.protocol.on_response_complete()


def drive(coroutine: Coroutine[Any, None, T], done: Callable[[T], None], loop: asyncio.AbstractEventLoop) -> None:
    """Run a coroutine that never raises, at once, as far as it goes; then whenever what it waits for is there. A task would cost five microseconds more.

    It has no `asyncio.current_task()`: what needs one is awaited as a task of its own.
    """
    try:
        waiting = coroutine.send(None)
    except StopIteration as end:
        done(end.value)
        return
    if waiting is None:
        loop.call_soon(drive, coroutine, done, loop)
    else:
        waiting._asyncio_future_blocking = False
        waiting.add_done_callback(lambda _: drive(coroutine, done, loop))
