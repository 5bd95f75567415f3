"""CSV files of letter logits as questions and two arrays.

A file has a header and a question a row: its text, its options, the letter of the right one, and a logit for each
letter. A folder holds a file a subject, SUBJECT_test_logits.csv or SUBJECT.csv. Columns that are not named in the
layout are ignored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from merge_calib.errors import InputError
from merge_calib.letter_logits.letters_plan import Layout, LettersPlan
from merge_calib.questions import Question, content_id
from merge_calib.scores import Floats
from merge_calib.tasks.benchmark import Draft
from merge_calib.tasks.ids import Ids
from merge_calib.tasks.lines import Values, located
from merge_calib.tasks.mmlu import subjects_of
from merge_calib.tasks.own import letter_index
from merge_calib.tasks.records import read_csv, read_table

_ENDINGS = ("_test_logits.csv", ".csv")
_SAME = {"question": "question", "choices": "list of options", "answer": "right letter", "subject": "subject"}


@dataclass(frozen=True)
class Letters:
    """What the files of both models say.

    questions: N of them, with an id each; base, aligned (N, C): bare logits of the letters
    """

    questions: tuple[Question, ...]
    base: Floats
    aligned: Floats


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
    return Letters(
        questions=tuple(questions[i] for i in order),
        base=_unlike_log_probabilities(base[order]),
        aligned=_unlike_log_probabilities(aligned[order]),
    )


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
        differing = [what for what in _SAME if getattr(one.draft, what) != getattr(other.draft, what)]
        if differing:
            raise InputError(
                f"{other.place}: another {_SAME[differing[0]]} than {one.place}; both models need the same questions "
                "in the same order"
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
    least = float(logits.max(1).min())  # of every question, so that no part of them can be taken for them either
    return logits if least > 1 else logits + (1 + math.ceil(-least))
