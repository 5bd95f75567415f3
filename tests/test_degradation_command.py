"""`merge-calib degradation`: from run directories of seeded answers, and from published values, to tables."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from merge_calib.calibration.measurement import measure
from merge_calib.degrading.analysis import degradation_of
from merge_calib.degrading.pairs import open_pairs
from merge_calib.errors import InputError
from merge_calib.merging.point import MergePoint
from merge_calib.points import axis_points
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores, NextTokenScores

LAMBDAS = (0.0, 0.5, 1.0, 1.25, 1.5)
SIZES = {"arc_easy": 90, "piqa": 60}


def answered(task: str, n: int, sharpness: float, noise: float = 0.0) -> ChoiceScores:
    """Answers drawn from a softmax; a sharpness of 1 is calibrated, and noise costs accuracy."""
    rng = np.random.default_rng([n, len(task)])
    logits = 1.2 * rng.standard_normal((n, 4))
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    answers = (rng.random(n)[:, None] > share.cumsum(1)).sum(1).clip(0, 3)
    seen = sharpness * (logits + noise * rng.standard_normal((n, 4)))
    return ChoiceScores(tuple(f"{task}-{i}" for i in range(n)), answers, seen, np.ones((n, 4), dtype=bool))


def plan_of(sizes: Mapping[str, int], **more: object) -> dict[str, object]:
    tasks = {
        task: {"n": n, "sha256": f"{task}{n}".ljust(64, "0"), "encoded_apart": {}, "truncated": {}}
        for task, n in sizes.items()
    }
    return {"format": 1, "identity": {}, "tasks": tasks, "confidence": ["choice"], "bins": 10, **more}


def make_sweep(
    path: Path,
    strength: float = 1.0,
    lambdas: Sequence[float] = LAMBDAS,
    sizes: Mapping[str, int] = SIZES,
    noise: float = 0.0,
    lacking: Sequence[tuple[float, str]] = (),
    **more: object,
) -> Path:
    """A run whose points are 1 + strength x lambda too sharp, with noise x (lambda - 1) beyond the aligned model."""
    run = RunDirectory(path)
    analysis = {"draws": 200, "select_fraction": 0.5}
    about = {"base": "org/base", "aligned": "org/aligned", "method": "linear", "search": "grid", "seed": 0}
    run.extend(plan_of(sizes, **{**about, "lambdas": list(lambdas), "device": "cpu", "analysis": analysis, **more}))
    for lam in lambdas:
        point = MergePoint("linear", lam)
        measured = {}
        for task, n in sizes.items():
            if (lam, task) not in lacking:
                scores = answered(task, n, 1 + strength * lam, noise * max(lam - 1, 0))
                run.save(point, task, "choice", scores)
                measured[task] = (["choice"], {"device": "cpu"})
        run.record(point, measured)
    return path


def make_evaluation(path: Path, labels: Sequence[str] = ("base", "tuned")) -> Path:
    run = RunDirectory(path)
    models = [{"label": label, "model": f"org/{label}", "position": None, "tasks": {}} for label in labels]
    run.extend(plan_of(SIZES, kind="evaluation", models=models, axis="model", analysis={"draws": 200}))
    for i, point in enumerate(axis_points(models)):
        for task, n in SIZES.items():
            run.save(point, task, "choice", answered(task, n, 1.0 + i))
        run.record(point, {task: (["choice"], {}) for task in SIZES})
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def row_of(rows: list[dict[str, str]], **wanted: str) -> dict[str, str]:
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three pairs, each aligned model more over-confident than the one before; the last one's points beyond it err."""
    root = tmp_path_factory.mktemp("runs")
    return [
        make_sweep(root / "mild", 0.5),
        make_sweep(root / "strong", 2.0),
        make_sweep(root / "wild", 6.0, noise=4.0),
    ]


@pytest.fixture(scope="module")
def three(runs: list[Path]):
    return degradation_of(open_pairs(runs))


def refusal(call, *arguments: object) -> str:
    code, printed, said = call("degradation", *arguments)
    assert code == 1, said
    assert printed == ""
    assert said.startswith("Error: ")
    assert "Traceback" not in said
    return said


# One run


def test_one_run_writes_its_changes_into_itself(runs, call):
    code, printed, _ = call("degradation", runs[0])
    out = runs[0] / "degradation"
    assert code == 0
    assert printed.startswith("mild, mean by choice: Accuracy ")
    assert str(out / "degradation.md") in printed
    names = {path.name for path in out.iterdir()}
    assert names == {"degradation.md", "changes.csv", "amplification.csv", "collapse.csv"}
    page = (out / "degradation.md").read_text(encoding="utf-8")
    assert "`org/base` | `org/aligned`" in page
    assert "The headline of Oh & Hwang 2024" in page
    assert "Which pair changed most" not in page


def test_the_numbers_are_those_of_the_scores(runs, three):
    run = RunDirectory.open(runs[1])
    sides = [measure(run.scores(MergePoint("linear", lam), "arc_easy", "choice"), "choice") for lam in (0.0, 1.0)]
    found = {row.measure: row for row in three.changes if (row.pair, row.task) == ("strong", "arc_easy")}
    for name in ("accuracy", "ece", "sce", "sce_agreement", "ece2", "sce2", "nll", "brier", "mean_confidence"):
        base, aligned = (getattr(side, name) for side in sides)
        assert found[name].change.base == pytest.approx(base), name
        assert found[name].change.difference == pytest.approx(aligned - base), name
    rate = (sides[1].nll / sides[0].nll - 1) * 100
    assert found["nll"].change.rate == pytest.approx(rate)
    assert found["nll"].estimate.rate.low < rate < found["nll"].estimate.rate.high


def test_the_mean_is_the_macro_average_and_its_rate_is_that_of_the_means(three):
    rows = {row.task: row.change for row in three.changes if (row.pair, row.measure) == ("strong", "sce")}
    base = (rows["arc_easy"].base + rows["piqa"].base) / 2
    aligned = (rows["arc_easy"].aligned + rows["piqa"].aligned) / 2
    assert rows["mean"].rate == pytest.approx((aligned / base - 1) * 100)


def test_a_calibrated_base_is_unstable_and_a_bad_one_is_not(three, tmp_path):
    calibrated = [row for row in three.changes if row.pair == "strong" and row.measure in ("ece", "sce")]
    assert any(row.change.unstable for row in calibrated)
    assert all(row.change.unstable is not None for row in calibrated)
    assert all(row.change.unstable is None for row in three.changes if row.measure in ("nll", "sce_agreement"))
    path = make_evaluation(tmp_path / "models", ("far", "a", "b", "c", "too_sharp"))
    (pair,) = open_pairs([path], "too_sharp", "far")
    found = [row for row in degradation_of([pair]).changes if row.measure in ("ece", "sce", "ece2", "sce2")]
    assert [row.change.unstable for row in found] == [False] * len(found)


def test_the_draws_are_paired(three):
    """Accuracy does not change where only the sharpness does: every draw says so."""
    row = next(row for row in three.changes if (row.pair, row.task, row.measure) == ("mild", "piqa", "accuracy"))
    assert (row.estimate.difference.low, row.estimate.difference.high) == (0, 0)
    assert (row.change.rate, row.estimate.rate.low, row.estimate.rate.high) == (0, 0, 0)


def test_the_csv_has_intervals_and_how_they_were_made(runs, call, tmp_path):
    call("degradation", runs[0], "--out", tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "changes.csv")
    kinds = {row["measure"]: row["interval"] for row in rows}
    assert (kinds["nll"], kinds["sce"], kinds["sce2"]) == ("percentile", "spread", "normal")
    row = row_of(rows, measure="nll", task="piqa")
    assert float(row["difference_low"]) < float(row["difference"]) < float(row["difference_high"])
    assert float(row["log_ratio"]) == pytest.approx(np.log(float(row["aligned"]) / float(row["base"])))
    assert (row["bins"], row["n"], row["unstable"], row["base_floor_95"]) == ("", "60", "", "")
    assert row_of(rows, measure="sce", task="piqa")["bins"] == "10"


def test_the_same_analysis_gives_the_same_bytes(runs, call, tmp_path):
    for name in ("one", "two"):
        call("degradation", *runs, "--out", tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert len(one) == 6


def test_what_is_undefined_is_empty_in_the_csv_and_never_0(tmp_path, call):
    path = make_sweep(tmp_path / "run", 1.0, lambdas=(0.0, 1.0))
    call("degradation", path)
    for row in rows_of(path / "degradation" / "changes.csv"):
        if float(row["base"]) <= 0:
            assert (row["change_rate_percent"], row["log_ratio"], row["change_rate_percent_low"]) == ("", "", "")
    squares = [r for r in rows_of(path / "degradation" / "changes.csv") if r["measure"] in ("ece2", "sce2")]
    assert any(row["change_rate_percent_low"] == "" for row in squares)


def test_a_task_that_a_parent_lacks_is_named_and_not_averaged(tmp_path):
    path = make_sweep(tmp_path / "run", lacking=[(1.0, "piqa")])
    found = degradation_of(open_pairs([path]))
    assert found.unanswered == (("run", "piqa", "choice"),)
    assert {row.task for row in found.changes} == {"arc_easy"}


def test_next_token_tasks_have_the_measures_that_they_have(tmp_path):
    run = RunDirectory(tmp_path / "run")
    facts = {"n": 80, "sha256": "1" * 64, "kind": "next-token"}
    about = {"base": "b", "aligned": "a", "method": "linear", "search": "grid", "seed": 0, "device": "cpu"}
    more = {"tasks": {"clm": facts}, "confidence": ["next-token"], "lambdas": [0.0, 1.0], "analysis": {"draws": 100}}
    run.extend({**plan_of({}), **about, **more})
    rng = np.random.default_rng(0)
    targets, truth = rng.integers(0, 9, 80), np.log(rng.uniform(0.05, 0.4, 80))
    for lam in (0.0, 1.0):
        top = np.log(rng.uniform(0.4, 0.6 + 0.3 * lam, 80))
        scores = NextTokenScores(tuple(map(str, range(80))), targets, targets * (rng.random(80) < 0.5), truth, top)
        run.save(MergePoint("linear", lam), "clm", "next-token", scores)
        run.record(MergePoint("linear", lam), {"clm": (["next-token"], {})})
    found = degradation_of(open_pairs([run.path]))
    assert {row.measure for row in found.changes} == {"accuracy", "nll", "ece", "ece2", "mean_confidence"}
    assert {row.task for row in found.changes} == {"clm"}


# Several runs


def test_pairs_are_ranked_by_their_rates_on_every_task(three):
    for ranking in three.rankings:
        if ranking.measure in ("ece", "sce", "sce_agreement", "mean_confidence", "nll"):
            assert [rank.value for rank in ranking.ranks] == [3, 2, 1], (ranking.measure, ranking.task)
            assert (ranking.ranks[0].low, ranking.ranks[0].high) == (3, 3)
    agreement = next(a for a in three.agreements if a.measure == "mean_confidence")
    assert agreement.tasks == ("arc_easy", "piqa")
    assert agreement.concordance.w == pytest.approx(1)
    assert agreement.concordance.permutation_p == pytest.approx(1 / 6)


def test_pairs_that_do_not_differ_share_their_rank_and_tasks_cannot_agree(three):
    (ranking,) = [r for r in three.rankings if (r.measure, r.task) == ("accuracy", "piqa")]
    assert [rank.value for rank in ranking.ranks] == [2, 2, 2]
    assert next(a for a in three.agreements if a.measure == "accuracy").concordance is None


def test_several_runs_write_rank_tables(runs, call, tmp_path):
    code, printed, _ = call("degradation", *runs, "--out", tmp_path / "out")
    assert code == 0
    assert printed.count("mean by choice") == 3
    ranks = rows_of(tmp_path / "out" / "ranks.csv")
    assert row_of(ranks, measure="nll", task="mean", pair="wild")["rank"] == "1.0"
    w = row_of(rows_of(tmp_path / "out" / "agreement.csv"), measure="nll")
    assert (w["tasks"], w["pairs"], w["permutation_is_exact"]) == ("2", "3", "True")
    page = (tmp_path / "out" / "degradation.md").read_text(encoding="utf-8")
    assert "Kendall's W = 1.000 over 2 tasks and 3 pairs; chi-square p = 0.1353, permutation p = 0.1667 (all" in page
    assert "| `wild` | 1 [1, 1] " in page


def test_several_runs_write_beside_where_one_stands(runs, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("degradation", runs[0], runs[1])
    assert (tmp_path / "degradation" / "ranks.csv").exists()


def test_runs_of_one_name_are_called_by_their_paths(tmp_path):
    paths = [make_sweep(tmp_path / name / "run") for name in ("a", "b")]
    assert [pair.name for pair in open_pairs(paths)] == [str(path) for path in paths]


def test_pairs_are_ranked_on_the_tasks_that_all_have_and_not_on_unlike_means(tmp_path):
    one = make_sweep(tmp_path / "one")
    two = make_sweep(tmp_path / "two", sizes={"piqa": 60, "sciq": 50})
    found = degradation_of(open_pairs([one, two]))
    assert {ranking.task for ranking in found.rankings} == {"piqa"}
    assert {row.task for row in found.changes} == {"arc_easy", "piqa", "sciq", "mean"}


def test_matched_sizes_cut_every_task_to_the_smallest(runs, tmp_path, call):
    found = degradation_of(open_pairs(runs), match_sizes=True)
    assert found.size == 60
    assert {row.n for row in found.changes if row.task != "mean"} == {60}
    whole = degradation_of(open_pairs(runs))
    assert {row.n for row in whole.changes if row.task == "arc_easy"} == {90}
    for row, other in zip(found.changes, whole.changes, strict=True):
        assert row.task != "piqa" or row.change == other.change  # the smallest stays as it is
    call("degradation", runs[0], "--match-sizes", "--out", tmp_path)
    assert "60 questions of every task take part" in (tmp_path / "degradation.md").read_text(encoding="utf-8")


def test_which_questions_are_kept_depends_on_their_ids_alone(tmp_path, runs):
    """Another pair with the same questions is cut to the same ones, so that its draws are paired with the first's."""
    one, two = (degradation_of(open_pairs([path]), match_sizes=True) for path in runs[:2])
    bases = [{(r.task, r.measure): r.change.base for r in found.changes} for found in (one, two)]
    assert bases[0] == bases[1]


# More of the alignment


def test_a_collapse_beyond_the_aligned_model_is_found_and_none_is_made_up(three):
    firsts = {
        trend.pair: trend.collapse.first
        for trend in three.trends
        if (trend.measure, trend.task) == ("accuracy", "mean")
    }
    assert firsts["mild"] is None
    assert firsts["strong"] is None
    assert firsts["wild"] in (1.25, 1.5)


def test_trends_are_given_for_all_lambdas_and_beyond_the_aligned_model(three):
    trend = next(t for t in three.trends if (t.pair, t.task, t.measure) == ("strong", "arc_easy", "mean_confidence"))
    assert trend.lambdas == LAMBDAS
    assert (trend.tau.value, trend.tau_beyond.value) == (1, 1)
    assert trend.slope.low > 0
    assert trend.slope_beyond.value < trend.slope.value  # confidence cannot rise above 1
    assert trend.collapse is None
    assert all(t.collapse is None for t in three.trends if t.measure in ("ece", "sce", "sce_agreement"))


def test_a_run_without_more_than_the_aligned_model_has_no_section_and_no_old_file_stays(tmp_path, call, runs):
    path = make_sweep(tmp_path / "run", lambdas=(0.0, 0.5, 1.0))
    out = tmp_path / "out"
    call("degradation", runs[0], "--out", out)
    assert (out / "collapse.csv").exists()
    call("degradation", path, "--out", out)
    assert {file.name for file in out.iterdir()} == {"degradation.md", "changes.csv"}
    assert "More of the alignment" not in (out / "degradation.md").read_text(encoding="utf-8")


def test_other_methods_have_a_line_of_their_own_through_the_parents(tmp_path):
    path = make_sweep(tmp_path / "run")
    run = RunDirectory.open(path)
    for lam in (0.5, 1.5):
        point = MergePoint("slerp", lam)
        for task, n in SIZES.items():
            run.save(point, task, "choice", answered(task, n, 1 + lam))
        run.record(point, {task: (["choice"], {}) for task in SIZES})
    (pair,) = open_pairs([path])
    assert {(line.method, tuple(p.lam for p in line.points)) for line in pair.amplified} == {
        ("linear", LAMBDAS),
        ("slerp", (0.0, 0.5, 1.0, 1.5)),
    }


# What is refused


def test_runs_of_other_questions_are_refused_naming_run_and_task(tmp_path, call, runs):
    other = make_sweep(tmp_path / "other", sizes={"arc_easy": 90, "piqa": 61})
    said = refusal(call, runs[0], other, "--out", tmp_path / "out")
    assert f"{other} does not share the questions of task piqa with {runs[0]}: 61 (sha256 piqa6100)" in said
    assert not (tmp_path / "out").exists()


def test_scores_of_other_questions_are_refused_whatever_run_json_says(tmp_path, runs):
    other = make_sweep(tmp_path / "other", sizes={"arc_easy": 90, "piqa": 61})
    plan = json.loads((other / "run.json").read_text())
    plan["tasks"]["piqa"] = json.loads((runs[0] / "run.json").read_text())["tasks"]["piqa"]
    (other / "run.json").write_text(json.dumps(plan))
    for path in (other / "questions").glob("*"):
        path.unlink()
    with pytest.raises(InputError, match="the scores of task piqa in .*other are of other questions than in .*mild"):
        degradation_of(open_pairs([runs[0], other]))


def test_runs_of_other_bins_or_without_a_common_task_are_refused(tmp_path, call, runs):
    other = make_sweep(tmp_path / "other", bins=15)
    assert "has 15 bins and" in refusal(call, runs[0], other)
    other = make_sweep(tmp_path / "third", sizes={"sciq": 50})
    assert "have no task in common" in refusal(call, runs[0], other)


def test_a_run_of_another_format_is_refused_naming_the_file(tmp_path, call, runs):
    other = make_sweep(tmp_path / "other")
    plan = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**plan, "format": 2}))
    said = refusal(call, runs[0], other)
    assert f"{other / 'run.json'} has format 2; this version reads format 1" in said


def test_a_run_without_a_parent_or_given_twice_is_refused(tmp_path, call, runs):
    path = make_sweep(tmp_path / "run", lambdas=(0.5, 1.0))
    assert f"{path} has not measured its base" in refusal(call, path)
    path = make_sweep(tmp_path / "other", lambdas=(0.0, 0.5))
    assert "has not measured its aligned model" in refusal(call, path)
    assert "given twice" in refusal(call, runs[0], runs[0])
    path = make_sweep(tmp_path / "third", lambdas=(0.0, 1.0), lacking=[(0.0, "piqa"), (1.0, "arc_easy")])
    assert "no task that both base and aligned model answered" in refusal(call, path)


def test_nothing_to_look_at_is_refused(call, tmp_path):
    assert "give at least one RUN_DIR, or --published FILE.csv" in refusal(call)
    assert "is no run directory" in refusal(call, tmp_path)


def test_an_evaluation_needs_to_be_told_its_pair(tmp_path, call, runs):
    path = make_evaluation(tmp_path / "models")
    said = refusal(call, path)
    assert f"{path} is an evaluation, which has no base and aligned model" in said
    assert "it has base, tuned" in said
    assert "--aligned 'x' is no measured model" in refusal(call, path, "--base", "base", "--aligned", "x")
    assert "both 'base'" in refusal(call, path, "--base", "base", "--aligned", "base")
    assert "--base and --aligned name models of an evaluation" in refusal(call, runs[0], "--base", "base")
    assert "are for runs" in refusal(call, "--published", path / "run.json", "--match-sizes")
    code, printed, _ = call("degradation", path, "--base", "base", "--aligned", "tuned")
    assert code == 0
    assert printed.startswith("models, mean by choice: ")
    assert "`base` | `tuned`" in (path / "degradation" / "degradation.md").read_text(encoding="utf-8")


# Published values

PUBLISHED = """pair,task,confidence,measure,base,aligned,decimals
A,arc,choice,ece,0.10,0.20,2
B,arc,choice,ece,0.10,0.21,2
C,arc,choice,ece,0.00,0.90,2
A,piqa,choice,ece,0.30,0.45,2
B,piqa,choice,ece,0.30,0.60,2
C,piqa,choice,ece,0.30,0.90,2
A,arc,choice,accuracy,61.3%,70.1%,
"""


def test_published_values_alone_give_changes_ranks_and_agreement(tmp_path, call):
    file = tmp_path / "published.csv"
    file.write_text(PUBLISHED, encoding="utf-8")
    code, printed, _ = call("degradation", "--published", file, "--out", tmp_path / "out")
    assert code == 0
    assert printed.startswith("7 published values read\n")
    changes = rows_of(tmp_path / "out" / "published_changes.csv")
    row = row_of(changes, pair="A", task="arc", measure="ece")
    assert float(row["change_rate_percent"]) == pytest.approx(100)
    assert float(row["change_rate_percent_high"]) == pytest.approx((0.205 / 0.095 - 1) * 100)
    assert row_of(changes, pair="C", task="arc")["change_rate_percent"] == ""
    ranks = rows_of(tmp_path / "out" / "published_ranks.csv")
    row = row_of(ranks, pair="A", task="arc")
    assert (row["rank"], row["rank_best"], row["rank_worst"]) == ("2.0", "1", "2")
    assert row_of(ranks, pair="C", task="arc")["rank"] == ""
    assert not [row for row in ranks if row["measure"] == "accuracy"]  # one pair alone has no rank
    page = (tmp_path / "out" / "degradation.md").read_text(encoding="utf-8")
    assert "| `arc` | `C` | 0 | 0.9 | – | – |" in page
    assert "Kendall's W is undefined" in page


def test_published_values_stand_beside_those_of_runs(runs, tmp_path, call):
    file = tmp_path / "published.csv"
    file.write_text(PUBLISHED, encoding="utf-8")
    code, _, _ = call("degradation", runs[0], "--published", file, "--out", tmp_path / "out")
    assert code == 0
    assert {"changes.csv", "published_changes.csv"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_published_file_that_cannot_be_read_is_named_with_its_line(tmp_path, call):
    file = tmp_path / "published.csv"
    file.write_text(PUBLISHED.replace("0.21", "x"), encoding="utf-8")
    assert f"{file}:3: aligned: 'x' is no number" in refusal(call, "--published", file, "--out", tmp_path / "out")
    assert "does not exist" in refusal(call, "--published", tmp_path / "none.csv")
