"""Adaptive and smooth ECE, the split of the Brier score, risk and coverage, and measures of diversity."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from make_measures_golden import RECIPES, Recipe
from scipy.stats import norm

from merge_calib.calibration import metrics
from merge_calib.calibration.adaptive import adaptive_ece
from merge_calib.calibration.corp import BrierSplit, brier_split
from merge_calib.calibration.selective import risk_coverage_area
from merge_calib.calibration.smooth import smooth_ece, smooth_ece_at
from merge_calib.errors import InputError
from merge_calib.scores import ChoiceScores, Predictions, TopPredictions

GOLDEN = json.loads((Path(__file__).parent / "golden" / "measures.json").read_text(encoding="utf-8"))
SMOOTH = [name for name, recipe in RECIPES.items() if not recipe.grains]
TOP = (adaptive_ece, smooth_ece, risk_coverage_area, metrics.overconfidence)
WHOLE = (metrics.answer_entropy, metrics.prediction_entropy)


def drawn(name: str) -> Predictions:
    return Predictions.from_probabilities(*RECIPES[name].draw())


def top(confidences: list[float], hits: list[bool]) -> TopPredictions:
    return TopPredictions(np.array(confidences), np.array(hits), np.zeros(len(hits)))


def moved(p: Predictions, order, columns) -> Predictions:
    """The same questions in another order, with their options in another order."""
    answers = np.argsort(columns)[p.answers[order]]
    return Predictions.from_probabilities(p.probabilities[order][:, columns], answers, p.mask[order][:, columns])


def values(p: Predictions) -> dict[str, float]:
    """Every measure of this file by name."""
    found = {f.__name__: f(p) for f in (*TOP, *WHOLE)}
    return found | vars(brier_split(p))


# Adaptive ECE


def test_adaptive_ece_by_hand():
    # Two bins of two: |(0 - .4) + (1 - .5)| + |(0 - .8) + (1 - .9)| = .1 + .7, over four questions.
    p = top([0.8, 0.4, 0.9, 0.5], [False, False, True, True])
    assert adaptive_ece(p, bins=2) == pytest.approx(0.2, abs=1e-15)
    assert adaptive_ece(p, bins=1) == pytest.approx(abs(metrics.overconfidence(p)), abs=1e-15)


def test_equal_confidences_share_a_bin():
    # Ranks would cut between the two .6: |.4| + |-.6 + .1| = .9. Their middle is 2 of 4, so both go up: .4 + .5.
    p = top([0.6, 0.6, 0.9, 0.5], [True, False, True, True])
    assert adaptive_ece(p, bins=2) == pytest.approx((abs(1 - 0.5) + abs(1 - 0.6 + 0 - 0.6 + 1 - 0.9)) / 4, abs=1e-15)
    swapped = top([0.6, 0.6, 0.9, 0.5], [False, True, True, True])
    assert adaptive_ece(swapped, bins=2) == adaptive_ece(p, bins=2)


def slow_adaptive_ece(p, bins: int) -> float:
    gaps = [0.0] * bins
    confidences = [float(c) for c in p.confidence]
    for c, hit in zip(confidences, p.hit, strict=True):
        below, same = sum(d < c for d in confidences), sum(d == c for d in confidences)
        index = (bins * (2 * below + same)) // (2 * len(confidences))
        gaps[index] += float(hit) - c
    return sum(abs(gap) for gap in gaps) / len(confidences)


@pytest.mark.parametrize("bins", [1, 3, 10, 15, 2000])
@pytest.mark.parametrize("name", ["sharp", "ties", "ties, three or four options"])
def test_adaptive_ece_equals_a_plain_loop(name, bins):
    p = drawn(name)
    assert adaptive_ece(p, bins) == pytest.approx(slow_adaptive_ece(p, bins), abs=1e-12)


@pytest.mark.parametrize("bins", [2, 7, 10, 15])
def test_bins_of_distinct_confidences_differ_by_one_question_at_most(bins):
    # With no right answer the gap of a bin is its summed confidence, here 1 a question and a trifle to tell them apart.
    for n in (1, 5, 30, 44, 101):
        confidence = 1 - np.arange(n) * 1e-9
        p = TopPredictions(confidence, np.zeros(n, bool), np.zeros(n))
        sizes = np.bincount([bins * (2 * i + 1) // (2 * n) for i in range(n)], minlength=bins)
        assert sizes.max() - sizes.min() <= 1
        assert adaptive_ece(p, bins) == pytest.approx(slow_adaptive_ece(p, bins), abs=1e-12)


@pytest.mark.parametrize("library", ["netcal", "scikit-learn"])
@pytest.mark.parametrize("name", SMOOTH)
def test_adaptive_ece_equals_other_libraries_where_bins_are_alike(name, library):
    """Both cut at quantiles, so where N is a multiple of M and nothing ties the bins are the same: rounding is left."""
    assert adaptive_ece(drawn(name), RECIPES[name].bins) == pytest.approx(
        kept(name)[f"adaptive_ece, {library}"], abs=1e-12
    )


@pytest.mark.parametrize("bins", [0, -3])
def test_bins_that_are_none_are_refused(bins):
    with pytest.raises(InputError, match=f"--bins must be at least 1, not {bins}"):
        adaptive_ece(drawn("sharp"), bins)


# Smooth ECE


def test_smooth_ece_by_hand():
    # Residuals +.6 at .4 and -.6 at .6 among ten (the rest are sure and right, residual 0). Far from the ends their
    # smoothed difference has the area .12 (2 Phi(.1 / sigma) - 1), equal to sigma at .0888, as Phi(1.126) is .870.
    p = top([0.4, 0.6] + [1.0] * 8, [True, False] + [True] * 8)
    sigma = smooth_ece(p)
    assert sigma == pytest.approx(0.0888, abs=5e-5)
    assert sigma == pytest.approx(0.12 * (2 * norm.cdf(0.1 / sigma) - 1), abs=1e-5)  # the ends are 4.5 sigma away


def test_smooth_ece_of_a_gap_of_one_sign_is_the_mean_gap():
    assert smooth_ece(top([0.9] * 10, [True] * 6 + [False] * 4)) == pytest.approx(0.3, abs=1e-9)
    assert smooth_ece(top([0.5, 0.7], [False, False])) == pytest.approx(0.6, abs=1e-9)


def slow_smooth_ece_at(p, sigma: float, points: int = 4000) -> float:
    """Midpoint rule over [0, 1]; every confidence with its ten mirror images."""
    total = 0.0
    residuals = np.asarray(p.hit - p.confidence)
    for j in range(points):
        t = (j + 0.5) / points
        smoothed = 0.0
        for m in (-2, -1, 0, 1, 2):
            for image in (2 * m + p.confidence, 2 * m - p.confidence):
                smoothed += float(np.exp(-(((t - image) / sigma) ** 2) / 2) @ residuals)
        total += abs(smoothed) / (sigma * math.sqrt(2 * math.pi))
    return total / points / len(residuals)


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.6])
def test_smooth_ece_equals_a_plain_integral(sigma):
    """To 1e-6: the error of 4,000 midpoints and of cells 1/8192 wide at the least sigma; sharp, so ends matter."""
    p = Predictions.from_probabilities(*Recipe(11, 40, 4, sharpen=5.0).draw())
    assert p.confidence.max() > 1 - 1e-4
    assert smooth_ece_at(p, sigma) == pytest.approx(slow_smooth_ece_at(p, sigma), abs=1e-6)


@pytest.mark.parametrize("name", list(RECIPES))
def test_smooth_ece_is_the_bandwidth_that_equals_its_error(name):
    sigma = smooth_ece(drawn(name))
    assert smooth_ece_at(drawn(name), sigma) == pytest.approx(sigma, abs=1e-8)


@pytest.mark.parametrize("name", list(RECIPES))
def test_smooth_ece_falls_with_the_bandwidth_between_its_bounds(name):
    p = drawn(name)
    found = [smooth_ece_at(p, sigma) for sigma in (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(found))
    assert found[0] <= np.abs(p.hit - p.confidence).mean() + 1e-12
    assert found[-1] >= abs(metrics.overconfidence(p)) - 1e-12


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_ece_equals_relplot_where_no_confidence_is_near_1(name):
    """To 5e-4 at a given bandwidth (relplot's grid has both ends in full), to 1e-3 with its bandwidth, a 1/1024."""
    for sigma, value in kept(name)["smooth_ece_at"].items():
        assert smooth_ece_at(drawn(name), float(sigma)) == pytest.approx(value, abs=5e-4)
    assert smooth_ece(drawn(name)) == pytest.approx(kept(name)["smooth_ece"], abs=1e-3)
    assert smooth_ece(drawn(name)) <= kept(name)["smooth_ece_width"] + 1e-3


def test_relplot_loses_half_of_what_lies_at_1_and_we_do_not():
    """Why it is not asked about sharp models: the area of one residual of -1 at a confidence of 1 should be 1."""
    assert GOLDEN["relplot keeps of a confidence"] == pytest.approx({"0.7": 1.0, "0.9995": 0.75, "1.0": 0.5}, abs=1e-9)
    for sigma in (0.001, 0.05, 0.5):
        assert smooth_ece_at(top([1.0], [False]), sigma) == pytest.approx(1.0, abs=1e-12)


# The split of the Brier score


def two_classes(x: list[float], second: list[bool]) -> Predictions:
    """Questions of two options: x is the probability of the second."""
    p = np.array(x)
    return Predictions.from_probabilities(np.stack([1 - p, p], 1), np.array(second, dtype=int))


def test_brier_split_by_hand():
    # Second option: x = .2 .4 .6 .8, y = 0 1 0 1. Isotonic: 0 .5 .5 1, mean .5. Scores: raw (.04 + .36 + .36 + .04) / 4
    # = .2, recalibrated .125, constant .25; so .075 - .125 + .25 = .2. The first option mirrors it: everything twice.
    split = brier_split(two_classes([0.2, 0.4, 0.6, 0.8], [False, True, False, True]))
    assert vars(split) == pytest.approx({"miscalibration": 0.15, "discrimination": 0.25, "uncertainty": 0.5}, abs=1e-15)


def test_equal_probabilities_are_pooled_before_the_isotonic_fit():
    # x = .3 .3 .7 .7: unpooled, 0 1 0 1 fits as 0 .5 .5 1 and 1 0 1 0 as .5 .5 .5 .5. Pooled both are .5 throughout.
    for y in ([False, True, False, True], [True, False, True, False]):
        split = brier_split(two_classes([0.3, 0.3, 0.7, 0.7], y))
        assert vars(split) == pytest.approx(
            {"miscalibration": 0.08, "discrimination": 0, "uncertainty": 0.5}, abs=1e-15
        )


def slow_isotonic(x: list[float], y: list[float]) -> list[float]:
    """Max-min formula over groups of equal x: max over starts of min over ends of the mean in between."""
    levels = sorted(set(x))
    groups = [[b for a, b in zip(x, y, strict=True) if a == level] for level in levels]
    fitted = {}
    for i, level in enumerate(levels):
        lows = []
        for start in range(i + 1):
            means = []
            for end in range(i, len(levels)):
                inside = [b for group in groups[start : end + 1] for b in group]
                means.append(sum(inside) / len(inside))
            lows.append(min(means))
        fitted[level] = max(lows)
    return [fitted[a] for a in x]


def test_brier_split_equals_a_plain_loop_where_options_vary_and_tie():
    p = Predictions.from_probabilities(*Recipe(8, 60, 4, short=True, grains=12).draw())
    parts = [0.0, 0.0, 0.0]
    for k in range(4):
        has = [i for i in range(60) if p.mask[i, k]]
        x, y = [float(p.probabilities[i, k]) for i in has], [float(p.answers[i] == k) for i in has]
        best, mean = slow_isotonic(x, y), sum(y) / len(y)
        raw, low, flat = (sum((a - b) ** 2 for a, b in zip(q, y, strict=True)) for q in (x, best, [mean] * len(y)))
        parts = [a + b / 60 for a, b in zip(parts, (raw - low, flat - low, flat), strict=True)]
    assert list(vars(brier_split(p)).values()) == pytest.approx(parts, abs=1e-12)


@pytest.mark.parametrize("name", list(RECIPES))
def test_parts_of_the_brier_score_add_up_to_it(name):
    split = brier_split(drawn(name))
    added = split.miscalibration - split.discrimination + split.uncertainty
    assert added == pytest.approx(metrics.brier(drawn(name)), abs=1e-12)
    assert min(vars(split).values()) >= 0


@pytest.mark.parametrize("name", list(RECIPES))
def test_brier_split_and_auroc_equal_scikit_learn(name):
    """To 1e-10: both are float64 and exact but for the order of sums; scikit-learn too pools ties before it fits."""
    assert list(vars(brier_split(drawn(name))).values()) == pytest.approx(kept(name)["brier_split"], abs=1e-10)
    assert metrics.auroc(drawn(name)) == pytest.approx(kept(name)["auroc"], abs=1e-12)


def test_a_monotone_change_of_two_options_moves_miscalibration_alone():
    plain, sharp = (Predictions.from_probabilities(*Recipe(4, 800, 2, sharpen=a).draw()) for a in (1.0, 3.0))
    one, other = brier_split(plain), brier_split(sharp)
    assert (other.discrimination, other.uncertainty) == pytest.approx((one.discrimination, one.uncertainty), abs=1e-12)
    assert other.miscalibration > one.miscalibration + 0.05


# Risk and coverage


def test_risk_coverage_area_by_hand():
    # Most confident first: right, wrong, right, wrong; risks 0, 1/2, 1/3, 2/4.
    p = top([0.7, 0.9, 0.6, 0.8], [True, True, False, False])
    assert risk_coverage_area(p) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4, abs=1e-15)


def test_risk_coverage_area_is_the_mean_over_orders_of_equal_confidences():
    confidences, hits = [0.9, 0.7, 0.7, 0.7, 0.7, 0.5, 0.5], [True, False, True, True, False, True, False]
    areas = []
    for middle in itertools.permutations(hits[1:5]):
        for last in itertools.permutations(hits[5:]):
            wrong = np.cumsum([not hit for hit in (hits[0], *middle, *last)])
            areas.append((wrong / np.arange(1, 8)).mean())
    assert len(set(areas)) > 2
    assert risk_coverage_area(top(confidences, hits)) == pytest.approx(np.mean(areas), abs=1e-12)


def test_risk_coverage_area_equals_a_plain_loop_without_ties():
    p = drawn("sharp")
    rows = sorted(zip(p.confidence.tolist(), p.hit.tolist(), strict=True), reverse=True)
    total, wrong = 0.0, 0
    for j, (_, hit) in enumerate(rows, 1):
        wrong += not hit
        total += wrong / j
    assert risk_coverage_area(p) == pytest.approx(total / len(rows), abs=1e-12)


def test_risk_coverage_area_knows_whether_confidence_tells_right_from_wrong():
    hits = [True] * 50 + [False] * 50
    falling = list(np.linspace(0.99, 0.51, 100))
    assert risk_coverage_area(top(falling, hits)) < risk_coverage_area(top([0.8] * 100, hits)) == pytest.approx(0.5)
    assert risk_coverage_area(top(falling[::-1], hits)) > 0.8


# Over-confidence and diversity


def test_overconfidence_by_hand():
    assert metrics.overconfidence(top([0.9, 0.7], [True, False])) == pytest.approx(0.3, abs=1e-15)
    assert metrics.overconfidence(top([0.5, 0.6], [True, True])) == pytest.approx(-0.45, abs=1e-15)


def test_answer_entropy_by_hand():
    # log 4 where four options are alike, log 2 where two of three are (the third has no probability), 0 where one is.
    rows = np.array([[0.25] * 4, [0.5, 0.5, 0, 0], [1, 0, 0, 0]])
    mask = np.array([[True] * 4, [True, True, True, False], [True] * 4])
    p = Predictions.from_probabilities(rows, np.array([0, 0, 0]), mask)
    assert metrics.answer_entropy(p) == pytest.approx((math.log(4) + math.log(2)) / 3, abs=1e-15)


def test_prediction_entropy_by_hand():
    # A A B C: -(1/2) log(1/2) - 2 (1/4) log(1/4) = 1.5 log 2; which of them are right does not matter.
    p = np.full((4, 4), 0.1)
    p[[0, 1, 2, 3], [0, 0, 1, 2]] = 0.7
    for answers in (np.arange(4), np.array([3, 3, 3, 3])):
        found = metrics.prediction_entropy(Predictions.from_probabilities(p, answers))
        assert found == pytest.approx(1.5 * math.log(2), abs=1e-15)


def test_entropies_equal_a_plain_loop():
    p = drawn("ties, three or four options")
    spread = [-sum(v * math.log(v) for v in row.tolist() if v > 0) for row in p.probabilities]
    shares = [p.predicted.tolist().count(k) / len(p.answers) for k in range(4)]
    assert metrics.answer_entropy(p) == pytest.approx(sum(spread) / len(spread), abs=1e-12)
    assert metrics.prediction_entropy(p) == pytest.approx(-sum(s * math.log(s) for s in shares if s), abs=1e-12)


# All of them


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_golden_data_is_drawn_again(name):
    """numpy may change its streams; then the golden file has to be made anew."""
    p = RECIPES[name].draw()[0]
    assert (p**2).sum() / len(p) == pytest.approx(kept(name)["mean_square"], abs=1e-12)


@pytest.mark.parametrize("name", ["sharp", "five options"])
def test_measures_do_not_depend_on_the_order_of_questions_or_options(name):
    p = drawn(name)
    rng = np.random.default_rng(0)
    other = moved(p, rng.permutation(len(p.answers)), rng.permutation(p.mask.shape[1]))
    assert values(other) == pytest.approx(values(p), abs=1e-9)  # smooth ECE is found to 1e-9, the others to rounding


def test_measures_of_ties_do_not_depend_on_the_order_of_questions():
    # Not of options: where the two best tie, the first is the prediction.
    p = drawn("ties, three or four options")
    other = moved(p, np.random.default_rng(1).permutation(len(p.answers)), np.arange(4))
    assert values(other) == pytest.approx(values(p), abs=1e-9)


def few_levels(columns: list[int]) -> Predictions:
    """Scores on a grid of .75 (as bf16 gives), so that many probabilities are equal but summed in another order."""
    rng = np.random.default_rng(2)
    logits = rng.permuted(np.tile([0.0, 0.75, 2.25, 3.75], (600, 1)), axis=1) - rng.integers(0, 40, (600, 1)) * 0.37
    scores = logits[:, columns]
    answers = np.argsort(columns)[rng.integers(0, 4, 600)]
    return ChoiceScores(tuple(map(str, range(600))), answers, scores, np.ones((600, 4), bool)).predictions


def test_probabilities_that_differ_in_the_last_bit_count_as_equal():
    one, other = few_levels([0, 1, 2, 3]), few_levels([2, 0, 3, 1])
    assert len(np.unique(one.confidence)) > 1  # the trap is there
    assert len(np.unique(metrics.comparable(one.confidence))) == 1
    assert values(other) == pytest.approx(values(one), abs=1e-9)
    assert risk_coverage_area(one) == pytest.approx(1 - metrics.accuracy(one), abs=1e-12)


def test_comparable_probabilities_keep_their_order_and_their_size():
    small = np.array([0.0, 5e-324, 1e-300, 1e-20, 1.0001e-20, 0.1, 0.5, 1.0])
    assert (np.diff(metrics.comparable(small)) > 0).all()
    assert metrics.comparable(small) == pytest.approx(small, rel=2e-12, abs=0)


def test_measures_of_a_duplicated_set_are_unchanged_but_for_risk_and_coverage():
    p = drawn("three or four options")
    twice = Predictions.from_probabilities(
        np.vstack([p.probabilities] * 2), np.tile(p.answers, 2), np.vstack([p.mask] * 2)
    )
    one, two = values(p), values(twice)
    areas = one.pop("risk_coverage_area"), two.pop("risk_coverage_area")
    assert two == pytest.approx(one, abs=1e-9)
    assert areas[0] != areas[1] == pytest.approx(areas[0], abs=0.005)


def test_sharpening_is_seen_as_over_confidence():
    honest, sharp = (Predictions.from_probabilities(*Recipe(9, 3000, 4, sharpen=a).draw()) for a in (1.0, 4.0))
    for measure in (adaptive_ece, smooth_ece):
        assert measure(honest) < 0.03 < 0.2 < measure(sharp)
    assert abs(metrics.overconfidence(honest)) < 0.02 < 0.2 < metrics.overconfidence(sharp)
    assert brier_split(honest).miscalibration < 0.02 < 0.05 < brier_split(sharp).miscalibration
    assert metrics.answer_entropy(sharp) < metrics.answer_entropy(honest) - 0.3
    assert metrics.prediction_entropy(sharp) == metrics.prediction_entropy(honest)
    assert abs(risk_coverage_area(sharp) - risk_coverage_area(honest)) < 0.02


EDGES = {
    "constant": (np.full((6, 4), 0.25), np.array([0, 1, 2, 3, 0, 0])),
    "one question": (np.array([[0.7, 0.2, 0.1]]), np.array([1])),
    "all right": (np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0])),
    "all wrong": (np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([1, 1])),
    "sure and right": (np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])),
    "sure and wrong": (np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 0])),
    "three of four": (np.array([[0.5, 0.3, 0.2, 0], [0.1, 0.2, 0.3, 0.4]]), np.array([0, 3])),
    "a column without questions": (np.array([[0.5, 0.3, 0.2, 0], [0.6, 0.2, 0.2, 0]]), np.array([0, 2])),
}


@pytest.mark.parametrize("name", list(EDGES))
def test_measures_at_the_edges_are_defined(name):
    rows, answers = EDGES[name]
    p = Predictions.from_probabilities(rows, answers, rows > 0 if "column" in name or "three" in name else None)
    found = values(p)
    assert all(math.isfinite(value) for value in found.values()), found
    assert found["adaptive_ece"] >= abs(found["overconfidence"]) - 1e-12
    assert smooth_ece(p) >= abs(found["overconfidence"]) - 1e-8
    split = brier_split(p)
    assert split.miscalibration - split.discrimination + split.uncertainty == pytest.approx(metrics.brier(p), abs=1e-12)


def test_values_at_the_edges():
    right, wrong = (Predictions.from_probabilities(*EDGES[name]) for name in ("sure and right", "sure and wrong"))
    assert (adaptive_ece(right), smooth_ece(right), risk_coverage_area(right)) == (0.0, 0.0, 0.0)
    assert (adaptive_ece(wrong), risk_coverage_area(wrong)) == (1.0, 1.0)
    assert smooth_ece(wrong) == pytest.approx(1.0, abs=1e-9)
    assert brier_split(right) == BrierSplit(0.0, 0.5, 0.5)
    assert brier_split(wrong) == BrierSplit(1.5, 0.0, 0.5)
    constant = Predictions.from_probabilities(*EDGES["constant"])
    assert risk_coverage_area(constant) == pytest.approx(0.5, abs=1e-12)
    assert brier_split(constant).discrimination == 0.0
    assert metrics.prediction_entropy(constant) == 0.0


def kept(name: str) -> dict:
    """What other libraries gave for a recipe."""
    return GOLDEN["values"][name]
