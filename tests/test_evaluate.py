"""An evaluation as a whole: any models along an axis, measured once, resumed, refused, and lm-eval's samples."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import byte_tokenizer, save_model, tiny_llama, write_questions

import merge_calib.evaluation as evaluation_module
import merge_calib.measuring as measuring_module
from merge_calib.checkpoints.opening import Parents
from merge_calib.cli.evaluate import evaluate as command
from merge_calib.errors import CheckpointError, InputError, MergeCalibError, RunDirectoryError, ScoringError
from merge_calib.evaluation import default_label, evaluate, make_labels
from merge_calib.exchange import ImportPlan, import_samples, write_lm_eval_samples
from merge_calib.plan import EvaluationPlan, SweepPlan, parse_confidences
from merge_calib.points import AxisPoint, axis_points
from merge_calib.report import write_report
from merge_calib.report.evaluation_page import evaluation_page
from merge_calib.report.landmarks import Landmarks
from merge_calib.report.summary import summary
from merge_calib.results import Results
from merge_calib.run_directory import RunDirectory
from merge_calib.sweep import sweep

ALL = "choice,continuation-sum,continuation-norm"


@pytest.fixture(scope="session")
def steps(tmp_path_factory) -> list[Path]:
    """Three checkpoints, as of one training run."""
    root = tmp_path_factory.mktemp("steps")
    return [save_model(tiny_llama(seed), root / f"step{seed}") for seed in (1, 2, 3)]


def plan(models, questions, out, confidence="choice", **options) -> EvaluationPlan:
    return EvaluationPlan(
        models=tuple(map(str, models)),
        out=out,
        tasks=tuple(map(str, questions if isinstance(questions, list) else [questions])),
        confidence=parse_confidences(confidence),
        **options,
    )


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(out: Path) -> dict[str, bytes]:
    kept = [out / "results.csv", *sorted((out / "scores").rglob("*.npz"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def page(results: Results) -> str:
    """What report.md would say, without drawing the figures."""
    return evaluation_page(results, Landmarks.of(results), ())


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, str, tuple[str, ...]]]:
    """What is put to which model, in order."""
    loaded: list[str] = []
    heard = []
    model_class, original = evaluation_module.LanguageModel, measuring_module.score

    def loading(checkpoint, *rest, **options):
        loaded.append(checkpoint.folder.name)
        return model_class(checkpoint, *rest, **options)

    def scoring(model, questionnaire, task, confidences, *rest):
        heard.append((loaded[-1], task.name, tuple(confidences)))
        return original(model, questionnaire, task, confidences, *rest)

    monkeypatch.setattr(evaluation_module, "LanguageModel", loading)
    monkeypatch.setattr(measuring_module, "score", scoring)
    return heard


def test_an_evaluation_leaves_a_run_directory_like_a_sweeps(steps, questions, tmp_path):
    evaluate(plan(steps, questions, tmp_path / "out", ALL, axis="steps", positions=(30.0, 1.0, 2.0)))
    found = rows(tmp_path / "out")
    assert list(found[0])[:7] == ["point", "model", "label", "position", "task", "confidence", "split"]
    assert [row["label"] for row in found[::6]] == ["step2", "step3", "step1"]
    assert [row["position"] for row in found[::6]] == ["1.0", "2.0", "30.0"]
    assert found[0]["model"] == str(steps[1])
    assert {row["confidence"] for row in found} == set(ALL.split(","))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["kind"], run["axis"]) == ("evaluation", "steps")
    assert run["models"][0]["tasks"]["quiz"]["letters"] == " A"
    assert len(run["models"][0]["sha256"]) == 64
    record = json.loads((tmp_path / "out" / "points" / "step1.json").read_text())
    assert record["label"] == "step1"
    assert record["scores"]["quiz"]["choice"]["attention"] in ("varlen", "blocks", "rows")
    assert not (tmp_path / "out" / "frontier.json").exists()


def test_a_model_has_the_scores_that_a_sweep_has_at_its_ends(pair_folders, questions, tmp_path):
    evaluate(plan(pair_folders, questions, tmp_path / "out", ALL))
    base, aligned = map(str, pair_folders)
    sweep(
        SweepPlan(
            parents=Parents(base=base, aligned=(aligned,)),
            out=tmp_path / "sweep",
            tasks=(str(questions),),
            confidence=parse_confidences(ALL),
            lambdas=(0.0, 1.0),
        )
    )
    for label, point in (("base", "linear-lambda-0.0000"), ("aligned", "linear-lambda-1.0000")):
        for confidence in ALL.split(","):
            ours, theirs = (
                tmp_path / p / f"quiz.{confidence}.npz" for p in (f"out/scores/{label}", f"sweep/scores/{point}")
            )
            assert ours.read_bytes() == theirs.read_bytes()


def test_finished_models_are_not_loaded_again_and_new_ones_are_added(steps, questions, tmp_path, asked):
    out = tmp_path / "out"
    evaluate(plan(steps[:2], questions, out))
    assert asked == [("step1", "quiz", ("choice",)), ("step2", "quiz", ("choice",))]
    before = files(out)
    evaluate(plan(steps[:2], questions, out))
    assert files(out) == before
    asked.clear()
    evaluate(plan([steps[2], steps[0]], questions, out))
    assert asked == [("step3", "quiz", ("choice",))]
    assert [model["label"] for model in RunDirectory(out).plan["models"]] == ["step3", "step1", "step2"]
    asked.clear()
    evaluate(plan(steps[:1], questions, out, "choice,continuation-min"))
    assert asked == [("step1", "quiz", ("continuation-min",))]
    assert [row["label"] for row in rows(out) if row["task"] == "mean" and row["confidence"] == "choice"] == [
        "step1",
        "step3",
        "step2",
    ]


def test_a_run_that_was_cut_off_goes_on_and_ends_with_the_same_bytes(steps, tmp_path, monkeypatch):
    asked = [write_questions(tmp_path / f"quiz{i}.jsonl", 12, seed=i) for i in (1, 2)]
    evaluate(plan(steps, asked, tmp_path / "whole", ALL))
    original, calls = measuring_module.score, []

    def cut_off(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(measuring_module, "score", cut_off)
        with pytest.raises(KeyboardInterrupt):
            evaluate(plan(steps, asked, tmp_path / "out", ALL))
    assert Results.of(RunDirectory.open(tmp_path / "out")).unmeasured == 2
    evaluate(plan(steps, asked, tmp_path / "out", ALL))
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_contradicts_a_run_is_refused_and_changes_nothing(steps, pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    evaluate(plan(steps[:2], questions, out))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "more").mkdir()
    other = write_questions(tmp_path / "more" / "quiz.jsonl", 5)
    refusals = {
        r"model step1: the run has other weights \(.*step1\) than asked for \(.*step3\)": plan(
            [steps[2]], questions, out, labels=("step1",)
        ),
        r"task quiz: the run has other questions \(12\) than asked for \(5\)": plan(steps, other, out),
        "dtype: the run has float32, asked is bfloat16": plan(steps, questions, out, dtype=torch.bfloat16),
        "finish_prompts: the run has False, asked is True": plan(steps, questions, out, finish_prompts=True),
        "model step2 of the run has no position on the axis": plan(steps[:1], questions, out, positions=(1.0,)),
    }
    for message, asked in refusals.items():
        with pytest.raises(RunDirectoryError, match=message):
            evaluate(asked)
    parents = Parents(base=str(pair_folders[0]), aligned=(str(pair_folders[1]),))
    with pytest.raises(RunDirectoryError, match="it holds an evaluation, asked is a sweep"):
        sweep(SweepPlan(parents=parents, out=out, tasks=(str(questions),), lambdas=(0.0, 1.0)))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_the_same_label_with_another_tokenizer_is_refused(steps, questions, tmp_path):
    model = shutil.copytree(steps[0], tmp_path / "step1")
    evaluate(plan([model], questions, tmp_path / "out"))
    byte_tokenizer(words=(" B", " A", " C", " D", " E")).save_pretrained(model)
    with pytest.raises(RunDirectoryError, match="model step1, task quiz: its questions are other tokens now"):
        evaluate(plan([model], questions, tmp_path / "out"))


def test_models_with_different_vocabularies_stand_on_one_axis(steps, questions, tmp_path):
    other = save_model(tiny_llama(4, vocab=300), tmp_path / "other")
    byte_tokenizer(words=(" E", " D", " what", " C", " B", " A", " is")).save_pretrained(other)
    results = evaluate(plan([steps[0], other, steps[1]], questions, tmp_path / "out", ALL))
    tasks = [model["tasks"]["quiz"]["rows"]["choice"] for model in results.run.plan["models"]]
    assert tasks[0] == tasks[2] != tasks[1]
    assert len(results.line("quiz", "choice")) == 3


def test_every_fault_is_found_before_the_first_model_is_loaded(steps, questions, tmp_path, asked):
    bad = shutil.copytree(steps[2], tmp_path / "bad")
    byte_tokenizer(words=(" A", " B", *(f" word{i}" for i in range(20)), " C", " D")).save_pretrained(bad)
    with pytest.raises(CheckpointError, match="model bad: the tokenizer of .*bad gives token id"):
        evaluate(plan([*steps[:2], bad], questions, tmp_path / "out"))
    with pytest.raises(InputError, match="MODEL no/such/folder/at/all: there is no such folder"):
        evaluate(plan([*steps, "no/such/folder/at/all"], questions, tmp_path / "out"))
    assert asked == []
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_loaded_leaves_no_folder(steps, questions, tmp_path):
    bad = shutil.copytree(steps[0], tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text()) | {"num_hidden_layers": 3}
    (bad / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="model bad: .* lacks .* tensor"):
        evaluate(plan([bad, steps[0]], questions, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_model_without_finite_scores_is_marked_and_the_others_go_on(steps, questions, tmp_path, monkeypatch, asked):
    original = measuring_module.score

    def broken_in_the_middle(*arguments):
        scores = original(*arguments)
        if asked[-1][0] == "step2":
            raise ScoringError("12 question(s) have a non-finite score, the first is 'q0'")
        return scores

    with monkeypatch.context() as patch:
        patch.setattr(measuring_module, "score", broken_in_the_middle)
        results = evaluate(plan(steps, questions, tmp_path / "out"))
    assert results.failed == {"step2": "task quiz: 12 question(s) have a non-finite score, the first is 'q0'"}
    assert [row.point.name for row in results.line("quiz", "choice")] == ["step1", "step3"]
    assert results.unmeasured == 0
    assert "`step2` failed and is left out: task quiz: 12 question(s)" in page(results)
    assert "1 model failed: step2; report.md says why" in summary(results)
    asked.clear()
    evaluate(plan(steps, questions, tmp_path / "out"))
    assert asked == []
    (tmp_path / "out/points/step2.json").unlink()
    assert evaluate(plan(steps, questions, tmp_path / "out")).failed == {}


def test_weights_that_are_too_large_for_finite_scores_fail_alone(steps, questions, tmp_path):
    model = tiny_llama(5)
    with torch.no_grad():
        model.lm_head.weight.fill_(3e38)
    results = evaluate(plan([steps[0], save_model(model, tmp_path / "huge")], questions, tmp_path / "out"))
    assert list(results.failed) == ["huge"]
    assert "non-finite" in results.failed["huge"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("a", "b")}, r"--labels names 2 model\(s\), but 3 are given"),
        ({"labels": ("a", "b", "a")}, "two models are called 'a': give --labels"),
        ({"labels": ("a", "b", "A")}, "'a' and 'A' look alike as files"),
        ({"labels": ("a", " ", "c")}, "a label is empty"),
        ({"positions": (1.0, 2.0)}, r"--positions has 2 number\(s\), but 3 models are given"),
        ({"positions": (1.0, 2.0, float("nan"))}, "--positions must be finite"),
        ({"chat": "aligned"}, "no model is the base: give both"),
    ],
)
def test_an_axis_that_makes_no_sense_is_refused(steps, questions, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(plan(steps, questions, tmp_path / "out", **options))


def test_two_models_of_one_name_need_labels_and_may_be_the_same(steps, questions, tmp_path):
    (tmp_path / "again").mkdir()
    twin = shutil.copytree(steps[0], tmp_path / "again" / "step1")
    with pytest.raises(InputError, match="two models are called 'step1': give --labels"):
        evaluate(plan([steps[0], twin], questions, tmp_path / "out"))
    results = evaluate(plan([steps[0], twin], questions, tmp_path / "out", labels=("one", "two")))
    one, two = results.line("quiz", "choice")
    assert one.measurement == two.measurement


def test_default_labels_are_the_ends_of_names(steps, tmp_path, monkeypatch):
    monkeypatch.chdir(steps[0])
    assert default_label(".") == "step1"
    assert default_label("EleutherAI/pythia-70m@step512") == "pythia-70m@step512"
    assert default_label("EleutherAI/pythia-70m@refs/pr/1") == "pythia-70m@refs/pr/1"
    assert make_labels(["a", "b"], ()) == ("a", "b")


def test_labels_become_file_names_that_differ():
    names = [AxisPoint(0, label).name for label in ("step 1", "step/1", "step-1", "..", "ü", "x" * 300)]
    assert names[2] == "step-1"
    assert len(set(names)) == 6
    assert all(name[0] not in "." and "/" not in name and len(name) < 120 for name in names)


def test_models_stand_by_position_or_else_in_their_order():
    given = [{"label": "b", "model": "b", "position": 2.0}, {"label": "a", "model": "a", "position": -1.0}]
    assert [point.label for point in axis_points(given)] == ["a", "b"]
    assert [point.label for point in axis_points([m | {"position": None} for m in given])] == ["b", "a"]


def next_token_task(folder: Path) -> str:
    texts = folder / "texts.jsonl"
    lines = [json.dumps({"id": f"t{i}", "text": f"The mill number {i} stands at the old harbour."}) for i in range(8)]
    texts.write_text("\n".join(lines) + "\n")
    return f"clm:{texts}"


def test_means_are_over_the_tasks_that_a_method_applies_to(steps, tmp_path):
    quizzes = [write_questions(tmp_path / f"quiz{i}.jsonl", 10, seed=i) for i in (1, 2)]
    results = evaluate(plan(steps[:2], [*quizzes, next_token_task(tmp_path)], tmp_path / "out", ALL))
    assert results.confidences == (*ALL.split(","), "next-token")
    found = rows(tmp_path / "out")
    texts = next(name for name in results.tasks if not name.startswith("quiz"))
    by_key = {(row["label"], row["task"], row["confidence"]): row for row in found}
    assert len(found) == len(by_key) == 2 * (3 * 3 + 2)
    for label in ("step1", "step2"):
        accuracies = [float(by_key[label, f"quiz{i}", "choice"]["accuracy"]) for i in (1, 2)]
        assert float(by_key[label, "mean", "choice"]["accuracy"]) == pytest.approx(sum(accuracies) / 2)
        assert by_key[label, "mean", "next-token"]["ece"] == by_key[label, texts, "next-token"]["ece"]
        assert by_key[label, "mean", "next-token"]["sce"] == by_key[label, texts, "next-token"]["brier"] == ""
        assert by_key[label, "mean", "choice"]["letter_mass"] != ""
        assert by_key[label, "mean", "continuation-sum"]["letter_bias"] == ""


@pytest.mark.usefixtures("unsaved_figures")
def test_next_token_tasks_alone_are_evaluated_and_reported(steps, tmp_path):
    results = evaluate(plan(steps[:2], next_token_task(tmp_path), tmp_path / "out", finish_prompts=True))
    assert results.confidences == ("next-token",)
    write_report(results)
    assert {path.name for path in (tmp_path / "out/figures").glob("*.png")} == {
        "axis.png",
        "reliability.png",
        "confidence.png",
    }
    assert "SCE" not in (tmp_path / "out/report.md").read_text()


def test_samples_written_and_read_again_give_the_same_measures(steps, tmp_path):
    quizzes = [write_questions(tmp_path / f"quiz{i}.jsonl", 10, seed=i) for i in (1, 2)]
    asked = plan(steps, quizzes, tmp_path / "out", ALL)
    results = evaluate(asked)
    written = write_lm_eval_samples(asked, results.run)
    assert len(written) == 3 * 2 * 2
    assert write_lm_eval_samples(asked, results.run) == []
    imported = import_samples(ImportPlan(files=(str(tmp_path / "out" / "lm_eval"),), out=tmp_path / "in"))
    measures = {(r.point.name, r.task, r.confidence): r.measurement for r in results.rows}
    assert {(r.point.name, r.task, r.confidence): r.measurement for r in imported.rows} == measures
    run = imported.run.plan
    assert run["identity"] == {"source": "lm-eval samples"}
    assert set(run["models"][0]["tasks"]["quiz1"]["files"]) == set(ALL.split(","))
    assert "read from lm-eval's logged samples: no model ran here" in page(imported)


def test_samples_of_other_questions_are_refused(steps, tmp_path):
    for label, count in (("a", 10), ("b", 7)):
        asked = plan(steps[:1], write_questions(tmp_path / "quiz.jsonl", count), tmp_path / label, labels=(label,))
        write_lm_eval_samples(asked, evaluate(asked).run)
    patterns = tuple(str(tmp_path / label / "lm_eval" / "**" / "*.jsonl") for label in "ab")
    with pytest.raises(InputError, match=r"task quiz: .* has other questions \(7\) than .* \(10\)"):
        import_samples(ImportPlan(files=patterns, out=tmp_path / "in"))
    assert not (tmp_path / "in").exists()
    import_samples(ImportPlan(files=patterns[:1], out=tmp_path / "in"))
    with pytest.raises(RunDirectoryError, match=r"task quiz: the run has other questions \(10\) than asked for \(7\)"):
        import_samples(ImportPlan(files=patterns[1:], out=tmp_path / "in"))


def test_two_files_for_one_model_and_task_are_refused_with_both_names(steps, questions, tmp_path):
    asked = plan(steps[:1], questions, tmp_path / "out")
    [path] = write_lm_eval_samples(asked, evaluate(asked).run)
    shutil.copy(path, path.with_name("samples_quiz_2020-01-01T00-00-00.jsonl"))
    with pytest.raises(InputError, match=r"model step1, task quiz, choice: both .*2020.* and .* have it"):
        import_samples(ImportPlan(files=(str(path.parent),), out=tmp_path / "in"))
    with pytest.raises(InputError, match="--from-lm-eval nothing\\*: there is no such file"):
        import_samples(ImportPlan(files=("nothing*",), out=tmp_path / "in"))


def test_a_changed_file_of_samples_is_refused(steps, questions, tmp_path):
    asked = plan(steps[:1], questions, tmp_path / "out", "continuation-sum")
    [path] = write_lm_eval_samples(asked, evaluate(asked).run)
    import_samples(ImportPlan(files=(str(path),), out=tmp_path / "in"))
    before = files(tmp_path / "in")
    import_samples(ImportPlan(files=(str(path),), out=tmp_path / "in", labels=("step1",)))
    assert files(tmp_path / "in") == before
    path.write_text(path.read_text().replace('"subject": ""', '"subject": "x"'))
    with pytest.raises(RunDirectoryError, match="model step1, task quiz: the run read another file than"):
        import_samples(ImportPlan(files=(str(path),), out=tmp_path / "in"))


def test_samples_of_lm_eval_itself_are_read(tmp_path):
    data = Path(__file__).parent / "data/lm_eval/stories260k"
    names = ("texts", "letters")
    patterns = tuple(str(next(data.glob(f"samples_village_{name}_*.jsonl"))) for name in names)
    results = import_samples(ImportPlan(files=patterns, out=tmp_path / "in"))
    assert results.tasks == ("village_texts", "village_letters")
    assert results.tasks_of("choice") == ("village_letters",)
    assert results.tasks_of("continuation-sum") == ("village_texts",)
    [mean] = results.line("mean", "choice")
    [letters] = results.line("village_letters", "choice")
    assert mean.measurement == letters.measurement
    assert "On the one task of each kind." in page(results)


def call(*arguments) -> str:
    outcome = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


@pytest.mark.usefixtures("unsaved_figures")
def test_the_command_measures_reports_and_says_what_it_found(steps, questions, tmp_path):
    out = tmp_path / "out"
    said = call(
        *steps, "--tasks", questions, "--out", out, "--axis", "training steps", "--positions", "512,1000,143000",
        "--labels", "a,b,c", "--write-lm-eval-samples",
    )  # fmt: skip
    assert [line.split()[0] for line in said.splitlines()[2:5]] == ["a", "b", "c"]
    assert said.splitlines()[-1].endswith("report.md")
    text = (out / "report.md").read_text()
    assert text.startswith("# Calibration along training steps: 3 models\n")
    assert "| `c` | 143,000 |" in text
    again = call("--from-lm-eval", out / "lm_eval", "--out", tmp_path / "in")
    assert said.splitlines()[1:5] == again.splitlines()[1:5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to evaluate: give at least one MODEL"),
        (["model", "--from-lm-eval", "x"], "evaluate reads lm-eval's samples and asks no MODEL"),
        (["--from-lm-eval", "x", "--write-lm-eval-samples"], "--from-lm-eval has that already"),
        (["--from-lm-eval", "x", "--confidence", "choice"], "--confidence is for asking models"),
        (["--from-lm-eval", "x", "--bins", "0"], "--bins must lie between 1 and 1000"),
        (["model", "--positions", "1,two"], "--positions '1,two' is no list of numbers"),
        (["model", "--labels", "a,,b"], "--labels 'a,,b' has an empty name"),
        (["model", "--bins", "0"], "--bins must be at least 1"),
    ],
)
def test_flags_that_contradict_each_other(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(command, arguments)
    assert isinstance(outcome.exception, MergeCalibError)
    assert message in str(outcome.exception)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def two_models_of_samples(steps, questions, tmp_path) -> Path:
    asked = plan(steps[:2], questions, tmp_path / "asked")
    write_lm_eval_samples(asked, evaluate(asked).run)
    return tmp_path / "asked" / "lm_eval" / "choice"


def test_labels_do_not_go_to_models_by_the_order_of_their_folders(two_models_of_samples, tmp_path):
    folder = two_models_of_samples
    with pytest.raises(
        InputError, match=r"holds 2 models \(.*step1, .*step2\); with --labels or --positions give each"
    ):
        import_samples(ImportPlan(files=(str(folder),), out=tmp_path / "out", labels=("a", "b")))
    each = tuple(str(folder / name) for name in ("step2", "step1"))
    import_samples(ImportPlan(files=each, out=tmp_path / "out", labels=("late", "early"), positions=(2.0, 1.0)))
    models = {m["label"]: m["position"] for m in json.loads((tmp_path / "out" / "run.json").read_text())["models"]}
    assert models == {"late": 2.0, "early": 1.0}


def test_the_axis_keeps_its_name_until_another_is_given(steps, questions, tmp_path):
    out = tmp_path / "out"
    evaluate(plan(steps[:1], questions, out, axis="steps"))
    assert evaluate(plan(steps[:2], questions, out)).run.plan["axis"] == "steps"
    assert evaluate(plan(steps[:1], questions, out, axis="epochs")).run.plan["axis"] == "epochs"
