"""The log-probabilities that every metric reads, and the predictions made from them."""

import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merge_calib.errors import RunDirectoryError, ScoringError
from merge_calib.files import written_whole

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Predictions:
    """A probability for every option of every question.

    log_probabilities (N, C): normalised over a question's valid options, -inf where the mask is False
    probabilities (N, C): their exponentials, 0 where the mask is False
    answers (N,): 0-based index of the right option
    mask (N, C): True where the option exists
    """

    log_probabilities: Floats
    probabilities: Floats
    answers: Integers
    mask: Booleans

    @classmethod
    def from_probabilities(
        cls, probabilities: Floats, answers: Integers, mask: Booleans | None = None
    ) -> "Predictions":
        """Take probabilities (N, C) as they are; rows must sum to 1 to 1e-6 and nothing lies outside the mask."""
        mask = np.ones(probabilities.shape, dtype=bool) if mask is None else mask
        if not (np.isfinite(probabilities).all() and (probabilities >= 0).all()):
            raise ScoringError("probabilities must be finite and not negative")
        if np.abs(probabilities.sum(1) - 1).max() > 1e-6 or probabilities[~mask].any():
            raise ScoringError("each row of probabilities must sum to 1 over its valid options")
        with np.errstate(divide="ignore"):
            return cls(np.log(probabilities), probabilities, np.asarray(answers), mask)

    @cached_property
    def predicted(self) -> Integers:
        """Index of the most probable option (N,), the first on exact ties."""
        return np.asarray(self.log_probabilities.argmax(1), dtype=np.int64)

    @cached_property
    def confidence(self) -> Floats:
        """Probability of the predicted option (N,)."""
        return np.asarray(self.probabilities.max(1), dtype=np.float64)

    @cached_property
    def hit(self) -> Booleans:
        """Whether the predicted option is the right one (N,)."""
        return np.equal(self.predicted, self.answers)

    @cached_property
    def ties(self) -> int:
        """Number of questions whose top probability is shared by several options exactly."""
        top = self.log_probabilities.max(1, keepdims=True)
        return int(((self.log_probabilities == top).sum(1) > 1).sum())


@dataclass(frozen=True)
class ChoiceScores:
    """What one point said to one task by one confidence method.

    ids (N,): question ids
    answers (N,): 0-based index of the right option
    logprobs (N, C): float64 log-probability of every option before normalisation, NaN outside the mask
    mask (N, C): True where the option exists

    Raises ScoringError, naming the question, where a valid option has no finite score.
    """

    ids: tuple[str, ...]
    answers: Integers
    logprobs: Floats
    mask: Booleans

    def __post_init__(self) -> None:
        n = len(self.ids)
        assert self.logprobs.shape == self.mask.shape == (n, self.mask.shape[1])
        assert self.answers.shape == (n,)
        assert self.mask[np.arange(n), self.answers].all()
        assert np.isnan(self.logprobs[~self.mask]).all()
        wrong = ~np.isfinite(self.logprobs) & self.mask
        if wrong.any():
            first = int(wrong.any(1).argmax())
            raise ScoringError(
                f"{int(wrong.any(1).sum())} question(s) have a non-finite score, the first is {self.ids[first]!r}"
            )

    @cached_property
    def predictions(self) -> Predictions:
        """Softmax over each question's valid options."""
        scores = np.where(self.mask, self.logprobs, -np.inf)
        shifted = scores - scores.max(1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return Predictions(log_probabilities, np.exp(log_probabilities), self.answers, self.mask)

    def save(self, path: Path) -> None:
        """Write one .npz with ids, answers, logprobs and mask; the same scores give the same bytes."""
        fields: dict[str, Any] = {
            "ids": np.array(self.ids, dtype=np.str_),
            "answers": self.answers,
            "logprobs": self.logprobs,
            "mask": self.mask,
        }
        with written_whole(path) as partial, partial.open("wb") as file:
            np.savez(file, **fields)

    @classmethod
    def load(cls, path: Path) -> "ChoiceScores":
        """Read what `save` wrote; raises RunDirectoryError naming the file where it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as fields:
                ids = tuple(str(id) for id in fields["ids"])
                return cls(ids, fields["answers"], fields["logprobs"], fields["mask"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AssertionError) as error:
            raise RunDirectoryError(
                f"{path} is not a complete scores file ({error}); delete it and start again"
            ) from error
