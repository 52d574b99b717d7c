"""What does it cost to check, compile and prove the French pack?

Size: the French pack: about 120 rules, 180 slices, matrices of 20 x 107. Baseline: Python compiling the hand-written function of one slice (`plain.py`),
which checks nothing and proves nothing. Each stage is run from the start; the figure is the median, in seconds of processor time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import packs, plain
from benchmarks.measure import Answer, Bar, Table, seconds
from engine.evaluator.slices import Slice, compile_slices, outcomes_of
from engine.evaluator.tables import build_tables
from engine.pack import Pack, parse_pack, read_folder
from engine.pdp import Pdp

READ, CHECK, COMPILE = "read the files", "check: the files to a pack", "diagrams, tables and readers: the pack to a PDP"
INVARIANTS = "invariants: all proved"


def run(quick: bool) -> Answer:
    """Time each stage, and measure what comes out of it."""
    times = 2 if quick else 9
    files = read_folder(packs.FRENCH)
    pack = parse_pack(files)
    pdp = Pdp(pack)
    stages: dict[str, Callable[[], Any]] = {
        READ: lambda: read_folder(packs.FRENCH),
        CHECK: lambda: parse_pack(files),
        "diagrams: the pack to slices": lambda: compile_slices(pack),
        "tables: the slices to tables": lambda: _tables(pack, pdp.slices),
        COMPILE: lambda: Pdp(pack),
        **_others(pdp),
    }
    taken = {name: median(seconds(call)[0] for _ in range(times)) for name, call in stages.items()}
    source = Path(plain.__file__).read_text()
    taken["plain Python: compile plain.py"] = median(seconds(lambda: compile(source, "plain.py", "exec"))[0] for _ in range(times))
    different = len(set(map(id, pdp.slices.values())))
    size_of = f"the French pack: {len(pack.rules)} rules, {len(pack.vocabulary.facts)} facts, {len(pdp.slices)} slices, {different} of them different"
    made = Answer(
        "compile", "What does it cost to check, compile and prove the French pack?", size_of, "Python compiling the hand-written function of one slice"
    )
    made.tables = [Table("Stages of compiling", ("stage", "seconds", "runs"), [(name, value, times) for name, value in taken.items()]), _slices(pdp)]
    whole = sum(taken[name] for name in (READ, CHECK, COMPILE, INVARIANTS)) if INVARIANTS in taken else None
    made.bars = [Bar("check, diagrams, tables and invariants", whole, 2, "s")]
    return made


def _others(pdp: Pdp) -> dict[str, Callable[[], Any]]:
    """Stages of modules that may be missing from an older engine."""
    made: dict[str, Callable[[], Any]] = {}
    try:
        from engine.analysis.invariants import prove
    except ImportError:
        pass
    else:
        assert not prove(pdp), "the French pack violates its invariants"
        made[INVARIANTS] = lambda: prove(pdp)
    try:
        from engine.compiled import dump, load
    except ImportError:
        pass
    else:
        data = dump(pdp)
        made[f"load the compiled pack ({len(data):,} bytes)"] = lambda: load(data)
    return made


def _tables(pack: Pack, slices: dict[tuple[str, str], Slice]) -> list[Any]:
    numbers = {outcome.rule: outcome.number for outcome in outcomes_of(pack)}
    different = {id(slice): (slice, numbers[pack.default_for(action) or ""]) for (_, action), slice in slices.items()}
    return [build_tables(slice, default) for slice, default in different.values()]


def _slices(pdp: Pdp) -> Table:
    """The largest slices, and all of them together."""
    columns = ("slice", "rules", "facts", "nodes", "tables", "entries")
    rows: dict[int, tuple[Any, ...]] = {}
    for (subject, action), slice in pdp.slices.items():
        runner = pdp.runner(subject, action)
        assert runner is not None
        entries = [len(digit.table) for digit in runner.tables.digits]
        rows.setdefault(id(slice), (f"{subject}, {action}", len(slice.rules), len(slice.order), slice.size, len(entries), sum(entries)))
    largest = sorted(rows.values(), key=lambda row: -row[3])
    total = (f"all {len(largest)} different slices", "", "", *(sum(row[n] for row in largest) for n in (3, 4, 5)))
    return Table("Slices, the largest first", columns, [*largest[:8], total])
