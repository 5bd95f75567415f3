"""Measure how fast the scorer is: against lm-eval's HF backend in the same process, and against arithmetic alone.

    python tools/bench_scoring.py --data-dir DIR --tokenizer FOLDER [--device cuda --size 8b] [--out FILE.md]

Both sides load the same random Llama from one folder, in the same dtype on the same device, and are asked the same
texts, in turn: ours, lm-eval's, ours, lm-eval's. lm-eval runs as its users run it, with its cache of logits and the
batch size that was fastest on a few questions. Answers must agree, in float32 within 1e-3 nats, or the exit code is 1.

The bound is the time of the matrix products that cannot be avoided,
    (2 x body parameters x unique tokens + 2 x head parameters x scored positions) / measured matmul rate,
where body parameters are those of the linear layers, unique tokens are the distinct prefixes of a question's rows, and
scored positions are those of them at which something is read. Both are counted here from the texts and the tokenizer,
not by the scorer. The rate is the best of large products with the shapes of the model, measured before each of our
runs; the share of the bound is that of our best repetition, the ratio to lm-eval one of medians.

`--tokenizer` takes a GPT-2 byte-level BPE: a folder with vocab.json and merges.txt, or encoder.json and vocab.bpe.
"""

import argparse
import datetime
import gc
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.files import written_whole
from merge_calib.merging.merger import Merger
from merge_calib.merging.point import MergePoint
from merge_calib.questions import TaskSet
from merge_calib.scores import Floats
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.encoder import Encoder
from merge_calib.scoring.loading import load_tokenizer, longest_context
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.questionnaire import ConfidenceMethod, Questionnaire, way_of
from merge_calib.scoring.scorer import score
from merge_calib.tasks import Library, load_task

TOLERANCE = 1e-3  # nats, float32: sums over some 50 tokens of rounding differences between two batchings
SWEEP_TASKS = ("arc_easy", "hellaswag", "medmcqa", "mmlu", "piqa")
POINTS = 11
PEAK = 790e12  # FLOP/s of large bf16 products on an H200
LETTERS: ConfidenceMethod = "choice"
TEXTS: ConfidenceMethod = "continuation-sum"
METHODS = (TEXTS, LETTERS)
WORTH_TIMING = 0.03  # seconds that a product is repeated for
TRIAL_SHARE = 8  # a batch size is tried on one question of so many
PATIENCE = 2  # batch sizes in a row that are slower than the best before the trial ends

Pair = tuple[str, str]  # context, continuation
Texts = list[list[Pair]]  # for each question a pair a choice
RowIds = tuple[list[int], int]  # what is fed, and the index of the first position that is read


@dataclass(frozen=True)
class Size:
    """A model to build and how much of each task is asked by default (the first: continuations, then letters)."""

    settings: dict[str, Any]
    limits: dict[str, tuple[int, int]]
    batch_sizes: tuple[int, ...]


def _llama(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": hidden < 4096,
    }


SIZES = {
    "tiny": Size(
        _llama(64, 128, 2, 4, 2, 50257),
        {"arc_easy": (16, 16), "piqa": (16, 16), "hellaswag": (8, 8)},
        (1, 8),
    ),
    "100m": Size(
        _llama(768, 2048, 12, 12, 12, 50257),
        {"arc_easy": (112, 112), "piqa": (112, 64), "hellaswag": (32, 24)},
        (1, 4, 8, 16, 32),
    ),
    "8b": Size(
        _llama(4096, 14336, 32, 32, 8, 128256),
        {"arc_easy": (1200, 1200), "piqa": (1200, 1200), "hellaswag": (600, 600)},
        (1, 4, 8, 16, 32, 64),
    ),
}
FULL = {"arc_easy": None, "piqa": None, "hellaswag": 1000}
WANTED_RATIOS = {
    "100m": {("arc_easy", TEXTS): 3.5, ("piqa", TEXTS): 1.6, ("hellaswag", TEXTS): 2.5, ("all", LETTERS): 1.4},
    "8b": {("all", TEXTS): 4.0},
}
BOUND_SHARE, PEAK_SHARE, SWEEP_MINUTES = 0.7, 0.68, 35.0


# What has to be computed


@dataclass(frozen=True)
class Work:
    """unique: distinct prefixes; scored: those at which something is read; fed: tokens with every row in full."""

    unique: int
    scored: int
    fed: int

    def __add__(self, other: "Work") -> "Work":
        return Work(self.unique + other.unique, self.scored + other.scored, self.fed + other.fed)


def count_question(rows: Iterable[RowIds]) -> Work:
    """The work of one question: its rows as a trie; rows that are equal word for word are fed once, as lm-eval does."""
    nodes: dict[tuple[int, int], int] = {}
    scored: set[int] = set()
    lengths: dict[int, int] = {}
    for ids, first in rows:
        node = 0
        for place, token in enumerate(ids):
            node = nodes.setdefault((node, token), len(nodes) + 1)
            if place >= first:
                scored.add(node)
        lengths[node] = len(ids)
    return Work(len(nodes), len(scored), sum(lengths.values()))


def rows_of(tokenizer: Any, texts: Texts, longest: int) -> list[list[RowIds]]:
    """BOS + context + continuation without its last token, cut from the left; what is read begins after the context."""
    contexts = _ids(tokenizer, [pairs[0][0] for pairs in texts])
    wholes = iter(_ids(tokenizer, [context + text for pairs in texts for context, text in pairs]))
    rows = []
    for context, pairs in zip(contexts, texts, strict=True):
        fed = [next(wholes)[:-1] for _ in pairs]
        cut = [max(0, len(ids) - longest) for ids in fed]
        rows.append([(ids[c:], max(0, len(context) - 1 - c)) for ids, c in zip(fed, cut, strict=True)])
    return rows


def count(tokenizer: Any, texts: Texts, longest: int) -> Work:
    """The work of all questions."""
    return sum((count_question(rows) for rows in rows_of(tokenizer, texts, longest)), Work(0, 0, 0))


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, return_attention_mask=False)["input_ids"]
    return ids


# What the machine can do


@dataclass(frozen=True)
class Shapes:
    """The weights (columns out, in) that a token passes: those of all layers, and the head."""

    body: tuple[tuple[int, int], ...]
    layers: int
    head: tuple[int, int]

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Shapes":
        """Those of a Llama."""
        hidden, wide = settings["hidden_size"], settings["intermediate_size"]
        narrow = hidden // settings["num_attention_heads"] * settings["num_key_value_heads"]
        attention = [(hidden, hidden), (narrow, hidden), (narrow, hidden), (hidden, hidden)]
        mlp = [(wide, hidden), (wide, hidden), (hidden, wide)]
        return cls((*attention, *mlp), settings["num_hidden_layers"], (settings["vocab_size"], hidden))

    def flops(self, work: Work) -> tuple[float, float]:
        """Floating-point operations in the body and in the head."""
        body = self.layers * sum(out * into for out, into in self.body)
        return 2.0 * body * work.unique, 2.0 * self.head[0] * self.head[1] * work.scored


@dataclass(frozen=True)
class Rate:
    """FLOP/s of large products: over the layers' shapes, each weighted by its operations, and for the head."""

    body: float
    head: float

    def seconds(self, flops: tuple[float, float]) -> float:
        """The bound."""
        return flops[0] / self.body + flops[1] / self.head


def measure_rate(shapes: Shapes, device: torch.device, dtype: torch.dtype, repetitions: int = 3) -> Rate:
    """The best of several products of each shape, with several numbers of tokens; the head whole and in columns."""
    on_cpu = device.type == "cpu"
    tokens = (1024, 2048) if on_cpu else (8192, 16384)
    operations = dict.fromkeys(shapes.body, 0.0)
    for out, into in shapes.body:
        operations[out, into] += 2.0 * out * into
    times = {s: operations[s] / _fastest(s, tokens, device, dtype, repetitions) for s in operations}
    vocabulary, hidden = shapes.head
    heads = {(min(columns, vocabulary), hidden) for columns in (2048, 16384, vocabulary)}
    head = max(_fastest(s, tokens[:1], device, dtype, repetitions) for s in heads)
    return Rate(sum(operations.values()) / sum(times.values()), head)


def _fastest(
    shape: tuple[int, int], tokens: Sequence[int], device: torch.device, dtype: torch.dtype, repetitions: int
) -> float:
    """FLOP/s, the results written to memory that is there already."""
    weight = torch.randn(shape, device=device, dtype=dtype)
    best = 0.0
    for count in tokens:
        rows = torch.randn(count, shape[1], device=device, dtype=dtype)
        out = torch.empty(count, shape[0], device=device, dtype=dtype)
        torch.mm(rows, weight.T, out=out)
        operations = 2.0 * count * shape[0] * shape[1]
        times = [1e9]
        while len(times) <= repetitions or (sum(times[1:]) < WORTH_TIMING and len(times) <= 10 * repetitions):
            times.append(_seconds(partial(torch.mm, rows, weight.T, out=out), device))
        best = max(best, operations / min(times))
    return best


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of `work` until the device has finished."""
    _finish(device)
    start = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# The model


def gpt2_tokenizer(source: Path) -> PreTrainedTokenizerFast:
    """The byte-level BPE in a folder, with <|endoftext|> before every text, as Llama's tokenizers put their BOS."""
    names = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
    files = next((pair for pair in names if all((source / name).is_file() for name in pair)), None)
    if files is None:
        raise SystemExit(f"--tokenizer {source}: it holds neither {' nor '.join(' and '.join(pair) for pair in names)}")
    bpe = models.BPE.from_file(*(str(source / name) for name in files))
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    bos = [(end, tokenizer.token_to_id(end))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{end} $A", special_tokens=bos)
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=end, eos_token=end
    )
    return fast


def save_random_llama(
    folder: Path, settings: dict[str, Any], tokenizer: Any, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> None:
    """A Llama with random weights in `folder`, built on `device`, with the tokenizer."""
    torch.manual_seed(seed)
    with device:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            config = LlamaConfig(**settings, bos_token_id=50256, eos_token_id=50256, dtype=dtype)
            LlamaForCausalLM(config).save_pretrained(folder)
        finally:
            torch.set_default_dtype(before)
    tokenizer.save_pretrained(folder)
    _release(device)


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


# The two sides


class Ours:
    """The package's side; all that this script knows of the scorer."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.longest = longest_context(folder, self.tokenizer)
        self._model = LanguageModel(Checkpoint.open(folder), device, dtype)
        self._encoder = Encoder(self.tokenizer, self.longest)
        self._questionnaire = Questionnaire(self._encoder)
        self._budget = Budget.of(self._model, None)

    @property
    def how(self) -> str:
        """How it reads, in words."""
        return f"{self._model.attention}, {self._budget.tokens:,} tokens at once"

    def encode(self, task: TaskSet, method: ConfidenceMethod) -> None:
        """Encode anew, whatever was kept."""
        self._encoder.encode(task, way_of(method))

    def score(self, task: TaskSet, method: ConfidenceMethod) -> Floats:
        """Log-probabilities (N, C), NaN where a question has fewer options."""
        found: Any = score(self._model, self._questionnaire, task, [method], self._budget)[method]
        logprobs: Floats = found.logprobs
        return logprobs

    def texts(self, task: TaskSet, method: ConfidenceMethod) -> Texts:
        """What is asked, as pairs of texts."""
        if method == LETTERS:
            letters = self._questionnaire.encoded(task, "choice").letters
            assert letters is not None
            return self._encoder.choice_texts(task, letters)
        return self._encoder.continuation_texts(task)


class Theirs:
    """lm-eval's side, with its default settings."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self._instance = Instance
        name = str(dtype).removeprefix("torch.")
        self._model: Any = HFLM(pretrained=str(folder), dtype=name, device=str(device), batch_size=1)

    def score(self, texts: Texts, batch_size: int) -> Floats:
        """Log-likelihoods (N, C), NaN where a question has fewer options."""
        self._model.batch_size_per_gpu = batch_size
        requests = [self._instance("loglikelihood", {}, pair, k) for pairs in texts for k, pair in enumerate(pairs)]
        replies = iter(self._model.loglikelihood(requests, disable_tqdm=True))
        found = np.full((len(texts), max(map(len, texts))), np.nan)
        for i, pairs in enumerate(texts):
            found[i, : len(pairs)] = [next(replies)[0] for _ in pairs]
        return found

    def best_batch_size(self, texts: Texts, sizes: Sequence[int], device: torch.device) -> int:
        """The fastest of the ascending `sizes`; ends when the next ones are slower, or too large for the memory."""
        times: dict[int, float] = {}
        for size in sizes:
            try:
                times[size] = _seconds(partial(self.score, texts, size), device)
            except torch.OutOfMemoryError:
                break
            if len(times) > PATIENCE and min(list(times.values())[-PATIENCE:]) > min(times.values()):
                break
        return min(times, key=lambda size: times[size])


# The measurement


@dataclass(frozen=True)
class Measured:
    """One task asked in one way; seconds and rates of the repetitions in turn.

    encoding: seconds that our texts take to become tokens, once a sweep; lm-eval's seconds hold its own, every time
    difference: the largest |ours - lm-eval's| of a choice, in nats
    """

    task: str
    method: ConfidenceMethod
    questions: int
    work: Work
    flops: tuple[float, float]
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    rates: tuple[Rate, ...]
    batch_size: int
    encoding: float
    difference: float

    @property
    def seconds(self) -> float:
        """Our median."""
        return statistics.median(self.ours)

    @property
    def their_seconds(self) -> float:
        """lm-eval's median."""
        return statistics.median(self.theirs)

    @property
    def fastest(self) -> float:
        """Our best repetition."""
        return min(self.ours)


def best_rate(rows: Sequence[Measured]) -> Rate:
    """The highest rates of the whole run: on a machine that others use too, only they are a bound."""
    rates = [rate for row in rows for rate in row.rates]
    return Rate(max(rate.body for rate in rates), max(rate.head for rate in rates))


def bound_share(rows: Sequence[Measured], rate: Rate) -> float:
    """The time of the products alone as a share of ours, both at their best."""
    return sum(rate.seconds(row.flops) for row in rows) / sum(row.fastest for row in rows)


def measure(
    ours: Ours,
    theirs: Theirs,
    shapes: Shapes,
    task: TaskSet,
    method: ConfidenceMethod,
    device: torch.device,
    dtype: torch.dtype,
    batch_sizes: Sequence[int],
    repetitions: int,
) -> Measured:
    """Ask both sides in turn; before each of our runs the rate of the products is taken."""
    texts = ours.texts(task, method)
    work = count(ours.tokenizer, texts, ours.longest)
    best = theirs.best_batch_size(texts[::TRIAL_SHARE], batch_sizes, device)
    encoding = _seconds(lambda: ours.encode(task, method), device)
    mine, other = np.zeros(0), np.zeros(0)
    times: tuple[list[float], list[float]] = ([], [])
    rates = []

    def run_ours() -> None:
        nonlocal mine
        mine = ours.score(task, method)

    def run_theirs() -> None:
        nonlocal other
        other = theirs.score(texts, best)

    run_ours() if device.type == "cuda" else ours.score(spread(task, 4, f"{task.name}-warm"), method)  # kernels, plans
    for _ in range(repetitions):
        rates.append(measure_rate(shapes, device, dtype))
        _release(device)
        times[0].append(_seconds(run_ours, device))
        _release(device)
        times[1].append(_seconds(run_theirs, device))
    return Measured(
        task=task.name,
        method=method,
        questions=len(task),
        work=work,
        flops=shapes.flops(work),
        ours=tuple(times[0]),
        theirs=tuple(times[1]),
        rates=tuple(rates),
        batch_size=best,
        encoding=encoding,
        difference=float(np.nanmax(np.abs(mine - other))),
    )


def questions(name: str, data_dir: Path) -> TaskSet:
    """A benchmark from its files."""
    task = load_task(name, Library(data_dir=data_dir))
    assert isinstance(task, TaskSet), f"{name} has no choices"
    return task


def spread(task: TaskSet, limit: int | None, name: str | None = None) -> TaskSet:
    """`limit` questions, evenly spaced: the files are sorted by source. All of them for None."""
    if limit is None or limit >= len(task):
        return task
    chosen = tuple(task.questions[i * len(task) // limit] for i in range(limit))
    return replace(task, name=name or task.name, questions=chosen)


# The sweep that it adds up to


@dataclass(frozen=True)
class Sweep:
    """An 11-point sweep of five tasks by letters and continuations, extrapolated.

    tokens: unique tokens of a point; seconds: of scoring a point; change: of moving the weights to another lambda
    """

    tokens: int
    seconds: float
    change: float

    @property
    def minutes(self) -> float:
        """The whole sweep."""
        return POINTS * (self.seconds + self.change) / 60


def extrapolate(
    ours: Ours, shapes: Shapes, data_dir: Path, rows: Sequence[Measured], settings: dict[str, Any], place: Path
) -> Sweep:
    """All operations of the five tasks, at the speed that each way of asking had on its subsets."""
    tokens, seconds = 0, 0.0
    for method in METHODS:
        measured = [row for row in rows if row.method == method]
        speed = sum(sum(row.flops) for row in measured) / sum(row.seconds for row in measured)
        for name in SWEEP_TASKS:
            work = count(ours.tokenizer, ours.texts(questions(name, data_dir), method), ours.longest)
            tokens += work.unique
            seconds += sum(shapes.flops(work)) / speed
    return Sweep(tokens, seconds, change_seconds(shapes, settings, ours.tokenizer, place))


def change_seconds(shapes: Shapes, settings: dict[str, Any], tokenizer: Any, place: Path) -> float:
    """Seconds of a change of lambda in bf16 on the GPU: one layer's, times the parameters of all."""
    device, dtype = torch.device("cuda"), torch.bfloat16
    small = settings | {"num_hidden_layers": 1, "vocab_size": 50257, "tie_word_embeddings": True}
    for seed, name in enumerate(("base", "aligned")):
        save_random_llama(place / name, small, tokenizer, device, dtype, seed)
    merger = Merger(ModelPair.open(place / "base", place / "aligned"))
    merger.keep_parents_on(device)
    aligned = merger.pair.aligned
    targets = {name: aligned.read(name).to(device) for name in merger.pair.names}
    merger.apply(MergePoint("linear", 0.3), targets)
    seconds = min(_seconds(lambda: merger.apply(MergePoint("linear", 0.7), targets), device) for _ in range(5))
    tied = 1 if settings["tie_word_embeddings"] else 2
    whole = shapes.layers * sum(out * into for out, into in shapes.body) + tied * shapes.head[0] * shapes.head[1]
    return seconds * whole / merger.pair.parameters


# The report


@dataclass(frozen=True)
class Goal:
    """What was wanted, what came out, and whether that is enough."""

    what: str
    wanted: str
    found: str
    is_reached: bool


def goals(size: str, rows: Sequence[Measured], device: torch.device, sweep: Sweep | None) -> list[Goal]:
    """Every goal that these measurements can answer."""
    found = []
    for (task, method), wanted in WANTED_RATIOS.get(size, {}).items():
        chosen = [row for row in rows if row.method == method and task in ("all", row.task)]
        if chosen:
            ratio = sum(row.their_seconds for row in chosen) / sum(row.seconds for row in chosen)
            what = f"{_asked(method)}, {task}: times lm-eval"
            found.append(Goal(what, f"at least {wanted}", f"{ratio:.2f}", ratio >= wanted))
    if size == "tiny":
        return found
    if device.type == "cpu":
        share = bound_share(rows, best_rate(rows))
        found.append(
            Goal("share of the bound, overall", f"at least {BOUND_SHARE:.0%}", f"{share:.1%}", share >= BOUND_SHARE)
        )
        return found
    for method in METHODS:
        chosen = [row for row in rows if row.method == method]
        share = sum(sum(row.flops) for row in chosen) / sum(row.seconds for row in chosen) / PEAK if chosen else 0.0
        what = f"{_asked(method)}: share of {PEAK / 1e12:.0f} TFLOP/s"
        found.append(Goal(what, f"at least {PEAK_SHARE:.0%}", f"{share:.1%}", share >= PEAK_SHARE))
    if sweep:
        what = f"{POINTS} points, {len(SWEEP_TASKS)} tasks, both ways: minutes, extrapolated"
        reached = sweep.minutes <= SWEEP_MINUTES
        found.append(Goal(what, f"at most {SWEEP_MINUTES:.0f}", f"{sweep.minutes:.1f}", reached))
    return found


def _asked(method: ConfidenceMethod) -> str:
    return "letters" if method == LETTERS else "continuations"


def report(
    rows: Sequence[Measured],
    found: Sequence[Goal],
    sweep: Sweep | None,
    conditions: Sequence[str],
) -> str:
    """The outcome as Markdown."""
    lines = ["# Speed of the scorer", "", *(f"- {line}" for line in conditions), ""]
    lines += _table(("goal", "wanted", "found", ""), [[g.what, g.wanted, g.found, _word(g)] for g in found], 1)
    lines += ["", "## Against lm-eval and the bound", "", *_measured_table(rows), ""]
    lines += ["## Every repetition", "", *_repetitions(rows)]
    if sweep:
        lines += ["", "## The sweep, extrapolated", "", _sweep_words(sweep)]
    return "\n".join(lines) + "\n"


def _word(goal: Goal) -> str:
    return "reached" if goal.is_reached else "**missed**"


def _measured_table(rows: Sequence[Measured]) -> list[str]:
    heads = "task, way, questions, unique tokens, scored, repeated tokens, ours s, lm-eval s, lm-eval batch, ratio, "
    heads += "our best s, bound s, share of bound, TFLOP/s, our encoding s, max difference"
    cells = []
    rate = best_rate(rows)
    for row in rows:
        speed = sum(row.flops) / row.seconds / 1e12
        cell = [row.task, _asked(row.method), f"{row.questions:,}", f"{row.work.unique:,}", f"{row.work.scored:,}"]
        cell += [f"{row.work.fed:,}", f"{row.seconds:.2f}", f"{row.their_seconds:.2f}", str(row.batch_size)]
        cell += [f"{row.their_seconds / row.seconds:.2f}", f"{row.fastest:.2f}", f"{rate.seconds(row.flops):.2f}"]
        cell += [f"{bound_share([row], rate):.1%}", f"{speed:.3f}", f"{row.encoding:.2f}", f"{row.difference:.1e}"]
        cells.append(cell)
    return _table(tuple(heads.split(", ")), cells, 2)


def _repetitions(rows: Sequence[Measured]) -> list[str]:
    heads = ("task", "way", "ours s", "lm-eval s", "products GFLOP/s, layers", "products GFLOP/s, head")
    cells = []
    for row in rows:
        rates = [[rate.body for rate in row.rates], [rate.head for rate in row.rates]]
        columns = [[f"{s:.2f}" for s in row.ours], [f"{s:.2f}" for s in row.theirs]]
        columns += [[f"{rate / 1e9:,.0f}" for rate in kind] for kind in rates]
        cells.append([row.task, _asked(row.method), *(", ".join(column) for column in columns)])
    return _table(heads, cells, 2)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> list[str]:
    """A Markdown table whose first `left` columns are words."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * left + "---:|" * (len(heads) - left)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _sweep_words(sweep: Sweep) -> str:
    return (
        f"All questions of {', '.join(SWEEP_TASKS)} have {sweep.tokens:,} unique tokens by letters and continuations "
        f"together, counted with the tokenizer. At the speed measured on the subsets a point takes "
        f"{sweep.seconds:.0f} s; a change of lambda takes {sweep.change:.2f} s, measured on one layer with its "
        f"embedding and taken times the parameters; {POINTS} points take {sweep.minutes:.1f} minutes. No such sweep "
        "was run; loading, hashing and encoding are not in it."
    )


def _conditions(arguments: argparse.Namespace, ours: Ours, shapes: Shapes, command: str) -> list[str]:
    names = {name: version(name) for name in ("torch", "transformers", "lm-eval")}
    body, head = shapes.flops(Work(1, 1, 1))
    return [
        f"made by `{command}` on {arguments.date}, {device_words(arguments.device)}",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {number}" for name, number in names.items()),
        f"a random Llama ({arguments.size}): {body / 2e6:,.1f} M parameters in its linear layers, {head / 2e6:,.1f} M "
        f"in its head, {arguments.dtype}; ours: {ours.how}",
        "lm-eval: `HFLM.loglikelihood`, default settings, the fastest of its batch sizes on one question of "
        f"{TRIAL_SHARE}; both sides in turn, medians of {arguments.repetitions} repetitions; its times hold its "
        "encoding of the texts, ours is done once a sweep and stands apart",
        "bound: the matrix products alone, at the best rate of large products of these shapes, measured before each of "
        "our runs; its share is of our best repetition; attention, norms and everything else count as loss",
        "unique tokens: distinct prefixes of a question's rows; scored: those at which something is read; repeated "
        "tokens: every distinct row in full, as lm-eval feeds them",
    ]


def device_words(device: str) -> str:
    """The device, in words."""
    if torch.device(device).type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} cores of {model}, {torch.get_num_threads()} thread(s)"


def _limit(arguments: argparse.Namespace, name: str, method: ConfidenceMethod) -> int | None:
    if arguments.full:
        return FULL.get(name)
    default = SIZES[arguments.size].limits.get(name, (32, 32))[METHODS.index(method)]
    return int(arguments.limit or default)


def run(arguments: argparse.Namespace, place: Path, command: str) -> tuple[str, bool]:
    """The report, and whether the answers agree where they must."""
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    size = SIZES[arguments.size]
    shapes = Shapes.of(size.settings)
    save_random_llama(place / "model", size.settings, gpt2_tokenizer(arguments.tokenizer), device, dtype)
    ours, theirs = (side(place / "model", device, dtype) for side in (Ours, Theirs))
    assert isinstance(ours, Ours)
    assert isinstance(theirs, Theirs)
    rows = []
    for name in arguments.tasks.split(","):
        whole = questions(name, arguments.data_dir)
        for method in METHODS:
            task = spread(whole, _limit(arguments, name, method))
            print(f"{name}, {_asked(method)}: {len(task):,} questions", file=sys.stderr, flush=True)
            sizes, times = size.batch_sizes, arguments.repetitions
            rows.append(measure(ours, theirs, shapes, task, method, device, dtype, sizes, times))
    sweep = None
    if device.type == "cuda":
        sweep = extrapolate(ours, shapes, arguments.data_dir, rows, size.settings, place)
    found = goals(arguments.size, rows, device, sweep)
    agrees = dtype != torch.float32 or max(row.difference for row in rows) <= TOLERANCE
    return report(rows, found, sweep, _conditions(arguments, ours, shapes, command)), agrees


def main(argv: Sequence[str] | None = None) -> int:
    """One command does all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with the benchmarks' files")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with a GPT-2 byte-level BPE")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="default: float32, cuda: bfloat16")
    parser.add_argument("--size", choices=list(SIZES), help="the model (default: 100m, on cuda 8b)")
    parser.add_argument("--tasks", default="arc_easy,piqa,hellaswag", help="default: arc_easy,piqa,hellaswag")
    parser.add_argument("--limit", type=int, help="questions of each task (default: for some minutes in all)")
    parser.add_argument("--full", action="store_true", help="whole tasks, of HellaSwag 1,000")
    parser.add_argument("--repetitions", type=int, default=2, help="of each side, in turn (default: 2)")
    parser.add_argument("--work", type=Path, help="where the model is kept meanwhile (default: the system's folder)")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="for the report (default: today)")
    parser.add_argument("--out", type=Path, help="write the report there too")
    arguments = parser.parse_args(argv)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    on_cuda = torch.device(arguments.device).type == "cuda"
    arguments.dtype = arguments.dtype or ("bfloat16" if on_cuda else "float32")
    arguments.size = arguments.size or ("8b" if on_cuda else "100m")
    options = {"device": arguments.device, "size": arguments.size, "tasks": arguments.tasks, "limit": arguments.limit}
    said = " ".join(f"--{name} {value}" for name, value in options.items() if value) + " --full" * arguments.full
    with tempfile.TemporaryDirectory(dir=arguments.work) as place:
        os.environ["XDG_CACHE_HOME"] = str(Path(place) / "cache")  # nothing of earlier runs, nothing left behind
        text, agrees = run(arguments, Path(place), f"python tools/{Path(__file__).name} {said}")
    print(text)
    if arguments.out:
        with written_whole(arguments.out) as partial:
            partial.write_text(text, encoding="utf-8")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
