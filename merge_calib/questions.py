"""What is asked: multiple-choice questions, checked when they are made."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from merge_calib.errors import InputError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PromptStyle = Literal["mmlu", "medmcqa", "select", "plain"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question with 2 to 26 options; `answer` is the 0-based index of the right one.

    `context`, where given, is the text that the continuation methods score verbatim before each choice.
    Raises InputError, without a place: the reader that knows FILE:LINE adds it.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str = ""
    context: str | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise InputError("the question's id is empty")
        if len(self.choices) < 2:
            raise InputError(f"a question needs at least 2 choices, this one has {len(self.choices)}")
        if len(self.choices) > len(LETTERS):
            raise InputError(f"at most {len(LETTERS)} choices have a letter, this question has {len(self.choices)}")
        if not 0 <= self.answer < len(self.choices):
            raise InputError(
                f"answer {self.answer} is outside the choices 0..{len(self.choices) - 1} (answers count from 0)"
            )


@dataclass(frozen=True)
class TaskSet:
    """A named set of questions and the prompt style they are asked in.

    Raises InputError for no questions at all and for ids that occur twice.
    """

    name: str
    style: PromptStyle
    questions: tuple[Question, ...]
    source: str = ""

    def __post_init__(self) -> None:
        if not self.questions:
            raise InputError(f"task {self.name}: {self.source or 'its source'} holds no questions")
        twice = [id for id, count in Counter(q.id for q in self.questions).items() if count > 1]
        if twice:
            raise InputError(f"task {self.name}: {len(twice)} question id(s) occur twice, the first is {twice[0]!r}")

    def __len__(self) -> int:
        return len(self.questions)

    def first(self, limit: int | None) -> "TaskSet":
        """The first `limit` questions, all of them for None."""
        return self if limit is None else TaskSet(self.name, self.style, self.questions[:limit], self.source)

    @cached_property
    def sha256(self) -> str:
        """Hash of all that is asked (style, ids, texts, answers), the same from any source."""
        digest = hashlib.sha256(self.style.encode())
        for q in self.questions:
            fields = [q.id, q.question, list(q.choices), q.answer, q.subject, q.context]
            digest.update(json.dumps(fields, ensure_ascii=False).encode())
        return digest.hexdigest()


def content_id(task: str, question: str, choices: Iterable[str], subject: str = "") -> str:
    """`TASK-` and 16 hexadecimal digits of the content: the id of a question whose source gives none."""
    content = json.dumps([subject, question, list(choices)], ensure_ascii=False)
    return f"{task}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
