"""How far alignment moved the weights, from a sample of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

import torch

from merge_calib.checkpoints.names import KINDS, kind_of
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.slots import Side, Slot, listed
from merge_calib.errors import CheckpointError
from merge_calib.merging.slerp import Angle
from merge_calib.progress import Watch, unwatched

MOST = 1 << 20  # elements read of a tensor
BLOCKS = 16  # places that they are read from
_SIDES: tuple[Side, Side] = ("base", "aligned")


def slots_by_kind(pair: ModelPair) -> dict[str, list[Slot]]:
    """The tensors of each kind of module, in the order of the kinds; without kinds that a model has not."""
    kinds: dict[str, list[Slot]] = {kind: [] for kind in KINDS}
    for name in pair.names:
        kinds[kind_of(name)].append(pair.slots[name])
    return {kind: slots for kind, slots in kinds.items() if slots}


@dataclass(frozen=True)
class Sampled:
    """What a sample of one or several tensors says.

    read, parameters: elements read, and all there are; delta, base: sums of squares of aligned - base and of base, and
    equal: the number of elements that are equal, as estimated for all; largest: the largest relative delta of a tensor,
    and its name; slerped, slerped_parameters: what slerp would turn rather than merge linearly
    bad: `COUNT in TENSOR of SIDE` for what is NaN or infinite; such a tensor counts for nothing else
    """

    tensors: int = 0
    parameters: int = 0
    read: int = 0
    delta: float = 0.0
    base: float = 0.0
    equal: float = 0.0
    largest: tuple[float, str] = (-1.0, "")
    slerped: int = 0
    slerped_parameters: int = 0
    bad: tuple[str, ...] = ()

    @property
    def relative_delta(self) -> float:
        """||aligned - base|| / ||base||; infinite where only the base is all zeros."""
        if self.base == 0:
            return math.inf if self.delta else 0.0
        return math.sqrt(self.delta / self.base)

    def __add__(self, other: "Sampled") -> "Sampled":
        return Sampled(
            self.tensors + other.tensors,
            self.parameters + other.parameters,
            self.read + other.read,
            self.delta + other.delta,
            self.base + other.base,
            self.equal + other.equal,
            max(self.largest, other.largest, key=lambda found: found[0]),
            self.slerped + other.slerped,
            self.slerped_parameters + other.slerped_parameters,
            self.bad + other.bad,
        )


def sample(pair: ModelPair, watch: Watch = unwatched) -> dict[str, Sampled]:
    """By kind of module, how far alignment moved the weights: from at most MOST elements of each tensor."""
    merged = {kind: [slot for slot in slots if slot.common] for kind, slots in slots_by_kind(pair).items()}
    advance = watch("reading a sample", sum(len(slots) for slots in merged.values()))
    found: dict[str, Sampled] = {}
    for kind, slots in merged.items():
        for slot in slots:
            found[kind] = found.get(kind, Sampled()) + sample_tensor(pair, slot)
            advance(1)
    return found


def sample_tensor(pair: ModelPair, slot: Slot) -> Sampled:
    """What blocks of rows, spread evenly over a tensor, say of all of it."""
    base, aligned = (_read(pair, slot, side) for side in _SIDES)
    size, length = slot.common * slot.row_size, float(base.norm() * aligned.norm())
    found = Sampled(1, size, base.numel())
    bad = {side: int((~values.isfinite()).sum()) for side, values in (("base", base), ("aligned", aligned))}
    if any(bad.values()):
        return replace(found, bad=tuple(f"{n:,} in {slot.name} of {side}" for side, n in bad.items() if n))
    share = size / max(base.numel(), 1)
    turns = Angle(float(base @ aligned) / length if length else math.nan).is_slerped
    found = replace(
        found,
        delta=float((aligned - base).square().sum()) * share,
        base=float(base.square().sum()) * share,
        equal=int((base == aligned).sum()) * share,
        slerped=int(turns),
        slerped_parameters=size if turns else 0,
    )
    return replace(found, largest=(found.relative_delta, slot.name))


def _read(pair: ModelPair, slot: Slot, side: Side) -> torch.Tensor:
    """The sample of a tensor as a vector in float64; of a row longer than MOST its beginning."""
    rows = [pair.read(side, slot.name, *block) for block in blocks(slot.common, max(slot.row_size, 1))]
    return torch.cat([block.reshape(-1) for block in rows])[:MOST].double()


def blocks(rows: int, row_size: int) -> list[tuple[int, int]]:
    """At most BLOCKS blocks of rows with at most MOST elements in all, or one row: all rows where they are so few."""
    wanted = max(1, MOST // row_size)
    if wanted >= rows:
        return [(0, rows)]
    count = min(BLOCKS, wanted)
    length = wanted // count
    starts = [i * (rows - length) // max(count - 1, 1) for i in range(count)]
    return [(start, start + length) for start in starts]


def require_finite(found: Mapping[str, Sampled]) -> None:
    """Raise CheckpointError naming what is NaN or infinite in the sample."""
    bad = [entry for sampled in found.values() for entry in sampled.bad]
    if bad:
        raise CheckpointError(f"these two cannot be merged: NaN or infinite values, {listed(bad)}")


def describe_sample(found: Mapping[str, Sampled]) -> str:
    """A table with a row for each kind of module and one for all."""
    everything = reduce(Sampled.__add__, found.values(), Sampled())
    head = ["", "tensors", "parameters", "delta", "equal", "slerp turns", "of parameters", "largest delta"]
    rows = [_cells(kind, sampled) for kind, sampled in {**found, "all": everything}.items()]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    table = [
        "  ".join(
            cell.ljust(width) if i in (0, len(head) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]
    is_all = everything.read == everything.parameters
    part = f"{everything.read:,} of {everything.parameters:,} elements"
    legend = [
        "All elements were read." if is_all else f"An estimate from {part}, read in blocks spread over each tensor.",
        "delta is ||aligned - base|| / ||base||, largest delta that of one tensor; equal are elements that alignment",
        "left as they were; slerp turns tensors that are apart enough for an arc (|cos| <= .9995), not others.",
    ]
    return "\n".join([*table, "", *legend])


def _cells(kind: str, found: Sampled) -> list[str]:
    size, name = found.largest
    return [
        kind,
        f"{found.tensors:,}",
        f"{found.parameters:,}",
        f"{found.relative_delta:.4f}",
        _percent(found.equal, found.parameters),
        f"{found.slerped:,}",
        _percent(found.slerped_parameters, found.parameters),
        f"{size:.4f} {name}" if name else "",
    ]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
