"""The one loop that runs the model."""

from collections.abc import Iterable, Sequence

import numpy as np

from merge_calib.errors import InputError
from merge_calib.progress import Advance, ignored
from merge_calib.questions import PassageSet, Task, TaskSet
from merge_calib.scores import ChoiceScores, Floats, Integers, NextTokenScores, Scores
from merge_calib.scoring.batches import Batch, Reading, reading_starts
from merge_calib.scoring.budget import Budget, is_out_of_memory
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.questionnaire import ConfidenceMethod, Questionnaire, Sheet, way_of
from merge_calib.scoring.rows import Row


def score(
    model: LanguageModel,
    questionnaire: Questionnaire,
    task: Task,
    confidences: Sequence[ConfidenceMethod],
    budget: Budget,
    progress: Advance = ignored,
    questions: tuple[int, ...] | None = None,
) -> dict[ConfidenceMethod, Scores]:
    """Ask `model` the whole of `task`, in one go for all of `confidences`; `progress` hears the tokens of rows done.

    questions: ascending indices of the only ones to be asked, of multiple choice
    Raises ScoringError naming a question whose score is not finite.
    """
    sheet = questionnaire.sheet(task, confidences, questions)
    if questions is not None:
        assert isinstance(task, TaskSet)
        task = task.taking(questions)
    reading = _read(model, task.name, sheet, budget, progress)
    starts = reading_starts(sheet.rows)
    scores: dict[ConfidenceMethod, Scores] = {}
    for confidence in confidences:
        part = sheet.ways[way_of(confidence)]
        rows, begins = sheet.rows[part], starts[part]
        if isinstance(task, PassageSet):
            scores[confidence] = _next_tokens(task, rows, begins, reading)
        elif confidence == "choice":
            scores[confidence] = _letters(task, rows, begins, reading.logprobs)
        else:
            scores[confidence] = _continuations(task, rows, begins, reading.logprobs, confidence)
    return scores


def _read(model: LanguageModel, task: str, sheet: Sheet, budget: Budget, progress: Advance) -> Reading:
    """Everything that the rows ask for, whatever the memory allows at once."""
    count = int(reading_starts(sheet.rows)[-1])
    found = Reading(np.full(count, np.nan), np.full(count, np.nan), np.zeros(count, dtype=np.int64))
    batches: Iterable[Batch] = sheet.planned(model.plan, budget.tokens)
    while (stopped := _read_all(model, batches, found, progress)) is not None:
        if not budget.shrink(stopped):
            raise InputError(
                f"task {task}: the memory of {model.device} is too small for {stopped.size} tokens at once, which "
                "cannot be divided; use another --device or a smaller --dtype. What was measured is kept"
            )
        batches = model.plan(sheet.rows, _unread(sheet, found), budget.tokens)
    return found


def _read_all(model: LanguageModel, batches: Iterable[Batch], found: Reading, progress: Advance) -> Batch | None:
    """Read batch after batch into `found`; gives the batch that memory was too small for, if there is one."""
    for batch in batches:
        try:
            part = model.read(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return batch
        found.logprobs[batch.reads] = part.logprobs
        found.top_logprobs[batch.reads] = part.top_logprobs
        found.top_ids[batch.reads] = part.top_ids
        progress(batch.tokens_of_rows)
    return None


def _unread(sheet: Sheet, found: Reading) -> list[list[int]]:
    """What is left of the groups: rows of which something is not read yet (nothing reads as NaN but a broken model)."""
    open_rows = np.add.reduceat(np.isnan(found.logprobs), reading_starts(sheet.rows)[:-1]) > 0
    left = [[i for i in group if open_rows[i]] for group in sheet.groups]
    return [group for group in left if group]


def _letters(task: TaskSet, rows: Sequence[Row], begins: Integers, logprobs: Floats) -> ChoiceScores:
    """Each row's only position holds the scores of all choices of its question."""
    scores = _empty(task)
    for row, begin in zip(rows, begins, strict=True):
        count = row.candidates.shape[1]
        scores[row.question, :count] = logprobs[begin : begin + count]
    return _finished(task, scores)


def _continuations(
    task: TaskSet, rows: Sequence[Row], begins: Integers, logprobs: Floats, confidence: ConfidenceMethod
) -> ChoiceScores:
    """The tokens of each choice, over all of its rows, reduced to one score."""
    tokens: dict[tuple[int, int], list[Floats]] = {}
    for row, begin in zip(rows, begins, strict=True):
        tokens.setdefault((row.question, row.choice), []).append(logprobs[begin : begin + len(row.candidates)])
    scores = _empty(task)
    for (question, choice), parts in tokens.items():
        text = task.questions[question].choices[choice]
        scores[question, choice] = _reduced(np.concatenate(parts), text, confidence)
    return _finished(task, scores)


def _reduced(tokens: Floats, text: str, confidence: ConfidenceMethod) -> float:
    """The score of a choice from the log-probabilities of its tokens; `norm` is lm-eval's acc_norm, by characters."""
    if confidence == "continuation-min":
        return float(tokens.min())
    total = float(tokens.sum())
    if confidence == "continuation-mean":
        return total / len(tokens)
    return total / len(text) if confidence == "continuation-norm" else total


def _next_tokens(task: PassageSet, rows: Sequence[Row], begins: Integers, reading: Reading) -> NextTokenScores:
    return NextTokenScores(
        tuple(passage.id for passage in task.passages),
        np.array([row.candidates[0, 0] for row in rows]),
        reading.top_ids[begins],
        reading.logprobs[begins],
        reading.top_logprobs[begins],
    )


def _empty(task: TaskSet) -> Floats:
    return np.full((len(task), max(len(q.choices) for q in task.questions)), np.nan)


def _finished(task: TaskSet, logprobs: Floats) -> ChoiceScores:
    counts = np.array([len(q.choices) for q in task.questions])
    mask = np.arange(logprobs.shape[1]) < counts[:, None]
    answers = np.array([q.answer for q in task.questions])
    return ChoiceScores(tuple(q.id for q in task.questions), answers, logprobs, mask)
