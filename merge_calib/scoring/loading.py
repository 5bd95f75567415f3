"""Models, configs and tokenizers as transformers loads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.parent import Parent
from merge_calib.checkpoints.settings import require_same_settings
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


def require_same_defaults(base: Parent, others: Sequence[Parent], *, trust_remote_code: bool = False) -> None:
    """Raise CheckpointError where the others' configs differ from the base's once what they omit is filled in."""
    first = resolved_config(base.shape.folder, trust_remote_code=trust_remote_code)
    for other in others:
        require_same_settings(first, resolved_config(other.shape.folder, trust_remote_code=trust_remote_code))


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


def load_model(checkpoint: Checkpoint, dtype: torch.dtype, trust_remote_code: bool, unties: bool = False) -> Any:
    """The model in `checkpoint`; with `unties` it has a head of its own, of any values, where its config ties that."""
    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    loader: Any = AutoModelForCausalLM
    config = _load_config(checkpoint.folder, trust_remote_code)
    if unties:
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
    try:
        model, info = loader.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
        )
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint.folder} cannot be loaded as a causal model: {_first_line(error)}"
        ) from error
    missing = sorted(info["missing_keys"])
    if unties:
        head = model.get_output_embeddings().weight
        missing = [name for name in missing if model.get_parameter(name) is not head]
    if missing:
        raise CheckpointError(
            f"{checkpoint.folder} lacks {len(missing)} tensor(s) of its model: {', '.join(missing[:8])}"
        )
    return model


def head_to_add(shapes: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint) -> str | None:
    """The tensor of a model with these `shapes` that `checkpoint` has not, since it ties its head; None if it has all.

    Raises CheckpointError where a tensor has another shape there, as after an adapter that added tokens.
    """
    for name, shape in shapes.items():
        if name in checkpoint.tensors and checkpoint.tensors[name].shape != shape:
            raise CheckpointError(
                f"tensor {name} has shape {list(shape)} here but {list(checkpoint.tensors[name].shape)} in "
                f"{checkpoint.folder}, which the model is built from: merge the adapter into its model first"
            )
    added = [name for name in shapes if name not in checkpoint.tensors]
    assert len(added) <= 1, added
    return added[0] if added else None


def _first_line(error: Exception) -> str:
    said = str(error).strip() or type(error).__name__
    if "trust_remote_code" in said:
        return "it needs code that comes with the model, which is run only with --trust-remote-code"
    return said.splitlines()[0]
