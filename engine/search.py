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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.answer import Answer
from engine.consent.fold import Record
from engine.decision_log.entries import SearchEntry, encode, new_id
from engine.errors import RequestError
from engine.pdp import Pdp
from engine.request import Action, Entity, Request
from engine.service import By, Look, Service, said
from engine.vocabulary import Cell, Coded


@dataclass(frozen=True, slots=True)
class Page:
    """One page of what was found, in the order of identifiers, the token of the next page (empty at the end), and the log's entry about it."""

    found: list[Request]
    next_token: str
    entry: bytes


def search(service: Service, searched: str, request: Request, by: By, size: int, token: str = "") -> Page:
    """Search for the `searched` part of a request (`subject`, `resource` or `action`). Blocks: a directory has a hundred thousand people.

    `token`: of the page before. Raises `RequestError` for one of another search, pack or revision, `StoreUnavailable`.
    """
    live, now = service.live, service.clock()
    if searched == "action":
        request = next(_actions(service, live.pdp, request), request)  # whose record it is depends on the action, alike for all about one type of resource
    patient, record, consent = service.record(live, request, now)
    binding = _binding(searched, request, live.pdp.pack.digest, str(consent))
    after = _after(token, binding) if token else ""
    candidates = list(_candidates(service, live.pdp, searched, request, record, patient))
    permitted = [one for one in (live.pdp.decide(each, record) for each in candidates) if one.permitted]
    permitted.sort(key=lambda one: _id(searched, one.request))
    following = [one for one in permitted if _id(searched, one.request) > after]
    told = following[:size]
    next_token = _token(_id(searched, told[-1].request), binding) if len(following) > size else ""
    look = Look(new_id(), now, patient, consent, told or [live.pdp.decide(request, record)], live)
    return Page([one.request for one in told], next_token, _entry(look, by, searched, told, len(candidates), len(permitted)))


def _entry(look: Look, by: By, searched: str, told: Sequence[Answer], candidates: int, permitted: int) -> bytes:
    known = said(look, by)
    scribe = look.live.scribe
    items = [(_id(searched, one.request), *scribe.items([one])[0][1:]) for one in told]
    if searched in ("subject", "action"):
        known[searched] = {key: value for key, value in known[searched].items() if key == "type"}
    return encode(SearchEntry(**(known | {"items": items}), mode="list", searched=searched, candidates=candidates, permitted=permitted))


def _id(searched: str, request: Request) -> str:
    return request.action.name if searched == "action" else (request.subject if searched == "subject" else request.resource).id


# --- candidates ------------------------------------------------------------------------------------------------------


def _candidates(service: Service, pdp: Pdp, searched: str, request: Request, record: Record, patient: str) -> Iterator[Request]:
    find: Callable[..., Iterator[Request]] = {"subject": _subjects, "resource": _resources, "action": _actions}[searched]
    for candidate in find(service, pdp, request, record, patient):
        try:
            yield candidate if service.directory is None else service.directory.settle(candidate)
        except RequestError:
            continue  # the directory contradicts what the search says of everybody: this one is not such a subject


def _subjects(service: Service, pdp: Pdp, request: Request, record: Record, patient: str) -> Iterator[Request]:
    """The people of the directory, the targets in the record that are identifiers of such a subject, and the patient where he may be one."""
    subject, known = request.subject, pdp.pack.identifiers
    formats = known.subjects.get(subject.type, ())
    forms = {form for form, several in known.targets.items() if any(one in formats for one in several)} or {subject.type}
    ids = {value for statement in (*record.in_force, *record.ended) for form, value in [statement.target] if form in forms and isinstance(value, str)}
    if service.directory is not None and subject.type in service.directory.subjects:
        ids |= service.directory.people.keys()
    if formats and not all(one.mistake(patient) for one in formats):
        ids.add(patient)
    for id in ids:
        if not formats or not all(one.mistake(id) for one in formats):
            yield Request(Entity(subject.type, id, subject.properties), request.action, request.resource, request.context)


def _resources(service: Service, pdp: Pdp, request: Request, *_: Any) -> Iterator[Request]:
    """The entities that a code list of the pack names by their identifier, or else one resource for each row of the grids."""
    resource = request.resource
    for id, properties in _entities(pdp, request).items():
        yield Request(request.subject, request.action, Entity(resource.type, id, {**resource.properties, **properties}), request.context)


def _entities(pdp: Pdp, request: Request) -> dict[str, Mapping[str, Any]]:
    runner = pdp.runner(request.subject.type, request.action.name)
    facts = runner.slice.facts if runner is not None else ()
    listed = [code for fact in facts if isinstance(fact.form, Coded) and fact.form.of.steps == ("resource", "id") for code in fact.form.codes]
    if listed:
        return {id: {} for id in listed}
    found: dict[str, Mapping[str, Any]] = {}
    for fact in facts:
        if isinstance(fact.form, Cell):
            head, *rest = fact.form.row.for_action(request.action.name)
            if head == "resource" and len(rest) == 1:
                found |= {row: {} if rest == ["id"] else {rest[0]: row} for row in fact.form.grid.rows}
    return found


def _actions(service: Service, pdp: Pdp, request: Request, *_: Any) -> Iterator[Request]:
    """Every action about this type of resource; all of them for a type of which the pack knows none."""
    about = pdp.pack.vocabulary.actions
    for name, kind in about.items():
        if kind == request.resource.type or request.resource.type not in about.values():
            yield Request(request.subject, Action(name, request.action.properties), request.resource, request.context)


# --- paging ----------------------------------------------------------------------------------------------------------


def _binding(searched: str, request: Request, digest: str, consent: str) -> str:
    """What a page token is good for: this search, by this pack, of this revision of the record."""
    parts = (request.subject, request.action, request.resource)
    said = [searched, *([one.name if isinstance(one, Action) else (one.type, one.id), dict(one.properties)] for one in parts), dict(request.context)]
    whole = json.dumps([said, digest, consent], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _token(last: str, binding: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([binding, last]).encode()).decode()


def _after(token: str, binding: str) -> str:
    try:
        bound, last = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError):
        raise RequestError("page.token", "is not a token of a page", "give what `page.next_token` said") from None
    if bound != binding or not isinstance(last, str):
        raise RequestError("page.token", "is of another search: its entities, the pack or the record changed", "start again without it")
    return last
