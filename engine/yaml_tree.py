"""YAML with places: text a person can read back from the line that wrote it.

    bytes -> events of PyYAML -> nodes: text, true, false, nothing, lists and tables, each with its line and column

Every plain scalar is text but `true`, `false`, `null` and nothing, so that a code such as `1E5` means itself; a quoted scalar is always text. Anchors,
aliases, merges, tags, repeated keys and a second document are mistakes: what a line says must be on that line. No shape is checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from engine.errors import Diagnostic, HabilisError
from engine.request import MAX_BYTES, MAX_DEPTH


class VectorError(HabilisError):
    """Files of vectors that cannot be read. `diagnostics` holds every mistake found, in the order of the files."""

    def __init__(self, diagnostics: Iterable[Diagnostic]):
        self.diagnostics = tuple(sorted(diagnostics, key=lambda d: d.order))
        super().__init__("\n".join(d.render() for d in self.diagnostics))


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file and where it stands: text, true, false, nothing, a list of nodes, or a table of nodes with the places of its keys."""

    value: Any
    line: int
    column: int
    length: int = 1
    keys: Mapping[str, Node] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value

    def find(self, *path: str | int) -> Node:
        """The node at the end of a path, or the last one before it leaves the file."""
        here = self
        for step in path:
            known = here.value if isinstance(here.value, dict) else range(len(here.value)) if isinstance(here.value, list) else ()
            if step not in known:
                break
            here = here.value[step]
        return here


class Source:
    """A file's text and the mistakes found in it."""

    def __init__(self, file: str, text: str):
        self.file, self.lines = file, text.splitlines()
        self.found: list[Diagnostic] = []

    def report(self, code: str, message: str, at: Node | None = None, help: str = "") -> None:
        line, column, length = (at.line, at.column, at.length) if at else (0, 0, 1)
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        self.found.append(Diagnostic(code, message, self.file, line, column, length, text, help))


class _Stop(Exception):
    """The rest of the file cannot be read; the mistake is already reported."""


def read_tree(file: str, data: bytes) -> tuple[Source, Node]:
    """The one document of a YAML file. Raises `VectorError` for what is not UTF-8, too long, not YAML, or YAML that hides what it says."""
    source = Source(file, "")
    if len(data) > MAX_BYTES:
        source.report("file-size", f"this file has {len(data):,} bytes, more than {MAX_BYTES:,}", help="split it")
        raise VectorError(source.found)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        place = Node(None, before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
        source.report("file-encoding", "this file is not UTF-8", place, "save it again as UTF-8")
        raise VectorError(source.found) from None
    source = Source(file, text)
    try:
        root = _Composer(source, text).document()
    except _Stop:
        raise VectorError(source.found) from None
    if source.found:
        raise VectorError(source.found)
    return source, root


class _Composer:
    """Builds nodes from YAML events."""

    def __init__(self, source: Source, text: str):
        self.source = source
        self.events = self._events(text)

    def _events(self, text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.source.report("yaml-syntax", f"this is not YAML: {error.problem or error.context}", _place(mark) if mark else None)
            raise _Stop from None
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            place = Node(None, before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
            self.source.report("yaml-syntax", f"the character U+{ord(text[error.position]):04X} cannot stand in YAML", place, "take it out")
            raise _Stop from None

    def document(self) -> Node:
        next(self.events)  # start of the stream
        if isinstance(start := next(self.events), yaml.StreamEndEvent):
            self.source.report("file-empty", "this file is empty", help="write `pack:` and `vectors:`")
            raise _Stop
        root = self._node(next(self.events), 1)
        next(self.events)  # end of the document
        if isinstance(start := next(self.events), yaml.DocumentStartEvent):
            self.source.report("yaml-documents", "a second document starts here", _place(start.start_mark, 3), "keep one document in a file")
            raise _Stop
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        place = _place(event.start_mark, _length(event))
        if depth > MAX_DEPTH:
            self.source.report("yaml-nesting", f"this is nested more than {MAX_DEPTH} deep", place)
            raise _Stop
        if isinstance(event, yaml.AliasEvent):
            self.source.report("yaml-anchor", f"`*{event.anchor}` stands for something written elsewhere", place, "write it out, or name it under `records`")
            return place
        if event.anchor:  # type: ignore[attr-defined]
            self.source.report("yaml-anchor", f"the anchor `&{event.anchor}` is not used here", place, "leave it out")  # type: ignore[attr-defined]
        if event.tag:  # type: ignore[attr-defined]
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")  # type: ignore[attr-defined]
            self.source.report("yaml-tag", f"the tag `{tag}` is not used here", place, "leave it out: quotes make text")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, place)
        return self._list(place, depth) if isinstance(event, yaml.SequenceStartEvent) else self._table(place, depth)

    def _scalar(self, event: yaml.ScalarEvent, place: Node) -> Node:
        value: Any = event.value
        if event.style is None:
            value = {"true": True, "false": False, "null": None, "~": None, "": None}.get(value, value)
            if isinstance(value, str) and value.lower() in ("true", "false", "null"):
                self.source.report("yaml-word", f"`{value}` is text here", place, f"write `{value.lower()}`, or quote it")
        elif not _is_text(value):
            self.source.report("yaml-syntax", "half of a character (a lone surrogate) stands here", place)
        return Node(value, place.line, place.column, place.length)

    def _list(self, place: Node, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Node(items, place.line, place.column)

    def _table(self, place: Node, depth: int) -> Node:
        values: dict[str, Node] = {}
        keys: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            word = event.value if isinstance(event, yaml.ScalarEvent) else ""
            if not word:
                self.source.report("yaml-key", "a key is text that is not empty", key)
            elif word == "<<" and not event.style:  # type: ignore[attr-defined]
                self.source.report("yaml-anchor", "`<<` takes in what is written elsewhere", key, "write the keys out")
            elif word in keys:
                self.source.report("key-repeated", f"the key `{word}` stands twice, first on line {keys[word].line}", key, "keep one of them")
            values[word], keys[word] = self._node(next(self.events), depth + 1), key
        return Node(values, place.line, place.column, keys=keys)


def _place(mark: yaml.Mark, length: int = 1) -> Node:
    return Node(None, mark.line + 1, mark.column + 1, length)


def _length(event: yaml.Event) -> int:
    """How many characters a scalar takes on its line."""
    start, end = event.start_mark, event.end_mark
    return max(1, end.column - start.column) if isinstance(event, yaml.ScalarEvent) and start.line == end.line else 1


def _is_text(value: str) -> bool:
    try:
        return value.encode() is not None
    except UnicodeEncodeError:
        return False
