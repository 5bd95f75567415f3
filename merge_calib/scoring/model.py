"""A causal language model whose weights can be replaced in place and whose logits are read where they are scored."""

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
        self._model = _load(checkpoint, dtype, trust_remote_code).to(device).eval()
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
            parameter.data = parameter.data.clone()  # never a view of the file that it was read from
        self.targets = _targets(self._model, checkpoint)
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


def _targets(model: Any, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Where each checkpoint tensor lies in the model: by its name, or else by its values (a renamed tensor)."""
    places: dict[str, torch.Tensor] = dict(model.state_dict(keep_vars=True))
    prefix = f"{model.base_model_prefix}."
    found: dict[str, str] = {}
    for name in sorted(checkpoint.tensors):
        value = checkpoint.read(name)
        for place in (name, prefix + name, name.removeprefix(prefix)):
            if place in places and _holds(places[place], value):
                found[name] = place
                break
    lost = [name for name in sorted(checkpoint.tensors) if name not in found]
    for name in list(lost):
        value = checkpoint.read(name)
        free = [place for place in places if place not in found.values() and _holds(places[place], value)]
        if len(free) == 1:
            found[name] = free[0]
            lost.remove(name)
    if lost:
        raise CheckpointError(
            f"{checkpoint.folder}: {len(lost)} tensor(s) are not held by the loaded model as they are stored, so they "
            f"cannot be merged in place: {', '.join(lost[:8])}"
        )
    return {name: places[place] for name, place in found.items()}


def _holds(place: torch.Tensor, value: torch.Tensor) -> bool:
    return place.shape == value.shape and torch.equal(place.cpu(), value.to(place.dtype))


def _first_line(error: Exception) -> str:
    said = str(error).strip() or type(error).__name__
    if "trust_remote_code" in said:
        return "it needs code that comes with the model, which is run only with --trust-remote-code"
    return said.splitlines()[0]
