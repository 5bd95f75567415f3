"""Which choice is the right one, by what lm-eval logged, and whether lm-eval's accuracy says the same."""

from collections.abc import Sequence

from merge_calib.errors import InputError
from merge_calib.lm_eval_samples.sample import Sample, best_choice, choices_are_contexts
from merge_calib.tasks.lines import kind

Answers = list[int | None]  # 0-based index of the right choice, None where no choice is right

TRUTH = {"False": 0, "True": 1}
ANSWER_FIELDS = ("answer", "label")  # of WinoGrande, XWinograd and WSC273


def find_answers(samples: Sequence[Sample]) -> Answers:
    """The right choice of each question.

    Raises InputError, with a place, where several are right or where the file leaves it open which one is.
    """
    if choices_are_contexts(samples):
        return _deduced(samples)
    for sample in samples:
        _require_one_target(sample)
    return _stated(samples)


def first_disagreement(
    metric: str, samples: Sequence[Sample], answers: Answers, lengths: Sequence[Sequence[int]] | None = None
) -> Sample | None:
    """The first question whose metric in the file is not what its log-likelihoods give.

    lengths (N, C): what the log-likelihoods are divided by, nothing for None. A question without a right choice must
    be 0.
    """
    for i, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        hit = best_choice(sample.log_likelihoods, lengths[i] if lengths else None) == answer
        if sample.metrics[metric] != hit:
            return sample
    return None


def require_yes_or_no(metric: str, samples: Sequence[Sample]) -> None:
    """Refuse a metric that is neither 0 nor 1 on some question."""
    for sample in samples:
        value = sample.metrics[metric]
        if value not in (0, 1):
            raise InputError(
                f"{sample.place}: {metric} is {kind(value)} and neither 0 nor 1: the task does not have one right "
                "answer to a question, as TruthfulQA mc2"
            )


def _require_one_target(sample: Sample) -> None:
    target = sample.target.strip()
    if target.startswith("[") and target.endswith("]") and _by_text(sample) is None:
        raise InputError(
            f"{sample.place}: the target is {target}: a question with several right answers has no calibration error"
        )


def _stated(samples: Sequence[Sample]) -> Answers:
    """The answers by `target`, which holds the index or the text of the right choice and does not say which.

    A task uses one of the two throughout. Taken is the reading that finds an answer to more questions and, where both
    find as many, the one that agrees with lm-eval's `acc`.
    """
    index, text = [_by_index(sample) for sample in samples], [_by_text(sample) for sample in samples]
    rank_index, rank_text = _rank(samples, index), _rank(samples, text)
    if rank_index == rank_text and index != text:
        i = next(i for i, pair in enumerate(zip(index, text, strict=True)) if pair[0] != pair[1])
        raise InputError(
            f"{samples[i].place}: the target {samples[i].target!r} may be the index of a choice or its text, and "
            "lm-eval's acc does not tell which"
        )
    return index if rank_index >= rank_text else text


def _rank(samples: Sequence[Sample], answers: Answers) -> tuple[int, bool]:
    agrees = "acc" not in samples[0].metrics or first_disagreement("acc", samples, answers) is None
    return len(answers) - answers.count(None), agrees


def _by_index(sample: Sample) -> int | None:
    """The index as lm-eval writes an index of any type; a truth value is one."""
    target = sample.target.strip().removesuffix(".0")
    index = int(target) if target.isascii() and target.isdigit() else TRUTH.get(target)
    return index if index is not None and index < len(sample.labels) else None


def _by_text(sample: Sample) -> int | None:
    target = sample.target.strip()
    return sample.labels.index(target) if target in sample.labels else None


def _deduced(samples: Sequence[Sample]) -> Answers:
    """The answers where the target is the text after the choices: two choices and `acc` leave only one.

    They must go with a field of the docs, which shows that acc is right about labels and order.
    """
    if "acc" in samples[0].metrics and all(len(sample.labels) == 2 for sample in samples):
        best = [best_choice(sample.log_likelihoods) for sample in samples]
        answers = [k if sample.metrics["acc"] else 1 - k for k, sample in zip(best, samples, strict=True)]
        if any(_go_together([str(sample.doc.get(name)) for sample in samples], answers) for name in ANSWER_FIELDS):
            return list(answers)
    raise InputError(
        f"{samples[0].place}: the choices stand in the contexts, as in WinoGrande, and lm-eval does not log which is "
        "right; it can be told only for two choices, by 'acc' and a field 'answer' or 'label' of the doc"
    )


def _go_together(values: Sequence[str], answers: Sequence[int]) -> bool:
    """Whether each value stands for one answer and each answer for one value."""
    return len(set(zip(values, answers, strict=True))) == len(set(values)) == len(set(answers))
