"""Rivals: each is fitted as it says, on the questions that choose, and applied to those that judge."""

import numpy as np
import pytest
from test_findings import FEW, GRID, TASKS, N, fold_of, found_in, make_run, make_scores

from merge_calib.analysis import Analysis
from merge_calib.calibration import metrics
from merge_calib.calibration.daca import fit_daca
from merge_calib.calibration.mixture import mix_log_probabilities, mix_probabilities
from merge_calib.calibration.temperature import at_temperature, fit_temperature
from merge_calib.frontier import Candidate
from merge_calib.rivals import DACA, MIXED, MIXED_LOG, SELECTED, SHARED_T, Rivals, tempered
from merge_calib.scores import ChoiceScores, Predictions
from merge_calib.selection import RULES, Rule, select

BASE, ALIGNED = "linear-lambda-0.0000", "linear-lambda-1.0000"


@pytest.fixture(scope="module")
def rivals(tmp_path_factory) -> Rivals:
    return found_in(make_run(tmp_path_factory.mktemp("rivals") / "run")).rivals("choice")


def side(task: str, lam: float, selects: bool) -> Predictions:
    """What a point of the run said, without the code under test."""
    fold = fold_of(task)
    return make_scores(task, lam, N, 4).predictions.take(fold.select if selects else fold.report)


def nll_at(p: Predictions, t: float) -> float:
    """The plain twin of a tempered NLL."""
    logits = np.where(p.mask, p.log_probabilities / t, -np.inf)
    chosen = logits[np.arange(len(logits)), p.answers]
    return float((np.log(np.exp(logits).sum(1)) - chosen).mean())


def same(one: Predictions, other: Predictions) -> bool:
    return np.array_equal(one.log_probabilities, other.log_probabilities) and np.array_equal(one.answers, other.answers)


def test_sides_are_the_questions_that_choose_and_those_that_judge(rivals):
    for point in rivals.points:
        for task in TASKS:
            for selects in (True, False):
                assert same(rivals.side(point, task, 0, selects=selects), side(task, point.lam, selects))


def test_the_parents_are_the_points_at_0_and_1(rivals):
    assert (rivals.base.name, rivals.aligned.name) == (BASE, ALIGNED)
    assert [p.lam for p in rivals.points] == list(GRID)


def test_a_temperature_minimises_the_loss_of_the_choosing_questions(rivals):
    for (point, task), fitted in rivals.fits[0].temperatures.items():
        tasks = [side(t, point.lam, True) for t in ([task] if task else TASKS)]

        def loss(t, tasks=tasks):
            return np.mean([nll_at(p, t) for p in tasks])

        assert loss(fitted.value) <= min(loss(fitted.value * step) for step in (0.97, 0.999, 1.001, 1.03)) + 1e-12


def test_tempered_forecasts_are_those_temperatures_on_the_judging_questions(rivals):
    fit = rivals.fits[0]
    for task in TASKS:
        found = rivals.forecasts(task, 0)
        for point in rivals.points:
            raw = side(task, point.lam, False)
            assert same(found[point.name], raw)
            t = fit.temperatures[point, task].value
            assert metrics.nll(found[tempered(point.name)]) == pytest.approx(nll_at(raw, t), abs=1e-12)
            assert (found[tempered(point.name)].predicted == raw.predicted).all()
        shared = fit.temperatures[rivals.aligned, ""].value
        assert same(found[SHARED_T], at_temperature(found[ALIGNED], shared))
        assert shared != fit.temperatures[rivals.aligned, task].value


def test_one_temperature_for_all_tasks_is_fitted_to_all_tasks_alike(rivals):
    tasks = [side(task, 1.0, True) for task in TASKS]
    assert rivals.fits[0].temperatures[rivals.aligned, ""] == fit_temperature(tasks)


def test_daca_is_fitted_without_looking_at_answers(rivals):
    for task in TASKS:
        base, aligned = side(task, 0.0, True), side(task, 1.0, True)
        relabelled = [
            Predictions(p.log_probabilities, p.probabilities, np.zeros_like(p.answers), p.mask) for p in (base, aligned)
        ]
        fitted = rivals.fits[0].daca[task]
        assert fitted == fit_daca(*relabelled)
        assert same(rivals.forecasts(task, 0)[DACA], at_temperature(side(task, 1.0, False), fitted.temperature.value))


def test_where_the_parents_never_agree_daca_leaves_the_aligned_model_as_it_is(tmp_path):
    def disagree(task: str, point: str, scores: ChoiceScores) -> ChoiceScores:
        logits = np.where(scores.mask, 0.0, np.nan)
        logits[:, 0 if point == BASE else 1] = 1.0 + np.arange(N) / N
        return ChoiceScores(scores.ids, scores.answers, logits, scores.mask)

    rivals = found_in(make_run(tmp_path / "run", tamper=disagree)).rivals("choice")
    for task in TASKS:
        assert rivals.fits[0].daca[task] is None
        found = rivals.forecasts(task, 0)
        assert same(found[DACA], found[ALIGNED])


@pytest.mark.parametrize("by", RULES)
def test_the_selected_point_is_the_one_that_the_rule_takes_from_the_choosing_half(tmp_path, by):
    rule = Rule(by=by, margin=0.02)
    findings = found_in(make_run(tmp_path / "run"), Analysis(draws=100, rule=rule))
    rivals = findings.rivals("choice")
    candidates = [
        Candidate(
            f"linear-lambda-{lam:.4f}",
            lam,
            float(np.mean([metrics.accuracy(side(task, lam, True)) for task in TASKS])),
            float(np.mean([metrics.sce(side(task, lam, True), 10) for task in TASKS])),
            lam == 1,
        )
        for lam in GRID
    ]
    chosen = select(candidates, rule).point
    assert rivals.fits[0].chosen.name == findings.results.selection.point == chosen
    for task in TASKS:
        found = rivals.forecasts(task, 0)
        assert same(found[SELECTED], found[chosen])
        assert same(found[tempered(SELECTED)], found[tempered(chosen)])


def weight_by_hand(rule: Rule, mix, weights) -> float:
    candidates = []
    for weight in weights:
        mixed = [mix(side(task, 0.0, True), side(task, 1.0, True), weight) for task in TASKS]
        accuracy, error = np.mean([[metrics.accuracy(p), metrics.sce(p, 10)] for p in mixed], axis=0)
        candidates.append(Candidate(str(weight), weight, accuracy, error, weight == 1))
    return float(select(candidates, rule).point)


@pytest.mark.parametrize(("name", "mix"), [(MIXED, mix_probabilities), (MIXED_LOG, mix_log_probabilities)])
@pytest.mark.parametrize("by", RULES)
def test_a_mixture_has_the_weight_that_the_rule_takes_from_the_choosing_half(rivals, name, mix, by):
    rivals = Rivals(rivals.answers, rivals.points, rivals.base, rivals.aligned, Rule(by=by, margin=0.02), 10)
    expected = weight_by_hand(rivals.rule, mix, [lam for lam in GRID if lam <= 1 or name == MIXED_LOG])
    assert rivals.fits[0].weights[name] == expected
    for task in TASKS:
        judged = mix(side(task, 0.0, False), side(task, 1.0, False), expected)
        assert same(rivals.forecasts(task, 0)[name], judged)


def test_without_points_between_the_parents_a_mixture_has_tenths_to_choose_from(tmp_path):
    rivals = found_in(make_run(tmp_path / "run", lambdas=(0.0, 1.0))).rivals("choice")
    tenths = [i / 10 for i in range(11)]
    for name, mix in ((MIXED, mix_probabilities), (MIXED_LOG, mix_log_probabilities)):
        assert rivals.fits[0].weights[name] == weight_by_hand(rivals.rule, mix, tenths)


def test_every_fold_has_fits_of_its_own(tmp_path):
    rivals = found_in(make_run(tmp_path / "run"), Analysis(draws=100, cross_fit=5)).rivals("choice")
    key = rivals.aligned, TASKS[0]
    assert len({fit.temperatures[key].value for fit in rivals.fits}) == rivals.folds == 5
    for i, fit in enumerate(rivals.fits):
        p = make_scores(TASKS[0], 1.0, N, 4).predictions.take(fold_of(TASKS[0], i).select)
        assert fit.temperatures[key] == fit_temperature(p)


def test_a_run_without_a_parent_has_no_rivals(tmp_path):
    assert found_in(make_run(tmp_path / "run", lambdas=(0.3, 1.0)), FEW).rivals("choice") is None


def test_costs_are_counted_in_forward_passes(rivals):
    costs = rivals.costs()
    assert costs.keys() <= rivals.forecasts(TASKS[0], 0).keys()
    assert [costs[n].to_use for n in (ALIGNED, SELECTED, SHARED_T, DACA, MIXED, MIXED_LOG)] == [1, 1, 1, 1, 2, 2]
    assert costs[SELECTED].to_tune == len(GRID)
    assert (costs[DACA].to_tune, costs[DACA].needs_labels) == (2, False)
    assert (costs[ALIGNED].to_tune, costs[ALIGNED].needs_labels) == (0, False)
    assert costs[tempered(ALIGNED)].needs_labels
