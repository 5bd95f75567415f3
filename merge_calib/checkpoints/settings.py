"""What of two configs must agree for their weights to be merged."""

from collections.abc import Mapping, Sequence
from typing import Any

from merge_calib.errors import CheckpointError

# What two checkpoints of one architecture may say differently without computing differently.
_HARMLESS = {
    *("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "use_cache", "initializer_range"),
    *("max_position_embeddings", "max_length", "max_sequence_length", "model_max_length", "pretraining_tp"),
    *("task_specific_params", "finetuning_task", "id2label", "label2id", "model_name", "prefix", "tokenizer_class"),
    *("tokenizer_padding_side", "output_attentions", "output_hidden_states", "return_dict"),
    *("unsloth_fixed", "unsloth_version"),
}
_HARMLESS_ENDINGS = ("_token_id", "dropout", "_pdrop", "_dropout_prob", "_loss_coef")
_FROM_TENSORS = ("vocab_size", "tie_word_embeddings")  # told from the tensors, and not from what a config says
_STRETCHING = ("dynamic", "longrope")  # rotary embeddings that depend on the longest text a model takes


def settings(config: Mapping[str, Any], prefix: str = "", *, keeps_null: bool = False) -> dict[str, Any]:
    """The settings that change what weights compute, flat (`text_config.hidden_size`), with rope_theta in one place.

    keeps_null: whether settings that are null are among them
    """
    ignored = set(_HARMLESS)
    if config.get("use_sliding_window") is False:
        ignored |= {"sliding_window", "max_window_layers"}
    if _stretches(config):
        ignored.discard("max_position_embeddings")
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key in ignored or key.startswith("_") or key.endswith(_HARMLESS_ENDINGS):
            continue
        if isinstance(value, dict):
            inner = "" if key == "rope_parameters" else f"{prefix}{key}."
            if keeps_null:
                flat[prefix + key] = "a table"  # so that one without it differs
            flat |= settings(value, inner, keeps_null=keeps_null)
        elif value is not None or keeps_null:
            flat[prefix + key] = value
    return flat


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the text model: of a multimodal one the part for text, else all of it."""
    inner: Mapping[str, Any] = config.get("text_config", config)
    return inner


def differences(base: Mapping[str, Any], aligned: Mapping[str, Any]) -> list[str]:
    """Settings that both configs give, give differently, and that change what the weights compute.

    A setting that only one of the two gives may be the other's default: see `omit`.
    """
    ours, theirs = _compared(base, aligned)
    if ours.get("model_type") != theirs.get("model_type"):
        return []
    both = sorted(ours.keys() & theirs.keys())
    return [
        f"config {key}: base {ours[key]}, aligned {theirs[key]}"
        for key in both
        if ours[key] != theirs[key] and None not in (ours[key], theirs[key])
    ]


def omit(configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of the configs leaves out, or null, what another says: then only the defaults tell if they agree."""
    for other in configs[1:]:
        ours, theirs = _compared(configs[0], other)
        if ours.keys() != theirs.keys() or any((ours[key] is None) != (theirs[key] is None) for key in ours):
            return True
    return False


def require_same_settings(base: Mapping[str, Any], aligned: Mapping[str, Any]) -> None:
    """Raise CheckpointError naming each setting that differs between two configs with all their defaults filled in.

    What one of the two alone has is nothing that its architecture knows of.
    """
    ours, theirs = _compared(base, aligned)
    different = [key for key in sorted(ours.keys() & theirs.keys()) if ours[key] != theirs[key]]
    if different:
        listed = "\n".join(f"  - config {key}: base {ours[key]}, aligned {theirs[key]}" for key in different)
        raise CheckpointError(f"the two models compute differently and cannot be merged:\n{listed}")


def _compared(base: Mapping[str, Any], aligned: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of both that must agree; of a multimodal model and a text model, those of the text model."""
    if ("text_config" in base) != ("text_config" in aligned):
        base, aligned = text_config(base), text_config(aligned)
    ours, theirs = (
        {k: v for k, v in settings(config, keeps_null=True).items() if k.split(".")[-1] not in _FROM_TENSORS}
        for config in (base, aligned)
    )
    return ours, theirs


def _stretches(config: Mapping[str, Any]) -> bool:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) in _STRETCHING
