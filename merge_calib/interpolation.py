"""What a point between measured points would have answered: each question's scores interpolated in lambda."""

from collections.abc import Iterator, Sequence

import numpy as np

from merge_calib.scores import ChoiceScores, Floats

DEGREE = 4  # of the polynomials that are blended; up to five nodes are joined by one polynomial


def cardinal_weights(nodes: Sequence[float], at: Sequence[float], degree: int = DEGREE) -> Floats:
    """How much the value at each of K nodes counts at each of G places (G, K); rows sum to 1, at a node 1 and zeros.

    Floater-Hormann rational interpolation in barycentric form: polynomials through each `degree` + 1 neighbouring
    nodes, blended. It has no poles, is exact for polynomials up to `degree`, does not swing between many or badly
    placed nodes as one polynomial does, and is that polynomial where there are at most `degree` + 1 nodes.
    `nodes` are distinct, in any order. Source: Floater & Hormann 2007, equations 4 and 18.
    """
    given, places = np.asarray(nodes, dtype=np.float64), np.asarray(at, dtype=np.float64)
    order = np.argsort(given)
    assert len(given), "there is a node"
    assert (np.diff(given[order]) > 0).all(), "nodes are distinct"
    barycentric = np.empty(len(given))
    barycentric[order] = _barycentric(given[order], min(degree, len(given) - 1))
    gaps = places[:, None] - given
    hits = gaps == 0
    terms = barycentric / np.where(hits, 1.0, gaps)
    weights = terms / terms.sum(1, keepdims=True)
    return np.asarray(np.where(hits.any(1, keepdims=True), hits, weights), dtype=np.float64)


def interpolate(nodes: Sequence[float], scores: Sequence[ChoiceScores], at: Sequence[float]) -> Iterator[ChoiceScores]:
    """The scores (N, C) at each lambda of `at`, one after another, from the scores measured at K nodes.

    All K are of the same questions, and `at` lies between the smallest and the largest node. At a node it is what was
    measured there. Whether scores are normalised makes no difference to the probabilities made of them.
    One place is held in memory at a time.
    """
    assert len(nodes) == len(scores)
    assert all(min(nodes) <= lam <= max(nodes) for lam in at), "nothing is said of lambdas beyond the nodes"
    first = scores[0]
    for other in scores[1:]:
        assert other.ids == first.ids, "all nodes were asked the same questions"
        assert np.array_equal(other.mask, first.mask)
    for lam, weights in zip(at, cardinal_weights(nodes, at), strict=True):
        if lam in nodes:
            yield scores[list(nodes).index(lam)]
            continue
        values = np.zeros(first.logprobs.shape)
        for weight, each in zip(weights, scores, strict=True):  # not a product of matrices, whose last bit may vary
            values += weight * each.logprobs
        yield ChoiceScores(first.ids, first.answers, values, first.mask)


def _barycentric(nodes: Floats, degree: int) -> Floats:
    """The weights (K,) of increasing nodes, scaled so that the largest is 1.

    w_k = (-1)^k sum over runs i..i + degree that hold k of prod over j != k in the run of 1 / |x_k - x_j|.
    """
    count = len(nodes)
    spread = (nodes[-1] - nodes[0]) or 1.0  # products of distances neither overflow nor vanish
    weights = np.zeros(count)
    for start in range(count - degree):
        run = np.arange(start, start + degree + 1)
        gaps = np.abs(nodes[run, None] - nodes[run]) / spread
        weights[run] += 1 / (gaps + np.eye(degree + 1)).prod(1)
    return np.asarray(weights * (-1.0) ** np.arange(count) / weights.max(), dtype=np.float64)
