"""Token rows: what is fed to the model for a task, and what is read off it. Nothing here depends on weights."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from merge_calib.errors import ScoringError
from merge_calib.questions import LETTERS, TaskSet
from merge_calib.scores import Integers
from merge_calib.scoring.prompts import choice_prompt, continuation, continuation_context

_PROBE = "Question: Which one? Answer:"


@dataclass(frozen=True)
class Row:
    """One sequence and its scored positions.

    tokens (T,): input ids
    first: index of the first scored position; the P scored positions follow each other to the end of the row
    candidates (P, K): ids whose log-probability is read at each scored position
    question, choice: where the row belongs; choice is -1 where one row serves all choices
    """

    tokens: Integers
    first: int
    candidates: Integers
    question: int
    choice: int


@dataclass(frozen=True)
class EncodedTask:
    """A task's rows for one way of asking, with what had to be done to the text.

    The rows of a question's choice follow each other; there are several only where a choice is scored in windows.
    encoded_apart: choices whose tokens do not continue the context's; truncated: prompts that lost tokens from the left
    letters: how the first letter is written, ` A` or `A`, where the rows ask for letters
    """

    rows: tuple[Row, ...]
    encoded_apart: int
    truncated: int
    letters: str | None = None

    @cached_property
    def sha256(self) -> str:
        """Hash of all that the model is fed and asked: text, tokenizer, BOS and truncation together."""
        digest = hashlib.sha256()
        for row in self.rows:
            place = np.array([row.question, row.choice, row.first, len(row.tokens), *row.candidates.shape])
            for part in (place, row.tokens, row.candidates):
                digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
        return digest.hexdigest()

    @property
    def largest_id(self) -> int:
        """The largest token id that occurs."""
        return max(int(max(row.tokens.max(), row.candidates.max())) for row in self.rows)


class Encoder:
    """Turns text into ids, with the tokenizer's own default BOS and nothing after the text.

    `max_length` is the most tokens that a row may have; longer ones lose tokens from the left, as lm-eval does it.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self.max_length = max_length
        bare, dressed = self._ids([_PROBE])[0], tokenizer(_PROBE, add_special_tokens=True)["input_ids"]
        starts = [i for i in range(len(dressed) - len(bare) + 1) if dressed[i : i + len(bare)] == bare]
        if not bare or not starts:
            raise ScoringError(f"the tokenizer does not say what it puts before a text: {_PROBE!r} gives {dressed}")
        self.bos: list[int] = list(dressed[: starts[0]])

    def is_like(self, other: "Encoder") -> bool:
        """Whether both are the same tokenizer to the last byte; False says nothing."""
        ours, theirs = (getattr(e._tokenizer, "backend_tokenizer", None) for e in (self, other))
        return ours is not None and theirs is not None and ours.to_str() == theirs.to_str() and self.bos == other.bos

    def choice(self, task: TaskSet) -> EncodedTask:
        """One row a question; at its last position every letter is a candidate."""
        prompts = [choice_prompt(task, q) for q in task.questions]
        form, letters = self._letters(task, prompts[0])
        rows, truncated = [], 0
        for index, ids in enumerate(self._ids(prompts)):
            tokens, cut = self._cut(self.bos + ids)
            truncated += cut
            candidates = letters[: len(task.questions[index].choices)]
            rows.append(Row(_array(tokens), len(tokens) - 1, _array([candidates]), index, -1))
        return EncodedTask(tuple(rows), 0, truncated, form)

    def continuations(self, task: TaskSet) -> EncodedTask:
        """One row a choice; at each of its last positions the next token of the choice is the only candidate.

        Context and choice are encoded together and cut at the context's length; where the joint ids do not begin with
        the context's, the two are encoded apart and counted. A choice that is longer than the model takes is scored
        in windows.
        """
        contexts = [continuation_context(q) for q in task.questions]
        places = [(i, k) for i, q in enumerate(task.questions) for k in range(len(q.choices))]
        texts = [continuation(task.questions[i].choices[k]) for i, k in places]
        context_ids = self._ids(contexts)
        joint_ids = self._ids([contexts[i] + text for (i, _), text in zip(places, texts, strict=True)])
        rows: list[Row] = []
        apart, truncated = 0, 0
        for (i, k), text, joint in zip(places, texts, joint_ids, strict=True):
            context = context_ids[i]
            if joint[: len(context)] != context:
                joint = context + self._ids([text])[0]
                apart += 1
            where = f"task {task.name}, question {task.questions[i].id!r}, choice {k}"
            rows += self._continuation_rows(where, (i, k), context, joint)
            truncated += len(self.bos) + len(joint) - 1 > self.max_length
        return EncodedTask(tuple(rows), apart, truncated)

    def _continuation_rows(
        self, where: str, place: tuple[int, int], context: list[int], joint: list[int]
    ) -> Iterator[Row]:
        """One row; for a choice longer than the model takes, several windows that score each of its tokens once."""
        if not self.bos and not context:
            raise ScoringError(f"{where}: the context is empty and the tokenizer has no BOS token to begin with")
        if len(joint) == len(context):
            raise ScoringError(f"{where}: the choice has no tokens to score")
        ids, start = self.bos + joint, len(self.bos) + len(context)
        step = self.max_length if len(ids) - start <= self.max_length else max(1, self.max_length // 2)
        for begin in range(start, len(ids), step):
            end = min(begin + step, len(ids))
            tokens, _ = self._cut(ids[: end - 1])
            targets = ids[begin:end]
            yield Row(_array(tokens), len(tokens) - len(targets), _array(targets)[:, None], *place)

    def _letters(self, task: TaskSet, prompt: str) -> tuple[str, list[int]]:
        count = max(len(q.choices) for q in task.questions)
        start = self._ids([prompt])[0]
        for space in (" ", ""):
            joint = self._ids([prompt + space + letter for letter in LETTERS[:count]])
            single = [len(ids) == len(start) + 1 and ids[:-1] == start for ids in joint]
            if all(single):
                return f"{space}A", [ids[-1] for ids in joint]
        lost = LETTERS[single.index(False)]
        raise ScoringError(
            f"task {task.name}: the tokenizer has no single token for the letter {lost!r} after the prompt"
        )

    def _cut(self, tokens: list[int]) -> tuple[list[int], bool]:
        return tokens[-self.max_length :], len(tokens) > self.max_length

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False)[
            "input_ids"
        ]
        return ids


def batches(rows: Sequence[Row], max_tokens: int, max_scored: int) -> Iterator[list[int]]:
    """Indices of rows, from long to short, in groups of at most `max_tokens` padded tokens and `max_scored` positions.

    A row that is larger than a limit by itself makes a batch of its own.
    """
    batch: list[int] = []
    scored = 0
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens)):
        width = len(rows[batch[0]].tokens) if batch else 0
        if batch and (width * (len(batch) + 1) > max_tokens or scored + len(rows[i].candidates) > max_scored):
            yield batch
            batch, scored = [], 0
        batch.append(i)
        scored += len(rows[i].candidates)
    if batch:
        yield batch


def _array(values: Any) -> Integers:
    return np.asarray(values, dtype=np.int64)
