"""HellaSwag (Zellers et al. 2019, arXiv 1905.07830): which of four endings follows.

File: the official `hellaswag/hellaswag_val.jsonl`; of a line the keys `activity_label`, `ctx_a`, `ctx_b`, `endings` and
`label` (0-based) are read. Question and context are the same text, `{activity_label}: {ctx_a} {ctx_b capitalised}`,
cleaned up as lm-eval's task does; so are the endings.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from merge_calib.tasks.benchmark import Benchmark, QuestionList
from merge_calib.tasks.lines import Values, located, read_objects, text, texts, whole_number


def read(asked: QuestionList, paths: Sequence[Path]) -> None:
    """Add the questions of one HellaSwag file."""
    for place, values in read_objects(paths[0]):
        with located(place):
            context = _context(values)
            endings = [clean(ending) for ending in texts(values, "endings")]
            asked.add(place, context, endings, whole_number(values, "label"), context=context)


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
    (("hellaswag/hellaswag_val.jsonl",),),
    read,
)
