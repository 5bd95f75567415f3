"""Where questions come from."""

from dataclasses import dataclass
from pathlib import Path

from merge_calib.errors import InputError


@dataclass(frozen=True)
class Library:
    """The folders that are looked into, and what is chosen from them.

    `data_dir` holds the benchmarks' original files or saved data sets of the hub, `task_dir` task files; with `hub`
    the hub itself is asked for what `data_dir` does not hold. `four_options` keeps, of ARC, only the questions with
    exactly four options. With `validation` the questions of a benchmark's validation split are asked too, to select by.
    `seed` draws the places of the task clm.
    Raises InputError for a folder that is not there.
    """

    data_dir: Path | None = None
    task_dir: Path | None = None
    hub: bool = False
    four_options: bool = False
    validation: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for flag, folder in (("--data-dir", self.data_dir), ("--task-dir", self.task_dir)):
            if folder is not None and not folder.is_dir():
                raise InputError(f"{flag} {folder}: there is no such folder")
