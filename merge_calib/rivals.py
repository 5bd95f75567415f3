"""What the selected merge must be compared with: temperatures and mixtures, fitted on the questions that choose.

A forecast is named after what gives it: a point's name, that name with ` + T` (a temperature fitted per task), or one
of the names below. All are fitted on a fold's questions of the side `select` and measured on those of `report`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from merge_calib.answers import Answers
from merge_calib.calibration import metrics
from merge_calib.calibration.daca import Daca, fit_daca
from merge_calib.calibration.mixture import mix_log_probabilities, mix_probabilities
from merge_calib.calibration.temperature import Temperature, at_temperature, fit_temperature
from merge_calib.frontier import Candidate
from merge_calib.merging.point import MergePoint
from merge_calib.scores import Predictions, together
from merge_calib.selection import Rule, Selection, select

SELECTED = "selected"
SHARED_T = "aligned + one T"
DACA = "aligned + DACA"
MIXED = "mixture of probabilities"
MIXED_LOG = "mixture of log-probabilities"
_MIXERS = {MIXED: mix_probabilities, MIXED_LOG: mix_log_probabilities}


def tempered(name: str) -> str:
    """The name of a forecast with a temperature of its own."""
    return f"{name} + T"


@dataclass(frozen=True)
class Cost:
    """Forward passes: for each new question, and for each question that it was tuned on; and whether tuning reads
    the right answers."""

    to_use: int
    to_tune: int
    needs_labels: bool


@dataclass(frozen=True)
class Fit:
    """Everything that is tuned on one fold's choosing questions.

    temperatures: by point and task, and by point for all tasks at once (task "")
    weights: of each mixture, chosen by the rule that chooses the point; daca: by task, None where it has no fit
    """

    chosen: MergePoint
    temperatures: Mapping[tuple[MergePoint, str], Temperature]
    weights: Mapping[str, float]
    daca: Mapping[str, Daca | None]


@dataclass(frozen=True)
class Rivals:
    """All forecasts of one confidence method on the tasks of multiple choice.

    points: those that have all tasks, both parents among them; tried: how many more a search asked to choose among them
    """

    answers: Mapping[str, Answers]
    points: tuple[MergePoint, ...]
    base: MergePoint
    aligned: MergePoint
    rule: Rule
    bins: int
    tried: int = 0

    @property
    def folds(self) -> int:
        return len(next(iter(self.answers.values())).division.folds)

    @cached_property
    def fits(self) -> tuple[Fit, ...]:
        """What is tuned in each fold."""
        return tuple(_fit(self, fold) for fold in range(self.folds))

    def side(self, point: MergePoint, task: str, fold: int, *, selects: bool) -> Predictions:
        """What a point answered to the questions of one side of a fold."""
        answers = self.answers[task]
        sides = answers.division.folds[fold]
        predictions = answers.of(point, sides.select if selects else sides.report)
        assert isinstance(predictions, Predictions)
        return predictions

    def judged(self, task: str) -> dict[str, Predictions]:
        """Every forecast of all judging questions of one task, by name, in their order.

        Of several folds each question has what was fitted without it, and all are measured together: a model that
        folds do not change has the numbers that it has without them.
        """
        if task not in self._judged:
            parts = [self.forecasts(task, fold) for fold in range(self.folds)]
            rows = [np.flatnonzero(fold.report) for fold in self.answers[task].division.folds]
            order = np.argsort(np.concatenate(rows))
            self._judged[task] = {name: together([part[name] for part in parts]).take(order) for name in parts[0]}
        return self._judged[task]

    @cached_property
    def _judged(self) -> dict[str, dict[str, Predictions]]:
        return {}

    def forecasts(self, task: str, fold: int) -> dict[str, Predictions]:
        """Every forecast of the judging questions of one task in one fold, by name."""
        fit = self.fits[fold]
        raw = {point: self.side(point, task, fold, selects=False) for point in self.points}
        scaled = {point: at_temperature(raw[point], fit.temperatures[point, task].value) for point in self.points}
        base, aligned = raw[self.base], raw[self.aligned]
        daca = fit.daca[task]
        return {
            **{point.name: p for point, p in raw.items()},
            **{tempered(point.name): p for point, p in scaled.items()},
            SELECTED: raw[fit.chosen],
            tempered(SELECTED): scaled[fit.chosen],
            SHARED_T: at_temperature(aligned, fit.temperatures[self.aligned, ""].value),
            DACA: at_temperature(aligned, daca.temperature.value) if daca else aligned,
            **{name: mix(base, aligned, fit.weights[name]) for name, mix in _MIXERS.items()},
        }

    def costs(self) -> dict[str, Cost]:
        """What each forecast of the headline takes."""
        tuned = len(self.points) + self.tried
        base, aligned = self.base.name, self.aligned.name
        return {
            base: Cost(1, 0, needs_labels=False),
            tempered(base): Cost(1, 1, needs_labels=True),
            aligned: Cost(1, 0, needs_labels=False),
            tempered(aligned): Cost(1, 1, needs_labels=True),
            SHARED_T: Cost(1, 1, needs_labels=True),
            DACA: Cost(1, 2, needs_labels=False),
            SELECTED: Cost(1, tuned, needs_labels=True),
            tempered(SELECTED): Cost(1, tuned, needs_labels=True),
            MIXED: Cost(2, 2, needs_labels=True),
            MIXED_LOG: Cost(2, 2, needs_labels=True),
        }

    def candidates(self, fold: int) -> list[Candidate]:
        """Every point by its mean accuracy and mean SCE on the choosing questions of a fold."""
        return [
            self._candidate(p.name, p.lam, p.is_aligned, [self.side(p, t, fold, selects=True) for t in self.answers])
            for p in self.points
        ]

    def choose(self, fold: int) -> Selection:
        """The point that the rule selects on a fold's choosing questions."""
        return select(self.candidates(fold), self.rule)

    def choose_weight(self, name: str, fold: int) -> float:
        """The weight of a mixture that the rule selects, on the lambdas of the points; of probabilities within [0, 1].

        At weight 1 the mixture is the aligned model, so that the rule has what it compares with. Where no point lies
        between the parents the weights are 0, .1, .. 1.
        """
        lambdas = sorted({p.lam for p in self.points if p.lam is not None} | {0.0, 1.0})
        if not any(0 < lam < 1 for lam in lambdas):
            lambdas = sorted({*lambdas, *(i / 10 for i in range(1, 10))})
        weights = [lam for lam in lambdas if name == MIXED_LOG or 0 <= lam <= 1]
        pairs = [
            (self.side(self.base, task, fold, selects=True), self.side(self.aligned, task, fold, selects=True))
            for task in self.answers
        ]
        by_name = {f"{weight!r}": weight for weight in weights}
        candidates = [
            self._candidate(key, weight, weight == 1, [_MIXERS[name](*pair, weight) for pair in pairs])
            for key, weight in by_name.items()
        ]
        return by_name[select(candidates, self.rule).point]

    def _candidate(self, name: str, lam: float | None, is_aligned: bool, tasks: Sequence[Predictions]) -> Candidate:
        accuracy = _mean(metrics.accuracy(p) for p in tasks)
        return Candidate(name, lam, accuracy, _mean(metrics.sce(p, self.bins) for p in tasks), is_aligned)


def _fit(rivals: Rivals, fold: int) -> Fit:
    by_name = {point.name: point for point in rivals.points}
    sides = {
        (point, task): rivals.side(point, task, fold, selects=True)
        for point in rivals.points
        for task in rivals.answers
    }
    temperatures = {key: fit_temperature(p) for key, p in sides.items()}
    for point in rivals.points:
        temperatures[point, ""] = fit_temperature([sides[point, task] for task in rivals.answers])
    daca = {task: _daca(sides[rivals.base, task], sides[rivals.aligned, task]) for task in rivals.answers}
    weights = {name: rivals.choose_weight(name, fold) for name in _MIXERS}
    return Fit(by_name[rivals.choose(fold).point], temperatures, weights, daca)


def _daca(base: Predictions, aligned: Predictions) -> Daca | None:
    """None where the parents never predict the same option, so that there is nothing to fit to."""
    return fit_daca(base, aligned) if (base.predicted == aligned.predicted).any() else None


def _mean(values: Iterable[float]) -> float:
    """As the mean over tasks of results.csv is formed, so that what is tied there is tied here."""
    found = list(values)
    return math.fsum(found) / len(found)
