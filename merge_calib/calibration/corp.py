"""The Brier score split into what recalibration could remove, what the scores know, and what answers leave open."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from merge_calib.calibration.metrics import comparable
from merge_calib.scores import Booleans, Floats, Predictions


@dataclass(frozen=True)
class BrierSplit:
    """Three parts of a Brier score, miscalibration - discrimination + uncertainty, none of them negative.

    miscalibration: what the best non-decreasing map of each option's probabilities would save; lower is better
    discrimination: what the mapped probabilities save against the frequency of each option; higher is better
    uncertainty: the score of those frequencies, which depends on the answers alone
    """

    miscalibration: float
    discrimination: float
    uncertainty: float


def brier_split(p: Predictions) -> BrierSplit:
    """Split `metrics.brier(p)`, option by option: sum_k (N_k / N) of the split of class k's binary Brier score.

    Class k has the N_k questions that offer it, outcome y = [answer = k], probability x, the isotonic regression r of y
    on x (equal x pooled first, so order does not matter) and the mean m of y:
    miscalibration mean (x - y)^2 - (r - y)^2, discrimination mean (r - m)^2, uncertainty m (1 - m).
    The isotonic fit follows noise: with few questions miscalibration and discrimination are both too large.
    Source: Dimitriadis, Gneiting & Jordan 2021 (PNAS 118, e2016191118), for two classes; the sum over classes is ours.
    """
    classes = [_split_class(p.probabilities[has, k], p.answers[has] == k) for k, has in enumerate(p.mask.T)]
    parts = np.sum(classes, axis=0) / len(p.answers)
    return BrierSplit(*(float(part) for part in parts))


def _split_class(x: Floats, y: Booleans) -> tuple[float, float, float]:
    """The three parts summed over the questions of one class; x (N_k,) probabilities, y (N_k,) outcomes."""
    if len(x) == 0:
        return 0.0, 0.0, 0.0
    recalibrated, frequency = _recalibrate(x, y), y.mean()
    saved = float(((x - y) ** 2 - (recalibrated - y) ** 2).sum())
    known = float(((recalibrated - frequency) ** 2).sum())
    return max(saved, 0.0), known, float(len(y) * frequency * (1 - frequency))  # rounding can leave -1e-17


def _recalibrate(x: Floats, y: Booleans) -> Floats:
    """Isotonic regression of y on x with equal x pooled, at every x."""
    _, group, counts = np.unique(comparable(x), return_inverse=True, return_counts=True)
    frequencies = np.bincount(group, y) / counts
    return np.asarray(isotonic_regression(frequencies, weights=counts).x[group], dtype=np.float64)
