"""The measures of every model of an evaluation, along its axis."""

from merge_calib.answers import MEAN
from merge_calib.files import csv_text
from merge_calib.points import AxisPoint, Point
from merge_calib.report.cells import FLOORS, INTERVALS, about_intervals, floor_values, interval_values, row_text
from merge_calib.report.measures import (
    ACCURACY,
    AUROC,
    BRIER,
    ECE,
    ECE2,
    LETTER_BIAS,
    LETTER_MASS,
    MEAN_CONFIDENCE,
    NLL,
    SCE,
    SCE2,
    SCE_AGREEMENT,
    Measure,
    applying,
)
from merge_calib.report.place import place_text, point_cells, point_columns
from merge_calib.report.text import code, markdown_table
from merge_calib.results import Results

COLUMNS = (ACCURACY, ECE, SCE, SCE_AGREEMENT, NLL, BRIER, SCE2, ECE2, MEAN_CONFIDENCE, AUROC, LETTER_MASS, LETTER_BIAS)


def models_csv(results: Results) -> str:
    """One row for each model x task x confidence method, means included."""
    rows = [
        [row.point.name, *point_cells(row.point), row.task, row.confidence, row.measurement.n]
        + [measure.of(row.measurement) for measure in COLUMNS]
        + [row.measurement.ties, *interval_values(results, row), *floor_values(row)]
        for row in results.rows
    ]
    header = ("point", *point_columns(results), "task", "confidence", "n")
    return csv_text((*header, *(measure.column for measure in COLUMNS), "ties", *INTERVALS, *FLOORS), rows)


def models_markdown(results: Results, about: str) -> str:
    """A table for each confidence method x task."""
    parts = ["# Every model\n", f"{about} {about_intervals(results)}\n"]
    for confidence in results.confidences:
        parts.append(f"## Confidence method {code(confidence)}\n")
        for task in tables_of(results, confidence):
            title = "Mean over tasks" if task == MEAN else code(task)
            parts += [f"### {title}\n", model_table(results, task, confidence, applying(COLUMNS, confidence))]
    return "\n".join(parts)


def tables_of(results: Results, confidence: str) -> tuple[str, ...]:
    """What has a table of its own: the mean first, where there are several tasks, then each task."""
    tasks = results.tasks_of(confidence)
    return tasks if len(tasks) == 1 else (MEAN, *tasks)


def model_table(results: Results, task: str, confidence: str, measures: tuple[Measure, ...]) -> str:
    """The models that were measured, a row each, in the order of the axis."""
    lines = results.line(task, confidence)
    if not lines:
        return "No model has all of it yet.\n"
    has_positions = any(isinstance(row.point, AxisPoint) and row.point.position is not None for row in lines)
    bins = results.run.plan["bins"]
    rows = [
        (
            code(model_name(row.point)),
            *([place_text(row.point)] if has_positions else []),
            *(row_text(results, row, measure) for measure in measures),
        )
        for row in lines
    ]
    labels = (measure.heading(bins) if measure.is_binned else measure.label for measure in measures)
    axis = [str(results.run.plan["axis"])] if has_positions else []
    return markdown_table(("model", *axis, *labels), rows)


def model_name(point: Point) -> str:
    """What a point of an evaluation is called."""
    return point.label if isinstance(point, AxisPoint) else point.name
