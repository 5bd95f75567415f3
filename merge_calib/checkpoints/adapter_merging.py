"""PEFT's own arithmetic on one module at a time, in float32."""

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from typing import Any

import torch
from torch import nn

from merge_calib.checkpoints.adapter_weights import PREFIX, Module
from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.names import kind_of
from merge_calib.checkpoints.slots import listed
from merge_calib.errors import CheckpointError

SETTINGS = "adapter_config.json"
# What says which modules are tuned, as the names of the weights do; a module that stands alone needs none of it.
_WHICH = (
    *("task_type", "target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"),
    "trainable_token_indices",
)
# What says how the adapter was trained, or again which modules are tuned.
HISTORY = {
    *("base_model_name_or_path", "revision", "peft_version", "auto_mapping", "inference_mode", "runtime_config"),
    *("lora_dropout", "module_dropout", "rank_dropout", "init_lora_weights", "init_ia3_weights", "velora_config"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_config", "megatron_core"),
    *set(_WHICH) - {"trainable_token_indices"},
}
_CONV1D = ("gpt2", "openai-gpt")  # model types whose linear layers are transformers' Conv1D, with weights (in, out)

_PEFT = threading.Lock()  # what PEFT does to random state and warnings is the whole process's


class Merging:
    """PEFT's own arithmetic, on modules that stand alone under their full names."""

    def __init__(self, weights: Checkpoint, base: Checkpoint) -> None:
        self._weights, self._base, self._file = weights, base, weights.files[0]
        self._settings_file = weights.folder / SETTINGS
        self._kind = weights.config["peft_type"]
        self._is_conv1d = bool(weights.config.get("fan_in_fan_out")) or base.config.get("model_type") in _CONV1D

    def require_fit(self, modules: Iterable[Module], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise CheckpointError where PEFT expects other parameters for the modules than the adapter has for them.

        shapes: of the tensors of the modules, as the adapter leaves them; nothing is computed.
        """
        layers: dict[str, nn.Module] = {}
        given: dict[str, tuple[int, ...]] = {}
        expected: dict[str, tuple[int, ...]] = {}
        for module in modules:
            keys = _full(module, module.keys)
            given |= {key: self._weights.tensors[own].shape for key, own in keys.items()}
            rows, *columns = shapes[module.weight]
            if module.tokens is not None:
                expected |= {key: (len(self._tokens(module, rows)), *columns) for key in keys}
            else:
                empty = {name: torch.empty(shapes[name], device="meta") for name in module.tensors}
                layers[module.name] = self._layer(module, empty)
        self._compare(given, expected | self._expected(layers))

    def merge(
        self, module: Module, stored: dict[str, torch.Tensor], tuned: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The tensors of `module`, by name, with its parameters `tuned` merged; all are float32.

        What is given may be overwritten; torch's random state is left as it was.
        """
        from peft import set_peft_model_state_dict

        if module.tokens is not None:
            weight = stored[module.weight]
            weight[self._tokens(module, len(weight))] = tuned[module.tokens]
            return stored
        with self._peft_alone():
            model = self._wrapped({module.name: self._layer(module, stored)})
            set_peft_model_state_dict(model, _full(module, tuned))
            layer = model.merge_and_unload(safe_merge=False).get_submodule(module.name)
        weight = layer.weight.t() if self._is_turned(module) else layer.weight
        return {name: (weight if name == module.weight else layer.bias).detach() for name in module.tensors}

    def _expected(self, layers: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters that PEFT has for layers without data."""
        from peft import get_peft_model_state_dict

        if not layers:
            return {}
        with self._peft_alone():
            model = self._wrapped(layers, low_cpu_mem_usage=True)
            state = get_peft_model_state_dict(model, save_embedding_layers=False)
        return {key: tuple(tensor.shape) for key, tensor in state.items()}

    def _wrapped(self, layers: Mapping[str, nn.Module], *, low_cpu_mem_usage: bool = False) -> Any:
        """A PEFT model of nothing but these layers."""
        from peft import get_peft_model

        config = deepcopy(self._config)
        config.target_modules = set(layers)
        return get_peft_model(_tree(layers), config, low_cpu_mem_usage=low_cpu_mem_usage)

    @cached_property
    def _config(self) -> Any:
        """PEFT's reading of the settings, but for which modules they are meant."""
        from peft import PeftConfig

        config = PeftConfig.from_pretrained(str(self._weights.folder))
        known = config.to_dict().keys()
        new = sorted(key for key, value in self._weights.config.items() if value and key not in known | HISTORY)
        if new:
            raise CheckpointError(f"{self._settings_file}: the installed peft does not know {listed(new)}; update it")
        cleared = dict.fromkeys(_WHICH) | {"bias": "none", "init_lora_weights": True, "ensure_weight_tying": False}
        cleared["fan_in_fan_out"] = False
        for key in cleared.keys() & known:
            setattr(config, key, cleared[key])
        return config

    def _layer(self, module: Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        """The layer that `module` is, with the tensors themselves; one that holds (in, out) as a linear layer."""
        weight, has_bias = tensors[module.weight], module.bias is not None
        if weight.ndim != 2:
            raise CheckpointError(
                f"{self._file}: {module.weight} of {self._base.folder} has {weight.ndim} dimension(s); "
                "an adapter can only be merged into linear layers and embeddings"
            )
        if self._is_turned(module):
            weight = weight.t()
        with torch.device("meta"):
            layer: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], has_bias)
            if any(parameter.startswith("lora_embedding_") for parameter in module.keys):
                layer = nn.Embedding(*weight.shape)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        if module.bias is not None:
            layer.bias = nn.Parameter(tensors[module.bias], requires_grad=False)
        return layer

    def _is_turned(self, module: Module) -> bool:
        """Whether the module holds its weight as (in, out)."""
        return self._is_conv1d and kind_of(module.weight) not in ("embeddings", "head")

    def _tokens(self, module: Module, rows: int) -> list[int]:
        """Which of an embedding's rows are tuned."""
        settings = self._weights.config
        tokens = settings.get("trainable_token_indices") or settings.get("token_indices") or []
        if isinstance(tokens, dict):
            tokens = next((ids for name, ids in tokens.items() if f".{module.name}".endswith(f".{name}")), [])
        if not all(isinstance(token, int) and 0 <= token < rows for token in tokens):
            raise CheckpointError(
                f"{self._settings_file}: a trained token is none of the {rows:,} rows of {module.weight} of "
                f"{self._base.folder}"
            )
        return list(tokens)

    def _compare(self, given: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
        for key in sorted(given.keys() | expected.keys()):
            where = f"{self._file} does not fit {self._base.folder} and {SETTINGS}: {key}"
            if key not in expected:
                raise CheckpointError(f"{where} is of a kind that {self._kind} does not have there")
            if key not in given:
                raise CheckpointError(f"{where} is missing")
            if given[key] != expected[key]:
                raise CheckpointError(f"{where} has the shape {list(given[key])}, not {list(expected[key])}")

    @contextmanager
    def _peft_alone(self) -> Iterator[None]:
        """One thread at a time is in PEFT, and leaves torch's random state and the filter of warnings as they were.

        What PEFT cannot do is the adapter's fault; what it warns of is how a layer looks that stands alone.
        """
        try:
            with _PEFT, torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"{self._file}: peft cannot merge this {self._kind} adapter into {self._base.folder}: {error}"
            ) from error


def _full(module: Module, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a module's parameters by PEFT's keys for them."""
    return {f"{PREFIX}{module.name}.{parameter}": value for parameter, value in parameters.items()}


def _tree(layers: Mapping[str, nn.Module]) -> nn.Module:
    """Modules in modules, so that each layer is found under its dotted name."""
    root = nn.Module()
    for name, layer in layers.items():
        *path, last = name.split(".")
        parent = root
        for part in path:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, layer)
    return root
