"""Acts on a record: what each records when the policy permits it, that the next decision honours it, and that nothing else is ever written."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.calendar import FOREVER, parse_instant
from engine.consent.acts import Access, Done, access_list, directives_of, patient_of, perform, perform_all, preview
from engine.consent.directives import parse_directives
from engine.consent.fold import Record
from engine.consent.store import Act, Also, ConsentStore
from engine.consent.store import Conflict as RealConflict
from engine.errors import RequestError
from engine.pack import load_pack
from engine.pdp import Pdp, load_pdp
from engine.request import Action, Entity, Request
from engine.service import check_read

FOLDER = Path(__file__).parent.parent / "policies"
PDP = load_pdp(FOLDER)
ACTS = PDP.pack.vocabulary.acts
NOW = parse_instant("2026-11-21T10:00:00+01:00") or 0.0
START = "2026-11-21T09:00:00+00:00"
HOUR = 3600.0

PATIENT = "279035121518989"
MINOR = "114067505601208"
DOCTOR, AUTHOR, NURSE, OTHER = "10000000017", "10000000025", "10000000033", "10000000041"
HOSPITAL, CLINIC, DESK = "750000028", "750000036", "750000044"


class Conflict(Exception):
    """Somebody else wrote first."""


class Memory:
    """A store of directives in memory. `meanwhile` is done once, by somebody else, before an append; `late` is how far its clock is ahead of its caller's."""

    def __init__(self, *known: Mapping[str, Any], patient: str = PATIENT, late: float = 0.0):
        self.kept: dict[str, list[Mapping[str, Any]]] = {patient: list(known)}
        self.acts: list[tuple[Act, int, int]] = []
        self.meanwhile: Callable[[], object] | None = None
        self.late, self.lock, self.reads = late, threading.Lock(), 0

    def read(self, patient: str, at: float) -> tuple[Record, int]:
        self.reads += 1
        known = list(self.kept.get(patient, []))
        return PDP.fold(known, at + self.late), len(known)

    def append(
        self, patient: str, directives: Sequence[Mapping[str, Any]], at: float, expect: Any = None, *, acts: Sequence[Act] = (), also: Also | None = None
    ) -> int:
        if self.meanwhile is not None:
            doing, self.meanwhile = self.meanwhile, None
            doing()
        with self.lock:
            kept = self.kept.setdefault(patient, [])
            if expect is not None and expect != len(kept):
                raise Conflict
            before = len(kept)
            kept += directives
            self.acts += [(act, before, len(kept)) for act in acts]
            return len(kept)

    def note(self, patient: str, acts: Sequence[Act], at: float, token: int, also: Also | None = None) -> None:
        self.acts += [(act, token, token) for act in acts]

    def written(self, before: int, patient: str = PATIENT) -> list[Mapping[str, Any]]:
        return self.kept[patient][before:]


# --- who, what -------------------------------------------------------------------------------------------------------


def professional(id: str, profession: str = "G15_10", **more: Any) -> Entity:
    return Entity("professional", id, {"profession": profession, "authentication": "DIRECTE", **more})


def organisation(id: str, kind: str = "health") -> Entity:
    return Entity("organisation", id, {"kind": kind, "structure": id})


HOLDER = Entity("patient", PATIENT)
PARENT = Entity("representative", "290027505601745")
PHYSICIAN, WRITER, COLLEAGUE = professional(DOCTOR), professional(AUTHOR), professional(NURSE, "G15_60", structure=HOSPITAL)
IN_HOUSE = professional(DOCTOR, structure=HOSPITAL)
INSURANCE = organisation(DESK, "assurance_maladie")

HIM, THEM, HOUSE, DOC, FOR = {"professional": DOCTOR}, {"team": HOSPITAL}, {"structure": HOSPITAL}, {"document": "DOC-1"}, {"representative": PARENT.id}
EMERGENCY = {"access_mode": "bris_de_glace", "justification": "coma"}
OPEN = {"kind": "opened"}
ADULT = {"kind": "identity", "birth_date": "1979-03-28"}
CHILD = {"kind": "identity", "birth_date": "2014-06-01"}
AUTHORISED = {"kind": "authorisation", "target": HIM}
MEMBER = {"kind": "membership", "target": HIM, "team": HOSPITAL}
TEAM = {"kind": "care_team_consent", "target": THEM}
TREATING = {"kind": "treating_physician", "target": HIM}
BLOCKED = {"kind": "block", "target": HIM}
REPRESENTED = {"kind": "representation", "target": FOR, "ground": "minority"}

REPORT = Entity(
    "document",
    "DOC-1",
    {
        "type": "11488-4", "author": AUTHOR, "structure": CLINIC, "status": "Approved", "confidentiality": ["N"], "patient": PATIENT,
        "deposited": "2026-11-20T09:00:00+01:00", "opened_by_patient": False,
    },
)  # fmt: skip


def of(patient: str) -> Entity:
    return replace(REPORT, properties={**REPORT.properties, "patient": patient})


def ask(subject: Entity, action: str, resource: Entity | None = None, context: Mapping[str, Any] | None = None, **properties: Any) -> Request:
    return Request(subject, Action(action, properties), resource or Entity("record", PATIENT), {"purpose": "care", **(context or {})})


def at(form: str, id: Any, **more: Any) -> dict[str, Any]:
    return {"type": form, "id": id, **more}


DOCTOR_, PHYSICIAN_ = at("professional", DOCTOR), at("professional", DOCTOR, profession="G15_10")


STAYED = {"from": "2026-11-18", "until": "2026-11-20"}
STAY = {"type": "deposited", **STAYED}


def reads(subject: Entity = PHYSICIAN, resource: Entity = REPORT, **context: Any) -> Request:
    return ask(subject, "read", resource, context)


def rule(request: Request, known: Sequence[Mapping[str, Any]], instant: float = NOW) -> str:
    return PDP.decide(request, PDP.fold(known, instant)).rule


# --- every act -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An act that is permitted: what it records, and a question that is answered by one rule before it and by another after it."""

    request: Request
    known: tuple[Mapping[str, Any], ...]
    records: tuple[Mapping[str, Any], ...]
    question: Request
    before: str
    after: str
    patient: str = PATIENT
    restrictive: bool = field(default=False)


CASES = {
    "open": Case(
        ask(HOLDER, "open", birth_date="1979-03-28"), (), ({"kind": "opened", "from": START}, {"kind": "identity", "birth_date": "1979-03-28"}),
        ask(HOLDER, "oppose_feeding"), "R01", "A01",
    ),
    "open without a birth date": Case(ask(HOLDER, "open"), (), ({"kind": "opened", "from": START}, {"kind": "identity"}), reads(HOLDER), "H00", "H01"),
    "close": Case(ask(HOLDER, "close"), (OPEN,), ({"kind": "closed"},), reads(HOLDER), "H01", "H00", restrictive=True),
    "reopen": Case(
        ask(HOLDER, "reopen"), (OPEN, {"kind": "closed", "recorded": "2026-01-01T00:00:00Z"}), ({"kind": "closed", "withdraw": True},),
        reads(HOLDER), "H00", "H01",
    ),
    "correct_identity": Case(
        ask(INSURANCE, "correct_identity", birth_date="1979-03-28"), (OPEN, CHILD, REPRESENTED), (ADULT,), reads(PARENT), "H03", "H05", restrictive=True
    ),
    "record_death": Case(
        ask(INSURANCE, "record_death", date_of_death="2026-11-20"), (OPEN, ADULT), ({"kind": "deceased", "date_of_death": "2026-11-20"},),
        reads(HOLDER), "H01", "H00", restrictive=True,
    ),
    "withdraw_death": Case(
        ask(INSURANCE, "withdraw_death"), (OPEN, ADULT, {"kind": "deceased", "date_of_death": "2026-11-20"}), ({"kind": "deceased", "withdraw": True},),
        reads(HOLDER), "H00", "H01",
    ),
    "grant_access by the holder": Case(
        ask(HOLDER, "grant_access", target=DOCTOR_, until="2026-12-24", given="in_person"), (OPEN,),
        ({"kind": "authorisation", "target": HIM, "from": START, "until": "2026-12-24", "given": "in_person", "by": "holder"},),
        reads(), "R19", "R18",
    ),
    "grant_access to a structure by a representative": Case(
        ask(PARENT, "grant_access", target=at("structure", HOSPITAL)), (OPEN, CHILD, REPRESENTED),
        ({"kind": "authorisation", "target": HOUSE, "from": START, "by": "representative"},), reads(IN_HOUSE), "R19", "R18",
    ),
    "grant_access collected by the professional": Case(
        ask(PHYSICIAN, "grant_access", context={"patient_request": True}, target=DOCTOR_, given="in_person", by="holder"), (OPEN,),
        ({"kind": "authorisation", "target": HIM, "from": START, "given": "in_person", "by": "holder"},),
        reads(professional(DOCTOR, role="occupational")), "R15-otherwise", "R15",
    ),
    "revoke_access of a professional by the holder": Case(
        ask(HOLDER, "revoke_access", target=DOCTOR_), (OPEN, AUTHORISED, TEAM, MEMBER), ({"kind": "exclusion", "target": HIM},),
        reads(), "R18", "R20", restrictive=True,
    ),
    "revoke_access of a structure by the holder": Case(
        ask(HOLDER, "revoke_access", target=at("structure", HOSPITAL)), (OPEN, {"kind": "authorisation", "target": HOUSE}),
        ({"kind": "authorisation", "target": HOUSE, "withdraw": True},), reads(IN_HOUSE), "R18", "R19", restrictive=True,
    ),
    "revoke_access of himself by the professional": Case(
        ask(PHYSICIAN, "revoke_access", target=DOCTOR_), (OPEN, AUTHORISED),
        ({"kind": "authorisation", "target": HIM, "withdraw": True},), reads(), "R18", "R19", restrictive=True,
    ),
    "block": Case(
        ask(HOLDER, "block", target=DOCTOR_), (OPEN, AUTHORISED), ({"kind": "block", "target": HIM},),
        reads(), "R18", "R05", restrictive=True,
    ),
    "unblock": Case(
        ask(HOLDER, "unblock", target=DOCTOR_), (OPEN, AUTHORISED, BLOCKED), ({"kind": "block", "target": HIM, "withdraw": True},),
        reads(), "R05", "R18",
    ),
    "consent_care_team": Case(
        ask(HOLDER, "consent_care_team", target=at("team", HOSPITAL), until="2027-01-01T00:00:00+01:00"), (OPEN, MEMBER),
        ({"kind": "care_team_consent", "target": THEM, "from": START, "until": "2027-01-01T00:00:00+01:00"},), reads(), "R17", "R16",
    ),
    "consent_care_team at admission": Case(
        ask(organisation(HOSPITAL), "consent_care_team", target=at("team", HOSPITAL)), (OPEN, MEMBER),
        ({"kind": "care_team_consent", "target": THEM, "from": START},), reads(), "R17", "R16",
    ),
    "withdraw_care_team_consent by the holder": Case(
        ask(HOLDER, "withdraw_care_team_consent", target=at("team", HOSPITAL)), (OPEN, TEAM, MEMBER), ({"kind": "exclusion", "target": THEM},),
        reads(), "R16", "R17", restrictive=True,
    ),
    "withdraw_care_team_consent at admission": Case(
        ask(organisation(HOSPITAL), "withdraw_care_team_consent", target=at("team", HOSPITAL)), (OPEN, TEAM, MEMBER),
        ({"kind": "care_team_consent", "target": THEM, "withdraw": True},), reads(), "R16", "R17", restrictive=True,
    ),
    "join_care_team": Case(
        ask(organisation(HOSPITAL), "join_care_team", target=at("professional", DOCTOR, team=HOSPITAL), until="2026-12-24"), (OPEN, TEAM),
        ({"kind": "membership", "target": HIM, "team": HOSPITAL, "from": START, "until": "2026-12-24"},), reads(), "R19", "R16",
    ),
    "leave_care_team": Case(
        ask(PHYSICIAN, "leave_care_team", target=at("professional", DOCTOR, team=HOSPITAL)), (OPEN, TEAM, MEMBER),
        ({"kind": "membership", "target": HIM, "team": HOSPITAL, "withdraw": True},), reads(), "R16", "R19", restrictive=True,
    ),
    "declare_treating_physician": Case(
        ask(HOLDER, "declare_treating_physician", target=PHYSICIAN_), (OPEN,),
        ({"kind": "treating_physician", "target": HIM, "from": START},), reads(), "R19", "R07",
    ),
    "end_treating_physician": Case(
        ask(PHYSICIAN, "end_treating_physician", target=DOCTOR_), (OPEN, TREATING),
        ({"kind": "treating_physician", "target": HIM, "withdraw": True},), reads(), "R07", "R19", restrictive=True,
    ),
    "grant_equal_rights": Case(
        ask(HOLDER, "grant_equal_rights", target=DOCTOR_, until="2027-11-21"), (OPEN, AUTHORISED),
        ({"kind": "equal_rights", "target": HIM, "from": START, "until": "2027-11-21"},), reads(), "R18", "R08",
    ),
    "revoke_equal_rights": Case(
        ask(HOLDER, "revoke_equal_rights", target=DOCTOR_), (OPEN, AUTHORISED, {"kind": "equal_rights", "target": HIM}),
        ({"kind": "equal_rights", "target": HIM, "withdraw": True},), reads(), "R08", "R18", restrictive=True,
    ),
    "refuse_break_glass": Case(
        ask(HOLDER, "refuse_break_glass"), (OPEN,), ({"kind": "break_glass_refusal"},), reads(**EMERGENCY), "R14", "R12", restrictive=True
    ),
    "accept_break_glass": Case(
        ask(HOLDER, "accept_break_glass"), (OPEN, {"kind": "break_glass_refusal"}), ({"kind": "break_glass_refusal", "withdraw": True},),
        reads(**EMERGENCY), "R12", "R14",
    ),
    "refuse_regulation": Case(
        ask(organisation(HOSPITAL), "refuse_regulation"), (OPEN,), ({"kind": "regulation_refusal"},),
        reads(professional(DOCTOR, role="regulation"), access_mode="centre_15"), "R11", "R10", restrictive=True,
    ),
    "accept_regulation": Case(
        ask(HOLDER, "accept_regulation"), (OPEN, {"kind": "regulation_refusal"}), ({"kind": "regulation_refusal", "withdraw": True},),
        reads(professional(DOCTOR, role="regulation"), access_mode="centre_15"), "R10", "R11",
    ),
    "oppose_feeding": Case(
        ask(organisation(HOSPITAL), "oppose_feeding", context={"reason": "personal"}), (OPEN,),
        ({"kind": "feeding_opposition", "reason": "personal"},), ask(WRITER, "deposit", REPORT), "W01", "W01-opposed", restrictive=True,
    ),
    "withdraw_feeding_opposition": Case(
        ask(HOLDER, "withdraw_feeding_opposition"), (OPEN, {"kind": "feeding_opposition", "reason": "personal"}),
        ({"kind": "feeding_opposition", "withdraw": True},), ask(WRITER, "deposit", REPORT), "W01-opposed", "W01",
    ),
    "declare_representation": Case(
        ask(INSURANCE, "declare_representation", target=at("representative", PARENT.id), ground="minority", until="2032-05-31"), (OPEN, CHILD),
        ({"kind": "representation", "target": FOR, "ground": "minority", "from": START, "until": "2032-05-31"},),
        reads(PARENT), "H06-representative", "H03",
    ),
    "end_representation": Case(
        ask(INSURANCE, "end_representation", target=at("representative", PARENT.id)), (OPEN, CHILD, REPRESENTED),
        ({"kind": "representation", "target": FOR, "withdraw": True},), reads(PARENT), "H03", "H05", restrictive=True,
    ),
    "mask": Case(ask(HOLDER, "mask", REPORT), (OPEN, AUTHORISED), ({"kind": "mask", "target": DOC},), reads(), "R18", "R09", restrictive=True),
    "unmask": Case(
        ask(HOLDER, "unmask", REPORT), (OPEN, AUTHORISED, {"kind": "mask", "target": DOC}),
        ({"kind": "mask", "target": DOC, "withdraw": True},), reads(), "R09", "R18",
    ),
    "mask_documents of a structure": Case(
        ask(HOLDER, "mask_documents", target=at("structure", CLINIC)), (OPEN, AUTHORISED),
        ({"kind": "mask", "target": {"structure": CLINIC}},), reads(), "R18", "R09", restrictive=True,
    ),
    "mask_documents of a type by a representative": Case(
        ask(PARENT, "mask_documents", target=at("type", "11488-4")), (OPEN, CHILD, REPRESENTED, AUTHORISED),
        ({"kind": "mask", "target": {"type": "11488-4"}},), reads(), "R18", "R09", restrictive=True,
    ),
    "mask_documents of an author": Case(
        ask(HOLDER, "mask_documents", target=at("author", AUTHOR)), (OPEN, AUTHORISED),
        ({"kind": "mask", "target": {"author": AUTHOR}},), reads(), "R18", "R09", restrictive=True,
    ),
    "mask_documents of a time of deposit": Case(
        ask(HOLDER, "mask_documents", target={"type": "deposited", "from": "2026-11-18", "until": "2026-11-20"}), (OPEN, AUTHORISED),
        ({"kind": "mask", "target": {"deposited": {"from": "2026-11-18", "until": "2026-11-20"}}},), reads(), "R18", "R09", restrictive=True,
    ),
    "mask_documents of a stay": Case(
        ask(HOLDER, "mask_documents", target=STAY, structure=CLINIC), (OPEN, AUTHORISED),
        ({"kind": "mask", "target": {"deposited": STAYED}, "structure": CLINIC},), reads(), "R18", "R09", restrictive=True,
    ),
    "unmask_documents of a stay": Case(
        ask(HOLDER, "unmask_documents", target=STAY, structure=CLINIC),
        (OPEN, AUTHORISED, {"kind": "mask", "target": {"deposited": STAYED}, "structure": CLINIC}),
        ({"kind": "mask", "withdraw": True, "target": {"deposited": STAYED}, "structure": CLINIC},), reads(), "R09", "R18",
    ),
    "mask_documents, every one": Case(
        ask(HOLDER, "mask_documents", target={"type": "everybody"}), (OPEN, AUTHORISED), ({"kind": "mask"},), reads(), "R18", "R09", restrictive=True
    ),
    "unmask_documents of a time of deposit": Case(
        ask(HOLDER, "unmask_documents", target={"type": "deposited", "from": "2026-11-18T00:00:00+01:00", "until": "2026-11-21T00:00:00+01:00"}),
        (OPEN, AUTHORISED, {"kind": "mask", "target": {"deposited": {"from": "2026-11-18", "until": "2026-11-20"}}}),
        ({"kind": "mask", "withdraw": True, "target": {"deposited": {"from": "2026-11-18T00:00:00+01:00", "until": "2026-11-21T00:00:00+01:00"}}},),
        reads(), "R09", "R18",
    ),
    "unmask_documents, every one": Case(
        ask(HOLDER, "unmask_documents", target={"type": "everybody"}), (OPEN, AUTHORISED, {"kind": "mask"}),
        ({"kind": "mask", "withdraw": True},), reads(), "R09", "R18",
    ),
    "hide_from_patient": Case(
        ask(WRITER, "hide_from_patient", REPORT), (OPEN,), ({"kind": "hidden_from_patient", "target": DOC},), reads(HOLDER), "H01", "H02", restrictive=True
    ),
    "reveal_to_patient": Case(
        ask(WRITER, "reveal_to_patient", REPORT), (OPEN, {"kind": "hidden_from_patient", "target": DOC}),
        ({"kind": "revealed_to_patient", "target": DOC},), reads(HOLDER), "H02", "H01",
    ),
    "hide_from_representatives": Case(
        ask(Entity("patient", MINOR), "hide_from_representatives", of(MINOR)), (OPEN, CHILD, REPRESENTED),
        ({"kind": "hidden_from_representatives", "target": DOC},), reads(PARENT, of(MINOR)), "H03", "H04", MINOR, True,
    ),
    "reveal_to_representatives": Case(
        ask(Entity("patient", MINOR), "reveal_to_representatives", of(MINOR)),
        (OPEN, CHILD, REPRESENTED, {"kind": "hidden_from_representatives", "target": DOC}),
        ({"kind": "hidden_from_representatives", "target": DOC, "withdraw": True},), reads(PARENT, of(MINOR)), "H04", "H03", MINOR,
    ),
}  # fmt: skip
PERMITTED = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@PERMITTED
def test_a_permitted_act_is_recorded_and_honoured_by_the_next_decision(case: Case):
    store = Memory(*case.known, patient=case.patient)
    assert rule(case.question, store.kept[case.patient]) == case.before
    done = perform(PDP, store, case.request, NOW, Conflict)
    said = {"recorded": START, "recorded_by": case.request.subject.id, "capacity": case.request.subject.type}
    assert done.answer.permitted
    assert [dict(one) for one in done.directives] == [{**one, **said} for one in case.records]
    assert store.written(len(case.known), case.patient) == list(done.directives)
    assert done.token == len(store.kept[case.patient])
    ((act, before, after),) = store.acts
    assert (act.id, act.action, act.rule, before, after) == (done.id, case.request.action.name, done.answer.rule, len(case.known), done.token)
    assert rule(case.question, store.kept[case.patient]) == case.after


def test_every_directive_that_the_vocabulary_declares_is_recorded_by_a_case():
    asked = [(case.request, one) for case in CASES.values() for one in case.records]
    recorded = {(request.action.name, one["kind"], one.get("withdraw", False), request.subject.type) for request, one in asked}
    declared = {(action, act.kind, act.withdraw) for action, acts in ACTS.items() for act in acts}
    assert {one[:3] for one in recorded} == declared
    variants = [act for acts in ACTS.values() for act in acts if act.when is not None]
    assert len(variants) == 7, "a new variant of an act needs a case"
    assert {one[3] for one in recorded if one[0] == "grant_access"} == {"patient", "representative", "professional"}


@PERMITTED
def test_what_an_act_closes_stays_closed_when_the_clock_steps_back(case: Case):
    store = Memory(*case.known, patient=case.patient)
    done = perform(PDP, store, case.request, NOW, Conflict)
    if case.restrictive:
        assert not any("from" in one for one in done.directives)
        assert rule(case.question, store.kept[case.patient], NOW - HOUR) == case.after


def test_what_is_granted_is_in_force_at_the_very_instant():
    store = Memory(OPEN)

    @given(st.floats(0, 4e9))
    def holds(instant: float) -> None:
        request = ask(HOLDER, "grant_access", target=DOCTOR_)
        (made,) = directives_of(PDP, request, PDP.fold(store.kept[PATIENT], instant), instant)
        assert rule(reads(), [OPEN, made], instant) == "R18"

    holds()


def test_a_store_whose_clock_is_ahead_of_the_caller_s_says_when_the_act_is_decided():
    store = Memory(OPEN, {**AUTHORISED, "until": "2026-11-21T10:00:05+01:00"}, late=10.0)
    done = perform(PDP, store, ask(HOLDER, "grant_access", target=DOCTOR_), NOW, Conflict)
    assert (done.answer.at, done.directives[0]["from"]) == (NOW + 10, "2026-11-21T09:00:10+00:00")


def test_an_action_that_records_nothing_is_decided_and_writes_nothing():
    done = perform(PDP, store := Memory(OPEN), ask(HOLDER, "read_status"), NOW, Conflict)
    assert (done.answer.rule, done.directives, done.token, len(store.kept[PATIENT])) == ("A11", (), 1, 1)


def test_the_basis_of_an_act_is_recorded():
    done = perform(PDP, Memory(OPEN), ask(HOLDER, "close", context={"basis": "letter of 20 November"}), NOW, Conflict)
    assert done.directives[0]["basis"] == "letter of 20 November"


def test_the_setting_ends_a_grant_that_names_no_end():
    pdp = Pdp(load_pack(FOLDER, {"authorisation_days": 30}), {}, {})  # nothing is decided: no slice is needed
    (made,) = directives_of(pdp, ask(HOLDER, "grant_access", target=DOCTOR_), pdp.fold([OPEN], NOW), NOW)
    assert made["until"] == "2026-12-21T09:00:00+00:00"
    (made,) = directives_of(pdp, ask(HOLDER, "grant_access", target=DOCTOR_, until="2026-11-30"), pdp.fold([OPEN], NOW), NOW)
    assert made["until"] == "2026-11-30"


# --- refused ---------------------------------------------------------------------------------------------------------

OUTSIDERS = {
    "a professional": professional(OTHER),
    "an organisation": organisation(CLINIC, "other"),
    "another patient": Entity("patient", "287037505601516"),
    "nobody's representative": Entity("representative", "185077505601435"),
    "an unknown kind of subject": Entity("robot", "1"),
}


@pytest.mark.parametrize("subject", OUTSIDERS.values(), ids=OUTSIDERS)
@PERMITTED
def test_a_refused_act_writes_nothing(case: Case, subject: Entity):
    store = Memory(*case.known, patient=case.patient)
    done = perform(PDP, store, replace(case.request, subject=subject), NOW, Conflict)
    assert not done.answer.permitted and done.directives == () and done.token == len(case.known)
    assert store.written(len(case.known), case.patient) == []
    ((act, before, after),) = store.acts
    assert (act.id, act.rule, act.told["subject"]["id"], before, after) == (done.id, done.answer.rule, subject.id, done.token, done.token)


def decided(request: Request, *known: Mapping[str, Any]) -> tuple[str, int]:
    """The rule that answers an act, and how many directives it wrote."""
    store = Memory(*known)
    return perform(PDP, store, request, NOW, Conflict).answer.rule, len(store.written(len(known)))


def collects(subject: Entity, action: str, form: str, id: str) -> Request:
    return ask(subject, action, context={"patient_request": True}, target=at(form, id))


EXCLUDED = {"kind": "exclusion", "target": HIM}
WITHDRAWN = {"kind": "exclusion", "target": THEM}
COLLEAGUE_IN_TEAM = {"kind": "membership", "target": {"professional": NURSE}, "team": HOSPITAL}
MEASURE = {"kind": "representation", "target": FOR, "ground": "measure"}

RULES_ABOUT_RULES = {
    "a treating physician is not blocked": (ask(HOLDER, "block", target=DOCTOR_), (OPEN, TREATING), "A02-block"),
    "a blocked professional is not declared treating": (
        ask(HOLDER, "declare_treating_physician", target=PHYSICIAN_), (OPEN, BLOCKED), "A02-declare",
    ),
    "a blocked physician does not declare himself": (
        ask(PHYSICIAN, "declare_treating_physician", context={"patient_request": True}, target=PHYSICIAN_), (OPEN, BLOCKED), "R05",
    ),
    "a professional does not remove a colleague's authorisation": (ask(COLLEAGUE, "revoke_access", target=DOCTOR_), (OPEN, AUTHORISED), "A04-others"),
    "a professional does not remove his structure's authorisation": (
        ask(COLLEAGUE, "revoke_access", target=at("structure", HOSPITAL)), (OPEN, {"kind": "authorisation", "target": HOUSE}), "A04-others",
    ),
    "outside the team, no consent for another professional": (collects(COLLEAGUE, "grant_access", "professional", DOCTOR), (OPEN, TEAM), "A99"),
    "a member of a team without consent records none for another": (
        collects(COLLEAGUE, "grant_access", "professional", DOCTOR), (OPEN, COLLEAGUE_IN_TEAM), "A99",
    ),
    "an excluded professional does not record the consent to himself": (
        collects(PHYSICIAN, "grant_access", "professional", DOCTOR), (OPEN, EXCLUDED), "A03-revoked",
    ),
    "nor does the team for him": (collects(COLLEAGUE, "grant_access", "professional", DOCTOR), (OPEN, TEAM, COLLEAGUE_IN_TEAM, EXCLUDED), "A03-revoked"),
    "a professional does not collect again the team consent that the holder withdrew": (
        collects(COLLEAGUE, "consent_care_team", "team", HOSPITAL), (OPEN, COLLEAGUE_IN_TEAM, WITHDRAWN), "A03-revoked_team",
    ),
    "nor does the structure": (ask(organisation(HOSPITAL), "consent_care_team", target=at("team", HOSPITAL)), (OPEN, WITHDRAWN), "A15-revoked_team"),
    "an excluded professional is not brought back into the team": (
        ask(organisation(HOSPITAL), "join_care_team", target=at("professional", DOCTOR, team=HOSPITAL)), (OPEN, EXCLUDED), "A99",
    ),
    "a minor's representative has no power from majority on": (ask(PARENT, "close"), (OPEN, ADULT, REPRESENTED), "H05"),
    "nor has one under a measure that is over": (ask(PARENT, "close"), (OPEN, ADULT, {**MEASURE, "until": "2026-11-20"}), "H05"),
    "nor has one whose measure was ended": (ask(PARENT, "close"), (OPEN, ADULT, MEASURE, {**MEASURE, "withdraw": True}), "H05"),
    "a non-opposition lifts no opposition": (ask(organisation(HOSPITAL), "withdraw_feeding_opposition"), (OPEN, {"kind": "feeding_opposition"}), "A15-lifting"),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "known", "expected"), RULES_ABOUT_RULES.values(), ids=RULES_ABOUT_RULES)
def test_a_rule_about_rules_refuses_and_nothing_is_written(request_: Request, known: tuple[Mapping[str, Any], ...], expected: str):
    assert decided(request_, *known) == (expected, 0)


def test_consent_for_another_professional_comes_from_the_team():
    assert decided(collects(COLLEAGUE, "grant_access", "professional", DOCTOR), OPEN, TEAM, COLLEAGUE_IN_TEAM) == ("A03", 1)


def test_a_representative_keeps_his_power_while_the_measure_or_minority_lasts():
    assert decided(ask(PARENT, "close"), OPEN, ADULT, MEASURE) == ("A01", 1)
    assert decided(ask(PARENT, "close"), OPEN, CHILD, REPRESENTED) == ("A01", 1)
    majority = parse_instant("2032-06-01T00:00:00+02:00") or 0.0
    assert [rule(ask(PARENT, "close"), [OPEN, CHILD, REPRESENTED], instant) for instant in (majority - 1, majority)] == ["A01", "H05"]


def test_a_representative_cannot_say_that_the_holder_gave_an_authorisation():
    store = Memory(OPEN, CHILD, REPRESENTED)
    claim = ask(PARENT, "grant_access", target=DOCTOR_, given="in_person", by="holder")
    assert perform(PDP, store, claim, NOW, Conflict).directives[0]["by"] == "representative"
    assert rule(reads(professional(DOCTOR, role="occupational")), store.kept[PATIENT]) == "R15-otherwise"


def test_the_holder_excludes_a_member_and_grants_again():
    store = Memory(OPEN, TEAM, MEMBER, AUTHORISED)
    assert perform(PDP, store, ask(HOLDER, "revoke_access", target=DOCTOR_), NOW, Conflict).answer.permitted
    assert rule(reads(), store.kept[PATIENT]) == "R20"
    assert not perform(PDP, store, collects(PHYSICIAN, "grant_access", "professional", DOCTOR), NOW, Conflict).answer.permitted
    assert rule(reads(), store.kept[PATIENT]) == "R20"
    assert perform(PDP, store, ask(HOLDER, "grant_access", target=DOCTOR_), NOW, Conflict).answer.permitted
    assert rule(reads(), store.kept[PATIENT]) == "R18"
    assert perform(PDP, store, ask(organisation(HOSPITAL), "join_care_team", target=at("professional", DOCTOR, team=HOSPITAL)), NOW, Conflict).answer.permitted


def test_the_holder_gives_again_the_team_consent_that_he_withdrew():
    store = Memory(OPEN, TEAM, MEMBER)
    for action, expected in (("withdraw_care_team_consent", "R17"), ("consent_care_team", "R16")):
        assert perform(PDP, store, ask(HOLDER, action, target=at("team", HOSPITAL)), NOW, Conflict).answer.permitted
        assert rule(reads(), store.kept[PATIENT]) == expected


# --- malformed -------------------------------------------------------------------------------------------------------

TEXT = "action.target.id: must be one identifier, as text"
MALFORMED = {
    "no identifier": ("block", {"type": "professional"}, f"{TEXT} (ask once for each)"),
    "a number": ("block", at("professional", 10000000017), f"{TEXT} (the RPPS: 11 digits)"),
    "a list": ("block", at("professional", [DOCTOR, OTHER]), f"{TEXT} (the RPPS: 11 digits)"),
    "blank": ("block", at("professional", " "), "action.target.id: is not written like an identifier of a professional (the RPPS: 11 digits)"),
    "spaces": ("block", at("professional", f"{DOCTOR} "), "action.target.id: is not written like an identifier of a professional (the RPPS: 11 digits)"),
    "a wrong check digit": (
        "block", at("professional", "10000000018"),
        "action.target.id: is not an identifier of a professional: its check digits do not fit the others (the RPPS: 11 digits)",
    ),
    "an identifier and an interval": (
        "block", at("professional", DOCTOR, until="2026-12-01"),
        "action.target: has both an `id` and an interval (aim at one thing, or at what lies between two instants)",
    ),
    "an interval where an identifier stands": (
        "block", {"type": "professional", "from": "2026-01-01"}, "the directive `block` of `block`.target.professional: must be text that is not blank",
    ),
    "an interval where a type stands": (
        "mask_documents", {"type": "type", "from": "2026-01-01"}, "the directive `mask` of `mask_documents`.target.type: must be text that is not blank",
    ),
    "a text where an interval stands": (
        "mask_documents", at("deposited", "2026"),
        "the directive `mask` of `mask_documents`.target.deposited: must have `from`, `until` or both, and nothing else",
    ),
    "an interval that ends before it begins": (
        "mask_documents", {"type": "deposited", "from": "2026-02-01", "until": "2026-01-01"},
        "the directive `mask` of `mask_documents`.target.deposited.until: is not after `from`",
    ),
    "a type that is none": (
        "mask_documents", at("type", "NOSUCH"),
        "the directive `mask` of `mask_documents`.target.type: `NOSUCH` is not a row of `matrix/read.csv` (look in its first column)",
    ),
    "a type almost right": (
        "mask_documents", at("type", "11502-3"),
        "the directive `mask` of `mask_documents`.target.type: `11502-3` is not a row of `matrix/read.csv` (did you mean `11502-2`?)",
    ),
    "everybody, and somebody": (
        "mask_documents", at("everybody", CLINIC),
        "action.target: is `everybody`, and names something (leave out `id`, `from` and `until`, or say what it names)",
    ),
    "an author whose check digit is wrong": (
        "mask_documents", at("author", "10000000018"),
        "action.target.id: is an identifier of none of: patient, professional, structure (the INS: the 13 characters of the NIR or the NIA and its key of 2, "
        "without spaces; the RPPS: 11 digits; the FINESS: 9 characters)",
    ),
    "a membership without its team": (
        "join_care_team", at("professional", DOCTOR), "the directive `membership` of `join_care_team`.team: is missing (a membership names its group)",
    ),
    "an end before the beginning": (
        "consent_care_team", at("team", HOSPITAL), "the directive `care_team_consent` of `consent_care_team`.until: is not after `from`",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("action", "target", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_target_is_an_error_and_nothing_is_written(action: str, target: Any, expected: str):
    store = Memory(OPEN, TEAM, {"kind": "membership", "target": {"professional": NURSE}, "team": HOSPITAL})
    subject = professional(NURSE, "G15_60", structure=HOSPITAL) if action == "join_care_team" else HOLDER
    request = ask(subject, action, target=target, **({"until": "2020-01-01"} if action == "consent_care_team" else {}))
    if action == "join_care_team":  # the policy would not permit it without a team: what is left is what an act makes of it
        with pytest.raises(RequestError) as caught:
            directives_of(PDP, request, store.read(PATIENT, NOW)[0], NOW)
    else:
        with pytest.raises(RequestError) as caught:
            perform(PDP, store, request, NOW, Conflict)
    assert str(caught.value) == expected
    assert len(store.kept[PATIENT]) == 3


def test_a_mask_of_a_type_that_nobody_knows_any_more_can_be_lifted():
    lost = {"kind": "mask", "target": {"type": "NOSUCH"}}
    store = Memory(OPEN, AUTHORISED, lost)
    assert rule(reads(), store.kept[PATIENT]) == "R18"
    done = perform(PDP, store, ask(HOLDER, "unmask_documents", target=at("type", "NOSUCH")), NOW, Conflict)
    assert [(one["withdraw"], one["target"]) for one in done.directives] == [(True, {"type": "NOSUCH"})]
    assert [one.kind for one in store.read(PATIENT, NOW)[0].in_force] == ["opened", "authorisation"]


WORDS: dict[str, tuple[Request, str]] = {
    "a ground that is none": (
        ask(INSURANCE, "declare_representation", target=at("representative", PARENT.id), ground="minor"),
        "the directive `representation` of `declare_representation`.ground: `minor` is not a word of this kind (did you mean `minority`?)",
    ),
    "mere assistance": (
        ask(INSURANCE, "declare_representation", target=at("representative", PARENT.id), ground="assistance"),
        "the directive `representation` of `declare_representation`.ground: `assistance` is not a word of this kind (it takes minority, measure)",
    ),
    "no ground": (
        ask(INSURANCE, "declare_representation", target=at("representative", PARENT.id)),
        "action.ground: is missing (`declare_representation` says it)",
    ),
    "a blank ground": (
        ask(INSURANCE, "declare_representation", target=at("representative", PARENT.id), ground=" "),
        "action.ground: is missing (`declare_representation` says it)",
    ),
    "given in a way that is none": (
        ask(HOLDER, "grant_access", target=DOCTOR_, given="in person"),
        "the directive `authorisation` of `grant_access`.given: `in person` is not a word of this kind (did you mean `in_person`?)",
    ),
    "given by nobody": (
        ask(PHYSICIAN, "grant_access", context={"patient_request": True}, target=DOCTOR_, by="professional"),
        "the directive `authorisation` of `grant_access`.by: `professional` is not a word of this kind (it takes holder, representative)",
    ),
}


@pytest.mark.parametrize(("request_", "expected"), WORDS.values(), ids=WORDS)
def test_a_word_that_nobody_reads_is_an_error_and_nothing_is_written(request_: Request, expected: str):
    store = Memory(OPEN, CHILD)
    with pytest.raises(RequestError) as caught:
        perform(PDP, store, request_, NOW, Conflict)
    assert str(caught.value) == expected
    assert len(store.kept[PATIENT]) == 2 and store.acts == []


@pytest.mark.parametrize("target", [None, "professional", [], {}, {"id": DOCTOR}, at(7, DOCTOR), at("neighbour", DOCTOR)], ids=str)
def test_a_target_that_is_none_is_refused_by_the_policy_or_an_error(target: Any):
    for action, acts in ACTS.items():
        if any(act.target is not None and not isinstance(act.target, tuple) for act in acts):
            store = Memory(OPEN)
            try:
                assert not perform(PDP, store, ask(HOLDER, action, target=target), NOW, Conflict).answer.permitted
            except RequestError as error:
                assert error.where.startswith("action.target")
            assert len(store.kept[PATIENT]) == 1


NARROWED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "of a structure": (
        at("structure", CLINIC), HOSPITAL,
        ".structure: narrows a target `deposited`, and this one is `structure` (leave it out, or aim at what it narrows)",
    ),
    "of every document": (
        at("everybody", None), CLINIC, ".structure: narrows a target `deposited`, and this one is `everybody` (leave it out, or aim at what it narrows)",
    ),
    "of a structure whose check digit is wrong": (
        STAY, "750000018", "action.structure: is not an identifier of a structure: its check digits do not fit the others (the FINESS: 9 characters)",
    ),
    "of a person's": (STAY, DOCTOR, "action.structure: is not written like an identifier of a structure (the FINESS: 9 characters)"),
    "of no text": (STAY, 750000028, "action.structure: must be one identifier, as text (the FINESS: 9 characters)"),
    "of a blank one": (STAY, " ", "action.structure: is not written like an identifier of a structure (the FINESS: 9 characters)"),
    "of two": (STAY, [CLINIC, HOSPITAL], ".structure: must be text that is not blank"),
    "of none of several": (STAY, [], ".structure: must be text that is not blank"),
}


@pytest.mark.parametrize(("target", "structure", "expected"), NARROWED.values(), ids=NARROWED)
@pytest.mark.parametrize("action", ["mask_documents", "unmask_documents"])
def test_a_stay_that_makes_no_sense_is_an_error_and_nothing_is_written(action: str, target: Any, structure: Any, expected: str):
    """INVARIANT: what narrows an act is never left out of it, which would then be wider than it was meant."""
    store = Memory(OPEN)
    with pytest.raises(RequestError) as caught:
        perform(PDP, store, ask(HOLDER, action, target=target, structure=structure), NOW, Conflict)
    assert str(caught.value) == (f"the directive `mask` of `{action}`{expected}" if expected.startswith(".") else expected)
    assert len(store.kept[PATIENT]) == 1


def test_unmasking_ends_the_mask_that_was_said_in_these_very_words_and_no_other():
    others = {"structure": HOSPITAL}, {}, {"structure": CLINIC}
    for ended in others:
        store = Memory(OPEN, *({"kind": "mask", "target": {"deposited": STAYED}} | one for one in others))
        assert perform(PDP, store, ask(HOLDER, "unmask_documents", target=STAY, **ended), NOW, Conflict).answer.permitted
        masks = [one for one in store.read(PATIENT, NOW)[0].in_force if one.kind == "mask"]
        assert [one.directive.properties for one in masks] == [one for one in others if one != ended]


def test_a_structure_beside_an_act_that_has_none_is_read_by_nobody():
    with pytest.raises(RequestError, match=r"^action\.structure: is read by nothing when `grant_access` is asked for"):
        check_read(PDP.pack, ask(HOLDER, "grant_access", target=DOCTOR_, structure=CLINIC))
    check_read(PDP.pack, ask(HOLDER, "mask_documents", target=STAY, structure=CLINIC))


def test_a_professional_who_names_himself_among_others_removes_nobody():
    store = Memory(OPEN, AUTHORISED, {"kind": "authorisation", "target": {"professional": OTHER}})
    with pytest.raises(RequestError, match="must be one identifier"):
        perform(PDP, store, ask(PHYSICIAN, "revoke_access", target=at("professional", [DOCTOR, OTHER])), NOW, Conflict)
    assert len(store.kept[PATIENT]) == 3


def test_an_act_on_a_patient_whose_identifier_is_misspelt_is_an_error():
    request = replace(ask(HOLDER, "close"), resource=Entity("record", "2 79 03 51 215 189 89"))
    with pytest.raises(RequestError, match=r"^resource\.id: is not written like an identifier of a patient"):
        perform(PDP, Memory(OPEN), request, NOW, Conflict)


def test_an_act_names_its_patient():
    with pytest.raises(RequestError) as caught:
        patient_of(PDP, ask(HOLDER, "mask", Entity("document", "DOC-1")))
    assert (caught.value.where, caught.value.message) == ("patient", "does not say whose record it is")


# --- together, and at the same time ----------------------------------------------------------------------------------

BLOCK = ask(HOLDER, "block", target=DOCTOR_)
DECLARE = ask(INSURANCE, "declare_treating_physician", target=PHYSICIAN_)


@pytest.mark.parametrize(("first", "second", "refused"), [(BLOCK, DECLARE, "A02-declare"), (DECLARE, BLOCK, "A02-block")], ids=["block", "declare"])
def test_an_act_is_decided_again_when_somebody_else_wrote_first(first: Request, second: Request, refused: str):
    store = Memory(OPEN, ADULT)
    store.meanwhile = lambda: perform(PDP, store, first, NOW, Conflict)
    done = perform(PDP, store, second, NOW, Conflict)
    assert (done.answer.rule, done.directives) == (refused, ())
    assert len(store.kept[PATIENT]) == 3 and store.reads == 3


def test_an_act_that_is_still_permitted_is_done_on_the_new_record():
    store = Memory(OPEN)
    store.meanwhile = lambda: perform(PDP, store, ask(HOLDER, "refuse_regulation"), NOW, Conflict)
    assert perform(PDP, store, BLOCK, NOW, Conflict).token == 3
    assert [one["kind"] for one in store.kept[PATIENT]] == ["opened", "regulation_refusal", "block"]


def test_never_both_blocked_and_treating_whoever_writes_when():
    for _ in range(20):
        store, gate, done = Memory(OPEN, ADULT), threading.Barrier(2), []

        def act(request: Request, store: Memory = store, gate: threading.Barrier = gate, done: list[Done] = done) -> None:
            gate.wait()
            done.append(perform(PDP, store, request, NOW, Conflict))

        threads = [threading.Thread(target=act, args=(request,)) for request in (BLOCK, DECLARE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(one.answer.permitted for one in done) == [False, True]
        assert len(store.kept[PATIENT]) == 3


def test_the_consent_store_is_such_a_store(tmp_path: Path):
    store = ConsentStore(f"sqlite:///{tmp_path}/consent.db", PDP.pack.vocabulary, create=True)
    try:
        assert perform(PDP, store, ask(HOLDER, "open", birth_date="1979-03-28"), NOW, RealConflict).answer.rule == "A10"
        append = store.append

        def slow(*args: Any, **more: Any) -> Any:
            store.append = append  # type: ignore[method-assign]
            perform(PDP, store, DECLARE, NOW, RealConflict)
            return append(*args, **more)

        store.append = slow  # type: ignore[method-assign]
        assert perform(PDP, store, BLOCK, NOW, RealConflict).answer.rule == "A02-block"
        done = perform(PDP, store, ask(HOLDER, "grant_access", target=at("professional", OTHER)), NOW - 60, RealConflict)
        assert done.answer.permitted and done.answer.at >= NOW, "its clock does not step back with the caller's"
        assert rule(reads(professional(OTHER)), [one.directive for one in store.history(PATIENT)], done.answer.at) == "R18"
    finally:
        store.close()


def test_a_store_that_always_changed_is_given_up():
    store = Memory(OPEN)

    def again() -> None:
        store.kept[PATIENT].append({"kind": "deceased", "withdraw": True})
        store.meanwhile = again

    store.meanwhile = again
    with pytest.raises(Conflict):
        perform(PDP, store, BLOCK, NOW, Conflict, tries=3)
    assert store.reads == 3 and not any(one["kind"] == "block" for one in store.kept[PATIENT])


def test_several_acts_are_done_all_or_none():
    store = Memory(OPEN)
    hospital = organisation(HOSPITAL)
    both = [ask(hospital, "oppose_feeding"), ask(hospital, "consent_care_team", target=at("team", HOSPITAL))]
    done = perform_all(PDP, store, both, NOW, Conflict)
    assert [one.answer.rule for one in done] == ["A15", "A15-team"]
    assert [[each["kind"] for each in one.directives] for one in done] == [["feeding_opposition"], ["care_team_consent"]]
    assert len(store.kept[PATIENT]) == 3 and {one.token for one in done} == {3}
    done = perform_all(PDP, store, [*both, ask(hospital, "accept_break_glass")], NOW, Conflict)
    assert [one.answer.permitted for one in done] == [True, True, False]
    assert len(store.kept[PATIENT]) == 3 and all(one.directives == () for one in done)


def test_acts_on_two_records_are_not_done_together():
    with pytest.raises(RequestError, match=r"^patient: acts that are done together are about one record$"):
        perform_all(PDP, Memory(OPEN), [ask(HOLDER, "close"), replace(ask(HOLDER, "close"), resource=Entity("record", MINOR))], NOW, Conflict)


# --- previews --------------------------------------------------------------------------------------------------------


def test_a_preview_says_what_would_be_answered_now_and_then():
    known = parse_directives([OPEN, AUTHORISED], PDP.pack.vocabulary)
    masked = replace(REPORT, id="DOC-2")
    seen = preview(PDP, known, ask(HOLDER, "mask", masked), PHYSICIAN, [REPORT, masked], {"purpose": "care"}, NOW)
    assert [(one.document.id, one.now.rule, one.then.rule) for one in seen] == [("DOC-1", "R18", "R18"), ("DOC-2", "R18", "R09")]


def test_a_preview_without_an_act_says_twice_the_same():
    (seen,) = preview(PDP, parse_directives([OPEN], PDP.pack.vocabulary), None, PHYSICIAN, [REPORT], {"purpose": "care"}, NOW)
    assert (seen.now.rule, seen.then.rule) == ("R19", "R19")


@PERMITTED
def test_a_preview_of_an_act_says_what_the_act_then_does(case: Case):
    if case.question.action.name == "read":
        known = parse_directives(case.known, PDP.pack.vocabulary)
        (seen,) = preview(PDP, known, case.request, case.question.subject, [case.question.resource], case.question.context, NOW)
        assert (seen.now.rule, seen.then.rule) == (case.before, case.after)


def test_a_preview_of_a_refused_act_is_an_error():
    known = parse_directives([OPEN, TREATING], PDP.pack.vocabulary)
    with pytest.raises(RequestError) as caught:
        preview(PDP, known, BLOCK, PHYSICIAN, [REPORT], {"purpose": "care"}, NOW)
    assert caught.value.where == "action block"
    assert caught.value.message == f"would be refused: {PDP.pack.reasons['A02-block'].words['en']}"


# --- the access list -------------------------------------------------------------------------------------------------

KINDS = ("authorisation", "care_team_consent", "treating_physician", "equal_rights")


def instant(text: str) -> float:
    return parse_instant(text) or 0.0


def test_the_access_list_names_people_structures_and_the_members_of_teams():
    record = PDP.fold(
        [
            OPEN,
            {**AUTHORISED, "from": "2026-11-01T00:00:00Z", "until": "2026-12-01T00:00:00Z", "recorded_by": PATIENT},
            {"kind": "authorisation", "target": {"structure": CLINIC}, "recorded_by": PATIENT},
            {**TEAM, "until": "2027-01-01T00:00:00Z", "recorded_by": HOSPITAL},
            {**MEMBER, "from": "2026-11-02T00:00:00Z", "recorded_by": NURSE},
            {**COLLEAGUE_IN_TEAM, "until": "2026-11-30T00:00:00Z"},
            {"kind": "membership", "target": {"professional": OTHER}, "team": CLINIC},
            {**TREATING, "recorded_by": DESK},
            {"kind": "equal_rights", "target": {"professional": OTHER}, "until": "2026-11-20T00:00:00Z"},
            {"kind": "block", "target": {"professional": OTHER}},
            {"kind": "mask", "target": {"deposited": STAYED}, "structure": CLINIC},
        ],
        NOW,
    )
    assert access_list(record, PDP.pack.vocabulary, KINDS) == [
        Access("professional", DOCTOR, "authorisation", instant("2026-11-01T00:00:00Z"), instant("2026-12-01T00:00:00Z"), "", PATIENT),
        Access("structure", CLINIC, "authorisation", -FOREVER, FOREVER, "", PATIENT),
        Access("team", HOSPITAL, "care_team_consent", -FOREVER, instant("2027-01-01T00:00:00Z"), "", HOSPITAL),
        Access("professional", DOCTOR, "care_team_consent", instant("2026-11-02T00:00:00Z"), instant("2027-01-01T00:00:00Z"), f"team {HOSPITAL}", HOSPITAL),
        Access("professional", NURSE, "care_team_consent", -FOREVER, instant("2026-11-30T00:00:00Z"), f"team {HOSPITAL}", HOSPITAL),
        Access("professional", DOCTOR, "treating_physician", -FOREVER, FOREVER, "", DESK),
    ]
    assert [one.who for one in access_list(record, PDP.pack.vocabulary, ["block"])] == [OTHER]


def test_what_names_a_structure_beside_its_target_is_no_member_of_it():
    stay = {"kind": "mask", "target": {"deposited": STAYED}, "structure": CLINIC}
    record = PDP.fold([OPEN, {"kind": "authorisation", "target": {"structure": CLINIC}}, stay], NOW)
    assert [(one.form, one.who) for one in access_list(record, PDP.pack.vocabulary, PDP.pack.vocabulary.kinds)] == [("structure", CLINIC)]


def test_whoever_is_excluded_or_withdrawn_leaves_the_access_list():
    store = Memory(OPEN, TEAM, MEMBER, AUTHORISED, {"kind": "authorisation", "target": {"structure": CLINIC}})
    perform(PDP, store, ask(HOLDER, "revoke_access", target=DOCTOR_), NOW, Conflict)
    perform(PDP, store, ask(HOLDER, "revoke_access", target=at("structure", CLINIC)), NOW, Conflict)
    assert [(one.form, one.who) for one in access_list(store.read(PATIENT, NOW)[0], PDP.pack.vocabulary, KINDS)] == [("team", HOSPITAL)]
    perform(PDP, store, ask(HOLDER, "withdraw_care_team_consent", target=at("team", HOSPITAL)), NOW, Conflict)
    assert access_list(store.read(PATIENT, NOW)[0], PDP.pack.vocabulary, KINDS) == []


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "policies").symlink_to(FOLDER)
    monkeypatch.chdir(tmp_path)
    ConsentStore("sqlite:///consent.db", PDP.pack.vocabulary, create=True).close()
    blocks = re.findall(r"```python\n(.*?)```", (FOLDER.parent / "docs/consent.md").read_text(), re.S)
    names: dict[str, Any] = {"now": NOW, "patient": PATIENT, "data": b"identifier,profession\n10000000017,G15_10\n", "messages": []}
    names["log"] = SimpleNamespace(append_now=lambda *_: None)
    for block in blocks:
        exec(block, names)
    names["store"].close()
    assert len(blocks) == 4 and names["done"].answer.rule == "R01" and names["one"].act.id == names["done"].id
    assert (names["found"], names["taken"], names["dead"]) == ([], [], [])
    assert names["block"].action.properties["target"]["profession"] == "G15_10"
