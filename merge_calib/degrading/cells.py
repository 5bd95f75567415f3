"""What a pair answered to a task: measures with paired draws, and the noise floors of its base."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from merge_calib.analysis import Analysis
from merge_calib.answers import MEAN, Answers, answers_of
from merge_calib.calibration.noise_floor import Floor, mean_floor, noise_floor
from merge_calib.degrading.pairs import Pair
from merge_calib.errors import InputError
from merge_calib.inference.joint import Joint, average, joint_of
from merge_calib.inference.resampling import seed_of
from merge_calib.inference.splits import divide
from merge_calib.progress import Watch
from merge_calib.results import REDRAWS, Results
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import Booleans

Key = tuple[str, str, str]  # pair, task, confidence method


@dataclass(frozen=True, eq=False)
class Cell:
    """All points of a pair on a task, or the mean over its tasks; floors: of the base, by measure."""

    joint: Joint
    floors: Mapping[str, Floor]


def outline(run: RunDirectory) -> Results:
    """The tasks and confidence methods of a run, without measuring anything."""
    return Results(run, Analysis.of(run.plan), {}, ())


def cells_of(
    pairs: Sequence[Pair], analysis: Analysis, bins: int, *, match_sizes: bool, watch: Watch
) -> tuple[dict[Key, Cell], int | None]:
    """Every pair x confidence method x task that both parents answered, and their mean; the size they were cut to.

    Raises InputError where there is none, or where scores of one task are about different questions.
    """
    answers = {key: known for pair in pairs for key, known in _answers(pair, analysis)}
    if not answers:
        raise InputError(f"{pairs[0].run.path} has no task that both base and aligned model answered")
    _require_same_ids(pairs, answers)
    size = min(len(known.division.ids) for known in answers.values()) if match_sizes else None
    bases = {pair.name: pair for pair in pairs}
    advance = watch("drawing questions", len(answers))
    cells = {}
    for key, known in answers.items():
        cells[key] = _cell(bases[key[0]], known, size, bins)
        advance(1)
    return cells | {key: cell for pair in pairs for key, cell in _means(pair, cells)}, size


def cells_measured(pair: Pair, results: Results) -> dict[Key, Cell]:
    """The same cells of one sweep from what its results have drawn already; the draws are the same."""
    cells = {}
    for confidence in results.confidences:
        for task in results.tasks_of(confidence):
            row = results.row(pair.base, task, confidence, "all")
            joint = results.joint(task, confidence, "all")
            if row is not None and joint is not None and pair.aligned.name in joint.names:
                cells[pair.name, task, confidence] = Cell(joint, row.floors)
    return cells | dict(_means(pair, cells))


def _answers(pair: Pair, analysis: Analysis) -> Iterator[tuple[Key, Answers]]:
    asked = outline(pair.run)
    for confidence in asked.confidences:
        for task in asked.tasks_of(confidence):
            known = answers_of(pair.run, pair.points, task, confidence, analysis, divides=False)
            if known is not None and {pair.base, pair.aligned} <= set(known.scores):
                yield (pair.name, task, confidence), known


def _require_same_ids(pairs: Sequence[Pair], answers: Mapping[Key, Answers]) -> None:
    """Whatever the run.json say, draws of several pairs are paired only where the questions are the same."""
    paths = {pair.name: pair.run.path for pair in pairs}
    seen: dict[str, tuple[str, tuple[str, ...]]] = {}
    for (name, task, _), known in answers.items():
        other, ids = seen.setdefault(task, (name, known.division.ids))
        if other != name and ids != known.division.ids:
            raise InputError(
                f"the scores of task {task} in {paths[name]} are of other questions than in {paths[other]}"
            )


def _cell(pair: Pair, known: Answers, size: int | None, bins: int) -> Cell:
    rows = _rows(known, size)
    joint = joint_of({p.name: known.of(p, rows) for p in known.scores}, known.division.counts(rows), bins)
    seed = seed_of(known.division.analysis.seed, known.division.task)
    found = noise_floor(known.of(pair.base, rows), bins, REDRAWS, seed)
    return Cell(joint, {"ece": found.ece} | ({"sce": found.sce} if found.sce else {}))


def _rows(known: Answers, size: int | None) -> Booleans:
    """The mask (N,) of `size` questions by the rank of their id's hash within their subject, or of all."""
    ids, subjects = known.division.ids, known.division.subjects
    if size is None or size == len(ids):
        return np.ones(len(ids), dtype=bool)
    return divide(ids, subjects, size / len(ids)).select


def _means(pair: Pair, cells: Mapping[Key, Cell]) -> Iterator[tuple[Key, Cell]]:
    """The macro average over the tasks of each confidence method that has several, where all were answered."""
    asked = outline(pair.run)
    for confidence in asked.confidences:
        tasks = asked.tasks_of(confidence)
        found = [cells[pair.name, task, confidence] for task in tasks if (pair.name, task, confidence) in cells]
        if 1 < len(found) == len(tasks):
            yield (pair.name, MEAN, confidence), _mean(found)


def _mean(cells: Sequence[Cell]) -> Cell:
    names = [name for name in cells[0].joint.names if all(name in cell.joint.names for cell in cells)]
    joint = average([cell.joint.renamed({name: name for name in names}) for cell in cells])
    shared = [measure for measure in cells[0].floors if all(measure in cell.floors for cell in cells)]
    return Cell(joint, {measure: mean_floor([cell.floors[measure] for cell in cells]) for measure in shared})
