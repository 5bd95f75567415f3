"""Looks at what a point answered so far, beside the points that no other one beats, and may say that it is hopeless."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from merge_calib.choosing import Answered
from merge_calib.frontier import undominated
from merge_calib.inference.hopeless import estimate, hopeless
from merge_calib.merging.point import MergePoint
from merge_calib.scores import Predictions
from merge_calib.search.objectives import are_known, losses
from merge_calib.search.strategy import Outcome


class Incumbents:
    """The points that were asked all choosing questions; `look` compares with those that none of them beats.

    looks: how often a point is looked at
    """

    def __init__(self, objectives: Sequence[str], confidence: float, bins: int, looks: int) -> None:
        self._objectives = tuple(objectives)
        self._confidence = confidence
        self._bins = bins
        self._looks = looks
        self._outcomes: dict[str, Outcome] = {}

    def hear(self, point: MergePoint, outcome: Outcome | None) -> None:
        """Take in what was measured; points that failed or were stopped are compared with nothing."""
        if outcome is not None and not outcome.stopped and are_known(outcome.measures, self._objectives):
            self._outcomes[point.name] = outcome

    def look(self, answered: Answered) -> Mapping[str, Any] | None:
        """Why a point is hopeless that answered so, and what a search is to be told of it; None where it is not."""
        partial = {task: scores.predictions for task, scores in answered.items()}
        incumbents = {name: _same_questions(outcome, answered) for name, outcome in self._best().items()}
        verdict = hopeless(
            partial,
            incumbents,
            self._objectives,
            confidence=self._confidence,
            looks=self._looks,
            chosen_from=len(self._outcomes),
            bins=self._bins,
        )
        if verdict is None:
            return None
        incumbent = verdict.incumbent
        told = estimate(partial, incumbents[incumbent], self._outcomes[incumbent].measures, self._bins)
        return {
            "asked": verdict.asked,
            "dominated_by": incumbent,
            "confidence": self._confidence,
            "behind": [{"measure": b.measure, "value": b.value, "low": b.low} for b in verdict.behind],
            "measures": told,
        }

    def _best(self) -> dict[str, Outcome]:
        """The outcomes that no other one beats by the objectives."""
        names = list(self._outcomes)
        if not names:
            return {}
        kept = undominated(np.array([losses(self._outcomes[n].measures, self._objectives) for n in names]))
        return {name: self._outcomes[name] for name, keep in zip(names, kept, strict=True) if keep}


def _same_questions(outcome: Outcome, answered: Answered) -> dict[str, Predictions]:
    """What a point answered to the questions that another was asked so far, in their order; all of other tasks."""
    found = {task: scores.predictions for task, scores in outcome.scores.items()}
    for task, scores in answered.items():
        place = {id: i for i, id in enumerate(outcome.scores[task].ids)}
        p = outcome.scores[task].predictions.take(np.array([place[id] for id in scores.ids]))
        found[task] = _narrowed(p, scores.mask.shape[1])
    return found


def _narrowed(p: Predictions, options: int) -> Predictions:
    """Without the columns that only other questions need, which have more options."""
    return Predictions(p.log_probabilities[:, :options], p.probabilities[:, :options], p.answers, p.mask[:, :options])
