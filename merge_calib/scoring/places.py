"""Where a loaded model keeps what a checkpoint holds, proved by values: transformers renames, fuses and splits."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

import torch

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.names import is_derived
from merge_calib.errors import CheckpointError


def find_places(state: Mapping[str, torch.Tensor], prefix: str, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The model's own tensor, or the part of one, that holds each of the checkpoint's tensors.

    state: what the model holds by name; prefix: what it puts before the names of its body
    A tensor is found by its name, else by its values under another name, else as a part of a larger one (the experts
    of a mixture, which transformers stacks); what a model computes from its config is passed over. Raises
    CheckpointError for tensors that are found nowhere, or that could be in several places.
    """
    found: dict[str, torch.Tensor] = {}
    lost: dict[str, torch.Tensor] = {}
    for name, value in checkpoint.read_all():
        if is_derived(name, tuple(value.shape)):
            continue
        spelled = (name, prefix + name, name.removeprefix(prefix))
        place = next((p for p in spelled if p in state and _holds(state[p], value)), None)
        if place is None:
            lost[name] = value
        else:
            found[name] = state[place]
    _find_renamed(state, lost, found)
    _find_parts(state, lost, found)
    if lost:
        raise CheckpointError(
            f"{checkpoint.folder}: the loaded model does not hold {len(lost)} tensor(s) as they are stored, so that "
            f"they cannot be merged in place: {', '.join(list(lost)[:8])}"
        )
    return found


def _find_renamed(
    state: Mapping[str, torch.Tensor], lost: dict[str, torch.Tensor], found: dict[str, torch.Tensor]
) -> None:
    taken = {id(place) for place in found.values()}
    for name, value in list(lost.items()):
        free = {id(tensor): p for p, tensor in state.items() if id(tensor) not in taken and _holds(tensor, value)}
        place = _most_alike(name, list(free.values()))
        if place is not None:
            found[name] = state[place]
            taken.add(id(state[place]))
            del lost[name]


def _find_parts(
    state: Mapping[str, torch.Tensor], lost: dict[str, torch.Tensor], found: dict[str, torch.Tensor]
) -> None:
    """Find tensors that are parts of larger ones; each larger one must be the sum of its parts."""
    taken = {id(place) for place in found.values()}
    whole = {name: tensor for name, tensor in state.items() if id(tensor) not in taken}
    covered = dict.fromkeys(whole, 0)
    for name, value in list(lost.items()):
        part = _only_part(name, value, whole)
        if part is None:
            continue
        found[name] = part[1]
        covered[part[0]] += value.numel()
        del lost[name]
    spots = [(tensor.data_ptr(), tuple(tensor.shape)) for tensor in found.values() if tensor._base is not None]
    for name, size in covered.items():
        if size and (size != whole[name].numel() or len(set(spots)) != len(spots)):
            raise CheckpointError(f"the loaded model's {name} holds more than its checkpoint's tensors, or one twice")


def _only_part(name: str, value: torch.Tensor, whole: Mapping[str, torch.Tensor]) -> tuple[str, torch.Tensor] | None:
    """The part that holds `value`; of several that do, the one whose numbers (layer, expert) are those of `name`."""
    numbers = _numbers(name)
    near = [(place, tensor, len(_numbers(place))) for place, tensor in whole.items()]
    near = [(place, tensor, count) for place, tensor, count in near if _numbers(place) == numbers[:count]]
    for only in (True, False):  # first those with the number of the expert: there may be a hundred others
        holding = [
            (place, part)
            for place, tensor, count in near
            for part in _parts(tensor, value.shape, numbers[count:] if only else range(len(tensor)))
            if _holds(part, value)
        ]
        if holding:
            return holding[0] if len(holding) == 1 else None
    return None


def _numbers(name: str) -> list[int]:
    """The numbers between dots: layer, expert."""
    return [int(number) for number in re.findall(r"(?<=\.)\d+(?=\.)", name)]


def _parts(tensor: torch.Tensor, shape: torch.Size, places: Iterable[int]) -> Iterator[torch.Tensor]:
    """Parts of `tensor` that have `shape`: those at `places` of a stack, or equal blocks of rows."""
    if tensor.dim() == len(shape) + 1:
        for inner in (tensor[place] for place in places if place < len(tensor)):
            if inner.shape == shape:
                yield inner
            else:
                yield from _parts(inner, shape, ())
    elif tensor.dim() == len(shape) > 0 and tensor.shape[1:] == shape[1:] and tensor.shape[0] > shape[0] > 0:
        blocks, odd = divmod(tensor.shape[0], shape[0])
        if not odd:
            yield from (tensor.narrow(0, i * shape[0], shape[0]) for i in range(blocks))


def _most_alike(name: str, places: list[str]) -> str | None:
    """The place with the numbers of `name`, or of several that which shares most of the end of the dotted name.

    None where there is no single one.
    """
    places = [place for place in places if _numbers(place) == _numbers(name)] or places
    ends = [_common_end(name.split("."), place.split(".")) for place in places]
    return places[ends.index(max(ends))] if places and ends.count(max(ends)) == 1 else None


def _common_end(one: list[str], other: list[str]) -> int:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(reversed(one), reversed(other), strict=False))
    return sum(1 for _ in same)


def _holds(place: torch.Tensor, value: torch.Tensor) -> bool:
    if place.shape != value.shape:
        return False
    few = place.reshape(-1)[:256], value.reshape(-1)[:256]  # most tensors of a shape differ at once
    return torch.equal(few[0], few[1].to(place)) and torch.equal(place, value.to(place))
