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
from numpy.typing import NDArray

from merge_calib.calibration.metrics import ReliabilityBins, accuracy, ece, reliability_bins
from merge_calib.files import csv_text
from merge_calib.merging.point import MergePoint
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.style import BLUE, INK, RED, ROUND, SINGLE, WIDE, Drawing, new_figure
from merge_calib.report.text import decimals, percent
from merge_calib.results import MEAN, Results
from merge_calib.scores import Booleans, Floats, Integers, Predictions

FEW = 20  # a bin with fewer questions is drawn pale: its accuracy could be almost anything


@dataclass(frozen=True)
class _Panel:
    """One model's diagram, pooled over tasks."""

    role: str
    point: MergePoint
    accuracy: float
    ece: float
    bins: ReliabilityBins


def draw_reliability(results: Results, landmarks: Landmarks, confidence: str) -> Drawing | None:
    """Base, selected and aligned side by side; None where none of them has all tasks."""
    panels = _panels(results, landmarks, confidence)
    if not panels:
        return None
    entries = _legend(panels)
    width, columns = {1: (SINGLE, 1), 2: (4.6, 2), 3: (WIDE, 4)}[len(panels)]
    figure = new_figure(width, 3.05 + 0.15 * -(-len(entries) // columns))
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1])
    for panel, above, below in zip(panels, grid[0], grid[1], strict=True):
        _diagram(above, panel)
        _histogram(below, panel)
    grid[0][0].set_ylabel("Accuracy")
    grid[1][0].set_ylabel("Questions")
    figure.legend(handles=entries, loc="outside lower center", ncols=columns)
    return Drawing(figure, _numbers(panels))


def pooled(results: Results, point: MergePoint, confidence: str) -> Predictions:
    """The questions of all tasks together, every question with the same weight."""
    parts = [results.run.scores(point, task, confidence) for task in results.tasks]
    predictions = [part.predictions for part in parts if part is not None]
    options = max(p.mask.shape[1] for p in predictions)

    def stacked(arrays: Sequence[NDArray[Any]], fill: float) -> NDArray[Any]:
        return np.concatenate([np.pad(a, ((0, 0), (0, options - a.shape[1])), constant_values=fill) for a in arrays])

    return Predictions(
        stacked([p.log_probabilities for p in predictions], -np.inf),
        stacked([p.probabilities for p in predictions], 0.0),
        np.concatenate([p.answers for p in predictions]),
        stacked([p.mask for p in predictions], False),
    )


def _panels(results: Results, landmarks: Landmarks, confidence: str) -> list[_Panel]:
    bins = results.run.plan["bins"]
    places = [("base", landmarks.base), ("selected", landmarks.selected), ("aligned", landmarks.aligned)]
    panels = []
    for role, point in places:
        if point is None or results.get(point, MEAN, confidence) is None:
            continue
        if role == "selected" and not landmarks.recovers:
            continue
        p = pooled(results, point, confidence)
        panels.append(_Panel(role, point, accuracy(p), ece(p, bins), reliability_bins(p, bins)))
    return panels


def _diagram(axes: Axes, panel: _Panel) -> None:
    bins = panel.bins
    filled = bins.counts > 0
    few = filled & (bins.counts < FEW)
    _bars(axes, bins.accuracy, filled & ~few, **_ACCURACY)
    _bars(axes, bins.accuracy, few, **_FEW)
    low = np.fmin(bins.accuracy, bins.confidence)
    gap = np.abs(bins.accuracy - bins.confidence)
    _bars(axes, gap, filled & ~few, bottom=low[filled & ~few], **_GAP)
    _bars(axes, gap, few, bottom=low[few], **_FEW_GAP)
    axes.plot([0, 1], [0, 1], zorder=4, **_DIAGONAL)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=_TICKS, yticks=_TICKS, xticklabels=_TICK_LABELS, yticklabels=_TICK_LABELS)
    axes.set_title(
        f"{panel.role}, λ = {panel.point.lam:.3g}\n"
        f"accuracy {percent(panel.accuracy, 1)}%, ECE {decimals(panel.ece, 3)}",
        linespacing=1.4,
    )


def _histogram(axes: Axes, panel: _Panel) -> None:
    _bars(axes, panel.bins.counts, panel.bins.counts > 0, color="#888888", edgecolor="white", linewidth=0.4)
    axes.set_xlabel("Confidence")
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND, integer=True))


_ACCURACY: dict[str, Any] = {"facecolor": BLUE, "edgecolor": "white", "linewidth": 0.4}
_FEW: dict[str, Any] = {"facecolor": "#C7D6E4", "edgecolor": "white", "linewidth": 0.4}
_GAP: dict[str, Any] = {"facecolor": f"{RED}66", "edgecolor": RED, "hatch": "/////", "linewidth": 0.5}
_FEW_GAP: dict[str, Any] = {"facecolor": "none", "edgecolor": RED, "linewidth": 0.5}
_DIAGONAL: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 2))}
_TICKS = (0, 0.25, 0.5, 0.75, 1)
_TICK_LABELS = ("0", ".25", ".5", ".75", "1")


def _bars(axes: Axes, heights: Floats | Integers, filled: Booleans, **look: Any) -> BarContainer:
    """A bar as wide as its bin, none where the bin is empty."""
    left = np.arange(len(heights)) / len(heights)
    return axes.bar(left[filled], heights[filled], width=1 / len(heights), align="edge", **look)


def _legend(panels: Sequence[_Panel]) -> list[Patch | Line2D]:
    """One entry for each kind of mark that the figure holds."""
    entries: list[Patch | Line2D] = [Patch(**_ACCURACY, label="accuracy in the bin")]
    if any(((panel.bins.counts > 0) & (panel.bins.counts < FEW)).any() for panel in panels):
        entries.append(Patch(**_FEW, label=f"fewer than {FEW} questions"))
    entries.append(Patch(**_GAP, label="gap to mean confidence"))
    entries.append(Line2D([], [], **_DIAGONAL, label="perfectly calibrated"))
    return entries


def _numbers(panels: Sequence[_Panel]) -> str:
    """One row a bin; an empty bin has a count of 0 and neither confidence nor accuracy."""
    rows = []
    for panel in panels:
        edges = np.linspace(0, 1, len(panel.bins.counts) + 1).tolist()
        columns = (panel.bins.counts.tolist(), panel.bins.confidence.tolist(), panel.bins.accuracy.tolist())
        for low, high, count, confidence, hit in zip(edges[:-1], edges[1:], *columns, strict=True):
            known = (confidence, hit) if count else (None, None)
            rows.append((panel.role, panel.point.name, panel.point.lam, low, high, count, *known))
    return csv_text(("model", "point", "lambda", "above", "up_to", "n", "mean_confidence", "accuracy"), rows)
