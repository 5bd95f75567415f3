"""The points that every figure and table marks."""

from dataclasses import dataclass

from merge_calib.answers import MEAN
from merge_calib.calibration.measurement import Measurement
from merge_calib.merging.point import MergePoint
from merge_calib.points import Point
from merge_calib.results import Results


@dataclass(frozen=True)
class Landmarks:
    """Both parents and the selected point; None where a point was not measured or nothing could be selected.

    An evaluation has none of them.
    """

    base: MergePoint | None
    aligned: MergePoint | None
    selected: MergePoint | None

    @classmethod
    def of(cls, results: Results) -> "Landmarks":
        """Find them; the rule needs the aligned model on all tasks by the first confidence method."""
        points = [point for point in results.points if isinstance(point, MergePoint)]
        base = next((point for point in points if point.is_base), None)
        aligned = next((point for point in points if point.is_aligned), None)
        selected = results.point(results.selection.point) if results.can_select else None
        return cls(base, aligned, selected)

    @property
    def recovers(self) -> bool:
        """Whether a point other than the aligned model was selected."""
        return self.selected is not None and not self.selected.is_aligned

    def role(self, point: Point) -> str:
        """`base`, `aligned`, `selected`, `aligned, selected`, or nothing."""
        is_one = {"base": point == self.base, "aligned": point == self.aligned, "selected": point == self.selected}
        return ", ".join(role for role, is_so in is_one.items() if is_so)


def mean_of(results: Results, point: Point | None, confidence: str) -> Measurement | None:
    """The mean over tasks of `point`; None where there is no such point or it lacks a task."""
    return None if point is None else results.get(point, MEAN, confidence)
