"""A slow reference for the scorer: one row a choice, one row a forward pass, full logits, their softmax in float64.

It shares nothing with merge_calib.scoring but the tokenizer and the prompt texts that it is given.
"""

from typing import Any

import torch

NO_LIMIT = 1 << 30  # of models whose positions are not learned or not bounded


def choice_log_probabilities(model: Any, tokenizer: Any, context: str, continuation: str) -> list[float]:
    """Log-probability of each token of `continuation` after `context`, one by one.

    A row holds the last tokens that the model has positions for. A continuation with more tokens than that is scored
    in pieces of half as many, each after the tokens before it.
    """
    start = tokenizer(context)["input_ids"]
    joint = tokenizer(context + continuation)["input_ids"]
    if joint[: len(start)] != start:
        joint = start + tokenizer(continuation, add_special_tokens=False)["input_ids"]
    limit = getattr(model.config, "max_position_embeddings", NO_LIMIT)
    step = limit if len(joint) - len(start) <= limit else limit // 2
    found: list[float] = []
    for begin in range(len(start), len(joint), step):
        targets = joint[begin : begin + step]
        fed = joint[: begin + len(targets) - 1][-limit:]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([fed])).logits[0].double()
        log_probabilities = torch.log_softmax(logits, dim=-1)[-len(targets) :]
        found += [float(log_probabilities[i, target]) for i, target in enumerate(targets)]
    return found


def letter_log_probabilities(model: Any, tokenizer: Any, prompt: str, letters: str) -> list[float]:
    """Log-probability of each letter after `prompt`, with a space where all are one token so, else without.

    All letters follow the same tokens, so one forward pass serves them.
    """
    start = tokenizer(prompt)["input_ids"]
    for space in (" ", ""):
        joint = [tokenizer(prompt + space + letter)["input_ids"] for letter in letters]
        if all(len(ids) == len(start) + 1 for ids in joint):
            break
    fed = start[-getattr(model.config, "max_position_embeddings", NO_LIMIT) :]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([fed])).logits[0, -1].double()
    log_probabilities = torch.log_softmax(logits, dim=-1)
    return [float(log_probabilities[ids[-1]]) for ids in joint]
