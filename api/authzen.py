"""AuthZEN on the wire: JSON to questions, answers to JSON. No decision is made here.

OpenID AuthZEN Authorization API 1.0 (final, January 2026), sections 6 and 7, and the Obligations profile, draft 1. What implementations get wrong is in
tests/test_authzen.py, one test each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec
import numpy as np

from engine.answer import Answer, Answers
from engine.consent.store import Token, parse_token
from engine.errors import RequestError, shown, suggest
from engine.pdp import Runner
from engine.request import LONGEST, Action, Entity, parse_entity, parse_json, parse_request
from engine.service import Live, Look, RecordOf, of_one_record

SEMANTICS = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}
"""The decision that ends an evaluation of several, by the name of the semantic."""

SHALLOW = 7
"""Levels of objects and lists in what stores send: a list of evaluations of documents with a list among their properties has six."""

_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float
"""Longer whole numbers are the exact parser's: it knows how many digits are too many, and a body full of such takes the decoder seconds."""


def _nested(levels: int) -> Any:
    plain = str | _Number | bool | None
    return plain if not levels else plain | list[_nested(levels - 1)] | dict[str, _nested(levels - 1)]  # type: ignore[misc]


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, _nested(SHALLOW - 1)]).decode  # type: ignore[misc]

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]
if TYPE_CHECKING:
    Properties: TypeAlias = Mapping[str, Any]
else:
    Properties = dict[str, _nested(SHALLOW - 4)]


# What nearly all stores send, decoded without a dictionary for each object: whatever has another member, or is not like this, is read by `parse_body`.


class _Entity(Entity, frozen=True, omit_defaults=True, gc=False):
    type: Text
    id: Text
    properties: Properties = msgspec.field(default_factory=dict)


class _Action(Action, frozen=True, omit_defaults=True, gc=False):
    name: Text
    properties: Properties = msgspec.field(default_factory=dict)


class _Asked(msgspec.Struct, omit_defaults=True):
    subject: _Entity
    action: _Action
    resource: _Entity
    context: Properties = msgspec.field(default_factory=dict)


class _Item(msgspec.Struct, gc=False):
    resource: _Entity


class _AskedOfSeveral(msgspec.Struct, omit_defaults=True):
    subject: _Entity
    action: _Action
    evaluations: Annotated[list[_Item], msgspec.Meta(min_length=1)]
    context: Properties = msgspec.field(default_factory=dict)


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""How the decoder says that it is none of this. A member that nobody asked for may be nested deeper than it goes."""
_decode_one, _decode_several = msgspec.json.Decoder(_Asked).decode, msgspec.json.Decoder(_AskedOfSeveral).decode


def check_type(given: bytes) -> None:
    """Raise `RequestError` for a body that is not said to be JSON, with or without the charset that JSON has."""
    if given == b"application/json":
        return
    kind, _, rest = given.decode("latin-1").lower().partition(";")
    charset = rest.replace(" ", "").replace('"', "")
    if kind.strip() != "application/json" or charset not in ("", "charset=utf-8", "charset=us-ascii"):
        raise RequestError("Content-Type", "must be application/json", "in UTF-8")


def parse_body(body: bytes) -> Mapping[str, Any]:
    """Decode the body of a request. Raises `RequestError` for what is not one JSON object, and for what JSON readers disagree on: a key twice in one object,
    nesting over 32, half a character, numbers that are none or too large.

    What is deep, or might have a key twice, is read again by the exact parser (`engine.request.parse_json`), which takes three times as long.
    """
    try:
        data = _decode(body)
    except msgspec.ValidationError:
        data = parse_json(body, "body")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError("body", f"is not JSON: {error}") from None
    else:
        if not _is_said_once(body, data):
            data = parse_json(body, "body")
    if data.__class__ is not dict:
        raise RequestError("body", "must be an object")
    return data


def _is_said_once(body: bytes, data: Any) -> bool:
    """Whether nothing of a body was lost when it was decoded. A key that stands twice, or that nobody asked for, is not in `data`, so there are fewer quotes in
    its JSON.

    Only an escaped quote may be written in a way that has none. For a list of 200 documents this takes 0.06 milliseconds.
    """
    return _quotes(encode(data)) == _quotes(body) and (b"\\" not in body or b"\\u0022" not in body)


def _quotes(text: bytes) -> int:
    """How many there are. In a long text NumPy counts five times as fast as `bytes`."""
    return text.count(b'"') if len(text) < 4_000 else int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord('"')))


# --- questions -------------------------------------------------------------------------------------------------------


class Question(msgspec.Struct):
    """The same question about several resources, and the place of each among what was asked."""

    subject: Entity
    action: Action
    context: Mapping[str, Any]
    resources: Sequence[Entity]
    places: list[int]


class Questions(msgspec.Struct):
    """What a call asks: questions in the order of their first place, the places that cannot be asked, and the decision that ends the rest.

    `size`: how many items it has; 0 for a single call, whose only question stands alone.
    """

    asked: list[Question]
    mistakes: dict[int, RequestError]
    until: bool | None
    size: int


def parse_one(body: bytes) -> Question:
    """The question of a single call. Raises `RequestError` as `parse_body` does, and for the first member that is missing."""
    try:
        asked = _decode_one(body)
    except UNREADABLE:
        return _one(parse_body(body))
    subject, action, resource = asked.subject, asked.action, asked.resource
    if not (_all_told((subject.type, subject.id, action.name, resource.type, resource.id)) and _is_said_once(body, asked)):
        return _one(parse_body(body))
    return Question(subject, action, asked.context, [resource], [0])


def _all_told(words: Iterable[str]) -> bool:
    """Whether none of these, none of which is empty, is blank."""
    return not any(map(str.isspace, words))


def _one(data: Mapping[str, Any]) -> Question:
    request = parse_request(data)
    return Question(request.subject, request.action, request.context, [request.resource], [0])


def parse_several(body: bytes, most: int, record_of: Callable[[str], RecordOf]) -> Questions:
    """The questions of a list; of a body that has none, or an empty one, its only question.

    Items that differ in nothing but the resource, and are about one record, are one question: one reading of the record, one entry of the log. `record_of`
    gives for an action what tells apart the records that resources belong to (`Live.record_of`). Raises `RequestError` as `parse_one` does.
    """
    return _of_one_record(body, most, record_of) or _several(parse_body(body), most, record_of)


def _of_one_record(body: bytes, most: int, record_of: Callable[[str], RecordOf]) -> Questions | None:
    """What nearly all lists are: one question about resources of one record."""
    try:
        asked = _decode_several(body)
    except UNREADABLE:
        return None
    subject, action, resources = asked.subject, asked.action, [one.resource for one in asked.evaluations]
    words = chain((subject.type, subject.id, action.name), (one.type for one in resources), (one.id for one in resources))
    if len(resources) > most or not (_all_told(words) and _is_said_once(body, asked)):
        return None
    if not of_one_record(record_of(action.name), resources):
        return None
    return Questions([Question(subject, action, asked.context, resources, list(range(len(resources))))], {}, None, len(resources))


def _several(data: Mapping[str, Any], most: int, record_of: Callable[[str], RecordOf]) -> Questions:
    items = data.get("evaluations")
    if items is None or items == []:
        return Questions([_one(data)], {}, _semantic(data.get("options")), 0)
    if not isinstance(items, list):
        raise RequestError("evaluations", "must be a list")
    if len(items) > most:
        raise RequestError("evaluations", f"has {len(items):,} items, more than {most:,}", "ask for fewer at a time")
    made = Questions([], {}, _semantic(data.get("options")), len(items))
    default = data.get("resource")
    last: Parts = NOTHING
    record: Any = None
    of: RecordOf | None = None
    for place, item in enumerate(items):
        try:
            if item.__class__ is not dict:
                raise RequestError(f"evaluations[{place}]", "must be an object")
            own = item.get("resource")
            parts = NOTHING if len(item) == 1 and own is not None else (item.get("subject"), item.get("action"), item.get("context"))
            resource = _resource(own, default)
            if of is None or not (parts is last or _same(parts, last)) or of(resource) != record:
                of = None
                question = _question(data, parts, resources := [resource], place)
                of, last = record_of(question.action.name), parts
                record = of(resource)
                made.asked.append(question)
            else:
                resources.append(resource)
                question.places.append(place)
        except RequestError as error:
            made.mistakes[place] = error
    return made


Parts = tuple[Any, Any, Any]
"""An item's own subject, action and context."""
NOTHING: Parts = (None, None, None)


def _same(parts: Parts, last: Parts) -> bool:
    """Whether two items say the same: to Python `true` and `1` are equal, to a policy they are not."""
    return parts == last and (parts == NOTHING or encode(parts) == encode(last))


def _question(data: Mapping[str, Any], parts: Parts, resources: list[Entity], place: int) -> Question:
    subject, action, context = parts
    whole = {
        "subject": _merged(subject, data.get("subject"), ("type", "id")),
        "action": _merged(action, data.get("action"), ("name",)),
        "resource": {"type": resources[0].type, "id": resources[0].id},
        "context": data.get("context") if context is None else context,
    }
    request = parse_request(whole)
    return Question(request.subject, request.action, request.context, resources, [place])


def _resource(own: Any, default: Any) -> Entity:
    data = own if default is None else _merged(own, default, ("type", "id"))
    if data.__class__ is dict:
        kind, id, properties = data.get("type"), data.get("id"), data.get("properties")
        plain = kind.__class__ is id.__class__ is str and properties.__class__ is dict and 0 < len(kind) <= LONGEST >= len(id) > 0
        if plain and not (kind.isspace() or id.isspace()):
            return Entity(kind, id, properties)
        return parse_entity(data, "resource")
    raise RequestError("resource", "is missing" if data is None else "must be an object")


def _merged(own: Any, default: Any, inherited: Sequence[str]) -> Any:
    """An item's member: it inherits a missing type, id or name from the top level, but never properties; left out whole, it is the one of the top level."""
    if own is None:
        return default
    if own.__class__ is dict and default.__class__ is dict and any(own.get(key) is None for key in inherited):
        return own | {key: default.get(key) for key in inherited if own.get(key) is None}
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


YES, NO = b'{"decision":true,', b'{"decision":false,'


class Replies:
    """Answers to JSON, by pieces: what an outcome says is encoded once. INVARIANT: every discreet refusal has the same piece."""

    def __init__(self, live: Live):
        self.languages = live.pdp.pack.languages
        self._pieces: dict[tuple[Runner, int], bytes] = {}
        self._pack = live.pdp.pack.digest

    def head(self, look: Look) -> bytes:
        """What the answers of one question have in common."""
        token = f'"consent_token":"{look.token.text}",' if look.token else ""
        return f'"context":{{"id":"{look.id}","pack":"{self._pack}",{token}'.encode()

    def all(self, look: Look) -> list[bytes]:
        """The evaluation responses of one question, in its order."""
        head, answers = self.head(look), look.answers
        if type(answers) is not Answers:
            return [
                NO + head + self._unsupported(one) if place in look.withheld else (YES if one.permitted else NO) + head + self._told(one)
                for place, one in enumerate(answers)
            ]
        yes, no = YES + head, NO + head
        outcomes, made = look.live.pdp.outcomes, []
        known: dict[int, bytes] = {}
        for place, number in enumerate(answers.outcomes):
            told = known.get(number)
            if told is None:
                told = (yes if outcomes[number].permits else no) + self._told(answers[place])
                if (answers.runner, number) in self._pieces:
                    known[number] = told
            made.append(told)
        for place in look.withheld:
            made[place] = no + self._unsupported(answers[place])
        return made

    def whole(self, look: Look) -> dict[str, Any]:
        """The response to a question about one resource, to be added to."""
        return msgspec.json.decode(self.all(look)[0])  # type: ignore[no-any-return]

    def _told(self, answer: Answer) -> bytes:
        key = answer.runner, answer.outcome.number
        piece = self._pieces.get(key)
        if piece is None:
            piece = self._piece(answer)
            if not any(text.startswith("@") for owed in answer.owed if owed.to == "requester" for text in owed.properties.values()):
                self._pieces[key] = piece
        return piece

    def _piece(self, answer: Answer) -> bytes:
        words = {language: answer.words(language) for language in self.languages} if answer.outcome.reason else {}
        return encode({"reason_user": words, "obligations": obligations_of(answer)})[1:] + b"}"

    def _unsupported(self, answer: Answer) -> bytes:
        """The rest of a permit that is withheld. Its reason is what the caller would have had to do, in the pack's words."""
        known = answer.request.context.get("supported_obligations") or ()
        missing = [one for one in answer.owed if one.to == "requester" and one.id not in known]
        words = {language: " ".join(filter(None, (one.words.get(language) for one in missing))) for language in self.languages}
        return encode({"reason_user": words, "obligations": [], "unsupported_obligations": [one.id for one in missing]})[1:] + b"}"


def obligations_of(answer: Answer) -> list[dict[str, Any]]:
    """What a caller that acts on an answer must do (Obligations profile). Nothing for a discreet refusal: that would tell it from others."""
    owed = [] if answer.discreet else [one for one in answer.owed if one.to == "requester"]
    return [{"id": f"o{n}", "type": one.id, "properties": answer.runner.properties(one, answer.request)} for n, one in enumerate(owed, 1)]


def mistake(status: int, message: str) -> bytes:
    """An item that could not be decided: refused, with the error (section 7.3.1)."""
    return encode({"decision": False, "context": {"error": {"status": status, "message": message}}})
