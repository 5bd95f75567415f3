"""Groups of tensors that have a lambda of their own: blocks of layers, kinds of module, name patterns."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise

from merge_calib.checkpoints.names import KINDS, canonical, kind_of, layer_of
from merge_calib.errors import InputError

REST = "rest"
_BLOCKS = re.compile(r"layers:(\d+)")
_RANGE = re.compile(r"layers:(\d+)-(\d+)")
_SELECTORS = ", ".join(kind for kind in KINDS if kind != "senses")


def parse_groups(text: str, layers: int, flag: str = "--groups") -> tuple[str, ...]:
    """The selectors in a comma list: `layers:4` becomes the four blocks of layers `layers:0-7`, `layers:8-15`, ...

    A selector is a block of layers, a kind of module, a name pattern with `*`, or `rest`. layers: how many the model
    has; flag: what to name in messages. Raises InputError for what is none of these and for a selector given twice.
    """
    found: list[str] = []
    for word in (part.strip() for part in text.split(",")):
        blocks = _BLOCKS.fullmatch(word)
        if blocks:
            found += _blocks(int(blocks.group(1)), layers, flag)
        elif word in KINDS or word == REST or "*" in word:
            found.append(word)
        elif inside := _RANGE.fullmatch(word):
            if not int(inside.group(1)) <= int(inside.group(2)) < layers:
                raise InputError(f"{flag} {word!r}: the layers of these models are 0 to {layers - 1}")
            found.append(word)
        else:
            raise InputError(
                f"{flag} {word!r} is unknown; allowed: layers:N (N blocks), layers:FIRST-LAST, {_SELECTORS}, a name "
                f"pattern with *, and {REST} for all others"
            )
    twice = next((word for i, word in enumerate(found) if word in found[:i]), None)
    if twice is not None:
        raise InputError(f"{flag} names {twice!r} twice")
    return tuple(found)


def require_groups(selectors: Sequence[str], names: Sequence[str], layers: int, flag: str = "--groups") -> None:
    """Raise InputError where these selectors are not groups that cover all tensors without overlapping."""
    known = parse_groups(",".join(selectors), layers, flag)
    if known != tuple(selectors):
        raise InputError(f"{flag}: layers:N stands for several groups; each needs its lambda: {', '.join(known)}")
    assign(selectors, names, flag)


def assign(selectors: Sequence[str], names: Iterable[str], flag: str = "--groups") -> dict[str, str]:
    """The selector of each tensor.

    Raises InputError where a selector matches nothing, two match one tensor, or none does and `rest` is not among them.
    """
    chosen: dict[str, str] = {}
    lost: list[str] = []
    for name in names:
        matching = [selector for selector in selectors if _selects(selector, name)]
        if len(matching) > 1:
            raise InputError(f"{flag}: groups overlap: {matching[0]} and {matching[1]} both match {name}")
        if matching or REST in selectors:
            chosen[name] = matching[0] if matching else REST
        else:
            lost.append(name)
    empty = [selector for selector in selectors if selector not in chosen.values()]
    if empty:
        raise InputError(f"{flag}: {empty[0]} matches no tensor of these models")
    if lost:
        raise InputError(
            f"{flag}: groups leave {len(lost)} tensor(s) without a lambda, first {lost[0]} ({kind_of(lost[0])}): "
            f"name more groups, or add {REST}"
        )
    return chosen


def _blocks(count: int, layers: int, flag: str) -> list[str]:
    if not 1 <= count <= layers:
        raise InputError(f"{flag} layers:{count}: the number of blocks must lie between 1 and the {layers} layers")
    edges = [i * layers // count for i in range(count + 1)]
    return [f"layers:{first}-{last - 1}" for first, last in pairwise(edges)]


def _selects(selector: str, name: str) -> bool:
    inside = _RANGE.fullmatch(selector)
    if inside:
        layer = layer_of(name)
        return layer is not None and int(inside.group(1)) <= layer <= int(inside.group(2))
    if "*" in selector:
        return fnmatchcase(name, selector) or fnmatchcase(canonical(name), selector)
    return kind_of(name) == selector
