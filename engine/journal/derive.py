"""What one entry of the decision log says to the journal: rows, and nothing else. No clock, no database, no order.

INVARIANT: what the journal holds is a function of the set of entries that were read, whatever the order: segments of several writers have none. So a row is
never what an entry "changes"; where two entries speak of one thing, which of them holds does not depend on which came first.

A pack's codes are read by its own `pack` entry. What the service owes by a decision is said there too, in the obligations of the pack:

    to = "service", properties.to           a notice to that addressee; "holder" is the person whose record it is
    properties.once                         "professional and record": the first time, and again after directives of the kinds in `again`;
                                            "session": an emergency, told once for a session; otherwise for each decision
    properties.secret_session               true: nobody but the holder is told, on his own channel
    `properties.to` of `reviewers`          an emergency that a reviewer looks at afterwards
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from engine.calendar import iso
from engine.journal.tables import Row

NO_ACCESS = frozenset({"list", "preview"})
"""Actions that show no document: they decide as `read`, and the journal does not tell them."""
READ = "read"
HOLDER = "holder"
REVIEWERS = "reviewers"
FIRST, SESSION = "professional and record", "session"
PATIENCE = 60.0
"""Seconds that a first access waits to be told: its store may yet say that it showed nothing."""
OTHER_KINDS = frozenset({"read", "ready", "search"})
"""Kinds of entries of which only the place is kept. A search tells which would be permitted, and shows no document."""
ASKED, REFUSED, DONE = range(3)
"""What is known of an act, by rank."""

Id = Annotated[str, msgspec.Meta(max_length=512)]
Instant = Annotated[float, msgspec.Meta(ge=0, lt=253_000_000_000)]


class Misunderstood(Exception):
    """An entry that the journal can make nothing of. The words name no patient. `pack`: the pack that it waits for."""

    def __init__(self, why: str, pack: str = ""):
        self.why, self.pack = why, pack
        super().__init__(why)


# --- what entries look like ------------------------------------------------------------------------------------------


class _Entry(msgspec.Struct, kw_only=True):
    id: Id
    kind: Id
    at: Instant
    patient: Id = ""
    caller: Id = ""


class _Named(msgspec.Struct, kw_only=True):
    type: Id
    id: Id
    properties: dict[str, Any] = {}


class _Action(msgspec.Struct, kw_only=True):
    name: Id
    properties: dict[str, Any] = {}


class _Decision(_Entry, kw_only=True):
    subject: _Named
    action: _Action
    pack: Id
    items: list[tuple[Id, Id | None, Any, int, Any]]
    context: dict[str, Any] = {}
    withheld: list[int] = []
    state: str = "done"
    directives: list[dict[str, Any]] = []


class _Outcome(_Entry, kw_only=True):
    decision: Id
    outcome: str
    document: Id = ""


class _Review(_Entry, kw_only=True):
    decision: Id
    verdict: Id
    comment: str = ""


class _Notice(_Entry, kw_only=True):
    notice: Id
    state: Id


class _Expunge(_Entry, kw_only=True):
    expunged: dict[str, list[tuple[int, int]]]


class _PackOutcome(msgspec.Struct, kw_only=True):
    rule: Id
    decision: str
    obligations: dict[str, list[str]] = {}


class _PackObligation(msgspec.Struct, kw_only=True):
    to: str
    properties: dict[str, str] = {}
    words: dict[str, str] = {}


class _Pack(_Entry, kw_only=True):
    digest: Id
    outcomes: list[_PackOutcome]
    actions: dict[str, str] = {}
    obligations: dict[str, _PackObligation] = {}
    time_zone: str = "UTC"


# --- what a pack's codes mean ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice that a rule owes. Properties may be words, or `@path` in the entry."""

    obligation: str
    to: str
    once: str
    secret: str
    again: str


@dataclass(frozen=True, slots=True)
class Owes:
    """What the service owes by one outcome of one action."""

    notices: tuple[Notice, ...] = ()
    review: bool = False

    @property
    def emergency(self) -> bool:
        return self.review or any(one.once == SESSION for one in self.notices)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the journal needs of a pack: the rule and the decision of each outcome, what each action owes by it, and the words of the notices."""

    rules: Sequence[tuple[str, str]]
    owes: Sequence[Mapping[str, Owes]]
    about: Mapping[str, str]
    words: Mapping[str, Mapping[str, str]]
    time_zone: str
    unknown: tuple[str, ...]
    """Obligations of the service that nobody here does."""


_NOTHING = Owes()


def parse_meaning(body: Mapping[str, Any]) -> tuple[str, Meaning]:
    """A pack's digest and meaning, from its entry. Raises `Misunderstood`."""
    pack = _convert(body, _Pack)
    ours = {id: one for id, one in pack.obligations.items() if one.to == "service"}
    reviews = {id for id, one in ours.items() if one.properties.get("to") == REVIEWERS}
    notices = {id: _notice(id, one) for id, one in ours.items() if id not in reviews}
    owes = [{action: _owes(ids, notices, reviews) for action, ids in one.obligations.items()} for one in pack.outcomes]
    return pack.digest, Meaning(
        [(one.rule, one.decision) for one in pack.outcomes],
        owes,
        pack.actions,
        {id: one.words for id, one in pack.obligations.items()},
        pack.time_zone,
        tuple(sorted(id for id, one in notices.items() if one is None)),
    )


def _owes(ids: Sequence[str], notices: Mapping[str, Notice | None], reviews: Collection[str]) -> Owes:
    return Owes(tuple(one for id in ids if (one := notices.get(id)) is not None), any(id in reviews for id in ids))


def _notice(id: str, spec: _PackObligation) -> Notice | None:
    """Nothing for an obligation of which the log cannot say to whom it is owed."""
    said = spec.properties
    if not said.get("to") or any(text.startswith("@") and text.split(".")[0] not in ("@subject", "@action", "@context") for text in said.values()):
        return None
    return Notice(id, said["to"], said.get("once", ""), said.get("secret_session", ""), said.get("again", ""))


# --- rows ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Rows:
    """What entries say, by table. `expunged`: places of entries that are to be forgotten, from an index up to another."""

    entries: list[Row] = field(default_factory=list)
    packs: list[Row] = field(default_factory=list)
    decisions: list[Row] = field(default_factory=list)
    accesses: list[Row] = field(default_factory=list)
    outcomes: list[Row] = field(default_factory=list)
    owed: list[Row] = field(default_factory=list)
    grants: list[Row] = field(default_factory=list)
    verdicts: list[Row] = field(default_factory=list)
    deliveries: list[Row] = field(default_factory=list)
    problems: list[Row] = field(default_factory=list)
    expunged: list[tuple[str, int, int]] = field(default_factory=list)
    counts: Counter[tuple[str, str, str, str, str]] = field(default_factory=Counter)

    def add(self, other: Rows) -> None:
        for name in ("entries", "packs", "decisions", "accesses", "outcomes", "owed", "grants", "verdicts", "deliveries", "problems", "expunged"):
            getattr(self, name).extend(getattr(other, name))
        self.counts.update(other.counts)


def derive(body: Any, segment: str, number: int, meanings: dict[str, Meaning]) -> Rows:
    """The rows of one entry; a pack's meaning is also put among `meanings`. What cannot be understood gives a row of `problems`. Never raises."""
    rows = Rows()
    try:
        known = _convert(body, _Entry)
        rows.entries.append({"segment": segment, "number": number, "id": known.id, "kind": known.kind, "at": known.at, "patient": known.patient})
        match known.kind:
            case "decision" | "act":
                _decision(_convert(body, _Decision), body, meanings, rows)
            case "outcome":
                _outcome(_convert(body, _Outcome), rows)
            case "review":
                _verdict(_convert(body, _Review), rows)
            case "notice":
                said = _convert(body, _Notice)
                rows.deliveries.append({"notice": said.notice, "at": said.at, "state": said.state})
            case "expunge":
                said = _convert(body, _Expunge)
                rows.expunged += [(segment, start, stop) for segment, spans in said.expunged.items() for start, stop in spans]
            case "refused":
                rows.counts[_day(known.at, "UTC"), known.caller, "", "", "refused"] += 1
            case "pack":
                _pack(body, segment, number, meanings, rows)
            case kind if kind not in OTHER_KINDS:
                raise Misunderstood("its kind is not one that the journal knows")
    except Misunderstood as error:
        rows = _not_understood(rows, segment, number, error.why, error.pack)
    except Exception as error:  # a bug is no reason to stand still in front of one entry for ever
        rows = _not_understood(rows, segment, number, f"internal fault {type(error).__name__}")
    return rows


def _not_understood(rows: Rows, segment: str, number: int, why: str, pack: str = "") -> Rows:
    return Rows(entries=rows.entries, problems=[{"segment": segment, "number": number, "why": why, "pack": pack}])


def _convert(body: Any, type: Any) -> Any:
    """INVARIANT: msgspec says which member is wrong and of what kind it is, never what it holds."""
    try:
        return msgspec.convert(body, type)
    except msgspec.ValidationError as error:
        raise Misunderstood(str(error)) from None


def _pack(body: Mapping[str, Any], segment: str, number: int, meanings: dict[str, Meaning], rows: Rows) -> None:
    digest, meaning = parse_meaning(body)
    meanings[digest] = meaning
    kept = {key: body[key] for key in ("id", "kind", "at", "digest", "outcomes", "actions", "obligations", "time_zone") if key in body}
    rows.packs.append({"digest": digest, "body": json.dumps(kept, ensure_ascii=False)})
    if meaning.unknown:
        why = "the pack owes by the service what the journal does not know: " + ", ".join(meaning.unknown)
        rows.problems.append({"segment": segment, "number": number, "why": why, "pack": ""})


def _outcome(said: _Outcome, rows: Rows) -> None:
    if said.outcome not in ("shown", "not_shown"):
        raise Misunderstood("an outcome is `shown` or `not_shown`")
    rows.outcomes.append({"decision": said.decision, "document": said.document, "caller": said.caller, "shown": said.outcome == "shown"})


def _verdict(said: _Review, rows: Rows) -> None:
    row = {"id": said.id, "at": said.at, "decision": said.decision, "reviewer": said.caller, "verdict": said.verdict, "comment": said.comment}
    rows.verdicts.append(row)


# --- decisions and acts ----------------------------------------------------------------------------------------------


def _decision(said: _Decision, body: Mapping[str, Any], meanings: Mapping[str, Meaning], rows: Rows) -> None:
    meaning = meanings.get(said.pack)
    if meaning is None:
        raise Misunderstood("the log does not say what the codes of its pack mean", said.pack)
    if any(not 0 <= number < len(meaning.rules) for _, _, _, number, _ in said.items):
        raise Misunderstood("it has an outcome that its pack does not have")
    rank = {"asked": ASKED, "refused": REFUSED}.get(said.state, DONE)
    action, withheld = said.action.name, set(said.withheld)
    if rank != ASKED:
        day = _day(said.at, meaning.time_zone)
        for place, item in enumerate(said.items):
            rule, decision = meaning.rules[item[3]]
            rows.counts[day, said.caller, action, rule, "withheld" if place in withheld else decision] += 1
    if not said.patient:
        return
    permitted = [item for place, item in enumerate(said.items) if meaning.rules[item[3]][1] == "permit" and place not in withheld]
    owes = [meaning.owes[item[3]].get(action, _NOTHING) for item in permitted]
    secret = said.context.get("secret_session") not in (None, False)
    if action not in NO_ACCESS:
        of_record = meaning.about.get(action) == "record"
        rows.accesses += _accesses(said, rank, meaning, permitted, owes, secret, of_record)
        if said.kind == "act":
            _act(said, rank, of_record, rows)
    review = any(one.review for one in owes)
    if rows.accesses or review or any(one.notices for one in owes) or rank == REFUSED:
        rows.decisions.append(_row(said, rank, secret, review))
    if rank == DONE:
        rows.owed += _owed(said, body, meaning, {one.obligation: one for each in owes for one in each.notices}.values(), secret)


def _accesses(
    said: _Decision, rank: int, meaning: Meaning, permitted: Sequence[Any], owes: Sequence[Owes], secret: bool, of_record: bool
) -> list[Row]:
    """One for each document of a decision that was permitted, once though it was asked for twice; the emergency if there is one among them."""
    common = {
        "decision": said.id, "rank": rank, "at": said.at, "patient": said.patient, "subject_type": said.subject.type, "subject_id": said.subject.id,
        "caller": said.caller, "action": said.action.name, "secret": secret,
    }  # fmt: skip
    made: dict[str, Row] = {}
    for item, one in zip(permitted, owes, strict=True):
        document = "" if of_record else item[0]
        if document not in made or one.emergency:
            made[document] = common | {"document": document, "type": item[1] or "", "rule": meaning.rules[item[3]][0], "emergency": one.emergency}
    return list(made.values())


def _act(said: _Decision, rank: int, of_record: bool, rows: Rows) -> None:
    """An act says itself what became of it. Directives that name somebody are kept: a new one may make an access be told again."""
    if rank != ASKED:
        for item in said.items:
            document = "" if of_record else item[0]
            rows.outcomes.append({"decision": said.id, "document": document, "caller": said.caller, "shown": rank == DONE})
    for place, one in enumerate(said.directives if rank == DONE else ()):
        target = one.get("target")
        for value in target.values() if isinstance(target, dict) and not one.get("withdraw") else ():
            if isinstance(value, str) and isinstance(one.get("kind"), str):
                rows.grants.append({"entry": said.id, "place": place, "at": said.at, "patient": said.patient, "kind": one["kind"], "target": value})


def _row(said: _Decision, rank: int, secret: bool, review: bool) -> Row:
    mode, target = said.context.get("access_mode"), said.action.properties.get("target")
    return {
        "id": said.id, "rank": rank, "at": said.at, "patient": said.patient, "caller": said.caller, "subject_type": said.subject.type,
        "subject_id": said.subject.id, "properties": _json(said.subject.properties), "action": said.action.name,
        "access_mode": mode if isinstance(mode, str) else "", "target": _json(target), "context": _json(said.context), "pack": said.pack,
        "secret": secret, "review": review,
    }  # fmt: skip


def _owed(said: _Decision, body: Mapping[str, Any], meaning: Meaning, notices: Iterable[Notice], secret: bool) -> list[Row]:
    made = []
    for one in notices:
        private = secret or _value(one.secret, body) not in (None, False, "", "false")
        if private and one.to != HOLDER:
            continue
        first = one.once == FIRST
        names = sorted({said.subject.id} | {value for value in said.subject.properties.values() if isinstance(value, str)})
        made.append({
            "decision": said.id, "obligation": one.obligation, "addressee": one.to, "patient": said.patient, "subject_type": said.subject.type,
            "subject_id": said.subject.id, "once": "" if first else _once(said, one, meaning), "again": one.again if first else "",
            "names": _json(names) if first and one.again else "", "pack": said.pack, "private": private, "at": said.at,
            "due": said.at + (PATIENCE if first else 0.0),
        })  # fmt: skip
    return made


def _once(said: _Decision, notice: Notice, meaning: Meaning) -> str:
    """What a notice that is not about a first access is told once for.

    A session is the caller's word, so it counts for that caller and that day: a caller that never changes its word silences nothing for longer. Without a
    session, each decision is told: once too often rather than not at all.
    """
    session = said.context.get("session")
    if notice.once != SESSION or not isinstance(session, str) or not session.strip():
        return said.id
    return digest(said.caller, session, _day(said.at, meaning.time_zone))


def _value(text: str, body: Mapping[str, Any]) -> Any:
    """A property of an obligation: a word, or what the entry has at the end of `@path`."""
    if not text.startswith("@"):
        return text
    head, *rest = text[1:].split(".")
    here = body.get(head)
    if head != "context" and rest not in (["id"], ["type"], ["name"]):
        here = here.get("properties") if isinstance(here, dict) else None
    for step in rest:
        here = here.get(step) if isinstance(here, dict) else None
    return here


def digest(*words: str | bool) -> str:
    """A short name for what several words say together."""
    return sha256(json.dumps(words, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _json(value: Any) -> str:
    return "" if value is None or value == {} else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _day(at: float, zone: str) -> str:
    return _day_of(at // 900, zone)


@lru_cache(maxsize=256)
def _day_of(quarter: float, zone: str) -> str:
    """The offset of a zone is a whole number of quarters of an hour."""
    try:
        return iso(quarter * 900, zone)[:10]
    except (KeyError, ValueError, OverflowError, OSError):
        raise Misunderstood("its instant, or the time zone of its pack, cannot be read") from None
