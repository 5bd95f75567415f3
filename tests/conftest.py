"""Small pairs and questions that the tests share."""

import gc
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub: no test waits for a network

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.set_num_threads(1)  # tiny models lose more time to threads than they gain
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish() -> None:
    """Models are let go by a collection of garbage, which would look through all that was imported each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real files, where the checkout has them beside it."""
    if not (SHARED / "data").is_dir():
        pytest.skip("shared/data is not there")
    return SHARED / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's cache of fingerprints."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def byte_tokenizer(words: tuple[str, ...] = (" A", " B", " C", " D", " E")) -> PreTrainedTokenizerFast:
    """Single bytes and a few whole words; accepts any text; BOS by default."""
    vocabulary = {token: id for id, token in enumerate(["<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *words])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def tiny_llama(seed: int, vocab: int = 263, **settings) -> LlamaForCausalLM:
    """Two layers with weights large enough to make differences visible."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        **settings,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


def save_model(model, folder: Path, dtype: torch.dtype = torch.float32, **options) -> Path:
    """Write a model folder with the byte tokenizer."""
    model.to(dtype).save_pretrained(folder, **options)
    byte_tokenizer().save_pretrained(folder)
    return folder


def write_questions(path: Path, count: int, seed: int = 0, choices: int = 4) -> Path:
    """An own-question file of short invented questions."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        words = ["red", "blue", "old mill", "harbour", "Monday", "nothing at all", "seven"]
        picked = [str(word) for word in rng.permutation(words)[: choices - i % 2]]
        text = f"Question {i}: " + "what " * int(rng.integers(1, 6)) + "is it?"
        lines.append({"id": f"q{i}", "question": text, "choices": picked, "answer": int(rng.integers(len(picked)))})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pair_folders(tmp_path_factory) -> tuple[Path, Path]:
    """A base and an aligned model: two random tiny Llamas, stored in bf16."""
    root = tmp_path_factory.mktemp("pair")
    return (
        save_model(tiny_llama(1), root / "base", torch.bfloat16),
        save_model(tiny_llama(2), root / "aligned", torch.bfloat16),
    )


@pytest.fixture
def questions(tmp_path) -> Path:
    return write_questions(tmp_path / "quiz.jsonl", 12)


def run_command(*arguments) -> tuple[int, str, str]:
    """Run `merge-calib ARGUMENTS` in this process: exit code, stdout, stderr."""
    from merge_calib.cli.main import run

    code = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as printed,
        redirect_stderr(io.StringIO()) as said,
    ):
        patch.setattr(sys, "argv", ["merge-calib", *map(str, arguments)])
        try:
            run()
        except SystemExit as stop:
            code = stop.code or 0
    return code, printed.getvalue(), said.getvalue()


@pytest.fixture
def call():
    return run_command


@contextmanager
def figures_not_saved() -> Iterator[None]:
    """Figures are drawn and laid out, but their files are stand-ins: of the PDF the words in it, of the PNG nothing.

    Encoding pictures takes three quarters of a report's time. Whatever drawing raises is raised here as well, and the
    numbers of a figure are written as ever; that the pictures themselves are right, test_report.py sees.
    """

    def save(figure, path, *, format, **_) -> None:
        texts = []
        if format == "pdf":
            figure.draw_without_rendering()
            texts = [text.get_text() for text in figure.findobj(Text)]
        Path(path).write_text("\n".join([format, *texts]), encoding="utf-8")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture
def unsaved_figures() -> Iterator[None]:
    """For tests that make reports and look at anything but the pictures."""
    with figures_not_saved():
        yield


def refused(call, tmp_path, *arguments) -> str:
    """The one message of a call that fails for a fault of the user's and leaves nothing."""
    out = tmp_path / "out"
    code, printed, said = call(*arguments, "--out", out)
    assert code == 1, said
    assert printed == ""
    assert said.startswith("Error: ")
    assert "Traceback" not in said
    assert not out.exists()
    return said


@pytest.fixture
def count_scoring(monkeypatch):
    """Counts how often a task is put to the model."""
    import merge_calib.measuring as measuring_module

    asked = []
    original = measuring_module.score

    def counting(model, questionnaire, task, confidences, *rest):
        asked.append((task.name, tuple(confidences)))
        return original(model, questionnaire, task, confidences, *rest)

    monkeypatch.setattr(measuring_module, "score", counting)
    return asked


def quick_sweep(folders, questions: Path) -> list[str]:
    """The arguments of a sweep with little to derive, without a search and without --out."""
    base, aligned = map(str, folders)
    few = ["--no-retained", "--draws", "100", "--device", "cpu"]
    return ["sweep", "--base", base, "--aligned", aligned, "--tasks", str(questions), *few]


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    """Starts commands as processes of their own, which may be cut off."""
    from prove_nothing_lost import Starter

    return Starter(tmp_path_factory.mktemp("starter"))
