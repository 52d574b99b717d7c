"""Compiled packs: the same bytes from the same pack, the same decisions from the same bytes, and nothing at all from bytes that are not those of a pack."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from random_packs import packs
from test_analysis import LIBRARY, compiled, situations
from test_french_pack import ROOT, answers, french

from engine.compiled import MAGIC, dump, load
from engine.errors import PackError
from engine.explain import explain
from engine.pack import load_pack, parse_pack
from engine.pdp import Pdp
from engine.vocabulary import Value

HEAD = len(MAGIC) + 32
DAMAGED = (
    "the compiled pack: error[compiled-unreadable]: this compiled pack is damaged: its checksum is not that of its content\n"
    "  help: compile it again with `habilis compile`"
)
NO_PACK = "the compiled pack: error[compiled-unreadable]: this is not a compiled pack of this version\n  help: compile it again with `habilis compile`"


@cache
def french_bytes() -> bytes:
    return dump(french())


@cache
def french_loaded() -> Pdp:
    return load(french_bytes())


@cache
def library_bytes() -> bytes:
    return dump(compiled(LIBRARY))


# --- the same bytes --------------------------------------------------------------------------------------------------

DUMPED = "import hashlib, engine.compiled as c, engine.pdp as p; print(hashlib.sha256(c.dump(p.load_pdp('policies'))).hexdigest())"


def test_every_process_compiles_the_same_bytes() -> None:
    """Python hashes words otherwise in each process; nothing may depend on it."""
    started = [
        subprocess.Popen([sys.executable, "-c", DUMPED], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, text=True)
        for seed in ("1", "20261121")
    ]
    digests = {process.communicate()[0].strip() for process in started}
    assert digests == {hashlib.sha256(french_bytes()).hexdigest()}


def test_the_bytes_of_a_loaded_pack_are_those_it_was_loaded_from() -> None:
    assert dump(french_loaded()) == french_bytes()
    assert dump(load(library_bytes())) == library_bytes()


def test_dumping_and_asking_leave_a_pack_as_it_was() -> None:
    pdp = compiled(LIBRARY)
    before = dump(pdp)
    assert pdp.meaning and [pdp.evaluate(*key, one) for key in pdp.slices for one in situations(pdp.pack)]
    assert dump(pdp) == before


# --- the same decisions ----------------------------------------------------------------------------------------------


def test_a_loaded_pack_is_the_same_pack() -> None:
    pdp, loaded = french(), french_loaded()
    assert loaded.pack.digest == pdp.pack.digest and loaded.meaning == pdp.meaning
    assert loaded.pack == pdp.pack and loaded.outcomes == pdp.outcomes
    assert list(loaded.slices) == list(pdp.slices)
    assert len({id(slice) for slice in loaded.slices.values()}) == len({id(slice) for slice in pdp.slices.values()})
    assert [slice.size for slice in loaded.slices.values()] == [slice.size for slice in pdp.slices.values()]


def test_a_loaded_pack_decides_random_situations_alike() -> None:
    pdp, loaded, chance = french(), french_loaded(), random.Random(1)
    facts = pdp.pack.vocabulary.facts.values()
    for key in pdp.slices:
        for _ in range(60):
            situation: dict[str, Value] = {fact.name: chance.choice(fact.values) for fact in facts}
            assert loaded.evaluate(*key, situation) == pdp.evaluate(*key, situation)


def test_a_loaded_pack_answers_every_vector_alike() -> None:
    loaded = french_loaded()
    for case, answer in answers()[::3]:
        assert case.request is not None
        again = loaded.decide(case.request, loaded.fold(case.directives, case.at))
        assert (again.rule, again.code) == (answer.rule, answer.code)
        assert (again.for_reviewer(), again.for_requester()) == (answer.for_reviewer(), answer.for_requester())


def test_a_loaded_pack_explains_alike() -> None:
    loaded = french_loaded()
    for case, answer in answers()[::100]:
        assert case.request is not None
        again = explain(loaded.decide(case.request, loaded.fold(case.directives, case.at)))
        assert again.reviewer == explain(answer).reviewer and again.text("fr") == explain(answer).text("fr")


@settings(max_examples=20)
@given(packs(most=4))
def test_a_random_pack_is_loaded_as_it_was_dumped(files: dict[str, bytes]) -> None:
    pdp, chance = Pdp(parse_pack(files)), random.Random(2)
    loaded = load(dump(pdp))
    assert dump(loaded) == dump(pdp) and loaded.meaning == pdp.meaning
    for key in pdp.slices:
        for _ in range(20):
            situation: dict[str, Value] = {name: chance.choice(fact.values) for name, fact in pdp.pack.vocabulary.facts.items()}
            assert loaded.evaluate(*key, situation) == pdp.evaluate(*key, situation)


def test_settings_given_when_it_was_compiled_are_kept() -> None:
    pdp = compiled(LIBRARY, lends_at_night=False, follow_guesses=True)
    loaded = load(dump(pdp))
    assert loaded.pack.overrides == {"lends_at_night": False, "follow_guesses": True}
    assert loaded.pack.settings == pdp.pack.settings and loaded.pack.settings["lends_at_night"] is False
    assert loaded.meaning == pdp.meaning != compiled(LIBRARY).meaning
    assert loaded.pack.digest == pdp.pack.digest != compiled(LIBRARY).pack.digest
    assert dump(loaded) == dump(pdp) != library_bytes()
    assert dump(compiled(LIBRARY, follow_guesses=True, lends_at_night=False)) == dump(pdp), "in whatever order they were given"


def test_a_setting_of_each_kind_comes_back_as_that_kind() -> None:
    given = {"inferred_cells": "follow", "majority_age": 1, "interns_in_regulation": True}
    pack = load_pack(ROOT / "policies", given)
    small = Pdp(pack, slices={}, tables={})
    loaded = load(dump(small))
    assert loaded.pack.overrides == given and [type(value) for _, value in sorted(loaded.pack.overrides.items())] == [str, bool, int]
    assert loaded.pack.digest == pack.digest


# --- no pack at all --------------------------------------------------------------------------------------------------


def assert_refused(data: bytes, text: str) -> None:
    with pytest.raises(PackError) as caught:
        load(data)
    assert str(caught.value) == text


def test_a_pack_with_any_byte_changed_is_refused() -> None:
    """Every byte of a small one, each with another bit flipped."""
    whole = bytearray(library_bytes())
    for place in range(len(whole)):
        bit = 1 << place % 8
        whole[place] ^= bit
        assert_refused(bytes(whole), NO_PACK if place < len(MAGIC) else DAMAGED)
        whole[place] ^= bit
    assert bytes(whole) == library_bytes()


def test_the_french_pack_with_a_byte_changed_is_refused() -> None:
    chance = random.Random(3)
    for _ in range(200):
        whole = bytearray(french_bytes())
        place = chance.randrange(len(whole))
        whole[place] ^= chance.randrange(1, 256)
        assert_refused(bytes(whole), NO_PACK if place < len(MAGIC) else DAMAGED)


def test_a_pack_cut_short_or_with_something_after_it_is_refused() -> None:
    whole = library_bytes()
    for length in range(0, len(whole), 7):
        assert_refused(whole[:length], NO_PACK if length < len(MAGIC) else DAMAGED)
    assert_refused(whole[:-1], DAMAGED)
    assert_refused(whole + b"\n", DAMAGED)
    assert_refused(whole + whole, DAMAGED)


OTHERS = [b"", b"\n", MAGIC[:-1], b"habilis pack 2\n" + bytes(100), b"HABILIS PACK 1\n", b"PK\x03\x04", b"\xef\xbb\xbf" + MAGIC, b" " + MAGIC]


@pytest.mark.parametrize("data", OTHERS)
def test_what_does_not_begin_as_a_pack_is_none(data: bytes) -> None:
    assert_refused(data, NO_PACK)


def sealed(body: bytes) -> bytes:
    """A body with the checksum that fits it."""
    return MAGIC + hashlib.sha256(body).digest() + body


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "Input data was truncated"),
        (msgspec.msgpack.encode({}), "Expected `array`, got `object`"),
        (msgspec.msgpack.encode([]), "Expected `array` of at least length 4, got 0"),
        (msgspec.msgpack.encode([1, [], [], []]), "Expected `array`, got `int` - at `$[0]`"),
        (b"\xc1", "MessagePack data is malformed: invalid opcode '\\xc1' (byte 0)"),
    ],
)
def test_what_fits_its_checksum_and_is_of_another_shape_is_refused(body: bytes, why: str) -> None:
    said = f"the compiled pack: error[compiled-unreadable]: this compiled pack cannot be read: {why}\n"
    assert_refused(sealed(body), said + "  help: compile it again with `habilis compile`")


def test_a_pack_whose_files_no_longer_check_is_refused_with_their_mistakes() -> None:
    files, *rest = msgspec.msgpack.decode(library_bytes()[HEAD:])
    spoilt = [[name, data.replace(b"deny", b"refuse", 1) if name == "rules.csv" else data] for name, data in files]
    with pytest.raises(PackError) as caught:
        load(sealed(msgspec.msgpack.encode([spoilt, *rest])))
    assert [(one.code, one.file) for one in caught.value.diagnostics] == [("effect-unknown", "rules.csv")]


def test_a_refusal_names_the_file() -> None:
    with pytest.raises(PackError, match=r"^dmp-fr\.habilis: error\[compiled-unreadable\]: this is not a compiled pack of this version"):
        load(b"", "dmp-fr.habilis")
