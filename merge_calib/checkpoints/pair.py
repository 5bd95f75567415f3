"""The two parents as one model; constructing a ModelPair is the proof that they can be merged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.names import kind_of, layer_of
from merge_calib.checkpoints.parent import Parent
from merge_calib.checkpoints.slots import Fit, Side, Slot, Vocab, fit, is_wrapped
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
    """Two models of one architecture, and what lies between them tensor by tensor, from configs and headers alone.

    vocab: whose rows the merge has where vocabularies differ in size; `error` refuses that
    Raises CheckpointError with one message that names what differs.
    """

    base: Parent
    aligned: Parent
    vocab: Vocab = "aligned"

    def __post_init__(self) -> None:
        differences = [
            *_architecture_differences(self.base, self.aligned),
            *_config_differences(self.base.config, self.aligned.config),
            *self.fit.differences,
        ]
        if differences:
            listed = "\n".join(f"  - {difference}" for difference in differences)
            raise CheckpointError(f"{self.base.folder} and {self.aligned.folder} cannot be merged:\n{listed}")

    @classmethod
    def open(cls, base: Path, aligned: Path, *, allow_pickle: bool = False, vocab: Vocab = "aligned") -> "ModelPair":
        """Open two folders of full checkpoints and prove that they fit."""
        opened = [Checkpoint.open(folder, allow_pickle=allow_pickle) for folder in (base, aligned)]
        return cls(opened[0], opened[1], vocab)

    @cached_property
    def fit(self) -> Fit:
        """Which tensors belong together."""
        return fit(self.base, self.aligned, self.vocab)

    @property
    def slots(self) -> dict[str, Slot]:
        """The tensors of the merge by their names in the merged checkpoint."""
        return self.fit.slots

    @property
    def host(self) -> Parent:
        """The parent whose names, vocabulary, config and tokenizer the merge has."""
        return self.parent(self.fit.host)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config of the merge."""
        config = dict(self.host.config)
        if self.fit.new_head is None:
            return config
        if "text_config" in config:
            config["text_config"] = config["text_config"] | {"tie_word_embeddings": False}
        return config | {"tie_word_embeddings": False}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tensors of the merge, in order."""
        return tuple(sorted(self.slots))

    def stored_dtype(self, name: str) -> torch.dtype:
        """The dtype that the aligned model stores `name` in."""
        return self.slots[name].dtype

    @property
    def omits(self) -> bool:
        """Whether one config leaves out what the other says, so that only their defaults tell if they agree."""
        ours, theirs = compared_settings(self.base.config, self.aligned.config)
        return ours.keys() != theirs.keys()

    @property
    def parameters(self) -> int:
        """Number of elements in all tensors of the merge."""
        return sum(slot.size for slot in self.slots.values())

    @cached_property
    def layers(self) -> int:
        """Number of layers; at least 1."""
        return 1 + max((layer_of(name) or 0 for name in self.names), default=0)

    def depth(self, name: str) -> int:
        """The layer of a tensor; the first one for what lies before the layers, the last one for what lies behind."""
        layer = layer_of(name)
        if layer is not None:
            return layer
        return self.layers - 1 if kind_of(name) in ("final_norm", "head") else 0

    def parent(self, side: Side) -> Parent:
        """The base or the aligned model."""
        return self.base if side == "base" else self.aligned

    def read(self, side: Side, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` of the merge's tensor `name` as `side` has them, or else the parent that has them."""
        slot = self.slots[name]
        own = slot.of(side)
        has = own is not None and (stop <= (self.parent(side).tensors[own].shape or (1,))[0])
        source = side if has else slot.rest
        theirs = slot.of(source)
        assert theirs is not None
        if not slot.shape:
            return self.parent(source).read(theirs).reshape(1)
        return self.parent(source).read_rows(theirs, start, stop)


def _architecture_differences(base: Parent, aligned: Parent) -> Iterable[str]:
    for side, parent in (("base", base), ("aligned", aligned)):
        if parent.config.get("is_encoder_decoder"):
            yield (
                f"{side} is an encoder-decoder model ({parent.config.get('model_type')}); only causal language models "
                "can be merged and measured here"
            )
    if is_wrapped(base) != is_wrapped(aligned):
        return
    for key in ("model_type", "architectures"):
        if base.config.get(key) != aligned.config.get(key):
            yield f"{key}: base {base.config.get(key)}, aligned {aligned.config.get(key)}"


def _config_differences(base: dict[str, Any], aligned: dict[str, Any]) -> Iterable[str]:
    """Settings that both configs give, give differently, and that change what the weights compute.

    A setting that only one of the two gives may be the other's default: see `ModelPair.omits`.
    """
    ours, theirs = compared_settings(base, aligned)
    if ours.get("model_type") != theirs.get("model_type"):
        return
    for key in sorted(ours.keys() & theirs.keys()):
        if ours[key] != theirs[key]:
            yield f"config {key}: base {ours[key]}, aligned {theirs[key]}"


def require_same_settings(base: dict[str, Any], aligned: dict[str, Any]) -> None:
    """Raise CheckpointError naming each setting that differs between two configs with all their defaults filled in."""
    ours, theirs = compared_settings(base, aligned)
    different = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
    if different:
        listed = "\n".join(f"  - config {key}: base {ours.get(key)}, aligned {theirs.get(key)}" for key in different)
        raise CheckpointError(f"the two models compute differently and cannot be merged:\n{listed}")


def compared_settings(base: Mapping[str, Any], aligned: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of both that must agree; of a multimodal model and a text model, those of the text model.

    Vocabulary and tied heads are told from the tensors.
    """
    configs = [base, aligned]
    if ("text_config" in base) != ("text_config" in aligned):
        configs = [config.get("text_config", config) for config in configs]
    ours, theirs = (
        {k: v for k, v in settings(config).items() if k.split(".")[-1] not in ("vocab_size", "tie_word_embeddings")}
        for config in configs
    )
    return ours, theirs


def settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
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
