"""`habilis consent`: a patient's record from a shell. The same acts, decided by the same policy, as over any other edge; nothing is written that it refuses.

Whoever runs this is trusted to say who asks (`--as`): it is for a consent desk's scripts and for trials, on the machine that holds the store.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.edge import PACK, Misuse, choose, command, finding, language_of, open_pdp, print_json, read_bytes, say
from engine.calendar import FOREVER, iso, parse_instant
from engine.consent.acts import Done, access_list, perform, preview
from engine.consent.directives import parse_directives
from engine.consent.store import Conflict, ConsentStore
from engine.pdp import Pdp
from engine.request import Entity, Request, parse_json, parse_request

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Grant, refuse, block and mask in a patient's record; see who has access, and what a change would do.",
)  # fmt: skip

Patient = Annotated[str, typer.Argument(metavar="PATIENT", help="The patient's identifier.", show_default=False)]
Who = Annotated[str | None, typer.Option("--as", metavar="TYPE:ID", help="Who asks; the patient himself, when left out.", show_default=False)]
Given = Annotated[list[str] | None, typer.Option("--with", metavar="NAME=VALUE", help="subject.X, action.X or context.X of the request; may be repeated.")]
Target = Annotated[str | None, typer.Option("--target", metavar="TYPE:ID", help="At whom or what the act aims.", show_default=False)]
StoreUrl = Annotated[str, typer.Option("--store", envvar="HABILIS_STORE", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/DATABASE.")]
PackOption = Annotated[Path, typer.Option("--pack", metavar="PACK", help="The folder of a pack, or a compiled pack.")]
At = Annotated[str | None, typer.Option("--at", metavar="INSTANT", help="Look at the record as it was at this instant.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Language = Annotated[str | None, typer.Option("--lang", metavar="fr|en", help="The language of the reasons.", show_default=False)]

STORE = "sqlite:///habilis.db"


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  habilis consent {line}" for line in lines)


@app.command(epilog=_examples("init", "init --store postgresql://habilis@localhost/habilis"))
@command
def init(store: StoreUrl = STORE, pack: PackOption = Path(PACK)) -> None:
    """Make an empty store.

    Only this makes one: a store that is not there is otherwise an error, since an empty one would say that nobody refused anything.
    """
    ConsentStore(store, open_pdp(pack).pack.vocabulary, create=True).close()
    say("the store is ready")


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
    store: StoreUrl = STORE,
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Do any act that the pack declares, if the policy permits it.

    Exit code 1 when it is refused; nothing is written then.
    """
    _do(action, patient, target, document, who, given, store, pack, lang, json)


@app.command(epilog=_examples("grant 279035121518989 professional:10000023118 --until 2027-12-31"))
@command
def grant(
    patient: Patient,
    target: Annotated[str, typer.Argument(metavar="TYPE:ID", show_default=False)],
    until: Annotated[str | None, typer.Option(metavar="DATE", help="The last day, or an instant.", show_default=False)] = None,
    who: Who = None,
    given: Given = None,
    store: StoreUrl = STORE,
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Let a professional or a structure consult (grant_access)."""
    more = [*(given or ()), *([f"action.until={until}"] if until else [])]
    _do("grant_access", patient, target, None, who, more, store, pack, lang, json)


@app.command(epilog=_examples("block 279035121518989 10000023092"))
@command
def block(
    patient: Patient,
    professional: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    who: Who = None,
    given: Given = None,
    store: StoreUrl = STORE,
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Block a named professional."""
    _do("block", patient, f"professional:{professional}", None, who, given, store, pack, lang, json)


@app.command(epilog=_examples("mask 279035121518989 document.json"))
@command
def mask(
    patient: Patient,
    document: Annotated[Path, typer.Argument(metavar="FILE|-", help="The document, as JSON.", show_default=False)],
    who: Who = None,
    given: Given = None,
    store: StoreUrl = STORE,
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Mask a document from professionals."""
    _do("mask", patient, None, document, who, given, store, pack, lang, json)


def _do(
    action: str, patient: str, target: str | None, document: Path | None, who: str | None, given: list[str] | None, url: str, pack: Path, lang: str | None,
    json: bool
) -> None:
    pdp = open_pdp(pack)
    choose("action", action, pdp.pack.vocabulary.actions)
    request = _request(pdp, action, patient, target, document, who, given)
    store = ConsentStore(url, pdp.pack.vocabulary)
    done = perform(pdp, store, request, time.time(), Conflict)
    language = language_of(pdp.pack, lang)
    if json:
        print_json({**done.answer.for_reviewer(pdp.pack.languages), "directives": list(done.directives), "token": str(done.token)})
    else:
        _say_done(done, language)
    if not done.answer.permitted:
        finding()


def _say_done(done: Done, language: str) -> None:
    answer = done.answer
    say(f"{answer.decision} by {answer.rule or 'no rule'} ({answer.legal_basis}): {answer.words(language)}")
    for one in done.directives:
        say("  recorded: " + ", ".join(f"{key} {value}" for key, value in one.items() if key not in ("recorded", "recorded_by", "capacity")))
    say(f"  the record is now {done.token}")


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
        properties = dict(_document(document))
        resource = {"type": about, "id": properties.pop("id"), "properties": {**properties, "patient": patient}}
    return parse_request(
        {
            "subject": {"type": kind, "id": id, "properties": parts["subject"]},
            "action": {"name": action, "properties": parts["action"]},
            "resource": resource,
            "context": parts["context"],
        }
    )


def _document(path: Path) -> dict[str, Any]:
    data = parse_json(read_bytes(path), str(path))
    if not isinstance(data, dict) or not isinstance(data.get("id"), str):
        raise Misuse(f"`{path}` is not a document: write an object with `id`, `type`, `status`, `confidentiality`, `author` ...")
    return data


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
def list_access(patient: Patient, at: At = None, store: StoreUrl = STORE, pack: PackOption = Path(PACK), json: AsJson = False) -> None:
    """List who is named in the record: by which statement, until when, recorded by whom."""
    pdp = open_pdp(pack)
    opened = ConsentStore(store, pdp.pack.vocabulary)
    instant = _instant(at)
    record = opened.as_of(patient, instant, known_at=instant) if at else opened.read(patient, instant)[0]
    several = access_list(record, [kind for kind in pdp.pack.vocabulary.kinds])
    zone = pdp.pack.vocabulary.time_zone
    if json:
        print_json([{"type": a.form, "id": a.who, "kind": a.kind, "until": _when(a.end, zone), "via": a.via, "recorded_by": a.recorded_by} for a in several])
        return
    for a in several:
        member = f" (as a member of {a.via})" if a.via else ""
        say(f"{a.kind:<24}{a.form} {a.who}{member}, until {_when(a.end, zone) or 'withdrawn'}, recorded by {a.recorded_by}")
    if not several:
        say("nobody is named in this record")


@app.command(epilog=_examples("history 279035121518989", "history 279035121518989 --kind mask"))
@command
def history(
    patient: Patient,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only directives of this kind.", show_default=False)] = None,
    store: StoreUrl = STORE,
    pack: PackOption = Path(PACK),
    json: AsJson = False,
) -> None:
    """Everything that was ever said in the record, oldest first."""
    pdp = open_pdp(pack)
    if kind:
        choose("kind of directive", kind, pdp.pack.vocabulary.kinds)
    kept = [one for one in ConsentStore(store, pdp.pack.vocabulary).history(patient) if kind in (None, one.directive["kind"])]
    zone = pdp.pack.vocabulary.time_zone
    if json:
        print_json([{"revision": one.revision, "recorded": iso(one.recorded, zone), **one.directive} for one in kept])
        return
    for one in kept:
        said = {key: value for key, value in one.directive.items() if key not in ("kind", "recorded", "recorded_by", "capacity", "withdraw")}
        what = ("withdraws " if one.directive.get("withdraw") else "") + one.directive["kind"]
        details = ", ".join(f"{key} {value}" for key, value in said.items())
        by = f"{one.directive.get('capacity', '?')} {one.directive.get('recorded_by', '?')}"
        say(f"{one.revision:>4}  {iso(one.recorded, zone)[:19]}  {what:<28} {details}  by {by}")


@app.command("preview", epilog=_examples("preview 279035121518989 professional:10000023092 documents.json --with subject.profession=G15_60 --act block"))
@command
def preview_access(
    patient: Patient,
    subject: Annotated[str, typer.Argument(metavar="TYPE:ID", help="Who would read.", show_default=False)],
    documents: Annotated[Path, typer.Argument(metavar="FILE|-", help="A JSON list of documents.", show_default=False)],
    given: Given = None,
    doing: Annotated[str | None, typer.Option("--act", metavar="ACTION", help="An act by the patient, aimed at that subject.", show_default=False)] = None,
    store: StoreUrl = STORE,
    pack: PackOption = Path(PACK),
    json: AsJson = False,
) -> None:
    """What somebody would see of these documents now, and if the patient did something."""
    pdp = open_pdp(pack)
    form, id = _pair(subject, "TYPE:ID")
    parts: dict[str, dict[str, Any]] = {"subject": {}, "action": {}, "context": {"purpose": "care"}}
    for one in given or ():
        _put(parts, one)
    data = parse_json(read_bytes(documents), str(documents))
    if not isinstance(data, list) or not all(isinstance(one, dict) and isinstance(one.get("id"), str) for one in data):
        raise Misuse(f"`{documents}` is not a list of documents with an `id`")
    several = [Entity("document", one["id"], {**{k: v for k, v in one.items() if k != "id"}, "patient": patient}) for one in data]
    act = None
    if doing:
        choose("action", doing, pdp.pack.vocabulary.actions)
        act = _request(pdp, doing, patient, subject, None, None, None)
    opened = ConsentStore(store, pdp.pack.vocabulary)
    now = opened.read(patient, time.time())[0].at
    directives = parse_directives([one.directive for one in opened.history(patient)], pdp.pack.vocabulary)
    seen = preview(pdp, directives, act, Entity(form, id, parts["subject"]), several, parts["context"], now)
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
