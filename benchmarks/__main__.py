"""Run the benchmarks: `python -m benchmarks [NAME ...] [--quick]`.

Each question runs in a process of its own, one after the other, so that none inherits another's memory. A full run writes benchmarks/results/; a quick one
prints only, unless `--out` names a folder. The status says whether every question ran, not whether bars are met: a busy machine fails no build.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

from benchmarks.measure import Answer, ask
from benchmarks.report import RESULTS, screen, write

QUESTIONS = ("one_decision", "growth", "batch", "compile", "consent_store", "http")


def main() -> None:
    """Ask the questions named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What does a decision cost? One question per file; docs/benchmarks.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"questions to ask, of {', '.join(QUESTIONS)}; all when left out")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer blocks: under a minute for all, nothing written")
    parser.add_argument("--out", type=Path, help="folder for results.json, results.md and plots")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in QUESTIONS]:
        parser.error(f"no question `{unknown[0]}`; there are {', '.join(QUESTIONS)}")
    answers = []
    for name in asked.names or QUESTIONS:
        start = perf_counter()
        answer = _in_its_own_process(name, asked.quick)
        answers.append(answer)
        print(f"== {name} ({perf_counter() - start:.0f} s)\n\n{screen(answer)}\n", flush=True)
    folder = asked.out or (None if asked.quick else RESULTS)
    if folder is not None:
        write(answers, folder, QUESTIONS)
        print(f"written to {folder}/")
    missed = sum(not bar.is_met for answer in answers for bar in answer.bars)
    print(f"{sum(len(answer.bars) for answer in answers)} bars, {missed} missed" if missed else "every bar is met")


def _in_its_own_process(name: str, quick: bool) -> Answer:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(ask, name, quick).result()


if __name__ == "__main__":
    main()
