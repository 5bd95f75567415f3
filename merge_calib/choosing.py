"""The choosing questions of a point, asked alone: all that a search hears, for a part of the price.

They are asked chunk by chunk where somebody looks at what was answered so far and may say that the point is hopeless.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from merge_calib.inference.hopeless import looks, order
from merge_calib.measuring import Facts, Sitting, ask, how_asked
from merge_calib.merging.point import MergePoint
from merge_calib.progress import Advance, ignored
from merge_calib.questions import TaskSet
from merge_calib.run_directory import Part, RunDirectory
from merge_calib.scores import ChoiceScores, in_order
from merge_calib.scoring.questionnaire import ConfidenceMethod

Rows = Mapping[str, tuple[int, ...]]  # by task, ascending indices of its questions
Answered = Mapping[str, ChoiceScores]  # by task, by the first confidence method, in the order of asking
Look = Callable[[Answered], Mapping[str, Any] | None]  # gives why the point is hopeless, None where it is not


@dataclass(frozen=True, eq=False)
class Choosing:
    """The choosing questions of some tasks of multiple choice.

    chunks: what is asked before each look, and at last the rest; together all of `rows`
    """

    tasks: tuple[TaskSet, ...]
    rows: Rows
    chunks: tuple[Rows, ...]

    def ids(self, task: TaskSet) -> tuple[str, ...]:
        """The ids of a task's choosing questions, in its order."""
        return tuple(task.questions[i].id for i in self.rows[task.name])


def chunked(tasks: Sequence[TaskSet], rows: Rows, seed: int) -> tuple[Rows, ...]:
    """The choosing questions of all tasks in chunks, each a fair sample of what every subject has."""
    places = [(task, i) for task in tasks for i in rows[task.name]]
    ids = [f"{task.name} {task.questions[i].id}" for task, i in places]
    subjects = [f"{task.name} {task.questions[i].subject}" for task, i in places]
    asked = [places[i] for i in order(ids, subjects, seed)]
    chunks = []
    for begin, end in pairwise((0, *looks(len(asked)), len(asked))):
        part: dict[str, list[int]] = {}
        for task, i in asked[begin:end]:
            part.setdefault(task.name, []).append(i)
        chunks.append({name: tuple(sorted(indices)) for name, indices in part.items()})
    return tuple(chunks)


def lacks_choosing(
    run: RunDirectory, point: MergePoint, tasks: Sequence[TaskSet], methods: Sequence[ConfidenceMethod]
) -> bool:
    """Whether neither the choosing questions alone nor all questions of `point` were asked."""
    return any(_lacking(run, point, task, methods) for task in tasks)


def measure_choosing(sitting: Sitting, choosing: Choosing, methods: Sequence[ConfidenceMethod], look: Look) -> None:
    """Ask the choosing questions, and record the answers: to all of them, or to those until `look` said stop.

    What is recorded of a task is not asked again; nor, without looks, what a run that was cut off left of it.
    Raises ScoringError for scores that are not finite; nothing is recorded then.
    """
    session = _Session(sitting, choosing, methods)
    for i in range(len(choosing.chunks)):
        session.ask(i)
        is_last = i == len(choosing.chunks) - 1
        reason = None if is_last else look(session.answered)
        if is_last or reason is not None:
            session.record(reason)
            return


class _Session:
    """Asks chunk after chunk and keeps the answers."""

    def __init__(self, sitting: Sitting, choosing: Choosing, methods: Sequence[ConfidenceMethod]) -> None:
        assert isinstance(sitting.point, MergePoint)
        self._sitting, self._choosing, self._methods = sitting, choosing, methods
        self._run, self._point = sitting.run, sitting.point
        self._advance: Advance = ignored
        self._began = time.perf_counter()
        self._facts: dict[str, Facts] = {}
        self._parts: dict[str, dict[ConfidenceMethod, list[ChoiceScores]]] = {}
        self._wanted = {task.name: _lacking(self._run, self._point, task, methods) for task in choosing.tasks}

    def ask(self, chunk: int) -> None:
        """Put the questions of one chunk to the model; those of a task are saved as soon as all are answered."""
        for task in self._choosing.tasks:
            questions = self._choosing.chunks[chunk].get(task.name, ())
            if self._is_kept(task):
                self._facts[task.name] = {}
            elif questions:
                self._recall(task, questions)
                if self._wanted[task.name]:
                    self._ask(task, questions)
                    if len(self._choosing.chunks) == 1:
                        self._save(task)

    @property
    def answered(self) -> Answered:
        """What was answered so far."""
        return {name: _joined(by_method[self._methods[0]]) for name, by_method in self._parts.items()}

    def record(self, stopped: Mapping[str, Any] | None) -> None:
        """Record all answers, or where the point was stopped those until then."""
        tasks = [task for task in self._choosing.tasks if task.name in self._facts]
        if len(self._choosing.chunks) > 1:
            for task in tasks:
                self._save(task, stopped=stopped is not None)
        measured = {task.name: (self._wanted[task.name], self._facts[task.name]) for task in tasks}
        self._sitting.confirm()
        part: Part = "select" if stopped is None else "some"
        self._run.record(self._point, measured, self._sitting.merge_facts(), part, stopped)

    def _recall(self, task: TaskSet, questions: tuple[int, ...]) -> None:
        """Take the answers that the run has recorded by other methods."""
        asked = {task.questions[i].id for i in questions}
        for method in self._methods:
            if method not in self._wanted[task.name]:
                known = _recorded(self._run, self._point, task, method)
                assert known is not None
                rows = np.array([id in asked for id in known.ids])
                self._parts.setdefault(task.name, {}).setdefault(method, []).append(known.take(rows))

    def _ask(self, task: TaskSet, questions: tuple[int, ...]) -> None:
        model, budget = self._sitting.ready()
        wanted = self._wanted[task.name]
        if self._advance is ignored:
            rows = self._choosing.rows
            lacking = [(t, methods) for t in self._choosing.tasks if (methods := self._wanted[t.name])]
            sheets = [self._sitting.questionnaire.sheet(t, methods, rows[t.name]) for t, methods in lacking]
            self._advance = self._sitting.watch(self._point.name, sum(sheet.tokens for sheet in sheets), "tokens")
        found = ask(model, budget, self._sitting.questionnaire, task, wanted, self._advance, questions)
        for method, scores in found.items():
            assert isinstance(scores, ChoiceScores)
            self._parts.setdefault(task.name, {}).setdefault(method, []).append(scores)
        self._facts[task.name] = how_asked(model, budget, self._began)

    def _save(self, task: TaskSet, *, stopped: bool = False) -> None:
        self._sitting.confirm()
        for method in self._wanted[task.name]:
            parts = self._parts[task.name][method]
            whole = _joined(parts) if stopped else in_order(parts, self._choosing.ids(task))
            self._run.save(self._point, task.name, method, whole, "some" if stopped else "select")

    def _is_kept(self, task: TaskSet) -> bool:
        """Whether a run that was cut off left all that is wanted of a task, where nobody looks at it."""
        ids, wanted = self._choosing.ids(task), self._wanted[task.name]
        is_one = len(self._choosing.chunks) == 1 and bool(wanted)
        return is_one and all(self._run.kept(self._point, task.name, method, ids, "select") for method in wanted)


def _lacking(
    run: RunDirectory, point: MergePoint, task: TaskSet, methods: Sequence[ConfidenceMethod]
) -> tuple[ConfidenceMethod, ...]:
    """The methods by which the run has recorded neither the choosing questions of a task nor all of them."""
    return tuple(c for c in methods if not (run.has(point, task.name, c, "select") or run.has(point, task.name, c)))


def _recorded(run: RunDirectory, point: MergePoint, task: TaskSet, method: ConfidenceMethod) -> ChoiceScores | None:
    """What the run has recorded of a task: all of it, or the choosing questions."""
    found = run.scores(point, task.name, method) or run.scores(point, task.name, method, "select")
    assert found is None or isinstance(found, ChoiceScores)
    return found


def _joined(parts: Sequence[ChoiceScores]) -> ChoiceScores:
    return in_order(parts, [id for part in parts for id in part.ids])
