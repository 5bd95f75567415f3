"""The experiment: for each point, weights in place, questions asked, scores recorded."""

import time
import warnings
from typing import Any

import torch

from merge_calib.calibration.measurement import macro_average, measure
from merge_calib.errors import InputError, ScoringError
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.plan import SweepPlan
from merge_calib.preparation import Preparation, prepare
from merge_calib.progress import Watch, unwatched
from merge_calib.questions import TaskSet
from merge_calib.recovery import recover
from merge_calib.results import Results
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.scorer import ConfidenceMethod, score
from merge_calib.search.grid import Grid
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
        recover(prepared, results)
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

    def measure_all(self) -> None:
        strategy = _strategy(self._plan, self._prepared.record, self._run)
        advance = self._watch("points", strategy.total)
        while (point := strategy.propose()) is not None:
            try:
                self._measure(point)
            except ScoringError as error:
                if point.is_base or point.is_aligned:
                    raise
                warnings.warn(f"{error}; the point is left out", PointLeftOutWarning, stacklevel=2)
                strategy.hear(point, None)
            else:
                strategy.hear(point, self._outcome(point))
            advance(1)

    def _measure(self, point: MergePoint) -> None:
        missing = {task: self._missing(point, task) for task in self._prepared.tasks}
        missing = {task: confidences for task, confidences in missing.items() if confidences}
        if not missing:
            return
        began = time.perf_counter()
        applied = False
        for task, confidences in missing.items():
            ids = [q.id for q in task.questions]
            unkept = [c for c in confidences if not self._run.kept(point, task.name, c, ids)]
            if unkept and not applied:
                self._merger.apply(point, self.load().targets)
                applied = True
            for confidence, scores in self._ask(point, task, unkept).items():
                self._run.save(point, task.name, confidence, scores)
        facts = {"device": str(self._plan.device), "seconds": round(time.perf_counter() - began, 3)}
        self._run.record(point, {task.name: confidences for task, confidences in missing.items()}, facts)

    def _missing(self, point: MergePoint, task: TaskSet) -> list[ConfidenceMethod]:
        return [c for c in self._plan.confidence if not self._run.has(point, task.name, c)]

    def _ask(
        self, point: MergePoint, task: TaskSet, confidences: list[ConfidenceMethod]
    ) -> dict[ConfidenceMethod, ChoiceScores]:
        if not confidences:
            return {}
        advance = self._watch(f"{point.name} {task.name}", self._prepared.questionnaire.tokens(task, confidences))
        try:
            return score(self.load(), self._prepared.questionnaire, task, confidences, self._plan.batch_tokens, advance)
        except ScoringError as error:
            raise ScoringError(f"point {point.name}, task {task.name}: {error}") from error
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"--batch-tokens {self._plan.batch_tokens} is too much for the memory of {self._plan.device}: "
                "give a smaller number, what was measured is kept"
            ) from error

    def load(self) -> LanguageModel:
        """The model, loaded when it is first asked for."""
        if self._model is None:
            plan = self._plan
            self._model = LanguageModel(
                self._prepared.pair.aligned, plan.device, plan.dtype, trust_remote_code=plan.trust_remote_code
            )
            self._merger.require_own_places(self._model.targets)
            if plan.device.type == "cuda":
                self._merger.keep_parents_on(plan.device)
        return self._model

    def _outcome(self, point: MergePoint) -> Outcome:
        """Mean accuracy and mean SCE over the tasks asked, by the first confidence method."""
        measurements = []
        for task in self._prepared.tasks:
            scores = self._run.scores(point, task.name, self._plan.confidence[0])
            assert scores is not None
            measurements.append(measure(scores.predictions, self._plan.bins))
        mean = macro_average(measurements)
        return Outcome(mean.accuracy, mean.sce)


def _strategy(plan: SweepPlan, record: dict[str, Any], run: RunDirectory) -> Strategy:
    if plan.search == "grid":
        return Grid(plan.method, plan.lambdas)
    asked = ", ".join(f"{name} {task['sha256'][:8]}" for name, task in record["tasks"].items())
    objective = f"accuracy and sce ({plan.bins} bins) of {plan.confidence[0]} on {asked}"
    low, high = min(plan.lambdas), max(plan.lambdas)
    return OptunaSearch(plan.method, low, high, plan.trials, plan.seed, run.path / "study.journal", objective)
