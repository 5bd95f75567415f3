"""What every benchmark file builds on: the list that questions are added to, and the table entry of a benchmark."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.questions import PromptStyle, Question, TaskSet, content_id


class QuestionList:
    """The questions of one task in the order they are read, each with an id that no other has."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.questions: list[Question] = []
        self._places: dict[str, str] = {}
        self._content_ids: Counter[str] = Counter()

    def add(
        self,
        place: str,
        question: str,
        choices: Sequence[str],
        answer: int,
        *,
        id: str | None = None,
        subject: str = "",
        context: str | None = None,
    ) -> None:
        """Append one question; without an `id` it gets one from its content.

        Raises InputError, without a place, for what Question refuses, blank texts, and an id that was there before.
        """
        _check_texts(question, choices, id or "", subject, context or "")
        if id is None:
            id = self._numbered(content_id(self.task, question, choices, subject))
        if id in self._places:
            raise InputError(f"id {id!r} stands already at {self._places[id]}")
        self._places[id] = place
        self.questions.append(Question(id, question, tuple(choices), answer, subject, context))

    def _numbered(self, id: str) -> str:
        """`id` where it is new, else with -2, -3, ...: MMLU asks 27 questions twice, word for word."""
        self._content_ids[id] += 1
        count = self._content_ids[id]
        return id if count == 1 else f"{id}-{count}"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its prompt style, the files it is read from, and the function that reads them.

    `layouts` are alternatives, tried in this order; a layout is the files, relative to the data folder, that must all
    be there. A `*` stands for any name.
    """

    name: str
    style: PromptStyle
    description: str
    layouts: tuple[tuple[str, ...], ...]
    read: Callable[[QuestionList, Sequence[Path]], None]

    @property
    def expected(self) -> str:
        """The files of all layouts in words."""
        return ", or ".join(" and ".join(layout) for layout in self.layouts)

    def find(self, data_dir: Path) -> list[Path]:
        """The files of the first layout that `data_dir` holds, none where it holds none."""
        for layout in self.layouts:
            found = [_matches(data_dir, pattern) for pattern in layout]
            if all(found):
                return [path for paths in found for path in paths]
        return []

    def load(self, data_dir: Path) -> TaskSet:
        """All questions of the benchmark."""
        paths = self.find(data_dir)
        if not paths:
            raise InputError(f"task {self.name}: --data-dir {data_dir} does not hold {self.expected}")
        asked = QuestionList(self.name)
        self.read(asked, paths)
        source = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files in {paths[0].parent}"
        return TaskSet(self.name, self.style, tuple(asked.questions), source)


def _matches(data_dir: Path, pattern: str) -> list[Path]:
    # Hidden files are left out: archives packed on a Mac carry a `._NAME` beside each NAME.
    return sorted(path for path in data_dir.glob(pattern) if path.is_file() and not path.name.startswith("."))


def _check_texts(question: str, choices: Sequence[str], *others: str) -> None:
    if not question.strip():
        raise InputError("the question is empty")
    for index, choice in enumerate(choices):
        if not choice.strip():
            raise InputError(f"choice {index} (of 0 to {len(choices) - 1}) is empty")
    try:
        "".join([question, *choices, *others]).encode()
    except UnicodeEncodeError as error:
        raise InputError("a text holds half of a surrogate pair (\\ud800 to \\udfff)") from error
