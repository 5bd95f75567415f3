"""What the points of a run stand on: lambda between two parents, a number that every model has, or their order."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from merge_calib.merging.point import MergePoint
from merge_calib.points import Point
from merge_calib.report.text import short_text
from merge_calib.results import Results

LOG_FROM = 30  # positions whose largest is this many times the smallest are drawn on a logarithmic axis
_LETTER = 0.058  # inches that a letter of 7 pt takes
_LAMBDA = "λ (0 base, 1 aligned)"
_MOST_NAMES, _LONGEST_NAME = 16, 22  # what has room below a panel


@dataclass(frozen=True)
class Axis:
    """The axis below a figure.

    heading: what it says; is_log: whether it is logarithmic
    labels: the names of the models where only their order counts, else empty
    """

    heading: str
    is_log: bool = False
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, results: Results) -> "Axis":
        """Lambda for a sweep, positions where the models have them, else their names."""
        if results.is_sweep:
            return cls(_LAMBDA)
        models = results.run.plan["models"]
        name = str(results.run.plan["axis"])
        positions = [model["position"] for model in models if model["position"] is not None]
        if not positions:
            order = {model["label"]: i for i, model in enumerate(models)}
            return cls("" if name == "model" else name, labels=tuple(order))
        low, high = min(positions), max(positions)
        is_log = low > 0 and high >= LOG_FROM * low
        return cls(f"{name} (log scale)" if is_log else name, is_log=is_log)

    def dress(self, axes: Axes, width: float) -> None:
        """Scale, ticks and their labels for `axes`, about `width` inches wide."""
        if self.labels:
            self._name_ticks(axes, width)
        elif self.is_log:
            axes.set_xscale("log")
            low, high = axes.get_xlim()
            few = high < 100 * low
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=8))
            axes.xaxis.set_minor_formatter(NullFormatter())
        if self.heading != _LAMBDA and not self.labels:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_text(value)))

    def names_height(self, width: float) -> float:
        """Inches that the names below axes of about `width` inches need, beyond what numbers do."""
        longest = _LETTER * max(map(len, self._names), default=0)
        return {0: 0.0, 45: 0.7, 90: 0.95}[self._angle(width)] * longest

    @property
    def _names(self) -> tuple[str, ...]:
        """The labels that are shown, at most 16 of them, long ones cut in the middle."""
        step = -(-len(self.labels) // _MOST_NAMES) or 1
        return tuple(
            label if len(label) <= _LONGEST_NAME else f"{label[:9]}…{label[-12:]}" for label in self.labels[::step]
        )

    def _angle(self, width: float) -> int:
        """How far names are turned to stand beside each other."""
        names = self._names
        if not names or _LETTER * (max(map(len, names)) + 2) <= width / len(names):
            return 0
        return 45 if len(names) <= width / 0.2 else 90

    def _name_ticks(self, axes: Axes, width: float) -> None:
        names, angle = self._names, self._angle(width)
        axes.xaxis.set_major_locator(FixedLocator(range(0, len(self.labels), -(-len(self.labels) // _MOST_NAMES))))
        axes.set_xlim(-0.4, len(self.labels) - 0.6)
        anchor = {0: ("center", "default"), 45: ("right", "anchor"), 90: ("center", "default")}[angle]
        axes.set_xticklabels(names, rotation=angle, ha=anchor[0], rotation_mode=anchor[1])


def place_on(axis: Axis, point: Point) -> float:
    """Where a point is drawn; one with lambdas by groups has no place on the axis."""
    if isinstance(point, MergePoint):
        assert point.lam is not None
        return point.lam
    return point.index if axis.labels or point.position is None else point.position
