"""Plain Python: the French rules for (professional, read) written by hand, as a programmer without an engine would write them. The baseline of every question.

`rule_of` answers from a facts object; `decide` from a request and a record, reading only what it comes to need. Both are held equal to the engine on
thousands of inputs before anything is timed. They are hand-written twice over: change rules.csv, and they are wrong until somebody sees it. They explain
nothing, prove nothing, know one slice of a hundred and sixty and one value of each setting (interns do not regulate; inferred cells are refused).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from typing import Any

from engine.calendar import parse_instant
from engine.consent.fold import Record
from engine.evaluator.tables import Tables
from engine.pdp import Pdp
from engine.request import Request

NORMAL, BREAK_GLASS, REGULATION_CENTRE, OTHER_MODE = range(4)
NO_ROLE, REGULATION, OCCUPATIONAL, FIRE_SERVICE, OTHER_ROLE = range(5)
CARE = 0
DIRECT, INDIRECT_STRONG = range(2)


def facts_class(tables: Tables) -> Any:
    """A named tuple with an attribute for each fact of the slice, in the order of the tables: booleans as such, words as their place among the values."""
    return namedtuple("Facts", [name.replace(".", "_") for name in tables.fields])


def rule_of(f: Any) -> str:
    """The rule that decides these facts."""
    if not f.consent_opened or f.consent_closed or f.consent_deceased:
        return "R01"
    if f.context_purpose != CARE:
        return "R02"
    if f.subject_authentication != DIRECT and f.subject_authentication != INDIRECT_STRONG:
        return "R03"
    if f.consent_blocked:
        return "R05"
    if not f.resource_present:
        return "R04"
    mode = f.context_access_mode
    if f.resource_author_is_subject and mode != OTHER_MODE:
        return ("R06-author", "R06-author_break_glass", "R06-author_regulation")[mode]
    if mode == NORMAL:
        if f.resource_own_structure and f.matrix_read:
            return "R06-structure"
        if f.matrix_treating:
            if f.consent_treating_physician and f.subject_physician:
                return "R07"
            if f.consent_equal_rights and f.subject_health_professional and f.consent_authorised:
                return "R08"
    if f.resource_masked or f.consent_masked:
        return "R09"
    if mode == OTHER_MODE:
        return "R20-mode"
    role = f.subject_role
    if role == OTHER_ROLE:
        return "R20-role"
    if mode == REGULATION_CENTRE:
        if f.consent_refuses_regulation:
            return "R10"
        return "R11" if role == REGULATION and f.subject_physician and f.matrix_read else "R20"
    if mode == BREAK_GLASS:
        if f.consent_refuses_break_glass:
            return "R12"
        if not (f.subject_health_professional and f.matrix_read):
            return "R20"
        return "R14" if f.context_justified else "R13"
    if role in (OCCUPATIONAL, FIRE_SERVICE):
        return "R15" if f.consent_authorised_in_person and f.matrix_read else "R15-otherwise"
    if not f.matrix_read:
        return "R20"
    if f.consent_authorised:
        return "R18"
    if f.consent_excluded:
        return "R20"
    if f.consent_team_consent:
        return "R16"
    return "R17" if f.consent_team_member else "R19"


# --- from a request and a record -------------------------------------------------------------------------------------


class Lists:
    """The national lists that the rules look into: whom a profession is, which column it reads by, what the cells say."""

    def __init__(self, pdp: Pdp):
        facts = pdp.pack.vocabulary.facts
        read, treating, professional = facts["matrix.read"].form, facts["matrix.treating"].form, facts["subject.health_professional"].form
        self.column_of: Mapping[str, str] = read.column_of  # type: ignore[union-attr]
        self.readable = {(row, column) for row, cells in read.grid.rows.items() for column, letter in cells.items() if read.letters[letter]}  # type: ignore[union-attr]
        self.closed_to_physicians = {row for row, cells in treating.grid.rows.items() if not treating.letters[cells[treating.fixed_column]]}  # type: ignore[union-attr, index]
        self.health_professionals = {code for code, is_one in professional.codes.items() if is_one}  # type: ignore[union-attr]


class Patient:
    """A record as a programmer would keep it: a set for each thing that may be said."""

    def __init__(self, record: Record):
        said: dict[tuple[str, str], set[Any]] = {}
        for s in record.in_force:
            said.setdefault((s.kind, s.target[0]), set()).add(s.target[1])
        kinds = {s.kind for s in record.in_force}
        self.open = "opened" in kinds and not kinds & {"closed", "deceased"}
        self.refuses_break_glass, self.refuses_regulation = "break_glass_refusal" in kinds, "regulation_refusal" in kinds
        self.blocked, self.excluded = said.get(("block", "professional"), set()), said.get(("exclusion", "professional"), set())
        self.treating, self.equal = said.get(("treating_physician", "professional"), set()), said.get(("equal_rights", "professional"), set())
        self.authorised, self.structures = said.get(("authorisation", "professional"), set()), said.get(("authorisation", "structure"), set())
        in_person = [s for s in record.in_force if s.kind == "authorisation" and s.has("given") == "in_person" and s.has("by") == "holder"]
        self.in_person = {s.target[1] for s in in_person if s.target[0] == "professional"}
        self.members = said.get(("membership", "professional"), set())
        teams = said.get(("care_team_consent", "team"), set())
        self.consented = {s.target[1] for s in record.in_force if s.kind == "membership" and s.has("team") in teams}
        self.consented |= said.get(("care_team_consent", "professional"), set())
        self.all_masked = ("mask", "everybody") in said
        self.documents, self.types = said.get(("mask", "document"), set()), said.get(("mask", "type"), set())
        self.authors, self.depositors = said.get(("mask", "author"), set()), said.get(("mask", "structure"), set())
        self.intervals = said.get(("mask", "deposited"), set())


SHOWN = {"N", "INVISIBLE_PATIENT", "INVISIBLE_REPRESENTANTS_LEGAUX", "INVISIBLE_REP_LEGAUX"}
PRESENT = {
    "Approved", "Deprecated", "Archived", "urn:oasis:names:tc:ebxml-regrep:StatusType:Approved",
    "urn:oasis:names:tc:ebxml-regrep:StatusType:Deprecated", "urn:asip:ci-sis:2010:StatusType:Archived",
}  # fmt: skip


def decide(request: Request, patient: Patient, lists: Lists) -> str:
    """The rule that decides this request. Trusts the types of what it reads, as such code does."""
    subject, document, context = request.subject.properties, request.resource.properties, request.context
    who = request.subject.id
    if not patient.open:
        return "R01"
    if context.get("purpose") != "care":
        return "R02"
    if subject.get("authentication") not in ("DIRECTE", "INDIRECT_RENFORCEE"):
        return "R03"
    if who in patient.blocked:
        return "R05"
    if document.get("status") not in PRESENT:
        return "R04"
    mode = context.get("access_mode", "normal")
    if document.get("author") == who and mode in ("normal", "bris_de_glace", "centre_15"):
        return {"normal": "R06-author", "bris_de_glace": "R06-author_break_glass", "centre_15": "R06-author_regulation"}[mode]
    profession, type = subject.get("profession"), document.get("type")
    readable = (type, lists.column_of.get(profession)) in lists.readable  # type: ignore[arg-type]
    if mode == "normal":
        structure = subject.get("structure")
        if readable and structure and structure == document.get("structure"):
            return "R06-structure"
        if type and type not in lists.closed_to_physicians:
            if profession == "G15_10" and who in patient.treating:
                return "R07"
            if who in patient.equal and profession in lists.health_professionals and (who in patient.authorised or structure in patient.structures):
                return "R08"
    if _is_masked(request.resource.id, type, document, patient):
        return "R09"
    if mode not in ("normal", "bris_de_glace", "centre_15"):
        return "R20-mode"
    role = subject.get("role", "none")
    if role not in ("none", "regulation", "occupational", "fire_service"):
        return "R20-role"
    if mode == "centre_15":
        if patient.refuses_regulation:
            return "R10"
        return "R11" if role == "regulation" and profession == "G15_10" and readable else "R20"
    if mode == "bris_de_glace":
        if patient.refuses_break_glass:
            return "R12"
        if not readable or profession not in lists.health_professionals:
            return "R20"
        return "R14" if context.get("justification", "").strip() else "R13"
    if role in ("occupational", "fire_service"):
        return "R15" if readable and who in patient.in_person else "R15-otherwise"
    if not readable:
        return "R20"
    if who in patient.authorised or subject.get("structure") in patient.structures:
        return "R18"
    if who in patient.excluded:
        return "R20"
    if who in patient.consented:
        return "R16"
    return "R17" if who in patient.members else "R19"


def _is_masked(id: str, type: str | None, document: Mapping[str, Any], patient: Patient) -> bool:
    codes = document.get("confidentiality")
    if not codes or not SHOWN.issuperset(codes) or patient.all_masked:
        return True
    if id in patient.documents or type in patient.types or document.get("author") in patient.authors or document.get("structure") in patient.depositors:
        return True
    if patient.intervals:
        deposited = parse_instant(document.get("deposited", ""))
        return deposited is None or any(start <= deposited < end for start, end in patient.intervals)
    return False
