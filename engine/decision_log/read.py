"""Reading a decision log: entries in order, entries by what they say, and what the codes of a decision mean.

For a few entries, or for all of them in turn. Nothing is indexed here, so looking for one patient reads everything: who does that often follows the log into a
database of its own (`engine.journal`), and comes back with a position. Whether what is read is what was written is asked of `engine.decision_log.verify`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from engine.decision_log.storage import LogUnavailable, Row, open_storage

_decode = msgspec.json.Decoder().decode
SLACK = 120.0
"""Seconds by which entries of a segment may be out of order: those that were made first are not always written first."""


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment: how many entries it has, and of how many the last checkpoint proves the root."""

    name: str
    size: int
    proved: int
    root: bytes | None


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry and where it is. Its `body` is nothing once it is expunged, or when it is no JSON object."""

    segment: str
    index: int
    body: dict[str, Any] | None
    is_expunged: bool = False

    @property
    def at(self) -> float:
        at = self.body.get("at") if self.body else None
        return float(at) if isinstance(at, int | float) else 0.0


class LogReader:
    """A log, open for reading. Safe to use from many threads. Every method raises `LogUnavailable` when the log cannot be asked."""

    def __init__(self, url: str, timeout: float = 2.0):
        self._storage = open_storage(url, False, timeout)
        self.origin = self._storage.origin
        self._packs: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        self._storage.close()

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- in order ---

    def sizes(self) -> dict[str, int]:
        """How many entries each segment has. Cheap to ask again: of a segment whose file has not changed, nothing is read."""
        return self._storage.sizes()

    def segments(self) -> list[SegmentInfo]:
        """Every segment, with how far it is proved."""
        heads = self._storage.proved().heads
        return [
            SegmentInfo(name, size, heads[name].size if name in heads else 0, heads[name].root if name in heads else None)
            for name, size in self._storage.sizes().items()
        ]

    def entries(self, segment: str, start: int = 0, limit: int | None = None) -> Iterator[Entry]:
        """Entries of a segment from index `start`, at most `limit`."""
        return (_entry(segment, row) for row in self._storage.rows(segment, start, None if limit is None else start + limit))

    def entry(self, segment: str, index: int) -> Entry | None:
        return next(self.entries(segment, index, 1), None)

    # --- by what they say ---

    def find(self, id: str) -> Entry | None:
        """The entry with this identifier; of an act, which has two, the last. Reads the log from its end."""
        return max(self.find_all(id), key=lambda one: (one.at, one.index), default=None)

    def find_all(self, id: str) -> list[Entry]:
        """Every entry with this identifier, oldest first."""
        return self.matching(lambda body: body.get("id") == id, containing=id)

    def matching(
        self, claim: Callable[[Mapping[str, Any]], bool] = lambda body: True, containing: str = "", since: float | None = None, newest: int | None = None
    ) -> list[Entry]:
        """The entries of which a claim holds, oldest first; only the `newest` so many. `containing`: text that they all hold, which is quicker to look for."""
        needle = msgspec.json.encode(containing)[1:-1] if containing.isascii() else b""
        found: list[tuple[float, str, int, Entry]] = []
        for name, size in self._storage.sizes().items():
            if size < 0:
                raise LogUnavailable(f"segment {name} is damaged")
            start = self._first_since(name, size, since - SLACK) if since is not None else 0
            for entry in self._latest(name, start, size, needle, claim, since, newest):
                found.append((entry.at, entry.segment, entry.index, entry))
        return [one[-1] for one in sorted(found if newest is None else heapq.nlargest(newest, found))]

    def _latest(
        self, name: str, start: int, size: int, needle: bytes, claim: Callable[[Mapping[str, Any]], bool], since: float | None, newest: int | None
    ) -> Iterator[Entry]:
        """Those of one segment, a page at a time from its end."""
        page = 1000 if newest is None else min(1000, max(newest, 1))
        pages = ((max(start, stop - page), stop) for stop in range(size, start, -page))
        several = (self._page(name, first, stop, needle, claim, since) for first, stop in pages)
        return islice((entry for found in several for entry in found), newest)

    def _page(self, name: str, start: int, stop: int, needle: bytes, claim: Callable[[Mapping[str, Any]], bool], since: float | None) -> Iterable[Entry]:
        """Newest first."""
        rows = [row for row in self._storage.rows(name, start, stop) if row.body is not None and needle in row.body]
        found = (_entry(name, row) for row in reversed(rows))
        return [one for one in found if one.body is not None and (since is None or one.at >= since) and claim(one.body)]

    def _first_since(self, name: str, size: int, since: float) -> int:
        """An index before which every entry is older, by halving; expunged entries are older than those that are not."""
        low, high = 0, size
        while low < high:
            middle = (low + high) // 2
            entry = self.entry(name, middle)
            if entry is None or entry.body is None or entry.at < since:
                low = middle + 1
            else:
                high = middle
        return low

    # --- what they mean ---

    def pack(self, digest: str) -> dict[str, Any] | None:
        """What a pack's codes mean, as the log itself says it."""
        if digest not in self._packs:
            found = self.matching(lambda body: body.get("kind") == "pack" and body.get("digest") == digest, containing=digest)
            if not found or found[-1].body is None:
                return None
            self._packs[digest] = found[-1].body
        return self._packs[digest]

    def readable(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """An entry with its codes in words, if the log holds the pack that they belong to."""
        pack = self.pack(str(body["pack"])) if isinstance(body.get("pack"), str) and "items" in body else None
        return readable(body, pack)


def readable(body: Mapping[str, Any], pack: Mapping[str, Any] | None) -> dict[str, Any]:
    """The same, with a pack's entry. What does not fit it stays as it was."""
    items = body.get("items")
    if pack is None or not isinstance(items, list):
        return dict(body)
    subject, action = body.get("subject"), body.get("action")
    name = f"{subject.get('type')}/{action.get('name')}" if isinstance(subject, dict) and isinstance(action, dict) else ""
    try:
        return {**body, "items": [_item(item, pack, pack["slices"].get(name)) for item in items]}
    except (KeyError, IndexError, TypeError, ValueError):
        return dict(body)


def _item(item: Any, pack: Mapping[str, Any], slice: Mapping[str, Any] | None) -> dict[str, Any]:
    resource, row, code, outcome, letters = item
    said = pack["outcomes"][outcome]
    told: dict[str, Any] = {"resource": resource, "type": row, "decision": said["decision"], "rule": said["rule"], "legal_basis": said["legal_basis"]}
    told |= {"discreet": said["discreet"], "words": said.get("words", {})}
    if slice is not None:
        told["facts"] = {name: values[code >> shift & (1 << bits) - 1] for name, (shift, bits, values) in slice["facts"].items()}
        told["cells"] = dict(zip(slice.get("cells", ()), letters, strict=False))
    return told


def _entry(segment: str, row: Row) -> Entry:
    if row.body is None:
        return Entry(segment, row.index, None, is_expunged=True)
    try:
        body = _decode(row.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    return Entry(segment, row.index, body if isinstance(body, dict) else None)
