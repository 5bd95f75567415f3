"""Mixtures of two parents' answers against worked values, a plain loop and what is known at their ends."""

import math

import numpy as np
import pytest

from merge_calib.calibration import metrics
from merge_calib.calibration.mixture import mix_log_probabilities, mix_probabilities
from merge_calib.calibration.temperature import at_temperature
from merge_calib.errors import ScoringError
from merge_calib.scores import ChoiceScores, Predictions

BOTH = [mix_probabilities, mix_log_probabilities]


def told(probabilities, answers) -> Predictions:
    return Predictions.from_probabilities(np.array(probabilities, dtype=np.float64), np.array(answers))


def parents(seed: int, n: int) -> tuple[Predictions, Predictions]:
    """Two models on the same questions of two to five options."""
    rng = np.random.default_rng(seed)
    mask = np.arange(5) < rng.integers(2, 6, n)[:, None]
    ids, answers = tuple(map(str, range(n))), rng.integers(0, 2, n)
    base, aligned = (
        ChoiceScores(ids, answers, np.where(mask, rng.normal(size=mask.shape) * s, np.nan), mask).predictions
        for s in (1, 3)
    )
    return base, aligned


def test_mixtures_by_hand():
    base, aligned = told([[0.8, 0.2]], [0]), told([[0.4, 0.6]], [0])
    assert mix_probabilities(base, aligned, 0.25).probabilities[0] == pytest.approx([0.7, 0.3], abs=1e-12)
    # Odds multiply: 4^.5 x (2/3)^.5 = 1.63299; past the aligned model 4^-.5 x (2/3)^1.5 = .272166.
    half, past = (mix_log_probabilities(base, aligned, w).probabilities[0] for w in (0.5, 1.5))
    assert half == pytest.approx([1.6329932 / 2.6329932, 1 / 2.6329932], abs=1e-7)
    assert past == pytest.approx([0.2721655 / 1.2721655, 1 / 1.2721655], abs=1e-7)


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_mixtures_equal_a_plain_loop_where_options_vary(weight):
    base, aligned = parents(0, 60)
    linear, geometric = (mix(base, aligned, weight) for mix in BOTH)
    for i in range(60):
        options = np.flatnonzero(base.mask[i])
        b, a = base.probabilities[i], aligned.probabilities[i]
        weights = {k: b[k] ** (1 - weight) * a[k] ** weight for k in options}
        for k in options:
            expected = (1 - weight) * b[k] + weight * a[k]
            assert linear.probabilities[i, k] == pytest.approx(expected, abs=1e-12)
            assert linear.log_probabilities[i, k] == pytest.approx(math.log(expected), abs=1e-12)
            assert geometric.probabilities[i, k] == pytest.approx(weights[k] / sum(weights.values()), abs=1e-12)


@pytest.mark.parametrize("mix", BOTH)
def test_weights_zero_and_one_give_back_the_parents_bit_for_bit(mix):
    base, aligned = parents(1, 50)
    for weight, parent in ((0, base), (0.0, base), (1, aligned), (1.0, aligned)):
        mixed = mix(base, aligned, weight)
        assert np.array_equal(mixed.log_probabilities, parent.log_probabilities)
        assert np.array_equal(mixed.probabilities, parent.probabilities)


@pytest.mark.parametrize("mix", BOTH)
@pytest.mark.parametrize("weight", [0.3, 0.5, 1.0])
def test_mixtures_are_probabilities_of_the_same_options(mix, weight):
    base, aligned = parents(2, 100)
    mixed = mix(base, aligned, weight)
    assert mixed.probabilities.sum(1) == pytest.approx(np.ones(100), abs=1e-12)
    assert np.array_equal(np.isneginf(mixed.log_probabilities), ~base.mask)
    assert np.array_equal(mixed.mask, base.mask)
    assert np.array_equal(mixed.answers, base.answers)


@pytest.mark.parametrize("mix", BOTH)
def test_swapping_the_parents_swaps_the_weight(mix):
    base, aligned = parents(3, 50)
    swapped = mix(aligned, base, 0.75)
    assert swapped.probabilities == pytest.approx(mix(base, aligned, 0.25).probabilities, abs=1e-14)


@pytest.mark.parametrize("mix", BOTH)
def test_a_model_mixed_with_itself_is_itself(mix):
    base, _ = parents(4, 50)
    assert mix(base, base, 0.3).probabilities == pytest.approx(base.probabilities, abs=1e-14)


@pytest.mark.parametrize("weight", [-0.5, 0.4, 1.5, 3.0])
def test_a_geometric_mixture_with_a_uniform_base_is_a_temperature(weight):
    _, aligned = parents(5, 50)
    uniform = aligned.mask / aligned.mask.sum(1, keepdims=True)
    base = Predictions.from_probabilities(uniform, aligned.answers, aligned.mask)
    mixed = mix_log_probabilities(base, aligned, weight)
    if weight > 0:
        assert mixed.probabilities == pytest.approx(at_temperature(aligned, 1 / weight).probabilities, abs=1e-12)
    else:
        least = np.where(aligned.mask, aligned.log_probabilities, np.inf).argmin(1)
        assert np.array_equal(mixed.predicted, least)


def test_the_linear_mixture_loses_no_more_than_the_parents_on_average_and_differs_from_the_geometric_one():
    base, aligned = parents(6, 300)
    linear, geometric = (mix(base, aligned, 0.4) for mix in BOTH)
    assert metrics.nll(linear) < 0.6 * metrics.nll(base) + 0.4 * metrics.nll(aligned)
    assert np.abs(linear.probabilities - geometric.probabilities).max() > 0.05


def test_a_probability_too_small_for_a_float_keeps_its_logarithm():
    far = np.array([[-10.0, -2000.0]])
    p = ChoiceScores(("a",), np.array([1]), far, np.ones((1, 2), bool)).predictions
    assert p.probabilities[0, 1] == 0
    assert mix_probabilities(p, p, 0.5).log_truth[0] == pytest.approx(-1990.0)
    assert mix_log_probabilities(p, p, 0.5).log_truth[0] == pytest.approx(-1990.0)


def test_an_option_that_one_parent_excludes():
    base, aligned = told([[0.5, 0.5, 0.0]], [0]), told([[0.6, 0.2, 0.2]], [0])
    assert mix_probabilities(base, aligned, 0.5).probabilities[0] == pytest.approx([0.55, 0.35, 0.1], abs=1e-12)
    assert mix_log_probabilities(base, aligned, 0.5).probabilities[0, 2] == 0
    for weight, parent in ((0, base), (1, aligned)):
        assert not np.isnan(mix_log_probabilities(base, aligned, weight).log_probabilities).any()
        assert np.array_equal(mix_log_probabilities(base, aligned, weight).probabilities, parent.probabilities)


@pytest.mark.parametrize("weight", [-0.5, 0.5, 1.5])
def test_an_option_that_both_parents_exclude_stays_excluded(weight):
    base, aligned = told([[0.8, 0.2, 0.0]], [0]), told([[0.4, 0.6, 0.0]], [0])
    mixed = mix_log_probabilities(base, aligned, weight)
    assert mixed.log_probabilities[0, 2] == -np.inf
    assert mixed.probabilities[0].sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("base", "weight"), [([0.0, 1.0], 1.5), ([1.0, 0.0], 0.5)])
def test_a_geometric_mixture_without_a_distribution_is_refused(base, weight):
    # Past the aligned model an option that the base excludes would be infinitely likely; in between, nothing is left.
    others = told([base, [0.5, 0.5]], [0, 0])
    aligned = told([[0.3, 0.7] if weight > 1 else [0.0, 1.0], [0.3, 0.7]], [0, 0])
    with pytest.raises(ScoringError, match=rf"with weight {weight}: on 1 question\(s\)"):
        mix_log_probabilities(others, aligned, weight)


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_a_weight_outside_zero_and_one_is_refused_for_probabilities(weight):
    base, aligned = parents(7, 5)
    with pytest.raises(AssertionError, match="needs a weight between 0 and 1"):
        mix_probabilities(base, aligned, weight)


def test_a_weight_that_is_no_number_is_refused_for_log_probabilities():
    base, aligned = parents(7, 5)
    with pytest.raises(AssertionError, match="needs a finite weight"):
        mix_log_probabilities(base, aligned, math.nan)


@pytest.mark.parametrize("mix", BOTH)
def test_parents_that_were_asked_something_else_are_refused_at_every_weight(mix):
    base, aligned = parents(8, 20)
    other_answers = Predictions(aligned.log_probabilities, aligned.probabilities, 1 - aligned.answers, aligned.mask)
    other_options = parents(9, 20)[1]
    other_options = Predictions(
        other_options.log_probabilities, other_options.probabilities, base.answers, other_options.mask
    )
    for weight in (0, 0.5, 1):
        with pytest.raises(AssertionError, match="the parents' answers differ"):
            mix(base, other_answers, weight)
        with pytest.raises(AssertionError, match="the parents' options differ"):
            mix(base, other_options, weight)
