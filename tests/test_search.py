"""Every strategy by one contract, and what is particular to each."""

import json

import optuna
import pytest
from conftest import write_questions
from test_sweep import files, plan

from merge_calib.merging.point import MergePoint
from merge_calib.search.grid import Grid, line
from merge_calib.search.optuna_study import OptunaSearch
from merge_calib.search.strategy import Outcome
from merge_calib.sweep import sweep

optuna.logging.set_verbosity(optuna.logging.ERROR)


def grid(_tmp_path, lambdas=(0.3, 0.6, 0.9, 1.2)):
    return Grid(line("linear", {}, lambdas))


def study(tmp_path, seed=0, trials=14):
    return OptunaSearch("linear", {}, 0.0, 1.5, trials, seed, tmp_path / "study.journal", "accuracy and sce on quiz")


def answer(point):
    """A smooth invented outcome: accuracy peaks between the parents, the error grows with lambda."""
    return Outcome(0.6 - (point.lam - 0.6) ** 2 / 5, 0.02 + 0.1 * point.lam**2)


def drive(strategy, most=100):
    """Measure what is proposed, at most `most` points."""
    proposed = []
    while len(proposed) < most and (point := strategy.propose()) is not None:
        proposed.append(point)
        strategy.hear(point, answer(point))
    return proposed


@pytest.mark.parametrize("make", [grid, study])
class TestContract:
    def test_both_parents_come_first(self, make, tmp_path):
        assert [p.lam for p in drive(make(tmp_path), 2)] == [0.0, 1.0]

    def test_it_proposes_as_many_points_as_it_says(self, make, tmp_path):
        strategy = make(tmp_path)
        assert len(drive(strategy)) == strategy.total
        assert strategy.propose() is None

    def test_it_proposes_the_same_until_it_hears(self, make, tmp_path):
        strategy = make(tmp_path)
        drive(strategy, 3)
        assert strategy.propose() == strategy.propose()

    def test_a_point_that_could_not_be_measured_is_passed_over(self, make, tmp_path):
        strategy = make(tmp_path)
        drive(strategy, 2)
        lost = strategy.propose()
        strategy.hear(lost, None)
        rest = drive(strategy)
        assert len(rest) == strategy.total - 3
        assert lost not in rest

    @pytest.mark.parametrize("cut", [0, 1, 2, 3, 5])
    def test_cut_off_after_any_point_it_proposes_the_same(self, make, tmp_path, cut):
        (tmp_path / "whole").mkdir()
        (tmp_path / "cut").mkdir()
        whole = drive(make(tmp_path / "whole"))
        before = drive(make(tmp_path / "cut"), cut)
        after = drive(make(tmp_path / "cut"))
        assert list(dict.fromkeys([*before, *after])) == list(dict.fromkeys(whole))


def test_a_grid_is_ascending_without_repeats():
    points = drive(Grid(line("linear", {}, [1.2, 0.3, 0.3, 1.0])))
    assert points == [MergePoint("linear", lam) for lam in (0.0, 1.0, 0.3, 1.2)]


def test_another_seed_proposes_other_points(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert drive(study(tmp_path / "a", seed=0))[2:] != drive(study(tmp_path / "b", seed=1))[2:]


def test_lambdas_of_a_study_stay_in_the_interval_with_four_decimals(tmp_path):
    for point in drive(study(tmp_path)):
        assert 0 <= point.lam <= 1.5
        assert round(point.lam, 4) == point.lam


def test_a_study_is_an_ordinary_optuna_study_with_a_front(tmp_path):
    drive(study(tmp_path))
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    )
    [name] = optuna.study.get_all_study_names(storage)
    loaded = optuna.load_study(study_name=name, storage=storage)
    assert [d.name for d in loaded.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert len(loaded.trials) == 16
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in loaded.trials)
    assert loaded.best_trials


def test_more_trials_go_on_from_those_that_are_there(tmp_path):
    few = drive(study(tmp_path, trials=5))
    more = drive(study(tmp_path, trials=8))
    assert (len(few), len(more)) == (7, 3)


def searching(pair_folders, questions, out, trials=4):
    return plan(pair_folders, questions, out, lambdas="0:1.5:0.5", search="optuna", trials=trials)


def test_a_sweep_by_optuna_measures_both_parents_and_the_trials(pair_folders, questions, tmp_path):
    sweep(searching(pair_folders, questions, tmp_path / "out"))
    points = sorted(json.loads(p.read_text())["lambda"] for p in (tmp_path / "out" / "points").glob("*.json"))
    assert {0.0, 1.0} < set(points)
    assert len(points) == 6
    assert (tmp_path / "out" / "study.journal").exists()


def test_a_sweep_by_optuna_in_two_parts_ends_with_the_same_bytes(pair_folders, questions, tmp_path, monkeypatch):
    sweep(searching(pair_folders, questions, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        # Cut off between the record of the fourth point and the study's hearing of it.
        heard = []

        def dying(self, *arguments):
            heard.append(arguments)
            if len(heard) == 4:
                raise KeyboardInterrupt
            original(self, *arguments)

        original = OptunaSearch.hear
        patch.setattr(OptunaSearch, "hear", dying)
        with pytest.raises(KeyboardInterrupt):
            sweep(searching(pair_folders, questions, tmp_path / "cut"))
    sweep(searching(pair_folders, questions, tmp_path / "cut"))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_another_task_gets_a_study_of_its_own(pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    sweep(searching(pair_folders, questions, out))
    other = write_questions(tmp_path / "other.jsonl", 6, seed=3)
    sweep(searching(pair_folders, other, out))
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(out / "study.journal")))
    assert len(optuna.study.get_all_study_names(storage)) == 2
