"""One model folder, its weights read lazily, tensor by tensor."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from merge_calib.errors import CheckpointError

_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of a tensor."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int | None = None  # of its first byte in the file; None where only a library knows how to read it

    @property
    def bytes(self) -> int:
        """What it takes as it is stored."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json and weights, single or sharded; opening it reads configs and headers only.

    Raises CheckpointError for a missing or damaged file, for quantised weights, for adapters, and for pickle
    weights unless `allow_pickle`.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    _files: dict[Path, Any] = field(repr=False)

    @classmethod
    def open(cls, folder: Path, *, allow_pickle: bool = False) -> "Checkpoint":
        """Open `folder` and prove from its headers that every tensor it lists is there."""
        config = _read_config(folder)
        files = {path: open_weights(path) for path in _weight_files(folder, allow_pickle)}
        tensors = tensors_in(files)
        _check_index(folder, tensors)
        return cls(folder, config, tensors, files)

    def read(self, name: str) -> torch.Tensor:
        """The tensor called `name`, on the CPU, as it is stored."""
        info = self.tensors[name]
        tensor: torch.Tensor = self._files[info.file].get_tensor(name)
        return tensor

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` (of the first dimension) of the tensor called `name`, on the CPU, as it is stored.

        Nothing else of the file is read or mapped.
        """
        info = self.tensors[name]
        if info.offset is None:
            return self.read(name)[start:stop]
        row = info.bytes // max(info.shape[0], 1)
        rows = torch.empty((stop - start, *info.shape[1:]), dtype=info.dtype)
        read_into(info.file, info.offset + start * row, rows)
        return rows

    def read_all(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor once, in the order of the names."""
        for name in sorted(self.tensors):
            yield name, self.read(name)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The weight files, in the order of their names."""
        return tuple(sorted(self._files))

    @property
    def bytes(self) -> int:
        """Size of all tensors as they are stored."""
        return sum(info.bytes for info in self.tensors.values())

    is_stored = True
    recipe = None

    @property
    def shape(self) -> "Checkpoint":
        """Itself: transformers can load it."""
        return self

    @property
    def parts(self) -> tuple["Checkpoint", ...]:
        """Itself: nothing of it is computed."""
        return (self,)


class _PickleFile:
    """A `.bin` file with the three methods of safe_open that are used here; code in it is never run."""

    def __init__(self, path: Path) -> None:
        try:
            self._tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            raise CheckpointError(f"{path} cannot be read as weights: {error}") from error

    def keys(self) -> list[str]:
        return list(self._tensors)

    def get_tensor(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._tensors[name]
        return tensor


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{folder} is a PEFT adapter; a full checkpoint is needed here: merge it into its model first"
        )
    if not path.exists():
        half = any(folder.glob("adapter_model.*"))
        hint = "; it has an adapter's weights, but no adapter_config.json" if half else ""
        raise CheckpointError(f"{folder} is no model folder: it has no config.json{hint}")
    config = read_json(path)
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    if config.get("quantization_config"):
        quantised = config["quantization_config"]
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise CheckpointError(f"{folder} is quantised ({method}); weights can only be merged from bf16, fp16 or fp32")
    return config


def read_json(path: Path) -> Any:
    """The JSON in `path`; raises CheckpointError naming the file where it is missing or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _weight_files(folder: Path, allow_pickle: bool) -> list[Path]:
    found = _indexed_or_single(folder, "model.safetensors")
    if found:
        return found
    pickles = _indexed_or_single(folder, "pytorch_model.bin")
    if pickles and allow_pickle:
        return pickles
    if pickles:
        raise CheckpointError(
            f"{folder} holds only pickle weights ({pickles[0].name}), which can carry code; "
            "convert them to safetensors or say --allow-pickle"
        )
    raise CheckpointError(f"{folder} holds no weights: neither model.safetensors nor model.safetensors.index.json")


def _indexed_or_single(folder: Path, name: str) -> list[Path]:
    index = folder / f"{name}.index.json"
    if not index.exists():
        return [folder / name] if (folder / name).exists() else []
    files = sorted({folder / file for file in _weight_map(index).values()})
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} of {len(files)} shards: {', '.join(missing)}")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files")
    return weight_map


def open_weights(path: Path) -> Any:
    """The weights in `path`, read lazily; raises CheckpointError where they are damaged."""
    if path.suffix == ".bin":
        return _PickleFile(path)
    try:
        path.open("rb").close()  # safe_open calls a file that may not be read a missing one
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or damaged: {error}") from error


def tensors_in(files: Mapping[Path, Any]) -> dict[str, TensorInfo]:
    """What the headers of opened weight files say of each tensor; raises CheckpointError where one is there twice."""
    tensors: dict[str, TensorInfo] = {}
    for path, weights in files.items():
        offsets = {} if isinstance(weights, _PickleFile) else _offsets(path)
        for name in weights.keys():  # noqa: SIM118 - safe_open is no mapping
            if name in tensors:
                raise CheckpointError(f"tensor {name} is both in {tensors[name].file} and in {path}")
            tensors[name] = _tensor_info(path, weights, name, offsets.get(name))
    return tensors


def _tensor_info(path: Path, weights: Any, name: str, offset: int | None) -> TensorInfo:
    if isinstance(weights, _PickleFile):
        tensor = weights.get_tensor(name)
        return TensorInfo(path, tuple(tensor.shape), tensor.dtype)
    header = weights.get_slice(name)
    stored = header.get_dtype()
    if stored not in _DTYPES:
        raise CheckpointError(f"{path}: tensor {name} is stored as {stored}; only bf16, fp16 and fp32 can be merged")
    return TensorInfo(path, tuple(header.get_shape()), _DTYPES[stored], offset)


def _offsets(path: Path) -> dict[str, int]:
    """Where each tensor begins in a safetensors file that has been found sound: 8 bytes of length, a header, data."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items()}


def read_into(path: Path, offset: int, rows: torch.Tensor) -> None:
    """Fill `rows` with the bytes of a file from `offset` on; raises CheckpointError where there are not so many."""
    left = rows.reshape(-1).view(torch.uint8).numpy().data
    try:
        with path.open("rb", buffering=0) as file:
            while left:
                count = os.preadv(file.fileno(), [left], offset)
                if count == 0:
                    raise CheckpointError(f"{path} is truncated: it ends before byte {offset + len(left)}")
                left, offset = left[count:], offset + count
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def _check_index(folder: Path, tensors: dict[str, TensorInfo]) -> None:
    for index in folder.glob("*.index.json"):
        lost = sorted(set(_weight_map(index)) - set(tensors)) if index.name.startswith("model.safetensors") else []
        if lost:
            raise CheckpointError(f"{index} lists {len(lost)} tensor(s) that no shard holds, the first is {lost[0]}")
