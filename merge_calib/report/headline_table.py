"""The headline table in report.md and tables/, and what it says of temperature scaling in a sentence."""

from collections.abc import Iterator

from merge_calib.answers import MEAN
from merge_calib.files import csv_text
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.splits import FEWEST
from merge_calib.report.cells import about_intervals, difference_text, estimate_text, tested_text
from merge_calib.report.headline import ESTIMATED, Headline, Measured, headline_of
from merge_calib.report.measures import BY_COLUMN, NLL, SCE2, Measure
from merge_calib.report.retained_cells import (
    ABOUT,
    COLUMNS,
    HEADINGS,
    has_retained,
    retained_cells,
    retained_of,
    retained_values,
)
from merge_calib.report.text import code, markdown_table
from merge_calib.results import WITH_FLOORS, Results
from merge_calib.rivals import tempered

_COLUMNS = ("accuracy", "sce", "ece", "nll", "brier", "sce2")
_COSTS = ("passes to use", "passes to tune", "labels")
_ABOUT = (
    "Raw and with a temperature (+ T) each. Temperatures, weights and the point were fitted on the same questions "
    "(`select`) and all are measured on the others. Costs are forward passes for each new question, and for each "
    "question that was tuned on; labels: whether tuning reads the right answers. Beside ECE and SCE: mean and 95th "
    "percentile of what a calibrated model with the same probabilities would measure, and p, how rare the value would "
    "be for such a model."
)


def headline_section(results: Results) -> str:
    """The section of report.md, by the confidence method that selects; nothing where there are no rivals."""
    headline = headline_of(results, results.confidences[0])
    if headline is None:
        return ""
    over = f"Means over {len(headline.rivals.answers)} tasks. " if len(headline.tasks) > 1 else ""
    files = "[tables/headline.md](tables/headline.md), [numbers](tables/headline.csv)"
    fitted = "[tables/temperatures.md](tables/temperatures.md)"
    parts = [
        "## Against temperature scaling and mixtures\n",
        f"{against_temperature(headline)}\n",
        f"{over}{_about(headline)}\n",
        headline_table(headline, MEAN),
        f"All tasks{' and confidence methods' if len(results.choice_methods) > 1 else ''}: {files}. Fitted "
        f"temperatures: {fitted}.\n",
    ]
    return "\n".join(parts)


def headline_table(headline: Headline, task: str) -> str:
    """Parents, selected merge and rivals, a row each."""
    results = headline.findings.results
    keeps = has_retained(results)
    bins = results.run.plan["bins"]
    rows = [_cells(results, measured, keeps=keeps) for measured in headline.measured(task)]
    labels = (m.heading(bins) if m.is_binned else m.label for m in map(BY_COLUMN.__getitem__, _COLUMNS))
    return markdown_table(("", *labels, *_COSTS, *(HEADINGS if keeps else ())), rows)


def headline_markdown(results: Results) -> str:
    """A table for each confidence method and task, the mean first."""
    parts = ["# Parents, selected merge and rivals\n"]
    for i, headline in enumerate(headlines(results)):
        if i == 0:
            parts.append(
                f"{_about(headline)} {about_intervals(results)}{f' {ABOUT}' if has_retained(results) else ''}\n"
            )
        parts.append(f"## Confidence method {code(headline.confidence)}\n")
        for task in reversed(headline.tasks):
            title = "Mean over tasks" if task == MEAN else code(task)
            parts += [f"### {title}\n", headline_table(headline, task)]
    return "\n".join(parts)


def headline_csv(results: Results) -> str:
    """A row for each confidence method, task and forecast."""
    intervals = [f"{m}{end}" for m in ESTIMATED for end in ("", "_low", "_high")]
    floors = [f"{m}{part}" for m in WITH_FLOORS for part in ("", "_floor", "_floor_95", "_p")]
    header = ("confidence", "task", "forecast", "name", *intervals, *floors)
    costs = ("passes_to_use", "passes_to_tune", "needs_labels")
    rows = (
        (headline.confidence, task, *_values(results, measured))
        for headline in headlines(results)
        for task in headline.tasks
        for measured in headline.measured(task)
    )
    return csv_text((*header, *costs, *COLUMNS), rows)


def headlines(results: Results) -> Iterator[Headline]:
    """The headline by every confidence method that has one."""
    for confidence in results.choice_methods:
        headline = headline_of(results, confidence)
        if headline is not None:
            yield headline


def against_temperature(headline: Headline) -> str:
    """Whether the selected merge has less NLL and less sce2 than the aligned model with a temperature."""
    if headline.selected is None:
        return (
            "No merge was selected that temperature scaling of the aligned model could be compared with; below stand "
            "the parents, with temperatures too, and their mixtures."
        )
    scaled = [f"{m.label} {text}" for m, text, _ in _compared(headline, tempered(headline.selected))]
    return (
        f"{raw_against_temperature(headline)} With a temperature of its own: {'; '.join(scaled)}. These are intervals, "
        "outside the family of claims."
    )


def raw_against_temperature(headline: Headline) -> str:
    """The same of the selected merge as it stands, in a sentence and what follows from it."""
    assert headline.selected is not None
    found = _compared(headline, headline.selected)
    signs = {sign for *_, sign in found}
    follows = {
        frozenset({1}): "By these intervals temperature scaling, which moves no weights, is ahead.",
        frozenset({-1}): "By these intervals the selected merge is ahead of temperature scaling.",
    }.get(frozenset(signs), "Neither is ahead on both.")
    if headline.joint().fewest < FEWEST:
        follows = f"With fewer than {FEWEST} judging questions neither can be called ahead."
    return (
        "Selected merge minus the aligned model with temperature scaling (aligned + T): "
        f"{'; '.join(f'{m.label} {text}' for m, text, _ in found)}. {follows}"
    )


def _compared(headline: Headline, name: str) -> list[tuple[Measure, str, int]]:
    """A forecast minus aligned + T: measure, difference in words, and its sign if any is told."""
    found = []
    for measure in (NLL, SCE2):
        difference = against_tempered(headline, name, measure)
        if difference is not None:
            sign = 1 if difference.low > 0 else -1 if difference.high < 0 else 0
            word = {1: "higher", -1: "lower", 0: "not told apart"}[sign]
            found.append((measure, f"{difference_text(measure, difference)}, {word}", sign))
    return found


def against_tempered(headline: Headline, name: str, measure: Measure) -> Estimate | None:
    """A forecast minus the aligned model with a temperature; None where the measure is not there."""
    joint = headline.joint()
    rival = tempered(headline.rivals.aligned.name)
    return joint.difference(measure.column, name, rival) if joint.has(measure.column) else None


def _about(headline: Headline) -> str:
    if headline.rivals.folds == 1:
        return _ABOUT
    return (
        f"{_ABOUT} Cross-fitted: each question is answered by what the other folds chose and fitted, and all of them "
        "are measured together."
    )


def _cells(results: Results, measured: Measured, *, keeps: bool) -> list[str]:
    cost = measured.forecast.cost
    cells = [measured.forecast.label]
    for column in _COLUMNS:
        measure = BY_COLUMN[column]
        if column in measured.floors:
            floor = measured.floors[column]
            cells.append(tested_text(measure, floor.observed, floor))
        else:
            cells.append(estimate_text(measure, measured.estimates.get(column)))
    cells += [f"{cost.to_use}", f"{cost.to_tune}", "yes" if cost.needs_labels else "no"]
    return [*cells, *(retained_cells(retained_of(results, measured.forecast.point)) if keeps else [])]


def _values(results: Results, measured: Measured) -> Iterator[object]:
    forecast = measured.forecast
    yield from (forecast.label, forecast.name)
    for column in ESTIMATED:
        estimate = measured.estimates.get(column)
        yield from (estimate.value, estimate.low, estimate.high) if estimate else (None,) * 3
    for column in WITH_FLOORS:
        floor = measured.floors[column]
        yield from (floor.observed, floor.mean, floor.p95, floor.p_value)
    yield from (forecast.cost.to_use, forecast.cost.to_tune, forecast.cost.needs_labels)
    yield from retained_values(retained_of(results, forecast.point))
