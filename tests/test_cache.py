"""Redis as a cache of record bodies: absent, empty, slow, frozen, killed, failed over or lying, it changes no record, and costs little."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from consent_workers import BLOCK, OPEN, UNBLOCK, VOCABULARY

from engine.consent.cache import RedisCache
from engine.consent.database import Database
from engine.consent.fold import Record
from engine.consent.store import ConsentStore, Token

if TYPE_CHECKING:
    from servers import Redis

pytest_plugins = ["servers"]

NOW = 1_795_266_300.0
PATIENTS = [f"patient-{number}" for number in range(8)]


@pytest.fixture
def url(place: Path) -> str:
    """A store with a few patients whose records differ."""
    url = f"sqlite:///{place}/consent.db"
    with ConsentStore(url, VOCABULARY, create=True) as store:
        for number, patient in enumerate(PATIENTS):
            store.append(patient, OPEN, NOW)
            for _ in range(number):
                store.append(patient, BLOCK, NOW)
    return url


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many directives each statement to the database brought."""
    seen: list[int] = []
    ask = Database.changes

    def changes(self: Database, *arguments: object) -> object:
        found = ask(self, *arguments)  # type: ignore[arg-type]
        seen.append(len(found.rows))
        return found

    monkeypatch.setattr(Database, "changes", changes)
    return seen


def records(url: str, cache: RedisCache | None, at: float = NOW + 1) -> dict[str, tuple[Record, Token]]:
    """Every patient's record, read by a process that knows none of them."""
    with ConsentStore(url, VOCABULARY, cache) as store:
        return {patient: store.read(patient, at) for patient in PATIENTS}


# --- what it is for --------------------------------------------------------------------------------------------------


def test_a_body_comes_from_redis_but_the_revision_never_does(url: str, redis_server: Redis, statements: list[int]) -> None:
    expected = records(url, None)
    cache = RedisCache(redis_server.url())
    statements.clear()
    assert records(url, cache) == expected
    assert [brought for brought in statements if brought] == [len(PATIENTS[:n]) + 2 for n in range(8)], "the first process brings every body"
    statements.clear()
    assert records(url, cache) == expected
    assert statements == [0] * 8, "the second asks for each revision once, and brings none"


def test_a_change_is_seen_though_redis_has_the_revision_before(url: str, redis_server: Redis) -> None:
    cache = RedisCache(redis_server.url())
    records(url, cache)
    with ConsentStore(url, VOCABULARY) as store:
        store.append("patient-3", UNBLOCK, NOW)
    with ConsentStore(url, VOCABULARY, cache) as store:
        record, token = store.read("patient-3", NOW)
    assert token.revision == 6
    assert record.latest("block") is None


def test_an_entry_of_an_earlier_epoch_is_not_found(url: str, redis_server: Redis, place: Path) -> None:
    cache = RedisCache(redis_server.url())
    with ConsentStore(url, VOCABULARY) as store:
        store.backup(str(place / "backup.db"))
        store.append("patient-0", BLOCK, NOW)
        records(url, cache)
        store.restore(str(place / "backup.db"))
        store.append("patient-0", UNBLOCK, NOW)
    with ConsentStore(url, VOCABULARY, cache) as store:
        record, token = store.read("patient-0", NOW)
    assert token.revision == 3
    assert record.latest("block") is None


# --- when it lies ----------------------------------------------------------------------------------------------------


def _other_patients(bodies: dict[str, bytes], key: str) -> bytes:
    return next(body for other, body in bodies.items() if other != key and other.split(":")[2] == key.split(":")[2])


def _edited(bodies: dict[str, bytes], key: str) -> bytes:
    return bodies[key].replace(b"10000023084", b"10000023085")


def _shorter(bodies: dict[str, bytes], key: str) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(bodies[key])[:-1])


def _not_a_directive(bodies: dict[str, bytes], key: str) -> bytes:
    return msgspec.json.encode([[*row[:3], "[]"] for row in msgspec.json.decode(bodies[key])])


LIES: dict[str, Callable[[dict[str, bytes], str], bytes]] = {
    "nothing": lambda bodies, key: b"",
    "noise": lambda bodies, key: b"\xff\x00noise",
    "another-shape": lambda bodies, key: b'[["1", 2, 3, {}]]',
    "no-directives": lambda bodies, key: b"[]",
    "cut": lambda bodies, key: bodies[key][:-1],
    "another-patients": _other_patients,
    "edited": _edited,
    "an-earlier-revision": _shorter,
    "not-a-directive": _not_a_directive,
    "huge": lambda bodies, key: bodies[key] + b" " * 300_000,
}


@pytest.mark.parametrize("lie", LIES)
def test_what_redis_says_is_believed_only_if_it_is_what_the_digest_says(url: str, redis_server: Redis, lie: str) -> None:
    with ConsentStore(url, VOCABULARY) as store:
        store.append("patient-7", BLOCK, NOW)
        store.append("patient-0", BLOCK * 8, NOW)  # two patients at one revision
    expected = records(url, None)
    cache = RedisCache(redis_server.url())
    records(url, cache)
    with redis_server.client() as client:
        bodies = {key.decode(): client.get(key) for key in client.scan_iter()}
        for key in bodies:
            if lie != "another-patients" or key.endswith(("patient-0", "patient-7")):
                client.set(key, LIES[lie](bodies, key))
    assert records(url, cache) == expected
    with redis_server.client() as client:
        assert {key.decode(): client.get(key) for key in client.scan_iter()} == bodies, "the right bodies are back"


def test_a_value_of_another_type_is_a_miss(url: str, redis_server: Redis) -> None:
    expected = records(url, None)
    cache = RedisCache(redis_server.url())
    records(url, cache)
    with redis_server.client() as client:
        for key in client.scan_iter():
            client.delete(key)
            client.lpush(key, "not text")
    assert records(url, cache) == expected


# --- when it is not well ---------------------------------------------------------------------------------------------


def _killed(server: Redis) -> None:
    server.kill()


def _frozen(server: Redis) -> None:
    server.freeze()


def _slow(server: Redis) -> None:
    with server.client() as client:
        client.execute_command("CLIENT", "PAUSE", 3000)


def _restarted_empty(server: Redis) -> None:
    server.kill()
    server.start()


def _full(server: Redis) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "1")


def _refuses_writes(server: Redis) -> None:
    with server.client() as client:
        client.config_set("min-replicas-to-write", "1")


ILLNESSES = {"killed": _killed, "frozen": _frozen, "slow": _slow, "restarted-empty": _restarted_empty, "full": _full, "refuses-writes": _refuses_writes}


@pytest.fixture
def patient_redis(redis_server: Redis) -> Iterator[Redis]:
    """A server that is given back as it was."""
    yield redis_server
    redis_server.kill()


@pytest.mark.parametrize("illness", ILLNESSES)
@pytest.mark.parametrize("warm", [True, False], ids=["cache-warm", "cache-empty"])
def test_no_record_changes_and_little_is_lost_when_redis_is_not_well(url: str, patient_redis: Redis, illness: str, warm: bool) -> None:
    expected = records(url, None)
    cache = RedisCache(patient_redis.url(), timeout=0.05)
    if warm:
        records(url, cache)
    ILLNESSES[illness](patient_redis)
    started = time.monotonic()
    for _ in range(20):
        assert records(url, cache) == expected
    assert time.monotonic() - started < 60, "160 reads waited for Redis again and again"


def test_a_failover_to_a_replica_that_lagged_changes_no_record(url: str, patient_redis: Redis) -> None:
    cache = RedisCache(patient_redis.url())
    records(url, cache)
    replica = patient_redis.lagging_replica()
    try:
        with ConsentStore(url, VOCABULARY, cache) as store:
            for patient in PATIENTS:
                store.append(patient, UNBLOCK, NOW)
                store.read(patient, NOW)
        expected = records(url, None)
        patient_redis.fail_over(replica)
        with patient_redis.client() as client:
            assert len(client.keys()) == len(PATIENTS), "the replica has the bodies from before"
        cache = RedisCache(patient_redis.url())
        assert records(url, cache) == expected
        assert all(record.latest("block") is None for record, _ in expected.values())
    finally:
        replica.stop()


def test_a_redis_that_was_never_there_is_a_miss(url: str, place: Path) -> None:
    expected = records(url, None)
    for nowhere in (f"unix://{place}/nothing", "redis://127.0.0.1:1"):
        assert records(url, RedisCache(nowhere)) == expected


def test_a_frozen_redis_is_asked_less_and_less_and_found_again(url: str, patient_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("engine.consent.cache.time.monotonic", lambda: now)
    cache = RedisCache(patient_redis.url(), timeout=0.02)
    asked = []
    ask = cache._client.execute_command
    monkeypatch.setattr(cache._client, "execute_command", lambda *command: (asked.append(now), ask(*command))[1])
    cache.put("patient", 1, 1, [(1, 1, NOW, "{}")])
    assert cache.get("patient", 1, 1) == [(1, 1, NOW, "{}")]
    patient_redis.freeze()
    asked.clear()
    while now < 1060:
        assert cache.get("patient", 1, 1) is None
        now += 0.1
    assert len(asked) == 7, "at once, then after half a second, one, two, four, eight, sixteen"
    patient_redis.thaw()
    now += 60
    assert cache.is_up
    assert cache.get("patient", 1, 1) == [(1, 1, NOW, "{}")]
    assert cache.get("patient", 1, 1) == [(1, 1, NOW, "{}")]


# --- its limits ------------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_long_is_not_kept(redis_server: Redis) -> None:
    cache = RedisCache(redis_server.url(), limit=100)
    cache.put("patient", 1, 1, [(1, 1, NOW, "x" * 200)])
    with redis_server.client() as client:
        assert client.keys() == []


def test_an_entry_has_an_end(redis_server: Redis) -> None:
    cache = RedisCache(redis_server.url(), ttl=60)
    cache.put("patient", 1, 1, [(1, 1, NOW, "{}")])
    with redis_server.client() as client:
        assert 0 < client.ttl("habilis:1:1:patient") <= 60


def test_the_same_directives_come_back_as_were_put(redis_server: Redis) -> None:
    cache = RedisCache(redis_server.url())
    rows = [(1, 2**52, NOW + 1e-6, '{"kind":"opened","basis":"é"}'), (2, 2**52, 1e-300, "{}")]
    cache.put("patient", 2**52, 2, rows)
    assert cache.get("patient", 2**52, 2) == rows
    cache.close()
