"""Limits of a connection before there is a request: uvicorn has none, and an ASGI application is only called when the headers have arrived.

`guarded` makes uvicorn's httptools protocol refuse or close what never becomes a request, or never reads its answer:

    headers that do not end in time (408) or are too long (431); a connection that says nothing; more connections than allowed (503)
    a request with more bytes in all than any body needs: endless chunk extensions or trailers
    the rest of a body after its answer: read and thrown away, so that its sender reads the answer instead of a broken connection, but not for long
    an answer that is not fetched

One timer per connection, only while it has something unfinished: a request that arrives in one piece needs none.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.direct import Direct, Exchange
from api.limits import ADDED, error_body, request_id

DISCARDED = 2.0
"""Seconds for which the rest of a body is thrown away."""


class GuardedProtocol(HttpToolsProtocol):
    """See `guarded`, which sets the limits."""

    header_seconds = 10.0
    header_bytes = 32_768
    request_bytes = 25_000_000
    connections_limit = 1_000
    fetch_seconds = 30.0

    direct: Direct | None = None
    """Answers the requests for hot routes, when there is one."""

    _awaiting = True
    """No request is being read or answered: what arrives are headers."""
    _begun = False
    """The parser is inside a request."""
    _chunk: bytes | None = None
    """What is being parsed, when it began with a request."""
    _discarding = False
    """A request has been answered before its body arrived."""
    _bytes = 0
    """Since the last answer."""
    _answers = 0
    _answering: Any = None
    """The request that is being answered. `cycle` is the last one that came: there may be several behind."""
    _timer: asyncio.TimerHandle | None = None
    _idle_since = 0.0
    """When the last answer left."""
    _idle_timer: asyncio.TimerHandle | None = None
    """Fires when that may have been too long ago. It is left alone when a request comes: setting one for each costs a fifteenth of a small request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.connections_limit:
            self._refuse(503, "too many connections: try again later", (b"retry-after", b"1"))
        else:
            self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._abandon()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        if self.direct is not None and self._awaiting and not self._begun and self._bytes == len(data) and self._is_free():
            if self._is_known(data):
                return
            self._chunk = data
        super().data_received(data)
        self._chunk = None
        if not self._awaiting:
            if self._bytes > self.request_bytes:
                self._refuse(413, f"the request has more than {self.request_bytes:,} bytes")
            elif self.cycle.__class__ is Exchange:
                self.cycle.wait()  # type: ignore[attr-defined]
        elif self._bytes > self.header_bytes:
            self._refuse(431, f"the headers have more than {self.header_bytes:,} bytes")
        elif self._timer is None and (self._begun or self._bytes):  # otherwise it was answered at once, and idles
            self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _is_free(self) -> bool:
        """Whether there is no answer before this one. One that is not fetched counts: through ASGI the next one waits until it is."""
        return (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused and not self.transport.is_closing()

    def _is_known(self, data: bytes) -> bool:
        """Take a whole request that begins with the very bytes that another one began with: what the parser made of those is known."""
        assert self.direct is not None
        end = data.find(b"\r\n\r\n") + 4
        known = self.direct.known(data[:end])
        if known is None or len(data) - end != known[1]:
            return False
        self._stop_timer()
        self._awaiting = False
        self.cycle = self._answering = exchange = Exchange(self, self.direct, known[0], True, data[end:])  # type: ignore[assignment]
        exchange.start()
        return True

    def on_message_begin(self) -> None:
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._awaiting = False
        if self._timer is not None:
            self._stop_timer()
        head = self.direct.head(self.url, self.parser.get_method(), self.headers) if self.direct is not None and self._is_free() else None
        if head is not None:
            keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
            self.cycle = self._answering = Exchange(self, self.direct, head, keep_alive)  # type: ignore[assignment, arg-type]
        else:
            super().on_headers_complete()
        # Trailers are read as headers: not into those that the application sees.
        self.headers = []

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _abandon(self) -> None:
        """The connection has gone: uvicorn tells so only the last request that came, and another that is being answered would be written to nobody."""
        if self._answering is not None and self._answering is not self.cycle and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def on_message_complete(self) -> None:
        self._begun = False
        if self._chunk is not None and self.cycle.__class__ is Exchange:
            self.direct.learn(self._chunk, self.cycle)  # type: ignore[union-attr, arg-type]
        super().on_message_complete()
        if self._discarding:
            self._discarding = False
            self._await_headers()

    def on_response_complete(self) -> None:
        if self.pipeline:
            super().on_response_complete()
            self._bytes = 0
        else:
            self._idle()
            if self.cycle.more_body:
                self._discarding = True
                self._timer = self.loop.call_later(DISCARDED, self.transport.close)
            else:
                self._await_headers()
        self._answers += 1
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self.fetch_seconds, self._unfetched, self._answers)

    def _idle(self) -> None:
        """What uvicorn does after an answer behind which no other request waits."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._too_idle)

    def _too_idle(self) -> None:
        """Close a connection that awaits a request and whose last answer left long enough ago, unless headers that are arriving have a timer of their own.
        INVARIANT: as long as it is open, one that was ever answered has this timer."""
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._awaiting and self._timer is None and left <= 0:
            self.timeout_keep_alive_handler()
        else:
            self._idle_timer = self.loop.call_later(left if left > 0 else self.timeout_keep_alive, self._too_idle)

    def _await_headers(self) -> None:
        self._stop_timer()
        self._awaiting, self._bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not an HTTP request")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._bytes:
            self._refuse(408, f"the headers did not arrive within {self.header_seconds:g} seconds")
        else:
            self.transport.close()

    def _unfetched(self, answers: int) -> None:
        """Whoever has asked for more since is reading."""
        if answers == self._answers and self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse(self, status: int, message: str, *more: tuple[bytes, bytes]) -> None:
        """Answer and close; only close where this would be taken for another answer."""
        self._stop_timer()
        if self._may_answer():
            body, id = error_body(message), request_id(self.headers or ())
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close"), *ADDED, *more]
            if id is not None:
                headers.append((b"x-request-id", id))
            lines = [name + b": " + value + b"\r\n" for name, value in headers]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self._abandon()
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.close()
        if self.transport.get_write_buffer_size():  # it closes when that is fetched
            self.loop.call_later(self.fetch_seconds, self.transport.abort)

    def _may_answer(self) -> bool:
        """Whether no request is being answered, or one that has neither arrived whole nor been answered."""
        if self.transport.is_closing() or self._discarding or self.pipeline:
            return False
        return self.cycle is None or self.cycle.response_complete or (self.cycle.more_body and not getattr(self.cycle, "response_started", False))


def guarded(
    *, header_seconds: float = 10.0, header_bytes: int = 32_768, max_body: int = 10_000_000, connections: int = 1_000, fetch_seconds: float = 30.0
) -> type[HttpToolsProtocol]:
    """The protocol class to give to uvicorn as `http`, with `ws="none"`.

    Seconds for the headers of a request, bytes in them, bytes of the largest body (a chunked one may take twice as many), connections of this worker, seconds
    for fetching an answer.
    """
    limits: dict[str, Any] = {
        "header_seconds": header_seconds, "header_bytes": header_bytes, "request_bytes": header_bytes + 2 * max_body + 65_536,
        "connections_limit": connections, "fetch_seconds": fetch_seconds,
    }  # fmt: skip
    return type("GuardedProtocol", (GuardedProtocol,), limits)
