"""The two parents; constructing a ModelPair is the proof that they can be merged."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from merge_calib.checkpoints.checkpoint import FLOAT_DTYPES, Checkpoint
from merge_calib.errors import CheckpointError

# What two checkpoints of one architecture may say differently without computing differently.
_HARMLESS = {
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "max_position_embeddings",
    "max_length",
    "initializer_range",
    "pretraining_tp",
    "task_specific_params",
    "id2label",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
}
_HARMLESS_ENDINGS = ("_token_id", "dropout", "_pdrop", "_dropout_prob", "_loss_coef")


@dataclass(frozen=True)
class ModelPair:
    """Two checkpoints with the same architecture, tensor names and shapes, proved from configs and headers alone.

    Raises CheckpointError with one message that names what differs.
    """

    base: Checkpoint
    aligned: Checkpoint

    def __post_init__(self) -> None:
        differences = [
            *_architecture_differences(self.base.config, self.aligned.config),
            *_config_differences(self.base.config, self.aligned.config),
            *_tensor_differences(self.base, self.aligned),
        ]
        if differences:
            listed = "\n".join(f"  - {difference}" for difference in differences)
            raise CheckpointError(f"{self.base.folder} and {self.aligned.folder} cannot be merged:\n{listed}")

    @classmethod
    def open(cls, base: Path, aligned: Path, *, allow_pickle: bool = False) -> "ModelPair":
        """Open both folders and prove that they fit."""
        return cls(
            Checkpoint.open(base, allow_pickle=allow_pickle), Checkpoint.open(aligned, allow_pickle=allow_pickle)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that both parents hold, in order."""
        return tuple(sorted(self.aligned.tensors))

    def stored_dtype(self, name: str) -> torch.dtype:
        """The dtype that the aligned checkpoint stores `name` in."""
        return self.aligned.tensors[name].dtype

    @property
    def parameters(self) -> int:
        """Number of elements in all tensors of one parent."""
        return sum(torch.Size(info.shape).numel() for info in self.aligned.tensors.values())


def _architecture_differences(base: dict[str, Any], aligned: dict[str, Any]) -> Iterable[str]:
    for key in ("model_type", "architectures"):
        if base.get(key) != aligned.get(key):
            yield f"{key}: base {base.get(key)}, aligned {aligned.get(key)}"


def _config_differences(base: dict[str, Any], aligned: dict[str, Any]) -> Iterable[str]:
    """Settings that both configs give, give differently, and that change what the weights compute.

    A setting that only one of the two gives may be the other's default: who knows the defaults compares with
    `require_same_settings`.
    """
    if base.get("model_type") != aligned.get("model_type"):
        return
    ours, theirs = settings(base), settings(aligned)
    for key in sorted(ours.keys() & theirs.keys()):
        if ours[key] != theirs[key]:
            yield f"config {key}: base {ours[key]}, aligned {theirs[key]}"


def require_same_settings(base: dict[str, Any], aligned: dict[str, Any]) -> None:
    """Raise CheckpointError naming each setting that differs between two configs with all their defaults filled in."""
    ours, theirs = settings(base), settings(aligned)
    different = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
    if different:
        listed = "\n".join(f"  - config {key}: base {ours.get(key)}, aligned {theirs.get(key)}" for key in different)
        raise CheckpointError(f"the two models compute differently and cannot be merged:\n{listed}")


def settings(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings that change what weights compute, flat (`text_config.hidden_size`), with rope_theta in one place."""
    ignored = set(_HARMLESS)
    if config.get("use_sliding_window") is False:
        ignored |= {"sliding_window", "max_window_layers"}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key in ignored or key.startswith("_") or key.endswith(_HARMLESS_ENDINGS) or value is None:
            continue
        if isinstance(value, dict):
            inner = "" if key == "rope_parameters" else f"{prefix}{key}."
            flat |= settings(value, inner)
        else:
            flat[prefix + key] = value
    return flat


def _tensor_differences(base: Checkpoint, aligned: Checkpoint) -> Iterable[str]:
    yield from _only_in("base", base, aligned)
    yield from _only_in("aligned", aligned, base)
    both = sorted(base.tensors.keys() & aligned.tensors.keys())
    shapes = [
        f"{name} {list(base.tensors[name].shape)} / {list(aligned.tensors[name].shape)}"
        for name in both
        if base.tensors[name].shape != aligned.tensors[name].shape
    ]
    if shapes:
        yield f"{len(shapes)} tensor(s) differ in shape (base / aligned): {_listed(shapes)}"
    kinds = [
        f"{name} {base.tensors[name].dtype} / {aligned.tensors[name].dtype}"
        for name in both
        if base.tensors[name].dtype != aligned.tensors[name].dtype
        and not {base.tensors[name].dtype, aligned.tensors[name].dtype} <= set(FLOAT_DTYPES)
    ]
    if kinds:
        yield f"{len(kinds)} tensor(s) are floating in one parent only: {_listed(kinds)}"


def _only_in(side: str, one: Checkpoint, other: Checkpoint) -> Iterable[str]:
    names = sorted(one.tensors.keys() - other.tensors.keys())
    if names:
        yield f"{len(names)} tensor(s) only in {side}: {_listed(names)}"


def _listed(items: list[str], most: int = 8) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
