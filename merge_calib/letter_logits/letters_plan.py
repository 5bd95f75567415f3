"""What is read with `merge-calib letters`: the files, their columns, the tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from merge_calib.analysis import Analysis
from merge_calib.answers import MEAN
from merge_calib.errors import InputError
from merge_calib.questions import LETTERS
from merge_calib.tasks.mmlu import subjects_of
from merge_calib.tasks.own import SAFE_NAME


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns of the files by their names in the header; `logits` stand in the order of `choices`.

    subject: the column of the subject; "" where the name of the file tells it
    Raises InputError naming the flag.
    """

    question: str = "0"
    choices: tuple[str, ...] = ("1", "2", "3", "4")
    answer: str = "5"
    logits: tuple[str, ...] = ("Logit_A", "Logit_B", "Logit_C", "Logit_D")
    subject: str = ""

    def __post_init__(self) -> None:
        if not 2 <= len(self.choices) <= len(LETTERS):
            raise InputError(f"--choice-columns must name 2 to {len(LETTERS)} columns, not {len(self.choices)}")
        if len(self.logits) != len(self.choices):
            raise InputError(
                f"--logit-columns names {len(self.logits)} column(s), but --choice-columns {len(self.choices)}: each "
                "option needs one logit"
            )
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise InputError(f"the column {name!r} is named for two things in --question-column and its like")

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that a file must have."""
        subject = (self.subject,) if self.subject else ()
        return (self.question, *self.choices, self.answer, *self.logits, *subject)


@dataclass(frozen=True, kw_only=True)
class LettersPlan:
    """The options of `merge-calib letters`.

    tasks: `mmlu`, groups or subjects of MMLU, or the one name of other questions
    base_name, aligned_name: what the models are called; "" for their paths
    analysis: how what was read is judged
    """

    base: Path
    aligned: Path
    out: Path
    tasks: tuple[str, ...] = ("mmlu",)
    base_name: str = ""
    aligned_name: str = ""
    layout: Layout = field(default_factory=Layout)
    bins: int = 10
    analysis: Analysis = field(default_factory=Analysis)

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= 1000:
            raise InputError(f"--bins must lie between 1 and 1000, not {self.bins}")
        _check_tasks(self.tasks)
        if self.base_name and self.base_name == self.aligned_name:
            raise InputError(f"--base-name and --aligned-name are both {self.base_name!r}")

    @property
    def family(self) -> str:
        """The name that ids are made with: questions of MMLU have the ids that they have in a sweep."""
        return "mmlu" if subjects_of(self.tasks[0]) else self.tasks[0]


def _check_tasks(tasks: Sequence[str]) -> None:
    """Raise InputError for names that cannot stand together, or cannot be the name of a task."""
    for name in tasks:
        if not SAFE_NAME.fullmatch(name) or name == MEAN:
            raise InputError(f"--tasks {name!r} cannot be the name of a task, or is taken by the average over tasks")
        if not subjects_of(name) and name.startswith("mmlu"):
            raise InputError(f"--tasks {name!r}: MMLU has no such part; `merge-calib tasks` lists them")
        if not subjects_of(name) and len(tasks) > 1:
            raise InputError(f"--tasks {','.join(tasks)}: only MMLU and its parts can be asked together, not {name!r}")
        if tasks.count(name) > 1:
            raise InputError(f"--tasks: two tasks are called {name!r}")
