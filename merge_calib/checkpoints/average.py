"""Several aligned models as one: the weighted mean of their weights."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from merge_calib.checkpoints.checkpoint import Checkpoint, TensorInfo
from merge_calib.checkpoints.parent import Parent, Weights
from merge_calib.checkpoints.settings import settings
from merge_calib.errors import CheckpointError, InputError


@dataclass(frozen=True)
class Average:
    """sum of w_i x tensor_i in float32, added up in the order given; weights sum to 1.

    Everything that is no floating tensor (config, tokenizer, integer tensors) is the first parent's. Source: Wortsman
    et al. 2022 (model soups), section 2.
    """

    parents: tuple[Parent, ...]
    weights: tuple[float, ...]

    is_stored = False

    def __post_init__(self) -> None:
        for other in self.parents[1:]:
            _require_alike(self.parents[0], other)

    @classmethod
    def of(cls, parents: Sequence[Parent], weights: Sequence[float] | None = None) -> "Average":
        """The average with these weights, divided by their sum; all alike where there are none.

        Raises InputError, naming the flag, for weights that are none, and CheckpointError naming what differs.
        """
        assert parents
        given = [1.0] * len(parents) if weights is None else list(weights)
        if len(given) != len(parents):
            raise InputError(f"--aligned-weights gives {len(given)} weight(s) for {len(parents)} aligned model(s)")
        wrong = [weight for weight in given if not (math.isfinite(weight) and weight > 0)]
        if wrong:
            raise InputError(f"--aligned-weights {wrong[0]}: a weight is a finite number above 0")
        largest = max(given)  # so that no sum is infinite
        total = math.fsum(weight / largest for weight in given)
        return cls(tuple(parents), tuple(weight / largest / total for weight in given))

    @property
    def folder(self) -> Path:
        """The first parent's."""
        return self.parents[0].folder

    @property
    def config(self) -> dict[str, Any]:
        """The first parent's."""
        return self.parents[0].config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The first parent's."""
        return self.parents[0].tensors

    @property
    def shape(self) -> Checkpoint:
        """The first parent's."""
        return self.parents[0].shape

    @property
    def parts(self) -> tuple[Weights, ...]:
        """All parts of all parents."""
        return tuple(part for parent in self.parents for part in parent.parts)

    @property
    def recipe(self) -> dict[str, Any]:
        """The weights, and how each parent that is computed itself is computed."""
        return {"average": list(self.weights), "of": [parent.recipe for parent in self.parents]}

    @property
    def bytes(self) -> int:
        """What a checkpoint of it takes."""
        return self.parents[0].bytes

    def read(self, name: str) -> torch.Tensor:
        """The tensor called `name`, on the CPU: float32, or as the first parent has it where it is not floating."""
        return self._mean(name, lambda parent: parent.read(name))

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` of what `read` gives, from the same rows of each parent."""
        return self._mean(name, lambda parent: parent.read_rows(name, start, stop))

    def _mean(self, name: str, read: Callable[[Parent], torch.Tensor]) -> torch.Tensor:
        if not self.tensors[name].dtype.is_floating_point:
            return read(self.parents[0])
        mean: torch.Tensor | None = None
        for parent, weight in zip(self.parents, self.weights, strict=True):
            term = read(parent).to(torch.float32) * weight  # no fused step: rows alone must give the same bits
            mean = term if mean is None else mean.add_(term)
        assert mean is not None
        return mean


def _require_alike(first: Parent, other: Parent) -> None:
    """Raise CheckpointError naming the first difference: a setting, a tensor, a shape, or a kind of numbers."""
    both = f"{first.folder} and {other.folder} cannot be averaged"
    ours, theirs = settings(first.config), settings(other.config)
    for key in sorted(ours.keys() & theirs.keys()):
        if ours[key] != theirs[key]:
            raise CheckpointError(f"{both}: config {key} is {ours[key]} in the first and {theirs[key]} in the second")
    for name in sorted(first.tensors.keys() ^ other.tensors.keys()):
        lacks = other.folder if name in first.tensors else first.folder
        raise CheckpointError(f"{both}: {lacks} has no tensor {name}")
    for name in sorted(first.tensors):
        one, two = first.tensors[name], other.tensors[name]
        if one.shape != two.shape:
            raise CheckpointError(f"{both}: {name} has the shapes {list(one.shape)} and {list(two.shape)}")
        if one.dtype.is_floating_point != two.dtype.is_floating_point:
            raise CheckpointError(f"{both}: {name} is stored as {one.dtype} and as {two.dtype}")
