"""How a run is judged over its life: what is not given stays, every look is counted, nothing heard judges."""

import json
import shutil

import numpy as np
import pytest
from conftest import figures_not_saved, run_command, write_questions

pytestmark = pytest.mark.usefixtures("unsaved_figures")


@pytest.fixture(scope="module")
def first(pair_folders, tmp_path_factory):
    """A small run that was judged by rules of its own, to be copied: its folder, and the command without `--out`."""
    root = tmp_path_factory.mktemp("first")
    questions = write_questions(root / "quiz.jsonl", 24)
    sweep = ["sweep", "--base", pair_folders[0], "--aligned", pair_folders[1], "--tasks", questions, "--no-retained"]
    judged = ["--select-by", "accuracy", "--select-fraction", "0.4", "--draws", "150"]
    with figures_not_saved():
        code, _, said = run_command(*sweep, "--out", root / "out", "--lambdas", "0,1", *judged)
    assert (code, said) == (0, "")
    return root / "out", sweep


@pytest.fixture
def swept(first, tmp_path):
    """A copy of `first` and a function that sweeps into it again."""
    made, sweep = first
    out = shutil.copytree(made, tmp_path / "out")

    def again(*more):
        code, _, said = run_command(*sweep, "--out", out, *more)
        assert (code, said) == (0, "")

    return out, again


def refused(call, *arguments):
    """The one message of a call that fails for a fault of the user's."""
    code, printed, said = call(*arguments)
    assert (code, printed) == (1, ""), said
    return said


def plan_of(out):
    return json.loads((out / "run.json").read_text())


def test_a_sweep_that_adds_points_is_judged_as_before(swept):
    out, again = swept
    before = plan_of(out)["analysis"]
    assert (before["select_by"], before["select_fraction"], before["draws"]) == ("accuracy", 0.4, 150)
    again("--lambdas", "0,0.5,1")
    assert plan_of(out)["analysis"] == before
    assert "judged_before" not in plan_of(out)
    again("--lambdas", "0,0.5,1", "--select-by", "knee")
    assert plan_of(out)["analysis"] == {**before, "select_by": "knee"}


def test_every_way_of_judging_is_remembered_and_said(call, swept):
    out, _ = swept
    first = plan_of(out)["analysis"]
    assert "judged in" not in (out / "report.md").read_text()
    assert call("report", out, "--select-fraction", "0.5")[0] == 0
    assert plan_of(out)["judged_before"] == [first]
    page = (out / "report.md").read_text()
    assert "**This run was judged in 2 ways** (they differ in `--select-fraction`;" in page
    call("report", out, "--select-by", "hypervolume")
    assert len(plan_of(out)["judged_before"]) == 2
    call("report", out, "--select-by", "hypervolume")  # no new way
    assert len(plan_of(out)["judged_before"]) == 2
    call("report", out, "--select-by", "accuracy", "--select-fraction", "0.4")  # the first one again
    assert first not in plan_of(out)["judged_before"]
    assert "judged in 3 ways" in (out / "report.md").read_text()


def test_what_a_study_heard_cannot_judge_its_points(call, pair_folders, tmp_path):
    questions = write_questions(tmp_path / "quiz.jsonl", 24)
    out = tmp_path / "out"
    sweep = ["sweep", "--base", pair_folders[0], "--aligned", pair_folders[1], "--tasks", questions, "--out", out]
    sweep += ["--no-retained", "--search", "optuna", "--trials", "1"]
    said = refused(call, *sweep, "--cross-fit")
    assert "--cross-fit needs --search grid" in said
    assert not out.exists()
    assert call(*sweep)[0] == 0
    before = (out / "run.json").read_bytes()
    for command in (["report", out], sweep):
        said = refused(call, *command, "--select-fraction", "0.3")
        assert "a search chose points by the questions of --select-fraction 0.5" in said
        assert (out / "run.json").read_bytes() == before
    assert "--cross-fit 0" in refused(call, "report", out, "--cross-fit")
    assert call("report", out, "--select-by", "knee")[0] == 0


def test_own_splits_and_folds_exclude_each_other(call, pair_folders, tmp_path):
    path = write_questions(tmp_path / "quiz.jsonl", 12)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    sides = np.resize(["select", "report"], len(lines)).tolist()
    path.write_text("".join(json.dumps(line | {"split": s}) + "\n" for line, s in zip(lines, sides, strict=True)))
    parents = ["--base", pair_folders[0], "--aligned", pair_folders[1], "--tasks", path, "--out", tmp_path / "out"]
    said = refused(call, "sweep", *parents, "--cross-fit")
    assert "task quiz: its questions say themselves which of them choose" in said
    assert not (tmp_path / "out").exists()


def test_an_evaluation_chooses_nothing(call, pair_folders, tmp_path):
    questions = write_questions(tmp_path / "quiz.jsonl", 12)
    assert call("evaluate", *pair_folders, "--tasks", questions, "--out", tmp_path / "out")[0] == 0
    before = (tmp_path / "out" / "run.json").read_bytes()
    said = refused(call, "report", tmp_path / "out", "--select-by", "knee")
    assert "--select-by is for sweeps" in said
    assert (tmp_path / "out" / "run.json").read_bytes() == before
    assert call("report", tmp_path / "out", "--draws", "200")[0] == 0
