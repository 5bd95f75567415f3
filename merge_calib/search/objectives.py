"""What a search is to raise and what to lower."""

import math
from collections.abc import Mapping, Sequence

from merge_calib.errors import InputError

OBJECTIVES = ("accuracy", "sce")
HIGHER = ("accuracy", "auroc")
LOWER = (
    *("ece", "sce", "sce_agreement", "nll", "brier", "ece_15", "sce_15", "ece2", "sce2"),
    *("adaptive_ece", "smooth_ece", "overconfidence", "aurc"),
)


def require_objectives(names: Sequence[str]) -> None:
    """Raise InputError for fewer than two measures, for one named twice and for what is none with a better side."""
    for name in names:
        if name not in (*HIGHER, *LOWER):
            raise InputError(f"--objectives {name!r} is unknown; allowed: {', '.join((*HIGHER, *LOWER))}")
    if len(set(names)) < len(names):
        raise InputError(f"--objectives {','.join(names)} names one measure twice")
    if len(names) < 2:
        raise InputError(f"--objectives needs at least two measures, as {','.join(OBJECTIVES)}")


def are_known(measures: Mapping[str, float | None], names: Sequence[str]) -> bool:
    """Whether all objectives have a finite value; AUROC, for one, has none where all answers are right."""
    return all((value := measures.get(name)) is not None and math.isfinite(value) for name in names)


def losses(measures: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """The objectives as numbers of which less is better."""
    return [-measures[name] if name in HIGHER else measures[name] for name in names]
