"""What a point lacks, asked: scores saved as they come, then recorded in one step.

A point is asked whole; of one that was asked the choosing questions alone (see `choosing`) the others are asked.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from merge_calib.errors import ScoringError
from merge_calib.points import Point
from merge_calib.progress import Advance, Watch, ignored
from merge_calib.questions import Task
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores, Scores, in_order
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.questionnaire import ConfidenceMethod, Questionnaire, methods_for
from merge_calib.scoring.scorer import score

Asked = Sequence[tuple[Task, Sequence[ConfidenceMethod]]]
Ready = Callable[[], tuple[LanguageModel, Budget]]  # gives the model with the point's weights in it
Facts = Mapping[str, Any]


def missing(run: RunDirectory, point: Point, tasks: Sequence[Task], confidences: Sequence[ConfidenceMethod]) -> Asked:
    """The tasks of which the record of `point` lacks something, with the methods that it lacks."""
    lacking = [
        (task, [c for c in methods_for(task, confidences) if not run.has(point, task.name, c)]) for task in tasks
    ]
    return [(task, methods) for task, methods in lacking if methods]


@dataclass(frozen=True)
class Sitting:
    """A point of a run that is about to be asked what it lacks.

    ready: gives the model with the point's weights in it, called only if something must be asked; merge_facts: gives
    what the record says of the merge; confirm: raises where the point is another worker's now, before anything is
    written
    """

    run: RunDirectory
    point: Point
    questionnaire: Questionnaire
    ready: Ready
    watch: Watch
    merge_facts: Callable[[], Facts] = dict
    confirm: Callable[[], None] = lambda: None


def measure_point(sitting: Sitting, asked: Asked) -> None:
    """Ask all of `asked` that is not kept from a run that was cut off, and record it.

    A task of which anything is asked is asked by all that its record lacks, so that a run that was cut off between two
    files reads the same batches as one that was not.
    Raises ScoringError for scores that are not finite; nothing is recorded then.
    """
    run, point = sitting.run, sitting.point
    unkept = [(task, methods) for task, methods in asked if not _is_kept(run, point, task, methods)]
    facts: dict[str, Facts] = {task.name: {} for task, _ in asked}
    if unkept:
        model, budget = sitting.ready()
        others = [_others(run, point, task, methods) for task, methods in unkept]
        sheets = [sitting.questionnaire.sheet(*asked, rows) for asked, rows in zip(unkept, others, strict=True)]
        advance = sitting.watch(point.name, sum(sheet.tokens for sheet in sheets), "tokens")
        for task, methods in unkept:
            began = time.perf_counter()
            scores = _ask(run, point, (model, budget), sitting.questionnaire, task, methods, advance)
            sitting.confirm()
            _save(run, point, task, scores)
            facts[task.name] = how_asked(model, budget, began)
    sitting.confirm()
    run.record(point, {task.name: (methods, facts[task.name]) for task, methods in asked}, sitting.merge_facts())


def ask(
    model: LanguageModel,
    budget: Budget,
    questionnaire: Questionnaire,
    task: Task,
    methods: Sequence[ConfidenceMethod],
    advance: Advance = ignored,
    questions: tuple[int, ...] | None = None,
) -> dict[ConfidenceMethod, Scores]:
    """Put a task, or some of its questions, to the model; an error says which task it is about."""
    try:
        return score(model, questionnaire, task, methods, budget, advance, questions)
    except ScoringError as error:
        raise ScoringError(f"task {task.name}: {error}") from error


def how_asked(model: LanguageModel, budget: Budget, began: float) -> Facts:
    """What a record says of how and where something was asked; began: by time.perf_counter."""
    return {
        "device": str(model.device),
        "seconds": round(time.perf_counter() - began, 3),
        "attention": model.attention,
        "batch_tokens": budget.tokens,
    }


def _ask(
    run: RunDirectory,
    point: Point,
    ready: tuple[LanguageModel, Budget],
    questionnaire: Questionnaire,
    task: Task,
    methods: Sequence[ConfidenceMethod],
    advance: Advance,
) -> dict[ConfidenceMethod, Scores]:
    """All scores of a task; questions that were asked already are not asked again."""
    others = _others(run, point, task, methods)
    found = ask(*ready, questionnaire, task, methods, advance, others)
    if others is None:
        return found
    whole: dict[ConfidenceMethod, Scores] = {}
    for confidence, rest in found.items():
        parts = _chosen_by(run, point, task, confidence), rest
        whole[confidence] = in_order([part for part in parts if isinstance(part, ChoiceScores)], task.ids)
    return whole


def _others(run: RunDirectory, point: Point, task: Task, methods: Sequence[ConfidenceMethod]) -> tuple[int, ...] | None:
    """The indices of the questions that do not choose, where those that do were asked by all `methods`."""
    known = [_chosen_by(run, point, task, c) for c in methods]
    ids = [set(scores.ids) for scores in known if scores is not None]
    if len(ids) < len(methods):
        return None
    return tuple(i for i, id in enumerate(task.ids) if id not in ids[0])


def _chosen_by(run: RunDirectory, point: Point, task: Task, confidence: ConfidenceMethod) -> ChoiceScores | None:
    scores = run.scores(point, task.name, confidence, "select")
    assert scores is None or isinstance(scores, ChoiceScores)
    return scores


def _save(run: RunDirectory, point: Point, task: Task, scores: Mapping[ConfidenceMethod, Scores]) -> None:
    for confidence, each in scores.items():
        if not run.kept(point, task.name, confidence, each.ids):
            run.save(point, task.name, confidence, each)


def _is_kept(run: RunDirectory, point: Point, task: Task, methods: Sequence[ConfidenceMethod]) -> bool:
    return all(run.kept(point, task.name, c, task.ids) for c in methods)
