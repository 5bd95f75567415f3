"""A fixed set of lambdas."""

from collections.abc import Iterable

from merge_calib.merging.point import MergePoint
from merge_calib.search.strategy import Outcome


class Grid:
    """Both parents first, then the given lambdas in ascending order."""

    def __init__(self, method: str, lambdas: Iterable[float]) -> None:
        inner = sorted({MergePoint(method, lam) for lam in lambdas} - {MergePoint(method, lam) for lam in (0, 1)})
        self._points = [MergePoint(method, 0), MergePoint(method, 1), *inner]
        self._heard = 0

    @property
    def total(self) -> int:
        return len(self._points)

    def propose(self) -> MergePoint | None:
        return self._points[self._heard] if self._heard < len(self._points) else None

    def hear(self, point: MergePoint, outcome: Outcome | None) -> None:  # noqa: ARG002 - a grid does not adapt
        assert point == self._points[self._heard]
        self._heard += 1
