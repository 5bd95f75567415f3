"""How sure the frontier is, and how much the choice of the point hangs on one task or one fold."""

from collections.abc import Iterator

from merge_calib.findings import Certainty, Findings
from merge_calib.frontier import REFERENCE
from merge_calib.report.cells import share_text
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.place import point_markdown
from merge_calib.report.text import code, decimals, markdown_table
from merge_calib.results import Results

_MOST_NAMED = 12


def certainty_of(findings: Findings, confidence: str) -> Certainty | None:
    """How sure the frontier is by a confidence method; None where a parent or sce2 is missing."""
    return None if findings.rivals(confidence) is None else findings.certainty(confidence)


def certainty_section(findings: Findings, landmarks: Landmarks) -> str:
    """The section of report.md, by the confidence method that selects."""
    certainty = certainty_of(findings, findings.confidence)
    if certainty is None:
        return ""
    rows = [
        (role, share_text(certainty.non_dominated.get(name)), share_text(certainty.dominates_aligned.get(name)))
        for role, name in _named(landmarks)
    ]
    area = certainty.area
    parts = [
        "## How sure the frontier is\n",
        "P(non-dominated) is the share of bootstrap draws, the same for all points, in which no other point is at "
        "least as good in accuracy and in sce2 and ahead in one; P(dominates aligned) that in which a point is ahead "
        "of the aligned model in both. They are no tests. All points: [tables/points.md](tables/points.md).\n",
        markdown_table(("point", "P(non-dominated)", "P(dominates aligned)"), rows),
        f"- Hypervolume of all points (accuracy x sce2, reference {REFERENCE[0]:g} and {REFERENCE[1]:g}): "
        f"{decimals(area.value, 4)}, in 95 % of draws between {decimals(area.low, 4)} and {decimals(area.high, 4)}; "
        "a description, for the area of noisy points is biased upward.",
        *(f"- {line}" for line in _choices(findings)),
        "",
    ]
    return "\n".join(parts)


def _named(landmarks: Landmarks) -> Iterator[tuple[str, str]]:
    selected = landmarks.selected if landmarks.recovers else None
    for role, point in (("base", landmarks.base), ("selected", selected), ("aligned", landmarks.aligned)):
        if point is not None:
            yield (f"{role} ({point_markdown(point)})" if role == "selected" else role), point.name


def _choices(findings: Findings) -> Iterator[str]:
    """What is chosen without one task, and what each fold chose."""
    results = findings.results
    if results.left_out:
        yield _left_out(results)
    rivals = findings.rivals(findings.confidence)
    if rivals is not None and rivals.folds > 1:
        chosen = ", ".join(point_markdown(fit.chosen) for fit in rivals.fits)
        yield f"The folds chose {chosen}."


def _left_out(results: Results) -> str:
    """Which tasks the choice hangs on."""
    same = [task for task, name in results.left_out.items() if name == results.selection.point]
    other = {task: name for task, name in results.left_out.items() if name != results.selection.point}
    if not other:
        return "Whichever task is left out, the same point is chosen."
    named = [f"without {code(task)} {point_markdown(results.point(name))}" for task, name in other.items()]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    kept = f"; without any one of the other {len(same)} the same point" if same else ""
    return f"With one task left out another point is chosen: {', '.join(named[:_MOST_NAMED])}{more}{kept}."
