"""All measures of one point on one task by one confidence method."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from merge_calib.calibration import metrics
from merge_calib.scores import ChoiceScores, Predictions, Scores


@dataclass(frozen=True)
class Measurement:
    """The columns of results.csv that are measured; None where a measure is undefined.

    sce, sce_agreement, brier and sce_15 need all options and are undefined for next-token tasks. letter_mass (the mean
    probability of the letters under the whole vocabulary) and letter_bias belong to the method `choice` alone.
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


COLUMNS = tuple(field.name for field in fields(Measurement))


def measure(scores: Scores, confidence: str, bins: int = 10) -> Measurement:
    """Measure everything once; `bins` is M of ece, sce and sce_agreement, ece_15 and sce_15 always have 15."""
    p = scores.predictions
    whole = p if isinstance(p, Predictions) else None
    letters = scores if isinstance(scores, ChoiceScores) and confidence == "choice" else None
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
        letter_mass=float(letters.option_mass.mean()) if letters and letters.is_normalised else None,
        letter_bias=metrics.letter_bias(letters.predictions) if letters else None,
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
