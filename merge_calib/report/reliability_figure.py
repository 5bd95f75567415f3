"""Accuracy in each bin of confidence, with the counts behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from merge_calib.calibration.metrics import ReliabilityBins, accuracy, ece, reliability_bins
from merge_calib.files import csv_text
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import asked_noun
from merge_calib.report.panels import Layout
from merge_calib.report.place import point_cells, point_columns
from merge_calib.report.pooling import pooled
from merge_calib.report.shown import Shown, shown_points
from merge_calib.report.style import BLUE, INK, RED, ROUND, Drawing, new_figure
from merge_calib.report.text import decimals, percent
from merge_calib.results import Results
from merge_calib.scores import Booleans, Floats, Integers

FEW = 20  # a bin with fewer questions is drawn pale: its accuracy could be almost anything


@dataclass(frozen=True)
class _Panel:
    """One model's diagram, pooled over tasks."""

    shown: Shown
    accuracy: float
    ece: float
    bins: ReliabilityBins


def draw_reliability(results: Results, landmarks: Landmarks, confidence: str) -> Drawing | None:
    """Base, selected and aligned side by side, or the models of an evaluation; None where none has all tasks."""
    panels = _panels(results, landmarks, confidence)
    if not panels:
        return None
    layout = Layout(len(panels))
    noun = asked_noun(confidence)
    entries = _legend(panels, noun)
    columns = min(len(entries), {1: 1, 2: 2}.get(layout.columns, 4))
    figure = new_figure(layout.width, 0.7 + 2.35 * layout.rows + 0.15 * -(-len(entries) // columns))
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr, call-arg]
    ratios = [3, 1] * layout.rows
    grid = figure.subplots(
        2 * layout.rows, layout.columns, squeeze=False, sharex=True, sharey="row", height_ratios=ratios
    )
    for row in range(1, layout.rows):
        grid[2 * row + 1][0].sharey(grid[1][0])
    for i, panel in enumerate(panels):
        row, column = layout.place(i)
        _diagram(grid[2 * row][column], panel, layout)
        _histogram(grid[2 * row + 1][column], panel, is_lowest=layout.is_lowest(i))
    for axes in grid.reshape(layout.rows, 2, layout.columns).swapaxes(1, 2).reshape(-1, 2)[len(panels) :].flat:
        axes.set_visible(False)
    for row in range(layout.rows):
        grid[2 * row][0].set_ylabel("Accuracy")
        grid[2 * row + 1][0].set_ylabel(f"{noun.capitalize()}s")
    figure.legend(handles=entries, loc="outside lower center", ncols=columns)
    return Drawing(figure, _numbers(results, panels))


def _panels(results: Results, landmarks: Landmarks, confidence: str) -> list[_Panel]:
    bins = results.run.plan["bins"]
    panels = []
    for shown in shown_points(results, landmarks, confidence):
        p = pooled(results, shown.point, confidence)
        panels.append(_Panel(shown, accuracy(p), ece(p, bins), reliability_bins(p, bins)))
    return panels


def _diagram(axes: Axes, panel: _Panel, layout: Layout) -> None:
    bins = panel.bins
    filled = bins.counts > 0
    few = filled & (bins.counts < FEW)
    bin_bars(axes, bins.accuracy, filled & ~few, **_ACCURACY)
    bin_bars(axes, bins.accuracy, few, **_FEW)
    low = np.fmin(bins.accuracy, bins.confidence)
    gap = np.abs(bins.accuracy - bins.confidence)
    bin_bars(axes, gap, filled & ~few, bottom=low[filled & ~few], **_GAP)
    bin_bars(axes, gap, few, bottom=low[few], **_FEW_GAP)
    axes.plot([0, 1], [0, 1], zorder=4, **_DIAGONAL)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=TICKS, yticks=TICKS, xticklabels=TICK_LABELS, yticklabels=TICK_LABELS)
    about = f"accuracy {percent(panel.accuracy, 1)}%, ECE {decimals(panel.ece, 3)}"
    axes.set_title(layout.title([*panel.shown.titles, about]), linespacing=1.4, fontsize=layout.title_size)


def _histogram(axes: Axes, panel: _Panel, *, is_lowest: bool) -> None:
    bin_bars(axes, panel.bins.counts, panel.bins.counts > 0, color="#888888", edgecolor="white", linewidth=0.4)
    axes.tick_params(labelbottom=True)
    if is_lowest:
        axes.set_xlabel("Confidence")
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND, integer=True))


_ACCURACY: dict[str, Any] = {"facecolor": BLUE, "edgecolor": "white", "linewidth": 0.4}
_FEW: dict[str, Any] = {"facecolor": "#C7D6E4", "edgecolor": "white", "linewidth": 0.4}
_GAP: dict[str, Any] = {"facecolor": f"{RED}66", "edgecolor": RED, "hatch": "/////", "linewidth": 0.5}
_FEW_GAP: dict[str, Any] = {"facecolor": "none", "edgecolor": RED, "linewidth": 0.5}
_DIAGONAL: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 2))}
TICKS = (0, 0.25, 0.5, 0.75, 1)
TICK_LABELS = ("0", ".25", ".5", ".75", "1")


def bin_edges(count: int) -> list[float]:
    """0, 0.1, 0.2, ... as people write them."""
    return [round(i / count, 10) for i in range(count + 1)]


def bin_bars(axes: Axes, heights: Floats | Integers, filled: Booleans, **look: Any) -> BarContainer:
    """A bar as wide as its bin, none where the bin is empty."""
    left = np.arange(len(heights)) / len(heights)
    return axes.bar(left[filled], heights[filled], width=1 / len(heights), align="edge", **look)


def _legend(panels: Sequence[_Panel], noun: str) -> list[Patch | Line2D]:
    """One entry for each kind of mark that the figure holds."""
    entries: list[Patch | Line2D] = [Patch(**_ACCURACY, label="accuracy in the bin")]
    if any(((panel.bins.counts > 0) & (panel.bins.counts < FEW)).any() for panel in panels):
        entries.append(Patch(**_FEW, label=f"fewer than {FEW} {noun}s"))
    entries.append(Patch(**_GAP, label="gap to mean confidence"))
    entries.append(Line2D([], [], **_DIAGONAL, label="perfectly calibrated"))
    return entries


def _numbers(results: Results, panels: Sequence[_Panel]) -> str:
    """One row a bin; an empty bin has a count of 0 and neither confidence nor accuracy."""
    rows = []
    for panel in panels:
        edges = bin_edges(len(panel.bins.counts))
        columns = (panel.bins.counts.tolist(), panel.bins.confidence.tolist(), panel.bins.accuracy.tolist())
        place = (panel.shown.role, panel.shown.point.name, *point_cells(panel.shown.point))
        for low, high, count, confidence, hit in zip(edges[:-1], edges[1:], *columns, strict=True):
            known = (confidence, hit) if count else (None, None)
            rows.append((*place, low, high, count, *known))
    header = ("model", "point", *point_columns(results), "above", "up_to", "n", "mean_confidence", "accuracy")
    return csv_text(header, rows)
