"""report.md of an evaluation: what to read first."""

from collections.abc import Collection, Sequence

from merge_calib.answers import MEAN
from merge_calib.points import AxisPoint
from merge_calib.report.asked import asked_line
from merge_calib.report.captions import figures_section
from merge_calib.report.cells import about_intervals, row_text
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.letters import letters_section
from merge_calib.report.measures import (
    ACCURACY,
    ECE,
    LETTER_BIAS,
    LETTER_MASS,
    MEAN_CONFIDENCE,
    NLL,
    SCE,
    Measure,
    applying,
)
from merge_calib.report.model_tables import model_name, model_table, tables_of
from merge_calib.report.page import asked_tasks
from merge_calib.report.recorded import recorded
from merge_calib.report.tables import about_measures, over_text
from merge_calib.report.text import MISSING, code, count_text, markdown_table, number_text
from merge_calib.results import Result, Results

MOST_TABLES = 12  # more tasks than this have their tables in tables/ only
_COLUMNS = (ACCURACY, ECE, SCE, NLL, MEAN_CONFIDENCE, LETTER_MASS, LETTER_BIAS)


def evaluation_page(results: Results, landmarks: Landmarks, drawn: Collection[str]) -> str:
    """The whole of an evaluation's report.md; `drawn` names the figures that exist."""
    count = count_text(len(results.run.plan["models"]), "model")
    axis = str(results.run.plan["axis"])
    title = f"# Calibration of {count}\n" if axis == "model" else f"# Calibration along {axis}: {count}\n"
    sections = [
        title,
        _in_short(results),
        _compared(results),
        _measures(results),
        figures_section(results, landmarks, drawn),
        letters_section(results, landmarks),
        recorded(results, landmarks),
        _conventions(results),
        _next(results),
    ]
    return "\n".join(section for section in sections if section)


def _in_short(results: Results) -> str:
    """The range of accuracy and ECE by each confidence method, and the models at its ends."""
    lines = []
    for confidence in results.confidences:
        rows = results.line(MEAN, confidence)
        if not rows:
            lines.append(f"- By {code(confidence)} no model has all tasks yet.")
            continue
        accuracy = _range(results, rows, ACCURACY)
        ece = _range(results, rows, ECE)
        lines.append(f"- By {code(confidence)}: accuracy {accuracy}; ECE {ece}.")
    about = (
        f"{over_text(results)} {about_intervals(results)} Nothing was chosen, so all questions count; that one model "
        "is ahead of another here is no tested claim."
    )
    return "\n".join([*lines, f"\n{about}\n"])


def _range(results: Results, rows: Sequence[Result], measure: Measure) -> str:
    def text(row: Result) -> str:
        return f"{row_text(results, row, measure)} ({code(model_name(row.point))})"

    ordered = sorted(rows, key=lambda row: measure.of(row.measurement) or 0.0)
    if len(rows) == 1:
        return row_text(results, rows[0], measure)
    return f"lowest {text(ordered[0])}, highest {text(ordered[-1])}"


def _compared(results: Results) -> str:
    plan = results.run.plan
    lines = [
        f"- tasks: {asked_tasks(results)}",
        f"- confidence methods: {', '.join(map(code, results.confidences))}",
        *_how(results),
    ]
    rows = [
        (
            code(model["label"]),
            code(model["model"]),
            *([] if model["position"] is None else [number_text(model["position"])]),
            f"{model['parameters']:,}" if "parameters" in model else MISSING,
        )
        for model in plan["models"]
    ]
    axis = [] if plan["models"][0]["position"] is None else [str(plan["axis"])]
    table = markdown_table(("label", "model", *axis, "parameters"), rows, names=2)
    return "\n".join(["## What was compared\n", *lines, f"\n{table}"])


def _how(results: Results) -> list[str]:
    """How the models were asked, or that they were not."""
    plan = results.run.plan
    identity = plan["identity"]
    if identity["source"] != "models":
        return ["- read from lm-eval's logged samples: no model ran here"]
    computed = f"- read by each model's own tokenizer, computed in {identity['dtype']} on {plan['device']}"
    return [asked_line(identity), computed]


def _measures(results: Results) -> str:
    parts = ["## The measures\n", f"{about_measures(results)}\n"]
    for confidence in results.confidences:
        tasks = tables_of(results, confidence)
        for task in tasks if len(tasks) <= MOST_TABLES else tasks[:1]:
            of = "mean over tasks" if task == MEAN else code(task)
            table = model_table(results, task, confidence, applying(_COLUMNS, confidence))
            parts += [f"### {code(confidence)}: {of}\n", table]
    files = "All measures of all tasks: [tables/models.md](tables/models.md); "
    more = "what else was measured: [tables/more_measures.md](tables/more_measures.md).\n"
    return "\n".join([*parts, files + more])


def _conventions(results: Results) -> str:
    bins = results.run.plan["bins"]
    lower = "ECE, SCE, NLL and Brier" if results.choice_methods else "ECE and NLL"
    has_positions = any(isinstance(p, AxisPoint) and p.position is not None for p in results.points)
    order = "in the order of their positions" if has_positions else "in the order in which they were given"
    return (
        "## Conventions\n\n"
        f"- Models stand {order}.\n"
        f"- M = {bins} bins; `results.csv` also holds M = 15. Lower is better for {lower}.\n"
        "- Means are macro averages: every task that a confidence method applies to has the same weight.\n"
        "- All numbers are derived from `scores/`; `merge-calib report` makes this page anew.\n"
    )


def _next(results: Results) -> str:
    if results.run.plan["identity"]["source"] != "models":
        return "## What to run next\n\nThe same command with more samples and the same `--out` adds them.\n"
    return (
        "## What to run next\n\nThe same `merge-calib evaluate` command with the same `--out` and more models, "
        "tasks or confidence methods: only what is new is measured.\n"
    )
