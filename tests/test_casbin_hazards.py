"""What Casbin's readers do silently, shown with stock pycasbin, and what Habilis does instead: refuse it, or say what it means.

Each test has two halves: the hazard is real, and it does not reach a decision.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import casbin
import pytest
from casbin.model import FunctionMap
from simpleeval import AttributeDoesNotExist, FeatureNotAvailable

from engine.errors import PackError
from engine.pack import MODEL, parse_pack
from engine.pdp import Pdp
from engine.request import Action, Entity, Request

logging.getLogger("casbin").setLevel(logging.CRITICAL)  # it warns of every refusal

BLOCKED = "p, blocked, nurse, read, r.consent.blocked, deny\n"
URGENT = "p, urgent, nurse, read, r.context.urgent, allow\n"

FILES = {
    "pack.toml": '[pack]\nname = "small"\nversion = 1\ntime_zone = "UTC"\nlanguages = ["en"]\n',
    "vocabulary.toml": """
subjects = ["nurse"]
actions = { document = ["read"] }
kind.block.targets = ["professional"]

[fact.subject]
role = { about = "The role.", form = "given", of = "subject.role", values = ["none", "duty"], absent = "none" }
[fact.context]
urgent = { about = "It is urgent.", form = "given", of = "context.urgent", absent = false }
[fact.consent]
blocked = { about = "The patient blocked the one who asks.", form = "held", kind = "block", of = { professional = "subject.id" }, absent = true }
""",
    "model.conf": MODEL,
    "reasons.csv": "rule,legal_basis,discreet,obligations,en\nblocked,article 1,no,,Blocked.\nurgent,article 2,no,,Urgent.\n",
    "invariants.csv": "id,form,subject,action,fact,condition\nblocked,never_permit,nurse,read,,r.consent.blocked\n",
}


def habilis(rules: str | bytes, **changed: str) -> Pdp:
    """The pack with these rules, and other files changed."""
    files = {name: text.encode() for name, text in (FILES | changed).items()}
    return Pdp(parse_pack(files | {"rules.csv": rules if isinstance(rules, bytes) else rules.encode()}))


def refused(rules: str | bytes, **changed: str) -> str:
    """What the author of these rules is told; that they have other reasons than the pack is another matter."""
    with pytest.raises(PackError) as caught:
        habilis(rules, **changed)
    return "\n".join(one.render() for one in caught.value.diagnostics if one.file != "reasons.csv" and one.code != "rule-without-reason")


def answer(pdp: Pdp, blocked: bool, **context: object) -> tuple[bool, str]:
    record = pdp.fold([{"kind": "block", "target": {"professional": "1"}}] if blocked else [], 0.0)
    made = pdp.decide(Request(Entity("nurse", "1"), Action("read"), Entity("document", "2"), context), record)
    return made.permitted, made.rule


@pytest.fixture
def stock(tmp_path):
    """A stock enforcer of a policy, by default under the model of a pack."""

    def build(policy: str | bytes, model: str = MODEL, kind: type[casbin.Enforcer] = casbin.Enforcer, **options: object) -> casbin.Enforcer:
        (tmp_path / "model.conf").write_text(model)
        (tmp_path / "policy.csv").write_bytes(policy if isinstance(policy, bytes) else policy.encode())
        return kind(str(tmp_path / "model.conf"), str(tmp_path / "policy.csv"), **options)

    return build


def ask(enforcer: casbin.Enforcer, blocked: bool = False, urgent: bool = True, role: str = "none", **attributes: object) -> bool:
    """Whether it lets a nurse read."""
    subject, action = SimpleNamespace(type="nurse", role=role, **attributes), SimpleNamespace(name="read")
    nothing = SimpleNamespace()
    return enforcer.enforce(subject, action, nothing, SimpleNamespace(urgent=urgent), SimpleNamespace(blocked=blocked), nothing)


def test_both_decide_alike_where_there_is_no_hazard(stock):
    enforcer, pdp = stock(BLOCKED + URGENT), habilis(BLOCKED + URGENT)
    for blocked in (False, True):
        for urgent in (False, True):
            assert ask(enforcer, blocked, urgent) is answer(pdp, blocked, urgent=urgent)[0] is (urgent and not blocked)


# --- lines that are not what they seem ---------------------------------------------------------------------------------


def test_a_byte_order_mark_drops_the_first_line_a_deny(stock):
    rules = b"\xef\xbb\xbf" + (BLOCKED + URGENT).encode()
    assert ask(stock(rules), blocked=True)
    assert refused(rules) == (
        "rules.csv:1: error[casbin-bom]: this file starts with a byte-order mark: Casbin would drop its first line\n  help: save it as UTF-8 without one"
    )


def test_a_first_column_that_it_does_not_know_drops_the_line(stock):
    rules = BLOCKED.replace("p,", "P,") + URGENT
    assert ask(stock(rules), blocked=True)
    assert refused(rules).startswith("rules.csv:1:1: error[rule-line]: a line starts with `p` or `g`, not `P`: Casbin would drop it\n")


def test_a_comment_at_the_end_of_a_line_is_part_of_the_effect(stock):
    rules = BLOCKED.rstrip() + " # by the patient\n" + URGENT
    assert ask(stock(rules), blocked=True)
    assert refused(rules).startswith("rules.csv:1:50: error[casbin-comment]: Casbin takes a comment at the end of a line for part of the effect\n")


def test_an_effect_with_a_capital_is_neither(stock):
    rules = BLOCKED.replace("deny", "Deny") + URGENT
    assert ask(stock(rules), blocked=True)
    assert refused(rules).startswith("rules.csv:1:45: error[effect-unknown]: `Deny` is no effect: Casbin would take it for neither\n")


@pytest.mark.parametrize(("literal", "raised"), [("]", IndexError), ("[", RuntimeError)])
def test_a_bracket_in_a_literal_breaks_the_policy(stock, literal, raised):
    rules = f"p, duty, nurse, read, r.subject.role == '{literal}', allow\n"
    with pytest.raises(raised):
        ask(stock(rules))
    assert refused(rules).startswith("rules.csv:1:42: error[casbin-bracket]: Casbin counts brackets when it splits a line\n")


@pytest.mark.parametrize("sign", ["\f", "\v", "\r", "\x1c", "\x85", "\u2028"], ids=ascii)
def test_a_line_ends_at_a_line_feed_alone_so_a_comment_hides_no_rule(stock, sign):
    rules = f"# a comment{sign}p, anybody, *, *, r.subject.role == 'none', allow\n" + BLOCKED + URGENT
    assert len(rules.splitlines()) == 4
    enforcer, pdp = stock(rules), habilis(rules)
    assert [line[0] for line in enforcer.get_policy()] == [rule.id for rule in pdp.pack.rules] == ["blocked", "urgent"]


@pytest.mark.parametrize("sign", ["\x1f", "\u200b", "\u00a0", "\ufeff"], ids=ascii)
def test_a_character_that_cannot_be_seen_makes_another_word(stock, sign):
    assert ask(stock(BLOCKED.replace("nurse", f"nur{sign}se") + URGENT), blocked=True)
    assert "error[casbin-invisible]: Casbin's readers disagree on characters that cannot be seen" in refused(BLOCKED.replace("nurse", f"nur{sign}se") + URGENT)


# --- conditions that are rewritten as text -----------------------------------------------------------------------------


def test_a_condition_in_double_quotes_is_a_constant(stock):
    rules = 'p, urgent, nurse, read, "r.consent.blocked" && r.context.urgent, allow\n'
    assert ask(stock(rules), blocked=False)
    assert refused(rules).startswith("rules.csv:1:25: error[casbin-quotes]: Casbin takes a condition in double quotes for a constant that is true\n")


@pytest.mark.parametrize(
    ("literal", "read_as"),
    [("a&&b", "aandb"), ("a||b", "aorb"), ("a!", "anot "), ("r.x", "r_x"), ("x-r.y", "x-r_y"), ("p.x", "p_x"), ("p2.x", "p2_x")],
)
def test_signs_and_names_inside_literals_are_rewritten(stock, literal, read_as):
    rules = f"p, duty, nurse, read, r.subject.role == '{literal}', allow\n"
    enforcer = stock(rules)
    assert not ask(enforcer, role=literal)
    assert ask(enforcer, role=read_as)
    told = refused(rules)
    assert told.startswith("rules.csv:1:41: error[condition-syntax]: ")
    assert told.endswith(("help: a literal holds letters, digits, `_`, `.` and `-` only", "help: no word of a literal starts with `r.` or `p.`"))


def test_and_without_spaces_joins_the_words_beside_it(stock):
    rules = "p, urgent, nurse, read, r.context.urgent&&r.context.urgent, allow\n"
    with pytest.raises(AttributeDoesNotExist, match="urgentandr_context"):
        ask(stock(rules))
    assert refused(rules).splitlines()[0] == "rules.csv:1:41: error[condition-syntax]: `&&` stands between spaces"


def test_an_absent_attribute_raises_where_a_fact_has_its_refusing_value(stock):
    rules = "p, duty, nurse, read, r.subject.height == 'tall', allow\n"
    with pytest.raises(AttributeDoesNotExist):
        ask(stock(rules))
    assert "error[fact-unknown]: unknown fact `subject.height`" in refused(rules)
    assert answer(habilis(BLOCKED + URGENT), blocked=False) == (False, "")


@pytest.mark.parametrize("name", ["format", "format_map", "mro", "gi_frame", "exec", "_x", "func_x"])
def test_some_names_of_attributes_are_refused(stock, name):
    with pytest.raises(FeatureNotAvailable):
        ask(stock(f"p, named, nurse, read, r.subject.{name}, allow\n"), **{name: True})
    words = FILES["vocabulary.toml"].replace("role =", f"{name} =")
    assert f"error[fact-name]: `subject.{name}` cannot be the name of a fact" in refused(BLOCKED + URGENT, **{"vocabulary.toml": words})


@pytest.mark.parametrize("name", ["this", "null", "constructor", "is_prototype"])
def test_names_that_node_casbin_refuses_are_refused_too(name):
    words = FILES["vocabulary.toml"].replace("role =", f"{name} =")
    assert f"error[fact-name]: `subject.{name}` cannot be the name of a fact: Casbin's evaluators refuse this name" in refused(
        BLOCKED + URGENT, **{"vocabulary.toml": words}
    )


def test_groups_too_far_up_are_not_found(stock):
    def links(number: int) -> str:
        names = ["read", *(f"up{n}" for n in range(1, number + 1))]
        return "".join(f"g, {low}, {high}\n" for low, high in pairwise(names)) + URGENT.replace("read,", f"up{number},")

    assert ask(stock(links(9)))
    assert answer(habilis(links(9) + BLOCKED), blocked=False, urgent=True) == (True, "urgent")
    assert not ask(stock(links(10)))
    assert "error[group-far]: the group `up10` is more than 9 groups above an action: Casbin does not look so far" in refused(links(10))


# --- models and enforcers ----------------------------------------------------------------------------------------------

DENY_OVERRIDE = """
[request_definition]
r = sub, obj
[policy_definition]
p = sub, obj, eft
[policy_effect]
e = !some(where (p.eft == deny))
[matchers]
m = r.sub == p.sub && r.obj == p.obj
"""


def test_an_empty_policy_under_deny_override_allows(stock):
    assert stock("", DENY_OVERRIDE).enforce("anybody", "anything")
    assert refused("# nothing yet\n") == (
        "rules.csv: error[rules-empty]: this file has no rule\n  help: an empty policy decides nothing; write at least one `p` line"
    )
    assert "error[model-changed]" in refused(BLOCKED + URGENT, **{"model.conf": MODEL.replace("priority(p.eft) || deny", "!some(where (p.eft == deny))")})
    assert answer(habilis(BLOCKED + URGENT), blocked=False, urgent=False) == (False, "")


def test_a_disabled_enforcer_allows(stock):
    enforcer = stock(BLOCKED + URGENT)
    enforcer.enable_enforce(False)
    assert ask(enforcer, blocked=True)
    pdp = habilis(BLOCKED + URGENT)
    assert not [name for name in dir(pdp) if "enable" in name or "disable" in name]
    assert answer(pdp, blocked=True, urgent=True) == (False, "blocked")


TWO_EFFECTS = """
[request_definition]
r = sub
r2 = sub
[policy_definition]
p = sub, eft
p2 = sub, eft
[policy_effect]
e = some(where (p.eft == allow))
e2 = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.sub == p.sub
m2 = r2.sub == p2.sub
"""


def test_the_effect_of_an_enforce_context_is_ignored(stock):
    enforcer = stock("p2, alice, deny\np2, alice, allow\n", TWO_EFFECTS)
    assert enforcer.enforce(enforcer.new_enforce_context("2"), "alice")
    assert "error[model-changed]" in refused(BLOCKED + URGENT, **{"model.conf": MODEL.replace("[matchers]", "e2 = priority(p.eft) || deny\n[matchers]")})


class Held(FunctionMap):
    """Holds a thread where any may be interrupted: when FastEnforcer has filtered the policy and not yet looked at it."""

    def __init__(self, *names: str):
        super().__init__()
        self.filtered = {name: threading.Event() for name in names}
        self.go_on = {name: threading.Event() for name in names}

    def get_functions(self):
        name = threading.current_thread().name
        if name in self.filtered:
            self.filtered[name].set()
            assert self.go_on[name].wait(10)
        return super().get_functions()


def test_a_fast_enforcer_filters_one_policy_for_all_threads(stock):
    enforcer = stock("p, alice, letter, deny\np, bob, letter, allow\n", DENY_OVERRIDE, casbin.FastEnforcer, cache_key_order=[0, 1])
    assert not enforcer.enforce("alice", "letter")
    enforcer.fm = held = Held("alice", "bob")
    allowed: dict[str, bool] = {}

    def enforce(name: str) -> None:
        allowed[name] = enforcer.enforce(name, "letter")

    threads = {name: threading.Thread(target=enforce, args=(name,), name=name) for name in ("alice", "bob")}
    for name in ("alice", "bob"):
        threads[name].start()
        assert held.filtered[name].wait(10)
    for name in ("alice", "bob"):
        held.go_on[name].set()
        threads[name].join(10)
    assert allowed["alice"], "alice, who is denied, was judged by the lines of bob"


def test_many_threads_get_the_answers_of_one():
    pdp = habilis(BLOCKED + URGENT)
    questions = [(bool(n & 1), bool(n & 2)) for n in range(400)]
    alone = [answer(pdp, blocked, urgent=urgent) for blocked, urgent in questions]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda question: answer(pdp, question[0], urgent=question[1]), questions))
    assert together == alone
