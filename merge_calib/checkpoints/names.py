"""What a tensor is, told from its name: its name without the wrappers of multimodal models, its layer, its kind."""

import re

_SENSES = r"(?:vision|visual|audio|image|connector|multi_modal|mm_projector|embed_vision|embed_audio)"
# How multimodal checkpoints wrap their text model; the same tensors of a text-only checkpoint have the short names.
_WRAPPERS = (
    (re.compile(r"^language_model\.model\."), "model."),
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^model\.language_model\."), "model."),
    (re.compile(rf"^model\.({_SENSES})"), r"\1"),
    (re.compile(r"^(wte|wpe|ln_f|h)\."), r"transformer.\1."),  # GPT-2 as its body alone was saved
)
_OTHER_SENSES = re.compile(rf"^({_SENSES})")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_layer|project_out)(\.|$)|^output\.")
_EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|embed_in|wte|wpe|word_embeddings\w*|embed_positions|embeddings?)(\.|$)")
_ATTENTION = re.compile(r"^(self_|linear_)?(attn|attention|att_proj)(_out)?$")
_NORM = re.compile(r"norm|^ln(_|\d)")
_DERIVED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|(attention|attn)\.(bias|masked_bias))$")
_LAYERS = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|block)\.(\d+)\.")

SENSES = "senses"  # the kind of what sees or hears in a multimodal model
KINDS = ("embeddings", "attention", "mlp", "norms", "final_norm", "head", SENSES)


def canonical(name: str) -> str:
    """`name` as a text-only checkpoint of the same model has it."""
    for wrapper, short in _WRAPPERS:
        if wrapper.match(name):
            return wrapper.sub(short, name)
    return name


def is_derived(name: str, shape: tuple[int, ...]) -> bool:
    """Whether old versions stored here what a model computes from its config: frequencies, causal masks."""
    found = _DERIVED.search(canonical(name))
    return found is not None and (len(shape) != 1 or not name.endswith("n.bias"))


def layer_of(name: str) -> int | None:
    """The layer that the tensor is a part of, from 0; None for embeddings, final norm, head and other senses."""
    found = _LAYERS.search(canonical(name))
    return int(found.group(1)) if found and kind_of(name) != SENSES else None


def kind_of(name: str) -> str:
    """One of KINDS: `mlp` is all of a layer that is neither attention nor norm (experts and routers too), SENSES is
    what sees or hears in a multimodal model."""
    short = canonical(name)
    if _OTHER_SENSES.match(short):
        return SENSES
    if _HEAD.search(short):
        return "head"
    parts = short.split(".")
    is_norm = any(_NORM.search(part) for part in parts[-2:])  # the module that holds it, or a bare parameter
    if not _LAYERS.search(short):
        if is_norm and not _EMBEDDINGS.search(short):
            return "final_norm"
        return "embeddings"
    if is_norm:
        return "norms"
    return "attention" if any(_ATTENTION.match(part) for part in parts) else "mlp"
