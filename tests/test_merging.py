"""The weights of a point: formula, rounding, endpoints, and what must not change a bit."""

import numpy as np
import pytest
import torch
from conftest import save_model, tiny_llama
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.merging import merger as merger_module
from merge_calib.merging.linear import weighted
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.rows import Row


def linear(base: torch.Tensor, aligned: torch.Tensor, lam: float) -> torch.Tensor:
    return weighted(base.float(), aligned.float(), 1 - lam, lam)


LAMBDAS = [0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.9, 0.95, 1.3]


@pytest.fixture(scope="module")
def pair(pair_folders):
    return ModelPair.open(*pair_folders)


def test_linear_equals_float64_arithmetic_to_float32_rounding():
    rng = np.random.default_rng(0)
    base, aligned = (torch.from_numpy(rng.normal(size=1000)).float() for _ in range(2))
    for lam in LAMBDAS:
        exact = (1 - lam) * base.double() + lam * aligned.double()
        assert torch.allclose(linear(base, aligned, lam).double(), exact, rtol=0, atol=5e-7)


def test_a_worked_example():
    merged = linear(torch.tensor([0.0, 2.0, -4.0]), torch.tensor([1.0, 4.0, 4.0]), 0.25)
    assert merged.tolist() == [0.25, 2.5, -2.0]


def test_rounding_happens_once_from_float32(pair):
    name = "model.layers.0.mlp.up_proj.weight"
    merged = Merger(pair).tensor(MergePoint("linear", 0.3), name)
    base, aligned = pair.base.read(name), pair.aligned.read(name)
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged, linear(base, aligned, 0.3).to(torch.bfloat16))
    in_bf16 = base * 0.7 + aligned * 0.3
    assert not torch.equal(merged, in_bf16)  # what arithmetic in the stored dtype would give


@pytest.mark.parametrize(("lam", "side"), [(0.0, "base"), (1.0, "aligned")])
def test_the_ends_are_the_parents_bit_for_bit(pair, lam, side):
    merger = Merger(pair, torch.float16)
    for name in pair.names:
        parent = getattr(pair, side).read(name)
        merged = merger.tensor(MergePoint("linear", lam), name)
        assert merged.dtype == parent.dtype
        assert torch.equal(merged.view(torch.int16), parent.view(torch.int16))


def test_swapping_parents_with_one_minus_lambda_agrees_to_one_ulp(pair):
    """One ulp of bf16, or of the float32 terms where they cancel and leave a smaller number."""
    swapped = Merger(ModelPair(pair.aligned, pair.base))
    for lam in LAMBDAS:
        for name in pair.names:
            one = Merger(pair).tensor(MergePoint("linear", lam), name).double()
            other = swapped.tensor(MergePoint("linear", 1 - lam), name).double()
            ulp = 2.0 ** (torch.maximum(one.abs(), other.abs()).clamp(min=1e-30).log2().floor() - 7)
            terms = pair.base.read(name).double().abs() + pair.aligned.read(name).double().abs()
            assert ((one - other).abs() <= torch.maximum(ulp, terms * 2**-22)).all()


def test_pieces_and_threads_change_no_bit(pair, monkeypatch):
    point = MergePoint("linear", 0.3)
    whole = {name: Merger(pair).tensor(point, name) for name in pair.names}
    monkeypatch.setattr(merger_module, "CHUNK", 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert all(torch.equal(whole[name], Merger(pair).tensor(point, name)) for name in pair.names)
    finally:
        torch.set_num_threads(threads)


def test_weights_in_place_do_not_depend_on_the_points_visited_before(pair):
    model = LanguageModel(pair.aligned, torch.device("cpu"), torch.float32)
    merger = Merger(pair)
    merger.apply(MergePoint("linear", 0.4), model.targets)
    first = {name: target.clone() for name, target in model.targets.items()}
    for lam in [1.5, 0.0, 0.7, 1.0] * 10:
        merger.apply(MergePoint("linear", lam), model.targets)
    assert not torch.equal(model.targets["model.norm.weight"], first["model.norm.weight"])
    merger.apply(MergePoint("linear", 0.4), model.targets)
    assert all(torch.equal(model.targets[name], first[name]) for name in first)


def test_weights_in_place_are_the_rounded_ones_cast_to_the_compute_dtype(pair):
    model = LanguageModel(pair.aligned, torch.device("cpu"), torch.float32)
    merger = Merger(pair, torch.float16)
    point = MergePoint("linear", 0.6)
    merger.apply(point, model.targets)
    for name, target in model.targets.items():
        assert target.dtype == torch.float32
        assert torch.equal(target, merger.tensor(point, name).float())


def test_the_parents_on_disk_are_not_touched(pair, pair_folders):
    before = [(folder / "model.safetensors").read_bytes() for folder in pair_folders]
    model = LanguageModel(pair.aligned, torch.device("cpu"), torch.bfloat16)
    Merger(pair).apply(MergePoint("linear", 0.5), model.targets)
    assert [(folder / "model.safetensors").read_bytes() for folder in pair_folders] == before
    again = ModelPair.open(*pair_folders)
    assert all(torch.equal(again.aligned.read(n), pair.aligned.read(n)) for n in pair.names)


def test_a_head_that_is_stored_under_another_name_is_merged_too(tmp_path):
    """transformers loads GPT-NeoX's embed_out as lm_head; it is found by its values."""
    folders = []
    for seed, side in enumerate(("base", "aligned")):
        model = tiny_model("gpt_neox")
        torch.manual_seed(seed + 1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.15)
        folders.append(save_model(model, tmp_path / side))
    pair = ModelPair.open(*folders)
    model = LanguageModel(pair.aligned, torch.device("cpu"), torch.float32)
    assert set(model.targets) == set(pair.names)
    tokens = np.arange(10)
    row = Row(tokens, 9, np.arange(263)[None], 0, -1)
    [batch] = model.plan([row], [[0]], 100)
    before = model.read(batch).logprobs
    Merger(pair).apply(MergePoint("linear", 0.0), model.targets)
    base = AutoModelForCausalLM.from_pretrained(folders[0], dtype=torch.float32)
    expected = torch.log_softmax(base(torch.from_numpy(tokens)[None]).logits[0, -1], -1).detach().numpy()
    found = model.read(batch).logprobs
    np.testing.assert_allclose(found, expected[batch.ids], rtol=0, atol=1e-5)
    assert np.abs(before - found).max() > 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_merged_on_a_gpu_are_those_merged_on_the_cpu(pair):
    for lam in LAMBDAS:
        for name in pair.names:
            point = MergePoint("linear", lam)
            assert torch.equal(Merger(pair).tensor(point, name, "cuda").cpu(), Merger(pair).tensor(point, name))


def test_tied_embeddings_stay_tied(tmp_path):
    folders = [save_model(tiny_llama(s, tie_word_embeddings=True), tmp_path / str(s)) for s in (1, 2)]
    pair = ModelPair.open(*folders)
    assert "lm_head.weight" not in pair.names
    model = LanguageModel(pair.aligned, torch.device("cpu"), torch.float32)
    Merger(pair).apply(MergePoint("linear", 0.5), model.targets)
    assert torch.equal(model._head.weight, model.targets["model.embed_tokens.weight"])


def test_sharded_and_single_parents_give_the_same_weights(tmp_path, pair):
    folder = save_model(tiny_llama(1), tmp_path / "sharded", torch.bfloat16, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    sharded = ModelPair(Checkpoint.open(folder), pair.aligned)
    point = MergePoint("linear", 0.3)
    assert all(torch.equal(Merger(pair).tensor(point, n), Merger(sharded).tensor(point, n)) for n in pair.names)


@pytest.mark.parametrize(
    ("lam", "name"),
    [
        (0.4, "linear-lambda-0.4000"),
        (-0.0, "linear-lambda-0.0000"),
        (1.5, "linear-lambda-1.5000"),
        (0.123456, "linear-lambda-0.123456"),
        (-0.1, "linear-lambda--0.1000"),
        (0.1 + 0.2, "linear-lambda-0.3000"),
    ],
)
def test_names_have_enough_decimals_to_tell_points_apart(lam, name):
    assert MergePoint("linear", lam).name == name
