"""Random packs, and random questions to any pack: Hypothesis strategies.

`packs()` gives the files of a pack that checks: facts in all seven forms, groups of actions, rules with random conditions, a grid with conditional cells,
defaults or none. `requests(pack)` and `directives(pack)` read from a pack's vocabulary what its facts look at, and put there what is usual, what is known,
and what makes no sense.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from hypothesis import strategies as st

from engine.calendar import end_of_day, iso, parse_instant, start_of_day
from engine.pack import MODEL, Pack
from engine.request import Action, Entity, Request
from engine.vocabulary import Cell, Coded, Elapsed, Form, Given, Held, Member, Path, Same

NOW = 1795256400.0
"""2026-11-21T11:20:00+01:00."""
PEOPLE = ("ann", "bob", "cyd")
MISSING = object()
Steps = tuple[str, ...]


# --- writing a pack --------------------------------------------------------------------------------------------------


def write_pack(
    *,
    facts: Mapping[str, Mapping[str, Any]],
    rules: Sequence[tuple[str, str, str, str, str]],
    subjects: Sequence[str] = ("user",),
    actions: Mapping[str, Sequence[str]] | None = None,
    groups: Iterable[tuple[str, str]] = (),
    default: Mapping[str, str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    vocabulary: Mapping[str, Any] | None = None,
    sheets: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> dict[str, bytes]:
    """The files of a pack, from its parts."""
    head = {"pack": {"name": "random", "version": 1, "time_zone": "Europe/Paris", "languages": ["en"]}, "default": default or {}, "setting": settings or {}}
    nested: dict[str, dict[str, Any]] = {}
    for name, fact in facts.items():
        where, attribute = name.split(".")
        nested.setdefault(where, {})[attribute] = {"about": name, **fact}
    words = {"subjects": list(subjects), "actions": actions or {"thing": ["read"]}, **(vocabulary or {}), "fact": nested}
    lines = [*(", ".join(("g", *link)) for link in groups), *(", ".join(("p", *rule)) for rule in rules)]
    ids = dict.fromkeys([*(rule[0] for rule in rules), *(default or {}).values()])
    reasons = [("rule", "legal_basis", "discreet", "obligations", "en"), *((id, "a law", "no", "", f"Because {id}.") for id in ids)]
    trivial = ("some-subject", "never_permit", "*", "*", "", f"r.subject.type != '{subjects[0]}'")
    files = {
        "pack.toml": _toml(head),
        "vocabulary.toml": _toml(words),
        "model.conf": MODEL,
        "rules.csv": "\n".join(lines) + "\n",
        "reasons.csv": _sheet(reasons),
        "invariants.csv": _sheet([("id", "form", "subject", "action", "fact", "condition"), trivial]),
        **{name: _sheet(rows) for name, rows in (sheets or {}).items()},
    }
    return {name: text.encode() for name, text in files.items()}


def _toml(value: Mapping[str, Any]) -> str:
    """A table of tables: what is written on one line is written on one line."""
    return "".join(f"{json.dumps(key)} = {_inline(one)}\n" for key, one in value.items())


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_inline(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(one) for one in value) + "]"
    return json.dumps(value)


def _sheet(rows: Iterable[Sequence[str]]) -> str:
    return "".join(",".join(row) + "\n" for row in rows)


# --- random packs ----------------------------------------------------------------------------------------------------

WORDS = ("x", "y", "z")
OBJECTS = ("subject", "action", "resource", "context", "consent", "matrix")
INPUTS = (
    "subject.id", "subject.team", "subject.roles", "resource.id", "resource.owner", "resource.shelf", "resource.made",
    "context.mode", "context.flag", "action.target.id", "incoming.owner",
)  # fmt: skip
KINDS = {
    "grant": {
        "targets": ["person", "team", "everybody"], "properties": ["by", "shelf", "mode"],
        "narrows": {"shelf": ["person", "team", "everybody"], "mode": ["team"]},
    },
    "ban": {"targets": ["person"], "ends": ["grant"]},
    "member": {"targets": ["person"], "properties": ["team"], "group": "team"},
    "seal": {"targets": ["item", "made", "everybody"], "intervals": ["made"], "properties": ["owner"], "narrows": {"owner": ["made", "everybody"]}},
    "birth": {"targets": ["everybody"], "properties": ["day"]},
}  # fmt: skip
SETTINGS = {"strict": {"value": True}, "tone": {"value": "y", "choices": list(WORDS)}, "delay": {"value": 3, "unit": "days"}}


@st.composite
def packs(draw: st.DrawFn, most: int = 7) -> dict[str, bytes]:
    """The files of a pack of up to `most` facts."""
    subjects = draw(st.sampled_from([("user",), ("user", "robot"), ("user", "robot", "guest")]))
    actions = ("read", "write", "burn")[: draw(st.integers(1, 3))]
    links = [*((action, group) for action in actions for group in ("using", "changing")), ("using", "anything"), ("changing", "anything")]
    groups = draw(st.lists(st.sampled_from(links), unique=True))
    groups = [link for link in groups if link[0] in actions or any(parent == link[0] for _, parent in groups)]
    named = sorted({*actions, *(parent for _, parent in groups)})
    kinds_of_fact = draw(st.lists(st.sampled_from(sorted(FORMS)), min_size=3, max_size=most))
    facts = {f"{draw(st.sampled_from(OBJECTS))}.f{n}": draw(FORMS[kind]) for n, kind in enumerate(kinds_of_fact)}
    tests = _tests(facts, subjects, actions)
    settled = [name for name, fact in facts.items() if fact["form"] != "cell"]
    inner = _conditions(_tests({name: facts[name] for name in settled}, subjects, actions) or ["r.context.plain"], 2)
    if not settled:
        facts["context.plain"] = {"form": "given", "of": "context.flag", "absent": False}
    rules = []
    for n in range(draw(st.integers(3, 10))):
        subject, action = draw(st.sampled_from([*subjects, "*", "*"])), draw(st.sampled_from([*named, "*", "*"]))
        rules.append((f"rule-{n}", subject, action, draw(_conditions(tests, 3)), draw(st.sampled_from(["allow", "deny"]))))
    default = draw(st.dictionaries(st.sampled_from(named), st.sampled_from(["default-a", "default-b"]), max_size=2))
    letters = st.sampled_from(["A", "B", "C"])
    grid = [("row", "left", "right"), *((shelf, draw(letters), draw(letters)) for shelf in WORDS)]
    vocabulary = {
        "alias": {"incoming": {actions[-1]: "action.document", "otherwise": "resource"}},
        "kind": KINDS,
        "list": {"shelves": {"file": "data/shelves.csv"}},
        "grid": {"map": {"file": "data/map.csv", "letters": {"A": "published", "B": "inferred", "C": "published"}}},
        "condition": {"when_one": draw(inner), "when_two": draw(inner)},
    }
    sheets = {"data/map.csv": grid, "data/shelves.csv": [("shelf", "side", "tone"), ("x", "left", "x"), ("y", "right", "y"), ("z", "", "")]}
    about = {"thing": list(actions)}
    return write_pack(
        facts=facts, rules=rules, subjects=subjects, actions=about, groups=groups, default=default, settings=SETTINGS, vocabulary=vocabulary, sheets=sheets
    )


_paths = st.sampled_from(INPUTS)
_truth = {"absent": st.booleans(), "unknown": st.booleans()}
_words = {"absent": st.sampled_from(WORDS), "unknown": st.sampled_from(WORDS)}
_letter = st.one_of(st.booleans(), st.just({"condition": "when_one"}), st.just({"condition": "when_two"}), st.just({"setting": "tone", "is": "y"}))
_several = st.lists(st.sampled_from(WORDS), min_size=1, max_size=2, unique=True)
_SEALED = {"item": "resource.id", "made": "resource.made", "everybody": "everybody"}
_narrowed = st.fixed_dictionaries({"shelf": st.sampled_from(["resource.shelf", "incoming.owner"]), "mode": st.sampled_from(["context.mode", "subject.roles"])})
_held = {"form": st.just("held"), "kind": st.just("grant"), "absent": st.booleans(), "narrowed": _narrowed}
_owned = st.sampled_from([{"owner": "resource.owner"}, {"owner": "action.target.id"}])
_held_of = st.sampled_from([
    {"person": "subject.id"}, {"team": "subject.team"}, {"person": "action.target.id"}, {"person": "subject.id", "team": "subject.team"},
    {"person": "incoming.owner", "everybody": "everybody"},
])  # fmt: skip
_letters = st.fixed_dictionaries({"A": _letter, "B": _letter, "C": _letter})
_coded = {"form": st.just("coded"), "of": _paths}
_cell = {"form": st.just("cell"), "grid": st.just("map"), "row": st.sampled_from(["resource.shelf", "context.mode"])}
FORMS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "given": st.fixed_dictionaries({"form": st.just("given"), "of": _paths, **_truth}),
    "given word": st.fixed_dictionaries({"form": st.just("given"), "of": _paths, "values": st.just(list(WORDS)), **_words}),
    "given word again": st.fixed_dictionaries({"form": st.just("given"), "of": _paths, "values": st.just(list(reversed(WORDS))), **_words}),
    "given one word": st.fixed_dictionaries({"form": st.just("given"), "of": _paths, "values": st.just(["x"]), "absent": st.just("x")}),
    "given text": st.fixed_dictionaries({"form": st.just("given"), "of": _paths, "text": st.just(True), **_truth}),
    "setting": st.fixed_dictionaries({"form": st.just("given"), "of": st.just("setting.strict"), "absent": st.booleans()}),
    "setting word": st.fixed_dictionaries({"form": st.just("given"), "of": st.just("setting.tone"), "values": st.just(list(WORDS)), "absent": st.just("x")}),
    "same": st.fixed_dictionaries({"form": st.just("same"), "of": st.tuples(_paths, _paths), "absent": st.booleans()}),
    "member": st.fixed_dictionaries({"form": st.just("member"), "of": _paths, "in": _several, "several": st.booleans(), **_truth}),
    "held": st.fixed_dictionaries({**_held, "of": _held_of, "ended": st.booleans()}),
    "held with": st.fixed_dictionaries({**_held, "of": _held_of, "with": st.sampled_from([{"by": "ann"}, {"by": "@subject.id"}, {"by": "@context.mode"}])}),
    "held via": st.fixed_dictionaries({**_held, "of": _held_of, "via": st.just("member")}),
    "held seal": st.fixed_dictionaries({**_held, "kind": st.just("seal"), "of": st.just(_SEALED), "narrowed": _owned, "ended": st.booleans()}),
    "held ban": st.fixed_dictionaries({**_held, "kind": st.just("ban"), "of": st.just({"person": "subject.id"}), "narrowed": st.just({})}),
    "elapsed": st.fixed_dictionaries(
        {"form": st.just("elapsed"), "since": st.sampled_from(["resource.made", "record.birth.day", "record.birth.from", "record.ban.until"]),
         "at_least": st.sampled_from([{"days": "delay"}, {"months": 1}, {"years": 18}]), "absent": st.booleans()}
    ),
    "coded": st.fixed_dictionaries({**_coded, "codes": st.dictionaries(st.sampled_from(WORDS), st.booleans()), "several": st.booleans(), **_truth}),
    "coded word": st.fixed_dictionaries({**_coded, "list": st.just("shelves"), "column": st.just("tone"), "values": st.just(list(WORDS)), **_words}),
    "coded list": st.fixed_dictionaries(
        {**_coded, "list": st.just("shelves"), "column": st.just("side"), "in": st.just(["left"]), "several": st.booleans(), **_truth}
    ),
    "cell": st.fixed_dictionaries({**_cell, "column_is": st.just("left"), "letters": _letters, **_truth}),
    "cell found": st.fixed_dictionaries(
        {**_cell, "column": st.just({"of": "context.mode", "list": "shelves", "column": "side"}), "letters": _letters, **_truth}
    ),
    "cell word": st.fixed_dictionaries(
        {**_cell, "column_is": st.just("right"), "letters": st.just({"A": "x", "B": "y", "C": "z"}), "values": st.just(list(WORDS)), **_words}
    ),
}  # fmt: skip


def _tests(facts: Mapping[str, Mapping[str, Any]], subjects: Sequence[str], actions: Sequence[str]) -> list[str]:
    """Every comparison that is in the language, and the facts that are true or false."""
    words = {name: fact["values"] for name, fact in facts.items() if fact.get("values")}
    made = [f"r.{name}" for name in facts if name not in words]
    made += [f"r.{name} {sign} '{value}'" for name, values in words.items() for value in values for sign in ("==", "!=")]
    made += [f"r.{a} {sign} r.{b}" for a in words for b in words if set(words[a]) == set(words[b]) for sign in ("==", "!=")]
    made += [f"r.subject.type == '{subject}'" for subject in subjects] + [f"r.action.name != '{action}'" for action in actions]
    return made


def _conditions(tests: Sequence[str], depth: int) -> st.SearchStrategy[str]:
    """Conditions over some tests, negated, joined, in parentheses or bare where that means the same."""
    plain = [test for test in tests if " " not in test]
    leaf = st.one_of(st.sampled_from(tests), st.sampled_from(plain).map(lambda test: "!" + test) if plain else st.sampled_from(tests))
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: " && ".join(f"({part})" if "||" in part else part for part in parts)),
            st.lists(inner, min_size=2, max_size=3).map(" || ".join),
            inner.map(lambda part: f"!({part})"),
            inner.map(lambda part: f"({part})"),
        ),
        max_leaves=2 * depth,
    )


# --- random questions ------------------------------------------------------------------------------------------------


def known_words(pack: Pack) -> dict[str, list[str]]:
    """What each input is compared with, by its path as the vocabulary writes it."""
    made: dict[str, list[str]] = {}

    def add(path: Path | str | None, words: Iterable[Any]) -> None:
        if isinstance(path, Path):
            made.setdefault(path.text, []).extend(word for word in words if isinstance(word, str))

    for fact in pack.vocabulary.facts.values():
        match fact.form:
            case Given(of, text, None):
                add(of, ["some text"] if text else fact.values)
            case Member(of, among):
                add(of, sorted(among))
            case Coded(of, codes):
                add(of, list(codes)[:12])
            case Cell(grid, row, column, column_of):
                add(row, list(grid.rows)[:12])
                add(column, list(column_of)[:12])
            case Same(left, right):
                add(left, PEOPLE)
                add(right, PEOPLE)
            case Held():
                for shape, path in fact.form.of:
                    add(path, INSTANTS if shape in ("deposited", "made") else PEOPLE)
                for _, wanted in (*fact.form.where, *fact.form.narrowed):
                    add(wanted, PEOPLE)
            case Elapsed(since):
                add(since, INSTANTS)
    return {text: list(dict.fromkeys(words)) for text, words in made.items() if not text.startswith(("setting.", "record."))}


DAY = 86400.0
MOMENTS = (NOW, NOW - 1, NOW + 1, NOW - 3 * DAY, NOW + DAY, NOW - 30 * DAY, NOW - 31 * DAY, NOW - 3650 * DAY, NOW - 18 * 365.25 * DAY)
INSTANTS = tuple(iso(moment, zone) for moment, zone in zip(MOMENTS, ("UTC", "Europe/Paris", "Asia/Kolkata") * 3, strict=True))
JUNK: tuple[Any, ...] = (
    "", " ", "\u00a0", "nobody knows", "ANN", "é", "2026-11-21", "2026-11-21T10:00", True, False, 0, 1, 1.0, 2.5, [], [[]], ["", 3, None], {}, {"id": "ann"},
)  # fmt: skip


def paths_of(pack: Pack) -> dict[Steps, list[str]]:
    """The same by steps, those of every action together."""
    words = known_words(pack)
    made: dict[Steps, list[str]] = {}
    for fact in pack.vocabulary.facts.values():
        for path in _paths_in(fact.form):
            if path.text in words:
                for steps in (path.steps, *path.by_action.values()):
                    made[steps] = list(dict.fromkeys(made.get(steps, []) + words[path.text]))
    return {steps: known for steps, known in made.items() if all(steps)}


def _paths_in(form: Form) -> list[Path]:
    match form:
        case Given(of) | Member(of) | Coded(of) | Elapsed(of):
            found: list[Any] = [of]
        case Same(left, right):
            found = [left, right]
        case Cell(_, row, column):
            found = [row, column]
        case Held(_, of, where, narrowed=narrowed):
            found = [*(path for _, path in of), *(wanted for _, wanted in (*where, *narrowed))]
    return [path for path in found if isinstance(path, Path)]


def request_from(subject: str, action: str, inputs: Mapping[Steps, Any]) -> Request:
    """A request with these inputs."""
    parts: dict[str, dict[str, Any]] = {"subject": {}, "action": {}, "resource": {}, "context": {}}
    for (head, *rest), value in sorted(inputs.items(), key=lambda item: len(item[0])):
        if head not in parts:  # an alias that says nothing of this action leads nowhere
            continue
        here = parts[head]
        for step in rest[:-1]:
            here = here.setdefault(step, {}) if isinstance(here.get(step, {}), dict) else {}
        here[rest[-1]] = value
    ids = [parts[head].pop("id", None) for head in ("subject", "resource")]  # an entity always has one, which is text
    who, what = (id if isinstance(id, str) and id.strip() else "ann" for id in ids)
    return Request(Entity(subject, who, parts["subject"]), Action(action, parts["action"]), Entity("thing", what, parts["resource"]), parts["context"])


def requests(pack: Pack, *usual: Mapping[str, Any]) -> st.SearchStrategy[Request]:
    """Requests. Without anything usual, every input is drawn: a word that some fact knows, a list, junk, nothing. Otherwise a few are, laid over one of some
    everyday requests, given by path: a request drawn at random never gets past the first lines of a policy.
    """
    stories = [{tuple(text.split(".")): value for text, value in story.items()} for story in usual]
    inputs = {steps: _input(words) for steps, words in ({key: [] for story in stories for key in story} | paths_of(pack)).items()}
    subjects, actions = st.sampled_from([*pack.vocabulary.subjects, "nobody"]), st.sampled_from([*pack.vocabulary.actions, "unheard-of"])
    few = st.lists(st.sampled_from(list(inputs)), max_size=7, unique=True)

    @st.composite
    def asked(draw: st.DrawFn) -> Request:
        everyday = draw(st.sampled_from(stories)) if stories else {}
        drawn = everyday | {steps: draw(inputs[steps]) for steps in (draw(few) if stories else inputs)}
        return request_from(draw(subjects), draw(actions), {steps: value for steps, value in drawn.items() if value is not MISSING})

    return asked()


def _input(words: Sequence[str]) -> st.SearchStrategy[Any]:
    """Mostly a word that a fact knows, and now and then anything at all."""
    words = words or PEOPLE
    known, mixed = st.sampled_from(words), st.sampled_from([*words, *JUNK])
    return st.one_of(known, known, st.sampled_from([*words, True, False, True, False, None, MISSING]), st.lists(mixed, max_size=3), mixed)


def directives(pack: Pack, kinds: Iterable[str] = (), most: int = 6) -> st.SearchStrategy[list[dict[str, Any]]]:
    """A patient's directives as JSON, of some kinds or of all: aimed at those of whom requests speak, with ends, intervals, withdrawals."""
    return st.lists(st.one_of([directive(pack, kind) for kind in kinds or pack.vocabulary.kinds]), max_size=most)


def directive(pack: Pack, name: str, withdrawals: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """One directive of a kind, as JSON."""
    kind, moments = pack.vocabulary.kinds[name], st.sampled_from(INSTANTS)
    interval = st.fixed_dictionaries({}, optional={"from": moments, "until": moments}).filter(lambda bounds: bounds and _ends_after_it_starts(bounds))
    targets: list[st.SearchStrategy[Any]] = []
    for shape in kind.targets:
        words = sorted(aims(pack).get(shape) or PEOPLE)
        aimed = st.sampled_from([words[0], *words])  # the first is whom everyday requests speak of
        several = st.lists(aimed, min_size=1, max_size=3, unique=True)
        named = interval if shape in kind.intervals else st.one_of(aimed, several)
        targets.append(st.just(MISSING) if shape == "everybody" else st.fixed_dictionaries({shape: named}))
    properties = {key: st.sampled_from(_properties(pack, key, key == kind.group)) for key in kind.properties}
    bounds = st.fixed_dictionaries({}, optional={"from": st.sampled_from(BOUNDS), "until": st.sampled_from(BOUNDS)}).filter(_ends_after_it_starts)

    @st.composite
    def stated(draw: st.DrawFn) -> dict[str, Any]:
        made = {"kind": name, "target": draw(st.one_of(targets))}
        shape = "everybody" if made["target"] is MISSING else next(iter(made["target"]))
        made |= {key: draw(words) for key, words in properties.items() if shape in kind.narrows.get(key, (shape,))}
        if withdrawals and draw(st.integers(0, 4)) == 0:
            made["withdraw"] = True
        elif draw(st.booleans()):
            made |= draw(bounds)
        else:
            made["recorded"] = draw(moments)
        return {key: value for key, value in made.items() if value is not MISSING}

    return stated()


def one_of_each(pack: Pack, kinds: Iterable[str]) -> list[dict[str, Any]]:
    """A directive of each of these kinds for each form of its target, aimed at the first word of each, and one for whatever narrows it."""
    made = []
    for kind in (pack.vocabulary.kinds[name] for name in kinds):
        for shape in kind.targets:
            aimed: Any = {"from": INSTANTS[-1]} if shape in kind.intervals else min(aims(pack).get(shape) or PEOPLE)
            one = {"kind": kind.name, "target": {shape: True if shape == "everybody" else aimed}}
            made.append(one | {kind.group: PEOPLE[0]} if kind.group else one)
            made += [made[-1] | {key: PEOPLE[0]} for key, forms in kind.narrows.items() if shape in forms]
    return made


def _properties(pack: Pack, key: str, required: bool) -> list[Any]:
    """What a directive's property may hold: what facts ask for, people, days; nothing, where it may be left out."""
    held = [fact.form.where for fact in pack.vocabulary.facts.values() if isinstance(fact.form, Held)]
    words = [wanted for where in held for name, wanted in where if name == key and isinstance(wanted, str)]
    if any(key in kind.narrows for kind in pack.vocabulary.kinds.values()):
        return [*PEOPLE, MISSING, MISSING]
    days = ["2008-11-21", "2008-11-22", "1980-02-29", INSTANTS[0], "no day"]
    return [*words, *PEOPLE] if required else [*words, *PEOPLE[: len(words)], *([] if words else [*PEOPLE, *days]), MISSING]


BOUNDS = (*INSTANTS, "2026-11-20", "2026-11-21", "2026-11-22", "2026-12-31")


def _ends_after_it_starts(bounds: Mapping[str, str]) -> bool:
    if len(bounds) < 2:
        return True
    start, end = bounds["from"], bounds["until"]
    return _moment(start, start_of_day) < _moment(end, end_of_day)


def _moment(text: str, of_day: Callable[[date, str], float]) -> float:
    instant = parse_instant(text)
    return of_day(date.fromisoformat(text), "Europe/Paris") if instant is None else instant


def aims(pack: Pack) -> dict[str, set[str]]:
    """The words that requests may hold where a directive of each form of target aims."""
    words = known_words(pack)
    made: dict[str, set[str]] = {}
    for fact in pack.vocabulary.facts.values():
        if isinstance(fact.form, Held):
            for shape, path in fact.form.of:
                if path is not None:
                    made.setdefault(shape, set()).update(words[path.text])
    return made
