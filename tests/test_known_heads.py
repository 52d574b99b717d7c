"""The short way of a hot request: heads that were seen before, and bodies decoded without dictionaries, say the same as the long way."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import api_server
import httptools
import pytest
from api_questions import NURSE, ONE, SEVERAL, STRANGER, act, document, open_record, patient, professional, question, target
from api_server import Server, key_of
from hypothesis import given, settings
from hypothesis import strategies as st

from api import authzen
from api.callers import open_callers
from api.direct import LONGEST, REMEMBERED, Direct
from api.hot import Head
from engine.errors import RequestError
from engine.request import parse_json

OTHER = "KEY-another-0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with api_server.serving(tmp_path_factory.mktemp("heads")) as one:
        open_record(one)
        with one.client("consent_desk") as desk:
            act(desk, patient(), "grant_access", **target(NURSE))
        yield one


def head(server: Server, length: int, path: str = ONE, *more: str, key: str | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"Authorization: Bearer {key or key_of('store')}", "Content-Type: application/json"]
    return "\r\n".join([*lines, *more, f"Content-Length: {length}", "", ""]).encode()


def raw(server: Server, body: Any, path: str = ONE, key: str | None = None) -> bytes:
    sent = json.dumps(body).encode()
    return head(server, len(sent), path, key=key) + sent


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def read(file: Any) -> tuple[int, Any]:
    status, length = int(file.readline().split()[1]), 0
    while line := file.readline().strip():
        name, _, value = line.decode().lower().partition(": ")
        length = int(value) if name == "content-length" else length
    return status, json.loads(file.read(length))


def ask(server: Server, data: bytes, times: int = 1) -> list[tuple[int, Any]]:
    """The answers to the same bytes, one after the other on one connection."""
    with connect(server) as connection, connection.makefile("rb") as file:
        made = []
        for _ in range(times):
            connection.sendall(data)
            made.append(read(file))
        return made


# --- heads -----------------------------------------------------------------------------------------------------------


def test_the_same_head_again_asks_with_its_own_body(server: Server) -> None:
    """Two subjects whose identifiers are as long: the heads are the same bytes."""
    yes, no = raw(server, question(professional(NURSE))), raw(server, question(professional(STRANGER, profession="G15_60")))
    assert yes[: yes.find(b"\r\n\r\n")] == no[: no.find(b"\r\n\r\n")] and yes != no
    for _ in range(3):
        assert [ask(server, one)[0][1]["decision"] for one in (yes, no)] == [True, False]
    assert [answer["decision"] for _, answer in ask(server, yes, 4)] == [True] * 4


def test_pieces_of_requests_that_begin_alike_are_put_together(server: Server) -> None:
    chance = random.Random(3)
    bodies = [question(professional(NURSE)), question(professional(STRANGER)), {"subject": {}}, question(professional(NURSE), resource=document("DOC-OTHER"))]
    expected = [(200, True), (200, False), (400, None), (200, True)]
    with connect(server) as connection, connection.makefile("rb") as file:
        for _ in range(150):
            several = [chance.randrange(len(bodies)) for _ in range(chance.randint(1, 4))]
            data = b"".join(raw(server, bodies[n]) for n in several)
            cuts = sorted(chance.sample(range(1, len(data)), chance.choice((0, 0, 1, 3))))
            for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
                connection.sendall(data[start:stop])
                if cuts:
                    time.sleep(0.0003)
            for n in several:
                status, answer = read(file)
                assert (status, answer["decision"] if status == 200 else None) == expected[n]


def test_a_known_head_inside_another_request_begins_none(server: Server) -> None:
    """What a proxy in front takes for one header is one header: no decision may be had by another reading."""
    whole = raw(server, question(professional(NURSE)))
    assert [status for status, _ in ask(server, whole, 2)] == [200, 200]
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(whole + b"GET /nothing HTTP/1.1\r\nX-Begun: ")
        assert read(file)[0] == 200
        time.sleep(0.2)
        connection.sendall(whole)
        status, answer = read(file)
        assert status in (400, 404) and "decision" not in str(answer)
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(head(server, 10 + len(whole)) + b'{"a": "bc"')
        time.sleep(0.2)
        connection.sendall(whole)
        status, answer = read(file)
        assert status == 400 and "decision" not in str(answer)


def test_a_body_of_another_length_than_its_head_says_is_not_taken_for_it(server: Server) -> None:
    whole = raw(server, question(professional(NURSE)))
    ask(server, whole, 2)
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(whole + whole[:40])
        assert read(file)[0] == 200
        connection.sendall(whole[40:])
        assert read(file)[1]["decision"] is True


def test_a_key_that_is_withdrawn_is_out_though_its_head_is_known(server: Server, tmp_path: Any) -> None:
    with api_server.serving(tmp_path / "revoked") as one:
        open_record(one)
        file = one.folder / "callers.toml"
        lines = file.read_text()
        digest = sha256(OTHER.encode()).hexdigest()
        more = f'\n[caller.other]\nkey_sha256 = ["{digest}"]\nroles = ["store"]\nsubjects = {{ "*" = "*" }}\nclaims = {{ "*" = "*" }}\n'
        data = raw(one, question(), key=OTHER)
        file.write_text(lines + more)
        until = time.monotonic() + 20
        while ask(one, data)[0][0] == 401:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert [status for status, _ in ask(one, data, 3)] == [200] * 3
        file.write_text(lines)
        while ask(one, data)[0][0] == 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert [status for status, _ in ask(one, data)] == [401]


GOOD = b"POST /access/v1/evaluation HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"


class Parsed:
    """A request as uvicorn's parser reads it."""

    def __init__(self, data: bytes):
        self.url, self.headers, self.body, self.is_whole = b"", [], b"", False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_whole = True


def fresh() -> Direct:
    hot = SimpleNamespace(paths=(ONE.encode(), SEVERAL.encode()), runtime=SimpleNamespace(callers=open_callers()))
    return Direct(hot, SimpleNamespace(), 1000, 1.0)  # type: ignore[arg-type]


def parsed(direct: Direct, data: bytes) -> tuple[Head, bytes] | None:
    """A request that goes the short way, and its body."""
    try:
        found = Parsed(data)
        if not found.is_whole:
            return None
        head = direct.head(found.url, found.parser.get_method(), found.headers)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade, ValueError):
        return None
    return None if head is None else (head, found.body)


def learn(direct: Direct, chunk: bytes, body: bytes | None = None, keep_alive: bool = True) -> None:
    found = parsed(direct, chunk)
    if found is not None:
        direct.learn(chunk, SimpleNamespace(head=found[0], body=found[1] if body is None else body, keep_alive=keep_alive))  # type: ignore[arg-type]


def learnt(chunk: bytes, body: bytes | None = None, keep_alive: bool = True) -> bool:
    direct = fresh()
    learn(direct, chunk, body, keep_alive)
    return bool(direct.heads)


def with_line(line: bytes) -> bytes:
    return GOOD.replace(b"Host: a", b"Host: a\r\n" + line)


def test_only_heads_whose_end_is_beyond_doubt_are_remembered() -> None:
    assert learnt(GOOD + b"{}")
    assert not learnt(GOOD + b"{}", keep_alive=False)
    assert not learnt(with_line(b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") + b"{}")
    assert not learnt(GOOD + b"{}POST", b"{}"), "what follows is another request"
    assert not learnt(GOOD + b"{", b"{}"), "the rest came later"
    lenient = GOOD.replace(b"\r\n", b"\n")
    assert not learnt(lenient + b"\r\n\r\n{}", b"{}") and not learnt(lenient + b"{}", b"{}")
    assert not learnt(GOOD.replace(b"Host: a", b"Host: " + b"a" * LONGEST) + b"{}")
    assert not learnt(b"\r\n" + GOOD + b"{}") and not learnt(b"\r\r\n" + GOOD + b"{}"), "the parser skips empty lines, and an identifier might stand there"


@pytest.mark.parametrize("line", [b"X-Request-ID: R1", b"x-request-id: " + b"~" * 200])
def test_a_head_is_known_whatever_its_identifier(line: bytes) -> None:
    direct, own = fresh(), line.split(b": ")[1]
    learn(direct, GOOD + b"{}")
    for head, id in ((GOOD, None), (with_line(line), own), (GOOD.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n"), own)):
        found = direct.known(head)
        assert found is not None and (found[0].id, found[0].request, found[1]) == (id, (id or b"").decode(), 2)
    direct.heads.clear()
    learn(direct, with_line(line) + b"{}")
    assert direct.known(GOOD) is not None and direct.known(GOOD)[0].id is None  # type: ignore[index]


@pytest.mark.parametrize(
    "line",
    [
        b"X-Request-ID:R1", b"X-Request-ID: ", b"X-Request-ID: two words", b"X-Request-ID: R1 ", b"X-Request-ID: R1\t", b"X-Request-ID: \xe9",
        b"X-Request-ID: " + b"x" * 201, b"X-Request-ID: R1\r\nX-Request-ID: R2", b"X-Request-ID: R1\r\n and more", b"X-Request-ID : R1", b" X-Request-ID: R1",
        b"X-Request-IDs: R1", b"X-Request-ID: R1\nHost: b", b"X-Request-ID: \x7f", b"X-Request-ID: a\x00b",
    ],
)  # fmt: skip
def test_an_identifier_that_may_be_read_otherwise_is_left_to_the_parser(line: bytes) -> None:
    direct = fresh()
    learn(direct, GOOD + b"{}")
    assert direct.known(with_line(line)) is None
    assert line == b"X-Request-IDs: R1" or not learnt(with_line(line) + b"{}")


NAMES = (
    "X-Request-ID: R1", "x-request-id: R2", "X-REQUEST-ID: ~", "X-Request-ID:R3", "X-Request-ID: R 4", "X-Request-ID: ", "X-Request-ID: R5 ",
    "X-Request-ID", "\tX-Request-ID: R6",
)  # fmt: skip
OTHERS = (
    " folded", "Host: a", "Authorization: Bearer a", "Authorization: Bearer b", "Content-Type: application/json", "Content-Type: text/plain",
    "Content-Length: 2", "Content-Length: 3", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate: a=b", "X: \n", "Y:",
    "Connection: close", "Expect: 100-continue", "Transfer-Encoding: chunked",
)  # fmt: skip
FIRST, *USUAL = GOOD.split(b"\r\n")[:-2]
some_lines = st.lists(st.sampled_from(NAMES + OTHERS), max_size=3).flatmap(lambda more: st.permutations([*USUAL, *map(str.encode, more)]))


def head_of(lines: Iterable[bytes]) -> bytes:
    return b"\r\n".join([FIRST, *lines, b"", b""])


@settings(max_examples=1500, deadline=None)
@given(st.lists(some_lines, max_size=3), some_lines, st.sampled_from((b"", b"", b"\r\n", b"\r\r\n")), st.booleans())
def test_a_known_head_says_what_the_parser_reads(seen: list[list[bytes]], lines: list[bytes], before: bytes, is_named: bool) -> None:
    """Whatever was learnt before; also from the same lines without an identifier, and with another one."""
    direct, then = fresh(), before + (b"X-Request-ID: first\r\n" if before and is_named else b"") + head_of(lines)
    nameless = [line for line in lines if not line.lower().startswith(b"x-request-id: ")]
    for several in (*seen, nameless, [b"X-Request-ID: before", *lines]):
        learn(direct, before + head_of(several) + b"{}")
    known = direct.known(then)
    if known is not None:
        head, length = known
        found = parsed(direct, then + b"x" * length)
        assert found is not None and len(found[1]) == length
        assert all(getattr(head, name) == getattr(found[0], name) for name in ("path", "method", "id", "request", "parent", "token"))
        assert head.headers == [one for one in found[0].headers if one[0] != b"x-request-id"]


def test_heads_are_forgotten_before_they_are_too_many() -> None:
    direct = fresh()
    for n in range(REMEMBERED + 10):
        learn(direct, GOOD.replace(b"Host: a", b"Host: %d" % n) + b"{}")
    assert 0 < len(direct.heads) <= REMEMBERED


# --- bodies ----------------------------------------------------------------------------------------------------------

words = st.sampled_from(("", " ", "a", "read", "é", "\u2003", "x" * 257, 'say "so"', "back\\slash"))
numbers = st.integers() | st.sampled_from((2**63, -(2**63) - 1, 10**100 - 1, 10**100))
plain = st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | words
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2), max_leaves=4)
properties = st.dictionaries(st.sampled_from(("patient", "type", "x")), values, max_size=3)
names = st.sampled_from(("professional", "document", "10000023092", "x")) | words


def members(**required: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with these members; one of them may be missing, null or something else, and there may be another."""
    whole = st.fixed_dictionaries(required, optional={"properties": properties})
    spoilt = st.builds(lambda one, key, value: {**one, key: value}, whole, st.sampled_from((*required, "properties", "other")), values)
    missing = st.builds(lambda one, key: {k: v for k, v in one.items() if k != key}, whole, st.sampled_from(tuple(required)))
    return whole | whole | spoilt | missing


entities, actions = members(type=names, id=names), members(name=names)
singles = st.fixed_dictionaries(
    {"subject": entities, "action": actions, "resource": entities}, optional={"context": properties | st.none(), "evaluations": st.none(), "z": values}
)
items = st.fixed_dictionaries({"resource": entities}) | st.fixed_dictionaries({"resource": entities}, optional={"subject": entities, "context": properties})
lists = st.fixed_dictionaries(
    {"subject": entities, "action": actions, "evaluations": st.lists(items, max_size=4)},
    optional={"context": properties, "resource": entities, "options": st.just({"evaluations_semantic": "deny_on_first_deny"}) | values},
)


@st.composite
def texts(draw: st.DrawFn, bodies: st.SearchStrategy[Any]) -> bytes:
    """JSON of a body: with spaces or without, ASCII or not, and at times with a member twice or an escaped quote."""
    text = json.dumps(draw(bodies), ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from((None, (",", ":"), (" , ", " : ")))))
    match draw(st.sampled_from(("as it is",) * 4 + ("twice", "escaped", "cut"))):
        case "twice":
            key = draw(st.sampled_from(("type", "id", "name", "subject", "properties", "patient", "x")))
            text = text.replace(f'"{key}"', f'"{key}": "before", "{key}"', 1)
        case "escaped":
            text = text.replace('\\"', "\\u0022")
        case "cut":
            text = text[:-1]
    return text.encode()


def told(question: authzen.Question) -> Any:
    subject, action, resources = question.subject, question.action, question.resources
    entities = [(one.type, one.id, dict(one.properties)) for one in (subject, *resources)]
    return repr((entities, action.name, dict(action.properties), dict(question.context), question.places))


def outcome(parse: Callable[[], Any]) -> Any:
    """What is asked, or that it is refused. As text: to Python 1 is equal to `True`."""
    try:
        found = parse()
    except RequestError:
        return "refused"
    if isinstance(found, authzen.Question):
        return told(found)
    return [told(one) for one in found.asked], {place: str(one) for place, one in found.mistakes.items()}, found.until, found.size


@settings(max_examples=600, deadline=None)
@given(texts(singles))
def test_a_body_says_what_the_exact_parser_reads(body: bytes) -> None:
    assert outcome(lambda: authzen.parse_one(body)) == outcome(lambda: authzen._one(parse_json(body)))


@settings(max_examples=600, deadline=None)
@given(texts(lists), st.sampled_from((2, 100)))
def test_a_list_says_what_the_exact_parser_reads(body: bytes, most: int) -> None:
    def record_of(action: str) -> Any:
        return lambda resource: resource.properties.get("patient")

    short = outcome(lambda: authzen.parse_several(body, most, record_of))
    assert short == outcome(lambda: authzen._several(parse_json(body), most, record_of))


@pytest.mark.parametrize("path", [ONE, SEVERAL])
def test_most_bodies_take_the_short_way(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authzen, "parse_body", lambda body: pytest.fail("the long way"))
    one = question(professional(NURSE))
    several = {key: value for key, value in one.items() if key != "resource"} | {"evaluations": [{"resource": document(f"D{n}")} for n in range(200)]}
    for text in (json.dumps(one if path == ONE else several), json.dumps(one if path == ONE else several, separators=(",", ":"))):
        if path == ONE:
            assert authzen.parse_one(text.encode()).resources[0].id == "DOC-BIO"
        else:
            assert len(authzen.parse_several(text.encode(), 500, lambda action: lambda resource: "one").asked[0].resources) == 200
