"""What a model answers to prompts by itself, greedily, and how many prompts and tokens that may be."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from merge_calib.progress import Advance, ignored
from merge_calib.scores import Integers
from merge_calib.scoring.batches import reading_starts
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.distributions import top_ids
from merge_calib.scoring.rows import Row

if TYPE_CHECKING:
    from merge_calib.scoring.model import LanguageModel

MOST_NEW, FEWEST_NEW = 32, 8  # tokens of a response; fewer only where not even one prompt is affordable
MOST_BYTES = 1 << 29  # of the log-probabilities that are kept of all responses
_BYTES_EACH = 4  # a log-probability
_TRIES = 8  # of making responses agree with themselves; the second one is nearly always the last


@dataclass(frozen=True)
class Response:
    """prompt (T,): ids of a prompt as the model is given it; written (P,): those that it wrote, its end included."""

    prompt: Integers
    written: Integers

    def row(self, index: int) -> Row:
        """Prompt and response as a row whose scored positions are those where a token was written."""
        tokens = np.concatenate([self.prompt, self.written[:-1]])
        return Row(tokens, len(self.prompt) - 1, self.written[:, None], index, -1)


def affordable(lengths: Sequence[int], vocabulary: int, tokens: float, points: int) -> tuple[int, int]:
    """How many of the prompts are answered, the first ones, and in how many tokens each at most.

    lengths (K,): tokens of each prompt; tokens: what a point may cost, on average over `points`
    A response is halved while not all prompts fit and it has more than 8 tokens; then so many prompts are taken as fit
    with it. One prompt is always taken, with a response as short as it must be, of one token where nothing fits.
    """

    def fits(count: int, new: int) -> bool:
        return cost(lengths[:count], new, points) <= tokens and _BYTES_EACH * vocabulary * count * new <= MOST_BYTES

    new = MOST_NEW
    while new > FEWEST_NEW and not fits(len(lengths), new):
        new //= 2
    while new > 1 and not fits(1, new):
        new //= 2
    fitting = bisect_left(range(1, len(lengths) + 1), True, key=lambda count: not fits(count, new))
    return max(1, fitting), new


def cost(lengths: Sequence[int], new: int, points: int) -> float:
    """Tokens that a point costs, on average over `points`: its own pass, and its share of writing the responses.

    They are written without a cache, so that token t of a response costs a pass over the prompt and the t before it;
    then they are read twice, to see that they are what the model says at once, and for its distributions.
    """
    once = sum(length + new - 1 for length in lengths)
    writing = sum(new * length + new * (new - 1) // 2 for length in lengths)
    return once + (writing + 2 * once) / points


def respond(
    model: "LanguageModel",
    prompts: Sequence[Integers],
    most_new: int,
    ends: frozenset[int],
    budget: Budget,
    advance: Advance = ignored,
) -> tuple[Response, ...]:
    """What the model answers to each prompt: at each step its most probable token, up to one of `ends`.

    There is no cache of keys and values: a step reads everything again, in any architecture as questions are read.
    """
    written: list[list[int]] = [[] for _ in prompts]
    for _ in range(most_new):
        unended = [i for i, ids in enumerate(written) if not ids or ids[-1] not in ends]
        rows = [_next(prompts[i], written[i], i) for i in unended]
        for i, id in zip(unended, top_ids(model, rows, budget), strict=True):
            written[i].append(int(id))
        advance(1)
    pairs = zip(prompts, written, strict=True)
    return _settled(model, tuple(Response(prompt, np.array(ids)) for prompt, ids in pairs), budget)


def _settled(model: "LanguageModel", responses: tuple[Response, ...], budget: Budget) -> tuple[Response, ...]:
    """Responses of which each token is the model's most probable one also where all are read at once.

    Other batches round otherwise, which decides between tokens that are as good as tied. A response is cut after the
    first token that differs, and ends with the one that was read; this is repeated until nothing differs.
    """
    for _ in range(_TRIES):
        rows = [response.row(i) for i, response in enumerate(responses)]
        said = top_ids(model, rows, budget)
        begins = reading_starts(rows)
        settled = tuple(_cut(r, said[begins[i] : begins[i + 1]]) for i, r in enumerate(responses))
        if all(one is other for one, other in zip(settled, responses, strict=True)):
            break
        responses = settled
    return responses


def _cut(response: Response, said: Integers) -> Response:
    """The response up to where something else was read, which ends it; itself where nothing else was."""
    differs = np.flatnonzero(response.written != said)
    return Response(response.prompt, said[: differs[0] + 1]) if len(differs) else response


def _next(prompt: Integers, written: Sequence[int], index: int) -> Row:
    """The row that asks for the token after those that are written."""
    tokens = np.concatenate([prompt, np.array(written, dtype=np.int64)])
    return Row(tokens, len(tokens) - 1, np.zeros((1, 1), dtype=np.int64), index, -1)
