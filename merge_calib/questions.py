"""What is asked: multiple-choice questions and texts to go on with, checked when they are made."""

import hashlib
import json
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeAlias, TypeVar

from merge_calib.errors import InputError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PROMPT_FIELDS = ("question", "options", "subject")
SPLITS = ("", "select", "report")
PromptStyle = Literal["mmlu", "medmcqa", "select", "plain", "custom"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question with 2 to 26 options; `answer` is the 0-based index of the right one.

    `context`, where given, is the text that the continuation methods score verbatim before each choice. `split` says
    where the source itself divides its questions: `select`, for all that is tuned, or `report`, for what is claimed.
    Raises InputError, without a place: the reader that knows FILE:LINE adds it.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str = ""
    context: str | None = None
    split: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            raise InputError("the question's id is empty")
        if self.split not in SPLITS:
            raise InputError(f"the split must be 'select' or 'report', or absent, not {self.split!r}")
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

    `examples` are worked examples by subject ("" where they belong to none) in the fixed order in which few-shot
    prompts show them; `examples_source` says where they are read from. `prompt` is the letter prompt of the style
    "custom", a template with {question}, {options} and {subject} that `str.format` fills in.
    Raises InputError for no questions at all, for ids that occur twice and for a prompt that cannot be filled in.
    """

    name: str
    style: PromptStyle
    questions: tuple[Question, ...]
    source: str = ""
    examples: Mapping[str, tuple[Question, ...]] = field(default_factory=dict, hash=False, repr=False)
    prompt: str = ""
    examples_source: str = ""

    def __post_init__(self) -> None:
        _check_items(self.name, self.source, self.questions, "question")
        if (self.style == "custom") != bool(self.prompt):
            raise InputError(f"task {self.name}: the style 'custom' has a prompt, and no other style has one")
        if self.prompt:
            check_prompt(self.prompt)

    def __len__(self) -> int:
        return len(self.questions)

    def limited(self, limit: int | None, seed: int | None = None) -> "TaskSet":
        """The first `limit` questions, or with a seed a sample of that many; all of them for None.

        Where the source divides its questions, so many that select and so many others. A sample keeps the questions'
        order; which are in it depends on the seed and the ids alone.
        """
        sides = [tuple(q for q in self.questions if (q.split == "select") == selects) for selects in (True, False)]
        kept = {q.id for side in sides for q in _limited(side, limit, seed)}
        return replace(self, questions=tuple(q for q in self.questions if q.id in kept))

    def taking(self, rows: Sequence[int]) -> "TaskSet":
        """Only the questions with these indices, in their order."""
        return replace(self, questions=tuple(self.questions[i] for i in rows))

    @property
    def ids(self) -> tuple[str, ...]:
        """The questions' ids, in order."""
        return tuple(q.id for q in self.questions)

    def shots(self, q: Question, count: int) -> tuple[Question, ...]:
        """The first `count` worked examples of q's subject, of "" where its subject has none.

        Raises InputError where there are fewer, and where one of them is the question itself.
        """
        given = (self.examples.get(q.subject) or self.examples.get("", ())) if count else ()
        if len(given) < count:
            of = f" of the subject {q.subject!r}" if q.subject else ""
            where = f"; they are read from {self.examples_source}" if self.examples_source else ""
            raise InputError(f"task {self.name}: {count} worked examples{of} are needed, {len(given)} are there{where}")
        for example in given[:count]:
            if (example.question, example.choices) == (q.question, q.choices):
                raise InputError(f"task {self.name}: question {q.id!r} is itself the worked example {example.id!r}")
        return given[:count]

    @cached_property
    def sha256(self) -> str:
        """Hash of all that is asked (style, ids, texts, answers, a prompt of its own), the same from any source."""
        digest = hashlib.sha256(self.style.encode())
        if self.prompt:
            _update(digest, [self.prompt])
        is_split = any(q.split for q in self.questions)  # hashes of tasks without splits stay what they were
        for q in self.questions:
            split = [q.split] if is_split else []
            _update(digest, [q.id, q.question, list(q.choices), q.answer, q.subject, q.context, *split])
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Passage:
    """A text of which one token is predicted; exactly one of `at` and `answer` says which.

    `at` in [0, 1) is a place in `text`: of its n tokens the one with the index 1 + floor(at * (n - 1)) is predicted.
    `answer` is the text that follows after `text` and one blank; its first token is predicted.
    Raises InputError, without a place.
    """

    id: str
    text: str
    at: float | None = None
    answer: str | None = None
    subject: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            raise InputError("the text's id is empty")
        if not self.text.strip():
            raise InputError("the text is empty")
        if (self.at is None) == (self.answer is None):
            raise InputError("a text needs either a place in it or an answer to it")
        if self.at is not None and not 0 <= self.at < 1:
            raise InputError(f"the place {self.at} in a text must be at least 0 and below 1")
        if self.answer is not None and (not self.answer or self.answer[0].isspace() or self.text[-1].isspace()):
            raise InputError("the answer is empty, or there are blanks around its beginning: one blank is put there")


@dataclass(frozen=True)
class PassageSet:
    """A named set of texts to go on with.

    Raises InputError for no texts at all and for ids that occur twice.
    """

    name: str
    passages: tuple[Passage, ...]
    source: str = ""

    def __post_init__(self) -> None:
        _check_items(self.name, self.source, self.passages, "text")

    def __len__(self) -> int:
        return len(self.passages)

    def limited(self, limit: int | None, seed: int | None = None) -> "PassageSet":
        """The first `limit` texts, or with a seed a sample of that many; all of them for None."""
        return replace(self, passages=_limited(self.passages, limit, seed))

    @property
    def ids(self) -> tuple[str, ...]:
        """The texts' ids, in order."""
        return tuple(p.id for p in self.passages)

    @cached_property
    def sha256(self) -> str:
        """Hash of all that is asked (ids, texts, places, answers), the same from any source."""
        digest = hashlib.sha256(b"passages")
        for p in self.passages:
            _update(digest, [p.id, p.text, p.at, p.answer, p.subject])
        return digest.hexdigest()


Task: TypeAlias = TaskSet | PassageSet
Item = TypeVar("Item", Question, Passage)


def content_id(task: str, question: str, choices: Iterable[str], subject: str = "") -> str:
    """`TASK-` and 16 hexadecimal digits of the content: the id of a question whose source gives none."""
    content = json.dumps([subject, question, list(choices)], ensure_ascii=False)
    return f"{task}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """A template as (text, field after it or None): `{name}` is a field, `{{` and `}}` are braces.

    Names are taken as they stand; what else Python's format strings can do is refused with InputError.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"{template!r}: {error}; a brace that is text is written twice") from error
    for _, name, form, conversion in parts:
        if name is not None and (not name.strip() or form or conversion):
            raise InputError(f"{template!r}: between braces only the name of a field may stand")
    return [(text, name) for text, name, _, _ in parts]


def template_fields(template: str) -> list[str]:
    """The names of the fields of a template."""
    return [name for _, name in parse_template(template) if name is not None]


def check_prompt(template: str) -> None:
    """Raise InputError for a letter prompt with unknown fields, or without the question or its options."""
    names = template_fields(template)
    allowed = ", ".join(f"{{{name}}}" for name in PROMPT_FIELDS)
    for name in names:
        if name not in PROMPT_FIELDS:
            raise InputError(f"the prompt has a field {{{name}}}; there are {allowed}")
    for name in ("question", "options"):
        if name not in names:
            raise InputError(f"the prompt lacks {{{name}}}")


def _check_items(task: str, source: str, items: Sequence[Question | Passage], kind: str) -> None:
    if not items:
        raise InputError(f"task {task}: {source or 'its source'} holds no {kind}s")
    twice = [id for id, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise InputError(f"task {task}: {len(twice)} {kind} id(s) occur twice, the first is {twice[0]!r}")


def _limited(items: tuple[Item, ...], limit: int | None, seed: int | None) -> tuple[Item, ...]:
    if limit is None or seed is None:
        return items[:limit]
    ranked = sorted(items, key=lambda item: hashlib.sha256(f"{seed} {item.id}".encode()).digest())
    chosen = {item.id for item in ranked[:limit]}
    return tuple(item for item in items if item.id in chosen)


def _update(digest: "hashlib._Hash", fields: list[object]) -> None:
    digest.update(json.dumps(fields, ensure_ascii=False).encode())
