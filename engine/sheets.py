"""Comma-separated files as spreadsheets really write them.

An officer opens a grid in LibreOffice or Excel and saves it again: a byte-order mark, CRLF, semicolons or tabs and quotes come back, and mean nothing.
This module reads them all to the same rows, and keeps the line of each row for messages. It interprets no cell, and never reads rules.csv: that
file belongs to Casbin, whose readers are stricter (see `engine.pack`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from engine.errors import Diagnostic


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a sheet: its number in the file (from 1) and its cells by column name."""

    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A header and rows, in the order of the file."""

    file: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def first(self) -> str:
        """The name of the first column: the one that identifies a row."""
        return self.columns[0]


def decode(file: str, data: bytes, found: list[Diagnostic]) -> str | None:
    """The text of a file: UTF-8, with or without a byte-order mark. Anything else is a diagnostic, and nothing."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found.append(Diagnostic("file-encoding", "this file is not UTF-8", file, line, help="save it again as “Unicode (UTF-8)”"))
        return None


def delimiter(header: str) -> str:
    """The separator of a sheet: whichever of comma, semicolon and tab its header line has most of."""
    return max(",;\t", key=header.count)


def read_sheet(file: str, data: bytes, needs: tuple[str, ...], found: list[Diagnostic], may_be_empty: bool = False) -> Sheet:
    """Read a sheet whose header must have the columns `needs`. Mistakes are appended to `found`; under a header with a mistake there are no rows.

    A sheet without a row is a mistake unless it `may_be_empty`.
    """
    text = decode(file, data, found)
    if text is None:
        return Sheet(file, needs or ("",), ())
    header = next((line for line in text.splitlines() if line.strip()), None)
    if header is None and may_be_empty:
        return Sheet(file, needs, ())
    if header is None:
        found.append(Diagnostic("sheet-empty", "this sheet is empty", file, help=f"its header needs {_names(needs)}"))
        return Sheet(file, needs or ("",), ())
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(header), strict=True)
    columns: tuple[str, ...] = ()
    rows: list[Row] = []
    start, before, header_is_right = 1, len(found), True
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            if not columns:
                columns = tuple(stripped)
                _check_header(file, line, columns, needs, found)
                header_is_right = len(found) == before
            elif len(stripped) != len(columns):
                message = f"this row has {len(stripped)} cell{'s'[: len(stripped) != 1]}, the header has {len(columns)}"
                found.append(Diagnostic("row-length", message, file, line, help="add or remove cells, or quote a cell with a comma"))
            else:
                rows.append(Row(line, dict(zip(columns, stripped, strict=True))))
    except csv.Error as error:
        found.append(Diagnostic("sheet-quotes", f"this row cannot be read: {error}", file, start, help="close the quotes of the cell"))
    if not rows and not may_be_empty and len(found) == before:
        found.append(Diagnostic("sheet-empty", "this sheet has no row", file, help="a header alone decides nothing"))
    return Sheet(file, columns or needs or ("",), tuple(rows) if header_is_right else ())


def _check_header(file: str, line: int, columns: tuple[str, ...], needs: tuple[str, ...], found: list[Diagnostic]) -> None:
    for name in needs:
        if name not in columns:
            found.append(Diagnostic("column-missing", f"the column `{name}` is missing", file, line, help=f"the header needs {_names(needs)}"))
    for place, name in enumerate(columns):
        if not name:
            found.append(Diagnostic("column-unnamed", f"column {place + 1} has no name", file, line, help="name it, or remove it"))
        elif name in columns[:place]:
            found.append(Diagnostic("column-repeated", f"the column `{name}` stands twice", file, line, help="keep one of them"))


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "at least one column"
