"""Temperature scaling: one number that makes a model more or less confident and changes no prediction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from merge_calib.errors import ScoringError
from merge_calib.scores import Floats, Predictions

BOUNDS = (1 / 100, 100.0)
# Log-probabilities of a row that differ by less are equal but for rounding: no temperature can be read off them.
UNIFORM = 1e-12


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    value: above 1 the model was too sure; between 1/100 and 100
    at_bound: whether the loss still falls at the end of that range (for one, where every answer is right)
    is_identified: False where all rows are uniform, so that every temperature gives the same loss; the value is then 1
    """

    value: float
    at_bound: bool
    is_identified: bool


@dataclass(frozen=True)
class Target:
    """What the tempered probabilities of one task should come near to.

    log_probabilities (N, C): of the model to be tempered, -inf where an option is not there
    aimed (N,): mean of a row's log-probabilities under the distribution aimed at, sum_k t_ik log p_ik
    """

    log_probabilities: Floats
    aimed: Floats


def fit_temperature(p: Predictions | Sequence[Predictions]) -> Temperature:
    """The T in [1/100, 100] that minimises the NLL of softmax(log p / T), the mean over tasks of each task's mean.

    Raises ScoringError where a right option has probability 0 (its NLL is infinite at every T) or a task is empty.
    Source: Guo et al. 2017, section 4.2.
    """
    tasks = [p] if isinstance(p, Predictions) else p
    impossible = sum(int(np.isneginf(task.log_truth).sum()) for task in tasks)
    if impossible:
        raise ScoringError(
            f"no temperature can be fitted: the right option of {impossible} question(s) has probability 0"
        )
    return minimise_cross_entropy([Target(task.log_probabilities, task.log_truth) for task in tasks])


def at_temperature(p: Predictions, t: float) -> Predictions:
    """softmax(log p / t) over each question's options; predictions, ties and impossible options stay as they are."""
    assert 0 < t < math.inf, f"a temperature must be above 0 and finite, not {t}"
    if t == 1:
        return p
    tempered = log_softmax((p.log_probabilities - _top(p.log_probabilities)) / t, axis=1)
    # A high temperature may round a second-best option up to the best one; it stays one step below.
    lower = p.log_probabilities < _top(p.log_probabilities)
    tempered = np.where(lower, np.minimum(tempered, np.nextafter(_top(tempered), -np.inf)), tempered)
    return Predictions(tempered, np.exp(tempered), p.answers, p.mask)


def minimise_cross_entropy(targets: Sequence[Target]) -> Temperature:
    """The T that minimises the mean over tasks of mean_i [log sum_k exp(log p_ik / T) - aimed_i / T].

    The loss is convex in 1/T, so its slope at a bound tells whether the minimum lies beyond it, and between the bounds
    it has no other valley for a search over log T to end in. Raises ScoringError without tasks or for an empty task.
    """
    if not targets or any(len(target.aimed) == 0 for target in targets):
        raise ScoringError("no temperature can be fitted: there are no questions to fit it on")
    tops = [_top(target.log_probabilities) for target in targets]
    shifted = [
        Target(target.log_probabilities - top, target.aimed - top[:, 0])
        for target, top in zip(targets, tops, strict=True)
    ]
    if all((np.isneginf(s.log_probabilities) | (s.log_probabilities > -UNIFORM)).all() for s in shifted):
        return Temperature(1.0, at_bound=False, is_identified=False)
    coldest, hottest = BOUNDS
    if _slope(shifted, 1 / coldest) <= 0:
        return Temperature(coldest, at_bound=True, is_identified=True)
    if _slope(shifted, 1 / hottest) >= 0:
        return Temperature(hottest, at_bound=True, is_identified=True)
    found = minimize_scalar(
        lambda log_t: _loss(shifted, math.exp(-log_t)),
        bounds=(math.log(coldest), math.log(hottest)),
        method="bounded",
        options={"xatol": 1e-9},  # finer than the 1e-8 to which rounding lets a minimum be seen
    )
    return Temperature(math.exp(found.x), at_bound=False, is_identified=True)


def _loss(shifted: Sequence[Target], beta: float) -> float:
    """The cross-entropy at 1/T = beta; the top of every row is 0, so that nothing overflows."""
    return math.fsum(
        float((np.log(np.exp(beta * s.log_probabilities).sum(1)) - beta * s.aimed).mean()) for s in shifted
    ) / len(shifted)


def _slope(shifted: Sequence[Target], beta: float) -> float:
    """d loss / d beta, the mean over tasks of mean_i [sum_k q_ik log p_ik - aimed_i] with q the tempered p."""
    slopes = []
    for s in shifted:
        weights = np.exp(beta * s.log_probabilities)
        finite = np.where(np.isneginf(s.log_probabilities), 0.0, s.log_probabilities)
        slopes.append(float(((weights * finite).sum(1) / weights.sum(1) - s.aimed).mean()))
    return math.fsum(slopes) / len(slopes)


def _top(log_probabilities: Floats) -> Floats:
    """The largest of each row (N, 1)."""
    return np.asarray(log_probabilities.max(1, keepdims=True), dtype=np.float64)
