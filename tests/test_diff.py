"""What an edit changes, against brute force on the small pack of test_analysis.py and on random ones: counts of situations, cells and codes, lines, facts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_packs import packs
from test_analysis import LIBRARY, OTHER, RENAMED, SAME, compiled, counted, edited, is_possible, rule_edited, situations
from test_french_pack import ROOT, french

from engine.analysis.diff import CLOSES, OPENS, Diff, diff
from engine.analysis.diff import OTHER as ANOTHER
from engine.evaluator.reference import deciding_rule
from engine.facts import situation
from engine.pack import load_pack, parse_pack
from engine.pdp import Pdp
from engine.request import Action, Entity, Request
from engine.vocabulary import Cell, Coded, Fact, Member, Value

Key = tuple[str, str]
Counts = dict[tuple[str, str, str], tuple[tuple[str, ...], int]]
Fixed = Mapping[str, tuple[Value, Value]]


# --- brute force -----------------------------------------------------------------------------------------------------


def translated(pdp: Pdp, values: Mapping[str, Value]) -> dict[str, Value]:
    """A whole situation of a pack from some values: those that it does not know are unknown to it."""
    made = dict(next(situations(pdp.pack, [])))
    for name, value in values.items():
        fact = pdp.pack.vocabulary.facts.get(name)
        if fact is not None and fact.constant is None:
            made[name] = value if any(value is one or (value == one and isinstance(one, str)) for one in fact.values) else fact.unknown
    return made


def answered(pdp: Pdp, key: Key, values: Mapping[str, Value]) -> tuple[str, str, tuple[object, ...], bool]:
    """Rule, decision, what is owed, whether it is discreet: by the definition."""
    rule = deciding_rule(pdp.pack, *key, translated(pdp, values)) or ""
    decision = "no_rule" if not rule else "permit" if rule in pdp.pack.by_id and pdp.pack.by_id[rule].permits else "refuse"
    reason = pdp.pack.reasons.get(rule)
    owed = [pdp.pack.obligations[id] for id in reason.obligations] if reason else []
    told = tuple((one.id, one.to, tuple(one.properties.items()), tuple(one.words.items())) for one in owed if one.is_owed_by(key[1]))
    return rule, decision, told, bool(reason and reason.discreet)


def facts_of(before: Pdp, after: Pdp, key: Key) -> dict[str, list[Value]]:
    """The facts that either pack asks in a slice, with all the values that one of them knows."""
    names = sorted({fact.name for pdp in (before, after) if key in pdp.slices for fact in pdp.slices[key].facts})
    known = {name: [pdp.pack.vocabulary.facts[name].values for pdp in (before, after) if name in pdp.pack.vocabulary.facts] for name in names}
    return {name: list({(type(value), value): value for values in several for value in values}.values()) for name, several in known.items()}


def brute_changes(before: Pdp, after: Pdp, fixed: Fixed | None = None) -> Counts:
    """The changes, situation by situation. Those that `after` calls impossible are left out; of a cell that changed, also those that were before."""
    made: Counts = {}
    for key in [*before.slices, *(key for key in after.slices if key not in before.slices)]:
        facts = facts_of(before, after, key)
        if fixed and not facts.keys() & fixed.keys():
            continue
        function: dict[tuple[Value, ...], object] = {}
        for values in product(*([None] if fixed and name in fixed else known for name, known in facts.items())):
            ends = [{**dict(zip(facts, values, strict=True)), **{name: pair[side] for name, pair in (fixed or {}).items()}} for side in (0, 1)]
            possible = all(is_possible(after.pack, *key, translated(after, {}) | end) for end in ends[not fixed :])
            function[values] = (answered(before, key, ends[0]), answered(after, key, ends[1])) if possible else None
        for pair, number in counted(function).items():
            if pair is not None and (kind := kind_of(*pair)):  # type: ignore[misc]
                change = kind, pair[0][0], pair[1][0]  # type: ignore[index]
                where, total = made.get(change, ((), 0))
                made[change] = (*where, " ".join(key)), total + number
    return made


def kind_of(a: tuple[object, ...], b: tuple[object, ...]) -> str:
    if (a[1] == "permit") != (b[1] == "permit"):
        return OPENS if b[1] == "permit" else CLOSES
    return ANOTHER if a != b else ""


def changes_of(found: Diff) -> Counts:
    made = {(one.kind, one.before, one.after): (one.slices, one.situations) for one in found.changes}
    assert len(made) == len(found.changes)
    return made


def assert_examples_shown(before: Pdp, after: Pdp, found: Diff) -> None:
    """The situation beside each change: whatever the facts that it leaves out, those two rules decide in its first slice."""
    chance = random.Random(0)
    for one in found.changes:
        key = tuple(one.slices[0].split(" "))
        for _ in range(5):
            values = {name: chance.choice(known) for name, known in facts_of(before, after, key).items()} | one.example  # type: ignore[arg-type]
            assert [answered(pdp, key, values)[0] for pdp in (before, after)] == [one.before, one.after]  # type: ignore[arg-type]
    for changed in found.inputs:
        assert [one.kind for one in changed.examples] == [kind for kind, number in ((OPENS, changed.opens), (CLOSES, changed.closes)) if number]
        for one in changed.examples:
            key = tuple(one.slices[0].split(" "))
            values = {name: chance.choice(known) for name, known in facts_of(before, after, key).items()} | one.example  # type: ignore[arg-type]
            ends = [(before, changed.before), (after, changed.after)]
            assert [answered(pdp, key, values | {changed.fact: value})[0] for pdp, value in ends] == [one.before, one.after]  # type: ignore[arg-type]


EDITS = {**SAME, **OTHER, "a rule renamed with its reason": RENAMED}


@pytest.mark.parametrize("way", ["done", "undone"])
@pytest.mark.parametrize("edit", EDITS)
def test_changes_are_those_of_brute_force(edit: str, way: str) -> None:
    packs = compiled(LIBRARY), compiled(EDITS[edit])
    before, after = packs if way == "done" else packs[::-1]
    found = diff(before, after)
    assert changes_of(found) == brute_changes(before, after)
    assert_examples_shown(before, after, found)
    for one in found.inputs:
        alone = brute_changes(before, after, {one.fact: (one.before, one.after)})
        assert [one.opens, one.closes] == [sum(number for (kind, _, _), (_, number) in alone.items() if kind == wanted) for wanted in (OPENS, CLOSES)]
    redefined = {"the input that a fact looks at", "lists of codes", "what ends a directive"}
    assert found.opens is (edit in redefined or any(kind == OPENS for kind, _, _ in changes_of(found)) or any(one.opens for one in found.inputs))


@pytest.mark.parametrize("edit", EDITS)
def test_what_an_edit_opens_closes_when_it_is_undone(edit: str) -> None:
    before, after = compiled(LIBRARY), compiled(EDITS[edit])
    done, undone = diff(before, after), diff(after, before)
    assert {(one.fact, one.before, one.after, frozenset(one.places), one.opens, one.closes) for one in done.inputs} == {
        (one.fact, one.after, one.before, frozenset(one.places), one.closes, one.opens) for one in undone.inputs
    }
    opposite = {OPENS: CLOSES, CLOSES: OPENS, ANOTHER: ANOTHER}
    assert changes_of(done) == {(opposite[kind], after, before): what for (kind, before, after), what in changes_of(undone).items()}


@settings(max_examples=25)
@given(st.data())
def test_changes_of_random_packs_are_those_of_brute_force(data: st.DataObject) -> None:
    before, after = (Pdp(parse_pack(data.draw(packs(most=3)))) for _ in range(2))
    if all(prod(map(len, facts_of(before, after, key).values())) <= 500 for key in before.slices.keys() | after.slices.keys()):
        found = diff(before, after)
        assert changes_of(found) == brute_changes(before, after)
        assert_examples_shown(before, after, found)


def requests() -> Iterator[Request]:
    """A request for each place that the library's codes and cells can come from."""
    for rank, shelf in product(["novice", "page", "scholar", "guest", "?", None], ["A", "B", "C", "D", "?", None]):
        for mark, name in zip(["gold", "plain", "silver", "?", None], ["ann", "bob", "cyd", 1, None], strict=True):
            yield Request(Entity("reader", "1", {"rank": rank, "name": name}), Action("read"), Entity("book", "2", {"shelf": shelf, "mark": mark}))


@pytest.mark.parametrize("edit", EDITS)
def test_cells_and_codes_that_changed_are_those_that_give_a_request_another_value(edit: str) -> None:
    before, after = compiled(LIBRARY), compiled(EDITS[edit])
    wanted: dict[tuple[str, Value, Value], set[tuple[str, ...]]] = {}
    for request in requests():
        was, now = (situation(pdp.pack.vocabulary.facts.values(), request, pdp.fold([], 0.0), 0.0) for pdp in (before, after))
        for name, fact in before.pack.vocabulary.facts.items():
            places = {Cell: ("shelf", "rank"), Coded: ("mark",), Member: ("name",)}.get(type(fact.form))
            if places and name in now and was[name] != now[name]:
                inputs = {**request.subject.properties, **request.resource.properties}
                words = tuple(inputs[key] for key in places)
                known = set().union(*(listed(pdp.pack.vocabulary.facts[name]) for pdp in (before, after)))
                place = ("(absent)",) if None in words else words if known.issuperset(words) else ("(unknown)",)
                wanted.setdefault((name, was[name], now[name]), set()).add(place)
    found = diff(before, after)
    told: dict[tuple[str, Value, Value], set[tuple[str, ...]]] = {}
    for one in found.inputs:
        told[one.fact, one.before, one.after] = {place for text in one.places for place in reached(before, after, one.fact, text)}
    assert told == wanted


def listed(fact: Fact) -> set[str]:
    """The words that a list or a grid has."""
    match fact.form:
        case Member(_, among):
            return set(among)
        case Coded(_, codes):
            return set(codes)
        case Cell(grid, _, _, column_of):
            return {*grid.rows, *column_of}
    return set()


def reached(before: Pdp, after: Pdp, fact: str, place: str) -> Iterator[tuple[str, ...]]:
    """The inputs that a place stands for: a code itself, a cell for every rank that leads there."""
    row, _, name = place.partition(" ")
    if not name:
        yield (place,)
        return
    ranks = [dict(pdp.pack.vocabulary.facts[fact].form.column_of) for pdp in (before, after)]  # type: ignore[union-attr]
    if name in ranks[0].keys() | ranks[1].keys():
        yield row, name
    yield from ((row, rank) for rank, column in ranks[0].items() if column == name == ranks[1].get(rank))


# --- nothing changed -------------------------------------------------------------------------------------------------

TOLD_ALL_THE_SAME = {
    "what a fact is about, and a fact that no rule asks": Diff({}, {}, (), (), (), {"context.new": "added"}),
    "a setting on which nothing depends": Diff({"quiet_days": (7, 8)}, {}, (), ()),
    "a condition said otherwise": Diff(
        {},
        {"hidden": "reader, read, r.resource.rare && !r.subject.friend, deny -> reader, read, !(r.subject.friend || !r.resource.rare), deny"},
        (), (),
    ),
}  # fmt: skip
"""Edits that change nothing decided, and are told: somebody meant something by them."""


def test_a_pack_does_not_differ_from_itself() -> None:
    found = diff(compiled(LIBRARY), compiled(LIBRARY))
    assert found.is_empty and not found.opens
    assert found.text() == "The two packs decide everything alike."
    assert found == Diff({}, {}, (), ())


@pytest.mark.parametrize("edit", SAME)
def test_nothing_is_said_to_change_with(edit: str) -> None:
    found = diff(compiled(LIBRARY), compiled(SAME[edit]))
    assert found == TOLD_ALL_THE_SAME.get(edit, Diff({}, {}, (), ()))


@pytest.mark.parametrize("edit", OTHER)
def test_something_is_said_to_change_with(edit: str) -> None:
    assert not diff(compiled(LIBRARY), compiled(OTHER[edit])).is_empty


# --- cells and codes -------------------------------------------------------------------------------------------------


def inputs(edit: str) -> list[tuple[str, Value, Value, tuple[str, ...], int, int]]:
    found = diff(compiled(LIBRARY), compiled(OTHER[edit]))
    assert found.changes == () and not found.rules and not found.facts and not found.settings
    return [(one.fact, one.before, one.after, one.places, one.opens, one.closes) for one in found.inputs]


def test_one_changed_cell_is_one_place() -> None:
    assert inputs("a cell that turns") == [("matrix.shelf", True, False, ("A HIGH",), 0, 8)]


def test_an_imported_row_gives_its_cells_what_they_say() -> None:
    assert inputs("a new row") == [("matrix.shelf", False, True, ("D HIGH",), 8, 0)]


def test_a_code_that_leads_to_another_column_is_placed_by_itself() -> None:
    assert inputs("the column of a rank") == [("matrix.shelf", "with_card", True, ("C page",), 4, 0)]
    gone = inputs("a rank without a column any more")
    assert gone == [("matrix.shelf", True, False, ("A page",), 0, 8), ("matrix.shelf", "with_card", False, ("C page",), 0, 4)]


def test_a_new_code_and_a_name_taken_off_a_list_are_places() -> None:
    assert [one[:4] for one in inputs("a code")] == [("resource.rare", True, False, ("silver",))]
    assert [one[:4] for one in inputs("a name in a list")] == [("subject.friend", True, False, ("bob",))]


def test_a_name_that_is_in_no_list_is_not_one_that_cannot_be_read() -> None:
    known = edited("vocabulary.toml", ('in = ["ann", "bob"]\n', 'in = ["ann", "bob"]\nunknown = true\n'))
    found = diff(compiled(known), compiled(edited("vocabulary.toml", (', "bob"', ""), files=known)))
    assert [(one.before, one.after, one.places) for one in found.inputs] == [(True, False, ("bob",))]


# --- settings, facts, lines ------------------------------------------------------------------------------------------


def test_settings_that_changed_came_or_went_are_told() -> None:
    more = edited("pack.toml", ("[setting.quiet_days]\nvalue = 7", "[setting.loud_days]\nvalue = 8"), ("Europe/Paris", "UTC"), ("Nothing to show.", "Nothing."))
    found = diff(compiled(LIBRARY), compiled(more))
    assert list(found.settings.items()) == [
        ("discreet.en", ("Nothing to show.", "Nothing.")),
        ("loud_days", (None, 8)),
        ("quiet_days", (7, None)),
        ("time_zone", ("Europe/Paris", "UTC")),
    ]
    assert found.text() == (
        "Settings:\n  discreet.en: Nothing to show. -> Nothing.\n  loud_days: nothing -> 8\n  quiet_days: 7 -> nothing\n  time_zone: Europe/Paris -> UTC"
    )


FACTS = {
    "looks at other inputs": [
        ("context.card", ('of = "context.card"', 'of = "context.ticket"')),
        ("resource.rare", ('of = "resource.mark"\n', 'of = "resource.mark"\nseveral = true\n')),
        ("matrix.shelf", ('row = "resource.shelf"', 'row = "resource.place"')),
        ("context.card", ('form = "given"\nof = "context.card"', 'form = "given"\ntext = true\nof = "context.card"')),
        ("consent.banned", ('{ reader = "subject.id" }', '{ reader = "subject.name" }')),
        ("context.lends_at_night", ('of = "setting.lends_at_night"', 'of = "context.lends_at_night"')),
    ],
    "another form": [("context.card", ('form = "given"\nof = "context.card"', 'form = "member"\nin = ["card"]\nof = "context.card"'))],
    "other values": [("context.hour", ('["day", "night", "dusk"]', '["day", "night", "dusk", "dawn"]'))],
    "ended by other kinds of directives": [("consent.banned", ('ends = ["ban"]\n', ""))],
}


@pytest.mark.parametrize(("what", "fact", "change"), [(what, fact, change) for what, several in FACTS.items() for fact, change in several])
def test_a_fact_that_is_defined_otherwise_is_told(what: str, fact: str, change: tuple[str, str]) -> None:
    found = diff(compiled(LIBRARY), compiled(edited("vocabulary.toml", change)))
    assert found.facts == {fact: what}
    assert found.opens, "nobody knows what it does not open"


def test_time_is_counted_in_another_time_zone() -> None:
    aged = '[fact.resource.old]\nabout = "Old."\nform = "elapsed"\nsince = "resource.bought"\nat_least = { days = 7 }\nabsent = false\n[impossible]'
    files = edited("vocabulary.toml", ("[impossible]", aged))
    found = diff(compiled(files), compiled(edited("pack.toml", ("Europe/Paris", "UTC"), files=files)))
    assert found.facts == {"resource.old": "in another time zone"} and found.settings == {"time_zone": ("Europe/Paris", "UTC")}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (('{ reader = "subject.id" }\nabsent = true', '{ reader = "subject.id" }\nabsent = false'), ("consent.banned", True, False, ("(absent)",))),
        (("codes = { gold", "unknown = false\ncodes = { gold"), ("resource.rare", True, False, ("(unknown)",))),
        (('of = "context.card"\nabsent = false', 'of = "context.card"\nunknown = true\nabsent = false'), ("context.card", False, True, ("(unknown)",))),
        (('absent = "dusk"', 'absent = "day"'), ("context.hour", "dusk", "day", ("(absent)", "(unknown)"))),
    ],
)
def test_another_value_of_an_input_that_is_missing_is_counted_like_a_code(change: tuple[str, str], changed: tuple[object, ...]) -> None:
    found = diff(compiled(LIBRARY), compiled(edited("vocabulary.toml", change)))
    (one,) = found.inputs
    assert (one.fact, one.before, one.after, one.places) == changed
    assert one.opens and found.opens and not found.facts


def test_a_time_that_a_setting_or_the_vocabulary_makes_longer_is_told() -> None:
    aged = '[fact.resource.old]\nabout = "Old."\nform = "elapsed"\nsince = "resource.bought"\nat_least = { days = "quiet_days" }\nabsent = false\n[impossible]'
    files = edited("vocabulary.toml", ("[impossible]", aged))
    before = compiled(files)
    for file, change, what in (
        ("pack.toml", ("value = 7", "value = 8"), "7 days -> 8 days"),
        ("vocabulary.toml", ('days = "quiet_days"', "months = 7"), "7 days -> 7 months"),
        ("vocabulary.toml", ("resource.bought", "resource.sold"), "looks at other inputs"),
    ):
        assert diff(before, compiled(edited(file, change, files=files))).facts == {"resource.old": what}


def test_a_fact_that_comes_or_goes_is_told() -> None:
    files = {name: data.replace(b"r.context.card", b"r.context.ticket") for name, data in LIBRARY.items()}
    found = diff(compiled(LIBRARY), compiled(edited("vocabulary.toml", ("[fact.context.card]", "[fact.context.ticket]"), files=files)))
    assert found.facts == {"context.card": "removed", "context.ticket": "added"}


def test_a_value_that_only_the_old_pack_knows_and_only_an_impossible_condition_of_the_new_names() -> None:
    before = edited("vocabulary.toml", ('"dusk"]', '"dusk", "dawn"]'))
    after = edited("vocabulary.toml", ('"dusk"]', '"dusk", "noon"]'), ("[impossible]", "[impossible]\nno_noon = \"r.context.hour == 'noon'\""))
    after = edited("rules.csv", (" && r.context.hour == 'day'", ""), (" && r.context.hour != 'night'", ""), ("r.context.hour == 'night' && ", ""), files=after)
    packs = compiled(before), compiled(after)
    assert changes_of(diff(*packs)) == brute_changes(*packs)


def test_a_rule_added_removed_or_changed_is_told() -> None:
    lines = {"added": edited("rules.csv", ("p, friends,", "p, dusk, reader, read, r.context.hour == 'dusk', deny\np, friends,"))}
    lines["added"] = edited("reasons.csv", ("closed,", "dusk,Rule 9,no,,It is dusk.\nclosed,"), files=lines["added"])
    added = diff(compiled(LIBRARY), compiled(lines["added"]))
    assert added.rules == {"dusk": "added: reader, read, r.context.hour == 'dusk', deny"}
    removed = diff(compiled(lines["added"]), compiled(LIBRARY))
    assert removed.rules == {"dusk": "removed: reader, read, r.context.hour == 'dusk', deny"}
    assert {one.kind for one in (*added.changes, *removed.changes)} == {ANOTHER}
    changed = diff(compiled(LIBRARY), compiled(rule_edited("burners", "p, burners, *, burn, r.subject.friend, allow")))
    assert changed.rules == {"burners": "reader, burn, r.context.card && r.subject.friend, allow -> *, burn, r.subject.friend, allow"}


def in_order(*rules: str) -> Pdp:
    """The library with its rules in this order."""
    lines = LIBRARY["rules.csv"].decode().splitlines(keepends=True)
    by_id = {line.split(", ")[1]: line for line in lines if line.startswith("p, ")}
    assert sorted(by_id) == sorted(rules)
    return compiled({**LIBRARY, "rules.csv": "".join([*(line for line in lines if not line.startswith("p, ")), *(by_id[rule] for rule in rules)]).encode()})


@pytest.mark.parametrize(
    ("order", "moved"),
    [
        ("banned hidden shelf night friends robots burners", {}),
        ("banned hidden shelf night friends burners robots", {}),
        ("burners banned hidden shelf night friends robots", {"burners": "moved up"}),
        ("hidden shelf night friends robots burners banned", {"banned": "moved down"}),
        ("banned friends hidden shelf night robots burners", {"friends": "moved up"}),
        ("banned shelf hidden night friends robots burners", {"shelf": "moved up"}),
        ("shelf banned hidden night robots friends burners", {"shelf": "moved up", "robots": "moved up"}),
    ],
)
def test_the_fewest_lines_that_moved_are_told_and_only_where_they_passed_one_that_requests_meet_too(order: str, moved: dict[str, str]) -> None:
    assert diff(compiled(LIBRARY), in_order(*order.split())).rules == moved


def test_words_and_legal_basis_that_changed_are_told() -> None:
    assert diff(compiled(LIBRARY), compiled(OTHER["the words of a reason"])).reasons == ("banned",)
    assert diff(compiled(LIBRARY), compiled(OTHER["a legal basis"])).reasons == ("banned",)


def test_obligations_are_compared_action_by_action() -> None:
    """`read` and `lend` share rules, not what they owe."""
    found = diff(compiled(LIBRARY), compiled(OTHER["the actions of an obligation"]))
    assert {(one.kind, one.before, one.slices) for one in found.changes} == {(ANOTHER, "shelf", ("reader read",)), (ANOTHER, "night", ("reader read",))}


# --- what acts record ------------------------------------------------------------------------------------------------


def acting(*acts: str, files: Mapping[str, bytes] = LIBRARY) -> dict[str, bytes]:
    """The library with directives that lending a book records."""
    blocks = "".join(f"[[act.lend]]\n{act}\n" for act in acts)
    return edited("vocabulary.toml", ("[impossible]\n", f"{blocks}[impossible]\n"), files=files)


BAN = 'kind = "ban"\ntarget = { reader = "subject.id" }\nwhen = "r.context.card && r.context.hour == \'night\'"'
TOLD = "records ban of subject.id, when r.context.card && r.context.hour == 'night'"
RECORDED = {
    "nothing any more": ((), "nothing"),
    "another kind": ((BAN.replace('"ban"', '"pardon"'),), TOLD.replace("ban", "pardon")),
    "a withdrawal": ((BAN + "\nwithdraw = true",), TOLD.replace("records", "withdraws")),
    "of somebody else": ((BAN.replace("subject.id", "resource.id"),), TOLD.replace("subject.id", "resource.id")),
    "in other cases": ((BAN.replace("r.context.card &&", "!r.context.card &&"),), TOLD.replace("r.context.card &&", "!r.context.card &&")),
    "always": ((BAN.split("when")[0],), "records ban of subject.id"),
    "from the instant of the act": ((BAN + '\nfrom = "now"',), TOLD + ", from now"),
    "with an end": ((BAN + '\nuntil = "action.until"',), TOLD + ", until action.until"),
    "for some days": ((BAN + '\ndays = "quiet_days"',), TOLD + ", for 7 days"),
    "something more": ((BAN, 'kind = "pardon"\ntarget = "action.target"'), TOLD + "; records pardon of action.target"),
}


@pytest.mark.parametrize("what", RECORDED)
def test_an_act_that_records_something_else_is_told_and_may_open_anything(what: str) -> None:
    acts, told = RECORDED[what]
    before, after = compiled(acting(BAN)), compiled(acting(*acts))
    found = diff(before, after)
    assert found.acts == {"lend": f"{TOLD} -> {told}"} and found.opens and not found.is_empty
    assert not found.changes and not found.inputs and not found.rules and not found.facts
    assert diff(after, before).acts == {"lend": f"{told} -> {TOLD}"}
    assert before.meaning != after.meaning and before.pack.digest != after.pack.digest


@pytest.mark.parametrize(
    "when", ["r.context.hour == 'night'  &&  r.context.card", "!(r.context.hour != 'night' || !r.context.card)", "r.context.card && r.context.hour == 'night'"]
)
def test_an_act_that_records_the_same_in_other_words_is_no_change(when: str) -> None:
    before, after = compiled(acting(BAN)), compiled(acting(BAN.split("when")[0] + f'when = "{when}"'))
    assert diff(before, after).is_empty and before.meaning == after.meaning


def test_what_an_act_asks_is_part_of_the_meaning() -> None:
    fact = '[fact.context.new]\nabout = "New."\nform = "given"\nof = "context.new"\nabsent = false\n[impossible]'
    asks = edited("vocabulary.toml", ("[impossible]", fact), files=acting(BAN.split("when")[0] + 'when = "r.context.new"'))
    other = edited("vocabulary.toml", ('of = "context.new"', 'of = "context.newer"'), files=asks)
    assert compiled(asks).meaning != compiled(other).meaning


# --- as text and as data ---------------------------------------------------------------------------------------------


def everything() -> Diff:
    """A diff with something in each part."""
    files = edited("rules.csv", ("r.subject.friend && r.context.hour != 'night'", "r.subject.friend"), ("p, robots, robot, using, !r.context.card, deny\n", ""))
    files = edited("matrix/ranks.csv", ("page,LOW", "page,HIGH"), files=files)
    files = edited("reasons.csv", ("robots,Rule 6,no,,You are a robot.\n", ""), ("You have a card.", "You have a fine card."), files=files)
    files = edited("pack.toml", ("value = 7", "value = 8"), files=files)
    files = edited("vocabulary.toml", ('ends = ["ban"]\n', ""), files=files)
    files = edited("matrix/shelves.csv", ("A,Atlases,Y,Y,N", "A,Atlases,N,Y,N"), files=files)
    return diff(compiled(LIBRARY), compiled(acting('kind = "ban"\ntarget = { reader = "subject.id" }', files=files)))


def test_a_diff_as_text() -> None:
    assert everything().text() == """\
Opens, by cells and codes:
  matrix.shelf: with_card -> true in 1 place, opens 5 and closes 0 situations
    C page
    such as closed -> shelf, reader read: consent.banned false, context.card false, context.hour day, resource.rare false
  matrix.shelf: true -> false in 1 place, opens 1 and closes 8 situations
    A LOW
    such as closed -> friends, reader lend: consent.banned false, context.card false, context.hour night, subject.friend true
    such as shelf -> closed, reader read: consent.banned false, context.card false, context.hour day, resource.rare false
Opens: a refusal becomes a permit:
  closed -> friends in 3 situations of reader lend
    such as: consent.banned false, context.card false, context.hour night, subject.friend true
  robots -> friends in 1 situation of robot lend
    such as: consent.banned false, context.card false, context.hour night, subject.friend true
Same decision, for another reason or with other obligations:
  robots -> closed in 4 situations of robot read, robot lend
    such as: consent.banned false, context.card false
Settings:
  quiet_days: 7 -> 8
Rules:
  friends: *, lend, r.subject.friend && r.context.hour != 'night', allow -> *, lend, r.subject.friend, allow
  robots: removed: robot, using, !r.context.card, deny
Reasons changed:
  night
Facts:
  consent.banned: ended by other kinds of directives
What acts record:
  lend: nothing -> records ban of subject.id"""


def test_a_diff_as_data_is_json_that_says_the_same() -> None:
    found = everything()
    data = json.loads(json.dumps(found.as_dict()))
    assert data == found.as_dict() | {"settings": {"quiet_days": {"before": 7, "after": 8}}}
    assert list(data) == ["opens", "changes", "inputs", "settings", "rules", "reasons", "facts", "acts"]
    assert data["opens"] is True


# --- the French pack -------------------------------------------------------------------------------------------------


def test_following_inferred_cells_opens_every_one_that_says_so_and_that_a_profession_reaches() -> None:
    after = Pdp(load_pack(ROOT / "policies", {"inferred_cells": "follow"}))
    found = diff(french(), after)
    form = french().pack.vocabulary.facts["matrix.read"].form
    assert isinstance(form, Cell)
    columns = set(form.column_of.values())
    cells = [f"{row} {column}" for row, letters in form.grid.rows.items() for column, letter in letters.items() if letter == "r" and column in columns]
    assert found.opens and found.changes == () and found.settings == {"inferred_cells": ("refuse", "follow")}
    (one,) = found.inputs
    assert (one.fact, one.before, one.after, one.closes, list(one.places)) == ("matrix.read", False, True, 0, cells)
    assert len(cells) == 1117, "1,129 cells say so; no profession leads to the 12 of ENCADREMENT_MS"
    assert one.opens > 500_000
    (example,) = one.examples
    assert example.kind == OPENS and example.example["consent.blocked"] is False
    assert found.text().startswith("Opens, by cells and codes:\n  matrix.read: false -> true in 1,117 places, opens ")


def test_a_block_that_no_longer_counts_in_emergencies_opens_emergencies_and_nothing_else() -> None:
    files = dict(french().pack.files)
    line = b"p, R05, professional, *, r.consent.blocked && "
    assert files["rules.csv"].count(line) == 1
    files["rules.csv"] = files["rules.csv"].replace(line, line + b"r.context.access_mode == 'normal' && ")
    found = diff(french(), Pdp(parse_pack(files)))
    assert list(found.rules) == ["R05"] and not found.inputs and not found.settings and not found.facts
    opened = [one for one in found.changes if one.kind == OPENS]
    assert {one.before for one in opened} == {"R05"} and {"R11", "R14"} <= {one.after for one in opened}
    assert CLOSES not in {one.kind for one in found.changes}
    assert all(one.example["consent.blocked"] is True and one.example["context.access_mode"] != "normal" for one in found.changes)
