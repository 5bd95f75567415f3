"""Which point is selected: a rule, written out, over accuracy and calibration error."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from merge_calib.errors import InputError
from merge_calib.frontier import REFERENCE, Candidate, non_dominated

SelectBy = Literal["calibration", "accuracy", "knee", "hypervolume", "weighted"]
_DIGITS = 12  # means that are equal on paper may differ in the last bit
RULES: tuple[SelectBy, ...] = get_args(SelectBy)


@dataclass(frozen=True)
class Rule:
    """How a point is selected among those with lambda > 0.

    by: `calibration`, the lowest error that keeps the aligned model's accuracy to `margin` (a share of questions, .005
        is half a point); `accuracy`, the highest; `knee`, the point of the frontier farthest from the line between its
        ends; `hypervolume`, the largest area that one point dominates, accuracy x (1 - error); `weighted`, the highest
        accuracy x (1 - weight) - error x weight
    Raises InputError naming the flag for a margin or weight outside [0, 1], and for an unknown rule.
    """

    by: SelectBy = "calibration"
    margin: float = 0.005
    weight: float = 0.5

    def __post_init__(self) -> None:
        if self.by not in RULES:
            raise InputError(f"--select-by {self.by!r} is unknown; allowed: {', '.join(RULES)}")
        for flag, value in (("--accuracy-margin", self.margin), ("--select-weight", self.weight)):
            if not 0 <= value <= 1:
                raise InputError(f"{flag} must lie between 0 and 1, not {value}")


@dataclass(frozen=True)
class Selection:
    """The selected point and why; `recovers` is False where the rule selects the aligned model itself."""

    point: str
    recovers: bool
    rule: str
    eligible: tuple[str, ...]
    tied: tuple[str, ...]


def select(candidates: Sequence[Candidate], rule: Rule | None = None) -> Selection:
    """The point that `rule` selects.

    Points of several lambdas take part as they are. Ties go to the lower error, the higher accuracy, then to a point
    of one lambda, the lambda nearest to 1, the smaller lambda, the aligned model, the name.
    """
    rule = rule or Rule()
    eligible = _eligible(candidates, rule)
    scores = {name: round(score, _DIGITS) for name, score in _SCORES[rule.by](eligible, rule).items()}
    best = min(eligible, key=lambda c: (-scores[c.name], *_preference(c)))
    tied = tuple(c.name for c in eligible if scores[c.name] == scores[best.name] and c is not best)
    return Selection(best.name, not best.is_aligned, _words(candidates, rule), tuple(c.name for c in eligible), tied)


def _eligible(candidates: Sequence[Candidate], rule: Rule) -> list[Candidate]:
    """Points with lambda > 0; by the rule `calibration` those that keep the accuracy."""
    beyond = [c for c in candidates if c.lam is None or c.lam > 0]
    if rule.by != "calibration":
        return beyond
    aligned = next(c for c in candidates if c.is_aligned)
    floor = aligned.accuracy - rule.margin - 1e-12  # so that a loss of exactly the margin is allowed
    return [c for c in beyond if c.accuracy >= floor]


def _knee(eligible: Sequence[Candidate], _: Rule) -> dict[str, float]:
    """Distance from the line between the frontier's ends, both measures scaled to the frontier's range.

    Source: Branke et al. 2004. Points off the frontier are below all on it; a frontier of one or two points has no
    bend, and the better calibrated end is taken.
    """
    kept = [c for c, keep in zip(eligible, non_dominated(eligible), strict=True) if keep]
    accuracy = np.array([c.accuracy for c in kept])
    error = np.array([c.error for c in kept])
    spans = np.ptp(accuracy) or 1.0, np.ptp(error) or 1.0
    bend = (accuracy - accuracy.min()) / spans[0] - (error - error.min()) / spans[1]
    found = dict.fromkeys((c.name for c in eligible), -np.inf)
    return found | {c.name: float(b) for c, b in zip(kept, bend, strict=True)}


def _area(candidate: Candidate) -> float:
    floor, ceiling = REFERENCE
    return (candidate.accuracy - floor) * (ceiling - candidate.error)


_SCORES: Mapping[SelectBy, Callable[[Sequence[Candidate], Rule], dict[str, float]]] = {
    "calibration": lambda eligible, _: {c.name: -c.error for c in eligible},
    "accuracy": lambda eligible, _: {c.name: c.accuracy for c in eligible},
    "knee": _knee,
    "hypervolume": lambda eligible, _: {c.name: _area(c) for c in eligible},
    "weighted": lambda eligible, rule: {
        c.name: c.accuracy * (1 - rule.weight) - c.error * rule.weight for c in eligible
    },
}


def _preference(candidate: Candidate) -> tuple[float, float, bool, float, float, bool, str]:
    """Among points that the rule holds equal the smallest is selected."""
    has_several, lam = candidate.lam is None, candidate.lam or 0.0
    place = (0.0, 0.0) if has_several else (abs(lam - 1), lam)
    error, accuracy = round(candidate.error, _DIGITS), round(candidate.accuracy, _DIGITS)
    return error, -accuracy, has_several, *place, not candidate.is_aligned, candidate.name


def _words(candidates: Sequence[Candidate], rule: Rule) -> str:
    """The rule in words; what only some runs need is said in those."""
    has_several = any(c.lam is None for c in candidates)
    has_equals = len({c.lam for c in candidates}) < len(candidates)
    among = f"among points with lambda > 0{' or by groups' if has_several else ''}"
    said = {
        "calibration": f"lowest mean SCE over tasks {among} whose mean accuracy is at least the aligned model's minus "
        f"{rule.margin:g}; ties: higher accuracy",
        "accuracy": f"highest mean accuracy over tasks {among}; ties: lower mean SCE",
        "knee": f"the knee of the frontier of mean accuracy and mean SCE {among}: farthest from the line between its "
        "ends, both measures scaled to its range; ties: lower SCE",
        "hypervolume": f"largest accuracy x (1 - SCE), both means over tasks, {among}; ties: lower SCE",
        "weighted": f"highest {1 - rule.weight:g} x accuracy - {rule.weight:g} x SCE, both means over tasks, {among}; "
        "ties: lower SCE",
    }[rule.by]
    one_first = ", then one lambda before lambda by groups" if has_several else ""
    last = ", then the aligned model, then name" if has_equals else ""
    return f"{said}{one_first}, then lambda nearest to 1, then smaller lambda{last}"
