"""Squared calibration error without the bias that finite samples give the plug-in measures."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from merge_calib.calibration.metrics import AnyPredictions, bin_index
from merge_calib.errors import ScoringError
from merge_calib.scores import Booleans, Floats, Predictions


@dataclass(frozen=True)
class Squared:
    """A squared calibration error, in squared probability.

    value: unclipped, so it may be negative; its mean is 0 for a calibrated model
    dropped: how many bins held a single item, of which no pair can be made; they add 0 to the value
    """

    value: float
    dropped: int


def ece2(p: AnyPredictions, bins: int = 10) -> Squared:
    """Debiased squared L2 calibration error of the top option, sum_b (n_b/N) [(sum d)^2 - sum d^2] / (n_b (n_b - 1)).

    d_i = hit_i - conf_i, so that the bracket is the sum of d_i d_j over the ordered pairs i != j of a bin: the mean of
    these is unbiased for (mean of d in the bin)^2, where the square of the sample's mean is too large by var(d) / n_b.
    Bins are those of `metrics.ece`. Half the error is a quarter of this value.
    Raises ScoringError where no two questions share a bin.
    Source: Kumar, Liang & Ma 2019, and Bröcker 2012 and Ferro & Fricker 2012 before them (all for one
    probability a bin; the same where all items of a bin have the same one).
    """
    return _debiased([(p.confidence, p.hit)], bins)


def sce2(p: Predictions, bins: int = 10) -> Squared:
    """Debiased squared L2 calibration error of every option: `ece2` with d_i = [y_i = k] - p_ik, mean over classes.

    A class weighs by the number of questions that have it, all alike where every question has all options, so that
    a bin weighs n_kb / number of (question, option) pairs as it does in `metrics.sce`. Raises as `ece2` does.
    """
    return _debiased([(p.probabilities[v, k], p.answers[v] == k) for k, v in enumerate(p.mask.T)], bins)


def _debiased(classes: Iterable[tuple[Floats, Booleans]], bins: int) -> Squared:
    """The weighted mean over `classes`, each its probabilities (N_k,) and whether it was the right one (N_k,)."""
    total, items, kept, dropped = 0.0, 0, 0, 0
    for probability, right in classes:
        index, d = bin_index(probability, bins), right - probability
        n = np.bincount(index, minlength=bins)
        pairs = np.bincount(index, d, minlength=bins) ** 2 - np.bincount(index, d * d, minlength=bins)
        many = n > 1
        total += float((pairs[many] / (n[many] - 1)).sum())  # n_b / (n_b (n_b - 1)), the N is below
        items, kept, dropped = items + len(d), kept + int(many.sum()), dropped + int((n == 1).sum())
    if kept == 0:
        raise ScoringError(
            f"the squared calibration error needs a bin with two questions; {items} probabilities fill no bin twice"
        )
    return Squared(total / items, dropped)


def squared_errors(p: AnyPredictions, bins: int = 10) -> dict[str, float]:
    """ece2 and sce2 by name, those that `p` has: sce2 needs all options, and both a bin with two questions."""
    found = {}
    for name, measure in (("ece2", ece2), *((("sce2", sce2),) if isinstance(p, Predictions) else ())):
        with suppress(ScoringError):
            found[name] = measure(p, bins).value
    return found
