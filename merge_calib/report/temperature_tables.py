"""The fitted temperatures, and what one task's temperature does on another."""

from collections.abc import Iterator

from merge_calib.calibration.temperature import Temperature
from merge_calib.files import csv_text
from merge_calib.merging.point import MergePoint
from merge_calib.report.headline import Headline
from merge_calib.report.headline_table import headlines
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.place import point_markdown
from merge_calib.report.text import MISSING, code, decimals, markdown_table
from merge_calib.results import Results

_ALL = "all tasks"
_MOST_TASKS = 12  # of a matrix in Markdown; the CSV holds all
_ABOUT = (
    "Temperatures that minimise NLL on the choosing questions: above 1 the model was too sure. `one T` is fitted on "
    "all tasks at once, each with the same weight. * the loss still falls at the end of the range from 0.01 to 100; "
    "** every temperature gives the same loss. DACA fits the aligned model's temperature to the base's probabilities "
    "where both predict the same option, without labels."
)
_CARRIED = "NLL on the task of a column, at the temperature that was fitted on the task of the row (mean over folds)."


def temperatures_csv(results: Results) -> str:
    """A row for each confidence method, fold, point and task; DACA has rows of its own."""
    rows: list[tuple[object, ...]] = []
    for headline in headlines(results):
        for i, fit in enumerate(headline.rivals.fits):
            for (point, task), t in fit.temperatures.items():
                rows.append((headline.confidence, i, point.name, task or _ALL, *_facts(t)))
            for task, daca in fit.daca.items():
                if daca is not None:
                    rows.append((headline.confidence, i, "aligned + DACA", task, *_facts(daca.temperature)))
    header = ("confidence", "fold", "point", "task", "temperature", "at_bound", "is_identified")
    return csv_text(header, rows)


def temperatures_markdown(results: Results) -> str:
    """For each confidence method points x tasks, the mean over folds, then what is carried between tasks."""
    parts = ["# Temperatures\n", f"{_ABOUT}\n"]
    for headline in headlines(results):
        parts += [f"## Confidence method {code(headline.confidence)}\n", _table(headline)]
        parts += list(_matrices(results, headline))
    return "\n".join(parts)


def carried_csv(results: Results) -> str:
    """A row for each confidence method, point (aligned, selected), task fitted on and task measured on."""
    rows = [
        (headline.confidence, role, point.name, source, target, nll)
        for headline in headlines(results)
        for role, point in _carriers(results, headline)
        for (source, target), nll in headline.findings.carried(headline.confidence, point).items()
    ]
    return csv_text(("confidence", "role", "point", "fitted_on", "measured_on", "nll"), rows)


def carried_markdown(results: Results) -> str:
    """The matrices alone."""
    parts = ["# Temperatures carried from task to task\n", f"{_CARRIED}\n"]
    for headline in headlines(results):
        parts += [f"## Confidence method {code(headline.confidence)}\n", *_matrices(results, headline)]
    return "\n".join(parts)


def _table(headline: Headline) -> str:
    rivals = headline.rivals
    tasks = list(rivals.answers)
    columns = [*tasks, ""] if len(tasks) > 1 else tasks
    rows = [
        (
            point_markdown(point),
            *(_over_folds([fit.temperatures[point, task] for fit in rivals.fits]) for task in columns),
        )
        for point in rivals.points
    ]
    daca = [[fit.daca[task] for fit in rivals.fits] for task in tasks]
    cells = [_over_folds([d.temperature for d in each if d is not None]) for each in daca]
    rows.append(("aligned + DACA", *cells, *([MISSING] if len(tasks) > 1 else [])))
    return markdown_table(("point", *map(code, tasks), *(["one T"] if len(tasks) > 1 else [])), rows)


def _over_folds(found: list[Temperature]) -> str:
    if not found:
        return MISSING
    star = "**" if not all(t.is_identified for t in found) else "*" if any(t.at_bound for t in found) else ""
    return decimals(sum(t.value for t in found) / len(found), 3) + star.replace("*", "\\*")


def _matrices(results: Results, headline: Headline) -> Iterator[str]:
    tasks = list(headline.rivals.answers)
    if not 1 < len(tasks) <= _MOST_TASKS:
        return
    for role, point in _carriers(results, headline):
        carried = headline.findings.carried(headline.confidence, point)
        rows = [(code(source), *(decimals(carried[source, target], 4) for target in tasks)) for source in tasks]
        yield f"### Carried, {role} ({point_markdown(point)})\n\n{_CARRIED}\n"
        yield markdown_table(("fitted on", *map(code, tasks)), rows)


def _carriers(results: Results, headline: Headline) -> Iterator[tuple[str, MergePoint]]:
    """The aligned model, and the selected merge where this method measured it."""
    landmarks = Landmarks.of(results)
    yield "aligned", headline.rivals.aligned
    if landmarks.recovers and landmarks.selected in headline.rivals.points and landmarks.selected is not None:
        yield "selected", landmarks.selected


def _facts(t: Temperature) -> tuple[float, bool, bool]:
    return t.value, t.at_bound, t.is_identified
