"""Weights on disk as safetensors: every byte has its place before the first tensor is there."""

import errno
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from merge_calib.checkpoints.threads import lone_threads
from merge_calib.files import sync
from merge_calib.progress import Advance, ignored

SHARD_BYTES = 50_000_000_000  # as transformers 5 shards
# As safetensors calls them, in the order in which it stores the tensors of a file.
_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_RANKS = {dtype: rank for rank, dtype in enumerate(_DTYPES)}
_WORKERS = 8  # at most
_SYNC_SECONDS = 0.5  # a system that is left alone begins to write when gigabytes wait

Pieces = Callable[[str], Iterable[torch.Tensor]]


@dataclass(frozen=True)
class Stored:
    """What a tensor is on disk."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True)
class Shard:
    """One file: a header, and where in the file each of its tensors lies, from byte to byte, in that order."""

    file: str
    header: bytes
    places: Mapping[str, tuple[int, int]]
    size: int


def plan_shards(tensors: Mapping[str, Stored], shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """The files for `tensors`, filled in the order given, named and sorted as transformers and safetensors do it.

    A tensor larger than `shard_bytes` has a file of its own.
    """
    from huggingface_hub import split_state_dict_into_shards_factory  # late: it takes a while to import

    split = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda stored: stored.bytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    return [
        _plan_shard(file, {name: tensors[name] for name in names}) for file, names in split.filename_to_tensors.items()
    ]


def index_of(shards: Iterable[Shard], tensors: Mapping[str, Stored]) -> str:
    """The text of model.safetensors.index.json."""
    metadata = {
        "total_parameters": sum(stored.elements for stored in tensors.values()),
        "total_size": sum(stored.bytes for stored in tensors.values()),
    }
    weight_map = {name: shard.file for shard in shards for name in shard.places}
    return json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"


def write_shards(
    folder: Path, shards: Sequence[Shard], pieces: Pieces, progress: Advance = ignored, workers: int | None = None
) -> None:
    """Write the files below `folder`, all of it on the disk at the end.

    pieces: gives the bytes of a tensor as consecutive tensors; called once for each name, in the order of the names,
        from `workers` threads (None: as many as are worth it), so that one tensor is made while another is written.
        No more than one piece a thread lives, and torch is given one thread for each.
    progress: hears the bytes written. Raises what `pieces` raises, and OSError where the disk refuses.
    """
    places = {}
    for shard in shards:
        _reserve(folder / shard.file, shard)
        places.update({name: (folder / shard.file, *place) for name, place in shard.places.items()})
    stopped, lock = threading.Event(), threading.Lock()

    def advance(count: int) -> None:
        with lock:
            progress(count)

    def write(name: str) -> None:
        if not stopped.is_set():
            _write_tensor(*places[name], pieces(name), advance, stopped)

    with lone_threads(workers or min(_WORKERS, os.cpu_count() or 1), "writing") as pool:
        try:
            tasks = [pool.submit(write, name) for name in sorted(places)]
            _finish(tasks, [folder / shard.file for shard in shards])
        finally:
            stopped.set()


def main_dtype(tensors: Mapping[str, Stored]) -> torch.dtype:
    """The dtype that most floating elements have."""
    sizes: Counter[torch.dtype] = Counter()
    for stored in tensors.values():
        sizes[stored.dtype] += stored.elements if stored.dtype.is_floating_point else 0
    return sizes.most_common(1)[0][0]


def _plan_shard(file: str, tensors: Mapping[str, Stored]) -> Shard:
    names = sorted(tensors, key=lambda name: (_RANKS[tensors[name].dtype], name))
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    lies, end = {}, 0
    for name in names:
        stored = tensors[name]
        begin, end = end, end + stored.bytes
        lies[name] = begin, end
        entries[name] = {"dtype": _DTYPES[stored.dtype], "shape": list(stored.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    places = {name: (len(header) + begin, len(header) + end) for name, (begin, end) in lies.items()}
    return Shard(file, header, places, len(header) + end)


def _reserve(path: Path, shard: Shard) -> None:
    """Begin a file with all its space, so that a disk which is too full says so before anything is merged."""
    with path.open("wb", buffering=0) as file:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, shard.size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
        _write_at(file.fileno(), memoryview(shard.header), 0)


def _write_tensor(
    path: Path, begin: int, end: int, pieces: Iterable[torch.Tensor], advance: Advance, stopped: threading.Event
) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for piece in pieces:
            data = piece.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            assert begin + len(data) <= end, "a tensor is larger than planned"
            _write_at(descriptor, data, begin)
            begin += len(data)
            advance(len(data))
            if stopped.is_set():
                return
        assert begin == end, "a tensor is smaller than planned"
    finally:
        os.close(descriptor)


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _finish(tasks: Iterable[Future[None]], files: Sequence[Path]) -> None:
    """Wait for all, or the first that fails, while what is written goes to the disk."""
    left = set(tasks)
    while left:
        done, left = wait(left, timeout=_SYNC_SECONDS, return_when=FIRST_EXCEPTION)
        for task in done:
            task.result()
        for path in files:
            sync(path)
