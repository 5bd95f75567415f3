"""report.md: what to read first."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from merge_calib.calibration.noise_floor import Floor
from merge_calib.findings import findings_of
from merge_calib.merging.point import MergePoint
from merge_calib.report.alignment_section import alignment_section
from merge_calib.report.asked import asked_line, is_imported
from merge_calib.report.captions import figures_section
from merge_calib.report.certainty_section import certainty_section
from merge_calib.report.claims_section import claims_section
from merge_calib.report.families import LINEAR, Family, families_of, has_groups
from merge_calib.report.headline_table import headline_section
from merge_calib.report.in_short import in_short
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.letters import letters_section
from merge_calib.report.measures import Measure, applying
from merge_calib.report.next_steps import next_section
from merge_calib.report.questions_text import split_text
from merge_calib.report.recorded import recorded
from merge_calib.report.search_section import search_section
from merge_calib.report.selected_section import selected_section
from merge_calib.report.tables import (
    CHANGED,
    UNSTABLE,
    change,
    change_text,
    floor_of,
    shown_tasks,
    task_text,
    which_sce,
)
from merge_calib.report.text import MISSING, code, count_text, decimals, lambda_text, markdown_table, percent
from merge_calib.results import Results


def page(results: Results, landmarks: Landmarks, drawn: Collection[str]) -> str:
    """The whole of a sweep's report.md; `drawn` names the figures that exist."""
    sections = [
        f"# Calibration between {code(_short_names(results)[0])} and {code(_short_names(results)[1])}\n",
        in_short(results, landmarks),
        claims_section(findings_of(results)),
        headline_section(results),
        _compared(results),
        alignment_section(results, landmarks),
        selected_section(results, landmarks),
        search_section(results, landmarks),
        certainty_section(findings_of(results), landmarks),
        figures_section(results, landmarks, drawn),
        _change_rates(results, landmarks),
        letters_section(results, landmarks),
        recorded(results, landmarks),
        _conventions(results),
        next_section(results, landmarks),
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


def _compared(results: Results) -> str:
    plan = results.run.plan
    methods = ", ".join(code(c) for c in results.confidences)
    first = " (the first one selects)" if len(results.confidences) > 1 else ""
    dtype = plan.get("identity", {}).get("dtype", MISSING)
    computed = "" if is_imported(plan) else f"- computed in {dtype} on {plan['device']}\n"
    return (
        "## What was compared\n\n"
        f"- base (lambda = 0): {code(str(plan['base']))}\n"
        f"- aligned (lambda = 1): {code(str(plan['aligned']))}\n"
        f"- tasks: {asked_tasks(results)}\n"
        f"- confidence methods: {methods}{first}\n"
        f"{_asked(plan)}\n"
        f"- points: {len(results.points)}{_reach(results)}{_tried(results)}; {_methods(results)}, "
        f"search {code(str(plan['search']))}, seed {plan['seed']}\n"
        f"{computed}"
        f"- split: {split_text(results)}\n"
        f"{_pair_notes(plan.get('pair_notes', ()))}"
    )


def _asked(plan: Mapping[str, Any]) -> str:
    if is_imported(plan):
        return f"- read from {plan['identity']['source']}: no model ran here, and how both were asked is not known"
    return asked_line(plan.get("identity", {}))


def _reach(results: Results) -> str:
    """How far the lambdas go, and how many points have several of them."""
    merges = [point for point in results.points if isinstance(point, MergePoint)]
    lambdas = sorted(point.lam for point in merges if point.lam is not None)
    by_groups = len(merges) - len(lambdas)
    return (f", lambda from {lambda_text(lambdas[0])} to {lambda_text(lambdas[-1])}" if lambdas else "") + (
        f", {by_groups:,} of them with lambda by groups" if by_groups else ""
    )


def _tried(results: Results) -> str:
    """How many points a search asked the choosing questions alone, or a part of them."""
    more = len({row.point for row in results.explored} - {*results.points}) + len(results.stopped)
    return f", {more:,} more tried by the choosing questions" if more else ""


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


def _change_rates(results: Results, landmarks: Landmarks) -> str:
    bins = results.run.plan["bins"]
    parts = [
        "## Change rates, base to aligned\n",
        f"Each cell: base → aligned (change rate). {UNSTABLE} More decimals and the differences are in "
        "[tables/change_rates.md](tables/change_rates.md).\n",
    ]
    for confidence in results.confidences:
        rows = []
        measures = applying(CHANGED, confidence)
        for task in shown_tasks(results, confidence):
            cells = []
            for measure in measures:
                cells.append(_change_cell(results, landmarks, task, confidence, measure))
            rows.append((task_text(task), *cells))
        header = (code(confidence), *(m.heading(bins) for m in measures))
        parts.append(markdown_table(header, rows))
    return "\n".join([*parts, f"{which_sce(bins)}\n"])


def _change_cell(results: Results, landmarks: Landmarks, task: str, confidence: str, measure: Measure) -> str:
    """`0.025 (floor 0.019) → 0.136 (floor 0.012) (+438.9%)`."""
    c = change(results, landmarks, task, confidence, measure)
    sides = ((landmarks.base, c.base), (landmarks.aligned, c.aligned))
    base, aligned = (
        _cell(measure, value) + _floor(floor_of(results, point, task, confidence, measure)) for point, value in sides
    )
    return f"{base} → {aligned} ({change_text(c)})"


def _floor(floor: Floor | None) -> str:
    return "" if floor is None else f" (floor {decimals(floor.mean, 3)})"


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
        "- sce2 and ece2 are the debiased squared errors that tests and recovery are about; they may be below 0.\n"
        f"- All numbers are measured on the questions that judge ({results.judged}), unless another split is named; "
        "`results.csv` has all splits.\n"
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
