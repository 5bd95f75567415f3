"""What a run found: measurements, frontier and selected point, derived from the stored scores."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from merge_calib.calibration.measurement import COLUMNS, Measurement, macro_average, measure
from merge_calib.files import csv_text, write_json, write_text
from merge_calib.frontier import Candidate, Selection, non_dominated, select
from merge_calib.merging.point import MergePoint
from merge_calib.run_directory import RunDirectory
from merge_calib.scoring.scorer import CONFIDENCE_METHODS

MEAN = "mean"
RESULT_COLUMNS = ("point", "method", "lambda", "task", "confidence", "split", *COLUMNS)


@dataclass(frozen=True)
class Result:
    """One row of results.csv."""

    point: MergePoint
    task: str
    confidence: str
    measurement: Measurement


@dataclass(frozen=True)
class Results:
    """All measurements of a run, by point, task and confidence method, and the means over tasks."""

    run: RunDirectory
    rows: tuple[Result, ...]

    @classmethod
    def of(cls, run: RunDirectory) -> "Results":
        """Measure everything that the run has stored; no model is needed."""
        rows = [row for point in run.points() for row in _measured(run, point)]
        return cls(run, tuple(rows))

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.run.plan["tasks"])

    @cached_property
    def confidences(self) -> tuple[str, ...]:
        """The confidence methods asked for; the first one selects the point."""
        return tuple(self.run.plan["confidence"])

    def get(self, point: MergePoint, task: str, confidence: str) -> Measurement | None:
        """The measurement of one point, `task` may be `mean`; None where it was not measured."""
        return self._by_key.get((point, task, confidence))

    def line(self, task: str, confidence: str) -> list[Result]:
        """All points measured on `task` by `confidence`, in ascending order of lambda."""
        return [row for row in self.rows if row.task == task and row.confidence == confidence]

    def candidates(self, confidence: str) -> list[Candidate]:
        """Every point that has all tasks, by mean accuracy and mean SCE."""
        return [
            Candidate(r.point.name, r.point.lam, r.measurement.accuracy, r.measurement.sce)
            for r in self.line(MEAN, confidence)
        ]

    @cached_property
    def unmeasured(self) -> int:
        """How many lambdas of the last grid have no record: above 0 where the run was cut off."""
        if self.run.plan["search"] != "grid":
            return 0
        planned = {MergePoint(self.run.plan["method"], lam) for lam in (0, 1, *self.run.plan["lambdas"])}
        return len(planned - set(self.run.points()))

    @cached_property
    def incomplete(self) -> tuple[str, ...]:
        """Points that lack a task by the first confidence method: neither on the frontier nor to be selected."""
        complete = {c.name for c in self.candidates(self.confidences[0])}
        return tuple(sorted({row.point.name for row in self.rows} - complete))

    @cached_property
    def can_select(self) -> bool:
        """Whether the aligned model has all tasks by the first confidence method, which the rule needs."""
        return any(c.lam == 1.0 for c in self.candidates(self.confidences[0]))

    @cached_property
    def selection(self) -> Selection:
        """The point that the first confidence method selects."""
        return select(self.candidates(self.confidences[0]), self.run.plan["accuracy_margin"])

    def point(self, name: str) -> MergePoint:
        """The point called `name`."""
        return next(row.point for row in self.rows if row.point.name == name)

    @cached_property
    def _by_key(self) -> dict[tuple[MergePoint, str, str], Measurement]:
        return {(row.point, row.task, row.confidence): row.measurement for row in self.rows}

    def write(self) -> None:
        """Write results.csv and frontier.json."""
        write_text(self.run.path / "results.csv", results_csv(self.rows))
        write_json(self.run.path / "frontier.json", self._frontier())

    def _frontier(self) -> dict[str, Any]:
        return {
            "format": 1,
            "accuracy": "mean over tasks, higher is better",
            "sce": f"Nixon et al. 2019, M = {self.run.plan['bins']} bins, mean over tasks, lower is better",
            "split": "all",
            "selected_by": self.confidences[0],
            "selected": asdict(self.selection) if self.can_select else None,
            "frontier": {confidence: self._front(confidence) for confidence in self.confidences},
            "points": {confidence: self._points(confidence) for confidence in self.confidences},
            "incomplete": list(self.incomplete),
            "unmeasured": self.unmeasured,
        }

    def _front(self, confidence: str) -> list[str]:
        candidates = self.candidates(confidence)
        return [c.name for c, kept in zip(candidates, non_dominated(candidates), strict=True) if kept]

    def _points(self, confidence: str) -> list[dict[str, Any]]:
        return [
            {"point": c.name, "lambda": c.lam, "accuracy": c.accuracy, "sce": c.error}
            for c in self.candidates(confidence)
        ]


def results_csv(rows: Sequence[Result]) -> str:
    """The text of results.csv; numbers are written so that they read back exactly."""
    return csv_text(RESULT_COLUMNS, ([*_place(row), *(getattr(row.measurement, c) for c in COLUMNS)] for row in rows))


def _place(row: Result) -> tuple[object, ...]:
    return row.point.name, row.point.method, row.point.lam, row.task, row.confidence, "all"


def _measured(run: RunDirectory, point: MergePoint) -> list[Result]:
    rows = []
    for confidence in (c for c in CONFIDENCE_METHODS if c in run.plan["confidence"]):
        measurements = []
        for task in run.plan["tasks"]:
            scores = run.scores(point, task, confidence)
            if scores is not None:
                measurements.append(measure(scores.predictions, run.plan["bins"]))
                rows.append(Result(point, task, confidence, measurements[-1]))
        if len(measurements) == len(run.plan["tasks"]):
            rows.append(Result(point, MEAN, confidence, macro_average(measurements)))
    return rows
