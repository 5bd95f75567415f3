"""Samplers by name."""

import warnings
from collections.abc import Sequence

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from merge_calib.errors import InputError

SAMPLERS = ("gp", "tpe", "nsga2", "nsga3", "random")
CONSTRAINTS = "constraints"  # the attribute of a trial by which all versions of Optuna and its dashboard know them
POPULATION = 10  # a generation; with Optuna's 50, most searches would end within the first one, which is random


def make_sampler(name: str, seed: int, is_constrained: bool = False) -> BaseSampler:
    """A new sampler; a constrained one heeds the constraints that trials have in their system attributes.

    TPE draws all parameters together and keeps away from trials that others are measuring (the constant liar); where
    nobody else measures, it is what it is without. Raises InputError for a name that is unknown.
    """
    constraints_func = _constraints if is_constrained else None
    with warnings.catch_warnings():
        # Multivariate TPE, NSGA-III and constraints are called experimental by some versions; from 5.0 on, samplers
        # read constraints without being told to, and warn of what tells 4.x.
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message=".*constraints_func", category=FutureWarning)
        if name == "gp":
            return GPSampler(seed=seed, constraints_func=constraints_func)
        if name == "tpe":
            return TPESampler(seed=seed, multivariate=True, constant_liar=True, constraints_func=constraints_func)
        if name == "nsga2":
            return NSGAIISampler(seed=seed, population_size=POPULATION, constraints_func=constraints_func)
        if name == "nsga3":
            return NSGAIIISampler(seed=seed, population_size=POPULATION, constraints_func=constraints_func)
        if name == "random":
            return RandomSampler(seed=seed)
    raise InputError(f"--sampler {name} is unknown; allowed: {', '.join(SAMPLERS)}")


def _constraints(trial: FrozenTrial) -> Sequence[float]:
    """What is not above 0 is kept."""
    stored: Sequence[float] = trial.system_attrs[CONSTRAINTS]
    return stored
