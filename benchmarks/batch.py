"""How many decisions a second does one core make when many are asked at once?

Size: the French pack, slice (professional, read); 1,000,000 different situations, shuffled for each of 20 blocks; lists of 10, 100 and 500 documents of one
patient, 20,000 decisions a block. Baseline: plain Python over the same facts objects, and `plain.decide` over the same documents; beside single decisions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import plain
from benchmarks.inputs import ACTION, AT, SUBJECT, World, as_request, make_world, places, situations
from benchmarks.measure import Answer, Bar, Contender, Table, Timing, digits, time_in_turns
from benchmarks.one_decision import BASELINE, facts_objects
from benchmarks.packs import FRENCH
from engine.consent.fold import Record
from engine.pdp import Pdp, load_pdp
from engine.request import Request

PACKED, COLUMNS, WIDE, SCALAR, PLAIN = (
    "NumPy, from packed facts", "NumPy, from columns of facts (1 byte each)", "NumPy, from columns of facts (8 bytes each)",
    "one by one, from packed facts", "plain Python, from facts objects",
)  # fmt: skip
LENGTHS = (10, 100, 500)


def run(quick: bool) -> Answer:
    """NumPy on whole arrays, then lists of documents, each beside one by one and plain Python."""
    pdp = load_pdp(FRENCH)
    blocks, many, asked = (5, 200_000, 2_000) if quick else (20, 1_000_000, 20_000)
    world = make_world(pdp, 10_000)
    records = world.records(pdp)
    arrays = time_in_turns(_arrays(pdp, world, records, many, blocks), blocks)
    lists = time_in_turns(_lists(pdp, world, records, asked), blocks)
    size = f"the French pack, slice ({SUBJECT}, {ACTION}); {many:,} situations; lists of documents, {asked:,} decisions a block"
    made = Answer("batch", "How many decisions a second does one core make when many are asked at once?", size, BASELINE)
    made.tables = [_table("Many situations at once", arrays.values()), _table("Lists of documents of one patient", lists.values())]
    made.bars = [
        Bar("many at once, from packed facts", 1 / arrays[PACKED].micros, 50, "million a second", True),
        Bar("many at once, from columns of facts", 1 / arrays[COLUMNS].micros, 5, "million a second", True),
    ]
    return made


def _table(title: str, timings: Any) -> Table:
    columns = ("what", "a second", "ns a decision", "quartiles", "decisions a block", "blocks", "processor")
    made = Table(title, columns)
    for t in timings:
        assert isinstance(t, Timing)
        row = (t.name, 1e6 / t.micros, t.micros * 1000, f"{digits(t.low * 1000)} to {digits(t.high * 1000)}", t.decisions, t.blocks, f"{t.share:.0%}")
        made.rows.append(row)
    return made


def _arrays(pdp: Pdp, world: World, records: list[Record], many: int, blocks: int) -> list[Contender]:
    runner = pdp.runner(SUBJECT, ACTION)
    assert runner is not None
    tables = runner.tables
    codes = situations(tables, [pdp.decide(*pair).code for pair in world.pairs(records, range(len(world.texts)))], many)
    columns = places(tables, codes)
    few = codes[: many // 10].tolist()
    facts = facts_objects(tables, few)
    numbers = tables.evaluate_many(codes)
    assert (numbers == tables.evaluate_many(tables.pack_columns(columns))).all()
    assert [runner.evaluate(code) for code in few] == numbers[: len(few)].tolist()
    assert [plain.rule_of(one) for one in facts] == [pdp.outcomes[n].rule for n in numbers[: len(few)]]
    orders = [np.random.default_rng(block).permutation(many) for block in range(blocks)]

    def shuffled_columns(block: int, kind: type) -> list[dict[str, Any]]:
        return [{name: column[orders[block]].astype(kind) for name, column in columns.items()}]

    return [
        Contender(PACKED, tables.evaluate_many, lambda block: [codes[orders[block]]], each=many),
        Contender(COLUMNS, lambda some: tables.evaluate_many(tables.pack_columns(some)), lambda block: shuffled_columns(block, np.int8), each=many),
        Contender(WIDE, lambda some: tables.evaluate_many(tables.pack_columns(some)), lambda block: shuffled_columns(block, np.int64), each=many),
        Contender(SCALAR, runner.evaluate, lambda block: [few[n] for n in orders[block] if n < len(few)]),
        Contender(PLAIN, plain.rule_of, lambda block: [facts[n] for n in orders[block] if n < len(facts)]),
    ]


def _lists(pdp: Pdp, world: World, records: list[Record], asked: int) -> list[Contender]:
    """Lists of documents of one patient, decoded anew for every block."""
    lists = plain.Lists(pdp)
    patients = [plain.Patient(record) for record in records]

    def questions(block: int, length: int) -> list[tuple[Any, ...]]:
        made = []
        for n in range(asked // length):
            start = (block * asked + n * length) % (len(world.texts) - length)
            several = [as_request(text) for text in world.texts[start : start + length]]
            first, owner = several[0], world.patients[start]
            made.append((first.subject, first.action, [one.resource for one in several], first.context, records[owner], patients[owner]))
        return made

    def together(one: tuple[Any, ...]) -> Any:
        return pdp.decide_many(*one[:5])

    def each_read(one: tuple[Any, ...]) -> Any:
        return [answer.permitted for answer in pdp.decide_many(*one[:5])]

    def one_by_one(one: tuple[Any, ...]) -> Any:
        subject, action, resources, context, record, _ = one
        return [pdp.decide(Request(subject, action, resource, context), record) for resource in resources]

    def plainly(one: tuple[Any, ...]) -> Any:
        subject, action, resources, context, _, patient = one
        return [plain.decide(Request(subject, action, resource, context), patient, lists) for resource in resources]

    for one in questions(0, 10):
        answers = [answer.rule for answer in together(one)]
        assert answers == [answer.rule for answer in one_by_one(one)] == plainly(one)
    assert records[0].at == AT
    made = [Contender(f"lists of {length}, decide_many", together, lambda block, n=length: questions(block, n), each=length) for length in LENGTHS]
    made.append(Contender("lists of 100, decide_many, an Answer made of each", each_read, lambda block: questions(block, 100), each=100))
    made.append(Contender("lists of 100, one by one", one_by_one, lambda block: questions(block, 100), each=100))
    return [*made, Contender("lists of 100, plain Python", plainly, lambda block: questions(block, 100), each=100)]
