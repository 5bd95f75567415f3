"""Points as mergekit configurations: what they say, what is refused, and that mergekit makes the same weights."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import yaml
from conftest import save_model, tiny_llama
from safetensors.torch import load_file
from tiny_models import tiny_model

from merge_calib.checkpoints.average import Average
from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.errors import InputError
from merge_calib.merging.mergekit import _settings, mergekit_config
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint

BLOCKS = (("layers:0-0", 0.25), ("layers:1-1", 0.75), ("rest", 0.5))
KINDS = (("attention", 0.3), ("mlp", 1.0), ("rest", 0.0))
COMMAND = [os.environ["MERGEKIT"]] if "MERGEKIT" in os.environ else [sys.executable, "-m", "mergekit.scripts.run_yaml"]
needs_mergekit = pytest.mark.skipif(
    "MERGEKIT" not in os.environ and find_spec("mergekit") is None,
    reason="needs mergekit 0.1.5, or MERGEKIT=path of its mergekit-yaml",
)


@pytest.fixture(scope="module")
def pair(pair_folders):
    return ModelPair.open(*pair_folders)


@pytest.fixture(scope="module")
def near_folders(pair_folders, tmp_path_factory):
    """A base and the same model moved by so little that slerp turns nothing and many bf16 deltas are equal."""
    model = tiny_llama(1)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return pair_folders[0], save_model(model, tmp_path_factory.mktemp("near") / "near", torch.bfloat16)


def read(pair, point, out_dtype=None, base="BASE", aligned="ORG/ALIGNED@main"):
    return yaml.safe_load(mergekit_config(pair, point, base, aligned, out_dtype))


def sources(config):
    [slice] = config["slices"]
    return [(source["model"], source.get("parameters", {})) for source in slice["sources"]]


def test_linear_gives_both_parents_weights_that_are_not_normalised(pair):
    config = read(pair, MergePoint("linear", 0.3))
    assert config["merge_method"] == "linear"
    assert (config["dtype"], config["out_dtype"]) == ("float32", "bfloat16")
    assert config["parameters"] == {"normalize": False}
    assert sources(config) == [("BASE", {"weight": 0.7}), ("ORG/ALIGNED@main", {"weight": 0.3})]
    assert config["slices"][0]["sources"][0]["layer_range"] == [0, 2]
    assert read(pair, MergePoint("linear", 0.3), torch.float16)["out_dtype"] == "float16"


def test_config_and_tokenizer_come_from_the_host(pair, pair_folders):
    point = MergePoint("task_arithmetic", 0.3)
    config = read(pair, point)
    assert config["base_model"] == "ORG/ALIGNED@main"
    assert config["slices"][0]["base_model"] == "BASE"
    assert read(ModelPair.open(*pair_folders, vocab="base"), point)["base_model"] == "BASE"


@pytest.mark.parametrize(("lam", "model"), [(0.0, "BASE"), (1.0, "ORG/ALIGNED@main")])
def test_the_parents_are_copied_in_their_own_dtype(pair, lam, model):
    config = read(pair, MergePoint("slerp", lam), torch.float16)
    assert config["merge_method"] == "passthrough"
    assert "dtype" not in config
    assert "out_dtype" not in config
    assert sources(config) == [(model, {})]


def test_options_of_the_methods(pair):
    ties = read(pair, MergePoint("ties", 0.7, (("density", 0.3),)))
    assert ties["merge_method"] == "ties"
    assert ties["parameters"] == {"normalize": False, "rescale": False}
    assert sources(ties)[1][1] == {"weight": 0.7, "density": 0.3}
    crumbs = read(pair, MergePoint("breadcrumbs", 1.2, (("density", 0.9), ("gamma", 0.05))))
    assert sources(crumbs)[1][1] == {"weight": 1.2, "density": 0.9, "gamma": 0.05}
    assert read(pair, MergePoint("slerp", 0.4))["parameters"] == {"t": 0.4}


def test_lines_scales_lambda_by_the_layer(pair):
    config = read(pair, MergePoint("lines", 0.5, (("alpha", 0.2), ("beta", 0.8))))
    assert config["merge_method"] == "task_arithmetic"
    assert {setting["filter"]: setting["value"] for setting in sources(config)[1][1]["weight"]} == {
        "model.layers.0.": 0.1,
        "model.layers.1.": 0.5,
        "model.embed_tokens.weight": 0.1,
        "model.norm.weight": 0.5,
        "lm_head.weight": 0.5,
    }


def test_where_results_may_differ_is_said(pair):
    assert "# where elements changed equally much" in mergekit_config(pair, MergePoint("ties", 0.5), "b", "a")
    everything = MergePoint("ties", 0.5, (("density", 1.0),))
    assert "changed equally" not in mergekit_config(pair, everything, "b", "a")
    assert "# a tensor that is all zeros" in mergekit_config(pair, MergePoint("slerp", 0.5), "b", "a")


@pytest.mark.parametrize("name", ["llama", "bloom", "gpt_neox", "mixtral"])
@pytest.mark.parametrize("groups", ["layers:0-0,layers:1-1,rest", "layers:1-1,layers:10-11,rest", "mlp,rest"])
def test_the_first_filter_in_a_name_is_its_own(tmp_path, name, groups):
    """Of twelve layers, so that `layers.1.` and `layers.11.` are there."""
    layers = {"n_layer": 12} if name == "bloom" else {"num_hidden_layers": 12}
    folder = save_model(tiny_model(name, **layers), tmp_path / name)
    pair = ModelPair.open(folder, folder)
    lams = {selector: 0.1 + 0.2 * i for i, selector in enumerate(groups.split(","))}
    point = MergePoint("linear", None, (), tuple(lams.items()))
    merger = Merger(pair)
    filters = sources(read(pair, point))[1][1]["weight"]
    for tensor in pair.names:
        first = next(setting["value"] for setting in filters if setting["filter"] in tensor)
        assert first == merger._lam(point, pair.slots[tensor]), tensor


def test_a_name_inside_another_comes_behind_it():
    values = {"norm.weight": 0.1, "h.1.norm.weight": 0.2, "h.1.up": 0.2, "h.11.up": 0.3, "h.11.norm.weight": 0.4}
    filters = _settings(values)
    for name, value in values.items():
        assert next(lam for text, lam in filters if text in name) == value
    assert filters[0] == ("h.1.", 0.2)


def test_numbers_are_numbers_in_yaml(pair):
    """`1e-10` without a point is a text there."""
    weights = [parameters["weight"] for _, parameters in sources(read(pair, MergePoint("linear", 1e-10)))]
    assert weights == [1 - 1e-10, 1e-10]


def test_names_are_kept_whatever_is_in_them(pair, tmp_path):
    folder = tmp_path / 'a "b" + @c: #'
    folder.mkdir()
    config = read(pair, MergePoint("linear", 0.5), base=str(folder), aligned="näher")
    assert [model for model, _ in sources(config)] == [{"model": {"path": str(folder)}}, "näher"]


# ---- refusals


def refusal(pair, point, **more) -> str:
    with pytest.raises(InputError) as refused:
        mergekit_config(pair, point, "b", "a", **more)
    return str(refused.value)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della_linear"])
def test_random_methods_are_refused(pair, method):
    assert f"{method} drops elements at random" in refusal(pair, MergePoint(method, 0.5))


def test_other_vocabularies_and_tied_heads_are_refused(tmp_path, pair_folders):
    longer = save_model(tiny_llama(2, vocab=300), tmp_path / "longer", torch.bfloat16)
    assert "vocabularies have 263" in refusal(ModelPair.open(pair_folders[0], longer), MergePoint("linear", 0.5))
    tied = save_model(tiny_llama(2, tie_word_embeddings=True), tmp_path / "tied", torch.bfloat16)
    assert "ties its head" in refusal(ModelPair.open(pair_folders[0], tied), MergePoint("linear", 0.5))


def test_computed_parents_are_refused(pair_folders):
    base, aligned = map(Checkpoint.open, pair_folders)
    pair = ModelPair(base, Average.of([base, aligned], None))
    assert "--aligned is computed" in refusal(pair, MergePoint("linear", 0.5))


def test_several_stored_dtypes_need_one_to_write(pair_folders, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(pair_folders[1], mixed)
    weights = load_file(mixed / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].float()
    from safetensors.torch import save_file

    save_file(weights, mixed / "model.safetensors", metadata={"format": "pt"})
    pair = ModelPair.open(pair_folders[0], mixed)
    assert "bfloat16, float32: say --out-dtype" in refusal(pair, MergePoint("linear", 0.5))
    assert read(pair, MergePoint("linear", 0.5), torch.bfloat16)["out_dtype"] == "bfloat16"


# ---- the oracle


def made_by_mergekit(config: str, folder) -> dict[str, torch.Tensor]:
    folder.mkdir()
    (folder / "config.yaml").write_text(config)
    command = [*COMMAND, str(folder / "config.yaml"), str(folder / "out"), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    return {k: v for file in (folder / "out").glob("*.safetensors") for k, v in load_file(file).items()}


def both(folders, tmp_path, point, out_dtype=None):
    """Every tensor as we make it and as mergekit does."""
    pair = ModelPair.open(*folders)
    theirs = made_by_mergekit(mergekit_config(pair, point, *map(str, folders), out_dtype), tmp_path / "mergekit")
    assert theirs.keys() == set(pair.names)
    merger = Merger(pair, out_dtype)
    for name in pair.names:
        ours = merger.tensor(point, name)
        assert ours.dtype == theirs[name].dtype
        yield pair, name, ours, theirs[name]


@needs_mergekit
@pytest.mark.parametrize(
    "point",
    [
        MergePoint("linear", 0.0),
        MergePoint("linear", 0.3),
        MergePoint("linear", 1.3),
        MergePoint("linear", None, (), KINDS),
        MergePoint("task_arithmetic", None, (), BLOCKS),
        MergePoint("lines", 0.7, (("alpha", 0.2), ("beta", 0.8))),
    ],
    ids=lambda point: point.name,
)
def test_mergekit_makes_the_same_bits(pair_folders, tmp_path, point):
    for _, name, ours, theirs in both(pair_folders, tmp_path, point):
        assert torch.equal(ours, theirs), name


@needs_mergekit
@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize(
    "point",
    [MergePoint("slerp", 0.4), MergePoint("slerp", 1.3), MergePoint("slerp", None, (), BLOCKS)],
    ids=lambda point: point.name,
)
def test_mergekit_turns_as_far(pair_folders, near_folders, tmp_path, point, near):
    """Its cosine is a sum in float32, ours in float64: a few roundings of float32 at the size of the weights."""
    for _, name, ours, theirs in both(near_folders if near else pair_folders, tmp_path, point, torch.float32):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2**-20, msg=name)


@needs_mergekit
@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize(
    ("point", "cuts"),
    [
        (MergePoint("ties", 0.7, (("density", 0.3),)), 1),
        (MergePoint("breadcrumbs", 0.7, (("density", 0.6), ("gamma", 0.05))), 2),
    ],
    ids=["ties", "breadcrumbs"],
)
def test_mergekit_keeps_the_same_but_for_equal_changes(pair_folders, near_folders, tmp_path, point, cuts, near):
    """Wherever the two differ, the change is as large as one that a cut goes through; mergekit's sort is not stable."""
    differing = 0
    for pair, name, ours, theirs in both(near_folders if near else pair_folders, tmp_path, point):
        delta = (pair.aligned.read(name).float() - pair.base.read(name).float()).abs()
        assert len(delta[ours != theirs].unique()) <= cuts, name
        differing += int((ours != theirs).sum())
    assert differing < 0.01 * pair.parameters


@needs_mergekit
def test_mergekit_takes_the_aligned_models_companions(pair_folders, tmp_path):
    aligned = shutil.copytree(pair_folders[1], tmp_path / "a+b@c")
    (aligned / "chat_template.jinja").write_text("{{ messages }} of aligned")
    generation = json.loads((aligned / "generation_config.json").read_text()) | {"eos_token_id": [1, 7]}
    (aligned / "generation_config.json").write_text(json.dumps(generation))
    for _, name, ours, theirs in both((pair_folders[0], aligned), tmp_path, MergePoint("ties", 0.5)):
        assert ours.shape == theirs.shape, name
    out = tmp_path / "mergekit" / "out"
    assert (out / "chat_template.jinja").read_text() == "{{ messages }} of aligned"
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [1, 7]
