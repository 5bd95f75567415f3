"""The points worth having, and the one that is recovered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from merge_calib.errors import InputError
from merge_calib.scores import Booleans


@dataclass(frozen=True)
class Candidate:
    """A point: accuracy (higher is better) and calibration error (lower is better), both means over tasks.

    lam: 0 is the base; None for a point whose groups of tensors have lambdas of their own
    is_aligned: whether it is the aligned model, which not every method gives at lambda = 1
    """

    name: str
    lam: float | None
    accuracy: float
    error: float
    is_aligned: bool


@dataclass(frozen=True)
class Selection:
    """The selected point and why; `recovers` is False where the rule selects the aligned model itself."""

    point: str
    recovers: bool
    rule: str
    eligible: tuple[str, ...]
    tied: tuple[str, ...]


def non_dominated(candidates: Sequence[Candidate]) -> Booleans:
    """True (L,) for each point that no other beats: none at least as good on both and better on one.

    Points that are equal on both measures are all on the frontier.
    """
    accuracy = np.array([c.accuracy for c in candidates])
    error = np.array([c.error for c in candidates])
    as_good = (accuracy[:, None] >= accuracy) & (error[:, None] <= error)
    better = (accuracy[:, None] > accuracy) | (error[:, None] < error)
    kept: Booleans = np.logical_not(np.any(as_good & better, axis=0))
    return kept


def select(candidates: Sequence[Candidate], margin: float = 0.005) -> Selection:
    """The lowest calibration error among points with lambda > 0 that keep the aligned model's accuracy to `margin`.

    Points of several lambdas take part as they are. Ties go to the higher accuracy, then to a point of one lambda,
    the lambda nearest to 1, the smaller lambda, the aligned model, the name. `margin` is a share of questions (.005
    is half a point). Raises InputError for a negative or non-finite margin.
    """
    if not 0 <= margin <= 1:
        raise InputError(f"--accuracy-margin must lie between 0 and 1, not {margin}")
    aligned = next(c for c in candidates if c.is_aligned)
    floor = aligned.accuracy - margin - 1e-12  # so that a loss of exactly the margin is allowed
    eligible = [c for c in candidates if (c.lam is None or c.lam > 0) and c.accuracy >= floor]
    best = min(eligible, key=_preference)
    tied = tuple(c.name for c in eligible if c.error == best.error and c is not best)
    return Selection(best.name, not best.is_aligned, _rule(candidates, margin), tuple(c.name for c in eligible), tied)


def _preference(candidate: Candidate) -> tuple[float, float, bool, float, float, bool, str]:
    """The smallest is selected."""
    has_several, lam = candidate.lam is None, candidate.lam or 0.0
    place = (0.0, 0.0) if has_several else (abs(lam - 1), lam)
    return candidate.error, -candidate.accuracy, has_several, *place, not candidate.is_aligned, candidate.name


def _rule(candidates: Sequence[Candidate], margin: float) -> str:
    """The rule in words; what only some runs need is said in those."""
    has_several = any(c.lam is None for c in candidates)
    has_equals = len({c.lam for c in candidates}) < len(candidates)
    one_first = ", then one lambda before lambda by groups" if has_several else ""
    last = ", then the aligned model, then name" if has_equals else ""
    return (
        f"lowest mean SCE over tasks among points with lambda > 0{' or by groups' if has_several else ''} whose mean "
        f"accuracy is at least the aligned model's minus {margin:g}; ties: higher accuracy{one_first}, then lambda "
        f"nearest to 1, then smaller lambda{last}"
    )
