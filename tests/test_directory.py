"""The directory: one person under all his identifiers, claims compared with what is known, and the mistakes of whoever wrote the sheet."""

from __future__ import annotations

import time
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from engine.calendar import parse_instant
from engine.consent.directives import Directive, parse_directive
from engine.consent.directory import Directory, Person, parse_directory
from engine.errors import Diagnostic, PackError, RequestError
from engine.pack import parse_pack
from engine.pdp import load_pdp
from engine.request import Action, Entity, Request

PDP = load_pdp(Path(__file__).parent.parent / "policies")
PACK = PDP.pack
NOW = parse_instant("2026-11-21T10:00:00+01:00") or 0.0
PATIENT = "279035121518989"
HOSPITAL, CLINIC, DESK = "750000028", "750000036", "750000051"

SHEET = f"""\
identifier,others,profession,specialty,organisations,name
10000000017,810000000017 751234567,G15_10,SM54,{HOSPITAL} {CLINIC},Dr Martin
10000000025,,G15_60,,,Infirmier sans lieu
10000000033,local-7,,,{CLINIC},profession inconnue
"""


def read(text: str | bytes, name: str = "professional") -> tuple[Directory, list[Diagnostic]]:
    found: list[Diagnostic] = []
    data = text if isinstance(text, bytes) else text.encode()
    return parse_directory("people.csv", data, PACK, found, name), found


DIRECTORY, FOUND = read(SHEET)
MAIN, CARD, ADELI = "10000000017", "810000000017", "751234567"


def request(subject: Entity | None = None, action: str = "read", report: dict[str, Any] | None = None, **properties: Any) -> Request:
    subject = subject or Entity("professional", MAIN, {})
    resource = Entity("document", "DOC-1", {"patient": PATIENT, **report}) if report is not None else Entity("record", PATIENT)
    return Request(subject, Action(action, properties), resource, {"purpose": "care"})


# --- identities ------------------------------------------------------------------------------------------------------


def test_every_identifier_of_a_person_leads_to_the_main_one():
    assert FOUND == []
    assert [DIRECTORY.main(one) for one in (MAIN, CARD, ADELI, "local-7", "somebody")] == [MAIN, MAIN, MAIN, "10000000033", "somebody"]
    assert DIRECTORY.find(ADELI) == Person(MAIN, (CARD, ADELI), "G15_10", "SM54", (HOSPITAL, CLINIC))
    assert DIRECTORY.find("somebody") is None


def test_a_request_is_normalised_wherever_a_professional_stands():
    report, target = {"author": [CARD, PATIENT, ADELI], "structure": HOSPITAL}, {"type": "professional", "id": CARD}
    made = DIRECTORY.normalise(request(Entity("professional", ADELI), "replace", report, document={"author": CARD}, target=target))
    settled = {"author": [MAIN, PATIENT], "structure": HOSPITAL}
    assert made == request(Entity("professional", MAIN), "replace", settled, document={"author": MAIN}, target={**target, "id": MAIN})


@pytest.mark.parametrize(
    "one",
    [
        request(Entity("patient", ADELI)),
        request(Entity("professional", "somebody"), report={"author": None}),
        request(report={"author": {"name": ADELI}}, target=CARD),
        request(action="grant_access", target={"type": "structure", "id": ADELI}),
        request(action="block", target={"type": "professional"}, report={"author": 7}),
    ],
    ids=str,
)
def test_what_is_no_identifier_of_a_professional_is_left_alone(one: Request):
    assert DIRECTORY.normalise(one) == one


def test_a_directive_is_normalised_parsed_or_as_json():
    data = {"kind": "block", "target": {"professional": [ADELI, CARD, "10000000025"]}, "recorded_by": CARD, "capacity": "professional", "basis": ADELI}
    made = DIRECTORY.normalise(data)
    assert made == {**data, "target": {"professional": [MAIN, "10000000025"]}, "recorded_by": MAIN}
    parsed: Directive = DIRECTORY.normalise(parse_directive(data, PACK.vocabulary))
    assert parsed.targets == (("professional", MAIN), ("professional", "10000000025"))
    assert parsed.source["recorded_by"] == MAIN


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "opened"},
        {"kind": "authorisation", "target": {"structure": ADELI}, "recorded_by": ADELI, "capacity": "patient"},
        {"kind": "mask", "target": {"deposited": {"from": "2026-01-01"}}},
        {"kind": "mask", "target": {"document": ADELI}},
    ],
    ids=str,
)
def test_a_directive_about_nobody_known_is_left_alone(data: dict[str, Any]):
    assert DIRECTORY.normalise(data) == data
    parsed = parse_directive(data, PACK.vocabulary)
    assert DIRECTORY.normalise(parsed) == parsed


SPELLINGS = (MAIN, CARD, ADELI)


@pytest.mark.parametrize("blocked", SPELLINGS)
@pytest.mark.parametrize("asking", SPELLINGS)
def test_a_block_holds_under_every_spelling_of_one_person(blocked: str, asking: str):
    known = [{"kind": "opened"}, {"kind": "authorisation", "target": {"professional": MAIN}}, {"kind": "block", "target": {"professional": blocked}}]
    record = PDP.fold([DIRECTORY.normalise(one) for one in known], NOW)
    subject = Entity("professional", asking, {"authentication": "DIRECTE"})
    document = {"type": "11488-4", "status": "Approved", "confidentiality": ["N"], "author": asking}
    assert PDP.decide(DIRECTORY.settle(request(subject, report=document)), record).rule == "R05"
    deposit = {**document, "structure": HOSPITAL}
    hospital = Entity("organisation", HOSPITAL, {"kind": "health", "structure": HOSPITAL})
    assert PDP.decide(DIRECTORY.settle(request(hospital, "deposit", deposit)), record).rule == "W03"
    holder = Entity("patient", PATIENT)
    declares = request(holder, "declare_treating_physician", target={"type": "professional", "id": asking})
    assert PDP.decide(DIRECTORY.settle(declares), record).rule == "A02-declare"


# --- claims ----------------------------------------------------------------------------------------------------------


def vouched(**claims: Any) -> dict[str, Any]:
    return dict(DIRECTORY.settle(request(Entity("professional", CARD, claims))).subject.properties)


def test_what_the_caller_leaves_out_is_filled_in():
    assert vouched() == {"profession": "G15_10", "specialty": "SM54"}
    assert vouched(profession=" ", structure=HOSPITAL) == {"profession": "G15_10", "specialty": "SM54", "structure": HOSPITAL}
    made = DIRECTORY.settle(request(Entity("patient", PATIENT), "declare_treating_physician", target={"type": "professional", "id": CARD}))
    assert made.action.properties["target"] == {"type": "professional", "id": MAIN, "profession": "G15_10", "specialty": "SM54"}


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"profession": "G15_60"}, "subject.profession: is not the profession that the directory gives (leave it out, or have the directory corrected)"),
        ({"profession": ["G15_10"]}, "subject.profession: is not the profession that the directory gives (leave it out, or have the directory corrected)"),
        ({"specialty": "SM01"}, "subject.specialty: is not the specialty that the directory gives (leave it out, or have the directory corrected)"),
        ({"structure": DESK}, "subject.structure: is not one where the directory has this person work (name one of his, or have the directory corrected)"),
    ],
    ids=["profession", "a list", "specialty", "structure"],
)
def test_a_claim_that_contradicts_the_directory_is_an_error(claims: dict[str, Any], expected: str):
    with pytest.raises(RequestError) as caught:
        vouched(**claims)
    assert str(caught.value) == expected


def test_a_claim_about_the_target_is_compared_too():
    with pytest.raises(RequestError) as caught:
        target = {"type": "professional", "id": "10000000025", "profession": "G15_10"}
        DIRECTORY.settle(request(Entity("patient", PATIENT), "declare_treating_physician", target=target))
    assert caught.value.where == "action.target.profession"


def test_what_the_directory_does_not_know_is_the_caller_s_word():
    for subject in (
        Entity("professional", "10000000041", {"profession": "G15_10", "structure": "750000051"}),
        Entity("professional", "10000000033", {"profession": "G15_10", "structure": CLINIC}),
        Entity("patient", PATIENT, {"profession": "G15_10"}),
    ):
        assert DIRECTORY.settle(request(subject)).subject == subject
    nurse = Entity("professional", "10000000025", {"structure": "750000051"})
    assert DIRECTORY.settle(request(nurse)).subject.properties == {"structure": "750000051", "profession": "G15_60"}


# --- the sheet -------------------------------------------------------------------------------------------------------


def test_a_sheet_that_a_spreadsheet_saved_reads_the_same():
    excel = "\r\n".join(line.replace(",", ";") for line in SHEET.splitlines()).encode("utf-8-sig")
    assert read(excel) == (DIRECTORY, [])


MISTAKES = {
    "10000000018,,G15_10,": (
        "directory-identifier", "`10000000018` is not an identifier of a professional: its check digits do not fit the others", "the RPPS: 11 digits",
    ),
    ",,G15_10,": ("directory-identifier", "`` is not written like an identifier of a professional", "the RPPS: 11 digits"),
    "10000000041,,G15_1O,": ("directory-profession", "unknown profession `G15_1O`", "did you mean `G15_10`?"),
    "10000000041,,G15_10,750000018": (
        "directory-organisation", "`750000018` is not an identifier of a structure: its check digits do not fit the others", "the FINESS: 9 characters",
    ),
    "10000000017,,G15_10,": ("directory-repeated", "`10000000017` already stands on line 2", "an identifier has one bearer, and a person one row"),
    "10000000041,751234567,G15_10,": ("directory-repeated", "`751234567` already stands on line 2", "an identifier has one bearer, and a person one row"),
}  # fmt: skip


def test_mistakes_are_collected_with_their_lines_and_their_rows_left_out():
    rows = ["identifier,others,profession,organisations", "10000000017,751234567,G15_10,", *MISTAKES, "10000000025,,G15_60,"]
    directory, found = read("\n".join(rows))
    assert list(directory.people) == ["10000000017", "10000000025"]
    assert [(one.line, one.code, one.message, one.help) for one in found] == [(line, *mistake) for line, mistake in enumerate(MISTAKES.values(), 3)]
    assert {one.file for one in found} == {"people.csv"}


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (b"identifier,name\n10000000017,Martin\n", "professional", "column-missing"),
        (b"", "professional", "sheet-empty"),
        (b"\xff\xfe", "professional", "file-encoding"),
        (SHEET.encode(), "profesional", "directory-format"),
    ],
    ids=["a column missing", "empty", "not UTF-8", "no such format"],
)
def test_a_sheet_that_is_none_gives_nobody(data: bytes, name: str, code: str):
    directory, found = read(data, name)
    assert [one.code for one in found] == [code] and not directory.people
    assert directory.settle(request()) == request()


def test_the_pack_says_of_whom_a_directory_speaks():
    found: list[Diagnostic] = []
    assert parse_directory("people.csv", SHEET.encode(), PACK, found) == DIRECTORY and found == []
    silent = replace(PACK, directory=None)
    assert not parse_directory("people.csv", SHEET.encode(), silent, found).people
    assert [one.message for one in found] == ["the pack does not say of whom a directory speaks"]


def test_a_directory_of_identifiers_without_a_format_is_a_mistake_of_the_pack():
    text = PACK.files["pack.toml"].replace(b'[directory]\nidentifier = "professional"', b'[directory]\nidentifier = "profesional"')
    with pytest.raises(PackError) as caught:
        parse_pack({**PACK.files, "pack.toml": text})
    (told,) = caught.value.diagnostics
    assert (told.code, told.message, told.help) == ("value-unknown", "there is no format of identifier `profesional`", "did you mean `professional`?")
    assert told.text == 'identifier = "profesional"'


def test_a_directory_does_not_change():
    with pytest.raises(TypeError):
        DIRECTORY.people["10000000041"] = Person("10000000041")  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        DIRECTORY.mains = {}  # type: ignore[misc]
    assert hash(DIRECTORY.find(MAIN)) == hash(DIRECTORY.find(CARD))


def test_a_country_s_directory_loads_in_seconds():
    digit = {n: str(n) for n in range(10)}

    def rpps(number: int) -> str:
        body = f"{number:010}"
        total = sum(int(one) for one in body[-2::-2]) + sum(divmod(2 * int(one), 10)[0] + 2 * int(one) % 10 for one in body[-1::-2])
        return body + digit[-total % 10]

    rows = [f"{rpps(1_000_000_000 + n)};{n:09} 8{n};G15_10;SM54;{HOSPITAL} {CLINIC}" for n in range(150_000)]
    data = "\n".join(["identifier;others;profession;specialty;organisations", *rows]).encode()
    start = time.process_time()
    directory, found = read(data)
    assert time.process_time() - start < 15  # it takes 2
    assert (len(directory.people), len(directory.mains), found) == (150_000, 450_000, [])
    assert directory.main("000149999") == rpps(1_000_149_999)
