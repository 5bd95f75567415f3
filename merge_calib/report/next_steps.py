"""What to run next."""

from merge_calib.report.asked import is_imported
from merge_calib.report.families import LINEAR, Family
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.text import lambda_text
from merge_calib.results import Results


def next_section(results: Results, landmarks: Landmarks) -> str:
    """The section of report.md: how to get more, and how to load what was recovered."""
    if is_imported(results.run.plan):
        return (
            "## What to run next\n\nThe same command with more tasks and the same `--out` adds them; a sweep of the "
            "two models themselves (`merge-calib sweep`) measures what lies between them.\n"
        )
    text = (
        f"## What to run next\n\nThe same `merge-calib sweep` command with the same `--out` and "
        f"{more_points(results, landmarks)}, or with more tasks or confidence methods: only what is new is measured.\n"
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


def more_points(results: Results, landmarks: Landmarks) -> str:
    """How to get more points: a finer grid between the neighbours of the selected point, or more trials."""
    selected = landmarks.selected
    if results.run.plan["search"] != "grid":
        return {"optuna": "more `--trials`", "adaptive": "a smaller `--tolerance`"}[results.run.plan["search"]]
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
