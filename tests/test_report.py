"""The report of synthetic runs: seeded logits whose confidence grows with lambda, no model."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pypdf import PdfReader

from merge_calib.calibration.metrics import reliability_bins
from merge_calib.degradation.change import Change
from merge_calib.frontier import non_dominated
from merge_calib.merging.point import MergePoint
from merge_calib.report import write_report
from merge_calib.report.frontier_figure import draw_frontier
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.page import page
from merge_calib.report.reliability_figure import pooled
from merge_calib.report.summary import summary
from merge_calib.report.tables import write_tables
from merge_calib.report.text import decimals, percent
from merge_calib.results import MEAN, Results
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores

GRID = tuple(round(0.1 * i, 10) for i in range(16))
ALL = ("choice", "continuation-sum", "continuation-min")


def make_results(
    path: Path,
    lambdas: Sequence[float] = GRID,
    tasks: Sequence[str] = ("arc_easy",),
    confidences: Sequence[str] = ("choice",),
    n: int = 300,
    lacking: Sequence[tuple[float, str, str]] = (),
    analysis: Mapping[str, object] | None = None,
    task_facts: Mapping[str, object] | None = None,
) -> Results:
    """A run directory with every point measured, but for the (lambda, task, confidence) in `lacking`."""
    run = RunDirectory(path)
    facts = {"encoded_apart": dict.fromkeys(confidences, 0), "truncated": dict.fromkeys(confidences, 0)}
    plan = {
        "format": 1,
        "identity": {"dtype": "float32", "out_dtype": "as stored"},
        "base": "models/small-base",
        "aligned": "models/small-aligned",
        "tasks": {task: {"n": n, "sha256": "0" * 64} | facts | dict(task_facts or {}) for task in tasks},
        "confidence": list(confidences),
        "method": "linear",
        "search": "grid",
        "lambdas": list(lambdas),
        "seed": 0,
        "bins": 10,
        "analysis": {"draws": 300, **(analysis or {})},
        "limit": None,
        "device": "cpu",
    }
    run.extend(plan)
    for lam in lambdas:
        point = MergePoint("linear", lam)
        measured: dict[str, list[str]] = {}
        for i, task in enumerate(tasks):
            for j, confidence in enumerate(confidences):
                if (lam, task, confidence) not in lacking:
                    run.save(point, task, confidence, make_scores(lam, n, seed=10 * i + j, options=(4, 2, 5)[i % 3]))
                    measured.setdefault(task, []).append(confidence)
        run.record(point, {task: (methods, {"device": "cpu", "seconds": 0.0}) for task, methods in measured.items()})
    return Results.of(run)


def make_scores(lam: float, n: int, seed: int, options: int) -> ChoiceScores:
    """Answers drawn from a softmax; logits with least noise at lambda .63 and a scale that grows with lambda."""
    rng = np.random.default_rng(seed)
    truth = 1.2 * rng.standard_normal((n, options))
    share = np.exp(truth) / np.exp(truth).sum(1, keepdims=True)
    answers = (rng.random(n)[:, None] > share.cumsum(1)).sum(1).clip(0, options - 1)
    noise = (0.5 + abs(lam - 0.63)) * rng.standard_normal((n, options))
    logits = (0.8 + 1.8 * lam) * (truth + 0.6 * noise)
    ids = tuple(f"q{i}" for i in range(n))
    return ChoiceScores(ids, answers, logits, np.ones_like(logits, dtype=bool))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float | None:
    return float(text) if text else None


@pytest.fixture(scope="module")
def one_task(tmp_path_factory: pytest.TempPathFactory) -> Results:
    results = make_results(tmp_path_factory.mktemp("one"))
    (results.run.path / "checkpoints" / results.selection.point).mkdir(parents=True)
    write_report(results)
    return results


@pytest.fixture(scope="module")
def three_by_three(tmp_path_factory: pytest.TempPathFactory) -> Results:
    tasks = ("arc_easy", "piqa", "mmlu_high_school_government_and_politics")
    lacking = [(0.3, "piqa", "choice"), (1.2, "arc_easy", "continuation-sum")]
    lacking += [(lam, "piqa", "continuation-min") for lam in GRID]
    results = make_results(tmp_path_factory.mktemp("three"), GRID, tasks, ALL, 200, lacking)
    write_report(results)
    return results


FIGURES = ("frontier", "lambda", "reliability", "confidence")


def test_every_file_is_there(one_task: Results) -> None:
    names = [f"figures/{kind}.{ending}" for kind in FIGURES for ending in ("pdf", "png", "csv")]
    names += [f"tables/{name}.{ending}" for name in ("change_rates", "points", "letters") for ending in ("csv", "md")]
    for name in [*names, "report.md"]:
        assert (one_task.run.path / name).stat().st_size > 0, name
    assert not list(one_task.run.path.rglob("*partial*"))


def test_frontier_numbers_are_the_measurements(one_task: Results) -> None:
    candidates = one_task.candidates("choice")
    rows = rows_of(one_task.run.path / "figures/frontier.csv")
    assert [row["point"] for row in rows] == [c.name for c in candidates]
    assert [float(row["accuracy"]) for row in rows] == [c.accuracy for c in candidates]
    assert [float(row["sce"]) for row in rows] == [c.error for c in candidates]
    assert [row["non_dominated"] == "True" for row in rows] == non_dominated(candidates).tolist()
    assert {row["lambda"]: row["role"] for row in rows if row["role"]} == {
        "0.0": "base",
        "1.0": "aligned",
        str(one_task.point(one_task.selection.point).lam): "selected",
    }


def test_lambda_numbers_are_the_measurements(three_by_three: Results) -> None:
    rows = rows_of(three_by_three.run.path / "figures/lambda-continuation-sum.csv")
    known = [row for row in three_by_three.rows if row.confidence == "continuation-sum"]
    assert len(rows) == len(known) == 16 * 3 - 1 + 15
    for row in rows:
        m = three_by_three.get(three_by_three.point(row["point"]), row["task"], "continuation-sum")
        assert m is not None
        for column in ("accuracy", "sce", "ece", "nll", "brier", "mean_confidence"):
            assert float(row[column]) == getattr(m, column)


def test_reliability_numbers_are_the_pooled_bins(three_by_three: Results) -> None:
    rows = rows_of(three_by_three.run.path / "figures/reliability-choice.csv")
    assert [row["model"] for row in rows] == ["base"] * 10 + ["selected"] * 10 + ["aligned"] * 10
    aligned = rows[20:]
    bins = reliability_bins(pooled(three_by_three, MergePoint("linear", 1.0), "choice"), 10)
    assert [int(row["n"]) for row in aligned] == bins.counts.tolist()
    assert sum(int(row["n"]) for row in aligned) == 3 * 200
    for row, count, hit in zip(aligned, bins.counts, bins.accuracy, strict=True):
        assert number(row["accuracy"]) == (hit if count else None)


def test_pooling_counts_every_question_once(three_by_three: Results) -> None:
    point = MergePoint("linear", 0.5)
    parts = [three_by_three.run.scores(point, task, "choice") for task in three_by_three.tasks]
    hits = [part.predictions.hit for part in parts if part is not None]
    p = pooled(three_by_three, point, "choice")
    assert p.mask.shape == (600, 5)
    assert p.hit.tolist() == np.concatenate(hits).tolist()
    assert (p.probabilities[~p.mask] == 0).all()


def test_change_rates_are_base_to_aligned(three_by_three: Results) -> None:
    rows = rows_of(three_by_three.run.path / "tables/change_rates.csv")
    assert len(rows) == 3 * 6 * 4
    base, aligned = MergePoint("linear", 0.0), MergePoint("linear", 1.0)
    for row in rows:
        values = [three_by_three.get(p, row["task"], row["confidence"]) for p in (base, aligned)]
        change = Change(*(None if m is None else getattr(m, row["measure"]) for m in values))
        assert number(row["base"]) == change.base
        assert number(row["difference"]) == change.difference
        assert number(row["change_rate_percent"]) == change.rate
        assert row["bins"] == ("10" if row["measure"] in ("ece", "sce", "sce_agreement") else "")


def test_tables_say_which_sce_and_how_many_bins(one_task: Results) -> None:
    for name in ("tables/change_rates.md", "tables/points.md", "report.md"):
        text = (one_task.run.path / name).read_text()
        assert "M = 10" in text
        assert "Nixon et al. 2019" in text
        assert "Oh & Hwang 2024" in text


def test_points_table_marks_selected_and_frontier(one_task: Results) -> None:
    rows = rows_of(one_task.run.path / "tables/points.csv")
    assert [row["point"] for row in rows if row["selected"] == "True"] == [one_task.selection.point]
    kept = non_dominated(one_task.candidates("choice"))
    assert [row["non_dominated"] == "True" for row in rows] == kept.tolist()
    for row in rows:
        m = one_task.get(one_task.point(row["point"]), MEAN, "choice")
        assert m is not None
        assert [number(row[c]) for c in ("sce_agreement", "auroc", "ties")] == [m.sce_agreement, m.auroc, m.ties]


def test_fonts_are_truetype(one_task: Results) -> None:
    for kind in FIGURES:
        resources: Any = PdfReader(one_task.run.path / f"figures/{kind}.pdf").pages[0]["/Resources"]
        fonts = [font.get_object() for font in resources["/Font"].values()]
        descendants = [font["/DescendantFonts"][0].get_object() for font in fonts]
        assert {font["/Subtype"] for font in descendants} == {"/CIDFontType2"}
        assert all("/FontFile2" in font["/FontDescriptor"] for font in descendants)


def test_figures_keep_their_width(one_task: Results) -> None:
    widths = {"frontier": 3.25, "lambda": 6.75, "reliability": 6.75, "confidence": 6.75}
    for kind, inches in widths.items():
        box = PdfReader(one_task.run.path / f"figures/{kind}.pdf").pages[0].mediabox
        assert float(box.width) == pytest.approx(72 * inches, abs=0.01)


def test_same_data_gives_same_bytes_in_another_process(one_task: Results, tmp_path: Path) -> None:
    again = make_results(tmp_path / "again")
    (again.run.path / "checkpoints" / again.selection.point).mkdir(parents=True)
    (tmp_path / "matplotlibrc").write_text("pdf.fonttype: 3\nfont.size: 20\naxes.grid: True\n")
    program = (
        "import sys; from pathlib import Path\n"
        "from merge_calib.report import write_report\n"
        "from merge_calib.results import Results\n"
        "from merge_calib.run_directory import RunDirectory\n"
        "write_report(Results.of(RunDirectory.open(Path(sys.argv[1]))))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {"MATPLOTLIBRC": str(tmp_path), "PYTHONPATH": str(Path.cwd()), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(again.run.path)], check=True, env=environment)
    produced = sorted(path for part in ("figures", "tables") for path in (one_task.run.path / part).iterdir())
    assert len(produced) == 18
    for path in [*produced, one_task.run.path / "report.md"]:
        other = again.run.path / path.relative_to(one_task.run.path)
        assert path.read_bytes() == other.read_bytes(), path.name


def test_page_says_the_numbers(one_task: Results) -> None:
    text = (one_task.run.path / "report.md").read_text()
    selected = one_task.point(one_task.selection.point)
    trio = [one_task.get(p, MEAN, "choice") for p in (MergePoint("linear", 0.0), selected, MergePoint("linear", 1.0))]
    base, chosen, aligned = (m for m in trio if m is not None)
    assert (
        f"| Accuracy | {base.accuracy:.2%} | {chosen.accuracy:.2%} | {aligned.accuracy:.2%} "
        f"| {100 * (chosen.accuracy - base.accuracy):+.2f} points "
        f"| {100 * (chosen.accuracy - aligned.accuracy):+.2f} points |"
    ) in text
    assert (
        f"| SCE (M = 10) | {base.sce:.4f} | {aligned.sce:.4f} | {aligned.sce - base.sce:+.4f} "
        f"| {(aligned.sce - base.sce) / base.sce * 100:+.1f}% |"
    ) in text
    assert f"`checkpoints/{selected.name}`" in text
    assert one_task.selection.rule in text


def test_page_claims_nothing_it_cannot(one_task: Results, three_by_three: Results) -> None:
    for results in (one_task, three_by_three):
        text = (results.run.path / "report.md").read_text()
        assert SAME_QUESTIONS in text
        assert "winner's curse" in text
        assert "% of" not in text
        assert not re.search(r"recovery|significant", text)


def test_page_links_to_files_that_exist(one_task: Results, three_by_three: Results) -> None:
    for results in (one_task, three_by_three):
        links = re.findall(r"\]\(([^)]+)\)", (results.run.path / "report.md").read_text())
        assert links
        for link in links:
            assert (results.run.path / link).exists(), link


def test_standing_is_told_fact_by_fact(one_task: Results) -> None:
    landmarks = Landmarks.of(one_task)
    assert landmarks.selected is not None
    assert landmarks.aligned is not None
    assert landmarks.base is not None
    facts = standing(one_task, landmarks, landmarks.selected, "choice")
    ours, aligned, base = (
        one_task.get(p, MEAN, "choice") for p in (landmarks.selected, landmarks.aligned, landmarks.base)
    )
    assert ours is not None
    assert aligned is not None
    assert base is not None
    assert facts.beats_aligned == (ours.accuracy > aligned.accuracy and ours.sce < aligned.sce)
    assert facts.beats_base == (ours.accuracy > base.accuracy and ours.sce < base.sce)
    assert facts.tops_parents == (ours.accuracy > max(base.accuracy, aligned.accuracy))
    assert standing(one_task, landmarks, landmarks.base, "choice").beats_base is False


def test_incomplete_points_are_left_out_and_named(three_by_three: Results) -> None:
    folder = three_by_three.run.path
    assert "linear-lambda-0.3000" not in {row["point"] for row in rows_of(folder / "figures/frontier-choice.csv")}
    assert len(rows_of(folder / "figures/frontier-choice.csv")) == 15
    assert not (folder / "figures/frontier-continuation-min.png").exists()
    assert not (folder / "figures/reliability-continuation-min.png").exists()
    assert (folder / "figures/lambda-continuation-min.png").exists()
    text = (folder / "report.md").read_text()
    assert "Without all tasks by `choice`" in text
    assert "nor to be selected: `linear-lambda-0.3000`.\n" in text
    assert "and 11 more.\n" in text


@pytest.fixture(scope="module")
def parents_only(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Both parents alone, in a folder that holds figures of an earlier report."""
    results = make_results(tmp_path_factory.mktemp("parents"), (0.0, 1.0), n=50)
    (results.run.path / "figures").mkdir()
    for name in ("frontier-choice", "reliability-continuation-sum", "frontier-mine"):
        (results.run.path / f"figures/{name}.pdf").write_bytes(b"earlier")
    write_report(results)
    return results


def test_selected_is_aligned(parents_only: Results) -> None:
    results = parents_only
    assert not results.selection.recovers
    said = "The rule selects the aligned model itself; nothing was recovered."
    text = (results.run.path / "report.md").read_text()
    assert said in text
    assert "load" not in text
    assert {row["model"] for row in rows_of(results.run.path / "figures/reliability.csv")} == {"base", "aligned"}
    assert "nothing was recovered" in summary(results)
    assert "1.0" in {row["lambda"] for row in rows_of(results.run.path / "figures/frontier.csv")}


def test_six_tasks(tmp_path: Path) -> None:
    tasks = ("arc_easy", "arc_challenge", "hellaswag", "_own_$x$_|task", "mmlu", "a" * 80)
    results = make_results(tmp_path / "run", (0.0, 0.5, 1.0, 1.5), tasks, n=40)
    write_report(results)
    text = (results.run.path / "report.md").read_text()
    assert "`_own_$x$_\\|task`" in text
    assert "Means over 6 tasks" in text
    assert len(rows_of(results.run.path / "figures/lambda.csv")) == 4 * 7


def test_one_point_only(tmp_path: Path) -> None:
    results = make_results(tmp_path / "run", lambdas=(1.0,), n=40)
    write_report(results)
    assert "–" in (results.run.path / "tables/change_rates.md").read_text()
    assert len(rows_of(results.run.path / "figures/frontier.csv")) == 1


def test_nothing_selectable_yet(tmp_path: Path) -> None:
    lacking = [(lam, "piqa", "choice") for lam in (0.0, 1.0)]
    results = make_results(tmp_path / "run", (0.0, 0.5, 1.0), ("arc_easy", "piqa"), n=40, lacking=lacking)
    write_report(results)
    assert "Nothing could be selected" in (results.run.path / "report.md").read_text()
    assert "nothing could be selected" in summary(results)


def test_undefined_measures_are_empty(tmp_path: Path) -> None:
    results = make_results(tmp_path / "run", lambdas=(0.0, 1.0), n=1)
    write_tables(results, Landmarks.of(results))
    rows = rows_of(results.run.path / "tables/points.csv")
    assert {row["auroc"] for row in rows} == {""}


def test_figures_that_no_longer_hold_are_removed(parents_only: Results) -> None:
    pictures = {path.stem for path in (parents_only.run.path / "figures").glob("*.pdf")}
    assert pictures == {*FIGURES, "frontier-mine"}


def test_counts_of_the_encoding_and_ties_are_told(tmp_path: Path) -> None:
    facts = {"truncated": {"choice": 3}, "encoded_apart": {"choice": 0, "continuation-sum": 1}}
    results = make_results(tmp_path / "run", (0.0, 1.0), n=40, task_facts=facts)
    tied = ChoiceScores(
        tuple(f"q{i}" for i in range(40)),
        np.zeros(40, dtype=np.int64),
        np.zeros((40, 4)),
        np.ones((40, 4), dtype=bool),
    )
    results.run.save(MergePoint("linear", 1.0), "arc_easy", "choice", tied)
    results.run.record(MergePoint("linear", 1.0), {"arc_easy": (["choice"], {})})
    results = Results.of(RunDirectory.open(results.run.path))
    text = page(results, Landmarks.of(results), drawn=())
    assert "`arc_easy` by `choice`: 3 prompts cut at the front" in text
    assert "`arc_easy` by `continuation-sum`: 1 prompt whose" in text
    assert "base 0, aligned 40; at most 40 of 40 questions (lambda = 1)" in text


def test_next_steps_fit_the_search(one_task: Results, parents_only: Results) -> None:
    lam = one_task.point(one_task.selection.point).lam
    assert f"`--lambdas {lam - 0.1:.1f}:{lam + 0.1:.1f}:0.02`" in (one_task.run.path / "report.md").read_text()
    assert "`--lambdas 0:1:0.1`" in (parents_only.run.path / "report.md").read_text()


def test_summary_is_short_and_says_where(one_task: Results) -> None:
    lines = summary(one_task).splitlines()
    assert len(lines) <= 10
    assert lines[-1].endswith("report.md")
    checkpoint = next(line for line in lines if line.startswith("checkpoint"))
    assert Path(checkpoint.split(maxsplit=1)[1]).is_dir()
    aligned = one_task.get(MergePoint("linear", 1.0), MEAN, "choice")
    assert aligned is not None
    assert f"{aligned.sce:.4f}" in summary(one_task)


def test_results_and_report_agree_on_the_selected_point(one_task: Results) -> None:
    one_task.write()
    frontier = json.loads((one_task.run.path / "frontier.json").read_text())
    assert f"`{frontier['selected']['point']}`" in (one_task.run.path / "report.md").read_text()


@pytest.mark.parametrize(
    ("value", "places", "text"), [(0.55075, 4, "0.5508"), (0.5715, 3, "0.572"), (-0.125, 2, "-0.13"), (1.0, 1, "1.0")]
)
def test_numbers_are_rounded_half_up_as_by_hand(value, places, text):
    assert decimals(value, places) == text
    assert percent(0.55075, 2) == "55.08"
    assert percent(0.02, 1, "+") == "+2.0"


def test_a_run_that_was_cut_off_says_so(tmp_path: Path) -> None:
    make_results(tmp_path, lambdas=(0.0, 1.0))
    planned = json.loads((tmp_path / "run.json").read_text()) | {"lambdas": [0.0, 0.5, 1.0]}
    (tmp_path / "run.json").write_text(json.dumps(planned))
    results = Results.of(RunDirectory.open(tmp_path))
    assert results.unmeasured == 1
    assert "1 point not measured yet: run the same command again" in summary(results)
    write_report(results)
    assert "1 planned point not measured yet" in (tmp_path / "report.md").read_text()


CHANGE_OF_PROMPT = "differences from lambda = 0 include that change of prompt."


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "no worked examples, no chat template"),
        (
            {"num_fewshot": 5, "apply_chat_template": "aligned", "system_instruction": "Be\nbrief."},
            "5 worked examples before each question, the chat template for every model but the base, "
            "there the system message `Be brief.`",
        ),
        (
            {"num_fewshot": 1, "apply_chat_template": "both", "finish_prompts": True},
            "1 worked example before each question, the chat template for every model, there no system message, "
            "next-token texts begun with a finish prompt",
        ),
    ],
)
def test_a_sweep_says_how_models_were_asked(tmp_path: Path, asked: dict[str, object], said: str) -> None:
    make_results(tmp_path, lambdas=(0.0, 1.0), n=40)
    plan = json.loads((tmp_path / "run.json").read_text())
    plan["identity"] |= asked
    (tmp_path / "run.json").write_text(json.dumps(plan))
    results = Results.of(RunDirectory.open(tmp_path))
    text = page(results, Landmarks.of(results), drawn=())
    assert f"- asked with {said}\n" in text
    assert (CHANGE_OF_PROMPT in text) == (asked.get("apply_chat_template") == "aligned")


def test_a_frontier_of_one_point_has_no_line_to_explain(tmp_path: Path) -> None:
    for lambdas, drawn in ((GRID, True), ((1.0,), False)):
        results = make_results(tmp_path / str(drawn), lambdas)
        drawing = draw_frontier(results, Landmarks.of(results), "choice")
        assert drawing is not None
        labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
        assert ("frontier" in labels) == drawn
