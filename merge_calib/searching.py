"""The search that a plan asks for."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from merge_calib.checkpoints.pair import ModelPair
from merge_calib.errors import InputError
from merge_calib.merging.groups import parse_groups, require_groups
from merge_calib.plan import SweepPlan
from merge_calib.search.adaptive import Adaptive
from merge_calib.search.grid import Grid, line, product
from merge_calib.search.objectives import require_objectives
from merge_calib.search.samplers import make_sampler
from merge_calib.search.space import Space
from merge_calib.search.storage import open_storage, open_study, require_own
from merge_calib.search.strategy import Strategy
from merge_calib.search.study import StudySearch, directions

JOURNAL = "study.journal"


def searched_by(plan: SweepPlan, pair: ModelPair) -> Grid | Adaptive | Space:
    """The points of a grid, the search over one lambda, or the space that a study searches.

    Raises InputError naming the flag for what does not fit the models or cannot be searched.
    """
    selectors = _groups(plan, pair)
    if plan.search == "optuna":
        require_objectives(plan.objectives)
        make_sampler(plan.sampler, plan.seed)
        return Space(plan.methods, plan.options, plan.ranges, min(plan.lambdas), max(plan.lambdas), selectors)
    if plan.search == "adaptive":
        return Adaptive(
            plan.method,
            plan.options,
            min(plan.lambdas),
            max(plan.lambdas),
            budget=plan.budget,
            tolerance=plan.tolerance,
            fallback=plan.lambdas,
            bins=plan.bins,
            rule=plan.analysis.rule,
        )
    if not selectors:
        return Grid(line(plan.method, plan.options, plan.lambdas))
    return Grid(
        product(plan.method, plan.options, {name: plan.group_lambdas.get(name, plan.lambdas) for name in selectors})
    )


def require_storage(
    plan: SweepPlan, searched: Grid | Adaptive | Space, record: Mapping[str, Any], run_id: str | None
) -> None:
    """Raise where the storage that --storage names cannot be used, or has this study for another run (None: a new one).

    Nothing is written into it.
    """
    if plan.storage is not None and isinstance(searched, Space):
        storage = open_storage(plan.storage, plan.out, workers=plan.workers)
        require_own(storage, _study_name(plan, searched, record), run_id)


def strategy_of(
    plan: SweepPlan,
    searched: Grid | Adaptive | Space,
    record: Mapping[str, Any],
    folder: Path,
    run_id: str,
    alone: Callable[[], AbstractContextManager[Any]],
) -> Strategy:
    """The strategy; a study is opened, or begun, where --storage says, or in the run directory `folder`.

    record: the content of run.json; run_id: what tells the run from others that share the storage; alone: holds other
    workers off while the study is asked
    Raises InputError or RunDirectoryError for a storage that cannot be used.
    """
    if not isinstance(searched, Space):
        return searched
    storage = open_storage(plan.storage, folder / JOURNAL, workers=plan.workers)
    study = open_study(storage, _study_name(plan, searched, record), run_id, directions(plan.objectives))
    return StudySearch(searched, plan.objectives, study, plan.trials, plan.seed, plan.sampler, plan.min_accuracy, alone)


def _study_name(plan: SweepPlan, space: Space, record: Mapping[str, Any]) -> str:
    """What a study is called: all that makes its trials comparable, so that another search has a study of its own."""
    choices = {name: task for name, task in record["tasks"].items() if task["kind"] == "choice"}
    asked = ", ".join(f"{name} {task['sha256'][:8]}" for name, task in choices.items())
    given = "".join(f" {option} {value:g}" for option, value in plan.options.items())
    ranges = "".join(f" {option} {low:g}:{high:g}" for option, (low, high) in plan.ranges.items())
    groups = f" of {len(space.groups)} groups {' '.join(space.groups)}" if space.groups else ""
    lambdas = f"{min(plan.lambdas):g}:{max(plan.lambdas):g}"
    side = f"select ({plan.analysis.select_fraction:g})"
    how = f"{plan.sampler} seed {plan.seed}, {' and '.join(plan.objectives)} ({plan.bins} bins) of {plan.confidence[0]}"
    return f"{plan.method}{given}{ranges} {lambdas}{groups}, {how} on {side} of {asked}"


def _groups(plan: SweepPlan, pair: ModelPair) -> tuple[str, ...]:
    """The selectors of the groups that have lambdas of their own; empty where all tensors have one."""
    if not plan.groups and not plan.group_lambdas:
        return ()
    selectors = parse_groups(plan.groups, pair.layers) if plan.groups else tuple(plan.group_lambdas)
    if plan.group_lambdas and set(plan.group_lambdas) != set(selectors):
        strange = sorted(set(plan.group_lambdas) ^ set(selectors))[0]
        raise InputError(f"--lambdas and --groups disagree about {strange!r}; the groups are {', '.join(selectors)}")
    require_groups(selectors, pair.merged, pair.layers, "--groups" if plan.groups else "--lambdas")
    return selectors
