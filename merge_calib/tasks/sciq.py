"""SciQ (Welbl et al. 2017, arXiv 1707.06209): science questions with three distractors.

File: the official `sciq/test.json`, a JSON array; of an item the keys `question`, `distractor1` to `distractor3` and
`correct_answer` are read. `support`, the passage that holds the answer, is left out: what the model knows is asked.
The answer has no place among the options, so they are put in the order of the hashes of the question's content and
their numbers: the same order on every machine, with the answer anywhere. Worked examples: `sciq/train.json`;
questions to select by: `sciq/valid.json`.
Hub: `allenai/sciq`, whose rows have the same keys.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from merge_calib.questions import content_id
from merge_calib.tasks.benchmark import Benchmark, Draft, Part
from merge_calib.tasks.hub import HubData
from merge_calib.tasks.lines import Rows, Values, text
from merge_calib.tasks.records import read_array

OPTIONS = ("correct_answer", "distractor1", "distractor2", "distractor3")


def read(paths: Sequence[Path]) -> Rows:
    """The items of one SciQ file."""
    return read_array(paths[0])


def parse(values: Values) -> Draft:
    """One item of an original file, or one row of the hub's data set."""
    question, options = text(values, "question"), [text(values, option) for option in OPTIONS]
    order = _shuffled(content_id("sciq", question, options), len(options))
    return Draft(question, [options[i] for i in order], order.index(0))


def _shuffled(seed: str, count: int) -> list[int]:
    return sorted(range(count), key=lambda i: hashlib.sha256(f"{seed} {i}".encode()).digest())


SCIQ = Benchmark(
    "sciq",
    "select",
    "SciQ, test: science questions",
    Part((("sciq/test.json",),), "test"),
    Part((("sciq/train.json",),), "train"),
    read,
    parse,
    HubData("allenai/sciq"),
    parse,
    validation=Part((("sciq/valid.json",),), "validation"),
)
