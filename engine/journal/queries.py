"""Questions to the journal: a patient's, for whoever may read it, and a reviewer's, who may read all.

What a reader may know of is decided by the policy, not here: a page is made of traces of documents that `may_see` lets through. INVARIANT: nothing of a page
depends on a trace that is not in it: pages are counted among what is visible, the place to go on from is a trace that was shown, there is no total, and an
access is marked as somebody's first when it is the first that this reader sees.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select, true, tuple_

from engine.decision_log.entries import entry
from engine.errors import RequestError
from engine.journal import tables as t
from engine.journal.database import Database, insert
from engine.journal.derive import ASKED, READ
from engine.journal.notices import joined_outcomes, parse, with_outcomes
from engine.request import Entity

MaySee = Callable[[Collection[str]], Collection[str]]
"""Which of these documents the reader may know of, now."""
CHUNK = 200
"""Traces looked at together, and documents asked about together."""
CONFIRMED, UNCONFIRMED, NOT_SHOWN = "confirmed", "unconfirmed", "not shown"


@dataclass(frozen=True, slots=True)
class View:
    """What a reader may see. `own`: only what he did himself. `documents`: traces of documents only of those that he may know of. `secret`: secret sessions
    too. `without`: acts on the record that are nothing for him.
    """

    own: Entity | None = None
    documents: bool = True
    secret: bool = False
    without: frozenset[str] = frozenset()


EVERYTHING = View(documents=False, secret=True)
"""A reviewer's."""


def view_of(obligations: Iterable[Mapping[str, Any]], reader: Entity) -> View:
    """The view that a permitted reading of the traces leaves, by its obligations to the requester (`Answer.obligations`).

        traces = "own"              what he did himself, as he knew it then: what was masked since shows by no change here
        traces = "known"            everything of documents that he may know of
        traces = "not secret"       the same, but of secret sessions
        (none of them)              as "not secret": what the pack does not open stays shut

    A property `without` names acts, separated by spaces, whose traces are left out too.
    """
    known = [one.get("properties") or {} for one in obligations]
    without = frozenset(word for properties in known for word in str(properties.get("without") or "").split())
    traces = {properties["traces"] for properties in known if "traces" in properties}
    if "own" in traces:
        return View(own=reader, documents=False, secret=True, without=without)
    return View(secret=traces == {"known"}, without=without)


@dataclass(frozen=True, slots=True)
class Trace:
    """Somebody did something to a record: an access to a document, or an act on it or on the record (`document` is nothing then).

    `status`: `confirmed` by whoever asked, `unconfirmed` as long as nobody said, or `not shown`. `rule` is for those who may see everything or the document.
    """

    decision: str
    at: float
    subject: Mapping[str, Any]
    action: str
    document: str
    type: str
    target: Mapping[str, Any] | None
    access_mode: str
    patient_request: bool
    first: bool
    emergency: bool
    secret: bool
    status: str
    rule: str


@dataclass(frozen=True, slots=True)
class Page:
    """Traces, newest first, and where the next page begins (nothing at the end)."""

    traces: Sequence[Trace]
    next: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry is in the log."""

    segment: str
    index: int
    kind: str
    at: float


@dataclass(frozen=True, slots=True)
class Review:
    """An emergency that a reviewer looks at, or has. `state`: `open` or `reviewed`; the last verdict counts."""

    decision: str
    at: float
    patient: str
    caller: str
    subject: Mapping[str, Any]
    action: str
    access_mode: str
    context: Mapping[str, Any]
    state: str
    reviewer: str
    reviewed: float | None
    verdict: str
    comment: str


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A permit of which nobody has said what became of it."""

    decision: str
    at: float
    patient: str
    document: str
    action: str
    caller: str
    rule: str


@dataclass(frozen=True, slots=True)
class ShownWithoutPermit:
    """A document that `caller` says it showed by a decision that did not permit that; `at` and `patient` are of the decision, if there is one."""

    decision: str
    document: str
    caller: str
    at: float | None
    patient: str | None


class Journal:
    """A journal, open for reading. Safe to use from many threads. Every method raises `JournalUnavailable`."""

    def __init__(self, database: Database):
        self.database = database

    # --- a patient's journal ---

    def page(self, patient: str, view: View, may_see: MaySee | None = None, limit: int = 50, before: str = "") -> Page:
        """What was done to a patient's record, newest first. `before` is the `next` of the page before.

        Raises `RequestError` for a `before` that no page gave, and whatever `may_see` raises; a view that needs `may_see` has no page without it.
        """
        if view.documents and may_see is None:
            raise AssertionError("this view needs to know which documents may be seen")
        limit = max(limit, 1)
        known: dict[str, bool] = {}
        with self.database.reading() as connection:
            rows = self._visible(connection, patient, view, may_see, known, _parse(before))
            found = [row for row, _ in zip(rows, range(limit + 1), strict=False)]
            firsts = {who: self._first(connection, patient, who, view, may_see, known) for who in {_who(row) for row in found} if who[1] != patient}
        traces = [_trace(row, firsts.get(_who(row)) == (row["decision"], row["document"]), view) for row in found[:limit]]
        return Page(traces, _position(found[limit - 1]) if len(found) > limit else "")

    def _visible(
        self, connection: Connection, patient: str, view: View, may_see: MaySee | None, known: dict[str, bool], before: tuple[Any, ...] | None
    ) -> Iterator[Mapping[str, Any]]:
        order = (t.accesses.c.at, t.accesses.c.decision, t.accesses.c.document)
        found = _accesses(view).where(t.accesses.c.patient == patient).order_by(*(one.desc() for one in order)).limit(CHUNK)
        while True:
            chunk = connection.execute(found if before is None else found.where(tuple_(*order) < before)).mappings().all()
            yield from _seen(chunk, view, may_see, known)
            if len(chunk) < CHUNK:
                return
            before = (chunk[-1]["at"], chunk[-1]["decision"], chunk[-1]["document"])

    def _first(
        self, connection: Connection, patient: str, who: tuple[str, str], view: View, may_see: MaySee | None, known: dict[str, bool]
    ) -> tuple[str, str] | None:
        """The first access of somebody that this reader sees."""
        order = (t.accesses.c.at, t.accesses.c.decision, t.accesses.c.document)
        his = and_(t.accesses.c.patient == patient, t.accesses.c.subject_type == who[0], t.accesses.c.subject_id == who[1], t.accesses.c.action == READ)
        found, after = _accesses(view).where(his).order_by(*order).limit(CHUNK), None
        while True:
            chunk = connection.execute(found if after is None else found.where(tuple_(*order) > after)).mappings().all()
            for row in _seen(chunk, view, may_see, known):
                if _status(row) != NOT_SHOWN:
                    return row["decision"], row["document"]
            if len(chunk) < CHUNK:
                return None
            after = (chunk[-1]["at"], chunk[-1]["decision"], chunk[-1]["document"])

    def by_subject(self, subject: Entity, limit: int = 50, before: str = "") -> Sequence[tuple[str, Trace]]:
        """What somebody did, in any record, with the patient; for reviewers. `first` is not said here. Newest first, before the position of a trace."""
        order = (t.accesses.c.at, t.accesses.c.decision, t.accesses.c.document)
        found = _accesses(EVERYTHING).where(t.accesses.c.subject_id == subject.id, t.accesses.c.subject_type == subject.type)
        if before:
            found = found.where(tuple_(*order) < _parse(before))
        with self.database.reading() as connection:
            rows = connection.execute(found.order_by(*(one.desc() for one in order)).limit(limit)).mappings().all()
        return [(row["patient"], _trace(row, False, EVERYTHING)) for row in rows]

    # --- the log by identifier ---

    def places(self, id: str) -> list[Place]:
        """Where the entries with this identifier are in the log: one, or the several of an act, in the order of its states."""
        found = select(t.entries.c.segment, t.entries.c.number, t.entries.c.kind, t.entries.c.at).where(t.entries.c.id == id)
        with self.database.reading() as connection:
            return [Place(*one) for one in connection.execute(found.order_by(t.entries.c.segment, t.entries.c.number))]

    # --- reviews ---

    def reviews(self, since: float | None = None, until: float | None = None, state: str = "", limit: int = 100, before: str = "") -> list[Review]:
        """Emergencies queued for review, newest first: of these instants, in this state (`open`, `reviewed`, or both)."""
        done = _last_verdicts()
        found = select(t.decisions, done.c.reviewer, done.c.at.label("reviewed"), done.c.verdict, done.c.comment)
        found = found.select_from(t.decisions.outerjoin(done, and_(done.c.decision == t.decisions.c.id, done.c.place == 1)))
        found = found.where(t.decisions.c.review == true(), *_between(t.decisions.c.at, since, until))
        if state:
            found = found.where(done.c.id.is_(None) if _state(state) == "open" else done.c.id.is_not(None))
        if before:
            found = found.where(tuple_(t.decisions.c.at, t.decisions.c.id) < _parse(before)[:2])  # type: ignore[index]
        with self.database.reading() as connection:
            rows = connection.execute(found.order_by(t.decisions.c.at.desc(), t.decisions.c.id.desc()).limit(limit)).mappings().all()
        return [_review(row) for row in rows]

    def review(self, decision: str, reviewer: str, verdict: str, comment: str, now: float, append: Callable[[bytes], None]) -> str:
        """Record a verdict on an emergency: an entry of the log, written by `append` (`DecisionLog.append_now`), whose identifier is returned.

        Raises `RequestError` for a decision that is not in the queue, or no verdict.
        """
        if not verdict.strip():
            raise RequestError("verdict", "is blank", "say what the review found")
        with self.database.reading() as connection:
            patient = connection.execute(select(t.decisions.c.patient).where(t.decisions.c.id == decision, t.decisions.c.review == true())).scalar()
        if patient is None:
            raise RequestError("decision", "is not one of those to be reviewed", "take its identifier from the list of reviews")
        body = entry("review", now, decision=decision, caller=reviewer, verdict=verdict, comment=comment, patient=patient)
        append(body)
        row = {"decision": decision, "reviewer": reviewer, "verdict": verdict, "comment": comment, "at": now, "id": json.loads(body)["id"]}
        with self.database.writing() as connection:
            connection.execute(insert(connection, t.verdicts).values(row).on_conflict_do_nothing())
        return row["id"]  # type: ignore[return-value]

    # --- other reports ---

    def unconfirmed(self, since: float | None = None, until: float | None = None, limit: int = 100, before: str = "") -> list[Unconfirmed]:
        """Permits for a document, and acts, of which nobody has said what became of them, newest first. Who only asks about a record has nothing to say."""
        shown, not_shown = joined_outcomes()
        order = (t.accesses.c.at, t.accesses.c.decision, t.accesses.c.document)
        columns = (t.accesses.c[name] for name in ("decision", "at", "patient", "document", "action", "caller", "rule"))
        found = select(*columns).select_from(with_outcomes(t.accesses, shown, not_shown)).where(shown.c.shown.is_(None), not_shown.c.shown.is_(None))
        found = found.where(or_(t.accesses.c.document != "", t.accesses.c.rank == ASKED), *_between(t.accesses.c.at, since, until))
        if before:
            found = found.where(tuple_(*order) < _parse(before))
        with self.database.reading() as connection:
            return [Unconfirmed(*one) for one in connection.execute(found.order_by(*(one.desc() for one in order)).limit(limit))]

    def shown_without_permit(self, limit: int = 100) -> list[ShownWithoutPermit]:
        """What a store says that it showed and nobody permitted it to: another document than it asked about, on a mere list, or by another's decision."""
        same = (getattr(t.accesses.c, name) == getattr(t.outcomes.c, name) for name in ("decision", "document", "caller"))
        decided = t.entries.c.id == t.outcomes.c.decision
        found = select(t.outcomes.c.decision, t.outcomes.c.document, t.outcomes.c.caller, func.max(t.entries.c.at), func.max(t.entries.c.patient))
        found = found.select_from(t.outcomes.outerjoin(t.accesses, and_(*same)).outerjoin(t.entries, decided))
        found = found.where(t.outcomes.c.shown == true(), t.accesses.c.decision.is_(None)).group_by(*found.selected_columns[:3])
        with self.database.reading() as connection:
            return [ShownWithoutPermit(*one) for one in connection.execute(found.order_by(*found.selected_columns[:3]).limit(limit))]

    def problems(self) -> list[tuple[str, int, str]]:
        """Entries of the log that were not understood: segment, index, why."""
        found = select(t.problems.c.segment, t.problems.c.number, t.problems.c.why).order_by(t.problems.c.segment, t.problems.c.number)
        with self.database.reading() as connection:
            return [(segment, number, why) for segment, number, why in connection.execute(found)]

    def counts(self, since: str = "", until: str = "") -> list[tuple[str, str, str, str, int]]:
        """How many decisions each caller had by each rule: caller, action, rule, decision, number. From day to day, both included, as `2026-11-21`."""
        names = ("caller", "action", "rule", "decision")
        columns = [t.counts.c[name] for name in names]
        found = select(*columns, func.sum(t.counts.c["items"])).group_by(*columns).order_by(*columns)
        found = found.where(*([t.counts.c.day >= since] if since else []), *([t.counts.c.day <= until] if until else []))
        with self.database.reading() as connection:
            return [(*one[:4], int(one[4])) for one in connection.execute(found)]  # type: ignore[misc]


# --- traces ----------------------------------------------------------------------------------------------------------


def _accesses(view: View) -> Any:
    """Accesses with their decision and what became of them, as far as a view needs no policy to be asked."""
    shown, not_shown = joined_outcomes()
    source = with_outcomes(t.accesses.join(t.decisions, t.decisions.c.id == t.accesses.c.decision), shown, not_shown)
    columns = [t.decisions.c[name] for name in ("properties", "access_mode", "target", "context")]
    found = select(t.accesses, *columns, shown.c.shown.label("shown"), not_shown.c.shown.label("not_shown")).select_from(source)
    if not view.secret:
        found = found.where(~t.accesses.c.secret)
    if view.own is not None:
        found = found.where(t.accesses.c.subject_type == view.own.type, t.accesses.c.subject_id == view.own.id)
    if view.without:
        found = found.where(or_(t.accesses.c.document != "", t.accesses.c.action.not_in(sorted(view.without))))
    return found


def _seen(chunk: Sequence[Mapping[str, Any]], view: View, may_see: MaySee | None, known: dict[str, bool]) -> list[Mapping[str, Any]]:
    if not view.documents:
        return list(chunk)
    assert may_see is not None
    asked = sorted({row["document"] for row in chunk if row["document"] and row["document"] not in known})
    if asked:
        allowed = set(may_see(asked))
        known.update((one, one in allowed) for one in asked)
    return [row for row in chunk if not row["document"] or known[row["document"]]]


def _who(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["subject_type"], row["subject_id"]


def _status(row: Mapping[str, Any]) -> str:
    """What was said to be shown once was shown, whatever else was said."""
    return CONFIRMED if row["shown"] else NOT_SHOWN if row["not_shown"] is not None else UNCONFIRMED


def _trace(row: Mapping[str, Any], first: bool, view: View) -> Trace:
    context = parse(row["context"] or "{}")
    subject = {"type": row["subject_type"], "id": row["subject_id"], "properties": parse(row["properties"] or "{}")}
    target = parse(row["target"]) if row["target"] else None
    return Trace(
        row["decision"], row["at"], subject, row["action"], row["document"], row["type"], target if isinstance(target, dict) else None, row["access_mode"],
        context.get("patient_request") is True, first, row["emergency"], row["secret"], _status(row), row["rule"] if view.secret and view.own is None else "",
    )  # fmt: skip


def position(last: Trace | Review | Unconfirmed) -> str:
    """Where what follows the last one of a list begins (`before`)."""
    return _text(last.at, last.decision, getattr(last, "document", ""))


def _position(row: Mapping[str, Any]) -> str:
    return _text(row["at"], row["decision"], row["document"])


def _text(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _parse(before: str) -> tuple[Any, ...] | None:
    if not before:
        return None
    try:
        at, decision, document = json.loads(base64.urlsafe_b64decode(before.encode()))
        if isinstance(at, int | float) and isinstance(decision, str) and isinstance(document, str):
            return float(at), decision, document
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise RequestError("before", "is not the position of a page", "give what `next` said")


# --- reviews ---------------------------------------------------------------------------------------------------------


def _last_verdicts() -> Any:
    place = func.row_number().over(partition_by=t.verdicts.c.decision, order_by=(t.verdicts.c.at.desc(), t.verdicts.c.id.desc()))
    return select(t.verdicts, place.label("place")).subquery()


def _review(row: Mapping[str, Any]) -> Review:
    subject = {"type": row["subject_type"], "id": row["subject_id"], "properties": parse(row["properties"] or "{}")}
    state = "open" if row["verdict"] is None else "reviewed"
    return Review(
        row["id"], row["at"], row["patient"], row["caller"], subject, row["action"], row["access_mode"], parse(row["context"] or "{}"), state,
        row["reviewer"] or "", row["reviewed"], row["verdict"] or "", row["comment"] or "",
    )  # fmt: skip


def _state(word: str) -> str:
    if word not in ("open", "reviewed"):
        raise RequestError("state", "is `open` or `reviewed`")
    return word


def _between(column: Any, since: float | None, until: float | None) -> list[Any]:
    return [*([column >= since] if since is not None else []), *([column < until] if until is not None else [])]
