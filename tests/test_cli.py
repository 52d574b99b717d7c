"""The command as a person or a script meets it: what it prints, what it exits with, and that nothing hostile gets more than a message."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app, vectors
from engine.pack import load_pack

ROOT = Path(__file__).parent.parent
PACK = str(ROOT / "policies")
REQUEST: dict[str, Any] = {
    "subject": {"type": "professional", "id": "10000000017", "properties": {"profession": "G15_10", "authentication": "DIRECTE"}},
    "action": {"name": "read"},
    "resource": {"type": "document", "id": "DOC-1", "properties": {"type": "11488-4", "status": "Approved", "confidentiality": ["N"]}},
    "context": {"purpose": "care"},
    "directives": [{"kind": "opened"}, {"kind": "authorisation", "target": {"professional": "10000000017"}, "until": "2026-12-31"}],
    "at": "2026-11-21T10:00:00+01:00",
}
PERMIT = """\
permit by R18: professional 10000000017, read, document DOC-1
  An authorisation of the patient, for you or your organisation, is in force. [CSP R1111-46; CSP L1110-4 III]
  owed by the service: notify_first_access (Tell the holder of this professional's first access.)
  the record as it was read holds until 2027-01-01T00:00:00+01:00
"""


def habilis(*arguments: object, stdin: bytes | str | None = None) -> Any:
    """Run the command in this process; anything that escapes it fails the test."""
    return CliRunner().invoke(app, [str(one) for one in arguments], input=stdin, catch_exceptions=False)


def told(result: Any) -> Any:
    """The JSON that a command printed, with nothing on stderr."""
    assert result.stderr == ""
    return json.loads(result.stdout)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("compiled") / "dmp-fr.habilis"
    result = habilis("compile", PACK, "-o", file)
    assert (result.exit_code, result.stderr) == (0, "")
    return file


@pytest.fixture
def decide(compiled, tmp_path):
    """`habilis decide` of some data, as a file."""

    def run(data: Any, *options: str, command: str = "decide") -> Any:
        file = tmp_path / "request.json"
        file.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        return habilis(command, "--pack", compiled, *options, file)

    return run


# --- the command itself ----------------------------------------------------------------------------------------------


def test_the_installed_command_reads_stdin_and_prints_utf8(compiled):
    command = [Path(sys.executable).parent / "habilis", "decide", "--pack", compiled, "--lang", "fr", "-"]
    done = subprocess.run(command, input=json.dumps(REQUEST).encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert "Une autorisation du patient, pour vous ou votre structure, est en cours." in done.stdout.decode()


def test_a_terminal_without_accents_gets_escapes(compiled):
    command = [Path(sys.executable).parent / "habilis", "decide", "--pack", compiled, "--lang", "fr", "-"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run(command, input=json.dumps(REQUEST | {"at": "2026-11-20T10:00:00Z", "directives": []}).encode(), capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"est ferm\xe9" in done.stdout


def test_an_identifier_cannot_steer_the_terminal(decide):
    resource = REQUEST["resource"] | {"id": "\x1b[2J\x9b1A\nrefuse"}
    assert decide(REQUEST | {"resource": resource}).stdout.startswith("permit by R18: professional 10000000017, read, document \\x1b[2J\\x9b1A\\nrefuse\n")
    refused = decide(b'{"\\u001b[2J": 1, "\\u001b[2J": 2}').stderr
    assert refused.endswith("has `\\x1b[2J` twice in one object (keep one: readers disagree on which counts)\n")


def test_json_is_json_whatever_the_terminal(compiled):
    command = [Path(sys.executable).parent / "habilis", "decide", "--json", "--pack", compiled, "-"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run(command, input=json.dumps(REQUEST).encode(), capture_output=True, env=environment, check=True)
    assert json.loads(done.stdout)["reason"]["fr"] == "Une autorisation du patient, pour vous ou votre structure, est en cours."


def test_every_command_is_in_the_documentation_and_has_examples():
    page = (ROOT / "docs" / "cli.md").read_text()
    names = [(one.name or one.callback.__name__, one) for one in app.registered_commands]
    names += [(f"vectors {one.name}", one) for one in vectors.registered_commands]
    assert [name for name, _ in names if f"\n## habilis {name}" not in page and name != "demo"] == []
    for name, one in names:
        assert name == "demo" or f"\n  habilis {name} " in one.epilog
        result = habilis(*name.split(), "--help")
        assert result.exit_code == 0 and f"Usage: habilis {name}" in result.stdout


def test_no_argument_shows_help_and_an_unknown_one_is_misuse():
    assert "Commands:" in habilis().output
    result = habilis("chekc")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "chekc" in result.stderr


def test_the_version_is_printed():
    assert habilis("--version").stdout.startswith("habilis ")


# --- check and compile -----------------------------------------------------------------------------------------------


def test_check_says_what_a_pack_is_and_which_columns_are_shut(compiled):
    result = habilis("check", compiled)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("dmp-fr 1: Dossier Médical Partagé: access rules of the code de la santé publique\n  digest    ")
    assert "\n  grid      read: 2,140 cells, 328 published, 1,812 inferred (85 %)\n" in result.stdout
    assert "\n  columns   matrix.read: 4 of 20 open: MEDECIN, PHARMACIEN, INFIRMIER, OPTICIEN\n" in result.stdout
    assert "\n            no code leads to: COORDINATION, ENCADREMENT_MS\n" in result.stdout
    assert f"\n  proved    {len(load_pack(PACK).invariants)} invariants: blocked-reads-nothing, " in result.stdout


def test_check_follows_the_settings_and_tells_machines(compiled):
    strict, lenient = told(habilis("check", compiled, "--json")), told(habilis("check", PACK, "--json", "--settings", "inferred_cells=follow"))
    shut = [{one["fact"]: one["shut"] for one in each["columns"]}["matrix.read"] for each in (strict, lenient)]
    assert strict["fine"] and lenient["fine"] and strict["meaning"] != lenient["meaning"]
    assert (len(shut[0]), shut[1]) == (16, ["COORDINATION", "ENCADREMENT_MS"])
    assert strict["grids"]["read"] == {"cells": 2140, "published": 328, "inferred": 1812}
    assert "COORDINATION" in shut[0] and lenient["settings"]["inferred_cells"] == "follow"


@pytest.fixture
def broken(tmp_path) -> Path:
    """The French pack with two mistakes in rules.csv."""
    folder = tmp_path / "broken"
    shutil.copytree(PACK, folder)
    rules = folder / "rules.csv"
    rules.write_text(rules.read_text().replace("p, R02, ", "p, R02, profesional, ", 1).replace("profesional, professional", "profesional", 1) + "x\n")
    return folder


def test_check_draws_every_mistake_at_once_and_exits_with_1(broken):
    result = habilis("check", broken)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "error[subject-unknown]: unknown subject type `profesional`\n" in result.stdout
    assert "^^^^^^^^^^^\n  help: did you mean `professional`?\n" in result.stdout
    assert "error[rule-line]: a line starts with `p` or `g`, not `x`: Casbin would drop it\n" in result.stdout
    assert result.stdout.endswith("\n2 mistakes\n")


def test_check_tells_machines_of_mistakes(broken):
    result = habilis("check", broken, "--json")
    assert result.exit_code == 1
    errors = told(result)["errors"]
    assert [one["code"] for one in errors] == ["subject-unknown", "rule-line"]
    assert errors[0] | {"line": 0, "column": 0, "text": ""} == {
        "code": "subject-unknown", "message": "unknown subject type `profesional`", "file": "rules.csv", "line": 0, "column": 0, "length": 11,
        "text": "", "help": "did you mean `professional`?", "severity": "error",
    }  # fmt: skip


def test_a_pack_that_does_not_check_decides_nothing(broken, tmp_path):
    file = tmp_path / "request.json"
    file.write_text(json.dumps(REQUEST))
    result = habilis("decide", "--pack", broken, file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "unknown subject type `profesional`" in result.stderr


def test_compile_gives_the_same_bytes_and_says_what_it_wrote(compiled, tmp_path):
    again = told(habilis("compile", PACK, "-o", tmp_path / "again", "--json"))
    assert (tmp_path / "again").read_bytes() == compiled.read_bytes()
    assert again == {
        "file": str(tmp_path / "again"), "bytes": compiled.stat().st_size, "name": "dmp-fr", "version": 1, "digest": load_pack(PACK).digest,
    }  # fmt: skip


# --- decide and explain ----------------------------------------------------------------------------------------------


def test_decide_prints_the_rule_its_reason_and_what_is_owed(decide):
    result = decide(REQUEST)
    assert (result.exit_code, result.stdout, result.stderr) == (0, PERMIT, "")


def test_decide_tells_machines_everything(decide):
    answer = told(decide(REQUEST, "--json"))
    assert (answer["decision"], answer["rule"], answer["at"]) == ("permit", "R18", "2026-11-21T10:00:00+01:00")
    assert answer["record"] == {"revision": 2, "holds_until": "2027-01-01T00:00:00+01:00"}
    assert [one["id"] for one in answer["obligations"]] == ["notify_first_access"]


def test_a_discreet_refusal_shows_a_reviewer_its_rule_and_what_the_requester_reads(decide):
    masked = json.loads(json.dumps(REQUEST))
    masked["resource"]["properties"]["confidentiality"] = ["MASQUE_PS"]
    lines = decide(masked).stdout.splitlines()
    assert lines[0] == "refuse by R09: professional 10000000017, read, document DOC-1"
    assert lines[2] == "  discreet: the requester reads “No document to show.”"


def test_an_inferred_cell_is_named(decide):
    nurse = json.loads(json.dumps(REQUEST))
    nurse["subject"]["properties"]["profession"] = "G15_60"
    assert "\n  leans on an inferred cell: matrix.read\n" in decide(nurse).stdout


def test_revision_and_instant_choose_the_record(decide):
    assert told(decide(REQUEST | {"revision": 1}, "--json"))["rule"] == "R19"
    assert told(decide(REQUEST | {"revision": 0}, "--json"))["rule"] == "R01"
    assert told(decide(REQUEST | {"at": "2027-01-01T00:00:00+01:00"}, "--json"))["rule"] == "R19"


def test_without_an_instant_it_is_now(decide):
    request = {key: value for key, value in REQUEST.items() if key != "at"}
    assert told(decide(request | {"directives": [{"kind": "opened", "from": "2999-01-01"}]}, "--json"))["rule"] == "R01"
    assert told(decide(request | {"directives": [{"kind": "opened", "until": "2999-01-01"}]}, "--json"))["rule"] == "R19"


def test_an_unknown_action_has_no_rule(decide):
    assert decide(REQUEST | {"action": {"name": "print"}}).stdout.startswith("no rule applies: professional 10000000017, print, document DOC-1\n")


def test_replies_keep_the_form_of_the_requests(decide):
    blocked = REQUEST | {"directives": [{"kind": "opened"}, {"kind": "block", "target": {"professional": "10000000017"}}]}
    several = [REQUEST, blocked]
    evaluations = REQUEST | {"evaluations": [{"directives": one["directives"]} for one in several]}
    lines = b"\n\n".join(json.dumps(one).encode() for one in several) + b"\n"
    as_list, as_lines, as_evaluations = decide(several, "--json"), decide(lines, "--json"), decide(evaluations, "--json")
    assert [one["rule"] for one in told(as_list)] == ["R18", "R05"]
    assert [json.loads(line)["rule"] for line in as_lines.stdout.splitlines()] == ["R18", "R05"]
    assert [one["rule"] for one in told(as_evaluations)["evaluations"]] == ["R18", "R05"]
    assert decide([]).stdout == ""


def test_a_document_reference_is_a_resource(decide):
    system = load_pack(PACK).fhir.author_systems[0]
    document = {
        "resourceType": "DocumentReference", "id": "DOC-1", "status": "current", "content": [{"attachment": {"contentType": "text/plain"}}],
        "type": {"coding": [{"code": "11488-4"}]}, "securityLabel": [{"coding": [{"code": "N"}]}],
        "author": [{"identifier": {"system": system, "value": "10000000017"}}],
    }  # fmt: skip
    assert told(decide(REQUEST | {"resource": document}, "--json"))["rule"] == "R06-author"
    assert told(decide(REQUEST | {"resource": document | {"author": []}}, "--json"))["rule"] == "R18"


def test_explain_shows_facts_cells_and_what_would_turn_it(decide):
    result = decide(REQUEST, command="explain")
    assert result.exit_code == 0
    assert "\npermit by R18\n" in result.stdout and "\n  subject.authentication             DIRECTE" in result.stdout
    assert "\ncell read: 11488-4 (CR ou fiche de consultation ou de visite), MEDECIN: `R` (" in result.stdout
    assert "Une autorisation du patient" in decide(REQUEST, "--lang", "fr", command="explain").stdout


def test_explain_keeps_the_requester_apart_from_the_reviewer(decide):
    gone = json.loads(json.dumps(REQUEST))
    gone["resource"]["properties"]["status"] = "Deleted"
    explained = told(decide(gone, "--json", command="explain"))
    assert explained["requester"] == {"decision": False, "reason": {"fr": "Aucun document à présenter.", "en": "No document to show."}, "obligations": []}
    assert (explained["reviewer"]["rule"], explained["reviewer"]["situation"]["resource.present"]) == ("R04", False)


DEEP = b'{"subject":' * 40 + b"1" + b"}" * 40
HOSTILE = {
    "not JSON": (b"{", "FILE: is not JSON at line 1, column 2: expecting property name enclosed in double quotes"),
    "empty": (b"", "FILE: is not JSON at line 1, column 1: expecting value"),
    "not UTF-8": (b'{"a": "\xff"}', "FILE: is not UTF-8 at byte 7"),
    "too long": (b" " * 10_000_001, "FILE: has more than 10,000,000 bytes (send fewer requests at a time)"),
    "deep": (DEEP, "FILE: is nested more than 32 deep"),
    "very deep": (b"[" * 1_000_000, "FILE: is nested more than 32 deep"),
    "a repeated key": (b'{"subject": 1, "subject": 2}', "FILE: has `subject` twice in one object (keep one: readers disagree on which counts)"),
    "NaN": (b'{"context": NaN}', "FILE: has `NaN`, which is not a JSON number"),
    "a number beyond JSON": (b'{"context": 1e999}', "FILE: has `1e999`, a number that is too large"),
    "a lone surrogate": (b'{"context": "\\ud800"}', "FILE: has half of a character (a lone surrogate)"),
    "a number": (b"5", "request: must be an object"),
    "a list of numbers": (b"[5]", "[0]: must be an object"),
    "no subject": (b"{}", "subject: is missing"),
    "a bundle": (
        b'{"resourceType": "Bundle"}',
        "resourceType: a FHIR `Bundle` is not a request (put the DocumentReference under `resource`, beside `subject` and `action`)",
    ),
    "evaluations that are no list": (b'{"evaluations": 5}', "evaluations: must be a list"),
    "an evaluation that is no object": (b'{"evaluations": [5]}', "evaluations[0]: must be an object"),
    "evaluations that stop early": (
        b'{"evaluations": [], "options": {"evaluations_semantic": "deny_on_first_deny"}}',
        "options.evaluations_semantic: must be `execute_all`: every evaluation is decided",
    ),
    "a line that is not JSON": (
        json.dumps(REQUEST).encode() + b"\n{",
        "FILE, line 2: is not JSON at line 1, column 2: expecting property name enclosed in double quotes",
    ),
    "a line that is no request": (json.dumps(REQUEST).encode() + b"\n{}", "line 2: subject: is missing"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("command", ["decide", "explain"])
def test_what_cannot_be_read_is_misuse_with_a_message(decide, tmp_path, command, data, message):
    result = decide(data, command=command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == message.replace("FILE", str(tmp_path / "request.json")) + "\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": None}, "subject: is missing"),
        ({"subject": []}, "subject: must be an object, not a list"),
        ({"subject": {"type": "professional"}}, "subject.id: is missing"),
        ({"subject": {"type": "professional", "id": 5}}, "subject.id: must be text, not a number"),
        ({"subject": {"type": " ", "id": "1"}}, "subject.type: is blank"),
        ({"action": {"name": True}}, "action.name: must be text, not true or false"),
        ({"resource": {"type": "document", "id": "1", "properties": []}}, "resource.properties: must be an object, not a list"),
        ({"resource": {"resourceType": "Bundle"}}, "resource.resourceType: is `Bundle`, not `DocumentReference` (send its DocumentReferences one by one)"),
        ({"context": "care"}, "context: must be an object, not text"),
        ({"at": "2026-11-21"}, "at: must be a date and a time with its offset (such as 2026-11-21T10:00:00+01:00)"),
        ({"at": 5}, "at: must be a date and a time with its offset (such as 2026-11-21T10:00:00+01:00)"),
        ({"at": "9999-12-31T23:59:59-12:00"}, "at: is beyond the calendar"),
        ({"revision": "1"}, "revision: must be a whole number from 0"),
        ({"revision": True}, "revision: must be a whole number from 0"),
        ({"directives": 5}, "directives: must be a list of directives"),
        ({"directives": [{"kind": "blok"}]}, "directives[0].kind: `blok` is not a kind of directive (did you mean `block`?)"),
    ],
)
def test_what_is_no_request_is_misuse_and_says_where(decide, change, message):
    result = decide([REQUEST, REQUEST | change])
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"[1].{message}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere"], "there is no pack `nowhere`: name the folder that holds pack.toml, or a compiled pack"),
        (["decide", "nowhere", "--pack", "policies"], "cannot use `nowhere`: no such file or directory"),
        (["decide", "docs", "--pack", "policies"], "cannot use `docs`: is a directory"),
        (["decide", "-", "--settings", "x"], "`x` is not a setting: write --settings name=value"),
        (["decide", "-", "--lang", "de"], "unknown language `de`: it is one of fr, en"),
        (
            ["check", "policies", "--settings", "majority=20"],
            "pack.toml: error[setting-unknown]: there is no setting `majority`\n  help: did you mean `majority_age`?",
        ),
        (["compile", "policies", "-o", "/nowhere/x"], "cannot use `/nowhere/x`: no such file or directory"),
        (["matrix", "policies", "--profession", "G15_100"], "unknown profession `G15_100`: did you mean `G15_10`?"),
        (["matrix", "policies", "--column", "MEDECINS"], "unknown column `MEDECINS`: did you mean `MEDECIN`?"),
        (["matrix", "policies", "--type", "11488"], "unknown document type `11488`: did you mean `11488-4`?"),
        (["matrix", "policies", "--action", "write"], "unknown grid `write`: it is one of read, deposit"),
        (["matrix", "policies", "--column", "MEDECIN", "--profession", "G15_10"], "give --profession or --column, not both"),
        (["vectors", "new", "R06-autor"], "unknown rule `R06-autor`: did you mean `R06-author`?"),
        (["vectors", "run", "nowhere"], "cannot use `nowhere`: no such file or directory"),
        (["vectors", "run", "docs"], "there is no vector in `docs`"),
        (["vectors", "run", "test_vectors", "--pack", "nowhere"], "there is no pack `nowhere`: name the folder that holds pack.toml, or a compiled pack"),
        (["vectors", "run", "test_vectors", "--pack", "LICENSE"], "there is no pack `LICENSE`: name the folder that holds pack.toml"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_misuse_says_how_to_mend_it(monkeypatch, arguments, message):
    monkeypatch.chdir(ROOT)
    result = habilis(*arguments, stdin=b"{}")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", message + "\n")


def test_a_file_that_is_no_pack_does_not_check(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"habilis")
    message = f"{file}: error[compiled-unreadable]: this is not a compiled pack of this version\n  help: compile it again with `habilis compile`\n"
    result = habilis("check", file)
    assert (result.exit_code, result.stdout, result.stderr) == (1, message + "1 mistake\n", "")
    result = habilis("decide", "--pack", file, "-", stdin=b"{}")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", message)


def test_settings_of_a_compiled_pack_are_fixed(compiled):
    result = habilis("check", compiled, "--settings", "inferred_cells=follow")
    assert (result.exit_code, result.stderr) == (2, f"the settings of `{compiled}` were fixed when it was compiled: use --settings with `habilis compile`\n")


# --- matrix and diff -------------------------------------------------------------------------------------------------


def test_the_whole_matrix_is_one_line_per_type(compiled):
    lines = habilis("matrix", compiled).stdout.splitlines()
    assert lines[0] == "read (matrix/read.csv): R published, X published, r inferred, x inferred"
    assert (lines[1], lines[20]) == ("   1 MEDECIN", "  20 ENCADREMENT_MS")
    assert lines[22] == "11488-4         R  r  r  R  r  r  r  r  r  r  r  r  r  X  x  x  r  x  R  x  CR ou fiche de consultation ou de visite"
    assert len(lines) == 22 + 107


def test_a_column_is_found_by_its_name_or_by_a_profession():
    by_name, by_profession = habilis("matrix", PACK, "--column", "INFIRMIER"), habilis("matrix", PACK, "--profession", "G15_60")
    assert by_name.stdout == by_profession.stdout
    assert "\n  11488-4               r  inferred   matrix.read false  CR ou fiche de consultation ou de visite\n" in by_name.stdout
    followed = habilis("matrix", PACK, "--column", "INFIRMIER", "--settings", "inferred_cells=follow")
    assert "\n  11488-4               r  inferred   matrix.read true   CR ou fiche de consultation ou de visite\n" in followed.stdout


def test_a_row_and_a_cell_say_where_they_come_from():
    row = habilis("matrix", PACK, "--type", "11488-4").stdout.splitlines()
    assert row[1] == "type 11488-4 CR ou fiche de consultation ou de visite" and len(row) == 22
    cell = told(habilis("matrix", PACK, "--type", "11488-4", "--column", "MEDECIN", "--json"))["cells"]
    assert cell == [
        {
            "type": "11488-4", "column": "MEDECIN", "letter": "R", "basis": "published",
            "provenance": {"basis": "sourced_complement", "confidence": "medium-high", "sources": "S1 S2"},
            "gives": {"matrix.read": True, "matrix.treating": True},
        }
    ]  # fmt: skip


def test_a_profession_without_a_column_says_so():
    assert habilis("matrix", PACK, "--profession", "G15_35").stdout.splitlines()[1] == "`G15_35` has no column: whatever the type, matrix.read false"


def test_the_deposit_grid_shows_empty_cells():
    lines = habilis("matrix", PACK, "--action", "deposit", "--type", "11488-4").stdout.splitlines()
    assert lines[0] == "deposit (matrix/deposit.csv): (empty) published, W published, w published"
    assert "  MEDECIN               W  published  matrix.deposit any" in lines


def test_packs_that_decide_alike_have_an_empty_diff(compiled):
    result = habilis("diff", compiled, compiled)
    assert (result.exit_code, result.stdout) == (0, "The two packs decide everything alike.\n")


def test_a_diff_exits_with_1_and_says_what_opens(compiled):
    result = habilis("diff", compiled, PACK, "--settings-after", "inferred_cells=follow", "--json")
    assert result.exit_code == 1
    assert told(result)["opens"] is True
    assert told(result)["settings"] == {"inferred_cells": {"before": "refuse", "after": "follow"}}


# --- vectors ---------------------------------------------------------------------------------------------------------

VECTORS = """\
pack: policies
defaults: {{at: 2026-11-21T10:00:00+01:00, context: {{purpose: care}}}}
subjects:
  doctor: {{type: professional, id: 10000000017, profession: G15_10, authentication: DIRECTE}}
documents:
  report: {{id: DOC-1, patient: 279035121518989, type: 11488-4, status: Approved, confidentiality: [N]}}
vectors:
  - id: R19
    title: Without consent <nothing> & nobody
    article: "\\x01 arrêté"
    given: {{record: [{{kind: opened}}]}}
    ask: {{subject: doctor, action: read, resource: report}}
    each:
      - {{id: here, expect: {{decision: refuse, rule: R19}}}}
      - {{id: there, expect: {{decision: {decision}, rule: {rule}}}}}
      - {{id: broken, ask: {{subject: {{id: null}}}}, expect: {{decision: {last}}}}}
"""


@pytest.fixture
def vector_file(tmp_path) -> Path:
    file = tmp_path / "some.yaml"
    file.write_text(VECTORS.format(decision="permit", rule="R18", last="no_rule"))
    return file


def test_vectors_that_fail_are_told_with_their_place(vector_file):
    result = habilis("vectors", "run", vector_file, "--pack", PACK)
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        f"{vector_file}:15: failed R19/there: Without consent <nothing> & nobody",
        "  expected permit by R18, got refuse by R19",
        f"{vector_file}:16: error R19/broken: Without consent <nothing> & nobody",
        "  subject.id: is missing",
        "policies: what the vectors cover",
        *result.stdout.splitlines()[5:9],
        "3 vectors: 1 passed, 1 failed, 1 error",
    ]
    assert result.stdout.splitlines()[5].startswith("  rules   1 of ")


def test_vectors_that_pass_exit_with_0_but_a_folder_must_cover_every_rule(vector_file):
    vector_file.write_text(VECTORS.format(decision="refuse", rule="R19", last="no_rule").replace("      - {id: broken", "      # - {id: broken"))
    assert habilis("vectors", "run", vector_file, "--pack", PACK).exit_code == 0
    folder = habilis("vectors", "run", vector_file.parent, "--pack", PACK)
    assert folder.exit_code == 1
    assert "\n  no vector is decided by: R01, " in folder.stdout.replace("H00, ", "")
    assert "\n2 vectors: 2 passed, 0 failed, 0 error\n" in folder.stdout


def test_a_report_for_machines_and_for_continuous_integration(vector_file, tmp_path):
    junit = tmp_path / "junit.xml"
    result = habilis("vectors", "run", vector_file, "--pack", PACK, "--json", "--junit", junit)
    report = told(result)
    assert (result.exit_code, report["fine"], report["vectors"], report["passed"], report["failed"], report["error"]) == (1, False, 3, 1, 1, 1)
    assert report["failures"][0] == {
        "id": "R19/there", "file": str(vector_file), "line": 15, "status": "failed", "differences": ["expected permit by R18, got refuse by R19"], "error": "",
    }  # fmt: skip
    suite, coverage = ElementTree.parse(junit).getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("3", "1", "1")
    assert [one.attrib["name"] for one in suite] == ["R19/here", "R19/there", "R19/broken"]
    assert suite[1][0].attrib == {"message": "expected permit by R18, got refuse by R19"} and suite[2][0].tag == "error"
    assert coverage.attrib["failures"] == "0"


def test_vectors_that_cannot_be_read_are_a_finding(vector_file):
    vector_file.write_text("pack: policies\nvectors: [{id: A, titel: x}]\n")
    result = habilis("vectors", "run", vector_file)
    assert (result.exit_code, result.stderr) == (1, "")
    assert f"{vector_file}:2:19: error[key-unknown]: `titel` is not a key here\n" in result.stdout
    assert [one["code"] for one in told(habilis("vectors", "run", vector_file, "--json"))["errors"]] == ["key-missing"] * 3 + ["key-unknown"]


STUB = """\
  - id: R05-
    title: "The patient has blocked your access to the record, in every access mode."
    article: "ANS PDSm DMP TD0.2; CSP L1111-19"
    given: {record: []}
    ask: {subject: {type: professional, id: ""}, action: read, resource: {id: "", type: "", status: "", confidentiality: []}}
    expect:    # by hand, from the policy: {decision: , rule: , obligations: [], discreet: }
"""


def test_a_new_vector_expects_nothing_yet(tmp_path):
    assert habilis("vectors", "new", "R05", "--pack", PACK).stdout == STUB
    file = tmp_path / "new.yaml"
    file.write_text("pack: policies\nvectors:\n" + STUB)
    result = habilis("vectors", "run", file, "--pack", PACK)
    assert result.exit_code == 1
    assert ":3:5: error[vector-expect]: this vector expects nothing\n" in result.stdout


def test_every_rule_and_default_has_a_stub():
    pack = load_pack(PACK)
    for rule in [pack.rules[0].id, pack.rules[-1].id, *(rule for _, rule in pack.defaults)]:
        assert told(habilis("vectors", "new", rule, "--pack", PACK, "--json"))["vector"].startswith(f"  - id: {rule}-\n")
