"""LiNeS: a step along the change that is longer the deeper the layer."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from merge_calib.errors import InputError
from merge_calib.merging.method import Piece, TensorPair
from merge_calib.merging.task_arithmetic import along


@dataclass(frozen=True)
class Lines:
    """base + lambda (alpha + beta l / (L - 1)) delta for layer l of L, from 0.

    Embeddings count as the first layer, final norm and head as the last one (the authors' code scales these by alpha
    too; but they read what the last layer wrote). A single layer is the first one. For one fine-tuned model the
    authors keep alpha + beta = 1, the deepest layer as it was tuned, and choose alpha by validation; .5 and .5 is the
    middle of that range. Source: Wang et al. 2024, LiNeS, whose layers count from 1.
    """

    alpha: float = 0.5
    beta: float = 0.5
    gives_aligned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for flag, value in (("--alpha", self.alpha), ("--beta", self.beta)):
            if not math.isfinite(value):
                raise InputError(f"{flag} must be a finite number, not {value:g}")

    def look(self, tensor: TensorPair) -> float:
        """The scale of the tensor's layer."""
        return self.scale(tensor.layer, tensor.layers)

    def scale(self, layer: int, layers: int) -> float:
        """By how much lambda is scaled in `layer`, from 0, of `layers`."""
        return self.alpha + self.beta * layer / max(layers - 1, 1)

    def merge(self, piece: Piece, lam: float, seen: float) -> torch.Tensor:
        return along(piece.base, piece.delta, lam * seen)
