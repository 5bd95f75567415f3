"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): 57 subjects, four options.

Files: the official `mmlu/test/SUBJECT_test.csv`, as many as are there, in the order of their names; no header, the
columns question, A, B, C, D, answer letter. The subject is the file's with spaces for underscores.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.tasks.benchmark import Benchmark, QuestionList
from merge_calib.tasks.lines import located, read_lines

COLUMNS = 6
ANSWERS = ("A", "B", "C", "D")


def read(asked: QuestionList, paths: Sequence[Path]) -> None:
    """Add the questions of all subjects' files."""
    for path in paths:
        subject = path.name.removesuffix("_test.csv").replace("_", " ")
        for place, row in _read_rows(path):
            with located(place):
                _check(row)
                asked.add(place, row[0], row[1:5], ANSWERS.index(row[5]), subject=subject)


def _read_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV file, each with the place where it begins: a quoted question may go over several lines."""
    reader = csv.reader((line + "\n" for line in read_lines(path)), strict=True)
    begins = 1
    try:
        for row in reader:
            yield f"{path}:{begins}", row
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{begins}: not valid CSV: {error}") from error


def _check(row: Sequence[str]) -> None:
    if len(row) != COLUMNS:
        raise InputError(f"{COLUMNS} columns are needed (question, A, B, C, D, answer letter), here are {len(row)}")
    if row[5] not in ANSWERS:
        raise InputError(f"the answer must be one of {', '.join(ANSWERS)}, not {row[5]!r}")


MMLU = Benchmark("mmlu", "mmlu", "MMLU, test: exam questions of 57 subjects", (("mmlu/test/*_test.csv",),), read)
