"""A FHIR R4 DocumentReference as the resource of a request, by the pack's `[fhir]` table.

    masterIdentifier or id -> id         type -> type               securityLabel -> confidentiality       status -> status, translated
    subject -> patient                   author -> author           organisation of an author -> structure date -> deposited

Nothing is invented: what the document does not say, or says in a system that the pack does not know, is left out, and the vocabulary chooses the value of an
absent input. A prefix that the pack knows of is taken from identifiers. The custodian is not taken for the structure that deposited the document, and
nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from engine.errors import RequestError
from engine.pack import Pack
from engine.request import Entity
from engine.vocabulary import Cell

Json: TypeAlias = Mapping[str, Any]
Identifier: TypeAlias = tuple[str, str]
"""A system and a value."""

UNREADABLE = "label-without-code"
"""Stands for a security label without a code: nobody knows it, so it counts as whatever the pack refuses."""


def parse_document_reference(data: Any, pack: Pack, where: str = "resource") -> Entity:
    """Build the resource of a request from a DocumentReference in decoded JSON. Raises `RequestError` for what is not one, or names two patients or types."""
    _validate(data, where)
    own = [one["value"] for one in (data.get("masterIdentifier"), {"value": data.get("id")}) if one and one.get("value")]
    if not own:
        raise RequestError(f"{where}.masterIdentifier", "is missing", "a document is named by its masterIdentifier or its id")
    author, structure = _authors(data, pack)
    properties = {
        "type": _type(data, pack, where),
        "patient": _patient(data, pack, where),
        "author": _one_or_several(author),
        "structure": _one_or_several(structure),
        "confidentiality": _confidentiality(data),
        "status": pack.fhir.status.get(data["status"]),
        "deposited": data.get("date"),
    }
    return Entity("document", own[0], {key: value for key, value in properties.items() if value is not None})


def _validate(data: Any, where: str) -> None:
    kind = data.get("resourceType") if isinstance(data, Mapping) else None
    if kind != "DocumentReference":
        help = "send its DocumentReferences one by one" if kind == "Bundle" else ""
        raise RequestError(f"{where}.resourceType", "is missing" if kind is None else f"is `{kind}`, not `DocumentReference`", help)
    from fhir.resources.R4B.documentreference import DocumentReference
    from pydantic import ValidationError

    try:
        DocumentReference.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join([where, *(str(step) for step in first["loc"] if step != "root")])
        message = "is not known to FHIR R4" if first["type"] == "extra_forbidden" else "is missing" if first["type"] == "missing" else _sentence(first["msg"])
        raise RequestError(path, message) from None
    except Exception as error:  # the library lets others through, such as the KeyError of a contained resource of no known type
        word = str(error).strip("'")
        raise RequestError(where, f"is not a DocumentReference of FHIR R4: `{word}` is not known there") from None
    if not isinstance(data.get("status"), str):
        raise RequestError(f"{where}.status", "is missing")


def _sentence(message: str) -> str:
    words = message.removeprefix("Value error, ").rstrip(".").partition(", but got type")[0]
    return f"is not valid: {words[:1].lower()}{words[1:]}"


# --- what it says ----------------------------------------------------------------------------------------------------


def _type(data: Json, pack: Pack, where: str) -> str | None:
    """The code of the type. Among translations, the one that the pack's grids know."""
    codes = list(dict.fromkeys(_codes(data.get("type"))))
    known = [code for code in codes if code in _document_types(pack)]
    if len(known) > 1:
        raise RequestError(f"{where}.type", f"has two codes that the pack knows, `{known[0]}` and `{known[1]}`", "keep the one that says what the document is")
    return known[0] if known else codes[0] if codes else None


def _document_types(pack: Pack) -> set[str]:
    forms = (fact.form for fact in pack.vocabulary.facts.values())
    return {code for form in forms if isinstance(form, Cell) and form.row.for_action("")[-1:] == ("type",) for code in form.grid.rows}


def _confidentiality(data: Json) -> list[str] | None:
    """Every code of every label. A label without a code is one that nobody knows, never none."""
    labels = data.get("securityLabel")
    return None if not labels else [code for label in labels for code in list(_codes(label)) or [UNREADABLE]]


def _codes(concept: Json | None) -> Iterator[str]:
    for coding in _tables((concept or {}).get("coding")):
        if isinstance(coding.get("code"), str):
            yield coding["code"]


def _patient(data: Json, pack: Pack, where: str) -> str | None:
    """The identifier of the subject, or else of the source patient, in the first of the pack's systems that it has."""
    for reference in (data.get("subject"), (data.get("context") or {}).get("sourcePatientInfo")):
        identifiers = list(_identifiers(data, reference))
        for system in pack.fhir.patient_systems:
            values = list(dict.fromkeys(value for its, value in identifiers if its == system))
            if len(values) > 1:
                raise RequestError(f"{where}.subject", f"names two patients, `{values[0]}` and `{values[1]}`", "a document belongs to one record")
            if values:
                return values[0]
    return None


def _authors(data: Json, pack: Pack) -> tuple[list[str], list[str]]:
    """The identifiers of the authors, and those of the structures that they wrote for."""
    people: dict[str, None] = {}
    structures: dict[str, None] = {}
    for reference in _tables(data.get("author")):
        roles = [one for one in _contained(data, reference) if one.get("resourceType") == "PractitionerRole"]
        inner = [role.get(key) for role in roles for key in ("practitioner", "organization")]
        for system, value in [one for each in (reference, *inner) for one in _identifiers(data, each)]:
            if system in pack.fhir.structure_systems:
                structures[_bare(value, pack.fhir.structure_prefix, "structure", pack)] = None
            elif system in pack.fhir.author_systems:
                people[_bare(value, pack.fhir.author_prefix, "author", pack)] = None
            elif system in pack.fhir.patient_systems:
                people[value] = None
    return list(people), list(structures)


def _bare(value: str, prefix: str, form: str, pack: Pack) -> str:
    """An identifier without the prefix that its system writes before it, when what is left is written as the pack says; otherwise as it is."""
    rest = value.removeprefix(prefix)
    known = pack.identifiers.targets.get(form, ())
    return rest if rest != value and any(not one.mistake(rest) for one in known) else value


# --- references ------------------------------------------------------------------------------------------------------


def _identifiers(data: Json, reference: Any) -> Iterator[Identifier]:
    """The identifiers that a reference carries: its own, those of a contained resource, that of a search such as `Patient?identifier=system|value`."""
    if not isinstance(reference, Mapping):
        return
    resources = _contained(data, reference)
    for one in [*_tables([reference.get("identifier")]), *(each for resource in resources for each in _tables(resource.get("identifier")))]:
        if isinstance(one.get("system"), str) and isinstance(one.get("value"), str):
            yield one["system"], one["value"]
    query = (reference.get("reference") or "").partition("?")[2]
    for value in parse_qs(query).get("identifier", ()):
        system, bar, named = value.partition("|")
        if bar and named:
            yield system, named


def _contained(data: Json, reference: Json) -> list[Json]:
    target = reference.get("reference") or ""
    return [one for one in _tables(data.get("contained")) if target == f"#{one.get('id')}"]


def _tables(value: Any) -> list[Json]:
    """The tables of a list, or of one table that stands for a list."""
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [one for one in several if isinstance(one, Mapping)]


def _one_or_several(values: list[str]) -> str | list[str] | None:
    return values if len(values) > 1 else values[0] if values else None
