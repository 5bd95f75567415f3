"""A point as a configuration of mergekit, for those who want the same merge made by it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import torch

from merge_calib.checkpoints.names import layer_of
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.errors import InputError
from merge_calib.merging.groups import assign
from merge_calib.merging.lines import Lines
from merge_calib.merging.point import MergePoint

VERSION = "0.1.5"
_RANDOM = ("dare_linear", "dare_ties", "della_linear")
_TIES = "where elements changed equally much, mergekit may keep others of them"

Values = Mapping[str, float]  # by tensor


@dataclass(frozen=True)
class _Recipe:
    """What a configuration says: parameters of the whole merge, of its two sources, and where results may differ."""

    method: str
    shared: Mapping[str, Values | float | bool] = field(default_factory=dict)
    of_base: Mapping[str, Values | float] = field(default_factory=dict)
    of_aligned: Mapping[str, Values | float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def mergekit_config(
    pair: ModelPair, point: MergePoint, base: str, aligned: str, out_dtype: torch.dtype | None = None
) -> str:
    """The YAML from which `mergekit-yaml` makes the merge that `point` is, with the config and tokenizer of its host.

    base, aligned: the parents as mergekit is to find them, a folder or ORG/NAME[@REVISION]; out_dtype: as in Merger
    linear, task_arithmetic and lines come out bit for bit, slerp but for roundings of float32 before the last one, ties
    and breadcrumbs but for which of several equal |delta| are kept.
    Raises InputError, saying why, for a point that mergekit cannot make.
    """
    _require_plain(pair, point)
    host = base if pair.fit.host == "base" else aligned
    about = f"merge-calib: {point.name} between {base} and {aligned}".replace("\n", " ")
    head = [f"# {about}", f"# for mergekit {VERSION}"]
    if point.is_base or point.is_aligned:
        body = ["merge_method: passthrough", f"base_model: {_model(host)}  # gives config and tokenizer", "slices:"]
        return _text([*head, *body, "  - sources:", *_source(base if point.is_base else aligned, pair.layers, {})])
    recipe = _recipe(pair, point)
    lines = [
        *head,
        *(f"# {note}" for note in recipe.notes),
        f"merge_method: {recipe.method}",
        f"base_model: {_model(host)}  # gives config and tokenizer; what is merged stands in slices",
        "dtype: float32",
        f"out_dtype: {_dtype_name(pair, out_dtype)}",
        *_parameters(recipe.shared),
        "slices:",
        f"  - base_model: {_model(base)}",
        "    sources:",
        *_source(base, pair.layers, recipe.of_base),
        *_source(aligned, pair.layers, recipe.of_aligned),
    ]
    return _text(lines)


def _require_plain(pair: ModelPair, point: MergePoint) -> None:
    if point.method in _RANDOM:
        raise InputError(
            f"mergekit cannot make this merge: {point.method} drops elements at random, and mergekit draws others"
        )
    for side in ("base", "aligned"):
        if not pair.parent(side).is_stored:
            raise InputError(
                f"mergekit cannot make this merge: --{side} is computed from several models or an adapter; write it as "
                "a checkpoint first, with merge-calib merge, and name that"
            )
    if pair.fit.notes:
        raise InputError(f"mergekit cannot make this merge: {pair.fit.notes[0]}")
    for slot in pair.slots.values():
        is_one = slot.base == slot.aligned == slot.name
        if not is_one or (slot.dtype.is_floating_point and slot.common != slot.rows):
            raise InputError(f"mergekit cannot make this merge: tensor {slot.name} is copied from one parent")


def _recipe(pair: ModelPair, point: MergePoint) -> _Recipe:
    lams, options = _lams(pair, point), dict(point.options)
    if point.method == "linear":
        of_base = {name: 1.0 - lam for name, lam in lams.items()}
        return _Recipe("linear", {"normalize": False}, {"weight": of_base}, {"weight": lams})
    if point.method == "slerp":
        note = "a tensor that is all zeros in one parent is merged linearly by merge-calib, along an arc by mergekit"
        return _Recipe("slerp", {"t": lams}, notes=(note,))
    notes: tuple[str, ...] = ()
    if point.method == "lines":
        scale = Lines(**options).scale
        lams = {name: lam * scale(pair.depth(name), pair.layers) for name, lam in lams.items()}
    elif options.get("density", 1.0) < 1:
        notes = (_TIES,)
    if 1.0 in lams.values() and point.made.gives_aligned:
        notes = ("tensors at lambda 1 are copies of the aligned model's here, base + (aligned - base) there",)
    method = {"lines": "task_arithmetic"}.get(point.method, point.method)
    of_aligned: dict[str, Values | float] = {"weight": lams}
    of_aligned |= {name: options[name] for name in ("density", "gamma") if name in options}
    return _Recipe(method, {"normalize": False, "rescale": False}, {}, of_aligned, notes)


def _lams(pair: ModelPair, point: MergePoint) -> dict[str, float]:
    """The lambda of each tensor that is merged."""
    names = [name for name in pair.names if pair.slots[name].common]
    if point.lam is not None:
        return dict.fromkeys(names, point.lam)
    of_group = dict(point.groups)
    group = assign(tuple(of_group), pair.merged)
    return {name: of_group[group[name]] for name in names}


def _dtype_name(pair: ModelPair, out_dtype: torch.dtype | None) -> str:
    stored = {slot.dtype for slot in pair.slots.values() if slot.dtype.is_floating_point}
    if out_dtype is None and len(stored) > 1:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in stored))
        raise InputError(f"mergekit writes one dtype and the aligned model has {names}: say --out-dtype")
    return str(out_dtype or stored.pop()).removeprefix("torch.")


def _source(model: str, layers: int, parameters: Mapping[str, Values | float]) -> list[str]:
    lines = [f"- model: {_model(model)}", f"  layer_range: [0, {layers}]"]
    lines += [f"  {line}" for line in _parameters(parameters)]
    return [" " * 6 + line for line in lines]


def _parameters(parameters: Mapping[str, Values | float | bool]) -> list[str]:
    lines = ["parameters:"] if parameters else []
    for name, value in parameters.items():
        settings = _settings(value) if isinstance(value, Mapping) else []
        if len(settings) == 1:
            lines.append(f"  {name}: {_number(settings[0][1])}")
        elif settings:
            lines.append(f"  {name}:")
            lines += [f"    - {{filter: {json.dumps(text)}, value: {_number(lam)}}}" for text, lam in settings]
        else:
            assert not isinstance(value, Mapping)
            lines.append(f"  {name}: {json.dumps(value) if isinstance(value, bool) else _number(value)}")
    return lines


def _settings(values: Values) -> list[tuple[str, float]]:
    """(filter, value) so that the first filter that is a part of a tensor's name has the tensor's value.

    One value for all is one setting. A layer that has one value is a filter of its own; these come first. Other tensors
    are named in full, longer names first, since a name may be a part of another.
    """
    if len(set(values.values())) == 1:
        return [("", next(iter(values.values())))]
    prefixes = dict.fromkeys(filter(None, map(_layer_prefix, values)))
    found = {prefix: {value for name, value in values.items() if prefix in name} for prefix in prefixes}
    layers = [(prefix, inside.pop()) for prefix, inside in found.items() if len(inside) == 1]
    even = {prefix for prefix, _ in layers}
    others = [(name, value) for name, value in values.items() if _layer_prefix(name) not in even]
    return layers + sorted(others, key=lambda setting: -len(setting[0]))


def _layer_prefix(name: str) -> str:
    """`model.layers.3.` of a tensor of that layer, else nothing."""
    layer = layer_of(name)
    head, dot, _ = name.partition(f".{layer}.")
    return head + dot if layer is not None else ""


def _number(value: float) -> str:
    """All digits of `value`, never as 1e-10, which YAML reads as a text."""
    return format(Decimal(repr(value)), "f")


def _model(name: str) -> str:
    """A reference to a model; mergekit would cut the path of a folder at an @ or a +."""
    if Path(name).is_dir() and set("@+") & set(name):
        return f"{{model: {{path: {json.dumps(name, ensure_ascii=False)}}}}}"
    return json.dumps(name, ensure_ascii=False)


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
