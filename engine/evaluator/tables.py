"""Diagrams flattened into tables: a situation packed into an integer, a few digits of it looked up one after the other.

The facts of a slice are bit fields of one integer, the first tested highest within its digit. Each digit has a table: `state = table[state + digit]`; the last
gives the outcome. The same tables serve one decision in Python and millions in NumPy. A bit pattern that stands for no value leads to the default
outcome, so nothing fails open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluator.diagram import Store
from engine.evaluator.slices import FIRST_OUTCOME, Slice
from engine.vocabulary import Value

FEW = 3
MAX_TABLE = 1 << 14
LARGEST_TABLE = 1 << 18
"""Entries of a table: small ones stay in the processor's cache. Packs of thousands of rules get larger ones rather than more digits: with 10,000 rules a
fourth digit of small tables makes 0.20 microseconds of 0.16."""
HUGE_TABLE = 1 << 26
"""No table has more entries, not even that of one variable alone: a quarter of a gigabyte."""
MAX_BITS = 62


@dataclass(frozen=True, slots=True)
class Digit:
    """Bits `shift` to `shift + bits` of the packed situation, and what they lead to: `table[state + digit]` is the next state, already shifted."""

    shift: int
    bits: int
    table: NDArray[np.int32]

    @property
    def mask(self) -> int:
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class Tables:
    """A slice, ready to run. `fields` says where each fact is in the packed situation: (shift, bits)."""

    fields: Mapping[str, tuple[int, int]]
    values: Mapping[str, tuple[Value, ...]]
    digits: tuple[Digit, ...]

    def pack(self, situation: Mapping[str, Value]) -> int:
        """A situation as an integer; facts that the slice does not depend on are left out."""
        return sum(self.code(name, situation[name]) for name in self.fields)

    def code(self, name: str, value: Value) -> int:
        """What a value of a fact contributes to the packed situation; 0 for a fact that the slice does not depend on."""
        if name not in self.fields:
            return 0
        return _index(self.values[name], value) << self.fields[name][0]

    def unpack(self, code: int) -> dict[str, Value]:
        """The situation that an integer stands for."""
        return {name: self.values[name][min(code >> shift & (1 << bits) - 1, len(self.values[name]) - 1)] for name, (shift, bits) in self.fields.items()}

    @cached_property
    def evaluate(self) -> Callable[[int], int]:
        """The number of the outcome of a packed situation. Written out: a loop over the digits costs as much as the look-ups."""
        known, bind = _names()
        return eval(f"lambda code: {self.expression(bind)}", known)  # type: ignore[no-any-return]

    @cached_property
    def evaluate_places(self) -> Callable[[Sequence[int]], int]:
        """The number of the outcome of a situation given as the place of each fact's value among its values, in the order of `fields`.

        Written out, digit by digit: 0.58 microseconds for 27 facts, 0.75 by way of the packed situation (its numbers are large), 1.17 with a sum of products.
        """
        known, bind = _names()
        names = [f"f{n}" for n in range(len(self.fields))]
        lines = [f"({''.join(f'{name}, ' for name in names)}) = places", "state = 0"]
        for digit, table in zip(self.digits, self._flat, strict=True):
            for name, (fact, (shift, _)) in zip(names, self.fields.items(), strict=True):
                if digit.shift <= shift < digit.shift + digit.bits:
                    weight = 1 << shift - digit.shift
                    lines.append(f"if {name}: state += {weight}" + (f" * {name}" if len(self.values[fact]) > 2 else ""))
            lines.append(f"state = {bind(table)}[state]")
        exec("def evaluate(places):\n" + "".join(f"    {line}\n" for line in [*lines, "return state"]), known)
        return known["evaluate"]  # type: ignore[no-any-return]

    def expression(self, bind: Callable[[Any], str]) -> str:
        """Python for `evaluate(code)`; `bind` names a value. The last digit has nothing above it, so it needs no mask."""
        made = ""
        for digit, table in zip(self.digits, self._flat, strict=True):
            own = f"code >> {digit.shift}" if digit.shift else "code"
            own += f" & {digit.mask}" if digit is not self.digits[-1] else ""
            made = f"{bind(table)}[{made} + ({own})]" if made else f"{bind(table)}[{own}]"
        return made

    @cached_property
    def _flat(self) -> list[list[int]]:
        """Tables for scalar look-ups. Equal entries are one object: a large table is pointers to a few numbers."""
        shared: dict[int, int] = {}
        return [[shared.setdefault(entry, entry) for entry in digit.table.tolist()] for digit in self.digits]

    def evaluate_many(self, codes: NDArray[np.int64], block: int = 1 << 14) -> NDArray[np.int32]:
        """The outcome of each packed situation; shape (n,) to shape (n,). Works in blocks that stay in the cache."""
        made = np.empty(codes.shape, np.int32)
        for start in range(0, len(codes), block):
            part = codes[start : start + block]
            state: NDArray[np.int32] | int = 0
            for digit in self.digits:
                state = digit.table.take(state + (part >> digit.shift & digit.mask))
            made[start : start + block] = state
        return made

    def pack_columns(self, columns: Mapping[str, NDArray[np.integer]]) -> NDArray[np.int64]:
        """Packed situations from columns of facts: for each fact the places of its values, shape (n,), any integer type."""
        return sum((columns[name].astype(np.int64) << shift for name, (shift, _) in self.fields.items()), np.int64(0))  # type: ignore[return-value]


def _names() -> tuple[dict[str, Any], Callable[[Any], str]]:
    """The values that some text names, and a function that names one more."""
    known: dict[str, Any] = {}

    def bind(value: Any) -> str:
        known[f"t{len(known)}"] = value
        return f"t{len(known) - 1}"

    return known, bind


def _index(values: tuple[Value, ...], value: Value) -> int:
    return next(n for n, one in enumerate(values) if one is value or (one == value and isinstance(one, str)))


def build_tables(slice: Slice, default: int) -> Tables:
    """Flatten a slice; `default` is the outcome of bit patterns that stand for nothing. Raises `OverflowError`, saying of what there is too much."""
    store, root = slice.store, slice.root
    variables = store.support(root)
    bits = [max(1, (store.sizes[v] - 1).bit_length()) for v in variables]
    if sum(bits) > MAX_BITS:
        raise OverflowError(f"{sum(bits)} bits of facts, more than one machine word holds")
    borders = _borders(store, root, variables, bits)
    fields: dict[str, tuple[int, int]] = {}
    digits: list[Digit] = []
    states, shift = [root], 0
    for start, end in borders:
        width = sum(bits[start:end])
        at = shift + width
        for place in range(start, end):
            at -= bits[place]
            fields[slice.facts[variables[place]].name] = (at, bits[place])
        last = end == len(variables)
        rows, exits = _rows(store, states, variables, bits, start, end, FIRST_OUTCOME - default)
        following = 0 if last else sum(bits[end : next(e for s, e in borders if s == end)])
        reached = np.concatenate(rows)
        table = FIRST_OUTCOME - reached if last else np.searchsorted(exits, reached) << following
        digits.append(Digit(shift, width, table.astype(np.int32)))
        states, shift = exits, shift + width
    values = {slice.facts[v].name: slice.facts[v].values for v in variables}
    return Tables(fields, values, tuple(digits))


def _borders(store: Store, root: int, variables: list[int], bits: list[int]) -> list[tuple[int, int]]:
    """Where to cut the variables into digits: as few as possible with small tables, then the smallest.

    Tables grow only where small ones would make more than FEW digits.
    """
    if not variables:
        return [(0, 0)]
    entering = [len(_states_at(store, root, variables, place)) for place in range(len(variables))]
    limit = MAX_TABLE
    while len(borders := _cut(entering, bits, limit)) > FEW and limit < LARGEST_TABLE:
        limit *= 4
    largest = max(entering[start] << sum(bits[start:end]) for start, end in borders)
    if largest > HUGE_TABLE:
        raise OverflowError(f"facts of so many values that a table has {largest:,} entries, more than {HUGE_TABLE:,}")
    return borders


def _cut(entering: list[int], bits: list[int], limit: int) -> list[tuple[int, int]]:
    """The cut into the fewest digits whose tables have at most `limit` entries each (one variable alone may have more), then the smallest sum."""
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for end in range(1, len(bits) + 1):
        options = []
        for start in range(end):
            size = entering[start] << sum(bits[start:end])
            if size <= limit or end - start == 1:
                options.append((best[start][0] + 1, best[start][1] + size, start))
        best.append(min(options))
    borders: list[tuple[int, int]] = []
    end = len(bits)
    while end:
        start = best[end][2]
        borders.append((start, end))
        end = start
    return borders[::-1]


def _states_at(store: Store, root: int, variables: list[int], place: int) -> list[int]:
    """The nodes and leaves in which the walk can be once the variables before `place` are read."""
    if place == 0:
        return [root]
    levels = {v: n for n, v in enumerate(variables)}

    def level(n: int) -> int:
        return levels[store.nodes[n].variable] if n >= 0 else len(variables)

    found = {child for n in store.reachable(root) if level(n) < place for child in store.children(n) if level(child) >= place}
    return sorted(found | ({root} if level(root) >= place else set()))


def _rows(
    store: Store, states: list[int], variables: list[int], bits: list[int], start: int, end: int, invalid: int
) -> tuple[list[NDArray[np.int64]], list[int]]:
    """For each state, the state after the digit, for each value of the digit; and all the states after it."""
    levels = {v: n for n, v in enumerate(variables)}
    made: dict[tuple[int, int], NDArray[np.int64]] = {}

    def walk(n: int, place: int) -> NDArray[np.int64]:
        if place == end:
            return np.array([n], np.int64)
        key = (n, place)
        if key not in made:
            node = store.nodes[n] if n >= 0 and levels[store.nodes[n].variable] == place else None
            common = walk(node.default if node else n, place + 1)
            size = store.sizes[variables[place]]
            parts = [common] * size + [walk(invalid, place + 1)] * ((1 << bits[place]) - size)
            for value, child in node.others if node else ():
                parts[value] = walk(child, place + 1)
            made[key] = np.concatenate(parts)
        return made[key]

    rows = [walk(state, start) for state in states]
    return rows, sorted({int(n) for row in rows for n in np.unique(row)})
