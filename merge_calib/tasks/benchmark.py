"""What every benchmark file builds on: the list that questions are added to, and the table entry of a benchmark."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.questions import PromptStyle, Question, TaskSet, content_id
from merge_calib.tasks.hub import INSTALL, HubData
from merge_calib.tasks.ids import Ids
from merge_calib.tasks.library import Library
from merge_calib.tasks.lines import Rows, Values, located

EXAMPLES = 32  # worked examples that are read at most, of a subject where they belong to one


@dataclass(frozen=True)
class Draft:
    """A question as its source gives it; without an `id` it gets one from its content."""

    question: str
    choices: Sequence[str]
    answer: int
    id: str | None = None
    subject: str = ""
    context: str | None = None
    split: str = ""


Parser = Callable[[Values], Draft]


def make_questions(task: str, rows: Rows, parse: Parser, ids: Ids | None = None) -> list[Question]:
    """The questions of all rows in their order, each with an id that no other has, here or among `ids`.

    Raises InputError with the row's place for what Question refuses, blank texts, and an id that was there before.
    """
    ids, questions = ids or Ids(), []
    for place, values in rows:
        with located(place):
            draft = parse(values)
            _check_texts(draft)
            id = _take_id(ids, task, place, draft)
            choices = tuple(draft.choices)
            rest = draft.answer, draft.subject, draft.context, draft.split
            questions.append(Question(id, draft.question, choices, *rest))
    return questions


def group_by_subject(examples: Iterable[Question]) -> dict[str, tuple[Question, ...]]:
    """Worked examples by their subjects, in their order."""
    grouped: dict[str, tuple[Question, ...]] = {}
    for example in examples:
        grouped[example.subject] = (*grouped.get(example.subject, ()), example)
    return grouped


class LateExamples(Mapping[str, tuple[Question, ...]]):
    """Worked examples that are read when they are first looked at: most runs show none."""

    def __init__(self, read: Callable[[], Mapping[str, tuple[Question, ...]]]) -> None:
        self._read = read

    @cached_property
    def _examples(self) -> Mapping[str, tuple[Question, ...]]:
        return self._read()

    def __getitem__(self, subject: str) -> tuple[Question, ...]:
        return self._examples[subject]

    def __iter__(self) -> Iterator[str]:
        return iter(self._examples)

    def __len__(self) -> int:
        return len(self._examples)


@dataclass(frozen=True)
class Part:
    """The questions or the worked examples of a benchmark: their original files, and their split on the hub.

    `layouts` are alternatives, tried in this order; a layout is the files, relative to the data folder, that must all
    be there. A `*` stands for any name. `words` says in short what they are where there are many.
    """

    layouts: tuple[tuple[str, ...], ...]
    split: str
    words: str = ""

    @property
    def expected(self) -> str:
        """The files of all layouts in words."""
        return self.words or ", or ".join(" and ".join(layout) for layout in self.layouts)

    def find(self, data_dir: Path) -> list[Path]:
        """The files of the first layout that `data_dir` holds, none where it holds none."""
        for layout in self.layouts:
            found = [_matches(data_dir, pattern) for pattern in layout]
            if all(found):
                return [path for paths in found for path in paths]
        return []


@dataclass(frozen=True)
class Found:
    """Rows that are there to be read, where they are, and what reads one of them."""

    source: str
    rows: Rows
    parse: Parser


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its prompt style, where it is read from, and the functions that read it.

    `read` gives the rows of original files and `parse` reads one of them, `parse_hub` a row of the hub's data set.
    `validation` holds the questions that can select where those of `asked` are a test split. `family` names the
    benchmark that this one is a part of. With `by_subject` the questions are in the order of their
    subjects, and each subject has worked examples of its own. With `may_vary` the number of options differs.
    """

    name: str
    style: PromptStyle
    description: str
    asked: Part
    shown: Part
    read: Callable[[Sequence[Path]], Rows]
    parse: Parser
    hub: HubData
    parse_hub: Parser
    validation: Part | None = field(default=None, kw_only=True)
    family: str = field(default="", kw_only=True)
    by_subject: bool = field(default=False, kw_only=True)
    may_vary: bool = field(default=False, kw_only=True)

    @property
    def expected(self) -> str:
        """What a data folder may hold of this benchmark, in words."""
        return f"{self.asked.expected}, or the saved data set {self.hub.expected}"

    def find(self, data_dir: Path) -> list[Path]:
        """The original files of the questions, or the folders of a saved split; none where there are none."""
        return self.asked.find(data_dir) or self.hub.find(data_dir, self.asked.split)

    def load(self, library: Library) -> TaskSet:
        """All questions of the benchmark, and its worked examples once they are looked at.

        With the library's `validation` those of its validation split are among them, to select by, and the others
        are to report.
        """
        found = self._look(self.asked, library)
        if found is None:
            raise InputError(self._absence(library))
        ids = Ids()
        questions = self._questions(found, ids)
        if library.validation:
            questions, found = self._with_validation(questions, found, ids, library)
        kept = self._keep(questions, library)
        source = found.source
        if len(kept) < len(questions):
            source = f"{source}; {len(questions) - len(kept)} questions without exactly 4 options are left out"
        examples = LateExamples(partial(self._load_examples, library))
        where = f"{self.shown.expected}, in --data-dir"
        return TaskSet(self.name, self.style, tuple(kept), source, examples, examples_source=where)

    def _with_validation(
        self, questions: list[Question], found: Found, ids: Ids, library: Library
    ) -> tuple[list[Question], Found]:
        """The questions as those to report, with those to select by; what is asked in both is not selected by."""
        flag = "--select-from-validation"
        if self.validation is None:
            raise InputError(f"{flag}: task {self.name} has no validation questions besides those that are asked")
        other = self._look(self.validation, library)
        if other is None:
            raise InputError(f"{flag}: task {self.name}: {library.data_dir} does not hold {self.validation.expected}")
        asked = {(q.subject, q.question, q.choices) for q in questions}
        given = self._questions(other, ids)
        new = [q for q in given if (q.subject, q.question, q.choices) not in asked]
        left_out = f", {len(given) - len(new)} of them left out that are asked in both" if len(new) < len(given) else ""
        source = f"{found.source}; selected by {other.source}{left_out}"
        divided = [*(replace(q, split="report") for q in questions), *(replace(q, split="select") for q in new)]
        return self._in_order(divided), replace(found, source=source)

    def _load_examples(self, library: Library) -> dict[str, tuple[Question, ...]]:
        found = self._look(self.shown, library)
        if found is None:
            return {}
        if not self.by_subject:
            first = self._questions(Found(found.source, islice(found.rows, EXAMPLES), found.parse))
            return {"": tuple(self._keep(first, library))}
        grouped = group_by_subject(self._questions(found))
        return {subject: examples[:EXAMPLES] for subject, examples in grouped.items()}

    def _look(self, part: Part, library: Library) -> Found | None:
        """Look for original files, then for a saved data set, then on the hub."""
        if library.data_dir is not None:
            if paths := part.find(library.data_dir):
                source = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files in {paths[0].parent}"
                return Found(source, self.read(paths), self.parse)
            if folders := self.hub.find(library.data_dir, part.split):
                place = library.data_dir / self.hub.repo
                source = str(folders[0]) if len(folders) == 1 else f"{len(folders)} data sets in {place}"
                return Found(source, self.hub.saved_rows(folders), self.parse_hub)
        if library.hub:
            return Found(f"{self.hub.repo} on the hub", self.hub.hub_rows(part.split), self.parse_hub)
        return None

    def _questions(self, found: Found, ids: Ids | None = None) -> list[Question]:
        return self._in_order(make_questions(self.family or self.name, found.rows, found.parse, ids))

    def _in_order(self, questions: list[Question]) -> list[Question]:
        return sorted(questions, key=lambda q: q.subject) if self.by_subject else questions

    def _keep(self, questions: list[Question], library: Library) -> list[Question]:
        if not (library.four_options and self.may_vary):
            return questions
        return [q for q in questions if len(q.choices) == 4]

    def _absence(self, library: Library) -> str:
        if library.data_dir is None:
            needed = f"task {self.name} needs --data-dir, a folder with {self.expected}"
            return f"{needed}; to read {self.hub.repo} from the hub instead, {INSTALL}"
        lacking = f"task {self.name}: --data-dir {library.data_dir} does not hold {self.expected}"
        return f"{lacking}; without --data-dir {self.hub.repo} is read from the hub ({INSTALL})"


def _matches(data_dir: Path, pattern: str) -> list[Path]:
    # Hidden files are left out: archives packed on a Mac carry a `._NAME` beside each NAME.
    return sorted(path for path in data_dir.glob(pattern) if path.is_file() and not path.name.startswith("."))


def _take_id(ids: Ids, task: str, place: str, draft: Draft) -> str:
    if draft.id is not None:
        return ids.take(draft.id, place)
    return ids.take_made(content_id(task, draft.question, draft.choices, draft.subject), place)


def _check_texts(draft: Draft) -> None:
    if not draft.question.strip():
        raise InputError("the question is empty")
    for index, choice in enumerate(draft.choices):
        if not choice.strip():
            raise InputError(f"choice {index} (of 0 to {len(draft.choices) - 1}) is empty")
    check_unicode(draft.question, *draft.choices, draft.id or "", draft.subject, draft.context or "")


def check_unicode(*texts: str) -> None:
    """Raise InputError for halves of surrogate pairs, which JSON can name and no encoding can write."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InputError("a text holds half of a surrogate pair (\\ud800 to \\udfff)") from error
