"""What a study searches, as parameters and back."""

import itertools

import numpy as np
import pytest

from merge_calib.errors import InputError
from merge_calib.merging.point import MergePoint
from merge_calib.search.grid import PARENTS
from merge_calib.search.space import Space

BASE, ALIGNED = PARENTS
LINE = Space(("linear",), low=0.0, high=1.5)
MIXED = Space(("linear", "ties", "dare_linear"), {"drop_seed": 3}, {"density": (0.2, 0.8)}, 0.0, 1.5)
GROUPS = Space(("linear",), low=0.0, high=1.2, groups=("attention", "mlp", "rest"))
SPACES = {"line": LINE, "mixed": MIXED, "groups": GROUPS}


def drawn(space, seed):
    """Parameters drawn evenly, without Optuna."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, d in space.distributions.items():
        if hasattr(d, "choices"):
            params[name] = d.choices[rng.integers(len(d.choices))]
        elif isinstance(d.low, int):
            params[name] = int(rng.integers(d.low, d.high + 1))
        else:
            params[name] = float(rng.uniform(d.low, d.high))
    return params


def test_one_method_over_one_lambda_has_one_parameter():
    assert list(LINE.distributions) == ["lambda"]
    assert (LINE.distributions["lambda"].low, LINE.distributions["lambda"].high) == (0.0, 1.5)


def test_each_group_has_its_lambda_and_several_methods_are_a_choice():
    assert list(GROUPS.distributions) == ["lambda attention", "lambda mlp", "lambda rest"]
    assert MIXED.distributions["method"].choices == ("linear", "ties", "dare_linear")


def test_an_option_of_whole_numbers_is_searched_in_whole_numbers():
    space = Space(("dare_linear",), {}, {"drop_seed": (0, 9)}, 0.0, 1.0)
    assert type(space.distributions["drop_seed"]).__name__ == "IntDistribution"
    assert dict(space.point({"lambda": 0.5, "drop_seed": 4}).options)["drop_seed"] == 4


@pytest.mark.parametrize("name", SPACES)
def test_a_point_gives_back_the_parameters_that_make_it(name):
    space = SPACES[name]
    for seed in range(50):
        point = space.point(drawn(space, seed))
        params = space.params(point)
        assert params is not None
        assert space.point(params) == point
        assert params.keys() == space.distributions.keys()


@pytest.mark.parametrize("name", SPACES)
def test_everything_searched_has_four_decimals(name):
    space = SPACES[name]
    for seed in range(20):
        point = space.point(drawn(space, seed))
        numbers = [point.lam or 0.0, *(v for _, v in point.groups), *(v for _, v in point.options)]
        assert all(round(v, 4) == v for v in numbers)


def test_what_a_trial_keeps_names_the_point_that_was_asked():
    for space, seed in itertools.product(SPACES.values(), range(20)):
        params = drawn(space, seed)
        assert space.point(space.rounded(params)) == space.point(params)


def test_an_option_that_the_method_does_not_have_is_ignored():
    point = MIXED.point({"lambda": 0.5, "method": "linear", "density": 0.7})
    assert point == MergePoint("linear", 0.5)
    assert MIXED.point({"lambda": 0.5, "method": "linear", "density": 0.3}) == point


def test_fixed_options_go_to_the_methods_that_have_them():
    dare = MIXED.point({"lambda": 0.5, "method": "dare_linear", "density": 0.7})
    assert dict(dare.options) == {"density": 0.7, "drop_seed": 3}
    assert dict(MIXED.point({"lambda": 0.5, "method": "ties", "density": 0.7}).options) == {"density": 0.7}


def test_one_lambda_is_on_the_diagonal_of_the_groups():
    params = GROUPS.params(MergePoint("linear", 0.4))
    assert params == {"lambda attention": 0.4, "lambda mlp": 0.4, "lambda rest": 0.4}
    assert GROUPS.point(params) == MergePoint("linear", 0.4)


@pytest.mark.parametrize(
    "point",
    [
        MergePoint("linear", 1.6),
        MergePoint("linear", -0.1),
        MergePoint("linear", 0.12345),
        MergePoint("slerp", 0.5),
        MergePoint("linear", None, (), (("attention", 0.1), ("mlp", 0.2))),
        MergePoint("ties", 0.5, (("density", 0.9),)),
        MergePoint("dare_linear", 0.5, (("density", 0.5), ("drop_seed", 4))),
    ],
)
def test_a_point_beyond_the_space_has_no_parameters(point):
    assert MIXED.params(point) is None


def test_groups_of_another_kind_are_beyond_the_space():
    assert GROUPS.params(MergePoint("linear", None, (), (("attention", 0.1), ("mlp", 0.2)))) is None
    assert GROUPS.params(MergePoint("linear", None, (), (("attention", 0.1), ("mlp", 0.2), ("head", 0.2)))) is None


def test_parents_are_in_the_space_where_a_method_gives_them():
    assert LINE.point(LINE.params(BASE)) == BASE
    assert MIXED.params(ALIGNED)["method"] == "linear"
    ties = Space(("ties",), low=0.0, high=1.5)
    assert ties.params(BASE) is not None
    assert ties.params(ALIGNED) is None  # ties at 1 is not the aligned model
    assert Space(("linear",), low=0.2, high=0.8).params(BASE) is None


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 1.5), (-0.5, 2.0), (0.3, 0.6)])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_the_diagonal_lies_evenly_inside_the_range_without_parents(low, high, count):
    points = Space(("linear",), low=low, high=high).diagonal(count)
    every = [low + (high - low) * i / (count + 1) for i in range(1, count + 1)]
    expected = [lam for lam in every if abs(lam) > 1e-4 and abs(lam - 1) > 1e-4]
    assert [p.lam for p in points] == pytest.approx(expected, abs=1e-4)
    assert not any(p.is_base or p.is_aligned for p in points)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_the_diagonal_is_shared_out_among_the_methods(count):
    points = MIXED.diagonal(count)
    shares = [sum(p.method == m for p in points) for m in MIXED.methods]
    assert sum(shares) <= count
    assert max(shares) - min(shares) <= 1
    assert all(MIXED.params(p) is not None for p in points)


def test_the_diagonal_of_groups_has_one_lambda_each():
    assert [p.lam for p in GROUPS.diagonal(3)] == [0.3, 0.6, 0.9]


def test_options_on_the_diagonal_are_at_their_defaults_or_at_the_nearest_end():
    assert [dict(p.options)["density"] for p in Space(("ties",), {}, {"density": (0.1, 0.9)}).diagonal(2)] == [0.2, 0.2]
    assert [dict(p.options)["density"] for p in Space(("ties",), {}, {"density": (0.4, 0.9)}).diagonal(2)] == [0.4, 0.4]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ("linear",), "options": {"density": 0.5}}, "--density is no option of --method linear; ties"),
        ({"methods": ("linear", "slerp"), "ranges": {"drop_seed": (0, 4)}}, "--drop-seed is no option of --method lin"),
        ({"methods": ("ties",), "options": {"nonsense": 1}}, "--nonsense is no option of --method ties; no method has"),
        ({"methods": ("ties",), "ranges": {"density": (0.5, 0.5)}}, "--density 0.5:0.5 is empty"),
        ({"methods": ("ties",), "ranges": {"density": (0.8, 0.2)}}, "--density 0.8:0.2 is empty"),
        ({"methods": ("ties",), "ranges": {"density": (0.5, 0.50001)}}, "--density 0.5:0.50001 is empty"),
        ({"methods": ("ties",), "ranges": {"density": (0.0, 0.5)}}, "--density must lie in (0, 1], not 0"),
        ({"methods": ("ties",), "ranges": {"density": (0.5, 1.2)}}, "--density 0.5:1.2: ties does not allow all of it"),
        ({"methods": ("ties",), "ranges": {"density": (float("nan"), 1)}}, "--density nan:1: both ends must be finite"),
        ({"methods": ("lines",), "ranges": {"alpha": (0, float("inf"))}}, "--alpha 0:inf: both ends must be finite"),
        ({"methods": ("dare_linear",), "ranges": {"drop_seed": (0.5, 3)}}, "--drop-seed 0.5:3: the ends must be whole"),
        (
            {"methods": ("della_linear",), "options": {"epsilon": 0.3}, "ranges": {"density": (0.2, 0.6)}},
            "--epsilon 0.3 around --density 0.2",
        ),
        ({"methods": ("ties",), "options": {"density": 2.0}}, "--density must lie in (0, 1], not 2"),
        (
            {"methods": ("ties",), "options": {"density": 0.5}, "ranges": {"density": (0.2, 0.6)}},
            "--density is given both one value and a range",
        ),
        ({"methods": ("linear", "linear")}, "--method names one method twice"),
        ({"methods": ("cubic",)}, "--method cubic is unknown"),
        ({"methods": ("ties", "cubic"), "ranges": {"density": (0.2, 0.6)}}, "--method cubic is unknown"),
        ({"methods": ("linear",), "low": 1.0, "high": 1.0}, "--lambdas 1:1 is empty"),
        ({"methods": ("linear",), "low": 0.0, "high": float("inf")}, "--lambdas 0:inf: both ends must be finite"),
    ],
)
def test_a_space_that_cannot_be_searched_names_its_flag(given, message):
    with pytest.raises(InputError) as caught:
        Space(**given)
    assert message in str(caught.value)


def test_a_range_that_only_one_of_the_methods_allows_is_refused():
    Space(("ties",), {}, {"density": (0.05, 0.9)})
    with pytest.raises(InputError, match="della_linear does not allow all of it"):
        Space(("ties", "della_linear"), {}, {"density": (0.05, 0.9)})
