"""The weights of a point, computed from the pristine parents."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.errors import CheckpointError
from merge_calib.merging.linear import linear
from merge_calib.merging.point import MergePoint

CHUNK = 1 << 24  # elements merged at once: bounds the float32 copies to 64 MiB each


@dataclass(frozen=True)
class Merger:
    """Makes any point of a pair; the float32 result is rounded once, to `out_dtype` (None: as aligned stores it)."""

    pair: ModelPair
    out_dtype: torch.dtype | None = None
    _resident: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, repr=False)

    def tensor(self, point: MergePoint, name: str, device: torch.device | str = "cpu") -> torch.Tensor:
        """The tensor `name` at `point`, in its stored dtype.

        At lambda 0 and 1 a copy of the parent, bit for bit, in the parent's own dtype. What is not floating comes
        from the aligned model.
        """
        source = self._source(point, name)
        if source is not None:
            return source.read(name).to(device)
        base, aligned = self._parents(name, torch.device(device))
        merged = torch.empty(aligned.shape, dtype=self.dtype(point, name), device=device)
        pieces = zip(_flat(base), _flat(aligned), _flat(merged), strict=True)
        for base_piece, aligned_piece, merged_piece in pieces:
            merged_piece.copy_(linear(base_piece.to(device), aligned_piece.to(device), point.lam))
        return merged

    def dtype(self, point: MergePoint, name: str) -> torch.dtype:
        """The dtype that `tensor` gives."""
        source = self._source(point, name)
        if source is not None:
            return source.tensors[name].dtype
        return self.out_dtype or self.pair.stored_dtype(name)

    def _source(self, point: MergePoint, name: str) -> Checkpoint | None:
        """The parent that the tensor is a copy of, None where it is merged."""
        if point.is_base:
            return self.pair.base
        floating = self.pair.stored_dtype(name).is_floating_point
        return self.pair.aligned if point.is_aligned or not floating else None

    def apply(self, point: MergePoint, targets: Mapping[str, torch.Tensor]) -> None:
        """Overwrite each target, the place of a tensor in a loaded model, with that tensor at `point`.

        Only then is the stored value cast to the target's own dtype, the one that computes.
        """
        with torch.no_grad():
            for name, target in targets.items():
                target.copy_(self.tensor(point, name, target.device))

    def require_own_places(self, targets: Mapping[str, torch.Tensor]) -> None:
        """Raise CheckpointError where the model holds as one tensor what a parent stores as two different ones.

        That happens where one parent ties its head to its embedding and the other does not.
        """
        first: dict[int, str] = {}
        for name, target in targets.items():
            other = first.setdefault(id(target), name)
            if other == name:
                continue
            for side in (self.pair.base, self.pair.aligned):
                if not torch.equal(side.read(other), side.read(name)):
                    raise CheckpointError(
                        f"{other} and {name} are one tensor in the loaded model but differ in {side.folder}: "
                        "a tied and an untied head cannot be merged yet"
                    )

    def keep_parents_on(self, device: torch.device, share: float = 0.4) -> bool:
        """Hold both parents on a GPU where they take at most `share` of its free memory; says whether they do."""
        free, _total = torch.cuda.mem_get_info(device)
        if self.pair.base.bytes + self.pair.aligned.bytes > share * free:
            return False
        for name in self.pair.names:
            self._resident[name] = (self.pair.base.read(name).to(device), self.pair.aligned.read(name).to(device))
        return True

    def _parents(self, name: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        resident = self._resident.get(name)
        if resident is not None and resident[0].device == device:
            return resident
        return self.pair.base.read(name), self.pair.aligned.read(name)


def _flat(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Views of at most CHUNK elements; of a tensor that is not contiguous, a copy's views."""
    return torch.split(tensor.reshape(-1), CHUNK)
