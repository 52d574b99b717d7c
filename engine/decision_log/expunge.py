"""The end of retention: bodies and salts of old entries are erased, their leaves stay, so the rest of the log still verifies.

First an entry says what will be expunged, then it is: a verifier accepts a missing record only where an entry says so. What is killed in between is done
again, and says it again. Entries that are needed to read or to verify others stay: those of kind `pack` and `expunge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import msgspec

from engine.decision_log.entries import entry
from engine.decision_log.log import DecisionLog
from engine.decision_log.storage import LogUnavailable, Storage, open_storage

KEPT = ("pack", "expunge")
"""Kinds of entries that stay."""


class _Head(msgspec.Struct):
    kind: str = "?"
    at: float = inf


_decode = msgspec.json.Decoder(_Head).decode


@dataclass(frozen=True, slots=True)
class Old:
    """The entries of a segment that were made before an instant. `is_all`: nothing else will ever be old in it, so nobody writes there any more."""

    segment: str
    indexes: list[int]
    is_all: bool

    def spans(self) -> list[tuple[int, int]]:
        """The same indexes, as ranges: from one, up to another."""
        made: list[tuple[int, int]] = []
        for index in self.indexes:
            if made and made[-1][1] == index:
                made[-1] = (made[-1][0], index + 1)
            else:
                made.append((index, index + 1))
        return made


def find_old(storage: Storage, before: float) -> list[Old]:
    """What `expunge` would erase. Raises `LogUnavailable`, also for a segment that is damaged."""
    found = (_old_of(storage, name, size, before) for name, size in storage.sizes().items())
    return [one for one in found if one.indexes]


def _old_of(storage: Storage, name: str, size: int, before: float) -> Old:
    if size < 0:
        raise LogUnavailable(f"segment {name} is damaged: verify the log first")
    indexes, is_all = [], True
    for row in storage.rows(name, 0, size):
        if row.body is None:
            continue
        head = _head(row.body)
        if head.kind in KEPT or head.at >= before:
            is_all = is_all and head.at < before
        else:
            indexes.append(row.index)
    return Old(name, indexes, is_all)


def _head(body: bytes) -> _Head:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Head()


def expunge(url: str, before: float, now: float, caller: str, timeout: float = 10.0) -> list[Old]:
    """Expunge every entry made before an instant. Raises `LogUnavailable`."""
    storage = open_storage(url, False, timeout)
    try:
        found = find_old(storage, before)
        if found:
            with DecisionLog(url, name="expunge", timeout=timeout) as log:
                log.append_now(entry("expunge", now, caller=caller, before=before, expunged={one.segment: one.spans() for one in found}))
        for one in found:
            storage.expunge(one.segment, one.indexes, shrink=one.is_all)
        return found
    finally:
        storage.close()
