"""What more of the alignment does: how a measure moves with lambda, and where it gives way past the aligned model."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from merge_calib.degradation.change import recentred, spread_estimate
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.holm import holm
from merge_calib.scores import Booleans, Floats

_ROUNDING = 1e-12  # what sums of the same numbers differ by: no spread, no rise and no fall


@dataclass(frozen=True)
class Line:
    """A measure along lambda.

    lambdas (L,): ascending, no two alike; values (L,): of the measure
    draws (B, L): of the measure on resampled questions, the same questions for every lambda; n: questions
    The draws may be biased, as those of calibration errors are: whatever is not linear recentres them first.
    """

    lambdas: Floats
    values: Floats
    draws: Floats
    n: int

    def __post_init__(self) -> None:
        count = len(self.lambdas)
        assert count == len(self.values) == self.draws.shape[1], (count, len(self.values), self.draws.shape)
        assert (np.diff(self.lambdas) > 0).all(), "lambdas must ascend"
        assert np.isfinite(self.values).all()
        assert np.isfinite(self.draws).all()

    def at(self, kept: Booleans) -> "Line":
        """Only the points that are True in `kept` (L,)."""
        return Line(self.lambdas[kept], self.values[kept], self.draws[:, kept], self.n)

    @property
    def amplified(self) -> "Line":
        """The aligned model and what lies past it, lambda >= 1."""
        return self.at(self.lambdas >= 1)


@dataclass(frozen=True)
class Worsening:
    """A point past the aligned model compared with it.

    difference: the measure there minus the aligned model's, with its own 95 % interval
    p_value: one-sided, of the null hypothesis that it is not worse; adjusted: by Holm over all points with lambda > 1
    """

    lam: float
    difference: Estimate
    p_value: float
    adjusted: float


@dataclass(frozen=True)
class Collapse:
    """Every point with lambda > 1 compared with the aligned model, in ascending order, at a family-wise level."""

    worsenings: tuple[Worsening, ...]
    level: float

    @property
    def first(self) -> float | None:
        """The smallest lambda > 1 that is worse than the aligned model beyond chance; None where none is."""
        return next((w.lam for w in self.worsenings if w.adjusted <= self.level), None)


def slope(line: Line) -> Estimate | None:
    """Least-squares slope of the measure per unit of lambda, value +- 1.96 SD; None with fewer than two lambdas."""
    if len(line.lambdas) < 2:
        return None
    offsets = line.lambdas - line.lambdas.mean()
    weights = offsets / (offsets**2).sum()
    # Linear in the values: a constant bias of the draws moves all of them alike and leaves their spread.
    return spread_estimate(float(line.values @ weights), line.draws @ weights, line.n)


def kendalls_tau(line: Line) -> Estimate | None:
    """Kendall's tau-b of the measure with lambda: 1 where it never falls, -1 where it never rises.

    tau = (pairs that rise - pairs that fall) / sqrt(pairs x pairs that differ), percentiles of recentred draws. Noise
    between points that are nearly level turns pairs over, so that draws lie nearer to 0 than the value does; the
    interval is widened to hold the value. None with fewer than three lambdas, or where a draw is constant.
    Source: Kendall 1945.
    """
    if len(line.lambdas) < 3:
        return None
    value, draws = _tau(line.values[None]), _tau(recentred(line.values, line.draws))
    if not np.isfinite(value).all() or not np.isfinite(draws).all():
        return None
    low, high = np.quantile(draws, [0.025, 0.975])
    found = float(value[0])
    return Estimate(found, min(float(low), found), max(float(high), found), line.n)


def collapse(line: Line, higher_is_better: bool, level: float = 0.05) -> Collapse | None:
    """Test every lambda > 1 against the aligned model; the first that is worse is the point of collapse.

    z = (how much worse) / SD of its draws, one-sided; Holm over the lambdas > 1 of this one measure, so that the
    chance to name any point where none is worse is at most `level`. Questions are the same, so draws are paired.
    None where the line has no lambda = 1 or none above.
    """
    aligned = np.flatnonzero(line.lambdas == 1)
    past = np.flatnonzero(line.lambdas > 1)
    if not len(aligned) or not len(past):
        return None
    values = line.values[past] - line.values[aligned[0]]
    draws = line.draws[:, past] - line.draws[:, aligned]
    estimates = [spread_estimate(float(v), d, line.n) for v, d in zip(values, draws.T, strict=True)]
    worse = -values if higher_is_better else values
    p_values = _one_sided(worse, draws.std(0, ddof=1))
    adjusted = holm(p_values)
    rows = zip(line.lambdas[past], estimates, p_values, adjusted, strict=True)
    return Collapse(tuple(Worsening(float(lam), e, float(p), float(a)) for lam, e, p, a in rows), level)


def _one_sided(worse: Floats, spread: Floats) -> Floats:
    """p-values (K,) of a normal test; without any spread there is nothing to test and p is 1."""
    z = np.divide(worse, spread, out=np.full(len(worse), -np.inf), where=spread > _ROUNDING)
    return np.asarray(norm.sf(z), dtype=np.float64)


def _tau(values: Floats) -> Floats:
    """Tau-b of each row (B, L) with the order of its columns (B,); NaN for a constant row."""
    first, second = np.triu_indices(values.shape[1], 1)
    rises = values[:, second] - values[:, first]
    signs = np.where(np.abs(rises) > _ROUNDING, np.sign(rises), 0.0)
    differing = np.abs(signs).sum(1)
    with np.errstate(invalid="ignore"):
        return np.asarray(signs.sum(1) / np.sqrt(len(first) * differing), dtype=np.float64)
