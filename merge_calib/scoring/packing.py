"""The packing plan: which tokens a model reads, each distinct one once. Nothing here depends on weights.

The rows of a question form a tree of tokens, in which a prefix that several rows share stands once. Trees that begin
alike share a head (a few-shot prefix, an instruction), which is read once and remembered while they are read. Trees
are put side by side in packs of a fixed token budget, large ones first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from merge_calib.scores import Integers
from merge_calib.scoring.rows import Row

LEAST_TREES = 8  # that share a head
# Tokens that one more head must save, because it is read by itself and leaves one more pack unfilled: a share of the
# budget, so that large devices are not kept from filling their packs.
LEAST_COST, COST_SHARE = 128, 64
SLIM = 0.9  # of the largest tree: a smaller one begins a new pack, once a quarter of the budget is used
DEEPEST = 40  # nested heads that are looked at; a bound on recursion

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    """Rows of one question, each distinct prefix once, in depth-first order; a head is not part of it.

    tokens (T,): ids
    depths (T,): position of each token in its row
    ends (T,): token i descends from token j, or is it, where j <= i < ends[j]
    starts (B,), parents (B,): branch b is the tokens from starts[b] up to starts[b + 1]; its first token follows token
        parents[b], or the head where that is -1
    rows (R,): which rows it serves; last (R,): the token that is the row's last one
    """

    tokens: Integers
    depths: Integers
    ends: Integers
    starts: Integers
    parents: Integers
    rows: Integers
    last: Integers

    def path(self, token: int) -> Integers:
        """The token and all that it descends from, from the root on."""
        ancestors = np.flatnonzero(self.ends[: token + 1] > token)
        return np.asarray(ancestors, dtype=np.int64)


@dataclass(frozen=True)
class Pack:
    """What is read in one pass: trees side by side, large ones first.

    head: how many tokens stand before every tree; they were remembered when the pack before was read
    remembers: whether this pack is a head itself, read only to be remembered by those that follow
    """

    head: int
    trees: tuple[Tree, ...]
    remembers: bool = False

    @property
    def size(self) -> int:
        """How many tokens the model reads."""
        return sum(len(tree.tokens) for tree in self.trees)

    @property
    def width(self) -> int:
        """Tokens of the largest tree."""
        return len(self.trees[0].tokens)

    @property
    def offsets(self) -> list[int]:
        """Where each tree begins when they stand one after the other (U,)."""
        return list(accumulate((len(tree.tokens) for tree in self.trees[:-1]), initial=0))

    def joined(self, name: str) -> Integers:
        """One field of all trees, one after the other (N,)."""
        return np.concatenate([getattr(tree, name) for tree in self.trees])

    def table(self, name: str) -> Integers:
        """One field of all trees, a row each (U, T), filled up with zeros."""
        table = np.zeros((len(self.trees), self.width), dtype=np.int64)
        for row, tree in zip(table, self.trees, strict=True):
            row[: len(tree.tokens)] = getattr(tree, name)
        return table

    @cached_property
    def sequences(self) -> tuple[Integers, Integers, Integers]:
        """The pack as one sequence a branch: its own tokens ask; the head, its ancestors and itself answer.

        Gives the answering tokens of all branches one after the other, counted from the head's first token, and the
        number of asking and of answering tokens of each branch (B,).
        """
        head = np.arange(self.head)
        pieces: list[Integers] = []
        own, all_keys = [], []
        for offset, tree in zip(self.offsets, self.trees, strict=True):
            stops = [*tree.starts[1:].tolist(), len(tree.tokens)]
            for start, stop, parent in zip(tree.starts.tolist(), stops, tree.parents.tolist(), strict=True):
                above = tree.path(parent) if parent >= 0 else head[:0]
                pieces += [head, self.head + offset + above, np.arange(start, stop) + self.head + offset]
                own.append(stop - start)
                all_keys.append(len(head) + len(above) + stop - start)
        return np.concatenate(pieces), np.array(own), np.array(all_keys)

    def placed(self, rows: Sequence[Row], begins: Sequence[int]) -> list[tuple[int, Integers]]:
        """Each row served, with the places (P,) of its scored positions, where tree u begins at begins[u]."""
        return [
            (int(i), begin + tree.path(int(last))[rows[i].first - len(rows[i].tokens) :])
            for begin, tree in zip(begins, self.trees, strict=True)
            for i, last in zip(tree.rows, tree.last, strict=True)
        ]


def pack(
    rows: Sequence[Row], groups: Sequence[Sequence[int]], max_tokens: int, *, side_by_side: bool = False
) -> Iterator[Pack]:
    """Every row once, in packs of at most `max_tokens` tokens; the rows of a group make a tree.

    Where trees stand `side_by_side`, a row each, the padding to the largest counts as well. A head comes right before
    the packs that follow it. A tree that is larger than the limit makes a pack of its own.
    """
    stems = sorted((_stem(rows, group), index) for index, group in enumerate(groups))
    for length, members in _heads([stem for stem, _ in stems], max(LEAST_COST, max_tokens // COST_SHARE)):
        trees = sorted((_grow(rows, groups[stems[i][1]], length) for i in members), key=lambda tree: -len(tree.tokens))
        if length:
            yield Pack(0, (_line(stems[members[0]][0][:length]),), remembers=True)
        yield from _filled(length, trees, max_tokens, side_by_side)


def _stem(rows: Sequence[Row], group: Sequence[int]) -> Ids:
    """What all rows of a group begin with, up to the first position that is scored."""
    sequences = [rows[i].tokens.tolist() for i in group]
    most = min(rows[i].first for i in group)
    return tuple(sequences[0][: min([most, *(_common(sequences[0], other) for other in sequences[1:])])])


def _heads(stems: Sequence[Ids], cost: int) -> list[tuple[int, list[int]]]:
    """Split sorted stems into runs with a common beginning of some length, so that the most tokens are saved.

    Gives (length, members) for each run, and one with length 0 for all that share nothing worth a head.
    """
    shared = [_common(one, other) for one, other in pairwise(stems)]
    found: list[tuple[int, int, int]] = []
    _split(shared, 0, len(stems), cost, found)
    runs = [(length, list(range(first, stop))) for length, first, stop in found if length]
    alone = [i for length, first, stop in found if not length for i in range(first, stop)]
    return [*([(0, alone)] if alone else []), *runs]


def _split(
    shared: Sequence[int], first: int, stop: int, cost: int, found: list[tuple[int, int, int]], depth: int = 0
) -> int:
    """Add the best runs of stems first..stop-1 to `found`; gives how many tokens they save, less their cost."""
    count = stop - first
    if count < LEAST_TREES:
        found.append((0, first, stop))
        return 0
    length = min(shared[first : stop - 1])
    saved = length * (count - 1) - cost
    whole = (length, first, stop) if saved > 0 else (0, first, stop)
    cuts = [first, *(i + 1 for i in range(first, stop - 1) if shared[i] == length), stop]
    parted = list(pairwise(cuts))
    if depth == DEEPEST or max(right - left for left, right in parted) < LEAST_TREES:
        found.append(whole)
        return max(saved, 0)
    parts: list[tuple[int, int, int]] = []
    in_parts = sum(_split(shared, left, right, cost, parts, depth + 1) for left, right in parted)
    if in_parts > max(saved, 0):
        found += parts
        return in_parts
    found.append(whole)
    return max(saved, 0)


def _grow(rows: Sequence[Row], group: Sequence[int], skip: int) -> Tree:
    """The tree of a group's rows without their first `skip` tokens."""
    ordered = sorted((rows[i].tokens[skip:].tolist(), i) for i in group)
    tokens: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    starts, parents, last = [], [], []
    path: list[int] = []  # the tokens of the row before
    before: list[int] = []
    for ids, _ in ordered:
        same = _common(before, ids)
        for token in path[same:]:
            ends[token] = len(tokens)
        if len(ids) > same:
            starts.append(len(tokens))
            parents.append(path[same - 1] if same else -1)
        path = path[:same] + list(range(len(tokens), len(tokens) + len(ids) - same))
        depths += range(skip + same, skip + len(ids))
        tokens += ids[same:]
        ends += [0] * (len(ids) - same)
        last.append(path[-1])
        before = ids
    for token in path:
        ends[token] = len(tokens)
    return Tree(
        tokens=np.array(tokens, dtype=np.int64),
        depths=np.array(depths, dtype=np.int64),
        ends=np.array(ends, dtype=np.int64),
        starts=np.array(starts, dtype=np.int64),
        parents=np.array(parents, dtype=np.int64),
        rows=np.array([i for _, i in ordered], dtype=np.int64),
        last=np.array(last, dtype=np.int64),
    )


def _line(ids: Ids) -> Tree:
    """A tree of one branch that serves no row."""
    count, none = len(ids), np.zeros(0, dtype=np.int64)
    ends = np.full(count, count)
    return Tree(np.array(ids), np.arange(count), ends, np.array([0]), np.array([-1]), none, none)


def _filled(head: int, trees: Sequence[Tree], max_tokens: int, side_by_side: bool) -> Iterator[Pack]:
    picked: list[Tree] = []
    size = 0
    for tree in trees:
        width = len(picked[0].tokens) if picked and side_by_side else len(tree.tokens)
        wasteful = size >= max_tokens // 4 and len(tree.tokens) < SLIM * width
        if picked and (size + width > max_tokens or wasteful):
            yield Pack(head, tuple(picked))
            picked, size, width = [], 0, len(tree.tokens)
        picked.append(tree)
        size += width
    if picked:
        yield Pack(head, tuple(picked))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    low, high = 0, most  # what differs lies below high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
