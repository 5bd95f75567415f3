"""The aligned model's temperature from the base's confidence, without labels (DACA)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from merge_calib.calibration.mixture import assert_same_questions
from merge_calib.calibration.temperature import Target, Temperature, minimise_cross_entropy
from merge_calib.errors import ScoringError
from merge_calib.scores import Booleans, Predictions


@dataclass(frozen=True)
class Daca:
    """The temperature of the aligned model, and on what it was fitted.

    agreement: share of all questions on which both parents predict the same option; n: their number
    """

    temperature: Temperature
    agreement: float
    n: int


def fit_daca(base: Predictions | Sequence[Predictions], aligned: Predictions | Sequence[Predictions]) -> Daca:
    """The T that brings softmax(log p_aligned / T) nearest to p_base where both parents predict the same option.

    Minimises the mean over tasks of mean_i KL(p_base,i || softmax(log p_aligned,i / T)) over a task's questions of
    agreement; p_base is fixed, so that this is the cross-entropy up to a constant. A task without agreement has no
    part. Where the parents disagree the base's confidence is about another option and says nothing of the aligned
    model's; answers are not looked at. Raises ScoringError where the parents never agree, or where the aligned model
    excludes an option that the base does not (the divergence is infinite at every T).
    Source: Luo et al. 2025 (arXiv 2505.16690). Bounds as in `fit_temperature`.
    """
    pairs = list(zip(_tasks(base), _tasks(aligned), strict=True))
    for one, other in pairs:
        assert_same_questions(one, other)
    agreed = [np.equal(one.predicted, other.predicted) for one, other in pairs]
    n, total = sum(int(a.sum()) for a in agreed), sum(len(a) for a in agreed)
    if n == 0:
        raise ScoringError(
            f"DACA needs questions on which the parents predict the same option; they do on none of {total}"
        )
    targets = [_target(*pair, a) for pair, a in zip(pairs, agreed, strict=True) if a.any()]
    impossible = sum(int(np.isneginf(target.aimed).sum()) for target in targets)
    if impossible:
        raise ScoringError(
            f"DACA cannot be fitted: on {impossible} question(s) the aligned model gives probability 0 to an option "
            "that the base finds possible"
        )
    return Daca(minimise_cross_entropy(targets), n / total, n)


def _target(base: Predictions, aligned: Predictions, agreed: Booleans) -> Target:
    """The aligned model's rows of agreement, aimed at the base's probabilities."""
    goal, log_p = base.probabilities[agreed], aligned.log_probabilities[agreed]
    possible = goal > 0
    return Target(log_p, (goal * np.where(possible, log_p, 0.0)).sum(1))


def _tasks(p: Predictions | Sequence[Predictions]) -> Sequence[Predictions]:
    return [p] if isinstance(p, Predictions) else p
