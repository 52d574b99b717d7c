"""`habilis caller`: keys for those who may call the service, and their file checked. A key is printed once; only its hash is ever written down."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from api.callers import ANY, ROLES, CallerSpec, CallersSpec, MistakenCallers, read_callers
from cli.edge import PACK, Misuse, choose, command, finding, open_pack, print_json, read_bytes, say
from engine.decision_log.entries import Inputs
from engine.errors import Diagnostic, shown, suggest
from engine.pack import Pack
from engine.toml_files import at_key

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Say who may call the service: make keys, check the file of callers.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
PREFIX = "habilis_"
"""Says what it is to whoever finds it, such as scanners of source repositories."""


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  habilis caller {line}" for line in lines)


def new_key() -> tuple[str, str]:
    """A random key of 256 bits and its SHA-256."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, sha256(key.encode()).hexdigest()


@app.command(
    epilog=_examples(
        "new pacs-chu --role store --subject professional --subject organisation=750712184 --claim structure=750712184 --claim profession --file callers.toml",
        "new night-reports --role reviewer --not-after 2027-12-31",
    )
)
@command
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the log will call it.", show_default=False)],
    role: Annotated[list[str], typer.Option(metavar="ROLE", help=f"One of {', '.join(ROLES)}; may be repeated.", show_default=False)],
    subject: Annotated[list[str] | None, typer.Option(metavar="TYPE[=ID]", help="Whom it may speak for: all of a type, or one; may be repeated.")] = None,
    claim: Annotated[list[str] | None, typer.Option(metavar="NAME[=VALUE]", help="A property it may assert, or one value of it; may be repeated.")] = None,
    not_after: Annotated[str | None, typer.Option(metavar="DATE", help="Its last day (UTC).", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="Add it to this file of callers.", show_default=False)] = None,
    json: AsJson = False,
) -> None:
    """Make a caller with a fresh key.

    The key is printed once, with the table to add to the file of callers; with --file, it is added.
    """
    for one in role:
        choose("role", one, ROLES)
    key, digest = new_key()
    table = _table(name, digest, role, _listed(subject or ()), _listed(claim or ()), not_after)
    before = file.read_bytes() if file and file.exists() else b""
    after = before + (b"\n" if before else b"") + table.encode()
    if name in _callers(file or Path("new.toml"), before).caller:
        raise Misuse(f"there is a caller `{name}` in `{file}`: to give it another key, add the hash that `habilis caller key` prints to its `key_sha256`")
    _callers(file or Path("new.toml"), after)
    if file:
        with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as out:
            out.write(after[len(before) :])
    if json:
        print_json({"name": name, "key": key, "sha256": digest, "toml": table, "file": str(file) if file else None})
        return
    say(f"key, shown only now: {key}\n")
    say(f"added to {file}" if file else table.rstrip())


@app.command(epilog=_examples("key"))
@command
def key(json: AsJson = False) -> None:
    """Make a key for a caller that there is.

    To rotate: add the hash to its `key_sha256`, give it the key, and when it uses it take the old hash out.
    """
    made, digest = new_key()
    print_json({"key": made, "sha256": digest}) if json else say(f"key, shown only now: {made}\nsha256: {digest}")


@app.command(epilog=_examples("check callers.toml", "check callers.toml --pack examples/library_pack"))
@command
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of callers.", show_default=False)],
    pack: Annotated[Path, typer.Option(metavar="PACK", help="The pack whose words it uses: a folder, or a compiled pack.")] = Path(PACK),
    json: AsJson = False,
) -> None:
    """Check a file of callers, by the words of a pack, and say who is in it.

    Every mistake at once. Issuers are not asked for anything. Exit code 1 when it does not check.
    """
    data, known = read_bytes(file), open_pack(pack)
    try:
        spec = read_callers(file, data)
        told = list(_unknown_words(str(file), data, spec, known))
        if any(one.severity == "error" for one in told):
            raise MistakenCallers(told)
    except MistakenCallers as error:
        if json:
            print_json({"fine": False, "errors": [asdict(one) for one in error.diagnostics]})
        else:
            say(str(error))
            number = sum(one.severity == "error" for one in error.diagnostics)
            say(f"{number} mistakes" if number > 1 else "1 mistake")
        finding()
    today = datetime.now(UTC).date()
    if json:
        callers = {name: _summary(one, today) for name, one in spec.caller.items()}
        print_json({"fine": True, "callers": callers, "issuers": sorted(spec.issuer), "warnings": [asdict(one) for one in told]})
        return
    for line in (*_lines(spec, today), *(one.render() for one in told)):
        say(line)


def _unknown_words(file: str, data: bytes, spec: CallersSpec, pack: Pack) -> Iterator[Diagnostic]:
    """What a caller may say that the pack does not know: a type of subject, and (a warning, since a request may hold more than the pack reads) a property."""
    types, read = pack.vocabulary.subjects, Inputs(pack).declared["subject"]
    for name, caller in spec.caller.items():
        for kind in caller.subjects:
            if kind not in (ANY, *types):
                at, help = ("caller", name, "subjects"), suggest(kind, types) or "they are " + ", ".join(types)
                yield at_key(file, {file: data}, at, "subject-unknown", f"unknown subject type {shown(kind)}", help)
        for claim in caller.claims:
            if claim not in (ANY, *read):
                at, help = ("caller", name, "claims"), suggest(claim, read) or "it reads " + ", ".join(read)
                yield replace(at_key(file, {file: data}, at, "claim-unread", f"the pack reads no {shown(claim)} of a subject", help), severity="warning")


def _callers(file: Path, data: bytes) -> CallersSpec:
    try:
        return read_callers(file, data)
    except MistakenCallers as error:
        raise Misuse(str(error)) from None


# --- writing ---------------------------------------------------------------------------------------------------------


def _listed(options: Iterable[str]) -> dict[str, list[str] | None]:
    """`structure=750712184` is one value of several, `profession` alone is any."""
    made: dict[str, list[str] | None] = {}
    for one in options:
        name, sign, value = one.partition("=")
        if not name or (sign and not value):
            raise Misuse(f"`{one}` is neither NAME nor NAME=VALUE")
        if (made.get(name, []) is None) != (not sign) and name in made:
            raise Misuse(f"`{name}` is given with a value and without: without one it means any")
        if sign:
            made.setdefault(name, []).append(value)  # type: ignore[union-attr]
        else:
            made[name] = None
    return made


def _table(
    name: str, digest: str, roles: Sequence[str], subjects: Mapping[str, list[str] | None], claims: Mapping[str, list[str] | None], not_after: str | None
) -> str:
    lines = [f"[caller.{_key(name)}]", f"key_sha256 = [{_quoted(digest)}]", f"roles = {_list(dict.fromkeys(roles))}"]
    for key, listed in (("subjects", subjects), ("claims", claims)):
        if listed:
            lines.append(f"{key} = {{ " + ", ".join(f"{_key(one)} = {_quoted(ANY) if v is None else _list(v)}" for one, v in listed.items()) + " }")
    if not_after:
        lines.append(f"not_after = {_day(not_after)}")
    return "\n".join(lines) + "\n"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Misuse(f"`{text}` is not a date: write 2027-12-31, say") from None


def _list(words: Iterable[str]) -> str:
    return "[" + ", ".join(map(_quoted, words)) + "]"


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _quoted(text)


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are among TOML's."""
    return dumps(text, ensure_ascii=False)


# --- looking ---------------------------------------------------------------------------------------------------------


def _summary(caller: CallerSpec, today: date) -> dict[str, Any]:
    return {
        "roles": list(caller.roles), "keys": len(caller.key_sha256), "issuer": caller.issuer, "subjects": caller.subjects, "claims": caller.claims,
        "not_after": caller.not_after and caller.not_after.isoformat(), "expired": caller.not_after is not None and caller.not_after < today,
    }  # fmt: skip


def _lines(spec: CallersSpec, today: date) -> Iterator[str]:
    for name, one in spec.caller.items():
        how = [f"{len(one.key_sha256)} key" + "s" * (len(one.key_sha256) > 1)] if one.key_sha256 else []
        how += [f"tokens of {one.issuer}"] if one.issuer else []
        last = "" if one.not_after is None else f", {'expired on' if one.not_after < today else 'until'} {one.not_after}"
        yield f"{name}: {', '.join(one.roles)}; {' and '.join(how)}{last}"
        for key, listed in (("speaks for", one.subjects), ("asserts", one.claims)):
            for what, values in listed.items():
                yield f"    {key} {what}: " + ("any" if values == ANY else ", ".join(map(_word, values)) or "none")
    for name, issuer in spec.issuer.items():
        yield f"issuer {name}: {issuer.issuer}, audience {issuer.audience}, {', '.join(issuer.algorithms)}, caller in `{issuer.caller_claim}`"
    if not spec.caller:
        yield "nobody may call"


def _word(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()
