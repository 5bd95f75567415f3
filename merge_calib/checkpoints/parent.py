"""What a parent of a merge is: weights that are stored, or computed in float32 from stored ones."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from merge_calib.checkpoints.checkpoint import Checkpoint, TensorInfo


class Weights(Protocol):
    """Tensors in files: a checkpoint, or the weights of an adapter."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def bytes(self) -> int: ...

    def read_all(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor once, in the order of the names."""
        ...


class Parent(Protocol):
    """A model that is merged, tensor by tensor: a Checkpoint, an adapter on one, or the average of several.

    folder: whose tokenizer, chat template, generation config and licence are this parent's
    config: the settings of the model
    tensors: what it holds, with the dtype that a checkpoint of it has
    is_stored: whether `read` gives stored bits; a computed parent gives float32, to be rounded once by who stores it
    shape: a checkpoint on disk with the same names and shapes, from which transformers can load a model
    parts, recipe: what it is computed from, and how, as JSON; they identify it
    bytes: what a checkpoint of it takes
    """

    @property
    def folder(self) -> Path: ...

    @property
    def config(self) -> dict[str, Any]: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    @property
    def is_stored(self) -> bool: ...

    @property
    def shape(self) -> Checkpoint: ...

    @property
    def parts(self) -> tuple[Weights, ...]: ...

    @property
    def recipe(self) -> Any: ...

    @property
    def bytes(self) -> int: ...

    def read(self, name: str) -> torch.Tensor:
        """The tensor called `name`, on the CPU."""
        ...

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows start to stop (of its first dimension) of the tensor called `name`, on the CPU."""
        ...
