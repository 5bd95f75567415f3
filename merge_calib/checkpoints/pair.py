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
from merge_calib.checkpoints.settings import differences, text_config
from merge_calib.checkpoints.slots import Fit, Side, Slot, Vocab, fit, is_wrapped
from merge_calib.errors import CheckpointError


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
        found = [
            *_architecture_differences(self.base, self.aligned),
            *differences(self.base.config, self.aligned.config),
            *self.fit.differences,
        ]
        if found:
            listed = "\n".join(f"  - {difference}" for difference in found)
            base, aligned = (parent.parts[-1].files[0].parent for parent in (self.base, self.aligned))
            raise CheckpointError(f"{base} and {aligned} cannot be merged:\n{listed}")

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

    @cached_property
    def merged(self) -> tuple[str, ...]:
        """The tensors that are merged, in order; the others are copies of one parent's."""
        return tuple(name for name in self.names if self.slots[name].common)

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

    def own_rows(self, side: Side, name: str) -> int:
        """How many rows of the merge's tensor `name` are there in `side`."""
        slot = self.slots[name]
        own = slot.of(side)
        return 0 if own is None else min(slot.rows, (self.parent(side).tensors[own].shape or (1,))[0])

    def read(self, side: Side, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` of the merge's tensor `name` as `side` has them, or else the parent that has them."""
        slot, own = self.slots[name], self.own_rows(side, name)
        assert stop <= own or start >= own, "rows of two parents"
        source = side if stop <= own else slot.rest
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
    configs: list[Mapping[str, Any]] = [base.config, aligned.config]
    keys = ["model_type", "architectures"]
    if is_wrapped(base) != is_wrapped(aligned):
        configs, keys = [text_config(config) for config in configs], keys[:1]
    for key in keys:
        ours, theirs = (config.get(key) for config in configs)
        if ours != theirs:
            yield f"{key}: base {ours}, aligned {theirs}"
