"""The shape of the store's database, as the ordered list of steps that made it, and the step from any older shape to this one.

The version in the table `store` counts the steps done. They are done in one transaction when the store is opened, so a database is never between two shapes;
one made by a later Habilis is refused. A step is never edited once released: the next change is the next step.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, Double, ForeignKey, Integer, MetaData, Table, Text, inspect, select, text, update

tables = MetaData()

store = Table("store", tables, Column("one", Integer, primary_key=True), Column("epoch", BigInteger), Column("version", Integer))
records = Table("records", tables, Column("patient", Text, primary_key=True), Column("revision", BigInteger), Column("digest", Text))
directives = Table(
    "directives",
    tables,
    Column("patient", Text, ForeignKey("records.patient"), primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("epoch", BigInteger),
    Column("recorded", Double),
    Column("body", Text),
)
"""What statements are written with. A test compares it with what the migrations make."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: what it is for, and its statements, for each kind of database where they differ."""

    title: str
    sqlite: Sequence[str]
    postgresql: Sequence[str]


_TABLES = (
    "CREATE TABLE store (one INTEGER PRIMARY KEY CHECK (one = 1), epoch BIGINT NOT NULL CHECK (epoch > 0), version INTEGER NOT NULL)",
    "CREATE TABLE records (patient TEXT NOT NULL PRIMARY KEY, revision BIGINT NOT NULL, digest TEXT NOT NULL){}",
    "CREATE TABLE directives (patient TEXT NOT NULL REFERENCES records (patient), revision BIGINT NOT NULL CHECK (revision > 0), epoch BIGINT NOT NULL, "
    "recorded DOUBLE PRECISION NOT NULL, body TEXT NOT NULL, PRIMARY KEY (patient, revision)){}",
)

MIGRATIONS: tuple[Migration, ...] = (
    Migration("tables", [line.format(" WITHOUT ROWID") for line in _TABLES], [line.format("") for line in _TABLES]),
    Migration(
        "a directive is appended, never edited",
        [
            f"CREATE TRIGGER directives_{verb} BEFORE {verb} ON directives BEGIN SELECT RAISE(ABORT, 'a directive is appended, never edited'); END"
            for verb in ("UPDATE", "DELETE")
        ],
        [
            "CREATE FUNCTION directives_stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a directive is appended, never edited'; END $$",
            "CREATE TRIGGER directives_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON directives FOR EACH STATEMENT EXECUTE FUNCTION directives_stay()",
        ],
    ),
)

_LOCK = 0x4861_6269_6C69_73
"""The advisory lock under which PostgreSQL is migrated: two processes may open a new store at once."""


class NoStore(Exception):
    """The database holds no consent store, and none was to be made."""


class NewerStore(Exception):
    """The database was migrated by a later Habilis."""


def version_of(connection: Connection) -> int:
    """How many steps the database has had; 0 when it holds no store."""
    if not inspect(connection).has_table("store"):
        return 0
    return connection.execute(select(store.c.version)).scalar() or 0


def migrate(connection: Connection, create: bool, steps: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the database to the newest shape, within the caller's transaction.

    Raises `NoStore` for an empty one unless `create`, `NewerStore` for one that has had more than these `steps`.
    """
    kind = connection.dialect.name
    if kind == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    version = version_of(connection)
    if version > len(steps):
        raise NewerStore(version, len(steps))
    if not version and not create:
        raise NoStore
    for step in steps[version:]:
        for statement in getattr(step, kind):
            connection.exec_driver_sql(statement)
    if not version:
        connection.execute(store.insert(), {"one": 1, "epoch": next_epoch(0), "version": len(steps)})
    elif version < len(steps):
        connection.execute(update(store).values(version=len(steps)))


def next_epoch(*earlier: int) -> int:
    """A number above these that no other store has had, so that a token or a cached record of another life of the store is never taken for one of this life.

    Plain counting would give two restores of one backup the same epoch. Seconds since 1970 and 20 random bits: until 2242 under 2**53, which JSON carries
    whole.
    """
    return max(max(earlier) + 1, int(time.time()) << 20 | secrets.randbits(20))
