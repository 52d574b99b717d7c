"""Whether a log is still what was signed: every entry, every segment, every checkpoint. Reads everything and believes nothing but the public keys.

Without them it is seen that an entry was changed (its leaf does not fit) or is missing (a gap). By the checkpoints: that leaves were changed, swapped, or
removed at the end. By a checkpoint kept elsewhere: that the whole log was rolled back, or written anew by somebody who has the key. Entries after the last
checkpoint are durable and not yet proved, which is no finding.
"""

from __future__ import annotations

import struct
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from engine.decision_log.checkpoint import Note, NoteError, VerifierKey, heads_leaf, open_checkpoint, parse_heads
from engine.decision_log.merkle import SALT, Range, leaf_hash
from engine.decision_log.storage import Checkpoint, LogUnavailable, Row, Storage

Span = tuple[int, int]
"""From an index, and up to one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was signed. `what` is one of a few words; `index` that of an entry, or a checkpoint's number where no segment is named."""

    what: str
    message: str
    segment: str | None = None
    index: int | None = None

    def __str__(self) -> str:
        place = self.segment or "checkpoint"
        return f"{place}{'' if self.index is None else f' {self.index}'}: {self.message}"


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found. `unproved`: entries after the last checkpoint of their segment."""

    origin: str = ""
    segments: int = 0
    entries: int = 0
    proved: int = 0
    unproved: int = 0
    expunged: int = 0
    checkpoints: int = 0
    last: str | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_fine(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        return {"fine": self.is_fine} | msgspec.to_builtins(self)


class SignedHead(NamedTuple):
    """How far a checkpoint says that a segment had grown."""

    size: int
    checkpoint: int
    root: bytes


class Heads:
    """The heads of a segment, in the order of their checkpoints, packed: a log has one for each second in which something happened."""

    _form = struct.Struct("<QQ32s")

    def __init__(self) -> None:
        self._packed = bytearray()
        self.largest = 0

    def add(self, head: SignedHead) -> None:
        self._packed += self._form.pack(*head)
        self.largest = max(self.largest, head.size)

    def __iter__(self) -> Iterator[SignedHead]:
        return map(SignedHead._make, self._form.iter_unpack(self._packed))


def verify(storage: Storage, keys: Sequence[VerifierKey], since: str | None = None) -> Report:
    """Verify a whole log against its checkpoints and these keys; and against `since`, a checkpoint that was kept elsewhere. Raises `LogUnavailable`."""
    report = Report(origin=storage.origin)
    sizes = storage.sizes()  # before the checkpoints: what is appended meanwhile is theirs to prove, not ours to miss
    heads = _verify_checkpoints(storage, keys, since, report)
    gone: dict[str, list[Span]] = {}
    declared: dict[str, list[Span]] = defaultdict(list)
    leaves = array("Q")
    for name in sorted({*sizes, *heads}):
        signed = heads.get(name) or Heads()
        walk = _Walk(storage, name, signed, report)
        walk.run(storage.rows(name, 0, max(sizes.get(name, 0), signed.largest)), declared, leaves)
        gone[name] = walk.gone
        report.segments += 1
    _verify_expunged(gone, declared, report)
    _verify_unique(storage, leaves, sizes, report)
    if report.entries and not report.checkpoints:
        report.findings.append(Finding("checkpoint", "nothing is proved: there are entries, and no checkpoint"))
    return report


# --- checkpoints -----------------------------------------------------------------------------------------------------


def _verify_checkpoints(storage: Storage, keys: Sequence[VerifierKey], since: str | None, report: Report) -> dict[str, Heads]:
    """Every checkpoint continues the one before. What they say of each segment."""
    heads: dict[str, Heads] = defaultdict(Heads)
    tree, is_whole, found = Range(), True, report.findings
    kept = _open_kept(since, keys, storage.origin, found)
    for number, text, note in _readable(storage.checkpoints(), found):
        if number != report.checkpoints and is_whole:
            found.append(Finding("checkpoint", f"checkpoints {report.checkpoints} to {number - 1} are gone", index=report.checkpoints))
            is_whole = False
        report.checkpoints, report.last = number + 1, note
        tree.extend([heads_leaf(text)])
        try:
            said: Note | None = open_checkpoint(note, keys)
        except NoteError as error:
            found.append(Finding("signature", str(error), index=number))
            said = None
        if said is not None and said.origin != storage.origin:
            found.append(Finding("origin", f"a checkpoint of another log, `{said.origin}`", index=number))
        elif said is not None and is_whole and (said.size, said.root) != (tree.size, tree.root()):
            found.append(Finding("checkpoint", "the heads that are kept up to here are not what was signed", index=number))
            is_whole = False
        if kept is not None and is_whole and tree.size == kept.size and tree.root() != kept.root:
            found.append(Finding("two heads", "the log and the checkpoint that was kept were both signed, and contradict each other", index=number))
        try:
            for name, head in parse_heads(text).items():
                heads[name].add(SignedHead(head.size, number, head.root))
        except NoteError as error:
            found.append(Finding("checkpoint", str(error), index=number))
    if kept is not None and kept.size > report.checkpoints:
        message = f"the log was rolled back: it has {report.checkpoints} checkpoints, and the one that was kept is number {kept.size - 1}"
        found.append(Finding("roll-back", message, index=report.checkpoints))
    return dict(heads)


def _readable(checkpoints: Iterator[Checkpoint], found: list[Finding]) -> Iterator[Checkpoint]:
    here = 0
    try:
        for one in checkpoints:
            here = one.number + 1
            yield one
    except LogUnavailable as error:
        found.append(Finding("damaged", f"nothing can be read from here on ({error})", index=here))


def _open_kept(since: str | None, keys: Sequence[VerifierKey], origin: str, found: list[Finding]) -> Note | None:
    if since is None:
        return None
    try:
        kept = open_checkpoint(since, keys)
    except NoteError as error:
        found.append(Finding("kept", f"the checkpoint that was kept cannot be used: {error}"))
        return None
    if kept.origin != origin:
        found.append(Finding("kept", f"the checkpoint that was kept is of another log, `{kept.origin}`"))
        return None
    return kept


# --- segments --------------------------------------------------------------------------------------------------------


class _Walk:
    """One segment, from its first entry to its last, past every head that was signed."""

    def __init__(self, storage: Storage, name: str, heads: Heads, report: Report):
        self.storage, self.name, self.report, self.signed = storage, name, report, heads.largest
        self.tree = Range()
        self.gone: list[Span] = []
        self._is_whole = True
        self._proved = 0
        self._heads = self._in_order(heads)
        self._next = next(self._heads, None)

    def run(self, rows: Iterable[Row], declared: dict[str, list[Span]], leaves: array[int]) -> None:
        count, here = 0, 0
        for row in self._readable(rows):
            if row.index != here and self._is_whole:
                self._find("gap", here, f"entries {here} to {row.index - 1} are gone")
                self._is_whole = False
            here, count = row.index + 1, count + 1
            self._check_row(row, declared)
            leaves.append(int.from_bytes(row.leaf[:8], "big"))
            if self._is_whole:
                self.tree.extend([row.leaf])
                self._pass_heads()
        self._end(here, count)

    def _readable(self, rows: Iterable[Row]) -> Iterator[Row]:
        here = 0
        try:
            named = self.storage.named(self.name)
            if named is not None and named != (self.storage.origin, self.name):
                self._find("copy", 0, f"this is segment {named[1]} of {named[0]}, under another name")
            for row in rows:
                here = row.index + 1
                yield row
        except LogUnavailable as error:
            self._find("damaged", here, f"nothing can be read from here on ({error})")

    def _find(self, what: str, index: int, message: str) -> None:
        self.report.findings.append(Finding(what, message, self.name, index))

    def _in_order(self, heads: Heads) -> Iterator[SignedHead]:
        last = 0
        for head in heads:
            if head.size < last:
                self._find("head", head.size, f"checkpoint {head.checkpoint} says {head.size} entries, and an earlier one {last}")
            last = max(last, head.size)
            yield head

    def _check_row(self, row: Row, declared: dict[str, list[Span]]) -> None:
        if row.body is None and row.salt is None:
            if self.gone and self.gone[-1][1] == row.index:
                self.gone[-1] = (self.gone[-1][0], row.index + 1)
            else:
                self.gone.append((row.index, row.index + 1))
            self.report.expunged += 1
        elif row.body is None or row.salt is None or len(row.salt) != SALT or leaf_hash(row.salt, row.body) != row.leaf:
            self._find("record", row.index, "the record or its salt is not what was written")
        elif b"expunge" in row.body:
            for segment, spans in _declared(row.body):
                declared[segment] += spans

    def _pass_heads(self) -> None:
        """Compare with every head signed at this size."""
        while self._next is not None and self._next.size <= self.tree.size:
            head = self._next
            if head.size == self.tree.size and head.root != self.tree.root():
                first = min(self._proved, head.size - 1)
                self._find("root", first, f"entries {first} to {head.size - 1} are not, or not in the order, that checkpoint {head.checkpoint} signed")
                self._is_whole = False
                return
            self._proved = self.tree.size
            self._next = next(self._heads, None)

    def _end(self, size: int, count: int) -> None:
        for _ in self._heads:  # the rest of them, in order
            pass
        if size < self.signed:
            what = "segment" if size == 0 else "truncated"
            self._find(what, size, f"entries {size} to {self.signed - 1} are gone" + (", the whole segment" if size == 0 else ""))
        self.report.entries += count
        self.report.proved += self._proved if self._proved <= count else count
        self.report.unproved += max(0, size - self.signed)


# --- expunged entries ------------------------------------------------------------------------------------------------


def _declared(body: bytes) -> Iterator[tuple[str, list[Span]]]:
    """What an entry says was expunged."""
    try:
        said = msgspec.json.decode(body, type=_Expunged)
    except msgspec.DecodeError:
        return
    if said.kind == "expunge":
        yield from said.expunged.items()


class _Expunged(msgspec.Struct):
    kind: str
    expunged: dict[str, list[tuple[int, int]]] = {}


def _verify_expunged(gone: dict[str, list[Span]], declared: dict[str, list[Span]], report: Report) -> None:
    """A record may only be missing if an entry says that it was expunged."""
    for name, spans in gone.items():
        for start, stop in _without(spans, declared.get(name, [])):
            report.findings.append(Finding("expunged", f"the records of entries {start} to {stop - 1} are missing, and no entry says why", name, start))


def _without(spans: Iterable[Span], others: Iterable[Span]) -> Iterator[Span]:
    """What of these spans the others do not cover."""
    cover = sorted(others)
    for start, stop in spans:
        for low, high in cover:
            if high <= start or low >= stop:
                continue
            if start < low:
                yield start, low
            start = max(start, high)
        if start < stop:
            yield start, stop


# --- copies ----------------------------------------------------------------------------------------------------------


def _verify_unique(storage: Storage, leaves: array[int], sizes: dict[str, int], report: Report) -> None:
    """No entry is there twice: a leaf is salted, so no two are alike. First by eight bytes of each, then, if some are alike, exactly."""
    values, counts = np.unique(np.frombuffer(leaves, dtype=np.uint64) if leaves else np.empty(0, np.uint64), return_counts=True)
    suspects = set(values[counts > 1].tolist())
    if not suspects:
        return
    seen: dict[bytes, tuple[str, int]] = {}
    for name, size in sorted(sizes.items()):
        for index, leaf in storage.leaves(name, 0, size):
            if int.from_bytes(leaf[:8], "big") not in suspects:
                continue
            first = seen.setdefault(leaf, (name, index))
            if first != (name, index):
                report.findings.append(Finding("copy", f"the same entry as {first[0]} {first[1]}", name, index))
