"""A worker of a search: takes the next point that nobody measures, measures it, and lets the search hear of it."""

import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from merge_calib.choosing import Answered
from merge_calib.experiment import Experiment
from merge_calib.finalists import finalists
from merge_calib.inference.hopeless import CONFIDENCE
from merge_calib.leases import LeaseLostError, Leases
from merge_calib.merging.point import MergePoint
from merge_calib.plan import SweepPlan
from merge_calib.progress import Advance, Watch, ignored
from merge_calib.run_directory import RunDirectory
from merge_calib.search.grid import PARENTS
from merge_calib.search.strategy import Outcome, Strategy
from merge_calib.stopping import Incumbents

RESPONSES = "responses"  # what the lease is called under which the aligned model writes what points are compared on
PAUSE = 0.2  # seconds between two looks at what others are doing


class PointLeftOutWarning(UserWarning):
    """A point could not be scored; its record says why, and the search went on."""


@dataclass
class Worker:
    """One of the processes that measure a run; all go by the same strategy and share what the run directory holds."""

    experiment: Experiment
    run: RunDirectory
    plan: SweepPlan
    strategy: Strategy
    leases: Leases
    watch: Watch
    _heard: dict[MergePoint, Outcome | None] = field(default_factory=dict)
    _advance: Advance = ignored

    def __post_init__(self) -> None:
        looks = max(1, len(self.experiment.choosing.chunks) - 1)
        confidence = self.plan.early_stopping or CONFIDENCE
        self._incumbents = Incumbents(self.plan.objectives, confidence, self.plan.bins, looks)

    def work(self) -> None:
        """Measure until nothing is left; what others are measuring is waited for."""
        self._have_responses()
        self._advance = self.watch("points", self.strategy.total)
        self._restore()
        while not self.strategy.done:
            point = self.strategy.propose(_Named(self.leases.busy()))
            if point is None:
                time.sleep(PAUSE)
            elif self._measured(point, whole=self.strategy.asks_whole):
                self._hear(point)
        if not self.strategy.asks_whole:
            self._restore()
            while not self._are_finished(self._finalists()):
                pass  # one of them failed, and without it others may be finalists
        self._retain_all()

    def _are_finished(self, points: Sequence[MergePoint]) -> bool:
        """Ask `points` what they were not asked yet; False where one failed at that, of which nothing is known then."""
        for point in points:
            while not self._measured(point, whole=True):
                time.sleep(PAUSE)
        failed = [point for point in points if self._heard[point] is not None and self.run.failure(point) is not None]
        for point in failed:
            self._heard[point] = None
            self._warn(point)
        return not failed

    def _restore(self) -> None:
        """Measure again what the search has heard of and the run has lost, each beside what was heard before it."""
        for point in self.strategy.known:
            while not self._measured(point, whole=self.strategy.asks_whole):
                time.sleep(PAUSE)
        self._catch_up()

    def _finalists(self) -> tuple[MergePoint, ...]:
        plan = self.plan
        return finalists(self._heard, plan.objectives, plan.analysis.rule, plan.min_accuracy)

    def _catch_up(self) -> None:
        """Learn what the search heard from others, or before this process began, up to a point that the run lost."""
        for point in self.strategy.known:
            if point not in self._heard:
                if self.experiment.lacks(point, whole=False):
                    return
                self._heard[point] = self.experiment.outcome(point)
                self._incumbents.hear(point, self._heard[point])
                self._advance(1)

    def _hear(self, point: MergePoint) -> None:
        self.strategy.hear(point, self.experiment.outcome(point))
        self._catch_up()
        self._warn(point)

    def _warn(self, point: MergePoint) -> None:
        reason = self.run.failure(point)
        if reason:
            warnings.warn(f"{reason}; the point is left out", PointLeftOutWarning, stacklevel=4)

    def _measured(self, point: MergePoint, *, whole: bool) -> bool:
        """Measure `point` unless it is; False where another worker is at it."""
        if not self.experiment.lacks(point, whole=whole):
            return True
        with self.leases.take(point.name) as lease:
            if lease is None:
                return False
            try:
                if self.experiment.lacks(point, whole=whole):
                    self._catch_up()
                    # Parents are finalists whatever they answer: to stop one saves nothing, and it could not be heard.
                    look = _never if point in PARENTS else self._incumbents.look
                    self.experiment.measure(point, whole=whole, look=look, confirm=lease.check)
                if whole:
                    self.experiment.retain(point)
            except LeaseLostError:
                return False
        return True

    def _have_responses(self) -> None:
        """Let the aligned model write its responses, or wait until another worker has had them written."""
        while self.experiment.lacks_responses:
            with self.leases.take(RESPONSES) as lease:
                if lease is not None:
                    if self.experiment.lacks_responses:
                        self.experiment.let_aligned_answer(self.strategy.total)
                    return
            time.sleep(PAUSE)

    def _retain_all(self) -> None:
        """Measure what earlier commands measured before anything was retained."""
        for point in self.run.points():
            assert isinstance(point, MergePoint)
            if not self.experiment.lacks(point, whole=True):
                self._retain(point)

    def _retain(self, point: MergePoint) -> None:
        """Measure what `point` keeps of the alignment, or wait for who is at it: results are written after that."""
        while self.experiment.lacks_retained(point):
            with self.leases.take(point.name) as lease:
                if lease is not None:
                    self.experiment.retain(point)
                    return
            time.sleep(PAUSE)


def _never(_: Answered) -> None:
    """Nothing that a point answers makes it hopeless."""


@dataclass(frozen=True)
class _Named(Collection[MergePoint]):
    """The points that have one of some names."""

    names: Collection[str]

    def __contains__(self, point: object) -> bool:
        return isinstance(point, MergePoint) and point.name in self.names

    def __iter__(self) -> Iterator[MergePoint]:
        raise NotImplementedError("names do not tell points")

    def __len__(self) -> int:
        return len(self.names)
