"""A number with the interval that belongs to it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval (or that of a simultaneous band), and the number of questions behind it."""

    value: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0
