"""Appending to the decision log: an entry is on the disk when `append` returns, and otherwise no decision may leave.

Entries that arrive while others are being written go together in the next write (group commit): one thread writes, and wakes a loop once for a batch. Each
process has a segment of its own, of its own Merkle tree, so that processes do not wait for each other. After a failure of which the outcome is unknown, a new
segment is opened: an entry may then be in the log though nobody was answered, never the reverse.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.consent.database import after_fork
from engine.decision_log.checkpoint import Checkpointer
from engine.decision_log.merkle import SALT, leaf_hash
from engine.decision_log.storage import ERRORS, LogUnavailable, Segment, check_name, open_storage, segment_name, unavailable

__all__ = ["DecisionLog", "LogUnavailable"]

PAUSE = 0.1
"""Seconds without a new attempt after a segment could not be opened: entries that waited behind it are told so at once."""
ENOUGH = 256
"""Entries of a batch that waits for no more."""
LONGEST = 1_000_000
"""Entries of a segment before the next one is begun: bounds what a proof, or a process that takes over the checkpoints, has to read."""


Told: TypeAlias = Callable[[str | None], None]
"""Hears what became of entries: nothing when they are on the disk, or why that cannot be said."""


@dataclass(slots=True)
class _Waiters:
    """Those of one loop that wait for a batch, and the timer that bounds their wait."""

    loop: asyncio.AbstractEventLoop
    told: list[Told]
    timer: asyncio.TimerHandle

    def settle(self, reason: str | None) -> None:
        """Tell each of them, once."""
        self.timer.cancel()
        told, self.told = self.told, []
        for one in told:
            self.loop.call_soon(one, reason)  # if one fails, the others hear of theirs


@dataclass(slots=True, eq=False)
class _Batch:
    """Entries that are written together, and who waits for them."""

    bodies: list[bytes] = field(default_factory=list)
    loops: dict[asyncio.AbstractEventLoop, _Waiters] = field(default_factory=dict)
    threads: list[Future[None]] = field(default_factory=list)
    is_queued: bool = False
    is_late: bool = False

    def settle(self, reason: str | None) -> None:
        for future in self.threads:
            if reason is None:
                future.set_result(None)
            else:
                future.set_exception(LogUnavailable(reason))
        for loop, waiters in self.loops.items():
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(waiters.settle, reason)


class DecisionLog:
    """A decision log, open for appending. One for each process; safe to use from its loop and its threads.

    `url` is `sqlite:///FOLDER` or `postgresql://...`, `name` says who writes. With a `key` it also makes the checkpoints, every `checkpoint_every` seconds in
    which something changed, as long as no other process does. Raises `LogUnavailable` when there is no log and none was to be made (`create`).
    """

    def __init__(
        self, url: str, *, name: str | None = None, key: Ed25519PrivateKey | None = None, create: bool = False, timeout: float = 2.0,
        checkpoint_every: float = 1.0,
    ):  # fmt: skip
        self._url, self._name, self._key, self._timeout, self._every = url, name or f"process-{os.getpid()}", key, timeout, checkpoint_every
        check_name(self._name)
        self._storage = open_storage(url, create, timeout)
        self.origin = self._storage.origin
        self._abandoned: list[object] = []
        self._closed = False
        self._start()
        after_fork(self._forked)

    def _start(self) -> None:
        self._guard = threading.Lock()
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._open: _Batch | None = None
        self._writing = 0
        self._segment: Segment | None = None
        self._down_until, self._down_for = 0.0, ""
        self._thread = threading.Thread(target=self._write_batches, name="decision-log", daemon=True)
        self._thread.start()
        self.checkpoints = Checkpointer(self._url, self._key, self._timeout, self._every) if self._key is not None else None

    # --- appending ---

    async def append(self, *bodies: bytes) -> None:
        """Append entries. They are on the disk when this returns; raises `LogUnavailable`, within the timeout, when that cannot be said."""
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.submit(bodies, lambda reason: None if future.done() else future.set_result(reason))
        reason = await future
        if reason is not None:
            raise LogUnavailable(reason)

    def submit(self, bodies: Sequence[bytes], told: Told) -> None:
        """The same, for a loop that goes on meanwhile: `told` is called on it, once, within the timeout. Raises `LogUnavailable` when the log is closed."""
        loop = asyncio.get_running_loop()
        with self._guard:
            batch = self._joined(bodies)
            waiters = batch.loops.get(loop)
            if waiters is None:
                timer = loop.call_later(self._timeout, self._expire, batch, loop)
                batch.loops[loop] = _Waiters(loop, [told], timer)
                loop.call_soon(self._queue_when_quiet, batch)
            else:
                waiters.told.append(told)

    def append_now(self, *bodies: bytes) -> None:
        """The same, for a thread that can wait. On a loop's own thread it makes everybody wait."""
        future: Future[None] = Future()
        with self._guard:
            batch = self._joined(bodies)
            batch.threads.append(future)
        self._queue(batch)
        try:
            future.result(self._timeout)
        except TimeoutError:
            raise LogUnavailable(self._too_late()) from None

    def _joined(self, bodies: Sequence[bytes]) -> _Batch:
        """The batch that takes these entries, which is open until the writer's turn comes to it."""
        if self._closed:
            raise LogUnavailable("the decision log is closed")
        if self._open is None:
            self._open = _Batch()
        self._open.bodies += bodies
        return self._open

    def _queue_when_quiet(self, batch: _Batch, seen: int = 0) -> None:
        """Have a loop's batch written when a turn of the loop has added nothing to it, so that what arrives together is written together. An entry that is
        alone, while nothing is written, does not wait for others."""
        size = len(batch.bodies)
        if seen < size < ENOUGH and (size > 1 or self._writing):
            asyncio.get_running_loop().call_soon(self._queue_when_quiet, batch, size)
        else:
            self._queue(batch)

    def _queue(self, batch: _Batch) -> None:
        """Have a batch written. A thread does so at once."""
        with self._guard:
            if not batch.is_queued:
                batch.is_queued = True
                self._batches.put(batch)

    def _expire(self, batch: _Batch, loop: asyncio.AbstractEventLoop) -> None:
        """Nobody waits for ever behind a disk that does not answer. What was not begun by then is left out."""
        with self._guard:
            if batch is self._open:
                batch.is_late, self._open = True, None
        batch.loops[loop].settle(self._too_late())

    def _too_late(self) -> str:
        return f"the decision log did not answer within {self._timeout:g} seconds"

    @property
    def backlog(self) -> int:
        """How many entries wait to be durable."""
        batch = self._open
        return self._writing + (len(batch.bodies) if batch is not None else 0)

    # --- writing ---

    def _write_batches(self) -> None:
        while (batch := self._batches.get()) is not None:
            with self._guard:
                if batch is self._open:
                    self._open = None
                self._writing = len(batch.bodies)
            reason = self._too_late() if batch.is_late else self._written(batch.bodies)
            self._writing = 0
            batch.settle(reason)

    def _written(self, bodies: list[bytes]) -> str | None:
        """Write a batch; why not, if not."""
        salts = os.urandom(SALT * len(bodies))
        salted = [salts[at : at + SALT] for at in range(0, len(salts), SALT)]
        try:
            segment = self._current()
            segment.write(list(map(leaf_hash, salted, bodies)), salted, bodies)
        except LogUnavailable as error:
            return str(error)
        except ERRORS as error:
            return str(unavailable(error))
        except Exception as error:  # a bug is no reason to leave everybody waiting
            self._drop()
            return f"the decision log failed ({type(error).__name__})"
        return None

    def _current(self) -> Segment:
        """The segment to append to: a new one when there is none, when it is full, or when it cannot be trusted any more."""
        if self._segment is not None and (not self._segment.is_trusted or self._segment.size >= LONGEST):
            self._drop()
        if self._segment is None:
            if time.monotonic() < self._down_until:
                raise LogUnavailable(self._down_for)
            try:
                self._segment = self._storage.new_segment(segment_name(self._name))
            except (*ERRORS, LogUnavailable) as error:
                told = error if isinstance(error, LogUnavailable) else unavailable(error)
                self._down_until, self._down_for = time.monotonic() + PAUSE, str(told)
                raise told from None
        return self._segment

    def _drop(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    # --- its life ---

    def close(self) -> None:
        """Write what waits, make a last checkpoint, and close. Entries that come later raise `LogUnavailable`."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            last = self._open
        if last is not None:
            self._queue(last)
        self._batches.put(None)
        self._thread.join(2 * self._timeout)
        if self.checkpoints is not None:
            self.checkpoints.close()
        if not self._thread.is_alive():
            self._drop()
            self._storage.close()

    def __enter__(self) -> DecisionLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forked(self) -> None:
        """In a child: a segment of its own, a thread of its own. What the parent has open is left alone, open."""
        if self._closed:
            return
        self._abandoned += [self._segment, self._open, self.checkpoints]
        self._storage.forked()
        if self.checkpoints is not None:
            self.checkpoints.forked()
        self._start()
