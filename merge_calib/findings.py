"""What a sweep may say: claims with their tests, rivals, recovery and the frontier's certainty."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from merge_calib.answers import MEAN
from merge_calib.calibration.noise_floor import Floor, mean_floor, noise_floor
from merge_calib.calibration.temperature import at_temperature
from merge_calib.frontier import (
    attainment,
    dominating_share,
    hypervolume,
    non_dominated_share,
)
from merge_calib.inference.claims import ERROR, Claim, Compared, claims_of
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.joint import LEVEL, Joint, average, joint_of
from merge_calib.inference.power import detectable
from merge_calib.inference.recovery import Recovery, recovery
from merge_calib.inference.resampling import seed_of
from merge_calib.merging.point import MergePoint
from merge_calib.results import REDRAWS, WITH_FLOORS, Results
from merge_calib.rivals import SELECTED, Rivals
from merge_calib.scores import Floats

RECOVERED = ("sce2", "ece2", "nll", "brier")
QUANTILES = (0.05, 0.5, 0.95)
_LEVELS = 50  # of error, at which the attainment curve is given


@dataclass(frozen=True)
class Certainty:
    """How sure the frontier is, from the paired draws of accuracy and sce2, recentred at the estimates.

    non_dominated, dominates_aligned: by point, a share of draws; levels (E,), attained (3, E): the accuracy that the
    frontier attains at an sce2 of at most each level, in 5, 50 and 95 % of draws (-inf where it has no such point)
    area: the hypervolume of all points, with the middle 95 % of its draws: a description, for the area of noisy points
        is biased upward
    """

    non_dominated: Mapping[str, float]
    dominates_aligned: Mapping[str, float]
    levels: Floats
    attained: Floats
    area: Estimate


@dataclass(frozen=True, eq=False)
class Findings:
    """What is derived from a sweep's results by inference; for a run that cannot select, only what needs no selection.

    Claims are about the first confidence method. Everything is measured on the questions that judge.
    """

    results: Results

    @cached_property
    def confidence(self) -> str:
        """The confidence method that selects."""
        return self.results.confidences[0]

    def rivals(self, confidence: str) -> Rivals | None:
        """All forecasts by a confidence method; None where it is none of multiple choice or a parent lacks a task."""
        if confidence not in self._rivals:
            self._rivals[confidence] = _rivals_of(self.results, confidence)
        return self._rivals[confidence]

    def joint(self, task: str, confidence: str) -> Joint:
        """Every point and rival on the judging questions of a task, or the mean over tasks."""
        key = task, confidence
        if key not in self._joints:
            self._joints[key] = self._make_joint(*key)
        return self._joints[key]

    def floors(self, task: str, confidence: str, forecast: str) -> dict[str, Floor]:
        """The noise floors of ece and sce of a forecast on a task, or the mean over tasks."""
        rivals = self._known(confidence)
        if task == MEAN:
            found = [self.floors(each, confidence, forecast) for each in rivals.answers]
            return {m: mean_floor([floors[m] for floors in found]) for m in WITH_FLOORS}
        seed = seed_of(self.results.analysis.seed, task)
        floor = noise_floor(rivals.judged(task)[forecast], rivals.bins, REDRAWS, seed)
        assert floor.sce is not None
        return {"ece": floor.ece, "sce": floor.sce}

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The declared tasks of the family of claims, the mean last where there are several."""
        tasks = self.results.tasks_of(self.confidence)
        return tasks if len(tasks) == 1 else (*tasks, MEAN)

    @cached_property
    def recovers(self) -> bool:
        """Whether there is a selected point to make claims about: some fold chose another than the aligned model."""
        rivals = self.rivals(self.confidence)
        return rivals is not None and any(not fit.chosen.is_aligned for fit in rivals.fits)

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """All claims about the selected point, corrected together; none where the rule selects the aligned model."""
        if not self.recovers:
            return ()
        rivals = self._known(self.confidence)
        parents = rivals.base.name, rivals.aligned.name
        chosen = {fit.chosen.name for fit in rivals.fits}
        others = tuple(p.name for p in rivals.points if p.name not in chosen)
        compared = Compared(SELECTED, *parents, others, self.results.analysis.rule.margin)
        return tuple(claims_of({task: self.joint(task, self.confidence) for task in self.tasks}, compared))

    def claim(self, kind: str, task: str) -> Claim | None:
        """One of `claims`."""
        return next((c for c in self.claims if (c.kind.name, c.task) == (kind, task)), None)

    def recoveries(self, task: str, confidence: str, point: str = SELECTED) -> list[Recovery]:
        """What a point recovers of each measure that can be tested."""
        rivals, joint = self._known(confidence), self.joint(task, confidence)
        return [recovery(joint, m, point, rivals.base.name, rivals.aligned.name) for m in RECOVERED if joint.has(m)]

    def detectable(self, task: str, measure: str) -> float | None:
        """The smallest difference between the selected point and the aligned model that would have been found.

        None where the measure is undefined.
        """
        joint = self.joint(task, self.confidence)
        aligned = self._known(self.confidence).aligned.name
        return detectable(joint, measure, SELECTED, aligned) if joint.has(measure) else None

    def discordance(self, task: str) -> float:
        """Share of judging questions that one of selected point and aligned model answers rightly and the other not."""
        rivals = self._known(self.confidence)
        differ, n = 0, 0
        for i, fit in enumerate(rivals.fits):
            pair = [rivals.side(point, task, i, selects=False).hit for point in (fit.chosen, rivals.aligned)]
            differ, n = differ + int((pair[0] != pair[1]).sum()), n + len(pair[0])
        return differ / n

    def carried(self, confidence: str, point: MergePoint) -> dict[tuple[str, str], float]:
        """The NLL on each task at the temperature of each other: by (fitted on, measured on), the mean over folds."""
        rivals = self._known(confidence)
        found = {}
        for source in rivals.answers:
            for target in rivals.answers:
                losses, sizes = [], []
                for i, fit in enumerate(rivals.fits):
                    p = rivals.side(point, target, i, selects=False)
                    scaled = at_temperature(p, fit.temperatures[point, source].value)
                    losses.append(-float(scaled.log_truth.mean()))
                    sizes.append(len(p.hit))
                found[source, target] = float(np.average(losses, weights=sizes))
        return found

    def certainty(self, confidence: str) -> Certainty | None:
        """How sure the frontier of all points is, by the means over tasks; None where sce2 is undefined."""
        rivals = self._known(confidence)
        names = [point.name for point in rivals.points]
        joint = self.joint(MEAN, confidence).renamed({name: name for name in names})
        if not joint.has(ERROR):
            return None
        accuracy, error = joint.recentred("accuracy"), joint.recentred(ERROR)
        levels = np.linspace(float(joint.values[ERROR].min()), float(joint.values[ERROR].max()), _LEVELS)
        areas = hypervolume(accuracy, error)
        area = float(hypervolume(joint.values["accuracy"][None], joint.values[ERROR][None])[0])
        low, high = np.quantile(areas, [LEVEL / 2, 1 - LEVEL / 2])
        return Certainty(
            dict(zip(names, non_dominated_share(accuracy, error).tolist(), strict=True)),
            dict(zip(names, dominating_share(accuracy, error, joint.at(rivals.aligned.name)).tolist(), strict=True)),
            levels,
            attainment(accuracy, error, levels, QUANTILES),
            Estimate(area, float(low), float(high), joint.n),
        )

    @cached_property
    def _rivals(self) -> dict[str, Rivals | None]:
        return {}

    @cached_property
    def _joints(self) -> dict[tuple[str, str], Joint]:
        return {}

    def _known(self, confidence: str) -> Rivals:
        rivals = self.rivals(confidence)
        assert rivals is not None
        return rivals

    def _make_joint(self, task: str, confidence: str) -> Joint:
        rivals = self._known(confidence)
        if task == MEAN:
            return average([self.joint(each, confidence) for each in rivals.answers])
        division = rivals.answers[task].division
        return joint_of(rivals.judged(task), division.counts(division.judging), rivals.bins)


@lru_cache(maxsize=2)
def findings_of(results: Results) -> Findings:
    """The findings of a sweep; asked again for the same results, the same object with what it has computed."""
    return Findings(results)


def _rivals_of(results: Results, confidence: str) -> Rivals | None:
    complete = [results.point(c.name) for c in results.candidates(confidence, "all")]
    base = next((p for p in complete if p.is_base), None)
    aligned = next((p for p in complete if p.is_aligned), None)
    if base is None or aligned is None:
        return None
    answers = {task: results.answers[task, confidence] for task in results.tasks_of(confidence)}
    tried = len({row.point for row in results.explored} - {*complete}) + len(results.stopped)
    return Rivals(answers, tuple(complete), base, aligned, results.analysis.rule, results.run.plan["bins"], tried)
