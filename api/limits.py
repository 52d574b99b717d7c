"""What one client may take of the service, as small ASGI applications around it. Together they cost a few microseconds a request (docs/callers.md).

    Envelope    every answer has the X-Request-ID of its request and a few headers; what escapes is a 500 that says nothing
    Body        no body is larger than allowed (413, before it is read), nor slower (408)
    Rate        no caller asks more often than allowed (429), no address that is nobody's (429)
    InFlight    no more requests at a time than allowed (503)
    Loopback    without authentication, nobody from elsewhere, and no web page (403)

Every error's body is a JSON string (AuthZEN 1.0, section 10.1.2). What comes before there is a request, such as a connection that never ends its headers, is
`api.protocol`'s. Limits are each worker's own.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from api.callers import Callers, authorization_of, is_loopback
from api.tokens import NotAuthenticated

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

ADDED: tuple[Header, ...] = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
"""With every answer: it is what its type says, and nobody keeps it."""
CLOSE: Header = (b"connection", b"close")
REMEMBERED = 10_000
"""Callers and addresses whose rate is remembered."""

_PRINTABLE = re.compile(rb"[\x20-\x7e]{1,200}")
_GONE: Message = {"type": "http.disconnect"}


def header(scope: Mapping[str, Any], wanted: bytes) -> bytes | None:
    """The first header of this name (in small letters)."""
    for name, value in scope["headers"]:
        if name == wanted:
            return value
    return None


def request_id(headers: Iterable[Header]) -> bytes | None:
    """The X-Request-ID to echo: up to 200 printable ASCII characters. Anything else is nobody's identifier."""
    for name, value in headers:
        if name == b"x-request-id":
            return value if _PRINTABLE.fullmatch(value) else None
    return None


def error_body(message: str) -> bytes:
    return json.dumps(message).encode()


async def refuse(send: Send, status: int, message: str, *headers: Header) -> None:
    """Answer with an error."""
    body = error_body(message)
    told = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})


def limited(
    app: App,
    *,
    callers: Callers,
    max_body: int,
    body_seconds: float,
    concurrency: int,
    rate: float = 0,
    burst: int = 0,
    free: Collection[str] = (),
    report: Callable[[BaseException], None] = lambda error: None,
) -> App:
    """An application within all limits but `Loopback`. `rate` is requests a second for each caller, 0 for any; paths in `free` always get through."""
    app = InFlight(app, concurrency, free)
    if rate:
        app = Rate(app, rate, burst, by_caller(callers), free)
    return Envelope(Body(app, max_body, body_seconds), report)


# --- answers ---------------------------------------------------------------------------------------------------------


class Envelope:
    """Every answer says to which request it belongs. An exception that nobody caught becomes a 500 without a word of it; `report` is told.

    In the middle of an answer nothing can be said any more: the server ends the connection.
    """

    def __init__(self, app: App, report: Callable[[BaseException], None] = lambda error: None):
        self.app, self.report = app, report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        id = request_id(scope["headers"])
        added = ADDED if id is None else (*ADDED, (b"x-request-id", id))
        started = ended = False

        async def answer(message: Message) -> None:
            nonlocal started, ended
            if started:
                ended = not message.get("more_body")
            elif message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except Exception as error:
            if not ended:  # otherwise whoever answered has reported it, or took the body away
                self.report(error)
            if not started:
                await refuse(answer, 500, "internal error")


# --- bodies ----------------------------------------------------------------------------------------------------------


class Body:
    """Bodies of at most `most` bytes that arrive within `seconds` of being asked for, whatever their Content-Length says or does not say."""

    def __init__(self, app: App, most: int, seconds: float):
        self.app, self.most, self.seconds = app, most, seconds
        self.awaited: dict[_Arriving, float] = {}
        """Bodies on their way, oldest first, and since when. One timer for all: one for each would cost more than the rest of this module."""
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = header(scope, b"content-length")
        body = _Arriving(self, receive, send)
        if length is not None and int(length) > self.most:
            await body.too_large()
            return
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self.awaited.pop(body, None)

    def start(self, body: _Arriving) -> None:
        """Wait for a body no longer than allowed."""
        self.awaited[body] = monotonic()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        for body, since in list(self.awaited.items()):
            left = since + self.seconds - monotonic()
            if left > 0:
                self._timer = asyncio.get_running_loop().call_later(left, self._look)
                return
            del self.awaited[body]
            body.too_slow()


class _Arriving:
    """One body on its way. Once it is refused, the application hears that the client is gone, and nobody hears the application."""

    __slots__ = ("_answering", "_limits", "_receive", "_send", "_size", "_started", "refused")

    def __init__(self, limits: Body, receive: Receive, send: Send):
        self._limits, self._receive, self._send = limits, receive, send
        self._size = 0
        self._started = self.refused = False
        self._answering: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        if not self._started:
            self._started = True
            self._limits.start(self)
        message = await self._receive()
        if self.refused:
            return _GONE
        self._size += len(message.get("body", b""))
        if self._size > self._limits.most:
            await self.too_large()
            return _GONE
        if not message.get("more_body"):
            self._limits.awaited.pop(self, None)
        return message

    async def send(self, message: Message) -> None:
        if not self.refused:
            # Answered: when the rest arrives no longer matters.
            self._limits.awaited.pop(self, None)
            await self._send(message)

    async def too_large(self) -> None:
        self.refused = True
        self._limits.awaited.pop(self, None)
        await refuse(self._send, 413, f"the body has more than {self._limits.most:,} bytes: send fewer requests at a time")

    def too_slow(self) -> None:
        """Answer instead of the application; the server then ends the `receive` that is waiting."""
        self.refused = True
        message = f"the body did not arrive within {self._limits.seconds:g} seconds"
        self._answering = asyncio.ensure_future(refuse(self._send, 408, message, CLOSE))


# --- how often, how many ---------------------------------------------------------------------------------------------


class Rate:
    """`rate` requests a second, and `burst` at once after a rest (a second's worth unless said), for each name that `identify` gives.

    A token bucket, kept as the instant at which it will be full again (generic cell rate algorithm). Whoever was not heard of for longest is forgotten first.
    """

    def __init__(self, app: App, rate: float, burst: int = 0, identify: Callable[[Scope], str] | None = None, free: Collection[str] = ()):
        self.app, self.identify, self.free = app, identify or by_address, frozenset(free)
        self._each = 1 / rate
        self._room = (max(1, burst or math.ceil(rate)) - 1) * self._each
        self._full_at: OrderedDict[str, float] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self.free and (wait := self.take(self.identify(scope))):
            await refuse(send, 429, "too many requests: try again later", (b"retry-after", str(math.ceil(wait)).encode()))
            return
        await self.app(scope, receive, send)

    def take(self, name: str) -> float:
        """0 and one request less; or the seconds to wait."""
        now, known = monotonic(), self._full_at
        full_at = max(now, known.get(name, now))
        wait = full_at - now - self._room
        known[name] = full_at if wait > 1e-9 else full_at + self._each
        known.move_to_end(name)
        if len(known) > REMEMBERED:
            known.popitem(last=False)
        return wait if wait > 1e-9 else 0.0


def by_address(scope: Scope) -> str:
    """The client's address; of an IPv6 one its network of 64 bits, since whoever has one has them all."""
    host = (scope.get("client") or ("", 0))[0]
    if ":" not in host:
        return f"address {host}"
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return f"address {host}"
    assert isinstance(address, IPv6Address)
    return f"address {address.ipv4_mapped}" if address.ipv4_mapped else f"network {int(address) >> 64:x}"


def by_caller(callers: Callers) -> Callable[[Scope], str]:
    """The caller where it is known at a glance, its address otherwise: so is whoever tries keys."""

    def identify(scope: Scope) -> str:
        try:
            caller = callers.known(authorization_of(scope["headers"]))
        except NotAuthenticated:
            caller = None
        return by_address(scope) if caller is None else f"caller {caller.name}"

    return identify


class InFlight:
    """At most `limit` requests at a time: who comes later is sent away at once rather than made to wait for everybody before him."""

    def __init__(self, app: App, limit: int, free: Collection[str] = ()):
        self.app, self.limit, self.free = app, limit, frozenset(free)
        self.now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.free:
            await self.app(scope, receive, send)
            return
        if self.now >= self.limit:
            await refuse(send, 503, "too many requests at a time: try again later", (b"retry-after", b"1"))
            return
        self.now += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.now -= 1


ELSEWHERE = "without authentication only programs on the same machine are served"


class Loopback:
    """For a service without authentication: only this machine, and no page in its browser but its own.

    A page of any site may post to 127.0.0.1, and one whose name is made to point there may read too: the first is told by Origin, the second by Host.
    """

    def __init__(self, app: App):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_local(scope):
            await refuse(send, 403, ELSEWHERE)
            return
        await self.app(scope, receive, send)


def is_local(scope: Mapping[str, Any]) -> bool:
    """Whether a request comes from a program on this machine."""
    client = scope.get("client") or ("localhost", 0)  # a socket of the file system has no address
    return _is_local(client[0], header(scope, b"host"), header(scope, b"origin"))


@lru_cache(256)
def _is_local(client: str, host: bytes | None, origin: bytes | None) -> bool:
    try:
        named = urlsplit(b"//" + (host or b"")).hostname or b""
    except ValueError:
        return False
    return is_loopback(client) and is_loopback(named.decode("latin-1")) and (origin is None or origin.partition(b"://")[2] == host)
