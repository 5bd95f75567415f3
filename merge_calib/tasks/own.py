"""Own questions: a JSONL file, a question a line.

    {"id": "q1", "question": "What is 2 + 2?", "choices": ["3", "4"], "answer": 1}

`answer` is a 0-based index or a letter. Optional: `id` (else made from the content), `context` (the text that the
continuation methods score verbatim before each choice) and `subject`; null is as good as absent, other keys are
ignored. The task is named after the file.
"""

import re
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.questions import LETTERS, TaskSet
from merge_calib.tasks.benchmark import QuestionList
from merge_calib.tasks.lines import Values, kind, located, read_objects, required, text, texts

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def load_own(path: Path) -> TaskSet:
    """All questions of an own file."""
    asked = QuestionList(own_name(path))
    for place, values in read_objects(path):
        with located(place):
            _add(asked, place, values)
    return TaskSet(asked.task, "plain", tuple(asked.questions), str(path))


def own_name(path: Path) -> str:
    """The task's name: the file's without its ending; results are kept in files of that name, so it must be safe."""
    if not SAFE_NAME.fullmatch(path.stem):
        allowed = "letters, digits, '_', '-' and '.' are allowed, and a letter, a digit or '_' first"
        raise InputError(f"{path}: the task would be named {path.stem!r} after the file; {allowed}")
    return path.stem


def _add(asked: QuestionList, place: str, values: Values) -> None:
    question, choices = text(values, "question"), texts(values, "choices")
    answer = _answer(required(values, "answer"), len(choices))
    if isinstance(values.get("id"), int) and not isinstance(values["id"], bool):
        values = values | {"id": str(values["id"])}
    id, subject, context = (_optional(values, key) for key in ("id", "subject", "context"))
    asked.add(place, question, choices, answer, id=id, subject=subject or "", context=context)


def _answer(answer: object, choices: int) -> int:
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer
    if not isinstance(answer, str) or answer.upper() not in set(LETTERS):
        raise InputError(f"'answer' must be a 0-based index or a letter, not {kind(answer)}")
    index = LETTERS.index(answer.upper())
    if index >= choices:
        raise InputError(f"answer {answer!r} is outside the {choices} choices")
    return index


def _optional(values: Values, key: str) -> str | None:
    return None if values.get(key) is None else text(values, key)
