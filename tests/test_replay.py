"""A logged decision taken again: the same rule, on the record as it was known then; and when something was changed since, that is said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from consent_workers import VOCABULARY, Memory, pdp

from engine.consent.acts import patient_of
from engine.consent.store import ConsentStore, StaleToken
from engine.errors import RequestError
from engine.pack import load_pack
from engine.pdp import Pdp
from engine.replay import replay
from engine.request import Action, Entity, Request
from engine.service import By, Live, Look, Service, said
from engine.vectors import Packs, read_vectors

ROOT = Path(__file__).parent.parent
NOW = 1_795_266_300.0
PATIENT, DOCTOR, NURSE, HOSPITAL = "279035121518989", "10000000017", "10000000033", "750000028"
HOLDER, HOME = Entity("patient", PATIENT), Entity("record", PATIENT)
PHYSICIAN = Entity("professional", DOCTOR, {"profession": "G15_10", "authentication": "DIRECTE"})
HIM = {"type": "professional", "id": DOCTOR}


def report(id: str = "DOC-1", **more: Any) -> Entity:
    return Entity("document", id, {"patient": PATIENT, "type": "11488-4", "status": "Approved", "confidentiality": ["N"], **more})


class Desk:
    """A service whose clock moves on by a minute with each question, and its log."""

    def __init__(self, store: ConsentStore):
        self.store, self.log, self.now = store, Memory(), NOW
        self.service = Service(pdp(), store, self.log, clock=self.tick)

    def tick(self) -> float:
        self.now += 60
        return self.now

    def act(self, action: str, **properties: Any) -> dict[str, Any]:
        self.service.act(Request(HOLDER, Action(action, properties), HOME, {"purpose": "care"}), By("a desk"))
        return self.log.entries[-1]

    def read(self, *documents: Entity, subject: Entity = PHYSICIAN, **context: Any) -> dict[str, Any]:
        asyncio.run(self.service.decide(subject, Action("read"), documents or [report()], {"purpose": "care", **context}, By("a store")))
        return self.log.entries[-1]

    def again(self, body: dict[str, Any]) -> list[tuple[bool, str, str]]:
        return [(one.is_same, one.logged.rule, one.now.rule) for one in replay(pdp(), self.store, body)]


@pytest.fixture
def desk(place: Path) -> Iterator[Desk]:
    with ConsentStore(f"sqlite:///{place}/consent.db", VOCABULARY, create=True) as store:
        made = Desk(store)
        made.act("open", birth_date="1979-03-28")
        yield made


pytest_plugins = ["servers"]


def test_a_decision_is_the_same_again_whatever_was_said_since(desk: Desk) -> None:
    before = desk.read()
    desk.act("grant_access", target=HIM)
    during = desk.read()
    desk.act("block", target=HIM)
    after = desk.read()
    assert [desk.again(one) for one in (before, during, after)] == [[(True, "R19", "R19")], [(True, "R18", "R18")], [(True, "R05", "R05")]]


def test_what_ended_since_is_in_force_at_the_instant_of_the_decision(desk: Desk) -> None:
    desk.act("grant_access", target=HIM, until="2026-12-31")
    body = desk.read()
    desk.now += 400 * 86_400
    assert desk.again(desk.read())[0][1] == "R19" and desk.again(body) == [(True, "R18", "R18")]


def test_each_document_of_a_list_is_taken_again_and_what_is_not_known_of_it_is_named(desk: Desk) -> None:
    desk.act("grant_access", target=HIM)
    desk.act("mask_documents", target={"type": "structure", "id": HOSPITAL})
    elsewhere = {"structure": "750000036"}
    body = desk.read(
        report("DOC-1", **elsewhere),
        report("DOC-2", structure=HOSPITAL),
        report("DOC-3", confidentiality=["MASQUE_PS"], **elsewhere),
        report("DOC-4", status="Deleted", **elsewhere),
    )
    several = replay(pdp(), desk.store, body)
    assert [(one.resource, one.is_same, one.now.rule) for one in several] == [
        ("DOC-1", True, "R18"), ("DOC-2", True, "R09"), ("DOC-3", True, "R09"), ("DOC-4", True, "R04"),
    ]  # fmt: skip
    taken = set(several[0].taken)
    assert {"consent.masked", "resource.masked_by_code"} & taken and not {"consent.blocked", "consent.authorised", "context.access_mode"} & taken


def test_an_act_is_asked_again_as_it_was_permitted_or_refused(desk: Desk) -> None:
    declared = desk.act("declare_treating_physician", target=HIM | {"profession": "G15_10"})
    refused = desk.act("block", target=HIM)
    desk.act("end_treating_physician", target=HIM)
    assert desk.again(declared) == [(True, "A12-declare", "A12-declare")] and desk.again(refused) == [(True, "A02-block", "A02-block")]
    asked = next(one for one in desk.log.entries if one["id"] == refused["id"] and one["state"] == "asked")
    assert desk.again(asked) == [(True, "A02-block", "A02-block")]


def test_an_act_that_was_not_kept_is_taken_again_from_what_the_log_has(desk: Desk) -> None:
    body = desk.act("block", target=HIM)
    assert desk.again({**body, "id": "0" * 26}) == [(True, "A01-block", "A01-block")]


def test_who_is_no_part_of_the_policy_is_refused_again(desk: Desk) -> None:
    body = desk.read(subject=Entity("robot", "7"))
    assert desk.again(body)[0][0]


# --- what was changed ------------------------------------------------------------------------------------------------


def test_a_decision_that_does_not_follow_from_the_record_is_told_with_the_facts_that_differ(desk: Desk) -> None:
    desk.act("grant_access", target=HIM)
    body = desk.read()
    later = desk.act("block", target=HIM)["after"]
    (one,) = replay(pdp(), desk.store, {**body, "token": later, "at": desk.now + 1})
    assert (one.is_same, one.logged.rule, one.now.rule, one.changed) == (False, "R18", "R05", {"consent.blocked": (False, True)})
    assert one.as_dict()["changed"] == {"consent.blocked": {"logged": False, "now": True}}


def test_an_outcome_that_was_put_into_the_log_is_found(desk: Desk) -> None:
    body = desk.read()
    permit = next(one.number for one in pdp().outcomes if one.rule == "R18")
    id, row, code, _, letters = body["items"][0]
    assert desk.again({**body, "items": [[id, row, code, permit, letters]]}) == [(False, "R18", "R19")]
    runner = pdp().runner("professional", "read")
    assert runner is not None
    shift = runner.tables.fields["consent.blocked"][0]
    assert desk.again({**body, "items": [[id, row, code ^ (1 << shift), body["items"][0][3], letters]]})[0][0] is False


def test_what_cannot_be_taken_again_is_said(desk: Desk, place: Path) -> None:
    body = desk.read()
    other = Pdp(load_pack(ROOT / "policies", {"inferred_cells": "follow"}))
    with pytest.raises(RequestError, match=r"^pack: the decision was taken by the pack [0-9a-f]+, and this one is "):
        replay(other, desk.store, body)
    for entry in ({"kind": "read", "id": "x", "at": 1.0}, {"kind": "search"}, {}):
        with pytest.raises(RequestError, match="is no decision and no act"):
            replay(pdp(), desk.store, entry)
    for broken in ({**body, "items": [["DOC-1"]]}, {**body, "items": [["DOC-1", None, 0, 10**6, ""]]}, {**body, "subject": None}, {**body, "context": 7}):
        with pytest.raises(RequestError, match="is not one that a service wrote"):
            replay(pdp(), desk.store, broken)
    with pytest.raises(StaleToken):
        replay(pdp(), desk.store, {**body, "token": "1.99"})
    with pytest.raises(RequestError, match="there is no consent store"):
        replay(pdp(), None, body)


# --- every rule ------------------------------------------------------------------------------------------------------


class Folded:
    """A store that knows one record."""

    def __init__(self, record: Any):
        self.record = record

    def as_of(self, *_: Any, **__: Any) -> Any:
        return self.record

    def acts(self, *_: Any) -> tuple[()]:
        return ()


def test_every_vector_is_the_same_again_from_its_entry() -> None:
    load, number = Packs(), 0
    lives: dict[int, Live] = {}
    for case in read_vectors([ROOT / "test_vectors"], load):
        engine = load(case.pack, case.settings)
        if case.problem or case.request is None:
            continue
        answer = engine.decide(case.request, engine.fold(case.directives, case.at))
        live = lives.get(id(engine)) or lives.setdefault(id(engine), Service(engine, None, Memory()).live)
        try:
            patient = patient_of(engine, case.request)
        except RequestError:
            continue
        look = Look("0" * 26, case.at, patient, None, [answer], live)
        body = {"kind": "decision", **msgspec.json.decode(msgspec.json.encode(said(look, By("a store"))))}
        (one,) = replay(engine, Folded(answer.record), {**body, "token": "1.1"})  # type: ignore[arg-type]
        assert one.is_same, (case.id, one)
        number += 1
    assert number > 500
