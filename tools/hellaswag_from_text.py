"""Turn the text form of HellaSwag's validation items (llama.cpp's) into the official jsonl schema.

    python tools/hellaswag_from_text.py hellaswag_val_full.txt.bz2 DATA_DIR/hellaswag/hellaswag_val.jsonl

The text has 6 lines an item: `activity_label: ctx`, the right ending (0 to 3), the four endings; bz2 or plain.

How the outcome differs from the official file: the text was cleaned (marks like [header] and double spaces are gone),
so `ctx_a` is the cleaned context and `ctx_b` is always empty; a `ctx_b` that the reference harness would capitalise
stays in small letters at the end of `ctx_a`; `ind` counts items from 0; `source_id` and `split_type` are unknown and
left out. Questions therefore get other ids than from the official file.
"""

import argparse
import bz2
import json
import sys
from pathlib import Path
from typing import Any

from merge_calib.errors import InputError, MergeCalibError
from merge_calib.files import write_text

LINES_AN_ITEM = 6
LABELS = ("0", "1", "2", "3")


def read_text(path: Path) -> list[str]:
    """The lines of a text file, unpacked where its first bytes are bz2's."""
    try:
        data = path.read_bytes()
        plain = bz2.decompress(data) if data.startswith(b"BZh") else data
        return plain.decode("utf-8").removesuffix("\n").split("\n")
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def parse_items(path: Path) -> list[dict[str, Any]]:
    """The items in HellaSwag's schema; what is wrong is said as FILE:LINE.

    The first ': ' of an item's first line ends the activity label, none of which holds one.
    """
    lines = read_text(path)
    if len(lines) % LINES_AN_ITEM:
        raise InputError(f"{path}:{len(lines)}: the file ends inside an item: {len(lines)} lines are no multiple of 6")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f"{path}:{number}: the line is empty")
    starts = range(0, len(lines), LINES_AN_ITEM)
    for start in starts:
        if ": " not in lines[start]:
            raise InputError(f"{path}:{start + 1}: no ': ' between activity label and context")
        if lines[start + 1] not in LABELS:
            raise InputError(f"{path}:{start + 2}: the label must be 0 to 3, not {lines[start + 1]!r}")
    return [_item(lines[start : start + LINES_AN_ITEM], ind) for ind, start in enumerate(starts)]


def _item(lines: list[str], ind: int) -> dict[str, Any]:
    activity, _, context = lines[0].partition(": ")
    return {
        "ind": ind,
        "activity_label": activity,
        "ctx_a": context,
        "ctx_b": "",
        "ctx": context,
        "split": "val",
        "label": int(lines[1]),
        "endings": lines[2:],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="the items in text form, plain or bz2")
    parser.add_argument("out", type=Path, help="the jsonl file to write")
    arguments = parser.parse_args()
    try:
        items = parse_items(arguments.text)
        write_text(arguments.out, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    except MergeCalibError as error:
        sys.exit(f"error: {error}")
    print(f"{len(items)} items in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
