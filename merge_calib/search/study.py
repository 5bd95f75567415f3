"""An ordinary multi-objective Optuna study as a search."""

import hashlib
import math
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from merge_calib.errors import InputError
from merge_calib.merging.point import MergePoint
from merge_calib.search.grid import PARENTS
from merge_calib.search.objectives import HIGHER, require_objectives
from merge_calib.search.samplers import CONSTRAINTS, make_sampler
from merge_calib.search.space import Space
from merge_calib.search.storage import place_of, reachable, require_same
from merge_calib.search.strategy import Outcome

MOST_DIAGONAL = 7
ATTEMPTS = 100
SAMPLER_ATTEMPTS = 5  # a sampler that has met its optimum may insist on it; from then on, points are drawn at random


def directions(objectives: Sequence[str]) -> list[StudyDirection]:
    """Whether each objective is to rise or to fall."""
    return [StudyDirection.MAXIMIZE if name in HIGHER else StudyDirection.MINIMIZE for name in objectives]


class StudySearch:
    """Both parents, then `trials` points: some of the diagonal, the others by a sampler.

    A point is a trial: RUNNING from the moment it is proposed, COMPLETE or FAIL once it was heard of. A proposal is
    drawn on a copy of the study in memory, by a sampler of its own that is seeded with (seed, number of the trial,
    attempt), and enters the study in one operation. So whatever ends the process, the study has the point or has it
    not; RUNNING trials are proposed again, and one worker proposes what it would have proposed without a break.

    objectives: names of measures; min_accuracy: what a point should have, as a constraint to samplers
    alone: held while a new point is drawn, so that workers do so one after the other
    Raises InputError for bad objectives and RunDirectoryError where the study is of another search.
    """

    asks_whole = False

    def __init__(
        self,
        space: Space,
        objectives: Sequence[str],
        study: Study,
        trials: int,
        seed: int,
        sampler: str = "gp",
        min_accuracy: float | None = None,
        alone: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if trials < 1:
            raise InputError(f"--trials must be at least 1, not {trials}")
        make_sampler(sampler, 0)
        require_objectives(objectives)
        self._directions = directions(objectives)
        self._space = space
        self._objectives = tuple(objectives)
        self._study = study
        self._trials = trials
        self._seed = seed
        self._sampler = sampler
        self._min_accuracy = min_accuracy
        self._alone = alone
        self._starts = [*PARENTS, *space.diagonal(min(MOST_DIAGONAL, trials // 3))]
        self._place = place_of(study)
        self._is_exhausted = False
        self._claim()

    @property
    def total(self) -> int:
        return self._trials + len(PARENTS)

    @property
    def done(self) -> bool:
        trials = self._read()
        asked = self._is_exhausted or len(trials) >= self.total
        return asked and all(trial.state.is_finished() for trial in trials)

    @property
    def known(self) -> Collection[MergePoint]:
        return [_point(trial) for trial in self._read() if trial.state.is_finished()]

    def propose(self, busy: Collection[MergePoint] = ()) -> MergePoint | None:
        trials = self._read()
        for trial in trials:
            if not trial.state.is_finished() and (point := _point(trial)) not in busy:
                return point
        if self._is_exhausted or len(trials) >= self.total:
            return None
        with self._alone():
            return self._propose_new()

    def hear(self, point: MergePoint, outcome: Outcome | None) -> None:
        trial = next((trial for trial in self._read() if _point(trial) == point), None)
        assert trial is not None, f"{point.name} was not proposed"
        if trial.state.is_finished():
            return
        values, attributes = self._judge(outcome)
        storage = self._study._storage  # `tell` takes no attributes, and a Trial would ask the sampler anew
        # Another worker may tell it at this moment. The state comes last: what is cut off before it is heard again.
        with reachable(self._place), suppress(UpdateFinishedTrialError):
            for name, value in attributes.items():
                storage.set_trial_user_attr(trial._trial_id, name, value)
            if "constraint" in attributes:
                storage.set_trial_system_attr(trial._trial_id, CONSTRAINTS, [attributes["constraint"]])
            state = TrialState.FAIL if values is None else TrialState.COMPLETE
            storage.set_trial_state_values(trial._trial_id, state, values)

    def record(self) -> dict[str, Any]:
        states = [trial.state for trial in self._read()]
        return {
            "strategy": "optuna",
            "study": self._study.study_name,
            "storage": self._place,
            "sampler": self._sampler,
            "objectives": list(self._objectives),
            "trials": self._trials,
            "min_accuracy": self._min_accuracy,
            "seed": self._seed,
            "complete": states.count(TrialState.COMPLETE),
            "failed": states.count(TrialState.FAIL),
            "running": states.count(TrialState.RUNNING),
        }

    def _claim(self) -> None:
        """Let a new study remember what it searches; raises RunDirectoryError where it searches something else."""
        space = self._space
        searched = {name: distribution_to_json(distribution) for name, distribution in space.distributions.items()}
        require_same(self._study, "objectives", list(self._objectives))
        require_same(self._study, "methods", list(space.methods))
        require_same(self._study, "options", dict(space.options))
        require_same(self._study, "space", searched)
        with reachable(self._place), warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            if self._study.metric_names is None:
                self._study.set_metric_names(list(self._objectives))  # what optuna-dashboard calls the axes

    def _read(self) -> list[FrozenTrial]:
        """The trials of this search, oldest first; those that other tools added to the study are left alone."""
        with reachable(self._place):
            return [trial for trial in self._study.get_trials(deepcopy=False) if "record" in trial.user_attrs]

    def _propose_new(self) -> MergePoint | None:
        """A point that the study does not have, now in it; None where all trials are asked or none is left."""
        trials = self._read()
        if len(trials) >= self.total:
            return None
        trial = self._new_trial(trials)
        if trial is None:
            self._is_exhausted = True
            return None
        with reachable(self._place):
            self._study.add_trial(trial)
        return _point(trial)

    def _new_trial(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        known = {_point(trial) for trial in trials}
        if len(trials) < len(self._starts) and (start := self._starts[len(trials)]) not in known:
            params = self._space.params(start)
            # A parent that lies outside the space is measured all the same; samplers do not see it.
            return _running(start) if params is None else _running(start, self._ask(trials, 0, params))
        for attempt in range(ATTEMPTS):
            asked = self._ask(trials, attempt)
            point = self._space.point(asked.params)
            if point not in known:
                return _running(point, asked)
        return None

    def _ask(self, trials: Sequence[FrozenTrial], attempt: int, params: dict[str, Any] | None = None) -> FrozenTrial:
        """A trial of a copy of the study, with the parameters that a sampler chooses, or with given ones.

        Samplers also mark trials, as those of evolution do with generations; they do so with given parameters too.
        """
        name = self._sampler if attempt < SAMPLER_ATTEMPTS else "random"
        sampler = make_sampler(name, _mix(self._seed, len(trials), attempt), self._min_accuracy is not None)
        copy = optuna.create_study(directions=self._directions, sampler=sampler)
        copy.add_trials([self._copied(trial) for trial in trials if self._is_seen(trial)])
        if params is not None:
            copy.enqueue_trial(params)
        _ = copy.ask(self._space.distributions).relative_params  # marks the trial; with given parameters nobody asks
        asked = copy.get_trials(deepcopy=False)[-1]
        asked.params = self._space.rounded(asked.params)
        return asked

    def _is_seen(self, trial: FrozenTrial) -> bool:
        """Whether samplers learn of a trial; a single one without parameters would take all from their shared space."""
        is_known = trial.state in (TrialState.COMPLETE, TrialState.RUNNING)
        return is_known and trial.params.keys() == self._space.distributions.keys()

    def _copied(self, trial: FrozenTrial) -> FrozenTrial:
        """As samplers see it; the constraint is computed anew, for --min-accuracy may change between two starts."""
        attributes = {key: value for key, value in trial.system_attrs.items() if key != CONSTRAINTS}
        if self._min_accuracy is not None and trial.state == TrialState.COMPLETE:
            attributes[CONSTRAINTS] = [self._min_accuracy - trial.user_attrs["accuracy"]]
        return create_trial(
            state=trial.state,
            values=trial.values,
            params=trial.params,
            distributions=trial.distributions,
            system_attrs=attributes,
        )

    def _judge(self, outcome: Outcome | None) -> tuple[list[float] | None, dict[str, Any]]:
        """The values of the objectives and the attributes of the trial; no values where it failed."""
        if outcome is None:
            return None, {"reason": "it could not be measured"}
        measures = {name: outcome.measures.get(name) for name in dict.fromkeys(("accuracy", *self._objectives))}
        found = {name: float(value) for name, value in measures.items() if value is not None and math.isfinite(value)}
        if missing := [name for name in measures if name not in found]:
            return None, {"reason": f"{', '.join(missing)} has no finite value"}
        more: dict[str, Any] = {"stopped": outcome.stopped}
        if self._min_accuracy is not None:
            more["constraint"] = self._min_accuracy - found["accuracy"]
        return [found[name] for name in self._objectives], {**found, **more}


def _running(point: MergePoint, asked: FrozenTrial | None = None) -> FrozenTrial:
    return create_trial(
        state=TrialState.RUNNING,
        params=asked.params if asked else {},
        distributions=asked.distributions if asked else {},
        user_attrs={"point": point.name, "record": point.record()},
        system_attrs=asked.system_attrs if asked else {},
    )


def _point(trial: FrozenTrial) -> MergePoint:
    return MergePoint.read(trial.user_attrs["record"])


def _mix(seed: int, number: int, attempt: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {attempt}".encode()).digest()[:4], "big")
