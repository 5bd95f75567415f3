"""What a tensor is, told from its name: its name without the wrappers of multimodal models, its layer, its kind."""

import re

# How multimodal checkpoints wrap their text model; the same tensors of a text-only checkpoint have the short names.
_WRAPPERS = (
    (re.compile(r"^language_model\.model\."), "model."),
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^model\.language_model\."), "model."),
    (re.compile(r"^model\.(vision_tower|multi_modal_projector|visual|audio_tower|embed_vision)\."), r"\1."),
)
_OTHER_SENSES = re.compile(r"^(vision|visual|audio|image|multi_modal_projector|mm_projector|embed_vision|embed_audio)")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_layer)(\.|$)")
_EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|embed_in|wte|wpe|word_embeddings\w*|embed_positions|embeddings?)(\.|$)")
_ATTENTION = re.compile(r"^(self_attn|self_attention|attn|attention|linear_attn)$")
_NORM = re.compile(r"norm|^ln(_|\d)")
_LAYERS = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|block)\.(\d+)\.")

KINDS = ("embeddings", "attention", "mlp", "norms", "final_norm", "head", "senses")


def canonical(name: str) -> str:
    """`name` as a text-only checkpoint of the same model has it."""
    for wrapper, short in _WRAPPERS:
        if wrapper.match(name):
            return wrapper.sub(short, name)
    return name


def layer_of(name: str) -> int | None:
    """The layer that the tensor is a part of, from 0; None for embeddings, final norm, head and other senses."""
    found = _LAYERS.search(canonical(name))
    return int(found.group(1)) if found and kind_of(name) != "senses" else None


def kind_of(name: str) -> str:
    """One of KINDS: `mlp` is all of a layer that is neither attention nor norm (experts and routers too), `senses` is
    what sees or hears in a multimodal model."""
    short = canonical(name)
    if _OTHER_SENSES.match(short):
        return "senses"
    if _HEAD.search(short):
        return "head"
    parts = short.split(".")
    is_norm = any(_NORM.search(part) for part in parts)
    if not _LAYERS.search(short):
        if is_norm and not _EMBEDDINGS.search(short):
            return "final_norm"
        return "embeddings"
    if is_norm:
        return "norms"
    return "attention" if any(_ATTENTION.match(part) for part in parts) else "mlp"
