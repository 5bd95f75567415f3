"""Accuracy and calibration of multiple-choice predictions, one measure a function."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import entr
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
    return float(brier_scores(p).mean())


def brier_scores(p: Predictions) -> Floats:
    """The Brier score of each question (N,)."""
    truth = np.arange(p.mask.shape[1]) == p.answers[:, None]
    return np.asarray(((p.probabilities - truth) ** 2).sum(1), dtype=np.float64)


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
    ranks = rankdata(comparable(p.confidence))
    return float((ranks[p.hit].sum() - right * (right + 1) / 2) / (right * wrong))


@dataclass(frozen=True)
class ReliabilityBins:
    """A reliability diagram: counts (M,), mean confidence (M,) and accuracy (M,), NaN where a bin is empty."""

    counts: Integers
    confidence: Floats
    accuracy: Floats


def reliability_bins(p: AnyPredictions, bins: int = 10) -> ReliabilityBins:
    """Group the predicted options by confidence, with the bins of `ece`."""
    index = bin_index(p.confidence, bins)
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
    gaps = np.bincount(bin_index(probability, bins), hit - probability, minlength=bins)
    return float(np.abs(gaps).sum())


def bin_index(probability: Floats, bins: int) -> Integers:
    """0-based index of the right-closed bin that each probability falls into."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability, side="left")


def overconfidence(p: AnyPredictions) -> float:
    """Mean confidence minus accuracy, between -1 and 1; positive where the model claims more than it knows.

    Its absolute value is the calibration error of one single bin; no other binning of the top option gives less.
    Source: Lichtenstein, Fischhoff & Phillips 1982.
    """
    return mean_confidence(p) - accuracy(p)


def answer_entropy(p: Predictions) -> float:
    """Mean over questions of -sum_k p_ik log p_ik, in nats, between 0 and the log of the number of options.

    How much of its probability a model spreads over the options of one question. Source: Shannon 1948, section 6.
    """
    return float(entr(p.probabilities).sum(1).mean())


def prediction_entropy(p: Predictions) -> float:
    """Entropy of how often each option is predicted, -sum_k pred_k log pred_k with pred_k shares of questions, in nats.

    A measure of diversity: 0 where the same option is predicted always, log C where each of C is predicted alike. It
    knows nothing of the answers; `letter_bias` compares with them. Source: Shannon 1948, section 6.
    """
    return float(entr(np.bincount(p.predicted) / len(p.predicted)).sum())


def comparable(probability: Floats) -> Floats:
    """Probabilities to 40 bits (12 digits), for order and ties; a probability is otherwise used as it is.

    The same probability, summed in another order of options, differs in its last bits: on 14,042 real questions 477
    ties were lost that way. Digits, not decimals, so that probabilities of 1e-20 keep their order.
    """
    mantissa, exponent = np.frexp(probability)
    return np.asarray(np.ldexp(np.round(np.ldexp(mantissa, 40)), exponent - 40), dtype=np.float64)
