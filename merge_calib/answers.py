"""What all points of a run answered, and which questions choose and which ones judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from merge_calib.analysis import Analysis
from merge_calib.calibration.metrics import AnyPredictions
from merge_calib.errors import InputError, RunDirectoryError
from merge_calib.inference.resampling import FEWEST_CLUSTERS, Counts, clustered, seed_of, stratified
from merge_calib.inference.splits import Fold, codes, cross_fit, divide
from merge_calib.points import Point
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import Booleans, Scores

Split = Literal["select", "report", "all"]
MEAN = "mean"  # what stands for the average over tasks where a task is named


@dataclass(frozen=True)
class Division:
    """The questions of one task and how they are divided.

    folds: one, or as many as --cross-fit asks for; without a division (an evaluation) everything is on the side `all`
    """

    task: str
    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    folds: tuple[Fold, ...]
    analysis: Analysis

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that have rows of their own; with cross-fitting every question is on both sides in turn."""
        return ("select", "report", "all") if self.is_divided and len(self.folds) == 1 else ("all",)

    @property
    def is_divided(self) -> bool:
        """Whether some questions choose and others judge."""
        return not any((fold.select & fold.report).any() for fold in self.folds)

    def rows(self, split: Split) -> Booleans:
        """The mask (N,) of the questions of a split."""
        if split == "all":
            return np.ones(len(self.ids), dtype=bool)
        (fold,) = self.folds
        return fold.select if split == "select" else fold.report

    @property
    def judging(self) -> Booleans:
        """The mask (N,) of the questions that judge in some fold."""
        return np.asarray(np.any([fold.report for fold in self.folds], axis=0), dtype=np.bool_)

    def counts(self, rows: Booleans) -> Counts:
        """The draws (B, n) of the n questions of a mask: by subject, or whole subjects.

        The same for every point and every confidence method.
        """
        analysis = self.analysis
        subjects = codes([subject for subject, row in zip(self.subjects, rows, strict=True) if row])
        seed = seed_of(analysis.seed, self.task)
        if self.is_clustered:
            return clustered(subjects, analysis.draws, seed)
        return stratified(subjects, analysis.draws, seed)

    @cached_property
    def is_clustered(self) -> bool:
        """Whether whole subjects are drawn: as asked for, where there are enough of them to tell their spread."""
        return self.analysis.cluster == "subject" and len(set(self.subjects)) >= FEWEST_CLUSTERS


def division_of(run: RunDirectory, task: str, ids: Sequence[str], analysis: Analysis, *, divides: bool) -> Division:
    """How the questions `ids` of a task are divided, by what the run keeps of them.

    Raises RunDirectoryError where the run's questions are not those of its scores, and InputError where a side of the
    division is empty.
    """
    asked = run.asked(task)
    if asked is not None and asked.ids != tuple(ids):
        raise RunDirectoryError(
            f"{run.path / 'questions' / task}.jsonl holds other questions than the scores of task {task}; delete it "
            "and give the same command again"
        )
    subjects = asked.subjects if asked else ("",) * len(ids)
    given = asked.splits if asked else ()
    if divides:
        return Division(task, tuple(ids), tuple(subjects), folds_of(task, ids, subjects, given, analysis), analysis)
    everything = np.ones(len(ids), dtype=bool)
    return Division(task, tuple(ids), tuple(subjects), (Fold(everything, everything),), analysis)


def folds_of(
    task: str, ids: Sequence[str], subjects: Sequence[str], given: Sequence[str], analysis: Analysis
) -> tuple[Fold, ...]:
    """The folds of a task; `given` names the side of questions that bring it along.

    Raises InputError where a side of one of them is empty.
    """
    if analysis.cross_fit and any(given):
        raise InputError(
            f"task {task}: its questions say themselves which of them choose and which judge, and --cross-fit lets all "
            "of them do both; give --cross-fit 0, or questions without a split"
        )
    if analysis.cross_fit:
        folds = cross_fit(ids, subjects, analysis.cross_fit)
    else:
        folds = (divide(ids, subjects, analysis.select_fraction, given),)
    for fold in folds:
        if not (fold.select.any() and fold.report.any()):
            raise InputError(
                f"task {task}: of its {len(ids)} question(s) some must choose the point and others judge it, but one "
                "side is empty; ask more questions"
                + (f", or fewer folds than --cross-fit {analysis.cross_fit}" if analysis.cross_fit else "")
            )
    return folds


@dataclass(frozen=True)
class Answers:
    """What every point answered to one task by one confidence method."""

    division: Division
    scores: Mapping[Point, Scores]

    def of(self, point: Point, rows: Booleans) -> AnyPredictions:
        """The predictions of one point for the questions of a mask (N,)."""
        predictions = self.scores[point].predictions
        return predictions if rows.all() else predictions.take(rows)


def answers_of(
    run: RunDirectory, points: Sequence[Point], task: str, confidence: str, analysis: Analysis, *, divides: bool
) -> Answers | None:
    """What the run has stored of a task by a confidence method; None where no point has it."""
    stored = {point: run.scores(point, task, confidence) for point in points}
    scores = {point: each for point, each in stored.items() if each is not None}
    if not scores:
        return None
    ids = next(iter(scores.values())).ids
    for point, each in scores.items():
        if each.ids != ids:
            raise RunDirectoryError(f"{run.path}: {point.name} answered other questions of task {task} than the others")
    return Answers(division_of(run, task, ids, analysis, divides=divides), scores)
