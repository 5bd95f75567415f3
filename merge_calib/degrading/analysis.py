"""The degradation analysis of runs: what alignment changed, in which pair most, and what more of it does.

All questions take part, for nothing is chosen by them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.stats import norm

from merge_calib.analysis import Analysis
from merge_calib.answers import MEAN
from merge_calib.degradation.amplification import Collapse, Line, collapse, kendalls_tau, slope
from merge_calib.degradation.change import Change, ChangeEstimate, estimated, rates, unbiased
from merge_calib.degradation.ranks import Concordance, Rank, estimated_ranks, kendalls_w
from merge_calib.degrading.cells import Cell, Key, cells_measured, cells_of, outline
from merge_calib.degrading.pairs import Amplified, Pair, open_pairs, require_same_questions
from merge_calib.errors import InputError
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.joint import DEBIASED, MEANS, Joint
from merge_calib.progress import Watch, unwatched
from merge_calib.results import Results
from merge_calib.scores import Floats

MEASURES = ("accuracy", "ece", "sce", "sce_agreement", "ece2", "sce2", "nll", "brier", "mean_confidence")
# Plug-in errors are biased, and confidence is neither good nor bad: no test says that they are worse.
TESTED = ("accuracy", "ece2", "sce2", "nll", "brier")


@dataclass(frozen=True)
class ChangeRow:
    """What alignment did to a measure of a pair on a task, or on the mean over tasks; rate_draws (B,): of the rate."""

    pair: str
    task: str
    confidence: str
    measure: str
    n: int
    estimate: ChangeEstimate
    rate_draws: Floats = field(repr=False, compare=False)

    @property
    def change(self) -> Change:
        return self.estimate.change


@dataclass(frozen=True)
class Ranking:
    """The same change in all pairs, each with its rank by change rate; None where the rate is undefined."""

    task: str
    confidence: str
    measure: str
    rows: tuple[ChangeRow, ...]
    ranks: tuple[Rank | None, ...]


@dataclass(frozen=True)
class Agreement:
    """How far the tasks agree on the order of the pairs; None where that is undefined."""

    confidence: str
    measure: str
    tasks: tuple[str, ...]
    concordance: Concordance | None


@dataclass(frozen=True)
class Trend:
    """How a measure of a pair moves with lambda, over all of it and from the aligned model on.

    A slope or tau is None where there are too few lambdas or nothing moves; collapse is None for a measure that is not
    tested.
    """

    pair: str
    task: str
    confidence: str
    measure: str
    along: Amplified
    lambdas: tuple[float, ...]
    n: int
    slope: Estimate | None
    tau: Estimate | None
    slope_beyond: Estimate | None
    tau_beyond: Estimate | None
    collapse: Collapse | None


@dataclass(frozen=True, eq=False)
class Degradation:
    """The analysis of one pair or several.

    bins: M of all binned measures; size: to how many questions each task was cut, None where they are as they were
    cells: by pair, task (`mean` where there are several) and confidence method
    """

    pairs: tuple[Pair, ...]
    analysis: Analysis
    bins: int
    size: int | None
    cells: Mapping[Key, Cell]

    @cached_property
    def changes(self) -> tuple[ChangeRow, ...]:
        """Every pair x confidence method x measure x task, the mean last."""
        return tuple(self._changes())

    @cached_property
    def rankings(self) -> tuple[Ranking, ...]:
        """Every change that all pairs have, ranked; none for a single pair."""
        groups: dict[Key, list[ChangeRow]] = {}
        for row in self.changes if len(self.pairs) > 1 else ():
            groups.setdefault((row.task, row.confidence, row.measure), []).append(row)
        return tuple(_ranking(rows) for rows in groups.values() if self._can_rank(rows))

    @cached_property
    def agreements(self) -> tuple[Agreement, ...]:
        """Kendall's W over the ranked tasks, by confidence method and measure."""
        groups: dict[tuple[str, str], list[Ranking]] = {}
        for ranking in self.rankings:
            if ranking.task != MEAN:
                groups.setdefault((ranking.confidence, ranking.measure), []).append(ranking)
        return tuple(_agreement(rankings) for rankings in groups.values())

    @cached_property
    def trends(self) -> tuple[Trend, ...]:
        """Every pair x method x confidence method x measure x task that was measured beyond lambda = 1."""
        return tuple(self._trends())

    @cached_property
    def unanswered(self) -> tuple[Key, ...]:
        """Pair, task and confidence method that some parent was not measured on."""
        found = []
        for pair in self.pairs:
            asked = outline(pair.run)
            keys = [(pair.name, task, c) for c in asked.confidences for task in asked.tasks_of(c)]
            found += [key for key in keys if key not in self.cells]
        return tuple(found)

    def tasks_of(self, pair: str, confidence: str) -> tuple[str, ...]:
        """The tasks of a pair that both parents answered by a confidence method, without the mean."""
        return tuple(task for name, task, by in self.cells if (name, by) == (pair, confidence) and task != MEAN)

    @cached_property
    def confidences(self) -> tuple[str, ...]:
        """The confidence methods of all pairs."""
        return tuple(dict.fromkeys(confidence for _, _, confidence in self.cells))

    def _cells(self) -> Iterator[tuple[Pair, str, str, str, Joint, Cell]]:
        for pair in self.pairs:
            for confidence in self.confidences:
                for measure in MEASURES:
                    for task in (*self.tasks_of(pair.name, confidence), MEAN):
                        cell = self.cells.get((pair.name, task, confidence))
                        if cell is not None and cell.joint.has(measure):
                            yield pair, task, confidence, measure, cell.joint, cell

    def _changes(self) -> Iterator[ChangeRow]:
        for pair, task, confidence, measure, joint, cell in self._cells():
            places = [joint.at(point.name) for point in (pair.base, pair.aligned)]
            values = [float(joint.values[measure][place]) for place in places]
            base, aligned = (joint.draws[measure][:, place] for place in places)
            change, is_mean = Change(values[0], values[1], _floor(measure, cell, base)), measure in MEANS
            found = estimated(change, base, aligned, joint.n, is_mean)
            draws = rates(*unbiased(change, base, aligned, is_mean))
            yield ChangeRow(pair.name, task, confidence, measure, joint.n, found, draws)

    def _can_rank(self, rows: Sequence[ChangeRow]) -> bool:
        """Whether all pairs have the change, and a mean is one over the same tasks."""
        asked = {frozenset(self.tasks_of(row.pair, row.confidence)) for row in rows}
        return len(rows) == len(self.pairs) and (rows[0].task != MEAN or len(asked) == 1)

    def _trends(self) -> Iterator[Trend]:
        for pair, task, confidence, measure, joint, _ in self._cells():
            for along in pair.amplified:
                if len({point.name for point in along.points} & set(joint.names)) > 2:
                    yield _trend((pair.name, task, confidence), measure, along, joint)


def degradation_of(
    pairs: Sequence[Pair], *, match_sizes: bool = False, analysis: Analysis | None = None, watch: Watch = unwatched
) -> Degradation:
    """Measure both parents of each pair and what lies beyond; no model is needed.

    match_sizes: cut every task to as many questions as the smallest has, so that the bias of plug-in errors is alike
    analysis: number, seed and clusters of the draws; those of the first run by default
    Raises InputError where several pairs do not share their questions.
    """
    if len(pairs) > 1:
        require_same_questions(pairs)
    plan = pairs[0].run.plan
    analysis = analysis or Analysis.of(plan)
    cells, size = cells_of(pairs, analysis, plan["bins"], match_sizes=match_sizes, watch=watch)
    return Degradation(tuple(pairs), analysis, plan["bins"], size, cells)


def degradation_measured(results: Results) -> Degradation | None:
    """The analysis of one sweep that has its results; None where a parent was not measured."""
    try:
        (pair,) = open_pairs([results.run.path])
    except InputError:
        return None
    cells = cells_measured(pair, results)
    return Degradation((pair,), results.analysis, results.run.plan["bins"], None, cells) if cells else None


def _floor(measure: str, cell: Cell, base: Floats) -> float | None:
    """95th percentile of a measure of the base if it were calibrated, from its draws (B,) where the mean is then 0."""
    if measure in DEBIASED:
        return float(norm.ppf(0.95) * base.std(ddof=1))
    return cell.floors[measure].p95 if measure in cell.floors else None


def _ranking(rows: Sequence[ChangeRow]) -> Ranking:
    draws = np.stack([row.rate_draws for row in rows], axis=1)
    first = rows[0]
    found = estimated_ranks(_rates(rows), draws)
    return Ranking(first.task, first.confidence, first.measure, tuple(rows), tuple(found))


def _agreement(rankings: Sequence[Ranking]) -> Agreement:
    found = kendalls_w(np.array([_rates(ranking.rows) for ranking in rankings]))
    tasks = tuple(ranking.task for ranking in rankings)
    return Agreement(rankings[0].confidence, rankings[0].measure, tasks, found)


def _rates(rows: Sequence[ChangeRow]) -> Floats:
    """Change rates (P,), NaN where undefined."""
    return np.array([math.nan if row.change.rate is None else row.change.rate for row in rows])


def _trend(key: Key, measure: str, along: Amplified, joint: Joint) -> Trend:
    points = [point for point in along.points if point.name in joint.names]
    places = [joint.at(point.name) for point in points]
    lambdas = np.array([point.lam for point in points], dtype=np.float64)
    line = Line(lambdas, joint.values[measure][places], joint.draws[measure][:, places], joint.n)
    beyond = line.amplified
    return Trend(
        *key,
        measure=measure,
        along=along,
        lambdas=tuple(lambdas.tolist()),
        n=joint.n,
        slope=slope(line),
        tau=kendalls_tau(line),
        slope_beyond=slope(beyond),
        tau_beyond=kendalls_tau(beyond),
        collapse=collapse(line, higher_is_better=measure == "accuracy") if measure in TESTED else None,
    )
