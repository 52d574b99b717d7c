"""Admission messages (HL7v2): what a hospital's software collected from a patient becomes acts, which the policy decides like any other.

    bytes -> text, as declared -> the segments that count, parsed -> what is said -> acts, decided together -> directives, all of them or none

Which message, field and code asks for which action, and where the patient and the sender are named, is the pack's `[admission]`. Nothing is guessed and nothing
is half done: a message that is not understood to the end, or that the policy refuses, is a dead letter with its reason and place, and leaves the record as it
was. Both are kept in the consent store (`engine.consent.imports`). The transport and its acknowledgements are somebody else's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection

from engine.calendar import iso, local_instant
from engine.consent.acts import Done
from engine.consent.identifiers import check_identifier
from engine.consent.imports import DeadLetter, Entry, Imports
from engine.consent.store import Also, Conflict
from engine.errors import Diagnostic, RequestError, shown, suggest
from engine.pack import Pack
from engine.pdp import Pdp
from engine.request import Action, Entity, Request
from engine.sheets import read_sheet
from engine.specs import AdmissionSpec

if TYPE_CHECKING:
    from engine.service import By, Service

MAX_BYTES = 1_000_000
MAX_LINES = 5_000
MAX_PARTS = 5_000
"""Separators in the segments that count: the parser takes 30 seconds for a million of them and 0.05 for these. An official sample has 300."""
MAX_FILE = 10_000_000
MAX_MESSAGES = 10_000
"""Bytes of a file, and how many messages it may hold."""
LONGEST_IDENTIFIER = 199
"""Characters of MSH-3 and MSH-10, as HL7 bounds them: they name the message in the store for ever."""
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
    segments.needed("MSH-10")
    application, control, zone = segments.short("MSH-3"), segments.short("MSH-10"), pack.vocabulary.time_zone
    sent = _instant(segments.needed("MSH-7"), zone, "MSH-7")
    patient, structure = _patient(segments, pack, spec), _structure(segments, pack, spec, structures or {})
    said = tuple(_said(segments, spec, zone, sent))
    digest = hashlib.sha256("\r".join(line for _, line in lines).encode()).hexdigest()
    return Message(kind, control, application, structure, patient, said, digest)


def parse_structures(file: str, data: bytes, pack: Pack, found: list[Diagnostic]) -> dict[str, str]:
    """Read a sheet of senders: `name`, as their messages have it, and `identifier`, the one that stands for it. Mistakes are appended to `found`."""
    form = pack.identifiers.formats[_admission(pack).structure.identifier]
    made: dict[str, str] = {}
    for row in read_sheet(file, data, ("name", "identifier"), found):
        name, identifier = row["name"], row["identifier"]
        if wrong := form.mistake(identifier):
            found.append(Diagnostic("structure-identifier", f"{shown(identifier)} {wrong}", file, row.line, help=form.about))
        elif not name or name in made:
            message = f"{shown(name)} stands twice" if name else "the name is missing"
            found.append(Diagnostic("structure-name", message, file, row.line, help="a name stands for one structure"))
        else:
            made[name] = identifier
    return made


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

    def short(self, place: str) -> str:
        text = self.text(place)
        if len(text) > LONGEST_IDENTIFIER:
            raise RequestError(place, f"has {len(text):,} characters, more than {LONGEST_IDENTIFIER}")
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


# --- files of messages -----------------------------------------------------------------------------------------------

_MARK = re.compile(rb"(?:^|(?<=[\r\n]))(MSH|FHS|BHS|BTS|FTS)(?=[|\r\n])")
_ENDS = {"BTS": "BHS", "FTS": "FHS"}
"""What ends a batch and a file, and what began them."""


def split(data: bytes) -> list[bytes]:
    """The messages of a file: one, several in MLLP frames, or several one after the other, in a batch (`BHS` ... `BTS`) or not.

    Raises `RequestError` for a file that is too long, and for a batch that is not whole. Whether each piece is a message is not asked here.
    """
    if len(data) > MAX_FILE:
        raise RequestError("MSH", f"the file has more than {MAX_FILE:,} bytes", "send fewer messages at a time")
    bare = data.lstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf")
    if bare.startswith(b"\x0b"):
        return _few([b"\x0b" + one for one in bare[1:].split(b"\x0b")])
    marks = list(_MARK.finditer(bare))
    if not marks or marks[0].start():
        return [data]
    several: list[bytes] = []
    held: dict[str, int] = {}  # by what began it: how many messages an open batch holds, how many batches an open file
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(bare)], strict=True):
        name, part = mark[1].decode(), bare[mark.start() : end]
        if name == "MSH":
            several.append(part)
            held |= {"BHS": held["BHS"] + 1} if "BHS" in held else {}
        elif re.search(rb"[\r\n][^\r\n]", part):
            raise RequestError(name, "is followed by what belongs to no message")
        elif name in _ENDS:
            _end(name, part, held)
        else:
            held[name] = 0
    for name in held:
        raise RequestError(name, "has no end", "the file was cut off: send it whole")
    return _few(several)


def _end(name: str, part: bytes, held: dict[str, int]) -> None:
    """The end of a batch or of a file, which may say how much it holds."""
    number = held.pop(_ENDS[name], None)
    if number is None:
        raise RequestError(name, f"ends what no {_ENDS[name]} began")
    said = part.strip(b"\r\n").decode("latin-1").split("|")[1:2]
    if said and said[0] and said[0] != str(number):
        raise RequestError(f"{name}-1", f"says {shown(said[0])}, and it holds {number}", "something of it was lost: send it whole")
    if name == "BTS" and "FHS" in held:
        held["FHS"] += 1


def _few(several: list[bytes]) -> list[bytes]:
    if len(several) > MAX_MESSAGES:
        raise RequestError("MSH", f"the file holds more than {MAX_MESSAGES:,} messages", "send fewer at a time")
    return several


# --- taking messages -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was taken. `written`: its directives are in the record; `nothing`: it asks for nothing; `replayed`: it was taken before, and not again."""

    name: str
    message: Message
    outcome: Literal["written", "nothing", "replayed"]
    directives: tuple[Mapping[str, Any], ...] = ()
    token: Any = None


class Admissions:
    """Takes admission messages into the consent store of a service, which has their acts in its log, in the name of `by`.

    `structures`: see `read_message`. `speaks_for`: the structures that the sender, once authenticated, may speak for; without it a message is believed, as in a
    file that an officer imports.
    """

    def __init__(self, service: Service, by: By, *, structures: Mapping[str, str] | None = None, speaks_for: Collection[str] | None = None):
        assert service.live.store is not None
        self.service, self.by, self.store = service, by, service.live.store
        self.imports, self.structures, self.speaks_for = Imports(self.store), dict(structures or {}), speaks_for

    @property
    def pdp(self) -> Pdp:
        return self.service.live.pdp

    def take_all(self, messages: Iterable[tuple[str, bytes]], at: float) -> tuple[list[Taken], list[DeadLetter]]:
        """Take several messages, each with the name that its dead letter would have, in their order."""
        done = [self.take(data, at, name) for name, data in messages]
        return [one for one in done if isinstance(one, Taken)], [one for one in done if isinstance(one, DeadLetter)]

    def take_file(self, data: bytes, at: float, name: str = "") -> Iterator[Taken | DeadLetter]:
        """Take the messages of a file: one, several in MLLP frames, or a batch. A file that is not whole is one dead letter."""
        try:
            several = split(data)
        except RequestError as error:
            yield self._bury(data, at, name, "", error)
            return
        for number, one in enumerate(several, 1):
            yield self.take(one, at, f"{name}#{number}" if len(several) > 1 else name)

    def retry(self, id: str, at: float) -> list[Taken | DeadLetter]:
        """Take a dead letter again, with the pack, the structures and the record as they are now. Raises `RequestError` for one that cannot be."""
        letter = self.imports.letter(id)
        if letter.state == "retaken":
            raise RequestError("dead letter", "was taken since")
        if not letter.data and letter.size:
            raise RequestError("dead letter", "was too long to be kept", "have it sent again")
        return list(self.take_file(letter.data, at, letter.name))

    def take(self, data: bytes, at: float, name: str = "") -> Taken | DeadLetter:
        """Take one message: its acts are done together, or it is a dead letter. What goes wrong with store or log is raised: the message may be taken again."""
        sender = _sender(data)
        try:
            message = read_message(data, self.pdp.pack, self.structures)
            sender = message.structure
            return self._take(message, at, name, _id(data))
        except RequestError as error:
            return self._bury(data, at, name, sender, error)

    def _bury(self, data: bytes, at: float, name: str, sender: str, error: RequestError) -> DeadLetter:
        kept = data if len(data) <= MAX_BYTES else b""
        return self.imports.bury(DeadLetter(_id(data), name, sender, error.where, error.message, error.help, len(data), kept), at)

    def _take(self, message: Message, at: float, name: str, id: str) -> Taken:
        if self.speaks_for is not None and message.structure not in self.speaks_for:
            raise RequestError(_admission(self.pdp.pack).structure.at, "the sender does not speak for this structure")
        entry = Entry(
            message.structure, message.application, message.control, message.digest, message.patient, {one.place: one.collected for one in message.said}
        )

        def check(connection: Connection) -> None:
            if self.imports.has(connection, entry):
                raise _Replayed("MSH-10", "was taken before")
            overtaken = self.imports.overtaken(connection, entry)
            for said in message.said:
                if said.place in overtaken:
                    raise RequestError(said.dated, "is older than what this structure has already said", "send what the patient said last")
                if said.collected > at + AHEAD:
                    raise RequestError(said.dated, "is yet to come")

        def enter(connection: Connection) -> None:
            check(connection)  # again: only in the transaction that writes it is it still so
            self.imports.add(connection, entry, at)
            self.imports.retake(connection, id)

        try:
            with self.store.reading() as connection:
                check(connection)
            done = self._do(message, at, enter)
        except _Replayed:
            with self.store.writing() as connection:
                self.imports.retake(connection, id)
            return Taken(name, message, "replayed")
        directives = tuple(directive for one in done for directive in one.directives)
        return Taken(name, message, "written" if directives else "nothing", directives, done[-1].token if done else None)

    def _do(self, message: Message, at: float, enter: Also) -> list[Done]:
        """The acts of a message and its entry, in one transaction. Raises `RequestError` when the policy refuses one of them."""
        if not message.said:
            try:
                self._enter(enter)
            except Conflict:
                self._enter(enter)  # whoever took it meanwhile is seen now
            return []
        done = [one for _, one in self.service.act_together([self._request(message, said) for said in message.said], self.by, at, also=enter)]
        for said, one in zip(message.said, done, strict=True):
            if not one.answer.permitted:
                raise RequestError(said.place, f"`{said.action}` is refused by {one.answer.rule or 'no rule'}: {one.answer.words()}")
        return done

    def _enter(self, enter: Also) -> None:
        with self.store.writing() as connection:
            enter(connection)

    def _request(self, message: Message, said: Said) -> Request:
        spec = _admission(self.pdp.pack)
        words = {"@structure": message.structure, "@patient": message.patient}
        subject = {key: words.get(word, word) for key, word in spec.subject.items()}
        properties = _filled(spec.action.get(said.action, {}), words)
        basis = f"{message.kind} {message.control} of {message.application}: {said.place} {said.code}, collected {iso(said.collected)}"
        asks = Entity(subject.pop("type"), subject.pop("id"), subject)
        return Request(asks, Action(said.action, properties), Entity("record", message.patient), {**spec.context, "basis": basis})


class _Replayed(RequestError):
    """The message was taken before: nothing is done, and nothing is wrong."""


def _id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sender(data: bytes) -> str:
    """MSH-3 and MSH-4 as they stand, of a message that nobody understood, for whoever looks at it."""
    header = re.split(rb"[\r\n]", data[:1000].lstrip(b"\x0b\xef\xbb\xbf"), maxsplit=1)[0].decode("latin-1").split("|")
    return " of ".join(filter(None, header[2:4])) if header[0] == "MSH" else ""


def _filled(properties: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """Properties of an action, with the words that stand for the message's own put in."""
    return {key: _filled(one, words) if isinstance(one, Mapping) else words.get(one, one) for key, one in properties.items()}
