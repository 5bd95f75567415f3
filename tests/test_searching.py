"""Searches as a sweep runs them: who is asked what, what is heard, and what stands in the results."""

import csv
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from conftest import refused, write_questions
from test_sweep import plan

import merge_calib.stopping as stopping_module
from merge_calib.analysis import Analysis
from merge_calib.finalists import finalists
from merge_calib.findings import findings_of
from merge_calib.frontier import undominated
from merge_calib.inference.hopeless import Behind, Verdict
from merge_calib.merging.point import MergePoint
from merge_calib.plan import SweepPlan
from merge_calib.plan_record import plan_of, plan_record
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.search_section import search_section, search_text
from merge_calib.results import Results
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores, in_order
from merge_calib.search.grid import PARENTS
from merge_calib.search.objectives import HIGHER, LOWER, losses
from merge_calib.search.strategy import Outcome
from merge_calib.selection import Rule
from merge_calib.sweep import sweep

FAST = {"analysis": Analysis(draws=100, rule=Rule(margin=1.0)), "retained": False}
N = 40


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def quiz(tmp_path_factory) -> Path:
    return write_questions(tmp_path_factory.mktemp("quiz") / "quiz.jsonl", N, seed=4)


@pytest.fixture(scope="module")
def studied(pair_folders, quiz, tmp_path_factory) -> Results:
    """A study over lambdas by groups and two methods."""
    out = tmp_path_factory.mktemp("studied") / "out"
    options = {"search": "optuna", "trials": 7, "sampler": "tpe", "groups": "layers:1,rest", "method": "linear,ties"}
    return sweep(plan(pair_folders, quiz, out, confidence="choice,continuation-min", **options, **FAST))


@pytest.fixture(scope="module")
def adapted(pair_folders, quiz, tmp_path_factory) -> Results:
    """An adaptive search that settles, for it is content with little."""
    out = tmp_path_factory.mktemp("adapted") / "out"
    return sweep(plan(pair_folders, quiz, out, search="adaptive", tolerance=0.4, **FAST))


@pytest.fixture(scope="module")
def gridded(pair_folders, quiz, tmp_path_factory) -> Results:
    """The points of `adapted`, as a grid."""
    out = tmp_path_factory.mktemp("gridded") / "out"
    return sweep(plan(pair_folders, quiz, out, lambdas="0,0.39,1,1.5", **FAST))


class TestStudy:
    def test_points_are_asked_the_choosing_questions_and_finalists_the_others(self, studied):
        names = {row["point"] for row in rows(studied.run.path)}
        assert len(names) == 9
        explored = {row.point.name for row in studied.explored}
        whole = {point.name for point in studied.points}
        assert explored | whole == names
        assert not explored & whole
        assert {PARENTS[0].name, PARENTS[1].name, studied.selection.point} <= whole
        for row in rows(studied.run.path):
            if row["point"] in explored:
                assert (row["split"], row["n"], row["source"]) == ("select", str(N // 2), "measured")
        for name in explored:
            files = sorted(path.name for path in (studied.run.path / "scores" / name).iterdir())
            assert files == ["quiz.choice.select.npz", "quiz.continuation-min.select.npz"]

    def test_a_finalist_answers_as_if_it_had_been_asked_at_once(self, studied, gridded):
        for point in PARENTS:
            ours, theirs = (r.run.scores(point, "quiz", "choice") for r in (studied, gridded))
            assert ours.ids == theirs.ids
            np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)

    def test_every_trial_is_a_point_and_none_is_left_running(self, studied):
        record = studied.run.search
        assert (record["complete"], record["failed"], record["running"]) == (9, 0, 0)
        points = [point for point in studied.run.points() if isinstance(point, MergePoint)]
        assert {point.method for point in points} == {"linear", "ties"}
        assert any(point.lam is None for point in points)

    def test_nothing_is_claimed_of_points_that_were_not_asked_the_judging_questions(self, studied):
        frontier = json.loads((studied.run.path / "frontier.json").read_text())
        listed = {point["point"] for point in frontier["points"]["choice"]}
        assert listed == {point.name for point in studied.points}
        assert not listed & {row.point.name for row in studied.explored}

    def test_the_page_says_how_points_were_found(self, studied):
        text = search_section(studied, Landmarks.of(studied))
        assert "9 trials (both parents, some evenly spread lambdas, then by the sampler `tpe`)" in text
        assert f"{len({r.point for r in studied.explored})} other points" in text
        assert "points of a study, tpe" in search_text(studied)

    def test_asking_again_measures_nothing(self, studied):
        stamps = {path: path.stat().st_mtime_ns for path in studied.run.path.rglob("*.npz")}
        again = plan_of(studied.run.plan, studied.run.path, torch.device("cpu"), None)
        before = (studied.run.path / "results.csv").read_bytes()
        sweep(replace(again, workers=1))
        assert {path: path.stat().st_mtime_ns for path in studied.run.path.rglob("*.npz")} == stamps
        assert (studied.run.path / "results.csv").read_bytes() == before

    def test_it_hears_nothing_of_the_judging_questions(self, pair_folders, quiz, tmp_path):
        """Other right answers to the questions that judge leave every proposal as it was."""
        found = {}
        for name in ("honest", "spoilt"):
            questions = tmp_path / name / "quiz.jsonl"
            questions.parent.mkdir()
            lines = [json.loads(line) for line in quiz.read_text().splitlines()]
            for i, line in enumerate(lines):
                line["split"] = "select" if i % 2 else "report"
                if name == "spoilt" and line["split"] == "report":
                    line["answer"] = (line["answer"] + 1) % len(line["choices"])
            questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
            out = tmp_path / name / "out"
            sweep(plan(pair_folders, questions, out, search="optuna", trials=12, sampler="tpe", **FAST))
            found[name] = sorted(path.name for path in (out / "points").glob("*.json"))
        assert found["honest"] == found["spoilt"]
        assert len(found["honest"]) == 14


def test_no_two_rows_have_one_key_after_several_searches_in_one_run(pair_folders, quiz, tmp_path):
    out = tmp_path / "out"
    more = write_questions(tmp_path / "more.jsonl", 24, seed=6)
    both = replace(plan(pair_folders, quiz, out, **FAST), tasks=(str(quiz), str(more)))
    sweep(plan(pair_folders, quiz, out, lambdas="0,0.75,1", **FAST))
    results = sweep(replace(both, search="optuna", trials=6, sampler="random", lambdas=(0.0, 1.5)))
    half = {(row.task, row.split) for row in results.explored if row.point.lam == 0.75}
    assert half <= {("more", "select"), ("mean", "select")}
    results = sweep(replace(both, search="adaptive", tolerance=0.4, lambdas=(0.0, 1.5)))
    assert results.predicted
    keys = [(row["point"], row["task"], row["confidence"], row["split"]) for row in rows(out)]
    assert len(set(keys)) == len(keys)


class TestEarlyStopping:
    def test_chunks_may_lack_the_questions_that_have_most_options(self, pair_folders, tmp_path):
        questions = write_questions(tmp_path / "many.jsonl", 420, seed=1)
        lines = [json.loads(line) for line in questions.read_text().splitlines()]
        lines[0]["choices"] = ["a", "b", "c", "d", "e"]
        questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
        options = {"search": "optuna", "trials": 2, "sampler": "random", "early_stopping": 0.5}
        results = sweep(plan(pair_folders, questions, tmp_path / "out", **options, **FAST))
        assert results.run.search["complete"] == 4

    def test_recorded_answers_are_not_asked_again_for_another_task(self, stopped, tmp_path, count_scoring):
        """Nor does a stop by some questions hold for others."""
        asked, results, _ = stopped
        kept = {path: path.stat().st_mtime_ns for path in results.run.path.rglob("*.npz")}
        count_scoring.clear()
        other = write_questions(tmp_path / "other.jsonl", 60, seed=2)
        again = sweep(replace(asked, tasks=(*asked.tasks, str(other)), early_stopping=None))
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        assert not again.stopped
        assert again.run.search["complete"] == 8
        of_many = [task for task, _ in count_scoring].count("many")
        assert of_many < [task for task, _ in count_scoring].count("other")

    @pytest.fixture
    def stopped(self, pair_folders, tmp_path, monkeypatch):
        """A study in which every point past the fourth that is asked is found hopeless at the first look."""
        questions = write_questions(tmp_path / "many.jsonl", 420, seed=1)
        looked = []

        def verdict(partial, incumbents, *arguments, **options):
            looked.append((sum(len(p.hit) for p in partial.values()), options["chosen_from"]))
            if len(incumbents) and options["chosen_from"] >= 4:
                name = next(iter(incumbents))
                return Verdict(name, (Behind("accuracy", 0.1, 0.01, 0.05), Behind("sce2", 0.1, 0.01, 0.05)), 105)
            return None

        monkeypatch.setattr(stopping_module, "hopeless", verdict)
        options = {"search": "optuna", "trials": 6, "sampler": "random", "early_stopping": 0.9}
        asked = plan(pair_folders, questions, tmp_path / "out", **options, **FAST)
        return asked, sweep(asked), looked

    def test_a_hopeless_point_is_asked_no_more_and_stands_in_no_table(self, stopped):
        _, results, looked = stopped
        assert looked[0][0] == 105  # a half of the 210 that choose; an eighth and a quarter are too few
        assert len(results.stopped) == 4
        for name, reason in results.stopped.items():
            assert reason["asked"] == 105
            assert name not in (results.run.path / "results.csv").read_text()
            files = list((results.run.path / "scores" / name).iterdir())
            assert [path.name for path in files] == ["many.choice.some.npz"]
        frontier = json.loads((results.run.path / "frontier.json").read_text())
        assert {entry["point"] for entry in frontier["stopped"]} == set(results.stopped)
        assert "4 points were stopped early" in search_section(results, Landmarks.of(results))

    def test_the_study_is_told_estimates_and_it_is_not_asked_again(self, stopped):
        asked, results, looked = stopped
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(results.run.path / "study.journal"))
        )
        [name] = optuna.study.get_all_study_names(storage)
        trials = optuna.load_study(study_name=name, storage=storage).trials
        assert [trial.user_attrs["stopped"] for trial in trials] == [False] * 4 + [True] * 4
        assert all(trial.state.name == "COMPLETE" for trial in trials)
        count = len(looked)
        sweep(asked)
        assert len(looked) == count


class TestAdaptive:
    def test_measured_rows_are_those_of_a_grid(self, adapted, gridded):
        ours, theirs = ({(r.point, r.task, r.split): r.measurement for r in x.rows} for x in (adapted, gridded))
        shared = ours.keys() & theirs.keys()
        assert len({point for point, _, _ in shared}) == 4
        assert all(ours[key] == theirs[key] for key in shared)

    def test_predicted_rows_say_so_and_have_no_more_than_is_predicted(self, adapted):
        found = [row for row in rows(adapted.run.path) if row["source"] == "predicted"]
        measured = {row["point"] for row in rows(adapted.run.path) if row["source"] == "measured"}
        assert {row["source"] for row in rows(adapted.run.path)} == {"measured", "predicted"}
        assert not measured & {row["point"] for row in found}
        assert len({row["point"] for row in found}) == 101 - len(measured) + 1  # 1 is none of 0, .015, .03 ...
        assert {row["split"] for row in found} == {"select", "report", "all"}
        for row in found:
            filled = {name for name, value in row.items() if value}
            told = {"point", "method", "lambda", "task", "confidence", "split", "source"}
            assert filled == told | {"n", "accuracy", "ece", "sce", "nll"}

    def test_nothing_rests_on_predictions(self, adapted):
        names = {p.point.name for p in adapted.predicted}
        assert names
        assert not names & {c.name for c in adapted.candidates("choice")}
        assert adapted.selection.point not in names
        assert not names & set(findings_of(adapted).joint("quiz", "choice").names)

    def test_a_prediction_at_a_node_would_be_what_was_measured(self, adapted):
        """Near a node it is near to it: the curve goes through what was measured."""
        nodes = adapted.run.search["nodes"]
        by_lam = {p.lam: p for p in adapted.predicted if (p.task, p.split) == ("mean", "all")}
        for row in adapted.line("mean", "choice", "all"):
            near = row.point.lam + 0.015
            if row.point.lam in nodes and near in by_lam:
                assert by_lam[near].nll == pytest.approx(row.measurement.nll, abs=0.1)

    def test_the_page_says_what_was_measured_and_how_sure_that_is(self, adapted):
        text = search_section(adapted, Landmarks.of(adapted))
        assert f"{len(adapted.run.search['nodes'])} points were measured to predict" in text
        assert "Estimated worst error" in text
        assert "measured, the others predicted to" in search_text(adapted)

    def test_one_that_does_not_settle_measures_the_grid_and_predicts_nothing(self, pair_folders, quiz, tmp_path):
        out = tmp_path / "out"
        options = {"search": "adaptive", "tolerance": 1e-6, "budget": 6, "lambdas": "0:1:0.25"}
        results = sweep(plan(pair_folders, quiz, out, **options, **FAST))
        assert results.predicted == ()
        assert {0.0, 0.25, 0.5, 0.75, 1.0} <= {point.lam for point in results.points}
        assert "did not settle" in search_section(results, Landmarks.of(results))
        assert {row["source"] for row in rows(out)} == {"measured"}

    def test_a_grid_has_no_such_section(self, gridded):
        assert search_section(gridded, Landmarks.of(gridded)) == search_text(gridded) == ""


def outcome(accuracy, sce, **more):
    return Outcome({"accuracy": accuracy, "sce": sce}, **more)


class TestFinalists:
    def test_they_are_the_parents_the_frontier_and_what_the_rule_selects(self):
        points = {lam: MergePoint("linear", lam) for lam in (0.2, 0.4, 0.6, 0.8)}
        heard = {
            PARENTS[0]: outcome(0.5, 0.01),
            PARENTS[1]: outcome(0.6, 0.2),
            points[0.2]: outcome(0.52, 0.05),
            points[0.4]: outcome(0.51, 0.06),  # dominated by .2
            points[0.6]: outcome(0.65, 0.1),
            points[0.8]: None,
        }
        assert finalists(heard, ("accuracy", "sce"), Rule()) == (*PARENTS, points[0.2], points[0.6])

    def test_the_best_single_lambda_stands_beside_lambdas_by_groups(self):
        groups = MergePoint("linear", None, groups=(("mlp", 0.2), ("rest", 0.7)))
        single = MergePoint("linear", 0.5)
        heard = {PARENTS[0]: outcome(0.5, 0.1), PARENTS[1]: outcome(0.6, 0.2), single: outcome(0.6, 0.1)}
        heard[groups] = outcome(0.7, 0.05)
        assert finalists(heard, ("accuracy", "sce"), Rule()) == (*PARENTS, single, groups)

    def test_points_of_which_an_objective_is_unknown_are_none(self):
        unknown, known = MergePoint("linear", 0.3), MergePoint("linear", 0.6)
        heard = {PARENTS[0]: outcome(0.5, 0.1), PARENTS[1]: outcome(0.6, 0.2)}
        heard[unknown] = Outcome({"accuracy": 0.6, "sce": 0.1, "auroc": None})
        heard[known] = Outcome({"accuracy": 0.6, "sce": 0.15, "auroc": 0.7})
        assert known in finalists(heard, ("accuracy", "auroc"), Rule())

    def test_points_that_were_stopped_are_none(self):
        point = MergePoint("linear", 0.5)
        heard = {PARENTS[0]: outcome(0.5, 0.1), PARENTS[1]: outcome(0.5, 0.2), point: outcome(0.9, 0.0, stopped=True)}
        assert finalists(heard, ("accuracy", "sce"), Rule()) == PARENTS

    def test_those_below_the_least_accuracy_are_none_unless_all_are(self):
        low, high = MergePoint("linear", 0.2), MergePoint("linear", 0.6)
        heard = {PARENTS[0]: outcome(0.5, 0.1), PARENTS[1]: outcome(0.6, 0.2), low: outcome(0.5, 0.0)}
        heard[high] = outcome(0.7, 0.1)
        assert low in finalists(heard, ("accuracy", "sce"), Rule())
        assert low not in finalists(heard, ("accuracy", "sce"), Rule(), min_accuracy=0.6)
        assert low in finalists(heard, ("accuracy", "sce"), Rule(), min_accuracy=0.99)

    def test_the_frontier_of_many_objectives_is_that_of_a_slow_loop(self):
        values = np.random.default_rng(0).integers(4, size=(60, 3)).astype(float)
        slow = [not any(all(b <= a) and any(b < a) for b in values) for a in values]
        assert undominated(values).tolist() == slow

    def test_what_is_to_be_raised_counts_against(self):
        measures = dict.fromkeys((*HIGHER, *LOWER), 0.25)
        assert losses(measures, ["accuracy", "sce", "auroc"]) == [-0.25, 0.25, -0.25]


def test_parts_of_scores_are_put_together_in_the_order_asked_for():
    mask = np.array([[True, True, True], [True, True, False], [True, True, True], [True, True, False]])
    logprobs = np.where(mask, np.arange(12.0).reshape(4, 3), np.nan)
    whole = ChoiceScores(("a", "b", "c", "d"), np.array([0, 1, 2, 1]), logprobs, mask)
    rows = np.array([False, True, False, True])
    narrow = whole.take(rows)
    cut = ChoiceScores(narrow.ids, narrow.answers, narrow.logprobs[:, :2], narrow.mask[:, :2])
    joined = in_order([cut, whole.take(~rows)], whole.ids)
    assert joined.ids == whole.ids
    np.testing.assert_array_equal(joined.logprobs, whole.logprobs)
    np.testing.assert_array_equal(joined.mask, whole.mask)
    np.testing.assert_array_equal(joined.answers, whole.answers)


def test_a_plan_is_kept_so_that_a_worker_has_the_same(pair_folders, quiz, tmp_path, monkeypatch):
    monkeypatch.chdir(quiz.parent)
    Path("aligned").mkdir(exist_ok=True)  # a folder called like a value of --vocab is not taken for one
    asked = plan(
        pair_folders,
        quiz.name,
        tmp_path / "out",
        search="optuna",
        method="ties,dare_linear",
        ranges={"density": (0.1, 0.9)},
        options={"drop_seed": 3},
        objectives=("accuracy", "nll", "ece"),
        min_accuracy=0.4,
        early_stopping=0.9,
        storage="postgresql://me:secret@host/db",
        out_dtype=torch.bfloat16,
        analysis=Analysis(rule=Rule("knee"), draws=500),
    )
    record = json.loads(json.dumps(plan_record(asked)))
    assert "secret" not in json.dumps(record)
    assert record["tasks"] == [str(quiz)]
    theirs = plan_of({"plan": record}, asked.out, asked.device, "postgresql://me:secret@host/db")
    different = {f.name for f in fields(SweepPlan) if getattr(asked, f.name) != getattr(theirs, f.name)}
    assert different == {"workers", "tasks"}


BAD = [
    (["--search", "optuna", "--trials", "0"], "--trials must be at least 1"),
    (["--search", "optuna", "--objectives", "accuracy,speed"], "--objectives 'speed' is unknown; allowed: accuracy"),
    (["--search", "optuna", "--objectives", "sce"], "--objectives needs at least two"),
    (["--search", "optuna", "--objectives", "sce,sce"], "names one measure twice"),
    (["--search", "optuna", "--sampler", "magic"], "--sampler magic is unknown; allowed: gp"),
    (["--search", "optuna", "--storage", "sqlite:///x.db", "--workers", "2"], "SQLite is for one worker"),
    (["--search", "optuna", "--storage", "oracle://a/b"], "--storage"),
    (["--search", "optuna", "--early-stopping", "soon"], "--early-stopping must be off or a confidence"),
    (["--search", "optuna", "--early-stopping", "0.2"], "--early-stopping must be at least .5"),
    (["--search", "optuna", "--min-accuracy", "55"], "--min-accuracy must lie between 0 and 1"),
    (["--search", "optuna", "--density", "0.1:0.9"], "--density"),
    (["--search", "optuna", "--method", "ties", "--density", "0.9:0.1"], "--density"),
    (["--search", "optuna", "--method", "ties,magic"], "--method magic is unknown"),
    (["--search", "optuna", "--groups", "no_such_thing,rest"], "--groups 'no_such_thing' is unknown"),
    (["--search", "optuna", "--lambdas", "mlp=0:1:0.5;rest=1"], "GROUP=GRID is for --search grid"),
    (["--search", "adaptive", "--groups", "mlp,rest"], "--search adaptive searches one lambda"),
    (["--search", "adaptive", "--lambdas", "0.5"], "--search adaptive needs an interval"),
    (["--search", "adaptive", "--tolerance", "0"], "--tolerance must lie between 0 and 1"),
    (["--search", "adaptive", "--budget", "2"], "--budget must be at least"),
    (["--search", "adaptive", "--cross-fit"], "--cross-fit needs --search grid"),
    (["--search", "adaptive", "--method", "linear,ties"], "--method linear,ties"),
    (["--method", "linear,ties"], "--method linear,ties"),
    (["--method", "ties", "--density", "0.1:0.9"], "--density 0.1:0.9: a range is for --search optuna"),
    (["--storage", "x.journal"], "--storage is for --search optuna"),
    (["--objectives", "accuracy,nll"], "--objectives is for --search optuna"),
    (["--early-stopping", "0.9"], "--early-stopping is for --search optuna"),
    (["--trials", "9"], "--trials is for --search optuna, not for --search grid"),
    (["--search", "adaptive", "--sampler", "tpe"], "--sampler is for --search optuna, not for --search adaptive"),
    (["--search", "optuna", "--budget", "9"], "--budget is for --search adaptive"),
    (["--search", "optuna", "--storage", "sqlite:///:memory:"], "names no file"),
    (["--search", "optuna", "--storage", ""], "--storage '' is no file"),
    (["--search", "optuna", "--storage", "postgresql://u:se@cret@nohost.invalid/db"], "written as %XX"),
    (["--search", "optuna", "--method", "linear,"], "has an empty name"),
    (["--workers", "0"], "--workers must be at least 1"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    call, pair_folders, questions, tmp_path, flags, message
):
    parents = ["--base", pair_folders[0], "--aligned", pair_folders[1], "--tasks", questions]
    assert message in refused(call, tmp_path, "sweep", *parents, *flags)


def test_a_storage_that_cannot_be_reached_is_named_without_its_password(call, pair_folders, questions, tmp_path):
    parents = ["--base", pair_folders[0], "--aligned", pair_folders[1], "--tasks", questions]
    url = "postgresql://me:secret@127.0.0.1:1/none"
    said = refused(call, tmp_path, "sweep", *parents, "--search", "optuna", "--storage", url)
    assert "postgresql+psycopg://me:***@127.0.0.1:1/none" in said
    assert "secret" not in said


def test_a_storage_that_holds_another_runs_study_is_refused(call, pair_folders, quiz, tmp_path):
    journal = tmp_path / "shared.journal"
    arguments = ["sweep", "--base", pair_folders[0], "--aligned", pair_folders[1], "--tasks", quiz, "--no-retained"]
    arguments += ["--search", "optuna", "--trials", "1", "--draws", "100", "--storage", journal]
    assert call(*arguments, "--out", tmp_path / "one")[0] == 0
    code, _, said = call(*arguments, "--out", tmp_path / "two")
    assert code == 1
    assert "holds another study" in said
    assert not (tmp_path / "two").exists()
    assert RunDirectory.open(tmp_path / "one").search["complete"] == 3
