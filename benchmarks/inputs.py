"""Inputs that look like a day of the French record, from a seeded generator: professionals, patients' directives, documents, requests.

The proportions are guesses, chosen so that every rule of the slice (professional, read) decides some requests and ordinary reading decides most. Every request
is kept as the JSON a store would send, and decoded anew for every block: an object that was decided before carries hashes that a new one does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.consent.fold import Record
from engine.evaluator.tables import Tables
from engine.pdp import Pdp
from engine.request import Action, Entity, Request

SUBJECT, ACTION = "professional", "read"
AT = 1_795_251_600.0  # 2026-11-21T10:00:00+01:00: the clock is an input
SEED = 20_261_121

Person: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """Requests as JSON text, each with the place of its patient; and the patients' directives, as JSON."""

    texts: Sequence[bytes]
    patients: Sequence[int]
    directives: Sequence[list[dict[str, Any]]]

    def records(self, pdp: Pdp) -> list[Record]:
        """Every patient's record, folded by this PDP (which keeps its own index with each)."""
        return [pdp.fold(some, AT) for some in self.directives]

    def pairs(self, records: Sequence[Record], order: Sequence[int]) -> list[tuple[Request, Record]]:
        """New request objects in this order, each with its patient's record."""
        return [(as_request(self.texts[n]), records[self.patients[n]]) for n in order]


def as_request(text: bytes) -> Request:
    """Decode one request as an edge does."""
    body = msgspec.json.decode(text)
    subject, resource = body["subject"], body["resource"]
    return Request(
        Entity(subject["type"], subject["id"], subject["properties"]), Action(body["action"]["name"]),
        Entity(resource["type"], resource["id"], resource["properties"]), body["context"],
    )  # fmt: skip


def make_world(pdp: Pdp, requests: int, seed: int = SEED) -> World:
    """`requests` different requests to read a document, a hundred for each patient; a quarter as many professionals as patients."""
    rng = Random(seed)
    patients = max(1, requests // 100)
    people = [_professional(rng, n, pdp) for n in range(max(20, patients // 4))]
    types = list(pdp.pack.vocabulary.grids["read"].rows)
    texts, owners, directives = [], [], []
    for patient in range(patients):
        around = rng.sample(people, 8)  # those that this record is likely to speak of
        directives.append(_directives(rng, around))
        seen: set[bytes] = set()
        while len(seen) < min(100, requests - 100 * patient):
            text = json.dumps(_request(rng, patient, rng.choice(around if rng.random() < 0.7 else people), around, types, people, pdp)).encode()
            if text not in seen:
                seen.add(text)
                texts.append(text)
                owners.append(patient)
    return World(texts, owners, directives)


def make_patients(pdp: Pdp, number: int, seed: int = SEED) -> Iterator[tuple[str, list[dict[str, Any]], bytes]]:
    """As many patients: identifier, directives, and one request to read a document. Most records have about a dozen directives, a few have hundreds."""
    rng = Random(seed)
    people = [_professional(rng, n, pdp) for n in range(max(20, number // 4))]
    types = list(pdp.pack.vocabulary.grids["read"].rows)
    for patient in range(number):
        around = rng.sample(people, 8)
        more = [_grant(rng.choice(people), turn) for turn in range(min(500, int(rng.paretovariate(1.2)) - 1))]
        request = _request(rng, patient, rng.choice(around), around, types, people, pdp)
        request["resource"]["properties"]["patient"] = national(patient)
        yield national(patient), _directives(rng, around) + more, json.dumps(request).encode()


def national(number: int) -> str:
    """The identifier of the patient of that number, with its key."""
    body = f"2{number:012d}"
    return f"{body}{97 - int(body) % 97:02d}"


def _grant(who: Person, turn: int) -> dict[str, Any]:
    """An authorisation of a year long ago: what a record gathers."""
    return {"kind": "authorisation", "target": {"professional": who["id"]}, "given": "remotely", "until": f"{2010 + turn % 16}-06-30"}


def _professional(rng: Random, number: int, pdp: Pdp) -> Person:
    common = ("G15_10", "G15_60", "G15_21", "G15_40", "G16_10")
    profession = rng.choice(common) if rng.random() < 0.8 else rng.choice(list(pdp.pack.vocabulary.facts["matrix.read"].form.column_of))  # type: ignore[union-attr]
    made = {
        "profession": profession,
        "structure": f"75{number // 6:07d}",
        "authentication": _one(rng, {"DIRECTE": 85, "INDIRECT_RENFORCEE": 12, "INDIRECTE": 3}),
        "specialty": _word(rng, pdp, "subject.specialty"),
        "department": _word(rng, pdp, "subject.department"),
    }
    role = _one(rng, {"": 85, "regulation": 6, "occupational": 5, "fire_service": 3, "unheard_of": 1})
    return {"id": f"8{number:010d}", **made, **({"role": role} if role else {})}


def _directives(rng: Random, around: list[Person]) -> list[dict[str, Any]]:
    """A record of about a dozen statements."""
    made: list[dict[str, Any]] = []
    if rng.random() < 0.98:
        made.append({"kind": "opened"})
    made.append({"kind": "identity", "birth_date": f"{rng.randint(1930, 2015)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"})
    for kind, chance in (("closed", 0.01), ("deceased", 0.01), ("break_glass_refusal", 0.05), ("regulation_refusal", 0.05)):
        if rng.random() < chance:
            made.append({"kind": kind})
    treating, equal, blocked, excluded, *team = around
    made.append({"kind": "treating_physician", "target": {"professional": treating["id"]}})
    for kind, who, chance in (("equal_rights", equal, 0.3), ("block", blocked, 0.3), ("exclusion", excluded, 0.4)):
        if rng.random() < chance:
            made.append({"kind": kind, "target": {"professional": who["id"]}})
    if rng.random() < 0.7:
        made.append({"kind": "care_team_consent", "target": {"team": team[0]["structure"]}})
    made += [{"kind": "membership", "target": {"professional": one["id"]}, "team": team[0]["structure"]} for one in team]
    for one in rng.sample(around, 4):
        given, by = rng.choice(("in_person", "remotely")), rng.choice(("holder", "representative"))
        made.append({"kind": "authorisation", "target": {"professional": one["id"]}, "given": given, "by": by})
    if rng.random() < 0.3:
        made.append({"kind": "mask", "target": {"document": f"DOC-{rng.randrange(200)}"}})
    if rng.random() < 0.1:
        made.append({"kind": "mask", "target": {"type": "11502-2"}})
    return made


def _request(rng: Random, patient: int, who: Person, around: list[Person], types: list[str], people: list[Person], pdp: Pdp) -> dict[str, Any]:
    author = who if rng.random() < 0.05 else rng.choice(around if rng.random() < 0.5 else people)
    document = {
        "patient": f"2{patient:014d}",
        "type": rng.choice(types[:12]) if rng.random() < 0.7 else rng.choice(types),
        "author": author["id"],
        "structure": author["structure"],
        "status": _one(rng, {"Approved": 90, "Deprecated": 5, "Archived": 3, "Deleted": 2}),
        "confidentiality": rng.choice((["MASQUE_PS"], ["N", "INVISIBLE_PATIENT"], ["R"])) if rng.random() < 0.08 else ["N"],
        "deposited": f"2026-{rng.randint(1, 10):02d}-{rng.randint(1, 28):02d}T09:{rng.randint(0, 59):02d}:00+02:00",
        "category": _word(rng, pdp, "resource.category"),
    }
    mode = _one(rng, {"normal": 88, "bris_de_glace": 6, "centre_15": 5, "unheard_of": 1})
    context = {"purpose": "care" if rng.random() < 0.98 else "research", "access_mode": mode}
    if mode == "bris_de_glace" and rng.random() < 0.7:
        context["justification"] = "found unconscious"
    properties = {key: value for key, value in who.items() if key != "id"}
    return {
        "subject": {"type": SUBJECT, "id": who["id"], "properties": properties},
        "action": {"name": ACTION},
        "resource": {"type": "document", "id": f"DOC-{rng.randrange(100_000)}", "properties": document},
        "context": context,
    }


def _word(rng: Random, pdp: Pdp, name: str) -> str:
    """A value of a fact that grown packs declare (see `packs`); one in twenty is a word that the pack does not know."""
    fact = pdp.pack.vocabulary.facts.get(name)
    return str(rng.choice(fact.values)) if fact and rng.random() < 0.95 else f"unheard of {rng.randrange(1000)}"


def _one(rng: Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


# --- situations ------------------------------------------------------------------------------------------------------


def situations(tables: Tables, codes: Sequence[int], number: int, seed: int = SEED) -> NDArray[np.int64]:
    """`number` different packed situations in a random order.

    A whole day of requests meets a few thousand situations. So these are the situations of the requests `codes` with about three facts changed to any of their
    values, chosen so that the rules decide them in the proportions of the requests, as far as that many different ones exist.
    """
    rng = np.random.default_rng(seed)
    seen = np.array(codes, np.int64)
    pool = np.unique(seen)
    while len(pool) < 3 * number:
        drawn = seen[rng.integers(len(seen), size=3 * number)]
        for name, (shift, bits) in tables.fields.items():
            anything = rng.integers(len(tables.values[name]), size=len(drawn)) << shift
            drawn = np.where(rng.random(len(drawn)) < 3 / len(tables.fields), drawn & ~((1 << bits) - 1 << shift) | anything, drawn)
        pool = np.unique(np.concatenate([pool, drawn]))
    pool = rng.permutation(pool)
    shares = np.bincount(tables.evaluate_many(seen))
    decided = tables.evaluate_many(pool)
    turn = np.full(len(pool), np.inf)
    for outcome in np.flatnonzero(shares):
        own = np.flatnonzero(decided == outcome)
        turn[own] = np.arange(len(own)) / shares[outcome]
    return rng.permutation(pool[np.argsort(turn, kind="stable")[:number]])


def places(tables: Tables, codes: NDArray[np.int64]) -> dict[str, NDArray[np.int8]]:
    """Columns of facts: for each, the places of its values among them."""
    kind = np.int8 if max(map(len, tables.values.values())) < 128 else np.int16
    return {name: (codes >> shift & (1 << bits) - 1).astype(kind) for name, (shift, bits) in tables.fields.items()}


def shuffled(number: int, blocks: int, seed: int = SEED) -> Iterator[list[int]]:
    """An order for each block."""
    rng = Random(seed)
    for _ in range(blocks):
        order = list(range(number))
        rng.shuffle(order)
        yield order
