"""One streaming read of a checkpoint: its hash, and the proof that all its weights are finite."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from merge_calib.checkpoints.checkpoint import read_into
from merge_calib.checkpoints.names import is_derived
from merge_calib.checkpoints.parent import Parent, Weights
from merge_calib.checkpoints.threads import lone_threads
from merge_calib.errors import CheckpointError, OutputError
from merge_calib.files import write_json
from merge_calib.progress import Advance, ignored

_BLOCK = 1 << 20  # bytes: what is hashed stays in the caches of a CPU
_reading: dict[str, threading.Lock] = {}  # files that two threads ask for at once are read by one of them
_writing = threading.Lock()


def fingerprint(parent: Parent, progress: Advance = ignored) -> str:
    """SHA-256 of all names, shapes, dtypes and weights, the same however they are sharded.

    That of a parent which is computed is made of those of its parts and of how it is computed. Results are cached by
    path, size and time of change of the weight files. `progress` hears the bytes read.
    Raises CheckpointError naming the first tensor with a NaN or an infinity, but for masks that a model computes.
    """
    hashes = [_of_files(part, progress) for part in parent.parts]
    if parent.recipe is None:
        return hashes[0]
    return hashlib.sha256(json.dumps([parent.recipe, *hashes], sort_keys=True).encode()).hexdigest()


@contextmanager
def fingerprints_beside(parents: Sequence[Parent], progress: Advance = ignored) -> Iterator[Callable[[], list[str]]]:
    """Make the fingerprints in threads of their own, while other work is done within.

    Gives a function that waits for them and raises what `fingerprint` raises. What goes in the order of the names over
    the same files meets them in the system's memory.
    """
    stopped, lock = threading.Event(), threading.Lock()

    def advance(count: int) -> None:
        if stopped.is_set():
            raise InterruptedError("nobody waits for the fingerprint")
        with lock:
            progress(count)

    with lone_threads(len(parents), "hashing") as pool:
        try:
            hashes = [pool.submit(fingerprint, parent, advance) for parent in parents]
            yield lambda: [hash.result() for hash in hashes]
        finally:
            stopped.set()


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite.

    A sum over any such element is not finite either, and is quicker than a look at each; what merely adds up to more
    than the dtype holds is looked at.
    """
    if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())):
        return True
    return bool(torch.isfinite(tensor).all())


def _of_files(weights: Weights, progress: Advance) -> str:
    key = json.dumps([[str(path.resolve()), *_size_and_time(path)] for path in weights.files])
    with _reading.setdefault(key, threading.Lock()):
        known = _read_cache().get(key)
        if known is not None:
            progress(weights.bytes)
            return known
        found = _read_and_hash(weights, progress)
        with _writing:
            _write_cache(_read_cache() | {key: found})
        return found


def _read_and_hash(weights: Weights, progress: Advance) -> str:
    digest = hashlib.sha256()
    last = None
    for name, block in _blocks(weights):
        info = weights.tensors[name]
        if name != last:
            digest.update(json.dumps([name, str(info.dtype), list(info.shape)]).encode())
            last = name
        if not is_derived(name, info.shape) and not is_finite(block):
            raise CheckpointError(_not_finite(weights, name))
        digest.update(block.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        progress(block.numel() * block.element_size())
    return digest.hexdigest()


def _blocks(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in the order of the names, in consecutive blocks that are gone when the next one is asked for."""
    if any(info.offset is None for info in weights.tensors.values()):
        yield from weights.read_all()
        return
    buffer = torch.empty(_BLOCK, dtype=torch.uint8)
    for name in sorted(weights.tensors):
        info = weights.tensors[name]
        for start in range(0, max(info.bytes, 1), _BLOCK):
            block = buffer[: min(_BLOCK, info.bytes - start)]
            read_into(info.file, (info.offset or 0) + start, block)
            yield name, block.view(info.dtype)


def _not_finite(weights: Weights, name: str) -> str:
    tensor = next(tensor for other, tensor in weights.read_all() if other == name)
    count = int((~torch.isfinite(tensor)).sum())
    return f"{weights.tensors[name].file}: tensor {name} holds {count} value(s) that are NaN or infinite"


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
