"""The tables of a run: what alignment changed, every point, every model, and the letters."""

from collections.abc import Iterator
from typing import NamedTuple

from merge_calib.degradation.change import Change
from merge_calib.files import csv_text, write_text
from merge_calib.frontier import non_dominated
from merge_calib.merging.point import MergePoint
from merge_calib.points import Point
from merge_calib.report.families import is_all_linear
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.letters import letters_csv, letters_markdown
from merge_calib.report.measures import (
    ACCURACY,
    AUROC,
    BRIER,
    ECE,
    LETTER_BIAS,
    LETTER_MASS,
    MEAN_CONFIDENCE,
    NLL,
    SCE,
    SCE_AGREEMENT,
    Measure,
    applying,
)
from merge_calib.report.model_tables import models_csv, models_markdown
from merge_calib.report.place import place_text, point_cells, point_columns
from merge_calib.report.text import MISSING, code, count_text, markdown_table, named_text, rate_text
from merge_calib.results import MEAN, Result, Results

CHANGED = (ECE, SCE, SCE_AGREEMENT, ACCURACY, NLL, BRIER)
POINT_COLUMNS = (ACCURACY, SCE, SCE_AGREEMENT, ECE, NLL, BRIER, MEAN_CONFIDENCE, AUROC, LETTER_MASS, LETTER_BIAS)
_NAMES = ("change_rates", "points", "models", "letters")


class ChangeRow(NamedTuple):
    """What alignment did to one measure on one task (or the mean) by one confidence method."""

    confidence: str
    task: str
    measure: Measure
    change: Change


def write_tables(results: Results, landmarks: Landmarks) -> None:
    """Write every table that the run has into tables/, each as .csv and .md; others of an earlier report go."""
    tables: dict[str, tuple[str, str]] = {}
    if results.is_sweep:
        rows = change_rows(results, landmarks)
        tables["change_rates"] = _change_csv(results, rows), _change_markdown(results, rows)
        tables["points"] = _points_csv(results, landmarks), _points_markdown(results, landmarks)
    else:
        tables["models"] = models_csv(results), models_markdown(results, about_measures(results))
    if "choice" in results.confidences:
        tables["letters"] = letters_csv(results, landmarks), letters_markdown(results, landmarks)
    for name in _NAMES:
        for i, ending in enumerate(("csv", "md")):
            path = results.run.path / "tables" / f"{name}.{ending}"
            if name in tables:
                write_text(path, tables[name][i])
            else:
                path.unlink(missing_ok=True)


def change(results: Results, landmarks: Landmarks, task: str, confidence: str, measure: Measure) -> Change:
    """Base against aligned; None on the side that was not measured."""

    def value(point: MergePoint | None) -> float | None:
        return None if point is None else measure.of(results.get(point, task, confidence))

    return Change(value(landmarks.base), value(landmarks.aligned))


def change_rows(results: Results, landmarks: Landmarks) -> list[ChangeRow]:
    """Every confidence method x measure that it has x task, the mean last."""
    return [
        ChangeRow(confidence, task, measure, change(results, landmarks, task, confidence, measure))
        for confidence in results.confidences
        for measure in applying(CHANGED, confidence)
        for task in (*results.tasks_of(confidence), MEAN)
    ]


def which_sce(bins: int) -> str:
    """What a table must say about its columns."""
    return (
        f"ECE, SCE and SCE-agreement have M = {bins} bins of equal width ((m-1)/M, m/M]. "
        "SCE is the static calibration error of Nixon et al. 2019. SCE-agreement is the variant of Oh & Hwang 2024, "
        "in which a class is right where prediction and answer agree on it, true negatives included; it grows with "
        "confidence itself and is not comparable with SCE. NLL is in nats. "
        "`mean` is the macro average over tasks, every task with the same weight."
    )


def about_measures(results: Results) -> str:
    """What a table of all measures of a run must say about its columns."""
    bins = results.run.plan["bins"]
    if results.choice_methods:
        return which_sce(bins)
    return f"ECE has M = {bins} bins of equal width ((m-1)/M, m/M]. NLL is in nats."


def task_text(task: str) -> str:
    return MEAN if task == MEAN else code(task)


def shown_tasks(results: Results, confidence: str) -> tuple[str, ...]:
    """The tasks of a confidence method, and their mean where there is more than one."""
    tasks = results.tasks_of(confidence)
    return tasks if len(tasks) == 1 else (*tasks, MEAN)


def over_text(results: Results) -> str:
    """What means are means of."""
    counts = [len(results.tasks_of(confidence)) for confidence in results.confidences]
    if max(counts) == 1:
        return "On the one task that was asked." if len(results.tasks) == 1 else "On the one task of each kind."
    if min(counts) == max(counts) == len(results.tasks):
        return f"Means over {len(results.tasks)} tasks, every task with the same weight."
    over = [f"{code(c)} {count_text(n, 'task')}" for c, n in zip(results.confidences, counts, strict=True)]
    return f"Means over the tasks that a confidence method applies to ({', '.join(over)}), each with the same weight."


def _change_csv(results: Results, rows: list[ChangeRow]) -> str:
    def line(row: ChangeRow) -> tuple[object, ...]:
        bins = results.run.plan["bins"] if row.measure.is_binned else None
        c = row.change
        return (row.confidence, row.task, row.measure.column, bins, c.base, c.aligned, c.difference, c.rate)

    header = ("confidence", "task", "measure", "bins", "base", "aligned", "difference", "change_rate_percent")
    return csv_text(header, map(line, rows))


def _change_markdown(results: Results, rows: list[ChangeRow]) -> str:
    bins = results.run.plan["bins"]
    parts = [
        "# What alignment changed\n",
        "Change rate = (aligned - base) / base x 100, in %. The rate of the mean is the rate between the two means.\n",
        f"{which_sce(bins)}\n",
    ]
    for confidence in results.confidences:
        lines = [
            (
                row.measure.heading(bins) if row.measure.is_binned else row.measure.label,
                task_text(row.task),
                row.measure.text(row.change.base),
                row.measure.text(row.change.aligned),
                row.measure.difference_text(row.change.difference),
                rate_text(row.change.rate),
            )
            for row in rows
            if row.confidence == confidence and row.task in shown_tasks(results, confidence)
        ]
        header = ("measure", "task", "base", "aligned", "difference", "change rate")
        parts += [f"## Confidence method {code(confidence)}\n", markdown_table(header, lines, names=2)]
    return "\n".join(parts)


def _points(results: Results, landmarks: Landmarks, confidence: str) -> Iterator[tuple[Result, bool | None, bool]]:
    """The mean of every complete point, whether it is on the frontier, if there is one, and whether it is selected."""
    candidates = results.candidates(confidence)
    kept = (
        dict(zip((c.name for c in candidates), non_dominated(candidates).tolist(), strict=True)) if candidates else {}
    )
    for row in results.line(MEAN, confidence):
        yield row, kept.get(row.point.name), row.point == landmarks.selected


def _points_csv(results: Results, landmarks: Landmarks) -> str:
    rows = [
        [
            r.point.name,
            *point_cells(r.point),
            confidence,
            landmarks.role(r.point),
            on_frontier,
            selected,
            r.measurement.n,
        ]
        + [measure.of(r.measurement) for measure in POINT_COLUMNS]
        + [r.measurement.ties]
        for confidence in results.confidences
        for r, on_frontier, selected in _points(results, landmarks, confidence)
    ]
    header = ("point", *point_columns(results), "confidence", "role", "non_dominated", "selected", "n")
    return csv_text((*header, *(measure.column for measure in POINT_COLUMNS), "ties"), rows)


def _points_markdown(results: Results, landmarks: Landmarks) -> str:
    bins = results.run.plan["bins"]
    columns = _place_columns(results)
    parts = [
        "# Every point\n",
        "Means over tasks of the points that have all tasks; `yes` where no other point is at least as good on "
        "accuracy and SCE and better on one. Chosen and measured on the same questions.\n",
        f"{which_sce(bins)}\n",
    ]
    for confidence in results.confidences:
        measures = applying(POINT_COLUMNS, confidence)
        lines = [
            (
                *_place_cells(r.point, columns),
                landmarks.role(r.point),
                "yes" if on_frontier else "",
                *(measure.text(measure.of(r.measurement)) for measure in measures),
            )
            for r, on_frontier, _ in _points(results, landmarks, confidence)
        ]
        header = (*columns, "", "frontier", *(measure.label for measure in measures))
        table = markdown_table(header, lines, names=len(columns) + 2) if lines else "No point has all tasks yet.\n"
        parts += [f"## Confidence method {code(confidence)}\n", table]
    return "\n".join(parts)


def _place_columns(results: Results) -> tuple[str, ...]:
    """What it takes to say which point a row is about."""
    if is_all_linear(results):
        return ("lambda",)
    has_options = any(isinstance(point, MergePoint) and point.options for point in results.points)
    return ("method", *(("options",) if has_options else ()), "lambda")


def _place_cells(point: Point, columns: tuple[str, ...]) -> list[str]:
    """The values of `_place_columns`; a parent is of no method."""
    assert isinstance(point, MergePoint)
    is_parent = point.is_base or point.is_aligned
    texts = {
        "method": MISSING if is_parent else code(point.method),
        "options": named_text(point.options) or MISSING,
        "lambda": place_text(point),
    }
    return [texts[column] for column in columns]
