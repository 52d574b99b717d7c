"""Whether the vectors would notice: every small mistake in the French rules is told by one of them, unless no possible situation could tell it.

And whether the search for mutants can be believed: what it calls equivalent is compared with brute force on a small pack.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from math import prod

import pytest
from hypothesis import given, settings
from random_packs import packs
from test_analysis import LIBRARY, compiled, is_possible, rule_edited, situations
from test_french_pack import french, vectors

from engine.analysis.mutants import Differences, Mutant, Survivor, effect_of, killed, mutants, survivors
from engine.evaluator.conditions import names
from engine.evaluator.reference import deciding_rule, holds, is_for
from engine.facts import Situation, situation
from engine.pack import Pack, parse_pack
from engine.pdp import Pdp
from engine.vectors import Case
from engine.vocabulary import Value

Question = tuple[str, str, Situation]

# --- the French vectors ----------------------------------------------------------------------------------------------


@cache
def questions() -> tuple[tuple[Case, Question], ...]:
    """Each vector as a situation, by the definition of facts."""
    pdp, made = french(), []
    for case in vectors():
        assert case.request is not None
        facts = situation(pdp.pack.vocabulary.facts.values(), case.request, pdp.fold(case.directives, case.at), case.at)
        made.append((case, (case.request.subject.type, case.request.action.name, facts)))
    return tuple(made)


def told(alive: Iterable[Survivor]) -> str:
    """Survivors in words: a vector to write for each."""
    return "\n".join(
        f"{one.mutant.name}: nothing tells it. A vector would: {one.subject}, {one.action}, when "
        + ", ".join(f"{name} is {_word(value)}" for name, value in sorted(one.situation.items()))
        + f": {one.original or 'no rule'} decides; after the mistake, {decided_by(one)}"
        for one in alive
    )


def decided_by(one: Survivor) -> str:
    return f"{one.mutated} with the other effect" if one.mutated == one.original else one.mutated or "no rule"


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def test_every_vector_is_decided_by_the_rule_that_it_expects() -> None:
    for case, question in questions():
        assert deciding_rule(french().pack, *question) == case.expect.rule, f"{case.place}: {case.id}"


def test_the_vectors_tell_every_mistake_that_can_be_told() -> None:
    alive, total, equivalent = survivors(french(), (question for _, question in questions()))
    assert not alive, "\n" + told(alive)
    assert total > 700 and equivalent < total / 7


def test_half_of_the_vectors_tell_less() -> None:
    files = sorted({case.file for case, _ in questions()})
    half = [question for case, question in questions() if files.index(case.file) % 2]
    alive, _, _ = survivors(french(), half)
    assert len(alive) > 50
    for one in alive:
        assert one.mutant.name in told([one]) and one.original in told([one])
        assert_tells(french().pack, one)


def assert_tells(pack: Pack, one: Survivor) -> None:
    """The situation beside a survivor is possible, and is decided as it says, before and after the mistake."""
    whole = completed(pack, one)
    rules = [deciding_rule(each, one.subject, one.action, whole) or "" for each in (pack, one.mutant.pack)]
    assert rules == [one.original, one.mutated]
    assert rules[0] != rules[1] or effect_of(pack, rules[0]) != effect_of(one.mutant.pack, rules[1])
    assert killed(one.mutant, pack, one.subject, one.action, whole, one.original)


def completed(pack: Pack, one: Survivor) -> Situation:
    """A possible situation with these values: another fact of what cannot be is changed until it can."""
    whole = {**next(situations(pack, [])), **one.situation}
    while not is_possible(pack, one.subject, one.action, whole):
        everything = {**whole, "subject.type": one.subject, "action.name": one.action}
        broken = next(condition for condition in pack.vocabulary.impossible.values() if holds(condition, everything, pack))
        free = [name.fact for name in names(broken) if name.fact in whole and name.fact not in one.situation]
        assert free, f"{one.mutant.name}: the situation cannot be"
        whole[free[0]] = not whole[free[0]]
    return whole


# --- the search, on a small pack -------------------------------------------------------------------------------------


def test_the_mutants_of_a_rule_are_these() -> None:
    pack = parse_pack(rule_edited("robots", "p, robots, robot, using, !(r.context.card && r.context.hour != 'day') || r.subject.friend, deny"))
    named = [mutant.name for mutant in mutants(pack) if mutant.name.startswith("robots:")]
    assert named == [
        "robots: deleted",
        "robots: effect flipped",
        "robots: swapped with burners",
        "robots: context.card negated",
        "robots: context.hour negated",
        "robots: subject.friend negated",
    ]


def test_a_mutant_is_the_pack_with_one_mistake() -> None:
    pack = parse_pack(LIBRARY)
    by_name = {mutant.name: mutant for mutant in mutants(pack)}
    assert len(by_name) == 2 * len(pack.rules) + len(pack.rules) - 1 + sum(name.endswith(" negated") for name in by_name)
    ids = [rule.id for rule in pack.rules]
    assert [rule.id for rule in by_name["shelf: deleted"].pack.rules] == [id for id in ids if id != "shelf"]
    assert [rule.id for rule in by_name["shelf: swapped with night"].pack.rules] == ["banned", "hidden", "night", "shelf", "friends", "robots", "burners"]
    flipped = by_name["shelf: effect flipped"].pack
    assert [rule.id for rule in flipped.rules] == ids and [rule.effect for rule in flipped.rules].count("deny") == 4
    negated = by_name["shelf: context.hour negated"].pack.by_id["shelf"].when
    assert negated != pack.by_id["shelf"].when and by_name["shelf: context.hour negated"].touched == (pack.by_id["shelf"],)


def tells(pack: Pack, mutant: Mutant, subject: str, action: str, one: Situation) -> bool:
    """Whether a situation is decided by another rule, or by one with another effect."""
    before, after = (deciding_rule(each, subject, action, one) or "" for each in (pack, mutant.pack))
    return before != after or effect_of(pack, before) != effect_of(mutant.pack, after)


def brute_equivalent(pdp: Pdp, mutant: Mutant) -> bool:
    """Whether no possible situation tells a mutant, situation by situation."""
    pack = pdp.pack
    return not any(
        tells(pack, mutant, subject, action, one)
        for (subject, action), slice in pdp.slices.items()
        if any(is_for(pack, rule, subject, action) for rule in mutant.touched)
        for one in situations(pack, names_in(pdp, mutant, subject, action))
        if is_possible(pack, subject, action, one)
    )


def names_in(pdp: Pdp, mutant: Mutant, subject: str, action: str) -> list[str]:
    """The facts that a slice asks, in a pack or with the mistake."""
    return [fact.name for each in (pdp, Pdp(mutant.pack)) for fact in each.slices[subject, action].facts]


LINES: Mapping[str, Mapping[str, bytes]] = {
    "as it is": LIBRARY,
    "a rule that says what the one below says": rule_edited("shelf", "p, shelf, reader, lend, r.subject.friend && r.context.hour == 'day', allow"),
    "a rule about what cannot be": rule_edited("robots", "p, robots, robot, using, r.context.card && !r.consent.banned, deny"),
    "a dead rule": rule_edited("friends", "p, friends, *, lend, r.consent.banned && r.subject.friend, allow"),
    "a rule that always holds": rule_edited("burners", "p, burners, *, *, r.subject.type == 'reader' || r.subject.type == 'robot', deny"),
    "a setting": rule_edited("night", "p, night, *, using, r.context.lends_at_night || r.context.card, allow"),
}


@pytest.mark.parametrize("lines", LINES)
def test_a_mutant_is_called_equivalent_when_no_possible_situation_tells_it_and_only_then(lines: str) -> None:
    pdp = compiled(LINES[lines])
    differences = Differences(pdp)
    found = {mutant.name: differences.find(mutant) for mutant in mutants(pdp.pack)}
    assert {name for name, one in found.items() if one is None} == {mutant.name for mutant in mutants(pdp.pack) if brute_equivalent(pdp, mutant)}
    for one in found.values():
        if one is not None:
            assert_tells(pdp.pack, one)


@settings(max_examples=20)
@given(packs(most=3))
def test_a_mutant_of_a_random_pack_is_called_equivalent_when_no_situation_tells_it_and_only_then(files: dict[str, bytes]) -> None:
    pdp = Pdp(parse_pack(files))
    if max(prod(slice.store.sizes) for slice in pdp.slices.values()) > 100:
        return
    differences = Differences(pdp)
    for mutant in list(mutants(pdp.pack))[::3]:
        found = differences.find(mutant)
        assert (found is None) == brute_equivalent(pdp, mutant), mutant.name
        if found is not None:
            assert_tells(pdp.pack, found)


def test_a_mutant_that_only_an_impossible_situation_tells_is_equivalent() -> None:
    pdp = compiled(LIBRARY)
    (mutant,) = (one for one in mutants(pdp.pack) if one.name == "robots: context.card negated")
    assert Differences(pdp).find(mutant) is not None
    impossible = compiled(rule_edited("robots", "p, robots, robot, using, r.context.card && r.context.hour == 'day', deny"))
    assert {mutant.name for mutant in mutants(impossible.pack) if mutant.name.startswith("robots") and Differences(impossible).find(mutant) is None} == {
        "robots: deleted",
        "robots: effect flipped",
        "robots: swapped with burners",
        "robots: context.hour negated",
    }


def test_survivors_are_the_mutants_that_no_question_tells() -> None:
    pdp = compiled(LIBRARY)
    every = [(subject, action, one) for subject, action in pdp.slices for one in situations(pdp.pack) if is_possible(pdp.pack, subject, action, one)]
    alive, total, equivalent = survivors(pdp, every)
    assert alive == [] and total == len(list(mutants(pdp.pack)))
    nothing, same, _ = survivors(pdp, [])
    assert len(nothing) == total - equivalent and same == total
    one = [question for question in every if question[:2] == ("reader", "burn")]
    left = {survivor.mutant.name for survivor in survivors(pdp, one)[0]}
    assert "burners: effect flipped" not in left and "hidden: deleted" in left
