"""The judging questions of all tasks together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merge_calib.calibration.metrics import AnyPredictions
from merge_calib.points import Point
from merge_calib.results import Results
from merge_calib.scores import Predictions, TopPredictions


def pooled(results: Results, point: Point, confidence: str) -> AnyPredictions:
    """The judging questions of all tasks that `confidence` applies to, every question with the same weight."""
    parts = [judged(results, point, task, confidence) for task in results.tasks_of(confidence)]
    texts = [part for part in parts if isinstance(part, TopPredictions)]
    if texts:
        return TopPredictions(
            np.concatenate([p.confidence for p in texts]),
            np.concatenate([p.hit for p in texts]),
            np.concatenate([p.log_truth for p in texts]),
        )
    return _together([part for part in parts if isinstance(part, Predictions)])


def judged(results: Results, point: Point, task: str, confidence: str) -> AnyPredictions | None:
    """What a point answered to the judging questions of one task; None where it was not asked."""
    answers = results.answers.get((task, confidence))
    if answers is None or point not in answers.scores:
        return None
    return answers.of(point, answers.division.rows(results.judged))


def _together(predictions: Sequence[Predictions]) -> Predictions:
    options = max(p.mask.shape[1] for p in predictions)

    def stacked(arrays: Sequence[NDArray[Any]], fill: float) -> NDArray[Any]:
        return np.concatenate([np.pad(a, ((0, 0), (0, options - a.shape[1])), constant_values=fill) for a in arrays])

    return Predictions(
        stacked([p.log_probabilities for p in predictions], -np.inf),
        stacked([p.probabilities for p in predictions], 0.0),
        np.concatenate([p.answers for p in predictions]),
        stacked([p.mask for p in predictions], False),
    )
