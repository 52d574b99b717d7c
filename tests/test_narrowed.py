"""Directives that are narrowed: an interval of one owner, a permission for one shelf. What they say, by the definition and by what decides.

Random packs and records compare the two for ever (`test_facts_agree.py`), and so do random records here, on a pack of nothing else; then what both must say.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from random_packs import NOW, directives, requests, write_pack
from test_facts_agree import assert_as_one_by_one, assert_decided_as_defined

from engine.calendar import iso
from engine.facts import value_of
from engine.pack import parse_pack
from engine.pdp import Pdp
from engine.request import Action, Entity, Request

# --- a pack, and questions to it -------------------------------------------------------------------------------------

KINDS = {
    "seal": {
        "targets": ["item", "made", "everybody"], "intervals": ["made"], "properties": ["owner", "shelf"],
        "narrows": {"owner": ["made", "everybody"], "shelf": ["made"]},
    },
    "grant": {"targets": ["person", "team"], "properties": ["shelf", "by"], "narrows": {"shelf": ["person", "team"]}},
    "member": {"targets": ["person"], "properties": ["team"], "group": "team"},
}  # fmt: skip
SEALED = {
    "form": "held", "kind": "seal", "of": {"item": "resource.id", "made": "resource.made", "everybody": "everybody"},
    "narrowed": {"owner": "resource.owner", "shelf": "resource.shelf"},
}  # fmt: skip
GRANTED = {"form": "held", "kind": "grant", "of": {"person": "subject.id"}, "via": "member", "narrowed": {"shelf": "resource.shelf"}}
FACTS = {
    "consent.sealed": SEALED | {"absent": True},
    "consent.was_sealed": SEALED | {"absent": True, "ended": True},
    "consent.surely_sealed": SEALED | {"absent": False},
    "consent.granted": GRANTED | {"absent": False},
    "consent.maybe_granted": GRANTED | {"absent": True},
    "consent.granted_by": GRANTED | {"with": {"by": "@context.by"}, "absent": False},
    "consent.maybe_granted_by": GRANTED | {"with": {"by": "@context.by"}, "absent": True},
}
RULES = [(name.split(".")[1], "*", "*", f"r.{name} && r.context.ask == '{name.split('.')[1]}'", "deny") for name in FACTS]
ASKED = {"form": "given", "of": "context.ask", "values": [name.split(".")[1] for name in FACTS], "absent": "sealed"}
PDP = Pdp(parse_pack(write_pack(facts={**FACTS, "context.ask": ASKED}, rules=RULES, vocabulary={"kind": KINDS})))



@settings(max_examples=500)
@given(requests(PDP.pack), directives(PDP.pack, ("seal", "grant", "member"), most=5))
def test_whole_requests_are_decided_as_defined(request: Request, said: list[dict[str, Any]]) -> None:
    record = PDP.fold(said, NOW)
    assert_decided_as_defined(PDP, request, record, NOW)
    assert_as_one_by_one(PDP, request, [request.resource, Entity("thing", "ann"), request.resource], record)


# --- what it says ----------------------------------------------------------------------------------------------------

DAY = 86400.0
WEEK = {"made": {"from": iso(NOW - 3 * DAY), "until": iso(NOW + 3 * DAY)}}
IN, OUT = iso(NOW), iso(NOW + 4 * DAY)
OF_ANN = {"kind": "seal", "target": WEEK, "owner": "ann"}


def value(fact: str, said: list[dict[str, Any]], context: dict[str, Any] | None = None, **resource: Any) -> bool:
    """The value of a fact, which the definition, one decision and a list of them agree on."""
    request = Request(Entity("user", "ann"), Action("read"), Entity("thing", "book", resource), {"ask": fact, **(context or {})})
    record = PDP.fold(said, NOW)
    defined = value_of(PDP.pack.vocabulary.facts[f"consent.{fact}"], request, record, NOW)
    answers = [PDP.decide(request, record), *PDP.decide_many(request.subject, request.action, [request.resource] * 2, request.context, record)]
    assert all((one.rule == fact) is defined for one in answers)
    assert isinstance(defined, bool)
    return defined


NOBODY: tuple[Any, ...] = (None, "", " ", [], [" "], 7, True, {"id": "ann"}, [3, None])
"""What is no owner: the statement is then in doubt."""
SEALINGS: list[tuple[str, Any, Any, bool | None]] = [
    ("its owner, within", "ann", IN, True),
    ("its owner among several", ["bob", "ann"], IN, True),
    ("its owner, outside", "ann", OUT, False),
    ("another owner, within", "bob", IN, False),
    ("another owner, outside", "bob", OUT, False),
    ("its owner, nobody knows when", "ann", None, None),
    ("its owner, at no instant", "ann", "yesterday", None),
    ("another owner, nobody knows when", "bob", None, False),
    *((f"no owner ({owner!r}), within", owner, IN, None) for owner in NOBODY),
    *((f"no owner ({owner!r}), nobody knows when", owner, None, None) for owner in NOBODY),
    *((f"no owner ({owner!r}), outside", owner, OUT, False) for owner in NOBODY),
]


@pytest.mark.parametrize(("owner", "made", "sealed"), [one[1:] for one in SEALINGS], ids=[one[0] for one in SEALINGS])
def test_a_narrowed_interval_is_of_its_owner_and_in_doubt_without_one(owner: Any, made: Any, sealed: bool | None) -> None:
    """`None`: nobody knows, so the fact has the value that its pack chose."""
    assert value("sealed", [OF_ANN], owner=owner, made=made) is (sealed is not False)
    assert value("surely_sealed", [OF_ANN], owner=owner, made=made) is (sealed is True)
    assert value("was_sealed", [OF_ANN, OF_ANN | {"withdraw": True}], owner=owner, made=made) is (sealed is not False)
    assert value("was_sealed", [OF_ANN], owner=owner, made=made) is False


def test_beside_one_that_is_not_narrowed_it_says_nothing_new() -> None:
    plain = {"kind": "seal", "target": WEEK}
    for several in ([OF_ANN, plain], [plain, OF_ANN]):
        assert value("sealed", several, owner="bob", made=IN) and value("surely_sealed", several, made=IN)
    assert not value("sealed", [plain | {"target": {"item": "box"}}, OF_ANN], owner="bob", made=IN)


def test_a_statement_about_everybody_may_be_narrowed() -> None:
    everything = {"kind": "seal", "owner": "ann"}
    assert value("surely_sealed", [everything], owner="ann") and not value("sealed", [everything], owner="bob")
    assert value("sealed", [everything]) and not value("surely_sealed", [everything])


def test_what_is_narrowed_twice_holds_where_both_words_fit() -> None:
    both = OF_ANN | {"shelf": "x"}
    assert value("surely_sealed", [both], owner="ann", shelf="x", made=IN)
    for owner, shelf, sealed in [("ann", "y", False), ("bob", "x", False), ("ann", None, True), (None, "x", True), (None, "y", False), (None, None, True)]:
        assert value("sealed", [both], owner=owner, shelf=shelf, made=IN) is sealed
        assert not value("surely_sealed", [both], owner=owner, shelf=shelf, made=IN)


def test_several_stays_are_each_of_their_own_owner() -> None:
    several = [OF_ANN, OF_ANN | {"owner": "bob", "target": {"made": {"from": OUT}}}]
    sealed = {owner: [value("sealed", several, owner=owner, made=made) for made in (IN, OUT)] for owner in ("ann", "bob", "cyd")}
    assert sealed == {"ann": [True, False], "bob": [False, True], "cyd": [False, False]}


def test_a_permission_that_is_narrowed_permits_nothing_where_it_is_in_doubt() -> None:
    for said in (
        [{"kind": "grant", "target": {"person": "ann"}, "shelf": "x"}],
        [{"kind": "grant", "target": {"team": "T"}, "shelf": "x"}, {"kind": "member", "target": {"person": "ann"}, "team": "T"}],
    ):
        assert value("granted", said, shelf="x") and not value("granted", said, shelf="y")
        assert not any(value("granted", said, shelf=shelf) for shelf in NOBODY)
        assert all(value("maybe_granted", said, shelf=shelf) for shelf in NOBODY)


def test_a_property_asked_for_is_in_doubt_where_its_input_is_absent() -> None:
    """`with` a path: one that has the property might be meant; one that has it not is not."""
    by_bob, bare = {"kind": "grant", "target": {"person": "ann"}, "by": "bob"}, {"kind": "grant", "target": {"person": "ann"}}
    assert value("granted_by", [by_bob], {"by": "bob"}) and not value("maybe_granted_by", [by_bob], {"by": "cyd"})
    for nobody in NOBODY:
        assert not value("granted_by", [by_bob], {"by": nobody}) and value("maybe_granted_by", [by_bob], {"by": nobody})
        assert not value("maybe_granted_by", [bare], {"by": nobody})
