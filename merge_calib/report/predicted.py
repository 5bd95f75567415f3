"""How figures show what was predicted and not measured: as dots and dotted lines, never as a mark of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D

from merge_calib.answers import MEAN
from merge_calib.predictions import PREDICTED, Prediction
from merge_calib.report.measures import Measure
from merge_calib.report.style import GREY, INK
from merge_calib.results import Results

LABEL = "predicted, not measured"
_LINE: dict[str, Any] = {"color": INK, "linewidth": 1.1, "linestyle": (0, (1, 1.2)), "zorder": 3}
_DOT: dict[str, Any] = {"s": 3.5, "marker": "o", "linewidths": 0, "zorder": 2, "clip_on": False}


def predicted_of(results: Results, confidence: str) -> list[Prediction]:
    """The predictions of the mean over tasks on the questions that judge, in ascending order of lambda."""
    split = results.judged
    return [p for p in results.predicted if (p.task, p.confidence, p.split) == (MEAN, confidence, split)]


def draw_predicted_line(axes: Axes, predicted: Sequence[Prediction], measure: Measure) -> None:
    """A dotted line against lambda, where the measure is one of those that are predicted."""
    if measure.column in PREDICTED and predicted:
        scale = 100 if measure.is_share else 1
        axes.plot([p.lam for p in predicted], [scale * getattr(p, measure.column) for p in predicted], **_LINE)


def draw_predicted_dots(axes: Axes, predicted: Sequence[Prediction], colours: ScalarMappable) -> None:
    """Small dots of accuracy (%) against SCE, coloured by lambda."""
    if predicted:
        shades = colours.to_rgba(np.array([p.lam for p in predicted]))
        axes.scatter([p.sce for p in predicted], [100 * p.accuracy for p in predicted], color=shades, **_DOT)


def line_entry() -> Line2D:
    """What a legend says of the dotted line."""
    return Line2D([], [], label=LABEL, **_LINE)


def dot_entry() -> Line2D:
    """What a legend says of the dots."""
    return Line2D([], [], label=LABEL, linestyle="none", marker="o", markersize=1.9, color=GREY, markeredgewidth=0)
