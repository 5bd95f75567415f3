"""The report of synthetic runs by several methods and with lambdas by groups; no model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import figures_not_saved
from test_report import make_scores, number, rows_of

from merge_calib.answers import MEAN
from merge_calib.errors import RunDirectoryError
from merge_calib.findings import findings_of
from merge_calib.frontier import non_dominated
from merge_calib.frontier_record import write_frontier
from merge_calib.merging.point import MergePoint
from merge_calib.report import write_report
from merge_calib.report.families import Family, families_of
from merge_calib.report.frontier_figure import draw_frontier
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.page import page
from merge_calib.report.place import figure_text, point_markdown, title_lines
from merge_calib.report.summary import summary
from merge_calib.results import Results
from merge_calib.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("unsaved_figures")  # but for the pictures of `mixed`, which are all made
BASE, ALIGNED = MergePoint("linear", 0.0), MergePoint("linear", 1.0)
LAMBDAS = (0.2, 0.4, 0.6, 0.8, 1.2)
DENSITY = (("density", 0.2),)
TURNED = {"slerped_tensors": 3, "tensors": 30, "slerped_parameters": 1234, "parameters": 12340}
NOTES = ["The vocabularies differ: 12 tokens of the aligned model keep their own rows.", "The heads are tied in one."]

LINEAR = [MergePoint("linear", lam) for lam in LAMBDAS]
SLERP = [MergePoint("slerp", lam) for lam in LAMBDAS]
TIES = [MergePoint("ties", lam, DENSITY) for lam in (*LAMBDAS[:4], 1.0, 1.2)]


def by_groups(method: str, attention: float, mlp: float, options: tuple[tuple[str, float], ...] = ()) -> MergePoint:
    return MergePoint(method, None, options, (("attention", attention), ("*.mlp.*", mlp)))


GROUPS = [by_groups("linear", 0.2, 0.7), by_groups("linear", 0.9, 0.4), by_groups("slerp", 0.5, 0.6)]
MIXED = [BASE, ALIGNED, *LINEAR, *SLERP, *TIES, *GROUPS]
_WORSE = {"linear": 0.3, "slerp": 0.0, "ties": 0.4}  # how far a method's best lambda lies from that of make_scores


def make_methods(
    path: Path,
    points: Sequence[MergePoint] = MIXED,
    tasks: Sequence[str] = ("arc_easy", "piqa"),
    n: int = 200,
    shifts: Mapping[str, float] = _WORSE,
    plan: Mapping[str, Any] | None = None,
) -> Results:
    """A run directory with every point measured by `choice`; `plan` is added to run.json."""
    run = RunDirectory(path)
    run.extend(
        {
            "format": 1,
            "identity": {"dtype": "float32"},
            "base": "models/small-base",
            "aligned": "models/small-aligned",
            "tasks": {task: {"n": n, "sha256": "0" * 64} for task in tasks},
            "confidence": ["choice"],
            "method": "linear",
            "search": "grid",
            "lambdas": [0.0, *LAMBDAS],
            "seed": 0,
            "bins": 10,
            "analysis": {"draws": 200},
            "device": "cpu",
            **(plan or {}),
        }
    )
    for point in points:
        several = [lam for _, lam in point.groups]
        lam = sum(several) / len(several) if point.lam is None else point.lam
        shift = 0.0 if point.is_base or point.is_aligned else shifts[point.method] + 0.05 * bool(several)
        for i, task in enumerate(tasks):
            run.save(point, task, "choice", make_scores(lam + shift, n, seed=i, options=4))
        facts = TURNED if point.method == "slerp" else None
        run.record(point, {task: (["choice"], {"device": "cpu", "seconds": 0.0}) for task in tasks}, facts)
    return Results.of(run)


def written(results: Results) -> Results:
    results.write()
    write_frontier(findings_of(results))
    write_report(results)
    return results


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Three methods and points with lambdas by groups; the selected one is by `slerp`."""
    plan = {"aligned": "models/big + adapters/a", "pair_notes": NOTES}
    return written(make_methods(tmp_path_factory.mktemp("mixed"), plan=plan))


@pytest.fixture(scope="module")
def ties_only(tmp_path_factory: pytest.TempPathFactory) -> Results:
    shifts = {"ties": 0.0}
    plan = {"method": "ties", "options": dict(DENSITY)}
    with figures_not_saved():
        return written(make_methods(tmp_path_factory.mktemp("ties"), [BASE, ALIGNED, *TIES], shifts=shifts, plan=plan))


@pytest.fixture(scope="module")
def groups_only(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The selected point is by groups."""
    shifts = {"linear": 0.0, "slerp": 0.3}
    with figures_not_saved():
        return written(make_methods(tmp_path_factory.mktemp("groups"), [BASE, ALIGNED, *GROUPS], shifts=shifts))


def text_of(results: Results, name: str = "report.md") -> str:
    return (results.run.path / name).read_text()


def label_texts(results: Results) -> list[str]:
    drawing = draw_frontier(results, Landmarks.of(results), "choice")
    assert drawing is not None
    return [text.get_text().replace("\n", " ") for text in drawing.figure.legends[0].get_texts()]


def test_results_csv_says_method_and_lambda(mixed: Results) -> None:
    rows = rows_of(mixed.run.path / "results.csv")
    assert list(rows[0])[:4] == ["point", "method", "lambda", "task"]
    places = {row["point"]: (row["method"], number(row["lambda"])) for row in rows}
    assert places == {point.name: (point.method, point.lam) for point in MIXED}


def test_points_stand_in_order_parents_are_one_for_all_methods(mixed: Results) -> None:
    assert list(mixed.points) == sorted(MIXED)
    landmarks = Landmarks.of(mixed)
    assert (landmarks.base, landmarks.aligned) == (BASE, ALIGNED)
    assert [c.name for c in mixed.candidates("choice") if c.is_aligned] == [ALIGNED.name]


def test_frontier_json_says_which_point_each_is(mixed: Results) -> None:
    content = json.loads(text_of(mixed, "frontier.json"))
    points = content["points"]["choice"]
    assert [MergePoint.read(record) for record in points] == sorted(MIXED)
    assert [record["point"] for record in points] == [point.name for point in sorted(MIXED)]
    candidates = mixed.candidates("choice")
    kept = non_dominated(candidates)
    assert content["frontier"]["choice"] == [c.name for c, keep in zip(candidates, kept, strict=True) if keep]
    assert "or by groups" in content["selected"]["rule"]
    assert {point.name for point in GROUPS} & set(content["selected"]["eligible"])


def test_a_point_of_another_method_at_lambda_1_is_a_merge(ties_only: Results) -> None:
    point = next(point for point in TIES if point.lam == 1.0)
    assert point in ties_only.points
    assert Landmarks.of(ties_only).role(point) == ""
    assert "By `ties` lambda = 1 is another model than the aligned one." in text_of(ties_only)


def test_the_page_names_method_and_options_of_the_selected_point(ties_only: Results) -> None:
    selected = ties_only.point(ties_only.selection.point)
    assert selected.method == "ties"
    text = text_of(ties_only)
    assert f"- The rule selects `ties` with density 0.2 at lambda = {selected.lam:g}. From the aligned" in text
    assert f"It selects `{selected.name}` (`ties` with density 0.2 at lambda = {selected.lam:g}) among" in text
    assert "method `ties` with density 0.2, search `grid`" in text
    assert "All merges on it are by `ties` with density 0.2." in text
    assert f"selected    ties, density 0.2, lambda {selected.lam:g}: accuracy" in summary(ties_only)


def test_the_next_lambdas_are_between_neighbours_of_the_same_method(ties_only: Results, mixed: Results) -> None:
    flags = "--method ties --density 0.2 --lambdas"
    assert ties_only.point(ties_only.selection.point).lam == 0.2
    assert f"`{flags} 0:0.4:0.04`" in text_of(ties_only)
    assert mixed.point(mixed.selection.point) == SLERP[0]
    assert "`--method slerp --lambdas 0:0.4:0.04`" in text_of(mixed)


def test_the_page_describes_a_selected_point_by_groups(groups_only: Results) -> None:
    selected = groups_only.point(groups_only.selection.point)
    assert selected == GROUPS[0]
    text = text_of(groups_only)
    which = "lambda by groups (`*.mlp.*` 0.7, `attention` 0.2)"
    assert f"- The rule selects {which}. From the aligned" in text
    assert f"It selects `{selected.name}` ({which}) among" in text
    assert "same `--out` and more `--lambdas`, or with" in text
    lines = summary(groups_only).splitlines()
    assert lines[2].startswith("selected    *.mlp.* 0.7, attention 0.2: accuracy")


def test_groups_alone_have_no_figure_against_lambda(groups_only: Results, mixed: Results) -> None:
    assert not (groups_only.run.path / "figures/lambda.png").exists()
    said = "No figure against lambda: all points between and beyond the parents have lambda by groups."
    assert said in text_of(groups_only)
    assert said not in text_of(mixed)


def test_the_figure_against_lambda_holds_points_of_one_lambda(mixed: Results) -> None:
    rows = [row for row in rows_of(mixed.run.path / "figures/lambda.csv") if row["method"]]
    singles = [point for point in MIXED if point.lam is not None]
    assert {row["point"] for row in rows} == {point.name for point in singles}
    assert len(rows) == 3 * len(singles)
    text = text_of(mixed)
    assert "A colour is a method. Points with lambda by groups have no place on this axis." in text
    assert "diamond" not in text
    assert "The diamond is the aligned model" not in text


def test_a_line_goes_through_the_parents_that_its_method_gives() -> None:
    linear, slerp, ties = families_of(MIXED)
    assert (linear, slerp, ties) == (Family("linear"), Family("slerp"), Family("ties", DENSITY))
    assert [p for p in MIXED if slerp.is_on_line(p)] == [BASE, ALIGNED, *SLERP]
    assert [p for p in MIXED if ties.is_on_line(p)] == [BASE, *TIES]
    assert families_of([BASE, ALIGNED]) == (Family("linear"),)


def test_an_aligned_model_on_no_line_is_a_mark_of_its_own(ties_only: Results) -> None:
    assert "The diamond is the aligned model" in text_of(ties_only)
    assert ALIGNED.name in {row["point"] for row in rows_of(ties_only.run.path / "figures/lambda.csv")}


def test_the_frontier_figure_tells_methods_and_groups_apart(mixed: Results, ties_only: Results) -> None:
    labels = label_texts(mixed)
    assert labels[:3] == ["base", "selected, slerp, λ = 0.2", "aligned"]
    assert {"linear", "slerp", "ties, density 0.2", "λ by groups", "amplified, λ > 1"} < set(labels)
    assert "λ by groups" not in label_texts(ties_only)
    assert "ties, density 0.2" in label_texts(ties_only)
    assert "Grey marks are points whose groups" in text_of(mixed)
    rows = rows_of(mixed.run.path / "figures/frontier.csv")
    points = [row for row in rows if row["role"] != "rival"]
    shown = {(row["method"], row["options"], row["lambda"], row["groups"]) for row in points}
    assert ("slerp", "", "", "*.mlp.* 0.6, attention 0.5") in shown
    assert ("ties", "density 0.2", "1.0", "") in shown
    assert len(shown) == len(MIXED)


def test_the_points_table_shows_method_options_and_groups(mixed: Results, groups_only: Results) -> None:
    text = text_of(mixed, "tables/points.md")
    assert "| method | options | lambda |  | frontier |" in text
    assert "| – | – | 1 | aligned |" in text
    assert "| `ties` | density 0.2 | 1 |  |" in text
    assert "| `slerp` | – | `*.mlp.*` 0.6, `attention` 0.5 |" in text
    assert "| method | lambda |  | frontier |" in text_of(groups_only, "tables/points.md")
    rows = rows_of(mixed.run.path / "tables/points.csv")
    assert [row["point"] for row in rows] == [point.name for point in sorted(MIXED)]
    assert [row["point"] for row in rows if row["selected"] == "True"] == [mixed.selection.point]
    for row in rows:
        measured = mixed.get(mixed.point(row["point"]), MEAN, "choice")
        assert measured is not None
        assert number(row["sce"]) == measured.sce


def test_the_page_says_what_was_compared(mixed: Results) -> None:
    text = text_of(mixed)
    assert text.startswith("# Calibration between `small-base` and `big + a`\n")
    assert f"- points: {len(MIXED)}, lambda from 0 to 1.2, 3 of them with lambda by groups; methods " in text
    assert "; methods `linear`, `slerp`, `ties` with density 0.2, search" in text
    assert f"\nHow the parents were matched:\n\n- {NOTES[0]}\n- {NOTES[1]}\n" in text


def test_the_page_says_how_much_slerp_rotated(mixed: Results, ties_only: Results) -> None:
    assert (
        "- By `slerp` 3 of 30 tensors (10.0%) and 1,234 of 12,340 parameters (10.0%) were truly rotated. All others "
    ) in text_of(mixed)
    assert "rotated" not in text_of(ties_only)


def test_facts_about_the_merge_stay_when_tasks_are_added(tmp_path: Path) -> None:
    run = make_methods(tmp_path, [BASE, ALIGNED, *SLERP[:2]]).run
    slerp = SLERP[0]
    assert (run.merge_facts(slerp), run.merge_facts(BASE)) == (TURNED, {})
    run.save(slerp, "sciq", "choice", make_scores(0.2, 20, 3, 4))
    for merge in (None, {}):
        run.record(slerp, {"sciq": (["choice"], {})}, merge)
        assert run.merge_facts(slerp) == TURNED
    run.fail(slerp, "not finite")
    assert run.merge_facts(slerp) == TURNED
    run.record(slerp, {}, TURNED | {"slerped_tensors": 4})
    assert run.merge_facts(slerp)["slerped_tensors"] == 4
    results = Results.of(run)
    text = page(results, Landmarks.of(results), drawn=())
    assert "In 1 of 2 `slerp` points 4 of 30 tensors (13.3%)" in text
    assert "In 1 of 2 `slerp` points 3 of 30 tensors (10.0%)" in text


@pytest.mark.parametrize(
    "change",
    [
        {"method": "magic"},
        {"lambda": None},
        {"lambda": "much"},
        {"lambda": 0.7},
        {"options": {"density": 7}},
        {"options": {"size": 1}},
        {"options": [1]},
        {"groups": {"attention": "all"}},
        {"merge": 3},
    ],
)
def test_a_record_that_describes_no_point_or_another_is_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    run = make_methods(tmp_path, [BASE, ALIGNED, TIES[0]]).run
    path = tmp_path / "points" / f"{TIES[0].name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunDirectoryError, match=f"{path.name} is damaged"):
        Results.of(run)


def missed(path: Path, **plan: Any) -> int:
    """How many points a plan has that are not among a few measured ones of all methods."""
    return make_methods(path, [BASE, ALIGNED, LINEAR[0], TIES[0], GROUPS[0]], n=20, plan=plan).unmeasured


def test_only_points_of_the_plan_are_missed(tmp_path: Path) -> None:
    assert missed(tmp_path / "linear", lambdas=[0.2, 0.4]) == 1
    ties = {"method": "ties", "options": {"density": 0.2}}
    assert missed(tmp_path / "ties", **ties, lambdas=[0.0, 0.2, 1.0]) == 1  # its lambda = 1 is not the aligned model
    assert missed(tmp_path / "denser", method="ties", options={"density": 0.5}, lambdas=[0.2]) == 1
    assert missed(tmp_path / "slerp", method="slerp", lambdas=[0.0, 1.0]) == 0
    listed = [point.record() for point in (BASE, ALIGNED, *GROUPS)]
    assert missed(tmp_path / "groups", points=listed, lambdas=[0.1, 0.2]) == 2
    assert missed(tmp_path / "search", search="optuna", lambdas=[0.1, 0.2]) == 0


def test_points_are_called_by_all_that_tells_them_apart() -> None:
    ties, group = TIES[0], by_groups("ties", 0.2, 0.7, DENSITY)
    assert point_markdown(MergePoint("linear", 0.3)) == "lambda = 0.3"
    assert point_markdown(ties) == "`ties` with density 0.2 at lambda = 0.2"
    assert point_markdown(group) == "`ties` with density 0.2, lambda by groups (`*.mlp.*` 0.7, `attention` 0.2)"
    assert figure_text(MergePoint("linear", 0.3)) == "λ = 0.3"
    assert figure_text(ties) == "ties, density 0.2, λ = 0.2"
    assert figure_text(group) == "ties, density 0.2, λ by groups"
    assert title_lines("selected", MergePoint("linear", 0.3)) == ["selected, λ = 0.3"]
    assert title_lines("selected", group) == [
        "selected, λ by groups",
        "ties, density 0.2",
        "*.mlp.* 0.7, attention 0.2",
    ]


def test_runs_of_many_methods_and_options_can_be_drawn(tmp_path: Path) -> None:
    """More methods than there are colours, with long options, none of which goes through the aligned model."""
    points = [MergePoint("ties", lam, (("density", d / 10),)) for d in range(1, 9) for lam in (0.5, 1.0)]
    points += [MergePoint("della_linear", lam, (("drop_seed", seed),)) for seed in (1, 2) for lam in (0.5, 1.5)]
    results = written(make_methods(tmp_path, [BASE, ALIGNED, *points], n=40, shifts={"ties": 0.1, "della_linear": 0.0}))
    assert len(families_of(results.points)) == 10
    assert "The diamond is the aligned model" in text_of(results)
