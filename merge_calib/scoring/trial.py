"""The trial that a way of reading must pass: invented rows, what they must give, and what a leak would give."""

from collections.abc import Sequence

import numpy as np

from merge_calib.scores import Floats
from merge_calib.scoring.rows import Row

TRIAL_TOKENS = 4096  # of a trial pack: so few that the common head is read by itself and remembered
LONGEST = 64  # tokens in a trial row: a model that takes fewer is read row by row
_HEAD, _STEM, _BRANCHES = 24, 10, (12, 7, 1)
_GROUPS = 9


def trial_rows(vocabulary: int) -> tuple[list[Row], list[list[int]]]:
    """Random tokens in the shape of questions: one head, contexts after it, three choices to each context.

    The rows are short and the pack is long, so that wrong positions show as much as wrong neighbours.
    """
    rng = np.random.default_rng(0)

    def ids(count: int) -> list[int]:
        return [int(id) for id in rng.integers(vocabulary // 4, max(vocabulary // 2, vocabulary // 4 + 2), count)]

    head, rows = ids(_HEAD), []
    for question in range(_GROUPS):
        stem = head + ids(_STEM)
        for choice, count in enumerate(_BRANCHES):
            targets = ids(count)
            rows.append(_row(stem, targets, question, choice))
    count = len(_BRANCHES)
    return rows, [list(range(i, i + count)) for i in range(0, len(rows), count)]


def leaked(rows: Sequence[Row]) -> list[Row]:
    """The same readings after the tokens of the choice before: what attention across choices would give."""
    changed = []
    for before, row in zip([rows[0], *rows[:-1]], rows, strict=True):
        stem, extra = row.tokens[: row.first + 1].tolist(), before.candidates[:, 0].tolist()
        if before.question == row.question and before is not row:
            stem += extra
        changed.append(_row(stem, row.candidates[:, 0].tolist(), row.question, row.choice))
    return changed


def agree(found: Floats, expected: Floats, leaky: Floats, *, is_exact: bool) -> bool:
    """Whether `found` differs from `expected` by rounding only, measured against the effect of a leak.

    A hundredth of it in float32 (`is_exact`), a tenth in half precision; root mean squares over all readings.
    """
    deviation, effect = (float(np.sqrt(np.mean((other - expected) ** 2))) for other in (found, leaky))
    return bool(deviation <= (0.01 if is_exact else 0.1) * effect or deviation <= 1e-5)


def _row(stem: list[int], targets: list[int], question: int, choice: int) -> Row:
    tokens = np.array([*stem, *targets[:-1]], dtype=np.int64)
    return Row(tokens, len(stem) - 1, np.array(targets, dtype=np.int64)[:, None], question, choice)
