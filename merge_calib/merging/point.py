"""One place in weight space, and its name."""

from dataclasses import dataclass

METHODS = ("linear",)


@dataclass(frozen=True, order=True)
class MergePoint:
    """A merging method at one lambda: 0 is the base, 1 the aligned model, more amplifies the alignment."""

    method: str
    lam: float

    def __post_init__(self) -> None:
        assert self.method in METHODS, self.method
        object.__setattr__(self, "lam", round(self.lam, 10) + 0.0)  # + 0.0 turns -0.0 into 0.0

    @property
    def name(self) -> str:
        """`METHOD-lambda-0.4000`, with more decimals where the lambda has them; a valid file name."""
        decimals = f"{self.lam:.10f}"
        return f"{self.method}-lambda-{decimals[:-6]}{decimals[-6:].rstrip('0')}"

    @property
    def is_base(self) -> bool:
        return self.lam == 0.0

    @property
    def is_aligned(self) -> bool:
        return self.lam == 1.0
