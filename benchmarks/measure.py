"""Blocks and medians: how everything here is timed, and the shape of what a question answers.

Contenders take turns, block by block, so that a noisy minute of the machine falls on all alike. A block is a plain loop over inputs made beforehand, the
garbage collector off; the same loop calling nothing is measured beside it, and is *not* taken off. The figure is the median of the blocks, in processor time
of the whole process (all threads): what else the machine does is not counted, and how much of a processor there was is shown.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from statistics import median, quantiles
from time import perf_counter_ns, process_time_ns
from typing import Any

Inputs = Callable[[int], Sequence[Any]]
"""The inputs of one block, by its number."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something timed: `call` on every input of a block. `star`: an input is a pair of arguments. `each`: how many decisions one call makes."""

    name: str
    call: Callable[..., Any]
    inputs: Inputs
    star: bool = False
    each: int = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds of processor time a decision, the loop included: median of the blocks, quartiles, the loop alone. `share`: of the time on the wall.

    `wall`: microseconds on the wall, for what waits for somebody else: a disk, a server.
    """

    name: str
    micros: float
    low: float
    high: float
    loop: float
    decisions: int
    blocks: int
    share: float
    wall: float


def time_in_turns(contenders: Sequence[Contender], blocks: int) -> dict[str, Timing]:
    """Time every contender on every block, in turns."""
    taken: dict[str, list[tuple[int, int, int, int]]] = {one.name: [] for one in contenders}
    gc.collect()
    gc.freeze()
    gc.disable()
    for block in range(-1, blocks):  # block -1 warms up
        for one in contenders:
            inputs = one.inputs(max(block, 0))
            loop = _run(one.star, None, inputs)[0]
            processor, wall = _run(one.star, one.call, inputs)
            if block >= 0:
                taken[one.name].append((processor, wall, loop, len(inputs) * one.each))
            del inputs
    gc.enable()
    gc.unfreeze()
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
    each = [processor / number / 1000 for processor, _, _, number in several]
    low, _, high = quantiles(each, n=4) if len(each) > 1 else each * 3
    loop = median(loop / number / 1000 for _, _, loop, number in several)
    share = sum(processor for processor, *_ in several) / sum(wall for _, wall, *_ in several)
    waited = median(wall / number / 1000 for _, wall, _, number in several)
    return Timing(name, median(each), low, high, loop, several[0][3], len(several), share, waited)


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
    """What must be reached: `measured` at most (or, `at_least`, at least) `limit`. Not met when there was nothing to measure."""

    what: str
    measured: float | None
    limit: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass(slots=True)
class Table:
    """A table of the report: columns, and a cell for each in every row."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]] = field(default_factory=list)


@dataclass(slots=True)
class Plot:
    """What is drawn of an answer: bars by name (`x` unused), or curves of points. Axes are logarithmic."""

    title: str
    x: str
    y: str
    bars: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


@dataclass(slots=True)
class Answer:
    """What a question came to."""

    name: str
    question: str
    size: str
    baseline: str
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)


def ask(name: str, quick: bool) -> Answer:
    """Ask one question: run the module of that name. Here, and not in `__main__`, so that another process can be told to."""
    answer = import_module(f"benchmarks.{name}").run(quick)
    assert isinstance(answer, Answer)
    return answer


def timing_table(title: str, timings: Iterable[Timing]) -> Table:
    """One row for each contender."""
    columns = ("what", "µs a decision", "quartiles", "loop alone", "a second", "decisions a block", "blocks", "processor")
    rows = [
        (t.name, t.micros, f"{digits(t.low)} to {digits(t.high)}", t.loop, 1e6 / t.micros, t.decisions, t.blocks, f"{t.share:.0%}")
        for t in timings
    ]  # fmt: skip
    return Table(title, columns, rows)


def digits(value: Any) -> str:
    """A cell as text: of a fraction, the three figures that count."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
