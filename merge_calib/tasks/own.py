"""Own questions: a JSONL file, a question a line.

    {"id": "q1", "question": "What is 2 + 2?", "choices": ["3", "4"], "answer": 1}

`answer` is a 0-based index or a letter. Optional: `id` (else made from the content), `context` (the text that the
continuation methods score verbatim before each choice), `subject` and `split` (`select` where a sweep may choose the
point by the question, `report` where it may only judge by it); null is as good as absent, other keys are ignored.
The task is named after the file. Worked examples stand in the same form in NAME.fewshot.jsonl beside
NAME.jsonl, those of a subject with that subject.
"""

import re
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.questions import LETTERS, Question, TaskSet
from merge_calib.tasks.benchmark import Draft, group_by_subject, make_questions
from merge_calib.tasks.lines import Values, kind, read_objects, required, text, texts

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def load_own(path: Path) -> TaskSet:
    """All questions of an own file, and its worked examples."""
    name, beside = safe_name(path), path.with_suffix(".fewshot.jsonl")
    questions = _read(name, path)
    examples = group_by_subject(_read(name, beside)) if beside.is_file() else {}
    return TaskSet(name, "plain", tuple(questions), str(path), examples, examples_source=str(beside))


def safe_name(path: Path) -> str:
    """The task's name: the file's without its ending, or the folder's; results are kept in files of that name."""
    name = path.name if path.is_dir() else path.stem
    if not SAFE_NAME.fullmatch(name):
        allowed = "letters, digits, '_', '-' and '.' are allowed, and a letter, a digit or '_' first"
        raise InputError(f"{path}: the task would be named {name!r} after the file; {allowed}")
    return name


def parse(values: Values) -> Draft:
    """One line of an own file."""
    question, choices = text(values, "question"), texts(values, "choices")
    answer = _answer(required(values, "answer"), len(choices))
    if isinstance(values.get("id"), int) and not isinstance(values["id"], bool):
        values = values | {"id": str(values["id"])}
    id, subject, context, split = (optional_text(values, key) for key in ("id", "subject", "context", "split"))
    return Draft(question, choices, answer, id=id, subject=subject or "", context=context, split=split or "")


def letter_index(answer: str, choices: int) -> int:
    """The index of the choice that a letter of either case names."""
    if answer.upper() not in set(LETTERS):
        raise InputError(f"the answer must be a letter, not {kind(answer)}")
    index = LETTERS.index(answer.upper())
    if index >= choices:
        raise InputError(f"answer {answer!r} is outside the {choices} choices")
    return index


def optional_text(values: Values, key: str) -> str | None:
    """A text, or None where the key is absent or null."""
    return None if values.get(key) is None else text(values, key)


def _read(name: str, path: Path) -> list[Question]:
    return make_questions(name, read_objects(path), parse)


def _answer(answer: object, choices: int) -> int:
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer
    if not isinstance(answer, str) or answer.upper() not in set(LETTERS):
        raise InputError(f"'answer' must be a 0-based index or a letter, not {kind(answer)}")
    return letter_index(answer, choices)
