"""A plan as JSON, so that a worker elsewhere does what the sweep was asked to do."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from merge_calib.analysis import Analysis
from merge_calib.checkpoints.opening import Parents
from merge_calib.errors import InputError, RunDirectoryError
from merge_calib.plan import DTYPES, SweepPlan, dtype_name
from merge_calib.search.storage import masked

HIDDEN = "***"  # what `masked` puts for a password
_MODELS = ("base", "aligned", "adapter_base")
_LEFT_OUT = ("out", "workers", "device")  # a worker has its own


def plan_record(plan: SweepPlan) -> dict[str, Any]:
    """The options of `plan` by their names; paths are absolute, and --storage has no password."""
    values = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name not in _LEFT_OUT}
    values |= {
        "parents": {k: _absolute(v) if k in _MODELS else v for k, v in asdict(plan.parents).items()},
        "analysis": plan.analysis.record(),
        "tasks": [_absolute_task(task) for task in plan.tasks],
        "storage": None if plan.storage is None else _absolute_storage(plan.storage),
    }
    return {name: _plain(value) for name, value in values.items()}


def plan_of(run: Mapping[str, Any], out: Path, device: torch.device, storage: str | None) -> SweepPlan:
    """The plan that run.json holds, for a worker with its own `device`, and `storage` where it is given.

    Raises RunDirectoryError for a run that has no plan and for what this version does not understand, InputError for a
    storage whose password the run does not know.
    """
    if run.get("kind", "sweep") != "sweep":
        raise RunDirectoryError(f"{out} holds an {run['kind']}; workers help with sweeps only")
    if "plan" not in run:
        raise RunDirectoryError(f"{out / 'run.json'} has no plan that a worker could follow; give the sweep again")
    try:
        values = dict(run["plan"])
        values["storage"] = _storage(values, out, storage)
        parents: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.pop("parents").items()
        }
        for name in ("data_dir", "task_dir", "prompts"):
            values[name] = None if values[name] is None else Path(values[name])
        for name in ("dtype", "out_dtype"):
            values[name] = None if values[name] is None else DTYPES[values[name]]
        for name in ("tasks", "confidence", "lambdas", "objectives"):
            values[name] = tuple(values[name])
        values["ranges"] = {name: tuple(ends) for name, ends in values["ranges"].items()}
        values["group_lambdas"] = {name: tuple(lambdas) for name, lambdas in values["group_lambdas"].items()}
        values["analysis"] = Analysis.of({"analysis": values["analysis"]})
        # A worker is never alone, which matters to storages that only one may use.
        return SweepPlan(parents=Parents(**parents), out=out, device=device, workers=2, **values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunDirectoryError(
            f"{out / 'run.json'}: its plan is not understood ({error!r}); give the sweep again"
        ) from error


def _storage(values: Mapping[str, Any], out: Path, given: str | None) -> str | None:
    """Where the study of a run is; `given`, with a password or by another host's name, must be the same place."""
    known: str | None = values["storage"]
    if values["search"] != "optuna" or given is None:
        if HIDDEN in (known or ""):
            raise InputError(f"--storage: the run does not keep the password of {known}; give the whole URL")
        return known
    if known is None or _last_name(given) != _last_name(known):
        raise InputError(
            f"--storage {masked(given)}: the study of the run is in {known or out / 'study.journal'}; a worker that "
            "asked another one would search on its own (--storage may come from MERGE_CALIB_STORAGE)"
        )
    return given


def _last_name(storage: str) -> str:
    """The name of the file or of the database."""
    return storage.partition("?")[0].rpartition("/")[2]


def _absolute(value: Any) -> Any:
    """A path of this machine in full; names of the hub and of benchmarks as they are."""
    if isinstance(value, list | tuple):
        return [_absolute(each) for each in value]
    is_path = isinstance(value, str) and Path(value).exists()
    return str(Path(value).resolve()) if is_path else value


def _absolute_storage(storage: str) -> str:
    return masked(storage) if "://" in storage else str(Path(storage).resolve())


def _absolute_task(task: str) -> str:
    """`FILE.jsonl` and `KIND:PATH` in full; a benchmark is not mistaken for a folder of its name."""
    kind, colon, path = task.rpartition(":")
    is_file = path.endswith(".jsonl") or Path(path).is_file()
    return f"{kind}{colon}{_absolute(path)}" if colon or is_file else task


def _plain(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
