"""Scores between nodes: against other formulas, where they must be exact, and where they cannot be."""

import numpy as np
import pytest
from scipy.interpolate import BarycentricInterpolator, CubicSpline, FloaterHormannInterpolator

from merge_calib.interpolation import DEGREE, cardinal_weights, interpolate
from merge_calib.scores import ChoiceScores

NODES = (0.0, 1.0, 1.5, 0.39, 1.305, 0.15, 0.705)
PLACES = np.linspace(0, 1.5, 31)


def scores_of(logprobs, mask=None):
    mask = np.ones(logprobs.shape, dtype=bool) if mask is None else mask
    ids = tuple(f"q{i}" for i in range(len(logprobs)))
    return ChoiceScores(ids, np.zeros(len(logprobs), dtype=np.int64), np.where(mask, logprobs, np.nan), mask)


def line_of(function, nodes=NODES, mask=None):
    return [scores_of(function(lam), mask) for lam in nodes]


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 20, 4))


class TestCardinalWeights:
    @pytest.mark.parametrize("degree", [1, 3, 4, 6])
    def test_they_are_those_of_scipy(self, degree):
        values = np.random.default_rng(1).normal(size=len(NODES))
        order = np.argsort(NODES)
        theirs = FloaterHormannInterpolator(np.array(NODES)[order], values[order], d=degree)(PLACES)
        assert cardinal_weights(NODES, PLACES, degree) @ values == pytest.approx(theirs, abs=1e-12)

    def test_they_are_a_slow_loop_over_blended_polynomials(self):
        nodes, values = np.sort(NODES), np.random.default_rng(2).normal(size=len(NODES))
        found = cardinal_weights(nodes, PLACES) @ values
        for lam, value in zip(PLACES, found, strict=True):
            if lam in nodes:
                continue
            blends, polynomials = [], []
            for start in range(len(nodes) - DEGREE):
                run = slice(start, start + DEGREE + 1)
                blends.append((-1) ** start / np.prod(lam - nodes[run]))
                polynomials.append(np.polyval(np.polyfit(nodes[run], values[run], DEGREE), lam))
            assert value == pytest.approx(np.average(polynomials, weights=blends), abs=1e-9)

    def test_few_nodes_give_the_polynomial_through_them(self):
        nodes, values = NODES[:5], [0.3, -1.0, 2.0, 0.1, 0.7]
        theirs = BarycentricInterpolator(nodes, values)(PLACES)
        assert cardinal_weights(nodes, PLACES) @ values == pytest.approx(theirs, abs=1e-10)

    def test_polynomials_up_to_the_degree_are_reproduced(self):
        for power in range(DEGREE + 1):
            found = cardinal_weights(NODES, PLACES) @ np.power(NODES, power)
            assert found == pytest.approx(PLACES**power, abs=1e-12)

    def test_rows_sum_to_one_and_are_unit_rows_at_nodes(self):
        assert cardinal_weights(NODES, PLACES).sum(1) == pytest.approx(1, abs=1e-13)
        assert (cardinal_weights(NODES, NODES) == np.eye(len(NODES))).all()

    def test_the_order_and_the_scale_of_nodes_do_not_matter(self):
        order = np.argsort(NODES)
        straight = cardinal_weights(np.array(NODES)[order], PLACES)
        assert np.allclose(cardinal_weights(NODES, PLACES)[:, order], straight, rtol=0, atol=1e-13)
        scaled = cardinal_weights(1e-6 * np.array(NODES), 1e-6 * PLACES)
        assert np.allclose(scaled, cardinal_weights(NODES, PLACES), rtol=0, atol=1e-9)

    def test_many_even_nodes_do_not_swing_as_one_polynomial_does(self):
        nodes, places = np.linspace(0, 1.5, 31), np.linspace(0, 1.5, 400)
        ours, polynomial = (np.abs(cardinal_weights(nodes, places, d)).sum(1).max() for d in (DEGREE, 30))
        assert ours < 20
        assert polynomial > 1e5

    def test_a_smooth_function_is_met_about_as_well_as_by_a_spline(self):
        nodes = np.linspace(0, 1.5, 9)
        found = cardinal_weights(nodes, PLACES) @ np.exp(-2 * nodes)
        spline = CubicSpline(nodes, np.exp(-2 * nodes))(PLACES)
        truth = np.exp(-2 * PLACES)
        assert np.abs(found - truth).max() < 3 * np.abs(spline - truth).max()
        assert np.abs(found - truth).max() < 1e-3

    def test_one_node_is_a_constant(self):
        assert (cardinal_weights([0.3], [0.1, 0.3, 7.0]) == 1).all()

    @pytest.mark.parametrize(("nodes", "message"), [((), "there is a node"), ((0.1, 0.2, 0.1), "nodes are distinct")])
    def test_bad_nodes_are_refused(self, nodes, message):
        with pytest.raises(AssertionError, match=message):
            cardinal_weights(nodes, [0.15])


class TestInterpolate:
    def test_logits_that_are_polynomials_in_lambda_are_exact(self, logits):
        def truth(lam):
            return sum(logits[k] * lam**k for k in range(5))

        places = (0.0, 0.1, 0.777, 1.5)
        for lam, found in zip(places, interpolate(NODES, line_of(truth), places), strict=True):
            assert found.logprobs == pytest.approx(truth(lam), abs=1e-10)
            assert found.predictions.probabilities == pytest.approx(scores_of(truth(lam)).predictions.probabilities)

    def test_logits_that_jump_are_not_met(self, logits):
        measured = line_of(lambda lam: logits[0] if lam < 0.5 else logits[1])
        (found,) = interpolate(NODES, measured, [0.48])
        assert np.abs(found.logprobs - logits[0]).max() > 0.1

    def test_at_a_node_it_is_what_was_measured(self, logits):
        measured = line_of(lambda lam: logits[0] * np.cos(9 * lam))
        for found, own in zip(interpolate(NODES, measured, NODES), measured, strict=True):
            assert found is own

    def test_what_does_not_exist_stays_so(self, logits):
        mask = np.ones((20, 4), dtype=bool)
        mask[::3, 2:] = False
        (found,) = interpolate(NODES, line_of(lambda lam: lam * logits[0], mask=mask), [0.5])
        assert (found.mask == mask).all()
        assert np.isnan(found.logprobs[~mask]).all()
        assert (found.ids, found.answers.tolist()) == (tuple(f"q{i}" for i in range(20)), [0] * 20)

    def test_normalised_or_not_the_probabilities_are_the_same(self, logits):
        raw = line_of(lambda lam: logits[0] * np.exp(lam) + 50 * lam)
        normalised = [scores_of(each.predictions.log_probabilities) for each in raw]
        (a,), (b,) = (interpolate(NODES, each, [0.8]) for each in (raw, normalised))
        assert a.predictions.probabilities == pytest.approx(b.predictions.probabilities, abs=1e-12)

    def test_each_question_is_on_its_own(self, logits):
        measured = line_of(lambda lam: logits[0] * np.sin(3 * lam))
        (whole,) = interpolate(NODES, measured, [0.8])
        rows = np.arange(20) % 2 == 0
        (half,) = interpolate(NODES, [each.take(rows) for each in measured], [0.8])
        assert (half.logprobs == whole.logprobs[rows]).all()

    def test_one_place_is_made_at_a_time(self, logits):
        made = interpolate(NODES, line_of(lambda lam: logits[0]), PLACES)
        assert next(made) is not None
        assert len(list(made)) == len(PLACES) - 1

    def test_nothing_is_said_beyond_the_nodes(self, logits):
        with pytest.raises(AssertionError, match="beyond the nodes"):
            next(interpolate((0.1, 0.2), line_of(lambda lam: logits[0], (0.1, 0.2)), [0.3]))

    def test_other_questions_are_refused(self, logits):
        measured = [scores_of(logits[0]), scores_of(logits[1][:10])]
        with pytest.raises(AssertionError, match="same questions"):
            next(interpolate((0.0, 1.0), measured, [0.5]))
