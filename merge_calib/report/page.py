"""report.md: what to read first."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from merge_calib.calibration.measurement import Measurement
from merge_calib.merging.point import MergePoint
from merge_calib.report.asked import asked_line
from merge_calib.report.captions import figures_section
from merge_calib.report.families import LINEAR, Family, families_of, has_groups
from merge_calib.report.landmarks import Landmarks, mean_of
from merge_calib.report.letters import letters_section
from merge_calib.report.measures import (
    ACCURACY,
    BRIER,
    ECE,
    LETTER_BIAS,
    LETTER_MASS,
    MEAN_CONFIDENCE,
    NLL,
    SCE,
    SCE_AGREEMENT,
    Measure,
    applying,
)
from merge_calib.report.place import point_markdown
from merge_calib.report.recorded import recorded
from merge_calib.report.standing import FACTS, Standing, standing
from merge_calib.report.tables import CHANGED, change, over_text, shown_tasks, task_text, which_sce
from merge_calib.report.text import (
    MISSING,
    code,
    count_text,
    decimals,
    lambda_text,
    markdown_table,
    percent,
    rate_text,
)
from merge_calib.results import MEAN, Results

SAME_QUESTIONS = (
    "These are point estimates on the same questions that were used for choosing the point, and no intervals are "
    "given yet: a point chosen as the best of many looks better on these questions than it will on new ones (the "
    "winner's curse), so nothing here is an established claim."
)
_HEADLINE = (ACCURACY, SCE, ECE, NLL)
_BESIDE = (ACCURACY, SCE, SCE_AGREEMENT, ECE, NLL, BRIER, MEAN_CONFIDENCE, LETTER_MASS, LETTER_BIAS)


def page(results: Results, landmarks: Landmarks, drawn: Collection[str]) -> str:
    """The whole of a sweep's report.md; `drawn` names the figures that exist."""
    sections = [
        f"# Calibration between {code(_short_names(results)[0])} and {code(_short_names(results)[1])}\n",
        _in_short(results, landmarks),
        _compared(results),
        _alignment(results, landmarks),
        _selected(results, landmarks),
        figures_section(results, landmarks, drawn),
        _change_rates(results, landmarks),
        letters_section(results, landmarks),
        recorded(results, landmarks),
        _conventions(results),
        _next(results, landmarks),
    ]
    return "\n".join(section for section in sections if section)


def _short_names(results: Results) -> tuple[str, str]:
    """The last part of each parent's name, or all of it where that would say the same twice."""
    base, aligned = str(results.run.plan["base"]), str(results.run.plan["aligned"])
    short = _short_name(base), _short_name(aligned)
    return (base, aligned) if short[0] == short[1] else short


def _short_name(model: str) -> str:
    """The last part of a path; of a model and an adapter, as `A + B`, that of each."""
    return " + ".join(PurePath(part).name or part for part in model.split(" + "))


def _in_short(results: Results, landmarks: Landmarks) -> str:
    confidence = results.confidences[0]
    base, aligned, selected = (
        mean_of(results, point, confidence) for point in (landmarks.base, landmarks.aligned, landmarks.selected)
    )
    count = len(results.tasks_of(confidence))
    over = f"means over {count} tasks, " if count > 1 else ""
    lines = []
    if base and aligned:
        lines.append(f"- Alignment changed {_moved(base, aligned)}; {over}confidence method {code(confidence)}.")
    if selected is None or landmarks.selected is None:
        lines.append(f"- Nothing could be selected: the aligned model lacks some tasks by {code(confidence)}.")
    elif not landmarks.recovers:
        lines.append("- The rule selects the aligned model itself; nothing was recovered.")
    elif aligned:
        which = point_markdown(landmarks.selected)
        lines.append(f"- The rule selects {which}. From the aligned model to it: {_moved(aligned, selected)}.")
    return "\n".join([*lines, f"\n{SAME_QUESTIONS}\n"])


def _moved(before: Measurement, after: Measurement) -> str:
    """`accuracy from .. to .. (difference), SCE from .. to .. (difference)`."""
    parts = []
    for measure in (ACCURACY, SCE):
        old, new = measure.of(before), measure.of(after)
        assert old is not None
        assert new is not None
        name = measure.label if measure.is_binned else measure.label.lower()
        parts.append(f"{name} from {measure.text(old)} to {measure.text(new)} ({measure.difference_text(new - old)})")
    return ", ".join(parts)


def _compared(results: Results) -> str:
    plan = results.run.plan
    methods = ", ".join(code(c) for c in results.confidences)
    first = " (the first one selects)" if len(results.confidences) > 1 else ""
    computed = plan.get("identity", {}).get("dtype", MISSING)
    return (
        "## What was compared\n\n"
        f"- base (lambda = 0): {code(str(plan['base']))}\n"
        f"- aligned (lambda = 1): {code(str(plan['aligned']))}\n"
        f"- tasks: {asked_tasks(results)}\n"
        f"- confidence methods: {methods}{first}\n"
        f"{asked_line(plan.get('identity', {}))}\n"
        f"- points: {len(results.points)}{_reach(results)}; {_methods(results)}, search {code(str(plan['search']))}, "
        f"seed {plan['seed']}\n"
        f"- computed in {computed} on {plan['device']}\n"
        f"{_pair_notes(plan.get('pair_notes', ()))}"
    )


def _reach(results: Results) -> str:
    """How far the lambdas go, and how many points have several of them."""
    merges = [point for point in results.points if isinstance(point, MergePoint)]
    lambdas = sorted(point.lam for point in merges if point.lam is not None)
    by_groups = len(merges) - len(lambdas)
    return (f", lambda from {lambda_text(lambdas[0])} to {lambda_text(lambdas[-1])}" if lambdas else "") + (
        f", {by_groups:,} of them with lambda by groups" if by_groups else ""
    )


def _methods(results: Results) -> str:
    """The methods of all points; where only the parents were measured, the method that was asked for."""
    plan = results.run.plan
    families = families_of(results.points)
    if all(isinstance(point, MergePoint) and (point.is_base or point.is_aligned) for point in results.points):
        families = (Family(str(plan["method"]), tuple(plan.get("options", {}).items())),)
    return f"method{'s' if len(families) > 1 else ''} {', '.join(family.markdown for family in families)}"


def _pair_notes(notes: Sequence[str]) -> str:
    """How the parents were matched, where there is more to say than that they fit."""
    return "".join(["\nHow the parents were matched:\n\n", *(f"- {note}\n" for note in notes)]) if notes else ""


def asked_tasks(results: Results) -> str:
    """The tasks and how much of each was asked, in a line."""
    tasks = results.run.plan["tasks"].items()
    return ", ".join(f"{task_text(name)} ({count_text(task['n'], _noun(task))})" for name, task in tasks)


def _noun(task: Mapping[str, Any]) -> str:
    return "text" if task.get("kind") == "next-token" else "question"


def _alignment(results: Results, landmarks: Landmarks) -> str:
    rows = []
    for confidence in results.confidences:
        for measure in applying(_HEADLINE, confidence):
            c = change(results, landmarks, MEAN, confidence, measure)
            numbers = (measure.text(c.base), measure.text(c.aligned), measure.difference_text(c.difference))
            rows.append((*_first_cells(results, confidence, measure), *numbers, rate_text(c.rate)))
    header = (*_first_headings(results), "base", "aligned", "difference", "change rate")
    table = markdown_table(header, rows, names=len(header) - 4)
    return f"## What alignment did\n\n{over_text(results)}\n\n{table}"


def _first_headings(results: Results) -> tuple[str, ...]:
    return ("confidence", "measure") if len(results.confidences) > 1 else ("measure",)


def _first_cells(results: Results, confidence: str, measure: Measure) -> tuple[str, ...]:
    bins = results.run.plan["bins"]
    label = measure.heading(bins) if measure.is_binned else measure.label
    return (code(confidence), label) if len(results.confidences) > 1 else (label,)


def _selected(results: Results, landmarks: Landmarks) -> str:
    title = "## The selected point\n"
    if landmarks.selected is None:
        return f"{title}\nNothing could be selected: the aligned model has not been measured on all tasks yet.\n"
    rule = f"Rule, by {code(results.confidences[0])}: {results.selection.rule}."
    if not landmarks.recovers:
        said = "The rule selects the aligned model itself; nothing was recovered."
        return f"{title}\n{rule}\n\n{said}\n\n{SAME_QUESTIONS}\n"
    tied = [code(name) for name in results.selection.tied]
    parts = [
        title,
        f"{rule}\n",
        f"It selects {code(landmarks.selected.name)} ({point_markdown(landmarks.selected)}) among "
        f"{count_text(len(results.selection.eligible), 'point')} that keep the accuracy."
        + (f" It is tied with {', '.join(tied)} on SCE." if tied else "")
        + f" {_checkpoint(results, landmarks.selected)}\n",
        _beside_parents(results, landmarks, landmarks.selected),
        "On these questions, by mean accuracy and mean SCE:\n",
        _standing_table(results, landmarks, landmarks.selected),
        f"{SAME_QUESTIONS}\n",
    ]
    return "\n".join(parts)


def _standing_table(results: Results, landmarks: Landmarks, selected: MergePoint) -> str:
    """Four separate facts, a row each, a column for each confidence method."""
    columns = [standing(results, landmarks, selected, confidence) for confidence in results.choice_methods]
    answer = {True: "yes", False: "no", None: MISSING}
    rows = [
        (FACTS[field.name], *(answer[getattr(column, field.name)] for column in columns)) for field in fields(Standing)
    ]
    return markdown_table(("the selected point is", *map(code, results.choice_methods)), rows)


def _checkpoint(results: Results, selected: MergePoint) -> str:
    folder = f"checkpoints/{selected.name}"
    if (results.run.path / folder).is_dir():
        return f"Its checkpoint is {code(folder)}."
    return "Its checkpoint is not in this folder; the same `merge-calib sweep` command writes it."


def _beside_parents(results: Results, landmarks: Landmarks, selected: MergePoint) -> str:
    rows = []
    for confidence in results.confidences:
        trio = [mean_of(results, p, confidence) for p in (landmarks.base, selected, landmarks.aligned)]
        for measure in applying(_BESIDE if confidence == results.confidences[0] else _HEADLINE, confidence):
            base, chosen, aligned = (measure.of(m) for m in trio)
            numbers = (measure.text(base), measure.text(chosen), measure.text(aligned))
            differences = (_difference(measure, chosen, base), _difference(measure, chosen, aligned))
            rows.append((*_first_cells(results, confidence, measure), *numbers, *differences))
    header = (*_first_headings(results), "base", "selected", "aligned", "selected - base", "selected - aligned")
    return markdown_table(header, rows, names=len(header) - 5)


def _difference(measure: Measure, value: float | None, other: float | None) -> str:
    return measure.difference_text(None if value is None or other is None else value - other)


def _change_rates(results: Results, landmarks: Landmarks) -> str:
    bins = results.run.plan["bins"]
    parts = [
        "## Change rates, base to aligned\n",
        "Each cell: base → aligned (change rate). More decimals and the differences are in "
        "[tables/change_rates.md](tables/change_rates.md).\n",
    ]
    for confidence in results.confidences:
        rows = []
        measures = applying(CHANGED, confidence)
        for task in shown_tasks(results, confidence):
            cells = []
            for measure in measures:
                c = change(results, landmarks, task, confidence, measure)
                cells.append(f"{_cell(measure, c.base)} → {_cell(measure, c.aligned)} ({rate_text(c.rate)})")
            rows.append((task_text(task), *cells))
        header = (code(confidence), *(m.heading(bins) for m in measures))
        parts.append(markdown_table(header, rows))
    return "\n".join([*parts, f"{which_sce(bins)}\n"])


def _cell(measure: Measure, value: float | None) -> str:
    if value is None:
        return MISSING
    return percent(value, 1) if measure.is_share else decimals(value, 3)


def _conventions(results: Results) -> str:
    bins = results.run.plan["bins"]
    return (
        "## Conventions\n\n"
        "- lambda = 0 is the base, lambda = 1 the aligned model, more than 1 amplifies the alignment.\n"
        f"{_other_methods(results)}"
        "- There are two SCEs: `sce` (Nixon et al. 2019) is the one on the frontier, `sce_agreement` (Oh & Hwang 2024) "
        "is another quantity, which grows with confidence. Lower is better for both and for ECE, NLL and Brier.\n"
        f"- M = {bins} bins; `results.csv` also holds ECE and SCE with M = 15.\n"
        "- Means are macro averages: every task has the same weight.\n"
        "- Differences are later minus earlier; a change rate is (aligned - base) / base x 100.\n"
        "- All numbers are derived from `scores/`; `merge-calib report` makes this page anew.\n"
    )


def _other_methods(results: Results) -> str:
    """What lambda means to a point that is not linear with one lambda."""
    families = families_of(results.points)
    others = [code(method) for method in dict.fromkeys(f.method for f in families if not f.gives_aligned)]
    lines = []
    if families != (Family(LINEAR),):
        lines.append(f"- A point of which no method is said is of {code(LINEAR)}, or a parent.\n")
    if others:
        lines.append(f"- By {', '.join(others)} lambda = 1 is another model than the aligned one.\n")
    if has_groups(results):
        lines.append("- Lambda by groups: each group of tensors has a lambda of its own.\n")
    return "".join(lines)


def _next(results: Results, landmarks: Landmarks) -> str:
    text = (
        f"## What to run next\n\nThe same `merge-calib sweep` command with the same `--out` and "
        f"{_more(results, landmarks)}, or with more tasks or confidence methods: only what is new is measured.\n"
    )
    if landmarks.selected is None or not landmarks.recovers:
        return text
    folder = f"checkpoints/{landmarks.selected.name}"
    if not (results.run.path / folder).is_dir():
        return text
    return text + (
        "\nThe recovered checkpoint loads as any other, from this folder:\n\n"
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{folder}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n'
        "```\n"
    )


def _more(results: Results, landmarks: Landmarks) -> str:
    """How to get more points: a finer grid between the neighbours of the selected point, or more trials."""
    selected = landmarks.selected
    if results.run.plan["search"] == "optuna":
        return "more `--trials`"
    asked_groups = any("groups" in point for point in results.run.plan.get("points") or ())
    if selected is None or selected.lam is None or asked_groups:
        return "more `--lambdas`"
    family = Family.of(selected)
    points = [results.point(c.name) for c in results.candidates(results.confidences[0])]
    lambdas = sorted({p.lam for p in points if p.lam is not None and family.is_on_line(p)})
    i = lambdas.index(selected.lam)
    low, high = lambdas[max(i - 1, 0)], lambdas[min(i + 1, len(lambdas) - 1)]
    if high <= low:
        return "more `--lambdas`"
    method = _method_flags(family)
    return (
        f"more lambdas, for example `{method}--lambdas {lambda_text(low)}:{lambda_text(high)}:{(high - low) / 10:.2g}`"
    )


def _method_flags(family: Family) -> str:
    """The flags that ask for a method and its options, where it is not the default one."""
    if family == Family(LINEAR):
        return ""
    options = "".join(f"--{name.replace('_', '-')} {value:.10g} " for name, value in family.options)
    return f"--method {family.method} {options}"
