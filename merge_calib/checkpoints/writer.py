"""A merged checkpoint on disk: whole, sharded, with all that the aligned model's folder holds besides weights."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.errors import OutputError
from merge_calib.files import written_whole

SHARD_BYTES = 5_000_000_000
_WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".msgpack", ".h5", ".index.json")


def write_checkpoint(
    folder: Path,
    aligned: Checkpoint,
    dtypes: Mapping[str, torch.dtype],
    tensor: Callable[[str], torch.Tensor],
    provenance: Mapping[str, Any],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a checkpoint into `folder`, replacing it only when all is on disk.

    dtypes: the dtype each tensor will have, by name; tensor: gives a tensor by name, called once for each
    provenance: written as merge_calib.json. Config, tokenizer, chat template and generation config are those of
    `aligned`. Raises OutputError where the disk is too small or writing fails; `folder` is then as it was.
    """
    sizes = {name: torch.Size(aligned.tensors[name].shape).numel() * dtypes[name].itemsize for name in dtypes}
    shards = _shards(sizes, shard_bytes)
    _require_space(folder.parent, sum(sizes.values()))
    with written_whole(folder) as partial:
        partial.mkdir(parents=True)
        _copy_companions(aligned.folder, partial)
        _write_config(partial, aligned.config, dtypes)
        for file, names in shards.items():
            _save({name: tensor(name).contiguous() for name in names}, partial / file)
            shutil.copymode(partial / "config.json", partial / file)  # safetensors lets the owner alone read it
        if len(shards) > 1:
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": _weight_map(shards)}
            _write_json(partial / "model.safetensors.index.json", index)
        _write_json(partial / "merge_calib.json", provenance)


def _shards(sizes: Mapping[str, int], limit: int) -> dict[str, list[str]]:
    """File name -> tensors, filled in order; a tensor larger than the limit has a file of its own."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": names for i, names in enumerate(groups, 1)}


def _weight_map(shards: Mapping[str, list[str]]) -> dict[str, str]:
    return {name: file for file, names in shards.items() for name in names}


def _require_space(place: Path, needed: int) -> None:
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        sizes = f"the checkpoint needs {needed / 1e6:,.1f} MB and {place} has {free / 1e6:,.1f} MB free"
        raise OutputError(f"{sizes}; it was not written, all else is kept")


def _copy_companions(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        keep = not path.name.endswith(_WEIGHT_ENDINGS) and not path.name.startswith(".")
        if path.is_file() and keep and path.name not in ("config.json", "README.md", "merge_calib.json"):
            shutil.copyfile(path, target / path.name)


def _write_config(target: Path, config: Mapping[str, Any], dtypes: Mapping[str, torch.dtype]) -> None:
    kinds = [str(dtype).removeprefix("torch.") for dtype in dtypes.values() if dtype.is_floating_point]
    written = {key: value for key, value in config.items() if key not in ("torch_dtype", "dtype", "_name_or_path")}
    _write_json(target / "config.json", written | {"dtype": max(set(kinds), key=kinds.count)})


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(None, str(error)) from error
