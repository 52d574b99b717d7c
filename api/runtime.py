"""Everything a worker has open while it serves: pack, store, log, directory, callers. Opened when it starts, closed when it has drained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from time import monotonic
from typing import Any

from api.authzen import Replies
from api.books import Books
from api.callers import Caller, Callers, NotAllowed
from api.settings import Settings
from api.telemetry import Telemetry
from engine.consent.store import ConsentStore, StoreUnavailable, Witness
from engine.decision_log.entries import entry
from engine.decision_log.log import DecisionLog
from engine.request import Action, Entity
from engine.service import By, FalseClaim, Live, Look, Service

THREADS = 8
"""How many requests of a worker wait for a database server at a time."""


class Runtime:
    """One worker's."""

    def __init__(self, settings: Settings, service: Service, store: ConsentStore, log: DecisionLog, callers: Callers, telemetry: Telemetry):
        self.settings, self.service, self.store, self.log, self.callers = settings, service, store, log, callers
        self.telemetry, self.metrics = telemetry, telemetry.metrics
        self.embedded = store.embedded
        self.witness: Witness | None = None
        """What the store is at, for requests that had arrived before it was asked (see `witnessed`)."""
        self._threads = ThreadPoolExecutor(THREADS, "habilis")
        self._asking, self._ready_until = asyncio.Lock(), 0.0
        self._replies: tuple[Live, Replies] = (service.live, Replies(service.live))
        self.books = Books(settings, log)

    async def caller(self, authorization: bytes | None, *roles: str) -> Caller:
        """Who calls, if it has one of these roles, where some are named. Raises `NotAuthenticated`, `NotAllowed`, `CallersUnavailable`."""
        caller = self.callers.known(authorization) or await asyncio.ensure_future(self.callers.authenticate(authorization))
        if roles:
            caller.needs(*roles)
        return caller

    @asynccontextmanager
    async def honest(self, subject: Entity, by: By) -> AsyncIterator[None]:
        """While this lasts, what a caller may not claim, or what the directory contradicts, is logged before it is refused."""
        try:
            yield
        except (NotAllowed, FalseClaim) as error:
            await self.log.append(self.refusal(subject, by, error))
            raise

    def refusal(self, subject: Entity, by: By, error: Exception) -> bytes:
        """The log's entry about a claim that was refused: what was claimed of whom, never the value."""
        who = {"type": subject.type, "id": subject.id}
        return entry("refused", self.service.clock(), caller=by.caller, request=by.request or None, subject=who, why=str(error))

    @contextmanager
    def witnessed(self) -> Iterator[None]:
        """While this lasts, requests that have arrived before share one question to the store. INVARIANT: nothing else runs meanwhile, so none arrives."""
        try:
            self.witness = self.store.witness()
        except StoreUnavailable:
            self.witness = None  # each asks for itself, and hears why not
        try:
            yield
        finally:
            self.witness = None

    async def look(self, subject: Entity, action: Action, resources: Sequence[Entity], context: Mapping[str, Any], **asked: Any) -> Look:
        """`Service.look`: here and now with a store in a file (8 microseconds), in a thread with one that is a server away (half a millisecond)."""
        if self.embedded:
            return self.service.look(subject, action, resources, context, witness=self.witness, **asked)
        return await self.blocking(self.service.look, subject, action, resources, context, **asked)

    async def blocking(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what waits, from a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))

    async def ready(self, now: float) -> None:
        """Raise what a decision would raise now: the store is asked, and the log takes an entry. Anybody may ask, so once a second is enough."""
        async with self._asking:
            if monotonic() < self._ready_until:
                return
            await self.blocking(self.store.read, "health", now)
            await self.log.append(entry("ready", now))
            self._ready_until = monotonic() + 1.0

    def replies(self, live: Live) -> Replies:
        if self._replies[0] is not live:
            self._replies = (live, Replies(live))
        return self._replies[1]

    def close(self) -> None:
        """After the last answer: what was logged is on the disk already; a last checkpoint, then everything is closed."""
        self._threads.shutdown()
        self.books.close()
        self.telemetry.close()
        self.log.close()
        self.store.close()
