"""What alignment did to a measure, from base to aligned."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from merge_calib.inference.estimate import Estimate
from merge_calib.scores import Booleans, Floats

_SPREAD = 1.959963984540054  # standard deviations on either side of a 95 % interval


@dataclass(frozen=True)
class Change:
    """A measure of both parents, with its change, its change rate in % and the logarithm of their ratio.

    floor: 95th percentile of what the base would measure if it were perfectly calibrated; None where a measure has none
    """

    base: float | None
    aligned: float | None
    floor: float | None = None

    @property
    def difference(self) -> float | None:
        """aligned - base; None where either is undefined."""
        if self.base is None or self.aligned is None:
            return None
        return self.aligned - self.base

    @property
    def rate(self) -> float | None:
        """(aligned - base) / base x 100; None where the base is not above 0 or either is undefined.

        Source: Oh & Hwang 2024.
        """
        if self.base is None or self.aligned is None or self.base <= 0:
            return None
        return (self.aligned - self.base) / self.base * 100

    @property
    def log_ratio(self) -> float | None:
        """ln(aligned / base), which is 0 without a change and turns its sign with the roles; None where undefined.

        Both must be above 0.
        """
        if self.base is None or self.aligned is None or self.base <= 0 or self.aligned <= 0:
            return None
        return math.log(self.aligned / self.base)

    @property
    def unstable(self) -> bool | None:
        """Whether the base lies under its noise floor, so that rate and ratio divide by noise; None without a floor."""
        if self.base is None or self.floor is None:
            return None
        return self.base < self.floor


@dataclass(frozen=True)
class ChangeEstimate:
    """A change with intervals; None where a number is undefined, or where some draws leave it so."""

    change: Change
    difference: Estimate | None
    rate: Estimate | None
    log_ratio: Estimate | None


def estimated(change: Change, base: Floats, aligned: Floats, n: int, is_mean: bool) -> ChangeEstimate:
    """Give each number of a change its 95 % interval from draws of both parents on the same questions.

    base (B,), aligned (B,): draws, paired; n: questions
    is_mean: whether the measure is a mean over questions. Then all intervals are percentiles of the draws. Else the
    draws are biased: the difference has value +- 1.96 SD, rate and ratio have percentiles of recentred draws.
    A draw in which rate or ratio is undefined (the base may as well be 0) takes its interval away.
    The bias of a plug-in calibration error itself stays, so that its interval shows the spread of the number and not
    where the true error lies; the debiased errors are for that.
    """
    if change.base is None or change.aligned is None:
        return ChangeEstimate(change, None, None, None)
    assert base.shape == aligned.shape, (base.shape, aligned.shape)
    value, differences = change.aligned - change.base, aligned - base
    base, aligned = unbiased(change, base, aligned, is_mean)
    return ChangeEstimate(
        change,
        _percentile_estimate(value, differences, n) if is_mean else spread_estimate(value, differences, n),
        _percentile_estimate(change.rate, rates(base, aligned), n),
        _percentile_estimate(change.log_ratio, log_ratios(base, aligned), n),
    )


def unbiased(change: Change, base: Floats, aligned: Floats, is_mean: bool) -> tuple[Floats, Floats]:
    """Draws (B,) of both parents, those of a mean as they are, others recentred at the two values of `change`."""
    if is_mean or change.base is None or change.aligned is None:
        return base, aligned
    return recentred(np.array(change.base), base), recentred(np.array(change.aligned), aligned)


def recentred(values: Floats, draws: Floats) -> Floats:
    """Draws (B, ...) moved so that their means are `values` (...), which takes the bias of resampling away."""
    return np.asarray(draws - draws.mean(0) + values, dtype=np.float64)


def rates(base: Floats, aligned: Floats) -> Floats:
    """Change rates in % of any shape, NaN where the base is not above 0."""
    return _where(base > 0, lambda b, a: (a - b) / b * 100, base, aligned)


def log_ratios(base: Floats, aligned: Floats) -> Floats:
    """ln(aligned / base) of any shape, NaN where either is not above 0."""
    return _where((base > 0) & (aligned > 0), lambda b, a: np.log(a / b), base, aligned)


def spread_estimate(value: float, draws: Floats, n: int) -> Estimate:
    """value +- 1.96 SD of its draws (B,): the draws give the spread only, so their own bias does not matter."""
    half = _SPREAD * float(draws.std(ddof=1))
    return Estimate(value, value - half, value + half, n)


def _percentile_estimate(value: float | None, draws: Floats, n: int) -> Estimate | None:
    if value is None or not np.isfinite(draws).all():
        return None
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high), n)


def _where(valid: Booleans, formula: Callable[[Floats, Floats], Floats], base: Floats, aligned: Floats) -> Floats:
    found = np.full(np.shape(base), np.nan)
    found[valid] = formula(base[valid], aligned[valid])
    return found
