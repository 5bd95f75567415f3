"""What every search is: it proposes points and hears what was measured there."""

from dataclasses import dataclass
from typing import Protocol

from merge_calib.merging.point import MergePoint


@dataclass(frozen=True)
class Outcome:
    """Mean accuracy (up is better) and mean calibration error (down is better) over tasks."""

    accuracy: float
    error: float


class Strategy(Protocol):
    """Proposes points until it is done; both parents are always among them.

    A strategy is deterministic given what it has heard, so a run that was cut off and started again proposes the
    same points; points that are already measured cost nothing.
    """

    def propose(self) -> MergePoint | None:
        """The next point, or None when done; called again before `hear`, it proposes the same."""
        ...

    def hear(self, point: MergePoint, outcome: Outcome | None) -> None:
        """Take in what was measured at the point proposed last; None where it could not be measured."""
        ...

    @property
    def total(self) -> int:
        """How many points it will propose in all, for the progress bar."""
        ...
