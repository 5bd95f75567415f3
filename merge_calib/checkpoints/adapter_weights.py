"""Which tensors of a checkpoint the weights of an adapter touch, and how."""

from dataclasses import dataclass, field
from functools import cached_property

import torch

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.names import canonical, kind_of
from merge_calib.checkpoints.slots import EMBEDDING, vocabulary
from merge_calib.errors import CheckpointError

PREFIX = "base_model.model."  # of all keys: what PEFT wraps a model in
_TOKENS = "trainable_tokens_delta"  # whole rows of an embedding
_HEADS = {"gpt_neox": "embed_out"}  # what checkpoints call the head by model type; elsewhere it is `lm_head`


@dataclass(frozen=True, eq=False)
class Module:
    """A module that an adapter tunes.

    name: as the adapter says it; weight, bias: the base's tensors; keys: of its weights, by parameter (`lora_A.weight`)
    """

    name: str
    weight: str
    bias: str | None
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    @property
    def tokens(self) -> str | None:
        """The parameter that holds whole rows, None for a module that is tuned otherwise."""
        return next((p for p in self.keys if p.endswith(_TOKENS) and len(self.keys) == 1), None)


@dataclass(frozen=True)
class Touch:
    """What an adapter's weights do to tensors.

    replaced: tensor -> the key that holds all of it; modules: tensor -> the module that is tuned
    """

    replaced: dict[str, str] = field(default_factory=dict)
    modules: dict[str, Module] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return {*self.replaced, *self.modules}


class Names:
    """The tensors of a checkpoint by the names that an adapter may have for them.

    The part that a class of models has and its body has not (`model.`, `gpt_neox.`) may be there or not.
    """

    def __init__(self, base: Checkpoint) -> None:
        self.base = base
        self._short = {canonical(name): name for name in base.tensors}
        self._bodies = {short.partition(".")[2]: name for short, name in self._short.items()}
        self.head = next((name for name in sorted(base.tensors) if is_head(name)), None)
        self.embedding = next((name for name in sorted(base.tensors) if self._is_embedding(name)), None)
        self.new_head = f"{_HEADS.get(base.config.get('model_type', ''), 'lm_head')}.weight"

    @cached_property
    def tied(self) -> bool:
        """Whether the base has one tensor for embedding and head, even if it stores it twice."""
        settings = self.base.config | self.base.config.get("text_config", {})
        if self.head is None or self.embedding is None:
            return self.head is None
        if "tie_word_embeddings" in settings:
            return bool(settings["tie_word_embeddings"])
        return torch.equal(self.base.read(self.head), self.base.read(self.embedding))

    def tensor(self, name: str) -> str | None:
        """The tensor that an adapter calls `name`; a head that the base does not store is a new tensor."""
        if is_head(name) and self.embedding is not None:
            return self.head or self.new_head  # models and checkpoints of one kind may call it differently
        short = canonical(name)
        return self._short.get(short) or self._short.get(short.partition(".")[2]) or self._bodies.get(short)

    def stored(self, name: str) -> str:
        """The base's tensor for `name`: itself, or for a head that the base does not store the embedding."""
        if name in self.base.tensors:
            return name
        assert self.embedding is not None
        return self.embedding

    def _is_embedding(self, name: str) -> bool:
        """Whether the tensor has a row for each token."""
        shape, tokens = self.base.tensors[name].shape, vocabulary(self.base.config)
        if tokens is None:
            return EMBEDDING.search(canonical(name)) is not None
        return kind_of(name) == "embeddings" and len(shape) == 2 and shape[0] == tokens


def is_head(name: str) -> bool:
    short = canonical(name)
    return kind_of(short) == "head" and short.count(".") == 1 and short.endswith(".weight")


def touch_of(weights: Checkpoint, names: Names) -> Touch:
    """What each key is for; raises CheckpointError for one that is for nothing, or for what another key is for."""
    touch = Touch()
    for key in sorted(weights.tensors):
        short = key.removeprefix(PREFIX)
        plain = short.replace(".modules_to_save.", ".").replace(".base_layer.", ".")
        if ".original_module." in key or (plain != short and PREFIX + plain in weights.tensors):
            continue  # what a module was before it was trained, or the same weights again
        where = f"{weights.tensors[key].file}: {key}"
        tensor = names.tensor(plain)
        module, parameter = (None, "") if tensor else _split(plain, names)
        if short == key or not (tensor or module):
            raise CheckpointError(f"{where} belongs to no tensor of {names.base.folder}")
        if tensor and touch.replaced.setdefault(tensor, key) != key:
            raise CheckpointError(f"{where} and {touch.replaced[tensor]} are both {tensor} of {names.base.folder}")
        if module and _add(touch, module).keys.setdefault(parameter, key) != key:
            raise CheckpointError(f"{where} and others are for {module.weight} of {names.base.folder}")
    _share(touch, names)
    return touch


def _split(name: str, names: Names) -> tuple[Module | None, str]:
    """The module that a key without its prefix belongs to, and the rest of the key."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        weight, bias = (names.tensor(f"{module}.{leaf}") for leaf in ("weight", "bias"))
        if weight is not None:
            return Module(module, weight, bias), ".".join(parts[count:])
    return None, name


def _add(touch: Touch, module: Module) -> Module:
    """The module of that weight in `touch`, added where it is new."""
    for tensor in module.tensors:
        touch.modules.setdefault(tensor, module)
    return touch.modules[module.weight]


def _share(touch: Touch, names: Names) -> None:
    """Where embedding and head are tied and one of them is tuned on a weight of the adapter's, so is the other."""
    if names.embedding is not None:
        pair = (names.embedding, names.head or names.new_head)
        for one, other in (pair, pair[::-1]):
            if ".base_layer." in touch.replaced.get(one, "") and names.tied:
                touch.replaced.setdefault(other, touch.replaced[one])
