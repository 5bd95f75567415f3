"""An ordinary multi-objective Optuna study over lambda: accuracy up, calibration error down."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState

from merge_calib.errors import RunDirectoryError
from merge_calib.merging.point import MergePoint
from merge_calib.search.grid import PARENTS
from merge_calib.search.strategy import Outcome

STEP = 0.0001  # lambdas are searched to four decimals, so that names and measured values agree
_DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]


class OptunaSearch:
    """Both parents, then `trials` points that a TPE sampler proposes in [low, high].

    The study holds finished trials only, in a journal file that any Optuna tool opens. A proposal is drawn from a copy
    of the study by a sampler seeded with (seed, number of trials), so it depends on nothing but what was measured:
    a search that was cut off at any moment goes on as if it had not been.
    """

    def __init__(
        self,
        method: str,
        options: Mapping[str, float],
        low: float,
        high: float,
        trials: int,
        seed: int,
        journal: Path,
        objective: str,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._method = method
        self._options = tuple(options.items())
        self._seed = seed
        self._distribution = FloatDistribution(round(low, 4), round(high, 4), step=STEP)
        self._trials = trials
        journal.parent.mkdir(parents=True, exist_ok=True)
        given = "".join(f" {option} {value}" for option, value in self._options)
        name = f"{method}{given} {low:g}:{high:g} seed {seed}, {objective}"
        try:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(journal))),
                study_name=name,
                directions=_DIRECTIONS,
                load_if_exists=True,
            )
        except (ValueError, KeyError, OSError) as error:
            raise RunDirectoryError(
                f"{journal} is damaged ({error}); delete it: measured points are kept and heard again"
            ) from error
        self._study.set_user_attr("objectives", ["accuracy (maximise)", "sce (minimise)"])

    @property
    def total(self) -> int:
        return self._trials + 2

    def propose(self) -> MergePoint | None:
        done = len(self._study.trials)
        if done >= self.total:
            return None
        if done < 2:
            return PARENTS[done]
        return MergePoint(self._method, self._ask(done), self._options)

    def hear(self, point: MergePoint, outcome: Outcome | None) -> None:
        assert point.lam is not None
        inside = self._distribution.low <= point.lam <= self._distribution.high
        trial = optuna.trial.create_trial(
            params={"lambda": point.lam} if inside else {},
            distributions={"lambda": self._distribution} if inside else {},
            user_attrs={"point": point.name},
            values=None if outcome is None else [outcome.accuracy, outcome.error],
            state=TrialState.FAIL if outcome is None else TrialState.COMPLETE,
        )
        self._study.add_trial(trial)

    def _ask(self, done: int) -> float:
        sampler = TPESampler(seed=_mix(self._seed, done))
        copy = optuna.create_study(directions=_DIRECTIONS, sampler=sampler)
        copy.add_trials(self._study.trials)
        return float(copy.ask({"lambda": self._distribution}).params["lambda"])


def _mix(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")
