"""DARE: a step along a random part of the change, made longer by as much as was dropped."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from merge_calib.merging.drops import key_of, require_seed, uniforms
from merge_calib.merging.method import Piece, TensorPair, require_density
from merge_calib.merging.task_arithmetic import along


@dataclass(frozen=True)
class DareLinear:
    """base + lambda (m delta) / density: m keeps each element with probability density, so delta stays as expected.

    What is dropped depends on `drop_seed` and on the element's place alone, so it is the same at every lambda. Source:
    Yu et al. 2024, Language models are super Mario, section 3.2; its drop rate p is our 1 - density.
    """

    density: float = 0.5
    drop_seed: int = 0
    gives_aligned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_density(self.density)
        require_seed(self.drop_seed)

    def look(self, tensor: TensorPair) -> int:
        """The key of the tensor's random numbers."""
        return key_of(self.drop_seed, tensor.name)

    def merge(self, piece: Piece, lam: float, seen: int) -> torch.Tensor:
        kept = uniforms(seen, piece.first, piece.base).lt_(self.density)
        return along(piece.base, kept.mul_(piece.delta), lam / self.density)


@dataclass(frozen=True)
class DareTies(DareLinear):
    """DareLinear by the name that goes with an election of signs, which changes nothing where there is one delta."""
