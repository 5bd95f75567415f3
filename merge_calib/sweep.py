"""The experiment: for each point, weights in place, questions asked, scores recorded."""

import warnings
from functools import partial
from statistics import fmean
from typing import Any

from merge_calib.answers import division_of
from merge_calib.calibration.metrics import accuracy, sce
from merge_calib.errors import ScoringError
from merge_calib.findings import findings_of
from merge_calib.frontier_record import write_frontier
from merge_calib.measuring import Asked, measure_point, missing
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.plan import SweepPlan
from merge_calib.preparation import Preparation, prepare
from merge_calib.progress import Watch, unwatched
from merge_calib.recovery import recover
from merge_calib.results import Results
from merge_calib.retention.measuring import ALIGNED, Desk, Retention
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.instructions import Prompts, end_tokens, read_prompts
from merge_calib.scoring.loading import head_to_add, load_tokenizer
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
    prompts = read_prompts(plan.prompts) if plan.retained else None
    prepared = prepare(plan, watch)
    run = RunDirectory(plan.out)
    run.agree(prepared.record)
    experiment = _Experiment(prepared, run, prompts, watch)
    experiment.agree()
    if not run.exists:
        experiment.load()  # a model that cannot be loaded leaves no folder behind
    with run.locked():
        run.agree(prepared.record)
        experiment.agree()
        run.extend(prepared.record, prepared.tasks)
        experiment.measure_all()
        results = Results.of(run)
        results.write()
        write_frontier(findings_of(results))
        recover(prepared, results, watch)
    return results


class _Experiment:
    """The loop over points; a run that lacks nothing never loads the model."""

    def __init__(self, prepared: Preparation, run: RunDirectory, prompts: Prompts | None, watch: Watch) -> None:
        self._prepared = prepared
        self._plan = prepared.plan
        self._run = run
        self._watch = watch
        self._merger = Merger(prepared.pair, self._plan.out_dtype)
        self._model: LanguageModel | None = None
        self._budget: Budget | None = None
        self._inside: MergePoint | None = None  # the point whose weights the model has
        self._retention: Retention | None = None
        if prompts is not None:
            self._retention = Retention(run, prompts, self._with_weights_of, self._plan.batch_tokens)

    def agree(self) -> None:
        """Raise RunDirectoryError where the run measures what points retain on other prompts than `plan` names."""
        if self._retention is not None:
            self._retention.agree()

    def measure_all(self) -> None:
        strategy = self._prepared.grid or _study(self._plan, self._prepared.record, self._run)
        self._let_aligned_answer(strategy.total)
        advance = self._watch("points", strategy.total)
        while (point := strategy.propose()) is not None:
            reason = self._run.failure(point) or self._measure(point)
            if reason:
                warnings.warn(f"{reason}; the point is left out", PointLeftOutWarning, stacklevel=2)
                strategy.hear(point, None)
            else:
                self._retain(point)
                strategy.hear(point, self._outcome(point))
            advance(1)
        for earlier in self._run.points():  # what earlier commands measured before anything was retained
            if isinstance(earlier, MergePoint) and self._run.failure(earlier) is None:
                self._retain(earlier)

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
        model = self._with_weights_of(point)
        if self._budget is None:
            self._budget = Budget.of(model, self._plan.batch_tokens)
        return model, self._budget

    def _with_weights_of(self, point: MergePoint) -> LanguageModel:
        model = self.load()
        if self._inside != point:
            self._inside = None
            self._merger.apply(point, model.targets)
            self._inside = point
        return model

    def _let_aligned_answer(self, points: int) -> None:
        """Have the responses written that all points are compared on, unless the run has them."""
        if self._retention is None or self._retention.has_responses:
            return
        host = self._prepared.pair.host
        tokenizer = load_tokenizer(host.folder, trust_remote_code=self._plan.trust_remote_code)
        longest = next(iter(self._prepared.questionnaires.values())).encoder.max_length
        ends = end_tokens(tokenizer, host.folder, host.config)
        desk = Desk(tokenizer, ends, longest, self._question_tokens(), points)
        self._retention.answer(desk, self._watch)

    def _question_tokens(self) -> int:
        """How many tokens the model reads for all questions of a point, those that they share once."""
        model, budget = self._ready(ALIGNED)
        questionnaire = self._prepared.questionnaire(ALIGNED)
        sheets = [questionnaire.sheet(task, methods_for(task, self._plan.confidence)) for task in self._prepared.tasks]
        return sum(batch.size for sheet in sheets for batch in sheet.planned(model.plan, budget.tokens))

    def _retain(self, point: MergePoint) -> None:
        """Measure what `point` keeps of the alignment, if that is asked for and lacking."""
        if self._retention is not None:
            self._retention.measure(point)

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
        """Mean accuracy and mean SCE over the multiple-choice tasks asked, by the first confidence method.

        Only the questions that choose are looked at; with cross-fitting, which no study takes, they all do.
        """
        confidence = self._plan.confidence[0]
        found = []
        for task in self._prepared.tasks:
            if confidence in methods_for(task, self._plan.confidence):
                scores = self._run.scores(point, task.name, confidence)
                assert isinstance(scores, ChoiceScores)
                division = division_of(self._run, task.name, scores.ids, self._plan.analysis, divides=True)
                p = scores.predictions
                found.append(p if self._plan.analysis.cross_fit else p.take(division.rows("select")))
        return Outcome(fmean(map(accuracy, found)), fmean(sce(p, self._plan.bins) for p in found))


def _study(plan: SweepPlan, record: dict[str, Any], run: RunDirectory) -> Strategy:
    choices = {name: task for name, task in record["tasks"].items() if task["kind"] == "choice"}
    asked = ", ".join(f"{name} {task['sha256'][:8]}" for name, task in choices.items())
    side = "all" if plan.analysis.cross_fit else f"select ({plan.analysis.select_fraction:g})"
    objective = f"accuracy and sce ({plan.bins} bins) of {plan.confidence[0]} on {side} of {asked}"
    low, high = min(plan.lambdas), max(plan.lambdas)
    journal = run.path / "study.journal"
    return OptunaSearch(plan.method, plan.options, low, high, plan.trials, plan.seed, journal, objective)
