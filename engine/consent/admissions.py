"""Admission messages (HL7v2): what a hospital's software collected from a patient becomes acts, which the policy decides like any other.

    bytes -> text, as declared -> the segments that count, parsed -> what is said -> acts, decided together -> directives, all of them or none

Which message, field and code asks for which action, and where the patient and the sender are named, is the pack's `[admission]`. Nothing is guessed and nothing
is half done: a message that is not understood to the end, or that the policy refuses, is a dead letter with its reason and place, and leaves the record as it
was. The transport (MLLP, a folder), its acknowledgements, and who keeps the dead letters are somebody else's.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

from engine.calendar import iso, local_instant
from engine.consent.acts import Store, perform_all
from engine.consent.identifiers import check_identifier
from engine.errors import RequestError, shown, suggest
from engine.pack import Pack
from engine.pdp import Pdp
from engine.request import Action, Entity, Request
from engine.specs import AdmissionSpec

MAX_BYTES = 1_000_000
MAX_LINES = 5_000
MAX_PARTS = 5_000
"""Separators in the segments that count: the parser takes 30 seconds for a million of them and 0.05 for these. An official sample has 300."""
AHEAD = 3600.0
"""Seconds by which a sender's clock may be ahead."""

START = "MSH|^~\\&|"
"""Other separators are legal, and a way to write a message that two readers take apart differently."""

CHARSETS = {"": "ascii", "ASCII": "ascii", "UNICODE UTF-8": "utf-8", "UTF-8": "utf-8"} | {f"8859/{n}": f"iso8859-{n}" for n in (*range(1, 10), 15)}
"""HL7 table 0211, as far as one byte is one character, and UTF-8. Nothing declared is ASCII."""


# --- what a message says ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """A code that asks for an action: in which field, and when it was collected, which is said at `dated`."""

    place: str
    code: str
    action: str
    collected: float
    dated: str


@dataclass(frozen=True, slots=True)
class Message:
    """What an admission message says to a pack. `digest` names its text, whatever its line ends."""

    kind: str
    control: str
    application: str
    structure: str
    patient: str
    said: tuple[Said, ...]
    digest: str


def read_message(data: bytes, pack: Pack, structures: Mapping[str, str] | None = None) -> Message:
    """Read one message. Raises `RequestError`, whose `where` is the segment or the field at fault.

    `structures`: the identifiers of senders, by the name or the identifier that their messages give them, where that is not the one the pack asks for.
    """
    spec = _admission(pack)
    lines = _lines(_text(data))
    segments = _parse(lines, spec)
    kind = f"{segments.text('MSH-9')}^{segments.text('MSH-9.2')}"
    if kind not in spec.messages:
        raise RequestError("MSH-9", f"{shown(kind)} is not a message that is taken", "they are " + ", ".join(spec.messages))
    control, zone = segments.needed("MSH-10"), pack.vocabulary.time_zone
    sent = _instant(segments.needed("MSH-7"), zone, "MSH-7")
    patient, structure = _patient(segments, pack, spec), _structure(segments, pack, spec, structures or {})
    said = tuple(_said(segments, spec, zone, sent))
    digest = hashlib.sha256("\r".join(line for _, line in lines).encode()).hexdigest()
    return Message(kind, control, segments.text("MSH-3"), structure, patient, said, digest)


def _admission(pack: Pack) -> AdmissionSpec:
    if pack.admission is None:
        raise RequestError("pack", "does not say what admission messages mean", "write `[admission]` in pack.toml")
    return pack.admission


def _text(data: bytes) -> str:
    """The text of a message, out of its MLLP frame if it is in one, in the encoding that its MSH-18 declares."""
    if len(data) > MAX_BYTES:
        raise RequestError("MSH", f"the message has {len(data):,} bytes, more than {MAX_BYTES:,}")
    if data.startswith(b"\x0b"):
        data, end, rest = data[1:].partition(b"\x1c")
        if not end or rest.strip(b"\r"):
            raise RequestError("MSH", "is not in one MLLP frame", "a frame ends with the bytes 1C 0D, and holds one message")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.startswith(START.encode()):
        raise RequestError("MSH", f"the message does not start with {shown(START)}", "send it with the separators that HL7 recommends")
    header = re.split(rb"[\r\n]", data, maxsplit=1)[0].split(b"|")
    declared = header[17].decode("ascii", "replace") if len(header) > 17 else ""
    codec = CHARSETS.get(declared)
    if codec is None:
        raise RequestError("MSH-18", f"{shown(declared)} is not an encoding that is read", "they are " + ", ".join(filter(None, CHARSETS)))
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        raise RequestError("MSH-18", f"says {shown(declared or 'ASCII')}, and byte {error.start} is not in it", "declare the encoding that is sent") from None
    if codec.startswith("iso") and not data.isascii() and _is_utf8(data):
        raise RequestError("MSH-18", f"says {shown(declared)}, and the message is in UTF-8", "declare the encoding that is sent")
    if not text.endswith(("\r", "\n")):
        raise RequestError(_last(text), "the message ends in the middle of a segment", "every segment ends with a carriage return")
    return text


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _last(text: str) -> str:
    name = re.split(r"[\r\n]", text)[-1][:3]
    return name if _NAME.fullmatch(name) else "MSH"


_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _lines(text: str) -> list[tuple[str, str]]:
    """The segments of a message, each with its name."""
    made: list[tuple[str, str]] = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if not line:
            continue
        name = line[:3]
        place = name if _NAME.fullmatch(name) else f"line {number}"
        if unseen := _UNSEEN.search(line):
            raise RequestError(place, f"holds a character that no text has, U+{ord(unseen[0]):04X}")
        if place != name or line[3:4] not in ("|", ""):
            raise RequestError(f"line {number}", "does not start with the name of a segment")
        made.append((name, line))
        if len(made) > MAX_LINES:
            raise RequestError(name, f"the message has more than {MAX_LINES:,} segments")
    return made


# --- segments and fields ---------------------------------------------------------------------------------------------

_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})-([0-9]+)(?:\.([0-9]+))?")
Repetitions = list[list[list[str]]]
"""The repetitions of a field: components, and their sub-components."""


def _place(text: str) -> tuple[str, int, int]:
    """`PID-3.4` as segment, field and component, which is the first where none is named."""
    match = _PLACE.fullmatch(text)
    assert match is not None, "the pack was checked"
    return match[1], int(match[2]), int(match[3] or 1)


@dataclass(frozen=True, slots=True)
class _Segments:
    """The segments that count, parsed, by name: each stands once, or not at all."""

    parsed: Mapping[str, Any]

    def field(self, place: str) -> Repetitions:
        """What stands in a field; one empty text where nothing does."""
        name, number, _ = _place(place)
        segment = self.parsed.get(name)
        if segment is None or number >= len(segment):
            return [[[""]]]
        return [[_strings(component) for component in _several(repetition)] for repetition in _several(segment[number])]

    def text(self, place: str) -> str:
        """The one text of a field or of a component; empty where there is none."""
        name, number, component = _place(place)
        values = self.field(place)
        if len(values) > 1:
            raise RequestError(f"{name}-{number}", "has several values", "send one")
        return "&".join(values[0][component - 1]) if component <= len(values[0]) else ""

    def needed(self, place: str) -> str:
        text = self.text(place)
        if not text.strip():
            raise RequestError(place, "is missing")
        return text


def _several(part: Any) -> list[Any]:
    return list(part) if isinstance(part, list) else [part]


def _strings(component: Any) -> list[str]:
    return [str(one) for one in _several(component)]


def _parse(lines: list[tuple[str, str]], spec: AdmissionSpec) -> _Segments:
    """Parse the segments that count. The others are not looked into."""
    import hl7

    places = [spec.structure.at, *spec.structure.authorities, spec.patient.at, *spec.places, *(one.date for one in spec.places.values() if one.date)]
    wanted = dict.fromkeys(["MSH", *spec.segments, *(_place(place)[0] for place in places)])
    chosen = {name: line for name, line in lines if name in wanted}
    for name in wanted:
        number = sum(other == name for other, _ in lines)
        if number > 1:
            raise RequestError(name, f"stands {number} times", "send one message at a time, about one patient")
        if not number and name in spec.segments:
            raise RequestError(name, "is missing")
    if (parts := sum(line.count(sign) for line in chosen.values() for sign in "|~^&")) > MAX_PARTS:
        longest = max(chosen, key=lambda name: len(chosen[name]))
        raise RequestError(longest, f"the message has {parts:,} separators, more than {MAX_PARTS:,}")
    try:
        parsed = hl7.parse("\r".join(chosen.values()))
    except Exception as error:  # whatever the library makes of it, it is the message's fault
        raise RequestError("MSH", f"the message cannot be parsed: {type(error).__name__}") from None
    return _Segments(dict(zip(chosen, parsed, strict=True)))


def _patient(segments: _Segments, pack: Pack, spec: AdmissionSpec) -> str:
    """The one identifier that an authority of the pack gave."""
    place = spec.patient.at
    found = {"&".join(one[0]) for one in segments.field(place) if len(one) > 3 and len(one[3]) > 1 and one[3][1] in spec.patient.systems}
    if len(found) != 1:
        message = "names two patients" if found else "names no patient by an identifier of " + " or ".join(spec.patient.systems)
        raise RequestError(place, message, "send the identifier in force, with its authority")
    return check_identifier(pack, spec.patient.identifier, found.pop(), place)


def _structure(segments: _Segments, pack: Pack, spec: AdmissionSpec, structures: Mapping[str, str]) -> str:
    """The sender: whoever its identifier or its name is registered for; or else that identifier, or the one that authorities of that name have, or the name."""
    place, form = spec.structure.at, pack.identifiers.formats[spec.structure.identifier]
    name, own = segments.text(place), segments.text(f"{place}.2")
    for written in (own, name):
        if written in structures:
            return check_identifier(pack, form.name, structures[written], place)
    several = [own] if own else [id for one in spec.structure.authorities for known, id in _authorities(segments, one) if known == name]
    known = [structures.get(one, one) for one in several or [name]]
    found = list(dict.fromkeys(one for one in known if not form.mistake(one)))
    if len(found) > 1:
        raise RequestError(place, f"is identified as {shown(found[0])} and as {shown(found[1])}", "one structure sends a message")
    if not found:
        mistake = form.mistake(known[0]) if known[0].strip() else "does not say which structure sends the message"
        raise RequestError(place, mistake, f"{form.about}; or register the name that its messages give it")
    return found[0]


def _authorities(segments: _Segments, place: str) -> Iterator[tuple[str, str]]:
    """Names and identifiers of the authorities in a component, of every repetition."""
    _, _, component = _place(place)
    for one in segments.field(place):
        if component <= len(one) and len(one[component - 1]) > 1 and one[component - 1][1]:
            yield one[component - 1][0], one[component - 1][1]


def _said(segments: _Segments, spec: AdmissionSpec, zone: str, sent: float) -> Iterator[Said]:
    for place, one in spec.places.items():
        dated = one.date if one.date and segments.text(one.date) else "MSH-7"
        collected = _instant(segments.text(dated), zone, dated) if dated != "MSH-7" else sent
        code = segments.text(place)
        if code and code not in one.codes:
            raise RequestError(place, f"unknown code {shown(code)}", suggest(code, one.codes) or "the codes are " + ", ".join(one.codes))
        if action := one.codes.get(code):
            yield Said(place, code, action, collected, dated)


_TIME = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:\.[0-9]{1,4})?)?)?)?([+-][0-9]{4})?", re.ASCII)


def _instant(text: str, zone: str, place: str) -> float:
    """`YYYYMMDD[HH[MM[SS[.S]]]][+ZZZZ]`: a local time where no offset stands, the first instant where no time does."""
    if match := _TIME.fullmatch(text):
        *parts, offset = match.groups()
        try:
            local = datetime(*(int(part or 0) for part in parts))  # type: ignore[arg-type]
            if offset is None:
                return local_instant(local, zone)
            ahead = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
            return (local - ahead if offset[0] == "+" else local + ahead).replace(tzinfo=UTC).timestamp()
        except (ValueError, OverflowError):
            pass
    raise RequestError(place, f"{shown(text)} is not a date", "write it as 20261121100000+0100")


# --- taking messages -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A message that was taken: what names it, its text's digest, and when what it says was collected, by field."""

    structure: str
    application: str
    control: str
    digest: str
    patient: str
    collected: Mapping[str, float]


class Imported(Protocol):
    """The messages that were taken. A store keeps them as long as a sender might send one again."""

    def find(self, structure: str, application: str, control: str) -> Entry | None:
        """The message of that sender with that identifier."""

    def latest(self, structure: str, patient: str, place: str) -> float | None:
        """The latest instant at which a structure collected what it said of a patient in a field."""

    def add(self, entry: Entry) -> None: ...


class MemoryImported:
    """The same in memory, for tests and for one run."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str], Entry] = {}
        self._latest: dict[tuple[str, str, str], float] = {}
        self._lock = threading.Lock()

    def find(self, structure: str, application: str, control: str) -> Entry | None:
        return self._entries.get((structure, application, control))

    def latest(self, structure: str, patient: str, place: str) -> float | None:
        return self._latest.get((structure, patient, place))

    def add(self, entry: Entry) -> None:
        with self._lock:
            self._entries[entry.structure, entry.application, entry.control] = entry
            for place, instant in entry.collected.items():
                key = (entry.structure, entry.patient, place)
                self._latest[key] = max(instant, self._latest.get(key, instant))


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was taken. `written`: its directives are in the record; `nothing`: it asks for nothing; `replayed`: it was taken before, and not again."""

    name: str
    message: Message
    outcome: Literal["written", "nothing", "replayed"]
    directives: tuple[Mapping[str, Any], ...] = ()
    token: Any = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was not taken: why, at which segment or field, and how to mend it. `data` is what came, empty when it was too long to keep."""

    name: str
    place: str
    reason: str
    help: str
    digest: str
    data: bytes = field(repr=False)
    message: Message | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.place}: {self.reason}" + (f" ({self.help})" if self.help else "")


class Admissions:
    """Takes admission messages into a store.

    `conflict` is what the store raises when somebody else wrote first. `structures`: see `read_message`. `speaks_for`: the structures that the sender, once
    authenticated, may speak for; without it a message is believed, as for a file that an officer imports.
    """

    def __init__(
        self, pdp: Pdp, store: Store, imported: Imported, conflict: type[Exception], *,
        structures: Mapping[str, str] | None = None, speaks_for: Collection[str] | None = None,
    ):  # fmt: skip
        self.pdp, self.store, self.imported, self.conflict = pdp, store, imported, conflict
        self.structures, self.speaks_for = dict(structures or {}), speaks_for

    def take_all(self, messages: Iterable[tuple[str, bytes]], at: float) -> tuple[list[Taken], list[DeadLetter]]:
        """Take several messages, each with the name that its dead letter would have, in their order."""
        done = [self.take(data, at, name) for name, data in messages]
        return [one for one in done if isinstance(one, Taken)], [one for one in done if isinstance(one, DeadLetter)]

    def take(self, data: bytes, at: float, name: str = "") -> Taken | DeadLetter:
        """Take one message: its acts are done together, or it is a dead letter. What goes wrong with the store is raised: the message may be taken again."""
        message = None
        try:
            message = read_message(data, self.pdp.pack, self.structures)
            return self._take(message, at, name)
        except RequestError as error:
            digest = message.digest if message else hashlib.sha256(data).hexdigest()
            return DeadLetter(name, error.where, error.message, error.help, digest, data if len(data) <= MAX_BYTES else b"", message)

    def _take(self, message: Message, at: float, name: str) -> Taken:
        if self.speaks_for is not None and message.structure not in self.speaks_for:
            raise RequestError(_admission(self.pdp.pack).structure.at, "the sender does not speak for this structure")
        before = self.imported.find(message.structure, message.application, message.control)
        if before is not None:
            if before.digest != message.digest:
                raise RequestError("MSH-10", "was the identifier of another message of this sender", "give a new message a new one")
            return Taken(name, message, "replayed")
        for said in message.said:
            latest = self.imported.latest(message.structure, message.patient, said.place)
            if latest is not None and said.collected < latest:
                raise RequestError(said.dated, "is older than what this structure has already said", "send what the patient said last")
            if said.collected > at + AHEAD:
                raise RequestError(said.dated, "is yet to come")
        requests = [self._request(message, said) for said in message.said]
        done = perform_all(self.pdp, self.store, requests, at, self.conflict) if requests else []
        for said, one in zip(message.said, done, strict=True):
            if not one.answer.permitted:
                raise RequestError(said.place, f"`{said.action}` is refused by {one.answer.rule or 'no rule'}: {one.answer.words()}")
        # INVARIANT: the record first. Should this process end before the next lines, the message is taken again, and says again what the record already has;
        # the other way round, what the patient said would be lost.
        collected = {said.place: said.collected for said in message.said}
        self.imported.add(Entry(message.structure, message.application, message.control, message.digest, message.patient, collected))
        directives = tuple(directive for one in done for directive in one.directives)
        return Taken(name, message, "written" if directives else "nothing", directives, done[-1].token if done else None)

    def _request(self, message: Message, said: Said) -> Request:
        spec = _admission(self.pdp.pack)
        words = {"@structure": message.structure, "@patient": message.patient}
        subject = {key: words.get(word, word) for key, word in spec.subject.items()}
        properties = _filled(spec.action.get(said.action, {}), words)
        basis = f"{message.kind} {message.control} of {message.application}: {said.place} {said.code}, collected {iso(said.collected)}"
        asks = Entity(subject.pop("type"), subject.pop("id"), subject)
        return Request(asks, Action(said.action, properties), Entity("record", message.patient), {**spec.context, "basis": basis})


def _filled(properties: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """Properties of an action, with the words that stand for the message's own put in."""
    return {key: _filled(one, words) if isinstance(one, Mapping) else words.get(one, one) for key, one in properties.items()}
