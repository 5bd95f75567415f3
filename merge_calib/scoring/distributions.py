"""Whole next-token distributions at scored positions, and how far they are from those of another model."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from merge_calib.errors import InputError
from merge_calib.scores import Booleans, Floats, Integers
from merge_calib.scoring.batches import Batch, reading_starts
from merge_calib.scoring.budget import Budget, is_out_of_memory
from merge_calib.scoring.rows import Row

if TYPE_CHECKING:
    from merge_calib.scoring.model import LanguageModel

LogProbabilities = NDArray[np.float32]
Hear = Callable[[Integers, torch.Tensor], None]  # readings (r,) and their log-probabilities (r, V) on the device


def top_ids(model: "LanguageModel", rows: Sequence[Row], budget: Budget) -> Integers:
    """The most probable token at every scored position of `rows`, one row after the other (R,)."""
    found = np.zeros(_count(rows), dtype=np.int64)

    def hear(reads: Integers, logprobs: torch.Tensor) -> None:
        found[reads] = logprobs.argmax(1).cpu().numpy()

    _read(model, rows, budget, hear)
    return found


def log_probabilities(model: "LanguageModel", rows: Sequence[Row], budget: Budget) -> LogProbabilities:
    """Log-probabilities of the whole vocabulary at every scored position of `rows`, float32 (R, V)."""
    found = np.empty((_count(rows), model.vocabulary), dtype=np.float32)

    def hear(reads: Integers, logprobs: torch.Tensor) -> None:
        found[reads] = logprobs.float().cpu().numpy()

    _read(model, rows, budget, hear)
    return found


def compare(
    model: "LanguageModel", rows: Sequence[Row], reference: LogProbabilities, budget: Budget
) -> tuple[Floats, Booleans]:
    """KL(reference || model) in nats, and whether the model's most probable token is the one written, each (R,).

    rows: each scored position has the token that was written there as its only candidate
    reference (R, V): log-probabilities, as `log_probabilities` gives them
    """
    written = np.concatenate([row.candidates[:, 0] for row in rows])
    distances, agrees = np.full(len(written), np.nan), np.zeros(len(written), dtype=bool)

    def hear(reads: Integers, logprobs: torch.Tensor) -> None:
        theirs = torch.from_numpy(reference[reads]).to(logprobs.device)
        distances[reads] = kl_divergence(theirs, logprobs.float()).cpu().numpy()
        agrees[reads] = logprobs.argmax(1).cpu().numpy() == written[reads]

    _read(model, rows, budget, hear)
    return distances, agrees


def kl_divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of log-probabilities (r, V), in nats (r,): 0 exactly where both are the same bits.

    sum p d  with d = log p - log q  is summed as  sum p (d + exp(-d) - 1): the same for distributions that sum to 1,
    but of terms that are never negative, so that float32 loses nothing to cancellation between them.
    """
    d = p - q
    terms = p.exp() * (d + torch.expm1(-d))
    return torch.where(p == -torch.inf, q.exp(), terms).sum(1)


def _read(model: "LanguageModel", rows: Sequence[Row], budget: Budget, hear: Hear) -> None:
    """Have `hear` hear every reading of `rows`, some of them again where memory ran out."""
    if not rows:
        return
    groups = [[i] for i in range(len(rows))]
    while (stopped := _read_all(model, model.plan(rows, groups, budget.tokens), hear)) is not None:
        if not budget.shrink(stopped):
            raise InputError(
                f"the memory of {model.device} is too small to compare {stopped.size} tokens with the aligned model; "
                "give --no-retained, another --device or a smaller --dtype. What was measured is kept"
            )


def _read_all(model: "LanguageModel", batches: Iterable[Batch], hear: Hear) -> Batch | None:
    """Read batch after batch; gives the batch that memory was too small for, if there is one."""
    for batch in batches:
        try:
            model.read_whole(batch, hear)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return batch
    return None


def _count(rows: Sequence[Row]) -> int:
    return int(reading_starts(rows)[-1])
