"""Writing merged checkpoints: streamed, whole or not at all, laid out as transformers does it."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from conftest import byte_tokenizer, save_model, tiny_llama
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge_calib.checkpoints import fingerprint as fingerprint_module
from merge_calib.checkpoints import shards as shards_module
from merge_calib.checkpoints import writer as writer_module
from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.fingerprint import fingerprint, is_finite
from merge_calib.checkpoints.opening import Parents
from merge_calib.checkpoints.order import in_model_order
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.shards import Stored, plan_shards, write_shards
from merge_calib.errors import CheckpointError, OutputError
from merge_calib.files import this_host
from merge_calib.merging import merger as merger_module
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.progress import ignored
from merge_calib.recovery import parents_record, write_point

HALF = MergePoint("linear", 0.4)


def write(pair, folder, point=HALF, out_dtype=None, provenance=None, **options):
    write_point(pair, point, folder, out_dtype, provenance or {}, **options)
    return folder


def tensors_in(folder) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    same = a.dtype == b.dtype and a.shape == b.shape
    return same and torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)))


@pytest.fixture
def folders(pair_folders, tmp_path):
    """Copies of the pair that a test may break, apart from where it writes."""
    return [shutil.copytree(folder, tmp_path / "parents" / folder.name) for folder in pair_folders]


@pytest.fixture
def out(tmp_path):
    """A folder that holds nothing but what is written."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


# The files themselves


def all_dtypes() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    kinds = [*shards_module._DTYPES] * 2
    made = {f"t{i}.{kind}": torch.randint(0, 2, (3, i + 1)).to(kind) for i, kind in enumerate(kinds)}
    return made | {'é"x': torch.tensor(3.0), "empty": torch.empty(0, 4)}


def test_a_file_has_the_bytes_that_safetensors_writes(tmp_path):
    tensors = all_dtypes()
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    shards = plan_shards({name: Stored(tuple(t.shape), t.dtype) for name, t in tensors.items()})
    write_shards(tmp_path, shards, lambda name: [tensors[name]])
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("size", [1, 4_000, 9_000, 20_000, 40_000, 50_000_000_000])
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma2", "phi3", "gpt_neox", "olmo2", "bloom"])
def test_files_are_laid_out_as_transformers_does_it(tmp_path, name, size):
    model = tiny_model(name).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    pair = ModelPair.open(tmp_path / "theirs", tmp_path / "theirs")
    ours = write(pair, tmp_path / "ours", MergePoint("linear", 0.0), shard_bytes=size)
    names = {path.name for path in (tmp_path / "theirs").iterdir()}
    assert names <= {path.name for path in ours.iterdir()}
    for file in sorted(name for name in names if "safetensors" in name):
        assert (ours / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes(), file
    config, theirs = (json.loads((folder / "config.json").read_text()) for folder in (ours, tmp_path / "theirs"))
    assert config == theirs


def test_layers_of_an_unknown_family_are_in_order():
    names = ["zeta.weight", "h.10.x.weight", "h.9.x.weight", "lm_head.weight", "wte.weight", "ln_f.weight"]
    assert in_model_order(names) == ["wte.weight", "zeta.weight", *names[2:0:-1], "ln_f.weight", "lm_head.weight"]


@pytest.mark.parametrize("chunk", [64, 1000, 1 << 20])
@pytest.mark.parametrize("lam", [-0.3, 0.0, 0.4, 1.0, 1.3])
def test_every_tensor_has_the_bits_of_the_merge(pair_folders, tmp_path, monkeypatch, lam, chunk):
    monkeypatch.setattr(merger_module, "CHUNK", chunk)
    pair, point = ModelPair.open(*pair_folders), MergePoint("linear", lam)
    found = tensors_in(write(pair, tmp_path / "merged", point, shard_bytes=9_000))
    monkeypatch.undo()
    assert found.keys() == set(pair.names)
    assert all(same_bits(found[name], Merger(pair).tensor(point, name)) for name in pair.names)


@pytest.mark.parametrize("shard_bytes", [9_000, 50_000_000_000])
def test_transformers_loads_what_was_written(pair_folders, tmp_path, shard_bytes):
    pair = ModelPair.open(*pair_folders)
    model = AutoModelForCausalLM.from_pretrained(write(pair, tmp_path / "merged", shard_bytes=shard_bytes))
    state = model.state_dict()
    assert next(iter(state.values())).dtype == torch.bfloat16
    assert all(torch.equal(state[name], Merger(pair).tensor(HALF, name)) for name in pair.names)


def test_methods_that_look_at_whole_tensors_are_written_alike(pair_folders, tmp_path):
    pair, point = ModelPair.open(*pair_folders), MergePoint("ties", 0.7, (("density", 0.3),))
    found = tensors_in(write(pair, tmp_path / "merged", point, shard_bytes=9_000))
    assert all(same_bits(found[name], Merger(pair).tensor(point, name)) for name in pair.names)


def test_out_dtype_is_the_dtype_of_weights_and_config(pair_folders, tmp_path):
    write(ModelPair.open(*pair_folders), tmp_path / "merged", out_dtype=torch.float16)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "float16"
    assert Checkpoint.open(tmp_path / "merged").tensors["lm_head.weight"].dtype == torch.float16


def test_the_text_part_of_a_multimodal_config_has_the_dtype_too():
    config = {"dtype": "float32", "text_config": {"torch_dtype": "float32", "a": 1}, "_name_or_path": "x"}
    written = writer_module._config(config, {"a": Stored((2,), torch.bfloat16), "ids": Stored((9,), torch.int64)})
    assert written == {"text_config": {"a": 1, "dtype": "bfloat16"}, "dtype": "bfloat16"}


def test_files_can_be_read_by_whom_the_system_lets(pair_folders, tmp_path):
    folder = write(ModelPair.open(*pair_folders), tmp_path / "merged")
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_progress_is_heard_to_the_last_byte(pair_folders, tmp_path):
    heard = {}

    def watch(what, total, unit=""):
        heard[what] = [total]
        return heard[what].append

    write(ModelPair.open(*pair_folders), tmp_path / "merged", watch=watch)
    assert set(heard) == {"writing merged", "hashing both parents"}
    assert all(total == sum(steps) for total, *steps in heard.values())


def test_only_a_few_pieces_live_at_once(tmp_path):
    rows, columns, living, most = 400, 50, set(), []

    def pieces(name):
        for start in range(0, rows, 10):
            piece = torch.full((10, columns), float(start))
            number = len(most)
            living.add(number)
            weakref.finalize(piece, living.discard, number)
            most.append(len(living))
            yield piece

    names = [f"t{i}" for i in range(20)]
    write_shards(tmp_path, plan_shards({n: Stored((rows, columns), torch.float32) for n in names}), pieces, workers=2)
    assert len(most) == 20 * 40
    assert max(most) <= 2 * 2  # a worker holds what it writes until it has the next
    loaded = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[n][:, 0], torch.arange(rows) // 10 * 10.0) for n in names)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_tensor_of_another_size_than_planned_is_our_fault(tmp_path, rows):
    with pytest.raises(AssertionError, match="than planned"):
        write_shards(tmp_path, plan_shards({"a": Stored((2,), torch.float32)}), lambda _: [torch.ones(rows)])


def test_torch_has_its_threads_again(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        write_shards(tmp_path, plan_shards({"a": Stored((2,), torch.float32)}), lambda _: [torch.ones(2)])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# What else lies in the folder


def test_tokenizer_chat_template_and_generation_config_are_the_aligned_models(folders, out):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"default": "{{ messages[0].content }}", "tool_use": "tools"}
    tokenizer.save_pretrained(folders[1])
    (folders[1] / "generation_config.json").write_text('{"max_new_tokens": 17}')
    merged = write(ModelPair.open(*folders), out / "merged")
    assert AutoTokenizer.from_pretrained(merged).chat_template == tokenizer.chat_template
    assert AutoModelForCausalLM.from_pretrained(merged).generation_config.max_new_tokens == 17
    assert json.loads((merged / "merge_calib.json").read_text())["lambda"] == 0.4


def test_with_the_vocabulary_of_the_base_the_tokenizer_is_its_own(folders, out):
    (folders[0] / "generation_config.json").write_text('{"max_new_tokens": 5}')
    merged = write(ModelPair.open(*folders, vocab="base"), out / "merged")
    assert json.loads((merged / "generation_config.json").read_text())["max_new_tokens"] == 5


def test_neither_other_weights_nor_leftovers_are_copied(folders, out):
    wanted = ("preprocessor_config.json", "processor_config.json", "modeling_own.py", "USE_POLICY.md", "vocab.txt")
    left = (
        *("training_args.bin", "optimizer.pt", "trainer_state.json", "all_results.json", ".gitattributes"),
        *("consolidated.00.pth", "model.gguf", "pytorch_model.bin.index.json", "events.out.tfevents.1", "README.rst"),
        *("adapter_model.safetensors", "adapter_model.bin", "merge_calib.json"),
    )
    for name in (*wanted, *left):
        (folders[1] / name).write_text("{}")
    found = {path.name for path in write(ModelPair.open(*folders), out / "merged").iterdir()}
    assert found.issuperset(wanted)
    assert found & set(left) == {"merge_calib.json"}


class Host:
    """An adapter as `write_checkpoint` sees it."""

    def __init__(self, adapter, model):
        self.folder, self.shape = adapter, Checkpoint.open(model)


def companions(host, out):
    out.mkdir()
    writer_module._copy_companions(host, out)
    return {path.name: path.read_text() for path in out.iterdir()}


def test_an_adapters_own_tokenizer_is_not_mixed_with_that_of_its_model(folders, tmp_path):
    model, adapter = folders[1], tmp_path / "adapter"
    adapter.mkdir()
    (model / "added_tokens.json").write_text("model")
    (model / "chat_template.jinja").write_text("model")
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (adapter / name).write_text("adapter")
    found = companions(Host(adapter, model), tmp_path / "out")
    assert found["tokenizer.json"] == found["tokenizer_config.json"] == "adapter"
    assert found.keys() == {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}


def test_an_adapter_without_a_tokenizer_has_its_models(folders, tmp_path):
    model, adapter = folders[1], tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "generation_config.json").write_text("adapter")
    found = companions(Host(adapter, model), tmp_path / "out")
    assert found["generation_config.json"] == "adapter"
    assert found["tokenizer.json"] == (model / "tokenizer.json").read_text()


# Hashes of the parents


def test_the_provenance_has_the_fingerprints_of_the_parents(pair_folders, tmp_path):
    pair = ModelPair.open(*pair_folders)
    point = MergePoint("ties", 0.7, (("density", 0.3),))
    named = parents_record(Parents(base=str(pair_folders[0]), aligned=(str(pair_folders[1]),)))
    about = json.loads((write(pair, tmp_path / "merged", point, provenance=named) / "merge_calib.json").read_text())
    assert about["base"]["sha256"] == fingerprint(pair.base)
    assert about["aligned"] == {"model": str(pair_folders[1]), "revision": None, "sha256": fingerprint(pair.aligned)}
    assert MergePoint.read(about) == point


def test_hashes_that_are_known_are_not_made_again(pair_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint_module, "_read_and_hash", lambda *_: pytest.fail("read again"))
    known = {"base": {"sha256": "a"}, "aligned": {"sha256": "b"}}
    about = json.loads(
        (write(ModelPair.open(*pair_folders), tmp_path / "m", provenance=known) / "merge_calib.json").read_text()
    )
    assert (about["base"]["sha256"], about["aligned"]["sha256"]) == ("a", "b")


def test_two_threads_that_want_one_fingerprint_read_once(pair_folders, monkeypatch):
    reads, slow = [], fingerprint_module._read_and_hash

    def read(*given):
        reads.append(given)
        time.sleep(0.1)
        return slow(*given)

    monkeypatch.setattr(fingerprint_module, "_read_and_hash", read)
    one, two = (Checkpoint.open(pair_folders[0]) for _ in range(2))
    with fingerprint_module.fingerprints_beside([one, two]) as hashes:
        first, second = hashes()
    assert first == second
    assert len(reads) == 1


def test_what_nobody_waits_for_is_not_hashed_to_the_end(pair_folders, monkeypatch):
    blocks, slow = [], fingerprint_module._blocks

    def read(weights):
        for block in slow(weights):
            blocks.append(block)
            time.sleep(0.05)
            yield block

    monkeypatch.setattr(fingerprint_module, "_blocks", read)
    with pytest.raises(KeyboardInterrupt), fingerprint_module.fingerprints_beside([Checkpoint.open(pair_folders[0])]):
        raise KeyboardInterrupt
    assert len(blocks) < 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_is_what_torch_calls_so(dtype):
    large = torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(large)
    assert is_finite(torch.empty(0, dtype=dtype))
    for value in (float("nan"), float("inf"), float("-inf")):
        for tensor in (large, torch.zeros(1000, dtype=dtype)):
            broken = tensor.clone()
            broken[777] = value
            assert not is_finite(broken)
    both = torch.tensor([float("inf"), float("-inf")], dtype=dtype)
    assert not is_finite(both)


# Nothing is left where it fails


@pytest.mark.parametrize(("lam", "dtype"), [(1e39, None), (1e6, torch.float16)])
def test_weights_that_overflow_are_not_written(pair_folders, out, lam, dtype):
    with pytest.raises(CheckpointError, match=r"tensor \S+ is not finite at this lambda and dtype"):
        write(ModelPair.open(*pair_folders), out / "merged", MergePoint("linear", lam), dtype)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("lam", [0.0, 0.4])
@pytest.mark.parametrize("side", [0, 1])
def test_a_parent_that_is_not_finite_is_the_reason_given(folders, out, lam, side):
    path = folders[side] / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    message = rf"{folders[side].name}/model\.safetensors: tensor model\.layers\.1\.mlp\.up_proj.* 1 value"
    with pytest.raises(CheckpointError, match=message):
        write(ModelPair.open(*folders), out / "merged", MergePoint("linear", lam))
    assert list(out.iterdir()) == []


def test_a_disk_that_fills_in_the_middle_leaves_nothing(pair_folders, out, monkeypatch):
    left, real = [30_000], os.pwrite

    def pwrite(descriptor, data, offset):
        if len(data) > left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= len(data)
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OutputError, match=r"cannot write .*merged: No space left on device"):
        write(ModelPair.open(*pair_folders), out / "merged", shard_bytes=9_000)
    assert left[0] < 30_000
    assert list(out.iterdir()) == []


def test_a_system_that_writes_less_than_asked_is_asked_again(pair_folders, tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:1001], offset))
    pair = ModelPair.open(*pair_folders)
    found = tensors_in(write(pair, tmp_path / "merged"))
    assert all(same_bits(found[name], Merger(pair).tensor(HALF, name)) for name in pair.names)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_reservation_is_written_to(pair_folders, tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert tensors_in(write(ModelPair.open(*pair_folders), tmp_path / "merged"))


def test_a_file_larger_than_the_system_allows_is_an_output_error(pair_folders, out):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*merged: File too large"):
            write(ModelPair.open(*pair_folders), out / "merged")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(out.iterdir()) == []


def test_a_disk_that_is_too_small_is_refused_before_writing(pair_folders, out, monkeypatch):
    monkeypatch.setattr(writer_module.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    with pytest.raises(OutputError, match="needs 0.1 MB and .* has 0.0 MB free"):
        write(ModelPair.open(*pair_folders), out / "merged")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("fault", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interruption_leaves_nothing(pair_folders, out, monkeypatch, fault):
    real = Merger.pieces

    def pieces(self, point, name, *more):
        yield from real(self, point, name, *more)
        if name == "model.layers.1.mlp.up_proj.weight":
            raise fault

    monkeypatch.setattr(Merger, "pieces", pieces)
    with pytest.raises(fault):
        write(ModelPair.open(*pair_folders), out / "merged", shard_bytes=9_000)
    assert list(out.iterdir()) == []


def test_the_first_failure_stops_the_other_threads(tmp_path):
    made = []

    def pieces(name):
        if name == "a":
            time.sleep(0.05)
            raise RuntimeError(name)
        for _ in range(1000):
            made.append(name)
            time.sleep(0.01)
            yield torch.zeros(1)

    shards = plan_shards({name: Stored((1000,), torch.float32) for name in "abcd"})
    with pytest.raises(RuntimeError, match="a"):
        write_shards(tmp_path, shards, pieces, workers=2)
    assert len(made) < 900
    assert set(made) <= {"b", "c"}


SLOW_MERGE = r"""
import signal, sys, time
from pathlib import Path
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.recovery import write_point

def pieces(self, point, name, *more, real=Merger.pieces):
    for piece in real(self, point, name, *more):
        sys.stdout.write("piece\n")
        sys.stdout.flush()
        time.sleep(0.2)
        yield piece

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have what runs behind them ignore it
Merger.pieces = pieces
base, aligned, out = map(Path, sys.argv[1:])
write_point(ModelPair.open(base, aligned), MergePoint("linear", 0.4), out, None, {})
"""


@pytest.mark.parametrize(
    ("number", "code", "left"),
    [
        (signal.SIGTERM, 143, []),
        (signal.SIGINT, -signal.SIGINT, []),
        (signal.SIGKILL, -signal.SIGKILL, [f".merged.partial-{this_host()}"]),
    ],
)
def test_a_process_that_is_ended_leaves_no_folder_that_looks_finished(pair_folders, out, number, code, left):
    command = [sys.executable, "-c", SLOW_MERGE, *map(str, pair_folders), str(out / "merged")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert "piece" in process.stdout.readline()
        assert not (out / "merged").exists()
        process.send_signal(number)
        assert process.wait(timeout=60) == code
    assert [path.name.rpartition("-")[0] for path in out.iterdir()] == left


def test_what_was_there_stays_until_all_is_written(pair_folders, out, monkeypatch):
    kept = write(ModelPair.open(*pair_folders), out / "a")
    before = (kept / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(
        writer_module, "write_shards", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error"))
    )
    with pytest.raises(OutputError, match="Input/output error"):
        write(ModelPair.open(*pair_folders), kept)
    assert (kept / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in out.iterdir()] == ["a"]


# Parents that are computed


def test_an_average_is_written_as_it_is_merged(pair_folders, tmp_path):
    third = save_model(tiny_llama(3), tmp_path / "third", torch.bfloat16)
    named = Parents(base=str(pair_folders[0]), aligned=(str(pair_folders[1]), str(third)), aligned_weights=(1.0, 3.0))
    pair = named.open()
    folder = write(pair, tmp_path / "merged", provenance=parents_record(named))
    found = tensors_in(folder)
    assert all(same_bits(found[name], Merger(pair).tensor(HALF, name)) for name in pair.names)
    about = json.loads((folder / "merge_calib.json").read_text())
    assert about["aligned"]["models"] == [str(pair_folders[1]), str(third)]
    assert about["aligned"]["sha256"] == fingerprint(pair.aligned, ignored)
    assert Path(about["base"]["model"]) == pair_folders[0]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_is_written_with_its_own_tokenizer_and_none_of_its_files(pair_folders, tmp_path):
    adapter = tmp_path / "adapter"
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(pair_folders[0]),
        LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False),
    )
    model.save_pretrained(adapter)
    byte_tokenizer().save_pretrained(adapter)
    named = Parents(base=str(pair_folders[0]), aligned=(str(adapter),), adapter_base=str(pair_folders[0]))
    pair = named.open()
    folder = write(pair, tmp_path / "merged", provenance=parents_record(named), shard_bytes=9_000)
    found = tensors_in(folder)
    assert all(same_bits(found[name], Merger(pair).tensor(HALF, name)) for name in pair.names)
    assert not [path.name for path in folder.iterdir() if path.name.startswith("adapter")]
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    assert "The base" in (folder / "README.md").read_text()
    assert "aligned model adapter does not say" in (folder / "README.md").read_text()
