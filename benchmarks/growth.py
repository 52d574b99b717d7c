"""What does a decision cost as the policy grows, and what does compiling it cost?

Size: the French pack with rules added until a slice has 25 to 10,000 (near-copies of its rules; exceptions by specialty), its matrix from 20 x 107 to
1,000 x 1,000 cells; 20 blocks of 100,000 different situations and of 20,000 different requests, in turns over all sizes of a family. And a pack of 100 random
rules over 30 facts that must fail, saying why. Baseline: the rules as a generated chain of `if`s in plain Python.

Every size is asserted equal to its chain of `if`s before it is timed. A size that does not compile in 90 seconds is given up, and larger ones are not tried.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import packs, peers
from benchmarks.inputs import ACTION, SUBJECT, World, make_world, shuffled, situations
from benchmarks.measure import Answer, Bar, Contender, Plot, Table, Timing, digits, seconds, shuffled_blocks, time_in_turns
from benchmarks.one_decision import facts_objects
from engine.consent.fold import Record
from engine.errors import TooLarge
from engine.pack import parse_pack
from engine.pdp import Pdp

PATIENCE = 90
"""Seconds of processor time after which compiling is given up; the bar is 60."""
FLAT = 1.2


@dataclass
class Size:
    """One pack of a family: its name, what was built, what it cost, or why there is nothing."""

    label: str
    scale: float
    pdp: Pdp | None = None
    check: float = 0.0
    compile: float | None = None
    failure: str = ""
    packed: Timing | None = None
    request: Timing | None = None
    plain: Timing | None = None


class GivenUp(Exception):
    """Compiling took longer than `PATIENCE`."""


def run(quick: bool) -> Answer:
    """Build every size of each family, then time all sizes of a family in turns."""
    files = packs.french()
    base = len(Pdp(parse_pack(files)).runner(SUBJECT, ACTION).slice.rules)  # type: ignore[union-attr]
    rules = (base, 100) if quick else (base, 100, 300, 1000, 3000, 10_000)
    cells = ((20, 107), (100, 200)) if quick else ((20, 107), (100, 200), (300, 500), (1000, 1000))
    families: dict[str, list[tuple[str, float, Callable[[], Mapping[str, bytes]]]]] = {
        "near-copies": [(f"{n:,} rules", n, lambda n=n: packs.near_copies(files, n - base)) for n in rules],
        "by specialty": [(f"{n:,} rules", n, lambda n=n: packs.by_specialty(files, n - base)) for n in rules],
        "more cells": [(f"{c:,} x {r:,} cells", c * r, lambda c=c, r=r: packs.more_cells(files, c, r)) for c, r in cells],
    }  # fmt: skip
    size_of = "French pack with near-copies of its rules, with exceptions by specialty, and with more cells; one slice"
    question = "What does a decision cost as the policy grows, and what does compiling it cost?"
    made = Answer("growth", question, size_of, "the rules as a generated chain of `if`s")
    decision = Plot("A decision as the policy grows", "rules in the slice", "µs of processor time")
    compiling = Plot("Compiling as the policy grows", "rules in the slice", "seconds of processor time")
    for family, several in families.items():
        sizes = _build(several)
        _time([one for one in sizes if one.pdp is not None], 5 if quick else 20, 10_000 if quick else 100_000, 2_000 if quick else 20_000)
        made.tables.append(_table(family, sizes))
        made.bars += _bars(family, sizes, quick)
        if family != "more cells":
            for what in ("packed", "request", "plain"):
                points = [(one.scale, getattr(one, what).micros) for one in sizes if getattr(one, what)]
                if what != "plain" or family == "near-copies":
                    decision.curves[f"{family}, {_WORDS[what]}" if what != "plain" else _WORDS[what]] = points
            compiling.curves[family] = [(one.scale, one.check + one.compile) for one in sizes if one.compile]
    made.bars += _adversarial(made)
    made.plots = [decision, compiling]
    return made


_WORDS = {"packed": "from packed facts", "request": "from a request", "plain": "plain Python `if`s (near-copies)"}


def _build(several: list[tuple[str, float, Callable[[], Mapping[str, bytes]]]]) -> list[Size]:
    made: list[Size] = []
    for label, scale, files in several:
        one = Size(label, scale)
        made.append(one)
        if any(before.failure for before in made[:-1]):
            one.failure = "not tried"
            continue
        one.check, pack = seconds(lambda files=files: parse_pack(files()))
        try:
            one.compile, one.pdp = seconds(lambda pack=pack: _patiently(lambda: Pdp(pack)))
        except TooLarge as error:
            one.failure = error.diagnostics[0].message
        except GivenUp:
            one.failure = f"given up after {PATIENCE} s"
    return made


def _patiently(call: Callable[[], Any]) -> Any:
    """Call, for at most `PATIENCE` seconds of processor time."""

    def give_up(*_: Any) -> None:
        raise GivenUp

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _time(sizes: list[Size], blocks: int, situations_each: int, requests_each: int) -> None:
    """Fill in the timings of all sizes, in turns."""
    packed, request, plain = [], [], []
    for one in sizes:
        pdp = one.pdp
        assert pdp is not None
        runner = pdp.runner(SUBJECT, ACTION)
        assert runner is not None
        world = make_world(pdp, requests_each)
        records = world.records(pdp)
        orders = list(shuffled(requests_each, blocks))
        seen = [pdp.decide(*pair).code for pair in world.pairs(records, range(requests_each))]
        codes = situations(runner.tables, seen, situations_each).tolist()
        chain, few = peers.python_function(pdp), max(100, round(200_000 / len(runner.slice.rules) / 10))
        facts = facts_objects(runner.tables, codes[: max(few, 500)])
        for code, fact in zip(codes, facts, strict=False):
            assert pdp.outcomes[runner.evaluate(code)].rule == chain(fact), fact
        packed.append(Contender(one.label, runner.evaluate, shuffled_blocks(codes, list(shuffled(situations_each, blocks)))))
        request.append(Contender(one.label, pdp.decide, _pairs(world, records, orders), star=True))
        plain.append(Contender(one.label, chain, shuffled_blocks(facts, list(shuffled(len(facts), blocks)), few)))
    for what, contenders in (("packed", packed), ("request", request), ("plain", plain)):
        timings = time_in_turns(contenders, blocks)
        for one in sizes:
            setattr(one, what, timings[one.label])


def _pairs(world: World, records: list[Record], orders: list[list[int]]) -> Callable[[int], list[Any]]:
    return lambda block: world.pairs(records, orders[block])


def _table(family: str, sizes: list[Size]) -> Table:
    columns = ("size", "check, s", "compile, s", "nodes", "tables", "µs, packed", "µs, request", "µs, plain Python", "or why not")
    made = Table(f"Growth: {family}", columns)
    for one in sizes:
        if one.pdp is None:
            made.rows.append((one.label, one.check or "", "", "", "", "", "", "", one.failure))
            continue
        runner = one.pdp.runner(SUBJECT, ACTION)
        assert runner is not None and one.packed and one.request and one.plain
        tables = f"{len(runner.tables.digits)}: " + digits(sum(len(digit.table) for digit in runner.tables.digits))
        row = (one.label, one.check, one.compile, runner.slice.size, tables, one.packed.micros, one.request.micros, one.plain.micros, "")
        made.rows.append(row)
    return made


def _bars(family: str, sizes: list[Size], quick: bool) -> list[Bar]:
    first, last = sizes[0], sizes[-1]
    timed = [one for one in sizes if one.packed and one.request]
    assert first.packed and first.request
    made = []
    for what in ("packed", "request"):
        worst = max(getattr(one, what).micros for one in timed) / getattr(first, what).micros
        reached = timed[-1].label if timed[-1] is not last else last.label
        made.append(Bar(f"{family}: a decision {_WORDS[what]}, {first.label} to {reached}, slowest over the first", worst, FLAT, "times"))
    whole = None if last.compile is None else last.check + last.compile
    limit = 60.0 if not quick else 20.0
    made.append(Bar(f"{family}: checked and compiled, {last.label}", whole, limit, "s"))
    if timed[-1] is not last:
        made.append(Bar(f"{family}: largest size that compiles, of {last.label}", timed[-1].scale, last.scale, "", at_least=True))
    return made


def _adversarial(made: Answer) -> list[Bar]:
    """The pack that must fail: in seconds, naming rules and facts."""
    pack = parse_pack(packs.adversarial())

    def attempt() -> str:
        try:
            Pdp(pack)
        except TooLarge as error:
            return str(error)
        return ""

    taken, message = seconds(attempt)
    names = bool(re.search(r"rules `A\d+` to `A\d+`", message)) and "`context.fact" in message
    made.notes.append(f"The pack that must fail (100 random rules over 30 facts) did so in {digits(taken)} s: {' '.join(message.split()) or 'it compiled'}")
    return [Bar("adversarial: fails naming rules and facts, in", taken if names else None, 10, "s")]
