"""Runs made from lm-eval's logged samples, and the samples of a run's models written as lm-eval writes them."""

import glob
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from merge_calib.answers import MEAN
from merge_calib.checkpoints.opening import Opener
from merge_calib.errors import InputError
from merge_calib.evaluation import check_positions, make_labels
from merge_calib.lm_eval_samples import ImportedTask, read_samples, write_samples
from merge_calib.lm_eval_samples.reading import NAME
from merge_calib.lm_eval_samples.writing import LOGGED
from merge_calib.plan import EvaluationPlan
from merge_calib.points import AxisPoint, axis_points
from merge_calib.preparation import load_tasks, write_questionnaire
from merge_calib.progress import Watch, unwatched
from merge_calib.questions import TaskSet
from merge_calib.results import Results
from merge_calib.run_directory import FORMAT, RunDirectory
from merge_calib.scores import ChoiceScores
from merge_calib.scoring.encoder import Encoder
from merge_calib.scoring.questionnaire import CONFIDENCE_METHODS


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What is read with --from-lm-eval: files, folders or patterns, and what the models in them are called."""

    files: tuple[str, ...]
    out: Path
    labels: tuple[str, ...] = ()
    axis: str | None = None
    positions: tuple[float, ...] | None = None
    bins: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= 1000:
            raise InputError(f"--bins must lie between 1 and 1000, not {self.bins}")


def import_samples(plan: ImportPlan, watch: Watch = unwatched) -> Results:
    """Make the answers in lm-eval's samples the points of an evaluation; no model runs.

    A folder of samples is a model. Files that the run directory holds already are only compared by their hash.
    Raises InputError for files that cannot be read as scores or whose questions differ between models.
    """
    by_label = _read(plan, watch)
    record = _record(plan, by_label)
    run = RunDirectory(plan.out)
    run.agree(record)
    with run.locked():
        run.agree(record)
        run.extend(record)
        for point in axis_points(record["models"]):
            _keep(run, point, by_label[point.label])
        results = Results.of(run)
        results.write()
    return results


def write_lm_eval_samples(plan: EvaluationPlan, run: RunDirectory) -> list[Path]:
    """Write what the models of `plan` said by `choice` and `continuation-sum` as lm-eval's samples, a file a task.

    They lie in lm_eval/CONFIDENCE/LABEL of the run directory; what is there is left as it is, for scores never change.
    """
    tasks = [task for task in load_tasks(plan) if isinstance(task, TaskSet)]
    written, date = [], datetime.now()
    opener = Opener(plan.adapter_base, plan.allow_pickle, plan.trust_remote_code)
    for model, point in zip(run.plan["models"], map(_point_of, run.plan["models"]), strict=True):
        if model["model"] not in plan.models:
            continue
        parent = opener.open(model["model"], "MODEL")
        encoder = write_questionnaire(plan, parent, is_chat=plan.chat == "both").encoder
        for task in tasks:
            forms = model["tasks"][task.name]["letters"]
            written += list(_write_task(run, point, task, encoder, forms, date))
    return written


@dataclass(frozen=True)
class _Found:
    """A file of samples with its hash and what it says."""

    sha256: str
    task: ImportedTask


def _read(plan: ImportPlan, watch: Watch) -> dict[str, list[_Found]]:
    """The files by label; the files of a folder belong to one model, and so do folders of one name."""
    folders: dict[Path, list[_Found]] = {}
    matched = {pattern: _matching(pattern) for pattern in plan.files}
    paths = list(dict.fromkeys(path for found in matched.values() for path in found))
    if plan.labels or plan.positions is not None:
        _require_one_model_each(matched)
    advance = watch("reading samples", len(paths))
    for path in paths:
        found = _Found(hashlib.sha256(path.read_bytes()).hexdigest(), read_samples(path))
        folders.setdefault(path.absolute().parent, []).append(found)
        advance(1)
    defaults = {folder: _default_label(files[0].task.model) for folder, files in folders.items()}
    if plan.labels and len(plan.labels) != len(folders):
        listed = ", ".join(map(str, folders))
        raise InputError(f"--labels names {len(plan.labels)} model(s), but there are {len(folders)} folders: {listed}")
    named = zip(folders, plan.labels or defaults.values(), strict=True)
    by_label: dict[str, list[_Found]] = {}
    for folder, label in named:
        by_label.setdefault(label, []).extend(folders[folder])
    make_labels(list(by_label), ())
    return by_label


def _require_one_model_each(matched: Mapping[str, Sequence[Path]]) -> None:
    """Raise InputError where labels or positions could go to the wrong model."""
    for pattern, paths in matched.items():
        folders = list(dict.fromkeys(str(path.parent) for path in paths))
        if len(folders) > 1:
            raise InputError(
                f"--from-lm-eval {pattern} holds {len(folders)} models ({', '.join(folders)}); with --labels or "
                "--positions give each of them by a --from-lm-eval of its own, so that the order is yours"
            )


def _matching(pattern: str) -> list[Path]:
    """The samples that a file, a folder or a pattern stands for, numbers in their paths in the order of their size."""
    if Path(pattern).is_dir():
        found = list(Path(pattern).rglob("samples_*.jsonl"))
    else:
        found = [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - takes absolute patterns
    if not found:
        raise InputError(f"--from-lm-eval {pattern}: there is no such file, and no samples_*.jsonl in such a folder")
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]


def _default_label(folder: str) -> str:
    """The last part of the model's name, whose slashes lm-eval wrote as two underscores."""
    return folder.rpartition("__")[2] or folder


def _record(plan: ImportPlan, by_label: dict[str, list[_Found]]) -> dict[str, Any]:
    """The content of run.json."""
    positions = check_positions(plan.positions, len(by_label))
    models = [
        {"label": label, "model": files[0].task.model, "position": position, "tasks": _model_tasks(label, files)}
        for (label, files), position in zip(by_label.items(), positions, strict=True)
    ]
    everything = [found for files in by_label.values() for found in files]
    tasks: dict[str, dict[str, Any]] = {}
    for found in everything:
        _add_task(tasks, found.task)
    methods = {c for found in everything for c in found.task.scores}
    return {
        "format": FORMAT,
        "kind": "evaluation",
        "identity": {"source": "lm-eval samples"},
        "axis": RunDirectory(plan.out).axis(plan.axis),
        "models": models,
        "tasks": tasks,
        "confidence": [c for c in CONFIDENCE_METHODS if c in methods],
        "bins": plan.bins,
    }


def _model_tasks(label: str, files: Sequence[_Found]) -> dict[str, dict[str, Any]]:
    """What run.json says of each task of a model: the file behind each confidence method, and what it left out."""
    tasks: dict[str, dict[str, Any]] = {}
    for found in files:
        new = found.task
        task = tasks.setdefault(new.task, {"files": {}, "rows": {}, "skipped": {}, "checked": {}, "notes": {}})
        for confidence in new.scores:
            if confidence in task["files"]:
                raise InputError(
                    f"model {label}, task {new.task}, {confidence}: both {task['files'][confidence]} and {new.source} "
                    "have it; give one of them, or tell the folders apart with --labels, a name for each folder"
                )
            task["files"][confidence] = str(new.source.resolve())
            task["rows"][confidence] = found.sha256
            task["checked"][confidence] = list(new.checked)
            task["notes"][confidence] = list(new.notes)
            task["skipped"][confidence] = new.skipped
    return tasks


def _add_task(tasks: dict[str, dict[str, Any]], new: ImportedTask) -> None:
    """Put the task of a file among `tasks`, whose questions must be the same for all models and methods."""
    if new.task == MEAN:
        raise InputError(f"{new.source}: the name {MEAN!r} of the task is taken by the average over tasks")
    scores = next(iter(new.scores.values()))
    digest = _questions_hash(scores)
    task = tasks.setdefault(
        new.task,
        {"sha256": digest, "n": len(scores.ids), "kind": "choice", "source": str(new.source.resolve()), "methods": []},
    )
    if task["sha256"] != digest:
        raise InputError(
            f"task {new.task}: {new.source} has other questions ({len(scores.ids)}) than {task['source']} "
            f"({task['n']}); models can be compared on the same questions only"
        )
    task["methods"] = [c for c in CONFIDENCE_METHODS if c in {*task["methods"], *new.scores}]


def _questions_hash(scores: ChoiceScores) -> str:
    """Hash of ids, answers and numbers of options: what all models must have been asked alike."""
    parts = [list(scores.ids), scores.answers.tolist(), scores.mask.sum(1).tolist()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _keep(run: RunDirectory, point: AxisPoint, files: Sequence[_Found]) -> None:
    """Save and record the scores that the run lacks of a model."""
    for found in files:
        task = found.task
        lacking = [confidence for confidence in task.scores if not run.has(point, task.task, confidence)]
        for confidence in lacking:
            run.save(point, task.task, confidence, task.scores[confidence])
        if lacking:
            facts = {"samples": str(task.source.resolve()), "samples_sha256": found.sha256}
            run.record(point, {task.task: (lacking, facts)})


def _point_of(model: dict[str, Any]) -> AxisPoint:
    return AxisPoint(0, model["label"], model["model"], model["position"])


def _write_task(
    run: RunDirectory, point: AxisPoint, task: TaskSet, encoder: Encoder, form: str | None, date: datetime
) -> Iterator[Path]:
    for confidence in LOGGED:
        scores = run.scores(point, task.name, confidence)
        folder = run.path / "lm_eval" / confidence / point.name
        if not isinstance(scores, ChoiceScores) or _is_written(folder, task.name):
            continue
        letters = confidence == "choice" and form is not None
        texts = encoder.choice_texts(task, str(form)) if letters else encoder.continuation_texts(task)
        yield write_samples(folder, task, confidence, scores, texts, date)


def _is_written(folder: Path, task: str) -> bool:
    names = [NAME.fullmatch(path.name) for path in folder.glob("samples_*.jsonl")]
    return any(name is not None and name[1] == task for name in names)
