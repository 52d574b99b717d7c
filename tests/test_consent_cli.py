"""`habilis consent` as a consent desk's scripts meet it: what is done, what is refused and kept, what is malformed and writes nothing; admission messages."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_admissions import INS, message, official, zfa
from typer.testing import CliRunner

import cli.consent
import cli.main
from engine.consent.store import ConsentStore
from engine.pdp import load_pdp

pytest_plugins = ["servers"]

ROOT = Path(__file__).parent.parent
PDP = load_pdp(ROOT / "policies")
PATIENT, OTHER, DOCTOR, NURSE, CARD = "279035121518989", "114067505601208", "10000000017", "10000000033", "810000000017"
REPORT = {"id": "DOC-1", "type": "11488-4", "status": "Approved", "confidentiality": ["N"], "author": NURSE, "structure": "750000028"}
THE_INS = "(the INS: the 13 characters of the NIR or the NIA and its key of 2, without spaces)"
NOT_PATIENT = f"is not written like an identifier of a patient {THE_INS}"
NO_PATIENT = f"is not an identifier of a patient: its check digits do not fit the others {THE_INS}"
AUTHORISATION = "the directive `authorisation` of `grant_access`"
DIRECTORY = f"identifier,profession,others\n{DOCTOR},G15_10,{CARD}\n{NURSE},G15_60,\n"

Run = Callable[..., Any]


def habilis(*arguments: object, stdin: bytes | str | None = None) -> Any:
    return CliRunner().invoke(cli.main.app, [str(one) for one in arguments], input=stdin, catch_exceptions=False)


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command reads and compiles the pack anew, which takes a second; here all have the one that was compiled from the same folder."""
    for module in (cli.consent, cli.main):
        monkeypatch.setattr(module, "open_pdp", lambda *_: PDP)


@pytest.fixture
def url(place: Path) -> str:
    return f"sqlite:///{place}/consent.db"


@pytest.fixture
def log_url(place: Path) -> str:
    return f"sqlite:///{place}/log"


@pytest.fixture
def consent(url: str, log_url: str) -> Run:
    """`habilis consent` on a store of its own."""

    def run(*arguments: object, stdin: bytes | str | None = None) -> Any:
        return habilis("consent", *arguments, "--store", url, "--log", log_url, stdin=stdin)

    assert run("init").stdout.startswith("the store is ready, and its log: ")
    return run


@pytest.fixture
def store(consent: Run, url: str) -> Iterator[ConsentStore]:
    with ConsentStore(url, PDP.pack.vocabulary) as opened:
        yield opened


@pytest.fixture
def record(consent: Run) -> Run:
    """The same, the patient's record being open."""
    assert consent("act", "open", PATIENT, "--with", "action.birth_date=1979-03-28").exit_code == 0
    return consent


@pytest.fixture
def file(place: Path) -> Callable[[str, Any], Path]:
    """Writes a file: bytes, text, or JSON of anything else."""

    def write(name: str, data: Any) -> Path:
        path = place / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else json.dumps(data).encode())
        return path

    return write


def told(result: Any) -> Any:
    assert result.stderr == ""
    return json.loads(result.stdout)


def misused(result: Any) -> str:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    return result.stderr


def test_every_command_is_in_the_documentation_and_has_examples():
    page = (ROOT / "docs" / "cli.md").read_text()
    names = [one.name or one.callback.__name__ for one in cli.consent.app.registered_commands]
    assert {"import", "dead-letters", "history"} <= set(names)
    assert [name for name in names if f"habilis consent {name}" not in page] == []
    for one in cli.consent.app.registered_commands:
        assert f"\n  habilis consent {one.name or one.callback.__name__}" in one.epilog


# --- acts, done and refused ------------------------------------------------------------------------------------------


def test_an_act_says_what_it_recorded_and_under_what_it_is_kept(record: Run, store: ConsentStore):
    result = record("block", PATIENT, DOCTOR)
    kept = store.acts(PATIENT)[-1]
    assert result.exit_code == 0
    first, second, third = result.stdout.splitlines()
    assert first.startswith("permit by A01-block (") and second == f"  recorded: kind block, target {{'professional': '{DOCTOR}'}}"
    assert third == f"  the record is now {kept.after}, the act is kept as {kept.act.id}"
    machine = told(record("act", "read_status", PATIENT, "--json"))
    assert (machine["decision"], machine["directives"], machine["act"], machine["token"]) == ("permit", [], "", str(kept.after))


def test_a_refused_act_exits_with_1_writes_no_directive_and_is_kept_with_its_reason(record: Run, store: ConsentStore):
    record("act", "declare_treating_physician", PATIENT, "--target", f"professional:{DOCTOR}", "--with", "action.target.profession=G15_10")
    result = record("block", PATIENT, DOCTOR)
    assert result.exit_code == 1 and result.stdout.startswith("refuse by A02-block") and "  the record is still " in result.stdout
    lines = record("history", PATIENT, "--acts").stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines[::2]] == [
        f"by patient {PATIENT}: permit by A10 (revision 0 -> 2)",
        f"by patient {PATIENT}: permit by A12-declare (revision 2 -> 3)",
        f"by patient {PATIENT}: refuse by A02-block (revision 3)",
    ]
    assert f"  block professional {DOCTOR}  by" in lines[4]
    reason = PDP.pack.reasons["A02-block"]
    assert lines[5] == f"      {reason.words['en']} [{reason.legal_basis}]"
    assert reason.words["fr"] in record("history", PATIENT, "--acts", "--lang", "fr").stdout
    last = told(record("history", PATIENT, "--acts", "--json"))[-1]
    assert (last["number"], last["decision"], last["rule"], last["done"], last["before"]) == (3, "refuse", "A02-block", False, last["after"])
    assert store.read(PATIENT, 4e9)[1].revision == 3


def test_every_masking_is_listed_by_whom_and_when_refused_ones_too(record: Run, file: Any):
    document = file("document.json", REPORT)
    assert record("mask", PATIENT, document).exit_code == 0
    assert record("act", "unmask", PATIENT, "--document", document, "--as", f"professional:{DOCTOR}", "--with", "subject.profession=G15_10").exit_code == 1
    assert record("mask", PATIENT, document, "--as", f"patient:{OTHER}").exit_code == 1
    assert record("act", "unmask", PATIENT, "--document", document).exit_code == 0
    assert record("block", PATIENT, DOCTOR).exit_code == 0
    several = told(record("history", PATIENT, "--kind", "mask", "--acts", "--json"))
    assert [(one["action"]["name"], one["subject"]["id"], one["resource"]["id"], one["decision"]) for one in several] == [
        ("mask", PATIENT, "DOC-1", "permit"), ("unmask", DOCTOR, "DOC-1", "refuse"), ("mask", OTHER, "DOC-1", "refuse"), ("unmask", PATIENT, "DOC-1", "permit"),
    ]  # fmt: skip
    recorded = told(record("history", PATIENT, "--kind", "mask", "--json"))
    assert [(one["kind"], one.get("withdraw", False), one["recorded_by"]) for one in recorded] == [("mask", False, PATIENT), ("mask", True, PATIENT)]
    assert "\n" + " " * 6 in record("history", PATIENT, "--kind", "mask", "--acts").stdout


def test_text_in_a_record_cannot_draw_lines_of_its_own(record: Run, file: Any):
    record("mask", PATIENT, file("document.json", {**REPORT, "id": "DOC\n   9  forged"}), "--with", "context.basis=a\n   8  forged")
    for more in ((), ("--acts",)):
        assert not any(line.startswith(("   9", "   8")) for line in record("history", PATIENT, *more).stdout.splitlines())


# --- bad input: a clear message, nothing written ---------------------------------------------------------------------

BAD_PATIENT = {
    "spaces": ("2 79 03 51 215 189 89", NOT_PATIENT),
    "no key": ("2790351215189", NOT_PATIENT),
    "small letters": ("279032a21518989", NOT_PATIENT),
    "other digits": ("٢79035121518989", NOT_PATIENT),
    "a wrong key": ("279035121518988", NO_PATIENT),
    "another key": ("279035121518998", NO_PATIENT),
    "blank": (" ", NOT_PATIENT),
    "a name": ("Dominique PAT-TROIS", NOT_PATIENT),
    "very long": ("2" * 5000, NOT_PATIENT),
    "hostile": ("x'; DROP TABLE records; --", NOT_PATIENT),
}
LOOKING: tuple[tuple[str, ...], ...] = (("list",), ("history",), ("history", "--acts"), ("preview", f"professional:{DOCTOR}", "-"))


@pytest.mark.parametrize(("patient", "message_"), BAD_PATIENT.values(), ids=BAD_PATIENT)
def test_a_patient_who_is_written_otherwise_is_misuse_everywhere(record: Run, store: ConsentStore, file: Any, patient: str, message_: str):
    document = file("document.json", REPORT)
    acts = [
        ("block", patient, DOCTOR), ("grant", patient, f"professional:{DOCTOR}"), ("mask", patient, document),
        ("act", "close", patient), ("act", "close", patient, "--as", f"patient:{PATIENT}"), ("act", "mask", patient, "--document", document),
    ]  # fmt: skip
    for arguments in acts:
        said = misused(record(*arguments))
        assert said.partition(": ")[2] == message_ + "\n" or said.endswith(("is blank\n", "more than 256\n")), said
        assert patient.strip() not in said or not patient.strip(), "the message names nobody"
    for command, *more in LOOKING:
        assert misused(record(command, patient, *more, stdin=json.dumps([REPORT]))) == f"patient: {message_}\n"
    with store.reading() as connection:
        counts = [connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar() for table in ("records", "directives", "acts")]
    assert counts == [1, 2, 1]


HOSPITAL, DAYS = "750000028", ("--from", "2026-10-10", "--until", "2026-10-20")
MASKINGS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a structure": (["--structure", HOSPITAL], {"target": {"structure": HOSPITAL}}),
    "some days": ([*DAYS], {"target": {"deposited": {"from": "2026-10-10", "until": "2026-10-20"}}}),
    "from a day on": ([*DAYS[:2]], {"target": {"deposited": {"from": "2026-10-10"}}}),
    "a stay": (["--structure", HOSPITAL, *DAYS], {"target": {"deposited": {"from": "2026-10-10", "until": "2026-10-20"}}, "structure": HOSPITAL}),
    "a stay that goes on": (["--structure", HOSPITAL, *DAYS[:2]], {"target": {"deposited": {"from": "2026-10-10"}}, "structure": HOSPITAL}),
}


@pytest.mark.parametrize(("options", "expected"), MASKINGS.values(), ids=MASKINGS)
def test_many_documents_are_masked_and_unmasked_in_the_same_words(record: Run, options: list[str], expected: dict[str, Any]):
    for word in ("mask", "unmask"):
        (made,) = told(record(word, PATIENT, *options, "--json"))["directives"]
        said = {key: value for key, value in made.items() if key not in ("recorded", "recorded_by", "capacity")}
        assert said == {"kind": "mask", **expected} | ({"withdraw": True} if word == "unmask" else {})
    assert [one["action"]["name"] for one in told(record("history", PATIENT, "--acts", "--kind", "mask", "--json"))] == ["mask_documents", "unmask_documents"]


def test_a_stay_that_was_masked_is_in_the_history_with_its_structure(record: Run):
    record("mask", PATIENT, "--structure", HOSPITAL, *DAYS)
    assert f"structure {HOSPITAL}" in record("history", PATIENT, "--kind", "mask").stdout


BAD_ACTS: dict[str, tuple[list[str], str]] = {
    "a mask of nothing": (["mask", PATIENT], "mask one document, FILE, or many, by --structure, --from and --until"),
    "a mask of one and of many": (["unmask", PATIENT, "report.json", *DAYS], "unmask one document, FILE, or many, by --structure, --from and --until"),
    "a stay at a structure with a wrong check digit": (
        ["mask", PATIENT, "--structure", "750000018", *DAYS], "action.structure: is not an identifier of a structure",
    ),
    "a stay at no structure": (["mask", PATIENT, "--structure", "", *DAYS], "action.structure: is not written like an identifier of a structure"),
    "a stay that ends before it begins": (
        ["mask", PATIENT, "--structure", HOSPITAL, "--from", "2026-02-01", "--until", "2026-01-01"],
        "the directive `mask` of `mask_documents`.target.deposited.until: is not after `from`",
    ),
    "a professional with a wrong check digit": (["block", PATIENT, "10000000018"], "action.target.id: is not an identifier of a professional"),
    "a professional who is a patient": (["block", PATIENT, OTHER], "action.target.id: is not written like an identifier of a professional"),
    "a structure with a wrong check digit": (["grant", PATIENT, "structure:750000018"], "action.target.id: is not an identifier of a structure"),
    "a form that nobody knows": (["grant", PATIENT, f"neighbour:{DOCTOR}"], ""),
    "an end before now": (["grant", PATIENT, f"professional:{DOCTOR}", "--until", "2020-01-01"], f"{AUTHORISATION}.until: is not after `from`"),
    "an end that is no day": (["grant", PATIENT, f"professional:{DOCTOR}", "--until", "2026-02-31"], f"{AUTHORISATION}.until: must be a date"),
    "an end without offset": (["grant", PATIENT, f"professional:{DOCTOR}", "--until", "2030-01-01T10:00:00"], f"{AUTHORISATION}.until: must be a date"),
    "an interval that is inverted": (
        ["act", "mask_documents", PATIENT, *(f"--with=action.target.{one}" for one in ("type=deposited", "from=2026-02-01", "until=2026-01-01"))],
        "the directive `mask` of `mask_documents`.target.deposited.until: is not after `from`",
    ),
    "a reason that is misspelt": (
        ["act", "oppose_feeding", PATIENT, "--with=context.reasn=private"], "context.reasn: is read by nothing when `oppose_feeding` is asked for",
    ),
    "a type that is none": (
        ["act", "mask_documents", PATIENT, "--target", "type:NOSUCH"], "the directive `mask` of `mask_documents`.target.type: `NOSUCH` is not a row of",
    ),
    "a birth date to come": (
        ["act", "correct_identity", PATIENT, "--as", "organisation:750000044", "--with=subject.kind=assurance_maladie", "--with=action.birth_date=2999-01-01"],
        "the directive `identity` of `correct_identity`.birth_date: is yet to come",
    ),
    "a birth date of another country": (
        ["act", "correct_identity", PATIENT, "--as", "organisation:750000044", "--with=subject.kind=assurance_maladie", "--with=action.birth_date=28/03/1979"],
        "the directive `identity` of `correct_identity`.birth_date: must be a date",
    ),
    "who asks under another spelling": (
        ["block", PATIENT, DOCTOR, "--as", "professional:1000000002"], "subject.id: is not written like an identifier of a professional",
    ),
    "an action that nobody declares": (["act", "blok", PATIENT], "unknown action `blok`"),
    "half a target": (["act", "block", PATIENT, "--target", "professional"], "`professional` is not TYPE:ID"),
    "an option that is nowhere": (["act", "close", PATIENT, "--with", "record.closed=true"], "`record.closed=true` is not subject.X=VALUE"),
    "too much text": (["act", "close", PATIENT, "--with", "context.note=" + "x" * 17_000], "request: has 17,"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message_"), BAD_ACTS.values(), ids=BAD_ACTS)
def test_a_malformed_act_is_misuse_and_writes_nothing(record: Run, store: ConsentStore, arguments: list[str], message_: str):
    before, acts = store.read(PATIENT, 4e9)[1], len(store.acts(PATIENT))
    result = record(*arguments)
    if message_:
        assert misused(result).startswith(message_) and len(store.acts(PATIENT)) == acts
    else:
        assert result.exit_code in (1, 2)
    assert store.read(PATIENT, 4e9)[1] == before


def test_a_shorter_grant_over_a_longer_one_is_misuse(record: Run, store: ConsentStore):
    record("grant", PATIENT, f"professional:{DOCTOR}", "--until", "2090-12-31")
    assert "overlaps one that is in force and ends later" in misused(record("grant", PATIENT, f"professional:{DOCTOR}", "--until", "2080-12-31"))
    assert store.read(PATIENT, 4e9)[1].revision == 3


def test_a_patient_whom_nobody_knows_has_no_record_and_his_acts_are_refused_and_kept(record: Run, store: ConsentStore):
    assert record("block", OTHER, DOCTOR).stdout.startswith("refuse by R01")
    assert record("list", OTHER).stdout == "let in: nobody\nkept out: nobody\nmasked or hidden: nothing\n"
    assert record("history", OTHER).stdout == "nothing was ever said in this record\n"
    assert record("history", PATIENT, "--kind", "block", "--acts").stdout == "nothing was ever asked for\n"
    assert "block professional" in record("history", OTHER, "--acts").stdout and store.read(OTHER, 4e9)[1].revision == 0


def test_a_document_of_another_patient_is_misuse(record: Run, store: ConsentStore, file: Any):
    document = file("document.json", {**REPORT, "patient": OTHER})
    several = file("documents.json", [{**REPORT, "patient": PATIENT}, {**REPORT, "patient": OTHER}])
    expected = "`{}` is a document of another patient: name the one whose record it is in\n"
    assert misused(record("mask", PATIENT, document)) == expected.format(document)
    assert misused(record("act", "hide_from_patient", PATIENT, "--document", document)) == expected.format(document)
    assert misused(record("preview", PATIENT, f"professional:{DOCTOR}", several)) == expected.format(f"{several}[1]")
    assert store.read(PATIENT, 4e9)[1].revision == 2 and len(store.acts(PATIENT)) == 1


@pytest.mark.parametrize("data", ["[]", "{", '{"type": "11488-4"}', '{"id": 5}', '"DOC-1"', "{" * 50, b"\xff", '{"id": "D", "id": "E"}'])
def test_what_is_no_document_is_misuse(record: Run, data: Any):
    misused(record("mask", PATIENT, "-", stdin=data))
    misused(record("preview", PATIENT, f"professional:{DOCTOR}", "-", stdin=data))


# --- looking ahead -----------------------------------------------------------------------------------------------------


def test_a_preview_shows_what_masking_one_document_or_many_would_change(record: Run, store: ConsentStore, file: Any):
    known = {**REPORT, "structure": "750000028", "status": "Approved", "confidentiality": ["N"], "author": "10000000025"}
    known["deposited"] = "2026-03-05T09:00:00+01:00"
    one, other = file("one.json", known), {**known, "id": "DOC-2", "type": "11488-4", "deposited": "2026-04-05T09:00:00+02:00"}
    known["type"] = "11502-2"
    shown = ("preview", PATIENT, f"professional:{DOCTOR}", file("documents.json", [known, other]), "--with=subject.authentication=DIRECTE")
    shown = (*shown, "--with=subject.profession=G15_10", "--act")
    record("grant", PATIENT, f"professional:{DOCTOR}")
    march = [f"--with=action.target.{said}" for said in ("type=deposited", "from=2026-03-01", "until=2026-03-31")]
    before = store.read(PATIENT, 4e9)[1]

    def then(*arguments: object) -> list[str]:
        return [line.rpartition(" ")[2] for line in record(*shown, *arguments).stdout.splitlines()]

    assert then("mask", "--document", one) == ["R09", "R18"]
    assert then("mask_documents", "--target", "type:11488-4") == ["R18", "R09"]
    assert then("mask_documents", "--with=action.target.type=type", "--with=action.target.id=11488-4") == ["R18", "R09"]
    assert then("mask_documents", *march) == ["R09", "R18"]
    assert then("mask_documents", *march, "--with=action.structure=750000036") == ["R18", "R18"]
    assert then("mask_documents", "--with=action.target.type=everybody") == ["R09", "R09"]
    assert then("declare_treating_physician", "--with=action.target.profession=G15_10") == ["R07", "R07"]
    assert then("block") == ["R05", "R05"] and store.read(PATIENT, 4e9)[1] == before
    record("act", "mask_documents", PATIENT, "--target", "type:11488-4")
    assert then("unmask_documents", "--target", "type:11488-4") == ["R18", "R18"]
    assert then("unmask", "--document", one) == ["R18", "R09"]


THOUGHT = {
    "what nobody reads": (["grant_access", "--with=action.untill=2027-01-01"], "action.untill: is read by nothing when `grant_access` is asked for"),
    "no act": (["read_status"], "action.name: `read_status` is no act on a record"),
    "no document": (["mask"], "`mask` is about a document: give it with --document FILE"),
    "a type that is none": (["mask_documents", "--target", "type:NOSUCH"], "the directive `mask` of `mask_documents`.target.type: `NOSUCH` is not a row"),
    "an end that has passed": (["grant_access", "--with=action.until=2020-01-01"], "the directive `authorisation` of `grant_access`.until: is not after"),
    "a wrong check digit": (["block", "--target", "professional:10000000018"], "action.target.id: is not an identifier of a professional"),
    "too much text": (["refuse_regulation", "--with=action.target.x=" + "y" * 17_000], "request: has 17,"),
    "half a target": (["block", "--target", "professional"], "`professional` is not TYPE:ID"),
}


@pytest.mark.parametrize(("arguments", "message_"), THOUGHT.values(), ids=THOUGHT)
def test_a_preview_of_an_act_that_could_not_be_done_is_misuse(record: Run, file: Any, arguments: list[str], message_: str):
    shown = ("preview", PATIENT, f"professional:{DOCTOR}", file("documents.json", [REPORT]), "--act")
    assert misused(record(*shown, *arguments)).startswith(message_)


def test_a_preview_without_an_act_is_aimed_at_nothing(record: Run, file: Any):
    shown = ("preview", PATIENT, f"professional:{DOCTOR}", file("documents.json", [REPORT]))
    for more in (["--target", "type:11488-4"], ["--document", file("one.json", REPORT)], ["--with=action.until=2027-01-01"]):
        assert misused(record(*shown, *more)) == "nothing is aimed at anything without --act ACTION\n"


# --- who is who ------------------------------------------------------------------------------------------------------


def ask(subject: str, **properties: str) -> dict[str, Any]:
    return {
        "subject": {"type": "professional", "id": subject, "properties": {"authentication": "DIRECTE", **properties}},
        "action": {"name": "read"},
        "resource": {"type": "document", "id": "DOC-1", "properties": {**{k: v for k, v in REPORT.items() if k != "id"}, "patient": PATIENT}},
        "context": {"purpose": "care"},
        "directives": [{"kind": "opened"}, {"kind": "authorisation", "target": {"professional": DOCTOR}}],
        "at": "2026-11-21T10:00:00+01:00",
    }


@pytest.mark.parametrize("command", ["decide", "explain"])
def test_a_block_holds_under_every_identifier_that_the_directory_knows(file: Any, command: str):
    people = file("people.csv", DIRECTORY)
    blocked = {**ask(CARD), "directives": [*ask(CARD)["directives"], {"kind": "block", "target": {"professional": CARD}}]}

    def rule(data: Any, *more: object) -> str:
        answer = told(habilis(command, "--json", *more, file("request.json", data)))
        return answer["rule"] if command == "decide" else answer["reviewer"]["rule"]

    assert rule(ask(CARD), "--directory", people) == rule(ask(DOCTOR, profession="G15_10")) == "R18"
    assert rule(blocked, "--directory", people) == rule({**blocked, "subject": ask(DOCTOR)["subject"]}, "--directory", people) == "R05"


BAD_REQUESTS = {
    "a patient": ({"resource": {**ask(DOCTOR)["resource"], "properties": {"patient": "279035121518988"}}}, f"[1].resource.patient: {NO_PATIENT}"),
    "a professional": (
        {"subject": {"type": "professional", "id": "1"}}, "[1].subject.id: is not written like an identifier of a professional (the RPPS: 11 digits)",
    ),
    "an author": (
        {"resource": {**ask(DOCTOR)["resource"], "properties": {"patient": PATIENT, "author": "Dr No"}}},
        "[1].resource.author: is an identifier of none of: patient, professional, structure (",
    ),
    "a directive": (
        {"directives": [{"kind": "opened"}, {"kind": "block", "target": {"professional": CARD}}]},
        "[1].directives[1].target.professional: is not written like an identifier of a professional (the RPPS: 11 digits)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message_"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
@pytest.mark.parametrize("command", ["decide", "explain"])
def test_an_identifier_that_is_written_otherwise_decides_nothing(file: Any, command: str, change: Any, message_: str):
    assert misused(habilis(command, file("request.json", [ask(DOCTOR), ask(DOCTOR) | change]))).startswith(message_)


def test_a_profession_that_the_directory_does_not_give_is_misuse(record: Run, store: ConsentStore, file: Any):
    people, document = file("people.csv", DIRECTORY), file("document.json", REPORT)
    expected = "is not the profession that the directory gives (leave it out, or have the directory corrected)\n"
    claims = ("--directory", people, "--as", f"professional:{NURSE}", "--with", "subject.profession=G15_10")
    for arguments in (("act", "close", PATIENT, *claims), ("mask", PATIENT, document, *claims), ("block", PATIENT, DOCTOR, *claims)):
        assert misused(record(*arguments)) == f"subject.profession: {expected}"
    target = ("--target", f"professional:{NURSE}", "--with", "action.target.profession=G15_10")
    assert misused(record("act", "declare_treating_physician", PATIENT, *target, "--directory", people)) == f"action.target.profession: {expected}"
    request = file("request.json", ask(NURSE, profession="G15_10"))
    assert misused(habilis("decide", "--directory", people, request)) == f"subject.profession: {expected}"
    shown = ("preview", PATIENT, f"professional:{NURSE}", file("documents.json", [REPORT]), "--with", "subject.profession=G15_10", "--directory", people)
    assert misused(record(*shown)) == f"subject.profession: {expected}"
    assert store.read(PATIENT, 4e9)[1].revision == 2 and len(store.acts(PATIENT)) == 1


def test_an_act_under_another_identifier_is_recorded_under_the_main_one(record: Run, store: ConsentStore, file: Any):
    people = file("people.csv", DIRECTORY)
    assert "is not written like" in misused(record("block", PATIENT, CARD))
    assert record("block", PATIENT, CARD, "--directory", people).exit_code == 0
    assert store.history(PATIENT)[-1].directive["target"] == {"professional": DOCTOR}


def test_what_was_recorded_under_another_identifier_is_shown_and_holds_under_the_main_one(record: Run, store: ConsentStore, file: Any):
    people, documents = file("people.csv", DIRECTORY), file("documents.json", [REPORT])
    store.append(PATIENT, [{"kind": "authorisation", "target": {"professional": CARD}}], time.time())
    for command in (("list", PATIENT), ("history", PATIENT)):
        assert CARD in record(*command).stdout and f" {DOCTOR}" not in record(*command).stdout
        assert CARD not in record(*command, "--directory", people).stdout and DOCTOR in record(*command, "--directory", people).stdout
    preview = ("preview", PATIENT, f"professional:{CARD}", documents, "--with", "subject.authentication=DIRECTE", "--directory", people)
    assert record(*preview).stdout == f"{'DOC-1':<24} now permit by R18\n"
    assert record(*preview, "--act", "block").stdout == f"{'DOC-1':<24} now permit by R18   then refuse by R05\n"


def test_a_directory_with_a_mistake_is_misuse(record: Run, file: Any):
    people = file("people.csv", "identifier,profession\n10000000018,G15_10\n")
    assert "people.csv:2: error[directory-identifier]" in misused(record("list", PATIENT, "--directory", people))
    assert "cannot use" in misused(record("list", PATIENT, "--directory", "nowhere.csv"))


# --- admission messages ----------------------------------------------------------------------------------------------

SENT = "20240306100000+0100"
"""Long ago, whatever the clock of this machine says."""
STRUCTURES = "name,identifier\nCHU-X,750712184\n"


@pytest.fixture
def box(file: Any) -> Path:
    """A folder with the official cases, one a file, and what is no message of it."""
    for number, (_, data) in enumerate(official(), 1):
        path = file(f"box/{number}.er7", data)
    file("box/.hidden", b"not a message")
    (path.parent / "folder").mkdir()
    return path.parent


def test_a_folder_of_messages_is_taken_and_a_second_time_is_replayed(record: Run, store: ConsentStore, file: Any, box: Path):
    structures = file("structures.csv", STRUCTURES)
    result = record("import", box, "--structures", structures)
    assert (result.exit_code, result.stdout.splitlines()) == (0, [
        f"written   {box}/1.er7: ADT^A01 3975 of 750712184: recorded care_team_consent",
        f"written   {box}/2.er7: ADT^A01 3976 of 750712184: recorded withdraws care_team_consent",
        f"written   {box}/3.er7: ADT^A01 3977 of 750712184: recorded feeding_opposition, withdraws care_team_consent",
        f"nothing   {box}/4.er7: ADT^A01 3978 of 750712184: asks for nothing",
        f"nothing   {box}/5.er7: ADT^A01 3979 of 750712184: asks for nothing",
        "3 written, 2 nothing, 0 replayed, 0 dead",
    ])  # fmt: skip
    again = record("import", box, "--structures", structures)
    assert again.exit_code == 0 and again.stdout.endswith("0 written, 0 nothing, 5 replayed, 0 dead\n")
    assert store.read(PATIENT, 4e9)[1].revision == 6 and record("dead-letters").stdout == "there is no such letter\n"
    assert [one["action"]["name"] for one in told(record("history", PATIENT, "--acts", "--json"))][1:] == [
        "consent_care_team", "withdraw_care_team_consent", "oppose_feeding", "withdraw_care_team_consent",
    ]  # fmt: skip


def test_what_is_dead_exits_with_1_is_kept_and_is_taken_when_it_is_mended(record: Run, store: ConsentStore, file: Any, box: Path):
    result = record("import", box, "--json")
    several = told(result)
    assert result.exit_code == 1 and [(one["outcome"], one["place"]) for one in several] == [("dead", "MSH-4")] * 5
    assert record("import", box).stdout.splitlines()[-1] == "0 written, 0 nothing, 0 replayed, 5 dead"
    (first, *_) = told(record("dead-letters", "--json"))
    assert (first["id"], first["times"], first["sender"]) == (several[0]["id"], 2, "ADM of CHU-X")
    line = record("dead-letters").stdout.splitlines()[0]
    assert line.startswith(f"{first['id'][:12]}  open ") and f"2 times  from ADM of CHU-X: {box}/1.er7: MSH-4: is not an identifier of a structure" in line
    assert store.read(PATIENT, 4e9)[1].revision == 2
    retried = record("dead-letters", "--retry", "--structures", file("structures.csv", STRUCTURES))
    assert (retried.exit_code, retried.stdout.splitlines()[-1]) == (0, "3 written, 2 nothing, 0 replayed, 0 dead")
    assert told(record("dead-letters", "--json")) == [] and {one["state"] for one in told(record("dead-letters", "--state", "all", "--json"))} == {"retaken"}


def test_one_dead_letter_is_shown_with_what_it_holds_retried_and_dismissed(record: Run, file: Any):
    sent = message(zfa(f9="OUI"), sent=SENT)
    (letter,) = told(record("import", file("a.er7", sent), "--json"))
    shown = record("dead-letters", letter["id"][:8]).stdout
    assert shown.startswith(f"{letter['id']}\n  open\n  from ADM of CH-NORD, 1 time(s), first ") and "\n    ZFA|||||||||OUI|||\n" in shown
    assert base64.b64decode(told(record("dead-letters", letter["id"], "--json"))["data"]) == sent.encode()
    retried = record("dead-letters", letter["id"], "--retry")
    assert retried.exit_code == 1 and "unknown code `OUI`" in retried.stdout
    for misuse in (("--dismiss", "--because", "x"), (letter["id"], "--dismiss", "--retry"), (letter["id"], "--dismiss"), ("abc",), ("--state", "opn")):
        misused(record("dead-letters", *misuse))
    dismissed = told(record("dead-letters", letter["id"], "--dismiss", "--because", "a trial", "--json"))
    assert (dismissed["state"], dismissed["note"]) == ("dismissed", "a trial")
    assert record("dead-letters").stdout == "there is no such letter\n"


def test_many_messages_of_one_input_are_told_apart(record: Run):
    frames = "".join(f"\x0b{message(zfa(f9=code), control=f'M-{code}', sent=SENT)}\x1c\r" for code in ("IO", "NA", "OUI"))
    result = record("import", "-", stdin=frames.encode())
    assert [line[:12] for line in result.stdout.splitlines()] == ["written   -#", "nothing   -#", "dead      -#", "1 written, 1"]


HOSTILE = {
    "oversize": b"MSH|^~\\&|" + b"x" * 1_000_001,
    "a huge file": b"x" * 10_000_001,
    "a bomb of separators": message(more="ZFA|" + "~" * 900_000).encode(),
    "a bomb of segments": message(more="\r".join(["OBX|1"] * 6000)).encode(),
    "control characters": message(more="OBX|\x1b]0;owned\x07").encode(),
    "nothing": b"",
    "binary": bytes(range(256)) * 50,
    "a name that is a command": message(facility="$(reboot)").encode(),
    "SQL": message(pid3=INS.replace(PATIENT, "x'; DROP TABLE acts; --")).encode(),
    "a cut batch": b"BHS|^~\\&\r" + message().encode(),
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_is_hostile_is_a_dead_letter_and_nothing_is_written(record: Run, store: ConsentStore, file: Any, data: bytes):
    result = record("import", file("a.er7", data))
    assert (result.exit_code, result.stderr) == (1, "") and result.stdout.endswith("0 written, 0 nothing, 0 replayed, 1 dead\n")
    shown = record("dead-letters", told(record("dead-letters", "--json"))[0]["id"])
    assert "\x1b" not in result.stdout + shown.stdout
    assert (store.read(PATIENT, 4e9)[1].revision, len(store.acts(PATIENT))) == (2, 1)


def test_misuse_takes_nothing(record: Run, store: ConsentStore, file: Any):
    good = file("a.er7", message(zfa(f9="IO"), sent=SENT))
    wrong = {
        "name,identifier\nCHU-X,750712185\n": "structures.csv:2: error[structure-identifier]: `750712185` is not an identifier of a structure",
        "name,identifier\nCHU-X,750712184\nCHU-X,750000028\n": "structures.csv:3: error[structure-name]: `CHU-X` stands twice",
        "name\nCHU-X\n": "structures.csv:1: error[column-missing]: the column `identifier` is missing",
        "": "structures.csv: error[sheet-empty]: this sheet is empty",
    }
    for text, expected in wrong.items():
        assert expected in misused(record("import", good, "--structures", file("structures.csv", text)))
    assert misused(record("import", good, "nowhere.er7")) == "there is no file `nowhere.er7`\n"
    misused(record("import"))
    assert store.read(PATIENT, 4e9)[1].revision == 2


def test_without_a_store_nothing_is_taken_and_nothing_is_made(place: Path, file: Any):
    for command in (("import", file("a.er7", message())), ("dead-letters",), ("history", PATIENT, "--acts")):
        assert "there is no consent store at" in misused(habilis("consent", *command, "--store", f"sqlite:///{place}/none.db"))
    assert not (place / "none.db").exists()


def test_the_demonstration_has_a_record_in_a_store_and_every_answer_is_the_expected_one():
    result = habilis("demo")
    assert (result.exit_code, result.stderr) == (0, "")
    _, _, kept = result.stdout.partition("The same record in a consent store")
    assert "  The very next decision:               REFUSE by R05: " in kept and "refuse by A02-block, revision 5 stays" in kept
