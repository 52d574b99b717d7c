"""Where a command finds store, log and journal: as its options say, or the folder that holds everything, or the environment, as for `habilis serve`; and the
log, open for what a shell does and reads."""

from __future__ import annotations

import getpass
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from api.settings import KEY, Places, make_folder
from api.settings import places as said
from engine.decision_log.checkpoint import parse_private_key
from engine.decision_log.entries import entry
from engine.decision_log.log import DecisionLog

__all__ = ["Data", "JournalUrl", "LogUrl", "Places", "StoreUrl", "Where", "caller", "journal_at", "log_at", "log_reading", "make_folder", "store_at", "where"]

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="FOLDER", help="Where store, log and journal are, as SQLite files; habilis-data, when nothing is said.", show_default=False),
]
StoreUrl = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/DATABASE (HABILIS_STORE).", show_default=False)
]
LogUrl = Annotated[
    str | None, typer.Option("--log", metavar="URL", help="sqlite:///FOLDER or postgresql://USER@HOST/DATABASE (HABILIS_LOG).", show_default=False)
]
JournalUrl = Annotated[
    str | None, typer.Option("--journal", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/DATABASE (HABILIS_JOURNAL).", show_default=False)
]


def store_at(data: Path | None, store: str | None) -> str:
    """The URL of the consent store."""
    return Places(**said(data, store=store)).store.get_secret_value()


def log_at(data: Path | None, log: str | None) -> str:
    """The URL of the decision log."""
    return Places(**said(data, log=log)).log.get_secret_value()


def journal_at(data: Path | None, journal: str | None) -> str:
    """The URL of the journal."""
    return Places(**said(data, journal=journal)).journal.get_secret_value()


@dataclass(frozen=True, slots=True)
class Where:
    """A consent store and the log of what is done to it. `key`: what signs that log, where it is at hand."""

    store: str
    log: str
    key: Path | None = None

    def open_log(self) -> DecisionLog:
        """The log, open for appending, in a segment of its own. With the key, what is appended is proved when it is closed, unless another process makes the
        checkpoints: that one proves it. Raises `LogUnavailable`."""
        return DecisionLog(self.log, name="shell", key=parse_private_key(self.key.read_bytes()) if self.key else None)


def where(data: Path | None, store: str | None, log: str | None) -> Where:
    """The key is the one that the environment names, if the log is not named on the line: of another log it may not be the key. Or else the one beside it."""
    found = Places(**said(data, store=store, log=log))
    url = found.log.get_secret_value()
    key = found.log_key if log is None and found.log_key is not None else _beside(url)
    return Where(found.store.get_secret_value(), url, key if key is not None and os.access(key, os.R_OK) else None)


def _beside(log: str) -> Path | None:
    try:
        url = make_url(log)
    except ArgumentError:
        return None
    return Path(url.database).parent / KEY if url.get_backend_name() == "sqlite" and url.database else None


def log_reading(url: str, what: str, **told: Any) -> None:
    """Log that somebody at a shell reads. INVARIANT: before anything is shown; what cannot be logged is not shown."""
    with DecisionLog(url, name="shell") as log:
        log.append_now(entry("read", time.time(), caller=caller(), what=what, **told))


def caller() -> str:
    """Who is at the shell, as the log has it."""
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):  # a container may run as somebody whom it does not know
        return f"shell:{os.getuid()}"
