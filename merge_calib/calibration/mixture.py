"""Mixtures of what the two parents answer: what one gets from running both instead of merging them."""

import numpy as np
from scipy.special import log_softmax

from merge_calib.errors import ScoringError
from merge_calib.scores import Booleans, Floats, Predictions


def mix_probabilities(base: Predictions, aligned: Predictions, weight: float) -> Predictions:
    """(1 - weight) p_base + weight p_aligned, with a weight between 0 and 1; 0 and 1 give back the parents.

    Formed from logarithms, so that a probability too small for a float keeps its log-probability.
    Source: the linear opinion pool, Genest & Zidek 1986.
    """
    assert_same_questions(base, aligned)
    assert 0 <= weight <= 1, f"a mixture of probabilities needs a weight between 0 and 1, not {weight}"
    if weight in (0, 1):
        return aligned if weight else base
    log_probabilities = np.logaddexp(
        np.log1p(-weight) + base.log_probabilities, np.log(weight) + aligned.log_probabilities
    )
    return Predictions(log_probabilities, np.exp(log_probabilities), base.answers, base.mask)


def mix_log_probabilities(base: Predictions, aligned: Predictions, weight: float) -> Predictions:
    """p_base^(1 - weight) p_aligned^weight, normalised over each question's options; 0 and 1 give back the parents.

    Any weight will do: above 1 it goes past the aligned model, as lambda does. An option that both parents exclude
    stays excluded. Raises ScoringError where a question is left without a distribution: a parent excludes what its
    negative exponent would make infinitely likely, or the two together exclude every option.
    Source: the logarithmic opinion pool, Genest & Zidek 1986; for language models Liu et al. 2024 (arXiv 2402.02992).
    """
    assert_same_questions(base, aligned)
    assert np.isfinite(weight), f"a mixture of log-probabilities needs a finite weight, not {weight}"
    if weight in (0, 1):
        return aligned if weight else base
    excluded = np.isneginf(base.log_probabilities) & np.isneginf(aligned.log_probabilities)
    mixed = (1 - weight) * _without(excluded, base) + weight * _without(excluded, aligned)
    mixed[excluded] = -np.inf
    top = mixed.max(1)
    if not np.isfinite(top).all():
        raise ScoringError(
            f"the log-probabilities cannot be mixed with weight {weight:g}: on {int((~np.isfinite(top)).sum())} "
            "question(s) a parent gives probability 0 to options that the mixture needs"
        )
    log_probabilities = np.asarray(log_softmax(mixed, axis=1), dtype=np.float64)
    return Predictions(log_probabilities, np.exp(log_probabilities), base.answers, base.mask)


def assert_same_questions(base: Predictions, aligned: Predictions) -> None:
    """Both parents were asked the same: the same right options among the same options, in the same order."""
    assert np.array_equal(base.answers, aligned.answers), "the parents' answers differ"
    assert np.array_equal(base.mask, aligned.mask), "the parents' options differ"


def _without(excluded: Booleans, p: Predictions) -> Floats:
    """Log-probabilities with 0 where both parents have -inf, whose weighted sum would be no number."""
    return np.where(excluded, 0.0, p.log_probabilities)
