"""The accuracy that the frontier attains at each calibration error, and how sure that is."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from merge_calib.answers import MEAN
from merge_calib.files import csv_text
from merge_calib.findings import Certainty, findings_of
from merge_calib.inference.joint import Joint
from merge_calib.merging.point import MergePoint
from merge_calib.report.certainty_section import certainty_of
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.place import point_cells, point_columns
from merge_calib.report.style import BLUE, GREY, INK, SINGLE, Drawing, new_figure, plain_axes
from merge_calib.results import Results

_MARKS = {"base": ("s", 30), "aligned": ("D", 28), "selected": ("*", 90), "aligned, selected": ("D", 28)}
_BAND, _MEDIAN = f"{BLUE}33", BLUE


def draw_attainment(results: Results, landmarks: Landmarks, confidence: str) -> Drawing | None:
    """Mean accuracy (%) attained at an sce2 of at most so much, in 5, 50 and 95 % of draws."""
    findings = findings_of(results)
    certainty = certainty_of(findings, confidence)
    rivals = findings.rivals(confidence)
    if certainty is None or rivals is None:
        return None
    joint = findings.joint(MEAN, confidence)
    figure = new_figure(SINGLE, 2.6)
    axes = figure.add_subplot()
    plain_axes(axes)
    _curves(axes, certainty)
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=_MEDIAN, label="attained in half the draws"),
        Patch(facecolor=_BAND, label="5 to 95 %"),
        *_points(axes, joint, landmarks, rivals.points),
    ]
    count = len(results.tasks_of(confidence))
    axes.set_xlabel(
        "sce2 (debiased, lower is better)" if count == 1 else f"Mean sce2 over {count} tasks (lower is better)"
    )
    axes.set_ylabel("Accuracy (%)" if count == 1 else "Mean accuracy (%)")
    figure.legend(handles=entries, loc="outside upper center", ncols=2)
    return Drawing(figure, _numbers(results, certainty, joint, rivals.points))


def _curves(axes: Axes, certainty: Certainty) -> None:
    """Steps, for a frontier attains nothing better before its next point; a level that few draws reach has no band."""
    low, middle, high = (np.where(np.isfinite(line), 100 * line, np.nan) for line in certainty.attained)
    axes.fill_between(certainty.levels, low, high, step="post", facecolor=_BAND, edgecolor="none")
    axes.step(certainty.levels, middle, where="post", color=_MEDIAN, linewidth=1.2)


def _points(axes: Axes, joint: Joint, landmarks: Landmarks, points: Sequence[MergePoint]) -> list[Line2D]:
    entries = []
    for point in sorted(points, key=lambda p: bool(landmarks.role(p))):
        role = landmarks.role(point)
        marker, size = _MARKS.get(role, ("o", 10))
        colour = INK if role else GREY
        place = joint.value("sce2", point.name), 100 * joint.value("accuracy", point.name)
        axes.scatter(*place, s=size, marker=marker, color=colour, linewidths=0, zorder=4 if role else 3, clip_on=False)
        if role:
            entries.append(_entry("aligned (selected)" if role == "aligned, selected" else role, marker, colour))
    return [*entries, *([_entry("merged", "o", GREY)] if len(points) > len(entries) else [])]


def _entry(label: str, marker: str, colour: str) -> Line2D:
    size = {"*": 8.0, "o": 3.5}.get(marker, 5.0)
    return Line2D(
        [], [], linestyle="none", label=label, marker=marker, markersize=size, color=colour, markeredgewidth=0
    )


def _numbers(results: Results, certainty: Certainty, joint: Joint, points: Sequence[MergePoint]) -> str:
    """Rows `curve` have an sce2 and the accuracy attained there, rows `point` what a point measures."""
    columns = point_columns(results)
    curve = [
        ("curve", *[None] * (1 + len(columns)), level, None, *map(_finite, attained), None, None)
        for level, attained in zip(certainty.levels.tolist(), certainty.attained.T.tolist(), strict=True)
    ]
    marks = [
        (
            *("point", point.name, *point_cells(point)),
            *(joint.value("sce2", point.name), joint.value("accuracy", point.name), None, None, None),
            *(certainty.non_dominated[point.name], certainty.dominates_aligned[point.name]),
        )
        for point in points
    ]
    quantiles = ("accuracy_5", "accuracy_50", "accuracy_95")
    header = ("kind", "point", *columns, "sce2", "accuracy", *quantiles, "p_non_dominated", "p_dominates_aligned")
    return csv_text(header, [*curve, *marks])


def _finite(value: float) -> float | None:
    """Nothing where a draw attains nothing."""
    return value if math.isfinite(value) else None
