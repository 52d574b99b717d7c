"""The service under bytes that nobody should send: bodies near the right shape and far from it, and connections used in every way that HTTP allows or forbids.

It serves one request at a time here, so one that is never counted out is noticed at once: nobody else would be let in. Never a 500; each answer belongs to
its own request, in order.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from api_load import Answer, Connection, Load, connected, request, several
from api_questions import ONE, SEVERAL, document, open_record, patient, professional, question, record, target
from api_server import NURSE, OTHER_PATIENT, ROLES, Server, key_of, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance

SEARCH, ACTS, HISTORY = "/access/v1/search/resource", "/consent/v1/acts", "/consent/v1/history"
LIVE, METADATA = "/health/live", "/.well-known/authzen-configuration"
EVERYONE = "everyone"
"""A caller with every role."""

STEADY = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that answers one request at a time."""
    everyone = [
        f"[caller.{EVERYONE}]", f'key_sha256 = ["{sha256(key_of(EVERYONE).encode()).hexdigest()}"]', f"roles = {json.dumps(ROLES)}",
        'subjects = { "*" = "*" }', 'claims = { "*" = "*" }',
    ]  # fmt: skip
    with serving(tmp_path_factory.mktemp("service"), "\n".join(everyone), max_concurrency="1", body_timeout="3") as one:
        open_record(one)
        yield one
        assert "internal fault" not in one.output()
        assert "Traceback" not in one.output()


def assert_free(server: Server) -> None:
    """Whatever was asked before has been counted out: there is room for one request, which is answered as ever."""
    with connected(server) as connection:
        until = time.monotonic() + 20
        while (answer := connection.ask(ONE, question())).status == 503:
            assert time.monotonic() < until, "a request was never counted out"
            time.sleep(0.01)
    assert answer.status == 200 and answer.json()["decision"], answer


def assert_proper(answer: Answer, id: str = "") -> None:
    """An answer of ours: JSON, of its own request, and no internal error."""
    assert answer.status < 500, answer
    assert answer.headers["content-type"] == "application/json" and answer.headers["cache-control"] == "no-store", answer
    assert answer.headers.get("x-request-id", "") == id, answer
    told = answer.json()
    if answer.status != 200:
        assert isinstance(told, str) and told, answer


# --- bodies ----------------------------------------------------------------------------------------------------------


HOSTILE = (
    None, True, False, 0, -1, 2**53 + 1, 2**63, 2**64, -(2**70), 10**99, 10**400, 1e308, -0.0, 5e-324, float("nan"), float("inf"), float("-inf"),
    "", " ", "\t", "\x00", "\x7f", "x" * 300, "é" * 257, "\u202e", "\ud800", "\udfff!", "🩺", "\ufeff", "null", "*", "@subject.id", "../../etc/passwd",
    "2026-13-45T99:99:99Z", "9999-12-31T23:59:59+14:00", "0001-01-01", "١٢٣", [], {}, [[]], [None], [{}], {"": ""}, {"type": 1, "id": []}, ["x"] * 300,
    {"$ref": "#"}, {"id": {"id": {"id": "x"}}}, "execute_all", "deny_on_first_deny", "1.1", "99.99999999999999999", "professional", "document", "read",
)  # fmt: skip
MANY_SUBJECTS = {
    "action": {"name": "read"}, "resource": document(), "context": {"purpose": "care"},
    "evaluations": [{"subject": professional()}, {"subject": professional(NURSE)}, {"resource": {"id": "DOC-2"}}, {"action": {"name": "preview"}}],
    "options": {"evaluations_semantic": "permit_on_first_permit"},
}  # fmt: skip
SHAPES: dict[str, tuple[Any, ...]] = {
    ONE: (question(), question(patient(), "preview"), question(supported_obligations=["log"], consent_token="1.2")),
    SEVERAL: (several(3), MANY_SUBJECTS, several(2) | {"options": {"evaluations_semantic": "deny_on_first_deny"}}),
    SEARCH: ({**question(), "resource": {"type": "document", "properties": document()["properties"]}, "page": {"limit": 2}},),
    ACTS: (
        {"subject": patient(OTHER_PATIENT), "action": {"name": "open", "properties": {"birth_date": "1989-01-01"}}, "resource": record(OTHER_PATIENT)},
        {"subject": patient(OTHER_PATIENT), "action": {"name": "grant_access", "properties": target(NURSE)}, "resource": record(OTHER_PATIENT), "context": {}},
    ),
    HISTORY: ({"subject": patient(), "resource": record(), "kind": "block"},),
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a body."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield from places(inside, (*path, key))


def deep(levels: int) -> Any:
    made: Any = 1
    for level in range(levels):
        made = [made] if level % 2 else {"x": made}
    return made


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """A body of this route with a few things wrong, as bytes that are JSON or nearly so."""
    body = json.loads(json.dumps(draw(st.sampled_from(SHAPES[path]))))
    for _ in range(draw(st.integers(0, 3))):
        where = draw(st.sampled_from(list(places(body)) or [()]))
        if not where:
            break
        here = body
        for key in where[:-1]:
            here = here[key]
        match draw(st.sampled_from(("hostile", "hostile", "gone", "deep", "wrapped", "twice", "other"))):
            case "hostile":
                here[where[-1]] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
            case "gone":
                del here[where[-1]]
            case "deep":
                here[where[-1]] = deep(draw(st.sampled_from((3, 7, 8, 30, 33, 200))))
            case "wrapped":
                here[where[-1]] = [here[where[-1]]]
            case "twice" if isinstance(here, list):
                here.append(copy.deepcopy(here[where[-1]]))
            case _:
                here[where[-1]] = draw(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5))
    data = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    match draw(st.sampled_from(("as it is",) * 6 + ("cut", "trailing", "bom", "utf-16", "twice", "bytes", "array"))):
        case "cut":
            data = data[: draw(st.integers(0, len(data)))]
        case "trailing":
            data += draw(st.sampled_from((b"}", b" {}", b"\x00", b"\n\n", b",")))
        case "bom":
            data = b"\xef\xbb\xbf" + data
        case "utf-16":
            data = data.decode("utf-8", "replace").encode("utf-16")
        case "twice":
            data = b'{"subject":{"type":"patient","id":"279035121518989"},"action":{"name":"read","name":"list"},' + data[1:]
        case "bytes":
            at = draw(st.integers(0, max(0, len(data) - 1)))
            data = data[:at] + draw(st.binary(min_size=1, max_size=3)) + data[at + 1 :]
        case "array":
            data = b"[" + data + b"]"
    return data


def send_bodies(server: Server, path: str, examples: int) -> None:
    with connected(server) as connection:
        statuses = set()

        @settings(max_examples=examples, **STEADY)  # type: ignore[arg-type]
        @given(bodies(path))
        def send(body: bytes) -> None:
            id = sha256(body).hexdigest()[:12]
            answer = connection.ask(path, body, caller=EVERYONE, id=id)
            assert_proper(answer, id)
            assert answer.status in (200, 400, 403, 409), answer
            statuses.add(answer.status)
            if path == SEVERAL and answer.status == 200 and "evaluations" in answer.json():
                assert all(isinstance(one["decision"], bool) for one in answer.json()["evaluations"])
            elif path == ONE and answer.status == 200:
                assert isinstance(answer.json()["decision"], bool)

        send()
        assert {200, 400} <= statuses
    assert_free(server)


@pytest.mark.parametrize("path", SHAPES)
def test_a_hostile_body_is_refused_or_answered(server: Server, path: str) -> None:
    send_bodies(server, path, 120 if path in (ONE, SEVERAL) else 40)


@pytest.mark.long
@pytest.mark.parametrize("path", SHAPES)
def test_thousands_of_hostile_bodies_are_refused_or_answered(server: Server, path: str) -> None:
    send_bodies(server, path, 10_000)


@pytest.mark.parametrize("path", [ONE, SEVERAL, SEARCH, ACTS])
def test_bodies_of_any_size_are_read_whole_or_refused(server: Server, path: str) -> None:
    """Nothing at all, more than a buffer, two megabytes, more than is allowed."""
    with connected(server) as connection:
        for filler, status in ((100_000, 200), (1_900_000, 200), (2_000_001, 413)):
            body = json.dumps(SHAPES[path][0] | {"unknown": "x" * filler}).encode()
            answer = connection.ask(path, body, caller=EVERYONE, id=f"{filler}")
            assert_proper(answer, f"{filler}")
            assert answer.status == status, answer
            if status == 413:
                break
    with connected(server) as connection:
        for headers in ((), ("Content-Length: 0",)):
            answer = connection.ask(path, b"", *headers, caller=EVERYONE, id="empty")
            assert_proper(answer, "empty")
            assert answer.status == 400
    assert_free(server)


# --- connections -----------------------------------------------------------------------------------------------------


Kind = tuple[Callable[[str], bytes], int]
KINDS: dict[str, Kind] = {
    "one": (lambda id: request(ONE, question(resource=document(id)), id=id), 200),
    "list": (lambda id: request(SEVERAL, several(5), id=id), 200),
    "large": (lambda id: request(SEVERAL, several(400), id=id), 200),
    "mistaken": (lambda id: request(ONE, {"subject": 1}, id=id), 400),
    "no json": (lambda id: request(SEVERAL, b"{", id=id), 400),
    "nobody": (lambda id: request(ONE, question(), caller=None, id=id), 401),
    "get": (lambda id: request(ONE, id=id, method="GET"), 405),
    "live": (lambda id: request(LIVE, id=id, method="GET", caller=None), 200),
    "metadata": (lambda id: request(METADATA, id=id, method="GET", caller=None), 200),
    "search": (lambda id: request(SEARCH, SHAPES[SEARCH][0], id=id), 200),
    "nowhere": (lambda id: request("/nowhere", id=id, method="GET"), 404),
    "query": (lambda id: request(ONE + "?a=b", question(), id=id), 200),
    "chunked": (lambda id: request(ONE, chunked(json.dumps(question()).encode(), 50), "Transfer-Encoding: chunked", id=id), 200),
    "patient": (lambda id: request(ONE, question(), "Expect: 100-continue", id=id), 200),
}
"""Requests as bytes, and the status of their answers."""
HOT = ("one", "list", "large", "mistaken", "no json", "nobody")


def chunked(body: bytes, size: int) -> bytes:
    return b"".join(b"%x;name=value\r\n%b\r\n" % (len(part), part) for at in range(0, len(body), size) if (part := body[at : at + size])) + b"0\r\n\r\n"


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[str], list[int]]:
    """Kinds of requests one behind the other, and where to cut their bytes into segments, in thousandths."""
    kinds = draw(st.lists(st.sampled_from((*HOT, *KINDS)), min_size=1, max_size=7))
    cuts = draw(st.lists(st.integers(1, 999), max_size=4))
    return kinds, sorted(set(cuts))


def send_stream(connection: Connection, kinds: list[str], cuts: list[int], name: str = "r") -> None:
    ids = [f"{name}-{number}-{kind.replace(' ', '')}" for number, kind in enumerate(kinds)]
    data = b"".join(KINDS[kind][0](id) for kind, id in zip(kinds, ids, strict=True))
    marks = [0, *(len(data) * cut // 1000 for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(marks):
        connection.send(data[start:stop])
        if len(marks) > 2:
            time.sleep(0.0005)
    for kind, id in zip(kinds, ids, strict=True):
        answer = connection.read()
        assert answer is not None, f"closed before {id}"
        assert_proper(answer, id)
        assert answer.status == KINDS[kind][1], (id, answer)


def send_streams(server: Server, examples: int) -> None:
    with connected(server) as connection:

        @settings(max_examples=examples, **STEADY)  # type: ignore[arg-type]
        @given(streams())
        def send(stream: tuple[list[str], list[int]]) -> None:
            send_stream(connection, *stream)

        send()
    assert_free(server)


def test_requests_one_behind_the_other_are_answered_in_order(server: Server) -> None:
    send_streams(server, 80)


@pytest.mark.long
def test_thousands_of_streams_of_requests_are_answered_in_order(server: Server) -> None:
    send_streams(server, 5_000)


def test_hundreds_of_requests_in_one_segment_are_answered_in_order(server: Server) -> None:
    chance = random.Random(1)
    with connected(server) as connection:
        send_stream(connection, chance.choices(("one", "live", "mistaken", "list", "nowhere"), k=300), [])
    assert_free(server)


@pytest.mark.parametrize("kind", ["one", "large", "search", "chunked"])
def test_a_body_may_come_in_many_segments(server: Server, kind: str) -> None:
    data = KINDS[kind][0]("slowly")
    size = 1 if len(data) < 5_000 else 3_000
    with connected(server) as connection:
        for at in range(0, len(data), size):
            connection.send(data[at : at + size])
            if at % (10 * size) == 0:
                time.sleep(0.001)
        answer = connection.read()
        assert answer is not None
        assert_proper(answer, "slowly")
        assert answer.status == 200
        assert connection.ask(ONE, question()).status == 200
    assert_free(server)


@pytest.mark.parametrize("kind", HOT)
def test_the_last_request_of_a_connection_is_answered_and_then_it_closes(server: Server, kind: str) -> None:
    make, status = KINDS[kind]
    old = make("old").replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
    last = make("last").replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    for data, id in ((old, "old"), (last, "last"), (last + make("more"), "last")):
        with connected(server) as connection:
            connection.send(data)
            answer = connection.read()
            assert answer is not None
            assert_proper(answer, id)
            assert answer.status == status and answer.headers["connection"] == "close"
            assert connection.read() is None
    assert_free(server)


@pytest.mark.parametrize("path", [ONE, SEVERAL, SEARCH])
def test_who_expects_to_be_told_to_go_on_is_told(server: Server, path: str) -> None:
    data = request(path, SHAPES[path][0], "Expect: 100-continue", caller=EVERYONE, id="expecting")
    head, _, body = data.partition(b"\r\n\r\n")
    with connected(server) as connection:
        connection.send(head + b"\r\n\r\n")
        assert connection.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(body)
        answer = connection.read()
        assert answer is not None and answer.status == 200
        assert_proper(answer, "expecting")
    assert_free(server)


def test_a_body_that_never_comes_is_not_waited_for(server: Server) -> None:
    """Neither when nothing of it comes, nor when some does."""
    data = request(ONE, question())
    head = data[: data.index(b"\r\n\r\n") + 4]
    with connected(server) as nothing, connected(server) as some, connected(server) as behind:
        nothing.send(head)
        some.send(data[:-20])
        behind.send(data + head)
        first = behind.read()
        assert first is not None and first.status == 200
        for connection in (nothing, some, behind):
            answer = connection.read()
            assert answer is not None and answer.status == 408 and answer.headers["connection"] == "close"
            assert connection.read() is None
    assert_free(server)


NONSENSE = {
    "no request": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no version": b"POST /access/v1/evaluation\r\n\r\n",
    "two lengths": b"POST /access/v1/evaluation HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": b"POST /access/v1/evaluation HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": b"POST /access/v1/evaluation HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "words for a length": b"POST /access/v1/evaluation HTTP/1.1\r\nContent-Length: two\r\n\r\n{}",
    "huge length": b"POST /access/v1/evaluation HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "bad chunk": b"POST /access/v1/evaluation HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "folded header": b"POST /access/v1/evaluation HTTP/1.1\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "null in a header": b"POST /access/v1/evaluation HTTP/1.1\r\nX-Request-ID: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "space before the colon": b"POST /access/v1/evaluation HTTP/1.1\r\nContent-Length : 2\r\n\r\n{}",
    "bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
    "no path": b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n\r\n",
    "long headers": b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 60_000,
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "upgrade": request(ONE, question(), "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"),
    "upgrade to http/2": request(ONE, question(), "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "absolute": request(ONE, question()).replace(b" /access", b" http://elsewhere.example/access", 1),
    "long identifier": request(ONE, question(), id="x" * 201),
    "identifier with bytes": request(ONE, question(), id="é\xff"),
    "long key": request(ONE, question(), "Authorization: Bearer " + "x" * 20_000, caller=None),
    "key in bytes": request(ONE, question(), "Authorization: Bearer \xff\xfe", caller=None),
    "charset": request(ONE, question(), "Content-Type: application/json; charset=\xff"),
    "no type": request(ONE, question(), "Content-Type: "),
    "trace": request(ONE, question(), "traceparent: 00-zz-zz-zz-\xff"),
    "trailers": request(ONE, b"2\r\n{}\r\n0\r\nX-Request-ID: other\r\n\r\n", "Transfer-Encoding: chunked", id="mine"),
}


@pytest.mark.parametrize("name", NONSENSE)
@pytest.mark.parametrize("behind", [False, True], ids=["alone", "behind"])
def test_nonsense_is_refused_and_harms_nobody(server: Server, name: str, behind: bool) -> None:
    with connected(server) as connection:
        if behind:
            assert connection.ask(ONE, question(), id="before").status == 200
        connection.send(NONSENSE[name])
        while (answer := connection.read()) is not None:
            assert answer.status < 500, answer
            assert isinstance(answer.json(), str) or answer.status == 200
            connection.socket.shutdown(socket.SHUT_WR)
    assert_free(server)


def leave(connection: Connection, at_once: bool) -> None:
    """Close as a client does that is gone: with a reset, when it is so at once."""
    if at_once:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def clients_that_leave(server: Server, times: int) -> None:
    """Before their headers are whole, before their bodies are, before the answer, while they read it."""
    chance = random.Random(times)
    for number in range(times):
        data = KINDS[chance.choice(list(KINDS))][0](f"gone-{number}")
        if chance.random() < 0.3:
            data += KINDS[chance.choice(list(KINDS))][0](f"gone-behind-{number}")
        if chance.random() < 0.5:
            data = data[: chance.randrange(1, len(data))]
        with connected(server) as connection:
            connection.send(data)
            if chance.random() < 0.3:
                connection.socket.settimeout(0.02)
                with suppress(OSError):
                    connection.socket.recv(chance.randrange(1, 300))
            leave(connection, chance.random() < 0.5)
    assert_free(server)


def test_clients_that_leave_at_any_moment_are_counted_out(server: Server) -> None:
    """A thousand times as many as there is room for."""
    clients_that_leave(server, 1_000)


@pytest.mark.long
def test_tens_of_thousands_of_clients_that_leave_are_counted_out(server: Server) -> None:
    clients_that_leave(server, 20_000)


def test_more_at_a_time_than_there_is_room_for_are_sent_away_at_once(server: Server) -> None:
    with Load(server.port, clients=16) as load:
        load.wait_for_more(500)
        load.wait_for_more(500, 503)
    assert set(load.statuses) == {200, 503} and not load.faults, (load.statuses, load.faults)
    assert_free(server)


# --- clients that hardly read ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_client_that_does_not_read_costs_little_memory(server: Server) -> None:
    """It asks for lists, a moment after each was answered, and reads none."""
    from test_service_reliability import resident

    data = request(SEVERAL, several(500))
    with connected(server) as connection:
        for _ in range(20):
            assert connection.ask(SEVERAL, several(500)).status == 200
    before = resident(server)
    greedy = socket.socket()
    try:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.connect(("127.0.0.1", server.port))
        greedy.settimeout(5)
        with suppress(OSError):
            for _ in range(400):
                greedy.sendall(data)
                time.sleep(0.05)
        assert resident(server) - before < 30
    finally:
        greedy.close()
    assert_free(server)


@pytest.mark.long
def test_a_client_that_reads_slowly_and_for_long_is_not_cut_off(tmp_path: Path) -> None:
    """There is always something of an answer that it has not read yet, and never anything that it does not read in time."""
    with serving(tmp_path / "service", max_batch="20000", max_body="20000000") as server, connected(server) as connection:
        open_record(server)
        data = request(SEVERAL, several(20_000))
        connection.send(data)
        until = time.monotonic() + 70
        while time.monotonic() < until:
            answer = connection.read()
            assert answer is not None and answer.status == 200
            connection.send(data)
            time.sleep(0.5)


# --- what the service says of itself ---------------------------------------------------------------------------------


def keep_to_the_description(server: Server, examples: int) -> None:
    """Requests made from the service's own description, right and wrong ones, for every route."""
    schema = schemathesis.openapi.from_url(server.url + "/openapi.json")
    asked = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=examples, **STEADY)  # type: ignore[arg-type]
        @given(operation.as_strategy())
        def send(case: Any) -> None:
            case.call_and_validate(checks=[not_a_server_error, content_type_conformance], headers={"Authorization": f"Bearer {key_of(EVERYONE)}"})

        send()
        asked.add(operation.path)
    assert {ONE, SEVERAL, SEARCH, ACTS, METADATA} <= asked
    assert_free(server)


def test_every_route_keeps_what_the_description_says(server: Server) -> None:
    keep_to_the_description(server, 8)


@pytest.mark.long
def test_every_route_keeps_what_the_description_says_in_hundreds_of_cases(server: Server) -> None:
    keep_to_the_description(server, 500)
