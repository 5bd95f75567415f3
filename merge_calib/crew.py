"""Workers on this host, each a process of its own: `merge-calib worker` on a GPU each, or on the CPU."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from merge_calib.files import ended_gently
from merge_calib.plan import SweepPlan
from merge_calib.progress import Watch
from merge_calib.run_directory import RunDirectory

STORAGE = "MERGE_CALIB_STORAGE"  # the environment is seen by fewer eyes than a command line: a URL has a password
COORDINATOR = "MERGE_CALIB_COORDINATOR"  # the process number of the sweep that started a worker
PAUSE = 0.2  # seconds between two looks at the workers
PATIENCE = 20.0  # seconds that a worker which is told to stop may take


class WorkerEndedWarning(UserWarning):
    """A worker ended before nothing was left to do; what it was at is measured by others."""


def work_together(run: RunDirectory, plan: SweepPlan, total: int, watch: Watch) -> None:
    """Have `plan.workers` processes measure `run` and wait until all have ended; total: points, for the progress bar.

    What each says is in workers/K.log of the run directory.
    """
    advance = watch("points", total)
    done = 0
    with _crew(run, plan) as crew:
        while any(worker.poll() is None for worker in crew):
            time.sleep(PAUSE)
            if (recorded := min(len(run.points()), total)) > done:
                advance(recorded - done)
                done = recorded
    for i, worker in enumerate(crew):
        if worker.returncode:
            log = _log(run, i)
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = said[-1] if said else f"exit code {worker.returncode}"
            warnings.warn(f"worker {i} ended early, see {log}: {reason}", WorkerEndedWarning, stacklevel=2)


def devices_for(workers: int, device: torch.device) -> list[str]:
    """A device for each worker: the GPUs in turn, unless one is named."""
    if device.type != "cuda" or device.index is not None:
        return [str(device)] * workers
    return [f"cuda:{i % torch.cuda.device_count()}" for i in range(workers)]


def end_with_coordinator() -> None:
    """Have this worker end when the sweep that started it is gone: one that was killed cannot tell it to."""
    coordinator = os.environ.get(COORDINATOR)
    if coordinator is not None:
        threading.Thread(target=_end_without, args=(int(coordinator),), daemon=True).start()


def _end_without(coordinator: int) -> None:
    while os.getppid() == coordinator:
        time.sleep(PAUSE)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _crew(run: RunDirectory, plan: SweepPlan) -> Iterator[Sequence["subprocess.Popen[bytes]"]]:
    """The running workers; none outlives the block, nor this process where it is told to end (SIGINT, SIGTERM)."""
    (run.path / "workers").mkdir(exist_ok=True)
    crew: list[subprocess.Popen[bytes]] = []
    with ended_gently():
        try:
            for i, device in enumerate(devices_for(plan.workers, plan.device)):
                command = [sys.executable, "-m", "merge_calib", "worker", str(run.path), "--device", device]
                with _log(run, i).open("wb") as log:
                    crew.append(subprocess.Popen(command, stdout=log, stderr=log, env=_environment(plan)))
            yield crew
        finally:
            _end(crew)


def _end(crew: Sequence["subprocess.Popen[bytes]"]) -> None:
    for worker in crew:
        worker.terminate()
    for worker in crew:
        try:
            worker.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _environment(plan: SweepPlan) -> dict[str, str]:
    """On a CPU as many threads as one worker alone would have, for sums in other parts have other last bits."""
    threads = torch.get_num_threads()
    if plan.device.type == "cuda":
        threads = max(1, threads // plan.workers)
    storage = {} if plan.storage is None else {STORAGE: plan.storage}
    inherited = {name: value for name, value in os.environ.items() if name != STORAGE}
    return {**inherited, "OMP_NUM_THREADS": str(threads), COORDINATOR: str(os.getpid()), **storage}


def _log(run: RunDirectory, i: int) -> Path:
    return run.path / "workers" / f"{i}.log"
