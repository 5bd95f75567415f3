"""Checkpoints as they are: every architecture, dtype, layout and vocabulary, merged, scored in place and written."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer, save_model, tiny_llama
from safetensors.torch import load_file, save_file
from tiny_models import tiny_gemma3_multimodal, tiny_model, tiny_t5, tuned
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.fingerprint import fingerprint
from merge_calib.checkpoints.opening import Parents
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.errors import CheckpointError
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.opening import open_pair
from merge_calib.recovery import write_point
from merge_calib.scoring.loading import head_to_add
from merge_calib.scoring.model import LanguageModel

NAMES = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "olmo2", "gpt_neox", "opt", "phi3", "mixtral"]
TOKENS = torch.tensor([[5, 17, 200, 33, 7, 90]])
CPU = torch.device("cpu")


def save_pair(make, folder, dtypes=(torch.bfloat16, torch.bfloat16), **options):
    """A base and its tuned version in two folders; `make` makes the same model at each call."""
    base = save_model(make(), folder / "base", dtypes[0], **options)
    return base, save_model(tuned(make(), 7), folder / "aligned", dtypes[1], **options)


def model_of(pair: ModelPair) -> LanguageModel:
    head = head_to_add({slot.name: slot.shape for slot in pair.slots.values()}, pair.host.shape)
    return LanguageModel(pair.host.shape, CPU, torch.float32, new_head=head)


def logits(folder) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return model(TOKENS).logits


def in_place(model: LanguageModel) -> torch.Tensor:
    """The logits of a model whose weights were replaced, before our own head reads them."""
    model.use_rows()
    hf = model._model
    hf.set_output_embeddings(model._head.head)
    with torch.inference_mode():
        found = hf(TOKENS).logits
    hf.set_output_embeddings(model._head)
    return found


def require_round_trip(pair: ModelPair, tmp_path, lam: float = 0.3) -> dict[str, torch.Tensor]:
    """Weights in place say what the written checkpoint says; gives that checkpoint's tensors."""
    point = MergePoint("linear", lam)
    model = model_of(pair)
    assert set(model.targets) == set(pair.names)
    Merger(pair).apply(point, model.targets)
    folder = tmp_path / f"merged-{lam}"
    write_point(pair, point, folder, None, {})
    torch.testing.assert_close(in_place(model), logits(folder), rtol=0, atol=1e-5)
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_merged_in_place_and_written_alike(tmp_path, name):
    folders = save_pair(lambda: tiny_model(name), tmp_path)
    pair = ModelPair.open(*folders)
    merged = require_round_trip(pair, tmp_path)
    stored = [load_file(folder / "model.safetensors") for folder in folders]
    assert set(merged) == set(stored[1])
    for key, value in merged.items():
        plain = 0.7 * stored[0][key].double() + 0.3 * stored[1][key].double()
        assert value.dtype == torch.bfloat16
        assert ((value.double() - plain).abs() <= plain.abs() * 2**-8 + 1e-6).all(), key
    ends = [logits(folder) for folder in folders]
    between = logits(tmp_path / "merged-0.3")
    assert all((between - end).abs().max() > 1e-2 for end in ends)


@pytest.mark.parametrize("name", NAMES)
def test_lambda_0_and_1_in_place_are_the_parents(tmp_path, name):
    folders = save_pair(lambda: tiny_model(name), tmp_path)
    pair = ModelPair.open(*folders)
    model = model_of(pair)
    _ = model.targets
    for lam, folder in ((0.0, folders[0]), (1.0, folders[1]), (0.0, folders[0])):
        Merger(pair).apply(MergePoint("linear", lam), model.targets)
        torch.testing.assert_close(in_place(model), logits(folder), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("float16", "float32"), ("bfloat16", "float16")])
def test_parents_of_two_dtypes_give_the_aligned_models(tmp_path, dtypes):
    folders = save_pair(lambda: tiny_llama(1), tmp_path, tuple(getattr(torch, dtype) for dtype in dtypes))
    merged = require_round_trip(ModelPair.open(*folders), tmp_path)
    assert {str(tensor.dtype) for tensor in merged.values()} == {f"torch.{dtypes[1]}"}
    assert json.loads((tmp_path / "merged-0.3" / "config.json").read_text())["dtype"] == dtypes[1]


@pytest.mark.parametrize("ties", [(True, True), (True, False), (False, True), (False, False)])
def test_tied_and_untied_heads_merge_in_any_combination(tmp_path, ties):
    folders = [
        save_model(tiny_llama(i, tie_word_embeddings=tie), tmp_path / str(i), torch.bfloat16)
        for i, tie in enumerate(ties)
    ]
    pair = ModelPair.open(*folders)
    merged = require_round_trip(pair, tmp_path)
    assert ("lm_head.weight" in merged) == (not all(ties))
    assert json.loads((tmp_path / "merged-0.3/config.json").read_text())["tie_word_embeddings"] == all(ties)
    assert len(pair.fit.notes) == (ties[0] != ties[1])
    if not all(ties):
        heads = [
            load_file(folder / "model.safetensors")["model.embed_tokens.weight" if tie else "lm_head.weight"].double()
            for folder, tie in zip(folders, ties, strict=True)
        ]
        plain = 0.7 * heads[0] + 0.3 * heads[1]
        assert ((merged["lm_head.weight"].double() - plain).abs() <= plain.abs() * 2**-8 + 1e-6).all()
    for lam, folder in ((0.0, folders[0]), (1.0, folders[1])):
        require_round_trip(pair, tmp_path, lam)
        torch.testing.assert_close(logits(tmp_path / f"merged-{lam}"), logits(folder), rtol=0, atol=1e-5)


def vocabulary_pair(tmp_path, rows, **settings):
    return [
        save_model(tiny_llama(i, vocab=count, **settings), tmp_path / str(i), torch.bfloat16)
        for i, count in enumerate(rows)
    ]


@pytest.mark.parametrize("rows", [(263, 270), (270, 263)])
@pytest.mark.parametrize("vocab", ["aligned", "base"])
@pytest.mark.parametrize("tied", [False, True])
def test_rows_of_one_vocabulary_come_from_the_parent_that_has_them(tmp_path, rows, vocab, tied):
    folders = vocabulary_pair(tmp_path, rows, tie_word_embeddings=tied)
    pair = ModelPair.open(*folders, vocab=vocab)
    merged = require_round_trip(pair, tmp_path)
    stored = [load_file(folder / "model.safetensors") for folder in folders]
    own, host = (rows[1], stored[1]) if vocab == "aligned" else (rows[0], stored[0])
    embedding = merged["model.embed_tokens.weight"]
    assert embedding.shape[0] == own == pair.config["vocab_size"]
    assert torch.equal(embedding[263:], host["model.embed_tokens.weight"][263:own])
    both = [tensors["model.embed_tokens.weight"][:263].double() for tensors in stored]
    assert ((embedding[:263].double() - (0.7 * both[0] + 0.3 * both[1])).abs() <= 0.02).all()
    assert any("270" in note and "263" in note for note in pair.fit.notes)


def test_lambda_0_keeps_the_bases_own_rows_bit_for_bit(tmp_path):
    folders = vocabulary_pair(tmp_path, (263, 270))
    pair = ModelPair.open(*folders)
    stored = [load_file(folder / "model.safetensors")["lm_head.weight"] for folder in folders]
    head = Merger(pair).tensor(MergePoint("linear", 0.0), "lm_head.weight")
    assert torch.equal(head, torch.cat([stored[0], stored[1][263:]]))


def test_vocab_error_refuses_two_vocabularies_and_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match="263 .base. and 270 .aligned. rows: --vocab aligned"):
        ModelPair.open(*vocabulary_pair(tmp_path, (263, 270)), vocab="error")


def test_a_shape_that_is_no_vocabulary_is_a_difference(tmp_path):
    folders = [
        save_model(tiny_llama(0), tmp_path / "0"),
        save_model(tiny_llama(0), tmp_path / "1"),
    ]
    tensors = load_file(folders[1] / "model.safetensors")
    tensors["model.norm.weight"] = torch.cat([tensors["model.norm.weight"]] * 2)
    save_file(tensors, folders[1] / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor model.norm.weight differs in shape .*: \[32\] / \[64\]"):
        ModelPair.open(*folders)


def test_a_multimodal_pair_copies_the_aligned_models_eyes(tmp_path):
    folders = save_pair(tiny_gemma3_multimodal, tmp_path)
    pair = ModelPair.open(*folders)
    merged = require_round_trip(pair, tmp_path)
    stored = [load_file(folder / "model.safetensors") for folder in folders]
    eyes = [name for name in merged if "vision_tower" in name or "projector" in name]
    assert len(eyes) > 5
    assert all(torch.equal(merged[name], stored[1][name]) for name in eyes)
    assert not any(torch.equal(merged[name], stored[1][name]) for name in merged if name not in eyes)
    assert set(merged) == set(stored[1])


@pytest.mark.parametrize("seeing", ["base", "aligned"])
def test_a_multimodal_model_and_its_text_model_are_matched_by_name(tmp_path, seeing):
    plain = save_model(tiny_model("gemma3"), tmp_path / "plain", torch.bfloat16)
    eyed = save_model(tuned(tiny_gemma3_multimodal(), 7), tmp_path / "eyed", torch.bfloat16)
    pair = ModelPair.open(*((eyed, plain) if seeing == "base" else (plain, eyed)))
    merged = require_round_trip(pair, tmp_path)
    assert set(merged) == set(pair.aligned.tensors)
    assert any("multimodal" in note for note in pair.fit.notes)


def test_experts_of_a_mixture_are_found_in_the_stack_that_transformers_makes(tmp_path):
    folders = save_pair(lambda: tiny_model("mixtral"), tmp_path)
    checkpoint = Checkpoint.open(folders[1])
    places = LanguageModel(checkpoint, CPU, torch.float32).targets
    experts = {name: place for name, place in places.items() if ".experts." in name}
    assert len(experts) == 2 * 4 * 3
    assert all(place._base is not None for place in experts.values())
    assert all(torch.equal(place, checkpoint.read(name).float()) for name, place in places.items())


def test_experts_that_are_copies_of_each_other_are_told_apart_by_their_number(tmp_path):
    """As in a mixture that was made from a dense model; the base's experts are four different ones."""
    folders = save_pair(lambda: tiny_model("mixtral"), tmp_path)
    tensors = load_file(folders[1] / "model.safetensors")
    for name in tensors:
        if ".experts." in name:
            before, _, after = name.partition(".experts.")
            tensors[name] = tensors[f"{before}.experts.0{after[1:]}"].clone()
    save_file(tensors, folders[1] / "model.safetensors", metadata={"format": "pt"})
    pair = ModelPair.open(*folders)
    model = model_of(pair)
    _ = model.targets
    Merger(pair).apply(MergePoint("linear", 0.0), model.targets)
    torch.testing.assert_close(in_place(model), logits(folders[0]), rtol=0, atol=1e-5)


def test_buffers_that_are_not_floating_are_copied(tmp_path):
    folders = save_pair(lambda: tiny_llama(1), tmp_path)
    for i, folder in enumerate(folders):
        tensors = load_file(folder / "model.safetensors")
        tensors["model.step"] = torch.tensor([i, 7])
        tensors["model.count"] = torch.tensor(i)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    pair = ModelPair.open(*folders)
    for lam, expected in ((0.0, 0), (0.4, 1), (1.0, 1)):
        assert Merger(pair).tensor(MergePoint("linear", lam), "model.step").tolist() == [expected, 7]
        assert Merger(pair).tensor(MergePoint("linear", lam), "model.count").item() == expected


def test_an_encoder_decoder_is_refused_from_its_config(tmp_path):
    folder = tmp_path / "t5"
    tiny_t5().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    with pytest.raises(CheckpointError, match="base is an encoder-decoder model .t5.; only causal language models"):
        ModelPair.open(folder, folder)


def test_quantised_weights_are_refused(tmp_path):
    folders = save_pair(lambda: tiny_llama(1), tmp_path)
    config = json.loads((folders[1] / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folders[1] / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="aligned is quantised .gptq."):
        ModelPair.open(*folders)


def test_weights_of_8_bits_are_refused_by_the_name_of_the_tensor(tmp_path):
    folders = save_pair(lambda: tiny_llama(1), tmp_path)
    tensors = load_file(folders[0] / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, folders[0] / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"tensor {name} is stored as F8_E4M3"):
        ModelPair.open(*folders)


def test_shards_of_the_parents_change_no_bit(tmp_path):
    single = save_pair(lambda: tiny_llama(1), tmp_path / "single")
    sharded = save_pair(lambda: tiny_llama(1), tmp_path / "sharded", max_shard_size="20KB")
    pairs = [ModelPair.open(*folders) for folders in (single, sharded, (single[0], sharded[1]))]
    assert len(pairs[1].base.shape.files) > 2
    for method in ("linear", "slerp", "ties", "dare_linear", "della_linear", "breadcrumbs", "lines"):
        point = MergePoint(method, 0.4)
        for name in pairs[0].names:
            first, *others = (Merger(pair).tensor(point, name) for pair in pairs)
            assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("method", ["linear", "slerp", "task_arithmetic", "ties", "dare_linear", "della_linear"])
def test_a_thousand_visits_leave_no_drift(tmp_path, method):
    pair = ModelPair.open(*save_pair(lambda: tiny_llama(1), tmp_path))
    names = [name for name in pair.names if "layers.0" in name]
    merger = Merger(pair)
    targets = {name: torch.zeros(pair.slots[name].shape) for name in names}
    merger.apply(MergePoint(method, 0.4), targets)
    first = {name: target.clone() for name, target in targets.items()}
    for i in range(1000 if method == "linear" else 100):
        merger.apply(MergePoint(method, (i % 16) / 10), targets)
    merger.apply(MergePoint(method, 0.4), targets)
    assert all(torch.equal(targets[name], first[name]) for name in names)
    fresh = {name: Merger(pair).tensor(MergePoint(method, 0.4), name).float() for name in names}
    assert all(torch.equal(targets[name], fresh[name]) for name in names)


def test_parents_that_say_they_are_tied_but_store_another_head_are_merged_as_they_load(tmp_path):
    folders = save_pair(lambda: tiny_llama(1), tmp_path)
    for folder in folders:
        config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
        (folder / "config.json").write_text(json.dumps(config))
    require_round_trip(ModelPair.open(*folders), tmp_path)


def test_the_parents_files_are_never_written(tmp_path):
    folders = save_pair(lambda: tiny_model("mixtral"), tmp_path)
    before = [(folder / "model.safetensors").read_bytes() for folder in folders]
    copies = [shutil.copytree(folder, tmp_path / f"{folder.name}-copy") for folder in folders]
    model = model_of(ModelPair.open(*folders))
    Merger(ModelPair.open(*folders)).apply(MergePoint("linear", 0.5), model.targets)
    assert [(folder / "model.safetensors").read_bytes() for folder in folders] == before
    assert all(
        np.array_equal(*(np.fromfile(f / "config.json", np.uint8) for f in pair))
        for pair in zip(folders, copies, strict=True)
    )


def with_tensors(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_config(folder, **settings):
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v != "gone"}))
    return folder


@pytest.mark.parametrize("sides", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_what_old_checkpoints_store_besides_is_left_out_and_noted(tmp_path, name, sides):
    folders = save_pair(lambda: tiny_model(name), tmp_path, (torch.float16, torch.float16))
    inside = {"llama": "model.layers.0.self_attn.", "gpt_neox": "gpt_neox.layers.0.attention."}[name]

    def edit(tensors):
        tensors[f"{inside}rotary_emb.inv_freq"] = torch.ones(4)
        if name == "gpt_neox":
            tensors[f"{inside}bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
            tensors[f"{inside}masked_bias"] = torch.tensor(float("-inf"))

    for side in sides:
        with_tensors(folders[side], edit)
    pair = ModelPair.open(*folders)
    merged = require_round_trip(pair, tmp_path)
    assert not any("inv_freq" in key or "masked" in key or key == f"{inside}bias" for key in merged)
    assert len([note for note in pair.fit.notes if "computes from its config" in note]) == len(sides)
    assert all(fingerprint(parent) for parent in (pair.base, pair.aligned))


def test_gpt2_with_and_without_its_prefix(tmp_path):
    make = lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=263, n_positions=64))  # noqa: E731
    folders = save_pair(make, tmp_path)

    def strip(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)

    with_tensors(folders[0], strip)
    merged = require_round_trip(ModelPair.open(*folders), tmp_path)
    assert set(merged) == set(load_file(folders[1] / "model.safetensors"))


@pytest.mark.parametrize("sides", [(0,), (1,), (0, 1)])
def test_a_tied_head_that_is_stored_as_well_is_no_head_of_its_own(tmp_path, sides):
    folders = save_pair(lambda: tiny_llama(1, tie_word_embeddings=True), tmp_path)
    for side in sides:
        with_tensors(folders[side], lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    pair = ModelPair.open(*folders)
    assert pair.fit.notes == []
    assert "lm_head.weight" not in require_round_trip_of_stored(pair, tmp_path)


def require_round_trip_of_stored(pair, tmp_path):
    """As `require_round_trip`, where the model has places for more than the merge holds."""
    point, model = MergePoint("linear", 0.3), model_of(pair)
    assert set(pair.names) <= set(model.targets)
    Merger(pair).apply(point, model.targets)
    write_point(pair, point, tmp_path / "merged", None, {})
    torch.testing.assert_close(in_place(model), logits(tmp_path / "merged"), rtol=0, atol=1e-5)
    return load_file(tmp_path / "merged" / "model.safetensors")


def test_two_names_of_one_tensor_are_a_difference(tmp_path):
    folders = save_pair(lambda: tiny_llama(1), tmp_path)
    with_tensors(folders[0], lambda t: t.update({"language_model.model.norm.weight": t["model.norm.weight"].clone()}))
    with pytest.raises(CheckpointError, match="of base are one tensor by their names"):
        ModelPair.open(*folders)


@pytest.mark.parametrize("rows", [(263, 270), (270, 263)])
@pytest.mark.parametrize("vocab", ["aligned", "base"])
def test_parents_that_stay_on_a_device_give_what_streaming_gives(tmp_path, monkeypatch, rows, vocab):
    """On the CPU, with as much `free memory` as is said; half of it holds a part of the parents."""
    pair = ModelPair.open(*vocabulary_pair(tmp_path, rows), vocab=vocab)
    whole = pair.base.bytes + pair.aligned.bytes
    for free, is_all in ((10 * whole, True), (whole, False), (0, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device, free=free: (free, free))
        merger = Merger(pair)
        assert merger.keep_parents_on(CPU) == is_all
        assert bool(merger._resident) == bool(free)
        for lam in (0.0, 0.3, 1.0):
            for name in pair.names:
                point = MergePoint("linear", lam)
                assert torch.equal(merger.tensor(point, name), Merger(pair).tensor(point, name)), (name, lam)


def test_eyes_are_never_rounded_to_the_dtype_asked_for(tmp_path):
    plain = save_model(tiny_model("gemma3"), tmp_path / "plain", torch.bfloat16)
    eyed = save_model(tuned(tiny_gemma3_multimodal(), 7), tmp_path / "eyed", torch.bfloat16)
    pair = ModelPair.open(plain, eyed)
    eyes = next(name for name in pair.names if "vision_tower" in name)
    for lam in (0.0, 0.5, 1.0):
        assert Merger(pair, torch.float16).dtype(MergePoint("linear", lam), eyes) == torch.bfloat16


def test_a_multimodal_model_and_another_kind_of_text_model_are_a_difference(tmp_path):
    eyed = save_model(tiny_gemma3_multimodal(), tmp_path / "eyed")
    other = with_config(save_model(tiny_model("gemma3"), tmp_path / "other"), model_type="gemma2")
    with pytest.raises(CheckpointError, match="model_type: base gemma2, aligned gemma3_text"):
        ModelPair.open(other, eyed)


def opened(folders, *more) -> ModelPair:
    return open_pair(Parents(base=str(folders[0]), aligned=tuple(map(str, (folders[1], *more)))))


def test_a_setting_that_is_null_is_not_one_that_is_left_out(tmp_path):
    """Gemma 2's default is a soft cap of 30, null is none."""
    folders = save_pair(lambda: tiny_model("gemma2"), tmp_path)
    with_config(folders[0], final_logit_softcapping="gone")
    with_config(folders[1], final_logit_softcapping=None)
    with pytest.raises(CheckpointError, match=r"config final_logit_softcapping: base 30.0, aligned None"):
        opened(folders)


def test_every_model_of_an_average_is_compared_with_its_defaults(tmp_path):
    folders = save_pair(lambda: tiny_llama(1, rope_parameters={"rope_theta": 5e5, "rope_type": "default"}), tmp_path)
    other = shutil.copytree(folders[1], tmp_path / "other")
    with_config(other, rope_parameters="gone", rope_theta="gone", rope_scaling="gone")
    assert opened(folders)
    with pytest.raises(CheckpointError, match=r"config rope_theta: base 500000.0, aligned 10000.0"):
        opened(folders, other)


def test_what_no_model_computes_with_may_stand_in_one_config(tmp_path):
    folders = save_pair(lambda: tiny_llama(1), tmp_path)
    with_config(folders[1], unsloth_version="2026.1", tokenizer_class="LlamaTokenizer", my_note="hello", prefix=" ")
    assert opened(folders)


def test_the_length_of_rotary_embeddings_that_stretch_must_agree(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    folders = save_pair(lambda: tiny_llama(1, rope_parameters=rope), tmp_path)
    with_config(folders[0], max_position_embeddings=64)
    with pytest.raises(CheckpointError, match="max_position_embeddings: base 64, aligned 512"):
        ModelPair.open(*folders)


def test_two_identical_layers_of_a_mixture_are_told_apart(tmp_path):
    folders = save_pair(lambda: tiny_model("mixtral"), tmp_path)

    def repeat(tensors):
        for name in tensors:
            tensors[name] = tensors[name.replace("layers.1.", "layers.0.")].clone()

    with_tensors(folders[1], repeat)
    pair = ModelPair.open(*folders)
    model = model_of(pair)
    _ = model.targets
    Merger(pair).apply(MergePoint("linear", 0.0), model.targets)
    torch.testing.assert_close(in_place(model), logits(folders[0]), rtol=0, atol=1e-5)
