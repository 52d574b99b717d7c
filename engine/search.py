"""Searches: which members of a declared set of candidates would be permitted. Every candidate is evaluated; nothing is guessed from the rules.

    subject     the people of the directory, and whoever the record names
    resource    the entities that the pack lists by their identifier, or the rows of its grids (types of documents), with the properties that the search gives
    action      the actions of the pack for this type of resource

INVARIANT: what is found, given to `decide` as it is, is permitted at that instant on that record; what is not found is not counted and leaves no gap.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import sleep
from typing import Any

from msgspec.structs import asdict

from engine.answer import Answer
from engine.consent.acts import patient_of
from engine.consent.fold import Record
from engine.consent.store import Token
from engine.decision_log.entries import SearchEntry, encode, new_id
from engine.errors import RequestError
from engine.pdp import Pdp
from engine.request import Action, Entity, Request
from engine.service import By, Live, Look, Service, check_subject, said, withheld
from engine.vocabulary import Cell, Coded, Path

SEARCHED = "searched"
"""Stands for the identifier that a search leaves out."""
LONGEST_TOKEN = 2_000
PAUSE = 50
"""Candidates after which a search lets decisions through: a directory takes a second or two, of which no ward should wait more than one thousandth."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of what was found, in the order of identifiers; how many there are in all, the token of the next page (empty at the end), the log's entry."""

    found: list[Answer]
    total: int
    next_token: str
    entry: bytes


def search(
    service: Service, searched: str, request: Request, by: By, size: int, limit: int | None = None, token: str = "",
    at_least: Token | None = None, supported: Collection[str] | None = None, may_ask: Callable[[Entity], bool] = lambda subject: True,
) -> Page:  # fmt: skip
    """Search for the `searched` part of a request (`subject`, `resource` or `action`). Blocks: a directory has a hundred thousand people.

    `limit`: the most that a page may tell, if that is less than `size`; with the `token` of the page before it is what it was. `may_ask`: of which subjects the
    caller may speak. Raises `RequestError` for a token of another search, pack or revision, and what `Service.look` raises.
    """
    live, now = service.live, service.clock()
    request = service.settle(request)
    if searched != "subject":
        check_subject(live, request.subject)
    if searched == "action":
        request = _about_a_record(live, request)
    elif searched == "resource":
        _check_is_searched(live, request)
    patient, record, consent = service.record(live, request, now, at_least)
    binding = _binding(searched, request, live.pdp.pack.digest, str(consent))
    after, limit = _resumed(token, binding, limit) if token else ("", limit)
    candidates = list(_candidates(service, live, searched, request, record, patient, may_ask))
    permitted = [one for one in _decided(live.pdp, candidates, record) if one.permitted and not withheld([one], supported)]
    permitted.sort(key=lambda one: _id(searched, one.request))
    following = [one for one in permitted if _id(searched, one.request) > after]
    told = following[: size if limit is None else min(limit, size)]
    next_token = _token(_id(searched, told[-1].request) if told else after, limit, binding) if len(following) > len(told) else ""
    look = Look(new_id(), now, patient, consent, told[:1] or [live.pdp.decide(request, record)], live)
    return Page(told, len(permitted), next_token, _entry(look, by, searched, told, len(candidates), len(permitted)))


def _decided(pdp: Pdp, candidates: Iterable[Request], record: Record) -> Iterator[Answer]:
    for place, each in enumerate(candidates):
        if not place % PAUSE:
            sleep(0)
        yield pdp.decide(each, record)


def _entry(look: Look, by: By, searched: str, told: list[Answer], candidates: int, permitted: int) -> bytes:
    known = asdict(said(look, by, "list"))
    items = [(_id(searched, one.request), *look.live.scribe.items([one])[0][1:]) for one in told]
    if searched == "subject":
        known["subject"] = {key: value for key, value in known["subject"].items() if key != "id"}
    elif searched == "action":
        known["action"] = {}
    return encode(SearchEntry(**(known | {"items": items}), searched=searched, candidates=candidates, permitted=permitted))


def _id(searched: str, request: Request) -> str:
    return request.action.name if searched == "action" else (request.subject if searched == "subject" else request.resource).id


# --- candidates ------------------------------------------------------------------------------------------------------


def _candidates(
    service: Service, live: Live, searched: str, request: Request, record: Record, patient: str, may_ask: Callable[[Entity], bool]
) -> Iterator[Request]:
    if searched == "resource":
        yield from _resources(live.pdp, request)
    elif searched == "action":
        yield from (one for one in _actions(live.pdp, request) if _patient(live.pdp, one) == patient)
    else:
        yield from _subjects(service, live, request, record, patient, may_ask)


def _subjects(
    service: Service, live: Live, request: Request, record: Record, patient: str, may_ask: Callable[[Entity], bool]
) -> Iterator[Request]:
    """The people of the directory, the targets in the record that are identifiers of such a subject, and the patient where he may be one."""
    subject, known = request.subject, live.pdp.pack.identifiers
    formats = known.subjects.get(subject.type, ())
    forms = {form for form, several in known.targets.items() if any(one in formats for one in several)} or {subject.type}
    named = {value for statement in (*record.in_force, *record.ended) for form, value in [statement.target] if form in forms and isinstance(value, str)}
    ids = {id for id in (*named, patient) if id and not (formats and all(form.mistake(id) for form in formats))}
    if service.directory is not None and subject.type in service.directory.subjects:
        ids |= service.directory.people.keys()
    for place, id in enumerate(ids):
        if not place % PAUSE:
            sleep(0)
        one = Entity(subject.type, id, subject.properties)
        if may_ask(one):
            each = Request(one, request.action, request.resource, request.context)
            try:
                yield each if service.directory is None else service.directory.vouch(each)
            except RequestError:
                continue  # the directory contradicts what the search says of everybody: this one is not such a subject


def _resources(pdp: Pdp, request: Request) -> Iterator[Request]:
    """The entities that a code list of the pack names by their identifier, or else one resource for each row of the grids."""
    resource = request.resource
    for id, properties in _entities(pdp, request).items():
        yield Request(request.subject, request.action, Entity(resource.type, id, {**resource.properties, **properties}), request.context)


def _entities(pdp: Pdp, request: Request) -> dict[str, Mapping[str, Any]]:
    action = request.action.name
    if pdp.pack.vocabulary.actions.get(action, request.resource.type) != request.resource.type:
        return {}  # the action is about something else
    forms = [fact.form for fact in pdp.pack.vocabulary.facts.values()]
    listed = {code: {} for form in forms if isinstance(form, Coded) and form.of.steps == ("resource", "id") for code in form.codes}
    if listed:
        return listed
    found: dict[str, Mapping[str, Any]] = {}
    for form in forms:
        if isinstance(form, Cell):
            head, *rest = form.row.for_action(action)
            if head == "resource" and len(rest) == 1:
                found |= {row: {} if rest == ["id"] else {rest[0]: row} for row in form.grid.rows}
    return found


def _check_is_searched(live: Live, request: Request) -> None:
    """Of resources that are records, the identifier that a search leaves out is whose record it is: there is none to look at."""
    path: Path | None = live.pdp.pack.vocabulary.patient
    if path is not None and path.for_action(request.action.name) == ("resource", "id"):
        raise RequestError("resource.type", "says whose record it is by its identifier, so it is not searched", "ask about one record at a time")


def _actions(pdp: Pdp, request: Request) -> Iterator[Request]:
    """Every action about this type of resource; all of them for a type of which the pack knows none."""
    about = pdp.pack.vocabulary.actions
    for name, kind in about.items():
        if kind == request.resource.type or request.resource.type not in about.values():
            yield Request(request.subject, Action(name, request.action.properties), request.resource, request.context)


def _about_a_record(live: Live, request: Request) -> Request:
    """The request with an action that says whose record it is about: that depends on the action, alike for all about one type of resource."""
    several = list(_actions(live.pdp, request))
    return next((one for one in several if _patient(live.pdp, one) is not None), several[0] if several else request)


def _patient(pdp: Pdp, request: Request) -> str | None:
    if pdp.pack.vocabulary.patient is None:
        return ""
    try:
        return patient_of(pdp, request)
    except RequestError:
        return None


# --- paging ----------------------------------------------------------------------------------------------------------


def _binding(searched: str, request: Request, digest: str, consent: str) -> str:
    """What a page token is good for: this search, by this pack, of this revision of the record."""
    parts = (request.subject, request.action, request.resource)
    words = [searched, *([one.name if isinstance(one, Action) else (one.type, one.id), dict(one.properties)] for one in parts), dict(request.context)]
    whole = json.dumps([words, digest, consent], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def _token(last: str, limit: int | None, binding: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([binding, limit, last]).encode()).decode()


def _resumed(token: str, binding: str, limit: int | None) -> tuple[str, int | None]:
    """After which identifier to go on, and how many at most."""
    mistaken = RequestError("page.token", "is not a token of a page", "give what `page.next_token` said")
    if len(token) > LONGEST_TOKEN:
        raise mistaken
    try:
        bound, before, last = json.loads(base64.b64decode(token.encode(), b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        raise mistaken from None
    if not isinstance(last, str) or not (before is None or (before.__class__ is int and before >= 0)):
        raise mistaken
    if bound != binding:
        raise RequestError("page.token", "is of another search: its entities, the pack or the record changed", "start again without it")
    if limit not in (None, before):
        raise RequestError("page.limit", "is not that of the page before", "leave it out, or start again without the token")
    return last, before
