"""What the store keeps of admission messages, on SQLite and PostgreSQL alike: each is taken once, whoever sends it how often, and what was not taken waits for
somebody to look at it."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from consent_workers import VOCABULARY, Worker, admissions, pdp, take_messages
from test_admissions import CLINIC, HOSPITAL, INS, PATIENT, message, zfa

from engine.calendar import parse_instant
from engine.consent.admissions import MAX_BYTES, Admissions, Taken
from engine.consent.imports import LONGEST_NAME, DeadLetter, Entry, Imports
from engine.consent.store import Conflict, ConsentStore, StoreUnavailable
from engine.errors import RequestError

if TYPE_CHECKING:
    from servers import Postgres

pytest_plugins = ["servers"]

NOW = parse_instant("2026-11-21T10:00:00+01:00") or 0.0
OPENED = [{"kind": "opened"}]


@pytest.fixture
def store(address: str) -> Iterator[ConsentStore]:
    with ConsentStore(address, VOCABULARY, create=True, timeout=20.0) as opened:
        opened.append(PATIENT, OPENED, NOW)
        yield opened


@pytest.fixture
def desk(store: ConsentStore) -> Admissions:
    return admissions(pdp(), store)


def take(desk: Admissions, text: str, name: str = "a message", at: float = NOW) -> Taken | DeadLetter:
    return desk.take(text.encode(), at, name)


def taken(desk: Admissions, text: str, at: float = NOW) -> str:
    done = take(desk, text, at=at)
    assert isinstance(done, Taken), done
    return done.outcome


def dead(desk: Admissions, text: str, name: str = "a message", at: float = NOW) -> DeadLetter:
    done = take(desk, text, name, at)
    assert isinstance(done, DeadLetter), done
    return done


def number(store: ConsentStore) -> int:
    return store.read(PATIENT, NOW)[1].revision


OPPOSED, SILENT = message(zfa(f9="IO"), control="M-2"), message(zfa(f9="NA"), control="M-3")


# --- once ------------------------------------------------------------------------------------------------------------


def test_a_message_is_taken_once_across_restarts_and_processes(address: str):
    outcomes = []
    for _ in range(3):
        with ConsentStore(address, VOCABULARY, create=True) as store:
            if not number(store):
                store.append(PATIENT, OPENED, NOW)
            outcomes += [taken(admissions(pdp(), store), text) for text in (message(), SILENT)]
    assert outcomes == ["written", "nothing", *["replayed"] * 4]
    with ConsentStore(address, VOCABULARY) as store:
        assert number(store) == 2


def test_another_message_of_the_same_identifier_is_a_dead_letter_after_a_restart_too(desk: Admissions, address: str):
    taken(desk, message())
    with ConsentStore(address, VOCABULARY) as other:
        assert dead(admissions(pdp(), other), message(zfa(f9="IO"))).place == "MSH-10"
        assert taken(admissions(pdp(), other), message(zfa(f9="IO"), facility=f"X^{CLINIC}")) == "written"


def test_what_a_structure_said_last_holds_after_a_restart_too(desk: Admissions, address: str):
    for control, code, date in (("M-1", "IC", "20261110"), ("M-3", "INC", "20261112"), ("M-4", "IC", "20261112")):
        assert taken(desk, message(zfa(f11=code, f12=date), control=control)) == "written"
    with ConsentStore(address, VOCABULARY) as other:
        late = dead(admissions(pdp(), other), message(zfa(f11="IC", f12="20261111"), control="M-2"))
        assert (late.place, late.reason) == ("ZFA-12", "is older than what this structure has already said")


def test_the_directives_the_acts_and_the_entry_are_written_together_or_not_at_all(desk: Admissions, monkeypatch: pytest.MonkeyPatch):
    def breaks(*_: Any) -> None:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Imports, "add", breaks)
        for text in (message(), SILENT):
            with pytest.raises(StoreUnavailable):
                take(desk, text)
    assert (number(desk.store), desk.store.acts(PATIENT), desk.imports.letters(None)) == (1, (), [])
    assert [taken(desk, text) for text in (message(), SILENT)] == ["written", "nothing"]


def test_many_processes_that_take_the_same_messages_write_each_once(address: str):
    with ConsentStore(address, VOCABULARY, create=True) as store:
        store.append(PATIENT, OPENED, NOW)
        texts = [message(zfa(f9="IO") if turn % 2 else zfa(f9="NA"), control=f"M-{turn}").encode() for turn in range(16)]
        workers = [Worker(take_messages, address, random.Random(seed).sample(texts, len(texts)), NOW) for seed in range(3)]
        outcomes: Counter[str] = Counter()
        for worker in workers:
            while (said := worker.hear(120)) != "done":
                outcomes[said] += 1
            worker.close()
        assert outcomes == {"written": 8, "nothing": 8, "replayed": 32}
        assert number(store) == 9


def test_an_importer_that_is_killed_leaves_each_message_taken_whole_or_not_at_all(address: str):
    chance = random.Random(3)
    texts = [message(zfa(f6="Y", f9="IO", f11="IC"), control=f"M-{turn}").encode() for turn in range(40)]
    with ConsentStore(address, VOCABULARY, create=True, timeout=20.0) as store:
        store.append(PATIENT, OPENED, NOW)
        acknowledged = 0
        for _ in range(4):
            with Worker(take_messages, address, texts, NOW) as worker:
                for _ in range(acknowledged + chance.randrange(1, 6)):
                    worker.hear()
                time.sleep(chance.random() * 0.004)
                worker.kill()
            acknowledged = (number(store) - 1) // 3
        desk = admissions(pdp(), store)
        outcomes = [done.outcome for done in (desk.take(data, NOW) for data in texts) if isinstance(done, Taken)]
        assert outcomes == ["replayed"] * acknowledged + ["written"] * (40 - acknowledged) and 0 < acknowledged < 40
        bases = Counter(str(one.directive["basis"]).partition(" of ")[0] for one in store.history(PATIENT)[1:])
        assert set(bases.values()) == {3} and len(bases) == 40


def test_of_two_that_say_something_older_and_newer_at_once_the_newer_stays(address: str):
    """Whoever comes second is a dead letter or comes after: never is the older one written last."""
    with ConsentStore(address, VOCABULARY, create=True, timeout=20.0) as store:
        store.append(PATIENT, OPENED, NOW)
        for turn in range(8):
            older = message(zfa(f11="IC", f12=f"202611{10 + turn:02d}0800"), control=f"A-{turn}")
            newer = message(zfa(f11="INC", f12=f"202611{10 + turn:02d}0900"), control=f"B-{turn}")
            gate = threading.Barrier(2)

            def work(text: str, gate: threading.Barrier = gate) -> None:
                gate.wait()
                with ConsentStore(address, VOCABULARY, timeout=20.0) as own:
                    take(admissions(pdp(), own), text)

            threads = [threading.Thread(target=work, args=(text,)) for text in (older, newer)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert store.history(PATIENT)[-1].directive.get("withdraw") is True


def test_an_entry_that_two_make_at_once_conflicts(store: ConsentStore):
    entry = Entry(HOSPITAL, "ADM", "M-1", "digest", PATIENT, {})
    imports = Imports(store)
    with store.writing() as connection:
        imports.add(connection, entry, NOW)
    with pytest.raises(Conflict), store.writing() as connection:
        imports.add(connection, entry, NOW)


# --- dead letters ----------------------------------------------------------------------------------------------------

HURT = message(None, control="M-9")


def test_a_dead_letter_says_what_came_from_whom_when_and_what_is_wrong(desk: Admissions):
    letter = dead(desk, message(zfa(f9="OUI")), "box/12.er7")
    assert desk.imports.letter(letter.id) == letter == DeadLetter(
        letter.id, "box/12.er7", "ADM of CH-NORD", "ZFA-9", "unknown code `OUI`", letter.help, len(message(zfa(f9="OUI")).encode()),
        message(zfa(f9="OUI")).encode(), "open", NOW, NOW, 1, "",
    )  # fmt: skip
    (listed,) = desk.imports.letters()
    assert (listed.id, listed.data, listed.size) == (letter.id, b"", letter.size), "a list does not fetch what they hold"


def test_what_the_policy_refuses_is_a_dead_letter_of_the_structure_and_the_refused_act_is_kept(desk: Admissions):
    desk.store.append(PATIENT, [{"kind": "closed"}], NOW)
    letter = dead(desk, message())
    assert (letter.sender, letter.place) == (HOSPITAL, "ZFA-11") and "is refused by R01" in letter.reason
    (act,) = desk.store.acts(PATIENT)
    assert (act.act.action, act.act.rule, act.act.told["subject"]["id"]) == ("consent_care_team", "R01", HOSPITAL)


def test_the_same_bytes_again_are_the_same_letter(desk: Admissions):
    first = dead(desk, HURT, "one", NOW)
    again = dead(desk, HURT, "two", NOW + 60)
    assert again.id == first.id and (again.times, again.first, again.last, again.name) == (2, NOW, NOW + 60, "two")
    assert len(desk.imports.letters()) == 1
    assert dead(desk, HURT + "\r").id != first.id


def test_a_letter_that_was_dismissed_is_open_again_when_it_comes_again(desk: Admissions):
    letter = dead(desk, HURT)
    dismissed = desk.imports.dismiss(letter.id[:8], "sent by mistake")
    assert (dismissed.state, dismissed.note, desk.imports.letters()) == ("dismissed", "sent by mistake", [])
    assert [one.id for one in desk.imports.letters("dismissed")] == [letter.id] and dismissed.data == HURT.encode()
    again = dead(desk, HURT)
    assert (again.state, again.note, again.times) == ("open", "", 2)


def test_a_letter_is_retaken_when_it_is_mended_around_it(desk: Admissions):
    desk.store.append(PATIENT, [{"kind": "closed"}], NOW)
    letter = dead(desk, message())
    (still,) = desk.retry(letter.id, NOW)
    assert isinstance(still, DeadLetter) and (still.id, still.times) == (letter.id, 2)
    desk.store.append(PATIENT, [{"kind": "closed", "withdraw": True}], NOW)
    (done,) = desk.retry(letter.id[:6], NOW)
    assert isinstance(done, Taken) and done.outcome == "written"
    assert (desk.imports.letters(), desk.imports.letter(letter.id).state) == ([], "retaken")
    for call in (lambda: desk.retry(letter.id, NOW), lambda: desk.imports.dismiss(letter.id, "no")):
        with pytest.raises(RequestError, match="dead letter: was taken since"):
            call()


def test_a_letter_is_retaken_when_its_sender_sends_it_again(desk: Admissions):
    text = message(facility="CHU-X", pid3=INS)
    unknown = dead(desk, text)
    registered = admissions(pdp(), desk.store, structures={"CHU-X": CLINIC})
    assert taken(registered, text) == "written"
    assert desk.imports.letter(unknown.id).state == "retaken"
    assert taken(registered, text) == "replayed"


def test_a_replay_that_was_dead_elsewhere_is_retaken(desk: Admissions):
    text = message()
    strange = admissions(pdp(), desk.store, speaks_for=[CLINIC])
    letter = dead(strange, text)
    assert taken(desk, text.replace("\r", "\r\n")) == "written", "other bytes of the same message"
    (done,) = desk.retry(letter.id, NOW)
    assert isinstance(done, Taken) and done.outcome == "replayed" and desk.imports.letter(letter.id).state == "retaken"


def test_a_letter_that_is_too_long_is_kept_without_what_it_holds(desk: Admissions):
    letter = dead(desk, "MSH|^~\\&|" + "x" * MAX_BYTES)
    assert (letter.data, letter.size) == (b"", MAX_BYTES + 9)
    with pytest.raises(RequestError, match=r"^dead letter: was too long to be kept \(have it sent again\)$"):
        desk.retry(letter.id, NOW)


def test_a_letter_holds_any_bytes_and_says_nothing_that_steers_a_terminal(desk: Admissions):
    data = b"MSH|^~\\&|\x1b[2J|\x00\xff\r" + bytes(range(256))
    letter = desk.take(data, NOW, "a\x1b[2J\0\udcff" + "n" * 300)
    assert isinstance(letter, DeadLetter) and letter.data == data
    for text in (letter.name, letter.sender, letter.place, letter.reason, letter.help):
        assert text.isprintable() and len(text) <= 4 * LONGEST_NAME
    assert (letter.name[:18], letter.sender) == ("a\\x1b[2J\\x00\\udcff", "\\x1b[2J of \\x00ÿ")


@pytest.mark.parametrize(
    ("id", "message_"),
    [
        ("", "dead letter: is not named by that (write at least 6 characters of its identifier)"),
        ("abc", "dead letter: is not named by that (write at least 6 characters of its identifier)"),
        ("%%%%%%", "dead letter: is not named by that (write at least 6 characters of its identifier)"),
        ("zzzzzz", "dead letter: there is none of that identifier (list them, and write more of it)"),
    ],
)
def test_a_letter_that_is_not_there_is_an_error(desk: Admissions, id: str, message_: str):
    dead(desk, HURT)
    for call in (lambda: desk.imports.letter(id), lambda: desk.retry(id, NOW), lambda: desk.imports.dismiss(id, "x")):
        with pytest.raises(RequestError) as caught:
            call()
        assert str(caught.value) == message_


def test_who_dismisses_a_letter_says_why(desk: Admissions):
    letter = dead(desk, HURT)
    with pytest.raises(RequestError, match="note: is missing"):
        desk.imports.dismiss(letter.id, "  ")
    assert desk.imports.letter(letter.id).state == "open"


# --- with everything else --------------------------------------------------------------------------------------------


def test_a_backup_carries_what_was_taken_and_the_dead_letters(desk: Admissions, postgres: Postgres, place: Path, address: str):
    taken(desk, message())
    letter = dead(desk, HURT)
    desk.store.backup(str(place / "backup.db"))
    taken(desk, OPPOSED)
    dead(desk, "lost")
    with ConsentStore(f"sqlite:///{place}/other.db" if address.startswith("postgresql") else postgres.new_place(), VOCABULARY, create=True) as other:
        dead(admissions(pdp(), other), "gone")
        for store in (other, desk.store):
            store.restore(str(place / "backup.db"))
            again = admissions(pdp(), store)
            assert [one.id for one in again.imports.letters(None)] == [letter.id] and again.imports.letter(letter.id) == letter
            assert [taken(again, text) for text in (message(), OPPOSED)] == ["replayed", "written"], "what was lost is taken again"


def test_a_store_that_is_gone_takes_nothing_and_says_so(place: Path):
    path = place / "consent.db"
    with ConsentStore(f"sqlite:///{path}", VOCABULARY, create=True) as store:
        desk = admissions(pdp(), store)
        store.append(PATIENT, OPENED, NOW)
        path.rename(place / "away.db")
        for text in (message(), HURT):
            with pytest.raises(StoreUnavailable) as caught:
                take(desk, text)
            assert PATIENT not in str(caught.value)
        (place / "away.db").rename(path)
