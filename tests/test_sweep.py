"""The run as a whole: what it leaves, what it never does twice, and how it survives."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer, save_model, tiny_llama, write_questions
from plain_loop import choice_log_probabilities
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import merge_calib.measuring as measuring_module
from merge_calib.analysis import Analysis
from merge_calib.checkpoints.opening import Parents
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.errors import CheckpointError, InputError, OutputError, RunDirectoryError, ScoringError
from merge_calib.files import this_host
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.plan import SweepPlan, parse_confidences, parse_lambdas
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import load_scores
from merge_calib.scoring.model import LanguageModel
from merge_calib.selection import Rule
from merge_calib.sweep import sweep
from merge_calib.tasks import load_task
from merge_calib.working import PointLeftOutWarning

ALL = "choice,continuation-sum,continuation-min"


def plan(folders, questions, out, lambdas="0:1.5:0.5", confidence="choice", **options) -> SweepPlan:
    return SweepPlan(
        parents=Parents(base=str(folders[0]), aligned=(str(folders[1]),)),
        out=out,
        tasks=(str(questions),),
        confidence=parse_confidences(confidence),
        lambdas=parse_lambdas(lambdas),
        **options,
    )


def files(folder: Path) -> dict[str, bytes]:
    kept = [folder / "results.csv", *sorted((folder / "scores").rglob("*.npz"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def rows(out: Path, split: str = "all") -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def test_a_sweep_leaves_the_run_directory_of_the_design(pair_folders, questions, tmp_path):
    sweep(plan(pair_folders, questions, tmp_path / "out", confidence=ALL))
    found = rows(tmp_path / "out")
    assert [row["point"] for row in found[::6]] == [f"linear-lambda-{lam}000" for lam in ("0.0", "0.5", "1.0", "1.5")]
    assert {row["task"] for row in found} == {"quiz", "mean"}
    assert {row["confidence"] for row in found} == set(ALL.split(","))
    assert {row["n"] for row in found} == {"12"}
    record = json.loads((tmp_path / "out" / "points" / "linear-lambda-0.5000.json").read_text())
    assert record["lambda"] == 0.5
    assert set(record["scores"]["quiz"]) == set(ALL.split(","))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(run["identity"]["base"]["sha256"]) == 64
    assert run["tasks"]["quiz"]["letters"] == " A"


def test_scores_at_both_ends_and_between_equal_a_plain_loop_over_saved_checkpoints(pair_folders, questions, tmp_path):
    """The reference merges in numpy, saves the checkpoint and asks it one row at a time."""
    sweep(plan(pair_folders, questions, tmp_path / "out", confidence=ALL))
    parents = [AutoModelForCausalLM.from_pretrained(folder) for folder in pair_folders]
    task, tokenizer = load_task(str(questions)), byte_tokenizer()
    for lam in (0.0, 0.5, 1.0):
        merged = AutoModelForCausalLM.from_pretrained(pair_folders[1])
        for name, tensor in merged.state_dict().items():
            one, other = (parent.state_dict()[name].float().numpy().astype(np.float64) for parent in parents)
            mixed = torch.from_numpy(((1 - lam) * one + lam * other).astype(np.float32)).to(torch.bfloat16)
            tensor.copy_(mixed)
        merged.save_pretrained(tmp_path / f"reference-{lam}")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / f"reference-{lam}", dtype=torch.float32).eval()
        folder = tmp_path / "out" / "scores" / MergePoint("linear", lam).name
        scores = {c: load_scores(folder / f"quiz.{c}.npz").logprobs for c in ALL.split(",")}
        for i, q in enumerate(task.questions):
            lines = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", q.choices, strict=False))
            for k, choice in enumerate(q.choices):
                prompt = f"{q.question}\n{lines}Answer:"
                letter = choice_log_probabilities(model, tokenizer, prompt, f" {'ABCD'[k]}")
                said = choice_log_probabilities(model, tokenizer, f"Question: {q.question}\nAnswer:", f" {choice}")
                assert scores["choice"][i, k] == pytest.approx(letter[0], abs=1e-4)
                assert scores["continuation-sum"][i, k] == pytest.approx(sum(said), abs=1e-4)
                assert scores["continuation-min"][i, k] == pytest.approx(min(said), abs=1e-4)


def test_the_recovered_checkpoint_gives_the_scores_of_the_sweep(pair_folders, tmp_path):
    out = tmp_path / "out"
    questions = write_questions(tmp_path / "quiz.jsonl", 12, seed=4)  # a seed that selects a point between
    results = sweep(plan(pair_folders, questions, out, analysis=Analysis(rule=Rule(margin=1.0))))
    assert results.selection.recovers
    recovered = out / "checkpoints" / results.selection.point
    again = sweep(plan((recovered, pair_folders[1]), questions, tmp_path / "again", lambdas="0,1"))
    name = results.selection.point
    before = load_scores(out / "scores" / name / "quiz.choice.npz").logprobs
    after = load_scores(again.run.path / "scores" / "linear-lambda-0.0000" / "quiz.choice.npz").logprobs
    np.testing.assert_array_equal(before, after)


def test_nothing_is_recovered_where_the_aligned_model_is_selected(pair_folders, questions, tmp_path):
    results = sweep(plan(pair_folders, questions, tmp_path / "out", lambdas="0,1"))
    assert results.selection.point == "linear-lambda-1.0000"
    assert not (tmp_path / "out" / "checkpoints").exists()
    frontier = json.loads((tmp_path / "out" / "frontier.json").read_text())
    assert frontier["selected"]["recovers"] is False
    assert "lambda > 0" in frontier["selected"]["rule"]
    [base, aligned] = frontier["points"]["choice"]
    assert (base["lambda"], aligned["lambda"]) == (0.0, 1.0)
    means = {row["lambda"]: row for row in rows(tmp_path / "out", "report") if row["task"] == "mean"}
    assert base["sce"] == float(means["0.0"]["sce"])
    best = max((base, aligned), key=lambda point: (point["accuracy"], -point["sce"]))
    assert best["point"] in frontier["frontier"]["choice"]
    assert frontier["claims"] == []
    assert frontier["unmeasured"] == 0


def test_a_finished_run_is_not_measured_again(pair_folders, questions, tmp_path, count_scoring):
    sweep(plan(pair_folders, questions, tmp_path / "out"))
    assert len(count_scoring) == 4
    before = files(tmp_path / "out")
    sweep(plan(pair_folders, questions, tmp_path / "out"))
    assert len(count_scoring) == 4
    assert files(tmp_path / "out") == before


def test_more_points_tasks_and_methods_measure_only_those(pair_folders, questions, tmp_path, count_scoring):
    out = tmp_path / "out"
    sweep(plan(pair_folders, questions, out, lambdas="0,0.5,1"))
    stamps = {path: path.stat().st_mtime_ns for path in (out / "scores").rglob("*.npz")}
    count_scoring.clear()
    sweep(plan(pair_folders, questions, out, lambdas="0,0.25,0.5,1"))
    assert count_scoring == [("quiz", ("choice",))]
    count_scoring.clear()
    sweep(plan(pair_folders, questions, out, lambdas="0,1", confidence="choice,continuation-min"))
    assert count_scoring == [("quiz", ("continuation-min",))] * 2
    count_scoring.clear()
    other = write_questions(tmp_path / "other.jsonl", 5, seed=1)
    sweep(plan(pair_folders, other, out, lambdas="0,1"))
    assert count_scoring == [("other", ("choice",))] * 2
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    frontier = json.loads((out / "frontier.json").read_text())
    assert frontier["incomplete"] == ["linear-lambda-0.2500", "linear-lambda-0.5000"]


def test_a_run_in_two_parts_ends_with_the_same_bytes(pair_folders, questions, tmp_path):
    sweep(plan(pair_folders, questions, tmp_path / "once", confidence=ALL))
    sweep(plan(pair_folders, questions, tmp_path / "twice", lambdas="0,1,1.5", confidence=ALL))
    sweep(plan(pair_folders, questions, tmp_path / "twice", confidence=ALL))
    assert files(tmp_path / "once") == files(tmp_path / "twice")


KILLED = """
import sys
from pathlib import Path
from test_sweep import ALL, plan
from merge_calib.sweep import sweep
base, aligned, questions, out = map(Path, sys.argv[1:])
sweep(plan((base, aligned), questions, out, lambdas="0:1:0.1", confidence=ALL, retained=False))
"""


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_bytes(pair_folders, tmp_path):
    """kill -9 three times, each when one more scores file has appeared."""
    questions = write_questions(tmp_path / "quiz.jsonl", 150)
    command = [sys.executable, "-c", KILLED, *map(str, (*pair_folders, questions, tmp_path / "killed"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = 0
    for wanted in (1, 4, 9):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        while process.poll() is None and len(list((tmp_path / "killed").rglob("*.npz"))) < wanted:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stderr.close()
    assert killed == 3
    (tmp_path / "killed" / "scores" / f".half.npz.partial-{this_host()}-{process.pid}").write_bytes(b"x")
    subprocess.run(command, env=environment, check=True, capture_output=True)
    sweep(plan(pair_folders, questions, tmp_path / "whole", lambdas="0:1:0.1", confidence=ALL, retained=False))
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.partial-*"))


def test_scores_that_were_written_but_not_recorded_are_kept(pair_folders, questions, tmp_path, count_scoring):
    out = tmp_path / "out"
    sweep(plan(pair_folders, questions, out))
    before = files(out)
    (out / "points" / "linear-lambda-0.5000.json").unlink()
    count_scoring.clear()
    sweep(plan(pair_folders, questions, out))
    assert count_scoring == []
    assert files(out) == before


def test_a_folder_with_another_plan_is_refused_and_left_alone(pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    sweep(plan(pair_folders, questions, out, lambdas="0,1"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(RunDirectoryError, match="dtype: the run has float32, asked is bfloat16"):
        sweep(plan(pair_folders, questions, out, dtype=torch.bfloat16))
    with pytest.raises(RunDirectoryError, match=r"base: the run has other weights \(.*base\) than asked for"):
        sweep(plan(pair_folders[::-1], questions, out))
    with pytest.raises(RunDirectoryError, match=r"other questions \(12\) than asked for \(5, --limit 5\)"):
        sweep(plan(pair_folders, questions, out, limit=5))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_folder_with_other_things_in_it_is_refused(pair_folders, questions, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(RunDirectoryError, match="not empty and holds no run"):
        sweep(plan(pair_folders, questions, tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_two_processes_cannot_measure_into_one_folder(pair_folders, questions, tmp_path):
    from merge_calib.run_directory import RunDirectory

    with RunDirectory(tmp_path / "out").locked(), pytest.raises(RunDirectoryError, match="in use by another"):
        sweep(plan(pair_folders, questions, tmp_path / "out"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "run.json").write_text("{"), "run.json is damaged"),
        (lambda out: (out / "points/linear-lambda-0.0000.json").write_text("[]"), "0.0000.json is damaged"),
        (
            lambda out: (out / "scores/linear-lambda-0.0000/quiz.choice.npz").unlink(),
            "is missing: delete",
        ),
        (
            lambda out: (out / "scores/linear-lambda-0.0000/quiz.choice.npz").write_bytes(b"x"),
            "its hash is another: delete",
        ),
        (
            lambda out: (out / "points/linear-lambda-0.0000.json").write_text(
                '{"scores": [], "method": "linear", "lambda": 0}'
            ),
            "does not say where its scores are",
        ),
        (lambda out: (out / "run.json").write_text('{"format": 99}'), "format 99; this version reads format 1"),
    ],
)
def test_damage_is_named_by_its_file(pair_folders, questions, tmp_path, damage, message):
    sweep(plan(pair_folders, questions, tmp_path / "out", lambdas="0,1"))
    damage(tmp_path / "out")
    with pytest.raises(RunDirectoryError, match=message):
        sweep(plan(pair_folders, questions, tmp_path / "out", lambdas="0,1"))


def test_a_full_disk_stops_with_one_message_and_the_run_goes_on_later(pair_folders, questions, tmp_path, monkeypatch):
    sweep(plan(pair_folders, questions, tmp_path / "whole"))
    saved = []

    def full_at_the_third(file, **fields):
        saved.append(file)
        if len(saved) == 3:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        return original(file, **fields)

    original = np.savez
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full_at_the_third)
        with pytest.raises(OutputError, match=r"quiz\.choice\.npz: No space left on device"):
            sweep(plan(pair_folders, questions, tmp_path / "out"))
    assert len(list((tmp_path / "out").rglob("*.npz"))) == 2
    assert not list((tmp_path / "out").rglob("*partial*"))
    sweep(plan(pair_folders, questions, tmp_path / "out"))
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_tokenizers_that_disagree_are_refused_with_the_question(pair_folders, questions, tmp_path):
    base = save_model(tiny_llama(1), tmp_path / "base", torch.bfloat16)
    byte_tokenizer(words=(" B", " A", " C", " D", " E")).save_pretrained(base)
    with pytest.raises(Exception, match="tokenizers disagree: task quiz, question 'q0'"):
        sweep(plan((base, pair_folders[1]), questions, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_tokenizers_that_differ_only_where_nothing_is_asked_are_accepted(pair_folders, questions, tmp_path):
    base = save_model(tiny_llama(1), tmp_path / "base", torch.bfloat16)
    byte_tokenizer(words=(" A", " B", " C", " D", " zebra")).save_pretrained(base)
    sweep(plan((base, pair_folders[1]), questions, tmp_path / "out", lambdas="0,1"))


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_setting_that_one_parent_leaves_to_its_default_is_compared_by_value(pair_folders, questions, tmp_path):
    base = shutil.copytree(pair_folders[0], tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    del config["rope_parameters"]
    (base / "config.json").write_text(json.dumps(config))
    sweep(plan((base, pair_folders[1]), questions, tmp_path / "same", lambdas="0,1"))  # the default is what it was
    aligned = shutil.copytree(pair_folders[1], tmp_path / "aligned")
    edit_config(aligned, rope_parameters={"rope_theta": 50.0, "rope_type": "default"})
    with pytest.raises(CheckpointError, match=r"config rope_theta: base 10000\.0, aligned 50\.0"):
        sweep(plan((base, aligned), questions, tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_the_same_weights_under_another_config_or_tokenizer_are_another_run(pair_folders, questions, tmp_path):
    folders = [shutil.copytree(folder, tmp_path / folder.name) for folder in pair_folders]
    sweep(plan(folders, questions, tmp_path / "out", lambdas="0,1"))
    for folder in folders:
        byte_tokenizer(words=(" B", " A", " C", " D", " E")).save_pretrained(folder)
    with pytest.raises(RunDirectoryError, match="task quiz: its questions are other tokens now"):
        sweep(plan(folders, questions, tmp_path / "out", lambdas="0,0.5,1"))
    for folder in folders:
        byte_tokenizer().save_pretrained(folder)
        edit_config(folder, rope_parameters={"rope_theta": 50.0, "rope_type": "default"})
    with pytest.raises(RunDirectoryError, match="settings: the run has"):
        sweep(plan(folders, questions, tmp_path / "out", lambdas="0,0.5,1"))


def test_a_head_that_only_one_parent_ties_is_refused(pair_folders, questions, tmp_path):
    folders = []
    for side, seed in (("base", 1), ("aligned", 2)):
        folder = save_model(tiny_llama(seed, tie_word_embeddings=True), tmp_path / side)
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone() + (side == "base")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        folders.append(folder)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight and model\.embed_tokens\.weight are one tensor"):
        sweep(plan(folders, questions, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused(questions, tmp_path):
    folders = [save_model(tiny_llama(seed, vocab=100), tmp_path / str(seed)) for seed in (1, 2)]
    with pytest.raises(CheckpointError, match="gives token id 26., but the model has 100 tokens"):
        sweep(plan(folders, questions, tmp_path / "out"))


def test_a_point_that_cannot_be_scored_is_left_out_and_the_rest_goes_on(pair_folders, questions, tmp_path, monkeypatch):
    def failing(model, questionnaire, task, *rest):
        if float(model.targets["model.norm.weight"][0]) == at_half:
            raise ScoringError("1 question(s) have a non-finite score, the first is 'q0'")
        return original(model, questionnaire, task, *rest)

    pair = ModelPair.open(*pair_folders)
    at_half = float(Merger(pair).tensor(MergePoint("linear", 0.5), "model.norm.weight")[0])
    original = measuring_module.score
    monkeypatch.setattr(measuring_module, "score", failing)
    with pytest.warns(PointLeftOutWarning, match=r"point linear-lambda-0\.5000, task quiz: 1 question.*'q0'"):
        sweep(plan(pair_folders, questions, tmp_path / "out"))
    assert sorted({row["lambda"] for row in rows(tmp_path / "out")}) == ["0.0", "1.0", "1.5"]
    [failed] = json.loads((tmp_path / "out" / "frontier.json").read_text())["failed"]
    assert failed["point"] == "linear-lambda-0.5000"
    assert "'q0'" in failed["reason"]


def test_a_point_that_failed_is_tried_again_only_when_its_record_is_deleted(pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    sweep(plan(pair_folders, questions, out, lambdas="0,1"))
    run = RunDirectory.open(out)
    run.fail(MergePoint("linear", 0.5), "point linear-lambda-0.5000, task quiz: broken")
    with pytest.warns(PointLeftOutWarning, match="task quiz: broken; the point is left out"):
        sweep(plan(pair_folders, questions, out, lambdas="0,0.5,1"))
    assert "0.5" not in {row["lambda"] for row in rows(out)}
    (out / "points" / "linear-lambda-0.5000.json").unlink()
    sweep(plan(pair_folders, questions, out, lambdas="0,0.5,1"))
    assert "0.5" in {row["lambda"] for row in rows(out)}


def test_scores_that_are_not_finite_name_point_task_and_question(pair_folders, questions, tmp_path):
    """Weights so far apart that a point beyond both overflows, where neither parent does: the sweep goes on."""
    folders = [tmp_path / "base", tmp_path / "aligned"]
    for source, folder, sign in zip(pair_folders, folders, (1, -1), strict=True):
        shutil.copytree(source, folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"] = torch.full((32,), sign * 1e37, dtype=torch.float32).to(torch.bfloat16)
        tensors["lm_head.weight"] = tensors["lm_head.weight"] * 1e-38
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    expected = r"point linear-lambda-\d.*, task quiz: 12 question\(s\) have a non-finite score, the first is 'q0'"
    with pytest.warns(PointLeftOutWarning, match=expected):
        sweep(plan(folders, questions, tmp_path / "out", lambdas="0,1,30,0.5"))
    assert {row["lambda"] for row in rows(tmp_path / "out")} == {"0.0", "0.5", "1.0"}


def test_the_first_confidence_method_of_the_last_command_selects(pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    sweep(plan(pair_folders, questions, out, confidence="choice,continuation-sum"))
    before = (out / "results.csv").read_bytes()
    results = sweep(plan(pair_folders, questions, out, confidence="continuation-sum,choice"))
    assert results.confidences == ("continuation-sum", "choice")
    assert (out / "results.csv").read_bytes() == before


@pytest.mark.parametrize("content", ['{"format": 1}', '{"format": 1, "identity": {}, "tasks": {}, "confidence": []}'])
def test_a_run_json_that_lacks_things_is_damaged(content, pair_folders, questions, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=r"run\.json is damaged \(it lacks"):
        sweep(plan(pair_folders, questions, tmp_path / "out"))


def test_an_out_that_cannot_be_a_folder_is_said(pair_folders, questions, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write into .*: Not a directory"):
        sweep(plan(pair_folders, questions, tmp_path / "file" / "out"))


def test_a_damaged_study_is_named_and_costs_no_measurement(pair_folders, questions, tmp_path, count_scoring):
    searching = {"lambdas": "0:1.5:0.5", "search": "optuna", "trials": 2}
    sweep(plan(pair_folders, questions, tmp_path / "out", **searching))
    journal = tmp_path / "out" / "study.journal"
    journal.write_text(journal.read_text()[:-200] + "{broken\n{}\n")
    with pytest.raises(RunDirectoryError, match=r"study\.journal is damaged"):
        sweep(plan(pair_folders, questions, tmp_path / "out", **searching))
    journal.unlink()
    count_scoring.clear()
    sweep(plan(pair_folders, questions, tmp_path / "out", **searching))
    assert count_scoring == []


def test_the_same_weights_on_both_sides_are_refused(pair_folders, questions, tmp_path):
    copy = shutil.copytree(pair_folders[0], tmp_path / "copy")
    for aligned, message in ((pair_folders[0], "are the same model"), (copy, "hold the same weights")):
        with pytest.raises(InputError, match=message):
            sweep(plan((pair_folders[0], aligned), questions, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_memory_too_small_for_one_question_stops_the_sweep_and_marks_no_point(
    pair_folders, questions, tmp_path, monkeypatch
):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    out = tmp_path / "out"
    sweep(plan(pair_folders, questions, out, lambdas="0,1"))
    monkeypatch.setattr(LanguageModel, "read", full)
    monkeypatch.setattr(LanguageModel, "_choose_attention", lambda _: "rows")
    with pytest.raises(InputError, match="memory of cpu is too small"):
        sweep(plan(pair_folders, questions, out, lambdas="0,0.5,1"))
    assert not (out / "points" / "linear-lambda-0.5000.json").exists()


def test_unrecorded_scores_that_are_damaged_are_measured_again(pair_folders, questions, tmp_path):
    out = tmp_path / "out"
    sweep(plan(pair_folders, questions, out, lambdas="0,1"))
    before = files(out)
    (out / "points" / "linear-lambda-0.0000.json").unlink()
    (out / "scores" / "linear-lambda-0.0000" / "quiz.choice.npz").write_bytes(b"half")
    sweep(plan(pair_folders, questions, out, lambdas="0,1"))
    assert files(out) == before


@pytest.fixture
def short_pair(tmp_path):
    """Models that take 48 tokens: fewer than some prompts have."""
    folders = []
    for seed, side in enumerate(("base", "aligned")):
        model = tiny_llama(seed + 1)
        model.config.max_position_embeddings = 48
        folders.append(save_model(model, tmp_path / side, torch.bfloat16))
    return folders


def test_prompts_that_are_too_long_are_cut_and_counted_or_refused(short_pair, questions, tmp_path):
    sweep(plan(short_pair, questions, tmp_path / "out", lambdas="0,1"))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["tasks"]["quiz"]["truncated"]["choice"] == 12
    with pytest.raises(InputError, match="--strict: task quiz: 12 of 12 prompts are longer than the 48 tokens"):
        sweep(plan(short_pair, questions, tmp_path / "strict", lambdas="0,1", strict=True))
    assert not (tmp_path / "strict").exists()


def test_choices_that_are_equal_are_asked_and_tie(pair_folders, tmp_path):
    path = tmp_path / "same.jsonl"
    path.write_text(json.dumps({"question": "Which?", "choices": ["red", "red", "blue"], "answer": 1}) + "\n")
    with path.open("a") as file:
        file.write(json.dumps({"question": "And which now?", "choices": ["red", "red", "blue"], "answer": 1}) + "\n")
    sweep(plan(pair_folders, path, tmp_path / "out", lambdas="0,1", confidence="continuation-sum"))
    scores = load_scores(tmp_path / "out" / "scores" / "linear-lambda-0.0000" / "same.continuation-sum.npz").logprobs
    assert scores[0, 0] == scores[0, 1] != scores[0, 2]


def test_the_base_is_asked_plainly_where_only_the_aligned_model_has_a_chat(pair_folders, questions, tmp_path):
    """lambda 0 gives the scores of a run without chats, lambda 1 those of a run that asks everybody through one."""
    folders = []
    for folder in pair_folders:
        folders.append(tmp_path / folder.name)
        shutil.copytree(folder, folders[-1])
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
        tokenizer.save_pretrained(folders[-1])
    found = {}
    for chat in ("none", "aligned", "both"):
        out = tmp_path / f"out-{chat}"
        sweep(plan(folders, questions, out, lambdas="0,1", chat=chat))
        for lam in ("0.0000", "1.0000"):
            found[chat, lam] = load_scores(out / "scores" / f"linear-lambda-{lam}" / "quiz.choice.npz").logprobs
    np.testing.assert_array_equal(found["aligned", "0.0000"], found["none", "0.0000"])
    np.testing.assert_array_equal(found["aligned", "1.0000"], found["both", "1.0000"])
    assert np.nanmax(np.abs(found["none", "1.0000"] - found["both", "1.0000"])) > 1e-3
    with pytest.raises(RunDirectoryError, match="apply_chat_template: the run has none, asked is both"):
        sweep(plan(folders, questions, tmp_path / "out-none", lambdas="0,1", chat="both"))


def test_next_token_tasks_are_measured_beside_and_do_not_select(pair_folders, questions, tmp_path):
    (tmp_path / "texts").mkdir()
    for i in range(5):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"Text number {i} has some words in it.")
    asked = plan(pair_folders, questions, tmp_path / "out", lambdas="0,0.5,1")
    asked = replace(asked, tasks=(*asked.tasks, f"clm:{tmp_path / 'texts'}"))
    results = sweep(asked)
    found = rows(tmp_path / "out")
    texts = [row for row in found if row["confidence"] == "next-token" and row["task"] == "clm-texts"]
    assert [row["n"] for row in texts] == ["5"] * 3
    assert {row["sce"] for row in texts} == {""}
    assert {row["n"] for row in found if row["task"] == "mean" and row["confidence"] == "choice"} == {"12"}
    assert results.can_select
    with pytest.raises(InputError, match="next-token tasks only"):
        sweep(replace(asked, tasks=asked.tasks[1:], out=tmp_path / "other"))


def test_a_checkpoint_that_is_there_says_how_it_is_selected_now(pair_folders, tmp_path):
    questions = write_questions(tmp_path / "quiz.jsonl", 12, seed=4)
    out = tmp_path / "out"
    first = sweep(plan(pair_folders, questions, out, analysis=Analysis(rule=Rule(margin=1.0))))
    folder = out / "checkpoints" / first.selection.point
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    sweep(plan(pair_folders, questions, out, analysis=Analysis(rule=Rule(margin=1.0))))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == written
    again = sweep(plan(pair_folders, questions, out, analysis=Analysis(rule=Rule(margin=0.9))))
    assert again.selection.point == first.selection.point
    now = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in now if now[name] != written[name]} == {"README.md", "merge_calib.json"}
    assert "minus 0.9" in (folder / "README.md").read_text()
    assert "minus 0.9" in json.loads((folder / "merge_calib.json").read_text())["rule"]
