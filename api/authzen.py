"""AuthZEN on the wire: JSON to questions, answers to JSON. No decision is made here.

OpenID AuthZEN Authorization API 1.0 (final, January 2026), sections 6 and 7, and the Obligations profile, draft 1. What implementations get wrong is in
tests/test_authzen.py, one test each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.consent.store import Token, parse_token
from engine.errors import RequestError, shown, suggest
from engine.evaluator.slices import Outcome
from engine.pdp import Runner
from engine.request import Action, Entity, Request, parse_entity, parse_request
from engine.service import Live, Look

SEMANTICS = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}
"""The decision that ends an evaluation of several, by the name of the semantic."""

MAX_DEPTH = 32
encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def parse_body(body: bytes) -> Mapping[str, Any]:
    """Decode the body of a request. Raises `RequestError` for what is not one JSON object."""
    try:
        data = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError("body", f"is not JSON: {error}") from None
    except RecursionError:
        raise RequestError("body", f"is nested more than {MAX_DEPTH} deep") from None
    if data.__class__ is not dict:
        raise RequestError("body", "must be an object")
    return data


# --- questions -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Question:
    """The same question about several resources, and the place of each among what was asked."""

    subject: Entity
    action: Action
    context: Mapping[str, Any]
    resources: list[Entity]
    places: list[int]


@dataclass(slots=True)
class Questions:
    """What a call asks: questions in the order of their first place, the places that cannot be asked, and the decision that ends the rest."""

    asked: list[Question]
    mistakes: dict[int, RequestError]
    until: bool | None
    size: int


def parse_one(data: Mapping[str, Any]) -> Question:
    """The question of a single call; `RequestError` for the first member that is missing."""
    request = parse_request(data)
    return Question(request.subject, request.action, request.context, [request.resource], [0])


def parse_several(data: Mapping[str, Any], most: int, record_of: RecordOf) -> Questions | None:
    """The questions of a list; nothing when there is no list, or an empty one, which makes it a single call.

    Items that differ in nothing but the resource, and are about one record, are one question: one reading of the record, one entry of the log.
    """
    items = data.get("evaluations")
    if items is None or items == []:
        return None
    if not isinstance(items, list):
        raise RequestError("evaluations", "must be a list")
    if len(items) > most:
        raise RequestError("evaluations", f"has {len(items):,} items, more than {most:,}", "ask for fewer at a time")
    made = Questions([], {}, _semantic(data.get("options")), len(items))
    last: Any = None
    record: Any = None
    question: Question | None = None
    for place, item in enumerate(items):
        try:
            if item.__class__ is not dict:
                raise RequestError(f"evaluations[{place}]", "must be an object")
            parts = (item.get("subject"), item.get("action"), item.get("context"))
            resource = _entity(_merged(item.get("resource"), data.get("resource"), ("type", "id")))
            if question is None or parts != last or record_of(question.action.name, resource) != record:
                question = None
                question = _question(data, parts, resource, place)
                last, record = parts, record_of(question.action.name, resource)
                made.asked.append(question)
            else:
                question.resources.append(resource)
                question.places.append(place)
        except RequestError as error:
            made.mistakes[place] = error
    return made


RecordOf = Callable[[str, Entity], Any]
"""What tells apart the records that resources belong to, for an action (`Service.record_of`)."""


def _question(data: Mapping[str, Any], parts: tuple[Any, Any, Any], resource: Entity, place: int) -> Question:
    subject, action, context = parts
    whole = {
        "subject": _merged(subject, data.get("subject"), ("type", "id")),
        "action": _merged(action, data.get("action"), ("name",)),
        "resource": {"type": resource.type, "id": resource.id},
        "context": data.get("context") if context is None else context,
    }
    request = parse_request(whole)
    return Question(request.subject, request.action, request.context, [resource], [place])


def _entity(data: Any) -> Entity:
    if data is None:
        raise RequestError("resource", "is missing")
    if data.__class__ is not dict:
        raise RequestError("resource", "must be an object")
    return parse_entity(data, "resource")


def _merged(own: Any, default: Any, inherited: Sequence[str]) -> Any:
    """An item's member: it inherits a missing type, id or name from the top level, but never properties; left out whole, it is the one of the top level."""
    if own is None:
        return default
    if own.__class__ is dict and default.__class__ is dict and any(key not in own for key in inherited):
        return {**{key: default[key] for key in inherited if key in default}, **own}
    return own


def _semantic(options: Any) -> bool | None:
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise RequestError("options", "must be an object")
    word = options.get("evaluations_semantic")
    if word is None:
        return None
    if not isinstance(word, str) or word not in SEMANTICS:
        raise RequestError("options.evaluations_semantic", f"{shown(word)} is not a semantic", suggest(str(word), SEMANTICS) or "use " + ", ".join(SEMANTICS))
    return SEMANTICS[word]


def asked_of(context: Mapping[str, Any]) -> dict[str, Any]:
    """What a context asks of the service itself: a record at least as fresh as `consent_token`, and only `supported_obligations`."""
    made: dict[str, Any] = {}
    token = context.get("consent_token")
    if token is not None:
        made["at_least"] = _token(token)
    supported = context.get("supported_obligations")
    if supported is not None:
        if not isinstance(supported, list) or not all(isinstance(one, str) for one in supported):
            raise RequestError("context.supported_obligations", "must be a list of types of obligations")
        made["supported"] = frozenset(supported)
    return made


def _token(token: Any) -> Token:
    if not isinstance(token, str):
        raise RequestError("context.consent_token", "must be text, as an answer gave it")
    return parse_token(token)


# --- answers ---------------------------------------------------------------------------------------------------------


class Replies:
    """Answers to JSON, by pieces: what an outcome says is encoded once. INVARIANT: every discreet refusal has the same piece."""

    def __init__(self, live: Live):
        self.languages = live.pdp.pack.languages
        self._pieces: dict[tuple[Runner, int], bytes] = {}
        self._pack = live.pdp.pack.digest

    def head(self, look: Look) -> bytes:
        """What the answers of one question have in common."""
        token = f'"consent_token":"{look.token}",' if look.token else ""
        return f'"context":{{"id":"{look.id}","pack":"{self._pack}",{token}'.encode()

    def one(self, look: Look, place: int, head: bytes) -> bytes:
        """One evaluation response."""
        answer = look.answers[place]
        key = (answer.runner, answer.outcome.number)
        piece = self._pieces.get(key)
        if piece is None:
            piece = self._piece(answer.runner, answer.outcome, answer.request)
            if not any(text.startswith("@") for owed in answer.owed if owed.to == "requester" for text in owed.properties.values()):
                self._pieces[key] = piece
        return (b'{"decision":true,' if look.permits(place) else b'{"decision":false,') + head + piece

    def _piece(self, runner: Runner, outcome: Outcome, request: Request) -> bytes:
        discreet = outcome.reason is not None and outcome.reason.discreet
        owed = [] if discreet else [one for one in runner.owed[outcome.number] if one.to == "requester"]
        words = {language: runner.words(outcome, language) for language in self.languages} if outcome.reason else {}
        obligations = [{"id": f"o{n}", "type": one.id, "properties": runner.properties(one, request)} for n, one in enumerate(owed, 1)]
        return encode({"reason_user": words, "obligations": obligations})[1:] + b"}"


def mistake(status: int, message: str) -> bytes:
    """An item that could not be decided: refused, with the error (section 7.3.1)."""
    return encode({"decision": False, "context": {"error": {"status": status, "message": message}}})
