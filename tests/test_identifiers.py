"""Identifiers: the spellings that the French pack accepts, where they are checked, and what an officer may write about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.consent.directives import parse_directive
from engine.consent.identifiers import CHECKS, Identifiers, check_identifier, check_identifiers, luhn, mod97
from engine.errors import PackError, RequestError
from engine.pack import load_pack, parse_pack, read_folder
from engine.request import Action, Entity, Request
from engine.specs import IdentifierSpec

FOLDER = Path(__file__).parent.parent / "policies"
FILES = read_folder(FOLDER)
PACK = load_pack(FOLDER)

INS = "279035121518989"
CORSICAN, OTHER_CORSICAN = "190052A00412305", "190052B00412332"
RPPS = "10000000017"
FINESS = "750000028"


def nir_key(body: str) -> int:
    """The key as the NIR's own rule has it: a letter counts as 0, and a million is taken off for 2A, two for 2B."""
    number = int(body.replace("A", "0").replace("B", "0")) - 1_000_000 * body.count("A") - 2_000_000 * body.count("B")
    return 97 - number % 97


# --- how they are written --------------------------------------------------------------------------------------------


def test_the_checks_of_known_numbers():
    assert luhn("79927398713") and not luhn("79927398710")
    assert mod97("279035121518989") and not mod97("279035121518988") and not mod97("97")
    assert CHECKS.keys() == set(IdentifierSpec.model_fields["check"].annotation.__args__[0].__args__)


@pytest.mark.parametrize("value", [INS, "185077505601435", "114067505601208", CORSICAN, OTHER_CORSICAN, "755121234567854"], ids=str)
def test_a_patient_is_named_by_his_ins(value: str):
    assert nir_key(value[:13]) == int(value[13:])
    assert check_identifier(PACK, "patient", value, "here") == value


def test_professionals_and_structures_have_a_luhn_digit():
    known = {"professional": (RPPS, "10000023084"), "structure": (FINESS, "750712184", "970100228", "2A0000014", "2B0000020")}
    for name, value in [(name, value) for name, values in known.items() for value in values]:
        assert check_identifier(PACK, name, value, "here") == value


NOT_WRITTEN_SO = {
    "patient": (
        "2 79 03 51 215 189 89", "2790351215189", "27903512151898", "2790351215189890", "190052a00412305", "190052C00412305", f"{INS}\n", f" {INS}", "",
        "٢٧٩٠٣٥١٢١٥١٨٩٨٩", "579035121518989", "0" * 300, "urn:oid:1.2.250.1.213.1.4.8|279035121518989",
    ),
    "professional": ("1000000001", "100000000170", "810000000017", "1000000001A", "RPPS10000000017", "１0000000017"),
    "structure": ("75000002", "7500000280", "2C0000014", "2a0000014", "75 000 0028"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NOT_WRITTEN_SO.items() for value in values], ids=repr)
def test_no_other_spelling_is_accepted(name: str, value: str):
    with pytest.raises(RequestError) as caught:
        check_identifier(PACK, name, value, "here")
    assert (caught.value.where, caught.value.message) == ("here", f"is not written like an identifier of a {name}")
    assert caught.value.help == PACK.identifiers.formats[name].about


@pytest.mark.parametrize(("name", "value"), [("patient", INS), ("patient", CORSICAN), ("professional", RPPS), ("structure", "2A0000014")])
def test_one_wrong_digit_is_noticed(name: str, value: str):
    for place, sign in enumerate(value):
        for other in "0123456789":
            if sign.isdigit() and other != sign:
                with pytest.raises(RequestError):
                    check_identifier(PACK, name, value[:place] + other + value[place + 1 :], "here")


@given(st.from_regex(r"[1-478][0-9]{4}([0-9]{2}|2[AB])[0-9]{6}", fullmatch=True))
def test_every_ins_has_one_key(body: str):
    accepted = [key for key in range(100) if not PACK.identifiers.formats["patient"].mistake(f"{body}{key:02}")]
    assert accepted == [nir_key(body)]


@given(st.text() | st.integers() | st.none() | st.lists(st.text()))
def test_whatever_comes_in_is_answered(value: Any):
    for one in PACK.identifiers.formats.values():
        assert isinstance(one.mistake(value), str)


def test_a_mistake_does_not_repeat_the_identifier():
    with pytest.raises(RequestError) as caught:
        check_identifier(PACK, "patient", "279035121518988", "here")
    text = "here: is not an identifier of a patient: its check digits do not fit the others"
    assert str(caught.value) == f"{text} (the INS: the 13 characters of the NIR or the NIA and its key of 2, without spaces)"


# --- where they stand ------------------------------------------------------------------------------------------------

DOCTOR = Entity("professional", RPPS, {"structure": FINESS})
REPORT = Entity("document", "DOC-1", {"patient": INS, "author": RPPS, "structure": FINESS})


def request(subject: Entity = DOCTOR, action: str = "read", resource: Entity = REPORT, **properties: Any) -> Request:
    return Request(subject, Action(action, properties), resource)


def of_report(**more: Any) -> Entity:
    return replace(REPORT, properties={**REPORT.properties, **more})


WRONG = "10000000018"
REQUESTS = {
    "subject.id": [
        request(Entity("professional", WRONG)), request(Entity("patient", RPPS)),
        request(Entity("representative", WRONG)), request(Entity("organisation", "750000018")),
    ],
    "subject.structure": [request(replace(DOCTOR, properties={"structure": "750000018"}))],
    "resource.patient": [request(resource=of_report(patient=WRONG)), request(resource=of_report(patient=[INS, WRONG])), request(resource=of_report(patient=7))],
    "resource.id": [request(action="block", resource=Entity("record", WRONG), target={"type": "professional", "id": RPPS})],
    "resource.author": [request(resource=of_report(author=WRONG)), request(resource=of_report(author=[RPPS, INS, FINESS, WRONG]))],
    "resource.structure": [request(resource=of_report(structure=RPPS))],
    "action.document.author": [request(action="replace", document={"author": WRONG})],
    "action.document.structure": [request(action="replace", document={"structure": ""})],
    "action.target.id": [
        request(action="block", resource=Entity("record", INS), target={"type": "professional", "id": WRONG}),
        request(action="grant_access", resource=Entity("record", INS), target={"type": "structure", "id": RPPS}),
        request(action="consent_care_team", resource=Entity("record", INS), target={"type": "team", "id": RPPS}),
        request(action="declare_representation", resource=Entity("record", INS), target={"type": "representative", "id": RPPS}),
        request(action="block", resource=Entity("record", INS), target={"type": "professional", "id": [RPPS]}),
    ],
    "action.structure": [
        request(action=name, resource=Entity("record", INS), target={"type": "deposited", "from": "2026-01-01"}, structure=one)
        for name in ("mask_documents", "unmask_documents") for one in (RPPS, "", "750000018", 7, [FINESS, RPPS])
    ],
    "action.target.team": [request(action="join_care_team", resource=Entity("record", INS), target={"type": "professional", "id": RPPS, "team": RPPS})],
}  # fmt: skip


@pytest.mark.parametrize(("where", "one"), [(where, one) for where, several in REQUESTS.items() for one in several], ids=str)
def test_a_request_is_checked_wherever_an_identifier_stands(where: str, one: Request):
    with pytest.raises(RequestError) as caught:
        check_identifiers(PACK, one)
    assert caught.value.where == where
    with pytest.raises(RequestError) as caught:
        check_identifiers(PACK, one, "evaluations[3]")
    assert caught.value.where == f"evaluations[3].{where}"


@pytest.mark.parametrize(
    "one",
    [
        request(),
        request(resource=of_report(author=[RPPS, INS, FINESS])),
        request(resource=Entity("document", "DOC-1")),
        request(Entity("robot", "R2"), "dance"),
        request(action="block", resource=Entity("record", INS), target={"type": "professional", "id": RPPS}),
        request(action="block", resource=Entity("record", INS), target=["nobody"]),
        request(action="mask", resource=of_report(id="anything")),
        request(action="mask_documents", resource=Entity("record", INS), target={"type": "deposited", "from": "2026-01-01"}, structure=FINESS),
        request(action="block", resource=Entity("record", INS), target={"type": "professional", "id": RPPS}, structure="no act of these has one"),
    ],
    ids=str,
)
def test_an_author_is_a_professional_a_patient_or_a_structure_and_what_is_absent_is_not_missed(one: Request):
    check_identifiers(PACK, one)


def test_an_author_of_no_kind_is_told_all_three():
    with pytest.raises(RequestError) as caught:
        check_identifiers(PACK, request(resource=of_report(author="DUPONT")))
    assert caught.value.message == "is an identifier of none of: patient, professional, structure"
    assert caught.value.help == "; ".join(PACK.identifiers.formats[name].about for name in ("patient", "professional", "structure"))


DIRECTIVES = {
    "target.professional": {"kind": "block", "target": {"professional": [RPPS, WRONG]}},
    "target.structure": {"kind": "authorisation", "target": {"structure": RPPS}},
    "target.team": {"kind": "care_team_consent", "target": {"team": "the cardiologists"}},
    "target.representative": {"kind": "representation", "target": {"representative": WRONG}},
    "target.author": {"kind": "mask", "target": {"author": WRONG}},
    "team": {"kind": "membership", "target": {"professional": RPPS}, "team": RPPS},
    "structure": {"kind": "mask", "target": {"deposited": {"from": "2026-01-01"}}, "structure": RPPS},
}


@pytest.mark.parametrize(("where", "data"), DIRECTIVES.items(), ids=DIRECTIVES)
def test_a_directive_is_checked(where: str, data: dict[str, Any]):
    with pytest.raises(RequestError) as caught:
        check_identifiers(PACK, parse_directive(data, PACK.vocabulary), "directives[0]")
    assert caught.value.where == f"directives[0].{where}"


def test_a_directive_of_good_identifiers_or_of_none_passes():
    for data in (
        {"kind": "opened"},
        {"kind": "mask", "target": {"author": INS}},
        {"kind": "mask", "target": {"type": "11488-4"}},
        {"kind": "mask", "target": {"deposited": {"from": "2026-01-01"}}},
        {"kind": "mask", "target": {"deposited": {"from": "2026-01-01"}}, "structure": FINESS},
        {"kind": "membership", "target": {"professional": RPPS}, "team": FINESS},
    ):
        check_identifiers(PACK, parse_directive(data, PACK.vocabulary))


# --- what an officer writes ------------------------------------------------------------------------------------------


def pack_with(text: str) -> Any:
    head = FILES["pack.toml"].decode().partition("[identifier.patient]")[0]
    return parse_pack({**FILES, "pack.toml": (head + text).encode()})


def test_a_pack_without_formats_checks_nothing():
    pack = pack_with("")
    assert pack.identifiers == Identifiers()
    check_identifiers(pack, request(Entity("professional", "anything")))


MISTAKES = {
    "a pattern that is none": (
        'pattern = "[0-9"', "error[identifier-pattern]: `[0-9` is not a pattern: unterminated character set", "write it like [0-9]{11}",
    ),
    "an unknown type of subject": (
        'pattern = "x"\nsubjects = ["profesional"]', "error[subject-unknown]: unknown subject type `profesional`", "did you mean `professional`?",
    ),
    "an unknown form of target": (
        'pattern = "x"\ntargets = ["teams"]', "error[target-unknown]: no kind of directive has a target `teams`", "did you mean `team`?",
    ),
    "a path that is none": (
        'pattern = "x"\npaths = ["resource"]', "error[path-unknown]: `resource` is not part of a request",
        "write `patient`, or a path that starts with subject, action, resource or context",
    ),
    "letters that stand for letters": (
        'pattern = "x"\nletters = { A = "B" }', "error[identifier-letters]: `B` is not digits", "say which digits stand for the letters",
    ),
    "an unknown check": ('pattern = "x"\ncheck = "mod11"', "error[value-type]: `identifier.card.check` must be one of `luhn`, `mod97`", ""),
    "no pattern": ('about = "x"', "error[key-missing]: the key `pattern` is missing", None),
    "an unknown key": ('pattern = "x"\nsubject = ["patient"]', "error[key-unknown]: `subject` is not a key here", "did you mean `subjects`?"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message", "help"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_of_an_officer_is_told_with_its_place(text: str, message: str, help: str | None):
    with pytest.raises(PackError) as caught:
        pack_with(f"[identifier.card]\n{text}\n")
    (one,) = caught.value.diagnostics
    assert one.file == "pack.toml" and one.line > 100
    assert one.render().partition(": ")[2].partition("\n")[0] == message
    assert help is None or one.help == help
