"""Every measure along the way from base to aligned and beyond, or along the axis of an evaluation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from merge_calib.answers import MEAN
from merge_calib.files import csv_text
from merge_calib.merging.point import MergePoint
from merge_calib.predictions import PREDICTED, Prediction
from merge_calib.report.axis import Axis, place_on
from merge_calib.report.axis_extras import Extras
from merge_calib.report.axis_lines import (
    LONGEST_LINE,
    Line,
    is_by_groups_only,
    line_entries,
    line_title,
    lines_of,
    lines_of_mean,
)
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import ACCURACY, BRIER, ECE, ECE2, MEAN_CONFIDENCE, NLL, SCE, SCE2, Measure
from merge_calib.report.place import figure_text, point_cells, point_columns
from merge_calib.report.predicted import draw_predicted_line, line_entry, predicted_of
from merge_calib.report.retained_cells import COLUMNS as RETAINED
from merge_calib.report.retained_cells import has_retained, retained_of, retained_values
from merge_calib.report.retained_panel import draw_retained
from merge_calib.report.style import GREY, INK, WIDE, Drawing, new_figure, plain_axes, wrapped_text
from merge_calib.results import MEASURED, Results
from merge_calib.scoring.questionnaire import NEXT_TOKEN

_OF_OPTIONS = (ACCURACY, SCE, ECE, NLL, BRIER, SCE2)
_BESIDE_RETAINED = (ACCURACY, SCE, ECE, NLL, SCE2)  # the Brier score makes room for the sixth panel
_OF_TEXTS = (ACCURACY, ECE, NLL, MEAN_CONFIDENCE)
NUMBERS = (*_OF_OPTIONS, ECE2, MEAN_CONFIDENCE)  # what the CSV holds
_LEAST_SPAN = 0.1  # of a vertical axis on which all is 0


def draw_axis(results: Results, landmarks: Landmarks, confidence: str) -> Drawing | None:
    """The measures along the axis, a thin line a task and a thick one for the mean, in a sweep for each method.

    None for a single model, and where all points between the parents have lambdas by groups.
    """
    lines = lines_of(results, confidence)
    points = {row.point for line in lines for row in line.rows}
    if not points or (not results.is_sweep and len(points) == 1) or is_by_groups_only(results, confidence):
        return None
    axis = Axis.of(results)
    shows_retained = confidence != NEXT_TOKEN and has_retained(results)
    panels = _panels(confidence, shows_retained=shows_retained)
    extras = Extras.of(results, confidence)
    across = 3 if confidence != NEXT_TOKEN else 2
    predicted = predicted_of(results, confidence)
    of_lines = line_entries(results, confidence)
    if results.run.search is not None:  # what lies between is said by predictions, or was not asked these questions
        lines = [replace(line, look={**line.look, "linestyle": "none"}) for line in lines]
        for entry in of_lines:
            entry.set_linestyle("none")
    entries = [*of_lines, *_landmark_entries(landmarks), *extras.entries, *([line_entry()] if predicted else [])]
    columns, title = _legend_columns(entries), line_title(results, confidence)
    width = WIDE / across - 0.4
    legend_height = 0.14 * (-(-sum(map(len, _label_lines(entries))) // columns) + bool(title))
    figure = new_figure(WIDE, 3.5 + axis.names_height(width) + legend_height)
    grid = figure.subplots(2, across, sharex=True, squeeze=False)
    if shows_retained:
        draw_retained(grid.flat[-1], results, lines_of_mean(lines), axis)
        _landmark_lines(grid.flat[-1], landmarks)
    for axes, measure in zip(grid.flat, panels, strict=not shows_retained):
        extras.draw(axes, axis, measure)
        draw_predicted_line(axes, predicted, measure)
        _panel(axes, lines, axis, measure, results.run.plan["bins"])
        _landmark_lines(axes, landmarks)
    for axes in grid[-1]:
        axis.dress(axes, width)
        axes.set_xlabel(axis.heading)
    figure.legend(handles=entries, title=title, loc="outside lower center", ncols=columns)
    return Drawing(figure, _numbers(results, confidence, extras, predicted))


def _panels(confidence: str, *, shows_retained: bool) -> Sequence[Measure]:
    if confidence == NEXT_TOKEN:
        return _OF_TEXTS
    return _BESIDE_RETAINED if shows_retained else _OF_OPTIONS


def _panel(axes: Axes, lines: Sequence[Line], axis: Axis, measure: Measure, bins: int) -> None:
    plain_axes(axes)
    axes.set_title("NLL (nats)" if measure is NLL else measure.heading(bins), loc="left")
    scale = 100 if measure.is_share else 1
    heights: set[float] = set()
    for line in lines:
        pairs = [(place_on(axis, row.point), measure.of(row.measurement)) for row in line.rows]
        known = [(place, scale * value) for place, value in pairs if value is not None]
        axes.plot([place for place, _ in known], [value for _, value in known], **line.look)
        heights.update(value for _, value in known)
    if heights == {0}:
        axes.set_ylim(0, scale * _LEAST_SPAN)
        for artist in axes.lines:
            artist.set_clip_on(False)


def _landmark_lines(axes: Axes, landmarks: Landmarks) -> None:
    selected = landmarks.selected if landmarks.recovers else None
    for point, style in ((landmarks.base, _PARENT), (landmarks.aligned, _PARENT), (selected, _SELECTED)):
        if point is not None and point.lam is not None:
            axes.axvline(point.lam, **style)


_PARENT: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "zorder": 1}
_SELECTED: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": (0, (3, 2)), "zorder": 2}


def _landmark_entries(landmarks: Landmarks) -> list[Line2D]:
    entries = []
    parents = [role for role in ("base", "aligned") if getattr(landmarks, role) is not None]
    if parents:
        entries.append(Line2D([], [], label=", ".join(parents), **_PARENT))
    if landmarks.recovers and landmarks.selected is not None and landmarks.selected.lam is not None:
        label = wrapped_text(f"selected, {figure_text(landmarks.selected)}", LONGEST_LINE)
        entries.append(Line2D([], [], label=label, **_SELECTED))
    return entries


def _legend_columns(entries: Sequence[Line2D | Patch]) -> int:
    """As many columns as the longest label leaves room for, in a width of 7 pt letters."""
    longest = max(len(line) for lines in _label_lines(entries) for line in lines)
    return max(1, min(len(entries), int((WIDE - 0.1) / (0.5 + 0.062 * longest))))


def _label_lines(entries: Sequence[Line2D | Patch]) -> list[list[str]]:
    return [str(entry.get_label()).split("\n") for entry in entries]


def _numbers(results: Results, confidence: str, extras: Extras, predicted: Sequence[Prediction]) -> str:
    """A row for each point and task, then the rivals' levels and what was predicted of the mean, by `source`.

    Bands and noise floors are those of the mean.
    """
    rows: list[list[object]] = []
    columns = point_columns(results)
    kept = RETAINED if has_retained(results) else ()
    for task in (*results.tasks_of(confidence), MEAN):
        for row in results.line(task, confidence):
            if not isinstance(row.point, MergePoint) or row.point.lam is not None:
                place = (row.task, row.point.name, *point_cells(row.point))
                values = [measure.of(row.measurement) for measure in NUMBERS]
                more = retained_values(retained_of(results, row.point)) if kept and task == MEAN else [None] * len(kept)
                rows.append([*place, *values, *extras.values(row), *more, MEASURED])
    for name, levels in extras.levels.items():
        values = [levels.get(measure.column) for measure in NUMBERS]
        rows.append([MEAN, name, *[None] * len(columns), *values, *[None] * (len(Extras.COLUMNS) + len(kept)), "rival"])
    for p in predicted:
        values = [getattr(p, measure.column) if measure.column in PREDICTED else None for measure in NUMBERS]
        none = [None] * (len(Extras.COLUMNS) + len(kept))
        rows.append([MEAN, p.point.name, *point_cells(p.point), *values, *none, "predicted"])
    return csv_text(("task", "point", *columns, *(m.column for m in NUMBERS), *Extras.COLUMNS, *kept, "source"), rows)
