"""A FHIR DocumentReference becomes a resource with nothing invented: what it says in systems that the pack knows, and only that."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RequestError
from engine.fhir import parse_document_reference
from engine.pack import load_pack
from engine.request import Entity

PACK = load_pack(Path(__file__).parent.parent / "policies")
INS = "urn:oid:1.2.250.1.213.1.4.8"
PROFESSIONALS = "urn:oid:1.2.250.1.71.4.2.1"
STRUCTURES = "urn:oid:1.2.250.1.71.4.2.2"

DOCUMENT: dict[str, Any] = {
    "resourceType": "DocumentReference",
    "id": "local-7",
    "contained": [
        {"resourceType": "Patient", "id": "p", "identifier": [{"system": "urn:local", "value": "42"}, {"system": INS, "value": "279035121518989"}]},
        {"resourceType": "Practitioner", "id": "dr", "identifier": [{"system": PROFESSIONALS, "value": "10000000025"}]},
        {"resourceType": "Organization", "id": "org", "identifier": [{"system": STRUCTURES, "value": "750000028"}]},
        {"resourceType": "PractitionerRole", "id": "role", "practitioner": {"reference": "#dr"}, "organization": {"reference": "#org"}},
    ],
    "masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.3.4"},
    "status": "current",
    "type": {"coding": [{"system": "http://loinc.org", "code": "11488-4"}]},
    "subject": {"reference": "#p"},
    "date": "2026-11-10T09:00:00+01:00",
    "author": [{"reference": "#role"}],
    "securityLabel": [{"coding": [{"code": "N"}]}],
    "content": [{"attachment": {"contentType": "text/plain"}}],
}


def read(**changes: Any) -> Entity:
    """The document with some members changed, or left out where `None`."""
    data = copy.deepcopy(DOCUMENT) | changes
    return parse_document_reference({key: value for key, value in data.items() if value is not None}, PACK)


def test_a_whole_document():
    assert read() == Entity(
        "document",
        "urn:oid:1.2.3.4",
        {
            "type": "11488-4", "patient": "279035121518989", "author": "10000000025", "structure": "750000028",
            "confidentiality": ["N"], "status": "Approved", "deposited": "2026-11-10T09:00:00+01:00",
        },
    )  # fmt: skip


def test_nothing_is_invented_for_what_is_not_there():
    bare = read(contained=None, masterIdentifier=None, type=None, subject=None, date=None, author=None, securityLabel=None)
    assert bare == Entity("document", "local-7", {"status": "Approved"})


@pytest.mark.parametrize(("status", "means"), [("current", "Approved"), ("superseded", "Deprecated"), ("entered-in-error", "Deleted"), ("draft", None)])
def test_a_status_is_translated_and_an_unknown_one_left_out(status, means):
    assert read(status=status).properties.get("status") == means


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        ([{"coding": [{"code": "N"}]}, {"coding": [{"code": "MASQUE_PS"}]}], ["N", "MASQUE_PS"]),
        ([{"coding": [{"code": "N"}, {"code": "V"}]}], ["N", "V"]),
        ([{"coding": [{"code": "N"}]}, {"text": "for the staff only"}], ["N", "label-without-code"]),
        ([{"coding": [{"display": "normal"}]}], ["label-without-code"]),
        ([], None),
    ],
    ids=["two labels", "two codes", "one in words", "no code", "no label"],
)
def test_every_security_label_counts(labels, codes):
    assert read(securityLabel=labels).properties.get("confidentiality") == codes


@pytest.mark.parametrize(
    ("subject", "patient"),
    [
        ({"reference": f"Patient?identifier={INS}|1"}, "1"),
        ({"reference": f"https://records.example/Patient?_format=json&identifier={INS.replace(':', '%3A')}%7C1"}, "1"),
        ({"identifier": {"system": INS, "value": "1"}}, "1"),
        ({"reference": "Patient/1"}, None),
        ({"reference": "http://[not a place"}, None),
        ({"reference": "Patient?identifier=1"}, None),
        ({"reference": "#nobody"}, None),
        ({"identifier": {"system": "urn:local", "value": "1"}}, None),
        ({"display": "1"}, None),
    ],
)
def test_the_patient_is_named_in_a_known_system_or_not_at_all(subject, patient):
    assert read(subject=subject).properties.get("patient") == patient


def test_every_authority_of_the_national_identifier_names_the_patient():
    """The NIR, the NIA, and the two of test and demonstration: those of an admission."""
    assert PACK.admission is not None
    assert sorted(PACK.fhir.patient_systems) == sorted(f"urn:oid:{oid}" for oid in PACK.admission.patient.systems)
    for system in PACK.fhir.patient_systems:
        assert read(subject={"identifier": {"system": system, "value": "279035121518989"}}).properties["patient"] == "279035121518989"


def test_the_source_patient_serves_where_the_subject_names_nobody():
    assert read(subject=None, context={"sourcePatientInfo": {"reference": "#p"}}).properties["patient"] == "279035121518989"


def test_the_first_of_the_packs_systems_names_the_patient():
    identifiers = [{"system": PACK.fhir.patient_systems[1], "value": "2"}, {"system": INS, "value": "1"}]
    assert read(contained=[{"resourceType": "Patient", "id": "p", "identifier": identifiers}], author=None).properties["patient"] == "1"


@pytest.mark.parametrize(
    ("authors", "author", "structure"),
    [
        ([{"reference": "#dr"}], "10000000025", None),
        ([{"reference": "#org"}], None, "750000028"),
        ([{"reference": "#role"}, {"identifier": {"system": PROFESSIONALS, "value": "2"}}], ["10000000025", "2"], "750000028"),
        ([{"reference": f"Practitioner?identifier={PROFESSIONALS}|2"}], "2", None),
        ([{"reference": "#p"}], "279035121518989", None),
        ([{"reference": "Device/1"}], None, None),
    ],
    ids=["a practitioner", "a structure", "a role and another", "a search", "the patient", "a device"],
)
def test_authors_and_the_structures_they_wrote_for(authors, author, structure):
    properties = read(author=authors).properties
    assert (properties.get("author"), properties.get("structure")) == (author, structure)


def test_the_custodian_is_not_the_structure_that_deposited():
    assert "structure" not in read(author=[{"reference": "#dr"}], custodian={"reference": "#org"}).properties


@pytest.mark.parametrize(
    ("codings", "type"),
    [
        ([{"code": "local-1"}, {"code": "11488-4"}], "11488-4"),
        ([{"code": "local-1"}, {"code": "local-2"}], "local-1"),
        ([{"code": "11488-4"}, {"code": "11488-4"}], "11488-4"),
        ([{"display": "report"}], None),
    ],
    ids=["the one that the pack knows", "none known", "twice", "no code"],
)
def test_the_type_among_translations(codings, type):
    assert read(type={"coding": codings}).properties.get("type") == type


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"resourceType": "Bundle"},
            "resource.resourceType: is `Bundle`, not `DocumentReference` (send its DocumentReferences one by one)",
        ),
        ({"resourceType": "Patient"}, "resource.resourceType: is `Patient`, not `DocumentReference`"),
        ({"resourceType": None}, "resource.resourceType: is missing"),
        ({"status": None}, "resource.status: is not valid: value for the field 'status' is required"),
        ({"content": None}, "resource.content: is missing"),
        ({"colour": "red"}, "resource.colour: is not known to FHIR R4"),
        ({"date": "2026-11-10"}, "resource.date: is not valid: instant value string does not match spec regex"),
        ({"type": {"coding": "x"}}, "resource.type.coding: is not valid: input should be a valid list"),
        ({"contained": [5]}, "resource.contained.0: is not valid: value is expected from the instance of Resource"),
        ({"contained": [{"resourceType": "Nope"}]}, "resource: is not a DocumentReference of FHIR R4: `R4.NopeType` is not known there"),
        (
            {"masterIdentifier": None, "id": None},
            "resource.masterIdentifier: is missing (a document is named by its masterIdentifier or its id)",
        ),
        (
            {"type": {"coding": [{"code": "11488-4"}, {"code": "11502-2"}]}},
            "resource.type: has two codes that the pack knows, `11488-4` and `11502-2` (keep the one that says what the document is)",
        ),
        (
            {"contained": [{"resourceType": "Patient", "id": "p", "identifier": [{"system": INS, "value": "1"}, {"system": INS, "value": "2"}]}]},
            "resource.subject: names two patients, `1` and `2` (a document belongs to one record)",
        ),
    ],
)
def test_what_is_no_document_reference_is_refused_with_its_place(changes, told):
    with pytest.raises(RequestError) as caught:
        read(**changes)
    assert str(caught.value) == told


@pytest.mark.parametrize("data", [None, [], 5, "x"])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(RequestError, match=r"^resource\.resourceType: is missing$"):
        parse_document_reference(data, PACK)
