"""Which pair changed most, how sure its place is, and whether the tasks agree about it."""

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.stats import chi2, rankdata

from merge_calib.scores import Floats

_MOST_PAIRS, _MOST_TASKS = 7, 20  # up to which the chi-square is too rough to stand alone
_MOST_ARRANGEMENTS = 20_000  # that are all looked at; of more a sample is drawn
_SAMPLE = 10_000


@dataclass(frozen=True)
class Rank:
    """The place of a pair, 1 for the largest change rate, and the 95 % interval of that place."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Concordance:
    """How far tasks agree on the order of the pairs: Kendall's W, 0 for not at all and 1 for the same order everywhere.

    chi_square, p_value: of the null hypothesis that each task orders the pairs at random, for many tasks or pairs
    permutation_p: the same from rearranging each task's ranks, where there are few of either, else None
    is_exact: whether all arrangements were looked at, not a sample
    """

    w: float
    pairs: int
    tasks: int
    chi_square: float
    p_value: float
    permutation_p: float | None
    is_exact: bool


def ranks(rates: Floats) -> Floats:
    """Ranks (..., P) of change rates over pairs: 1 for the largest, ties averaged; NaN stays NaN and is not counted."""
    found = np.full(rates.shape, np.nan)
    for place in np.ndindex(rates.shape[:-1]):
        known = ~np.isnan(rates[place])
        found[place][known] = rankdata(-rates[place][known])
    return found


def estimated_ranks(rates: Floats, draws: Floats) -> list[Rank | None]:
    """The rank of each pair with its bootstrap interval; None where the rate is undefined.

    rates (P,): NaN where undefined; draws (B, P): of the rates, each pair's on its own
    The interval is that of percentiles which were attained. A rate that is undefined in a draw (its base is not above
    0) may be anything: it counts as the largest and as the smallest, whichever makes an interval wider.
    """
    assert draws.shape == (len(draws), len(rates)), (draws.shape, rates.shape)
    known = ~np.isnan(rates)
    found: list[Rank | None] = [None] * len(rates)
    if not known.any():
        return found
    low, high = _rank_interval(draws[:, known])
    places = zip(np.flatnonzero(known), ranks(rates[known]), low, high, strict=True)
    for i, value, lowest, highest in places:
        # Ties of the values may have an average rank that no draw has.
        found[i] = Rank(float(value), float(min(lowest, value)), float(max(highest, value)))
    return found


def kendalls_w(rates: Floats) -> Concordance | None:
    """Kendall's coefficient of concordance of m tasks as judges of n pairs; None with fewer than two of either.

    W = 12 S / (m^2 (n^3 - n) - m sum_j T_j), S = sum_i (R_i - mean R)^2, R_i the sum of a pair's ranks, T_j = sum over
    groups of t tied pairs of t^3 - t; chi-square = m (n - 1) W with n - 1 degrees of freedom.
    rates (m, n): a task with a NaN judges nothing. None, too, where every task has all pairs tied.
    Source: Kendall & Babington Smith 1939; ties as in Siegel & Castellan 1988, section 9.6.
    """
    judges = ranks(rates[~np.isnan(rates).any(1)])
    m, n = judges.shape
    if m < 2 or n < 2:
        return None
    most = m**2 * (n**3 - n) - m * sum(map(_tie_sum, judges))
    if most == 0:
        return None
    spread = _spread(judges.sum(0))
    w = 12 * float(spread) / most
    chi_square = m * (n - 1) * w
    permuted, is_exact = _permutation_p(judges) if n <= _MOST_PAIRS and m <= _MOST_TASKS else (None, False)
    return Concordance(w, n, m, chi_square, float(chi2.sf(chi_square, n - 1)), permuted, is_exact)


def _rank_interval(draws: Floats) -> tuple[Floats, Floats]:
    """2.5th and 97.5th percentile of each pair's rank (P,)."""
    filled = [rankdata(-np.where(np.isnan(draws), extreme, draws), axis=1) for extreme in (np.inf, -np.inf)]
    low = np.quantile(np.minimum(*filled), 0.025, axis=0, method="inverted_cdf")
    high = np.quantile(np.maximum(*filled), 0.975, axis=0, method="inverted_cdf")
    return low, high


def _tie_sum(judge: Floats) -> float:
    counts = np.unique(judge, return_counts=True)[1]
    return float((counts**3 - counts).sum())


def _spread(sums: Floats) -> Floats:
    """S of rank sums (..., n)."""
    return np.asarray(((sums - sums.mean(-1, keepdims=True)) ** 2).sum(-1), dtype=np.float64)


def _permutation_p(judges: Floats) -> tuple[float, bool]:
    """Share of arrangements of each judge's ranks in which S is at least what it is, and whether that is exact.

    W grows with S alone, for rearranging leaves the ties as they are.
    """
    m, n = judges.shape
    least = float(_spread(judges.sum(0))) - 1e-9  # sums of halves are exact, their mean is not
    if math.factorial(n) ** (m - 1) <= _MOST_ARRANGEMENTS:
        return float((_spread(_all_sums(judges)) >= least).mean()), True
    rng = np.random.default_rng(0)
    sums = sum(rng.permuted(np.broadcast_to(judge, (_SAMPLE, n)), axis=1) for judge in judges)
    return float((1 + (_spread(np.asarray(sums)) >= least).sum()) / (1 + _SAMPLE)), False


def _all_sums(judges: Floats) -> Floats:
    """Rank sums of every arrangement; the first judge may stay, for only the others' order against it matters."""
    orders = np.array(list(permutations(range(judges.shape[1]))))
    sums = judges[:1]
    for judge in judges[1:]:
        sums = (sums[:, None] + judge[orders]).reshape(-1, judges.shape[1])
    return np.asarray(sums, dtype=np.float64)
