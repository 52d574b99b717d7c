"""Questions put to the diagrams, against brute force on a pack small enough to walk, and of the French pack: invariants, dead rules, counts, meaning.

`LIBRARY` is the small pack: six facts, a conditional cell, an inferred one, obligations by action, a discreet refusal, situations that cannot be.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from math import prod

import pytest
from hypothesis import given, settings
from random_packs import packs
from test_french_pack import french

from engine.analysis.dead import dead_rules, deciding
from engine.analysis.invariants import Violation, prove
from engine.analysis.mutants import mutants
from engine.errors import PackError, TooLarge
from engine.evaluator.reference import deciding_rule, holds, is_for
from engine.facts import Situation
from engine.pack import MODEL, Invariant, Pack, parse_pack
from engine.pdp import Pdp, compile_pack
from engine.vocabulary import Value

# --- a small pack ----------------------------------------------------------------------------------------------------

_TEXTS = {
    "pack.toml": """
[pack]
name = "library"
version = 1
time_zone = "Europe/Paris"
languages = ["en"]
[default]
using = "closed"
[discreet]
en = "Nothing to show."
[setting.follow_guesses]
value = false
[setting.lends_at_night]
value = true
[setting.quiet_days]
value = 7
unit = "days"
[obligation.stamp]
to = "requester"
actions = ["lend"]
properties = { card = "@context.card" }
en = "Stamp the book."
[obligation.count]
to = "service"
en = "Count the reader."
""",
    "vocabulary.toml": """
subjects = ["reader", "robot"]
[actions]
book = ["read", "lend", "burn"]
[kind.ban]
targets = ["reader"]
[kind.pardon]
targets = ["reader"]
ends = ["ban"]
[grid.shelves]
file = "matrix/shelves.csv"
provenance = "matrix/sources.csv"
letters = { Y = "published", N = "published", y = "inferred", C = "published" }
[list.ranks]
file = "matrix/ranks.csv"
[condition]
with_card = "r.context.card"
[fact.context.hour]
about = "What time it is."
form = "given"
of = "context.hour"
values = ["day", "night", "dusk"]
absent = "dusk"
changeable = true
[fact.context.card]
about = "He shows a card."
form = "given"
of = "context.card"
absent = false
changeable = true
[fact.context.lends_at_night]
about = "Setting."
form = "given"
of = "setting.lends_at_night"
absent = false
[fact.subject.friend]
about = "A friend of the library."
form = "member"
of = "subject.name"
in = ["ann", "bob"]
absent = false
[fact.consent.banned]
about = "He is banned."
form = "held"
kind = "ban"
of = { reader = "subject.id" }
absent = true
[fact.resource.rare]
about = "The book is rare."
form = "coded"
of = "resource.mark"
codes = { gold = true, plain = false }
absent = true
[fact.matrix.shelf]
about = "His rank may use this shelf."
form = "cell"
grid = "shelves"
row = "resource.shelf"
column = { of = "subject.rank", list = "ranks", column = "column" }
letters = { Y = true, N = false, y = { setting = "follow_guesses", is = true }, C = { condition = "with_card" } }
absent = false
[impossible]
friends_are_not_banned = "r.subject.friend && r.consent.banned"
robots_have_no_card = "r.subject.type == 'robot' && r.context.card"
""",
    "model.conf": MODEL,
    "rules.csv": """# The library.
g, read, using
g, lend, using
p, banned, *, *, r.consent.banned, deny
p, hidden, reader, read, r.resource.rare && !r.subject.friend, deny
p, shelf, reader, using, r.matrix.shelf && r.context.hour == 'day', allow
p, night, reader, using, r.context.hour == 'night' && r.context.card && r.context.lends_at_night, allow
p, friends, *, lend, r.subject.friend && r.context.hour != 'night', allow
p, robots, robot, using, !r.context.card, deny
p, burners, reader, burn, r.context.card && r.subject.friend, allow
""",
    "reasons.csv": """rule,legal_basis,discreet,obligations,en
banned,Rule 1,no,,You are banned.
hidden,Rule 2,yes,,The book is rare and he is no friend.
shelf,Rule 3,no,count stamp,Your rank may use this shelf.
night,Rule 4,no,stamp,You have a card.
friends,Rule 5,no,,You are a friend.
robots,Rule 6,no,,You are a robot.
burners,Rule 7,no,,You may burn books.
closed,Rule 8,no,,The library is closed.
""",
    "invariants.csv": """id,form,subject,action,fact,condition
the-banned-read-nothing,never_permit,reader,read,,r.consent.banned
rare-books-are-for-friends,permit_only_if,reader,read,,!r.resource.rare || r.subject.friend
a-card-only-adds,monotone,reader,lend,r.context.card,
""",
    "matrix/shelves.csv": "shelf,label,LOW,HIGH,STAFF\nA,Atlases,Y,Y,N\nB,Bibles,N,y,Y\nC,Codices,C,Y,N\n",
    "matrix/ranks.csv": "rank,column\nnovice,LOW\npage,LOW\nscholar,HIGH\nguest,\n",
    "matrix/sources.csv": """type_code,column,basis,source
A,LOW,published,The sign
A,HIGH,published,The sign
A,STAFF,published,The sign
B,LOW,published,The sign
B,HIGH,inferred,
B,STAFF,published,The sign
C,LOW,published,The sign
C,HIGH,published,The sign
C,STAFF,published,The sign
""",
}
LIBRARY: Mapping[str, bytes] = {name: text.encode() for name, text in _TEXTS.items()}
KEYS = [(subject, action) for subject in ("reader", "robot") for action in ("read", "lend", "burn")]


def edited(file: str, *changes: tuple[str, str], files: Mapping[str, bytes] = LIBRARY) -> dict[str, bytes]:
    """The pack with some words replaced in one file, each where it stands once."""
    text = files[file].decode()
    for old, new in changes:
        assert text.count(old) == 1, f"`{old}` stands {text.count(old)} times in {file}"
        text = text.replace(old, new)
    return {**files, file: text.encode()}


def rule_edited(rule: str, line: str = "") -> dict[str, bytes]:
    """The pack with another line for a rule, or none."""
    lines = LIBRARY["rules.csv"].decode().splitlines(keepends=True)
    kept = [one if not one.startswith(f"p, {rule},") else line and line + "\n" for one in lines]
    made = {**LIBRARY, "rules.csv": "".join(kept).encode()}
    return made if line else {**made, "reasons.csv": re.sub(rf"(?m)^{rule},.*\n", "", LIBRARY["reasons.csv"].decode()).encode()}


def compiled(files: Mapping[str, bytes], **settings: bool) -> Pdp:
    """Compiled, without proving its invariants."""
    return Pdp(parse_pack(files, settings))


# --- brute force -----------------------------------------------------------------------------------------------------


def situations(pack: Pack, names: list[str] | None = None) -> Iterator[dict[str, Value]]:
    """Every situation over some facts (all, when left out); settings and the other facts have one value."""
    rest = {name: fact.values[0] if fact.constant is None else fact.constant for name, fact in pack.vocabulary.facts.items()}
    free = [name for name, fact in pack.vocabulary.facts.items() if fact.constant is None and (names is None or name in names)]
    for values in product(*(pack.vocabulary.facts[name].values for name in free)):
        yield rest | dict(zip(free, values, strict=True))


def is_possible(pack: Pack, subject: str, action: str, situation: Situation) -> bool:
    everything = {**situation, "subject.type": subject, "action.name": action}
    return not any(holds(condition, everything, pack) for condition in pack.vocabulary.impossible.values())


def matter(function: Mapping[tuple[Value, ...], object]) -> list[int]:
    """The places on which a function written out depends."""
    found = []
    for place in range(len(next(iter(function)))):
        seen: dict[object, object] = {}
        if any(seen.setdefault((values[:place], values[place + 1 :]), leaf) != leaf for values, leaf in function.items()):
            found.append(place)
    return found


def counted(function: Mapping[tuple[Value, ...], object], *others: Mapping[tuple[Value, ...], object]) -> Counter[object]:
    """How often a function written out has each value, in situations that differ in what matters to it or to the others."""
    places = sorted({place for one in (function, *others) for place in matter(one)})
    return Counter({tuple(values[place] for place in places): leaf for values, leaf in function.items()}.values())


def brute_deciding(pdp: Pdp, subject: str, action: str) -> dict[str, int]:
    """`deciding`, situation by situation."""
    names = [fact.name for fact in pdp.slices[subject, action].facts]
    rules, possible = {}, {}
    for one in situations(pdp.pack, names):
        key = tuple(one[name] for name in names)
        rules[key] = deciding_rule(pdp.pack, subject, action, one) or ""
        possible[key] = rules[key] if is_possible(pdp.pack, subject, action, one) else None
    return {rule: number for rule, number in counted(possible, rules).items() if rule is not None}


# --- invariants ------------------------------------------------------------------------------------------------------


def test_every_invariant_of_the_french_pack_is_proved() -> None:
    assert len(french().pack.invariants) >= 29
    assert prove(french()) == []


def test_a_pack_whose_invariants_hold_compiles() -> None:
    assert compile_pack(parse_pack(LIBRARY)).pack.name == "library"


VIOLATED = {
    "never_permit": (
        rule_edited("banned", "p, banned, *, *, r.consent.banned && r.context.hour == 'night', deny"),
        "invariants.csv:2: error[invariant-violated]: the invariant `the-banned-read-nothing` does not hold: `shelf` permits reader, read when "
        "consent.banned is true, context.hour is `day`, matrix.shelf is true, resource.rare is false\n"
        "  help: mend the rule `shelf`, or a line above it",
    ),
    "permit_only_if": (
        rule_edited("hidden", "p, hidden, reader, read, r.resource.rare && !r.subject.friend && r.context.hour != 'night', deny"),
        "invariants.csv:3: error[invariant-violated]: the invariant `rare-books-are-for-friends` does not hold: `night` permits reader, read when "
        "consent.banned is false, context.card is true, context.hour is `night`, resource.rare is true, subject.friend is false\n"
        "  help: mend the rule `night`, or a line above it",
    ),
    "monotone": (
        rule_edited("friends", "p, friends, *, lend, r.subject.friend && r.context.hour != 'night' && !r.context.card, allow"),
        "invariants.csv:4: error[invariant-violated]: the invariant `a-card-only-adds` does not hold: `friends` permits reader, lend when "
        "consent.banned is false, context.hour is `day`, matrix.shelf is false, subject.friend is true, and nothing does once context.card is true\n"
        "  help: mend the rule `friends`, or a line above it",
    ),
}


@pytest.mark.parametrize("form", VIOLATED)
def test_a_line_that_breaks_an_invariant_is_reported_with_a_situation(form: str) -> None:
    files, text = VIOLATED[form]
    pdp = compiled(files)
    (violation,) = prove(pdp)
    assert violation.invariant.form == form
    assert violation.diagnostic().render() == text
    assert_shown(pdp.pack, violation)


@pytest.mark.parametrize("form", VIOLATED)
def test_a_pack_with_a_broken_invariant_is_not_compiled(form: str) -> None:
    files, text = VIOLATED[form]
    with pytest.raises(PackError) as caught:
        compile_pack(parse_pack(files))
    assert str(caught.value) == text


def test_an_invariant_that_fails_whatever_happens_says_so() -> None:
    always = rule_edited("banned", "p, banned, *, *, r.subject.type == 'reader', allow")
    (violation, *_) = prove(compiled(always))
    assert "`banned` permits reader, read when consent.banned is true" in violation.diagnostic().message
    nobody = edited("invariants.csv", ("r.consent.banned", "r.subject.type == 'reader'"), files=always)
    (violation, *_) = prove(compiled(nobody))
    assert violation.diagnostic().message == "the invariant `the-banned-read-nothing` does not hold: `banned` permits reader, read in every situation"


def assert_shown(pack: Pack, violation: Violation) -> None:
    """The situation of a violation, by the definition: whatever the facts that it leaves out, the rule decides and the invariant does not hold."""
    invariant, chance = violation.invariant, random.Random(violation.rule)
    for _ in range(20):
        made = {name: chance.choice(fact.values) if fact.constant is None else fact.constant for name, fact in pack.vocabulary.facts.items()}
        made |= violation.situation
        if invariant.form == "monotone":
            made[invariant.fact] = False
        everything = {**made, "subject.type": violation.subject, "action.name": violation.action}
        assert deciding_rule(pack, violation.subject, violation.action, made) == violation.rule
        assert pack.by_id[violation.rule].permits
        if invariant.form == "monotone":
            after = deciding_rule(pack, violation.subject, violation.action, {**made, invariant.fact: True})
            assert after not in pack.by_id or not pack.by_id[after].permits
        else:
            assert invariant.condition is not None
            assert holds(invariant.condition, everything, pack) is (invariant.form == "never_permit")


UPHELD_BY = {
    "blocked-reads-nothing": "R05: deleted",
    "blocked-changes-nothing-but-his-own": "R05-delete: deleted",
    "masked-is-read-only-by-those-entitled": "R09: deleted",
    "only-the-holder-masks-many-at-once": "H06-representative: deleted",
    "only-assurance-maladie-says-who-the-holder-is": "A16: subject.kind negated",
    "no-reading-for-another-purpose": "R02: deleted",
    "no-reading-without-strong-authentication": "R03: deleted",
    "refused-break-glass": "R12: deleted",
    "refused-regulation": "R10: deleted",
    "break-glass-is-justified": "R13: effect flipped",
    "unknown-mode": "R20-mode: deleted",
    "inactive-record-is-not-read": "R01: deleted",
    "absent-document": "R04: deleted",
    "organisations-read-nothing": "H06-organisation: effect flipped",
    "representatives-see-nothing-hidden-from-them": "H04: deleted",
    "representatives-see-nothing-hidden-from-the-holder": "H04: deleted",
    "representatives-lose-a-minor-at-majority": "H05: deleted",
    "only-the-holder-acts-as-patient": "H06: deleted",
    "nothing-shared-that-must-not-be": "W05: deleted",
    "nobody-blocks-a-treating-physician": "A02-block: deleted",
    "regulation-changes-nothing": "W02-regulation_other: deleted",
    "excluded-teams-do-not-read": "R16: consent.excluded negated",
    "authorisation-only-adds": "R18: consent.authorised negated",
    "authorisation-in-person-only-adds": "R15: consent.authorised_in_person negated",
    "team-consent-only-adds": "R16: consent.team_consent negated",
    "membership-only-adds": "R19: effect flipped",
    "treating-only-adds": "R07: effect flipped",
    "equal-rights-only-add": "R08: effect flipped",
    "representation-only-adds": "H05: effect flipped",
    "authorisation-only-adds-to-feeding": "W01-consent: consent.authorised negated",
    "team-consent-only-adds-to-feeding": "W01-consent: consent.team_consent negated",
    "known-majority-only-adds": "A14-majority: consent.majority_proved negated",
}
"""For each invariant of the French pack a mistake in one line that breaks it: none holds for nothing."""


def test_for_every_invariant_of_the_french_pack_a_mistake_is_known_that_breaks_it() -> None:
    assert {invariant.id for invariant in french().pack.invariants} == UPHELD_BY.keys()


@pytest.mark.parametrize("id", UPHELD_BY)
def test_a_mistake_in_one_line_of_the_french_pack_breaks_its_invariant(id: str) -> None:
    pack = french().pack
    invariant = next(one for one in pack.invariants if one.id == id)
    mutant = next(one for one in mutants(pack) if one.name == UPHELD_BY[id])
    touched = [key for key in spoken_of(pack, invariant) if any(is_for(pack, rule, *key) for rule in mutant.touched)]
    violation = next(found for key in touched for found in alone(mutant.pack, invariant, *key))
    assert_shown(mutant.pack, violation)


def spoken_of(pack: Pack, invariant: Invariant) -> list[tuple[str, str]]:
    return [(s, a) for s in pack.vocabulary.subjects for a in pack.vocabulary.actions if is_for(pack, invariant, s, a)]  # type: ignore[arg-type]


def alone(pack: Pack, invariant: Invariant, subject: str, action: str) -> list[Violation]:
    """The violations of one invariant in one slice, compiled alone."""
    vocabulary = replace(pack.vocabulary, subjects=(subject,), actions={action: pack.vocabulary.actions[action]})
    return prove(Pdp(replace(pack, vocabulary=vocabulary, invariants=(invariant,))))


def test_an_invariant_that_takes_too_large_a_diagram_fails_cleanly() -> None:
    names = [f"f{n:02}" for n in range(20)]
    facts = "".join(f'[fact.context.{name}]\nabout = "It."\nform = "given"\nof = "context.{name}"\nabsent = false\n' for name in names)
    crossed = " || ".join(f"r.context.f{n:02} && r.context.f{n + 10:02}" for n in range(10))
    files = edited("vocabulary.toml", ("[fact.context.hour]", facts + "[fact.context.hour]"))
    files = edited("pack.toml", ('languages = ["en"]', 'languages = ["en"]\nnode_budget = 100'), files=files)
    files = edited("invariants.csv", ("a-card-only-adds,monotone,reader,lend,r.context.card,", f"crossed,never_permit,*,burn,,{crossed}"), files=files)
    with pytest.raises(TooLarge) as caught:
        compile_pack(parse_pack(files))
    assert str(caught.value) == (
        "invariants.csv:4: error[invariant-too-large]: to prove the invariant `crossed` takes a diagram of more than 1,000 nodes for reader, burn\n"
        "  help: say it in several invariants, or raise node_budget in pack.toml"
    )


# --- dead rules ------------------------------------------------------------------------------------------------------


def test_no_rule_of_the_french_pack_is_dead() -> None:
    assert dead_rules(french()) == []


def test_a_shadowed_rule_is_reported() -> None:
    assert dead_rules(compiled(LIBRARY)) == []
    (found,) = dead_rules(compiled(rule_edited("robots", "p, robots, robot, burn, r.context.card && r.consent.banned, deny")))
    assert found.render() == (
        "rules.csv:9: warning[rule-dead]: the rule `robots` never decides\n"
        "    9 | r.context.card && r.consent.banned\n"
        "  help: an earlier rule always decides first, or its condition cannot hold under the settings in force"
    )


def test_a_rule_that_a_setting_switches_off_is_dead_under_that_setting() -> None:
    assert [one.message for one in dead_rules(compiled(LIBRARY, lends_at_night=False))] == ["the rule `night` never decides"]


def test_a_rule_about_what_cannot_be_is_dead() -> None:
    only_impossible = rule_edited("robots", "p, robots, robot, using, r.context.card && !r.consent.banned, deny")
    assert [one.message for one in dead_rules(compiled(only_impossible))] == ["the rule `robots` never decides"]


# --- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subject", "action"), KEYS)
def test_rules_decide_as_many_situations_as_brute_force_says(subject: str, action: str) -> None:
    pdp = compiled(LIBRARY)
    assert deciding(pdp, subject, action) == brute_deciding(pdp, subject, action)


def test_counts_add_up_to_the_possible_situations() -> None:
    """Of 144 situations of a reader who reads, those of a friend who is banned cannot be; a robot has no card, and its name does not matter."""
    pdp = compiled(LIBRARY)
    assert sum(deciding(pdp, "reader", "read").values()) == 144 * 3 // 4 == sum(is_possible(pdp.pack, "reader", "read", one) for one in situations(pdp.pack))
    assert deciding(pdp, "robot", "read") == {"banned": 1, "robots": 1}


@settings(max_examples=20)
@given(packs(most=4))
def test_rules_of_a_random_pack_decide_as_many_situations_as_brute_force_says(files: dict[str, bytes]) -> None:
    pdp = Pdp(parse_pack(files))
    for (subject, action), slice in {id(slice): (key, slice) for key, slice in pdp.slices.items()}.values():
        if prod(slice.store.sizes) <= 1000:
            assert deciding(pdp, subject, action) == brute_deciding(pdp, subject, action)


ASKED_BY_A_CELL = {
    "who asks": "r.subject.type == 'robot' || r.context.card",
    "what is done": "r.action.name != 'lend' && r.context.card",
    "a setting": "r.context.card && r.context.lends_at_night",
    "a setting that is off": "r.context.card && !r.context.lends_at_night",
    "all of them": "r.subject.type == 'reader' && (r.action.name == 'read' || r.context.lends_at_night && r.context.hour != 'day')",
}


@pytest.mark.parametrize("condition", ASKED_BY_A_CELL.values(), ids=ASKED_BY_A_CELL)
def test_the_condition_of_a_cell_may_ask_who_asks_what_is_done_and_a_setting_and_none_of_them_is_left_open(condition: str) -> None:
    pdp = compiled(edited("vocabulary.toml", ('with_card = "r.context.card"', f'with_card = "{condition}"')))
    assert all(fact.constant is None for slice in pdp.slices.values() for fact in slice.facts)
    for subject, action in KEYS:
        assert deciding(pdp, subject, action) == brute_deciding(pdp, subject, action)
        for one in situations(pdp.pack):
            assert pdp.evaluate(subject, action, one).rule == (deciding_rule(pdp.pack, subject, action, one) or "")


def test_an_analysis_leaves_the_compiled_pack_as_it_was() -> None:
    pdp = compiled(LIBRARY)
    before = [(len(slice.store.nodes), slice.store.order) for slice in pdp.slices.values()]
    assert pdp.meaning and not dead_rules(pdp) and not prove(pdp)
    assert [(len(slice.store.nodes), slice.store.order) for slice in pdp.slices.values()] == before


# --- meaning ---------------------------------------------------------------------------------------------------------

_RULES = LIBRARY["rules.csv"].decode().splitlines()
_WORDS = LIBRARY["vocabulary.toml"].decode()


def _shuffled_facts() -> str:
    head, *blocks = re.split(r"(?m)^(?=\[fact\.|\[impossible|\[kind\.)", _WORDS)
    return head + "".join(reversed(blocks))


SAME: dict[str, Mapping[str, bytes]] = {
    "two rules of slices that never meet change places": {
        **LIBRARY, "rules.csv": "\n".join([*_RULES[:8], _RULES[9], _RULES[8]]).encode()
    },
    "comments and empty lines": {
        **LIBRARY, "rules.csv": ("# Again.\n\n" + "\n# More.\n".join(_RULES) + "\n").encode(), "vocabulary.toml": ("# Words.\n" + _WORDS).encode()
    },
    "line ends of another system": {name: data.replace(b"\n", b"\r\n") for name, data in LIBRARY.items()},
    "the vocabulary in another order": {**LIBRARY, "vocabulary.toml": _shuffled_facts().encode()},
    "values in another order": edited("vocabulary.toml", ('["day", "night", "dusk"]', '["dusk", "day", "night"]'), ('["ann", "bob"]', '["bob", "ann"]')),
    "codes, letters, rows and columns in another order": {
        **edited("vocabulary.toml", ("gold = true, plain = false", "plain = false, gold = true"), ("Y = true, N = false, y", "N = false, Y = true, y")),
        "matrix/shelves.csv": b"shelf,label,STAFF,HIGH,LOW\nC,Codices,N,Y,C\nB,Bibles,Y,y,N\nA,Atlases,N,Y,Y\n",
    },
    "a cell that nobody reaches": edited("matrix/shelves.csv", ("A,Atlases,Y,Y,N", "A,Atlases,Y,Y,Y")),
    "a code that says what an unknown one says": edited("vocabulary.toml", ("gold = true, plain = false", "plain = false")),
    "what a fact is about, and a fact that no rule asks": edited(
        "vocabulary.toml",
        ('"He shows a card."', '"A card."'),
        ("[impossible]", '[fact.context.new]\nabout = "New."\nform = "given"\nof = "context.new"\nabsent = false\n[impossible]'),
    ),
    "a setting on which nothing depends": edited("pack.toml", ("value = 7", "value = 8")),
    "a condition said otherwise": rule_edited("hidden", "p, hidden, reader, read, !(r.subject.friend || !r.resource.rare), deny"),
}  # fmt: skip
"""Edits of the library's files that change nothing that it decides."""

RENAMED = edited("reasons.csv", ("banned,Rule 1", "expelled,Rule 1"), files=edited("rules.csv", ("p, banned,", "p, expelled,")))

NEW_ROW = edited("matrix/shelves.csv", ("A,Atlases,Y,Y,N\n", "A,Atlases,Y,Y,N\nD,Diaries,N,Y,N\n"))
NEW_ROW = edited("matrix/sources.csv", ("A,LOW,", "".join(f"D,{column},published,A letter\n" for column in ("LOW", "HIGH", "STAFF")) + "A,LOW,"), files=NEW_ROW)

OTHER: dict[str, Mapping[str, bytes]] = {
    "an effect": rule_edited("friends", "p, friends, *, lend, r.subject.friend && r.context.hour != 'night', deny"),
    "a condition": rule_edited("friends", "p, friends, *, lend, r.subject.friend, allow"),
    "the order of two rules that meet": edited(
        "rules.csv", ("p, banned, *, *, r.consent.banned, deny\n", ""), ("p, shelf,", "p, banned, *, *, r.consent.banned, deny\np, shelf,")
    ),
    "the words of a reason": edited("reasons.csv", ("You are banned.", "You are expelled.")),
    "a legal basis": edited("reasons.csv", ("Rule 1", "Rule 9")),
    "an obligation": edited("reasons.csv", ("count stamp", "count")),
    "the actions of an obligation": edited("pack.toml", ('actions = ["lend"]', 'actions = ["lend", "read"]')),
    "to whom an obligation is": edited("pack.toml", ('to = "service"', 'to = "requester"')),
    "a refusal that is no longer discreet": edited("reasons.csv", ("hidden,Rule 2,yes", "hidden,Rule 2,no")),
    "the discreet text": edited("pack.toml", ("Nothing to show.", "Nothing.")),
    "a default": edited("pack.toml", ('using = "closed"', 'lend = "closed"')),
    "a cell that turns": edited("matrix/shelves.csv", ("A,Atlases,Y,Y,N", "A,Atlases,Y,N,N")),
    "a new row": NEW_ROW,
    "the column of a rank": edited("matrix/ranks.csv", ("page,LOW", "page,HIGH")),
    "a rank without a column any more": edited("matrix/ranks.csv", ("page,LOW", "page,")),
    "a code": edited("vocabulary.toml", ("gold = true, plain = false", "gold = true, plain = false, silver = false")),
    "a name in a list": edited("vocabulary.toml", ('["ann", "bob"]', '["ann"]')),
    "a setting in force": edited("pack.toml", ("[setting.lends_at_night]\nvalue = true", "[setting.lends_at_night]\nvalue = false")),
    "a guess that is followed": edited("pack.toml", ("[setting.follow_guesses]\nvalue = false", "[setting.follow_guesses]\nvalue = true")),
    "the value when an input is unknown": edited("vocabulary.toml", ('of = "resource.mark"\ncodes', 'of = "resource.mark"\nunknown = false\ncodes')),
    "the value when an input is absent": edited("vocabulary.toml", ("} }\nabsent = false", "} }\nabsent = true\nunknown = false")),
    "the input that a fact looks at": edited("vocabulary.toml", ('of = "context.card"', 'of = "context.ticket"')),
    "the condition that a cell names": edited("vocabulary.toml", ('with_card = "r.context.card"', 'with_card = "!r.context.card"')),
    "lists of codes": edited("vocabulary.toml", ('of = "resource.mark"\n', 'of = "resource.mark"\nseveral = true\n')),
    "what ends a directive": edited("vocabulary.toml", ('ends = ["ban"]\n', "")),
    "the time zone": edited("pack.toml", ("Europe/Paris", "UTC")),
    "a new action": edited("vocabulary.toml", ('"lend", "burn"]', '"lend", "burn", "smell"]')),
}  # fmt: skip
"""Edits of the library's files that change what it decides."""


@pytest.mark.parametrize("edit", SAME)
def test_meaning_does_not_change_with(edit: str) -> None:
    assert compiled(SAME[edit]).meaning == compiled(LIBRARY).meaning


@pytest.mark.parametrize("edit", OTHER)
def test_meaning_changes_with(edit: str) -> None:
    assert compiled(OTHER[edit]).meaning != compiled(LIBRARY).meaning


def test_meaning_does_not_change_when_a_rule_is_renamed_with_its_reason() -> None:
    assert compiled(RENAMED).meaning == compiled(LIBRARY).meaning
