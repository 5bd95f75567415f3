"""The experiment: for each point, weights in place, questions asked, scores recorded."""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import transformers

import merge_calib
from merge_calib.calibration.measurement import macro_average, measure
from merge_calib.checkpoints.fingerprint import fingerprint
from merge_calib.checkpoints.locate import locate
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.writer import write_checkpoint
from merge_calib.errors import InputError, ScoringError
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.plan import SweepPlan, dtype_name
from merge_calib.questions import TaskSet
from merge_calib.results import MEAN, Results
from merge_calib.run_directory import FORMAT, RunDirectory
from merge_calib.scores import ChoiceScores
from merge_calib.scoring.model import LanguageModel, load_tokenizer, longest_context
from merge_calib.scoring.prompts import PROMPTS
from merge_calib.scoring.rows import Encoder
from merge_calib.scoring.scorer import ConfidenceMethod, Questionnaire, require_same_ids, score
from merge_calib.search.grid import Grid
from merge_calib.search.optuna_study import OptunaSearch
from merge_calib.search.strategy import Strategy
from merge_calib.tasks import available_tasks, load_task

Advance = Callable[[int], None]
Watch = Callable[[str, int], Advance]  # told what begins and how much of it there is, gives what to call as it goes


def unwatched(_what: str, _total: int) -> Advance:
    """A watcher that shows nothing."""
    return lambda _done: None


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
    base = locate(plan.base, "--base", allow_pickle=plan.allow_pickle)
    aligned = locate(plan.aligned, "--aligned", allow_pickle=plan.allow_pickle)
    pair = ModelPair.open(base, aligned, allow_pickle=plan.allow_pickle)
    questionnaire = _encode(plan, pair, tasks, watch)
    advance = watch("reading both parents", pair.base.bytes + pair.aligned.bytes)
    hashes = fingerprint(pair.base, advance), fingerprint(pair.aligned, advance)
    return Preparation(plan, tasks, pair, questionnaire, _record(plan, tasks, pair, questionnaire, hashes))


def sweep(plan: SweepPlan, watch: Watch = unwatched) -> Results:
    """Measure every point of `plan` that its run directory does not hold yet, and write what was found.

    Raises MergeCalibError for a fault of the user's, before anything is written where it can be known by then.
    """
    prepared = prepare(plan, watch)
    run = RunDirectory(plan.out)
    run.agree(prepared.record)
    with run.locked():
        run.agree(prepared.record)
        run.extend(prepared.record)
        _Experiment(prepared, run, watch).measure_all()
        results = Results.of(run)
        results.write()
        recover(prepared, results)
    return results


def recover(prepared: Preparation, results: Results) -> None:
    """Write the selected point's checkpoint, unless it is there or the rule selected the aligned model itself."""
    if not results.can_select or not results.selection.recovers:
        return
    folder = results.run.path / "checkpoints" / results.selection.point
    if folder.exists():
        return
    point = results.point(results.selection.point)
    parents = {
        side: prepared.record["identity"][side] | {"model": prepared.record[side]} for side in ("base", "aligned")
    }
    write_point(prepared.pair, point, folder, prepared.plan.out_dtype, parents | {"rule": results.selection.rule})


def write_point(
    pair: ModelPair, point: MergePoint, folder: Path, out_dtype: torch.dtype | None, provenance: Mapping[str, Any]
) -> None:
    """Write the checkpoint of any point into `folder`; at lambda 0 and 1 the weights are the parent's own."""
    merger = Merger(pair, out_dtype)
    about = {"method": point.method, "lambda": point.lam, "merge_calib": merge_calib.__version__, **provenance}
    dtypes = {name: merger.dtype(point, name) for name in pair.names}
    write_checkpoint(folder, pair.aligned, dtypes, lambda name: merger.tensor(point, name), about)


class _Experiment:
    """The loop over points; the model is loaded when the first point needs it."""

    def __init__(self, prepared: Preparation, run: RunDirectory, watch: Watch) -> None:
        self._prepared = prepared
        self._plan = prepared.plan
        self._run = run
        self._watch = watch
        self._merger = Merger(prepared.pair, self._plan.out_dtype)
        self._model: LanguageModel | None = None

    def measure_all(self) -> None:
        strategy = _strategy(self._plan, self._prepared.record, self._run)
        advance = self._watch("points", strategy.total)
        while (point := strategy.propose()) is not None:
            self._measure(point)
            strategy.hear(point, *self._outcome(point))
            advance(1)

    def _measure(self, point: MergePoint) -> None:
        missing = {task: self._missing(point, task) for task in self._prepared.tasks}
        missing = {task: confidences for task, confidences in missing.items() if confidences}
        if not missing:
            return
        began = time.perf_counter()
        applied = False
        for task, confidences in missing.items():
            ids = [q.id for q in task.questions]
            unkept = [c for c in confidences if not self._run.kept(point, task.name, c, ids)]
            if unkept and not applied:
                self._merger.apply(point, self._loaded().targets)
                applied = True
            for confidence, scores in self._ask(point, task, unkept).items():
                self._run.save(point, task.name, confidence, scores)
        facts = {"device": str(self._plan.device), "seconds": round(time.perf_counter() - began, 3)}
        self._run.record(point, {task.name: confidences for task, confidences in missing.items()}, facts)

    def _missing(self, point: MergePoint, task: TaskSet) -> list[ConfidenceMethod]:
        return [c for c in self._plan.confidence if not self._run.has(point, task.name, c)]

    def _ask(
        self, point: MergePoint, task: TaskSet, confidences: list[ConfidenceMethod]
    ) -> dict[ConfidenceMethod, ChoiceScores]:
        if not confidences:
            return {}
        advance = self._watch(f"{point.name} {task.name}", self._prepared.questionnaire.tokens(task, confidences))
        try:
            return score(
                self._loaded(), self._prepared.questionnaire, task, confidences, self._plan.batch_tokens, advance
            )
        except ScoringError as error:
            raise ScoringError(f"point {point.name}, task {task.name}: {error}") from error

    def _loaded(self) -> LanguageModel:
        if self._model is None:
            plan = self._plan
            self._model = LanguageModel(
                self._prepared.pair.aligned, plan.device, plan.dtype, trust_remote_code=plan.trust_remote_code
            )
            if plan.device.type == "cuda":
                self._merger.keep_parents_on(plan.device)
        return self._model

    def _outcome(self, point: MergePoint) -> tuple[float, float]:
        """Mean accuracy and mean SCE over the tasks asked, by the first confidence method."""
        measurements = []
        for task in self._prepared.tasks:
            scores = self._run.scores(point, task.name, self._plan.confidence[0])
            assert scores is not None
            measurements.append(measure(scores.predictions, self._plan.bins))
        mean = macro_average(measurements)
        return mean.accuracy, mean.sce


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
        advance(1)
    return aligned


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


def _task_record(plan: SweepPlan, task: TaskSet, questionnaire: Questionnaire) -> dict[str, Any]:
    rows = {c: questionnaire.rows(task, c) for c in plan.confidence}
    return {
        "sha256": task.sha256,
        "n": len(task),
        "style": task.style,
        "source": task.source,
        "letters": questionnaire.encoder.letter_form(task) if "choice" in rows else None,
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


def _strategy(plan: SweepPlan, record: dict[str, Any], run: RunDirectory) -> Strategy:
    if plan.search == "grid":
        return Grid(plan.method, plan.lambdas)
    asked = ", ".join(f"{name} {task['sha256'][:8]}" for name, task in record["tasks"].items())
    objective = f"accuracy and sce ({plan.bins} bins) of {plan.confidence[0]} on {asked}"
    low, high = min(plan.lambdas), max(plan.lambdas)
    return OptunaSearch(plan.method, low, high, plan.trials, plan.seed, run.path / "study.journal", objective)
