"""Temperatures, with labels and without, against worked values, fine grids and known answers."""

import math

import numpy as np
import pytest
from scipy.special import log_softmax

from merge_calib.calibration import metrics
from merge_calib.calibration.daca import fit_daca
from merge_calib.calibration.temperature import Target, at_temperature, fit_temperature, minimise_cross_entropy
from merge_calib.errors import ScoringError
from merge_calib.scores import ChoiceScores, Predictions


def scored(logits, answers, mask=None) -> Predictions:
    logits, answers = np.array(logits, dtype=np.float64), np.array(answers)
    mask = np.ones(logits.shape, dtype=bool) if mask is None else mask
    return ChoiceScores(tuple(map(str, range(len(answers)))), answers, logits, mask).predictions


def told(probabilities, answers) -> Predictions:
    return Predictions.from_probabilities(np.array(probabilities, dtype=np.float64), np.array(answers))


def drawn(seed: int, n: int, sharpen: float, spread: float = 1.5) -> Predictions:
    """Answers drawn from the softmax of normal logits of two to five options; the model tells `sharpen` times them."""
    rng = np.random.default_rng(seed)
    mask = np.arange(5) < rng.integers(2, 6, n)[:, None]
    logits = np.where(mask, rng.normal(size=mask.shape) * spread, -np.inf)
    noise = rng.gumbel(size=mask.shape)
    return scored(np.where(mask, logits * sharpen, np.nan), (logits + noise).argmax(1), mask)


def confident(n: int, right: int, p: float = 0.9) -> Predictions:
    """Two options, the first always told with probability p and right `right` times of n."""
    return told([[p, 1 - p]] * n, [0] * right + [1] * (n - right))


def slow_nll(p: Predictions, t: float) -> float:
    total = 0.0
    for row, valid, answer in zip(p.log_probabilities, p.mask, p.answers, strict=True):
        weights = {k: math.exp(row[k] / t) for k in range(len(row)) if valid[k]}
        total -= math.log(weights[answer] / sum(weights.values()))
    return total / len(p.answers)


def test_temperature_by_hand():
    # Told .9, right three times of four: 9^(1/T) / (1 + 9^(1/T)) = .75 where 9^(1/T) = 3.
    found = fit_temperature(confident(4, 3))
    assert found.value == pytest.approx(2.0, abs=1e-6)
    assert (found.at_bound, found.is_identified) == (False, True)
    assert at_temperature(confident(4, 3), 2.0).probabilities[0] == pytest.approx([0.75, 0.25], abs=1e-12)


@pytest.mark.parametrize(("sharpen", "spread"), [(0.2, 1.5), (1.0, 1.5), (2.5, 1.5), (8.0, 0.5), (1.0, 30.0)])
def test_no_temperature_of_a_fine_grid_has_a_lower_loss(sharpen, spread):
    p = drawn(1, 400, sharpen, spread)
    found = fit_temperature(p)
    grid = np.exp(np.linspace(np.log(0.01), np.log(100), 2001))
    losses = [-log_softmax(p.log_probabilities / t, axis=1)[np.arange(400), p.answers].mean() for t in grid]
    best = int(np.argmin(losses))
    assert not found.at_bound
    assert grid[best - 1] < found.value < grid[best + 1]
    assert metrics.nll(at_temperature(p, found.value)) <= losses[best] + 1e-12


def test_loss_at_a_temperature_equals_a_plain_loop():
    p = drawn(2, 100, 1.5)
    for t in (0.3, 1.0, 2.7):
        assert metrics.nll(at_temperature(p, t)) == pytest.approx(slow_nll(p, t), abs=1e-12)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found_again(true):
    # Two dozen thousand answers give log T to about .01.
    assert math.log(fit_temperature(drawn(3, 24_000, true)).value / true) == pytest.approx(0, abs=0.04)


def test_a_temperature_fitted_once_leaves_nothing_to_fit():
    p = drawn(4, 500, 2.0)
    again = fit_temperature(at_temperature(p, fit_temperature(p).value))
    assert again.value == pytest.approx(1.0, abs=1e-6)


def test_tasks_weigh_alike_whatever_their_sizes():
    # Right .9 of 10 and .6 of 1,000: .75 when tasks weigh alike, .603 when questions do.
    small, large = confident(10, 9), confident(1000, 600)
    assert fit_temperature([small, large]).value == pytest.approx(2.0, abs=1e-6)
    assert fit_temperature(confident(1010, 609)).value > 5


def test_the_order_of_questions_options_and_tasks_does_not_matter():
    p, q = drawn(5, 300, 2.0), drawn(6, 100, 1.0)
    order, columns = np.random.default_rng(0).permutation(300), np.array([4, 2, 0, 3, 1])
    moved = Predictions(
        p.log_probabilities[order][:, columns],
        p.probabilities[order][:, columns],
        np.argsort(columns)[p.answers[order]],
        p.mask[order][:, columns],
    )
    assert fit_temperature([q, moved]).value == pytest.approx(fit_temperature([p, q]).value, abs=1e-6)
    assert fit_temperature(p.take(np.tile(np.arange(300), 2))).value == pytest.approx(
        fit_temperature(p).value, abs=1e-6
    )


def test_a_task_that_is_all_right_ends_at_the_cold_bound_and_one_worse_than_chance_at_the_hot_one():
    cold, hot = fit_temperature(confident(5, 5)), fit_temperature(confident(5, 1))
    assert (cold.value, cold.at_bound, cold.is_identified) == (0.01, True, True)
    assert (hot.value, hot.at_bound, hot.is_identified) == (100.0, True, True)


def test_constant_scores_have_no_temperature():
    mask = np.array([[True, True, True], [True, True, False]])
    uniform = scored([[-7.3, -7.3, -7.3], [0.1, 0.1, np.nan]], [0, 1], mask)
    found = fit_temperature(uniform)
    assert (found.value, found.at_bound, found.is_identified) == (1.0, False, False)
    # Scores that differ by rounding alone say no more than equal ones.
    assert not fit_temperature(scored([[0.1 + 0.2, 0.3]], [0])).is_identified
    assert fit_temperature([uniform, confident(4, 3)]).value == pytest.approx(2.0, abs=1e-6)


def test_scores_hundreds_of_nats_apart_do_not_overflow():
    p = scored([[-10.0, -2000.0], [-900.0, -30.0], [-5.0, -400.0]], [0, 1, 1])
    found = fit_temperature(p)
    assert np.isfinite(metrics.nll(at_temperature(p, found.value)))
    assert np.isfinite(metrics.nll(at_temperature(p, 0.01)))


def test_a_right_option_of_probability_zero_is_refused_with_its_number():
    impossible = told([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], [1, 0, 0])
    with pytest.raises(ScoringError, match=r"the right option of 2 question\(s\) has probability 0"):
        fit_temperature([confident(4, 3), impossible])
    # A wrong option of probability 0 is no obstacle: it stays at 0 and the rest decides.
    assert fit_temperature(told([[0.9, 0.1, 0.0]] * 4, [0, 0, 0, 1])).value == pytest.approx(2.0, abs=1e-6)


def test_nothing_to_fit_on_is_refused():
    with pytest.raises(ScoringError, match="there are no questions"):
        fit_temperature([])
    with pytest.raises(ScoringError, match="there are no questions"):
        fit_temperature([confident(4, 3), confident(4, 3).take(np.arange(0))])


def test_temperature_one_gives_back_the_same_numbers():
    p = drawn(7, 50, 1.0)
    same = at_temperature(p, 1.0)
    assert np.array_equal(same.log_probabilities, p.log_probabilities)
    assert np.array_equal(same.probabilities, p.probabilities)


def test_tempered_rows_are_probabilities_of_the_same_options():
    p = drawn(8, 200, 1.0)
    for t in (0.01, 0.5, 3.0, 100.0):
        tempered = at_temperature(p, t)
        assert np.array_equal(np.isneginf(tempered.log_probabilities), ~p.mask)
        assert tempered.probabilities.sum(1) == pytest.approx(np.ones(200), abs=1e-12)
        assert np.array_equal(tempered.answers, p.answers)
        assert np.array_equal(tempered.mask, p.mask)


def test_no_prediction_and_no_tie_moves_at_any_temperature():
    # In the first row the best option leads by one rounding step, in the second two options tie.
    logits = np.vstack([[-1.3, np.nextafter(-1.3, 0), -4.0], [-2.0, -1.0, -1.0], np.zeros(3)])
    logits = np.vstack([logits, np.random.default_rng(0).normal(size=(200, 3)).round(1)])
    log_p = np.log(np.exp(logits).sum(1, keepdims=True))
    p = Predictions(logits - log_p, np.exp(logits - log_p), np.ones(203, dtype=np.int64), np.ones((203, 3), bool))
    assert p.predicted[0] == 1
    assert p.ties > 5
    for t in (0.01, 0.37, 2.0, 17.0, 100.0):
        tempered = at_temperature(p, t)
        assert np.array_equal(tempered.predicted, p.predicted)
        assert tempered.ties == p.ties
        assert metrics.accuracy(tempered) == metrics.accuracy(p)
    # Plain division loses the lead of the first row, which is what is guarded against.
    assert log_softmax(p.log_probabilities / 100, axis=1).argmax(1)[0] == 0


@pytest.mark.parametrize("t", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(t):
    with pytest.raises(AssertionError, match="must be above 0 and finite"):
        at_temperature(confident(4, 3), t)


def test_daca_by_hand():
    # Both agree on three questions, told .9 by the aligned model and .75 by the base: 9^(1/T) = 3. The fourth is out.
    aligned = told([[0.9, 0.1]] * 4, [0, 0, 1, 1])
    base = told([[0.75, 0.25]] * 3 + [[0.01, 0.99]], [0, 0, 1, 1])
    found = fit_daca(base, aligned)
    assert found.temperature.value == pytest.approx(2.0, abs=1e-6)
    assert (found.agreement, found.n) == (0.75, 3)


def parents(seed: int, n: int) -> tuple[Predictions, Predictions]:
    """A base and an aligned model that is surer and sometimes of another opinion."""
    rng = np.random.default_rng(seed)
    mask = np.arange(5) < rng.integers(2, 6, n)[:, None]
    base = rng.normal(size=mask.shape) * 1.5
    aligned = 2.5 * base + rng.normal(size=mask.shape) * 2
    answers = rng.integers(0, 2, n)
    return tuple(scored(np.where(mask, logits, np.nan), answers, mask) for logits in (base, aligned))  # type: ignore[return-value]


def slow_divergence(base: Predictions, aligned: Predictions, t: float) -> float:
    """Mean KL from the base to the tempered aligned model over the questions of agreement, option by option."""
    tempered, values = at_temperature(aligned, t), []
    for i in range(len(base.answers)):
        if base.predicted[i] == aligned.predicted[i]:
            options = np.flatnonzero(base.mask[i])
            terms = [
                base.probabilities[i, k] * (base.log_probabilities[i, k] - tempered.log_probabilities[i, k])
                for k in options
            ]
            values.append(sum(terms))
    return sum(values) / len(values)


def test_daca_has_the_least_divergence_of_a_grid():
    base, aligned = parents(0, 200)
    found = fit_daca(base, aligned)
    grid = np.exp(np.linspace(np.log(0.5), np.log(10), 120))
    best = int(np.argmin([slow_divergence(base, aligned, t) for t in grid]))
    assert grid[best - 1] < found.temperature.value < grid[best + 1]
    assert found.n == (base.predicted == aligned.predicted).sum() < 200


def test_daca_does_not_look_at_answers():
    base, aligned = parents(1, 200)
    other = [Predictions(p.log_probabilities, p.probabilities, 1 - p.answers, p.mask) for p in (base, aligned)]
    assert fit_daca(*other) == fit_daca(base, aligned)


def test_daca_finds_the_temperature_that_made_the_aligned_model():
    base = drawn(2, 300, 1.0)
    found = fit_daca(base, at_temperature(base, 0.4))
    assert found.temperature.value == pytest.approx(2.5, abs=1e-6)
    assert found.agreement == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_questions_of_disagreement_would_make_the_temperature_larger(seed):
    base, aligned = parents(seed, 500)
    goal = np.where(aligned.mask, base.probabilities * np.where(aligned.mask, aligned.log_probabilities, 0), 0).sum(1)
    everything = minimise_cross_entropy([Target(aligned.log_probabilities, goal)])
    assert everything.value > fit_daca(base, aligned).temperature.value


def test_daca_weighs_tasks_alike_and_skips_one_without_agreement():
    # Base .9 on two questions and .6 on a hundred: .75 when tasks weigh alike. The third task has no agreement.
    aligned = [told([[0.9, 0.1]] * n, [0] * n) for n in (2, 100, 7)]
    base = [told([[b, 1 - b]] * n, [0] * n) for b, n in ((0.9, 2), (0.6, 100), (0.2, 7))]
    found = fit_daca(base, aligned)
    assert found.temperature.value == pytest.approx(2.0, abs=1e-6)
    assert (found.agreement, found.n) == (102 / 109, 102)


def test_daca_without_agreement_or_with_an_excluded_option_is_refused():
    with pytest.raises(ScoringError, match="they do on none of 4"):
        fit_daca(confident(4, 3, 0.2), confident(4, 3))
    with pytest.raises(ScoringError, match=r"on 4 question\(s\) the aligned model gives probability 0"):
        fit_daca(confident(4, 3), confident(4, 3, 1.0))
    # The other way round is no obstacle: the base excludes an option, and the aligned model becomes as sure as it may.
    assert fit_daca(confident(4, 3, 1.0), confident(4, 3)).temperature.at_bound


def test_daca_needs_both_parents_on_the_same_questions():
    with pytest.raises(AssertionError, match="the parents' answers differ"):
        fit_daca(confident(4, 2), confident(4, 3))
