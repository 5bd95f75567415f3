"""A PEFT adapter on a full checkpoint, as one parent: merged in float32 by PEFT itself, a module at a time."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from merge_calib.checkpoints.adapter_merging import HISTORY, SETTINGS, Merging
from merge_calib.checkpoints.adapter_weights import Module, Names, is_head, touch_of
from merge_calib.checkpoints.checkpoint import Checkpoint, TensorInfo, open_weights, read_json, tensors_in
from merge_calib.checkpoints.names import kind_of
from merge_calib.checkpoints.slots import listed, vocabulary
from merge_calib.errors import CheckpointError

_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
# Kinds whose every weight belongs to one module, and that are merged alike with and without the other modules.
_MERGEABLE = (
    *("LORA", "LOHA", "LOKR", "IA3", "OFT", "HRA", "FOURIERFT", "MISS", "C3A", "ROAD", "DELORA"),
    "TRAINABLE_TOKENS",
)
# Settings of LoRA that make it more than a change of single weights, or that change the base or its layers first.
_UNMERGEABLE = (
    *("target_parameters", "layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config"),
    *("monteclora_config", "use_bdlora", "use_qalora"),
)
_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")  # of LoRA; the others are taken out of the base


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds a PEFT adapter."""
    return (folder / SETTINGS).exists()


def names_base(folder: Path) -> str | None:
    """The model that an adapter says it was trained on, `NAME[@REVISION]`; None where it says nothing."""
    settings = _read_settings(folder)
    name, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    return (f"{name}@{revision}" if revision else str(name)) if name else None


class Adapted:
    """A parent whose weights are a checkpoint's with an adapter merged into them, never through bf16 or fp16.

    `read` gives float32 for each tensor that the adapter touches, and the stored bits of all others. Where the adapter
    changes one of a tied embedding and head, both are tensors of their own, as they are while such an adapter is
    trained. Reading from several threads is safe; what was merged last is kept for `read_rows`.
    """

    is_stored = False

    def __init__(self, base: Checkpoint, weights: Checkpoint) -> None:
        """weights: the adapter's own, with its settings for a config."""
        self._base, self._weights = base, weights
        self._names = Names(base)
        self._touch = touch_of(weights, self._names)
        self._merging = Merging(weights, base)
        self.tensors, self.config, self._aliases = self._join()
        self._require_fit()
        self._last: dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path, base: Checkpoint, *, allow_pickle: bool = False) -> "Adapted":
        """Open the adapter in `folder` and prove from headers that every tensor of it fits `base`.

        Raises CheckpointError naming the file, and the key and both folders where one does not fit.
        """
        settings = _read_settings(folder)
        _require_mergeable(folder / SETTINGS, settings)
        path = _weight_file(folder, allow_pickle)
        files = {path: open_weights(path)}
        return cls(base, Checkpoint(folder, settings, tensors_in(files), files))

    @property
    def folder(self) -> Path:
        """The adapter's folder if it has a tokenizer, or else the base's."""
        has_tokenizer = any((self._weights.folder / name).exists() for name in _TOKENIZERS)
        return self._weights.folder if has_tokenizer else self._base.folder

    @property
    def shape(self) -> Checkpoint:
        """The base."""
        return self._base

    @property
    def parts(self) -> tuple[Checkpoint, Checkpoint]:
        """The base and the adapter's own weights."""
        return self._base, self._weights

    @property
    def recipe(self) -> dict[str, Any]:
        """The adapter's settings that change numbers, without those that say how it was trained."""
        return {
            key: sorted(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
            for key, value in sorted(self._weights.config.items())
            if key not in HISTORY and value not in (None, {}, [])
        }

    @property
    def bytes(self) -> int:
        """What a checkpoint of it takes."""
        return sum(info.bytes for info in self.tensors.values())

    def read(self, name: str) -> torch.Tensor:
        """The tensor called `name`, on the CPU: float32 where the adapter touches it, or else as the base stores it."""
        name = self._aliases.get(name, name)
        module = self._touch.modules.get(name)
        if module is None:
            return self._read_unmerged(name)
        with self._lock:
            self._merge(name, module)
            return self._last.pop(name)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` of what `read` gives; a tensor is merged once for all its rows."""
        name = self._aliases.get(name, name)
        module = self._touch.modules.get(name)
        if module is not None:
            with self._lock:
                self._merge(name, module)
                return self._last[name][start:stop].clone()
        if name in self._touch.replaced:
            return self._weights.read_rows(self._touch.replaced[name], start, stop).float()
        return self._base.read_rows(self._names.stored(name), start, stop)

    def _merge(self, name: str, module: "Module") -> None:
        """Have the tensors of `module`, of which `name` is one, in `_last`, and nothing else."""
        if name in self._last:
            return
        self._last.clear()
        stored = {n: self._read_unmerged(n).to(torch.float32, copy=True) for n in module.tensors}
        tuned = {parameter: self._weights.read(key).float() for parameter, key in module.keys.items()}
        self._last.update(self._merging.merge(module, stored, tuned))

    def _read_unmerged(self, name: str) -> torch.Tensor:
        """A weight that the adapter replaces, in float32, or else as the base stores it."""
        key = self._touch.replaced.get(name)
        return self._base.read(self._names.stored(name)) if key is None else self._weights.read(key).float()

    def _join(self) -> tuple[dict[str, TensorInfo], dict[str, Any], dict[str, str]]:
        """What it holds, its config, and which tensor is another one: a head that stays tied to its embedding."""
        names, touch, config = self._names, self._touch, dict(self._base.config)
        tensors = {name: self._info(name) for name in {*self._base.tensors, *touch.names}}
        aliases = {}
        if names.embedding is not None:
            rows = tensors[names.embedding].shape[0]
            if rows != vocabulary(config):
                config = _with(config, "vocab_size", rows)
            head = names.head or names.new_head
            if {head, names.embedding} & touch.names and names.tied:
                if self._stays_tied(head, names.embedding):
                    aliases[head] = names.embedding
                else:
                    tensors[head] = self._info(head)
                    config = _with(config, "tie_word_embeddings", False)
        new = aliases.keys() - self._base.tensors.keys()
        return {name: tensors[name] for name in sorted(tensors.keys() - new)}, config, aliases

    def _info(self, name: str) -> TensorInfo:
        """As the base stores the tensor, with the shape that the adapter gives it."""
        info, key = self._base.tensors[self._names.stored(name)], self._touch.replaced.get(name)
        return info if key is None else replace(info, shape=self._weights.tensors[key].shape, offset=None)

    def _stays_tied(self, head: str, embedding: str) -> bool:
        """Whether the adapter trained a tied head and embedding as one, whatever it stores of the two."""
        of_head, of_embedding = (self._touch.modules.get(name) for name in (head, embedding))
        keys = [self._touch.replaced.get(name) for name in (head, embedding)]
        if of_head and of_embedding:
            return bool(self._weights.config.get("ensure_weight_tying"))
        if of_embedding:
            return of_embedding.tokens is not None and keys[0] is None
        same = [self._weights.read(key) for key in keys if key is not None and not (of_head or of_embedding)]
        return len(same) == 2 and same[0].shape == same[1].shape and torch.equal(same[0], same[1])

    def _require_fit(self) -> None:
        """Raise CheckpointError where shapes or kinds of the adapter's weights are not those of the base."""
        for key, info in self._weights.tensors.items():
            if not info.dtype.is_floating_point:
                raise CheckpointError(
                    f"{info.file}: {key} is stored as {info.dtype}; an adapter's weights are floating"
                )
        for name, key in self._touch.replaced.items():
            given, had = self._weights.tensors[key], self._base.tensors[self._names.stored(name)].shape
            if given.shape[1:] != had[1:] or (given.shape != had and kind_of(name) not in ("embeddings", "head")):
                raise CheckpointError(
                    f"{given.file}: {key} has the shape {list(given.shape)}, {name} of {self._base.folder} {list(had)}"
                )
        self._require_one_vocabulary()
        self._merging.require_fit(
            set(self._touch.modules.values()), {n: self._info(n).shape for n in self._touch.names}
        )

    def _require_one_vocabulary(self) -> None:
        names = [name for name in self.tensors if name == self._names.embedding or is_head(name)]
        rows = {name: self.tensors[name].shape[0] for name in names}
        if self._touch.replaced.keys() & rows.keys() and len(set(rows.values())) > 1:
            sizes = listed(f"{name} has {count:,} rows" for name, count in rows.items())
            raise CheckpointError(f"{self._weights.files[0]} on {self._base.folder}: vocabularies differ: {sizes}")


def _with(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A config with one setting changed, in both places where a multimodal model may have it."""
    if "text_config" in config:
        config = config | {"text_config": config["text_config"] | {key: value}}
    return config | {key: value}


def _read_settings(folder: Path) -> dict[str, Any]:
    settings = read_json(folder / SETTINGS)
    if not isinstance(settings, dict):
        raise CheckpointError(f"{folder / SETTINGS} does not hold a JSON object")
    return settings


def _require_mergeable(file: Path, settings: Mapping[str, Any]) -> None:
    """Raise CheckpointError for an adapter that is more than a change of weights, or of other weights than the base."""
    kind, start = settings.get("peft_type"), settings.get("init_lora_weights")
    if kind not in _MERGEABLE:
        raise CheckpointError(
            f"{file}: adapters of peft_type {kind} cannot be merged into weights; {', '.join(_MERGEABLE)} can"
        )
    for key in _UNMERGEABLE:
        if settings.get(key):
            raise CheckpointError(f"{file}: a {kind} adapter with {key} cannot be merged into the weights of its base")
    if start not in _STARTS:
        raise CheckpointError(
            f"{file}: init_lora_weights {start} changed the base before training, and the adapter does not hold how; "
            "save it with path_initial_model_for_weight_conversion, or merge it with what trained it"
        )


def _weight_file(folder: Path, allow_pickle: bool) -> Path:
    safe, pickled = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
    if safe.exists() or (pickled.exists() and allow_pickle):
        return safe if safe.exists() else pickled
    if pickled.exists():
        raise CheckpointError(
            f"{folder} holds only pickle weights ({pickled.name}), which can carry code; "
            "convert them to safetensors or say --allow-pickle"
        )
    raise CheckpointError(f"{folder} holds no weights of an adapter: there is no {safe.name}")
