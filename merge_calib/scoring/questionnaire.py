"""All tasks as one tokenizer writes them, and the batches that put them to a model."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Literal

import numpy as np

from merge_calib.errors import CheckpointError
from merge_calib.questions import PassageSet, Task, TaskSet
from merge_calib.scoring.batches import Batch, Planner
from merge_calib.scoring.encoder import Encoder, Way
from merge_calib.scoring.kept_rows import keep_rows, load_rows
from merge_calib.scoring.prompts import PROMPTS
from merge_calib.scoring.rows import EncodedTask, Row

ConfidenceMethod = Literal[
    "choice", "continuation-sum", "continuation-min", "continuation-mean", "continuation-norm", "next-token"
]
CONFIDENCE_METHODS: tuple[ConfidenceMethod, ...] = (
    *("choice", "continuation-sum", "continuation-min", "continuation-mean", "continuation-norm"),
    "next-token",
)
NEXT_TOKEN: ConfidenceMethod = "next-token"
_WORTH_SHARING = 8  # tokens that a question's two ways of asking must begin with to be read as one tree


def way_of(confidence: ConfidenceMethod) -> Way:
    """How the model is asked for `confidence`; all continuation methods read the same tokens."""
    if confidence == "choice" or confidence == "next-token":
        return confidence
    return "continuation"


def methods_for(task: Task, confidences: Sequence[ConfidenceMethod]) -> tuple[ConfidenceMethod, ...]:
    """Those of `confidences` that apply to `task`; a next-token task has a method of its own."""
    if isinstance(task, PassageSet):
        return (NEXT_TOKEN,)
    return tuple(c for c in confidences if c != NEXT_TOKEN)


@dataclass(frozen=True)
class Sheet:
    """The rows of a task for several ways of asking, one after the other, and which of them are read as one tree."""

    rows: tuple[Row, ...]
    ways: Mapping[Way, slice]
    groups: tuple[tuple[int, ...], ...]
    _planned: dict[tuple[object, int], list[Batch]] = field(default_factory=dict, repr=False)

    def planned(self, plan: Planner, max_tokens: int) -> list[Batch]:
        """All batches that `plan` makes of the rows, made once; only the last plan is kept."""
        if (plan, max_tokens) not in self._planned:
            self._planned.clear()
            self._planned[plan, max_tokens] = list(plan(self.rows, self.groups, max_tokens))
        return self._planned[plan, max_tokens]

    @property
    def tokens(self) -> int:
        """How many tokens the rows have, those that they share counted each time."""
        return sum(len(row.tokens) for row in self.rows)


@dataclass
class Questionnaire:
    """All tasks encoded once by one tokenizer, to be put to every point."""

    encoder: Encoder
    _encoded: dict[tuple[str, Way], EncodedTask] = field(default_factory=dict)
    _sheets: dict[tuple[str, tuple[Way, ...], tuple[int, ...] | None], Sheet] = field(default_factory=dict)

    def encoded(self, task: Task, way: Way) -> EncodedTask:
        """The rows of `task` for one way of asking, from the disk where they were kept."""
        if (task.name, way) not in self._encoded:
            key = self._key(task, way)
            kept = load_rows(key) if key else None
            if kept is None:
                kept = self.encoder.encode(task, way)
                if key:
                    keep_rows(key, kept)
            self._encoded[task.name, way] = kept
        return self._encoded[task.name, way]

    def sheet(
        self, task: Task, confidences: Iterable[ConfidenceMethod], questions: tuple[int, ...] | None = None
    ) -> Sheet:
        """The rows that answer `task`, or its `questions` with these indices alone, by all of `confidences`."""
        ways = tuple(dict.fromkeys(way_of(confidence) for confidence in confidences))
        key = task.name, ways, questions
        if key not in self._sheets:
            # With worked examples each way has a long beginning of its own, which all of its questions share.
            unites = not self.encoder.dress.shots
            rows = {way: _of_questions(self.encoded(task, way).rows, questions) for way in ways}
            self._sheets[key] = _sheet(rows, unites)
        return self._sheets[key]

    def _key(self, task: Task, way: Way) -> str | None:
        """Hash of all that the rows depend on; None where the tokenizer cannot be hashed."""
        tokenizer = self.encoder.fingerprint
        if tokenizer is None:
            return None
        examples = _examples(task) if isinstance(task, TaskSet) and self.encoder.dress.shots else None
        parts = ["rows 1", tokenizer, PROMPTS, task.name, task.sha256, way, examples]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def require_same_ids(aligned: Questionnaire, base: Questionnaire, task: Task, way: Way) -> None:
    """Raise CheckpointError where the parents' tokenizers disagree on any id that `task` uses."""
    pairs = zip(aligned.encoded(task, way).rows, base.encoded(task, way).rows, strict=False)
    for ours, theirs in pairs:
        if not (np.array_equal(ours.tokens, theirs.tokens) and np.array_equal(ours.candidates, theirs.candidates)):
            raise CheckpointError(
                f"the parents' tokenizers disagree: task {task.name}, question {task.ids[ours.question]!r} is "
                f"{_short(theirs)} for the base and {_short(ours)} for the aligned model"
            )


def _of_questions(rows: Sequence[Row], questions: tuple[int, ...] | None) -> Sequence[Row]:
    """The rows of some questions, numbered as if there were no others."""
    if questions is None:
        return rows
    place = {question: i for i, question in enumerate(questions)}
    return [replace(row, question=place[row.question]) for row in rows if row.question in place]


def _sheet(encoded: Mapping[Way, Sequence[Row]], unites: bool) -> Sheet:
    rows: list[Row] = []
    ways: dict[Way, slice] = {}
    by_question: dict[int, list[list[int]]] = {}
    for way, more in encoded.items():
        ways[way] = slice(len(rows), len(rows) + len(more))
        mine: dict[int, list[int]] = {}
        for place, row in enumerate(more, len(rows)):
            mine.setdefault(row.question, []).append(place)
        for question, places in mine.items():
            by_question.setdefault(question, []).append(places)
        rows += more
    groups = [group for parts in by_question.values() for group in (_united(rows, parts) if unites else parts)]
    return Sheet(tuple(rows), ways, tuple(map(tuple, groups)))


def _united(rows: Sequence[Row], parts: Sequence[list[int]]) -> list[list[int]]:
    """The ways of asking one question as one group where they begin alike, else as they are."""
    if len(parts) < 2:
        return list(parts)
    starts = [rows[part[0]].tokens[: _WORTH_SHARING + 1] for part in parts]
    if all(np.array_equal(starts[0], start) for start in starts[1:]):
        return [[place for part in parts for place in part]]
    return list(parts)


def _examples(task: TaskSet) -> list[object]:
    return [[subject, [astuple(q) for q in examples]] for subject, examples in sorted(task.examples.items())]


def _short(row: Row) -> str:
    ids = [int(id) for id in row.tokens]
    return f"{len(ids)} tokens {ids[:6]}..."
