"""What a point lacks, asked: scores saved as they come, then recorded in one step."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from merge_calib.errors import ScoringError
from merge_calib.points import Point
from merge_calib.progress import Advance, Watch, ignored
from merge_calib.questions import Task
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import Scores
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.questionnaire import ConfidenceMethod, Questionnaire, methods_for
from merge_calib.scoring.scorer import score

Asked = Sequence[tuple[Task, Sequence[ConfidenceMethod]]]
Ready = Callable[[], tuple[LanguageModel, Budget]]  # gives the model with the point's weights in it


def missing(run: RunDirectory, point: Point, tasks: Sequence[Task], confidences: Sequence[ConfidenceMethod]) -> Asked:
    """The tasks of which the record of `point` lacks something, with the methods that it lacks."""
    lacking = [
        (task, [c for c in methods_for(task, confidences) if not run.has(point, task.name, c)]) for task in tasks
    ]
    return [(task, methods) for task, methods in lacking if methods]


def measure_point(
    run: RunDirectory,
    point: Point,
    asked: Asked,
    questionnaire: Questionnaire,
    ready: Ready,
    watch: Watch,
    merge_facts: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Ask all of `asked` that is not kept from a run that was cut off, and record it.

    `ready` is called only if something must be asked; `merge_facts` gives what the record says of the merge.
    A task of which anything is asked is asked by all that its record lacks, so that a run that was cut off between two
    files reads the same batches as one that was not.
    Raises ScoringError for scores that are not finite; nothing is recorded then.
    """
    unkept = [(task, methods) for task, methods in asked if not _is_kept(run, point, task, methods)]
    facts: dict[str, dict[str, Any]] = {task.name: {} for task, _ in asked}
    if unkept:
        model, budget = ready()
        total = sum(questionnaire.sheet(task, methods).tokens for task, methods in unkept)
        advance = watch(point.name, total, "tokens")
        for task, methods in unkept:
            began = time.perf_counter()
            scores = _ask(model, questionnaire, task, methods, budget, advance)
            _save(run, point, task, scores)
            facts[task.name] = {
                "device": str(model.device),
                "seconds": round(time.perf_counter() - began, 3),
                "attention": model.attention,
                "batch_tokens": budget.tokens,
            }
    run.record(point, {task.name: (methods, facts[task.name]) for task, methods in asked}, merge_facts())


def _ask(
    model: LanguageModel,
    questionnaire: Questionnaire,
    task: Task,
    methods: Sequence[ConfidenceMethod],
    budget: Budget,
    advance: Advance = ignored,
) -> dict[ConfidenceMethod, Scores]:
    try:
        return score(model, questionnaire, task, methods, budget, advance)
    except ScoringError as error:
        raise ScoringError(f"task {task.name}: {error}") from error


def _save(run: RunDirectory, point: Point, task: Task, scores: dict[ConfidenceMethod, Scores]) -> None:
    for confidence, each in scores.items():
        if not run.kept(point, task.name, confidence, each.ids):
            run.save(point, task.name, confidence, each)


def _is_kept(run: RunDirectory, point: Point, task: Task, methods: Sequence[ConfidenceMethod]) -> bool:
    return all(run.kept(point, task.name, c, task.ids) for c in methods)
