"""All that is settled before a model is loaded: questions, parents, tokens, hashes, and the record of the plan."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
import torch
import transformers

import merge_calib
from merge_calib.analysis import Analysis
from merge_calib.answers import MEAN, folds_of
from merge_calib.checkpoints.fingerprint import fingerprint
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.parent import Parent
from merge_calib.checkpoints.settings import settings
from merge_calib.checkpoints.slots import vocabulary
from merge_calib.errors import CheckpointError, InputError
from merge_calib.merging.methods import make_method, options_of
from merge_calib.merging.point import MergePoint
from merge_calib.opening import open_pair
from merge_calib.plan import Asking, SweepPlan, dtype_name
from merge_calib.plan_record import plan_record
from merge_calib.progress import Watch, unwatched
from merge_calib.questions import PassageSet, Task, TaskSet
from merge_calib.run_directory import FORMAT
from merge_calib.scoring.encoder import Dress, Encoder
from merge_calib.scoring.loading import head_to_add, load_tokenizer, longest_context, resolved_config
from merge_calib.scoring.prompts import PROMPTS
from merge_calib.scoring.questionnaire import ConfidenceMethod, Questionnaire, methods_for, require_same_ids, way_of
from merge_calib.search.adaptive import Adaptive
from merge_calib.search.grid import Grid
from merge_calib.search.space import Space
from merge_calib.searching import searched_by
from merge_calib.tasks import Library, available_tasks, load_task

DEFAULT_TASKS = ("arc_easy", "hellaswag", "medmcqa", "mmlu", "piqa")


@dataclass(frozen=True)
class Preparation:
    """Everything that is known before the model is loaded; making it surfaces every fault of the user's.

    searched: the points of a grid, the search over one lambda, or the space that a study searches
    questionnaires: by whether questions go through the chat template
    """

    plan: SweepPlan
    tasks: tuple[Task, ...]
    pair: ModelPair
    searched: Grid | Adaptive | Space
    questionnaires: Mapping[bool, Questionnaire]
    record: dict[str, Any]

    def questionnaire(self, point: MergePoint) -> Questionnaire:
        """What `point` is asked: the base has no chat template where only the aligned model shall have one."""
        return self.questionnaires[self.plan.chat == "both" or (self.plan.chat == "aligned" and not point.is_base)]


def prepare(plan: SweepPlan, watch: Watch = unwatched) -> Preparation:
    """Read the questions, prove that the parents fit, encode everything, hash both parents."""
    tasks = load_tasks(plan)
    if all(isinstance(task, PassageSet) for task in tasks):
        raise InputError(
            "--tasks holds next-token tasks only: a point is selected by multiple-choice questions, so add a task of "
            "those, or use merge-calib evaluate"
        )
    _require_both_sides(plan, tasks)
    for task in tasks:
        _require_sides(task, plan.analysis)
    pair = open_pair(plan.parents, allow_pickle=plan.allow_pickle, trust_remote_code=plan.trust_remote_code)
    head_to_add({slot.name: slot.shape for slot in pair.slots.values()}, pair.host.shape)
    searched = searched_by(plan, pair)
    questionnaires = _encode(plan, pair, tasks, watch)
    advance = watch("reading both parents", sum(part.bytes for part in (*pair.base.parts, *pair.aligned.parts)))
    hashes = fingerprint(pair.base, advance), fingerprint(pair.aligned, advance)
    if hashes[0] == hashes[1]:
        names = f"--base {plan.parents.base} and --aligned {plan.parents.aligned_text}"
        raise InputError(f"{names} hold the same weights")
    record = _record(plan, tasks, pair, questionnaires, hashes, searched)
    return Preparation(plan, tasks, pair, searched, questionnaires, record)


def _require_sides(task: Task, analysis: Analysis) -> None:
    """Raise InputError where the questions of `task` cannot be divided into those that choose and those that judge."""
    items = task.questions if isinstance(task, TaskSet) else task.passages
    splits = [question.split for question in task.questions] if isinstance(task, TaskSet) else []
    folds_of(task.name, task.ids, [item.subject for item in items], splits, analysis)


def load_tasks(asking: Asking) -> tuple[Task, ...]:
    """All tasks that are asked, from the files below --data-dir, from --task-dir, from own files or from the hub."""
    library = Library(
        data_dir=asking.data_dir,
        task_dir=asking.task_dir,
        hub=asking.data_dir is None,
        four_options=asking.four_options,
        validation=asking.select_from_validation,
        seed=asking.seed,
    )
    names = asking.tasks or _default_tasks(asking, library)
    tasks = tuple(load_task(name, library, asking.limit, asking.limit_seed) for name in names)
    for i, task in enumerate(tasks):
        if task.name == MEAN:
            raise InputError(f"--tasks {names[i]}: the name {MEAN!r} is taken by the average over tasks")
        if task.name in [other.name for other in tasks[:i]]:
            raise InputError(f"--tasks: two tasks are called {task.name!r}")
    return tasks


def write_questionnaire(asking: Asking, parent: Parent, *, is_chat: bool) -> Questionnaire:
    """What `parent` is asked, in its own tokenizer's words; tasks are encoded when they are read."""
    tokenizer = load_tokenizer(parent.folder, trust_remote_code=asking.trust_remote_code)
    limit = longest_context(parent.shape.folder, tokenizer, trust_remote_code=asking.trust_remote_code)
    system = asking.system_instruction if is_chat else None
    dress = Dress(asking.num_fewshot, is_chat, system, asking.finish_prompts)
    return Questionnaire(Encoder(tokenizer, limit, dress))


def encode_task(asking: Asking, parent: Parent, questionnaire: Questionnaire, task: Task) -> None:
    """Encode `task` in all ways that are asked for; raises where the model cannot take what comes out."""
    for way in dict.fromkeys(map(way_of, methods_for(task, asking.confidence))):
        encoded = questionnaire.encoded(task, way)
        if encoded.truncated and asking.strict:
            raise InputError(
                f"--strict: task {task.name}: {encoded.truncated} of {len(encoded.rows)} prompts are longer than the "
                f"{questionnaire.encoder.max_length} tokens that {parent.folder} takes"
            )
        _require_vocabulary(encoded.largest_id, parent)


def task_records(
    asking: Asking, tasks: Sequence[Task], questionnaires: Sequence[Questionnaire]
) -> dict[str, dict[str, Any]]:
    """What run.json says about each task; counts are sums over `questionnaires`."""
    return {task.name: _task_record(task, methods_for(task, asking.confidence), questionnaires) for task in tasks}


def asking_record(asking: Asking) -> dict[str, Any]:
    """What run.json says about how questions were asked and computed."""
    return {
        "num_fewshot": asking.num_fewshot,
        "apply_chat_template": asking.chat,
        "system_instruction": asking.system_instruction,
        "finish_prompts": asking.finish_prompts,
        "confidence": list(asking.confidence),
        "seed": asking.seed,
        "bins": asking.bins,
        "limit": asking.limit,
        "limit_seed": asking.limit_seed,
        "select_from_validation": asking.select_from_validation,
        "batch_tokens": asking.batch_tokens or "auto",
        "device": str(asking.device),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
    }


def prompts_identity(asking: Asking) -> dict[str, Any]:
    """How texts are made: runs that differ in it hold other numbers."""
    return {
        "prompts": PROMPTS,
        "num_fewshot": asking.num_fewshot,
        "apply_chat_template": asking.chat,
        "system_instruction": asking.system_instruction,
        "finish_prompts": asking.finish_prompts,
    }


def settings_hash(parent: Parent, *, trust_remote_code: bool) -> str:
    """Hash of the settings that a model computes with: the same weights under another config are another model."""
    config = resolved_config(parent.shape.folder, trust_remote_code=trust_remote_code)
    return hashlib.sha256(json.dumps(settings(config), sort_keys=True, default=str).encode()).hexdigest()


def _require_both_sides(plan: SweepPlan, tasks: Sequence[Task]) -> None:
    """Raise InputError where the splits that a source gives leave nothing to choose by, or nothing to judge by."""
    for task in tasks:
        splits = {q.split for q in task.questions} if isinstance(task, TaskSet) else set()
        if not any(splits) or plan.analysis.cross_fit:
            continue
        if splits == {"select"} or "select" not in splits:
            raise InputError(
                f"task {task.name}: the 'split' of its questions is {' or '.join(sorted(filter(None, splits)))} "
                "throughout: some must be select, to choose the point, and others report, to judge it"
            )


def _default_tasks(asking: Asking, library: Library) -> tuple[str, ...]:
    if asking.data_dir:
        names = tuple(available_tasks(library))
        lacks = f"--data-dir {asking.data_dir} holds none of the benchmarks"
    else:
        names = DEFAULT_TASKS if find_spec("datasets") else ()
        lacks = "no questions to ask"
    if not names:
        raise InputError(
            f"{lacks}: give --tasks (a benchmark or an own FILE.jsonl) and --data-dir, see merge-calib tasks; the hub "
            "needs pip install 'merge-calib[hub]'"
        )
    return names


def _encode(plan: SweepPlan, pair: ModelPair, tasks: tuple[Task, ...], watch: Watch) -> dict[bool, Questionnaire]:
    """Every row of every task, by the tokenizer of the merge; the other parent's must give the same for plain text."""
    host, other = (pair.aligned, pair.base) if pair.host is pair.aligned else (pair.base, pair.aligned)
    dresses = {"none": (False,), "aligned": (False, True), "both": (True,)}[plan.chat]
    questionnaires = {chat: write_questionnaire(plan, host, is_chat=chat) for chat in dresses}
    plain = questionnaires.get(False) or write_questionnaire(plan, host, is_chat=False)
    theirs = write_questionnaire(plan, other, is_chat=False)
    theirs.encoder.max_length = plain.encoder.max_length  # the limit of the merge is what counts
    alike = plain.encoder.fingerprint is not None and plain.encoder.fingerprint == theirs.encoder.fingerprint
    advance = watch("encoding", len(tasks))
    for task in tasks:
        for questionnaire in questionnaires.values():
            encode_task(plan, host, questionnaire, task)
        for way in () if alike else dict.fromkeys(map(way_of, methods_for(task, plan.confidence))):
            require_same_ids(plain, theirs, task, way)
        advance(1)
    return questionnaires


def _require_vocabulary(largest_id: int, parent: Parent) -> None:
    size = vocabulary(parent.config)
    if size is not None and largest_id >= size:
        raise CheckpointError(
            f"the tokenizer of {parent.folder} gives token id {largest_id}, but the model has {size} tokens"
        )


def _record(
    plan: SweepPlan,
    tasks: tuple[Task, ...],
    pair: ModelPair,
    questionnaires: Mapping[bool, Questionnaire],
    hashes: tuple[str, str],
    searched: Grid | Adaptive | Space,
) -> dict[str, Any]:
    """The content of run.json; what identifies the run stands under `identity`."""
    encoders = {("chat" if chat else "plain"): questionnaires[chat].encoder for chat in questionnaires}
    first = next(iter(encoders.values()))
    return {
        "format": FORMAT,
        "identity": {
            "base": {"sha256": hashes[0]},
            "aligned": {"sha256": hashes[1]},
            "settings": settings_hash(pair.host, trust_remote_code=plan.trust_remote_code),
            **prompts_identity(plan),
            "bos": first.bos,
            "longest_context": first.max_length,
            "out_dtype": "as stored" if plan.out_dtype is None else dtype_name(plan.out_dtype),
            "dtype": dtype_name(plan.dtype),
            **({"vocab": plan.parents.vocab} if pair.fit.has_two_vocabularies else {}),
        },
        "base": plan.parents.base,
        "aligned": plan.parents.aligned_text,
        "base_folder": str(pair.base.folder.resolve()),
        "aligned_folder": str(pair.aligned.folder.resolve()),
        "parameters": pair.parameters,
        "pair_notes": pair.fit.notes,
        "tasks": task_records(plan, tasks, list(questionnaires.values())),
        "method": plan.method,
        "options": dict(plan.options) if len(plan.methods) > 1 else options_of(make_method(plan.method, plan.options)),
        "search": plan.search,
        "lambdas": list(plan.lambdas),
        "points": [point.record() for point in searched.points] if isinstance(searched, Grid) else None,
        "trials": plan.trials if plan.search == "optuna" else None,
        "plan": plan_record(plan),
        "analysis": plan.analysis.record(),
        **asking_record(plan),
    }


def _task_record(
    task: Task, confidences: Sequence[ConfidenceMethod], questionnaires: Sequence[Questionnaire]
) -> dict[str, Any]:
    rows = {c: [questionnaire.encoded(task, way_of(c)) for questionnaire in questionnaires] for c in confidences}
    return {
        "sha256": task.sha256,
        "n": len(task),
        "kind": "next-token" if isinstance(task, PassageSet) else "choice",
        "style": None if isinstance(task, PassageSet) else task.style,
        "source": task.source,
        "letters": "/".join(str(encoded.letters) for encoded in rows["choice"]) if "choice" in rows else None,
        "rows": {c: "-".join(encoded.sha256 for encoded in all) for c, all in rows.items()},
        "encoded_apart": {c: sum(encoded.encoded_apart for encoded in all) for c, all in rows.items()},
        "truncated": {c: sum(encoded.truncated for encoded in all) for c, all in rows.items()},
    }


def _versions() -> dict[str, str]:
    return {
        "merge_calib": merge_calib.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "optuna": optuna.__version__,
        "numpy": np.__version__,
    }
