"""When to stop asking a point of a search: it is surely worse than one that was measured, by every objective.

The questions that choose are asked in one order, the same for every point. At a few looks the answers so far are
compared with what each incumbent (a point that was asked everything) answered to the same questions.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from merge_calib.calibration.metrics import bin_index, brier_scores
from merge_calib.errors import InputError
from merge_calib.scores import Booleans, Floats, Integers, Predictions

SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the questions, at which is looked; nothing is left to save at the end
FEWEST_AT_A_LOOK = 100  # over all tasks: with fewer a difference is hardly ever sure
FEWEST_IN_A_TASK = 10  # below it a task's spread is a guess
CONFIDENCE = 0.95
_NOTHING = 1e-12  # a difference below is that of rounding

Answered = Mapping[str, Predictions]  # by task
Terms = Callable[[Floats, Floats, Floats], Floats]
Column = tuple[Booleans, Floats, Booleans]


@dataclass(frozen=True)
class Behind:
    """How far a point is behind an incumbent by one measure, as the mean over tasks of paired differences.

    measure: what was compared, with its number of bins; value: positive where the point is worse
    spread: the standard deviation of the value; low: the lower bound of the value, -inf where none was asked for
    """

    measure: str
    value: float
    spread: float
    low: float = -math.inf


@dataclass(frozen=True)
class Verdict:
    """A point is hopeless: the incumbent that is better by every objective, by how much, and after how many questions.

    behind: for each objective in turn, for ece and sce their debiased squares and themselves; every `low` is above 0
    """

    incumbent: str
    behind: tuple[Behind, ...]
    asked: int


def order(ids: Sequence[str], subjects: Sequence[str], seed: int) -> Integers:
    """The order (N,) in which N questions are asked: the indices of the first, the second and so on.

    Every subject is spread evenly over the order, by the rank of the id's hash and from a place of its own, so that
    every beginning has about the share of each subject that the whole has. With the name of the task in `subjects` the
    questions of all tasks can be ordered together. It depends on ids, subjects and seed, not on the order given.
    """
    hashes = [_hash(seed, "question", id) for id in ids]
    members: dict[str, list[int]] = {}
    for i in sorted(range(len(ids)), key=lambda i: hashes[i]):
        members.setdefault(subjects[i], []).append(i)
    place = np.empty(len(ids))
    for subject, own in members.items():
        # Without a phase of its own every subject of one question would come at the same place, all together.
        phase = int.from_bytes(_hash(seed, "subject", subject)[:6], "big") / 2**48
        place[own] = (np.arange(len(own)) + phase) / len(own)
    return np.array(sorted(range(len(ids)), key=lambda i: (place[i], hashes[i])), dtype=np.int64)


def looks(n: int) -> tuple[int, ...]:
    """After how many of n questions (over all tasks) is looked: an eighth, a quarter, a half, none below 100."""
    sizes = [math.ceil(n * share) for share in SHARES]
    return tuple(size for size in sizes if FEWEST_AT_A_LOOK <= size < n)


def can_stop(objectives: Sequence[str]) -> bool:
    """Whether all objectives are measures whose differences on some of the questions have a known spread.

    These are accuracy, nll and brier, and ece and sce in every form. By others (auroc, say) no point is ever stopped.
    """
    return bool(objectives) and all(_tested(objective, 10) for objective in objectives)


def hopeless(
    partial: Answered,
    incumbents: Mapping[str, Answered],
    objectives: Sequence[str] = ("accuracy", "sce"),
    *,
    confidence: float = CONFIDENCE,
    looks: int = len(SHARES),
    chosen_from: int | None = None,
    bins: int = 10,
) -> Verdict | None:
    """The verdict on a point after some of the questions; None where it may still be worth having.

    partial: what the point answered so far, by task; incumbents: by name, what each answered to the same questions, in
    the same order. looks: how many looks there are in all, those to come included; chosen_from: from how many points,
    all those that were asked everything, the incumbents were chosen (None: these are all).
    A point is hopeless if one incumbent is better by every objective: each one-sided lower bound of how far the point
    is behind, value - z spread, is above 0. All objectives must show it at once, so these need no correction (an
    intersection-union test). Every look and every point that an incumbent may be is a chance to be wrong, and gets an
    equal share of 1 - confidence; points off the frontier count too, for the frontier was chosen by the same answers.
    So a point that no other is better than by every objective is stopped with at most 1 - confidence, over all looks.
    Nothing is stopped where `can_stop` is False, nor before every task of the incumbents has 10 answers.
    Raises InputError for a confidence that is not between 0.5 and 1.
    Source: Berger 1982 (intersection-union tests); Bonferroni for the rest. tools/simulate_early_stopping.py
    """
    if not 0.5 <= confidence < 1:
        raise InputError(f"the confidence that stops a point must be at least 0.5 and below 1, not {confidence}")
    points = len(incumbents) if chosen_from is None else chosen_from
    assert looks > 0
    assert points >= len(incumbents)
    if not (incumbents and can_stop(objectives)):
        return None
    if any(answered.keys() != partial.keys() for answered in incumbents.values()):
        return None
    if min(len(p.answers) for p in partial.values()) < FEWEST_IN_A_TASK:
        return None
    z = float(norm.isf((1 - confidence) / (looks * points)))
    bounded = {
        name: tuple(Behind(b.measure, b.value, b.spread, b.value - z * b.spread) for b in behind)
        for name, behind in compare(partial, incumbents, objectives, bins).items()
    }
    dominating = {name: behind for name, behind in bounded.items() if all(b.low > _NOTHING for b in behind)}
    if not dominating:
        return None
    surest = max(dominating, key=lambda name: min(_surety(b) for b in dominating[name]))
    return Verdict(surest, dominating[surest], sum(len(p.answers) for p in partial.values()))


def compare(
    partial: Answered, incumbents: Mapping[str, Answered], objectives: Sequence[str], bins: int = 10
) -> dict[str, tuple[Behind, ...]]:
    """How far a point is behind each incumbent by each objective.

    ece and sce are compared by the debiased ece2 and sce2 in the same bins, for on few questions the plug-in errors
    are biased by more than points differ, and by themselves, for a square may order points otherwise. Needs objectives
    that `can_stop` allows.
    """
    assert can_stop(objectives), "not every objective can be compared on some of the questions"
    measures = [measure for objective in objectives for measure in _tested(objective, bins)]
    found = {}
    with np.errstate(invalid="ignore"):  # an infinite NLL leaves NaN, of which nothing is sure
        own = [_jackknifed(partial, measure) for measure in measures]
        for name, answered in incumbents.items():
            _require_same_questions(partial, answered)
            theirs = [_jackknifed(answered, measure) for measure in measures]
            found[name] = tuple(_behind(*sides) for sides in zip(measures, own, theirs, strict=True))
    return found


def estimate(partial: Answered, incumbent: Answered, measures: Mapping[str, float], bins: int = 10) -> dict[str, float]:
    """What a study is told of a point that was stopped: an estimate of its measures on all questions, by name.

    incumbent: what one point that was asked everything answered to the same questions; measures: its measures on all
    Means and debiased errors are the incumbent's measure plus how far the point is from it so far: both answer the
    same questions, so what is easy about these cancels (a control variate). ece and sce are the point's own so
    far: on few questions they are too large, the more so where the point is well calibrated. The incumbent is, a
    hopeless point is not, so the difference of the two would flatter the point; what is told instead errs on the
    safe side. Points are stopped when luck is against them, so all of it is on average too bad where a point was nearly
    as good as the incumbent. Measures that are none of these are left out.
    Source: Owen 2013, section 8.9 (control variates, with a coefficient of 1).
    """
    _require_same_questions(partial, incumbent)
    found = {}
    for name, whole in measures.items():
        measure = _as_named(name, bins)
        if measure is None:
            continue
        own, theirs = (_mean_over_tasks(answered, measure) for answered in (partial, incumbent))
        found[name] = own if measure.is_biased else whole + own - theirs
    return found


@dataclass(frozen=True)
class Measure:
    """A mean over questions, or an error in bins: `ece2` and `sce2` debiased, `ece` and `sce` not. bins: 0 for means"""

    name: str
    bins: int = 0

    @property
    def is_biased(self) -> bool:
        """Whether it is too large on few questions."""
        return self.name in ("ece", "sce")

    def __str__(self) -> str:
        return f"{self.name} in {self.bins} bins" if self.bins else self.name


@dataclass(frozen=True)
class Jackknifed:
    """A measure of n questions, and what each of them does to it.

    influence (n,): (n - 1) (value - value without this question); in a mean this is the question's deviation from it
    """

    value: float
    influence: Floats

    def __sub__(self, other: "Jackknifed") -> "Jackknifed":
        return Jackknifed(self.value - other.value, self.influence - other.influence)

    @property
    def variance(self) -> float:
        """Of the value. On average not too small, whatever the measure. Source: Efron & Stein 1981."""
        return float(self.influence.var(ddof=1) / len(self.influence))


def jackknife(p: Predictions, measure: Measure) -> Jackknifed:
    """A measure of n questions with each left out in turn; of an error in bins only the question's own bins change."""
    if measure.name in _EACH:
        each = _EACH[measure.name](p)
        return Jackknifed(float(each.mean()), each - each.mean())
    columns = _options(p) if measure.name.startswith("sce") else [_top(p)]
    terms = _debiased if measure.name.endswith("2") else _absolute
    return _in_bins(columns, len(p.answers), measure.bins, terms)


def _in_bins(columns: Iterable[Column], n: int, bins: int, terms: Terms) -> Jackknifed:
    """The sum of a term for each bin of each column, over the number of probabilities."""
    total, items = 0.0, 0
    own, valid = np.zeros(n), np.zeros(n)
    for rows, probability, right in columns:
        index, d = bin_index(probability, bins), right - probability
        count, gap, square = (_by_bin(index, each, bins) for each in (np.ones(len(d)), d, d * d))
        with_all = terms(count, gap, square)
        own[rows] += with_all[index] - terms(count[index] - 1, gap[index] - d, square[index] - d * d)
        valid[rows] += 1
        total, items = total + float(with_all.sum()), items + len(d)
    value = total / items
    return Jackknifed(value, (n - 1) * (value - (total - own) / (items - valid)))


def _by_bin(index: Integers, each: Floats, bins: int) -> Floats:
    return np.bincount(index, each, minlength=bins).astype(np.float64)


def _debiased(n: Floats, gap: Floats, square: Floats) -> Floats:
    """Of a bin, [(sum d)^2 - sum d^2] / (n - 1): see `calibration.squared`."""
    return np.where(n > 1.5, (gap**2 - square) / np.maximum(n - 1, 1.0), 0.0)


def _absolute(n: Floats, gap: Floats, square: Floats) -> Floats:  # noqa: ARG001 - a term is given all sums
    return np.abs(gap)


def _top(p: Predictions) -> Column:
    return np.ones(len(p.answers), dtype=bool), p.confidence, p.hit


def _options(p: Predictions) -> list[Column]:
    return [(v, p.probabilities[v, k], p.answers[v] == k) for k, v in enumerate(p.mask.T)]


_EACH: Mapping[str, Callable[[Predictions], Floats]] = {
    "accuracy": lambda p: p.hit.astype(np.float64),
    "nll": lambda p: -p.log_truth,
    "brier": brier_scores,
}


def _as_named(name: str, bins: int) -> Measure | None:
    """The measure that results.csv calls so; None where its differences have no known spread."""
    if name in _EACH:
        return Measure(name)
    if name in ("ece", "sce", "ece2", "sce2"):
        return Measure(name, bins)
    return Measure(name[:3], 15) if name in ("ece_15", "sce_15") else None


def _tested(objective: str, bins: int) -> tuple[Measure, ...]:
    """The measures by which an objective is compared on some of the questions, all of which must be worse.

    A biased error is compared by its debiased square, and by itself too: the two may differ about who is worse.
    """
    measure = _as_named(objective, bins)
    if measure is None:
        return ()
    return (Measure(measure.name + "2", measure.bins), measure) if measure.is_biased else (measure,)


def _jackknifed(answered: Answered, measure: Measure) -> dict[str, Jackknifed]:
    return {task: jackknife(p, measure) for task, p in answered.items()}


def _mean_over_tasks(answered: Answered, measure: Measure) -> float:
    return sum(each.value for each in _jackknifed(answered, measure).values()) / len(answered)


def _behind(measure: Measure, own: Mapping[str, Jackknifed], theirs: Mapping[str, Jackknifed]) -> Behind:
    """The mean over tasks of paired differences, positive where `own` is worse.

    In accuracy as if one more question were right in one point only, for where these are few the questions vary too
    little. Source: Agresti & Min 2005.
    """
    worse = [theirs[t] - own[t] if measure.name == "accuracy" else own[t] - theirs[t] for t in own]
    variance = sum(each.variance for each in worse)
    if measure.name == "accuracy":
        variance += sum(1 / len(each.influence) for each in worse) ** 2 / len(worse) ** 2
    return Behind(str(measure), sum(each.value for each in worse) / len(worse), math.sqrt(variance) / len(worse))


def _surety(behind: Behind) -> float:
    return behind.value / max(behind.spread, _NOTHING)


def _require_same_questions(partial: Answered, answered: Answered) -> None:
    assert partial.keys() == answered.keys(), "other tasks"
    for task, p in partial.items():
        other = answered[task]
        assert np.array_equal(p.answers, other.answers), f"{task}: other questions"
        assert np.array_equal(p.mask, other.mask), f"{task}: other questions"


def _hash(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
