"""The non-dominated set and the selection rule."""

import numpy as np
import pytest

from merge_calib.degradation.change import Change
from merge_calib.errors import InputError
from merge_calib.frontier import Candidate, non_dominated
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
