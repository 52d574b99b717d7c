"""Admission messages: what each code records, what becomes a dead letter and where, replays, and that nothing hostile gets further than that."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from consent_workers import admissions as of_store
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.calendar import parse_instant
from engine.consent.admissions import LONGEST_IDENTIFIER, MAX_BYTES, MAX_FILE, MAX_MESSAGES, Admissions, Taken, read_message, split
from engine.consent.imports import DeadLetter
from engine.consent.store import Conflict, ConsentStore
from engine.errors import PackError, RequestError
from engine.pack import parse_pack, read_folder
from engine.pdp import load_pdp
from engine.request import Action, Entity, Request

pytest_plugins = ["servers"]

ROOT = Path(__file__).parent.parent
PDP = load_pdp(ROOT / "policies")
NOW = parse_instant("2026-11-21T10:00:00+01:00") or 0.0
PATIENT, HOSPITAL, CLINIC, DOCTOR = "279035121518989", "750000028", "750000036", "10000000017"


class Stores:
    """New stores in a folder, copies of an empty one, closed at the end."""

    folder: Path
    opened: list[ConsentStore]

    def new(self, *known: Mapping[str, Any]) -> ConsentStore:
        path = self.folder / f"{len(self.opened)}.db"
        shutil.copy(self.folder / "empty.db", path)
        self.opened.append(ConsentStore(f"sqlite:///{path}", PDP.pack.vocabulary))
        if known:
            self.opened[-1].append(PATIENT, known, NOW)
        return self.opened[-1]


STORES = Stores()


@pytest.fixture(autouse=True)
def stores(place: Path) -> Iterator[None]:
    STORES.folder, STORES.opened = place, []
    ConsentStore(f"sqlite:///{place}/empty.db", PDP.pack.vocabulary, create=True).close()
    yield
    for store in STORES.opened:
        store.close()


def admissions(*known: Mapping[str, Any], **more: Any) -> Admissions:
    return of_store(PDP, STORES.new(*(known or ({"kind": "opened"},))), **more)


def kept(desk: Admissions) -> list[tuple[str, Any, bool]]:
    """What the record holds beyond its opening: kind, target, whether it withdraws."""
    several = [one.directive for one in desk.store.history(PATIENT)[1:]]
    return [(one["kind"], one.get("target"), one.get("withdraw", False)) for one in several]


INS = f"{PATIENT}^^^INS-NIR&1.2.250.1.213.1.4.8&ISO^INS"
LOCAL = f"P77^^^CH-NORD&{HOSPITAL}&M^PI"


def message(
    zfa: str | None = "ACTIF|20261120090000|||||||INO|20261120090000|IC|20261120090000", *, kind: str = "ADT^A01^ADT_A01", control: str = "M-1",
    facility: str = "CH-NORD", pid3: str = f"{LOCAL}~{INS}", charset: str = "UNICODE UTF-8", sent: str = "20261120100000+0100",
    zbe: str = "INSERT", more: str = "",
) -> str:  # fmt: skip
    """A message made for the test at hand."""
    lines = [
        f"MSH|^~\\&|ADM|{facility}|HUB|HUB|{sent}||{kind}|{control}|P|2.5^FRA^2.11||||||{charset}",
        "EVN||20261120100000", f"PID|1||{pid3}||DURAND^ZOÉ||19790328|F", f"PV1|1|I|A^^^CH-NORD&{HOSPITAL}&M", f"ZBE|9|20261120||{zbe}|N",
    ]  # fmt: skip
    return "\r".join([*lines, *([] if zfa is None else [f"ZFA|{zfa}"]), *([more] if more else []), ""])


def zfa(**fields: str) -> str:
    """The text of a ZFA segment, `f9="IO"` being its ninth field."""
    return "|".join(fields.get(f"f{place}", "") for place in range(1, 13))


def take(text: str | bytes, desk: Admissions | None = None, at: float = NOW) -> Taken | DeadLetter:
    return (desk or admissions()).take(text.encode() if isinstance(text, str) else text, at, "a message")


TEAM = {"team": HOSPITAL}


# --- what codes record -----------------------------------------------------------------------------------------------

CODES = {
    "consent": (zfa(f11="IC"), [("care_team_consent", TEAM, False)]),
    "no consent": (zfa(f11="INC"), [("care_team_consent", TEAM, True)]),
    "opposition to feeding": (zfa(f9="IO"), [("feeding_opposition", None, False)]),
    "break-glass refused": (zfa(f6="Y"), [("break_glass_refusal", None, False)]),
    "regulation refused": (zfa(f7="Y"), [("regulation_refusal", None, False)]),
    "everything": (
        zfa(f1="ACTIF", f6="Y", f7="Y", f9="IO", f11="INC"),
        [("break_glass_refusal", None, False), ("regulation_refusal", None, False), ("feeding_opposition", None, False), ("care_team_consent", TEAM, True)],
    ),
    "coded with words": (
        zfa(f9="IO^Informé et opposé^IHE-ZFA-9", f11="IC^Consentement"), [("feeding_opposition", None, False), ("care_team_consent", TEAM, False)],
    ),
    "not collected": (zfa(f1="ACTIF", f9="NA", f11="NA"), []),
    "no opposition": (zfa(f6="N", f7="N", f9="INO"), []),
    "nothing": (zfa(f1="ACTIF"), []),
    "authorised elsewhere": (zfa(f1="ACTIF", f2="20261120", f4="Y", f5="20261120"), []),
    "not authorised elsewhere": (zfa(f4="N"), []),
    "consent to a record that the sender saw closed": (zfa(f1="FERME", f3="20260101", f11="IC"), [("care_team_consent", TEAM, False)]),
    "consent to a record that the sender did not see": (zfa(f1="INEXISTANT", f11="IC"), [("care_team_consent", TEAM, False)]),
}  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), CODES.values(), ids=CODES)
def test_a_code_is_an_act_of_the_hospital_for_its_own_team(said: str, expected: list[tuple[str, Any, bool]]):
    done = take(message(said), desk := admissions())
    assert isinstance(done, Taken), done
    assert done.outcome == ("written" if expected else "nothing")
    assert kept(desk) == expected
    assert len(done.directives) == len(expected)
    assert (done.token and done.token.revision) == (len(expected) + 1 if expected else None)


def test_what_is_recorded_says_who_when_and_by_which_message():
    done = take(message(zfa(f9="IO", f10="20261120090000")))
    assert isinstance(done, Taken)
    assert done.directives == (
        {
            "kind": "feeding_opposition", "recorded": "2026-11-21T09:00:00+00:00", "recorded_by": HOSPITAL, "capacity": "organisation",
            "basis": "ADT^A01 M-1 of ADM: ZFA-9 IO, collected 2026-11-20T08:00:00+00:00",
        },
    )  # fmt: skip


REPORT = {"type": "11488-4", "patient": PATIENT, "status": "Approved", "confidentiality": ["N"], "author": DOCTOR, "structure": CLINIC}


def rule(desk: Admissions, subject: Entity, action: str, **context: str) -> str:
    document = Entity("document", "DOC-1", REPORT)
    return PDP.decide(Request(subject, Action(action), document, {"purpose": "care", **context}), desk.store.read(PATIENT, NOW)[0]).rule


def test_the_next_decision_honours_an_admission():
    member = {"kind": "membership", "target": {"professional": "10000000033"}, "team": HOSPITAL}
    doctor = Entity("professional", "10000000033", {"profession": "G15_10", "authentication": "DIRECTE"})
    desk = admissions({"kind": "opened"}, member)
    asked = (("read", {}), ("deposit", {}), ("read", {"access_mode": "bris_de_glace", "justification": "coma"}))
    assert [rule(desk, doctor, action, **context) for action, context in asked] == ["R17", "W01", "R14"]
    take(message(zfa(f11="IC")), desk)
    assert rule(desk, doctor, "read") == "R16"
    take(message(zfa(f6="Y", f9="IO", f11="INC"), control="M-2", sent="20261121"), desk)
    assert [rule(desk, doctor, action, **context) for action, context in asked] == ["R17", "W01-opposed", "R12"]


def test_a_non_opposition_lifts_nothing():
    known = [{"kind": "opened"}, {"kind": "feeding_opposition"}, {"kind": "break_glass_refusal"}, {"kind": "regulation_refusal"}]
    done = take(message(zfa(f6="N", f7="N", f9="INO", f11="NA")), desk := admissions(*known))
    assert isinstance(done, Taken) and done.outcome == "nothing"
    assert [one[0] for one in kept(desk)] == [one["kind"] for one in known[1:]]


# --- the cases of the official samples -------------------------------------------------------------------------------

OFFICIAL = {
    "consent, no opposition": ("20240306111154", "INO", "IC", ["care_team_consent"]),
    "no consent, no opposition": ("20240307111154", "INO", "INC", ["care_team_consent withdrawn"]),
    "no consent, opposition": ("20240309111154", "IO", "INC", ["feeding_opposition", "care_team_consent withdrawn"]),
    "consent not collected, no opposition": ("20240310111154", "INO", "NA", []),
    "nothing collected": ("20240311111154", "NA", "NA", []),
}
"""The five cases that the specification illustrates, sent one after the other by a structure whose identifier has no valid check digit."""


def official() -> list[tuple[str, bytes]]:
    made = []
    for number, (name, (when, feeding, consulting, _)) in enumerate(OFFICIAL.items(), 3975):
        said = zfa(f1="ACTIF", f2=when, f9=feeding, f10=when if feeding != "NA" else "", f11=consulting, f12=when if consulting != "NA" else "")
        own = f"000003^^^CHU-X&000897406&N^PI~{INS}^^20101207"
        made.append((name, message(said, control=str(number), facility="CHU-X", pid3=own, sent=when, kind="ADT^A01^ADT_A01", more="ZFD|||Y|N|INSI").encode()))
    return made


def test_the_official_cases_run_in_the_order_they_were_sent():
    desk = admissions(structures={"CHU-X": "750712184"})
    taken, dead = desk.take_all(official(), NOW)
    assert dead == []
    said = {one.name: [each["kind"] + " withdrawn" * bool(each.get("withdraw")) for each in one.directives] for one in taken}
    assert said == {name: expected for name, (_, _, _, expected) in OFFICIAL.items()}
    assert {one.message.structure for one in taken} == {"750712184"} and {one.message.patient for one in taken} == {PATIENT}
    again, dead = desk.take_all(official(), NOW)
    assert (dead, {one.outcome for one in again}, len(kept(desk))) == ([], {"replayed"}, 4)


def test_an_official_case_of_an_unregistered_structure_is_a_dead_letter():
    _, dead = admissions().take_all(official(), NOW)
    assert [one.place for one in dead] == ["MSH-4"] * 5


# --- who sends -------------------------------------------------------------------------------------------------------

NO_LOCAL = INS
SENDERS = {
    "by the authority of that name": ({}, {}, HOSPITAL),
    "by its own identifier": ({"facility": f"CH-NORD&x^{CLINIC}^M"}, {}, CLINIC),
    "by its name": ({"facility": CLINIC, "pid3": NO_LOCAL}, {}, CLINIC),
    "by the one identifier that is one": ({"pid3": f"{INS}~P1^^^CH-NORD&1.2.3.4&ISO^PI"}, {}, HOSPITAL),
    "registered by name": ({"facility": "CHU-X", "pid3": NO_LOCAL}, {"CHU-X": CLINIC}, CLINIC),
    "registered by name, whatever its messages say": ({}, {"CH-NORD": CLINIC}, CLINIC),
    "registered by identifier": ({"facility": "CHU-X^000897406"}, {"000897406": CLINIC, "CHU-X": HOSPITAL}, CLINIC),
}


@pytest.mark.parametrize(("parts", "structures", "expected"), SENDERS.values(), ids=SENDERS)
def test_the_sender_is_named(parts: dict[str, str], structures: dict[str, str], expected: str):
    assert read_message(message(**parts).encode(), PDP.pack, structures).structure == expected


def test_a_sender_speaks_for_its_own_structures_only():
    desk = admissions(speaks_for={CLINIC})
    letter = take(message(), desk)
    assert isinstance(letter, DeadLetter)
    assert (letter.place, letter.reason, kept(desk)) == ("MSH-4", "the sender does not speak for this structure", [])
    assert isinstance(take(message(facility=f"X^{CLINIC}"), desk), Taken)


# --- dead letters ----------------------------------------------------------------------------------------------------

IDS = "1.2.250.1.213.1.4.8 or 1.2.250.1.213.1.4.9 or 1.2.250.1.213.1.4.10 or 1.2.250.1.213.1.4.11"
NO_START = "the message does not start with `MSH|^~\\&|`"
NOT_DIGITS = "is not an identifier of a {}: its check digits do not fit the others"
DEAD: dict[str, tuple[str | bytes, str, str]] = {
    "no ZFA": (message(None), "ZFA", "is missing"),
    "two ZFA": (message(more="ZFA|ACTIF"), "ZFA", "stands 2 times"),
    "two patients": (message(more=f"PID|2||{INS}"), "PID", "stands 2 times"),
    "two messages": (message() + message(), "MSH", "stands 2 times"),
    "an unknown code": (message(zfa(f9="OUI")), "ZFA-9", "unknown code `OUI`"),
    "a code of an older version": (message(zfa(f11="INO")), "ZFA-11", "unknown code `INO`"),
    "a code in small letters": (message(zfa(f9="io")), "ZFA-9", "unknown code `io`"),
    "a code with a space": (message(zfa(f9="IO ")), "ZFA-9", "unknown code `IO `"),
    "an unknown yes": (message(zfa(f6="O")), "ZFA-6", "unknown code `O`"),
    "HL7's null": (message(zfa(f11='""')), "ZFA-11", 'unknown code `""`'),
    "an escape": (message(zfa(f9="I\\X4F\\")), "ZFA-9", "unknown code `I\\X4F\\`"),
    "two codes": (message(zfa(f9="IO~INO")), "ZFA-9", "has several values"),
    "an unknown state of the record": (message(zfa(f1="OUVERT")), "ZFA-1", "unknown code `OUVERT`"),
    "a state of the record on no day": (message(zfa(f1="ACTIF", f2="hier")), "ZFA-2", "`hier` is not a date"),
    "an unknown authorisation": (message(zfa(f4="GARBAGE", f11="IC")), "ZFA-4", "unknown code `GARBAGE`"),
    "two authorisations": (message(zfa(f4="Y~N")), "ZFA-4", "has several values"),
    "an authorisation on no day": (message(zfa(f4="Y", f5="hier")), "ZFA-5", "`hier` is not a date"),
    "a cancelled movement": (message(zbe="CANCEL"), "ZBE-4", "unknown code `CANCEL`"),
    "a cancellation": (message(kind="ADT^A11"), "MSH-9", "`ADT^A11` is not a message that is taken"),
    "a result": (message(kind="ORU^R01"), "MSH-9", "`ORU^R01` is not a message that is taken"),
    "no date": (message(zfa(f9="IO", f10="hier")), "ZFA-10", "`hier` is not a date"),
    "a day that is none": (message(zfa(f9="IO", f10="20260231")), "ZFA-10", "`20260231` is not a date"),
    "half a date": (message(zfa(f9="IO", f10="2026112")), "ZFA-10", "`2026112` is not a date"),
    "a date to come": (message(zfa(f9="IO", f10="20261122")), "ZFA-10", "is yet to come"),
    "no date of its own": (message(sent=""), "MSH-7", "is missing"),
    "no identifier of its own": (message(control=""), "MSH-10", "is missing"),
    "no INS": (message(pid3=LOCAL), "PID-3", f"names no patient by an identifier of {IDS}"),
    "an INS of another authority": (message(pid3=f"{PATIENT}^^^CH-NORD&1.2.3&ISO^INS"), "PID-3", f"names no patient by an identifier of {IDS}"),
    "an INS without authority": (message(pid3=PATIENT), "PID-3", f"names no patient by an identifier of {IDS}"),
    "a bad key": (message(pid3=INS.replace("89^", "88^")), "PID-3", NOT_DIGITS.format("patient")),
    "an INS without its key": (message(pid3=INS.replace("89^", "^")), "PID-3", "is not written like an identifier of a patient"),
    "two INS": (message(pid3=f"{INS}~114067505601208^^^INS-NIR&1.2.250.1.213.1.4.10&ISO^INS"), "PID-3", "names two patients"),
    "a bad FINESS": (message(facility="X^750000018"), "MSH-4", NOT_DIGITS.format("structure")),
    "a name that is not registered": (message(facility="CH-SUD"), "MSH-4", "is not written like an identifier of a structure"),
    "no sender": (message(facility=""), "MSH-4", "does not say which structure sends the message"),
    "two senders": (
        message(pid3=f"{INS}~P1^^^CH-NORD&{CLINIC}&M^PI"), "MSH-4", f"is identified as `{CLINIC}` and as `{HOSPITAL}`",
    ),
    "an unknown encoding": (message(charset="UNICODE"), "MSH-18", "`UNICODE` is not an encoding that is read"),
    "two encodings": (message(charset="8859/1~UNICODE UTF-8"), "MSH-18", "`8859/1~UNICODE UTF-8` is not an encoding that is read"),
    "latin, declared UTF-8": (message().encode("latin-1"), "MSH-18", "says `UNICODE UTF-8`, and byte 224 is not in it"),
    "UTF-8, declared latin": (message(charset="8859/1"), "MSH-18", "says `8859/1`, and the message is in UTF-8"),
    "UTF-8, nothing declared": (message(charset=""), "MSH-18", "says `ASCII`, and byte 211 is not in it"),
    "UTF-16": (message().encode("utf-16"), "MSH", NO_START),
    "truncated": (message()[:-6], "ZFA", "the message ends in the middle of a segment"),
    "truncated in its header": (message()[:40], "MSH", "the message ends in the middle of a segment"),
    "truncated before its codes": (message(None)[:-20], "ZBE", "the message ends in the middle of a segment"),
    "a frame that is cut": ("\x0b" + message(), "MSH", "is not in one MLLP frame"),
    "two frames": ("\x0b" + message() + "\x1c\r\x0b" + message() + "\x1c\r", "MSH", "is not in one MLLP frame"),
    "a NUL": (message(zfa(f9="I\0O")), "ZFA", "holds a character that no text has, U+0000"),
    "a NUL at the start of a segment": (message(more="\0FA|x"), "line 7", "holds a character that no text has, U+0000"),
    "an escape character": (message(more="OBX|\x1b[2J"), "OBX", "holds a character that no text has, U+001B"),
    "no segment": (message(more="and so on"), "line 7", "does not start with the name of a segment"),
    "a segment of another separator": (message(more="ZZZ^1"), "line 7", "does not start with the name of a segment"),
    "empty": ("", "MSH", NO_START),
    "blank": ("\r\r", "MSH", NO_START),
    "not HL7": ("<ClinicalDocument/>\n", "MSH", NO_START),
    "no header": (message().partition("\r")[2], "MSH", NO_START),
    "other separators": (message().replace("|", "#").replace("^", "!"), "MSH", NO_START),
    "one separator for all": (message().replace("^~\\&", "||||"), "MSH", NO_START),
    "an application with a long name": (message().replace("|ADM|", f"|{'A' * 200}|"), "MSH-3", f"has 200 characters, more than {LONGEST_IDENTIFIER}"),
    "an identifier of its own that is long": (message(control="M" * 3000), "MSH-10", f"has 3,000 characters, more than {LONGEST_IDENTIFIER}"),
    "too long": ("MSH|^~\\&|" + "x" * MAX_BYTES, "MSH", "the message has 1,000,009 bytes, more than 1,000,000"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "where", "reason"), DEAD.values(), ids=DEAD)
def test_a_malformed_message_is_a_dead_letter_and_writes_nothing(text: str | bytes, where: str, reason: str):
    letter = take(text, desk := admissions())
    assert isinstance(letter, DeadLetter), letter
    assert letter.place == where, letter
    assert letter.reason == reason or not reason, letter
    assert kept(desk) == []
    assert letter.data == (b"" if where == "MSH" and "bytes" in reason else text if isinstance(text, bytes) else text.encode())
    assert str(letter).startswith(f"a message: {where}: {letter.reason}")


@pytest.mark.parametrize("sign", ["|", "^", "~", "&", "^~&", "|~", "\\", "\r", "\n", "\rZFA|", "\rOBX|1", "\rPID|", " "], ids=repr)
@pytest.mark.parametrize("segment", ["ZFA", "PID", "OBX"])
def test_a_million_separators_are_answered_at_once(segment: str, sign: str):
    text = message(more=f"{segment}|" + sign * (900_000 // len(sign)) + "\r")
    start = time.process_time()
    done = take(text)
    assert time.process_time() - start < 2
    assert isinstance(done, DeadLetter) or segment == "OBX" or sign in "\r\n "


def test_what_the_policy_refuses_is_a_dead_letter_and_nothing_of_the_message_is_written():
    withdrawn = {"kind": "exclusion", "target": TEAM}
    desk = admissions({"kind": "opened"}, withdrawn)
    letter = take(message(zfa(f9="IO", f11="IC")), desk)
    assert isinstance(letter, DeadLetter)
    words = PDP.pack.reasons["A15-revoked_team"].words["en"]
    assert (letter.place, letter.reason) == ("ZFA-11", f"`consent_care_team` is refused by A15-revoked_team: {words}")
    assert kept(desk) == [("exclusion", TEAM, False)]
    for state in ("ACTIF", "FERME"):  # as the sender saw it: the policy looks at the record
        closed = take(message(zfa(f1=state, f11="IC")), desk := admissions({"kind": "opened"}, {"kind": "closed"}))
        assert isinstance(closed, DeadLetter) and closed.place == "ZFA-11" and "refused by R01" in closed.reason
        assert kept(desk) == [("closed", None, False)]


def test_a_message_that_was_refused_can_be_taken_later():
    desk = admissions({"kind": "closed"})
    assert isinstance(take(message(), desk), DeadLetter)
    desk.store.append(PATIENT, [{"kind": "opened"}, {"kind": "closed", "withdraw": True}], NOW)
    done = take(message(), desk)
    assert isinstance(done, Taken) and done.outcome == "written"


# --- encodings and frames --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        message().encode(),
        message().replace("\r", "\n").encode(),
        message().replace("\r", "\r\n").encode(),
        message().encode("utf-8-sig"),
        b"\x0b" + message().encode() + b"\x1c\r",
        message(charset="8859/1").encode("latin-1"),
        message(charset="8859/15").encode("iso8859-15"),
        message(charset="").replace("É", "E").encode(),
        (message() + "\r\r").encode(),
    ],
    ids=["CR", "LF", "CRLF", "byte-order mark", "MLLP", "8859/1", "8859/15", "ASCII", "blank lines"],
)
def test_a_message_is_read_in_the_encoding_and_with_the_line_ends_it_has(data: bytes):
    done = take(data)
    assert isinstance(done, Taken) and done.outcome == "written", done


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20261120", "2026-11-20T00:00:00+01:00"),
        ("2026112009", "2026-11-20T09:00:00+01:00"),
        ("202607140930", "2026-07-14T09:30:00+02:00"),
        ("20261120093015.25", "2026-11-20T09:30:15+01:00"),
        ("20261120093015+0000", "2026-11-20T09:30:15+00:00"),
        ("20261119233015-0330", "2026-11-20T03:00:15+00:00"),
    ],
)
def test_a_date_without_an_offset_is_local(text: str, expected: str):
    (said,) = read_message(message(zfa(f9="IO", f10=text)).encode(), PDP.pack).said
    assert said.collected == parse_instant(expected)


# --- replays and order -----------------------------------------------------------------------------------------------


def test_the_same_message_again_writes_nothing_more_and_says_so():
    desk = admissions()
    first, again, crlf = (take(text, desk) for text in (message(), message(), message().replace("\r", "\r\n")))
    assert isinstance(first, Taken) and isinstance(again, Taken) and isinstance(crlf, Taken)
    assert [one.outcome for one in (first, again, crlf)] == ["written", "replayed", "replayed"]
    assert kept(desk) == [("care_team_consent", TEAM, False)]


def test_a_replay_does_not_undo_what_the_holder_did_since():
    desk = admissions()
    take(message(), desk)
    desk.store.append(PATIENT, [{"kind": "exclusion", "target": TEAM}], NOW)
    done = take(message(), desk)
    assert isinstance(done, Taken) and done.outcome == "replayed"
    assert kept(desk)[-1] == ("exclusion", TEAM, False)


def test_an_identifier_that_another_message_had_is_a_dead_letter():
    desk = admissions()
    take(message(), desk)
    letter = take(message(zfa(f9="IO")), desk)
    assert isinstance(letter, DeadLetter)
    assert (letter.place, letter.reason) == ("MSH-10", "was the identifier of another message of this sender")


def test_the_same_identifier_of_two_senders_is_two_messages():
    desk = admissions()
    outcomes = [take(text, desk) for text in (message(), message(facility=f"X^{CLINIC}"), message().replace("|ADM|", "|ADM2|"))]
    assert [one.outcome for one in outcomes if isinstance(one, Taken)] == ["written"] * 3


def test_a_message_that_comes_late_does_not_undo_a_later_one():
    desk = admissions()
    for control, code, date in (("M-1", "IC", "20261110"), ("M-3", "INC", "20261112"), ("M-4", "IC", "20261112")):
        assert isinstance(take(message(zfa(f11=code, f12=date), control=control), desk), Taken)
    letter = take(message(zfa(f11="IC", f12="20261111"), control="M-2"), desk)
    assert isinstance(letter, DeadLetter)
    assert (letter.place, letter.reason) == ("ZFA-12", "is older than what this structure has already said")
    assert isinstance(take(message(zfa(f9="IO", f10="20261101"), control="M-5"), desk), Taken), "another field has an order of its own"


def test_what_goes_wrong_with_the_store_is_raised_and_the_message_can_be_taken_again():
    desk = admissions()
    store: Any = desk.store
    works = store.append

    def breaks(*_: Any, **__: Any) -> None:
        raise Conflict

    store.append = breaks
    with pytest.raises(Conflict):
        take(message(), desk)
    store.append = works
    done = take(message(), desk)
    assert isinstance(done, Taken) and done.outcome == "written"


def test_many_messages_leave_the_good_ones_taken_and_the_others_in_the_dead_letters():
    desk = admissions()
    texts = {"one": message(), "two": message(None, control="M-2"), "three": message(zfa(f9="IO"), control="M-3"), "four": "?"}
    taken, dead = desk.take_all(((name, text.encode()) for name, text in texts.items()), NOW)
    assert [(one.name, one.outcome) for one in taken] == [("one", "written"), ("three", "written")]
    assert [(one.name, one.place) for one in dead] == [("two", "ZFA"), ("four", "MSH")]


# --- whatever comes --------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(["|", "^", "~", "&", "\\", "\r", "\n", "\0", "ZFA", "PID", "MSH", "IO", "IC", '""', INS, HOSPITAL, "É", "\x0b", "\x1c", "2026", " "])


NUMBERS = itertools.count(1)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 12), PIECES), min_size=1, max_size=6))
def test_a_damaged_message_is_taken_or_a_dead_letter(cuts: list[tuple[int, int, str]]):
    text = message(zfa(f1="ACTIF", f6="Y", f9="IO", f11="IC", f12="20261120"), control=f"M-{next(NUMBERS)}")
    for place, length, piece in cuts:
        text = text[:place] + piece + text[place + length :]
    desk = of_store(PDP, STORES.opened[0] if STORES.opened else STORES.new({"kind": "opened"}))
    before = desk.store.read(PATIENT, NOW)[1]
    done = take(text, desk)
    assert isinstance(done, Taken) or (done.place and done.reason and desk.store.read(PATIENT, NOW)[1] == before)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_taken_or_a_dead_letter(data: bytes, begins_well: bool):
    desk = of_store(PDP, STORES.opened[0] if STORES.opened else STORES.new({"kind": "opened"}))
    done = take(message()[:150].encode() + data if begins_well else data, desk)
    assert isinstance(done, DeadLetter)
    assert desk.imports.letter(done.id) == done


# --- files of messages -----------------------------------------------------------------------------------------------

ONE, TWO = message(control="M-1"), message(control="M-2")


def framed(*texts: str) -> str:
    return "".join(f"\x0b{text}\x1c\r" for text in texts)


def batch(*texts: str, count: str | None = None, end: str = "\r") -> str:
    return end.join(["BHS|^~\\&|ADM", "".join(texts).replace("\r", end) + f"BTS|{len(texts) if count is None else count}", ""])


FILES_OF = {
    "one message": (ONE, 1),
    "blank lines before it": ("\r\n\r\n" + ONE, 1),
    "a byte-order mark": ("\ufeff" + ONE, 1),
    "one after the other": (ONE + TWO, 2),
    "with a byte-order mark": ("\ufeff" + ONE + TWO, 2),
    "in lines of another system": ((ONE + TWO).replace("\r", "\r\n"), 2),
    "blank lines between": (ONE + "\r\r" + TWO, 2),
    "frames": (framed(ONE, TWO), 2),
    "one frame": (framed(ONE), 1),
    "a batch": (batch(ONE, TWO), 2),
    "a batch that does not count": (batch(ONE, TWO, count=""), 2),
    "a batch in lines of another system": (batch(ONE, TWO, end="\r\n"), 2),
    "a file of batches": ("FHS|^~\\&\r" + batch(ONE) + batch(TWO) + "FTS|2\r", 2),
    "a file of messages": ("FHS|^~\\&\r" + ONE + TWO + "FTS\r", 2),
}


@pytest.mark.parametrize(("text", "number"), FILES_OF.values(), ids=FILES_OF)
def test_the_messages_of_a_file_are_taken_each_under_a_name_of_its_own(text: str, number: int):
    desk = admissions()
    done = list(desk.take_file(text.encode(), NOW, "file"))
    assert [one.name for one in done] == (["file"] if number == 1 else ["file#1", "file#2"])
    assert [one.outcome for one in done if isinstance(one, Taken)] == ["written"] * number
    assert desk.imports.letters() == []


NOT_WHOLE = {
    "a batch without end": (batch(ONE, TWO).partition("BTS")[0], "BHS", "has no end"),
    "a file without end": ("FHS|^~\\&\r" + batch(ONE), "FHS", "has no end"),
    "a batch that lost a message": (batch(ONE, count="2"), "BTS-1", "says `2`, and it holds 1"),
    "a batch that counts otherwise": (batch(ONE, count="one"), "BTS-1", "says `one`, and it holds 1"),
    "a file that lost a batch": ("FHS|^~\\&\r" + batch(ONE) + "FTS|2\r", "FTS-1", "says `2`, and it holds 1"),
    "an end without a beginning": (ONE + "BTS|1\r", "BTS", "ends what no BHS began"),
    "something between": ("BHS|^~\\&\rPID|1\r" + ONE + "BTS|1\r", "BHS", "is followed by what belongs to no message"),
    "too many messages": ("MSH|\r" * (MAX_MESSAGES + 1), "MSH", "the file holds more than 10,000 messages"),
    "too many frames": ("\x0b" * (MAX_MESSAGES + 1), "MSH", "the file holds more than 10,000 messages"),
    "too long": (ONE + "x" * MAX_FILE, "MSH", "the file has more than 10,000,000 bytes"),
}


@pytest.mark.parametrize(("text", "where", "reason"), NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_a_file_that_is_not_whole_is_one_dead_letter_and_nothing_of_it_is_written(text: str, where: str, reason: str):
    desk = admissions()
    (letter,) = desk.take_file(text.encode(), NOW, "file")
    assert isinstance(letter, DeadLetter) and (letter.name, letter.place, letter.reason) == ("file", where, reason)
    assert kept(desk) == [] and len(letter.data) == (len(text.encode()) if len(text) <= MAX_BYTES else 0)


def test_a_frame_that_is_cut_costs_itself_alone():
    taken, letter, last = admissions().take_file((framed(ONE) + "\x0b" + TWO + framed(message(control="M-3"))).encode(), NOW, "file")
    assert isinstance(taken, Taken) and isinstance(last, Taken) and isinstance(letter, DeadLetter)
    assert (letter.name, letter.reason) == ("file#2", "is not in one MLLP frame")


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["\x0b", "\x1c", "\r", "\n", "MSH|", "BHS|", "BTS|", "FHS|", "FTS|", "1", "x", "|", "\ufeff"]), max_size=12))
def test_any_file_splits_into_what_it_holds_or_says_why_not(pieces: list[str]):
    data = "".join(pieces).encode()
    try:
        several = split(data)
    except RequestError as error:
        assert error.where and error.message
    else:
        assert all(one in data or one[1:] in data for one in several) and sum(map(len, several)) <= len(data) + 1


# --- what an officer writes ------------------------------------------------------------------------------------------

FILES = read_folder(ROOT / "policies")


def pack_with(old: str, new: str) -> Any:
    text = FILES["pack.toml"].decode()
    assert text.count(old) == 1, old
    return parse_pack({**FILES, "pack.toml": text.replace(old, new).encode()})


def test_another_code_is_a_line_of_the_pack():
    pack = pack_with('INC = "withdraw_care_team_consent", NA = "" }', 'INC = "withdraw_care_team_consent", IO = "withdraw_care_team_consent", NA = "" }')
    (said,) = read_message(message(zfa(f11="IO")).encode(), pack).said
    assert said.action == "withdraw_care_team_consent"


def test_a_pack_without_the_table_takes_no_message():
    head = FILES["pack.toml"].decode().partition("[admission]")[0]
    pack = parse_pack({**FILES, "pack.toml": head.encode()})
    with pytest.raises(RequestError) as caught:
        read_message(message().encode(), pack)
    assert str(caught.value) == "pack: does not say what admission messages mean (write `[admission]` in pack.toml)"


PLACES = "write a segment like ZFA, a field like PID-3, a component like PID-3.4"
MISTAKES = {
    "an action": (
        'codes = { IO = "oppose_feeding"', 'codes = { IO = "oppose_feding"',
        "action-unknown", "unknown action `oppose_feding`", "did you mean `oppose_feeding`?",
    ),
    "an action's table": (
        "[admission.action.consent_care_team]", "[admission.action.consent_team]",
        "action-unknown", "unknown action `consent_team`", "did you mean `consent_care_team`?",
    ),
    "a place": ("[admission.field.ZFA-9]", "[admission.field.ZFA9]", "path-unknown", "`ZFA9` is not a place in a message", PLACES),
    "a date": ('date = "ZFA-12"', 'date = "ZFA12"', "path-unknown", "`ZFA12` is not a place in a message", PLACES),
    "a segment": ('segments = ["PID", "ZFA"]', 'segments = ["PID", "ZFA-1"]', "path-unknown", "`ZFA-1` is not a place in a message", PLACES),
    "the patient's place": ('at = "PID-3"', 'at = "PID-3.1"', "path-unknown", "`PID-3.1` is not a place in a message", PLACES),
    "the sender's place": ('at = "MSH-4"', 'at = "msh-4"', "path-unknown", "`msh-4` is not a place in a message", PLACES),
    "an authority": ('"PV1-19.4"', '"PV1-19.4.2"', "path-unknown", "`PV1-19.4.2` is not a place in a message", PLACES),
    "a format": (
        'identifier = "patient"', 'identifier = "pateint"', "value-unknown", "there is no format of identifier `pateint`", "did you mean `patient`?",
    ),
    "who asks": (
        'subject = { type = "organisation", id', 'subject = { type = "organization", id',
        "subject-unknown", "unknown subject type `organization`", "did you mean `organisation`?",
    ),
    "who asks, without identifier": (
        'subject = { type = "organisation", id = "@structure",', 'subject = { type = "organisation",',
        "key-missing", "the key `id` is missing", "say who asks; the sender's identifier is `@structure`",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code", "sentence", "help"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_of_an_officer_is_told_with_its_place(old: str, new: str, code: str, sentence: str, help: str):
    with pytest.raises(PackError) as caught:
        pack_with(old, new)
    one = caught.value.diagnostics[0]
    assert {(each.code, each.message, each.help) for each in caught.value.diagnostics} == {(code, sentence, help)}
    assert one.file == "pack.toml" and one.line > 100
