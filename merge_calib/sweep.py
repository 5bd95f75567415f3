"""The experiment: for each point, weights in place, questions asked, scores recorded."""

import warnings
from functools import partial
from typing import Any

from merge_calib.calibration.measurement import macro_average, measure
from merge_calib.errors import ScoringError
from merge_calib.measuring import Asked, measure_point, missing
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.plan import SweepPlan
from merge_calib.preparation import Preparation, prepare
from merge_calib.progress import Watch, unwatched
from merge_calib.recovery import recover
from merge_calib.results import Results
from merge_calib.run_directory import RunDirectory
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.loading import head_to_add
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.questionnaire import Questionnaire, methods_for
from merge_calib.search.optuna_study import OptunaSearch
from merge_calib.search.strategy import Outcome, Strategy


class PointLeftOutWarning(UserWarning):
    """A point between or beyond the parents could not be scored; it has no record, and the sweep went on."""


def sweep(plan: SweepPlan, watch: Watch = unwatched) -> Results:
    """Measure every point of `plan` that its run directory does not hold yet, and write what was found.

    Raises MergeCalibError for a fault of the user's, before anything is written where it can be known by then.
    """
    prepared = prepare(plan, watch)
    run = RunDirectory(plan.out)
    run.agree(prepared.record)
    experiment = _Experiment(prepared, run, watch)
    if not run.exists:
        experiment.load()  # a model that cannot be loaded leaves no folder behind
    with run.locked():
        run.agree(prepared.record)
        run.extend(prepared.record)
        experiment.measure_all()
        results = Results.of(run)
        results.write()
        recover(prepared, results, watch)
    return results


class _Experiment:
    """The loop over points; a run that lacks nothing never loads the model."""

    def __init__(self, prepared: Preparation, run: RunDirectory, watch: Watch) -> None:
        self._prepared = prepared
        self._plan = prepared.plan
        self._run = run
        self._watch = watch
        self._merger = Merger(prepared.pair, self._plan.out_dtype)
        self._model: LanguageModel | None = None
        self._budget: Budget | None = None

    def measure_all(self) -> None:
        strategy = self._prepared.grid or _study(self._plan, self._prepared.record, self._run)
        advance = self._watch("points", strategy.total)
        while (point := strategy.propose()) is not None:
            reason = self._run.failure(point) or self._measure(point)
            if reason:
                warnings.warn(f"{reason}; the point is left out", PointLeftOutWarning, stacklevel=2)
                strategy.hear(point, None)
            else:
                strategy.hear(point, self._outcome(point))
            advance(1)

    def _measure(self, point: MergePoint) -> str | None:
        """Measure what the run lacks of `point`; gives the reason where it cannot be, which the run then keeps.

        Raises ScoringError where that is a parent, because nothing can be compared without both.
        """
        asked = missing(self._run, point, self._prepared.tasks, self._plan.confidence)
        if not asked:
            return None
        try:
            questionnaire = self._prepared.questionnaire(point)
            self._run_point(point, asked, questionnaire)
        except ScoringError as error:
            reason = f"point {point.name}, {error}"
            if point.is_base or point.is_aligned:
                raise ScoringError(reason) from error
            self._run.fail(point, reason)
            return reason
        return None

    def _run_point(self, point: MergePoint, asked: Asked, questionnaire: Questionnaire) -> None:
        facts = partial(self._merger.facts, point, self._plan.device)
        measure_point(self._run, point, asked, questionnaire, lambda: self._ready(point), self._watch, facts)

    def _ready(self, point: MergePoint) -> tuple[LanguageModel, Budget]:
        """The model with the weights of `point` in it."""
        model = self.load()
        self._merger.apply(point, model.targets)
        if self._budget is None:
            self._budget = Budget.of(model, self._plan.batch_tokens)
        return model, self._budget

    def load(self) -> LanguageModel:
        """The model, loaded when it is first asked for."""
        if self._model is None:
            plan, pair = self._plan, self._prepared.pair
            new_head = head_to_add({slot.name: slot.shape for slot in pair.slots.values()}, pair.host.shape)
            self._model = LanguageModel(
                pair.host.shape, plan.device, plan.dtype, trust_remote_code=plan.trust_remote_code, new_head=new_head
            )
            assert set(pair.names) <= set(self._model.targets)
            self._merger.require_own_places(self._model.targets)
            if plan.device.type == "cuda":
                self._merger.keep_parents_on(plan.device)
        return self._model

    def _outcome(self, point: MergePoint) -> Outcome:
        """Mean accuracy and mean SCE over the multiple-choice tasks asked, by the first confidence method."""
        confidence = self._plan.confidence[0]
        measurements = []
        for task in self._prepared.tasks:
            if confidence in methods_for(task, self._plan.confidence):
                scores = self._run.scores(point, task.name, confidence)
                assert scores is not None
                measurements.append(measure(scores, confidence, self._plan.bins))
        mean = macro_average(measurements)
        assert mean.sce is not None
        return Outcome(mean.accuracy, mean.sce)


def _study(plan: SweepPlan, record: dict[str, Any], run: RunDirectory) -> Strategy:
    choices = {name: task for name, task in record["tasks"].items() if task["kind"] == "choice"}
    asked = ", ".join(f"{name} {task['sha256'][:8]}" for name, task in choices.items())
    objective = f"accuracy and sce ({plan.bins} bins) of {plan.confidence[0]} on {asked}"
    low, high = min(plan.lambdas), max(plan.lambdas)
    journal = run.path / "study.journal"
    return OptunaSearch(plan.method, plan.options, low, high, plan.trials, plan.seed, journal, objective)
