"""All figures of a run."""

from collections.abc import Callable

from merge_calib.report.attainment_figure import draw_attainment
from merge_calib.report.axis_figure import draw_axis
from merge_calib.report.confidence_figure import draw_confidence
from merge_calib.report.frontier_figure import draw_frontier
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.reliability_figure import draw_reliability
from merge_calib.report.style import Drawing, save_drawing, styled
from merge_calib.results import Results
from merge_calib.scoring.questionnaire import CONFIDENCE_METHODS

_OF_SWEEPS: dict[str, Callable[[Results, Landmarks, str], Drawing | None]] = {
    "frontier": draw_frontier,
    "attainment": draw_attainment,
    "lambda": draw_axis,
    "reliability": draw_reliability,
    "confidence": draw_confidence,
}
_OF_EVALUATIONS = {"axis": draw_axis, "reliability": draw_reliability, "confidence": draw_confidence}


def write_figures(results: Results, landmarks: Landmarks) -> set[str]:
    """Draw each kind of figure for each confidence method and give the names of those that could be drawn.

    A figure of an earlier report that can no longer be drawn is removed, so that all files tell the same story.
    """
    folder = results.run.path / "figures"
    drawn = set()
    with styled():
        for confidence in results.confidences:
            for kind, draw in (_OF_SWEEPS if results.is_sweep else _OF_EVALUATIONS).items():
                drawing = draw(results, landmarks, confidence)
                if drawing is not None:
                    name = figure_name(results, kind, confidence)
                    save_drawing(folder / name, drawing)
                    drawn.add(name)
    for name in _all_names() - drawn:
        for ending in ("pdf", "png", "csv"):
            (folder / f"{name}.{ending}").unlink(missing_ok=True)
    return drawn


def figure_name(results: Results, kind: str, confidence: str) -> str:
    """`frontier`, or `frontier-choice` in a run with several confidence methods."""
    return kind if len(results.confidences) == 1 else f"{kind}-{confidence}"


def _all_names() -> set[str]:
    endings = ("", *(f"-{c}" for c in CONFIDENCE_METHODS))
    return {f"{kind}{ending}" for kind in {*_OF_SWEEPS, *_OF_EVALUATIONS} for ending in endings}
