"""Several tests at once."""

import numpy as np

from merge_calib.scores import Floats


def holm(p_values: Floats) -> Floats:
    """p-values (K,) adjusted for all of them together: the i-th smallest times K - i + 1, never falling, at most 1.

    Source: Holm 1979.
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
