"""The adaptive search replayed on dense sweeps, whose truth is known at every lambda of its grid.

    merge-calib sweep --base .. --aligned .. --lambdas 0:1.5:0.015 --out DENSE_RUN
    python tools/prove_adaptive.py DENSE_RUN [DENSE_RUN ...] > tools/results/prove_adaptive.md

Nothing is asked of a model: each point that the search proposes is answered from the stored scores. Then what it
predicts of the others is compared with what was measured there. The demo pair's dense sweep is
`--tasks merge_calib/demo_pair/questions.jsonl` with the two models beside that file. `--note` is printed as it is: what
the runs are.
"""

import argparse
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from merge_calib.calibration import metrics
from merge_calib.inference.splits import divide
from merge_calib.interpolation import interpolate
from merge_calib.merging.point import MergePoint
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import Booleans, ChoiceScores, Predictions
from merge_calib.search.adaptive import MEASURES, Adaptive, grid_of, places
from merge_calib.search.strategy import Outcome

BINS, TOLERANCE, BUDGET, FALLBACK = 10, 0.005, 9, 16
COLUMNS: Mapping[str, Callable[[Predictions], float]] = {
    "accuracy": metrics.accuracy,
    "ece": metrics.ece,
    "sce": metrics.sce,
    "nll": metrics.nll,
}
SIZES, DRAWS = (500, 1000, 2000), 4  # random subsets of the questions on which estimate and truth are compared
SMALLEST = 1e-3  # an error of less is none: ratios to it would say nothing


@dataclass(frozen=True)
class Dense:
    """One task of a run that was measured at every lambda of an even grid: scores by lambda."""

    name: str
    scores: Mapping[float, ChoiceScores]
    points: int
    subjects: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Dense":
        """The first task of multiple choice and the first confidence method of a run."""
        run = RunDirectory.open(folder)
        task = next(name for name, facts in run.plan["tasks"].items() if facts["kind"] == "choice")
        points = [point for point in run.points() if isinstance(point, MergePoint) and point.lam is not None]
        scores = {point.lam: run.scores(point, task, run.plan["confidence"][0]) for point in points}
        known = {lam: found for lam, found in scores.items() if isinstance(found, ChoiceScores) and lam is not None}
        asked = run.asked(task)
        assert asked is not None
        return cls(folder.name, dict(sorted(known.items())), _grid_points(sorted(known)), asked.subjects)

    @property
    def grid(self) -> tuple[float, ...]:
        return grid_of(min(self.scores), max(self.scores), self.points)

    @property
    def rows(self) -> dict[str, Booleans]:
        """Masks (N,) of the questions by split, as a sweep divides them."""
        ids = next(iter(self.scores.values())).ids
        fold = divide(ids, self.subjects, 0.5)
        return {"select": fold.select, "report": fold.report, "all": np.ones(len(ids), dtype=bool)}

    @property
    def distance(self) -> float:
        """The mean absolute difference between the parents' log-probabilities of the options, in nats."""
        base, aligned = (self.scores[lam].predictions for lam in (0.0, 1.0))
        return float(np.abs(aligned.log_probabilities[base.mask] - base.log_probabilities[base.mask]).mean())

    def take(self, rows: Booleans) -> "Dense":
        """The same with some of the questions."""
        kept = tuple(subject for subject, row in zip(self.subjects, rows, strict=True) if row)
        return Dense(self.name, {lam: scores.take(rows) for lam, scores in self.scores.items()}, self.points, kept)

    def outcome(self, lam: float) -> Outcome:
        p = self.scores[lam].predictions
        return Outcome({"accuracy": metrics.accuracy(p), "sce": metrics.sce(p, BINS)}, {"task": self.scores[lam]})

    def search(self) -> Adaptive:
        """The search, driven to its end; it falls back on 16 lambdas of the grid."""
        fallback = [self.grid[round(i * (self.points - 1) / (FALLBACK - 1))] for i in range(FALLBACK)]
        low, high = self.grid[0], self.grid[-1]
        search = Adaptive(
            *("linear", {}, low, high),
            budget=BUDGET,
            tolerance=TOLERANCE,
            fallback=fallback,
            bins=BINS,
            points=self.points,
        )
        while (point := search.propose()) is not None:
            assert point.lam is not None
            search.hear(point, self.outcome(point.lam))
        return search

    def errors(self, nodes: Sequence[float], lambdas: Sequence[float]) -> dict[str, float]:
        """How far at worst each measure lies from the truth at `lambdas` when it is predicted from `nodes`."""
        found = dict.fromkeys(COLUMNS, 0.0)
        predicted = interpolate(nodes, [self.scores[lam] for lam in nodes], lambdas)
        for lam, scores in zip(lambdas, predicted, strict=True):
            for name, measure in COLUMNS.items():
                truth = measure(self.scores[lam].predictions)
                found[name] = max(found[name], abs(measure(scores.predictions) - truth))
        return found


@dataclass(frozen=True)
class Check:
    """What one search estimated in a round, and the truth of it."""

    points: int
    estimate: tuple[float, float]
    truth: tuple[float, float]


def checks(dense: Dense, record: Mapping[str, Any]) -> Iterator[Check]:
    """All rounds of a search: its estimates of accuracy and SCE beside their true worst errors on the grid."""
    for held in record["rounds"]:
        if held["accuracy"] is not None:
            nodes = record["nodes"][: held["nodes"]]
            truth = dense.errors(nodes, dense.grid)
            yield Check(held["nodes"], (held["accuracy"], held["sce"]), (truth["accuracy"], truth["sce"]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("runs", nargs="+", type=Path, metavar="DENSE_RUN")
    options.add_argument("--note", action="append", default=[], metavar="TEXT")
    given = options.parse_args()
    runs = [Dense.read(folder) for folder in given.runs]
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    print("# The adaptive search on sweeps whose truth is known\n")
    print("Made by `python tools/prove_adaptive.py DENSE_RUN ...`, which replays the search on stored scores.")
    print(f"Tolerance {TOLERANCE:g}, budget {BUDGET} nodes, M = {BINS}, fallback of {FALLBACK} lambdas; {versions}.")
    for note in given.note:
        print(f"\n{note}")
    print("\nHow far apart the parents are (mean change of an option's normalised log-probability, in nats): ", end="")
    print(", ".join(f"{run.name} {run.distance:.1f}" for run in runs) + ".")
    records = [run.take(run.rows["select"]).search().record() for run in runs]
    print_searches(runs, records)
    print_errors(runs, records)
    print_rounds(runs, records)
    print_subsets(runs)


def print_searches(runs: Sequence[Dense], records: Sequence[Mapping[str, Any]]) -> None:
    print("\n## What was measured\n")
    print("| run | lambdas of the grid | measured | nodes | confirmed | measured of the grid | estimate | outcome |")
    print("| :-- | --: | --: | --: | --: | --: | --: | :-- |")
    for run, record in zip(runs, records, strict=True):
        measured = len({0.0, 1.0, *record["nodes"], *record["confirmed"]})
        estimate = " / ".join(f"{record['estimate'][name]:.4f}" for name in MEASURES)
        cells = run.name, run.points, measured, len(record["nodes"]), len(record["confirmed"])
        print(f"| {' | '.join(map(str, cells))} | {measured / run.points:.0%} | {estimate} | {outcome_of(record)} |")
    print("\nMeasured: all points, with both parents and those that confirm. Estimate: of accuracy / SCE, by the half")
    print("of the questions that chooses.")


def outcome_of(record: Mapping[str, Any]) -> str:
    if record["settled"]:
        return "settled after it fell back" if record["fell_back"] else "settled"
    return "fell back, predicts nothing"


def print_errors(runs: Sequence[Dense], records: Sequence[Mapping[str, Any]]) -> None:
    print("\n## Worst error of what is predicted, over all lambdas that were not measured\n")
    print(f"| run | questions | {' | '.join(COLUMNS)} |")
    print(f"| :-- | :-- | {' | '.join('--:' for _ in COLUMNS)} |")
    for run, record in zip(runs, records, strict=True):
        note = "" if record["settled"] else ", not given out"
        for split, rows in run.rows.items():
            errors = run.take(rows).errors(record["nodes"], places(record))
            print(
                f"| {run.name}{note} | {split} ({rows.sum():,}) | {' | '.join(f'{e:.4f}' for e in errors.values())} |"
            )
    print(
        "\nThe search sees the questions `select` alone. NLL in nats; where nothing is given out, the errors are those"
    )
    print("of the predictions that were withheld.")


def print_rounds(runs: Sequence[Dense], records: Sequence[Mapping[str, Any]]) -> None:
    print("\n## Estimate and truth after each node\n")
    print("| run | nodes | estimate of accuracy | truth | estimate of SCE | truth |")
    print("| :-- | --: | --: | --: | --: | --: |")
    for run, record in zip(runs, records, strict=True):
        for check in checks(run.take(run.rows["select"]), record):
            pairs = [f"{each:.4f}" for pair in zip(check.estimate, check.truth, strict=True) for each in pair]
            print(f"| {run.name} | {check.points} | {' | '.join(pairs)} |")


def print_subsets(runs: Sequence[Dense]) -> None:
    print("\n## The same on random subsets of the questions\n")
    print(
        f"{DRAWS} subsets of each size. Ratio: estimate over true worst error, in all rounds of all searches (quantiles"
    )
    print(".1, .5, .9), the larger of accuracy's and SCE's. Worst: true error of either measure in a search that")
    print("settled.\n")
    print("| run | questions | settled | measured, mean | ratio | worst where settled, median / largest |")
    print("| :-- | --: | --: | --: | --: | --: |")
    every: list[Check] = []
    for run in runs:
        total = len(run.rows["all"])
        for size in (size for size in SIZES if size < total):
            found = [subset_search(run, size, seed) for seed in range(DRAWS)]
            held = [check for _, rounds in found for check in rounds]
            every += held
            print(f"| {run.name} | {size:,} | {subset_cells(found, held)} |")
    logs = np.log([[max(each.estimate), max(*each.truth, SMALLEST)] for each in every])
    print(f"\nAll {len(every)} rounds together: ratio {ratios(every)}; correlation of the logarithms of estimate and")
    print(f"truth {np.corrcoef(logs.T)[0, 1]:.2f}.")


def subset_search(run: Dense, size: int, seed: int) -> tuple[Mapping[str, Any], list[Check]]:
    """The record of the search on `size` questions drawn at random, and its rounds."""
    rows = np.zeros(len(run.rows["all"]), dtype=bool)
    rows[np.random.default_rng(seed).permutation(len(rows))[:size]] = True
    some = run.take(rows)
    record = some.search().record()
    return record, list(checks(some, record))


def subset_cells(found: Sequence[tuple[Mapping[str, Any], list[Check]]], held: Sequence[Check]) -> str:
    settled = [max(rounds[-1].truth) for record, rounds in found if record["settled"]]
    measured = np.mean([len({0.0, 1.0, *record["nodes"], *record["confirmed"]}) for record, _ in found])
    worst = f"{np.median(settled):.4f} / {max(settled):.4f}" if settled else "none"
    return f"{len(settled)} of {len(found)} | {measured:.1f} | {ratios(held)} | {worst}"


def ratios(held: Sequence[Check]) -> str:
    """Quantiles of estimate over truth."""
    found = [max(check.estimate) / max(*check.truth, SMALLEST) for check in held]
    return ", ".join(f"{quantile:.2f}" for quantile in np.quantile(found, (0.1, 0.5, 0.9)))


def _grid_points(lambdas: Sequence[float]) -> int:
    """How many lambdas the grid has: all that are evenly spaced; 1, always measured, may lie between two of them."""
    for count in (len(lambdas), len(lambdas) - 1):
        if set(grid_of(lambdas[0], lambdas[-1], count)) <= set(lambdas):
            return count
    raise SystemExit(f"{len(lambdas)} lambdas that are not evenly spaced: no grid to compare with")


if __name__ == "__main__":
    main()
