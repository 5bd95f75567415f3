"""How the points of a run were found, where that was not a grid."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from merge_calib.answers import MEAN
from merge_calib.merging.point import MergePoint
from merge_calib.report.cells import difference_text
from merge_calib.report.families import has_groups
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.measures import ACCURACY, BY_COLUMN, SCE
from merge_calib.report.place import point_markdown
from merge_calib.report.text import code, count_text, decimals, percent
from merge_calib.results import Results
from merge_calib.selection import select


def search_section(results: Results, landmarks: Landmarks) -> str:
    """The section of report.md: what the search measured and how far what it says can be trusted; empty for a grid."""
    search = results.run.search
    if search is None:
        return ""
    lines = [*_LINES[search["strategy"]](results, search), *_groups(results, landmarks)]
    return "\n".join(["## How the points were found\n", *(f"- {line}" for line in lines), ""])


def search_text(results: Results) -> str:
    """The same in a few words, for the terminal; empty for a grid."""
    search = results.run.search
    if search is None:
        return ""
    if search["strategy"] == "optuna":
        return f"{count_text(len(results.points) + len(explored(results)), 'point')} of a study, {search['sampler']}"
    if not search["settled"] and not search["fell_back"]:
        return "cut off before it settled"
    if not search["settled"]:
        return f"{count_text(len(results.points), 'point')}, nothing predicted: the search fell back on the grid"
    return f"{count_text(len(results.points), 'point')} measured, the others predicted to {_errors(search)}"


def explored(results: Results) -> Sequence[str]:
    """The names of the points that were asked the choosing questions alone."""
    return tuple(dict.fromkeys(row.point.name for row in results.explored))


def _adaptive(results: Results, search: Mapping[str, Any]) -> Iterator[str]:
    grid, nodes = search["grid"], len(search["nodes"])
    across = f"{grid['points']} lambdas from {grid['low']:g} to {grid['high']:g}"
    tolerance = f"accuracy and SCE to {search['tolerance']:g}"
    if search["settled"]:
        shown = {p.point for p in results.predicted}
        yield (
            f"Adaptive search: {count_text(nodes, 'point')} were measured to predict {tolerance} at {across}, by "
            "interpolating each question's log-probabilities in lambda; "
            f"{count_text(len(search['confirmed']), 'more point')} confirmed what was selected and the frontier. "
            f"{count_text(len(shown), 'point')} are predicted: dots and dotted lines in the figures, `source` "
            "`predicted` in results.csv. Nothing is selected or claimed by them."
        )
        yield (
            f"Estimated worst error of a prediction on the questions that choose: {_errors(search)} (means over tasks, "
            f"by {code(results.confidences[0])}). ECE, NLL, single tasks and other confidence methods are predicted "
            "from the same answers, and their errors were not estimated."
        )
    elif not search["fell_back"]:
        yield "Adaptive search was cut off before it settled; nothing is predicted."
    else:
        yield (
            f"Adaptive search did not settle: with {count_text(search['budget'], 'point')} {tolerance} could not be "
            f"predicted at {across}, nor with all {nodes} (estimated worst error: {_errors(search)}). So the grid of "
            "`--lambdas` was measured, and nothing is predicted."
        )


def _errors(search: Mapping[str, Any]) -> str:
    accuracy, sce = search["estimate"]["accuracy"], search["estimate"]["sce"]
    if accuracy is None or sce is None:
        return "unknown, for too few points could be measured"
    return f"{percent(accuracy, 2)} points of accuracy, {decimals(sce, 4)} of SCE"


def _optuna(results: Results, search: Mapping[str, Any]) -> Iterator[str]:
    asked = explored(results)
    stopped = results.stopped
    least = search["min_accuracy"]
    above = "" if least is None else f", accuracy at least {percent(least, 1)}"
    yield (
        f"Optuna study {code(search['study'])} in {code(search['storage'])}: "
        f"{count_text(search['complete'], 'trial')} (both parents, some evenly spread lambdas, then by the sampler "
        f"{code(search['sampler'])}) for "
        f"{' and '.join(map(code, search['objectives']))}{above}. Its points were asked the choosing questions alone; "
        f"{count_text(len(results.points), 'point')} (the parents, those that no other one beat there, the selected "
        f"one, and what was measured before) were asked the others too and stand in this page; "
        f"{count_text(len(asked), 'other point')} have rows of the split `select` in results.csv."
    )
    if stopped:
        yield (
            f"{count_text(len(stopped), 'point')} were stopped early, since another was better by every objective: "
            "they are in no table; frontier.json names them."
        )


_LINES = {"adaptive": _adaptive, "optuna": _optuna}


def _groups(results: Results, landmarks: Landmarks) -> Iterator[str]:
    """Whether lambdas by groups are better than one lambda, on the questions that chose and on those that judge."""
    selected, confidence = landmarks.selected, results.confidences[0]
    if selected is None or not has_groups(results):
        return
    if selected.lam is not None:
        yield "The rule selects one lambda for all; by the questions that chose it prefers no lambdas by groups."
        return
    one = [c for c in results.candidates(confidence, results.chosen_on) if c.lam is not None]
    best = results.point(select(one, results.analysis.rule).point)
    yield (
        f"One lambda for all: the rule would select {point_markdown(best)}. From it to the selected point with lambdas "
        f"by groups, on the questions that chose: {_changes(results, best, selected)}. On the questions that judge: "
        f"{_judged(results, best, selected)}."
    )


def _changes(results: Results, before: MergePoint, after: MergePoint) -> str:
    parts = []
    for measure in (ACCURACY, SCE):
        rows = [results.get(p, MEAN, results.confidences[0], results.chosen_on) for p in (before, after)]
        values = [measure.of(row) for row in rows if row is not None]
        old, new = (measure.text(value) for value in values if value is not None)
        parts.append(f"{measure.label} from {old} to {new}")
    return ", ".join(parts) + " (the best of many, so flattered)"


def _judged(results: Results, before: MergePoint, after: MergePoint) -> str:
    """Paired differences with their intervals, and whether any of them is told apart from nothing."""
    joint = results.joint(MEAN, results.confidences[0])
    assert joint is not None
    found = {m: joint.difference(m, after.name, before.name) for m in ("accuracy", "sce2", "nll") if joint.has(m)}
    texts = [f"{BY_COLUMN[m].label} {difference_text(BY_COLUMN[m], estimate)}" for m, estimate in found.items()]
    is_better = {m: e.low > 0 if m == "accuracy" else e.high < 0 for m, e in found.items()}
    better = [BY_COLUMN[m].label for m, holds in is_better.items() if holds]
    found_better = f"by {' and '.join(better)} the interval lies on the better side there too"
    verdict = f"{found_better if better else 'no interval lies on the better side'} (each by itself; no claim)"
    return f"{', '.join(texts)}: {verdict}"
