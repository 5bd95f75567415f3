"""Accuracy and calibration of multiple-choice predictions, one measure a function."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from merge_calib.scores import Booleans, Floats, Integers, Predictions, TopPredictions

AnyPredictions = Predictions | TopPredictions


def accuracy(p: AnyPredictions) -> float:
    """Share of questions whose most probable option is the right one."""
    return float(p.hit.mean())


def ece(p: AnyPredictions, bins: int = 10) -> float:
    """Expected calibration error of the top option, (1/N) sum_b |sum_{i in b} (hit_i - conf_i)|.

    Bins ((m-1)/M, m/M] of equal width; a confidence of 0 falls into the first.
    Source: Guo et al. 2017, eq. 3; Zhu et al. 2023, section 2.
    """
    return float(_absolute_gap(p.confidence, p.hit, bins) / len(p.hit))


def sce(p: Predictions, bins: int = 10) -> float:
    """Static calibration error, sum_{k,b} |sum_{i in b_k} ([y_i = k] - p_ik)| / number of (question, option) pairs.

    Equals the mean over classes of the class-wise ECE where every question has all K options; questions with fewer
    options weigh by the options they have. Source: Nixon et al. 2019, section 3.
    """
    return _classwise(p, bins, lambda k: p.answers == k)


def sce_agreement(p: Predictions, bins: int = 10) -> float:
    """The variant of SCE that Oh & Hwang 2024 report: a class is right where prediction and answer agree on it.

    [y_i = k] in `sce` becomes [pred_i = k] == [y_i = k], so true negatives count as right and the value grows with
    confidence itself. Source: derived from the tables published with Oh & Hwang 2024; not Nixon's SCE.
    """
    return _classwise(p, bins, lambda k: (p.predicted == k) == (p.answers == k))


def nll(p: AnyPredictions) -> float:
    """Mean negative log-probability of the right option, in nats."""
    return float(-p.log_truth.mean())


def brier(p: Predictions) -> float:
    """Brier score, the mean over questions of sum_k (p_ik - [y_i = k])^2, between 0 and 2. Source: Brier 1950."""
    truth = np.arange(p.mask.shape[1]) == p.answers[:, None]
    return float(((p.probabilities - truth) ** 2).sum(1).mean())


def mean_confidence(p: AnyPredictions) -> float:
    """Mean probability of the predicted option."""
    return float(p.confidence.mean())


def letter_bias(p: Predictions) -> float:
    """Distance between how often each option is predicted and how often it is right, (1/2) sum_k |pred_k - gold_k|.

    Total variation distance, between 0 and 1; 0.25 says that a quarter of the predictions would have to move to other
    options for the two to agree. Source: the letter preference that Zheng et al. 2024 (arXiv 2309.03882) describe.
    """
    count = p.mask.shape[1]
    predicted, right = (np.bincount(k, minlength=count) / len(k) for k in (p.predicted, p.answers))
    return float(np.abs(predicted - right).sum() / 2)


def auroc(p: AnyPredictions) -> float | None:
    """Probability that a right prediction is more confident than a wrong one, ties counted half.

    None where all predictions are right or all are wrong. Source: Mann & Whitney 1947.
    """
    right = int(p.hit.sum())
    wrong = len(p.hit) - right
    if right == 0 or wrong == 0:
        return None
    ranks = rankdata(p.confidence)
    return float((ranks[p.hit].sum() - right * (right + 1) / 2) / (right * wrong))


@dataclass(frozen=True)
class ReliabilityBins:
    """A reliability diagram: counts (M,), mean confidence (M,) and accuracy (M,), NaN where a bin is empty."""

    counts: Integers
    confidence: Floats
    accuracy: Floats


def reliability_bins(p: AnyPredictions, bins: int = 10) -> ReliabilityBins:
    """Group the predicted options by confidence, with the bins of `ece`."""
    index = _bin_index(p.confidence, bins)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(index, p.confidence, minlength=bins) / counts
        hit = np.bincount(index, p.hit, minlength=bins) / counts
    return ReliabilityBins(counts, confidence, hit)


def _classwise(p: Predictions, bins: int, right: Callable[[int], Booleans]) -> float:
    total = 0.0
    for k in range(p.mask.shape[1]):
        valid = p.mask[:, k]
        total += _absolute_gap(p.probabilities[valid, k], right(k)[valid], bins)
    return float(total / p.mask.sum())


def _absolute_gap(probability: Floats, hit: Booleans, bins: int) -> float:
    """sum_b |sum_{i in b} (hit_i - probability_i)|; an empty bin adds nothing."""
    gaps = np.bincount(_bin_index(probability, bins), hit - probability, minlength=bins)
    return float(np.abs(gaps).sum())


def _bin_index(probability: Floats, bins: int) -> Integers:
    """0-based index of the right-closed bin that each probability falls into."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability, side="left")
