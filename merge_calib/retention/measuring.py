"""Measures what points keep of the alignment, on responses that the aligned model writes once for a run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merge_calib.merging.point import MergePoint
from merge_calib.progress import Watch
from merge_calib.retention.answers import (
    read_log_probabilities,
    read_responses,
    require_same_prompts,
    write_log_probabilities,
    write_responses,
)
from merge_calib.retention.record import RESPONSES, keep, lacks
from merge_calib.run_directory import RunDirectory
from merge_calib.scores import Integers
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.distributions import LogProbabilities, compare, log_probabilities
from merge_calib.scoring.instructions import Prompts, encode_prompts
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.responses import MOST_NEW, Response, affordable, cost, respond
from merge_calib.scoring.rows import Row

SHARE = 0.04  # of the tokens that a point's questions cost: with what does not depend on their number, under 5 %
AT_ONCE = 4096  # tokens: few, and not what memory allows, so that every process of a run reads the same batches
ALIGNED = MergePoint("linear", 1.0)


@dataclass(frozen=True)
class Desk:
    """What the aligned model needs for writing.

    tokenizer: of the merge; ends: its end tokens; longest: tokens that the model takes
    question_tokens: what the questions of a point cost; points: how many share the cost of writing
    """

    tokenizer: Any
    ends: frozenset[int]
    longest: int
    question_tokens: int
    points: int


class Retention:
    """The responses of a run, and the distance of its points from the aligned model on them.

    `ready` gives the model with the weights of a point in it. The responses and the aligned model's log-probabilities
    on them are kept in retained/; a run that lacks nothing reads neither and never asks for the model.
    """

    def __init__(
        self,
        run: RunDirectory,
        prompts: Prompts,
        ready: Callable[[MergePoint], LanguageModel],
        batch_tokens: int | None,
    ) -> None:
        self._run = run
        self._prompts = prompts
        self._ready = ready
        self._budget = Budget(min(AT_ONCE, batch_tokens or AT_ONCE))
        self._rows: tuple[Row, ...] | None = None
        self._kept: LogProbabilities | None = None

    def agree(self) -> None:
        """Raise RunDirectoryError where the run has responses to other prompts than those that the user names."""
        require_same_prompts(self._run, self._prompts)

    @property
    def has_responses(self) -> bool:
        """Whether the aligned model has answered."""
        return self._run.retained(RESPONSES) is not None

    def answer(self, desk: Desk, watch: Watch) -> None:
        """Have the aligned model write its responses; nothing is kept where what it says is not finite."""
        model = self._ready(ALIGNED)
        began = time.perf_counter()
        chosen = _choose(self._prompts.texts, desk, model.vocabulary)
        advance = watch("answers of the aligned model", chosen.new)
        responses = respond(model, chosen.ids, chosen.new, desk.ends, self._budget, advance)
        logprobs = log_probabilities(model, _rows_of(responses), self._budget)
        if np.isnan(logprobs).any():
            return  # where its questions are asked, that is said
        texts = [str(desk.tokenizer.decode(response.written)) for response in responses]
        answered = list(zip(chosen.prompts, texts, responses, strict=True))
        write_responses(self._run, self._prompts, answered, {**chosen.facts, **self._facts(model, began)})
        write_log_probabilities(self._run, logprobs)

    def measure(self, point: MergePoint) -> None:
        """Measure `point`, unless the run has done so already or has no responses to measure it on."""
        if not self.has_responses or not lacks(self._run, point) or not self._all_rows():
            return
        rows, reference = self._all_rows(), self._reference()
        model = self._ready(point)
        began = time.perf_counter()
        distances, agrees = compare(model, rows, reference, self._budget)
        counts = [len(row.candidates) for row in rows]
        sums = {"kl": _sums(distances, counts), "agreed": _sums(agrees, counts), "tokens": counts}
        keep(self._run, point, sums if np.isfinite(distances).all() else None, self._facts(model, began))

    def _all_rows(self) -> tuple[Row, ...]:
        if self._rows is None:
            self._rows = _rows_of(read_responses(self._run))
        return self._rows

    def _reference(self) -> LogProbabilities:
        """The aligned model's log-probabilities, computed once more where a run was cut off before they were kept."""
        if self._kept is None:
            rows = self._all_rows()
            positions = sum(len(row.candidates) for row in rows)
            self._kept = read_log_probabilities(self._run, positions)
            if self._kept is None:
                self._kept = log_probabilities(self._ready(ALIGNED), rows, self._budget)
                write_log_probabilities(self._run, self._kept)
        return self._kept

    def _facts(self, model: LanguageModel, began: float) -> dict[str, Any]:
        """How and where something was computed."""
        seconds = round(time.perf_counter() - began, 3)
        return {"device": str(model.device), "attention": model.attention, "seconds": seconds}


@dataclass(frozen=True)
class _Chosen:
    """The prompts that are answered, their ids, in how many tokens each, and what is recorded of that."""

    prompts: tuple[str, ...]
    ids: tuple[Integers, ...]
    new: int
    facts: dict[str, Any]


def _choose(texts: Sequence[str], desk: Desk, vocabulary: int) -> _Chosen:
    """The first of the prompts that the model takes, as many and with as long responses as the questions allow."""
    encoded, is_chat = encode_prompts(desk.tokenizer, texts, desk.longest)
    fitting = [i for i, ids in enumerate(encoded) if _fits(ids, desk.longest, vocabulary)]
    lengths = [len(encoded[i]) for i in fitting]
    count, new = affordable(lengths, vocabulary, SHARE * desk.question_tokens, desk.points)
    facts = {
        "do_not_fit": len(texts) - len(fitting),
        "chat_template": is_chat,
        "most_new_tokens": new,
        "tokens_of_a_point": round(cost(lengths[:count], new, desk.points)),
        "tokens_of_its_questions": desk.question_tokens,
    }
    picked = fitting[:count]
    return _Chosen(tuple(texts[i] for i in picked), tuple(encoded[i] for i in picked), new, facts)


def _rows_of(responses: Sequence[Response]) -> tuple[Row, ...]:
    return tuple(response.row(i) for i, response in enumerate(responses))


def _fits(ids: Integers, longest: int, vocabulary: int) -> bool:
    """Whether the model takes a prompt with the longest response to it, and knows all of its tokens."""
    return 0 < len(ids) <= longest - MOST_NEW and int(ids.max()) < vocabulary


def _sums(values: NDArray[Any], counts: Sequence[int]) -> list[Any]:
    """The sum over each response's tokens of `values` (R,), which stand one response after the other."""
    return [part.sum().item() for part in np.split(values, np.cumsum(counts)[:-1])]
