"""What can go wrong, in two families: the author's mistakes and the caller's.

    HabilisError
    ├── PackError       the pack does not check: every diagnostic at once
    │   └── TooLarge    a slice of the pack needs more diagram than the budget allows
    └── RequestError    a request, a directive or a record cannot be read: where, what, how to mend it

Anything else that escapes is a bug in Habilis (`AssertionError` and the like), never an answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class HabilisError(Exception):
    """Base of every error that Habilis raises on purpose."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake of an author: a stable code, a sentence, a place and a way to mend it.

    `line` and `column` count from 1; 0 says that the mistake belongs to the whole file or line. `text` is the source line, `length` how many
    characters the caret underlines.
    """

    code: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    length: int = 1
    text: str = ""
    help: str = ""
    severity: str = "error"

    @property
    def place(self) -> str:
        parts = [self.file, *(str(n) for n in (self.line, self.column) if n)]
        return ":".join(part for part in parts if part)

    def render(self) -> str:
        """The diagnostic as an author reads it: place, sentence, source line with a caret, help."""
        lines = [f"{self.place}: {self.severity}[{self.code}]: {self.message}".removeprefix(": ")]
        if self.text and self.line:
            gutter = f"{self.line:>5} | "
            lines.append(gutter + self.text)
            if self.column:
                lines.append(" " * (len(gutter) + self.column - 1) + "^" * max(1, self.length))
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)

    @property
    def order(self) -> tuple[str, int, int, str]:
        return (self.file, self.line, self.column, self.code)


class PackError(HabilisError):
    """A pack that does not check. `diagnostics` holds every mistake found, in the order of the files."""

    def __init__(self, diagnostics: Iterable[Diagnostic]):
        self.diagnostics = tuple(sorted(diagnostics, key=lambda d: d.order))
        super().__init__("\n".join(d.render() for d in self.diagnostics))


class TooLarge(PackError):
    """A decision diagram that outgrows the pack's node budget; the diagnostic names the rules and facts responsible."""


class RequestError(HabilisError):
    """A request that cannot be read. `where` is a path such as `subject.id`, `help` says how to mend it."""

    def __init__(self, where: str, message: str, help: str = ""):
        self.where, self.message, self.help = where, message, help
        super().__init__(f"{where}: {message}" + (f" ({help})" if help else ""))


SHOWN = 60


def shown(value: bool | int | str) -> str:
    """A value in backticks, as its author wrote it: `true`, not `True`. What is too long is cut, and what cannot be seen is escaped."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return "`" + "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text) + "`"


def suggest(word: str, known: Iterable[object], cutoff: float = 0.6) -> str:
    """`did you mean ...?` when a known word is close, otherwise nothing. `cutoff`: how close, up to 1, which is the word itself."""
    if len(word) > SHOWN:
        return ""
    close = difflib.get_close_matches(word, sorted(str(k) for k in known), n=5, cutoff=cutoff)
    if not close:
        return ""
    best = max(close, key=lambda one: (difflib.SequenceMatcher(None, one, word).ratio(), _shared(one, word)))
    return f"did you mean `{best}`?"


def _shared(one: str, other: str) -> int:
    """How many characters two words start with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
