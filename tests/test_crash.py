"""Processes killed in the middle of their work, with `kill -9`: nothing acknowledged is lost, nothing is left half done, and two writers never lose each
other's change."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from consent_workers import VOCABULARY, Worker, count_up, restore_over, write_acts, write_many, write_through_outages

from engine.consent.store import ConsentStore, StoreUnavailable, Token

if TYPE_CHECKING:
    from servers import Postgres

pytest_plugins = ["servers"]

SIZE = 3
"""Directives of one act."""
PATIENTS = 4


def made(address: str) -> str:
    """A new store at this address."""
    ConsentStore(address, VOCABULARY, create=True).close()
    return address


def assert_whole(store: ConsentStore, patient: str) -> None:
    """Every act is there with all its directives, or not at all."""
    numbers = [str(kept.directive["target"]["professional"]) for kept in store.history(patient)]
    assert len(numbers) % SIZE == 0
    acts = [[number.partition("-")[0] for number in numbers[at : at + SIZE]] for at in range(0, len(numbers), SIZE)]
    assert all(len(set(act)) == 1 for act in acts), "directives of two acts are mixed"
    assert [number.partition("-")[2] for number in numbers] == [str(place) for place in range(SIZE)] * len(acts)


def kill_writers(address: str, times: int) -> None:
    """Let a writer write, kill it at any moment, and look at what is left; again and again on the same store."""
    chance = random.Random(times)
    with ConsentStore(address, VOCABULARY) as survivor:
        for turn in range(times):
            acknowledged: dict[str, Token] = {}
            with Worker(write_acts, address, f"turn-{turn}", PATIENTS, SIZE) as writer:
                for _ in range(chance.randrange(1, 12)):
                    patient, token, _ = writer.hear()
                    acknowledged[patient] = token
                time.sleep(chance.random() * 0.004)
                writer.kill()
                for patient, token, _ in writer.heard():
                    acknowledged[patient] = token
            with ConsentStore(address, VOCABULARY) as fresh:
                for store in (fresh, survivor):
                    for patient, token in acknowledged.items():
                        _, seen = store.read(patient, time.time(), at_least=token)
                        assert seen.revision - token.revision in (0, SIZE), "at most the act whose acknowledgement was cut off"
                    for number in range(PATIENTS):
                        assert_whole(store, f"turn-{turn}-{number}")


def test_a_writer_that_is_killed_loses_nothing_acknowledged_and_leaves_nothing_half(address: str) -> None:
    kill_writers(made(address), 8)


@pytest.mark.long
def test_writers_that_are_killed_hundreds_of_times_lose_nothing(address: str) -> None:
    kill_writers(made(address), 400)


def test_a_server_that_is_killed_loses_nothing_acknowledged(postgres: Postgres) -> None:
    """PostgreSQL itself is killed, twice, under a writer that goes on: what it was told is recorded, what it was refused is not, and what is unknown is at
    most once."""
    address = made(postgres.new_place())
    said: list[tuple[str, int, object]] = []
    with Worker(write_through_outages, address, "patient") as writer:
        for _ in range(2):
            since = len(said)
            while len(said) - since < 30:
                said.append(writer.hear())
            postgres.kill()
            while said[-1][0] == "acknowledged":
                said.append(writer.hear())
            postgres.start()
        since = len(said)
        while said[-1][0] != "acknowledged" or len(said) - since < 10:
            said.append(writer.hear())
        writer.kill()
        said += writer.heard()
    with ConsentStore(address, VOCABULARY) as store:
        recorded = [int(kept.directive["target"]["professional"]) for kept in store.history("patient")]
    assert recorded == sorted(set(recorded)), "nothing twice, nothing out of order"
    by_fate = {fate: {number for what, number, _ in said if what == fate} for fate in ("acknowledged", "refused", "unknown")}
    assert by_fate["refused"] | by_fate["unknown"], "the outages were felt"
    assert by_fate["acknowledged"] <= set(recorded), "acknowledged, and lost"
    last = max(number for _, number, _ in said)
    assert set(recorded) - by_fate["unknown"] - {last + 1} <= by_fate["acknowledged"], "recorded, though it was refused"


# --- two writers -----------------------------------------------------------------------------------------------------


def race(address: str, times: int) -> None:
    with ConsentStore(address, VOCABULARY) as store:
        writers = [Worker(write_many, address, "patient", name, times) for name in "ab"]
        assert [writer.hear(300) for writer in writers] == ["done", "done"]
        kept = [(one.revision, one.directive["target"]["professional"]) for one in store.history("patient")]
        for writer in writers:
            writer.close()
    assert [revision for revision, _ in kept] == list(range(1, 2 * times + 1))
    for name in "ab":
        assert [who for _, who in kept if who.startswith(name)] == [f"{name}-{number}" for number in range(times)]


def test_two_writers_on_one_patient_lose_nothing(address: str) -> None:
    race(made(address), 60)


@pytest.mark.long
def test_two_writers_on_one_patient_lose_nothing_in_thousands_of_changes(address: str) -> None:
    race(made(address), 1500)


def test_two_that_read_and_then_write_never_lose_an_update(address: str) -> None:
    made(address)
    with ConsentStore(address, VOCABULARY) as store:
        writers = [Worker(count_up, address, "patient", 30) for _ in range(3)]
        conflicts = [writer.hear(120) for writer in writers]
        numbers = [one.directive["target"]["professional"] for one in store.history("patient")]
        for writer in writers:
            writer.close()
    assert numbers == [str(number) for number in range(1, 91)], "each counted on from the very last number"
    assert sum(conflicts) > 0, "they never met, so this shows nothing"


# --- restores --------------------------------------------------------------------------------------------------------


def test_a_restore_that_is_killed_has_happened_or_has_not(address: str, place: Path) -> None:
    chance = random.Random(1)
    backup = str(place / "backup.db")
    with ConsentStore(made(address), VOCABULARY) as store:
        for number in range(300):
            store.append(f"patient-{number}", [{"kind": "opened"}], time.time())
        store.backup(backup)
        for number in range(0, 300, 7):
            store.append(f"patient-{number}", [{"kind": "closed"}], time.time())
        before = store.read("patient-0", time.time())[1]
        happened = 0
        for _ in range(6):
            with Worker(restore_over, address, backup) as worker:
                assert worker.hear() == "ready"
                time.sleep(chance.random() * 0.08)
                worker.kill()
                done = "done" in worker.heard()
            epoch = store.read("patient-0", time.time())[1].epoch
            revisions = [store.read(f"patient-{number}", time.time())[1].revision for number in range(300)]
            if epoch == before.epoch:
                assert not done, "a restore that was acknowledged is not there"
                assert revisions == [1 if number % 7 else 2 for number in range(300)]
            else:
                happened += 1
                assert revisions == [1] * 300
                for number in range(0, 300, 7):
                    store.append(f"patient-{number}", [{"kind": "closed"}], time.time())
                before = store.read("patient-0", time.time())[1]
        assert store.append("patient-1", [{"kind": "closed"}], time.time()).revision == 2


# --- when the file is what breaks ------------------------------------------------------------------------------------


def test_a_log_cut_anywhere_leaves_whole_acts(place: Path) -> None:
    """SQLite's write-ahead log cut at any byte, as a power cut may leave what was not yet acknowledged: whole acts, in order, and then none."""
    path = place / "consent.db"
    with ConsentStore(f"sqlite:///{path}", VOCABULARY, create=True) as store:
        for number in range(12):
            act = [{"kind": "block", "target": {"professional": f"{number}-{part}"}} for part in range(SIZE)]
            store.append("patient", act, time.time())
        base, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    revisions = set()
    for cut in (*range(0, len(log), 997), len(log)):
        other = place / f"cut-{cut}.db"
        other.write_bytes(base)
        Path(f"{other}-wal").write_bytes(log[:cut])
        try:
            with ConsentStore(f"sqlite:///{other}", VOCABULARY) as store:
                assert_whole(store, "patient")
                revisions.add(store.read("patient", time.time())[1].revision)
        except StoreUnavailable as error:
            assert "there is no consent store" in str(error), "cut before the store was made"
    assert revisions == set(range(0, 12 * SIZE + 1, SIZE))
