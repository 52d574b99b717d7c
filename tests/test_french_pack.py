"""What a reviewer would check of policies/: rules and their vectors, who may do what, the matrix, words, obligations, discretion.

Also where the other tests find the French pack, compiled once in a run, and the vectors that are asked under its own settings.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from engine.analysis.dead import copy_of, deciding
from engine.answer import Answer
from engine.evaluator.diagram import HOLDS, NONE
from engine.pdp import Pdp, load_pdp
from engine.request import Action, Entity
from engine.sheets import read_sheet
from engine.vectors import Case, read_vectors, typed_settings
from engine.vocabulary import Cell, Held

ROOT = Path(__file__).parents[1]


@cache
def french() -> Pdp:
    """The French pack, its invariants proved."""
    return load_pdp(ROOT / "policies")


@cache
def vectors() -> tuple[Case, ...]:
    """The vectors that have a request and are asked under the pack's own settings."""
    settings = french().pack.settings
    cases = read_vectors([ROOT / "test_vectors"], lambda _folder, _settings: french())
    return tuple(case for case in cases if case.request is not None and typed_settings(case.settings, settings).items() <= settings.items())


@cache
def answers() -> tuple[tuple[Case, Answer], ...]:
    """Those vectors, answered."""
    pdp = french()
    return tuple((case, pdp.decide(case.request, pdp.fold(case.directives, case.at))) for case in vectors() if case.request is not None)


# --- rules and vectors -----------------------------------------------------------------------------------------------


def every_rule() -> list[str]:
    pack = french().pack
    return list(dict.fromkeys([*pack.by_id, *(rule for _, rule in pack.defaults)]))


def test_every_rule_has_a_vector_that_it_decides() -> None:
    assert [rule for rule in every_rule() if rule not in {case.expect.rule for case in vectors()}] == []


def test_every_rule_has_a_vector_one_fact_away_that_another_rule_decides() -> None:
    by_slice: dict[tuple[str, str], set[tuple[tuple[object, ...], str]]] = defaultdict(set)
    for _, answer in answers():
        by_slice[answer.request.subject.type, answer.request.action.name].add((tuple(answer.situation.values()), answer.rule))
    bordered = {
        rule
        for several in by_slice.values()
        for situation, rule in several
        if any(other != rule and sum(a is not b and a != b for a, b in zip(situation, values, strict=True)) == 1 for values, other in several)
    }
    assert [rule for rule in every_rule() if rule not in bordered] == []


def test_every_rule_begins_with_a_row_of_the_policy() -> None:
    text = (ROOT / "docs" / "policy-fr.md").read_text()
    rows = {id for line in re.findall(r"(?m)^\| ([^|]+) \|", text) for id in line.split(", ") if re.fullmatch(r"[RHWA]\d\d[\w-]*", id)}
    assert [rule for rule in every_rule() if not any(rule == row or rule.startswith(row + "_") for row in rows)] == []
    assert [row for row in sorted(rows) if not any(rule.startswith(row) for rule in every_rule())] == ["A07", "A09"], "what traces and notices hold: no rule"


# --- who may do what -------------------------------------------------------------------------------------------------

PROFESSIONAL, HOLDER, REPRESENTATIVE, ORGANISATION = "professional", "patient", "representative", "organisation"
MAY: dict[str, set[str]] = {
    "read": {PROFESSIONAL, HOLDER, REPRESENTATIVE},
    "list": {PROFESSIONAL, HOLDER, REPRESENTATIVE},
    "preview": {HOLDER, REPRESENTATIVE},
    "deposit": {PROFESSIONAL, HOLDER, REPRESENTATIVE, ORGANISATION},
    "replace": {PROFESSIONAL, HOLDER, REPRESENTATIVE, ORGANISATION},
    "delete": {PROFESSIONAL, HOLDER, REPRESENTATIVE, ORGANISATION},
    "archive": {PROFESSIONAL},
    "unarchive": {PROFESSIONAL},
    "mask": {PROFESSIONAL, HOLDER, REPRESENTATIVE},
    "unmask": {PROFESSIONAL, HOLDER, REPRESENTATIVE},
    "hide_from_patient": {PROFESSIONAL},
    "reveal_to_patient": {PROFESSIONAL},
    "hide_from_representatives": {PROFESSIONAL, HOLDER},
    "reveal_to_representatives": {PROFESSIONAL, HOLDER},
    "open": {PROFESSIONAL, HOLDER, REPRESENTATIVE, ORGANISATION},
    "close": {HOLDER, REPRESENTATIVE},
    "reopen": {HOLDER, REPRESENTATIVE},
    "read_status": {PROFESSIONAL, HOLDER, REPRESENTATIVE, ORGANISATION},
    "read_traces": {PROFESSIONAL, HOLDER, REPRESENTATIVE},
    "read_access_list": {PROFESSIONAL, HOLDER, REPRESENTATIVE},
    "grant_access": {PROFESSIONAL, HOLDER, REPRESENTATIVE},
    "revoke_access": {PROFESSIONAL, HOLDER, REPRESENTATIVE},
    "block": {PROFESSIONAL, HOLDER, REPRESENTATIVE},
    "unblock": {PROFESSIONAL, HOLDER, REPRESENTATIVE},
    "consent_care_team": {PROFESSIONAL, HOLDER, REPRESENTATIVE, ORGANISATION},
    "withdraw_care_team_consent": {HOLDER, REPRESENTATIVE, ORGANISATION},
    "join_care_team": {PROFESSIONAL, ORGANISATION},
    "leave_care_team": {PROFESSIONAL, ORGANISATION},
    "declare_treating_physician": {PROFESSIONAL, HOLDER, REPRESENTATIVE, ORGANISATION},
    "end_treating_physician": {PROFESSIONAL, HOLDER, REPRESENTATIVE, ORGANISATION},
    "grant_equal_rights": {HOLDER, REPRESENTATIVE},
    "revoke_equal_rights": {HOLDER, REPRESENTATIVE},
    "refuse_break_glass": {HOLDER, REPRESENTATIVE, ORGANISATION},
    "accept_break_glass": {HOLDER, REPRESENTATIVE},
    "refuse_regulation": {HOLDER, REPRESENTATIVE, ORGANISATION},
    "accept_regulation": {HOLDER, REPRESENTATIVE},
    "oppose_feeding": {HOLDER, REPRESENTATIVE, ORGANISATION},
    "withdraw_feeding_opposition": {HOLDER, REPRESENTATIVE},
    "declare_representation": {ORGANISATION},
    "end_representation": {HOLDER, ORGANISATION},
    "mask_documents": {HOLDER, REPRESENTATIVE},
    "unmask_documents": {HOLDER, REPRESENTATIVE},
    "correct_identity": {ORGANISATION},
    "record_death": {ORGANISATION},
    "withdraw_death": {ORGANISATION},
}
"""Who can be permitted each act, in some situation: sections 5 to 8 of the policy."""


def test_the_table_of_who_may_do_what_has_every_action() -> None:
    assert list(french().pack.vocabulary.actions) == list(MAY)


@pytest.mark.parametrize("action", MAY)
def test_an_action_can_be_permitted_to_these_and_to_nobody_else(action: str) -> None:
    permits = {outcome.rule for outcome in french().outcomes if outcome.permits}
    assert {subject for subject in french().pack.vocabulary.subjects if deciding(french(), subject, action).keys() & permits} == MAY[action]


@pytest.mark.parametrize("action", MAY)
def test_every_action_has_an_answer_by_a_rule_of_its_section(action: str) -> None:
    for subject in french().pack.vocabulary.subjects:
        assert "" not in deciding(french(), subject, action)


def test_the_fact_of_being_masked_looks_at_every_target_that_a_mask_may_have() -> None:
    """So the invariant `masked-is-read-only-by-those-entitled` speaks of a document however it was masked."""
    vocabulary = french().pack.vocabulary
    masked = vocabulary.facts["consent.masked"].form
    assert isinstance(masked, Held) and not masked.where and not masked.ended
    assert {form for form, _ in masked.of} == set(vocabulary.kinds[masked.kind].targets)
    assert {key for key, _ in masked.narrowed} == set(vocabulary.kinds[masked.kind].narrows) and vocabulary.facts["consent.masked"].absent is True
    assert [fact.name for fact in vocabulary.facts.values() if isinstance(fact.form, Held) and fact.form.kind == masked.kind] == ["consent.masked"]


# --- the matrix ------------------------------------------------------------------------------------------------------

REACHED = ["MEDECIN", "PHARMACIEN", "INFIRMIER", "OPTICIEN"]


def rows_of(name: str) -> list[dict[str, str]]:
    return [dict(row.cells) for row in read_sheet(name, french().pack.files[name], (), [])]


def test_the_matrix_is_the_one_of_the_sources() -> None:
    grid = french().pack.vocabulary.grids["read"]
    assert (len(grid.rows), len(grid.columns)) == (107, 20)
    assert Counter(letter for cells in grid.rows.values() for letter in cells.values()) == {"R": 218, "X": 110, "r": 1129, "x": 683}
    assert Counter(source["basis"] for source in grid.provenance.values()) == {"sourced_explicit": 48, "sourced_complement": 280, "inferred": 1812}
    assert len(grid.provenance) == 107 * 20 and grid.inferred == {"r", "x"}


def test_the_other_sheets_have_the_rows_and_columns_of_the_matrix() -> None:
    read, deposit = french().pack.vocabulary.grids["read"], french().pack.vocabulary.grids["deposit"]
    types = [row["code"] for row in rows_of("matrix/document_types.csv")]
    assert list(deposit.rows) == list(read.rows) == types and deposit.columns == read.columns
    assert deposit.labels == read.labels == {row["code"]: row["label"] for row in rows_of("matrix/document_types.csv")}


def test_nobody_but_the_patient_deposits_what_is_kept_for_him() -> None:
    deposit = french().pack.vocabulary.grids["deposit"]
    kept = {row["code"] for row in rows_of("matrix/document_types.csv") if row["depositor"] != "professional"}
    assert len(kept) == 14 and {type for type, cells in deposit.rows.items() if set(cells.values()) == {""}} == kept
    assert all("" not in cells.values() for type, cells in deposit.rows.items() if type not in kept)


def test_there_are_95_professions_of_which_28_have_a_column_that_is_official() -> None:
    professions = rows_of("matrix/professions.csv")
    assert len(professions) == 95 and len({row["id"] for row in professions}) == 95
    columns = {row["column"] for row in professions if row["column"]}
    assert sum(bool(row["column"]) for row in professions) == 28
    assert set(french().pack.vocabulary.grids["read"].columns) - columns == {"COORDINATION", "ENCADREMENT_MS"}, "a guess leads there, nothing else"
    assert columns == {row["column"] for row in professions if row["column"] and not row["column_guess"]}


def test_four_columns_read_by_default_each_its_published_cells() -> None:
    """Every profession asks for every type of document, with an authorisation in force: 10,165 decisions."""
    pdp = french()
    grid = pdp.pack.vocabulary.grids["read"]
    record = pdp.fold([{"kind": "opened"}, {"kind": "authorisation", "target": {"professional": "10000000017"}}], 1795256400.0)
    shown = {"status": "Approved", "confidentiality": ["N"], "author": "10000000025", "patient": "279035121518989"}
    documents = [Entity("document", "DOC-1", {**shown, "type": type}) for type in (*grid.rows, "unheard-of")]
    readers = set()
    for row in [*rows_of("matrix/professions.csv"), {"id": "unheard-of", "column": ""}]:
        who = Entity("professional", "10000000017", {"profession": row["id"], "authentication": "DIRECTE"})
        for document, answer in zip(documents, pdp.decide_many(who, Action("read"), documents, {"purpose": "care"}, record), strict=True):
            letter = grid.rows.get(document.properties["type"], {}).get(row["column"])
            assert (answer.rule, answer.inferred) == ("R18" if letter == "R" else "R20", letter in grid.inferred), (row["id"], document)
            readers |= {row["column"]} if answer.permitted else set()
    assert sorted(readers, key=REACHED.index) == REACHED


def test_the_six_cells_that_only_a_guess_reaches_are_those_of_coordination() -> None:
    grid = french().pack.vocabulary.grids["read"]
    form = french().pack.vocabulary.facts["matrix.read"].form
    assert isinstance(form, Cell)
    unreached = Counter(column for cells in grid.rows.values() for column, letter in cells.items() if letter == "R" and column not in form.column_of.values())
    assert unreached == {"COORDINATION": 6}


# --- words -----------------------------------------------------------------------------------------------------------

ENGLISH = "the of and is are was be this that these you your his her their not may can who with has have by to from for it its in at only access record reading"
FRENCH = "le la les du des une est sont vous votre ce cette ces qui que avec pour par aux dans dossier accès être pas ne sur"
DISCREET = {"H07", "R04", "R04-changing", "H02", "H04", "R09", "R09-changing", "R09-organisation"}
BASIS = re.compile(
    r"CSP [LR]\d{4}-\d+( [IVX]+)?( al\.\d)?|ANS (PDSm DMP TD\d\.\d[a-d]?|volet HL7v2|TRE_R248-ModeAcces|JDV_J64)|PAM-FR 2\.11\.1"
    r"|Guide d'intégration DMP( EX_\d\.\d-\d+)?|Conseil d'État n° 490409 \(2025-10-15\)|arrêté 2023-10-26|dmp-fr ([RHWA]\d\d|matrix/deposit\.csv)"
)


def words() -> Iterator[tuple[str, str, str]]:
    """Every sentence that a person may read: where, language, sentence."""
    pack = french().pack
    for several in (pack.reasons, pack.obligations):
        for id, one in several.items():
            yield from ((id, language, text) for language, text in one.words.items())
    yield from (("discreet", language, text) for language, text in pack.discreet.items())


def test_every_reason_and_obligation_has_words_in_french_and_in_english() -> None:
    pack = french().pack
    assert pack.languages == ("fr", "en")
    for id, one in {**pack.reasons, **pack.obligations, "discreet": None}.items():
        known = pack.discreet if one is None else one.words
        assert known.keys() == {"fr", "en"} and all(text.strip() for text in known.values()), id


def test_words_are_sentences() -> None:
    for where, language, text in words():
        assert re.fullmatch(r"[A-ZÀ-Ý][^\n]*[^\s]\.", text), (where, text)
        assert "  " not in text and '"' not in text and "’" not in text, (where, text)
        assert re.search(r"(?<! )[;:!?]" if language == "fr" else r" [;:!?,.]", text) is None, (where, text)


def test_french_words_are_french_and_english_words_english() -> None:
    for where, language, text in words():
        other = (ENGLISH if language == "fr" else FRENCH).split()
        assert [word for word in re.findall(r"[a-zà-ÿœ]+", text.lower()) if word in other] == [], (where, text)


def test_both_languages_say_as_much() -> None:
    for where, one in {**french().pack.reasons, **french().pack.obligations}.items():
        sizes = sorted(map(len, one.words.values()))
        assert sizes[1] < 1.9 * sizes[0], (where, one.words)


def test_every_reason_has_a_legal_basis_that_can_be_looked_up() -> None:
    for id, reason in french().pack.reasons.items():
        several = reason.legal_basis.split("; ")
        assert all(BASIS.fullmatch(one) for one in several), (id, reason.legal_basis)
        assert len(set(several)) == len(several) and reason.sure in ("H", "M-H", "M", "L"), id
        assert [word for word in re.findall(r"[a-zà-ÿ]+", reason.legal_basis.lower()) if word in ENGLISH.split()] == [], id
        assert all(id.startswith(row) for row in re.findall(r"dmp-fr ([RHWA]\d\d)", reason.legal_basis)), "a rule cites its own row of the policy"


# --- obligations and discretion --------------------------------------------------------------------------------------


def test_every_obligation_is_owed_by_some_rule_that_decides() -> None:
    pdp = french()
    owed: dict[str, set[str]] = defaultdict(set)
    numbers = {outcome.rule: outcome.number for outcome in pdp.outcomes}
    for subject, action in pdp.slices:
        for rule in deciding(pdp, subject, action):
            for one in pdp.runner(subject, action).owed[numbers[rule]]:  # type: ignore[union-attr]
                owed[one.id].add(action)
    assert owed.keys() == pdp.pack.obligations.keys()
    assert owed["notify_first_access"] == {"read"}, "to be told a list is no access"


def test_every_emergency_access_is_told_and_reviewed() -> None:
    reasons = french().pack.reasons
    told = {"notify_holder", "notify_treating_physician"}
    assert {id for id, reason in reasons.items() if told <= set(reason.obligations)} == {"R06-author_break_glass", "R06-author_regulation", "R11", "R14", "W02"}
    assert {id for id, reason in reasons.items() if "queue_for_review" in reason.obligations} == {"R06-author_break_glass", "R14", "W02"}


def test_the_discreet_refusals_are_these() -> None:
    assert {id for id, reason in french().pack.reasons.items() if reason.discreet} == DISCREET


def test_a_discreet_refusal_owes_nothing_and_every_one_reads_alike() -> None:
    pdp = french()
    runner = pdp.runner("professional", "read")
    assert runner is not None
    for outcome in pdp.outcomes:
        if outcome.rule in DISCREET:
            assert not outcome.permits and outcome.reason is not None and outcome.reason.obligations == ()
            assert [runner.words(outcome, language) for language in ("fr", "en")] == ["Aucun document à présenter.", "No document to show."]


def test_the_discreet_text_says_nothing_of_why() -> None:
    telling = re.compile(r"masqu|cach|invisible|supprim|refus|interdit|droit|mask|hidden|delet|exist|refus|forbid|right|allow|rule|L1|R1", re.IGNORECASE)
    assert [text for text in french().pack.discreet.values() if telling.search(text)] == []


STRANGER = {"resource.author_is_subject": False, "resource.own_structure": False, "consent.treating_physician": False, "consent.equal_rights": False}
HIDDEN = {"consent.revealed_to_patient": False, "resource.announcement_over": False}
CONCEALED: dict[str, tuple[str, str, dict[str, bool]]] = {
    "masked by a code, from who reads": ("professional", "read", {"resource.masked": True}),
    "masked by a directive, from who reads": ("professional", "read", {"consent.masked": True}),
    "masked, from who changes": ("professional", "hide_from_patient", {"resource.masked": True, **STRANGER}),
    "masked, from who masks": ("professional", "mask", {"consent.masked": True, **STRANGER}),
    "masked, from who deletes": ("professional", "delete", {"resource.masked": True, **STRANGER}),
    "masked, from who replaces": ("professional", "replace", {"resource.masked": True, **STRANGER}),
    "masked, from an organisation": ("organisation", "delete", {"resource.masked": True, "resource.own_structure": False}),
    "hidden from the holder by a code": ("patient", "read", {"resource.hidden_from_patient": True, **HIDDEN}),
    "hidden from the holder by a directive": ("patient", "mask", {"consent.hidden_from_patient": True, **HIDDEN}),
    "hidden from representatives by a code": ("representative", "preview", {"resource.hidden_from_representatives": True}),
    "hidden from representatives by a directive": ("representative", "delete", {"consent.hidden_from_representatives": True}),
    "hidden from the holder, for a representative": ("representative", "read", {"resource.hidden_from_patient": True, **HIDDEN}),
}
"""Documents that somebody must not know of, as facts."""


@pytest.mark.parametrize("case", CONCEALED)
def test_a_document_that_is_concealed_is_refused_as_one_that_is_not_there(case: str) -> None:
    """Proved on the diagram: in every situation in which the concealed one is refused, the missing one reads the same."""
    subject, action, facts = CONCEALED[case]
    pdp = french()
    slice = pdp.slices[subject, action]
    store, root = copy_of(slice, slice.facts)
    view = {outcome.leaf: -100 if outcome.reason and outcome.reason.discreet else -99 if outcome.permits else outcome.leaf for outcome in pdp.outcomes}
    seen = store.map_leaves(root, view.__getitem__)
    known = {slice.variable[name]: int(value) for name, value in facts.items() if name in slice.variable}
    assert any(value and slice.variable.get(name) in known for name, value in facts.items())
    missing, there = ({**known, slice.variable["resource.present"]: present} for present in (0, 1))
    differs = store.pairs(store.restrict(seen, missing), store.restrict(seen, there), lambda a, b: HOLDS if b not in (a, -99) else NONE, "differs")
    found = store.find(differs, lambda leaf: leaf == HOLDS)
    assert found is None, {slice.facts[v].name: slice.facts[v].values[n] for v, n in found.items()}
    assert -100 in store.leaves(store.restrict(seen, there))
