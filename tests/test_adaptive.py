"""The adaptive search on invented models whose answers are known at every lambda."""

import json
from functools import cache

import numpy as np
import pytest

from merge_calib.calibration import metrics
from merge_calib.errors import InputError
from merge_calib.interpolation import interpolate
from merge_calib.merging.point import MergePoint
from merge_calib.scores import ChoiceScores
from merge_calib.search.adaptive import FIRST_NODES, MOST_OTHERS, MOST_SELECTED, Adaptive, grid_of, places
from merge_calib.search.forecast import farthest
from merge_calib.search.grid import PARENTS
from merge_calib.search.strategy import Outcome
from merge_calib.selection import Rule

N, POINTS = 600, 41
FALLBACK = tuple(round(0.1 * i, 10) for i in range(16))
RNG = np.random.default_rng(0)
ANSWERS = RNG.integers(0, 4, N)
BASE = RNG.normal(0, 0.7, (N, 4)) + 0.9 * (np.arange(4) == ANSWERS[:, None])
DELTA, BEND, NOISE, PHASE = (RNG.normal(0, 1, (N, 4)) for _ in range(4))
IDS = tuple(map(str, range(N)))


def linear(lam):
    return BASE * (1 + 1.2 * lam) + 0.4 * lam * DELTA


def quadratic(lam):
    return linear(lam) + 0.3 * lam**2 * BEND


def wavy(lam):
    """Too much for the first nodes, not for nine."""
    return linear(lam) + 0.3 * NOISE * np.sin(5 * lam + 3 * PHASE)


def oscillating(lam):
    return linear(lam) + 2 * NOISE * np.sin(60 * lam + 3 * PHASE)


def jumping(lam):
    return linear(lam) + 2 * NOISE * (lam > 0.63)


def narrow(lam):
    """Waves that 16 more points resolve and nine nodes do not."""
    return linear(lam) + 0.5 * NOISE * np.sin(9 * lam + 3 * PHASE)


def scores_of(logits):
    return ChoiceScores(IDS, ANSWERS, logits, np.ones((N, 4), dtype=bool))


def measures_of(answered):
    found = [each.predictions for each in answered.values()]
    return {name: float(np.mean([f(p) for p in found])) for name, f in MEASURES.items()}


MEASURES = {"accuracy": metrics.accuracy, "sce": metrics.sce}


@cache
def outcome_of(model, point):
    answered = {"quiz": scores_of(model(point.lam))}
    return Outcome(measures_of(answered), answered)


def search_of(low=0.0, high=1.5, method="linear", options=None, **settings):
    settings = {"fallback": FALLBACK, "points": POINTS, **settings}
    return Adaptive(method, options or {}, low, high, **settings)


def drive(search, model, most=200, lost=()):
    """Measure what is proposed, at most `most` points; those of `lost` lambdas cannot be."""
    proposed = []
    while len(proposed) < most and (point := search.propose()) is not None:
        proposed.append(point)
        search.hear(point, None if point.lam in lost else outcome_of(model, point))
    return proposed


def worst_error(record, model):
    """How far the predictions lie from the truth at all lambdas that were not measured, for accuracy and SCE."""
    nodes, wanted = record["nodes"], places(record)
    errors = []
    for lam, found in zip(wanted, interpolate(nodes, [scores_of(model(x)) for x in nodes], wanted), strict=True):
        truth, said = measures_of({"quiz": scores_of(model(lam))}), measures_of({"quiz": found})
        errors.append([abs(truth[name] - said[name]) for name in MEASURES])
    return np.max(errors, axis=0)


class TestSearch:
    @pytest.mark.parametrize("model", [linear, quadratic])
    def test_smooth_logits_settle_within_ten_points(self, model):
        search = search_of()
        proposed = drive(search, model)
        record = search.record()
        assert record["settled"]
        assert not record["fell_back"]
        assert len(record["nodes"]) == FIRST_NODES
        assert len(proposed) <= FIRST_NODES + 1 + MOST_OTHERS
        assert worst_error(record, model).max() < 1e-6
        assert max(record["estimate"].values()) < 1e-6

    def test_nodes_are_added_until_it_settles(self):
        search = search_of(budget=12)
        drive(search, wavy)
        record = search.record()
        assert record["settled"]
        assert not record["fell_back"]
        assert FIRST_NODES < len(record["nodes"]) <= 12
        assert worst_error(record, wavy).max() < 2 * 0.005
        assert [held["nodes"] for held in record["rounds"]] == list(range(FIRST_NODES, len(record["nodes"]) + 1))
        assert record["rounds"][0]["accuracy"] > 0.005

    @pytest.mark.parametrize("model", [oscillating, jumping])
    def test_what_no_interpolation_meets_falls_back_and_predicts_nothing(self, model):
        search = search_of()
        proposed = drive(search, model)
        record = search.record()
        assert record["fell_back"]
        assert not record["settled"]
        assert {MergePoint("linear", lam) for lam in FALLBACK} <= set(proposed)
        assert worst_error(record, model).max() > 2 * 0.005  # so it was right not to

    def test_the_fallback_may_settle_it_after_all(self):
        search = search_of(tolerance=0.01)
        drive(search, narrow)
        record = search.record()
        assert (record["fell_back"], record["settled"]) == (True, True)
        assert set(FALLBACK) <= set(record["nodes"])
        assert worst_error(record, narrow).max() < 2 * 0.01

    def test_the_estimate_follows_the_truth(self):
        estimates, truths = [], []
        for size in (0.05, 0.2, 0.8):
            for speed in (3, 6, 12):

                def model(lam, size=size, speed=speed):
                    return linear(lam) + size * NOISE * np.sin(speed * lam + 3 * PHASE)

                search = search_of(fallback=(), points=26)
                drive(search, model)
                record = search.record()
                estimates.append(max(record["estimate"].values()))
                truths.append(worst_error(record, model).max())
        ratios = (np.array(estimates) + 0.001) / (np.array(truths) + 0.001)
        assert np.corrcoef(np.log(np.add(estimates, 0.001)), np.log(np.add(truths, 0.001)))[0, 1] > 0.8
        assert 0.7 < np.median(ratios) < 2
        assert ratios.min() > 0.3

    def test_the_selected_point_is_measured(self):
        for by in ("calibration", "accuracy", "knee"):
            search = search_of(rule=Rule(by))
            drive(search, quadratic)
            record = search.record()
            known = {*record["nodes"], *record["confirmed"]}
            lambdas = (*grid_of(0, 1.5, POINTS), 1.0)
            truth = {lam: outcome_of(quadratic, MergePoint("linear", lam)).measures for lam in lambdas}
            floor = truth[1]["accuracy"] - 0.005 - 1e-12
            best = {
                "calibration": min((m["sce"], lam) for lam, m in truth.items() if lam and m["accuracy"] >= floor)[1],
                "accuracy": max((m["accuracy"], -m["sce"], lam) for lam, m in truth.items() if lam)[2],
            }
            assert best.get(by, next(iter(known))) in known

    def test_several_tasks_count_alike(self):
        def answer(point):
            whole = scores_of(quadratic(point.lam))
            answered = {"quiz": whole, "few": whole.take(np.arange(N) < 50)}
            return Outcome(measures_of(answered), answered)

        search = search_of(tolerance=0.05)
        while (point := search.propose()) is not None:
            search.hear(point, answer(point))
        lam = places(search.record())[3]
        forecast = search._forecast()
        truth = answer(MergePoint("linear", lam)).measures
        assert forecast.values[:, forecast.places.index(lam)] == pytest.approx([truth["accuracy"], truth["sce"]])


class TestConfirmation:
    def test_a_point_predicted_wrongly_becomes_a_node(self):
        found = search_of()
        drive(found, quadratic)
        (strange, *_) = found.record()["confirmed"]

        def spiked(lam):
            return quadratic(lam) if lam != strange else 4 * NOISE

        search = search_of()
        drive(search, spiked)
        record = search.record()
        assert strange in record["confirmed"]
        assert strange in record["nodes"]
        assert record["rounds"][1]["newest"] == strange
        assert max(record["rounds"][1][name] for name in MEASURES) > 0.05

    def test_those_of_one_batch_may_be_measured_together(self):
        search = search_of()
        drive(search, quadratic, FIRST_NODES)
        together = []
        while (point := search.propose(together)) is not None:
            together.append(point)
        assert 1 <= len(together) <= 1 + MOST_OTHERS
        assert not search.done


class TestContract:
    def test_both_parents_come_first(self):
        for search in (search_of(), search_of(0.3, 0.7), search_of(method="lines")):
            assert tuple(drive(search, linear, 2)) == PARENTS

    @pytest.mark.parametrize("model", [quadratic, wavy, jumping])
    def test_it_proposes_at_most_as_many_points_as_it_says(self, model):
        search = search_of()
        total = search.total
        proposed = drive(search, model)
        assert len(proposed) == len(set(proposed)) <= total == search.total
        assert search.done
        assert search.propose() is None
        assert set(search.known) == set(proposed)

    def test_it_proposes_the_same_until_it_hears(self):
        search = search_of()
        drive(search, quadratic, 3)
        assert search.propose() == search.propose()

    @pytest.mark.parametrize("model", [wavy, jumping])
    def test_it_goes_on_after_any_number_of_points(self, model):
        settings = {"points": 26, "budget": 8, "fallback": (0.3, 0.8, 1.25)}
        whole = search_of(**settings)
        proposed = drive(whole, model)
        for cut in range(len(proposed) + 1):
            resumed = search_of(**settings)
            for point in proposed[:cut]:
                resumed.hear(point, outcome_of(model, point))
            assert proposed[:cut] + drive(resumed, model) == proposed
            assert resumed.record() == whole.record()

    def test_the_order_in_which_it_hears_does_not_matter(self):
        whole = search_of()
        proposed = drive(whole, wavy)
        for order in (proposed[::-1], sorted(proposed)):
            other = search_of()
            for point in order:
                other.hear(point, outcome_of(wavy, point))
            assert other.done
            assert other.record() == whole.record()

    def test_points_that_it_never_asks_for_change_nothing(self):
        whole = search_of()
        proposed = drive(whole, wavy)
        other = search_of()
        other.hear(MergePoint("linear", 0.123), outcome_of(jumping, MergePoint("linear", 0.123)))
        other.hear(MergePoint("linear", 0.2), None)
        assert drive(other, wavy) == proposed
        assert other.record() == whole.record()

    @pytest.mark.parametrize("model", [quadratic, wavy, jumping])
    def test_several_workers_measure_what_one_would(self, model):
        settings = {"points": 26, "fallback": (0.3, 0.8, 1.25)}
        alone, search, busy, proposed = search_of(**settings), search_of(**settings), [], []
        rng = np.random.default_rng(3)
        while not search.done:
            while len(busy) < 3 and (point := search.propose(busy)) is not None:
                busy.append(point)
                proposed.append(point)
            point = busy.pop(int(rng.integers(len(busy))))
            search.hear(point, outcome_of(model, point))
        assert not busy
        assert set(proposed) == set(drive(alone, model))
        assert search.record() == alone.record()

    def test_a_later_node_waits_for_all_before_it(self):
        search = search_of()
        proposed = drive(search, wavy, FIRST_NODES)
        node = search.propose()
        assert node not in proposed
        assert search.propose([node]) is None
        assert not search.done

    def test_its_record_is_json_and_says_how_it_stands(self):
        search = search_of(tolerance=0.004, budget=7)
        assert json.loads(json.dumps(search.record()))["estimate"] == {"accuracy": None, "sce": None}
        drive(search, quadratic)
        record = json.loads(json.dumps(search.record()))
        assert record == search.record()
        assert record["strategy"] == "adaptive"
        assert record["grid"] == {"low": 0.0, "high": 1.5, "points": POINTS}
        assert (record["tolerance"], record["budget"], record["settled"]) == (0.004, 7, True)
        assert set(record["confirmed"]).isdisjoint(record["nodes"])


class TestTrouble:
    @pytest.mark.parametrize("lost", [(0.15,), (1.5,), (0.375, 1.3125), (0.15, 0.4875)])
    def test_it_works_with_what_can_be_measured(self, lost):
        search = search_of()
        proposed = drive(search, quadratic, lost=lost)
        record = search.record()
        assert len(proposed) == len(set(proposed)) <= search.total
        failed = {point.lam for point in proposed} & set(lost)
        assert set(record["failed"]) == failed
        assert failed
        assert failed.isdisjoint({*record["nodes"], *record["confirmed"], *places(record)})
        assert record["settled"]
        assert worst_error(record, quadratic).max() < 0.005

    def test_beyond_what_was_measured_nothing_is_predicted(self):
        search = search_of()
        drive(search, quadratic, lost=(1.5,))
        record = search.record()
        assert max(places(record)) < max(record["nodes"]) < 1.5

    def test_it_ends_where_nothing_but_the_parents_can_be_measured(self):
        search = search_of()
        proposed = drive(search, quadratic, lost={*grid_of(0, 1.5, POINTS), *FALLBACK} - {0.0, 1.0})
        assert search.done
        assert not search.record()["settled"]
        assert len(proposed) <= search.total
        assert search.record()["estimate"] == {"accuracy": None, "sce": None}

    def test_without_a_parent_it_ends(self):
        search = search_of()
        drive(search, quadratic, lost=(1.0,))
        assert search.done
        assert not search.record()["settled"]

    def test_no_fallback_ends_unsettled(self):
        search = search_of(fallback=())
        proposed = drive(search, jumping)
        assert not search.record()["settled"]
        assert len(proposed) <= 9 + MOST_SELECTED + MOST_OTHERS

    @pytest.mark.parametrize("budget", [6, 7, 10])
    def test_the_budget_holds(self, budget):
        search = search_of(budget=budget, fallback=())
        drive(search, jumping)
        record = search.record()
        assert len(record["nodes"]) == budget
        assert not record["confirmed"]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"low": 1.0, "high": 1.0}, "span at least 0.02, not 1 to 1"),
            ({"budget": 5}, "--budget must be at least 6"),
            ({"tolerance": 0.0}, "--tolerance must lie between 0 and 1, not 0"),
            ({"tolerance": 1.0}, "--tolerance must lie between 0 and 1, not 1"),
        ],
    )
    def test_what_leaves_nothing_to_search_is_refused(self, settings, message):
        with pytest.raises(InputError, match=message):
            search_of(**settings)

    def test_means_alone_are_not_enough(self):
        with pytest.raises(AssertionError, match="predicts from answers"):
            search_of().hear(PARENTS[0], Outcome({"accuracy": 0.5, "sce": 0.1}))


class TestPlaces:
    def test_the_first_nodes_hold_the_parents_and_both_ends(self):
        search = search_of(0.2, 0.8)
        lambdas = {point.lam for point in drive(search, linear, FIRST_NODES)}
        assert {0.0, 1.0, 0.2, 0.8} < lambdas
        assert len(lambdas) == FIRST_NODES

    def test_a_method_that_does_not_give_the_aligned_model_has_its_own_point_there(self):
        search = search_of(0.0, 1.0, "lines")
        proposed = drive(search, quadratic)
        assert PARENTS[1] in proposed
        own = MergePoint("lines", 1.0, ())
        assert own in proposed
        assert own != PARENTS[1]
        assert len(search.record()["nodes"]) == FIRST_NODES
        assert search.record()["settled"]

    def test_the_aligned_model_is_no_node_of_such_a_line(self):
        """What the aligned model answers there would spoil the interpolant if it were taken for a point of the line."""
        search = search_of(0.0, 1.5, "lines")
        strange = Outcome({"accuracy": 0.3, "sce": 0.3}, {"quiz": scores_of(NOISE)})
        while (point := search.propose()) is not None:
            search.hear(point, strange if point == PARENTS[1] else outcome_of(quadratic, point))
        record = search.record()
        assert record["settled"]
        assert 1.0 not in record["nodes"]
        assert worst_error(record, quadratic).max() < 1e-6

    def test_predictions_are_wanted_where_nothing_was_measured(self):
        search = search_of()
        drive(search, quadratic)
        record = search.record()
        assert {*places(record), *record["nodes"], *record["confirmed"]} == {*grid_of(0, 1.5, POINTS), 1.0}
        assert set(places(record)).isdisjoint({*record["nodes"], *record["confirmed"]})

    def test_a_grid_has_both_ends_and_four_decimals(self):
        grid = grid_of(0.0, 1.0 / 3)
        assert (len(set(grid)), grid[0], grid[-1]) == (101, 0.0, round(1 / 3, 10))
        assert all(lam == round(lam, 4) for lam in grid[:-1])
        assert grid_of(0.0, 1.5)[1:4] == (0.015, 0.03, 0.045)

    def test_the_farthest_place_has_the_largest_product_of_distances(self):
        assert farthest((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 1.0)) == 0.5
        assert farthest((0.25, 0.75), (0.0, 1.0)) == 0.25
