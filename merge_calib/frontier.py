"""The points worth having, and the one that is recovered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from merge_calib.errors import InputError
from merge_calib.scores import Booleans


@dataclass(frozen=True)
class Candidate:
    """A point: accuracy (higher is better) and calibration error (lower is better), both means over tasks."""

    name: str
    lam: float
    accuracy: float
    error: float


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

    Ties go to the higher accuracy, then to the lambda nearest to 1, then to the smaller lambda. `margin` is a
    share of questions (.005 is half a point). Raises InputError for a negative or non-finite margin.
    """
    if not 0 <= margin <= 1:
        raise InputError(f"--accuracy-margin must lie between 0 and 1, not {margin}")
    aligned = next(c for c in candidates if c.lam == 1.0)
    floor = aligned.accuracy - margin - 1e-12  # so that a loss of exactly the margin is allowed
    eligible = [c for c in candidates if c.lam > 0 and c.accuracy >= floor]
    best = min(eligible, key=lambda c: (c.error, -c.accuracy, abs(c.lam - 1), c.lam))
    tied = tuple(c.name for c in eligible if c.error == best.error and c is not best)
    rule = (
        "lowest mean SCE over tasks among points with lambda > 0 whose mean accuracy is at least the aligned model's "
        f"minus {margin:g}; ties: higher accuracy, then lambda nearest to 1, then smaller lambda"
    )
    return Selection(best.name, best.lam != 1.0, rule, tuple(c.name for c in eligible), tied)
