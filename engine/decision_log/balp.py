"""Entries as FHIR R4 AuditEvent, in the shape of IHE Basic Audit Log Patterns (BALP), for audit repositories. Nothing here reads them back.

    decision, search, act     an authorization decision (AuthZconsent), one event for each outcome of the entry
    outcome "shown"           a read (PatientRead; Read when the entry names no patient)
    anything else             the plain resource, with the code of DICOM that comes nearest

AuthZconsent closes its list of entities, so the documents that were decided on are details of the record that decided (its token stands for the consent). The
log knows no network address: where a profile demands one, it is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

PROFILE = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
DCM = "http://dicom.nema.org/resources/ontology/DCM"
HL7 = "http://terminology.hl7.org/CodeSystem/"
SUCCESS, FAILURE = "0", "8"
UNKNOWN: Json = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}

ALERT = {"system": DCM, "code": "110113", "display": "Security Alert"}
OTHERS: dict[str, tuple[Json, Json | None, str, str]] = {
    "read": ({"system": DCM, "code": "110101", "display": "Audit Log Used"}, None, "R", SUCCESS),
    "expunge": ({"system": DCM, "code": "110101", "display": "Audit Log Used"}, None, "D", SUCCESS),
    "pack": (ALERT, {"system": DCM, "code": "110131", "display": "Software Configuration"}, "U", SUCCESS),
    "refused": (ALERT, {"system": DCM, "code": "110126", "display": "Node Authentication"}, "E", FAILURE),
}
"""Type, subtype, action and outcome of the entries for which BALP has no pattern."""


def audit_events(body: Mapping[str, Any], origin: str) -> list[Json]:
    """The events of one entry, as `engine.decision_log.read.readable` gives it. `origin`: the name of the log."""
    items = body.get("items")
    if isinstance(items, list):
        if not all(isinstance(one, dict) for one in items):
            return [_undecided(body, origin)]
        groups: dict[tuple[Any, ...], list[Json]] = {}
        for place, item in enumerate(items):
            key = (item["decision"], item["rule"], place in body.get("withheld", ()))
            groups.setdefault(key, []).append(item)
        return [_decision(body, origin, several, key[2], number) for number, (key, several) in enumerate(groups.items())]
    if body.get("kind") == "outcome":
        return [_access(body, origin)]
    type, subtype, action, outcome = OTHERS.get(str(body.get("kind")), (ALERT, None, "E", SUCCESS))
    event = _event(body, origin, type, subtype, action, outcome)
    event["agent"] = [_agent(DCM, "110150", "Application", body.get("caller"), requestor=True)]
    event["entity"] = _patient(body)
    if body.get("what") or body.get("why"):
        event["outcomeDesc"] = str(body.get("what") or body.get("why"))
    return [_without_nothing(event)]


# --- decisions -------------------------------------------------------------------------------------------------------


def _decision(body: Mapping[str, Any], origin: str, items: list[Json], is_withheld: bool, number: int) -> Json:
    first = items[0]
    is_permitted = first["decision"] == "permit" and not is_withheld
    event = _authorization(body, origin, SUCCESS if is_permitted else FAILURE)
    event["meta"] = {"profile": [f"{PROFILE}AuthZconsent"]}
    if number:
        event["id"] = f"{event['id']}-{number}"
    said = [f"{first['decision']} by {first['rule'] or 'no rule'}", first.get("legal_basis"), (first.get("words") or {}).get("en")]
    if is_withheld:
        said.append("withheld: the caller does not do what the permit obliges it to")
    event["outcomeDesc"] = "; ".join(one for one in said if one)
    event["entity"][-1]["detail"] += [{"type": item.get("type") or "resource", "valueString": item["resource"]} for item in items]
    return _without_nothing(event)


def _undecided(body: Mapping[str, Any], origin: str) -> Json:
    """Without its pack, nobody can say what an entry decided."""
    event = _authorization(body, origin, None)
    event["outcomeDesc"] = f"decided by pack {body.get('pack')}, which this log does not describe"
    return _without_nothing(event)


def _authorization(body: Mapping[str, Any], origin: str, outcome: str | None) -> Json:
    subject, action, context = _object(body, "subject"), _object(body, "action"), _object(body, "context")
    properties = _object(subject, "properties")
    subtype = {"system": "https://profiles.ihe.net/ITI/BALP/CodeSystem/AuthZsubType", "code": "AuthZ-Consent"}
    event = _event(body, origin, ALERT, subtype, "E", outcome)
    if context.get("purpose"):
        event["purposeOfEvent"] = [{"text": str(context["purpose"])}]
    user = _agent(f"{HL7}v3-ParticipationType", "IRCP", "information recipient", subject.get("id"), requestor=True)
    user["role"] = [{"text": str(one)} for one in (subject.get("type"), properties.get("profession")) if one]
    event["agent"] = [
        _agent(DCM, "110150", "Application", body.get("caller")) | {"network": UNKNOWN},
        user,
        _agent(f"{HL7}v3-RoleClass", "PROV", "healthcare provider", properties.get("structure")),
        _agent(f"{HL7}extra-security-role-type", "authserver", "authorization server", origin),
    ]
    record = {"what": _named(body.get("token")), "type": {"system": "http://hl7.org/fhir/resource-types", "code": "Consent"}}
    request = [{"type": "X-Request-ID", "valueString": str(body["request"])}] if body.get("request") else []
    event["entity"] = [*_patient(body, always=True), record | {"name": action.get("name"), "detail": request}]
    return event


# --- accesses --------------------------------------------------------------------------------------------------------


def _access(body: Mapping[str, Any], origin: str) -> Json:
    """What a store reports: it showed a document, or did not."""
    is_shown = body.get("outcome") == "shown"
    type = {"system": f"{HL7}audit-event-type", "code": "rest", "display": "Restful Operation"}
    subtype = {"system": "http://hl7.org/fhir/restful-interaction", "code": "read", "display": "read"}
    event = _event(body, origin, type, subtype, "R", SUCCESS if is_shown else FAILURE)
    if is_shown:
        event["meta"] = {"profile": [PROFILE + ("PatientRead" if body.get("patient") else "Read")]}
    event["agent"] = [
        _agent(DCM, "110152", "Destination Role ID", None) | {"network": UNKNOWN},
        _agent(DCM, "110153", "Source Role ID", body.get("caller")) | {"network": UNKNOWN},
    ]
    document = {
        "what": _named(body.get("document")),
        "type": {"system": f"{HL7}audit-entity-type", "code": "2", "display": "System Object"},
        "role": {"system": f"{HL7}object-role", "code": "4", "display": "Domain Resource"},
        "detail": [{"type": "decision", "valueString": str(body["decision"])}] if body.get("decision") else None,
    }
    event["entity"] = [*_patient(body), document]
    return _without_nothing(event)


# --- parts -----------------------------------------------------------------------------------------------------------


def _event(body: Mapping[str, Any], origin: str, type: Json, subtype: Json | None, action: str, outcome: str | None) -> Json:
    at = body.get("at")
    moment = datetime.fromtimestamp(at if isinstance(at, int | float) else 0, UTC)
    event: Json = {"resourceType": "AuditEvent", "id": str(body.get("id")), "type": type, "subtype": [subtype] if subtype else None, "action": action}
    event |= {"recorded": moment.isoformat(timespec="milliseconds"), "outcome": outcome}
    observer = {"system": f"{HL7}security-source-type", "code": "6", "display": "Security Server"}
    event["source"] = {"site": origin, "observer": _named(origin), "type": [observer]}
    return event


def _agent(system: str, code: str, display: str, who: Any, requestor: bool = False) -> Json:
    return {"type": {"coding": [{"system": system, "code": code, "display": display}]}, "who": _named(who), "requestor": requestor}


def _named(who: Any) -> Json:
    return {"identifier": {"value": str(who)}} if who else UNKNOWN


def _patient(body: Mapping[str, Any], always: bool = False) -> list[Json]:
    if not body.get("patient") and not always:
        return []
    role = {"system": f"{HL7}object-role", "code": "1", "display": "Patient"}
    return [{"what": _named(body.get("patient")), "type": {"system": f"{HL7}audit-entity-type", "code": "1", "display": "Person"}, "role": role}]


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = body.get(name)
    return found if isinstance(found, Mapping) else {}


def _without_nothing(value: Any) -> Any:
    """FHIR has no empty members."""
    if isinstance(value, dict):
        kept = {key: _without_nothing(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one is not None and one != [] and one != {}}
    if isinstance(value, list):
        return [_without_nothing(one) for one in value]
    return value
