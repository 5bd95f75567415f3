"""The measures beyond accuracy, ECE, SCE, NLL and Brier, of every point or model."""

from merge_calib.answers import MEAN
from merge_calib.files import csv_text
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import (
    ADAPTIVE_ECE,
    ANSWER_ENTROPY,
    AURC,
    BRIER,
    BRIER_DISCRIMINATION,
    BRIER_MISCALIBRATION,
    BRIER_UNCERTAINTY,
    ECE2,
    OVERCONFIDENCE,
    PREDICTION_ENTROPY,
    SCE2,
    SMOOTH_ECE,
    applying,
)
from merge_calib.report.model_tables import model_name
from merge_calib.report.place import place_text, point_cells, point_columns
from merge_calib.report.points_table import place_columns, place_texts
from merge_calib.report.text import code, markdown_table
from merge_calib.results import Result, Results

COLUMNS = (
    *(ADAPTIVE_ECE, SMOOTH_ECE, ECE2, SCE2, OVERCONFIDENCE, AURC),
    *(BRIER, BRIER_MISCALIBRATION, BRIER_DISCRIMINATION, BRIER_UNCERTAINTY),
    *(ANSWER_ENTROPY, PREDICTION_ENTROPY),
)
ABOUT = (
    "Adaptive ECE has bins that hold equally many questions; smooth ECE has none (Blasiok & Nakkiran 2023). ece2 and "
    "sce2 are debiased squared errors, which may be negative. Over-confidence is mean confidence minus accuracy. AURC "
    "is the area under the risk-coverage curve, the error rate among the most confident questions averaged over their "
    "share; lower is better. Brier = miscalibration - discrimination + uncertainty (isotonic, CORP); more "
    "discrimination is better. The entropy of answers is the mean over questions of that of the probabilities, the "
    "entropy of predictions that of how often each option is predicted, both in nats: what a multiple-choice run can "
    "say of diversity."
)


def more_measures_csv(results: Results, landmarks: Landmarks) -> str:
    """A row for each point or model and confidence method, means over tasks."""
    header = ("point", *point_columns(results), "confidence", "split", "role", *(m.column for m in COLUMNS))
    rows = (
        [
            *(row.point.name, *point_cells(row.point), confidence, row.split, landmarks.role(row.point)),
            *(measure.of(row.measurement) for measure in COLUMNS),
        ]
        for confidence in results.confidences
        for row in results.line(MEAN, confidence)
    )
    return csv_text(header, rows)


def more_measures_markdown(results: Results, landmarks: Landmarks) -> str:
    """A table for each confidence method."""
    bins = results.run.plan["bins"]
    parts = ["# More measures\n", f"Means over tasks. {ABOUT}\n"]
    for confidence in results.confidences:
        measures = applying(COLUMNS, confidence)
        lines = results.line(MEAN, confidence)
        cells = [
            (*_place(results, landmarks, row), *(measure.text(measure.of(row.measurement)) for measure in measures))
            for row in lines
        ]
        names = (*place_columns(results), "") if results.is_sweep else ("model", str(results.run.plan["axis"]))
        header = (*names, *(m.heading(bins) if m.is_binned else m.label for m in measures))
        table = markdown_table(header, cells, names=len(names)) if cells else "Nothing has all tasks yet.\n"
        parts += [f"## Confidence method {code(confidence)}\n", table]
    return "\n".join(parts)


def _place(results: Results, landmarks: Landmarks, row: Result) -> list[str]:
    if results.is_sweep:
        return [*place_texts(row.point, place_columns(results)), landmarks.role(row.point)]
    return [code(model_name(row.point)), place_text(row.point)]
