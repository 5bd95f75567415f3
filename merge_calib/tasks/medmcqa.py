"""MedMCQA (Pal et al. 2022, arXiv 2203.14371): entrance questions of medical schools, four options.

File: the official `medmcqa/dev.json`, a JSON object a line; of it the keys `id`, `question`, `opa` to `opd`, `cop`
(the right option, 1 to 4) and `subject_name` are read. The official test file has no answers. Worked examples:
`medmcqa/train.json`, whatever their subjects.
Hub: `openlifescienceai/medmcqa`, whose rows have the same keys, with `cop` from 0 to 3 (-1 where it is kept secret).
"""

from collections.abc import Sequence
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.tasks.benchmark import Benchmark, Draft, Part
from merge_calib.tasks.hub import HubData
from merge_calib.tasks.lines import Rows, Values, read_objects, text, whole_number

OPTIONS = ("opa", "opb", "opc", "opd")


def read(paths: Sequence[Path]) -> Rows:
    """The lines of one MedMCQA file."""
    return read_objects(paths[0])


def parse(values: Values) -> Draft:
    """One line of an original file."""
    return _draft(values, first=1)


def parse_hub(values: Values) -> Draft:
    """One row of the hub's data set."""
    return _draft(values, first=0)


def _draft(values: Values, first: int) -> Draft:
    choices = [text(values, option) for option in OPTIONS]
    subject = text(values, "subject_name")
    return Draft(text(values, "question"), choices, _answer(values, first), id=text(values, "id"), subject=subject)


def _answer(values: Values, first: int) -> int:
    option, last = whole_number(values, "cop"), first + len(OPTIONS) - 1
    if not first <= option <= last:
        raise InputError(f"'cop' must be {first} to {last}, not {option}")
    return option - first


MEDMCQA = Benchmark(
    "medmcqa",
    "medmcqa",
    "MedMCQA, validation: entrance questions of medical schools",
    Part((("medmcqa/dev.json",),), "validation"),
    Part((("medmcqa/train.json",),), "train"),
    read,
    parse,
    HubData("openlifescienceai/medmcqa"),
    parse_hub,
)
