"""The selected point: by which rule, beside its parents, what it takes back and what it keeps."""

from merge_calib.answers import MEAN
from merge_calib.findings import findings_of
from merge_calib.merging.point import MergePoint
from merge_calib.report.alignment_section import SHOWN, first_cells, first_headings
from merge_calib.report.asked import is_imported
from merge_calib.report.cells import difference_text, estimate_text, floored_text
from merge_calib.report.headline import Headline
from merge_calib.report.headline_table import headlines
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import Measure
from merge_calib.report.place import point_markdown
from merge_calib.report.recovery_section import recovery_section
from merge_calib.report.retained_cells import retained_sentence
from merge_calib.report.text import code, count_text, markdown_table
from merge_calib.results import WITH_FLOORS, Results


def selected_section(results: Results, landmarks: Landmarks) -> str:
    """The section of report.md."""
    title = "## The selected point\n"
    if landmarks.selected is None:
        return f"{title}\nNothing could be selected: the aligned model has not been measured on all tasks yet.\n"
    rule = f"Rule, by {code(results.confidences[0])} on the split `{results.chosen_on}`: {results.selection.rule}."
    parts = [title, f"{rule}\n"]
    if landmarks.recovers:
        parts += [
            f"{_which(results, landmarks.selected)} {checkpoint_text(results, landmarks.selected)}\n",
            f"{retained_sentence(results, landmarks.selected)}\n",
        ]
    else:
        parts.append("The rule selects the aligned model itself; nothing was recovered.\n")
    table = _beside_parents(results)
    if table:
        parts += [f"{_measured_on(results)}\n", table, recovery_section(findings_of(results))]
    return "\n".join(parts)


def _which(results: Results, selected: MergePoint) -> str:
    tied = [code(name) for name in results.selection.tied]
    eligible = count_text(len(results.selection.eligible), "eligible point")
    said = f"It selects {code(selected.name)} ({point_markdown(selected)}) among {eligible}."
    return said + (f" It is tied with {', '.join(tied)}." if tied else "")


def checkpoint_text(results: Results, selected: MergePoint) -> str:
    """Where the checkpoint of the selected point is."""
    folder = f"checkpoints/{selected.name}"
    if (results.run.path / folder).is_dir():
        return f"Its checkpoint is {code(folder)}."
    if is_imported(results.run.plan):
        return ""
    return "Its checkpoint is not in this folder; the `merge-calib sweep` command of this run writes it."


def _measured_on(results: Results) -> str:
    """Where the numbers below come from, which for a procedure are not those of the point that was handed over."""
    if not results.analysis.cross_fit:
        return f"Measured on the split `{results.judged}`, which had no part in choosing:"
    return (
        "That point was chosen on all questions, and its own row in the tables rests on the same ones: it looks better "
        "there than it is. What was measured fairly, below as everywhere it is called selected in a comparison, is the "
        "procedure: each fold by the point that the other folds chose."
    )


def _beside_parents(results: Results) -> str:
    """Base, selected and aligned with their differences, by every confidence method that has a selected merge."""
    rows = []
    for headline in headlines(results):
        if headline.selected is not None:
            rows += [_row(results, headline, m) for m in SHOWN if headline.joint().has(m.column)]
    header = (*first_headings(results), "base", "selected", "aligned", "selected - base", "selected - aligned")
    return markdown_table(header, rows, names=len(header) - 5) if rows else ""


def _row(results: Results, headline: Headline, measure: Measure) -> tuple[str, ...]:
    joint = headline.joint(MEAN)
    base, aligned, selected = headline.rivals.base.name, headline.rivals.aligned.name, str(headline.selected)
    numbers = [value_text(headline, name, measure) for name in (base, selected, aligned)]
    differences = []
    for other in (base, aligned):
        if measure.column in WITH_FLOORS:
            value = joint.value(measure.column, selected) - joint.value(measure.column, other)
            differences.append(measure.difference_text(value))
        else:
            differences.append(difference_text(measure, joint.difference(measure.column, selected, other)))
    return (*first_cells(results, headline.confidence, measure), *numbers, *differences)


def value_text(headline: Headline, name: str, measure: Measure) -> str:
    """The mean of a forecast over tasks, with its interval or its noise floor."""
    joint = headline.joint(MEAN)
    if measure.column in WITH_FLOORS:
        return floored_text(measure, joint.value(measure.column, name), headline.floors(name)[measure.column])
    return estimate_text(measure, joint.estimate(measure.column, name))
