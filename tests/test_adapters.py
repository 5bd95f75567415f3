"""Adapters on a base and averages of models, as parents of a merge."""

import json
import shutil
import threading
import warnings

import numpy as np
import peft
import pytest
import torch
import transformers as hf
from conftest import save_model, tiny_llama
from safetensors.torch import load_file, save_file
from tiny_models import SMALL, tiny_model

from merge_calib.checkpoints.adapter import Adapted, is_adapter, names_base
from merge_calib.checkpoints.average import Average
from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.fingerprint import fingerprint
from merge_calib.errors import CheckpointError, InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*`is_gradient_checkpointing` is deprecated"),
]
EMBEDDING_AND_HEAD = ("model.embed_tokens.weight", "lm_head.weight")
ATTENTION = ["q_proj", "v_proj"]
TOKENS = torch.arange(2, 40)[None]


def lora(targets=tuple(ATTENTION), **settings):
    return peft.LoraConfig(
        target_modules=list(targets), init_lora_weights=False, **{"r": 4, "lora_alpha": 6} | settings
    )


def gpt2(**settings):
    torch.manual_seed(0)
    names = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 263, "n_positions": 64, "n_inner": 48}
    return hf.GPT2LMHeadModel(hf.GPT2Config(**names | {"bos_token_id": 0, "eos_token_id": 1} | settings)).eval()


MODELS = {
    "llama": lambda: tiny_llama(1),
    "tied": lambda: tiny_llama(1, tie_word_embeddings=True),
    "neox": lambda: tiny_model("gpt_neox"),
    "gpt2": gpt2,
}


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """Folders of the models, stored in bf16."""
    root = tmp_path_factory.mktemp("bases")
    return {name: save_model(make(), root / name, torch.bfloat16) for name, make in MODELS.items()}


@pytest.fixture
def llama(bases):
    return Checkpoint.open(bases["llama"])


@pytest.fixture
def train(bases, tmp_path):
    """Makes an adapter with PEFT: (its folder, the PEFT model in float32)."""

    def make(name, config, *, resize=None, seed=5):
        model = hf.AutoModelForCausalLM.from_pretrained(bases[name], dtype=torch.float32)
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if resize:
                model.resize_token_embeddings(resize, mean_resizing=False)
            trained = peft.get_peft_model(model, config).eval()
            with torch.no_grad():
                for parameter in trained.parameters():
                    if parameter.requires_grad:
                        parameter.add_(torch.randn_like(parameter) * 0.1)
            trained.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter", trained

    return make


def adapted(bases, name, folder) -> Adapted:
    return Adapted.open(folder, Checkpoint.open(bases[name]))


def merged_by_peft(trained) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = trained.merge_and_unload()
    return model.state_dict()


def assert_merged_as_peft(parent: Adapted, trained) -> None:
    """Bit for bit: it is PEFT's arithmetic on the same float32 numbers, one module at a time."""
    reference = merged_by_peft(trained)
    reference |= {"embed_out.weight": reference["lm_head.weight"]}  # as checkpoints of GPT-NeoX call it
    base = parent.shape
    touched = 0
    for name, info in parent.tensors.items():
        tensor = parent.read(name)
        assert tensor.shape == info.shape == reference[name].shape
        assert torch.equal(tensor.float(), reference[name]), name
        if tensor.dtype == torch.float32:
            touched += not torch.equal(tensor, base.read(name).float())
        else:
            assert torch.equal(tensor, base.read(name))
    assert touched > 0


def model_of(parent, **changes) -> torch.nn.Module:
    """The model that a checkpoint of `parent` would be, in float32."""
    config = hf.AutoConfig.for_model(**parent.config | changes)
    model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    state = {name: parent.read(name).float() for name in parent.tensors}
    lost, unknown = model.load_state_dict(state, strict=False)
    assert unknown == []
    assert lost == (["lm_head.weight"] if config.tie_word_embeddings else [])
    return model


KINDS = {
    "lora": lora(),
    "rslora": lora(use_rslora=True),
    "dora": lora(use_dora=True),
    "patterns": lora(rank_pattern={"layers.1.self_attn.q_proj": 2}, alpha_pattern={"v_proj": 11}),
    "every linear layer": lora(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
    "embedding": lora(["q_proj", "embed_tokens"]),
    "embedding dora": lora(["q_proj", "embed_tokens"], use_dora=True),
    "head": lora(["q_proj", "lm_head"]),
    "saved head": lora(modules_to_save=["lm_head"]),
    "saved norms and mlp": lora(modules_to_save=["norm", "mlp"]),
    "tokens": lora(trainable_token_indices=[3, 70, 11]),
    "tokens of both": lora(trainable_token_indices={"embed_tokens": [3, 70], "lm_head": [9]}),
    "tokens alone": peft.TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=[5, 6]),
    "loha": peft.LoHaConfig(target_modules=ATTENTION, init_weights=False),
    "lokr": peft.LoKrConfig(target_modules=ATTENTION, init_weights=False),
    "ia3": peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "oft": peft.OFTConfig(target_modules=ATTENTION, oft_block_size=8, r=0, init_weights=False),
    "hra": peft.HRAConfig(target_modules=ATTENTION, init_weights=False),
    "fourierft": peft.FourierFTConfig(target_modules=ATTENTION, n_frequency=50, init_weights=False),
    "miss": peft.MissConfig(target_modules=ATTENTION, r=4, init_weights=False),
    "c3a": peft.C3AConfig(target_modules=ATTENTION, block_size=16, init_weights=False),
    "road": peft.RoadConfig(target_modules=ATTENTION, group_size=16, init_weights=False),
    "delora": peft.DeloraConfig(target_modules=ATTENTION, init_weights=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_merged_as_peft_merges_it(kind, bases, train):
    folder, trained = train("llama", KINDS[kind])
    assert_merged_as_peft(adapted(bases, "llama", folder), trained)


@pytest.mark.parametrize(
    "config",
    [
        lora(["query_key_value", "dense"]),
        lora(["query_key_value"], bias="all"),
        lora(["dense_h_to_4h"], lora_bias=True),
        lora(["query_key_value"], modules_to_save=["lm_head", "final_layer_norm"]),
        peft.IA3Config(target_modules=["query_key_value"], feedforward_modules=[]),
        peft.RoadConfig(target_modules=["dense_h_to_4h"], group_size=16, init_weights=False),
    ],
    ids=["lora", "all biases", "biased lora", "saved head", "ia3", "road"],
)
@pytest.mark.filterwarnings("ignore:Adapter 'default'")
def test_biases_and_the_names_of_gpt_neox(config, bases, train):
    folder, trained = train("neox", config)
    assert_merged_as_peft(adapted(bases, "neox", folder), trained)


TURNED = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(**TURNED, init_lora_weights=False),
        peft.LoraConfig(**TURNED, init_lora_weights=False, use_dora=True),
        peft.IA3Config(**TURNED, feedforward_modules=["c_fc"]),
    ],
    ids=["lora", "dora", "ia3"],
)
def test_layers_of_gpt2_hold_their_weights_the_other_way_round(config, said, bases, train):
    folder, trained = train("gpt2", config)
    edit_settings(folder, fan_in_fan_out=said)  # PEFT tells it from the layer, whatever the settings say
    assert_merged_as_peft(adapted(bases, "gpt2", folder), trained)


@pytest.mark.parametrize("name", ["neox", "gpt2", "llama"])
def test_a_checkpoint_may_store_its_body_without_a_prefix(name, bases, train, tmp_path):
    config = lora({"gpt2": ["c_attn"], "neox": ["dense"], "llama": ["up_proj"]}[name], fan_in_fan_out=name == "gpt2")
    folder, _trained = train(name, config)
    with_prefix = adapted(bases, name, folder)
    bare = shutil.copytree(bases[name], tmp_path / "bare")
    prefix = {"gpt2": "transformer.", "neox": "gpt_neox.", "llama": "model."}[name]
    edit_weights(bare, lambda tensors: {key.removeprefix(prefix): tensor for key, tensor in tensors.items()})
    parent = Adapted.open(folder, Checkpoint.open(bare))
    for key in with_prefix.tensors:
        assert torch.equal(parent.read(key.removeprefix(prefix)), with_prefix.read(key))


def test_the_head_may_be_called_as_the_checkpoint_or_as_the_model_calls_it(bases, train):
    folder, _trained = train("neox", lora(["dense"], modules_to_save=["lm_head"]))
    now = adapted(bases, "neox", folder).read("embed_out.weight")
    edit_weights(folder, lambda ts: {key.replace("lm_head", "embed_out"): tensor for key, tensor in ts.items()})
    assert torch.equal(adapted(bases, "neox", folder).read("embed_out.weight"), now)


def test_modules_are_told_apart_in_a_model_of_many_layers(tmp_path):
    torch.manual_seed(0)
    base = save_model(hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL | {"num_hidden_layers": 12})), tmp_path / "base")
    model = hf.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    patterns = {"rank_pattern": {r"layers\.1\.self_attn.q_proj": 2}, "alpha_pattern": {r"layers\.11\..*": 9}}
    trained = peft.get_peft_model(model, lora(["q_proj", "v_proj", "up_proj"], **patterns))
    trained.save_pretrained(tmp_path / "adapter")
    assert_merged_as_peft(Adapted.open(tmp_path / "adapter", Checkpoint.open(base)), trained)


def edit_settings(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, edit):
    path = next(folder.glob("*model.safetensors"))
    tensors = load_file(path)
    save_file(edit(tensors) or tensors, path, metadata={"format": "pt"})


def put(*names, shape=(4, 32), dtype=torch.float32):
    """Changes or adds tensors."""
    return lambda tensors: tensors | {name: torch.ones(shape, dtype=dtype) for name in names}


def test_the_change_of_a_bf16_base_is_not_rounded(bases, train):
    folder, trained = train("llama", lora(r=4, lora_alpha=1))
    name, key = "model.layers.0.self_attn.q_proj.weight", "base_model.model.model.layers.0.self_attn.q_proj"
    weights = {k: v.double() for k, v in load_file(folder / "adapter_model.safetensors").items()}
    parent = adapted(bases, "llama", folder)
    base = parent.shape.read(name)
    assert base.dtype == torch.bfloat16
    exact = base.double() + (1 / 4) * (weights[f"{key}.lora_B.weight"] @ weights[f"{key}.lora_A.weight"])
    # Four products, their sum and the addition to the base each round to 24 bits.
    bound = 8 * 2.0**-24 * (base.double().abs() + 4 * exact.abs().max())
    assert ((parent.read(name).double() - exact).abs() <= bound).all()
    rounded = merged_by_peft(trained.to(torch.bfloat16))[name]
    assert ((rounded.double() - exact).abs() > bound).double().mean() > 0.9  # what merging in bf16 would give


@pytest.mark.parametrize(
    ("config", "untied"),
    [
        (lora(modules_to_save=["lm_head"]), True),
        (lora(modules_to_save=["embed_tokens"]), True),
        (lora(modules_to_save=["embed_tokens", "lm_head"]), True),
        (lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True), False),
        (lora(["q_proj", "embed_tokens"]), True),
        (lora(["q_proj", "lm_head"]), True),
        (lora(["q_proj", "lm_head", "embed_tokens"]), True),
        (lora(trainable_token_indices=[3, 7]), False),
        (lora(), False),
    ],
    ids=lambda value: None if isinstance(value, bool) else f"{value.modules_to_save} {sorted(value.target_modules)}",
)
def test_on_a_tied_base_the_model_computes_what_was_trained(config, untied, bases, train):
    folder, trained = train("tied", config)
    with torch.no_grad():
        expected = trained(TOKENS).logits  # before PEFT merges, which mixes up tied layers
    parent = adapted(bases, "tied", folder)
    assert parent.config["tie_word_embeddings"] is not untied
    assert ("lm_head.weight" in parent.tensors) is untied
    assert list(parent.tensors) == sorted(parent.tensors)
    with torch.no_grad():
        logits = model_of(parent)(TOKENS).logits
    # Merged weights add in another order than an adapter beside the layer: some units in the last of 24 bits.
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_an_embedding_of_gpt2_is_untied_by_an_adapter(bases, train):
    folder, trained = train("gpt2", lora(["wte", "c_fc"], fan_in_fan_out=True))
    with torch.no_grad():
        expected = trained(TOKENS).logits
    parent = adapted(bases, "gpt2", folder)
    assert torch.equal(parent.read("lm_head.weight"), parent.shape.read("transformer.wte.weight").float())
    with torch.no_grad():
        logits = model_of(parent)(TOKENS).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_an_embedding_and_a_head_that_were_trained_as_one_stay_tied(bases, train):
    folder, _trained = train("tied", lora(["q_proj", "embed_tokens"], ensure_weight_tying=True))
    if not any("lm_head" in key for key in load_file(folder / "adapter_model.safetensors")):
        pytest.skip("this version of peft tunes the embedding alone")
    parent = adapted(bases, "tied", folder)
    assert parent.config["tie_word_embeddings"] is True
    assert list(parent.tensors) == list(parent.shape.tensors)


def test_other_tokens_of_a_tied_head_untie_it(bases, train):
    folder, _trained = train("tied", lora(trainable_token_indices=[3, 7]))
    edit_settings(folder, trainable_token_indices={"embed_tokens": [3, 7], "lm_head": [9]})
    edit_weights(folder, put("base_model.model.lm_head.token_adapter.trainable_tokens_delta", shape=(1, 32)))
    parent = adapted(bases, "tied", folder)
    stored = parent.shape.read("model.embed_tokens.weight").float()
    changed = [(parent.read(name) != stored).any(1).nonzero().flatten().tolist() for name in EMBEDDING_AND_HEAD]
    assert changed == [[3, 7], [9]]
    assert parent.config["tie_word_embeddings"] is False


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_a_tied_base_stores_again_is_read_as_the_embedding(tied, said, bases, train, tmp_path):
    config = lora(trainable_token_indices=[3]) if tied else lora(modules_to_save=["lm_head"])
    folder, _trained = train("tied", config)
    twice = shutil.copytree(bases["tied"], tmp_path / "twice")
    if not said:
        (twice / "config.json").write_text((twice / "config.json").read_text().replace("tie_word_embeddings", "_old"))
    edit_weights(twice, lambda ts: ts | {"lm_head.weight": ts["model.embed_tokens.weight"].clone()})
    parent = Adapted.open(folder, Checkpoint.open(twice))
    same = torch.equal(parent.read("lm_head.weight").float(), parent.read("model.embed_tokens.weight").float())
    assert same is tied
    assert parent.config.get("tie_word_embeddings", True) is tied


@pytest.mark.parametrize("name", ["llama", "tied"])
@pytest.mark.parametrize(
    "config",
    [
        lora(),
        lora(modules_to_save=["embed_tokens", "lm_head"]),
        lora(["q_proj", "embed_tokens", "lm_head"]),
    ],
    ids=["resized", "saved", "tuned"],
)
def test_a_larger_vocabulary_comes_with_the_adapter(name, config, bases, train):
    folder, trained = train(name, config, resize=270)
    with torch.no_grad():
        expected = trained(TOKENS).logits
    parent = adapted(bases, name, folder)
    assert parent.config["vocab_size"] == 270
    assert parent.tensors["model.embed_tokens.weight"].shape == (270, 32)
    with torch.no_grad():
        logits = model_of(parent)(TOKENS).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_one_tied_layer_tuned_in_a_larger_vocabulary_enlarges_both(target, bases, train):
    folder, trained = train("tied", lora(["q_proj", target]), resize=270)
    with torch.no_grad():
        expected = trained(TOKENS).logits
    parent = adapted(bases, "tied", folder)
    assert parent.tensors["lm_head.weight"].shape == parent.tensors["model.embed_tokens.weight"].shape == (270, 32)
    with torch.no_grad():
        logits = model_of(parent)(TOKENS).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_rows_are_those_of_the_tensor_and_merged_once(bases, train, monkeypatch):
    folder, _trained = train("llama", lora(modules_to_save=["lm_head"]))
    parent = adapted(bases, "llama", folder)
    merges = []
    merge = peft.set_peft_model_state_dict
    monkeypatch.setattr(peft, "set_peft_model_state_dict", lambda *a, **k: merges.append(1) or merge(*a, **k))
    for name in ("model.layers.0.self_attn.q_proj.weight", "lm_head.weight", "model.norm.weight"):
        whole = [parent.read_rows(name, start, start + 8) for start in range(0, 32, 8)]
        for rows in whole:
            rows.add_(1)  # who reads may change what he got
        again = torch.cat([parent.read_rows(name, start, start + 8) for start in range(0, 32, 8)])
        assert torch.equal(again, parent.read(name)[:32])
        assert torch.equal(torch.cat(whole), again + 1)
    assert len(merges) == 1


def test_reading_leaves_the_random_state_and_the_base_as_they_are(bases, train, llama):
    folder, _trained = train("llama", lora(use_dora=True))
    name = "model.layers.1.self_attn.v_proj.weight"
    before = llama.read(name)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    parent = Adapted.open(folder, llama)
    first = parent.read(name)
    assert torch.equal(torch.random.get_rng_state(), state)
    first.zero_()
    assert torch.equal(llama.read(name), before)
    assert parent.read(name).any()


def test_a_pickled_base_is_not_changed_by_merging(bases, train, tmp_path):
    folder, _trained = train("llama", lora())
    pickled = shutil.copytree(bases["llama"], tmp_path / "pickled")
    tensors = {name: tensor.float() for name, tensor in load_file(pickled / "model.safetensors").items()}
    (pickled / "model.safetensors").unlink()
    torch.save(tensors, pickled / "pytorch_model.bin")
    base = Checkpoint.open(pickled, allow_pickle=True)
    parent = Adapted.open(folder, base)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(parent.read(name), parent.read(name))
    assert torch.equal(base.read(name), tensors[name])


def test_two_threads_read_what_one_does(bases, train):
    folder, _trained = train("llama", KINDS["every linear layer"])
    parent = adapted(bases, "llama", folder)
    expected = {name: parent.read(name) for name in parent.tensors}
    wrong = []

    def read_all(names):
        wrong.extend(name for name in names if not torch.equal(parent.read(name), expected[name]))

    threads = [threading.Thread(target=read_all, args=(list(parent.tensors)[::step],)) for step in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_an_adapted_parent_says_of_itself(bases, train, llama):
    folder, _trained = train("llama", lora(use_rslora=True, lora_dropout=0.1))
    parent = Adapted.open(folder, llama)
    assert not parent.is_stored
    assert parent.shape is llama
    assert parent.config == llama.config
    assert parent.bytes == llama.bytes
    assert {name: info.dtype for name, info in parent.tensors.items()} == dict.fromkeys(llama.tensors, torch.bfloat16)
    assert parent.folder == llama.folder
    shutil.copy(bases["llama"] / "tokenizer.json", folder)
    assert parent.folder == folder
    assert parent.recipe["r"] == 4
    assert parent.recipe["use_rslora"] is True
    assert not {"lora_dropout", "base_model_name_or_path", "target_modules", "peft_version"} & parent.recipe.keys()
    assert json.loads(json.dumps(parent.recipe)) == parent.recipe
    assert parent.parts[0] is llama
    assert parent.parts[1].files == (folder / "adapter_model.safetensors",)
    assert len({fingerprint(part) for part in parent.parts}) == 2


def test_an_adapter_says_its_base(bases, train):
    folder, _trained = train("llama", lora())
    assert is_adapter(folder)
    assert not is_adapter(bases["llama"])
    assert names_base(folder) == str(bases["llama"])
    edit_settings(folder, base_model_name_or_path="org/model", revision="v2")
    assert names_base(folder) == "org/model@v2"
    edit_settings(folder, base_model_name_or_path=None)
    assert names_base(folder) is None


def test_weights_that_are_not_finite_are_named(bases, train):
    folder, _trained = train("llama", lora())
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    edit_weights(folder, lambda tensors: tensors[key].view(-1)[3].fill_(float("nan")) and None)
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: tensor base_model.*lora_A.weight holds 1"):
        fingerprint(adapted(bases, "llama", folder).parts[1])


def test_pickled_adapters_need_a_word(bases, train, llama):
    folder, _trained = train("llama", lora())
    name = "model.layers.0.self_attn.q_proj.weight"
    safe = Adapted.open(folder, llama).read(name)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="only pickle weights .adapter_model.bin.*--allow-pickle"):
        Adapted.open(folder, llama)
    assert torch.equal(Adapted.open(folder, llama, allow_pickle=True).read(name), safe)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match="there is no adapter_model.safetensors"):
        Adapted.open(folder, llama, allow_pickle=True)


LAYER = "base_model.model.model.layers.0."
A, B, C = (f"{LAYER}self_attn.q_proj.lora_{letter}.weight" for letter in "ABC")
NORM, HEAD = "base_model.model.model.norm.weight", "base_model.model.lm_head.weight"
FOREIGN = A.replace("layers.0", "layers.9")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put(FOREIGN), f"{FOREIGN} belongs to no tensor of .*llama"),
        (put("model.norm.weight", shape=32), ": model.norm.weight belongs to no tensor of .*llama"),
        (put(C), "q_proj.lora_C.weight is of a kind that LORA does not have"),
        (put(A, shape=(4, 31)), r"q_proj.lora_A.weight has the shape \[4, 31\], not \[4, 32\]"),
        (put(A, shape=(3, 32)), r"q_proj.lora_A.weight has the shape \[3, 32\], not \[4, 32\]"),
        (lambda tensors: {name: tensors[name] for name in tensors if name != B}, "q_proj.lora_B.weight is missing"),
        (put(A, dtype=torch.int8), "q_proj.lora_A.weight is stored as torch.int8"),
        (put(NORM, shape=31), r"norm.weight has the shape \[31\], model.norm.weight of .*llama \[32\]"),
        (
            put(HEAD, shape=(270, 32)),
            "vocabularies differ: lm_head.weight has 270 rows, model.embed_tokens.weight has 263",
        ),
        (put(HEAD, shape=(263, 31)), r"lm_head.weight has the shape \[263, 31\]"),
        (put(f"{LAYER}input_layernorm.lora_A.weight"), "input_layernorm.weight of .*llama has 1 dimension"),
        (put(NORM, NORM.replace("model.norm", "norm"), shape=32), "norm.weight are both model.norm.weight of .*llama"),
        (put(A.replace("model.layers", "layers")), "and others are for model.layers.0.self_attn.q_proj.weight of"),
    ],
)
def test_weights_that_do_not_fit_are_refused_when_the_adapter_is_opened(edit, message, train, llama):
    folder, _trained = train("llama", lora())
    edit_weights(folder, edit)
    with pytest.raises(CheckpointError, match=message) as caught:
        Adapted.open(folder, llama)
    assert str(folder / "adapter_model.safetensors") in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"peft_type": "PREFIX_TUNING"},
            "adapters of peft_type PREFIX_TUNING cannot be merged into weights; LORA, LOHA",
        ),
        ({"peft_type": "VERA"}, "adapters of peft_type VERA cannot be merged"),
        ({"peft_type": None}, "adapters of peft_type None cannot be merged"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "a LORA adapter with target_parameters cannot be merged"),
        ({"alora_invocation_tokens": [3]}, "a LORA adapter with alora_invocation_tokens cannot be merged"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa changed the base .*path_initial_model_for_weight"),
        ({"use_something_new": True}, "the installed peft does not know use_something_new; update it"),
    ],
)
def test_adapters_that_cannot_be_merged_are_refused(changes, message, train, llama):
    folder, _trained = train("llama", lora())
    edit_settings(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        Adapted.open(folder, llama)
    assert str(folder / "adapter_config.json") in str(caught.value)


def test_a_token_that_the_base_has_not_is_refused(train, llama):
    folder, _trained = train("llama", lora(trainable_token_indices=[3, 7]))
    edit_settings(folder, trainable_token_indices=[3, 700])
    with pytest.raises(CheckpointError, match="a trained token is none of the 263 rows of model.embed_tokens.weight"):
        Adapted.open(folder, llama)


def test_an_adapter_of_another_size_is_refused_with_both_folders(bases, train, tmp_path):
    folder, _trained = train("llama", lora())
    torch.manual_seed(0)
    wide = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL | {"hidden_size": 64}))
    other = save_model(wide, tmp_path / "wide")
    with pytest.raises(CheckpointError, match=r"lora_A.weight has the shape \[4, 32\], not \[4, 64\]") as caught:
        Adapted.open(folder, Checkpoint.open(other))
    assert str(folder) in str(caught.value)
    assert str(other) in str(caught.value)


def test_settings_that_are_no_settings_are_refused(train, llama):
    folder, _trained = train("llama", lora())
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="adapter_config.json does not hold a JSON object"):
        Adapted.open(folder, llama)


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    root = tmp_path_factory.mktemp("three")
    dtypes = (torch.bfloat16, torch.float32, torch.float16)
    folders = [save_model(tiny_llama(seed), root / str(seed), dtype) for seed, dtype in enumerate(dtypes)]
    return [Checkpoint.open(folder) for folder in folders]


@pytest.mark.parametrize("weights", [None, [1, 1, 1], [3.0, 1.0, 0.5], [1e308, 1e308, 1e307]])
def test_an_average_is_the_weighted_mean(weights, three):
    average = Average.of(three, weights)
    shares = np.ones(3) / 3 if weights is None else np.array(weights) / max(weights)
    shares = shares / shares.sum()
    for name in average.tensors:
        tensors = [parent.read(name).double().numpy() for parent in three]
        exact = sum(share * tensor for share, tensor in zip(shares, tensors, strict=True))
        # Each of three weights, products and sums rounds once, to 24 bits.
        bound = 6 * 2.0**-24 * sum(share * np.abs(tensor) for share, tensor in zip(shares, tensors, strict=True))
        mean = average.read(name)
        assert mean.dtype == torch.float32
        assert (np.abs(mean.double().numpy() - exact) <= bound).all()


def test_weights_change_the_average(three):
    name = "model.norm.weight"
    assert not torch.equal(Average.of(three, [1, 2, 3]).read(name), Average.of(three).read(name))
    assert torch.equal(Average.of(three, [2, 4, 6]).read(name), Average.of(three, [1, 2, 3]).read(name))


def test_rows_of_an_average_are_read_alone(three, monkeypatch):
    average = Average.of(three, [0.2, 0.5, 0.3])
    whole = average.read("lm_head.weight")
    monkeypatch.setattr(Checkpoint, "read", lambda *_: pytest.fail("a whole tensor was read"))
    for start, stop in ((0, 1), (5, 18), (260, 263)):
        assert torch.equal(average.read_rows("lm_head.weight", start, stop), whole[start:stop])


def test_what_an_average_says_of_itself(three, train, bases):
    average = Average.of(three, [1, 1, 2])
    assert not average.is_stored
    assert average.folder == three[0].folder
    assert average.config == three[0].config
    assert average.shape is three[0]
    assert average.tensors == three[0].tensors
    assert average.bytes == three[0].bytes
    assert average.parts == tuple(three)
    assert average.recipe == {"average": [0.25, 0.25, 0.5], "of": [None, None, None]}


def test_adapters_can_be_averaged_and_are_told_apart(bases, train, llama, tmp_path):
    folder, _trained = train("llama", lora())
    other = shutil.copytree(folder, tmp_path / "other")
    edit_settings(other, lora_alpha=60)
    one, two = Adapted.open(folder, llama), Adapted.open(other, llama)
    average = Average.of([one, two])
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(average.read(name), one.read(name) * 0.5 + two.read(name) * 0.5)
    assert average.parts == (*one.parts, *two.parts)
    assert average.recipe != Average.of([one, one]).recipe
    assert average.recipe["of"] == [one.recipe, two.recipe]


def test_what_is_no_floating_tensor_is_the_first_model_s(three, tmp_path):
    folders = [shutil.copytree(parent.folder, tmp_path / str(i)) for i, parent in enumerate(three[:2])]
    for i, folder in enumerate(folders):
        edit_weights(folder, lambda tensors, i=i: tensors | {"steps": torch.tensor([i + 7, i])})
    average = Average.of([Checkpoint.open(folder) for folder in folders])
    assert average.read("steps").tolist() == [7, 0]
    assert average.read_rows("steps", 0, 1).tolist() == [7]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"--aligned-weights gives 1 weight\(s\) for 3 aligned model\(s\)"),
        ([1.0, 0.0, 1.0], "--aligned-weights 0.0: a weight is a finite number above 0"),
        ([1.0, -2.0, 1.0], "--aligned-weights -2.0: a weight is a finite number above 0"),
        ([1.0, float("inf"), 1.0], "--aligned-weights inf: a weight is a finite number above 0"),
        ([1.0, float("nan"), 1.0], "--aligned-weights nan: a weight is a finite number above 0"),
    ],
)
def test_weights_of_an_average_are_positive_numbers_one_a_model(weights, message, three):
    with pytest.raises(InputError, match=message):
        Average.of(three, weights)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("extra.weight"), "0 has no tensor extra.weight"),
        (lambda ts: {k: v for k, v in ts.items() if k != "model.norm.weight"}, "other has no tensor model.norm.weight"),
        (put("model.norm.weight", shape=31), r"model.norm.weight has the shapes \[32\] and \[31\]"),
        (
            put("model.norm.weight", shape=32, dtype=torch.int32),
            "norm.weight is stored as torch.bfloat16 and as torch.int32",
        ),
    ],
)
def test_models_that_differ_are_not_averaged(edit, message, three, tmp_path):
    other = shutil.copytree(three[0].folder, tmp_path / "other")
    edit_weights(other, edit)
    with pytest.raises(CheckpointError, match=message) as caught:
        Average.of([three[0], three[1], Checkpoint.open(other)])
    assert str(three[0].folder) in str(caught.value)
    assert str(other) in str(caught.value)


def test_models_that_compute_differently_are_not_averaged(three, tmp_path):
    other = shutil.copytree(three[0].folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_attention_heads": 8}))
    with pytest.raises(CheckpointError, match="config num_attention_heads is 4 in the first and 8 in the second"):
        Average.of([three[0], Checkpoint.open(other)])
