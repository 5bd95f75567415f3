"""What the model is given in one pass, and what is read off it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from merge_calib.scores import Floats, Integers
from merge_calib.scoring.packing import Pack, pack
from merge_calib.scoring.rows import Row

Attention = Literal["varlen", "blocks", "rows"]
Planner = Callable[[Sequence[Row], Sequence[Sequence[int]], int], Iterator["Batch"]]


@dataclass(frozen=True)
class Batch:
    """Tokens of one pass and the log-probabilities to read.

    tokens (B, T): ids; rows are padded on the right, where no causal model looks
    places (S,): scored positions, indices into the flattened (B * T) positions
    slots (R,), ids (R,): reading r is the log-probability of token ids[r] at the position places[slots[r]]
    reads (R,): where reading r belongs among all readings of the plan
    tokens_of_rows: how many tokens the rows that it answers have, shared ones counted each time
    pack: how the tokens hang together, None for padded rows
    depths (B, T): position of each token in its own row, None for padded rows, where it is plain
    """

    tokens: Integers
    places: Integers
    slots: Integers
    ids: Integers
    reads: Integers
    tokens_of_rows: int
    pack: Pack | None
    depths: Integers | None

    @property
    def size(self) -> int:
        """How many tokens the model reads, padding included."""
        return self.tokens.size


@dataclass(frozen=True)
class Reading:
    """What was read off the scored positions, in float64.

    logprobs (R,): log-probability of each candidate under the whole vocabulary
    top_logprobs (R,), top_ids (R,): the most probable token at the same position, the first one on exact ties
    """

    logprobs: Floats
    top_logprobs: Floats
    top_ids: Integers


def joined_batches(rows: Sequence[Row], groups: Sequence[Sequence[int]], max_tokens: int) -> Iterator[Batch]:
    """Packs whose trees stand one after the other, without padding, for variable-length attention."""
    starts = reading_starts(rows)
    for each in pack(rows, groups, max_tokens):
        tokens, depths = (each.joined(name)[None] for name in ("tokens", "depths"))
        yield _batch(rows, starts, tokens, each.placed(rows, each.offsets), each, depths)


def block_batches(rows: Sequence[Row], groups: Sequence[Sequence[int]], max_tokens: int) -> Iterator[Batch]:
    """Packs whose trees stand side by side, a row each, for attention with a mask."""
    starts = reading_starts(rows)
    for each in pack(rows, groups, max_tokens, side_by_side=True):
        tokens, depths = (each.table(name) for name in ("tokens", "depths"))
        begins = range(0, tokens.size, each.width)
        yield _batch(rows, starts, tokens, each.placed(rows, begins), each, depths)


def padded_batches(rows: Sequence[Row], groups: Sequence[Sequence[int]], max_tokens: int) -> Iterator[Batch]:
    """Padded rows from long to short, for any causal model; a row that begins another one is read off that.

    At most `max_tokens` tokens a batch, padding included; a longer row makes a batch of its own.
    """
    starts = reading_starts(rows)
    lines = sorted((line for group in groups for line in _lines(rows, group)), key=lambda line: -len(line[0]))
    picked: list[tuple[Integers, list[int]]] = []
    for line in lines:
        if picked and len(picked[0][0]) * (len(picked) + 1) > max_tokens:
            yield _padded(rows, starts, picked)
            picked = []
        picked.append(line)
    if picked:
        yield _padded(rows, starts, picked)


def reading_starts(rows: Sequence[Row]) -> Integers:
    """Where the readings of each row begin among all readings, and their number at the end (rows + 1,)."""
    return np.cumsum([0, *(row.candidates.size for row in rows)])


def _lines(rows: Sequence[Row], group: Sequence[int]) -> Iterator[tuple[Integers, list[int]]]:
    """The sequences of a group that begin no other, each with the rows that are read off it."""
    ordered = sorted(group, key=lambda i: rows[i].tokens.tolist())
    served: list[int] = []
    for i, following in zip(ordered, [*ordered[1:], None], strict=True):
        served.append(i)
        tokens = rows[i].tokens
        if following is None or not np.array_equal(tokens, rows[following].tokens[: len(tokens)]):
            yield tokens, served
            served = []


def _padded(rows: Sequence[Row], starts: Integers, lines: Sequence[tuple[Integers, list[int]]]) -> Batch:
    width = max(len(tokens) for tokens, _ in lines)
    table = np.zeros((len(lines), width), dtype=np.int64)
    placed = []
    for b, (tokens, served) in enumerate(lines):
        table[b, : len(tokens)] = tokens
        placed += [(i, b * width + np.arange(rows[i].first, len(rows[i].tokens))) for i in served]
    return _batch(rows, starts, table, placed)


def _batch(
    rows: Sequence[Row],
    starts: Integers,
    tokens: Integers,
    placed: Sequence[tuple[int, Integers]],
    how: Pack | None = None,
    depths: Integers | None = None,
) -> Batch:
    none = np.zeros(0, dtype=np.int64)
    if not placed:
        return Batch(tokens, none, none, none, none, 0, how, depths)
    at = np.concatenate([np.repeat(places, rows[i].candidates.shape[1]) for i, places in placed])
    ids = np.concatenate([rows[i].candidates.reshape(-1) for i, _ in placed])
    reads = np.concatenate([np.arange(starts[i], starts[i + 1]) for i, _ in placed])
    places, slots = np.unique(at, return_inverse=True)
    count = sum(len(rows[i].tokens) for i, _ in placed)
    return Batch(tokens, places, slots.reshape(-1), ids, reads, count, how, depths)


PLANNERS: dict[Attention, Planner] = {"varlen": joined_batches, "blocks": block_batches, "rows": padded_batches}
NOTHING = Reading(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
