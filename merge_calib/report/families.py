"""The methods of a run with their options: each is a line from the base."""

from collections.abc import Iterable
from dataclasses import dataclass

from merge_calib.merging.methods import make_method
from merge_calib.merging.point import MergePoint, Named
from merge_calib.points import Point
from merge_calib.report.text import code, named_text
from merge_calib.results import Results

LINEAR = "linear"


@dataclass(frozen=True)
class Family:
    """A merging method and its options, by name."""

    method: str
    options: Named = ()

    @classmethod
    def of(cls, point: MergePoint) -> "Family":
        """The family that a merge between or beyond the parents is of."""
        return cls(point.method, point.options)

    @property
    def label(self) -> str:
        """`ties, density 0.2`."""
        return ", ".join([self.method, *([named_text(self.options)] if self.options else [])])

    @property
    def markdown(self) -> str:
        """The method as code, with its options."""
        return code(self.method) + (f" with {named_text(self.options)}" if self.options else "")

    @property
    def gives_aligned(self) -> bool:
        """Whether lambda = 1 is the aligned model."""
        return make_method(self.method, dict(self.options)).gives_aligned

    def is_on_line(self, point: Point) -> bool:
        """Whether the line of this family goes through `point`: one of its own with one lambda, or a parent."""
        if not isinstance(point, MergePoint) or point.lam is None:
            return False
        return point.is_base or (self.gives_aligned if point.is_aligned else Family.of(point) == self)


def families_of(points: Iterable[Point]) -> tuple[Family, ...]:
    """The families of all merges that are no parent, `linear` first; `linear` where there are only parents."""
    merges = [p for p in points if isinstance(p, MergePoint) and not p.is_base and not p.is_aligned]
    found = {Family.of(point) for point in merges} or {Family(LINEAR)}
    return tuple(sorted(found, key=lambda family: (family.method != LINEAR, family.method, family.options)))


def is_all_linear(results: Results) -> bool:
    """Whether every point is linear with one lambda, so that a lambda says which point it is."""
    return families_of(results.points) == (Family(LINEAR),) and not has_groups(results)


def has_groups(results: Results) -> bool:
    """Whether any point has a lambda for each group of tensors."""
    return any(isinstance(point, MergePoint) and point.lam is None for point in results.points)
