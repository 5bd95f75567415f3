"""A slow reference for the scorer: one row a choice, one row a forward pass, full float32 logits.

It shares nothing with merge_calib.scoring but the tokenizer and the prompt texts that it is given.
"""

from typing import Any

import torch


def choice_log_probabilities(model: Any, tokenizer: Any, context: str, continuation: str) -> list[float]:
    """Log-probability of each token of `continuation` after `context`, one by one."""
    start = tokenizer(context)["input_ids"]
    joint = tokenizer(context + continuation)["input_ids"]
    if joint[: len(start)] != start:
        joint = start + tokenizer(continuation, add_special_tokens=False)["input_ids"]
    targets = joint[len(start) :]
    fed = joint[:-1][-model.config.max_position_embeddings :]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([fed])).logits[0].float()
    log_probabilities = torch.log_softmax(logits, dim=-1)[-len(targets) :]
    return [float(log_probabilities[i, target]) for i, target in enumerate(targets)]
