"""`habilis journal`: who did what to a record, emergencies to be reviewed, notices owed, from a shell; and the follower that derives it all from the log.

For reviewers, on the machine that holds the log: everything is shown. Reading it is itself logged: what cannot be logged is not shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.edge import PACK, Misuse, check_nobody, choose, command, finding, print_json, say
from cli.places import Data, JournalUrl, LogUrl, caller, journal_at, log_at, log_reading, make_folder
from engine.calendar import iso, parse_date, parse_instant
from engine.decision_log.log import DecisionLog
from engine.decision_log.read import LogReader
from engine.journal.database import Database
from engine.journal.follower import Follower
from engine.journal.follower import rebuild as forget
from engine.journal.notices import Outbox
from engine.journal.queries import EVERYTHING, Journal, Review, Trace, position

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Who did what to a record, emergencies to be reviewed, notices owed.",
)  # fmt: skip

SHOWN = 50
DAY = 86_400.0
BUSY = "another follower is at work"

Limit = Annotated[int, typer.Option(metavar="N", min=1, help="The newest so many.")]
Before = Annotated[str, typer.Option(metavar="PLACE", help="Go on from here: what the page before ended with.", show_default=False)]
Since = Annotated[str | None, typer.Option(metavar="DATE|INSTANT", help="Only since then; a date begins at midnight UTC.", show_default=False)]
Until = Annotated[str | None, typer.Option(metavar="DATE|INSTANT", help="Only before then.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  habilis journal {line}" for line in lines)


# --- following -------------------------------------------------------------------------------------------------------


@app.command(epilog=_examples("follow", "follow --once", "follow --rebuild --once"))
@command
def follow(
    once: Annotated[bool, typer.Option("--once", help="Read what is there, and end.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.01, help="How often to look for more.")] = 1.0,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Forget everything first, and derive it anew.")] = False,
    log: LogUrl = None,
    journal: JournalUrl = None,
    data: Data = None,
) -> None:
    """Derive the journal from the log, and make it where there is none.

    One follower works at a time; another waits, and takes over when the first one ends. With --once, exit code 1 when entries were not understood.
    """
    url = journal_at(data, journal)
    make_folder(url)
    database = Database(url, create=True)
    try:
        with LogReader(log_at(data, log)) as reader, Follower(reader, database) as follower:
            if rebuild:
                if not follower.lead():
                    raise Misuse(BUSY)
                forget(database)
            if once:
                _follow_once(follower, Journal(database))
            else:
                _follow(follower, every)
    finally:
        database.close()


def _follow_once(follower: Follower, journal: Journal) -> None:
    read = follower.step()
    if not follower.leading:
        raise Misuse(BUSY)
    say(f"{read} entries were read")
    problems = journal.problems()
    for segment, index, why in problems:
        say(f"  not understood: {segment} {index}: {why}")
    if problems:
        finding()


def _follow(follower: Follower, every: float) -> None:
    follower.start(every)
    trouble = ""
    try:
        while True:
            time.sleep(every)
            if follower.trouble != trouble:
                trouble = follower.trouble
                say(trouble or "it goes on")
    except KeyboardInterrupt:
        say("stopped")


# --- looking ---------------------------------------------------------------------------------------------------------


@app.command(epilog=_examples("show 279035121518989", "show 279035121518989 --limit 500 --json"))
@command
def show(
    patient: Annotated[str, typer.Argument(metavar="PATIENT", help="The patient's identifier.", show_default=False)],
    limit: Limit = SHOWN,
    before: Before = "",
    log: LogUrl = None,
    journal: JournalUrl = None,
    data: Data = None,
    pack: Annotated[Path, typer.Option("--pack", metavar="PACK", help="Says what a patient's identifier looks like, when nothing is found.")] = Path(PACK),
    json: AsJson = False,
) -> None:
    """Show who did what to a patient's record, newest first."""
    with _opened(journal_at(data, journal)) as database:
        page = Journal(database).page(patient, EVERYTHING, None, limit, before)
    log_reading(log_at(data, log), "journal", patient=patient, entries=len(page.traces))
    if not page.traces:
        check_nobody(pack, patient)
    if json:
        print_json({"traces": [asdict(one) for one in page.traces], "next": page.next})
        return
    for one in page.traces:
        say(_line(one))
    if not page.traces:
        say("nothing was done to this record, as far as the journal has read")
    if page.next:
        say(f"more: --before {page.next}")


def _line(one: Trace) -> str:
    marks = [one.status, *(word for word, holds in (("first", one.first), ("emergency", one.emergency), ("secret session", one.secret)) if holds)]
    target = " ".join(str(one.target[key]) for key in ("type", "id", "from", "until") if one.target.get(key)) if one.target else ""
    structure = one.subject["properties"].get("structure", "")
    who = f"{one.subject['type']} {one.subject['id']}" + (f" of {structure}" if structure else "")
    what = " ".join(filter(None, (one.action, one.document, one.type and f"({one.type})", target)))
    mode = f", {one.access_mode}" if one.access_mode else ""
    return f"{iso(one.at)[:19]}Z  {who}  {what}{mode}  by {one.rule}: {', '.join(marks)}  {one.decision}"


@app.command(epilog=_examples("reviews", "reviews --state open --since 2026-11-01"))
@command
def reviews(
    state: Annotated[str, typer.Option(metavar="open|reviewed", help="Only those in this state.", show_default=False)] = "",
    since: Since = None,
    until: Until = None,
    limit: Limit = SHOWN,
    before: Before = "",
    log: LogUrl = None,
    journal: JournalUrl = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """List emergencies queued for review, newest first."""
    if state:
        choose("state", state, ("open", "reviewed"))
    with _opened(journal_at(data, journal)) as database:
        found = Journal(database).reviews(_instant(since), _instant(until), state, limit, before)
    log_reading(log_at(data, log), "reviews", entries=len(found))
    following = position(found[-1]) if len(found) == limit else ""
    if json:
        print_json({"reviews": [asdict(one) for one in found], "next": following})
        return
    for one in found:
        say(_review_line(one))
    if not found:
        say("no emergency to review")
    if following:
        say(f"more: --before {following}")


def _review_line(one: Review) -> str:
    justification = one.context.get("justification")
    why = f' "{justification}"' if isinstance(justification, str) else ""
    verdict = f"{one.verdict}, by {one.reviewer} on {iso(one.reviewed)[:10]} {one.comment}".rstrip() if one.reviewed is not None else "open"
    return f"{iso(one.at)[:19]}Z  {one.subject['type']} {one.subject['id']}  {one.action}, {one.access_mode}{why}  {one.decision}: {verdict}"


@app.command(epilog=_examples('review 5f0c... justified --comment "called by the ward"'))
@command
def review(
    decision: Annotated[str, typer.Argument(metavar="ID", help="The identifier of the decision.", show_default=False)],
    verdict: Annotated[str, typer.Argument(metavar="VERDICT", help="What the review found.", show_default=False)],
    comment: Annotated[str, typer.Option(metavar="TEXT", help="Why.", show_default=False)] = "",
    log: LogUrl = None,
    journal: JournalUrl = None,
    data: Data = None,
) -> None:
    """Record what the review of an emergency found: an entry of the log."""
    with _opened(journal_at(data, journal)) as database, DecisionLog(log_at(data, log), name="shell") as writer:
        Journal(database).review(decision, caller(), verdict, comment, time.time(), writer.append_now)
    say("the review is recorded")


@app.command(epilog=_examples("outbox", "outbox --limit 500 --json"))
@command
def outbox(limit: Limit = SHOWN, log: LogUrl = None, journal: JournalUrl = None, data: Data = None, json: AsJson = False) -> None:
    """List the notices that were not delivered yet, oldest first.

    Without the patients: a sender asks for those.
    """
    with _opened(journal_at(data, journal)) as database:
        found = Outbox(database, lambda body: None).waiting(limit)
    log_reading(log_at(data, log), "outbox", entries=len(found))
    if json:
        print_json([asdict(one) for one in found])
        return
    for one in found:
        private = ", on his own channel only" if one.private else ""
        tried = f"  tried {one.attempts} times: {one.trouble}" if one.attempts else ""
        say(f"{iso(one.at)[:19]}Z  {one.what} to {one.to}{private}  {one.id}{tried}")
    if not found:
        say("no notice waits")


@app.command(epilog=_examples("report", "report --since 2026-11-01 --until 2026-11-30 --json"))
@command
def report(
    since: Annotated[str, typer.Option(metavar="DATE", help="From this day on.", show_default=False)] = "",
    until: Annotated[str, typer.Option(metavar="DATE", help="To the end of this day.", show_default=False)] = "",
    limit: Limit = SHOWN,
    log: LogUrl = None,
    journal: JournalUrl = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Say what a reviewer should know of: decisions by caller and rule, permits that nobody confirmed, what was shown without a permit.

    Days are those of the pack's time zone. Exit code 1 when something was shown without a permit, or entries of the log were not understood.
    """
    for text in filter(None, (since, until)):
        if parse_date(text) is None:
            raise Misuse(f"`{text}` is not a date: write 2026-03-03")
    start, end = _instant(since or None), _instant(until or None)
    with _opened(journal_at(data, journal)) as database:
        asked = Journal(database)
        counts, unconfirmed = asked.counts(since, until), asked.unconfirmed(start, None if end is None else end + DAY, limit)
        unpermitted, problems = asked.shown_without_permit(limit), asked.problems()
    log_reading(log_at(data, log), "report")
    if json:
        names = ("caller", "action", "rule", "decision", "number")
        print_json({
            "counts": [dict(zip(names, one, strict=True)) for one in counts],
            "unconfirmed": [asdict(one) for one in unconfirmed],
            "shown_without_permit": [asdict(one) for one in unpermitted],
            "not_understood": [{"segment": segment, "index": index, "why": why} for segment, index, why in problems],
        })  # fmt: skip
    else:
        for caller, action, rule, decision, number in counts:
            say(f"{number:>9,}  {caller}  {action} {decision}" + (f" by {rule}" if rule else ""))
        for one in unconfirmed:
            say(f"unconfirmed: {iso(one.at)[:19]}Z  {one.caller}  {one.action} {one.document} by {one.rule}  {one.decision}")
        for one in unpermitted:
            say(f"shown without a permit: {one.document} by {one.caller}  {one.decision}")
        for segment, index, why in problems:
            say(f"not understood: {segment} {index}: {why}")
    if unpermitted or problems:
        finding()


# --- shared ----------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def _instant(text: str | None) -> float | None:
    if text is None:
        return None
    instant = parse_instant(text)
    if instant is None and (day := parse_date(text)) is not None:
        instant = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    if instant is None:
        raise Misuse(f"`{text}` is neither a date nor an instant: write 2026-03-03 or 2026-03-03T14:05:00+01:00")
    return instant
