"""Keeps in tests/golden/measures.json what other libraries measure, for tests/test_more_measures.py.

Needs scikit-learn, relplot and netcal (which needs torch): python tools/make_measures_golden.py
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "measures.json"
LIBRARIES = ("scikit-learn", "relplot", "netcal", "numpy", "scipy")
SIGMAS = (0.02, 0.05, 0.2)
Floats = NDArray[np.float64]
Drawn = tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]


@dataclass(frozen=True)
class Recipe:
    """Questions whose answers are drawn from Dirichlet rows, which are then changed: the data is not kept, only this.

    sharpen: power that the rows are raised to; flatten: share of the uniform distribution mixed in afterwards
    short: every third question lacks the last option; grains: rows become counts of so many draws, which gives ties
    bins: of the equal-mass calibration error
    """

    seed: int
    n: int
    options: int
    sharpen: float = 1.0
    flatten: float = 0.0
    short: bool = False
    grains: int = 0
    bins: int = 10

    def draw(self) -> Drawn:
        """Probabilities (N, C), answers (N,) and mask (N, C)."""
        rng = np.random.default_rng(self.seed)
        p = rng.dirichlet(np.ones(self.options), self.n)
        mask = np.ones(p.shape, dtype=bool)
        mask[::3, -1] = not self.short
        p = np.where(mask, p, 0.0) / np.where(mask, p, 0.0).sum(1, keepdims=True)
        answers = (rng.random(self.n)[:, None] > p.cumsum(1)).sum(1)
        p = p**self.sharpen / (p**self.sharpen).sum(1, keepdims=True)
        p = (1 - self.flatten) * p + self.flatten * mask / mask.sum(1, keepdims=True)
        if self.grains:
            p = rng.multinomial(self.grains, p) / self.grains
        return p, np.minimum(answers, mask.sum(1) - 1), mask


# relplot counts a confidence of 1 half, so what it is asked is flattened; netcal and calibration_curve cut between
# quantiles, so n is a multiple of the bins, and no confidence comes twice.
RECIPES = {
    "honest": Recipe(0, 1000, 4, flatten=0.1),
    "sharp": Recipe(0, 1000, 4, sharpen=2.0, flatten=0.1),
    "very sharp": Recipe(9, 3000, 4, sharpen=6.0, flatten=0.1, bins=15),
    "two options": Recipe(3, 1000, 2, sharpen=2.0, flatten=0.1),
    "five options": Recipe(1, 2376, 5, sharpen=1.5, flatten=0.1, bins=12),
    "three or four options": Recipe(5, 900, 4, sharpen=1.5, flatten=0.1, short=True),
    "ties": Recipe(6, 1000, 4, sharpen=1.5, flatten=0.1, grains=10),
    "ties, three or four options": Recipe(7, 900, 4, sharpen=1.5, short=True, grains=8),
}


def measure(recipe: Recipe) -> dict[str, object]:
    """What the libraries give for one recipe: ties only where a library says what it does with them."""
    p, answers, mask = recipe.draw()
    confidence, hit = p.max(1), (p.argmax(1) == answers).astype(float)
    values: dict[str, object] = {"mean_square": float((p**2).sum() / len(p))}  # tells whether the same data is drawn
    values |= {"brier_split": brier_split(p, answers, mask), "auroc": auroc(confidence, hit)}
    if not recipe.grains:
        values |= smooth(confidence, hit) | equal_mass(confidence, hit, recipe.bins)
    return values


def brier_split(p: Floats, answers: NDArray[np.int64], mask: NDArray[np.bool_]) -> list[float]:
    """Miscalibration, discrimination, uncertainty by differences of scores under scikit-learn's isotonic regression."""
    from sklearn.isotonic import IsotonicRegression  # type: ignore[import-not-found]
    from sklearn.metrics import brier_score_loss  # type: ignore[import-not-found]

    parts = np.zeros(3)
    for k in range(p.shape[1]):
        x, y = p[mask[:, k], k], (answers[mask[:, k]] == k).astype(int)
        fitted = np.clip(IsotonicRegression().fit_transform(x, y), 0, 1)
        raw, best, flat = (
            brier_score_loss(y, q, pos_label=1, labels=[0, 1]) for q in (x, fitted, np.full(len(y), y.mean()))
        )
        parts += np.array([raw - best, flat - best, flat]) * len(y) / len(p)
    return parts.tolist()


def auroc(confidence: Floats, hit: Floats) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(hit, confidence))


def smooth(confidence: Floats, hit: Floats) -> dict[str, object]:
    """relplot's smooth ECE, the bandwidth it stopped at, and its error at bandwidths that are given."""
    from relplot.metrics import smECE, smECE_sigma  # type: ignore[import-not-found]

    value, width = smECE(confidence, hit, return_width=True)
    at = {str(sigma): float(smECE_sigma(confidence, hit, sigma)) for sigma in (*SIGMAS, width)}
    return {"smooth_ece": float(value), "smooth_ece_width": float(width), "smooth_ece_at": at}


def equal_mass(confidence: Floats, hit: Floats, bins: int) -> dict[str, object]:
    """The calibration error over quantile bins, by netcal and by scikit-learn, whose bins are all alike in size."""
    from netcal.metrics import ECE  # type: ignore[import-not-found]
    from sklearn.calibration import calibration_curve  # type: ignore[import-not-found]

    true, stated = calibration_curve(hit, confidence, n_bins=bins, strategy="quantile")
    return {
        "adaptive_ece, netcal": float(ECE(bins, equal_intervals=False).measure(confidence, hit)),
        "adaptive_ece, scikit-learn": float(np.abs(true - stated).mean()),
    }


def kept_of(confidence: float, sigma: float = 0.05) -> float:
    """What relplot's kernel keeps of one question: 1 where no mass is lost (trapezoids, as its grid has both ends)."""
    from relplot.kernels import ReflectedGaussianKernel  # type: ignore[import-not-found]

    grid = np.linspace(0, 1, 2001)
    density = ReflectedGaussianKernel(sigma).apply(np.array([confidence]), np.ones(1), grid)
    return float(np.trapezoid(density, grid))


def main() -> None:
    note = {
        "what": "what other libraries measure, made by tools/make_measures_golden.py from the recipes there",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in LIBRARIES},
        "values": {name: {"recipe": asdict(recipe)} | measure(recipe) for name, recipe in RECIPES.items()},
        "relplot keeps of a confidence": {str(c): kept_of(c) for c in (0.7, 0.9995, 1.0)},
    }
    GOLDEN.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
