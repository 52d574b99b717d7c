"""What is done from a shell is in the decision log before and after, so that the journal and the notices know of it; what cannot be logged is not done."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_admissions import message, zfa
from typer.testing import CliRunner

import cli.consent
import cli.log
import cli.main
from engine.calendar import iso
from engine.consent.imports import Imports
from engine.consent.store import ConsentStore
from engine.decision_log.checkpoint import Checkpointer, parse_private_key
from engine.decision_log.log import DecisionLog
from engine.decision_log.read import LogReader
from engine.decision_log.storage import LogUnavailable
from engine.errors import RequestError
from engine.journal.database import Database
from engine.journal.follower import Follower
from engine.journal.notices import Outbox
from engine.pack import load_pack
from engine.pdp import Pdp, load_pdp
from engine.request import Action, Entity, Request
from engine.service import By, Service

ROOT = Path(__file__).parent.parent
PDP = load_pdp(ROOT / "policies")
PATIENT, DOCTOR, NURSE = "279035121518989", "10000000017", "10000000033"
REPORT = {"id": "DOC-1", "type": "11488-4", "status": "Approved", "confidentiality": ["N"]}
SENT = "20240306100000+0100"
HIM = f"professional:{DOCTOR}"


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE", "LOG", "JOURNAL", "LOG_KEY"):
        monkeypatch.delenv(f"HABILIS_{name}", raising=False)
    monkeypatch.setattr(cli.consent, "open_pdp", lambda *_: PDP)


class Place:
    """A folder with everything, and the commands that work in it."""

    def __init__(self, folder: Path):
        self.folder, self.log, self.store = folder, f"sqlite:///{folder}/decision-log", f"sqlite:///{folder}/consent.db"

    def run(self, *arguments: object, code: int = 0, stdin: str | None = None) -> Any:
        command = [str(one) for one in arguments] + ["--data", str(self.folder)]
        result = CliRunner().invoke(cli.main.app, command, input=stdin, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    def consent(self, *arguments: object, **more: Any) -> Any:
        return self.run("consent", *arguments, **more)

    def entries(self, *kinds: str) -> list[dict[str, Any]]:
        with LogReader(self.log) as reader:
            return [one.body for one in reader.matching(lambda body: body["kind"] in kinds) if one.body]

    def acts(self) -> list[tuple[str, str]]:
        return [(one["action"]["name"], one["state"]) for one in self.entries("act")]

    def kept(self) -> list[tuple[str, str, str]]:
        with ConsentStore(self.store, PDP.pack.vocabulary) as store:
            return [(one.act.action, one.act.decision, one.act.id) for one in store.acts(PATIENT)]

    def segments(self) -> list[int]:
        with LogReader(self.log) as reader:
            return sorted(one.size for one in reader.segments())


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """A store, its log, and an open record."""
    made = Place(tmp_path / "data")
    made.consent("init")
    made.consent("act", "open", PATIENT, "--with", "action.birth_date=1979-03-28")
    return made


def test_an_act_is_in_the_log_before_and_after_under_the_identifier_of_the_record(here: Place) -> None:
    told = json.loads(here.consent("block", PATIENT, DOCTOR, "--with", "context.basis=by telephone", "--json").stdout)
    assert here.acts() == [("open", "asked"), ("open", "done"), ("block", "asked"), ("block", "done")]
    asked, done = here.entries("act")[-2:]
    assert asked["id"] == done["id"] == told["act"] == here.kept()[-1][2]
    assert done["caller"].startswith("shell:") and done["patient"] == PATIENT and done["context"]["basis"] == "by telephone"
    assert done["directives"] == told["directives"] and done["after"] == told["token"] and "directives" not in asked


def test_a_refused_act_is_in_the_log_and_a_malformed_one_is_not(here: Place) -> None:
    here.consent("act", "declare_treating_physician", PATIENT, "--target", HIM, "--with", "action.target.profession=G15_10")
    here.consent("block", PATIENT, DOCTOR, code=1)
    assert here.acts()[-2:] == [("block", "asked"), ("block", "refused")]
    before = len(here.acts())
    here.consent("block", PATIENT, "10000000018", code=2)
    here.consent("grant", PATIENT, f"professional:{NURSE}", "--with", "action.untill=2030-01-01", code=2)
    assert len(here.acts()) == before == 2 * len(here.kept())


def test_an_action_that_records_nothing_is_in_the_log_as_a_decision(here: Place) -> None:
    here.consent("act", "read_status", PATIENT)
    here.consent("act", "read_traces", PATIENT, "--as", "patient:114067505601208", code=1)
    assert [(one["action"]["name"], one["patient"]) for one in here.entries("decision")] == [("read_status", PATIENT), ("read_traces", PATIENT)]
    here.consent("act", "read_status", PATIENT, "--with", "action.untill=2030-01-01", code=2)
    here.consent("act", "read_status", PATIENT, "--as", "professional:10000000018", code=2)
    assert len(here.entries("decision")) == 2


def test_a_claim_that_the_directory_contradicts_is_logged_and_not_decided(here: Place, tmp_path: Path) -> None:
    people = tmp_path / "people.csv"
    people.write_text(f"identifier,profession\n{DOCTOR},G15_10\n")
    here.consent("act", "close", PATIENT, "--as", HIM, "--with", "subject.profession=G15_60", "--directory", people, code=2)
    (refused,) = here.entries("refused")
    assert refused["subject"] == {"type": "professional", "id": DOCTOR} and "profession" in refused["why"] and len(here.kept()) == 1


def test_without_a_log_nothing_is_done(here: Place) -> None:
    for command in (("block", PATIENT, DOCTOR), ("act", "read_status", PATIENT), ("import", "-")):
        result = here.consent(*command, "--log", "sqlite:///nowhere", code=2, stdin=message(zfa(f9="IO"), sent=SENT))
        assert "there is no decision log at" in result.stderr and result.stdout == ""
    assert [one[0] for one in here.kept()] == ["open"]
    with ConsentStore(here.store, PDP.pack.vocabulary) as store:
        assert Imports(store).letters(None) == []


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets a log take entries until one holds this text."""
    whole = DecisionLog.append_now

    def after(text: bytes) -> None:
        def append(self: DecisionLog, *bodies: bytes) -> None:
            if any(text in one for one in bodies):
                raise LogUnavailable("the disk is full")
            whole(self, *bodies)

        monkeypatch.setattr(DecisionLog, "append_now", append)

    return after


def test_a_log_that_cannot_be_written_before_the_act_leaves_the_record_as_it_is(here: Place, failing: Any) -> None:
    failing(b'"state":"asked"')
    assert here.consent("block", PATIENT, DOCTOR, code=2).stderr.startswith("the disk is full: once it can be written again, `habilis consent history")
    assert here.consent("import", "-", code=2, stdin=message(zfa(f9="IO"), sent=SENT)).stderr == "the disk is full\n"
    assert [one[0] for one in here.kept()] == ["open"]


def test_a_log_that_fails_after_the_act_does_not_say_that_all_is_well(here: Place, failing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(b'"state":"done"')
    here.consent("block", PATIENT, DOCTOR, code=2)
    monkeypatch.undo()
    assert here.acts()[-1] == ("block", "asked") and here.entries("act")[-1]["id"] == here.kept()[-1][2]


# --- the journal and the notices -------------------------------------------------------------------------------------


@pytest.fixture
def service(here: Place) -> Iterator[Service]:
    with ConsentStore(here.store, PDP.pack.vocabulary) as store, DecisionLog(here.log, name="worker-1") as log:
        yield Service(PDP, store, log)


def test_the_journal_and_the_notices_know_of_what_was_done_from_a_shell(here: Place, service: Service) -> None:
    """A first access is told again after a new authorisation, wherever that was given."""
    physician = Entity("professional", DOCTOR, {"profession": "G15_10", "authentication": "DIRECTE"})
    report = Entity("document", "DOC-1", {**{key: value for key, value in REPORT.items() if key != "id"}, "patient": PATIENT})

    def reads() -> None:
        look = asyncio.run(service.decide(physician, Action("read"), [report], {"purpose": "care"}, By("a store")))
        assert look.permits(0)

    here.consent("grant", PATIENT, HIM)
    reads()
    here.consent("act", "revoke_access", PATIENT, "--target", HIM)
    here.consent("grant", PATIENT, HIM)
    reads()
    here.run("journal", "follow", "--once")
    told = json.loads(here.run("journal", "show", PATIENT, "--json").stdout)["traces"]
    assert [(one["action"], one["status"]) for one in reversed(told)] == [
        ("open", "confirmed"), ("grant_access", "confirmed"), ("read", "unconfirmed"), ("revoke_access", "confirmed"), ("grant_access", "confirmed"),
        ("read", "unconfirmed"),
    ]  # fmt: skip
    database = Database(f"sqlite:///{here.folder}/journal.db")
    with LogReader(here.log) as reader, Follower(reader, database) as follower:
        follower.step()
        due = Outbox(database, lambda *_: None).pending(10, time.time() + 3600, 60.0)
    database.close()
    assert [one.what for one in due] == ["notify_first_access"] * 2


# --- admissions ------------------------------------------------------------------------------------------------------


def test_imported_messages_are_in_the_log_all_in_one_segment(here: Place) -> None:
    both = zfa(f6="Y", f9="IO")
    frames = "".join(f"\x0b{message(both if turn == 1 else zfa(f9='NA'), control=f'M-{turn}', sent=SENT)}\x1c\r" for turn in range(3))
    before = here.segments()
    here.consent("import", "-", stdin=frames)
    assert here.acts()[2:] == [("refuse_break_glass", "asked"), ("oppose_feeding", "asked"), ("refuse_break_glass", "done"), ("oppose_feeding", "done")]
    assert len(here.segments()) == len(before) + 1
    done = here.entries("act")[-2:]
    assert [one["id"] for one in done] == [one[2] for one in here.kept()[1:]] and len({one["id"] for one in done}) == 2
    assert done[0]["subject"]["type"] == "organisation" and done[0]["context"]["basis"].startswith("ADT^A01 M-1") and done[0]["caller"].startswith("shell:")
    here.consent("import", "-", stdin=frames)
    assert len(here.acts()) == 6, "what was taken before is not asked for again"


def test_of_a_message_that_is_refused_in_part_no_act_is_done_and_the_log_says_so(here: Place) -> None:
    here.consent("act", "close", PATIENT)
    here.consent("import", "-", stdin=message(zfa(f6="Y", f9="IO"), sent=SENT), code=1)
    assert Counter(here.acts()[4:]) == {(name, state): 1 for name in ("refuse_break_glass", "oppose_feeding") for state in ("asked", "refused")}
    (letter,) = json.loads(here.consent("dead-letters", "--json").stdout)
    here.consent("act", "reopen", PATIENT)
    here.consent("dead-letters", letter["id"], "--retry")
    assert [one["state"] for one in here.entries("act")][-2:] == ["done", "done"]


def test_a_message_that_another_process_took_meanwhile_is_in_the_log_as_not_done(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    text, whole = message(zfa(f9="IO"), sent=SENT), Imports.has
    here.consent("import", "-", stdin=text)
    calls: list[bool] = []

    def has(*arguments: Any) -> bool:
        calls.append(whole(*arguments))
        return calls[-1] and len(calls) > 1

    monkeypatch.setattr(Imports, "has", has)
    monkeypatch.setattr(Imports, "overtaken", lambda *_: set())
    assert here.consent("import", "-", stdin=text).stdout.endswith("0 written, 0 nothing, 1 replayed, 0 dead\n")
    assert here.acts()[-2:] == [("oppose_feeding", "asked"), ("oppose_feeding", "refused")] and len(here.kept()) == 2


def test_acts_that_are_done_together_are_about_one_record(here: Place, service: Service) -> None:
    asks = [Request(Entity("patient", one), Action("close"), Entity("record", one), {"purpose": "care"}) for one in (PATIENT, "114067505601208")]
    with pytest.raises(RequestError, match="are about one record"):
        service.act_together(asks, By("a desk"), time.time())
    assert len(here.acts()) == 2


# --- proof -----------------------------------------------------------------------------------------------------------


def test_what_is_done_from_a_shell_is_proved_by_the_key_at_hand_or_later_by_whoever_has_it(here: Place, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    key = tmp_path / "elsewhere.pem"
    keys.write_text(here.run("log", "key", key).stdout)
    unproved = here.run("log", "verify", "--keys", keys, code=1).stdout
    assert "proved 0; durable, not yet proved 3" in unproved
    here.run("log", "sign", "--key", key)
    (here.folder / "log-key.pem").write_bytes(key.read_bytes())
    here.consent("block", PATIENT, DOCTOR)
    assert "proved 6; durable, not yet proved 0" in here.run("log", "verify", "--keys", keys).stdout


def test_a_key_of_the_environment_does_not_sign_a_log_that_is_named_on_the_line(here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key.pem"
    keys = tmp_path / "keys"
    keys.write_text(here.run("log", "key", key).stdout)
    monkeypatch.setenv("HABILIS_LOG_KEY", str(key))
    here.consent("block", PATIENT, DOCTOR, "--log", here.log)
    assert "proved 0;" in here.run("log", "verify", "--keys", keys, code=1).stdout
    here.consent("block", PATIENT, NURSE)
    assert "not yet proved 0;" in here.run("log", "verify", "--keys", keys).stdout
    monkeypatch.setenv("HABILIS_LOG_KEY", str(tmp_path / "none.pem"))
    here.consent("act", "unblock", PATIENT, "--target", HIM)
    assert "not yet proved 3;" in here.run("log", "verify", "--keys", keys).stdout


def test_while_somebody_else_makes_the_checkpoints_a_shell_leaves_them_to_him(here: Place, tmp_path: Path) -> None:
    here.run("log", "key", here.folder / "log-key.pem")
    leader = Checkpointer(here.log, parse_private_key((here.folder / "log-key.pem").read_bytes()), run=False)
    assert leader.attempt() is not None and leader.is_leading
    here.consent("block", PATIENT, DOCTOR)
    made = leader.attempt()
    leader.release()
    assert made is not None and made.number == 1


# --- what the record said, and what was decided on it ----------------------------------------------------------------


def test_a_record_is_told_whole_now_then_and_by_what_was_known(here: Place) -> None:
    """What has no identifier, such as a refusal or a mask of everything, is told like the rest."""
    here.consent("act", "refuse_break_glass", PATIENT)
    here.consent("mask", PATIENT, "--structure", "750000028", "--from", "2026-03-01", "--until", "2026-03-09")
    known = json.loads(here.consent("block", PATIENT, DOCTOR, "--json").stdout)["token"]
    time.sleep(0.01)
    between = iso(time.time())
    time.sleep(0.01)
    here.consent("act", "unblock", PATIENT, "--target", HIM)

    def told(*more: str) -> list[str]:
        return [one["kind"] for one in json.loads(here.consent("record", PATIENT, "--json", *more).stdout)["in_force"]]

    everything = ["opened", "identity", "break_glass_refusal", "mask", "block"]
    assert sorted(told()) == sorted(set(everything) - {"block"})
    assert sorted(told("--known-at", between)) == sorted(told("--token", known)) == sorted(told("--at", between, "--known-at", between)) == sorted(everything)
    assert "block" not in told("--at", between), "by what is known now it was withdrawn"
    assert told("--at", "2020-01-01T00:00:00+01:00", "--known-at", "2020-01-01T00:00:00+01:00") == []
    lines = here.consent("record", PATIENT).stdout.splitlines()
    assert ", by revision 6 of the record; so until something is said" in lines[0]
    (stay,) = [line for line in lines if " mask " in line]
    assert stay.endswith(f"deposited from 2026-03-01T00:00:00+01:00 until 2026-03-10T00:00:00+01:00, structure 750000028  by patient {PATIENT}")
    assert [one["patient"] for one in here.entries("read") if one["what"] == "record"] == [PATIENT] * 7
    assert here.consent("record", "114067505601208").stdout.endswith("nothing is in force\n")
    here.consent("record", PATIENT, "--token", "1.99", code=2)
    here.consent("record", PATIENT, "--token", known, "--known-at", between, code=2)
    here.consent("record", PATIENT, "--log", "sqlite:///nowhere", code=2)


def test_a_logged_decision_is_taken_again_from_a_shell(here: Place, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.log, "open_pdp", lambda *_: PDP)
    physician = Entity("professional", DOCTOR, {"profession": "G15_10", "authentication": "DIRECTE"})
    report = Entity("document", "DOC-1", {**{key: value for key, value in REPORT.items() if key != "id"}, "patient": PATIENT})
    here.consent("grant", PATIENT, HIM)
    look = asyncio.run(service.decide(physician, Action("read"), [report], {"purpose": "care"}, By("a store")))
    act = json.loads(here.consent("block", PATIENT, DOCTOR, "--json").stdout)["act"]
    shown = here.run("log", "show", "--id", look.id, "--replay").stdout
    assert "DOC-1: the same again, permit by R18\n    as the log has them, since it does not hold the document: " in shown
    assert f"{PATIENT}: the same again, permit by A01-block\n" in here.run("log", "show", "--id", act, "--replay").stdout
    told = json.loads(here.run("log", "show", "--id", look.id, "--replay", "--json").stdout)
    assert told["replay"]["same"] is True and told["replay"]["resources"][0]["now"] == {"decision": "permit", "rule": "R18"} and len(told["entries"]) == 1
    assert [one["of"] for one in here.entries("read") if one.get("replay")] == [look.id, act, look.id]
    here.run("log", "show", "--replay", code=2)
    here.run("log", "show", "--id", look.id, "--replay", "--fhir", code=2)
    assert here.run("log", "show", "--id", "0" * 26, "--replay").stdout == "no entry\n"
    monkeypatch.setattr(cli.log, "open_pdp", lambda *_: Pdp(load_pack(ROOT / "policies", {"inferred_cells": "follow"})))
    other = here.run("log", "show", "--id", look.id, "--replay", code=1).stdout
    assert f"not taken again: pack: the decision was taken by the pack {PDP.pack.digest}, and this one is " in other


def test_a_decision_that_the_record_does_not_bear_out_exits_with_1(here: Place, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store was put back from before the grant: what the decision was taken on is gone, or is not what it was."""
    monkeypatch.setattr(cli.log, "open_pdp", lambda *_: PDP)
    physician = Entity("professional", DOCTOR, {"profession": "G15_10", "authentication": "DIRECTE"})
    report = Entity("document", "DOC-1", {**{key: value for key, value in REPORT.items() if key != "id"}, "patient": PATIENT})
    store = service.live.store
    assert store is not None
    store.backup(str(here.folder / "before.db"))
    here.consent("grant", PATIENT, HIM)
    look = asyncio.run(service.decide(physician, Action("read"), [report], {"purpose": "care"}, By("a store")))
    store.restore(str(here.folder / "before.db"))
    assert "not taken again: what the token names is not in the consent store" in here.run("log", "show", "--id", look.id, "--replay", code=1).stdout


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_list_tells_apart_who_is_let_in_who_is_kept_out_and_what_is_masked(here: Place) -> None:
    team = ("--target", "team:750000028")
    here.consent("grant", PATIENT, HIM, "--until", "2090-12-31")
    here.consent("act", "consent_care_team", PATIENT, *team)
    hospital = ("--as", "organisation:750000028", "--with", "subject.kind=health", "--with", "subject.structure=750000028")
    here.consent("act", "join_care_team", PATIENT, "--target", f"professional:{NURSE}", "--with", "action.target.team=750000028", *hospital)
    here.consent("act", "mask_documents", PATIENT, "--with", "action.target.type=everybody")
    told = json.loads(here.consent("list", PATIENT, "--json").stdout)
    assert [(one["kind"], one["id"], one["via"]) for one in told["access"]] == [
        ("authorisation", DOCTOR, ""), ("care_team_consent", "750000028", ""), ("care_team_consent", NURSE, "team 750000028"),
        ("membership", NURSE, ""),
    ]  # fmt: skip
    assert told["kept_out"] == [] and [(one["kind"], one["target"]) for one in told["masked"]] == [("mask", {"everybody": None})]
    assert told["access"][0]["from"] and told["access"][0]["until"].startswith("2091-01-01")
    here.consent("act", "revoke_access", PATIENT, "--target", f"professional:{NURSE}")
    here.consent("block", PATIENT, "10000000025")
    lines = here.consent("list", PATIENT).stdout.splitlines()
    assert [lines.index(title) for title in ("let in:", "kept out:", "masked or hidden:")] == sorted(
        range(len(lines)), key=lambda n: not lines[n].endswith(":")
    )[:3]
    out, masked = lines.index("kept out:"), lines.index("masked or hidden:")
    assert [line.split()[0] for line in lines[out + 1 : masked]] == ["exclusion", "block"] and lines[masked + 1].split()[1:3] == ["mask", "everybody"]
    assert " from 20" in lines[1] and "until 2091-01-01" in lines[1] and lines[out + 1].endswith(f"until withdrawn, recorded by {PATIENT}")


def test_reading_a_record_is_itself_logged_before_it_is_shown_and_what_cannot_be_logged_is_not_shown(here: Place, tmp_path: Path) -> None:
    documents = tmp_path / "documents.json"
    documents.write_text(json.dumps([REPORT]))
    here.consent("import", "-", stdin=message(None, sent=SENT), code=1)
    (letter,) = json.loads(here.consent("dead-letters", "--json").stdout)
    preview = ("preview", PATIENT, HIM, documents)
    for command in (("list", PATIENT), ("record", PATIENT), ("history", PATIENT), ("history", PATIENT, "--acts"), preview, ("dead-letters", letter["id"])):
        refused = here.consent(*command, "--log", "sqlite:///nowhere", code=2)
        assert refused.stdout == "" and "there is no decision log" in refused.stderr
        here.consent(*command)
    told = [(one["what"], one.get("patient"), one.get("of")) for one in here.entries("read")]
    assert told == [
        ("access list", PATIENT, None), ("record", PATIENT, None), ("history", PATIENT, None), ("acts", PATIENT, None),
        ("preview", PATIENT, HIM.replace(":", " ")),
        ("dead letter", None, letter["id"]),
    ]  # fmt: skip
    assert all(one["caller"].startswith("shell:") for one in here.entries("read"))
