"""The journal and the decision log as a worker reads them, and the thread that keeps the journal.

Decisions do not wait for any of this: the journal is opened when it can be, is asked in threads of its own, and while it cannot be reached its own routes
answer 503 and everything else goes on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from api.settings import Settings
from api.telemetry import technical
from engine.decision_log.log import DecisionLog
from engine.decision_log.read import LogReader
from engine.errors import HabilisError
from engine.journal.database import Database
from engine.journal.follower import Follower
from engine.journal.notices import Outbox
from engine.journal.queries import Journal

THREADS = 2
AGAIN = 5.0
"""Seconds until a journal that could not be opened is tried again."""
PATIENCE = 5.0
"""Seconds that the end of a worker waits for a database that does not answer."""

T = TypeVar("T")


class Books:
    """One worker's. `journal` and `outbox` open the journal where it is not open yet, and raise `JournalUnavailable`: ask for them in a thread."""

    def __init__(self, settings: Settings, log: DecisionLog):
        self.settings, self.log = settings, log
        self._threads = ThreadPoolExecutor(THREADS, "books")
        self._lock = threading.Lock()
        self._database: Database | None = None
        self.reader = LogReader(settings.log.get_secret_value())
        self._follower: Follower | None = None
        self._closing = threading.Event()
        self._opener = threading.Thread(target=self._follow, name="journal-opener", daemon=True)
        if settings.follows:
            self._opener.start()

    async def ask(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call what waits for a database, from a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))

    @property
    def journal(self) -> Journal:
        return Journal(self._opened())

    @property
    def outbox(self) -> Outbox:
        return Outbox(self._opened(), self.log.append_now)

    def _opened(self) -> Database:
        with self._lock:
            if self._database is None:
                self._database = Database(self.settings.journal.get_secret_value(), create=self.settings.create or self.settings.follows)
            return self._database

    def _follow(self) -> None:
        """Open the journal, however long that takes to succeed, and follow the log into it. Of several workers, one works and the others stand by."""
        told = ""
        while not self._closing.is_set():
            try:
                follower = Follower(self.reader, self._opened())
            except HabilisError as error:
                if told != str(error):
                    technical.error("the journal cannot be kept: %s", error)
                told = str(error)
                self._closing.wait(AGAIN)
            else:
                self._follower = follower
                follower.start()
                return

    def close(self) -> None:
        """After the last answer."""
        self._closing.set()
        self._threads.shutdown()
        if self._opener.is_alive():
            self._opener.join(PATIENCE)
        if self._follower is not None:
            self._follower.stop(PATIENCE)
        self.reader.close()
        if self._database is not None:
            self._database.close()
