"""A decision log in PostgreSQL: the tables of `engine.decision_log.sqlite`, with the segment as a key, for logs that several machines write.

SQLAlchemy has no part in it but to read the address: its bulk insert costs several times what one statement of the driver does with the batch as arrays, and
there is nothing here that a query builder would make shorter. Every commit waits for the disk, and for the standbys that the server calls synchronous; every
wait has an end.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import islice
from typing import Any, TypeVar

import psycopg
from sqlalchemy.engine import URL

from engine.consent.database import DURABLE, Bounded
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

T = TypeVar("T")
PAGE = 1000
"""Rows read at a time."""

_TABLES = (
    "CREATE TABLE decision_log (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, origin TEXT NOT NULL, tree TEXT NOT NULL)",
    "CREATE TABLE log_segments (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE log_entries (segment BIGINT NOT NULL, n BIGINT NOT NULL CHECK (n >= 0), leaf BYTEA NOT NULL CHECK (length(leaf) = 32), salt BYTEA, "
    "body BYTEA, PRIMARY KEY (segment, n))",
    "CREATE TABLE log_checkpoints (n BIGINT PRIMARY KEY, heads TEXT NOT NULL, note TEXT NOT NULL)",
    "CREATE TABLE log_heads (segment TEXT PRIMARY KEY, size BIGINT NOT NULL, root BYTEA NOT NULL)",
    "CREATE FUNCTION log_stays() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'what is in the log is appended, never edited'; END $$",
    "CREATE TRIGGER log_entries_stay BEFORE DELETE OR TRUNCATE ON log_entries FOR EACH STATEMENT EXECUTE FUNCTION log_stays()",
    "CREATE TRIGGER log_entries_same BEFORE UPDATE ON log_entries FOR EACH ROW WHEN (NEW.segment <> OLD.segment OR NEW.n <> OLD.n OR NEW.leaf <> OLD.leaf "
    "OR NEW.salt IS NOT NULL OR NEW.body IS NOT NULL) EXECUTE FUNCTION log_stays()",
    "CREATE TRIGGER log_checkpoints_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON log_checkpoints FOR EACH STATEMENT EXECUTE FUNCTION log_stays()",
)
_CREATING = 0x4861_6269_6C69_74
"""The advisory lock under which a log is made: several processes may at once."""
_INSERT = "INSERT INTO log_entries SELECT %b, * FROM unnest(%b::bigint[], %b::bytea[], %b::bytea[], %b::bytea[])"
_SIZES = "SELECT s.name, coalesce((SELECT e.n + 1 FROM log_entries e WHERE e.segment = s.id ORDER BY e.n DESC LIMIT 1), 0) FROM log_segments s ORDER BY s.name"
_PAGE = (
    "FROM log_entries WHERE segment = (SELECT id FROM log_segments WHERE name = %s) AND n >= %s AND n < %s ORDER BY n "
    f"LIMIT {PAGE}"
)  # fmt: skip
_HEADS = "INSERT INTO log_heads VALUES (%s, %s, %s) ON CONFLICT (segment) DO UPDATE SET size = excluded.size, root = excluded.root"


class PostgresStorage:
    """The log at the address of a server."""

    def __init__(self, url: URL, create: bool, timeout: float, origin: str | None):
        self.url, self.timeout = url, timeout
        self._conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._guard = threading.RLock()
        self._reader: psycopg.Connection[Any] | None = None
        self._keeper: psycopg.Connection[Any] | None = None
        self._abandoned: list[Any] = []
        if create:
            self._create(new_origin(origin))
        try:
            self.origin = self._origin()
        except BaseException:
            self.close()
            raise

    def __str__(self) -> str:
        return self.url.set(drivername="postgresql").render_as_string(hide_password=True)

    def _open(self) -> psycopg.Connection[Any]:
        limit = int(self.timeout * 1000)
        settings = f"{DURABLE} -c lock_timeout={limit} -c idle_in_transaction_session_timeout={4 * limit}"
        given = psycopg.conninfo.conninfo_to_dict(self._conninfo)
        usual = {"connect_timeout": math.ceil(self.timeout), "application_name": "habilis"}
        always = {"options": f"{given.get('options', '')} {settings}".strip(), "target_session_attrs": "read-write"}
        connection = Bounded.connect(**usual | given | always, autocommit=True)
        connection.limit = self.timeout
        return connection

    def _create(self, origin: str) -> None:
        with reported(), self._open() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_CREATING,))
            if not _is_there(connection):
                for statement in _TABLES:
                    connection.execute(statement)  # type: ignore[call-overload]
                connection.execute("INSERT INTO decision_log VALUES (1, %s, %s, %s)", (VERSION, origin, text_of(Range())))

    def _origin(self) -> str:
        def read(connection: psycopg.Connection[Any]) -> str:
            found = connection.execute("SELECT version, origin FROM decision_log").fetchone() if _is_there(connection) else None
            if found is None:
                raise LogUnavailable(NO_LOG.format(self))
            check_version(found[0], self)
            return found[1]

        return self._ask(read)

    def _ask(self, question: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Ask on the connection for reading, and once more on a new one when that had gone away."""
        with reported(), self._guard:
            if self._reader is not None:
                try:
                    return question(self._reader)
                except psycopg.Error:
                    self._drop_reader()
            try:
                self._reader = self._open()
                return question(self._reader)
            except psycopg.Error:
                self._drop_reader()
                raise

    def _drop_reader(self) -> None:
        if self._reader is not None:
            _close(self._reader)
            self._reader = None

    # --- segments ---

    def new_segment(self, name: str) -> Segment:
        connection = self._open()
        try:
            found = connection.execute("SELECT origin FROM decision_log").fetchone()
            if found is None or found[0] != self.origin:
                raise LogUnavailable(OTHER_LOG.format(self))
            made = connection.execute("INSERT INTO log_segments (name) VALUES (%s) RETURNING id", (name,)).fetchone()
            assert made is not None
            return PostgresSegment(connection, name, made[0])
        except BaseException:
            _close(connection)
            raise

    def sizes(self) -> dict[str, int]:
        return dict(self._ask(lambda connection: connection.execute(_SIZES).fetchall()))

    def rows(self, segment: str, start: int = 0, stop: int | None = None) -> Iterator[Row]:
        return map(Row._make, self._paged(segment, "n, leaf, salt, body", start, stop))

    def leaves(self, segment: str, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        return self._paged(segment, "n, leaf", start, stop)

    def _paged(self, segment: str, columns: str, start: int, stop: int | None) -> Iterator[Any]:
        values = [segment, start, 2**63 - 1 if stop is None else stop]
        while True:
            page = self._ask(lambda connection: connection.execute(f"SELECT {columns} {_PAGE}", values, binary=True).fetchall())  # type: ignore[call-overload]
            yield from page
            if len(page) < PAGE:
                return
            values[1] = page[-1][0] + 1

    def named(self, segment: str) -> tuple[str, str] | None:
        return None

    def expunge(self, segment: str, indexes: Iterable[int], shrink: bool) -> None:
        """The room is given back by the server's own vacuum; until then, and in its archives, the erased bytes are still on its disk."""
        pending = iter(indexes)
        update = "UPDATE log_entries SET salt = NULL, body = NULL WHERE segment = (SELECT id FROM log_segments WHERE name = %s) AND n = ANY(%s)"
        with reported(), self._open() as connection:
            while batch := list(islice(pending, PAGE)):
                connection.execute(update, (segment, batch))

    # --- checkpoints ---

    def lock(self) -> bool:
        """Held by the session that also writes the checkpoints: lost with it, and never without."""
        if self._origin() != self.origin:
            raise LogUnavailable(OTHER_LOG.format(self))
        with reported(), self._guard:
            if self._keeper is None:
                keeper = self._open()
                number = int.from_bytes(sha256(self.origin.encode()).digest()[:8], "big", signed=True)
                held = keeper.execute("SELECT pg_try_advisory_lock(%s)", (number,)).fetchone()
                if held != (True,):
                    _close(keeper)
                    return False
                self._keeper = keeper
            return True

    def unlock(self) -> None:
        if self._keeper is not None:
            _close(self._keeper)
            self._keeper = None

    def proved(self) -> Proved:
        def read(connection: psycopg.Connection[Any]) -> Proved:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                (tree,) = connection.execute("SELECT tree FROM decision_log").fetchone() or ("0",)
                heads = connection.execute("SELECT segment, size, root FROM log_heads").fetchall()
            return Proved(tree_of(tree), {name: Head(size, root) for name, size, root in heads})

        return self._ask(read)

    def checkpoints(self, start: int = 0) -> Iterator[Checkpoint]:
        statement = f"SELECT n, heads, note FROM log_checkpoints WHERE n >= %s ORDER BY n LIMIT {PAGE}"
        while True:
            page = self._ask(lambda connection, at=start: connection.execute(statement, (at,)).fetchall())  # type: ignore[misc]
            yield from map(Checkpoint._make, page)
            if len(page) < PAGE:
                return
            start = page[-1][0] + 1

    def last_checkpoint(self) -> Checkpoint | None:
        found = self._ask(lambda connection: connection.execute("SELECT n, heads, note FROM log_checkpoints ORDER BY n DESC LIMIT 1").fetchone())
        return found and Checkpoint._make(found)

    def add_checkpoint(self, checkpoint: Checkpoint, tree: Range, heads: Mapping[str, Head]) -> None:
        keeper = self._keeper
        if keeper is None:
            raise LogUnavailable("this process does not make the checkpoints")
        try:
            with reported(), keeper.transaction():
                keeper.execute("INSERT INTO log_checkpoints VALUES (%s, %s, %s)", checkpoint)
                keeper.execute("UPDATE decision_log SET tree = %s", (text_of(tree),))
                with keeper.cursor() as cursor:
                    cursor.executemany(_HEADS, [(name, *head) for name, head in heads.items()])
        except LogUnavailable:
            self.unlock()
            raise

    # --- its life ---

    def close(self) -> None:
        with self._guard:
            self._drop_reader()
            self.unlock()

    def forked(self) -> None:
        self._abandoned += [self._reader, self._keeper]
        self._guard, self._reader, self._keeper = threading.RLock(), None, None


class PostgresSegment:
    """Rows that this process alone appends."""

    def __init__(self, connection: psycopg.Connection[Any], name: str, id: int):
        self.connection, self.name, self.id, self.size, self.is_trusted = connection, name, id, 0, True
        self.cursor = connection.cursor()

    def write(self, leaves: Sequence[bytes], salts: Sequence[bytes], bodies: Sequence[bytes]) -> None:
        """One statement is one transaction, and one journey. A server that says no has undone it; one that says nothing may have done it."""
        size = self.size + len(bodies)
        try:
            self.cursor.execute(_INSERT, (self.id, list(range(self.size, size)), list(leaves), list(salts), list(bodies)), prepare=True)
        except BaseException as error:
            self.is_trusted = bool(getattr(error, "sqlstate", None)) and not self.connection.closed
            raise
        self.size = size

    def close(self) -> None:
        _close(self.connection)


def _is_there(connection: psycopg.Connection[Any]) -> bool:
    return connection.execute("SELECT to_regclass('decision_log') IS NOT NULL").fetchone() == (True,)


def _close(connection: psycopg.Connection[Any]) -> None:
    with suppress(psycopg.Error):
        connection.close()


@contextmanager
def reported() -> Iterator[None]:
    """What goes wrong in here is a `LogUnavailable`."""
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise unavailable(error) from None
