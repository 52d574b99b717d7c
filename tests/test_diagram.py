"""Decision diagrams and tables against brute force: every operation keeps the function it claims, and the form stays reduced and canonical."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_packs import write_pack

from engine.errors import TooLarge
from engine.evaluator.diagram import HOLDS, NONE, WIDE, BudgetExceeded, Store
from engine.evaluator.slices import FIRST_OUTCOME, Slice, compact, compile_slices, copy_into, outcomes_of
from engine.evaluator.tables import build_tables
from engine.pack import parse_pack
from engine.pdp import Pdp
from engine.vocabulary import Fact, Given, Path

LEAVES = (-3, -4, -5)
Function = dict[tuple[int, ...], int]
"""The leaf of each situation: a function written out."""


# --- functions written out -------------------------------------------------------------------------------------------


@st.composite
def stores(draw: st.DrawFn) -> Store:
    """A store over two to five variables of two to four values, or one of them wide and fewer others, in any order."""
    narrow = st.integers(2, 4)
    wide = st.tuples(st.just(WIDE + 2), st.integers(2, 3), st.integers(2, 3))
    store = Store(draw(st.one_of(st.lists(narrow, min_size=2, max_size=5), st.lists(narrow, min_size=2, max_size=5), wide)))
    store.order = draw(st.permutations(store.order))
    store.level = [store.order.index(variable) for variable in range(len(store.sizes))]
    return store


@st.composite
def functions(draw: st.DrawFn, store: Store, leaves: Sequence[int]) -> Function:
    """A function that depends on some of the variables only, so that there is something to reduce."""
    used = draw(st.sets(st.sampled_from(range(len(store.sizes)))))
    among = list(product(*(range(size) if variable in used else [0] for variable, size in enumerate(store.sizes))))
    leaf = dict(zip(among, draw(st.lists(st.sampled_from(leaves), min_size=len(among), max_size=len(among))), strict=True))
    return {values: leaf[tuple(n if variable in used else 0 for variable, n in enumerate(values))] for values in situations(store)}


def situations(store: Store) -> list[tuple[int, ...]]:
    return list(product(*map(range, store.sizes)))


def built(store: Store, function: Function) -> int:
    """The diagram of a function written out, node by node."""

    def under(place: int, values: dict[int, int]) -> int:
        if place == len(store.order):
            return function[tuple(values[variable] for variable in range(len(store.sizes)))]
        variable = store.order[place]
        children = {n: under(place + 1, {**values, variable: n}) for n in range(store.sizes[variable])}
        return store.node(variable, children, children.pop(store.sizes[variable] - 1))

    return under(0, {})


def written(store: Store, root: int) -> Function:
    return {values: store.value(root, values) for values in situations(store)}


def assert_reduced(store: Store, *roots: int) -> None:
    """No node tests for nothing, none stands twice, and each tests a variable above those of its children."""
    nodes = [store.nodes[n] for n in store.reachable(*roots)]
    assert len(set(nodes)) == len(nodes)
    for node in nodes:
        assert node.others and all(child != node.default for _, child in node.others)
        assert [value for value, _ in node.others] == sorted({value for value, _ in node.others})
        assert all(0 <= value < store.sizes[node.variable] - 1 for value, _ in node.others)
        for child in (node.default, *(child for _, child in node.others)):
            assert child < 0 or store.level[store.nodes[child].variable] > store.level[node.variable]


def combine(a: int, b: int) -> int:
    return a * 10 + b


# --- operations ------------------------------------------------------------------------------------------------------


def test_the_same_function_is_the_same_number() -> None:
    store = Store([2, 3])
    function = {values: LEAVES[(values[0] + values[1]) % 3] for values in situations(store)}
    assert built(store, function) == built(store, dict(reversed(function.items())))
    assert built(store, dict.fromkeys(function, -3)) == -3


OPERATIONS: dict[str, tuple[Callable[[Store, int, int], int], Callable[[int, int], int], Sequence[int], Sequence[int]]] = {
    "both": (Store.both, lambda a, b: b if a == HOLDS else NONE, (HOLDS, NONE), (HOLDS, NONE, *LEAVES)),
    "first": (Store.first, lambda a, b: b if a == NONE else a, (NONE, *LEAVES), (NONE, *LEAVES)),
    "unless": (Store.unless, lambda a, b: b if a == NONE else NONE, (HOLDS, NONE), (NONE, *LEAVES)),
    "negate": (lambda store, a, _: store.negate(a), lambda a, _: HOLDS if a == NONE else NONE, (HOLDS, NONE), (NONE,)),
    "pairs": (lambda store, a, b: store.pairs(a, b, combine, "combine"), combine, LEAVES, LEAVES),
    "map_leaves": (lambda store, a, _: store.map_leaves(a, lambda leaf: leaf // 2), lambda a, _: a // 2, LEAVES, (NONE,)),
}


@pytest.mark.parametrize("name", OPERATIONS)
@given(st.data())
def test_an_operation_gives_the_function_it_says(name: str, data: st.DataObject) -> None:
    operation, meaning, left, right = OPERATIONS[name]
    store = data.draw(stores())
    a, b = data.draw(functions(store, left)), data.draw(functions(store, right))
    made = operation(store, built(store, a), built(store, b))
    assert written(store, made) == {values: meaning(a[values], b[values]) for values in a}
    assert made == built(store, written(store, made)), "the same function has another number"
    assert_reduced(store, made)


@given(st.data())
def test_a_test_holds_for_its_values_alone(data: st.DataObject) -> None:
    store = data.draw(stores())
    variable = data.draw(st.integers(0, len(store.sizes) - 1))
    wanted = data.draw(st.sets(st.integers(0, store.sizes[variable] - 1)))
    made = store.test(variable, wanted)
    assert written(store, made) == {values: HOLDS if values[variable] in wanted else NONE for values in situations(store)}
    assert_reduced(store, made)


@given(st.data())
def test_a_restriction_is_the_function_left(data: st.DataObject) -> None:
    store = data.draw(stores())
    function = data.draw(functions(store, LEAVES))
    fixed = data.draw(st.dictionaries(st.integers(0, len(store.sizes) - 1), st.integers(0, 1)))
    made = store.restrict(built(store, function), fixed)
    assert written(store, made) == {values: function[tuple(fixed.get(v, n) for v, n in enumerate(values))] for values in function}
    assert not set(store.support(made)) & fixed.keys()
    assert_reduced(store, made)


@given(st.data())
def test_counts_are_those_of_the_situations(data: st.DataObject) -> None:
    store = data.draw(stores())
    function = data.draw(functions(store, LEAVES))
    root = built(store, function)
    counts = store.count(root, range(len(store.sizes)))
    assert counts == {leaf: list(function.values()).count(leaf) for leaf in store.leaves(root)}
    support = store.support(root)
    fewer = {tuple(values[v] for v in support): leaf for values, leaf in function.items()}
    assert store.count(root, support) == {leaf: list(fewer.values()).count(leaf) for leaf in store.leaves(root)}
    assert store.leaves(root) == set(function.values())


@given(st.data())
def test_support_is_what_the_function_depends_on(data: st.DataObject) -> None:
    store = data.draw(stores())
    function = data.draw(functions(store, LEAVES))
    matter = set()
    for values, leaf in function.items():
        matter |= {v for v, size in enumerate(store.sizes) for n in range(size) if function[(*values[:v], n, *values[v + 1 :])] != leaf}
    assert store.support(built(store, function)) == [variable for variable in store.order if variable in matter]


@given(st.data())
def test_a_situation_found_reaches_the_leaf_and_none_is_found_where_none_is(data: st.DataObject) -> None:
    store = data.draw(stores())
    function = data.draw(functions(store, LEAVES))
    root = built(store, function)
    for leaf in LEAVES:
        found = store.find(root, lambda one, leaf=leaf: one == leaf)
        assert (found is None) == (leaf not in function.values())
        if found is not None:
            assert {leaf} == {one for values, one in function.items() if all(values[v] == n for v, n in found.items())}


@given(st.data())
def test_paths_reach_every_leaf_by_every_edge(data: st.DataObject) -> None:
    store = data.draw(stores())
    function = data.draw(functions(store, LEAVES))
    root = built(store, function)
    edges = set()
    for taken, leaf in store.paths(root):
        assert {leaf} == {one for values, one in function.items() if all(values[v] == n for v, n in taken.items())}
        at = root
        while at >= 0:
            child = store.nodes[at].child(taken[store.nodes[at].variable])
            edges.add((at, child))
            at = child
    assert edges == {(n, child) for n in store.reachable(root) for child in store.children(n)}


# --- order -----------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.data())
def test_sifting_keeps_functions_and_numbers_and_never_grows(data: st.DataObject) -> None:
    store = data.draw(stores())
    several = [data.draw(functions(store, LEAVES[: data.draw(st.integers(2, 3))])) for _ in range(data.draw(st.integers(1, 3)))]
    roots = [built(store, function) for function in several]
    before = len(store.reachable(*roots))
    store.sift(*roots)
    assert [written(store, root) for root in roots] == several
    assert len(store.reachable(*roots)) <= before
    assert sorted(store.order) == list(range(len(store.sizes))) and all(store.level[v] == n for n, v in enumerate(store.order))
    assert_reduced(store, *roots)
    for n in store.reachable(*roots):
        assert built(store, written(store, n)) == n, "a function has another number than before"


def test_sifting_finds_the_order_that_brings_pairs_together() -> None:
    half = 7
    store = Store([2] * 2 * half)
    root = NONE
    for n in range(half):
        root = store.first(root, store.both(store.test(n, [1]), store.test(half + n, [1])))
    store.sift(root)
    assert len(store.reachable(root)) == 2 * half


@given(st.data())
def test_what_is_kept_while_others_are_forgotten_keeps_its_number(data: st.DataObject) -> None:
    store = data.draw(stores())
    several = [data.draw(functions(store, LEAVES)) for _ in range(3)]
    roots = [built(store, function) for function in several]
    both = written(store, store.pairs(roots[0], roots[1], combine, "combine"))
    assert store.forget_all_but(*roots[:2]) == set(store.reachable(*roots[:2]))
    assert [written(store, root) for root in roots[:2]] == several[:2]
    assert [built(store, function) for function in several[:2]] == roots[:2]
    assert written(store, store.pairs(roots[0], roots[1], combine, "combine")) == both
    again = built(store, several[2])
    assert written(store, again) == several[2]
    same = {values: leaf if leaf == several[2][values] else NONE for values, leaf in several[0].items()}
    assert store.pairs(roots[0], again, lambda a, b: a if a == b else NONE, "same") == built(store, same)
    assert_reduced(store, *roots[:2], again)


@given(st.data())
def test_a_copy_into_another_order_is_the_same_function(data: st.DataObject) -> None:
    store = data.draw(stores())
    function = data.draw(functions(store, (NONE, HOLDS, *LEAVES)))
    other = Store(store.sizes)
    other.order = data.draw(st.permutations(store.order))
    other.level = [other.order.index(variable) for variable in range(len(store.sizes))]
    (root,) = copy_into(other, store, {v: v for v in store.order}, [built(store, function)])
    assert root == built(other, function)
    assert_reduced(other, root)


# --- too large -------------------------------------------------------------------------------------------------------


def test_a_store_over_its_budget_raises() -> None:
    store = Store([2] * 10, budget=50)
    with pytest.raises(BudgetExceeded):
        built(store, {values: -3 - hash(values) % 3 for values in situations(store)})


def test_sifting_a_diagram_that_just_fits_the_budget_does_not_raise() -> None:
    half = 5
    store = Store([2] * 2 * half)
    root = NONE
    for n in range(half):
        root = store.first(root, store.both(store.test(n, [1]), store.test(half + n, [1])))
    facts = tuple(fact(f"context.f{n}") for n in range(2 * half))
    small, (root,) = compact(store, facts, root)
    small.budget = len(small.nodes)
    small.sift(root)
    assert len(small.reachable(root)) == 2 * half


def adversarial(rules: int, booleans: int, seed: int) -> dict[str, bytes]:
    """A pack of rules with three random literals each."""
    chance = random.Random(seed)
    lines = []
    for n in range(rules):
        literals = [("!" if chance.random() < 0.5 else "") + f"r.context.f{v}" for v in chance.sample(range(booleans), 3)]
        lines.append((f"rule-{n}", "*", "*", " && ".join(literals), chance.choice(["allow", "deny"])))
    facts = {f"context.f{v}": {"form": "given", "of": f"context.f{v}", "absent": False} for v in range(booleans)}
    return write_pack(facts=facts, rules=lines)


def test_a_hundred_random_rules_over_thirty_facts_fail_cleanly() -> None:
    pack = parse_pack(adversarial(100, 30, seed=1))
    with pytest.raises(TooLarge) as caught:
        Pdp(pack)
    (found,) = caught.value.diagnostics
    assert found.code == "diagram-too-large" and "200,000 nodes for user, read" in found.message
    named = [rule.id for rule in pack.rules if f"`{rule.id}`" in found.message]
    assert len(named) == 2 and found.line == pack.by_id[named[0]].line and pack.by_id[named[0]].text == found.text
    assert sum(f"`{name}`" in found.help for name in pack.vocabulary.facts) == 5


def test_a_slice_of_more_facts_than_diagrams_are_deep_fails_cleanly() -> None:
    names = [f"f{n:04}" for n in range(2000)]
    facts = {f"context.{name}": {"form": "given", "of": f"context.{name}", "absent": False} for name in names}
    for number in (301, 2000):
        pack = parse_pack(write_pack(facts=facts, rules=[("one", "*", "*", " || ".join(f"r.context.{name}" for name in names[:number]), "allow")]))
        with pytest.raises(TooLarge, match=f"the rules for user, read speak of {number} facts, more than 300"):
            Pdp(pack)


def test_facts_that_cancel_out_cost_nothing() -> None:
    names = [f"f{n:04}" for n in range(299)]
    facts = {f"context.{name}": {"form": "given", "of": f"context.{name}", "absent": False} for name in [*names, "last"]}
    cancelled = " || ".join(f"r.context.{name} && !r.context.{name}" for name in names)
    pdp = Pdp(parse_pack(write_pack(facts=facts, rules=[("one", "*", "*", f"r.context.last || {cancelled}", "allow")])))
    assert list(pdp.runner("user", "read").tables.fields) == ["context.last"]


def test_more_facts_than_a_machine_word_holds_fail_cleanly() -> None:
    names = [f"f{n:02}" for n in range(70)]
    facts = {f"context.{name}": {"form": "given", "of": f"context.{name}", "absent": False} for name in names}

    def asking(number: int) -> Pdp:
        return Pdp(parse_pack(write_pack(facts=facts, rules=[("one", "*", "*", " && ".join(f"r.context.{name}" for name in names[:number]), "allow")])))

    assert asking(62).evaluate("user", "read", {f"context.{name}": True for name in names}).rule == "one"
    with pytest.raises(TooLarge, match="user, read depends on 63 bits of facts, more than one machine word holds"):
        asking(63)


def equal_words(number: int) -> dict[str, bytes]:
    """A pack whose one rule compares two facts of the same words, in opposite orders."""
    words = [f"word-{n}" for n in range(number)]
    facts = {name: {"form": "given", "of": name, "values": known, "absent": words[0]} for name, known in (("context.a", words), ("context.b", words[::-1]))}
    rules = [("same", "*", "*", "r.context.a == r.context.b", "allow"), ("itself", "*", "*", "r.context.a == r.context.a", "deny")]
    return write_pack(facts=facts, rules=rules)


def test_two_facts_of_many_words_are_compared_word_by_word() -> None:
    pdp = Pdp(parse_pack(equal_words(300)))
    assert pdp.slices["user", "read"].size == 301
    for a, b in product(range(0, 300, 7), repeat=2):
        assert pdp.evaluate("user", "read", {"context.a": f"word-{a}", "context.b": f"word-{b}"}).rule == ("same" if a == b else "itself")


def test_two_facts_of_too_many_words_fail_cleanly() -> None:
    with pytest.raises(TooLarge, match=r"user, read depends on facts of so many values that a table has 163,[0-9,]* entries, more than 67,108,864"):
        Pdp(parse_pack(equal_words(10_000)))


# --- tables ----------------------------------------------------------------------------------------------------------


def fact(name: str, *values: str) -> Fact:
    known = values or (False, True)
    return Fact(name, Given(Path(name, tuple(name.split(".")))), known, known[0], known[0])


@given(st.data())
def test_tables_are_the_diagram_and_patterns_of_no_value_give_the_default(data: st.DataObject) -> None:
    store = data.draw(stores())
    facts = tuple(fact(f"context.f{n}", *(f"word-{place}" for place in range(size if size > 2 else 0))) for n, size in enumerate(store.sizes))
    root = built(store, data.draw(functions(store, [FIRST_OUTCOME - n for n in range(3)])))
    tables = build_tables(Slice(facts, store, root, ()), 7)
    bits = sum(width for _, width in tables.fields.values())
    codes = np.arange(1 << bits)
    assert tables.fields.keys() == {facts[v].name for v in store.support(root)}
    for code, number in zip(codes.tolist(), tables.evaluate_many(codes).tolist(), strict=True):
        places = {name: code >> shift & (1 << width) - 1 for name, (shift, width) in tables.fields.items()}
        assert tables.evaluate(code) == number
        if all(n < len(tables.values[name]) for name, n in places.items()):
            assert number == FIRST_OUTCOME - store.value(root, [places.get(one.name, 0) for one in facts])
            assert tables.pack(tables.unpack(code)) == code
            assert tables.evaluate_places(list(places.values())) == number
        else:
            assert number == 7


def test_tables_of_many_digits_are_the_diagram() -> None:
    chance = random.Random(3)
    store = Store([2] * 60)
    root = -9
    for n in range(12):
        path = -3 - n % 5
        for variable in sorted(chance.sample(range(60), 6), reverse=True):
            path = store.node(variable, {0: path}, NONE) if chance.random() < 0.5 else store.node(variable, {0: NONE}, path)
        root = store.first(path, root)
    facts = tuple(fact(f"context.f{n:02}") for n in range(60))
    tables = build_tables(Slice(facts, store, root, ()), 0)
    assert len(tables.digits) > 4
    names = list(tables.fields)
    for _ in range(2000):
        values = [int(chance.random() < 0.5) for _ in facts]
        code = tables.pack({one.name: bool(n) for one, n in zip(facts, values, strict=True)})
        expected = FIRST_OUTCOME - store.value(root, values)
        assert tables.evaluate(code) == tables.evaluate_many(np.array([code]))[0] == expected
        assert tables.evaluate_places([values[int(name[-2:])] for name in names]) == expected


def test_no_bit_pattern_of_a_pack_without_a_default_opens_anything() -> None:
    facts = {f"context.{name}": {"form": "given", "of": f"context.{name}", "values": ["a", "b", "c"], "absent": "a", "unknown": "b"} for name in "xyz"}
    rules = [("one", "*", "*", "r.context.x != 'a' && r.context.y != 'b'", "allow"), ("two", "*", "*", "r.context.z == 'c' && r.context.x != 'a'", "allow")]
    pack = parse_pack(write_pack(facts=facts, rules=rules, default=None))
    (slice, *_) = compile_slices(pack).values()
    nothing = outcomes_of(pack)[-1].number
    tables = build_tables(slice, nothing)
    for code in range(1 << sum(width for _, width in tables.fields.values())):
        if any(code >> shift & 3 == 3 for shift, _ in tables.fields.values()):
            assert tables.evaluate(code) == nothing
