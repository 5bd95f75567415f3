"""The figures in report.md, each with what it shows."""

from collections.abc import Collection

from merge_calib.report.figures import figure_name
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.reliability_figure import FEW
from merge_calib.report.text import code
from merge_calib.results import Results


def figures_section(results: Results, landmarks: Landmarks, drawn: Collection[str]) -> str:
    """Every figure in `drawn`; the first of its kind is explained, the others say what differs."""
    captions = {
        "frontier": _frontier_caption(results),
        "lambda": _lambda_caption(results, landmarks),
        "reliability": _reliability_caption(results),
    }
    explained = set()
    parts = []
    for confidence in results.confidences:
        for kind, caption in captions.items():
            name = figure_name(results, kind, confidence)
            if name in drawn:
                files = f"[PDF](figures/{name}.pdf), [numbers](figures/{name}.csv)"
                what = caption if kind not in explained else f"The same {kind} figure."
                text = f"{what} Confidence method {code(confidence)}. {files}"
                explained.add(kind)
                parts.append(f"![{kind}, {confidence}](figures/{name}.png)\n\n{text}\n")
    return "\n".join(["## Figures\n", *parts]) if parts else ""


def _frontier_caption(results: Results) -> str:
    over = "" if len(results.tasks) == 1 else f"; means over {len(results.tasks)} tasks"
    return (
        f"**Accuracy against SCE** (M = {results.run.plan['bins']}, lower is better{over}), a mark a point, "
        "coloured by lambda; up and left is better. The grey steps join the points that no other beats. "
        "Chosen and measured on the same questions."
    )


def _lambda_caption(results: Results, landmarks: Landmarks) -> str:
    lines = "" if len(results.tasks) == 1 else " Thin: a task; thick: the mean over tasks."
    selected = ", the dashed one the selected point" if landmarks.recovers else ""
    return f"**Each measure against lambda.**{lines} Grey upright lines mark the parents{selected}."


def _reliability_caption(results: Results) -> str:
    pool = " All questions of all tasks are pooled, so accuracy and ECE here differ from the means over tasks."
    return (
        f"**Reliability** in {results.run.plan['bins']} bins of confidence, with the number of questions in each bin "
        f"below; bins with fewer than {FEW} questions are pale.{'' if len(results.tasks) == 1 else pool}"
    )
