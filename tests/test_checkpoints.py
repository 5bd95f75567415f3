"""Opening parents, proving that they fit, hashing them."""

import json
import shutil

import pytest
import torch
from conftest import save_model, tiny_llama
from safetensors.torch import load_file, save_file

from merge_calib.checkpoints import fingerprint as fingerprint_module
from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.fingerprint import fingerprint
from merge_calib.checkpoints.locate import locate
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.errors import CheckpointError, InputError


@pytest.fixture
def folders(pair_folders, tmp_path):
    """Copies of the pair that a test may break."""
    return [shutil.copytree(folder, tmp_path / folder.name) for folder in pair_folders]


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_pair_that_fits_opens_without_reading_weights(pair_folders, monkeypatch):
    monkeypatch.setattr(Checkpoint, "read", lambda *_: pytest.fail("weights were read"))
    pair = ModelPair.open(*pair_folders)
    assert len(pair.names) == 21
    assert pair.parameters == sum(p.numel() for p in tiny_llama(1).parameters())


def test_other_architectures_are_named(folders):
    edit_config(folders[0], model_type="mistral", architectures=["MistralForCausalLM"])
    with pytest.raises(CheckpointError, match=r"model_type: base mistral, aligned llama\n.*MistralForCausalLM"):
        ModelPair.open(*folders)


def test_a_setting_that_changes_the_computation_is_named(folders):
    edit_config(folders[0], num_attention_heads=8, rope_parameters={"rope_theta": 500000.0, "rope_type": "default"})
    with pytest.raises(CheckpointError) as caught:
        ModelPair.open(*folders)
    assert "config num_attention_heads: base 8, aligned 4" in str(caught.value)
    assert "config rope_theta: base 500000.0, aligned 10000.0" in str(caught.value)


def test_settings_that_do_not_change_the_computation_may_differ(folders):
    edit_config(folders[0], eos_token_id=7, use_cache=False, attention_dropout=0.1, transformers_version="4.40.0")
    ModelPair.open(*folders)


def test_tensors_that_differ_are_all_named_in_one_message(folders):
    def edit(tensors):
        tensors["extra.weight"] = torch.zeros(2)
        del tensors["model.norm.weight"]
        tensors["lm_head.weight"] = torch.zeros(300, 32)

    edit_weights(folders[1], edit)
    with pytest.raises(CheckpointError) as caught:
        ModelPair.open(*folders)
    message = str(caught.value)
    assert "1 tensor(s) only in base: model.norm.weight" in message
    assert "1 tensor(s) only in aligned: extra.weight" in message
    assert "tensor lm_head.weight differs in shape (base / aligned): [263, 32] / [300, 32]" in message


def test_a_missing_shard_is_named(tmp_path):
    folder = save_model(tiny_llama(1), tmp_path / "m", max_shard_size="20KB")
    lost = sorted(folder.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=f"lacks 1 of .* shards: {lost.name}"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("keep", [4, 200, -100])
def test_a_truncated_file_is_named(folders, keep):
    path = folders[0] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="base/model.safetensors is truncated or damaged"):
        Checkpoint.open(folders[0])


def test_an_index_that_lists_a_tensor_which_no_shard_holds_is_refused(tmp_path):
    folder = save_model(tiny_llama(1), tmp_path / "m", max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["ghost.weight"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"no shard holds, the first is ghost\.weight"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "does not hold a JSON object"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "is a PEFT adapter"),
        (lambda f: edit_config(f, quantization_config={"quant_method": "gptq"}), r"is quantised \(gptq\)"),
    ],
)
def test_a_folder_that_is_no_usable_model_is_refused(folders, broken, message):
    broken(folders[0])
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(folders[0])


def test_pickle_weights_are_refused_unless_asked_for(folders):
    tensors = load_file(folders[0] / "model.safetensors")
    torch.save(tensors, folders[0] / "pytorch_model.bin")
    (folders[0] / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*--allow-pickle"):
        Checkpoint.open(folders[0])
    opened = Checkpoint.open(folders[0], allow_pickle=True)
    assert all(torch.equal(opened.read(name), tensors[name]) for name in tensors)


def test_code_in_a_pickle_is_never_run(folders, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"a": Evil()}, folders[0] / "pytorch_model.bin")
    (folders[0] / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        Checkpoint.open(folders[0], allow_pickle=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused_with_its_tensor(folders, value):
    def edit(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value

    edit_weights(folders[1], edit)
    with pytest.raises(CheckpointError, match=r"aligned/model\.safetensors: tensor model\.layers\.1\.mlp\.up_proj"):
        fingerprint(Checkpoint.open(folders[1]))


def test_the_fingerprint_is_the_weights_not_their_layout(tmp_path):
    single = save_model(tiny_llama(1), tmp_path / "single")
    sharded = save_model(tiny_llama(1), tmp_path / "sharded", max_shard_size="20KB")
    other = save_model(tiny_llama(2), tmp_path / "other")
    hashes = [fingerprint(Checkpoint.open(folder)) for folder in (single, sharded, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_fingerprint_is_read_once_until_a_file_changes(folders, monkeypatch):
    first = fingerprint(Checkpoint.open(folders[0]))
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint_module, "_read_and_hash", lambda *_: pytest.fail("read again"))
        assert fingerprint(Checkpoint.open(folders[0])) == first

    def edit(tensors):
        tensors["model.norm.weight"][0] += 1

    edit_weights(folders[0], edit)
    assert fingerprint(Checkpoint.open(folders[0])) != first


def test_what_is_neither_folder_nor_hub_id_is_refused_with_its_flag(tmp_path):
    with pytest.raises(InputError, match=r"--base .*/nowhere: there is no such folder"):
        locate(str(tmp_path / "nowhere"), "--base")


def test_a_hub_id_is_found_in_the_cache_of_downloads(pair_folders, tmp_path, monkeypatch):
    import huggingface_hub.constants

    snapshot = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    shutil.copytree(pair_folders[0], snapshot)
    refs = tmp_path / "models--org--name" / "refs"
    refs.mkdir()
    (refs / "v1").write_text("a" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_OFFLINE", True)
    found = locate("org/name@v1", "--base")
    assert len(Checkpoint.open(found).tensors) == 21
    with pytest.raises(CheckpointError, match="--base org/other: there is no such folder, and the hub"):
        locate("org/other", "--base")
