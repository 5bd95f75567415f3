"""Own questions are read from a JSONL file, whatever editor wrote it."""

import json
from pathlib import Path
from typing import Any

import pytest

from merge_calib.errors import InputError
from merge_calib.questions import Question, content_id
from merge_calib.tasks import load_task

OWN = Path(__file__).parent / "fixtures" / "tasks" / "weather.jsonl"
GOOD = {"id": "a", "question": "2 + 2?", "choices": ["3", "4"], "answer": 1}


def write(folder: Path, *lines: dict[str, Any], name: str = "own.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_an_own_file_is_a_task_named_after_it_and_asked_plainly() -> None:
    task = load_task(str(OWN))
    made = content_id("weather", "The sun sets in the", ["west", "east"])
    assert (task.name, task.style, task.source) == ("weather", "plain", str(OWN))
    assert task.questions == (
        Question("w1", "What falls from clouds?", ("rain", "stones"), 0),
        Question("w2", "Which is coldest?", ("steam", "water", "ice"), 2, "states of water"),
        Question(made, "The sun sets in the", ("west", "east"), 0, "", "The sun sets in the"),
    )


@pytest.mark.parametrize(("answer", "index"), [(0, 0), (1, 1), ("A", 0), ("B", 1), ("a", 0), ("b", 1)])
def test_an_answer_is_an_index_or_a_letter_of_either_case(answer: int | str, index: int, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD | {"answer": answer})
    assert load_task(path).questions[0].answer == index


def test_null_is_as_good_as_an_absent_key(tmp_path: Path) -> None:
    nulls = {"id": None, "subject": None, "context": None}
    (question,) = load_task(write(tmp_path, GOOD | nulls)).questions
    assert question == Question(content_id("own", "2 + 2?", ["3", "4"]), "2 + 2?", ("3", "4"), 1)


def test_an_empty_context_is_kept_apart_from_none(tmp_path: Path) -> None:
    assert load_task(write(tmp_path, GOOD | {"context": ""})).questions[0].context == ""


def test_questions_without_an_id_may_repeat(tmp_path: Path) -> None:
    bare = {key: value for key, value in GOOD.items() if key != "id"}
    made = content_id("own", "2 + 2?", ["3", "4"])
    task = load_task(write(tmp_path, bare, bare, bare))
    assert [q.id for q in task.questions] == [made, f"{made}-2", f"{made}-3"]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_any_editors_file_is_read_the_same(ends: str, mark: str, last: bool, tmp_path: Path) -> None:
    lines = OWN.read_text(encoding="utf-8").splitlines()
    path = tmp_path / "weather.jsonl"
    path.write_text(mark + ends.join(lines) + (ends if last else ""), encoding="utf-8", newline="")
    assert load_task(str(path)).questions == load_task(str(OWN)).questions


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    odd = "a\u2028b\x85c\x0cd"
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(GOOD | {"question": odd}, ensure_ascii=False).replace("\\f", "\\u000c"), "utf-8")
    assert load_task(str(path)).questions[0].question == odd


def test_an_own_file_may_have_another_ending_than_jsonl(tmp_path: Path) -> None:
    assert load_task(write(tmp_path, GOOD, name="quiz.v2.json")).name == "quiz.v2"


def test_limit_keeps_the_first_but_checks_all(tmp_path: Path) -> None:
    assert len(load_task(str(OWN), limit=1)) == 1
    with pytest.raises(InputError, match=r"own\.jsonl:2: "):
        load_task(write(tmp_path, GOOD, GOOD), limit=1)


@pytest.mark.parametrize("name", ["a b.jsonl", "é.jsonl", "-x.jsonl", ".jsonl", "a:b.jsonl"])
def test_a_file_name_that_cannot_name_results_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the task would be named .* letters, digits"):
        load_task(write(tmp_path, GOOD, name=name))


def test_an_own_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.jsonl: cannot be read: No such file"):
        load_task(str(tmp_path / "absent.jsonl"))


def test_a_folder_named_like_an_own_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match=r"folder\.jsonl: cannot be read: Is a directory"):
        load_task(str(tmp_path / "folder.jsonl"))


def test_a_whole_number_is_taken_as_an_id(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"id": 7, "question": "2 + 2?", "choices": ["3", "4"], "answer": 1}\n')
    assert [q.id for q in load_task(str(path)).questions] == ["7"]
