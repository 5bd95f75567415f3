"""The models that have a panel of their own in a figure."""

from collections.abc import Sequence
from dataclasses import dataclass

from merge_calib.answers import MEAN
from merge_calib.merging.point import MergePoint
from merge_calib.points import Point
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.place import title_lines
from merge_calib.results import Results

MOST_PANELS = 12


@dataclass(frozen=True)
class Shown:
    """A point and what its panel is called: its part in a sweep, or its label in an evaluation."""

    role: str
    point: Point

    @property
    def titles(self) -> list[str]:
        """The lines above the panel that say whose it is."""
        return title_lines(self.role, self.point) if isinstance(self.point, MergePoint) else [self.role]


def shown_points(results: Results, landmarks: Landmarks, confidence: str) -> list[Shown]:
    """Base, selected and aligned, or models of an evaluation, at most 12; those without all tasks are left out."""
    known = [
        shown for shown in named_points(results, landmarks) if results.get(shown.point, MEAN, confidence) is not None
    ]
    return spread(known)


def spread(shown: Sequence[Shown]) -> list[Shown]:
    """All of them, or the first, the last and evenly spaced ones between where there are more than 12."""
    if len(shown) <= MOST_PANELS:
        return list(shown)
    last = len(shown) - 1
    return [shown[round(i * last / (MOST_PANELS - 1))] for i in range(MOST_PANELS)]


def named_points(results: Results, landmarks: Landmarks) -> list[Shown]:
    """All points that a reader asks for by name: base, selected and aligned, or every model of an evaluation."""
    if not results.is_sweep:
        return [Shown(getattr(point, "label", point.name), point) for point in results.points]
    selected = landmarks.selected if landmarks.recovers else None
    roles = {"base": landmarks.base, "selected": selected, "aligned": landmarks.aligned}
    return [Shown(role, point) for role, point in roles.items() if point is not None]
