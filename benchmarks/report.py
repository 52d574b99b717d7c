"""Answers as tables on the screen, and as results.json, results.md and plots in benchmarks/results/. Says what machine, and nothing that names it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

from benchmarks.measure import Answer, Bar, Plot, digits

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "msgspec", "pydantic", "pycasbin", "simpleeval", "cedarpy")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _from_proc("cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory": f"{int((_from_proc('meminfo', 'MemTotal') or '0 kB').split()[0]) / 2**20:.0f} GiB",
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": versions,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _from_proc(file: str, key: str) -> str:
    try:
        lines = Path("/proc", file).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


# --- text ------------------------------------------------------------------------------------------------------------


def screen(answer: Answer) -> str:
    """An answer as aligned text."""
    parts = [f"{answer.question}\n  {answer.size}\n  beside: {answer.baseline}"]
    for table in answer.tables:
        parts.append("\n".join([table.title, *_aligned(table.columns, table.rows)]))
    parts.append("\n".join(_aligned(("bar", "limit", "measured", "met?"), map(_bar, answer.bars))))
    parts += answer.notes
    return "\n\n".join(parts)


def _aligned(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    cells = [[str(column) for column in columns], *([digits(cell) for cell in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    made = []
    for row in cells:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        made.append("  ".join(["  " + first.strip().ljust(len(first)), *others]).rstrip())
    return made


def _bar(bar: Bar) -> tuple[str, str, str, str]:
    measured = "nothing" if bar.measured is None else f"{digits(float(bar.measured))} {bar.unit}"
    return bar.what, f"{'≥' if bar.at_least else '≤'} {digits(bar.limit)} {bar.unit}", measured, "yes" if bar.is_met else "MISSED"


def markdown(answers: Sequence[Mapping[str, Any]]) -> str:
    """results.md: bars first, then each question."""
    lines = ["# Results", "", "Written by `python -m benchmarks`; how to read it: docs/benchmarks.md.", ""]
    bars = [Bar(**bar) for answer in answers for bar in answer["bars"]]
    lines += ["## Bars", "", *_rows(("bar", "limit", "measured", "met?"), map(_bar, bars)), ""]
    for answer in answers:
        lines += [f"## {answer['question']}", "", f"Size: {answer['size']}. Baseline: {answer['baseline']}.", "", f"Measured {_machine(answer['machine'])}", ""]
        for table in answer["tables"]:
            lines += [f"### {table['title']}", "", *_rows(table["columns"], table["rows"]), ""]
        lines += [f"![{plot['title']}]({file_of(answer['name'], n)})\n" for n, plot in enumerate(answer["plots"])]
        lines += [f"{note}\n" for note in answer["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def _machine(about: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    return f"{about['date']} on {about['processor']}, {about['cores']} cores, {about['memory']}, {about['system']}; {about['python']}; {packages}."


def _rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    head = [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    return head + ["| " + " | ".join(digits(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]


# --- files -----------------------------------------------------------------------------------------------------------


def write(answers: Sequence[Answer], folder: Path, order: Sequence[str]) -> None:
    """Write results.json, results.md and the plots. Answers to other questions that are there already stay, with the machine they were measured on."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    known = json.loads(file.read_text()) if file.exists() else {"answers": []}
    about = machine()
    fresh = {answer.name: {**asdict(answer), "machine": about} for answer in answers}
    kept = {one["name"]: one for one in known["answers"] if one["name"] not in fresh}
    merged = [{**fresh, **kept}[name] for name in order if name in fresh or name in kept]
    file.write_text(json.dumps({"answers": _rounded(merged)}, ensure_ascii=False, indent=1) + "\n")
    (folder / "results.md").write_text(markdown(_rounded(merged)))
    for answer in answers:
        for n, plot in enumerate(answer.plots):
            _draw(plot, folder / file_of(answer.name, n))


def file_of(name: str, number: int) -> str:
    return f"{name}{number or ''}.svg"


def _rounded(value: Any) -> Any:
    """Four figures that count: the rest is noise, and differences nobody reads in the repository's history."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _draw(plot: Plot, file: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "habilis", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, axes = pyplot.subplots(figsize=(8, 0.32 * len(plot.bars) + 1 if plot.bars else 4.5))
    if plot.bars:
        named = sorted(plot.bars.items(), key=lambda item: -item[1])
        colours = ["#1b6ca8" if name.startswith("Habilis") else "#8a8a8a" if name.startswith("plain") else "#d98f4e" for name, _ in named]
        axes.barh([name for name, _ in named], [value for _, value in named], color=colours)
        for place, (_, value) in enumerate(named):
            axes.text(value * 1.08, place, digits(value), va="center")
        axes.set_xscale("log")
        axes.set_xlim(min(plot.bars.values()) / 2, max(plot.bars.values()) * 4)
        axes.set_xlabel(plot.y)
    for name, points in plot.curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name) if points else None
    if plot.curves:
        heights = [y for points in plot.curves.values() for _, y in points]
        axes.set(xscale="log", yscale="log", xlabel=plot.x, ylabel=plot.y, ylim=(10 ** floor(log10(min(heights))), 10 ** ceil(log10(max(heights)))))
        axes.legend(frameon=False)
        axes.grid(True, which="major", color="#e5e5e5")
    for axis in (axes.xaxis, axes.yaxis) if plot.curves else (axes.xaxis,):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(plot.title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
