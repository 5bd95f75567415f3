"""The smallest difference that so many questions could have shown."""

import math

from scipy.stats import norm

from merge_calib.inference.joint import LEVEL, Joint

POWER = 0.8
REACH = float(norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER))  # 2.8 standard errors, two-sided


def detectable(joint: Joint, measure: str, name: str, other: str) -> float:
    """The true difference between two forecasts that a two-sided 5 % test on these questions finds in 80 % of samples.

    2.8 standard deviations of the paired draws of the difference, before any correction for several tests.
    Source: Cohen 1988; Card et al. 2020 for NLP.
    """
    return REACH * joint.spread(measure, name, other)


def detectable_accuracy(n: int, discordance: float) -> float:
    """The same in accuracy for n questions of which a share `discordance` is right in one forecast only: 2.8 sqrt(d/n).

    Source: the variance of McNemar's difference where the two are equally good.
    """
    return REACH * math.sqrt(discordance / n)
