"""The outbox: who is to be told what, once, and whether he was. Whoever sends asks `pending`, and says what became of each notice.

A notice tells who came, when, by which action and in which mode: no document, no rule, nothing that the addressee might not be allowed to know. In a secret
session only the holder is told, and `private` says that it may go to nobody but him: on a channel of his own, or else to `nobody`.

That a notice was sent is an entry of the log before it is a row here, so that a journal made anew does not send it again. A sender that is killed in between
sends it once more: at least once. How often it was tried in vain is known here alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, and_, delete, false, select, true, tuple_, update

from engine.decision_log.entries import entry
from engine.journal import tables as t
from engine.journal.database import Database, insert
from engine.journal.derive import Rows, digest, parse_meaning
from engine.journal.tables import Row

LEASE = 60.0
"""Seconds for which a notice that was given to one sender is given to no other."""
FIRST_WAIT, LONGEST_WAIT = 30.0, 3600.0
"""Seconds until a notice that failed is given again: doubled each time, up to the longest."""
STALE = 365 * 86_400.0
"""Seconds after which a notice is not given any more: a journal made anew after the log was expunged cannot know that it was sent. `waiting` still lists it."""
CHUNK = 1000
"""Values of one `IN`."""

_GROUP = ("patient", "subject_type", "subject_id", "obligation", "private", "once")
_DERIVED = ("obligation", "addressee", "patient", "subject_type", "subject_id", "decision", "pack", "private", "once", "at", "due")


def parse(body: str) -> Any:
    """JSON of our own writing."""
    return json.loads(body)


# --- which notices there are -----------------------------------------------------------------------------------------


def settle(connection: Connection, rows: Rows) -> None:
    """Bring the notices up to date with rows that were just kept: each is owed by the earliest decision of those that it tells once."""
    if rows.owed:
        best = _best(connection, rows.owed)
        said = insert(connection, t.notices)
        earlier = tuple_(said.excluded.at, said.excluded.decision) < tuple_(t.notices.c.at, t.notices.c.decision)
        _upsert(connection, said, best, earlier)
    settle_again(connection, _touched(connection, rows))


def settle_again(connection: Connection, touched: Iterable[tuple[Any, ...]]) -> None:
    """The same for whole groups, whose earliest decision may be another one than it was."""
    for group in touched:
        several = [dict(one) for one in connection.execute(select(t.owed).where(_in_group(t.owed, group))).mappings()]
        best = _best(connection, several)
        connection.execute(delete(t.notices).where(_in_group(t.notices, group), t.notices.c.id.not_in(list(best))))
        _upsert(connection, insert(connection, t.notices), best, None)


def _upsert(connection: Connection, said: Any, best: Mapping[str, Row], where: Any) -> None:
    if best:
        set_ = {name: said.excluded[name] for name in _DERIVED}
        several = [{"id": id} | {name: one[name] for name in _DERIVED} for id, one in best.items()]
        connection.execute(said.on_conflict_do_update(index_elements=["id"], set_=set_, where=where), several)


def _best(connection: Connection, several: Sequence[Row]) -> dict[str, Row]:
    """For each notice that these owe, the earliest that stands."""
    renewed = _grants(connection, {one["patient"] for one in several if one["again"]})
    gone = fallen(connection, {one["decision"] for one in several})
    best: dict[str, Row] = {}
    for one in several:
        if one["decision"] in gone:
            continue
        id = digest(*(one[name] for name in _GROUP), _generation(one, renewed.get(one["patient"], ())))
        if id not in best or (one["at"], one["decision"]) < (best[id]["at"], best[id]["decision"]):
            best[id] = one
    return best


def _generation(one: Row, renewed: Iterable[tuple[float, str, int, str, str]]) -> str:
    """The last directive before it that makes an access the first again; nothing when there is none."""
    if not one["again"]:
        return ""
    kinds, names = one["again"].split(), parse(one["names"])
    found = [(at, entry, place) for at, entry, place, kind, target in renewed if at <= one["at"] and kind in kinds and target in names]
    return "/".join(str(part) for part in max(found)[1:]) if found else ""


def _grants(connection: Connection, patients: Collection[str]) -> dict[str, list[tuple[float, str, int, str, str]]]:
    made: dict[str, list[tuple[float, str, int, str, str]]] = {}
    columns = (t.grants.c.patient, t.grants.c.at, t.grants.c.entry, t.grants.c.place, t.grants.c.kind, t.grants.c.target)
    for patient, *rest in _select_in(connection, select(*columns), t.grants.c.patient, patients):
        made.setdefault(patient, []).append(tuple(rest))  # type: ignore[arg-type]
    return made


def _touched(connection: Connection, rows: Rows) -> set[tuple[Any, ...]]:
    """Groups whose earliest decision may be another one now: something was not shown after all, or a new directive makes an access a first one."""
    denied = _denied(connection, {one["decision"] for one in rows.outcomes})
    return groups(connection, t.owed.c.decision, denied) | groups(connection, t.owed.c.patient, {one["patient"] for one in rows.grants}, t.owed.c.again != "")


def groups(connection: Connection, column: Any, values: Collection[str], *more: Any) -> set[tuple[Any, ...]]:
    """The groups of what is owed by these decisions, or about these patients."""
    found = select(*(t.owed.c[name] for name in _GROUP)).where(*more)
    return {tuple(one) for one in _select_in(connection, found, column, values)}


def _in_group(table: Any, group: tuple[Any, ...]) -> Any:
    return and_(*(table.c[name] == value for name, value in zip(_GROUP, group, strict=True)))


def _denied(connection: Connection, several: Collection[str]) -> set[str]:
    """Decisions of which a store said that it did not show something."""
    found = select(t.outcomes.c.decision).where(t.outcomes.c.shown == false()).distinct()
    return {one[0] for one in _select_in(connection, found, t.outcomes.c.decision, several)}


def fallen(connection: Connection, several: Collection[str]) -> set[str]:
    """Decisions that were no access after all: nothing of what they permitted was shown, and their store said so of all of it."""
    denied = _denied(connection, several)
    if not denied:
        return set()
    shown, not_shown = joined_outcomes()
    found = select(t.accesses.c.decision, shown.c.shown, not_shown.c.shown).select_from(with_outcomes(t.accesses, shown, not_shown))
    known = _select_in(connection, found, t.accesses.c.decision, denied)
    return {one for one, _, _ in known} - {one for one, yes, no in known if yes is not None or no is None}


def joined_outcomes() -> tuple[Any, Any]:
    return t.outcomes.alias("shown"), t.outcomes.alias("not_shown")


def with_outcomes(source: Any, shown: Any, not_shown: Any) -> Any:
    """Accesses with what the caller that asked said of them; another caller's word does not count."""
    for one, value in ((shown, true()), (not_shown, false())):
        same = and_(one.c.decision == t.accesses.c.decision, one.c.document == t.accesses.c.document, one.c.caller == t.accesses.c.caller, one.c.shown == value)
        source = source.outerjoin(one, same)
    return source


def _select_in(connection: Connection, found: Any, column: Any, values: Collection[str]) -> list[Any]:
    several = sorted(values)
    return [one for at in range(0, len(several), CHUNK) for one in connection.execute(found.where(column.in_(several[at : at + CHUNK])))]


# --- sending them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notice:
    """What to tell to whom. `what` is the pack's obligation, `words` its text in each language; `to` is as the pack says it (`holder`, ...).

    `private`: to nobody but the holder himself, on his own channel. `subject` says who came; if he is the addressee, there is nothing to tell.
    """

    id: str
    what: str
    to: str
    private: bool
    patient: str
    at: float
    subject: Mapping[str, Any]
    action: str
    access_mode: str
    words: Mapping[str, str]
    attempts: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A notice that was not delivered, for whoever looks after the sender."""

    id: str
    what: str
    to: str
    private: bool
    at: float
    attempts: int
    trouble: str


class Outbox:
    """Notices and what becomes of them. `append` writes an entry to the decision log, durably (`DecisionLog.append_now`)."""

    def __init__(self, database: Database, append: Callable[[bytes], None]):
        self.database, self.append = database, append
        self._words = lru_cache(maxsize=16)(self._read_words)

    def pending(self, limit: int, now: float, lease: float = LEASE) -> list[Notice]:
        """Notices that are due, oldest first; for `lease` seconds they are ours. None before the log was read to its end once."""
        whole = select(t.journal.c.one).where(t.journal.c.complete == true()).exists()
        found = (
            select(t.notices.c.id)
            .where(t.notices.c.due.between(now - STALE, now), t.notices.c.not_before <= now, _undelivered(), whole)
            .order_by(t.notices.c.due, t.notices.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self.database.writing() as connection:
            ids = list(connection.execute(found).scalars())
            if not ids:
                return []
            connection.execute(update(t.notices).where(t.notices.c.id.in_(ids)).values(not_before=now + lease))
            who = (t.decisions.c.properties, t.decisions.c.action, t.decisions.c.access_mode)
            rows = select(t.notices, *who).join(t.decisions, t.decisions.c.id == t.notices.c.decision).where(t.notices.c.id.in_(ids))
            several = list(connection.execute(rows.order_by(t.notices.c.due, t.notices.c.id)).mappings())
        return [self._notice(one) for one in several]

    def _notice(self, one: Mapping[str, Any]) -> Notice:
        subject = {"type": one["subject_type"], "id": one["subject_id"], "properties": parse(one["properties"] or "{}")}
        words = self._words(one["pack"]).get(one["obligation"], {})
        return Notice(
            one["id"], one["obligation"], one["addressee"], one["private"], one["patient"], one["at"], subject, one["action"], one["access_mode"], words,
            one["attempts"],
        )  # fmt: skip

    def _read_words(self, digest: str) -> Mapping[str, Mapping[str, str]]:
        with self.database.reading() as connection:
            body = connection.execute(select(t.packs.c.body).where(t.packs.c.digest == digest)).scalar()
        return parse_meaning(parse(body))[1].words if body else {}

    def sent(self, id: str, now: float) -> None:
        """It has reached the addressee, or whoever answers for that."""
        self._deliver(id, "sent", now)

    def nobody(self, id: str, now: float) -> None:
        """There is nobody to tell: no treating physician, or no channel that is the holder's own. It is not given again."""
        self._deliver(id, "nobody", now)

    def _deliver(self, id: str, state: str, now: float) -> None:
        """INVARIANT: in the log first. What is only here would be sent again by a journal made anew."""
        with self.database.reading() as connection:
            patient = connection.execute(select(t.notices.c.patient).where(t.notices.c.id == id)).scalar()
        self.append(entry("notice", now, notice=id, state=state, patient=patient))
        with self.database.writing() as connection:
            connection.execute(insert(connection, t.deliveries).values(notice=id, at=now, state=state).on_conflict_do_nothing())

    def failed(self, id: str, why: str, now: float) -> None:
        """It was not delivered; it is given again after a while, longer each time, for ever. `why` names no patient."""
        with self.database.writing() as connection:
            attempts = (connection.execute(select(t.notices.c.attempts).where(t.notices.c.id == id)).scalar() or 0) + 1
            wait = min(FIRST_WAIT * 2 ** min(attempts - 1, 16), LONGEST_WAIT)
            connection.execute(update(t.notices).where(t.notices.c.id == id).values(attempts=attempts, not_before=now + wait, trouble=why[:500]))

    def waiting(self, limit: int = 100) -> list[Waiting]:
        """What was not delivered yet, oldest first."""
        columns = [t.notices.c[name] for name in ("id", "obligation", "addressee", "private", "at", "attempts", "trouble")]
        with self.database.reading() as connection:
            found = connection.execute(select(*columns).where(_undelivered()).order_by(t.notices.c.at, t.notices.c.id).limit(limit))
            return [Waiting(*one) for one in found]


def _undelivered() -> Any:
    return ~select(t.deliveries.c.notice).where(t.deliveries.c.notice == t.notices.c.id).exists()
