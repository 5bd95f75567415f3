"""Task arithmetic: a step along the whole of what alignment changed."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from merge_calib.merging.method import Piece, TensorPair


@dataclass(frozen=True)
class TaskArithmetic:
    """base + lambda delta. Source: Ilharco et al. 2023, Editing models with task arithmetic, section 2.

    Linear's formula in another order, so that the two differ in the last bits only.
    """

    gives_aligned: ClassVar[bool] = True  # by copy: in float32 base + (aligned - base) is not aligned to the last bit

    def look(self, tensor: TensorPair) -> None:
        """Nothing: every element is merged by itself."""

    def merge(self, piece: Piece, lam: float, seen: None) -> torch.Tensor:  # noqa: ARG002 - nothing is seen
        return along(piece.base, piece.delta, lam)


def along(base: torch.Tensor, delta: torch.Tensor, step: float) -> torch.Tensor:
    """base + step x delta in float32, in the place of `delta`; the product is rounded before it is added."""
    return delta.mul_(step).add_(base)
