"""One streaming read of a checkpoint: its hash, and the proof that all its weights are finite."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import torch

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.errors import CheckpointError, OutputError
from merge_calib.files import write_json
from merge_calib.progress import Advance, ignored


def fingerprint(checkpoint: Checkpoint, progress: Advance = ignored) -> str:
    """SHA-256 of all names, shapes, dtypes and weights, the same however they are sharded.

    The result is cached by path, size and time of change of the weight files. `progress` hears the bytes read.
    Raises CheckpointError naming the first tensor with a NaN or an infinity.
    """
    key = json.dumps([[str(path.resolve()), *_size_and_time(path)] for path in checkpoint.files])
    known = _read_cache()
    if key in known:
        progress(checkpoint.bytes)
        return known[key]
    known[key] = _read_and_hash(checkpoint, progress)
    _write_cache(known)
    return known[key]


def _read_and_hash(checkpoint: Checkpoint, progress: Advance) -> str:
    digest = hashlib.sha256()
    for name, tensor in checkpoint.read_all():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            where = checkpoint.tensors[name].file
            raise CheckpointError(f"{where}: tensor {name} holds {count} value(s) that are NaN or infinite")
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        progress(tensor.numel() * tensor.element_size())
    return digest.hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "merge-calib" / "fingerprints.json"


def _read_cache() -> dict[str, str]:
    try:
        known = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(known: dict[str, str]) -> None:
    with suppress(OutputError):  # a cache that cannot be kept costs a second read, nothing more
        write_json(_cache_file(), known)
