"""What does a record cost: to fold, to look up, to change, to keep?

Size: records of 0, 10, 100 and 5,000 directives; stores of 10,000 and of 100,000 patients with records of about a dozen directives, a few of hundreds, on
SQLite and PostgreSQL, with and without Redis. Baseline: folding the same directives without a store, and deciding on a folded record.

SQLite and PostgreSQL are on the disk of this machine and acknowledge what is on it; one process and one connection ask, so every wait is in the figure: what
counts is the wall, and processor time of this process stands beside it. Everything is asserted equal to the plain fold before it is timed.
"""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from sqlalchemy import func, select

from benchmarks.inputs import AT, SEED, as_request, make_patients, national, shuffled
from benchmarks.measure import Answer, Bar, Contender, Inputs, Plot, Table, Timing, digits, shuffled_blocks, time_in_turns
from benchmarks.packs import FRENCH
from engine.consent.acts import perform
from engine.consent.cache import RedisCache
from engine.consent.database import chain
from engine.consent.directives import Directive, parse_directives
from engine.consent.fold import Record
from engine.consent.migrations import CARRIED, directives, records
from engine.consent.migrations import store as life
from engine.consent.store import Conflict, ConsentStore
from engine.pdp import Pdp, load_pdp
from engine.request import Action, Entity, Request

LENGTHS = (0, 10, 100, 5000)
FLAT = 1.2
_ticks = count()


def now() -> float:
    """The clock: it is an input, and runs."""
    return AT + next(_ticks) * 1e-5


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything: patients of the small and of the large store, how many of them are asked about, blocks, and operations a block."""

    patients: tuple[int, int]
    asked: int
    blocks: int
    reads: int
    writes: int


@dataclass(frozen=True, slots=True)
class Filled:
    """A store with so many patients, how to open it again, those who are asked about with a request each, and the bytes that it takes on the disk."""

    name: str
    url: str
    patients: int
    asked: Sequence[tuple[str, Request]]
    size: int


def run(quick: bool) -> Answer:
    """Fold first, then fill stores on a disk and ask them."""
    pdp = load_pdp(FRENCH)
    sizes = Sizes((500, 2_000), 200, 5, 200, 20) if quick else Sizes((10_000, 100_000), 5_000, 20, 2_000, 200)
    small, large = sizes.patients
    question = "What does a record cost: to fold, to look up, to change, to keep?"
    size = f"records of {', '.join(map(digits, LENGTHS))} directives; stores of {small:,} and {large:,} patients, seed {SEED}; one process, one connection"
    made = Answer("consent_store", question, size, "folding the same directives without a store, and deciding on a folded record")
    _folding(made, pdp, sizes)
    with ExitStack() as stack:
        redis = _redis(stack)
        several = {kind: [_fill(url(), kind, pdp, number, sizes) for number in sizes.patients] for kind, url in _places(stack).items()}
        for kind, (few, many) in several.items():
            _flatness(made, pdp, kind, few, many, sizes)
        _looking(made, pdp, [few for few, _ in several.values()], redis.url(), sizes)
        _keeping(made, pdp, [one for pair in several.values() for one in pair], redis, sizes)
    return made


# --- folding ---------------------------------------------------------------------------------------------------------


def _folding(made: Answer, pdp: Pdp, sizes: Sizes) -> None:
    table = Table("One record", ("what", "µs", "µs a directive", "records a block", "processor"))
    each: dict[str, float] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    request = as_request(next(make_patients(pdp, 1))[2])
    for length in LENGTHS:
        number = max(3, sizes.reads // (length // 10 + 1))
        texts = [_record(pdp, length, seed) for seed in range(number)]
        parsed = [parse_directives(msgspec.json.decode(one), pdp.pack.vocabulary) for one in texts]
        known = [pdp.fold(one, AT) for one in parsed]
        orders = list(shuffled(number, sizes.blocks))
        contenders = [
            Contender("JSON to directives", lambda one: parse_directives(msgspec.json.decode(one), pdp.pack.vocabulary), shuffled_blocks(texts, orders)),
            Contender("folded", lambda one: pdp.fold(one, AT), shuffled_blocks(parsed, orders)),
            Contender("facts and a decision on a record just folded", lambda one: pdp.decide(request, one), _just_folded(pdp, parsed, orders)),
            Contender("facts and a decision on a record that is known", lambda one: pdp.decide(request, one), shuffled_blocks(known, orders)),
        ]
        for record in known:
            pdp.decide(request, record)
        for name, timing in time_in_turns(contenders, sizes.blocks).items():
            label = f"{length:,} directives: {name}"
            each[label] = timing.micros / max(1, length)
            table.rows.append((label, timing.micros, each[label] if length else "", timing.decisions, f"{timing.share:.0%}"))
            curves.setdefault(name, []).append((max(1, length), timing.micros))
    made.tables.append(table)
    made.plots.append(Plot("One record, by its directives", "directives", "µs of processor time", curves=curves))
    for name in ("JSON to directives", "folded"):
        over = each[f"{LENGTHS[-1]:,} directives: {name}"] / each[f"{LENGTHS[-2]:,} directives: {name}"]
        made.bars.append(Bar(f"{name}: a directive of {LENGTHS[-1]:,} over one of {LENGTHS[-2]}", over, 2, "times"))


def _record(pdp: Pdp, length: int, seed: int) -> bytes:
    """A record of exactly so many directives, as JSON: those of several patients, one after the other."""
    several = (one for _, some, _ in make_patients(pdp, length + 1, SEED + seed) for one in some)
    return json.dumps(list(islice(several, length))).encode()


def _just_folded(pdp: Pdp, parsed: Sequence[Sequence[Directive]], orders: Sequence[Sequence[int]]) -> Inputs:
    def inputs(block: int) -> list[Record]:
        return [pdp.fold(parsed[n], AT) for n in orders[block]]

    return inputs


# --- stores on a disk ------------------------------------------------------------------------------------------------


def _places(stack: ExitStack) -> dict[str, Callable[[], str]]:
    """Addresses of new stores, for each kind of database."""
    servers = _servers()

    class Server(servers.Postgres):  # type: ignore[misc, name-defined]
        def command(self) -> list[str]:
            return [*super().command(), "-c", "shared_buffers=256MB"]

    server = Server()
    stack.callback(server.stop)
    folder = stack.enter_context(TemporaryDirectory(prefix="habilis-"))
    numbers = count(1)
    return {"SQLite": lambda: f"sqlite:///{folder}/{next(numbers)}.db", "PostgreSQL": server.new_place}


def _redis(stack: ExitStack) -> Any:
    redis = _servers().Redis()
    stack.callback(redis.stop)
    return redis


def _servers() -> Any:
    """The servers of the tests, on the disk and not in memory: here an acknowledgement must cost what it costs."""
    from tests import servers

    servers.QUICK = None
    return servers


def _fill(url: str, kind: str, pdp: Pdp, number: int, sizes: Sizes) -> Filled:
    """A store with this many patients, written a thousand at a time, and asserted to say of those asked about what their directives say."""
    chosen = set(Random(SEED).sample(range(number), min(sizes.asked, number)))
    asked: list[tuple[str, Request]] = []
    with ConsentStore(url, pdp.pack.vocabulary, create=True, timeout=60.0) as store:
        everybody = enumerate(make_patients(pdp, number))
        while several := list(islice(everybody, 1000)):
            _write(store, [(patient, some) for _, (patient, some, _) in several])
            for place, (patient, some, asks) in several:
                if place in chosen:
                    request = as_request(asks)
                    record, token = store.read(patient, AT)
                    assert token.revision == len(some)
                    assert pdp.decide(request, record).rule == pdp.decide(request, pdp.fold(some, AT)).rule
                    asked.append((patient, request))
        if kind == "PostgreSQL":
            with store.reading() as connection:
                connection.exec_driver_sql("ANALYZE")
                size = sum(connection.execute(select(func.pg_total_relation_size(table.name))).scalar_one() for table in CARRIED)
    if kind == "SQLite":
        size = os.path.getsize(url.removeprefix("sqlite:///"))
    return Filled(f"{kind}, {number:,} patients", url, number, asked, size)


def _write(store: ConsentStore, several: Sequence[tuple[str, list[dict[str, Any]]]]) -> None:
    """What as many appends would have written, in one transaction."""
    with store.writing() as connection:
        epoch = connection.execute(select(life.c.epoch)).scalar_one()
        heads, rows = [], []
        for patient, some in several:
            own = [(n, epoch, AT, json.dumps(one, ensure_ascii=False, sort_keys=True, separators=(",", ":"))) for n, one in enumerate(some, 1)]
            heads.append({"patient": patient, "revision": len(own), "digest": chain(patient, "", own)})
            rows += [{"patient": patient, "revision": n, "epoch": epoch, "recorded": AT, "body": body} for n, _, _, body in own]
        connection.execute(records.insert(), heads)
        connection.execute(directives.insert(), rows)


# --- asking ----------------------------------------------------------------------------------------------------------

AT_HAND, MET = "look-up, body at hand", "look-up, met for the first time"
DECIDED, DECIDED_MET = "look-up and decision, body at hand", "look-up and decision, met for the first time"
FOLDED = "decision on a folded record, no store"


def _flatness(made: Answer, pdp: Pdp, kind: str, few: Filled, many: Filled, sizes: Sizes) -> None:
    """The same look-ups in a small and in a large store, in turns."""
    contenders = []
    with ExitStack() as stack:
        for one in (few, many):
            contenders += _reads(pdp, one, one.name, None, stack, sizes)[:2]
        timings = time_in_turns(contenders, sizes.blocks)
    made.tables.append(_table(f"{kind}: more patients", timings.values()))
    for what in (AT_HAND, MET):
        over = timings[f"{many.name}: {what}"].wall / timings[f"{few.name}: {what}"].wall
        made.bars.append(Bar(f"{kind}: {what}, {many.patients:,} patients over {few.patients:,}", over, FLAT, "times"))


def _looking(made: Answer, pdp: Pdp, stores: Sequence[Filled], redis_url: str, sizes: Sizes) -> None:
    """Reads, decisions and writes, on each kind of database, with Redis and without."""
    reads, writes = [], []
    with ExitStack() as stack:
        for filled in stores:
            kind = filled.name.partition(",")[0]
            reads += _reads(pdp, filled, kind, None, stack, sizes)
            reads += _reads(pdp, filled, f"{kind} and Redis", redis_url, stack, sizes)
            writes += _writes(pdp, filled, kind, None, filled.asked[::2], stack, sizes)
            writes += _writes(pdp, filled, f"{kind} and Redis", redis_url, filled.asked[1::2], stack, sizes)
        with ConsentStore(stores[0].url, pdp.pack.vocabulary, timeout=60.0) as store:
            folded = [(request, store.read(patient, now())[0]) for patient, request in stores[0].asked]
        reads.append(Contender(FOLDED, pdp.decide, shuffled_blocks(folded, list(shuffled(len(folded), sizes.blocks)), sizes.reads), star=True))
        made.tables.append(_table("Look-ups and decisions", time_in_turns(reads, sizes.blocks).values()))
        made.tables.append(_table("Changes, each durable when it returns", time_in_turns(writes, sizes.blocks).values()))


def _opened(pdp: Pdp, filled: Filled, redis_url: str | None, stack: ExitStack, memory: int = 10_000_000) -> ConsentStore:
    cache = RedisCache(redis_url, timeout=1.0) if redis_url else None
    return stack.enter_context(ConsentStore(filled.url, pdp.pack.vocabulary, cache, timeout=60.0, memory=memory))


def _reads(pdp: Pdp, filled: Filled, name: str, redis_url: str | None, stack: ExitStack, sizes: Sizes) -> list[Contender]:
    known, forgets = _opened(pdp, filled, redis_url, stack), _opened(pdp, filled, redis_url, stack, memory=1)
    for patient, request in filled.asked:
        for store in (known, forgets):
            pdp.decide(request, store.read(patient, now())[0])  # at hand; and in Redis, where there is one
    orders = list(shuffled(len(filled.asked), sizes.blocks))
    inputs = shuffled_blocks(filled.asked, orders, sizes.reads)
    return [
        Contender(f"{name}: {AT_HAND}", lambda patient, _: known.read(patient, now()), inputs, star=True),
        Contender(f"{name}: {MET}", lambda patient, _: forgets.read(patient, now()), inputs, star=True),
        Contender(f"{name}: {DECIDED}", lambda patient, request: pdp.decide(request, known.read(patient, now())[0]), inputs, star=True),
        Contender(f"{name}: {DECIDED_MET}", lambda patient, request: pdp.decide(request, forgets.read(patient, now())[0]), inputs, star=True),
    ]


def _writes(
    pdp: Pdp, filled: Filled, name: str, redis_url: str | None, asked: Sequence[tuple[str, Request]], stack: ExitStack, sizes: Sizes
) -> list[Contender]:  # fmt: skip
    """Changes to the records of those who are `asked` about, whom no other contender changes: so that none has to read what another wrote."""
    store = _opened(pdp, filled, redis_url, stack)
    patients, numbers = [patient for patient, _ in asked], count()
    him = {"target": {"type": "professional", "id": "10000000017"}}
    stranger = Entity("patient", national(filled.patients))
    granted = [Request(Entity("patient", one), Action("grant_access", him), Entity("record", one), {"purpose": "care"}) for one in patients]
    refused = [Request(stranger, Action("close"), Entity("record", one), {"purpose": "care"}) for one in patients]

    def append(patient: str) -> None:
        store.append(patient, [{"kind": "block", "target": {"professional": f"{next(numbers):011d}"}}], now())

    def act(request: Request) -> bool:
        return perform(pdp, store, request, now(), Conflict).answer.permitted

    assert sum(map(act, granted[:50])) > 25 and not any(map(act, refused[:50]))
    orders = list(shuffled(len(patients), sizes.blocks))
    return [
        Contender(f"{name}: a directive appended", append, shuffled_blocks(patients, orders, sizes.writes)),
        Contender(f"{name}: an access granted, decided and kept", act, shuffled_blocks(granted, orders, sizes.writes)),
        Contender(f"{name}: an act refused and kept", act, shuffled_blocks(refused, orders, sizes.writes)),
    ]


def _table(title: str, timings: Any) -> Table:
    made = Table(title, ("what", "µs on the wall", "a second", "µs of processor", "quartiles", "a block", "blocks", "processor"))
    for t in timings:
        assert isinstance(t, Timing)
        made.rows.append((t.name, t.wall, 1e6 / t.wall, t.micros, f"{digits(t.low)} to {digits(t.high)}", t.decisions, t.blocks, f"{t.share:.0%}"))
    return made


# --- keeping ---------------------------------------------------------------------------------------------------------


def _keeping(made: Answer, pdp: Pdp, stores: Sequence[Filled], redis: Any, sizes: Sizes) -> None:
    table = Table("Bytes", ("what", "a patient", "patients"))
    for one in stores:
        table.rows.append((f"on the disk: {one.name}", one.size / one.patients, one.patients))
    with redis.client() as client:
        keys = list(islice(client.scan_iter(count=1000), 1000))
        table.rows.append(("in Redis: a body", sum(client.memory_usage(key) for key in keys) / max(1, len(keys)), len(keys)))
    few = stores[0].asked[:500]
    with ConsentStore(stores[0].url, pdp.pack.vocabulary, timeout=60.0) as store:
        tracemalloc.start()
        for patient, request in few:
            pdp.decide(request, store.read(patient, now())[0])
        table.rows.append(("in a process: directives, record and its plan", tracemalloc.get_traced_memory()[0] / len(few), len(few)))
        tracemalloc.stop()
    made.tables.append(table)
