"""A dense frontier over one lambda from a few points: the others are predicted, and how well that goes is measured."""

import math
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from merge_calib.calibration import metrics
from merge_calib.errors import InputError
from merge_calib.frontier import Candidate, non_dominated
from merge_calib.interpolation import interpolate
from merge_calib.merging.methods import make_method
from merge_calib.merging.point import MergePoint
from merge_calib.scores import Floats
from merge_calib.search.forecast import Forecast, farthest
from merge_calib.search.grid import PARENTS
from merge_calib.search.strategy import Outcome
from merge_calib.selection import Rule, select

GRID_POINTS = 101
FIRST_NODES = 6
MOST_SELECTED = 4  # points confirmed because they were selected; a flat frontier could be chased along for ever
MOST_OTHERS = 2  # points of the frontier that are confirmed besides; what they say may make another the selected one
NARROWEST = 0.02  # so that lambdas of the grid differ in four decimals
MEASURES = ("accuracy", "sce")
_ROUNDING = 1e-12  # an error of exactly the tolerance is allowed


class Adaptive:
    """Both parents, then nodes along one line until what lies between can be predicted, then a few to confirm that.

    Each question's scores are interpolated between nodes, and accuracy and SCE of a grid of lambdas computed from
    these. Nodes are added one by one until the estimated error of both is within the tolerance; then the point that
    the rule selects and some of the frontier are measured. One that was predicted wrongly becomes a node, and the
    search goes on. Where the budget does not suffice, the fallback's lambdas are measured, as a grid would.

    options: of the method; low, high: the range of lambda; points: how many lambdas the grid has
    budget: most nodes before it falls back, parents and the ends included; tolerance: of accuracy and SCE
    fallback: lambdas; bins: of SCE; rule: selects the point to confirm
    Raises InputError naming the flag for a range, tolerance or budget that leaves nothing to search.
    """

    asks_whole = True

    def __init__(
        self,
        method: str,
        options: Mapping[str, float],
        low: float,
        high: float,
        *,
        budget: int = 9,
        tolerance: float = 0.005,
        fallback: Sequence[float] = (),
        bins: int = 10,
        rule: Rule | None = None,
        points: int = GRID_POINTS,
    ) -> None:
        _require(low, high, budget, tolerance)
        self._method, self._options = method, dict(options)
        self._low, self._high, self._points = low, high, points
        self._budget, self._tolerance = budget, tolerance
        self._bins, self._rule = bins, rule or Rule()
        self._grid = grid_of(low, high, points)
        self._first = self._first_nodes()
        self._fallback = tuple(dict.fromkeys(round(lam, 10) for lam in fallback))
        self._heard: dict[MergePoint, Outcome | None] = {}
        self._nodes: list[float] = []
        self._confirmed: list[float] = []
        self._failed: set[float] = set()
        self._rounds: list[dict[str, Any]] = []
        self._selections = self._others = 0
        self._is_settled = self._fell_back = self._done = False
        self._batch: Sequence[MergePoint] = ()
        self._batches = self._search()

    @property
    def total(self) -> int:
        known = {*PARENTS, *map(self._point, self._first), *map(self._point, self._fallback)}
        return len(known) + self._budget - len(self._first) + MOST_SELECTED + MOST_OTHERS

    @property
    def done(self) -> bool:
        self._advance()
        return self._done

    @property
    def known(self) -> Collection[MergePoint]:
        return self._heard.keys()

    def propose(self, busy: Collection[MergePoint] = ()) -> MergePoint | None:
        self._advance()
        return next((point for point in self._batch if point not in self._heard and point not in busy), None)

    def hear(self, point: MergePoint, outcome: Outcome | None) -> None:
        """Points may be heard in any order; those that the search does not come to are never looked at."""
        assert outcome is None or outcome.scores, "this search predicts from answers"
        self._heard[point] = outcome

    def record(self) -> dict[str, Any]:
        self._advance()
        return {
            "strategy": "adaptive",
            "method": self._method,
            "options": self._options,
            "nodes": list(self._nodes),
            "confirmed": list(self._confirmed),
            "failed": sorted(self._failed),
            "grid": {"low": self._low, "high": self._high, "points": self._points},
            "tolerance": self._tolerance,
            "budget": self._budget,
            "settled": self._is_settled,
            "fell_back": self._fell_back,
            "estimate": {name: self._rounds[-1][name] if self._rounds else None for name in MEASURES},
            "rounds": list(self._rounds),
        }

    def _advance(self) -> None:
        """Go on while all points of the batch have been heard of."""
        while not self._done and all(point in self._heard for point in self._batch):
            following = next(self._batches, None)
            self._done = following is None
            self._batch = following or ()

    def _search(self) -> Iterator[Sequence[MergePoint]]:
        """The search itself: batches of points, each made when all points of those before it have been heard of."""
        yield list(dict.fromkeys([*PARENTS, *map(self._point, self._first)]))
        if any(self._heard[parent] is None for parent in PARENTS):
            return  # nothing can be compared without both
        self._nodes = self._measured_of(self._first)
        newest: float | None = self._nodes[-1]
        asked = len(self._first)
        while True:
            forecast = self._forecast()
            if self._judge(forecast, newest):
                missed = yield from self._confirm(forecast)
                self._is_settled = not missed
                if not missed:
                    return
                self._nodes += missed
                asked, newest = asked + len(missed), missed[-1]
                continue
            lam = forecast.next_node(self._failed) if asked < self._budget else None
            if lam is not None:
                yield [self._point(lam)]
                asked += 1
                if self._measured_of([lam]):
                    self._nodes.append(lam)
                    newest = lam
            elif not self._fell_back:
                yield from self._fall_back()
                asked, newest = max(asked, self._budget), None  # what was said before of so many is of no interest
            else:
                return

    def _fall_back(self) -> Iterator[Sequence[MergePoint]]:
        """Measure all of the fallback; what is known of its line becomes nodes."""
        self._fell_back = True
        asked = [lam for lam in self._fallback if lam not in self._failed]
        yield [self._point(lam) for lam in asked]
        more = dict.fromkeys((*self._confirmed, *self._measured_of(asked)))
        self._nodes += [lam for lam in more if lam not in self._nodes]

    def _confirm(self, forecast: Forecast) -> Generator[Sequence[MergePoint], None, list[float]]:
        """Measure the selected point, and another where that changes the selection, and some of the frontier.

        Gives the lambdas that were predicted wrongly; those confirmed before count, for the forecast is another now.
        """
        missed = self._missed(forecast)
        wanted = [] if missed else self._to_confirm(forecast)
        while wanted and not missed:
            yield [self._point(lam) for lam in wanted]
            self._confirmed += self._measured_of(wanted)
            missed = self._missed(forecast)
            wanted = [] if missed else self._selected(forecast)
        return missed

    def _to_confirm(self, forecast: Forecast) -> list[float]:
        """The selected point, if it is a predicted one, and of the predicted frontier those far from what is known."""
        wanted = self._selected(forecast)
        predicted = self._predicted(forecast)
        kept = non_dominated([*predicted.values(), *self._measured()])[: len(predicted)]
        others = [lam for lam, keep in zip(predicted, kept, strict=True) if keep and lam not in wanted]
        while others and self._others < MOST_OTHERS:
            known = [*self._nodes, *self._confirmed, *wanted]
            lam = max(others, key=lambda lam: (min(abs(lam - near) for near in known), -lam))
            others.remove(lam)
            wanted.append(lam)
            self._others += 1
        return wanted

    def _selected(self, forecast: Forecast) -> list[float]:
        """The lambda that the rule selects among all that is measured and predicted, if it is a predicted one."""
        predicted = self._predicted(forecast)
        name = select([*self._measured(), *predicted.values()], self._rule).point
        found = [lam for lam, candidate in predicted.items() if candidate.name == name]
        if self._selections == MOST_SELECTED:
            return []
        self._selections += len(found)
        return found

    def _missed(self, forecast: Forecast) -> list[float]:
        """The confirmed lambdas that are no nodes and were predicted worse than the tolerance allows."""
        missed = []
        for lam in self._confirmed:
            measured = [self._at(lam).measures[name] for name in MEASURES]
            errors = np.abs(forecast.values[:, forecast.places.index(lam)] - measured)
            if lam not in self._nodes and errors.max() > self._tolerance + _ROUNDING:
                missed.append(lam)
        return missed

    def _predicted(self, forecast: Forecast) -> dict[float, Candidate]:
        """By lambda, the points of the grid that were not measured and could be."""
        known = {*self._nodes, *self._confirmed, *self._failed}
        points = {lam: self._point(lam) for lam in forecast.places if lam not in known}
        at = {lam: forecast.values[:, g] for g, lam in enumerate(forecast.places)}
        return {
            lam: Candidate(point.name, lam, float(at[lam][0]), float(at[lam][1]), is_aligned=False)
            for lam, point in points.items()
        }

    def _measured(self) -> list[Candidate]:
        points = {*PARENTS, *map(self._point, (*self._nodes, *self._confirmed))}
        outcomes = {point: self._heard[point] for point in sorted(points)}
        return [
            Candidate(point.name, point.lam, outcome.measures["accuracy"], outcome.measures["sce"], point.is_aligned)
            for point, outcome in outcomes.items()
            if outcome is not None
        ]

    def _judge(self, forecast: Forecast, newest: float | None) -> bool:
        """Note the estimated errors; whether they are within the tolerance."""
        errors = forecast.estimate(newest)
        noted = [round(error, 6) if math.isfinite(error) else None for error in errors]
        self._rounds.append({"nodes": len(self._nodes), "newest": newest, **dict(zip(MEASURES, noted, strict=True))})
        return max(errors) <= self._tolerance + _ROUNDING

    def _forecast(self) -> Forecast:
        """What the nodes say of the grid, as far as they reach, with all of them and with each left out."""
        nodes = tuple(self._nodes)
        places = tuple(lam for lam in self._grid if min(nodes) <= lam <= max(nodes))
        values = self._values(nodes, places)
        inner = sorted(nodes)[1:-1]
        left_out = [self._values([node for node in nodes if node != lam], places) for lam in inner]
        changes = np.abs(np.reshape(left_out, (len(inner), *values.shape)) - values)
        return Forecast(nodes, places, values, changes)

    def _values(self, nodes: Sequence[float], places: Sequence[float]) -> Floats:
        """Accuracy and SCE (2, G), means over tasks, of what was answered at the nodes and interpolated between."""
        answers = [self._at(lam).scores for lam in nodes]
        by_task = [
            [
                (metrics.accuracy(scores.predictions), metrics.sce(scores.predictions, self._bins))
                for scores in interpolate(nodes, [answer[task] for answer in answers], places)
            ]
            for task in answers[0]
        ]
        return np.asarray(np.reshape(by_task, (-1, len(places), len(MEASURES))).mean(0).T, dtype=np.float64)

    def _first_nodes(self) -> tuple[float, ...]:
        """The parents, as far as they lie on the line, both ends, and places well spread between them."""
        parents = [0.0, 1.0] if make_method(self._method, self._options).gives_aligned else [0.0]
        nodes = list(dict.fromkeys([*parents, self._grid[-1], self._grid[0]]))
        while len(nodes) < FIRST_NODES:
            nodes.append(farthest(self._grid, nodes))
        return tuple(nodes)

    def _point(self, lam: float) -> MergePoint:
        return MergePoint(self._method, lam, tuple(self._options.items()))

    def _measured_of(self, asked: Sequence[float]) -> list[float]:
        """Those of the lambdas asked for that could be measured; the others are not asked for again."""
        self._failed |= {lam for lam in asked if self._heard[self._point(lam)] is None}
        return [lam for lam in asked if lam not in self._failed]

    def _at(self, lam: float) -> Outcome:
        """What was measured at a lambda that did not fail."""
        outcome = self._heard[self._point(lam)]
        assert outcome is not None
        return outcome


def grid_of(low: float, high: float, points: int = GRID_POINTS) -> tuple[float, ...]:
    """The lambdas at which there are predictions, ascending: evenly spread, to four decimals but for the ends."""
    inner = (round(low + (high - low) * i / (points - 1), 4) for i in range(1, points - 1))
    return round(low, 10), *inner, round(high, 10)


def places(record: Mapping[str, Any]) -> tuple[float, ...]:
    """The lambdas that a settled search, by its `record`, predicts: those of its grid that it did not measure."""
    grid = record["grid"]
    known = {*record["nodes"], *record["confirmed"], *record["failed"]}
    low, high = min(record["nodes"]), max(record["nodes"])
    every = grid_of(grid["low"], grid["high"], grid["points"])
    return tuple(lam for lam in every if low <= lam <= high and lam not in known)


def _require(low: float, high: float, budget: int, tolerance: float) -> None:
    if high - low < NARROWEST:
        raise InputError(f"--search adaptive needs --lambdas that span at least {NARROWEST:g}, not {low:g} to {high:g}")
    if budget < FIRST_NODES:
        raise InputError(f"--budget must be at least {FIRST_NODES}, the points that a search begins with, not {budget}")
    if not 0 < tolerance < 1:
        raise InputError(f"--tolerance must lie between 0 and 1, not {tolerance:g}")
