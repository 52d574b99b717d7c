"""What the French rules permit of an act can be recorded: no act is permitted and then fails because its directive admits no such target.

Twice: proved on the diagrams for every situation, and done for everybody, every act and every form of target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from test_french_pack import french

from engine.analysis.dead import copy_of, excluded_from, possible
from engine.calendar import parse_instant
from engine.consent.acts import directives_of
from engine.evaluator.diagram import HOLDS, NONE
from engine.evaluator.slices import Builder, fold_constants
from engine.request import Action, Entity, Request
from engine.vocabulary import Act, Given, Path

ACTS = french().pack.vocabulary.acts
FORM = "action.target_kind"
"""The fact that says of which form the target is."""


def aimed(action: str) -> list[Act]:
    """The directives of an action that aim at what the request names."""
    return [act for act in ACTS[action] if isinstance(act.target, Path)]


def test_the_fact_about_forms_reads_the_target_that_acts_read() -> None:
    form = french().pack.vocabulary.facts[FORM].form
    assert isinstance(form, Given) and form.of.text == "action.target.type"
    assert {act.target.text for acts in ACTS.values() for act in acts if isinstance(act.target, Path)} == {"action.target"}


@pytest.mark.parametrize("action", [action for action in ACTS if aimed(action)])
def test_in_no_situation_is_an_act_permitted_whose_directive_admits_no_such_target(action: str) -> None:
    pack, seen = french().pack, set()
    permits = {outcome.leaf for outcome in french().outcomes if outcome.permits}
    for subject in pack.vocabulary.subjects:
        slice = french().slices[subject, action]
        facts = (*slice.facts, *(pack.vocabulary.facts[name] for name in (FORM,) if name not in slice.variable))
        store, root = copy_of(slice, facts)
        allowed = store.both(possible(pack, store, facts, excluded_from(pack, subject, action)), root)
        builder = Builder(store, facts)
        for act in aimed(action):
            when = True if act.when is None else fold_constants(act.when, pack, subject, action)
            recorded = store.both((HOLDS if when else NONE) if isinstance(when, bool) else builder.build(when), allowed)
            for place, form in enumerate(pack.vocabulary.facts[FORM].values):
                if store.leaves(store.restrict(recorded, {builder.variable[FORM]: place})) & permits:
                    assert form in pack.vocabulary.kinds[act.kind].targets, f"{subject}, {action}: {act.kind} of {form}"
                    seen.add(form)
    assert seen, "nobody may do it"


# --- done ------------------------------------------------------------------------------------------------------------

AT = parse_instant("2026-11-21T10:00:00+01:00") or 0.0
PATIENT, YOUNG = "279035121518989", "208117505601340"
PHYSICIAN, NURSE, OTHER = "10000000017", "10000000033", "10000000041"
HOSPITAL, RESIDENCE, DESK = "750000028", "750000036", "750000044"
GUARDIAN = "290027505601745"
SUBJECTS = {
    "holder": Entity("patient", PATIENT),
    "young adult": Entity("patient", YOUNG),
    "guardian": Entity("representative", GUARDIAN),
    "physician": Entity("professional", PHYSICIAN, {"profession": "G15_10", "authentication": "DIRECTE", "structure": HOSPITAL}),
    "nurse": Entity("professional", NURSE, {"profession": "G15_60", "authentication": "DIRECTE", "structure": RESIDENCE}),
    "hospital": Entity("organisation", HOSPITAL, {"kind": "health", "structure": HOSPITAL}),
    "residence": Entity("organisation", RESIDENCE, {"kind": "social", "structure": RESIDENCE}),
    "desk": Entity("organisation", DESK, {"kind": "assurance_maladie", "structure": DESK}),
}
OPEN = [{"kind": "opened"}, {"kind": "representation", "target": {"representative": GUARDIAN}, "ground": "measure"}]
RECORDS: Mapping[str, list[dict[str, Any]]] = {
    "nothing": [],
    "opened": OPEN,
    "treated": [*OPEN, {"kind": "treating_physician", "target": {"professional": PHYSICIAN}}],
    "a team": [
        *OPEN, {"kind": "care_team_consent", "target": {"team": HOSPITAL}},
        {"kind": "membership", "target": {"professional": [PHYSICIAN, NURSE]}, "team": HOSPITAL},
    ],
    "closed": [*OPEN, {"kind": "closed"}],
    "a minor of old": [
        {"kind": "opened"}, {"kind": "identity", "birth_date": "2008-11-21"},
        {"kind": "representation", "target": {"representative": GUARDIAN}, "ground": "minority"},
    ],
}  # fmt: skip
CONTEXT = {"purpose": "care", "patient_request": True}
REQUIRED = {"birth_date": "1979-03-28", "ground": "measure"}
FORMS = sorted({form for kind in french().pack.vocabulary.kinds.values() for form in kind.targets})
IDENTIFIERS = (PHYSICIAN, NURSE, OTHER, HOSPITAL, RESIDENCE, GUARDIAN, PATIENT, "11488-4")


def targets() -> Iterator[dict[str, Any] | None]:
    """Every form, aimed at everything that it could name, whether or not it makes sense."""
    yield None
    for form in (*FORMS, "software"):
        if form == "everybody":
            yield {"type": form}
        elif form == "deposited":
            yield {"type": form, "from": "2026-10-10", "until": "2026-10-20"}
        else:
            yield from ({"type": form, "id": id, "profession": "G15_10", "team": HOSPITAL} for id in IDENTIFIERS if well_written(form, id))


def well_written(form: str, id: str) -> bool:
    formats, kinds = french().pack.identifiers.targets.get(form, ()), french().pack.vocabulary.kinds.values()
    rows = all(id in kind.rows[form].rows for kind in kinds if form in kind.rows)
    return rows and (not formats or not all(one.mistake(id) for one in formats))


@cache
def recorded(who: str, record: str) -> frozenset[tuple[str, str]]:
    """The acts that are permitted, each with the form of target that it records. Raises what an act that cannot be recorded raises."""
    pdp, made = french(), set()
    patient = YOUNG if record == "a minor of old" else PATIENT
    folded = pdp.fold(RECORDS[record], AT)
    for action in (action for action in ACTS if pdp.pack.vocabulary.actions[action] == "record"):
        for target in targets():
            properties = REQUIRED if target is None else {**REQUIRED, "target": target}
            request = Request(SUBJECTS[who], Action(action, properties), Entity("record", patient), CONTEXT)
            if pdp.decide(request, folded).permitted:
                several = directives_of(pdp, request, folded, AT)
                assert several, "an act records something"
                made |= {(action, next(iter(one.get("target", ["everybody"])))) for one in several}
    return frozenset(made)


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("who", SUBJECTS)
def test_every_act_on_every_target_is_refused_or_recorded(who: str, record: str) -> None:
    assert recorded(who, record) is not None


def test_every_form_that_an_act_takes_was_recorded() -> None:
    made = frozenset().union(*(recorded(who, record) for who in SUBJECTS for record in RECORDS))
    takes = {(action, form) for action in ACTS for act in aimed(action) for form in french().pack.vocabulary.kinds[act.kind].targets}
    assert takes - made == {("mask_documents", "document"), ("unmask_documents", "document"), ("revoke_access", "team")}, "`mask`; withdraw_care_team_consent"
