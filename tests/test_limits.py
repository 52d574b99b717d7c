"""Limits of the service, on a real server: uvicorn on loopback, spoken to through raw sockets by clients that are slow, greedy or lying."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from types import SimpleNamespace

import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from uvicorn.server import ServerState

from api.callers import Callers, open_callers
from api.direct import Direct
from api.limits import Body, Envelope, InFlight, Loopback, Rate, by_address, by_caller, limited, refuse
from api.protocol import GuardedProtocol, guarded

KEY = "a key of 256 random bits, say"


class Application:
    """What the service does, in small: it answers with the size of a body, at once, late, twice, never, or falls over."""

    def __init__(self):
        self.reported = []
        self.hold()

    def hold(self):
        """Those who ask late wait from now on, until `go`."""
        self.started, self.go = threading.Event(), threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return await send({"type": "lifespan.shutdown.complete"})
        path = scope["path"]
        if path == "/refused":
            return await refuse(send, 401, "nobody is named")
        if path == "/late":
            go = self.go
            self.started.set()
            while not go.is_set():
                await asyncio.sleep(0.01)
        if path == "/broken":
            raise ValueError("279035121518989 is a secret")
        size = 0
        if path == "/early":
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await asyncio.sleep(1)
            return await send({"type": "http.response.body", "body": b"10"})
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        else:
            raise RuntimeError("the client is gone")
        if path == "/thinking":
            await asyncio.sleep(1)
        body = (b" " * 20_000_000) if path == "/huge" else json.dumps([size, [name.decode() for name, _ in scope["headers"]]]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
        if path == "/cut":
            raise ValueError("279035121518989 is a secret")
        await send({"type": "http.response.body", "body": body})


CONNECTIONS: dict[int, set] = {}
"""Those that the server of a port has."""


@contextmanager
def serving(app, idle=30, **limits) -> Iterator[int]:
    """A server around an application; its port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        config = uvicorn.Config(app, http=guarded(**limits), ws="none", log_level="critical", timeout_keep_alive=idle)
        server = uvicorn.Server(config)
        CONNECTIONS[listening.getsockname()[1]] = server.server_state.connections
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


MOST = 1_000


@pytest.fixture(scope="module")
def app():
    return Application()


@pytest.fixture(scope="module")
def port(app):
    whole = limited(app, callers=open_callers(), max_body=MOST, body_seconds=0.5, concurrency=3, free=["/free"], report=app.reported.append)
    with serving(whole, header_seconds=0.5, header_bytes=4_000, max_body=MOST, connections=50, fetch_seconds=0.5) as port:
        yield port


@contextmanager
def connected(port) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as client:
        yield client


def head(path="/", *headers, method="POST"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


def read(client):
    """One answer: status, headers, body as JSON; nothing, when the server closed."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            if not (more := client.recv(65536)):
                assert data == b""
                return None
            data += more
        top, _, body = data.partition(b"\r\n\r\n")
        first, *lines = top.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        while len(body) < int(headers["content-length"]):
            if not (more := client.recv(65536)):
                break
            body += more
    except ConnectionResetError:
        return None
    assert len(body) == int(headers["content-length"])
    return int(first.split()[1]), headers, json.loads(body)


def ask(port, data):
    with connected(port) as client:
        client.sendall(data)
        return read(client)


def is_closed(client):
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def size_of(answer):
    assert answer[0] == 200
    return answer[2][0]


# --- size ------------------------------------------------------------------------------------------------------------


def chunked(*parts):
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_a_body_as_large_as_allowed_is_read(port):
    assert size_of(ask(port, head("/", f"Content-Length: {MOST}") + b"x" * MOST)) == MOST
    assert size_of(ask(port, head("/", "Transfer-Encoding: chunked") + chunked(b"x" * (MOST - 1), b"x"))) == MOST


def test_a_content_length_over_the_limit_is_refused_before_the_body_is_sent(port):
    status, headers, body = ask(port, head("/", f"Content-Length: {MOST + 1}", "Expect: 100-continue"))
    assert (status, body) == (413, "the body has more than 1,000 bytes: send fewer requests at a time")
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("digits", [15, 16, 19])
def test_an_absurd_content_length_is_refused(port, digits):
    assert ask(port, head("/", "Content-Length: " + "9" * digits))[0] == 413


def test_a_content_length_that_no_number_holds_is_not_http(port):
    assert ask(port, head("/", "Content-Length: " + "9" * 1000))[::2] == (400, "this is not an HTTP request")


def test_a_chunked_body_over_the_limit_is_refused_although_it_never_ends(port, app):
    app.reported.clear()
    with connected(port) as client:
        client.sendall(head("/", "Transfer-Encoding: chunked") + b"%x\r\n" % 700 + b"x" * 700 + b"\r\n")
        time.sleep(0.05)
        client.sendall(b"%x\r\n" % 700 + b"x" * 700)
        assert read(client)[0] == 413
    assert app.reported == []  # that the application then missed the rest is no fault of its own


def test_who_sends_a_large_body_before_reading_still_reads_why_it_was_refused(port):
    for headers in (("Content-Length: 60000",), ("Transfer-Encoding: chunked",)):
        with connected(port) as client:
            client.sendall(head("/", *headers))
            if "chunked" in headers[0]:
                client.sendall(b"%x\r\n" % 60_000)
            for _ in range(60):
                client.sendall(b"x" * 1000)
                time.sleep(0.001)
            assert read(client)[0] == 413


def test_nobody_is_listened_to_without_end(port):
    with connected(port) as client:
        client.sendall(head("/refused", "Content-Length: 1000000000000"))
        assert read(client)[0] == 413
        with pytest.raises(OSError):
            for _ in range(10_000):
                client.sendall(b"x" * 100_000)
        assert is_closed(client)


def test_a_content_length_that_promises_more_than_it_sends_times_out(port):
    with connected(port) as client:
        client.sendall(head("/", "Content-Length: 100", "X-Request-ID: abc") + b"x" * 99)
        status, headers, body = read(client)
        assert (status, headers["connection"], body) == (408, "close", "the body did not arrive within 0.5 seconds")
        assert headers["x-request-id"] == "abc"
        assert is_closed(client)


def test_a_content_length_that_promises_less_than_it_sends_makes_no_second_request(port):
    with connected(port) as client:
        client.sendall(head("/", "Content-Length: 5") + b"x" * 5 + b"y" * 5 + b"\r\n\r\n")
        answers = [answer for answer in (read(client), read(client)) if answer]
        assert [answer[0] for answer in answers] in ([200, 400], [200], [])
        assert is_closed(client)


@pytest.mark.parametrize(
    "headers",
    [("Content-Length: 5", "Transfer-Encoding: chunked"), ("Content-Length: 5", "Content-Length: 6"), ("Content-Length: -1",), ("Transfer-Encoding: x",)],
)
def test_what_readers_of_http_disagree_on_is_refused(port, headers):
    assert ask(port, head("/", *headers) + b"0\r\n\r\n")[0] == 400


def test_chunk_extensions_without_end_are_cut_off(port):
    with connected(port) as client, pytest.raises(OSError):
        client.sendall(head("/", "Transfer-Encoding: chunked") + b"1;")
        for _ in range(10_000):
            client.sendall(b"x" * 10_000)


def test_trailers_are_not_headers_and_have_an_end(port):
    with connected(port) as client:
        client.sendall(head("/", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\nAuthorization: Bearer stolen\r\n\r\n")
        assert "authorization" not in read(client)[2][1]
    with connected(port) as client, pytest.raises(OSError):
        client.sendall(head("/", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\nX: ")
        for _ in range(10_000):
            client.sendall(b"x" * 10_000)


class Shape(BaseModel):
    name: str


def test_the_limits_hold_for_fastapi_too():
    inner = FastAPI()

    @inner.post("/")
    async def root(shape: Shape) -> str:
        return shape.name

    with serving(limited(inner, callers=open_callers(), max_body=50, body_seconds=0.3, concurrency=3)) as port:
        json_body = ("Content-Type: application/json",)
        assert ask(port, head("/", *json_body, "Content-Length: 12") + b'{"name":"x"}')[2] == "x"
        assert ask(port, head("/", *json_body, "Transfer-Encoding: chunked") + chunked(b" " * 40, b'{"name":"x"}'))[0] == 413
        assert ask(port, head("/", *json_body, "Content-Length: 12") + b'{"name":')[0] == 408


# --- time ------------------------------------------------------------------------------------------------------------


def test_headers_that_come_one_by_one_are_cut_off(port):
    with connected(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\n")
        answer = None
        with pytest.raises(OSError):
            until = time.monotonic() + 30
            while time.monotonic() < until:
                client.sendall(b"X: x\r\n")
                time.sleep(0.002)
                client.settimeout(0.1)
                try:
                    answer = answer or read(client)
                except TimeoutError:
                    continue
        assert answer[::2] == (408, "the headers did not arrive within 0.5 seconds")


def test_a_connection_that_says_nothing_is_closed(port):
    with connected(port) as client:
        assert is_closed(client)


def test_empty_lines_keep_no_connection(port):
    with connected(port) as client:
        assert size_of(_on(client, head("/", "Content-Length: 0"))) == 0
        client.sendall(b"\r\n")
        assert read(client)[0] == 408 and is_closed(client)


def _on(client, data):
    client.sendall(data)
    return read(client)


def test_a_body_that_comes_byte_by_byte_is_cut_off_and_frees_its_place(port):
    with connected(port) as one, connected(port) as two, connected(port) as three:
        clients = (one, two, three)
        for client in clients:
            client.sendall(head("/", "Content-Length: 900"))
        answers = {}
        while len(answers) < 3:
            for client in clients:
                if client in answers:
                    continue
                client.settimeout(0.05)
                try:
                    answers[client] = read(client)  # before more is sent: that would be answered by a reset, which takes what was not read
                except TimeoutError:
                    client.sendall(b"x")
        assert [answer[0] for answer in answers.values()] == [408, 408, 408]
    assert size_of(ask(port, head("/", "Content-Length: 2") + b"xx")) == 2


def test_the_rest_of_a_body_after_its_answer_is_not_waited_for_long(port):
    with connected(port) as client:
        client.sendall(head("/refused", "Content-Length: 900"))
        assert read(client)[0] == 401
        deadline = time.monotonic() + 30
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                client.sendall(b"x")
                time.sleep(0.1)


def test_an_answer_before_the_body_keeps_the_connection_if_the_body_follows(app, monkeypatch):
    monkeypatch.setattr("api.protocol.DISCARDED", 0.4)
    with serving(limited(app, callers=open_callers(), max_body=MOST, body_seconds=20, concurrency=9)) as port, connected(port) as client:
        client.sendall(head("/refused", "Content-Length: 3"))
        assert read(client)[0] == 401
        assert size_of(_on(client, b"xxx" + head("/", "Content-Length: 1") + b"x")) == 1
        client.sendall(head("/refused", "Content-Length: 3"))
        assert read(client)[0] == 401
        client.sendall(b"xxx")
        time.sleep(0.8)
        assert size_of(_on(client, head("/", "Content-Length: 2") + b"xx")) == 2


def test_a_slow_application_is_no_slow_client(port):
    with connected(port) as one, connected(port) as two:
        one.sendall(head("/thinking", "Content-Length: 2") + b"xx")
        two.sendall(head("/early", "Content-Length: 2") + b"x")
        assert size_of(read(one)) == 2
        assert read(two)[::2] == (200, 10)


def test_an_answer_that_is_not_fetched_does_not_stay(port):
    eventually(lambda: not CONNECTIONS[port])
    with connected(port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(head("/huge", "Content-Length: 0"))
        eventually(lambda: CONNECTIONS[port])
        eventually(lambda: not CONNECTIONS[port])


def eventually(claim):
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_once_a_body_is_too_late_the_application_hears_and_says_no_more():
    """Without a server: the rest arrives just as the answer goes out."""
    told, heard = [], []

    async def late(scope, receive, send):
        heard.append(await receive())
        heard.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message):
        told.append(message.get("status"))

    asyncio.run(Body(late, 10, 0.01)({"type": "http", "headers": []}, receive, send))
    assert told == [408, None]
    assert [one["type"] for one in heard] == ["http.disconnect"] * 2


def test_who_falls_over_leaves_nothing_to_wait_for():
    async def broken(scope, receive, send):
        await receive()
        raise ValueError

    async def receive():
        return {"type": "http.request", "body": b"x", "more_body": True}

    body = Body(broken, 10, 1)
    with pytest.raises(ValueError):
        asyncio.run(body({"type": "http", "headers": []}, receive, None))
    assert body.awaited == {}


# --- headers ---------------------------------------------------------------------------------------------------------


def test_headers_that_are_too_long_are_refused(port):
    with connected(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nX: " + b"x" * 4_000)
        status, headers, body = read(client)
        assert (status, body) == (431, "the headers have more than 4,000 bytes")
        assert (headers["cache-control"], headers["connection"]) == ("no-store", "close")
        assert is_closed(client)


def test_a_connection_may_be_used_for_as_long_as_one_likes(port):
    with connected(port) as client:
        for _ in range(200):
            assert size_of(_on(client, head("/", "Content-Length: 900") + b"x" * 900)) == 900


HOT = head("/hot", "Authorization: Bearer a", "Content-Type: application/json", "X-Request-ID: a", "Content-Length: 2") + b"{}"


@pytest.fixture
def direct(app, monkeypatch):
    """The connections answer by themselves what they are asked under `/hot`: that there are too many already."""
    hot = SimpleNamespace(paths=(b"/hot",), runtime=SimpleNamespace(callers=open_callers()))
    monkeypatch.setattr(GuardedProtocol, "direct", Direct(hot, InFlight(app, 0), MOST, 20))


def test_who_is_sent_away_at_once_may_stay_idle_like_anybody(app, direct):
    """Answered while it was being read: what follows is not the headers of another request, until they begin."""
    with serving(app, header_seconds=0.3) as port, connected(port) as client:
        for _ in range(2):
            assert _on(client, HOT)[0] == 503
            time.sleep(0.6)
        assert _on(client, HOT + b"POST")[0] == 503
        assert is_closed(client)


@pytest.mark.parametrize(("request_", "status"), [(head("/", "Content-Length: 0"), 200), (HOT, 503)], ids=["through ASGI", "by the connection"])
def test_a_connection_is_closed_when_it_has_been_idle_for_long_enough_since_its_last_answer(app, direct, request_, status):
    with serving(app, idle=0.8) as port, connected(port) as client:
        for pause in (0.3, 0.6, 0.6, 0):
            assert _on(client, request_)[0] == status
            time.sleep(pause)
        start = time.monotonic()
        assert is_closed(client)
        assert 0.5 < time.monotonic() - start < 5


def test_a_connection_that_is_answered_for_longer_than_it_may_idle_is_kept(app):
    with serving(app, idle=0.3) as port, connected(port) as client:
        assert _on(client, head("/", "Content-Length: 0"))[0] == 200
        assert _on(client, head("/thinking", "Content-Length: 0"))[0] == 200  # for a second: the timer fires meanwhile
        assert _on(client, head("/", "Content-Length: 0"))[0] == 200
        assert is_closed(client)


@pytest.mark.parametrize("request_", [head("/", "Content-Length: 0"), HOT], ids=["through ASGI", "by the connection"])
def test_the_beginning_of_another_request_behind_the_first_keeps_no_connection(app, direct, request_):
    with serving(app, idle=0.5, header_seconds=0.5) as port, connected(port) as client:
        client.sendall(request_ + b"P")
        assert read(client) is not None
        assert read(client) in (None, 408) or is_closed(client)


def test_the_rest_of_an_answered_body_keeps_no_connection(port, app):
    """It is thrown away for longer than a connection may idle, and then nothing more is said."""
    whole = limited(app, callers=open_callers(), max_body=MOST, body_seconds=20, concurrency=3, free=[])
    with serving(whole, idle=0.6, max_body=MOST) as port, connected(port) as client:
        assert _on(client, head("/", "Content-Length: 0"))[0] == 200
        time.sleep(0.3)
        assert _on(client, head("/", "Content-Length: 1001") + b"x" * 1000)[0] == 413
        time.sleep(0.6)
        client.sendall(b"x")
        assert is_closed(client)


def test_a_refusal_that_nobody_fetches_keeps_no_connection(app):
    """A transport that closes waits until what it has still to send is fetched. This one stands in for a socket whose buffer in the kernel is full to within
    a refusal, which takes a minute to bring about and differs from machine to machine."""

    class Unread(asyncio.Transport):
        aborted = False

        def get_extra_info(self, name, default=None):
            return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

        def is_closing(self):
            return False

        def write(self, data):
            pass

        def close(self):
            pass

        def get_write_buffer_size(self):
            return 100

        def abort(self):
            self.aborted = True

    async def refused():
        config = uvicorn.Config(app, http=guarded(fetch_seconds=0.05), log_level="critical")
        config.load()
        protocol = config.http_protocol_class(config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop())
        transport = Unread()
        protocol.connection_made(transport)
        protocol.data_received(b"this is no request\r\n\r\n")
        assert not transport.aborted
        await asyncio.sleep(0.2)
        return transport.aborted

    assert asyncio.run(refused())


def test_a_connection_that_is_lost_leaves_no_timer(app):
    with serving(app, idle=30) as port:
        with connected(port) as client:
            assert _on(client, head("/", "Content-Length: 0"))[0] == 200
            (protocol,) = CONNECTIONS[port]
            timer = protocol._idle_timer
            assert not timer.cancelled()
        until = time.monotonic() + 5
        while not timer.cancelled():
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.parametrize("id", ["a", "550e8400-e29b-41d4-a716-446655440000", "x" * 200, "a b~!"])
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/", ("Content-Length: 0",), 200), ("/refused", (), 401), ("/", ("Content-Length: 1001",), 413), ("/broken", (), 500)],
)
def test_the_request_id_is_on_every_answer(port, path, headers, status, id):
    told, answered, body = ask(port, head(path, f"X-Request-ID: {id}", *headers))
    assert (told, answered["x-request-id"]) == (status, id)
    assert answered["x-content-type-options"] == "nosniff" and answered["cache-control"] == "no-store"
    assert status == 200 or isinstance(body, str)


def test_the_request_id_is_on_answers_to_what_never_became_a_request(port):
    with connected(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nX-Request-ID: abc\r\nX: " + b"x" * 4_000)
        assert read(client)[1]["x-request-id"] == "abc"
    assert ask(port, head("/", "X-Request-ID: abc", "Content-Length: x"))[1]["x-request-id"] == "abc"


@pytest.mark.parametrize("id", [b"", b"x" * 201, "é".encode(), b"a\tb", b"\x7f", b"\xff"])
def test_what_is_no_request_id_is_not_echoed(port, id):
    answer = ask(port, b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: " + id + b"\r\n\r\n")
    assert answer is None or "x-request-id" not in answer[1]


# --- errors ----------------------------------------------------------------------------------------------------------


def test_what_escapes_is_reported_and_not_told(port, app):
    app.reported.clear()
    assert ask(port, head("/broken"))[::2] == (500, "internal error")
    assert [type(error) for error in app.reported] == [ValueError]


def test_an_answer_that_was_cut_short_ends_the_connection(port, app):
    app.reported.clear()
    with connected(port) as client:
        client.sendall(head("/cut"))
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert is_closed(client)
    assert [type(error) for error in app.reported] == [ValueError]


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"hello\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", head("/", "X: a\x00b")])
def test_what_is_not_http_is_told_so(port, data):
    assert ask(port, data)[::2] == (400, "this is not an HTTP request")


@pytest.mark.parametrize("rubbish", [b"rubbish\r\n\r\n", head("/", "Transfer-Encoding: chunked") + b"rubbish\r\n"])
def test_rubbish_after_a_request_is_not_taken_for_its_answer(port, app, rubbish):
    app.hold()
    with connected(port) as client:
        client.sendall(head("/late", "Content-Length: 0"))
        assert app.started.wait(20)
        client.sendall(rubbish)
        answer = read(client)
        app.go.set()
        assert answer is None


def test_requests_that_come_together_are_answered_in_order(port):
    with connected(port) as client:
        client.sendall(b"".join(head("/", f"Content-Length: {size}") + b"x" * size for size in (1, 2, 3)))
        buffered = b""
        while buffered.count(b"content-length\"]]") < 3:
            buffered += client.recv(65536)
        assert [int(part.split(b",")[0]) for part in buffered.split(b"\r\n\r\n[")[1:]] == [1, 2, 3]
        assert size_of(_on(client, head("/", "Content-Length: 4") + b"xxxx")) == 4


# --- how many --------------------------------------------------------------------------------------------------------


def test_more_requests_at_a_time_than_allowed_are_sent_away_at_once():
    app = Application()
    whole = limited(app, callers=open_callers(), max_body=MOST, body_seconds=20, concurrency=3, free=["/free"])
    with serving(whole) as port, connected(port) as one, connected(port) as two, connected(port) as three:
        clients = (one, two, three)
        for client in clients:
            app.started.clear()
            client.sendall(head("/late", "Content-Length: 0"))
            assert app.started.wait(20)
        status, headers, body = ask(port, head("/", "Content-Length: 0", "X-Request-ID: abc"))
        assert (status, headers["retry-after"], headers["x-request-id"]) == (503, "1", "abc")
        assert body == "too many requests at a time: try again later"
        assert size_of(ask(port, head("/free", "Content-Length: 0"))) == 0
        app.go.set()
        assert [size_of(read(client)) for client in clients] == [0, 0, 0]
        assert size_of(ask(port, head("/", "Content-Length: 0"))) == 0


def test_a_client_that_leaves_frees_its_place(port):
    for _ in range(10):
        with connected(port) as client:
            client.sendall(head("/", "Content-Length: 10") + b"x")
    eventually(lambda: ask(port, head("/", "Content-Length: 0"))[0] == 200)


def test_more_connections_than_allowed_are_closed_and_those_before_still_answered(app):
    with serving(limited(app, callers=open_callers(), max_body=MOST, body_seconds=20, concurrency=100), connections=20, header_seconds=20) as port:
        before = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(20)]
        assert size_of(_on(before[0], head("/", "Content-Length: 0"))) == 0
        for _ in range(100):
            with connected(port) as client:
                status, headers, body = read(client)
                assert (status, headers["retry-after"], body) == (503, "1", "too many connections: try again later")
        assert all(size_of(_on(client, head("/", "Content-Length: 0"))) == 0 for client in before)
        for client in before:
            client.close()
        eventually(lambda: ask(port, head("/", "Content-Length: 0"))[0] == 200)


# --- how often -------------------------------------------------------------------------------------------------------


def test_a_caller_has_its_own_rate_and_strangers_share_that_of_their_address(app, tmp_path):
    file = tmp_path / "callers.toml"
    file.write_text(f'[caller.one]\nkey_sha256 = ["{sha256(KEY.encode()).hexdigest()}"]\nroles = ["store"]\n')
    with serving(limited(app, callers=Callers.load(file), max_body=MOST, body_seconds=20, concurrency=9, rate=0.01, burst=3, free=["/free"])) as port:
        known, stranger = f"Authorization: Bearer {KEY}", "Authorization: Bearer guess"
        assert [ask(port, head("/", known, "Content-Length: 0"))[0] for _ in range(4)] == [200, 200, 200, 429]
        assert [ask(port, head("/", stranger, f"X: {n}", "Content-Length: 0"))[0] for n in range(4)] == [200, 200, 200, 429]
        status, headers, body = ask(port, head("/", "X-Request-ID: abc"))
        assert (status, body, headers["x-request-id"]) == (429, "too many requests: try again later", "abc")
        assert 90 <= int(headers["retry-after"]) <= 100
        assert ask(port, head("/free", "Content-Length: 0"))[0] == 200


def test_a_bucket_fills_again(monkeypatch):
    now = 1000.0
    monkeypatch.setattr("api.limits.monotonic", lambda: now)
    rate = Rate(Application(), rate=10, burst=5)
    assert [rate.take("a") for _ in range(5)] == [0.0] * 5
    assert rate.take("a") == pytest.approx(0.1)
    assert rate.take("b") == 0.0
    now += 0.1
    assert (rate.take("a"), rate.take("a")) == (0.0, pytest.approx(0.1))
    now += 3600
    assert [rate.take("a") == 0.0 for _ in range(6)] == [True] * 5 + [False]


def test_the_rates_of_those_who_come_back_outlive_a_flood_of_addresses(monkeypatch):
    monkeypatch.setattr("api.limits.REMEMBERED", 100)
    rate = Rate(Application(), rate=0.001, burst=1)
    assert rate.take("caller one") == 0.0
    for number in range(1000):
        rate.take(f"address {number}")
        if number % 50 == 0:
            # Refused, and remembered as what it was: a refusal is no reason to forget.
            assert rate.take("caller one") > 0
    assert len(rate._full_at) <= 100


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False), ("2001:db8:1:1::1", "2001:db8:1:1:ffff::2", True), ("2001:db8:1:1::1", "2001:db8:1:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True), ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False), ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)  # fmt: skip
def test_an_ipv6_network_is_one_address(one, other, same):
    assert (by_address({"client": (one, 1)}) == by_address({"client": (other, 1)})) is same


def test_who_names_two_callers_is_a_stranger():
    headers = [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")]
    assert by_caller(open_callers())({"client": ("192.0.2.1", 1), "headers": headers}) == "address 192.0.2.1"
    assert by_address({"client": None}) == "address "


# --- without authentication ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("Host: 127.0.0.1:8080",), 200), (("Host: localhost",), 200), (("Host: [::1]:8080",), 200),
        (("Host: 127.0.0.1:8080", "Origin: http://127.0.0.1:8080"), 200), (("Host: habilis.example",), 403), (("Host: 127.0.0.1.example",), 403),
        (("Host: ",), 403), ((), 403), (("Host: [",), 403), (("Host: x@localhost:1@y",), 403),
        (("Host: 127.0.0.1:8080", "Origin: http://127.0.0.1:3000"), 403), (("Host: 127.0.0.1", "Origin: https://habilis.example"), 403),
        (("Host: 127.0.0.1", "Origin: null"), 403),
    ],
)  # fmt: skip
def test_without_authentication_no_other_machine_and_no_page_is_served(headers, status):
    with serving(Loopback(Application())) as port, connected(port) as client:
        client.sendall("\r\n".join(["POST / HTTP/1.0", *headers, "Content-Length: 0", "", ""]).encode())
        assert read(client)[0] == status


def test_without_authentication_another_machine_is_not_served():
    told = []

    async def send(message):
        told.append(message.get("status"))

    scope = {"type": "http", "path": "/", "client": ("192.0.2.1", 1), "headers": [(b"host", b"127.0.0.1")]}
    asyncio.run(Loopback(Application())(scope, None, send))
    assert told[0] == 403


@pytest.mark.parametrize("around", [Envelope, lambda app: Body(app, 1, 1), lambda app: Rate(app, 1), lambda app: InFlight(app, 1), Loopback])
def test_what_is_not_http_passes(around):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(around(app)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
