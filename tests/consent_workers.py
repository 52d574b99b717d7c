"""What other processes do in the tests of the consent store: answer requests, write, and be killed.

They are forked, by a small server of `multiprocessing`, from a process that has imported everything and compiled the pack, so that one costs milliseconds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from engine.consent.admissions import Admissions, Taken
from engine.consent.cache import RedisCache
from engine.consent.database import Changes, Database
from engine.consent.store import Conflict, ConsentStore, OutcomeUnknown, StoreUnavailable
from engine.pack import load_pack
from engine.pdp import Pdp
from engine.request import Action, Entity, Request
from engine.service import By, Service
from engine.vocabulary import Vocabulary

_FORKING = "HABILIS_TESTS_FORKING"
PACK = Path(__file__).parents[1] / "policies"
VOCABULARY: Vocabulary = load_pack(PACK).vocabulary

PHYSICIAN = "10000023084"
OPEN = [{"kind": "opened"}, {"kind": "authorisation", "target": {"professional": PHYSICIAN}}]
BLOCK = [{"kind": "block", "target": {"professional": PHYSICIAN}}]
UNBLOCK = [{"kind": "block", "withdraw": True, "target": {"professional": PHYSICIAN}}]
"""A record that is open to a physician, a block, and its withdrawal."""


@cache
def pdp() -> Pdp:
    return Pdp(load_pack(PACK))


class Memory:
    """A log that keeps what it is given here."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    async def append(self, *bodies: bytes) -> None:
        self.append_now(*bodies)

    def append_now(self, *bodies: bytes) -> None:
        self.entries += map(json.loads, bodies)


def admissions(pdp: Pdp, store: ConsentStore, **more: Any) -> Admissions:
    """Takes messages into a store, with a log in memory."""
    return Admissions(Service(pdp, store, Memory()), By("a feed"), **more)


def reading(patient: str) -> Request:
    """The physician asks to read a report of the patient's."""
    physician = Entity("professional", PHYSICIAN, {"profession": "G15_10", "authentication": "DIRECTE"})
    report = Entity("document", "DOC-1", {"patient": patient, "type": "11488-4", "status": "Approved", "confidentiality": ["N"]})
    return Request(physician, Action("read"), report, {"purpose": "care"})


# --- a worker that answers -------------------------------------------------------------------------------------------


def serve(connection: Connection, address: str, cache_url: str | None, memory: int, mutant: str | None) -> None:
    """Answer ("ask", patient), ("append", patient, directives) on an open connection until it closes. `mutant` breaks the worker on purpose."""
    if mutant:
        Database.changes = MUTANTS[mutant](Database.changes)  # type: ignore[method-assign]
    store = ConsentStore(address, VOCABULARY, RedisCache(cache_url) if cache_url else None, memory=memory)
    engine = pdp()
    connection.send("ready")
    asked = 0
    while True:
        try:
            what, patient, *more = connection.recv()
        except EOFError:
            return
        try:
            if what == "ask":
                asked += 1
                record, token = store.read(patient, time.time(), witness=store.witness() if asked % 3 else None)
                answer = engine.decide(reading(patient), record)
                connection.send((answer.decision, answer.rule, token.revision))
            else:
                connection.send(store.append(patient, more[0], time.time()).revision)
        except StoreUnavailable as error:
            connection.send(("none", str(error), 0))


Ask = Callable[[Database, str, int, int, int], Changes]


def _never_checked(ask: Ask) -> Ask:
    """The revision check removed: what is known is taken to be so still."""
    heads: dict[str, str] = {}

    def changes(self: Database, patient: str, epoch: int, known: int, otherwise: int = 0) -> Changes:
        if epoch:
            return Changes(epoch, known, heads[patient], ())
        found = ask(self, patient, epoch, known, otherwise)
        heads[patient] = found.digest
        return found

    return changes


def _checked_now_and_then(ask: Ask) -> Ask:
    """The check made at most once in 20 ms for a patient: the usual cache with a short life."""
    heads: dict[str, tuple[float, str]] = {}

    def changes(self: Database, patient: str, epoch: int, known: int, otherwise: int = 0) -> Changes:
        checked, digest = heads.get(patient, (0.0, ""))
        if epoch and time.monotonic() - checked < 0.02:
            return Changes(epoch, known, digest, ())
        found = ask(self, patient, epoch, known, otherwise)
        heads[patient] = time.monotonic(), found.digest
        return found

    return changes


MUTANTS: dict[str, Callable[[Ask], Ask]] = {"never-checked": _never_checked, "checked-now-and-then": _checked_now_and_then}


# --- workers that write ----------------------------------------------------------------------------------------------


def write_acts(connection: Connection, address: str, name: str, patients: int, size: int) -> None:
    """Append acts of `size` directives, patient after patient, and say each token as soon as it is acknowledged, until killed."""
    store = ConsentStore(address, VOCABULARY)
    number = 0
    while True:
        number += 1
        patient = f"{name}-{number % patients}"
        act = [{"kind": "block", "target": {"professional": f"{number}-{place}"}} for place in range(size)]
        connection.send((patient, store.append(patient, act, time.time()), number))


def write_many(connection: Connection, address: str, patient: str, name: str, times: int) -> None:
    """Append so many directives to one patient, whoever else does."""
    store = ConsentStore(address, VOCABULARY, timeout=30.0)
    for number in range(times):
        store.append(patient, [{"kind": "block", "target": {"professional": f"{name}-{number}"}}], time.time())
    connection.send("done")


def count_up(connection: Connection, address: str, patient: str, times: int) -> None:
    """Read the last number in the record and append the next one, so many times, each on the very record that was read."""
    store = ConsentStore(address, VOCABULARY, timeout=30.0)
    conflicts = 0
    while times:
        record, token = store.read(patient, time.time())
        last = max((int(statement.target[1] or 0) for statement in record.in_force), default=0)  # type: ignore[arg-type]
        try:
            store.append(patient, [{"kind": "block", "target": {"professional": str(last + 1)}}], time.time(), expect=token)
            times -= 1
        except Conflict:
            conflicts += 1
    connection.send(conflicts)


def write_through_outages(connection: Connection, address: str, patient: str) -> None:
    """Append one directive after the other; say what became of each, until killed."""
    store = ConsentStore(address, VOCABULARY, timeout=2.0)
    number = 0
    while True:
        number += 1
        try:
            token = store.append(patient, [{"kind": "block", "target": {"professional": str(number)}}], time.time())
            connection.send(("acknowledged", number, token.revision))
        except OutcomeUnknown:
            connection.send(("unknown", number, 0))
        except StoreUnavailable as error:
            connection.send(("refused", number, str(error)))
            time.sleep(0.02)


def take_messages(connection: Connection, address: str, messages: list[bytes], at: float) -> None:
    """Take admission messages, at this instant, and say what became of each, until killed."""
    desk = admissions(pdp(), ConsentStore(address, VOCABULARY, timeout=30.0))
    for number, data in enumerate(messages):
        done = desk.take(data, at, str(number))
        connection.send(done.outcome if isinstance(done, Taken) else str(done))
    connection.send("done")


def restore_over(connection: Connection, address: str, path: str) -> None:
    store = ConsentStore(address, VOCABULARY)
    connection.send("ready")
    store.restore(path)
    connection.send("done")


# --- starting them ---------------------------------------------------------------------------------------------------


class Worker:
    """A process that runs one of these functions, and our end of its connection."""

    def __init__(self, work: Callable[..., None], *arguments: Any):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["consent_workers"])
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(_FORKING, "yes")
            patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # what the server imports first, it looks for here alone
            self.process.start()
        theirs.close()

    def ask(self, *question: Any) -> Any:
        self.connection.send(question)
        return self.hear()

    def hear(self, seconds: float = 60) -> Any:
        assert self.connection.poll(seconds), "the worker says nothing"
        return self.connection.recv()

    def heard(self) -> list[Any]:
        """Everything that it said and we had not read, once it is gone."""
        said = []
        try:
            while self.connection.poll():
                said.append(self.connection.recv())
        except (EOFError, ConnectionResetError):
            pass
        return said

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def close(self) -> None:
        self.kill()
        self.connection.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


if _FORKING in os.environ:
    pdp()  # once, in the process that the workers are forked from
