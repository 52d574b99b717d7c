"""Reads the decision log from where it stopped, and keeps the journal: one pass, or a thread that makes one pass after the other.

A batch is derived, then written with the cursor that says how far its segment was read, in one transaction that begins by looking whether the cursor is still
where the batch starts. So a follower that is killed loses nothing and counts nothing twice, and two that meet cannot either; the turn only spares the second
one its work. An entry that nobody understands is a row of `problems`; it never stops the rest.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, and_, delete, or_, select, update

from engine.decision_log.storage import LogUnavailable
from engine.errors import HabilisError
from engine.journal import notices
from engine.journal import tables as t
from engine.journal.database import ERRORS, Database, JournalUnavailable, Turn, insert, reason
from engine.journal.derive import Meaning, Rows, derive, parse_meaning
from engine.journal.tables import Row

BATCH = 500
"""Entries of one transaction."""
ROWS = 10_000
"""Accesses of one transaction, beyond which a batch is cut short: an entry may hold a long list."""

FAULTS = (*ERRORS, ValueError, TypeError, OverflowError)
"""What writing a row may raise: the database's errors, and the driver's for what it cannot hand over."""

technical = logging.getLogger("habilis.journal")


class Entry(Protocol):
    """An entry as a log gives it; no body when it was expunged."""

    @property
    def index(self) -> int: ...

    @property
    def body(self) -> Any: ...

    @property
    def is_expunged(self) -> bool: ...


class Log(Protocol):
    """What the follower needs of `engine.decision_log.read.LogReader`. `origin` is the name that no other log has."""

    origin: str

    def sizes(self) -> dict[str, int]: ...

    def entries(self, segment: str, start: int = 0, limit: int | None = None) -> Iterable[Entry]: ...


class _Moved(Exception):
    """Another follower was here: the cursor is not where the batch starts."""


class Follower:
    """Follows one log into one journal. `trouble` says why the last pass failed, if it did; `leading`, whether this follower is the one that works."""

    def __init__(self, log: Log, database: Database):
        self.log, self.database = log, database
        self.trouble = ""
        self.leading = False
        self._turn = Turn(database)
        self._meanings: dict[str, Meaning] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # --- one pass ---

    def step(self) -> int:
        """Read what is new in every segment: how many entries it was; 0 while another follower has the turn.

        Raises `LogUnavailable` or `JournalUnavailable`; what was read by then is kept.
        """
        if not self.lead():
            return 0
        try:
            return self._pass()
        except ERRORS as error:
            raise JournalUnavailable(f"the journal cannot be written ({reason(error)})") from None

    def lead(self) -> bool:
        """Take the turn, or keep it: whether this follower is the one that works."""
        self.leading = self._turn.take()
        return self.leading

    def _pass(self) -> int:
        with self.database.reading() as connection:
            known = {one.segment: one.next for one in connection.execute(select(t.cursors))}
            complete, origin = connection.execute(select(t.journal.c.complete, t.journal.c.origin)).one()
        if origin not in ("", self.log.origin):
            raise JournalUnavailable("the journal was derived from another log: give it its own, or rebuild it")
        read, whole, trouble = 0, True, ""
        for segment, size in sorted(self.log.sizes().items()):
            try:
                read += self._segment(segment, known.get(segment, 0), size)
            except LogUnavailable as error:
                trouble = trouble or str(error)  # the other segments are no worse for it
            except _Moved:
                whole = False
        self._solve()
        if trouble:
            raise LogUnavailable(trouble)
        if whole and not complete and not self._stop.is_set():
            with self.database.transaction() as connection:
                connection.execute(update(t.journal).values(complete=True))
        return read

    def _segment(self, segment: str, start: int, size: int) -> int:
        """Read what is new in one segment: how many entries it was."""
        if size < 0:
            raise LogUnavailable(f"segment {segment} is damaged: verify the log")
        if start > size:
            raise LogUnavailable(f"segment {segment} has fewer entries than the journal has read: if the log was restored, rebuild the journal")
        begun = start
        while start < size and not self._stop.is_set():
            start += self._batch(segment, start, size)
        return start - begun

    def _batch(self, segment: str, start: int, size: int) -> int:
        """Derive and keep the next entries of a segment: how many. Raises `_Moved` when another follower did."""
        found: list[Entry] = []
        weight = 0
        for one in self.log.entries(segment, start, min(BATCH, size - start)):
            found.append(one)
            weight += len(one.body.get("items") or ()) if isinstance(one.body, dict) else 0
            if weight >= ROWS:
                break
        if not found:
            raise LogUnavailable(f"segment {segment} says that it has more entries than it gives")
        self._keep(segment, start, found)
        return len(found)

    def _keep(self, segment: str, start: int, found: Sequence[Entry]) -> None:
        """Keep a batch; when something in it cannot be kept, one entry after the other, and the ones at fault as problems."""
        try:
            self._write(segment, start, start + len(found), [self._rows(segment, one) for one in found])
            return
        except FAULTS as error:
            if not _is_about_data(error):
                raise
            why = _unkeepable(error)
        if len(found) > 1:
            for at, one in enumerate(found):
                self._keep(segment, start + at, [one])
        else:
            technical.warning("entry %d of segment %s: %s", start, segment, why)
            self._write(segment, start, start + 1, [Rows(problems=[{"segment": segment, "number": start, "why": why, "pack": ""}])])

    def _rows(self, segment: str, one: Entry) -> Rows:
        if one.is_expunged:
            return Rows()
        digest = one.body.get("pack") if isinstance(one.body, dict) else None
        if isinstance(digest, str) and digest not in self._meanings:
            self._load(digest)
        return derive(one.body, segment, one.index, self._meanings)

    def _load(self, digest: str) -> None:
        """A pack that an earlier pass, or an earlier follower, has read."""
        with self.database.reading() as connection:
            body = connection.execute(select(t.packs.c.body).where(t.packs.c.digest == digest)).scalar()
        if body is not None:
            _, self._meanings[digest] = parse_meaning(notices.parse(body))

    def _write(self, segment: str, start: int, stop: int, several: Sequence[Rows]) -> None:
        rows = Rows()
        for one in several:
            rows.add(one)
        with self.database.transaction() as connection:
            connection.execute(select(t.journal.c.one).with_for_update())
            if (connection.execute(select(t.cursors.c.next).where(t.cursors.c.segment == segment)).scalar() or 0) != start:
                raise _Moved
            connection.execute(update(t.journal).values(origin=self.log.origin))
            keep(connection, rows)
            moved = insert(connection, t.cursors).values(segment=segment, next=stop)
            connection.execute(moved.on_conflict_do_update(index_elements=["segment"], set_={"next": stop}))

    def _solve(self) -> None:
        """Keep the entries that waited for a pack which another segment told of meanwhile."""
        with self.database.reading() as connection:
            found = select(t.problems.c.segment, t.problems.c.number).join(t.packs, t.packs.c.digest == t.problems.c.pack)
            waiting = connection.execute(found).all()
        for segment, number in waiting:
            for one in self.log.entries(segment, number, 1):
                rows = self._rows(segment, one)
                rows.entries.clear()  # its place is known already
                self._replace(and_(t.problems.c.segment == segment, t.problems.c.number == number), rows)

    def _replace(self, problem: Any, rows: Rows) -> None:
        """A problem by the rows that were wanting, unless another follower has just done it."""
        try:
            with self.database.transaction() as connection:
                connection.execute(select(t.journal.c.one).with_for_update())
                if connection.execute(delete(t.problems).where(problem)).rowcount:
                    keep(connection, rows)
        except FAULTS as error:
            if not _is_about_data(error):
                raise
            with self.database.transaction() as connection:
                connection.execute(update(t.problems).where(problem).values(pack="", why=_unkeepable(error)))

    # --- a thread ---

    def start(self, interval: float = 1.0) -> None:
        """Make passes in a thread until `stop`: at once while there is something new, every `interval` seconds otherwise. Failures are said in `trouble`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(interval,), name="journal-follower", daemon=True)
        self._thread.start()

    def _run(self, interval: float) -> None:
        while not self._stop.is_set():
            read = 0
            try:
                read = self.step()
                self.trouble = ""
            except HabilisError as error:
                self._say(str(error))
            except Exception as error:  # a bug: said, and tried again, rather than a journal that silently stands still
                self._say(f"internal fault {type(error).__name__}")
            if not read:
                self._stop.wait(interval)
        self._turn.give_back()

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            technical.error("the journal stands still: %s", trouble)
        self.trouble = trouble

    def stop(self, wait: float | None = None) -> None:
        """End the thread after the batch that it is at, and let another follower take over. It is left alone if that takes more than `wait` seconds: a server
        does not answer, and whoever ends this process loses nothing that could not be derived again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(wait)
            if self._thread.is_alive():
                return
            self._thread = None
        self._turn.give_back()
        self._stop.clear()
        self.leading = False

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def rebuild(database: Database) -> None:
    """Forget everything that was derived: the next pass begins at the beginning of the log."""
    with database.writing() as connection:
        connection.execute(select(t.journal.c.one).with_for_update())
        for table in reversed(t.metadata.sorted_tables):
            if table is not t.journal:
                connection.execute(delete(table))
        connection.execute(update(t.journal).values(complete=False, origin=""))


def _is_about_data(error: Exception) -> bool:
    """Whether the fault is in what was to be kept, and not in the database or the way to it."""
    cause = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlstate", None)
    if code is not None:
        return code[:2] in ("22", "23", "54")
    return isinstance(cause, ValueError | TypeError | OverflowError) or type(cause).__name__ in ("DataError", "IntegrityError", "InterfaceError")


def _unkeepable(error: Exception) -> str:
    return f"the database cannot keep it ({reason(error)})"


# --- writing rows ----------------------------------------------------------------------------------------------------


def keep(connection: Connection, rows: Rows) -> None:
    """Write rows so that it does not matter which came first, nor how often, then settle the notices that they touch."""
    for table in (t.entries, t.packs, t.owed, t.grants, t.verdicts, t.outcomes, t.problems):
        if several := getattr(rows, _name(table)):
            connection.execute(insert(connection, table).on_conflict_do_nothing(), several)
    for table in (t.decisions, t.accesses):
        _keep_highest(connection, table, getattr(rows, _name(table)))
    if rows.deliveries:
        _keep_deliveries(connection, rows.deliveries)
    if rows.counts:
        _count(connection, rows)
    notices.settle(connection, rows)
    for segment, start, stop in rows.expunged:
        _forget(connection, segment, start, stop)


def _name(table: Any) -> str:
    return table.name.removeprefix("journal_")


def _keep_highest(connection: Connection, table: Any, several: Sequence[Row]) -> None:
    """Of two rows about the same thing, the one that knows how it ended."""
    if several:
        said = insert(connection, table)
        rest = {column.name: said.excluded[column.name] for column in table.columns if not column.primary_key}
        higher = said.excluded.rank > table.c.rank
        connection.execute(said.on_conflict_do_update(index_elements=table.primary_key.columns, set_=rest, where=higher), several)


def _keep_deliveries(connection: Connection, several: Sequence[Row]) -> None:
    """The earliest of several for one notice; of two at the same instant, the first in the alphabet."""
    said = insert(connection, t.deliveries)
    earlier = or_(said.excluded.at < t.deliveries.c.at, and_(said.excluded.at == t.deliveries.c.at, said.excluded.state < t.deliveries.c.state))
    set_ = {"at": said.excluded.at, "state": said.excluded.state}
    connection.execute(said.on_conflict_do_update(index_elements=["notice"], set_=set_, where=earlier), several)


def _count(connection: Connection, rows: Rows) -> None:
    names = ("day", "caller", "action", "rule", "decision")
    said = insert(connection, t.counts)
    several = [dict(zip(names, key, strict=True)) | {"items": items} for key, items in sorted(rows.counts.items())]
    more = {"items": t.counts.c["items"] + said.excluded["items"]}
    connection.execute(said.on_conflict_do_update(index_elements=t.counts.primary_key.columns, set_=more), several)


def _forget(connection: Connection, segment: str, start: int, stop: int) -> None:
    """The end of retention: what expunged entries said goes from here too. What was counted, and that a notice was sent, stays: it names nobody."""
    gone = and_(t.entries.c.segment == segment, t.entries.c.number >= start, t.entries.c.number < stop)
    ids = list(connection.execute(select(t.entries.c.id).where(gone).order_by(t.entries.c.number)).scalars())
    for at in range(0, len(ids), notices.CHUNK):
        several = ids[at : at + notices.CHUNK]
        touched = notices.groups(connection, t.owed.c.decision, several)
        for column in (t.accesses.c.decision, t.outcomes.c.decision, t.owed.c.decision, t.decisions.c.id, t.grants.c.entry, t.verdicts.c.decision):
            connection.execute(delete(column.table).where(column.in_(several)))
        notices.settle_again(connection, touched)
    connection.execute(delete(t.entries).where(gone))
