"""Figures, tables and the page, derived from what a run has stored."""

from merge_calib.degrading.analysis import degradation_measured
from merge_calib.files import write_text
from merge_calib.report.degradation_page import write_degradation
from merge_calib.report.evaluation_page import evaluation_page
from merge_calib.report.figures import write_figures
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.page import page
from merge_calib.report.tables import write_tables
from merge_calib.results import Results


def write_report(results: Results) -> None:
    """Write figures/, tables/ and report.md into the run directory, and degradation/ of a sweep."""
    landmarks = Landmarks.of(results)
    drawn = write_figures(results, landmarks)
    write_tables(results, landmarks)
    changed = degradation_measured(results) if results.is_sweep else None
    if changed is not None:
        write_degradation(results.run.path / "degradation", changed)
    written = (page if results.is_sweep else evaluation_page)(results, landmarks, drawn)
    write_text(results.run.path / "report.md", written)
