"""The scores in a file of lm-eval's logged samples, checked against lm-eval's own accuracy."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from merge_calib.errors import InputError
from merge_calib.lm_eval_samples.answers import Answers, find_answers, first_disagreement, require_yes_or_no
from merge_calib.lm_eval_samples.sample import Sample, choices_are_contexts, delimiters, parse_sample
from merge_calib.questions import LETTERS, Question, TaskSet
from merge_calib.scores import ChoiceScores, Floats
from merge_calib.tasks.lines import located, read_objects

NAME = re.compile(r"samples_([A-Za-z0-9_][A-Za-z0-9_.-]*)_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl")
REPEATED = "lines that say the same of a question again, under another filter or word for word"
NO_ANSWER = "questions whose target is none of the choices, which lm-eval counts as wrong"


@dataclass(frozen=True)
class ImportedTask:
    """What one model said to one task, by lm-eval's log.

    model: name of the folder that the file lies in, lm-eval's name of the model with __ for / and its like
    task, date: from the file's name
    source: the file
    scores: by confidence method: `choice` where all choices are letters, else `continuation-sum`, and
        `continuation-norm` (the sum divided by the number of characters, as acc_norm) where the texts are known
    questions: the texts as asked, the context verbatim; None for letters, whose choices are only in the prompt
    skipped: how many lines were left out, by reason
    checked: lm-eval's metrics that the scores reproduce on every line
    notes: what else a reader of the results should know
    """

    model: str
    task: str
    date: str
    source: Path
    scores: dict[str, ChoiceScores]
    questions: TaskSet | None
    skipped: dict[str, int]
    checked: tuple[str, ...]
    notes: tuple[str, ...]


def read_samples(path: Path) -> ImportedTask:
    """The scores in a file `MODEL/samples_TASK_DATE.jsonl` of lm-eval, in the order of its doc_id.

    Question ids are the docs' own `id` where each doc has one of its own (ARC's are those of a sweep), else `TASK-` and
    16 digits of doc_hash (with `-2`, `-3`, ... where a doc occurs again), else `TASK-` and doc_id: the same for every
    model that was asked the same questions.
    Raises InputError with FILE:LINE for anything that is not one multiple-choice task with one right answer a
    question, and where `acc` or `acc_norm` in the file is not what the log-likelihoods give.
    """
    task, date = _split_name(path)
    lines = list(_parse(path))
    _require_one_task(lines)
    samples = _each_once(lines)
    for metric in _metrics(samples):
        require_yes_or_no(metric, samples)
    checked = _Checked.of(samples, find_answers(samples))
    skipped = {REPEATED: len(lines) - len(samples), NO_ANSWER: checked.answers.count(None)}
    kept = checked.with_answer()
    if not kept.samples:
        raise InputError(f"{path}: no question is left: no target is one of the choices")
    ids = _ids(task, kept.samples)
    return ImportedTask(
        model=path.absolute().parent.name,
        task=task,
        date=date,
        source=path,
        scores=kept.scores(ids),
        questions=kept.questions(ids, task, str(path)),
        skipped={reason: count for reason, count in skipped.items() if count},
        checked=kept.metrics,
        notes=tuple(_notes(lines, kept)),
    )


def _split_name(path: Path) -> tuple[str, str]:
    """Task and date; the name of a task has underscores of its own."""
    found = NAME.fullmatch(path.name)
    if not found:
        raise InputError(f"{path}: not named as lm-eval names its samples, samples_TASK_2025-01-31T12-34-56.789.jsonl")
    return found[1], found[2]


def _parse(path: Path) -> list[Sample]:
    samples = []
    for place, values in read_objects(path):
        with located(place):
            samples.append(parse_sample(place, values))
    return samples


def _require_one_task(samples: Sequence[Sample]) -> None:
    """Refuse a file whose lines have other metrics or other fields in their docs."""
    first = samples[0]
    for sample in samples[1:]:
        if set(sample.metrics) != set(first.metrics) or set(sample.doc) != set(first.doc):
            raise InputError(
                f"{sample.place}: another task than on line 1: docs or metrics have other fields. lm-eval appends to "
                "a file that is there; a file must hold one task"
            )


def _each_once(lines: Sequence[Sample]) -> list[Sample]:
    """Each question once, in the order of doc_id; lines that say the same of it again are left out."""
    seen: dict[int, Sample] = {}
    for line in lines:
        first = seen.setdefault(line.doc_id, line)
        if line != replace(first, place=line.place, filter=line.filter):
            raise InputError(
                f"{line.place}: doc_id {line.doc_id} again, and not as in {first.place}: two runs, two tasks or two "
                "filters that disagree; a file must hold one"
            )
    return [seen[doc_id] for doc_id in sorted(seen)]


def _metrics(samples: Sequence[Sample]) -> list[str]:
    return [name for name in ("acc", "acc_norm") if name in samples[0].metrics]


@dataclass(frozen=True)
class _Checked:
    """Questions (N) with their answers, and what is known by lm-eval's metrics.

    metrics: the metrics that were reproduced
    texts (N, C): the choices without delimiter, None where they are not known
    """

    samples: list[Sample]
    answers: Answers
    metrics: tuple[str, ...]
    texts: list[tuple[str, ...]] | None

    @classmethod
    def of(cls, samples: list[Sample], answers: Answers) -> "_Checked":
        """Find the texts that give acc_norm; raises InputError where the file's metrics are not reproduced."""
        has = _metrics(samples)
        if "acc" in has:
            _require_agreement("acc", first_disagreement("acc", samples, answers))
        if choices_are_contexts(samples):
            return cls(samples, answers, ("acc",), None)
        found = [_without(delimiter, samples) for delimiter in delimiters([s.continuations for s in samples])]
        if "acc_norm" not in has:
            return cls(samples, answers, tuple(has), found[0])
        wrong = [first_disagreement("acc_norm", samples, answers, _lengths(texts)) for texts in found]
        if None in wrong:
            return cls(samples, answers, tuple(has), found[wrong.index(None)])
        if "acc" not in has:
            _require_agreement("acc_norm", wrong[0])
        return cls(samples, answers, ("acc",), None)

    def with_answer(self) -> "_Checked":
        """Only the questions that have a right choice."""
        kept = [i for i, answer in enumerate(self.answers) if answer is not None]
        texts = self.texts and [self.texts[i] for i in kept]
        return replace(
            self, samples=[self.samples[i] for i in kept], answers=[self.answers[i] for i in kept], texts=texts
        )

    @property
    def letters(self) -> bool:
        """Whether the choices are A, B, C, ... in every question."""
        return all(sample.labels == tuple(LETTERS[: len(sample.labels)]) for sample in self.samples)

    def scores(self, ids: tuple[str, ...]) -> dict[str, ChoiceScores]:
        """The scores by confidence method."""
        sums = [np.array(sample.log_likelihoods) for sample in self.samples]
        if self.letters:
            return {"choice": self._padded(ids, sums)}
        scores = {"continuation-sum": self._padded(ids, sums)}
        if self.texts and all(min(lengths) for lengths in _lengths(self.texts)):
            means = [row / np.array(lengths) for row, lengths in zip(sums, _lengths(self.texts), strict=True)]
            scores["continuation-norm"] = self._padded(ids, means)
        return scores

    def _padded(self, ids: tuple[str, ...], rows: Sequence[Floats]) -> ChoiceScores:
        logprobs = np.full((len(rows), max(len(row) for row in rows)), np.nan)
        for i, row in enumerate(rows):
            logprobs[i, : len(row)] = row
        return ChoiceScores(ids, np.array(self.answers, dtype=np.int64), logprobs, ~np.isnan(logprobs))

    def questions(self, ids: tuple[str, ...], task: str, source: str) -> TaskSet | None:
        """What was asked, where the choices are texts and no more than there are letters."""
        if self.letters or not self.texts or max(map(len, self.texts)) > len(LETTERS):
            return None
        asked = [
            Question(id, sample.contexts[0], texts, answer, context=sample.contexts[0])
            for id, sample, texts, answer in zip(ids, self.samples, self.texts, self.answers, strict=True)
            if answer is not None
        ]
        return TaskSet(task, "plain", tuple(asked), source)


def _require_agreement(metric: str, wrong: Sample | None) -> None:
    if wrong:
        raise InputError(
            f"{wrong.place}: {metric} is {wrong.metrics[metric]} in the file, and its log-likelihoods "
            f"{list(wrong.log_likelihoods)} with target {wrong.target!r} do not give that. The task scores its "
            "answers in a way of its own, or the line was changed"
        )


def _without(delimiter: str, samples: Sequence[Sample]) -> list[tuple[str, ...]]:
    return [tuple(text.removeprefix(delimiter) for text in sample.continuations) for sample in samples]


def _lengths(texts: Sequence[Sequence[str]]) -> list[list[int]]:
    """Characters (N, C), as lm-eval counts them."""
    return [[len(text) for text in row] for row in texts]


def _ids(task: str, samples: Sequence[Sample]) -> tuple[str, ...]:
    own = [sample.doc.get("id") for sample in samples]
    if all(isinstance(id, str) and id for id in own) and len(set(own)) == len(own):
        return tuple(map(str, own))
    if not all(sample.doc_hash for sample in samples):
        return tuple(f"{task}-{sample.doc_id}" for sample in samples)
    count: Counter[str] = Counter()
    ids = []
    for digits in (sample.doc_hash[:16] for sample in samples):
        count[digits] += 1
        ids.append(f"{task}-{digits}" + (f"-{count[digits]}" if count[digits] > 1 else ""))
    return tuple(ids)


def _notes(lines: Sequence[Sample], kept: _Checked) -> list[str]:
    filters = list(dict.fromkeys(line.filter for line in lines))
    notes = []
    if len(filters) > 1:
        notes.append(f"the filters {', '.join(filters)} say the same; {filters[0]} is kept")
    if choices_are_contexts(kept.samples):
        notes.append("the right choices are deduced from acc, and go with the docs' own field")
    elif "acc_norm" in kept.samples[0].metrics and "acc_norm" not in kept.metrics:
        notes.append("no continuation-norm: the lengths that lm-eval divided by for acc_norm are not in the file")
    elif kept.texts and not all(min(lengths) for lengths in _lengths(kept.texts)):
        notes.append("no continuation-norm: a choice is empty")
    if not kept.metrics:
        notes.append("neither acc nor acc_norm is in the file: the reading could not be checked")
    return notes
