"""A fixed set of points."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from merge_calib.errors import InputError
from merge_calib.merging.point import MergePoint
from merge_calib.search.strategy import Outcome

PARENTS = (MergePoint("linear", 0.0), MergePoint("linear", 1.0))
MOST_POINTS = 1001


class Grid:
    """Both parents first, then the given points in their order."""

    def __init__(self, points: Iterable[MergePoint]) -> None:
        self._points = [*PARENTS, *sorted(set(points) - set(PARENTS))]
        self._heard = 0

    @property
    def points(self) -> list[MergePoint]:
        """All of them."""
        return list(self._points)

    @property
    def total(self) -> int:
        return len(self._points)

    def propose(self) -> MergePoint | None:
        return self._points[self._heard] if self._heard < len(self._points) else None

    def hear(self, point: MergePoint, outcome: Outcome | None) -> None:  # noqa: ARG002 - a grid does not adapt
        assert point == self._points[self._heard]
        self._heard += 1


def line(method: str, options: Mapping[str, float], lambdas: Iterable[float]) -> list[MergePoint]:
    """A point for each lambda."""
    return [MergePoint(method, lam, tuple(options.items())) for lam in lambdas]


def product(method: str, options: Mapping[str, float], groups: Mapping[str, Sequence[float]]) -> list[MergePoint]:
    """A point for each combination of the groups' lambdas; raises InputError for more than 1001 of them."""
    count = math.prod(len(lambdas) for lambdas in groups.values())
    if count > MOST_POINTS:
        raise InputError(
            f"--groups and --lambdas give {count:,} combinations; at most {MOST_POINTS:,} are allowed: give fewer "
            "lambdas, or each group its own, as --lambdas 'attention=0:1:0.25;mlp=0.5,1'"
        )
    named = tuple(options.items())
    return [
        MergePoint(method, None, named, tuple(zip(groups, chosen, strict=True)))
        for chosen in itertools.product(*groups.values())
    ]
