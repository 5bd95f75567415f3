"""What alignment did to the means over tasks."""

from merge_calib.answers import MEAN
from merge_calib.inference.estimate import Estimate
from merge_calib.report.cells import difference_text, row_text
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import ACCURACY, BRIER, ECE, NLL, SCE, SCE2, Measure, applying
from merge_calib.report.tables import change, change_text, over_text
from merge_calib.report.text import code, markdown_table
from merge_calib.results import WITH_INTERVALS, Results

SHOWN = (ACCURACY, SCE, ECE, NLL, BRIER, SCE2)


def alignment_section(results: Results, landmarks: Landmarks) -> str:
    """The section of report.md: base, aligned, difference and change rate by each confidence method."""
    rows = []
    for confidence in results.confidences:
        for measure in applying(SHOWN, confidence):
            c = change(results, landmarks, MEAN, confidence, measure)
            parents = (landmarks.base, landmarks.aligned)
            numbers = [
                row_text(results, None if p is None else results.row(p, MEAN, confidence), measure) for p in parents
            ]
            estimate = alignment_change(results, landmarks, confidence, measure)
            difference = difference_text(measure, estimate) if estimate else measure.difference_text(c.difference)
            rate = "" if measure is SCE2 else change_text(c)  # it may be 0 or less
            rows.append((*first_cells(results, confidence, measure), *numbers, difference, rate))
    header = (*first_headings(results), "base", "aligned", "difference", "change rate")
    table = markdown_table(header, rows, names=len(header) - 4)
    return f"## What alignment did\n\n{over_text(results)}\n\n{table}"


def alignment_change(results: Results, landmarks: Landmarks, confidence: str, measure: Measure) -> Estimate | None:
    """Aligned minus base with its interval; None for a plug-in error or where either is missing."""
    joint = results.joint(MEAN, confidence)
    names = [p.name for p in (landmarks.aligned, landmarks.base) if p is not None]
    if joint is None or measure.column not in WITH_INTERVALS or not joint.has(measure.column):
        return None
    if len(names) < 2 or not set(names) <= set(joint.names):
        return None
    return joint.difference(measure.column, *names)


def first_headings(results: Results) -> tuple[str, ...]:
    """What the first columns of a table of measures say."""
    return ("confidence", "measure") if len(results.confidences) > 1 else ("measure",)


def first_cells(results: Results, confidence: str, measure: Measure) -> tuple[str, ...]:
    """The values of `first_headings`."""
    bins = results.run.plan["bins"]
    label = measure.heading(bins) if measure.is_binned else measure.label
    return (code(confidence), label) if len(results.confidences) > 1 else (label,)
