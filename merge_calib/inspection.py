"""What can be said of a pair before it is merged, from configs and headers alone."""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from merge_calib.checkpoints.checkpoint import read_json
from merge_calib.checkpoints.names import layer_of
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.parent import Parent
from merge_calib.checkpoints.slots import Side, is_wrapped, listed
from merge_calib.checkpoints.writer import has_tokenizer
from merge_calib.merging.methods import METHODS
from merge_calib.sampling import slots_by_kind

WIDTH = 100  # characters of a line
RESIDENT_SHARE = 0.4  # of a GPU's free memory that both parents may take: the default of Merger.keep_parents_on
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_SAID_ELSEWHERE = {"transformers_version", "dtype", "torch_dtype", "vocab_size", "tie_word_embeddings"}
_SIDES: tuple[Side, Side] = ("base", "aligned")

Row = tuple[str, str]  # what it is about, what is said


def describe(pair: ModelPair) -> str:
    """What configs, headers and tokenizers say of two models that can be merged, a fact a line."""
    verdict = f"These two can be merged: {pair.config.get('model_type')}, {pair.parameters:,} parameters in"
    verdict += f" {_counted(len(pair.names), 'tensor')}, {_counted(pair.layers, 'layer')}."
    rows = [
        *((side, _size(pair.parent(side))) for side in _SIDES),
        *(("note", note) for note in pair.fit.notes),
        ("config", _config_differences(pair)),
        ("tokenizer", _tokenizers(pair)),
        ("chat template", _by_side(pair, {side: _has_template(pair.parent(side).folder) for side in _SIDES})),
        ("end of text", _by_side(pair, {side: _ends(pair.parent(side)) for side in _SIDES})),
        *_modules(pair),
        ("groups", _selectors(pair)),
        ("methods", ", ".join(METHODS)),
        *_needs(pair),
    ]
    return "\n".join([verdict, "", *_aligned(rows)])


def _size(parent: Parent) -> str:
    dtypes = ", ".join(dtype_names(info.dtype for info in parent.tensors.values()))
    if not parent.is_stored:
        files = sum(len(part.files) for part in parent.parts)
        return f"computed from {_counted(files, 'file')}; as a checkpoint {amount(parent.bytes)}, {dtypes}"
    return f"{amount(parent.bytes)} in {_counted(len(parent.parts[0].files), 'file')}, {dtypes}"


def dtype_names(dtypes: Iterable[torch.dtype]) -> list[str]:
    """`bfloat16` and the like, those that most tensors have first."""
    names = [str(dtype).removeprefix("torch.") for dtype in dtypes]
    return sorted(set(names), key=lambda name: (-names.count(name), name))


def _config_differences(pair: ModelPair) -> str:
    found = harmless_differences(pair)
    if not found:
        return "no setting differs"
    return "differs where it does no harm: " + listed(found)


def harmless_differences(pair: ModelPair) -> list[str]:
    """The settings that both configs give and give differently, as `KEY BASE / ALIGNED`.

    Of a pair that can be merged none of them changes what weights compute.
    """
    configs = [pair.parent(side).config for side in _SIDES]
    if is_wrapped(pair.base) != is_wrapped(pair.aligned):
        configs = [config.get("text_config", config) for config in configs]
    ours, theirs = (dict(_flat(config)) for config in configs)
    return [
        f"{key} {_short(ours[key])} / {_short(theirs[key])}"
        for key in ours
        if key in theirs and ours[key] != theirs[key] and key.rpartition(".")[2] not in _SAID_ELSEWHERE
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif not key.startswith("_"):
            yield prefix + key, value


def _short(value: Any) -> str:
    return textwrap.shorten(json.dumps(value, ensure_ascii=False), 40, placeholder="...")


def _tokenizers(pair: ModelPair) -> str:
    folders = [pair.parent(side).folder for side in _SIDES]
    for name in _TOKENIZER_FILES:
        files = [folder / name for folder in folders]
        if all(file.exists() for file in files):
            if files[0].read_bytes() == files[1].read_bytes():
                return f"{name} is the same in both, byte for byte"
            return _vocabularies(files) if name == "tokenizer.json" else f"not compared: {name} differs"
    lacking = [side for side in _SIDES if not has_tokenizer(pair.parent(side))]
    if lacking:
        fate = "; so a merge has none" if pair.fit.host in lacking else ""
        return f"{' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} none{fate}"
    return "not compared: they are of different kinds"


def _vocabularies(files: list[Path]) -> str:
    base, aligned = map(tokens_by_id, files)
    shared = base.keys() & aligned.keys()
    moved = [id for id in sorted(shared) if base[id] != aligned[id]]
    lonely = [
        f"{len(own.keys() - shared):,} ids are only in {side}"
        for side, own in (("base", base), ("aligned", aligned))
        if own.keys() - shared
    ]
    if not moved:
        same = f"tokenizer.json differs, but all {len(shared):,} shared ids stand for the same tokens"
        return "; ".join([same, *lonely])
    first = listed([f"{id} {_short(base[id])} / {_short(aligned[id])}" for id in moved], 4)
    return "; ".join([f"{len(moved):,} of {len(shared):,} shared ids stand for different tokens: {first}", *lonely])


def tokens_by_id(file: Path) -> dict[int, str]:
    """The tokens of a tokenizer.json, added ones included."""
    content = _read_object(file)
    vocabulary = content.get("model", {}).get("vocab", {})
    tokens = vocabulary.items() if isinstance(vocabulary, dict) else ((t, id) for id, (t, *_) in enumerate(vocabulary))
    added = {entry["id"]: entry["content"] for entry in content.get("added_tokens") or ()}
    return {id: token for token, id in tokens} | added


def _read_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`, empty where there is none."""
    content = read_json(file) if file.exists() else {}
    return content if isinstance(content, dict) else {}


def _has_template(folder: Path) -> str:
    if any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return "yes"
    config = folder / "tokenizer_config.json"
    return "yes" if _read_object(config).get("chat_template") else "no"


def _ends(parent: Parent) -> str:
    generation = _read_object(parent.folder / "generation_config.json")
    ends = generation.get("eos_token_id", parent.config.get("eos_token_id"))
    if ends is None:
        return "none"
    return "token " + ", ".join(map(str, ends if isinstance(ends, list) else [ends]))


def _by_side(pair: ModelPair, said: Mapping[Side, str]) -> str:
    if said["base"] == said["aligned"]:
        return f"{said['base']} (both)"
    return f"base: {said['base']}, aligned: {said['aligned']}; a merge has that of {pair.fit.host}"


def _modules(pair: ModelPair) -> list[Row]:
    rows: list[Row] = []
    for kind, slots in slots_by_kind(pair).items():
        tensors = f"{kind:<10} {len(slots):>6,} {'tensor ' if len(slots) == 1 else 'tensors'}"
        rows.append(("" if rows else "modules", f"{tensors}{sum(slot.size for slot in slots):>18,} parameters"))
    return rows


def _selectors(pair: ModelPair) -> str:
    selectors = [kind for kind in slots_by_kind(pair) if kind != "senses"]
    if any(layer_of(name) is not None for name in pair.names):
        selectors = [f"layers:N (N blocks, up to {pair.layers})", f"layers:0-{pair.layers - 1}", *selectors]
    return ", ".join([*selectors, "a name pattern with *", "rest"])


def _needs(pair: ModelPair) -> Iterator[Row]:
    """What a sweep and a checkpoint take."""
    resident = sum(pair.parameters * 4 if not p.is_stored else p.bytes for p in (pair.base, pair.aligned))
    yield "a sweep needs", f"{amount(pair.parameters * 2)} on a GPU for the weights in bfloat16; or"
    yield "", f"{amount(pair.parameters * 4)} of memory on a CPU for the weights in float32"
    yield (
        "",
        f"both parents stay on a GPU that has another {amount(resident / RESIDENT_SHARE)} free; elsewhere a few MB of",
    )
    yield "", "them are read at a time, from disk, for every point"
    yield "on disk", f"{amount(sum(s.size * s.dtype.itemsize for s in pair.slots.values()))} for each checkpoint"


def amount(size: float) -> str:
    """Bytes as GB, or as MB or kB where they are few."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:,.2f} {unit}"
    return f"{size / 1e3:,.1f} kB"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _aligned(rows: Iterable[Row]) -> Iterator[str]:
    """`LABEL  TEXT`, long texts going on below themselves."""
    listed_rows = list(rows)
    width = 2 + max(len(label) for label, _ in listed_rows)
    for label, text in listed_rows:
        lines = textwrap.wrap(text, WIDTH - width, break_long_words=False, break_on_hyphens=False)
        yield label.ljust(width) + (text if len(lines) == 1 else lines[0])  # a table keeps its spaces
        yield from (" " * width + line for line in lines[1:])
