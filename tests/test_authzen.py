"""OpenID AuthZEN Authorization API 1.0 over HTTP, against a real server: what implementations get wrong, one test each."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_questions import ONE, SEVERAL, STRANGER, Json, act, document, logged, open_record, patient, professional, question, target
from api_server import NURSE, OTHER_PATIENT, PATIENT, PHYSICIAN, Server, key_of, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from api.authzen import parse_body
from engine.errors import RequestError
from engine.request import parse_json

ID = re.compile(r"[0-9a-f]{26}")
THIRD_PATIENT = "112057510804351"
LIMITED = """
[caller.small-store]
key_sha256 = ["{digest}"]
roles = ["store"]
subjects = {{ professional = ["{nurse}"] }}
claims = {{ profession = ["G15_60"], structure = "*", authentication = "*" }}
"""
DIRECTORY = f"identifier,profession,others,specialty,organisations\n{PHYSICIAN},G15_10,0750000011,,750000010\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    import hashlib

    folder = tmp_path_factory.mktemp("authzen")
    (folder / "directory.csv").write_text(DIRECTORY)
    limited = LIMITED.format(digest=hashlib.sha256(key_of("small-store").encode()).hexdigest(), nurse=NURSE)
    with serving(folder, limited, directory=str(folder / "directory.csv")) as one:
        for id in (PATIENT, OTHER_PATIENT):
            open_record(one, id)
        yield one


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


@pytest.fixture(scope="module")
def small(server: Server) -> Iterator[httpx.Client]:
    with server.client("small-store") as one:
        yield one


def several(*items: Any, semantic: str | None = None, **defaults: Any) -> Json:
    asked = question() | defaults | {"evaluations": list(items)}
    return asked if semantic is None else asked | {"options": {"evaluations_semantic": semantic}}


def decisions(answer: httpx.Response) -> list[bool]:
    assert answer.status_code == 200, answer.text
    return [one["decision"] for one in answer.json()["evaluations"]]


def error_of(answer: httpx.Response) -> str:
    """An error's body is a JSON string, and no decision."""
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert isinstance(said, str) and said
    return said


def without(asked: Json, *path: str) -> Json:
    """The same without the member at the end of `path`."""
    first, *rest = path
    return {key: without(value, *rest) if key == first and rest else value for key, value in asked.items() if key != first or rest}


def having(asked: Json, value: Any, *path: str) -> Json:
    first, *rest = path
    return asked | {first: having(asked[first], value, *rest) if rest else value}


# --- a single evaluation ---------------------------------------------------------------------------------------------


def test_a_permit_has_a_decision_its_identifier_the_pack_and_reasons(store: httpx.Client) -> None:
    answer = store.post(ONE, json=question())
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert told.keys() == {"decision", "context"} and told["decision"] is True
    context = told["context"]
    assert context.keys() == {"id", "pack", "consent_token", "reason_user", "obligations"}
    assert ID.fullmatch(context["id"]) and re.fullmatch("[0-9a-f]{64}", context["pack"]) and re.fullmatch(r"[0-9]+\.[0-9]+", context["consent_token"])
    assert context["reason_user"].keys() == {"fr", "en"} and all(context["reason_user"].values())
    assert context["obligations"] == []


def test_a_denial_is_200(store: httpx.Client) -> None:
    answer = store.post(ONE, json=question(professional(STRANGER)))
    assert answer.status_code == 200 and answer.json()["decision"] is False and answer.json()["context"]["reason_user"]["en"]


def test_the_reason_that_a_reviewer_reads_is_in_no_reply(store: httpx.Client) -> None:
    for subject in (professional(), professional(STRANGER)):
        text = store.post(ONE, json=question(subject)).text
        assert not re.search(r"R[0-9]{2}|CSP|L1111|legal_basis|rule|situation|facts", text)


REQUIRED = [
    ("subject",), ("subject", "type"), ("subject", "id"), ("action",), ("action", "name"), ("resource",), ("resource", "type"), ("resource", "id"),
]  # fmt: skip
NOT_EVEN = [None, 5, True, [], "", "  ", "x" * 257]


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_a_missing_member_is_400_and_says_which(store: httpx.Client, path: tuple[str, ...]) -> None:
    answer = store.post(ONE, json=without(question(), *path))
    assert answer.status_code == 400 and ".".join(path) in error_of(answer)


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_a_member_that_is_none_is_400(store: httpx.Client, path: tuple[str, ...]) -> None:
    for value in NOT_EVEN:
        answer = store.post(ONE, json=having(question(), value, *path))
        assert answer.status_code == 400, str(value)[:9]
        error_of(answer)


@pytest.mark.parametrize("path", [("context",), ("subject", "properties"), ("action", "properties"), ("resource", "properties")], ids=".".join)
def test_what_is_optional_may_be_absent_or_null_and_must_be_an_object(store: httpx.Client, path: tuple[str, ...]) -> None:
    asked = having(question(), {}, *path)
    known = store.post(ONE, json=asked)
    assert store.post(ONE, json=without(asked, *path)).status_code == known.status_code == store.post(ONE, json=having(asked, None, *path)).status_code
    for value in (5, "text", [], True):
        assert store.post(ONE, json=having(asked, value, *path)).status_code == 400


def test_absent_context_is_fine(store: httpx.Client) -> None:
    answer = store.post(ONE, json=without(question(), "context"))
    assert answer.status_code == 200 and answer.json()["decision"] is False


def test_unknown_members_are_ignored(store: httpx.Client) -> None:
    asked = question() | {"evaluation": [], "trace": {"deep": [1, {"a": None}]}}
    for part in ("subject", "action", "resource"):
        asked[part] = asked[part] | {"label": "x", "context": 5}
    asked["subject"]["properties"] = asked["subject"]["properties"] | {"shoe": {"size": [42]}}
    asked["context"] = asked["context"] | {"weather": {"rain": True}}
    assert store.post(ONE, json=asked).json()["decision"] is True
    assert decisions(store.post(SEVERAL, json=asked | {"evaluations": [{"shoe": 1}], "options": {"another_option": "x"}})) == [True]


def test_an_identifier_that_is_not_written_as_the_pack_says_is_400(store: httpx.Client) -> None:
    for asked in (question(professional("10000023085")), question(resource=document(patient="279035121518988")), question(resource=document(patient=5))):
        answer = store.post(ONE, json=asked)
        assert answer.status_code == 400
        assert "1000002308" not in error_of(answer) and "27903512151" not in error_of(answer)


def test_an_action_that_nobody_knows_is_denied(server: Server, store: httpx.Client) -> None:
    for asked in (question(action="can_read"), question(action="can_read", resource={"type": "account", "id": "123"})):
        told = store.post(ONE, json=asked).json()
        assert told["decision"] is False and told["context"]["reason_user"] == {} and "consent_token" not in told["context"]
        assert logged(server, "decision", id=told["context"]["id"])[0]["patient"] == ""


# --- evaluations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"evaluations": []}, {"evaluations": None}], ids=["absent", "empty", "null"])
def test_without_items_it_is_a_single_evaluation(store: httpx.Client, given: Json) -> None:
    answer = store.post(SEVERAL, json=question() | given)
    assert answer.status_code == 200 and answer.json().keys() == {"decision", "context"}
    answer = store.post(SEVERAL, json=without(question(), "resource") | given)
    assert answer.status_code == 400 and "resource" in error_of(answer)


def test_items_are_answered_in_their_order(store: httpx.Client) -> None:
    items = [{}, {"subject": professional(STRANGER)}, {"resource": document("DOC-2")}, {"resource": document("DOC-3", status="Deleted")}]
    answer = store.post(SEVERAL, json=several(*items))
    assert answer.json().keys() == {"evaluations"}
    assert decisions(answer) == [True, False, True, False]


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_an_item_without_a_member_is_refused_and_the_rest_proceed(store: httpx.Client, path: tuple[str, ...]) -> None:
    asked = {"evaluations": [question(), without(question(), *path), question(), having(question(), 5, *path), "text", None]}
    answer = store.post(SEVERAL, json=asked)
    assert decisions(answer) == [True, False, True, False, False, False]
    for place in (1, 3, 4, 5):
        context = answer.json()["evaluations"][place]["context"]
        assert context.keys() == {"error"} and context["error"]["status"] == 400 and context["error"]["message"]
    assert path[-1] in answer.json()["evaluations"][1]["context"]["error"]["message"]


def test_an_item_inherits_a_missing_type_identifier_or_name_and_never_properties(store: httpx.Client) -> None:
    items = [
        {"resource": {"id": "DOC-9", "properties": document()["properties"]}},  # the type is inherited
        {"resource": {"id": "DOC-9"}},  # the properties are not: nobody knows whose document it is
        {"subject": {"id": PHYSICIAN}},  # nor is the authentication
        {"subject": {"type": None, "id": PHYSICIAN, "properties": professional()["properties"]}},
        {"action": {"properties": {"x": 1}}},
        {"resource": {"type": "document", "properties": document()["properties"]}},
    ]
    answer = store.post(SEVERAL, json=several(*items))
    assert decisions(answer) == [True, False, False, True, True, True]
    assert "whose record" in answer.json()["evaluations"][1]["context"]["error"]["message"]


def test_an_item_has_its_own_context_or_that_of_all(store: httpx.Client) -> None:
    assert decisions(store.post(SEVERAL, json=several({}, {"context": {}}, {"context": None}, {"context": {"purpose": "other"}}))) == [True, False, True, False]


def test_the_top_level_may_be_empty_when_items_say_everything(store: httpx.Client) -> None:
    assert decisions(store.post(SEVERAL, json={"evaluations": [question(), question(professional(STRANGER))]})) == [True, False]


def test_items_that_python_takes_for_equal_are_not_decided_alike(store: httpx.Client) -> None:
    """`true` and `1` are equal to Python. To the policy the one is an attestation of the patient's request, the other is nothing."""
    asked = question(action="mask")
    items = [{"context": {"purpose": "care", "patient_request": value}} for value in (True, 1, 1.0, "true", True)]
    alone = [store.post(ONE, json=asked | item).json()["decision"] for item in items]
    assert alone == [True, False, False, False, True]
    assert decisions(store.post(SEVERAL, json=asked | {"evaluations": items})) == alone
    assert decisions(store.post(SEVERAL, json=asked | {"evaluations": items[::-1]})) == alone[::-1]


def test_documents_of_several_records_are_decided_on_their_own(store: httpx.Client) -> None:
    resources = [document(), document("DOC-B", patient=OTHER_PATIENT), document("DOC-C"), document("DOC-D", patient=THIRD_PATIENT)]
    answer = store.post(SEVERAL, json=several(*({"resource": one} for one in resources)))
    assert decisions(answer) == [True, True, True, False]
    tokens = [one["context"]["consent_token"] for one in answer.json()["evaluations"]]
    assert tokens[0] == tokens[2] and tokens[3].endswith(".0")


def test_a_list_is_decided_as_one_by_one(store: httpx.Client) -> None:
    said = [("Approved", "11502-2"), ("Deleted", "11502-2"), (None, "x")]
    resources = [document(f"DOC-{n}", status=status, type=kind) for n, (status, kind) in enumerate(said)]
    for subject in (professional(), professional(NURSE), professional(STRANGER)):
        together = store.post(SEVERAL, json=several(*({"resource": one} for one in resources), subject=subject)).json()["evaluations"]
        alone = [store.post(ONE, json=question(subject, resource=one)).json() for one in resources]
        for one in (*together, *alone):
            del one["context"]["id"]
        assert together == alone


# --- semantics -------------------------------------------------------------------------------------------------------

YES, NO, BAD, UNDECIDED = {}, {"subject": professional(STRANGER)}, {"resource": 5}, {"subject": professional("10000023085")}


@pytest.mark.parametrize(
    ("semantic", "items", "expected"),
    [
        (None, [YES, NO, BAD, YES], [True, False, False, True]),
        ("execute_all", [YES, NO, BAD, YES], [True, False, False, True]),
        ("deny_on_first_deny", [YES, NO, YES, NO], [True, False]),
        ("deny_on_first_deny", [YES, BAD, YES, NO], [True, False]),
        ("deny_on_first_deny", [BAD, NO], [False]),
        ("deny_on_first_deny", [YES, UNDECIDED, YES], [True, False]),
        ("permit_on_first_permit", [UNDECIDED, NO, YES, NO], [False, False, True]),
        ("deny_on_first_deny", [YES, YES], [True, True]),
        ("permit_on_first_permit", [NO, BAD, YES, YES], [False, False, True]),
        ("permit_on_first_permit", [YES, NO], [True]),
        ("permit_on_first_permit", [NO, BAD], [False, False]),
    ],
)
def test_the_semantic_ends_the_evaluation_after_what_triggers_it(store: httpx.Client, semantic: str | None, items: list[Json], expected: list[bool]) -> None:
    assert decisions(store.post(SEVERAL, json=several(*items, semantic=semantic))) == expected


@pytest.mark.parametrize("semantic", ["deny_on_first_permit", "EXECUTE_ALL", "", 5, [], {}])
def test_an_unknown_semantic_is_400(store: httpx.Client, semantic: Any) -> None:
    asked = several(YES, semantic="x")
    asked["options"]["evaluations_semantic"] = semantic
    for items in (asked, {**asked, "evaluations": []}, {key: value for key, value in asked.items() if key != "evaluations"}):
        answer = store.post(SEVERAL, json=items)
        assert answer.status_code == 400 and "evaluations_semantic" in error_of(answer)


def test_options_may_be_null_and_must_be_an_object(store: httpx.Client) -> None:
    assert decisions(store.post(SEVERAL, json=several(YES) | {"options": None})) == [True]
    assert decisions(store.post(SEVERAL, json=several(YES) | {"options": {"evaluations_semantic": None}})) == [True]
    assert store.post(SEVERAL, json=several(YES) | {"options": "execute_all"}).status_code == 400
    assert store.post(SEVERAL, json=several() | {"options": {"evaluations_semantic": "execute_all"}}).json()["decision"] is True
    assert store.post(SEVERAL, json=several() | {"options": "execute_all"}).status_code == 400


def test_what_comes_after_the_trigger_is_neither_answered_nor_logged(server: Server, store: httpx.Client, small: httpx.Client) -> None:
    items = [{"resource": document(f"CUT-{n}", status=status)} for n, status in enumerate(["Approved", "Deleted", "Approved"])]
    later = {"resource": document("CUT-later"), "context": {"purpose": "other"}}
    answer = store.post(SEVERAL, json=several(*items, later, semantic="deny_on_first_deny"))
    assert decisions(answer) == [True, False]
    (one,) = logged(server, "decision", id=answer.json()["evaluations"][0]["context"]["id"])
    assert [item[0] for item in one["items"]] == ["CUT-0", "CUT-1"]
    assert not logged(server, containing="CUT-later") and not logged(server, containing="CUT-2")
    # Nor is a claim that was never looked at.
    items = [question(professional(NURSE)), question(professional(PHYSICIAN))]
    assert decisions(small.post(SEVERAL, json={"evaluations": items, "options": {"evaluations_semantic": "deny_on_first_deny"}})) == [False]
    assert not [one for one in logged(server, "refused", caller="small-store") if one["subject"]["id"] == PHYSICIAN]


def test_the_list_has_a_largest_size(store: httpx.Client) -> None:
    asked = several(*[{"resource": {"id": f"D{n}"}} for n in range(1001)])
    answer = store.post(SEVERAL, json=asked)
    assert answer.status_code == 400 and "1,001" in error_of(answer)
    assert len(decisions(store.post(SEVERAL, json=asked | {"evaluations": asked["evaluations"][:1000]}))) == 1000


@pytest.mark.parametrize("evaluations", [{}, "text", 5, True])
def test_evaluations_that_are_no_list_are_400(store: httpx.Client, evaluations: Any) -> None:
    answer = store.post(SEVERAL, json=question() | {"evaluations": evaluations})
    assert answer.status_code == 400 and "evaluations" in error_of(answer)


# --- HTTP ------------------------------------------------------------------------------------------------------------

ROUTES = [ONE, SEVERAL, "/access/v1/search/subject", "/access/v1/search/resource", "/access/v1/search/action", "/consent/v1/acts"]


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
def test_json_with_its_charset_is_accepted(store: httpx.Client, kind: str) -> None:
    for route in ROUTES[:-1]:
        answer = store.post(route, content=json.dumps(question()), headers={"content-type": kind})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "application/jsonp", "", None])
def test_another_type_is_400(server: Server, kind: str | None) -> None:
    with server.client("store") as store, server.client("consent_desk") as desk:
        for route in ROUTES:
            headers = {} if kind is None else {"content-type": kind}
            answer = (desk if "consent" in route else store).post(route, content=json.dumps(question()), headers=headers)
            assert answer.status_code == 400 and "Content-Type" in error_of(answer), route


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_405(server: Server, method: str) -> None:
    with server.client("store") as store:
        for route in ROUTES[:-1]:
            answer = store.request(method, route)
            assert answer.status_code == 405 and answer.headers["allow"] == "POST", route
            error_of(answer)


def test_the_request_identifier_is_on_every_answer(server: Server) -> None:
    id = {"x-request-id": "bfe9eb29-ab87-4ca3-be83-a1d5d8305716 (1)"}
    chunks = (part for part in [json.dumps(question()).encode()])
    with server.client("store") as store, server.client(None) as nobody:
        answers = {
            200: store.post(ONE, json=question(), headers=id),
            400: store.post(ONE, json={}, headers=id),
            401: nobody.post(ONE, json=question(), headers=id),
            403: store.post("/consent/v1/acts", json=question(), headers=id),
            404: store.get("/no/such/route", headers=id),
            405: store.get(ONE, headers=id),
            413: store.post(ONE, content=b"[" * 2_000_001, headers=id | {"content-type": "application/json"}),
        }
        for status, answer in answers.items():
            assert (answer.status_code, answer.headers.get("x-request-id")) == (status, id["x-request-id"]), answer.text
        for route in ROUTES[1:5]:
            assert store.post(route, json=question(), headers=id).headers["x-request-id"] == id["x-request-id"]
        answer = store.post(ONE, content=chunks, headers=id | {"content-type": "application/json"})
        assert answer.status_code == 200 and answer.headers["x-request-id"] == id["x-request-id"]
        assert "x-request-id" not in store.post(ONE, json=question()).headers


def test_metadata_come_from_the_configuration_and_never_from_the_request(server: Server) -> None:
    with server.client(None) as nobody:
        lies = {"host": "evil.example", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
        answer = nobody.get("/.well-known/authzen-configuration", headers=lies)
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
        told = answer.json()
    assert all(told.values()) and "evil" not in answer.text
    assert {key: value for key, value in told.items() if key != "supported_obligations"} == {
        "policy_decision_point": "https://pdp.example",
        "access_evaluation_endpoint": "https://pdp.example/access/v1/evaluation",
        "access_evaluations_endpoint": "https://pdp.example/access/v1/evaluations",
        "search_subject_endpoint": "https://pdp.example/access/v1/search/subject",
        "search_resource_endpoint": "https://pdp.example/access/v1/search/resource",
        "search_action_endpoint": "https://pdp.example/access/v1/search/action",
    }
    assert "flag_access" in told["supported_obligations"] and "notify_holder" not in told["supported_obligations"]


def test_no_answer_names_the_host_of_the_request(server: Server) -> None:
    with server.client("store") as store:
        for route in [*ROUTES, "/openapi.json", "/.well-known/authzen-configuration"]:
            answer = store.post(route + "/", json=question(), headers={"host": "evil.example"})
            assert answer.status_code == 404 and "evil" not in answer.text + str(answer.headers)


# --- bodies ----------------------------------------------------------------------------------------------------------


def nested(levels: int) -> bytes:
    """A question whose context brings it to so many levels of objects and lists."""
    inside = b"[" * (levels - 2) + b"]" * (levels - 2)
    return json.dumps(question(deep=None)).encode().replace(b'"deep": null', b'"deep": ' + inside)


HOSTILE = {
    "nothing": b"",
    "no object": b"[]",
    "text": b'"text"',
    "null": b"null",
    "half": b'{"subject": {',
    "more": json.dumps(question()).encode() + b" x",
    "not a number": json.dumps(question(x=0)).encode().replace(b'"x": 0', b'"x": NaN'),
    "infinite": json.dumps(question(x=0)).encode().replace(b'"x": 0', b'"x": -Infinity'),
    "too large": json.dumps(question(x=0)).encode().replace(b'"x": 0', b'"x": 1e999'),
    "a digit too many": json.dumps(question(x=10**100)).encode(),
    "many digits": json.dumps(question(x=0)).encode().replace(b'"x": 0', b'"x": ' + b"9" * 5000),
    "half a character": json.dumps(question(x="")).encode().replace(b'"x": ""', b'"x": "\\ud800"'),
    "half a character, raw": json.dumps(question(x="")).encode().replace(b'"x": ""', b'"x": "\xed\xa0\x80"'),
    "not UTF-8": json.dumps(question(x="")).encode().replace(b'"x": ""', b'"x": "\xff"'),
    "UTF-16": json.dumps(question()).encode("utf-16"),
    "a mark": b"\xef\xbb\xbf" + json.dumps(question()).encode(),
    "33 deep": nested(33),
    "deep": nested(500),
    "very deep": nested(100_000),
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_is_400(store: httpx.Client, body: bytes) -> None:
    for route in ROUTES[:-1]:
        answer = store.post(route, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, route
        error_of(answer)


def test_32_levels_are_not_too_deep(store: httpx.Client) -> None:
    for levels in (3, 7, 8, 9, 31, 32):
        assert store.post(ONE, content=nested(levels), headers={"content-type": "application/json"}).json()["decision"] is True


TWICE = {
    "at the top": b'"context": {"purpose": "other"}, "context"',
    "with a space": b'"context" : {"purpose": "other"}, "context"',
    "escaped": b'"conte\\u0078t": {"purpose": "other"}, "context"',
    "hidden by an escaped quote": b'"x\\u0022x\\u0022": "\\u0022\\u0022", "context": {"purpose": "other"}, "context"',
    "hidden by a quote": b'"x": "\\":", "context": {"purpose": "other"}, "context"',
}


@pytest.mark.parametrize("member", TWICE.values(), ids=TWICE)
def test_a_key_that_stands_twice_is_400(store: httpx.Client, member: bytes) -> None:
    for spaces in (None, (",", ":")):
        body = json.dumps(question(), separators=spaces).encode().replace(b'"context"', member)
        for route in ROUTES[:-1]:
            answer = store.post(route, content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 400 and "twice" in error_of(answer), route


def test_a_key_that_stands_twice_anywhere_in_a_list_is_400(store: httpx.Client) -> None:
    asked = several(*({"resource": document(f"D{n}")} for n in range(50)))
    for spaces in (None, (",", ":")):
        body = json.dumps(asked, separators=spaces).encode()
        body = re.sub(rb'("id": ?"D37")', rb'"id":"D1",\1', body)
        answer = store.post(SEVERAL, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400 and "`id` twice" in error_of(answer)


def rendered(value: Any, draw: Any) -> str:
    """JSON text of pairs (which may repeat a key), lists and the rest, with spaces and escapes anywhere."""
    space = draw(st.sampled_from(["", "", " ", "\n "]))
    if isinstance(value, tuple):
        return space + "{" + ",".join(rendered(key, draw) + space + ":" + rendered(one, draw) for key, one in value) + space + "}"
    if isinstance(value, list):
        return space + "[" + ",".join(rendered(one, draw) for one in value) + "]" + space
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    if isinstance(value, str) and draw(st.booleans()):
        text = text.replace('\\"', "\\u0022")
    return space + text


KEYS = st.text('ab"\\:é ', max_size=3)
LEAVES = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | KEYS
VALUES = st.deferred(lambda: LEAVES | st.lists(VALUES, max_size=3) | st.lists(st.tuples(KEYS, VALUES), max_size=3).map(tuple))


@st.composite
def bodies(draw: Any) -> bytes:
    return rendered(tuple(draw(st.lists(st.tuples(KEYS, VALUES), max_size=4))), draw).encode()


@given(bodies())
@settings(max_examples=400)
def test_the_fast_parser_reads_what_the_exact_one_does(body: bytes) -> None:
    def read(parse: Any) -> Any:
        try:
            return json.dumps(parse(body), sort_keys=True)
        except RequestError:
            return None

    assert read(parse_body) == read(lambda one: parse_json(one, "body"))


# --- what the service itself is asked --------------------------------------------------------------------------------


def emergency(**context: Any) -> Json:
    return question(professional(access_mode=None), access_mode="bris_de_glace", justification="coma", **context) | {"subject": professional(NURSE)}


def test_obligations_are_told_with_a_permit(store: httpx.Client) -> None:
    told = store.post(ONE, json=emergency()).json()
    assert told["decision"] is True
    assert told["context"]["obligations"] == [{"id": "o1", "type": "flag_access", "properties": {}}]


def test_a_permit_that_owes_an_unsupported_obligation_is_refused(server: Server, store: httpx.Client) -> None:
    assert store.post(ONE, json=emergency(supported_obligations=["flag_access", "never_heard_of"])).json()["decision"] is True
    told = store.post(ONE, json=emergency(supported_obligations=[])).json()
    assert told["decision"] is False and told["context"]["obligations"] == []
    assert told["context"]["unsupported_obligations"] == ["flag_access"]
    assert "bris de glace" in told["context"]["reason_user"]["fr"] and "break-glass" in told["context"]["reason_user"]["en"]
    (one,) = logged(server, "decision", id=told["context"]["id"])
    assert one["withheld"] == [0]
    items = [{"resource": document(f"DOC-{n}", status=status)} for n, status in enumerate(["Approved", "Deleted", "Approved"])]
    answer = store.post(SEVERAL, json=emergency(supported_obligations=[]) | {"evaluations": items})
    assert decisions(answer) == [False, False, False]
    (one,) = logged(server, "decision", id=answer.json()["evaluations"][0]["context"]["id"])
    assert one["withheld"] == [0, 2]
    ended = emergency(supported_obligations=[]) | {"evaluations": items, "options": {"evaluations_semantic": "deny_on_first_deny"}}
    assert decisions(store.post(SEVERAL, json=ended)) == [False]


def test_a_permit_that_owes_nothing_asks_for_no_support(store: httpx.Client) -> None:
    assert store.post(ONE, json=question(supported_obligations=[])).json()["decision"] is True


@pytest.mark.parametrize("supported", ["flag_access", {}, [5], [None], 5, True])
def test_supported_obligations_are_a_list_of_types(store: httpx.Client, supported: Any) -> None:
    assert store.post(ONE, json=question(supported_obligations=supported)).status_code == 400


def test_a_consent_token_is_at_least_as_fresh_as(server: Server, store: httpx.Client) -> None:
    token = store.post(ONE, json=question()).json()["context"]["consent_token"]
    epoch, revision = map(int, token.split("."))
    for fine in (token, f"{epoch}.{revision - 1}", f"{epoch}.0"):
        assert store.post(ONE, json=question(consent_token=fine)).json()["decision"] is True
    before = len(logged(server, "decision"))
    for stale in (f"{epoch}.{revision + 1}", f"{epoch + 1}.0", f"{epoch - 1}.{revision}"):
        answer = store.post(ONE, json=question(consent_token=stale))
        assert answer.status_code == 409
        error_of(answer)
        several = store.post(SEVERAL, json=question() | {"evaluations": [{}, {"context": {"purpose": "care", "consent_token": stale}}, {}]})
        assert decisions(several) == [True, False, True]
        assert several.json()["evaluations"][1]["context"]["error"]["status"] == 409
    # The two items without a token are one question only when they stand together.
    assert len(logged(server, "decision")) == before + 6
    for wrong in ("", "x", "1", "1.", ".1", "1.2.3", "-1.2", "1.x", "٣.١", 5, True, [], "9" * 40):
        assert store.post(ONE, json=question(consent_token=wrong)).status_code == 400, wrong


# --- claims ----------------------------------------------------------------------------------------------------------


def test_a_claim_that_a_key_may_not_make_is_403_and_logged(server: Server, small: httpx.Client) -> None:
    before = len(logged(server, "decision", caller="small-store"))
    assert small.post(ONE, json=question(professional(NURSE))).status_code == 200
    wrong = [professional(PHYSICIAN, profession="G15_60"), professional(NURSE, profession="G15_10"), professional(NURSE, role="regulation"), patient()]
    for subject in wrong:
        answer = small.post(ONE, json=question(subject), headers={"x-request-id": "claim"})
        assert answer.status_code == 403
        error_of(answer)
        last = logged(server, "refused", caller="small-store")[-1]
        assert last["subject"] == {"type": subject["type"], "id": subject["id"]} and last["why"] == answer.json() and last["request"] == "claim"
    assert len(logged(server, "decision", caller="small-store")) == before + 1


def test_in_a_list_the_item_is_refused_and_logged(server: Server, small: httpx.Client) -> None:
    items = [question(professional(NURSE)), question(professional(STRANGER)), question(professional(NURSE))]
    answer = small.post(SEVERAL, json={"evaluations": items})
    assert decisions(answer) == [False, False, False]
    assert [one["context"].get("error", {}).get("status") for one in answer.json()["evaluations"]] == [None, 403, None]
    assert logged(server, "refused", caller="small-store")[-1]["subject"]["id"] == STRANGER


def test_a_claim_that_the_directory_contradicts_is_403_and_logged(server: Server, store: httpx.Client) -> None:
    lie = professional(PHYSICIAN, profession="G15_60")
    for subject in (lie, lie | {"id": "0750000011"}):
        answer = store.post(ONE, json=question(subject))
        assert answer.status_code == 403 and "directory" in error_of(answer)
        assert logged(server, "refused")[-1]["subject"]["id"] == subject["id"]
    answer = store.post(SEVERAL, json=several({}, {"subject": lie}))
    assert decisions(answer) == [True, False] and answer.json()["evaluations"][1]["context"]["error"]["status"] == 403


def test_one_person_is_himself_under_every_identifier(server: Server, store: httpx.Client) -> None:
    """The directory knows the physician by another identifier, and what he is."""
    subject = {"type": "professional", "id": "0750000011", "properties": {"authentication": "DIRECTE"}}
    answer = store.post(ONE, json=question(subject))
    assert answer.json()["decision"] is True
    (one,) = logged(server, "decision", id=answer.json()["context"]["id"])
    assert one["subject"]["id"] == PHYSICIAN and one["subject"]["properties"]["profession"] == "G15_10"
    masked = [document("DOC-A", confidentiality=["MASQUE_PS"], author="0750000011"), document("DOC-B", confidentiality=["MASQUE_PS"])]
    author = question(professional(PHYSICIAN, structure="750000010"), "mask", patient_request=True)
    assert decisions(store.post(SEVERAL, json=author | {"evaluations": [{"resource": one} for one in masked]})) == [
        store.post(ONE, json=author | {"resource": one}).json()["decision"] for one in masked
    ]


# --- the log ---------------------------------------------------------------------------------------------------------


def test_a_decision_is_in_the_log_before_it_is_answered(server: Server, store: httpx.Client) -> None:
    content = {"content": "SECRET-CONTENT", "title": "SECRET-TITLE"}
    asked = question(professional(NURSE, **content), resource=document("DOC-LOG", **content), session="s-1", **content)
    asked["action"]["properties"] = {"document": {"type": "11502-2", **content}, **content}
    answer = store.post(ONE, json=asked, headers={"x-request-id": "r-42"}).json()
    (one,) = logged(server, "decision", id=answer["context"]["id"])
    assert not logged(server, containing="SECRET")
    assert (one["caller"], one["request"], one["patient"], one["mode"]) == ("store", "r-42", PATIENT, "one")
    assert (one["pack"], one["token"]) == (answer["context"]["pack"], answer["context"]["consent_token"])
    assert one["subject"] == professional(NURSE)
    assert one["action"] == {"name": "read", "properties": {"document": {"type": "11502-2"}}}
    assert one["context"] == {"purpose": "care", "session": "s-1"}
    ((resource, row, _, _, letters),) = one["items"]
    assert (resource, row) == ("DOC-LOG", "11502-2") and letters
    from engine.decision_log.read import LogReader

    with LogReader(f"sqlite:///{server.folder}/decision-log") as log:
        (said,) = log.readable(one)["items"]
    assert (said["rule"], said["decision"], said["facts"]["consent.blocked"], said["cells"]["matrix.read"]) == ("R19", "refuse", False, "R")


def test_a_list_is_one_entry_and_each_record_has_its_own(server: Server, store: httpx.Client) -> None:
    before = len(logged(server))
    resources = [document(f"MANY-{n}", patient=PATIENT if n < 60 else OTHER_PATIENT) for n in range(100)]
    answer = store.post(SEVERAL, json=question(action="list") | {"evaluations": [{"resource": one} for one in resources]})
    ids = [one["context"]["id"] for one in answer.json()["evaluations"]]
    assert len(logged(server)) == before + 2 and len(set(ids)) == 2
    (first,), (second,) = logged(server, id=ids[0]), logged(server, id=ids[-1])
    assert (first["patient"], len(first["items"]), first["mode"]) == (PATIENT, 60, "list")
    assert (second["patient"], len(second["items"])) == (OTHER_PATIENT, 40)
    assert [item[0] for item in (*first["items"], *second["items"])] == [one["id"] for one in resources]


def locked(server: Server) -> list[sqlite3.Connection]:
    """Write locks on every segment of the log: nothing is durable while they last."""
    held = []
    for file in (server.folder / "decision-log").glob("*.segment"):
        connection = sqlite3.connect(file, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        held.append(connection)
    return held


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503 and answer.headers["retry-after"] and answer.headers["x-request-id"] == "ward"
    assert "decision" not in error_of(answer).replace("decision log", "")


def test_without_the_log_there_is_no_decision(server: Server, store: httpx.Client) -> None:
    held = locked(server)
    try:
        assert_unavailable(store.post(ONE, json=question(), headers={"x-request-id": "ward"}))
        assert_unavailable(store.post(SEVERAL, json=several(YES, NO), headers={"x-request-id": "ward"}))
    finally:
        for one in held:
            one.close()
    assert store.post(ONE, json=question()).json()["decision"] is True


def test_without_the_store_there_is_no_decision(server: Server, store: httpx.Client) -> None:
    """A record that is not what was acknowledged is not believed; one such record in a list, and the whole call is unavailable."""
    open_record(server, THIRD_PATIENT)
    broken = document("DOC-X", patient=THIRD_PATIENT)
    assert store.post(ONE, json=question(resource=broken)).json()["decision"] is True
    with sqlite3.connect(server.folder / "consent.db") as connection:
        connection.execute("UPDATE records SET digest = 'x' WHERE patient = ?", (THIRD_PATIENT,))
    connection.close()
    before = len(logged(server))
    assert_unavailable(store.post(ONE, json=question(resource=broken), headers={"x-request-id": "ward"}))
    assert_unavailable(store.post(SEVERAL, json=several(YES, {"resource": broken}, YES), headers={"x-request-id": "ward"}))
    assert_unavailable(store.post("/access/v1/search/action", json=question(resource=broken), headers={"x-request-id": "ward"}))
    assert len(logged(server)) == before
    assert store.post(ONE, json=question()).json()["decision"] is True


def test_an_act_holds_for_the_very_next_decision(server: Server, store: httpx.Client) -> None:
    with server.client("consent_desk") as desk:
        act(desk, patient(), "end_treating_physician", **target(PHYSICIAN, profession="G15_10"))
        assert store.post(ONE, json=question()).json()["decision"] is False
        act(desk, patient(), "declare_treating_physician", **target(PHYSICIAN, profession="G15_10"))
        assert store.post(ONE, json=question()).json()["decision"] is True


def test_nothing_of_this_was_an_internal_fault(server: Server) -> None:
    """The last test of the module."""
    assert "internal fault" not in server.output() and "Traceback" not in server.output()
    assert PATIENT not in server.output() and Path(server.folder).is_dir()
