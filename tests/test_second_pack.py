"""Another domain is another folder: the library of examples/ checks and decides as expected, by all three meanings. And the engine knows no domain."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from casbins import NodeCasbin, PyCasbin, objects_of
from hypothesis import given
from random_packs import NOW, directives, requests
from test_facts_agree import assert_decided_as_defined
from test_meanings import assert_columns_agree, assert_rows_agree, blocks, distinct, domain, expected, path_situations, random_values

from engine.analysis.dead import dead_rules
from engine.analysis.invariants import prove
from engine.pack import load_pack
from engine.pdp import Pdp, load_pdp
from engine.request import Action, Entity, Request
from engine.vectors import Packs, read_vectors, run_case

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "examples" / "library_pack"
PDP = load_pdp(LIBRARY)
PACKS = Packs()
CASES = read_vectors([LIBRARY / "vectors.yaml"], PACKS)
SLICES = pytest.mark.parametrize(("subject", "action"), distinct(PDP), ids=["-".join(key) for key in distinct(PDP)])


def test_it_checks_without_a_warning_and_its_invariants_are_proved() -> None:
    assert PDP.pack.warnings == ()
    assert len(PDP.pack.invariants) == 5 and prove(PDP) == []
    assert dead_rules(PDP) == []


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_it_decides_as_a_person_expects(case: Any) -> None:
    result = run_case(PACKS(case.pack, case.settings), case)
    assert not result.error and not result.differences


def test_its_vectors_make_every_rule_decide_and_meet_all_three_outcomes() -> None:
    rules = {case.expect.rule for case in CASES}
    assert rules == {*PDP.pack.by_id, None}
    assert {case.expect.decision for case in CASES} == {"permit", "refuse", "no_rule"}


# --- three meanings --------------------------------------------------------------------------------------------------


@SLICES
def test_tables_and_reference_agree_on_the_whole_of_its_domain(subject: str, action: str) -> None:
    for columns in blocks(PDP, subject, action, 0, domain(PDP, subject, action)):
        assert_rows_agree(PDP, subject, action, columns)
        assert_columns_agree(PDP, subject, action, columns)


def test_both_casbins_decide_alike_on_every_path_of_it() -> None:
    python, chance = PyCasbin(LIBRARY), random.Random(5)
    with NodeCasbin() as node:
        for subject, action in distinct(PDP):
            several = [situation for situation, _ in path_situations(PDP, subject, action)]
            several += [random_values(PDP.pack, chance) for _ in range(20)]
            objects = [objects_of(PDP.pack, subject, action, situation) for situation in several]
            wanted = [expected(PDP, subject, action, situation) for situation in several]
            assert [python.decide(one) for one in objects] == node.decide(LIBRARY, objects) == wanted


EVERYDAY = {"subject.id": "ann", "subject.card": "researcher", "resource.id": "B-300", "resource.patient": "bob", "context.on_site": True}


@given(requests(PDP.pack, EVERYDAY, {**EVERYDAY, "resource.id": "D-400"}, {**EVERYDAY, "subject.roles": ["curator"]}), directives(PDP.pack))
def test_whole_requests_are_decided_as_defined(request: Request, said: list[dict[str, Any]]) -> None:
    assert_decided_as_defined(PDP, request, PDP.fold(said, NOW), NOW)


@pytest.mark.parametrize(("watch", "decision"), [(True, "no_rule"), (False, "permit")])
def test_a_condition_of_a_cell_may_ask_for_a_setting(watch: bool, decision: str) -> None:
    pdp = Pdp(load_pack(LIBRARY, {"watch_reserve": watch}))
    request = Request(Entity("reader", "rhea", {"card": "researcher"}), Action("consult"), Entity("document", "B-300"), {"on_site": True})
    assert pdp.decide(request, pdp.fold([], NOW)).decision == decision


def test_what_no_rule_speaks_of_does_not_open() -> None:
    request = Request(Entity("librarian", "dina"), Action("consult"), Entity("document", "B-100"), {"on_site": True})
    answer = PDP.decide(request, PDP.fold([], NOW))
    assert (answer.decision, answer.rule, answer.permitted) == ("no_rule", "", False)
    assert answer.for_requester(("en",)) == {"decision": False, "reason": {"en": ""}, "obligations": [], "rule": "", "legal_basis": ""}


# --- the engine --------------------------------------------------------------------------------------------------------

FRENCH = (
    r"\bdmp|mon.espace|m[ée]decins?|soignant|bris.de.glace|break.glass|centre.?15|masque|invisible_|rpps|adeli|finess|\bins\b|\bnir\b|\bcps\b|vitale|"
    r"franc|french|1\.2\.250|g1[56]_|r95|l1111|r1111|[12][0-9]{14}"
)
"""Words and identifiers of the French regime."""


def engine_code() -> Iterator[tuple[Path, str]]:
    """The engine's files without their docstrings, where an example may speak of anything."""
    for path in sorted((ROOT / "engine").rglob("*.py")):
        yield path, re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)


def test_the_engine_knows_nothing_of_france() -> None:
    found = [(path.name, word) for path, code in engine_code() for word in re.findall(FRENCH, code, re.IGNORECASE)]
    assert found == []


def test_the_engine_names_no_fact_action_or_kind_of_either_pack() -> None:
    """`patient` is the engine's word for whose record it is."""
    words: set[str] = set()
    for pack in (PDP.pack, load_pack(ROOT / "policies")):
        words |= {*pack.vocabulary.facts, *pack.vocabulary.kinds, *pack.vocabulary.subjects, *pack.by_id, *pack.obligations}
        words |= {action for action in pack.vocabulary.actions if "_" in action}
    for path, code in engine_code():
        literals = {word for pair in re.findall(r"\"([^\"\n]*)\"|'([^'\n]*)'", code) for word in pair}
        assert not literals & words - {"patient"}, f"{path.relative_to(ROOT)} names {sorted(literals & words)}"
