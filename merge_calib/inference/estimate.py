"""A number with the interval that belongs to it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval (or that of a simultaneous band), and the number of questions behind it."""

    value: float
    low: float
    high: float
    n: int
