"""Untrusted JSON becomes a request or is refused with a text that says where and what; and every fact has a value whatever the request holds."""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.facts import situation
from engine.pdp import load_pdp
from engine.request import MAX_BYTES, MAX_DEPTH, Action, Entity, Request, parse_json, parse_request
from engine.vocabulary import Cell, Elapsed, Held, Path, Same


def asked(**changes: Any) -> dict[str, Any]:
    """A request as JSON; a change to `...` takes the member away."""
    whole = {
        "subject": {"type": "professional", "id": "10000000017", "properties": {"profession": "G15_10"}},
        "action": {"name": "read", "properties": {"quiet": True}},
        "resource": {"type": "document", "id": "DOC-1", "properties": {"patient": "279035121518989"}},
        "context": {"purpose": "care"},
    } | changes
    return {key: value for key, value in whole.items() if value is not ...}


def told(read: Any, *arguments: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read(*arguments)
    error = caught.value
    assert str(error) == f"{error.where}: {error.message}" + (f" ({error.help})" if error.help else "")
    return str(error)


# --- the shape of a request --------------------------------------------------------------------------------------------


def test_a_request_has_four_parts():
    assert parse_request(asked()) == Request(
        Entity("professional", "10000000017", {"profession": "G15_10"}),
        Action("read", {"quiet": True}),
        Entity("document", "DOC-1", {"patient": "279035121518989"}),
        {"purpose": "care"},
    )


@pytest.mark.parametrize("context", [..., None, {}], ids=["left-out", "null", "empty"])
def test_a_context_may_be_left_out(context):
    assert parse_request(asked(context=context)).context == {}


@pytest.mark.parametrize("properties", [{}, {"properties": None}, {"properties": {}}], ids=["left-out", "null", "empty"])
def test_properties_may_be_left_out(properties):
    request = parse_request(asked(subject={"type": "patient", "id": "1"} | properties, action={"name": "read"} | properties))
    assert (request.subject.properties, request.action.properties) == ({}, {})


def test_members_that_nobody_knows_are_ignored_and_properties_are_kept():
    more = asked(subject={"type": "patient", "id": "1", "name": "?", "properties": {"shoe_size": 42}}, options={"x": 1})
    assert parse_request(more).subject == Entity("patient", "1", {"shoe_size": 42})


def test_words_are_kept_as_they_are():
    assert parse_request(asked(subject={"type": " professional", "id": "É "})).subject == Entity(" professional", "É ")


WRONG = [
    ("nothing", None, "request: is missing"),
    ("a list", [asked()], "request: must be an object, not a list"),
    ("a text", "read", "request: must be an object, not text"),
    ("no subject", asked(subject=...), "subject: is missing"),
    ("a null subject", asked(subject=None), "subject: is missing"),
    ("a text for a subject", asked(subject="1"), "subject: must be an object, not text"),
    ("a subject without type", asked(subject={"id": "1"}), "subject.type: is missing"),
    ("a subject without id", asked(subject={"type": "patient"}), "subject.id: is missing"),
    ("a subject with a null id", asked(subject={"type": "patient", "id": None}), "subject.id: is missing"),
    ("a number for an id", asked(subject={"type": "patient", "id": 10000000017}), "subject.id: must be text, not a number"),
    ("a fraction for an id", asked(subject={"type": "patient", "id": 1.5}), "subject.id: must be text, not a number"),
    ("true for an id", asked(subject={"type": "patient", "id": True}), "subject.id: must be text, not true or false"),
    ("a list for a type", asked(subject={"type": ["patient"], "id": "1"}), "subject.type: must be text, not a list"),
    ("an object for an id", asked(subject={"type": "patient", "id": {}}), "subject.id: must be text, not an object"),
    ("an empty id", asked(subject={"type": "patient", "id": ""}), "subject.id: is blank"),
    ("a blank id", asked(subject={"type": "patient", "id": " \t\u00a0"}), "subject.id: is blank"),
    ("a list of properties", asked(subject={"type": "patient", "id": "1", "properties": []}), "subject.properties: must be an object, not a list"),
    ("no action", asked(action=...), "action: is missing"),
    ("a text for an action", asked(action="read"), "action: must be an object, not text"),
    ("an action without name", asked(action={}), "action.name: is missing"),
    ("a blank action", asked(action={"name": " "}), "action.name: is blank"),
    ("a number for an action", asked(action={"name": 1}), "action.name: must be text, not a number"),
    ("a text of properties", asked(action={"name": "read", "properties": "x"}), "action.properties: must be an object, not text"),
    ("no resource", asked(resource=...), "resource: is missing"),
    ("a resource without id", asked(resource={"type": "document"}), "resource.id: is missing"),
    ("a list of resources", asked(resource=[{"type": "document", "id": "1"}]), "resource: must be an object, not a list"),
    ("true for a context", asked(context=True), "context: must be an object, not true or false"),
    ("a list for a context", asked(context=[]), "context: must be an object, not a list"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "text"), [(data, text) for _, data, text in WRONG], ids=[name for name, *_ in WRONG])
def test_what_has_not_the_shape_of_a_request_is_refused_at_its_member(data, text):
    assert told(parse_request, data) == text


def test_a_request_inside_something_else_says_where():
    assert told(parse_request, asked(subject={"id": "1"}), "evaluations[3]") == "evaluations[3].subject.type: is missing"
    assert told(parse_request, 1, "evaluations[3]") == "evaluations[3]: must be an object, not a number"


# --- JSON from somebody else -------------------------------------------------------------------------------------------


def test_json_is_read():
    assert parse_json('{"a": [1, 1.5, -2e3, true, false, null, "é\\ud83d\\ude00"], "b": {}}'.encode()) == {
        "a": [1, 1.5, -2000.0, True, False, None, "é\U0001f600"],
        "b": {},
    }


def test_a_byte_order_mark_before_json_says_nothing():
    assert parse_json(b"\xef\xbb\xbf[]") == []


UNREADABLE = [
    ("nothing", b"", "the document: is not JSON at line 1, column 1: expecting value"),
    ("two values", b"{} {}", "the document: is not JSON at line 1, column 4: extra data"),
    ("a missing comma", b'{"a": 1\n "b": 2}', "the document: is not JSON at line 2, column 2: expecting ',' delimiter"),
    ("single quotes", b"{'a': 1}", "the document: is not JSON at line 1, column 2: expecting property name enclosed in double quotes"),
    ("a text without end", b'["a', "the document: is not JSON at line 1, column 2: unterminated string starting at"),
    ("a line feed in a text", b'["a\nb"]', "the document: is not JSON at line 1, column 4: invalid control character at"),
    ("another encoding", '["é"]'.encode("latin-1"), "the document: is not UTF-8 at byte 2"),
    ("half a character in bytes", b'["\xed\xa0\x80"]', "the document: is not UTF-8 at byte 2"),
    ("UTF-16", '["é"]'.encode("utf-16"), "the document: is not UTF-8 at byte 0"),
    ("a key twice", b'{"id": "1", "id": "2"}', "the document: has `id` twice in one object (keep one: readers disagree on which counts)"),
    ("a key twice, escaped", b'[{"id": "1", "\\u0069d": "2"}]', "the document: has `id` twice in one object (keep one: readers disagree on which counts)"),
    ("half a character as a key, twice", b'{"\\ud800": 1, "\\ud800": 2}',
     "the document: has `\\ud800` twice in one object (keep one: readers disagree on which counts)"),
    ("a long key, twice", b'{"' + b"k" * 99 + b'": 1, "' + b"k" * 99 + b'": 2}',
     f"the document: has `{'k' * 60}…` twice in one object (keep one: readers disagree on which counts)"),
    ("NaN", b'{"a": NaN}', "the document: has `NaN`, which is not a JSON number"),
    ("Infinity", b"[Infinity]", "the document: has `Infinity`, which is not a JSON number"),
    ("minus Infinity", b"-Infinity", "the document: has `-Infinity`, which is not a JSON number"),
    ("a number that is infinite", b"[1e999]", "the document: has `1e999`, a number that is too large"),
    ("a number of many digits", b"9" * 101, "the document: has a number of 101 digits, more than 100 (write identifiers as text)"),
    ("a number of very many digits", b"-" + b"9" * 100_000, "the document: has a number of 100001 digits, more than 100 (write identifiers as text)"),
    ("half a character in a text", b'["a\\ud800b"]', "the document: has half of a character (a lone surrogate)"),
    ("half a character as a key", b'{"\\udc00": 1}', "the document: has half of a character (a lone surrogate)"),
    ("a deep list", b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "the document: is nested more than 32 deep"),
    ("a deep object", b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "the document: is nested more than 32 deep"),
    ("100,000 lists", b"[" * 100_000 + b"]" * 100_000, "the document: is nested more than 32 deep"),
    ("100,000 lists without end", b"[" * 100_000, "the document: is nested more than 32 deep"),
    ("100,000 objects", b'{"a":' * 100_000, "the document: is nested more than 32 deep"),
    ("more than 10 MB", b" " * (MAX_BYTES + 1), "the document: has 10,000,001 bytes, more than 10,000,000 (send fewer requests at a time)"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "text"), [(data, text) for _, data, text in UNREADABLE], ids=[name for name, *_ in UNREADABLE])
def test_json_that_readers_disagree_on_is_refused(data, text):
    assert told(parse_json, data) == text


def test_a_mistake_in_json_says_where_it_was_read():
    assert told(parse_json, b'{"a": 1, "a": 2}', "requests.jsonl, line 3").startswith("requests.jsonl, line 3: has `a` twice in one object")


def test_ten_megabytes_and_thirty_two_levels_are_read():
    assert parse_json(b" " * (MAX_BYTES - 2) + b"[]") == []
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_a_key_may_stand_in_two_objects():
    assert parse_json(b'{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}') == {"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}


# --- laws --------------------------------------------------------------------------------------------------------------

numbers = st.integers(-(10**90), 10**90) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_json_that_is_written_is_read_as_it_was(value):
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@settings(max_examples=500)
@given(st.binary(max_size=60) | st.lists(st.sampled_from('{}[]",:0123eE+-.\\u d8 NaN null true"a"'), max_size=40).map(lambda parts: "".join(parts).encode()))
def test_any_bytes_are_read_or_refused(data):
    try:
        parse_json(data)
    except RequestError as error:
        assert str(error).isprintable()


near = st.fixed_dictionaries({}, optional={key: values for key in ("type", "id", "name", "properties")})


@settings(max_examples=500)
@given(values | st.fixed_dictionaries({}, optional={key: near | values for key in ("subject", "action", "resource", "context")}))
def test_any_json_is_a_request_or_is_refused(data):
    try:
        request = parse_request(data)
    except RequestError as error:
        assert error.where and error.message
    else:
        assert request.subject.id.strip() and request.action.name.strip() and request.resource.type.strip()


# --- facts are total ---------------------------------------------------------------------------------------------------

PDP = load_pdp(FilePath(__file__).parent.parent / "policies")
VOCABULARY = PDP.pack.vocabulary
FACTS = tuple(VOCABULARY.facts.values())
AT = 1_795_251_600.0

RECORDS = [
    PDP.fold(directives, AT)
    for directives in (
        [],
        [
            {"kind": "opened"},
            {"kind": "identity", "birth_date": "2010-02-29"},
            {"kind": "mask", "target": {"deposited": {"from": "2026-01-01", "until": "2026-06-30"}}},
            {"kind": "mask", "target": {"type": "11488-4"}},
            {"kind": "block", "target": {"professional": "1"}},
            {"kind": "membership", "target": {"professional": ["1", "2"]}, "team": "T"},
            {"kind": "care_team_consent", "target": {"team": "T"}},
            {"kind": "authorisation", "target": {"structure": "S"}, "given": "in_person", "by": "holder"},
            {"kind": "representation", "target": {"representative": "1"}, "ground": "minority", "until": "2026-01-01"},
            {"kind": "closed", "from": "2016-01-01"},
        ],
    )
]


def paths() -> set[tuple[str, ...]]:
    """Every input that a fact of the pack reads."""
    made: list[Path | None] = [Path("", ("subject", "id"))]
    for fact in FACTS:
        match fact.form:
            case Same(left, right):
                made += [left, right]
            case Held(_, of, where, narrowed=narrowed):
                made += [path for _, path in of] + [one for _, one in (*where, *narrowed) if isinstance(one, Path)]
            case Elapsed(since):
                made.append(since)
            case Cell(_, row, column):
                made += [row, column]
            case form:
                made.append(form.of)
    return {steps for path in made if path is not None for steps in (path.steps, *path.by_action.values())}


KEYS = sorted({step for steps in paths() for step in steps[1:] if step})
INSTANTS = ["2026-03-01T00:00:00Z", "2026-03-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"]
WORDS = ["1", "2", "T", "S", "G15_10", "11488-4", *INSTANTS, "", " ", "\ud800"]
inputs = st.recursive(
    values | st.sampled_from(WORDS) | st.sampled_from([value for fact in FACTS for value in fact.values]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
properties = st.dictionaries(st.sampled_from(KEYS), inputs, max_size=8)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    subject = Entity(draw(st.sampled_from([*VOCABULARY.subjects, "robot"])), draw(st.sampled_from(WORDS)), draw(properties))
    action = Action(draw(st.sampled_from([*VOCABULARY.actions, "fly"])), draw(properties))
    return Request(subject, action, Entity("document", draw(st.sampled_from(WORDS)), draw(properties)), draw(properties))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests(), st.sampled_from(RECORDS), st.sampled_from([AT, 0.0, -1e18, 1e18, float("inf"), float("-inf")]))
@example(Request(Entity("professional", "1"), Action("read"), Entity("document", "1")), RECORDS[1], AT)
def test_every_fact_has_one_of_its_values_whatever_the_request_holds(request, record, at):
    made = situation(FACTS, request, record, at)
    for fact in FACTS:
        assert any(made[fact.name] is value or (isinstance(value, str) and made[fact.name] == value) for value in fact.values), fact.name


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests(), st.sampled_from(RECORDS))
def test_every_request_has_an_answer(request, record):
    assert PDP.decide(request, record).decision in ("permit", "refuse", "no_rule")


@given(values, st.sampled_from(sorted(paths())))
def test_an_input_is_looked_up_in_anything(value, steps):
    Request(Entity("a", "b", {steps[-1]: value}), Action("c", {steps[1]: value}), Entity("d", "e", {steps[1]: value}), {steps[-1]: value}).look_up(steps)


def test_an_alias_that_says_nothing_of_an_action_leads_nowhere_whatever_the_context_holds() -> None:
    path = load_pdp("policies").pack.vocabulary.patient
    assert path is not None
    context = {"": {"patient": "1"}, "never": {"patient": "1"}, "patient": "1"}
    request = parse_request({"subject": {"type": "x", "id": "1"}, "action": {"name": "unheard"}, "resource": {"type": "t", "id": "d"}, "context": context})
    assert request.look_up(path.for_action("unheard")) is None
