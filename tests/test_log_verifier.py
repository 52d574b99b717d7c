"""The verifier, attacked: whatever is changed in a log is found, and where. What only a checkpoint kept elsewhere can show is found with one."""

from __future__ import annotations

import base64
import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from log_workers import body

from engine.decision_log.checkpoint import (
    Checkpointer,
    Note,
    NoteError,
    VerifierKey,
    heads_leaf,
    new_key,
    open_checkpoint,
    open_note,
    parse_checkpoint,
    parse_heads,
    parse_key,
    parse_keys,
    parse_private_key,
    sign_note,
    verifier_key,
    write_heads,
)  # fmt: skip
from engine.decision_log.log import DecisionLog
from engine.decision_log.merkle import Range, leaf_hash
from engine.decision_log.proof import Consistency, Inclusion, parse_proof, print_proof, prove_consistency, prove_entry, verify_proof
from engine.decision_log.storage import Head, Storage, open_storage
from engine.decision_log.verify import Report, verify

if TYPE_CHECKING:
    from servers import Postgres

pytest_plugins = ["servers"]

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NEXT = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
ORIGIN = "log.example/dmp"
KEYS = [verifier_key(ORIGIN, KEY)]


def build(url: str) -> list[str]:
    """A log of three segments and six checkpoints: the notes."""
    storage = open_storage(url, create=True, origin=ORIGIN)
    signer = Checkpointer(url, KEY, run=False)
    logs = [DecisionLog(url, name=name) for name in "abc"]
    for turn in range(6):
        for number, log in enumerate(logs):
            if turn % (number + 1) == 0:
                log.append_now(*(body(f"{number}-{turn}-{one}") for one in range(3 + number)))
        signer.make()
    for log in logs:
        log.close()
    signer.release()
    notes = [one.note for one in storage.checkpoints()]
    storage.close()
    return notes


class Built:
    """A log in a folder that can be changed as somebody can who may do everything but sign."""

    def __init__(self, folder: Path, notes: list[str]):
        self.folder, self.notes = folder, notes
        self.names = {path.stem[0]: path.stem for path in sorted(folder.glob("*.segment"))}

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}"

    def segment(self, letter: str) -> Path:
        return self.folder / f"{self.names[letter]}.segment"

    def change(self, where: str, *statements: str, values: tuple[Any, ...] = ()) -> None:
        """Statements on a segment, by its letter, or on `log`."""
        path = self.folder / "log.db" if where == "log" else self.segment(where)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                connection.execute(statement, values)

    def rows(self, letter: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.segment(letter))) as connection:
            return connection.execute("SELECT n, leaf, salt, body FROM entries ORDER BY n").fetchall()

    def verify(self, keys: list[VerifierKey] | None = None, since: str | None = None) -> Report:
        storage = open_storage(self.url)
        try:
            return verify(storage, KEYS if keys is None else keys, since)
        finally:
            storage.close()

    def found(self, **more: Any) -> list[tuple[str, str | None, int | None]]:
        """What is found: the word, the segment's letter, the index."""
        return [(one.what, one.segment and one.segment[0], one.index) for one in self.verify(**more).findings]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("logs") / "log"
    return Built(folder, build(f"sqlite:///{folder}"))


@pytest.fixture
def built(original: Built, place: Path) -> Built:
    """A copy to attack."""
    shutil.copytree(original.folder, place / "log")
    return Built(place / "log", original.notes)


def test_an_untouched_log_verifies(built: Built) -> None:
    report = built.verify(since=built.notes[2])
    assert [str(one) for one in report.findings] == []
    assert (report.origin, report.segments, report.entries, report.proved, report.unproved) == (ORIGIN, 3, 18 + 12 + 10, 40, 0)
    assert (report.checkpoints, report.last) == (6, built.notes[-1])


def test_entries_after_the_last_checkpoint_are_durable_and_not_yet_proved(built: Built) -> None:
    with DecisionLog(built.url, name="d") as log:
        log.append_now(body("1"), body("2"))
    report = built.verify()
    assert report.is_fine and (report.proved, report.unproved) == (40, 2)


# --- records and segments --------------------------------------------------------------------------------------------


def flip(built: Built, letter: str, column: int, index: int, place: int, bit: int) -> None:
    """One bit of one column of one entry."""
    value = bytearray(built.rows(letter)[index][column])
    value[place % len(value)] ^= 1 << bit
    name = ("n", "leaf", "salt", "body")[column]
    built.change(letter, f"UPDATE entries SET {name} = ? WHERE n = {index}", values=(bytes(value),))


@pytest.mark.parametrize("column", [1, 2, 3], ids=["leaf", "salt", "body"])
@pytest.mark.parametrize("seed", range(4))
def test_any_bit_that_is_flipped_is_found(built: Built, column: int, seed: int) -> None:
    chance = random.Random(seed)
    letter = chance.choice("abc")
    index = chance.randrange(len(built.rows(letter)))
    flip(built, letter, column, index, chance.randrange(10_000), chance.randrange(8))
    assert ("record", letter, index) in built.found()


def test_a_record_that_was_rewritten_with_its_leaf_is_found_by_the_root(built: Built) -> None:
    salt, record = bytes(16), body("forged")
    built.change("a", "UPDATE entries SET salt = ?, body = ?, leaf = ? WHERE n = 7", values=(salt, record, leaf_hash(salt, record)))
    (one,) = built.verify().findings
    assert str(one) == f"{built.names['a']} 6: entries 6 to 8 are not, or not in the order, that checkpoint 2 signed"


def test_a_record_whose_bytes_moved_into_its_salt_is_found(built: Built) -> None:
    """The leaf is the same: only the length of the salt says where it ends."""
    _, leaf, salt, record = built.rows("a")[7]
    assert leaf_hash(salt + record[:1], record[1:]) == leaf
    built.change("a", "UPDATE entries SET salt = ?, body = ? WHERE n = 7", values=(salt + record[:1], record[1:]))
    assert built.found() == [("record", "a", 7)]


def test_a_record_without_its_salt_is_found(built: Built) -> None:
    built.change("a", "UPDATE entries SET salt = NULL WHERE n = 7")
    assert built.found() == [("record", "a", 7)]


def test_records_that_are_missing_and_that_no_entry_says_were_expunged_are_found(built: Built) -> None:
    built.change("a", "UPDATE entries SET salt = NULL, body = NULL WHERE n IN (7, 8, 12)")
    assert built.found() == [("expunged", "a", 7), ("expunged", "a", 12)]
    assert str(built.verify().findings[0]) == f"{built.names['a']} 7: the records of entries 7 to 8 are missing, and no entry says why"


def test_what_an_entry_says_was_expunged_may_be_missing_and_nothing_else(built: Built) -> None:
    with DecisionLog(built.url, name="d") as log:
        log.append_now(body("e", kind="expunge", expunged={built.names["a"]: [[2, 4], [4, 9]], built.names["b"]: [[0, 2]]}))
        log.append_now(body("f", kind="decision", expunged={built.names["a"]: [[0, 18]]}))
    built.change("a", "UPDATE entries SET salt = NULL, body = NULL WHERE n BETWEEN 1 AND 9")
    assert built.found() == [("expunged", "a", 1), ("expunged", "a", 9)]


@pytest.mark.parametrize("index", [0, 7, 16])
def test_an_entry_that_was_removed_leaves_a_gap(built: Built, index: int) -> None:
    built.change("a", f"DELETE FROM entries WHERE n = {index}")
    assert built.found() == [("gap", "a", index)]


def test_an_entry_that_was_removed_and_the_gap_closed_is_found_by_the_root(built: Built) -> None:
    built.change("a", "DELETE FROM entries WHERE n = 7")
    for index in range(8, 18):
        built.change("a", f"UPDATE entries SET n = n - 1 WHERE n = {index}")
    assert ("root", "a", 6) in built.found() and ("truncated", "a", 17) in built.found()


def test_entries_that_were_removed_at_the_end_are_found(built: Built) -> None:
    built.change("a", "DELETE FROM entries WHERE n >= 14")
    (one,) = built.verify().findings
    assert str(one) == f"{built.names['a']} 14: entries 14 to 17 are gone"


def test_entries_that_changed_places_are_found(built: Built) -> None:
    rows = {row[0]: row for row in built.rows("a")}
    for index, other in ((4, 5), (5, 4)):
        built.change("a", f"UPDATE entries SET leaf = ?, salt = ?, body = ? WHERE n = {index}", values=rows[other][1:])
    assert built.found() == [("root", "a", 3)]


def test_an_entry_that_was_put_over_another_is_found(built: Built) -> None:
    built.change("a", "UPDATE entries SET leaf = ?, salt = ?, body = ? WHERE n = 5", values=built.rows("a")[4][1:])
    assert built.found() == [("root", "a", 3), ("copy", "a", 5)]


def test_an_entry_that_was_repeated_after_the_last_checkpoint_is_found(built: Built) -> None:
    built.change("a", "INSERT INTO entries SELECT 18, leaf, salt, body FROM entries WHERE n = 5")
    assert built.found() == [("copy", "a", 18)]


def test_entries_of_two_segments_that_were_exchanged_are_found(built: Built) -> None:
    first, second = built.rows("a")[4], built.rows("b")[2]
    built.change("a", "UPDATE entries SET leaf = ?, salt = ?, body = ? WHERE n = 4", values=second[1:])
    built.change("b", "UPDATE entries SET leaf = ?, salt = ?, body = ? WHERE n = 2", values=first[1:])
    assert built.found() == [("root", "a", 3), ("root", "b", 0)]


def test_segments_that_were_exchanged_are_found(built: Built) -> None:
    first, second = built.segment("a"), built.segment("b")
    first.rename(built.folder / "aside")
    second.rename(first)
    (built.folder / "aside").rename(second)
    found = built.found()
    assert {("copy", "a", 0), ("root", "a", 0), ("copy", "b", 0), ("root", "b", 0)} <= set(found)


def test_a_segment_that_was_copied_is_found(built: Built) -> None:
    shutil.copy(built.segment("a"), built.folder / "z-copy.segment")
    found = built.found()
    assert found[0] == ("copy", "z", 0) and found[1:] == [("copy", "z", index) for index in range(18)]


def test_a_segment_that_was_deleted_whole_is_found(built: Built) -> None:
    built.segment("b").unlink()
    (one,) = built.verify().findings
    assert str(one) == f"{built.names['b']} 0: entries 0 to 11 are gone, the whole segment"


def test_a_segment_that_was_emptied_is_found(built: Built) -> None:
    built.change("b", "DELETE FROM entries")
    assert built.found() == [("segment", "b", 0)]


def test_a_segment_whose_file_is_damaged_is_found_and_the_others_are_verified(built: Built) -> None:
    built.segment("b").write_bytes(b"not a database at all" * 400)
    report = built.verify()
    assert [(one.what, one.segment) for one in report.findings] == [("damaged", built.names["b"]), ("segment", built.names["b"])]
    assert report.proved == 28


def test_any_byte_of_a_segments_file_that_holds_an_entry_matters(built: Built) -> None:
    """Bytes of the file itself are flipped: found, or of no consequence for any entry."""
    path, chance = built.segment("a"), random.Random(1)
    whole, before = path.read_bytes(), built.rows("a")
    for _ in range(60):
        place = chance.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
        try:
            same = built.rows("a") == before
        except sqlite3.DatabaseError:
            same = False
        assert same or not built.verify().is_fine


@pytest.mark.parametrize("value", ["NULL", "7", "2.5", "'text'", "x''", "CAST(body AS TEXT)", "zeroblob(40)"])
@pytest.mark.parametrize("column", ["leaf", "salt", "body"])
def test_a_column_may_hold_anything_and_the_verifier_says_so(built: Built, column: str, value: str) -> None:
    with closing(sqlite3.connect(built.segment("a"), isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE entries (n INTEGER PRIMARY KEY, leaf, salt, body)' WHERE name = 'entries'")
    built.change("a", f"UPDATE entries SET {column} = {value} WHERE n = 7")
    if (column, value) == ("body", "CAST(body AS TEXT)"):
        assert built.found() == [], "the same bytes"
    else:
        assert ("record", "a", 7) in built.found()


@pytest.mark.parametrize("value", ["NULL", "7", "x''", "x'ff'", "'text'", "CAST(heads AS BLOB)"])
@pytest.mark.parametrize("column", ["heads", "note"])
def test_a_checkpoint_may_hold_anything_and_the_verifier_says_so(built: Built, column: str, value: str) -> None:
    with closing(sqlite3.connect(built.folder / "log.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE checkpoints (n INTEGER PRIMARY KEY, heads, note)' WHERE name = 'checkpoints'")
    built.change("log", f"UPDATE checkpoints SET {column} = {value} WHERE n = 3")
    if (column, value) == ("heads", "CAST(heads AS BLOB)"):
        assert built.found() == [], "the same bytes"
    else:
        assert {what for what, _, index in built.found() if index in (0, 3)} & {"checkpoint", "signature", "damaged"}


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_signature_that_was_changed_is_found(built: Built) -> None:
    note = built.notes[3]
    at = note.rindex(" ") + 20
    built.change("log", "UPDATE checkpoints SET note = ? WHERE n = 3", values=(note[:at] + ("A" if note[at] != "A" else "B") + note[at + 1 :],))
    assert built.found() == [("signature", None, 3)]


@pytest.mark.parametrize("change", ["size", "root", "origin"])
def test_a_checkpoint_that_was_changed_is_found(built: Built, change: str) -> None:
    said = parse_checkpoint(built.notes[3].rpartition("\n\n")[0] + "\n")
    forged = replace(said, **{"size": {"size": 9}, "root": {"root": bytes(32)}, "origin": {"origin": "log.example/other"}}[change])
    built.change("log", "UPDATE checkpoints SET note = ? WHERE n = 3", values=(str(forged) + "\n" + built.notes[3].rpartition("\n\n")[2],))
    assert built.found() == [("signature", None, 3)]


def test_heads_that_were_changed_are_found(built: Built) -> None:
    built.change("log", "UPDATE checkpoints SET heads = replace(heads, ' 9 ', ' 8 ') WHERE n = 2")
    assert ("checkpoint", None, 2) in built.found()
    built.change("log", "UPDATE checkpoints SET heads = 'nonsense' WHERE n = 4")
    assert ("checkpoint", None, 4) in built.found()


def test_a_checkpoint_that_was_removed_is_found(built: Built) -> None:
    built.change("log", "DELETE FROM checkpoints WHERE n = 2")
    (one,) = built.verify().findings
    assert str(one) == "checkpoint 2: checkpoints 2 to 2 are gone"


def test_checkpoints_that_changed_places_are_found(built: Built) -> None:
    built.change("log", "UPDATE checkpoints SET n = 99 WHERE n = 2", "UPDATE checkpoints SET n = 2 WHERE n = 3", "UPDATE checkpoints SET n = 3 WHERE n = 99")
    assert ("checkpoint", None, 2) in built.found()


def test_a_log_without_any_checkpoint_proves_nothing(built: Built) -> None:
    built.change("log", "DELETE FROM checkpoints")
    assert [str(one) for one in built.verify().findings] == ["checkpoint: nothing is proved: there are entries, and no checkpoint"]


def test_an_earlier_checkpoint_that_comes_again_is_found(built: Built) -> None:
    built.change("log", "INSERT INTO checkpoints SELECT 6, heads, note FROM checkpoints WHERE n = 3")
    assert ("checkpoint", None, 6) in built.found()


def test_a_head_that_goes_back_is_found(built: Built) -> None:
    """Signed by somebody who has the key: a segment never shrinks."""
    a = built.rows("a")
    append_checkpoint(built, {built.names["a"]: Head(4, Range(row[1] for row in a[:4]).root())}, KEY)
    assert built.found() == [("head", "a", 4)]


def append_checkpoint(built: Built, heads: dict[str, Head], key: Ed25519PrivateKey) -> None:
    """A checkpoint that continues the others, whatever it says."""
    storage = open_storage(built.url)
    kept = list(storage.checkpoints())
    storage.close()
    text = write_heads(0, heads)
    tree = Range([*(heads_leaf(one.heads) for one in kept), heads_leaf(text)])
    note = sign_note(str(Note(ORIGIN, tree.size, tree.root())), ORIGIN, key)
    built.change("log", "INSERT INTO checkpoints VALUES (?, ?, ?)", values=(len(kept), text, note))


def test_a_checkpoint_that_says_what_never_was_is_found(built: Built) -> None:
    append_checkpoint(built, {built.names["a"]: Head(18, bytes(32))}, KEY)
    append_checkpoint(built, {"d-segment-that-never-was": Head(3, bytes(32))}, KEY)
    assert built.found() == [("root", "a", 17), ("segment", "d", 0)]


# --- against a checkpoint kept elsewhere -----------------------------------------------------------------------------


def roll_back(built: Built, size: int) -> None:
    """As if the last checkpoints had never been: consistent in itself."""
    built.change("log", f"DELETE FROM checkpoints WHERE n >= {size}")
    storage = open_storage(built.url)
    sizes: dict[str, int] = {}
    for one in storage.checkpoints():
        sizes |= {name: head.size for name, head in parse_heads(one.heads).items()}
    storage.close()
    for letter, name in built.names.items():
        built.change(letter, f"DELETE FROM entries WHERE n >= {sizes[name]}")


def test_a_log_that_was_rolled_back_is_found_with_a_checkpoint_kept_elsewhere(built: Built) -> None:
    roll_back(built, 4)
    assert built.verify().is_fine, "nothing inside the log can tell"
    assert built.verify(since=built.notes[3]).is_fine, "nor an older checkpoint"
    (one,) = built.verify(since=built.notes[5]).findings
    assert (one.what, str(one)) == ("roll-back", "checkpoint 4: the log was rolled back: it has 4 checkpoints, and the one that was kept is number 5")


def test_two_heads_are_found_with_a_checkpoint_kept_elsewhere(built: Built) -> None:
    """Somebody who has the key writes the last two checkpoints anew, over another history."""
    roll_back(built, 4)
    with DecisionLog(built.url, name="d") as log:
        log.append_now(body("another history"))
    storage = open_storage(built.url)
    (name,) = set(storage.sizes()) - set(built.names.values())
    leaves = [leaf for _, leaf in storage.leaves(name)]
    storage.close()
    append_checkpoint(built, {name: Head(1, Range(leaves).root())}, KEY)
    append_checkpoint(built, {name: Head(1, Range(leaves).root())}, KEY)
    assert built.verify().is_fine, "nothing inside the log can tell"
    assert built.verify(since=built.notes[3]).is_fine, "it is the same up to here"
    for kept in (4, 5):
        (one,) = built.verify(since=built.notes[kept]).findings
        assert (one.what, one.index) == ("two heads", kept)


def test_a_checkpoint_that_was_kept_must_itself_be_signed(built: Built) -> None:
    assert built.found(since="nonsense") == [("kept", None, None)]
    assert built.found(since=sign_note(str(Note(ORIGIN, 1, bytes(32))), ORIGIN, NEXT)) == [("kept", None, None)]
    other = sign_note(str(Note("log.example/other", 1, bytes(32))), "log.example/other", KEY)
    assert built.found(since=other, keys=[*KEYS, verifier_key("log.example/other", KEY)]) == [("kept", None, None)]


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_may_be_followed_by_another(built: Built) -> None:
    signer = Checkpointer(built.url, NEXT, run=False)
    with DecisionLog(built.url, name="d") as log:
        log.append_now(body("1"))
    signer.make()
    signer.release()
    assert built.found() == [("signature", None, 6)], "the new key is not known yet"
    assert built.verify([*KEYS, verifier_key(ORIGIN, NEXT)]).is_fine
    assert built.verify([replace(KEYS[0], until=6), verifier_key(ORIGIN, NEXT)]).is_fine
    assert built.found(keys=[replace(KEYS[0], until=5), verifier_key(ORIGIN, NEXT)]) == [("signature", None, 5)], "signed by a key that was retired before"
    assert [what for what, *_ in built.found(keys=[verifier_key(ORIGIN, NEXT)])] == ["signature"] * 6


def test_the_key_of_another_log_signs_nothing(built: Built) -> None:
    assert [what for what, *_ in built.found(keys=[verifier_key("log.example/other", KEY)])] == ["signature"] * 6


def test_keys_are_written_as_others_write_them() -> None:
    """The key and the note with which Go's sumdb/note tests itself."""
    line = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    note = f"{text}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    key = parse_key(line)
    assert str(key) == line and open_note(note, [key]) == (text, [key])
    seed = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
    private = Ed25519PrivateKey.from_private_bytes(seed[1:])
    assert sign_note(text, "PeterNeumann", private) == note


def test_a_list_of_keys_has_comments_and_retired_keys() -> None:
    old, new = verifier_key(ORIGIN, KEY), verifier_key(ORIGIN, NEXT)
    assert parse_keys(f"# ours\n\n{old} until 17\n  {new}\n") == [replace(old, until=17), new]
    assert str(replace(old, until=17)) == f"{old} until 17"


@pytest.mark.parametrize(
    "line",
    ["", "a", "a+b", "a+c74f20a3+x", "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
     "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
     "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW until x", "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
     "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY=="],
)  # fmt: skip
def test_a_key_that_is_malformed_is_none(line: str) -> None:
    with pytest.raises(NoteError):
        parse_key(line)


def test_a_private_key_is_kept_as_pem() -> None:
    assert isinstance(parse_private_key(new_key()), Ed25519PrivateKey)
    for data in (b"", b"nonsense", new_key()[:-30]):
        with pytest.raises(NoteError, match="not an Ed25519 private key in PEM"):
            parse_private_key(data)


GOOD = sign_note(str(Note(ORIGIN, 3, bytes(32))), ORIGIN, KEY)


@pytest.mark.parametrize(
    "note",
    ["", "\n", "a\n", GOOD[:-1], GOOD + "\n", GOOD.replace("\n\n", "\n"), GOOD.replace("—", "-"), GOOD.replace("— ", "—  "), GOOD + "x\n",
     GOOD.replace("\n3\n", "\n3\t\n"),
     GOOD.rpartition("\n\n")[0] + "\n\n", GOOD.rpartition("\n\n")[0] + "\n\n— log.example/dmp AAAA\n", GOOD + "— a+b AAAAAAAA\n",
     GOOD + GOOD.rpartition("\n\n")[2] * 100],
)  # fmt: skip
def test_a_note_that_is_malformed_is_refused(note: str) -> None:
    with pytest.raises(NoteError, match="not a signed note"):
        open_note(note, KEYS)


def test_signatures_of_others_are_passed_over_and_wrong_ones_are_not() -> None:
    witness = sign_note(str(Note(ORIGIN, 3, bytes(32))), "witness.example", NEXT).rpartition("\n\n")[2]
    assert open_checkpoint(GOOD + witness, KEYS) == Note(ORIGIN, 3, bytes(32))
    with pytest.raises(NoteError, match="signed by no key that is known"):
        open_note(GOOD, [verifier_key("witness.example", NEXT)])
    with pytest.raises(NoteError, match="signed by a key of another log"):
        open_checkpoint(GOOD + witness, [verifier_key("witness.example", NEXT)])
    text = GOOD.rpartition("\n\n")[0]
    with pytest.raises(NoteError, match=r"the signature of `log\.example/dmp` is wrong"):
        open_note(text.replace("\n3\n", "\n4\n") + "\n\n" + GOOD.rpartition("\n\n")[2], KEYS)


@pytest.mark.parametrize(
    "text",
    ["", "a\n1\n", f"\n1\n{'A' * 43}=\n", f"a\n01\n{'A' * 43}=\n",
     f"a\n-1\n{'A' * 43}=\n", f"a\n1\n{'A' * 42}=\n", "a\n1\nx\n", f"a\n1\n{'A' * 43}=", f"a\n1\n{'A' * 42}B=\n",
     f"a\n1\n{'A' * 43}=\n\nx\n"],
)  # fmt: skip
def test_a_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError, match="not a checkpoint"):
        parse_checkpoint(text)
    assert parse_checkpoint(f"a\n1\n{'A' * 43}=\nan extension\n") == Note("a", 1, bytes(32))


@pytest.mark.parametrize(
    "text", ["", "heads", "heads x\na 1 b\n", f"heads x\na 0 {'A' * 43}=\n", f"heads x\na 1 {'A' * 43}=\na 2 {'A' * 43}=\n", f"heads x\na 1 {'A' * 43}="]
)
def test_heads_that_are_malformed_are_refused(text: str) -> None:
    with pytest.raises(NoteError, match="the heads of a checkpoint"):
        parse_heads(text)


# --- proofs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def storage(original: Built) -> Iterator[Storage]:
    opened = open_storage(original.url)
    yield opened
    opened.close()


def test_every_entry_has_a_proof(original: Built, storage: Storage) -> None:
    for letter, name in original.names.items():
        for index, *_ in original.rows(letter):
            proof = parse_proof(print_proof(prove_entry(storage, name, index)).encode())
            assert isinstance(proof, Inclusion) and verify_proof(proof, KEYS).size == 6
            assert json.loads(proof.body)["id"].startswith("abc".index(letter).__str__())


def forged(proof: Inclusion) -> Iterator[tuple[str, Inclusion]]:
    """The proof with one thing changed."""
    for name in ("path", "heads_path"):
        path: list[str] = getattr(proof, name)
        for length in range(len(path) + 3):
            for made in (path[:length] + ["ab" * 32] * (length - len(path)), ["ab" * 32] * length):
                if made != path:
                    yield f"{name} {length}", msgspec.structs.replace(proof, **{name: made})
        for place, node in enumerate(path):
            for other in (node[:-1] + ("0" if node[-1] != "0" else "1"), node[:-2], "nonsense", ""):
                yield f"{name}[{place}]", msgspec.structs.replace(proof, **{name: [*path[:place], other, *path[place + 1 :]]})
    for name, values in {
        "index": [proof.index - 1, proof.index + 1, 0, 2**40],
        "size": [proof.size - 1, proof.size + 1, 0],
        "heads_index": [proof.heads_index - 1, proof.heads_index + 1, 99],
        "segment": ["another", "", proof.segment[:-1]],
        "salt": ["", proof.salt[:-2], proof.salt + "00", "00" * 16, "nonsense", proof.salt + proof.body[:1].encode().hex()],
        "body": [proof.body + " ", proof.body[1:], "", "\ud800", proof.body.replace("x", "y", 1)],
        "heads": [proof.heads + "\n", proof.heads.replace("heads 20", "heads 19"), ""],
        "checkpoint": [proof.checkpoint.replace("\n6\n", "\n5\n"), "", GOOD, proof.checkpoint[:-10]],
    }.items():
        for value in values:
            if value != getattr(proof, name):
                yield f"{name} {value!r}", msgspec.structs.replace(proof, **{name: value})
    moved = msgspec.structs.replace(proof, salt=proof.salt + proof.body[:1].encode().hex(), body=proof.body[1:])
    yield "a byte moved from the body to the salt", moved


@pytest.mark.parametrize(("letter", "index"), [("a", 0), ("a", 7), ("a", 17), ("b", 3), ("c", 9)])
def test_no_forged_proof_of_an_entry_verifies(original: Built, storage: Storage, letter: str, index: int) -> None:
    proof = prove_entry(storage, original.names[letter], index)
    for what, one in forged(proof):
        with pytest.raises(NoteError):
            verify_proof(one, KEYS)
            raise AssertionError(what)


def test_a_proof_needs_the_right_keys(original: Built, storage: Storage) -> None:
    proof = prove_entry(storage, original.names["a"], 3)
    with pytest.raises(NoteError, match="signed by no key that is known"):
        verify_proof(proof, [verifier_key(ORIGIN, NEXT)])


def test_there_is_no_proof_of_what_is_not_there_or_not_proved(built: Built) -> None:
    with DecisionLog(built.url, name="d") as log:
        log.append_now(body("1"))
    opened = open_storage(built.url)
    (name,) = set(opened.sizes()) - set(built.names.values())
    for segment, index, why in (
        (name, 0, "not yet proved"),
        (name, 1, "no such entry"),
        ("nothing", 0, "no such entry"),
        (built.names["a"], -1, "no such entry"),
    ):
        with pytest.raises(NoteError, match=why):
            prove_entry(opened, segment, index)
    opened.close()


def test_a_later_checkpoint_is_proved_to_continue_an_earlier_one(original: Built, storage: Storage) -> None:
    for note in original.notes:
        proof = parse_proof(print_proof(prove_consistency(storage, note)).encode())
        assert isinstance(proof, Consistency) and verify_proof(proof, KEYS).size == 6
        for length in range(len(proof.path) + 3):
            for path in (proof.path[:length] + ["ab" * 32] * (length - len(proof.path)), ["cd" * 32] * length):
                if path != proof.path:
                    with pytest.raises(NoteError, match="does not continue"):
                        verify_proof(msgspec.structs.replace(proof, path=path), KEYS)
    with pytest.raises(NoteError, match="does not continue"):
        verify_proof(Consistency(original.notes[5], original.notes[2], []), KEYS)
    another = sign_note(str(Note(ORIGIN, 3, bytes(32))), ORIGIN, KEY)
    with pytest.raises(NoteError, match="does not continue"):
        verify_proof(prove_consistency(storage, another), KEYS)
    with pytest.raises(NoteError, match="no checkpoint as late"):
        prove_consistency(storage, sign_note(str(Note(ORIGIN, 7, bytes(32))), ORIGIN, KEY))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"proof": "other"}', b'{"proof": "consistency", "old": "", "new": "", "path": [1]}', b"\xff"])
def test_what_is_no_proof_is_said_so(data: bytes) -> None:
    with pytest.raises(NoteError, match="not a proof"):
        parse_proof(data)


# --- the same in PostgreSQL ------------------------------------------------------------------------------------------

Change = Callable[[psycopg.Connection[Any]], object]
ATTACKS: dict[str, tuple[str, list[tuple[str, int | None]]]] = {
    "a record changed": ("UPDATE log_entries SET body = body || ' ' WHERE segment = 1 AND n = 4", [("record", 4)]),
    "a leaf changed": ("UPDATE log_entries SET leaf = sha256(leaf) WHERE segment = 1 AND n = 4", [("record", 4), ("root", 3)]),
    "an entry removed": ("DELETE FROM log_entries WHERE segment = 1 AND n = 4", [("gap", 4)]),
    "the end removed": ("DELETE FROM log_entries WHERE segment = 1 AND n > 4", [("truncated", 5)]),
    "a segment removed": ("DELETE FROM log_segments WHERE id = 1", [("segment", 0)]),
    "segments exchanged": (
        "; ".join(f"UPDATE log_entries SET segment = {new} WHERE segment = {old}" for old, new in ((1, 9), (2, 1), (9, 2))),
        [("root", 0), ("truncated", 12), ("root", 0)],
    ),
    "a checkpoint removed": ("DELETE FROM log_checkpoints WHERE n = 2", [("checkpoint", 2)]),
    "a note changed": ("UPDATE log_checkpoints SET note = replace(note, '=', 'A') WHERE n = 2", [("signature", 2)]),
}


def test_attacks_are_found_in_postgresql_too(postgres: Postgres) -> None:
    url = postgres.new_place()
    notes = build(url)
    opened = open_storage(url)
    assert verify(opened, KEYS, notes[1]).is_fine
    with psycopg.connect(url, autocommit=True) as connection:
        for table in ("log_entries", "log_checkpoints"):
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")  # type: ignore[arg-type]
        for what, (statement, found) in ATTACKS.items():
            with connection.transaction(force_rollback=False):
                connection.execute("CREATE TABLE kept AS TABLE log_entries")
                connection.execute("CREATE TABLE kept_segments AS TABLE log_segments")
                connection.execute("CREATE TABLE kept_checkpoints AS TABLE log_checkpoints")
            connection.execute(statement)  # type: ignore[arg-type]
            assert [(one.what, one.index) for one in verify(opened, KEYS).findings] == found, what
            with connection.transaction():
                for table, kept in (("log_entries", "kept"), ("log_segments", "kept_segments"), ("log_checkpoints", "kept_checkpoints")):
                    connection.execute(f"DELETE FROM {table}")  # type: ignore[arg-type]
                    connection.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE {kept}")  # type: ignore[arg-type]
                    connection.execute(f"DROP TABLE {kept}")  # type: ignore[arg-type]
        connection.execute("DELETE FROM log_checkpoints WHERE n > 3")
        assert [one.what for one in verify(opened, KEYS, notes[5]).findings] == ["roll-back"]
    opened.close()
