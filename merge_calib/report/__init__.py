"""Figures, tables and the page, derived from what a run has stored."""

from merge_calib.files import write_text
from merge_calib.report.evaluation_page import evaluation_page
from merge_calib.report.figures import write_figures
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.page import page
from merge_calib.report.tables import write_tables
from merge_calib.results import Results


def write_report(results: Results) -> None:
    """Write figures/, tables/ and report.md into the run directory."""
    landmarks = Landmarks.of(results)
    drawn = write_figures(results, landmarks)
    write_tables(results, landmarks)
    written = (page if results.is_sweep else evaluation_page)(results, landmarks, drawn)
    write_text(results.run.path / "report.md", written)
