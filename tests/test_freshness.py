"""Freshness, between processes: what A acknowledged, B honours in the very next request, whatever became of the cache.

A writes, B answers on a connection that is open. B permits, with its cache warm; A acknowledges a block; within a millisecond B is asked, and must refuse.
Every other round is written through B itself. A worker whose revision check was removed must be caught by this very test.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from consent_workers import BLOCK, MUTANTS, OPEN, UNBLOCK, VOCABULARY, Worker, serve

from engine.consent.store import ConsentStore

if TYPE_CHECKING:
    from servers import Redis

pytest_plugins = ["servers"]

PROMPT = 0.001
"""Seconds between an acknowledgement and the question that counts as the very next one."""
PATIENTS = 3
"""Taken in turn: a worker with a small memory has always forgotten the next one."""


@dataclass
class Seen:
    """What happened in some rounds."""

    prompt: int = 0
    stale: list[tuple[int, object]] = field(default_factory=list)
    wrong: list[tuple[int, object]] = field(default_factory=list)


def play(store: ConsentStore, worker: Worker, rounds: int, at_round: Callable[[int], None] = lambda number: None) -> Seen:
    """So many rounds of permit, block, refuse, unblock, with A's store and a worker B. A round counts as prompt when B was asked within a millisecond."""
    seen = Seen()

    def by_us(patient: str, directives: list[dict[str, object]]) -> int:
        return store.append(patient, directives, time.time()).revision

    def by_worker(patient: str, directives: list[dict[str, object]]) -> int:
        return worker.ask("append", patient, directives)

    def expect(answer: tuple[object, ...], decision: str) -> None:
        if answer[0] != decision:
            seen.wrong.append((number, answer))

    for number in range(rounds):
        at_round(number)
        write = by_worker if number % 2 else by_us
        patient = f"patient-{number % PATIENTS}-{number // 30}"
        if number % 30 < PATIENTS:
            write(patient, OPEN)
        for _ in range(2):
            expect(worker.ask("ask", patient), "permit")
        blocked_at = write(patient, BLOCK)
        acknowledged = time.perf_counter()
        worker.connection.send(("ask", patient))
        gap = time.perf_counter() - acknowledged
        after = worker.hear()
        seen.prompt += gap <= PROMPT
        if after[0] == "permit":
            seen.stale.append((number, after))
        elif after != ("refuse", "R05", blocked_at):
            seen.wrong.append((number, after))
        write(patient, UNBLOCK)
        expect(worker.ask("ask", patient), "permit")
    return seen


@contextmanager
def two(address: str, cache_url: str | None = None, memory: int = 50_000, mutant: str | None = None) -> Iterator[tuple[ConsentStore, Worker]]:
    """A's store and a worker B on the same database."""
    store = ConsentStore(address, VOCABULARY, create=True)
    with Worker(serve, address, cache_url, memory, mutant) as worker:
        assert worker.hear() == "ready"
        gc.collect()
        yield store, worker
    store.close()


def assert_fresh(seen: Seen, rounds: int) -> None:
    assert not seen.stale, f"{len(seen.stale)} stale permits, the first: {seen.stale[0]}"
    assert not seen.wrong, f"{len(seen.wrong)} wrong answers, the first: {seen.wrong[0]}"
    assert seen.prompt >= rounds * 0.9, f"only {seen.prompt} of {rounds} rounds asked within a millisecond"


def test_a_block_is_honoured_by_the_next_request(address: str) -> None:
    with two(address) as (store, worker):
        assert_fresh(play(store, worker, 150), 150)


@pytest.mark.long
def test_a_block_is_honoured_by_the_next_request_thousands_of_times(address: str) -> None:
    with two(address) as (store, worker):
        assert_fresh(play(store, worker, 5000), 5000)


# --- whatever becomes of Redis ---------------------------------------------------------------------------------------


class Misfortunes:
    """What can become of Redis when a third of the rounds are played, and again when two thirds are."""

    def __init__(self, server: Redis, rounds: int):
        self.server, self.third, self.late = server, rounds // 3, 2 * rounds // 3
        self.replica: Redis | None = None

    def killed(self, number: int) -> None:
        if number == self.third:
            self.server.kill()

    def frozen(self, number: int) -> None:
        if number == self.third:
            self.server.freeze()
        elif number == self.late:
            self.server.thaw()

    def restarted_empty(self, number: int) -> None:
        if number in (self.third, self.late):
            self.server.kill()
            self.server.start()

    def failed_over(self, number: int) -> None:
        """To a replica that had stopped hearing of writes: what was acknowledged since is lost, and what it has is old."""
        if number == self.third // 2:
            self.replica = self.server.lagging_replica()
        elif number == self.third and self.replica:
            self.server.fail_over(self.replica)
        elif number == self.late:
            self.server.start()

    def clear_up(self) -> None:
        if self.replica:
            self.replica.stop()


MISFORTUNES = ("killed", "frozen", "restarted_empty", "failed_over")


def survive(address: str, server: Redis, misfortune: str, rounds: int) -> None:
    misfortunes = Misfortunes(server, rounds)
    try:
        with two(address, server.url(), memory=4) as (store, worker):
            assert_fresh(play(store, worker, rounds, getattr(misfortunes, misfortune)), rounds)
    finally:
        misfortunes.clear_up()


@pytest.mark.parametrize("misfortune", MISFORTUNES)
def test_what_becomes_of_redis_changes_no_decision(address: str, redis_server: Redis, misfortune: str) -> None:
    survive(address, redis_server, misfortune, 60)


@pytest.mark.long
@pytest.mark.parametrize("misfortune", MISFORTUNES)
def test_what_becomes_of_redis_changes_no_decision_in_thousands_of_rounds(address: str, redis_server: Redis, misfortune: str) -> None:
    survive(address, redis_server, misfortune, 3000)


def test_the_rounds_do_use_redis(address: str, redis_server: Redis) -> None:
    with two(address, redis_server.url(), memory=4) as (store, worker):
        assert_fresh(play(store, worker, 30), 30)
    with redis_server.client() as client:
        assert client.info("stats")["keyspace_hits"] >= 10


# --- this test catches what it is for --------------------------------------------------------------------------------


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_worker_that_does_not_check_the_revision_is_caught(address: str, mutant: str) -> None:
    with two(address, mutant=mutant) as (store, worker):
        seen = play(store, worker, 12)
    assert len(seen.stale) >= 3, "a worker that permits after a block was acknowledged went unnoticed"
