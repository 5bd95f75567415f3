"""What early stopping of hopeless points saves, and how often it is wrong.

    python tools/simulate_early_stopping.py [--runs 500] [RUN_DIR ...] > tools/results/simulate_early_stopping.md

On data whose truth is known: twelve points were measured in full, their frontier is what a new point is held against.
Each question has probabilities drawn from a flat Dirichlet distribution, and its right option is drawn from them. The
forecast of a point (noise s, sharpness a) is p exp(s z), to the power a; nine tenths of the variance of z are shared by
all points, so that they answer alike. More noise is less accuracy, more sharpness is more confidence.
On sweeps that were really run (RUN_DIR): both parents first, then the other points in random order. Where a run holds
its parents alone, mixtures of their log-probabilities stand in for merges.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import scipy
from scipy.special import log_softmax
from scipy.stats import norm

from merge_calib.asked import read_asked
from merge_calib.calibration.metrics import bin_index
from merge_calib.frontier import Candidate, non_dominated
from merge_calib.inference.hopeless import Behind, Measure, compare, estimate, jackknife, looks, order
from merge_calib.inference.splits import divide
from merge_calib.scores import ChoiceScores, Floats, Integers, Predictions, load_scores
from merge_calib.selection import select

CONFIDENCES = (0.9, 0.95, 0.99)
BINS, OPTIONS = 10, 4
SIZES = (300, 1000, 2376)
SHARED, POOL = 0.9, 12  # variance of the noise that all points share, and how many were measured before
LARGE, CHUNK = 800_000, 100_000
QUESTION_ORDERS, POINT_ORDERS = 5, 5  # of each real run: question orders, and for each of them orders of the points
MIXED = tuple(round(0.1 * i, 10) for i in range(16))
ERRORS = {"sce": "sce2", "nll": "nll"}  # an objective and what it is compared by

# How looks, points measured and those of them on the frontier divide what 1 - confidence allows.
CORRECTIONS: Mapping[str, Callable[[int, int, int], int]] = {
    "looks x points": lambda looked, points, _: looked * points,
    "looks x frontier": lambda looked, _, frontier: looked * frontier,
    "looks": lambda looked, _, __: looked,
    "none": lambda _, __, ___: 1,
}
OURS = "looks x points"
INTRODUCTION = """A point is stopped at an
eighth, a quarter or a half of the questions (at 100 or more) where one incumbent is surely better in accuracy and in
calibration. The incumbents are the frontier of the points measured so far; what 1 - confidence allows is divided by the
number of looks and of all these points (`looks x points`), because the frontier was chosen by the very answers that are
compared. The other corrections are controls."""
CONCLUSION = """
## What follows

The default is 0.95, divided by looks and by all points measured. Twelve points before the new one are enough to break
the promise of a correction that counts only the frontier, and far more that of one that counts the looks alone. 0.9
saves little more, 0.99 saves clearly less on few questions. What is saved depends on how many points are truly worse
in both: where accuracy is flat along lambda it is a few per cent, for an error alone never stops a point. With hundreds
of points measured before, each new one must be worse by more, and less is saved. The promise is made for each point,
not for a search. Accuracy that a study is told of a stopped point is too low where the point was nearly as good as its
incumbent: only bad luck stops such a point."""
Kind = tuple[float, str]  # a confidence and a correction
KINDS = tuple((confidence, correction) for correction in CORRECTIONS for confidence in CONFIDENCES)


def dominates(behind: Sequence[Behind], z: float) -> bool:
    """Whether an incumbent is surely better by every objective: what `hopeless` asks, for any z."""
    return all(b.value - z * b.spread > 1e-12 for b in behind)


def critical(kind: Kind, looked: int, points: int, frontier: int) -> float:
    confidence, correction = kind
    return float(norm.isf((1 - confidence) / CORRECTIONS[correction](looked, points, frontier)))


# --- data whose truth is known -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forecaster:
    """A point: its noise and its sharpness."""

    noise: float
    sharpness: float

    def answer(self, logits: Floats, z: Floats) -> Floats:
        """Log-probabilities (n, K) from the logarithms of the true probabilities and the noise."""
        return np.asarray(log_softmax(self.sharpness * (logits + self.noise * z), axis=1), dtype=np.float64)


@cache
def truth(point: Forecaster) -> Mapping[str, float]:
    """Accuracy and every error of a point over all questions that there could be, with expected outcomes."""
    rng = np.random.default_rng(7)
    sums = dict.fromkeys(("accuracy", "nll", "brier"), 0.0)
    counts, gaps = np.zeros((OPTIONS + 1, BINS)), np.zeros((OPTIONS + 1, BINS))
    for _ in range(LARGE // CHUNK):
        right = rng.dirichlet(np.ones(OPTIONS), CHUNK)
        log_p = point.answer(np.log(np.maximum(right, 1e-300)), rng.standard_normal(right.shape))
        p = np.exp(log_p)
        top = right[np.arange(CHUNK), p.argmax(1)]
        sums["accuracy"] += float(top.sum())
        sums["nll"] -= float((right * log_p).sum())
        sums["brier"] += float((p**2).sum() - 2 * (p * right).sum() + CHUNK)
        for i, (probability, expected) in enumerate([(p.max(1), top), *zip(p.T, right.T, strict=True)]):
            index = bin_index(probability, BINS)
            counts[i] += np.bincount(index, minlength=BINS)
            gaps[i] += np.bincount(index, expected - probability, minlength=BINS)
    squared = (gaps**2 / np.maximum(counts, 1)).sum(1) / LARGE
    absolute = np.abs(gaps).sum(1) / LARGE
    found = {name: total / LARGE for name, total in sums.items()}
    return found | {"ece2": squared[0], "sce2": squared[1:].mean(), "ece": absolute[0], "sce": absolute[1:].mean()}


@dataclass(frozen=True)
class Scenario:
    """A new point, and those that were measured before it. hopeless: whether one of them truly dominates it"""

    name: str
    point: Forecaster
    pool: tuple[Forecaster, ...]
    objective: str
    hopeless: bool


def scenarios() -> Iterator[Scenario]:
    """Two on the very edge of the null hypothesis, where it is hardest to keep, one inside, three truly dominated."""
    sharper = tuple(Forecaster(0.4, a) for a in np.linspace(1.0, 2.2, POOL))
    yield Scenario("as accurate as all, worst calibrated", Forecaster(0.4, 3.0), sharper, "sce", False)
    noisy = Forecaster(1.0, 1.0)
    for objective in ERRORS:
        alike = (Forecaster(0.4, equally_wrong(noisy, 0.4, ERRORS[objective])),) * POOL
        yield Scenario(f"least accurate, {objective} as all", noisy, alike, objective, False)
    line = tuple(Forecaster(0.9 - 0.6 * t, 1.0 + 1.2 * t) for t in np.linspace(0, 1, POOL))
    yield Scenario("amid the frontier", Forecaster(0.6, 1.6), line, "sce", False)
    yield Scenario("dominated by a little", Forecaster(0.8, 1.8), line, "sce", True)
    yield Scenario("dominated by more", Forecaster(1.2, 2.2), line, "sce", True)
    yield Scenario("dominated by much", Forecaster(2.0, 3.0), line, "sce", True)


def equally_wrong(point: Forecaster, noise: float, measure: str) -> float:
    """The sharpness at which a point with another noise has the same error, by bisection."""
    low, high = 1.0, 4.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if truth(Forecaster(noise, middle))[measure] < truth(point)[measure] else (low, middle)
        )
    return low


@dataclass
class Stops:
    """Of many searches: how many questions there were and were asked, how many points were stopped."""

    points: int = 0
    stopped: int = 0
    shares: list[float] = field(default_factory=list)

    def add(self, share: float) -> None:
        self.points += 1
        self.stopped += share < 1
        self.shares.append(share)

    @property
    def rate(self) -> float:
        return 100 * self.stopped / self.points

    @property
    def asked(self) -> float:
        return 100 * float(np.mean(self.shares))


def simulate(scenario: Scenario, n: int, runs: int) -> dict[Kind, Stops]:
    """How often and when the new point is stopped."""
    rng = np.random.default_rng([n, len(scenario.name)])
    found = {kind: Stops() for kind in KINDS}
    for _ in range(runs):
        point, frontier = draw(scenario, n, rng)
        compared = [(m, compared_at(point, frontier, m, scenario.objective)) for m in looks(n)]
        for kind, stops in found.items():
            z = critical(kind, len(compared), len(scenario.pool), len(frontier))
            stops.add(next((m / n for m, each in compared if any(dominates(b, z) for b in each)), 1.0))
    return found


def draw(scenario: Scenario, n: int, rng: np.random.Generator) -> tuple[Predictions, list[Predictions]]:
    """The new point's answers to n questions, and those of the frontier of the points before it, by these answers."""
    right = rng.dirichlet(np.ones(OPTIONS), n)
    answers = (rng.random(n)[:, None] > right.cumsum(1)).sum(1).clip(0, OPTIONS - 1)
    logits, common = np.log(np.maximum(right, 1e-300)), np.sqrt(SHARED) * rng.standard_normal(right.shape)

    def answered(forecaster: Forecaster) -> Predictions:
        z = common + np.sqrt(1 - SHARED) * rng.standard_normal(right.shape)
        log_p = forecaster.answer(logits, z)
        return Predictions(log_p, np.exp(log_p), answers, np.ones(log_p.shape, dtype=bool))

    pool = [answered(forecaster) for forecaster in scenario.pool]
    kept = non_dominated([candidate(str(i), 0.5, {"": p}, scenario.objective) for i, p in enumerate(pool)])
    return answered(scenario.point), [p for p, keep in zip(pool, kept, strict=True) if keep]


def compared_at(
    point: Predictions, frontier: Sequence[Predictions], asked: int, objective: str
) -> list[tuple[Behind, ...]]:
    rows = np.arange(asked)
    incumbents = {str(i): {"": p.take(rows)} for i, p in enumerate(frontier)}
    return list(compare({"": point.take(rows)}, incumbents, ("accuracy", objective), BINS).values())


def candidate(name: str, lam: float | None, answered: Mapping[str, Predictions], objective: str) -> Candidate:
    values = measured(answered, objective)
    return Candidate(name, lam, values["accuracy"], values[objective], lam == 1.0)


def measured(answered: Mapping[str, Predictions], objective: str) -> dict[str, float]:
    bins = BINS if objective in ("ece", "sce") else 0
    return {
        measure.name: float(np.mean([jackknife(p, measure).value for p in answered.values()]))
        for measure in (Measure("accuracy"), Measure(objective, bins))
    }


# --- sweeps that were really run -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sweep:
    """What all points of a run answered to the questions that choose, by task, in the order of asking.

    tasks (N,): the task of each question in that order
    """

    answers: Mapping[str, Mapping[str, Predictions]]
    candidates: Mapping[str, Candidate]
    tasks: Integers
    _compared: dict[tuple[int, str, str], tuple[Behind, ...]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.tasks)

    def cut(self, point: str, asked: int) -> dict[str, Predictions]:
        """The answers of a point after some of the questions."""
        sizes = np.bincount(self.tasks[:asked], minlength=len(self.answers[point]))
        return {t: p.take(np.arange(m)) for (t, p), m in zip(self.answers[point].items(), sizes, strict=True)}

    def compared(self, asked: int, point: str, incumbent: str) -> tuple[Behind, ...]:
        key = asked, point, incumbent
        if key not in self._compared:
            other = {incumbent: self.cut(incumbent, asked)}
            self._compared[key] = compare(self.cut(point, asked), other, ("accuracy", "sce"), BINS)[incumbent]
        return self._compared[key]


def read_sweep(run: Path, seed: int) -> Sweep:
    """A run's answers, its choosing questions in the order of a seed."""
    confidence = json.loads((run / "run.json").read_text(encoding="utf-8"))["confidence"][0]
    points = sorted(folder.name for folder in (run / "scores").iterdir())
    tasks = sorted(file.name.split(".")[0] for file in (run / "scores" / points[0]).glob(f"*.{confidence}.npz"))
    asked, rows = ordered(run, points[0], tasks, confidence, seed)
    answers = {
        point: {task: scores_of(run, point, task, confidence).predictions.take(rows[task]) for task in tasks}
        for point in points
    }
    lams = {point: float(point.rsplit("-", 1)[1]) if "-lambda-" in point else None for point in points}
    if len(points) == 2:
        answers, lams = mixtures(*answers.values()), {f"{lam:g}": lam for lam in MIXED}
    return Sweep(answers, {p: candidate(p, lams[p], answers[p], "sce") for p in answers}, asked)


def mixtures(base: Mapping[str, Predictions], aligned: Mapping[str, Predictions]) -> dict[str, dict[str, Predictions]]:
    """Stand-ins for merges: (1 - lambda) times the base's log-probabilities plus lambda times the aligned model's."""

    def mixed(p: Predictions, q: Predictions, lam: float) -> Predictions:
        outside = np.where(p.mask, 0.0, -np.inf)
        known = (np.where(p.mask, each.log_probabilities, 0.0) for each in (p, q))
        log_p = np.asarray(log_softmax(np.average(list(known), axis=0, weights=(1 - lam, lam)) + outside, axis=1))
        return Predictions(log_p, np.exp(log_p), p.answers, p.mask)

    return {f"{lam:g}": {task: mixed(base[task], aligned[task], lam) for task in base} for lam in MIXED}


def ordered(
    run: Path, point: str, tasks: Sequence[str], confidence: str, seed: int
) -> tuple[Integers, dict[str, Integers]]:
    """The task of each choosing question in the order of asking, and the rows of each task in this order."""
    places: list[tuple[int, int]] = []
    ids: list[str] = []
    subjects: list[str] = []
    for t, task in enumerate(tasks):
        own = scores_of(run, point, task, confidence).ids
        known = read_asked(run / "questions" / f"{task}.jsonl")
        of = known.subjects if known and known.ids == own else ("",) * len(own)
        for i in np.flatnonzero(divide(own, of, 0.5).select):
            places.append((t, int(i)))
            ids.append(f"{task} {own[i]}")
            subjects.append(f"{task} {of[i]}")
    asked = [places[i] for i in order(ids, subjects, seed)]
    rows = {task: np.array([i for other, i in asked if other == t]) for t, task in enumerate(tasks)}
    return np.array([t for t, _ in asked]), rows


def scores_of(run: Path, point: str, task: str, confidence: str) -> ChoiceScores:
    scores = load_scores(run / "scores" / point / f"{task}.{confidence}.npz")
    assert isinstance(scores, ChoiceScores)
    return scores


@dataclass
class Replayed:
    """Of many searches over the points of one run."""

    shares: list[float] = field(default_factory=list)
    stopped: int = 0
    lost: int = 0  # of those stopped: on the frontier of all points by all choosing questions
    unselected: int = 0  # searches that end with another selected point
    told: list[tuple[float, float]] = field(default_factory=list)  # errors of what a study is told: accuracy, sce
    tempting: int = 0  # of those stopped: by what is told no point that was asked everything dominates it


def replay(sweep: Sweep, kind: Kind, rng: np.random.Generator, found: Replayed) -> None:
    """One search: both parents, then the other points in random order, each stopped where it is hopeless."""
    everything = list(sweep.candidates.values())
    parents = [c.name for c in everything if c.lam in (0.0, 1.0)]
    others = [c.name for c in everything if c.name not in parents]
    best = {c.name for c, keep in zip(everything, non_dominated(everything), strict=True) if keep}
    whole = [sweep.candidates[name] for name in parents]
    asked = [1.0] * len(parents)
    stops = []
    for name in rng.permutation(others):
        incumbents = [c.name for c, keep in zip(whole, non_dominated(whole), strict=True) if keep]
        m, incumbent = asked_until(sweep, str(name), incumbents, len(whole), kind)
        asked.append(m / sweep.n)
        if incumbent is None:
            whole.append(sweep.candidates[str(name)])
        else:
            stops.append((str(name), m, incumbent))
            found.lost += name in best
    found.shares.append(float(np.mean(asked)))
    found.stopped += len(stops)
    found.unselected += select(everything).point != select(whole).point
    if kind[1] == OURS:
        tell(sweep, stops, whole, found)


def asked_until(sweep: Sweep, name: str, incumbents: Sequence[str], points: int, kind: Kind) -> tuple[int, str | None]:
    """How many questions a point is asked, and the incumbent that stopped it, one of the frontier of some points."""
    z = critical(kind, len(looks(sweep.n)), points, len(incumbents))
    for m in looks(sweep.n):
        for incumbent in incumbents:
            if dominates(sweep.compared(m, name, incumbent), z):
                return m, incumbent
    return sweep.n, None


def tell(sweep: Sweep, stops: Sequence[tuple[str, int, str]], whole: Sequence[Candidate], found: Replayed) -> None:
    """Compare what a study is told of the stopped points with what they are."""
    for name, m, incumbent in stops:
        at = sweep.candidates[incumbent]
        measures = {"accuracy": at.accuracy, "sce": at.error}
        told = estimate(sweep.cut(name, m), sweep.cut(incumbent, m), measures, BINS)
        true = sweep.candidates[name]
        found.told.append((told["accuracy"] - true.accuracy, told["sce"] - true.error))
        found.tempting += not any(c.accuracy >= told["accuracy"] and c.error <= told["sce"] for c in whole)


# --- what is printed -----------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs_done", nargs="*", type=Path, metavar="RUN_DIR", help="sweeps that were really run")
    parser.add_argument("--runs", type=int, default=500, help="data sets of each size and scenario")
    options = parser.parse_args()
    began = time.perf_counter()
    print("# Early stopping of hopeless points\n")
    names = " ".join(run.name for run in options.runs_done)
    print(f"Made by `python tools/simulate_early_stopping.py --runs {options.runs} {names}`. Python")
    print(f"{platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}. {INTRODUCTION}")
    print_simulated(options.runs)
    for run in options.runs_done:
        print_real(run)
    print(CONCLUSION)
    print(f"\nAll of it took {(time.perf_counter() - began) / 60:.0f} minutes on one core that other work shared.")


def print_simulated(runs: int) -> None:
    print("\n## Data whose truth is known\n\n| new point | accuracy | sce | accuracy and sce of those before |")
    print("| :-- | --: | --: | :-- |")
    listed = list(scenarios())
    for s in listed:
        own, ends = truth(s.point), (truth(s.pool[0]), truth(s.pool[-1]))
        before = " to ".join(
            f"{end['accuracy']:.3f}, {end['sce']:.3f}" for end in (ends[:1] if s.pool[0] == s.pool[-1] else ends)
        )
        print(f"| {s.name} | {own['accuracy']:.3f} | {own['sce']:.3f} | {before} |")
    found = {(s.name, n): simulate(s, n, runs) for s in listed for n in SIZES}
    error = 100 * np.sqrt(0.05 * 0.95 / runs)
    print(
        "\nHow many per cent of points are stopped although nothing truly dominates them. At most 100 (1 - confidence)"
    )
    print(f"is allowed; the simulation's standard error is {error:.1f} at 5.\n")
    columns = [(correction, confidence) for correction in CORRECTIONS for confidence in CONFIDENCES]
    print(f"| new point | N | {' | '.join(f'{c:g}, {name}' for name, c in columns)} |")
    print(f"| :-- | --: |{' --: |' * len(columns)}")
    for s in (s for s in listed if not s.hopeless):
        for n in SIZES:
            rates = (f"{found[s.name, n][confidence, name].rate:.1f}" for name, confidence in columns)
            print(f"| {s.name} | {n} | {' | '.join(rates)} |")
    print("\nPoints that are truly dominated: per cent of them stopped, and per cent of their questions asked.\n")
    print(f"| new point | N | {' | '.join(f'{c:g}, {name}' for name, c in columns)} |")
    print(f"| :-- | --: |{' --: |' * len(columns)}")
    for s in (s for s in listed if s.hopeless):
        for n in SIZES:
            cells = (found[s.name, n][confidence, name] for name, confidence in columns)
            print(f"| {s.name} | {n} | {' | '.join(f'{c.rate:.0f}, {c.asked:.0f}' for c in cells)} |", flush=True)


def print_real(run: Path) -> None:
    found = {kind: Replayed() for kind in KINDS}
    for seed in range(QUESTION_ORDERS):
        sweep = read_sweep(run, seed)
        for kind, replayed in found.items():
            rng = np.random.default_rng(seed)
            for _ in range(POINT_ORDERS):
                replay(sweep, kind, rng, replayed)
    everything = list(sweep.candidates.values())
    print(f"\n## {run.name}: {len(everything)} points, {sweep.n} questions that choose\n")
    if len(list((run / "scores").iterdir())) == 2:
        print("The points are mixtures of the parents' log-probabilities.")
    print(f"{int(non_dominated(everything).sum())} points are on the frontier by all these questions.")
    print(f"{QUESTION_ORDERS} orders of the questions, {POINT_ORDERS} of the points for each.\n")
    print("| confidence, correction | questions asked, % | points stopped a search | of these on the frontier |")
    print("| :-- | --: | --: | --: |")
    searches = QUESTION_ORDERS * POINT_ORDERS
    for (confidence, correction), r in found.items():
        print(
            f"| {confidence:g}, {correction} | {100 * np.mean(r.shares):.1f} | {r.stopped / searches:.2f} | "
            f"{r.lost / searches:.3f} |"
        )
    print_told(found, searches)


def print_told(found: Mapping[Kind, Replayed], searches: int) -> None:
    for confidence in CONFIDENCES:
        r = found[confidence, OURS]
        told = told_of(r) if r.told else "No point is stopped."
        print(
            f"\nConfidence {confidence:g}: another point is selected in {r.unselected} of {searches} searches.\n{told}"
        )


def told_of(replayed: Replayed) -> str:
    told = np.array(replayed.told)
    (accuracy, sce), size = told.mean(0), np.sqrt((told**2).mean(0))
    return (
        f"What a study is told of a stopped point: accuracy off by {size[0]:.4f} (mean {accuracy:+.4f}), "
        f"SCE by {size[1]:.4f} (mean {sce:+.4f});\n{replayed.tempting} of {len(told)} are not dominated by it."
    )


if __name__ == "__main__":
    main()
