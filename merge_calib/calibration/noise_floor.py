"""What ECE and SCE would be of a perfectly calibrated model with the same probabilities."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from merge_calib.calibration.metrics import AnyPredictions, bin_index
from merge_calib.errors import ScoringError
from merge_calib.scores import Booleans, Floats, Integers, Predictions, TopPredictions

# Two redrawn values that are equal on paper may differ by the rounding of their sums.
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Floor:
    """A measure under perfect calibration: the values (R,) that redrawn labels gave, beside the one observed."""

    observed: float
    redrawn: Floats

    @property
    def mean(self) -> float:
        return float(self.redrawn.mean())

    @property
    def p95(self) -> float:
        """The 95th percentile of what redrawn labels gave."""
        return float(np.quantile(self.redrawn, 0.95))

    @property
    def p_value(self) -> float:
        """How rare the observed value is: (1 + number of redrawn values >= observed) / (R + 1), one-sided."""
        as_large = int((self.redrawn >= self.observed - ROUNDING).sum())
        return (1 + as_large) / (len(self.redrawn) + 1)


def mean_floor(floors: Sequence[Floor], weights: Sequence[float] | None = None) -> Floor:
    """The floor of a mean over tasks, or over parts of a task with `weights`: their redraws are averaged one by one."""
    observed = float(np.average([floor.observed for floor in floors], weights=weights))
    return Floor(observed, np.average([floor.redrawn for floor in floors], axis=0, weights=weights))


@dataclass(frozen=True)
class NoiseFloor:
    """The floors of `metrics.ece` and `metrics.sce`; sce is None where only the top option is known."""

    ece: Floor
    sce: Floor | None


def noise_floor(p: AnyPredictions, bins: int = 10, redraws: int = 200, seed: int = 0) -> NoiseFloor:
    """Redraw the labels from the model's own probabilities `redraws` times and measure ECE and SCE each time.

    Probabilities and questions stay as they are. Source: consistency resampling, Bröcker & Smith 2007, here with the
    forecasts fixed; used for classifiers by Vaicenavicius et al. 2019. The p-value is that of Phipson & Smyth 2010.
    Raises ScoringError where there are no questions.
    """
    assert redraws > 0, f"the noise floor needs at least one redraw, not {redraws}"
    if len(p.hit) == 0:
        raise ScoringError("the noise floor of no questions is undefined")
    top = _top_gap(p.confidence, bins)
    if isinstance(p, TopPredictions):
        return NoiseFloor(_floor(top(p.hit), [top(hit) for hit in redraw_hits(p, redraws, seed)]), None)
    classwise = _classwise_gap(p, bins)
    redrawn = [(top(np.equal(p.predicted, y)), classwise(y)) for y in redraw_answers(p, redraws, seed)]
    ece, sce = zip(*redrawn, strict=True)
    return NoiseFloor(_floor(top(p.hit), ece), _floor(classwise(p.answers), sce))


def redraw_answers(p: Predictions, redraws: int, seed: int) -> Iterator[Integers]:
    """Answers (N,) drawn from each question's probabilities, `redraws` times; an option of probability 0 never is."""
    rng = np.random.default_rng(seed)
    steps = p.probabilities.cumsum(1)
    # Divided, every option from the last possible one on ends at exactly 1, which no draw exceeds.
    steps = np.ascontiguousarray((steps / steps[:, -1:])[:, :-1].T)
    for _ in range(redraws):
        above_zero = 1 - rng.random(len(p.answers))  # in (0, 1]: a draw of 0 would take a first option of probability 0
        yield (above_zero > steps).sum(0)


def redraw_hits(p: TopPredictions, redraws: int, seed: int) -> Iterator[Booleans]:
    """Hits (N,) drawn with the model's confidence, `redraws` times."""
    rng = np.random.default_rng(seed)
    for _ in range(redraws):
        yield rng.random(len(p.confidence)) < p.confidence


def _top_gap(confidence: Floats, bins: int) -> Callable[[Booleans], float]:
    """ECE as a function of the hits alone: bins and expected hits do not move, so only the hits are counted."""
    index = bin_index(confidence, bins)
    expected = np.bincount(index, confidence, minlength=bins)

    def gap(hit: Booleans) -> float:
        return float(np.abs(np.bincount(index[hit], minlength=bins) - expected).sum() / len(index))

    return gap


def _classwise_gap(p: Predictions, bins: int) -> Callable[[Integers], float]:
    """SCE as a function of the answers alone: the cell (class, bin) of each right option is counted."""
    n, count = p.mask.shape
    cells = bin_index(p.probabilities, bins) + bins * np.arange(count)
    expected = np.bincount(cells[p.mask], p.probabilities[p.mask], minlength=bins * count)
    flat, first, pairs = cells.ravel(), np.arange(n) * count, p.mask.sum()

    def gap(answers: Integers) -> float:
        return float(np.abs(np.bincount(flat[first + answers], minlength=bins * count) - expected).sum() / pairs)

    return gap


def _floor(observed: float, redrawn: Sequence[float]) -> Floor:
    return Floor(observed, np.array(redrawn))
