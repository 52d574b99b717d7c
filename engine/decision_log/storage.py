"""Where a decision log is kept: segments that one process each appends to, and the checkpoints that cover them all. What is kept means nothing here.

    sqlite:///FOLDER        a folder: one file for each segment, `log.db` for the checkpoints        engine.decision_log.sqlite
    postgresql://...        the same tables, with the segment as a key                               engine.decision_log.postgres

Whatever a driver says when something is wrong may quote an entry, so no message here repeats it.

    HabilisError
    └── LogUnavailable      nothing durable can be written, or what is there cannot be read: no decision may leave
"""

from __future__ import annotations

import base64
import re
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import psycopg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from engine.decision_log.merkle import Range
from engine.errors import HabilisError

ERRORS = (sqlite3.Error, psycopg.Error, OSError)
"""What goes wrong in a database, whichever kind."""

VERSION = 1
SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
"""What the name of a segment looks like, with when it was opened."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_ORIGIN = re.compile(r"[^\s+\x00-\x1f\x7f]{1,200}\Z")


class LogUnavailable(HabilisError):
    """The decision log cannot be written or read. What was to be logged may not be answered; the message names no patient."""


class Row(NamedTuple):
    """An entry as it is kept. Once it is expunged, only the leaf is left."""

    index: int
    leaf: bytes
    salt: bytes | None
    body: bytes | None


class Checkpoint(NamedTuple):
    """A checkpoint as it is kept: its number, the heads that it adds to the log of heads, and the note that signs that log."""

    number: int
    heads: str
    note: str


class Head(NamedTuple):
    """How far a segment has been proved: the root of its first `size` entries."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Proved:
    """What the next checkpoint continues: the log of heads, and the newest head of each segment."""

    tree: Range
    heads: Mapping[str, Head]


class Segment(Protocol):
    """A segment of this process, open for appending."""

    name: str
    size: int
    is_trusted: bool
    """False once something happened after which it is unknown what is, or stays, on the disk: nothing more is appended then."""

    def write(self, leaves: Sequence[bytes], salts: Sequence[bytes], bodies: Sequence[bytes]) -> None:
        """Append entries, all or none; durable when it returns. Raises one of `ERRORS`."""
        ...

    def close(self) -> None: ...


class Storage(Protocol):
    """A log that is there. Its methods raise `LogUnavailable` (but those of `Segment`), and may be called from any thread."""

    origin: str
    """The name of this log, which no other log has: the first line of its checkpoints."""

    # --- segments ---

    def new_segment(self, name: str) -> Segment:
        """Raises one of `ERRORS`, or `LogUnavailable` when another log is there by now."""
        ...

    def sizes(self) -> dict[str, int]:
        """How many entries each segment has, as its last one says; -1 when its file is damaged. Cheap when little has changed."""
        ...

    def rows(self, segment: str, start: int = 0, stop: int | None = None) -> Iterator[Row]:
        """Entries from index `start`, in order, up to `stop`. A segment that is not there has none."""
        ...

    def leaves(self, segment: str, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Index and leaf of the same."""
        ...

    def named(self, segment: str) -> tuple[str, str] | None:
        """Of which log, and under which name, a segment was made: what it says itself, if it does."""
        ...

    def expunge(self, segment: str, indexes: Iterable[int], shrink: bool) -> None:
        """Erase bodies and salts; leaves stay. `shrink`: give the room back too, which nobody may write meanwhile."""
        ...

    # --- checkpoints ---

    def lock(self) -> bool:
        """Become the one process that makes checkpoints, or stay it, unless another is."""
        ...

    def unlock(self) -> None: ...

    def proved(self) -> Proved: ...

    def checkpoints(self, start: int = 0) -> Iterator[Checkpoint]:
        """In order, from number `start`."""
        ...

    def last_checkpoint(self) -> Checkpoint | None: ...

    def add_checkpoint(self, checkpoint: Checkpoint, tree: Range, heads: Mapping[str, Head]) -> None:
        """Keep a checkpoint, the log of heads with it, and the heads that it adds: all or nothing. Fails when its number is taken."""
        ...

    def close(self) -> None: ...

    def forked(self) -> None:
        """In a child that this process forked: leave what the parent has open alone."""
        ...


def open_storage(address: str, create: bool = False, timeout: float = 2.0, origin: str | None = None) -> Storage:
    """The log at `sqlite:///FOLDER` or `postgresql://...`. An empty one is only made with `create`. Raises `LogUnavailable`."""
    from engine.decision_log.postgres import PostgresStorage
    from engine.decision_log.sqlite import SqliteStorage

    try:
        url = make_url(address)
    except ArgumentError:
        raise LogUnavailable("this is not the address of a decision log: sqlite:///FOLDER or postgresql://USER@HOST/DATABASE") from None
    match url.get_backend_name():
        case "sqlite":
            return SqliteStorage(url.database or "", create, timeout, origin)
        case "postgresql" | "postgres":
            return PostgresStorage(url, create, timeout, origin)
        case other:
            raise LogUnavailable(f"a decision log lives in SQLite or PostgreSQL, not in `{other}`")


# --- names -----------------------------------------------------------------------------------------------------------


def segment_name(writer: str) -> str:
    """The name of a new segment: who writes it, when it was opened, and four random bytes."""
    check_name(writer)
    return f"{writer}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"


def check_name(writer: str) -> None:
    if not _NAME.match(writer):
        raise LogUnavailable("who writes a segment is named with at most 64 letters, digits, `-`, `_` and `.`")


def new_origin(wanted: str | None) -> str:
    """The name of a new log. Signatures name it, so it has no space and no plus."""
    if wanted is None:
        return f"habilis/{secrets.token_hex(8)}"
    if not _ORIGIN.match(wanted):
        raise LogUnavailable("a log's origin is a name without spaces or `+`, such as log.example/records")
    return wanted


# --- for both kinds --------------------------------------------------------------------------------------------------

NO_LOG = "there is no decision log at {}: an empty one is only made when asked for (create=True, or `habilis log init`)"

OTHER_LOG = "another log is at {} by now"


def check_version(found: int, where: object) -> None:
    if found > VERSION:
        raise LogUnavailable(f"the decision log at {where} was made by a later Habilis (version {found}; this one knows {VERSION})")


def unavailable(error: Exception) -> LogUnavailable:
    """What went wrong, in the driver's own code, and none of its words: they may quote an entry."""
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    if isinstance(error, OSError):
        code = error.strerror
    return LogUnavailable(f"the decision log cannot be reached ({' '.join(filter(None, (type(error).__name__, code)))})")


def text_of(tree: Range) -> str:
    return " ".join([str(tree.size), *(base64.b64encode(node).decode() for node in tree.nodes)])


def tree_of(text: str | None) -> Range:
    """The same back; an empty tree for what is none, which nobody takes for the log of heads unless it is."""
    size, *nodes = (text or "").split(" ")
    try:
        return Range.restored(int(size), [base64.b64decode(node) for node in nodes])
    except ValueError:
        return Range()
