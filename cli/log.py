"""`habilis log`: the decision log from a shell: verified, read, proved, expunged. Reading it is itself logged: what cannot be logged is not shown.

`verify` and `checkpoint` show no entry, so they also work on a copy that nobody can write.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.edge import PACK as POLICIES
from cli.edge import Misuse, check_nobody, command, finding, open_directory, open_pdp, print_json, read_bytes, say
from cli.places import Data, LogUrl, StoreUrl, Where, caller, log_at, log_reading, where
from engine.calendar import iso, parse_date, parse_instant
from engine.consent.store import ConsentStore, StaleToken
from engine.decision_log.checkpoint import NoteError, VerifierKey, new_key, parse_keys, parse_private_key, verifier_key
from engine.decision_log.read import Entry, LogReader
from engine.decision_log.storage import open_storage
from engine.errors import RequestError
from engine.replay import Replayed, replay

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Verify, read and prove the decision log.",
)  # fmt: skip

SHOWN = 50
PACK = ("name", "version", "digest")
"""What is shown of a pack's entry."""

KeysFile = Annotated[Path, typer.Option("--keys", metavar="FILE", help="The public keys, one a line.", show_default=False)]
PackOption = Annotated[Path, typer.Option("--pack", metavar="PACK", help="The folder of a pack, or a compiled pack.")]
DirectoryFile = Annotated[Path | None, typer.Option("--directory", metavar="FILE", help="A sheet of professionals: docs/consent.md.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  habilis log {line}" for line in lines)


# --- making ----------------------------------------------------------------------------------------------------------


@app.command(epilog=_examples("init", "init --origin log.example/records --log postgresql://habilis@localhost/log"))
@command
def init(
    origin: Annotated[str | None, typer.Option(metavar="NAME", help="The log's own name; random, when left out.", show_default=False)] = None,
    log: LogUrl = None,
    data: Data = None,
) -> None:
    """Make an empty log."""
    storage = open_storage(log_at(data, log), create=True, origin=origin)
    name = storage.origin
    storage.close()
    if origin not in (None, name):
        raise Misuse(f"there is a log already, `{name}`")
    say(f"the log is ready: {name}")


@app.command(epilog=_examples("key log.key >> log-keys.txt"))
@command
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the private key.", show_default=False)],
    log: LogUrl = None,
    data: Data = None,
) -> None:
    """Make a key that signs checkpoints of this log, and print its public half.

    A file that is there is kept, and only its public half is printed. The line belongs in the file of public keys, which verifiers need; to retire a key, write
    ` until SIZE` after its line, the number on the second line of the last checkpoint that it signed.
    """
    storage = open_storage(log_at(data, log))
    origin = storage.origin
    storage.close()
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as private:
            private.write(new_key())
    say(str(verifier_key(origin, parse_private_key(read_bytes(file)))))


# --- verifying -------------------------------------------------------------------------------------------------------


@app.command(epilog=_examples("verify --keys log-keys.txt", "verify --keys log-keys.txt --since kept.txt", "verify --keys log-keys.txt --proof proof.json"))
@command
def verify(
    keys: KeysFile,
    since: Annotated[Path | None, typer.Option(metavar="FILE", help="A checkpoint that was kept elsewhere.", show_default=False)] = None,
    proof: Annotated[Path | None, typer.Option(metavar="FILE", help="Verify this proof instead; needs no log.", show_default=False)] = None,
    log: LogUrl = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Verify that the log is still what was signed.

    Every entry, segment and checkpoint. Keep a checkpoint elsewhere from time to time (`habilis log checkpoint`): only by it is seen that the whole log was
    rolled back, or written anew. Exit code 1 when something is found.
    """
    known = _keys(keys)
    if proof is not None:
        _verify_proof(proof, known, json)
        return
    from engine.decision_log.verify import verify as verify_log

    storage = open_storage(log_at(data, log), timeout=10)
    try:
        report = verify_log(storage, known, _text(since) if since else None)
    finally:
        storage.close()
    if json:
        print_json(report.as_dict())
    else:
        for one in report.findings:
            say(str(one))
        say(f"{report.origin}: {report.entries} entries in {report.segments} segments, {report.checkpoints} checkpoints")
        say(f"  proved {report.proved}; durable, not yet proved {report.unproved}; expunged {report.expunged}")
        say("  nothing was found" if report.is_fine else f"  {len(report.findings)} findings")
    if not report.is_fine:
        finding()


def _verify_proof(file: Path, keys: list[VerifierKey], json: bool) -> None:
    from engine.decision_log.proof import Inclusion, parse_proof, verify_proof

    try:
        proof = parse_proof(read_bytes(file))
        signed = verify_proof(proof, keys)
    except NoteError as error:
        if json:
            print_json({"fine": False, "finding": str(error)})
        else:
            say(f"not proved: {error}")
        finding()
    what = f"{proof.segment} {proof.index}" if isinstance(proof, Inclusion) else "an earlier checkpoint"
    if json:
        print_json({"fine": True, "origin": signed.origin, "size": signed.size, "proved": what})
    else:
        say(f"proved: {what} is in {signed.origin} at checkpoint {signed.size - 1}")


@app.command(epilog=_examples("checkpoint > kept.txt"))
@command
def checkpoint(log: LogUrl = None, data: Data = None) -> None:
    """Print the latest checkpoint, for a reviewer to keep elsewhere.

    Exit code 1 when there is none yet.
    """
    storage = open_storage(log_at(data, log))
    last = storage.last_checkpoint()
    storage.close()
    if last is None:
        say("there is no checkpoint yet")
        finding()
    typer.echo(last.note, nl=False)


@app.command(epilog=_examples("sign --key log.key", "sign --key log.key --every 1"))
@command
def sign(
    key: Annotated[Path, typer.Option(metavar="FILE", help="The private key.", show_default=False)],
    every: Annotated[float | None, typer.Option(metavar="SECONDS", help="Go on, this often; once, when left out.", show_default=False)] = None,
    log: LogUrl = None,
    data: Data = None,
) -> None:
    """Make a checkpoint if something has grown.

    For a key that no worker is to have: a process of its own signs what they write. Exit code 1 when not everything durable could be proved.
    """
    from engine.decision_log.checkpoint import Checkpointer

    signer = Checkpointer(log_at(data, log), parse_private_key(read_bytes(key)), run=False)
    while True:
        made = signer.attempt()
        if signer.problem:
            say(signer.problem)
        if every is None:
            break
        time.sleep(every)
    if made is not None:
        say(f"checkpoint {made.number}")
    elif not signer.problem:
        say("nothing has grown" if signer.is_leading else "another process makes the checkpoints")
    signer.release()
    if signer.problem:
        finding()


# --- reading ---------------------------------------------------------------------------------------------------------


@app.command(
    epilog=_examples(
        "show", "show --patient 279035121518989 --since 2026-11-01", "show --id 5f0c... --json", "show --id 5f0c... --replay", "show --limit 500 --fhir"
    )
)
@command
def show(
    id: Annotated[str | None, typer.Option(metavar="ID", help="The entry, or the entries of an act, with this identifier.", show_default=False)] = None,
    patient: Annotated[str | None, typer.Option(metavar="ID", help="Only entries about this patient.", show_default=False)] = None,
    since: Annotated[str | None, typer.Option(metavar="DATE|INSTANT", help="Only entries made since then.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="The newest so many.")] = SHOWN,
    fhir: Annotated[bool, typer.Option("--fhir", help="Print FHIR R4 AuditEvents (IHE BALP), one a line.")] = False,
    again: Annotated[bool, typer.Option("--replay", help="Take the decision again, on the record as it was known then; with --id.")] = False,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(POLICIES),
    directory: DirectoryFile = None,
    json: AsJson = False,
) -> None:
    """Show entries, oldest first, with their codes in words.

    That they were read is logged, before they are shown. With --replay: does the same rule decide? Exit code 1 when it does not, or when that cannot be said.
    """
    start = _instant(since) if since else None
    if again and (id is None or fhir):
        raise Misuse("a decision is taken again by its identifier: --id ID --replay")
    place = where(data, store, log)
    with LogReader(log_at(data, log)) as reader:

        def claim(body: Mapping[str, Any]) -> bool:
            return id in (None, body.get("id")) and patient in (None, body.get("patient"))

        found = reader.matching(claim, containing=id or patient or "", since=start, newest=limit)
        what = {"of": id, "patient": patient, "since": start, "entries": len(found), "as": "fhir" if fhir else None, "replay": again or None}
        log_reading(place.log, "show", **what)
        if patient is not None and all((one.body or {}).get("kind") == "read" for one in found):  # it was only ever looked for
            check_nobody(pack, patient)
        taken = [_replayed(found, place, pack, directory)] if again and found else []
        if json and not fhir:
            told = [{"segment": one.segment, "index": one.index, **reader.readable(one.body or {})} for one in found]
            print_json({"entries": told, "replay": taken[0].as_dict() if taken else None} if again else told)
        else:
            for one in found:
                body = reader.readable(one.body or {})
                if fhir:
                    from engine.decision_log.balp import audit_events

                    for event in audit_events(body, reader.origin):
                        print_json(event, indent=None)
                else:
                    _say_entry(one, body)
            for again_ in taken:
                for line in again_.lines():
                    say(line)
    if not found and not fhir and not json:
        say("no entry")
    if any(not one.is_same for one in taken):
        finding()


@dataclass(frozen=True, slots=True)
class _Again:
    """A decision that was taken again, or why it could not be."""

    several: list[Replayed]
    problem: str = ""

    @property
    def is_same(self) -> bool:
        return not self.problem and all(one.is_same for one in self.several)

    def as_dict(self) -> dict[str, Any]:
        return {"same": self.is_same, "problem": self.problem, "resources": [one.as_dict() for one in self.several]}

    def lines(self) -> Iterator[str]:
        if self.problem:
            yield f"not taken again: {self.problem}"
        for one in self.several:
            now = f"{one.now.decision} by {one.now.rule or 'no rule'}"
            verdict = f"the same again, {now}" if one.is_same else f"not the same: {one.logged.decision} by {one.logged.rule or 'no rule'}, and now {now}"
            yield f"{one.resource}: {verdict}"
            yield from (f"    {name} was {was}, and is {value}" for name, (was, value) in one.changed.items())
            if one.taken:
                yield f"    as the log has them, since it does not hold the document: {', '.join(one.taken)}"


def _replayed(found: list[Entry], place: Where, pack: Path, directory: Path | None) -> _Again:
    """The last entry of an act or a decision, taken again."""
    pdp = open_pdp(pack)
    consent = ConsentStore(place.store, pdp.pack.vocabulary, directory=open_directory(directory, pdp.pack))
    try:
        return _Again(replay(pdp, consent, found[-1].body or {}))
    except (RequestError, StaleToken) as error:
        return _Again([], str(error))
    finally:
        consent.close()


def _say_entry(entry: Entry, body: Mapping[str, Any]) -> None:
    subject, action = body.get("subject") or {}, body.get("action") or {}
    who = f"{subject.get('type')} {subject.get('id')}" if subject else body.get("caller", "")
    about = " ".join(filter(None, [action.get("name"), body.get("state"), body.get("patient") and f"patient {body['patient']}"]))
    say(f"{iso(entry.at).partition('+')[0][:23]}Z  {body.get('kind'):<9} {body.get('id')}  {who}  {about}".rstrip())
    items = body.get("items")
    for place, item in enumerate(items if isinstance(items, list) else ()):
        say(f"    {_line(item, place in body.get('withheld', ()))}")
    if not items:
        said = {key: value for key, value in body.items() if key not in ("kind", "id", "at", "patient", "subject") and (body["kind"] != "pack" or key in PACK)}
        say("    " + ", ".join(f"{key} {value}" for key, value in said.items()))
    say(f"    {entry.segment} {entry.index}")


def _line(item: Any, is_withheld: bool) -> str:
    if not isinstance(item, Mapping):
        return f"{item[0]}: situation {item[2]}, outcome {item[3]}; the pack is not in this log"
    held = " (withheld)" if is_withheld else ""
    cells = "".join(f", cell {name} {letter}" for name, letter in item.get("cells", {}).items())
    facts = ", ".join(f"{name}={value}" for name, value in item.get("facts", {}).items() if value not in (False, "false"))
    return f"{item['resource']}: {item['decision']}{held} by {item['rule'] or 'no rule'} ({item['legal_basis']}){cells}; {facts}"


@app.command(epilog=_examples("prove 5f0c... > proof.json", "prove --since kept.txt > proof.json"))
@command
def prove(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The identifier of an entry.", show_default=False)] = None,
    since: Annotated[Path | None, typer.Option(metavar="FILE", help="A checkpoint that was kept: prove that the last one continues it.")] = None,
    log: LogUrl = None,
    data: Data = None,
) -> None:
    """Print a proof that somebody can verify without the log: that an entry is in it, or that the log continues a checkpoint.

    Exit code 1 when there is nothing to prove, or not yet. The proof of an entry holds the entry.
    """
    from engine.decision_log.proof import NotProved, print_proof, prove_consistency, prove_entry

    if (id is None) == (since is None):
        raise Misuse("say what to prove: the ID of an entry, or --since FILE")
    storage = open_storage(log_at(data, log))
    try:
        if since is not None:
            typer.echo(print_proof(prove_consistency(storage, _text(since))))
            return
        assert id is not None
        with LogReader(log_at(data, log)) as reader:
            found = reader.find(id)
        if found is None:
            raise NotProved("there is no such entry")
        log_reading(log_at(data, log), what="prove", of=id, patient=(found.body or {}).get("patient"))
        typer.echo(print_proof(prove_entry(storage, found.segment, found.index)))
    except NotProved as error:
        say(str(error))
        finding()
    finally:
        storage.close()


# --- expunging -------------------------------------------------------------------------------------------------------


@app.command(epilog=_examples("expunge --before 2016-11-01 --dry-run", "expunge --before 2016-11-01"))
@command
def expunge(
    before: Annotated[str, typer.Option(metavar="DATE|INSTANT", help="Entries made before it; a date begins at midnight UTC.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many entries it would be.")] = False,
    log: LogUrl = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Erase old entries for good, at the end of their retention.

    Their leaves stay, so the rest of the log still verifies, and an entry says what was expunged. What packs mean stays. Backups still hold what they hold.
    """
    from engine.decision_log.expunge import expunge as expunge_entries
    from engine.decision_log.expunge import find_old

    instant, now = _instant(before), time.time()
    if instant > now:
        raise Misuse("entries are only expunged before an instant that is past")
    if dry_run:
        storage = open_storage(log_at(data, log), timeout=10)
        try:
            found = find_old(storage, instant)
        finally:
            storage.close()
    else:
        found = expunge_entries(log_at(data, log), instant, now, caller())
    if json:
        print_json({"before": iso(instant), "expunged": not dry_run, "segments": {one.segment: len(one.indexes) for one in found}})
        return
    for one in found:
        say(f"{one.segment}: {len(one.indexes)} entries")
    count = sum(len(one.indexes) for one in found)
    say(f"{count} entries made before {iso(instant)} {'would be' if dry_run else 'were'} expunged")


# --- shared ----------------------------------------------------------------------------------------------------------


def _keys(file: Path) -> list[VerifierKey]:
    try:
        found = parse_keys(_text(file))
    except NoteError as error:
        raise Misuse(f"`{file}`: {error}") from None
    if not found:
        raise Misuse(f"`{file}` holds no key")
    return found


def _text(file: Path) -> str:
    try:
        return read_bytes(file).decode()
    except UnicodeDecodeError:
        raise Misuse(f"`{file}` is no text") from None


def _instant(text: str) -> float:
    instant = parse_instant(text)
    if instant is None and (day := parse_date(text)) is not None:
        instant = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    if instant is None:
        raise Misuse(f"`{text}` is neither a date nor an instant: write 2026-03-03 or 2026-03-03T14:05:00+01:00")
    return instant
