"""Each rule of selection by hand, against a plain twin, and where it has nothing to choose from."""

import numpy as np
import pytest

from merge_calib.errors import InputError
from merge_calib.frontier import Candidate, hypervolume
from merge_calib.selection import RULES, Rule, select


def candidate(lam, accuracy, error):
    return Candidate(f"{lam:g}", lam, accuracy, error, is_aligned=lam == 1.0)


def chosen(points, **rule) -> str:
    found = {select(order, Rule(**rule)).point for order in (points, points[::-1], points[2:] + points[:2])}
    (name,) = found  # whatever the order
    return name


POINTS = [
    candidate(0.0, 0.70, 0.01),  # the base: better than all, and never selected
    candidate(0.2, 0.58, 0.03),
    candidate(0.4, 0.615, 0.06),
    candidate(0.6, 0.64, 0.12),
    candidate(0.8, 0.65, 0.25),
    candidate(1.0, 0.62, 0.30),
]


@pytest.mark.parametrize(
    ("rule", "point"),
    [
        ({}, "0.4"),  # .615 keeps .62 but for half a point
        ({"margin": 0.0}, "0.6"),
        ({"margin": 0.05}, "0.2"),
        ({"by": "accuracy"}, "0.8"),
        # Scaled to the ends (.58, .03) and (.65, .25): .4 gives .5 - .136, .6 gives .857 - .409.
        ({"by": "knee"}, "0.6"),
        # .5626, .5781, .5632, .4875, .434
        ({"by": "hypervolume"}, "0.4"),
        # half of .55, .555, .52, .40, .32
        ({"by": "weighted"}, "0.4"),
        ({"by": "weighted", "weight": 0.0}, "0.8"),
        ({"by": "weighted", "weight": 1.0}, "0.2"),
        # .7 accuracy - .3 error: .397, .4125, .412
        ({"by": "weighted", "weight": 0.3}, "0.4"),
        ({"by": "weighted", "weight": 0.25}, "0.6"),  # .4275, .44625, .45
    ],
)
def test_each_rule_by_hand(rule, point):
    assert chosen(POINTS, **rule) == point


@pytest.mark.parametrize("by", RULES)
def test_only_points_above_0_are_ever_selected(by):
    points = [candidate(-0.5, 0.9, 0.0), candidate(0.0, 0.9, 0.0), candidate(1.0, 0.5, 0.4)]
    selection = select(points, Rule(by=by))
    assert (selection.point, selection.recovers, selection.eligible) == ("1", False, ("1",))


@pytest.mark.parametrize("by", RULES)
def test_points_that_are_equal_go_to_the_lambda_nearest_to_1_and_are_said_to_tie(by):
    points = [candidate(lam, 0.6, 0.2) for lam in (0.2, 0.5, 0.7)] + [candidate(1.0, 0.5 if by != "knee" else 0.6, 0.2)]
    if by == "calibration":
        points[-1] = candidate(1.0, 0.6, 0.3)
    selection = select(points, Rule(by=by))
    expected = ("1", ("0.2", "0.5", "0.7")) if by == "knee" else ("0.7", ("0.2", "0.5"))
    assert (selection.point, selection.tied) == expected


def far_from_the_line(points) -> str:
    """The twin: distances from the line between the frontier's ends, one by one, both axes scaled to its range."""
    points = [p for p in points if p.lam > 0]
    front = [
        p
        for p in points
        if not any(
            q.accuracy >= p.accuracy and q.error <= p.error and (q.accuracy, q.error) != (p.accuracy, p.error)
            for q in points
        )
    ]
    front.sort(key=lambda p: p.error)
    if len(front) == 1:
        return front[0].name
    height, width = front[-1].accuracy - front[0].accuracy, front[-1].error - front[0].error

    def distance(p):
        x, y = (p.error - front[0].error) / width, (p.accuracy - front[0].accuracy) / height
        return (y - x) / np.sqrt(2)

    return max(front, key=distance).name


def test_the_knee_equals_distances_measured_one_by_one():
    rng = np.random.default_rng(0)
    several = 0
    for _ in range(100):
        points = [candidate(round(0.1 * i + 0.1, 1), *pair) for i, pair in enumerate(rng.random((10, 2)))]
        expected = far_from_the_line(points)
        several += expected not in (max(points, key=lambda p: p.accuracy).name, min(points, key=lambda p: p.error).name)
        assert chosen(points, by="knee") == expected
    assert several > 20  # not always an end


def test_the_knee_does_not_depend_on_the_units_of_either_measure():
    scaled = [Candidate(p.name, p.lam, p.accuracy / 7, 3 * p.error, p.is_aligned) for p in POINTS]
    assert chosen(scaled, by="knee") == chosen(POINTS, by="knee")


def test_a_frontier_of_two_points_has_no_knee_and_gives_the_better_calibrated():
    assert chosen([candidate(0.5, 0.5, 0.1), candidate(0.9, 0.4, 0.3), candidate(1.0, 0.6, 0.2)], by="knee") == "0.5"


def test_a_point_off_the_frontier_is_no_knee():
    points = [candidate(0.5, 0.5, 0.1), candidate(0.7, 0.55, 0.6), candidate(1.0, 0.6, 0.5)]
    assert chosen(points, by="knee") == "0.5"


def test_the_area_of_one_point_is_its_hypervolume():
    areas = {p.name: hypervolume(np.array([[p.accuracy]]), np.array([[p.error]]))[0] for p in POINTS if p.lam > 0}
    assert chosen(POINTS, by="hypervolume") == max(areas, key=areas.__getitem__)


@pytest.mark.parametrize("by", RULES)
def test_the_rule_is_said_in_words(by):
    words = select(POINTS, Rule(by=by)).rule
    assert "among points with lambda > 0" in words
    assert "ties" in words


def test_the_weights_are_said():
    assert "0.3 x accuracy - 0.7 x SCE" in select(POINTS, Rule(by="weighted", weight=0.7)).rule


@pytest.mark.parametrize(
    ("rule", "flag"),
    [
        ({"by": "best"}, "--select-by 'best' is unknown; allowed: calibration, accuracy, knee, hypervolume, weighted"),
        ({"weight": 1.2}, "--select-weight must lie between 0 and 1, not 1.2"),
        ({"weight": float("nan")}, "--select-weight must lie between 0 and 1, not nan"),
        ({"margin": -0.01}, "--accuracy-margin must lie between 0 and 1, not -0.01"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(rule, flag):
    with pytest.raises(InputError, match=flag):
        Rule(**rule)
