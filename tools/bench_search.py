"""What searches buy: how much of the best frontier each way of choosing points finds, for how many questions.

    merge-calib sweep --base .. --aligned .. --lambdas 0:1.5:0.015 --out DENSE_RUN
    python tools/bench_search.py one DENSE_RUN --figure tools/results/bench_search.png > tools/results/bench_search.md
    python tools/bench_search.py groups --out FOLDER --dense DENSE_RUN >> tools/results/bench_search.md

`one`: grid, adaptive and studies over one lambda, replayed on the stored scores of a dense sweep; no model is asked.
`groups`: the demo pair is really measured, by a grid of single lambdas and then by a study of lambdas by groups. The
command may be given again after it was cut off. The demo pair's dense sweep is made as tools/prove_adaptive.py says.
"""

import argparse
import csv
import json
import platform
import re
import subprocess
import sys
import textwrap
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import optuna
import scipy
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from prove_adaptive import Dense
from scipy.stats import t as student

from merge_calib.analysis import Analysis
from merge_calib.answers import division_of
from merge_calib.calibration import metrics
from merge_calib.files import written_whole
from merge_calib.finalists import finalists
from merge_calib.frontier import Candidate, hypervolume, non_dominated
from merge_calib.interpolation import interpolate
from merge_calib.merging.point import MergePoint
from merge_calib.report.style import COLOURS, DPI, GREY, INK, MARKERS, SINGLE, new_figure, plain_axes, styled
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores, Floats, Predictions
from merge_calib.search.adaptive import places
from merge_calib.search.grid import PARENTS, Grid, line
from merge_calib.search.objectives import OBJECTIVES
from merge_calib.search.space import Space
from merge_calib.search.strategy import Outcome, Strategy
from merge_calib.search.study import StudySearch, directions
from merge_calib.selection import Rule, select

GRIDS = (2, 4, 8, 10, 16, 31, 61, 101)
STUDIES = ("gp", "tpe", "random")  # over one lambda NSGA-II is random: it mutates one parameter of each child
PREDICTED_FROM = (11, 21, 51)
PRICES = (5.0, 10.1)  # forward passes at which studies are looked at
GOAL_SHARE, GOAL_PRICE = 0.99, 0.1  # of what the dense grid finds, for so much of its passes
NEIGHBOURS = 4  # stored lambdas that a point between them is interpolated from: a cubic
GROUPS = "layers:3,rest"  # the demo pair has three layers
WIDTH = 118  # letters of a printed line
DRAWS = 500  # of the bootstrap
SETTING = """
One pass is every question asked once at one point: grid and adaptive ask a point everything, a study asks it the half
that chooses, and its finalists the other half too. It is charged as if it ended there, and stops no point early. All
measure both parents. The box is spanned by the non-dominated points (accuracy, SCE) of all stored lambdas on the same
questions. Found: the area of the box that the points dominate which a search names, by their true values, over the area
that all stored lambdas dominate. It names what no other point beats by what it knows of the questions that choose. The
other half has a box of its own, and all stored lambdas stand there for the best that hindsight could name. Means over
divisions with 95 % t intervals of the mean; all divisions are of one set of questions, so that the intervals speak of
these questions, not of others. Until 9 points are measured, all samplers ask the same: parents and seven even lambdas.
NSGA-II and NSGA-III are left out: they mutate one parameter of each child, here the only one, and so draw as `random`.
"""
MEASURING = """
Half of the questions chooses (`select`), always the same half; seeds differ in the study alone. Selected: the lowest
SCE on `select` among the points that keep the aligned model's accuracy there to half a point. Hypervolume: of the
points that no other one of the same row beats on `select`, as a share of the box that the best of all rows span on the
same questions; points that were not asked the questions of `report` add nothing there. Both parents are in every row.
"""
GRID_LAMBDAS = tuple(round(0.1 * i, 10) for i in range(16))
SPLITS = ("select", "report")
DENSE = "every lambda of the dense run"


# --- one lambda, replayed ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    """The rectangle that a frontier spans: lowest and highest accuracy and error of its points."""

    accuracy: tuple[float, float]
    error: tuple[float, float]

    @classmethod
    def around(cls, values: Floats) -> "Box":
        """Of the points (L, 2) of accuracy and error that no other beats."""
        kept = values[non_dominated(candidates(values))]
        (low, lowest), (high, highest) = kept.min(0), kept.max(0)
        if low == high or lowest == highest:
            raise SystemExit("one point is better than all others: its frontier spans no box")
        return cls((float(low), float(high)), (float(lowest), float(highest)))

    def share(self, values: Floats) -> float:
        """The part of the area that points (L, 2) dominate; what lies beyond the box counts as its edge."""
        accuracy = np.minimum(values[:, 0], self.accuracy[1])
        error = np.maximum(values[:, 1], self.error[0])
        area = (self.accuracy[1] - self.accuracy[0]) * (self.error[1] - self.error[0])
        return float(hypervolume(accuracy[None], error[None], (self.accuracy[0], self.error[1]))[0] / area)


@dataclass(frozen=True)
class Side:
    """Half of the questions of a dense sweep: what is measured on them at any lambda."""

    dense: Dense
    _known: dict[float, tuple[float, float]] = field(default_factory=dict)

    def outcome(self, lam: float) -> Outcome:
        measures = dict(zip(OBJECTIVES, self.at(lam), strict=True))
        return Outcome(measures, {"task": self.dense.scores[lam]} if lam in self.dense.scores else {})

    def at(self, lam: float) -> tuple[float, float]:
        """Accuracy and SCE; between two stored lambdas each question's scores are interpolated from the nearest."""
        if lam not in self._known:
            scores = self.dense.scores.get(lam) or between(self.dense.scores, lam)
            one = Dense(self.dense.name, {lam: scores}, 1).outcome(lam).measures
            self._known[lam] = one["accuracy"], one["sce"]
        return self._known[lam]

    def values(self, lambdas: Iterable[float]) -> Floats:
        return np.array([self.at(lam) for lam in lambdas])

    def best(self, lambdas: Sequence[float]) -> tuple[float, ...]:
        """Those of some lambdas that none of them beats."""
        kept = non_dominated(candidates(self.values(lambdas)))
        return tuple(lam for lam, keep in zip(lambdas, kept, strict=True) if keep)

    @cached_property
    def box(self) -> Box:
        return Box.around(self.values(self.dense.scores))

    @cached_property
    def dense_share(self) -> float:
        """What all stored lambdas dominate of the box that their frontier spans."""
        return self.box.share(self.values(self.dense.scores))

    def ratio(self, lambdas: Iterable[float]) -> float:
        """What some lambdas dominate, as a share of what all stored ones do."""
        return self.box.share(self.values(lambdas)) / self.dense_share


@dataclass(frozen=True)
class Halves:
    """The questions of a dense sweep, divided at random into those that choose and those that judge."""

    seed: int
    chooses: Side
    judges: Side

    @classmethod
    def draw(cls, dense: Dense, seed: int) -> "Halves":
        rows = np.zeros(len(dense.rows["all"]), dtype=bool)
        rows[np.random.default_rng(seed).permutation(len(rows))[: len(rows) // 2]] = True
        return cls(seed, Side(dense.take(rows)), Side(dense.take(~rows)))

    @property
    def fraction(self) -> float:
        """The share of the questions that choose."""
        counts = [len(next(iter(side.dense.scores.values())).ids) for side in (self.chooses, self.judges)]
        return counts[0] / sum(counts)


@dataclass(frozen=True)
class Found:
    """What a search ends with.

    passes: questions asked over questions of the task; measured: points that were asked any
    named: lambdas of the frontier by what the search knows, which is of the questions that choose alone
    """

    passes: float
    measured: int
    named: tuple[float, ...]


def search_grid(halves: Halves, count: int) -> Found:
    """So many lambdas evenly spread; the parents are measured too."""
    low, high = halves.chooses.dense.grid[0], halves.chooses.dense.grid[-1]
    lambdas = replay(Grid(line("linear", {}, np.linspace(low, high, count).tolist())), halves.chooses)
    return Found(len(lambdas), len(lambdas), halves.chooses.best(lambdas))


def search_adaptive(halves: Halves) -> tuple[Found, Found, Found]:
    """The adaptive search: by what it measured alone; with what it predicts of the others; with these measured too.

    A predicted point is in the frontier by its predicted values, but counts afterwards by its true ones.
    """
    side = halves.chooses
    search = side.dense.search()
    measured = sorted(point.lam for point in search.known if point.lam is not None)
    record = search.record()
    predicted = places(record) if record["settled"] else ()
    named = named_by(side, measured, record["nodes"], predicted)
    count, union = len(measured), sorted({*measured, *named})
    confirmed = Found(len(union), len(union), side.best(union))
    return Found(count, count, side.best(measured)), Found(count, count, named), confirmed


def search_predicted(halves: Halves, count: int) -> Found:
    """So many evenly spread lambdas of the dense grid, and the frontier of what they predict of all others."""
    side, grid = halves.chooses, halves.chooses.dense.grid
    nodes = [grid[round(i * (len(grid) - 1) / (count - 1))] for i in range(count)]
    measured = sorted({0.0, 1.0, *nodes})
    named = named_by(side, measured, nodes, [lam for lam in grid if lam not in measured])
    return Found(len(measured), len(measured), named)


def named_by(
    side: Side, measured: Sequence[float], nodes: Sequence[float], predicted: Sequence[float]
) -> tuple[float, ...]:
    """The frontier of what was measured and of what is predicted from nodes."""
    answered = interpolate(nodes, [side.dense.scores[lam] for lam in nodes], predicted)
    told = [Side(Dense("", {lam: s}, 1)).at(lam) for lam, s in zip(predicted, answered, strict=True)]
    kept = non_dominated(candidates(np.array([*map(side.at, measured), *told])))
    return tuple(lam for lam, keep in zip((*measured, *predicted), kept, strict=True) if keep)


def search_study(halves: Halves, sampler: str, trials: int) -> list[Found]:
    """A study after each of its points from the second on, as if it ended there and asked its finalists the rest."""
    side, low, high = halves.chooses, halves.chooses.dense.grid[0], halves.chooses.dense.grid[-1]
    study = optuna.create_study(directions=directions(OBJECTIVES))
    space = Space(("linear",), low=low, high=high)
    lambdas = replay(StudySearch(space, OBJECTIVES, study, trials, halves.seed, sampler), side)
    return [stopped_after(halves, lambdas[:count]) for count in range(len(PARENTS), len(lambdas) + 1)]


def stopped_after(halves: Halves, lambdas: Sequence[float]) -> Found:
    heard = {MergePoint("linear", lam): halves.chooses.outcome(lam) for lam in lambdas}
    rest = len(finalists(heard, OBJECTIVES, Rule()))
    passes = halves.fraction * len(lambdas) + (1 - halves.fraction) * rest
    return Found(passes, len(lambdas), halves.chooses.best(lambdas))


def replay(strategy: Strategy, side: Side) -> list[float]:
    """The lambdas that a strategy has measured, in their order."""
    asked = []
    while (point := strategy.propose()) is not None:
        assert point.lam is not None
        asked.append(point.lam)
        strategy.hear(point, side.outcome(point.lam))
    return asked


def between(stored: Mapping[float, ChoiceScores], lam: float) -> ChoiceScores:
    """The scores at `lam`, each question's interpolated from the stored lambdas around it, two on either side."""
    lambdas = sorted(stored)
    first = min(max(bisect(lambdas, lam) - NEIGHBOURS // 2, 0), len(lambdas) - NEIGHBOURS)
    nearest = lambdas[first : first + NEIGHBOURS]
    return next(interpolate(nearest, [stored[other] for other in nearest], [lam]))


def candidates(values: Floats) -> list[Candidate]:
    return [Candidate("", None, float(accuracy), float(error), False) for accuracy, error in values]


def affordable(found: Sequence[Found], passes: float) -> Found:
    """The last of a study's states that costs no more."""
    return [state for state in found if state.passes <= passes][-1]


@dataclass(frozen=True)
class Replays:
    """All searches on one division of the questions."""

    halves: Halves
    grids: Mapping[int, Found]
    adaptive: tuple[Found, Found, Found]
    studies: Mapping[str, Sequence[Found]]

    @classmethod
    def on(cls, halves: Halves, trials: int) -> "Replays":
        grids = {count: search_grid(halves, count) for count in GRIDS}
        studies = {sampler: search_study(halves, sampler, trials) for sampler in STUDIES}
        print(f"division {halves.seed} is done", file=sys.stderr, flush=True)
        return cls(halves, grids, search_adaptive(halves), studies)

    @property
    def parents(self) -> Found:
        return Found(len(PARENTS), len(PARENTS), self.halves.chooses.best([0.0, 1.0]))

    @property
    def dense(self) -> Found:
        """Every stored lambda."""
        stored = tuple(self.halves.chooses.dense.scores)
        return Found(len(stored), len(stored), self.halves.chooses.best(stored))

    def ratios(self, found: Found) -> tuple[float, float]:
        """On the questions that chose and on those that judge."""
        return self.halves.chooses.ratio(found.named), self.halves.judges.ratio(found.named)

    def rows(self) -> Iterator[tuple[str, Found]]:
        """What stands in the table."""
        yield "parents alone", self.parents
        for count, found in self.grids.items():
            yield f"grid of {count}", found
        yield "adaptive (i), measured points", self.adaptive[0]
        yield "adaptive (ii), the frontier it names", self.adaptive[1]
        yield "adaptive (iii), all of it measured", self.adaptive[2]
        yield "control: a grid of as many as (ii) names", search_grid(self.halves, len(self.adaptive[1].named))
        for count in PREDICTED_FROM:
            yield f"control: predicted from {count} even lambdas", search_predicted(self.halves, count)
        for sampler, states in self.studies.items():
            for price in PRICES:
                yield f"study by {sampler}, at most {price:g} passes", affordable(states, price)
            yield f"study by {sampler}, {states[-1].measured - len(PARENTS)} trials", states[-1]


def one(options: argparse.Namespace) -> None:
    """Replay all searches, print the tables and draw the figure."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    dense = Dense.read(options.run)
    replays = [Replays.on(Halves.draw(dense, seed), options.trials) for seed in range(options.seeds)]
    print_setting(dense, options)
    print_table(replays)
    print_goal(replays)
    print_meaning(replays)
    print_interpolation(dense)
    for note in options.note:
        say(note)
    if options.figure is not None:
        draw(replays, options.figure)
        say(f"![Found on the choosing half against forward passes; bands are 95 % t intervals]({options.figure.name})")


def print_setting(dense: Dense, options: argparse.Namespace) -> None:
    n, half = len(dense.rows["all"]), len(dense.rows["all"]) // 2
    print("# What searches buy")
    say(
        f"Made by `python tools/bench_search.py one {dense.name} --seeds {options.seeds} --trials {options.trials}` "
        f"and `... groups --out FOLDER --dense {dense.name}`. {versions()}."
    )
    print("\n## One lambda, replayed on stored scores")
    say(
        f"{dense.name} was measured at {dense.points} evenly spread lambdas from {dense.grid[0]:g} to "
        f"{dense.grid[-1]:g} and at lambda 1 (it is the `grid of {dense.points}`), with {n:,} questions. In each of "
        f"{options.seeds} divisions another random half ({half:,}) of the questions chooses, the same for all searches."
    )
    say(SETTING)
    print()


def print_table(replays: Sequence[Replays]) -> None:
    print("| search | passes | points | named | found, choosing half | found, other half |")
    print("| :-- | --: | --: | --: | --: | --: |")
    for same in zip(*(each.rows() for each in replays), strict=True):
        found = [state for _, state in same]
        ratios = np.array([each.ratios(state) for each, state in zip(replays, found, strict=True)])
        means = [np.mean([getattr(state, name) for state in found]) for name in ("passes", "measured")]
        named = np.mean([len(state.named) for state in found])
        cells = *(f"{mean:.1f}" for mean in (*means, named)), *(interval_text(ratios[:, i]) for i in (0, 1))
        print(f"| {same[0][0]} | {' | '.join(cells)} |")


def print_goal(replays: Sequence[Replays]) -> None:
    """Whether the adaptive search finds nearly all for a tenth of the price."""
    count = replays[0].halves.chooses.dense.points
    ratios = np.array([each.ratios(each.adaptive[1])[0] for each in replays])
    passes = np.array([each.adaptive[1].passes for each in replays])
    most = GOAL_PRICE * count
    is_reached = ratios.mean() >= GOAL_SHARE and passes.mean() <= most
    near, cheap = ratios >= GOAL_SHARE, passes <= most
    say(
        f"Goal: adaptive (ii) finds {GOAL_SHARE:.0%} of what the dense grid does for {GOAL_PRICE:.0%} of its passes "
        f"({most:.1f} of {count}). On average **{'reached' if is_reached else 'missed'}**: it finds "
        f"{interval_text(ratios)}, at least {ratios.min():.3f}, for {passes.mean():.1f} passes (from "
        f"{passes.min():.0f} to {passes.max():.0f}). Of {len(ratios)} divisions it finds {GOAL_SHARE:.0%} in "
        f"{near.sum()}, takes at most {most:.1f} passes in {cheap.sum()}, and does both in {(near & cheap).sum()}."
    )


def print_meaning(replays: Sequence[Replays]) -> None:
    """How much of the box is noise of the questions."""
    sides = [each.halves.chooses for each in replays]
    heights = np.array([side.box.accuracy[1] - side.box.accuracy[0] for side in sides])
    widths = np.array([side.box.error[1] - side.box.error[0] for side in sides])
    errors = np.array([paired_error(side) for side in sides])
    judged = np.array([each.ratios(each.dense)[1] for each in replays])
    adaptive = np.array([each.ratios(each.adaptive[1])[1] for each in replays])
    counts = np.array([len(each.dense.named) for each in replays])
    questions = len(next(iter(sides[0].dense.scores.values())).ids)
    steps = heights / (counts - 1)
    say(
        f"What the numbers mean. On the choosing half the dense frontier has {counts.mean():.1f} points. Its box is "
        f"{100 * heights.mean():.2f} points of accuracy high (from {100 * heights.min():.2f} to "
        f"{100 * heights.max():.2f}) and {widths.mean():.3f} of SCE wide. From one point of the frontier to the next "
        f"accuracy changes by {questions * steps.mean():.1f} of {questions:,} questions. The standard error of the "
        f"difference in accuracy between its two ends, on the same questions, is {100 * errors.mean():.2f} points: the "
        f"box is {(heights / errors).mean():.1f} of them high, a step {(steps / errors).mean():.1f}, and its points "
        "were picked as the best of many. So the ratio says how well a search finds what the dense grid finds on these "
        "very questions, luck included. Naming more points can only add to it, even if none was measured: hence the "
        "column `named` and the control. On the other half the points that the dense grid names on the choosing half "
        f"find {interval_text(judged)} of what hindsight could name there, those of adaptive (ii) "
        f"{interval_text(adaptive)}; difference, paired by division, {interval_text(adaptive - judged, '+')}. What the "
        "dense grid itself lacks there is what its choosing half cannot tell."
    )


def paired_error(side: Side) -> float:
    """The standard error of the difference in accuracy between the two ends of the dense frontier."""
    ends = sorted(side.best(list(side.dense.scores)), key=lambda lam: side.at(lam)[0])
    low, high = (side.dense.scores[lam].predictions.hit.astype(np.float64) for lam in (ends[0], ends[-1]))
    return float((high - low).std(ddof=1) / np.sqrt(len(low)))


def print_interpolation(dense: Dense) -> None:
    """How far a point that is not stored may be off: each stored lambda left out."""
    stored = list(dense.scores)
    say(
        "Studies and most grids ask between stored lambdas. There each question's scores are interpolated from two "
        "stored lambdas on either side (a cubic). Each inner stored lambda, left out and made from the others so, "
        "across gaps twice as wide:"
    )
    print()
    print("| questions | accuracy, mean error | worst | SCE, mean error | worst |\n| :-- | --: | --: | --: | --: |")
    for name, rows in dense.rows.items():
        side = Side(dense.take(rows))
        errors = np.array([left_out_error(side, lam) for lam in stored[2:-2]])
        cells = [f"{f(errors[:, i]):.5f}" for i in (0, 1) for f in (np.mean, np.max)]
        print(f"| {name} ({rows.sum():,}) | {' | '.join(cells)} |")


def left_out_error(side: Side, lam: float) -> Floats:
    """Of accuracy and SCE (2,)."""
    others = {other: scores for other, scores in side.dense.scores.items() if other != lam}
    made = Side(Dense("", {lam: between(others, lam)}, 1)).at(lam)
    return np.abs(np.subtract(made, side.at(lam)))


def interval(values: Floats) -> tuple[float, float]:
    """The mean and half the width of its 95 % t interval."""
    if len(values) < 2:
        return float(values.mean()), float("nan")
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def interval_text(values: Floats, sign: str = "") -> str:
    mean, half = interval(values)
    return f"{mean:{sign}.3f} [{mean - half:{sign}.3f}, {mean + half:{sign}.3f}]"


# --- the figure ----------------------------------------------------------------------------------------------------


def draw(replays: Sequence[Replays], path: Path) -> None:
    """Found, on the choosing half, against passes: lines with bands for grid and studies, marks for adaptive."""
    with styled():
        figure = new_figure(SINGLE, 2.75)
        axes = figure.add_subplot()
        plain_axes(axes)
        parents = np.mean([each.ratios(each.parents)[0] for each in replays])
        axes.axhline(float(parents), color=GREY, linestyle=":", label="parents alone")
        axes.axhline(1, color=GREY, linewidth=0.6)
        draw_grid(axes, replays)
        for i, sampler in enumerate(STUDIES, start=1):
            draw_study(axes, replays, sampler, COLOURS[i])
        draw_adaptive(axes, replays)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([2, 5, 10, 20, 50, 100]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("forward passes over all questions")
        axes.set_ylabel("hypervolume / dense grid's")
        axes.set_ylim(-0.04, 1.06)
        figure.legend(loc="outside lower center", ncols=3)
        with written_whole(path) as partial:
            figure.savefig(partial, format="png", dpi=DPI, metadata={"Software": None})


def draw_grid(axes: Axes, replays: Sequence[Replays]) -> None:
    passes = [replays[0].grids[count].passes for count in GRIDS]
    ratios = [np.array([each.ratios(each.grids[count])[0] for each in replays]) for count in GRIDS]
    draw_band(axes, passes, ratios, COLOURS[0], "grid", MARKERS[0])


def draw_study(axes: Axes, replays: Sequence[Replays], sampler: str, colour: str) -> None:
    """Up to the price at which the first of the divisions has no more trials."""
    most = min(each.studies[sampler][-1].passes for each in replays)
    passes = np.arange(len(PARENTS), most + 1e-9, 0.5).tolist()
    ratios = [
        np.array([each.ratios(affordable(each.studies[sampler], price))[0] for each in replays]) for price in passes
    ]
    draw_band(axes, passes, ratios, colour, sampler)


def draw_band(
    axes: Axes, passes: Sequence[float], ratios: Sequence[Floats], colour: str, label: str, marker: str = ""
) -> None:
    """Means and their intervals, of ratios (S,) for each number of passes."""
    means, halves = np.array([interval(values) for values in ratios]).T
    axes.plot(passes, means, color=colour, label=label, marker=marker, markersize=3)
    axes.fill_between(passes, means - halves, means + halves, color=colour, alpha=0.15, linewidth=0)


def draw_adaptive(axes: Axes, replays: Sequence[Replays]) -> None:
    passes = np.mean([each.adaptive[0].passes for each in replays])
    for i, (label, face) in enumerate((("adaptive (i)", "white"), ("adaptive (ii)", INK))):
        mean, half = interval(np.array([each.ratios(each.adaptive[i])[0] for each in replays]))
        axes.errorbar(
            passes, mean, half, fmt=MARKERS[3], color=INK, markerfacecolor=face, markersize=5, zorder=5, label=label
        )


# --- lambdas by groups, really measured ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run of the demo pair.

    splits: by split, its points by name, means over tasks; points that a study did not finish are on `select` alone
    points: what each of them is
    """

    folder: Path
    splits: Mapping[str, Mapping[str, Candidate]]
    points: Mapping[str, MergePoint]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        points = {p.name: p for p in RunDirectory.open(folder).points() if isinstance(p, MergePoint)}
        splits: dict[str, dict[str, Candidate]] = {split: {} for split in SPLITS}
        with (folder / "results.csv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row["task"] == "mean" and row["split"] in splits:
                    name, values = row["point"], (float(row["accuracy"]), float(row["sce"]))
                    splits[row["split"]][name] = Candidate(name, points[name].lam, *values, points[name].is_aligned)
        return cls(folder, splits, points)

    def only(self, kind: str) -> "Run":
        """With both parents and the points of a kind."""
        wanted = {name for name, point in self.points.items() if point in PARENTS or KINDS[kind](point)}
        splits = {split: {n: c for n, c in known.items() if n in wanted} for split, known in self.splits.items()}
        return Run(self.folder, splits, self.points)

    @property
    def selected(self) -> str:
        """What the run's rule selects of these points: the lowest SCE among those that keep the accuracy."""
        return select(list(self.splits["select"].values())).point

    def values(self, split: str, names: Iterable[str] | None = None) -> Floats:
        """Accuracy and SCE (L, 2) of all points or of some, as far as they were asked the questions of `split`."""
        known = self.splits[split]
        found = [known[name] for name in (known if names is None else names) if name in known]
        return np.array([[c.accuracy, c.error] for c in found])

    @property
    def named(self) -> list[str]:
        """The points that no other one beats on `select`."""
        known = list(self.splits["select"].values())
        return [c.name for c, keep in zip(known, non_dominated(known), strict=True) if keep]

    def predictions(self, name: str) -> Predictions:
        """What a point answered to the questions that judge."""
        run = RunDirectory.open(self.folder)
        (task,) = run.plan["tasks"]
        scores = run.scores(self.points[name], task, run.plan["confidence"][0])
        assert isinstance(scores, ChoiceScores)
        division = division_of(run, task, scores.ids, Analysis.of(run.plan), divides=True)
        return scores.predictions.take(division.rows("report"))


COARSE, SINGLE_LAMBDAS, BY_GROUPS = "single lambdas of the grid", "and of the study's diagonal", "lambdas by groups"
KINDS: Mapping[str, Callable[[MergePoint], bool]] = {
    COARSE: lambda point: point.lam in GRID_LAMBDAS,
    SINGLE_LAMBDAS: lambda point: point.lam is not None,
    BY_GROUPS: lambda point: point.lam is None,
}


def groups(options: argparse.Namespace) -> None:
    """Measure a grid and a study by groups for each seed, and compare what they find."""
    folders = [options.out / f"seed-{seed}" for seed in range(options.seeds)]
    for seed, folder in enumerate(folders):
        measure(folder, seed)
        measure(
            folder, seed, *("--search", "optuna", "--sampler", "gp", "--groups", GROUPS), f"--trials={options.trials}"
        )
    dense = Run.read(options.dense) if options.dense else None
    runs = [Run.read(folder) for folder in folders]
    print("\n## Lambdas by groups, really measured")
    say(
        f"`merge-calib demo --no-retained --draws {DRAWS} --lambdas 0:1.5:0.1 --seed SEED`, then in the same folder "
        f"with `--search optuna --sampler gp --groups {GROUPS} --trials {options.trials}` besides."
    )
    say(MEASURING)
    if dense is not None:
        say(f"The last row is a control: all single lambdas of {options.dense.name}, the same pair and questions.")
    every = [lines_of(run, dense) for run in runs]
    for seed, lines in enumerate(every):
        print_seed(seed, lines)
    print_ahead(every)
    print_differences(runs, dense)
    print_sentences(runs)
    for note in options.note:
        say(note)


def measure(folder: Path, seed: int, *more: str) -> None:
    """Give the command that measures; it goes on where it was cut off."""
    command = [sys.executable, "-m", "merge_calib", "demo", "--no-retained", f"--draws={DRAWS}", "--lambdas=0:1.5:0.1"]
    subprocess.run([*command, f"--seed={seed}", f"--out={folder}", *more], check=True, stdout=sys.stderr)


@dataclass(frozen=True)
class Line:
    """What is found among points of one kind; values (L, 2) of the selected one, none where it was not asked."""

    points: int
    selected: MergePoint
    values: Mapping[str, Floats]
    shares: Mapping[str, float]


def lines_of(run: Run, dense: Run | None) -> dict[str, Line]:
    """By kind of points, all held against the same box."""
    kinds = {kind: run.only(kind) for kind in KINDS} | ({DENSE: dense} if dense else {})
    boxes = {split: Box.around(np.concatenate([each.values(split) for each in kinds.values()])) for split in SPLITS}
    return {
        kind: Line(
            len(each.splits["select"]),
            each.points[each.selected],
            {split: each.values(split, [each.selected]) for split in SPLITS},
            {split: boxes[split].share(each.values(split, each.named)) for split in SPLITS},
        )
        for kind, each in kinds.items()
    }


def print_seed(seed: int, lines: Mapping[str, Line]) -> None:
    print(f"\nSeed {seed}:\n")
    print("| among | points | selected | accuracy and SCE, select | report | hypervolume, select | report |")
    print("| :-- | --: | :-- | --: | --: | --: | --: |")
    for kind, row in lines.items():
        found = [values_text(row.values[split]) for split in SPLITS]
        shares = [f"{row.shares[split]:.3f}" for split in SPLITS]
        print(f"| {kind} | {row.points} | {lambdas_text(row.selected)} | {' | '.join((*found, *shares))} |")


def print_ahead(every: Sequence[Mapping[str, Line]]) -> None:
    """In how many seeds groups are ahead of each kind of single lambdas."""
    say("Seeds in which lambdas by groups are ahead of single ones, by the plain values above:")
    print("\n| of | lower SCE, select | report | hypervolume, select | report |\n| :-- | --: | --: | --: | --: |")
    for kind in (kind for kind in every[0] if kind != BY_GROUPS):
        pairs = [(lines[BY_GROUPS], lines[kind]) for lines in every]
        cells = []
        for split in SPLITS:
            both = [(ours.values[split], theirs.values[split]) for ours, theirs in pairs]
            errors = [(ours[0, 1], theirs[0, 1]) for ours, theirs in both if len(ours) and len(theirs)]
            cells.append(f"{sum(ours < theirs for ours, theirs in errors)} of {len(errors)}")
        for split in SPLITS:
            cells.append(f"{sum(o.shares[split] > t.shares[split] for o, t in pairs)} of {len(pairs)}")
        print(f"| {kind} | {' | '.join(cells)} |")


def print_differences(runs: Sequence[Run], dense: Run | None) -> None:
    """From the best single lambda, of the grid and of the dense run, to the best by groups, question by question."""
    say(
        "From the selected single lambda to the point that is selected by groups, on `report`, paired by question, "
        "with 95 % normal intervals:"
    )
    print()
    print("| seed | from | accuracy, points | NLL | Brier |\n| --: | :-- | --: | --: | --: |")
    for seed, run in enumerate(runs):
        by_groups = run.only(BY_GROUPS)
        after = run.predictions(by_groups.selected)
        singles = {COARSE: run.only(COARSE)} | ({DENSE: dense} if dense else {})
        for name, each in singles.items():
            found = changes(each.predictions(each.selected), after)
            print(f"| {seed} | {name}: {lambdas_text(each.points[each.selected])} | {' | '.join(found)} |")


def changes(before: Predictions, after: Predictions) -> Iterator[str]:
    losses = [[100.0 * p.hit, -p.log_truth, metrics.brier_scores(p)] for p in (before, after)]
    for old, new, digits in zip(*losses, (2, 4, 4), strict=True):
        difference = np.asarray(new) - np.asarray(old)
        half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
        mean = difference.mean()
        yield f"{mean:+.{digits}f} [{mean - half:+.{digits}f}, {mean + half:+.{digits}f}]"


def print_sentences(runs: Sequence[Run]) -> None:
    """What the reports themselves say."""
    print()
    for seed, run in enumerate(runs):
        page = (run.folder / "report.md").read_text(encoding="utf-8")
        selected = json.loads((run.folder / "frontier.json").read_text(encoding="utf-8"))["selected"]["point"]
        said = re.search(r"^- ((?:One lambda for all|The rule selects one lambda).*)$", page, re.MULTILINE)
        sentence = said[1] if said else "nothing of groups"
        print(
            f"Seed {seed}, selected by the run: {lambdas_text(run.points[selected])}. Its report says:\n> {sentence}\n"
        )


def lambdas_text(point: MergePoint) -> str:
    return ", ".join(f"{group} {lam:g}" for group, lam in point.groups) if point.lam is None else f"{point.lam:g}"


def values_text(values: Floats) -> str:
    return f"{100 * values[0, 0]:.2f} %, {values[0, 1]:.4f}" if len(values) else "not asked"


def say(text: str) -> None:
    """Print a paragraph."""
    print(f"\n{textwrap.fill(' '.join(text.split()), WIDTH, break_on_hyphens=False)}")


def versions() -> str:
    numerics = f"numpy {np.__version__}, scipy {scipy.__version__}, optuna {optuna.__version__}"
    return f"Python {platform.python_version()}, {numerics}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    replayed = commands.add_parser("one", help="one lambda, replayed on a dense sweep")
    replayed.add_argument("run", type=Path, metavar="DENSE_RUN")
    replayed.add_argument("--seeds", type=int, default=10, help="divisions of the questions")
    replayed.add_argument("--trials", type=int, default=30, help="of each study")
    replayed.add_argument("--note", action="append", default=[], metavar="TEXT", help="printed as it is")
    replayed.add_argument("--figure", type=Path, metavar="PNG")
    replayed.set_defaults(do=one)
    measured = commands.add_parser("groups", help="lambdas by groups, measured on the demo pair")
    measured.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    measured.add_argument("--seeds", type=int, default=3)
    measured.add_argument("--trials", type=int, default=40)
    measured.add_argument("--dense", type=Path, metavar="DENSE_RUN", help="all single lambdas, as a control")
    measured.add_argument("--note", action="append", default=[], metavar="TEXT", help="printed as it is")
    measured.set_defaults(do=groups)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
