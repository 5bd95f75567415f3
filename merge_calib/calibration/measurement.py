"""All measures of one point on one task by one confidence method."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from merge_calib.calibration import metrics
from merge_calib.calibration.adaptive import adaptive_ece
from merge_calib.calibration.corp import brier_split
from merge_calib.calibration.selective import risk_coverage_area
from merge_calib.calibration.smooth import smooth_ece
from merge_calib.calibration.squared import squared_errors
from merge_calib.scores import Booleans, ChoiceScores, Predictions, Scores


@dataclass(frozen=True)
class Measurement:
    """The columns of results.csv that are measured; None where a measure is undefined.

    What needs all options (sce, sce_agreement, sce_15, sce2, brier with its parts, the two entropies) is undefined for
    next-token tasks. letter_mass (the mean probability of the letters under the whole vocabulary) and letter_bias
    belong to the method `choice` alone. ece2 and sce2 are debiased squared errors, which may be negative; aurc is the
    area under the risk-coverage curve; brier = brier_miscalibration - brier_discrimination + brier_uncertainty.
    """

    n: int
    accuracy: float
    ece: float
    sce: float | None
    sce_agreement: float | None
    nll: float
    brier: float | None
    mean_confidence: float
    auroc: float | None
    ties: int | None
    ece_15: float
    sce_15: float | None
    letter_mass: float | None = None
    letter_bias: float | None = None
    ece2: float | None = None
    sce2: float | None = None
    adaptive_ece: float | None = None
    smooth_ece: float | None = None
    overconfidence: float | None = None
    aurc: float | None = None
    brier_miscalibration: float | None = None
    brier_discrimination: float | None = None
    brier_uncertainty: float | None = None
    answer_entropy: float | None = None
    prediction_entropy: float | None = None


COLUMNS = tuple(field.name for field in fields(Measurement))


def measure(scores: Scores, confidence: str, bins: int = 10, rows: Booleans | None = None) -> Measurement:
    """Measure everything once on the questions of a mask (N,), or on all of them.

    `bins` is M of all binned measures but ece_15 and sce_15, which always have 15.
    """
    rows = np.ones(len(scores.ids), dtype=bool) if rows is None else rows
    p = scores.predictions if rows.all() else scores.predictions.take(rows)
    whole = p if isinstance(p, Predictions) else None
    letters = scores if isinstance(scores, ChoiceScores) and confidence == "choice" else None
    split = brier_split(whole) if whole else None
    squared = squared_errors(p, bins)
    return Measurement(
        n=len(p.hit),
        accuracy=metrics.accuracy(p),
        ece=metrics.ece(p, bins),
        sce=metrics.sce(whole, bins) if whole else None,
        sce_agreement=metrics.sce_agreement(whole, bins) if whole else None,
        nll=metrics.nll(p),
        brier=metrics.brier(whole) if whole else None,
        mean_confidence=metrics.mean_confidence(p),
        auroc=metrics.auroc(p),
        ties=p.ties,
        ece_15=metrics.ece(p, 15),
        sce_15=metrics.sce(whole, 15) if whole else None,
        letter_mass=float(letters.option_mass[rows].mean()) if letters and letters.is_normalised else None,
        letter_bias=metrics.letter_bias(whole) if letters and whole else None,
        ece2=squared.get("ece2"),
        sce2=squared.get("sce2"),
        adaptive_ece=adaptive_ece(p, bins),
        smooth_ece=smooth_ece(p),
        overconfidence=metrics.overconfidence(p),
        aurc=risk_coverage_area(p),
        brier_miscalibration=split.miscalibration if split else None,
        brier_discrimination=split.discrimination if split else None,
        brier_uncertainty=split.uncertainty if split else None,
        answer_entropy=metrics.answer_entropy(whole) if whole else None,
        prediction_entropy=metrics.prediction_entropy(whole) if whole else None,
    )


def macro_average(measurements: Sequence[Measurement]) -> Measurement:
    """Mean over tasks, every task with the same weight; counts are summed, None where any task has None."""
    values: dict[str, float | int | None] = {}
    for name in COLUMNS:
        column = [getattr(m, name) for m in measurements]
        if None in column:
            values[name] = None
        else:
            values[name] = sum(column) if name in ("n", "ties") else math.fsum(column) / len(column)
    return Measurement(**values)  # type: ignore[arg-type]
