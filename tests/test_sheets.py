"""Sheets as spreadsheets write them: whatever the dialect, the same rows, each with the line on which it starts."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Diagnostic
from engine.sheets import Sheet, read_sheet


def read(text: str | bytes, *needs: str) -> Sheet:
    found: list[Diagnostic] = []
    sheet = read_sheet("some.csv", text.encode() if isinstance(text, str) else text, needs, found)
    assert not found
    return sheet


def rows(sheet: Sheet) -> list[tuple[int, list[str]]]:
    return [(row.line, [row[column] for column in sheet.columns]) for row in sheet]


@pytest.mark.parametrize(
    "text",
    [
        "code,label\nA,one\nB,two\n",
        "code;label\nA;one\nB;two\n",
        "code\tlabel\nA\tone\nB\ttwo\n",
        "code,label\r\nA,one\r\nB,two\r\n",
        "code,label\rA,one\rB,two\r",
        "code,label\nA,one\nB,two",
        "\ufeffcode,label\nA,one\nB,two\n",
        '"code","label"\n"A","one"\n"B","two"\n',
        " code , label \n A , one \nB\u00a0,two\n",
        "code,label\nA,one\nB,two\n,\n\n,\n",
    ],
    ids=["commas", "semicolons", "tabs", "crlf", "cr", "no-last-line-end", "byte-order-mark", "quotes", "spaces", "blank-rows-after"],
)
def test_every_dialect_is_read_alike(text):
    sheet = read(text, "code")
    assert (sheet.columns, sheet.first) == (("code", "label"), "code")
    assert rows(sheet) == [(2, ["A", "one"]), (3, ["B", "two"])]


def test_a_blank_line_before_the_header_hides_neither_header_nor_separator():
    assert rows(read("\n;\ncode;label\nA;one, or two\n")) == [(4, ["A", "one, or two"])]


def test_the_separator_is_the_one_that_the_header_has_most_of():
    assert rows(read('code;"label, in full";x\nA;one, two, three;y\n')) == [(2, ["A", "one, two, three", "y"])]


def test_a_row_has_the_line_on_which_it_starts():
    text = 'code,label\nA,"one\nof two lines"\n\nB,"says ""two"""\nC,x\u2028y\nD,z\n'
    assert rows(read(text)) == [(2, ["A", "one\nof two lines"]), (5, ["B", 'says "two"']), (6, ["C", "x\u2028y"]), (7, ["D", "z"])]


def test_a_sheet_of_one_column_is_a_sheet():
    assert rows(read("code\nA\nB\n")) == [(2, ["A"]), (3, ["B"])]


cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\n,;\t"'), max_size=6).map(str.strip)
names = st.lists(st.text("abcdefgh", min_size=1, max_size=5), min_size=2, max_size=4, unique=True)


@given(names, st.data(), st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_a_spreadsheet_writes_is_read_as_it_was(columns, data, separator, end, quoted):
    width = len(columns)
    table = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width).filter(any), min_size=1, max_size=4))
    written = io.StringIO()
    csv.writer(written, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL).writerows([columns, *table])
    sheet = read(written.getvalue())
    assert list(sheet.columns) == columns
    assert [row for _, row in rows(sheet)] == table


@given(st.binary(max_size=80) | st.text('ab,;\t"\n\r é', max_size=60).map(str.encode))
def test_any_bytes_are_a_sheet_or_have_a_mistake(data):
    found: list[Diagnostic] = []
    sheet = read_sheet("some.csv", data, ("a",), found)
    assert sheet.rows or found
    assert all(set(sheet.columns) == row.cells.keys() for row in sheet)
