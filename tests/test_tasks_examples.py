"""Worked examples: from where they are read, how many, and that nobody who shows none is troubled by them."""

import json
import shutil
from pathlib import Path

import pytest

from merge_calib.errors import InputError
from merge_calib.tasks import BENCHMARKS, Library, load_task

DATA = Path(__file__).parent / "fixtures" / "tasks"
OWN = {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1}
ARC = {
    "question": {"stem": "2 + 2?", "choices": [{"text": "3", "label": "A"}, {"text": "4", "label": "B"}]},
    "answerKey": "B",
}


def write(path: Path, *lines: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_without_their_files_there_are_no_worked_examples(name: str) -> None:
    task = load_task(name, Library(DATA))
    assert dict(task.examples) == {}
    with pytest.raises(
        InputError, match=f"task {name}: 1 worked examples.* 0 are there; they are read from .*--data-dir"
    ):
        task.shots(task.questions[0], 1)


@pytest.mark.parametrize("file", ["arc_easy/train.jsonl", "ARC-Easy/ARC-Easy-Train.jsonl"])
def test_the_first_32_lines_of_a_train_file_are_read_and_no_more(file: str, tmp_path: Path) -> None:
    shutil.copytree(DATA / "arc_easy", tmp_path / "arc_easy")
    write(tmp_path / file, *(ARC | {"id": f"t{i}"} for i in range(32)), "not a question")
    examples = load_task("arc_easy", Library(tmp_path)).examples
    assert [q.id for q in examples[""]] == [f"t{i}" for i in range(32)]


def test_a_bad_train_file_troubles_only_who_shows_examples(tmp_path: Path) -> None:
    shutil.copytree(DATA / "arc_easy", tmp_path / "arc_easy")
    path = write(tmp_path / "arc_easy" / "train.jsonl", ARC | {"id": "t0"}, "not a question")
    task = load_task("arc_easy", Library(tmp_path))
    assert task.shots(task.questions[0], 0) == ()
    with pytest.raises(InputError, match=f"^{path}:2: the line must be a JSON object"):
        task.shots(task.questions[0], 1)


def test_worked_examples_have_four_options_too_where_the_questions_must(tmp_path: Path) -> None:
    shutil.copytree(DATA / "arc_easy", tmp_path / "arc_easy")
    shutil.copy(DATA / "arc_easy" / "test.jsonl", tmp_path / "arc_easy" / "train.jsonl")
    examples = load_task("arc_easy", Library(tmp_path, four_options=True)).examples
    assert [len(q.choices) for q in examples[""]] == [4, 4]


def test_a_subjects_examples_are_from_its_own_dev_file(tmp_path: Path) -> None:
    shutil.copytree(DATA / "mmlu", tmp_path / "mmlu")
    (tmp_path / "mmlu" / "dev").mkdir()
    (tmp_path / "mmlu" / "dev" / "garden_law_dev.csv").write_text("g1,1,2,3,4,A\ng2,1,2,3,4,B\n")
    (tmp_path / "mmlu" / "dev" / "kitchen_physics_dev.csv").write_text("k1,1,2,3,4,C\n")
    task = load_task("mmlu", Library(tmp_path))
    assert {s: [q.question for q in shots] for s, shots in task.examples.items()} == {
        "garden law": ["g1", "g2"],
        "kitchen physics": ["k1"],
    }
    assert [shot.question for shot in task.shots(task.questions[-1], 1)] == ["k1"]
    with pytest.raises(InputError, match="of the subject 'kitchen physics' are needed, 1 are there"):
        task.shots(task.questions[-1], 2)


def test_an_own_file_has_its_examples_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", OWN | {"subject": "sums"}, OWN | {"question": "1 + 1?"})
    examples = [OWN | {"question": "0 + 4?", "subject": "sums"}, OWN | {"question": "4 + 0?"}]
    beside = write(tmp_path / "own.fewshot.jsonl", *examples)
    task = load_task(path)
    assert [task.shots(q, 1)[0].question for q in task.questions] == ["0 + 4?", "4 + 0?"]
    assert task.examples_source == beside
    assert task.sha256 == load_task(path).sha256
    assert load_task(beside).name == "own.fewshot"  # it may be asked itself


def test_a_bad_example_of_an_own_file_is_refused_at_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", OWN)
    beside = write(tmp_path / "own.fewshot.jsonl", OWN | {"answer": 2})
    with pytest.raises(InputError, match=f"^{beside}:1: answer 2 is outside"):
        load_task(path)


def test_an_own_question_is_never_shown_as_its_own_example(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", OWN | {"id": "asked"})
    write(tmp_path / "own.fewshot.jsonl", OWN | {"id": "shown"})
    task = load_task(path)
    with pytest.raises(InputError, match="task own: question 'asked' is itself the worked example 'shown'"):
        task.shots(task.questions[0], 1)
