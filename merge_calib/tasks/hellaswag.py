"""HellaSwag (Zellers et al. 2019, arXiv 1905.07830): which of four endings follows.

File: the official `hellaswag/hellaswag_val.jsonl`; of a line the keys `activity_label`, `ctx_a`, `ctx_b`, `endings` and
`label` (0-based) are read. Question and context are the same text, `{activity_label}: {ctx_a} {ctx_b capitalised}`,
cleaned up as lm-eval's task does; so are the endings. Worked examples: `hellaswag/hellaswag_train.jsonl`.
Hub: `Rowan/hellaswag`, whose rows have the same keys, with the label as a text ("" where it is kept secret).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.tasks.benchmark import Benchmark, Draft, Part
from merge_calib.tasks.hub import HubData
from merge_calib.tasks.lines import Rows, Values, read_objects, text, texts, whole_number


def read(paths: Sequence[Path]) -> Rows:
    """The lines of one HellaSwag file."""
    return read_objects(paths[0])


def parse(values: Values) -> Draft:
    """One line of an original file."""
    return _draft(values, whole_number(values, "label"))


def parse_hub(values: Values) -> Draft:
    """One row of the hub's data set."""
    label = text(values, "label")
    if not re.fullmatch("[0-9]", label):
        raise InputError(f"'label' must be the number of an ending, not the text {label!r}")
    return _draft(values, int(label))


def _draft(values: Values, answer: int) -> Draft:
    context = _context(values)
    endings = [clean(ending) for ending in texts(values, "endings")]
    return Draft(context, endings, answer, context=context)


def _context(values: Values) -> str:
    # capitalize() lowers the rest of ctx_b: the reference harness does so, and its contexts are to be matched.
    story = f"{text(values, 'ctx_a')} {text(values, 'ctx_b').capitalize()}"
    return clean(f"{text(values, 'activity_label')}: {story}")


def clean(raw: str) -> str:
    """Drop the marks that WikiHow pages left: ` [title]` becomes `. `, other `[...]` go, two spaces become one.

    The steps and their order are lm-eval's; spaces are joined in one pass, so three of them become two.
    """
    marked = raw.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", marked).replace("  ", " ")


HELLASWAG = Benchmark(
    "hellaswag",
    "select",
    "HellaSwag, validation: which ending follows",
    Part((("hellaswag/hellaswag_val.jsonl",),), "validation"),
    Part((("hellaswag/hellaswag_train.jsonl",),), "train"),
    read,
    parse,
    HubData("Rowan/hellaswag"),
    parse_hub,
)
