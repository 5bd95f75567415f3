"""Early stopping: who is stopped, who never, and every spread against a plain recount."""

import math

import numpy as np
import pytest

from merge_calib.calibration import metrics
from merge_calib.calibration.squared import ece2, sce2
from merge_calib.errors import InputError
from merge_calib.inference.hopeless import (
    Behind,
    Measure,
    can_stop,
    compare,
    estimate,
    hopeless,
    jackknife,
    looks,
    order,
)
from merge_calib.scores import ChoiceScores, Predictions

BOTH = ("accuracy", "sce")
ALL = ("accuracy", "nll", "brier", "ece", "sce", "ece_15", "sce_15", "ece2", "sce2")
BINNED = {
    "ece": metrics.ece,
    "sce": metrics.sce,
    "ece2": lambda p, b: ece2(p, b).value,
    "sce2": lambda p, b: sce2(p, b).value,
}


def family(seed: int, n: int, options: int = 4):
    """Answers to the same n questions by noise and sharpness; some questions lack some of the options."""
    rng = np.random.default_rng(seed)
    mask = np.arange(options) < rng.integers(2, options + 1, n)[:, None]
    truth = np.where(mask, rng.gamma(1.0, size=mask.shape), 0.0)
    truth /= truth.sum(1, keepdims=True)
    answers = (rng.random(n)[:, None] > truth.cumsum(1)).sum(1).clip(0, mask.sum(1) - 1)
    z = rng.standard_normal(mask.shape)
    logits = np.log(np.maximum(truth, 1e-9))

    def answered(noise: float, sharpness: float) -> Predictions:
        scores = np.where(mask, sharpness * (logits + noise * z), np.nan)
        return ChoiceScores(tuple(map(str, range(n))), answers, scores, mask).predictions

    return answered


def one(p: Predictions) -> dict[str, Predictions]:
    return {"task": p}


def value(p: Predictions, objective: str, bins: int = 10) -> float:
    name, _, own = objective.partition("_")
    return BINNED[name](p, int(own or bins)) if name in BINNED else getattr(metrics, name)(p)


def compared_by(objective: str) -> str:
    return {"ece": "ece2", "sce": "sce2", "ece_15": "ece2_15", "sce_15": "sce2_15"}.get(objective, objective)


# --- the order of asking, and the looks


def test_an_order_holds_every_question_once_and_its_seed_matters():
    ids = [f"q{i}" for i in range(60)]
    first, again, other = (order(ids, ["a", "b"] * 30, seed) for seed in (0, 0, 1))
    assert sorted(first.tolist()) == list(range(60))
    assert first.tolist() == again.tolist() != other.tolist()


def test_the_order_is_that_of_the_ids_however_they_are_given():
    ids, subjects = [f"q{i}" for i in range(80)], ["law", "art", "art", "war"] * 20
    shuffled = np.random.default_rng(0).permutation(80)
    found = order([ids[i] for i in shuffled], [subjects[i] for i in shuffled], 3)
    assert [ids[shuffled[i]] for i in found] == [ids[i] for i in order(ids, subjects, 3)]


@pytest.mark.parametrize("sizes", [[500, 300, 40, 3], [1] * 400, [7] * 100, [600]])
def test_every_beginning_is_nearly_proportional_by_subject(sizes):
    subjects = np.repeat(np.arange(len(sizes)), sizes)
    found = order([f"q{i}" for i in range(len(subjects))], [str(s) for s in subjects], 0)
    n = len(subjects)
    for m in (n // 8, n // 4, n // 2, n - 1):
        counts = np.bincount(subjects[found[:m]], minlength=len(sizes))
        most_off = np.abs(counts - m * np.array(sizes) / n)
        # one question, and what the places of all the others add up to by luck
        assert (most_off <= 1 + 3 * math.sqrt(len(sizes)) * np.array(sizes) / n).all()


def test_subjects_of_one_question_are_not_asked_in_alphabetical_order():
    # Without a place of its own each would come in the middle, and ties would be broken by something else.
    ids = [f"q{i:03}" for i in range(400)]
    early = order(ids, ids, 0)[:100]
    assert 150 < np.mean(early) < 250
    assert not (np.diff(early) > 0).all()


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(0, ()), (100, ()), (199, (100,)), (198, ()), (300, (150,)), (400, (100, 200)), (2000, (250, 500, 1000))],
)
def test_looks_are_at_an_eighth_a_quarter_and_a_half_of_enough_questions(n, sizes):
    assert looks(n) == sizes


# --- the jackknife


@pytest.mark.parametrize("name", ["ece", "sce", "ece2", "sce2"])
@pytest.mark.parametrize("bins", [7, 15])
def test_leaving_questions_out_in_turn_gives_the_same_as_measuring_without_them(name, bins):
    p = family(1, 70, 5)(0.5, 1.7)  # bins of one and two questions among them
    found = jackknife(p, Measure(name, bins))
    without = [BINNED[name](p.take(np.arange(70) != i), bins) for i in range(70)]
    assert found.value == pytest.approx(BINNED[name](p, bins), abs=1e-14)
    np.testing.assert_allclose(found.value - found.influence / 69, without, atol=1e-13)
    assert found.variance == pytest.approx(69 / 70 * ((without - np.mean(without)) ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize("name", ["accuracy", "nll", "brier"])
def test_the_jackknife_of_a_mean_is_its_plain_variance(name):
    p = family(2, 90)(0.5, 1.5)
    without = [value(p.take(np.arange(90) != i), name) for i in range(90)]
    found = jackknife(p, Measure(name))
    assert found.value == pytest.approx(value(p, name))
    np.testing.assert_allclose(found.value - found.influence / 89, without, atol=1e-12)


def test_a_bin_that_holds_one_question_adds_nothing_to_a_debiased_error():
    p = Predictions.from_probabilities(np.array([[0.95, 0.05], [0.65, 0.35], [0.61, 0.39]]), np.array([0, 0, 1]))
    # (.6, .7]: d = .35, -.61, whose product, twice, over the one other of them; 3 questions in all
    assert jackknife(p, Measure("ece2", 10)).value == pytest.approx(2 * 0.35 * -0.61 / 3)
    assert jackknife(p, Measure("ece2", 10)).influence[0] == pytest.approx(2 * -0.2135 * (2 / 3 - 1))


def test_the_spread_of_a_debiased_difference_is_that_over_new_questions():
    lots = family(3, 60_000)
    one_, other = lots(0.6, 2.0), lots(0.4, 1.2)
    found = []
    for i in range(200):
        rows = np.arange(300 * i, 300 * (i + 1))
        behind, _ = compare(one(one_.take(rows)), {"i": one(other.take(rows))}, ["sce"])["i"]
        found.append((behind.value, behind.spread))
    values, spreads = np.array(found).T
    ratio = np.sqrt((spreads**2).mean()) / values.std(ddof=1)
    assert 0.9 < ratio < 1.25  # the standard error of a spread from 200 values is 5 %; too large is the safe side


# --- comparisons


def slow_behind(parts, objective):
    """The mean over tasks of paired differences and its variance, task by task and question by question."""
    values, variances, extra = [], [], 0.0
    for p, other in parts:
        n, sign = len(p.answers), -1 if objective == "accuracy" else 1
        difference = sign * (value(p, compared_by(objective)) - value(other, compared_by(objective)))
        left = []
        for i in range(n):
            rest = np.arange(n) != i
            left.append(
                sign * (value(p.take(rest), compared_by(objective)) - value(other.take(rest), compared_by(objective)))
            )
        mean = sum(left) / n
        values.append(difference)
        variances.append((n - 1) / n * sum((x - mean) ** 2 for x in left))
        extra += 1 / n
    tasks = len(parts)
    variance = sum(variances) / tasks**2
    variance += (extra / tasks**2) ** 2 if objective == "accuracy" else 0.0
    return sum(values) / tasks, math.sqrt(variance)


@pytest.mark.parametrize("objective", ALL)
def test_comparisons_equal_a_plain_recount_over_tasks_of_different_sizes(objective):
    made = {"a": family(4, 40, 3), "b": family(5, 75, 5)}
    point, other = ({t: f(*kind) for t, f in made.items()} for kind in ((0.9, 2.0), (0.4, 1.2)))
    found, *_ = compare(point, {"i": other}, [objective])["i"]
    want = slow_behind([(point[t], other[t]) for t in made], objective)
    assert (found.value, found.spread) == pytest.approx(want, rel=1e-9, abs=1e-13)


def test_differences_are_paired():
    answered = family(6, 400)
    near, far = answered(0.4, 1.2), answered(0.42, 1.25)
    paired, *_ = compare(one(far), {"i": one(near)}, BOTH)["i"]
    alone = [jackknife(p, Measure("accuracy")).variance for p in (near, far)]
    assert paired.spread < 0.5 * math.sqrt(sum(alone))


def test_the_order_of_questions_within_a_beginning_does_not_matter():
    answered = family(7, 300)
    point, incumbent = answered(1.5, 3.0), answered(0.3, 1.0)
    shuffled = np.random.default_rng(0).permutation(300)
    first = compare(one(point), {"i": one(incumbent)}, ALL)["i"]
    again = compare(one(point.take(shuffled)), {"i": one(incumbent.take(shuffled))}, ALL)["i"]
    for a, b in zip(first, again, strict=True):
        assert (a.value, a.spread) == pytest.approx((b.value, b.spread), rel=1e-10, abs=1e-14)


def test_answers_to_other_questions_are_our_fault():
    with pytest.raises(AssertionError, match="other questions"):
        hopeless(one(family(8, 200)(1.0, 1.0)), {"i": one(family(9, 200)(1.0, 1.0))})


def test_other_tasks_are_our_fault():
    p = family(8, 200)(1.0, 1.0)
    for ask in (lambda: compare(one(p), {"i": {"other": p}}, BOTH), lambda: estimate(one(p), {"other": p}, {})):
        with pytest.raises(AssertionError, match="other tasks"):
            ask()


# --- verdicts


def test_a_far_worse_point_is_stopped_at_the_first_look():
    answered = family(10, 125)
    incumbents = {"good": one(answered(0.1, 1.0)), "worse": one(answered(1.0, 1.5))}
    verdict = hopeless(one(answered(3.0, 4.0)), incumbents)
    assert verdict is not None
    assert verdict.asked == 125
    assert verdict.incumbent == "good"
    assert [b.measure for b in verdict.behind] == ["accuracy", "sce2 in 10 bins", "sce in 10 bins"]
    assert all(0 < b.low < b.value for b in verdict.behind)


@pytest.mark.parametrize("objective", ALL[1:])
def test_any_error_may_be_the_objective(objective):
    answered = family(11, 400)
    assert hopeless(one(answered(3.0, 4.0)), {"i": one(answered(0.1, 1.0))}, ("accuracy", objective))
    assert hopeless(one(answered(0.1, 1.0)), {"i": one(answered(3.0, 4.0))}, ("accuracy", objective)) is None


def test_two_errors_may_be_the_objectives():
    answered = family(11, 400)
    assert hopeless(one(answered(3.0, 4.0)), {"i": one(answered(0.1, 1.0))}, ("nll", "ece_15"))


@pytest.mark.parametrize("objectives", [("accuracy", "auroc"), ("sce_agreement", "accuracy"), ("mean_confidence",), ()])
def test_by_other_measures_nothing_is_stopped(objectives):
    answered = family(10, 400)
    assert not can_stop(objectives)
    assert hopeless(one(answered(3.0, 4.0)), {"i": one(answered(0.1, 1.0))}, objectives) is None


def test_a_point_never_stops_itself():
    p = one(family(12, 1000)(2.0, 3.0))
    for confidence in (0.5, 0.9):
        assert hopeless(p, {"itself": p}, confidence=confidence, looks=1) is None


def test_equal_accuracy_never_stops():
    answered = family(13, 2000)
    calm, loud = answered(0.4, 1.0), answered(0.4, 4.0)  # the same predictions
    assert (calm.hit == loud.hit).all()
    accuracy, error, _ = compare(one(loud), {"calm": one(calm)}, BOTH)["calm"]
    assert accuracy.value == 0
    assert error.value > 10 * error.spread
    assert hopeless(one(loud), {"calm": one(calm)}, confidence=0.5) is None


def test_a_point_that_is_better_by_the_error_itself_is_not_stopped_by_its_square():
    """The square weighs one bad bin more than many that are a little off; the objective is the error."""
    answers = np.arange(4000) % 2  # the first option is right in half of the questions

    def forecast(*confidences):
        confidence = np.repeat(confidences, 2000)
        return Predictions.from_probabilities(np.stack([confidence, 1 - confidence], axis=1), answers)

    point, incumbent = forecast(0.51, 0.84), forecast(0.7, 0.7)  # off by .01 and .34, and by .2
    _, square, error = compare(one(point), {"i": one(incumbent)}, BOTH)["i"]
    assert square.value > 5 * square.spread
    assert error.value < 0
    assert hopeless(one(point), {"i": one(incumbent)}, ("sce", "ece")) is None


def test_an_equal_error_never_stops():
    # The right option has .4 in both, so NLL is the same, but only one of them predicts it.
    answers = np.zeros(500, dtype=np.int64)
    wrong, right = (
        Predictions.from_probabilities(np.tile(row, (500, 1)), answers) for row in ([0.4, 0.6, 0.0], [0.4, 0.3, 0.3])
    )
    incumbents = {"i": one(right)}
    assert hopeless(one(wrong), incumbents, ("accuracy", "nll"), confidence=0.5) is None
    assert hopeless(one(wrong), incumbents, ("accuracy", "brier"), confidence=0.5)


def test_two_incumbents_of_which_neither_is_better_by_both_do_not_stop_together():
    answered = family(14, 1000)
    point = answered(1.0, 1.5)
    accurate, calibrated = answered(0.1, 5.0), answered(4.0, 0.25)
    incumbents = {"accurate": one(accurate), "calibrated": one(calibrated)}
    found = compare(one(point), incumbents, BOTH)
    assert found["accurate"][0].value > 0 > found["accurate"][1].value  # each is better by one
    assert found["calibrated"][1].value > 0 > found["calibrated"][0].value
    assert hopeless(one(point), incumbents, confidence=0.5) is None


def test_more_looks_incumbents_and_confidence_ask_for_more():
    answered = family(15, 250)
    point, incumbent = one(answered(0.9, 1.7)), one(answered(0.4, 1.1))
    lows = []
    for confidence, chances, chosen_from in ((0.5, 1, 1), (0.9, 1, 1), (0.9, 3, 1), (0.9, 3, 20), (0.99, 3, 20)):
        verdict = hopeless(point, {"i": incumbent}, confidence=confidence, looks=chances, chosen_from=chosen_from)
        lows.append(verdict is not None)
    assert lows[0]
    assert not lows[-1]
    assert lows == sorted(lows, reverse=True)


def test_the_bound_is_the_value_less_the_normal_quantile_of_an_equal_share():
    answered = family(10, 125)
    point, incumbents = one(answered(3.0, 4.0)), {"i": one(answered(0.1, 1.0))}
    verdict = hopeless(point, incumbents, confidence=0.95, looks=2, chosen_from=1)
    z = 1.959963984540054  # one side holds .05 / 2
    for behind, plain in zip(verdict.behind, compare(point, incumbents, BOTH)["i"], strict=True):
        assert behind == Behind(plain.measure, plain.value, plain.spread, pytest.approx(plain.value - z * plain.spread))


def test_incumbents_are_chosen_from_no_fewer_points_than_they_are():
    p = one(family(10, 125)(1.0, 1.0))
    with pytest.raises(AssertionError):
        hopeless(p, {"i": p, "j": p}, chosen_from=1)


def test_without_incumbents_or_with_a_task_hardly_begun_nothing_is_stopped():
    bad, good = family(10, 125)(3.0, 4.0), family(10, 125)(0.1, 1.0)
    few = np.arange(9)
    assert hopeless(one(bad), {}) is None
    assert hopeless({"a": bad, "b": bad.take(few)}, {"i": {"a": good, "b": good.take(few)}}) is None
    assert hopeless({"a": bad}, {"i": {"a": good, "b": good}}) is None  # of b nothing was asked yet
    assert hopeless({"a": bad, "b": bad}, {"i": {"a": good, "b": good}})


def test_an_infinite_loss_is_no_verdict():
    answered = family(10, 400)
    bad, good = answered(3.0, 4.0), answered(0.1, 1.0)
    certain = np.where(np.arange(4) == bad.predicted[:, None], 1.0, 0.0)
    p = Predictions.from_probabilities(certain, bad.answers, bad.mask)
    assert not np.isfinite(p.log_truth).all()
    assert hopeless(one(p), {"i": one(good)}, ("accuracy", "nll")) is None
    assert hopeless(one(p), {"i": one(good)}, ("accuracy", "brier"))


@pytest.mark.parametrize("confidence", [0.0, 0.49, 1.0, 95, math.nan])
def test_a_confidence_that_is_none_is_refused(confidence):
    p = one(family(10, 125)(1.0, 1.0))
    with pytest.raises(InputError, match="at least 0.5 and below 1, not"):
        hopeless(p, {"i": p}, confidence=confidence)


def at_the_edge(runs: int, n: int, *, is_corrected: bool) -> float:
    """How often a point is stopped that is as accurate as the eight before it, and worse calibrated than all.

    Without the correction every look at every incumbent has the level that is meant for all of them together.
    """
    rng = np.random.default_rng(0)
    stopped = 0
    for _ in range(runs):
        truth = rng.dirichlet(np.ones(3), n)
        answers = (rng.random(n)[:, None] > truth.cumsum(1)).sum(1).clip(0, 2)
        noises = 0.5 * rng.standard_normal((9, *truth.shape))
        powers = (truth * np.exp(noises)) ** np.array([4.0] + [1.0] * 8)[:, None, None]
        point, *pool = (Predictions.from_probabilities(p / p.sum(1, keepdims=True), answers) for p in powers)
        stopped += any(is_stopped(point, pool, m, is_corrected=is_corrected) for m in looks(n))
    return stopped / runs


def is_stopped(point: Predictions, pool, asked: int, *, is_corrected: bool) -> bool:
    rows = np.arange(asked)
    part, others = one(point.take(rows)), {str(i): one(p.take(rows)) for i, p in enumerate(pool)}
    if is_corrected:
        return hopeless(part, others, confidence=0.9, looks=2) is not None
    return any(hopeless(part, {i: p}, confidence=0.9, looks=1) is not None for i, p in others.items())


def test_a_point_that_nothing_dominates_is_seldom_stopped_and_the_correction_is_what_keeps_it():
    runs = 150
    within = 0.1 + 3 * math.sqrt(0.1 * 0.9 / runs)
    assert at_the_edge(runs, 400, is_corrected=True) <= 0.1
    assert at_the_edge(runs, 400, is_corrected=False) > within


# --- what a study is told


MEASURES = ("accuracy", "nll", "brier", "ece", "sce", "ece_15", "sce_15", "ece2", "sce2")


def test_what_is_told_of_the_incumbent_itself_is_what_it_is():
    answered = family(20, 800)
    whole, part = answered(0.6, 2.0), answered(0.6, 2.0).take(np.arange(200))
    measures = {name: value(whole, name) for name in MEASURES}
    told = estimate(one(part), one(part), measures)
    for name in MEASURES:
        if name.partition("_")[0] not in ("ece", "sce"):
            assert told[name] == pytest.approx(measures[name])


def test_means_and_debiased_errors_are_corrected_by_what_the_incumbent_got_so_far():
    answered = family(21, 800)
    bad, good = answered(2.0, 3.0), answered(0.3, 1.0)
    rows = np.arange(200)
    measures = {name: value(good, name) for name in MEASURES} | {"auroc": 0.7, "letter_bias": 0.1}
    told = estimate(one(bad.take(rows)), one(good.take(rows)), measures)
    assert set(told) == set(MEASURES)
    for name in MEASURES:
        own, theirs = value(bad.take(rows), name), value(good.take(rows), name)
        is_biased = name.partition("_")[0] in ("ece", "sce")
        assert told[name] == pytest.approx(own if is_biased else measures[name] + own - theirs)


def test_what_is_told_is_nearer_the_truth_than_the_answers_alone():
    answered = family(22, 4000)
    bad, good = answered(0.9, 1.6), answered(0.5, 1.2)
    measures = {name: value(good, name) for name in ("accuracy", "nll", "brier")}
    rng = np.random.default_rng(0)
    told, alone = [], []
    for _ in range(100):
        rows = rng.permutation(4000)[:300]
        found = estimate(one(bad.take(rows)), one(good.take(rows)), measures)
        told.append([found[name] - value(bad, name) for name in measures])
        alone.append([value(bad.take(rows), name) - value(bad, name) for name in measures])
    assert (np.square(told).mean(0) < np.square(alone).mean(0)).all()


def test_a_plug_in_error_of_few_questions_is_not_made_to_look_good():
    # The difference of two plug-in errors would be: the calibrated incumbent's is too large by more than the point's.
    answered = family(23, 8000)
    bad, good = answered(0.9, 3.0), answered(0.0, 1.0)
    rng = np.random.default_rng(1)
    told, differences = [], []
    for _ in range(40):
        rows = rng.permutation(8000)[:150]
        measures = {"sce": value(good, "sce")}
        told.append(estimate(one(bad.take(rows)), one(good.take(rows)), measures)["sce"])
        differences.append(measures["sce"] + value(bad.take(rows), "sce") - value(good.take(rows), "sce"))
    assert np.mean(told) >= value(bad, "sce")
    assert np.mean(differences) < value(bad, "sce") - 0.02
