"""A fixed set of points."""

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from merge_calib.errors import InputError
from merge_calib.merging.point import MergePoint
from merge_calib.search.strategy import Outcome

PARENTS = (MergePoint("linear", 0.0), MergePoint("linear", 1.0))
MOST_POINTS = 1001


class Grid:
    """Both parents first, then the given points in their order, all of which may be measured at once."""

    asks_whole = True

    def __init__(self, points: Iterable[MergePoint]) -> None:
        self.points = (*PARENTS, *sorted(set(points) - set(PARENTS)))
        self._heard: set[MergePoint] = set()

    @property
    def total(self) -> int:
        return len(self.points)

    @property
    def done(self) -> bool:
        return len(self._heard) == len(self.points)

    @property
    def known(self) -> Collection[MergePoint]:
        return self._heard

    def propose(self, busy: Collection[MergePoint] = ()) -> MergePoint | None:
        return next((point for point in self.points if point not in self._heard and point not in busy), None)

    def hear(self, point: MergePoint, outcome: Outcome | None) -> None:  # noqa: ARG002 - a grid does not adapt
        assert point in self.points
        self._heard.add(point)

    def record(self) -> dict[str, Any]:
        return {"strategy": "grid", "points": len(self.points)}


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
