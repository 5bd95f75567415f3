"""What a sweep finds, on synthetic runs: nothing that is tuned sees the questions that judge, nothing that is measured
the ones that choose; draws, folds, claims and certainty as a run directory gives them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from merge_calib.analysis import Analysis
from merge_calib.answers import MEAN, Division
from merge_calib.calibration.measurement import COLUMNS
from merge_calib.errors import InputError, RunDirectoryError
from merge_calib.findings import QUANTILES, Findings, findings_of
from merge_calib.frontier_record import frontier_record
from merge_calib.inference.joint import average
from merge_calib.inference.splits import Fold, cross_fit, divide
from merge_calib.merging.point import MergePoint
from merge_calib.results import WITH_INTERVALS, Results
from merge_calib.rivals import DACA, MIXED, MIXED_LOG, SELECTED, SHARED_T, Rivals, tempered
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores
from merge_calib.selection import RULES, Rule

GRID = (0.0, 0.3, 0.6, 1.0, 1.3)
TASKS = ("arc_easy", "piqa")
N = 160
FEW = Analysis(draws=200)
Tamper = Callable[[str, str, ChoiceScores], ChoiceScores]  # task, point, what was scored


def make_run(
    path: Path,
    lambdas: Sequence[float] = GRID,
    tasks: Sequence[str] = TASKS,
    n: int = N,
    subjects: Callable[[int], str] = lambda i: f"subject {i % 4}",
    given: Callable[[int], str] = lambda i: "",
    options: Mapping[str, int] | None = None,
    order: Sequence[int] | None = None,
    tamper: Tamper = lambda task, point, scores: scores,
) -> RunDirectory:
    """A run with every point measured; its scores pass through `tamper` first. order: in which questions stand."""
    run = RunDirectory(path)
    run.extend(
        {
            "format": 1,
            "identity": {"dtype": "float32", "out_dtype": "as stored"},
            "base": "models/small-base",
            "aligned": "models/small-aligned",
            "tasks": {task: {"n": n, "sha256": "0" * 64} for task in tasks},
            "confidence": ["choice"],
            "method": "linear",
            "search": "grid",
            "lambdas": list(lambdas),
            "seed": 0,
            "bins": 10,
            "limit": None,
            "device": "cpu",
        }
    )
    order = range(n) if order is None else order
    (path / "questions").mkdir()
    for task in tasks:
        lines = [{"id": f"{task}-{i}", "subject": subjects(i), "split": given(i)} for i in order]
        (path / "questions" / f"{task}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for lam in lambdas:
        point = MergePoint("linear", lam)
        for task in tasks:
            count = (options or {}).get(task, 4)
            scores = tamper(task, point.name, make_scores(task, lam, n, count))
            run.save(point, task, "choice", arranged(scores, order))
        run.record(point, {task: (["choice"], {"device": "cpu", "seconds": 0.0}) for task in tasks})
    return run


def make_scores(task: str, lam: float, n: int, options: int) -> ChoiceScores:
    """Logits with least noise at lambda .6, whose scale grows with lambda; some questions lack an option."""
    rng = np.random.default_rng([*task.encode()])
    mask = np.arange(options) < np.where(np.arange(n) % 9 == 0, max(2, options - 1), options)[:, None]
    truth = np.where(mask, 1.2 * rng.standard_normal((n, options)), -np.inf)
    share = np.exp(truth) / np.exp(truth).sum(1, keepdims=True)
    answers = (rng.random(n)[:, None] > share.cumsum(1)).sum(1).clip(0, mask.sum(1) - 1)
    noise = (0.5 + abs(lam - 0.6)) * rng.standard_normal((n, options))
    logits = (0.8 + 1.8 * lam) * (truth + 0.6 * noise)
    return ChoiceScores(tuple(f"{task}-{i}" for i in range(n)), answers, np.where(mask, logits, np.nan), mask)


def arranged(scores: ChoiceScores, order: Sequence[int]) -> ChoiceScores:
    rows = list(order)
    return ChoiceScores(
        tuple(scores.ids[i] for i in rows), scores.answers[rows], scores.logprobs[rows], scores.mask[rows]
    )


def spoiled(rows: Mapping[str, np.ndarray]) -> Tamper:
    """Other right options, and other scores of every point, for some questions of each task."""

    def tamper(task: str, point: str, scores: ChoiceScores) -> ChoiceScores:
        where = rows[task]
        logits, answers = scores.logprobs.copy(), scores.answers.copy()
        answers[where] = (answers[where] + 1) % scores.mask[where].sum(1)
        rng = np.random.default_rng([*point.encode()])
        logits[where] = 3 * logits[where] + rng.normal(scale=3, size=logits[where].shape)
        return ChoiceScores(scores.ids, answers, logits, scores.mask)

    return tamper


def fold_of(task: str, fold: int | None = None) -> Fold:
    """How the questions of `make_run` are divided: in two, or one of five folds."""
    ids, subjects = [f"{task}-{i}" for i in range(N)], [f"subject {i % 4}" for i in range(N)]
    return divide(ids, subjects, 0.5) if fold is None else cross_fit(ids, subjects, 5)[fold]


def found_in(run: RunDirectory, analysis: Analysis = FEW) -> Findings:
    return Findings(Results.of(run, analysis))


def tuned(findings: Findings, fold: int = 0) -> dict[str, object]:
    """Everything that is chosen or fitted in one fold."""
    rivals = findings.rivals("choice")
    fit = rivals.fits[fold]
    return {
        "point": fit.chosen.name,
        "candidates": rivals.candidates(fold),
        "temperatures": {(p.name, t): found for (p, t), found in fit.temperatures.items()},
        "weights": dict(fit.weights),
        "daca": dict(fit.daca),
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Findings:
    return found_in(make_run(tmp_path_factory.mktemp("plain") / "run"))


@pytest.fixture(scope="module")
def folded(tmp_path_factory) -> Findings:
    return found_in(make_run(tmp_path_factory.mktemp("folded") / "run"), Analysis(draws=200, cross_fit=5))


@pytest.mark.parametrize("by", RULES)
def test_questions_that_judge_change_nothing_that_is_tuned(tmp_path, by):
    analysis = Analysis(draws=200, rule=Rule(by=by, margin=0.02))
    judging = {task: fold_of(task).report for task in TASKS}
    before = found_in(make_run(tmp_path / "run"), analysis)
    after = found_in(make_run(tmp_path / "other", tamper=spoiled(judging)), analysis)
    assert tuned(after) == tuned(before)
    assert after.results.selection == before.results.selection
    assert after.results.left_out == before.results.left_out
    for row in before.results.rows:
        if row.split == "select":
            assert after.results.get(row.point, row.task, "choice", "select") == row.measurement
    changed = [after.joint(MEAN, "choice").values[m] != before.joint(MEAN, "choice").values[m] for m in ("nll", "sce2")]
    assert np.all(changed)  # what judges did change


def test_questions_that_choose_do_change_what_is_tuned(tmp_path, plain):
    """The negative control: spoiled on the other side, everything that is fitted moves."""
    choosing = {task: fold_of(task).select for task in TASKS}
    after = found_in(make_run(tmp_path / "run", tamper=spoiled(choosing)))
    for name in ("candidates", "temperatures", "daca"):
        assert tuned(after)[name] != tuned(plain)[name], name


def test_questions_that_choose_change_nothing_that_is_measured_of_a_point(tmp_path, plain):
    choosing = {task: fold_of(task).select for task in TASKS}
    after = found_in(make_run(tmp_path / "run", tamper=spoiled(choosing)))
    for row in plain.results.rows:
        if row.split == "report":
            same = after.results.row(row.point, row.task, "choice")
            assert same.measurement == row.measurement
            assert same.floors.keys() == row.floors.keys()
            for measure in row.floors:
                assert same.floors[measure].mean == row.floors[measure].mean
            for measure in ("accuracy", "sce2"):
                assert after.results.estimate(same, measure) == plain.results.estimate(row, measure)
    for task in (*TASKS, MEAN):
        for point in plain.rivals("choice").points:
            one, other = (f.joint(task, "choice") for f in (plain, after))
            for measure in one.values:
                assert other.value(measure, point.name) == one.value(measure, point.name)
                assert (other.draws[measure][:, 0] == one.draws[measure][:, 0]).all()


@pytest.mark.parametrize("fold", [0, 3])
def test_a_fold_is_tuned_without_the_questions_that_it_judges(tmp_path, folded, fold):
    judging = {task: fold_of(task, fold).report for task in TASKS}
    analysis = Analysis(draws=200, cross_fit=5)
    after = found_in(make_run(tmp_path / "run", tamper=spoiled(judging)), analysis)
    assert tuned(after, fold) == tuned(folded, fold)
    for other in {0, 1, 2, 3, 4} - {fold}:
        assert tuned(after, other)["temperatures"] != tuned(folded, other)["temperatures"]


def test_the_division_of_a_run_is_that_of_its_ids_and_subjects(plain):
    for task in TASKS:
        division = plain.results.answers[task, "choice"].division
        assert (division.rows("select") == fold_of(task).select).all()
        assert (division.rows("report") == fold_of(task).report).all()
        assert division.rows("all").all()


def test_the_order_of_questions_in_the_files_changes_no_choice_and_no_value(tmp_path, plain):
    order = np.random.default_rng(0).permutation(N).tolist()
    moved = found_in(make_run(tmp_path / "run", order=order))
    assert moved.results.selection == plain.results.selection
    assert tuned(moved)["weights"] == tuned(plain)["weights"]
    for row in plain.results.rows:
        same = moved.results.get(row.point, row.task, "choice", row.split)
        for column in COLUMNS:
            expected = getattr(row.measurement, column)
            # Sums of the same numbers in another order.
            assert getattr(same, column) == (None if expected is None else pytest.approx(expected, abs=1e-9)), column


def test_another_task_leaves_the_draws_of_a_task_as_they_are(tmp_path, plain):
    alone = found_in(make_run(tmp_path / "run", tasks=TASKS[:1]))
    one, both = alone.results.joint(TASKS[0], "choice"), plain.results.joint(TASKS[0], "choice")
    for measure in one.draws:
        assert (one.draws[measure] == both.draws[measure]).all()
    two = plain.results.joint(TASKS[1], "choice")
    assert not np.allclose(
        both.draws["accuracy"] - both.values["accuracy"], two.draws["accuracy"] - two.values["accuracy"]
    )


def test_draws_are_the_same_again_and_others_with_another_seed(plain):
    division = plain.results.answers[TASKS[0], "choice"].division
    rows = division.rows("report")
    assert (division.counts(rows) == division.counts(rows)).all()
    other = Division(division.task, division.ids, division.subjects, division.folds, Analysis(draws=200, seed=1))
    assert (other.counts(rows) != division.counts(rows)).any()


def test_every_forecast_is_judged_on_the_same_questions_with_the_same_draws(plain):
    for task in TASKS:
        joint = plain.joint(task, "choice")
        assert joint.n == fold_of(task).report.sum()
        chosen = plain.rivals("choice").fits[0].chosen.name
        for measure in joint.draws:
            assert (joint.draws[measure][:, joint.at(SELECTED)] == joint.draws[measure][:, joint.at(chosen)]).all()


def test_folds_together_judge_every_question_once(folded):
    rivals = folded.rivals("choice")
    assert rivals.folds == 5
    for task in TASKS:
        assert folded.joint(task, "choice").n == N
        hits = sum(int(rivals.forecasts(task, i)[SELECTED].hit.sum()) for i in range(5))
        assert folded.joint(task, "choice").value("accuracy", SELECTED) == pytest.approx(hits / N, abs=1e-12)
    assert (folded.results.judged, folded.results.chosen_on) == ("all", "all")


def test_the_mean_weighs_every_task_alike(plain):
    mean = plain.joint(MEAN, "choice")
    by_hand = average([plain.joint(task, "choice") for task in TASKS])
    for measure in mean.values:
        assert mean.values[measure] == pytest.approx(by_hand.values[measure])
    point = plain.results.points[1]
    assert mean.value("accuracy", point.name) == pytest.approx(plain.results.get(point, MEAN, "choice").accuracy)


@pytest.mark.parametrize("which", ["plain", "folded"])
def test_claims_are_about_every_task_and_their_mean_as_one_family(which, request):
    findings = request.getfixturevalue(which)
    assert {c.task for c in findings.claims} == {*TASKS, MEAN}
    tested = sorted(c.p_value for c in findings.claims if c.p_value is not None)
    assert len(findings.claims) == 18
    smallest = min(findings.claims, key=lambda c: c.p_value)
    assert smallest.p_holm == pytest.approx(min(1.0, 18 * tested[0]))
    assert findings.claim("recovers", MEAN).kind.name == "recovers"
    assert findings.claim("recovers", "sciq") is None


def test_the_selected_point_is_compared_with_every_other(plain):
    rivals = plain.rivals("choice")
    chosen = rivals.fits[0].chosen.name
    joint = plain.joint(TASKS[0], "choice")
    found = plain.claim("non_dominated", TASKS[0])
    others = [p.name for p in rivals.points if p.name != chosen]
    worst = max(
        min(1.0, 2 * min(joint.better("accuracy", SELECTED, o), joint.better("sce2", SELECTED, o))) for o in others
    )
    assert found.p_value == worst


def test_identical_points_recover_nothing_and_claim_nothing(tmp_path):
    scores = {task: make_scores(task, 1.0, N, 4) for task in TASKS}
    findings = found_in(make_run(tmp_path / "run", tamper=lambda task, point, _: scores[task]))
    assert findings.results.selection.point == "linear-lambda-1.0000"  # ties go to the lambda nearest to 1
    assert findings.claims == ()
    certainty = findings.certainty("choice")
    assert set(certainty.non_dominated.values()) == {1.0}
    assert set(certainty.dominates_aligned.values()) == {0.0}
    assert frontier_record(findings)["claims"] == []


@pytest.mark.parametrize(
    "settings",
    [
        {"subjects": lambda i: "one"},
        {"subjects": lambda i: f"subject {i}"},
        {"subjects": lambda i: "law" if i else "alone"},
        {"options": dict.fromkeys(TASKS, 2)},
        {"given": lambda i: "select" if i < 60 else "report"},
        {"lambdas": (0.0, 0.5, 1.0)},
        {"tasks": TASKS[:1]},
    ],
    ids=[
        "one subject",
        "a subject a question",
        "a subject of one",
        "two options",
        "given sides",
        "three points",
        "one task",
    ],
)
def test_a_run_of_any_shape_is_judged_and_recorded(tmp_path, settings):
    findings = found_in(make_run(tmp_path / "run", **settings))
    record = frontier_record(findings)
    json.dumps(record, allow_nan=False)
    assert all(np.isfinite([claim["p"] for claim in record["claims"]]))
    joints = [findings.joint(task, "choice") for task in findings.tasks]
    estimates = [
        joint.estimate(measure, name) for joint in joints for measure in WITH_INTERVALS for name in joint.names
    ]
    assert all(estimate.low < estimate.high for estimate in estimates)


def test_a_task_of_49_judging_questions_is_in_the_family_and_claims_nothing(tmp_path):
    findings = found_in(make_run(tmp_path / "run", given=lambda i: "report" if i < 49 else "select"))
    for claim in findings.claims:
        if claim.task != MEAN:
            assert (claim.p_holm, claim.why_not) == (None, "49 questions to judge by, 50 are needed")
    assert len(findings.claims) == 18


def test_a_side_without_questions_is_refused(tmp_path):
    with pytest.raises(InputError, match="task arc_easy"):
        found_in(make_run(tmp_path / "run", given=lambda i: "report"))
    with pytest.raises(InputError, match="--cross-fit 9"):
        found_in(make_run(tmp_path / "few", n=8), Analysis(draws=200, cross_fit=9))


def test_points_that_answered_other_questions_are_refused(tmp_path):
    def tamper(task: str, point: str, scores: ChoiceScores) -> ChoiceScores:
        ids = scores.ids if point != "linear-lambda-0.3000" else ("strange", *scores.ids[1:])
        return ChoiceScores(ids, scores.answers, scores.logprobs, scores.mask)

    with pytest.raises(RunDirectoryError, match="other questions"):
        found_in(make_run(tmp_path / "run", tamper=tamper))


def test_certainty_is_made_of_shares_and_its_curves_rise(plain):
    found = plain.certainty("choice")
    names = [p.name for p in plain.rivals("choice").points]
    assert list(found.non_dominated) == list(found.dominates_aligned) == names
    assert all(0 <= share <= 1 for share in found.non_dominated.values())
    assert found.dominates_aligned[plain.rivals("choice").aligned.name] == 0
    assert found.attained.shape == (len(QUANTILES), len(found.levels))
    assert (found.attained[:, 1:] >= found.attained[:, :-1]).all()
    assert (found.attained[0] <= found.attained[1]).all()
    assert (found.attained[1] <= found.attained[2]).all()


def test_the_detectable_difference_shrinks_with_questions_and_is_near_the_formula(tmp_path, plain):
    large = found_in(make_run(tmp_path / "run", n=4 * N))
    assert large.detectable(TASKS[0], "accuracy") < 0.75 * plain.detectable(TASKS[0], "accuracy")
    discordance, n = plain.discordance(TASKS[0]), plain.joint(TASKS[0], "choice").n
    assert plain.detectable(TASKS[0], "accuracy") == pytest.approx(2.8 * np.sqrt(discordance / n), rel=0.2)


def test_discordance_is_counted_on_the_judging_questions(plain):
    rivals = plain.rivals("choice")
    rows = fold_of(TASKS[0]).report
    chosen, aligned = (
        make_scores(TASKS[0], point.lam, N, 4).predictions.take(rows).hit
        for point in (rivals.fits[0].chosen, rivals.aligned)
    )
    assert plain.discordance(TASKS[0]) == pytest.approx(np.mean(chosen != aligned))


def test_temperatures_are_carried_from_every_task_to_every_other(plain):
    found = plain.carried("choice", plain.rivals("choice").aligned)
    assert set(found) == {(a, b) for a in TASKS for b in TASKS}
    joint = plain.joint(TASKS[0], "choice")
    own = joint.value("nll", tempered(plain.rivals("choice").aligned.name))
    assert found[TASKS[0], TASKS[0]] == pytest.approx(own)


def test_findings_of_the_same_results_are_kept(plain):
    assert findings_of(plain.results) is findings_of(plain.results)


def test_what_is_said_of_the_frontier_can_be_written(plain, folded):
    for findings in (plain, folded):
        record = frontier_record(findings)
        assert json.loads(json.dumps(record, allow_nan=False))["format"] == 1
        assert len(record["chosen_by_fold"]) == findings.rivals("choice").folds
        for claim in record["claims"]:
            assert claim["null_hypothesis"]
            assert claim["test"]
            assert claim["holds"] == (claim["p_holm"] is not None and claim["p_holm"] <= 0.05)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"select_fraction": 0.0}, "--select-fraction must lie between 0 and 1, not 0.0"),
        ({"select_fraction": 1.0}, "--select-fraction"),
        ({"cross_fit": 1}, "--cross-fit takes 2 to 100 folds, not 1"),
        ({"draws": 99}, "--draws must lie between 100 and 100,000, not 99"),
        ({"cluster": "task"}, "--cluster 'task' is unknown; allowed: none, subject"),
    ],
)
def test_an_analysis_that_cannot_be_is_refused(options, flag):
    with pytest.raises(InputError, match=flag):
        Analysis(**options)


def test_an_analysis_is_read_as_it_was_written():
    analysis = Analysis(
        select_fraction=0.3,
        rule=Rule(by="knee", margin=0.01, weight=0.2),
        cross_fit=4,
        draws=500,
        cluster="subject",
        seed=7,
    )
    assert Analysis.of(json.loads(json.dumps({"analysis": analysis.record()}))) == analysis
    assert Analysis.of({"accuracy_margin": 0.02}) == Analysis(rule=Rule(margin=0.02))
    assert Analysis.of({}) == Analysis()


def test_whole_subjects_are_drawn_where_there_are_enough_of_them(tmp_path):
    many = found_in(
        make_run(tmp_path / "many", subjects=lambda i: f"s{i % 20}"), Analysis(draws=100, cluster="subject")
    )
    few = found_in(make_run(tmp_path / "few"), Analysis(draws=100, cluster="subject"))
    for findings, clustered in ((many, True), (few, False)):
        division = findings.results.answers[TASKS[0], "choice"].division
        assert division.is_clustered == clustered
        rows = division.rows("report")
        subjects = np.array(division.subjects)[rows]
        counts = division.counts(rows)[:, subjects == subjects[0]]
        assert (counts == counts[:, :1]).all() == clustered


def test_every_rival_is_there(plain):
    rivals = plain.rivals("choice")
    assert isinstance(rivals, Rivals)
    points = [p.name for p in rivals.points]
    names = {*points, *map(tempered, points), SELECTED, tempered(SELECTED), SHARED_T, DACA, MIXED, MIXED_LOG}
    assert set(plain.joint(TASKS[0], "choice").names) == names


def test_a_model_that_folds_do_not_change_has_the_numbers_that_it_has_without_them(folded):
    """Both parents, judged by folds, are what they are on all questions: one report never says two values of them."""
    rivals = folded.rivals("choice")
    for task in (*TASKS, MEAN):
        ours, theirs = folded.joint(task, "choice"), folded.results.joint(task, "choice", "all")
        for point in (rivals.base, rivals.aligned):
            for measure in theirs.values:
                assert ours.value(measure, point.name) == theirs.value(measure, point.name)
                at, there = ours.at(point.name), theirs.at(point.name)
                np.testing.assert_array_equal(ours.draws[measure][:, at], theirs.draws[measure][:, there])


def test_what_folds_chose_is_put_together_in_the_order_of_the_questions(folded):
    rivals = folded.rivals("choice")
    found = rivals.judged(TASKS[0])[SELECTED]
    division = rivals.answers[TASKS[0]].division
    for i, fold in enumerate(division.folds):
        expected = rivals.side(rivals.fits[i].chosen, TASKS[0], i, selects=False)
        np.testing.assert_array_equal(found.take(fold.report).log_probabilities, expected.log_probabilities)
    assert len(found.hit) == len(division.ids)
