"""The sweep: everything is prepared, points are measured by one worker or several, and what was found is written."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from merge_calib.crew import work_together
from merge_calib.errors import RunDirectoryError
from merge_calib.experiment import Experiment
from merge_calib.findings import findings_of
from merge_calib.frontier_record import write_frontier
from merge_calib.leases import Leases
from merge_calib.plan import SweepPlan
from merge_calib.preparation import Preparation, prepare
from merge_calib.progress import Watch, unwatched
from merge_calib.recovery import recover
from merge_calib.results import Results
from merge_calib.run_directory import RunDirectory
from merge_calib.scoring.instructions import read_prompts
from merge_calib.search.strategy import Strategy
from merge_calib.searching import require_storage, strategy_of
from merge_calib.working import Worker


class TornRecordWarning(UserWarning):
    """A record that was not whole was set aside, and what it recorded is made again."""


def sweep(plan: SweepPlan, watch: Watch = unwatched) -> Results:
    """Measure every point of `plan` that its run directory does not hold yet, and write what was found.

    What several workers leave, because they were killed, is measured here.
    Raises MergeCalibError for a fault of the user's, before anything is written where it can be known by then.
    """
    prepared = prepare(plan, watch)
    run = RunDirectory(plan.out)
    run.agree(prepared.record)
    require_storage(plan, prepared.searched, prepared.record, run.id if run.exists else None)
    experiment = experiment_of(prepared, run, watch)
    if not run.exists:
        experiment.load()  # a model that cannot be loaded leaves no folder behind
    if plan.workers > 1:
        experiment.release()
    with run.locked():
        run.agree(prepared.record)
        for path in run.mend():
            warnings.warn(f"{path} was not whole: what it recorded is made again", TornRecordWarning, stacklevel=2)
        experiment.agree()
        run.extend(prepared.record, prepared.tasks)
        worker = worker_of(prepared, run, experiment, watch)
        with _search_recorded(run, worker.strategy):
            if plan.workers > 1:
                work_together(run, plan, worker.strategy.total, watch)
            worker.work()
        results = Results.of(run)
        results.write()
        write_frontier(findings_of(results))
        recover(prepared, results, watch)
    return results


def help_out(plan: SweepPlan, watch: Watch = unwatched) -> None:
    """Measure points of the run in `plan.out`, which a sweep began, beside its other workers, until none is left.

    Raises RunDirectoryError where this worker's models, questions, version or device are not those of the run.
    """
    run = RunDirectory.open(plan.out)
    prepared = prepare(plan, watch)
    run.agree(prepared.record)
    _require_same_surroundings(run, prepared)
    experiment = experiment_of(prepared, run, watch)
    experiment.agree()
    worker_of(prepared, run, experiment, watch).work()


def experiment_of(prepared: Preparation, run: RunDirectory, watch: Watch) -> Experiment:
    """The model of a run, not loaded yet."""
    prompts = read_prompts(prepared.plan.prompts) if prepared.plan.retained else None
    return Experiment(prepared, run, prompts, watch)


def worker_of(prepared: Preparation, run: RunDirectory, experiment: Experiment, watch: Watch) -> Worker:
    """This process as a worker of the run."""
    plan = prepared.plan
    leases = Leases(run.path / ".leases")
    alone = partial(leases.wait_alone, "study")
    assert run.id is not None
    strategy = strategy_of(plan, prepared.searched, prepared.record, run.path, run.id, alone)
    return Worker(experiment, run, plan, strategy, leases, watch)


@contextmanager
def _search_recorded(run: RunDirectory, strategy: Strategy) -> Iterator[None]:
    """Keep search.json up to date: from the first proposal on the choosing questions are heard."""
    if strategy.record()["strategy"] == "grid":
        yield
        return
    run.write_search({**strategy.record(), "done": False})
    yield
    run.write_search({**strategy.record(), "done": True})


def _require_same_surroundings(run: RunDirectory, prepared: Preparation) -> None:
    """Raise RunDirectoryError where numbers measured here would not be those that other workers measure."""
    held, asked = run.plan, prepared.record
    pairs = {
        "merge-calib": (held["versions"]["merge_calib"], asked["versions"]["merge_calib"]),
        "device": (held["device"].partition(":")[0], asked["device"].partition(":")[0]),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise RunDirectoryError(f"{run.path}: its points are measured with {name} {theirs}, this worker has {ours}")
