"""What an adaptive search says of points that were not measured, from the answers of those that were.

Nothing is claimed of a prediction and nothing is selected by it: it is drawn, and stands in results.csv as such.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from merge_calib.answers import MEAN, Answers, Split
from merge_calib.calibration import metrics
from merge_calib.interpolation import interpolate
from merge_calib.merging.point import MergePoint
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores
from merge_calib.search.adaptive import places

PREDICTED = ("accuracy", "ece", "sce", "nll")


@dataclass(frozen=True)
class Prediction:
    """The measures of a point that was not measured, on one task (or their mean) by one confidence method."""

    point: MergePoint
    task: str
    confidence: str
    split: Split
    n: int
    accuracy: float
    ece: float
    sce: float
    nll: float

    @property
    def lam(self) -> float:
        """Its one lambda."""
        assert self.point.lam is not None
        return self.point.lam


def predictions_of(run: RunDirectory, answers: Mapping[tuple[str, str], Answers]) -> tuple[Prediction, ...]:
    """All predictions of a run, by point in ascending order; none where its last search did not settle."""
    search = run.search
    if search is None or search.get("strategy") != "adaptive" or not search["settled"]:
        return ()
    options = tuple(search["options"].items())
    points = {lam: MergePoint(search["method"], lam, options) for lam in (*search["nodes"], *places(search))}
    recorded = set(run.points())  # of whichever nothing is predicted, however little was asked of it
    wanted = [lam for lam in places(search) if points[lam] not in recorded]
    found: list[Prediction] = []
    for confidence in dict.fromkeys(confidence for _, confidence in answers):
        by_task = {task: known for (task, c), known in answers.items() if c == confidence}
        if all(_knows(known, [points[lam] for lam in search["nodes"]]) for known in by_task.values()):
            of_tasks = [
                list(_predict(known, task, confidence, search["nodes"], points, wanted, run.plan["bins"]))
                for task, known in by_task.items()
            ]
            found += [*(p for ps in of_tasks for p in ps), *(_mean(ps) for ps in zip(*of_tasks, strict=True))]
    return tuple(sorted(found, key=lambda p: p.point))


def _knows(answers: Answers, nodes: Sequence[MergePoint]) -> bool:
    """Whether all nodes answered, to questions of multiple choice."""
    return all(isinstance(answers.scores.get(point), ChoiceScores) for point in nodes)


def _predict(
    answers: Answers,
    task: str,
    confidence: str,
    nodes: Sequence[float],
    points: Mapping[float, MergePoint],
    wanted: Sequence[float],
    bins: int,
) -> Iterator[Prediction]:
    measured: list[Any] = [answers.scores[points[lam]] for lam in nodes]
    for lam, scores in zip(wanted, interpolate(nodes, measured, wanted), strict=True):
        for split in answers.division.splits:
            p = scores.predictions.take(answers.division.rows(split))
            measures = metrics.accuracy(p), metrics.ece(p, bins), metrics.sce(p, bins), metrics.nll(p)
            yield Prediction(points[lam], task, confidence, split, len(p.answers), *measures)


def _mean(of_tasks: Sequence[Prediction]) -> Prediction:
    first = of_tasks[0]
    measures = [fmean(getattr(p, name) for p in of_tasks) for name in PREDICTED]
    return Prediction(first.point, MEAN, first.confidence, first.split, sum(p.n for p in of_tasks), *measures)
