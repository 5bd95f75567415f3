"""How many tokens are read at once: given, or found out from the memory there is; smaller after running out of it."""

import gc

import numpy as np
import torch

from merge_calib.scoring.batches import Batch
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.rows import Row

ON_CPU = 2048  # tokens: more gains nothing on a CPU, see tools/results/bench_scoring.md
MOST, LEAST, STEP = 65536, 1024, 1024
_SHARE = 0.7  # of the free memory


class Budget:
    """The tokens of one pass. `tokens` is the present number, `shrunk` how often memory was too small for it."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.shrunk = 0
        self._has_retried = False

    @classmethod
    def of(cls, model: LanguageModel, asked: int | None) -> "Budget":
        """`asked`, or what the memory of the model's device allows: measured there with a trial batch."""
        if asked is not None:
            return cls(asked)
        return cls(_measured(model) if model.device.type == "cuda" else ON_CPU)

    def shrink(self, batch: Batch) -> bool:
        """Halve the budget after `batch` was too much; False where that, or freeing what is kept, cannot help."""
        parts = len(batch.tokens) if batch.pack is None else len(batch.pack.trees)
        if parts < 2 and self._has_retried:
            return False
        self._has_retried = parts < 2
        if parts > 1:
            self.tokens = max(1, min(self.tokens, batch.size) // 2)
        self.shrunk += 1
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, on a GPU or in the host."""
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in words


def _measured(model: LanguageModel) -> int:
    """Read 2,048 random tokens, of which half are scored, and see how much memory each takes."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, model.vocabulary, (16, 129))
    rows = [Row(line[:-1], 64, line[65:, None], i, 0) for i, line in enumerate(ids)]
    groups = [[i] for i in range(len(rows))]
    torch.cuda.synchronize(model.device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(model.device)
    before = torch.cuda.memory_allocated(model.device)
    for batch in model.plan(rows, groups, MOST):
        model.read(batch)
    each = (torch.cuda.max_memory_allocated(model.device) - before) / (16 * 128)
    free, _ = torch.cuda.mem_get_info(model.device)
    return int(min(MOST, max(LEAST, _SHARE * free / each // STEP * STEP)))
