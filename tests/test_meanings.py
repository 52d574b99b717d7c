"""Three meanings that must be one: the reference, stock Casbin (pycasbin and node-casbin) on the same files, and the compiled tables.

For every distinct slice of the French pack. Small domains are walked situation by situation by `reference.py` itself; domains up to ten million by the same
definition over columns (`holds_everywhere` below, itself compared with `reference.py`); larger ones over every path of the diagram and at random. Facts
outside a slice get random values: they must not matter.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np
import pytest
from casbins import NodeCasbin, PyCasbin, objects_of
from hypothesis import given, settings
from numpy.typing import NDArray
from random_packs import packs

from engine.evaluator.conditions import And, Compare, Condition, Literal, Name, Not, Or, names
from engine.evaluator.reference import deciding_rule, is_for
from engine.evaluator.slices import FIRST_OUTCOME
from engine.facts import Situation
from engine.pack import Pack, parse_pack
from engine.pdp import Pdp, load_pdp
from engine.vocabulary import Value

POLICIES = Path(__file__).parents[1] / "policies"
PDP = load_pdp(POLICIES)
BY_ROWS = 40_000
"""Domains up to this many situations are walked by reference.py itself; the others are by `make test-long`, up to ten million."""
BY_COLUMNS = 10_000_000
BLOCK = 1 << 18

Columns = Mapping[str, NDArray[np.int8]]
"""For each fact the place of its value among its values, one row a situation."""


def distinct(pdp: Pdp) -> list[tuple[str, str]]:
    """One (subject type, action) for each distinct slice."""
    return list({id(slice): key for key, slice in reversed(pdp.slices.items())}.values())[::-1]


def domain(pdp: Pdp, subject: str, action: str) -> int:
    return prod(len(fact.values) for fact in pdp.slices[subject, action].facts)


def every_slice(least: int = 0, most: float = float("inf")) -> pytest.MarkDecorator:
    chosen = [key for key in distinct(PDP) if least <= domain(PDP, *key) <= most]
    return pytest.mark.parametrize(("subject", "action"), chosen, ids=["-".join(key) for key in chosen])


# --- situations ------------------------------------------------------------------------------------------------------


def random_values(pack: Pack, chance: random.Random) -> dict[str, Value]:
    """A value for every fact of the pack; settings have theirs."""
    return {name: chance.choice(fact.values) if fact.constant is None else fact.constant for name, fact in pack.vocabulary.facts.items()}


def blocks(pdp: Pdp, subject: str, action: str, start: int, end: int) -> Iterator[Columns]:
    """Situations `start` to `end` of a slice's domain, in blocks; every fact outside the slice at random."""
    chance = np.random.default_rng(start)
    facts = pdp.slices[subject, action].facts
    sizes = [len(fact.values) for fact in facts]
    for first in range(start, end, BLOCK):
        rows = np.arange(first, min(first + BLOCK, end))
        inside = dict(zip((fact.name for fact in facts), np.unravel_index(rows, sizes), strict=True)) if facts else {}
        yield columns_with(pdp.pack, inside, len(rows), chance)


def random_block(pdp: Pdp, rows: int, seed: int) -> Columns:
    return columns_with(pdp.pack, {}, rows, np.random.default_rng(seed))


def columns_with(pack: Pack, inside: Mapping[str, NDArray[np.integer]], rows: int, chance: np.random.Generator) -> Columns:
    made = {}
    for name, fact in pack.vocabulary.facts.items():
        if name in inside:
            made[name] = inside[name].astype(np.int8)
        elif fact.constant is not None:
            made[name] = np.full(rows, fact.values.index(fact.constant), np.int8)
        else:
            made[name] = chance.integers(len(fact.values), size=rows, dtype=np.int8)
    return made


def situations(pack: Pack, columns: Columns) -> Iterator[Situation]:
    facts = [pack.vocabulary.facts[name] for name in columns]
    words = [[fact.values[n] for n in column] for fact, column in zip(facts, columns.values(), strict=True)]
    for row in zip(*words, strict=True):
        yield dict(zip(columns, row, strict=True))


def path_situations(pdp: Pdp, subject: str, action: str, seed: int = 0) -> Iterator[tuple[dict[str, Value], str]]:
    """One whole situation for each path of a slice's diagram, and the rule at its end."""
    slice, chance = pdp.slices[subject, action], random.Random(seed)
    for taken, leaf in slice.store.paths(slice.root):
        made = random_values(pdp.pack, chance)
        made |= {slice.facts[variable].name: slice.facts[variable].values[n] for variable, n in taken.items()}
        yield made, pdp.outcomes[FIRST_OUTCOME - leaf].rule


# --- the three meanings ----------------------------------------------------------------------------------------------


@cache
def pack_for(subject: str, action: str) -> Pack:
    """The pack with only the lines written for a slice: the reference passes over the others anyway, one by one."""
    return replace(PDP.pack, rules=tuple(rule for rule in PDP.pack.rules if is_for(PDP.pack, rule, subject, action)))


def mentioned(pack: Pack) -> set[str]:
    """The facts that the rules of a pack, and conditions of cells, speak of: no other can be looked at."""
    conditions = [rule.when for rule in pack.rules] + [named for fact in pack.vocabulary.facts.values() for named in fact.conditional.values()]
    return {name.fact for condition in conditions for name in names(condition)} & pack.vocabulary.facts.keys()


def by_tables(pdp: Pdp, subject: str, action: str, columns: Columns) -> NDArray[np.int32]:
    tables = pdp.runner(subject, action).tables
    rows = len(next(iter(columns.values())))
    return tables.evaluate_many(np.broadcast_to(tables.pack_columns(columns), rows))


def by_columns(pdp: Pdp, subject: str, action: str, columns: Columns) -> NDArray[np.int32]:
    """What reference.py says, over columns: the number of the outcome of each row."""
    pack, rows = pdp.pack, len(next(iter(columns.values())))
    numbers = {outcome.rule: outcome.number for outcome in pdp.outcomes}
    made = np.full(rows, numbers[pack.default_for(action) or ""], np.int32)
    open = np.ones(rows, bool)
    for rule in pack.rules:
        if is_for(pack, rule, subject, action):
            decides = open & holds_everywhere(rule.when, columns, pack, {"subject.type": subject, "action.name": action})
            made[decides] = numbers[rule.id]
            open &= ~decides
    return made


def holds_everywhere(condition: Condition, columns: Columns, pack: Pack, known: Mapping[str, str]) -> NDArray[np.bool_] | bool:
    """`reference.holds` over columns."""
    match condition:
        case Name(fact):
            values = pack.vocabulary.facts[fact].values
            made = columns[fact] == values.index(True)
            for value, named in pack.vocabulary.facts[fact].conditional.items():
                made = made | (columns[fact] == values.index(value)) & holds_everywhere(named, columns, pack, known)
            return made
        case Compare(Name(left), Literal(value), equal) if left in known:
            return (known[left] == value) is equal
        case Compare(Name(left), Literal(value), equal):
            return (columns[left] == pack.vocabulary.facts[left].values.index(value)) == equal
        case Compare(Name(left), Name(right), equal):
            words = {value: n for n, value in enumerate(pack.vocabulary.facts[left].values)}
            other = np.array([words[value] for value in pack.vocabulary.facts[right].values], np.int8)[columns[right]]
            return (columns[left] == other) == equal
        case Not(item):
            return np.logical_not(holds_everywhere(item, columns, pack, known))
        case And(items):
            return np.logical_and.reduce(np.broadcast_arrays(*(holds_everywhere(item, columns, pack, known) for item in items)))
        case Or(items):
            return np.logical_or.reduce(np.broadcast_arrays(*(holds_everywhere(item, columns, pack, known) for item in items)))
    raise AssertionError(condition)


def assert_rows_agree(pdp: Pdp, subject: str, action: str, columns: Columns, pack: Pack | None = None) -> None:
    """The tables and reference.py, situation by situation."""
    rules, pack = [outcome.rule for outcome in pdp.outcomes], pack or pdp.pack
    words = mentioned(pack)
    needed = {name: column for name, column in columns.items() if name in words}
    for situation, number in zip(situations(pdp.pack, needed), by_tables(pdp, subject, action, columns).tolist(), strict=True):
        assert rules[number] == (deciding_rule(pack, subject, action, situation) or ""), f"{subject}, {action}: {situation}"


def assert_columns_agree(pdp: Pdp, subject: str, action: str, columns: Columns) -> None:
    """The tables and the definition over columns."""
    different = np.flatnonzero(by_tables(pdp, subject, action, columns) != by_columns(pdp, subject, action, columns))
    if len(different):
        assert_rows_agree(pdp, subject, action, {name: column[different[:1]] for name, column in columns.items()})
        raise AssertionError("the definition over columns is not that of reference.py")


# --- tables and reference --------------------------------------------------------------------------------------------


def test_every_subject_type_and_action_has_a_slice() -> None:
    assert PDP.slices.keys() == {(subject, action) for subject in PDP.pack.vocabulary.subjects for action in PDP.pack.vocabulary.actions}


@every_slice(most=BY_ROWS)
def test_tables_and_reference_agree_on_the_whole_of_a_small_domain(subject: str, action: str) -> None:
    for columns in blocks(PDP, subject, action, 0, domain(PDP, subject, action)):
        assert_rows_agree(PDP, subject, action, columns, pack_for(subject, action))


@every_slice()
def test_the_definition_over_columns_is_the_reference(subject: str, action: str) -> None:
    columns = random_block(PDP, 200, seed=1)
    for situation, number in zip(situations(PDP.pack, columns), by_columns(PDP, subject, action, columns), strict=True):
        assert PDP.outcomes[number].rule == (deciding_rule(PDP.pack, subject, action, situation) or "")


@every_slice(BY_ROWS + 1, BY_COLUMNS)
def test_tables_and_definition_agree_on_the_whole_of_a_domain_of_up_to_ten_million(subject: str, action: str) -> None:
    for columns in blocks(PDP, subject, action, 0, domain(PDP, subject, action)):
        assert_columns_agree(PDP, subject, action, columns)


@every_slice(BY_ROWS + 1)
def test_tables_and_reference_agree_on_every_path_of_a_larger_domain(subject: str, action: str) -> None:
    pack = pack_for(subject, action)
    for situation, rule in path_situations(PDP, subject, action):
        assert rule == PDP.evaluate(subject, action, situation).rule == (deciding_rule(pack, subject, action, situation) or ""), situation


@every_slice(BY_COLUMNS + 1)
def test_tables_and_definition_agree_on_random_situations_of_a_domain_over_ten_million(subject: str, action: str) -> None:
    for seed in range(4):
        assert_columns_agree(PDP, subject, action, random_block(PDP, BLOCK, seed))


@pytest.mark.long
@every_slice(BY_ROWS + 1, BY_COLUMNS)
def test_tables_and_reference_agree_on_the_whole_of_a_domain_of_up_to_ten_million(subject: str, action: str) -> None:
    for columns in blocks(PDP, subject, action, 0, domain(PDP, subject, action)):
        assert_rows_agree(PDP, subject, action, columns, pack_for(subject, action))


@pytest.mark.long
@every_slice(BY_COLUMNS + 1, 2_000_000_000)
def test_tables_and_definition_agree_on_the_whole_of_a_domain_of_up_to_two_thousand_million(subject: str, action: str) -> None:
    for columns in blocks(PDP, subject, action, 0, domain(PDP, subject, action)):
        assert_columns_agree(PDP, subject, action, columns)


# --- Casbin ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node() -> Iterator[NodeCasbin]:
    with NodeCasbin() as process:
        yield process


@pytest.fixture(scope="module")
def python() -> PyCasbin:
    return PyCasbin(POLICIES)


def sample(subject: str, action: str, paths: int, at_random: int) -> list[dict[str, Value]]:
    """Situations of every rule that a slice can end in, then of some of its paths, then at random."""
    chance = random.Random(f"{subject} {action}")
    each = list(path_situations(PDP, subject, action, seed=2))
    chance.shuffle(each)
    first = {rule: situation for situation, rule in reversed(each)}
    chosen = [*first.values(), *(situation for situation, rule in islice(each, paths) if first[rule] is not situation)]
    return chosen + [random_values(PDP.pack, chance) for _ in range(at_random)]


def expected(pdp: Pdp, subject: str, action: str, situation: Situation) -> tuple[bool, str]:
    """What Casbin should say: a default of the pack is no line of its policy, and denies."""
    outcome = pdp.evaluate(subject, action, situation)
    assert outcome.rule == (deciding_rule(pdp.pack, subject, action, situation) or "")
    return outcome.permits, outcome.rule if outcome.rule in pdp.pack.by_id else ""


@every_slice()
def test_pycasbin_decides_alike_by_the_same_rule(python: PyCasbin, subject: str, action: str) -> None:
    for situation in sample(subject, action, paths=60, at_random=10):
        assert python.decide(objects_of(PDP.pack, subject, action, situation)) == expected(PDP, subject, action, situation), situation


@every_slice()
def test_node_casbin_decides_alike_by_the_same_rule(node: NodeCasbin, subject: str, action: str) -> None:
    several = sample(subject, action, paths=60, at_random=10)
    answers = node.decide(POLICIES, (objects_of(PDP.pack, subject, action, situation) for situation in several))
    for situation, answer in zip(several, answers, strict=True):
        assert answer == expected(PDP, subject, action, situation), situation


@pytest.mark.long
@every_slice()
def test_both_casbins_decide_alike_on_every_path(python: PyCasbin, node: NodeCasbin, subject: str, action: str) -> None:
    for situation in sample(subject, action, paths=1_000_000, at_random=200):
        objects = objects_of(PDP.pack, subject, action, situation)
        assert python.decide(objects) == node.decide(POLICIES, [objects])[0] == expected(PDP, subject, action, situation), situation


# --- random packs ----------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(packs())
def test_tables_and_reference_agree_on_random_packs(files: dict[str, bytes]) -> None:
    pdp = Pdp(parse_pack(files))
    for subject, action in distinct(pdp):
        size = domain(pdp, subject, action)
        several = blocks(pdp, subject, action, 0, size) if size <= 2000 else [random_block(pdp, 1000, seed=size)]
        for columns in several:
            assert_rows_agree(pdp, subject, action, columns)
            assert_columns_agree(pdp, subject, action, columns)


@settings(max_examples=60)
@given(packs())
def test_both_casbins_decide_alike_on_random_packs(node: NodeCasbin, files: dict[str, bytes]) -> None:
    pdp = Pdp(parse_pack(files))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model.conf", "rules.csv"):
            (Path(folder) / name).write_bytes(files[name])
        python = PyCasbin(folder)
        for subject, action in distinct(pdp):
            several = [situation for situation, _ in islice(path_situations(pdp, subject, action), 8)]
            several += [random_values(pdp.pack, random.Random(n)) for n in range(2)]
            objects = [objects_of(pdp.pack, subject, action, situation) for situation in several]
            assert [python.decide(one) for one in objects] == node.decide(folder, objects) == [expected(pdp, subject, action, one) for one in several]
