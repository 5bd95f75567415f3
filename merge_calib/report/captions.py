"""The figures in report.md, each with what it shows."""

from collections.abc import Collection

from merge_calib.report.axis_lines import families_on_axis, has_aligned_apart, is_by_groups_only
from merge_calib.report.families import LINEAR, Family, families_of, has_groups
from merge_calib.report.figures import figure_name
from merge_calib.report.headline import headline_of
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import asked_noun
from merge_calib.report.reliability_figure import FEW
from merge_calib.report.retained_cells import has_retained
from merge_calib.report.shown import MOST_PANELS, named_points
from merge_calib.report.text import code
from merge_calib.results import Results
from merge_calib.scoring.questionnaire import NEXT_TOKEN

_ATTAINMENT = (
    "**Accuracy attained at each calibration error**: the most accurate point whose sce2 is no higher (at the left "
    "end, where in many draws even the best point has more, the curve lies below the points), in half of the "
    "bootstrap draws (line) and in 5 to 95 % of them (band). How often each point is non-dominated is in the numbers."
)
_NO_AXIS = "No figure against lambda: all points between and beyond the parents have lambda by groups."


def figures_section(results: Results, landmarks: Landmarks, drawn: Collection[str]) -> str:
    """Every figure in `drawn`; the first of its kind is explained, the others say what differs."""
    explained = set()
    parts = []
    for confidence in results.confidences:
        captions = {
            "frontier": _frontier_caption(results),
            "attainment": _ATTAINMENT,
            "lambda": _lambda_caption(results, landmarks, confidence) + _extras_caption(results, confidence),
            "axis": _axis_caption(results) + _extras_caption(results, confidence),
            "reliability": _reliability_caption(results, landmarks, asked_noun(confidence)),
            "confidence": _confidence_caption(results, landmarks, asked_noun(confidence)),
        }
        for kind, caption in captions.items():
            name = figure_name(results, kind, confidence)
            if name in drawn:
                files = f"[PDF](figures/{name}.pdf), [numbers](figures/{name}.csv)"
                of = f"{kind} figure" + (" of texts" if asked_noun(confidence) == "text" else "")
                what = caption if kind not in explained else f"The same {of}."
                text = f"{what}{_over_tasks(results, kind, confidence)} Confidence method {code(confidence)}. {files}"
                explained.add(kind)
                parts.append(f"![{kind}, {confidence}](figures/{name}.png)\n\n{text}\n")
            elif kind == "lambda" and is_by_groups_only(results, confidence):
                parts.append(f"{_NO_AXIS} Confidence method {code(confidence)}.\n")
    return "\n".join(["## Figures\n", *parts]) if parts else ""


def _frontier_caption(results: Results) -> str:
    groups = " Grey marks are points whose groups of tensors have lambdas of their own." if has_groups(results) else ""
    methods = " The shape of a mark tells its method." if len(families_of(results.points)) > 1 else ""
    return (
        f"**Accuracy against SCE** (M = {results.run.plan['bins']}, lower is better), a mark a point, "
        f"coloured by lambda; a good point lies up and left.{groups}{methods} The grey steps join the points that none "
        "dominates. Upright lines: 95 % intervals of accuracy; SCE has none that would cover, and in the grey strip, "
        "below its mean noise floor, nothing can be told from a calibrated model. Purple: temperature scaling and "
        f"mixtures of the parents, which merge no weights.{_dots(results)}"
        f"{_judged(results)}"
    )


def _dots(results: Results) -> str:
    return " Small dots are predicted, not measured; no claim rests on them." if results.predicted else ""


def _judged(results: Results) -> str:
    """On which questions."""
    if results.judged == "report":
        return " Measured on the questions that had no part in choosing (`report`)."
    return " Points are measured on all questions, which chose the selected one too; rivals fold by fold."


def _extras_caption(results: Results, confidence: str) -> str:
    """What stands beside the lines."""
    several = results.is_sweep and len(families_on_axis(results, confidence)) > 1
    band = "" if several else " The band covers the mean at all points together with 95 %."
    rivals = " Purple: levels of temperature scaling and mixtures." if headline_of(results, confidence) else ""
    errors = "ECE and SCE" if confidence in results.choice_methods else "ECE"
    return f"{band} Dashed grey: the noise floor, what {errors} of a calibrated model would be.{rivals}"


def _lambda_caption(results: Results, landmarks: Landmarks, confidence: str) -> str:
    is_by_groups = landmarks.selected is not None and landmarks.selected.lam is None
    selected = ", the dashed one the selected point" if landmarks.recovers and not is_by_groups else ""
    parts = [f"**Each measure against lambda.** Grey upright lines mark the parents{selected}."]
    if results.predicted:
        parts.append("Marks are measured; dotted lines are predicted, not measured.")
    families = families_on_axis(results, confidence)
    if confidence != NEXT_TOKEN and has_retained(results):
        parts.append(
            "The last panel: how far each point is from the aligned model's own responses to the prompts, with 95 % "
            "intervals over prompts."
        )
    if len(families) > 1:
        parts.append("A colour is a method.")
    elif families != (Family(LINEAR),):
        parts.append(f"All merges on it are by {families[0].markdown}.")
    if has_aligned_apart(results, confidence):
        parts.append("The diamond is the aligned model, which these methods do not give at lambda = 1.")
    if has_groups(results):
        nor = "; the selected point is one of them" if is_by_groups else ""
        parts.append(f"Points with lambda by groups have no place on this axis{nor}.")
    return " ".join(parts)


def _axis_caption(results: Results) -> str:
    axis = results.run.plan.get("axis", "model")
    return f"**Each measure along the axis**{'' if axis == 'model' else f' ({axis})'}."


def _reliability_caption(results: Results, landmarks: Landmarks, noun: str) -> str:
    return (
        f"**Reliability** in {results.run.plan['bins']} bins of confidence, with the number of {noun}s in each bin "
        f"below; bins with fewer than {FEW} {noun}s are pale.{_some(results, landmarks)}"
    )


def _confidence_caption(results: Results, landmarks: Landmarks, noun: str) -> str:
    return (
        f"**How often a model is how confident**: the share of {noun}s in each of {results.run.plan['bins']} bins of "
        "confidence, right and wrong ones stacked. Upright lines: accuracy (solid) and mean confidence (dashed); a "
        f"dashed line to the right of the solid one is over-confidence.{_some(results, landmarks)}"
    )


def _over_tasks(results: Results, kind: str, confidence: str) -> str:
    """How the tasks of a confidence method stand together in a figure, where there are several."""
    count = len(results.tasks_of(confidence))
    if count == 1:
        return ""
    if kind in ("frontier", "attainment"):
        return f" Means over {count} tasks."
    if kind in ("lambda", "axis"):
        return " Thin: a task; thick: the mean over tasks."
    noun = asked_noun(confidence)
    return f" All {noun}s of all tasks are pooled, so accuracy and ECE here differ from the means over tasks."


def _some(results: Results, landmarks: Landmarks) -> str:
    count = len(named_points(results, landmarks))
    if count <= MOST_PANELS:
        return ""
    return f" Shown are {MOST_PANELS} of the {count} models: the first, the last and evenly spaced ones between."
