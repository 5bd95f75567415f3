"""One line of lm-eval's samples: what was asked, what the model replied and what lm-eval made of it.

Whatever is wrong raises InputError without a place; the reader that knows FILE:LINE adds it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from merge_calib.errors import InputError
from merge_calib.tasks.lines import Values, kind, objects, require_object, required, texts, whole_number

NUMBERED = re.compile(r"[a-z_]+_\d+")
HIGHEST = 1e-3  # nats; a log-likelihood is at most 0, and some servers round
UNCONDITIONAL = "acc_mutual_info"  # the metric that makes lm-eval ask for every choice after an empty context too


@dataclass(frozen=True)
class Sample:
    """A multiple-choice question with the log-likelihood of each of its C choices.

    place: FILE:LINE
    contexts, continuations (C,): the two texts of each request, the delimiter still in front of the continuation
    log_likelihoods (C,): summed over the tokens of the continuation, in nats
    metrics: lm-eval's own values by name
    """

    place: str
    doc_id: int
    doc: Values
    doc_hash: str
    filter: str
    target: str
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    log_likelihoods: tuple[float, ...]
    metrics: Values

    @property
    def labels(self) -> tuple[str, ...]:
        """The continuations (C,) without blanks at their ends."""
        return tuple(text.strip() for text in self.continuations)


def choices_are_contexts(samples: Sequence[Sample]) -> bool:
    """Whether the choices stand in the contexts and one text is scored after each, as in WinoGrande."""
    return any(len(set(s.continuations)) == 1 and len(set(s.contexts)) > 1 for s in samples)


def delimiters(continuations: Sequence[Sequence[str]]) -> list[str]:
    """What lm-eval may have put before every choice (N, C), its default of one blank first."""
    return [d for d in (" ", "\n", "") if all(text.startswith(d) for texts in continuations for text in texts)]


def best_choice(log_likelihoods: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """Index of the largest (C,), each divided by its length where there are lengths, the first on exact ties.

    The arithmetic is lm-eval's float64; a choice without length is never the best.
    """
    scores = np.array(log_likelihoods)
    with np.errstate(divide="ignore", invalid="ignore"):
        return int(np.argmax(scores if lengths is None else scores / np.array(lengths, dtype=np.float64)))


def parse_sample(place: str, values: Values) -> Sample:
    """The sample on one line.

    Raises InputError, without a place, for a task that is not multiple choice and for replies that are no
    log-likelihoods.
    """
    requests = [_texts(request) for request in _arguments(values)]
    if len(requests) == 1:
        raise _not_multiple_choice("asked for the likelihood of one text")
    numbers, metrics = _log_likelihoods(values, len(requests)), _metrics(values)
    count = _conditional(requests) if UNCONDITIONAL in metrics else len(requests)
    return Sample(
        place=place,
        doc_id=whole_number(values, "doc_id"),
        doc=require_object(required(values, "doc"), "'doc'"),
        doc_hash=str(values.get("doc_hash") or ""),
        filter=str(values.get("filter", "none")),
        target=str(required(values, "target")),
        contexts=tuple(context for context, _ in requests[:count]),
        continuations=tuple(continuation for _, continuation in requests[:count]),
        log_likelihoods=tuple(numbers[:count]),
        metrics=metrics,
    )


def _metrics(values: Values) -> Values:
    """lm-eval's values by name; files that do not list the names may still have the two that are read here."""
    names = texts(values, "metrics") if "metrics" in values else ["acc", "acc_norm"]
    return {name: values[name] for name in names if name in values}


def _arguments(values: Values) -> list[list[Any]]:
    """The arguments of each request in order: {"gen_args_0": {"arg_0": ...}}, in older files [[...], ...]."""
    requests = [_ordered(request) for request in _ordered(required(values, "arguments"))]
    if not requests or not all(isinstance(request, list) and request for request in requests):
        raise InputError("'arguments' must hold the texts of each request")
    return requests


def _ordered(items: Any) -> Any:
    """The values of an object with keys NAME_0, NAME_1, ... in the order of the numbers; anything else as it is."""
    if not isinstance(items, dict):
        return items
    if not all(NUMBERED.fullmatch(key) for key in items):
        raise InputError(f"'arguments' must have keys gen_args_0, ... and arg_0, ..., not {', '.join(items)}")
    return [items[key] for key in sorted(items, key=lambda key: int(key.rpartition("_")[2]))]


def _texts(request: list[Any]) -> tuple[str, str]:
    """Context and continuation of a request."""
    if len(request) == 1:
        raise _not_multiple_choice("asked for the likelihood of whole texts")
    context, continuation = request[:2]
    if isinstance(continuation, dict):
        raise _not_multiple_choice("asked for generated text")
    if not isinstance(context, str) or not isinstance(continuation, str):
        raise InputError(f"a request must be two texts, not {kind(context)} and {kind(continuation)}")
    return context, continuation


def _not_multiple_choice(instead: str) -> InputError:
    return InputError(
        f"not a multiple-choice task: lm-eval {instead}. Calibration needs a log-likelihood for every choice, "
        "which lm-eval's tasks with output_type multiple_choice log"
    )


def _conditional(requests: list[tuple[str, str]]) -> int:
    """How many requests are choices after their context, where as many after an empty context must follow."""
    count = len(requests) // 2
    expected = [("", continuation) for _, continuation in requests[:count]]
    if requests[count:] != expected:
        raise InputError(
            f"{UNCONDITIONAL} needs every choice once after its context and once after none, in the same order; "
            f"the {len(requests)} requests under 'arguments' are not that"
        )
    return count


def _log_likelihoods(values: Values, count: int) -> list[float]:
    """The first reply to each request; a filter must have left it as it is."""
    replies = [_first(repeats) for repeats in objects(values, "resps")]
    filtered = objects(values, "filtered_resps") if "filtered_resps" in values else replies
    for key, found in (("resps", replies), ("filtered_resps", filtered)):
        if len(found) != count:
            raise InputError(f"{key!r} holds {len(found)} replies to {count} requests")
    question = f"question {values.get('doc_id')}"
    numbers = [_number(reply, f"{question}, choice {k}") for k, reply in enumerate(replies)]
    if numbers != [_number(reply, f"{question}, choice {k}") for k, reply in enumerate(filtered)]:
        raise InputError(f"the filter {values.get('filter')!r} changed the log-likelihoods, 'filtered_resps' differs")
    return numbers


def _first(repeats: Any) -> Any:
    if not isinstance(repeats, list) or not repeats:
        raise InputError(f"each item of 'resps' must be a list of replies, not {kind(repeats)}")
    return repeats[0]


def _number(reply: Any, where: str) -> float:
    """The log-likelihood in [log-likelihood, is_greedy]; the number may be a text."""
    value = reply[0] if isinstance(reply, list) and len(reply) == 2 else None
    try:
        number = float(value) if isinstance(value, str | float | int) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None:
        raise InputError(f"{where}: a reply must be [log-likelihood, is_greedy], not {reply!r}")
    if not math.isfinite(number):
        raise InputError(f"{where}: the log-likelihood is {value}, which is not a finite number")
    if number > HIGHEST:
        raise InputError(f"{where}: {value} is above 0 and so not a log-likelihood")
    return number
