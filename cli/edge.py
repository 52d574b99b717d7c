"""What every command shares: packs and requests read from disk, answers printed, mistakes turned into exit codes.

    0  fine        1  a finding: a pack that does not check, a vector that fails, a diff that is not empty        2  misuse: the message is on stderr

Internal bugs keep their traceback: they are not answers.
"""

from __future__ import annotations

import codecs
import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer

from engine.consent.directory import Directory, parse_directory
from engine.consent.identifiers import check_patient
from engine.errors import Diagnostic, HabilisError, PackError, suggest
from engine.pack import Pack, load_pack
from engine.pdp import Pdp, load_pdp
from engine.request import MAX_BYTES
from engine.specs import Scalar
from engine.vectors import typed_settings

PACK = "policies"
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
F = TypeVar("F", bound=Callable[..., Any])


class Misuse(HabilisError):
    """A command that cannot be done as it was asked for."""


def command(function: F) -> F:
    """A command whose mistakes are messages on stderr and exit code 2."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except HabilisError as error:
            stop(str(error))
        except BrokenPipeError:
            raise
        except OSError as error:
            stop(f"cannot use `{error.filename}`: {(error.strerror or str(error)).lower()}" if error.filename else str(error))

    return run  # type: ignore[return-value]


def stop(message: str) -> NoReturn:
    """Say on stderr what is wrong, and exit with 2."""
    typer.echo(_harmless(message), err=True)
    raise typer.Exit(2)


def finding() -> NoReturn:
    """Exit with 1: the work was done, and found something."""
    raise typer.Exit(1)


# --- printing --------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print text for people. What the terminal's encoding does not have, and what would steer the terminal, is escaped."""
    encoding = _encoding()
    typer.echo(_harmless(text).encode(encoding, "backslashreplace").decode(encoding))


def _harmless(text: str) -> str:
    return _CONTROLS.sub(lambda one: f"\\x{ord(one[0]):02x}", text)


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print JSON for machines."""
    typer.echo(json.dumps(value, ensure_ascii=codecs.lookup(_encoding()).name != "utf-8", indent=indent, allow_nan=False))


# --- packs -----------------------------------------------------------------------------------------------------------


def open_pdp(path: Path, settings: Sequence[str] = ()) -> Pdp:
    """The compiled pack in a folder or in a file that `habilis compile` wrote."""
    if path.is_file():
        from engine.compiled import load

        _refuse_settings(path, settings)
        return load(path.read_bytes(), str(path))
    return load_pdp(path, read_settings(path, settings))


def open_pack(path: Path, settings: Sequence[str] = ()) -> Pack:
    """The checked pack in a folder or in a compiled file, not compiled."""
    return open_pdp(path, settings).pack if path.is_file() else load_pack(path, read_settings(path, settings))


def read_settings(folder: Path, settings: Sequence[str]) -> dict[str, Scalar]:
    """Settings written `name=value`, as the kinds of value that the pack in the folder declares; what it does not declare is misuse, no fault of the pack."""
    need_folder(folder)
    texts = split_settings(settings)
    if not texts:
        return {}
    made = typed_settings(texts, load_pack(folder).settings)
    try:
        load_pack(folder, made)
    except PackError as error:
        raise Misuse(str(error)) from None
    return made


def need_folder(path: Path) -> None:
    if not path.is_dir():
        raise Misuse(f"there is no pack `{path}`: name the folder that holds pack.toml" + (", or a compiled pack" if not path.exists() else ""))


def split_settings(settings: Sequence[str]) -> dict[str, bool | str]:
    made: dict[str, bool | str] = {}
    for one in settings:
        name, sign, value = one.partition("=")
        if not sign or not name.strip():
            raise Misuse(f"`{one}` is not a setting: write --settings name=value")
        made[name.strip()] = value.strip()
    return made


def check_nobody(pack: Path, patient: str) -> None:
    """Of a patient about whom nothing was found: raise `RequestError` where the pack says that no patient is called so. Without a pack nobody can tell."""
    if pack.exists():
        check_patient(open_pack(pack), patient)


def _refuse_settings(path: Path, settings: Sequence[str]) -> None:
    if settings:
        raise Misuse(f"the settings of `{path}` were fixed when it was compiled: use --settings with `habilis compile`")


def choose(what: str, word: str, known: Iterable[str]) -> str:
    """One of the known words, or a message that says which is close."""
    several = list(known)
    if word not in several:
        help = suggest(word, several) or ("it is one of " + ", ".join(several) if len(several) <= 12 else "")
        raise Misuse(f"unknown {what} `{word}`" + (f": {help}" if help else ""))
    return word


def language_of(pack: Pack, wanted: str | None) -> str:
    """The language asked for, or English where the pack has it, or its first."""
    if wanted is not None:
        return choose("language", wanted, pack.languages)
    return "en" if "en" in pack.languages else pack.languages[0]


# --- people ----------------------------------------------------------------------------------------------------------


def open_directory(path: Path | None, pack: Pack) -> Directory | None:
    """The directory of professionals in a sheet, if one was named. A mistake in it would leave somebody unknown, so it is misuse."""
    if path is None:
        return None
    found: list[Diagnostic] = []
    directory = parse_directory(str(path), path.read_bytes(), pack, found)
    if found:
        raise Misuse("\n".join(one.render() for one in found))
    return directory


# --- files -----------------------------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, or of stdin for `-`; one more than is allowed is enough to be refused."""
    if str(path) == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
