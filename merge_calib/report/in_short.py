"""The first lines of report.md: what alignment cost, what was selected, what is shown, where the numbers come from."""

from collections.abc import Iterator

from merge_calib.answers import MEAN
from merge_calib.findings import Findings, findings_of
from merge_calib.report.alignment_section import alignment_change
from merge_calib.report.cells import about_intervals, difference_text, floored_text, p_text
from merge_calib.report.claims_section import nothing_claimed
from merge_calib.report.headline import Headline, headline_of
from merge_calib.report.headline_table import raw_against_temperature
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import ACCURACY, BY_COLUMN, NLL, SCE
from merge_calib.report.place import point_markdown
from merge_calib.report.questions_text import split_text, too_few
from merge_calib.report.recovery_section import recovery_text
from merge_calib.report.selected_section import checkpoint_text
from merge_calib.report.text import code
from merge_calib.results import Result, Results


def in_short(results: Results, landmarks: Landmarks) -> str:
    """A few lines, each with the numbers it rests on."""
    findings = findings_of(results)
    lines = [*_alignment(results, landmarks), *_selected(results, landmarks), *_claimed(findings)]
    headline = headline_of(results, results.confidences[0])
    if headline is not None and headline.selected is not None:
        lines.append(raw_against_temperature(headline))
        recovered = [r for r in findings.recoveries(MEAN, headline.confidence) if r.measure in ("sce2", "nll")]
        each = ", ".join(f"{recovery_text(r)} of {BY_COLUMN[r.measure].label}" for r in recovered)
        where = checkpoint_text(results, landmarks.selected) if landmarks.selected else ""
        lines.append(f"Recovered of what alignment cost: {each}. {where}")
    lines.append(f"Where the numbers come from: {split_text(results)}.")
    lines += too_few(results)
    return "\n".join([*(f"- {line}" for line in lines), f"\n{about_intervals(results)}\n"])


def _alignment(results: Results, landmarks: Landmarks) -> Iterator[str]:
    confidence = results.confidences[0]
    base, aligned = (
        None if p is None else results.row(p, MEAN, confidence) for p in (landmarks.base, landmarks.aligned)
    )
    if base is not None and aligned is not None:
        count = len(results.tasks_of(confidence))
        over = f"means over {count} tasks, " if count > 1 else ""
        parts = ", ".join(_moved(results, landmarks, confidence, base, aligned))
        yield f"Alignment changed {parts}; {over}confidence method {code(confidence)}."


def _moved(results: Results, landmarks: Landmarks, confidence: str, base: Result, aligned: Result) -> Iterator[str]:
    """`accuracy from .. to .. (difference with its interval)`, SCE with its noise floors."""
    for measure in (ACCURACY, SCE, NLL):
        old, new = (
            floored_text(measure, measure.of(r.measurement), r.floors.get(measure.column)) for r in (base, aligned)
        )
        estimate = alignment_change(results, landmarks, confidence, measure)
        beside = f" ({difference_text(measure, estimate)})" if estimate else ""
        name = measure.label if measure is not ACCURACY else "accuracy"
        yield f"{name} from {old} to {new}{beside}"


def _selected(results: Results, landmarks: Landmarks) -> Iterator[str]:
    headline = headline_of(results, results.confidences[0])
    if landmarks.selected is None:
        yield f"Nothing could be selected: the aligned model lacks some tasks by {code(results.confidences[0])}."
    elif headline is None or headline.selected is None:
        only = "; no point but the parents was measured" if len(results.points) == 2 else ""
        yield f"The rule selects the aligned model itself; nothing was recovered{only}."
    else:
        which = point_markdown(landmarks.selected)
        who = "it" if headline.rivals.folds == 1 else "what the procedure gives"
        yield f"The rule selects {which}. From the aligned model to {who}: {', '.join(_gained(headline))}."


def _gained(headline: Headline) -> Iterator[str]:
    joint, aligned, selected = headline.joint(), headline.rivals.aligned.name, str(headline.selected)
    for measure in (ACCURACY, SCE, NLL):
        values = [joint.value(measure.column, name) for name in (aligned, selected)]
        if measure is SCE:
            old, new = (
                floored_text(measure, value, headline.floors(name)[measure.column])
                for name, value in zip((aligned, selected), values, strict=True)
            )
            yield f"SCE from {old} to {new}"
        else:
            difference = difference_text(measure, joint.difference(measure.column, selected, aligned))
            name = measure.label if measure is not ACCURACY else "accuracy"
            yield f"{name} from {measure.text(values[0])} to {measure.text(values[1])} ({difference})"


def _claimed(findings: Findings) -> Iterator[str]:
    """What holds over all tasks after the correction for the whole family, or that nothing does."""
    reason = nothing_claimed(findings)
    if reason:
        yield reason
        return
    of_mean = [claim for claim in findings.claims if claim.task == findings.tasks[-1]]
    held = [claim for claim in of_mean if claim.holds]
    if held:
        said = "; ".join(f"**{c.kind.words}** (p after Holm {p_text(c.p_holm)})" for c in held)
        yield f"Shown, {len(held)} of {len(of_mean)} claims: it is {said}."
    elif all(claim.p_value is None for claim in of_mean):
        yield f"Nothing is claimed: {of_mean[0].why_not}."
    else:
        size = ACCURACY.size_text(findings.detectable(findings.tasks[-1], "accuracy") or 0.0)
        yield (
            f"Not shown: none of the {len(of_mean)} claims about it holds. These questions would have shown a "
            f"difference in accuracy of {size} to the aligned model (two-sided 5 %, 80 % power, before the "
            "correction for several claims)."
        )
