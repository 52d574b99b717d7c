"""The meaning of a pack, on one screen. Naive on purpose, never optimised: the tables are compared with this, and so is stock pycasbin.

A situation gives every fact a value. The first rule of the file that is written for the subject's type and the action, and whose condition holds, decides;
when none does, the pack's default for the action answers. A request for a subject type or an action that the pack does not declare meets no rule.
"""

from __future__ import annotations

from engine.evaluator.conditions import And, Compare, Condition, Literal, Name, Not, Or
from engine.facts import Situation
from engine.pack import Pack, Rule
from engine.vocabulary import Value


def deciding_rule(pack: Pack, subject: str, action: str, situation: Situation) -> str | None:
    """The id of the rule that decides, or of the default; nothing when no rule applies."""
    if subject not in pack.vocabulary.subjects or action not in pack.vocabulary.actions:
        return None
    everything = {**situation, "subject.type": subject, "action.name": action}
    for rule in pack.rules:
        if is_for(pack, rule, subject, action) and holds(rule.when, everything, pack):
            return rule.id
    return pack.default_for(action)


def is_for(pack: Pack, rule: Rule, subject: str, action: str) -> bool:
    """Whether a rule is written for this type of subject and this action, by name, by group or by `*`."""
    return rule.subject in ("*", subject) and (rule.action == "*" or rule.action in pack.groups_of(action))


def holds(condition: Condition, situation: Situation, pack: Pack) -> bool:
    """Whether a condition holds in a situation. Total: never raises on a checked condition."""
    match condition:
        case Name(fact):
            return is_true(fact, situation, pack)
        case Compare(left, Literal(value), equal):
            return (situation[left.fact] == value) is equal
        case Compare(left, Name(right), equal):
            return (situation[left.fact] == situation[right]) is equal
        case Not(item):
            return not holds(item, situation, pack)
        case And(items):
            return all(holds(item, situation, pack) for item in items)
        case Or(items):
            return any(holds(item, situation, pack) for item in items)
    raise AssertionError(f"no such condition: {condition!r}")


def is_true(fact: str, situation: Situation, pack: Pack) -> bool:
    """Whether a fact counts as true: its value is, or the value names a condition (a cell may) that holds."""
    value: Value = situation[fact]
    named = pack.vocabulary.facts[fact].conditional.get(value) if isinstance(value, str) else None
    return value is True if named is None else holds(named, situation, pack)
