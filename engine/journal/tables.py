"""The tables of a journal, and nothing else. Change `VERSION` with them: a journal of another shape asks to be derived anew."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, MetaData, Table, Text

VERSION = 1

Row: TypeAlias = dict[str, Any]
"""A row to be written."""

metadata = MetaData()


def _table(name: str, *columns: Column[Any] | Index) -> Table:
    """Under a name that no other table has, should the journal share a database."""
    return Table(f"journal_{name}", metadata, *columns)


def _index(name: str, *columns: str) -> Index:
    return Index(f"journal_{name}", *columns)


def _key(name: str, type: Any = Text) -> Column[Any]:
    return Column(name, type, primary_key=True)


def _word(name: str) -> Column[Any]:
    return Column(name, Text, nullable=False, default="")


def _flag(name: str) -> Column[Any]:
    return Column(name, Boolean, nullable=False)


def _number(name: str, type: Any = Integer) -> Column[Any]:
    return Column(name, type, nullable=False)


journal = _table("self", _key("one", Integer), _number("version"), _flag("complete"), _word("origin"))
"""`origin`: the log that it is derived from. `complete`: whether it was once read to its end; before, what was sent may look as if it was not."""
cursors = _table("cursors", _key("segment"), _number("next", BigInteger))
packs = _table("packs", _key("digest"), _word("body"))
problems = _table("problems", _key("segment"), _key("number", BigInteger), _word("why"), _word("pack"), _index("problems_pack", "pack"))
"""Entries that were not understood, and why; `pack`: that of an entry which came before the meaning of its codes."""
entries = _table(
    "entries", _key("segment"), _key("number", BigInteger), _word("id"), _word("kind"), _number("at", Double), _word("patient"), _index("entries_id", "id"),
)  # fmt: skip
decisions = _table(
    "decisions",
    _key("id"),
    _number("rank"),  # of an act: what was asked, and then what became of it
    _number("at", Double),
    *(_word(name) for name in ("patient", "caller", "subject_type", "subject_id", "properties", "action", "access_mode", "target", "context", "pack")),
    *(_flag(name) for name in ("secret", "review")),
    _index("decisions_review", "review", "at"),
)
accesses = _table(
    "accesses",
    _key("decision"),
    _key("document"),  # nothing for an act on the record itself
    _number("rank"),
    _number("at", Double),
    *(_word(name) for name in ("patient", "subject_type", "subject_id", "caller", "action", "type", "rule")),
    *(_flag(name) for name in ("secret", "emergency")),
    _index("accesses_patient", "patient", "at", "decision", "document"),
    _index("accesses_subject", "subject_id", "subject_type", "at"),
    _index("accesses_pair", "patient", "subject_id", "subject_type", "at"),
    _index("accesses_at", "at"),
)
outcomes = _table("outcomes", _key("decision"), _key("document"), _key("caller"), _key("shown", Boolean))
owed = _table(
    "owed",
    _key("decision"),
    _key("obligation"),
    *(_word(name) for name in ("addressee", "patient", "subject_type", "subject_id", "once", "again", "names", "pack")),
    _flag("private"),
    _number("at", Double),
    _number("due", Double),
    _index("owed_group", "patient", "subject_id", "obligation"),
)
"""What each decision owes to whom. `once`: told once for all that have the same; `again`: and again after directives of these kinds for one of `names`."""
grants = _table(
    "grants",
    _key("entry"), _key("place", Integer), _number("at", Double), *(_word(name) for name in ("patient", "kind", "target")), _index("grants_patient", "patient"),
)  # fmt: skip
notices = _table(
    "notices",
    _key("id"),
    *(_word(name) for name in ("obligation", "addressee", "patient", "subject_type", "subject_id", "once", "decision", "pack")),
    _flag("private"),
    _number("at", Double),
    _number("due", Double),
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_before", Double, nullable=False, default=0.0),
    _word("trouble"),
    _index("notices_due", "due"),
    _index("notices_group", "patient", "subject_id", "obligation"),
)
deliveries = _table("deliveries", _key("notice"), _number("at", Double), _word("state"))
verdicts = _table("verdicts", _key("id"), _number("at", Double), *(_word(name) for name in ("decision", "reviewer", "verdict", "comment")),
                  _index("verdicts_decision", "decision"))  # fmt: skip
counts = _table("counts", *(_key(name) for name in ("day", "caller", "action", "rule", "decision")), _number("items", BigInteger))
