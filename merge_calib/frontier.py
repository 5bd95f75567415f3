"""The points worth having: which no other beats, how surely, and how much they dominate together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from merge_calib.scores import Booleans, Floats

REFERENCE = (0.0, 1.0)  # accuracy and error that every point is better than: hypervolumes of all runs are comparable


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


def non_dominated(candidates: Sequence[Candidate]) -> Booleans:
    """True (L,) for each point that no other beats: none at least as good on both and better on one.

    Points that are equal on both measures are all on the frontier.
    """
    accuracy = np.array([c.accuracy for c in candidates])
    error = np.array([c.error for c in candidates])
    return np.asarray(_kept(accuracy[None], error[None])[0], dtype=np.bool_)


def undominated(losses: Floats) -> Booleans:
    """True (L,) for each row of `losses` (L, K), lower is better, that no other beats: as good on all, better once."""
    as_good = (losses[:, None] <= losses[None]).all(2)
    better = (losses[:, None] < losses[None]).any(2)
    return np.asarray(~(as_good & better).any(0), dtype=np.bool_)


def non_dominated_share(accuracy: Floats, error: Floats) -> Floats:
    """The share of draws (B, L) in which each point (L,) is on the frontier."""
    return np.asarray(_kept(accuracy, error).mean(0), dtype=np.float64)


def dominating_share(accuracy: Floats, error: Floats, other: int) -> Floats:
    """The share of draws (B, L) in which each point (L,) is better than the point at `other` on both."""
    both = (accuracy > accuracy[:, [other]]) & (error < error[:, [other]])
    return np.asarray(both.mean(0), dtype=np.float64)


def attainment(accuracy: Floats, error: Floats, levels: Floats, quantiles: Sequence[float]) -> Floats:
    """The accuracy (Q, E) that the frontier attains at an error of at most each of `levels` (E,), by quantile of draws.

    A draw (of (B, L)) attains at a level the highest accuracy of its points whose error is no higher; -inf where it
    has none. Source: Fonseca & Fleming 1996, the empirical attainment function.
    """
    attained = np.full((len(accuracy), len(levels)), -np.inf)
    for e, level in enumerate(levels):
        attained[:, e] = np.where(error <= level, accuracy, -np.inf).max(1)
    return np.asarray(np.quantile(attained, quantiles, axis=0, method="lower"), dtype=np.float64)


def hypervolume(accuracy: Floats, error: Floats, reference: tuple[float, float] = REFERENCE) -> Floats:
    """The area (B,) that the points (B, L) dominate together, up to the accuracy and error of `reference`.

    Source: Zitzler & Thiele 1999. Points that are no better than the reference add nothing.
    """
    floor, ceiling = reference
    order = np.argsort(error, axis=1, kind="stable")
    errors = np.minimum(np.take_along_axis(error, order, axis=1), ceiling)
    best = np.maximum.accumulate(np.take_along_axis(accuracy, order, axis=1), axis=1)
    widths = np.diff(errors, axis=1, append=np.full((len(errors), 1), ceiling))
    return np.asarray((np.maximum(best - floor, 0.0) * widths).sum(1), dtype=np.float64)


def _kept(accuracy: Floats, error: Floats) -> Booleans:
    """True (B, L) where no other point of the same draw is as good on both and better on one."""
    kept = np.ones(accuracy.shape, dtype=bool)
    for other in range(accuracy.shape[1]):
        theirs = accuracy[:, [other]], error[:, [other]]
        as_good = (theirs[0] >= accuracy) & (theirs[1] <= error)
        better = (theirs[0] > accuracy) | (theirs[1] < error)
        kept &= ~(as_good & better)
    return kept
