"""Files of records in the formats that questions come in: JSON lines, a JSON array, CSV."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.tasks.lines import Rows, kind, located, read_lines, read_objects, require_object


def read_records(path: Path) -> Rows:
    """The records of a .jsonl, .json (one array) or .csv (with a header) file, each with its place."""
    readers = {".jsonl": read_objects, ".json": read_array, ".csv": read_table}
    if path.suffix not in readers:
        raise InputError(f"{path}: the file's name must end in one of {', '.join(readers)}")
    return readers[path.suffix](path)


def read_array(path: Path) -> Rows:
    """The objects of a JSON array, with places FILE[INDEX] that count from 0."""
    try:
        values = json.loads("\n".join(read_lines(path)))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(values, list):
        raise InputError(f"{path}: the file must hold a JSON array [...], not {kind(values)}")
    for index, value in enumerate(values):
        place = f"{path}[{index}]"
        with located(place):
            record = require_object(value, "the item")
        yield place, record


def read_table(path: Path) -> Rows:
    """The rows of a CSV file by the names in its header."""
    rows = read_csv(path)
    place, header = next(rows)
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise InputError(f"{place}: the header names {twice[0]!r} more than once")
    for place, row in rows:
        if len(row) != len(header):
            raise InputError(f"{place}: the header names {len(header)} columns, here are {len(row)}")
        yield place, dict(zip(header, row, strict=True))


def read_csv(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV file, each with the place where it begins: a quoted text may go over several lines."""
    reader = csv.reader((line + "\n" for line in read_lines(path)), strict=True)
    begins = 1
    try:
        for row in reader:
            yield f"{path}:{begins}", row
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{begins}: not valid CSV: {error}") from error
