"""Paired draws against plain loops over resampled questions; intervals, tests, bands, power and ratios by hand."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from merge_calib.calibration import metrics
from merge_calib.calibration.squared import ece2, sce2
from merge_calib.inference.estimate import Estimate
from merge_calib.inference.holm import holm
from merge_calib.inference.joint import DEBIASED, MEANS, PLUG_IN, Joint, average, joint_of
from merge_calib.inference.power import REACH, detectable, detectable_accuracy
from merge_calib.inference.recovery import Recovery, fieller, recovery
from merge_calib.inference.resampling import FEWEST_IN_STRATUM, clustered, seed_of, stratified
from merge_calib.scores import ChoiceScores, Predictions, TopPredictions

Z = 1.959963984540054
ALL = (*MEANS, *DEBIASED, *PLUG_IN)


def one_stratum(n: int) -> np.ndarray:
    return np.zeros(n, dtype=np.int64)


def forecasts(n: int, options: int = 4, ragged: bool = False, seed: int = 0) -> dict[str, Predictions]:
    """Three forecasts of the same questions; ragged: some questions have two options only."""
    rng = np.random.default_rng(seed)
    mask = np.arange(options) < (rng.integers(2, options + 1, n) if ragged else np.full(n, options))[:, None]
    logits, answers = rng.normal(size=mask.shape), np.array([rng.integers(row.sum()) for row in mask])
    ids = tuple(map(str, range(n)))
    return {
        name: ChoiceScores(
            ids, answers, np.where(mask, scale * (logits + rng.normal(size=mask.shape) / 2), np.nan), mask
        ).predictions
        for name, scale in (("base", 1.0), ("point", 2.0), ("aligned", 3.0))
    }


def measured(p, bins: int) -> dict[str, float]:
    found = {"accuracy": metrics.accuracy(p), "nll": metrics.nll(p), "mean_confidence": metrics.mean_confidence(p)}
    found |= {"ece": metrics.ece(p, bins), "ece2": ece2(p, bins).value}
    if isinstance(p, Predictions):
        found |= {"brier": metrics.brier(p), "sce2": sce2(p, bins).value}
        found |= {"sce": metrics.sce(p, bins), "sce_agreement": metrics.sce_agreement(p, bins)}
    return found


def synthetic(values: dict[str, list[float]], draws: dict[str, list[list[float]]], n: int = 100) -> Joint:
    """Draws are given forecast by forecast."""
    names = tuple("abcdefgh"[: len(next(iter(values.values())))])
    return Joint(names, n, {m: np.array(v) for m, v in values.items()}, {m: np.array(d).T for m, d in draws.items()})


@pytest.mark.parametrize("bins", [10, 7])
@pytest.mark.parametrize(("options", "ragged"), [(4, False), (2, False), (5, True)])
def test_each_draw_is_what_its_questions_give_when_they_are_measured_as_a_set(bins, options, ragged):
    found = forecasts(150, options, ragged)
    counts = stratified(np.arange(150) % 3, 12, 4)
    joint = joint_of(found, counts, bins)
    assert set(joint.values) == set(ALL)
    for b, row in enumerate(counts):
        rows = np.repeat(np.arange(150), row.astype(int))
        for i, p in enumerate(found.values()):
            for measure, value in measured(p.take(rows), bins).items():
                # Sums over questions are in single precision.
                assert joint.draws[measure][b, i] == pytest.approx(value, abs=2e-6), measure


def test_draws_of_whole_clusters_are_those_of_their_questions():
    found = forecasts(90)
    counts = clustered(np.arange(90) % 12, 8, 0)
    joint = joint_of(found, counts, 10)
    assert len({row.sum() for row in counts}) > 1  # samples of different sizes
    for b, row in enumerate(counts):
        p = found["point"].take(np.repeat(np.arange(90), row.astype(int)))
        for measure, value in measured(p, 10).items():
            assert joint.draws[measure][b, 1] == pytest.approx(value, abs=2e-6), measure


def test_values_are_those_of_the_questions_as_they_are():
    found = forecasts(120, 5, ragged=True)
    joint = joint_of(found, stratified(one_stratum(120), 3, 0), 10)
    for name, p in found.items():
        for measure, value in measured(p, 10).items():
            assert joint.value(measure, name) == value


def test_questions_that_are_drawn_once_each_give_the_values():
    joint = joint_of(forecasts(120), np.ones((1, 120), dtype=np.float32), 10)
    for measure in ALL:
        assert joint.draws[measure][0] == pytest.approx(joint.values[measure], abs=2e-6)


def test_the_order_of_questions_changes_neither_values_nor_draws():
    found, order = forecasts(200), np.random.default_rng(0).permutation(200)
    counts = stratified(one_stratum(200), 20, 0)
    joint, moved = (
        joint_of(each, drawn, 10)
        for each, drawn in ((found, counts), ({n: p.take(order) for n, p in found.items()}, counts[:, order]))
    )
    for measure in ALL:
        assert moved.values[measure] == pytest.approx(joint.values[measure], abs=1e-12)
        assert moved.draws[measure] == pytest.approx(joint.draws[measure], abs=2e-6)


def test_the_order_of_options_changes_nothing():
    found, columns = forecasts(200), [2, 0, 3, 1]
    counts = stratified(one_stratum(200), 20, 0)
    turned = {
        name: Predictions.from_probabilities(p.probabilities[:, columns], np.argsort(columns)[p.answers])
        for name, p in found.items()
    }
    joint, moved = joint_of(found, counts, 10), joint_of(turned, counts, 10)
    for measure in ALL:
        assert moved.draws[measure] == pytest.approx(joint.draws[measure], abs=2e-6)


def test_the_answers_of_one_forecast_do_not_touch_the_draws_of_another():
    found = forecasts(100)
    counts = stratified(one_stratum(100), 20, 0)
    alone = joint_of({"point": found["point"]}, counts, 10)
    for measure in ALL:
        assert (alone.draws[measure][:, 0] == joint_of(found, counts, 10).draws[measure][:, 1]).all()


def test_what_only_knows_the_top_option_has_no_class_wise_measure():
    top = TopPredictions(np.linspace(0.3, 0.9, 60), np.arange(60) % 2 == 0, np.full(60, -0.5))
    joint = joint_of({"a": top, "b": top}, stratified(one_stratum(60), 50, 0), 10)
    assert set(joint.values) == {"accuracy", "nll", "mean_confidence", "ece", "ece2"}
    assert joint.difference("accuracy", "a", "b").high == pytest.approx(Z / 60)  # as if one question more differed


def test_a_measure_that_one_forecast_lacks_is_not_there():
    spread = TopPredictions(np.array([0.15, 0.55, 0.95]), np.array([True, False, True]), np.full(3, -0.5))
    assert not joint_of({"a": spread}, np.ones((2, 3), dtype=np.float32), 10).has("ece2")  # no two share a bin


def test_stratified_draws_keep_the_size_of_every_stratum():
    strata = np.repeat([0, 2, 3], [40, 10, 25])  # a code that nothing has
    counts = stratified(strata, 300, 0)
    for code, size in ((0, 40), (2, 10), (3, 25)):
        assert (counts[:, strata == code].sum(1) == size).all()
    assert (stratified(one_stratum(75), 300, 0)[:, strata == 0].sum(1) != 40).any()  # not so without strata


def test_each_question_of_a_stratum_is_drawn_as_often_as_any_other():
    counts = stratified(np.repeat([0, 1], [20, 200]), 4000, 1)
    # A count is binomial with mean 1 and variance near 1: 5 standard errors of the mean of 4,000.
    assert np.abs(counts.mean(0) - 1).max() < 5 / math.sqrt(4000)
    assert counts[:, :20].var(0).mean() == pytest.approx(1 - 1 / 20, rel=0.03)
    pair = np.cov(counts[:, 0], counts[:, 1])[0, 1]
    assert pair == pytest.approx(-1 / 20, abs=0.05)


@pytest.mark.parametrize(
    "sizes",
    [[1] * 60, [5] * 12, [40, 3, 3, 3, 3], [40, 30, 2, 1], [3, 4], [100, 1]],
    ids=["ones", "fives", "some large", "few small", "few in all", "one left over"],
)
def test_strata_too_small_to_vary_are_drawn_together(sizes):
    strata = np.repeat(np.arange(len(sizes)), sizes)
    counts = stratified(strata, 2000, 0)
    assert (counts.sum(1) == len(strata)).all()
    # The spread of a mean over all is nearly that of questions drawn one by one, (1 - 1 / m) of it in a stratum of m.
    x = np.random.default_rng(1).standard_normal(len(strata))
    x -= x.mean()  # strata that do not differ, or drawing within them would rightly vary less
    spread = (counts @ x).var() / (x @ x)
    assert spread > (1 - 1 / FEWEST_IN_STRATUM) * 0.85
    large = [code for code, size in enumerate(sizes) if size >= FEWEST_IN_STRATUM]
    for code in large[:-1]:
        assert (counts[:, strata == code].sum(1) == sizes[code]).all()


def test_clusters_are_drawn_whole():
    clusters = np.random.default_rng(0).integers(0, 15, 100)
    counts = clustered(clusters, 50, 0)
    for code in range(15):
        own = counts[:, clusters == code]
        assert (own == own[:, :1]).all()
    firsts = np.array([np.flatnonzero(clusters == code)[0] for code in range(15)])
    assert (counts[:, firsts].sum(1) == 15).all()


def test_the_same_seed_gives_the_same_draws_and_another_gives_others():
    strata = np.arange(50) % 4
    assert (stratified(strata, 20, 5) == stratified(strata, 20, 5)).all()
    assert (stratified(strata, 20, 5) != stratified(strata, 20, 6)).any()
    names = [(0, "arc"), (1, "arc"), (0, "piqa"), (0, "arc", "0"), (0, "ar", "c")]
    assert len({seed_of(*name) for name in names}) == len(names)


def test_draws_do_not_depend_on_the_size_of_a_block(monkeypatch):
    whole = stratified(one_stratum(30), 100, 0)
    monkeypatch.setattr("merge_calib.inference.resampling._BLOCK", 90)
    assert (stratified(one_stratum(30), 100, 0) == whole).all()


def test_a_mean_has_the_percentiles_of_its_draws():
    draws = [[i / 1000 for i in range(1001)]]
    found = synthetic({"accuracy": [0.7]}, {"accuracy": draws}).estimate("accuracy", "a")
    assert found == Estimate(0.7, pytest.approx(0.025), pytest.approx(0.975), 100)


def test_a_debiased_error_has_1_96_standard_deviations_around_its_value():
    draws = np.random.default_rng(0).normal(0.5, 0.1, 2000)  # far off the value: its draws are biased
    found = synthetic({"sce2": [0.2]}, {"sce2": [draws]}).estimate("sce2", "a")
    assert found.value == 0.2
    assert (found.low, found.high) == pytest.approx((0.2 - Z * draws.std(ddof=1), 0.2 + Z * draws.std(ddof=1)))


@pytest.mark.parametrize("measure", PLUG_IN)
def test_a_plug_in_error_has_no_interval(measure):
    with pytest.raises(AssertionError, match="does not cover"):
        joint_of(forecasts(60), stratified(one_stratum(60), 10, 0), 10).estimate(measure, "base")


def test_differences_are_paired():
    found = forecasts(2000)
    noisy = {"point": found["point"], "base": found["point"].take(np.random.default_rng(0).permutation(2000))}
    joint = joint_of(found, stratified(one_stratum(2000), 400, 0), 10)
    unpaired = joint_of(noisy, stratified(one_stratum(2000), 400, 0), 10)  # the negative control

    def width(e: Estimate) -> float:
        return e.high - e.low

    hits = found["point"].hit.astype(float) - found["base"].hit
    plain = 2 * Z * hits.std() / math.sqrt(2000)
    assert width(joint.difference("accuracy", "point", "base")) == pytest.approx(plain, rel=0.15)
    assert width(unpaired.difference("accuracy", "point", "base")) > 1.3 * plain


def test_a_difference_in_accuracy_counts_one_more_question_that_differs():
    draws = np.random.default_rng(0).normal(0.01, 0.002, 3000)
    values = {m: [0.01, 0.0] for m in ("accuracy", "nll")}
    joint = synthetic(values, {m: [draws, np.zeros(3000)] for m in values}, n=500)
    found, nll = joint.difference("accuracy", "a", "b"), joint.difference("nll", "a", "b")
    reach = Z * math.sqrt(draws.var(ddof=1) + 1 / 500**2)
    assert (found.low, found.high) == pytest.approx((0.01 - reach, 0.01 + reach))
    assert (nll.low, nll.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_differences_of_few_questions_are_covered():
    """300 questions of which 1 % differ: percentiles alone cover in 8 of 10 data sets."""
    rng = np.random.default_rng(0)
    covered, alone = 0, 0
    for _ in range(1000):
        wins, losses, _ = rng.multinomial(300, [0.0051, 0.0059, 0.989])
        drawn = rng.multinomial(300, [wins / 300, losses / 300, 1 - (wins + losses) / 300], 300)
        draws = (drawn[:, 0] - drawn[:, 1]) / 300
        joint = synthetic({"accuracy": [(wins - losses) / 300, 0]}, {"accuracy": [draws, np.zeros(300)]}, n=300)
        found = joint.difference("accuracy", "a", "b")
        covered += found.low <= -0.0008 <= found.high
        alone += np.quantile(draws, 0.025) <= -0.0008 <= np.quantile(draws, 0.975)
    assert covered > 930
    assert alone < 850


def test_a_p_value_is_the_share_of_draws_that_are_no_better():
    first = np.linspace(-0.02, 0.08, 1001)  # 201 of 1,001 at 0 or below
    joint = synthetic({"accuracy": [0.03, 0.0]}, {"accuracy": [first, np.zeros(1001)]})
    assert joint.better("accuracy", "a", "b") == pytest.approx(202 / 1002)
    assert joint.better("accuracy", "b", "a") == pytest.approx(802 / 1002)
    nll = synthetic({"nll": [0.03, 0.0]}, {"nll": [first, np.zeros(1001)]})
    assert nll.better("nll", "b", "a") == pytest.approx(202 / 1002)  # lower is better


def test_a_draw_that_is_exactly_as_good_is_no_better():
    joint = synthetic({"accuracy": [0.5, 0.4]}, {"accuracy": [[0.1 + 0.2] * 20 + [0.5] * 80, [0.3] * 100]})
    assert joint.better("accuracy", "a", "b") == 21 / 101


def test_where_few_draws_are_no_better_the_tail_is_a_normal_one():
    draws = np.random.default_rng(0).normal(0.05, 0.01, 2000)
    joint = synthetic({"accuracy": [0.05, 0.0]}, {"accuracy": [draws, np.zeros(2000)]})
    assert joint.better("accuracy", "a", "b") == pytest.approx(norm.sf(0.05 / draws.std(ddof=1)))
    squared = synthetic({"sce2": [0.0, 0.01]}, {"sce2": [np.zeros(2000), draws]})
    assert squared.better("sce2", "a", "b") == pytest.approx(norm.sf(0.01 / draws.std(ddof=1)))


def test_a_margin_allows_a_loss():
    draws = np.random.default_rng(0).normal(-0.002, 0.002, 2000)
    joint = synthetic({"accuracy": [-0.002, 0.0]}, {"accuracy": [draws, np.zeros(2000)]}, n=100_000)
    assert joint.better("accuracy", "a", "b", margin=0.005) == pytest.approx(norm.sf(1.5), abs=0.02)
    assert joint.better("accuracy", "a", "b") > 0.8


def test_a_margin_counts_the_variance_that_losing_it_would_have():
    draws = np.full((2, 500), 0.5)
    joint = synthetic({"accuracy": [0.5, 0.5]}, {"accuracy": draws}, n=1000)
    assert joint.better("accuracy", "a", "b", margin=0.01) == pytest.approx(norm.sf(0.01 / math.sqrt(0.01 / 1000)))
    assert joint.better("accuracy", "a", "b") == 1.0


def test_the_test_of_a_margin_keeps_its_level_where_forecasts_hardly_differ():
    """1,188 questions; all that differ are lost, as many as the margin on average. Exact shares, without a margin's
    own variance the last would be .016."""
    lost, n, level = 0.005 * 1188, 1188, 0.0017
    rng = np.random.default_rng(0)
    rejected = 0.0
    for k in range(7):
        draws = -rng.poisson(k, 2000) / n
        joint = synthetic({"accuracy": [-k / n, 0.0]}, {"accuracy": [draws, np.zeros(2000)]}, n=n)
        chance = math.exp(-lost) * lost**k / math.factorial(k)
        rejected += chance * (joint.better("accuracy", "a", "b", margin=0.005) <= level)
    assert rejected <= level


def test_p_values_of_equal_forecasts_are_uniform():
    """400 data sets of two forecasts that are equally good: at most 5 % of p-values below .05, but for chance."""
    rng = np.random.default_rng(0)
    counts = stratified(one_stratum(400), 400, 0)
    values = []
    for _ in range(400):
        difference = rng.choice([-1.0, 0.0, 1.0], p=[0.06, 0.88, 0.06], size=400)
        draws = counts @ difference / 400
        joint = synthetic({"accuracy": [difference.mean(), 0]}, {"accuracy": [draws, np.zeros(400)]}, n=400)
        values.append(joint.better("accuracy", "a", "b"))
    assert np.mean(np.array(values) <= 0.05) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert np.mean(np.array(values) <= 0.5) == pytest.approx(0.47, abs=0.09)  # ties count against


def test_the_band_of_one_forecast_is_1_96_standard_deviations_and_of_many_wider():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.5, 0.02, (8, 20_000))
    joint = synthetic({"accuracy": [0.5] * 8}, {"accuracy": draws})
    (alone,) = joint.band("accuracy", "a")
    assert (alone.high - 0.5) / draws[0].std() == pytest.approx(Z, abs=0.03)
    together = joint.band("accuracy", joint.names)
    # Eight independent ones: each covers with .95^(1/8).
    assert (together[0].high - 0.5) / draws[0].std() == pytest.approx(norm.ppf((1 + 0.95 ** (1 / 8)) / 2), abs=0.04)
    assert all(e.value - e.low == pytest.approx(e.high - e.value) for e in together)


def test_the_band_of_forecasts_that_move_as_one_is_no_wider_than_that_of_one():
    draws = np.random.default_rng(0).normal(0.5, 0.02, 5000)
    joint = synthetic({"accuracy": [0.5, 0.6]}, {"accuracy": [draws, draws * 3]})
    one, three = joint.band("accuracy", "ab")
    assert three.high - three.value == pytest.approx(3 * (one.high - one.value))
    assert one.high == pytest.approx(joint.band("accuracy", "a")[0].high)


def test_the_band_of_what_does_not_vary_has_width_0():
    joint = synthetic({"accuracy": [0.5]}, {"accuracy": np.full((1, 50), 0.5)})
    assert joint.band("accuracy", "a") == [Estimate(0.5, 0.5, 0.5, 100)]


def test_recentred_draws_keep_their_spread_around_the_value():
    draws = np.random.default_rng(0).normal(0.5, 0.1, (2, 500))
    found = synthetic({"sce2": [0.1, 0.2]}, {"sce2": draws}).recentred("sce2")
    assert found.mean(0) == pytest.approx([0.1, 0.2])
    assert found.std(0) == pytest.approx(draws.std(1))


def test_forecasts_may_be_renamed_and_named_twice():
    joint = joint_of(forecasts(60), stratified(one_stratum(60), 10, 0), 10).renamed({"x": "aligned", "y": "aligned"})
    assert joint.names == ("x", "y")
    assert (joint.difference("sce2", "x", "y").low, joint.difference("sce2", "x", "y").high) == (0, 0)


def test_the_mean_over_tasks_by_hand():
    one = synthetic({"accuracy": [0.5], "sce2": [0.1]}, {"accuracy": [[0.4, 0.6]], "sce2": [[0, 1]]}, n=10)
    two = synthetic({"accuracy": [0.8]}, {"accuracy": [[1.0, 0.6]]}, n=30)
    mean = average([one, two])
    assert (mean.n, mean.has("sce2")) == (40, False)
    assert mean.values["accuracy"] == pytest.approx([0.65])
    assert mean.draws["accuracy"][:, 0] == pytest.approx([0.7, 0.6])
    assert (mean.fewest, mean.effective) == (10, pytest.approx(4 / (1 / 10 + 1 / 30)))
    assert (one.fewest, one.effective) == (10, 10)


def test_a_run_of_one_question_a_stratum_still_has_an_interval():
    found = forecasts(80)
    estimate = joint_of(found, stratified(np.arange(80), 300, 0), 10).estimate("accuracy", "base")
    p = estimate.value
    assert estimate.high - estimate.low == pytest.approx(2 * Z * math.sqrt(p * (1 - p) / 80), rel=0.25)


def test_the_detectable_difference_by_hand():
    assert pytest.approx(1.959964 + 0.841621, abs=1e-6) == REACH
    assert detectable_accuracy(1000, 0.1) == pytest.approx(0.028, abs=2e-4)
    assert detectable_accuracy(2376, 0.1) == pytest.approx(0.018, abs=2e-4)
    draws = np.random.default_rng(0).normal(0, 0.01, (2, 3000))
    joint = synthetic({"accuracy": [0.5, 0.5]}, {"accuracy": draws})
    assert detectable(joint, "accuracy", "a", "b") == pytest.approx(
        REACH * math.hypot(0.01 * math.sqrt(2), 1 / joint.n), rel=0.05
    )


def test_the_detectable_difference_is_found_in_80_percent_of_samples():
    rng = np.random.default_rng(0)
    n, discordance = 2000, 0.1
    gain = detectable_accuracy(n, discordance)
    counts = rng.multinomial(n, [(discordance + gain) / 2, (discordance - gain) / 2, 1 - discordance], 20_000)
    wins, losses = counts[:, 0], counts[:, 1]
    z = (wins - losses) / np.sqrt(wins + losses)
    assert np.mean(np.abs(z) > Z) == pytest.approx(0.8, abs=0.02)


def test_the_ends_of_a_fieller_interval_are_where_the_ratio_is_just_not_refuted():
    v = np.array([[0.04, 0.01], [0.01, 0.02]])
    for r in fieller(1.0, 2.0, v):
        assert (1.0 - 2.0 * r) ** 2 == pytest.approx(Z**2 * (v[0, 0] - 2 * r * v[0, 1] + r**2 * v[1, 1]))
    low, high = fieller(1.0, 2.0, v)
    assert low < 0.5 < high


def test_a_fieller_interval_with_a_known_denominator_is_that_of_the_numerator():
    low, high = fieller(1.0, 2.0, np.array([[0.04, 0.0], [0.0, 0.0]]))
    assert (low, high) == pytest.approx(((1 - Z * 0.2) / 2, (1 + Z * 0.2) / 2))


def test_a_fieller_interval_covers_the_ratio_where_the_delta_method_does_not():
    rng = np.random.default_rng(0)
    covariance = np.array([[0.09, 0.03], [0.03, 0.16]])
    pairs = rng.multivariate_normal([0.2, 1.3], covariance, 20_000)
    intervals = np.array([fieller(x, y, covariance) for x, y in pairs])
    assert np.mean((intervals[:, 0] <= 0.2 / 1.3) & (intervals[:, 1] >= 0.2 / 1.3)) == pytest.approx(0.95, abs=0.015)


def test_a_denominator_that_may_be_0_leaves_the_ratio_unknown():
    assert fieller(1.0, 0.3, np.array([[0.04, 0.0], [0.0, 0.04]])) == (-math.inf, math.inf)


def three(nll, spread: float = 0.001) -> Joint:
    """Base, point and aligned."""
    draws = np.array(nll)[:, None] + np.random.default_rng(0).normal(0, spread, (3, 2000))
    return synthetic({"nll": nll}, {"nll": draws})


def test_recovery_by_hand():
    found = recovery(three([1.0, 1.1, 1.4]), "nll", "b", "a", "c")
    assert found.value == pytest.approx(0.75)
    assert 0.74 < found.low < 0.75 < found.high < 0.76
    assert recovery(three([1.0, 1.1, 1.4]), "nll", "a", "a", "c").value == 1.0
    assert recovery(three([1.0, 1.1, 1.4]), "nll", "c", "a", "c").value == 0.0


@pytest.mark.parametrize("aligned", [1.0, 0.9, 1.001])
def test_nothing_is_recovered_of_what_was_not_plainly_lost(aligned):
    assert recovery(three([1.0, 1.0, aligned]), "nll", "b", "a", "c") == Recovery("nll", None, None, None)


def test_a_recovery_is_never_infinite():
    """Skewed draws, whose percentiles exclude 0 where 1.96 standard deviations do not."""
    loss = 0.03 + np.random.default_rng(0).exponential(1.0, 4000) ** 2
    joint = synthetic({"nll": [0.0, 0.0, float(loss.mean())]}, {"nll": [np.zeros(4000), np.zeros(4000), loss]})
    assert joint.difference("nll", "c", "a").low > 0
    assert recovery(joint, "nll", "b", "a", "c") == Recovery("nll", None, None, None)


@pytest.mark.parametrize("options", [2, 4])
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant_scores_are_measured_without_a_warning(options, value):
    logits = np.zeros((60, options))
    logits[:, 0] = value
    p = ChoiceScores(
        tuple(map(str, range(60))), np.arange(60) % options, logits, np.ones_like(logits, bool)
    ).predictions
    joint = joint_of({"a": p, "b": p}, stratified(one_stratum(60), 100, 0), 10)
    for measure in (*MEANS, *DEBIASED):
        assert np.isfinite(joint.draws[measure]).all()
        reach = Z / 60 if measure == "accuracy" else 0.0
        found = joint.difference(measure, "a", "b")
        assert (found.low, found.high) == (pytest.approx(-reach), pytest.approx(reach))
        assert joint.difference(measure, "a", "a") == Estimate(0, 0, 0, 60)
        assert joint.better(measure, "a", "b") == 1.0


def test_holm_on_numbers_by_hand():
    # .01 x 5, .013 x 4 raised to .05 x 1, .02 x 3, two ties at .5.
    assert holm(np.array([0.5, 0.01, 0.02, 0.5, 0.013])) == pytest.approx([1.0, 0.05, 0.06, 1.0, 0.052])
    assert holm(np.array([0.03])).tolist() == [0.03]
    assert holm(np.array([])).tolist() == []
