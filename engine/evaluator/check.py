"""Conditions checked against the vocabulary: every name is a fact, every literal a value of it.

Collects diagnostics with line, column and suggestion; changes nothing. It does not ask whether a condition can hold: that is a question to the diagram.
"""

from __future__ import annotations

import keyword
import re

from engine.errors import Diagnostic, suggest
from engine.evaluator.conditions import And, Compare, Condition, ConditionError, Literal, Name, Not, Or, parse_condition
from engine.vocabulary import Vocabulary

BUILT_IN = ("subject.type", "action.name")
"""Names that every pack has: compared with the subject types and the actions that it declares."""


def parse_checked(text: str, vocabulary: Vocabulary, file: str, line: int, offset: int, raw: str, found: list[Diagnostic]) -> Condition | None:
    """Parse a condition that starts at column `offset` of the source line `raw`, and check it. Nothing, and diagnostics, when it is wrong."""
    try:
        tree = parse_condition(text)
    except ConditionError as error:
        found.append(Diagnostic("condition-syntax", error.message, file, line, offset + error.at + 1, error.length, raw, error.help))
        return None
    before = len(found)
    check_condition(tree, vocabulary, file, line, offset, raw, found)
    return tree if len(found) == before else None


def check_condition(tree: Condition, vocabulary: Vocabulary, file: str, line: int, offset: int, raw: str, found: list[Diagnostic]) -> None:
    """Append a diagnostic for every name, literal or comparison that the vocabulary does not allow."""

    def report(code: str, message: str, at: int, length: int, help: str = "") -> None:
        found.append(Diagnostic(code, message, file, line, offset + at + 1, length, raw, help))

    def values(name: Name) -> tuple[object, ...] | None:
        if name.fact in BUILT_IN:
            return vocabulary.subjects if name.fact == "subject.type" else tuple(vocabulary.actions)
        if name.fact in vocabulary.facts:
            return vocabulary.facts[name.fact].values
        help = suggest(name.fact, (*vocabulary.facts, *BUILT_IN)) or "declare it in vocabulary.toml"
        report("fact-unknown", f"unknown fact `{name.fact}`", name.at, len(name.fact) + 2, help)
        return None

    def walk(part: Condition) -> None:
        match part:
            case Name(fact, at):
                known = values(part)
                if known is not None and not (fact in vocabulary.facts and vocabulary.facts[fact].is_boolean):
                    report("fact-compared", f"`{fact}` is one of several words: compare it", at, len(fact) + 2, f"such as r.{fact} == '{known[0]}'")
            case Compare(left, right):
                known = values(left)
                if known is not None and left.fact in vocabulary.facts and vocabulary.facts[left.fact].is_boolean:
                    help = f"write r.{left.fact} or !r.{left.fact}"
                    report("fact-boolean", f"`{left.fact}` is true or false: it is not compared", left.at, len(left.fact) + 2, help)
                elif known is not None and isinstance(right, Literal) and right.value not in known:
                    help = suggest(right.value, known) or "it takes " + ", ".join(f"`{one}`" for one in known[:8])
                    report("value-unknown", f"unknown value `{right.value}` of `{left.fact}`", right.at + 1, len(right.value), help)
                elif isinstance(right, Name):
                    other = values(right)
                    if known is not None and other is not None and set(known) != set(other):
                        help = f"compare each with a word, joined by `&&` or `||`: `{left.fact}` takes " + ", ".join(f"`{one}`" for one in known[:8])
                        report("facts-incomparable", f"`{left.fact}` and `{right.fact}` take different values", right.at, len(right.fact) + 2, help)
            case Not(item):
                walk(item)
            case And(items) | Or(items):
                for item in items:
                    walk(item)

    walk(tree)


def name_problem(name: str) -> str:
    """Why `name` cannot name a subject type, an action or a group of actions; empty when it can. Casbin's readers split lines at commas and count brackets."""
    return "" if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) else "a name is letters without accents, digits and `_`"


_REFUSED = {"format", "format_map", "mro", "tb_frame", "gi_frame", "ag_frame", "cr_frame", "exec", "this", "true", "false", "null"}


def attribute_problem(name: str) -> str:
    """Why `name` cannot be an attribute in every Casbin reader; empty when it can.

    pycasbin evaluates with simpleeval, which refuses what could lead out of it; node-casbin with jsep and expression-eval, which do the same for theirs.
    """
    if name.startswith(("_", "func_")):
        return "Casbin's evaluator refuses names that start with `_` or `func_`"
    if name in _REFUSED or "prototype" in name or name.endswith("constructor"):
        return "Casbin's evaluators refuse this name"
    if keyword.iskeyword(name) or not name.isidentifier() or not name.isascii():
        return "a name is ASCII letters, digits and `_`, and no word of Python"
    return ""
