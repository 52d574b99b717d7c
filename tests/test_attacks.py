"""A hostile caller over HTTP: what must be refused is refused, what is masked is as if it were not there, and nobody's answer reaches somebody else.

Written from outside, against a real service: whichever way a request takes through it, these hold.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
from collections.abc import Iterator
from typing import Any

import api_server
import httpx
import pytest
from api_questions import ONE, SEVERAL, STRANGER, Json, act, document, logged, open_record, patient, professional, question, record, target
from api_server import NURSE, PATIENT, Server, key_of

OUTCOME = "/access/v1/outcome"
ACTIONS = (
    "read", "list", "preview", "deposit", "replace", "delete", "archive", "unarchive", "mask", "unmask",
    "hide_from_patient", "reveal_to_patient", "hide_from_representatives", "reveal_to_representatives",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, few places; the nurse's structure is authorised, and the patient masked one document."""
    with api_server.serving(tmp_path_factory.mktemp("attacks"), workers="2", max_concurrency="8") as one:
        open_record(one)
        with one.client("consent_desk") as desk:
            act(desk, patient(), "grant_access", **target("750000010", "structure"))
            act(desk, patient(), "mask", document("DOC-MASKED"))
        yield one


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def raw(server: Server, body: Any, path: str = ONE, *headers: str, id: str = "") -> bytes:
    """A request as bytes, by the store unless a header says otherwise."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    if not any(one.lower().startswith("authorization:") for one in headers):
        headers = (*headers, f"Authorization: Bearer {key_of('store')}")
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Content-Type: application/json", f"Content-Length: {len(sent)}", *headers]
    return "\r\n".join([*lines, *([f"X-Request-ID: {id}"] if id else []), "", ""]).encode() + sent


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def answers(connection: socket.socket, number: int) -> list[tuple[int, dict[str, str], bytes]]:
    """The next answers on a connection: status, headers, body."""
    made = []
    with connection.makefile("rb") as file:
        for _ in range(number):
            status = int(file.readline().split()[1])
            headers = {}
            while line := file.readline().strip():
                name, _, value = line.decode().partition(": ")
                headers[name] = value
            made.append((status, headers, file.read(int(headers["content-length"]))))
    return made


# --- one connection --------------------------------------------------------------------------------------------------


def test_answers_of_one_connection_are_not_mixed(server: Server) -> None:
    """Requests of all kinds at once: short and long ways, good and bad ones, with and without a body."""
    asked = []
    for n in range(40):
        kind = n % 5
        if kind == 0:
            asked.append((raw(server, question(professional(NURSE)), id=f"R{n}"), 200, b'"decision":true'))
        elif kind == 1:
            asked.append((raw(server, {"subject": {}}, id=f"R{n}"), 400, b"action: is missing"))
        elif kind == 2:
            said = {"decision": f"{n:026x}", "document": "D", "outcome": "shown"}
            asked.append((raw(server, said, OUTCOME, id=f"R{n}"), 200, b"recorded"))
        elif kind == 3:
            asked.append((raw(server, {**question(professional(NURSE)), "evaluations": [{}] * (n + 1)}, SEVERAL, id=f"R{n}"), 200, b"evaluations"))
        else:
            asked.append((raw(server, b"", ONE, id=f"R{n}"), 400, b""))
    with connect(server) as connection:
        connection.sendall(b"".join(one for one, _, _ in asked))
        got = answers(connection, len(asked))
    assert [headers["x-request-id"] for _, headers, _ in got] == [f"R{n}" for n in range(40)]
    for n, ((_, status, told), (had, _, body)) in enumerate(zip(asked, got, strict=True)):
        assert had == status and told in body, (n, had, body)
        if n % 5 == 3:
            assert len(json.loads(body)["evaluations"]) == n + 1


@pytest.mark.parametrize("together", [1, 3])
def test_clients_that_leave_take_no_place_along(server: Server, store: httpx.Client, together: int) -> None:
    whole = raw(server, question(professional(NURSE)))
    for n in range(60):
        with connect(server) as connection:
            connection.sendall((whole * together)[: None if n % 2 else -20])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for _ in range(20):
        with server.client() as other:
            assert other.post(ONE, json=question(professional(NURSE))).json()["decision"] is True
    assert "Traceback" not in server.output()


@pytest.mark.parametrize("path", [ONE, SEVERAL, OUTCOME, "/consent/v1/acts", "/nothing"])
@pytest.mark.parametrize("order", [("store", "nobody"), ("nobody", "store"), ("store", "reviewer"), ("store", "store")])
def test_two_authorizations_are_none(server: Server, path: str, order: tuple[str, str]) -> None:
    with connect(server) as connection:
        connection.sendall(raw(server, question(professional(NURSE)), path, *(f"Authorization: Bearer {key_of(one)}" for one in order)))
        ((status, _, body),) = answers(connection, 1)
    assert status == 401 and b"decision" not in body


# --- fresh -----------------------------------------------------------------------------------------------------------


def test_a_block_is_honoured_by_every_connection_of_every_worker(server: Server) -> None:
    """Connections that are warm, in two processes, each with the record at hand: none answers from before a block, or before its end."""
    several = [server.client() for _ in range(6)]
    asked = question(professional(NURSE))
    try:
        with server.client("consent_desk") as desk:
            for _ in range(8):
                act(desk, patient(), "block", **target(NURSE))
                assert [one.post(ONE, json=asked).json()["decision"] for one in several] == [False] * 6
                act(desk, patient(), "unblock", **target(NURSE))
                assert [one.post(ONE, json=asked).json()["decision"] for one in several] == [True] * 6
    finally:
        for one in several:
            one.close()


# --- as if it were not there -----------------------------------------------------------------------------------------


def told(answer: httpx.Response) -> tuple[Any, ...]:
    """All of an answer but what is random."""
    headers = {name: value for name, value in answer.headers.items()}
    return answer.status_code, headers, re.sub(rb'"id":"[0-9a-f]{26}"', b'"id":""', answer.content)


NO_DOCUMENT = (document("DOC-MASKED", status="Deleted"), document("DOC-MASKED", status=None), document("DOC-NEVER", status="Nonsense"))


@pytest.mark.parametrize("context", [{}, {"patient_request": True, "author_unavailable": True}])
@pytest.mark.parametrize("name", ACTIONS)
def test_a_masked_document_is_no_document(store: httpx.Client, server: Server, name: str, context: Json) -> None:
    def ask(resource: Json) -> list[tuple[Any, ...]]:
        one = question(professional(NURSE), name, resource, **context)
        one["action"]["properties"] = {"document": {**resource["properties"], "author": NURSE}}
        several = {**one, "evaluations": [{}, {"resource": resource}]}
        found = [told(store.post(ONE, json=one)), told(store.post(SEVERAL, json=several))]
        with server.client("consent_desk") as desk:
            return [*found, told(desk.post("/consent/v1/acts", json=one))] if "mask" in name or "hide" in name or "reveal" in name else found

    masked = ask(document("DOC-MASKED"))
    for other in NO_DOCUMENT:
        assert ask(other) == masked


@pytest.mark.parametrize("name", ["mask", "unmask", "hide_from_patient", "reveal_to_patient"])
def test_how_long_an_act_may_be_does_not_tell_a_masked_document_from_none(server: Server, name: str) -> None:
    """What is too long to be kept is said to be so by what was asked: an answer's reason has another length than another's."""
    with server.client("consent_desk") as desk:
        for long in (*range(14_700, 16_400, 75), 20_000):
            several = (document("DOC-MASKED"), document("DOC-NEVERX", status="Nonsense"))
            masked, other = (told(desk.post("/consent/v1/acts", json=question(professional(NURSE), name, one, basis="x" * long))) for one in several)
            assert masked == other, long
        assert masked[0] == 400


def test_searches_do_not_tell_a_masked_document_from_none(store: httpx.Client) -> None:
    def ask(resource: Json) -> list[tuple[Any, ...]]:
        asked = question(professional(NURSE), "read", resource)
        return [told(store.post(f"/access/v1/search/{kind}", json=asked)) for kind in ("action",)]

    masked = ask(document("DOC-MASKED"))
    assert all(ask(other) == masked for other in NO_DOCUMENT)


# --- spellings and types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [1, 1.0, "true", [True], {"true": True}])
def test_what_only_equals_true_in_python_is_not_asked_together_with_it(store: httpx.Client, given: Any) -> None:
    """A physician whom nobody authorised may break the glass with a justification, which must be text."""
    stranger = professional(STRANGER, profession="G15_10", structure="750000028")
    glass = {"purpose": "care", "access_mode": "bris_de_glace", "secret_session": False}
    several = {**question(stranger), "evaluations": [{"context": {**glass, "justification": one}} for one in ("a reason", given, "a reason")]}
    got = [one["decision"] for one in store.post(SEVERAL, json=several).json()["evaluations"]]
    alone = [store.post(ONE, json=question(stranger, **glass, justification=one)).json()["decision"] for one in ("a reason", given, "a reason")]
    assert got == alone


@pytest.mark.parametrize("id", [NURSE + " ", "\uff11" + NURSE[1:], NURSE + "\u200b", "8" + NURSE])
def test_nobody_looks_through_eyes_that_are_spelt_otherwise(server: Server, id: str) -> None:
    """A preview says what would be answered: of somebody under a spelling that no block holds for, nothing would be."""
    viewer = professional(NURSE) | {"id": id}
    asked = {"subject": patient(), "resource": record(), "context": {}, "viewer": viewer, "viewer_context": {"purpose": "care"}, "documents": [document()]}
    with server.client("portal") as portal, server.client() as store:
        assert store.post(ONE, json=question(viewer)).status_code == 400
        answer = portal.post("/consent/v1/preview", json=asked)
        assert answer.status_code == 400 and "not written like an identifier" in answer.json()
        assert portal.post("/consent/v1/preview", json=asked | {"viewer": professional(NURSE)}).json()["documents"][0]["now"]["decision"] is True


def page_token(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize("text", ["[1" + "0" * 400 + ',"a","b"]', "[" * 5000, '[1,"a"]', '[true,1,"b"]', "[NaN", "{}", "9" * 5000])
def test_a_position_that_no_page_gave_is_no_internal_fault(server: Server, text: str) -> None:
    asked = {"subject": patient(), "resource": record(), "context": {}, "page": {"token": page_token(text)}}
    with server.client("portal") as portal, server.client("reviewer") as reviewer:
        assert portal.post("/journal/v1/accesses", json=asked).status_code == 400
        assert reviewer.get("/journal/v1/reviews", params={"before": page_token(text)}).status_code == 400


# --- afterwards ------------------------------------------------------------------------------------------------------


def test_every_decision_that_was_told_is_in_the_log(server: Server, store: httpx.Client) -> None:
    several = {**question(professional(NURSE)), "evaluations": [{}, {"action": {"name": "list"}}, {"resource": document("DOC-MASKED")}]}
    got = [one["context"]["id"] for _ in range(10) for one in store.post(SEVERAL, json=several).json()["evaluations"]]
    known = {one["id"] for one in logged(server)}
    assert set(got) <= known


def test_the_technical_log_names_no_patient_and_no_fault(server: Server) -> None:
    output = server.output()
    assert [one for one in (PATIENT, NURSE, "DOC-", "internal fault", "Traceback") if one in output] == []


@pytest.mark.parametrize("properties", [{"untill": "2026-12-31"}, {"from": "2026-01-01"}, {"Target": {}}])
def test_an_act_says_nothing_that_nobody_reads(server: Server, properties: Json) -> None:
    """Whoever writes `untill` means an end, and would have given an authorisation without one."""
    asked = {"subject": patient(), "action": {"name": "grant_access", "properties": {**target(STRANGER), **properties}}, "resource": record()}
    with server.client("consent_desk") as desk:
        wide = {"action": {"name": "mask_documents", "properties": {**target("750000028", "structure"), "until": "2026-12-31"}}}
        assert desk.post("/consent/v1/acts", json=asked | wide).json().startswith("action.until: is read by nothing")
        before = desk.post("/consent/v1/access-list", json={"subject": patient(), "resource": record()}).json()["access_list"]
        answer = desk.post("/consent/v1/acts", json=asked)
        assert answer.status_code == 400 and answer.json().startswith(f"action.{next(iter(properties))}: is read by nothing")
        assert desk.post("/consent/v1/access-list", json={"subject": patient(), "resource": record()}).json()["access_list"] == before


# --- spellings -------------------------------------------------------------------------------------------------------

MASKED = {"author": "10000023100", "structure": "750000028"}
SPELLINGS = ("8{}", "{} ", "{}\u200b", "1000 {}", "\uff11{}", "urn:oid:1.2.250.1.71.4.2.1|{}")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Everything of one author and of one structure is masked; the nurse's structure is authorised."""
    with api_server.serving(tmp_path_factory.mktemp("spellings")) as one:
        open_record(one)
        with one.client("consent_desk") as desk:
            act(desk, patient(), "grant_access", **target("750000010", "structure"))
            for kind, id in MASKED.items():
                act(desk, patient(), "mask_documents", **target(id, kind))
        with one.client() as client:
            yield client


@pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)
@pytest.mark.parametrize("kind", MASKED)
def test_another_spelling_escapes_no_mask(masked: httpx.Client, kind: str, spelling: str) -> None:
    """Whoever is named in a way that the pack does not have may be anybody: the one whose documents are masked too."""
    others = {"author": "10000023084", "structure": "750000036"}
    nurse = professional(NURSE)
    clear = document("DOC-CLEAR", **others)
    spelt = document("DOC-SPELT", **{**others, kind: spelling.format(MASKED[kind])})
    listed = document("DOC-LISTED", **{**others, kind: [others[kind], spelling.format(MASKED[kind])]})
    assert masked.post(ONE, json=question(nurse, resource=clear)).json()["decision"] is True
    for hidden in (spelt, listed):
        assert masked.post(ONE, json=question(nurse, resource=hidden)).json()["decision"] is False
    several = masked.post(SEVERAL, json={**question(nurse), "evaluations": [{"resource": one} for one in (clear, spelt, listed, clear)]}).json()
    assert [one["decision"] for one in several["evaluations"]] == [True, False, False, True]
