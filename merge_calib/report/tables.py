"""The tables of a run: what alignment changed, what is claimed, every point, every model, and the letters."""

from collections.abc import Iterator
from typing import NamedTuple

from merge_calib.answers import MEAN
from merge_calib.calibration.noise_floor import Floor
from merge_calib.degradation.change import Change
from merge_calib.files import csv_text, write_text
from merge_calib.findings import findings_of
from merge_calib.merging.point import MergePoint
from merge_calib.report.cells import floored_text
from merge_calib.report.claims_section import claims_csv, claims_markdown
from merge_calib.report.headline import headline_of
from merge_calib.report.headline_table import headline_csv, headline_markdown, headlines
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.letters import letters_csv, letters_markdown
from merge_calib.report.measures import ACCURACY, BRIER, ECE, NLL, SCE, SCE_AGREEMENT, Measure, applying
from merge_calib.report.model_tables import models_csv, models_markdown
from merge_calib.report.more_measures import more_measures_csv, more_measures_markdown
from merge_calib.report.points_table import points_csv, points_markdown
from merge_calib.report.questions_text import split_text
from merge_calib.report.recovery_section import recovery_csv, recovery_markdown
from merge_calib.report.temperature_tables import (
    carried_csv,
    carried_markdown,
    temperatures_csv,
    temperatures_markdown,
)
from merge_calib.report.text import code, count_text, markdown_table, rate_text
from merge_calib.results import Results

CHANGED = (ECE, SCE, SCE_AGREEMENT, ACCURACY, NLL, BRIER)
UNSTABLE = (
    "Unstable: the base lies under the 95th percentile of its noise floor, so that the rate divides by noise and "
    "depends on the number of questions."
)
_NAMES = (
    *("change_rates", "points", "more_measures", "models", "letters"),
    *("claims", "headline", "recovery", "temperatures", "carried"),
)


class ChangeRow(NamedTuple):
    """What alignment did to one measure on one task (or the mean) by one confidence method."""

    confidence: str
    task: str
    measure: Measure
    change: Change


def write_tables(results: Results, landmarks: Landmarks) -> None:
    """Write every table that the run has into tables/, each as .csv and .md; others of an earlier report go."""
    tables = {name: texts for name, *texts in _tables(results, landmarks)}
    for name in _NAMES:
        for i, ending in enumerate(("csv", "md")):
            path = results.run.path / "tables" / f"{name}.{ending}"
            if name in tables:
                write_text(path, tables[name][i])
            else:
                path.unlink(missing_ok=True)


def _tables(results: Results, landmarks: Landmarks) -> Iterator[tuple[str, str, str]]:
    """Name, CSV and Markdown of each table."""
    if results.is_sweep:
        rows = change_rows(results, landmarks)
        yield "change_rates", _change_csv(results, rows), _change_markdown(results, landmarks, rows)
        about = points_markdown(results, which_sce(results.run.plan["bins"]), split_text(results))
        yield "points", points_csv(results, landmarks), about
        yield from _found(results)
    else:
        yield "models", models_csv(results), models_markdown(results, about_measures(results))
    yield "more_measures", more_measures_csv(results, landmarks), more_measures_markdown(results, landmarks)
    if "choice" in results.confidences:
        yield "letters", letters_csv(results, landmarks), letters_markdown(results, landmarks)


def _found(results: Results) -> Iterator[tuple[str, str, str]]:
    """The tables of what was claimed and compared, where there are both parents."""
    found = list(headlines(results))
    if found:
        yield "headline", headline_csv(results), headline_markdown(results)
        yield "temperatures", temperatures_csv(results), temperatures_markdown(results)
    if any(len(headline.rivals.answers) > 1 for headline in found):
        yield "carried", carried_csv(results), carried_markdown(results)
    findings = findings_of(results)
    if findings.claims:
        yield "claims", claims_csv(findings), claims_markdown(findings)
    first = headline_of(results, results.confidences[0])
    if first is not None and first.selected is not None:
        yield "recovery", recovery_csv(findings), recovery_markdown(findings)


def change(results: Results, landmarks: Landmarks, task: str, confidence: str, measure: Measure) -> Change:
    """Base against aligned on the judging questions; None on the side that was not measured."""

    def value(point: MergePoint | None) -> float | None:
        return None if point is None else measure.of(results.get(point, task, confidence))

    floor = floor_of(results, landmarks.base, task, confidence, measure)
    return Change(value(landmarks.base), value(landmarks.aligned), None if floor is None else floor.p95)


def floor_of(results: Results, point: MergePoint | None, task: str, confidence: str, measure: Measure) -> Floor | None:
    """The noise floor of a measure of a point; None where it has none or the point was not measured."""
    row = None if point is None else results.row(point, task, confidence)
    return None if row is None else row.floors.get(measure.column)


def change_text(found: Change) -> str:
    """The change rate, with a mark where the base is no more than noise."""
    return f"{rate_text(found.rate)}{' (unstable)' if found.unstable and found.rate is not None else ''}"


def change_rows(results: Results, landmarks: Landmarks) -> list[ChangeRow]:
    """Every confidence method x measure that it has x task, the mean last."""
    return [
        ChangeRow(confidence, task, measure, change(results, landmarks, task, confidence, measure))
        for confidence in results.confidences
        for measure in applying(CHANGED, confidence)
        for task in (*results.tasks_of(confidence), MEAN)
    ]


def which_sce(bins: int) -> str:
    """What a table must say about its columns."""
    return (
        f"ECE, SCE and SCE-agreement have M = {bins} bins of equal width ((m-1)/M, m/M]. "
        "SCE is the static calibration error of Nixon et al. 2019. SCE-agreement is the variant of Oh & Hwang 2024, "
        "in which a class is right where prediction and answer agree on it, true negatives included; it grows with "
        "confidence itself and is not comparable with SCE. NLL is in nats. "
        "`mean` is the macro average over tasks, every task with the same weight."
    )


def about_measures(results: Results) -> str:
    """What a table of all measures of a run must say about its columns."""
    bins = results.run.plan["bins"]
    if results.choice_methods:
        return which_sce(bins)
    return f"ECE has M = {bins} bins of equal width ((m-1)/M, m/M]. NLL is in nats."


def task_text(task: str) -> str:
    return MEAN if task == MEAN else code(task)


def shown_tasks(results: Results, confidence: str) -> tuple[str, ...]:
    """The tasks of a confidence method, and their mean where there is more than one."""
    tasks = results.tasks_of(confidence)
    return tasks if len(tasks) == 1 else (*tasks, MEAN)


def over_text(results: Results) -> str:
    """What means are means of."""
    counts = [len(results.tasks_of(confidence)) for confidence in results.confidences]
    if max(counts) == 1:
        return "On the one task that was asked." if len(results.tasks) == 1 else "On the one task of each kind."
    if min(counts) == max(counts) == len(results.tasks):
        return f"Means over {len(results.tasks)} tasks, every task with the same weight."
    over = [f"{code(c)} {count_text(n, 'task')}" for c, n in zip(results.confidences, counts, strict=True)]
    return f"Means over the tasks that a confidence method applies to ({', '.join(over)}), each with the same weight."


def _change_csv(results: Results, rows: list[ChangeRow]) -> str:
    def line(row: ChangeRow) -> tuple[object, ...]:
        bins = results.run.plan["bins"] if row.measure.is_binned else None
        c = row.change
        numbers = (c.base, c.aligned, c.difference, c.rate, c.floor, c.unstable)
        return (row.confidence, row.task, row.measure.column, bins, *numbers)

    header = ("confidence", "task", "measure", "bins", "base", "aligned", "difference", "change_rate_percent")
    return csv_text((*header, "base_floor_95", "unstable"), map(line, rows))


def _change_markdown(results: Results, landmarks: Landmarks, rows: list[ChangeRow]) -> str:
    bins = results.run.plan["bins"]

    def floor(point: MergePoint | None, row: ChangeRow) -> Floor | None:
        return floor_of(results, point, row.task, row.confidence, row.measure)

    parts = [
        "# What alignment changed\n",
        "Change rate = (aligned - base) / base x 100, in %. The rate of the mean is the rate between the two means. "
        f"{UNSTABLE} Measured are the questions that judge: {split_text(results)}.\n",
        f"{which_sce(bins)}\n",
    ]
    for confidence in results.confidences:
        lines = [
            (
                row.measure.heading(bins) if row.measure.is_binned else row.measure.label,
                task_text(row.task),
                floored_text(row.measure, row.change.base, floor(landmarks.base, row)),
                floored_text(row.measure, row.change.aligned, floor(landmarks.aligned, row)),
                row.measure.difference_text(row.change.difference),
                change_text(row.change),
            )
            for row in rows
            if row.confidence == confidence and row.task in shown_tasks(results, confidence)
        ]
        header = ("measure", "task", "base", "aligned", "difference", "change rate")
        parts += [f"## Confidence method {code(confidence)}\n", markdown_table(header, lines, names=2)]
    return "\n".join(parts)
