"""`habilis consent`: a patient's record from a shell. The same acts, decided by the same policy and logged, as over any other edge; what it refuses is kept as
refused.

Whoever runs this is trusted to say who asks (`--as`): it is for a consent desk's scripts and for trials, on the machine that holds the store. What only looks
(`list`, `record`, `history`, `preview`) asks no policy: whoever has the file reads it all. That it was read is logged before, and what cannot be logged is not
shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.edge import PACK, Misuse, choose, command, finding, language_of, open_directory, open_pdp, print_json, read_bytes, say
from cli.places import Data, LogUrl, StoreUrl, Where, caller, log_reading, make_folder, where
from cli.requests import settled
from engine.calendar import FOREVER, iso, parse_instant
from engine.consent.acts import Access, Done, access_list, naming_who_asks, preview, refusing, speaking_of_documents
from engine.consent.directives import parse_directives
from engine.consent.directory import Directory
from engine.consent.fold import Statement
from engine.consent.identifiers import check_identifiers, check_patient
from engine.consent.store import ConsentStore, KeptAct, parse_token
from engine.decision_log.entries import entry
from engine.decision_log.storage import LogUnavailable, open_storage
from engine.pdp import Pdp
from engine.request import Action, Entity, Request, parse_json, parse_request
from engine.service import By, FalseClaim, Service, check_act, check_read

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Grant, refuse, block and mask in a patient's record; see who has access, and what a change would do.",
)  # fmt: skip

STOOD = "record 279035121518989 --at 2026-03-03T14:05:00+01:00 {}"

Patient = Annotated[str, typer.Argument(metavar="PATIENT", help="The patient's identifier.", show_default=False)]
Who = Annotated[str | None, typer.Option("--as", metavar="TYPE:ID", help="Who asks; the patient himself, when left out.", show_default=False)]
Given = Annotated[list[str] | None, typer.Option("--with", metavar="NAME=VALUE", help="subject.X, action.X or context.X of the request; may be repeated.")]
Target = Annotated[str | None, typer.Option("--target", metavar="TYPE:ID", help="At whom or what the act aims.", show_default=False)]
PackOption = Annotated[Path, typer.Option("--pack", metavar="PACK", help="The folder of a pack, or a compiled pack.")]
DirectoryFile = Annotated[Path | None, typer.Option("--directory", metavar="FILE", help="A sheet of professionals: docs/consent.md.", show_default=False)]
At = Annotated[str | None, typer.Option("--at", metavar="INSTANT", help="Look at the record as it was at this instant.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Language = Annotated[str | None, typer.Option("--lang", metavar="fr|en", help="The language of the reasons.", show_default=False)]


@dataclass(frozen=True, slots=True)
class Desk:
    """What a command works with: a pack, a store read with it, and who is who."""

    pdp: Pdp
    store: ConsentStore
    directory: Directory | None
    where: Where

    @property
    def zone(self) -> str:
        return self.pdp.pack.vocabulary.time_zone

    @contextmanager
    def service(self) -> Iterator[Service]:
        """What does acts, and has them in the log before and after. Raises `LogUnavailable`: then nothing is done."""
        with self.where.open_log() as log:
            yield Service(self.pdp, self.store, log, self.directory)


def open_desk(where: Where, pack: Path, directory: Path | None = None) -> Desk:
    pdp = open_pdp(pack)
    known = open_directory(directory, pdp.pack)
    return Desk(pdp, ConsentStore(where.store, pdp.pack.vocabulary, directory=known), known, where)


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  habilis consent {line}" for line in lines)


@app.command(epilog=_examples("init", "init --store postgresql://habilis@localhost/habilis"))
@command
def init(store: StoreUrl = None, log: LogUrl = None, data: Data = None, pack: PackOption = Path(PACK)) -> None:
    """Make an empty store, and the log of what is done to it.

    Only this makes one: a store that is not there is otherwise an error, since an empty one would say that nobody refused anything. What is there is kept.
    """
    pdp, place = open_pdp(pack), where(data, store, log)
    make_folder(place.store)
    ConsentStore(place.store, pdp.pack.vocabulary, create=True).close()
    storage = open_storage(place.log, create=True)
    say(f"the store is ready, and its log: {storage.origin}")
    storage.close()


# --- acts ------------------------------------------------------------------------------------------------------------


@app.command(
    epilog=_examples(
        "act open 279035121518989 --with action.birth_date=1979-03-28",
        "act declare_treating_physician 279035121518989 --target professional:10000023084 --with action.target.profession=G15_10",
        "act grant_access 279035121518989 --target professional:10000023118 --with action.given=in_person --with action.by=holder",
    )
)
@command
def act(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="An action that the pack declares.", show_default=False)],
    patient: Patient,
    target: Target = None,
    document: Annotated[Path | None, typer.Option(metavar="FILE", help="The document, as JSON, for an act on one.", show_default=False)] = None,
    who: Who = None,
    given: Given = None,
    directory: DirectoryFile = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Do any act that the pack declares, if the policy permits it.

    Exit code 1 when it is refused: the record stays as it is, and the act is kept with the reason (history --acts).
    """
    _do(open_desk(where(data, store, log), pack, directory), action, patient, target, document, who, given, lang, json)


@app.command(epilog=_examples("grant 279035121518989 professional:10000023118 --until 2027-12-31"))
@command
def grant(
    patient: Patient,
    target: Annotated[str, typer.Argument(metavar="TYPE:ID", show_default=False)],
    until: Annotated[str | None, typer.Option(metavar="DATE", help="The last day, or an instant.", show_default=False)] = None,
    who: Who = None,
    given: Given = None,
    directory: DirectoryFile = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Let a professional or a structure consult (grant_access)."""
    more = [*(given or ()), *([f"action.until={until}"] if until else [])]
    _do(open_desk(where(data, store, log), pack, directory), "grant_access", patient, target, None, who, more, lang, json)


@app.command(epilog=_examples("block 279035121518989 10000023092"))
@command
def block(
    patient: Patient,
    professional: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    who: Who = None,
    given: Given = None,
    directory: DirectoryFile = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Block a named professional."""
    _do(open_desk(where(data, store, log), pack, directory), "block", patient, f"professional:{professional}", None, who, given, lang, json)


Masked = Annotated[Path | None, typer.Argument(metavar="[FILE|-]", help="The document, as JSON.", show_default=False)]
OfStructure = Annotated[str | None, typer.Option("--structure", metavar="ID", help="All that this structure deposited.", show_default=False)]
Since = Annotated[str | None, typer.Option("--from", metavar="DATE", help="All that was deposited from this day or instant on.", show_default=False)]
Until = Annotated[str | None, typer.Option("--until", metavar="DATE", help="All that was deposited up to this day, or instant.", show_default=False)]
STAY = "{} 279035121518989 --structure 750000010 --from 2026-03-01 --until 2026-03-09"


@app.command(epilog=_examples("mask 279035121518989 document.json", STAY.format("mask")))
@command
def mask(
    patient: Patient,
    document: Masked = None,
    structure: OfStructure = None,
    since: Since = None,
    until: Until = None,
    who: Who = None,
    given: Given = None,
    directory: DirectoryFile = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Mask a document from professionals, or all that a structure deposited, or all of some days; with both, a hospital stay."""
    action, target, more = _masking("mask", document, structure, since, until)
    _do(open_desk(where(data, store, log), pack, directory), action, patient, target, document, who, [*(given or ()), *more], lang, json)


@app.command(epilog=_examples("unmask 279035121518989 document.json", STAY.format("unmask")))
@command
def unmask(
    patient: Patient,
    document: Masked = None,
    structure: OfStructure = None,
    since: Since = None,
    until: Until = None,
    who: Who = None,
    given: Given = None,
    directory: DirectoryFile = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """End the mask that was said in these very words, and no other."""
    action, target, more = _masking("unmask", document, structure, since, until)
    _do(open_desk(where(data, store, log), pack, directory), action, patient, target, document, who, [*(given or ()), *more], lang, json)


def _masking(word: str, document: Path | None, structure: str | None, since: str | None, until: str | None) -> tuple[str, str | None, list[str]]:
    """The action, its target and what else it says: of one document, or of all that some of the options name together."""
    dates = [f"action.target.{bound}={date}" for bound, date in (("from", since), ("until", until)) if date is not None]
    if (document is None) is not bool(structure is not None or dates):
        raise Misuse(f"{word} one document, FILE, or many, by --structure, --from and --until")
    if dates:
        return f"{word}_documents", None, ["action.target.type=deposited", *dates, *([f"action.structure={structure}"] if structure is not None else [])]
    return (word, None, []) if structure is None else (f"{word}_documents", f"structure:{structure}", [])


def _do(
    desk: Desk, action: str, patient: str, target: str | None, document: Path | None, who: str | None, given: list[str] | None, lang: str | None, json: bool
) -> None:
    pack = desk.pdp.pack
    choose("action", action, pack.vocabulary.actions)
    language = language_of(pack, lang)
    request, by = _request(desk.pdp, action, patient, target, document, who, given), By(caller())
    with desk.service() as service:
        try:
            done = service.act(request, by)[1] if action in pack.vocabulary.acts else _decide(service, request, by)
        except FalseClaim as error:
            asks = {"type": request.subject.type, "id": request.subject.id}
            service.log.append_now(entry("refused", time.time(), caller=by.caller, subject=asks, why=str(error)))
            raise
        except LogUnavailable as error:
            raise Misuse(f"{error}: once it can be written again, `habilis consent history PATIENT --acts` says whether the act was done") from None
    if json:
        print_json({**done.answer.for_reviewer(pack.languages), "directives": list(done.directives), "token": str(done.token), "act": done.id})
    else:
        _say_done(done, language)
    if not done.answer.permitted:
        finding()


def _decide(service: Service, request: Request, by: By) -> Done:
    """An action that records nothing is decided, and logged as a decision."""
    check_read(service.live.pdp.pack, request)
    request = service.settle(request)
    check_identifiers(service.live.pdp.pack, request)
    look = service.look(request.subject, request.action, [request.resource], request.context)
    service.log.append_now(service.entry(look, by, False))
    return Done(look.answers[0], (), look.token)


def _say_done(done: Done, language: str) -> None:
    answer = done.answer
    say(f"{answer.decision} by {answer.rule or 'no rule'} ({answer.legal_basis}): {answer.words(language)}")
    for one in done.directives:
        say("  recorded: " + ", ".join(f"{key} {value}" for key, value in one.items() if key not in ("recorded", "recorded_by", "capacity")))
    say(f"  the record is {'now' if done.directives else 'still'} {done.token}" + (f", the act is kept as {done.id}" if done.id else ""))


def _request(pdp: Pdp, action: str, patient: str, target: str | None, document: Path | None, who: str | None, given: list[str] | None) -> Request:
    """The request that the options amount to. The one who asks is the patient himself unless `--as` says otherwise."""
    kind, id = _pair(who, "--as") if who else ("patient", patient)
    parts: dict[str, dict[str, Any]] = {"subject": {}, "action": {}, "context": {"purpose": "care"}}
    if target:
        form, value = _pair(target, "--target")
        parts["action"]["target"] = {"type": form, "id": value}
    for one in given or ():
        _put(parts, one)
    about = pdp.pack.vocabulary.actions[action]
    if about == "record":
        resource: dict[str, Any] = {"type": about, "id": patient}
    elif document is None:
        raise Misuse(f"`{action}` is about a {about}: give it with --document FILE")
    else:
        resource = _document(_object(document), patient, str(document))
    return parse_request(
        {
            "subject": {"type": kind, "id": id, "properties": parts["subject"]},
            "action": {"name": action, "properties": parts["action"]},
            "resource": resource,
            "context": parts["context"],
        }
    )


def _object(path: Path) -> Any:
    return parse_json(read_bytes(path), str(path))


def _document(data: Any, patient: str, where: str) -> dict[str, Any]:
    """A document as a resource of this patient's record. One that says it is of another patient's is misuse: an act on it would stand in the wrong record."""
    if not isinstance(data, dict) or not isinstance(data.get("id"), str):
        raise Misuse(f"`{where}` is not a document: write an object with `id`, `type`, `status`, `confidentiality`, `author` ...")
    if data.get("patient", patient) != patient:
        raise Misuse(f"`{where}` is a document of another patient: name the one whose record it is in")
    return {"type": "document", "id": data["id"], "properties": {**{key: value for key, value in data.items() if key != "id"}, "patient": patient}}


def _pair(text: str, option: str) -> tuple[str, str]:
    form, sign, value = text.partition(":")
    if not (form and sign and value):
        raise Misuse(f"`{text}` is not TYPE:ID: write {option} professional:10000023084, say")
    return form, value


def _put(parts: dict[str, dict[str, Any]], text: str) -> None:
    """Put `action.target.profession=G15_10` where it belongs; `true` and `false` are no text."""
    name, sign, word = text.partition("=")
    head, *rest = name.split(".")
    if not sign or head not in parts or not rest or not all(rest):
        raise Misuse(f"`{text}` is not subject.X=VALUE, action.X=VALUE or context.X=VALUE")
    here = parts[head]
    for step in rest[:-1]:
        here = here.setdefault(step, {})
        if not isinstance(here, dict):
            raise Misuse(f"`{name}` is inside something that is already text")
    here[rest[-1]] = {"true": True, "false": False}.get(word, word)


# --- looking ---------------------------------------------------------------------------------------------------------


@app.command("list", epilog=_examples("list 279035121518989", "list 279035121518989 --at 2026-03-03T14:05:00+01:00"))
@command
def list_access(
    patient: Patient,
    at: At = None,
    directory: DirectoryFile = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    json: AsJson = False,
) -> None:
    """List who is let in, who is kept out, and what is masked: by which statement, between which instants, recorded by whom.

    Says who is named, not who would be permitted: a rule may refuse somebody on this list. What else is in force: habilis consent record.
    """
    desk = open_desk(where(data, store, log), pack, directory)
    check_patient(desk.pdp.pack, patient)
    instant, vocabulary = _instant(at), desk.pdp.pack.vocabulary
    record = desk.store.as_of(patient, instant, known_at=instant) if at else desk.store.read(patient, instant)[0]
    people, refused = naming_who_asks(vocabulary), refusing(vocabulary)
    named, kept_out = access_list(record, vocabulary, people - refused), access_list(record, vocabulary, people & refused)
    masked = [one for one in record.in_force if one.kind in speaking_of_documents(vocabulary) - people]
    log_reading(desk.where.log, "access list", patient=patient, entries=len(named) + len(kept_out) + len(masked))
    if json:
        parts = {"access": [_named(one, desk.zone) for one in named], "kept_out": [_named(one, desk.zone) for one in kept_out]}
        print_json({**parts, "masked": [_stated(one, desk.zone) for one in masked]})
        return
    for title, lines in (
        ("let in", [_named_line(one, desk.zone) for one in named]),
        ("kept out", [_named_line(one, desk.zone) for one in kept_out]),
        ("masked or hidden", [_statement_line(one, desk.zone) for one in masked]),
    ):
        say(f"{title}:" + ("" if lines else " nothing" if title.startswith("masked") else " nobody"))
        for line in lines:
            say(f"  {line}")


def _named(one: Access, zone: str) -> dict[str, Any]:
    bounds = {"from": _when(one.start, zone), "until": _when(one.end, zone)}
    return {"type": one.form, "id": one.who, "kind": one.kind, **bounds, "via": one.via, "recorded_by": one.recorded_by}


def _named_line(one: Access, zone: str) -> str:
    member = f" (as a member of {one.via})" if one.via else ""
    span = _span(_named(one, zone)) or "until withdrawn"
    return f"{one.kind:<24}{one.form} {one.who}{member}, {span}, recorded by {one.recorded_by}"


@app.command(epilog=_examples("record 279035121518989", STOOD.format("--known-at 2026-03-03T14:05:00+01:00"), STOOD.format("--token 1.12")))
@command
def record(
    patient: Patient,
    at: At = None,
    known_at: Annotated[str | None, typer.Option(metavar="INSTANT", help="By what was known at this instant.", show_default=False)] = None,
    token: Annotated[str | None, typer.Option(metavar="TOKEN", help="By what was known when a decision gave this token.", show_default=False)] = None,
    directory: DirectoryFile = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    json: AsJson = False,
) -> None:
    """Everything that is in force in a record: now, or at an instant, by what is known now or was known then.

    Without --known-at and --token, by what is known now: what was withdrawn since is left out, whatever the instant.
    """
    if known_at is not None and token is not None:
        raise Misuse("say what was known by --known-at or by --token, not by both")
    desk = open_desk(where(data, store, log), pack, directory)
    check_patient(desk.pdp.pack, patient)
    instant, known = _instant(at), None if known_at is None else _instant(known_at)
    folded = desk.store.as_of(patient, instant, known_at=known, token=None if token is None else parse_token(token))
    log_reading(desk.where.log, "record", patient=patient, entries=len(folded.in_force))
    if json:
        holds = {"at": iso(folded.at, desk.zone), "revision": folded.revision, "holds_until": _when(folded.holds_until, desk.zone)}
        print_json({**holds, "in_force": [_stated(one, desk.zone) for one in folded.in_force]})
        return
    say(f"at {iso(folded.at, desk.zone)}, by revision {folded.revision} of the record; so until {_when(folded.holds_until, desk.zone) or 'something is said'}")
    for one in folded.in_force:
        say(_statement_line(one, desk.zone))
    if not folded.in_force:
        say("nothing is in force")


def _stated(one: Statement, zone: str) -> dict[str, Any]:
    """A statement in force, with all that its directive says."""
    made, (form, value) = one.directive, one.target
    aim = {bound: _when(edge, zone) for bound, edge in zip(("from", "until"), value, strict=True)} if isinstance(value, tuple) else value
    said = {key: made.source[key] for key in ("recorded", "recorded_by", "capacity", "basis") if key in made.source}
    return {
        "revision": made.revision, "kind": one.kind, "target": {form: aim}, "from": _when(made.start, zone), "until": _when(made.end, zone),
        "properties": dict(made.properties), **said,
    }  # fmt: skip


def _statement_line(one: Statement, zone: str) -> str:
    told, (form, value) = _stated(one, zone), one.target
    aim = f"{form} {_span(told['target'][form])}" if isinstance(value, tuple) else form if value is None else f"{form} {value}"
    details = "".join(f", {key} {word}" for key, word in told["properties"].items()) + (f", {span}" if (span := _span(told)) else "")
    basis = f" ({told['basis']})" if "basis" in told else ""
    return f"{told['revision']:>4}  {one.kind:<24}{aim}{details}  by {told.get('capacity', '?')} {told.get('recorded_by', '?')}{basis}".replace("\n", "\\n")


def _span(bounds: Mapping[str, Any]) -> str:
    return " ".join(f"{bound} {bounds[bound]}" for bound in ("from", "until") if bounds[bound])


@app.command(epilog=_examples("history 279035121518989", "history 279035121518989 --kind mask --acts"))
@command
def history(
    patient: Patient,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only directives of this kind, or acts that record them.", show_default=False)] = None,
    acts: Annotated[bool, typer.Option("--acts", help="What was asked for, refused or done, instead of what was recorded.")] = False,
    directory: DirectoryFile = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Everything that was ever said in the record, oldest first; with --acts, every change that was ever asked for.

    It shows rules and reasons, of discreet refusals too: for reviewers.
    """
    desk = open_desk(where(data, store, log), pack, directory)
    check_patient(desk.pdp.pack, patient)
    if kind:
        choose("kind of directive", kind, desk.pdp.pack.vocabulary.kinds)
    language = language_of(desk.pdp.pack, lang)
    several = _acts(desk, patient, kind, language) if acts else _said(desk, patient, kind)
    log_reading(desk.where.log, "acts" if acts else "history", patient=patient, entries=len(several))
    if json:
        print_json([told for told, _ in several])
        return
    for _, lines in several:
        say(lines)
    if not several:
        say("nothing was ever asked for" if acts else "nothing was ever said in this record")


Told = list[tuple[dict[str, Any], str]]
"""For machines, and for people."""


def _said(desk: Desk, patient: str, kind: str | None) -> Told:
    made: Told = []
    for one in desk.store.history(patient):
        directive = one.directive if desk.directory is None else desk.directory.normalise(one.directive)
        if kind in (None, directive["kind"]):
            told = {key: value for key, value in directive.items() if key not in ("kind", "recorded", "recorded_by", "capacity", "withdraw")}
            what = ("withdraws " if directive.get("withdraw") else "") + directive["kind"]
            details = ", ".join(f"{key} {value}" for key, value in told.items())
            by = f"{directive.get('capacity', '?')} {directive.get('recorded_by', '?')}"
            line = f"{one.revision:>4}  {iso(one.recorded, desk.zone)[:19]}  {what:<28} {details}  by {by}".replace("\n", "\\n")
            made.append(({"revision": one.revision, "recorded": iso(one.recorded, desk.zone), **directive}, line))
    return made


def _acts(desk: Desk, patient: str, kind: str | None, language: str) -> Told:
    """The acts on a record; of a kind, those that record directives of it."""
    recording = {name for name, several in desk.pdp.pack.vocabulary.acts.items() if any(one.kind == kind for one in several)}
    return [(_act_told(one, desk.zone), _act_line(one, desk.zone, language)) for one in desk.store.acts(patient) if kind is None or one.act.action in recording]


def _act_told(one: KeptAct, zone: str) -> dict[str, Any]:
    verdict = {"number": one.number, "id": one.act.id, "recorded": iso(one.recorded, zone), "decision": one.act.decision, "rule": one.act.rule}
    return {**verdict, **one.act.told, "at": iso(one.act.told["at"], zone), "before": str(one.before), "after": str(one.after)}


def _act_line(one: KeptAct, zone: str, language: str) -> str:
    told = one.act.told
    subject, resource, target = told["subject"], told["resource"], told["action"]["properties"].get("target")
    aim = " ".join(str(target[key]) for key in ("type", "id", "from", "until") if key in target) if isinstance(target, dict) else ""
    about = f"{resource['type']} {resource['id']}" if resource["type"] != "record" else ""
    verdict = f"{one.act.decision} by {one.act.rule or 'no rule'}" + (", not done" if one.act.decision == "permit" and not told["done"] else "")
    asked = " ".join(filter(None, (one.act.action, aim, about)))
    revisions = f"{one.before.revision}" if one.before == one.after else f"{one.before.revision} -> {one.after.revision}"
    head = f"{one.number:>4}  {iso(one.recorded, zone)[:19]}  {asked}  by {subject['type']} {subject['id']}: {verdict} (revision {revisions})"
    return head.replace("\n", "\\n") + (f"\n      {told['reason'].get(language, '')} [{told['legal_basis']}]" if told["reason"] else "")


@app.command(
    "preview",
    epilog=_examples(
        "preview 279035121518989 professional:10000023092 documents.json --with subject.profession=G15_60 --act block",
        "preview 279035121518989 professional:10000023092 documents.json --act mask --document document.json",
        "preview 279035121518989 professional:10000023092 documents.json --act mask_documents --target type:11502-2",
        "preview 279035121518989 professional:10000023092 documents.json --act mask_documents --with action.target.type=deposited "
        "--with action.target.from=2026-03-01",
    ),
)
@command
def preview_access(
    patient: Patient,
    subject: Annotated[str, typer.Argument(metavar="TYPE:ID", help="Who would read.", show_default=False)],
    documents: Annotated[Path, typer.Argument(metavar="FILE|-", help="A JSON list of documents.", show_default=False)],
    given: Given = None,
    doing: Annotated[str | None, typer.Option("--act", metavar="ACTION", help="An act by the patient, aimed at that subject.", show_default=False)] = None,
    target: Annotated[str | None, typer.Option("--target", metavar="TYPE:ID", help="At whom or what else it aims.", show_default=False)] = None,
    document: Annotated[Path | None, typer.Option(metavar="FILE", help="The document, as JSON, for an act on one.", show_default=False)] = None,
    directory: DirectoryFile = None,
    store: StoreUrl = None,
    log: LogUrl = None,
    data: Data = None,
    pack: PackOption = Path(PACK),
    json: AsJson = False,
) -> None:
    """What somebody would see of these documents now, and if the patient did something."""
    desk = open_desk(where(data, store, log), pack, directory)
    pdp = desk.pdp
    check_patient(pdp.pack, patient)
    form, id = _pair(subject, "TYPE:ID")
    parts: dict[str, dict[str, Any]] = {"subject": {}, "action": {}, "context": {"purpose": "care"}}
    for one in given or ():
        _put(parts, one)
    data = _object(documents)
    if not isinstance(data, list) or not data:
        raise Misuse(f"`{documents}` is not a list of documents with an `id`")
    shown = [_document(one, patient, f"{documents}[{place}]") for place, one in enumerate(data)]
    asks = Entity(form, id, parts["subject"])
    several = [Request(asks, Action("read"), Entity(**one), parts["context"]) for one in shown]
    several = [settled(pdp, one, desk.directory) for one in several]
    act = None
    said = [one for one in given or () if one.startswith("action.")]
    if doing:
        choose("action", doing, pdp.pack.vocabulary.actions)
        elsewhere = any(one.startswith(("action.target.type=", "action.target.id=")) for one in said)
        act = _request(pdp, doing, patient, target or (None if elsewhere else subject), document, None, said)
        check_act(pdp.pack, act)
        act = settled(pdp, act, desk.directory)
    elif said or target or document:
        raise Misuse("nothing is aimed at anything without --act ACTION")
    now = desk.store.read(patient, time.time())[0].at
    directives = parse_directives([one.directive for one in desk.store.history(patient)], pdp.pack.vocabulary, kept=True)
    if desk.directory is not None:
        directives = tuple(map(desk.directory.normalise, directives))
    seen = preview(pdp, directives, act, several[0].subject, [one.resource for one in several], parts["context"], now)
    log_reading(desk.where.log, "preview", patient=patient, of=f"{form} {id}", entries=len(seen))
    if json:
        print_json([{"document": one.document.id, "now": one.now.for_reviewer(), "then": one.then.for_reviewer()} for one in seen])
        return
    for one in seen:
        then = f"   then {one.then.decision} by {one.then.rule}" if doing else ""
        say(f"{one.document.id:<24} now {one.now.decision} by {one.now.rule}{then}")


def _instant(text: str | None) -> float:
    if text is None:
        return time.time()
    instant = parse_instant(text)
    if instant is None:
        raise Misuse(f"`{text}` is not an instant: write 2026-03-03T14:05:00+01:00, say")
    return instant


def _when(instant: float, zone: str) -> str | None:
    return None if abs(instant) == FOREVER else iso(instant, zone)
