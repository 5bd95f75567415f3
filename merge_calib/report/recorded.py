"""What the run recorded that a reader of its numbers must know."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from merge_calib.answers import MEAN
from merge_calib.findings import findings_of
from merge_calib.inference.resampling import FEWEST_CLUSTERS
from merge_calib.merging.point import MergePoint
from merge_calib.merging.slerp import COLLINEAR
from merge_calib.points import Point
from merge_calib.report.landmarks import Landmarks, mean_of
from merge_calib.report.model_tables import model_name
from merge_calib.report.place import point_markdown
from merge_calib.report.questions_text import too_few
from merge_calib.report.tables import task_text
from merge_calib.report.text import code, count_text, percent
from merge_calib.results import Results

_PATHS = {
    "varlen": "packed rows with `varlen` attention, each token read once",
    "blocks": "packed rows with `blocks` attention, each token read once",
    "rows": "padded `rows`",
}
_MOST_LISTED = 12
_FALLEN_BACK = (
    "All others were merged linearly: in both parents they have all but the same direction "
    f"(|cos| > {COLLINEAR:g}), or none."
)
_SLERPED = {"slerped_tensors", "tensors", "slerped_parameters", "parameters"}  # what slerp says of a merge


def recorded(results: Results, landmarks: Landmarks) -> str:
    """The section of report.md on ties, truncated questions and whatever else weakens a number."""
    lines = [
        *_unmeasured(results),
        *_failed(results),
        *_incomplete(results),
        *_too_few(results),
        *_clusters(results),
        *_ties(results, landmarks),
        *_counted(results, "truncated", "cut at the front because they are longer than the model's context"),
        *_counted(results, "encoded_apart", "whose context and continuation had to be encoded apart"),
        *_imported(results),
        *_limited(results),
    ]
    told = "" if _is_imported(results) else "no truncated questions, none encoded apart, "
    lines = lines or [f"No ties, {told}no point without all of its tasks."]
    lines += [
        *_judged_before(results),
        *_without_subjects(results),
        *_untold(results),
        *_unlike_prompts(results),
        *_slerped(results),
        *_attention(results),
    ]
    return "\n".join(["## What to know about these numbers\n", *(f"- {line}" for line in lines), ""])


def truncated_prompts(results: Results) -> dict[str, int]:
    """How many prompts of each model (of both parents in a sweep) lost text, each once for all confidence methods."""
    most: dict[tuple[str, str], int] = {}
    for label, task, _, count in _counts(results, "truncated"):
        most[label, task] = max(count, most.get((label, task), 0))
    sums: dict[str, int] = {}
    for (label, _), count in most.items():
        sums[label] = sums.get(label, 0) + count
    return sums


def _unmeasured(results: Results) -> list[str]:
    """A run that was cut off: what is said of its points may change."""
    if results.run.search is not None and not results.run.search.get("done", True):
        return ["**This run is not finished: its search was cut off.** The same command goes on from here."]
    if not results.unmeasured:
        return []
    missing = count_text(results.unmeasured, "planned point")
    return [f"**This run is not finished: {missing} not measured yet.** The same command goes on from here."]


def _failed(results: Results) -> list[str]:
    return [f"{code(name)} failed and is left out: {reason}." for name, reason in results.failed.items()]


def _incomplete(results: Results) -> list[str]:
    """Points that lack tasks, named where they are few."""
    lines = []
    for confidence in results.confidences:
        names = [code(model_name(p)) for p in results.points if results.get(p, MEAN, confidence) is None]
        if names:
            listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            what = "and so without a mean and neither on the frontier nor to be selected"
            if not results.is_sweep or confidence not in results.choice_methods:
                what = "and so without a mean"
            lines.append(f"Without all tasks by {code(confidence)}, {what}: {listed}.")
    return lines


def _too_few(results: Results) -> list[str]:
    """Tasks with few questions, where no section on claims tells of them."""
    return [] if results.is_sweep and findings_of(results).claims else too_few(results)


def _clusters(results: Results) -> list[str]:
    """Tasks whose bootstrap could not draw whole subjects although that was asked for."""
    if results.analysis.cluster != "subject":
        return []
    divisions = {answers.division.task: answers.division for answers in results.answers.values()}
    unclustered = [code(task) for task, division in divisions.items() if not division.is_clustered]
    if not unclustered:
        return ["Intervals are of whole subjects drawn at random (`--cluster subject`)."]
    names = ", ".join(unclustered[:_MOST_LISTED])
    more = f" and {len(unclustered) - _MOST_LISTED} more" if len(unclustered) > _MOST_LISTED else ""
    return [
        f"`--cluster subject` was asked for, but {names}{more} had fewer than {FEWEST_CLUSTERS} subjects, too few to "
        "tell how they differ: there questions were drawn within subjects."
    ]


def _ties(results: Results, landmarks: Landmarks) -> list[str]:
    """Ties decide accuracy by the order of the options, so they are said wherever there are any."""
    lines = []
    for confidence in results.confidences:
        rows = results.line(MEAN, confidence)
        most = max(rows, key=lambda row: row.measurement.ties or 0, default=None)
        if most is None or not most.measurement.ties:
            continue
        selected = landmarks.selected if landmarks.recovers else None
        places = (("base", landmarks.base), ("selected", selected), ("aligned", landmarks.aligned))
        known = [(role, mean_of(results, point, confidence)) for role, point in places]
        each = "".join(f"{role} {m.ties:,}, " for role, m in known if m is not None).removesuffix(", ")
        lines.append(
            f"Exact ties at the top, where the first option counts as the prediction, by {code(confidence)}: "
            f"{each}{'; ' if each else ''}at most {most.measurement.ties:,} of {most.measurement.n:,} questions "
            f"({_where(most.point)})."
        )
    return lines


def _counted(results: Results, key: str, what: str) -> list[str]:
    """What run.json counts per task and confidence method, where it is not 0."""
    lines = []
    for label, task, confidence, count in _counts(results, key):
        if count:
            asked = f"{code(label)}, " if label else ""
            lines.append(f"{asked}{task_text(task)} by {code(confidence)}: {count_text(count, 'prompt')} {what}.")
    return _few(lines)


def _counts(results: Results, key: str) -> Iterator[tuple[str, str, str, int]]:
    """Label (none in a sweep), task, confidence method and count."""
    plan = results.run.plan
    holders = [("", plan["tasks"])] if results.is_sweep else [(m["label"], m["tasks"]) for m in plan["models"]]
    for label, tasks in holders:
        for name, task in tasks.items():
            for confidence, count in (task.get(key) or {}).items():
                yield label, name, confidence, count


def _imported(results: Results) -> list[str]:
    """What was left out of samples that were read, and what else their reader noticed."""
    lines = []
    for model in results.run.plan.get("models", ()):
        for name, task in model["tasks"].items():
            for confidence, file in task.get("files", {}).items():
                skipped = [f"{count:,} left out: {why}" for why, count in task["skipped"][confidence].items()]
                said = "; ".join([*skipped, *task["notes"][confidence]])
                if said:
                    place = f"{code(model['label'])}, {task_text(name)} by {code(confidence)}"
                    lines.append(f"{place} ({code(file)}): {said}.")
    return _few(lines)


def _is_imported(results: Results) -> bool:
    return bool(results.run.plan.get("identity", {}).get("source") == "lm-eval samples")


def _untold(results: Results) -> list[str]:
    if not _is_imported(results):
        return []
    return ["lm-eval's samples do not tell which questions were truncated or encoded apart."]


def _unlike_prompts(results: Results) -> list[str]:
    """A sweep whose base was asked in other words than the points that it is compared with."""
    if not results.is_sweep or results.run.plan.get("identity", {}).get("apply_chat_template") != "aligned":
        return []
    return [
        "The base was asked plainly and all other points through the chat template: differences from lambda = 0 "
        "include that change of prompt."
    ]


def _limited(results: Results) -> list[str]:
    plan = results.run.plan
    limit, seed = plan.get("limit"), plan.get("limit_seed")
    if not limit:
        return []
    if seed is None:
        return [f"Only the first {limit} questions of each task were asked (`--limit`)."]
    return [f"Only {limit} questions of each task were asked, drawn at random (`--limit`, `--limit-seed {seed}`)."]


def _without_subjects(results: Results) -> list[str]:
    """Tasks whose questions the run does not keep: it was made by an earlier version, or the files were deleted."""
    if not results.is_sweep:
        return []
    tasks = [task_text(task) for task in results.tasks if results.run.asked(task) is None]
    if not tasks:
        return []
    return [
        f"No questions are kept for {', '.join(tasks)} (`questions/`), so subjects are not known there: they were "
        "divided and drawn as if there were none. The sweep's command writes the files again."
    ]


def _judged_before(results: Results) -> list[str]:
    """How often the judging questions were looked at in another way: one of several looks holds by chance sooner."""
    ways = results.run.plan.get("judged_before", ())
    if not ways:
        return []
    now = results.analysis.record()
    differing = sorted({key.replace("_", "-") for way in ways for key in way if way[key] != now.get(key)})
    flags = ", ".join(f"`--{key}`" for key in differing)
    return [
        f"**This run was judged in {len(ways) + 1} ways** (they differ in {flags}; "
        "`run.json` lists them). The correction for many claims knows of one: a claim that holds in one way of "
        "several is weaker than it looks."
    ]


def _slerped(results: Results) -> list[str]:
    """How much of the weights `slerp` truly turned; the rest is what `linear` gives."""
    points = [point for point in results.points if isinstance(point, MergePoint) and point.method == "slerp"]
    found = Counter(_turned(facts) for facts in map(results.run.merge_facts, points) if facts.keys() >= _SLERPED)
    lines = []
    for turned, count in found.items():
        of = f"In {count} of {len(points)} `slerp` points" if count < len(points) else "By `slerp`"
        lines.append(f"{of} {turned} were truly rotated. {_FALLEN_BACK}")
    return _few(lines)


def _turned(facts: Mapping[str, Any]) -> str:
    """`3 of 30 tensors (10.0%) and 100 of 1,000 parameters (10.0%)`."""
    return " and ".join(
        f"{facts[f'slerped_{noun}']:,} of {count_text(facts[noun], noun[:-1])} "
        f"({percent(facts[f'slerped_{noun}'] / facts[noun], 1)}%)"
        for noun in ("tensors", "parameters")
    )


def _attention(results: Results) -> list[str]:
    """How the models were made to read, from the records of all points."""
    entries = [
        entry
        for point in results.run.points()
        for task in results.run.facts(point).values()
        for entry in task.values()
        if "attention" in entry
    ]
    if not entries:
        return []
    paths = [text for path, text in _PATHS.items() if path in {entry["attention"] for entry in entries}]
    sizes = sorted({entry["batch_tokens"] for entry in entries})
    most = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    return [f"Read as {' and '.join(paths)}; up to {most} tokens in one pass."]


def _few(lines: list[str]) -> list[str]:
    if len(lines) <= _MOST_LISTED:
        return lines
    return [*lines[:_MOST_LISTED], f"{len(lines) - _MOST_LISTED} more of this kind are in `run.json`."]


def _where(point: Point) -> str:
    return point_markdown(point) if isinstance(point, MergePoint) else code(model_name(point))
