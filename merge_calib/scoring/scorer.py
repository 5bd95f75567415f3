"""The one loop that runs the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from merge_calib.errors import CheckpointError
from merge_calib.progress import Advance, ignored
from merge_calib.questions import TaskSet
from merge_calib.scores import ChoiceScores, Floats
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.rows import EncodedTask, Encoder, Row, batches

ConfidenceMethod = Literal["choice", "continuation-sum", "continuation-min"]
CONFIDENCE_METHODS: tuple[ConfidenceMethod, ...] = ("choice", "continuation-sum", "continuation-min")
_REDUCTIONS: dict[ConfidenceMethod, Callable[[Floats], Any]] = {"continuation-sum": np.sum, "continuation-min": np.min}
_LOGIT_BYTES = 1 << 29  # float32 logits that one batch may hold


@dataclass
class Questionnaire:
    """All tasks encoded once, to be put to every point."""

    encoder: Encoder
    tasks: Sequence[TaskSet]
    _encoded: dict[tuple[str, bool], EncodedTask] = field(default_factory=dict)

    def rows(self, task: TaskSet, confidence: ConfidenceMethod) -> EncodedTask:
        """The rows of `task` for `confidence`; both continuation methods share theirs."""
        by_letter = confidence == "choice"
        if (task.name, by_letter) not in self._encoded:
            encode = self.encoder.choice if by_letter else self.encoder.continuations
            self._encoded[task.name, by_letter] = encode(task)
        return self._encoded[task.name, by_letter]

    def tokens(self, task: TaskSet, confidences: Sequence[ConfidenceMethod]) -> int:
        """How many tokens the model reads to answer `task` by all of `confidences`."""
        ways = {confidence == "choice": confidence for confidence in confidences}
        return sum(len(row.tokens) for way in ways.values() for row in self.rows(task, way).rows)


def require_same_ids(aligned: Questionnaire, base: Questionnaire, task: TaskSet, confidence: ConfidenceMethod) -> None:
    """Raise CheckpointError where the parents' tokenizers disagree on any id that `task` uses."""
    pairs = zip(aligned.rows(task, confidence).rows, base.rows(task, confidence).rows, strict=True)
    for ours, theirs in pairs:
        if not (np.array_equal(ours.tokens, theirs.tokens) and np.array_equal(ours.candidates, theirs.candidates)):
            id = task.questions[ours.question].id
            raise CheckpointError(
                f"the parents' tokenizers disagree: task {task.name}, question {id!r} is "
                f"{_short(theirs)} for the base and {_short(ours)} for the aligned model"
            )


def score(
    model: LanguageModel,
    questionnaire: Questionnaire,
    task: TaskSet,
    confidences: Sequence[ConfidenceMethod],
    max_tokens: int,
    progress: Advance = ignored,
) -> dict[ConfidenceMethod, ChoiceScores]:
    """Ask `model` the whole of `task`, once by letters and once by continuations where `confidences` needs them."""
    scores: dict[ConfidenceMethod, ChoiceScores] = {}
    if "choice" in confidences:
        rows = questionnaire.rows(task, "choice").rows
        scores["choice"] = _collect_letters(task, rows, _read(model, rows, max_tokens, progress))
    wanted = [c for c in confidences if c in _REDUCTIONS]
    if wanted:
        rows = questionnaire.rows(task, wanted[0]).rows
        read = _read(model, rows, max_tokens, progress)
        for confidence in wanted:
            scores[confidence] = _collect_tokens(task, rows, read, _REDUCTIONS[confidence])
    return scores


def _read(model: LanguageModel, rows: Sequence[Row], max_tokens: int, progress: Advance) -> list[Floats]:
    """The (P, K) log-probabilities of each row, in the order of the rows."""
    read: dict[int, Floats] = {}
    for batch in batches(rows, max_tokens, max(1, _LOGIT_BYTES // (4 * model.vocabulary))):
        tokens, positions, candidates = _tensors([rows[i] for i in batch], model.device)
        values = model.log_probabilities(tokens, positions, candidates).cpu().double().numpy()
        ends = np.cumsum([len(rows[i].candidates) for i in batch])[:-1]
        read |= dict(zip(batch, np.split(values, ends), strict=True))
        progress(sum(len(rows[i].tokens) for i in batch))
    return [read[i] for i in range(len(rows))]


def _tensors(batch: Sequence[Row], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-padded ids (B, T), flat scored positions (S,) and candidates (S, K) padded by repeating the first."""
    width = max(len(row.tokens) for row in batch)
    most = max(row.candidates.shape[1] for row in batch)
    tokens = np.zeros((len(batch), width), dtype=np.int64)
    positions, candidates = [], []
    for b, row in enumerate(batch):
        tokens[b, : len(row.tokens)] = row.tokens
        positions.append(b * width + row.first + np.arange(len(row.candidates)))
        candidates.append(np.pad(row.candidates, ((0, 0), (0, most - row.candidates.shape[1])), mode="edge"))
    arrays: tuple[Any, ...] = (tokens, np.concatenate(positions), np.concatenate(candidates))
    return tuple(torch.from_numpy(array).to(device) for array in arrays)  # type: ignore[return-value]


def _collect_letters(task: TaskSet, rows: Sequence[Row], read: Sequence[Floats]) -> ChoiceScores:
    """Each row's only position holds the scores of all choices of its question."""
    scores = _empty(task)
    for row, values in zip(rows, read, strict=True):
        count = row.candidates.shape[1]
        scores[row.question, :count] = values[0, :count]
    return _finished(task, scores)


def _collect_tokens(
    task: TaskSet, rows: Sequence[Row], read: Sequence[Floats], reduce: Callable[[Floats], Any]
) -> ChoiceScores:
    """The tokens of each choice, over all of its rows, reduced to one score."""
    tokens: dict[tuple[int, int], list[Floats]] = {}
    for row, values in zip(rows, read, strict=True):
        tokens.setdefault((row.question, row.choice), []).append(values[:, 0])
    scores = _empty(task)
    for place, parts in tokens.items():
        scores[place] = reduce(np.concatenate(parts))
    return _finished(task, scores)


def _empty(task: TaskSet) -> Floats:
    return np.full((len(task), max(len(q.choices) for q in task.questions)), np.nan)


def _finished(task: TaskSet, logprobs: Floats) -> ChoiceScores:
    counts = np.array([len(q.choices) for q in task.questions])
    mask = np.arange(logprobs.shape[1]) < counts[:, None]
    answers = np.array([q.answer for q in task.questions])
    return ChoiceScores(tuple(q.id for q in task.questions), answers, logprobs, mask)


def _short(row: Row) -> str:
    ids = [int(id) for id in row.tokens]
    return f"{len(ids)} tokens {ids[:6]}..."
