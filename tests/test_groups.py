"""Groups of tensors with a lambda of their own: what a name is, selectors, coverage, and the weights that come out."""

import pytest
import torch
from conftest import save_model, tiny_llama
from tiny_models import tiny_gemma3_multimodal, tiny_model, tuned

from merge_calib.checkpoints.names import canonical, kind_of, layer_of
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.errors import InputError
from merge_calib.merging.groups import assign, parse_groups
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.plan import parse_group_lambdas, parse_lambda
from merge_calib.search.grid import PARENTS, Grid, line, product


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("model.embed_tokens.weight", "embeddings", None),
        ("model.layers.3.self_attn.q_proj.weight", "attention", 3),
        ("model.layers.3.self_attn.q_norm.weight", "norms", 3),
        ("model.layers.11.mlp.up_proj.weight", "mlp", 11),
        ("model.layers.0.input_layernorm.weight", "norms", 0),
        ("model.norm.weight", "final_norm", None),
        ("lm_head.weight", "head", None),
        ("gpt_neox.embed_in.weight", "embeddings", None),
        ("gpt_neox.layers.5.attention.query_key_value.weight", "attention", 5),
        ("gpt_neox.layers.5.mlp.dense_h_to_4h.bias", "mlp", 5),
        ("gpt_neox.final_layer_norm.bias", "final_norm", None),
        ("embed_out.weight", "head", None),
        ("model.decoder.embed_positions.weight", "embeddings", None),
        ("model.decoder.layers.1.self_attn.out_proj.bias", "attention", 1),
        ("model.decoder.layers.1.self_attn_layer_norm.weight", "norms", 1),
        ("model.decoder.layers.1.fc1.weight", "mlp", 1),
        ("model.layers.2.block_sparse_moe.gate.weight", "mlp", 2),
        ("model.layers.2.block_sparse_moe.experts.7.w1.weight", "mlp", 2),
        ("transformer.h.4.ln_1.weight", "norms", 4),
        ("transformer.h.4.attn.c_attn.weight", "attention", 4),
        ("transformer.ln_f.weight", "final_norm", None),
        ("transformer.wte.weight", "embeddings", None),
        ("language_model.model.layers.9.mlp.down_proj.weight", "mlp", 9),
        ("language_model.lm_head.weight", "head", None),
        ("vision_tower.vision_model.encoder.layers.3.self_attn.q_proj.weight", "senses", None),
        ("multi_modal_projector.mm_soft_emb_norm.weight", "senses", None),
        ("model.vision_tower.vision_model.post_layernorm.weight", "senses", None),
        ("model.language_model.layers.0.mlp.gate_proj.weight", "mlp", 0),
        ("model.vision_model.encoder.layers.0.mlp.fc1.weight", "senses", None),
        ("model.embed_audio.embedding.weight", "senses", None),
        ("model.connector.modality_projection.proj.weight", "senses", None),
        ("output.weight", "head", None),
        ("transformer.blocks.0.norm_attn_norm.attn.Wqkv.weight", "attention", 0),
        ("transformer.blocks.0.norm_attn_norm.norm_1.weight", "norms", 0),
        ("model.layers.1.self_attn.rotary_emb.inv_freq", "attention", 1),
        ("model.decoder.project_out.weight", "head", None),
        ("model.layers.4.mlp.shared_expert.up_proj.weight", "mlp", 4),
    ],
)
def test_kind_and_layer_are_told_from_names(name, kind, layer):
    assert (kind_of(name), layer_of(name)) == (kind, layer)


def test_wrappers_of_multimodal_checkpoints_are_taken_off():
    text = set(tiny_model("gemma3").state_dict())
    seeing = {canonical(name) for name in tiny_gemma3_multimodal().state_dict()}
    assert {name for name in seeing if kind_of(name) != "senses"} == text


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "opt", "phi3", "mixtral", "gemma2", "olmo2", "qwen3"])
def test_kinds_cover_a_real_layout_with_nothing_left_in_the_wrong_place(name):
    kinds = {key: kind_of(key) for key in tiny_model(name).state_dict()}
    assert {"embeddings", "attention", "mlp", "norms", "final_norm"} <= set(kinds.values())
    for key, kind in kinds.items():
        assert (layer_of(key) is None) == (kind in ("embeddings", "final_norm", "head")), key


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    root = tmp_path_factory.mktemp("groups")
    return ModelPair.open(*(save_model(tiny_llama(i), root / str(i), torch.bfloat16) for i in range(2)))


def test_blocks_of_layers_are_of_even_size_and_leave_none_out():
    assert parse_groups("layers:4,rest", 32) == ("layers:0-7", "layers:8-15", "layers:16-23", "layers:24-31", "rest")
    assert parse_groups("layers:3", 8) == ("layers:0-1", "layers:2-4", "layers:5-7")
    assert parse_groups("attention, mlp,*.norm.*", 2) == ("attention", "mlp", "*.norm.*")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers:0", "number of blocks must lie between 1 and the 2 layers"),
        ("layers:3,rest", "number of blocks must lie between 1 and the 2 layers"),
        ("atention,rest", "--groups 'atention' is unknown; allowed: layers:N"),
        ("", "--groups '' is unknown"),
        ("layers:0-2,rest", "--groups 'layers:0-2': the layers of these models are 0 to 1"),
        ("layers:1-0,rest", "--groups 'layers:1-0': the layers of these models are 0 to 1"),
        ("mlp,mlp,rest", "--groups names 'mlp' twice"),
    ],
)
def test_groups_that_are_none_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_groups(text, 2)


@pytest.mark.parametrize(
    ("selectors", "message"),
    [
        (("attention", "*.q_proj.*", "rest"), r"overlap: attention and \*.q_proj.\* both match model.layers.0"),
        (("layers:0-1", "mlp", "rest"), "overlap: layers:0-1 and mlp both match"),
        (("*.router.*", "rest"), r"--groups: \*.router.\* matches no tensor of these models"),
        (("layers:0-1",), r"leave 3 tensor.s. without a lambda, first lm_head.weight .head.: .* add rest"),
        (("layers:0-1", "embeddings", "final_norm", "head", "rest"), "--groups: rest matches no tensor"),
    ],
)
def test_groups_that_overlap_match_nothing_or_leave_something_out_are_refused(pair, selectors, message):
    with pytest.raises(InputError, match=message):
        assign(selectors, pair.names)


def test_each_tensor_has_the_lambda_of_its_group(pair):
    groups = (("layers:0-0", 0.2), ("layers:1-1", 0.9), ("embeddings", 0.0), ("head", 1.0), ("final_norm", 1.3))
    point, merger = MergePoint("linear", None, (), groups), Merger(pair)
    expected = {"model.embed_tokens.weight": 0.0, "lm_head.weight": 1.0, "model.norm.weight": 1.3}
    for name in pair.names:
        lam = expected.get(name, 0.2 if ".0." in name else 0.9)
        assert torch.equal(merger.tensor(point, name), merger.tensor(MergePoint("linear", lam), name)), name


@pytest.mark.parametrize("method", ["slerp", "ties", "dare_linear", "lines"])
def test_groups_work_with_every_method(pair, method):
    point = MergePoint(method, None, (), (("mlp", 0.3), ("rest", 0.8)))
    merger = Merger(pair)
    for name in pair.names:
        lam = 0.3 if "mlp" in name else 0.8
        assert torch.equal(merger.tensor(point, name), merger.tensor(MergePoint(method, lam), name))


def test_groups_that_agree_are_the_point_of_their_lambda():
    assert MergePoint("linear", None, (), (("mlp", 0.3), ("rest", 0.3))) == MergePoint("linear", 0.3)
    assert MergePoint("ties", None, (), (("mlp", 0.0), ("rest", 0.0))) == PARENTS[0]


def test_parents_are_one_point_by_every_method_that_ends_there():
    assert MergePoint("slerp", 1.0) == MergePoint("linear", 1.0) == MergePoint("task_arithmetic", 1)
    assert MergePoint("ties", 0.0, (("density", 0.5),)) == MergePoint("linear", 0.0)
    trimmed = MergePoint("ties", 1.0)
    assert trimmed != MergePoint("linear", 1.0)
    assert not trimmed.is_aligned


def test_points_are_read_back_from_their_records():
    for point in (
        MergePoint("linear", 0.3),
        MergePoint("ties", 0.3, (("density", 0.4),)),
        MergePoint("della_linear", -0.5),
        MergePoint("slerp", None, (), (("mlp", 0.3), ("rest", 1.0))),
    ):
        assert MergePoint.read(point.record()) == point
        assert MergePoint.read(point.record()).name == point.name


def test_names_say_the_options_and_tell_all_points_apart():
    assert MergePoint("ties", 0.4).name == "ties-density-0.2-lambda-0.4000"
    assert MergePoint("ties", 0.4) == MergePoint("ties", 0.4, (("density", 0.2),))
    several = [MergePoint("linear", None, (), (("mlp", lam), ("rest", 1.0))) for lam in (0.1, 0.2, 0.3)]
    assert len({point.name for point in several}) == 3
    assert all(point.name.startswith("linear-") and "/" not in point.name for point in several)


def test_a_grid_of_groups_is_their_product_after_the_parents():
    points = Grid(product("linear", {}, {"mlp": (0.0, 0.5, 1.0), "rest": (0.0, 1.0)})).points
    assert points[:2] == PARENTS
    assert len(points) == 6  # the two corners where both agree are the parents
    assert all(point.lam is None for point in points[2:])


def test_the_order_of_groups_does_not_make_another_point():
    one = MergePoint("linear", None, (), (("attention", 0.4), ("rest", 0.6)))
    assert one == MergePoint("linear", None, (), (("rest", 0.6), ("attention", 0.4)))


def test_seeds_that_are_long_keep_all_their_digits():
    names = {MergePoint("dare_linear", 0.5, (("drop_seed", 20240101000 + i),)).name for i in range(3)}
    assert names == {f"dare_linear-density-0.5-drop_seed-{20240101000 + i}-lambda-0.5000" for i in range(3)}


@pytest.mark.parametrize("lam", [float("nan"), float("inf")])
def test_a_lambda_that_is_no_number_is_no_point(lam):
    with pytest.raises(AssertionError):
        MergePoint("linear", lam)


def test_groups_are_of_what_is_merged(tmp_path):
    folders = [save_model(tuned(tiny_gemma3_multimodal(), i), tmp_path / str(i)) for i in range(2)]
    pair = ModelPair.open(*folders)
    assign(parse_groups("attention,mlp,norms,final_norm,embeddings", pair.layers), pair.merged)
    with pytest.raises(InputError, match="rest matches no tensor"):
        assign(("attention", "mlp", "norms", "final_norm", "embeddings", "rest"), pair.merged)


def test_slerp_counts_what_it_turns_at_that_point(pair):
    merger = Merger(pair)
    everything = merger.facts(MergePoint("slerp", 0.5))
    some = merger.facts(MergePoint("slerp", None, (), (("mlp", 0.5), ("rest", 1.0))))
    assert some["tensors"] == 6 < everything["tensors"] == len(pair.names)
    assert some["slerped_tensors"] <= 6


def test_too_many_combinations_are_refused():
    with pytest.raises(InputError, match="give 65,536 combinations; at most 1,001"):
        product("linear", {}, {group: tuple(i / 10 for i in range(16)) for group in "abcd"})


def test_a_line_of_another_method_keeps_the_parents():
    points = Grid(line("ties", {"density": 0.5}, (0.0, 0.5, 1.0))).points
    assert [(p.method, p.lam) for p in points] == [("linear", 0.0), ("linear", 1.0), ("ties", 0.5), ("ties", 1.0)]


def test_lambdas_by_group_are_read_from_text():
    assert parse_group_lambdas("0:1:0.5") == {}
    assert parse_group_lambdas("layers:0-7=0:1:0.5; rest=1") == {"layers:0-7": (0.0, 0.5, 1.0), "rest": (1.0,)}
    assert parse_lambda("0.4") == (0.4, ())
    assert parse_lambda("layers:0-7=0.4;rest=1") == (None, (("layers:0-7", 0.4), ("rest", 1.0)))


@pytest.mark.parametrize("text", ["mlp=0.4;0.5", "mlp=0.4;mlp=0.5", "mlp=", "=0.3;rest=1", "mlp=1e9;rest=1", "nan"])
def test_a_lambda_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--lambda"):
        parse_lambda(text)


@pytest.mark.parametrize("text", ["mlp=0.4;mlp=0.5", "mlp=;rest=1", "mlp=0.4;=1"])
def test_group_lambdas_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="--lambdas"):
        parse_group_lambdas(text)
