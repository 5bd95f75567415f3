"""Accuracy against calibration error, one mark a point."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from merge_calib.answers import MEAN
from merge_calib.files import csv_text
from merge_calib.frontier import Candidate, non_dominated
from merge_calib.inference.estimate import Estimate
from merge_calib.merging.point import MergePoint
from merge_calib.predictions import Prediction
from merge_calib.report.families import LINEAR, Family, families_of
from merge_calib.report.headline import headline_of
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.place import figure_text, point_cells, point_columns
from merge_calib.report.predicted import dot_entry, draw_predicted_dots, predicted_of
from merge_calib.report.style import (
    GREY,
    INK,
    PLAIN_MARKERS,
    PURPLE,
    ROUND,
    SINGLE,
    Drawing,
    lambda_colours,
    new_figure,
    plain_axes,
    wrapped_text,
)
from merge_calib.results import Results
from merge_calib.rivals import DACA, MIXED, MIXED_LOG, SHARED_T, tempered

_MARKS = {"base": ("s", 38), "aligned": ("D", 34), "selected": ("*", 110), "aligned, selected": ("D", 34)}
_SIZE = 22
_NEUTRAL = "#BDBDBD"  # of a point without a lambda of its own
_LETTER, _SYMBOL, _LINE = 0.052, 0.3, 0.14  # inches that a letter, a symbol and a line of the legend take
_MOST_LETTERS = 26  # of a label in one line


@dataclass(frozen=True)
class _Mark:
    """A point of the figure: what it is, its part in the run, and how its method and lambda are shown."""

    candidate: Candidate
    point: MergePoint
    role: str
    shape: str
    colour: str
    interval: Estimate | None

    @property
    def is_hollow(self) -> bool:
        return self.point.lam is not None and self.point.lam > 1

    @property
    def face(self) -> str:
        return "white" if self.is_hollow else self.colour

    @property
    def edge(self) -> str:
        return INK if not self.is_hollow and (self.role or self.point.lam is None) else self.colour

    @property
    def label(self) -> str:
        """What the legend says of a point that has a part in the run."""
        if self.role == "aligned, selected":
            return "aligned (selected)"
        return f"selected, {figure_text(self.point)}" if self.role == "selected" else self.role


@dataclass(frozen=True)
class _Rival:
    """A forecast that the merges are compared with."""

    name: str
    accuracy: float
    error: float


def draw_frontier(results: Results, landmarks: Landmarks, confidence: str) -> Drawing | None:
    """Mean accuracy (%) against mean SCE of every complete point; None where there is none."""
    candidates = results.candidates(confidence)
    if not candidates:
        return None
    kept = non_dominated(candidates)
    colours = ScalarMappable(Normalize(*_lambda_range(candidates)), lambda_colours())
    marks = _marks(results, landmarks, confidence, candidates, colours)
    rivals = _rivals(results, confidence)
    predicted = predicted_of(results, confidence)
    floor = _floor(results, landmarks, confidence)
    entries: list[Line2D | Patch] = [*_legend(marks), *(_rival_entry(rival) for rival in rivals)]
    if predicted:
        entries.append(dot_entry())
    if floor is not None:
        entries.append(Patch(**_FLOOR, label="noise floor"))
    if kept.sum() > 1:
        entries.append(Line2D([], [], color=GREY, label="frontier, measured" if predicted else "frontier"))
    columns, height = _legend_size(entries)
    figure = new_figure(SINGLE, 2.75 + height)
    axes = figure.add_subplot()
    plain_axes(axes)
    _draw_floor(axes, floor)
    _step_line(axes, [c for c, keep in zip(candidates, kept, strict=True) if keep])
    draw_predicted_dots(axes, predicted, colours)
    for mark in marks:
        _draw(axes, mark)
        _draw_interval(axes, mark)
    for rival in rivals:
        axes.scatter(rival.error, 100 * rival.accuracy, **_RIVALS[rival.name], zorder=6, clip_on=False)
    errors = [*(m.candidate.error for m in marks), *(r.error for r in rivals), *(p.sce for p in predicted)]
    _set_left(axes, errors, floor)
    axes.set_xlabel(f"{_sce_name(results, confidence)} (M = {results.run.plan['bins']}, lower is better)")
    axes.set_ylabel("Accuracy (%)" if len(results.tasks_of(confidence)) == 1 else "Mean accuracy (%)")
    bar = figure.colorbar(colours, ax=axes, fraction=0.05, pad=0.02, aspect=30, ticks=MaxNLocator(4, steps=ROUND))
    bar.set_label("λ", rotation=0, labelpad=6)
    figure.legend(handles=entries, loc="outside upper center", ncols=columns, handlelength=1.4)
    return Drawing(figure, _numbers(results, marks, kept.tolist(), rivals, predicted))


def _rivals(results: Results, confidence: str) -> list[_Rival]:
    """What the merges are compared with, by mean accuracy and mean SCE."""
    headline = headline_of(results, confidence)
    if headline is None:
        return []
    joint = headline.joint()
    names = {
        "aligned + T": tempered(headline.rivals.aligned.name),
        **{n: n for n in (SHARED_T, DACA, MIXED, MIXED_LOG)},
    }
    if len(headline.rivals.answers) == 1:
        del names[SHARED_T]  # of one task it is aligned + T
    return [_Rival(label, joint.value("accuracy", n), joint.value("sce", n)) for label, n in names.items()]


def _rival_entry(rival: _Rival) -> Line2D:
    look = _RIVALS[rival.name]
    size = 5 if look["marker"] != "x" else 4.5
    return _entry(rival.name, look["marker"], look.get("facecolors", PURPLE), look.get("edgecolors", PURPLE), size)


def _floor(results: Results, landmarks: Landmarks, confidence: str) -> float | None:
    """The largest mean noise floor of SCE of the parents and the selected point."""
    points = [p for p in (landmarks.base, landmarks.selected, landmarks.aligned) if p is not None]
    rows = [results.row(point, MEAN, confidence) for point in points]
    return max((row.floors["sce"].mean for row in rows if row is not None and "sce" in row.floors), default=None)


def _draw_floor(axes: Axes, floor: float | None) -> None:
    """A strip to the left of the floor: no point can be told from a calibrated one there."""
    if floor is not None:
        axes.axvspan(0, floor, zorder=0, **_FLOOR)


def _set_left(axes: Axes, errors: Sequence[float], floor: float | None) -> None:
    """Begin a little to the left of all marks and of the floor's end, not where the strip begins."""
    low = min([*errors, *([] if floor is None else [floor])])
    high = max(errors)
    pad = _MARGIN * ((high - low) or high or 1.0)
    axes.set_xlim(max(0.0, low - pad), high + pad)


def _draw_interval(axes: Axes, mark: _Mark) -> None:
    """The 95 % interval of accuracy of a parent or of the selected point; SCE has none that would cover."""
    if mark.role and mark.interval is not None:
        ends = 100 * mark.interval.low, 100 * mark.interval.high
        axes.plot([mark.candidate.error] * 2, ends, color=mark.colour, linewidth=1.0, alpha=0.7, zorder=1)


_FLOOR: dict[str, Any] = {"facecolor": "#EFEFEF", "edgecolor": "none"}
_MARGIN = 0.06  # of the range of all errors, on either side
_RIVALS: dict[str, dict[str, Any]] = {
    "aligned + T": {"marker": "D", "s": 24, "facecolors": "white", "edgecolors": PURPLE, "linewidths": 1.0},
    SHARED_T: {"marker": "d", "s": 24, "facecolors": PURPLE, "edgecolors": PURPLE, "linewidths": 0.6},
    DACA: {"marker": "s", "s": 20, "facecolors": "white", "edgecolors": PURPLE, "linewidths": 1.0},
    MIXED: {"marker": "x", "s": 26, "c": PURPLE, "linewidths": 1.2},
    MIXED_LOG: {"marker": "+", "s": 36, "c": PURPLE, "linewidths": 1.2},
}


def _sce_name(results: Results, confidence: str) -> str:
    count = len(results.tasks_of(confidence))
    return "SCE" if count == 1 else f"Mean SCE over {count} tasks"


def _lambda_range(candidates: Sequence[Candidate]) -> tuple[float, float]:
    lambdas = [c.lam for c in candidates if c.lam is not None]
    return min(0.0, *lambdas, 1.0), max(1.0, *lambdas, 0.0)


def _marks(
    results: Results,
    landmarks: Landmarks,
    confidence: str,
    candidates: Sequence[Candidate],
    colours: ScalarMappable,
) -> list[_Mark]:
    points = [results.point(c.name) for c in candidates]
    families = families_of(points)
    shapes = {family: PLAIN_MARKERS[i % len(PLAIN_MARKERS)] for i, family in enumerate(families)}
    marks = []
    for candidate, point in zip(candidates, points, strict=True):
        role = landmarks.role(point)
        shape = _MARKS[role][0] if role else shapes[Family.of(point)]
        colour = _NEUTRAL if point.lam is None else _colour(point.lam, colours)
        row = results.row(point, MEAN, confidence)
        interval = None if row is None else results.estimate(row, "accuracy")
        marks.append(_Mark(candidate, point, role, shape, colour, interval))
    return marks


def _step_line(axes: Axes, front: Sequence[Candidate]) -> None:
    """Join the frontier by steps: what lies below and to the right of the line is dominated."""
    ordered = sorted(front, key=lambda c: c.error)
    axes.step(
        [c.error for c in ordered],
        [100 * c.accuracy for c in ordered],
        where="post",
        color=GREY,
        linewidth=1.0,
        zorder=2,
    )


def _colour(lam: float, colours: ScalarMappable) -> str:
    red, green, blue, _ = colours.to_rgba(np.array([lam]))[0].tolist()
    return to_hex((red, green, blue))


def _draw(axes: Axes, mark: _Mark) -> None:
    axes.scatter(
        mark.candidate.error,
        100 * mark.candidate.accuracy,
        s=_MARKS[mark.role][1] if mark.role else _SIZE,
        marker=mark.shape,
        facecolors=mark.face,
        edgecolors=mark.edge,
        linewidths=0.8 if mark.role else 0.5 if mark.point.lam is None else 1.0,
        zorder=5 if mark.role else 3,
        clip_on=False,
    )


def _legend(marks: Sequence[_Mark]) -> list[Line2D]:
    """One entry for each kind of mark that the figure holds: parts in the run, then methods, then what else differs."""
    by_role = {mark.role: mark for mark in marks if mark.role}
    entries = []
    for role in ("base", "selected", "aligned", "aligned, selected"):
        if role in by_role:
            mark = by_role[role]
            entries.append(_entry(mark.label, mark.shape, mark.face, mark.edge, 8 if role == "selected" else 5))
    plain = [mark for mark in marks if not mark.role]
    entries += _method_entries(plain, families_of(mark.point for mark in marks))
    if any(mark.is_hollow for mark in plain):
        entries.append(_entry("amplified, λ > 1", PLAIN_MARKERS[0], "white", GREY))
    if any(mark.point.lam is None for mark in plain):
        entries.append(_entry("λ by groups", PLAIN_MARKERS[0], _NEUTRAL, INK))
    return entries


def _method_entries(plain: Sequence[_Mark], families: Sequence[Family]) -> list[Line2D]:
    """The shape of each method where there are several, else what a filled mark is."""
    has_groups = any(mark.point.lam is None for mark in plain)
    if len(families) == 1:
        plain = [mark for mark in plain if not mark.is_hollow and mark.point.lam is not None]
    shapes = {Family.of(mark.point): mark.shape for mark in plain}
    colour = INK if len(families) > 1 or has_groups else GREY  # grey is the colour of points by groups
    labels = {Family(LINEAR): "merged"} if len(families) == 1 else {}
    return [
        _entry(labels.get(family, family.label), shapes[family], colour, colour)
        for family in families
        if family in shapes
    ]


def _entry(label: str, shape: str, face: str, edge: str, size: float = 5) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="none",
        label=wrapped_text(label, _MOST_LETTERS),
        marker=shape,
        markersize=size,
        markerfacecolor=face,
        markeredgecolor=edge,
        markeredgewidth=0.8,
    )


def _legend_size(entries: Sequence[Line2D | Patch]) -> tuple[int, float]:
    """As many columns as have room, at most three, and the inches that their rows need beyond two."""
    texts = [str(entry.get_label()).split("\n") for entry in entries]
    for columns in (3, 2, 1):
        rows = -(-len(texts) // columns)
        parts = [texts[i : i + rows] for i in range(0, len(texts), rows)]
        longest = [max(len(line) for text in part for line in text) for part in parts]
        if sum(_SYMBOL + _LETTER * count for count in longest) <= SINGLE:
            break
    return columns, _LINE * max(0, max(sum(map(len, part)) for part in parts) - 2)


def _numbers(
    results: Results,
    marks: Sequence[_Mark],
    kept: Sequence[bool],
    rivals: Sequence[_Rival],
    predicted: Sequence[Prediction],
) -> str:
    """A row for each point, then one for each rival, whose place is empty, then those of predictions."""
    rows: list[tuple[object, ...]] = []
    for m, keep in zip(marks, kept, strict=True):
        ends = (m.interval.low, m.interval.high) if m.interval else (None, None)
        place = (m.point.name, *point_cells(m.point))
        rows.append((*place, m.candidate.accuracy, *ends, m.candidate.error, keep, m.role))
    columns = point_columns(results)
    rows += [(r.name, *[None] * len(columns), r.accuracy, None, None, r.error, None, "rival") for r in rivals]
    rows += [(p.point.name, *point_cells(p.point), p.accuracy, None, None, p.sce, None, "predicted") for p in predicted]
    header = ("accuracy", "accuracy_low", "accuracy_high", "sce", "non_dominated", "role")
    return csv_text(("point", *columns, *header), rows)
