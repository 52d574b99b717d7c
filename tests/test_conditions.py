"""The language of conditions: what is accepted and what tree it means; what is refused, where, and what its author is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evaluator.conditions import _HELP, And, Compare, Condition, ConditionError, Literal, Name, Not, Or, names, parse_condition
from engine.evaluator.conditions import __file__ as source


def name(fact: str) -> Name:
    return Name(fact, 0)


def word(value: str) -> Literal:
    return Literal(value, 0)


def bare(tree: Condition) -> Condition:
    """A tree without positions."""
    match tree:
        case Name(fact):
            return name(fact)
        case Compare(left, right, equal):
            return Compare(name(left.fact), name(right.fact) if isinstance(right, Name) else word(right.value), equal)
        case Not(item):
            return Not(bare(item))
        case And(items):
            return And(tuple(map(bare, items)))
        case Or(items):
            return Or(tuple(map(bare, items)))
    raise AssertionError(tree)


A, B, C, D = (name(f"consent.{letter}") for letter in "abcd")

ACCEPTED = [
    ("r.consent.a", A),
    ("  r.consent.a  ", A),
    ("r.consent.with_2_digits", name("consent.with_2_digits")),
    ("!r.consent.a", Not(A)),
    ("! r.consent.a", Not(A)),
    ("(r.consent.a)", A),
    ("((r.consent.a))", A),
    ("!(r.consent.a)", Not(A)),
    ("!(!r.consent.a)", Not(Not(A))),
    ("r.consent.a == 'x'", Compare(A, word("x"), True)),
    ("r.consent.a!='x'", Compare(A, word("x"), False)),
    ("r.consent.a == 'G15_10'", Compare(A, word("G15_10"), True)),
    ("r.consent.a == '11488-4.v2'", Compare(A, word("11488-4.v2"), True)),
    ("r.consent.a == 'true'", Compare(A, word("true"), True)),
    ("r.consent.a == r.consent.b", Compare(A, B, True)),
    ("!(r.consent.a == 'x')", Not(Compare(A, word("x"), True))),
    ("r.consent.a && r.consent.b", And((A, B))),
    ("r.consent.a || r.consent.b || r.consent.c", Or((A, B, C))),
    ("r.consent.a && (r.consent.b && r.consent.c)", And((A, And((B, C))))),
    ("r.consent.a\t&&\nr.consent.b", And((A, B))),
]


@pytest.mark.parametrize(("text", "tree"), ACCEPTED, ids=[text for text, _ in ACCEPTED])
def test_a_condition_means_a_tree(text, tree):
    assert bare(parse_condition(text)) == tree


PRECEDENCE = [
    ("r.consent.a || r.consent.b && r.consent.c", Or((A, And((B, C))))),
    ("r.consent.a && r.consent.b || r.consent.c", Or((And((A, B)), C))),
    ("r.consent.a && r.consent.b || r.consent.c && r.consent.d", Or((And((A, B)), And((C, D))))),
    ("(r.consent.a || r.consent.b) && r.consent.c", And((Or((A, B)), C))),
    ("!r.consent.a && r.consent.b", And((Not(A), B))),
    ("!(r.consent.a && r.consent.b) || r.consent.c", Or((Not(And((A, B))), C))),
    ("r.consent.a == 'x' && r.consent.b != 'y'", And((Compare(A, word("x"), True), Compare(B, word("y"), False)))),
]


@pytest.mark.parametrize(("text", "tree"), PRECEDENCE, ids=[text for text, _ in PRECEDENCE])
def test_a_comparison_binds_before_not_before_and_before_or(text, tree):
    assert bare(parse_condition(text)) == tree


def test_a_tree_keeps_the_columns_of_its_names_and_literals():
    assert parse_condition("  !r.consent.a || r.consent.b == 'x'") == Or(
        (Not(Name("consent.a", 3)), Compare(Name("consent.b", 18), Literal("x", 33), True)),
    )


def test_names_come_in_the_order_of_the_text():
    tree = parse_condition("!(r.consent.b || r.consent.a == r.consent.d) && r.consent.b != 'x'")
    assert [one.fact for one in names(tree)] == ["consent.b", "consent.a", "consent.d", "consent.b"]


ANYTHING = "a condition has facts, literals in single quotes, `==`, `!=`, `&&`, `||`, `!` and parentheses"

REFUSED = [
    ("", 0, 1, "a fact is expected here, not the end of the condition", "a fact is written `r.object.attribute`"),
    ("  ", 2, 1, "a fact is expected here, not the end of the condition", "a fact is written `r.object.attribute`"),
    ("r.a.b and r.c.d", 6, 3, "`and` is not part of a condition", "write `&&`"),
    ("r.a.b or r.c.d", 6, 2, "`or` is not part of a condition", "write `||`"),
    ("not r.a.b", 0, 3, "`not` is not part of a condition", "write `!`"),
    ("r.a.b & r.c.d", 6, 1, "`&` is not part of a condition", "write `&&`"),
    ("r.a.b | r.c.d", 6, 1, "`|` is not part of a condition", "write `||`"),
    ("r.a.b &&", 8, 1, "a fact is expected here, not the end of the condition", "a fact is written `r.object.attribute`"),
    ("|| r.a.b", 0, 2, "a fact is expected here, not `||`", "a fact is written `r.object.attribute`"),
    ("r.a.b && && r.c.d", 9, 2, "a fact is expected here, not `&&`", "a fact is written `r.object.attribute`"),
    ("r.a.b&&r.c.d", 5, 2, "`&&` stands between spaces", "Casbin would join it to the words beside it"),
    ("r.a.b &&r.c.d", 6, 2, "`&&` stands between spaces", "Casbin would join it to the words beside it"),
    ("(r.a.b)||(r.c.d)", 7, 2, "`||` stands between spaces", "Casbin would join it to the words beside it"),
    ("r.a.b = 'x'", 6, 1, "`=` is not part of a condition", "write `==`"),
    ("r.a.b === 'x'", 8, 1, "`=` is not part of a condition", "write `==`"),
    ('r.a.b == "x"', 9, 1, '`"` is not part of a condition', "use single quotes: Casbin takes a double-quoted condition for a constant"),
    ("r.a.b == 'x y'", 9, 5, "`'x y'` is not part of a condition", "a literal holds letters, digits, `_`, `.` and `-` only"),
    ("r.a.b == ''", 9, 2, "`''` is not part of a condition", "a literal has at least one character"),
    ("r.a.b == 'x", 9, 2, "`'x` is not part of a condition", "a literal starts and ends with a single quote"),
    ("r.a.b == x", 9, 1, "`x` is not part of a condition", "a fact is written `r.object.attribute`, a value in single quotes"),
    ("r.a.b == 1", 9, 1, "`1` is not part of a condition", "only literals in single quotes are compared"),
    ("r.a.b == -1", 9, 1, "`-` is not part of a condition", "only literals in single quotes are compared"),
    ("r.a.b == true", 9, 4, "`true` is not part of a condition", "write the fact itself, or `!` before it"),
    ("true", 0, 4, "`true` is not part of a condition", "write the fact itself, or `!` before it"),
    ("r.a.b in ('x', 'y')", 6, 2, "`in` is not part of a condition", "write one comparison per value, joined by `||`"),
    ("r.a.b == 'x', r.c.d", 12, 1, "`,` is not part of a condition", "a comma ends the condition in Casbin's file"),
    ("r.a.b > 'x'", 6, 1, "`>` is not part of a condition", "only `==` and `!=` compare; an `elapsed` fact knows about time"),
    ("r.a.b <= 'x'", 6, 1, "`<` is not part of a condition", "only `==` and `!=` compare; an `elapsed` fact knows about time"),
    ("'x' == r.a.b", 0, 3, "a fact is expected here, not `'x'`", "a comparison starts with the fact"),
    ("'x'", 0, 3, "a fact is expected here, not `'x'`", "a comparison starts with the fact"),
    ("r.a.b == 'x' == 'y'", 13, 2, "comparisons are not chained", "join two comparisons by `&&`"),
    ("r.a.b == r.c.d != r.e.f", 15, 2, "comparisons are not chained", "join two comparisons by `&&`"),
    ("!r.a.b == 'x'", 7, 2, "a negated fact is not compared", "write `!(... == ...)`, or use `!=`"),
    ("!!r.a.b", 1, 1, "`!` stands before a fact or a parenthesis", "such as `!r.consent.blocked` or `!(...)`"),
    ("!'x'", 1, 3, "`!` stands before a fact or a parenthesis", "such as `!r.consent.blocked` or `!(...)`"),
    ("!", 1, 1, "`!` stands before a fact or a parenthesis", "such as `!r.consent.blocked` or `!(...)`"),
    ("! && r.a.b", 2, 2, "`!` stands before a fact or a parenthesis", "such as `!r.consent.blocked` or `!(...)`"),
    ("!(r.a.b) == 'x'", 9, 2, "`==` is not expected here", "only a fact is compared"),
    ("(r.a.b", 0, 1, "this parenthesis is not closed", "add `)`"),
    ("((r.a.b)", 0, 1, "this parenthesis is not closed", "add `)`"),
    ("r.a.b)", 5, 1, "`)` is not expected here", "this parenthesis was never opened"),
    ("()", 1, 1, "a fact is expected here, not `)`", "a fact is written `r.object.attribute`"),
    ("(r.a.b == 'x') == r.c.d", 15, 2, "`==` is not expected here", "only a fact is compared"),
    ("r.a.b r.c.d", 6, 5, "`r.c.d` is not expected here", "join conditions by `&&` or `||`"),
    ("r.a.b 'x'", 6, 3, "`'x'` is not expected here", "join conditions by `&&` or `||`"),
    ("r.a.b ! r.c.d", 6, 1, "`!` is not expected here", "join conditions by `&&` or `||`"),
    ("r.a", 0, 3, "`r.a` is not part of a condition", "a fact is written `r.object.attribute`"),
    ("r.a.b.c", 0, 7, "`r.a.b.c` is not part of a condition", "a fact is written `r.object.attribute`"),
    ("r.a.", 0, 4, "`r.a.` is not part of a condition", "a fact is written `r.object.attribute`"),
    ("r", 0, 1, "`r` is not part of a condition", "a fact is written `r.object.attribute`, a value in single quotes"),
    ("a.b", 0, 3, "`a.b` is not part of a condition", "a fact starts with `r.`"),
    ("consent.blocked", 0, 15, "`consent.blocked` is not part of a condition", "a fact starts with `r.`"),
    ("p.when", 0, 6, "`p.when` is not part of a condition", "a fact starts with `r.`"),
    ("R.a.b", 0, 5, "`R.a.b` is not part of a condition", "a fact starts with `r.`"),
    ("r.a.1b", 0, 6, "`r.a.1b` is not part of a condition", "a fact is written `r.object.attribute`"),
    ("r.a.é", 0, 5, "`r.a.é` is not part of a condition", "a fact is written `r.object.attribute`"),
    ("r.a.b.startswith('x')", 0, 16, "`r.a.b.startswith` is not part of a condition", "functions are not part of the portable subset"),
    ("keyMatch(r.a.b, 'x')", 0, 8, "`keyMatch` is not part of a condition", "functions are not part of the portable subset"),
    ("r.a.f('x')", 0, 5, "`r.a.f` is not part of a condition", "functions are not part of the portable subset"),
    ("r.a.b # why", 6, 1, "`#` is not part of a condition", "Casbin keeps a comment at the end of a line as part of it; put it on a line of its own"),
    ("r.a.b == 'r.x'", 9, 5, "Casbin would take a part of `'r.x'` for a name", "no word of a literal starts with `r.` or `p.`"),
    ("r.a.b == 'x-p.y'", 9, 7, "Casbin would take a part of `'x-p.y'` for a name", "no word of a literal starts with `r.` or `p.`"),
    ("r.a.b\u00a0&& r.c.d", 5, 1, "`\u00a0` is not part of a condition", ANYTHING),
    ("r.a['b']", 0, 3, "`r.a` is not part of a condition", "a fact is written `r.object.attribute`"),
    ("r.a.b == 'é'", 9, 3, "`'é'` is not part of a condition", "a literal holds letters, digits, `_`, `.` and `-` only"),
    ("r.a.b == 'a&&b'", 9, 6, "`'a&&b'` is not part of a condition", "a literal holds letters, digits, `_`, `.` and `-` only"),
    ("r.a.b ? r.c.d : r.e.f", 6, 1, "`?` is not part of a condition", ANYTHING),
    ("r.a.b ==", 8, 1, "a fact is expected here, not the end of the condition", "a fact is written `r.object.attribute`"),
    ("== 'x'", 0, 2, "a fact is expected here, not `==`", "a fact is written `r.object.attribute`"),
    ("r.a.b != !r.c.d", 9, 1, "a fact is expected here, not `!`", "a fact is written `r.object.attribute`"),
    ("r.a.b == (r.c.d)", 9, 1, "a fact is expected here, not `(`", "a fact is written `r.object.attribute`"),
    ("lambda: 1", 0, 6, "`lambda` is not part of a condition", "a fact is written `r.object.attribute`, a value in single quotes"),
    ("r.a.b; r.c.d", 5, 1, "`;` is not part of a condition", ANYTHING),
    ("r . a . b", 0, 1, "`r` is not part of a condition", "a fact is written `r.object.attribute`, a value in single quotes"),
    ("r.a.b + r.c.d", 6, 1, "`+` is not part of a condition", ANYTHING),
    ("None", 0, 4, "`None` is not part of a condition", "a fact is written `r.object.attribute`, a value in single quotes"),
]


@pytest.mark.parametrize(("text", "at", "length", "message", "help"), REFUSED, ids=[text or "nothing" for text, *_ in REFUSED])
def test_what_is_not_in_the_language_is_refused_with_its_place_and_help(text, at, length, message, help):
    with pytest.raises(ConditionError) as caught:
        parse_condition(text)
    error = caught.value
    assert (error.at, error.length, error.message, error.help) == (at, length, message, help)


def test_every_help_and_every_message_has_a_case_here():
    assert {help for _, help in _HELP} <= {help for *_, help in REFUSED}
    written = re.findall(r'ConditionError\(f?"([^"]*)"', Path(source).read_text())
    told = [message for *_, message, _ in REFUSED] + [TOO_DEEP]
    assert len(written) > 5
    for sentence in written:
        pattern = ".*".join(re.escape(part) for part in re.split(r"\{[^}]*\}", sentence))
        assert any(re.fullmatch(pattern, one) for one in told), sentence


TOO_DEEP = "more than 100 parentheses are open"


@pytest.mark.parametrize("opening", ["(", "!("], ids=["parentheses", "negations"])
def test_a_hundred_parentheses_may_be_open_and_no_more(opening):
    parse_condition(opening * 100 + "r.consent.a" + ")" * 100)
    with pytest.raises(ConditionError) as caught:
        parse_condition(opening * 101 + "r.consent.a" + ")" * 101)
    assert (caught.value.message, caught.value.at, caught.value.help) == (TOO_DEEP, len(opening) * 101 - 1, "split the rule in two")


def test_parentheses_that_are_closed_again_do_not_count():
    parse_condition(" && ".join(["(r.consent.a)"] * 1000))


def test_a_long_condition_is_read_without_recursion():
    tree = parse_condition(" || ".join(["r.consent.a && r.consent.b"] * 20_000))
    assert isinstance(tree, Or)
    assert len(tree.items) == 20_000


# --- laws --------------------------------------------------------------------------------------------------------------

identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
facts = st.builds(lambda object, attribute: name(f"{object}.{attribute}"), identifiers, identifiers)
literals = st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True).filter(lambda text: not re.search(r"\b[rp][0-9]*\.", text)).map(word)
leaves = facts | st.builds(Compare, facts, facts | literals, st.booleans())
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=4).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=4).map(tuple)),
    ),
    max_leaves=20,
)


def printed(tree: Condition) -> str:
    """The shortest text of a tree, as an author would write it."""
    match tree:
        case Name(fact):
            return f"r.{fact}"
        case Compare(left, right, equal):
            return f"{printed(left)} {'==' if equal else '!='} " + (printed(right) if isinstance(right, Name) else f"'{right.value}'")
        case Not(Name() as item):
            return f"!{printed(item)}"
        case Not(item):
            return f"!({printed(item)})"
        case And(items):
            return " && ".join(f"({printed(item)})" if isinstance(item, And | Or) else printed(item) for item in items)
        case Or(items):
            return " || ".join(f"({printed(item)})" if isinstance(item, Or) else printed(item) for item in items)
    raise AssertionError(tree)


@given(trees)
def test_a_tree_that_is_printed_and_parsed_is_the_same_tree(tree):
    assert bare(parse_condition(printed(tree))) == tree


@given(trees)
def test_the_columns_are_where_the_words_stand(tree):
    text = printed(tree)
    assert all(text.startswith(f"r.{one.fact}", one.at) for one in names(parse_condition(text)))


PIECES = ["r.consent.a", "'x'", "&&", "||", "!", "(", ")", "==", "!=", " ", "and", "r.", "'", '"', "é", "1", ",", "\u00a0", "r.a.b.c", "p.x"]


@given(st.text(max_size=30) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_text_is_a_condition_or_is_refused_at_a_place_in_it(text):
    try:
        parse_condition(text)
    except ConditionError as error:
        assert 0 <= error.at <= len(text)
        assert error.length >= 1
        assert error.message and error.help
