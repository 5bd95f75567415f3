"""What `merge-calib check` says of a pair, from headers alone and from a sample of its weights."""

import inspect
import json
import shutil
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from conftest import save_model, tiny_llama
from safetensors.torch import load_file, save_file

from merge_calib import inspection, sampling
from merge_calib.checkpoints.names import kind_of
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.inspection import describe, harmless_differences
from merge_calib.merging.groups import parse_groups
from merge_calib.merging.merger import Merger
from merge_calib.merging.methods import METHODS
from merge_calib.merging.slerp import COLLINEAR
from merge_calib.sampling import Sampled, blocks, describe_sample, sample


@pytest.fixture
def folders(pair_folders, tmp_path):
    return [shutil.copytree(folder, tmp_path / "models" / folder.name) for folder in pair_folders]


@pytest.fixture
def call(call):
    """Run `merge-calib check` on two folders in this process: exit code, stdout, stderr."""
    return lambda folders, *more: call("check", "--base", folders[0], "--aligned", folders[1], *more)


def said(text: str, label: str) -> str:
    """The line that begins with `label`, and the lines that go on below it, as one."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(label + " "))
    rest = []
    for line in lines[first + 1 :]:
        if not line.startswith("   "):
            break
        rest.append(line.strip())
    return " ".join([lines[first][len(label) :].strip(), *rest])


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_pair_is_described_in_short_lines(call, folders):
    code, text, errors = call(folders)
    assert (code, errors) == (0, "")
    assert text.startswith("These two can be merged: llama, 32,352 parameters in 21 tensors, 2 layers.")
    assert max(map(len, text.splitlines())) <= 100
    assert said(text, "base") == said(text, "aligned") == "64.7 kB in 1 file, bfloat16"
    assert said(text, "config") == "no setting differs"
    assert said(text, "tokenizer") == "tokenizer.json is the same in both, byte for byte"
    assert said(text, "chat template") == "no (both)"
    assert said(text, "end of text") == "token 1 (both)"
    assert said(text, "on disk") == "64.7 kB for each checkpoint"
    for method in METHODS:
        assert method in said(text, "methods")


def test_every_selector_that_is_named_fits(call, pair_folders):
    pair = ModelPair.open(*pair_folders)
    text = said(describe(pair), "groups")
    assert "layers:N (N blocks, up to 2)" in text
    for name in pair.names:
        assert kind_of(name) in text
    for selectors in ("layers:2", "layers:0-1", "attention", "final_norm", "rest"):
        assert parse_groups(selectors, pair.layers)


def test_two_that_do_not_fit_are_refused_with_one_message(call, folders):
    edit(folders[1] / "config.json", rms_norm_eps=0.1)
    code, text, errors = call(folders)
    assert (code, text) == (1, "")
    assert "cannot be merged" in errors
    assert "rms_norm_eps" in errors


def test_what_differs_harmlessly_is_named(call, folders):
    edit(folders[1] / "config.json", max_position_embeddings=1024, pad_token_id=1, transformers_version="0")
    edit(folders[1] / "generation_config.json", eos_token_id=[1, 7])
    (folders[1] / "chat_template.jinja").write_text("{{ messages }}")
    _, text, _ = call(folders)
    assert "max_position_embeddings 512 / 1024" in said(text, "config")
    assert "pad_token_id null / 1" in said(text, "config")
    assert "version" not in said(text, "config")
    assert said(text, "end of text") == "base: token 1, aligned: token 1, 7; a merge has that of aligned"
    assert said(text, "chat template") == "base: no, aligned: yes; a merge has that of aligned"
    assert len(harmless_differences(ModelPair.open(*folders))) == 2


def test_a_template_inside_the_tokenizers_config_is_one(call, folders):
    edit(folders[0] / "tokenizer_config.json", chat_template="{{ messages }}")
    assert said(call(folders)[1], "chat template").startswith("base: yes, aligned: no")


def test_ids_that_stand_for_different_tokens_are_counted_and_named(call, folders):
    content = json.loads((folders[1] / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[" A"], vocabulary[" B"] = vocabulary[" B"], vocabulary[" A"]
    vocabulary["new"] = 263
    (folders[1] / "tokenizer.json").write_text(json.dumps(content))
    text = said(call(folders)[1], "tokenizer")
    assert text.startswith("2 of 263 shared ids stand for different tokens")
    assert '258 " A" / " B", 259 " B" / " A"' in text
    assert "1 ids are only in aligned" in text


def test_tokenizers_that_differ_in_bytes_alone(call, folders):
    content = json.loads((folders[1] / "tokenizer.json").read_text())
    (folders[1] / "tokenizer.json").write_text(json.dumps(content, indent=7))
    assert "all 263 shared ids stand for the same tokens" in said(call(folders)[1], "tokenizer")


def test_tokenizers_that_are_no_json_are_not_compared(call, folders):
    (folders[0] / "tokenizer.json").unlink()
    assert said(call(folders)[1], "tokenizer").startswith("not compared")


def test_a_vocabulary_of_scores_is_read_by_place(tmp_path):
    file = tmp_path / "tokenizer.json"
    added = [{"id": 2, "content": "<s>"}]
    file.write_text(json.dumps({"model": {"vocab": [["a", 0.0], ["b", -1.5]]}, "added_tokens": added}))
    assert inspection.tokens_by_id(file) == {0: "a", 1: "b", 2: "<s>"}


def test_notes_of_the_fit_are_shown(call, folders):
    save_model(tiny_llama(2, vocab=265), folders[1], torch.bfloat16)
    _, text, _ = call(folders)
    assert "263 (base) and 265 (aligned) rows" in said(text, "note")
    assert call(folders, "--vocab", "error")[0] == 1


def test_other_shards_and_dtypes_are_told(call, folders):
    shutil.rmtree(folders[0])
    save_model(tiny_llama(1), folders[0], torch.float32, max_shard_size="40KB")
    text = said(call(folders)[1], "base")
    count = len(list(folders[0].glob("*.safetensors")))
    assert count > 1
    assert text == f"129.4 kB in {count} files, float32"


def test_an_average_is_described_as_what_it_is_computed_from(call, folders, tmp_path):
    third = save_model(tiny_llama(5), tmp_path / "third", torch.bfloat16)
    code, text, _ = call(folders, "--aligned", third, "--sample")
    assert code == 0
    assert said(text, "aligned") == "computed from 2 files; as a checkpoint 64.7 kB, bfloat16"
    assert f"{(64_704 + 4 * 32_352) / 0.4 / 1e3:.1f} kB free" in said(text, "a sweep needs")


def test_transformers_is_imported_only_where_a_config_omits_a_setting(folders):
    code = (
        "import sys; from merge_calib.cli.main import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print('IMPORTED', sorted({'transformers', 'peft', 'optuna', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "check", "--base", *map(str, (folders[0], "--aligned", folders[1]))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("These two can be merged")
    assert printed.splitlines()[-1] == "IMPORTED []"


def test_a_setting_that_one_config_omits_is_filled_in(call, folders):
    config = json.loads((folders[1] / "config.json").read_text())
    assert config.pop("rms_norm_eps") == 1e-6
    (folders[1] / "config.json").write_text(json.dumps(config))
    assert call(folders)[0] == 0
    edit(folders[0] / "config.json", rms_norm_eps=0.1)
    code, _, errors = call(folders)
    assert code == 1
    assert "rms_norm_eps" in errors


def test_the_share_of_memory_is_the_mergers():
    assert inspect.signature(Merger.keep_parents_on).parameters["share"].default == inspection.RESIDENT_SHARE


# ---- --sample


def slow_twin(pair) -> dict[str, Sampled]:
    """All elements of all tensors, in float64."""
    found = {}
    for name in pair.names:
        base, aligned = pair.base.read(name).double(), pair.aligned.read(name).double()
        relative = float((aligned - base).norm() / base.norm())
        cos = float((base * aligned).sum() / base.norm() / aligned.norm())
        one = Sampled(
            tensors=1,
            parameters=base.numel(),
            read=base.numel(),
            delta=float((aligned - base).norm() ** 2),
            base=float(base.norm() ** 2),
            equal=int((base == aligned).sum()),
            largest=(relative, name),
            slerped=int(abs(cos) <= COLLINEAR),
            slerped_parameters=base.numel() if abs(cos) <= COLLINEAR else 0,
        )
        found[kind_of(name)] = found.get(kind_of(name), Sampled()) + one
    return found


def same(one: Sampled, other: Sampled, tolerance: float) -> bool:
    counts = (one.tensors, one.parameters, one.slerped, one.slerped_parameters, one.largest[1])
    return counts == (other.tensors, other.parameters, other.slerped, other.slerped_parameters, other.largest[1]) and (
        one.relative_delta == pytest.approx(other.relative_delta, rel=tolerance)
        and one.largest[0] == pytest.approx(other.largest[0], rel=tolerance)
        and one.equal == pytest.approx(other.equal, rel=tolerance, abs=tolerance * one.parameters)
    )


def test_a_sample_of_everything_is_exact(pair_folders):
    pair = ModelPair.open(*pair_folders)
    found, expected = sample(pair), slow_twin(pair)
    assert found.keys() == expected.keys()
    assert all(same(found[kind], expected[kind], 1e-12) for kind in found)
    assert "All elements were read." in describe_sample(found)


def test_a_small_sample_is_an_estimate_of_all(tmp_path, monkeypatch):
    model = tiny_llama(1)
    folders = [save_model(model, tmp_path / "base")]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            half = torch.rand_like(parameter) < 0.5
            parameter.add_(torch.randn_like(parameter) * 0.05 * half)
    folders.append(save_model(model, tmp_path / "aligned"))
    pair = ModelPair.open(*folders)
    monkeypatch.setattr(sampling, "MOST", 512)
    found = sample(pair)
    everything = sum(found.values(), Sampled())
    assert everything.read <= 512 * everything.tensors < everything.parameters
    assert everything.equal / everything.parameters == pytest.approx(0.5, abs=0.03)
    for kind, exact in slow_twin(pair).items():
        assert found[kind].relative_delta == pytest.approx(exact.relative_delta, rel=0.2), kind
    assert f"An estimate from {everything.read:,} of 32,352 elements" in describe_sample(found)
    assert sample(pair) == found


@pytest.mark.parametrize(("rows", "row_size"), [(1, 1), (7, 3), (1000, 1), (128, 4096), (5, 1 << 21), (40_000, 512)])
def test_blocks_are_few_apart_and_reach_from_end_to_end(rows, row_size):
    found = blocks(rows, row_size)
    assert len(found) <= sampling.BLOCKS
    assert all(start < stop for start, stop in found)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(found))
    assert sum(stop - start for start, stop in found) * row_size <= max(sampling.MOST, row_size)
    assert found[0][0] == 0
    assert found[-1][1] == rows or len(found) == 1


def test_a_model_against_itself_has_no_delta(call, folders):
    _, text, _ = call([folders[0], shutil.copytree(folders[0], folders[0].parent / "copy")], "--sample")
    row = next(line for line in text.splitlines() if line.startswith("all ")).split()
    assert row[1:5] == ["21", "32,352", "0.0000", "100.0"]


def test_what_is_not_finite_is_named(call, folders):
    weights = load_file(folders[1] / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    weights["model.norm.weight"][5] = float("inf")
    save_file(weights, folders[1] / "model.safetensors", metadata={"format": "pt"})
    code, text, error = call(folders, "--sample")
    assert (code, text) == (1, "")
    assert "these two cannot be merged: NaN or infinite values, 2 in model.norm.weight of aligned" in error


def test_rows_that_one_parent_alone_has_are_not_sampled(tmp_path, pair_folders):
    longer = save_model(tiny_llama(2, vocab=300), tmp_path / "longer", torch.bfloat16)
    found = sample(ModelPair.open(pair_folders[0], longer))
    assert found["head"].parameters == 263 * 32
