"""What is predicted between nodes, how far that can be trusted, and where one node more would help most."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from merge_calib.scores import Floats

FEWEST_NODES = 5  # with fewer, what one node more or less changes says nothing of the error


@dataclass(frozen=True)
class Forecast:
    """What K nodes say of G places, and how much of that hangs on single nodes.

    nodes (K,), places (G,): lambdas; values (2, G): accuracy and SCE predicted, measured where a place is a node
    changes (K - 2, 2, G): by how much the values move when each node but the two ends is left out, in ascending order
    """

    nodes: tuple[float, ...]
    places: tuple[float, ...]
    values: Floats
    changes: Floats

    def estimate(self, newest: float | None) -> tuple[float, float]:
        """How far the values are from the truth at worst, for accuracy and SCE; infinite where nodes are too few.

        The median over left-out nodes of the largest change anywhere, times (K - 2) / (K - 1), or what was predicted
        of the `newest` node without it against what was measured there, whichever is larger. The largest change of
        all would judge the forecast by the node that is needed most. K - 1 nodes leave wider gaps than K, by that
        factor on average, and the error shrinks at least as fast as the gaps. How this compares with the truth stands
        in tools/results/prove_adaptive.md. What no node has seen, as a bump between two of them, no estimate knows.
        """
        if len(self.nodes) < FEWEST_NODES:
            return math.inf, math.inf
        fewer = (len(self.nodes) - 2) / (len(self.nodes) - 1)
        found = np.median(self.changes.max(2), axis=0) * fewer
        inner = sorted(self.nodes)[1:-1]
        if newest in inner and newest in self.places:
            found = np.maximum(found, self.changes[inner.index(newest), :, self.places.index(newest)])
        return float(found[0]), float(found[1])

    def next_node(self, shunned: Collection[float]) -> float | None:
        """The place for one more node that is not `shunned`: in the gap where the values are most in doubt.

        Within that gap it is the place with the largest product of distances from all nodes, as in a Leja sequence.
        """
        free = [g for g, lam in enumerate(self.places) if lam not in shunned and lam not in self.nodes]
        if not free:
            return None
        doubts = np.median(self.changes, axis=0).max(0) if len(self.changes) else np.zeros(len(self.places))
        gaps = np.searchsorted(sorted(self.nodes), self.places)
        worst = gaps[max(free, key=lambda g: (doubts[g], -g))]
        return farthest([self.places[g] for g in free if gaps[g] == worst], self.nodes)


def farthest(places: Sequence[float], nodes: Sequence[float]) -> float:
    """The place with the largest product of distances from all nodes, the smallest of several. Source: Leja 1957."""
    return max(places, key=lambda lam: (math.prod(abs(lam - node) for node in nodes), -lam))
