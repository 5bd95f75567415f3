"""What alignment did to a measure, from base to aligned."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """A measure of both parents, with its change and its change rate in %."""

    base: float | None
    aligned: float | None

    @property
    def difference(self) -> float | None:
        """aligned - base; None where either is undefined."""
        if self.base is None or self.aligned is None:
            return None
        return self.aligned - self.base

    @property
    def rate(self) -> float | None:
        """(aligned - base) / base x 100; None where the base is 0 or either is undefined. Source: Oh & Hwang 2024."""
        if self.difference is None or not self.base:
            return None
        return self.difference / self.base * 100
