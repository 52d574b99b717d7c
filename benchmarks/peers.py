"""The same policy in pycasbin and cedarpy, translated from the parsed conditions, each in the set-up that suits it.

Favours to the peers: they meet only the rules of one slice, constants folded (except where the point is the pack as it stands); the objects they read are made
before the clock starts; Cedar's policies and entities are parsed once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import casbin
import cedarpy
from casbin.model import FastModel
from casbin.persist.adapters import StringAdapter

from benchmarks.inputs import ACTION, SUBJECT
from engine.evaluator.conditions import And, Compare, Condition, Literal, Name, Not, Or
from engine.evaluator.slices import fold_constants
from engine.pack import Pack
from engine.pdp import Pdp
from engine.vocabulary import Value

Guarded: TypeAlias = tuple[str, Condition | bool, bool]
"""A rule: id, condition, whether it permits."""
OBJECTS = ("subject", "action", "resource", "context", "consent", "matrix")


def rules_of(pdp: Pdp, subject: str = SUBJECT, action: str = ACTION) -> list[Guarded]:
    """The rules that can decide a slice, their constants folded."""
    made = []
    for n in pdp.runner(subject, action).slice.rules:  # type: ignore[union-attr]
        rule = pdp.pack.rules[n]
        made.append((rule.id, fold_constants(rule.when, pdp.pack, subject, action), rule.permits))
    return made


def written(condition: Condition | bool, name: Callable[[str], str], literal: Callable[[str, str], str], words: Mapping[str, str]) -> str:
    """A condition in another language: how it writes a fact, a value of a fact, and `and`, `or`, `not`, `true`, `false`."""

    def walk(part: Condition | bool) -> str:
        match part:
            case bool():
                return words["true" if part else "false"]
            case Name(fact):
                return name(fact)
            case Compare(left, right, equal):
                other = literal(left.fact, right.value) if isinstance(right, Literal) else name(right.fact)
                return f"{name(left.fact)} {'==' if equal else '!='} {other}"
            case Not(item):
                return f"{words['not']}({walk(item)})"
            case And(items) | Or(items):
                word = words["and" if isinstance(part, And) else "or"]
                return "(" + f" {word} ".join(walk(item) for item in items) + ")"
        raise AssertionError(part)

    return walk(condition)


def flat(fact: str) -> str:
    return fact.replace(".", "_")


# --- plain Python, generated -----------------------------------------------------------------------------------------

PYTHON = {"and": "and", "or": "or", "not": "not ", "true": "True", "false": "False"}


def as_python(condition: Condition | bool, pack: Pack) -> str:
    """A condition over `f`, a facts object (see `plain.facts_class`)."""
    return written(condition, lambda fact: f"f.{flat(fact)}", lambda fact, value: str(pack.vocabulary.facts[fact].values.index(value)), PYTHON)


def python_function(pdp: Pdp, subject: str = SUBJECT, action: str = ACTION) -> Callable[[Any], str]:
    """The rules of a slice as one generated function, an `if` for each in order: what a code generator without diagrams would write."""
    lines = [f"    if {as_python(condition, pdp.pack)}: return {id!r}" for id, condition, _ in rules_of(pdp, subject, action)]
    known: dict[str, Any] = {}
    exec("\n".join(["def rule_of(f):", *lines, f"    return {pdp.pack.default_for(action) or ''!r}"]), known)
    return known["rule_of"]  # type: ignore[no-any-return]


# --- pycasbin --------------------------------------------------------------------------------------------------------

WITH_FUNCTION = """
[request_definition]
r = subject, action, facts
[policy_definition]
p = subject, action, rule, eft
[policy_effect]
e = priority(p.eft) || deny
[matchers]
m = holds(p.rule, r.facts)
"""


def casbin_objects(situation: Mapping[str, Value], pack: Pack) -> tuple[SimpleNamespace, ...]:
    """A situation as pycasbin's six request objects. Facts that the slice does not depend on are there too: an absent attribute raises."""
    made = {one: SimpleNamespace() for one in OBJECTS}
    made["subject"].type, made["action"].name = SUBJECT, ACTION
    for name, fact in pack.vocabulary.facts.items():
        head, attribute = name.split(".")
        constant = fact.constant
        setattr(made[head], attribute, situation.get(name, fact.absent) if constant is None else constant)
    return tuple(made.values())


def _enforcer(model: casbin.Model, text: str, lines: list[str]) -> casbin.Enforcer:
    model.load_model_from_text(text)
    return casbin.Enforcer(model, StringAdapter("\n".join(lines)))


def pycasbin_as_it_stands(pdp: Pdp) -> casbin.Enforcer:
    """The pack's own model.conf and rules.csv, every line of them."""
    pack = pdp.pack
    return _enforcer(casbin.Model(), pack.files["model.conf"].decode(), pack.files["rules.csv"].decode().splitlines())


def pycasbin_eval(pdp: Pdp) -> casbin.Enforcer:
    """The pack's own model, with only the lines that can decide this slice: `eval(p.when)` for each."""
    pack = pdp.pack
    own = pack.groups_of(ACTION)
    rules = [pack.rules[n] for n in pdp.runner(SUBJECT, ACTION).slice.rules]  # type: ignore[union-attr]
    groups = [line for line in pack.files["rules.csv"].decode().splitlines() if line.startswith("g,") and line.split(",")[1].strip() in own]
    lines = [f"p, {rule.id}, {rule.subject}, {rule.action}, {rule.text}, {rule.effect}" for rule in rules]
    return _enforcer(casbin.Model(), pack.files["model.conf"].decode(), groups + lines)


def _holds(pdp: Pdp, rules: Sequence[Guarded]) -> Callable[[str, Any], bool]:
    """Rules as compiled Python functions, registered with pycasbin under one name."""
    known = {id: eval(f"lambda f: bool({as_python(condition, pdp.pack)})") for id, condition, _ in rules}
    return lambda rule, facts: known[rule](facts)


def pycasbin_function_as_it_stands(pdp: Pdp) -> casbin.Enforcer:
    """The pack's own lines and matcher, with a registered function in the place of `eval`."""
    model = pdp.pack.files["model.conf"].decode().replace("resource, context, consent, matrix", "facts").replace("eval(p.when)", "holds(p.rule, r.facts)")
    made = _enforcer(casbin.Model(), model, pdp.pack.files["rules.csv"].decode().splitlines())
    rules = rules_of(pdp)
    never = [(rule.id, False, False) for rule in pdp.pack.rules if rule.id not in {id for id, *_ in rules}]
    made.add_function("holds", _holds(pdp, rules + never))
    return made


def pycasbin_function(pdp: Pdp) -> casbin.Enforcer:
    """One matcher that calls a registered function with the rule and the facts; the lines of this slice only."""
    lines = [f"p, {SUBJECT}, {ACTION}, {id}, {'allow' if permits else 'deny'}" for id, _, permits in rules_of(pdp)]
    made = _enforcer(casbin.Model(), WITH_FUNCTION, lines)
    made.add_function("holds", _holds(pdp, rules_of(pdp)))
    return made


def pycasbin_fast(pdp: Pdp) -> casbin.Enforcer:
    """FastEnforcer: a line for every permission of every slice of the pack, found by slice in its cache; the same kind of matcher.

    It keeps lines in a set, so it has no order and cannot be told "first match": each permission carries what must not hold before it (see `unordered`).
    """
    lines = []
    for subject in pdp.pack.vocabulary.subjects:
        for action in pdp.pack.vocabulary.actions:
            lines += [f"p, {subject}, {action}, {id}, allow" for id, _, permits in rules_of(pdp, subject, action) if permits]
    model = FastModel([0, 1])
    model.load_model_from_text(WITH_FUNCTION.replace("priority(p.eft) || deny", "some(where (p.eft == allow))"))
    made = casbin.FastEnforcer(model, StringAdapter("\n".join(lines)), cache_key_order=[0, 1])
    made.add_function("holds", _holds(pdp, unordered(rules_of(pdp), forbid=False)))
    return made


def unordered(rules: Sequence[Guarded], forbid: bool) -> list[Guarded]:
    """First-match rules as rules without order that decide alike, with the least text.

    A permission holds unless a refusal written above it does. With `forbid`, refusals above the first permission stay rules of their own, for engines in which
    a refusal always wins. Refusals below the last permission are the default.
    """
    made: list[Guarded] = []
    above: list[Condition | bool] = []
    for id, condition, permits in rules:
        if permits:
            made.append((id, And((condition, Not(Or(tuple(above))))) if above else condition, True))  # type: ignore[arg-type]
        elif forbid and not any(permits for *_, permits in made):
            made.append((id, condition, False))
        else:
            above.append(condition)
    return made


# --- cedarpy ---------------------------------------------------------------------------------------------------------

CEDAR = {"and": "&&", "or": "||", "not": "!", "true": "true", "false": "false"}


def cedar_policies(pdp: Pdp) -> str:
    """The slice in Cedar, which knows no order."""
    made = []
    for id, condition, permits in unordered(rules_of(pdp), forbid=True):
        text = written(condition, lambda fact: f"context.{flat(fact)}", lambda _, value: json.dumps(value), CEDAR)
        made.append(f'@id("{id}")\n{"permit" if permits else "forbid"}(principal, action, resource) when {{ {text} }};')
    return "\n".join(made)


class Cedar:
    """cedarpy with everything parsed that can be parsed once."""

    def __init__(self, pdp: Pdp):
        self.policies = cedarpy.PolicySet.from_str(cedar_policies(pdp))
        self.entities = cedarpy.Entities.from_json_str("[]")

    @staticmethod
    def request(situation: Mapping[str, Value]) -> dict[str, Any]:
        """A request whose context holds the facts."""
        context = {flat(name): value for name, value in situation.items()}
        return {"principal": 'Professional::"p"', "action": 'Action::"read"', "resource": 'Document::"d"', "context": context}

    @staticmethod
    def ready(request: Mapping[str, Any]) -> dict[str, Any]:
        """The same with its context written as JSON beforehand: cedarpy would do it at each call."""
        return {**request, "context": json.dumps(request["context"])}

    def decide(self, request: dict[str, Any]) -> bool:
        return cedarpy.is_authorized(request, self.policies, self.entities).allowed

    def decide_many(self, requests: list[dict[str, Any]]) -> list[bool]:
        return [one.allowed for one in cedarpy.is_authorized_batch(requests, self.policies, self.entities)]
