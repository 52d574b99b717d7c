"""Merkle trees against their definition, the vectors of Certificate Transparency, and forgers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decision_log.merkle import EMPTY, Range, consistency_proof, inclusion_proof, leaf_hash, root, verify_consistency, verify_inclusion  # fmt: skip

INPUTS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""The tree that implementations of Certificate Transparency test themselves with."""


# --- the definition: RFC 6962, section 2.1, word for word ------------------------------------------------------------


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def mth(leaves: list[bytes]) -> bytes:
    n = len(leaves)
    if n == 0:
        return sha256().digest()
    if n == 1:
        return leaves[0]
    return sha256(b"\x01" + mth(leaves[: split(n)]) + mth(leaves[split(n) :])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    n = len(leaves)
    if n == 1:
        return []
    k = split(n)
    return [*path(m, leaves[:k]), mth(leaves[k:])] if m < k else [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], b: bool) -> list[bytes]:
    n = len(leaves)
    if m == n:
        return [] if b else [mth(leaves)]
    k = split(n)
    return [*subproof(m, leaves[:k], b), mth(leaves[k:])] if m <= k else [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def some_leaves(n: int) -> list[bytes]:
    return [leaf_hash(b"", str(number).encode()) for number in range(n)]


# --- right ones ------------------------------------------------------------------------------------------------------


def test_the_roots_are_those_of_certificate_transparency() -> None:
    leaves = [leaf_hash(b"", bytes.fromhex(one)) for one in INPUTS]
    assert [root(leaves[:n]).hex() for n in range(1, 9)] == list(ROOTS)
    assert root([]) == EMPTY == bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def test_a_salted_leaf_is_the_hash_of_zero_salt_and_record() -> None:
    assert leaf_hash(b"s" * 16, b"record") == sha256(b"\x00" + b"s" * 16 + b"record").digest()


@given(st.lists(st.integers(0, 40), max_size=8))
def test_a_tree_that_grows_has_the_root_of_its_definition(steps: list[int]) -> None:
    leaves, tree = some_leaves(sum(steps)), Range()
    done = 0
    for step in steps:
        tree.extend(leaves[done : done + step])
        done += step
        assert (tree.size, tree.root()) == (done, mth(leaves[:done]))
        again = Range.restored(tree.size, tree.nodes)
        assert again.root() == tree.root()


@given(st.integers(1, 150).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_inclusion_proofs_are_those_of_the_definition_and_verify(case: tuple[int, int]) -> None:
    size, index = case
    leaves = some_leaves(size)
    proof = inclusion_proof(leaves, size, index)
    assert proof == path(index, leaves)
    assert verify_inclusion(leaves[index], index, size, proof, mth(leaves))


@given(st.integers(1, 150).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_consistency_proofs_are_those_of_the_definition_and_verify(case: tuple[int, int]) -> None:
    old, new = case
    leaves = some_leaves(new)
    proof = consistency_proof(leaves, new, old)
    assert proof == subproof(old, leaves, True)
    assert verify_consistency(old, mth(leaves[:old]), new, mth(leaves), proof)


def test_the_empty_tree_begins_every_tree() -> None:
    leaves = some_leaves(5)
    assert consistency_proof(leaves, 5, 0) == []
    assert verify_consistency(0, EMPTY, 5, mth(leaves), [])
    assert not verify_consistency(0, mth(leaves), 5, mth(leaves), [])
    assert not verify_consistency(0, EMPTY, 5, mth(leaves), [leaves[0]])


def test_there_is_no_proof_of_what_is_not_there() -> None:
    for index in (-1, 3, 4):
        with pytest.raises(ValueError, match="there is no leaf"):
            inclusion_proof(some_leaves(3), 3, index)
    with pytest.raises(ValueError, match="the leaves end before 4"):
        inclusion_proof(some_leaves(3), 4, 0)
    with pytest.raises(ValueError, match="not the beginning"):
        consistency_proof(some_leaves(3), 3, 4)


@pytest.mark.parametrize(("size", "nodes"), [(-1, []), (1, []), (0, [EMPTY]), (3, [EMPTY]), (2, [b"short"])])
def test_what_cannot_be_a_tree_is_not_restored(size: int, nodes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="not the nodes of a tree"):
        Range.restored(size, nodes)


# --- forged ones -----------------------------------------------------------------------------------------------------


def forgeries(proof: list[bytes], material: list[bytes], seed: int) -> Iterator[list[bytes]]:
    """Proofs that are not this one, of every length from nothing to three more than it: cut, extended, flipped, swapped, of true nodes and of random ones."""
    chance = random.Random(seed)
    for length in range(len(proof) + 4):
        yield proof[:length] + [chance.choice(material) for _ in range(length - len(proof))]
        yield proof[len(proof) - length :] if length <= len(proof) else [chance.choice(material) for _ in range(length - len(proof))] + proof
        yield [chance.choice(material) for _ in range(length)]
        yield [chance.randbytes(32) for _ in range(length)]
    for place in range(len(proof)):
        node = proof[place]
        bit = chance.randrange(256)
        flipped = bytearray(node)
        flipped[bit // 8] ^= 1 << bit % 8
        yield [*proof[:place], bytes(flipped), *proof[place + 1 :]]
        yield proof[:place] + proof[place + 1 :]
        yield [*proof[:place], node, *proof[place:]]
        yield [*proof[:place], node[:-1], *proof[place + 1 :]]
        yield [*proof[:place], node + b"\x00", *proof[place + 1 :]]
    if len(proof) > 1:
        yield proof[::-1]


@pytest.mark.parametrize("size", range(1, 34))
def test_no_forged_inclusion_proof_of_any_length_verifies(size: int) -> None:
    leaves = some_leaves(size)
    whole = mth(leaves)
    material = [mth(leaves[a:b]) for a in range(0, size, 3) for b in range(a + 1, size + 1, 4)]
    for index in range(size):
        proof = inclusion_proof(leaves, size, index)
        for forged in forgeries(proof, material, index):
            assert forged == proof or not verify_inclusion(leaves[index], index, size, forged, whole)
        for other in range(-1, size + 2):
            if other != index:
                assert not verify_inclusion(leaves[index], other, size, proof, whole), "at another place"
                assert other not in range(size) or not verify_inclusion(leaves[other], index, size, proof, whole), "another leaf"
        assert not verify_inclusion(leaves[index], index, size, proof, bytes(32))
        assert not verify_inclusion(leaves[index], index, 0, proof, whole)
        assert not verify_inclusion(whole, index, size, [], whole) or size == 1, "the root itself is no leaf"


@pytest.mark.parametrize("new", range(1, 26))
def test_no_forged_consistency_proof_of_any_length_verifies(new: int) -> None:
    leaves = some_leaves(new)
    other = [*leaves[: new // 2], leaf_hash(b"", b"another"), *leaves[new // 2 + 1 :]]
    material = [mth(leaves[a:b]) for a in range(0, new, 3) for b in range(a + 1, new + 1, 4)]
    for old in range(1, new + 1):
        before, after, proof = mth(leaves[:old]), mth(leaves), consistency_proof(leaves, new, old)
        for forged in forgeries(proof, material, old):
            assert forged == proof or not verify_consistency(old, before, new, after, forged)
        assert not verify_consistency(old, bytes(32), new, after, proof)
        assert not verify_consistency(old, before, new, bytes(32), proof)
        assert not verify_consistency(new + 1, before, new, after, proof)
        if mth(other[:old]) != before:
            for wrong in (proof, consistency_proof(other, new, old)):
                assert not verify_consistency(old, before, new, mth(other), wrong), "a history that was changed"


@settings(max_examples=300)
@given(st.integers(1, 2**40), st.integers(0, 2**40), st.lists(st.binary(min_size=32, max_size=32), max_size=45), st.binary(min_size=32, max_size=32))
def test_random_proofs_verify_nothing_and_never_fail(size: int, index: int, proof: list[bytes], wanted: bytes) -> None:
    assert not verify_inclusion(EMPTY, index, size, proof, wanted)
    assert not verify_consistency(index, EMPTY, size, wanted, proof) or index == 0
