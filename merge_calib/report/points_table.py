"""Every point with all that was measured of it, means over tasks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from merge_calib.answers import MEAN
from merge_calib.calibration.noise_floor import Floor
from merge_calib.files import csv_text
from merge_calib.findings import Certainty, findings_of
from merge_calib.frontier import non_dominated
from merge_calib.merging.point import MergePoint
from merge_calib.points import Point
from merge_calib.report.cells import (
    FLOORS,
    INTERVALS,
    about_intervals,
    floor_values,
    floored_text,
    interval_values,
    row_text,
    share_text,
    short,
)
from merge_calib.report.certainty_section import certainty_of
from merge_calib.report.families import is_all_linear
from merge_calib.report.headline import Headline, headline_of
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import (
    ACCURACY,
    AUROC,
    BRIER,
    ECE,
    ECE2,
    LETTER_BIAS,
    LETTER_MASS,
    MEAN_CONFIDENCE,
    NLL,
    SCE,
    SCE2,
    SCE_AGREEMENT,
    Measure,
    applying,
)
from merge_calib.report.place import place_text, point_cells, point_columns
from merge_calib.report.retained_cells import (
    ABOUT,
    COLUMNS,
    HEADINGS,
    has_retained,
    retained_cells,
    retained_of,
    retained_values,
)
from merge_calib.report.text import MISSING, code, markdown_table, named_text
from merge_calib.results import Result, Results
from merge_calib.rivals import tempered

POINT_COLUMNS = (
    *(ACCURACY, SCE, SCE_AGREEMENT, ECE, NLL, BRIER, SCE2, ECE2),
    *(MEAN_CONFIDENCE, AUROC, LETTER_MASS, LETTER_BIAS),
)
_TEMPERED = (NLL, SCE, ECE, BRIER)
_SHARES = ("p_non_dominated", "p_dominates_aligned")


@dataclass(frozen=True)
class _Extra:
    """What is known of a point beyond its own row: whether it is on the frontier, how surely, and what + T makes."""

    on_frontier: bool | None
    shares: tuple[float | None, float | None]
    tempered: Mapping[Measure, float]
    tempered_floor: Floor | None


def points_csv(results: Results, landmarks: Landmarks) -> str:
    """A row for each confidence method and complete point: as in results.csv, and what + T makes and is retained."""
    scaled = [f"{measure.column}_with_t" for measure in _TEMPERED]
    place = ("point", *point_columns(results), "confidence", "split", "role", "non_dominated", "selected", "n")
    header = (
        *place,
        *(m.column for m in POINT_COLUMNS),
        "ties",
        *INTERVALS,
        *FLOORS,
        *scaled,
        "sce_with_t_floor",
        *_SHARES,
        *COLUMNS,
    )
    rows = (
        [
            *(row.point.name, *point_cells(row.point), row.confidence, row.split, landmarks.role(row.point)),
            *(extra.on_frontier, row.point == landmarks.selected, row.measurement.n),
            *(measure.of(row.measurement) for measure in POINT_COLUMNS),
            row.measurement.ties,
            *interval_values(results, row),
            *floor_values(row),
            *(extra.tempered.get(measure) for measure in _TEMPERED),
            None if extra.tempered_floor is None else short(extra.tempered_floor.mean),
            *extra.shares,
            *retained_values(retained_of(results, row.point)),
        ]
        for row, extra in _points(results)
    )
    return csv_text(header, rows)


def points_markdown(results: Results, about: str, measured: str) -> str:
    """A table for each confidence method; `about` says what the columns are, `measured` on which questions."""
    keeps = has_retained(results)
    parts = [
        "# Every point\n",
        f"Means over tasks of the points that have all tasks, {measured}. `yes` where no other point is at least as "
        "good on accuracy and SCE and ahead on one. P(non-dominated) and P(dominates aligned): shares of bootstrap "
        f"draws, by accuracy and sce2. + T: with a temperature fitted per task. {about_intervals(results)}\n",
        f"{about}{f' {ABOUT}' if keeps else ''}\n",
    ]
    for confidence in results.confidences:
        parts += [f"## Confidence method {code(confidence)}\n", _table(results, confidence, keeps=keeps)]
    return "\n".join(parts)


def _table(results: Results, confidence: str, *, keeps: bool) -> str:
    columns = place_columns(results)
    landmarks = Landmarks.of(results)
    measures = applying(POINT_COLUMNS, confidence)
    found = [(row, extra) for row, extra in _points(results) if row.confidence == confidence]
    if not found:
        return "No point has all tasks yet.\n"
    has_extra = confidence in results.choice_methods
    rows = []
    for row, extra in found:
        cells = [*place_texts(row.point, columns), landmarks.role(row.point), "yes" if extra.on_frontier else ""]
        cells += [row_text(results, row, measure) for measure in measures]
        if has_extra:
            cells.append(NLL.text(extra.tempered.get(NLL)))
            cells.append(floored_text(SCE, extra.tempered.get(SCE), extra.tempered_floor))
            cells += [share_text(share) for share in extra.shares]
        rows.append([*cells, *(retained_cells(retained_of(results, row.point)) if keeps else [])])
    header = [*columns, "", "frontier", *(measure.label for measure in measures)]
    if has_extra:
        header += ["NLL + T", "SCE + T", "P(non-dominated)", "P(dominates aligned)"]
    return markdown_table([*header, *(HEADINGS if keeps else ())], rows, names=len(columns) + 2)


def _points(results: Results) -> Iterator[tuple[Result, _Extra]]:
    """The mean of every complete point by each confidence method."""
    for confidence in results.confidences:
        candidates = results.candidates(confidence)
        kept = non_dominated(candidates).tolist() if candidates else []
        fronts = dict(zip((c.name for c in candidates), kept, strict=True))
        headline = headline_of(results, confidence)
        certainty = None if headline is None else certainty_of(findings_of(results), confidence)
        for row in results.line(MEAN, confidence):
            name = row.point.name
            yield row, _Extra(fronts.get(name), _shares(certainty, name), *_with_temperature(headline, name))


def _shares(certainty: Certainty | None, name: str) -> tuple[float | None, float | None]:
    if certainty is None:
        return None, None
    return certainty.non_dominated.get(name), certainty.dominates_aligned.get(name)


def _with_temperature(headline: Headline | None, name: str) -> tuple[dict[Measure, float], Floor | None]:
    """What a point measures with a temperature, and the noise floor of its SCE."""
    if headline is None or tempered(name) not in headline.joint().names:
        return {}, None
    joint = headline.joint()
    values = {m: joint.value(m.column, tempered(name)) for m in _TEMPERED if joint.has(m.column)}
    return values, headline.floors(tempered(name))["sce"]


def place_columns(results: Results) -> tuple[str, ...]:
    """What it takes to say which point a row is about."""
    if is_all_linear(results):
        return ("lambda",)
    has_options = any(isinstance(point, MergePoint) and point.options for point in results.points)
    return ("method", *(("options",) if has_options else ()), "lambda")


def place_texts(point: Point, columns: tuple[str, ...]) -> list[str]:
    """The values of `place_columns`; a parent is of no method."""
    assert isinstance(point, MergePoint)
    is_parent = point.is_base or point.is_aligned
    texts = {
        "method": MISSING if is_parent else code(point.method),
        "options": named_text(point.options) or MISSING,
        "lambda": place_text(point),
    }
    return [texts[column] for column in columns]
