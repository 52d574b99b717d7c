"""TOML files of an author: read into a shape that pydantic declares, and every mistake said at its line, in words that know neither pydantic nor Python."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from engine.errors import Diagnostic, shown, suggest
from engine.sheets import decode
from engine.specs import FactSpec, Spec


def parse_toml(model: type[Any], name: str, files: Mapping[str, bytes], found: list[Diagnostic]) -> Any:
    """The file `name` as a `model` (pydantic's); nothing when it is not there or not like that. Mistakes are appended to `found`."""
    if name not in files or (text := decode(name, files[name], found)) is None:
        return None
    try:
        data = tomllib.loads(text)
        return model.model_validate(data)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r" *\(at (?:line (\d+), column (\d+)|end of document)\)", message)
        line, column = (int(place[1]), int(place[2])) if place and place[1] else (len(text.splitlines()), 0)
        sentence = message[: place.start()] if place else message
        help = "text stands in double quotes" if sentence == "Invalid value" else ""
        found.append(Diagnostic("toml-syntax", sentence[:1].lower() + sentence[1:], name, line, column, 1, _line(text, line), help))
    except ValidationError as error:
        found += _shape_mistakes(name, files, data, error)
    return None


def _shape_mistakes(name: str, files: Mapping[str, bytes], data: Any, error: ValidationError) -> Iterator[Diagnostic]:
    """pydantic's errors in the words of the file's author: one for each key, however many shapes its value might have had."""
    by_key: dict[tuple[str, ...], list[Any]] = {}
    for one in error.errors():
        by_key.setdefault(_key_path(data, one), []).append(one)
    for path, several in by_key.items():
        if any(len(other) > len(path) and other[: len(path)] == path for other in by_key):
            continue
        one, key, words = several[0], path[-1], ".".join(path)
        if one["type"] in ("missing", "union_tag_not_found"):
            key = key if one["type"] == "missing" else "form"
            yield at_key(name, files, path, "key-missing", f"the key `{key}` is missing", f"add it to `{words.removesuffix('.' + key)}`")
        elif one["type"] == "extra_forbidden":
            yield at_key(name, files, path, "key-unknown", f"`{key}` is not a key here", suggest(key, _known_keys() - {key}))
        elif one["type"] == "union_tag_invalid":
            tags = re.findall(r"'(\w+)'", one["ctx"]["expected_tags"])
            help = suggest(one["ctx"]["tag"], tags) or "they are " + ", ".join(tags)
            yield at_key(name, files, (*path, "form"), "value-type", f"{shown(one['ctx']['tag'])} is not a form of fact", help)
        else:
            yield at_key(name, files, path, "value-type", f"`{words}` must be " + ", or ".join(dict.fromkeys(map(_must_be, several))))


_SHAPES = {
    "string": "text", "bool": "true or false", "int": "a whole number", "date": "a date", "list": "a list", "dict": "a table", "model": "a table",
    "string_pattern_mismatch": "a name of small letters, digits, `.`, `_` and `-`", "string_too_short": "text that is not empty",
}  # fmt: skip


def _must_be(error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        return "one of " + ", ".join(f"`{one}`" for one in re.findall(r"'([^']+)'", context["expected"]))
    if kind in ("too_short", "too_long"):
        number = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"a {'list' if context['field_type'] == 'List' else 'table'} of {number}"
    if kind == "greater_than_equal":
        return f"{context['ge']} or more"
    return _SHAPES.get(kind) or _SHAPES.get(kind.partition("_")[0]) or str(error["msg"])


def _key_path(data: Any, error: Any) -> tuple[str, ...]:
    """Where an error is, as keys of the file: pydantic puts the shapes that it tried between them."""
    path: list[str] = []
    here = data
    for part in error["loc"]:
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int)):
            here = here[part]
            path.append(str(part))
    return (*path, str(error["loc"][-1])) if error["type"] == "missing" else tuple(path)


def _known_keys() -> set[str]:
    """Every key that the two files may have."""
    return {info.alias or name for spec in (*Spec.__subclasses__(), *FactSpec.__subclasses__()) for name, info in spec.model_fields.items()}


def at_key(name: str, files: Mapping[str, bytes], path: tuple[str, ...], code: str, message: str, help: str = "") -> Diagnostic:
    """A diagnostic at the line of the longest part of `path` that the file shows: a table's header, or the key after it."""
    text = files[name].decode("utf-8-sig", "replace")
    lines = text.splitlines()
    size, line = len(path), 0
    while size and not (line := _header(lines, path[:size])):
        size -= 1
    for number, row in enumerate(lines[line:], line + 1):
        if _HEADER.match(row):
            break
        if size < len(path) and re.match(rf"\s*[\"']?{re.escape(path[size])}[\"']?\s*=", row):
            line = number
            break
    return Diagnostic(code, message, name, line, 0, 1, _line(text, line), help)


_HEADER = re.compile(r"\s*\[+[^=,]*\]+\s*(#.*)?$")


def _header(lines: list[str], path: tuple[str, ...]) -> int:
    """The line of the table `[a.b.c]`; 0 when there is none."""
    wanted = re.compile(r"\s*\[+\s*" + r"\s*\.\s*".join(rf"[\"']?{re.escape(part)}[\"']?" for part in path) + r"\s*\]+")
    return next((number for number, row in enumerate(lines, 1) if wanted.match(row)), 0)


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number - 1] if 0 < number <= len(lines) else ""
