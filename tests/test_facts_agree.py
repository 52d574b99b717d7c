"""Whole requests, with directives, compared through facts: the definition (`engine.facts`, `reference.py`) and what decides (`Pdp`). And laws.

Every proof about rules starts after the facts, so this is where the other bugs hide. A drawn request is asked in the name of every type of subject and for
every action.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_packs import DAY, NOW, PEOPLE, directive, directives, packs, requests

from engine.answer import Answer
from engine.calendar import iso
from engine.consent.fold import Record
from engine.errors import RequestError
from engine.evaluator.reference import deciding_rule
from engine.facts import situation
from engine.pack import parse_pack
from engine.pdp import Pdp, load_pdp
from engine.request import Action, Entity, Request

PDP = load_pdp(Path(__file__).parents[1] / "policies")
PACK = PDP.pack
FACTS = PACK.vocabulary.facts

USUAL: Mapping[str, Any] = {
    "subject.id": "ann",
    "subject.profession": "G15_10",
    "subject.structure": "bob",
    "subject.authentication": "DIRECTE",
    "context.purpose": "care",
    "resource.patient": "cyd",
    "resource.type": "11488-4",
    "resource.author": "bob",
    "resource.status": "Approved",
    "resource.confidentiality": ["N"],
    "resource.deposited": iso(NOW - 40 * DAY),
    "action.target.type": "professional",
    "action.target.id": "bob",
}
OPEN = [{"kind": "opened"}, {"kind": "identity", "birth_date": "1979-03-28"}]
REFUSALS = ("break_glass_refusal", "regulation_refusal", "feeding_opposition")
CLOSING = ("block", "exclusion", *REFUSALS, "mask", "hidden_from_patient", "hidden_from_representatives")
GRANTS = ("authorisation", "care_team_consent", "membership", "treating_physician", "equal_rights", "representation", "revealed_to_patient")

french = requests(PACK, USUAL)
said = st.one_of(directives(PACK).map(OPEN.__add__), directives(PACK).map(OPEN.__add__), directives(PACK))


def every_question(request: Request, pdp: Pdp = PDP) -> Iterator[Request]:
    """The same request in the name of every type of subject, for every action."""
    for subject in (*pdp.pack.vocabulary.subjects, "nobody"):
        for action in (*pdp.pack.vocabulary.actions, "unheard-of"):
            who = Entity(subject, request.subject.id, request.subject.properties)
            yield Request(who, Action(action, request.action.properties), request.resource, request.context)


def assert_decided_by_definition(pdp: Pdp, request: Request, record: Record, at: float) -> Answer:
    """One decision, and the situation behind it, by both meanings."""
    naive = situation(pdp.pack.vocabulary.facts.values(), request, record, at)
    answer = pdp.decide(request, record, at)
    slice = pdp.slices.get((request.subject.type, request.action.name))
    assert answer.situation == {name: naive[name] for name in answer.situation}, request
    assert answer.situation.keys() == ({fact.name for fact in slice.order} if slice else set())
    assert answer.rule == (deciding_rule(pdp.pack, request.subject.type, request.action.name, naive) or ""), request
    return answer


# --- through facts ---------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(french, said, st.sampled_from([NOW, NOW - DAY, NOW + DAY, NOW + 400 * DAY]))
def test_whole_requests_are_decided_as_defined(request: Request, said: list[dict[str, Any]], at: float) -> None:
    record = PDP.fold(said, at)
    for question in every_question(request):
        assert_decided_by_definition(PDP, question, record, at)


@settings(max_examples=150)
@given(st.data())
def test_whole_requests_to_random_packs_are_decided_as_defined(data: st.DataObject) -> None:
    pdp = Pdp(parse_pack(data.draw(packs())))
    record = pdp.fold(data.draw(directives(pdp.pack)), NOW)
    for _ in range(5):
        for question in every_question(data.draw(requests(pdp.pack)), pdp):
            assert_decided_by_definition(pdp, question, record, NOW)


@given(french, said, st.lists(french, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_many_at_once_are_decided_as_one_by_one_in_any_order(request: Request, said: list[dict[str, Any]], others: list[Request], chance: Any) -> None:
    record = PDP.fold(said, NOW)
    resources = [other.resource for other in others] * 2
    chance.shuffle(resources)
    for question in every_question(request):
        answers = PDP.decide_many(question.subject, question.action, resources, question.context, record)
        alone = [PDP.decide(replace(question, resource=resource), record) for resource in resources]
        assert [(one.outcome, one.situation, one.request) for one in answers] == [(one.outcome, one.situation, one.request) for one in alone]


def test_no_resource_gives_no_answer() -> None:
    record = PDP.fold(OPEN, NOW)
    assert PDP.decide_many(Entity("professional", "ann"), Action("read"), [], {}, record) == []


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


@given(french, said, st.sampled_from([0.0, 1.0, DAY / 2, 35 * DAY, 20 * 365 * DAY]))
def test_a_record_that_still_holds_decides_as_one_folded_then(request: Request, said: list[dict[str, Any]], wait: float) -> None:
    early = PDP.fold(said, NOW)
    at = min(NOW + wait, (NOW + early.holds_until) / 2)
    late = PDP.fold(said, at)
    assert early.in_force == late.in_force and early.ended == late.ended and early.holds_until == late.holds_until
    for question in every_question(request):
        then = PDP.decide(question, late)
        assert PDP.decide(question, early, at).outcome is then.outcome
        assert PDP.decide(question, early, at).situation == then.situation


def permits(request: Request, said: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The (subject type, action) that a record lets this request do."""
    record = PDP.fold(said, NOW)
    answers = {(one.subject.type, one.action.name): PDP.decide(one, record) for one in every_question(request)}
    return {key for key, answer in answers.items() if answer.permitted}


@given(french, said, st.sampled_from(CLOSING).flatmap(lambda kind: directive(PACK, kind, withdrawals=False)))
def test_a_block_a_mask_or_a_refusal_never_opens(request: Request, said: list[dict[str, Any]], refusal: dict[str, Any]) -> None:
    assert permits(request, [*said, refusal]) <= permits(request, said)


@given(french, said, st.sampled_from(GRANTS).flatmap(lambda kind: directive(PACK, kind, withdrawals=False)))
def test_withdrawing_a_grant_never_opens(request: Request, said: list[dict[str, Any]], grant: dict[str, Any]) -> None:
    withdrawal = {key: value for key, value in grant.items() if key in ("kind", "target")} | {"withdraw": True}
    opened = permits(request, [*said, grant, withdrawal]) - permits(request, [*said, grant])
    if grant["kind"] == "treating_physician":  # A02: nobody blocks a treating physician, so one who no longer is can be blocked
        opened -= {(subject, "block") for subject in PACK.vocabulary.subjects}
    assert not opened


HIDING = {
    "professional": ({"kind": "mask", "target": {"document": "ann"}}, "MASQUE_PS"),
    "patient": ({"kind": "hidden_from_patient", "target": {"document": "ann"}}, "INVISIBLE_PATIENT"),
    "representative": ({"kind": "hidden_from_representatives", "target": {"document": "ann"}}, "INVISIBLE_REPRESENTANTS_LEGAUX"),
    "organisation": ({"kind": "mask", "target": {"document": "ann"}}, "MASQUE_PS"),
}
SHOWING = ("read", "list", "preview")


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


@given(french, said)
def test_every_discreet_refusal_says_the_same(request: Request, said: list[dict[str, Any]]) -> None:
    record = PDP.fold(said, NOW)
    for question in every_question(request):
        answer = PDP.decide(question, record)
        if answer.discreet:
            assert answer.for_requester() == {"decision": False, "reason": dict(PACK.discreet), "obligations": []}


@given(french, said, st.sampled_from(PEOPLE))
def test_a_revision_is_folded_without_what_came_after_it(request: Request, said: list[dict[str, Any]], late: str) -> None:
    later = [*said, {"kind": "block", "target": {"professional": late}}, {"kind": "closed"}]
    now, then = PDP.fold(said, NOW), PDP.fold(later, NOW, revision=len(said))
    assert now == then
