"""The debiased squared calibration error against worked values, all pairs, closed forms and simulations."""

import numpy as np
import pytest

from merge_calib.calibration import metrics
from merge_calib.calibration.squared import Squared, ece2, sce2, squared_errors
from merge_calib.errors import ScoringError
from merge_calib.scores import ChoiceScores, Predictions, TopPredictions


def top(confidence, hit) -> TopPredictions:
    confidence = np.array(confidence, dtype=np.float64)
    return TopPredictions(confidence, np.array(hit, dtype=bool), np.log(confidence))


def ragged(seed: int, n: int) -> Predictions:
    """Questions with two to five options."""
    rng = np.random.default_rng(seed)
    mask = np.arange(5) < rng.integers(2, 6, n)[:, None]
    logits = np.where(mask, rng.normal(size=mask.shape) * 2, np.nan)
    answers = np.array([rng.integers(row.sum()) for row in mask])
    return ChoiceScores(tuple(map(str, range(n))), answers, logits, mask).predictions


def test_ece2_by_hand():
    # (.7, .8] holds d = .2, -.8, .2: [(-.4)^2 - .72] / (3 x 2) = -.56 / 6, for 3 of 4 questions. The fourth is alone.
    found = ece2(top([0.8, 0.8, 0.8, 0.95], [True, False, True, True]))
    assert found.value == pytest.approx(-0.07, abs=1e-12)
    assert found.dropped == 1


def test_sce2_by_hand():
    # First option d = .1, -.9: [.64 - .82] / (2 x 1) = -.09; the second has the same with the other sign.
    p = Predictions.from_probabilities(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]))
    assert sce2(p) == Squared(pytest.approx(-0.09, abs=1e-12), 0)


def slow(columns, bins: int) -> tuple[float, int]:
    """Every ordered pair of different items of a bin, one after the other."""
    total, items, dropped = 0.0, 0, 0
    for probability, right in columns:
        for b in range(bins):
            d = [
                float(r) - q
                for q, r in zip(probability, right, strict=True)
                if b / bins < q <= (b + 1) / bins or (b == 0 and q == 0)
            ]
            dropped += len(d) == 1
            items += len(d)
            if len(d) > 1:
                pairs = sum(d[i] * d[j] for i in range(len(d)) for j in range(len(d)) if i != j)
                total += len(d) * pairs / (len(d) * (len(d) - 1))
    return total / items, dropped


@pytest.mark.parametrize("bins", [7, 10, 15])
def test_both_equal_the_sum_over_all_pairs_where_options_vary(bins):
    p = ragged(3, 120)
    classes = [(p.probabilities[p.mask[:, k], k], p.answers[p.mask[:, k]] == k) for k in range(5)]
    assert (ece2(p, bins).value, ece2(p, bins).dropped) == pytest.approx(slow([(p.confidence, p.hit)], bins))
    assert (sce2(p, bins).value, sce2(p, bins).dropped) == pytest.approx(slow(classes, bins))
    assert slow(classes, bins)[1] > 0  # some bin holds one item, or the count would go untested


def test_sce2_is_the_mean_over_classes_by_the_questions_that_have_them():
    p = ragged(4, 150)
    each = []
    for k in range(5):
        valid = p.mask[:, k]
        each.append((valid.sum(), slow([(p.probabilities[valid, k], p.answers[valid] == k)], 10)[0]))
    weights, values = zip(*each, strict=True)
    assert sce2(p).value == pytest.approx(np.average(values, weights=weights), abs=1e-12)


def test_a_bin_gives_the_squared_mean_less_its_sampling_variance():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.7001, 0.8, 30)  # one bin
    d = (rng.random(30) < 0.5) - confidence
    expected = d.mean() ** 2 - d.var(ddof=1) / 30
    assert ece2(top(confidence, d > 0)).value == pytest.approx(expected, abs=1e-12)


def test_with_one_probability_a_bin_it_is_the_published_correction():
    # (accuracy - confidence)^2 - accuracy (1 - accuracy) / (n - 1), as in Kumar, Liang & Ma 2019.
    expected = 0.5 * ((0.5 - 0.75) ** 2 - 0.25 / 7) + 0.5 * ((0.875 - 0.95) ** 2 - 0.875 * 0.125 / 7)
    p = top([0.75] * 8 + [0.95] * 8, [True, False] * 4 + [True] * 7 + [False])
    assert ece2(p).value == pytest.approx(expected, abs=1e-12)


def spread(simulate, draws: int) -> tuple[float, float]:
    """Mean and standard error of a simulated value."""
    values = np.array([simulate(np.random.default_rng(seed)) for seed in range(draws)])
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(draws))


def squared_confidence(n: int):
    """A model whose confidence c is right with probability c^2."""

    def draw(rng: np.random.Generator) -> TopPredictions:
        c = 1 - rng.random(n)
        return top(c, rng.random(n) < c**2)

    return draw


def closed_form() -> float:
    """sum_b P(b) E[c^2 - c | b]^2 for c uniform on [0, 1] and ten bins, by integration."""
    edges = np.linspace(0, 1, 11)
    gaps = (np.diff(edges**3) / 3 - np.diff(edges**2) / 2) / 0.1
    return float((gaps**2).mean())


def test_ece2_is_unbiased_for_a_known_miscalibration_and_the_plug_in_is_not():
    draw = squared_confidence(200)
    mean, error = spread(lambda rng: ece2(draw(rng)).value, 2000)
    assert abs(mean - closed_form()) < 3.5 * error
    assert error < 0.02 * closed_form()  # the check has teeth

    def plug_in(rng: np.random.Generator) -> float:
        p = draw(rng)
        n, gap = (np.bincount(metrics.bin_index(p.confidence, 10), w, 10) for w in (None, p.hit - p.confidence))
        return float((gap**2 / n.clip(1)).sum() / 200)

    mean, error = spread(plug_in, 500)
    assert mean - closed_form() > 10 * error


def three_options(rng: np.random.Generator, told: list[float], true: list[float]) -> Predictions:
    """300 questions on which the model tells a permutation of `told` and is right as often as `true` says."""
    order = rng.permuted(np.tile(np.arange(3), (300, 1)), axis=1)
    place = rng.choice(3, 300, p=true)
    return Predictions.from_probabilities(np.array(told)[order], (order == place[:, None]).argmax(1))


def test_sce2_is_unbiased_for_a_known_miscalibration():
    # Gaps of .2, .1 and .1, each in a bin of its own and on a third of all (question, option) pairs.
    mean, error = spread(lambda rng: sce2(three_options(rng, [0.7, 0.2, 0.1], [0.5, 0.3, 0.2])).value, 1000)
    assert abs(mean - 0.02) < 3.5 * error < 0.0015


def test_a_calibrated_model_is_at_zero_and_below_it_about_half_of_the_time():
    told = [0.7, 0.2, 0.1]
    values = [sce2(three_options(np.random.default_rng(seed), told, told)).value for seed in range(600)]
    assert abs(np.mean(values)) < 3.5 * np.std(values) / np.sqrt(600)
    assert 0.4 < np.mean(np.less(values, 0)) < 0.75


def test_half_the_error_is_a_quarter_of_the_value():
    rng = np.random.default_rng(0)
    right = rng.random(100_000) < 0.5
    whole, half = (ece2(top(np.full(100_000, c), right)).value for c in (0.9, 0.7))
    assert whole / half == pytest.approx(4, abs=0.15)


def test_two_options_give_the_binary_error():
    rng = np.random.default_rng(1)
    first, answers = rng.random(400), rng.integers(0, 2, 400)
    p = Predictions.from_probabilities(np.column_stack([first, 1 - first]), answers)
    assert sce2(p).value == pytest.approx(slow([(first, answers == 0)], 10)[0], abs=1e-12)


def test_the_order_of_questions_and_options_does_not_matter():
    p = ragged(5, 300)
    order, columns = np.random.default_rng(0).permutation(300), np.array([2, 0, 3, 1, 4])
    place = np.argsort(columns)
    moved = Predictions(
        p.log_probabilities[order][:, columns],
        p.probabilities[order][:, columns],
        place[p.answers[order]],
        p.mask[order][:, columns],
    )
    for measure in (ece2, sce2):
        assert measure(moved).value == pytest.approx(measure(p).value, abs=1e-12)
        assert measure(moved).dropped == measure(p).dropped


def test_repeated_questions_bring_the_bias_back():
    p = ragged(6, 200)
    twice = p.take(np.tile(np.arange(200), 2))
    assert sce2(twice).value > sce2(p).value
    assert ece2(twice).value > ece2(p).value


def test_questions_that_share_no_bin_are_refused_rather_than_given_zero():
    with pytest.raises(ScoringError, match="2 probabilities fill no bin twice"):
        ece2(top([0.95, 0.55], [True, True]))
    with pytest.raises(ScoringError, match="a bin with two questions"):
        ece2(top([], []))


def test_squared_errors_are_those_that_the_predictions_have():
    p = ragged(7, 100)
    assert squared_errors(p, 15) == {"ece2": ece2(p, 15).value, "sce2": sce2(p, 15).value}
    assert list(squared_errors(top([0.95, 0.92], [True, True]))) == ["ece2"]
    assert squared_errors(top([0.95, 0.55], [True, True])) == {}
