"""Every mistake an author can make in a pack, and the whole text that he reads.

One small pack that uses everything; each case breaks one thing in it. A mistake is told once, where it was made: what only follows from it is not told.
"""

from __future__ import annotations

import ast
import csv
import io
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import PackError
from engine.pack import Pack, load_pack, parse_pack
from engine.pdp import Pdp, compile_pack
from engine.request import Action, Entity, Request

PACK = {
    "pack.toml": """\
[pack]
name = "clinic"
version = 1
time_zone = "Europe/Paris"
languages = ["en"]

[default]
showing = "otherwise"

[discreet]
en = "Nothing to show."

[setting.inferred_cells]
value = "refuse"
choices = ["refuse", "follow"]

[setting.delay]
value = 14
unit = "days"

[setting.night]
value = false

[obligation.tell]
to = "service"
actions = ["read"]
properties = { who = "@subject.id" }
en = "Tell the patient."

[obligation.banner]
to = "requester"
en = "Show a banner."
""",
    "vocabulary.toml": """\
subjects = ["nurse", "patient"]

[actions]
document = ["read", "list", "send"]
record = ["close"]

[alias.patient]
document = "resource.patient"
record = "resource.id"

[kind.block]
targets = ["professional"]
[kind.membership]
targets = ["professional"]
properties = ["team"]
group = "team"
[kind.consent]
targets = ["team", "everybody"]
properties = ["given"]
ends = ["block"]
[kind.identity]
targets = ["everybody"]
properties = ["birth_date"]

[grid.read]
file = "matrix/read.csv"
provenance = "matrix/provenance.csv"
letters = { R = "published", X = "published", r = "inferred" }

[list.professions]
file = "matrix/professions.csv"

[condition]
urgent = "r.context.urgent"

[impossible]
blocked_patient = "r.subject.is_patient && r.consent.blocked"

[fact.subject.is_patient]
about = "The one who asks is the patient."
form = "same"
of = ["subject.id", "patient"]
absent = false

[fact.subject.nursing]
about = "A nursing profession."
form = "coded"
of = "subject.profession"
list = "professions"
column = "family"
in = ["nursing"]
absent = false

[fact.subject.family]
about = "The family of the profession."
form = "coded"
of = "subject.profession"
list = "professions"
column = "family"
values = ["nursing", "medical", "other"]
absent = "other"

[fact.subject.role]
about = "The role."
form = "given"
of = "subject.role"
values = ["none", "duty"]
absent = "none"

[fact.context.urgent]
about = "It is urgent."
form = "given"
of = "context.urgent"
absent = false

[fact.context.night]
about = "Setting: the night rules are on."
form = "given"
of = "setting.night"
absent = false

[fact.resource.secret]
about = "A secret document."
form = "member"
of = "resource.labels"
in = ["SECRET"]
absent = true

[fact.resource.old]
about = "Deposited long ago."
form = "elapsed"
since = "resource.deposited"
at_least = { days = "delay" }
absent = false

[fact.consent.of_age]
about = "The patient is of age."
form = "elapsed"
since = "record.identity.birth_date"
at_least = { years = 18 }
absent = true

[fact.consent.blocked]
about = "The patient blocked the one who asks."
form = "held"
kind = "block"
of = { professional = "subject.id" }
absent = true

[fact.consent.team]
about = "The patient consented to a team of the one who asks."
form = "held"
kind = "consent"
of = { professional = "subject.id" }
via = "membership"
with = { given = "in_person" }
absent = false

[fact.matrix.read]
about = "The matrix lets this profession read this type."
form = "cell"
grid = "read"
row = "resource.type"
column = { of = "subject.profession", list = "professions", column = "column" }
letters = { R = true, X = false, r = { condition = "urgent" } }
absent = false

[fact.matrix.follow]
about = "The nurses' cell, inferred ones by the setting."
form = "cell"
grid = "read"
row = "resource.type"
column_is = "NURSE"
letters = { R = true, X = false, r = { setting = "inferred_cells", is = "follow" } }
absent = false
""",
    "model.conf": """\
[request_definition]
r = subject, action, resource, context, consent, matrix

[policy_definition]
p = rule, subject, action, when, eft

[role_definition]
g = _, _

[policy_effect]
e = priority(p.eft) || deny

[matchers]
m = (p.subject == '*' || r.subject.type == p.subject) && (p.action == '*' || g(r.action.name, p.action)) && eval(p.when)
""",
    "rules.csv": """\
# The first line that holds decides.
g, read, reading
g, list, reading
g, reading, showing
p, blocked, nurse, *, r.consent.blocked, deny
p, own, patient, showing, r.subject.is_patient, allow
p, urgent, nurse, reading, r.context.urgent && r.matrix.read, allow
p, duty, nurse, reading, r.subject.role == 'duty' && (r.consent.team || r.matrix.follow), allow
""",
    "reasons.csv": """\
rule,legal_basis,discreet,obligations,en
blocked,article 1,yes,tell,You are blocked.
own,article 2,no,,Yours.
urgent,article 3,no,tell banner,"Urgent, and allowed."
duty,article 4,no,,On duty.
otherwise,default,no,,Not allowed.
""",
    "invariants.csv": """\
id,form,subject,action,fact,condition
blocked-reads-nothing,never_permit,nurse,reading,,r.consent.blocked
team-only-adds,monotone,nurse,reading,r.consent.team,
""",
    "matrix/read.csv": """\
type_code,label,NURSE,DOCTOR
T1,Report,R,R
T2,Letter,X,r
""",
    "matrix/professions.csv": """\
code,label,family,column
P1,Nurse,nursing,NURSE
P2,Doctor,medical,DOCTOR
""",
    "matrix/provenance.csv": """\
type_code,column,basis,sources
T1,NURSE,stated,S1
T1,DOCTOR,stated,S1
T2,NURSE,stated,S1
T2,DOCTOR,inferred,S2
""",
}



def files_with(*changes: tuple[str, str | bytes | None, str | bytes | None]) -> dict[str, bytes]:
    """The files of the pack with changes: (file, what, by what). No `what`: the whole file; no `by what`: there is no such file."""
    made = {name: text.encode() for name, text in PACK.items()}
    for file, old, new in changes:
        if new is None:
            del made[file]
        elif old is None:
            made[file] = _bytes(new)
        else:
            assert made[file].count(_bytes(old)) == 1, f"{file} should have {old!r} once"
            made[file] = made[file].replace(_bytes(old), _bytes(new))
    return made


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def mistakes(files: Mapping[str, bytes], **settings: Any) -> str:
    """What the author of these files reads."""
    with pytest.raises(PackError) as caught:
        parse_pack(files, settings)
    assert str(caught.value) == "\n".join(one.render() for one in caught.value.diagnostics)
    return str(caught.value)


def case(name: str, file: str, old: str | bytes | None, new: str | bytes | None, told: str) -> Any:
    return pytest.param(file, old, new, textwrap.dedent(told).strip("\n"), id=name)


CASES = [
    # files
    case(
        "a-file-is-missing",
        "reasons.csv", None, None,
        """
        reasons.csv: error[file-missing]: the file `reasons.csv` is missing
          help: a pack has pack.toml, vocabulary.toml, model.conf, rules.csv, reasons.csv
        """,
    ),
    case(
        "the-rules-are-missing",
        "rules.csv", None, None,
        """
        rules.csv: error[file-missing]: the file `rules.csv` is missing
          help: a pack has pack.toml, vocabulary.toml, model.conf, rules.csv, reasons.csv
        """,
    ),
    case(
        "a-sheet-that-the-vocabulary-names-is-missing",
        "matrix/read.csv", None, None,
        """
        matrix/read.csv: error[file-missing]: the file `matrix/read.csv` is missing
          help: vocabulary.toml names it
        """,
    ),
    case(
        "a-file-is-not-utf-8",
        "reasons.csv", "On duty.", b"De garde \xe0 midi.",
        """
        reasons.csv:5: error[file-encoding]: this file is not UTF-8
          help: save it again as “Unicode (UTF-8)”
        """,
    ),
    case(
        "the-rules-are-not-utf-8",
        "rules.csv", "# The", b"# R\xe8gle: the",
        """
        rules.csv:1: error[file-encoding]: this file is not UTF-8
          help: save it again as “Unicode (UTF-8)”
        """,
    ),
    case(
        "a-toml-file-is-not-utf-8",
        "pack.toml", '"clinic"', b'"clini\xe7"',
        """
        pack.toml:2: error[file-encoding]: this file is not UTF-8
          help: save it again as “Unicode (UTF-8)”
        """,
    ),
    # TOML
    case(
        "a-value-without-quotes",
        "pack.toml", '"clinic"', "clinic",
        """
        pack.toml:2:8: error[toml-syntax]: invalid value
            2 | name = clinic
                       ^
          help: text stands in double quotes
        """,
    ),
    case(
        "a-toml-array-without-end",
        "vocabulary.toml", None, 'subjects = ["nurse"',
        """
        vocabulary.toml:1: error[toml-syntax]: unclosed array
            1 | subjects = ["nurse"
        """,
    ),
    case(
        "a-toml-key-twice",
        "pack.toml", "version = 1\n", "version = 1\nversion = 2\n",
        """
        pack.toml:4:12: error[toml-syntax]: cannot overwrite a value
            4 | version = 2
                           ^
        """,
    ),
    case(
        "an-unknown-key",
        "vocabulary.toml", 'absent = "none"', 'absent = "none"\nchangable = true',
        """
        vocabulary.toml:69: error[key-unknown]: `changable` is not a key here
           69 | changable = true
          help: did you mean `changeable`?
        """,
    ),
    case(
        "a-key-is-missing",
        "vocabulary.toml", 'about = "It is urgent."\n', "",
        """
        vocabulary.toml:70: error[key-missing]: the key `about` is missing
           70 | [fact.context.urgent]
          help: add it to `fact.context.urgent`
        """,
    ),
    case(
        "a-fact-without-form",
        "vocabulary.toml", 'form = "same"\n', "",
        """
        vocabulary.toml:39: error[key-missing]: the key `form` is missing
           39 | [fact.subject.is_patient]
          help: add it to `fact.subject.is_patient`
        """,
    ),
    case(
        "an-unknown-form",
        "vocabulary.toml", 'form = "same"', 'form = "sane"',
        """
        vocabulary.toml:41: error[value-type]: `sane` is not a form of fact
           41 | form = "sane"
          help: did you mean `same`?
        """,
    ),
    case(
        "a-number-for-a-text",
        "pack.toml", 'time_zone = "Europe/Paris"', "time_zone = 1",
        """
        pack.toml:4: error[value-type]: `pack.time_zone` must be text
            4 | time_zone = 1
        """,
    ),
    case(
        "a-number-for-a-fact",
        "vocabulary.toml", 'absent = "none"', "absent = 0",
        """
        vocabulary.toml:68: error[value-type]: `fact.subject.role.absent` must be true or false, or text
           68 | absent = 0
        """,
    ),
    case(
        "a-text-for-a-table",
        "vocabulary.toml", 'letters = { R = "published", X = "published", r = "inferred" }', 'letters = "RXr"',
        """
        vocabulary.toml:28: error[value-type]: `grid.read.letters` must be a table
           28 | letters = "RXr"
        """,
    ),
    case(
        "an-unknown-basis",
        "vocabulary.toml", 'r = "inferred" }', 'r = "guessed" }',
        """
        vocabulary.toml:28: error[value-type]: `grid.read.letters.r` must be one of `published`, `inferred`, `derived`
           28 | letters = { R = "published", X = "published", r = "guessed" }
        """,
    ),
    case(
        "a-version-below-one",
        "pack.toml", "version = 1", "version = 0",
        """
        pack.toml:3: error[value-type]: `pack.version` must be 1 or more
            3 | version = 0
        """,
    ),
    case(
        "a-name-with-a-space",
        "pack.toml", '"clinic"', '"The clinic"',
        """
        pack.toml:2: error[value-type]: `pack.name` must be a name of small letters, digits, `.`, `_` and `-`
            2 | name = "The clinic"
        """,
    ),
    case(
        "no-subject",
        "vocabulary.toml", 'subjects = ["nurse", "patient"]', "subjects = []",
        """
        vocabulary.toml:1: error[value-type]: `subjects` must be a list of at least 1
            1 | subjects = []
        """,
    ),
    case(
        "one-thing-is-the-same",
        "vocabulary.toml", 'of = ["subject.id", "patient"]', 'of = ["subject.id"]',
        """
        vocabulary.toml:42: error[value-type]: `fact.subject.is_patient.of` must be a list of at least 2
           42 | of = ["subject.id"]
        """,
    ),
    case(
        "two-units",
        "vocabulary.toml", '{ days = "delay" }', "{ days = 1, years = 1 }",
        """
        vocabulary.toml:93: error[value-type]: `fact.resource.old.at_least` must be a table of at most 1
           93 | at_least = { days = 1, years = 1 }
        """,
    ),
    case(
        "an-unknown-unit",
        "vocabulary.toml", '{ days = "delay" }', "{ weeks = 2 }",
        """
        vocabulary.toml:93: error[value-type]: `fact.resource.old.at_least.weeks` must be one of `days`, `months`, `years`
           93 | at_least = { weeks = 2 }
        """,
    ),
    case(
        "a-fact-about-nothing",
        "vocabulary.toml", '"It is urgent."', '""',
        """
        vocabulary.toml:71: error[value-type]: `fact.context.urgent.about` must be text that is not empty
           71 | about = ""
        """,
    ),
    case(
        "a-letter-with-an-unknown-key",
        "vocabulary.toml", '{ setting = "inferred_cells", is = "follow" }', '{ setting = "inferred_cells", equals = "follow" }',
        """
        vocabulary.toml:134: error[key-missing]: the key `is` is missing
          134 | letters = { R = true, X = false, r = { setting = "inferred_cells", equals = "follow" } }
          help: add it to `fact.matrix.follow.letters.r`
        vocabulary.toml:134: error[key-unknown]: `equals` is not a key here
          134 | letters = { R = true, X = false, r = { setting = "inferred_cells", equals = "follow" } }
        """,
    ),
    case(
        "an-effective-date-that-is-none",
        "pack.toml", "version = 1", 'version = 1\neffective_from = "soon"',
        """
        pack.toml:4: error[value-type]: `pack.effective_from` must be a date
            4 | effective_from = "soon"
        """,
    ),
    # pack.toml
    case(
        "an-unknown-time-zone",
        "pack.toml", "Europe/Paris", "Europe/Pari",
        """
        pack.toml:4: error[time-zone]: `Europe/Pari` is not a time zone
            4 | time_zone = "Europe/Pari"
          help: did you mean `Europe/Paris`?
        """,
    ),
    case(
        "a-setting-outside-its-choices",
        "pack.toml", 'value = "refuse"', 'value = "ignore"',
        """
        pack.toml:14: error[setting-value]: `ignore` is not a value of the setting `inferred_cells`
           14 | value = "ignore"
          help: choose one of `refuse`, `follow`
        """,
    ),
    case(
        "a-negative-delay",
        "pack.toml", "value = 14", "value = -1",
        """
        pack.toml:18: error[setting-value]: the setting `delay` is a number of days
           18 | value = -1
          help: write a whole number from 0
        """,
    ),
    case(
        "an-obligation-of-an-unknown-action",
        "pack.toml", 'actions = ["read"]', 'actions = ["raed"]',
        """
        pack.toml:26: error[action-unknown]: unknown action `raed`
           26 | actions = ["raed"]
          help: did you mean `read`?
        """,
    ),
    case(
        "an-obligation-that-reads-no-request",
        "pack.toml", "@subject.id", "@subjet.id",
        """
        pack.toml:27: error[path-unknown]: `subjet.id` is not part of a request
           27 | properties = { who = "@subjet.id" }
          help: did you mean `subject`?
        """,
    ),
    case(
        "an-obligation-without-words",
        "pack.toml", 'en = "Show a banner."', "",
        """
        pack.toml:30: error[obligation-words]: the words of the obligation `banner` in `en` are missing
           30 | [obligation.banner]
          help: say what is to be done
        """,
    ),
    case(
        "an-obligation-in-another-language",
        "pack.toml", 'en = "Show a banner."', 'en = "Show a banner."\nde = "Ein Banner zeigen."',
        """
        pack.toml:33: error[key-unknown]: `de` is not a key here
           33 | de = "Ein Banner zeigen."
          help: its words are in the languages of the pack: `en`
        """,
    ),
    case(
        "an-obligation-with-a-key-misspelt",
        "pack.toml", 'actions = ["read"]', 'action = ["read"]',
        """
        pack.toml:26: error[value-type]: `obligation.tell.action` must be text
           26 | action = ["read"]
        """,
    ),
    case(
        "an-obligation-with-an-empty-key",
        "pack.toml", 'en = "Show a banner."', 'en = "Show a banner."\nproprties = ""',
        """
        pack.toml:33: error[key-unknown]: `proprties` is not a key here
           33 | proprties = ""
          help: did you mean `properties`?
        """,
    ),
    case(
        "a-default-of-an-unknown-group",
        "pack.toml", 'showing = "otherwise"', 'shoving = "otherwise"',
        """
        pack.toml:8: error[action-unknown]: unknown action or group `shoving`
            8 | shoving = "otherwise"
          help: did you mean `showing`?
        """,
    ),
    case(
        "a-default-that-permits",
        "pack.toml", 'showing = "otherwise"', 'showing = "own"',
        """
        pack.toml:8: error[default-permit]: the default of `showing` is the rule `own`, which permits
            8 | showing = "own"
          help: a default refuses: give it an id of its own
        reasons.csv:6: error[reason-without-rule]: there is no rule `otherwise`
          help: remove this row, or write the rule
        """,
    ),
    case(
        "no-words-for-a-discreet-refusal",
        "pack.toml", 'en = "Nothing to show."', 'fr = "Rien."',
        """
        pack.toml:10: error[discreet-words]: the discreet text in `en` is missing
           10 | [discreet]
          help: add it under [discreet]
        """,
    ),
    # model.conf
    case(
        "another-model",
        "model.conf", "priority(p.eft) || deny", "!some(where (p.eft == deny))",
        """
        model.conf: error[model-changed]: this is not the model that a pack has: another effect or matcher would mean something else
          help: restore it:
            [request_definition]
            r = subject, action, resource, context, consent, matrix
            [policy_definition]
            p = rule, subject, action, when, eft
            [role_definition]
            g = _, _
            [policy_effect]
            e = priority(p.eft) || deny
            [matchers]
            m = (p.subject == '*' || r.subject.type == p.subject) && (p.action == '*' || g(r.action.name, p.action)) && eval(p.when)
        """,
    ),
    case(
        "a-byte-order-mark-before-the-model",
        "model.conf", "[request", "\ufeff[request",
        """
        model.conf:1: error[casbin-bom]: this file starts with a byte-order mark
          help: save it as UTF-8 without one
        """,
    ),
    # rules.csv: lines
    case(
        "a-byte-order-mark-before-the-rules",
        "rules.csv", "# The", "\ufeff# The",
        """
        rules.csv:1: error[casbin-bom]: this file starts with a byte-order mark: Casbin would drop its first line
          help: save it as UTF-8 without one
        """,
    ),
    case(
        "no-rule",
        "rules.csv", None, "g, read, reading\ng, list, reading\ng, reading, showing\n",
        """
        rules.csv: error[rules-empty]: this file has no rule
          help: an empty policy decides nothing; write at least one `p` line
        """,
    ),
    case(
        "an-unknown-first-column",
        "rules.csv", "p, own,", "P, own,",
        """
        rules.csv:6:1: error[rule-line]: a line starts with `p` or `g`, not `P`: Casbin would drop it
            6 | P, own, patient, showing, r.subject.is_patient, allow
                ^
          help: write `p` before a rule, `g` before a group
        """,
    ),
    case(
        "a-rule-with-a-part-too-many",
        "rules.csv", "nurse, *, r", "nurse, *, , r",
        """
        rules.csv:5: error[rule-parts]: this line has 7 parts, one of them empty
            5 | p, blocked, nurse, *, , r.consent.blocked, deny
          help: write `p, rule, subject, action, when, effect`
        """,
    ),
    case(
        "a-group-with-a-part-too-few",
        "rules.csv", "g, reading, showing", "g, reading",
        """
        rules.csv:4: error[rule-parts]: this line has 2 parts
            4 | g, reading
          help: write `g, action or group, group`
        """,
    ),
    case(
        "a-condition-in-double-quotes",
        "rules.csv", "r.subject.is_patient", '"r.subject.is_patient"',
        """
        rules.csv:6:27: error[casbin-quotes]: Casbin takes a condition in double quotes for a constant that is true
            6 | p, own, patient, showing, "r.subject.is_patient", allow
                                          ^
          help: leave the quotes out
        """,
    ),
    case(
        "a-comment-at-the-end-of-a-line",
        "rules.csv", "r.subject.is_patient, allow", "r.subject.is_patient, allow # his own",
        """
        rules.csv:6:55: error[casbin-comment]: Casbin takes a comment at the end of a line for part of the effect
            6 | p, own, patient, showing, r.subject.is_patient, allow # his own
                                                                      ^
          help: put the comment on a line of its own
        """,
    ),
    case(
        "semicolons",
        "rules.csv", "p, own, patient, showing, r.subject.is_patient, allow", "p; own; patient; showing; r.subject.is_patient; allow",
        """
        rules.csv:6:2: error[casbin-semicolons]: Casbin separates by commas
            6 | p; own; patient; showing; r.subject.is_patient; allow
                 ^
          help: replace the semicolons
        """,
    ),
    case(
        "a-bracket",
        "rules.csv", "'duty'", "'[duty'",
        """
        rules.csv:8:45: error[casbin-bracket]: Casbin counts brackets when it splits a line
            8 | p, duty, nurse, reading, r.subject.role == '[duty' && (r.consent.team || r.matrix.follow), allow
                                                            ^
          help: leave them out
        """,
    ),
    case(
        "a-closing-bracket",
        "rules.csv", "'duty'", "'duty]'",
        """
        rules.csv:8:49: error[casbin-bracket]: Casbin counts brackets when it splits a line
            8 | p, duty, nurse, reading, r.subject.role == 'duty]' && (r.consent.team || r.matrix.follow), allow
                                                                ^
          help: leave them out
        """,
    ),
    case(
        "a-tab",
        "rules.csv", "p, own,", "p,\town,",
        """
        rules.csv:6:3: error[casbin-tab]: Casbin separates by commas
            6 | p,\town, patient, showing, r.subject.is_patient, allow
                  ^
          help: replace the tabs
        """,
    ),
    case(
        "a-character-that-cannot-be-seen",
        "rules.csv", "p, own,", "p, \u200bown,",
        """
        rules.csv:6:4: error[casbin-invisible]: Casbin's readers disagree on characters that cannot be seen
            6 | p, \u200bown, patient, showing, r.subject.is_patient, allow
                   ^
          help: type the line again
        """,
    ),
    # rules.csv: words
    case(
        "a-repeated-rule",
        "rules.csv", "p, duty,", "p, own,",
        """
        reasons.csv:5: error[reason-without-rule]: there is no rule `duty`
          help: remove this row, or write the rule
        rules.csv:8:4: error[rule-repeated]: the rule `own` stands twice, first on line 6
            8 | p, own, nurse, reading, r.subject.role == 'duty' && (r.consent.team || r.matrix.follow), allow
                   ^^^
          help: give it an id of its own
        """,
    ),
    case(
        "an-id-with-a-space",
        "rules.csv", "p, own,", "p, his own,",
        """
        reasons.csv:3: error[reason-without-rule]: there is no rule `own`
          help: did you mean `his own`?
        rules.csv:6: error[rule-without-reason]: the rule `his own` has no row in reasons.csv
          help: say why it decides so
        rules.csv:6:4: error[rule-id]: `his own` is not an id
            6 | p, his own, patient, showing, r.subject.is_patient, allow
                   ^^^^^^^
          help: use letters, digits, `_`, `.` and `-`
        """,
    ),
    case(
        "an-unknown-subject",
        "rules.csv", "p, own, patient", "p, own, patients",
        """
        rules.csv:6:9: error[subject-unknown]: unknown subject type `patients`
            6 | p, own, patients, showing, r.subject.is_patient, allow
                        ^^^^^^^^
          help: did you mean `patient`?
        """,
    ),
    case(
        "a-subject-like-no-other",
        "rules.csv", "p, own, patient", "p, own, robot",
        """
        rules.csv:6:9: error[subject-unknown]: unknown subject type `robot`
            6 | p, own, robot, showing, r.subject.is_patient, allow
                        ^^^^^
          help: it is one of `nurse`, `patient`, `*`
        """,
    ),
    case(
        "an-unknown-action",
        "rules.csv", "nurse, reading, r.context", "nurse, readin, r.context",
        """
        rules.csv:7:19: error[action-unknown]: unknown action or group `readin`
            7 | p, urgent, nurse, readin, r.context.urgent && r.matrix.read, allow
                                  ^^^^^^
          help: did you mean `reading`?
        """,
    ),
    case(
        "an-effect-with-a-capital",
        "rules.csv", "is_patient, allow", "is_patient, Allow",
        """
        rules.csv:6:49: error[effect-unknown]: `Allow` is no effect: Casbin would take it for neither
            6 | p, own, patient, showing, r.subject.is_patient, Allow
                                                                ^^^^^
          help: did you mean `allow`?
        """,
    ),
    case(
        "an-unknown-effect",
        "rules.csv", "is_patient, allow", "is_patient, yes",
        """
        rules.csv:6:49: error[effect-unknown]: `yes` is no effect: Casbin would take it for neither
            6 | p, own, patient, showing, r.subject.is_patient, yes
                                                                ^^^
          help: write `allow` or `deny`
        """,
    ),
    case(
        "a-group-of-an-unknown-action",
        "rules.csv", "g, list,", "g, lists,",
        """
        rules.csv:3:4: error[action-unknown]: unknown action or group `lists`
            3 | g, lists, reading
                   ^^^^^
          help: did you mean `list`?
        """,
    ),
    case(
        "a-group-with-the-name-of-an-action",
        "rules.csv", "g, reading, showing", "g, reading, showing\ng, send, close",
        """
        rules.csv:5:10: error[group-name]: `close` is an action, not a group
            5 | g, send, close
                         ^^^^^
          help: give the group a name of its own
        """,
    ),
    case(
        "a-group-that-is-no-plain-name",
        "rules.csv", "g, reading, showing", "g, reading, showing\ng, send, to-others",
        """
        rules.csv:5:10: error[name-plain]: `to-others` is not a plain name
            5 | g, send, to-others
                         ^^^^^^^^^
          help: a name is letters without accents, digits and `_`
        """,
    ),
    case(
        "a-group-of-everything",
        "rules.csv", "g, reading, showing", "g, reading, showing\ng, send, *",
        """
        rules.csv:5:10: error[name-plain]: `*` is not a plain name
            5 | g, send, *
                         ^
          help: a name is letters without accents, digits and `_`
        """,
    ),
    case(
        "groups-in-a-circle",
        "rules.csv", "g, reading, showing", "g, reading, showing\ng, ring, wheel\ng, wheel, ring",
        """
        rules.csv:5:4: error[group-loop]: no action reaches the group `ring`
            5 | g, ring, wheel
                   ^^^^
          help: a group holds actions, or groups that hold some; not itself
        rules.csv:6:4: error[group-loop]: no action reaches the group `wheel`
            6 | g, wheel, ring
                   ^^^^^
          help: a group holds actions, or groups that hold some; not itself
        """,
    ),
    case(
        "a-group-too-far-up",
        "rules.csv", "g, reading, showing", "g, reading, showing\ng, showing, a\ng, a, b\ng, b, c\ng, c, d\ng, d, e\ng, e, f\ng, f, g\ng, g, h",
        """
        rules.csv:12:7: error[group-far]: the group `h` is more than 9 groups above an action: Casbin does not look so far
           12 | g, g, h
                      ^
          help: put the actions in it directly
        """,
    ),
    # rules.csv: conditions
    case(
        "a-condition-that-cannot-be-parsed",
        "rules.csv", "r.context.urgent && r.matrix.read", "r.context.urgent and r.matrix.read",
        """
        rules.csv:7:45: error[condition-syntax]: `and` is not part of a condition
            7 | p, urgent, nurse, reading, r.context.urgent and r.matrix.read, allow
                                                            ^^^
          help: write `&&`
        """,
    ),
    case(
        "an-unknown-fact",
        "rules.csv", "r.subject.is_patient,", "r.subject.is_patiant,",
        """
        rules.csv:6:27: error[fact-unknown]: unknown fact `subject.is_patiant`
            6 | p, own, patient, showing, r.subject.is_patiant, allow
                                          ^^^^^^^^^^^^^^^^^^^^
          help: did you mean `subject.is_patient`?
        """,
    ),
    case(
        "a-fact-like-no-other",
        "rules.csv", "r.subject.is_patient,", "r.subject.height == 'tall',",
        """
        rules.csv:6:27: error[fact-unknown]: unknown fact `subject.height`
            6 | p, own, patient, showing, r.subject.height == 'tall', allow
                                          ^^^^^^^^^^^^^^^^
          help: did you mean `subject.type`?
        """,
    ),
    case(
        "an-unknown-value",
        "rules.csv", "'duty'", "'duti'",
        """
        rules.csv:8:45: error[value-unknown]: unknown value `duti` of `subject.role`
            8 | p, duty, nurse, reading, r.subject.role == 'duti' && (r.consent.team || r.matrix.follow), allow
                                                            ^^^^
          help: did you mean `duty`?
        """,
    ),
    case(
        "a-value-like-no-other",
        "rules.csv", "'duty'", "'chief'",
        """
        rules.csv:8:45: error[value-unknown]: unknown value `chief` of `subject.role`
            8 | p, duty, nurse, reading, r.subject.role == 'chief' && (r.consent.team || r.matrix.follow), allow
                                                            ^^^^^
          help: it takes `none`, `duty`
        """,
    ),
    case(
        "a-word-that-is-not-compared",
        "rules.csv", "r.subject.role == 'duty' && (r.consent.team || r.matrix.follow)", "r.subject.role",
        """
        rules.csv:8:26: error[fact-compared]: `subject.role` is one of several words: compare it
            8 | p, duty, nurse, reading, r.subject.role, allow
                                         ^^^^^^^^^^^^^^
          help: such as r.subject.role == 'none'
        """,
    ),
    case(
        "true-or-false-that-is-compared",
        "rules.csv", "r.subject.is_patient,", "r.subject.is_patient == 'yes',",
        """
        rules.csv:6:27: error[fact-boolean]: `subject.is_patient` is true or false: it is not compared
            6 | p, own, patient, showing, r.subject.is_patient == 'yes', allow
                                          ^^^^^^^^^^^^^^^^^^^^
          help: write r.subject.is_patient or !r.subject.is_patient
        """,
    ),
    case(
        "facts-that-cannot-be-compared",
        "rules.csv", "r.subject.role == 'duty'", "r.subject.role == r.subject.family",
        """
        rules.csv:8:44: error[facts-incomparable]: `subject.role` and `subject.family` take different values
            8 | p, duty, nurse, reading, r.subject.role == r.subject.family && (r.consent.team || r.matrix.follow), allow
                                                           ^^^^^^^^^^^^^^^^
          help: compare each with a word, joined by `&&` or `||`: `subject.role` takes `none`, `duty`
        """,
    ),
    # vocabulary.toml
    case(
        "an-unknown-value-of-absent",
        "vocabulary.toml", 'absent = "none"', 'absent = "nothing"',
        """
        vocabulary.toml:68: error[value-unknown]: `absent` is `nothing`, which is not a value of this fact
           68 | absent = "nothing"
          help: it takes `none`, `duty`
        """,
    ),
    case(
        "an-absent-word-for-true-or-false",
        "vocabulary.toml", "absent = true\n\n[fact.resource.old]", 'absent = "true"\n\n[fact.resource.old]',
        """
        vocabulary.toml:87: error[value-unknown]: `absent` is `true`, which is not a value of this fact
           87 | absent = "true"
          help: write it without quotes
        """,
    ),
    case(
        "an-object-that-no-request-has",
        "vocabulary.toml", "[fact.context.night]", "[fact.contex.night]",
        """
        vocabulary.toml:76: error[fact-object]: `contex.night` is not in one of the six objects of a request
           76 | [fact.contex.night]
          help: did you mean `context`?
        """,
    ),
    case(
        "a-fact-that-is-always-there",
        "vocabulary.toml", "[fact.context.night]", "[fact.subject.type]",
        """
        vocabulary.toml:76: error[fact-name]: `subject.type` is always there: it cannot be declared again
           76 | [fact.subject.type]
          help: leave it out
        """,
    ),
    case(
        "a-name-that-casbin-refuses",
        "vocabulary.toml", "[fact.context.night]", "[fact.context._night]",
        """
        vocabulary.toml:76: error[fact-name]: `context._night` cannot be the name of a fact: Casbin's evaluator refuses names that start with `_` or `func_`
           76 | [fact.context._night]
          help: give it another name
        """,
    ),
    case(
        "a-name-that-its-evaluator-refuses",
        "vocabulary.toml", "[fact.context.night]", "[fact.context.format]",
        """
        vocabulary.toml:76: error[fact-name]: `context.format` cannot be the name of a fact: Casbin's evaluators refuse this name
           76 | [fact.context.format]
          help: give it another name
        """,
    ),
    case(
        "a-name-that-is-no-word",
        "vocabulary.toml", "[fact.context.night]", '[fact.context."la nuit"]',
        """
        vocabulary.toml:76: error[fact-name]: `context.la nuit` cannot be the name of a fact: a name is ASCII letters, digits and `_`, and no word of Python
           76 | [fact.context."la nuit"]
          help: give it another name
        """,
    ),
    case(
        "a-subject-twice",
        "vocabulary.toml", '["nurse", "patient"]', '["nurse", "patient", "nurse"]',
        """
        vocabulary.toml:1: error[name-repeated]: `nurse` stands twice in `subjects`
            1 | subjects = ["nurse", "patient", "nurse"]
          help: keep one of them
        """,
    ),
    case(
        "an-action-with-a-bracket",
        "vocabulary.toml", 'record = ["close"]', 'record = ["close", "re[open"]',
        """
        vocabulary.toml:5: error[name-plain]: `re[open` is not a plain name
            5 | record = ["close", "re[open"]
          help: a name is letters without accents, digits and `_`
        """,
    ),
    case(
        "an-action-with-a-space",
        "vocabulary.toml", 'record = ["close"]', 'record = ["close", "open again"]',
        """
        vocabulary.toml:5: error[name-plain]: `open again` is not a plain name
            5 | record = ["close", "open again"]
          help: a name is letters without accents, digits and `_`
        """,
    ),
    case(
        "a-subject-with-an-accent",
        "vocabulary.toml", '["nurse", "patient"]', '["nurse", "patient", "aidé"]',
        """
        vocabulary.toml:1: error[name-plain]: `aidé` is not a plain name
            1 | subjects = ["nurse", "patient", "aidé"]
          help: a name is letters without accents, digits and `_`
        """,
    ),
    case(
        "an-action-about-two-things",
        "vocabulary.toml", 'record = ["close"]', 'record = ["close", "read"]',
        """
        vocabulary.toml:4: error[name-repeated]: `read` is about `document` and about `record`
            4 | document = ["read", "list", "send"]
          help: an action is about one thing
        """,
    ),
    case(
        "a-value-twice",
        "vocabulary.toml", '["none", "duty"]', '["none", "duty", "none"]',
        """
        vocabulary.toml:67: error[name-repeated]: `none` stands twice in `values`
           67 | values = ["none", "duty", "none"]
          help: keep one of them
        """,
    ),
    case(
        "an-unknown-kind",
        "vocabulary.toml", 'kind = "block"', 'kind = "blok"',
        """
        vocabulary.toml:106: error[kind-unknown]: unknown kind of directive `blok`
          106 | kind = "blok"
          help: did you mean `block`?
        """,
    ),
    case(
        "an-unknown-kind-that-ends",
        "vocabulary.toml", 'ends = ["block"]', 'ends = ["mask"]',
        """
        vocabulary.toml:20: error[kind-unknown]: unknown kind of directive `mask`
           20 | ends = ["mask"]
          help: there are `block`, `membership`, `consent`, `identity`
        """,
    ),
    case(
        "a-group-that-is-no-property",
        "vocabulary.toml", 'group = "team"', 'group = "teams"',
        """
        vocabulary.toml:16: error[property-unknown]: a directive of kind `membership` has no `teams`
           16 | group = "teams"
          help: did you mean `team`?
        """,
    ),
    case(
        "what-narrows-and-is-no-property",
        "vocabulary.toml", 'properties = ["given"]\n', 'properties = ["given"]\nnarrows = { givven = ["place"] }\n',
        """
        vocabulary.toml:20: error[property-unknown]: a directive of kind `consent` has no `givven`
           20 | narrows = { givven = ["place"] }
          help: did you mean `given`?
        vocabulary.toml:20: error[target-unknown]: a directive of kind `consent` has no target `place`
           20 | narrows = { givven = ["place"] }
          help: there are `team`, `everybody`
        """,
    ),
    case(
        "a-membership-that-is-narrowed",
        "vocabulary.toml", 'group = "team"\n', 'group = "team"\nnarrows = { team = ["professional"] }\n',
        """
        vocabulary.toml:17: error[property-narrows]: a directive of kind `membership` puts somebody in a group: nothing narrows it
           17 | narrows = { team = ["professional"] }
          help: whoever is in a group is in it for everything
        """,
    ),
    case(
        "a-fact-that-takes-no-notice-of-what-narrows",
        "vocabulary.toml", 'properties = ["given"]\n', 'properties = ["given"]\nnarrows = { given = ["team"] }\n',
        """
        vocabulary.toml:111: error[property-narrows]: a directive of kind `consent` may be narrowed by `given`, and this fact takes no notice
          111 | [fact.consent.team]
          help: write narrowed = { given = "resource.given" }, say
        """,
    ),
    case(
        "a-fact-narrowed-by-what-does-not-narrow",
        "vocabulary.toml", 'with = { given = "in_person" }', 'narrowed = { given = "context.given" }',
        """
        vocabulary.toml:116: error[property-narrows]: `given` does not narrow a directive of kind `consent`
          116 | narrowed = { given = "context.given" }
          help: its kind declares nothing that does
        """,
    ),
    case(
        "a-fact-narrowed-by-a-path-of-nothing",
        "vocabulary.toml", 'with = { given = "in_person" }', 'narrowed = { given = "contxt.given" }',
        """
        vocabulary.toml:116: error[path-unknown]: `contxt.given` is not part of a request
          116 | narrowed = { given = "contxt.given" }
          help: did you mean `context`?
        vocabulary.toml:116: error[property-narrows]: `given` does not narrow a directive of kind `consent`
          116 | narrowed = { given = "contxt.given" }
          help: its kind declares nothing that does
        """,
    ),
    case(
        "a-date-that-is-no-property",
        "vocabulary.toml", 'properties = ["birth_date"]\n', 'properties = ["birth_date"]\ndates = ["birthdate"]\n',
        """
        vocabulary.toml:24: error[property-unknown]: a directive of kind `identity` has no `birthdate`
           24 | dates = ["birthdate"]
          help: did you mean `birth_date`?
        """,
    ),
    case(
        "a-date-after-what-is-no-date",
        "vocabulary.toml", 'properties = ["given"]\n', 'properties = ["given"]\nnot_after = { given = ["identity.birth_date", "identity.birthday"] }\n',
        """
        vocabulary.toml:20: error[path-unknown]: `identity.birthday` is no date of a record
           20 | not_after = { given = ["identity.birth_date", "identity.birthday"] }
          help: write KIND.PROPERTY with one of the kind's `dates`, `from` or `until`
        vocabulary.toml:20: error[property-date]: `given` of a directive of kind `consent` is no date
           20 | not_after = { given = ["identity.birth_date", "identity.birthday"] }
          help: add it to its `dates`
        """,
    ),
    case(
        "words-of-what-is-no-property",
        "vocabulary.toml", 'properties = ["birth_date"]\n', 'properties = ["birth_date"]\nwords = { birthdate = ["today"] }\n',
        """
        vocabulary.toml:24: error[property-unknown]: a directive of kind `identity` has no `birthdate`
           24 | words = { birthdate = ["today"] }
          help: did you mean `birth_date`?
        """,
    ),
    case(
        "a-fact-that-asks-for-a-word-that-there-is-not",
        "vocabulary.toml", 'properties = ["given"]\n', 'properties = ["given"]\nwords = { given = ["in_persn", "remotely"] }\n',
        """
        vocabulary.toml:117: error[word-unknown]: `in_person` is not a word of the `given` of a directive of kind `consent`
          117 | with = { given = "in_person" }
          help: did you mean `in_persn`?
        """,
    ),
    case(
        "rows-of-no-grid-and-of-no-target",
        "vocabulary.toml", 'properties = ["given"]\n', 'properties = ["given"]\nrows = { place = "read", team = "raed" }\n',
        """
        vocabulary.toml:20: error[grid-unknown]: unknown grid `raed`
           20 | rows = { place = "read", team = "raed" }
          help: did you mean `read`?
        vocabulary.toml:20: error[target-unknown]: a directive of kind `consent` has no target `place`
           20 | rows = { place = "read", team = "raed" }
          help: there are `team`, `everybody`
        """,
    ),
    case(
        "an-act-that-requires-what-it-does-not-record",
        "vocabulary.toml", "[condition]\n",
        '[[act.close]]\nkind = "identity"\nproperties = { birth_date = "@action.day" }\nrequired = ["birthdate"]\n[condition]\n',
        """
        vocabulary.toml:33: error[property-unknown]: `birthdate` is required, and the act does not record it
           33 | [[act.close]]
          help: did you mean `birth_date`?
        """,
    ),
    case(
        "an-interval-that-is-no-target",
        "vocabulary.toml", '[kind.block]\ntargets = ["professional"]', '[kind.block]\ntargets = ["professional", "deposited"]\nintervals = ["deposit"]',
        """
        vocabulary.toml:13: error[target-unknown]: a directive of kind `block` has no target `deposit`
           13 | intervals = ["deposit"]
          help: did you mean `deposited`?
        """,
    ),
    case(
        "a-property-that-every-directive-has",
        "vocabulary.toml", 'properties = ["given"]', 'properties = ["given", "basis"]',
        """
        vocabulary.toml:19: error[property-name]: every directive has `basis`: it cannot be a property
           19 | properties = ["given", "basis"]
          help: give it another name
        """,
    ),
    case(
        "via-a-kind-without-group",
        "vocabulary.toml", 'via = "membership"', 'via = "block"',
        """
        vocabulary.toml:115: error[kind-unknown]: `block` is not a kind of directive that puts somebody in a group
          115 | via = "block"
          help: such a kind declares its `group`
        """,
    ),
    case(
        "via-a-group-that-is-no-target",
        "vocabulary.toml", 'targets = ["team", "everybody"]', 'targets = ["everybody"]',
        """
        vocabulary.toml:115: error[target-unknown]: a directive of kind `consent` has no target `team`
          115 | via = "membership"
          help: `membership` puts somebody in a `team`
        """,
    ),
    case(
        "an-unknown-target",
        "vocabulary.toml", 'kind = "block"\nof = { professional =', 'kind = "block"\nof = { profesional =',
        """
        vocabulary.toml:107: error[target-unknown]: a directive of kind `block` has no target `profesional`
          107 | of = { profesional = "subject.id" }
          help: did you mean `professional`?
        """,
    ),
    case(
        "an-unknown-property",
        "vocabulary.toml", "with = { given =", "with = { givven =",
        """
        vocabulary.toml:116: error[property-unknown]: a directive of kind `consent` has no `givven`
          116 | with = { givven = "in_person" }
          help: did you mean `given`?
        """,
    ),
    case(
        "a-path-of-nothing",
        "vocabulary.toml", 'of = "context.urgent"', 'of = "contxt.urgent"',
        """
        vocabulary.toml:73: error[path-unknown]: `contxt.urgent` is not part of a request
           73 | of = "contxt.urgent"
          help: did you mean `context`?
        """,
    ),
    case(
        "a-path-without-a-name",
        "vocabulary.toml", 'of = "context.urgent"', 'of = "context"',
        """
        vocabulary.toml:73: error[path-unknown]: `context` is not part of a request
           73 | of = "context"
          help: write context.NAME
        """,
    ),
    case(
        "a-path-that-the-record-has-not",
        "vocabulary.toml", "record.identity.birth_date", "record.identity.birthday",
        """
        vocabulary.toml:99: error[path-unknown]: `record.identity.birthday` is nothing that a record holds
           99 | since = "record.identity.birthday"
          help: write record.KIND.PROPERTY with a property that the kind declares, `from` or `until`
        """,
    ),
    case(
        "the-record-read-by-another-form",
        "vocabulary.toml", 'of = "context.urgent"', 'of = "record.identity.birth_date"',
        """
        vocabulary.toml:73: error[path-unknown]: `record.identity.birth_date` is not part of a request
           73 | of = "record.identity.birth_date"
          help: only an `elapsed` fact reads the record
        """,
    ),
    case(
        "an-alias-of-nothing",
        "vocabulary.toml", 'record = "resource.id"', 'record = "ressource.id"',
        """
        vocabulary.toml:9: error[path-unknown]: `ressource.id` is not part of a request
            9 | record = "ressource.id"
          help: a path starts with subject, action, resource, context
        """,
    ),
    case(
        "an-alias-of-an-unknown-action",
        "vocabulary.toml", 'record = "resource.id"', 'records = "resource.id"',
        """
        vocabulary.toml:9: error[action-unknown]: unknown action `records`
            9 | records = "resource.id"
          help: did you mean `record`?
        """,
    ),
    case(
        "an-unknown-setting",
        "vocabulary.toml", "setting.night", "setting.nigth",
        """
        vocabulary.toml:79: error[setting-unknown]: there is no setting `nigth`
           79 | of = "setting.nigth"
          help: did you mean `night`?
        """,
    ),
    case(
        "an-unknown-setting-of-a-delay",
        "vocabulary.toml", '"delay"', '"dely"',
        """
        vocabulary.toml:93: error[setting-unknown]: there is no setting `dely`
           93 | at_least = { days = "dely" }
          help: did you mean `delay`?
        """,
    ),
    case(
        "a-setting-that-is-no-number",
        "vocabulary.toml", '"delay"', '"night"',
        """
        vocabulary.toml:93: error[setting-value]: `false` is not a number of days
           93 | at_least = { days = "night" }
          help: write a whole number from 0, or a setting that is one
        """,
    ),
    case(
        "an-unknown-setting-of-a-letter",
        "vocabulary.toml", 'setting = "inferred_cells"', 'setting = "inferred"',
        """
        vocabulary.toml:134: error[setting-unknown]: there is no setting `inferred`
          134 | letters = { R = true, X = false, r = { setting = "inferred", is = "follow" } }
          help: did you mean `inferred_cells`?
        """,
    ),
    case(
        "a-setting-that-is-no-value",
        "vocabulary.toml", 'of = "setting.night"', 'of = "setting.inferred_cells"',
        """
        vocabulary.toml:79: error[setting-value]: the setting `inferred_cells` is `refuse`, which is not a value of this fact
           79 | of = "setting.inferred_cells"
          help: it takes `false`, `true`
        """,
    ),
    case(
        "text-with-values",
        "vocabulary.toml", 'values = ["none", "duty"]', 'values = ["none", "duty"]\ntext = true',
        """
        vocabulary.toml:67: error[value-unknown]: `text` makes this fact true or false
           67 | values = ["none", "duty"]
          help: leave out `values`, or `text`
        """,
    ),
    case(
        "several-with-values",
        "vocabulary.toml", 'values = ["nursing", "medical", "other"]', 'values = ["nursing", "medical", "other"]\nseveral = true',
        """
        vocabulary.toml:60: error[value-unknown]: `several` makes this fact true or false
           60 | values = ["nursing", "medical", "other"]
          help: leave out `values`, or `several`
        """,
    ),
    case(
        "codes-and-a-list",
        "vocabulary.toml", 'list = "professions"\ncolumn = "family"\nin', 'list = "professions"\ncodes = { P1 = true }\ncolumn = "family"\nin',
        """
        vocabulary.toml:45: error[key-missing]: a coded fact has either `codes`, or `list` and `column`
           45 | [fact.subject.nursing]
          help: say what each code stands for
        """,
    ),
    case(
        "codes-without-values",
        "vocabulary.toml", 'values = ["nursing", "medical", "other"]\n', "",
        """
        vocabulary.toml:54: error[key-missing]: a coded fact whose codes give words has `values`
           54 | [fact.subject.family]
          help: list the words, or write `in` for those that make it true
        """,
    ),
    case(
        "a-code-that-gives-no-value",
        "vocabulary.toml", '["nursing", "medical", "other"]', '["nursing", "other"]',
        """
        vocabulary.toml:60: error[value-unknown]: the code `P2` gives `medical`, which is not a value of this fact
           60 | values = ["nursing", "other"]
          help: it takes `nursing`, `other`
        """,
    ),
    case(
        "no-code-has-the-word",
        "vocabulary.toml", 'in = ["nursing"]', 'in = ["nursin"]',
        """
        vocabulary.toml:51: error[value-unknown]: no code of the list has `nursin` in its column `family`
           51 | in = ["nursin"]
          help: did you mean `nursing`?
        """,
    ),
    case(
        "an-unknown-list",
        "vocabulary.toml", 'of = "subject.profession", list = "professions"', 'of = "subject.profession", list = "profession"',
        """
        vocabulary.toml:124: error[list-unknown]: unknown code list `profession`
          124 | column = { of = "subject.profession", list = "profession", column = "column" }
          help: did you mean `professions`?
        """,
    ),
    case(
        "an-unknown-column-of-a-list",
        "vocabulary.toml", 'list = "professions", column = "column"', 'list = "professions", column = "colum"',
        """
        vocabulary.toml:124: error[column-missing]: the code list `professions` has no column `colum`
          124 | column = { of = "subject.profession", list = "professions", column = "colum" }
          help: did you mean `column`?
        """,
    ),
    case(
        "a-column-that-is-not-said",
        "vocabulary.toml", 'list = "professions"\ncolumn = "family"\nin', 'list = "professions"\nin',
        """
        vocabulary.toml:45: error[key-missing]: a coded fact with a `list` has the `column` that it reads
           45 | [fact.subject.nursing]
          help: there are `code`, `label`, `family`, `column`
        """,
    ),
    case(
        "an-unknown-grid",
        "vocabulary.toml", 'grid = "read"\nrow = "resource.type"\ncolumn_is', 'grid = "red"\nrow = "resource.type"\ncolumn_is',
        """
        vocabulary.toml:131: error[grid-unknown]: unknown grid `red`
          131 | grid = "red"
          help: did you mean `read`?
        """,
    ),
    case(
        "a-column-that-the-grid-has-not",
        "vocabulary.toml", 'column_is = "NURSE"', 'column_is = "NURS"',
        """
        vocabulary.toml:133: error[column-missing]: `matrix/read.csv` has no column `NURS`
          133 | column_is = "NURS"
          help: did you mean `NURSE`?
        """,
    ),
    case(
        "no-column-of-the-grid",
        "vocabulary.toml", 'column_is = "NURSE"\n', "",
        """
        vocabulary.toml:128: error[key-missing]: a cell has either `column` or `column_is`
          128 | [fact.matrix.follow]
          help: say which column, or how to find it
        """,
    ),
    case(
        "an-unknown-condition-of-a-letter",
        "vocabulary.toml", '{ condition = "urgent" }', '{ condition = "urgency" }',
        """
        vocabulary.toml:125: error[condition-unknown]: unknown condition `urgency`
          125 | letters = { R = true, X = false, r = { condition = "urgency" } }
          help: did you mean `urgent`?
        """,
    ),
    case(
        "a-condition-that-depends-on-itself",
        "vocabulary.toml", 'urgent = "r.context.urgent"', 'urgent = "r.context.urgent || r.matrix.read"',
        """
        vocabulary.toml:34: error[condition-loop]: the condition `urgent` depends on itself
           34 | urgent = "r.context.urgent || r.matrix.read"
          help: a condition cannot ask for the cell that names it
        """,
    ),
    case(
        "a-condition-of-the-vocabulary-that-cannot-be-parsed",
        "vocabulary.toml", "r.subject.is_patient && r.consent.blocked", "r.subject.is_patient & r.consent.blocked",
        """
        vocabulary.toml:37: error[condition-syntax]: `&` is not part of a condition, in `r.subject.is_patient & r.consent.blocked`
           37 | blocked_patient = "r.subject.is_patient & r.consent.blocked"
          help: write `&&`
        """,
    ),
    case(
        "an-unknown-fact-in-the-vocabulary",
        "vocabulary.toml", "r.subject.is_patient && r.consent.blocked", "r.subject.is_patient && r.consent.bloked",
        """
        vocabulary.toml:37: error[fact-unknown]: unknown fact `consent.bloked`, in `r.subject.is_patient && r.consent.bloked`
           37 | blocked_patient = "r.subject.is_patient && r.consent.bloked"
          help: did you mean `consent.blocked`?
        """,
    ),
    case(
        "a-letter-without-meaning",
        "vocabulary.toml", "letters = { R = true, X = false, r = { setting", "letters = { R = true, r = { setting",
        """
        vocabulary.toml:134: error[cell-letter]: the letter `X` of the grid `read` has no meaning for this fact
          134 | letters = { R = true, r = { setting = "inferred_cells", is = "follow" } }
          help: say what it stands for
        """,
    ),
    case(
        "a-letter-that-gives-no-value",
        "vocabulary.toml", "letters = { R = true, X = false, r = { setting", 'letters = { R = true, X = "no", r = { setting',
        """
        vocabulary.toml:134: error[value-unknown]: the letter `X` gives `no`, which is not a value of this fact
          134 | letters = { R = true, X = "no", r = { setting = "inferred_cells", is = "follow" } }
          help: it takes `false`, `true`
        """,
    ),
    case(
        "a-cell-of-words-with-a-setting",
        "vocabulary.toml",
        'letters = { R = true, X = false, r = { setting = "inferred_cells", is = "follow" } }\nabsent = false',
        'values = ["yes", "no"]\nletters = { R = "yes", X = "no", r = { setting = "inferred_cells", is = "follow" } }\nabsent = "no"',
        """
        rules.csv:8:73: error[fact-compared]: `matrix.follow` is one of several words: compare it
            8 | p, duty, nurse, reading, r.subject.role == 'duty' && (r.consent.team || r.matrix.follow), allow
                                                                                        ^^^^^^^^^^^^^^^
          help: such as r.matrix.follow == 'yes'
        vocabulary.toml:135: error[value-unknown]: the letter `r` is true or false, and this fact is one of several words
          135 | letters = { R = "yes", X = "no", r = { setting = "inferred_cells", is = "follow" } }
          help: give it a word of `values`
        """,
    ),
    # sheets
    case(
        "an-empty-grid",
        "matrix/read.csv", None, "",
        """
        matrix/read.csv: error[sheet-empty]: this sheet is empty
          help: its header needs at least one column
        """,
    ),
    case(
        "a-grid-without-rows",
        "matrix/read.csv", None, "type_code,label,NURSE,DOCTOR\n",
        """
        matrix/read.csv: error[sheet-empty]: this sheet has no row
          help: a header alone decides nothing
        """,
    ),
    case(
        "a-cell-too-few",
        "matrix/read.csv", "T2,Letter,X,r", "T2,Letter,X",
        """
        matrix/read.csv:3: error[row-length]: this row has 3 cells, the header has 4
          help: add or remove cells, or quote a cell with a comma
        """,
    ),
    case(
        "quotes-that-do-not-end",
        "matrix/read.csv", "T2,Letter,X,r", 'T2,"Letter,X,r',
        """
        matrix/read.csv:3: error[sheet-quotes]: this row cannot be read: unexpected end of data
          help: close the quotes of the cell
        """,
    ),
    case(
        "a-missing-column",
        "reasons.csv", "rule,legal_basis,discreet,", "rule,legal_basis,discret,",
        """
        reasons.csv:1: error[column-missing]: the column `discreet` is missing
          help: the header needs `rule`, `legal_basis`, `discreet`, `obligations`, `en`
        """,
    ),
    case(
        "a-column-without-name",
        "matrix/read.csv", "type_code,label,", "type_code,,",
        """
        matrix/read.csv:1: error[column-unnamed]: column 2 has no name
          help: name it, or remove it
        """,
    ),
    case(
        "a-repeated-column",
        "matrix/read.csv", "NURSE,DOCTOR", "NURSE,NURSE",
        """
        matrix/read.csv:1: error[column-repeated]: the column `NURSE` stands twice
          help: keep one of them
        """,
    ),
    case(
        "a-repeated-row",
        "matrix/professions.csv", "P2,Doctor", "P1,Doctor",
        """
        matrix/professions.csv:3: error[row-repeated]: the row `P1` stands twice, first on line 2
          help: keep one of them
        """,
    ),
    case(
        "a-row-without-name",
        "matrix/professions.csv", "P2,Doctor", ",Doctor",
        """
        matrix/professions.csv:3: error[row-unnamed]: this row has no `code`
          help: give it one, or remove it
        """,
    ),
    case(
        "a-cell-letter-that-does-not-exist",
        "matrix/read.csv", "T2,Letter,X,r", "T2,Letter,Y,r",
        """
        matrix/read.csv:3: error[cell-letter]: unknown letter `Y` in the cell `T2`, `NURSE`
          help: a cell holds one of `R`, `X`, `r`
        """,
    ),
    case(
        "an-empty-cell",
        "matrix/read.csv", "T2,Letter,X,r", "T2,Letter,,r",
        """
        matrix/read.csv:3: error[cell-letter]: the cell `T2`, `NURSE` is empty
          help: a cell holds one of `R`, `X`, `r`
        """,
    ),
    case(
        "a-code-that-leads-to-no-column",
        "matrix/professions.csv", "medical,DOCTOR", "medical,DOCTORS",
        """
        vocabulary.toml:124: error[column-missing]: `P2` leads to the column `DOCTORS`, which `matrix/read.csv` has not
          124 | column = { of = "subject.profession", list = "professions", column = "column" }
          help: did you mean `DOCTOR`?
        """,
    ),
    case(
        "provenance-of-no-cell",
        "matrix/provenance.csv", "T2,DOCTOR", "T2,DOCTORS",
        """
        matrix/provenance.csv: error[cell-provenance]: cells of `matrix/read.csv` without a row here: 1, the first is `T2`, `DOCTOR`
          help: say where each cell comes from
        matrix/provenance.csv:5: error[cell-unknown]: `matrix/read.csv` has no cell `T2`, `DOCTORS`
          help: did you mean `DOCTOR`?
        """,
    ),
    case(
        "provenance-of-no-row",
        "matrix/provenance.csv", "T2,DOCTOR", "T3,DOCTOR",
        """
        matrix/provenance.csv: error[cell-provenance]: cells of `matrix/read.csv` without a row here: 1, the first is `T2`, `DOCTOR`
          help: say where each cell comes from
        matrix/provenance.csv:5: error[cell-unknown]: `matrix/read.csv` has no cell `T3`, `DOCTOR`
          help: remove this row, or add the cell
        """,
    ),
    case(
        "provenance-twice",
        "matrix/provenance.csv", "T2,DOCTOR,inferred,S2\n", "T2,DOCTOR,inferred,S2\nT2,DOCTOR,inferred,S3\n",
        """
        matrix/provenance.csv:6: error[row-repeated]: the row `T2`, `DOCTOR` stands twice, first on line 5
          help: keep one of them
        """,
    ),
    case(
        "a-basis-that-the-letter-contradicts",
        "matrix/provenance.csv", "T1,NURSE,stated", "T1,NURSE,inferred",
        """
        matrix/provenance.csv:2: error[cell-basis]: the cell `T1`, `NURSE` is written as published (`R`), and its basis is `inferred`
          help: change its letter, or its basis
        """,
    ),
    case(
        "a-cell-without-provenance",
        "matrix/provenance.csv", "T1,NURSE,stated,S1\n", "",
        """
        matrix/provenance.csv: error[cell-provenance]: cells of `matrix/read.csv` without a row here: 1, the first is `T1`, `NURSE`
          help: say where each cell comes from
        """,
    ),
    # reasons.csv
    case(
        "a-rule-without-reason",
        "reasons.csv", "duty,article 4,no,,On duty.\n", "",
        """
        rules.csv:8: error[rule-without-reason]: the rule `duty` has no row in reasons.csv
          help: say why it decides so
        """,
    ),
    case(
        "a-default-without-reason",
        "reasons.csv", "otherwise,default,no,,Not allowed.\n", "",
        """
        pack.toml:8: error[rule-without-reason]: the rule `otherwise` has no row in reasons.csv
            8 | showing = "otherwise"
          help: say why it decides so
        """,
    ),
    case(
        "a-reason-without-rule",
        "reasons.csv", "duty,article 4", "dutty,article 4",
        """
        reasons.csv:5: error[reason-without-rule]: there is no rule `dutty`
          help: did you mean `duty`?
        rules.csv:8: error[rule-without-reason]: the rule `duty` has no row in reasons.csv
          help: say why it decides so
        """,
    ),
    case(
        "a-rule-with-two-reasons",
        "reasons.csv", "duty,article 4", "own,article 4",
        """
        reasons.csv:5: error[reason-repeated]: the rule `own` has two reasons, first on line 3
          help: keep one of them
        rules.csv:8: error[rule-without-reason]: the rule `duty` has no row in reasons.csv
          help: say why it decides so
        """,
    ),
    case(
        "discreet-is-yes-or-no",
        "reasons.csv", "article 4,no", "article 4,non",
        """
        reasons.csv:5: error[reason-discreet]: `discreet` is `non`
          help: write `yes` or `no`
        """,
    ),
    case(
        "an-unknown-obligation",
        "reasons.csv", "tell banner", "tell baner",
        """
        reasons.csv:4: error[obligation-unknown]: unknown obligation `baner`
          help: did you mean `banner`?
        """,
    ),
    case(
        "a-discreet-refusal-with-a-banner",
        "reasons.csv", "yes,tell", "yes,tell banner",
        """
        reasons.csv:2: error[discreet-obligation]: the discreet refusal `blocked` owes `banner` to the requester: that would reveal what it conceals
          help: leave it to the service, or out
        """,
    ),
    case(
        "a-discreet-permit",
        "reasons.csv", "article 2,no", "article 2,yes",
        """
        reasons.csv:3: error[discreet-permit]: the rule `own` permits: only a refusal is discreet
          help: write `no`
        """,
    ),
    case(
        "words-are-missing",
        "reasons.csv", "On duty.", "",
        """
        reasons.csv:5: error[reason-words]: the words of `duty` in `en` are missing
          help: say to the requester what was decided
        """,
    ),
    case(
        "a-legal-basis-is-missing",
        "reasons.csv", "article 4", "",
        """
        reasons.csv:5: error[reason-basis]: the rule `duty` has no legal basis
          help: name the article, or say that it is a choice
        """,
    ),
    # invariants.csv
    case(
        "an-unknown-form-of-invariant",
        "invariants.csv", "never_permit", "never_allow",
        """
        invariants.csv:2: error[invariant-form]: `never_allow` is not a form of invariant
          help: it is one of `never_permit`, `permit_only_if`, `monotone`
        """,
    ),
    case(
        "an-invariant-twice",
        "invariants.csv", "team-only-adds", "blocked-reads-nothing",
        """
        invariants.csv:3: error[invariant-repeated]: the invariant `blocked-reads-nothing` stands twice, first on line 2
          help: keep one of them
        """,
    ),
    case(
        "an-invariant-of-an-unknown-subject",
        "invariants.csv", "never_permit,nurse", "never_permit,nurses",
        """
        invariants.csv:2: error[subject-unknown]: unknown subject type `nurses`
          help: did you mean `nurse`?
        """,
    ),
    case(
        "an-invariant-of-an-unknown-action",
        "invariants.csv", "nurse,reading,,", "nurse,reeding,,",
        """
        invariants.csv:2: error[action-unknown]: unknown action or group `reeding`
          help: did you mean `reading`?
        """,
    ),
    case(
        "an-invariant-without-condition",
        "invariants.csv", "r.consent.blocked", "",
        """
        invariants.csv:2: error[invariant-condition]: the invariant `blocked-reads-nothing` has no condition
          help: say what it is about
        """,
    ),
    case(
        "an-invariant-with-a-wrong-condition",
        "invariants.csv", "r.consent.blocked", "r.consent.bloked",
        """
        invariants.csv:2:51: error[fact-unknown]: unknown fact `consent.bloked`
            2 | blocked-reads-nothing,never_permit,nurse,reading,,r.consent.bloked
                                                                  ^^^^^^^^^^^^^^^^
          help: did you mean `consent.blocked`?
        """,
    ),
    case(
        "an-invariant-of-an-unknown-fact",
        "invariants.csv", "r.consent.team", "r.consent.teams",
        """
        invariants.csv:3: error[fact-unknown]: `r.consent.teams` is not a fact that is true or false
          help: did you mean `consent.team`?
        """,
    ),
    case(
        "an-invariant-of-a-fact-that-is-a-word",
        "invariants.csv", "r.consent.team", "r.subject.role",
        """
        invariants.csv:3: error[fact-unknown]: `r.subject.role` is not a fact that is true or false
          help: did you mean `subject.nursing`?
        """,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "told"), CASES)
def test_a_mistake_is_told_with_its_place_and_a_way_to_mend_it(file, old, new, told):
    assert mistakes(files_with((file, old, new))) == told


def test_the_pack_that_the_cases_break_is_right():
    pack = parse_pack(files_with())
    assert (pack.name, len(pack.rules), pack.warnings) == ("clinic", 4, ())


@pytest.mark.parametrize("sheet", [None, "", "id,form,subject,action,fact,condition\n"], ids=["no-file", "nothing", "header-alone"])
def test_a_pack_may_have_no_invariant(sheet):
    assert compile_pack(parse_pack(files_with(("invariants.csv", None, sheet)))).pack.invariants == ()


def test_a_sheet_of_invariants_has_its_header_all_the_same():
    assert "the column `condition` is missing" in mistakes(files_with(("invariants.csv", None, "id,form,subject,action,fact\n")))


def test_words_are_in_the_languages_of_the_pack_whatever_they_are():
    german = ("pack.toml", 'languages = ["en"]', 'languages = ["de", "pt-BR"]'), ("reasons.csv", "obligations,en", "obligations,de,pt-BR")
    discreet = ("pack.toml", 'en = "Nothing to show."', 'de = "Nichts zu zeigen."\npt-BR = "Nada."')
    tell = ("pack.toml", 'en = "Tell the patient."', 'de = "Es dem Patienten sagen."\npt-BR = "Avisar."')
    banner = ("pack.toml", 'en = "Show a banner."', 'de = "Ein Banner zeigen."\npt-BR = "Mostrar."')
    rows = [("reasons.csv", text, f"{text},Sim") for text in ("You are blocked.", "Yours.", '"Urgent, and allowed."', "On duty.", "Not allowed.")]
    pack = parse_pack(files_with(*german, discreet, tell, banner, *rows))
    assert pack.languages == ("de", "pt-BR")
    assert pack.obligations["tell"].words == {"de": "Es dem Patienten sagen.", "pt-BR": "Avisar."}
    assert pack.reasons["own"].words == {"de": "Yours.", "pt-BR": "Sim"}
    pdp = Pdp(pack)
    answer = pdp.decide(Request(Entity("patient", "1"), Action("read"), Entity("thing", "2", {"patient": "1"})), pdp.fold([], 0.0))
    assert (answer.rule, answer.words(), answer.for_requester()["reason"]) == ("own", "Yours.", {"de": "Yours.", "pt-BR": "Sim"})
    assert answer.for_reviewer()["reason"] == {"de": "Yours.", "pt-BR": "Sim"}


def test_a_pack_that_names_no_language_speaks_english():
    assert parse_pack(files_with(("pack.toml", 'languages = ["en"]\n', ""))).languages == ("en",)


def codes() -> set[str]:
    """Every word in the source of the checker that has the form of a code."""
    made: set[str] = set()
    for module in ("pack", "sheets", "toml_files", "vocabulary_files", "evaluator/check"):
        tree = ast.parse((Path(__file__).parent.parent / "engine" / f"{module}.py").read_text())
        words = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
        made |= {word for word in words if re.fullmatch(r"[a-z]+(-[a-z]+)+", word)}
    return made


def test_every_code_in_the_source_has_a_case_here():
    told = set(re.findall(r"error\[([a-z-]+)\]", Path(__file__).read_text()))
    assert told == codes()


# --- what is not in a file of the pack ---------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackError) as caught:
        load_pack("polices")
    assert str(caught.value) == "polices: error[pack-missing]: there is no folder `polices`\n  help: name the folder that holds pack.toml"


def test_an_empty_folder_misses_every_file_that_a_pack_needs(tmp_path):
    with pytest.raises(PackError) as caught:
        load_pack(tmp_path)
    assert [one.message for one in caught.value.diagnostics] == [
        f"the file `{name}` is missing" for name in ("model.conf", "pack.toml", "reasons.csv", "rules.csv", "vocabulary.toml")
    ]


def test_an_unknown_setting_that_replaces_one_is_told():
    told = "pack.toml: error[setting-unknown]: there is no setting `inferred_cell`\n  help: did you mean `inferred_cells`?"
    assert mistakes(files_with(), inferred_cell="follow") == told


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("inferred_cells", "Follow", "pack.toml:14: error[setting-value]: `Follow` is not a value of the setting `inferred_cells`\n"
         "   14 | value = \"refuse\"\n  help: choose one of `refuse`, `follow`"),
        ("delay", True, "pack.toml:18: error[setting-value]: `true` is not of the kind of the setting `delay`\n   18 | value = 14\n  help: such as `14`"),
        ("night", "yes", "pack.toml:22: error[setting-value]: `yes` is not of the kind of the setting `night`\n   22 | value = false\n  help: such as `false`"),
    ],
    ids=["outside-its-choices", "true-for-a-number", "a-word-for-true-or-false"],
)  # fmt: skip
def test_a_value_that_replaces_a_setting_is_checked_like_the_setting(setting, value, told):
    assert mistakes(files_with(), **{setting: value}) == told


# --- several at once ---------------------------------------------------------------------------------------------------


def test_mistakes_of_several_files_are_told_at_once_and_in_order():
    files = files_with(
        ("rules.csv", "r.subject.is_patient, allow", "r.subject.is_patiant, Allow"),
        ("rules.csv", "'duty'", "'duti'"),
        ("matrix/read.csv", "T2,Letter,X", "T2,Letter,Q"),
        ("reasons.csv", "tell banner", "tell baner"),
        ("vocabulary.toml", 'kind = "block"', 'kind = "blok"'),
        ("pack.toml", "Europe/Paris", "Europe/Pari"),
    )
    told = mistakes(files)
    assert re.findall(r"^(\S+): error\[([a-z-]+)\]", told, re.MULTILINE) == [
        ("matrix/read.csv:3", "cell-letter"),
        ("pack.toml:4", "time-zone"),
        ("reasons.csv:4", "obligation-unknown"),
        ("rules.csv:6:27", "fact-unknown"),
        ("rules.csv:6:49", "effect-unknown"),
        ("rules.csv:8:45", "value-unknown"),
        ("vocabulary.toml:106", "kind-unknown"),
    ]


def test_both_toml_files_are_told_of_when_neither_can_be_read():
    told = mistakes(files_with(("pack.toml", "version = 1", "version = one"), ("vocabulary.toml", 'absent = "none"', "absent = none")))
    assert re.findall(r"^(\S+): error", told, re.MULTILINE) == ["pack.toml:3:11", "vocabulary.toml:68:10"]


def test_the_caret_stands_under_the_right_one_of_equal_words():
    told = mistakes(files_with(("rules.csv", "p, own, patient, showing, r.subject.is_patient", "p, nobody, nobody, nobody, nobody")))
    carets = re.findall(r"^rules.csv:6:(\d+): error\[([a-z-]+)\]", told, re.MULTILINE)
    assert carets == [("12", "subject-unknown"), ("20", "action-unknown"), ("28", "condition-syntax")]


SIGNS = ["", "\n", "\r", ",", ";", "\t", '"', "'", "[", "]", "{", "}", "=", "#", ".", "-1", "0", "true", "x", "é", "\ufeff", "\x00", "\u2028"]
PIECES = st.sampled_from([*SIGNS, "[x]", "a = 1\n", "p, ", "g, "]) | st.binary(max_size=3)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(PACK)), st.floats(0, 1), st.integers(0, 30), PIECES)
def test_whatever_the_bytes_a_pack_is_read_or_its_mistakes_are_told(file, where, length, piece):
    data = PACK[file].encode()
    at = int(where * len(data))
    files = files_with((file, None, data[:at] + _bytes(piece) + data[at + length :]))
    try:
        Pdp(parse_pack(files))
    except PackError as error:
        assert error.diagnostics
        assert all(one.message and one.code for one in error.diagnostics)


# --- what a pack says, however it was saved ----------------------------------------------------------------------------


def saved(text: str, separator: str = ";") -> bytes:
    """A sheet as a spreadsheet in France saves it: a byte-order mark, semicolons, CRLF, every cell quoted."""
    made = io.StringIO()
    csv.writer(made, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(csv.reader(io.StringIO(text)))
    return b"\xef\xbb\xbf" + made.getvalue().encode()


SHEETS = [name for name in PACK if name.endswith(".csv") and name != "rules.csv"]


@pytest.mark.parametrize("separator", [";", "\t", ","], ids=["semicolons", "tabs", "commas"])
def test_sheets_saved_by_a_french_spreadsheet_say_the_same(separator):
    plain = parse_pack(files_with())
    other = parse_pack(files_with(*((name, None, saved(PACK[name], separator)) for name in SHEETS)))
    assert other.digest == plain.digest
    assert (other.vocabulary, other.reasons, other.invariants) == (plain.vocabulary, plain.reasons, plain.invariants)


def test_blank_lines_and_spaces_around_cells_say_nothing():
    spaced = "\n" + PACK["matrix/read.csv"].replace(",", " , ").replace("\n", "\n\n") + ",,,\n"
    assert parse_pack(files_with(("matrix/read.csv", None, spaced))).digest == parse_pack(files_with()).digest


@pytest.mark.parametrize(
    "change",
    [
        ("rules.csv", "g, list, reading\n", "\n  # lists are read\ng,list,reading\n"),
        ("rules.csv", None, PACK["rules.csv"].replace("\n", "\r\n")),
        ("model.conf", None, "# the one model\r\n" + PACK["model.conf"].replace("\n", "\r\n").replace(" = ", "  =  ")),
        ("vocabulary.toml", 'form = "same"', 'form = "same"   # two identifiers'),
        ("vocabulary.toml", None, PACK["vocabulary.toml"].replace("\n", "\r\n")),
        ("pack.toml", None, "\ufeff# the clinic\n" + PACK["pack.toml"]),
    ],
    ids=["comment-in-rules", "crlf-in-rules", "comment-and-crlf-in-the-model", "comment-in-toml", "crlf-in-toml", "byte-order-mark-in-toml"],
)
def test_comments_and_line_ends_do_not_change_the_digest(change):
    assert parse_pack(files_with(change)).digest == parse_pack(files_with()).digest


@pytest.mark.parametrize(
    "change",
    [
        ("matrix/read.csv", "T1,Report,R,R", "T1,Report,X,R"),
        ("matrix/provenance.csv", "T2,DOCTOR,inferred,S2", "T2,DOCTOR,inferred,S3"),
        ("rules.csv", "r.context.urgent && r.matrix.read", "r.context.urgent || r.matrix.read"),
        ("reasons.csv", "On duty.", "On call."),
        ("pack.toml", "value = 14", "value = 15"),
        ("vocabulary.toml", 'absent = "none"', 'absent = "duty"'),
    ],
    ids=["cell", "provenance", "rule", "reason", "setting", "fact"],
)
def test_whatever_the_files_say_changes_the_digest(change):
    assert parse_pack(files_with(change)).digest != parse_pack(files_with()).digest


def test_the_order_of_rules_changes_the_digest():
    lines = PACK["rules.csv"].splitlines()
    assert parse_pack(files_with(("rules.csv", None, "\n".join([*lines[:-2], lines[-1], lines[-2]])))).digest != parse_pack(files_with()).digest


def test_a_setting_given_instead_changes_the_digest():
    assert parse_pack(files_with(), {"delay": 15}).digest != parse_pack(files_with()).digest


def test_the_order_of_defaults_decides_and_so_changes_the_digest():
    def of(order: str) -> Pack:
        return parse_pack(files_with(("pack.toml", 'showing = "otherwise"', order), ("reasons.csv", "otherwise,", "nothing,default,no,,No.\notherwise,")))

    one, other = of('showing = "otherwise"\nread = "nothing"'), of('read = "nothing"\nshowing = "otherwise"')
    assert (one.default_for("read"), other.default_for("read")) == ("otherwise", "nothing")
    assert one.digest != other.digest
