"""Turn karpathy's stories260K (llama2.c's legacy checkpoint) into a Hugging Face folder.

    python tools/convert_stories260k.py stories260K.bin tok512.vocab OUT --check stories260K.md

Reads the float32 checkpoint (7 int32 of header, then the tensors in the order of `_tensors`) and the SentencePiece
vocabulary in text form; writes config, float32 safetensors, a fast tokenizer that adds BOS, and a generation config.
`--check` generates greedily from BOS and compares with the story printed in llama2.c's doc/stories260K.md.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from merge_calib.errors import InputError, MergeCalibError
from merge_calib.files import written_whole

Array = npt.NDArray[np.float32]
SPACE = "▁"  # how SentencePiece writes a space inside a piece
HEADER_BYTES = 7 * 4
PUBLISHED_TOKENS = 256  # llama2.c's default number of steps: with BOS, 257 positions


class Header(NamedTuple):
    """The seven int32 at the head of a checkpoint, in their order; a negative vocabulary means an untied output."""

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    positions: int


def read_checkpoint(path: Path) -> tuple[Header, dict[str, Array]]:
    """The header and the tensors under transformers' Llama names."""
    data = path.read_bytes()
    if len(data) < HEADER_BYTES:
        raise InputError(f"{path}: {len(data)} bytes are too few for a llama2.c checkpoint")
    header = Header(*np.frombuffer(data[:HEADER_BYTES], "<i4").tolist())
    if header.vocabulary <= 0:
        raise InputError(f"{path}: only checkpoints with a tied output are read (a positive vocabulary size)")
    values = np.frombuffer(data[HEADER_BYTES:], "<f4")
    expected = sum(int(np.prod(shape)) for _, shape in _tensors(header))
    if len(values) != expected:
        raise InputError(f"{path}: {len(values)} floats, its header asks for {expected}")
    return header, _cut(values, header)


def _tensors(header: Header) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor in the file's order; a name with {} holds every layer, an empty one is dropped."""
    dim, hidden, layers, heads, kv_heads, vocabulary, positions = header
    kv_dim = dim // heads * kv_heads
    yield "model.embed_tokens.weight", (vocabulary, dim)
    yield "model.layers.{}.input_layernorm.weight", (layers, dim)
    yield "model.layers.{}.self_attn.q_proj.weight", (layers, dim, dim)
    yield "model.layers.{}.self_attn.k_proj.weight", (layers, kv_dim, dim)
    yield "model.layers.{}.self_attn.v_proj.weight", (layers, kv_dim, dim)
    yield "model.layers.{}.self_attn.o_proj.weight", (layers, dim, dim)
    yield "model.layers.{}.post_attention_layernorm.weight", (layers, dim)
    yield "model.layers.{}.mlp.gate_proj.weight", (layers, hidden, dim)
    yield "model.layers.{}.mlp.down_proj.weight", (layers, dim, hidden)
    yield "model.layers.{}.mlp.up_proj.weight", (layers, hidden, dim)
    yield "model.norm.weight", (dim,)
    # The stored rotary table, cosines and sines: transformers computes it.
    yield "", (2, positions, dim // heads // 2)


def _cut(values: Array, header: Header) -> dict[str, Array]:
    found: dict[str, Array] = {}
    start = 0
    for name, shape in _tensors(header):
        size = int(np.prod(shape))
        block = values[start : start + size].reshape(shape)
        start += size
        if "{}" in name:
            found |= {name.format(layer): part for layer, part in enumerate(block)}
        elif name:
            found[name] = block
    head_dim = header.dim // header.heads
    return {name: _halved(part, head_dim) if _is_rotated(name) else part for name, part in found.items()}


def _is_rotated(name: str) -> bool:
    return name.endswith(("q_proj.weight", "k_proj.weight"))


def _halved(weight: Array, head_dim: int) -> Array:
    """Reorder each head's rows: llama2.c rotates rows 2i and 2i + 1 together, transformers i and i + head_dim / 2."""
    rows, dim = weight.shape
    pairs = weight.reshape(rows // head_dim, head_dim // 2, 2, dim)
    return np.ascontiguousarray(pairs.transpose(0, 2, 1, 3).reshape(rows, dim))


def make_model(header: Header, tensors: dict[str, Array]) -> LlamaForCausalLM:
    """A float32 Llama with these weights."""
    config = LlamaConfig(
        hidden_size=header.dim,
        intermediate_size=header.hidden,
        num_hidden_layers=header.layers,
        num_attention_heads=header.heads,
        num_key_value_heads=header.kv_heads,
        vocab_size=header.vocabulary,
        max_position_embeddings=header.positions,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    state = {name: torch.from_numpy(part.copy()) for name, part in tensors.items()}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


def read_pieces(path: Path) -> list[str]:
    """The pieces of a SentencePiece .vocab file (piece, tab, score), by id."""
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return [line.rsplit("\t", 1)[0] for line in lines]


def make_tokenizer(pieces: list[str]) -> PreTrainedTokenizerFast:
    """A byte-fallback BPE tokenizer that gives llama2.c's ids and puts BOS in front."""
    ids = {piece: id for id, piece in enumerate(pieces)}
    bpe = Tokenizer(BPE(ids, _merges(pieces, ids), byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    bpe.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", ids["<s>"])])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    wrap: Any = PreTrainedTokenizerFast  # transformers does not type its constructor
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return cast(PreTrainedTokenizerFast, wrap(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **names))


def _merges(pieces: list[str], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, best first: scores fall with the id, so the third's id is the rank."""
    return [
        (piece[:cut], piece[cut:])
        for piece in pieces
        if not (piece.startswith("<") and piece.endswith(">"))
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]


def convert(checkpoint: Path, vocabulary: Path, out: Path) -> None:
    """Write the Hugging Face folder `out`."""
    header, tensors = read_checkpoint(checkpoint)
    pieces = read_pieces(vocabulary)
    if len(pieces) != header.vocabulary:
        raise InputError(f"{vocabulary}: {len(pieces)} pieces, {checkpoint} has {header.vocabulary} embeddings")
    with written_whole(out) as partial:
        make_model(header, tensors).save_pretrained(partial)
        make_tokenizer(pieces).save_pretrained(partial)


def generate(folder: Path, tokens: int = PUBLISHED_TOKENS) -> str:
    """The text that the model in `folder` writes greedily from BOS, as long as `tokens` new tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    start = torch.tensor([[tokenizer.bos_token_id]])
    written = model.generate(
        start, attention_mask=torch.ones_like(start), do_sample=False, max_new_tokens=tokens, pad_token_id=0
    )
    return cast(str, tokenizer.decode(written[0], skip_special_tokens=True))


def published_story(page: Path) -> str:
    """The greedy story printed in llama2.c's doc/stories260K.md."""
    _, command, after = page.read_text(encoding="utf-8").partition("-t 0.0\n")
    story, fence, _ = after.partition("\n```")
    if not (command and fence):
        raise InputError(f"{page}: no story printed by `./run ... -t 0.0`")
    return story


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="stories260K.bin")
    parser.add_argument("vocabulary", type=Path, help="tok512.vocab")
    parser.add_argument("out", type=Path, help="the folder to make; it must not hold files yet")
    parser.add_argument("--check", type=Path, metavar="PAGE", help="stories260K.md, whose greedy story must come out")
    arguments = parser.parse_args()
    try:
        convert(arguments.checkpoint, arguments.vocabulary, arguments.out)
        same = arguments.check is None or generate(arguments.out) == published_story(arguments.check)
    except (MergeCalibError, OSError) as error:
        sys.exit(f"error: {error}")
    if arguments.check:
        print("the greedy story is the published one" if same else "the greedy story is NOT the published one")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
