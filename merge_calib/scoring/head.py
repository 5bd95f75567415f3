"""The output embedding at scored positions: log-probabilities in float32 without a (positions, vocabulary) tensor."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from merge_calib.scoring.batches import Reading

CHUNK_ON_CPU, CHUNK = 2048, 16384  # columns of the vocabulary at once; measured, see tools/results/
ROWS = 4096  # scored positions at once
WHOLE = 1 << 24  # logits at once where whole distributions are asked for: 64 MiB of float32
_MIXED = hasattr(torch.ops.aten.mm, "dtype")  # torch 2.8 and later: half-precision factors, float32 sums, on CUDA

Finish = Callable[[torch.Tensor], torch.Tensor]


class ScoredHead(nn.Module):
    """Stands in the place of a model's output embedding and keeps what arrives at the scored positions.

    Takes hidden states (B, T, H) and gives `reply` instead of logits, so that no logits of whole rows ever exist.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.places = torch.zeros(0, dtype=torch.long)
        self.hidden = torch.zeros(0)
        self.reply: torch.Tensor | None = None

    @property
    def weight(self) -> torch.Tensor:
        """The output embedding (V, H)."""
        weight = self.head.weight
        assert isinstance(weight, torch.Tensor)
        return weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias of the output embedding (V,), where it has one."""
        bias: torch.Tensor | None = getattr(self.head, "bias", None)
        return bias

    @property
    def _computes(self) -> torch.dtype:
        """What logits are computed in: float32, or float64 for a model in float64, which proofs use."""
        return torch.float64 if self.weight.dtype == torch.float64 else torch.float32

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.hidden = hidden.reshape(-1, hidden.shape[-1])[self.places]
        return hidden.new_zeros(1, 1, 1, dtype=torch.float32) if self.reply is None else self.reply

    def read(self, slots: torch.Tensor, ids: torch.Tensor, finish: Finish) -> Reading:
        """Log-probability of ids[r] at the kept position slots[r], and of the most probable token there with its id.

        slots (R,), ids (R,): on the device of the weights; `finish` is what the architecture does to logits
        Logits and their sums are float32, the sum over the vocabulary is taken in chunks with a running maximum; what
        is left for each reading is done in float64, because hundreds of them may be added up.
        """
        parts = []
        for first in range(0, len(self.hidden), ROWS):
            asked = (slots >= first) & (slots < first + ROWS)
            parts.append(
                (asked, *self._read_rows(self.hidden[first : first + ROWS], slots[asked] - first, ids[asked], finish))
            )
        said, top, total, top_id = (self._joined(parts, i) for i in range(1, 5))
        with np.errstate(divide="ignore", invalid="ignore"):  # what a broken model leaves is found when scores are made
            mass = np.log(total.astype(np.float64))
            return Reading(said.astype(np.float64) - top.astype(np.float64) - mass, -mass, top_id)

    def distributions(self, slots: torch.Tensor, finish: Finish) -> Iterator[tuple[slice, torch.Tensor]]:
        """Log-probabilities of the whole vocabulary at the kept positions slots[r], for some readings at a time.

        Gives which of the readings (r,) they are, and the log-probabilities (r, V), float32 as their sums.
        """
        step = max(1, WHOLE // len(self.weight))
        for first in range(0, len(slots), step):
            part = slice(first, first + step)
            hidden = self.hidden[slots[part]]
            logits = hidden.new_empty((len(hidden), len(self.weight)), dtype=self._computes)
            for begin, columns in self._chunks(hidden):
                logits[:, begin : begin + columns.shape[1]] = finish(columns)
            yield part, logits.log_softmax(1)

    def _read_rows(
        self, hidden: torch.Tensor, slots: torch.Tensor, ids: torch.Tensor, finish: Finish
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """For each reading (R,): its logit, the largest logit l, sum of exp(logit - l), and the largest logit's id."""
        top = hidden.new_full((len(hidden),), torch.finfo(torch.float32).min, dtype=self._computes)
        top_id = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
        total = torch.zeros_like(top)
        said = top.new_zeros(len(ids))
        for begin, logits in self._chunks(hidden):
            logits = finish(logits)
            here = (ids >= begin) & (ids < begin + logits.shape[1])
            said = torch.where(here, logits[slots, (ids - begin).clamp(0, logits.shape[1] - 1)], said)
            most, which = logits.max(1)
            top_id = torch.where(most > top, which + begin, top_id)
            before, top = top, torch.maximum(top, most)
            total = total * (before - top).exp() + logits.sub_(top[:, None]).exp_().sum(1)
        return said, top[slots], total[slots], top_id[slots]

    @staticmethod
    def _joined(parts: Sequence[tuple[torch.Tensor, ...]], i: int) -> NDArray[Any]:
        """Field `i` of all parts, in the order of the readings."""
        whole = parts[0][i].new_zeros(len(parts[0][0]))
        for part in parts:
            whole[part[0]] = part[i]
        return np.asarray(whole.cpu().numpy())

    def _chunks(self, hidden: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Logits of some columns after the other, in float32; products of half-precision numbers are exact in it."""
        bias = self.bias
        chunk = CHUNK_ON_CPU if hidden.device.type == "cpu" else CHUNK
        for begin in range(0, len(self.weight), chunk):
            weight = self.weight[begin : begin + chunk]
            if hidden.is_cuda and hidden.dtype == weight.dtype != torch.float32 and _MIXED:
                logits = torch.mm(hidden, weight.T, out_dtype=torch.float32)
            else:
                logits = nn.functional.linear(hidden.to(self._computes), weight.to(self._computes))
            yield begin, logits if bias is None else logits.add_(bias[begin : begin + chunk].to(self._computes))


def find_finish(answer: Callable[[torch.Tensor], torch.Tensor], softcap: float | None) -> Finish | None:
    """What an architecture does to its logits after the head: nothing, a scale or a soft cap; None for anything else.

    `answer` gives what the model makes of the logits (1, 1, R) that its head replies.
    """
    ramp = torch.linspace(-60.0, 60.0, 64)
    made = answer(ramp.reshape(1, 1, -1)).reshape(-1).float().cpu()
    if made.shape != ramp.shape:
        return None
    if torch.equal(made, ramp):
        return _unchanged
    scale = float(made[-1] / ramp[-1])
    candidates: list[Finish] = [lambda logits: logits * scale]
    if softcap:
        candidates.append(lambda logits: (logits / softcap).tanh_().mul_(softcap))
    return next((finish for finish in candidates if torch.allclose(finish(ramp), made, rtol=1e-6, atol=1e-6)), None)


def _unchanged(logits: torch.Tensor) -> torch.Tensor:
    return logits
