"""Spherical interpolation: a tensor's direction turns from base to aligned at an even pace."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from merge_calib.merging.linear import weighted
from merge_calib.merging.method import Piece, TensorPair

COLLINEAR = 0.9995  # |cos| above which the chord is the arc to within float32 and sin(angle) is too small to divide by


@dataclass(frozen=True)
class Angle:
    """The angle between a tensor in base and in aligned.

    cos: its cosine, NaN where one of the two is all zeros or not finite
    """

    cos: float

    @property
    def radians(self) -> float:
        return math.acos(max(-1.0, min(1.0, self.cos)))

    @property
    def is_slerped(self) -> bool:
        """Whether there is an arc to go along; where there is none the tensor is merged linearly."""
        return abs(self.cos) <= COLLINEAR

    def weights(self, lam: float) -> tuple[float, float]:
        """sin((1 - lambda) angle) / sin(angle) of base and sin(lambda angle) / sin(angle) of aligned."""
        angle = self.radians
        return math.sin((1.0 - lam) * angle) / math.sin(angle), math.sin(lam * angle) / math.sin(angle)


@dataclass(frozen=True)
class Slerp:
    """The whole tensor as one vector, turned by lambda times the angle between its parents.

    sin((1 - lambda) a) / sin(a) base + sin(lambda a) / sin(a) aligned, a being the angle; lambda beyond [0, 1] turns
    further. Parents with |cos(a)| > .9995, most tensors of a lightly tuned model, are merged as Linear does, bit for
    bit. Source: Shoemake 1985, Animating rotation with quaternion curves, section 3.3, without scaling to unit length.
    """

    gives_aligned: ClassVar[bool] = True

    def look(self, tensor: TensorPair) -> Angle:
        """The angle, from sums in float64 that do not depend on the pieces."""
        rows: tuple[list[float], list[float], list[float]] = ([], [], [])
        for piece in tensor.pieces():
            base, aligned = piece.base.double(), piece.aligned.double()  # products of float32 are exact in float64
            rows[0].extend(_row_sums(base * aligned))
            rows[1].extend(_row_sums(base.square_()))
            rows[2].extend(_row_sums(aligned.square_()))
        dot, of_base, of_aligned = (_total(sums) for sums in rows)
        length = math.sqrt(of_base) * math.sqrt(of_aligned)
        return Angle(dot / length if length else math.nan)

    def merge(self, piece: Piece, lam: float, seen: Angle) -> torch.Tensor:
        of_base, of_aligned = seen.weights(lam) if seen.is_slerped else (1.0 - lam, lam)
        return weighted(piece.base, piece.aligned, of_base, of_aligned)


def _row_sums(values: torch.Tensor) -> list[float]:
    """The sum of each row of (rows, columns), by folding halves: any thread count and device adds in the same order."""
    while (columns := values.shape[1]) > 1:
        half = (columns + 1) // 2
        values[:, : columns - half] += values[:, half:]
        values = values[:, :half]
    sums: list[float] = values[:, 0].tolist()
    return sums


def _total(sums: list[float]) -> float:
    """The exact sum, rounded once; NaN where a term is not finite."""
    return math.fsum(sums) if all(map(math.isfinite, sums)) else math.nan
