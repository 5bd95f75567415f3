"""The panel of retained alignment beside the measures: how far each point is from the aligned model's own responses."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from merge_calib.report.axis import Axis, place_on
from merge_calib.report.axis_lines import Line
from merge_calib.report.retained_cells import retained_of
from merge_calib.report.style import plain_axes
from merge_calib.results import Results

TITLE = "KL to aligned (nats a token)"


def draw_retained(axes: Axes, results: Results, lines: Sequence[Line], axis: Axis) -> None:
    """KL of each point of `lines` with its 95 % interval over prompts; one measurement a point, whatever the task."""
    plain_axes(axes)
    axes.set_title(TITLE, loc="left")
    for line in lines:
        found = [(place_on(axis, row.point), retained_of(results, row.point)) for row in line.rows]
        known = [(place, kept) for place, kept in found if kept is not None]
        axes.plot([place for place, _ in known], [kept.kl for _, kept in known], **line.look)
        for place, kept in known:
            if kept.kl_low is not None and kept.kl_high is not None:
                axes.vlines(place, kept.kl_low, kept.kl_high, color=line.look["color"], linewidth=0.8, zorder=3)
