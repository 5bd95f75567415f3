"""What the paired bootstrap of a large run costs: seconds and memory, against a plain loop that resamples questions.

    OMP_NUM_THREADS=2 python tools/bench_bootstrap.py [--loop 5] > tools/results/bench_bootstrap.md

As many questions as MMLU has, in 57 subjects, with random answers: accuracy, NLL, Brier, ece2 and sce2 of every point
and of its differences to both parents. The loop is run on a few draws, checked against ours, and extrapolated.
"""

import argparse
import os
import platform
import resource
import time
from collections.abc import Mapping

import numpy as np
import scipy

from merge_calib.calibration import metrics
from merge_calib.calibration.squared import ece2, sce2
from merge_calib.inference.joint import Joint, joint_of
from merge_calib.inference.resampling import Counts, stratified
from merge_calib.scores import Predictions

MEASURES = ("accuracy", "nll", "brier", "ece2", "sce2")
SUBJECTS, OPTIONS, BINS = 57, 4, 10
GOAL = 20.0  # seconds, on two cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=14_042)
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--draws", type=int, default=2_000)
    parser.add_argument("--loop", type=int, default=5, help="draws of the plain loop")
    options = parser.parse_args()
    forecasts = random_forecasts(options.questions, options.points)
    subjects = np.arange(options.questions) % SUBJECTS

    began = time.perf_counter()
    counts = stratified(subjects, options.draws, 0)
    drawn = time.perf_counter()
    joint = joint_of(forecasts, counts, BINS)
    measured = time.perf_counter()
    given = number_of_intervals(joint)
    ended = time.perf_counter()
    memory = peak_bytes()

    began_loop = time.perf_counter()
    loop = plain_loop(forecasts, counts[: options.loop])
    a_draw = (time.perf_counter() - began_loop) / options.loop
    print("# The paired bootstrap of a large run\n")
    print(f"Made by `python tools/bench_bootstrap.py`: {options.draws:,} draws x {options.questions:,} questions x")
    print(f"{options.points} points, {OPTIONS} options, {SUBJECTS} subjects, M = {BINS}. {os.cpu_count()} cores,")
    print(
        f"{threads()} threads; Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}.\n"
    )
    print("| step | seconds |\n| :-- | --: |")
    print(f"| draw the questions | {drawn - began:.1f} |")
    print(f"| measure every point in every draw | {measured - drawn:.1f} |")
    print(f"| {given} intervals: every point and its differences to both parents | {ended - measured:.1f} |")
    print(f"| together (goal: under {GOAL:g}) | {ended - began:.1f} |")
    print(f"| a plain loop, {options.loop} draws, extrapolated to {options.draws:,} | {a_draw * options.draws:.0f} |\n")
    print(f"The loop takes {a_draw * options.draws / (ended - began):.0f} times as long. Peak memory of the process")
    print(
        f"before the loop {memory / 1e6:.0f} MB, of which the draws are {counts.nbytes / 1e6:.0f} MB. The loop's draws"
    )
    print(f"and ours differ by {largest_difference(joint, loop):.0e} at most.")


def random_forecasts(n: int, points: int) -> dict[str, Predictions]:
    """Ever more over-confident forecasts, each with some noise of its own."""
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.ones(OPTIONS), n)
    answers = (rng.random(n)[:, None] > truth.cumsum(1)).sum(1).clip(0, OPTIONS - 1)
    found = {}
    for i in range(points):
        p = (truth * np.exp(0.1 * rng.standard_normal(truth.shape))) ** (1 + 2 * i / points)
        found[f"{i}"] = Predictions.from_probabilities(p / p.sum(1, keepdims=True), answers)
    return found


def number_of_intervals(joint: Joint) -> int:
    """Make every interval, and say how many there are."""
    first, last = joint.names[0], joint.names[-1]
    made = [joint.estimate(measure, name) for measure in MEASURES for name in joint.names]
    for parent in (first, last):
        others = (name for name in joint.names if name != parent)
        made += [joint.difference(m, name, parent) for name in others for m in MEASURES]
    return len(made)


def plain_loop(forecasts: Mapping[str, Predictions], counts: Counts) -> dict[str, list[list[float]]]:
    """Each draw as a set of questions, measured as any set of questions is: by measure, draw and point."""
    found: dict[str, list[list[float]]] = {measure: [] for measure in MEASURES}
    for row in counts:
        rows = np.repeat(np.arange(len(row)), row.astype(np.int64))
        each = [measured_plainly(p.take(rows)) for p in forecasts.values()]
        for measure in MEASURES:
            found[measure].append([values[measure] for values in each])
    return found


def measured_plainly(p: Predictions) -> dict[str, float]:
    return {
        "accuracy": metrics.accuracy(p),
        "nll": metrics.nll(p),
        "brier": metrics.brier(p),
        "ece2": ece2(p, BINS).value,
        "sce2": sce2(p, BINS).value,
    }


def largest_difference(joint: Joint, loop: Mapping[str, list[list[float]]]) -> float:
    return max(float(np.abs(joint.draws[m][: len(loop[m])] - np.array(loop[m])).max()) for m in MEASURES)


def threads() -> str:
    return os.environ.get("OMP_NUM_THREADS", "as many")


def peak_bytes() -> int:
    """The most memory that this process has held so far. Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
