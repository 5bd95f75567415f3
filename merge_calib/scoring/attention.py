"""Attention over packs: each token sees the head and the tokens that it descends from, nothing else.

Registered with transformers' attention interface, so that every architecture that uses it computes everything else as
ever. Two kernels: variable-length attention (CUDA, half precision), and blocks of trees of about one size with a mask.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from merge_calib.scores import Integers
from merge_calib.scoring.packing import Pack

NAME = "merge_calib_packed"
_HARMLESS = {"position_ids", "output_attentions", "use_cache", "cache_position", "cu_seq_lens_q"}


class UnfitAttentionError(Exception):
    """The architecture asks its attention for something that packs do not offer."""


class PackedAttention:
    """The attention of one model; remembers the keys and values of the last head, a pair for each layer."""

    def __init__(self, device: torch.device, *, varlen: bool) -> None:
        self._device = device
        self._varlen = varlen
        self._heads: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._layer = 0
        self._layout: _Layout | None = None
        self.windows: list[int | None] = []

    @contextmanager
    def over(self, pack: Pack) -> Iterator[None]:
        """While this is open the model's tokens are those of `pack`."""
        self._layout, self._layer, self.windows = _Layout(pack, self._device), 0, []
        if not pack.head:
            self._heads = []
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self._layout = None

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """query (B, Q, T, D), key and value (B, K, T, D) of a pack's tokens; gives (B, T, Q, D)."""
        layout = self._layout
        assert layout is not None
        self.windows.append(window)
        if layout.pack.head:
            remembered = [part.expand(len(key), -1, -1, -1) for part in self._heads[self._layer]]
            key, value = torch.cat([remembered[0], key], 2), torch.cat([remembered[1], value], 2)
        elif layout.pack.remembers:
            self._heads.append((key, value))
        self._layer += 1
        if not self._varlen:
            return layout.blocks(query, key, value, scale, window, softcap)
        if softcap is not None:
            raise UnfitAttentionError("a soft cap on attention scores")
        return layout.varlen(query, key, value, scale, window)


class _Layout:
    """The index tensors of one pack, made when a kernel first needs them."""

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.pack = pack
        self._device = device
        self._masks: dict[int | None, torch.Tensor] = {}
        self._sequences: tuple[Any, ...] | None = None

    def blocks(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """A row a tree, with an additive mask."""
        assert query.shape[::2] == (len(self.pack.trees), self.pack.width)
        groups = query.shape[1] // key.shape[1]
        mask = self._mask(window, query.dtype)
        if groups > 1 and (query.is_cuda or softcap is not None):  # no fast CUDA kernel takes a mask and grouped heads
            key, value, groups = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1), 1
        if softcap is None:
            out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=groups > 1)
        else:
            out = _capped(query, key, value, mask, scale, softcap)
        return out.transpose(1, 2)

    def varlen(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None
    ) -> torch.Tensor:
        """One sequence a branch: its tokens ask, the head, its ancestors and itself answer."""
        assert query.shape[::2] == (1, self.pack.size)
        index, starts, key_starts, most, most_keys = self._branches()
        queries, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))
        out = _varlen(
            queries.contiguous(), keys[index], values[index], starts, key_starts, most, most_keys, scale, window
        )
        return out[None]

    def _mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """0 where a token may look, -inf elsewhere: (U, 1, T, P + T)."""
        if window not in self._masks:
            head, width = self.pack.head, self.pack.width
            ends, depths = (self._there(self.pack.table(name)) for name in ("ends", "depths"))
            places = torch.arange(width, device=self._device)
            sees = (places[:, None] >= places) & (places[:, None] < ends[:, None, :])
            sees |= torch.eye(width, dtype=torch.bool, device=self._device)  # padding sees itself
            sees = pad(sees, (head, 0), value=True)
            if window is not None:
                before = torch.arange(head, device=self._device).expand(len(depths), -1)
                sees &= depths[:, :, None] - torch.cat([before, depths], 1)[:, None, :] < window
            mask = torch.zeros(sees.shape, dtype=dtype, device=self._device).masked_fill_(~sees, -torch.inf)
            self._masks[window] = mask[:, None]
        return self._masks[window]

    def _branches(self) -> tuple[Any, ...]:
        """Keys of all branches (K,), where each branch's queries and keys begin (B + 1,), and the longest of both."""
        if self._sequences is None:
            index, sizes, key_sizes = self.pack.sequences
            starts = [self._there(np.cumsum([0, *each])).to(torch.int32) for each in (sizes, key_sizes)]
            self._sequences = self._there(index), *starts, int(sizes.max()), int(key_sizes.max())
        return self._sequences

    def _there(self, values: Integers) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


_current: ContextVar[PackedAttention] = ContextVar("packed_attention")


def _forward(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The function that transformers calls: query (B, Q, T, D), key and value (B, K, T, D); gives (B, T, Q, D)."""
    asked = sorted(
        name for name, value in others.items() if value is not None and value is not False and name not in _HARMLESS
    )
    if asked or attention_mask is not None or dropout or is_causal is False:
        raise UnfitAttentionError(", ".join(asked) or "a mask of its own")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _current.get().attend(query, key, value, scale, sliding_window, softcap), None


AttentionInterface.register(NAME, _forward)


def has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has variable-length attention for this device and dtype (torch 2.10 and later)."""
    return device.type == "cuda" and dtype in (torch.float16, torch.bfloat16) and _varlen_function() is not None


@cache
def _varlen_function() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    key_starts: torch.Tensor,
    most: int,
    most_keys: int,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    function = _varlen_function()
    known = inspect.signature(function).parameters
    options: dict[str, Any] = {}
    if "scale" in known:
        options["scale"] = scale
    else:
        query = query * (scale * query.shape[-1] ** 0.5)
    if "window_size" in known:
        options["window_size"] = (-1 if window is None else window - 1, 0)
    elif window is None:
        options["is_causal"] = True
    else:
        raise UnfitAttentionError("a sliding window")
    if "enable_gqa" in known:
        options["enable_gqa"] = query.shape[1] != key.shape[1]
    out: torch.Tensor = function(query, key, value, starts, key_starts, most, most_keys, **options)
    return out


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """Attention whose scores are capped, softcap tanh(score / softcap), before the softmax (Gemma 2)."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    scores = softcap * torch.tanh(scores / softcap) + mask
    return torch.matmul(scores.float().softmax(-1).to(query.dtype), value)
