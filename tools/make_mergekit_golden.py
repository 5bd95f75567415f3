"""Merges a tiny pair with mergekit and keeps what it gives in tests/golden/, for tests/test_mergekit_parity.py.

Needs mergekit 0.1.5 beside torch and transformers: python tools/make_mergekit_golden.py
"""

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WIDTH, INNER, VOCAB = 4, 9, 11
LAYER = "model.layers.0."
SHAPES = {
    "lm_head.weight": (VOCAB, WIDTH),
    "model.embed_tokens.weight": (VOCAB, WIDTH),
    f"{LAYER}input_layernorm.weight": (WIDTH,),
    f"{LAYER}mlp.down_proj.weight": (WIDTH, INNER),
    f"{LAYER}mlp.gate_proj.weight": (INNER, WIDTH),
    f"{LAYER}mlp.up_proj.weight": (INNER, WIDTH),
    f"{LAYER}post_attention_layernorm.weight": (WIDTH,),
    f"{LAYER}self_attn.k_proj.weight": (WIDTH, WIDTH),
    f"{LAYER}self_attn.o_proj.weight": (WIDTH, WIDTH),
    f"{LAYER}self_attn.q_proj.weight": (WIDTH, WIDTH),
    f"{LAYER}self_attn.v_proj.weight": (WIDTH, WIDTH),
    "model.norm.weight": (WIDTH,),
}
FAR, CLOSE = f"{LAYER}self_attn.q_proj.weight", f"{LAYER}self_attn.k_proj.weight"
ZEROS = ((-0.0, -0.0), (0.0, -0.0), (-0.0, 0.0), (0.0, 0.5), (-0.5, -0.0), (-1e-45, -0.0), (0.5, -0.5))  # base, aligned
OPTIONS: dict[str, dict[str, Any]] = {
    "linear": {},
    "slerp": {},
    "task_arithmetic": {"normalize": False},
    "ties": {"normalize": False, "density": 0.3},
    "breadcrumbs": {"normalize": False, "rescale": False, "density": 0.5, "gamma": 0.1},
}


@dataclass(frozen=True)
class Run:
    """One merge by mergekit: what of, how far, computed in float32 and stored as `out`."""

    method: str
    lam: float
    parents: str
    out: str

    @property
    def key(self) -> str:
        return f"{self.method} {self.lam} {self.parents} {self.out}"

    @classmethod
    def read(cls, key: str) -> "Run":
        method, lam, parents, out = key.split()
        return cls(method, float(lam), parents, out)


def runs() -> Iterator[Run]:
    """What is kept. Ties and breadcrumbs: float32 alone, as mergekit keeps any of several equal |delta|."""
    for out in DTYPES:
        for parents in DTYPES:
            for method in ("linear", "task_arithmetic"):
                yield from (Run(method, lam, parents, out) for lam in (0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.9, 0.95))
        for method in ("ties", "breadcrumbs"):
            yield from (Run(method, lam, "float32", out) for lam in (0.3, 0.7, 1.5))
    for parents in DTYPES:
        yield from (Run("slerp", lam, parents, "float32") for lam in (0.1, 0.3, 0.5, 0.9))


def make_parents(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Base and aligned, each as one vector of all tensors in order: one tensor far apart, one close, one with zeros."""
    rng = np.random.default_rng(20240607)
    both: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for name, shape in SHAPES.items():
        base = rng.standard_normal(shape) * 0.5 + name.endswith("norm.weight")
        aligned = base + rng.standard_normal(shape) * (1.0 if name == FAR else 0.002 if name == CLOSE else 0.1)
        if name.endswith("down_proj.weight"):
            base.flat[: len(ZEROS)], aligned.flat[: len(ZEROS)] = zip(*ZEROS, strict=True)
        both[0].append(torch.from_numpy(base).to(dtype).flatten())
        both[1].append(torch.from_numpy(aligned).to(dtype).flatten())
    return torch.cat(both[0]), torch.cat(both[1])


def tensors_of(vector: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors in a vector of all of them."""
    found, first = {}, 0
    for name, shape in SHAPES.items():
        size = math.prod(shape)
        found[name] = vector[first : first + size].reshape(shape).clone()
        first += size
    return found


def configuration(run: Run, base: Path, aligned: Path) -> dict[str, Any]:
    """mergekit's configuration of a run."""
    shared: dict[str, Any] = {"dtype": "float32", "out_dtype": run.out, "merge_method": run.method}
    if run.method == "linear":
        weighted = ((base, 1.0 - run.lam), (aligned, run.lam))
        return shared | {"models": [{"model": str(m), "parameters": {"weight": weight}} for m, weight in weighted]}
    both = {"base_model": str(base), "models": [{"model": str(base)}, {"model": str(aligned)}]}
    if run.method == "slerp":
        return shared | both | {"parameters": {"t": run.lam}}
    one = {"model": str(aligned), "parameters": {"weight": run.lam}}
    return shared | {"base_model": str(base), "models": [one], "parameters": OPTIONS[run.method]}


def merge(run: Run, root: Path) -> torch.Tensor:
    """What mergekit gives, as one vector. root: holds the folders that `write_parents` wrote."""
    from mergekit.config import MergeConfiguration  # type: ignore[import-not-found]
    from mergekit.merge import run_merge  # type: ignore[import-not-found]
    from mergekit.options import MergeOptions  # type: ignore[import-not-found]

    config = MergeConfiguration.model_validate(
        configuration(run, root / f"base-{run.parents}", root / f"aligned-{run.parents}")
    )
    out = root / run.key.replace(" ", "-")
    run_merge(config, str(out), MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False, device="cpu"))
    merged = load_file(out / "model.safetensors") if (out / "model.safetensors").exists() else _shards(out)
    assert all(tensor.dtype == DTYPES[run.out] for tensor in merged.values())
    return torch.cat([merged[name].flatten() for name in SHAPES])


def write_parents(root: Path) -> None:
    """The pair as model folders, once in each dtype."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        architectures=["LlamaForCausalLM"],
    )
    for dtype_name, dtype in DTYPES.items():
        for side, vector in zip(("base", "aligned"), make_parents(dtype), strict=True):
            folder = root / f"{side}-{dtype_name}"
            config.save_pretrained(folder)
            save_file(tensors_of(vector), folder / "model.safetensors", metadata={"format": "pt"})


def make_all() -> dict[str, torch.Tensor]:
    """The parents and every run, each as one vector."""
    kept: dict[str, torch.Tensor] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_parents(Path(folder))
        for name, dtype in DTYPES.items():
            kept[f"base {name}"], kept[f"aligned {name}"] = make_parents(dtype)
        for run in runs():
            kept[run.key] = merge(run, Path(folder))
    return kept


def _shards(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def main() -> None:
    save_file(make_all(), GOLDEN / "mergekit.safetensors")
    examples = {run.method: configuration(run, Path("BASE"), Path("ALIGNED")) for run in runs()}
    note = {
        "what": "what mergekit gives for a tiny pair, made by tools/make_mergekit_golden.py",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in ("mergekit", "torch", "transformers", "safetensors", "numpy")},
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "keys": "METHOD LAMBDA DTYPE-OF-PARENTS OUT-DTYPE; the parents are SIDE DTYPE",
        "values": "all tensors of a model, flat, one after another in the order of `shapes`",
        "shapes": SHAPES,
        "configurations, the last of each method": examples,
    }
    (GOLDEN / "mergekit.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
