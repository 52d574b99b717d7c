"""Entries of a decision log, as a service writes them with the French pack, and followers in other processes, to be killed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import msgspec
from consent_workers import pdp

from engine.decision_log.entries import ActEntry, DecisionEntry, SearchEntry, entry, new_id, pack_entry
from engine.decision_log.read import LogReader
from engine.journal import follower
from engine.journal.database import Database

PATIENT = "279035121518989"
PHYSICIAN, NURSE = "10000023084", "10000000017"
STRUCTURE = "750000051"
NOON = 1_795_258_800.0
"""2026-11-21, noon in Paris."""
BREAK_GLASS = {"access_mode": "bris_de_glace", "justification": "unconscious"}


@cache
def outcome(rule: str) -> int:
    return next(one.number for one in pdp().outcomes if one.rule == rule)


@cache
def pack(again: str = "") -> bytes:
    """The entry of the French pack; with `again`, one that says after which directives a first access is told again."""
    body = json.loads(pack_entry(pdp(), NOON))
    if again:
        body["obligations"]["notify_first_access"]["properties"]["again"] = again
    return json.dumps(body).encode()


def asked(
    action: str,
    rule: str,
    documents: Sequence[str],
    *,
    at: float = 0.0,
    subject: str = PHYSICIAN,
    kind: str = "professional",
    patient: str = PATIENT,
    context: Mapping[str, Any] | None = None,
    properties: Mapping[str, Any] | None = None,
    caller: str = "store-1",
    entry_type: type[DecisionEntry] = DecisionEntry,
    id: str = "",
    said: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """An entry, as it is read back. `at` is in seconds after noon."""
    made = entry_type(
        id=id or new_id(), at=NOON + at, received=NOON + at, caller=caller, patient=patient,
        subject={"type": kind, "id": subject, "properties": {"profession": "G15_10", "structure": STRUCTURE} if properties is None else properties},
        action={"name": action, "properties": said or {}}, context={"purpose": "care", **(context or {})}, token="1.1", pack=pdp().pack.digest,
        mode="list" if len(documents) > 1 else "one", items=[(one, None if one == patient else "11488-4", 0, outcome(rule), "R") for one in documents], **more,
    )  # fmt: skip
    return msgspec.to_builtins(made)


def read(document: str = "DOC-1", rule: str = "R18", **more: Any) -> dict[str, Any]:
    return asked("read", rule, [document], **more)


def act(action: str, rule: str, state: str = "done", *, on: str = PATIENT, directives: Sequence[Mapping[str, Any]] = (), **more: Any) -> dict[str, Any]:
    about = {"entry_type": ActEntry, "state": state, "directives": directives, "kind": "patient", "subject": PATIENT, "properties": {}}
    return asked(action, rule, [on], **about | more)


def grant(at: float, **target: str) -> dict[str, Any]:
    form, value = next(iter((target or {"professional": PHYSICIAN}).items()))
    return act("grant_access", "A01-someone", at=at, directives=[{"kind": "authorisation", "target": {form: value}}])


def search(**more: Any) -> dict[str, Any]:
    return asked("read", "R18", ["11488-4"], entry_type=SearchEntry, searched="resource", **more)


def shown(decision: Mapping[str, Any], document: str = "", word: str = "shown", **more: Any) -> dict[str, Any]:
    said = {"decision": decision["id"], "document": document or decision["items"][0][0], "outcome": word, "caller": decision["caller"]} | more
    return other("outcome", decision["at"] - NOON + 1, **said)


def other(kind: str, at: float = 0.0, **said: Any) -> dict[str, Any]:
    return json.loads(entry(kind, NOON + at, **said))


def written(*entries: Mapping[str, Any] | bytes) -> list[bytes]:
    return [one if isinstance(one, bytes) else json.dumps(one).encode() for one in entries]


# --- followers in other processes ------------------------------------------------------------------------------------


def follow(connection: Connection, log: str, journal: str, batch: int = follower.BATCH) -> None:
    """Follow until killed, so many entries at a time; say how many each pass read, and `waiting` while another has the turn."""
    follower.BATCH = batch
    with LogReader(log, timeout=20) as reader:
        one = follower.Follower(reader, Database(journal, timeout=20))
        connection.send("ready")
        connection.send("at work")
        while True:
            read = one.step()
            if read:
                connection.send(read)
            elif not one.leading:
                connection.send("waiting")
                time.sleep(0.05)
            else:
                time.sleep(0.002)
