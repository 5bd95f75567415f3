"""The converted stories260K is the published model: it tells the published story, and its tokenizer is llama2.c's."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import convert_stories260k as tool
import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from merge_calib.errors import InputError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SOURCE = DATA / "stories260K"
STORIES = DATA / "tinystories_sample" / "tinystories_sample.txt"

pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason="the original stories260K is not beside the checkout")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "stories260k"
    tool.convert(SOURCE / "stories260K.bin", SOURCE / "tok512.vocab", out)
    return out


@pytest.fixture(scope="module")
def story(folder: Path) -> str:
    return str(tool.generate(folder))


class Llama2c:
    """llama2.c's encoder, as run.c does it: characters first, then always the pair with the best score."""

    def __init__(self, vocabulary: Path) -> None:
        lines = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        pairs = [line.rsplit("\t", 1) for line in lines]
        self.pieces = [piece.replace("▁", " ") for piece, _ in pairs]
        self.scores = [float(score) for _, score in pairs]
        self.ids = {piece: id for id, piece in enumerate(self.pieces)}

    def encode(self, text: str) -> list[int]:
        ids = [id for character in (" " + text if text else "") for id in self._character(character)]
        while best := self._best_pair(ids):
            ids[best[0] : best[0] + 2] = [best[1]]
        return [1, *ids]

    def _character(self, character: str) -> list[int]:
        if character in self.ids:
            return [self.ids[character]]
        return [byte + 3 for byte in character.encode()]  # ids 0 to 2 are <unk>, <s>, </s>

    def _best_pair(self, ids: list[int]) -> tuple[int, int] | None:
        """Place and new id of the pair whose joint piece scores best, the leftmost of equals."""
        found = None
        best = -1e10
        for place in range(len(ids) - 1):
            joint = self.ids.get(self.pieces[ids[place]] + self.pieces[ids[place + 1]])
            if joint is not None and self.scores[joint] > best:
                found, best = (place, joint), self.scores[joint]
        return found


def story_lines() -> Iterator[str]:
    """Every 40th line of the sample: 150 or so of all kinds."""
    lines = STORIES.read_text(encoding="utf-8").split("\n")
    yield from (line for line in lines[::40] if line and "<|endoftext|>" not in line)


def test_greedy_text_is_the_published_story_to_the_last_character(story: str) -> None:
    assert story == tool.published_story(SOURCE / "stories260K.md")
    assert story.startswith("Once upon a time, there was a little girl named Lily.")
    assert story.endswith("Don't worry, Lily. We can help you.")


def test_ids_are_llama2c_ids_on_stories(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    slow = Llama2c(SOURCE / "tok512.vocab")
    lines = list(story_lines())
    assert len(lines) > 100
    assert [tokenizer(line).input_ids for line in lines] == [slow.encode(line) for line in lines]


@pytest.mark.parametrize(
    "text", ["", " ", "  two  spaces ", "tab\tnewline\n", "é 日本 😀", "<0x0A>", "Question: 2+2?\nAnswer: B", "aaaaaaa"]
)
def test_ids_are_llama2c_ids_on_odd_texts(text: str, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text).input_ids
    assert ids == Llama2c(SOURCE / "tok512.vocab").encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_folder_holds_float32_weights_with_a_tied_output(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    assert sum(tensor.size for tensor in tensors.values()) == 260032
    assert "lm_head.weight" not in tensors
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["dtype"], config["tie_word_embeddings"]) == ("llama", "float32", True)


def test_all_values_of_the_checkpoint_but_the_rotary_table_are_kept(folder: Path) -> None:
    """The permutation moves values about and changes none: sorted, both sides are equal."""
    file = np.fromfile(SOURCE / "stories260K.bin", "<f4", offset=28)
    kept = np.concatenate([tensor.ravel() for tensor in load_file(folder / "model.safetensors").values()])
    assert np.array_equal(np.sort(file[: kept.size]), np.sort(kept))
    assert file.size - kept.size == 512 * 8  # cosines and sines: 512 positions, 4 pairs a head


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["convert_stories260k.py", *map(str, arguments)])
    return int(tool.main())


@pytest.mark.parametrize(("told", "code"), [("red ball", 0), ("blue ball", 1)])
def test_check_tells_the_published_story_from_another(
    story: str, told: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "generate", lambda _: story.replace("red ball", told))
    files = SOURCE / "stories260K.bin", SOURCE / "tok512.vocab"
    assert run(monkeypatch, *files, tmp_path / "out", "--check", SOURCE / "stories260K.md") == code


@pytest.mark.parametrize(
    ("size", "reason"),
    [(0, "0 bytes are too few"), (20, "20 bytes are too few"), (100_000, "24993 floats, its header")],
)
def test_a_cut_checkpoint_is_refused_and_nothing_is_written(
    size: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut.bin"
    cut.write_bytes((SOURCE / "stories260K.bin").read_bytes()[:size])
    with pytest.raises(SystemExit, match=f"^error: .*cut.bin: {reason}"):
        run(monkeypatch, cut, SOURCE / "tok512.vocab", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.vocab"
    shutil.copy(SOURCE / "tok512.vocab", other)
    with other.open("a", encoding="utf-8") as file:
        file.write("extra\t-300\n")
    with pytest.raises(InputError, match=r"513 pieces, .* has 512 embeddings"):
        tool.convert(SOURCE / "stories260K.bin", other, tmp_path / "out")
