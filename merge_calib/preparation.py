"""All that is settled before the model is loaded: questions, parents, tokens, hashes, and the record of the plan."""

import hashlib
import json
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import torch
import transformers

import merge_calib
from merge_calib.checkpoints.fingerprint import fingerprint
from merge_calib.checkpoints.locate import locate
from merge_calib.checkpoints.pair import ModelPair, require_same_settings, settings
from merge_calib.errors import CheckpointError, InputError
from merge_calib.plan import SweepPlan, dtype_name
from merge_calib.progress import Watch, unwatched
from merge_calib.questions import TaskSet
from merge_calib.results import MEAN
from merge_calib.run_directory import FORMAT
from merge_calib.scoring.model import load_tokenizer, longest_context, resolved_config
from merge_calib.scoring.prompts import PROMPTS
from merge_calib.scoring.rows import Encoder
from merge_calib.scoring.scorer import Questionnaire, require_same_ids
from merge_calib.tasks import available_tasks, load_task


@dataclass(frozen=True)
class Preparation:
    """Everything that is known before the model is loaded; making it surfaces every fault of the user's."""

    plan: SweepPlan
    tasks: tuple[TaskSet, ...]
    pair: ModelPair
    questionnaire: Questionnaire
    record: dict[str, Any]


def prepare(plan: SweepPlan, watch: Watch = unwatched) -> Preparation:
    """Read the questions, prove that the parents fit, encode everything, hash both parents."""
    tasks = _load_tasks(plan)
    pair = open_pair(plan.base, plan.aligned, allow_pickle=plan.allow_pickle, trust_remote_code=plan.trust_remote_code)
    questionnaire = _encode(plan, pair, tasks, watch)
    advance = watch("reading both parents", pair.base.bytes + pair.aligned.bytes)
    hashes = fingerprint(pair.base, advance), fingerprint(pair.aligned, advance)
    if hashes[0] == hashes[1]:
        raise InputError(f"--base {plan.base} and --aligned {plan.aligned} hold the same weights")
    return Preparation(plan, tasks, pair, questionnaire, _record(plan, tasks, pair, questionnaire, hashes))


def open_pair(base: str, aligned: str, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> ModelPair:
    """Find both parents and prove from configs, with their defaults filled in, and headers that they fit."""
    folders = [
        locate(model, flag, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
        for model, flag in ((base, "--base"), (aligned, "--aligned"))
    ]
    pair = ModelPair.open(*folders, allow_pickle=allow_pickle)
    require_same_settings(*(resolved_config(folder, trust_remote_code=trust_remote_code) for folder in folders))
    return pair


def _load_tasks(plan: SweepPlan) -> tuple[TaskSet, ...]:
    names = plan.tasks or tuple(available_tasks(plan.data_dir) if plan.data_dir else ())
    if not names:
        where = f"--data-dir {plan.data_dir} holds none of the benchmarks" if plan.data_dir else "no questions to ask"
        raise InputError(
            f"{where}: give --tasks (a benchmark or an own FILE.jsonl) and --data-dir, see merge-calib tasks"
        )
    tasks = tuple(load_task(name, plan.data_dir, plan.limit) for name in names)
    for i, task in enumerate(tasks):
        if task.name == MEAN:
            raise InputError(f"--tasks {names[i]}: the name {MEAN!r} is taken by the average over tasks")
        if task.name in [other.name for other in tasks[:i]]:
            raise InputError(f"--tasks: two tasks are called {task.name!r}")
    return tasks


def _encode(plan: SweepPlan, pair: ModelPair, tasks: tuple[TaskSet, ...], watch: Watch) -> Questionnaire:
    """Every row of every task, by the aligned tokenizer; the base's must give the same."""
    questionnaires = []
    for checkpoint in (pair.aligned, pair.base):
        tokenizer = load_tokenizer(checkpoint.folder, trust_remote_code=plan.trust_remote_code)
        limit = longest_context(pair.aligned.folder, tokenizer, trust_remote_code=plan.trust_remote_code)
        questionnaires.append(Questionnaire(Encoder(tokenizer, limit), tasks))
    aligned, base = questionnaires
    advance = watch("encoding", len(tasks))
    for task in tasks:
        for confidence in plan.confidence:
            aligned.rows(task, confidence)
            if not aligned.encoder.is_like(base.encoder):
                require_same_ids(aligned, base, task, confidence)
            _require_vocabulary(aligned.rows(task, confidence).largest_id, pair)
        advance(1)
    return aligned


def _require_vocabulary(largest_id: int, pair: ModelPair) -> None:
    size = pair.aligned.config.get("vocab_size") or pair.aligned.config.get("text_config", {}).get("vocab_size")
    if size is not None and largest_id >= size:
        raise CheckpointError(
            f"the tokenizer of {pair.aligned.folder} gives token id {largest_id}, but the model has {size} tokens"
        )


def _record(
    plan: SweepPlan,
    tasks: tuple[TaskSet, ...],
    pair: ModelPair,
    questionnaire: Questionnaire,
    hashes: tuple[str, str],
) -> dict[str, Any]:
    """The content of run.json; what identifies the run stands under `identity`."""
    encoder = questionnaire.encoder
    return {
        "format": FORMAT,
        "identity": {
            "base": {"sha256": hashes[0]},
            "aligned": {"sha256": hashes[1]},
            "settings": _settings_hash(plan, pair),
            "prompts": PROMPTS,
            "bos": encoder.bos,
            "longest_context": encoder.max_length,
            "out_dtype": "as stored" if plan.out_dtype is None else dtype_name(plan.out_dtype),
            "dtype": dtype_name(plan.dtype),
        },
        "base": plan.base,
        "aligned": plan.aligned,
        "base_folder": str(pair.base.folder.resolve()),
        "aligned_folder": str(pair.aligned.folder.resolve()),
        "parameters": pair.parameters,
        "tasks": {task.name: _task_record(plan, task, questionnaire) for task in tasks},
        "confidence": list(plan.confidence),
        "method": plan.method,
        "search": plan.search,
        "lambdas": list(plan.lambdas),
        "trials": plan.trials if plan.search == "optuna" else None,
        "seed": plan.seed,
        "bins": plan.bins,
        "accuracy_margin": plan.accuracy_margin,
        "limit": plan.limit,
        "batch_tokens": plan.batch_tokens,
        "device": str(plan.device),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
    }


def _settings_hash(plan: SweepPlan, pair: ModelPair) -> str:
    """Hash of the settings that both models compute with: the same weights under another config are another run."""
    config = resolved_config(pair.aligned.folder, trust_remote_code=plan.trust_remote_code)
    return hashlib.sha256(json.dumps(settings(config), sort_keys=True, default=str).encode()).hexdigest()


def _task_record(plan: SweepPlan, task: TaskSet, questionnaire: Questionnaire) -> dict[str, Any]:
    rows = {c: questionnaire.rows(task, c) for c in plan.confidence}
    return {
        "sha256": task.sha256,
        "n": len(task),
        "style": task.style,
        "source": task.source,
        "letters": rows["choice"].letters if "choice" in rows else None,
        "rows": {c: encoded.sha256 for c, encoded in rows.items()},
        "encoded_apart": {c: encoded.encoded_apart for c, encoded in rows.items()},
        "truncated": {c: encoded.truncated for c, encoded in rows.items()},
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
