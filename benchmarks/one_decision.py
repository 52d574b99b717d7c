"""What does one decision cost in process, and what does it cost elsewhere?

Size: the French pack, the slice (professional, read); 100,000 different situations or requests, shuffled for each of 20 blocks (fewer for slow engines: the
table says how many). Baseline: the same rules as a function of plain Python, written by hand (`plain.rule_of` from facts, `plain.decide` from a request).
Beside it: pycasbin in its set-ups and cedarpy, on the same rules and the same facts. All are asserted equal on a common sample before anything is timed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import peers, plain
from benchmarks.inputs import ACTION, AT, SEED, SUBJECT, World, as_request, make_world, places, shuffled, situations
from benchmarks.measure import Answer, Bar, Contender, Inputs, Plot, Table, shuffled_blocks, time_in_turns, timing_table
from benchmarks.packs import FRENCH
from engine.consent.directives import Directive, parse_directives
from engine.consent.fold import Record
from engine.evaluator.tables import Tables
from engine.pdp import Pdp, load_pdp
from engine.request import Request

PACKED, OBJECT, MAPPING = "Habilis, from packed facts", "Habilis, from a facts object", "Habilis, from a mapping of facts"
REQUEST = "Habilis, from a request and a folded record"
NEW_RECORD = "Habilis, from a request and a record just folded"
FOLDING = "Habilis, from a request and directives to fold"
PLAIN_OBJECT, GENERATED, PLAIN_REQUEST = "plain Python, from a facts object", "plain Python, generated `if`s", "plain Python, from a request and a record"
BASELINE = "the same rules as a hand-written function of plain Python"
CASBIN = {
    "pycasbin, eval of each rule, the pack as it stands": peers.pycasbin_as_it_stands,
    "pycasbin, eval of each rule, this slice's lines only": peers.pycasbin_eval,
    "pycasbin, one matcher with a function, the pack as it stands": peers.pycasbin_function_as_it_stands,
    "pycasbin, one matcher with a function, this slice's lines only": peers.pycasbin_function,
    "pycasbin, FastEnforcer with a function": peers.pycasbin_fast,
}
CEDAR, CEDAR_TEXT, CEDAR_LISTS = "cedarpy, context a dict", "cedarpy, context as JSON text", "cedarpy, lists of 100, a decision"


def run(quick: bool) -> Answer:
    """Time everybody in turns, each from what it takes."""
    pdp = load_pdp(FRENCH)
    blocks, size = (5, 10_000) if quick else (20, 100_000)
    world = make_world(pdp, size)
    records = world.records(pdp)
    codes = situations(pdp.runner(SUBJECT, ACTION).tables, _codes(pdp, world, records), size).tolist()  # type: ignore[union-attr]
    orders = list(shuffled(size, blocks))
    timings = time_in_turns(_from_facts(pdp, codes, orders), blocks)
    timings |= time_in_turns(_from_requests(pdp, world, records, orders), blocks)
    timings |= time_in_turns(_peers(pdp, codes, orders, quick), blocks)
    over = Table("Times Habilis", ("what", "from a facts object", "from packed facts"))
    for name in (PLAIN_OBJECT, GENERATED, *CASBIN, CEDAR, CEDAR_TEXT, CEDAR_LISTS):
        over.rows.append((name, timings[name].micros / timings[OBJECT].micros, timings[name].micros / timings[PACKED].micros))
    table = timing_table("One decision", sorted(timings.values(), key=lambda one: one.micros))
    size_of = f"the French pack, slice ({SUBJECT}, {ACTION}), {size:,} different inputs, seed {SEED}"
    made = Answer("one_decision", "What does one decision cost in process?", size_of, BASELINE, [table])
    made.tables.append(over)
    pycasbin = {name: timings[name].micros for name in CASBIN}
    stands, _, function, *_ = CASBIN
    cedar = min(timings[CEDAR].micros, timings[CEDAR_TEXT].micros)
    made.bars = [
        Bar("one decision from packed facts", timings[PACKED].micros, 0.3, "µs"),
        Bar("one decision from a facts object", timings[OBJECT].micros, 1, "µs"),
        Bar("one decision from a request and a folded record", timings[REQUEST].micros, 3, "µs"),
        Bar("pycasbin at its fastest over Habilis, both from a facts object", min(pycasbin.values()) / timings[OBJECT].micros, 200, "times", True),
        Bar("pycasbin at its fastest over Habilis from packed facts", min(pycasbin.values()) / timings[PACKED].micros, 200, "times", True),
        *(Bar(f"{name}, over Habilis, both from facts objects", pycasbin[name] / timings[OBJECT].micros, 200, "times", True) for name in (stands, function)),
        Bar("cedarpy at its fastest, one at a time, over Habilis, both from a facts object", cedar / timings[OBJECT].micros, 80, "times", True),
    ]
    made.notes = [
        "A facts object is a named tuple with one attribute per fact of the slice: the same for Habilis, plain Python and pycasbin's functions.",
        "FastEnforcer keeps lines in a set, without order, and Cedar knows none: both get a translation that says the decision and not which rule made it.",
    ]
    made.plots = [Plot("One decision, French pack", "", "µs of processor time", {name: one.micros for name, one in timings.items()})]
    return made


def _codes(pdp: Pdp, world: World, records: list[Record]) -> list[int]:
    """The situations of all requests. Asserts that plain Python finds the same rules."""
    lists = plain.Lists(pdp)
    patients = {id(record): plain.Patient(record) for record in records}
    answers = [pdp.decide(*pair) for pair in world.pairs(records, range(len(world.texts)))]
    for one in answers:
        found = plain.decide(one.request, patients[id(one.record)], lists)
        assert one.rule == found, f"plain.decide says {found}, the pack {one.rule}, for {one.request}: has rules.csv changed?"
    return [one.code for one in answers]


def facts_objects(tables: Tables, codes: list[int]) -> list[Any]:
    """Packed situations as facts objects."""
    columns = places(tables, np.array(codes))
    words = {name for name, values in tables.values.items() if values[:2] != (False, True)}
    values = (column.tolist() if name in words else column.astype(bool).tolist() for name, column in columns.items())
    return list(map(plain.facts_class(tables), *values))


def _from_facts(pdp: Pdp, codes: list[int], orders: list[list[int]]) -> list[Contender]:
    runner = pdp.runner(SUBJECT, ACTION)
    assert runner is not None
    tables, evaluate, evaluate_places, pack = runner.tables, runner.evaluate, runner.tables.evaluate_places, runner.tables.pack
    facts, generated = facts_objects(tables, codes), peers.python_function(pdp)
    for code, one in zip(codes, facts, strict=True):
        rule = pdp.outcomes[evaluate(code)].rule
        assert evaluate_places(one) == evaluate(code) and plain.rule_of(one) == generated(one) == rule, (one, rule)
    several = len(codes) // 10
    mappings = [tables.unpack(code) for code in codes[:several]]
    few = [[n for n in order if n < several] for order in orders]
    objects = shuffled_blocks(facts, orders)
    return [
        Contender(PACKED, evaluate, shuffled_blocks(codes, orders)),
        Contender(OBJECT, evaluate_places, objects),
        Contender(MAPPING, lambda one: evaluate(pack(one)), shuffled_blocks(mappings, few)),
        Contender(PLAIN_OBJECT, plain.rule_of, objects),
        Contender(GENERATED, generated, objects),
    ]


def _from_requests(pdp: Pdp, world: World, records: list[Record], orders: list[list[int]]) -> list[Contender]:
    lists = plain.Lists(pdp)
    patients = {id(record): plain.Patient(record) for record in records}
    few = len(orders[0]) // 20

    def pairs(block: int) -> list[tuple[Request, Record]]:
        return world.pairs(records, orders[block])

    def plainly(block: int) -> list[tuple[Request, plain.Patient]]:
        return [(request, patients[id(record)]) for request, record in pairs(block)]

    said = [parse_directives(some, pdp.pack.vocabulary) for some in world.directives]

    def unfolded(block: int) -> list[tuple[Request, tuple[Directive, ...]]]:
        order = orders[block][:few]
        return [(as_request(world.texts[n]), said[world.patients[n]]) for n in order]

    def just_folded(block: int) -> list[tuple[Request, Record]]:
        return [(request, pdp.fold(directives, AT)) for request, directives in unfolded(block)]

    return [
        Contender(REQUEST, pdp.decide, pairs, star=True),
        Contender(NEW_RECORD, pdp.decide, just_folded, star=True),
        Contender(FOLDING, lambda request, directives: pdp.decide(request, pdp.fold(directives, AT)), unfolded, star=True),
        Contender(PLAIN_REQUEST, lambda request, patient: plain.decide(request, patient, lists), plainly, star=True),
    ]


def _peers(pdp: Pdp, codes: list[int], orders: list[list[int]], quick: bool) -> list[Contender]:
    """The others, from a sample of the same situations; asserted equal to the tables on 200 of them."""
    tables = pdp.runner(SUBJECT, ACTION).tables  # type: ignore[union-attr]
    sample = codes[:2000]
    permits = [pdp.outcomes[tables.evaluate(code)].permits for code in sample]
    situations = [tables.unpack(code) for code in sample]
    facts = facts_objects(tables, sample)
    made = []
    for name, build in CASBIN.items():
        enforcer: Any = build(pdp)
        inputs = _inputs_of(name, situations, facts, pdp)
        calls = (8 if quick else 100) if "eval" in name else (40 if quick else 500)
        enforce = enforcer.enforce
        assert [enforce(*one) for one in inputs[:200]] == permits[:200], name
        made.append(Contender(name, lambda one, enforce=enforce: enforce(*one), _some(inputs, orders, calls)))
    cedar = peers.Cedar(pdp)
    requests = [cedar.request(one) for one in situations]
    ready = [cedar.ready(one) for one in requests]
    assert [cedar.decide(one) for one in requests[:200]] == [cedar.decide(one) for one in ready[:200]] == cedar.decide_many(ready[:200]) == permits[:200]
    lists = [ready[start : start + 100] for start in range(0, len(ready), 100)]
    calls = 100 if quick else 1000
    return [
        *made,
        Contender(CEDAR, cedar.decide, _some(requests, orders, calls)),
        Contender(CEDAR_TEXT, cedar.decide, _some(ready, orders, calls)),
        Contender(CEDAR_LISTS, cedar.decide_many, lambda block: lists[block % 10 :: 10], each=100),
    ]


def _some(items: list[Any], orders: list[list[int]], number: int) -> Inputs:
    """`number` of the items for each block, in that block's order."""
    return lambda block: [items[n] for n in orders[block] if n < len(items)][:number]


def _inputs_of(name: str, situations: list[Mapping[str, Any]], facts: list[Any], pdp: Pdp) -> list[tuple[Any, ...]]:
    """What an enforcer of this set-up is asked with."""
    if "eval" in name:
        return [peers.casbin_objects(one, pdp.pack) for one in situations]
    if "as it stands" in name:
        return [(peers.casbin_objects(one, pdp.pack)[0], peers.casbin_objects(one, pdp.pack)[1], fact) for one, fact in zip(situations, facts, strict=True)]
    return [(SUBJECT, ACTION, one) for one in facts]
