"""Every measure along the way from base to aligned and beyond, or along the axis of an evaluation."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from merge_calib.files import csv_text
from merge_calib.report.axis import Axis, place_on, point_cells, point_columns
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import ACCURACY, BRIER, ECE, MEAN_CONFIDENCE, NLL, SCE, Measure, applying
from merge_calib.report.style import (
    COLOURS,
    GREY,
    INK,
    MARKERS,
    WIDE,
    Drawing,
    label_text,
    new_figure,
    plain_axes,
)
from merge_calib.report.text import count_text
from merge_calib.results import MEAN, Results

PANELS = (ACCURACY, SCE, ECE, NLL, BRIER, MEAN_CONFIDENCE)
MOST_COLOURED = 12  # more tasks than this are drawn alike: nobody could tell them apart
_DASHES = (0, (4, 1.5))
_LEAST_SPAN = 0.1  # of a vertical axis on which all is 0


def draw_axis(results: Results, landmarks: Landmarks, confidence: str) -> Drawing | None:
    """The measures along the axis, a thin line a task and a thick one for the mean; None for a single model."""
    rows = [row for task in _lines(results, confidence) for row in results.line(task, confidence)]
    if not rows or (not results.is_sweep and len({row.point for row in rows}) == 1):
        return None
    axis = Axis.of(results)
    panels = applying(PANELS, confidence)
    across = 3 if len(panels) > 4 else 2
    entries = [*_task_entries(results, confidence), *_landmark_entries(landmarks)]
    columns = _legend_columns(entries)
    width = WIDE / across - 0.4
    figure = new_figure(WIDE, 3.5 + axis.names_height(width) + 0.14 * -(-len(entries) // columns))
    grid = figure.subplots(2, across, sharex=True, squeeze=False)
    for axes, measure in zip(grid.flat, panels, strict=True):
        _panel(axes, results, axis, confidence, measure)
        _landmark_lines(axes, landmarks)
    for axes in grid[-1]:
        axis.dress(axes, width)
        axes.set_xlabel(axis.heading)
    figure.legend(handles=entries, loc="outside lower center", ncols=columns)
    return Drawing(figure, _numbers(results, confidence))


def _lines(results: Results, confidence: str) -> tuple[str, ...]:
    """What has a line of its own; the mean of one task is that task."""
    tasks = results.tasks_of(confidence)
    return tasks if len(tasks) == 1 else (*tasks, MEAN)


def _panel(axes: Axes, results: Results, axis: Axis, confidence: str, measure: Measure) -> None:
    plain_axes(axes)
    axes.set_title("NLL (nats)" if measure is NLL else measure.heading(results.run.plan["bins"]), loc="left")
    scale = 100 if measure.is_share else 1
    heights: set[float] = set()
    for task in _lines(results, confidence):
        pairs = [(place_on(axis, row.point), measure.of(row.measurement)) for row in results.line(task, confidence)]
        known = [(place, scale * value) for place, value in pairs if value is not None]
        of_task = look(task, results.tasks_of(confidence))
        axes.plot([place for place, _ in known], [value for _, value in known], **of_task)
        heights.update(value for _, value in known)
    if heights == {0}:
        axes.set_ylim(0, scale * _LEAST_SPAN)
        for line in axes.lines:
            line.set_clip_on(False)


def look(task: str, tasks: Sequence[str]) -> dict[str, Any]:
    """The line of a task: colour and marker tell six apart, dashes and hollow markers six more."""
    if task == MEAN or len(tasks) == 1:
        return {"color": INK, "linewidth": 1.8, "marker": "o", "markersize": 2.8, "zorder": 4}
    thin: dict[str, Any] = {"linewidth": 0.8, "markersize": 2.2, "zorder": 3}
    if len(tasks) > MOST_COLOURED:
        return {**thin, "color": GREY, "linewidth": 0.5}
    i = tasks.index(task)
    colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
    if i < len(COLOURS):
        return {**thin, "color": colour, "marker": marker}
    hollow = {"linestyle": _DASHES, "markerfacecolor": "white", "markeredgewidth": 0.6, "markersize": 2.8}
    return {**thin, "color": colour, "marker": marker, **hollow}


def _landmark_lines(axes: Axes, landmarks: Landmarks) -> None:
    for parent in (landmarks.base, landmarks.aligned):
        if parent is not None:
            axes.axvline(parent.lam, **_PARENT)
    if landmarks.recovers and landmarks.selected is not None:
        axes.axvline(landmarks.selected.lam, **_SELECTED)


_PARENT: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "zorder": 1}
_SELECTED: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": (0, (3, 2)), "zorder": 2}


def _task_entries(results: Results, confidence: str) -> list[Line2D]:
    tasks = results.tasks_of(confidence)
    drawn = [task for task in _lines(results, confidence) if results.line(task, confidence)]
    if len(tasks) > MOST_COLOURED:
        alike = Line2D([], [], label=count_text(len(tasks), "task"), **look(tasks[0], tasks))
        return [alike, *(Line2D([], [], label="mean", **look(task, tasks)) for task in drawn if task == MEAN)]
    return [Line2D([], [], label=label_text(task), **look(task, tasks)) for task in drawn]


def _landmark_entries(landmarks: Landmarks) -> list[Line2D]:
    entries = []
    parents = [role for role in ("base", "aligned") if getattr(landmarks, role) is not None]
    if parents:
        entries.append(Line2D([], [], label=", ".join(parents), **_PARENT))
    if landmarks.recovers and landmarks.selected is not None:
        entries.append(Line2D([], [], label=f"selected, λ = {landmarks.selected.lam:.3g}", **_SELECTED))
    return entries


def _legend_columns(entries: list[Line2D]) -> int:
    """As many columns as the longest label leaves room for, in a width of 7 pt letters."""
    longest = max(len(str(entry.get_label())) for entry in entries)
    return max(1, min(len(entries), int((WIDE - 0.1) / (0.5 + 0.062 * longest))))


def _numbers(results: Results, confidence: str) -> str:
    rows = [row for task in (*results.tasks_of(confidence), MEAN) for row in results.line(task, confidence)]
    return csv_text(
        ("task", "point", *point_columns(results), *(measure.column for measure in PANELS)),
        (
            [row.task, row.point.name, *point_cells(row.point), *(measure.of(row.measurement) for measure in PANELS)]
            for row in rows
        ),
    )
