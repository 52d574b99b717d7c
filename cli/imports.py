"""`habilis consent import` and `habilis consent dead-letters`: admission messages from files, and what could not be taken of them."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.consent import AsJson, Desk, PackOption, app, open_desk
from cli.edge import PACK, Misuse, choose, command, finding, print_json, read_bytes, say
from cli.places import Data, LogUrl, StoreUrl, Where, caller, log_reading, where
from engine.calendar import iso
from engine.consent.admissions import MAX_BYTES, Admissions, Taken, parse_structures
from engine.consent.imports import STATES, DeadLetter, Imports
from engine.errors import Diagnostic
from engine.service import By

Structures = Annotated[
    Path | None, typer.Option("--structures", metavar="FILE", help="A sheet of senders: name (as in their messages), identifier.", show_default=False)
]
DISMISS = "name the one letter to dismiss: --dismiss ID --because TEXT"
SHORT = 12
"""Characters of a dead letter's identifier that are shown."""


@contextmanager
def _opened(place: Where, pack: Path, structures: Path | None) -> Iterator[Admissions]:
    """What takes messages, with the log that has their acts: one segment for all that a command takes."""
    desk = open_desk(place, pack)
    known: dict[str, str] = {}
    if structures is not None:
        found: list[Diagnostic] = []
        known = parse_structures(str(structures), structures.read_bytes(), desk.pdp.pack, found)
        if found:
            raise Misuse("\n".join(one.render() for one in found))
    with desk.service() as service:
        yield Admissions(service, By(caller()), structures=known)


@app.command("import", epilog="\b\nExamples:\n  habilis consent import admissions/ --structures structures.csv\n  habilis consent import message.er7 --json")
@command
def import_messages(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|FOLDER|-...", help="HL7v2 messages: one a file, or several.", show_default=False)],
    structures: Structures = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    json: AsJson = False,
) -> None:
    """Take admission messages (HL7v2) into patients' records.

    A file holds one message, several one after the other, MLLP frames, or a batch; of a folder every file is taken, by name. A message that was taken before
    is a replay and writes nothing more. One that is not understood to the end, or that the policy refuses, is a dead letter: kept with its reason, and exit
    code 1.
    """
    files = list(_files(paths))
    with _opened(where(data, store, log), pack, structures) as desk:
        _report(desk, (one for path in files for one in desk.take_file(read_bytes(path), time.time(), str(path))), json)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files that were named, and those of folders; missing ones are misuse before anything is taken."""
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        elif str(path) == "-" or path.exists():
            yield path
        else:
            raise Misuse(f"there is no file `{path}`")


def _report(desk: Admissions, done: Iterable[Taken | DeadLetter], json: bool) -> None:
    """Say what became of each message, as it happens. Exit code 1 when one is dead."""
    told = []
    for one in done:
        told.append(_told(one, desk))
        if not json:
            say(_line(one))
    dead = sum(one["outcome"] == "dead" for one in told)
    if json:
        print_json(told)
    else:
        say(", ".join(f"{sum(one['outcome'] == word for one in told)} {word}" for word in ("written", "nothing", "replayed", "dead")))
    if dead:
        finding()


def _told(one: Taken | DeadLetter, desk: Admissions) -> dict[str, Any]:
    if isinstance(one, DeadLetter):
        return {"name": one.name, "outcome": "dead", **_letter(one, desk)}
    message = one.message
    sent = {"kind": message.kind, "control": message.control, "application": message.application, "structure": message.structure, "patient": message.patient}
    return {"name": one.name, "outcome": one.outcome, **sent, "directives": list(one.directives), "token": one.token and str(one.token)}


def _line(one: Taken | DeadLetter) -> str:
    if isinstance(one, DeadLetter):
        return f"dead      {one} [{one.id[:SHORT]}]".replace("\n", "\\n")
    asked = ", ".join(("withdraws " if directive.get("withdraw") else "") + directive["kind"] for directive in one.directives)
    what = {"written": f"recorded {asked}", "nothing": "asks for nothing", "replayed": "was taken before"}[one.outcome]
    return f"{one.outcome:<10}{one.name}: {one.message.kind} {one.message.control} of {one.message.structure}: {what}".replace("\n", "\\n")


# --- dead letters ----------------------------------------------------------------------------------------------------


@app.command(
    "dead-letters",
    epilog="\b\nExamples:\n  habilis consent dead-letters\n  habilis consent dead-letters 3fa9c2d1\n  habilis consent dead-letters --retry --structures "
    'structures.csv\n  habilis consent dead-letters 3fa9c2d1 --dismiss --because "a test of the sender"',
)
@command
def dead_letters(
    id: Annotated[str | None, typer.Argument(metavar="ID", help="The beginning of its identifier.", show_default=False)] = None,
    state: Annotated[str, typer.Option(metavar="open|retaken|dismissed|all", help="Which to list.")] = "open",
    retry: Annotated[bool, typer.Option("--retry", help="Take it again; without ID, all that are open.")] = False,
    dismiss: Annotated[bool, typer.Option("--dismiss", help="Say that nothing is to be done about it. It is kept.")] = False,
    because: Annotated[str, typer.Option(metavar="TEXT", help="Why it is dismissed.", show_default=False)] = "",
    structures: Structures = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    json: AsJson = False,
) -> None:
    """List the admission messages that were not taken, show one with what it holds, take them again, dismiss one."""
    choose("state", state, (*STATES, "all"))
    place = where(data, store, log)
    if retry:
        if dismiss:
            raise Misuse(DISMISS)
        with _opened(place, pack, structures) as desk:
            several = [id] if id else [one.id for one in desk.imports.letters() if one.size <= MAX_BYTES]  # longer ones are not kept: they are sent again
            _report(desk, (one for each in several for one in desk.retry(each, time.time())), json)
        return
    known = open_desk(place, pack)
    letters = Imports(known.store)
    if dismiss:
        if id is None:
            raise Misuse(DISMISS)
        log_reading(place.log, "dead letter", of=letters.letter(id).id)
        _show(known, letters.dismiss(id, because), json)
    elif id:
        letter = letters.letter(id)
        log_reading(place.log, "dead letter", of=letter.id)
        _show(known, letter, json)
    else:
        _list(known, letters.letters(None if state == "all" else state), json)  # type: ignore[arg-type]


def _list(desk: Desk, letters: list[DeadLetter], json: bool) -> None:
    if json:
        print_json([_letter(one, desk) for one in letters])
        return
    for one in letters:
        again = f", {one.times} times" if one.times > 1 else ""
        say(f"{one.id[:SHORT]}  {one.state:<9}  {_when(one.last, desk)}{again}  from {one.sender or 'an unknown sender'}: {one}")
    if not letters:
        say("there is no such letter")


def _show(desk: Desk, one: DeadLetter, json: bool) -> None:
    if json:
        print_json({**_letter(one, desk), "data": b64encode(one.data).decode()})
        return
    say(f"{one.id}\n  {one.state}" + (f": {one.note}" if one.note else ""))
    say(f"  from {one.sender or 'an unknown sender'}, {one.times} time(s), first {_when(one.first, desk)}, last {_when(one.last, desk)}\n  {one}")
    say(f"  {one.size:,} bytes" + (":" if one.data else ", not kept" if one.size else ""))
    text = one.data.decode("utf-8", "backslashreplace").replace("\r\n", "\n").replace("\r", "\n")
    say("\n".join(f"    {line}" for line in text.splitlines()))


def _letter(one: DeadLetter, desk: Admissions | Desk) -> dict[str, Any]:
    told = {key: getattr(one, key) for key in ("id", "name", "state", "sender", "place", "reason", "help", "size", "times", "note")}
    return {**told, "first": _when(one.first, desk), "last": _when(one.last, desk)}


def _when(instant: float, desk: Admissions | Desk) -> str:
    return iso(instant, desk.pdp.pack.vocabulary.time_zone)[:19]
