"""The order in which transformers holds the tensors of a model, which is that in which it fills weight files.

It is that in which its code makes the modules; of models whose names it changes when it loads them, it is that of the
names. It is told here from names, for the families that most models are of; of others, the layers are in order between
embeddings and head. Nothing depends on it but which of several files a tensor is in.
"""

from collections.abc import Iterable

from merge_calib.checkpoints.names import canonical, kind_of, layer_of

_PARTS = {"senses": 0, "embeddings": 1, "final_norm": 3, "head": 4}  # layers are 2
# The modules of a layer, by what the family calls its attention.
_MODULES = {
    "self_attn": (
        *("self_attn", "mlp", "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm"),
        "post_feedforward_layernorm",
    ),
    "self_attention": ("input_layernorm", "self_attention", "post_attention_layernorm", "mlp"),
    "attn": ("ln_1", "attn", "ln_2", "mlp"),
}
# What lies in such modules, of all families.
_INNER = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "query_key_value", "c_attn", "dense", "q_norm", "k_norm"),
    *("gate_proj", "up_proj", "gate_up_proj", "down_proj", "dense_h_to_4h", "dense_4h_to_h", "fc1", "fc2", "c_fc"),
    *("c_proj", "wte", "wpe", "weight", "bias"),
)
_RENAMED = {"gpt_neox", "experts"}  # a part of the names of models that transformers renames, and what they become
_NEW_NAMES = (("embed_out.", "lm_head."), (".block_sparse_moe.", ".mlp."))

Key = list[tuple[int, str, int]]


def in_model_order(names: Iterable[str]) -> list[str]:
    """Sort the names of a model's tensors as transformers holds them."""
    every = list(names)
    words = {word for name in every for word in name.split(".")}
    if words & _RENAMED:
        return sorted(every, key=lambda name: _key(_renamed(name), {}))
    modules = next((order for attention, order in _MODULES.items() if attention in words), ())
    ranks = {word: rank for rank, word in enumerate((*modules, *_INNER))}
    return sorted(every, key=lambda name: (*_place(name), _key(canonical(name), ranks)))


def _place(name: str) -> tuple[int, int]:
    layer = layer_of(name)
    return (2, layer) if layer is not None else (_PARTS.get(kind_of(name), 2), -1)


def _renamed(name: str) -> str:
    for stored, held in _NEW_NAMES:
        name = name.replace(stored, held)
    return name


def _key(name: str, ranks: dict[str, int]) -> Key:
    """For each word of a name: known ones by rank, then numbers by size, then others by their letters."""
    last = len(ranks)
    return [
        (last, "", int(word)) if word.isdigit() else (ranks[word], "", 0) if word in ranks else (last + 1, word, 0)
        for word in name.split(".")
    ]
