"""A causal language model whose weights can be replaced in place and whose logits are read where they are scored."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.errors import CheckpointError
from merge_calib.scores import Floats, Integers
from merge_calib.scoring.attention import NAME, PackedAttention, UnfitAttentionError, has_varlen
from merge_calib.scoring.batches import (
    PLANNERS,
    Attention,
    Batch,
    Planner,
    Reading,
    padded_batches,
    reading_starts,
)
from merge_calib.scoring.head import Finish, ScoredHead, find_finish
from merge_calib.scoring.rows import Row
from merge_calib.scoring.trial import LONGEST, agree, leaked, trial_rows

_NO_LIMIT = 1 << 30  # tokenizers write a huge number where there is no limit


class LanguageModel:
    """A causal model, loaded once; `targets` are the places that a Merger overwrites for each point.

    `attention` says how it reads: `varlen` or `blocks` for packs of distinct tokens, `rows` for padded rows, where
    the architecture cannot be told which token sees which. Packs are used only where a trial with random tokens gave
    what padded rows give.
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
        try:
            self._model = self._model.to(device).eval()
            for parameter in self._model.parameters():
                parameter.requires_grad_(False)
                parameter.data = parameter.data.clone()  # never a view of the file that it was read from
        except torch.OutOfMemoryError as error:
            raise CheckpointError(f"{checkpoint.folder} in {dtype} is too large for the memory of {device}") from error
        state: dict[str, torch.Tensor] = self._model.state_dict(keep_vars=True)
        self.targets = {name: state[place] for name, place in places.items()}
        self._head = ScoredHead(self._model.get_output_embeddings())
        self._model.set_output_embeddings(self._head)
        self._finish = self._find_finish(checkpoint)
        self._own_attention = str(self._model.config._attn_implementation)
        self._packed: PackedAttention | None = None
        self.attention: Attention = "rows"
        self.attention = self._choose_attention()

    @property
    def vocabulary(self) -> int:
        """Number of logits V at a position."""
        return int(self._head.weight.shape[0])

    def read(self, batch: Batch) -> Reading:
        """The log-probabilities that `batch` asks for."""
        self._head.places = self._there(batch.places)
        with torch.inference_mode():
            self._pass(batch)
            parts = self._head.read(self._there(batch.slots), self._there(batch.ids), self._finish)
        logprobs, tops, top_ids = (part.cpu().numpy() for part in parts)
        return Reading(logprobs.astype(np.float64), tops.astype(np.float64), top_ids)

    @property
    def plan(self) -> Planner:
        """How batches are made that suit the attention of this model."""
        return PLANNERS[self.attention]

    def use_rows(self) -> None:
        """Read padded rows with the architecture's own attention from now on."""
        self._packed, self.attention = None, "rows"
        self._model.set_attn_implementation(self._own_attention)

    def _pass(self, batch: Batch) -> None:
        tokens = self._there(batch.tokens)
        if batch.pack is None:
            self._model(input_ids=tokens, use_cache=False)
            return
        assert self._packed is not None
        assert batch.depths is not None
        with self._packed.over(batch.pack):
            self._model(input_ids=tokens, position_ids=self._there(batch.depths), use_cache=False)

    def _there(self, values: Integers) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    def _find_finish(self, checkpoint: Checkpoint) -> Finish:
        def answer(logits: torch.Tensor) -> torch.Tensor:
            self._head.reply = logits.to(self.device)
            with torch.inference_mode():
                made: torch.Tensor = self._model(input_ids=self._there(np.zeros((1, 2), np.int64))).logits
            self._head.reply = None
            return made

        finish = find_finish(answer, getattr(self._model.config.get_text_config(), "final_logit_softcapping", None))
        if finish is None:
            raise CheckpointError(
                f"{checkpoint.folder}: {type(self._model).__name__} changes its logits after the head in a way that "
                "is neither a scale nor a soft cap; it cannot be scored yet"
            )
        return finish

    def _choose_attention(self) -> Attention:
        """The fastest way of reading that this architecture takes; see `trial`."""
        kinds: list[Attention] = ["blocks"]
        if has_varlen(self.device, self.dtype):
            kinds.insert(0, "varlen")
        if (config_limit(self._model.config) or LONGEST) < LONGEST:
            return "rows"
        rows, groups = trial_rows(self.vocabulary)
        count = int(reading_starts(rows)[-1])
        plain, leaky = (self._readings(padded_batches(r, groups, 1 << 20), count) for r in (rows, leaked(rows)))
        return next((kind for kind in kinds if self._packs_fit(kind, rows, groups, plain, leaky)), "rows")

    def _readings(self, batches: Iterable[Batch], count: int) -> Floats:
        found = np.full(count, np.nan)
        for batch in batches:
            found[batch.reads] = self.read(batch).logprobs
        return found

    def _windows_arrive(self, windows: Sequence[int | None]) -> bool:
        """Whether every layer that looks at a window of tokens tells its attention how large that is."""
        config = self._model.config.get_text_config()
        kinds = getattr(config, "layer_types", None)
        if kinds:
            sliding = kinds.count("sliding_attention")
            others = len(kinds) - sliding - kinds.count("full_attention")
        else:
            has_window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
            sliding, others = len(windows) if has_window else 0, 0
        chunked = getattr(config, "attention_chunk_size", None) is not None
        return bool(windows) and not others and not chunked and sum(w is not None for w in windows) >= sliding

    def _packs_fit(
        self, kind: Attention, rows: Sequence[Row], groups: Sequence[Sequence[int]], plain: Floats, leaky: Floats
    ) -> bool:
        """Try packs; where they do not give what padded rows give, leave the model as it was."""
        self._packed = PackedAttention(self.device, varlen=kind == "varlen")
        try:
            self._model.set_attn_implementation(NAME)
            found = self._readings(PLANNERS[kind](rows, groups, 1 << 20), len(plain))
            exact = self.dtype == torch.float32
            if self._windows_arrive(self._packed.windows) and agree(found, plain, leaky, is_exact=exact):
                return True
        except (UnfitAttentionError, RuntimeError, ValueError, TypeError, AssertionError):
            pass  # whatever it was: padded rows need nothing of the architecture
        self.use_rows()
        return False


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
    """The most tokens that a config allows, None where it does not say."""
    text = config.get_text_config()
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if isinstance(getattr(text, key, None), int):
            return int(getattr(text, key))
    return None


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
