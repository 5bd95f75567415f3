"""DELLA: as DARE, but large changes are kept more often than small ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from merge_calib.errors import InputError
from merge_calib.merging.drops import key_of, require_seed, uniforms
from merge_calib.merging.method import Piece, TensorPair, require_density
from merge_calib.merging.task_arithmetic import along


@dataclass(frozen=True)
class DellaLinear:
    """base + lambda m delta / p: m keeps an element with a probability p that grows with the rank of its |delta|.

    p = density - epsilon + 2 epsilon r / (C - 1) for rank r (0 the smallest, of equal ones the first) among the C
    elements of a row, density where C is 1; a vector is one row. Kept elements are divided by their own p, so delta
    stays as expected, where mergekit by default scales the tensor to its former L1 norm. What is dropped depends on
    `drop_seed` and on the element's place alone. Source: Deep et al. 2024, DELLA-Merging, MAGPRUNE, with the window of
    its authors' code (`rank_magnitude_sampling`), which is 2 epsilon wide and includes both ends.
    """

    density: float = 0.5
    epsilon: float = 0.1
    drop_seed: int = 0
    gives_aligned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_density(self.density)
        require_seed(self.drop_seed)
        if not self.epsilon > 0:
            raise InputError(f"--epsilon must be above 0, not {self.epsilon:g}")
        low, high = round(self.density - self.epsilon, 12), round(self.density + self.epsilon, 12)
        if low <= 0 or high > 1:
            raise InputError(
                f"--epsilon {self.epsilon:g} around --density {self.density:g} gives probabilities from {low:g} to "
                f"{high:g}; they must lie in (0, 1]"
            )

    def look(self, tensor: TensorPair) -> int:
        """The key of the tensor's random numbers."""
        return key_of(self.drop_seed, tensor.name)

    def merge(self, piece: Piece, lam: float, seen: int) -> torch.Tensor:
        delta = piece.delta
        probability = self._probability(delta)
        delta.mul_(uniforms(seen, piece.first, delta).lt_(probability)).div_(probability)
        return along(piece.base, delta, lam)

    def _probability(self, delta: torch.Tensor) -> torch.Tensor:
        """Of each element to be kept; delta: (rows, columns)."""
        if delta.shape[1] == 1:
            return torch.full_like(delta, self.density)
        # as integers, which sort faster and whose order is the same
        smallest_first = delta.abs().view(torch.int32).sort(dim=1, stable=True).indices
        by_rank = torch.arange(delta.shape[1], dtype=torch.float64, device=delta.device)
        by_rank.mul_(2 * self.epsilon / (delta.shape[1] - 1)).add_(self.density - self.epsilon)
        return torch.empty_like(delta).scatter_(1, smallest_first, by_rank.float().expand_as(delta))
