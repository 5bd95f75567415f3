"""The noise floor against the metrics themselves on redrawn labels, known floors and its own promise as a test."""

from dataclasses import replace

import numpy as np
import pytest

from merge_calib.calibration import metrics
from merge_calib.calibration.noise_floor import Floor, mean_floor, noise_floor, redraw_answers, redraw_hits
from merge_calib.errors import ScoringError
from merge_calib.scores import ChoiceScores, Predictions, TopPredictions


def calibrated(seed: int, n: int, options: int = 4, sharpen: float = 1.0) -> Predictions:
    """Labels drawn from Dirichlet(1) rows; `sharpen` above 1 makes what is told over-confident."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(options), n)
    y = (rng.random(n)[:, None] > p.cumsum(1)).sum(1).clip(0, options - 1)
    p = p**sharpen
    return Predictions.from_probabilities(p / p.sum(1, keepdims=True), y)


def ragged(seed: int, n: int) -> Predictions:
    """Questions with two to five options, the missing ones anywhere."""
    rng = np.random.default_rng(seed)
    mask = rng.permuted(np.arange(5) < rng.integers(2, 6, n)[:, None], axis=1)
    logits = np.where(mask, rng.normal(size=mask.shape) * 2, np.nan)
    return ChoiceScores(tuple(map(str, range(n))), mask.argmax(1), logits, mask).predictions


def numbers(floor: Floor) -> tuple[float, float, float]:
    return floor.mean, floor.p95, floor.p_value


def slow(observed: float, redrawn: list[float]) -> tuple[float, float, float]:
    as_large = sum(value >= observed - 1e-12 for value in redrawn)
    return sum(redrawn) / len(redrawn), float(np.percentile(redrawn, 95)), (1 + as_large) / (1 + len(redrawn))


@pytest.mark.parametrize("bins", [7, 10, 15])
@pytest.mark.parametrize("p", [calibrated(0, 200), calibrated(1, 150, 2, 1.2), ragged(2, 120)])
def test_floor_equals_the_metrics_of_redrawn_labels(p, bins):
    redrawn = [replace(p, answers=y) for y in redraw_answers(p, 40, seed=3)]
    found = noise_floor(p, bins, redraws=40, seed=3)
    for floor, metric in ((found.ece, metrics.ece), (found.sce, metrics.sce)):
        values = [metric(one, bins) for one in redrawn]
        assert floor.observed == pytest.approx(metric(p, bins), abs=1e-12)
        assert floor.redrawn == pytest.approx(values, abs=1e-12)
        assert numbers(floor) == pytest.approx(slow(metric(p, bins), values), abs=1e-12)


def test_next_tokens_have_the_floor_of_redrawn_hits_and_no_classwise_one():
    whole = calibrated(4, 200)
    p = TopPredictions(whole.confidence, whole.hit, whole.log_truth)
    redrawn = [metrics.ece(replace(p, hit=hit)) for hit in redraw_hits(p, 40, seed=3)]
    found = noise_floor(p, 10, redraws=40, seed=3)
    assert numbers(found.ece) == pytest.approx(slow(metrics.ece(p), redrawn), abs=1e-12)
    assert found.sce is None


def test_floor_by_hand():
    # One question told half and half: either label gives a gap of .5, so that nothing else can come out.
    coin = Predictions.from_probabilities(np.array([[0.5, 0.5]]), np.array([1]))
    assert numbers(noise_floor(coin).ece) == (0.5, 0.5, 1.0)
    assert numbers(noise_floor(coin).sce) == (0.5, 0.5, 1.0)


def test_a_model_that_is_certain_has_no_noise():
    certain = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    right = Predictions.from_probabilities(certain, np.array([1, 2, 0]))
    wrong = Predictions.from_probabilities(certain, np.array([1, 2, 2]))
    assert numbers(noise_floor(right, redraws=19).sce) == (0.0, 0.0, 1.0)
    assert numbers(noise_floor(wrong, redraws=19).sce) == (0.0, 0.0, 1 / 20)
    assert numbers(noise_floor(wrong, redraws=19).ece) == (0.0, 0.0, 1 / 20)


def test_labels_are_drawn_as_often_as_told_and_never_where_impossible():
    told = np.array([0.0, 0.3, 0.0, 0.6, 0.1, 0.0])
    mask = told > 0
    p = Predictions.from_probabilities(np.tile(told, (20_000, 1)), np.full(20_000, 3), np.tile(mask, (20_000, 1)))
    (answers,) = redraw_answers(p, 1, seed=0)
    share = np.bincount(answers, minlength=6) / 20_000
    assert share[~mask].sum() == 0
    # four standard errors of a share of one half
    assert share == pytest.approx(told, abs=4 * 0.5 / np.sqrt(20_000))


class Drawn:
    """A generator whose every number is the same."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self, n: int) -> np.ndarray:
        return np.full(n, self.number)


@pytest.mark.parametrize(("number", "expected"), [(0.0, 2), (np.nextafter(1.0, 0), 1)])
def test_the_ends_of_the_random_numbers_never_draw_an_impossible_option(monkeypatch, number, expected):
    # The row misses 1 by less than is refused, and begins and ends with an option of probability 0.
    short = np.array([[0.0, 0.5, 0.5 - 5e-7, 0.0]])
    p = Predictions.from_probabilities(short, np.array([1]), short > 0)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Drawn(number))
    assert [y.tolist() for y in redraw_answers(p, 1, seed=0)] == [[expected]]


# Mean of metrics.sce over 1,500, 800, 400 and 100 sets with labels drawn from their rows: the floor without a redraw.
# Standard errors are .0002, .0001, .0001 and .0001; floors of single sets differ by 2 % (one standard deviation).
@pytest.mark.parametrize(("n", "expected"), [(300, 0.0496), (1000, 0.0274), (2376, 0.0177), (10042, 0.0085)])
def test_floor_of_four_options_is_the_mean_error_of_calibrated_models(n, expected):
    floors = [noise_floor(calibrated(seed, n), redraws=60).sce.mean for seed in range(5)]
    assert np.mean(floors) == pytest.approx(expected, abs=0.0005 + 3 * 0.02 * expected / np.sqrt(5))


def test_a_calibrated_model_gets_small_p_values_as_rarely_as_they_say_and_another_gets_the_smallest():
    values = [noise_floor(calibrated(seed, 150), redraws=59) for seed in range(200)]
    for measure in ("ece", "sce"):
        p_values = np.array([getattr(value, measure).p_value for value in values])
        # the share has a standard error of .021 at .1 and of .035 at .5
        assert np.mean(p_values <= 0.1) == pytest.approx(0.1, abs=0.065)
        assert np.mean(p_values <= 0.5) == pytest.approx(0.5, abs=0.11)
    found = noise_floor(calibrated(0, 1000, sharpen=2.0), redraws=99)
    assert (found.ece.p_value, found.sce.p_value) == (0.01, 0.01)


def test_the_seed_decides_the_redraws():
    p = calibrated(0, 100)
    first, again, other = (noise_floor(p, seed=seed).sce.redrawn for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_order_of_questions_moves_the_floor_by_chance_alone():
    p = calibrated(0, 1000)
    moved = noise_floor(p.take(np.random.default_rng(0).permutation(1000)))
    # a redrawn SCE has a standard deviation of .004, so a mean of 200 has .0003
    assert moved.sce.mean == pytest.approx(noise_floor(p).sce.mean, abs=0.0015)


def test_a_redrawn_value_that_rounding_makes_smaller_counts_as_equal():
    assert 0.1 + 0.2 > 0.3
    assert Floor(0.1 + 0.2, np.array([0.3, 0.2])).p_value == 2 / 3


def test_the_floor_of_a_mean_by_hand():
    floors = [Floor(0.3, np.array([0.1, 0.2, 0.3])), Floor(0.1, np.array([0.3, 0.0, 0.1]))]
    alike, weighted = mean_floor(floors), mean_floor(floors, [3, 1])
    assert alike.redrawn == pytest.approx([0.2, 0.1, 0.2])
    assert (alike.observed, alike.mean, alike.p_value) == pytest.approx((0.2, 0.5 / 3, 3 / 4))
    assert weighted.redrawn == pytest.approx([0.15, 0.15, 0.25])
    assert (weighted.observed, weighted.p_value) == pytest.approx((0.25, 2 / 4))


def test_the_floor_of_a_mean_is_that_of_redrawing_every_task_and_averaging():
    tasks = [calibrated(0, 100), calibrated(1, 300, 3), ragged(2, 50)]
    redraws = [[metrics.sce(replace(p, answers=y)) for y in redraw_answers(p, 40, s)] for s, p in enumerate(tasks)]
    averaged = [sum(values) / 3 for values in zip(*redraws, strict=True)]
    observed = sum(metrics.sce(p) for p in tasks) / 3
    found = mean_floor([noise_floor(p, redraws=40, seed=s).sce for s, p in enumerate(tasks)])
    assert numbers(found) == pytest.approx(slow(observed, averaged), abs=1e-12)


def test_no_questions_and_no_redraws_are_refused():
    p = calibrated(0, 10)
    with pytest.raises(ScoringError, match="the noise floor of no questions"):
        noise_floor(p.take(np.arange(0)))
    with pytest.raises(AssertionError, match="at least one redraw, not 0"):
        noise_floor(p, redraws=0)
