"""Calibration errors of resampled questions: bins never move, so each is a product of counts and sums by bin."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from merge_calib.calibration.metrics import AnyPredictions, bin_index
from merge_calib.inference.resampling import Counts, exact_sums
from merge_calib.scores import Booleans, Floats, Predictions


@dataclass(frozen=True)
class _Column:
    """A binary forecast: its probability, whether it came true, and whether prediction and answer agree on it (N,)."""

    probability: Floats
    hit: Booleans
    agree: Booleans | None
    valid: Booleans | None


def binned_draws(p: AnyPredictions, counts: Counts, bins: int) -> dict[str, Floats]:
    """ece, ece2 and, where all options are known, sce, sce2 and sce_agreement of each of B samples (B,).

    The formulas are those of `calibration.metrics` and `calibration.squared`, with each question counted as often as
    it is drawn. Plug-in errors (ece, sce, sce_agreement) are biased upward, the more so in a sample with repeated
    questions, and so are ece2 and sce2 there: only the spread of these draws means something, never their percentiles.
    """
    (top,) = _sums(counts, [_Column(p.confidence, p.hit, None, None)], bins)
    found: dict[str, Floats | float] = {"ece": top.absolute / top.pairs, "ece2": top.squared}
    if isinstance(p, Predictions):
        classes = list(_sums(counts, list(_classes(p)), bins))
        pairs = sum(c.pairs for c in classes)
        for name, attribute in (("sce", "absolute"), ("sce_agreement", "agreement")):
            found[name] = sum(getattr(c, attribute) for c in classes) / pairs
        found["sce2"] = sum(c.squared * c.pairs for c in classes) / pairs
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}


@dataclass(frozen=True)
class _Sums:
    """Of one binary forecast in each sample (B,): sums over bins, and how many questions have it."""

    absolute: Floats
    agreement: Floats
    squared: Floats
    pairs: Floats


def _classes(p: Predictions) -> Iterator[_Column]:
    for k in range(p.mask.shape[1]):
        right = p.answers == k
        yield _Column(p.probabilities[:, k], right, (p.predicted == k) == right, p.mask[:, k])


def _sums(counts: Counts, columns: list[_Column], bins: int) -> Iterator[_Sums]:
    """One product for all forecasts: for each and each bin the number, the gaps, their squares, the agreement gaps."""
    matrix = np.concatenate([_by_bin(column, bins) for column in columns], axis=1)
    products = exact_sums(counts, matrix).reshape(len(counts), len(columns), 4, bins)
    for i in range(len(columns)):
        n, gap, square, agreement = products[:, i].swapaxes(0, 1)
        pairs = n.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            each = np.where(n >= 2, (gap**2 - square) / (n - 1), 0.0)
            squared = np.where(pairs > 0, each.sum(1) / pairs, 0.0)
        yield _Sums(np.abs(gap).sum(1), np.abs(agreement).sum(1), squared, pairs)


def _by_bin(column: _Column, bins: int) -> Floats:
    """(N, 4 M): what each question adds to each bin."""
    n = len(column.probability)
    rows = np.arange(n) if column.valid is None else np.flatnonzero(column.valid)
    index = bin_index(column.probability, bins)
    gap = column.hit - column.probability
    agree = gap if column.agree is None else column.agree - column.probability
    matrix = np.zeros((n, 4, bins))
    for i, values in enumerate((np.ones(n), gap, gap**2, agree)):
        matrix[rows, i, index[rows]] = values[rows]
    return matrix.reshape(n, 4 * bins)
