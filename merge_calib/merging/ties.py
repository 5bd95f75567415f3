"""TIES: a step along the largest changes alone."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from merge_calib.merging.method import Piece, TensorPair, require_density
from merge_calib.merging.ranks import Largest, largest
from merge_calib.merging.task_arithmetic import along


@dataclass(frozen=True)
class Ties:
    """base + lambda trim(delta): of each tensor the max(1, int(density n)) largest |delta|, all others 0.

    Equal |delta|, common between bf16 parents, count in the order of the flattened tensor. The other two steps of the
    paper, to elect a sign and to average those that agree with it, change nothing where there is one delta. Source:
    Yadav et al. 2023, TIES-Merging, algorithm 1; .2 is its density.
    """

    density: float = 0.2
    gives_aligned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_density(self.density)

    def look(self, tensor: TensorPair) -> Largest:
        """Which elements are kept."""
        count = min(max(1, int(self.density * tensor.size)), tensor.size)
        return largest(tensor, count)[0]

    def merge(self, piece: Piece, lam: float, seen: Largest) -> torch.Tensor:
        delta = piece.delta
        return along(piece.base, delta.mul_(seen.mask(delta, piece.first)), lam)
