"""Scores written as lm-eval logs its samples, so that whatever reads those can read these."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.files import write_text
from merge_calib.lm_eval_samples.sample import best_choice, delimiters
from merge_calib.questions import Question, TaskSet
from merge_calib.scores import ChoiceScores
from merge_calib.tasks.lines import Values

LOGGED = ("choice", "continuation-sum")  # the confidence methods that are a sum of log-probabilities, as lm-eval's
GREEDY = "None"  # lm-eval writes "True" or "False"; a scorer that reads only the choices does not know

Texts = Sequence[tuple[str, str]]  # context and continuation of each choice


def folder_name(model: str) -> str:
    """The name that lm-eval gives to the folder of a model: "__" for what a file name should not hold."""
    return re.sub(r'[<>:"/\\|?*\[\]]+', "__", model)


def write_samples(
    folder: Path, task: TaskSet, confidence: str, scores: ChoiceScores, texts: Sequence[Texts], date: datetime
) -> Path:
    """Write `samples_TASK_DATE.jsonl` into `folder`, lm-eval's OUT/MODEL, and give its path.

    texts[i][k] is what was scored for choice k of question i; `scores` are those of `task`, in its order.
    `read_samples` gives the same scores back, bit for bit. Of lm-eval's fields only is_greedy, the second item of
    a reply, is not known: it is "None". The same arguments give the same bytes. Raises InputError for a confidence
    method whose numbers are not what lm-eval logs.
    """
    if confidence not in LOGGED:
        raise InputError(
            f"lm-eval's samples hold summed log-probabilities, which confidence {confidence} has not; those of "
            f"{' and '.join(LOGGED)} can be written"
        )
    assert scores.ids == tuple(q.id for q in task.questions)
    delimiter = delimiters([[text for _, text in asked] for asked in texts])[0]
    lines = []
    for i, (q, asked) in enumerate(zip(task.questions, texts, strict=True)):
        logprobs = [float(logprob) for logprob in scores.logprobs[i][scores.mask[i]]]
        metrics = {"acc": float(best_choice(logprobs) == q.answer)}
        if confidence != "choice":
            lengths = [len(text.removeprefix(delimiter)) for _, text in asked]
            metrics["acc_norm"] = float(best_choice(logprobs, lengths) == q.answer)
        lines.append(_line(i, q, asked, logprobs, metrics))
    path = folder / f"samples_{task.name}_{date.strftime('%Y-%m-%dT%H-%M-%S.%f')}.jsonl"
    write_text(path, "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines))
    return path


def sha256(text: str) -> str:
    """The hash of a text, as in doc_hash, prompt_hash and target_hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def doc_hash(doc: Values) -> str:
    """lm-eval's hash of a doc: of its JSON with an indent of 2."""
    return sha256(json.dumps(doc, indent=2, ensure_ascii=False))


def _line(i: int, q: Question, texts: Texts, logprobs: Sequence[float], metrics: dict[str, float]) -> Values:
    """One sample, its fields in lm-eval's order."""
    doc = {"id": q.id, "question": q.question, "choices": list(q.choices), "answer": q.answer, "subject": q.subject}
    requests = {f"gen_args_{k}": {"arg_0": text[0], "arg_1": text[1]} for k, text in enumerate(texts)}
    assert len(requests) == len(logprobs)
    replies = [[repr(logprob), GREEDY] for logprob in logprobs]
    return {
        "doc_id": i,
        "doc": doc,
        "target": str(q.answer),
        "arguments": requests,
        "resps": [[reply] for reply in replies],
        "filtered_resps": replies,
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": doc_hash(doc),
        "prompt_hash": sha256(texts[0][0]),
        "target_hash": sha256(str(q.answer)),
        **metrics,
    }
