"""Which questions choose and which ones judge: nothing that is claimed rests on a question that was chosen by."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from merge_calib.scores import Booleans, Integers

FEWEST = 50  # questions on either side below which nothing is claimed


@dataclass(frozen=True)
class Fold:
    """A way to divide a task's N questions: masks (N,) of those that choose and those that judge; they never overlap.

    Both are all True where a run is not divided at all, which only describes and claims nothing.
    """

    select: Booleans
    report: Booleans


def divide(ids: Sequence[str], subjects: Sequence[str], fraction: float, given: Sequence[str] = ()) -> Fold:
    """Select `fraction` of the questions by the rank of their id's hash within their subject.

    Each subject is divided as the whole is, to one question, and so is the whole. Which side a question is on depends
    on the ids asked and on nothing else. `given` names the side, `select` or `report`, of questions that bring it
    along (a benchmark's own validation split); where any does, those without one are on the side `report`.
    A task of two questions or more has at least one on either side.
    """
    n = len(ids)
    if any(given):
        select = np.array([side == "select" for side in given])
    else:
        select = np.zeros(n, dtype=bool)
        select[_ranked(ids, subjects, _cuts(n, fraction))] = True
    return Fold(select, ~select)


def cross_fit(ids: Sequence[str], subjects: Sequence[str], count: int) -> tuple[Fold, ...]:
    """`count` folds: each judges by its own share of the questions what all others chose; every question judges once.

    The shares are made as `divide` makes its two.
    """
    order = _in_order(ids, subjects)
    fold = np.empty(len(ids), dtype=np.int64)
    fold[order] = np.arange(len(ids)) % count  # neighbours in a subject lie in different shares
    return tuple(Fold(fold != i, fold == i) for i in range(count))


def codes(names: Sequence[str]) -> Integers:
    """An integer for each name (N,), in alphabetical order."""
    return np.unique(np.asarray(names, dtype=np.str_), return_inverse=True)[1].astype(np.int64)


def _cuts(n: int, fraction: float) -> int:
    """How many of n questions select: rounded, and at least one on either side where there are two."""
    return min(max(round(n * fraction), 1), n - 1) if n > 1 else n


def _in_order(ids: Sequence[str], subjects: Sequence[str]) -> list[int]:
    """Indices by subject, and in each by the hash of the id."""
    return sorted(range(len(ids)), key=lambda i: (subjects[i], hashlib.sha256(ids[i].encode()).digest()))


def _ranked(ids: Sequence[str], subjects: Sequence[str], count: int) -> list[int]:
    """`count` indices, so many from each subject that all questions up to its end are divided as the whole is."""
    order = _in_order(ids, subjects)
    return list(_spread(order, [subjects[i] for i in order], count))


def _spread(order: Sequence[int], subjects: Sequence[str], count: int) -> Iterator[int]:
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or subjects[end] != subjects[start]:
            before, after = (round(place * count / len(order)) for place in (start, end))
            yield from order[start : start + after - before]
            start = end
