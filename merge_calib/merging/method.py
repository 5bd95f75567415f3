"""What every merging method is: a formula for a piece of a tensor, and what it must first know of the whole tensor."""

from collections.abc import Iterator
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Protocol

import torch

from merge_calib.errors import InputError


@dataclass(frozen=True)
class Piece:
    """Some consecutive rows of a tensor in both parents, float32 (rows, columns) on one device.

    columns: the last dimension of the tensor, so that a piece holds whole rows; a vector is one row
    first: the place of the piece's first element in the flattened tensor
    """

    base: torch.Tensor
    aligned: torch.Tensor
    first: int

    @property
    def delta(self) -> torch.Tensor:
        """aligned - base in float32."""
        return self.aligned - self.base


class TensorPair(Protocol):
    """One tensor in both parents.

    name: of the tensor in the merged checkpoint
    layer: of which of the `layers` it is a part, from 0; what lies before the layers (the embeddings) says 0, what
        lies behind them (the final norm, the head) says layers - 1, and 0 of 1 where no layers are known
    size: number of elements
    """

    @property
    def name(self) -> str: ...

    @property
    def layer(self) -> int: ...

    @property
    def layers(self) -> int: ...

    @property
    def size(self) -> int: ...

    def pieces(self) -> Iterator[Piece]:
        """The whole tensor, piece by piece, in order; may be called as often as needed, each time it is read anew."""
        ...


class Method(Protocol):
    """A formula for the weights at lambda; an instance is a frozen dataclass whose fields are its options.

    The result never depends on how a tensor is cut into pieces, on the order in which tensors are visited, on the
    number of threads or on the sharding. lambda = 0 is the base for every method, and never asked for.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    gives_aligned: ClassVar[bool]  # whether lambda = 1 is the aligned model, which is then never asked for either

    def look(self, tensor: TensorPair) -> Any:
        """What `merge` must know of the whole tensor; it depends on nothing but the parents and is asked for once."""
        ...

    def merge(self, piece: Piece, lam: float, seen: Any) -> torch.Tensor:
        """The float32 weights of `piece` at lambda, `seen` being what `look` found."""
        ...


def require_density(density: float) -> None:
    """Raise InputError unless a share of kept elements lies in (0, 1]."""
    if not 0 < density <= 1:
        raise InputError(f"--density must lie in (0, 1], not {density:g}")
