"""What the run recorded that a reader of its numbers must know."""

from merge_calib.report.landmarks import Landmarks, mean_of
from merge_calib.report.tables import task_text
from merge_calib.report.text import code, count_text, lambda_text
from merge_calib.results import MEAN, Results


def recorded(results: Results, landmarks: Landmarks) -> str:
    """The section of report.md on ties, truncated questions and whatever else weakens a number."""
    lines = [
        *_unmeasured(results),
        *_incomplete(results),
        *_ties(results, landmarks),
        *_counted(results, "truncated", "cut at the front because they are longer than the model's context"),
        *_counted(results, "encoded_apart", "whose context and continuation had to be encoded apart"),
    ]
    if results.run.plan.get("limit"):
        lines.append(f"Only the first {results.run.plan['limit']} questions of each task were asked (`--limit`).")
    lines = lines or ["No ties, no truncated questions, none encoded apart, no point without all of its tasks."]
    return "\n".join(["## What to know about these numbers\n", *(f"- {line}" for line in lines), ""])


def _unmeasured(results: Results) -> list[str]:
    """A run that was cut off: what is said of its points may change."""
    if not results.unmeasured:
        return []
    missing = count_text(results.unmeasured, "planned point")
    return [f"**This run is not finished: {missing} not measured yet.** The same command goes on from here."]


def _incomplete(results: Results) -> list[str]:
    """Points that lack tasks, named where they are few."""
    lines = []
    measured = sorted({row.point for row in results.rows})
    for confidence in results.confidences:
        names = [code(p.name) for p in measured if results.get(p, MEAN, confidence) is None]
        if names:
            listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            lines.append(
                f"Without all tasks by {code(confidence)}, and so without a mean and neither on the frontier nor to be "
                f"selected: {listed}."
            )
    return lines


def _ties(results: Results, landmarks: Landmarks) -> list[str]:
    """Ties decide accuracy by the order of the options, so they are said wherever there are any."""
    lines = []
    for confidence in results.confidences:
        rows = results.line(MEAN, confidence)
        most = max(rows, key=lambda row: row.measurement.ties, default=None)
        if most is None or most.measurement.ties == 0:
            continue
        selected = landmarks.selected if landmarks.recovers else None
        places = (("base", landmarks.base), ("selected", selected), ("aligned", landmarks.aligned))
        known = [(role, mean_of(results, point, confidence)) for role, point in places]
        each = ", ".join(f"{role} {m.ties:,}" for role, m in known if m is not None)
        lines.append(
            f"Exact ties at the top, where the first option counts as the prediction, by {code(confidence)}: {each}; "
            f"at most {most.measurement.ties:,} of {most.measurement.n:,} questions "
            f"(lambda = {lambda_text(most.point.lam)})."
        )
    return lines


def _counted(results: Results, key: str, what: str) -> list[str]:
    """What run.json counts per task and confidence method, where it is not 0."""
    lines = []
    for name, task in results.run.plan["tasks"].items():
        for confidence, count in (task.get(key) or {}).items():
            if count:
                lines.append(f"{task_text(name)} by {code(confidence)}: {count_text(count, 'prompt')} {what}.")
    return lines
