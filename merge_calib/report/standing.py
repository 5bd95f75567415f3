"""Where the selected point stands among the others: four facts that must not be mixed up."""

from dataclasses import dataclass

from merge_calib.frontier import non_dominated
from merge_calib.merging.point import MergePoint
from merge_calib.report.landmarks import Landmarks, mean_of
from merge_calib.results import Results

FACTS = {
    "is_non_dominated": "non-dominated: no measured point is at least as good on both and better on one",
    "beats_aligned": "better than the aligned model on both",
    "beats_base": "better than the base on both",
    "tops_parents": "more accurate than both parents",
}


@dataclass(frozen=True)
class Standing:
    """Facts about mean accuracy and mean SCE as measured; None where a mean is missing. Not tested for chance."""

    is_non_dominated: bool | None
    beats_aligned: bool | None
    beats_base: bool | None
    tops_parents: bool | None


def standing(results: Results, landmarks: Landmarks, selected: MergePoint, confidence: str) -> Standing:
    """Compare `selected` with all points and with both parents by one confidence method."""
    base = _compare(results, selected, landmarks.base, confidence)
    aligned = _compare(results, selected, landmarks.aligned, confidence)
    return Standing(
        is_non_dominated=_is_non_dominated(results, selected, confidence),
        beats_aligned=aligned and all(aligned),
        beats_base=base and all(base),
        tops_parents=base and aligned and base[0] and aligned[0],
    )


def _compare(
    results: Results, selected: MergePoint, other: MergePoint | None, confidence: str
) -> tuple[bool, bool] | None:
    """Whether `selected` is more accurate, and whether it has less error; None where either has no mean."""
    ours, theirs = mean_of(results, selected, confidence), mean_of(results, other, confidence)
    if ours is None or theirs is None:
        return None
    assert ours.sce is not None
    assert theirs.sce is not None
    return ours.accuracy > theirs.accuracy, ours.sce < theirs.sce


def _is_non_dominated(results: Results, selected: MergePoint, confidence: str) -> bool | None:
    candidates = results.candidates(confidence)
    names = [c.name for c in candidates]
    return bool(non_dominated(candidates)[names.index(selected.name)]) if selected.name in names else None
