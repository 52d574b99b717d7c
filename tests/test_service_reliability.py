"""The service when something dies, fills up, freezes or goes away under it: real processes, killed, on real disks and servers that fail.

Whatever happens, an answer is whole or there is none; every decision that was told is in the log, which verifies; what cannot be decided or logged is 503 and
says nothing more; and all goes on by itself when the cause is gone.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from api_load import QUESTIONS, Answer, Connection, Load, connected, request, several
from api_questions import ONE, SEVERAL, document, open_record, patient, professional, question, record, target
from api_server import NURSE, Server, serving, start

from engine.consent.identifiers import luhn
from engine.decision_log.checkpoint import parse_keys
from engine.decision_log.read import LogReader
from engine.decision_log.storage import open_storage
from engine.decision_log.verify import verify

if TYPE_CHECKING:
    from servers import Postgres, Redis

pytest_plugins = ["servers"]

ACTS = "/consent/v1/acts"
LIVE, READY, METADATA = "/health/live", "/health/ready", "/.well-known/authzen-configuration"


def log_of(server: Server) -> str:
    return server.environment["HABILIS_LOG"]


def logged_ids(server: Server) -> list[str]:
    """The identifiers of all decisions in the log."""
    with LogReader(log_of(server)) as log:
        return [one.body["id"] for name in log.sizes() for one in log.entries(name) if one.body is not None and one.body["kind"] == "decision"]


def assert_kept(server: Server, told: list[str]) -> None:
    """Every decision that was told is in the log, none twice, and the log is what was signed, by the key that the service published."""
    ids = logged_ids(server)
    assert len(set(ids)) == len(ids), "an entry stands twice in the log"
    lost = set(told) - set(ids)
    assert not lost, f"{len(lost)} of {len(set(told))} decisions were told and are not in the log"
    assert told, "nothing was told, so this shows nothing"
    storage = open_storage(log_of(server))
    try:
        report = verify(storage, parse_keys((server.folder / "log-key.pub").read_text()))
    finally:
        storage.close()
    assert report.is_fine, "; ".join(map(str, report.findings))
    assert report.proved > 0


def get(server: Server, path: str) -> Answer:
    with connected(server) as connection:
        return connection.ask(path, caller=None, method="GET")


def try_act(server: Server, name: str = "block", id: str = "10000023134") -> Answer:
    """An act of the patient's, that may fail."""
    asked = {"subject": patient(), "action": {"name": name, "properties": target(id)}, "resource": record(), "context": {}}
    with connected(server) as connection:
        return connection.ask(ACTS, asked, caller="consent_desk")


def assert_out(server: Server, load: Load, acts: bool = True) -> None:
    """No decision is to be had, and nothing else suffers."""
    load.wait_for_more(20, 503)
    wait_for(lambda: get(server, READY).status == 503, "it says that it is ready")
    assert "retry-after" in get(server, READY).headers
    assert [get(server, path).status for path in (LIVE, METADATA)] == [200, 200]
    if acts:
        tried = try_act(server)
        assert tried.status == 503 and "retry-after" in tried.headers and isinstance(tried.json(), str), tried


def assert_back(server: Server, load: Load) -> None:
    """By itself: nobody restarted anything."""
    load.wait_for_more(50)
    assert get(server, READY).status == 200
    assert server.process.poll() is None


# --- killed ----------------------------------------------------------------------------------------------------------


def kill_under_load(place: Path, rounds: int) -> None:
    """Let clients ask, kill the service at any moment, start it again on what is left; again and again."""
    chance = random.Random(rounds)
    told: list[str] = []
    server = start(place / "service")
    try:
        open_record(server)
        for _ in range(rounds):
            with Load(server.port) as load:
                load.wait_for_more(chance.randrange(1, 150))
                time.sleep(chance.random() * 0.01)
                server.kill()
            assert set(load.statuses) <= {200, 0} and not load.faults, (load.statuses, load.faults)
            told += load.ids
            began = time.monotonic()
            server = start(place / "service")
            assert time.monotonic() - began < 30, "it took long to start again"
    finally:
        server.stop()
    assert_kept(server, told)


def test_a_service_that_is_killed_under_load_has_logged_every_decision_that_it_told(place: Path) -> None:
    kill_under_load(place, 10)


@pytest.mark.long
def test_a_service_that_is_killed_hundreds_of_times_has_logged_every_decision(place: Path) -> None:
    kill_under_load(place, 200)


def workers_of(server: Server) -> list[int]:
    """The processes that answer, of a service that has several."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True).stdout.splitlines()
    several = [line.split(None, 2) for line in listed]
    return [int(pid) for pid, parent, command in several if int(parent) == server.process.pid and "spawn_main" in command]


def wait_for(claim: Callable[[], Any], otherwise: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < until, otherwise
        time.sleep(0.02)


def kill_workers(place: Path, rounds: int) -> None:
    """Kill one worker of two at any moment: the other goes on, and soon there are two again."""
    chance = random.Random(rounds)
    with serving(place / "service", workers="2") as server:
        open_record(server)
        with Load(server.port) as load:
            for _ in range(rounds):
                wait_for(lambda: len(workers_of(server)) == 2 and len(serving_workers(server)) >= 2, "there are not two workers")
                load.wait_for_more(chance.randrange(50, 150))
                killed = chance.choice(workers_of(server))
                os.kill(killed, signal.SIGKILL)
                load.wait_for_more(20)
                wait_for(lambda gone=killed: gone not in workers_of(server), "the worker lives")
            wait_for(lambda: len(serving_workers(server)) == 2, "no worker came in the place of the killed one")
        assert set(load.statuses) <= {200, 0} and not load.faults, (load.statuses, load.faults)
    assert_kept(server, load.ids)


def serving_workers(server: Server) -> set[int]:
    """The workers that have opened the log: they answer."""
    with LogReader(log_of(server)) as log:
        names = log.sizes()
    return {pid for pid in workers_of(server) if any(name.startswith(f"worker-{pid}-") for name in names)}


def test_a_worker_that_is_killed_is_replaced_while_the_other_answers(place: Path) -> None:
    kill_workers(place, 2)


@pytest.mark.long
def test_workers_that_are_killed_again_and_again_are_replaced(place: Path) -> None:
    kill_workers(place, 50)


def test_workers_do_not_outlive_the_process_that_watches_over_them(place: Path) -> None:
    with serving(place / "service", workers="2") as server:
        several = workers_of(server)
        assert len(several) == 2
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        wait_for(lambda: not any(map(is_alive, several)), "a worker is left, and keeps the port")


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and that nobody asked about does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


# --- the decision log ------------------------------------------------------------------------------------------------


Way = tuple[Callable[[], object], Callable[[], object]]
"""How something fails, and how it is mended."""


def fail_and_mend(server: Server, *ways: Way, clients: int = 4, acts: bool = True) -> Load:
    """Decisions end with 503 and come back by themselves, whatever happens; nothing that was told is lost. Returns what the clients saw."""
    open_record(server)
    with Load(server.port, clients, pause=0.002) as load:
        for fail, mend in ways:
            load.wait_for_more(50)
            fail()
            assert_out(server, load, acts)
            mend()
            assert_back(server, load)
    assert set(load.statuses) == {200, 503} and not load.faults, (load.statuses, load.faults)
    server.stop()
    assert_kept(server, load.ids)
    return load


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of 8 MB at this folder, if it can be mounted, which takes root; an ordinary folder otherwise."""
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "habilis-test", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path) -> None:
    """Take what is left of a disk."""
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def unprivileged(function: Callable[[], Server]) -> Server:
    """Start something of which permissions of files are asked, even though root runs it (Linux): in a thread, since that cannot be taken back."""
    made: list[Server] = []

    def run() -> None:
        for capability in (1, 2) if os.geteuid() == 0 else ():  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            assert ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP
        made.append(function())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return made[0]


def test_without_a_log_to_write_there_is_no_decision_until_there_is_one(place: Path) -> None:
    """A disk that is full, files that may not grow (a quota, a disk that refuses writes), a folder that is moved away, one that nobody may write."""
    with small_disk(place / "disk") as is_small:
        ballast, folder, elsewhere, kept = (place / "disk" / name for name in ("ballast", "log", "elsewhere", "kept"))
        kept.mkdir()
        server = unprivileged(lambda: start(place / "service", log=f"sqlite:///{folder}"))

        def limit(size: int) -> None:
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        def close_folder() -> None:
            """What is open could still be written: it is taken away, so that another segment must be begun."""
            folder.chmod(0o500)
            with connected(server) as connection:
                assert [connection.ask(ONE, question()).status for _ in range(20)] == [200] * 20
            for one in folder.glob("worker-*"):
                one.rename(kept / one.name)

        def open_folder() -> None:
            for one in list(kept.iterdir()):
                one.rename(folder / one.name)
            folder.chmod(0o700)

        full: list[Way] = [(lambda: fill(ballast), ballast.unlink)] * 2 if is_small else []
        limited: Way = (lambda: limit(0), lambda: limit(resource.RLIM_INFINITY))
        moved: Way = (lambda: folder.rename(elsewhere), lambda: elsewhere.rename(folder))
        try:
            fail_and_mend(server, *full, limited, moved, (close_folder, open_folder))
        finally:
            server.stop()


def test_a_log_server_that_is_frozen_means_no_decision_until_it_is_back(place: Path, postgres: Postgres) -> None:
    with serving(place / "service", log=postgres.new_place()) as server:
        fail_and_mend(server, (postgres.freeze, postgres.thaw))


# --- the consent store -----------------------------------------------------------------------------------------------


def test_without_a_store_to_read_there_is_no_decision_until_there_is_one(place: Path) -> None:
    """A file that is moved away; one that nobody may write, and that is opened again, since what is open stays as it was opened."""
    store, away = place / "store", place / "elsewhere"
    server = unprivileged(lambda: start(place / "service", store=f"sqlite:///{store}/consent.db"))

    def close() -> None:
        for one in store.iterdir():
            one.chmod(0o400)
        store.chmod(0o500)
        store.rename(away)
        wait_for(lambda: get(server, READY).status == 503, "it says that it is ready")
        away.rename(store)

    def reopen() -> None:
        store.chmod(0o700)
        for one in store.iterdir():
            one.chmod(0o600)

    try:
        fail_and_mend(server, (lambda: store.rename(away), lambda: away.rename(store)), (close, reopen))
    finally:
        server.stop()


def test_a_store_server_that_is_frozen_means_no_decision_and_nobody_waits_for_it_for_long(place: Path, postgres: Postgres) -> None:
    """More requests than there are threads to wait for the server, of which each gives up after 2 seconds, twice."""
    with serving(place / "service", store=postgres.new_place()) as server:
        load = fail_and_mend(server, (postgres.freeze, postgres.thaw), clients=32)
    assert load.slowest < 15


def test_servers_that_are_stopped_mean_no_decision_until_they_are_back(place: Path, postgres: Postgres) -> None:
    with serving(place / "service", store=postgres.new_place(), log=postgres.new_place()) as server:
        fail_and_mend(server, (postgres.kill, postgres.start))


def test_a_cache_that_is_gone_or_frozen_changes_nothing(place: Path, redis_server: Redis) -> None:
    with serving(place / "service", redis=redis_server.url()) as server:
        open_record(server)
        with Load(server.port, pause=0.002) as load:
            for fail, mend in ((redis_server.kill, redis_server.start), (redis_server.freeze, redis_server.thaw)):
                load.wait_for_more(50)
                fail()
                load.wait_for_more(50)
                assert try_act(server).status == 200
                load.wait_for_more(50)
                assert get(server, READY).status == 200
                mend()
        assert set(load.statuses) == {200} and not load.faults, (load.statuses, load.faults)
        with connected(server) as connection:
            assert connection.ask(ONE, question()).json()["decision"]
    assert_kept(server, load.ids)


# --- freshness -------------------------------------------------------------------------------------------------------


class Round:
    """What A acknowledged last, and what every answer of B said, by revision."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.said: list[tuple[int, bool]] = []
        self.stale: list[str] = []
        self.stopped = threading.Event()

    def ask(self, connection: Connection, number: int) -> bool:
        """Ask B whether a nurse may read: it must know what was acknowledged before."""
        floor = self.acknowledged
        answer = connection.ask(ONE, question(professional(NURSE), resource=document(f"DOC-{number % 7}"))).json()
        revision = int(answer["context"]["consent_token"].partition(".")[2])
        if revision < floor:
            self.stale.append(f"revision {revision} was answered after {floor} was acknowledged")
        self.said.append((revision, answer["decision"]))
        return bool(answer["decision"])

    def keep_asking(self, server: Server) -> None:
        try:
            with connected(server) as connection:
                for number in itertools.count():
                    if self.stopped.is_set():
                        return
                    self.ask(connection, number)
                    time.sleep(0.05)
        except Exception as error:
            self.stale.append(f"{type(error).__name__}: {error}")


def block_and_ask(place: Path, store: str, rounds: int, clients: int = 32) -> None:
    """B permits; A acknowledges a block; B is asked at once and refuses; A acknowledges its end; B permits. Others ask B all the time."""
    with serving(place / "a", store=store) as a, serving(place / "b", store=store) as b, connected(a) as desk, connected(b) as physician:
        open_record(a)
        seen = Round()
        others = [threading.Thread(target=seen.keep_asking, args=(b,)) for _ in range(clients)]
        for other in others:
            other.start()
        permitted: dict[int, bool] = {}

        def acknowledge(name: str, properties: object, allowed: bool) -> None:
            asked = {"subject": patient(), "action": {"name": name, "properties": properties}, "resource": record(), "context": {}}
            answer = desk.ask(ACTS, asked, caller="consent_desk").json()
            assert answer["decision"], answer
            revision = int(answer["context"]["consent_token"].partition(".")[2])
            permitted[revision] = allowed
            seen.acknowledged = revision

        try:
            acknowledge("grant_access", target(NURSE), True)
            for number in range(rounds):
                assert seen.ask(physician, number), f"round {number}: refused before the block"
                acknowledge("block", target(NURSE), False)
                assert not seen.ask(physician, number), f"round {number}: permitted after the block was acknowledged"
                acknowledge("unblock", target(NURSE), True)
        finally:
            seen.stopped.set()
            for other in others:
                other.join()
    assert not seen.stale, seen.stale[0]
    assert len(seen.said) > 3 * rounds, "hardly anybody asked meanwhile"
    assert [(revision, said) for revision, said in seen.said if permitted.get(revision, False) is not said] == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_block_that_one_service_acknowledged_is_honoured_by_the_other_at_once(place: Path, request: pytest.FixtureRequest, kind: str) -> None:
    store = f"sqlite:///{place}/store/consent.db" if kind == "sqlite" else request.getfixturevalue("postgres").new_place()
    block_and_ask(place, store, 150)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_thousands_of_blocks_are_honoured_at_once(place: Path, request: pytest.FixtureRequest, kind: str) -> None:
    store = f"sqlite:///{place}/store/consent.db" if kind == "sqlite" else request.getfixturevalue("postgres").new_place()
    block_and_ask(place, store, 5_000)


# --- the end ---------------------------------------------------------------------------------------------------------


def stop_under_load(place: Path, times: int, **settings: str) -> None:
    """Stop the service as an operator does, while clients ask for long lists too: what is answered is whole, what is whole is logged."""
    questions = (*QUESTIONS, request(SEVERAL, several(500)))
    told: list[str] = []
    for _ in range(times):
        with serving(place / "service", **settings) as server:
            if not told:
                open_record(server)
            with Load(server.port, clients=8, questions=questions) as load:
                load.wait_for_more(100)
                began = time.monotonic()
                assert server.stop() in (0, -signal.SIGTERM)
                assert time.monotonic() - began < 25, "it took long to end"
            assert set(load.statuses) <= {200, 0} and not load.faults, (load.statuses, load.faults)
            told += load.ids
    assert_kept(server, told)


def test_a_service_that_is_stopped_answers_what_it_began_or_closes(place: Path) -> None:
    stop_under_load(place, 2)


@pytest.mark.long
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_that_is_stopped_many_times_answers_what_it_began_or_closes(place: Path, workers: str) -> None:
    stop_under_load(place, 20, workers=workers)


def test_a_service_that_is_stopped_while_a_slow_client_reads_lets_it_finish(place: Path) -> None:
    """An answer that no buffer of the machine holds whole."""
    with serving(place / "service", max_batch="20000", max_body="20000000") as server:
        open_record(server)
        with connected(server) as connection:
            connection.send(request(SEVERAL, several(20_000)))
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            answer = connection.read()  # fails on half of one
        assert server.process.wait(25) == -signal.SIGTERM
        assert answer is not None and len(answer.ids) == 20_000
    assert_kept(server, answer.ids)


@pytest.mark.parametrize("frozen", [("log",), ("journal",), ("store", "log", "journal")], ids="-".join)
@pytest.mark.long
def test_a_service_ends_though_its_servers_are_frozen(place: Path, postgres: Postgres, frozen: tuple[str, ...]) -> None:
    with serving(place / "service", follow="true", **{name: postgres.new_place() for name in frozen}) as server:
        open_record(server)
        with Load(server.port) as load:
            load.wait_for_more(500)
            postgres.freeze()
            time.sleep(0.5)
            began = time.monotonic()
            assert server.stop() == -signal.SIGTERM
            assert time.monotonic() - began < 25, "it took long to end"
        postgres.thaw()
        assert not load.faults, load.faults
    assert set(load.ids) <= set(logged_ids(server))


# --- memory ----------------------------------------------------------------------------------------------------------


def resident(server: Server) -> float:
    """Megabytes of memory that the service holds."""
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(server.process.pid)], capture_output=True, text=True, check=True).stdout) / 1024


class Variety:
    """Requests of which hardly two are alike: subjects, actions, documents, identifiers that nobody has used before; mistakes among them."""

    def __init__(self) -> None:
        self.numbers = itertools.count()

    def __getitem__(self, _: int) -> bytes:
        number = next(self.numbers)
        id = f"request-{number}"
        asked = question(professional(rpps(number % 1000)), resource=document(f"DOC-{number}"), justification=f"because {number}")
        match number % 10:
            case 0:
                return request(SEVERAL, several(20, number), id=id)
            case 1:
                return request(ONE, {**asked, "action": {"name": f"action-{number}"}}, id=id)
            case 2:
                return request(ONE, question(resource=document(patient=identifier(number % 500))), id=id)
            case _:
                return request(ONE, asked, id=id)

    def __len__(self) -> int:
        return 1


def identifier(number: int) -> str:
    """A patient's, written as it should be."""
    digits = f"1790351215{number:03}"
    return f"{digits}{97 - int(digits) % 97:02}"


def rpps(number: int) -> str:
    """A professional's."""
    return next(id for digit in range(10) if luhn(id := f"1{number:09}{digit}"))


def ask_for_long(place: Path, first: int, then: int, megabytes: float) -> None:
    """Memory after `then` requests is what it was after `first`, but for some megabytes."""
    with serving(place / "service") as server:
        open_record(server)
        with Load(server.port, questions=Variety(), kept=False) as load:  # type: ignore[arg-type]
            load.wait_for_more(first, seconds=600)
            before = resident(server)
            load.wait_for_more(then - first, seconds=3600)
            grown = resident(server) - before
        assert set(load.statuses) == {200} and not load.faults, (load.statuses, load.faults)
    assert grown < megabytes, f"{grown:.1f} MB more after {then - first} requests"


def test_memory_stays_flat_over_thousands_of_requests(place: Path) -> None:
    ask_for_long(place, 5_000, 20_000, 4)


@pytest.mark.long
def test_memory_stays_flat_over_a_million_requests(place: Path) -> None:
    ask_for_long(place, 100_000, 1_000_000, 10)
