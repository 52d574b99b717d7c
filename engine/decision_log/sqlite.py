"""A decision log in a folder: a SQLite file for each segment, so that processes never wait for each other, and `log.db` for the checkpoints.

Write-ahead log, synchronous FULL: what is acknowledged is on the disk, after one wait for it. A file that is moved, removed or replaced under an open segment
would take entries to where nobody reads them, so after each commit the folder is asked whether a name in it changed (0.7 microseconds).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from engine.decision_log.merkle import Range
from engine.decision_log.storage import (
    NO_LOG,
    OTHER_LOG,
    VERSION,
    Checkpoint,
    Head,
    LogUnavailable,
    Proved,
    Row,
    Segment,
    check_version,
    new_origin,
    text_of,
    tree_of,
    unavailable,
)  # fmt: skip

SUFFIX = ".segment"
PAGE = 1000
"""Rows read at a time, so that no reader keeps a snapshot open for long: the write-ahead log of its segment could not be emptied meanwhile."""
OPEN = 32
"""How many files stay open for reading."""
SETTLED = 2.0
"""Seconds after which the time of a file's last change is believed: two changes within a tick of the clock have the same."""
HARMLESS = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_READONLY")
"""Errors after which it is certain that nothing was written and that what was written before stays."""
LEAF = "n, coalesce(CAST(leaf AS BLOB), x'')"
CHECKPOINT = "n, coalesce(CAST(heads AS TEXT), ''), coalesce(CAST(note AS TEXT), '')"
"""A column of SQLite holds whatever somebody put there: what is read has the type that it should have."""
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")

_SEGMENT = (
    "CREATE TABLE segment (one INTEGER PRIMARY KEY CHECK (one = 1), origin TEXT NOT NULL, name TEXT NOT NULL)",
    "CREATE TABLE entries (n INTEGER PRIMARY KEY, leaf BLOB NOT NULL CHECK (length(leaf) = 32), salt BLOB, body BLOB)",
    "CREATE TRIGGER entries_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'an entry is appended, never removed'); END",
    "CREATE TRIGGER entries_update BEFORE UPDATE ON entries WHEN NEW.n <> OLD.n OR NEW.leaf <> OLD.leaf OR NEW.salt IS NOT NULL OR NEW.body IS NOT NULL "
    "BEGIN SELECT RAISE(ABORT, 'an entry is appended, never edited'); END",
)
_LOG = (
    "CREATE TABLE log (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, origin TEXT NOT NULL, tree TEXT NOT NULL)",
    "CREATE TABLE checkpoints (n INTEGER PRIMARY KEY, heads TEXT NOT NULL, note TEXT NOT NULL)",
    "CREATE TABLE heads (segment TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL) WITHOUT ROWID",
    *(
        f"CREATE TRIGGER checkpoints_{verb} BEFORE {verb} ON checkpoints BEGIN SELECT RAISE(ABORT, 'a checkpoint is appended, never edited'); END"
        for verb in ("UPDATE", "DELETE")
    ),
)


class SqliteStorage:
    """The log in a folder."""

    def __init__(self, folder: str, create: bool, timeout: float, origin: str | None):
        if not folder or folder == ":memory:":
            raise LogUnavailable("a decision log needs a folder (sqlite:///FOLDER)")
        self.folder, self.timeout = Path(os.path.abspath(folder)), timeout
        self._log = self.folder / "log.db"
        self._guard = threading.RLock()
        self._readers: dict[str, _File] = {}
        self._writer: _File | None = None
        self._seen: dict[str, tuple[object, bool, int]] = {}
        self._lock: int | None = None
        self._abandoned: list[Any] = []
        with reported():
            if create and not self._log.exists():
                self._create(new_origin(origin))
            try:
                self.origin = self._origin()
            except BaseException:
                self.close()
                raise

    def __str__(self) -> str:
        return f"sqlite:///{self.folder}"

    def _create(self, origin: str) -> None:
        """Make a log, whole or not at all: several processes may at once."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.folder / f"log.{os.getpid()}.{threading.get_ident()}.new"
        try:
            with closing(open_file(draft, self.timeout, new=True)) as connection, transaction(connection):
                for statement in _LOG:
                    connection.execute(statement)
                connection.execute("INSERT INTO log VALUES (1, ?, ?, ?)", (VERSION, origin, text_of(Range())))
            with suppress(FileExistsError):
                os.link(draft, self._log)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(self.folder)

    def _origin(self) -> str:
        if not self._log.exists():
            raise LogUnavailable(NO_LOG.format(self))
        version, origin = self._ask(self._log, "SELECT version, origin FROM log")[0]
        check_version(version, self)
        return origin

    def _ask(self, path: str | Path, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Ask one file; the files asked last stay open."""
        with self._guard:
            name, file = str(path), _file(path)
            connection = self._readers.pop(name, None)
            try:
                if connection is not None and connection.file != file:
                    connection.close()
                    connection = None
                if connection is None:
                    connection = open_file(path, self.timeout, query_only=True)
                rows = connection.execute(statement, values).fetchall()
            except sqlite3.Error:
                if connection is not None:
                    connection.close()
                raise
            self._readers[name] = connection
            while len(self._readers) > OPEN:
                self._readers.pop(next(iter(self._readers))).close()
            return rows

    # --- segments ---

    def new_segment(self, name: str) -> Segment:
        if self._origin() != self.origin:
            raise LogUnavailable(OTHER_LOG.format(self))
        return SqliteSegment(self.folder / f"{name}{SUFFIX}", name, self.origin, self.timeout)

    def sizes(self) -> dict[str, int]:
        with reported(), self._guard:
            with os.scandir(self.folder) as several:
                names = sorted(one.name.removesuffix(SUFFIX) for one in several if one.name.endswith(SUFFIX))
            self._seen = {name: self._seen[name] for name in names if name in self._seen}
            return {name: self._size(name) for name in names}

    def _size(self, name: str) -> int:
        """Asked again only when the file or its write-ahead log has changed."""
        path = self._path(name)
        now, stamp = time.time(), (_stamp(path), _stamp(f"{path}-wal"))
        seen = self._seen.get(name)
        if seen is not None and seen[0] == stamp and seen[1]:
            return seen[2]
        try:
            found = self._ask_segment(name, "SELECT coalesce(max(n) + 1, 0) FROM entries", ())
            size = found[0][0] if found else 0
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "") not in DAMAGED:
                raise
            size = -1
        self._seen[name] = (stamp, all(_is_settled(one, now) for one in stamp), size)
        return size

    def _ask_segment(self, name: str, statement: str, values: Sequence[Any]) -> list[Any]:
        """A segment that is not there has no entries, nor has one whose process died while it made the file."""
        try:
            file = self._path(name)
            if os.path.getsize(file) == 0 and not os.path.exists(f"{file}-wal"):
                return []
        except FileNotFoundError:
            return []
        return self._ask(file, statement, values)

    def _path(self, name: str) -> str:
        return str(self.folder / f"{name}{SUFFIX}")

    def rows(self, segment: str, start: int = 0, stop: int | None = None) -> Iterator[Row]:
        return map(Row._make, self._paged(segment, f"{LEAF}, CAST(salt AS BLOB), CAST(body AS BLOB)", start, stop))

    def leaves(self, segment: str, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        return self._paged(segment, LEAF, start, stop)

    def _paged(self, segment: str, columns: str, start: int, stop: int | None) -> Iterator[Any]:
        end = 2**63 - 1 if stop is None else stop
        while True:
            with reported():
                page = self._ask_segment(segment, f"SELECT {columns} FROM entries WHERE n >= ? AND n < ? ORDER BY n LIMIT {PAGE}", (start, end))
            yield from page
            if len(page) < PAGE:
                return
            start = page[-1][0] + 1

    def named(self, segment: str) -> tuple[str, str] | None:
        with reported():
            found = self._ask_segment(segment, "SELECT origin, name FROM segment", ())
        return found[0] if found else None

    def expunge(self, segment: str, indexes: Iterable[int], shrink: bool) -> None:
        """`secure_delete` writes zeros over what is erased; then the write-ahead log, which has it too, is emptied."""
        pending = iter(indexes)
        with reported(), closing(open_file(self._path(segment), self.timeout)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            while batch := list(islice(pending, PAGE)):
                with transaction(connection):
                    connection.executemany("UPDATE entries SET salt = NULL, body = NULL WHERE n = ?", [(n,) for n in batch])
            if shrink:
                connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # --- checkpoints ---

    def lock(self) -> bool:
        path = self.folder / "checkpoint.lock"
        with reported():
            if self._origin() != self.origin:
                raise LogUnavailable(OTHER_LOG.format(self))
            if self._lock is not None and _file(path) != _file(self._lock):
                self.unlock()
            if self._lock is None:
                held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(held)
                    return False
                except BaseException:
                    os.close(held)
                    raise
                self._lock = held
        return True

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def proved(self) -> Proved:
        with reported(), self._guard:
            tree = tree_of(self._ask(self._log, "SELECT CAST(tree AS TEXT) FROM log")[0][0])
            heads = self._ask(self._log, "SELECT segment, CAST(size AS INTEGER), CAST(root AS BLOB) FROM heads")
            return Proved(tree, {name: Head(size, root) for name, size, root in heads})

    def checkpoints(self, start: int = 0) -> Iterator[Checkpoint]:
        while True:
            with reported():
                page = self._ask(self._log, f"SELECT {CHECKPOINT} FROM checkpoints WHERE n >= ? ORDER BY n LIMIT {PAGE}", (start,))
            yield from map(Checkpoint._make, page)
            if len(page) < PAGE:
                return
            start = page[-1][0] + 1

    def last_checkpoint(self) -> Checkpoint | None:
        with reported():
            found = self._ask(self._log, f"SELECT {CHECKPOINT} FROM checkpoints ORDER BY n DESC LIMIT 1")
        return Checkpoint._make(found[0]) if found else None

    def add_checkpoint(self, checkpoint: Checkpoint, tree: Range, heads: Mapping[str, Head]) -> None:
        with reported(), self._guard, transaction(self._log_writer()) as connection:
            connection.execute("INSERT INTO checkpoints VALUES (?, ?, ?)", checkpoint)
            connection.execute("UPDATE log SET tree = ?", (text_of(tree),))
            upsert = "INSERT INTO heads VALUES (?, ?, ?) ON CONFLICT (segment) DO UPDATE SET size = excluded.size, root = excluded.root"
            connection.executemany(upsert, [(name, *head) for name, head in heads.items()])

    def _log_writer(self) -> _File:
        """Kept open by whoever makes the checkpoints: the last to close a file also moves its write-ahead log into it, which waits for the disk three times."""
        if self._writer is not None and self._writer.file != _file(self._log):
            self._writer.close()
            self._writer = None
        if self._writer is None:
            self._writer = open_file(self._log, self.timeout)
        return self._writer

    def close(self) -> None:
        with self._guard:
            for connection in (*self._readers.values(), *([self._writer] if self._writer else [])):
                connection.close()
            self._readers, self._writer = {}, None
        self.unlock()

    def forked(self) -> None:
        """Closing what the parent has open would drop its locks, but for the lock on the checkpoints, which is the parent's as long as it has it open."""
        self._abandoned += [self._readers, self._writer]
        self._guard, self._readers, self._writer = threading.RLock(), {}, None
        self.unlock()


class SqliteSegment:
    """A file that this process alone appends to."""

    def __init__(self, path: Path, name: str, origin: str, timeout: float):
        self.path, self.name, self.size, self.is_trusted = path, name, 0, True
        try:
            self.connection = open_file(path, timeout, new=True)
            with transaction(self.connection):
                for statement in _SEGMENT:
                    self.connection.execute(statement)
                self.connection.execute("INSERT INTO segment VALUES (1, ?, ?)", (origin, name))
            self._files = self._found()
            self._folder: Stamp = None
            sync_folder(path.parent)
        except BaseException:
            if hasattr(self, "connection"):
                self.connection.close()
            for suffix in ("", "-wal", "-shm"):  # nobody has heard of it
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            raise

    def write(self, leaves: Sequence[bytes], salts: Sequence[bytes], bodies: Sequence[bytes]) -> None:
        size = self.size + len(bodies)
        columns = [map(bytearray, column) for column in (leaves, salts, bodies)]  # sqlite3 looks for an adapter of `bytes` each time: a third of a row's cost
        try:
            with transaction(self.connection):
                self.connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", zip(range(self.size, size), *columns, strict=True))
            self._look_up()
        except BaseException as error:
            self.is_trusted = getattr(error, "sqlite_errorname", "") in HARMLESS and not self.connection.in_transaction
            raise
        self.size = size

    def _look_up(self) -> None:
        """Fail when others would open other files than these.

        They are asked only when a name in the folder changed. Linux (6.13 on) gives a file whose times were asked for exact ones at its next write, which for
        the write-ahead log adds half a wait for the disk to each commit (https://docs.kernel.org/filesystems/multigrain-ts.html).
        """
        now, folder = time.time(), _stamp(self.path.parent)
        if folder is None or folder != self._folder:
            if self._found() != self._files:
                raise FileNotFoundError
            self._folder = folder if _is_settled(folder, now) else None

    def _found(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return _file(self.path), _file(f"{self.path}-wal")

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.connection.close()


# --- files -----------------------------------------------------------------------------------------------------------


class _File(sqlite3.Connection):
    file: tuple[int, int] = (0, 0)
    """Which file it leads to: device and number."""


def open_file(path: str | Path, timeout: float, new: bool = False, query_only: bool = False) -> _File:
    """A connection to a file that is there, or to one that is made for its owner alone. What nobody may write any more can still be read."""
    if new:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    modes = ("rw", "ro", "ro&immutable=1") if query_only and not new else ("rw",)
    for mode in modes:
        if "immutable" in mode and os.path.exists(f"{path}-wal"):
            raise LogUnavailable(f"`{Path(path).name}` was not closed, and cannot be read where nothing may be written: copy the folder elsewhere")
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=timeout, factory=_File
        )  # fmt: skip
        try:
            connection.file = _file(path)
            if query_only:
                connection.execute("PRAGMA query_only = ON")
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            else:
                _set_up(connection)
            return connection
        except sqlite3.OperationalError:
            connection.close()
            if mode == modes[-1]:
                raise
        except BaseException:
            connection.close()
            raise
    raise AssertionError


def _set_up(connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise sqlite3.OperationalError(f"journal_mode is {mode}: this file system has no write-ahead log")
    for pragma in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON"):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


@contextmanager
def reported() -> Iterator[None]:
    """What goes wrong in here is a `LogUnavailable`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise unavailable(error) from None


def sync_folder(folder: Path) -> None:
    """A new file is only durable when its name is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file(path: str | Path | int) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


Stamp: TypeAlias = tuple[int, int, int, int] | None
"""When a file or folder was last changed (nanoseconds; not the time that whoever restores it may set), how long it is, which one it is; nothing when there is
none."""


def _is_settled(stamp: Stamp, now: float) -> bool:
    """Whether what is changed after `now`, when the stamp was taken, has another one."""
    return stamp is None or now - stamp[0] / 1e9 > SETTLED


def _stamp(path: str | Path) -> Stamp:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ctime_ns, found.st_size, found.st_dev, found.st_ino
