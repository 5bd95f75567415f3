"""The pair as one model, into which the weights of any point are put and which then is asked what the run lacks."""

import gc
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import torch

from merge_calib.answers import division_of
from merge_calib.calibration.measurement import macro_average, measure
from merge_calib.choosing import Answered, Choosing, Look, chunked, lacks_choosing, measure_choosing
from merge_calib.errors import ScoringError
from merge_calib.measuring import Sitting, measure_point, missing
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.preparation import Preparation
from merge_calib.progress import Watch
from merge_calib.questions import TaskSet
from merge_calib.retention.measuring import ALIGNED, Desk, Retention
from merge_calib.retention.record import lacks as has_not_retained
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import Booleans, ChoiceScores
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.instructions import Prompts, end_tokens
from merge_calib.scoring.loading import head_to_add, load_tokenizer
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.questionnaire import NEXT_TOKEN, ConfidenceMethod, methods_for
from merge_calib.search.strategy import Outcome

Confirm = Callable[[], None]


class Experiment:
    """Measures points of a run; one that lacks nothing never loads the model."""

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

    def lacks(self, point: MergePoint, *, whole: bool) -> bool:
        """Whether the run lacks something of `point`: of all its questions, or of those that choose."""
        if self._run.failure(point) is not None:
            return False
        if whole:
            return bool(missing(self._run, point, self._prepared.tasks, self._plan.confidence))
        is_stopped = self._stopped(point) is not None
        return not is_stopped and lacks_choosing(self._run, point, self.choosing.tasks, self._choice_methods)

    def measure(self, point: MergePoint, *, whole: bool, look: Look, confirm: Confirm) -> str | None:
        """Measure what the run lacks of `point`; gives the reason where it cannot be, which the run then keeps.

        look: whether the point is hopeless by what it answered so far; confirm: raises where it is another worker's now
        Raises ScoringError where that is a parent, because nothing can be compared without both.
        """
        try:
            self._measure(point, look, confirm, whole=whole)
        except ScoringError as error:
            reason = f"point {point.name}, {error}"
            if point.is_base or point.is_aligned:
                raise ScoringError(reason) from error
            confirm()
            self._run.fail(point, reason)
            return reason
        return None

    def outcome(self, point: MergePoint) -> Outcome | None:
        """What a search hears of `point`, on the questions that choose; None where it failed."""
        if self._run.failure(point) is not None:
            return None
        stopped = self._stopped(point)
        if stopped is not None:
            return Outcome(stopped["measures"], stopped=True)
        scores = {task.name: self._chosen(point, task) for task in self.choosing.tasks}
        confidence = self._plan.confidence[0]
        mean = macro_average([measure(each, confidence, self._plan.bins) for each in scores.values()])
        names = dict.fromkeys(("accuracy", "sce", *self._plan.objectives))
        return Outcome({name: getattr(mean, name) for name in names}, scores)

    def retain(self, point: MergePoint) -> None:
        """Measure what `point` keeps of the alignment, if that is asked for and lacking."""
        if self._retention is not None and self._run.failure(point) is None:
            self._retention.measure(point)

    def lacks_retained(self, point: MergePoint) -> bool:
        """Whether what `point` keeps of the alignment is asked for, can be measured and was not."""
        if self._retention is None or not self._retention.has_responses or self._run.failure(point) is not None:
            return False
        return has_not_retained(self._run, point)

    @property
    def lacks_responses(self) -> bool:
        """Whether the responses that all points are compared on are still to be written."""
        return self._retention is not None and not self._retention.has_responses

    def let_aligned_answer(self, points: int) -> None:
        """Have the aligned model write the responses; points: how many share the cost."""
        assert self._retention is not None
        host = self._prepared.pair.host
        tokenizer = load_tokenizer(host.folder, trust_remote_code=self._plan.trust_remote_code)
        longest = next(iter(self._prepared.questionnaires.values())).encoder.max_length
        ends = end_tokens(tokenizer, host.folder, host.config)
        desk = Desk(tokenizer, ends, longest, self._question_tokens(), points)
        self._retention.answer(desk, self._watch)

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

    def release(self) -> None:
        """Give the model's memory back; it is loaded anew when it is asked for."""
        self._model, self._budget, self._inside = None, None, None
        self._merger.release_parents()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @cached_property
    def choosing(self) -> Choosing:
        """The choosing questions of all tasks of multiple choice."""
        tasks = tuple(task for task in self._prepared.tasks if isinstance(task, TaskSet))
        rows = {task.name: tuple(int(i) for i in self._chooses(task).nonzero()[0]) for task in tasks}
        chunks = (rows,) if self._plan.early_stopping is None else chunked(tasks, rows, self._plan.seed)
        return Choosing(tasks, rows, chunks)

    @cached_property
    def _looked_for(self) -> dict[str, Any]:
        """What a point was looked at for: a point that was stopped by other questions or objectives is not hopeless."""
        return {
            "tasks": {task.name: task.sha256 for task in self.choosing.tasks},
            "confidence": self._plan.confidence[0],
            "objectives": list(self._plan.objectives),
            "bins": self._plan.bins,
            "select_fraction": self._plan.analysis.select_fraction,
            "early_stopping": self._plan.early_stopping,
        }

    def _stopped(self, point: MergePoint) -> dict[str, Any] | None:
        """Why this search stopped asking `point`; None where it did not, whatever another one did."""
        found = self._run.stopped(point)
        return found if found is not None and found["looked_for"] == self._looked_for else None

    def _chooses(self, task: TaskSet) -> Booleans:
        """The mask (N,) of the questions that choose; with cross-fitting, which only a grid takes, all do."""
        division = division_of(self._run, task.name, task.ids, self._plan.analysis, divides=True)
        return division.rows("all" if self._plan.analysis.cross_fit else "select")

    def _chosen(self, point: MergePoint, task: TaskSet) -> ChoiceScores:
        """What was answered to the choosing questions of a task, by the first confidence method."""
        whole = self._run.scores(point, task.name, self._plan.confidence[0])
        if whole is None:
            whole = self._run.scores(point, task.name, self._plan.confidence[0], "select")
            assert isinstance(whole, ChoiceScores)
            return whole
        assert isinstance(whole, ChoiceScores)
        return whole.take(self._chooses(task))

    def _measure(self, point: MergePoint, look: Look, confirm: Confirm, *, whole: bool) -> None:
        facts = partial(self._merger.facts, point, self._plan.device)
        questionnaire = self._prepared.questionnaire(point)
        sitting = Sitting(self._run, point, questionnaire, partial(self._ready, point), self._watch, facts, confirm)
        if whole:
            measure_point(sitting, missing(self._run, point, self._prepared.tasks, self._plan.confidence))
        else:
            measure_choosing(sitting, self.choosing, self._choice_methods, partial(self._look, look))

    def _look(self, look: Look, answered: Answered) -> Mapping[str, Any] | None:
        reason = look(answered)
        return None if reason is None else {**reason, "looked_for": self._looked_for}

    @property
    def _choice_methods(self) -> tuple[ConfidenceMethod, ...]:
        return tuple(c for c in self._plan.confidence if c != NEXT_TOKEN)

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

    def _question_tokens(self) -> int:
        """How many tokens the model reads for all questions of a point, those that they share once."""
        model, budget = self._ready(ALIGNED)
        questionnaire = self._prepared.questionnaire(ALIGNED)
        sheets = [questionnaire.sheet(task, methods_for(task, self._plan.confidence)) for task in self._prepared.tasks]
        return sum(batch.size for sheet in sheets for batch in sheet.planned(model.plan, budget.tokens))
