"""A synchronous standby that does not answer: what only the primary has would be lost when another server takes over, so it is not acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from servers import Postgres

from engine.consent.store import ConsentStore, OutcomeUnknown
from engine.decision_log.log import DecisionLog, LogUnavailable
from engine.pdp import load_pdp

PATIENT, NOW = "279035121518989", 1_795_000_000.0
BLOCK = [{"kind": "block", "target": {"professional": "10000023092"}}]
of_the_operator = pytest.mark.parametrize("options", [(), ("statement_timeout=300",), ("client_min_messages=error",)], ids=str)
VOCABULARY = load_pdp(Path(__file__).parent.parent / "policies").pack.vocabulary


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of its own: what it waits for is said for all of it."""
    server = Postgres()
    yield server
    server.stop()


def wait_for(server: Postgres, standby: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")  # type: ignore[call-overload]
        connection.execute("SELECT pg_reload_conf()")
        until = time.monotonic() + 10
        while connection.execute("SHOW synchronous_standby_names").fetchone() != (standby,):
            assert time.monotonic() < until
            time.sleep(0.05)
    time.sleep(0.2)  # the other connections hear of it between two statements


@pytest.fixture
def alone(server: Postgres) -> Iterator[Postgres]:
    """The server, which can be made to wait for nobody; whoever waits longer than the tests' patience was not acknowledged."""
    yield server
    wait_for(server, "")


def cancel_waiters(server: Postgres) -> None:
    """As an operator does who finds that commits hang: PostgreSQL then reports them as done."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        until = time.monotonic() + 10
        while not connection.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchall():
            assert time.monotonic() < until, "nobody waits for the standby"
            time.sleep(0.02)


@of_the_operator
def test_a_change_that_the_standby_has_not_is_not_acknowledged(alone: Postgres, options: tuple[str, ...]) -> None:
    with ConsentStore(alone.url(*options), VOCABULARY, create=True, timeout=1.0) as store:
        store.append(PATIENT, [{"kind": "opened"}], NOW)
        wait_for(alone, "nobody")
        with pytest.raises(OutcomeUnknown):
            store.append(PATIENT, BLOCK, NOW + 1)
        wait_for(alone, "")
        store.append(PATIENT, BLOCK, NOW + 2)


@of_the_operator
def test_a_change_whose_wait_is_cancelled_is_not_acknowledged(alone: Postgres, options: tuple[str, ...]) -> None:
    with ConsentStore(alone.url(*options), VOCABULARY, create=True, timeout=20.0) as store:
        store.append(PATIENT, BLOCK, NOW + 3)
        wait_for(alone, "nobody")
        threading.Thread(target=cancel_waiters, args=(alone,)).start()
        with pytest.raises(OutcomeUnknown):
            store.append(PATIENT, BLOCK, NOW + 4)


@of_the_operator
def test_an_entry_that_the_standby_has_not_is_not_acknowledged(alone: Postgres, options: tuple[str, ...]) -> None:
    with DecisionLog(alone.url(*options), create=True, timeout=1.0) as log:
        log.append_now(b'{"kind":"ready"}')
        wait_for(alone, "nobody")
        with pytest.raises(LogUnavailable):
            log.append_now(b'{"kind":"ready"}')
        wait_for(alone, "")
        until = time.monotonic() + 20
        while True:  # it recovers by itself
            try:
                log.append_now(b'{"kind":"ready"}')
                break
            except LogUnavailable:
                assert time.monotonic() < until


@of_the_operator
def test_an_entry_whose_wait_is_cancelled_is_not_acknowledged(alone: Postgres, options: tuple[str, ...]) -> None:
    with DecisionLog(alone.url(*options), create=True, timeout=20.0) as log:
        log.append_now(b'{"kind":"ready"}')
        wait_for(alone, "nobody")
        threading.Thread(target=cancel_waiters, args=(alone,)).start()
        with pytest.raises(LogUnavailable):
            log.append_now(b'{"kind":"ready"}')
