"""The questions that can be asked: benchmarks, own files, task files, and texts to go on with."""

from merge_calib.tasks.benchmark import Benchmark
from merge_calib.tasks.catalogue import BENCHMARKS, KnownTask, available_tasks, known_tasks, load_task
from merge_calib.tasks.library import Library

__all__ = ["BENCHMARKS", "Benchmark", "KnownTask", "Library", "available_tasks", "known_tasks", "load_task"]
