"""The measures of any checkpoints along an axis: scales, training steps, epochs, revisions; nothing is merged."""

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from merge_calib.checkpoints.fingerprint import fingerprint
from merge_calib.checkpoints.opening import Opener
from merge_calib.checkpoints.parent import Parent
from merge_calib.errors import InputError, MergeCalibError, ScoringError
from merge_calib.measuring import Sitting, measure_point, missing
from merge_calib.plan import EvaluationPlan, dtype_name
from merge_calib.points import AxisPoint, axis_points
from merge_calib.preparation import (
    asking_record,
    encode_task,
    load_tasks,
    prompts_identity,
    settings_hash,
    task_records,
    write_questionnaire,
)
from merge_calib.progress import Watch, unwatched
from merge_calib.questions import Task
from merge_calib.results import Results
from merge_calib.run_directory import FORMAT, RunDirectory
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.loading import head_to_add
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.questionnaire import Questionnaire

_OF_MODEL = ("letters", "rows", "encoded_apart", "truncated")  # what a task's record says of one tokenizer


def evaluate(plan: EvaluationPlan, watch: Watch = unwatched) -> Results:
    """Measure every model of `plan` that its run directory does not hold yet, one loaded after the other.

    Every model is asked in the words of its own tokenizer. A model whose scores are not finite is marked as failed,
    and the others go on. Raises MergeCalibError for a fault of the user's, before the first model is loaded where it
    can be known by then.
    """
    prepared = prepare_models(plan, watch)
    run = RunDirectory(plan.out)
    run.agree(prepared.record)
    room = _Room(prepared)
    if not run.exists:
        room.load(0)  # a model that cannot be loaded leaves no folder behind
    with run.locked():
        run.agree(prepared.record)
        run.extend(prepared.record, prepared.tasks)
        advance = watch("models", len(plan.models))
        for i, point in enumerate(prepared.points):
            _measure(prepared, run, room, i, point, watch)
            advance(1)
        results = Results.of(run)
        results.write()
    return results


class Desk:
    """The questionnaire of one tokenizer at a time; models that follow each other with the same one share it."""

    def __init__(self, plan: EvaluationPlan) -> None:
        self._plan = plan
        self._last: Questionnaire | None = None

    def questionnaire(self, parent: Parent) -> Questionnaire:
        fresh = write_questionnaire(self._plan, parent, is_chat=self._plan.chat == "both")
        tokenizer = fresh.encoder.fingerprint
        if self._last is None or tokenizer is None or tokenizer != self._last.encoder.fingerprint:
            self._last = fresh
        return self._last


@dataclass(frozen=True)
class PreparedModels:
    """Everything that is known before a model is loaded; making it surfaces every fault of the user's.

    parents, points: the models in the order in which they were given
    """

    plan: EvaluationPlan
    tasks: tuple[Task, ...]
    parents: tuple[Parent, ...]
    points: tuple[AxisPoint, ...]
    desk: Desk
    record: dict[str, Any]


def prepare_models(plan: EvaluationPlan, watch: Watch = unwatched) -> PreparedModels:
    """Read the questions, open every model, encode and check every task for each of them, hash all of them."""
    if plan.chat == "aligned":
        raise InputError(
            "--apply-chat-template aligned asks all but the base through the chat template, and here no model is the "
            "base: give both (every model) or none"
        )
    labels = make_labels([default_label(model) for model in plan.models], plan.labels)
    positions = check_positions(plan.positions, len(labels))
    tasks = load_tasks(plan)
    parents = _open(plan)
    desk = Desk(plan)
    own = _encode(plan, desk, tasks, dict(zip(labels, parents, strict=True)), watch)
    advance = watch("reading all models", sum(part.bytes for parent in parents for part in parent.parts))
    models = [
        {
            "label": label,
            "model": plan.models[i],
            "folder": str(parents[i].folder.resolve()),
            "position": positions[i],
            "sha256": fingerprint(parents[i], advance),
            "settings": settings_hash(parents[i], trust_remote_code=plan.trust_remote_code),
            "parameters": sum(math.prod(tensor.shape) for tensor in parents[i].tensors.values()),
            **own[i],
        }
        for i, label in enumerate(labels)
    ]
    points = {point.label: point for point in axis_points(models)}
    record = _record(plan, tasks, models)
    return PreparedModels(plan, tasks, parents, tuple(points[label] for label in labels), desk, record)


def default_label(model: str) -> str:
    """The last part of a path, or of a hub id with its revision."""
    name, at, revision = (model, "", "") if Path(model).is_dir() else model.partition("@")
    return f"{Path(name).absolute().name}{at}{revision}"


def make_labels(defaults: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """What each model is called, as --labels says or else by default.

    Raises InputError for a wrong number of labels and where two models cannot be told apart.
    """
    if given and len(given) != len(defaults):
        raise InputError(f"--labels names {len(given)} model(s), but {len(defaults)} are given")
    labels = tuple(given or defaults)
    names = [AxisPoint(0, label).name.casefold() for label in labels]
    for i, label in enumerate(labels):
        if not label.strip():
            raise InputError("--labels: a label is empty")
        if names[i] in names[:i]:
            other = labels[names.index(names[i])]
            same = (
                f"two models are called {label!r}" if label == other else f"{other!r} and {label!r} look alike as files"
            )
            raise InputError(f"{same}: give --labels, a name for each model, by comma")
    return labels


def check_positions(positions: Sequence[float] | None, count: int) -> tuple[float | None, ...]:
    """Where each model stands on the axis, None where only the order counts; raises InputError for a wrong number."""
    if positions is None:
        return (None,) * count
    if len(positions) != count:
        raise InputError(f"--positions has {len(positions)} number(s), but {count} models are given")
    if not all(math.isfinite(position) for position in positions):
        raise InputError("--positions must be finite numbers")
    return tuple(positions)


class _Room:
    """Has one model loaded at a time."""

    def __init__(self, prepared: PreparedModels) -> None:
        self._prepared = prepared
        self._inside: tuple[int, LanguageModel, Budget] | None = None

    def load(self, i: int) -> tuple[LanguageModel, Budget]:
        """Model `i`, loaded unless it is the one inside; the one before is released first."""
        if self._inside is None or self._inside[0] != i:
            self.clear()
            plan = self._prepared.plan
            with _about(self._prepared.points[i].label):
                model = _load(plan, self._prepared.parents[i])
                self._inside = i, model, Budget.of(model, plan.batch_tokens)
        return self._inside[1:]

    def clear(self) -> None:
        """Release the model that is inside, with its memory."""
        self._inside = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _open(plan: EvaluationPlan) -> tuple[Parent, ...]:
    opener = Opener(plan.adapter_base, plan.allow_pickle, plan.trust_remote_code)
    opened = tuple(opener.open(model, "MODEL") for model in plan.models)
    if plan.adapter_base is not None and not opener.adapters:
        raise InputError(f"--adapter-base {plan.adapter_base}: no MODEL is an adapter")
    for parent in opened:
        head_to_add({name: info.shape for name, info in parent.tensors.items()}, parent.shape)
    return opened


def _load(plan: EvaluationPlan, parent: Parent) -> LanguageModel:
    """The model; one that is computed is rounded to the dtype that a checkpoint of it has, as in a sweep."""
    new_head = head_to_add({name: info.shape for name, info in parent.tensors.items()}, parent.shape)
    model = LanguageModel(
        parent.shape, plan.device, plan.dtype, trust_remote_code=plan.trust_remote_code, new_head=new_head
    )
    if not parent.is_stored:
        with torch.no_grad():
            for name, place in model.targets.items():
                place.copy_(parent.read(name).to(parent.tensors[name].dtype))
    return model


def _encode(
    plan: EvaluationPlan, desk: Desk, tasks: Sequence[Task], parents: Mapping[str, Parent], watch: Watch
) -> list[dict[str, Any]]:
    """Encode every task for every model; gives what run.json says of each tokenizer."""
    advance = watch("encoding", len(tasks) * len(parents))
    found = []
    for label, parent in parents.items():
        with _about(label):
            questionnaire = desk.questionnaire(parent)
            for task in tasks:
                encode_task(plan, parent, questionnaire, task)
                advance(1)
        records = task_records(plan, tasks, [questionnaire])
        own = {name: {key: record[key] for key in _OF_MODEL} for name, record in records.items()}
        encoder = questionnaire.encoder
        found.append({"bos": encoder.bos, "longest_context": encoder.max_length, "tasks": own})
    return found


def _record(plan: EvaluationPlan, tasks: Sequence[Task], models: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of run.json; what identifies the run stands under `identity` and, of each model, in `models`."""
    records = task_records(plan, tasks, [])
    return {
        "format": FORMAT,
        "kind": "evaluation",
        "identity": {"source": "models", **prompts_identity(plan), "dtype": dtype_name(plan.dtype)},
        "axis": RunDirectory(plan.out).axis(plan.axis),
        "models": models,
        "tasks": {name: {k: v for k, v in task.items() if k not in _OF_MODEL} for name, task in records.items()},
        **asking_record(plan),
    }


def _measure(prepared: PreparedModels, run: RunDirectory, room: _Room, i: int, point: AxisPoint, watch: Watch) -> None:
    """Measure what the run lacks of a model; where its scores are not finite, the run keeps the reason."""
    asked = missing(run, point, prepared.tasks, prepared.plan.confidence)
    if not asked or run.failure(point) is not None:
        return
    questionnaire = prepared.desk.questionnaire(prepared.parents[i])
    try:
        measure_point(Sitting(run, point, questionnaire, lambda: room.load(i), watch), asked)
    except ScoringError as error:
        run.fail(point, str(error))


@contextmanager
def _about(label: str) -> Iterator[None]:
    """Say which model an error is about."""
    try:
        yield
    except MergeCalibError as error:
        raise type(error)(f"model {label}: {error}") from error
