"""How much of what alignment cost the selected merge takes back, beside the raw differences."""

from collections.abc import Iterator

from merge_calib.answers import MEAN
from merge_calib.files import csv_text
from merge_calib.findings import Findings
from merge_calib.inference.recovery import Recovery
from merge_calib.report.cells import difference_text
from merge_calib.report.headline import Headline, headline_of
from merge_calib.report.measures import BY_COLUMN
from merge_calib.report.text import MISSING, code, markdown_table, percent

_SQUARED = (
    "Recovery of a measure C is (C aligned - C selected) / (C aligned - C base): 0 is the aligned model, 100 % the "
    "base, and it is given only where the loss is above 0 by its own interval. Intervals by Fieller. sce2 and ece2 are "
    "squared errors: half the error is a quarter of them, so 75 % recovered of sce2 is half of its root."
)


def recovery_table(findings: Findings, task: str = MEAN) -> str:
    """The recovery of each measure by the confidence method that selects; nothing without a selected merge."""
    headline = _headline(findings)
    if headline is None:
        return ""
    joint = headline.joint(task)
    rows = []
    for found in _recoveries(headline, task):
        measure = BY_COLUMN[found.measure]
        gain = joint.difference(found.measure, str(headline.selected), headline.rivals.aligned.name)
        loss = joint.difference(found.measure, headline.rivals.aligned.name, headline.rivals.base.name)
        rows.append(
            (measure.label, difference_text(measure, loss), difference_text(measure, gain), recovery_text(found))
        )
    return markdown_table(("measure", "aligned - base", "selected - aligned", "recovery"), rows)


def recovery_section(findings: Findings) -> str:
    """The part of report.md: the table of the mean, and what recovery is."""
    table = recovery_table(findings)
    if not table:
        return ""
    each = "" if len(findings.tasks) == 1 else " Each task: [tables/recovery.md](tables/recovery.md)."
    return f"### Recovery\n\n{_SQUARED}{each}\n\n{table}"


def recovery_markdown(findings: Findings) -> str:
    """A table for each task, the mean first."""
    parts = ["# Recovery\n", f"{_SQUARED}\n"]
    for task in reversed(findings.tasks):
        title = "Mean over tasks" if task == MEAN else code(task)
        parts += [f"## {title}\n", recovery_table(findings, task)]
    return "\n".join(parts)


def recovery_csv(findings: Findings) -> str:
    """A row for each task and measure."""
    headline = _headline(findings)
    assert headline is not None
    header = ("task", "measure", "recovery", "recovery_low", "recovery_high")
    raw = [f"{what}{end}" for what in ("aligned_minus_base", "selected_minus_aligned") for end in ("", "_low", "_high")]
    rows = []
    for task in findings.tasks:
        joint = headline.joint(task)
        for found in _recoveries(headline, task):
            loss = joint.difference(found.measure, headline.rivals.aligned.name, headline.rivals.base.name)
            gain = joint.difference(found.measure, str(headline.selected), headline.rivals.aligned.name)
            differences = [value for d in (loss, gain) for value in (d.value, d.low, d.high)]
            rows.append((task, found.measure, found.value, found.low, found.high, *differences))
    return csv_text((*header, *raw), rows)


def recovery_text(found: Recovery) -> str:
    """`65.1% [59.2, 72.3]`; nothing where there is no loss to recover."""
    if found.value is None or found.low is None or found.high is None:
        return MISSING
    return f"{percent(found.value, 1)}% [{percent(found.low, 1)}, {percent(found.high, 1)}]"


def _headline(findings: Findings) -> Headline | None:
    headline = headline_of(findings.results, findings.confidence)
    return None if headline is None or headline.selected is None else headline


def _recoveries(headline: Headline, task: str) -> Iterator[Recovery]:
    assert headline.selected is not None
    yield from headline.findings.recoveries(task, headline.confidence, headline.selected)
