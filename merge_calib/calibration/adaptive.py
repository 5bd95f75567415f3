"""Calibration error over bins that hold equally many questions."""

import numpy as np
from scipy.stats import rankdata

from merge_calib.calibration.metrics import AnyPredictions, comparable
from merge_calib.errors import InputError
from merge_calib.scores import Floats, Integers


def adaptive_ece(p: AnyPredictions, bins: int = 10) -> float:
    """Calibration error of the top option over bins of equal mass, (1/N) sum_b |sum_{i in b} (hit_i - conf_i)|.

    A question goes to bin floor(M (below + same / 2) / N), where `below` questions are less confident and `same` are as
    confident (itself included). So without ties every bin holds N/M questions, rounded; equal confidences are never
    parted, whatever the order of questions, and a group larger than N/M leaves a neighbouring bin small or empty.

    Raises InputError where `bins` is below 1. Source: the bins of Nguyen & O'Connor 2015 (there with squared gaps), the
    gap of `ece`. Not the ACE of Nixon et al. 2019, which goes over all classes and weighs all bins alike.
    """
    if bins < 1:
        raise InputError(f"--bins must be at least 1, not {bins}")
    gaps = np.bincount(_equal_mass_index(p.confidence, bins), p.hit - p.confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(p.hit))


def _equal_mass_index(probability: Floats, bins: int) -> Integers:
    """0-based index of the bin that the middle of each group of equal probabilities falls into."""
    twice_middle = 2 * rankdata(comparable(probability)) - 1  # below + same / 2, doubled to stay a whole number
    return np.asarray(twice_middle * bins // (2 * len(probability)), dtype=np.int64)
