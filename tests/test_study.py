"""Optuna studies: proposals, resumption, constraints, and what other tools see."""

import itertools
import math
import warnings
from contextlib import contextmanager

import numpy as np
import optuna
import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

from merge_calib.errors import InputError, RunDirectoryError
from merge_calib.merging.point import MergePoint
from merge_calib.search.grid import PARENTS
from merge_calib.search.objectives import HIGHER, LOWER
from merge_calib.search.samplers import SAMPLERS, make_sampler
from merge_calib.search.space import Space
from merge_calib.search.storage import open_storage, open_study
from merge_calib.search.strategy import Outcome
from merge_calib.search.study import StudySearch, directions

LINE = Space(("linear",), low=0.0, high=1.5)
MIXED = Space(("linear", "dare_linear"), {}, {"density": (0.3, 0.9), "drop_seed": (0, 5)}, 0.0, 1.5)
GROUPS = Space(("linear",), low=0.0, high=1.2, groups=("attention", "mlp", "rest"))
FAST = [name for name in SAMPLERS if name != "gp"]


def lambdas(point):
    return np.array([lam for _, lam in point.groups] if point.lam is None else [point.lam])


def answer(point):
    """A smooth invented outcome: accuracy peaks between the parents, the errors grow with lambda."""
    at = lambdas(point)
    return Outcome(
        {
            "accuracy": 0.6 - float(((at - 0.6) ** 2).mean()) / 5 - 0.001 * len(point.options),
            "sce": 0.02 + 0.1 * float((at**2).mean()),
            "nll": 1.0 + float(np.abs(at - 0.3).mean()),
            "auroc": 0.7 - float(at.mean()) / 10,
        }
    )


class Bench:
    """Starts the same search again and again, as a process that was killed does."""

    def __init__(self, path=None, name="study", run_id="run"):
        self.path = path
        self.memory = optuna.storages.InMemoryStorage()
        self.name, self.run_id = name, run_id

    def study(self, objectives=("accuracy", "sce")):
        storage = self.memory if self.path is None else open_storage(None, self.path, workers=1)
        return open_study(storage, self.name, self.run_id, directions(objectives))

    def search(self, space=LINE, sampler="tpe", trials=14, seed=0, objectives=("accuracy", "sce"), **more):
        return StudySearch(space, objectives, self.study(objectives), trials, seed, sampler, **more)


def drive(search, most=1000, answer=answer):
    """Measure what is proposed, at most `most` points."""
    proposed = []
    while len(proposed) < most and (point := search.propose()) is not None:
        proposed.append(point)
        search.hear(point, answer(point))
    return proposed


class TestContract:
    @pytest.mark.parametrize("space", [LINE, MIXED, GROUPS])
    @pytest.mark.parametrize("sampler", FAST)
    def test_it_proposes_parents_and_trials_without_repeats_and_is_done(self, space, sampler):
        search = Bench().search(space, sampler)
        points = drive(search)
        assert tuple(points[:2]) == PARENTS
        assert len(points) == search.total == 16
        assert len(set(points)) == len(points)
        assert search.propose() is None
        assert search.done

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_the_same_seed_proposes_the_same_and_another_seed_does_not(self, sampler):
        same = [drive(Bench().search(GROUPS, sampler, 10, seed=s)) for s in (1, 1, 2)]
        assert same[0] == same[1]
        assert same[0] != same[2]

    def test_it_proposes_the_same_until_it_hears(self):
        search = Bench().search()
        for _ in range(search.total):
            point = search.propose()
            assert search.propose() == point
            search.hear(point, answer(point))

    @pytest.mark.parametrize("lost", [0, 1, 3, 12])
    def test_a_point_that_could_not_be_measured_is_passed_over(self, lost):
        search = Bench().search()
        before = drive(search, lost)
        failed = search.propose()
        assert not search.done
        search.hear(failed, None)
        after = drive(search)
        assert failed not in after
        assert len(before) + 1 + len(after) == search.total
        assert search.done

    def test_it_is_done_where_every_point_fails(self):
        search = Bench().search(trials=12)
        assert len(drive(search, answer=lambda point: None)) == 14
        assert search.done

    def test_it_knows_what_it_heard_of(self):
        search = Bench().search()
        points = drive(search, 3)
        search.hear(search.propose(), None)
        running = search.propose()
        assert list(search.known)[:3] == points
        assert len(search.known) == 4
        assert running not in search.known

    def test_a_point_that_was_not_proposed_is_our_own_fault(self):
        with pytest.raises(AssertionError, match="was not proposed"):
            Bench().search().hear(MergePoint("linear", 0.3), answer(MergePoint("linear", 0.3)))

    def test_more_trials_go_on_from_those_that_are_there(self):
        bench = Bench()
        few = drive(bench.search(trials=6))
        more = drive(bench.search(trials=12))
        assert (len(few), len(more)) == (8, 6)
        assert not set(few) & set(more)

    def test_fewer_trials_than_there_are_is_done(self):
        bench = Bench()
        drive(bench.search(trials=6))
        search = bench.search(trials=3)
        assert search.propose() is None
        assert search.done


class TestResumption:
    @pytest.mark.parametrize("sampler", FAST)
    @pytest.mark.parametrize("where", ["memory", "journal"])
    def test_cut_off_after_any_point_it_ends_as_if_it_had_not_been(self, sampler, where, tmp_path):
        whole = drive(Bench().search(MIXED, sampler))
        for cut in (0, 1, 2, 5, 8, 11, 12, 15, 16) if where == "memory" else (4, 12):
            bench = Bench(None if where == "memory" else tmp_path / f"{cut}.journal")
            assert drive(bench.search(MIXED, sampler), cut) + drive(bench.search(MIXED, sampler)) == whole

    def test_gp_cut_off_ends_as_if_it_had_not_been(self, tmp_path):
        whole = drive(Bench().search(GROUPS, "gp", 10))
        bench = Bench(tmp_path / "study.journal")
        assert drive(bench.search(GROUPS, "gp", 10), 11) + drive(bench.search(GROUPS, "gp", 10)) == whole

    def test_one_study_of_every_point_anew_ends_as_one_of_one_process(self):
        whole = drive(Bench().search(GROUPS, "nsga3", 24))
        bench = Bench()
        assert [p for _ in whole for p in drive(bench.search(GROUPS, "nsga3", 24), 1)] == whole

    @pytest.mark.parametrize("cut", [0, 1, 2, 5, 12])
    def test_a_running_trial_that_a_killed_process_left_is_proposed_again(self, cut, tmp_path):
        whole = drive(Bench().search())
        bench = Bench(tmp_path / "study.journal")
        drive(bench.search(), cut)
        left = bench.search().propose()
        [running] = [t for t in bench.study().trials if t.state == TrialState.RUNNING]
        assert MergePoint.read(running.user_attrs["record"]) == left == whole[cut]
        assert running.user_attrs["point"] == left.name
        assert drive(bench.search()) == whole[cut:]
        assert len(bench.study().trials) == len(whole)

    def test_hearing_that_was_cut_off_at_any_step_is_heard_again(self, monkeypatch):
        whole = drive(Bench().search(trials=8, min_accuracy=0.5))
        storage = optuna.storages.InMemoryStorage
        for cut in itertools.count():
            bench = Bench()
            drive(bench.search(trials=8, min_accuracy=0.5), 4)
            done = []

            def killed(original, cut=cut, done=done):
                def step(*arguments, **named):
                    if len(done) == cut:
                        raise KeyboardInterrupt
                    done.append(1)
                    return original(*arguments, **named)

                return step

            search = bench.search(trials=8, min_accuracy=0.5)
            point = search.propose()
            try:
                with monkeypatch.context() as patch:
                    for name in ("set_trial_user_attr", "set_trial_system_attr", "set_trial_state_values"):
                        patch.setattr(storage, name, killed(getattr(storage, name)))
                    search.hear(point, answer(point))
            except KeyboardInterrupt:
                assert drive(bench.search(trials=8, min_accuracy=0.5)) == whole[4:]
            else:
                break
        assert cut == 6  # accuracy, sce, stopped, constraint, the samplers' constraint, the state

    def test_a_point_enters_the_study_in_one_operation(self, tmp_path):
        bench = Bench(tmp_path / "study.journal")
        search = bench.search(MIXED)
        for _ in range(search.total):
            before = bench.path.read_bytes().count(b"\n")
            point = search.propose()
            assert bench.path.read_bytes().count(b"\n") == before + 1
            search.hear(point, answer(point))

    def test_trials_of_other_tools_are_left_alone(self):
        whole = drive(Bench().search())
        bench = Bench()
        bench.search()
        bench.study().enqueue_trial({"lambda": 0.77})
        bench.study().add_trial(optuna.trial.create_trial(values=[1.0, 0.0]))
        assert drive(bench.search()) == whole


class TestWorkers:
    def test_points_that_others_measure_are_not_proposed(self):
        search = Bench().search(trials=9)
        busy = []
        while (point := search.propose(busy)) is not None:
            assert point not in busy
            busy.append(point)
        assert len(set(busy)) == search.total
        assert not search.done
        assert search.propose(busy[1:]) == busy[0]
        for point in busy:
            search.hear(point, answer(point))
        assert search.done

    def test_hearing_of_a_point_twice_is_no_error_and_changes_nothing(self, tmp_path):
        bench = Bench(tmp_path / "study.journal")
        one, other = bench.search(), bench.search()
        point = one.propose()
        assert other.propose() == point
        one.hear(point, answer(point))
        before = bench.path.read_bytes()
        other.hear(point, Outcome({"accuracy": 0.0, "sce": 1.0}))
        other.hear(point, None)
        assert bench.path.read_bytes() == before
        [trial] = bench.study().trials
        assert trial.state == TrialState.COMPLETE
        assert trial.values == [answer(point).measures[name] for name in ("accuracy", "sce")]

    def test_hearing_while_another_worker_tells_is_no_error(self, monkeypatch, tmp_path):
        bench = Bench(tmp_path / "study.journal")
        one, other = bench.search(), bench.search()
        point = one.propose()
        read = StudySearch._read

        def late(search):
            trials = read(search)
            if search is other:
                one.hear(point, answer(point))
            return trials

        monkeypatch.setattr(StudySearch, "_read", late)
        other.hear(point, Outcome({"accuracy": 0.0, "sce": 1.0}))
        monkeypatch.undo()
        assert bench.study().trials[0].values[0] == answer(point).measures["accuracy"]

    def test_a_new_point_is_drawn_alone_from_what_is_there_by_then(self):
        bench = Bench()
        other = bench.search()
        inside = []

        @contextmanager
        def alone():
            inside.append("in")
            other.propose([*PARENTS[:1]] if len(inside) == 2 else [])  # another worker was faster
            yield
            inside.append("out")

        search = bench.search(alone=alone)
        assert search.propose() == PARENTS[1]
        assert inside == ["in", "out"]
        assert [t.user_attrs["point"] for t in bench.study().trials] == [p.name for p in PARENTS]
        assert search.propose() == PARENTS[0]
        assert inside == ["in", "out"]  # a trial that runs is proposed without asking for a new one

    @pytest.mark.parametrize("sampler", ["tpe", "gp"])
    def test_samplers_keep_away_from_what_others_measure(self, sampler, monkeypatch):
        """The copy that a sampler sees has the running trials, with their parameters."""
        seen = []
        original = optuna.study.Study.ask

        def ask(study, *arguments, **named):
            seen.append([(t.state.name, len(t.params)) for t in study.trials])
            return original(study, *arguments, **named)

        search = Bench().search(sampler=sampler, trials=10)
        drive(search, 10)
        busy = [search.propose()]
        monkeypatch.setattr(optuna.study.Study, "ask", ask)
        busy.append(search.propose(busy))
        assert seen[-1] == [("COMPLETE", 1)] * 10 + [("RUNNING", 1)]
        assert len(set(busy)) == 2


class TestStarts:
    @pytest.mark.parametrize(("trials", "count"), [(1, 0), (3, 1), (9, 3), (21, 7), (60, 7)])
    def test_the_diagonal_is_at_most_seven_and_at_most_a_third(self, trials, count):
        search = Bench().search(GROUPS, "random", trials)
        points = drive(search)
        assert points[2 : 2 + count] == GROUPS.diagonal(count)
        assert all(point.lam is None for point in points[2 + count :])

    def test_groups_begin_with_all_groups_equal(self):
        bench = Bench()
        drive(bench.search(GROUPS, "tpe", 9), 5)
        for trial in bench.study().trials:
            assert len(set(trial.params.values())) == 1
            assert trial.params.keys() == GROUPS.distributions.keys()

    @pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
    def test_parents_beyond_the_space_are_measured_and_samplers_model_the_rest(self, sampler):
        """A trial without parameters would leave a sampler no shared space, and so nothing but chance."""
        space = Space(("linear",), low=0.2, high=0.8, groups=("attention", "mlp", "rest"))
        bench = Bench()
        points = drive(bench.search(space, sampler, 20))
        assert tuple(points[:2]) == PARENTS
        assert all(0.2 <= lam <= 0.8 for point in points[2:] for lam in lambdas(point))
        assert [len(trial.params) for trial in bench.study().trials] == [0, 0] + [3] * 20
        assert points[2 + 6 :] != drive(Bench().search(space, "random", 20))[2 + 6 :]

    def test_a_space_with_few_points_is_exhausted(self):
        space = Space(("linear",), low=0.0, high=0.001)
        search = Bench().search(space, "random", 60)
        points = drive(search)
        assert search.done
        assert search.propose() is None
        # eleven lambdas of four decimals, the base among them, and the aligned model beside them
        assert set(points) == {MergePoint("linear", 1.0), *(MergePoint("linear", i / 10000) for i in range(11))}

    def test_an_exhausted_search_is_not_done_while_others_measure(self):
        search = Bench().search(Space(("linear",), low=0.0, high=0.0003), "random", 60)
        busy = []
        while (point := search.propose(busy)) is not None:
            busy.append(point)
        assert len(busy) == 5
        assert not search.done
        for point in busy:
            search.hear(point, answer(point))
        assert search.done

    def test_a_sampler_that_insists_on_a_known_point_gives_way_to_chance(self, monkeypatch):
        class Insisting(optuna.samplers.RandomSampler):
            def sample_independent(self, *arguments):
                return 0.5

        def make(name, seed, is_constrained=False):
            return Insisting() if name == "gp" else make_sampler(name, seed, is_constrained)

        monkeypatch.setattr("merge_calib.search.study.make_sampler", make)
        points = drive(Bench().search(LINE, "gp", 6))
        assert len(set(points)) == 8
        assert MergePoint("linear", 0.5) in points


class TestConstraints:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_samplers_see_what_is_missing_to_the_least_accuracy(self, sampler, monkeypatch):
        seen = []
        original = optuna.study.Study.ask

        def ask(study, *arguments, **named):
            seen.append([trial.system_attrs.get("constraints") for trial in study.trials])
            return original(study, *arguments, **named)

        monkeypatch.setattr(optuna.study.Study, "ask", ask)
        bench = Bench()
        drive(bench.search(sampler=sampler, trials=9, min_accuracy=0.55))
        accuracies = [trial.user_attrs["accuracy"] for trial in bench.study().trials]
        assert seen[-1] == [[0.55 - accuracy] for accuracy in accuracies[:-1]]
        assert [trial.system_attrs["constraints"] for trial in bench.study().trials] == [[0.55 - a] for a in accuracies]
        assert [trial.user_attrs["constraint"] for trial in bench.study().trials] == [0.55 - a for a in accuracies]

    @pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3"])
    def test_a_constraint_draws_points_to_where_it_holds(self, sampler):
        """Without a constraint, small lambdas with their small errors are as good as accurate ones."""

        def share(min_accuracy):
            points = drive(Bench().search(GROUPS, sampler, 40, min_accuracy=min_accuracy))[22:]
            return np.mean([answer(point).measures["accuracy"] >= 0.59 for point in points])

        assert share(0.59) > share(None) + 0.1

    @pytest.mark.parametrize("sampler", ["gp", "tpe", "nsga2"])
    def test_a_constraint_that_comes_later_counts_for_all_trials(self, sampler):
        bench = Bench()
        drive(bench.search(sampler=sampler, trials=9))
        assert len(drive(bench.search(sampler=sampler, trials=10, min_accuracy=0.5))) == 1

    def test_best_trials_are_feasible(self):
        bench = Bench()
        drive(bench.search(min_accuracy=0.58))
        best = bench.study().best_trials
        assert best
        assert all(trial.user_attrs["accuracy"] >= 0.58 for trial in best)
        assert min(trial.user_attrs["accuracy"] for trial in bench.study().trials) < 0.58


class TestValues:
    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, None])
    def test_a_value_that_is_not_finite_fails_the_trial_with_a_reason(self, wrong):
        bench = Bench()
        search = bench.search()
        point = search.propose()
        search.hear(point, Outcome({"accuracy": 0.5, "sce": wrong}))
        [trial] = bench.study().trials
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs["reason"] == "sce has no finite value"
        assert len(drive(search)) == search.total - 1

    def test_a_measure_that_is_missing_fails_the_trial(self):
        bench = Bench()
        search = bench.search(objectives=("accuracy", "brier"))
        search.hear(search.propose(), Outcome({"accuracy": 0.5, "sce": 0.1}))
        assert bench.study(("accuracy", "brier")).trials[0].user_attrs["reason"] == "brier has no finite value"

    def test_a_point_that_could_not_be_measured_says_so(self):
        bench = Bench()
        search = bench.search()
        search.hear(search.propose(), None)
        assert bench.study().trials[0].user_attrs["reason"] == "it could not be measured"

    def test_numpy_numbers_are_stored_as_numbers(self, tmp_path):
        bench = Bench(tmp_path / "study.journal")
        search = bench.search(min_accuracy=0.5)
        search.hear(search.propose(), Outcome({"accuracy": np.float64(0.5), "sce": np.float32(0.25)}, {}, stopped=True))
        [trial] = bench.study().trials
        assert trial.values == [0.5, 0.25]
        assert trial.user_attrs["stopped"] is True

    def test_other_objectives_have_their_directions(self):
        bench = Bench()
        drive(bench.search(objectives=("nll", "auroc", "accuracy")))
        study = bench.study(("nll", "auroc", "accuracy"))
        assert [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE", "MAXIMIZE"]
        for trial in study.trials:
            point = MergePoint.read(trial.user_attrs["record"])
            assert trial.values == [answer(point).measures[name] for name in ("nll", "auroc", "accuracy")]

    def test_another_pair_of_objectives_searches_elsewhere(self):
        one = drive(Bench().search(trials=40))
        other = drive(Bench().search(trials=40, objectives=("nll", "auroc")))
        assert one[:10] == other[:10]
        assert one != other

    @pytest.mark.parametrize(
        ("objectives", "message"),
        [
            (("accuracy",), "--objectives needs at least two measures, as accuracy,sce"),
            ((), "--objectives needs at least two measures"),
            (("accuracy", "accuracy"), "--objectives accuracy,accuracy names one measure twice"),
            (
                ("accuracy", "mean_confidence"),
                "--objectives 'mean_confidence' is unknown; allowed: accuracy, auroc, ece",
            ),
            (("accuracy", "f1"), "--objectives 'f1' is unknown"),
        ],
    )
    def test_objectives_that_are_none_are_named_with_what_is_allowed(self, objectives, message):
        with pytest.raises(InputError) as caught:
            StudySearch(LINE, objectives, Bench().study(), 5, 0)
        assert message in str(caught.value)

    def test_every_objective_is_a_column_of_the_measurement(self):
        from merge_calib.calibration.measurement import COLUMNS

        assert {*HIGHER, *LOWER} <= set(COLUMNS)

    @pytest.mark.parametrize("trials", [0, -3])
    def test_at_least_one_trial(self, trials):
        with pytest.raises(InputError, match="--trials must be at least 1"):
            Bench().search(trials=trials)

    def test_a_sampler_that_is_unknown_is_refused_at_once(self):
        with pytest.raises(InputError, match="--sampler cmaes is unknown; allowed: gp, tpe, nsga2, nsga3, random"):
            Bench().search(sampler="cmaes")


class TestOrdinaryStudy:
    def test_any_optuna_tool_reads_it(self, tmp_path):
        drive(Bench(tmp_path / "study.journal").search(MIXED))
        backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
        loaded = optuna.load_study(study_name="study", storage=optuna.storages.JournalStorage(backend))
        assert [d.name for d in loaded.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert {trial.state for trial in loaded.trials} == {TrialState.COMPLETE}
        assert loaded.user_attrs["run"] == "run"
        assert loaded.user_attrs["objectives"] == ["accuracy", "sce"]
        assert loaded.metric_names == ["accuracy", "sce"]
        for trial in loaded.trials:
            assert MIXED.point(trial.params) == MergePoint.read(trial.user_attrs["record"])

    def test_best_trials_are_those_that_no_other_beats(self):
        bench = Bench()
        drive(bench.search(trials=20))
        trials = bench.study().trials
        expected = {
            t.number
            for t in trials
            if not any(
                o.values[0] >= t.values[0] and o.values[1] <= t.values[1] and o.values != t.values for o in trials
            )
        }
        assert {t.number for t in bench.study().best_trials} == expected

    @pytest.mark.parametrize(("sampler", "key"), [("nsga2", "NSGAIISampler"), ("nsga3", "NSGAIIISampler")])
    def test_generations_survive_the_copying(self, sampler, key):
        bench = Bench()
        drive(bench.search(GROUPS, sampler, 33))
        generations = [trial.system_attrs[f"{key}:generation"] for trial in bench.study().trials]
        assert generations == [n // 10 for n in range(35)]

    def test_evolution_breeds_from_generation_to_generation(self):
        """Children of one space have parameters that their parents had; random ones do not."""
        bench = Bench()
        drive(bench.search(GROUPS, "nsga2", 33))
        params = [trial.params for trial in bench.study().trials]

        def inherited(child, parents):
            return np.mean([any(child[name] == parent[name] for parent in parents) for name in child])

        assert np.mean([inherited(child, params[:10]) for child in params[10:20]]) > 0.4

    def test_the_record_says_how_it_stands(self, tmp_path):
        bench = Bench(tmp_path / "study.journal")
        search = bench.search(trials=10, min_accuracy=0.4)
        drive(search, 5)
        search.hear(search.propose(), None)
        search.propose()
        assert search.record() == {
            "strategy": "optuna",
            "study": "study",
            "storage": "study.journal",
            "sampler": "tpe",
            "objectives": ["accuracy", "sce"],
            "trials": 10,
            "min_accuracy": 0.4,
            "seed": 0,
            "complete": 5,
            "failed": 1,
            "running": 1,
        }


class TestAnotherStudy:
    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"space": Space(("linear",), low=0.0, high=2.0)}, "its space is"),
            ({"space": MIXED}, "its methods is"),
            ({"space": GROUPS}, "its space is"),
        ],
    )
    def test_a_study_of_another_space_is_refused(self, other, message):
        bench = Bench()
        drive(bench.search(), 3)
        with pytest.raises(RunDirectoryError, match="memory holds another study called 'study'") as caught:
            bench.search(**other)
        assert message in str(caught.value)

    def test_other_fixed_options_are_another_study(self):
        bench = Bench()
        drive(bench.search(Space(("ties",), {"density": 0.5})), 3)
        with pytest.raises(RunDirectoryError, match='its options is {"density": 0.5}, not {"density": 0.6}'):
            bench.search(Space(("ties",), {"density": 0.6}))

    def test_other_objectives_of_the_same_directions_are_another_study(self):
        bench = Bench()
        drive(bench.search(), 3)
        with pytest.raises(RunDirectoryError, match='its objectives is \\["accuracy", "sce"\\], not'):
            bench.search(objectives=("accuracy", "ece"))

    def test_other_directions_are_another_study(self):
        bench = Bench()
        drive(bench.search(), 3)
        with pytest.raises(RunDirectoryError, match="its objectives are to maximize and minimize, not to minimize and"):
            bench.search(objectives=("sce", "accuracy"))

    def test_another_run_is_another_study(self):
        bench = Bench()
        drive(bench.search(), 3)
        bench.run_id = "other"
        with pytest.raises(RunDirectoryError, match='its run is "run", not "other"; give another --storage'):
            bench.search()

    def test_a_study_of_another_tool_is_refused(self):
        bench = Bench()
        study = optuna.create_study(study_name="study", storage=bench.memory, directions=["maximize", "minimize"])
        study.add_trial(optuna.trial.create_trial(values=[0.0, 0.0]))
        with pytest.raises(RunDirectoryError, match="its run is null"):
            bench.search()


def test_gp_finds_more_than_chance_over_groups():
    """Both begin with the same points, so that what differs is what the sampler makes of them."""
    space = Space(("linear",), low=0.0, high=1.2, groups=("a*", "b*", "c*", "rest"))

    def answered(point):  # the frontier lies off the diagonal: groups pull different ways
        at = np.array([point.lam] * 4 if point.lam is not None else [lam for _, lam in sorted(point.groups)])
        return Outcome(
            {
                "accuracy": 0.6 - float(((at - [0.9, 0.2, 0.7, 0.4]) ** 2).mean()),
                "sce": 0.02 + 0.1 * float((at * [0.2, 1.8, 0.4, 1.6]).mean()),
            }
        )

    def volume(sampler, seed):
        points = drive(Bench().search(space, sampler, 14, seed), answer=answered)
        values = sorted(((m["accuracy"], m["sce"]) for m in (answered(p).measures for p in points)), reverse=True)
        area, least = 0.0, 0.2
        for a, e in values:
            if a > 0.3 and e < least:
                area, least = area + (a - 0.3) * (least - e), e
        return area

    assert volume("gp", 0) > 1.05 * volume("random", 0)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("is_constrained", [False, True])
def test_making_a_sampler_warns_of_nothing_and_silences_nothing_else(sampler, is_constrained):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_sampler(sampler, 0, is_constrained)
        with pytest.raises(ExperimentalWarning):
            warnings.warn("a test", ExperimentalWarning, stacklevel=1)
