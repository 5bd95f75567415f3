"""Accuracy against calibration error, one mark a point."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from merge_calib.files import csv_text
from merge_calib.frontier import Candidate, non_dominated
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.style import GREY, INK, ROUND, SINGLE, Drawing, lambda_colours, new_figure, plain_axes
from merge_calib.results import Results

_MARKS = {"base": ("s", 38), "aligned": ("D", 34), "selected": ("*", 110), "aligned, selected": ("D", 34)}
_PLAIN = ("o", 22)


def draw_frontier(results: Results, landmarks: Landmarks, confidence: str) -> Drawing | None:
    """Mean accuracy (%) against mean SCE of every complete point; None where there is none."""
    candidates = results.candidates(confidence)
    if not candidates:
        return None
    roles = [landmarks.role(results.point(c.name)) for c in candidates]
    kept = non_dominated(candidates)
    colours = ScalarMappable(Normalize(*_lambda_range(candidates)), lambda_colours())
    figure = new_figure(SINGLE, 2.75)
    axes = figure.add_subplot()
    plain_axes(axes)
    _step_line(axes, [c for c, keep in zip(candidates, kept, strict=True) if keep])
    for candidate, role in zip(candidates, roles, strict=True):
        _mark(axes, candidate, role, colours)
    axes.set_xlabel(f"{_sce_name(results, confidence)} (M = {results.run.plan['bins']}, lower is better)")
    axes.set_ylabel("Accuracy (%)" if len(results.tasks_of(confidence)) == 1 else "Mean accuracy (%)")
    bar = figure.colorbar(colours, ax=axes, fraction=0.05, pad=0.02, aspect=30, ticks=MaxNLocator(4, steps=ROUND))
    bar.set_label("λ", rotation=0, labelpad=6)
    entries = _legend(candidates, roles, colours)
    if kept.sum() > 1:
        entries.append(Line2D([], [], color=GREY, label="frontier"))
    figure.legend(handles=entries, loc="outside upper center", ncols=3, handlelength=1.4)
    return Drawing(figure, _numbers(candidates, roles, kept.tolist()))


def _sce_name(results: Results, confidence: str) -> str:
    count = len(results.tasks_of(confidence))
    return "SCE" if count == 1 else f"Mean SCE over {count} tasks"


def _lambda_range(candidates: Sequence[Candidate]) -> tuple[float, float]:
    lambdas = [c.lam for c in candidates]
    return min(0.0, *lambdas, 1.0), max(1.0, *lambdas, 0.0)


def _step_line(axes: Axes, front: Sequence[Candidate]) -> None:
    """Join the frontier by steps: what lies below and to the right of the line is dominated."""
    ordered = sorted(front, key=lambda c: c.error)
    axes.step(
        [c.error for c in ordered],
        [100 * c.accuracy for c in ordered],
        where="post",
        color=GREY,
        linewidth=1.0,
        zorder=2,
    )


def _colour(candidate: Candidate, colours: ScalarMappable) -> str:
    red, green, blue, _ = colours.to_rgba(np.array([candidate.lam]))[0].tolist()
    return to_hex((red, green, blue))


def _mark(axes: Axes, candidate: Candidate, role: str, colours: ScalarMappable) -> None:
    colour = _colour(candidate, colours)
    marker, size = _MARKS.get(role, _PLAIN)
    axes.scatter(
        candidate.error,
        100 * candidate.accuracy,
        s=size,
        marker=marker,
        facecolors="white" if candidate.lam > 1 else colour,
        edgecolors=INK if role and candidate.lam <= 1 else colour,
        linewidths=0.8 if role else 1.0,
        zorder=5 if role else 3,
        clip_on=False,
    )


def _legend(candidates: Sequence[Candidate], roles: Sequence[str], colours: ScalarMappable) -> list[Line2D]:
    """One entry for each kind of mark that the figure holds."""
    kinds: dict[str, Line2D] = {}
    for candidate, role in zip(candidates, roles, strict=True):
        label = _label(candidate, role)
        colour = _colour(candidate, colours) if role else GREY
        kinds[label] = Line2D(
            [],
            [],
            linestyle="none",
            label=label,
            marker=_MARKS.get(role, _PLAIN)[0],
            markersize=8 if role == "selected" else 5,
            markerfacecolor="white" if candidate.lam > 1 else colour,
            markeredgecolor=INK if role and candidate.lam <= 1 else colour,
            markeredgewidth=0.8,
        )
    order = sorted(kinds, key=lambda label: ("base", "sele", "alig", "merg", "ampl").index(label[:4]))
    return [kinds[label] for label in order]


def _label(candidate: Candidate, role: str) -> str:
    if role == "aligned, selected":
        return "aligned (selected)"
    if role == "selected":
        return f"selected, λ = {candidate.lam:.3g}"
    return role or ("amplified, λ > 1" if candidate.lam > 1 else "merged")


def _numbers(candidates: Sequence[Candidate], roles: Sequence[str], kept: Sequence[bool]) -> str:
    rows = zip(candidates, roles, kept, strict=True)
    return csv_text(
        ("point", "lambda", "accuracy", "sce", "non_dominated", "role"),
        ((c.name, c.lam, c.accuracy, c.error, keep, role) for c, role, keep in rows),
    )
