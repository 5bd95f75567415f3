"""Changes, ranks, amplification and published numbers against hand-worked values, plain loops and scipy."""

import itertools
import math

import check_published_degradation as tool
import numpy as np
import pytest
from scipy import stats

from merge_calib.degradation.amplification import Line, collapse, kendalls_tau, slope
from merge_calib.degradation.change import Change, estimated, log_ratios, rates, recentred
from merge_calib.degradation.published import Published, ranked, rate_table, read_published
from merge_calib.degradation.ranks import estimated_ranks, kendalls_w, ranks
from merge_calib.degradation.rounding import (
    Absolutes,
    Impossible,
    Interval,
    Unbounded,
    derive,
    rank_ranges,
    read_printed,
)
from merge_calib.errors import InputError
from merge_calib.inference.holm import holm


def normals(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# Changes


def test_a_change_by_hand():
    change = Change(0.04, 0.05)
    assert change.difference == pytest.approx(0.01)
    assert change.rate == pytest.approx(25.0)
    assert change.log_ratio == pytest.approx(math.log(1.25))


def test_the_log_ratio_turns_its_sign_with_the_roles_and_the_rate_does_not():
    assert Change(0.2, 0.3).log_ratio == pytest.approx(-Change(0.3, 0.2).log_ratio)
    assert Change(0.2, 0.3).rate != pytest.approx(-Change(0.3, 0.2).rate)


@pytest.mark.parametrize(
    ("base", "aligned", "defined"),
    [
        (None, 0.1, (False, False, False)),
        (0.1, None, (False, False, False)),
        (0.0, 0.1, (True, False, False)),
        (-0.001, 0.1, (True, False, False)),  # a debiased error may lie below 0
        (0.1, 0.0, (True, True, False)),
        (0.1, 0.2, (True, True, True)),
    ],
)
def test_what_is_undefined_is_none_and_never_0(base, aligned, defined):
    change = Change(base, aligned)
    assert tuple(number is not None for number in (change.difference, change.rate, change.log_ratio)) == defined


def test_a_base_under_its_noise_floor_is_unstable():
    assert Change(0.01, 0.1, floor=0.02).unstable is True
    assert Change(0.03, 0.1, floor=0.02).unstable is False
    assert Change(0.03, 0.1).unstable is None
    assert Change(None, 0.1, floor=0.02).unstable is None


def test_intervals_of_the_change_of_a_mean_are_percentiles_of_paired_draws():
    base, aligned = 0.5 + 0.01 * normals(0, 400), 0.6 + 0.01 * normals(1, 400)
    found = estimated(Change(0.5, 0.6), base, aligned, 1000, is_mean=True)
    for estimate, draws in (
        (found.difference, aligned - base),
        (found.rate, (aligned / base - 1) * 100),
        (found.log_ratio, np.log(aligned / base)),
    ):
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
        assert estimate.n == 1000


def test_intervals_of_biased_draws_lie_around_the_value():
    base, aligned = 0.05 + 0.02 + 0.004 * normals(0, 2000), 0.1 + 0.01 + 0.004 * normals(1, 2000)
    found = estimated(Change(0.05, 0.1), base, aligned, 500, is_mean=False)
    assert (found.difference.low + found.difference.high) / 2 == pytest.approx(0.05)
    assert found.difference.high - found.difference.low == pytest.approx(2 * 1.96 * 0.004 * math.sqrt(2), rel=0.05)
    assert found.rate.low < 100 < found.rate.high
    percentiles = np.quantile((aligned / base - 1) * 100, [0.025, 0.975])  # as they are they would miss it
    assert percentiles[1] < 100


def test_a_rate_without_a_bound_has_no_interval():
    base, aligned = 0.01 + 0.01 * normals(0, 500), 0.1 + 0.01 * normals(1, 500)
    found = estimated(Change(0.01, 0.1), base, aligned, 100, is_mean=False)
    assert (found.rate, found.log_ratio) == (None, None)
    assert found.change.rate == pytest.approx(900)
    assert found.difference is not None
    assert estimated(Change(None, 0.1), base, aligned, 100, is_mean=False).difference is None


def test_recentred_draws_keep_their_spread_and_have_the_values_as_means():
    draws = 3 + normals(0, 300, 4)
    centred = recentred(np.array([0.0, 1.0, 2.0, 3.0]), draws)
    assert centred.mean(0) == pytest.approx([0, 1, 2, 3], abs=1e-12)
    assert centred.std(0) == pytest.approx(draws.std(0))


def test_rates_and_log_ratios_of_arrays_equal_those_of_single_changes():
    base, aligned = normals(0, 5, 4), normals(1, 5, 4)
    for found, name in ((rates(base, aligned), "rate"), (log_ratios(base, aligned), "log_ratio")):
        for place in np.ndindex(5, 4):
            one = getattr(Change(base[place], aligned[place]), name)
            assert math.isnan(found[place]) if one is None else found[place] == pytest.approx(one)
        assert 0 < np.isnan(found).sum() < 20


# Ranks


def test_ranks_by_hand_largest_first_ties_averaged_and_undefined_left_out():
    assert ranks(np.array([10.0, 30.0, -5.0, 30.0])).tolist() == [3.0, 1.5, 4.0, 1.5]
    assert ranks(np.array([10.0, np.nan, 20.0])).tolist()[::2] == [2.0, 1.0]
    assert math.isnan(ranks(np.array([10.0, np.nan, 20.0]))[1])


def test_ranks_follow_a_reordering_and_do_not_change_with_scale():
    values = normals(3, 6, 7)
    order = np.random.default_rng(0).permutation(7)
    assert (ranks(values[:, order]) == ranks(values)[:, order]).all()
    assert (ranks(5 * values + 2) == ranks(values)).all()


def test_rank_intervals_equal_a_plain_loop():
    draws = np.array([3.0, 2.0, 2.1, 0.0]) + normals(0, 200, 4)
    found = estimated_ranks(np.array([3.0, 2.0, 2.1, 0.0]), draws)
    places = [[1 + sum(other > own for other in row) for own in row] for row in draws.tolist()]
    for i, rank in enumerate(found):
        ordered = sorted(row[i] for row in places)
        assert rank.value == [1, 3, 2, 4][i]
        assert (rank.low, rank.high) == (ordered[4], ordered[194])  # the 5th and the 195th of 200


def test_pairs_that_are_far_apart_have_sure_ranks_and_those_alike_have_none():
    draws = np.array([100.0, 0.0, 0.0]) + normals(0, 1000, 3)
    first, second, third = estimated_ranks(np.array([100.0, 0.1, 0.0]), draws)
    assert (first.low, first.high) == (1, 1)
    assert (second.low, second.high) == (third.low, third.high) == (2, 3)


def test_a_pair_that_some_draws_leave_undefined_may_have_any_rank_and_the_others_know_it():
    draws = np.array([3.0, 2.0, 1.0]) + 0.01 * normals(0, 100, 3)
    draws[:10, 1] = np.nan
    first, second, third = estimated_ranks(np.array([3.0, 2.0, 1.0]), draws)
    assert (second.low, second.high) == (1, 3)
    assert (first.low, first.high) == (1, 2)
    assert (third.low, third.high) == (2, 3)


def test_a_pair_without_a_rate_has_no_rank():
    found = estimated_ranks(np.array([3.0, np.nan, 5.0]), np.array([[3.0, np.nan, 5.0]] * 50))
    assert found[1] is None
    assert [found[0].value, found[2].value] == [2, 1]
    assert estimated_ranks(np.array([np.nan]), np.full((5, 1), np.nan)) == [None]


def test_w_by_hand():
    # Ranks 1 2 3, 1 2 3, 2 1 3: sums 4 5 9, S = 4 + 1 + 9 = 14, W = 12 * 14 / (9 * 24) = 7/9.
    found = kendalls_w(np.array([[3.0, 2.0, 1.0], [30.0, 20.0, 10.0], [2.0, 3.0, 1.0]]))
    assert found.w == pytest.approx(7 / 9)
    assert found.chi_square == pytest.approx(3 * 2 * 7 / 9)
    assert (found.tasks, found.pairs) == (3, 3)


@pytest.mark.parametrize("tied", [False, True])
def test_w_equals_friedman_with_and_without_ties(tied):
    for seed in range(5):
        values = normals(seed, 8, 5) + np.arange(5)
        values = values.round() if tied else values
        found = kendalls_w(values)
        friedman = stats.friedmanchisquare(*values.T)
        assert found.chi_square == pytest.approx(friedman.statistic)
        assert found.w == pytest.approx(friedman.statistic / (8 * 4))
        assert found.p_value == pytest.approx(friedman.pvalue)


def test_w_is_1_for_one_order_and_does_not_depend_on_the_order_of_tasks_or_pairs():
    assert kendalls_w(np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])).w == pytest.approx(1)
    values, rng = normals(0, 6, 4), np.random.default_rng(1)
    moved = values[rng.permutation(6)][:, rng.permutation(4)]
    assert kendalls_w(moved).w == pytest.approx(kendalls_w(values).w)


def test_the_exact_permutation_p_equals_a_plain_loop_over_all_arrangements():
    values = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [2.0, 3.0, 1.0]])
    judges = stats.rankdata(-values, axis=1)

    def spread(rows) -> float:
        sums = np.sum(rows, axis=0)
        return float(((sums - sums.mean()) ** 2).sum())

    all_rows = itertools.product(*(itertools.permutations(judge) for judge in judges.tolist()))
    share = np.mean([spread(rows) >= spread(judges) - 1e-9 for rows in all_rows])
    found = kendalls_w(values)
    assert found.is_exact
    assert found.permutation_p == pytest.approx(share)


def test_the_sampled_permutation_p_is_near_the_chi_square_where_there_are_many_tasks():
    found = kendalls_w(normals(0, 20, 6) + 0.2 * np.arange(6))
    assert not found.is_exact
    assert found.permutation_p == pytest.approx(found.p_value, abs=0.02)
    assert kendalls_w(normals(0, 21, 6)).permutation_p is None


def test_tasks_that_agree_on_nothing_have_a_small_w():
    p_values = [kendalls_w(normals(seed, 10, 4)).p_value for seed in range(100)]
    assert 0.3 < np.mean(p_values) < 0.7
    assert np.mean(np.array(p_values) < 0.05) < 0.15
    assert kendalls_w(normals(0, 10, 4) + 3 * np.arange(4)).permutation_p < 0.001


def test_a_task_with_an_undefined_rate_judges_nothing():
    values = normals(0, 5, 3)
    values[2, 1] = np.nan
    assert kendalls_w(values) == kendalls_w(np.delete(values, 2, axis=0))
    assert kendalls_w(values).tasks == 4


@pytest.mark.parametrize("values", [np.ones((1, 3)), np.ones((4, 1)), np.ones((4, 3)), np.full((4, 3), np.nan)])
def test_w_is_undefined_without_two_judges_two_pairs_or_any_order(values):
    assert kendalls_w(values) is None


# Amplification

LAMBDAS = np.array([0.0, 0.5, 1.0, 1.2, 1.4])


def line(values, spread: float = 0.01, bias: float = 0.0, lambdas=LAMBDAS, shared: float = 0.0) -> Line:
    """Draws with independent noise and noise that all lambdas share."""
    values = np.asarray(values, dtype=float)
    noise = spread * normals(0, 1000, len(values)) + shared * normals(1, 1000, 1)
    return Line(np.asarray(lambdas, dtype=float), values, values + bias + noise, 500)


def test_the_slope_by_hand_and_by_scipy():
    assert slope(line([0.0, 1.0, 2.0], lambdas=[0, 1, 2])).value == pytest.approx(1)
    values = normals(5, 5)
    assert slope(line(values)).value == pytest.approx(stats.linregress(LAMBDAS, values).slope)


def test_the_interval_of_the_slope_has_the_spread_of_slopes_and_ignores_bias_and_shared_noise():
    values = 0.1 * LAMBDAS
    found, biased = slope(line(values)), slope(line(values, bias=0.3, shared=0.5))
    expected = 1.96 * 0.01 / math.sqrt(((LAMBDAS - LAMBDAS.mean()) ** 2).sum())
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.1)
    assert (biased.low, biased.high) == pytest.approx((found.low, found.high), abs=1e-9)


def test_tau_equals_scipy_with_and_without_ties():
    for values in (normals(0, 5), np.array([1.0, 1.0, 2.0, 0.0, 2.0]), np.arange(5.0)):
        found = kendalls_tau(line(values, spread=0.0))
        assert found.value == pytest.approx(stats.kendalltau(LAMBDAS, values).statistic)
        assert (found.low, found.high) == pytest.approx((found.value, found.value))


def test_the_interval_of_tau_is_that_of_recentred_draws():
    values = [0.0, 0.1, 0.12, 0.3, 0.29]
    one = line(values, spread=0.02)
    assert kendalls_tau(line(values, spread=0.02, bias=5.0)) == kendalls_tau(one)
    each = [stats.kendalltau(LAMBDAS, row).statistic for row in recentred(one.values, one.draws)]
    low, high = np.quantile(each, [0.025, 0.975])
    found = kendalls_tau(one)
    assert (found.low, found.high) == pytest.approx((min(low, found.value), max(high, found.value)))


def test_a_measure_that_does_not_move_has_no_tau():
    assert kendalls_tau(line(np.ones(5), spread=0.0)) is None
    assert kendalls_tau(line([1.0, 2.0], lambdas=[0, 1])) is None
    assert slope(line([1.0], lambdas=[0])) is None


def test_what_lies_at_or_past_the_aligned_model_is_taken_apart():
    assert line(np.arange(5.0)).amplified.lambdas.tolist() == [1.0, 1.2, 1.4]


def test_collapse_is_the_first_lambda_that_is_worse_beyond_chance():
    found = collapse(line([0.5, 0.6, 0.7, 0.69, 0.5]), higher_is_better=True)
    assert found.first == 1.4  # .01 lower with a spread of .014 is no collapse
    assert [w.lam for w in found.worsenings] == [1.2, 1.4]
    assert found.worsenings[0].p_value == pytest.approx(stats.norm.sf(0.01 / (0.01 * math.sqrt(2))), abs=0.02)
    assert collapse(line([0.5, 0.6, 0.7, 0.6, 0.5]), higher_is_better=True).first == 1.2


def test_noise_that_all_lambdas_share_does_not_hide_a_collapse():
    values = [0.5, 0.6, 0.7, 0.69, 0.65]
    assert collapse(line(values, spread=0.001, shared=0.5), higher_is_better=True).first == 1.2
    assert collapse(line(values, spread=0.5), higher_is_better=True).first is None


def test_an_error_collapses_upward():
    assert collapse(line([0.1, 0.1, 0.1, 0.3, 0.3]), higher_is_better=False).first == 1.2
    assert collapse(line([0.1, 0.1, 0.1, 0.3, 0.3]), higher_is_better=True).first is None


def test_a_collapse_is_named_where_there_is_none_in_at_most_five_of_a_hundred_runs():
    rng, named = np.random.default_rng(0), 0
    lambdas = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    for _ in range(400):
        values = rng.standard_normal(6)
        draws = values + rng.standard_normal((200, 6))
        named += collapse(Line(lambdas, values, draws, 100), higher_is_better=True).first is not None
    assert named / 400 < 0.08


def test_there_is_no_collapse_to_test_without_an_aligned_model_or_a_lambda_above_1():
    assert collapse(line([0.1, 0.2], lambdas=[0, 1]), higher_is_better=True) is None
    assert collapse(line([0.1, 0.2], lambdas=[0, 1.2]), higher_is_better=True) is None


def test_points_without_any_spread_are_not_tested():
    found = collapse(line([0.5, 0.6, 0.7, 0.6, 0.5], spread=0.0), higher_is_better=True)
    assert [w.p_value for w in found.worsenings] == [1.0, 1.0]
    assert found.first is None


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.5, 0.6])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([])).size == 0


@pytest.mark.parametrize(
    ("lambdas", "values", "draws"),
    [
        ([0, 1], [0.1, 0.2], np.zeros((5, 3))),
        ([1, 0], [0.1, 0.2], np.zeros((5, 2))),
        ([0, 0], [0.1, 0.2], np.zeros((5, 2))),
        ([0, 1], [0.1, np.nan], np.zeros((5, 2))),
        ([0, 1], [0.1, 0.2], np.full((5, 2), np.nan)),
    ],
)
def test_a_line_that_is_none_is_our_own_fault(lambdas, values, draws):
    with pytest.raises(AssertionError):
        Line(np.array(lambdas, dtype=float), np.array(values), draws, 5)


# Rounding


@pytest.mark.parametrize(
    ("text", "decimals", "low", "high"),
    [
        ("0.208", None, 0.2075, 0.2085),
        ("-0.046", None, -0.0465, -0.0455),
        ("13.39%", None, 0.13385, 0.13395),
        ("0.000", None, -0.0005, 0.0005),
        ("0.2", 3, 0.1995, 0.2005),
        ("61", None, 60.5, 61.5),
    ],
)
def test_a_printed_number_stands_for_all_that_round_to_it(text, decimals, low, high):
    found = read_printed(text, decimals).interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-15)
    assert found.contains(low)
    assert not found.contains(high + 1e-9)


@pytest.mark.parametrize("text", ["", "x", "1,5", "nan", "inf", "%", "1 %%"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(InputError, match="is no"):
        read_printed(text)
    with pytest.raises(InputError, match="more than the 2 decimals"):
        read_printed("0.123", 2)


def test_absolute_values_by_hand():
    # change .208 and rate 283.77 %: the base is near .208 / 2.8377 = .0733, the aligned value near .2813.
    found = derive(read_printed("0.208").interval, read_printed("283.77%").interval)
    assert (found.base.low, found.base.high) == pytest.approx((0.2075 / 2.83775, 0.2085 / 2.83765))
    assert found.base.contains(0.0733)
    assert found.aligned.contains(0.2813)


@pytest.mark.parametrize("seed", range(5))
def test_the_true_values_lie_in_what_their_printed_change_and_rate_tell(seed):
    rng = np.random.default_rng(seed)
    for base, aligned in rng.uniform(0.001, 1, (200, 2)):
        change = read_printed(f"{aligned - base:.3f}").interval
        ratio = read_printed(f"{(aligned - base) / base * 100:.2f}%").interval
        found = derive(change, ratio)
        if isinstance(found, Absolutes):
            assert found.base.contains(base)
            assert found.aligned.contains(aligned)
            example = Change(*found.example)
            assert change.contains(example.difference)
            assert ratio.contains(example.rate / 100)
            assert all(0 <= value <= 1 for value in found.example)
        else:
            assert isinstance(found, Unbounded)


def test_the_ends_of_a_base_are_reached_and_what_lies_beyond_gives_other_numbers():
    change, ratio = Interval(0.2075, 0.2085), Interval(0.30, 0.31)

    def fits(base: float) -> bool:
        return any(change.contains(base * r) and base * (1 + r) <= 1 for r in np.linspace(0.30, 0.31, 2001))

    base = derive(change, ratio).base
    grid = np.linspace(0.6, 0.8, 2001)
    found = [value for value in grid if fits(value)]
    assert (base.low, base.high) == pytest.approx((found[0], found[-1]), abs=2e-4)


@pytest.mark.parametrize(
    ("change", "ratio", "reason"),
    [
        ("0.200", "-10.00%", "opposite signs"),
        ("-0.900", "-120.00%", "below -100 %"),
        ("0.600", "10.00%", "outside what the measure can be"),  # a base of 6
        ("0.500", "80.00%", "outside what the measure can be"),  # .625 + .5
    ],
)
def test_numbers_that_no_value_gives_are_impossible_and_not_invented(change, ratio, reason):
    found = derive(read_printed(change).interval, read_printed(ratio).interval)
    assert isinstance(found, Impossible)
    assert reason in found.reason


def test_a_measure_without_an_upper_bound_may_be_larger_than_1():
    found = derive(Interval(0.55, 0.65), Interval(0.0995, 0.1005), bounds=Interval(0, math.inf))
    assert found.base.contains(6)


@pytest.mark.parametrize(("change", "ratio"), [("0.000", "0.00%"), ("0.200", "0.00%"), ("0.000", "0.01%")])
def test_numbers_that_tell_no_value_are_said_to_be_unbounded(change, ratio):
    assert isinstance(derive(read_printed(change).interval, read_printed(ratio).interval), Unbounded)


def test_rank_ranges_by_hand():
    rates = [Interval(10, 12), Interval(11, 13), Interval(1, 2), None]
    assert rank_ranges(rates) == [(1, 2), (1, 2), (3, 3), None]


# A CSV of published values

HEADER = "pair,task,confidence,measure,base,aligned,decimals\n"


def csv_of(tmp_path, *lines: str, header: str = HEADER):
    path = tmp_path / "published.csv"
    path.write_text(header + "".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_published_file_is_read_with_what_its_rounding_leaves_open(tmp_path):
    path = csv_of(
        tmp_path, "A,arc,choice,ece,0.07,0.28,3", "A,arc,choice,accuracy,41.6%,55.0%,", "A,arc,choice,nll,,1.2,"
    )
    ece, accuracy, nll = read_published(path)
    assert (ece.base.interval.low, ece.base.interval.high) == pytest.approx((0.0695, 0.0705))
    assert ece.change.rate == pytest.approx(300)
    assert (ece.rate.low, ece.rate.high) == pytest.approx(((0.2795 / 0.0705 - 1) * 100, (0.2805 / 0.0695 - 1) * 100))
    assert (ece.difference.low, ece.difference.high) == pytest.approx((0.209, 0.211))
    assert ece.log_ratio.low < math.log(4) < ece.log_ratio.high
    assert accuracy.change.base == pytest.approx(0.416)
    assert (nll.base, nll.rate, nll.difference, nll.change.rate) == (None, None, None, None)


def test_the_decimals_column_is_not_needed(tmp_path):
    header = "task,pair,measure,confidence,aligned,base\n"
    (row,) = read_published(csv_of(tmp_path, "arc,A,ece,choice,0.28,0.07", header=header))
    assert (row.pair, row.base.value, row.base.interval.high) == ("A", 0.07, pytest.approx(0.075))


def test_the_rounding_does_not_leave_what_the_measure_can_be(tmp_path):
    (row,) = read_published(csv_of(tmp_path, "A,arc,choice,accuracy,0.9,1.0,"))
    assert row.aligned.interval.high == 1
    assert row.change.aligned == 1


def test_a_base_that_may_be_0_has_no_rate_and_no_rank(tmp_path):
    path = csv_of(tmp_path, "A,arc,choice,ece,0.00,0.28,", "B,arc,choice,ece,0.10,0.28,", "C,arc,choice,ece,0.10,0.12,")
    a, b, c = ranked(read_published(path))
    assert (a.published.rate, a.value, a.best, a.worst) == (None, None, None, None)
    assert [(p.value, p.best, p.worst) for p in (b, c)] == [(1, 1, 1), (2, 2, 2)]


def test_ranks_that_the_rounding_leaves_open_have_a_range(tmp_path):
    path = csv_of(tmp_path, "A,arc,choice,ece,0.10,0.20,", "B,arc,choice,ece,0.10,0.21,", "C,arc,choice,ece,0.10,0.90,")
    a, b, c = ranked(read_published(path))
    assert [(p.value, p.best, p.worst) for p in (a, b, c)] == [(3, 2, 3), (2, 2, 3), (1, 1, 1)]


def test_a_table_of_rates_has_nan_where_nothing_was_published(tmp_path):
    rows = read_published(csv_of(tmp_path, "A,arc,choice,ece,0.1,0.2,", "B,piqa,choice,ece,0.1,0.3,"))
    table = rate_table(rows, ["arc", "piqa"], ["A", "B"])
    assert table[0, 0] == pytest.approx(100)
    assert table[1, 1] == pytest.approx(200)
    assert np.isnan(table[[0, 1], [1, 0]]).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A,arc,choice,ece,x,0.2,", "published.csv:2: base: 'x' is no number"),
        ("A,arc,choice,ece,0.1,nan,", "published.csv:2: aligned: 'nan' is no finite number"),
        ("A,arc,choice,accuracy,61.3,70.1,", "accuracy lies between 0 and 1 (61.3% or .613), not 61.3"),
        ("A,,choice,ece,0.1,0.2,", "published.csv:2 has an empty task"),
        ("A,arc,choice,ece,0.1,0.2,1,5", "published.csv:2 has too many fields"),
        ("A,arc,choice,ece,0.1,0.2,two", "published.csv:2: base: decimals is 'two', not a whole number"),
        ("A,arc,choice,ece,0.123,0.2,2", "published.csv:2: base: '0.123' has more than the 2 decimals"),
        (
            "A,arc,choice,ece,0.1,0.2,\nA,arc,choice,ece,0.1,0.2,",
            "published.csv:3 gives A arc choice ece a second time",
        ),
        ("", "published.csv holds no values"),
    ],
)
def test_bad_lines_are_named_by_file_and_line(tmp_path, line, message):
    with pytest.raises(InputError) as error:
        read_published(csv_of(tmp_path, line))
    assert message in str(error.value)


def test_a_file_without_its_columns_or_without_itself_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"published.csv:1 lacks measure, base; the columns are pair, task"):
        read_published(csv_of(tmp_path, "A,arc,choice,1", header="pair,task,confidence,aligned\n"))
    with pytest.raises(InputError, match=r"none.csv does not exist"):
        read_published(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_published(tmp_path)


# The tables of Oh & Hwang 2024


@pytest.fixture(scope="module")
def cells(shared_data) -> list[tool.Cell]:
    path = shared_data / "oh_hwang_2024" / "choice.csv"
    if not path.exists():
        pytest.skip("the published tables are not there")
    return tool.read_cells(path)


def test_every_published_change_rate_and_rank_follows_from_the_derived_values(cells):
    assert len(cells) == 10 * 7 * 3
    for check in tool.checks(cells):
        assert check.wrong == (), check.what
        assert check.right >= 70


def test_no_published_cell_is_impossible_and_one_tells_no_value(cells):
    kinds = [type(cell.derived) for cell in cells]
    assert kinds.count(Impossible) == 0
    assert [tool._name(cell) for cell in cells if isinstance(cell.derived, Unbounded)] == [
        "sciq Llama-3-70B sce_agreement"
    ]


def test_a_changed_cell_is_found_out(cells):
    one = cells[0]
    wrong = [one._replace(rank=5), *cells[1:]]
    assert [check.right for check in tool.checks(wrong)][2:4] == [209, 209]
    flipped = one._replace(change=read_printed("-0.208"))
    assert isinstance(flipped.derived, Impossible)
    other = next(cell for cell in cells if (cell.measure, cell.task) == ("accuracy", "arc_easy"))
    assert tool.fitting_counts(other, 2365) > 0
    assert tool.fitting_counts(other, 2376) == 0


def test_the_derived_values_as_a_file_give_the_published_ranks(cells, tmp_path):
    path = tmp_path / "derived.csv"
    path.write_text(tool.absolute_csv(cells), encoding="utf-8")
    rows = read_published(path)
    assert len(rows) == 209
    groups: dict[tuple[str, str], list[Published]] = {}
    for row in rows:
        groups.setdefault((row.task, row.measure), []).append(row)
    printed = {(cell.task, cell.measure, cell.pair): cell.rank for cell in cells}
    for (task, measure), group in groups.items():
        for found in ranked(group):
            if len(group) == 7:
                assert found.value == printed[task, measure, found.published.pair]


def test_the_kept_page_is_what_the_tool_prints(cells):
    path = tool.Path(tool.__file__).parent / "results" / "degradation_published.md"
    assert path.read_text(encoding="utf-8") == tool.page(cells)
