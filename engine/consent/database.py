"""Reaching the database of the consent store: SQLite embedded, or PostgreSQL by its address. What is kept there, and what it means, is `engine.consent.store`.

Writes go through SQLAlchemy Core. The one statement that every request asks is written in Core too, but its text is then given to the driver: SQLAlchemy's own
way to a result costs four times as much on SQLite (21 microseconds of processor time against 6). Whatever the driver says when something is wrong may quote a
patient, so no message here repeats it.

    HabilisError
    └── StoreUnavailable        the database cannot be asked, or cannot be believed: no decision
        └── OutcomeUnknown      it went away while a change was being acknowledged
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, TypeAlias
from urllib.parse import quote

import psycopg
from sqlalchemy import BigInteger, Connection, Engine, NullPool, QueuePool, Text, and_, bindparam, case, create_engine, event, literal_column, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, SQLAlchemyError

from engine.consent.migrations import NewerStore, NoStore, directives, migrate, records, store
from engine.errors import HabilisError

Row: TypeAlias = tuple[int, int, float, str]
"""A directive as it is kept: revision, epoch of the store that recorded it, instant at which it was recorded, canonical JSON."""
Witness: TypeAlias = tuple[int, int]
"""Which connection, and what it was told: two that are equal have nothing written between them."""
Arguments: TypeAlias = tuple[str, int, int, int]
NAMES = ("patient", "epoch", "known", "otherwise")
"""What the one statement is given."""

IDLE = 32
"""How many connections for reading are kept open when nobody uses them."""
PAUSE = 0.1
"""Seconds without a new attempt after a connection failed: requests that waited behind it are told so at once."""
_NO_STORE = "there is no consent store at {}: an empty one is only made when asked for (create=True, or `habilis consent init`)"


class StoreUnavailable(HabilisError):
    """The consent store cannot be asked, or what it says cannot be believed. There is no decision to be had; the message names no patient."""


class OutcomeUnknown(StoreUnavailable):
    """The database went away while a change was being acknowledged: it may have been recorded, or not. Read again before saying it anew."""


class Changes(NamedTuple):
    """What one statement says of a patient: the store's epoch, the record's revision and digest, and the directives that were asked for, oldest first."""

    epoch: int
    revision: int
    digest: str
    rows: Sequence[Row]


class Reader(Protocol):
    """One open connection that asks the one statement."""

    def rows(self, arguments: Arguments) -> list[tuple[Any, ...]]:
        """What the database says now. Raises one of the database's `errors`, also when it is no longer the one that others open."""
        ...

    def close(self) -> None: ...


def _statement() -> Any:
    """Epoch, revision and digest of a record, and its directives above `known` if the epoch is still `epoch`, above `otherwise` if it is not."""
    above = case((store.c.epoch == bindparam("epoch", type_=BigInteger), bindparam("known", type_=BigInteger)), else_=bindparam("otherwise", type_=BigInteger))
    of_patient = records.c.patient == bindparam("patient", type_=Text)
    newer = and_(directives.c.patient == records.c.patient, directives.c.revision > above)
    return (
        select(store.c.epoch, records.c.revision, records.c.digest, directives.c.revision, directives.c.epoch, directives.c.recorded, directives.c.body)
        .select_from(store.outerjoin(records, of_patient).outerjoin(directives, newer))
        .where(store.c.one == literal_column("1"))
        .order_by(directives.c.revision)
    )


class Database:
    """The database of a store, whichever kind: `changes` to read, `writing` to write. Safe to use from many threads, and after a fork."""

    errors: tuple[type[Exception], ...] = (SQLAlchemyError, OSError)
    engine: Engine
    looking: Engine
    """Where `reading` has its connections from."""

    def __init__(self, url: URL, create: bool, timeout: float):
        self.url, self.timeout = url, timeout
        self._idle: deque[Reader] = deque()
        self._abandoned: list[Any] = []
        self._down_until = 0.0
        self._prepare(create)
        compiled = _statement().compile(dialect=self.engine.dialect)
        self._text, self._order = str(compiled), tuple(getattr(compiled, "positiontup", None) or ())
        try:
            self._migrate(create)
        except BaseException:
            self.close()
            raise
        after_fork(self._forked)

    def _migrate(self, create: bool) -> None:
        try:
            with self.writing() as connection:
                migrate(connection, create)
        except NoStore:
            raise StoreUnavailable(_NO_STORE.format(self)) from None
        except NewerStore as error:
            found, known = error.args
            raise StoreUnavailable(f"the consent store at {self} was made by a later Habilis (version {found}; this one knows {known})") from None

    def __str__(self) -> str:
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True)

    # --- of each kind ---

    def _prepare(self, create: bool) -> None:
        """Make `engine` and `looking`."""
        raise NotImplementedError

    def _connect(self) -> Reader:
        raise NotImplementedError

    # --- reading ---

    def changes(self, patient: str, epoch: int, known: int, otherwise: int = 0) -> Changes:
        """What changed for a patient since revision `known` of `epoch`, asked of the primary by one statement.

        When the store is in another epoch, directives above `otherwise` instead: all of them, unless said. Raises `StoreUnavailable`.
        """
        rows = self._ask((patient, epoch, known, otherwise))
        if not rows:
            raise StoreUnavailable("the database holds no consent store any more")
        epoch, revision, digest, newest = rows[0][:4]
        return Changes(epoch, revision or 0, digest or "", () if newest is None else [row[3:] for row in rows])

    def _ask(self, arguments: Arguments) -> list[tuple[Any, ...]]:
        """INVARIANT: every row is fetched before the reader goes back, so no snapshot outlives the request that took it."""
        try:
            reader = self._idle.pop()
        except IndexError:
            pass
        else:
            try:
                rows = reader.rows(arguments)
            except self.errors:
                self._discard(reader)
            else:
                self._keep(reader)
                return rows
        reader = self._new_reader()
        try:
            rows = reader.rows(arguments)
        except self.errors as error:
            self._discard(reader)
            raise self._unavailable(error) from None
        self._keep(reader)
        return rows

    def _keep(self, reader: Reader) -> None:
        if len(self._idle) < IDLE:
            self._idle.append(reader)
        else:
            reader.close()

    def _discard(self, reader: Reader) -> None:
        """Close a reader that failed, and with it those that wait: they most likely lead nowhere too, and each would cost a request its attempt."""
        reader.close()
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()

    def _new_reader(self) -> Reader:
        if time.monotonic() < self._down_until:
            raise StoreUnavailable("the consent store cannot be reached (it could not a moment ago)")
        try:
            return self._connect()
        except self.errors as error:
            self._down_until = time.monotonic() + PAUSE
            raise self._unavailable(error) from None

    def witness(self) -> Witness | None:
        """What the whole database is at, asked now; nothing where that costs as much as asking for a record. Raises `StoreUnavailable`."""
        return None

    # --- writing ---

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, durable when the block has ended without an error. Raises `StoreUnavailable`, `OutcomeUnknown` when only the end is in doubt."""
        try:
            connection = self.engine.connect()
        except self.errors as error:
            raise self._unavailable(error) from None
        try:
            try:
                transaction = connection.begin()
                yield connection
            except self.errors as error:
                raise self._unavailable(error) from None
            try:
                transaction.commit()
            except self.errors as error:
                raise _unknown(_reason(error)) from None
        finally:
            with suppress(*self.errors):
                connection.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for questions that no decision waits for: lists, histories. Locks nobody out. Raises `StoreUnavailable`."""
        try:
            with self.looking.connect() as connection:
                yield connection
        except self.errors as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"the consent store cannot be reached ({_reason(error)})")

    # --- its life ---

    def close(self) -> None:
        """Close every connection that nobody uses."""
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()
        self.engine.dispose()

    def _forked(self) -> None:
        """In a child: leave the parent's connections alone, open. Closing them would say goodbye in the parent's name, and drop SQLite's locks."""
        self._abandoned += self._idle
        self._idle = deque()
        self.engine.dispose(close=False)


# --- SQLite ----------------------------------------------------------------------------------------------------------


class Sqlite(Database):
    """A file. Write-ahead log, synchronous FULL: a reader never waits for a writer, and what is acknowledged is on the disk."""

    errors = (*Database.errors, sqlite3.Error)

    def _prepare(self, create: bool) -> None:
        if not self.url.database or self.url.database == ":memory:":
            raise StoreUnavailable("the consent store needs a file (sqlite:///FILE): what is only in memory is in one process only")
        self.path = os.path.abspath(self.url.database)
        self._writers = threading.Lock()
        self._asking = threading.Lock()
        self._witness: _SqliteWitness | None = None
        if not create and not os.path.exists(self.path):
            raise StoreUnavailable(_NO_STORE.format(self))
        try:
            if create:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # what patients say is nobody else's on this machine to read
            self.open().close()
        except self.errors as error:
            raise self._unavailable(error) from None
        self.engine = create_engine("sqlite://", creator=self.open, poolclass=QueuePool, pool_size=1, hide_parameters=True)
        self.looking = create_engine("sqlite://", creator=self.open, poolclass=NullPool, hide_parameters=True)
        event.listen(self.engine, "checkout", self._check_out)
        event.listen(self.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

    def open(self) -> _Connection:
        """A connection to the file that is there. Never makes one: an empty store where a full one should be would answer that nobody said anything."""
        while True:
            file = _file(self.path)
            where = f"file:{quote(self.path)}?mode=rw"
            connection = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False, timeout=self.timeout, factory=_Connection)
            try:
                self._set_up(connection)
                connection.file = _file(self.path)
            except BaseException:
                connection.close()
                raise
            if connection.file == file:  # nobody replaced it meanwhile
                return connection
            connection.close()

    @staticmethod
    def _set_up(connection: sqlite3.Connection) -> None:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise sqlite3.OperationalError(f"journal_mode is {mode}: this file system has no write-ahead log")
        for pragma in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    def witness(self) -> Witness | None:
        """INVARIANT: of the same connection, two equal witnesses have no commit between them, whoever wrote: this connection never does."""
        try:
            with self._asking:
                if self._witness is None:
                    self._witness = _SqliteWitness(self.open(), self.path)
                return self._witness.ask()
        except self.errors as error:
            self._drop_witness()
            raise self._unavailable(error) from None

    def _drop_witness(self) -> None:
        witness, self._witness = self._witness, None
        if witness is not None:
            self._abandoned.append(witness)  # kept, so that no later connection has its identity
            with suppress(sqlite3.Error):
                witness.connection.close()

    def close(self) -> None:
        self._drop_witness()
        super().close()

    def _connect(self) -> Reader:
        return _SqliteReader(self.open(), self.path, self._text, self._order)

    def _check_out(self, connection: Any, record: Any, proxy: Any) -> None:
        """A connection for writing is kept, since each new one costs a second wait for the disk; but not when it leads to a file that others no longer open."""
        if _file_or_none(self.path) != connection.file:
            raise DisconnectionError

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One writer at a time in this process: waiting on a lock is prompt, SQLite's own way of waiting is to look again every so often."""
        if not self._writers.acquire(timeout=self.timeout):
            raise StoreUnavailable("the consent store is busy")
        try:
            file = _file_or_none(self.path)
            with super().writing() as connection:
                yield connection
            if file is None or _file_or_none(self.path) != file:
                raise _unknown("its file was moved or replaced")
        finally:
            self._writers.release()

    def _forked(self) -> None:
        super()._forked()
        self._abandoned.append(self._witness)
        self._writers, self._asking, self._witness = threading.Lock(), threading.Lock(), None


class _SqliteWitness:
    """One open connection that is asked nothing but whether others have written (https://sqlite.org/pragma.html#pragma_data_version)."""

    def __init__(self, connection: _Connection, path: str):
        connection.execute("PRAGMA query_only = ON")
        self.connection, self.path, self.cursor = connection, path, connection.cursor()

    def ask(self) -> Witness:
        if _file(self.path) != self.connection.file:
            raise FileNotFoundError
        return id(self.connection), self.cursor.execute("PRAGMA data_version").fetchone()[0]


class _Connection(sqlite3.Connection):
    file: tuple[int, int] = (0, 0)
    """Which file it leads to: device and number."""


class _SqliteReader:
    def __init__(self, connection: _Connection, path: str, text: str, order: tuple[str, ...]):
        connection.execute("PRAGMA query_only = ON")
        self.connection, self.path, self.text = connection, path, text
        self.device, self.number = connection.file
        self.in_order = itemgetter(*(NAMES.index(name) for name in order))
        self.cursor = connection.cursor()

    def rows(self, arguments: Arguments) -> list[tuple[Any, ...]]:
        """A file that was moved away or replaced would answer from the past for ever, so it is looked up each time (0.7 microseconds)."""
        found = os.stat(self.path)
        if found.st_ino != self.number or found.st_dev != self.device:
            raise FileNotFoundError
        return self.cursor.execute(self.text, self.in_order(arguments)).fetchall()

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.connection.close()


def _file(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _file_or_none(path: str) -> tuple[int, int] | None:
    try:
        return _file(path)
    except OSError:
        return None


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


class Postgres(Database):
    """A server. Only a primary is accepted, every commit waits for the disk (and for the standbys that the server calls synchronous), every wait has an end."""

    errors = (*Database.errors, psycopg.Error)

    def _prepare(self, create: bool) -> None:
        self.engine = create_engine(self.url, creator=self._open, pool_pre_ping=True, pool_timeout=self.timeout, use_native_hstore=False, hide_parameters=True)
        self.looking = self.engine
        self._conninfo = self.engine.dialect.create_connect_args(self.url)[1]

    def _open(self, **more: Any) -> psycopg.Connection[Any]:
        limit = int(self.timeout * 1000)
        settings = f"{DURABLE} -c statement_timeout={limit} -c lock_timeout={limit} -c idle_in_transaction_session_timeout={4 * limit}"
        usual = {"connect_timeout": math.ceil(self.timeout), "application_name": "habilis"}
        always = {"options": f"{self._conninfo.get('options', '')} {settings}".strip(), "target_session_attrs": "read-write"}
        connection = Bounded.connect(**usual | self._conninfo | always | more)
        connection.limit = self.timeout
        return connection

    def _connect(self) -> Reader:
        return _PostgresReader(self._open(autocommit=True), self._text)


DURABLE = "-c synchronous_commit=on -c client_min_messages=warning"
"""Settings of a session in which a commit is on the disk, and on the synchronous standbys, or is said not to be."""


class Bounded(psycopg.Connection[Any]):
    """A connection that gives up on a server that does not answer: one that is stopped, or behind a cable that was pulled, never says no.

    It is closed then, so that nobody waits for it once more, to take back what it was about. So it is when somebody cancelled a commit's wait for a synchronous
    standby: the server calls that commit done and only warns of it, but it would be lost when the standby takes over
    (https://www.postgresql.org/docs/current/warm-standby.html, "Synchronous Replication").
    """

    limit: float | None = None
    """Seconds."""
    is_alone = False
    """Something was committed that the standby is not known to have."""

    def __init__(self, pgconn: psycopg.pq.abc.PGconn):
        super().__init__(pgconn)
        self.add_notice_handler(self._heed)

    def _heed(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.source_function == "SyncRepWaitForLSN":  # its words are in the server's language
            self.is_alone = True

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            found = super().wait(gen, *args, **{"timeout": self.limit} | kwargs)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.close()
            raise
        if self.is_alone:
            self.close()
            raise psycopg.OperationalError("the wait for a synchronous standby was cancelled")
        return found


class _PostgresReader:
    def __init__(self, connection: psycopg.Connection[Any], text: str):
        self.connection, self.text = connection, text
        self.cursor = connection.cursor()

    def rows(self, arguments: Arguments) -> list[tuple[Any, ...]]:
        return self.cursor.execute(self.text, dict(zip(NAMES, arguments, strict=True)), prepare=True).fetchall()

    def close(self) -> None:
        with suppress(psycopg.Error):
            self.connection.close()


# --- both ------------------------------------------------------------------------------------------------------------


def open_database(address: str, create: bool, timeout: float) -> Database:
    """The database at `sqlite:///FILE` or `postgresql://...`, brought to the newest shape. Raises `StoreUnavailable`."""
    try:
        url = make_url(address)
    except ArgumentError:
        raise StoreUnavailable("this is not the address of a consent store: sqlite:///FILE or postgresql://USER@HOST/DATABASE") from None
    match url.get_backend_name():
        case "sqlite":
            return Sqlite(url, create, timeout)
        case "postgresql" | "postgres":
            return Postgres(url.set(drivername="postgresql+psycopg"), create, timeout)
        case other:
            raise StoreUnavailable(f"a consent store lives in SQLite or PostgreSQL, not in `{other}`")


def chain(patient: str, digest: str, rows: Iterable[Row]) -> str:
    """The digest of a record that `rows` continue, from its digest before them; from nothing, it starts with the patient."""
    for revision, epoch, recorded, body in rows:
        digest = sha256(f"{digest or patient}\n{revision}\n{epoch}\n{recorded!r}\n{body}".encode()).hexdigest()
    return digest


def after_fork(method: Callable[[], None]) -> None:
    """Call a bound method in every child that this process forks, as long as its object lives."""
    weak = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := weak()) is not None:
            alive()

    os.register_at_fork(after_in_child=call)


def _unknown(reason: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"the consent store went away while it acknowledged a change: recorded or not, nobody knows ({reason})")


def _reason(error: Exception) -> str:
    """What went wrong in the driver's own code, and none of its words: they may quote a patient."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    return " ".join(filter(None, (type(cause).__name__, code)))
