"""What a run found: measurements, noise floors, intervals and the selected point, derived from the stored scores.

results.csv has one row for each point x task x confidence method x split. Every run has the columns `point`, `task`,
`confidence`, `split` and the measures; what stands between `point` and `task` says which point it is: `method, lambda`
(empty where groups of tensors have lambdas of their own) in a sweep, `model, label, position` (empty where only the
order counts) in an evaluation. The task `mean` is the average over the tasks that a confidence method applies to. The
split is `select` (what was tuned looked at these questions), `report` (what is claimed comes from these) or `all`.
The `source` of a row is `measured`, or `predicted` where an adaptive search interpolated what the point would answer.
Points that a search asked the choosing questions alone have rows of the split `select` only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from merge_calib.analysis import Analysis
from merge_calib.answers import MEAN, Answers, Split, answers_of
from merge_calib.calibration.measurement import COLUMNS, Measurement, macro_average, measure
from merge_calib.calibration.noise_floor import Floor, mean_floor, noise_floor
from merge_calib.files import csv_text, write_text
from merge_calib.frontier import Candidate
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.joint import DEBIASED, MEANS, Joint, average, joint_of
from merge_calib.inference.resampling import seed_of
from merge_calib.merging.point import MergePoint
from merge_calib.points import Point, axis_points, place_cells, place_columns
from merge_calib.predictions import PREDICTED, Prediction, predictions_of
from merge_calib.run_directory import RunDirectory
from merge_calib.scoring.questionnaire import CONFIDENCE_METHODS, NEXT_TOKEN
from merge_calib.selection import Selection, select

WITH_INTERVALS = tuple(m for m in (*MEANS, *DEBIASED) if m != "mean_confidence")
WITH_FLOORS = ("ece", "sce")
REDRAWS = 200  # of a noise floor
MEASURED = "measured"


@dataclass(frozen=True)
class Result:
    """One row of results.csv.

    floors: what ece and sce would be of a calibrated model with the same probabilities; not for the split `select`
    """

    point: Point
    task: str
    confidence: str
    split: Split
    measurement: Measurement
    floors: Mapping[str, Floor] = field(default_factory=dict, hash=False, repr=False)


@dataclass(frozen=True, eq=False)
class Results:
    """All measurements of a run, by point, task, confidence method and split, and the means over tasks.

    answers: what was said, by task and confidence method
    rows: of points that were asked everything; explored: of points that were asked the choosing questions alone
    predicted: what an adaptive search says of the points between; nothing rests on them
    """

    run: RunDirectory
    analysis: Analysis
    answers: Mapping[tuple[str, str], Answers]
    rows: tuple[Result, ...]
    explored: tuple[Result, ...] = ()
    predicted: tuple[Prediction, ...] = ()

    @classmethod
    def of(cls, run: RunDirectory, analysis: Analysis | None = None) -> "Results":
        """Measure everything that the run has stored, as it says or by another `analysis`; no model is needed."""
        analysis = analysis or Analysis.of(run.plan)
        points = run.points()
        answers: dict[tuple[str, str], Answers] = {}
        for confidence in _confidences(run.plan):
            for task in _tasks_of(run.plan, confidence):
                found = answers_of(run, points, task, confidence, analysis, divides=run.kind == "sweep")
                if found is not None:
                    answers[task, confidence] = found
        rows = tuple(_rows(run, points, answers))
        explored = tuple(_explored(run, points, rows))
        return cls(run, analysis, answers, rows, explored, predictions_of(run, answers))

    @property
    def is_sweep(self) -> bool:
        """Whether the points lie between two parents; else they are models along an axis."""
        return self.run.kind == "sweep"

    @property
    def judged(self) -> Split:
        """The split whose numbers are shown: `report`, or `all` where every question judges."""
        return "report" if self.is_sweep and not self.analysis.cross_fit else "all"

    @property
    def chosen_on(self) -> Split:
        """The split that chooses the point: `select`, or `all` where the procedure is judged by cross-fitting."""
        return "select" if self.judged == "report" else "all"

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

    def row(self, point: Point, task: str, confidence: str, split: Split | None = None) -> Result | None:
        """The row of one point on the judged split or another; None where it was not measured."""
        return self._by_key.get((point, task, confidence, split or self.judged))

    def get(self, point: Point, task: str, confidence: str, split: Split | None = None) -> Measurement | None:
        """The measurement of one point, `task` may be `mean`; None where it was not measured."""
        row = self.row(point, task, confidence, split)
        return None if row is None else row.measurement

    def line(self, task: str, confidence: str, split: Split | None = None) -> list[Result]:
        """All points measured on `task` by `confidence`, in ascending order of lambda or in that of the axis."""
        key = task, confidence, split or self.judged
        return [row for row in self.rows if (row.task, row.confidence, row.split) == key]

    def candidates(self, confidence: str, split: Split | None = None) -> list[Candidate]:
        """Every merge that has all multiple-choice tasks, by mean accuracy and mean SCE."""
        return [
            Candidate(r.point.name, r.point.lam, r.measurement.accuracy, r.measurement.sce, r.point.is_aligned)
            for r in self.line(MEAN, confidence, split)
            if isinstance(r.point, MergePoint) and r.measurement.sce is not None
        ]

    def joint(self, task: str, confidence: str, split: Split | None = None) -> Joint | None:
        """All points that have `task` (or all tasks, for `mean`) together, with paired draws; None where none has."""
        key = task, confidence, split or self.judged
        if key not in self._joints:
            self._joints[key] = self._make_joint(*key)
        return self._joints[key]

    def estimate(self, row: Result, measure: str) -> Estimate | None:
        """The 95 % interval of a measure of a row; None where it has none: on `select`, or a plug-in error."""
        if row.split == "select" or measure not in WITH_INTERVALS:
            return None
        joint = self.joint(row.task, row.confidence, row.split)
        return joint.estimate(measure, row.point.name) if joint is not None and joint.has(measure) else None

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
    def stopped(self) -> dict[str, dict[str, Any]]:
        """Why a search stopped asking a point, by its name; of those that were asked everything later, nothing."""
        whole = {point.name for point in self.points}
        reasons = {point.name: self.run.stopped(point) for point in self.run.points() if point.name not in whole}
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
        return select(self.candidates(self.confidences[0], self.chosen_on), self.analysis.rule)

    @cached_property
    def left_out(self) -> dict[str, str]:
        """The point that the rule selects when one task is left out, by that task; empty where there is only one."""
        confidence = self.confidences[0]
        tasks = self.tasks_of(confidence)
        if len(tasks) < 2:
            return {}
        return {out: self._select_on([task for task in tasks if task != out], confidence) for out in tasks}

    def _select_on(self, tasks: Sequence[str], confidence: str) -> str:
        """The name of the point that the rule selects by some tasks."""
        candidates = []
        for c in self.candidates(confidence, self.chosen_on):
            found = [self.get(self.point(c.name), task, confidence, self.chosen_on) for task in tasks]
            mean = macro_average([m for m in found if m is not None])
            assert mean.sce is not None
            candidates.append(Candidate(c.name, c.lam, mean.accuracy, mean.sce, c.is_aligned))
        return select(candidates, self.analysis.rule).point

    def point(self, name: str) -> MergePoint:
        """The merge called `name`."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, MergePoint]:
        return {point.name: point for point in self.points if isinstance(point, MergePoint)}

    @cached_property
    def _by_key(self) -> dict[tuple[Point, str, str, Split], Result]:
        return {(row.point, row.task, row.confidence, row.split): row for row in self.rows}

    @cached_property
    def _joints(self) -> dict[tuple[str, str, Split], Joint | None]:
        return {}

    def _make_joint(self, task: str, confidence: str, split: Split) -> Joint | None:
        if task == MEAN:
            names = {row.point.name: row.point.name for row in self.line(MEAN, confidence, split)}
            joints = [self.joint(task, confidence, split) for task in self.tasks_of(confidence)]
            return average([j.renamed(names) for j in joints if j is not None]) if names else None
        answers = self.answers.get((task, confidence))
        if answers is None:
            return None
        rows = answers.division.rows(split)
        forecasts = {point.name: answers.of(point, rows) for point in answers.scores}
        return joint_of(forecasts, answers.division.counts(rows), self.run.plan["bins"])

    def write(self) -> None:
        """Write results.csv."""
        write_text(self.run.path / "results.csv", results_csv(self))


def results_csv(results: Results) -> str:
    """The text of results.csv; measures are written so that they read back exactly, intervals to 6 digits.

    An interval of the column x is x_low, x_high; the noise floor of ece and sce is x_floor (its mean), x_floor_95 and
    x_p, the share of floors as high as the value.
    """
    intervals = [f"{measure}_{end}" for measure in WITH_INTERVALS for end in ("low", "high")]
    floors = [f"{measure}_{part}" for measure in WITH_FLOORS for part in ("floor", "floor_95", "p")]
    header = (*place_columns(results.is_sweep), "task", "confidence", "split", "source", *COLUMNS, *intervals, *floors)
    measured = (
        [
            *place_cells(row.point),
            *(row.task, row.confidence, row.split, MEASURED),
            *(getattr(row.measurement, c) for c in COLUMNS),
            *_interval_cells(results, row),
            *_floor_cells(row),
        ]
        for row in (*results.rows, *results.explored)
    )
    predicted = (
        [
            *place_cells(row.point),
            *(row.task, row.confidence, row.split, "predicted"),
            *(getattr(row, c) if c in ("n", *PREDICTED) else None for c in COLUMNS),
            *(None for _ in (*intervals, *floors)),
        ]
        for row in results.predicted
    )
    return csv_text(header, [*measured, *predicted])


def _interval_cells(results: Results, row: Result) -> Iterator[float | None]:
    for column in WITH_INTERVALS:
        estimate = results.estimate(row, column)
        for end in (estimate.low, estimate.high) if estimate else (None, None):
            yield None if end is None else float(f"{end:.6g}")


def _floor_cells(row: Result) -> Iterator[float | None]:
    for column in WITH_FLOORS:
        floor = row.floors.get(column)
        for value in (floor.mean, floor.p95, floor.p_value) if floor else (None,) * 3:
            yield None if value is None else float(f"{value:.6g}")


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


def _rows(run: RunDirectory, points: Sequence[Point], answers: Mapping[tuple[str, str], Answers]) -> Iterator[Result]:
    """Every point, the confidence methods in their fixed order, the tasks in theirs and their mean, every split."""
    for point in points:
        for confidence in (c for c in CONFIDENCE_METHODS if c in _confidences(run.plan)):
            tasks = _tasks_of(run.plan, confidence)
            measured = []
            for task in tasks:
                known = answers.get((task, confidence))
                if known is not None and point in known.scores:
                    measured.append(list(_measured(run, point, known, task, confidence)))
                    yield from measured[-1]
            if len(measured) == len(tasks):
                yield from (_mean(rows) for rows in zip(*measured, strict=True))


def _explored(run: RunDirectory, points: Sequence[Point], rows: Sequence[Result]) -> Iterator[Result]:
    """What points answered to the choosing questions of tasks of which they were asked no others, and the mean.

    rows: of tasks that were asked whole
    """
    whole = {(row.point, row.task, row.confidence): row for row in rows if row.split == "select"}
    for point in points:
        for confidence in (c for c in CONFIDENCE_METHODS if c in _confidences(run.plan) and c != NEXT_TOKEN):
            tasks = _tasks_of(run.plan, confidence)
            found = [whole.get((point, t, confidence)) or _only_chosen(run, point, t, confidence) for t in tasks]
            known = [row for row in found if row is not None]
            alone = [row for row in known if (point, row.task, confidence) not in whole]
            yield from alone
            if alone and len(known) == len(tasks):
                yield _mean([replace(row, floors={}) for row in known])


def _only_chosen(run: RunDirectory, point: Point, task: str, confidence: str) -> Result | None:
    scores = run.scores(point, task, confidence, "select")
    if scores is None:
        return None
    return Result(point, task, confidence, "select", measure(scores, confidence, run.plan["bins"]))


def _measured(run: RunDirectory, point: Point, answers: Answers, task: str, confidence: str) -> Iterator[Result]:
    bins = run.plan["bins"]
    for split in answers.division.splits:
        rows = answers.division.rows(split)
        floors = {}
        if split != "select":
            found = noise_floor(answers.of(point, rows), bins, REDRAWS, seed_of(answers.division.analysis.seed, task))
            floors = {"ece": found.ece} | ({"sce": found.sce} if found.sce else {})
        yield Result(point, task, confidence, split, measure(answers.scores[point], confidence, bins, rows), floors)


def _mean(rows: Sequence[Result]) -> Result:
    """The mean over tasks of one point on one split."""
    first = rows[0]
    floors = {m: mean_floor([r.floors[m] for r in rows]) for m in WITH_FLOORS if all(m in r.floors for r in rows)}
    measurement = macro_average([row.measurement for row in rows])
    return Result(first.point, MEAN, first.confidence, first.split, measurement, floors)
