"""The weights of a point, computed from the pristine parents piece by piece."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.slots import Side, Slot
from merge_calib.errors import CheckpointError
from merge_calib.merging.groups import assign
from merge_calib.merging.method import Method, Piece
from merge_calib.merging.point import MergePoint
from merge_calib.merging.slerp import Slerp

CHUNK = 1 << 19  # elements merged at once: what is computed with stays in the caches of a CPU
CHUNK_ON_GPU = 1 << 24  # where each of a dozen kernels costs some microseconds, whatever it does

# glibc gives memory back to the system whenever more is free than twice the largest block that was ever freed, and
# takes it anew for the next piece, which costs three times the arithmetic. After this it keeps up to 64 MiB.
torch.empty(31 << 20, dtype=torch.uint8)


@dataclass(frozen=True)
class Merger:
    """Makes any point of a pair; the float32 result is rounded once, to `out_dtype` (None: as aligned stores it)."""

    pair: ModelPair
    out_dtype: torch.dtype | None = None
    _resident: dict[tuple[Side, str], torch.Tensor] = field(default_factory=dict, repr=False)
    _seen: dict[tuple[Method, str], Any] = field(default_factory=dict, repr=False)
    _made: dict[MergePoint, Method] = field(default_factory=dict, repr=False)
    _groups: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict, repr=False)

    def tensor(self, point: MergePoint, name: str, device: torch.device | str = "cpu") -> torch.Tensor:
        """The tensor `name` at `point`, in its stored dtype."""
        merged = torch.empty(self.pair.slots[name].shape, dtype=self.dtype(point, name), device=device)
        self._fill(point, name, merged)
        return merged

    def pieces(
        self, point: MergePoint, name: str, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """The tensor `name` at `point` in blocks of rows, each with the row it begins at, in order.

        At lambda 0 and 1 the rows are a parent's, bit for bit, in its own dtype. What is not floating, what belongs to
        another sense than text and rows that one parent alone has are copied.
        """
        slot, device, dtype = self.pair.slots[name], _whole(device), self.dtype(point, name)
        lam = self._lam(point, slot)
        method = self._method(point)
        source = self._source(point, slot, lam, method)
        seen = None if source else self._look(method, slot, device)
        for start, stop in _steps(slot, 0, slot.common, device):
            if source:
                yield start, self._read(source, slot, start, stop, device).to(dtype)
            else:
                merged = method.merge(self._piece(slot, start, stop, device), lam, seen)
                yield start, merged.to(dtype).reshape(stop - start, *slot.shape[1:])
        for start, stop in _steps(slot, slot.common, slot.rows, device):
            yield start, self._read(source or slot.rest, slot, start, stop, device).to(dtype)

    def dtype(self, point: MergePoint, name: str) -> torch.dtype:
        """The dtype that `tensor` gives: a parent's own where it is a copy of stored bits, else the one asked for."""
        slot = self.pair.slots[name]
        side: Side | None = "base" if point.is_base else "aligned" if point.is_aligned else None
        own = slot.of(side) if side else None
        if not slot.dtype.is_floating_point or (own is None and slot.common == 0):
            return slot.dtype
        if side and own is not None and self.pair.parent(side).is_stored:
            return self.pair.parent(side).tensors[own].dtype
        return self.out_dtype or slot.dtype

    def apply(self, point: MergePoint, targets: Mapping[str, torch.Tensor]) -> None:
        """Overwrite each target, the place of a tensor in a loaded model, with that tensor at `point`.

        Only then is the stored value cast to the target's own dtype, the one that computes. Places of what is no part
        of the merge (a tied head that is stored as well) are left alone.
        """
        with torch.no_grad():
            for name, target in targets.items():
                if name in self.pair.slots:
                    self._fill(point, name, target)

    def require_own_places(self, targets: Mapping[str, torch.Tensor]) -> None:
        """Raise CheckpointError where the model holds as one tensor what a parent stores as two different ones."""
        first: dict[tuple[int, tuple[int, ...]], str] = {}
        for name, target in ((n, t) for n, t in targets.items() if n in self.pair.slots):
            other = first.setdefault((target.data_ptr(), tuple(target.shape)), name)
            if other == name:
                continue
            for side in ("base", "aligned"):
                if not self._are_equal(side, other, name):
                    raise CheckpointError(
                        f"{other} and {name} are one tensor in the loaded model but differ in "
                        f"{self.pair.parent(side).folder}: its config says that its head is tied, its weights do not"
                    )

    def _are_equal(self, side: Side, one: str, other: str) -> bool:
        rows = self.pair.own_rows(side, one)
        if rows != self.pair.own_rows(side, other):
            return False
        return not rows or torch.equal(self.pair.read(side, one, 0, rows), self.pair.read(side, other, 0, rows))

    def release_parents(self) -> None:
        """Give back what `keep_parents_on` took."""
        self._resident.clear()

    def keep_parents_on(self, device: torch.device, share: float = 0.4) -> bool:
        """Hold as much of both parents on a GPU as fits into `share` of its free memory; says whether that is all.

        What must be computed comes first: it takes longest to have again.
        """
        left = share * torch.cuda.mem_get_info(device)[0]
        sides: list[Side] = sorted(("base", "aligned"), key=lambda side: self.pair.parent(side).is_stored)
        for side in sides:
            for name in self.pair.names:
                rows = self.pair.own_rows(side, name)
                if not rows:
                    continue
                if left < self.pair.slots[name].bytes:
                    return False
                tensor = self.pair.read(side, name, 0, rows)
                left -= tensor.nbytes
                if left < 0:
                    return False
                self._resident[side, name] = tensor.to(device)
        return True

    def facts(self, point: MergePoint, device: torch.device | str = "cpu") -> dict[str, int]:
        """Of slerp, how many of the merged tensors and of their parameters are truly rotated; else nothing."""
        method = self._method(point)
        if not isinstance(method, Slerp):
            return {}
        slots = (self.pair.slots[name] for name in self.pair.merged)
        merged = [slot for slot in slots if self._source(point, slot, self._lam(point, slot), method) is None]
        rotated = [slot for slot in merged if self._look(method, slot, _whole(device)).is_slerped]
        return {
            "tensors": len(merged),
            "slerped_tensors": len(rotated),
            "parameters": sum(slot.size for slot in merged),
            "slerped_parameters": sum(slot.size for slot in rotated),
        }

    def _fill(self, point: MergePoint, name: str, target: torch.Tensor) -> None:
        rows = target if target.dim() else target.reshape(1)
        for start, piece in self.pieces(point, name, target.device):
            rows[start : start + len(piece)].copy_(piece)

    def _method(self, point: MergePoint) -> Method:
        if point not in self._made:
            self._made[point] = point.made
        return self._made[point]

    def _lam(self, point: MergePoint, slot: Slot) -> float:
        """The lambda of a tensor; what is copied has none of its own."""
        if point.lam is not None:
            return point.lam
        if not slot.common:
            return 1.0
        selectors = tuple(selector for selector, _ in point.groups)
        if selectors not in self._groups:
            self._groups[selectors] = assign(selectors, self.pair.merged)
        return dict(point.groups)[self._groups[selectors][slot.name]]

    def _source(self, point: MergePoint, slot: Slot, lam: float, method: Method) -> Side | None:
        """The parent that the tensor is a copy of, None where it is merged."""
        if point.is_base or point.is_aligned:
            return "base" if point.is_base else "aligned"
        if slot.common == 0:
            return slot.rest
        if lam == 0.0:
            return "base"
        return "aligned" if lam == 1.0 and method.gives_aligned else None

    def _look(self, method: Method, slot: Slot, device: torch.device) -> Any:
        key = method, slot.name
        if key not in self._seen:
            self._seen[key] = method.look(_Tensor(self, slot, device))
        return self._seen[key]

    def _piece(self, slot: Slot, start: int, stop: int, device: torch.device) -> Piece:
        columns = slot.shape[-1] if len(slot.shape) > 1 else (stop - start)
        both = [
            self._read(side, slot, start, stop, device).float().reshape(-1, columns) for side in ("base", "aligned")
        ]
        return Piece(both[0], both[1], start * slot.row_size)

    def _read(self, side: Side, slot: Slot, start: int, stop: int, device: torch.device) -> torch.Tensor:
        resident = self._resident.get((side, slot.name))
        if resident is not None and resident.device == device and stop <= len(resident):
            return resident[start:stop]
        rows = self.pair.read(side, slot.name, start, stop)
        if device.type == "cuda":
            return rows.pin_memory().to(device, non_blocking=True)
        return rows


@dataclass(frozen=True)
class _Tensor:
    """The rows of a slot that both parents have, as a method looks at them."""

    merger: Merger
    slot: Slot
    device: torch.device

    @property
    def name(self) -> str:
        return self.slot.name

    @property
    def layer(self) -> int:
        return self.merger.pair.depth(self.name)

    @property
    def layers(self) -> int:
        return self.merger.pair.layers

    @property
    def size(self) -> int:
        return self.slot.common * self.slot.row_size

    def pieces(self) -> Iterator[Piece]:
        for start, stop in _steps(self.slot, 0, self.slot.common, self.device):
            yield self.merger._piece(self.slot, start, stop, self.device)


def _steps(slot: Slot, start: int, stop: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Blocks of rows of at most CHUNK elements, or one row; a vector is not cut."""
    chunk = CHUNK if device.type == "cpu" else CHUNK_ON_GPU
    step = max(1, chunk // max(slot.row_size, 1)) if len(slot.shape) > 1 else max(slot.rows, 1)
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


def _whole(device: torch.device | str) -> torch.device:
    """The device with its number, as tensors on it have it."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
