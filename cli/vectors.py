"""`habilis vectors`: reports of a run for people and for continuous integration, and stubs to be filled by hand."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from cli.edge import choose
from engine.pack import Pack
from engine.vectors import Coverage, Report, Result

SHOWN = 20
"""How many fact values that no vector sees are named."""


def lines_of(report: Report) -> Iterator[str]:
    """A report for people: what failed, then what is covered."""
    for result in report.failures:
        case = result.case
        yield f"{case.place}: {result.status} {case.id}: {case.title}"
        yield from (f"  {sentence}" for sentence in result.differences or [result.error])
    for one in report.coverage:
        yield from _coverage_lines(one, report.complete)
    yield f"{len(report.results):,} vectors: " + ", ".join(f"{report.count(status):,} {status}" for status in ("passed", "failed", "error"))


def _coverage_lines(one: Coverage, complete: bool) -> Iterator[str]:
    """What is covered; of a whole folder also what is not."""
    yield f"{one.pack}: what the vectors cover"
    yield f"  rules   {one.rules - len(one.undecided):,} of {one.rules:,} decide a vector"
    yield f"  facts   {one.values - len(one.unseen):,} of {one.values:,} values are seen"
    for grid, (seen, total) in one.cells.items():
        yield f"  cells   {seen:,} of {total:,} of the grid `{grid}` are looked at"
    if one.undecided and complete:
        yield "  no vector is decided by: " + ", ".join(one.undecided)
    if one.unseen and complete:
        more = f" and {len(one.unseen) - SHOWN} more" if len(one.unseen) > SHOWN else ""
        yield "  no vector has: " + ", ".join(f"{name} {str(value).lower() if isinstance(value, bool) else value}" for name, value in one.unseen[:SHOWN]) + more


# --- JUnit -----------------------------------------------------------------------------------------------------------


def junit(report: Report) -> bytes:
    """The report as JUnit XML: a suite per file, a test per vector, and one per pack that fails when a rule decides no vector."""
    root = ElementTree.Element("testsuites", name="habilis vectors", tests=str(len(report.results)), time=f"{report.seconds:.3f}")
    files: dict[str, list[Result]] = {}
    for result in report.results:
        files.setdefault(result.case.file, []).append(result)
    for file, results in files.items():
        _suite(root, file, results)
    for one in report.coverage:
        suite = _element(root, "testsuite", name=f"coverage of {one.pack}", tests="1", failures=str(int(report.complete and bool(one.undecided))), errors="0")
        test = _element(suite, "testcase", name="every rule decides a vector", classname=one.pack)
        if report.complete and one.undecided:
            _element(test, "failure", message="no vector is decided by: " + ", ".join(one.undecided))
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _suite(root: ElementTree.Element, file: str, results: list[Result]) -> None:
    count = {status: str(sum(result.status == status for result in results)) for status in ("failed", "error")}
    seconds = sum(result.seconds for result in results)
    suite = _element(root, "testsuite", name=file, tests=str(len(results)), failures=count["failed"], errors=count["error"], time=f"{seconds:.6f}")
    for result in results:
        case = result.case
        test = _element(suite, "testcase", name=case.id, classname=file, file=file, line=str(case.line), time=f"{result.seconds:.6f}")
        if result.status != "passed":
            element = _element(test, "failure" if result.status == "failed" else "error", message="; ".join(result.differences) or result.error)
            element.text = _clean(f"{case.place}: {case.title}")


def _element(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, {key: _clean(value) for key, value in attributes.items()})


def _clean(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)


# --- stubs -----------------------------------------------------------------------------------------------------------


def stub(pack: Pack, rule: str, language: str) -> str:
    """A vector for a rule, to be put under `vectors:` and filled by hand: what it expects is left empty."""
    defaults = {id: group for group, id in reversed(pack.defaults)}
    rules = pack.by_id
    choose("rule", rule, [*rules, *defaults])
    subject = rules[rule].subject if rule in rules else "*"
    group = rules[rule].action if rule in rules else defaults[rule]
    action = next((name for name in pack.vocabulary.actions if group == "*" or group in pack.groups_of(name)), group)
    asked = f'subject: {{type: {pack.vocabulary.subjects[0] if subject == "*" else subject}, id: ""}}, action: {action}'
    if pack.vocabulary.actions.get(action) == "document":
        asked += ', resource: {id: "", type: "", status: "", confidentiality: []}'
    reason = pack.reasons[rule]
    return "\n".join(
        [
            f"  - id: {rule}-",
            f"    title: {_quoted(reason.words.get(language, ''))}",
            f"    article: {_quoted(reason.legal_basis)}",
            "    given: {record: []}",
            f"    ask: {{{asked}}}",
            "    expect:    # by hand, from the policy: {decision: , rule: , obligations: [], discreet: }",
        ]
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
