"""Which points of a search are asked the other questions too: those that may be claimed something about."""

from collections.abc import Mapping, Sequence

import numpy as np

from merge_calib.frontier import Candidate, undominated
from merge_calib.merging.point import MergePoint
from merge_calib.search.grid import PARENTS
from merge_calib.search.objectives import are_known, losses
from merge_calib.search.strategy import Outcome
from merge_calib.selection import Rule, select


def finalists(
    heard: Mapping[MergePoint, Outcome | None], objectives: Sequence[str], rule: Rule, min_accuracy: float | None = None
) -> tuple[MergePoint, ...]:
    """Both parents, the points with lambda > 0 that none of these beats by the objectives, and what `rule` selects.

    Where lambdas by groups were tried, what it would select without them too. All by the choosing questions. Points
    that failed or were stopped are none. Points below `min_accuracy` are none either, unless all are, nor those of
    which an objective has no value.
    """
    known = {p: outcome for p, outcome in heard.items() if outcome is not None and not outcome.stopped}
    beyond = [p for p in known if (p.lam is None or p.lam > 0) and are_known(known[p].measures, objectives)]
    feasible = [p for p in beyond if min_accuracy is None or known[p].measures["accuracy"] >= min_accuracy] or beyond
    values = [losses(known[point].measures, objectives) for point in feasible]
    kept = undominated(np.reshape(values, (len(feasible), len(objectives))))
    best = [point for point, keep in zip(feasible, kept, strict=True) if keep]
    candidates = {
        p.name: Candidate(p.name, p.lam, known[p].measures["accuracy"], known[p].measures["sce"], p.is_aligned)
        for p in known
    }
    selected = {select(list(candidates.values()), rule).point}
    if any(point.lam is None for point in known):  # what lambdas by groups are to be compared with
        selected.add(select([c for c in candidates.values() if c.lam is not None], rule).point)
    chosen = [point for point in known if point.name in selected]
    return tuple(dict.fromkeys([*PARENTS, *sorted({*best, *chosen})]))
