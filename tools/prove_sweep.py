"""The main job on a real small model and real questions, proved against a plain loop and against kill -9.

Tunes a copy of stories260K on ARC-Easy's training questions, sweeps the two over 16 points with all three confidence
methods on ARC-Easy and PIQA, kills the sweep with SIGKILL on the way and starts it again. At lambda 0, 0.5 and 1 it
compares the scores with those of a sweep that nobody killed, byte for byte, and with a float64 loop that asks the saved
checkpoints one row a choice. Exits with 1 where anything differs.

    python tools/prove_sweep.py --stories FOLDER --data-dir DIR --work DIR --out tools/results/prove_sweep.md
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_loop import choice_log_probabilities, letter_log_probabilities
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge_calib.checkpoints.pair import ModelPair
from merge_calib.merging.point import MergePoint
from merge_calib.questions import LETTERS, Question, TaskSet
from merge_calib.recovery import write_point
from merge_calib.scores import ChoiceScores, load_scores
from merge_calib.scoring.prompts import choice_prompt, continuation, continuation_context
from merge_calib.tasks import Library, load_task

TASKS = ("arc_easy", "piqa")
METHODS = ("choice", "continuation-sum", "continuation-min")
LAMBDAS = (0.0, 0.5, 1.0)
STAGES = ("kills", "undisturbed", *(f"lambda-{lam}" for lam in LAMBDAS))
# What a float32 score may differ from an exact one: the sum of a choice of hundreds of tokens, -1,000 nats and more,
# has a relative error of a few units in the last place of float32 (1.2e-7), whatever the order of its terms.
TOLERANCE, RELATIVE = 1e-4, 3e-7


def main() -> None:
    options = _options()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    tuned = work / "tuned"
    if not tuned.exists():
        tune(options.stories, options.data_dir / "arc_easy" / "train.jsonl", tuned)
    stages: dict[str, Callable[[], Any]] = {
        "kills": lambda: run_with_kills(options, tuned, work / "killed"),
        "undisturbed": lambda: is_undisturbed(options, tuned),
        **{f"lambda-{lam}": partial(compare, options, tuned, lam) for lam in LAMBDAS},
    }
    outcome = {name: once(work / f"{name}.json", make) for name, make in stages.items() if name in options.stages}
    if len(outcome) < len(stages):
        return
    differences = [Difference(**d) for lam in LAMBDAS for d in outcome[f"lambda-{lam}"]]
    report = describe(outcome["kills"]["killed"], outcome["undisturbed"], differences)
    options.out.write_text(report, encoding="utf-8")
    print(report)
    good = outcome["kills"]["killed"] == 3 and outcome["undisturbed"]
    sys.exit(0 if good and not any(d.beyond for d in differences) else 1)


def once(path: Path, make: Callable[[], Any]) -> Any:
    """What `make` gives, kept in `path`: a proof of an hour can be made in parts, or by two processes."""
    if not path.exists():
        path.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=Path, required=True, help="stories260K as a Hugging Face folder")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with arc_easy/ and piqa/")
    parser.add_argument("--work", type=Path, required=True, help="folder for models and runs")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES, help="default: all; done ones are kept")
    parser.add_argument("--out", type=Path, required=True, help="where the outcome is written")
    return parser.parse_args()


def tune(stories: Path, questions: Path, out: Path) -> None:
    """One pass over ARC-Easy's training questions, answered both by letter and by text."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).train()
    tokenizer = AutoTokenizer.from_pretrained(stories)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for batch in training_batches(questions, tokenizer, size=32):
        loss = model(input_ids=batch, labels=batch.masked_fill(batch == 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(out)
    for path in stories.iterdir():
        if "token" in path.name:
            shutil.copyfile(path, out / path.name)


def training_batches(questions: Path, tokenizer: Any, size: int) -> Iterator[torch.Tensor]:
    """Token ids (B, T), right-padded with 0, shuffled with a fixed seed."""
    task = _training_task(questions)
    texts = [choice_prompt(task, q) + f" {LETTERS[q.answer]}" for q in task.questions]
    texts += [continuation_context(q) + continuation(q.choices[q.answer]) for q in task.questions]
    order = np.random.default_rng(0).permutation(len(texts))
    for start in range(0, len(order), size):
        rows = [torch.tensor(tokenizer(texts[i])["input_ids"][-512:]) for i in order[start : start + size]]
        yield torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _training_task(path: Path) -> TaskSet:
    questions = []
    for line in path.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        labels = [choice["label"] for choice in item["question"]["choices"]]
        texts = tuple(choice["text"] for choice in item["question"]["choices"])
        questions.append(Question(item["id"], item["question"]["stem"], texts, labels.index(item["answerKey"])))
    return TaskSet("arc_easy_train", "select", tuple(questions))


def command(options: argparse.Namespace, tuned: Path, out: Path) -> list[str]:
    parents = ["--base", str(options.stories), "--aligned", str(tuned)]
    asked = ["--tasks", ",".join(TASKS), "--data-dir", str(options.data_dir), "--confidence", ",".join(METHODS)]
    return [sys.executable, "-m", "merge_calib", "sweep", *parents, *asked, "--device", "cpu", "--out", str(out)]


def run(line: list[str]) -> None:
    subprocess.run(line, check=True)


def run_with_kills(options: argparse.Namespace, tuned: Path, out: Path) -> dict[str, int]:
    """Kill the sweep each time when some more score files are there, then let it finish; how often it was."""
    killed = 0
    for more in (3, 12, 24):
        wanted = len(list(out.rglob("*.npz"))) + more
        process = subprocess.Popen(command(options, tuned, out))
        while process.poll() is None and len(list(out.rglob("*.npz"))) < wanted:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    run(command(options, tuned, out))
    return {"killed": killed}


def is_undisturbed(options: argparse.Namespace, tuned: Path) -> bool:
    """Whether a sweep of three points that nobody kills has the same scores and rows."""
    out = options.work / "whole"
    run([*command(options, tuned, out), "--lambdas", ",".join(map(str, LAMBDAS))])
    return contains(content(options.work / "killed"), content(out))


def content(out: Path) -> dict[str, bytes]:
    """The bytes of every scores file and of every row of results.csv."""
    rows = (out / "results.csv").read_bytes().splitlines()
    files = {str(path.relative_to(out)): path.read_bytes() for path in (out / "scores").rglob("*.npz")}
    return files | {str(row): row for row in rows}


def contains(more: dict[str, bytes], fewer: dict[str, bytes]) -> bool:
    """Whether all of `fewer` (the scores and rows of three points) is in `more` and the same there."""
    scores = len(LAMBDAS) * len(TASKS) * len(METHODS)
    rows = 1 + scores + len(LAMBDAS) * len(METHODS)  # a header, and the means over tasks
    return len(fewer) == scores + rows and fewer.items() <= more.items()


@dataclass(frozen=True)
class Difference:
    """The largest and the mean |difference| of a score from the plain loop; how many are beyond the tolerance."""

    lam: float
    task: str
    method: str
    scores: int
    largest: float
    mean: float
    beyond: int


def compare(options: argparse.Namespace, tuned: Path, lam: float) -> list[dict[str, Any]]:
    """The sweep's scores at one lambda against the plain loop over the saved checkpoint."""
    point = MergePoint("linear", lam)
    folder = options.work / f"saved-{lam}"
    if not folder.exists():
        write_point(ModelPair.open(options.stories, tuned), point, folder, None, {})
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for name in TASKS:
        task = load_task(name, Library(options.data_dir))
        assert isinstance(task, TaskSet)
        reference = plain_scores(loaded.eval(), tokenizer, task)
        for method in METHODS:
            scores = load_scores(options.work / "killed" / "scores" / point.name / f"{name}.{method}.npz")
            assert isinstance(scores, ChoiceScores)
            gaps, exact = (
                values[scores.mask] for values in (np.abs(scores.logprobs - reference[method]), reference[method])
            )
            beyond = int((gaps > np.maximum(TOLERANCE, RELATIVE * np.abs(exact))).sum())
            found.append(
                asdict(Difference(lam, name, method, gaps.size, float(gaps.max()), float(gaps.mean()), beyond))
            )
    return found


def plain_scores(model: Any, tokenizer: Any, task: TaskSet) -> dict[str, Any]:
    """Scores (N, C) of every method, one row a choice; NaN where there is no option."""
    wide = (len(task), max(len(q.choices) for q in task.questions))
    found = {method: np.full(wide, np.nan) for method in METHODS}
    for i, q in enumerate(task.questions):
        letters = LETTERS[: len(q.choices)]
        found["choice"][i, : len(letters)] = letter_log_probabilities(model, tokenizer, choice_prompt(task, q), letters)
        for k, choice in enumerate(q.choices):
            said = choice_log_probabilities(model, tokenizer, continuation_context(q), continuation(choice))
            found["continuation-sum"][i, k] = sum(said)
            found["continuation-min"][i, k] = min(said)
    return found


def describe(killed: int, same: bool, differences: list[Difference]) -> str:
    lines = [
        "# The main job, proved",
        "",
        f"Made by `tools/prove_sweep.py` with torch {torch.__version__} on {torch.get_num_threads()} CPU threads.",
        "Base: stories260K; aligned: a copy tuned on ARC-Easy's training questions. ARC-Easy (2,376), PIQA (1,838),",
        "three confidence methods, 16 points, compute dtype float32.",
        "",
        f"- Killed with SIGKILL {killed} times and started again, the sweep finished.",
        f"- Its scores and rows of results.csv at lambda 0, 0.5 and 1 are {'byte for byte' if same else 'NOT'} those",
        "  of a run that nobody disturbed.",
        "- Scores against a plain float64 loop, one row a choice, over saved checkpoints (tolerance: the larger of",
        f"  {TOLERANCE:g} nats and {RELATIVE:g} of the score; float32 leaves no more of a sum of hundreds of tokens):",
        "",
        "| lambda | task | confidence | scores | largest difference | mean difference | beyond the tolerance |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {d.lam} | {d.task} | {d.method} | {d.scores:,} | {d.largest:.1e} | {d.mean:.1e} | {d.beyond} |"
        for d in differences
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
