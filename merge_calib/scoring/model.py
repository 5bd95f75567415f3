"""A causal language model whose weights can be replaced in place and whose logits are read where they are scored."""

import itertools
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.errors import CheckpointError

_NO_LIMIT = 1 << 30  # tokenizers write a huge number where there is no limit


class ScoredHead(nn.Module):
    """The output embedding, applied in float32 to the scored positions only.

    It stands in the model's own place, so that what the architecture does to logits afterwards (soft caps, scales)
    still happens. Takes hidden states (B, T, H), gives logits (1, S, V) in float32 for the S chosen positions.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.positions = torch.zeros(0, dtype=torch.long)

    @property
    def weight(self) -> torch.Tensor:
        """The output embedding (V, H)."""
        weight = self.head.weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        chosen = hidden.reshape(-1, hidden.shape[-1])[self.positions].float()
        bias = getattr(self.head, "bias", None)
        logits = nn.functional.linear(chosen, self.weight.float(), None if bias is None else bias.float())
        return logits.unsqueeze(0)


class LanguageModel:
    """The aligned model, loaded once; `targets` are the places that a Merger overwrites for each point.

    Raises CheckpointError where the architecture is no causal language model, needs remote code that was not asked
    for, or holds weights under other names or in another layout than its checkpoint.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, *, trust_remote_code: bool = False
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._model = _load(checkpoint, dtype, trust_remote_code)
        places = _places(self._model, checkpoint)
        self._model = self._model.to(device).eval()
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
            parameter.data = parameter.data.clone()  # never a view of the file that it was read from
        state: dict[str, torch.Tensor] = self._model.state_dict(keep_vars=True)
        self.targets = {name: state[place] for name, place in places.items()}
        self._head = ScoredHead(self._model.get_output_embeddings())
        self._model.set_output_embeddings(self._head)

    @property
    def vocabulary(self) -> int:
        """Number of logits V at a position."""
        return int(self._head.weight.shape[0])

    def log_probabilities(
        self, tokens: torch.Tensor, positions: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Full-vocabulary log-probabilities of the candidates.

        tokens (B, T): right-padded ids; padding comes after everything that is scored, so causal models never see it
        positions (S,): indices into the flattened (B * T) positions
        candidates (S, K): ids; gives (S, K) in float32
        """
        self._head.positions = positions
        with torch.inference_mode():
            logits = self._model(input_ids=tokens, use_cache=False).logits
            assert logits.shape == (1, len(positions), self.vocabulary), logits.shape
            logits = logits[0].float()
            read: torch.Tensor = logits.gather(1, candidates) - logits.logsumexp(1, keepdim=True)
            return read


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
    config = _load_config(folder, trust_remote_code).get_text_config()
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if isinstance(getattr(config, key, None), int):
            return int(getattr(config, key))
    return int(min(tokenizer.model_max_length, _NO_LIMIT))


def _load_config(folder: Path, trust_remote_code: bool) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{folder} has a config that cannot be loaded: {_first_line(error)}") from error


def _load(checkpoint: Checkpoint, dtype: torch.dtype, trust_remote_code: bool) -> Any:
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


def _places(model: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """The model's own name of each checkpoint tensor, found by its name, or else by its values (a renamed tensor)."""
    state: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    prefix = f"{model.base_model_prefix}."
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
    return torch.equal(few[0], few[1].to(place.dtype)) and torch.equal(place, value.to(place.dtype))


def _first_line(error: Exception) -> str:
    said = str(error).strip() or type(error).__name__
    if "trust_remote_code" in said:
        return "it needs code that comes with the model, which is run only with --trust-remote-code"
    return said.splitlines()[0]
