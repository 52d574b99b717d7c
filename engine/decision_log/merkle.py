"""Merkle trees as RFC 6962 and RFC 9162 define them: roots, inclusion and consistency proofs, made and verified. No storage, no signature.

A leaf here is salted, SHA-256(0x00 || salt || record): whoever has only the leaf cannot guess the record behind it, so salt and record can be erased and the
tree still verifies. An inner node is SHA-256(0x01 || left || right); the left subtree is always the largest full one. The definition itself, six lines of
recursion, is in the tests, which compare it with what is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import islice

EMPTY = sha256().digest()
"""The root of a tree without leaves."""
HASH = 32
SALT = 16


def leaf_hash(salt: bytes, record: bytes) -> bytes:
    """The leaf of a salted record; with an empty salt, of a plain one as in the RFC.

    Where a salt belongs is said by its length alone: whoever verifies a salted leaf must see to it that there are `SALT` bytes.
    """
    return sha256(b"\x00" + salt + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Range:
    """A tree that grows at its right edge, as the roots of its full subtrees alone: at most one for each bit of its size."""

    __slots__ = ("nodes", "size")

    def __init__(self, leaves: Iterable[bytes] = ()):
        self.size = 0
        self.nodes: list[bytes] = []
        """Roots of the full subtrees, from the left, which is from the largest."""
        self.extend(leaves)

    @classmethod
    def restored(cls, size: int, nodes: Sequence[bytes]) -> Range:
        """A tree whose size and nodes were kept. Raises `ValueError` when these cannot be the nodes of a tree of this size."""
        if size < 0 or len(nodes) != size.bit_count() or any(len(node) != HASH for node in nodes):
            raise ValueError("these are not the nodes of a tree of this size")
        made = cls()
        made.size, made.nodes = size, list(nodes)
        return made

    def extend(self, leaves: Iterable[bytes]) -> None:
        nodes, size = self.nodes, self.size
        for node in leaves:
            rest = size
            while rest & 1:
                node = sha256(b"\x01" + nodes.pop() + node).digest()
                rest >>= 1
            nodes.append(node)
            size += 1
        self.size = size

    def root(self) -> bytes:
        if not self.nodes:
            return EMPTY
        *others, made = self.nodes
        for node in reversed(others):
            made = node_hash(node, made)
        return made


def root(leaves: Iterable[bytes]) -> bytes:
    return Range(leaves).root()


# --- proofs ----------------------------------------------------------------------------------------------------------


def inclusion_proof(leaves: Iterable[bytes], size: int, index: int) -> list[bytes]:
    """What it takes to compute the root of these leaves, `size` of them, from the one at `index` (RFC 9162, 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append((middle, high))
            high = middle
        else:
            path.append((low, middle))
            low = middle
    return _roots(leaves, path[::-1])


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the tree of `size` leaves with this root has this leaf at `index` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes([leaf, root, *proof]):
        return False
    here, last, made = index, size - 1, leaf
    for node in proof:
        if last == 0:
            return False
        if here & 1 or here == last:
            made = node_hash(node, made)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            made = node_hash(made, node)
        here, last = here >> 1, last >> 1
    return last == 0 and made == root


def consistency_proof(leaves: Iterable[bytes], size: int, old: int) -> list[bytes]:
    """What it takes to see that the tree of the first `old` of these leaves is the beginning of the tree of all `size` (RFC 9162, 2.1.4.1)."""
    if not 0 <= old <= size:
        raise ValueError(f"a tree of {old} leaves is not the beginning of one of {size}")
    if old in (0, size):
        return []
    path, low, high, is_whole = [], 0, size, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append((middle, high))
            high = middle
        else:
            path.append((low, middle))
            low, is_whole = middle, False
    if not is_whole:
        path.append((low, high))
    return _roots(leaves, path[::-1])


def _roots(leaves: Iterable[bytes], spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """The roots of the subtrees over these spans, which do not overlap, in one pass over the leaves: they need not fit into memory."""
    stream, here, found = iter(leaves), 0, {}
    for low, high in sorted(spans):
        tree = Range(islice(stream, low - here, high - here))
        if tree.size != high - low:
            raise ValueError(f"the leaves end before {high}")
        here, found[low] = high, tree.root()
    return [found[low] for low, _ in spans]


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of `old` leaves with `old_root` is the beginning of the one of `new` leaves with `new_root` (RFC 9162, 2.1.4.2).

    The empty tree is the beginning of every tree, and every tree of itself: both without a proof.
    """
    if not 0 <= old <= new or not _are_hashes([old_root, new_root, *proof]):
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY
    if not proof:
        return False
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    here, last = old - 1, new - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    before = after = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            before, after = node_hash(node, before), node_hash(node, after)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            after = node_hash(after, node)
        here, last = here >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root


def _split(size: int) -> int:
    """The largest power of two below a size of at least two."""
    return 1 << (size - 1).bit_length() - 1


def _are_hashes(several: Iterable[bytes]) -> bool:
    return all(len(one) == HASH for one in several)
