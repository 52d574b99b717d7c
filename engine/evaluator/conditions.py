"""The language of conditions: the portable subset of Casbin's matchers, parsed.

    condition   = conjunction { "||" conjunction }
    conjunction = term { "&&" term }
    term        = "!" name | "!" "(" condition ")" | "(" condition ")" | name [ ("==" | "!=") operand ]
    operand     = literal | name
    name        = "r." object "." attribute
    literal     = "'" { A-Z a-z 0-9 _ . - } "'"

What pycasbin, node-casbin and this compiler all read alike, and nothing else: no comma, no `in`, no double quote, no `true` or `false`, no number, no
function, no chained comparison. `&&` and `||` stand between spaces (pycasbin replaces them by `and` and `or` as text), and no word of a literal starts with
`r.` or `p.` (it would replace that by `r_` or `p_`). This module knows the grammar only; whether a name is a fact is the business of `check`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Name:
    """`r.consent.blocked`: the fact `consent.blocked`. `at` is the column of its first character in the condition, from 0."""

    fact: str
    at: int


@dataclass(frozen=True, slots=True)
class Literal:
    value: str
    at: int


@dataclass(frozen=True, slots=True)
class Compare:
    """`left == right`, or `left != right` when `equal` is false."""

    left: Name
    right: Name | Literal
    equal: bool


@dataclass(frozen=True, slots=True)
class Not:
    item: Condition


@dataclass(frozen=True, slots=True)
class And:
    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    items: tuple[Condition, ...]


Condition: TypeAlias = Name | Compare | Not | And | Or


class ConditionError(Exception):
    """A condition that is not in the language: sentence, column from 0, how many characters, help."""

    def __init__(self, message: str, at: int, length: int = 1, help: str = ""):
        super().__init__(message)
        self.message, self.at, self.length, self.help = message, at, length, help


_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<name>r\.[A-Za-z_]\w*\.[A-Za-z_]\w*(?![\w.(]))|(?P<literal>'[A-Za-z0-9_.\-]+')|(?P<op>==|!=|&&|\|\||!|\(|\))""", re.ASCII
)
_REWRITTEN = re.compile(r"\b[rp]\d*\.", re.ASCII)
"""What pycasbin takes for the start of a name, in literals too."""

_HELP = (
    (r"''", "a literal has at least one character"),
    (r"'[^']*'", "a literal holds letters, digits, `_`, `.` and `-` only"),
    (r"'", "a literal starts and ends with a single quote"),
    (r'"', "use single quotes: Casbin takes a double-quoted condition for a constant"),
    (r"and\b|AND\b|&", "write `&&`"),
    (r"or\b|OR\b|\|", "write `||`"),
    (r"not\b|NOT\b", "write `!`"),
    (r"in\b", "write one comparison per value, joined by `||`"),
    (r"(true|false|True|False)\b", "write the fact itself, or `!` before it"),
    (r"[<>]", "only `==` and `!=` compare; an `elapsed` fact knows about time"),
    (r"=", "write `==`"),
    (r",", "a comma ends the condition in Casbin's file"),
    (r"-?\d", "only literals in single quotes are compared"),
    (r"#", "Casbin keeps a comment at the end of a line as part of it; put it on a line of its own"),
    (r"[A-Za-z_][\w.]*\(", "functions are not part of the portable subset"),
    (r"r\.", "a fact is written `r.object.attribute`"),
    (r"[A-Za-z_]\w*\.\w", "a fact starts with `r.`"),
    (r"[A-Za-z_]", "a fact is written `r.object.attribute`, a value in single quotes"),
    (r"", "a condition has facts, literals in single quotes, `==`, `!=`, `&&`, `||`, `!` and parentheses"),
)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _unreadable(text, at)
        word, end = match.group(), match.end()
        if match.lastgroup == "literal" and _REWRITTEN.search(word):
            raise ConditionError(f"Casbin would take a part of `{word}` for a name", at, len(word), "no word of a literal starts with `r.` or `p.`")
        if word in ("&&", "||") and (text[at - 1 : at].strip() or text[end : end + 1].strip()):
            raise ConditionError(f"`{word}` stands between spaces", at, 2, "Casbin would join it to the words beside it")
        if match.lastgroup != "space":
            yield match.lastgroup or "", word, at
        at = end
    yield "end", "", len(text)


def _unreadable(text: str, at: int) -> ConditionError:
    help = next(help for pattern, help in _HELP if re.match(pattern, text[at:]))
    word = re.match(r"'[^']*'?|[\w.]+|\S", text[at:])
    shown = word.group() if word else text[at]
    return ConditionError(f"`{shown}` is not part of a condition", at, len(shown), help)


class _Parser:
    """Recursive descent over the tokens, one method per line of the grammar. `DEPTH` bounds nesting."""

    DEPTH = 100

    def __init__(self, text: str):
        self.tokens = list(_tokens(text))
        self.place = self.depth = 0

    def take(self, *wanted: str) -> str | None:
        kind, word, _ = self.tokens[self.place]
        if kind == "op" and word in wanted:
            self.place += 1
            return word
        return None

    def condition(self) -> Condition:
        items = [self.conjunction()]
        while self.take("||"):
            items.append(self.conjunction())
        return items[0] if len(items) == 1 else Or(tuple(items))

    def conjunction(self) -> Condition:
        items = [self.term()]
        while self.take("&&"):
            items.append(self.term())
        return items[0] if len(items) == 1 else And(tuple(items))

    def term(self) -> Condition:
        if self.take("!"):
            kind, word, at = self.tokens[self.place]
            if word == "(":
                return Not(self.parenthesis())
            if kind != "name":
                raise ConditionError("`!` stands before a fact or a parenthesis", at, max(1, len(word)), "such as `!r.consent.blocked` or `!(...)`")
            name = self.name()
            kind, word, at = self.tokens[self.place]
            if word in ("==", "!="):
                raise ConditionError("a negated fact is not compared", at, 2, "write `!(... == ...)`, or use `!=`")
            return Not(name)
        if self.tokens[self.place][1] == "(":
            return self.parenthesis()
        return self.comparison()

    def parenthesis(self) -> Condition:
        at = self.tokens[self.place][2]
        self.place += 1
        self.depth += 1
        if self.depth > self.DEPTH:
            raise ConditionError(f"more than {self.DEPTH} parentheses are open", at, 1, "split the rule in two")
        inner = self.condition()
        if not self.take(")"):
            raise ConditionError("this parenthesis is not closed", at, 1, "add `)`")
        self.depth -= 1
        return inner

    def comparison(self) -> Condition:
        left = self.name()
        op = self.take("==", "!=")
        if op is None:
            return left
        kind, word, at = self.tokens[self.place]
        if kind == "literal":
            self.place += 1
            right: Name | Literal = Literal(word[1:-1], at)
        else:
            right = self.name()
        kind, word, at = self.tokens[self.place]
        if word in ("==", "!="):
            raise ConditionError("comparisons are not chained", at, 2, "join two comparisons by `&&`")
        return Compare(left, right, op == "==")

    def name(self) -> Name:
        kind, word, at = self.tokens[self.place]
        if kind != "name":
            what = f"`{word}`" if word else "the end of the condition"
            help = "a comparison starts with the fact" if kind == "literal" else "a fact is written `r.object.attribute`"
            raise ConditionError(f"a fact is expected here, not {what}", at, max(1, len(word)), help)
        self.place += 1
        return Name(word[2:], at)


def parse_condition(text: str) -> Condition:
    """Parse a condition; raises `ConditionError` at the first thing that is not in the grammar above."""
    parser = _Parser(text)
    tree = parser.condition()
    kind, word, at = parser.tokens[parser.place]
    if kind != "end":
        known = {")": "this parenthesis was never opened", "==": "only a fact is compared", "!=": "only a fact is compared"}
        help = known.get(word, "join conditions by `&&` or `||`")
        raise ConditionError(f"`{word}` is not expected here", at, len(word), help)
    return tree


def names(condition: Condition) -> Iterator[Name]:
    """Every mention of a fact, in the order of the text."""
    match condition:
        case Name():
            yield condition
        case Compare(left, right):
            yield left
            if isinstance(right, Name):
                yield right
        case Not(item):
            yield from names(item)
        case And(items) | Or(items):
            for item in items:
                yield from names(item)
