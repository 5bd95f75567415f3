"""Text files read line by line, and JSON values read key by key: whatever is wrong is said as FILE:LINE.

The functions that look at one line or one value raise InputError without a place; `located` adds it.
"""

import codecs
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from merge_calib.errors import InputError

Values = dict[str, Any]
Rows = Iterator[tuple[str, Values]]


@contextmanager
def located(place: object) -> Iterator[None]:
    """Put `place` in front of the message of every InputError raised inside."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their "\\n", read as they are asked for; a byte-order mark is no part of them.

    Only "\\n" ends a line, because U+2028 and its kin may stand inside a JSON text.
    """
    try:
        with path.open("rb") as file:
            first = file.readline().removeprefix(codecs.BOM_UTF8)
            if not first:
                raise InputError(f"{path}:1: the file is empty")
            for number, line in enumerate(chain([first], file), 1):
                yield _decode(line.removesuffix(b"\n"), f"{path}:{number}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def read_objects(path: Path) -> Rows:
    """The JSON object on each line of a file, with its place."""
    for number, line in enumerate(read_lines(path), 1):
        place = f"{path}:{number}"
        with located(place):
            values = require_object(parse_json(line), "the line")
        yield place, values


def parse_json(line: str) -> Any:
    """The JSON value of one line."""
    if not line.strip():
        raise InputError("the line is empty")
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise InputError(f"not valid JSON: {error}") from error


def required(values: Values, key: str) -> Any:
    """The value of a key that must be there."""
    if key not in values:
        here = ", ".join(repr(name) for name in values) or "no key"
        raise InputError(f"key {key!r} is missing; here are: {here}")
    return values[key]


def text(values: Values, key: str) -> str:
    """A required text."""
    value = required(values, key)
    if not isinstance(value, str):
        raise InputError(f"{key!r} must be a text, not {kind(value)}")
    return value


def texts(values: Values, key: str) -> list[str]:
    """A required list of texts."""
    items = objects(values, key)
    for position, item in enumerate(items):
        if not isinstance(item, str):
            raise InputError(f"{key!r} must be a list of texts, its item {position} is {kind(item)}")
    return items


def objects(values: Values, key: str) -> list[Any]:
    """A required list."""
    value = required(values, key)
    if not isinstance(value, list):
        raise InputError(f"{key!r} must be a list, not {kind(value)}")
    return value


def whole_number(values: Values, key: str) -> int:
    """A required whole number; true and false are none, although Python takes them for 1 and 0."""
    value = required(values, key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{key!r} must be a whole number, not {kind(value)}")
    return value


def require_object(value: Any, what: str) -> Values:
    """`value` itself, if it is a JSON object."""
    if not isinstance(value, dict):
        raise InputError(f"{what} must be a JSON object {{...}}, not {kind(value)}")
    return value


def kind(value: Any) -> str:
    """What a JSON value is, in the words of JSON; short values are shown."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 40 else "a text"
    return "a list" if isinstance(value, list) else "an object"


def _decode(line: bytes, place: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(f"{place}: not UTF-8 text: byte 0x{byte:02x} at column {error.start + 1}") from error
