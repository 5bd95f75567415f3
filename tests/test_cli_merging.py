"""`merge-calib merge` and `sweep` with methods, groups, adapters and averages, as typed, and every bad input."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import refused, save_model, tiny_llama
from safetensors.torch import load_file, save_file

from merge_calib.checkpoints.pair import ModelPair
from merge_calib.files import this_host
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint


def merge_of(folders, lam, *more):
    return ["merge", "--base", folders[0], "--aligned", folders[1], "--lambda", lam, *more]


def weights(folder) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(
    ("more", "point"),
    [
        ((), MergePoint("linear", 0.4)),
        (("--method", "slerp"), MergePoint("slerp", 0.4)),
        (("--method", "ties", "--density", "0.3"), MergePoint("ties", 0.4, (("density", 0.3),))),
        (("--method", "dare_ties", "--drop-seed", "5"), MergePoint("dare_ties", 0.4, (("drop_seed", 5),))),
        (("--method", "della_linear", "--epsilon", "0.2"), MergePoint("della_linear", 0.4, (("epsilon", 0.2),))),
        (("--method", "breadcrumbs", "--gamma", "0.05"), MergePoint("breadcrumbs", 0.4, (("gamma", 0.05),))),
        (("--method", "lines", "--alpha", "0", "--beta", "1"), MergePoint("lines", 0.4, (("alpha", 0), ("beta", 1)))),
    ],
)
def test_merge_writes_the_point_of_every_method(call, pair_folders, tmp_path, more, point):
    code, printed, said = call(*merge_of(pair_folders, "0.4", *more, "--out", tmp_path / "out"))
    assert (code, said) == (0, "")
    assert point.name in printed
    merger = Merger(ModelPair.open(*pair_folders))
    merged = weights(tmp_path / "out")
    assert set(merged) == set(merger.pair.names)
    assert all(torch.equal(merged[name], merger.tensor(point, name)) for name in merged)
    record = json.loads((tmp_path / "out" / "merge_calib.json").read_text())
    assert MergePoint.read(record) == point


def test_merge_takes_a_lambda_for_each_group(call, pair_folders, tmp_path):
    code, _, said = call(*merge_of(pair_folders, "layers:0-0=0.2;head=1;rest=0.7", "--out", tmp_path / "out"))
    assert (code, said) == (0, "")
    merger = Merger(ModelPair.open(*pair_folders))
    for name, tensor in weights(tmp_path / "out").items():
        lam = 0.2 if ".0." in name else 1.0 if "head" in name else 0.7
        assert torch.equal(tensor, merger.tensor(MergePoint("linear", lam), name))


def test_merge_averages_several_aligned_models(call, pair_folders, tmp_path):
    third = save_model(tiny_llama(5), tmp_path / "third", torch.bfloat16)
    arguments = merge_of(pair_folders, "0.5", "--aligned", third, "--aligned-weights", "1,3", "--out", tmp_path / "out")
    code, _, said = call(*arguments)
    assert (code, said) == (0, "")
    name = "model.norm.weight"
    base, one, two = (load_file(folder / "model.safetensors")[name].double() for folder in (*pair_folders, third))
    plain = 0.5 * base + 0.5 * (0.25 * one + 0.75 * two)
    assert torch.allclose(weights(tmp_path / "out")[name].double(), plain, rtol=2**-8, atol=0)


def test_notes_on_the_pair_are_printed(call, pair_folders, tmp_path):
    wider = save_model(tiny_llama(5, vocab=270), tmp_path / "wider", torch.bfloat16)
    code, printed, _ = call(*merge_of((pair_folders[0], wider), "0.5", "--out", tmp_path / "out"))
    assert code == 0
    assert "Note: the vocabularies have 263 (base) and 270 (aligned) rows" in printed


@pytest.mark.parametrize(
    ("lam", "more", "message"),
    [
        ("0.4", ("--method", "ties", "--density", "0"), "--density must lie in (0, 1]"),
        ("0.4", ("--method", "ties", "--density", "1.5"), "--density must lie in (0, 1]"),
        ("0.4", ("--method", "ties", "--density", "nan"), "--density"),
        ("0.4", ("--method", "della_linear", "--epsilon", "-0.1"), "--epsilon"),
        ("0.4", ("--method", "della_linear", "--density", "0.95", "--epsilon", "0.2"), "--epsilon"),
        ("0.4", ("--method", "breadcrumbs", "--gamma", "1.2"), "--gamma"),
        ("0.4", ("--method", "dare_linear", "--drop-seed", "-1"), "--drop-seed"),
        ("0.4", ("--density", "0.5"), "--density is no option of --method linear; ties, dare_linear"),
        ("0.4", ("--method", "sleep"), "--method sleep is unknown; allowed: linear, slerp"),
        ("mlp=0.4", (), "leave 15 tensor(s) without a lambda"),
        ("mlp=0.4;*.up_proj.*=1;rest=1", (), "--lambda: groups overlap: mlp and *.up_proj.* both match"),
        ("*.router.*=0.4;rest=1", (), "*.router.* matches no tensor of these models"),
        ("layers:4-9=0.4;rest=1", (), "--lambda 'layers:4-9': the layers of these models are 0 to 1"),
        ("atention=0.4;rest=1", (), "'atention' is unknown"),
        ("four", (), "--lambda 'four' is neither a number nor GROUP=NUMBER"),
        ("nan", (), "--lambda must lie between"),
        ("0.4", ("--aligned-weights", "1,2"), "--aligned-weights gives 2 weight(s) for 1 aligned model(s)"),
        ("0.4", ("--aligned-weights", "much"), "--aligned-weights 'much' is no comma list of numbers"),
        ("0.4", ("--adapter-base", "x/y"), "neither --base nor --aligned is an adapter"),
        ("0.4", ("--shard-size", "big"), "--shard-size 'big' is no size, as 5GB"),
        ("0.4", ("--out-dtype", "int8"), "--out-dtype 'int8' is unknown"),
    ],
)
def test_what_cannot_be_is_refused_with_one_message(call, pair_folders, tmp_path, lam, more, message):
    assert message in refused(call, tmp_path, *merge_of(pair_folders, lam, *more))


def test_a_weight_of_an_average_must_be_above_0(call, pair_folders, tmp_path):
    third = save_model(tiny_llama(5), tmp_path / "third", torch.bfloat16)
    arguments = merge_of(pair_folders, "0.5", "--aligned", third, "--aligned-weights", "1,-3")
    assert "--aligned-weights -3.0: a weight is a finite number above 0" in refused(call, tmp_path, *arguments)


def test_nothing_to_write_is_said(call, pair_folders):
    code, _, said = call(*merge_of(pair_folders, "0.4"))
    assert code == 1
    assert "give --out DIR, --export-mergekit FILE.yaml, or both" in said


@pytest.mark.parametrize("side", [0, 1])
def test_a_value_that_is_not_finite_is_named_and_nothing_is_left(call, pair_folders, tmp_path, side):
    folders = [shutil.copytree(folder, tmp_path / "models" / folder.name) for folder in pair_folders]
    tensors = load_file(folders[side] / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("inf")
    save_file(tensors, folders[side] / "model.safetensors", metadata={"format": "pt"})
    said = refused(call, tmp_path, *merge_of(folders, "0.4"))
    assert "model.layers.1.mlp.up_proj.weight" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models"]


def test_groups_that_do_not_fit_the_models_are_refused_for_a_study_too(call, pair_folders, questions, tmp_path):
    arguments = ["sweep", "--base", pair_folders[0], "--aligned", pair_folders[1], "--tasks", questions]
    said = refused(call, tmp_path, *arguments, "--groups", "mlp,attention", "--search", "optuna")
    assert "leave" in said
    assert "add rest" in said


@pytest.mark.usefixtures("unsaved_figures")
def test_a_recipe_may_hold_methods_groups_and_several_models(call, pair_folders, questions, tmp_path):
    third = save_model(tiny_llama(5), tmp_path / "third", torch.bfloat16)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'base = "{pair_folders[0]}"\naligned = ["{pair_folders[1]}", "{third}"]\naligned-weights = [1, 2]\n'
        f'tasks = "{questions}"\nmethod = "ties"\ndensity = 0.5\nlambdas = [0, 0.5]\ngroups = ["mlp", "rest"]\n'
    )
    code, _, said = call("sweep", "--recipe", recipe, "--out", tmp_path / "out")
    assert (code, said) == (0, "")
    points = [json.loads(path.read_text()) for path in (tmp_path / "out" / "points").glob("ties-*.json")]
    assert sorted(str(point.get("groups", point["lambda"])) for point in points) == [
        "0.5",
        "{'mlp': 0.0, 'rest': 0.5}",
        "{'mlp': 0.5, 'rest': 0.0}",
    ]
    assert {str(point["options"]) for point in points} == {"{'density': 0.5}"}


def test_a_merge_that_fails_exports_nothing(call, pair_folders, tmp_path):
    folders = [shutil.copytree(folder, tmp_path / "models" / folder.name) for folder in pair_folders]
    tensors = load_file(folders[1] / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folders[1] / "model.safetensors", metadata={"format": "pt"})
    refused(call, tmp_path, *merge_of(folders, "0.4", "--export-mergekit", tmp_path / "merge.yaml"))
    assert not (tmp_path / "merge.yaml").exists()
    same = call(*merge_of(pair_folders, "0.4", "--export-mergekit", tmp_path / "x", "--out", tmp_path / "x"))
    assert same[0] == 1
    assert "--out and --export-mergekit are both" in same[2]
    assert not (tmp_path / "x").exists()


def test_parents_need_not_be_hashed(call, pair_folders, tmp_path):
    code, _, said = call(*merge_of(pair_folders, "0.4", "--no-hash", "--out", tmp_path / "out"))
    assert (code, said) == (0, "")
    record = json.loads((tmp_path / "out" / "merge_calib.json").read_text())
    assert record["base"]["sha256"] is None
    assert "fingerprint" in (tmp_path / "out" / "README.md").read_text()


def test_one_model_given_twice_is_refused(call, pair_folders, tmp_path):
    twice = merge_of(pair_folders, "0.4", "--aligned", pair_folders[1])
    assert "are the same model" in refused(call, tmp_path, *twice)
    assert "are the same model" in refused(call, tmp_path, *merge_of((pair_folders[0],) * 2, "0.4"))


def test_a_merge_without_a_tokenizer_says_so(call, pair_folders, tmp_path):
    folders = [shutil.copytree(folder, tmp_path / "models" / folder.name) for folder in pair_folders]
    for path in folders[1].glob("tokenizer*"):
        path.unlink()
    code, printed, _ = call(*merge_of(folders, "0.4", "--out", tmp_path / "out"))
    assert code == 0
    assert "has no tokenizer, and so the merge has none" in printed
    assert "AutoTokenizer" not in (tmp_path / "out" / "README.md").read_text()


def test_a_card_names_adapters_averages_and_only_real_ids_of_the_hub(call, pair_folders, tmp_path):
    third = save_model(tiny_llama(5), tmp_path / "third", torch.bfloat16)
    call(*merge_of(pair_folders, "0.5", "--aligned", third, "--aligned-weights", "1,3", "--out", tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "average of 0.25 aligned, 0.75 third" in card
    assert 'base_model_relation: "merge"' in card
    assert "base_model:" not in card  # folders are no models of the hub
    assert str(tmp_path) not in card


def test_what_a_killed_merge_left_is_removed_by_the_next_one(call, pair_folders, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    orphan, alive = (tmp_path / f".out.partial-{this_host()}-{process}" for process in (dead.pid, os.getppid()))
    for folder in (orphan, alive):
        folder.mkdir()
        (folder / "model.safetensors").write_text("half")
    code, _, _ = call(*merge_of(pair_folders, "0.4", "--out", tmp_path / "out"))
    assert code == 0
    assert not orphan.exists()
    assert alive.exists()


def test_merge_exports_the_configuration_for_mergekit(call, pair_folders, tmp_path):
    file = tmp_path / "merge.yaml"
    code, printed, said = call(*merge_of(pair_folders, "0.4", "--export-mergekit", file))
    assert (code, said) == (0, "")
    assert str(file) in printed
    assert "merge_method: linear" in file.read_text()
    again = call(*merge_of(pair_folders, "0.4", "--export-mergekit", file))
    assert again[0] == 1
    assert "--export-mergekit" in again[2]
    dare = call(*merge_of(pair_folders, "0.4", "--method", "dare_linear", "--export-mergekit", tmp_path / "dare.yaml"))
    assert dare[0] == 1
    assert not (tmp_path / "dare.yaml").exists()
