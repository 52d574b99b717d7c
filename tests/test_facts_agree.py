"""Whole requests, with directives, compared through facts: the definition (`engine.facts`, `reference.py`) and what decides (`Pdp`). And laws.

Every proof about rules starts after the facts, so this is where the other bugs hide. A drawn request is asked in the name of every type of subject and for
every action.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from random_packs import DAY, NOW, PEOPLE, directive, directives, one_of_each, packs, requests

from engine.calendar import iso
from engine.consent.fold import Record
from engine.errors import RequestError
from engine.evaluator.reference import deciding_rule
from engine.facts import Situation, situation
from engine.pack import parse_pack
from engine.pdp import Pdp, load_pdp
from engine.request import Action, Entity, Request

PDP = load_pdp(Path(__file__).parents[1] / "policies")
PACK = PDP.pack
FACTS = PACK.vocabulary.facts

USUAL: Mapping[str, Any] = {
    "subject.id": "ann",
    "subject.profession": "G15_10",
    "subject.structure": "ann",
    "subject.authentication": "DIRECTE",
    "subject.kind": "health",
    "context.purpose": "care",
    "resource.patient": "cyd",
    "resource.type": "11488-4",
    "resource.author": "bob",
    "resource.structure": "bob",
    "resource.status": "Approved",
    "resource.confidentiality": ["N"],
    "resource.deposited": iso(NOW - 40 * DAY),
    "resource.opened_by_patient": False,
    "action.document.type": "11488-4",
    "action.document.structure": "ann",
    "action.document.confidentiality": ["N"],
    "action.target.type": "professional",
    "action.target.id": "bob",
}
"""A physician asks about a report by a colleague of another hospital."""
STORIES = (
    USUAL,
    {**USUAL, "resource.author": "ann", "resource.structure": "ann"},
    {**USUAL, "subject.profession": "G15_60", "resource.type": "11502-2"},
    {**USUAL, "subject.id": "cyd", "resource.type": "DOCPAT03", "action.document.type": "DOCPAT03", "resource.written_by_patient": True},
    {**USUAL, "subject.id": "cyd", "resource.confidentiality": ["INVISIBLE_PATIENT"], "resource.deposited": iso(NOW - DAY)},
    {**USUAL, "resource.confidentiality": ["MASQUE_PS"], "resource.author": "ann"},
    {**USUAL, "subject.profession": "R95_93"},
    {**USUAL, "context.access_mode": "bris_de_glace", "context.justification": "unconscious"},
    {**USUAL, "context.access_mode": "centre_15", "subject.role": "regulation"},
    {**USUAL, "subject.role": "occupational", "context.patient_request": True},
    {**USUAL, "context.patient_request": True, "resource.deposited": iso(NOW - DAY)},
    {**USUAL, "subject.kind": "alim_am", "resource.type": "REMB", "action.target.type": "representative"},
    {**USUAL, "subject.kind": "social", "resource.structure": "ann", "action.target.type": "team", "action.target.id": "ann", "context.patient_request": True},
    {**USUAL, "action.target.team": "bob", "action.target.profession": "G15_10", "context.patient_request": True},
    {**USUAL, "action.target.type": "representative", "context.author_unavailable": True, "resource.structure": "ann"},
)
OPEN = [{"kind": "opened"}, {"kind": "identity", "birth_date": "1979-03-28"}]
CHILD = [
    {"kind": "opened"},
    {"kind": "identity", "birth_date": "2015-03-28"},
    {"kind": "representation", "target": {"representative": "ann"}, "ground": "minority"},
]
TRUSTED = [*OPEN, {"kind": "authorisation", "target": {"professional": "ann"}, "given": "in_person", "by": "holder"}]
TREATED = [*OPEN, {"kind": "treating_physician", "target": {"professional": ["ann", "bob"]}}, {"kind": "mask", "target": {"document": "ann"}}]
STAYED = [*TRUSTED, {"kind": "mask", "target": {"deposited": {"from": iso(NOW - 60 * DAY), "until": iso(NOW - 2 * DAY)}}, "structure": "bob"}]
REFUSALS = ("break_glass_refusal", "regulation_refusal", "feeding_opposition")
CLOSING = ("block", "exclusion", *REFUSALS, "mask", "hidden_from_patient", "hidden_from_representatives")
GRANTS = ("authorisation", "care_team_consent", "membership", "treating_physician", "equal_rights", "representation", "revealed_to_patient")

french = requests(PACK, *STORIES)
said = st.builds(
    lambda first, more: [*first, *more],
    st.sampled_from([OPEN, CHILD, TRUSTED, TREATED, STAYED, OPEN, []]),
    st.one_of(directives(PACK, (*CLOSING, *GRANTS), most=4), directives(PACK, GRANTS, most=6), directives(PACK, GRANTS, most=6), directives(PACK)),
)
refused = st.one_of([directive(PACK, kind, withdrawals=False) for kind in CLOSING])
granted = st.one_of([directive(PACK, kind, withdrawals=False) for kind in GRANTS])


def every_question(request: Request, pdp: Pdp = PDP) -> Iterator[Request]:
    """The same request in the name of every type of subject, for every action."""
    for subject in (*pdp.pack.vocabulary.subjects, "nobody"):
        for action in (*pdp.pack.vocabulary.actions, "unheard-of"):
            who = Entity(subject, request.subject.id, request.subject.properties)
            yield Request(who, Action(action, request.action.properties), request.resource, request.context)


def assert_decided_as_defined(pdp: Pdp, request: Request, record: Record, at: float) -> set[str]:
    """Every question's rule, and the situation behind it, by both meanings. Returns the rules."""
    seen: dict[str, Situation] = {}
    found: set[str] = set()
    for question in every_question(request, pdp):
        subject, action = question.subject.type, question.action.name
        if action not in seen:  # no fact depends on the type of the subject
            seen[action] = situation(pdp.pack.vocabulary.facts.values(), question, record, at)
        answer, naive = pdp.decide(question, record, at), seen[action]
        slice = pdp.slices.get((subject, action))
        assert answer.situation == {fact.name: naive[fact.name] for fact in (slice.order if slice else ())}, question
        assert answer.rule == (deciding_rule(pdp.pack, subject, action, naive) or ""), question
        found.add(answer.rule)
    return found


# --- through facts ---------------------------------------------------------------------------------------------------


def test_whole_requests_are_decided_as_defined_by_most_of_the_rules() -> None:
    found: set[str] = set()

    @settings(max_examples=600)
    @given(french, said, st.sampled_from([NOW, NOW - DAY, NOW + DAY, NOW + 400 * DAY]))
    def check(request: Request, said: list[dict[str, Any]], at: float) -> None:
        found.update(assert_decided_as_defined(PDP, request, PDP.fold(said, at), at))

    check()
    missed = PACK.by_id.keys() - found
    assert len(missed) <= len(PACK.rules) / 5, f"the requests drawn no longer reach what they should: {sorted(missed)}"


@settings(max_examples=150)
@given(st.data())
def test_whole_requests_to_random_packs_are_decided_as_defined(data: st.DataObject) -> None:
    pdp = Pdp(parse_pack(data.draw(packs())))
    record = pdp.fold(data.draw(directives(pdp.pack)), NOW)
    drawn = [data.draw(requests(pdp.pack)) for _ in range(5)]
    for request in drawn:
        assert_decided_as_defined(pdp, request, record, NOW)
    for question in every_question(drawn[0], pdp):
        assert_as_one_by_one(pdp, question, [one.resource for one in drawn], record)


class Words(str):
    """Text of a caller's own class."""


ODD: tuple[Any, ...] = ((), ("ann",), ("N",), frozenset(["ann"]), b"ann", Words("ann"), Words(" "), ["ann", "ann"], [("ann",)], [["ann"]], MappingProxyType({}))
"""What no JSON holds, and a caller in the same process may."""


@given(french, said, st.data())
def test_what_no_json_holds_is_decided_as_defined(request: Request, said: list[dict[str, Any]], data: st.DataObject) -> None:
    def strange(properties: Mapping[str, Any]) -> Mapping[str, Any]:
        made = {key: data.draw(st.one_of(st.just(value), st.sampled_from(ODD))) for key, value in properties.items()}
        return data.draw(st.sampled_from([made, MappingProxyType(made)]))

    action = {key: strange(value) if isinstance(value, dict) else value for key, value in request.action.properties.items()}
    asked = Request(
        Entity(request.subject.type, data.draw(st.sampled_from([request.subject.id, Words("ann")])), strange(request.subject.properties)),
        Action(request.action.name, strange(action)), Entity("document", request.resource.id, strange(request.resource.properties)), strange(request.context),
    )  # fmt: skip
    assert_decided_as_defined(PDP, asked, PDP.fold(said, NOW), NOW)


# --- lists -----------------------------------------------------------------------------------------------------------


def assert_as_one_by_one(pdp: Pdp, question: Request, resources: list[Entity], record: Record) -> None:
    answers = pdp.decide_many(question.subject, question.action, resources, question.context, record)
    alone = [pdp.decide(replace(question, resource=resource), record) for resource in resources]
    assert [(one.outcome, one.situation, one.request) for one in answers] == [(one.outcome, one.situation, one.request) for one in alone]
    assert answers.codes == [one.code for one in alone] and answers.outcomes == [one.outcome.number for one in alone]


@given(french, said, st.lists(french, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_many_at_once_are_decided_as_one_by_one_in_any_order(request: Request, said: list[dict[str, Any]], others: list[Request], chance: Any) -> None:
    record = PDP.fold(said, NOW)
    resources = [other.resource for other in others] * 2
    chance.shuffle(resources)
    for question in every_question(request):
        assert_as_one_by_one(PDP, question, resources, record)


def test_answers_to_a_list_read_like_a_list() -> None:
    record = PDP.fold(OPEN, NOW)
    resources = [Entity("document", name, {"status": "Approved", "type": "11488-4"}) for name in ("one", "two", "three")]
    answers = PDP.decide_many(Entity("professional", "ann"), Action("read"), resources, {}, record)
    resources.clear()  # the caller's own list, which it may use for something else
    assert len(answers) == 3 and [one.request.resource.id for one in answers] == ["one", "two", "three"]
    assert answers[-1].request.resource.id == "three" and [one.request.resource.id for one in answers[1:]] == ["two", "three"]
    with pytest.raises(IndexError):
        answers[3]


def test_no_resource_gives_no_answer() -> None:
    record = PDP.fold(OPEN, NOW)
    assert list(PDP.decide_many(Entity("professional", "ann"), Action("read"), [], {}, record)) == []


def test_a_record_is_not_used_before_its_instant_or_once_it_no_longer_holds() -> None:
    record = PDP.fold([*OPEN, {"kind": "closed", "from": iso(NOW + DAY)}], NOW)
    request = Request(Entity("professional", "ann"), Action("read"), Entity("document", "one"))
    assert record.holds_until == NOW + DAY
    for at in (NOW - 1, NOW + DAY):
        with pytest.raises(RequestError):
            PDP.decide(request, record, at)
        with pytest.raises(RequestError):
            PDP.decide_many(request.subject, request.action, [request.resource], {}, record, at)


# --- laws ------------------------------------------------------------------------------------------------------------


def withdrawal_of(one: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key in ("kind", "target")} | {"withdraw": True}


@settings(max_examples=200)
@given(french, said, granted, st.sampled_from([0.0, 1.0, DAY / 2, 35 * DAY, 20 * 365 * DAY]))
def test_a_record_that_still_holds_decides_as_one_folded_then(request: Request, said: list[dict[str, Any]], grant: dict[str, Any], wait: float) -> None:
    said = [*said, grant, withdrawal_of(grant)] if wait else said
    early = PDP.fold(said, NOW)
    at = min(NOW + wait, (NOW + early.holds_until) / 2)
    late = PDP.fold(said, at)
    assert early.in_force == late.in_force and early.ended == late.ended and early.holds_until == late.holds_until
    for question in every_question(request):
        then = PDP.decide(question, late)
        assert PDP.decide(question, early, at).outcome is then.outcome
        assert PDP.decide(question, early, at).situation == then.situation


DISTINCT = {id(slice): key for key, slice in PDP.slices.items()}.values()
"""One (subject type, action) for each distinct slice: what holds for these holds for all."""


def permits(request: Request, said: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The (subject type, action), one for each distinct slice, that a record lets this request do."""
    record = PDP.fold(said, NOW)
    found = set()
    for subject, action in DISTINCT:
        who = Entity(subject, request.subject.id, request.subject.properties)
        if PDP.decide(Request(who, Action(action, request.action.properties), request.resource, request.context), record).permitted:
            found.add((subject, action))
    return found


@settings(max_examples=150)
@given(french, said, refused)
def test_a_block_a_mask_or_a_refusal_never_opens(request: Request, said: list[dict[str, Any]], refusal: dict[str, Any]) -> None:
    refused = [*said, refusal]
    before = permits(request, refused)
    assert before <= permits(request, said)
    for one in one_of_each(PACK, CLOSING):
        assert permits(request, [*refused, one]) <= before, one


@settings(max_examples=150)
@given(french, said, granted)
def test_withdrawing_a_grant_never_opens(request: Request, said: list[dict[str, Any]], grant: dict[str, Any]) -> None:
    granted = [*said, grant]
    for one in [grant, *one_of_each(PACK, GRANTS)]:
        opened = permits(request, [*granted, one, withdrawal_of(one)]) - permits(request, [*granted, one])
        if one["kind"] == "treating_physician":  # A02: nobody blocks a treating physician, so one who no longer is can be blocked
            opened -= {(subject, "block") for subject in PACK.vocabulary.subjects}
        assert not opened, one


HIDING = {
    "professional": ({"kind": "mask", "target": {"document": "ann"}}, "MASQUE_PS"),
    "patient": ({"kind": "hidden_from_patient", "target": {"document": "ann"}}, "INVISIBLE_PATIENT"),
    "representative": ({"kind": "hidden_from_representatives", "target": {"document": "ann"}}, "INVISIBLE_REPRESENTANTS_LEGAUX"),
    "organisation": ({"kind": "mask", "target": {"document": "ann"}}, "MASQUE_PS"),
}
SHOWING = ("read", "list", "preview")


@settings(max_examples=200)
@given(french, said, st.booleans(), st.booleans())
def test_a_hidden_document_and_an_absent_one_are_answered_alike_to_whoever_may_not_see_it(
    request: Request, said: list[dict[str, Any]], by_code: bool, deleted: bool
) -> None:
    there = {"status": "Approved", "confidentiality": ["N"]}
    for subject, (hiding, code) in HIDING.items():
        seen = Entity("document", "ann", {**request.resource.properties, **there})
        hidden = Entity("document", "ann", {**seen.properties, "confidentiality": [code]}) if by_code else seen
        gone = Entity("document", "ann", {**seen.properties, "status": "Deleted"} if deleted else {"patient": request.resource.properties.get("patient")})
        before, after = PDP.fold(said, NOW), PDP.fold(said if by_code else [*said, hiding], NOW)
        who = Entity(subject, request.subject.id, request.subject.properties)

        def told(action: str, resource: Entity, record: Record, who: Entity = who) -> Mapping[str, Any]:
            return PDP.decide(Request(who, Action(action, request.action.properties), resource, request.context), record).for_requester()

        if any(told(action, hidden, after)["decision"] for action in SHOWING):
            continue
        for action in SHOWING:
            if subject != "patient" or told(action, hidden, after) != told(action, seen, before):
                assert told(action, hidden, after) == told(action, gone, before), f"{subject}, {action}"
        for action, about in PACK.vocabulary.actions.items():
            # one who writes it, or works where it was written, knows that it is there: what he may do to it is said openly
            if about == "document" and action not in SHOWING and told(action, hidden, after) != told(action, seen, before) and not _wrote_it(who, seen):
                assert told(action, hidden, after) == told(action, gone, before), f"{subject}, {action}"


def _wrote_it(who: Entity, resource: Entity) -> bool:
    def words(value: Any) -> set[str]:
        return {one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)}

    authors, structures = words(resource.properties.get("author")), words(resource.properties.get("structure"))
    return who.id in authors or bool(words(who.properties.get("structure")) & structures)


@settings(max_examples=200)
@given(french, said)
def test_every_discreet_refusal_says_the_same(request: Request, said: list[dict[str, Any]]) -> None:
    record = PDP.fold(said, NOW)
    for question in every_question(request):
        answer = PDP.decide(question, record)
        if answer.discreet:
            assert answer.for_requester() == {"decision": False, "reason": dict(PACK.discreet), "obligations": []}


@settings(max_examples=200)
@given(french, said, st.sampled_from(PEOPLE))
def test_a_revision_is_folded_without_what_came_after_it(request: Request, said: list[dict[str, Any]], late: str) -> None:
    later = [*said, {"kind": "block", "target": {"professional": late}}, {"kind": "closed"}]
    now, then = PDP.fold(said, NOW), PDP.fold(later, NOW, revision=len(said))
    assert now == then
