"""Facts of every form, for every kind of value: what is written out for a slice (`engine.evaluator.readers`, `said`) against `engine.facts`.

Random requests seldom put a blank where it matters. Here each input in turn holds everything that it may hold, and for facts of two inputs both do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from types import MappingProxyType
from typing import Any

import pytest
from random_packs import INSTANTS, JUNK, KINDS, MISSING, NOW, SETTINGS, paths_of, request_from, write_pack

from engine.consent.fold import Record
from engine.evaluator.readers import MANY
from engine.facts import situation
from engine.pack import parse_pack
from engine.pdp import Pdp
from engine.request import Action, Entity, Request


class Words(str):
    """Text of a caller's own class."""


ODD: tuple[Any, ...] = (
    None, MISSING, "ann", "bob", "x", "y", "z", "left", " ann", "\t", Words("ann"), Words(" "), Words("x"), b"ann", (), ("ann",), ("x",), frozenset(["ann"]),
    ["ann"], ["ann", "bob"], ["", "bob"], [" "], ["x", "q"], [("x",)], [["x"]], [None], [1], [True], [Words("x")], MappingProxyType({"id": "ann"}),
    *INSTANTS, [INSTANTS[0]], ["x", *INSTANTS[:4]], "2026-11-21T10:00:00+01:00" + "0" * 40,
)  # fmt: skip
VALUES = (*JUNK, *ODD)

FACTS: dict[str, Any] = {
    "flag": {"form": "given", "of": "context.flag"},
    "word": {"form": "given", "of": "context.word", "values": ["x", "y", "z"], "absent": "y", "unknown": "z"},
    "word again": {"form": "given", "of": "context.word", "values": ["z", "x"], "absent": "z", "unknown": "x"},
    "text": {"form": "given", "of": "context.text", "text": True},
    "same": {"form": "same", "of": ["subject.team", "resource.team"]},
    "same action": {"form": "same", "of": ["subject.id", "action.target.id"]},
    "member": {"form": "member", "of": "resource.codes", "in": ["x", "ann"], "several": True},
    "one member": {"form": "member", "of": "resource.codes", "in": ["x"], "several": False},
    "coded": {"form": "coded", "of": "resource.list", "codes": {"x": True, "y": False}, "several": True},
    "coded target": {"form": "coded", "of": "action.target.kind", "codes": {"x": True}},
    "cell": {"form": "cell", "grid": "map", "row": "resource.shelf", "column_is": "left", "letters": {"A": True, "B": False, "C": False}},
    "cell found": {
        "form": "cell", "grid": "map", "row": "resource.shelf", "letters": {"A": True, "B": False, "C": False},
        "column": {"of": "context.mode", "list": "shelves", "column": "side"},
    },
    "elapsed": {"form": "elapsed", "since": "resource.made", "at_least": {"days": "delay"}},
    "elapsed birth": {"form": "elapsed", "since": "record.birth.day", "at_least": {"years": 18}},
    "held": {"form": "held", "kind": "grant", "of": {"person": "subject.id", "team": "subject.team", "everybody": "everybody"}},
    "elapsed from": {"form": "elapsed", "since": "record.birth.from", "at_least": {"years": 18}},
    "held owner": {"form": "held", "kind": "grant", "of": {"person": "resource.owner"}},
    "held by": {"form": "held", "kind": "grant", "of": {"person": "subject.boss"}, "with": {"by": "ann"}},
    "held for": {"form": "held", "kind": "grant", "of": {"person": "resource.owner"}, "with": {"by": "@subject.boss"}},
    "held via": {"form": "held", "kind": "grant", "of": {"person": "resource.owner"}, "via": "member"},
    "held owner by": {"form": "held", "kind": "grant", "of": {"person": "resource.owner"}, "with": {"by": "ann"}},
    "held once": {"form": "held", "kind": "grant", "of": {"person": "resource.owner"}, "ended": True},
    "sealed": {"form": "held", "kind": "seal", "of": {"item": "resource.id", "made": "resource.made"}},
    "sealed at": {"form": "held", "kind": "seal", "of": {"item": "resource.made", "made": "resource.made"}},
    "banned": {"form": "held", "kind": "ban", "of": {"person": "action.target.id"}},
}  # fmt: skip
"""A fact of every form; each is declared with either value for an input that is absent or unknown."""
NARROWED = {"grant": {"shelf": "resource.place", "mode": "context.place"}, "seal": {"owner": "resource.place"}}

RECORDS: dict[str, list[dict[str, Any]]] = {
    "nothing said": [],
    "much said": [
        {"kind": "grant", "target": {"person": ["bob", "cyd"]}, "by": "ann"}, {"kind": "grant", "target": {"team": "ann"}, "by": "bob"},
        {"kind": "member", "target": {"person": "ann"}, "team": "ann"}, {"kind": "member", "target": {"person": "x"}, "team": "bob"},
        {"kind": "ban", "target": {"person": "ann"}}, {"kind": "seal", "target": {"item": "x"}}, {"kind": "birth", "day": "2008-11-22"},
        {"kind": "seal", "target": {"made": {"from": INSTANTS[3], "until": INSTANTS[1]}}}, {"kind": "member", "target": {"person": "bob"}, "team": "ann"},
    ],
    "everybody, and ended": [
        {"kind": "grant", "target": {"person": "ann"}, "by": "ann"}, {"kind": "ban", "target": {"person": "ann"}}, {"kind": "grant"},
        {"kind": "seal", "target": {"made": {"until": "2026-11-20"}}},
        {"kind": "birth", "day": "2008-11-21", "from": "2008-11-21T11:20:00+01:00"},
    ],
    "much said of some": [
        {"kind": "grant", "target": {"person": ["ann", "bob"]}, "by": "ann", "shelf": "x"}, {"kind": "grant", "shelf": "bob"},
        {"kind": "grant", "target": {"team": "ann"}, "by": "bob", "shelf": "x", "mode": "y"}, {"kind": "grant", "target": {"team": "bob"}, "mode": "ann"},
        {"kind": "member", "target": {"person": "ann"}, "team": "ann"}, {"kind": "member", "target": {"person": "x"}, "team": "bob"},
        {"kind": "grant", "target": {"person": "ann"}, "shelf": "y", "until": "2026-11-20"}, {"kind": "seal", "target": {"item": "y"}},
        {"kind": "seal", "target": {"made": {"from": INSTANTS[3], "until": INSTANTS[1]}}, "owner": "ann"}, {"kind": "seal", "owner": "y"},
        {"kind": "seal", "target": {"made": {"from": INSTANTS[0]}}, "owner": "x"},
    ],
}  # fmt: skip


def every_form(absent: bool) -> Pdp:
    facts = {}
    for name, fact in FACTS.items():
        both = {"absent": absent} if fact["form"] in ("same", "held", "elapsed") else {"absent": absent, "unknown": not absent}
        narrowed = {"narrowed": NARROWED[fact["kind"]]} if fact.get("kind") in NARROWED else {}
        facts["consent." + name.replace(" ", "_")] = both | narrowed | fact
    rules = [(f"rule-{n}", "*", "*", f"r.{name} == 'x'" if "values" in fact else f"r.{name}", "allow") for n, (name, fact) in enumerate(facts.items())]
    vocabulary = {
        "kind": KINDS,
        "list": {"shelves": {"file": "data/shelves.csv"}},
        "grid": {"map": {"file": "data/map.csv", "letters": {"A": "published", "B": "inferred", "C": "published"}}},
    }
    sheets = {
        "data/map.csv": [("row", "left", "right"), ("x", "A", "B"), ("y", "B", "A"), ("ann", "C", "A")],
        "data/shelves.csv": [("shelf", "side"), ("x", "left"), ("y", "right"), ("z", "")],
    }
    return Pdp(parse_pack(write_pack(facts=facts, rules=rules, settings=SETTINGS, vocabulary=vocabulary, sheets=sheets)))


EVERY_FORM = {absent: every_form(absent) for absent in (False, True)}


def assert_as_defined(pdp: Pdp, requests: Iterable[Request], record: Record) -> None:
    """One by one, and as a list where they differ in the resource alone."""
    for request in requests:
        subject, action = request.subject.type, request.action.name
        defined = situation(pdp.slices[subject, action].order, request, record, NOW)
        assert pdp.decide(request, record).situation == defined, request
        many = pdp.decide_many(request.subject, request.action, [request.resource] * 2, request.context, record)
        assert [one.situation for one in many] == [defined, defined], request


def with_every_value(subject: str, action: str, usual: Mapping[tuple[str, ...], Any], *steps: tuple[str, ...]) -> Iterator[Request]:
    """A usual request, with every value at these places: one place, or every pair of values at two."""
    for values in product(VALUES, repeat=len(steps)):
        made = {key: value for key, value in {**usual, **dict(zip(steps, values, strict=True))}.items() if value is not MISSING}
        yield request_from(subject, action, made)


USUAL = {("subject", "id"): "ann", ("resource", "id"): "ann", ("context", "mode"): "x", ("resource", "shelf"): "y", ("resource", "owner"): "ann"}


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("said", RECORDS.values(), ids=RECORDS)
def test_every_value_of_every_input_is_read_as_defined(said: list[dict[str, Any]], absent: bool) -> None:
    pdp = EVERY_FORM[absent]
    record = pdp.fold(said, NOW)
    assert len(pdp.slices["user", "read"].order) == len(FACTS)
    for steps in paths_of(pdp.pack):
        assert_as_defined(pdp, with_every_value("user", "read", USUAL, steps), record)


PAIRS = [
    ("subject.team", "resource.team"), ("resource.shelf", "context.mode"), ("subject.boss", "resource.owner"),
    ("resource.place", "resource.made"), ("resource.place", "context.place"),
]  # fmt: skip


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_pair_of_values_is_read_as_defined(pair: tuple[str, str], absent: bool) -> None:
    pdp = EVERY_FORM[absent]
    left, right = (tuple(text.split(".")) for text in pair)
    said = RECORDS["much said of some" if "resource.place" in pair else "much said"]
    assert_as_defined(pdp, with_every_value("user", "read", USUAL, left, right), pdp.fold(said, NOW))


def test_an_identifier_of_a_callers_own_kind_is_read_as_defined() -> None:
    for pdp, said in product(EVERY_FORM.values(), RECORDS.values()):
        asked = (Request(Entity("user", id), Action("read", {"target": {"id": "ann"}}), Entity("thing", id)) for id in (Words("ann"), Words(" "), "bob"))
        assert_as_defined(pdp, asked, pdp.fold(said, NOW))


def test_properties_that_are_no_dictionary_are_read_as_defined() -> None:
    for pdp, target in product(
        EVERY_FORM.values(), (MappingProxyType({"id": "ann", "kind": "x"}), MappingProxyType({}), {"id": "ann"}, ["id"], "ann", None, 1)
    ):
        who = Entity("user", "ann", MappingProxyType({"team": "ann", "boss": "bob"}))
        action, context = Action("read", MappingProxyType({"target": target})), MappingProxyType({"word": "x"})
        assert_as_defined(pdp, [Request(who, action, Entity("thing", "ann"), context)], pdp.fold(RECORDS["much said"], NOW))


def test_lists_of_codes_without_end_are_read_as_defined() -> None:
    pdp = EVERY_FORM[False]
    lists = ([f"code-{n}", "x"] if n % 3 else [f"code-{n}"] for n in range(MANY + 100))
    asked = (Request(Entity("user", "ann"), Action("read"), Entity("thing", "one", {"codes": codes, "list": codes})) for codes in lists)
    assert_as_defined(pdp, asked, pdp.fold([], NOW))
