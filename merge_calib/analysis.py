"""How a run is judged: which questions choose, by which rule, and how often they are drawn anew."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from merge_calib.errors import InputError
from merge_calib.selection import Rule

Cluster = Literal["none", "subject"]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The options of all that is made of stored scores; changing them needs no model.

    select_fraction: share of each task's questions that choose the point and tune all else; the others judge
    cross_fit: number of folds that take both roles in turn, 0 for one division into two
    cluster: `subject` draws whole subjects in the bootstrap, `none` questions within each subject
    draws: samples of the bootstrap; seed: of the draws
    Raises InputError naming the flag for a value that is not allowed.
    """

    select_fraction: float = 0.5
    rule: Rule = field(default_factory=Rule)
    cross_fit: int = 0
    draws: int = 2000
    cluster: Cluster = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.select_fraction < 1:
            raise InputError(f"--select-fraction must lie between 0 and 1, not {self.select_fraction}")
        if self.cross_fit != 0 and not 2 <= self.cross_fit <= 100:
            raise InputError(f"--cross-fit takes 2 to 100 folds, not {self.cross_fit}")
        if not 100 <= self.draws <= 100_000:
            raise InputError(f"--draws must lie between 100 and 100,000, not {self.draws}")
        if self.cluster not in get_args(Cluster):
            raise InputError(f"--cluster {self.cluster!r} is unknown; allowed: {', '.join(get_args(Cluster))}")

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> "Analysis":
        """What run.json says; a run of an earlier time says its margin only."""
        said = dict(plan["analysis"] if "analysis" in plan else _before(plan))
        keys = {"by": "select_by", "margin": "accuracy_margin", "weight": "select_weight"}
        rule = Rule(**{name: said.pop(key) for name, key in keys.items() if key in said})
        return cls(rule=rule, **said)

    def record(self) -> dict[str, Any]:
        """What run.json says."""
        return {
            "select_fraction": self.select_fraction,
            "select_by": self.rule.by,
            "accuracy_margin": self.rule.margin,
            "select_weight": self.rule.weight,
            "cross_fit": self.cross_fit,
            "draws": self.draws,
            "cluster": self.cluster,
            "seed": self.seed,
        }


def _before(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a run.json says that was written when all questions chose and judged alike."""
    return {"accuracy_margin": plan["accuracy_margin"]} if "accuracy_margin" in plan else {}
