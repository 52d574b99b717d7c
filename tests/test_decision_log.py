"""The decision log: what is acknowledged is there, whatever happens to the disk, the database or the process; what cannot be written is not acknowledged."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from consent_workers import Worker
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from log_workers import append_for_ever, body
from typer.testing import CliRunner

from cli.main import app
from engine.decision_log import log as log_module
from engine.decision_log import sqlite
from engine.decision_log.checkpoint import Checkpointer, NoteError, open_checkpoint, parse_heads, verifier_key
from engine.decision_log.entries import new_id
from engine.decision_log.log import DecisionLog, LogUnavailable
from engine.decision_log.read import LogReader, readable
from engine.decision_log.storage import open_storage
from engine.decision_log.verify import Report, verify

if TYPE_CHECKING:
    from servers import Postgres

pytest_plugins = ["servers"]

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOBODY = 65534


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, place: Path) -> str:
    """The address of a log that is not there yet, in each kind of database."""
    return folder_url(place) if request.param == "sqlite" else request.getfixturevalue("postgres").new_place()


def folder_url(place: Path) -> str:
    return f"sqlite:///{place}/log"


@contextmanager
def appending(url: str, create: bool = True, **more: Any) -> Iterator[DecisionLog]:
    with DecisionLog(url, create=create, **more) as log:
        yield log


def ids(url: str) -> list[str]:
    """What is in the log, segment by segment."""
    with LogReader(url) as reader:
        return [entry.body["id"] for name in reader.sizes() for entry in reader.entries(name) if entry.body]


def verified(url: str, *keys: Ed25519PrivateKey) -> Report:
    """The log verifies, after a last checkpoint."""
    signer = Checkpointer(url, KEY, run=False)
    signer.make()
    assert signer.problem is None
    signer.close()
    storage = open_storage(url)
    report = verify(storage, [verifier_key(storage.origin, key) for key in (KEY, *keys)])
    storage.close()
    assert [str(one) for one in report.findings] == []
    assert (report.unproved, report.proved) == (0, report.entries)
    return report


# --- appending -------------------------------------------------------------------------------------------------------


def test_what_is_appended_is_read_in_order_and_verifies(url: str) -> None:
    with appending(url, name="worker-1", key=KEY) as log:
        asyncio.run(append_in_turn(log, 20))
        log.append_now(body("a"), body("b"))
    assert ids(url) == [*(str(number) for number in range(20)), "a", "b"]
    with LogReader(url) as reader:
        (segment,) = reader.segments()
    assert segment.name.startswith("worker-1-") and (segment.size, segment.proved) == (22, 22)
    assert verified(url).entries == 22


async def append_in_turn(log: DecisionLog, count: int) -> None:
    for number in range(count):
        await log.append(body(str(number)))


def test_entries_that_arrive_during_a_commit_go_together_in_the_next(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    written = DecisionLog._written
    monkeypatch.setattr(DecisionLog, "_written", lambda self, bodies: sizes.append(len(bodies)) or written(self, bodies))

    async def run(log: DecisionLog) -> None:
        await asyncio.gather(*(log.append(body(str(number))) for number in range(700)))

    with appending(url) as log:
        asyncio.run(run(log))
        assert log.backlog == 0
    assert sum(sizes) == 700 and len(sizes) < 70 and max(sizes) > 256, "also more than fit in one statement"
    assert sorted(ids(url), key=int) == [str(number) for number in range(700)]


def test_loops_and_threads_may_append_at_once(url: str) -> None:
    async def run(log: DecisionLog, name: str) -> None:
        await asyncio.gather(*(log.append(body(f"{name}-{number}")) for number in range(50)))

    with appending(url) as log:
        work = [lambda name=name: asyncio.run(run(log, name)) for name in "ab"] + [lambda: [log.append_now(body(f"c-{number}")) for number in range(20)]]
        threads = [threading.Thread(target=one) for one in work]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert sorted(ids(url)) == sorted([f"{name}-{number}" for name in "ab" for number in range(50)] + [f"c-{number}" for number in range(20)])


def test_a_request_that_was_given_up_hurts_no_other(url: str) -> None:
    async def run(log: DecisionLog) -> None:
        given_up = asyncio.ensure_future(log.append(body("given up")))
        await asyncio.sleep(0)
        given_up.cancel()
        await log.append(body("other"))

    with appending(url) as log:
        asyncio.run(run(log))
    assert "other" in ids(url)


def test_a_loop_may_append_and_wait_at_once(url: str) -> None:
    """What it has at hand is queued when its turn ends, which it does not while it waits."""

    async def run(log: DecisionLog) -> None:
        pending = asyncio.ensure_future(log.append(body("1")))
        await asyncio.sleep(0)
        log.append_now(body("2"))
        await pending

    with appending(url, timeout=20) as log:
        asyncio.run(run(log))
    assert ids(url) == ["1", "2"]


def test_a_loop_that_ends_before_its_entries_are_queued_stops_nobody(url: str) -> None:
    with appending(url, timeout=20) as log:
        loop = asyncio.new_event_loop()
        append = log.append(body("1"))
        asyncio._set_running_loop(loop)
        append.send(None)
        asyncio._set_running_loop(None)
        loop.close()
        append.close()
        log.append_now(body("2"))
        asyncio.run(log.append(body("3")))
    assert ids(url) == ["1", "2", "3"]


def test_a_closed_log_takes_nothing(url: str) -> None:
    log = DecisionLog(url, create=True)
    log.close()
    log.close()
    with pytest.raises(LogUnavailable, match="the decision log is closed"):
        log.append_now(body("late"))
    with pytest.raises(LogUnavailable, match="the decision log is closed"):
        asyncio.run(log.append(body("late")))


def test_a_full_segment_is_followed_by_another(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "LONGEST", 10)
    with appending(url, key=KEY) as log:
        for number in range(25):
            log.append_now(body(str(number)))
    with LogReader(url) as reader:
        assert sorted(reader.sizes().values()) == [5, 10, 10]
    assert verified(url).segments == 3


def test_each_opening_has_a_segment_of_its_own(url: str) -> None:
    for number in range(3):
        with appending(url, name="worker-1") as log:
            log.append_now(body(str(number)))
    with LogReader(url) as reader:
        assert list(reader.sizes().values()) == [1, 1, 1]


def test_a_forked_child_has_a_segment_of_its_own(url: str) -> None:
    with appending(url, key=KEY, checkpoint_every=0.01) as log:
        log.append_now(body("parent"))
        child = os.fork()
        if not child:
            try:
                log.append_now(body("child"))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        log.append_now(body("parent again"))
    with LogReader(url) as reader:
        assert sorted([one.body["id"] for one in reader.entries(name)] for name in reader.sizes()) == [["child"], ["parent", "parent again"]]
    verified(url)


# --- being there -----------------------------------------------------------------------------------------------------


def test_a_log_is_not_made_by_accident(url: str) -> None:
    for use in (DecisionLog, LogReader, open_storage):
        with pytest.raises(LogUnavailable, match=r"there is no decision log at .*: an empty one is only made when asked for \(create=True"):
            use(url)
    first = open_storage(url, create=True, origin="log.example/first")
    again = open_storage(url, create=True, origin="log.example/second")
    assert first.origin == again.origin == "log.example/first"
    first.close()
    again.close()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "this is not the address of a decision log: sqlite:///FOLDER or postgresql://USER@HOST/DATABASE"),
        ("mysql://host/log", "a decision log lives in SQLite or PostgreSQL, not in `mysql`"),
        ("sqlite://", "a decision log needs a folder (sqlite:///FOLDER)"),
        ("sqlite:///:memory:", "a decision log needs a folder (sqlite:///FOLDER)"),
    ],
)
def test_an_address_that_is_none_is_said_so(address: str, why: str) -> None:
    with pytest.raises(LogUnavailable) as error:
        DecisionLog(address, create=True)
    assert str(error.value) == why


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../x", "é", "x" * 65])
def test_a_name_that_is_no_name_is_refused(place: Path, name: str) -> None:
    if name:
        with pytest.raises(LogUnavailable, match="named with at most 64"):
            DecisionLog(folder_url(place), name=name, create=True)
    with pytest.raises(LogUnavailable, match="without spaces"):
        open_storage(folder_url(place), create=True, origin=f"{name} +")


def test_the_files_are_their_owners_alone(place: Path) -> None:
    with appending(folder_url(place), key=KEY, checkpoint_every=0.01) as log:
        log.append_now(body("1"))
        assert stat.S_IMODE((place / "log").stat().st_mode) == 0o700
        modes = {one.name.split(".")[-1]: stat.S_IMODE(one.stat().st_mode) for one in (place / "log").iterdir()}
    assert {"segment", "segment-wal", "db"} <= set(modes) and set(modes.values()) == {0o600}


def test_what_was_appended_cannot_be_edited_by_accident(place: Path) -> None:
    with appending(folder_url(place), key=KEY) as log:
        log.append_now(body("1"))
    (segment,) = (place / "log").glob("*.segment")
    for path, table, change in (
        (segment, "entries", "DELETE FROM entries"),
        (segment, "entries", "UPDATE entries SET body = 'x'"),
        (segment, "entries", "UPDATE entries SET leaf = zeroblob(32), body = NULL, salt = NULL"),
        (place / "log" / "log.db", "checkpoints", "DELETE FROM checkpoints"),
        (place / "log" / "log.db", "checkpoints", "UPDATE checkpoints SET note = ''"),
    ):
        connection = sqlite3.connect(path)
        with pytest.raises(sqlite3.IntegrityError, match="is appended, never"):
            connection.execute(change)
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)
        connection.close()


# --- when the disk fails ---------------------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process can grow beyond this: writes fail in the middle, as they do on a disk that fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def append_until_refused(log: DecisionLog, name: str, most: int = 5000) -> tuple[list[str], str]:
    """What was acknowledged, and why the next was not."""
    acknowledged: list[str] = []
    for number in range(most):
        try:
            log.append_now(body(f"{name}-{number}"))
        except LogUnavailable as error:
            return acknowledged, str(error)
        acknowledged.append(f"{name}-{number}")
    raise AssertionError("never refused")


def test_a_write_that_fails_is_not_acknowledged_and_the_log_recovers(place: Path) -> None:
    url = folder_url(place)
    with appending(url) as log:
        log.append_now(body("first"))
        with largest_file(200_000):
            acknowledged, why = append_until_refused(log, "before")
            assert "the decision log cannot be reached (OperationalError SQLITE_" in why
            assert acknowledged
        time.sleep(2 * log_module.PAUSE)
        log.append_now(body("after"))
    assert {"first", *acknowledged, "after"} <= set(ids(url))
    verified(url)


def test_a_full_disk_refuses_and_the_segment_goes_on_when_there_is_room(place: Path) -> None:
    url = folder_url(place)
    with appending(url) as log:
        log.append_now(body("first"))
        connection = log._segment.connection  # type: ignore[union-attr]
        connection.execute("PRAGMA max_page_count = 20")
        acknowledged, why = append_until_refused(log, "before")
        assert why == "the decision log cannot be reached (OperationalError SQLITE_FULL)"
        with pytest.raises(LogUnavailable, match="SQLITE_FULL"):
            asyncio.run(log.append(body("refused")))
        connection.execute("PRAGMA max_page_count = 100000")
        log.append_now(body("after"))
    assert ids(url) == ["first", *acknowledged, "after"]
    assert verified(url).segments == 1


def test_a_segment_that_others_lock_is_waited_for_and_refused_in_time(place: Path) -> None:
    url = folder_url(place)
    with appending(url, timeout=0.3) as log:
        log.append_now(body("first"))
        (segment,) = (place / "log").glob("*.segment")
        other = sqlite3.connect(segment, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        with pytest.raises(LogUnavailable):
            log.append_now(body("refused"))
        with pytest.raises(LogUnavailable, match=r"did not answer within 0\.3 seconds|SQLITE_BUSY"):
            asyncio.run(log.append(body("refused too")))
        assert time.monotonic() - start < 20
        other.execute("ROLLBACK")
        other.close()
        until_it_works(log)
    assert verified(url).segments == 1


def until_it_works(log: DecisionLog, id: str = "after") -> None:
    """It recovers by itself."""
    end = time.monotonic() + 30
    while True:
        try:
            return log.append_now(body(id))
        except LogUnavailable:
            assert time.monotonic() < end, "it did not recover"
            time.sleep(0.05)


@pytest.mark.parametrize("settled", [60, 0.05], ids=["folder that just changed", "folder at rest"])
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_segment_that_is_removed_or_replaced_is_left_for_a_new_one(place: Path, suffix: str, settled: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the folder then says that it was last changed when it was, as after a restore in place."""
    url, folder = folder_url(place), place / "log"
    monkeypatch.setattr(sqlite, "SETTLED", settled)

    def rest() -> os.stat_result:
        """Let the folder be as it is for a while, and the segment find it so."""
        time.sleep(0.1)
        log.append_now(body("at rest"))
        return folder.stat()

    with appending(url) as log:
        log.append_now(body("first"))
        before = rest()
        (segment,) = folder.glob("*.segment")
        victim = Path(f"{segment}{suffix}")
        copy = victim.read_bytes()
        victim.unlink()
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(LogUnavailable, match="cannot be reached"):
            log.append_now(body("into nothing"))
        log.append_now(body("second"))
        before = rest()
        (other,) = set(folder.glob("*.segment")) - {segment}
        replaced = Path(f"{other}{suffix}")
        (place / "copy").write_bytes(copy)
        (place / "copy").rename(replaced)
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(LogUnavailable, match="cannot be reached"):
            log.append_now(body("into another file"))
        log.append_now(body("third"))
    assert "third" in ids(url)


def test_a_folder_that_goes_away_refuses_until_it_is_back(place: Path) -> None:
    url = folder_url(place)
    with appending(url, key=KEY, checkpoint_every=0.01) as log:
        log.append_now(body("first"))
        (place / "log").rename(place / "elsewhere")
        for _ in range(3):
            with pytest.raises(LogUnavailable, match=r"cannot be reached|there is no decision log at"):
                asyncio.run(log.append(body("nowhere")))
        open_storage(url, create=True).close()
        time.sleep(2 * log_module.PAUSE)
        with pytest.raises(LogUnavailable, match="another log is at"):
            log.append_now(body("in another log"))
        shutil.rmtree(place / "log")
        (place / "elsewhere").rename(place / "log")
        until_it_works(log)
    assert {"first", "after"} <= set(ids(url))
    verified(url)


def test_a_folder_that_nobody_may_write_refuses_until_somebody_may(place: Path) -> None:
    """As root everything may be written, so somebody else tries."""
    url = folder_url(place)
    place.chmod(0o755)
    with appending(url) as log:
        for one in (place / "log", *(place / "log").iterdir()):
            os.chown(one, NOBODY if os.geteuid() == 0 else -1, -1)
        (place / "log").chmod(0o500)
        with acting_as_nobody(), pytest.raises(LogUnavailable, match="cannot be reached"):
            log.append_now(body("refused"))
        (place / "log").chmod(0o700)
        time.sleep(2 * log_module.PAUSE)
        with acting_as_nobody():
            log.append_now(body("after"))
    assert ids(url) == ["after"]


@contextmanager
def acting_as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_copy_that_nobody_may_write_can_be_read_and_verified(place: Path) -> None:
    with appending(folder_url(place), key=KEY) as log:
        log.append_now(body("first"))
    place.chmod(0o755)
    for one in (place / "log", *(place / "log").iterdir()):
        one.chmod(0o555 if one.is_dir() else 0o444)
    with acting_as_nobody():
        assert ids(folder_url(place)) == ["first"]
        storage = open_storage(folder_url(place))
        assert verify(storage, [verifier_key(storage.origin, KEY)]).is_fine
        storage.close()


# --- when the server fails -------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_loses_nothing_acknowledged(postgres: Postgres) -> None:
    url = postgres.new_place()
    open_storage(url, create=True).close()
    said: list[tuple[str, str, str]] = []
    with Worker(append_for_ever, url, "worker", KEY.private_bytes_raw(), 4) as writer:
        for _ in range(2):
            since = len(said)
            while len(said) - since < 40:
                said.append(writer.hear())
            postgres.kill()
            while said[-1][0] == "acknowledged":
                said.append(writer.hear())
            start_again(postgres)
        while said[-1][0] != "acknowledged":
            said.append(writer.hear())
        writer.kill()
        said += writer.heard()
    acknowledged = {id for what, id, _ in said if what == "acknowledged"}
    assert acknowledged <= set(ids(url))
    assert verified(url).segments > 1


def start_again(postgres: Postgres) -> None:
    """A backend that was being forked when its server was killed outlives it for a moment, and keeps its memory."""
    for attempt in range(10):
        try:
            return postgres.start()
        except AssertionError:
            if attempt == 9:
                raise
            time.sleep(0.5)


def test_a_server_that_says_nothing_is_not_waited_for(postgres: Postgres) -> None:
    url = postgres.new_place()
    with appending(url, timeout=0.5) as log:
        log.append_now(body("first"))
        postgres.freeze()
        start = time.monotonic()
        with pytest.raises(LogUnavailable, match=r"did not answer within 0\.5 seconds|cannot be reached"):
            asyncio.run(log.append(body("refused")))
        assert time.monotonic() - start < 20
        postgres.thaw()
        until_it_works(log)
    assert {"first", "after"} <= set(ids(url))
    verified(url)


def test_a_server_that_refuses_an_entry_keeps_the_segment(postgres: Postgres) -> None:
    """What the server refused is not there for certain, so the segment goes on."""
    url = postgres.new_place()
    with appending(url) as log:
        log.append_now(body("first"))
        connection = log._segment.connection  # type: ignore[union-attr]
        connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(LogUnavailable, match="ReadOnlySqlTransaction 25006"):
            log.append_now(body("refused"))
        connection.execute("SET default_transaction_read_only = off")
        log.append_now(body("after"))
    assert ids(url) == ["first", "after"]


# --- kill -9 ---------------------------------------------------------------------------------------------------------


def kill_writers(url: str, times: int) -> None:
    """Kill an appending process at any moment, again and again, and look for everything that it was told is there."""
    chance = random.Random(times)
    open_storage(url, create=True).close()
    acknowledged: set[str] = set()
    for turn in range(times):
        with Worker(append_for_ever, url, f"turn-{turn}", KEY.private_bytes_raw(), 8) as writer:
            for _ in range(chance.randrange(1, 60)):
                acknowledged.add(writer.hear()[1])
            time.sleep(chance.random() * 0.004)
            writer.kill()
            acknowledged.update(id for what, id, _ in writer.heard() if what == "acknowledged")
    assert acknowledged <= set(ids(url))
    assert verified(url).segments == times


def test_a_writer_that_is_killed_loses_nothing_acknowledged(url: str) -> None:
    kill_writers(url, 10)


@pytest.mark.long
def test_writers_that_are_killed_hundreds_of_times_lose_nothing(url: str) -> None:
    kill_writers(url, 200)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_one_of_several_makes_the_checkpoints_of_all(url: str) -> None:
    with appending(url, name="a") as one, appending(url, name="b") as other:
        first, second = Checkpointer(url, KEY, run=False), Checkpointer(url, KEY, run=False)
        one.append_now(body("1"))
        other.append_now(body("2"), body("3"))
        made = first.make()
        assert made is not None and sorted(head.size for head in parse_heads(made.heads).values()) == [1, 2]
        other.append_now(body("4"))
        assert second.make() is None, "the other one does"
        first.close()
        one.append_now(body("5"))
        made = second.make()
        assert made is not None and made.number == 2, "closing made the one between"
        assert [head.size for head in parse_heads(made.heads).values()] == [2]
        assert second.make() is None, "nothing has changed"
        second.close()
    assert verified(url).checkpoints == 3


def test_a_segment_that_a_crash_left_is_covered_by_others(url: str) -> None:
    open_storage(url, create=True).close()
    with Worker(append_for_ever, url, "dead", None, 2) as writer:
        writer.hear()
        writer.kill()
    with appending(url, key=KEY) as log:
        log.append_now(body("alive"))
    assert verified(url).segments == 2


def test_a_checkpointer_that_is_killed_is_followed_by_another(url: str) -> None:
    with appending(url, name="other", key=KEY, checkpoint_every=0.02) as log:
        assert log.checkpoints is not None
        log.append_now(body("1"))
        with Worker(append_for_ever, url, "rival", KEY.private_bytes_raw(), 1) as writer:
            for _ in range(20):
                writer.hear()
            writer.kill()
        wait_until(lambda: log.checkpoints.made_at is not None and log.checkpoints.problem is None)
    verified(url)


def wait_until(claim: Any) -> None:
    end = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_nothing_is_signed_over_what_was_changed(place: Path) -> None:
    url = folder_url(place)
    signer = Checkpointer(url, KEY, run=False)
    with appending(url, name="good") as good, appending(url, name="bad") as bad:
        for number in range(4):
            good.append_now(body(f"good {number}"))
            bad.append_now(body(f"bad {number}"))
        signer.make()
        signer.close()
        (segment,) = (place / "log").glob("bad-*.segment")
        tamper(segment, "UPDATE entries SET leaf = zeroblob(32) WHERE n = 1")
        good.append_now(body("good 4"))
        bad.append_now(body("bad 4"))
        signer = Checkpointer(url, KEY, run=False)
        made = signer.make()
    assert made is not None and [name.split("-")[0] for name in parse_heads(made.heads)] == ["good"]
    assert signer.problem == f"segment {segment.stem} is not what was signed, or has gaps"
    segment.unlink()
    signer.make()
    assert signer.problem == f"segment {segment.stem} is gone"
    signer.close()


def test_nothing_is_signed_after_checkpoints_that_were_changed(place: Path) -> None:
    url = folder_url(place)
    with appending(url, key=KEY) as log:
        log.append_now(body("1"))
    tamper(place / "log" / "log.db", "UPDATE checkpoints SET heads = replace(heads, ' 1 ', ' 2 ')", "UPDATE log SET tree = '0'")
    signer = Checkpointer(url, KEY, run=False)
    with pytest.raises(NoteError, match="do not lead to the last one that was signed"):
        signer.make()
    assert signer.attempt() is None and "do not lead" in str(signer.problem)
    signer.close()


def tamper(path: Path, *statements: str) -> None:
    """Change a file as somebody does who may."""
    connection = sqlite3.connect(path, isolation_level=None)
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_lost_summary_of_the_checkpoints_is_made_again(place: Path) -> None:
    url = folder_url(place)
    with appending(url, key=KEY) as log:
        log.append_now(body("1"))
    tamper(place / "log" / "log.db", "UPDATE log SET tree = '0'", "DELETE FROM heads")
    with appending(url, key=KEY) as log:
        log.append_now(body("2"))
    assert verified(url).segments == 2


def test_a_checkpoint_is_made_of_what_grew_within_a_second_or_so(url: str) -> None:
    with appending(url, key=KEY, checkpoint_every=0.02) as log, LogReader(url) as reader:
        for number in range(3):
            log.append_now(body(str(number)))
            wait_until(lambda done=number + 1: [one.proved for one in reader.segments()] == [done])
    storage = open_storage(url)
    last = storage.last_checkpoint()
    assert last is not None
    said = open_checkpoint(last.note, [verifier_key(storage.origin, KEY)])
    assert (said.origin, said.size) == (storage.origin, last.number + 1)
    storage.close()


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_reader_follows_what_others_write(url: str) -> None:
    with appending(url, name="a") as one, LogReader(url) as reader:
        assert reader.sizes() == {}
        for number in range(5):
            one.append_now(body(str(number)))
            assert list(reader.sizes().values()) == [number + 1]
        (name,) = reader.sizes()
        assert [(entry.index, entry.body["id"]) for entry in reader.entries(name, 3)] == [(3, "3"), (4, "4")]
        assert [entry.index for entry in reader.entries(name, 1, 2)] == [1, 2]
        assert list(reader.entries(name, 9)) == [] and list(reader.entries("nothing-there")) == []
        found = reader.entry(name, 2)
        assert found is not None and found.body is not None and found.body["id"] == "2"
        assert reader.entry(name, 5) is None


def test_entries_are_found_by_what_they_say(url: str) -> None:
    for name in "ab":
        with appending(url, name=name) as log:
            log.append_now(*(body(f"{name}{number}", at=1000.0 + 10 * number, patient=f"patient {number % 3}") for number in range(2500)))
    with LogReader(url) as reader:
        found = reader.find("b7")
        assert found is not None and found.segment.startswith("b-") and found.index == 7
        assert reader.find("b7777") is None
        of_one = reader.matching(lambda body: body["patient"] == "patient 1", containing="patient 1")
        assert len(of_one) == 2 * 833 and [one.at for one in of_one] == sorted(one.at for one in of_one)
        newest = reader.matching(newest=3)
        assert [one.body["id"] for one in newest if one.body] == ["b2498", "a2499", "b2499"]
        since = reader.matching(since=25_900.0)
        assert [one.body["id"] for one in since if one.body] == [f"{name}{number}" for number in range(2490, 2500) for name in "ab"]


def test_of_an_act_the_last_entry_is_found(url: str) -> None:
    with appending(url) as log:
        log.append_now(body("act", state="asked", at=5.0), body("other"), body("act", state="done", at=5.0))
    with LogReader(url) as reader:
        assert [one.body["state"] for one in reader.find_all("act") if one.body] == ["asked", "done"]
        found = reader.find("act")
        assert found is not None and found.body is not None and found.body["state"] == "done"


PACK_ENTRY = {
    "kind": "pack", "id": "p", "at": 1.0, "digest": "d" * 64, "name": "small", "version": "1",
    "slices": {
        "professional/read": {"facts": {"consent.blocked": [0, 1, [False, True]], "matrix.read": [1, 2, ["no", "yes", "ask"]]}, "cells": ["matrix.read"]},
    },
    "outcomes": [
        {"rule": "", "decision": "not_applicable", "discreet": False, "legal_basis": "", "words": {}},
        {"rule": "R1", "decision": "permit", "discreet": False, "legal_basis": "art. 1", "words": {"en": "You may."}},
        {"rule": "R2", "decision": "refuse", "discreet": True, "legal_basis": "art. 2", "words": {"en": "You may not."}},
    ],
}  # fmt: skip
DECISION = {
    "kind": "decision", "id": "x", "at": 2.0, "caller": "store-1", "patient": "P", "request": "R-1", "token": "7.3", "pack": "d" * 64, "mode": "list",
    "subject": {"type": "professional", "id": "10", "properties": {"profession": "physician", "structure": "75"}}, "action": {"name": "read"},
    "context": {"purpose": "care"}, "items": [["DOC-1", "report", 0b100, 1, "A"], ["DOC-2", "report", 0b011, 2, "R"], ["DOC-3", None, 0b100, 1, "A"]],
    "withheld": [2],
}  # fmt: skip


def test_codes_are_said_in_the_words_of_their_pack(url: str) -> None:
    with appending(url) as log:
        log.append_now(json.dumps(PACK_ENTRY).encode(), json.dumps(DECISION).encode())
    with LogReader(url) as reader:
        said = reader.readable(DECISION)["items"]
        assert said[0] == {
            "resource": "DOC-1", "type": "report", "decision": "permit", "rule": "R1", "legal_basis": "art. 1", "discreet": False, "words": {"en": "You may."},
            "facts": {"consent.blocked": False, "matrix.read": "ask"}, "cells": {"matrix.read": "A"},
        }  # fmt: skip
        assert said[1]["facts"] == {"consent.blocked": True, "matrix.read": "yes"} and said[1]["rule"] == "R2"
        assert reader.readable({**DECISION, "pack": "of another log"})["items"] == DECISION["items"]
    for broken in ({"items": [["DOC-1", None, 0, 9, ""]]}, {"items": [[1]]}, {"items": "text"}, {"items": [["DOC-1", None, "x", 1, ""]]}):
        assert readable(DECISION | broken, PACK_ENTRY)["items"] == broken["items"], "what does not fit stays as it was"


def test_an_entry_that_is_no_json_is_read_as_such(url: str) -> None:
    with appending(url) as log:
        log.append_now(b"\xff", b"[1]", body("2"))
    with LogReader(url) as reader:
        (name,) = reader.sizes()
        assert [one.body if one.body is None else one.body["id"] for one in reader.entries(name)] == [None, None, "2"]
        assert reader.find("2") is not None
    verified(url)


# --- FHIR ------------------------------------------------------------------------------------------------------------

OTHERS: list[dict[str, Any]] = [
    {"kind": "search", "searched": "subject", **{key: value for key, value in DECISION.items() if key not in ("kind", "request", "withheld")}},
    {"kind": "outcome", "decision": "x", "document": "DOC-1", "outcome": "shown", "patient": "P", "caller": "store-1"},
    {"kind": "outcome", "decision": "x", "document": "DOC-1", "outcome": "shown", "caller": "store-1"},
    {"kind": "outcome", "decision": "x", "document": "DOC-2", "outcome": "not_shown", "caller": "store-1"},
    {"kind": "read", "caller": "shell:root", "what": "show", "patient": "P"},
    {"kind": "expunge", "caller": "shell:root", "expunged": {"a": [[0, 3]]}},
    {"kind": "refused", "caller": "store-1", "why": "it may not claim that"},
    {"kind": "something new"},
    PACK_ENTRY,
]


@pytest.mark.parametrize("said", [DECISION, *OTHERS], ids=lambda said: f"{said['kind']}-{said.get('outcome', '')}")
@pytest.mark.parametrize("pack", [PACK_ENTRY, None], ids=["known", "unknown"])
def test_every_entry_is_an_audit_event(said: dict[str, Any], pack: dict[str, Any] | None) -> None:
    from fhir.resources.R4B.auditevent import AuditEvent

    from engine.decision_log.balp import audit_events

    for event in audit_events(readable({"id": "x1", "at": 1_764_000_000.5} | said, pack), "log.example/dmp"):
        AuditEvent.model_validate_json(json.dumps(event))
        profiles = event.get("meta", {}).get("profile", [])
        codes = [agent["type"]["coding"][0]["code"] for agent in event["agent"]]
        entities = [one["type"]["code"] for one in event.get("entity", ())]
        if any(one.endswith("AuthZconsent") for one in profiles):
            assert codes == ["110150", "IRCP", "PROV", "authserver"] and event["type"]["code"] == "110113" and event["action"] == "E"
            assert entities == ["1", "Consent"], "the profile allows no other entity"
            assert event["outcome"] in "08" and event["subtype"][0]["code"] == "AuthZ-Consent" and "network" in event["agent"][0]
        if any(one.endswith("Read") for one in profiles):
            assert codes == ["110152", "110153"] and all("network" in agent for agent in event["agent"])
            assert (event["type"]["code"], event["action"], event["outcome"]) == ("rest", "R", "0")
            assert entities == (["1", "2"] if profiles[0].endswith("PatientRead") else ["2"])


def test_a_list_is_one_event_for_each_outcome() -> None:
    from engine.decision_log.balp import audit_events

    events = audit_events(readable(DECISION, PACK_ENTRY), "log.example/dmp")
    assert [(one["id"], one["outcome"], one["outcomeDesc"]) for one in events] == [
        ("x", "0", "permit by R1; art. 1; You may."),
        ("x-1", "8", "refuse by R2; art. 2; You may not."),
        ("x-2", "8", "permit by R1; art. 1; You may.; withheld: the caller does not do what the permit obliges it to"),
    ]
    assert [one["entity"][1]["detail"][-1] for one in events] == [
        {"type": "report", "valueString": "DOC-1"}, {"type": "report", "valueString": "DOC-2"}, {"type": "resource", "valueString": "DOC-3"},
    ]  # fmt: skip
    assert events[0]["entity"][1]["what"]["identifier"]["value"] == "7.3" and events[0]["recorded"] == "1970-01-01T00:00:02.000+00:00"
    assert audit_events(DECISION, "log.example/dmp")[0].get("outcome") is None, "without its pack, nobody can say"


# --- expunging -------------------------------------------------------------------------------------------------------


def test_what_is_expunged_is_gone_and_the_rest_verifies(url: str, place: Path) -> None:
    from engine.decision_log.expunge import expunge

    secret = "SECRET-7351"
    with appending(url, name="old", key=KEY) as log:
        log.append_now(json.dumps(PACK_ENTRY).encode(), *(body(str(number), at=float(number), patient=secret) for number in range(1, 2101)))
    with appending(url, name="both", key=KEY) as log:
        log.append_now(body("o", at=5.0, patient=secret), body("n", at=9e9), body("o2", at=6.0, patient=secret))
    assert [len(one.indexes) for one in expunge(url, 1_000_000.0, 8e9, "shell:me")] == [2, 2100]
    assert expunge(url, 1_000_000.0, 8e9, "shell:me") == [], "nothing is left to expunge"
    with LogReader(url) as reader:
        kept = [entry.body for name in reader.sizes() for entry in reader.entries(name) if entry.body]
        assert [one["kind"] for one in kept] == ["decision", "expunge", "pack"]
        spans = kept[1]["expunged"]
    assert sorted(spans.values()) == [[[0, 1], [2, 3]], [[1, 2101]]] and kept[1]["before"] == 1_000_000.0
    report = verified(url)
    assert (report.expunged, report.entries) == (2102, 2105)
    if url.startswith("sqlite"):
        assert all(secret.encode() not in one.read_bytes() for one in (place / "log").iterdir())


def test_expunging_waits_for_no_writer(place: Path) -> None:
    """The segment is in use, and goes on."""
    from engine.decision_log.expunge import expunge

    url = folder_url(place)
    with appending(url, key=KEY, checkpoint_every=0.02) as log:
        log.append_now(*(body(str(number), at=1.0) for number in range(100)))
        expunge(url, 2.0, 3.0, "shell:me")
        log.append_now(body("after"))
    assert verified(url).expunged == 100


def test_what_was_announced_and_not_expunged_is_expunged_the_next_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.decision_log.expunge import expunge
    from engine.decision_log.sqlite import SqliteStorage

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    url = folder_url(place)
    with appending(url, key=KEY) as log:
        log.append_now(body("old", at=1.0))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SqliteStorage, "expunge", killed)
        expunge(url, 2.0, 3.0, "shell:me")
    assert verified(url).expunged == 0
    assert len(expunge(url, 2.0, 3.0, "shell:me")) == 1
    assert verified(url).expunged == 1


# --- the command -----------------------------------------------------------------------------------------------------


def habilis(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["log", *(str(one) for one in arguments)], catch_exceptions=False)


@pytest.fixture
def shell(url: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log with a pack, a decision and an access, all proved, a file of keys; and its address in the environment."""
    monkeypatch.setenv("HABILIS_LOG", url)
    assert habilis("init", "--origin", "log.example/dmp").output == "the log is ready: log.example/dmp\n"
    (place / "keys").write_text("# keys\n" + habilis("key", place / "key.pem").output)
    with appending(url, name="worker-1") as log:
        log.append_now(*(json.dumps(one).encode() for one in (PACK_ENTRY, DECISION, {"id": "o", "at": 3.0, **OTHERS[1]})))
    assert habilis("sign", "--key", place / "key.pem").output == "checkpoint 0\n"
    return place


def test_a_log_is_made_verified_shown_and_proved_from_a_shell(shell: Path, url: str) -> None:
    keys = ("--keys", shell / "keys")
    assert stat.S_IMODE((shell / "key.pem").stat().st_mode) == 0o600
    assert habilis("key", shell / "key.pem").output in (shell / "keys").read_text(), "a key that is there is kept"
    result = habilis("verify", *keys)
    assert (result.exit_code, result.output) == (
        0,
        "log.example/dmp: 3 entries in 1 segments, 1 checkpoints\n  proved 3; durable, not yet proved 0; expunged 0\n  nothing was found\n",
    )
    shown = habilis("show", "--id", "x")
    assert "DOC-1: permit by R1 (art. 1), cell matrix.read A; matrix.read=ask" in shown.output
    assert "DOC-2: refuse by R2" in shown.output and "DOC-3: permit (withheld) by R1" in shown.output
    assert [one["kind"] for one in json.loads(habilis("show", "--patient", "P", "--json").output)] == ["decision", "outcome"]
    events = [json.loads(line) for line in habilis("show", "--fhir", "--patient", "P").output.splitlines()]
    assert {one["resourceType"] for one in events} == {"AuditEvent"}
    with LogReader(url) as reader:
        reads = [one.body for one in reader.matching(lambda body: body["kind"] == "read")]
    assert [(one["what"], one.get("of"), one.get("patient")) for one in reads] == [("show", "x", None), ("show", None, "P"), ("show", None, "P")]
    kept, proof = shell / "kept", shell / "proof"
    kept.write_text(habilis("checkpoint").output)
    proof.write_text(habilis("prove", "x").output)
    assert habilis("verify", *keys, "--proof", proof).output.startswith("proved: worker-1-")
    proof.write_text(proof.read_text().replace("DOC-1", "DOC-9"))
    result = habilis("verify", *keys, "--proof", proof)
    assert (result.exit_code, result.output) == (1, "not proved: the entry is not in the segment that was signed\n")
    assert "not yet proved" in habilis("prove", reads[0]["id"]).output
    assert habilis("sign", "--key", shell / "key.pem").exit_code == 0
    proof.write_text(habilis("prove", "--since", kept).output)
    assert habilis("verify", *keys, "--proof", proof).output == "proved: an earlier checkpoint is in log.example/dmp at checkpoint 1\n"
    assert habilis("verify", *keys, "--since", kept).exit_code == 0


def test_a_shell_is_told_of_findings_and_of_misuse(shell: Path, url: str) -> None:
    (shell / "other-keys").write_text(str(verifier_key("log.example/dmp", KEY)))
    result = habilis("verify", "--keys", shell / "other-keys", "--json")
    told = json.loads(result.output)
    assert (result.exit_code, told["fine"]) == (1, False)
    assert told["findings"] == [{"what": "signature", "message": "signed by no key that is known", "segment": None, "index": 0}]
    for arguments, message in (
        (("verify", "--keys", shell / "nothing"), "cannot use"),
        (("verify", "--keys", shell / "key.pem"), "not an Ed25519 verifier key"),
        (("prove",), "say what to prove"),
        (("show", "--since", "yesterday"), "is neither a date nor an instant"),
        (("show", "--patient", "12"), "patient: is not written like an identifier of a patient"),
        (("show", "--patient", "12", "--json"), "patient: is not written like an identifier of a patient"),
        (("expunge", "--before", "2999-01-01"), "only expunged before an instant that is past"),
        (("init", "--origin", "log.example/other"), "there is a log already, `log.example/dmp`"),
        (("key", shell / "keys"), "not an Ed25519 private key"),
        (("show", "--log", "mysql://x/y"), "not in `mysql`"),
    ):
        result = habilis(*arguments)
        assert result.exit_code == 2 and message in result.stderr, (arguments, result.output)
    assert habilis("prove", "nothing").exit_code == 1
    for patient in (("--patient", "279035121518989"), ("--patient", "34", "--pack", shell / "none")):
        assert habilis("show", *patient).output == "no entry\n"


def test_what_cannot_be_logged_is_not_shown(shell: Path, url: str) -> None:
    if not url.startswith("sqlite"):
        pytest.skip("a folder that nobody may write")
    folder = shell / "log"
    shell.chmod(0o755)
    for one in (folder, *folder.iterdir()):
        os.chown(one, NOBODY if os.geteuid() == 0 else -1, -1)
    folder.chmod(0o500)
    with acting_as_nobody():
        result = habilis("show", "--id", "x")
    assert result.exit_code == 2 and "DOC-1" not in result.output


def test_a_shell_expunges(shell: Path) -> None:
    assert habilis("expunge", "--before", "1971-01-01", "--dry-run").output.endswith("2 entries made before 1971-01-01T00:00:00+00:00 would be expunged\n")
    assert habilis("expunge", "--before", "1971-01-01").output.endswith("2 entries made before 1971-01-01T00:00:00+00:00 were expunged\n")
    assert "expunged 2" in habilis("verify", "--keys", shell / "keys").output
    assert habilis("show", "--id", "x").output == "no entry\n"


def test_identifiers_of_threads_and_children_are_their_own() -> None:
    taken: list[list[str]] = []
    threads = [threading.Thread(target=lambda: taken.append([new_id() for _ in range(20_000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [id for several in taken for id in several]
    assert len(set(ids)) == len(ids) == 80_000 and {len(id) for id in ids} == {26}
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 26).decode() not in {new_id() for _ in range(200)}
