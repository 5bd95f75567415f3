"""Letter logits as a run directory of two points."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import merge_calib
from merge_calib.errors import InputError
from merge_calib.findings import findings_of
from merge_calib.frontier_record import write_frontier
from merge_calib.letter_logits.letters_plan import LettersPlan
from merge_calib.letter_logits.reading import Letters, read_letters
from merge_calib.merging.point import MergePoint
from merge_calib.questions import PromptStyle, TaskSet
from merge_calib.results import Results
from merge_calib.run_directory import FORMAT, RunDirectory
from merge_calib.scores import ChoiceScores, Floats
from merge_calib.tasks.mmlu import subjects_of

SOURCE = "letter logits"
BASE, ALIGNED = MergePoint("linear", 0.0), MergePoint("linear", 1.0)


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
        write_frontier(findings_of(results))
    return results


def notes(plan: Mapping[str, Any]) -> list[str]:
    """What the files hold that a reader of the numbers must know, a line each, from run.json."""
    lines = []
    for name, task in plan["tasks"].items():
        if task["repeated"]:
            lines.append(f"{name}: {task['repeated']:,} question(s) repeat another one: their ids end in -2, -3, ...")
        if task["without_text"]:
            lines.append(f"{name}: {task['without_text']:,} question(s) have an option without text")
    return lines


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
        "tasks": {task.name: _task_record(task) for task in tasks},
        "confidence": ["choice"],
        "method": "linear",
        "options": {},
        "search": "grid",
        "lambdas": [0.0, 1.0],
        "points": [BASE.record(), ALIGNED.record()],
        "trials": None,
        "analysis": plan.analysis.record(),
        "seed": 0,
        "bins": plan.bins,
        "device": "no device (read from files)",
        "versions": {"merge_calib": merge_calib.__version__, "numpy": np.__version__},
    }


def _task_record(task: TaskSet) -> dict[str, Any]:
    """What run.json says of a task; `repeated` counts without the first of each, `without_text` an option at least."""
    distinct = {(q.subject, q.question, q.choices) for q in task.questions}
    return {
        "sha256": task.sha256,
        "n": len(task),
        "kind": "choice",
        "style": task.style,
        "source": task.source,
        "methods": ["choice"],
        "normaliser": "unknown",
        "repeated": len(task) - len(distinct),
        "without_text": sum(not all(map(str.strip, q.choices)) for q in task.questions),
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
