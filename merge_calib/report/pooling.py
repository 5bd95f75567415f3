"""The judging questions of all tasks together."""

import numpy as np

from merge_calib.calibration.metrics import AnyPredictions
from merge_calib.points import Point
from merge_calib.results import Results
from merge_calib.scores import Predictions, TopPredictions, together


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
    return together([part for part in parts if isinstance(part, Predictions)])


def judged(results: Results, point: Point, task: str, confidence: str) -> AnyPredictions | None:
    """What a point answered to the judging questions of one task; None where it was not asked."""
    answers = results.answers.get((task, confidence))
    if answers is None or point not in answers.scores:
        return None
    return answers.of(point, answers.division.rows(results.judged))
