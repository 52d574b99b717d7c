"""The shape of the store's database, as the ordered list of steps that made it, and the step from any older shape to this one.

The version in the table `store` counts the steps done. They are done in one transaction when the store is opened, so a database is never between two shapes;
one made by a later Habilis is refused. A step is never edited once released: the next change is the next step.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, Double, ForeignKey, Integer, LargeBinary, MetaData, Table, Text, inspect, select, text, update

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
acts = Table(
    "acts",
    tables,
    Column("patient", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("id", Text),
    Column("recorded", Double),
    Column("epoch", BigInteger),
    Column("before", BigInteger),
    Column("after", BigInteger),
    Column("action", Text),
    Column("decision", Text),
    Column("rule", Text),
    Column("body", Text),
)
imports = Table(
    "imports",
    tables,
    Column("structure", Text, primary_key=True),
    Column("application", Text, primary_key=True),
    Column("control", Text, primary_key=True),
    Column("digest", Text),
    Column("patient", Text),
    Column("recorded", Double),
)
collected = Table(
    "collected",
    tables,
    Column("patient", Text, primary_key=True),
    Column("structure", Text, primary_key=True),
    Column("place", Text, primary_key=True),
    Column("instant", Double),
)
dead_letters = Table(
    "dead_letters",
    tables,
    Column("id", Text, primary_key=True),
    Column("name", Text),
    Column("sender", Text),
    Column("place", Text),
    Column("reason", Text),
    Column("help", Text),
    Column("size", BigInteger),
    Column("data", LargeBinary),
    Column("state", Text),
    Column("first", Double),
    Column("last", Double),
    Column("times", Integer),
    Column("note", Text),
)
"""What statements are written with. A test compares it with what the migrations make."""

CARRIED = (records, directives, acts, imports, collected, dead_letters)
"""What a backup carries, in the order in which rows may be put back; and in which tables are locked."""
STAY = ("directives", "acts")
"""The tables whose rows are appended, never edited: the database itself refuses."""


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

_ACTS = (
    "CREATE TABLE acts (patient TEXT NOT NULL, number BIGINT NOT NULL CHECK (number > 0), id TEXT NOT NULL, recorded DOUBLE PRECISION NOT NULL, "
    "epoch BIGINT NOT NULL, before BIGINT NOT NULL, after BIGINT NOT NULL, action TEXT NOT NULL, decision TEXT NOT NULL, rule TEXT NOT NULL, "
    "body TEXT NOT NULL, PRIMARY KEY (patient, number)){}"
)
_IMPORTS = (
    "CREATE TABLE imports (structure TEXT NOT NULL, application TEXT NOT NULL, control TEXT NOT NULL, digest TEXT NOT NULL, patient TEXT NOT NULL, "
    "recorded DOUBLE PRECISION NOT NULL, PRIMARY KEY (structure, application, control)){0}",
    "CREATE TABLE collected (patient TEXT NOT NULL, structure TEXT NOT NULL, place TEXT NOT NULL, instant DOUBLE PRECISION NOT NULL, "
    "PRIMARY KEY (patient, structure, place)){0}",
    "CREATE TABLE dead_letters (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, sender TEXT NOT NULL, place TEXT NOT NULL, reason TEXT NOT NULL, "
    "help TEXT NOT NULL, size BIGINT NOT NULL, data {1} NOT NULL, state TEXT NOT NULL CHECK (state IN ('open', 'retaken', 'dismissed')), "
    "first DOUBLE PRECISION NOT NULL, last DOUBLE PRECISION NOT NULL, times INTEGER NOT NULL, note TEXT NOT NULL)",
)


def _stay(table: str, sentence: str) -> tuple[list[str], list[str]]:
    """What makes a database refuse to edit or remove rows of a table."""
    lite = [f"CREATE TRIGGER {table}_{verb} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{sentence}'); END" for verb in ("UPDATE", "DELETE")]
    post = [
        f"CREATE FUNCTION {table}_stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{sentence}'; END $$",
        f"CREATE TRIGGER {table}_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {table}_stay()",
    ]
    return lite, post


_DIRECTIVES_STAY = _stay("directives", "a directive is appended, never edited")
_ACTS_STAY = _stay("acts", "an act is kept as it was asked, never edited")

MIGRATIONS: tuple[Migration, ...] = (
    Migration("tables", [line.format(" WITHOUT ROWID") for line in _TABLES], [line.format("") for line in _TABLES]),
    Migration("a directive is appended, never edited", *_DIRECTIVES_STAY),
    Migration("acts, permitted and refused", [_ACTS.format(" WITHOUT ROWID"), *_ACTS_STAY[0]], [_ACTS.format(""), *_ACTS_STAY[1]]),
    Migration(
        "admission messages that were taken, and those that were not",
        [line.format(" WITHOUT ROWID", "BLOB") for line in _IMPORTS],
        [line.format("", "BYTEA") for line in _IMPORTS],
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
