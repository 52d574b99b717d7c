"""Questions for the tests of the service: people and documents of the French pack, acts that set a record up, and the log read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from api_server import NURSE, PATIENT, PHYSICIAN, Server

from engine.decision_log.read import LogReader

Json = dict[str, Any]

ONE, SEVERAL = "/access/v1/evaluation", "/access/v1/evaluations"
STRANGER = "10000023118"
"""A pharmacist of whom no record speaks."""
PROFESSIONS = {PHYSICIAN: "G15_10", NURSE: "G15_60", STRANGER: "G15_21"}
DOCUMENT: Mapping[str, Any] = {
    "patient": PATIENT, "type": "11502-2", "author": "10000023100", "structure": "750000028", "status": "Approved", "confidentiality": ["N"],
    "deposited": "2026-11-10T09:00:00+01:00",
}  # fmt: skip


def professional(id: str = PHYSICIAN, **properties: Any) -> Json:
    known = {"profession": PROFESSIONS.get(id, "G15_10"), "structure": "750000010", "authentication": "DIRECTE"}
    return {"type": "professional", "id": id, "properties": known | properties}


def patient(id: str = PATIENT) -> Json:
    return {"type": "patient", "id": id}


def record(id: str = PATIENT) -> Json:
    return {"type": "record", "id": id}


def document(id: str = "DOC-BIO", **properties: Any) -> Json:
    """A document; a property that is `None` is left out."""
    return {"type": "document", "id": id, "properties": {key: value for key, value in {**DOCUMENT, **properties}.items() if value is not None}}


def question(subject: Json | None = None, action: str = "read", resource: Json | None = None, **context: Any) -> Json:
    """May the treating physician read a document, for care? Or what a test asks instead."""
    return {
        "subject": professional() if subject is None else subject,
        "action": {"name": action},
        "resource": document() if resource is None else resource,
        "context": {"purpose": "care", **context},
    }


def target(id: str, kind: str = "professional", **more: Any) -> Json:
    return {"target": {"type": kind, "id": id, **more}}


def act(desk: httpx.Client, subject: Json, name: str, resource: Json | None = None, context: Json | None = None, **properties: Any) -> Json:
    """An act that is permitted."""
    asked = {"subject": subject, "action": {"name": name, "properties": properties}, "resource": resource or record(), "context": context or {}}
    answer = desk.post("/consent/v1/acts", json=asked)
    assert answer.status_code == 200 and answer.json()["decision"], answer.text
    return answer.json()


def open_record(server: Server, id: str = PATIENT) -> str:
    """A record whose patient has a treating physician. Returns the consent token."""
    with server.client("consent_desk") as desk:
        act(desk, patient(id), "open", record(id), birth_date="1979-03-28")
        made = act(desk, patient(id), "declare_treating_physician", record(id), **target(PHYSICIAN, profession="G15_10"))
    return str(made["context"]["consent_token"])


def logged(server: Server, kind: str | None = None, containing: str = "", **said: Any) -> list[Json]:
    """The entries of the log, oldest first, that say these things."""
    with LogReader(f"sqlite:///{server.folder}/decision-log") as log:
        found = [one.body for one in log.matching(containing=containing) if one.body is not None]
    return [one for one in found if kind in (None, one["kind"]) and all(one.get(key) == value for key, value in said.items())]
