"""The questions that can be asked: the benchmarks, read from their original files, and own files."""

from difflib import get_close_matches
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.questions import TaskSet
from merge_calib.tasks.arc import ARC_CHALLENGE, ARC_EASY
from merge_calib.tasks.benchmark import Benchmark
from merge_calib.tasks.hellaswag import HELLASWAG
from merge_calib.tasks.medmcqa import MEDMCQA
from merge_calib.tasks.mmlu import MMLU
from merge_calib.tasks.own import load_own
from merge_calib.tasks.piqa import PIQA

__all__ = ["BENCHMARKS", "Benchmark", "available_tasks", "load_task"]

BENCHMARKS = {entry.name: entry for entry in (ARC_EASY, ARC_CHALLENGE, HELLASWAG, MEDMCQA, MMLU, PIQA)}


def load_task(name: str, data_dir: Path | None, limit: int | None = None) -> TaskSet:
    """The questions of a benchmark in `data_dir` or of an own file, all of them or the first `limit`.

    A benchmark's name means the benchmark; any other name that ends in .jsonl or is a file means that file.
    The whole file is checked, with a limit too.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: at least one question must be asked")
    if name in BENCHMARKS:
        return _load_benchmark(BENCHMARKS[name], data_dir).first(limit)
    if name.endswith(".jsonl") or Path(name).is_file():
        return load_own(Path(name)).first(limit)
    alike = get_close_matches(name.lower().replace("-", "_"), BENCHMARKS, n=1)
    meant = f"; did you mean {alike[0]}?" if alike else ""
    known = ", ".join(BENCHMARKS)
    raise InputError(f"unknown task {name!r} in --tasks: there are {known}, and own files NAME.jsonl{meant}")


def available_tasks(data_dir: Path | None) -> list[str]:
    """The benchmarks that `data_dir` holds, in the order of BENCHMARKS; none for None."""
    if data_dir is None:
        return []
    _check_folder(data_dir)
    return [name for name, benchmark in BENCHMARKS.items() if benchmark.find(data_dir)]


def _load_benchmark(benchmark: Benchmark, data_dir: Path | None) -> TaskSet:
    if data_dir is None:
        raise InputError(f"task {benchmark.name} needs --data-dir, a folder with {benchmark.expected}")
    _check_folder(data_dir)
    return benchmark.load(data_dir)


def _check_folder(data_dir: Path) -> None:
    if not data_dir.is_dir():
        raise InputError(f"--data-dir {data_dir}: there is no such folder")
