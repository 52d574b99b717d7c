"""Requests in a file: one JSON object, a list, JSON lines, or AuthZEN's `evaluations` with defaults. Read, folded and decided; the reply keeps the form.

A request may carry `directives` (the record, oldest first; none: a record never opened), `at` (now, when left out) and `revision` (the record as it was known
then). A `resource` that is a FHIR DocumentReference is translated. Identifiers are settled by the directory, if there is one, and checked: one person under
two spellings is two people to a block. Whoever runs this is a reviewer: nothing is hidden from him.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cli.edge import print_json
from engine.answer import Answer
from engine.calendar import iso, parse_instant
from engine.consent.directives import FOREVER, Directive, parse_directive, parse_directives
from engine.consent.directory import Directory
from engine.consent.identifiers import check_identifiers
from engine.errors import RequestError
from engine.pdp import Pdp
from engine.request import MAX_BYTES, Request, parse_json, parse_request

OBJECT, LIST, LINES, EVALUATIONS = "object", "list", "lines", "evaluations"


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests as they came: the form, and each with where it stands (`line 3: ` before a path, `[3]` at its start)."""

    form: str
    items: tuple[tuple[str, str, Any], ...]

    def print_json(self, replies: list[Any]) -> None:
        """Replies in the form of the requests."""
        if self.form == LINES:
            for reply in replies:
                print_json(reply, indent=None)
        elif self.form == EVALUATIONS:
            print_json({"evaluations": replies})
        else:
            print_json(replies if self.form == LIST else replies[0])


def read_batch(data: bytes, name: str) -> Batch:
    """The requests in some bytes. Raises `RequestError` for what is too long, not JSON, or no list of objects."""
    if len(data) > MAX_BYTES:
        raise RequestError(name, f"has more than {MAX_BYTES:,} bytes", "send fewer requests at a time")
    if (lines := _lines(data)) is not None:
        return Batch(LINES, tuple((f"line {number}: ", "", parse_json(line, f"{name}, line {number}")) for number, line in lines))
    value = parse_json(data, name)
    if isinstance(value, list):
        return Batch(LIST, tuple(("", f"[{place}]", one) for place, one in enumerate(value)))
    if isinstance(value, dict) and "evaluations" in value:
        return Batch(EVALUATIONS, tuple(_evaluations(value)))
    return Batch(OBJECT, (("", "", value),))


def _lines(data: bytes) -> list[tuple[int, bytes]] | None:
    """The lines of JSON lines: several, the first of which is an object by itself."""
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if len(lines) < 2 or not lines[0][1].strip().endswith(b"}"):
        return None
    try:
        return lines if isinstance(parse_json(lines[0][1]), dict) else None
    except RequestError:
        return None


def _evaluations(value: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Section 7 of AuthZEN: members beside `evaluations` are the defaults of each. Every one of them is decided, whatever the others become."""
    several, options = value["evaluations"], value.get("options")
    if not isinstance(several, list):
        raise RequestError("evaluations", "must be a list")
    if options is not None and (not isinstance(options, dict) or options.get("evaluations_semantic", "execute_all") != "execute_all"):
        raise RequestError("options.evaluations_semantic", "must be `execute_all`: every evaluation is decided")
    defaults = {key: one for key, one in value.items() if key not in ("evaluations", "options")}
    for place, one in enumerate(several):
        where = f"evaluations[{place}]"
        if not isinstance(one, dict):
            raise RequestError(where, "must be an object")
        yield "", where, {**defaults, **one}


def answers(pdp: Pdp, batch: Batch, directory: Directory | None = None) -> Iterator[Answer]:
    """Decide each request of a batch."""
    now = time.time()
    for prefix, where, item in batch.items:
        try:
            answer = decide(pdp, item, where, now, directory)
        except RequestError as error:
            raise RequestError(prefix + error.where, error.message, error.help) from None
        yield answer


def decide(pdp: Pdp, data: Any, where: str, now: float, directory: Directory | None = None) -> Answer:
    """Decide one request in decoded JSON, with its record. Raises `RequestError` naming the member that cannot be read."""
    request = settled(pdp, _request(pdp, data, where), directory, where)
    at = _at(data.get("at"), pdp.pack.vocabulary.time_zone, _path(where, "at"), now)
    revision = data.get("revision")
    if revision is not None and (not isinstance(revision, int) or isinstance(revision, bool) or revision < 0):
        raise RequestError(_path(where, "revision"), "must be a whole number from 0")
    known = _directives(pdp, data.get("directives"), directory, _path(where, "directives"))
    return pdp.decide(request, pdp.fold(known, at, revision))


def settled(pdp: Pdp, request: Request, directory: Directory | None, where: str = "") -> Request:
    """A request with the identifiers that the directory gives, all of them written as the pack says. Raises `RequestError`."""
    try:
        request = request if directory is None else directory.settle(request)
        check_identifiers(pdp.pack, request)
    except RequestError as error:
        raise RequestError(_path(where, error.where), error.message, error.help) from None
    return request


def _directives(pdp: Pdp, data: Any, directory: Directory | None, where: str) -> list[Directive]:
    """A record's directives, settled and checked as a request is."""
    parse_directives([] if data is None else data, pdp.pack.vocabulary, where)  # a list, and no revision twice
    made = []
    for place, item in enumerate(data or ()):
        one = parse_directive(item, pdp.pack.vocabulary, place + 1, f"{where}[{place}]")
        made.append(one if directory is None else directory.normalise(one))
        check_identifiers(pdp.pack, made[-1], f"{where}[{place}]")
    return made


def _request(pdp: Pdp, data: Any, where: str) -> Request:
    if not isinstance(data, Mapping):
        raise RequestError(where or "request", "must be an object")
    if "resourceType" in data:
        help = "put the DocumentReference under `resource`, beside `subject` and `action`"
        raise RequestError(_path(where, "resourceType"), f"a FHIR `{data['resourceType']}` is not a request", help)
    resource = data.get("resource")
    if not isinstance(resource, Mapping) or "resourceType" not in resource:
        return parse_request(data, where)
    from engine.fhir import parse_document_reference

    document = parse_document_reference(resource, pdp.pack, _path(where, "resource"))
    return parse_request({**data, "resource": {"type": document.type, "id": document.id, "properties": document.properties}}, where)


def _path(where: str, member: str) -> str:
    return f"{where}.{member}" if where else member


def _at(value: Any, zone: str, where: str, now: float) -> float:
    if value is None:
        return now
    instant = parse_instant(value) if isinstance(value, str) else None
    if instant is None:
        raise RequestError(where, "must be a date and a time with its offset", "such as 2026-11-21T10:00:00+01:00")
    if when(instant, zone) is None:
        raise RequestError(where, "is beyond the calendar")
    return instant


def when(instant: float, zone: str) -> str | None:
    """An instant as text; nothing for one that never comes, or that no calendar holds."""
    try:
        return None if abs(instant) == FOREVER else iso(instant, zone)
    except (ValueError, OverflowError, OSError):
        return None


def reply(answer: Answer) -> dict[str, Any]:
    """What `decide --json` prints of one answer."""
    record = answer.record
    told = answer.for_reviewer(answer.runner.pack.languages)
    return {**told, "at": when(answer.at, record.zone), "record": {"revision": record.revision, "holds_until": when(record.holds_until, record.zone)}}


def lines_of(answer: Answer, language: str) -> Iterator[str]:
    """What `decide` prints of one answer."""
    subject, resource, reason = answer.request.subject, answer.request.resource, answer.outcome.reason
    verdict = f"{answer.decision} by {answer.rule}" if answer.rule else "no rule applies"
    asked = f"{subject.type} {subject.id}, {answer.request.action.name}, {resource.type} {resource.id}"
    yield f"{verdict}: " + asked.replace("\n", "\\n")
    if reason:
        yield f"  {reason.words.get(language, '')} [{reason.legal_basis}]"
    if answer.discreet:
        yield f"  discreet: the requester reads “{answer.words(language)}”"
    for one in answer.owed:
        yield f"  owed by the {one.to}: {one.id} ({one.words.get(language, '')})"
    if answer.inferred:
        yield "  leans on an inferred cell: " + ", ".join(answer.runner.leans_on(answer))
    if (until := when(answer.record.holds_until, answer.record.zone)) is not None:
        yield f"  the record as it was read holds until {until}"
