"""One place in weight space, and its name."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merge_calib.merging.method import Method
from merge_calib.merging.methods import make_method, options_of

Named = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class MergePoint:
    """A merging method at one lambda, or at a lambda for each group of tensors.

    lam: 0 is the base, 1 the aligned model, more amplifies the alignment; None where groups have lambdas of their own
    options: of the method, by name, those not given at their defaults; groups: lambda by the selector of each group
    A point that is a parent is the same point by every method: it is called by the method `linear`. Groups that all
    have one lambda are that lambda.
    """

    method: str
    lam: float | None
    options: Named = ()
    groups: Named = ()

    def __post_init__(self) -> None:
        assert (self.lam is None) == bool(self.groups), "either one lambda or groups"
        assert all(map(math.isfinite, [self.lam or 0.0, *(lam for _, lam in self.groups)])), "lambdas are finite"
        made = make_method(self.method, dict(self.options))
        groups = tuple(sorted((group, _rounded(lam)) for group, lam in self.groups))
        lam = None if self.lam is None else _rounded(self.lam)
        if len({value for _, value in groups}) == 1:
            lam, groups = groups[0][1], ()
        is_parent = lam == 0.0 or (lam == 1.0 and made.gives_aligned)
        object.__setattr__(self, "lam", lam)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "method", "linear" if is_parent else self.method)
        object.__setattr__(self, "options", () if is_parent else tuple(options_of(made).items()))

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "MergePoint":
        """The point that a record describes, as `record` writes it."""
        options, groups = (tuple(record.get(key, {}).items()) for key in ("options", "groups"))
        return cls(record["method"], record["lambda"], options, groups)

    def record(self) -> dict[str, Any]:
        """What says which point it is."""
        more = {"options": dict(self.options)} if self.options else {}
        more |= {"groups": dict(self.groups)} if self.groups else {}
        return {"method": self.method, "lambda": self.lam, **more}

    @property
    def made(self) -> Method:
        """The method with its options."""
        return make_method(self.method, dict(self.options))

    @property
    def name(self) -> str:
        """`METHOD-OPTION-VALUE-lambda-0.4000`, with more decimals where lambda has them, or `METHOD-` and a hash of
        options and groups; a valid file name."""
        if self.lam is None:
            content = json.dumps([self.options, self.groups])
            return f"{self.method}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        options = "".join(f"-{name}-{value}" for name, value in self.options)
        decimals = f"{self.lam:.10f}"
        return f"{self.method}{options}-lambda-{decimals[:-6]}{decimals[-6:].rstrip('0')}"

    @property
    def is_base(self) -> bool:
        return self.lam == 0.0

    @property
    def is_aligned(self) -> bool:
        return self.lam == 1.0 and self.made.gives_aligned

    def __lt__(self, other: "MergePoint") -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[Any, ...]:
        """Points of one lambda by lambda, then those of several."""
        return self.lam is None, self.lam or 0.0, self.method, self.options, self.groups


def _rounded(lam: float) -> float:
    return round(lam, 10) + 0.0  # + 0.0 turns -0.0 into 0.0
