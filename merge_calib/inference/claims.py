"""What may be said of the selected point: each claim with its null hypothesis, its test and its family."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from merge_calib.inference.estimate import Estimate
from merge_calib.inference.holm import holm
from merge_calib.inference.joint import LEVEL, Joint
from merge_calib.inference.splits import FEWEST

ERROR = "sce2"  # the calibration error that claims are about: debiased, so that it can be tested


@dataclass(frozen=True)
class Kind:
    """A kind of claim: what is said when it holds, what is said when it cannot be, its null hypothesis and its test."""

    name: str
    words: str
    null: str
    test: str


_BOTH = "paired bootstrap, one-sided, of each difference; intersection-union: p is the largest of the parts' p"
KINDS = (
    Kind(
        "better_calibrated",
        "better calibrated than the aligned model",
        "sce2 is not below the aligned model's",
        "paired bootstrap, one-sided, of the difference",
    ),
    Kind(
        "recovers",
        "better calibrated than the aligned model without losing accuracy beyond the margin",
        "sce2 is not below the aligned model's, or accuracy is below the aligned model's by the margin or more",
        _BOTH,
    ),
    Kind(
        "dominates_aligned",
        "better than the aligned model in accuracy and in calibration",
        "accuracy is not above the aligned model's, or sce2 is not below it",
        _BOTH,
    ),
    Kind(
        "dominates_base",
        "better than the base in accuracy and in calibration",
        "accuracy is not above the base's, or sce2 is not below it",
        _BOTH,
    ),
    Kind(
        "tops_parents",
        "more accurate than both parents",
        "accuracy is not above the base's, or not above the aligned model's",
        _BOTH,
    ),
    Kind(
        "non_dominated",
        "better than every measured point that was not chosen, in accuracy or in calibration",
        "some point that was asked these questions and not chosen is at least as accurate and has an sce2 at least as "
        "low",
        "paired bootstrap, one-sided; against each other point twice the smaller p of the two measures (Bonferroni, a "
        "union); p is the largest over the other points (intersection-union)",
    ),
)


@dataclass(frozen=True)
class Part:
    """One comparison inside a claim: the difference to another point with its interval, and its one-sided p-value."""

    measure: str
    against: str
    difference: Estimate
    p_value: float


@dataclass(frozen=True)
class Claim:
    """A claim about one task, or the mean over tasks.

    p_value: before the family is taken into account; p_holm: after (None where it was not tested); holds: p_holm
    below .05; why_not: why it was not tested
    """

    kind: Kind
    task: str
    n: int
    parts: tuple[Part, ...]
    p_value: float | None
    p_holm: float | None = None
    why_not: str = ""

    @property
    def holds(self) -> bool:
        return self.p_holm is not None and self.p_holm <= LEVEL


@dataclass(frozen=True)
class Compared:
    """Whom the selected point is compared with: names of forecasts in a Joint; `others` are all other points."""

    selected: str
    base: str
    aligned: str
    others: tuple[str, ...]
    margin: float


def claims_of(joints: Mapping[str, Joint], compared: Compared) -> list[Claim]:
    """Every kind of claim on every task, corrected together.

    The family is all kinds times all declared tasks and their mean, about the one point that was chosen on other
    questions. A task with fewer than 50 questions to judge by is in the family, and nothing is claimed on it.
    Source: Holm 1979 for the family, Berger 1982 for intersection-union tests.
    """
    claims = [_claim(kind, task, joint, compared) for task, joint in joints.items() for kind in KINDS]
    return corrected(claims)


def corrected(claims: Sequence[Claim]) -> list[Claim]:
    """The claims with their p-values corrected for being so many; those that were not tested count as p = 1."""
    family = holm(np.array([1.0 if c.p_value is None else c.p_value for c in claims]))
    return [
        replace(claim, p_holm=None if claim.p_value is None else float(p))
        for claim, p in zip(claims, family, strict=True)
    ]


def _claim(kind: Kind, task: str, joint: Joint, compared: Compared) -> Claim:
    if not joint.has(ERROR):
        return Claim(kind, task, joint.n, (), None, why_not="it has no class-wise calibration error")
    if joint.fewest < FEWEST:
        few = f"{joint.fewest} questions to judge by{' in a task' if joint.sizes else ''}, {FEWEST} are needed"
        return Claim(kind, task, joint.n, (), None, why_not=few)
    if kind.name == "non_dominated":
        parts, p = _against_all(joint, compared)
    else:
        parts = tuple(_parts(kind.name, joint, compared))
        p = max(part.p_value for part in parts)
    return Claim(kind, task, joint.n, parts, p)


def _parts(kind: str, joint: Joint, compared: Compared) -> Iterable[Part]:
    base, aligned = compared.base, compared.aligned
    asked = {
        "better_calibrated": [(ERROR, aligned, 0.0)],
        "recovers": [(ERROR, aligned, 0.0), ("accuracy", aligned, compared.margin)],
        "dominates_aligned": [("accuracy", aligned, 0.0), (ERROR, aligned, 0.0)],
        "dominates_base": [("accuracy", base, 0.0), (ERROR, base, 0.0)],
        "tops_parents": [("accuracy", base, 0.0), ("accuracy", aligned, 0.0)],
    }[kind]
    for measure, other, margin in asked:
        yield _part(joint, measure, compared.selected, other, margin)


def _part(joint: Joint, measure: str, selected: str, other: str, margin: float = 0.0) -> Part:
    difference = joint.difference(measure, selected, other)
    return Part(measure, other, difference, joint.better(measure, selected, other, margin))


def _against_all(joint: Joint, compared: Compared) -> tuple[tuple[Part, ...], float]:
    """The comparison with the point that is hardest to tell apart, and the p-value over all."""
    assert compared.others, "the base is never chosen"
    worst: tuple[float, tuple[Part, ...]] = (0.0, ())
    for other in compared.others:
        parts = tuple(_part(joint, measure, compared.selected, other) for measure in ("accuracy", ERROR))
        p = min(1.0, 2 * min(part.p_value for part in parts))
        if p >= worst[0]:
            worst = p, parts
    return worst[1], worst[0]
