"""Checkpoints: what the log holds now, signed, so that nobody can change it later unseen. Proofs of a single entry are `engine.decision_log.proof`.

A log is many segments, so there is a log of heads above them: its leaf number n says how far segments had grown at checkpoint n, and its root is what is
signed. It only ever grows, as tlog-checkpoint demands, so one note of five lines covers every segment, old or new, and the checkpoints before it.

    heads 2026-03-03T14:05:00Z                                       a leaf of the log of heads
    worker-1-20260303T140011Z-5d0c8a3e 1234 <root, base64>           the segments that grew, their sizes and roots

    log.example/records                                                  a checkpoint: origin, size of the log of heads, its root
    4711
    <root, base64>

    — log.example/records <key id and Ed25519 signature, base64>

Formats: C2SP signed-note and tlog-checkpoint, without extension lines; verifier keys as Go's sumdb/note writes them.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from engine.decision_log.merkle import HASH, Range, leaf_hash
from engine.decision_log.storage import SEGMENT, Checkpoint, Head, Storage, open_storage
from engine.errors import HabilisError

PAGE = 1000
TURN = 0.0005
"""Seconds that the checkpoints leave to others after a page of leaves: hashing one takes about as long."""
ED25519 = b"\x01"
MOST_SIGNATURES = 100
_SIZE = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")
_HEAD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127}) ([1-9][0-9]{0,18}) ([A-Za-z0-9+/]{43}=)\Z")


class NoteError(HabilisError):
    """A note, a key or a checkpoint that is not well-formed, or that no known key has signed."""


# --- keys ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Whose signature is believed: the log's name and a public key. `until`: only up to this size of the log of heads, for a key that was retired."""

    name: str
    public: bytes
    until: int | None = None

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        ended = "" if self.until is None else f" until {self.until}"
        return f"{self.name}+{self.id.hex()}+{_base64(ED25519 + self.public)}{ended}"

    def is_behind(self, signature: bytes, text: str) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


def verifier_key(name: str, key: Ed25519PrivateKey) -> VerifierKey:
    return VerifierKey(name, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def parse_key(line: str) -> VerifierKey:
    """`NAME+ID+KEY`, where ID is eight hexadecimal digits and KEY base64, and perhaps ` until SIZE`."""
    text, sign, until = line.strip().partition(" until ")
    name, _, rest = text.partition("+")
    id, _, encoded = rest.partition("+")
    data = _bytes(encoded)
    if not name or " " in name or data is None or len(data) != 1 + HASH or data[:1] != ED25519 or (sign and not _SIZE.match(until)):
        raise NoteError("not an Ed25519 verifier key: write NAME+ID+KEY, as `habilis log key` prints it")
    key = VerifierKey(name, data[1:], int(until) if sign else None)
    if key.id.hex() != id:
        raise NoteError(f"the id of the key of `{name}` does not fit it")
    return key


def parse_keys(text: str) -> list[VerifierKey]:
    """One key a line; what starts with `#` is a comment."""
    lines = [line.strip() for line in text.splitlines()]
    return [parse_key(line) for line in lines if line and not line.startswith("#")]


def new_key() -> bytes:
    """A private key, as PEM."""
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def parse_private_key(pem: bytes) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise NoteError("not an Ed25519 private key in PEM, as `habilis log key` makes it")
    return key


# --- notes -----------------------------------------------------------------------------------------------------------


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """The text, signed."""
    return f"{text}\n— {name} {_base64(verifier_key(name, key).id + key.sign(text.encode()))}\n"


def open_note(note: str, keys: Sequence[VerifierKey]) -> tuple[str, list[VerifierKey]]:
    """The text of a note, and which of these keys signed it: at least one. Signatures of others are passed over. Raises `NoteError`."""
    body, sign, signatures = note.rpartition("\n\n")
    text, lines = body + "\n", signatures.split("\n")
    if not sign or lines.pop() != "" or not lines or len(lines) > MOST_SIGNATURES or any(one < " " and one != "\n" for one in note):
        raise NoteError("not a signed note")
    known, found = {(key.name, key.id): key for key in keys}, []
    for line in lines:
        parts = line.split(" ")
        name, data = parts[1] if len(parts) == 3 else "", _bytes(parts[-1])
        if parts[0] != "—" or not name or "+" in name or data is None or len(data) < 5:
            raise NoteError("not a signed note: a signature is malformed")
        key = known.get((name, data[:4]))
        if key is None:
            continue
        if not key.is_behind(data[4:], text):
            raise NoteError(f"the signature of `{name}` is wrong")
        found.append(key)
    if not found:
        raise NoteError("signed by no key that is known")
    return text, found


@dataclass(frozen=True, slots=True)
class Note:
    """What a checkpoint says: whose log of heads, its size and its root."""

    origin: str
    size: int
    root: bytes

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"


def parse_checkpoint(text: str) -> Note:
    """What the text of a checkpoint says; extension lines of others are passed over."""
    lines = text.split("\n")
    root = _bytes(lines[2]) if len(lines) > 3 else None
    if root is None or len(root) != HASH or not _SIZE.match(lines[1]) or lines.pop() != "" or not all(lines):
        raise NoteError("not a checkpoint: origin, size and root, each on a line")
    return Note(lines[0], int(lines[1]), root)


def open_checkpoint(note: str, keys: Sequence[VerifierKey]) -> Note:
    """What a checkpoint says, if one of these keys signed it, and a key of this log. Raises `NoteError`."""
    text, signers = open_note(note, keys)
    said = parse_checkpoint(text)
    if not any(key.name == said.origin for key in signers):
        raise NoteError(f"a checkpoint of `{said.origin}` signed by a key of another log")
    if not any(key.name == said.origin and (key.until is None or said.size <= key.until) for key in signers):
        raise NoteError("signed by a key that was retired before")
    return said


# --- heads -----------------------------------------------------------------------------------------------------------


def write_heads(at: float, heads: Mapping[str, Head]) -> str:
    """A leaf of the log of heads."""
    time_line = f"heads {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(at))}\n"
    return time_line + "".join(f"{name} {head.size} {_base64(head.root)}\n" for name, head in sorted(heads.items()))


def parse_heads(text: str) -> dict[str, Head]:
    first, *lines = text.split("\n")
    matches = [_HEAD.match(line) for line in lines[:-1]]
    if not first.startswith("heads ") or not lines or lines[-1] != "" or None in matches:
        raise NoteError("the heads of a checkpoint are malformed")
    found = {one[1]: Head(int(one[2]), base64.b64decode(one[3])) for one in matches if one}
    if len(found) != len(matches):
        raise NoteError("the heads of a checkpoint name a segment twice")
    return found


def heads_leaf(text: str) -> bytes:
    return leaf_hash(b"", text.encode())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes | None:
    """Base64 that was written the one right way."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _base64(data) == text else None


# --- making them -----------------------------------------------------------------------------------------------------


class Checkpointer:
    """Makes the checkpoints of a log while no other process does, in a thread of its own: every so often, when something has grown.

    It reads what is durable, whoever wrote it, so the segments of processes that died are covered too. What no longer fits what was signed before is left
    out of the next checkpoints and told in `problem`.
    """

    def __init__(self, url: str, key: Ed25519PrivateKey, timeout: float = 2.0, every: float = 1.0, run: bool = True):
        self._url, self._key, self._timeout, self._every = url, key, timeout, every
        self._opened: Storage | None = None
        self._number: int | None = None
        self._tree = Range()
        self._heads: dict[str, Head] = {}
        self._ranges: dict[str, Range] = {}
        self._stop = threading.Event()
        self.is_leading = False
        """Whether this process makes the checkpoints."""
        self.problem: str | None = None
        """Why not everything that is durable is proved, at the last attempt."""
        self.made_at: float | None = None
        """When this process last found everything durable proved, or proved it."""
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True) if run else None
        if self._thread is not None:
            self._thread.start()

    @property
    def _storage(self) -> Storage:
        if self._opened is None:
            self._opened = open_storage(self._url, False, self._timeout)
        return self._opened

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.attempt()

    def attempt(self) -> Checkpoint | None:
        """Make a checkpoint if it is this process's turn and something has grown. Never raises: see `problem`."""
        try:
            return self.make()
        except HabilisError as error:
            self.problem = str(error)
        except Exception as error:
            self.problem = f"checkpoints failed ({type(error).__name__})"
        self.release()
        return None

    def release(self) -> None:
        """Let another process make the next checkpoint, and begin anew at the next attempt."""
        self._number, self.is_leading = None, False
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def make(self) -> Checkpoint | None:
        """The same. Raises `LogUnavailable`, or `NoteError` when the checkpoints that are kept contradict each other."""
        self.is_leading = self._storage.lock()
        if not self.is_leading:
            self._number = self.problem = self.made_at = None
            return None
        self._resume()
        problems: list[str] = []
        grown = self._grown(self._storage.sizes(), problems)
        made = self._add({name: Head(tree.size, tree.root()) for name, tree in grown.items()}) if grown else None
        self._ranges.update(grown)
        self.problem, self.made_at = "; ".join(problems) or None, time.time()
        return made

    def _resume(self) -> None:
        """Know where the last checkpoint ended, whoever made it, from what is kept; and that what is kept is what was signed."""
        last = self._storage.last_checkpoint()
        if self._number == (last.number if last else -1):
            return
        self._number = None
        proved = self._storage.proved()
        self._tree, self._heads, self._ranges = proved.tree, dict(proved.heads), {}
        said = parse_checkpoint(last.note.rpartition("\n\n")[0] + "\n") if last else Note(self._storage.origin, 0, Range().root())
        if (self._tree.size, self._tree.root()) != (said.size, said.root):
            self._tree = Range(heads_leaf(one.heads) for one in self._storage.checkpoints())
        if (self._tree.size, self._tree.root()) != (said.size, said.root):
            raise NoteError("the checkpoints that are kept do not lead to the last one that was signed: none is added")
        self._number = last.number if last else -1

    def _grown(self, sizes: Mapping[str, int], problems: list[str]) -> dict[str, Range]:
        """The trees of the segments that have grown, and what is wrong with others."""
        problems += [f"segment {name} is gone" for name in self._heads if name not in sizes]
        found = {}
        for name, size in sizes.items():
            head = self._heads.get(name, Head(0, Range().root()))
            if not SEGMENT.match(name):
                problems.append("a segment has a name that no segment has")
            elif size < 0:
                problems.append(f"segment {name} is damaged")
            elif size < head.size:
                problems.append(f"segment {name} has lost entries: {size} of {head.size} are left")
            elif size > head.size:
                tree = self._extended(name, head, size)
                if tree is None:
                    problems.append(f"segment {name} is not what was signed, or has gaps")
                else:
                    found[name] = tree
        return found

    def _extended(self, name: str, head: Head, size: int) -> Range | None:
        """The tree of a segment at this size, if it continues what was signed."""
        kept = self._ranges.get(name)
        if kept is None or kept.size != head.size:
            kept = Range()
            self._extend(kept, name, head.size)
            if (kept.size, kept.root()) != head:
                return None
        tree = Range.restored(kept.size, kept.nodes)
        self._extend(tree, name, size)
        return tree if tree.size == size else None

    def _extend(self, tree: Range, name: str, size: int) -> None:
        """Extend the tree of a segment up to this size, or up to a gap. After each page whoever serves requests gets a turn, who would else wait for all."""
        leaves = self._storage.leaves(name, tree.size, size)
        while page := list(islice(leaves, PAGE)):
            if [index for index, _ in page] != list(range(tree.size, tree.size + len(page))):
                return
            tree.extend(leaf for _, leaf in page)
            time.sleep(TURN)

    def _add(self, heads: Mapping[str, Head]) -> Checkpoint:
        """INVARIANT: the state moves on only once the checkpoint is kept; after any doubt it is read again."""
        number, self._number = self._number, None
        assert number is not None
        text = write_heads(time.time(), heads)
        tree = Range.restored(self._tree.size, self._tree.nodes)
        tree.extend([heads_leaf(text)])
        note = sign_note(str(Note(self._storage.origin, tree.size, tree.root())), self._storage.origin, self._key)
        made = Checkpoint(number + 1, text, note)
        self._storage.add_checkpoint(made, tree, heads)
        self._tree, self._heads, self._number = tree, self._heads | heads, made.number
        return made

    def close(self) -> None:
        """Make a last checkpoint, and let another process make the next."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            if self._thread.is_alive():
                return
        self.attempt()
        self.release()

    def forked(self) -> None:
        if self._opened is not None:
            self._opened.forked()
