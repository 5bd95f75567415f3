"""Models, configs and tokenizers as transformers loads them, and where a loaded model keeps what a checkpoint holds."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.errors import CheckpointError

_NO_LIMIT = 1 << 30  # tokenizers write a huge number where there is no limit


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer in `folder`; raises CheckpointError where there is none."""
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{folder} has no tokenizer that can be loaded: {_first_line(error)}") from error


def resolved_config(folder: Path, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """The config in `folder` with all defaults filled in."""
    config: dict[str, Any] = _load_config(folder, trust_remote_code).to_dict()
    return config


def longest_context(folder: Path, tokenizer: Any, *, trust_remote_code: bool = False) -> int:
    """The most tokens the model in `folder` takes: its config's limit, or else the tokenizer's."""
    limit = config_limit(_load_config(folder, trust_remote_code))
    return limit if limit is not None else int(min(tokenizer.model_max_length, _NO_LIMIT))


def config_limit(config: Any) -> int | None:
    """The most tokens that a config allows, None where it does not say.

    Rotary embeddings of the kinds `longrope` and `dynamic` turn to other frequencies once any row of a batch is longer
    than the model's original length, so that scores would depend on what is read together; there the original length
    is the limit.
    """
    text = config.get_text_config()
    original = _stable_length(text)
    if original is not None:
        return original
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if isinstance(getattr(text, key, None), int) and getattr(text, key) > 0:
            return int(getattr(text, key))
    return None


def _stable_length(text: Any) -> int | None:
    """The length up to which rotary embeddings stay as they are, None where they never change."""
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    if not any(kind.get("rope_type", kind.get("type")) in ("longrope", "dynamic") for kind in kinds):
        return None
    known = [kind.get("original_max_position_embeddings") for kind in kinds]
    known += [getattr(text, "original_max_position_embeddings", None), getattr(text, "max_position_embeddings", None)]
    return min((int(length) for length in known if length), default=None)


def _load_config(folder: Path, trust_remote_code: bool) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{folder} has a config that cannot be loaded: {_first_line(error)}") from error


def load_model(checkpoint: Checkpoint, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    loader: Any = AutoModelForCausalLM
    try:
        model, info = loader.from_pretrained(
            checkpoint.folder,
            config=_load_config(checkpoint.folder, trust_remote_code),
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
        )
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint.folder} cannot be loaded as a causal model: {_first_line(error)}"
        ) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise CheckpointError(
            f"{checkpoint.folder} lacks {len(missing)} tensor(s) of its model: {', '.join(missing[:8])}"
        )
    return model


def find_places(state: Mapping[str, torch.Tensor], prefix: str, checkpoint: Checkpoint) -> dict[str, str]:
    """The model's own name of each checkpoint tensor, found by its name, or else by its values (a renamed tensor).

    `state` is what the model holds by name, `prefix` what it puts before the names of its body. Raises CheckpointError
    for tensors that it fuses or splits.
    """
    found: dict[str, str] = {}
    lost: dict[str, torch.Tensor] = {}
    for name, value in checkpoint.read_all():
        spelled = (name, prefix + name, name.removeprefix(prefix))
        place = next((p for p in spelled if p in state and _holds(state[p], value)), None)
        if place is None:
            lost[name] = value
        else:
            found[name] = place
    taken = {id(state[place]) for place in found.values()}
    for name, value in lost.items():
        free = {id(tensor): p for p, tensor in state.items() if id(tensor) not in taken and _holds(tensor, value)}
        place = _most_alike(name, list(free.values()))
        if place is not None:
            found[name] = place
            taken.add(id(state[place]))
    unplaced = [name for name in lost if name not in found]
    if unplaced:
        raise CheckpointError(
            f"{checkpoint.folder}: the loaded model does not hold {len(unplaced)} tensor(s) as they are stored (it "
            "fuses or splits them, as for mixtures of experts), so they cannot be merged in place yet: "
            f"{', '.join(unplaced[:8])}"
        )
    return found


def _most_alike(name: str, places: list[str]) -> str | None:
    """The place that shares most of the end of its dotted name with `name`; None where there is no single one."""
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


def _first_line(error: Exception) -> str:
    said = str(error).strip() or type(error).__name__
    if "trust_remote_code" in said:
        return "it needs code that comes with the model, which is run only with --trust-remote-code"
    return said.splitlines()[0]
