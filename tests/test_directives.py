"""Directives: how untrusted JSON becomes one, and what all of one patient's amount to, up to a revision, at an instant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.consent.directives import FOREVER, Directive, parse_directive, parse_directives
from engine.consent.fold import Record, fold
from engine.errors import RequestError
from engine.facts import value_of
from engine.request import Action, Entity, Request
from engine.vocabulary import Elapsed, Fact, Grid, Kind, Path, Vocabulary

DAY = 86_400.0
OF_AGE = Fact("consent.of_age", Elapsed(Path("", ("record", "identity", "birth_date")), "days", 2), (False, True), True, True)
KINDS = [
    Kind("block", ("professional",)),
    Kind("authorisation", ("professional", "structure"), ("given", "by")),
    Kind("membership", ("professional",), ("team",), group="team"),
    Kind("exclusion", ("professional",), ends=("membership", "authorisation")),
    Kind("mask", ("document", "type", "deposited", "everybody"), ("structure", "note"), intervals=("deposited",), narrows={"structure": ("deposited",)}),
    Kind("identity", ("everybody",), ("birth_date",), dates=("birth_date",)),
    Kind("leave", ("professional",), ("ward",), ("rest",), narrows={"ward": ("professional",)}),
    Kind("rest", ("professional",), ("ward",), narrows={"ward": ("professional",)}),
]
VOCABULARY = Vocabulary(("professional",), {"read": "document"}, {OF_AGE.name: OF_AGE}, {kind.name: kind for kind in KINDS}, {}, {}, "Europe/Paris")


def paris(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


NOW = paris("2026-11-21T10:00:00+01:00")


# --- from JSON ---------------------------------------------------------------------------------------------------------


def parsed(**data: Any) -> Directive:
    return parse_directive(data, VOCABULARY)


def test_a_directive_is_read():
    data = {
        "kind": "authorisation", "target": {"professional": "1"}, "from": "2026-11-21T10:00:00+01:00", "until": "2026-12-01", "given": "in_person",
        "revision": 7, "recorded": "2026-11-21T10:00:00+01:00", "recorded_by": "2", "capacity": "holder", "basis": "R1111-46", "id": "D7",
    }  # fmt: skip
    made = parse_directive(data, VOCABULARY)
    assert made == Directive(
        "authorisation", (("professional", "1"),), 7, NOW, paris("2026-12-02T00:00:00+01:00"), False, {"given": "in_person"},
        {key: value for key, value in data.items() if key != "given"},
    )  # fmt: skip


def test_a_directive_without_bounds_holds_for_ever():
    made = parsed(kind="block", target={"professional": "1"})
    assert (made.start, made.end, made.withdraw, made.revision, made.properties) == (-FOREVER, FOREVER, False, 1, {})


def test_a_date_is_a_whole_day_both_days_included():
    made = parsed(kind="mask", **{"from": "2026-03-29", "until": "2026-03-29"})
    assert (made.start, made.end) == (paris("2026-03-29T00:00:00+01:00"), paris("2026-03-30T00:00:00+02:00"))


def test_the_last_day_of_the_calendar_never_ends():
    assert parsed(kind="mask", until="9999-12-31").end == FOREVER


@pytest.mark.parametrize(
    ("target", "targets"),
    [
        (None, (("everybody", None),)),
        ({"everybody": True}, (("everybody", None),)),
        ({"document": "D"}, (("document", "D"),)),
        ({"document": ["D", "E"]}, (("document", "D"), ("document", "E"))),
        ({"deposited": {"from": "1970-01-01T00:00:00Z", "until": "1970-01-02T00:00:00Z"}}, (("deposited", (0.0, DAY)),)),
        ({"deposited": {"from": "1970-01-01T00:00:00Z"}}, (("deposited", (0.0, FOREVER)),)),
        ({"deposited": {"until": "2026-11-21"}}, (("deposited", (-FOREVER, paris("2026-11-22T00:00:00+01:00"))),)),
    ],
    ids=["left-out", "everybody", "one", "several", "interval", "since", "up-to-a-day"],
)
def test_a_target_has_one_form_and_one_or_several_values(target, targets):
    assert parsed(kind="mask", target=target).targets == targets


BLOCK = {"kind": "block", "target": {"professional": "1"}}
DATED = "must be a date, or a date and time with its offset (such as 2026-11-21 or 2026-11-21T10:00:00+01:00)"

WRONG = [
    ("a text", "block", "directive: must be an object"),
    ("a list", [BLOCK], "directive: must be an object"),
    ("no kind", {"target": {"professional": "1"}}, "directive.kind: is missing"),
    ("a number for a kind", BLOCK | {"kind": 1}, "directive.kind: must be text that is not blank"),
    ("an object for a kind", BLOCK | {"kind": {}}, "directive.kind: must be text that is not blank"),
    ("an unknown kind", BLOCK | {"kind": "blok"}, "directive.kind: `blok` is not a kind of directive (did you mean `block`?)"),
    ("a kind like no other", BLOCK | {"kind": "party"}, "directive.kind: `party` is not a kind of directive"),
    ("a very long kind", BLOCK | {"kind": "x" * 10_000_000}, f"directive.kind: `{'x' * 60}…` is not a kind of directive"),
    ("an unknown property", BLOCK | {"givn": "x"}, "directive: a directive of kind `block` has no `givn`"),
    ("a word almost right", BLOCK | {"form": "2026-11-21"}, "directive: a directive of kind `block` has no `form` (did you mean `from`?)"),
    ("a property of another kind", BLOCK | {"team": "T"}, "directive: a directive of kind `block` has no `team`"),
    ("a property that is a number", {"kind": "identity", "birth_date": 1979}, "directive.birth_date: must be text that is not blank"),
    ("a blank property", {"kind": "identity", "birth_date": " "}, "directive.birth_date: must be text that is not blank"),
    ("a membership without team", {"kind": "membership", "target": {"professional": "1"}}, "directive.team: is missing (a membership names its group)"),
    ("revision 0", BLOCK | {"revision": 0}, "directive.revision: must be a whole number from 1"),
    ("a negative revision", BLOCK | {"revision": -1}, "directive.revision: must be a whole number from 1"),
    ("true for a revision", BLOCK | {"revision": True}, "directive.revision: must be a whole number from 1"),
    ("a fraction for a revision", BLOCK | {"revision": 1.5}, "directive.revision: must be a whole number from 1"),
    ("a word for a revision", BLOCK | {"revision": "last"}, "directive.revision: must be a whole number from 1"),
    ("a raised 2 for a revision", BLOCK | {"revision": "²"}, "directive.revision: must be a whole number from 1"),
    ("a revision of very many digits", BLOCK | {"revision": "9" * 5000}, "directive.revision: must be a whole number from 1"),
    ("a word for withdraw", BLOCK | {"withdraw": "yes"}, "directive.withdraw: must be true or false"),
    ("a withdrawal with a start", BLOCK | {"withdraw": True, "from": "2027-01-01"},
     "directive.from: a withdrawal holds from its revision on, whatever the clock says (leave it out, or record the withdrawal later)"),
    ("a withdrawal with an end", BLOCK | {"withdraw": True, "until": "2027-01-01"},
     "directive.until: a withdrawal holds from its revision on, whatever the clock says (leave it out, or record the withdrawal later)"),
    ("a start without offset", BLOCK | {"from": "2026-11-21T10:00:00"}, f"directive.from: {DATED}"),
    ("a start that is a number", BLOCK | {"from": 1795251600}, f"directive.from: {DATED}"),
    ("an end on 30 February", BLOCK | {"until": "2026-02-30"}, f"directive.until: {DATED}"),
    ("a blank end", BLOCK | {"until": ""}, f"directive.until: {DATED}"),
    ("an end before the start", BLOCK | {"from": "2026-11-22", "until": "2026-11-21"}, "directive.until: is not after `from`"),
    ("an end at the start", BLOCK | {"from": "2026-11-21T10:00:00Z", "until": "2026-11-21T11:00:00+01:00"}, "directive.until: is not after `from`"),
    ("no target where it is needed", {"kind": "block"}, "directive.target: is missing (it takes professional)"),
    ("a target of another kind", BLOCK | {"target": {"structure": "1"}}, "directive.target: `structure` is not a target of this kind (it takes professional)"),
    ("a target almost right", BLOCK | {"target": {"profesional": "1"}},
     "directive.target: `profesional` is not a target of this kind (did you mean `professional`?)"),
    ("a text for a target", BLOCK | {"target": "1"}, "directive.target: must be one form and its value (such as {professional: ...})"),
    ("no form of target", BLOCK | {"target": {}}, "directive.target: must be one form and its value (such as {professional: ...})"),
    ("two forms of target", BLOCK | {"target": {"professional": "1", "structure": "2"}},
     "directive.target: must be one form and its value (such as {professional: ...})"),
    ("a target of nobody", BLOCK | {"target": {"professional": []}}, "directive.target.professional: names nobody"),
    ("a target that is a number", BLOCK | {"target": {"professional": 1}}, "directive.target.professional: must be text that is not blank"),
    ("a blank target", BLOCK | {"target": {"professional": [" "]}}, "directive.target.professional: must be text that is not blank"),
    ("an empty interval", {"kind": "mask", "target": {"deposited": {}}}, "directive.target.deposited: must have `from`, `until` or both, and nothing else"),
    ("a text for an interval", {"kind": "mask", "target": {"deposited": "2026"}},
     "directive.target.deposited: must have `from`, `until` or both, and nothing else"),
    ("an interval for a text", {"kind": "mask", "target": {"type": {"from": "2026-01-01"}}}, "directive.target.type: must be text that is not blank"),
    ("an interval of nulls", {"kind": "mask", "target": {"deposited": {"from": None}}},
     "directive.target.deposited: must have `from`, `until` or both, and nothing else"),
    ("an interval with another word", {"kind": "mask", "target": {"deposited": {"form": "2026-01-01"}}},
     "directive.target.deposited: must have `from`, `until` or both, and nothing else"),
    ("an interval without offset", {"kind": "mask", "target": {"deposited": {"from": "2026-01-01T10:00"}}}, f"directive.target.deposited.from: {DATED}"),
    ("what narrows another target", {"kind": "mask", "target": {"type": "T"}, "structure": "S"},
     "directive.structure: narrows a target `deposited`, and this one is `type` (leave it out, or aim at what it narrows)"),
    ("what narrows another target, of a withdrawal", {"kind": "mask", "target": {"document": ["D", "E"]}, "structure": "S", "withdraw": True},
     "directive.structure: narrows a target `deposited`, and this one is `document` (leave it out, or aim at what it narrows)"),
    ("what narrows an interval, of everybody", {"kind": "mask", "structure": "S"},
     "directive.structure: narrows a target `deposited`, and this one is `everybody` (leave it out, or aim at what it narrows)"),
    ("two words that narrow", {"kind": "mask", "target": {"deposited": {"from": "2026-01-01"}}, "structure": ["S", "T"]},
     "directive.structure: must be text that is not blank"),
    ("an interval backwards", {"kind": "mask", "target": {"deposited": {"from": "2026-02-01", "until": "2026-01-01"}}},
     "directive.target.deposited.until: is not after `from`"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "told"), [(data, told) for _, data, told in WRONG], ids=[name for name, *_ in WRONG])
def test_what_the_pack_does_not_declare_is_refused(data, told):
    with pytest.raises(RequestError) as caught:
        parse_directive(data, VOCABULARY)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"kind": "block"}, "directives: must be a list of directives"),
        ("block", "directives: must be a list of directives"),
        (None, "directives: must be a list of directives"),
        ([BLOCK, {"kind": "block"}], "directives[1].target: is missing (it takes professional)"),
        ([BLOCK | {"revision": 2}, BLOCK], "directives: two directives have the same revision (number them in the order they were recorded)"),
    ],
    ids=["object", "text", "nothing", "second-of-two", "same-revision"],
)
def test_a_list_of_directives_says_which_is_wrong(data, told):
    with pytest.raises(RequestError) as caught:
        parse_directives(data, VOCABULARY)
    assert str(caught.value) == told


def test_directives_are_put_in_the_order_of_their_revisions():
    made = parse_directives([BLOCK | {"revision": "12"}, BLOCK | {"revision": 3}, BLOCK | {"revision": 5}], VOCABULARY)
    assert [one.revision for one in made] == [3, 5, 12]
    assert [one.revision for one in parse_directives([BLOCK, BLOCK], VOCABULARY)] == [1, 2]


FORMS = ["professional", "deposited", "from", "until"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["2026-11-21", "1", "2026-11-21T10:00:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.sampled_from(FORMS), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["kind", "target", "withdraw", "from", "until", "revision", "team", "given", "birth_date", "x"]


@settings(max_examples=500)
@given(anything | st.fixed_dictionaries({"kind": st.sampled_from(sorted(VOCABULARY.kinds))}, optional={key: anything for key in KEYS[1:]}))
def test_any_json_is_a_directive_or_is_refused(data):
    try:
        made = parse_directive(data, VOCABULARY)
    except RequestError as error:
        assert error.where and error.message
    else:
        assert made.start < made.end and made.targets and made.revision >= 1


# --- folded ------------------------------------------------------------------------------------------------------------


def record(*several: dict[str, Any], at: float = NOW, revision: int | None = None) -> Record:
    return fold(parse_directives(several, VOCABULARY, kept=True), VOCABULARY, at, revision)


def held(made: Record) -> list[str]:
    """What is in force, as words."""
    return [" ".join([one.kind, str(one.target[1]), *one.directive.properties.values()]) for one in made.in_force]


def authorised(who: str | list[str] = "1", **more: Any) -> dict[str, Any]:
    return {"kind": "authorisation", "target": {"professional": who}} | more


def member(team: str, who: str = "1", **more: Any) -> dict[str, Any]:
    return {"kind": "membership", "target": {"professional": who}, "team": team} | more


def withdrawn(kind: str, who: str | list[str] = "1", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "target": {"professional": who}, "withdraw": True} | more


def excluded(who: str = "1", **more: Any) -> dict[str, Any]:
    return {"kind": "exclusion", "target": {"professional": who}} | more


def test_a_record_without_directives_holds_for_ever():
    assert record() == Record(NOW, 0, (), (), FOREVER, "Europe/Paris")


@pytest.mark.parametrize(
    ("at", "state"),
    [
        ("2026-11-20T23:59:59+01:00", "to come"),
        ("2026-11-21T00:00:00+01:00", "in force"),
        ("2026-11-22T23:59:59+01:00", "in force"),
        ("2026-11-23T00:00:00+01:00", "ended"),
    ],
)
def test_a_directive_starts_at_its_start_and_has_ended_at_its_end(at, state):
    made = record(authorised(**{"from": "2026-11-21", "until": "2026-11-22"}), at=paris(at))
    assert (len(made.in_force), len(made.ended)) == {"to come": (0, 0), "in force": (1, 0), "ended": (0, 1)}[state]


def test_a_record_holds_until_the_next_start_or_end():
    directives = [authorised(**{"from": "2026-11-21", "until": "2026-11-22"}), authorised("2", **{"from": "2027-01-01"})]
    moments = ["2026-11-01T00:00:00+01:00", "2026-11-21T00:00:00+01:00", "2026-11-23T00:00:00+01:00", "2027-01-01T00:00:00+01:00"]
    found = [record(*directives, at=paris(moment)).holds_until for moment in moments]
    assert found == [paris(moment) for moment in moments[1:]] + [FOREVER]


def test_a_record_holds_until_the_patient_comes_of_age():
    born = {"kind": "identity", "birth_date": "2026-11-20"}
    assert record(born).holds_until == paris("2026-11-22T00:00:00+01:00")
    assert record(born, at=paris("2026-11-22T00:00:00+01:00")).holds_until == FOREVER


@pytest.mark.parametrize("at", [0.0, NOW - 1, NOW, NOW + 1e9])
def test_a_withdrawal_holds_from_its_revision_whatever_the_clock_says(at):
    directives = [authorised(), withdrawn("authorisation")]
    assert held(record(*directives, at=at, revision=1)) == ["authorisation 1"]
    assert held(record(*directives, at=at, revision=2)) == []


def test_what_is_said_again_after_a_withdrawal_holds():
    assert held(record(authorised(), withdrawn("authorisation"), authorised())) == ["authorisation 1"]


def test_a_withdrawal_touches_its_own_target_only():
    assert held(record(authorised(["1", "2"]), withdrawn("authorisation"))) == ["authorisation 2"]
    assert held(record(authorised(["1", "2"]), withdrawn("authorisation", ["1", "2"]))) == []
    assert held(record({"kind": "authorisation", "target": {"structure": "1"}}, withdrawn("authorisation"))) == ["authorisation 1"]


def test_a_withdrawal_touches_its_own_kind_only():
    assert held(record(authorised(), BLOCK, withdrawn("authorisation"))) == ["block 1"]


def test_a_withdrawal_for_everybody_withdraws_only_what_was_said_of_everybody():
    assert held(record({"kind": "mask"}, {"kind": "mask", "target": {"document": "D"}}, {"kind": "mask", "withdraw": True})) == ["mask D"]


def test_a_withdrawal_of_an_interval_names_the_same_interval():
    target = {"deposited": {"from": "2026-01-01", "until": "2026-06-30"}}
    same = {"deposited": {"from": "2026-01-01T00:00:00+01:00", "until": "2026-07-01T00:00:00+02:00"}}
    assert held(record({"kind": "mask", "target": target}, {"kind": "mask", "target": same, "withdraw": True})) == []
    other = {"deposited": {"from": "2026-01-01", "until": "2026-06-29"}}
    assert len(held(record({"kind": "mask", "target": target}, {"kind": "mask", "target": other, "withdraw": True}))) == 1


WEEK = {"kind": "mask", "target": {"deposited": {"from": "2026-03-01", "until": "2026-03-09"}}}
STAY, OTHER_STAY = WEEK | {"structure": "S"}, WEEK | {"structure": "T"}


@pytest.mark.parametrize("withdrawn", [WEEK, STAY, OTHER_STAY])
def test_what_narrows_a_directive_is_part_of_what_a_withdrawal_names(withdrawn):
    """Unmasking a week leaves a stay of that week masked, unmasking the stay leaves the week masked, whatever else the mask says."""
    several = [WEEK, STAY, OTHER_STAY]
    left = [one.directive.properties for one in record(*several, withdrawn | {"withdraw": True}).in_force]
    assert left == [{"structure": one["structure"]} if "structure" in one else {} for one in several if one is not withdrawn]
    assert held(record(withdrawn | {"note": "x"}, withdrawn | {"withdraw": True})) == []
    assert len(held(record(withdrawn, withdrawn | {"withdraw": True, "note": "x"}))) == 1


@pytest.mark.parametrize(
    ("earlier", "later", "ends"), [({}, {}, True), ({"ward": "A"}, {}, True), ({"ward": "A"}, {"ward": "A"}, True), ({}, {"ward": "A"}, False),
                                   ({"ward": "A"}, {"ward": "B"}, False)],
)  # fmt: skip
def test_a_kind_ends_what_it_covers(earlier, later, ends):
    target = {"target": {"professional": "1"}}
    made = record({"kind": "rest"} | target | earlier, {"kind": "leave"} | target | later)
    assert [one.kind for one in made.in_force] == (["leave"] if ends else ["rest", "leave"])


def test_leaving_one_team_is_not_leaving_all():
    assert held(record(member("T"), member("U"), withdrawn("membership", team="T"))) == ["membership 1 U"]
    assert held(record(member("T"), member("U"), withdrawn("membership"))) == []


def test_a_withdrawal_that_states_properties_withdraws_what_has_them():
    directives = [authorised(given="in_person", by="holder"), authorised(given="remotely"), authorised()]
    assert held(record(*directives, withdrawn("authorisation", given="in_person"))) == ["authorisation 1 remotely", "authorisation 1"]
    assert held(record(*directives, withdrawn("authorisation", given="in_person", by="representative"))) == [
        "authorisation 1 in_person holder", "authorisation 1 remotely", "authorisation 1",
    ]  # fmt: skip


def test_a_kind_that_ends_others_withdraws_what_was_said_before_of_the_same_target():
    assert held(record(member("T"), authorised(), authorised("2"), BLOCK, excluded())) == ["authorisation 2", "block 1", "exclusion 1"]


def test_what_is_said_after_a_kind_that_ends_it_holds():
    assert held(record(excluded(), authorised())) == ["exclusion 1", "authorisation 1"]


def test_what_an_exclusion_ended_does_not_come_back_with_its_withdrawal():
    assert held(record(authorised(), excluded(), withdrawn("exclusion"))) == []


def test_what_has_ended_or_was_withdrawn_once_was():
    made = record(authorised(until="2026-01-01"), authorised("2"), withdrawn("authorisation", "2"), authorised("3", **{"from": "2027-01-01"}))
    assert [one.target[1] for one in made.ended] == ["1", "2"]


def test_the_latest_directive_of_a_kind_says_its_instants():
    made = record({"kind": "identity", "birth_date": "1979-03-28"}, {"kind": "identity", "birth_date": "1979-03-29", "from": "2026-01-01"})
    assert made.instant(("record", "identity", "birth_date")) == paris("1979-03-29T00:00:00+01:00")
    assert made.instant(("record", "identity", "from")) == paris("2026-01-01T00:00:00+01:00")
    assert made.instant(("record", "identity", "until")) is None
    assert made.instant(("record", "block", "from")) is None


UNREADABLE = ["1979-02-30", "unknown", "1979", "12/05/2012", "1979-03-28T00:00:00"]


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_date_that_makes_no_sense_is_no_instant(text):
    assert record({"kind": "identity", "birth_date": text}).instant(("record", "identity", "birth_date")) is None


@pytest.mark.parametrize(("text", "begins"), [("2026-11-22", "2026-11-22T00:00:00+01:00"), ("2026-11-21T10:00:01+01:00", "2026-11-21T10:00:01+01:00")])
def test_a_date_to_come_is_no_instant_until_it_has_come(text, begins):
    steps, born = ("record", "identity", "birth_date"), {"kind": "identity", "birth_date": text}
    made = record(born)
    assert (made.instant(steps), made.dated(steps), made.holds_until) == (None, paris(begins), paris(begins))
    assert record(born, at=paris(begins)).instant(steps) == paris(begins)


# --- what is asked of new ones -----------------------------------------------------------------------------------------

BORN = {"kind": "identity", "birth_date": "1979-03-28"}
CELLS = Grid("read", "matrix/read.csv", ("A",), {"11488-4": {"A": "R"}, "11502-2": {"A": "X"}}, frozenset())
LISTED = replace(
    VOCABULARY,
    kinds=VOCABULARY.kinds
    | {
        "mask": replace(VOCABULARY.kinds["mask"], rows={"type": CELLS}),
        "authorisation": replace(VOCABULARY.kinds["authorisation"], words={"by": ("holder", "representative")}),
    },
)


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_new_directive_has_dates_that_can_be_read(text):
    with pytest.raises(RequestError) as caught:
        parsed(**BORN | {"birth_date": text})
    assert str(caught.value) == f"directive.birth_date: {DATED}"


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ({"birth_date": "2999-01-01"}, NOW),
        ({"birth_date": "2026-11-22"}, NOW),
        ({"birth_date": "2026-11-21T10:00:01+01:00"}, NOW),
        ({"birth_date": "2026-11-22", "recorded": "2026-11-21T10:00:00+01:00"}, None),
        ({"birth_date": "2026-11-22", "recorded": "2999-01-01T00:00:00Z"}, NOW),
        ({"birth_date": "1979-03-28"}, float("nan")),
    ],
    ids=["the wrong century", "tomorrow", "in a second", "after it says it was recorded", "whatever it says of itself", "at no instant"],
)
def test_a_new_directive_has_dates_that_have_come(said, at):
    with pytest.raises(RequestError) as caught:
        parse_directive(BORN | said, VOCABULARY, at=at)
    assert str(caught.value) == "directive.birth_date: is yet to come (record it once it is past, or mend the year)"


@pytest.mark.parametrize("text", ["2026-11-21", "2026-11-21T10:00:00+01:00", "1900-01-01", "0001-01-01"])
def test_a_date_up_to_the_very_instant_has_come(text):
    assert parse_directive(BORN | {"birth_date": text}, VOCABULARY, at=NOW).properties == {"birth_date": text}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"kind": "mask", "target": {"type": "11488-5"}}, "directive.target.type: `11488-5` is not a row of `matrix/read.csv` (did you mean `11488-4`?)"),
        ({"kind": "mask", "target": {"type": ["11488-4", "NOSUCH"]}},
         "directive.target.type: `NOSUCH` is not a row of `matrix/read.csv` (look in its first column)"),
        ({"kind": "authorisation", "target": {"professional": "1"}, "by": "holdr"},
         "directive.by: `holdr` is not a word of this kind (did you mean `holder`?)"),
        ({"kind": "authorisation", "target": {"professional": "1"}, "by": "mum"},
         "directive.by: `mum` is not a word of this kind (it takes holder, representative)"),
    ],
    ids=["a row almost right", "no row", "a word almost right", "no word"],
)  # fmt: skip
def test_a_new_directive_names_rows_and_words_that_there_are(data, told):
    with pytest.raises(RequestError) as caught:
        parse_directive(data, LISTED)
    assert str(caught.value) == told
    assert parse_directive(data, LISTED, kept=True)
    assert parse_directive(data | {"withdraw": True}, LISTED).withdraw


@pytest.mark.parametrize("data", [{"target": {"type": "11502-2"}}, {"target": {"document": "NOSUCH"}}, {}], ids=["a row", "another form", "everybody"])
def test_what_names_a_row_or_aims_at_something_else_is_accepted(data):
    assert parse_directive({"kind": "mask"} | data, LISTED)


def test_what_was_kept_stands_and_can_be_withdrawn():
    for text in [*UNREADABLE, "2999-01-01"]:
        assert parse_directives([BORN | {"birth_date": text}], VOCABULARY, kept=True)
        assert parse_directive(BORN | {"birth_date": text, "withdraw": True}, VOCABULARY, at=NOW).withdraw


# --- laws --------------------------------------------------------------------------------------------------------------

UTC_VOCABULARY = replace(VOCABULARY, time_zone="UTC")
moments = st.integers(0, 8).map(lambda day: day * DAY)
bounds = st.sampled_from([(-FOREVER, FOREVER)]) | st.tuples(moments | st.just(-FOREVER), moments | st.just(FOREVER)).filter(lambda pair: pair[0] < pair[1])


@st.composite
def directive(draw: st.DrawFn) -> Directive:
    kind = draw(st.sampled_from(KINDS[:4] + KINDS[5:]))
    words = {"birth_date": st.integers(1, 9).map(lambda day: f"1970-01-0{day}")}
    properties = {key: draw(words.get(key, st.sampled_from("TU"))) for key in kind.properties if draw(st.booleans())}
    several = [(kind.targets[0], None if kind.targets[0] == "everybody" else who) for who in draw(st.sampled_from(["1", "2", "12"]))]
    withdraw = draw(st.booleans())
    start, end = (-FOREVER, FOREVER) if withdraw else draw(bounds)
    return Directive(kind.name, tuple(several), 1, start, end, withdraw, properties)


histories = st.lists(directive(), max_size=8).map(lambda several: tuple(replace(one, revision=n) for n, one in enumerate(several, 1)))


def seen(made: Record) -> tuple[object, ...]:
    """All that a decision can see of a record at its own instant."""
    request = Request(Entity("professional", "1"), Action("read"), Entity("document", "2"))
    return made.in_force, made.ended, value_of(OF_AGE, request, made, made.at)


def folded(several: Iterable[Directive], at: float, revision: int | None = None) -> Record:
    return fold(several, UTC_VOCABULARY, at, revision)


@given(histories, moments, st.floats(0, 0.999))
def test_until_it_no_longer_holds_a_record_says_the_same_at_every_instant(history, at, share):
    made = folded(history, at)
    later = at + share * (min(made.holds_until, at + 30 * DAY) - at)
    assert at <= later < made.holds_until
    assert seen(folded(history, later)) == seen(made)


@given(histories, moments)
def test_at_the_instant_when_it_no_longer_holds_something_changes(history, at):
    made = folded(history, at)
    if made.holds_until != FOREVER:
        assert seen(folded(history, made.holds_until)) != seen(made)


@given(histories, moments, st.randoms())
def test_the_order_of_arrival_does_not_matter(history, at, random):
    shuffled = list(history)
    random.shuffle(shuffled)
    assert folded(shuffled, at) == folded(history, at)


@given(histories, moments, st.integers(0, 8))
def test_folding_up_to_a_revision_is_folding_what_was_known_then(history, at, revision):
    assert folded(history, at, revision) == folded(history[:revision], at)


@given(histories, directive(), moments)
def test_saying_the_same_thing_twice_takes_nothing_more_away(history, one, at):
    once = [*history, replace(one, revision=50)]
    twice = [*once, replace(one, revision=51)]
    assert {(s.kind, s.target) for s in folded(once, at).in_force} == {(s.kind, s.target) for s in folded(twice, at).in_force}


@given(histories, directive().filter(lambda one: one.withdraw), moments)
def test_a_withdrawal_adds_nothing(history, withdrawal, at):
    after = folded([*history, replace(withdrawal, revision=50)], at)
    assert set(map(id_of, after.in_force)) <= set(map(id_of, folded(history, at).in_force))


@given(histories, directive(), moments)
def test_a_later_directive_adds_only_what_it_says_itself(history, one, at):
    after = folded([*history, replace(one, revision=50)], at)
    assert {id_of(s) for s in after.in_force if s.directive.revision != 50} <= set(map(id_of, folded(history, at).in_force))


def id_of(statement: Any) -> tuple[Any, ...]:
    return statement.kind, statement.target, statement.directive.revision
