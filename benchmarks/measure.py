"""Blocks and medians: how everything here is timed, and the shape of what a question answers.

Contenders take turns, block by block, so that a noisy minute of the machine falls on all alike. A block is a plain loop over inputs made beforehand, the garbage
collector off; the same loop calling nothing is measured beside it, and is *not* taken off. The figure is the median of the blocks, in processor time of the
whole process (all threads): what else the machine does is not counted, and how much of a processor there was is shown.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter_ns, process_time_ns
from typing import Any

Inputs = Callable[[int], Sequence[Any]]
"""The inputs of one block, by its number."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something timed: `call` on every input of a block. `star`: an input is a pair of arguments."""

    name: str
    call: Callable[..., Any]
    inputs: Inputs
    star: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds of processor time a call, the loop included: the median of the blocks, its quartiles, the loop alone. `share`: of the time on the wall."""

    name: str
    micros: float
    low: float
    high: float
    loop: float
    calls: int
    blocks: int
    share: float


def time_in_turns(contenders: Sequence[Contender], blocks: int) -> dict[str, Timing]:
    """Time every contender on every block, in turns."""
    taken: dict[str, list[tuple[int, int, int, int]]] = {one.name: [] for one in contenders}
    for block in range(-1, blocks):  # block -1 warms up
        for one in contenders:
            inputs = one.inputs(max(block, 0))
            gc.collect()
            gc.disable()
            loop = _run(one.star, None, inputs)[0]
            processor, wall = _run(one.star, one.call, inputs)
            gc.enable()
            if block >= 0:
                taken[one.name].append((processor, wall, loop, len(inputs)))
            del inputs
    return {name: _timing(name, several) for name, several in taken.items()}


def _run(star: bool, call: Callable[..., Any] | None, inputs: Sequence[Any]) -> tuple[int, int]:
    wall, processor = perf_counter_ns(), process_time_ns()
    if call is None and star:
        for _, _ in inputs:
            pass
    elif call is None:
        for _ in inputs:
            pass
    elif star:
        for one, two in inputs:
            call(one, two)
    else:
        for one in inputs:
            call(one)
    return process_time_ns() - processor, perf_counter_ns() - wall


def _timing(name: str, several: Sequence[tuple[int, int, int, int]]) -> Timing:
    each = [processor / calls / 1000 for processor, _, _, calls in several]
    low, _, high = quantiles(each, n=4) if len(each) > 1 else each * 3
    loop = median(loop / calls / 1000 for _, _, loop, calls in several)
    share = sum(processor for processor, *_ in several) / sum(wall for _, wall, *_ in several)
    return Timing(name, median(each), low, high, loop, several[0][3], len(several), share)


def shuffled_blocks(items: Sequence[Any], orders: Sequence[Sequence[int]], number: int | None = None) -> Inputs:
    """Inputs that are the same items in a new order for each block; of `number` items, the first of that order."""
    return lambda block: [items[n] for n in orders[block][:number]]


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """How much processor time one call took, and what it returned."""
    gc.collect()
    start = process_time_ns()
    made = call()
    return (process_time_ns() - start) / 1e9, made


# --- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """What must be reached: `measured` at most (or, `at_least`, at least) `limit`."""

    what: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass(slots=True)
class Table:
    """A table of the report: columns, and a cell for each in every row."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]] = field(default_factory=list)


@dataclass(slots=True)
class Answer:
    """What a question came to. `series` holds the points of its plot, by curve."""

    name: str
    question: str
    size: str
    baseline: str
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def timing_table(title: str, timings: Iterable[Timing]) -> Table:
    """One row for each contender."""
    columns = ("what", "µs a decision", "quartiles", "loop alone", "a second", "inputs a block", "blocks", "share of a processor")
    rows = [
        (one.name, one.micros, f"{digits(one.low)} to {digits(one.high)}", one.loop, 1e6 / one.micros, one.calls, one.blocks, f"{one.share:.0%}")
        for one in timings
    ]
    return Table(title, columns, rows)


def digits(value: float) -> str:
    """Three figures that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
