"""Calibration error without bins: residuals smoothed at the bandwidth that equals the error itself."""

import numpy as np
from scipy.fft import dct, idct
from scipy.optimize import brentq

from merge_calib.calibration.metrics import AnyPredictions
from merge_calib.scores import Floats

CELLS = 8192  # of [0, 1]; eight times as many move the value on 14,042 real questions by 2e-9


def smooth_ece(p: AnyPredictions) -> float:
    """Smooth calibration error of the top option: the one sigma at which `smooth_ece_at(p, sigma)` equals sigma.

    smooth_ece_at falls as sigma grows, so there is exactly one; it is found to 1e-9 for the grid of CELLS. Between 0
    and 1, never above the mean |hit - conf|, never below |accuracy - mean confidence|. 0 where right and wrong cancel
    at every confidence.
    Source: Blasiok & Nakkiran 2023 (arXiv 2309.12236). Their library, relplot 1.0.3, gives the error at a sigma up to
    1/1024 too large: equal to 1e-3 where no confidence is near 1. It leaves out the mirror image of what lies at the
    end itself, so a confidence of 1 counts half there: .122 for .118 on a sharp model's real letters.
    """
    waves = _waves(p)
    # At 0 the difference is not negative, and at 2 it is below 0 as no error is above 1.
    return float(brentq(lambda sigma: _smoothed_area(waves, sigma) / len(p.hit) - sigma, 0.0, 2.0, xtol=1e-9))


def smooth_ece_at(p: AnyPredictions, sigma: float) -> float:
    """Calibration error at bandwidth sigma, the integral over [0, 1] of |(1/N) sum_i K(t, conf_i) (hit_i - conf_i)| dt.

    K(t, c) = sum over whole m of phi(t - c - 2m) + phi(t + c - 2m), phi the normal density of deviation sigma: a
    Gaussian reflected at 0 and 1 as often as it takes, so that no mass leaves the interval.
    Source: Blasiok & Nakkiran 2023 (arXiv 2309.12236).
    """
    return _smoothed_area(_waves(p), sigma) / len(p.hit)


def _waves(p: AnyPredictions) -> Floats:
    """Cosine transform of the residuals hit - conf, each shared by the two cells with the nearest centres."""
    place = np.clip(p.confidence * CELLS - 0.5, 0, CELLS - 1)
    left = np.minimum(place.astype(np.int64), CELLS - 2)
    share, residual = place - left, p.hit - p.confidence
    lower = np.bincount(left, residual * (1 - share), minlength=CELLS)
    upper = np.bincount(left + 1, residual * share, minlength=CELLS)
    return np.asarray(dct(lower + upper), dtype=np.float64)


def _smoothed_area(waves: Floats, sigma: float) -> float:
    """Sum over cells of the absolute smoothed residual; reflected smoothing only damps the cosines of [0, 1]."""
    damping = np.exp(-((np.pi * sigma * np.arange(CELLS)) ** 2) / 2)
    return float(np.abs(idct(waves * damping)).sum())
