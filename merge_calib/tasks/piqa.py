"""PIQA (Bisk et al. 2020, arXiv 1911.11641): which of two ways reaches a goal in the physical world.

Files: the official `piqa/valid.jsonl`, a line `{"goal": ..., "sol1": ..., "sol2": ...}`, and `piqa/valid-labels.lst`,
whose line is 0 or 1, the right solution of the same line; worked examples in the same way from `train`.
Hub: `baber/piqa`, whose rows have the label beside the same keys.
"""

from collections.abc import Sequence
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.tasks.benchmark import Benchmark, Draft, Part
from merge_calib.tasks.hub import HubData
from merge_calib.tasks.lines import Rows, Values, read_lines, read_objects, text, whole_number


def read(paths: Sequence[Path]) -> Rows:
    """The lines of a file of goals, each with its `label` from a file of labels."""
    goals, labels = paths
    answers = _read_answers(labels)
    questions = list(read_objects(goals))
    if len(questions) != len(answers):
        counts = f"{len(answers)} labels, {goals} has {len(questions)} questions"
        raise InputError(f"{labels}:{len(answers)}: the file ends here with {counts}")
    for (place, values), answer in zip(questions, answers, strict=True):
        yield place, values | {"label": answer}


def parse(values: Values) -> Draft:
    """One line with its label, or one row of the hub's data set."""
    return Draft(text(values, "goal"), [text(values, "sol1"), text(values, "sol2")], whole_number(values, "label"))


def _read_answers(labels: Path) -> list[int]:
    answers = [line.strip() for line in read_lines(labels)]
    for number, answer in enumerate(answers, 1):
        if answer not in ("0", "1"):
            raise InputError(f"{labels}:{number}: a label must be 0 or 1, not {answer!r}")
    return [int(answer) for answer in answers]


PIQA = Benchmark(
    "piqa",
    "select",
    "PIQA, validation: everyday physics",
    Part((("piqa/valid.jsonl", "piqa/valid-labels.lst"),), "validation"),
    Part((("piqa/train.jsonl", "piqa/train-labels.lst"),), "train"),
    read,
    parse,
    HubData("baber/piqa"),
    parse,
)
