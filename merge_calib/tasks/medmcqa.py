"""MedMCQA (Pal et al. 2022, arXiv 2203.14371): entrance questions of medical schools, four options.

File: the official `medmcqa/dev.json`, a JSON object a line; of it the keys `id`, `question`, `opa` to `opd`, `cop`
(the right option, 1 to 4) and `subject_name` are read. The official test file has no answers.
"""

from collections.abc import Sequence
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.tasks.benchmark import Benchmark, QuestionList
from merge_calib.tasks.lines import Values, located, read_objects, text, whole_number

OPTIONS = ("opa", "opb", "opc", "opd")


def read(asked: QuestionList, paths: Sequence[Path]) -> None:
    """Add the questions of one MedMCQA file."""
    for place, values in read_objects(paths[0]):
        with located(place):
            choices = [text(values, option) for option in OPTIONS]
            subject = text(values, "subject_name")
            asked.add(place, text(values, "question"), choices, _answer(values), id=text(values, "id"), subject=subject)


def _answer(values: Values) -> int:
    option = whole_number(values, "cop")
    if not 1 <= option <= len(OPTIONS):
        raise InputError(f"'cop' must be 1 to {len(OPTIONS)}, not {option}")
    return option - 1


MEDMCQA = Benchmark(
    "medmcqa", "medmcqa", "MedMCQA, validation: entrance questions of medical schools", (("medmcqa/dev.json",),), read
)
