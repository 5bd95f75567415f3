"""The report of synthetic evaluations, and what letters, texts and failed points add to that of a sweep; no model."""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import figures_not_saved
from pypdf import PdfReader
from test_report import make_results, make_scores, number, rows_of

from merge_calib.answers import MEAN
from merge_calib.calibration.metrics import mean_confidence, reliability_bins
from merge_calib.findings import findings_of
from merge_calib.frontier_record import write_frontier
from merge_calib.merging.point import MergePoint
from merge_calib.points import axis_points
from merge_calib.report import write_report
from merge_calib.report.axis import Axis, place_on
from merge_calib.report.axis_figure import draw_axis
from merge_calib.report.axis_lines import MOST_COLOURED, look
from merge_calib.report.evaluation_page import evaluation_page
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.page import page
from merge_calib.report.panels import Layout
from merge_calib.report.pooling import pooled
from merge_calib.report.reliability_figure import draw_reliability
from merge_calib.report.shown import Shown, shown_points, spread
from merge_calib.report.summary import summary
from merge_calib.report.tables import write_tables
from merge_calib.report.text import short_text
from merge_calib.results import Results
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores, NextTokenScores

pytestmark = pytest.mark.usefixtures("unsaved_figures")  # but for the pictures of `eight`, which are all made
STEPS = (256, 512, 1000, 2000, 4000, 16000, 64000, 143000)


def texts(i: int, n: int) -> NextTokenScores:
    """A model that is right about as often as it is confident."""
    rng = np.random.default_rng(i)
    confidence = rng.beta(1 + 0.3 * i, 2, n)
    hit = rng.random(n) < confidence
    target = np.arange(n)
    truth = np.where(hit, confidence, (1 - confidence) * 0.3)
    return NextTokenScores(
        tuple(f"t{k}" for k in range(n)), target, np.where(hit, target, n), np.log(truth), np.log(confidence)
    )


def letters(lam: float, n: int, seed: int, mass: float) -> ChoiceScores:
    """`make_scores` as log-probabilities whose letters have a total of `mass`."""
    scores = make_scores(lam, n, seed, 4)
    return ChoiceScores(scores.ids, scores.answers, scores.predictions.log_probabilities + np.log(mass), scores.mask)


def make_evaluation(
    path: Path,
    labels: Sequence[str],
    tasks: dict[str, str],
    positions: Sequence[float] | None = None,
    n: int = 100,
    axis: str = "model",
) -> Results:
    """A run directory with every model measured on tasks of the kinds `choice` and `next-token`."""
    models = [
        {"label": label, "model": f"org/{label}", "position": positions[i] if positions else None, "tasks": {}}
        for i, label in enumerate(labels)
    ]
    run = RunDirectory(path)
    run.extend(
        {
            "format": 1,
            "kind": "evaluation",
            "identity": {"source": "models", "apply_chat_template": "none", "num_fewshot": 0, "dtype": "float32"},
            "axis": axis,
            "models": models,
            "tasks": {task: {"n": n, "sha256": "0", "kind": kind} for task, kind in tasks.items()},
            "confidence": ["choice"],
            "bins": 10,
            "analysis": {"draws": 200},
            "device": "cpu",
            "limit": 7,
            "limit_seed": 3,
        }
    )
    for point in axis_points(models):
        for j, (task, kind) in enumerate(tasks.items()):
            method = "next-token" if kind == "next-token" else "choice"
            i = point.index
            scores = texts(i, n) if method == "next-token" else letters(i / len(labels), n, j, 0.2 + 0.05 * i)
            run.save(point, task, method, scores)
            run.record(point, {task: ([method], {"attention": ("rows", "blocks")[i % 2], "batch_tokens": 1024 + i})})
    return Results.of(run)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Results:
    tasks = {"arc_easy": "choice", "mmlu": "choice", "clm": "next-token"}
    labels = [f"step{step}" for step in STEPS]
    results = make_evaluation(tmp_path_factory.mktemp("eight"), labels, tasks, STEPS, axis="training steps")
    results.write()
    write_report(results)
    return results


FIGURES = [f"{kind}-{method}" for kind in ("axis", "reliability", "confidence") for method in ("choice", "next-token")]


def test_every_file_of_an_evaluation_is_there(eight: Results) -> None:
    folder = eight.run.path
    assert {path.stem for path in (folder / "figures").iterdir()} == set(FIGURES)
    assert {path.name for path in (folder / "tables").iterdir()} == {
        *("models.csv", "models.md", "letters.csv", "letters.md", "more_measures.csv", "more_measures.md")
    }
    for name in FIGURES:
        assert float(PdfReader(folder / f"figures/{name}.pdf").pages[0].mediabox.width) == pytest.approx(72 * 6.75)
    assert not (folder / "frontier.json").exists()


@pytest.mark.parametrize("method", ["choice", "next-token"])
def test_numbers_of_the_axis_figure_are_those_of_results_csv(eight: Results, method: str) -> None:
    drawn = rows_of(eight.run.path / f"figures/axis-{method}.csv")
    found = {
        (row["task"], row["label"]): row
        for row in rows_of(eight.run.path / "results.csv")
        if row["confidence"] == method
    }
    assert len(drawn) == len(found)
    for row in drawn:
        same = found[row["task"], row["label"]]
        assert {key: row[key] for key in row if key in same} == {key: same[key] for key in row if key in same}
        bands = {key for key in row if "_band_" in key}
        assert set(row) - bands <= set(same)
        assert all(
            (row[key] != "") == (row["task"] == MEAN and method == "choice") for key in bands & {"sce2_band_low"}
        )
        assert (row["nll_band_low"] != "") == (row["task"] == MEAN)


@pytest.mark.parametrize("method", ["choice", "next-token"])
def test_numbers_of_the_histograms_are_the_pooled_bins(eight: Results, method: str) -> None:
    rows = rows_of(eight.run.path / f"figures/confidence-{method}.csv")
    assert [row["label"] for row in rows[::10]] == [f"step{step}" for step in STEPS]
    p = pooled(eight, eight.points[3], method)
    bins = reliability_bins(p, 10)
    mine = rows[30:40]
    assert [int(row["right"]) + int(row["wrong"]) for row in mine] == bins.counts.tolist()
    edges = np.linspace(0, 1, 11)
    inside = [(p.confidence > low) & (p.confidence <= high) for low, high in pairwise(edges)]
    assert [int(row["right"]) for row in mine] == [int(p.hit[each].sum()) for each in inside]
    assert {float(row["mean_confidence"]) for row in mine} == {mean_confidence(p)}
    reliability = rows_of(eight.run.path / f"figures/reliability-{method}.csv")[30:40]
    assert [int(row["n"]) for row in reliability] == bins.counts.tolist()


def test_letters_are_counted_against_the_right_answers(eight: Results) -> None:
    rows = [row for row in rows_of(eight.run.path / "tables/letters.csv") if row["task"] == "mmlu"]
    scores = eight.run.scores(eight.points[0], "mmlu", "choice")
    assert isinstance(scores, ChoiceScores)
    for k, row in enumerate(rows[:4]):
        assert row["letter"] == "ABCD"[k]
        assert float(row["right"]) == (scores.answers == k).mean()
        assert float(row["predicted"]) == (scores.logprobs.argmax(1) == k).mean()
    table = (eight.run.path / "tables/letters.md").read_text()
    bias = sum(abs(float(row["right"]) - float(row["predicted"])) for row in rows[:4]) / 2
    assert f"| `step256` | 20.00% | {100 * bias:.2f}% |" in table
    assert "Format preference is not answer uncertainty" in (eight.run.path / "report.md").read_text()


def test_the_page_tells_what_ran_and_how(eight: Results) -> None:
    text = (eight.run.path / "report.md").read_text()
    assert text.startswith("# Calibration along training steps: 8 models\n")
    assert "`clm` (100 texts)" in text
    assert "packed rows with `blocks` attention, each token read once and padded `rows`; up to 1,024 to 1,031" in text
    assert "Only 7 questions of each task were asked, drawn at random (`--limit`, `--limit-seed 3`)." in text
    assert "(`choice` 2 tasks, `next-token` 1 task)" in text
    assert "- asked with no worked examples, no chat template\n" in text
    ends = r"(\S+)% \[[\d., ]+\] \(`step\d+`\)"
    accuracy = re.search(rf"By `next-token`: accuracy lowest {ends}, highest {ends};", text)
    assert accuracy is not None
    assert float(accuracy[1]) < float(accuracy[2])
    for line in (line for line in text.splitlines() if "](" in line):
        for link in line.split("](")[1:]:
            assert (eight.run.path / link.split(")")[0]).exists(), link


def test_the_axis_is_logarithmic_where_positions_span_much(tmp_path: Path) -> None:
    def axis(name: str, positions: Sequence[float] | None) -> Axis:
        labels = [f"m{i}" for i in range(3)]
        return Axis.of(make_evaluation(tmp_path / name, labels, {"quiz": "choice"}, positions, 5, "epochs"))

    assert axis("wide", (1.0, 5.0, 30.0)).is_log
    assert not axis("narrow", (1.0, 5.0, 29.0)).is_log
    assert not axis("zero", (0.0, 5.0, 500.0)).is_log
    named = axis("named", None)
    assert (named.heading, named.labels) == ("epochs", ("m0", "m1", "m2"))


def test_points_are_drawn_at_lambda_at_their_position_or_in_order(eight: Results, tmp_path: Path) -> None:
    assert [place_on(Axis.of(eight), point) for point in eight.points] == list(STEPS)
    named = make_evaluation(tmp_path, ["b", "a"], {"quiz": "choice"}, n=5)
    assert [place_on(Axis.of(named), point) for point in named.points] == [0, 1]
    assert place_on(Axis("λ"), MergePoint("linear", 0.4)) == 0.4


def test_many_models_get_twelve_panels_with_both_ends(tmp_path: Path) -> None:
    labels = [f"organisation-model-with-a-long-name-epoch-{i}" for i in range(17)]
    results = make_evaluation(tmp_path, labels, {"quiz": "choice"}, n=30)
    shown = shown_points(results, Landmarks.of(results), "choice")
    assert len(shown) == len({each.point for each in shown}) == 12
    assert (shown[0].role, shown[-1].role) == (labels[0], labels[-1])
    write_report(results)
    assert "Shown are 12 of the 17 models" in (tmp_path / "report.md").read_text()
    lines = summary(results).splitlines()
    assert len(lines) == 16
    assert "... 5 more models" in lines


def test_evenly_spaced_ones_are_spread() -> None:
    every = [Shown(str(i), MergePoint("linear", i)) for i in range(100)]
    picked = [int(each.role) for each in spread(every)]
    assert picked == [round(i * 9) for i in range(12)]
    assert spread(every[:12]) == every[:12]


@pytest.mark.parametrize("count", range(1, 13))
def test_panels_fill_a_grid_row_by_row(count: int) -> None:
    layout = Layout(count)
    places = [layout.place(i) for i in range(count)]
    assert len(set(places)) == count
    assert max(row for row, _ in places) == layout.rows - 1
    assert max(column for _, column in places) == layout.columns - 1
    lowest = {layout.place(i)[1]: layout.place(i)[0] for i in range(count) if layout.is_lowest(i)}
    assert lowest == {column: max(r for r, c in places if c == column) for column in range(layout.columns)}
    assert all(len(line) <= 60 for line in layout.title(["x" * 80, "y"]).split("\n"))


def test_positions_are_written_short_below_figures() -> None:
    assert [short_text(value) for value in (0.07, 512, 1000, 143000, 1.4e9, 12e12)] == [
        *("0.07", "512", "1k", "143k", "1.4B", "12T")
    ]


def with_letters_and_texts(path: Path) -> Results:
    """A sweep of three points with normalised letters, a next-token task and a point that failed."""
    make_results(path, (0.0, 0.5, 1.0), n=60)
    plan = json.loads((path / "run.json").read_text())
    plan["tasks"]["arc_easy"]["kind"] = "choice"
    plan["tasks"]["clm"] = {"n": 50, "sha256": "1", "kind": "next-token", "encoded_apart": {}, "truncated": {}}
    plan["lambdas"] = [0.0, 0.5, 1.0, 1.5]
    (path / "run.json").write_text(json.dumps(plan))
    run = RunDirectory.open(path)
    for lam in (0.0, 0.5, 1.0):
        point = MergePoint("linear", lam)
        run.save(point, "arc_easy", "choice", letters(lam, 60, 0, 0.5 + lam / 4))
        run.save(point, "clm", "next-token", texts(int(2 * lam), 50))
        facts = {"attention": "varlen", "batch_tokens": 2048}
        run.record(point, {"arc_easy": (["choice"], facts), "clm": (["next-token"], facts)})
    run.fail(MergePoint("linear", 1.5), "task arc_easy: 60 question(s) have a non-finite score")
    return Results.of(run)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    results = with_letters_and_texts(tmp_path_factory.mktemp("mixed"))
    results.write()
    write_frontier(findings_of(results))
    with figures_not_saved():
        write_report(results)
    return results


def test_a_sweep_with_texts_has_a_frontier_of_its_questions_only(mixed: Results) -> None:
    folder = mixed.run.path
    assert mixed.confidences == ("choice", "next-token")
    frontier = json.loads((folder / "frontier.json").read_text())
    assert list(frontier["frontier"]) == list(frontier["points"]) == ["choice"]
    assert (frontier["incomplete"], frontier["unmeasured"]) == ([], 0)
    assert {path.stem for path in (folder / "figures").iterdir()} == {
        *("frontier-choice", "attainment-choice", "lambda-choice", "reliability-choice", "confidence-choice"),
        *("lambda-next-token", "reliability-next-token", "confidence-next-token"),
    }
    rates = {(row["confidence"], row["measure"]) for row in rows_of(folder / "tables/change_rates.csv")}
    assert ("choice", "sce") in rates
    assert ("next-token", "sce") not in rates
    assert ("next-token", "ece") in rates
    points = {(row["lambda"], row["confidence"]): row for row in rows_of(folder / "tables/points.csv")}
    assert points["0.5", "next-token"]["non_dominated"] == ""
    assert number(points["0.5", "next-token"]["sce"]) is None


def test_a_failed_point_is_told_everywhere_and_breaks_nothing(mixed: Results) -> None:
    frontier = json.loads((mixed.run.path / "frontier.json").read_text())
    reason = "task arc_easy: 60 question(s) have a non-finite score"
    assert frontier["failed"] == [{"point": "linear-lambda-1.5000", "reason": reason}]
    text = (mixed.run.path / "report.md").read_text()
    assert f"`linear-lambda-1.5000` failed and is left out: {reason}." in text
    assert "1 point failed: linear-lambda-1.5000; report.md says why" in summary(mixed)
    assert "packed rows with `varlen` attention" in text


def test_letter_mass_stands_beside_what_it_qualifies(mixed: Results) -> None:
    text = (mixed.run.path / "report.md").read_text()
    section = text.split("## Letters\n")[1].split("\n## ")[0]
    assert "| base | 50.00% |" in section
    assert "| aligned | 75.00% |" in section
    rows = rows_of(mixed.run.path / "tables/points.csv")
    masses = [number(row["letter_mass"]) for row in rows if row["confidence"] == "choice"]
    assert masses == pytest.approx([0.5, 0.625, 0.75])
    assert [row["letter_mass"] for row in rows if row["confidence"] == "next-token"] == ["", "", ""]


def test_bare_logits_have_no_letter_mass(tmp_path: Path) -> None:
    results = make_results(tmp_path, (0.0, 1.0), n=40)
    assert "| base | – |" in page(results, Landmarks.of(results), ())
    write_tables(results, Landmarks.of(results))
    assert {row["letter_mass"] for row in rows_of(tmp_path / "tables/points.csv")} == {""}


def test_tables_of_methods_that_are_gone_are_removed(tmp_path: Path) -> None:
    results = make_evaluation(tmp_path, ["a", "b"], {"clm": "next-token"}, n=20)
    (tmp_path / "tables").mkdir()
    for name in ("letters.csv", "points.md", "mine.csv"):
        (tmp_path / "tables" / name).write_text("earlier")
    write_tables(results, Landmarks.of(results))
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        *("models.csv", "models.md", "more_measures.csv", "more_measures.md", "mine.csv")
    }


def test_captions_speak_of_several_tasks_where_a_method_has_them(eight: Results) -> None:
    text = (eight.run.path / "report.md").read_text()
    of_questions, of_texts = (
        [line for line in text.splitlines() if f"Confidence method `{method}`." in line]
        for method in ("choice", "next-token")
    )
    assert len(of_questions) == len(of_texts) == 3
    assert sum("the mean over tasks" in line for line in of_questions) == 1
    assert sum("All questions of all tasks are pooled" in line for line in of_questions) == 2
    assert not any("the mean over tasks" in line or "pooled" in line for line in of_texts)


def test_figures_of_texts_count_texts(eight: Results) -> None:
    for method, noun in (("choice", "Questions"), ("next-token", "Texts")):
        drawing = draw_reliability(eight, Landmarks.of(eight), method)
        assert drawing is not None
        below = [axes for axes in drawing.figure.axes if axes.get_ylabel() == noun]
        assert len(below) == 2
        assert below[0].get_ylim() == below[1].get_ylim()


def test_edges_of_bins_are_written_as_by_hand(eight: Results) -> None:
    for kind in ("reliability", "confidence"):
        rows = rows_of(eight.run.path / f"figures/{kind}-choice.csv")
        assert [row["up_to"] for row in rows[:10]] == [
            *("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0")
        ]


def test_no_two_of_twelve_tasks_look_alike_without_their_dashes() -> None:
    tasks = [f"task{i}" for i in range(MOST_COLOURED)]
    looks = [look(task, tasks) for task in tasks]
    assert len({(each["color"], each["marker"], each.get("markerfacecolor")) for each in looks}) == MOST_COLOURED


def test_one_model_has_no_axis(tmp_path: Path) -> None:
    results = make_evaluation(tmp_path, ["only"], {"quiz": "choice"}, n=20)
    assert draw_axis(results, Landmarks.of(results), "choice") is None
    text = evaluation_page(results, Landmarks.of(results), ())
    assert re.search(r"- By `choice`: accuracy [\d.]+% \[[\d., ]+\]; ECE [\d.]+ \(floor [\d.]+\)\.\n", text)


def test_a_panel_of_nothing_but_zeros_starts_at_zero(tmp_path: Path) -> None:
    results = make_evaluation(tmp_path, ["a", "b"], {"clm": "next-token"}, n=20)
    ids, targets = tuple(f"t{k}" for k in range(20)), np.arange(20)
    never = NextTokenScores(ids, targets, targets + 1, np.log(np.full(20, 0.1)), np.log(np.full(20, 0.5)))
    for point in results.points:
        results.run.save(point, "clm", "next-token", never)
        results.run.record(point, {"clm": (["next-token"], {})})
    results = Results.of(results.run)
    drawing = draw_axis(results, Landmarks.of(results), "next-token")
    assert drawing is not None
    assert drawing.figure.axes[0].get_ylim() == (0, 10)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((6, 6, 6), "6 prompts x 3 models lost text"),
        ((6, 0, 12), "18 prompts in all models together lost text"),
        ((1,), "1 prompt lost text"),
        ((0, 0), ""),
    ],
)
def test_cut_prompts_are_told_by_model(tmp_path: Path, counts: Sequence[int], said: str) -> None:
    labels = [f"m{i}" for i in range(len(counts))]
    make_evaluation(tmp_path, labels, {"quiz": "choice"}, n=20)
    plan = json.loads((tmp_path / "run.json").read_text())
    for model, count in zip(plan["models"], counts, strict=True):
        model["tasks"] = {"quiz": {"truncated": {"choice": count}}}
    (tmp_path / "run.json").write_text(json.dumps(plan))
    told = summary(Results.of(RunDirectory.open(tmp_path)))
    assert ("lost text" in told) == bool(said)
    assert said in told


def test_samples_do_not_tell_what_was_truncated(tmp_path: Path) -> None:
    make_evaluation(tmp_path, ["a", "b"], {"quiz": "choice"}, n=20)
    plan = json.loads((tmp_path / "run.json").read_text())
    plan |= {"identity": {"source": "lm-eval samples"}, "limit": None}
    (tmp_path / "run.json").write_text(json.dumps(plan))
    results = Results.of(RunDirectory.open(tmp_path))
    text = evaluation_page(results, Landmarks.of(results), ())
    assert "do not tell which questions were truncated or encoded apart" in text
    assert "no truncated questions" not in text
