"""What every search is: it proposes points, hears what was measured there, and says when it is done."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from merge_calib.merging.point import MergePoint
from merge_calib.scores import ChoiceScores


@dataclass(frozen=True)
class Outcome:
    """What was measured at a point, on the questions that choose and by the first confidence method.

    measures: means over tasks by the names of results.csv's columns, `accuracy` and `sce` always among them
    scores: by task, what was answered to these questions; a strategy that looks at means only may go without
    stopped: whether questioning was stopped early, so that the measures are estimates
    """

    measures: Mapping[str, float]
    scores: Mapping[str, ChoiceScores] = field(default_factory=dict, repr=False)
    stopped: bool = False


class Strategy(Protocol):
    """Proposes points until it is done; both parents are always the first two.

    What it proposes depends on nothing but its settings, its seed and what it has heard, in any order. So a search that
    was cut off and started again goes on as if it had not been, and several workers that hear the same agree.

    asks_whole: whether a point is asked all questions at once; else those that choose, and the finalists the others
    """

    asks_whole: bool

    def propose(self, busy: Collection[MergePoint] = ()) -> MergePoint | None:
        """A point that was not heard of and is not among `busy`, which others are measuring.

        None where it is done, and where it must hear of busy points first. Asked again before it hears anything, it
        proposes the same.
        """
        ...

    def hear(self, point: MergePoint, outcome: Outcome | None) -> None:
        """Take in what was measured at a point that was proposed; None where it could not be measured."""
        ...

    @property
    def done(self) -> bool:
        """Whether it has heard of all that it wants measured."""
        ...

    @property
    def known(self) -> Collection[MergePoint]:
        """The points that it has heard of, before this process too."""
        ...

    @property
    def total(self) -> int:
        """How many points it proposes at most; the same from the first to the last moment."""
        ...

    def record(self) -> dict[str, Any]:
        """What search.json says of it: a JSON object with `strategy` and how it stands."""
        ...
