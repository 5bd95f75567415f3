"""What a figure along an axis shows beside its lines: bands of the mean, noise floors, and the rivals' levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from merge_calib.answers import MEAN
from merge_calib.inference.estimate import Estimate
from merge_calib.report.axis import Axis, place_on
from merge_calib.report.axis_lines import families_on_axis
from merge_calib.report.cells import short
from merge_calib.report.families import Family
from merge_calib.report.headline import headline_of
from merge_calib.report.measures import Measure
from merge_calib.report.style import GREY, INK, PURPLE
from merge_calib.results import WITH_FLOORS, Result, Results
from merge_calib.rivals import MIXED, MIXED_LOG, tempered

_BANDED = ("accuracy", "nll", "brier", "sce2")
_RIVALS = {"aligned + T": (0, (1, 1)), MIXED: (0, (4, 1.5, 1, 1.5)), MIXED_LOG: (0, (5, 2))}
_FLOOR: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (2, 1)), "zorder": 2}
_BAND: dict[str, Any] = {"facecolor": f"{INK}22", "edgecolor": "none"}


@dataclass(frozen=True)
class Extras:
    """Of the mean over tasks: its points in order, bands by measure and point, and rivals' levels by measure.

    A band covers all points of a figure together with 95 %; where several methods have a line it is not drawn, for
    the bands would cover each other.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = (
        *(f"{measure}_band_{end}" for measure in _BANDED for end in ("low", "high")),
        *(f"{measure}_floor" for measure in WITH_FLOORS),
    )

    rows: Sequence[Result]
    bands: Mapping[str, Mapping[str, Estimate]]
    levels: Mapping[str, Mapping[str, float]]
    families: tuple[Family, ...]

    @classmethod
    def of(cls, results: Results, confidence: str) -> "Extras":
        """Bands need more than one point; levels are those of a sweep with both parents."""
        rows = [r for r in results.line(MEAN, confidence) if getattr(r.point, "lam", 0.0) is not None]
        names = [row.point.name for row in rows]
        joint = results.joint(MEAN, confidence) if len(rows) > 1 else None
        bands = {}
        if joint is not None:
            measures = [m for m in _BANDED if joint.has(m)]
            bands = {m: dict(zip(names, joint.band(m, names), strict=True)) for m in measures}
        families = families_on_axis(results, confidence) if results.is_sweep else ()
        return cls(rows, bands, _levels(results, confidence), families)

    def draw(self, axes: Axes, axis: Axis, measure: Measure) -> None:
        """Draw what `measure` has of all this."""
        scale = 100 if measure.is_share else 1
        for rows in self._lines():
            places = [place_on(axis, row.point) for row in rows]
            if measure.column in self.bands and len(self.families) <= 1:
                band = [self.bands[measure.column][row.point.name] for row in rows]
                low, high = [scale * e.low for e in band], [scale * e.high for e in band]
                axes.fill_between(places, low, high, zorder=1, **_BAND)
            if rows and all(measure.column in row.floors for row in rows):
                axes.plot(places, [row.floors[measure.column].mean for row in rows], **_FLOOR)
        for name, levels in self.levels.items():
            if measure.column in levels:
                axes.axhline(scale * levels[measure.column], **_rival(name))

    @property
    def entries(self) -> list[Line2D | Patch]:
        """What a legend says of it."""
        found: list[Line2D | Patch] = []
        if self.bands and len(self.families) <= 1:
            found.append(Patch(**_BAND, label="95 % band, all points together"))
        if any(row.floors for row in self.rows):
            found.append(Line2D([], [], label="noise floor", **_FLOOR))
        return [*found, *(Line2D([], [], label=name, **_rival(name)) for name in self.levels)]

    def values(self, row: Result) -> list[float | None]:
        """The values of `COLUMNS` of a row; bands are of the mean alone."""
        bands = self.bands if row.task == MEAN else {}
        cells: list[float | None] = []
        for measure in _BANDED:
            estimate = bands.get(measure, {}).get(row.point.name)
            cells += [short(estimate.low), short(estimate.high)] if estimate else [None, None]
        return [*cells, *(short(row.floors[m].mean) if m in row.floors else None for m in WITH_FLOORS)]

    def _lines(self) -> list[list[Result]]:
        """The rows of each line of the mean."""
        if not self.families:
            return [list(self.rows)]
        return [[row for row in self.rows if family.is_on_line(row.point)] for family in self.families]


def _levels(results: Results, confidence: str) -> dict[str, dict[str, float]]:
    headline = headline_of(results, confidence)
    if headline is None:
        return {}
    joint = headline.joint()
    names = {"aligned + T": tempered(headline.rivals.aligned.name), MIXED: MIXED, MIXED_LOG: MIXED_LOG}
    return {label: {m: joint.value(m, name) for m in joint.values} for label, name in names.items()}


def _rival(name: str) -> dict[str, Any]:
    return {"color": PURPLE, "linewidth": 0.8, "linestyle": _RIVALS[name], "zorder": 2}
