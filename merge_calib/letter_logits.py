"""Runs made from CSV files of letter logits: what two models said to the same questions, without the models.

A file has a header and a question a row: its text, its options, the letter of the right one, and a logit for each
letter. A folder holds a file a subject, SUBJECT_test_logits.csv or SUBJECT.csv. Columns that are not named in the
layout are ignored.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import merge_calib
from merge_calib.errors import InputError
from merge_calib.merging.point import MergePoint
from merge_calib.questions import LETTERS, PromptStyle, Question, TaskSet, content_id
from merge_calib.results import MEAN, Results
from merge_calib.run_directory import FORMAT, RunDirectory
from merge_calib.scores import ChoiceScores, Floats
from merge_calib.tasks.benchmark import Draft
from merge_calib.tasks.ids import Ids
from merge_calib.tasks.lines import Values, located
from merge_calib.tasks.mmlu import subjects_of
from merge_calib.tasks.own import SAFE_NAME, letter_index
from merge_calib.tasks.records import read_csv, read_table

SOURCE = "letter logits"
BASE, ALIGNED = MergePoint("linear", 0.0), MergePoint("linear", 1.0)
_ENDINGS = ("_test_logits.csv", ".csv")


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
    """

    base: Path
    aligned: Path
    out: Path
    tasks: tuple[str, ...] = ("mmlu",)
    base_name: str = ""
    aligned_name: str = ""
    layout: Layout = field(default_factory=Layout)
    bins: int = 10
    accuracy_margin: float = 0.005

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= 1000:
            raise InputError(f"--bins must lie between 1 and 1000, not {self.bins}")
        if not 0 <= self.accuracy_margin <= 1:
            raise InputError(f"--accuracy-margin must lie between 0 and 1, not {self.accuracy_margin}")
        _check_tasks(self.tasks)

    @property
    def family(self) -> str:
        """The name that ids are made with: questions of MMLU have the ids that they have in a sweep."""
        return "mmlu" if subjects_of(self.tasks[0]) else self.tasks[0]


@dataclass(frozen=True)
class Letters:
    """What the files of both models say.

    questions: N of them, with an id each; base, aligned (N, C): bare logits of the letters
    repeated: how many questions stand there more than once, counted without the first of each
    without_text: how many questions have an option whose text is empty
    """

    questions: tuple[Question, ...]
    base: Floats
    aligned: Floats
    repeated: int
    without_text: int


def import_letters(plan: LettersPlan) -> Results:
    """Make a run directory of kind `sweep` that holds the two parents and no point between them.

    Everything is read and checked before anything is written. Raises InputError naming FILE:LINE or the flag, and
    RunDirectoryError for a directory that holds another run.
    """
    letters = read_letters(plan)
    chosen = {name: _rows_of(name, letters, plan) for name in plan.tasks}
    tasks = [_task(name, letters, rows, plan) for name, rows in chosen.items()]
    record = _record(plan, letters, tasks)
    run = RunDirectory(plan.out)
    run.agree(record)
    with run.locked():
        run.agree(record)
        run.extend(record, tasks)
        for point, path, logits in ((BASE, plan.base, letters.base), (ALIGNED, plan.aligned, letters.aligned)):
            _keep(run, point, path, [(task, logits[chosen[task.name]]) for task in tasks])
        results = Results.of(run)
        results.write()
    return results


def read_letters(plan: LettersPlan) -> Letters:
    """Read the files of both models; raises InputError where they are not about the same questions in one order."""
    files = _paired(plan, _read_side("--base", plan.base, plan), _read_side("--aligned", plan.aligned, plan))
    for pair in files:
        _require_same_rows(*pair)
    rows = [row for file, _ in files for row in file.rows]
    base, aligned = (np.array([row.logits for pair in files for row in pair[side].rows]) for side in (0, 1))
    if np.array_equal(base, aligned):
        raise InputError(f"--base {plan.base} and --aligned {plan.aligned} hold the same logits")
    questions = _questions(plan.family, rows)
    order = sorted(range(len(questions)), key=lambda i: questions[i].subject)  # as a sweep on MMLU has them
    distinct = {(row.draft.subject, row.draft.question, tuple(row.draft.choices)) for row in rows}
    return Letters(
        questions=tuple(questions[i] for i in order),
        base=_unlike_log_probabilities(base[order]),
        aligned=_unlike_log_probabilities(aligned[order]),
        repeated=len(rows) - len(distinct),
        without_text=_without_text(rows),
    )


def notes(plan: Mapping[str, Any]) -> list[str]:
    """What the files hold that a reader of the numbers must know, a line each, from run.json."""
    repeated, without_text = plan["repeated_questions"], plan["questions_without_text"]
    lines = [f"{repeated:,} question(s) are there more than once: their ids end in -2, -3, ..."] if repeated else []
    if without_text:
        lines.append(f'{without_text:,} question(s) have an option without text, as files have that lost a "None".')
    return lines


@dataclass(frozen=True)
class _Row:
    """A question with its place and its logits."""

    place: str
    draft: Draft
    logits: tuple[float, ...]


@dataclass(frozen=True)
class _File:
    """The rows of one file, at least one."""

    path: Path
    rows: tuple[_Row, ...]


def _check_tasks(tasks: Sequence[str]) -> None:
    """Raise InputError for names that cannot stand together, or cannot be the name of a task."""
    for name in tasks:
        if not SAFE_NAME.fullmatch(name) or name == MEAN:
            raise InputError(f"--tasks {name!r} cannot be the name of a task, or is taken by the average over tasks")
        if not subjects_of(name) and len(tasks) > 1:
            raise InputError(f"--tasks {','.join(tasks)}: only MMLU and its parts can be asked together, not {name!r}")
        if tasks.count(name) > 1:
            raise InputError(f"--tasks: two tasks are called {name!r}")


def _read_side(flag: str, path: Path, plan: LettersPlan) -> dict[str, _File]:
    """The files of one model by the subjects that their names tell, in the order of their names."""
    found: dict[str, _File] = {}
    for file in _files(flag, path):
        name = _subject(file)
        if name in found:
            raise InputError(f"{file}: its subject {name!r} stands already in {found[name].path}")
        # One file of other questions is of no subject: its name may differ between the models.
        told = name if path.is_dir() or subjects_of(plan.tasks[0]) else ""
        found[name] = _File(file, tuple(_read_file(file, told, plan.layout)))
        if subjects_of(plan.tasks[0]):
            _require_mmlu(found[name].rows)
    return found


def _files(flag: str, path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{flag} {path}: there is no such file or folder")
    files = sorted(file for file in path.glob("*.csv") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise InputError(f"{flag} {path}: the folder holds no file NAME.csv")
    return files


def _subject(file: Path) -> str:
    """The subject that the name of a file tells, with spaces for underscores."""
    name = next((file.name.removesuffix(end) for end in _ENDINGS if file.name.endswith(end)), file.stem)
    return name.replace("_", " ")


def _read_file(file: Path, subject: str, layout: Layout) -> list[_Row]:
    header = next(read_csv(file))[1]
    for column in layout.columns:
        if column not in header:
            raise InputError(f"{file}:1: column {column!r} is missing; here are: {', '.join(map(repr, header))}")
    rows = [_row(place, values, subject, layout) for place, values in read_table(file)]
    if not rows:
        raise InputError(f"{file}:1: the file holds a header and no question")
    return rows


def _row(place: str, values: Values, subject: str, layout: Layout) -> _Row:
    with located(place):
        choices = [str(values[column]) for column in layout.choices]
        answer = _answer(str(values[layout.answer]), layout)
        told = str(values[layout.subject]).replace("_", " ") if layout.subject else subject
        draft = Draft(str(values[layout.question]), choices, answer, subject=told)
        return _Row(place, draft, tuple(_logit(column, str(values[column])) for column in layout.logits))


def _answer(letter: str, layout: Layout) -> int:
    with located(f"column {layout.answer!r}"):
        return letter_index(letter, len(layout.choices))


def _logit(column: str, value: str) -> float:
    try:
        logit = float(value)
    except ValueError:
        logit = math.nan
    if not math.isfinite(logit):
        raise InputError(f"column {column!r} must hold a finite number, not {value!r}")
    return logit


def _questions(family: str, rows: Sequence[_Row]) -> list[Question]:
    """The questions of all rows, each with an id from its content; an option may be empty, for nothing is asked here.

    Some writers of CSV files leave the cell of an option empty that reads None or NA.
    """
    ids, questions = Ids(), []
    for row in rows:
        draft, choices = row.draft, tuple(row.draft.choices)
        with located(row.place):
            if not draft.question.strip():
                raise InputError("the question is empty")
            id = ids.take_made(content_id(family, draft.question, choices, draft.subject), row.place)
            questions.append(Question(id, draft.question, choices, draft.answer, draft.subject))
    return questions


def _without_text(rows: Sequence[_Row]) -> int:
    return sum(not all(choice.strip() for choice in row.draft.choices) for row in rows)


def _require_mmlu(rows: Sequence[_Row]) -> None:
    known = subjects_of("mmlu")
    for row in rows:
        if row.draft.subject.replace(" ", "_") not in known:
            raise InputError(
                f"{row.place}: {row.draft.subject!r} is no subject of MMLU; name other questions with --tasks NAME, or "
                "say with --subject-column which column holds the subject"
            )


def _paired(plan: LettersPlan, base: Mapping[str, _File], aligned: Mapping[str, _File]) -> list[tuple[_File, _File]]:
    """The files of both models by subject, in the order of the base's; of single files the names do not matter.

    Raises InputError where a file has no other.
    """
    if plan.base.is_dir() != plan.aligned.is_dir():
        raise InputError(f"--base {plan.base} and --aligned {plan.aligned}: one is a folder, the other a file")
    if not plan.base.is_dir():
        return list(zip(base.values(), aligned.values(), strict=True))
    for flag, one, other in (("--aligned", base, aligned), ("--base", aligned, base)):
        lacking = [file.path for subject, file in one.items() if subject not in other]
        if lacking:
            folder = plan.aligned if flag == "--aligned" else plan.base
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise InputError(
                f"{flag} {folder} has no file like {lacking[0]}{more}: both models need the same questions"
            )
    return [(file, aligned[subject]) for subject, file in base.items()]


def _require_same_rows(base: _File, aligned: _File) -> None:
    for one, other in zip(base.rows, aligned.rows, strict=False):
        for what in ("question", "choices", "answer", "subject"):
            if getattr(one.draft, what) != getattr(other.draft, what):
                raise InputError(
                    f"{other.place}: its {what} is not that of {one.place}; both models need the same questions in "
                    "the same order"
                )
    if len(base.rows) != len(aligned.rows):
        raise InputError(
            f"{aligned.rows[-1].place}: the file ends here with {len(aligned.rows)} question(s), {base.path} has "
            f"{len(base.rows)}"
        )


def _unlike_log_probabilities(logits: Floats) -> Floats:
    """The logits, moved by a constant where they could be taken for log-probabilities of the vocabulary.

    Nothing in a file says what its logits were normalised by, so nothing may be read off the mass of the letters. A
    constant changes no probability of an option among the others.
    """
    return logits if (logits.max(1) > 1).any() else logits + (1 + math.ceil(-logits.max()))


def _rows_of(name: str, letters: Letters, plan: LettersPlan) -> list[int]:
    """The indices of the questions that belong to a task; raises InputError where some of its subjects are lacking."""
    subjects = [q.subject.replace(" ", "_") for q in letters.questions]
    wanted = subjects_of(name)
    if not wanted:
        return list(range(len(subjects)))
    lacking = sorted(set(wanted) - set(subjects)) if name != "mmlu" else []  # mmlu asks what is there, as in a sweep
    if lacking:
        raise InputError(f"--tasks {name}: {plan.base} lacks {len(lacking)} of its subjects: {', '.join(lacking)}")
    return [i for i, subject in enumerate(subjects) if subject in wanted]


def _task(name: str, letters: Letters, rows: Sequence[int], plan: LettersPlan) -> TaskSet:
    style: PromptStyle = "mmlu" if subjects_of(name) else "plain"
    return TaskSet(name, style, tuple(letters.questions[i] for i in rows), f"{plan.base} and {plan.aligned}")


def _record(plan: LettersPlan, letters: Letters, tasks: Sequence[TaskSet]) -> dict[str, Any]:
    """The content of run.json."""
    hashes = {side: _hash(letters, logits) for side, logits in (("base", letters.base), ("aligned", letters.aligned))}
    return {
        "format": FORMAT,
        "kind": "sweep",
        "identity": {"source": SOURCE, **{side: {"sha256": digest} for side, digest in hashes.items()}},
        "base": plan.base_name or str(plan.base),
        "aligned": plan.aligned_name or str(plan.aligned),
        "base_logits": str(plan.base.resolve()),
        "aligned_logits": str(plan.aligned.resolve()),
        "repeated_questions": letters.repeated,
        "questions_without_text": letters.without_text,
        "tasks": {task.name: _task_record(task) for task in tasks},
        "confidence": ["choice"],
        "method": "linear",
        "options": {},
        "search": "grid",
        "lambdas": [0.0, 1.0],
        "points": [BASE.record(), ALIGNED.record()],
        "trials": None,
        "accuracy_margin": plan.accuracy_margin,
        "seed": 0,
        "bins": plan.bins,
        "device": "no device (read from files)",
        "versions": {"merge_calib": merge_calib.__version__, "numpy": np.__version__},
    }


def _task_record(task: TaskSet) -> dict[str, Any]:
    return {
        "sha256": task.sha256,
        "n": len(task),
        "kind": "choice",
        "style": task.style,
        "source": task.source,
        "methods": ["choice"],
        "normaliser": "unknown",
    }


def _hash(letters: Letters, logits: Floats) -> str:
    """Hash of what was asked and of the logits, the same for any layout of the files."""
    asked = [[q.subject, q.question, list(q.choices), q.answer] for q in letters.questions]
    content = json.dumps([asked, logits.tolist()], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def _keep(run: RunDirectory, point: MergePoint, path: Path, asked: Sequence[tuple[TaskSet, Floats]]) -> None:
    """Save and record the scores that the run lacks of a model."""
    for task, logits in asked:
        if not run.has(point, task.name, "choice"):
            answers = np.array([q.answer for q in task.questions])
            run.save(point, task.name, "choice", ChoiceScores(task.ids, answers, logits, np.ones(logits.shape, bool)))
            run.record(point, {task.name: (["choice"], {"logits": str(path.resolve())})})
