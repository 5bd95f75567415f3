"""The non-dominated set and the selection rule."""

import numpy as np
import pytest

from merge_calib.degradation.change import Change
from merge_calib.errors import InputError
from merge_calib.frontier import (
    Candidate,
    attainment,
    dominating_share,
    hypervolume,
    non_dominated,
    non_dominated_share,
)
from merge_calib.selection import Rule, select

RULE = (
    "lowest mean SCE over tasks among points with lambda > 0 whose mean accuracy is at least the aligned model's minus "
    "0.005; ties: higher accuracy, then lambda nearest to 1, then smaller lambda"
)


def candidate(lam, accuracy, error):
    return Candidate(f"lambda {lam}", lam, accuracy, error, is_aligned=lam == 1.0)


def other(name, lam, accuracy, error):
    return Candidate(name, lam, accuracy, error, is_aligned=False)


def test_the_frontier_by_hand():
    points = [candidate(0, 0.5, 0.1), candidate(0.5, 0.6, 0.1), candidate(1, 0.6, 0.3), candidate(2, 0.7, 0.4)]
    assert non_dominated(points).tolist() == [False, True, False, True]


def test_equal_points_are_all_on_the_frontier():
    assert non_dominated([candidate(0, 0.5, 0.1)] * 3).all()


def test_the_frontier_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    points = [candidate(i, rng.integers(10) / 10, rng.integers(10) / 10) for i in range(60)]

    def beats(a, b):
        return a.accuracy >= b.accuracy and a.error <= b.error and (a.accuracy, a.error) != (b.accuracy, b.error)

    assert non_dominated(points).tolist() == [not any(beats(a, b) for a in points) for b in points]


def test_selection_is_the_lowest_error_that_keeps_the_accuracy():
    points = [
        candidate(0.0, 0.60, 0.01),  # the base is never selected
        candidate(0.2, 0.58, 0.02),  # loses more than half a point
        candidate(0.4, 0.595, 0.05),  # loses exactly half a point
        candidate(1.0, 0.60, 0.20),
    ]
    assert select(points).point == "lambda 0.4"
    assert select(points, Rule(margin=0.0)).point == "lambda 1.0"
    assert select(points, Rule(margin=0.02)).point == "lambda 0.2"


def test_nothing_is_recovered_where_the_aligned_model_is_selected():
    selection = select([candidate(0, 0.5, 0.01), candidate(0.5, 0.5, 0.02), candidate(1.0, 0.6, 0.2)])
    assert (selection.point, selection.recovers) == ("lambda 1.0", False)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([candidate(0.3, 0.6, 0.1), candidate(0.5, 0.61, 0.1)], "lambda 0.5"),  # higher accuracy
        ([candidate(0.3, 0.6, 0.1), candidate(0.5, 0.6, 0.1)], "lambda 0.5"),  # nearer to 1
        ([candidate(0.5, 0.6, 0.1), candidate(1.5, 0.6, 0.1)], "lambda 0.5"),  # smaller
    ],
)
def test_ties_are_broken_as_the_rule_says(others, chosen):
    selection = select([*others, candidate(1, 0.6, 0.2)])
    assert selection.point == chosen
    assert len(selection.tied) == 1


def test_the_rule_of_a_linear_run_is_said_as_ever():
    assert select([candidate(0, 0.5, 0.1), candidate(0.5, 0.6, 0.1), candidate(1, 0.6, 0.2)]).rule == RULE


def test_the_aligned_model_is_not_any_point_at_lambda_1():
    points = [other("ties 1", 1.0, 0.9, 0.3), candidate(1.0, 0.6, 0.2), candidate(0, 0.5, 0.1)]
    assert select(points).point == "lambda 1.0"
    assert not select(points).recovers
    chosen = select([other("ties 1", 1.0, 0.6, 0.1), candidate(1.0, 0.6, 0.2)])
    assert (chosen.point, chosen.recovers) == ("ties 1", True)
    assert chosen.rule == f"{RULE}, then the aligned model, then name"


def test_points_of_several_lambdas_are_eligible_and_those_below_0_are_not():
    points = [other("b", None, 0.6, 0.1), candidate(-0.5, 0.7, 0.0), candidate(1.0, 0.6, 0.2)]
    selection = select(points)
    assert (selection.point, selection.eligible, selection.recovers) == ("b", ("b", "lambda 1.0"), True)
    assert "among points with lambda > 0 or by groups whose" in selection.rule
    assert "higher accuracy, then one lambda before lambda by groups, then lambda nearest to 1" in selection.rule


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([other("a", None, 0.6, 0.1), candidate(0.1, 0.6, 0.1)], "lambda 0.1"),  # one lambda before several
        ([other("a", None, 0.61, 0.1), candidate(0.9, 0.6, 0.1)], "a"),  # accuracy before that
        ([other("b", None, 0.6, 0.1), other("a", None, 0.6, 0.1)], "a"),  # name
        ([other("ties", 0.5, 0.6, 0.1), other("dare", 0.5, 0.6, 0.1)], "dare"),
        ([other("dare", 1.0, 0.6, 0.2), other("zero", 0.5, 0.6, 0.2)], "lambda 1"),  # the aligned model before names
    ],
)
def test_ties_between_methods_and_groups_are_broken_too(others, chosen):
    points = [*others, candidate(1, 0.6, 0.2)]
    assert select(points).point == select(points[::-1]).point == chosen


@pytest.mark.parametrize("margin", [-0.1, 1.5, float("nan")])
def test_a_margin_that_is_no_share_is_refused(margin):
    with pytest.raises(InputError, match="--accuracy-margin"):
        Rule(margin=margin)


def test_change_rate_is_in_percent_of_the_base():
    assert Change(0.04, 0.05).rate == pytest.approx(25.0)
    assert Change(0.04, 0.05).difference == pytest.approx(0.01)
    assert Change(0.0, 0.05).rate is None
    assert Change(None, 0.05).difference is None


# Two draws of three points. In the first all are on the frontier; in the second the first beats the other two.
ACCURACY = np.array([[0.5, 0.6, 0.7], [0.7, 0.6, 0.7]])
ERROR = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])


def drawn(seed: int, steps: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """40 draws of 7 points, on a grid of so many steps, for ties."""
    rng = np.random.default_rng(seed)
    shape = 40, 7
    if steps:
        return rng.integers(0, steps, shape) / steps, rng.integers(0, steps, shape) / steps
    return rng.random(shape), rng.random(shape)


def fronts(accuracy: np.ndarray, error: np.ndarray) -> list[np.ndarray]:
    """The frontier of each draw, one after the other."""
    pairs = np.stack([accuracy, error], axis=2)
    return [non_dominated([candidate(i, *pair) for i, pair in enumerate(draw)]) for draw in pairs]


def test_shares_of_draws_by_hand():
    assert non_dominated_share(ACCURACY, ERROR).tolist() == [1.0, 0.5, 0.5]
    assert dominating_share(ACCURACY, ERROR, 1).tolist() == [0.5, 0.0, 0.0]
    assert dominating_share(ACCURACY, ERROR, 2).tolist() == [0.0, 0.0, 0.0]  # .7 is not above .7


@pytest.mark.parametrize("steps", [0, 4])
def test_shares_equal_the_frontier_of_each_draw_counted(steps):
    accuracy, error = drawn(1, steps)
    assert non_dominated_share(accuracy, error) == pytest.approx(np.mean(fronts(accuracy, error), axis=0))
    wins = [[a[i] > a[3] and e[i] < e[3] for i in range(7)] for a, e in zip(accuracy, error, strict=True)]
    assert dominating_share(accuracy, error, 3) == pytest.approx(np.mean(wins, axis=0))


def test_points_that_are_drawn_alike_are_all_on_the_frontier_and_none_dominates():
    same = np.full((5, 3), 0.5)
    assert non_dominated_share(same, same).tolist() == [1, 1, 1]
    assert dominating_share(same, same, 0).tolist() == [0, 0, 0]


def test_hypervolume_by_hand():
    # Errors .1 to .2 are covered to .5, .2 to .3 to .6, .3 to 1 to .7; in the second draw all to .7 from .1 on.
    assert hypervolume(ACCURACY, ERROR) == pytest.approx([0.05 + 0.06 + 0.49, 0.9 * 0.7])
    assert hypervolume(ACCURACY, ERROR, (0.55, 0.25)) == pytest.approx([0.05 * 0.05, 0.15 * 0.15])


def test_points_beyond_the_reference_add_nothing():
    assert hypervolume(np.array([[0.4]]), np.array([[0.2]]), (0.5, 1.0)) == 0
    assert hypervolume(np.array([[0.9]]), np.array([[0.7]]), (0.0, 0.5)) == 0
    within = hypervolume(np.array([[0.5]]), np.array([[0.3]]), (0.0, 0.5))
    assert hypervolume(np.array([[0.5, 0.9]]), np.array([[0.3, 0.7]]), (0.0, 0.5)) == within


def test_a_negative_error_is_worth_more_than_none():
    assert hypervolume(np.array([[0.5]]), np.array([[-0.1]])) == pytest.approx([0.55])


@pytest.mark.parametrize("steps", [0, 4])
def test_hypervolume_equals_the_share_of_a_fine_grid_that_is_dominated(steps):
    accuracy, error = drawn(2, steps)
    cells = (np.arange(200) + 0.5) / 200
    for a, e, area in zip(accuracy[:8], error[:8], hypervolume(accuracy, error), strict=False):
        under = (a[:, None, None] >= cells[:, None]) & (e[:, None, None] <= cells)
        assert area == pytest.approx(under.any(0).mean(), abs=0.01)  # two cells' width


def test_hypervolume_depends_neither_on_order_nor_on_points_that_are_beaten_and_grows_with_others():
    accuracy, error = drawn(3)
    order = np.random.default_rng(0).permutation(7)
    whole = hypervolume(accuracy, error)
    assert hypervolume(accuracy[:, order], error[:, order]) == pytest.approx(whole)
    each = zip(accuracy, error, fronts(accuracy, error), strict=True)
    alone = [hypervolume(a[None, kept], e[None, kept])[0] for a, e, kept in each]
    assert alone == pytest.approx(whole)
    assert (hypervolume(accuracy[:, :4], error[:, :4]) <= whole + 1e-12).all()


def test_attainment_by_hand():
    levels = np.array([0.05, 0.1, 0.25, 0.3])
    attained = attainment(ACCURACY, ERROR, levels, (0.0, 1.0))
    assert attained.tolist() == [[-np.inf, 0.5, 0.6, 0.7], [-np.inf, 0.7, 0.7, 0.7]]


@pytest.mark.parametrize("steps", [0, 4])
def test_attainment_equals_a_plain_loop_over_draws(steps):
    accuracy, error = drawn(4, steps)
    levels, quantiles = np.linspace(0, 1, 9), (0.05, 0.5, 0.95)
    found = attainment(accuracy, error, levels, quantiles)
    for i, level in enumerate(levels):
        best = sorted(
            max((x for x, y in zip(a, e, strict=True) if y <= level), default=-np.inf)
            for a, e in zip(accuracy, error, strict=True)
        )
        assert found[:, i].tolist() == [best[int(q * 39)] for q in quantiles]
    assert (found[:, 1:] >= found[:, :-1]).all()  # more error allowed, no less attained
    assert (found[0] <= found[1]).all()
