"""The recovered share of what alignment cost, with an interval for the ratio."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from merge_calib.inference.joint import LEVEL, Joint
from merge_calib.scores import Floats

_Z = float(norm.ppf(1 - LEVEL / 2))


@dataclass(frozen=True)
class Recovery:
    """(C_aligned - C_point) / (C_aligned - C_base) of a measure C: 0 is the aligned model, 1 the base.

    None for all three where the loss C_aligned - C_base is not above 0 by its own 95 % interval, or by less than 1.96
    standard deviations: a share of nothing.
    The measures ece2 and sce2 are squared errors, where half the error is a quarter: .75 recovered of sce2 is half of
    the root.
    """

    measure: str
    value: float | None
    low: float | None
    high: float | None


def recovery(joint: Joint, measure: str, point: str, base: str, aligned: str) -> Recovery:
    """The recovery of one lower-is-better measure with its 95 % interval.

    Source: Fieller 1954; the spreads of gain and loss, and how they go together, are those of the paired draws.
    """
    loss = joint.difference(measure, aligned, base)
    if loss.low <= 0:
        return Recovery(measure, None, None, None)
    gain = joint.value(measure, aligned) - joint.value(measure, point)
    draws = joint.draws[measure]
    a, p, b = (draws[:, joint.at(name)] for name in (aligned, point, base))
    low, high = fieller(gain, loss.value, np.cov(a - p, a - b))
    if math.isinf(low):  # the percentile interval of a mean may just exclude 0 where 1.96 standard deviations do not
        return Recovery(measure, None, None, None)
    return Recovery(measure, gain / loss.value, low, high)


def fieller(numerator: float, denominator: float, covariance: Floats) -> tuple[float, float]:
    """The 95 % interval of a ratio of two normal estimates with the given covariance (2, 2).

    The set of r for which numerator - r denominator is not significantly different from 0; infinite on both sides
    where the denominator is not significantly different from 0 itself.
    """
    (v11, v12), (_, v22) = covariance
    a = denominator**2 - _Z**2 * v22
    b = numerator * denominator - _Z**2 * v12
    c = numerator**2 - _Z**2 * v11
    inside = b**2 - a * c
    if a <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(inside, 0.0))
    return float((b - root) / a), float((b + root) / a)
