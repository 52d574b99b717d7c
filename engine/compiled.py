"""A compiled pack in one file: the pack's own files, its diagrams and its tables, ready to decide without compiling.

    "habilis pack 1\\n"  SHA-256 of the rest, 32 bytes  MessagePack body

The same pack gives the same bytes. The checksum catches a damaged file, not a forged one: who may bring a pack into service is decided where packs are signed.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np

from engine.errors import Diagnostic, PackError
from engine.evaluator.diagram import Store
from engine.evaluator.slices import Slice
from engine.evaluator.tables import Digit, Tables
from engine.pack import Pack, parse_pack
from engine.pdp import Pdp
from engine.specs import Scalar

MAGIC = b"habilis pack 1\n"


class _Slice(msgspec.Struct, array_like=True):
    facts: list[tuple[str, list[bool | str]]]
    order: list[int]
    root: int
    rules: list[int]
    nodes: list[tuple[int, int, list[tuple[int, int]]]]
    fields: list[tuple[str, int, int]]
    digits: list[tuple[int, int, bytes]]


class _Body(msgspec.Struct, array_like=True):
    files: list[tuple[str, bytes]]
    settings: list[tuple[str, Scalar]]
    slices: list[_Slice]
    uses: list[tuple[str, str, int]]


def dump(pdp: Pdp) -> bytes:
    """A compiled pack as bytes."""
    distinct: dict[int, int] = {}
    slices: list[_Slice] = []
    uses: list[tuple[str, str, int]] = []
    for (subject, action), slice in pdp.slices.items():
        if id(slice) not in distinct:
            distinct[id(slice)] = len(slices)
            runner = pdp.runner(subject, action)
            assert runner is not None
            slices.append(_slice(slice, runner.tables))
        uses.append((subject, action, distinct[id(slice)]))
    body = msgspec.msgpack.encode(_Body(sorted(pdp.pack.files.items()), sorted(pdp.pack.overrides.items()), slices, uses))
    return MAGIC + hashlib.sha256(body).digest() + body


def _slice(slice: Slice, tables: Tables) -> _Slice:
    store = slice.store
    numbers = {n: place for place, n in enumerate(store.reachable(slice.root))}
    nodes = []
    for n in numbers:
        node = store.nodes[n]
        nodes.append((node.variable, numbers.get(node.default, node.default), [(value, numbers.get(child, child)) for value, child in node.others]))
    fields = [(name, shift, bits) for name, (shift, bits) in tables.fields.items()]
    digits = [(digit.shift, digit.bits, digit.table.astype("<i4").tobytes()) for digit in tables.digits]
    facts = [(fact.name, list(fact.values)) for fact in slice.facts]
    return _Slice(facts, store.order, numbers.get(slice.root, slice.root), list(slice.rules), nodes, fields, digits)


def load(data: bytes, name: str = "the compiled pack") -> Pdp:
    """The compiled pack in some bytes. Raises `PackError` for bytes that are no compiled pack, are damaged, or whose files no longer check."""
    if not data.startswith(MAGIC):
        raise _unreadable(name, "this is not a compiled pack of this version", "compile it again with `habilis compile`")
    checksum, body = data[len(MAGIC) : len(MAGIC) + 32], data[len(MAGIC) + 32 :]
    if hashlib.sha256(body).digest() != checksum:
        raise _unreadable(name, "this compiled pack is damaged: its checksum is not that of its content", "compile it again with `habilis compile`")
    try:
        read = msgspec.msgpack.decode(body, type=_Body)
    except msgspec.DecodeError as error:
        raise _unreadable(name, f"this compiled pack cannot be read: {error}", "compile it again with `habilis compile`") from None
    pack = parse_pack(dict(read.files), dict(read.settings))
    known = {fact.name: fact.values for fact in pack.vocabulary.facts.values()}
    if any(known.get(fact) != tuple(values) for one in read.slices for fact, values in one.facts):
        raise _unreadable(name, "this compiled pack numbers the values of facts otherwise than this version", "compile it again with `habilis compile`")
    made = [_restore(pack, one) for one in read.slices]
    slices = {(subject, action): made[number][0] for subject, action, number in read.uses}
    return Pdp(pack, slices, {id(slice): tables for slice, tables in made})


def _restore(pack: Pack, one: _Slice) -> tuple[Slice, Tables]:
    facts = tuple(pack.vocabulary.facts[name] for name, _ in one.facts)
    store = Store([len(fact.values) for fact in facts], pack.node_budget)
    store.order, store.level = list(one.order), [one.order.index(v) for v in range(len(facts))]
    for variable, default, others in one.nodes:  # a node's number is its place: children come first
        store.node(variable, dict(others), default)
    fields = {name: (shift, bits) for name, shift, bits in one.fields}
    values = {name: pack.vocabulary.facts[name].values for name in fields}
    digits = tuple(Digit(shift, bits, np.frombuffer(table, "<i4").astype(np.int32)) for shift, bits, table in one.digits)
    return Slice(facts, store, one.root, tuple(one.rules)), Tables(fields, values, digits)


def _unreadable(name: str, message: str, help: str) -> PackError:
    return PackError([Diagnostic("compiled-unreadable", message, name, help=help)])


