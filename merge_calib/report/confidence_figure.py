"""How confident a model is how often: the share of questions in each bin of confidence, right and wrong ones apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from merge_calib.calibration.metrics import accuracy, mean_confidence, reliability_bins
from merge_calib.files import csv_text
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import asked_noun
from merge_calib.report.panels import Layout
from merge_calib.report.place import point_cells, point_columns
from merge_calib.report.pooling import pooled
from merge_calib.report.reliability_figure import TICK_LABELS, TICKS, bin_bars, bin_edges
from merge_calib.report.shown import Shown, shown_points
from merge_calib.report.style import BLUE, INK, RED, ROUND, Drawing, new_figure
from merge_calib.report.text import percent
from merge_calib.results import Results
from merge_calib.scores import Integers


@dataclass(frozen=True)
class _Panel:
    """One model's confidences, pooled over tasks: how many are right (M,) and wrong (M,) in each bin."""

    shown: Shown
    accuracy: float
    mean_confidence: float
    right: Integers
    wrong: Integers


def draw_confidence(results: Results, landmarks: Landmarks, confidence: str) -> Drawing | None:
    """Base, selected and aligned side by side, or the models of an evaluation; None where none has all tasks."""
    panels = _panels(results, landmarks, confidence)
    if not panels:
        return None
    layout = Layout(len(panels))
    columns = 2 if layout.columns == 1 else 4
    figure = new_figure(layout.width, 0.45 + 1.75 * layout.rows + 0.15 * (4 // columns))
    grid = figure.subplots(layout.rows, layout.columns, squeeze=False, sharex=True, sharey=True)
    for i, panel in enumerate(panels):
        _histogram(grid[layout.place(i)], panel, layout, is_lowest=layout.is_lowest(i))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"{asked_noun(confidence).capitalize()}s (%)")
    figure.legend(handles=_legend(), loc="outside lower center", ncols=columns)
    return Drawing(figure, _numbers(results, panels))


def _panels(results: Results, landmarks: Landmarks, confidence: str) -> list[_Panel]:
    panels = []
    for shown in shown_points(results, landmarks, confidence):
        p = pooled(results, shown.point, confidence)
        bins = reliability_bins(p, results.run.plan["bins"])
        right = np.rint(np.where(bins.counts > 0, bins.accuracy, 0) * bins.counts).astype(np.int64)
        panels.append(_Panel(shown, accuracy(p), mean_confidence(p), right, bins.counts - right))
    return panels


def _histogram(axes: Axes, panel: _Panel, layout: Layout, *, is_lowest: bool) -> None:
    n = int(panel.right.sum() + panel.wrong.sum())
    right, wrong = 100 * panel.right / n, 100 * panel.wrong / n
    bin_bars(axes, right, right > 0, **_RIGHT)
    bin_bars(axes, wrong, wrong > 0, bottom=right[wrong > 0], **_WRONG)
    axes.axvline(panel.accuracy, **_AT_ACCURACY)
    axes.axvline(panel.mean_confidence, **_AT_CONFIDENCE)
    axes.set(xlim=(0, 1), xticks=TICKS, xticklabels=TICK_LABELS)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(labelbottom=is_lowest)
    if is_lowest:
        axes.set_xlabel("Confidence")
    about = f"accuracy {percent(panel.accuracy, 1)}%", f"mean confidence {percent(panel.mean_confidence, 1)}%"
    axes.set_title(layout.title([*panel.shown.titles, *about]), linespacing=1.4, fontsize=layout.title_size)


_RIGHT: dict[str, Any] = {"facecolor": BLUE, "edgecolor": "white", "linewidth": 0.4}
_WRONG: dict[str, Any] = {"facecolor": f"{RED}99", "edgecolor": "white", "linewidth": 0.4}
_AT_ACCURACY: dict[str, Any] = {"color": INK, "linewidth": 1.0}
_AT_CONFIDENCE: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": (0, (3, 1.5))}


def _legend() -> list[Patch | Line2D]:
    return [
        Patch(**_RIGHT, label="right"),
        Patch(**_WRONG, label="wrong"),
        Line2D([], [], **_AT_ACCURACY, label="accuracy"),
        Line2D([], [], **_AT_CONFIDENCE, label="mean confidence"),
    ]


def _numbers(results: Results, panels: Sequence[_Panel]) -> str:
    """One row a bin; accuracy and mean confidence are the whole panel's."""
    rows = []
    for panel in panels:
        edges = bin_edges(len(panel.right))
        place = (panel.shown.role, panel.shown.point.name, *point_cells(panel.shown.point))
        bins = zip(edges[:-1], edges[1:], panel.right.tolist(), panel.wrong.tolist(), strict=True)
        rows += [(*place, *each, panel.accuracy, panel.mean_confidence) for each in bins]
    header = ("model", "point", *point_columns(results), "above", "up_to", "right", "wrong", "accuracy")
    return csv_text((*header, "mean_confidence"), rows)
