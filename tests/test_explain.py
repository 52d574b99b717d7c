"""Explanations: what a decision looked at, what would turn it, and what two readers may know.

What would turn a decision is compared with brute force: every change of changeable facts, of every size, on the small pack and on the French vectors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any

import pytest
from test_analysis import LIBRARY, compiled, edited, rule_edited
from test_french_pack import DISCREET, answers, french

from engine.answer import Answer
from engine.evaluator.conditions import names
from engine.evaluator.reference import holds
from engine.evaluator.slices import fold_constants
from engine.explain import explain
from engine.pdp import Pdp
from engine.request import Action, Entity, Request, parse_request
from engine.vocabulary import Fact, Value

NOW = 1795256400.0
PATIENT = "279035121518989"


# --- the French pack, asked ------------------------------------------------------------------------------------------


def asked(
    action: str = "read", directives: list[dict[str, Any]] | None = None, subject: Mapping[str, Any] | None = None, document: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None, pdp: Pdp | None = None,
) -> Answer:  # fmt: skip
    """A pharmacist who asks for a report; the record is open."""
    pdp = pdp or french()
    who = {"profession": "G15_21", "structure": "750000018", "authentication": "DIRECTE", **(subject or {})}
    what = {"patient": PATIENT, "type": "11488-4", "author": "10000000025", "structure": "750000026", "status": "Approved", "confidentiality": ["N"]}
    data = {
        "subject": {"type": who.pop("kind_of_subject", "professional"), "id": who.pop("id", "10000000017"), "properties": who},
        "action": {"name": action},
        "resource": {"type": "document", "id": "DOC-1", "properties": {**what, "deposited": "2026-10-01T09:00:00+02:00", **(document or {})}},
        "context": {"purpose": "care", **(context or {})},
    }
    return pdp.decide(parse_request(data), pdp.fold([{"kind": "opened"}, *(directives or [])], NOW))


def authorised(**more: str) -> list[dict[str, Any]]:
    return [{"kind": "authorisation", "target": {"professional": "10000000017"}, **more}]


# --- what it looked at -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(0, 2600, 50))
def test_the_facts_tested_decide_alone(place: int) -> None:
    """Those on the way to the rule, in order; whatever the others are, the same rule decides."""
    _, answer = answers()[place]
    explained = explain(answer)
    assert len(set(explained.tested)) == len(explained.tested) and set(explained.tested) <= explained.situation.keys()
    order = [fact.name for fact in answer.runner.slice.order]
    assert list(explained.tested) == sorted(explained.tested, key=order.index)
    for other in (0, -1):
        facts = french().pack.vocabulary.facts
        changed = {name: value if name in explained.tested else facts[name].values[other] for name, value in explained.situation.items()}
        assert french().evaluate(answer.request.subject.type, answer.request.action.name, changed).rule == answer.rule


def test_a_decision_that_looks_at_one_fact_shows_one() -> None:
    explained = explain(compiled(LIBRARY).decide(Request(Entity("robot", "1"), Action("burn"), Entity("book", "2")), compiled(LIBRARY).fold([], NOW)))
    assert explained.tested == ("consent.banned",) and explained.cells == () and explained.turns == ()


def test_a_cell_that_was_looked_at_is_shown_with_its_source() -> None:
    cell, physicians = explain(asked(directives=authorised())).cells
    assert (physicians.fact, physicians.row, physicians.column) == ("matrix.treating", "11488-4", "MEDECIN")
    assert cell.as_dict() == {
        "fact": "matrix.read",
        "grid": "read",
        "row": "11488-4",
        "column": "PHARMACIEN",
        "letter": "R",
        "label": "CR ou fiche de consultation ou de visite",
        "provenance": dict(french().pack.vocabulary.grids["read"].provenance["11488-4", "PHARMACIEN"]),
        "leans": False,
    }
    assert cell.provenance["basis"] == "sourced_complement" and cell.provenance["sources"]


def test_a_decision_that_turns_on_an_inferred_cell_leans_on_it() -> None:
    answer = asked(directives=authorised(), subject={"profession": "G15_40"})
    cell = explain(answer).cells[0]
    assert (cell.column, cell.letter, cell.provenance["basis"], cell.leans) == ("CHIRURGIEN_DENTISTE", "r", "inferred", True)
    assert answer.inferred and explain(answer).reviewer["inferred"]


def test_an_inferred_cell_that_does_not_matter_is_not_leaned_on() -> None:
    answer = asked(directives=[{"kind": "exclusion", "target": {"professional": "10000000017"}}], subject={"profession": "G15_40"})
    assert answer.rule == "R20" and not answer.inferred
    assert not any(cell.leans for cell in explain(answer).cells)


def test_a_cell_that_was_not_looked_at_is_not_shown() -> None:
    blocked = [{"kind": "block", "target": {"professional": "10000000017"}}]
    answer = asked(directives=blocked)
    assert answer.rule == "R05" and "matrix.read" not in explain(answer).tested
    assert explain(answer).cells == ()


def test_a_place_that_is_no_cell_is_not_shown() -> None:
    assert explain(asked(directives=authorised(), document={"type": "unheard-of"})).cells == ()
    assert [cell.fact for cell in explain(asked(directives=authorised(), subject={"profession": None})).cells] == ["matrix.treating"]


# --- what would turn it ----------------------------------------------------------------------------------------------


def brute_turns(answer: Answer) -> list[dict[str, Value]]:
    """The smallest changes of changeable facts after which it is permitted no longer, or at last: all of them that can be."""
    runner, facts = answer.runner, answer.runner.pack.vocabulary.facts
    here = answer.situation
    changeable = [facts[name] for name in here if facts[name].changeable]
    for size in range(1, len(changeable) + 1):
        found = [
            dict(change)
            for chosen in combinations(changeable, size)
            for change in product(*([(fact.name, value) for value in others(fact, here[fact.name])] for fact in chosen))
            if runner.outcomes[runner.evaluate(runner.tables.pack(here | dict(change)))].permits is not answer.permitted and can_be(answer, here | dict(change))
        ]
        if found:
            return found
    return []


def can_be(answer: Answer, situation: Mapping[str, Value]) -> bool:
    """Whether no condition that the vocabulary calls impossible holds, among those about these facts."""
    pack, key = answer.runner.pack, (answer.request.subject.type, answer.request.action.name)
    folded = [fold_constants(condition, pack, *key) for condition in pack.vocabulary.impossible.values()]
    known = [one for one in folded if not isinstance(one, bool) and {name.fact for name in names(one)} <= situation.keys()]
    return True not in folded and not any(holds(one, situation, pack) for one in known)


def others(fact: Fact, value: Value) -> Iterator[Value]:
    yield from (one for one in fact.values if not (one is value or (one == value and isinstance(one, str))))


def assert_turns(answer: Answer) -> None:
    """As many as brute force finds, three at most, and each is one of those."""
    wanted, found = brute_turns(answer), [dict(turn) for turn in explain(answer).turns]
    assert len(found) == min(len(wanted), 3)
    assert all(turn in wanted for turn in found)
    assert all(turn not in found[:place] for place, turn in enumerate(found))


@pytest.mark.parametrize("start", range(20))
def test_what_would_turn_a_french_decision_is_what_brute_force_finds(start: int) -> None:
    for _, answer in answers()[start::200]:
        assert_turns(answer)


def test_what_would_turn_a_decision_of_each_french_rule_is_what_brute_force_finds() -> None:
    for answer in {answer.rule: answer for _, answer in answers()}.values():
        assert_turns(answer)


@pytest.mark.parametrize("changeable", ["as it is", "everything"])
@pytest.mark.parametrize(("subject", "action"), [("reader", "read"), ("reader", "lend"), ("reader", "burn"), ("robot", "lend")])
def test_what_would_turn_a_decision_of_the_library_is_what_brute_force_finds(subject: str, action: str, changeable: str) -> None:
    words = LIBRARY["vocabulary.toml"].decode().replace("changeable = true\n", "")
    everything = {**LIBRARY, "vocabulary.toml": words.replace('\nform = "', '\nchangeable = true\nform = "').encode()}
    pdp = compiled(LIBRARY if changeable == "as it is" else everything)
    for answer in library_answers(pdp, subject, action):
        assert_turns(answer)


def library_answers(pdp: Pdp, subject: str, action: str) -> Iterator[Answer]:
    records = [pdp.fold(said, NOW) for said in ([], [{"kind": "ban", "target": {"reader": "1"}}])]
    for record, hour, card, mark, shelf, name in product(records, ["day", "night", "dusk"], [False, True], ["gold", "plain"], ["A", "B", "C"], ["ann", "eve"]):
        who, what = Entity(subject, "1", {"rank": "novice", "name": name}), Entity("book", "2", {"shelf": shelf, "mark": mark})
        yield pdp.decide(Request(who, Action(action), what, {"hour": hour, "card": card}), record)


def test_consent_would_turn_the_refusal_that_asks_for_it() -> None:
    answer = asked()
    assert answer.rule == "R19"
    turns = [dict(turn) for turn in explain(answer).turns]
    assert {"consent.authorised": True} in turns and {"consent.team_consent": True} in turns


def test_what_cannot_be_is_not_proposed() -> None:
    """A robot has no card: that it shows one would turn the refusal, and cannot be. And an authorisation given in person is an authorisation."""
    pdp = compiled(rule_edited("robots", "p, robots, robot, using, r.context.card, allow"))
    robot = Request(Entity("robot", "1", {"name": "eve"}), Action("read"), Entity("book", "2"), {"hour": "day", "card": False})
    answer = pdp.decide(robot, pdp.fold([], NOW))
    turned = pdp.evaluate("robot", "read", answer.situation | {"context.card": True})
    assert (answer.rule, turned.rule, turned.permits) == ("closed", "robots", True) and explain(answer).turns == ()
    occupational = [dict(turn) for turn in explain(asked(subject={"role": "occupational"})).turns]
    assert {"consent.authorised": True, "consent.authorised_in_person": True} in occupational and {"consent.authorised_in_person": True} not in occupational


def test_nothing_changeable_would_turn_a_block() -> None:
    answer = asked(directives=[*authorised(), {"kind": "block", "target": {"professional": "10000000017"}}])
    assert answer.rule == "R05" and explain(answer).turns == ()


def test_what_would_turn_an_unknown_question_is_nothing() -> None:
    for subject, action in (("stranger", "read"), ("professional", "unheard-of")):
        answer = asked(action, subject={"kind_of_subject": subject})
        explained = explain(answer)
        assert answer.decision == "no_rule" and explained.turns == explained.tested == explained.cells == ()
        assert explained.text() == f"{subject} 10000000017, {action}, document DOC-1, at 2026-11-21T11:20:00+01:00\nno rule applies"


# --- what the requester may know -------------------------------------------------------------------------------------

HIDDEN_FROM_A_PROFESSIONAL: dict[str, dict[str, Any]] = {
    "masked": {"document": {"confidentiality": ["MASQUE_PS"]}},
    "masked by an unknown code": {"document": {"confidentiality": ["?"]}},
    "masked by a missing code": {"document": {"confidentiality": None}},
    "masked by a directive": {"directives": [*authorised(), {"kind": "mask", "target": {"document": "DOC-1"}}]},
    "its author is masked": {"directives": [*authorised(), {"kind": "mask", "target": {"author": "10000000025"}}]},
    "deleted": {"document": {"status": "Deleted"}},
    "of an unknown status": {"document": {"status": "?"}},
    "absent": {"document": {"status": None, "type": None, "author": None, "structure": None, "confidentiality": None, "deposited": None}},
    "masked, in an emergency": {"document": {"confidentiality": ["MASQUE_PS"]}, "context": {"access_mode": "bris_de_glace", "justification": "Coma"}},
    "absent, in an emergency": {"document": {"status": None}, "context": {"access_mode": "centre_15"}, "subject": {"role": "regulation"}},
    "masked, from who deletes": {"document": {"confidentiality": ["MASQUE_PS"]}, "action": "delete"},
    "absent, from who deletes": {"document": {"status": None}, "action": "delete"},
}
HOLDER = {"kind_of_subject": "patient", "id": PATIENT}
HIDDEN_FROM_OTHERS: dict[str, dict[str, Any]] = {
    "hidden from the holder": {"subject": HOLDER, "document": {"confidentiality": ["INVISIBLE_PATIENT"], "deposited": "2026-11-20T09:00:00+01:00"}},
    "absent, for the holder": {"subject": HOLDER, "document": {"status": None}},
    "hidden from representatives": {
        "subject": {"kind_of_subject": "representative", "id": "1"},
        "directives": [{"kind": "representation", "target": {"representative": "1"}, "ground": "measure"}],
        "document": {"confidentiality": ["INVISIBLE_REPRESENTANTS_LEGAUX"]},
    },
    "absent, for a representative": {
        "subject": {"kind_of_subject": "representative", "id": "1"},
        "directives": [{"kind": "representation", "target": {"representative": "1"}, "ground": "measure"}],
        "document": {"status": "Deleted"},
    },
    "masked, from an organisation": {
        "action": "delete",
        "subject": {"kind_of_subject": "organisation", "kind": "health", "structure": "750000018"},
        "document": {"confidentiality": ["MASQUE_PS"]},
    },
}
CONCEALED = HIDDEN_FROM_A_PROFESSIONAL | HIDDEN_FROM_OTHERS


@pytest.mark.parametrize("why", CONCEALED)
def test_a_discreet_refusal_tells_its_requester_one_thing_whatever_it_conceals(why: str) -> None:
    asking = {"directives": authorised(), **CONCEALED[why]}
    answer = asked(**asking)
    assert answer.discreet and answer.rule in DISCREET
    view = explain(answer).requester
    assert view == {"decision": False, "reason": {"fr": "Aucun document à présenter.", "en": "No document to show."}, "obligations": []}
    assert json.dumps(view) == json.dumps(explain(asked(**{"directives": authorised(), **HIDDEN_FROM_A_PROFESSIONAL["absent"]})).requester)
    assert [answer.words(language) for language in ("fr", "en")] == list(view["reason"].values())


@pytest.mark.parametrize("why", CONCEALED)
def test_a_discreet_refusal_names_no_rule_article_fact_or_obligation_to_its_requester(why: str) -> None:
    answer = asked(**{"directives": authorised(), **CONCEALED[why]})
    explained = explain(answer)
    written = json.dumps(explained.requester, ensure_ascii=False)
    told = [answer.rule, answer.legal_basis, "legal_basis", "rule", *explained.situation, *french().pack.obligations, "MASQUE", "11488-4", "matrix"]
    reason = answer.outcome.reason
    assert reason is not None
    assert [word for word in (*told, *reason.words.values()) if word in written] == []


@pytest.mark.parametrize("why", CONCEALED)
def test_the_reviewer_of_a_discreet_refusal_reads_why(why: str) -> None:
    answer = asked(**{"directives": authorised(), **CONCEALED[why]})
    reviewer, reason = explain(answer).reviewer, answer.outcome.reason
    assert reason is not None and reason.words["fr"] != reason.words["en"]
    assert reviewer["rule"] == answer.rule and reviewer["legal_basis"] == reason.legal_basis and reviewer["discreet"] is True
    assert reviewer["reason"] == dict(reason.words)


def test_any_other_answer_names_its_rule_its_article_and_what_the_requester_owes() -> None:
    answer = asked(directives=authorised(), context={"access_mode": "bris_de_glace", "justification": "Coma"})
    assert explain(answer).requester == {
        "decision": True,
        "reason": {
            "fr": "Accès en bris de glace justifié ; le patient et ses médecins traitants en seront informés, et l'accès sera contrôlé.",
            "en": "Justified break-glass access; the patient and the treating physicians will be told, and the access will be reviewed.",
        },
        "obligations": [{"id": "flag_access", "properties": {}}],
        "rule": "R14",
        "legal_basis": "CSP L1111-17 I al.1; CSP R1111-48",
    }
    assert [one["id"] for one in explain(answer).reviewer["obligations"]] == ["flag_access", "notify_holder", "notify_treating_physician", "queue_for_review"]


def test_an_answer_in_one_language_is_told_in_it_alone() -> None:
    pdp = compiled(LIBRARY)
    answer = pdp.decide(Request(Entity("reader", "1", {"name": "ann"}), Action("lend"), Entity("book", "2"), {"hour": "day", "card": True}), pdp.fold([], NOW))
    assert explain(answer).requester["reason"] == {"en": "You are a friend."} == explain(answer).reviewer["reason"]


# --- as data and as text ---------------------------------------------------------------------------------------------


def test_the_reviewer_reads_everything_as_json() -> None:
    answer = asked(directives=authorised())
    seen = json.loads(json.dumps(explain(answer).reviewer))
    assert seen == explain(answer).reviewer
    answered = ["decision", "rule", "legal_basis", "discreet", "inferred", "obligations", "reason"]
    assert list(seen) == [*answered, "at", "situation", "tested", "cells", "would_turn"]
    assert seen["at"] == "2026-11-21T11:20:00+01:00" and seen["decision"] == "permit" and seen["rule"] == "R18"
    assert seen["situation"]["consent.authorised"] is True and "consent.authorised" in seen["tested"]


HEADS = {
    "a permit, in French": ({}, "fr", """\
professional 10000000017, read, document DOC-1, at 2026-11-21T11:20:00+01:00
permit by R18
  Une autorisation du patient, pour vous ou votre structure, est en cours.
  legal basis: CSP R1111-46; CSP L1110-4 III
  owes: notify_first_access (Informer le titulaire du premier accès de ce professionnel.)
"""),
    "a permit, in English": ({}, "en", """\
professional 10000000017, read, document DOC-1, at 2026-11-21T11:20:00+01:00
permit by R18
  An authorisation of the patient, for you or your organisation, is in force.
  legal basis: CSP R1111-46; CSP L1110-4 III
  owes: notify_first_access (Tell the holder of this professional's first access.)
"""),
    "a discreet refusal, in French": ({"confidentiality": ["MASQUE_PS"]}, "fr", """\
professional 10000000017, read, document DOC-1, at 2026-11-21T11:20:00+01:00
refuse by R09 (discreet)
  Le document est masqué aux professionnels et celui-ci n'est pas de ceux qui peuvent le voir ; ni le document ni le masquage ne lui sont révélés.
  legal basis: CSP R1111-49
  the requester reads: Aucun document à présenter.
"""),
    "a discreet refusal, in English": ({"confidentiality": ["MASQUE_PS"]}, "en", """\
professional 10000000017, read, document DOC-1, at 2026-11-21T11:20:00+01:00
refuse by R09 (discreet)
  The document is masked from professionals and this one is not among those who may see it; neither the document nor the masking is revealed to him.
  legal basis: CSP R1111-49
  the requester reads: No document to show.
"""),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_an_explanation_begins_with_what_was_decided_and_why(case: str) -> None:
    document, language, head = HEADS[case]
    text = explain(asked(directives=authorised(), document=document)).text(language)
    assert text.startswith(head + "facts, in the order in which they were looked at:\n  ")


def lent(shelf: str, **context: object) -> str:
    """An explanation of the library's, as text: eve, a scholar, borrows a plain book by day."""
    pdp = compiled(LIBRARY)
    who, what = Entity("reader", "1", {"rank": "scholar", "name": "eve"}), Entity("book", "2", {"shelf": shelf, "mark": "plain"})
    return explain(pdp.decide(Request(who, Action("lend"), what, {"hour": "day", **context}), pdp.fold([], NOW))).text()


def test_a_refusal_as_text() -> None:
    assert lent("B") == """\
reader 1, lend, book 2, at 2026-11-21T11:20:00+01:00
refuse by closed
  The library is closed.
  legal basis: Rule 8
facts, in the order in which they were looked at:
  consent.banned                     false          He is banned.
  context.hour                       day            What time it is.
  matrix.shelf                       false          His rank may use this shelf.
  subject.friend                     false          A friend of the library.
cell shelves: B (Bibles), HIGH: `y` (basis inferred); the decision leans on it
would turn it: context.hour night, context.card true"""


def test_a_permit_as_text() -> None:
    assert lent("A", card=True) == """\
reader 1, lend, book 2, at 2026-11-21T11:20:00+01:00
permit by shelf
  Your rank may use this shelf.
  legal basis: Rule 3
  owes: count (Count the reader.)
  owes: stamp (Stamp the book.)
facts, in the order in which they were looked at:
  consent.banned                     false          He is banned.
  context.hour                       day            What time it is.
  matrix.shelf                       true           His rank may use this shelf.
cell shelves: A (Atlases), HIGH: `Y` (basis published, source The sign)
would turn it: context.hour dusk"""


def test_text_of_every_vector_is_in_the_language_asked_for() -> None:
    for _, answer in answers()[::60]:
        for language in ("fr", "en"):
            text, reason = explain(answer).text(language), answer.outcome.reason
            assert reason is None or f"\n  {reason.words[language]}\n  legal basis: {reason.legal_basis}\n" in text
            assert (f"  the requester reads: {french().pack.discreet[language]}\n" in text) is answer.discreet
            assert all(f"  owes: {one.id} ({one.words[language]})\n" in text for one in answer.owed)
            assert max(map(len, text.split("\n"))) < 260


def test_a_cell_without_source_or_label_is_shown_without_parentheses() -> None:
    bare = edited("vocabulary.toml", ('provenance = "matrix/sources.csv"\n', ""))
    bare = {**bare, "matrix/shelves.csv": b"shelf,LOW,HIGH,STAFF\nA,Y,Y,N\nB,N,y,Y\nC,C,Y,N\n"}
    pdp = compiled({name: data for name, data in bare.items() if name != "matrix/sources.csv"})
    who = Entity("reader", "1", {"rank": "scholar"})
    answer = pdp.decide(Request(who, Action("read"), Entity("book", "2", {"shelf": "B", "mark": "plain"}), {"hour": "day"}), pdp.fold([], NOW))
    assert "\ncell shelves: B, HIGH: `y`; the decision leans on it\n" in explain(answer).text()
