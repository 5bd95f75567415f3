"""lm-eval's logged samples (`samples_TASK_DATE.jsonl`, lm-eval 0.4.13) read as scores, and scores written as such.

A line is one question: its `doc`, the `target`, the text of every request under `arguments`, the model's replies in
`resps` (numbers and booleans as texts) and lm-eval's own metrics of it.
"""

from merge_calib.lm_eval_samples.reading import ImportedTask, read_samples
from merge_calib.lm_eval_samples.writing import folder_name, write_samples

__all__ = ["ImportedTask", "folder_name", "read_samples", "write_samples"]
