"""What became of admission messages, in the consent database: those that were taken, and the dead letters that somebody has to look at.

A message is entered in the transaction of its directives: a crash leaves both or neither, and the same message again, from any process, writes nothing more.
What messages mean is `engine.consent.admissions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Table, select, update
from sqlalchemy.dialects import postgresql, sqlite

from engine.consent.migrations import collected, dead_letters, imports
from engine.consent.store import Conflict, ConsentStore
from engine.errors import RequestError

State: TypeAlias = Literal["open", "retaken", "dismissed"]
STATES: tuple[State, ...] = ("open", "retaken", "dismissed")
LONGEST_NAME = 200
SHORTEST_ID = 6
"""Characters of a dead letter's identifier that are enough to name it, where no other begins so."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message that was taken: what names it, its text's digest, and when what it says was collected, by field."""

    structure: str
    application: str
    control: str
    digest: str
    patient: str
    collected: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was not taken: why, at which segment or field, and how to mend it.

    `id` is the SHA-256 of what came, so that the same bytes again are the same letter, once more (`times`, `first`, `last`). `data` is what came, empty when it
    was too long to keep. `note`: why somebody dismissed it.
    """

    id: str
    name: str
    sender: str
    place: str
    reason: str
    help: str
    size: int
    data: bytes = field(repr=False, default=b"")
    state: State = "open"
    first: float = 0.0
    last: float = 0.0
    times: int = 1
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.place}: {self.reason}" + (f" ({self.help})" if self.help else "")


class Imports:
    """The messages that were taken and the dead letters of a consent store."""

    def __init__(self, store: ConsentStore):
        self.store = store

    # --- messages that were taken: within a transaction of the store ---

    def has(self, connection: Connection, entry: Entry) -> bool:
        """Whether this message was taken. Raises `RequestError` when another message of its sender had its identifier."""
        same = (imports.c.structure == entry.structure, imports.c.application == entry.application, imports.c.control == entry.control)
        digest = connection.execute(select(imports.c.digest).where(*same)).scalar()
        if digest is not None and digest != entry.digest:
            raise RequestError("MSH-10", "was the identifier of another message of this sender", "give a new message a new one")
        return digest is not None

    def overtaken(self, connection: Connection, entry: Entry) -> set[str]:
        """The fields in which this structure has already said of this patient what it collected later."""
        of_sender = select(collected.c.place, collected.c.instant).where(collected.c.patient == entry.patient, collected.c.structure == entry.structure)
        return {place for place, instant in connection.execute(of_sender) if place in entry.collected and entry.collected[place] < instant}

    def add(self, connection: Connection, entry: Entry, at: float) -> None:
        """Enter a message. Raises `Conflict` when another process did at this very moment."""
        row = {"structure": entry.structure, "application": entry.application, "control": entry.control, "digest": entry.digest}
        line = _insert(connection, imports).values(**row, patient=entry.patient, recorded=at).on_conflict_do_nothing()
        if connection.execute(line.returning(imports.c.control)).first() is None:
            raise Conflict("the message was taken meanwhile: nothing was written")
        for place, instant in entry.collected.items():
            line = _insert(connection, collected).values(patient=entry.patient, structure=entry.structure, place=place, instant=instant)
            later = line.excluded.instant
            keys = [collected.c.patient, collected.c.structure, collected.c.place]
            connection.execute(line.on_conflict_do_update(index_elements=keys, set_={"instant": later}, where=collected.c.instant < later))

    def retake(self, connection: Connection, id: str) -> None:
        """What was a dead letter was taken after all."""
        connection.execute(update(dead_letters).where(dead_letters.c.id == id, dead_letters.c.state != "retaken").values(state="retaken"))

    # --- dead letters ---

    def bury(self, letter: DeadLetter, at: float) -> DeadLetter:
        """Keep a dead letter: open, also when the same was dismissed before. Durable when it returns."""
        told = {key: _harmless(getattr(letter, key)) for key in ("name", "sender", "place", "reason", "help")}
        new = told | {"id": letter.id, "size": letter.size, "data": letter.data, "state": "open", "first": at, "last": at, "times": 1, "note": ""}
        again = told | {"state": "open", "last": at, "times": dead_letters.c.times + 1, "note": ""}
        with self.store.writing() as connection:
            line = _insert(connection, dead_letters).values(**new)
            connection.execute(line.on_conflict_do_update(index_elements=[dead_letters.c.id], set_=again))
        return self.letter(letter.id)

    def letters(self, state: State | None = "open") -> list[DeadLetter]:
        """The dead letters in a state, or all, those that came first first; without what they hold."""
        columns = [column for column in dead_letters.c if column.name != "data"]
        asked = select(*columns).order_by(dead_letters.c.first, dead_letters.c.id)
        with self.store.reading() as connection:
            rows = connection.execute(asked if state is None else asked.where(dead_letters.c.state == state)).mappings().all()
        return [_letter(row) for row in rows]

    def letter(self, id: str) -> DeadLetter:
        """The dead letter of an identifier, or of its beginning, with what it holds. Raises `RequestError`."""
        if len(id) < SHORTEST_ID or not id.isalnum() or not id.isascii():
            raise RequestError("dead letter", "is not named by that", f"write at least {SHORTEST_ID} characters of its identifier")
        with self.store.reading() as connection:
            rows = connection.execute(select(dead_letters).where(dead_letters.c.id.startswith(id, autoescape=True)).limit(2)).mappings().all()
        if len(rows) != 1:
            raise RequestError("dead letter", "several begin so" if rows else "there is none of that identifier", "list them, and write more of it")
        return _letter(rows[0])

    def dismiss(self, id: str, note: str) -> DeadLetter:
        """Say that nothing is to be done about a dead letter, and why. It is kept."""
        letter = self.letter(id)
        if letter.state == "retaken":
            raise RequestError("dead letter", "was taken since: there is nothing to dismiss")
        if not note.strip():
            raise RequestError("note", "is missing", "say why nothing is to be done")
        with self.store.writing() as connection:
            connection.execute(update(dead_letters).where(dead_letters.c.id == letter.id).values(state="dismissed", note=_harmless(note)))
        return self.letter(letter.id)


def _insert(connection: Connection, table: Table) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def _harmless(text: str) -> str:
    """Text that any database holds and any terminal shows, and no longer than somebody reads."""
    seen = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text[:LONGEST_NAME])
    return seen + "…" * (len(text) > LONGEST_NAME)


def _letter(row: Mapping[Any, Any]) -> DeadLetter:
    return DeadLetter(**row)
