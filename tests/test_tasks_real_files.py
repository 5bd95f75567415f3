"""The real files, where a folder `shared/data` lies beside the checkout, give the published counts.

The oracle is a plain loop over csv or json that shares nothing with the readers.
"""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from merge_calib.questions import Question
from merge_calib.tasks import load_task

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
COUNTS = {"arc_easy": 2376, "piqa": 1838, "mmlu": 14042, "medmcqa": 4183}
OPTIONS = {"arc_easy": {3: 7, 4: 2365, 5: 4}, "piqa": {2: 1838}, "mmlu": {4: 14042}, "medmcqa": {4: 4183}}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the benchmarks' real files are not beside the checkout")


def objects(name: str) -> list[Any]:
    with (DATA / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def asked(name: str) -> list[tuple[str, tuple[str, ...], int]]:
    """Question, choices and answer as the package reads them."""
    return [(q.question, q.choices, q.answer) for q in load_task(name, DATA).questions]


def has_equal_choices(question: Question) -> bool:
    return len(set(question.choices)) < len(question.choices)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_options_and_ids_are_the_published_ones(name: str) -> None:
    questions = load_task(name, DATA).questions
    assert len(questions) == len({q.id for q in questions}) == COUNTS[name]
    assert Counter(len(q.choices) for q in questions) == OPTIONS[name]


def test_arc_easy_is_what_a_plain_loop_reads() -> None:
    expected = []
    for item in objects("arc_easy/test.jsonl"):
        options = item["question"]["choices"]
        right = next(i for i, option in enumerate(options) if option["label"] == item["answerKey"])
        expected.append((item["question"]["stem"], tuple(option["text"] for option in options), right))
    assert asked("arc_easy") == expected


def test_piqa_is_what_a_plain_loop_reads() -> None:
    labels = [int(label) for label in (DATA / "piqa" / "valid-labels.lst").read_text().split()]
    goals = objects("piqa/valid.jsonl")
    assert asked("piqa") == [(g["goal"], (g["sol1"], g["sol2"]), label) for g, label in zip(goals, labels, strict=True)]
    assert Counter(labels) == {0: 910, 1: 928}


def test_medmcqa_is_what_a_plain_loop_reads() -> None:
    items = objects("medmcqa/dev.json")
    expected = [(item["question"], tuple(item["op" + letter] for letter in "abcd"), item["cop"] - 1) for item in items]
    assert asked("medmcqa") == expected
    assert [q.id for q in load_task("medmcqa", DATA).questions] == [item["id"] for item in items]
    assert len({q.subject for q in load_task("medmcqa", DATA).questions}) == 21


def test_mmlu_is_what_a_plain_loop_reads() -> None:
    expected = []
    for path in sorted((DATA / "mmlu" / "test").iterdir()):
        with path.open(encoding="utf-8", newline="") as file:
            expected += [(row[0], tuple(row[1:5]), "ABCD".index(row[5])) for row in csv.reader(file)]
    assert asked("mmlu") == expected


def test_mmlu_has_57_subjects_and_27_questions_asked_twice() -> None:
    questions = load_task("mmlu", DATA).questions
    subjects = {q.subject for q in questions}
    assert len(subjects) == 57
    assert {"abstract algebra", "high school european history"} < subjects
    assert sum(q.id.endswith("-2") for q in questions) == 27
    assert not any(q.id.endswith("-3") for q in questions)


@pytest.mark.parametrize(("name", "count"), [("arc_easy", 0), ("piqa", 0), ("mmlu", 9), ("medmcqa", 21)])
def test_equal_choices_occur_as_often_as_counted(name: str, count: int) -> None:
    assert sum(map(has_equal_choices, load_task(name, DATA).questions)) == count
