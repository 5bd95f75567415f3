"""Every strategy by one contract: what a search must do whoever proposes the points."""

import numpy as np
import optuna
import pytest

from merge_calib.merging.point import MergePoint
from merge_calib.scores import ChoiceScores
from merge_calib.search.adaptive import Adaptive
from merge_calib.search.grid import PARENTS, Grid, line, product
from merge_calib.search.space import Space
from merge_calib.search.storage import open_storage, open_study
from merge_calib.search.strategy import Outcome
from merge_calib.search.study import StudySearch, directions

optuna.logging.set_verbosity(optuna.logging.ERROR)

rng = np.random.default_rng(0)
N, C = 120, 4
START, STEP = rng.normal(size=(2, N, C))
ANSWERS = rng.integers(C, size=N)


def grid(_folder, seed=0):
    return Grid(line("linear", {}, (0.3, 0.6, 0.9, 1.2)))


def grid_of_groups(_folder, seed=0):
    return Grid(product("linear", {}, {"mlp": (0.0, 0.5), "rest": (0.5, 1.0)}))


def adaptive(_folder, seed=0):
    return Adaptive("linear", {}, 0.0, 1.5, budget=9, tolerance=0.01, fallback=(0.25, 0.5, 0.75))


def study(folder, seed=0, trials=9, sampler="tpe", groups=()):
    folder.mkdir(exist_ok=True)
    storage = open_storage(None, folder / "study.journal", workers=1)
    objectives = ("accuracy", "sce")
    opened = open_study(storage, "the study", "the run", directions(objectives))
    return StudySearch(Space(("linear",), {}, {}, 0.0, 1.5, groups), objectives, opened, trials, seed, sampler)


def study_of_groups(folder, seed=0):
    return study(folder, seed, groups=("mlp", "rest"))


MAKERS = [grid, grid_of_groups, adaptive, study, study_of_groups]


def answer(point):
    """Invented answers whose scores are curved in lambda, and what they come to."""
    lam = np.mean([lam for _, lam in point.groups]) if point.groups else point.lam
    logits = START + lam * STEP + 0.3 * lam**2 * STEP[::-1]
    ids = tuple(map(str, range(N)))
    scores = ChoiceScores(ids, ANSWERS, logits, np.ones((N, C), dtype=bool))
    p = scores.predictions
    spread = 0.001 * len({lam for _, lam in point.groups})
    return Outcome({"accuracy": float(p.hit.mean()) + spread, "sce": 0.02 + 0.1 * lam**2}, {"quiz": scores})


def drive(strategy, most=100, lost=()):
    """Measure what is proposed, at most `most` points; those that are `lost` cannot be measured."""
    proposed = []
    while len(proposed) < most and not strategy.done:
        point = strategy.propose()
        assert point is not None, "it is not done, and nobody else is busy"
        proposed.append(point)
        strategy.hear(point, None if point in lost else answer(point))
    return proposed


@pytest.mark.parametrize("make", MAKERS)
class TestContract:
    def test_both_parents_come_first(self, make, tmp_path):
        assert tuple(drive(make(tmp_path), 2)) == PARENTS

    def test_it_proposes_no_more_points_than_it_says_and_none_twice(self, make, tmp_path):
        strategy = make(tmp_path)
        total = strategy.total
        proposed = drive(strategy)
        assert len(set(proposed)) == len(proposed) <= total == strategy.total
        assert strategy.propose() is None

    def test_it_proposes_the_same_until_it_hears(self, make, tmp_path):
        strategy = make(tmp_path)
        drive(strategy, 3)
        assert strategy.propose() == strategy.propose() is not None

    def test_with_the_same_seed_it_proposes_the_same(self, make, tmp_path):
        assert drive(make(tmp_path / "a")) == drive(make(tmp_path / "b"))

    def test_a_point_that_could_not_be_measured_is_passed_over(self, make, tmp_path):
        whole = drive(make(tmp_path / "whole"))
        lost = whole[3]
        proposed = drive(make(tmp_path / "lost"), lost={lost})
        assert proposed.count(lost) == 1
        assert len(proposed) > 4

    @pytest.mark.parametrize("cut", [0, 1, 2, 3, 5])
    def test_cut_off_after_any_point_it_goes_on_as_if_it_had_not_been(self, make, tmp_path, cut):
        whole = drive(make(tmp_path / "whole"))
        before = make(tmp_path / "cut")
        heard = drive(before, cut)
        before.propose()  # and cut off while the next one is measured
        after = make(tmp_path / "cut")
        rest = drive(after)
        assert list(dict.fromkeys([*heard, *rest])) == whole
        assert set(after.known) == set(whole)

    def test_several_workers_that_are_busy_at_once_never_get_the_same_point(self, make, tmp_path):
        strategy, busy, measured = make(tmp_path), [], []
        while not strategy.done:
            while len(busy) < 3 and (point := strategy.propose(busy)) is not None:
                assert point not in busy
                assert point not in measured
                busy.append(point)
            assert busy, "it waits for nobody"
            measured.append(busy.pop(0))
            strategy.hear(measured[-1], answer(measured[-1]))
        assert strategy.propose() is None

    def test_it_knows_what_it_heard(self, make, tmp_path):
        strategy = make(tmp_path)
        assert set(strategy.known) == set()
        assert set(strategy.known) == set(drive(strategy, 3)) or len(strategy.known) == 3

    def test_it_tells_what_it_is(self, make, tmp_path):
        strategy = make(tmp_path)
        drive(strategy)
        assert strategy.record()["strategy"] in ("grid", "adaptive", "optuna")


@pytest.mark.parametrize("make", [grid, grid_of_groups, adaptive])
def test_several_workers_measure_what_one_would_have(make, tmp_path):
    alone = set(drive(make(tmp_path)))
    strategy, busy = make(tmp_path), []
    while not strategy.done:
        while len(busy) < 3 and (point := strategy.propose(busy)) is not None:
            busy.append(point)
        point = busy.pop()  # the one that began last is ready first
        strategy.hear(point, answer(point))
    assert set(strategy.known) == alone


def test_a_grid_is_ascending_without_repeats(tmp_path):
    points = drive(Grid(line("linear", {}, [1.2, 0.3, 0.3, 1.0])))
    assert points == [MergePoint("linear", lam) for lam in (0.0, 1.0, 0.3, 1.2)]


def test_another_seed_proposes_other_points(tmp_path):
    assert drive(study(tmp_path / "a", seed=0)) != drive(study(tmp_path / "b", seed=1))


def test_more_trials_go_on_from_those_that_are_there(tmp_path):
    few = drive(study(tmp_path, trials=6))
    more = drive(study(tmp_path, trials=9))
    assert (len(few), len(more)) == (8, 3)
