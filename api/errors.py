"""Engine errors as HTTP statuses: one table, for every route.

Every error's body is a JSON string (AuthZEN 1.0, section 10.1.2). A denial is no error: it is 200. What makes a decision impossible is 503, so that a ward can
tell "unavailable" from "no".
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from api.callers import CallersUnavailable, NotAllowed, NotAuthenticated
from engine.consent.store import Conflict, StaleToken, StoreUnavailable
from engine.decision_log.log import LogUnavailable
from engine.errors import HabilisError, PackError, RequestError
from engine.journal.database import JournalUnavailable
from engine.service import FalseClaim

STATUS: tuple[tuple[type[Exception], int], ...] = (
    (FalseClaim, 403),
    (RequestError, 400),
    (NotAuthenticated, 401),
    (NotAllowed, 403),
    (StaleToken, 409),
    (Conflict, 409),
    (PackError, 422),
    (StoreUnavailable, 503),
    (LogUnavailable, 503),
    (JournalUnavailable, 503),
    (CallersUnavailable, 503),
)
"""The first line that fits decides."""

RETRY_AFTER = "1"
"""Seconds after which a caller may ask again when no decision was to be had."""

Headers = list[tuple[bytes, bytes]]
JSON = (b"content-type", b"application/json")
encode = msgspec.json.Encoder().encode


class HttpError(HabilisError):
    """A request that HTTP itself refuses: method, content type, size."""

    def __init__(self, status: int, message: str, headers: Iterable[tuple[str, str]] = ()):
        super().__init__(message)
        self.status, self.headers = status, tuple(headers)


def status_of(error: Exception) -> int:
    """The status that says what an error of the engine means to a caller; 500 for what should not happen."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def headers_of(error: Exception) -> dict[str, str]:
    if isinstance(error, HttpError):
        return dict(error.headers)
    status = status_of(error)
    return {"www-authenticate": error.challenge} if isinstance(error, NotAuthenticated) else {"retry-after": RETRY_AFTER} if status == 503 else {}


def message_of(error: Exception) -> str:
    """What the caller reads. Nothing of an internal fault leaves."""
    return str(error) if isinstance(error, HabilisError) else "internal error"
