"""The vectors of test_vectors/, one test each; and the runner itself: what it makes of a file, what it refuses and where, what it counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.calendar import parse_instant
from engine.consent.directives import parse_directives
from engine.consent.identifiers import check_identifiers
from engine.errors import PackError
from engine.request import Action, Entity
from engine.vectors import Case, Expectation, Packs, VectorError, find_pack, parse_vectors, read_vectors, run, run_case

ROOT = Path(__file__).parent.parent
PACKS = Packs(str(ROOT / "policies"))
CASES = read_vectors([ROOT / "test_vectors"], PACKS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{Path(case.file).stem}:{case.id}")
def test_a_vector_is_answered_as_expected(case: Case):
    result = run_case(PACKS(case.pack, case.settings), case)
    assert result.status == "passed", f"{case.place}: {case.title}: {'; '.join(result.differences) or result.error}"


def test_every_rule_decides_a_vector_and_every_value_of_a_fact_is_seen():
    report = run(CASES, PACKS)
    assert [(one.undecided, one.unseen) for one in report.coverage] == [((), ())]


def test_identifiers_are_written_as_the_pack_says():
    pack = PACKS("policies", {}).pack
    for case in CASES:
        if case.request is not None:
            check_identifiers(pack, case.request, case.place)
        for directive in parse_directives(case.directives, pack.vocabulary, kept=True):
            check_identifiers(pack, directive, case.place)


def test_the_example_of_the_documentation_is_answered_as_it_says_and_its_identifiers_are_well_written():
    first, each = re.findall(r"```yaml\n(.*?)```", (ROOT / "test_vectors" / "README.md").read_text(), re.S)
    cases = cases_of(first + each)
    assert [run_case(PACKS(case.pack, {}), case).status for case in cases] == ["passed"] * 4
    for case in cases:
        check_identifiers(PACKS(case.pack, {}).pack, case.request)


# --- what a file means -----------------------------------------------------------------------------------------------

HEAD = """\
pack: policies
patient: "279035121518989"
defaults: {at: 2026-11-21T10:00:00+01:00, context: {purpose: care}}
subjects:
  doctor: {type: professional, id: 10000000017, profession: G15_10, authentication: DIRECTE}
documents:
  report: {id: DOC-1, type: 11488-4, status: Approved, confidentiality: [N]}
records:
  open: [{kind: opened}]
vectors:
"""
EXPECT = ", expect: {decision: refuse, rule: R19}"
VECTOR = "  - {id: A, title: T, article: B, given: {record: open}, ask: {subject: doctor, action: read, resource: report}" + EXPECT + "}\n"


def cases_of(text: str) -> list[Case]:
    return parse_vectors("v.yaml", text.encode(), PACKS)


def case_of(text: str) -> Case:
    (case,) = cases_of(HEAD + text)
    return case


def test_a_vector_becomes_one_flat_case():
    case = case_of(VECTOR)
    assert case.request is not None
    assert (case.id, case.title, case.article, case.file, case.line) == ("A", "T", "B", "v.yaml", 11)
    assert case.request.subject == Entity("professional", "10000000017", {"profession": "G15_10", "authentication": "DIRECTE"})
    document = {"patient": "279035121518989", "type": "11488-4", "status": "Approved", "confidentiality": ["N"]}
    assert case.request.resource == Entity("document", "DOC-1", document)
    assert (case.request.action, case.request.context) == (Action("read"), {"purpose": "care"})
    assert (case.directives, case.settings, case.at) == (({"kind": "opened"},), {}, parse_instant("2026-11-21T10:00:00+01:00"))
    assert case.expect == Expectation(decision="refuse", rule="R19")


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("N", "N"), ("11488-4", "11488-4"), ("1E5", "1E5"), ("010", "010"), ("2026-11-21", "2026-11-21"), ("yes", "yes"), ("1:30", "1:30"), (".inf", ".inf"),
        ("true", True), ("false", False), ('"true"', "true"), ("'~'", "~"), ('"2026"', "2026"), ("[N, true]", ["N", True]),
    ],
)  # fmt: skip
def test_plain_values_are_text_but_true_and_false(written, means):
    case = case_of(VECTOR.replace("resource: report", f"resource: {{like: report, extra: {written}}}"))
    assert case.request is not None
    assert case.request.resource.properties["extra"] == means


@pytest.mark.parametrize("nothing", ["null", "~", ""])
def test_a_property_changed_to_null_is_taken_away(nothing):
    case = case_of(VECTOR.replace("resource: report", f"resource: {{like: report, status: {nothing}, patient: {nothing}}}"))
    assert case.request is not None
    assert case.request.resource.properties == {"type": "11488-4", "confidentiality": ["N"]}


def variation(text: str, vector: str = VECTOR) -> Case:
    return case_of(vector.replace(EXPECT, f", each: [{{{text}{EXPECT}}}]"))


def test_variations_are_named_by_their_id_or_their_number_and_stand_on_their_own_line():
    text = VECTOR.replace(EXPECT, ", each: [\n{" + EXPECT[2:] + "},\n{id: b" + EXPECT + "}]")
    assert [(case.id, case.line) for case in cases_of(HEAD + text)] == [("A/1", 12), ("A/b", 13)]


def test_a_variation_is_laid_over_the_question_of_its_vector():
    case = variation("ask: {subject: {id: '2'}, resource: {status: Deleted}, context: {access_mode: centre_15, purpose: null}}, at: 2026-12-01T00:00:00Z")
    assert case.request is not None
    assert case.request.subject == Entity("professional", "2", {"profession": "G15_10", "authentication": "DIRECTE"})
    assert case.request.resource.properties["status"] == "Deleted"
    assert (case.request.context, case.at) == ({"access_mode": "centre_15"}, parse_instant("2026-12-01T00:00:00Z"))


def test_directives_of_a_variation_come_after_those_of_its_vector():
    case = variation("given: {and: [{kind: deceased}]}", VECTOR.replace("record: open", "record: open, and: [{kind: closed}]"))
    assert [one["kind"] for one in case.directives] == ["opened", "closed", "deceased"]


def test_another_record_in_a_variation_keeps_what_comes_after_it():
    case = variation("given: {record: [{kind: deceased}]}", VECTOR.replace("record: open", "record: open, and: [{kind: closed}]"))
    assert [one["kind"] for one in case.directives] == ["deceased", "closed"]


def test_the_keys_of_an_action_are_its_properties():
    case = variation("ask: {action: {name: block, target: {type: professional, id: '3'}}}")
    assert case.request is not None
    assert case.request.action == Action("block", {"target": {"type": "professional", "id": "3"}})


@pytest.mark.parametrize(
    ("text", "patient"),
    [
        (VECTOR, "279035121518989"),
        (VECTOR.replace("title: T", "title: T, patient: '1'"), "1"),
        (VECTOR.replace("resource: report", "resource: {like: report, patient: '2'}"), "2"),
        (VECTOR.replace("title: T", "title: T, patient: '1'").replace("resource: report", "resource: {like: report, patient: '2'}"), "2"),
    ],
    ids=["file", "vector", "document", "document first"],
)
def test_whose_record_it_is(text, patient):
    case = case_of(text)
    assert case.request is not None
    assert case.request.resource.properties["patient"] == patient


@pytest.mark.parametrize(
    ("resource", "id"),
    [("", "279035121518989"), (", resource: report", "279035121518989"), (", resource: {id: '3'}", "3")],
    ids=["none", "a document", "written out"],
)
def test_an_act_on_the_record_is_about_the_record_itself(resource, id):
    case = case_of(VECTOR.replace("action: read, resource: report", f"action: block{resource}"))
    assert case.request is not None
    assert case.request.resource == Entity("record", id, {})


def test_a_pack_is_found_from_the_file_upwards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_pack("policies", str(ROOT / "test_vectors" / "x.yaml")) == str(ROOT / "policies")
    assert find_pack("elsewhere", str(ROOT / "test_vectors" / "x.yaml")) == "elsewhere"


# --- what the runner tells -------------------------------------------------------------------------------------------


def differences(expect: str) -> tuple[str, ...]:
    case = case_of(VECTOR.replace("decision: refuse, rule: R19", expect))
    return run_case(PACKS(case.pack, case.settings), case).differences


@pytest.mark.parametrize(
    ("expect", "told"),
    [
        ("decision: refuse, rule: R19, obligations: [collect_consent], discreet: false, inferred: false", ()),
        ("decision: permit, rule: R18", ("expected permit by R18, got refuse by R19",)),
        ("decision: no_rule", ("expected no_rule, got refuse by R19",)),
        ("decision: refuse, rule: R19, obligations: []", ("expected the obligations [], got [collect_consent]",)),
        (
            "decision: refuse, rule: R19, obligations: [collect_consent, flag_access]",
            ("expected the obligations [collect_consent, flag_access], got [collect_consent]",),
        ),
        ("decision: refuse, rule: R19, discreet: true", ("expected discreet, got not discreet",)),
        ("decision: refuse, rule: R19, inferred: true", ("expected inferred, got not inferred",)),
        (
            "decision: refuse, rule: R19, holds_until: 2027-01-01T00:00:00+01:00",
            ("expected a record that holds until 2027-01-01T00:00:00+01:00, got for ever",),
        ),
    ],
)
def test_a_wrong_expectation_fails_and_says_what_was_got(expect, told):
    assert differences(expect) == told


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (VECTOR.replace("record: open", "record: [{kind: opned}]"), "directives[0].kind: `opned` is not a kind of directive (did you mean `opened`?)"),
        (VECTOR.replace("subject: doctor", "subject: {id: '1'}"), "subject.type: is missing"),
        (VECTOR.replace(", resource: report", ""), "resource: is missing"),
        (VECTOR.replace("action: read, ", ""), "action.name: is missing"),
        (
            VECTOR.replace("record: open", "record: open, settings: {inferred_cells: maybe}"),
            "under these settings the pack does not check: `maybe` is not a value of the setting `inferred_cells`",
        ),
    ],
)
def test_what_cannot_be_asked_is_an_error_with_its_reason(text, error):
    report = run([case_of(text)], PACKS, complete=False)
    assert [(one.status, one.error, one.answer) for one in report.results] == [("error", error, None)]
    assert not report.is_fine


def test_settings_of_a_vector_have_the_kind_that_the_pack_declares():
    case = case_of(VECTOR.replace("record: open", "record: open, settings: {majority_age: 20, mask_and_hide_from_patient: true, inferred_cells: follow}"))
    settings = PACKS(case.pack, case.settings).pack.settings
    assert (settings["majority_age"], settings["mask_and_hide_from_patient"], settings["inferred_cells"]) == (20, True, "follow")


def test_a_rule_that_decides_no_vector_fails_a_complete_run_only():
    cases = cases_of(HEAD + VECTOR)
    complete, partial = run(cases, PACKS), run(cases, PACKS, complete=False)
    assert (complete.is_fine, partial.is_fine) == (False, True)
    (coverage,) = complete.coverage
    assert coverage.rules - len(coverage.undecided) == 1
    assert "R19" not in coverage.undecided and "R18" in coverage.undecided and "W99" in coverage.undecided


def test_coverage_counts_values_of_facts_and_cells():
    (coverage,) = run(cases_of(HEAD + VECTOR), PACKS).coverage
    assert ("consent.opened", False) in coverage.unseen and ("consent.opened", True) not in coverage.unseen
    assert coverage.cells == {"read": (1, 2140), "deposit": (0, 2140)}


# --- what cannot be read, and where ----------------------------------------------------------------------------------

REFUSED = {
    "too long": (b" " * 10_000_001, "v.yaml: error[file-size]: this file has 10,000,001 bytes, more than 10,000,000\n  help: split it"),
    "not UTF-8": (b"pack: policies\ntitle: caf\xe9\n", "v.yaml:2:11: error[file-encoding]: this file is not UTF-8\n  help: save it again as UTF-8"),
    "empty": (b"# nothing\n", "v.yaml: error[file-empty]: this file is empty\n  help: write `pack:` and `vectors:`"),
    "unclosed": (
        b"pack: policies\nvectors: [\n  {id: A\n",
        "v.yaml:4:1: error[yaml-syntax]: this is not YAML: expected ',' or '}', but got '<stream end>'",
    ),
    "a control character": (
        b"pack: po\x01licies\n",
        "v.yaml:1:9: error[yaml-syntax]: the character U+0001 cannot stand in YAML\n    1 | pack: po\x01licies\n                ^\n  help: take it out",
    ),
    "a lone surrogate": (
        b'pack: "\\ud800"\n',
        'v.yaml:1:7: error[yaml-syntax]: half of a character (a lone surrogate) stands here\n    1 | pack: "\\ud800"\n              ^^^^^^^^',
    ),
    "a second document": (
        b"pack: policies\n---\npack: other\n",
        "v.yaml:2:1: error[yaml-documents]: a second document starts here\n    2 | ---\n        ^^^\n  help: keep one document in a file",
    ),
    "deep": (
        b"a: " + b"[" * 40,
        "v.yaml:1:35: error[yaml-nesting]: this is nested more than 32 deep\n    1 | a: " + "[" * 40 + "\n" + " " * 42 + "^",
    ),
    "anchor, alias and merge, all at once": (
        b"pack: &p policies\nrecords: {a: *p, <<: {b: c}}\n",
        "v.yaml:1:7: error[yaml-anchor]: the anchor `&p` is not used here\n    1 | pack: &p policies\n              ^^^^^^^^^^^\n  help: leave it out\n"
        "v.yaml:2:14: error[yaml-anchor]: `*p` stands for something written elsewhere\n    2 | records: {a: *p, <<: {b: c}}\n                     ^\n"
        "  help: write it out, or name it under `records`\n"
        "v.yaml:2:18: error[yaml-anchor]: `<<` takes in what is written elsewhere\n    2 | records: {a: *p, <<: {b: c}}\n                         ^^\n"
        "  help: write the keys out",
    ),
    "a tag": (
        b"pack: !!str policies\n",
        "v.yaml:1:7: error[yaml-tag]: the tag `!!str` is not used here\n    1 | pack: !!str policies\n              ^^^^^^^^^^^^^^\n"
        "  help: leave it out: quotes make text",
    ),
    "a capital": (
        b"pack: policies\nx: False\n",
        "v.yaml:2:4: error[yaml-word]: `False` is text here\n    2 | x: False\n           ^^^^^\n  help: write `false`, or quote it",
    ),
    "a key that is a list": (b"pack: policies\n? [a]\n: b\n", "v.yaml:2:3: error[yaml-key]: a key is text that is not empty\n    2 | ? [a]\n          ^"),
    "a repeated key": (
        b"pack: policies\nvectors: []\npack: other\n",
        "v.yaml:3:1: error[key-repeated]: the key `pack` stands twice, first on line 1\n    3 | pack: other\n        ^^^^\n  help: keep one of them",
    ),
}


@pytest.mark.parametrize(("data", "told"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_hides_what_it_says_is_refused_at_its_place(data, told):
    with pytest.raises(VectorError) as caught:
        parse_vectors("v.yaml", data, PACKS)
    assert str(caught.value) == told


def mistakes(text: str) -> list[str]:
    """Place, code, sentence and help of every mistake, on one line each."""
    with pytest.raises(VectorError) as caught:
        cases_of(text)
    return [f"{d.line}:{d.column} {d.code}: {d.message}" + (f" | {d.help}" if d.help else "") for d in caught.value.diagnostics]


def column(text: str, part: str) -> int:
    """Where a part stands on the first line of a text, from 1."""
    return text.split("\n")[0].index(part) + 1


MISTAKES = {
    "a key nearly right": (
        ("article", "artcle"),
        ["{first} key-missing: the key `article` is missing", "{artcle} key-unknown: `artcle` is not a key here | did you mean `article`?"],
    ),
    "a key out of nowhere": (
        ("expect: {", "expect: {colour: red, "),
        ["{colour} key-unknown: `colour` is not a key here | known here: `decision`, `rule`, `obligations`, `discreet`, `inferred`, `holds_until`"],
    ),
    "a title that is a list": (("title: T", "title: [T]"), ["{[T]} value-type: `title` must be text"]),
    "an empty id": (("id: A", "id: ''"), ["{''} value-type: `id` is empty"]),
    "no decision": (("refuse", "refused"), ["{refused} value-type: `decision` must be permit, refuse or no_rule | did you mean `refuse`?"]),
    "discreet is a word": (("rule: R19", "rule: R19, discreet: yes"), ["{yes} value-type: `discreet` must be true or false"]),
    "obligations are a word": (("rule: R19", "rule: R19, obligations: none"), ["{none} value-type: `obligations` must be a list"]),
    "a context that is a word": (("ask: {", "ask: {context: care, "), ["{care,} value-type: `context` must be a table"]),
    "a subject that is a list": (("subject: doctor", "subject: [doctor]"), ["{[doctor]} value-type: `subject` must be a name or a table"]),
    "like is a list": (("resource: report", "resource: {like: [report]}"), ["{{like} value-type: `like` must be a name"]),
    "a record that is a table": (("record: open", "record: {a: b}"), ["{{a: b} value-type: `record` must be the name of a record or a list of directives"]),
    "an instant without an offset": (
        ("title: T", "title: T, at: 2026-11-21T10:00"),
        ["{2026-11-21T} value-type: `at` must be a date and a time with its offset, such as 2026-11-21T10:00:00+01:00"],
    ),
    "a setting that is a list": (("record: open", "settings: {majority_age: [18]}"), ["{[18]} value-type: `majority_age` must be true, false or text"]),
    "unknown subject": (("subject: doctor", "subject: docter"), ["{docter} subject-unknown: unknown subject `docter` | did you mean `doctor`?"]),
    "unknown subject changed": (
        ("subject: doctor", "subject: {like: docter}"),
        ["{docter} subject-unknown: unknown subject `docter` | did you mean `doctor`?"],
    ),
    "unknown document": (("resource: report", "resource: raport"), ["{raport} document-unknown: unknown document `raport` | did you mean `report`?"]),
    "unknown record": (("record: open", "record: opn"), ["{opn} record-unknown: unknown record `opn` | did you mean `open`?"]),
    "unknown setting": (
        ("record: open", "settings: {inferred_cell: follow}"),
        ["{inferred_cell:} setting-unknown: unknown setting `inferred_cell` | did you mean `inferred_cells`?"],
    ),
    "unknown rule": (("rule: R19", "rule: R06-autor"), ["{R06-autor} rule-unknown: unknown rule `R06-autor` | did you mean `R06-author`?"]),
    "unknown obligation": (
        ("rule: R19", "rule: R19, obligations: [colect_consent]"),
        ["{colect_consent} obligation-unknown: unknown obligation `colect_consent` | did you mean `collect_consent`?"],
    ),
    "nothing expected": (
        (EXPECT, ""),
        ["{first} vector-expect: this vector expects nothing | give it `expect`, or `each` with an `expect` in every variation"],
    ),
    "an expectation still empty": (
        (EXPECT, ", expect: "),
        ["{first} vector-expect: this vector expects nothing | give it `expect`, or `each` with an `expect` in every variation"],
    ),
    "both": (
        (EXPECT, EXPECT + ", each: [{" + EXPECT[2:] + "}]"),
        ["{first} vector-expect: this vector has both `expect` and `each` | give it `expect`, or `each` with an `expect` in every variation"],
    ),
    "no variation": ((EXPECT, ", each: []"), ["{[]} value-type: `each` is empty"]),
    "no rule named": ((", rule: R19", ""), ["{{decision} vector-expect: `rule` is missing | name the line of rules.csv that decides"]),
    "a rule when none applies": (("refuse", "no_rule"), ["{{decision} vector-expect: when no rule applies, no `rule` decides"]),
}


@pytest.mark.parametrize(("edit", "told"), MISTAKES.values(), ids=MISTAKES)
def test_every_mistake_of_a_vector_is_told_at_its_place(edit, told):
    text = VECTOR.replace(*edit)
    assert text != VECTOR
    wanted = []
    for one in told:
        place, rest = one[1:].split("} ", 1) if one.startswith("{") else ("", one)
        wanted.append(f"11:{5 if place == 'first' else column(text, place)} {rest}")
    assert mistakes(HEAD + text) == wanted


def test_mistakes_of_a_whole_file_are_told_at_once():
    text = HEAD.replace("[{kind: opened}]", "opened").replace("2026-11-21T10:00:00+01:00", "2026-11-21") + VECTOR.replace("title: T", "title: true")
    assert mistakes(text) == [
        "3:16 value-type: `at` must be a date and a time with its offset, such as 2026-11-21T10:00:00+01:00",
        "9:9 value-type: `open` must be a list",
        "11:20 value-type: `title` must be text",
    ]


def test_a_file_without_vectors_is_refused():
    assert mistakes("pack: policies\n") == ["1:1 key-missing: the key `vectors` is missing"]


def test_two_vectors_of_one_id_are_refused():
    assert mistakes(HEAD + VECTOR + VECTOR) == ["12:5 vector-repeated: the vector `A` stands twice, first on line 11 | give it an id of its own"]


def test_a_vector_without_an_instant_is_refused():
    text = HEAD.replace("at: 2026-11-21T10:00:00+01:00, ", "") + VECTOR
    assert mistakes(text) == ["11:5 key-missing: nothing says at which instant `A` is decided | write `at`, here or under `defaults`"]


NOBODY = HEAD.replace('patient: "279035121518989"\n', "")


@pytest.mark.parametrize(
    "text",
    [VECTOR, VECTOR.replace("action: read, resource: report", "action: block"), VECTOR.replace("resource: report", "resource: {id: '3'}")],
    ids=["a document", "the record", "written out"],
)
def test_a_vector_that_is_about_nobody_s_record_is_refused(text):
    assert mistakes(NOBODY + text) == ["10:5 key-missing: nothing says whose record `A` is about | write `patient`, here or at the top of the file"]


@pytest.mark.parametrize(
    ("text", "patient"),
    [
        (VECTOR.replace("title: T", "title: T, patient: '1'"), "1"),
        (VECTOR.replace("resource: report", "resource: {like: report, patient: '2'}"), "2"),
        (VECTOR.replace("resource: report", "resource: {like: report, patient: null}"), None),
    ],
    ids=["vector", "document", "nobody knows"],
)
def test_a_vector_or_its_document_may_say_whose_record_it_is(text, patient):
    (case,) = cases_of(NOBODY + text)
    assert case.request is not None
    assert case.request.resource.properties.get("patient") == patient


def test_a_pack_that_is_not_there_is_told_at_the_line_that_names_it():
    with pytest.raises(VectorError) as caught:
        parse_vectors("v.yaml", (HEAD.replace("policies", "polices") + VECTOR).encode(), Packs())
    (told,) = caught.value.diagnostics
    assert (told.place, told.message) == ("v.yaml:1:7", "there is no pack `polices`")


def test_a_pack_that_does_not_check_is_the_mistake_of_the_pack(tmp_path):
    (tmp_path / "pack.toml").write_text("[pack]\n")
    with pytest.raises(PackError):
        parse_vectors("v.yaml", (HEAD + VECTOR).encode(), Packs(str(tmp_path)))


def test_mistakes_of_several_files_are_told_together(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &x 1\n")
    (tmp_path / "b.yaml").write_text("b: *x\n")
    with pytest.raises(VectorError) as caught:
        read_vectors([tmp_path], PACKS)
    assert [(Path(d.file).name, d.code) for d in caught.value.diagnostics] == [("a.yaml", "yaml-anchor"), ("b.yaml", "yaml-anchor")]
