"""The consent store: every patient's directives, kept for years, and honoured at the very next decision.

    store = ConsentStore("sqlite:///consent.db", pdp.pack.vocabulary)
    token = store.append(patient, [{"kind": "block", "target": {"professional": "10000000017"}}], now)
    record, token = store.read(patient, now)             # for a decision
    record = store.as_of(patient, then, known_at=then)   # for an audit

Beside the directives stand the acts that asked for them, refused ones too (`acts`), written in the same transaction; no read of a record looks at them.

Directives are appended, never edited, each with the next revision of its patient. A read asks the primary once, in a statement that gives the record's
revision and only the directives that this process does not have yet. What it has is used at that very revision of that epoch, and only as proved: with the
revision the database keeps a digest, chained over the patient and all of his directives. So nothing kept in a process or in Redis can be stale, altered or
another patient's, and be believed.

    HabilisError
    ├── StoreUnavailable (engine.consent.database)   no decision is to be had
    ├── StaleToken                                   the caller has seen more than this store knows, or another life of it: no decision either
    └── Conflict                                     the record changed since the caller read it: nothing was written
"""

from __future__ import annotations

import json
import math
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from engine.consent import backup
from engine.consent.cache import Cache
from engine.consent.database import Changes, Database, OutcomeUnknown, Row, Sqlite, StoreUnavailable, Witness, after_fork, chain, open_database
from engine.consent.directives import Directive, parse_directive
from engine.consent.fold import Record, fold
from engine.consent.migrations import acts as acts_table
from engine.consent.migrations import directives as directives_table
from engine.consent.migrations import records, store
from engine.errors import HabilisError, RequestError
from engine.vocabulary import Vocabulary

if TYPE_CHECKING:
    from engine.consent.directory import Directory

__all__ = ["Act", "Also", "Conflict", "ConsentStore", "Kept", "KeptAct", "OutcomeUnknown", "StaleToken", "StoreUnavailable", "Token", "parse_token"]

STEP_BACK = 900.0
"""Seconds by which a clock may go back, or lag behind another machine's, and be held; further, and which one is right is anybody's guess."""
LONGEST = 65_536
"""Bytes of a directive's JSON."""
ASKED = ("subject", "action", "resource", "context")
"""The members of an act's JSON that say what was asked; the others are the answer."""
LONGEST_ACT = 16_384
"""Bytes of the JSON of what was asked."""

Also: TypeAlias = Callable[[Connection], None]
"""What is written in the same transaction as directives. If it raises, nothing is written."""

_NO_DIRECTIVE = 2**62
_NEVER = -math.inf
_ACTS_LOCK = 0x6163_7473
"""The first half of the advisory locks under which PostgreSQL numbers acts; the second is the patient's."""


class StaleToken(HabilisError):
    """A token that this store cannot honour: newer than what it knows, or of another epoch. It fails closed: there is no decision."""


class Conflict(HabilisError):
    """The record changed since the caller read it. Nothing was written; read it again, and decide again."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a record was when it was read or changed: the store's epoch, the record's revision. `text`: `EPOCH.REVISION`."""

    epoch: int
    revision: int
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.epoch}.{self.revision}")

    def __str__(self) -> str:
        return self.text


def parse_token(text: str) -> Token:
    """The token that `str` wrote. Raises `RequestError` for any other text."""
    epoch, dot, revision = text.partition(".")
    if not (dot and all(part.isascii() and part.isdigit() and len(part) < 19 for part in (epoch, revision))):
        raise RequestError("token", "is not a token of a consent store")
    return Token(int(epoch), int(revision))


@dataclass(frozen=True, slots=True)
class Kept:
    """A directive as the store keeps it: `recorded` is the instant at which this store learnt of it, `epoch` the life of the store in which it did."""

    revision: int
    epoch: int
    recorded: float
    directive: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Act:
    """An act as it is to be kept: its identifier, what was asked for, the decision, the rule, and all of it as JSON (see `engine.consent.acts`)."""

    id: str
    action: str
    decision: str
    rule: str
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KeptAct:
    """An act as the store keeps it. `before`: the record that it was decided on; `after`: the record as it left it, the same when it wrote nothing."""

    number: int
    act: Act
    recorded: float
    before: Token
    after: Token


class _Known:
    """What this process knows of one patient: the directives up to a revision, and the record they folded into last."""

    __slots__ = ("digest", "directives", "record", "recorded", "rows", "token", "witness")

    def __init__(self, token: Token, digest: str, rows: tuple[Row, ...], directives: tuple[Directive, ...]):
        self.token, self.digest, self.rows, self.directives = token, digest, rows, directives
        self.recorded = rows[-1][2] if rows else _NEVER
        self.record: Record | None = None
        self.witness: Witness | None = None
        """INVARIANT: taken before this was last found to be current."""


class _Memory:
    """The patients met last, as many as hold `limit` directives between them (each patient counts for one more)."""

    def __init__(self, limit: int):
        self.limit, self._held = limit, 0
        self._patients: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()
        after_fork(self._forked)

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def get(self, patient: str) -> _Known | None:
        with self._lock:
            known = self._patients.get(patient)
            if known is not None:
                self._patients.move_to_end(patient)
            return known

    def put(self, patient: str, known: _Known) -> None:
        with self._lock:
            before = self._patients.pop(patient, None)
            self._held += 1 + len(known.rows) - (1 + len(before.rows) if before else 0)
            self._patients[patient] = known
            while self._held > self.limit and len(self._patients) > 1:
                _, gone = self._patients.popitem(last=False)
                self._held -= 1 + len(gone.rows)


class _Clock:
    """The latest instant at which this process read or wrote: time, as its callers tell it, runs forwards only."""

    def __init__(self) -> None:
        self._latest = _NEVER
        self._lock = threading.Lock()
        after_fork(self._forked)

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def instant(self, at: float, recorded: float) -> float:
        """The instant to fold at when the clock says `at` and the record's last directive was recorded at `recorded`."""
        _check_instant(at)
        with self._lock:
            if at > self._latest:
                self._latest = at
            now = self._latest
        if recorded > now:
            now = recorded
        if now - at > STEP_BACK:
            raise StoreUnavailable(
                f"the clock is {now - at:.0f} seconds behind an instant that this store has seen: no decision while it is unknown what time it is"
            )
        return now


class ConsentStore:
    """Every patient's directives, in SQLite or PostgreSQL, as records ready for decisions. Safe to use from many threads and many processes.

    `url` is `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`. A store that is not there is made only with `create`: an empty one in the place of one that
    was not mounted would say that nobody refused anything. `timeout` bounds every wait for the database, in seconds; `memory` is how many directives this
    process keeps parsed. `directory`: records are folded with the main identifiers of those whom it knows, however a directive names them.
    """

    def __init__(
        self, url: str, vocabulary: Vocabulary, cache: Cache | None = None, *,
        create: bool = False, timeout: float = 2.0, memory: int = 50_000, directory: Directory | None = None,
    ):  # fmt: skip
        self._share(open_database(url, create, timeout), vocabulary, cache, memory, _Clock(), directory)

    def _share(self, database: Database, vocabulary: Vocabulary, cache: Cache | None, memory: int, clock: _Clock, directory: Directory | None) -> None:
        self._database, self.vocabulary, self._cache, self._clock, self._directory = database, vocabulary, cache, clock, directory
        self._memory = _Memory(memory)
        self.counts: Counter[str] = Counter()
        """Records read, by what this process had of them: `current`, `older`, `nothing`."""

    def with_vocabulary(self, vocabulary: Vocabulary) -> ConsentStore:
        """The same store, read with another pack's vocabulary: for a new version of a pack, beside the one that still answers."""
        return self._beside(vocabulary, self._directory)

    def with_directory(self, directory: Directory | None) -> ConsentStore:
        """The same store, read with another directory: for a new edition of it."""
        return self._beside(self.vocabulary, directory)

    def _beside(self, vocabulary: Vocabulary, directory: Directory | None) -> ConsentStore:
        other = object.__new__(ConsentStore)
        other._share(self._database, vocabulary, self._cache, self._memory.limit, self._clock, directory)
        return other

    @property
    def embedded(self) -> bool:
        """Whether the store is a file of this machine, which a read hardly waits for."""
        return isinstance(self._database, Sqlite)

    def close(self) -> None:
        """Close every connection that nobody uses. The store opens them again if it is asked."""
        self._database.close()

    def __enter__(self) -> ConsentStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- reading ---

    def witness(self) -> Witness | None:
        """What the database is at now, for reads of requests that had arrived before this call: one question serves them all. Raises `StoreUnavailable`."""
        return self._database.witness()

    def read(self, patient: str, at: float, at_least: Token | None = None, witness: Witness | None = None) -> tuple[Record, Token]:
        """The record of a patient now, `at` being what the caller's clock says, and the token that names it. A patient of whom nobody said anything has an
        empty record.

        The record's own `at` is the instant to decide at. It is never earlier than one at which this process has already read, nor than the patient's last
        change: a clock that steps back, or lags behind the one of whoever recorded a block, revives no expired grant and suspends no block. When it is behind
        by more than `STEP_BACK`, there is no decision.

        `at_least`: a token that the caller holds; what it names must be part of what is read. `witness`: taken after the request arrived. Raises
        `StoreUnavailable`, `StaleToken`.
        """
        known = self._memory.get(patient) if witness is not None else None
        if known is None or known.witness != witness:
            known = self._current(patient)
            known.witness = witness
        else:
            self.counts["current"] += 1
        if at_least is not None:
            _check_fresh(at_least, known.token)
        instant = self._clock.instant(at, known.recorded)
        record = known.record
        if record is None or not record.at <= instant < record.holds_until:
            record = known.record = fold(known.directives, self.vocabulary, instant)
        elif record.at != instant:
            record = Record(instant, record.revision, record.in_force, record.ended, record.holds_until, record.zone, record.index)
        return record, known.token

    def as_of(self, patient: str, at: float, *, known_at: float | None = None, revision: int | None = None, token: Token | None = None) -> Record:
        """What the record said at an instant, as this store knew it at `known_at`, up to a `revision`, or when it gave a `token`; as it knows it now, if none
        is said.

        For audits, previews and replays: nothing here looks at a clock, so never decide a live request with it. Raises `RequestError` for a revision that the
        record has not, `StaleToken` for a token whose revision was lost when a backup was restored.
        """
        if sum(one is not None for one in (known_at, revision, token)) > 1:
            raise RequestError("as_of", "takes one of `known_at`, `revision` and `token`")
        _check_instant(at)
        known = self._current(patient)
        if token is not None:
            revision = _check_held(token, known)
        elif known_at is not None:
            revision = bisect_right([recorded for _, _, recorded, _ in known.rows], known_at)
        elif revision is None:
            revision = known.token.revision
        elif not 0 <= revision <= known.token.revision:
            raise RequestError("revision", f"the record has {known.token.revision}, not {revision}")
        return fold(known.directives[:revision], self.vocabulary, at)

    def history(self, patient: str) -> tuple[Kept, ...]:
        """Everything that was ever said in a patient's record, oldest first."""
        return tuple(Kept(revision, epoch, recorded, json.loads(body)) for revision, epoch, recorded, body in self._current(patient).rows)

    def _current(self, patient: str) -> _Known:
        """What is known of a patient, brought up to the revision that the primary gives in this very call."""
        known = self._memory.get(patient)
        if known is None:
            return self._meet(patient)
        changes = self._database.changes(patient, known.token.epoch, known.token.revision)
        if changes.epoch != known.token.epoch:
            return self._keep(patient, self._proved(patient, None, changes))
        if changes.revision == known.token.revision and changes.digest == known.digest:
            self.counts["current"] += 1
            return known
        self.counts["older"] += 1
        return self._keep(patient, self._proved(patient, known, changes))

    def _meet(self, patient: str) -> _Known:
        """A patient whom this process does not know: the revision from the primary, the directives from the cache if it has them, or else from the primary
        too."""
        _check_patient(patient)
        self.counts["nothing"] += 1
        if self._cache is not None and self._cache.is_up:
            head = self._database.changes(patient, 0, 0, _NO_DIRECTIVE)
            rows = self._cache.get(patient, head.epoch, head.revision) if head.revision else ()
            if rows is not None:
                try:
                    known = self._proved(patient, None, head._replace(rows=rows))
                except StoreUnavailable:
                    pass  # the cache's directives are not those of the digest: the primary has the right ones, or says so itself
                else:
                    self._memory.put(patient, known)
                    return known
        return self._keep(patient, self._proved(patient, None, self._database.changes(patient, 0, 0)))

    def _keep(self, patient: str, known: _Known) -> _Known:
        self._memory.put(patient, known)
        if self._cache is not None and known.rows:
            self._cache.put(patient, known.token.epoch, known.token.revision, known.rows)
        return known

    def _proved(self, patient: str, before: _Known | None, changes: Changes) -> _Known:
        """What is known after these changes, if they continue what was known and amount to the digest. Raises `StoreUnavailable`, always, when they do not."""
        token = Token(changes.epoch, changes.revision)
        number = before.token.revision if before else 0
        digest = chain(patient, before.digest if before else "", changes.rows)
        if [row[0] for row in changes.rows] != list(range(number + 1, token.revision + 1)) or digest != changes.digest:
            raise StoreUnavailable(
                "what the consent store says of a record is not what was acknowledged: altered, or put back from a backup without `restore`"
            )
        try:
            parsed = tuple(_parsed(row[3], self.vocabulary, row[0]) for row in changes.rows)
        except (RequestError, msgspec.DecodeError) as error:
            raise StoreUnavailable(f"a directive in the record cannot be read with this pack: {error}") from None
        if self._directory is not None:
            parsed = tuple(map(self._directory.normalise, parsed))
        return _Known(token, digest, (*(before.rows if before else ()), *changes.rows), (*(before.directives if before else ()), *parsed))

    # --- acts ---

    def acts(self, patient: str, limit: int | None = None) -> tuple[KeptAct, ...]:
        """The acts on a patient's record that were asked for, permitted or refused, oldest first; the last `limit` of them, if that is said.

        They show rules and reasons, of discreet refusals too: for reviewers, and for whoever may know of the document.
        """
        _check_patient(patient)
        newest = select(acts_table).where(acts_table.c.patient == patient).order_by(acts_table.c.number.desc())
        with self._database.reading() as connection:
            rows = connection.execute(newest if limit is None else newest.limit(limit)).mappings().all()
        return tuple(_kept_act(dict(row)) for row in reversed(rows))

    def note(self, patient: str, acts: Sequence[Act], at: float, token: Token, also: Also | None = None) -> None:
        """Keep acts that changed nothing: refused, or with nothing to record. `token` names the record that they were decided on. Durable when it returns."""
        _check_patient(patient)
        with self._database.writing() as connection:
            _keep_acts(connection, patient, acts, _to_the_microsecond(self._clock.instant(at, _NEVER)), token, token)
            if also is not None:
                also(connection)

    # --- what else is kept in the same database ---

    def writing(self) -> AbstractContextManager[Connection]:
        """One transaction, for what is kept beside the directives (`engine.consent.imports`): durable when the block has ended without an error."""
        return self._database.writing()

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection for questions that no decision waits for."""
        return self._database.reading()

    # --- writing ---

    def append(
        self, patient: str, directives: Sequence[Mapping[str, Any]], at: float, expect: Token | None = None, *,
        acts: Sequence[Act] = (), also: Also | None = None,
    ) -> Token:  # fmt: skip
        """Record directives, as JSON, in the order given: all of them or none. Returns the token of the record with them, once that is durable.

        `expect` makes it conditional: the record must still be what that token names. `acts`, which asked for the directives, and whatever `also` writes are
        recorded with them or not at all; while `also` runs the record is this transaction's alone. Raises `RequestError` for what the pack does not declare,
        `Conflict`, `StoreUnavailable`, and `OutcomeUnknown` when the database went away at the last moment: repeating with the same `expect` is then safe,
        since it conflicts if the directives were recorded.
        """
        _check_patient(patient)
        bodies = self._accepted(directives, at)
        with self._database.writing() as connection:
            revision, digest, recorded = _locked(connection, patient)
            epoch = connection.execute(select(store.c.epoch)).scalar_one()  # after the lock, which keeps the epoch as it is
            if expect is not None and expect != Token(epoch, revision):
                raise Conflict("the record changed since it was read: nothing was written")
            instant = _to_the_microsecond(self._clock.instant(at, recorded))
            rows = [(revision + place, epoch, instant, body) for place, body in enumerate(bodies, 1)]
            keys = ("revision", "epoch", "recorded", "body")
            connection.execute(directives_table.insert(), [{"patient": patient} | dict(zip(keys, row, strict=True)) for row in rows])
            of_patient = update(records).where(records.c.patient == patient)
            connection.execute(of_patient.values(revision=rows[-1][0], digest=chain(patient, digest, rows)))
            token = Token(epoch, rows[-1][0])
            _keep_acts(connection, patient, acts, instant, Token(epoch, revision), token)
            if also is not None:
                also(connection)
        return token

    def _accepted(self, directives: Sequence[Mapping[str, Any]], at: float) -> list[str]:
        """The canonical JSON of directives that the pack declares."""
        if isinstance(directives, str | bytes | Mapping) or not isinstance(directives, Sequence) or not directives:
            raise RequestError("directives", "must be a list of at least one directive")
        return [_canonical(one, self.vocabulary, at, f"directives[{place}]") for place, one in enumerate(directives)]

    # --- its life ---

    def backup(self, path: str) -> None:
        """Write everything to one new SQLite file, from one instant of the store, whichever database it lives in."""
        backup.backup(self._database, path)

    def restore(self, path: str) -> int:
        """Put back what `backup` wrote, in the place of everything that is here, and raise the epoch: tokens given before fail closed. Returns the new
        epoch."""
        return backup.restore(self._database, path)

    def raise_epoch(self) -> int:
        """Say that this store may have lost acknowledged changes (after a database's own way of restoring, or a failover to a replica that lagged). Returns
        the new epoch."""
        return backup.raise_epoch(self._database)


def _check_patient(patient: str) -> None:
    if not isinstance(patient, str) or not patient.strip() or not patient.isprintable() or len(patient) > 256:
        raise RequestError("patient", "must be an identifier")


def _check_instant(at: float) -> None:
    if not -1e11 < at < 1e11:  # neither does not-a-number pass, at which nothing would be in force
        raise RequestError("at", "must be an instant, in seconds since 1970")


def _to_the_microsecond(at: float) -> float:
    """An instant as text has it, not before a directive's own `from`."""
    return math.ceil(at * 1e6) / 1e6


def _check_fresh(wanted: Token, token: Token) -> None:
    if wanted.epoch != token.epoch:
        raise StaleToken("the token is of another epoch of the consent store: since then, or before, a backup was restored")
    if wanted.revision > token.revision:
        raise StaleToken("the token names a change that the consent store does not have")


def _check_held(token: Token, known: _Known) -> int:
    """The revision of a token, which may be of an earlier epoch if what it names outlived the restore: the directive at its revision is then not of a later
    one."""
    of_later = 0 < token.revision <= len(known.rows) and known.rows[token.revision - 1][1] > token.epoch
    if token.epoch > known.token.epoch or token.revision > known.token.revision or of_later:
        raise StaleToken("what the token names is not in the consent store: it was lost when a backup was restored")
    return token.revision


def _parsed(body: str, vocabulary: Vocabulary, revision: int) -> Directive:
    return parse_directive(msgspec.json.decode(body), vocabulary, revision, f"revision {revision}", kept=True)


def _canonical(directive: Mapping[str, Any], vocabulary: Vocabulary, at: float, where: str) -> str:
    """A directive's JSON, accepted, and as it will be read: keys in order, no spaces."""
    accepted = parse_directive(directive, vocabulary, where=where, at=at)
    if "revision" in directive:
        raise RequestError(f"{where}.revision", "is given by the store", "leave it out")
    try:
        body = json.dumps(directive, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
        size = len(body.encode())
    except (TypeError, ValueError):
        raise RequestError(where, "is not JSON") from None
    if size > LONGEST:
        raise RequestError(where, f"is longer than {LONGEST} bytes")
    if _parsed(body, vocabulary, 1) != accepted:
        raise RequestError(where, "does not read back from JSON as it was said")
    return body


def _locked(connection: Connection, patient: str) -> tuple[int, str, float]:
    """The revision and digest of a record and the instant of its last change, the record being this transaction's alone until it ends."""
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(records)
    connection.execute(insert.values(patient=patient, revision=0, digest="").on_conflict_do_nothing())
    of_patient = select(records.c.revision, records.c.digest).where(records.c.patient == patient).with_for_update()
    revision, digest = connection.execute(of_patient).one()
    last = select(directives_table.c.recorded).where(directives_table.c.patient == patient, directives_table.c.revision == revision)
    recorded = connection.execute(last).scalar()
    return revision, digest, _NEVER if recorded is None else recorded


def _keep_acts(connection: Connection, patient: str, acts: Sequence[Act], at: float, before: Token, after: Token) -> None:
    """Keep acts under the next numbers of their patient. Refused ones come without the record's lock, so there is one for the numbers alone."""
    if not acts:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_ACTS_LOCK, func.hashtext(patient))))
    last = connection.execute(select(func.max(acts_table.c.number)).where(acts_table.c.patient == patient)).scalar() or 0
    where = {"patient": patient, "recorded": at, "epoch": before.epoch, "before": before.revision, "after": after.revision}
    several = [
        {"number": number, "id": one.id, "action": one.action, "decision": one.decision, "rule": one.rule, "body": act_body(one.told)}
        for number, one in enumerate(acts, last + 1)
    ]
    connection.execute(acts_table.insert(), [where | one for one in several])


def act_body(told: Mapping[str, Any]) -> str:
    """An act's canonical JSON. Raises `RequestError` for one that is none, or too long to be kept.

    INVARIANT: whether it is too long is a matter of what was asked alone: with the answer, its size would tell a discreet refusal from another.
    """
    try:
        body, asked = _json(told), _json({key: told[key] for key in ASKED if key in told})
        size = len(asked.encode())
    except (TypeError, ValueError):
        raise RequestError("request", "is not JSON", "an act is kept as it was asked") from None
    if size > LONGEST_ACT:
        raise RequestError("request", f"has {size:,} bytes, more than {LONGEST_ACT:,}", "an act is kept as it was asked: say less in it")
    return body


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _kept_act(row: Mapping[str, Any]) -> KeptAct:
    act = Act(row["id"], row["action"], row["decision"], row["rule"], json.loads(row["body"]))
    return KeptAct(row["number"], act, row["recorded"], Token(row["epoch"], row["before"]), Token(row["epoch"], row["after"]))
