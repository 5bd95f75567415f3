"""Data sets of the Hugging Face hub, saved on disk or asked for by name, through the package `datasets`.

`datasets` is imported only when a data set is read: it is no dependency, but the extra `hub`.
"""

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_calib.errors import InputError
from merge_calib.tasks.lines import Rows, Values

INSTALL = "pip install 'merge-calib[hub]'"
INSTEAD = "a folder with the files can be given with --data-dir, see merge-calib tasks"


@dataclass(frozen=True)
class HubData:
    """A benchmark on the hub: its repository, and the configurations that hold it ("" where there is but one).

    `configs` are alternatives, tried in this order; an alternative is the configurations that must all be there.
    From the hub itself the first alternative is read. Only rows of `subjects` count, where any are given.
    """

    repo: str
    configs: tuple[tuple[str, ...], ...] = (("",),)
    subjects: frozenset[str] = frozenset()

    @property
    def expected(self) -> str:
        """Where a saved data set is looked for, below the data folder."""
        return "/".join(filter(None, (self.repo, self.configs[0][0])))

    def find(self, data_dir: Path, split: str) -> list[Path]:
        """The saved splits below DATA_DIR/REPO/CONFIG of the first alternative that is there, none for none."""
        for configs in self.configs:
            found = [_find_split(data_dir / self.repo / config, split) for config in configs]
            if all(found):
                return [path for path in found if path]
        return []

    def saved_rows(self, folders: Iterable[Path]) -> Rows:
        """The rows of saved splits, each with its place; rows count from 0."""
        for folder in folders:
            yield from self._placed(_read_saved(folder), str(folder))

    def hub_rows(self, split: str) -> Rows:
        """The rows of a split as the hub, or its cache on this machine, has them."""
        for config in self.configs[0]:
            place = f"{self.repo}[{', '.join(filter(None, (config, split)))}]"
            yield from self._placed(_read_hub(self.repo, config, split, place), place)

    def _placed(self, data: Iterable[Values], place: str) -> Rows:
        for number, values in enumerate(data):
            if not self.subjects or values.get("subject") in self.subjects:
                yield f"{place} row {number}", values


def _find_split(folder: Path, split: str) -> Path | None:
    """The folder of one split as `save_to_disk` wrote it, among others or alone."""
    if (folder / "dataset_dict.json").is_file():
        return folder / split if (folder / split / "state.json").is_file() else None
    state = folder / "state.json"
    return folder if state.is_file() and _recorded_split(state) in (split, None) else None


def _recorded_split(state: Path) -> str | None:
    """The split that a data set saved alone says it is, None where it says nothing."""
    try:
        recorded = json.loads(state.read_text(encoding="utf-8")).get("_split")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{state}: not the state of a saved data set: {error}") from error
    return None if recorded is None else str(recorded).split("[")[0]


def _read_saved(folder: Path) -> Iterable[Values]:
    return _read(f"the saved data set {folder}", lambda datasets: datasets.Dataset.load_from_disk(str(folder)))


def _read_hub(repo: str, config: str, split: str, place: str) -> Iterable[Values]:
    return _read(f"{place} of the hub", lambda datasets: datasets.load_dataset(repo, config or None, split=split))


def _read(what: str, read: Callable[[Any], Iterable[Values]]) -> Iterable[Values]:
    """What `read` makes of the package `datasets`; whatever goes wrong there becomes one InputError."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise InputError(f"{what} is read with the package datasets: {INSTALL} ({error}); {INSTEAD}") from error
    try:
        return read(datasets)
    except Exception as error:  # foreign code between us and disks, networks and servers
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(f"{what} cannot be read: {type(error).__name__}: {reason}; {INSTEAD}") from error
