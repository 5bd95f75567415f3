"""The k elements of a tensor that alignment changed most, found without holding the tensor."""

import math
from collections import Counter
from dataclasses import dataclass

import torch

from merge_calib.merging.method import Piece, TensorPair

HALF = 16  # bits of the lower half of a float32; without the sign its upper half has 15
LOW = (1 << HALF) - 1


@dataclass(frozen=True)
class Largest:
    """The k largest |delta| of a tensor; of equal ones those that come first in the flattened tensor.

    threshold: the smallest |delta| among them
    last: the place of the last element equal to the threshold that is among them
    """

    threshold: float
    last: int

    def mask(self, delta: torch.Tensor, first: int) -> torch.Tensor:
        """1.0 where an element is among them, else 0.0; `delta` begins with element `first` of the tensor."""
        mask = delta.abs()
        flat = mask.view(-1)
        undecided = min(max(self.last + 1 - first, 0), flat.numel())
        flat[:undecided].ge_(self.threshold)
        flat[undecided:].gt_(self.threshold)
        return mask


@dataclass(frozen=True)
class _Place:
    """Where the k-th largest of some numbers lies in their histogram: in which bin, and as which of those it holds."""

    bin: int
    wanted: int
    held: int


def largest(tensor: TensorPair, *counts: int) -> tuple[Largest, ...]:
    """The `count` largest |delta| of the tensor, for each count (0 to its size), exactly.

    Reads the tensor twice, and a third time where a count cuts through equal ones; holds one piece at a time.
    """
    found = {tensor.size: Largest(0.0, tensor.size - 1), 0: Largest(math.inf, -1)}
    asked = [count for count in counts if count not in found]
    if asked:
        found |= zip(asked, _search(tensor, asked), strict=True)
    return tuple(found[count] for count in counts)


def _search(tensor: TensorPair, counts: list[int]) -> list[Largest]:
    """Bits of floats that are not negative are ordered as the floats: the upper half is found first, then the lower."""
    upper = _upper_halves(tensor)
    highs = [_place(upper, count) for count in counts]
    lower = _lower_halves(tensor, {high.bin for high in highs})
    lows = [_place(lower[high.bin], high.wanted) for high in highs]
    bits = [high.bin << HALF | low.bin for high, low in zip(highs, lows, strict=True)]
    cuts = {(at, low.wanted) for at, low in zip(bits, lows, strict=True) if low.wanted < low.held}
    lasts = _places(tensor, cuts)
    thresholds = torch.tensor(bits, dtype=torch.int32).view(torch.float32).tolist()
    return [
        Largest(threshold, lasts.get((at, low.wanted), tensor.size - 1))
        for threshold, at, low in zip(thresholds, bits, lows, strict=True)
    ]


def _upper_halves(tensor: TensorPair) -> torch.Tensor:
    """How many |delta| have each upper half."""
    counted = torch.zeros(1 << (31 - HALF), dtype=torch.int64)
    for piece in tensor.pieces():
        counted += torch.bincount(_bits(piece) >> HALF, minlength=len(counted)).cpu()
    return counted


def _lower_halves(tensor: TensorPair, uppers: set[int]) -> dict[int, torch.Tensor]:
    """How many |delta| have each lower half, among those with one upper half; for each of these."""
    counted = {upper: torch.zeros(1 << HALF, dtype=torch.int64) for upper in uppers}
    for piece in tensor.pieces():
        bits = _bits(piece)
        for upper, histogram in counted.items():
            inside = bits[bits >> HALF == upper] & LOW
            histogram += torch.bincount(inside, minlength=len(histogram)).cpu()
    return counted


def _places(tensor: TensorPair, cuts: set[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """The place in the flattened tensor of the n-th element with the given bits, for each (bits, n)."""
    found: dict[tuple[int, int], int] = {}
    passed: Counter[tuple[int, int]] = Counter()
    for piece in tensor.pieces() if cuts else ():
        bits = _bits(piece)
        for cut in cuts - found.keys():
            equal = (bits == cut[0]).nonzero()
            if passed[cut] + len(equal) >= cut[1]:
                found[cut] = piece.first + int(equal[cut[1] - passed[cut] - 1])
            passed[cut] += len(equal)
        if len(found) == len(cuts):
            break
    return found


def _place(counted: torch.Tensor, wanted: int) -> _Place:
    """The place of the `wanted`-th largest of numbers that are `counted` by bin."""
    from_top = counted.flip(0).cumsum(0)
    bins_above = int(torch.searchsorted(from_top, wanted))
    at = len(counted) - 1 - bins_above
    held = int(counted[at])
    return _Place(at, wanted - int(from_top[bins_above]) + held, held)


def _bits(piece: Piece) -> torch.Tensor:
    """|delta| of a piece as integers, flat."""
    return piece.delta.abs_().view(torch.int32).flatten()
