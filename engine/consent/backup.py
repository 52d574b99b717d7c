"""Backups of the consent store, and what putting one back means.

A backup is one SQLite file, whichever database the store lives in: it restores into either, which is also how a store moves from SQLite to PostgreSQL.
Restoring replaces everything in one transaction, and raises the epoch in it: what was acknowledged after the backup is lost, and whoever holds a token of it
must hear so.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import groupby
from operator import itemgetter
from urllib.parse import quote

from sqlalchemy import Connection, Table, select, text, update
from sqlalchemy.engine import URL

from engine.consent.database import Database, Sqlite, StoreUnavailable, chain
from engine.consent.migrations import CARRIED, STAY, directives, next_epoch, records, store
from engine.errors import HabilisError

BATCH = 1000
"""Rows copied at a time."""


class BackupError(HabilisError):
    """A backup that cannot be written, or is not whole. Nothing was changed."""


def raise_epoch(database: Database) -> int:
    """Raise the store's epoch. Returns the new one."""
    with database.writing() as connection:
        _lock(connection)
        return _set_epoch(connection, _epoch(connection))


def backup(database: Database, path: str) -> None:
    """Write a new file with everything in the store at one instant. Raises `BackupError` when there is one already: a backup never replaces anything."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.exists(path):
        raise BackupError(f"there is a file at {path}: a backup is written to a new one")
    if not os.path.isdir(folder):
        raise BackupError(f"there is no folder {folder}")
    with _draft(folder) as draft:
        if isinstance(database, Sqlite):
            with closing(database.open()) as live, closing(sqlite3.connect(draft)) as copy:
                live.backup(copy)
        else:
            _copy_out(database, draft)
        _close_up(draft)
        os.link(draft, path)  # unlike a rename, fails if somebody else made the file meanwhile
    _sync(folder)


def restore(database: Database, path: str) -> int:
    """Replace everything in the store by a backup, in one transaction, under a new epoch. Returns it. Raises `BackupError` for a file that is not whole."""
    with _draft(tempfile.gettempdir()) as draft:
        try:
            with closing(sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True)) as kept, closing(sqlite3.connect(draft)) as copy:
                kept.backup(copy)
            copied = Sqlite(URL.create("sqlite", database=draft), create=False, timeout=database.timeout)
        except (sqlite3.Error, StoreUnavailable) as error:
            raise BackupError(f"{path} is no backup of a consent store: {error}") from None
        with closing(copied):
            try:
                with copied.writing() as connection:
                    _check_whole(connection)
            except StoreUnavailable as error:
                raise BackupError(f"{path} is damaged: {error}") from None
            return _copy_file(copied, database) if isinstance(database, Sqlite) else _copy_in(copied, database)


# --- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def _draft(folder: str) -> Iterator[str]:
    """A file that is gone afterwards, with what SQLite puts beside it."""
    number, path = tempfile.mkstemp(prefix=".habilis-", suffix=".db", dir=folder)
    os.close(number)
    try:
        yield path
    finally:
        for beside in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(path + beside)


def _close_up(path: str) -> None:
    """Leave a database as one file, on the disk."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    _sync(path)


def _sync(path: str) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


# --- what is copied --------------------------------------------------------------------------------------------------


def _check_whole(connection: Connection) -> None:
    """Every page of the file, and every record against its digest."""
    if connection.exec_driver_sql("PRAGMA integrity_check").scalar() != "ok":
        raise BackupError("the backup is damaged")
    columns = (directives.c.revision, directives.c.epoch, directives.c.recorded, directives.c.body)
    joined = select(records, *columns).select_from(records.outerjoin(directives)).order_by(records.c.patient, directives.c.revision)
    for (patient, revision, digest), rows in groupby(connection.execute(joined), key=itemgetter(0, 1, 2)):
        kept = [tuple(row[3:]) for row in rows]
        if [row[0] for row in kept] != list(range(1, revision + 1)) or chain(patient, "", kept) != digest:
            raise BackupError("the backup is damaged: a record does not match its digest")


def _copy_file(copied: Sqlite, database: Sqlite) -> int:
    """SQLite writes a whole database over another in one transaction; those who read it go on, and see it at their next statement."""
    with database.writing() as connection:
        before = _epoch(connection)
    with copied.writing() as connection:
        epoch = _set_epoch(connection, before, _epoch(connection))
    with closing(copied.open()) as source, closing(database.open()) as live:
        source.backup(live)
    return epoch


def _copy_in(copied: Sqlite, database: Database) -> int:
    with copied.writing() as source, database.writing() as target, _unhurried(target):
        _lock(target)
        for name in STAY:
            target.execute(text(f"ALTER TABLE {name} DISABLE TRIGGER {name}_stay"))
        for table in reversed(CARRIED):
            target.execute(table.delete())
        for table in CARRIED:
            _copy_rows(source, target, table)
        for name in STAY:
            target.execute(text(f"ALTER TABLE {name} ENABLE TRIGGER {name}_stay"))
        return _set_epoch(target, _epoch(source), _epoch(target))


def _copy_out(database: Database, path: str) -> None:
    os.unlink(path)
    made = Sqlite(URL.create("sqlite", database=path), create=True, timeout=database.timeout)
    with closing(made) as copy, database.writing() as source, copy.writing() as target:
        source.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        with _unhurried(source):
            for table in CARRIED:
                _copy_rows(source, target, table)
            target.execute(update(store).values(epoch=_epoch(source)))


def _copy_rows(source: Connection, target: Connection, table: Table) -> None:
    found = source.execution_options(yield_per=BATCH).execute(select(table))
    for several in found.mappings().partitions(BATCH):
        target.execute(table.insert(), [dict(one) for one in several])


@contextmanager
def _unhurried(connection: Connection) -> Iterator[None]:
    """Lift the limits on waiting that suit a request, for a copy that takes as long as it takes."""
    driver = connection.connection.driver_connection
    limit, driver.limit = driver.limit, None
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    try:
        yield
    finally:
        driver.limit = limit


def _lock(connection: Connection) -> None:
    """Keep every writer out until this transaction ends. Those who read still see everything as it was."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"LOCK TABLE {', '.join(table.name for table in CARRIED)} IN EXCLUSIVE MODE"))


def _epoch(connection: Connection) -> int:
    return connection.execute(select(store.c.epoch)).scalar_one()


def _set_epoch(connection: Connection, *earlier: int) -> int:
    epoch = next_epoch(*earlier)
    connection.execute(update(store).values(epoch=epoch))
    return epoch
