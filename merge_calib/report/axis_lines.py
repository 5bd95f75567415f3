"""The lines of a figure along an axis: a task each, and in a sweep by several methods each method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.lines import Line2D

from merge_calib.answers import MEAN
from merge_calib.merging.point import MergePoint
from merge_calib.report.families import LINEAR, Family, families_of
from merge_calib.report.style import COLOURS, GREY, INK, MARKERS, PLAIN_MARKERS, label_text, wrapped_text
from merge_calib.report.text import count_text
from merge_calib.results import Result, Results

MOST_COLOURED = 12  # more tasks than this are drawn alike: nobody could tell them apart
LONGEST_LINE = 38  # letters of a label, so that a legend has two columns
_DASHES = (0, (4, 1.5))
_APART: dict[str, Any] = {"linestyle": "none", "marker": "D", "markersize": 3.2, "zorder": 5}


@dataclass(frozen=True)
class Line:
    """What is drawn as one line in every panel, and how it looks."""

    rows: Sequence[Result]
    look: dict[str, Any]


def lines_of(results: Results, confidence: str) -> list[Line]:
    """A line for each task and for the mean; where a sweep has several methods, for each of these by each method.

    Points with lambdas by groups are on no line; the aligned model is a mark of its own where no line goes through it.
    """
    return [line for task in _drawn_tasks(results, confidence) for line in _lines_of_task(results, task, confidence)]


def lines_of_mean(lines: Sequence[Line]) -> list[Line]:
    """The lines of the mean over tasks, or of the only task: what is the same for all tasks is drawn on them."""
    shown = {row.task for line in lines for row in line.rows}
    last = MEAN if MEAN in shown else next(iter(shown))
    return [line for line in lines if any(row.task == last for row in line.rows)]


def _drawn_tasks(results: Results, confidence: str) -> tuple[str, ...]:
    """What has a line of its own; the mean of one task is that task."""
    tasks = results.tasks_of(confidence)
    return tasks if len(tasks) == 1 else (*tasks, MEAN)


def _lines_of_task(results: Results, task: str, confidence: str) -> Iterator[Line]:
    rows, of_task = results.line(task, confidence), look(task, results.tasks_of(confidence))
    if not results.is_sweep:
        yield Line(rows, of_task)
        return
    families = families_on_axis(results, confidence)
    is_mean = task == _drawn_tasks(results, confidence)[-1]
    for i, family in enumerate(families):
        style = of_task if len(families) == 1 else _family_look(i, is_mean=is_mean)
        yield Line([row for row in rows if family.is_on_line(row.point)], style)
    if has_aligned_apart(results, confidence):
        colour = of_task["color"] if len(families) == 1 or is_mean else GREY
        alone = [row for row in rows if isinstance(row.point, MergePoint) and row.point.is_aligned]
        yield Line(alone, {**_APART, "color": colour})


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


def _family_look(i: int, *, is_mean: bool) -> dict[str, Any]:
    """The line of one method among several, thick for the mean, pale for a task; told apart as tasks are by `look`."""
    line: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": _DASHES if _is_second(i) else "-"}
    if not is_mean:
        return {**line, "linewidth": 0.6, "alpha": 0.45, "zorder": 3}
    hollow = {"markerfacecolor": "white", "markeredgewidth": 0.6} if _is_second(i) else {}
    return {
        **line,
        "linewidth": 1.4,
        "marker": PLAIN_MARKERS[i % len(PLAIN_MARKERS)],
        "markersize": 3.0,
        "zorder": 4,
        **hollow,
    }


def _is_second(i: int) -> bool:
    """Whether all colours were used before."""
    return bool(i // len(COLOURS) % 2)


def line_entries(results: Results, confidence: str) -> list[Line2D]:
    """What a legend says of the lines: the tasks, or the methods where there are several."""
    families = families_on_axis(results, confidence)
    entries = _task_entries(results, confidence)
    if len(families) > 1:
        entries = [
            Line2D([], [], label=wrapped_text(family.label, LONGEST_LINE), **_family_look(i, is_mean=True))
            for i, family in enumerate(families)
        ]
        if len(_drawn_tasks(results, confidence)) > 1:
            entries.append(Line2D([], [], label="a task", color=GREY, linewidth=0.6))
    if has_aligned_apart(results, confidence):
        entries.append(Line2D([], [], label="aligned", color=INK, **_APART))
    return entries


def line_title(results: Results, confidence: str) -> str | None:
    """The method of all lines, where it is one that must be said."""
    families = families_on_axis(results, confidence) if results.is_sweep else ()
    return families[0].label if len(families) == 1 and families[0] != Family(LINEAR) else None


def _task_entries(results: Results, confidence: str) -> list[Line2D]:
    tasks = results.tasks_of(confidence)
    drawn = [task for task in _drawn_tasks(results, confidence) if results.line(task, confidence)]
    if len(tasks) > MOST_COLOURED:
        alike = Line2D([], [], label=count_text(len(tasks), "task"), **look(tasks[0], tasks))
        return [alike, *(Line2D([], [], label="mean", **look(task, tasks)) for task in drawn if task == MEAN)]
    return [Line2D([], [], label=label_text(task), **look(task, tasks)) for task in drawn]


def families_on_axis(results: Results, confidence: str) -> tuple[Family, ...]:
    """The methods that have a line against lambda."""
    return families_of(point for point in _merges(results, confidence) if point.lam is not None)


def has_aligned_apart(results: Results, confidence: str) -> bool:
    """Whether the aligned model was measured and lies on no line against lambda."""
    is_measured = any(point.is_aligned for point in _merges(results, confidence))
    return is_measured and not any(family.gives_aligned for family in families_on_axis(results, confidence))


def is_by_groups_only(results: Results, confidence: str) -> bool:
    """Whether points were measured besides the parents, and none of them has a place on the axis."""
    merges = [point for point in _merges(results, confidence) if not point.is_base and not point.is_aligned]
    return bool(merges) and all(point.lam is None for point in merges)


def _merges(results: Results, confidence: str) -> list[MergePoint]:
    """All merges of which something was measured by a confidence method; none in an evaluation."""
    rows = (row for row in results.rows if row.confidence == confidence)
    return [point for point in dict.fromkeys(row.point for row in rows) if isinstance(point, MergePoint)]
