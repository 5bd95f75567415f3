"""Random models of many architectures, small enough for a test and large enough in weight to show differences."""

import torch
import transformers as hf

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 263,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
_GEMMA3_LAYERS = ["sliding_attention", "full_attention"]
_GEMMA2 = {"head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0}

_MODELS = {
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, GROUPED),
    "mistral": (hf.MistralForCausalLM, hf.MistralConfig, GROUPED | {"sliding_window": 8}),
    "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config, GROUPED),
    "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config, GROUPED | {"head_dim": 8}),
    "gemma2": (hf.Gemma2ForCausalLM, hf.Gemma2Config, GROUPED | _GEMMA2),
    "gemma3": (
        hf.Gemma3ForCausalLM,
        hf.Gemma3TextConfig,
        GROUPED | {"head_dim": 8, "sliding_window": 8, "layer_types": _GEMMA3_LAYERS},
    ),
    "gpt_neox": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, SMALL | {"max_position_embeddings": 512}),
    "olmo2": (hf.Olmo2ForCausalLM, hf.Olmo2Config, GROUPED),
    "opt": (
        hf.OPTForCausalLM,
        hf.OPTConfig,
        SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 512},
    ),
    "granite": (hf.GraniteForCausalLM, hf.GraniteConfig, GROUPED | {"logits_scaling": 3.0}),
    "phi3": (hf.Phi3ForCausalLM, hf.Phi3Config, GROUPED),
    "mixtral": (hf.MixtralForCausalLM, hf.MixtralConfig, GROUPED | {"num_local_experts": 4}),
    "xlnet": (
        hf.XLNetLMHeadModel,
        hf.XLNetConfig,
        {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": 263},
    ),
    "bloom": (hf.BloomForCausalLM, hf.BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 263}),
    "mamba": (hf.MambaForCausalLM, hf.MambaConfig, {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 263}),
}
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
_VISION |= {"image_size": 28, "patch_size": 14}
ARCHITECTURES = tuple(name for name in _MODELS if name not in ("phi3", "xlnet"))


def tiny_model(name: str, **settings) -> torch.nn.Module:
    """A model of that architecture with two layers and random weights, the same at each call."""
    model, config, values = _MODELS[name]
    return _shaken(lambda: model(config(**(values | settings))))


def tiny_gemma3_multimodal(**settings) -> torch.nn.Module:
    """A Gemma 3 that sees, whose text model is that of `tiny_model("gemma3")`."""
    text = hf.Gemma3TextConfig(**(_MODELS["gemma3"][2] | settings))
    config = hf.Gemma3Config(text_config=text.to_dict(), vision_config=_VISION, mm_tokens_per_image=4)
    return _shaken(lambda: hf.Gemma3ForConditionalGeneration(config))


def tiny_t5() -> torch.nn.Module:
    """An encoder-decoder."""
    config = hf.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=263)
    return _shaken(lambda: hf.T5ForConditionalGeneration(config))


def tuned(model: torch.nn.Module, seed: int, scale: float = 0.15) -> torch.nn.Module:
    """The model, moved a random step away from where it was: its own aligned version."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return model


def _shaken(make) -> torch.nn.Module:
    torch.manual_seed(0)
    made = make().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return made
