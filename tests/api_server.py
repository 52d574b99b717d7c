"""A real decision service for tests: `habilis serve` as a process of its own, on loopback, with a file of callers, stopped when the test is done.

The pack is compiled once for each test process, which saves every server a second.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from engine.compiled import dump
from engine.pdp import load_pdp

ROOT = Path(__file__).parent.parent
PATIENT = "279035121518989"
OTHER_PATIENT = "189012A01234513"
NURSE, PHYSICIAN = "10000023092", "10000023084"

ROLES = ("store", "consent_desk", "officer", "reviewer", "portal")
"""One caller for each role, called like it, may say anything of anybody."""


def key_of(name: str) -> str:
    return f"KEY-{name}-" + hashlib.sha256(name.encode()).hexdigest()[:32]


def write_callers(path: Path, more: str = "") -> None:
    """A file of callers with one for each role, and whatever else a test wants."""
    lines = []
    for name in ROLES:
        digest = hashlib.sha256(key_of(name).encode()).hexdigest()
        lines += [f"[caller.{name}]", f'key_sha256 = ["{digest}"]', f'roles = ["{name}"]', 'subjects = { "*" = "*" }', 'claims = { "*" = "*" }', ""]
    path.write_text("\n".join(lines) + more)


@functools.cache
def compiled_pack() -> Path:
    """The French pack as a file that loads in a tenth of a second."""
    path = Path(tempfile.mkdtemp(prefix="habilis-pack-")) / "dmp-fr.habilis"
    path.write_bytes(dump(load_pdp(ROOT / "policies")))
    return path


@dataclass
class Server:
    """A running service. `folder` holds its store, its log and its file of callers."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    environment: Mapping[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, caller: str | None = "store", **more: object) -> httpx.Client:
        """A client that calls as one of the file; as nobody for `None`."""
        headers = {} if caller is None else {"authorization": f"Bearer {key_of(caller)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, **more)  # type: ignore[arg-type]

    def kill(self) -> None:
        """As if the power failed: the process and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """As an operator does. Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            self.kill()

    def output(self) -> str:
        return (self.folder / "serve.log").read_text(errors="replace")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(folder: Path, callers: str = "", **settings: str) -> Server:
    """Start a service on what is in the folder (made, where it is not there), and wait until it is ready. Settings as HABILIS_ variables, in small letters."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "callers.toml"
    if not file.exists():
        write_callers(file, callers)
    port = free_port()
    given = {
        "pack": str(compiled_pack()),
        "store": f"sqlite:///{folder}/consent.db",
        "log": f"sqlite:///{folder}/decision-log",
        "journal": f"sqlite:///{folder}/journal.db",
        "log_key": f"{folder}/log-key.pem",
        "callers": str(file),
        "create": "true",
        "port": str(port),
        "public_url": "https://pdp.example",
    } | settings
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HABILIS_")}
    environment |= {f"HABILIS_{key.upper()}": value for key, value in given.items()}
    with (folder / "serve.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "cli.main", "serve"], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    server = Server(process, port, folder, environment)
    _wait(server)
    return server


def _wait(server: Server, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise AssertionError(f"the service ended with {server.process.returncode}: {server.output()}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(server.url + "/health/ready", timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.05)
    server.kill()
    raise AssertionError(f"the service was not ready after {seconds:g} seconds: {server.output()}")


@contextlib.contextmanager
def serving(folder: Path, callers: str = "", **settings: str) -> Iterator[Server]:
    """A service for as long as the block lasts."""
    server = start(folder, callers, **settings)
    try:
        yield server
    finally:
        server.stop()
