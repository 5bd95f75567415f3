"""The noise floor against the metrics themselves on redrawn labels, known floors and its own promise as a test."""

from dataclasses import replace

import numpy as np
import pytest

from merge_calib.calibration import metrics
from merge_calib.calibration.noise_floor import Floor, NoiseFloor, noise_floor, redraw_answers, redraw_hits
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


def slow(observed: float, redrawn: list[float]) -> Floor:
    as_large = sum(value >= observed - 1e-12 for value in redrawn)
    return Floor(
        pytest.approx(sum(redrawn) / len(redrawn), abs=1e-12),
        pytest.approx(np.percentile(redrawn, 95), abs=1e-12),
        (1 + as_large) / (1 + len(redrawn)),
    )


@pytest.mark.parametrize("bins", [7, 10, 15])
@pytest.mark.parametrize("p", [calibrated(0, 200), calibrated(1, 150, 2, 1.2), ragged(2, 120)])
def test_floor_equals_the_metrics_of_redrawn_labels(p, bins):
    redrawn = [replace(p, answers=y) for y in redraw_answers(p, 40, seed=3)]
    assert noise_floor(p, bins, redraws=40, seed=3) == NoiseFloor(
        slow(metrics.ece(p, bins), [metrics.ece(one, bins) for one in redrawn]),
        slow(metrics.sce(p, bins), [metrics.sce(one, bins) for one in redrawn]),
    )


def test_next_tokens_have_the_floor_of_redrawn_hits_and_no_classwise_one():
    whole = calibrated(4, 200)
    p = TopPredictions(whole.confidence, whole.hit, whole.log_truth)
    redrawn = [metrics.ece(replace(p, hit=hit)) for hit in redraw_hits(p, 40, seed=3)]
    assert noise_floor(p, 10, redraws=40, seed=3) == NoiseFloor(slow(metrics.ece(p), redrawn), None)


def test_floor_by_hand():
    # One question told half and half: either label gives a gap of .5, so that nothing else can come out.
    coin = Predictions.from_probabilities(np.array([[0.5, 0.5]]), np.array([1]))
    assert noise_floor(coin) == NoiseFloor(Floor(0.5, 0.5, 1.0), Floor(0.5, 0.5, 1.0))


def test_a_model_that_is_certain_has_no_noise():
    certain = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    right = Predictions.from_probabilities(certain, np.array([1, 2, 0]))
    wrong = Predictions.from_probabilities(certain, np.array([1, 2, 2]))
    assert noise_floor(right, redraws=19).sce == Floor(0.0, 0.0, 1.0)
    assert noise_floor(wrong, redraws=19).sce == Floor(0.0, 0.0, 1 / 20)
    assert noise_floor(wrong, redraws=19).ece == Floor(0.0, 0.0, 1 / 20)


def test_labels_are_drawn_as_often_as_told_and_never_where_impossible():
    told = np.array([0.0, 0.3, 0.0, 0.6, 0.1, 0.0])
    mask = told > 0
    p = Predictions.from_probabilities(np.tile(told, (20_000, 1)), np.full(20_000, 3), np.tile(mask, (20_000, 1)))
    (answers,) = redraw_answers(p, 1, seed=0)
    share = np.bincount(answers, minlength=6) / 20_000
    assert share[~mask].sum() == 0
    # four standard errors of a share of one half
    assert share == pytest.approx(told, abs=4 * 0.5 / np.sqrt(20_000))


def test_rows_that_miss_one_by_rounding_never_draw_an_option_that_is_not_there():
    short = np.tile([0.5, 0.5 - 5e-7, 0.0], (50_000, 1))
    p = Predictions.from_probabilities(short, np.zeros(50_000, dtype=np.int64), short > 0)
    assert max(int(y.max()) for y in redraw_answers(p, 20, seed=0)) == 1


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
    assert noise_floor(p, seed=1) == noise_floor(p, seed=1) != noise_floor(p, seed=2)


def test_the_order_of_questions_moves_the_floor_by_chance_alone():
    p = calibrated(0, 1000)
    moved = noise_floor(p.take(np.random.default_rng(0).permutation(1000)))
    # a redrawn SCE has a standard deviation of .004, so a mean of 200 has .0003
    assert moved.sce.mean == pytest.approx(noise_floor(p).sce.mean, abs=0.0015)


def test_no_questions_and_no_redraws_are_refused():
    p = calibrated(0, 10)
    with pytest.raises(ScoringError, match="the noise floor of no questions"):
        noise_floor(p.take(np.arange(0)))
    with pytest.raises(AssertionError, match="at least one redraw, not 0"):
        noise_floor(p, redraws=0)
