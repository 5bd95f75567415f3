"""Breadcrumbs: a step along what is neither an outlier nor noise."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from merge_calib.errors import InputError
from merge_calib.merging.method import Piece, TensorPair, require_density
from merge_calib.merging.ranks import Largest, largest
from merge_calib.merging.task_arithmetic import along


@dataclass(frozen=True)
class Breadcrumbs:
    """base + lambda mask(delta): each tensor without its gamma largest |delta| and without its smallest.

    Of n elements int(density n) are kept and int(gamma n) dropped as too large; the rest is dropped as too small.
    Equal |delta| count in the order of the flattened tensor. Source: Davari & Belilovsky 2023, Model Breadcrumbs, with
    the two shares as mergekit counts them.
    """

    density: float = 0.9
    gamma: float = 0.01
    gives_aligned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_density(self.density)
        if not 0 <= self.gamma < 1:
            raise InputError(f"--gamma must lie in [0, 1), not {self.gamma:g}")
        if self.density + self.gamma > 1 + 1e-9:
            raise InputError(
                f"--gamma {self.gamma:g} drops more than --density {self.density:g} leaves: their sum is at most 1"
            )

    def look(self, tensor: TensorPair) -> tuple[Largest, Largest]:
        """Which elements are too large, and which are these or kept."""
        kept = int(self.density * tensor.size)
        too_large = min(int(self.gamma * tensor.size), tensor.size - kept)  # the sum may round above the size
        outliers, rest = largest(tensor, too_large, too_large + kept)
        return outliers, rest

    def merge(self, piece: Piece, lam: float, seen: tuple[Largest, Largest]) -> torch.Tensor:
        delta = piece.delta
        outliers, rest = (ranked.mask(delta, piece.first) for ranked in seen)
        return along(piece.base, delta.mul_(rest.sub_(outliers)), lam)
