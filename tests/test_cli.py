"""The command line as somebody sees it who has never read the code: one message, the right exit code, nothing left."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from conftest import byte_tokenizer, refused, run_command, save_model, tiny_llama, write_questions
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from tokenizers import normalizers

from merge_calib.cli.main import main
from merge_calib.cli.recipe import read_recipe
from merge_calib.errors import InputError
from merge_calib.plan import parse_confidences, parse_lambdas


@pytest.fixture
def folders(pair_folders, tmp_path):
    return [shutil.copytree(folder, tmp_path / "models" / folder.name) for folder in pair_folders]


def sweep_of(folders, questions, *more):
    return ["sweep", "--base", folders[0], "--aligned", folders[1], "--tasks", questions, *more]


@pytest.fixture(scope="module")
def reported(pair_folders, tmp_path_factory):
    """A sweep with all its pictures, whose base is gone: its folder, and the command's exit code, stdout and stderr.

    Tests read it, or change a copy.
    """
    root = tmp_path_factory.mktemp("reported")
    folders = [shutil.copytree(folder, root / folder.name) for folder in pair_folders]
    questions = write_questions(root / "quiz.jsonl", 12)
    found = run_command(*sweep_of(folders, questions, "--lambdas", "0,0.5,1"), "--out", root / "out")
    shutil.rmtree(folders[0])
    return root / "out", found


def test_a_sweep_says_what_it_found_and_where(reported):
    out, (code, printed, said) = reported
    assert (code, said) == (0, "")
    assert str(out) in printed
    assert len(printed.splitlines()) <= 10
    for name in ("run.json", "results.csv", "frontier.json", "report.md", "figures/frontier.pdf", "figures/lambda.png"):
        assert (out / name).stat().st_size > 0, name


def test_report_redraws_everything_without_a_model(call, reported):
    out, _ = reported  # not a copy: the place of a run stands in its files
    made = [p for p in out.rglob("*") if "checkpoints" not in p.parts]
    before = {p: p.read_bytes() for p in made if p.suffix in (".csv", ".md", ".png", ".pdf")}
    for path in before:
        path.unlink()
    code, _, said = call("report", out)
    assert (code, said) == (0, "")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.usefixtures("unsaved_figures")
def test_report_of_a_run_that_was_cut_off_before_the_aligned_model(call, reported, tmp_path):
    out = shutil.copytree(reported[0], tmp_path / "out")
    (out / "points" / "linear-lambda-1.0000.json").unlink()
    code, _, said = call("report", out)
    assert (code, said) == (0, "")
    assert json.loads((out / "frontier.json").read_text())["selected"] is None


def test_report_of_a_folder_that_is_no_run(call, tmp_path):
    code, _, said = call("report", tmp_path)
    assert code == 1
    assert "is no run directory: it has no run.json" in said


def test_tasks_lists_what_can_be_asked(call):
    code, printed, _ = call("tasks")
    assert code == 0
    for name in ("arc_easy", "hellaswag", "medmcqa", "mmlu", "piqa", "clm", "own questions"):
        assert name in printed


def test_check_says_that_a_pair_fits(call, pair_folders):
    code, printed, _ = call("check", "--base", pair_folders[0], "--aligned", pair_folders[1])
    assert code == 0
    assert "can be merged: llama" in printed


def test_merge_writes_one_checkpoint_and_never_over_another(call, pair_folders, tmp_path):
    arguments = [
        "merge",
        "--base",
        pair_folders[0],
        "--aligned",
        pair_folders[1],
        "--lambda",
        "0.4",
        "--out",
        tmp_path / "m",
    ]
    assert call(*arguments)[0] == 0
    assert (tmp_path / "m" / "model.safetensors").exists()
    code, _, said = call(*arguments)
    assert code == 1
    assert "exists; nothing was written" in said


def test_other_architectures(call, folders, questions, tmp_path):
    shutil.rmtree(folders[0])
    save_model(tiny_model("opt"), folders[0])
    said = refused(call, tmp_path, *sweep_of(folders, questions))
    assert "model_type: base opt, aligned llama" in said


def test_an_architecture_that_is_no_causal_language_model(call, tmp_path, questions):
    from transformers import T5Config, T5ForConditionalGeneration

    small = {"vocab_size": 263, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
    folders = [save_model(T5ForConditionalGeneration(T5Config(**small)), tmp_path / side) for side in ("b", "a")]
    assert "only causal language models" in refused(call, tmp_path, *sweep_of(folders, questions))


def test_a_missing_shard(call, folders, questions, tmp_path):
    shutil.rmtree(folders[1])
    save_model(tiny_llama(2), folders[1], torch.bfloat16, max_shard_size="20KB")
    next(folders[1].glob("model-00002*")).unlink()
    assert "shards: model-00002-of-" in refused(call, tmp_path, *sweep_of(folders, questions))


def test_a_truncated_file(call, folders, questions, tmp_path):
    path = folders[0] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert "base/model.safetensors is truncated or damaged" in refused(call, tmp_path, *sweep_of(folders, questions))


def test_a_nan_in_a_parent(call, folders, questions, tmp_path):
    tensors = load_file(folders[1] / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folders[1] / "model.safetensors", metadata={"format": "pt"})
    said = refused(call, tmp_path, *sweep_of(folders, questions))
    assert "aligned/model.safetensors: tensor model.norm.weight holds 1 value(s) that are NaN" in said


GOOD = '{"id": "a", "question": "what?", "choices": ["x", "y"], "answer": 0}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("\n", "quiz.jsonl:2"),
        ("{oops\n", "quiz.jsonl:2"),
        ('{"id": "b", "question": "what?", "choices": ["x", "y"], "answer": 2}\n', "quiz.jsonl:2"),
        ('{"id": "b", "question": "what?", "choices": ["x", "y"], "answer": "C"}\n', "quiz.jsonl:2"),
        ('{"id": "b", "question": "what?", "choices": ["x"], "answer": 0}\n', "quiz.jsonl:2"),
        ('{"id": "b", "question": "what?", "answer": 0}\n', "quiz.jsonl:2"),
        (GOOD, "quiz.jsonl:2"),
    ],
)
def test_a_bad_line_of_questions(call, pair_folders, tmp_path, line, message):
    questions = tmp_path / "quiz.jsonl"
    questions.write_text(GOOD + line + GOOD.replace('"a"', '"c"'))
    assert message in refused(call, tmp_path, *sweep_of(pair_folders, questions))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lambdas", "0:1"], "--lambdas '0:1' is neither"),
        (["--lambdas", "a,b"], "--lambdas 'a,b' is neither"),
        (["--lambdas", "0:1:0"], "the step must be above 0"),
        (["--lambdas", "1:0:0.1"], "the stop not below the start"),
        (["--lambdas", "nan,1"], "--lambdas 'nan,1' is neither"),
        (["--lambdas", ""], "--lambdas '' is neither"),
        (["--lambdas", "0,1e400"], "must lie between 1e-10 and 1000 in size"),
        (["--lambdas", "0:1:1e-999999999"], "must lie between 1e-10 and 1000 in size"),
        (["--bins", "100000000000"], "--bins must be at most 1000"),
        (["--lambdas", "0:1:0.00001"], "at most 1001"),
        (["--confidence", "letters"], "--confidence 'letters' is unknown; allowed: choice"),
        (["--dtype", "int8"], "--dtype 'int8' is unknown"),
        (["--out-dtype", "fp16"], "--out-dtype 'fp16' is unknown"),
        (["--device", "cuda:99"], "--device 'cuda:99' cannot be used"),
        (["--device", "toaster"], "--device 'toaster' cannot be used"),
        (["--bins", "0"], "--bins must be at least 1"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--batch-tokens", "0"], "--batch-tokens must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--accuracy-margin", "7"], "--accuracy-margin must lie between 0 and 1"),
        (["--search", "optuna", "--trials", "0"], "--trials must be at least 1"),
        (["--search", "optuna", "--lambdas", "1"], "--search optuna needs an interval"),
        (["--base", "no/such/folder"], "--base no/such/folder: there is no such folder"),
        (["--recipe", "missing.toml"], "--recipe missing.toml cannot be read"),
        (["--tasks", "mmlu"], "can be given with --data-dir"),
        (["--tasks", "trivia"], "unknown task 'trivia'"),
        (["--tasks", "quiz.jsonl,,"], "has an empty name"),
        (["--tasks", "gone.jsonl"], "gone.jsonl"),
    ],
)
def test_a_flag_that_cannot_be_used(call, pair_folders, questions, tmp_path, more, message):
    assert message in refused(call, tmp_path, *sweep_of(pair_folders, questions), *more)


def test_nothing_to_ask(call, pair_folders, tmp_path, monkeypatch):
    monkeypatch.setattr("merge_calib.preparation.find_spec", lambda _: None)
    said = refused(call, tmp_path, "sweep", "--base", pair_folders[0], "--aligned", pair_folders[1])
    assert "no questions to ask: give --tasks" in said
    (tmp_path / "data").mkdir()
    more = ["--data-dir", tmp_path / "data"]
    said = refused(call, tmp_path, "sweep", "--base", pair_folders[0], "--aligned", pair_folders[1], *more)
    assert "holds none of the benchmarks" in said


def test_two_tasks_of_one_name_and_the_reserved_name(call, pair_folders, tmp_path):
    (tmp_path / "a").mkdir()
    one, two, mean = tmp_path / "quiz.jsonl", tmp_path / "a" / "quiz.jsonl", tmp_path / "mean.jsonl"
    for path in (one, two, mean):
        write_questions(path, 3)
    assert "two tasks are called 'quiz'" in refused(call, tmp_path, *sweep_of(pair_folders, f"{one},{two}"))
    assert "the name 'mean' is taken" in refused(call, tmp_path, *sweep_of(pair_folders, mean))


@pytest.mark.usefixtures("unsaved_figures")
def test_a_recipe_gives_options_and_flags_override_it(call, pair_folders, questions, tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text(f'base = "{pair_folders[0]}"\naligned = "{pair_folders[1]}"\nlambdas = [0, 0.5, 1]\nbins = 15\n')
    arguments = ["sweep", "--recipe", recipe, "--tasks", questions, "--bins", "12", "--out", tmp_path / "out"]
    assert call(*arguments)[0] == 0
    run_json = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run_json["lambdas"] == [0, 0.5, 1]
    assert run_json["bins"] == 12


def test_an_unknown_key_in_a_recipe_is_refused(call, questions, tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text('lambda = "0:1:0.1"\n')
    said = refused(call, tmp_path, "sweep", "--recipe", recipe, "--tasks", questions)
    assert "unknown key 'lambda'; allowed: accuracy-margin" in said


def test_values_in_a_recipe_are_checked_like_flags(call, pair_folders, questions, tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text("trials = 2.7\n")
    code, _, said = call(*sweep_of(pair_folders, questions, "--recipe", recipe))
    assert code == 2
    assert "'2.7' is not a valid integer" in said
    recipe.write_text("[tasks]\na = 1\n")
    message = refused(call, tmp_path, *sweep_of(pair_folders, questions, "--recipe", recipe))
    assert "tasks must be a text, a number" in message


def test_merge_refuses_a_parent_with_a_nan(call, folders, tmp_path):
    tensors = load_file(folders[0] / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folders[0] / "model.safetensors", metadata={"format": "pt"})
    said = refused(call, tmp_path, "merge", "--base", folders[0], "--aligned", folders[1], "--lambda", "0.5")
    assert "tensor model.norm.weight holds 1 value(s) that are NaN" in said


def test_a_missing_flag_is_a_usage_error(call):
    code, _, said = call("sweep", "--base", "x")
    assert code == 2
    assert "--aligned" in said


def test_every_command_explains_itself():
    for command in ([], *([name] for name in main.commands)):
        result = CliRunner().invoke(main, [*command, "--help"])
        assert result.exit_code == 0
        assert "Usage:" in result.output


def test_an_interrupt_ends_with_130_and_says_that_it_can_go_on(call, pair_folders, questions, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("merge_calib.measuring.score", interrupted)
    code, _, said = call(*sweep_of(pair_folders, questions), "--out", tmp_path / "out")
    assert code == 130
    assert "goes on when the same command is given again" in said


def test_help_starts_without_loading_torch():
    """`--help` answers at once; measured by what is imported, not by time."""
    code = "import sys; import merge_calib.cli.main; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("text", "lambdas"),
    [
        ("0:1.5:0.1", tuple(i / 10 for i in range(16))),
        ("0:1:0.3", (0.0, 0.3, 0.6, 0.9)),
        ("0.7, 0.1,0.1", (0.1, 0.7)),
        ("-0.5:0.5:0.5", (-0.5, 0.0, 0.5)),
        ("0.3:0.3:1", (0.3,)),
        ("0:0.3:0.1", (0.0, 0.1, 0.2, 0.3)),
    ],
)
def test_the_grammar_of_lambdas(text, lambdas):
    assert parse_lambdas(text) == lambdas


def test_lambdas_with_two_kinds_of_separators_are_refused():
    with pytest.raises(InputError, match="neither"):
        parse_lambdas("0:1:0.1,1.5")


@pytest.mark.parametrize("recipe", sorted((Path(__file__).parents[1] / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_the_recipes_that_ship_have_only_options_that_exist(recipe):
    command = main.commands["sweep"]
    context = click.Context(command)
    read_recipe(context, command.params[0], recipe)
    assert {"base", "aligned", "tasks"} <= set(context.default_map)
    parse_lambdas(context.default_map["lambdas"])
    parse_confidences(context.default_map["confidence"])


def test_a_letter_that_is_not_one_token(call, folders, questions, tmp_path):
    for folder in folders:
        tokenizer = byte_tokenizer(words=())
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace("C", "CC")
        tokenizer.save_pretrained(folder)
    said = refused(call, tmp_path, *sweep_of(folders, questions))
    assert "task quiz: the tokenizer has no single token of its own for the letter 'C' after the prompt" in said


@pytest.mark.usefixtures("unsaved_figures")
def test_an_out_directory_that_holds_another_plan(call, pair_folders, questions, tmp_path):
    call(*sweep_of(pair_folders, questions, "--lambdas", "0,1"), "--out", tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    code, _, said = call(*sweep_of(pair_folders, questions, "--dtype", "bfloat16"), "--out", tmp_path / "run")
    assert code == 1
    assert "holds another run, nothing was changed:\n  - dtype: the run has float32, asked is bfloat16" in said
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_recipe_holds_flags_by_their_names(call, pair_folders, questions, tmp_path):
    recipe = tmp_path / "chat.toml"
    recipe.write_text('apply-chat-template = "aligned"\nlambdas = "0,1"\n')
    said = refused(call, tmp_path, *sweep_of(pair_folders, questions), "--recipe", recipe)
    assert "has no chat template" in said
    recipe.write_text('chat = "aligned"\n')
    assert "unknown key 'chat'" in refused(call, tmp_path, *sweep_of(pair_folders, questions), "--recipe", recipe)


def test_a_checkpoint_may_be_read_by_all_who_may_read_its_config(call, pair_folders, tmp_path):
    out = tmp_path / "merged"
    call("merge", "--base", pair_folders[0], "--aligned", pair_folders[1], "--lambda", "0.5", "--out", out)
    assert {(out / name).stat().st_mode for name in ("config.json", "model.safetensors")} == {
        (out / "merge_calib.json").stat().st_mode
    }
