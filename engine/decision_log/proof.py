"""Proofs that a checkpoint and the public keys are enough to check, without the log: that an entry is in it, and that one checkpoint continues another.

An entry is proved in two steps, as there are two trees: it is in its segment, at the size that a leaf of the log of heads says; and that leaf is in the log of
heads, whose root is signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated

import msgspec

from engine.decision_log.checkpoint import Note, NoteError, VerifierKey, heads_leaf, open_checkpoint, parse_checkpoint, parse_heads
from engine.decision_log.merkle import HASH, SALT, consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion
from engine.decision_log.storage import Checkpoint, Storage

PAGE = 1000
MOST = 64
"""Hashes of a proof: more than a tree can be high."""
Hashes = Annotated[list[str], msgspec.Meta(max_length=MOST)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Inclusion(msgspec.Struct, tag_field="proof", tag="inclusion", forbid_unknown_fields=True):
    """An entry, and the way from it to a checkpoint. Hashes and salt are hexadecimal."""

    segment: str
    index: Count
    size: Count
    body: str
    salt: str
    path: Hashes
    heads: str
    heads_index: Count
    heads_path: Hashes
    checkpoint: str


class Consistency(msgspec.Struct, tag_field="proof", tag="consistency", forbid_unknown_fields=True):
    """Two checkpoints, and the way from one to the other."""

    old: str
    new: str
    path: Hashes


class NotProved(NoteError):
    """There is no such proof: the entry came after the last checkpoint, or is not there, or the checkpoint is not of this log."""


def prove_entry(storage: Storage, segment: str, index: int) -> Inclusion:
    """The proof that an entry is in the log. Raises `NotProved`, `LogUnavailable`."""
    row = next(iter(storage.rows(segment, index, index + 1)), None)
    if row is None or row.body is None or row.salt is None:
        raise NotProved("there is no such entry, or it was expunged")
    last = storage.last_checkpoint()
    size = last.number + 1 if last else 0
    latest = next((one for one in _newest(storage, size) if f"\n{segment} " in one.heads), None)
    head = parse_heads(latest.heads)[segment] if latest else None
    if last is None or latest is None or head is None or head.size <= index:
        raise NotProved("the entry is durable and not yet proved: there is no checkpoint of it so far")
    try:
        path = inclusion_proof((leaf for _, leaf in storage.leaves(segment, 0, head.size)), head.size, index)
        heads_path = inclusion_proof(_leaves(storage), size, latest.number)
    except ValueError:
        raise NotProved("entries or checkpoints are missing: verify the log") from None
    return Inclusion(segment, index, head.size, row.body.decode(), row.salt.hex(), _hex(path), latest.heads, latest.number, _hex(heads_path), last.note)


def _leaves(storage: Storage) -> Iterator[bytes]:
    """The log of heads."""
    return (heads_leaf(one.heads) for one in storage.checkpoints())


def _newest(storage: Storage, size: int) -> Iterator[Checkpoint]:
    """The first `size` checkpoints from the last, a page at a time."""
    for stop in range(size, 0, -PAGE):
        page = list(islice(storage.checkpoints(max(0, stop - PAGE)), min(PAGE, stop)))
        yield from reversed(page)


def prove_consistency(storage: Storage, since: str) -> Consistency:
    """The proof that the log's last checkpoint continues one that was kept. Raises `NotProved`, `NoteError`, `LogUnavailable`."""
    old, last = parse_checkpoint(since.rpartition("\n\n")[0] + "\n"), storage.last_checkpoint()
    if last is None or old.size > last.number + 1:
        raise NotProved("the log has no checkpoint as late as the one that was kept")
    return Consistency(since, last.note, _hex(consistency_proof(_leaves(storage), last.number + 1, old.size)))


def print_proof(proof: Inclusion | Consistency) -> str:
    """A proof as its file holds it."""
    return msgspec.json.format(msgspec.json.encode(proof), indent=2).decode()


def parse_proof(data: bytes) -> Inclusion | Consistency:
    """Raises `NoteError`."""
    try:
        return msgspec.json.decode(data, type=Inclusion | Consistency)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NoteError("not a proof, as `habilis log prove` writes it") from None


def verify_proof(proof: Inclusion | Consistency, keys: Sequence[VerifierKey]) -> Note:
    """The checkpoint that a proof leads to. Raises `NoteError`, which says what does not hold."""
    if isinstance(proof, Inclusion):
        return _verify_entry(proof, keys)
    old, new = open_checkpoint(proof.old, keys), open_checkpoint(proof.new, keys)
    if old.origin != new.origin:
        raise NoteError("the two checkpoints are of two logs")
    if not verify_consistency(old.size, old.root, new.size, new.root, _bytes(proof.path)):
        raise NoteError("the later checkpoint does not continue the earlier one")
    return new


def _verify_entry(proof: Inclusion, keys: Sequence[VerifierKey]) -> Note:
    signed = open_checkpoint(proof.checkpoint, keys)
    if not verify_inclusion(heads_leaf(proof.heads), proof.heads_index, signed.size, _bytes(proof.heads_path), signed.root):
        raise NoteError("the heads are not in the log of heads that was signed")
    head = parse_heads(proof.heads).get(proof.segment)
    if head is None or head.size != proof.size:
        raise NoteError(f"the heads say nothing of segment {proof.segment} at {proof.size} entries")
    try:
        salt, body = bytes.fromhex(proof.salt), proof.body.encode()
    except ValueError:
        salt, body = b"", b""
    if len(salt) != SALT:
        raise NoteError(f"the salt is not {SALT} bytes in hexadecimal, or the body is no text")
    if not verify_inclusion(leaf_hash(salt, body), proof.index, proof.size, _bytes(proof.path), head.root):
        raise NoteError("the entry is not in the segment that was signed")
    return signed


def _hex(hashes: Sequence[bytes]) -> list[str]:
    return [one.hex() for one in hashes]


def _bytes(hashes: Sequence[str]) -> list[bytes]:
    try:
        made = [bytes.fromhex(one) for one in hashes]
    except ValueError:
        made = [b""]
    return made if all(len(one) == HASH for one in made) else [b""]
