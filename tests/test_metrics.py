"""Measures against hand-worked values, a slow loop, published and independently computed numbers."""

import csv

import numpy as np
import pytest

from merge_calib.calibration import metrics
from merge_calib.calibration.measurement import macro_average, measure
from merge_calib.errors import ScoringError
from merge_calib.scores import ChoiceScores, NextTokenScores, Predictions, load_scores


def drawn(seed: int, n: int, options: int, sharpen: float) -> Predictions:
    """The recipe of the golden values: labels drawn from Dirichlet rows, which are then sharpened."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(options), n)
    y = (rng.random(n)[:, None] > p.cumsum(1)).sum(1).clip(0, options - 1)
    p = p**sharpen
    return Predictions.from_probabilities(p / p.sum(1, keepdims=True), y)


def top_only(confidences: list[float], hits: list[bool]) -> Predictions:
    """Three options, the first predicted with the given confidence (at least .4)."""
    p = np.array([[c, (1 - c) / 2, (1 - c) / 2] for c in confidences])
    return Predictions.from_probabilities(p, np.array([0 if hit else 1 for hit in hits]))


def scores_of(p: Predictions, mass: float = 1.0) -> ChoiceScores:
    """Letter scores that give these probabilities; all letters together have `mass` of the vocabulary's."""
    ids = tuple(str(i) for i in range(len(p.answers)))
    logprobs = np.where(p.mask, p.log_probabilities + np.log(mass), np.nan)
    return ChoiceScores(ids, p.answers, logprobs, p.mask)


def measured(p: Predictions):
    return measure(scores_of(p), "continuation-sum")


# Computed with uncertainty-calibration 0.1.4, pycalib 0.1.0.dev6, netcal 1.4.0 and scikit-learn 1.9.1.
GOLDEN = [
    ("A", (0, 1000, 4, 1.0), 0.0253342157, 0.0303032400, 0.0246158357, 0.0286783031),
    ("B", (0, 1000, 4, 2.0), 0.1596287653, 0.1596287653, 0.0828478162, 0.0848010656),
    ("E", (1, 2376, 5, 1.5), 0.1072913891, 0.1074030901, 0.0491426294, 0.0504705188),
]


@pytest.mark.parametrize(("name", "recipe", "ece10", "ece15", "sce10", "sce15"), GOLDEN)
def test_ece_and_sce_equal_the_golden_values(name, recipe, ece10, ece15, sce10, sce15):
    p = drawn(*recipe)
    assert metrics.ece(p, 10) == pytest.approx(ece10, abs=1e-9), name
    assert metrics.ece(p, 15) == pytest.approx(ece15, abs=1e-9), name
    assert metrics.sce(p, 10) == pytest.approx(sce10, abs=1e-9), name
    assert metrics.sce(p, 15) == pytest.approx(sce15, abs=1e-9), name


def test_brier_nll_accuracy_and_confidence_equal_the_golden_values():
    p = drawn(0, 1000, 4, 1.0)
    assert metrics.brier(p) == pytest.approx(0.5875358025877024, abs=1e-9)
    assert metrics.nll(p) == pytest.approx(1.0590171442825747, abs=1e-9)
    assert metrics.accuracy(p) == 0.534
    assert metrics.mean_confidence(p) == pytest.approx(0.5256426476139248, abs=1e-9)


@pytest.mark.parametrize(
    ("confidences", "hits", "expected"),
    [
        ([1.0, 0.95], [False, True], 0.475),  # a confidence of 1 shares the last bin
        ([0.5, 0.45], [False, True], 0.025),  # .5 belongs to (.4, .5]
        ([0.7, 0.65], [False, True], 0.175),  # .7 belongs to (.6, .7]
        ([0.9, 0.9, 0.9, 0.9], [True, True, True, False], 0.15),
    ],
)
def test_ece_by_hand_at_the_edges_of_bins(confidences, hits, expected):
    assert metrics.ece(top_only(confidences, hits)) == pytest.approx(expected, abs=1e-12)


def test_sce_of_two_options_is_the_binary_ece():
    p = drawn(0, 1000, 2, 2.0)
    first = p.probabilities[:, 0]
    index = np.ceil(first * 10).clip(1, 10)
    gaps = [abs(((p.answers == 0) - first)[index == b].sum()) for b in range(1, 11)]
    assert metrics.sce(p) == pytest.approx(sum(gaps) / 1000, abs=1e-9)


def slow_sce(p: Predictions, bins: int, agreement: bool) -> float:
    total, pairs = 0.0, 0
    for k in range(p.mask.shape[1]):
        for b in range(bins):
            gap = 0.0
            for i in range(len(p.answers)):
                value = p.probabilities[i, k]
                low, high = b / bins, (b + 1) / bins
                if not p.mask[i, k] or not (low < value <= high or (b == 0 and value == 0)):
                    continue
                pairs += 1
                right = p.answers[i] == k
                gap += ((p.predicted[i] == k) == right if agreement else right) - value
            total += abs(gap)
    return total / pairs


@pytest.mark.parametrize("bins", [7, 10, 15])
def test_sce_equals_a_plain_loop_where_options_vary(bins):
    rng = np.random.default_rng(3)
    mask = np.arange(5) < rng.integers(2, 6, 200)[:, None]
    logits = np.where(mask, rng.normal(size=mask.shape) * 2, np.nan)
    answers = np.array([rng.integers(row.sum()) for row in mask])
    p = ChoiceScores(tuple(map(str, range(200))), answers, logits, mask).predictions
    assert metrics.sce(p, bins) == pytest.approx(slow_sce(p, bins, agreement=False), abs=1e-12)
    assert metrics.sce_agreement(p, bins) == pytest.approx(slow_sce(p, bins, agreement=True), abs=1e-12)


def test_padding_one_question_with_a_fifth_option_hardly_moves_sce():
    p = drawn(0, 1000, 4, 2.0)
    probabilities = np.zeros((1001, 5))
    probabilities[:1000, :4] = p.probabilities
    probabilities[1000] = 0.2
    mask = probabilities > 0
    wide = Predictions.from_probabilities(probabilities, np.append(p.answers, 4), mask)
    assert metrics.sce(wide) == pytest.approx(metrics.sce(p), abs=0.001)


def test_measures_do_not_depend_on_the_order_of_questions_or_options():
    p = drawn(5, 500, 4, 1.7)
    order, columns = np.random.default_rng(0).permutation(500), [2, 0, 3, 1]
    moved = Predictions.from_probabilities(p.probabilities[order][:, columns], np.argsort(columns)[p.answers[order]])
    for name in ("accuracy", "ece", "sce", "sce_agreement", "nll", "brier", "mean_confidence", "auroc"):
        assert getattr(metrics, name)(moved) == pytest.approx(getattr(metrics, name)(p), abs=1e-12), name


def test_measures_of_a_duplicated_set_are_unchanged():
    p = drawn(5, 300, 4, 1.7)
    twice = Predictions.from_probabilities(np.vstack([p.probabilities] * 2), np.tile(p.answers, 2))
    for name in ("accuracy", "ece", "sce", "sce_agreement", "nll", "brier", "mean_confidence", "auroc"):
        assert getattr(metrics, name)(twice) == pytest.approx(getattr(metrics, name)(p), abs=1e-12), name


def test_over_confidence_is_seen():
    honest, sharp = drawn(9, 5000, 4, 1.0), drawn(9, 5000, 4, 4.0)
    assert metrics.ece(honest) < 0.03 < 0.2 < metrics.ece(sharp)
    assert metrics.sce(honest) < 0.02 < 0.1 < metrics.sce(sharp)
    assert metrics.nll(honest) < metrics.nll(sharp)


def test_auroc_equals_the_count_over_all_pairs_with_ties_half():
    rng = np.random.default_rng(0)
    p = top_only([float(c) for c in rng.integers(5, 10, 80) / 10 + 0.02], [bool(h) for h in rng.random(80) < 0.6])
    right, wrong = p.confidence[p.hit], p.confidence[~p.hit]
    wins = (right[:, None] > wrong).mean() + (right[:, None] == wrong).mean() / 2
    assert metrics.auroc(p) == pytest.approx(wins, abs=1e-12)


def test_auroc_of_predictions_that_are_all_right_is_undefined_not_zero():
    assert metrics.auroc(top_only([0.9, 0.8], [True, True])) is None
    assert measured(top_only([0.9, 0.8], [True, True])).auroc is None


def test_prediction_is_the_first_option_on_exact_ties_and_ties_are_counted():
    logprobs = np.array([[-1.0, -1.0, -3.0], [-2.0, -1.0, -3.0]])
    scores = ChoiceScores(("a", "b"), np.array([1, 0]), logprobs, np.ones((2, 3), bool))
    assert scores.predictions.predicted.tolist() == [0, 1]
    assert scores.predictions.ties == 1


def test_nll_of_a_probability_that_underflows_stays_finite():
    scores = ChoiceScores(("a",), np.array([1]), np.array([[-10.0, -2000.0]]), np.ones((1, 2), bool))
    assert metrics.nll(scores.predictions) == pytest.approx(1990.0)


@pytest.mark.parametrize("rows", [[[0.5, 0.6]], [[np.nan, 1.0]], [[-0.1, 1.1]]])
def test_rows_that_are_no_probabilities_are_refused(rows):
    with pytest.raises(ScoringError):
        Predictions.from_probabilities(np.array(rows), np.array([0]))


def test_a_non_finite_score_names_the_question():
    with pytest.raises(ScoringError, match="'b'"):
        ChoiceScores(("a", "b"), np.array([0, 0]), np.array([[-1.0, -2.0], [-1.0, np.nan]]), np.ones((2, 2), bool))


def test_letter_mass_is_what_the_letters_have_of_the_whole_vocabulary():
    p = drawn(0, 50, 4, 1.0)
    assert measure(scores_of(p, 0.25), "choice").letter_mass == pytest.approx(0.25, abs=1e-12)
    assert measure(scores_of(p, 0.25), "choice").sce == pytest.approx(metrics.sce(p), abs=1e-12)
    assert measure(scores_of(p, 0.25), "continuation-sum").letter_mass is None


def test_bare_logits_have_no_letter_mass():
    p = drawn(0, 50, 4, 1.0)
    found = measure(scores_of(p, 1000.0), "choice")
    assert found.letter_mass is None
    assert found.letter_bias is not None


def test_letter_bias_is_the_share_of_predictions_that_would_have_to_move():
    # Four questions, right: A B C D; predicted: A A A D. Two of the four As would have to become B and C.
    p = np.full((4, 4), 0.1)
    p[[0, 1, 2, 3], [0, 0, 0, 3]] = 0.7
    assert metrics.letter_bias(Predictions.from_probabilities(p, np.arange(4))) == pytest.approx(0.5)
    assert metrics.letter_bias(Predictions.from_probabilities(p, np.array([0, 0, 0, 3]))) == 0.0


def next_tokens() -> NextTokenScores:
    confidence, truth = np.array([0.9, 0.6, 0.5]), np.array([0.9, 0.2, 0.5])
    return NextTokenScores(("a", "b", "c"), np.array([7, 8, 9]), np.array([7, 5, 9]), np.log(truth), np.log(confidence))


def test_next_tokens_are_measured_by_their_most_probable_token():
    found = measure(next_tokens(), "next-token")
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.mean_confidence == pytest.approx(2 / 3)
    assert found.ece == pytest.approx((0.1 + 0.6 + 0.5) / 3)  # each in a bin of its own
    assert found.nll == pytest.approx(-np.log([0.9, 0.2, 0.5]).mean())
    assert (found.sce, found.sce_agreement, found.brier, found.sce_15, found.letter_mass) == (None,) * 5


def test_next_tokens_are_kept_as_they_are(tmp_path):
    next_tokens().save(tmp_path / "x.npz")
    kept = load_scores(tmp_path / "x.npz")
    assert isinstance(kept, NextTokenScores)
    assert measure(kept, "next-token") == measure(next_tokens(), "next-token")


def test_a_next_token_that_is_not_finite_names_the_text():
    with pytest.raises(ScoringError, match="'b'"):
        NextTokenScores(("a", "b"), np.array([0, 0]), np.array([0, 0]), np.array([-1.0, np.nan]), np.array([-1.0, -1]))


def test_macro_average_weighs_tasks_alike_and_sums_counts():
    one, two = measured(drawn(0, 100, 4, 1.0)), measured(drawn(1, 900, 4, 2.0))
    mean = macro_average([one, two])
    assert mean.n == 1000
    assert mean.sce == pytest.approx((one.sce + two.sce) / 2, abs=1e-15)


def test_reliability_bins_hold_every_question_once():
    p = drawn(0, 1000, 4, 2.0)
    bins = metrics.reliability_bins(p)
    assert bins.counts.sum() == 1000
    filled = bins.counts > 0
    gap = np.abs(bins.accuracy - bins.confidence)[filled] @ bins.counts[filled] / 1000
    assert gap == pytest.approx(metrics.ece(p), abs=1e-12)


@pytest.fixture(scope="module")
def real_letters(shared_data) -> dict[str, Predictions]:
    """Letter logits of Llama-3.1-8B, base and Instruct, on all of MMLU."""
    return {
        side: _read_letters(shared_data / "llama31_mmlu_logits" / "results" / side)
        for side in ("cali_8B_base", "cali_8B")
    }


def _read_letters(folder) -> Predictions:
    rows = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.reader(file))[1:]
    logits = np.array([[float(value) for value in row[6:10]] for row in rows])
    answers = np.array(["ABCD".index(row[5]) for row in rows])
    return ChoiceScores(tuple(map(str, range(len(rows)))), answers, logits, np.ones(logits.shape, bool)).predictions


REAL = {
    "accuracy": (0.6033, 0.5936),
    "ece": (0.0417, 0.1185),
    "sce": (0.0277, 0.0856),
    "sce_agreement": (0.5549, 0.6008),
    "nll": (0.9293, 1.1743),
    "brier": (0.4926, 0.5406),
    "mean_confidence": (0.5785, 0.7120),
    "ties": (550, 194),
    "ece_15": (0.0395, 0.1186),
}


@pytest.mark.parametrize("name", REAL)
def test_measures_on_real_letters_to_four_digits(real_letters, name):
    for side, expected in zip(("cali_8B_base", "cali_8B"), REAL[name], strict=True):
        value = getattr(measured(real_letters[side]), name)
        assert round(value, 4) == expected, (side, value)


def test_pooled_left_closed_variant_gives_the_two_published_figures(real_letters):
    """All four probabilities of every question pooled, ten bins [lo, hi): how the figures were made."""
    for side, published in (("cali_8B_base", 0.0163), ("cali_8B", 0.0702)):
        p = real_letters[side]
        pooled, hit = p.probabilities.ravel(), (p.answers[:, None] == np.arange(4)).ravel()
        index = np.searchsorted(np.linspace(0, 1, 11)[1:], pooled, side="right")
        gaps = np.bincount(index, hit - pooled, minlength=11)[:10]
        assert round(np.abs(gaps).sum() / len(pooled), 4) == published
