"""The second half of `habilis demo`: the decision service, over real HTTP, from a permit to the proof of the log that holds it.

A service is started on a free port of this machine with everything in a temporary folder, asked with the files of examples/http, and stopped.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "http"
ACT, DECIDE, JOURNAL = "/consent/v1/acts", "/access/v1/evaluation", "/journal/v1/accesses"

STEPS = (
    ("The holder opens her record", ACT, "open", True),
    ("She lets a nurse consult it", ACT, "grant", True),
    ("The nurse reads laboratory results", DECIDE, "read", True),
    ("She blocks him", ACT, "block", True),
    ("The same question, a moment later", DECIDE, "read", False),
)


def lines(language: str = "en") -> tuple[list[str], bool]:
    """What was asked and answered, as text, and whether every answer was the expected one."""
    with TemporaryDirectory(prefix="habilis-") as folder:
        with _serving(Path(folder)) as url:
            shown, fine = [f"The decision service, over HTTP at {url} (AuthZEN 1.0); every answer below was in the log before it left:", ""], True
            for title, path, name, expected in STEPS:
                told = _post(url + path, (EXAMPLES / f"{name}.json").read_bytes())
                fine &= told["decision"] is expected
                shown.append(f"  {title + ':':<38}{'PERMIT' if told['decision'] else 'REFUSE'}: {told['context']['reason_user'][language]}")
            shown += ["", "  Her journal:", *_journal(url), ""]
        verified = subprocess.run(
            [sys.executable, "-m", "cli.main", "log", "verify", "--log", f"sqlite:///{folder}/decision-log", "--keys", f"{folder}/log-key.pub"],
            capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
    shown += ["  The log, once the service has stopped (`habilis log verify`):", *(f"    {line}" for line in verified.stdout.splitlines()), ""]
    return shown, fine and verified.returncode == 0


def _journal(url: str) -> Iterator[str]:
    """The journal follows the log by a second or so."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        time.sleep(1.5)
        traces = _post(url + JOURNAL, (EXAMPLES / "journal.json").read_bytes())["accesses"]
        if any(one["action"] == "read" for one in traces):
            break
    for one in traces:
        subject, about = one["subject"], f" {one['document']['id']}" if one.get("document") else ""
        first = ", first access" if one.get("first_access") else ""
        yield f"    {one['at'][:19]}  {subject['type']} {subject['id']}: {one['action']}{about} ({one['status']}{first})"


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HABILIS_")}
    command = [sys.executable, "-m", "cli.main", "serve", "--open", "--create", "--data", str(folder), "--pack", str(ROOT / "policies"), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url + "/health/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the service did not start")


def _post(url: str, body: bytes) -> dict[str, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{url}: {error.code} {error.read().decode()}") from None
