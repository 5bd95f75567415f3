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
from merge_calib.tasks import Library, load_task
from merge_calib.tasks.mmlu import GROUPS, SUBJECTS

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LIBRARY = Library(DATA)
COUNTS = {"arc_easy": 2376, "piqa": 1838, "mmlu": 14042, "medmcqa": 4183}
OPTIONS = {"arc_easy": {3: 7, 4: 2365, 5: 4}, "piqa": {2: 1838}, "mmlu": {4: 14042}, "medmcqa": {4: 4183}}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the benchmarks' real files are not beside the checkout")


def objects(name: str) -> list[Any]:
    with (DATA / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def asked(name: str) -> list[tuple[str, tuple[str, ...], int]]:
    """Question, choices and answer as the package reads them."""
    return [(q.question, q.choices, q.answer) for q in load_task(name, LIBRARY).questions]


def has_equal_choices(question: Question) -> bool:
    return len(set(question.choices)) < len(question.choices)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_options_and_ids_are_the_published_ones(name: str) -> None:
    questions = load_task(name, LIBRARY).questions
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
    assert [q.id for q in load_task("medmcqa", LIBRARY).questions] == [item["id"] for item in items]
    assert len({q.subject for q in load_task("medmcqa", LIBRARY).questions}) == 21


def test_mmlu_is_what_a_plain_loop_reads() -> None:
    expected = []
    for path in sorted((DATA / "mmlu" / "test").iterdir()):
        with path.open(encoding="utf-8", newline="") as file:
            expected += [(row[0], tuple(row[1:5]), "ABCD".index(row[5])) for row in csv.reader(file)]
    assert asked("mmlu") == expected


def test_mmlu_has_57_subjects_and_27_questions_asked_twice() -> None:
    questions = load_task("mmlu", LIBRARY).questions
    subjects = {q.subject for q in questions}
    assert len(subjects) == 57
    assert {"abstract algebra", "high school european history"} < subjects
    assert sum(q.id.endswith("-2") for q in questions) == 27
    assert not any(q.id.endswith("-3") for q in questions)


@pytest.mark.parametrize(
    ("name", "count"),
    [("mmlu_stem", 3153), ("mmlu_humanities", 4705), ("mmlu_social_sciences", 3077), ("mmlu_other", 3107)],
)
def test_mmlus_groups_have_the_published_counts(name: str, count: int) -> None:
    assert len(load_task(name, LIBRARY)) == count


def test_mmlus_groups_and_subjects_are_each_a_partition_of_mmlu_with_the_same_ids() -> None:
    whole = set(load_task("mmlu", LIBRARY).questions)
    for parts in (GROUPS, SUBJECTS):
        questions = [q for part in parts for q in load_task(f"mmlu_{part}", LIBRARY).questions]
        assert len(questions) == len(whole)
        assert set(questions) == whole


def test_every_mmlu_question_has_five_worked_examples_of_its_subject_that_are_not_itself() -> None:
    task = load_task("mmlu", LIBRARY)
    assert Counter(map(len, task.examples.values())) == {5: 57}
    assert all([shot.subject for shot in task.shots(q, 5)] == [q.subject] * 5 for q in task.questions)


def test_a_worked_example_of_mmlu_is_the_row_of_the_dev_file() -> None:
    with (DATA / "mmlu" / "dev" / "virology_dev.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row[0], tuple(row[1:5]), "ABCD".index(row[5])) for row in csv.reader(file)]
    task = load_task("mmlu_virology", LIBRARY)
    assert [(q.question, q.choices, q.answer) for q in task.shots(task.questions[0], 5)] == rows


def test_arc_easy_with_four_options_is_the_papers_2365() -> None:
    task = load_task("arc_easy", Library(DATA, four_options=True))
    assert len(task) == 2365
    assert "11 questions without exactly 4 options are left out" in task.source


def test_the_worked_examples_of_arc_easy_are_the_first_32_of_train() -> None:
    train = [item["id"] for item in objects("arc_easy/train.jsonl")]
    assert [q.id for q in load_task("arc_easy", LIBRARY).examples[""]] == train[:32]


def test_sha256_is_what_run_directories_have_recorded() -> None:
    recorded = {"arc_easy": "4bd87abb", "medmcqa": "5429a75e", "mmlu": "2a61d8ad", "piqa": "999d8d9f"}
    assert {name: load_task(name, LIBRARY).sha256[:8] for name in recorded} == recorded


def test_facts_are_all_of_the_relations_that_end_a_pattern_with_the_entity() -> None:
    task = load_task(f"facts:{DATA / 'trex_pararel'}")
    assert (task.name, len(task)) == ("facts-trex_pararel", 29411 - 879 - 922)
    assert len({p.subject for p in task.passages}) == 39
    assert task.source.endswith("2 without a pattern that ends with the entity are left out (P31, P527)")
    first = next(p for p in task.passages if p.subject == "P106")
    assert first.text.endswith(" works as")  # the first pattern, "[X] is a [Y] by profession.", goes on after it


def test_a_folder_of_real_texts_is_read_and_every_place_is_in_range() -> None:
    task = load_task(f"clm:{DATA / 'text_demo'}")
    assert len(task) == 303
    assert {p.text for p in task.passages} > {item["text"] for item in objects("text_demo/c4_demo.jsonl")}
    assert abs(sum(p.at for p in task.passages) / 303 - 0.5) < 5 / (12 * 303) ** 0.5  # five standard deviations


@pytest.mark.parametrize(("name", "count"), [("arc_easy", 0), ("piqa", 0), ("mmlu", 9), ("medmcqa", 21)])
def test_equal_choices_occur_as_often_as_counted(name: str, count: int) -> None:
    assert sum(map(has_equal_choices, load_task(name, LIBRARY).questions)) == count
