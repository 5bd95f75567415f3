"""Token rows: what is fed to a model for a task, and what is read off it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from merge_calib.scores import Integers


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
    encoded_apart: choices whose tokens do not continue the context's; truncated: rows that lost tokens from the left
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
