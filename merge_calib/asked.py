"""What was asked, kept beside the scores: `questions/TASK.jsonl` of a run directory, a line a question in order.

A line of a question is {"id", "subject", "split", "question", "choices", "answer"}, of a text to go on with {"id",
"subject", "text"}; of questions that were read from scores alone {"id"} and, where there is one, {"id", "answer"}.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_calib.errors import InputError, RunDirectoryError
from merge_calib.files import write_text
from merge_calib.questions import SPLITS, Passage, Question, Task, TaskSet
from merge_calib.scores import ChoiceScores, Scores
from merge_calib.tasks.lines import Values, kind, located, read_objects, text


@dataclass(frozen=True)
class Asked:
    """The questions of a task in the order of its scores.

    ids (N,): question ids, no two alike
    subjects (N,): "" where a question has none
    splits (N,): `select`, `report`, or "" where the source does not divide them
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    splits: tuple[str, ...]


def write_asked(path: Path, task: Task) -> None:
    """Write the questions or texts of `task` to `path`; the same task gives the same bytes."""
    _write(path, _text(_lines(task)))


def asked_hash(task: Task) -> str:
    """SHA-256 of what `write_asked` writes."""
    return hashlib.sha256(_text(_lines(task)).encode()).hexdigest()


def write_ids(path: Path, scores: Scores) -> None:
    """Write what scores alone tell of their questions, unless more is known already: a file that is there stays."""
    if path.exists():
        return
    if isinstance(scores, ChoiceScores):
        answers = scores.answers.tolist()
        _write(path, _text({"id": id, "answer": answer} for id, answer in zip(scores.ids, answers, strict=True)))
    else:
        _write(path, _text({"id": id} for id in scores.ids))


def read_asked(path: Path, count: int | None = None, sha256: str | None = None) -> Asked | None:
    """What `write_asked` or `write_ids` wrote, None where there is no such file.

    count, sha256: how many questions there must be and the hash of the file, where they are known
    Raises RunDirectoryError naming file and line where the file is damaged.
    """
    if not path.exists():
        return None
    try:
        found = _read(path, count)
        if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise InputError(f"{path}: its hash is another than that of the questions asked")
        return found
    except InputError as error:
        raise RunDirectoryError(
            f"{error}. The file is damaged: delete it and give the command that made the run again to have it written "
            "anew"
        ) from error


def _line(item: Question | Passage) -> dict[str, Any]:
    if isinstance(item, Passage):
        return {"id": item.id, "subject": item.subject, "text": item.text}
    return {
        "id": item.id,
        "subject": item.subject,
        "split": item.split,
        "question": item.question,
        "choices": list(item.choices),
        "answer": item.answer,
    }


def _lines(task: Task) -> Iterable[Mapping[str, Any]]:
    items = task.questions if isinstance(task, TaskSet) else task.passages
    return map(_line, items)


def _text(lines: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _write(path: Path, content: str) -> None:
    if not path.exists() or path.read_bytes() != content.encode():
        write_text(path, content)


def _read(path: Path, count: int | None) -> Asked:
    rows: dict[str, tuple[str, str]] = {}
    place = f"{path}:1"
    for place, values in read_objects(path):
        with located(place):
            id = text(values, "id")
            if id in rows:
                raise InputError(f"id {id!r} stands in it twice")
            rows[id] = _text_or_empty(values, "subject"), _one_of(values, "split", SPLITS)
    if count is not None and len(rows) != count:
        raise InputError(f"{place}: the file ends here with {len(rows)} question(s), the run asked {count}")
    return Asked(tuple(rows), *_columns(list(rows.values())))


def _columns(rows: Sequence[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(subject for subject, _ in rows), tuple(split for _, split in rows)


def _text_or_empty(values: Values, key: str) -> str:
    return text(values, key) if key in values else ""


def _one_of(values: Values, key: str, allowed: Sequence[str]) -> str:
    value = _text_or_empty(values, key)
    if value not in allowed:
        raise InputError(f"{key!r} must be one of {', '.join(map(repr, allowed))}, not {kind(value)}")
    return value
