"""What a run found: measurements, frontier and selected point, derived from the stored scores.

results.csv has one row for each point x task x confidence method x split. Every run has the columns `point`, `task`,
`confidence`, `split` and the measures; what stands between `point` and `task` says which point it is: `method, lambda`
(empty where groups of tensors have lambdas of their own) in a sweep, `model, label, position` (empty where only the
order counts) in an evaluation. The task `mean` is the average over the tasks that a confidence method applies to.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from merge_calib.calibration.measurement import COLUMNS, Measurement, macro_average, measure
from merge_calib.files import csv_text, write_json, write_text
from merge_calib.frontier import Candidate, Selection, non_dominated, select
from merge_calib.merging.point import MergePoint
from merge_calib.points import Point, axis_points, place_cells, place_columns
from merge_calib.run_directory import RunDirectory
from merge_calib.scoring.questionnaire import CONFIDENCE_METHODS, NEXT_TOKEN

MEAN = "mean"


@dataclass(frozen=True)
class Result:
    """One row of results.csv."""

    point: Point
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

    @property
    def is_sweep(self) -> bool:
        """Whether the points lie between two parents; else they are models along an axis."""
        return self.run.kind == "sweep"

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.run.plan["tasks"])

    def tasks_of(self, confidence: str) -> tuple[str, ...]:
        """The tasks that `confidence` applies to."""
        return _tasks_of(self.run.plan, confidence)

    @cached_property
    def confidences(self) -> tuple[str, ...]:
        """The confidence methods that apply to a task, in the order asked for; the first one selects the point."""
        return _confidences(self.run.plan)

    @cached_property
    def choice_methods(self) -> tuple[str, ...]:
        """The confidence methods of multiple choice, which alone know SCE and so a frontier."""
        return tuple(c for c in self.confidences if c != NEXT_TOKEN)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """All points of which something was measured, in order."""
        return tuple(dict.fromkeys(row.point for row in self.rows))

    def get(self, point: Point, task: str, confidence: str) -> Measurement | None:
        """The measurement of one point, `task` may be `mean`; None where it was not measured."""
        return self._by_key.get((point, task, confidence))

    def line(self, task: str, confidence: str) -> list[Result]:
        """All points measured on `task` by `confidence`, in ascending order of lambda or in that of the axis."""
        return [row for row in self.rows if row.task == task and row.confidence == confidence]

    def candidates(self, confidence: str) -> list[Candidate]:
        """Every merge that has all multiple-choice tasks, by mean accuracy and mean SCE."""
        return [
            Candidate(r.point.name, r.point.lam, r.measurement.accuracy, r.measurement.sce, r.point.is_aligned)
            for r in self.line(MEAN, confidence)
            if isinstance(r.point, MergePoint) and r.measurement.sce is not None
        ]

    @cached_property
    def unmeasured(self) -> int:
        """How many points of the last plan have no record: above 0 where the run was cut off."""
        plan = self.run.plan
        planned: set[Point] = set()
        if not self.is_sweep:
            planned.update(axis_points(plan["models"]))
        elif plan["search"] == "grid":
            planned.update(_planned(plan))
        return len(planned - set(self.run.points()))

    @cached_property
    def failed(self) -> dict[str, str]:
        """Why each point that could not be measured failed, by its name."""
        reasons = {point.name: self.run.failure(point) for point in self.run.points()}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    @cached_property
    def incomplete(self) -> tuple[str, ...]:
        """Points that lack a task by the first confidence method: neither on the frontier nor to be selected."""
        complete = {row.point for row in self.line(MEAN, self.confidences[0])}
        return tuple(sorted(point.name for point in self.points if point not in complete))

    @cached_property
    def can_select(self) -> bool:
        """Whether the aligned model has all tasks by the first confidence method, which the rule needs."""
        return any(c.is_aligned for c in self.candidates(self.confidences[0]))

    @cached_property
    def selection(self) -> Selection:
        """The point that the first confidence method selects."""
        return select(self.candidates(self.confidences[0]), self.run.plan["accuracy_margin"])

    def point(self, name: str) -> MergePoint:
        """The merge called `name`."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, MergePoint]:
        return {point.name: point for point in self.points if isinstance(point, MergePoint)}

    @cached_property
    def _by_key(self) -> dict[tuple[Point, str, str], Measurement]:
        return {(row.point, row.task, row.confidence): row.measurement for row in self.rows}

    def write(self) -> None:
        """Write results.csv and, for a sweep, frontier.json."""
        write_text(self.run.path / "results.csv", results_csv(self))
        if self.is_sweep:
            write_json(self.run.path / "frontier.json", self._frontier())

    def _frontier(self) -> dict[str, Any]:
        return {
            "format": 1,
            "accuracy": "mean over tasks, higher is better",
            "sce": f"Nixon et al. 2019, M = {self.run.plan['bins']} bins, mean over tasks, lower is better",
            "split": "all",
            "selected_by": self.confidences[0],
            "selected": asdict(self.selection) if self.can_select else None,
            "frontier": {confidence: self._front(confidence) for confidence in self.choice_methods},
            "points": {confidence: self._points(confidence) for confidence in self.choice_methods},
            "incomplete": list(self.incomplete),
            "unmeasured": self.unmeasured,
            "failed": [{"point": name, "reason": reason} for name, reason in self.failed.items()],
        }

    def _front(self, confidence: str) -> list[str]:
        candidates = self.candidates(confidence)
        return [c.name for c, kept in zip(candidates, non_dominated(candidates), strict=True) if kept]

    def _points(self, confidence: str) -> list[dict[str, Any]]:
        return [
            {"point": c.name, **self.point(c.name).record(), "accuracy": c.accuracy, "sce": c.error}
            for c in self.candidates(confidence)
        ]


def results_csv(results: Results) -> str:
    """The text of results.csv; numbers are written so that they read back exactly."""
    header = (*place_columns(results.is_sweep), "task", "confidence", "split", *COLUMNS)
    rows = (
        [*place_cells(row.point), row.task, row.confidence, "all", *(getattr(row.measurement, c) for c in COLUMNS)]
        for row in results.rows
    )
    return csv_text(header, rows)


def _planned(plan: Mapping[str, Any]) -> set[MergePoint]:
    """The points of a grid; run.json lists them, but for runs of a time when there was one lambda to a point."""
    if plan.get("points") is not None:
        return {MergePoint.read(record) for record in plan["points"]}
    options = tuple(plan.get("options", {}).items())
    parents = {MergePoint("linear", 0.0), MergePoint("linear", 1.0)}
    return parents | {MergePoint(plan["method"], lam, options) for lam in plan["lambdas"]}


def _confidences(plan: Mapping[str, Any]) -> tuple[str, ...]:
    asked = [*(c for c in plan["confidence"] if c != NEXT_TOKEN), NEXT_TOKEN]
    return tuple(c for c in asked if _tasks_of(plan, c))


def _tasks_of(plan: Mapping[str, Any], confidence: str) -> tuple[str, ...]:
    return tuple(name for name, task in plan["tasks"].items() if _applies(confidence, task))


def _applies(confidence: str, task: Mapping[str, Any]) -> bool:
    """Whether the method is one of the task's; imported tasks say which they have, others have all of their kind."""
    if "methods" in task:
        return confidence in task["methods"]
    return bool((confidence == NEXT_TOKEN) == (task.get("kind") == "next-token"))


def _measured(run: RunDirectory, point: Point) -> list[Result]:
    rows = []
    for confidence in (c for c in CONFIDENCE_METHODS if c in _confidences(run.plan)):
        measurements = []
        tasks = _tasks_of(run.plan, confidence)
        for task in tasks:
            scores = run.scores(point, task, confidence)
            if scores is not None:
                measurements.append(measure(scores, confidence, run.plan["bins"]))
                rows.append(Result(point, task, confidence, measurements[-1]))
        if len(measurements) == len(tasks):
            rows.append(Result(point, MEAN, confidence, macro_average(measurements)))
    return rows
