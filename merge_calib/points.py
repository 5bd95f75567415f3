"""What a run measures: merges between two parents, or models along an axis."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from merge_calib.merging.point import MergePoint

_UNSAFE = re.compile(r"[^A-Za-z0-9._@+=-]+|^[.-]+")
_LONGEST = 100  # characters, so that a file name can be made of it


@dataclass(frozen=True, order=True)
class AxisPoint:
    """A model of an evaluation: its place in the order of the axis, what it is called, and what it is.

    position: where it stands on the axis; None where only the order counts
    """

    index: int
    label: str
    model: str = field(default="", compare=False)
    position: float | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The label as a file name, with a hash where it could not stay as it is."""
        safe = _UNSAFE.sub("-", self.label)[:_LONGEST]
        if safe == self.label:
            return safe
        return f"{safe}-{hashlib.sha256(self.label.encode()).hexdigest()[:8]}"


Point = MergePoint | AxisPoint


def axis_points(models: Sequence[Mapping[str, Any]]) -> list[AxisPoint]:
    """The models of a run.json in the order of the axis: by position where they have one, else as they were given."""
    ordered = sorted(models, key=lambda model: model["position"] or 0.0)
    return [AxisPoint(i, m["label"], m["model"], m["position"]) for i, m in enumerate(ordered)]


def place_columns(is_sweep: bool) -> tuple[str, ...]:
    """How a table says which point a row is about."""
    return ("point", "method", "lambda") if is_sweep else ("point", "model", "label", "position")


def place_cells(point: Point) -> tuple[object, ...]:
    """The values of `place_columns` for `point`."""
    if isinstance(point, MergePoint):
        return point.name, point.method, point.lam
    return point.name, point.model, point.label, point.position
