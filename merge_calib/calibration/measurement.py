"""All measures of one point on one task by one confidence method."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from merge_calib.calibration import metrics
from merge_calib.scores import Predictions


@dataclass(frozen=True)
class Measurement:
    """The columns of results.csv that are measured; None where a measure is undefined."""

    n: int
    accuracy: float
    ece: float
    sce: float
    sce_agreement: float
    nll: float
    brier: float
    mean_confidence: float
    auroc: float | None
    ties: int
    ece_15: float
    sce_15: float


COLUMNS = tuple(field.name for field in fields(Measurement))


def measure(p: Predictions, bins: int = 10) -> Measurement:
    """Measure everything once; `bins` is M of ece, sce and sce_agreement, ece_15 and sce_15 always have 15."""
    return Measurement(
        n=len(p.answers),
        accuracy=metrics.accuracy(p),
        ece=metrics.ece(p, bins),
        sce=metrics.sce(p, bins),
        sce_agreement=metrics.sce_agreement(p, bins),
        nll=metrics.nll(p),
        brier=metrics.brier(p),
        mean_confidence=metrics.mean_confidence(p),
        auroc=metrics.auroc(p),
        ties=p.ties,
        ece_15=metrics.ece(p, 15),
        sce_15=metrics.sce(p, 15),
    )


def macro_average(measurements: Sequence[Measurement]) -> Measurement:
    """Mean over tasks, every task with the same weight; counts are summed, None where any task has None."""
    values: dict[str, float | int | None] = {}
    for name in COLUMNS:
        column = [getattr(m, name) for m in measurements]
        if name in ("n", "ties"):
            values[name] = sum(column)
        else:
            values[name] = None if None in column else math.fsum(column) / len(column)
    return Measurement(**values)  # type: ignore[arg-type]
