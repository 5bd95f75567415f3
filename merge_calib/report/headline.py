"""The parents, the selected merge and its rivals side by side, each with its intervals, noise floors and costs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from merge_calib.answers import MEAN
from merge_calib.calibration.noise_floor import Floor, mean_floor
from merge_calib.findings import Findings, findings_of
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.joint import Joint
from merge_calib.merging.point import MergePoint
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.place import point_markdown
from merge_calib.results import WITH_FLOORS, Result, Results
from merge_calib.rivals import DACA, MIXED, MIXED_LOG, SELECTED, SHARED_T, Cost, Rivals, tempered

ESTIMATED = ("accuracy", "nll", "brier", "sce2", "ece2")


@dataclass(frozen=True)
class Forecast:
    """A row of the headline table: the name of a forecast, what a reader calls it, its cost.

    point: the merge that it is as it stands; None where a temperature or a mixture makes it, and of a procedure
    """

    name: str
    label: str
    cost: Cost
    point: MergePoint | None = None


@dataclass(frozen=True)
class Measured:
    """What a forecast measures on a task: values and intervals by measure, values and noise floors of ece and sce."""

    forecast: Forecast
    estimates: Mapping[str, Estimate]
    floors: Mapping[str, Floor]


@dataclass(frozen=True, eq=False)
class Headline:
    """All forecasts of the headline by one confidence method, on the judging questions of each task and their mean."""

    findings: Findings
    confidence: str
    rivals: Rivals

    @cached_property
    def selected(self) -> str | None:
        """The name of the selected merge among the forecasts; None where the rule selects the aligned model.

        By the confidence method that selects it is what each fold chose, by others the same point as there.
        """
        results = self.findings.results
        if self.confidence == self.findings.confidence:
            return SELECTED if self.findings.recovers else None
        point = Landmarks.of(results).selected
        is_there = point is not None and not point.is_aligned and point in self.rivals.points
        return point.name if is_there and point is not None else None

    @cached_property
    def forecasts(self) -> tuple[Forecast, ...]:
        """Parents, selected merge and rivals, in the order in which they are shown."""
        costs, base, aligned = self.rivals.costs(), self.rivals.base, self.rivals.aligned
        found = [
            Forecast(base.name, "base", costs[base.name], base),
            Forecast(tempered(base.name), "base + T", costs[tempered(base.name)]),
        ]
        if self.selected is not None:
            point = None if self.rivals.folds > 1 and self.selected == SELECTED else self._selected_point
            found += [
                Forecast(self.selected, f"selected ({self.selected_text})", costs[SELECTED], point),
                Forecast(tempered(self.selected), "selected + T", costs[tempered(SELECTED)]),
            ]
        found += [
            Forecast(aligned.name, "aligned", costs[aligned.name], aligned),
            Forecast(tempered(aligned.name), "aligned + T", costs[tempered(aligned.name)]),
        ]
        if len(self.rivals.answers) > 1:  # of one task it is the same as the row before
            found.append(Forecast(SHARED_T, "aligned + one T for all tasks", costs[SHARED_T]))
        found.append(Forecast(DACA, "aligned + DACA", costs[DACA]))
        found += [Forecast(name, f"{name} ({self.weight_text(name)})", costs[name]) for name in (MIXED, MIXED_LOG)]
        return tuple(found)

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Every task, and the mean where there are several."""
        tasks = tuple(self.rivals.answers)
        return tasks if len(tasks) == 1 else (*tasks, MEAN)

    def joint(self, task: str = MEAN) -> Joint:
        return self.findings.joint(task, self.confidence)

    def measured(self, task: str = MEAN) -> Iterator[Measured]:
        """Every forecast on a task, or the mean over tasks."""
        joint = self.joint(task)
        for forecast in self.forecasts:
            estimates = {m: joint.estimate(m, forecast.name) for m in ESTIMATED if joint.has(m)}
            yield Measured(forecast, estimates, self.floors(forecast.name, task))

    def floors(self, name: str, task: str = MEAN) -> Mapping[str, Floor]:
        """The noise floors of ece and sce of a forecast; those of tasks are kept, for the mean is made of them."""
        if task == MEAN:
            of_tasks = [self.floors(name, each) for each in self.rivals.answers]
            return {m: mean_floor([floors[m] for floors in of_tasks]) for m in WITH_FLOORS}
        if (name, task) not in self._floors:
            row = self._row(name, task)
            found = row.floors if row is not None else self.findings.floors(task, self.confidence, name)
            self._floors[name, task] = found
        return self._floors[name, task]

    def _row(self, name: str, task: str) -> Result | None:
        """The row of results.csv that a forecast is, so that both say the same floor; None where there is none."""
        if self.rivals.folds > 1:
            return None
        name = self.rivals.fits[0].chosen.name if name == SELECTED else name
        point = next((p for p in self.rivals.points if p.name == name), None)
        return None if point is None else self.findings.results.row(point, task, self.confidence)

    @cached_property
    def selected_text(self) -> str:
        """`lambda = 0.6`; with cross-fitting how many folds chose what."""
        chosen = [fit.chosen for fit in self.rivals.fits]
        if self.selected != SELECTED or len(chosen) == 1:
            return point_markdown(self._selected_point)
        return "; ".join(
            f"{point_markdown(p)} in {chosen.count(p)} of {len(chosen)} folds" for p in sorted(set(chosen))
        )

    def weight_text(self, name: str) -> str:
        """`weight 0.2`, or the range over folds."""
        weights = sorted({fit.weights[name] for fit in self.rivals.fits})
        low, high = f"{weights[0]:.10g}", f"{weights[-1]:.10g}"
        return f"weight {low}" if low == high else f"weights {low} to {high}"

    @property
    def _selected_point(self) -> MergePoint:
        if self.selected == SELECTED:
            return self.rivals.fits[0].chosen
        return next(p for p in self.rivals.points if p.name == self.selected)

    @cached_property
    def _floors(self) -> dict[tuple[str, str], Mapping[str, Floor]]:
        return {}


@lru_cache(maxsize=8)
def headline_of(results: Results, confidence: str) -> Headline | None:
    """The headline by one confidence method; None where a parent lacks a task or it is none of multiple choice.

    Asked again for the same results, the same object with what it has computed.
    """
    if not results.is_sweep or confidence not in results.choice_methods:
        return None
    findings = findings_of(results)
    rivals = findings.rivals(confidence)
    return None if rivals is None else Headline(findings, confidence, rivals)
