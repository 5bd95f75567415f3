"""The log-probabilities that every metric reads, and the predictions made from them."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
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
    def log_truth(self) -> Floats:
        """Log-probability of the right option (N,)."""
        return np.asarray(self.log_probabilities[np.arange(len(self.answers)), self.answers], dtype=np.float64)

    def take(self, rows: Booleans | Integers) -> "Predictions":
        """Those of some questions: a mask (N,) or indices."""
        return Predictions(self.log_probabilities[rows], self.probabilities[rows], self.answers[rows], self.mask[rows])

    @cached_property
    def ties(self) -> int:
        """Number of questions whose top probability is shared by several options exactly."""
        top = self.log_probabilities.max(1, keepdims=True)
        return int(((self.log_probabilities == top).sum(1) > 1).sum())


def together(predictions: Sequence[Predictions]) -> Predictions:
    """The questions of several sets one after the other; options that a set does not have are masked there."""
    options = max(p.mask.shape[1] for p in predictions)
    return Predictions(
        _stacked([p.log_probabilities for p in predictions], options, -np.inf),
        _stacked([p.probabilities for p in predictions], options, 0.0),
        np.concatenate([p.answers for p in predictions]),
        _stacked([p.mask for p in predictions], options, False),
    )


def _stacked(arrays: Sequence[NDArray[Any]], options: int, fill: float) -> NDArray[Any]:
    """Arrays (N, C) one after the other, with `fill` up to so many options."""
    return np.concatenate([np.pad(a, ((0, 0), (0, options - a.shape[1])), constant_values=fill) for a in arrays])


@dataclass(frozen=True)
class TopPredictions:
    """What next-token tasks tell of a prediction: the most probable token, without the others.

    confidence (N,): its probability; hit (N,): whether it is the right one
    log_truth (N,): log-probability of the right token
    """

    confidence: Floats
    hit: Booleans
    log_truth: Floats
    ties: None = None  # not counted

    def take(self, rows: Booleans | Integers) -> "TopPredictions":
        """Those of some passages: a mask (N,) or indices."""
        return TopPredictions(self.confidence[rows], self.hit[rows], self.log_truth[rows])


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
        _require_finite(self.ids, np.where(self.mask, self.logprobs, 0.0))

    @cached_property
    def predictions(self) -> Predictions:
        """Softmax over each question's valid options."""
        scores = np.where(self.mask, self.logprobs, -np.inf)
        shifted = scores - scores.max(1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return Predictions(log_probabilities, np.exp(log_probabilities), self.answers, self.mask)

    def take(self, rows: Booleans) -> "ChoiceScores":
        """Those of some questions: a mask (N,)."""
        ids = tuple(id for id, row in zip(self.ids, rows, strict=True) if row)
        return ChoiceScores(ids, self.answers[rows], self.logprobs[rows], self.mask[rows])

    @property
    def is_normalised(self) -> bool:
        """Whether the scores are log-probabilities of one distribution: no question's options exceed a total of 1.

        Bare logits, as some files hold them, are not; what they say about the mass of the letters is unknown.
        """
        return bool((self.option_mass <= 1 + 1e-3).all())

    @cached_property
    def option_mass(self) -> Floats:
        """Total probability of a question's options before normalisation (N,): for letters, under all tokens."""
        return np.asarray(np.exp(np.where(self.mask, self.logprobs, -np.inf)).sum(1), dtype=np.float64)

    def save(self, path: Path) -> None:
        """Write one .npz with ids, answers, logprobs and mask; the same scores give the same bytes."""
        _save(path, self)


def in_order(parts: Sequence[ChoiceScores], ids: Sequence[str]) -> ChoiceScores:
    """The questions `ids` from parts that hold each of them once, in the order of `ids`."""
    options = max(part.mask.shape[1] for part in parts)
    place = {id: i for i, id in enumerate(id for part in parts for id in part.ids)}
    rows = np.array([place[id] for id in ids])
    return ChoiceScores(
        tuple(ids),
        np.concatenate([part.answers for part in parts])[rows],
        _stacked([part.logprobs for part in parts], options, np.nan)[rows],
        _stacked([part.mask for part in parts], options, False)[rows],
    )


@dataclass(frozen=True)
class NextTokenScores:
    """What one point said to a next-token task.

    ids (N,): passage ids; targets (N,), predicted (N,): token ids, the right one and the most probable one
    target_logprobs (N,), predicted_logprobs (N,): float64, over the whole vocabulary

    Raises ScoringError, naming the passage, where a log-probability is not finite.
    """

    ids: tuple[str, ...]
    targets: Integers
    predicted: Integers
    target_logprobs: Floats
    predicted_logprobs: Floats

    def __post_init__(self) -> None:
        _require_finite(self.ids, np.stack([self.target_logprobs, self.predicted_logprobs], axis=1))

    @cached_property
    def predictions(self) -> TopPredictions:
        """The most probable token of each passage; a tie with the target counts for the token with the smaller id."""
        return TopPredictions(np.exp(self.predicted_logprobs), self.predicted == self.targets, self.target_logprobs)

    def save(self, path: Path) -> None:
        """Write one .npz with all fields; the same scores give the same bytes."""
        _save(path, self)


Scores = ChoiceScores | NextTokenScores


def load_scores(path: Path) -> Scores:
    """Read what `save` wrote; raises RunDirectoryError naming the file where it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as fields:
            ids = tuple(str(id) for id in fields["ids"])
            if "targets" in fields:
                values = [fields[f.name] for f in dataclass_fields(NextTokenScores)[1:]]
                return NextTokenScores(ids, *values)
            return ChoiceScores(ids, fields["answers"], fields["logprobs"], fields["mask"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AssertionError) as error:
        raise RunDirectoryError(f"{path} is not a complete scores file ({error}); delete it and start again") from error


def _save(path: Path, scores: Scores) -> None:
    fields: dict[str, Any] = {f.name: getattr(scores, f.name) for f in dataclass_fields(scores)}
    fields["ids"] = np.array(scores.ids, dtype=np.str_)
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **fields)


def _require_finite(ids: tuple[str, ...], values: Floats) -> None:
    """Raise ScoringError where a row (N, C) of `values` is not finite."""
    wrong = ~np.isfinite(values).all(1)
    if wrong.any():
        first = ids[int(wrong.argmax())]
        raise ScoringError(f"{int(wrong.sum())} question(s) have a non-finite score, the first is {first!r}")
