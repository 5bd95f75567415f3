"""A causal language model whose weights can be replaced in place and whose logits are read where they are scored."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import torch

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.errors import CheckpointError
from merge_calib.scores import Floats, Integers
from merge_calib.scoring.attention import NAME, PackedAttention, has_varlen
from merge_calib.scoring.batches import (
    NOTHING,
    PLANNERS,
    Attention,
    Batch,
    Planner,
    Reading,
    padded_batches,
    reading_starts,
)
from merge_calib.scoring.head import Finish, ScoredHead, find_finish
from merge_calib.scoring.loading import config_limit, load_model
from merge_calib.scoring.places import find_places
from merge_calib.scoring.rows import Row
from merge_calib.scoring.trial import LONGEST, TRIAL_TOKENS, agree, leaked, trial_rows


class LanguageModel:
    """A causal model, loaded once and asked as often as its weights are changed.

    `attention` says how it reads: `varlen` or `blocks` for packs of distinct tokens, `rows` for padded rows, where
    the architecture cannot be told which token sees which. Packs are used only where a trial with random tokens gave
    what padded rows give.
    `new_head` is what a head is called that the checkpoint ties to its embedding and that shall have its own place.
    Raises CheckpointError where the architecture is no causal language model, or needs remote code that was not asked
    for, or does not fit into memory.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        *,
        trust_remote_code: bool = False,
        new_head: str | None = None,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._checkpoint = checkpoint
        self._model = load_model(checkpoint, dtype, trust_remote_code, unties=new_head is not None)
        self._new_head = new_head
        try:
            self._model = self._model.to(device).eval()
            for parameter in self._model.parameters():
                parameter.requires_grad_(False)
                parameter.data = parameter.data.clone()  # never a view of the file that it was read from
        except torch.OutOfMemoryError as error:
            raise CheckpointError(f"{checkpoint.folder} in {dtype} is too large for the memory of {device}") from error
        self._state: dict[str, torch.Tensor] = self._model.state_dict(keep_vars=True)  # by the names before our head
        self._head = ScoredHead(self._model.get_output_embeddings())
        self._model.set_output_embeddings(self._head)
        self._finish = self._find_finish(checkpoint)
        self._own_attention = str(self._model.config._attn_implementation)
        self._packed: PackedAttention | None = None
        self.attention: Attention = "rows"
        self.attention = self._choose_attention()

    @cached_property
    def targets(self) -> dict[str, torch.Tensor]:
        """The place of each of the checkpoint's tensors, for a Merger to overwrite; look before anything is changed.

        Raises CheckpointError where the model holds weights in another layout than its checkpoint.
        """
        places = find_places(self._state, f"{self._model.base_model_prefix}.", self._checkpoint)
        return places if self._new_head is None else {**places, self._new_head: self._head.weight}

    @property
    def vocabulary(self) -> int:
        """Number of logits V at a position."""
        return int(self._head.weight.shape[0])

    def read(self, batch: Batch) -> Reading:
        """The log-probabilities that `batch` asks for."""
        self._head.places = self._there(batch.places)
        with torch.inference_mode():
            self._pass(batch)
            if not len(batch.reads):
                return NOTHING
            return self._head.read(self._there(batch.slots), self._there(batch.ids), self._finish)

    def read_whole(self, batch: Batch, hear: Callable[[Integers, torch.Tensor], None]) -> None:
        """Have `hear` hear the log-probabilities of the whole vocabulary where `batch` reads, some at a time.

        It gets which readings they are (r,) and their log-probabilities (r, V), on the device of the weights; what it
        does with them it does before the next ones are computed, so that never more than a few hundred MiB are held.
        """
        self._head.places = self._there(batch.places)
        with torch.inference_mode():
            self._pass(batch)
            for part, logprobs in self._head.distributions(self._there(batch.slots), self._finish):
                hear(batch.reads[part], logprobs)

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
        plain = self._readings(padded_batches(rows, groups, 1), count)  # a row at a time: nothing to lean on
        if not np.isfinite(plain).all():
            return "rows"  # nothing can be told from a model that says nothing finite; its scores will say so
        leaky = self._readings(padded_batches(leaked(rows), groups, TRIAL_TOKENS), count)
        padded = self._readings(padded_batches(rows, groups, TRIAL_TOKENS), count)
        if not agree(padded, plain, leaky, is_exact=self.dtype == torch.float32):
            raise CheckpointError(
                f"{self._checkpoint.folder}: {type(self._model).__name__} gives other scores when rows are padded on "
                "the right; only causal language models that read from left to right can be scored"
            )
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
        return bool(windows) and not others and not chunked and sum(w is not None for w in windows) == sliding

    def _packs_fit(
        self, kind: Attention, rows: Sequence[Row], groups: Sequence[Sequence[int]], plain: Floats, leaky: Floats
    ) -> bool:
        """Try packs; where they do not give what padded rows give, leave the model as it was."""
        self._packed = PackedAttention(self.device, varlen=kind == "varlen")
        try:
            self._model.set_attn_implementation(NAME)
            found = self._readings(PLANNERS[kind](rows, groups, TRIAL_TOKENS), len(plain))
            exact = self.dtype == torch.float32
            if self._windows_arrive(self._packed.windows) and agree(found, plain, leaky, is_exact=exact):
                return True
        except Exception:  # whatever it was: padded rows need nothing of the architecture
            pass
        self.use_rows()
        return False
