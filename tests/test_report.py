"""The report of synthetic runs: seeded logits whose confidence grows with lambda, no model."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import figures_not_saved
from pypdf import PdfReader

from merge_calib.answers import MEAN
from merge_calib.calibration.metrics import reliability_bins
from merge_calib.degradation.change import Change
from merge_calib.findings import findings_of
from merge_calib.frontier import non_dominated
from merge_calib.frontier_record import FAMILY, write_frontier
from merge_calib.inference.claims import KINDS
from merge_calib.inference.power import detectable
from merge_calib.inference.resampling import FEWEST_CLUSTERS
from merge_calib.merging.point import MergePoint
from merge_calib.report import write_report
from merge_calib.report.axis_figure import draw_axis
from merge_calib.report.cells import p_text
from merge_calib.report.claims_section import SUBJECTS, verdict
from merge_calib.report.frontier_figure import draw_frontier
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.page import page
from merge_calib.report.place import point_markdown
from merge_calib.report.pooling import pooled
from merge_calib.report.retained_cells import NOT_MEASURED
from merge_calib.report.retained_panel import TITLE
from merge_calib.report.style import Drawing, new_figure, save_drawing
from merge_calib.report.summary import summary
from merge_calib.report.tables import write_tables
from merge_calib.report.text import decimals, percent
from merge_calib.results import Results
from merge_calib.retention.record import keep
from merge_calib.rivals import MIXED, MIXED_LOG, SELECTED, tempered
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import ChoiceScores

GRID = tuple(round(0.1 * i, 10) for i in range(16))
FEW = (0.0, 0.3, 0.6, 1.0, 1.2, 1.5)
ALL = ("choice", "continuation-sum", "continuation-min")

pytestmark = pytest.mark.usefixtures("unsaved_figures")  # but for the pictures of `one_task`, which are all made


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
    results = make_results(tmp_path_factory.mktemp("one"), n=1200)
    (results.run.path / "checkpoints" / results.selection.point).mkdir(parents=True)
    write_report(results)
    return results


@pytest.fixture(scope="module")
def three_by_three(tmp_path_factory: pytest.TempPathFactory) -> Results:
    tasks = ("arc_easy", "piqa", "mmlu_high_school_government_and_politics")
    lacking = [(0.3, "piqa", "choice"), (1.2, "arc_easy", "continuation-sum")]
    lacking += [(lam, "piqa", "continuation-min") for lam in FEW]
    results = make_results(tmp_path_factory.mktemp("three"), FEW, tasks, ALL, 200, lacking)
    results.write()
    with figures_not_saved():
        write_report(results)
    return results


FIGURES = ("frontier", "attainment", "lambda", "reliability", "confidence")
TABLES = (
    *("change_rates", "points", "more_measures", "letters"),
    *("claims", "headline", "recovery", "temperatures"),
)
BASE, ALIGNED = MergePoint("linear", 0.0), MergePoint("linear", 1.0)


def test_every_file_is_there(one_task: Results) -> None:
    names = [f"figures/{kind}.{ending}" for kind in FIGURES for ending in ("pdf", "png", "csv")]
    names += [f"tables/{name}.{ending}" for name in TABLES for ending in ("csv", "md")]
    for name in [*names, "report.md"]:
        assert (one_task.run.path / name).stat().st_size > 0, name
    assert not list(one_task.run.path.rglob("*partial*"))


def test_frontier_numbers_are_the_measurements(one_task: Results) -> None:
    candidates = one_task.candidates("choice")
    rows = rows_of(one_task.run.path / "figures/frontier.csv")
    rivals = [row for row in rows if row["role"] == "rival"]
    assert {"aligned + T", MIXED, MIXED_LOG} <= {row["point"] for row in rivals}
    joint = findings_of(one_task).joint(MEAN, "choice")
    assert float(rivals[0]["sce"]) == joint.value("sce", tempered(ALIGNED.name))
    rows = [row for row in rows if row["role"] != "rival"]
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
    rivals = [row for row in rows if not row["method"]]
    rows = [row for row in rows if row["method"]]
    known = [r for r in three_by_three.rows if r.confidence == "continuation-sum" and r.split == "report"]
    assert len(rows) == len(known) == 6 * 3 - 1 + 5
    joint = findings_of(three_by_three).joint(MEAN, "continuation-sum")
    names = [tempered(ALIGNED.name), MIXED, MIXED_LOG]
    assert [float(row["nll"]) for row in rivals] == [joint.value("nll", name) for name in names]
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
    assert sum(int(row["n"]) for row in aligned) == 3 * 100
    for row, count, hit in zip(aligned, bins.counts, bins.accuracy, strict=True):
        assert number(row["accuracy"]) == (hit if count else None)


def test_pooling_counts_every_judging_question_once(three_by_three: Results) -> None:
    point = MergePoint("linear", 0.6)
    hits, chosen = [], 0
    for task in three_by_three.tasks:
        scores = three_by_three.run.scores(point, task, "choice")
        assert scores is not None
        division = three_by_three.answers[task, "choice"].division
        hits.append(scores.predictions.hit[division.rows("report")])
        chosen += int(division.rows("select").sum())
    p = pooled(three_by_three, point, "choice")
    assert p.mask.shape == (600 - chosen, 5) == (300, 5)
    assert p.hit.tolist() == np.concatenate(hits).tolist()
    assert (p.probabilities[~p.mask] == 0).all()


def test_change_rates_are_base_to_aligned(three_by_three: Results) -> None:
    rows = rows_of(three_by_three.run.path / "tables/change_rates.csv")
    assert len(rows) == 3 * 6 * 4
    base, aligned = MergePoint("linear", 0.0), MergePoint("linear", 1.0)
    for row in rows:
        pair = [three_by_three.row(p, row["task"], row["confidence"]) for p in (base, aligned)]
        values = [None if r is None else getattr(r.measurement, row["measure"]) for r in pair]
        floor = None if pair[0] is None else pair[0].floors.get(row["measure"])
        change = Change(*values, None if floor is None else floor.p95)
        assert row["unstable"] == ("" if change.unstable is None else str(change.unstable))
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
    again = shutil.copytree(one_task.run.path, tmp_path / "again")
    for part in ("figures", "tables"):
        shutil.rmtree(again / part)
    (again / "report.md").unlink()
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
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(again)], check=True, env=environment)
    produced = sorted(path for part in ("figures", "tables") for path in (one_task.run.path / part).iterdir())
    assert len(produced) == 3 * len(FIGURES) + 2 * len(TABLES)
    for path in [*produced, one_task.run.path / "report.md"]:
        other = again / path.relative_to(one_task.run.path)
        assert path.read_bytes() == other.read_bytes(), path.name


def test_page_says_the_numbers(one_task: Results) -> None:
    text = (one_task.run.path / "report.md").read_text()
    selected = one_task.point(one_task.selection.point)
    trio = [one_task.row(p, MEAN, "choice") for p in (BASE, selected, ALIGNED)]
    joint = findings_of(one_task).joint(MEAN, "choice")
    base, chosen, aligned = (
        f"{e.value:.2%} [{100 * e.low:.2f}, {100 * e.high:.2f}]"
        for e in (one_task.estimate(row, "accuracy") for row in trio if row is not None)
        if e is not None
    )
    d = joint.difference("accuracy", SELECTED, ALIGNED.name)
    assert f"| Accuracy | {base} | {chosen} | {aligned} |" in text
    assert f"| {100 * d.value:+.2f} points [{100 * d.low:+.2f}, {100 * d.high:+.2f}] |" in text
    old, new = trio[0], trio[2]
    assert old is not None
    assert new is not None
    b, a = old.measurement.sce, new.measurement.sce
    assert b is not None
    assert a is not None
    floors = [decimals(row.floors["sce"].mean, 3) for row in (old, new)]
    rate = f"{(a - b) / b * 100:+.1f}%{' (unstable)' if b < old.floors['sce'].p95 else ''}"
    sides = f"{b:.4f} (floor {floors[0]}) | {a:.4f} (floor {floors[1]})"
    assert f"| SCE (M = 10) | {sides} | {a - b:+.4f} | {rate} |" in text
    assert f"`checkpoints/{selected.name}`" in text
    assert one_task.selection.rule in text


CLAIMING = re.compile(
    r"\b(recovers|dominates the|(?<!ower )is better|beats|tops|superior|significant|winner)\b|same questions that were"
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """So many questions, and so wide a margin, that claims hold: alignment cost a lot and lambda .6 takes it back."""
    results = make_results(
        tmp_path_factory.mktemp("shown"), (0.0, 0.6, 1.0), n=3000, analysis={"accuracy_margin": 0.02}
    )
    write_tables(results, Landmarks.of(results))
    return results


def words_of(results: Results) -> str:
    """All that a reader may take for a claim: the page, the table of claims and the summary."""
    text = page(results, Landmarks.of(results), drawn={"frontier", "attainment", "lambda", "reliability", "confidence"})
    return text + (results.run.path / "tables/claims.md").read_text() + summary(results)


def test_claim_words_stand_only_where_a_claim_holds(one_task: Results, three_by_three: Results, shown: Results) -> None:
    assert {c.kind.name for c in findings_of(shown).claims if c.holds} >= {"recovers", "dominates_aligned"}
    assert any(not claim.holds for claim in findings_of(shown).claims)
    for results in (one_task, three_by_three, shown):
        said = words_of(results)
        for kind in sorted(KINDS, key=lambda kind: -len(kind.words)):  # some words are the beginning of others
            holds = any(c.holds and c.kind is kind for c in findings_of(results).claims)
            assert (kind.words in said) == holds, kind.name
            said = said.replace(kind.words, "")
        assert not CLAIMING.search(said), CLAIMING.search(said)
    assert CLAIMING.search("the selected point recovers 65 %")
    assert not any(claim.holds for claim in findings_of(three_by_three).claims)
    assert "None of the claims holds" in words_of(three_by_three)
    assert "none of 6 shown" in summary(three_by_three)
    assert "(not shown with accuracy kept)" in summary(three_by_three)
    assert "(with accuracy kept: shown)" in summary(shown)


def test_a_claim_that_holds_is_said_with_its_numbers(shown: Results) -> None:
    claim = findings_of(shown).claim("recovers", "arc_easy")
    assert claim is not None
    sce2, accuracy = (part.difference for part in claim.parts)
    said = (
        f"On `arc_easy` the selected point is **{claim.kind.words}**: sce2 {decimals(sce2.value, 5, '+')} "
        f"[{decimals(sce2.low, 5, '+')}, {decimals(sce2.high, 5, '+')}] against the aligned model, accuracy "
        f"{percent(accuracy.value, 2, '+')} points [{percent(accuracy.low, 2, '+')}, {percent(accuracy.high, 2, '+')}] "
        f"against the aligned model; p = {p_text(claim.p_value)}, after Holm {p_text(claim.p_holm)}."
    )
    assert said in page(shown, Landmarks.of(shown), drawn=())


def test_every_claim_is_told_with_the_numbers_of_its_test(one_task: Results) -> None:
    findings = findings_of(one_task)
    rows = rows_of(one_task.run.path / "tables/claims.csv")
    assert {(row["claim"], row["task"]) for row in rows} == {(c.kind.name, c.task) for c in findings.claims}
    for claim in findings.claims:
        mine = [row for row in rows if (row["claim"], row["task"]) == (claim.kind.name, claim.task)]
        assert {row["verdict"] for row in mine} == {"shown" if claim.holds else "not shown"}
        assert {number(row["p_holm"]) for row in mine} == {claim.p_holm}
        assert [number(row["difference"]) for row in mine] == [part.difference.value for part in claim.parts]
        joint = findings.joint(claim.task, "choice")
        sizes = [detectable(joint, part.measure, SELECTED, part.against) for part in claim.parts]
        assert [number(row["detectable"]) for row in mine] == sizes
    text = (one_task.run.path / "report.md").read_text()
    section = text.split("## Claims\n")[1].split("\n## ")[0]
    assert all(kind.null in section for kind in KINDS)
    assert all(section.count(kind.test) == 1 for kind in KINDS)
    assert section.count(FAMILY) == 1
    for claim in findings.claims:
        start = f"| {SUBJECTS[claim.kind.name]} |"
        row = next(line for line in section.splitlines() if line.startswith(start) and "shown" in line)
        assert row.endswith(f"| {p_text(claim.p_value)} | {p_text(claim.p_holm)} | {verdict(claim)} |")


def test_headline_has_the_numbers_of_the_findings(three_by_three: Results) -> None:
    findings = findings_of(three_by_three)
    rows = [row for row in rows_of(three_by_three.run.path / "tables/headline.csv") if row["confidence"] == "choice"]
    assert {row["task"] for row in rows} == {*three_by_three.tasks, MEAN}
    labels = [row["forecast"] for row in rows if row["task"] == MEAN]
    assert [label.split(" (")[0] for label in labels] == [
        *("base", "base + T", "selected", "selected + T", "aligned", "aligned + T"),
        *("aligned + one T for all tasks", "aligned + DACA", MIXED, MIXED_LOG),
    ]
    rivals = findings.rivals("choice")
    assert rivals is not None
    costs = rivals.costs()
    for row in rows:
        joint = findings.joint(row["task"], "choice")
        for measure in ("accuracy", "nll", "brier", "sce2"):
            e = joint.estimate(measure, row["name"])
            assert [number(row[f"{measure}{end}"]) for end in ("", "_low", "_high")] == [e.value, e.low, e.high]
        assert number(row["sce"]) == pytest.approx(joint.value("sce", row["name"]), abs=1e-12)
        floors = findings.floors(row["task"], "choice", row["name"])
        assert number(row["sce_floor"]) == pytest.approx(floors["sce"].mean, abs=0.01)
        cost = costs[row["name"]]
        assert (row["passes_to_use"], row["needs_labels"]) == (str(cost.to_use), str(cost.needs_labels))
    assert "sce_low" not in rows[0]
    assert "ece_low" not in rows[0]


def test_the_page_says_how_the_merge_stands_to_temperature_scaling(one_task: Results) -> None:
    joint = findings_of(one_task).joint(MEAN, "choice")
    rival = tempered(ALIGNED.name)
    nll, sce2 = (joint.difference(m, SELECTED, rival) for m in ("nll", "sce2"))
    text = (one_task.run.path / "report.md").read_text()
    assert f"NLL {decimals(nll.value, 4, '+')} [{decimals(nll.low, 4, '+')}, {decimals(nll.high, 4, '+')}], " in text
    ahead, behind = (all(check) for check in ((nll.high < 0, sce2.high < 0), (nll.low > 0, sce2.low > 0)))
    assert ("By these intervals the selected merge is ahead" in text) == ahead
    assert ("By these intervals temperature scaling, which moves no weights, is ahead" in text) == behind
    assert ("Neither is ahead on both." in text) == (not ahead and not behind)


def test_recovery_stands_beside_raw_differences(one_task: Results, three_by_three: Results) -> None:
    for results in (one_task, three_by_three):
        findings = findings_of(results)
        rows = rows_of(results.run.path / "tables/recovery.csv")
        for task in findings.tasks:
            found = {r.measure: r for r in findings.recoveries(task, "choice")}
            mine = {row["measure"]: row for row in rows if row["task"] == task}
            assert mine.keys() == found.keys() == {"sce2", "ece2", "nll", "brier"}
            for measure, row in mine.items():
                r = found[measure]
                assert [number(row[f"recovery{end}"]) for end in ("", "_low", "_high")] == [r.value, r.low, r.high]
                joint = findings.joint(task, "choice")
                difference = joint.difference(measure, SELECTED, ALIGNED.name)
                assert number(row["selected_minus_aligned"]) == difference.value
        assert "half the error is a quarter" in (results.run.path / "report.md").read_text()
    assert any(row["recovery"] == "" for row in rows)  # some task of a hundred questions lost nothing that shows


def test_temperatures_are_those_that_were_fitted(three_by_three: Results) -> None:
    rivals = findings_of(three_by_three).rivals("choice")
    assert rivals is not None
    (fit,) = rivals.fits
    rows = [r for r in rows_of(three_by_three.run.path / "tables/temperatures.csv") if r["confidence"] == "choice"]
    mine = {(r["point"], r["task"]): float(r["temperature"]) for r in rows if r["point"] != "aligned + DACA"}
    assert mine == {(p.name, task or "all tasks"): t.value for (p, task), t in fit.temperatures.items()}
    carried = rows_of(three_by_three.run.path / "tables/carried.csv")
    known = findings_of(three_by_three).carried("choice", ALIGNED)
    of_aligned = [r for r in carried if (r["confidence"], r["role"]) == ("choice", "aligned")]
    assert {(r["fitted_on"], r["measured_on"]): float(r["nll"]) for r in of_aligned} == known
    for task in three_by_three.tasks:  # nothing fits a task's own judging questions, so another's may be luckier
        assert float(next(r["nll"] for r in of_aligned if r["fitted_on"] == r["measured_on"] == task)) > 0


def test_select_and_report_are_never_mixed(one_task: Results) -> None:
    """Answers to judging questions change every number that is shown, and nothing that is chosen."""
    chosen = {row["point"]: row for row in rows_of(one_task.run.path / "tables/points.csv")}
    for row in one_task.line(MEAN, "choice", "report"):
        mine = chosen[row.point.name]
        assert (mine["split"], int(mine["n"])) == ("report", 600)
        assert float(mine["sce"]) == row.measurement.sce
        other = one_task.get(row.point, MEAN, "choice", "select")
        assert other is not None
        assert float(mine["sce"]) != other.sce
    text = (one_task.run.path / "report.md").read_text()
    assert "chosen and tuned on 600 questions (`select`), measured on the other 600 (`report`)" in text
    select = one_task.get(one_task.point(one_task.selection.point), MEAN, "choice", "select")
    assert select is not None
    assert f"{select.sce:.4f}" not in text


def test_points_have_intervals_floors_temperatures_and_shares(one_task: Results) -> None:
    findings = findings_of(one_task)
    certainty, joint = findings.certainty("choice"), findings.joint(MEAN, "choice")
    assert certainty is not None
    for row in rows_of(one_task.run.path / "tables/points.csv"):
        measured = one_task.row(one_task.point(row["point"]), MEAN, "choice")
        assert measured is not None
        estimate = one_task.estimate(measured, "nll")
        assert estimate is not None
        assert number(row["nll_low"]) == pytest.approx(estimate.low, rel=1e-5)
        assert number(row["sce_floor_95"]) == pytest.approx(measured.floors["sce"].p95, rel=1e-5)
        assert number(row["nll_with_t"]) == joint.value("nll", tempered(row["point"]))
        assert number(row["sce_with_t"]) == joint.value("sce", tempered(row["point"]))
        assert number(row["p_non_dominated"]) == certainty.non_dominated[row["point"]]
        assert number(row["p_dominates_aligned"]) == certainty.dominates_aligned[row["point"]]
    text = (one_task.run.path / "report.md").read_text()
    area = certainty.area
    between = f"between {decimals(area.low, 4)} and {decimals(area.high, 4)}"
    assert f"{decimals(area.value, 4)}, in 95 % of draws {between}" in text


def test_no_calibration_error_is_printed_without_its_floor(one_task: Results) -> None:
    """In the tables of report.md every ECE and SCE has a floor beside it, but for differences."""
    text = (one_task.run.path / "report.md").read_text()
    for line in text.splitlines():
        if line.startswith(("| SCE (M", "| ECE (M")):
            values = [cell for cell in line.split("|")[2:-1] if re.fullmatch(r" \d\.\d{4}.*", cell)]
            assert values
            assert all("(floor " in cell for cell in values), line
    first = next(line for line in summary(one_task).splitlines() if line.startswith("selected"))
    assert re.search(r"SCE 0\.\d{4} \(floor 0\.\d{3}\)", first)


def test_the_band_covers_all_points_together(one_task: Results) -> None:
    rows = [r for r in rows_of(one_task.run.path / "figures/lambda.csv") if r["task"] == MEAN and r["method"]]
    names = [row["point"] for row in rows]
    joint = one_task.joint(MEAN, "choice")
    assert joint is not None
    for measure in ("accuracy", "nll", "brier", "sce2"):
        band = joint.band(measure, names)
        assert [number(r[f"{measure}_band_low"]) for r in rows] == pytest.approx([e.low for e in band], rel=1e-5)
        alone = [joint.estimate(measure, name) for name in names]
        assert all(e.high - e.low > 0.99 * (p.high - p.low) for e, p in zip(band, alone, strict=True))
    known = [one_task.row(one_task.point(name), MEAN, "choice") for name in names]
    floors = [row.floors["sce"].mean for row in known if row is not None]
    assert [number(row["sce_floor"]) for row in rows] == pytest.approx(floors, rel=1e-5)


def test_the_attainment_figure_holds_the_certainty(one_task: Results) -> None:
    certainty = findings_of(one_task).certainty("choice")
    assert certainty is not None
    rows = rows_of(one_task.run.path / "figures/attainment.csv")
    curve = [row for row in rows if row["kind"] == "curve"]
    assert [float(row["sce2"]) for row in curve] == certainty.levels.tolist()
    middle = [number(row["accuracy_50"]) for row in curve]
    assert middle == [v if np.isfinite(v) else None for v in certainty.attained[1].tolist()]
    points = {row["point"]: number(row["p_non_dominated"]) for row in rows if row["kind"] == "point"}
    assert points == certainty.non_dominated


def test_page_links_to_files_that_exist(one_task: Results, three_by_three: Results) -> None:
    for results in (one_task, three_by_three):
        links = re.findall(r"\]\(([^)]+)\)", (results.run.path / "report.md").read_text())
        assert links
        for link in links:
            assert (results.run.path / link).exists(), link


def test_incomplete_points_are_left_out_and_named(three_by_three: Results) -> None:
    folder = three_by_three.run.path
    assert "linear-lambda-0.3000" not in {row["point"] for row in rows_of(folder / "figures/frontier-choice.csv")}
    assert len([r for r in rows_of(folder / "figures/frontier-choice.csv") if r["role"] != "rival"]) == 5
    assert not (folder / "figures/frontier-continuation-min.png").exists()
    assert not (folder / "figures/reliability-continuation-min.png").exists()
    assert (folder / "figures/lambda-continuation-min.png").exists()
    text = (folder / "report.md").read_text()
    assert "Without all tasks by `choice`" in text
    assert "nor to be selected: `linear-lambda-0.3000`.\n" in text
    assert "and 1 more.\n" in text


@pytest.fixture(scope="module")
def parents_only(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Both parents alone, in a folder that holds figures of an earlier report."""
    results = make_results(tmp_path_factory.mktemp("parents"), (0.0, 1.0), n=50)
    (results.run.path / "figures").mkdir()
    for name in ("frontier-choice", "reliability-continuation-sum", "frontier-mine"):
        (results.run.path / f"figures/{name}.pdf").write_bytes(b"earlier")
    with figures_not_saved():
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
    assert len(rows_of(results.run.path / "figures/lambda.csv")) == 4 * 7 + 3


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
    results = make_results(tmp_path / "run", lambdas=(0.0, 1.0), n=2)
    write_report(results)
    rows = rows_of(results.run.path / "tables/points.csv")
    assert {row["auroc"] for row in rows} == {""}
    assert "has 1 question to judge by, fewer than 50: nothing is claimed" in (tmp_path / "run/report.md").read_text()


def test_figures_that_no_longer_hold_are_removed(parents_only: Results) -> None:
    pictures = {path.stem for path in (parents_only.run.path / "figures").glob("*.pdf")}
    assert pictures == {*FIGURES, "frontier-mine"}


def test_counts_of_the_encoding_and_ties_are_told(tmp_path: Path) -> None:
    facts = {"truncated": {"choice": 3}, "encoded_apart": {"choice": 0, "continuation-sum": 1}}
    results = make_results(tmp_path / "run", (0.0, 1.0), n=40, task_facts=facts)
    asked = results.run.scores(BASE, "arc_easy", "choice")
    assert isinstance(asked, ChoiceScores)
    tied = ChoiceScores(asked.ids, asked.answers, np.zeros((40, 4)), np.ones((40, 4), dtype=bool))
    results.run.save(MergePoint("linear", 1.0), "arc_easy", "choice", tied)
    results.run.record(MergePoint("linear", 1.0), {"arc_easy": (["choice"], {})})
    results = Results.of(RunDirectory.open(results.run.path))
    text = page(results, Landmarks.of(results), drawn=())
    assert "`arc_easy` by `choice`: 3 prompts cut at the front" in text
    assert "`arc_easy` by `continuation-sum`: 1 prompt whose" in text
    assert "base 0, aligned 20; at most 20 of 20 questions (lambda = 1)" in text


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
    write_frontier(findings_of(one_task))
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
    assert "1 planned point not measured yet" in page(results, Landmarks.of(results), drawn=())


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


def test_two_points_have_rivals_and_no_claims(parents_only: Results) -> None:
    """What letter logits give: both parents, their temperatures and mixtures, and nothing that was selected."""
    folder = parents_only.run.path
    text = (folder / "report.md").read_text()
    assert "Nothing is claimed: the rule selects the aligned model itself" in text
    rows = rows_of(folder / "tables/headline.csv")
    labels = [row["forecast"].split(" (")[0] for row in rows]
    assert labels == ["base", "base + T", "aligned", "aligned + T", "aligned + DACA", MIXED, MIXED_LOG]
    assert not (folder / "tables/claims.md").exists()
    assert not (folder / "tables/recovery.md").exists()
    assert "## Recovery" not in text
    assert len(summary(parents_only).splitlines()) <= 10


def test_few_questions_are_told_with_how_many_it_takes(tmp_path: Path) -> None:
    results = make_results(tmp_path, (0.0, 0.5, 1.0), ("arc_easy", "piqa"), n=80, analysis={"select_fraction": 0.25})
    text = page(results, Landmarks.of(results), drawn=())
    assert "`arc_easy` has only 20 questions to choose by. It takes 200 for 50 on either side." in text
    few = make_results(tmp_path / "few", (0.0, 0.5, 1.0), ("arc_easy", "piqa"), n=60)
    write_tables(few, Landmarks.of(few))
    text = page(few, Landmarks.of(few), drawn=())
    assert "`piqa` has 30 questions to judge by, fewer than 50: nothing is claimed on it. It takes 100 for" in text
    rows = rows_of(tmp_path / "few/tables/claims.csv")
    assert {row["verdict"] for row in rows if row["task"] == "piqa"} == {"not tested"}


def test_a_cross_fitted_run_speaks_of_the_procedure(tmp_path: Path) -> None:
    results = make_results(tmp_path, (0.0, 0.3, 0.6, 1.0), ("arc_easy", "piqa"), n=200, analysis={"cross_fit": 4})
    (tmp_path / "checkpoints" / results.selection.point).mkdir(parents=True)
    write_report(results)
    findings = findings_of(results)
    rivals = findings.rivals("choice")
    assert rivals is not None
    text = (tmp_path / "report.md").read_text()
    assert "What is claimed is the procedure" in text
    assert "cross-fitted: 400 questions in 4 folds" in text
    assert "`select`" not in text.split("## Conventions")[0].replace("fitted on the same questions (`select`)", "")
    assert f"- The folds chose {', '.join(point_markdown(fit.chosen) for fit in rivals.fits)}." in text
    e = findings.joint(MEAN, "choice").estimate("accuracy", SELECTED)
    assert f"procedure accuracy {e.value:.2%}" in summary(results)
    row = next(r for r in rows_of(tmp_path / "tables/headline.csv") if (r["task"], r["name"]) == (MEAN, SELECTED))
    assert number(row["accuracy"]) == e.value
    assert {row["split"] for row in rows_of(tmp_path / "tables/points.csv")} == {"all"}
    assert len(summary(results).splitlines()) <= 10


def test_what_a_left_out_task_would_change_is_told(tmp_path: Path) -> None:
    results = make_results(tmp_path, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), ("arc_easy", "piqa", "mmlu"), n=120)
    text = page(results, Landmarks.of(results), drawn=())
    other = {task: name for task, name in results.left_out.items() if name != results.selection.point}
    for task, name in other.items():
        assert f"without `{task}` {point_markdown(results.point(name))}" in text
    assert ("Whichever task is left out, the same point is chosen." in text) == (not other)


def test_retained_alignment_is_shown_or_said_to_be_missing(tmp_path: Path) -> None:
    results = make_results(tmp_path, (0.0, 0.6, 1.0), n=120)
    assert NOT_MEASURED in page(results, Landmarks.of(results), drawn=())
    results.run.write_retained("responses", {"sha256": "1"})
    for point, kl in zip(results.points, (2.0, 1.0, 0.0), strict=True):
        keep(results.run, point, {"kl": [kl * 10, kl * 30], "agreed": [9, 24], "tokens": [10, 30]}, {})
    write_tables(results, Landmarks.of(results))
    text = page(results, Landmarks.of(results), drawn=())
    assert NOT_MEASURED not in text
    assert "| KL to aligned | same token |" in text
    assert "on 40 tokens of 2 responses that the aligned model wrote" in text
    rows = rows_of(tmp_path / "tables/points.csv")
    assert [number(row["retained_kl"]) for row in rows] == [2.0, 1.0, 0.0]
    assert {number(row["retained_agreement"]) for row in rows} == {33 / 40}


def test_retained_alignment_has_a_panel_where_it_was_measured(tmp_path: Path) -> None:
    results = make_results(tmp_path, (0.0, 0.6, 1.0), n=120)
    plain = draw_axis(results, Landmarks.of(results), "choice")
    assert "Brier" in {axes.get_title(loc="left") for axes in plain.figure.axes}
    assert "retained_kl" not in plain.numbers
    results.run.write_retained("responses", {"sha256": "1"})
    for point, kl in zip(results.points, (2.0, 1.0, 0.0), strict=True):
        keep(results.run, point, {"kl": [kl * 10, kl * 30], "agreed": [9, 24], "tokens": [10, 30]}, {})
    drawing = draw_axis(results, Landmarks.of(results), "choice")
    (panel,) = [axes for axes in drawing.figure.axes if axes.get_title(loc="left") == TITLE]
    assert panel.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.0]
    means = [line for line in drawing.numbers.splitlines() if line.startswith("mean,linear")]
    header = drawing.numbers.splitlines()[0].split(",")
    assert [float(line.split(",")[header.index("retained_kl")]) for line in means] == [2.0, 1.0, 0.0]


def test_subjects_too_few_to_be_drawn_whole_are_told(tmp_path: Path) -> None:
    results = make_results(tmp_path, (0.0, 1.0), n=120, analysis={"cluster": "subject"})
    text = page(results, Landmarks.of(results), drawn=())
    assert f"`--cluster subject` was asked for, but `arc_easy` had fewer than {FEWEST_CLUSTERS} subjects" in text
    plain = make_results(tmp_path / "plain", (0.0, 1.0), n=120)
    assert "--cluster" not in page(plain, Landmarks.of(plain), drawn=())


def test_more_measures_are_those_of_the_measurement(three_by_three: Results) -> None:
    rows = rows_of(three_by_three.run.path / "tables/more_measures.csv")
    assert {row["confidence"] for row in rows} == {"choice", "continuation-sum"}
    for row in rows:
        m = three_by_three.get(three_by_three.point(row["point"]), MEAN, row["confidence"])
        for column in ("adaptive_ece", "smooth_ece", "overconfidence", "aurc", "answer_entropy"):
            assert number(row[column]) == getattr(m, column)


def test_figures_that_are_not_saved_are_drawn_all_the_same(tmp_path: Path) -> None:
    """The control of what stands in for saving: other words are another file, and what drawing raises is raised."""
    figure = new_figure(3, 2)
    title = figure.add_subplot().set_title("one")
    for name in ("one", "other"):
        title.set_text(name)
        save_drawing(tmp_path / name, Drawing(figure, "x,y\n"))
    assert (tmp_path / "one.pdf").read_bytes() != (tmp_path / "other.pdf").read_bytes()
    assert (tmp_path / "one.csv").read_text() == "x,y\n"
    title.set_text("\u4e00")  # no font of ours has it
    with pytest.raises(UserWarning, match="missing from"):
        save_drawing(tmp_path / "third", Drawing(figure, ""))
    assert not (tmp_path / "third.pdf").exists()
