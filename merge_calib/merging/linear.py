"""Linear interpolation and extrapolation."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from merge_calib.merging.method import Piece, TensorPair


@dataclass(frozen=True)
class Linear:
    """(1 - lambda) base + lambda aligned in float32. Source: Wortsman et al. 2022 (WiSE-FT), eq. 1."""

    gives_aligned: ClassVar[bool] = True

    def look(self, tensor: TensorPair) -> None:
        """Nothing: every element is merged by itself."""

    def merge(self, piece: Piece, lam: float, seen: None) -> torch.Tensor:  # noqa: ARG002 - nothing is seen
        return weighted(piece.base, piece.aligned, 1.0 - lam, lam)


def weighted(base: torch.Tensor, aligned: torch.Tensor, of_base: float, of_aligned: float) -> torch.Tensor:
    """of_base x base + of_aligned x aligned in float32: added to zero one after the other, each in one rounding.

    base, aligned: of one shape. Both weights are rounded to float32 first; a sum of two negative zeros is +0.
    """
    weights = torch.tensor([of_base, of_aligned], dtype=torch.float32, device=base.device)
    return torch.zeros_like(base).addcmul_(base, weights[0]).addcmul_(aligned, weights[1])
