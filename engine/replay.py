"""A decision of the log, taken again: on the record as it was known then, at its instant, by the pack that took it. Does the same rule decide?

An act is kept beside the record with all that was asked, so it is asked again as it was. Of a reading the log has who asked for what, and of each document its
identifier and its type and nothing more: facts that ask for more of a document (who wrote it, its codes) are taken from the logged situation, and are named.
Everything that the patient's record, the one who asked, the action and the context say is looked at anew.

    RequestError   it is no decision, or not of this pack        StaleToken   the record that it was taken on was lost when a backup was restored
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.answer import Answer
from engine.consent.fold import Record
from engine.consent.store import ConsentStore, parse_token
from engine.decision_log.entries import paths_of
from engine.errors import RequestError
from engine.evaluator.slices import Outcome
from engine.pdp import Pdp, Runner
from engine.request import Action, Entity, Request
from engine.vocabulary import Cell, Fact, Path, Value

KINDS = ("decision", "act")


@dataclass(frozen=True, slots=True)
class Replayed:
    """One resource of a decision. `changed`: facts that are not what the log says, each as logged and as they are now; `taken`: those taken from the log."""

    resource: str
    logged: Outcome
    now: Outcome
    changed: Mapping[str, tuple[Value, Value]]
    taken: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        return self.now.number == self.logged.number and not self.changed

    def as_dict(self) -> dict[str, Any]:
        """For machines: the decision and the rule as logged and as they are now."""
        return {
            "resource": self.resource,
            "same": self.is_same,
            "logged": {"decision": self.logged.decision, "rule": self.logged.rule},
            "now": {"decision": self.now.decision, "rule": self.now.rule},
            "changed": {name: {"logged": was, "now": value} for name, (was, value) in self.changed.items()},
            "taken": list(self.taken),
        }


def replay(pdp: Pdp, store: ConsentStore | None, body: Mapping[str, Any]) -> list[Replayed]:
    """Take a decision again, from the body of its entry: one result for each resource, in their order."""
    if body.get("kind") not in KINDS:
        raise RequestError("entry", "is no decision and no act: there is nothing to take again")
    if body.get("pack") != pdp.pack.digest:
        raise RequestError("pack", f"the decision was taken by the pack {body.get('pack')}, and this one is {pdp.pack.digest}", "name that edition of the pack")
    try:
        return _replay(pdp, store, body)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise RequestError("entry", "is not one that a service wrote") from None


def _replay(pdp: Pdp, store: ConsentStore | None, body: Mapping[str, Any]) -> list[Replayed]:
    if (answer := _act(pdp, store, body)) is not None:
        _, _, code, number, _ = body["items"][0]
        return [_compared(answer.request.resource.id, answer, code, number, ())]
    subject, action = body["subject"], body["action"]
    asks, does = Entity(subject["type"], subject["id"], subject["properties"]), Action(action["name"], action["properties"])
    record = _record(pdp, store, body)
    made = []
    for id, row, code, number, _ in body["items"]:
        resource, known = _resource(pdp, body, id, row)
        answer = pdp.decide(Request(asks, does, resource, body["context"]), record)
        made.append(_compared(id, answer, code, number, _taken(answer.runner, known)))
    return made


def _act(pdp: Pdp, store: ConsentStore | None, body: Mapping[str, Any]) -> Answer | None:
    """An act as it was kept beside the record, decided again; nothing when it was not kept, as when it was only asked for."""
    if body["kind"] != "act" or store is None:
        return None
    kept = next((one for one in store.acts(body["patient"]) if one.act.id == body["id"]), None)
    if kept is None or kept.act.told["at"] != body["at"]:  # asked for on a record that changed before it was done
        return None
    told = kept.act.told
    subject, resource = (Entity(told[part]["type"], told[part]["id"], told[part]["properties"]) for part in ("subject", "resource"))
    request = Request(subject, Action(told["action"]["name"], told["action"]["properties"]), resource, told["context"])
    return pdp.decide(request, store.as_of(body["patient"], told["at"], token=kept.before))


def _record(pdp: Pdp, store: ConsentStore | None, body: Mapping[str, Any]) -> Record:
    """The record as it was known by the token of the decision, at its instant."""
    if not body["token"]:
        return pdp.fold((), body["at"])
    if store is None:
        raise RequestError("entry", "was decided on a record, and there is no consent store")
    return store.as_of(body["patient"], body["at"], token=parse_token(body["token"]))


def _resource(pdp: Pdp, body: Mapping[str, Any], id: str, row: str | None) -> tuple[Entity, set[tuple[str, ...]]]:
    """A resource as far as the log knows it, and where what is known of it stands."""
    vocabulary, action = pdp.pack.vocabulary, body["action"]["name"]
    properties: dict[str, Any] = {}
    known: set[tuple[str, ...]] = {("resource", "id")}
    rows = {fact.form.row.for_action(action) for fact in vocabulary.facts.values() if isinstance(fact.form, Cell)}
    said = [(path.for_action(action), value) for path, value in ((vocabulary.patient, body["patient"]),) if path is not None]
    if row is not None and len(rows) == 1:
        said += [(steps, row) for steps in rows]
    for steps, value in said:
        if len(steps) == 2 and steps[0] == "resource":
            known.add(steps)
            if steps[1] != "id":
                properties[steps[1]] = value
    return Entity(vocabulary.actions.get(action, ""), id, properties), known


def _taken(runner: Runner, known: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The facts of a slice that ask for what the log does not have."""

    def is_there(path: Path) -> bool:
        steps = path.for_action(runner.action)
        return steps[0] != "resource" or steps in known

    facts: Mapping[str, Fact] = runner.pack.vocabulary.facts
    return tuple(name for name in runner.tables.fields if facts[name].constant is None and not all(map(is_there, paths_of(facts[name].form))))


def _compared(resource: str, answer: Answer, code: int, number: int, taken: tuple[str, ...]) -> Replayed:
    """What decides in the situation as it is now, where some facts are as they were logged."""
    runner, outcomes = answer.runner, answer.runner.outcomes
    logged, now = runner.tables.unpack(code), answer.situation
    changed = {name: (logged[name], now[name]) for name in now if name not in taken and logged[name] != now[name]}
    merged = sum(runner.tables.code(name, logged[name] if name in taken else value) for name, value in now.items())
    decided = outcomes[runner.evaluate(merged)]
    return Replayed(resource, outcomes[number], decided, changed, taken)
