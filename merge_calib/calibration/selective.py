"""How wrong a model is on what it answers when it may decline what it is least sure of."""

import numpy as np

from merge_calib.calibration.metrics import AnyPredictions, comparable


def risk_coverage_area(p: AnyPredictions) -> float:
    """Area under the risk-coverage curve, (1/N) sum_{j=1..N} E[errors among the j most confident] / j; lower is better.

    E is the mean over all orders of equally confident questions: a group with e errors among m questions that comes
    after E_0 errors in a questions has E[errors among j] = E_0 + e (j - a) / m for a < j <= a + m. The value does not
    depend on the order of questions, and equal confidences everywhere give the error rate. 0 where all are right, 1
    where all are wrong. Asking every question twice changes it, as the steps of coverage are then finer.
    Source: the curve of Geifman & El-Yaniv 2017; the area (AURC) of Geifman, Uziel & El-Yaniv 2019.
    """
    _, group, counts = np.unique(-comparable(p.confidence), return_inverse=True, return_counts=True)
    errors = np.repeat(np.bincount(group, ~p.hit) / counts, counts)  # expected at each place, most confident first
    return float((np.cumsum(errors) / np.arange(1, len(errors) + 1)).mean())
