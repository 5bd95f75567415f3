"""Many forecasts of the same questions: their measures, and draws that keep who was right when others were."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from merge_calib.calibration import metrics
from merge_calib.calibration.metrics import AnyPredictions
from merge_calib.calibration.squared import squared_errors
from merge_calib.inference.binned import binned_draws
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.resampling import Counts, exact_sums
from merge_calib.scores import Floats, Predictions

LEVEL = 0.05  # of every interval and every test
MEANS = ("accuracy", "nll", "brier", "mean_confidence")
DEBIASED = ("ece2", "sce2")
PLUG_IN = ("ece", "sce", "sce_agreement")  # biased: their draws are for ranks and trends only, and recentred there
_FEWEST_DRAWS = 10  # a share of fewer draws says little more than that it is small
_NOTHING = 1e-12  # a spread below is that of rounding
_Z = float(norm.ppf(1 - LEVEL / 2))


@dataclass(frozen=True)
class Joint:
    """L forecasts of n questions: each measure's values (L,) and its B paired draws (B, L).

    Means have percentile intervals. The debiased squared errors have value +- 1.96 standard deviations of the draws,
    because a sample with repeated questions is biased again (its spread is not). Plug-in calibration errors have none.
    A measure that some forecast does not have is not there.
    """

    names: tuple[str, ...]
    n: int
    values: Mapping[str, Floats]
    draws: Mapping[str, Floats]
    sizes: tuple[int, ...] = ()  # of the tasks that this is a mean over; empty for one task

    @property
    def fewest(self) -> int:
        """The number of questions of the smallest task."""
        return min(self.sizes or (self.n,))

    @property
    def effective(self) -> float:
        """As many questions of one task as the mean over tasks is worth: T^2 / sum_t 1 / n_t."""
        sizes = self.sizes or (self.n,)
        return len(sizes) ** 2 / sum(1 / size for size in sizes)

    def at(self, name: str) -> int:
        """The place of a forecast."""
        return self.names.index(name)

    def has(self, measure: str) -> bool:
        return measure in self.values

    def value(self, measure: str, name: str) -> float:
        return float(self.values[measure][self.at(name)])

    def estimate(self, measure: str, name: str) -> Estimate:
        """The measure of one forecast with its 95 % interval."""
        i = self.at(name)
        return self._estimate(measure, float(self.values[measure][i]), self.draws[measure][:, i])

    def difference(self, measure: str, name: str, other: str) -> Estimate:
        """`name` minus `other` with its 95 % interval, from the same draws of both.

        In accuracy at least as wide as value +- 1.96 sqrt(variance + 1 / n^2): as if one more question were right in
        one forecast only, for where these are few the draws vary too little. Source: Agresti & Min 2005.
        """
        i, j = self.at(name), self.at(other)
        values, draws = self.values[measure], self.draws[measure]
        found = self._estimate(measure, float(values[i] - values[j]), draws[:, i] - draws[:, j])
        if measure != "accuracy" or i == j:
            return found
        reach = _Z * self.spread(measure, name, other)
        return Estimate(found.value, min(found.low, found.value - reach), max(found.high, found.value + reach), self.n)

    def spread(self, measure: str, name: str, other: str) -> float:
        """The standard deviation of the draws of a difference; in accuracy as if one more question differed."""
        draws = self.draws[measure]
        spread = float((draws[:, self.at(name)] - draws[:, self.at(other)]).std(ddof=1))
        return math.hypot(spread, 1 / self.effective) if measure == "accuracy" and name != other else spread

    def better(self, measure: str, name: str, other: str, margin: float = 0.0) -> float:
        """One-sided p-value of the null hypothesis that `name` is not better than `other` by more than -`margin`.

        Better is higher for accuracy and lower for all else. For means the share of draws in which it is not better;
        where that are fewer than 10 draws, and for debiased errors, a normal test with the draws' spread. 1 where
        nothing varies. With a margin in accuracy the p-value is not below that of a normal test with the least
        variance that a loss of the margin can have, margin / n: two forecasts that hardly differ on these questions
        say little of how often they do.
        """
        i, j = self.at(name), self.at(other)
        sign = 1.0 if measure == "accuracy" else -1.0
        values, draws = self.values[measure], self.draws[measure]
        lead = sign * float(values[i] - values[j]) + margin
        leads = sign * (draws[:, i] - draws[:, j]) + margin
        least = math.sqrt(margin / self.effective) if measure == "accuracy" else 0.0
        spread = max(float(leads.std(ddof=1)), least)
        by_spread = float(norm.sf(lead / spread)) if spread > _NOTHING else 1.0
        not_better = int(np.count_nonzero(leads <= 1e-9))  # a difference of 0 may miss it by rounding
        if measure in MEANS and not_better >= _FEWEST_DRAWS:
            return max((1 + not_better) / (1 + len(leads)), by_spread if margin else 0.0)
        return by_spread

    def band(self, measure: str, names: Sequence[str]) -> list[Estimate]:
        """Simultaneous 95 % intervals of several forecasts: all of them cover together.

        value +- c times the spread of its draws, c the 95 % quantile of the largest standardised deviation in a draw.
        Source: Montiel Olea & Plagborg-Moller 2019, the sup-t band.
        """
        places = [self.at(name) for name in names]
        values, draws = self.values[measure][places], self.draws[measure][:, places]
        spread = draws.std(axis=0, ddof=1)
        deviations = np.abs(draws - draws.mean(0)) / np.where(spread > 0, spread, 1.0)
        reach = float(np.quantile(deviations.max(1), 1 - LEVEL)) * spread
        return [Estimate(float(v), float(v - r), float(v + r), self.n) for v, r in zip(values, reach, strict=True)]

    def recentred(self, measure: str) -> Floats:
        """Draws (B, L) moved so that their mean is the value: the spread of biased draws around the estimate."""
        draws = self.draws[measure]
        return np.asarray(draws - draws.mean(0) + self.values[measure], dtype=np.float64)

    def renamed(self, names: Mapping[str, str]) -> "Joint":
        """Only the forecasts in `names`, under new names: new name -> old name."""
        places = [self.at(old) for old in names.values()]
        values = {measure: value[places] for measure, value in self.values.items()}
        draws = {measure: draw[:, places] for measure, draw in self.draws.items()}
        return Joint(tuple(names), self.n, values, draws, self.sizes)

    def _estimate(self, measure: str, value: float, draws: Floats) -> Estimate:
        assert measure not in PLUG_IN, "a percentile interval of a plug-in calibration error does not cover"
        if measure in MEANS:
            low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
        else:
            reach = _Z * float(draws.std(ddof=1))
            low, high = value - reach, value + reach
        return Estimate(value, float(low), float(high), self.n)


def joint_of(forecasts: Mapping[str, AnyPredictions], counts: Counts, bins: int) -> Joint:
    """Measure `forecasts` of the same N questions, once as they are and once in each of B samples `counts` (B, N)."""
    values = [_values(p, bins) for p in forecasts.values()]
    draws = [_draws(p, counts, bins) for p in forecasts.values()]
    shared = [m for m in (*MEANS, *DEBIASED, *PLUG_IN) if all(m in v for v in values)]
    return Joint(
        tuple(forecasts),
        counts.shape[1],
        {m: np.array([v[m] for v in values]) for m in shared},
        {m: np.stack([d[m] for d in draws], axis=1) for m in shared},
    )


def average(joints: Sequence[Joint]) -> Joint:
    """The mean over tasks of the same forecasts, every task with the same weight."""
    shared = [m for m in joints[0].values if all(j.has(m) for j in joints)]
    assert all(j.names == joints[0].names for j in joints)

    def mean(arrays: Sequence[Floats]) -> Floats:
        return np.asarray(sum(array / len(arrays) for array in arrays), dtype=np.float64)

    return Joint(
        joints[0].names,
        sum(j.n for j in joints),
        {m: mean([j.values[m] for j in joints]) for m in shared},
        {m: mean([j.draws[m] for j in joints]) for m in shared},
        tuple(j.n for j in joints),
    )


def _values(p: AnyPredictions, bins: int) -> dict[str, float]:
    found = {
        "accuracy": metrics.accuracy(p),
        "nll": metrics.nll(p),
        "mean_confidence": metrics.mean_confidence(p),
        "ece": metrics.ece(p, bins),
    }
    if isinstance(p, Predictions):
        found |= {
            "brier": metrics.brier(p),
            "sce": metrics.sce(p, bins),
            "sce_agreement": metrics.sce_agreement(p, bins),
        }
    return found | squared_errors(p, bins)


def _draws(p: AnyPredictions, counts: Counts, bins: int) -> dict[str, Floats]:
    columns = {"accuracy": p.hit, "nll": -p.log_truth, "mean_confidence": p.confidence}
    if isinstance(p, Predictions):
        columns["brier"] = metrics.brier_scores(p)
    matrix = np.stack([np.asarray(column, dtype=np.float64) for column in columns.values()], axis=1)
    means = exact_sums(counts, matrix) / counts.sum(1, dtype=np.float64)[:, None]
    return {**dict(zip(columns, means.T, strict=True)), **binned_draws(p, counts, bins)}
