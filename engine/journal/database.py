"""The journal's own database: SQLite in a file, or PostgreSQL. Nothing in it is a source: all of it is derived from the decision log, and can be again.

So a journal of another shape is not migrated, it is made anew; a power cut may lose the last of it, cursor and all, and the follower derives that again. What
must not be derived twice, a notice that was sent, is in the log before it is here.

    HabilisError
    └── JournalUnavailable      the database cannot be asked: no page, no notice
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import psycopg
from sqlalchemy import Connection, Engine, QueuePool, Table, create_engine, event, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from engine.consent.database import Bounded
from engine.errors import HabilisError
from engine.journal.tables import VERSION, journal, metadata

_LOCK = 0x4861_626A
"""The advisory locks of PostgreSQL under which a journal is made, and followed."""
ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, sqlite3.Error, psycopg.Error, OSError)

class JournalUnavailable(HabilisError):
    """The journal cannot be asked. The message names no patient."""


class Database:
    """The database of a journal, with all its tables. Safe to use from many threads."""

    engine: Engine

    def __init__(self, address: str, create: bool = False, timeout: float = 5.0):
        try:
            self.url = make_url(address)
        except ArgumentError:
            raise JournalUnavailable("this is not the address of a journal: sqlite:///FILE or postgresql://USER@HOST/DATABASE") from None
        self.timeout = timeout
        match self.url.get_backend_name():
            case "sqlite":
                self.engine = self._sqlite(create)
            case "postgresql" | "postgres":
                self.engine = self._postgresql()
            case other:
                raise JournalUnavailable(f"a journal lives in SQLite or PostgreSQL, not in `{other}`")
        try:
            self._make(create)
        except BaseException:
            self.close()
            raise

    def __str__(self) -> str:
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True)

    @property
    def embedded(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    # --- reaching it ---

    def _sqlite(self, create: bool) -> Engine:
        if not self.url.database or self.url.database == ":memory:":
            raise JournalUnavailable("a journal needs a file: sqlite:///FILE")
        self.path = os.path.abspath(self.url.database)
        if not create and not os.path.exists(self.path):
            raise self._absent()
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # who saw what is nobody else's on this machine to read
        except OSError as error:
            raise _unavailable(error) from None
        made = create_engine("sqlite://", creator=self._open_file, poolclass=QueuePool, hide_parameters=True)
        event.listen(made, "begin", _begin)
        return made

    def _open_file(self) -> sqlite3.Connection:
        where = f"file:{quote(self.path)}?mode=rw"
        connection = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False, timeout=self.timeout)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _postgresql(self) -> Engine:
        limit = int(self.timeout * 1000)
        settings = f"-c statement_timeout={4 * limit} -c lock_timeout={limit} -c idle_in_transaction_session_timeout={4 * limit}"
        given = self.url.query.get("options", "")
        options = f"{given if isinstance(given, str) else ' '.join(given)} {settings}".strip()
        url = self.url.set(drivername="postgresql+psycopg").update_query_dict({"options": options, "application_name": "habilis", "connect_timeout": "5"})
        return create_engine(
            url, creator=self.open_server, pool_pre_ping=True, pool_timeout=self.timeout, use_native_hstore=False, hide_parameters=True
        )  # fmt: skip

    def open_server(self, **more: Any) -> psycopg.Connection[Any]:
        """A connection to the server, which gives up after it: as long as it runs, the server does so first."""
        connection = Bounded.connect(**self.engine.dialect.create_connect_args(self.engine.url)[1], **more)
        connection.limit = 4 * self.timeout + 1
        return connection

    def _absent(self) -> JournalUnavailable:
        return JournalUnavailable(f"there is no journal at {self}: `habilis journal follow` makes one from the log")

    def _make(self, create: bool) -> None:
        with self.writing() as connection:
            if not self.embedded:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            if not inspect(connection).has_table(journal.name):
                if not create:
                    raise self._absent()
                metadata.create_all(connection)
                connection.execute(journal.insert(), {"one": 1, "version": VERSION, "complete": False})
            elif connection.execute(select(journal.c.version)).scalar() != VERSION:
                raise JournalUnavailable(f"the journal at {self} was made by another version of Habilis: delete it, and it is derived from the log again")

    # --- using it ---

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent look. Raises `JournalUnavailable`."""
        try:
            with self.engine.connect() as connection:
                yield connection
        except ERRORS as error:
            raise _unavailable(error) from None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, all or nothing. Raises `JournalUnavailable`."""
        try:
            with self.transaction() as connection:
                yield connection
        except ERRORS as error:
            raise _unavailable(error) from None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """The same with the errors as they come, for the follower: it tells an entry that cannot be kept from a database that cannot be reached."""
        with self.engine.connect().execution_options(writing=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writing") else "BEGIN")


def insert(connection: Connection, table: Table) -> Any:
    """An INSERT that can say what to do about a row that is there (`on_conflict_do_...`)."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def reason(error: Exception) -> str:
    """What went wrong in the driver's own code, and none of its words: they may quote a patient."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    return " ".join(filter(None, (type(cause).__name__, code)))


def _unavailable(error: Exception) -> JournalUnavailable:
    return JournalUnavailable(f"the journal cannot be reached ({reason(error)})")


# --- one follower at a time ------------------------------------------------------------------------------------------


class Turn:
    """The right to follow: one holder for a journal, and the next as soon as that one ends or dies, whatever it died of.

    It saves work, nothing more: two followers would not hurt each other (`engine.journal.follower`).
    """

    def __init__(self, database: Database):
        self.database = database
        self._held: Any = None
        self._guard = threading.Lock()

    def take(self) -> bool:
        """Whether we have it, now or still. Never waits."""
        with self._guard:
            if self._held is None or not self._is_alive():
                self._drop()
                self._held = self._take_file() if self.database.embedded else self._take_lock()
            return self._held is not None

    def give_back(self) -> None:
        with self._guard:
            self._drop()

    def _is_alive(self) -> bool:
        if self.database.embedded:
            return True
        try:
            self._held.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def _take_file(self) -> Any:
        try:
            file = os.open(f"{self.database.path}.follower", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unavailable(error) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return None
        return file

    def _take_lock(self) -> Any:
        """A connection of its own, whose end gives the lock back. Two journals in one database have two locks."""
        try:
            connection = self.database.open_server(autocommit=True)
        except psycopg.Error as error:
            raise _unavailable(error) from None
        try:
            found = connection.execute("SELECT pg_try_advisory_lock((%s::bigint << 32) | 'journal_self'::regclass::oid::bigint)", [_LOCK]).fetchone()
            if found and found[0]:
                return connection
        except psycopg.Error as error:
            connection.close()
            raise _unavailable(error) from None
        connection.close()
        return None

    def _drop(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            with suppress(*ERRORS):
                os.close(held) if isinstance(held, int) else held.close()

