"""Prove that the scorer reads lm-eval's log-likelihoods: same model, same questions, every choice compared.

    python tools/prove_lm_eval_parity.py --model FOLDER --data-dir DIR [--limit N] [--per-subject N] [--out FILE.md]

ARC-Easy and PIQA by continuation-sum, MMLU by choice, on the CPU: in float64, where nothing is left but the meaning
of the two, or with --dtype float32, where sums of hundreds of tokens differ by rounding. Ours: the package's own
encoder and batched scorer. Theirs: `HFLM.loglikelihood` of lm-eval 0.4.13 with `logits_cache=False`, twice. First on
our texts, which checks tokens, BOS, truncation and the arithmetic; then on the texts that lm-eval's own task
definitions make from the same files, which checks the prompts too. Questions that cannot agree are set apart, each
with its reason and its difference; all others must agree within 1e-4, otherwise the exit code is 1.
"""

import argparse
import csv
import datetime
import importlib
import json
import logging
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.tasks
import numpy as np
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.errors import ScoringError
from merge_calib.files import written_whole
from merge_calib.questions import LETTERS, Question, TaskSet
from merge_calib.scores import ChoiceScores, Floats
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.encoder import Encoder
from merge_calib.scoring.loading import load_tokenizer, longest_context
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.prompts import choice_prompt, continuation, continuation_context
from merge_calib.scoring.questionnaire import ConfidenceMethod, Questionnaire
from merge_calib.scoring.rows import EncodedTask
from merge_calib.scoring.scorer import score
from merge_calib.tasks import BENCHMARKS, Library, load_task

datasets: Any = importlib.import_module("datasets")  # comes with lm-eval; not typed

TOLERANCE = 1e-4  # nats; float32 sums over other batch shapes differ by about 1e-5 on rows of 500 tokens
METHODS: dict[str, ConfidenceMethod] = {
    "arc_easy": "continuation-sum",
    "piqa": "continuation-sum",
    "mmlu": "choice",
}
MAX_TOKENS = 8192  # of one of our batches
BATCH_ROWS = 16  # of one of lm-eval's
LISTED = 12  # set-apart questions shown by name for each comparison; the counts are of all

Pair = tuple[str, str]  # context, continuation
Reply = tuple[float, bool]  # log-likelihood, whether greedy decoding would write it
Values = dict[str, Any]


@dataclass(frozen=True)
class Ours:
    """The package's side: a loaded model and its encoder."""

    model: LanguageModel
    encoder: Encoder

    @classmethod
    def open(cls, folder: Path, dtype: str = "float32") -> "Ours":
        """The model in `folder`, computing in `dtype` on the CPU."""
        tokenizer = load_tokenizer(folder)
        encoder = Encoder(tokenizer, longest_context(folder, tokenizer))
        return cls(LanguageModel(Checkpoint.open(folder), torch.device("cpu"), getattr(torch, dtype)), encoder)

    def encode(self, task: TaskSet, method: ConfidenceMethod) -> EncodedTask:
        """The rows of `task`."""
        return self.encoder.choice(task) if method == "choice" else self.encoder.continuations(task)

    def score(self, task: TaskSet, method: ConfidenceMethod) -> Floats:
        """Log-probabilities (N, C), NaN where a question has fewer options."""
        scores = score(self.model, Questionnaire(self.encoder), task, [method], Budget(MAX_TOKENS))[method]
        assert isinstance(scores, ChoiceScores)
        return scores.logprobs


class Harness:
    """lm-eval's side."""

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        options: Values = {"dtype": dtype, "device": "cpu", "batch_size": BATCH_ROWS, "logits_cache": False}
        softmax = {"softmax_dtype": dtype} if dtype == "float64" else {}
        self._model = HFLM(pretrained=str(folder), **options, **softmax)
        self._exact = HFLM(pretrained=str(folder), softmax_dtype="float64", **options)

    def ask(self, texts: Sequence[Sequence[Pair]], *, exact: bool = False) -> list[list[Reply]]:
        """lm-eval's replies to the pairs of each question; `exact` takes the softmax and the sum in float64."""
        model = self._exact if exact else self._model
        requests = [Instance("loglikelihood", {}, pair, k) for pairs in texts for k, pair in enumerate(pairs)]
        replies = iter(model.loglikelihood(requests, disable_tqdm=not sys.stderr.isatty()) if requests else [])
        return [[next(replies) for _ in pairs] for pairs in texts]

    def refuses(self, pairs: Sequence[Pair]) -> bool:
        """Whether lm-eval stops at one of the pairs: it asserts that a continuation fits into the model."""
        if all(len(self._model.tok_encode(text)) < self._model.max_length // 2 for _, text in pairs):
            return False  # far from it, so that asking can be saved
        try:
            self.ask([pairs])
        except AssertionError:
            return True
        return False

    def truncated(self, texts: Sequence[Sequence[Pair]]) -> int:
        """How many of the pairs are longer than lm-eval's limit; the last token is predicted, never read."""
        lengths = (len(self._model.tok_encode("".join(pair))) for pairs in texts for pair in pairs)
        return sum(length > self._model.max_length + 1 for length in lengths)


@dataclass(frozen=True)
class Apart:
    """A question that is not held to the tolerance, and why."""

    id: str
    reason: str
    difference: float


@dataclass(frozen=True)
class Comparison:
    """Our log-probabilities against lm-eval's for one task on one set of texts.

    truncated: rows that lost tokens from the left, ours and lm-eval's (for letters it has a row a letter)
    largest, mean: |difference| in nats over the choices of all questions that are not set apart
    """

    task: str
    method: ConfidenceMethod
    texts: str
    questions: int
    choices: int
    truncated: tuple[int, int]
    encoded_apart: int
    apart: tuple[Apart, ...]
    largest: float
    mean: float
    accuracies: tuple[float, float]

    @property
    def agrees(self) -> bool:
        """Whether every choice that is not set apart is within the tolerance."""
        return self.largest <= TOLERANCE


@dataclass(frozen=True)
class TaskFindings:
    """All that was found for one task.

    refused: ids of the questions that lm-eval stops at, because a choice alone has more tokens than the model takes
    ours_refuse: ids of those that we refuse and lm-eval scores
    answers_differ: ids of the questions whose right answer lm-eval reads otherwise
    """

    comparisons: tuple[Comparison, Comparison]
    letters: str
    refused: tuple[str, ...]
    ours_refuse: tuple[str, ...]
    answers_differ: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing speaks against parity."""
        return all(c.agrees for c in self.comparisons) and not self.ours_refuse and not self.answers_differ


# What lm-eval's own tasks ask


@dataclass(frozen=True)
class Document:
    """One question as lm-eval's task holds it, with the requests that the task makes of it."""

    task: Any
    fields: Values
    texts: tuple[Pair, ...]

    @property
    def answer(self) -> int:
        """The right option by lm-eval's reading."""
        return int(self.task.doc_to_target(self.fields))

    def is_hit(self, replies: Sequence[Reply]) -> bool:
        """lm-eval's own `acc` of its replies."""
        return bool(self.task.process_results(self.fields, list(replies))["acc"] == 1)


def documents(name: str, data_dir: Path, task: TaskSet, chosen: Sequence[int]) -> list[Document]:
    """The chosen questions of `task` through lm-eval's task definition, read anew from the same files."""
    found: list[Document] = []
    wanted, start = set(chosen), 0
    for config, rows in SOURCES[name](BENCHMARKS[name].find(data_dir)):
        taken = [row for i, row in enumerate(rows, start) if i in wanted]
        found += _through_task(config, taken) if taken else []
        start += len(rows)
    assert start == len(task), f"{name}: {start} questions by a plain reading of the files, {len(task)} by ours"
    return found


def _through_task(config: str, rows: list[Values]) -> list[Document]:
    table = datasets.Dataset.from_list(rows)
    nothing = table.select([])
    splits = {"train": nothing, "dev": nothing, "validation": table, "test": table}
    settings = load_yaml(Path(lm_eval.tasks.__file__).parent / config)
    task = ConfigurableTask(config=settings | {"custom_dataset": lambda **_: splits})
    task.build_all_requests()
    texts: list[list[Pair]] = [[] for _ in rows]
    for request in task.instances:
        texts[request.doc_id].append(request.args)
    return [Document(task, doc, tuple(pairs)) for doc, pairs in zip(task.eval_docs, texts, strict=True)]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _arc_rows(paths: Sequence[Path]) -> Iterator[tuple[str, list[Values]]]:
    """ARC in the hub's schema."""
    rows = []
    for line in _lines(paths[0]):
        values = json.loads(line)
        body = values["question"]
        choices = {key: [choice[key] for choice in body["choices"]] for key in ("text", "label")}
        rows.append({"question": body["stem"], "choices": choices, "answerKey": values["answerKey"]})
    yield "arc/arc_easy.yaml", rows


def _piqa_rows(paths: Sequence[Path]) -> Iterator[tuple[str, list[Values]]]:
    """PIQA in the hub's schema."""
    pairs = zip(_lines(paths[0]), _lines(paths[1]), strict=True)
    yield "piqa/piqa.yaml", [json.loads(line) | {"label": int(label)} for line, label in pairs]


def _mmlu_rows(paths: Sequence[Path]) -> Iterator[tuple[str, list[Values]]]:
    """MMLU in the hub's schema, a subject a task."""
    for path in paths:
        subject = path.name.removesuffix("_test.csv")
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{"question": r[0], "choices": r[1:5], "answer": "ABCD".index(r[5])} for r in csv.reader(file)]
        yield f"mmlu/default/mmlu_{subject}.yaml", rows


SOURCES: dict[str, Callable[[Sequence[Path]], Iterator[tuple[str, list[Values]]]]] = {
    "arc_easy": _arc_rows,
    "piqa": _piqa_rows,
    "mmlu": _mmlu_rows,
}


# The comparison


def compare_task(
    name: str, ours: Ours, harness: Harness, data_dir: Path, limit: int | None = None, per_subject: int | None = None
) -> TaskFindings:
    """Score `name` by both sides, on our texts and on lm-eval's.

    Of its questions the first `limit` are taken, and of these the first `per_subject` of each subject where there are
    subjects; None takes all.
    """
    method = METHODS[name]
    whole = load_task(name, Library(data_dir))
    assert isinstance(whole, TaskSet)
    chosen = _chosen(whole.limited(limit), per_subject)
    their_whole, whole = documents(name, data_dir, whole, chosen), _only(whole, chosen)
    letters = (ours.encode(_only(whole, [0]), method).letters or "") if method == "choice" else ""
    kept, refused, ours_refuse = _sift(whole, ours, harness, letters)
    task, docs = _only(whole, kept), [their_whole[i] for i in kept]
    differ = tuple(q.id for q, doc in zip(task.questions, docs, strict=True) if q.answer != doc.answer)
    comparisons = _compare_texts(task, docs, ours, harness, letters)
    return TaskFindings(comparisons, letters, refused, ours_refuse, differ)


def _chosen(task: TaskSet, per_subject: int | None) -> list[int]:
    """Indices of the first `per_subject` questions of each subject."""
    seen: Counter[str] = Counter()
    chosen = []
    for i, q in enumerate(task.questions):
        seen[q.subject] += 1
        if per_subject is None or not q.subject or seen[q.subject] <= per_subject:
            chosen.append(i)
    return chosen


def _only(task: TaskSet, indices: Sequence[int]) -> TaskSet:
    return TaskSet(task.name, task.style, tuple(task.questions[i] for i in indices), task.source)


def _encode_alone(ours: Ours, task: TaskSet, q: Question, method: ConfidenceMethod) -> EncodedTask | None:
    """The rows of one question, None where our encoder refuses it."""
    try:
        return ours.encode(TaskSet(task.name, task.style, (q,)), method)
    except ScoringError:
        return None


def _sift(
    task: TaskSet, ours: Ours, harness: Harness, letters: str
) -> tuple[list[int], tuple[str, ...], tuple[str, ...]]:
    """Indices of the questions that can be compared, ids of those lm-eval stops at, ids of those only we refuse."""
    method = METHODS[task.name]
    kept: list[int] = []
    theirs: list[str] = []
    only_ours: list[str] = []
    for i, q in enumerate(task.questions):
        if harness.refuses(our_texts(task, q, method, letters)):
            theirs.append(q.id)
        elif _encode_alone(ours, task, q, method) is None:
            only_ours.append(q.id)
        else:
            kept.append(i)
    return kept, tuple(theirs), tuple(only_ours)


def our_texts(task: TaskSet, q: Question, method: ConfidenceMethod, letters: str) -> list[Pair]:
    """The context and continuation of each choice, as the package's own functions write them."""
    if method == "choice":
        prompt, space = choice_prompt(task, q), letters.removesuffix("A")
        return [(prompt, space + letter) for letter in LETTERS[: len(q.choices)]]
    return [(continuation_context(q), continuation(choice)) for choice in q.choices]


def _compare_texts(
    task: TaskSet, docs: Sequence[Document], ours: Ours, harness: Harness, letters: str
) -> tuple[Comparison, Comparison]:
    """Both comparisons; where lm-eval's texts are ours, the replies to ours stand for both."""
    method = METHODS[task.name]
    mine = [our_texts(task, q, method, letters) for q in task.questions]
    theirs = [_with_our_letters(doc.texts, letters) for doc in docs]
    side = OurSide(task, ours.encode(task, method), ours.score(task, method))
    replies = harness.ask(mine)
    apart = _encoded_apart(task, ours, method) | _rounded(side.scores, replies, mine, harness)
    first = side.against("ours", replies, _hits(task, replies), harness.truncated(mine), apart)
    other = {i: _text_difference(*pair) for i, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1]}
    for i, reply in zip(other, harness.ask([theirs[i] for i in other]), strict=True):
        replies[i] = reply
    hits = [doc.is_hit(reply) for doc, reply in zip(docs, replies, strict=True)]
    return first, side.against("lm-eval's", replies, hits, harness.truncated(theirs), apart | other)


def _hits(task: TaskSet, replies: Sequence[Sequence[Reply]]) -> list[bool]:
    """Whether the choice with lm-eval's largest log-likelihood is the right one."""
    best = [int(np.argmax([log_likelihood for log_likelihood, _ in reply])) for reply in replies]
    return [choice == q.answer for choice, q in zip(best, task.questions, strict=True)]


def _rounded(
    scores: Floats, replies: Sequence[Sequence[Reply]], texts: Sequence[Sequence[Pair]], harness: Harness
) -> dict[int, str]:
    """The questions beyond the tolerance that come within it once lm-eval takes softmax and sum in float64.

    A log-likelihood of some -1,000 nats has steps of 6e-5 to 1.2e-4 in float32, in which lm-eval adds up its tokens;
    ours adds them up in float64.
    """
    beyond = [int(i) for i in np.flatnonzero(np.nanmax(_differences(scores, replies), axis=1) > TOLERANCE)]
    again = harness.ask([texts[i] for i in beyond], exact=True)
    left = np.nanmax(_differences(scores[beyond], again), axis=1) if beyond else np.zeros(0)
    within = {i: rest for i, rest in zip(beyond, left, strict=True) if rest <= TOLERANCE}
    highest = max((float(np.nanmax(scores[i])) for i in within), default=0.0)
    reason = (
        f"lm-eval adds up the tokens in float32, and these log-likelihoods are all below {highest:,.0f} nats; asked "
        f"with its softmax_dtype=float64 it differs by at most {max(within.values(), default=0.0):.1e}"
    )
    return dict.fromkeys(within, reason)


def _with_our_letters(pairs: Sequence[Pair], letters: str) -> list[Pair]:
    """lm-eval's pairs, but its ` A` written `A` where the tokenizer has no single token for ` A` and we do so."""
    return [(context, text.removeprefix(" ") if letters == "A" else text) for context, text in pairs]


def _text_difference(mine: Sequence[Pair], theirs: Sequence[Pair]) -> str:
    """Why the two texts of a question differ, in words."""
    if len(mine) != len(theirs):
        return f"{len(mine)} choices against lm-eval's {len(theirs)}"
    a, b = next(("".join(x), "".join(y)) for x, y in zip(mine, theirs, strict=True) if x != y)
    at = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    seen = slice(max(0, at - 12), at + 12)
    return f"texts differ: {a[seen]!r} against lm-eval's {b[seen]!r}"


def _encoded_apart(task: TaskSet, ours: Ours, method: ConfidenceMethod) -> dict[int, str]:
    """The questions with a choice that our encoder encodes apart from its context, with the reason."""
    reason = "a choice melts into the context: ours encodes the two apart, lm-eval cuts the joint ids by length"
    alone = [_encode_alone(ours, task, q, method) for q in task.questions]
    return {i: reason for i, rows in enumerate(alone) if rows and rows.encoded_apart}


@dataclass(frozen=True)
class OurSide:
    """What the package made of a task: its rows and log-probabilities (N, C)."""

    task: TaskSet
    encoded: EncodedTask
    scores: Floats

    def against(
        self,
        texts: str,
        replies: Sequence[Sequence[Reply]],
        hits: Sequence[bool],
        truncated: int,
        apart: dict[int, str],
    ) -> Comparison:
        """The comparison with lm-eval's replies; `apart` are the questions to set apart, by index."""
        difference = _differences(self.scores, replies)
        questions = self.task.questions
        inside = np.delete(difference, sorted(apart), axis=0)
        answers = np.array([q.answer for q in questions])
        return Comparison(
            task=self.task.name,
            method=METHODS[self.task.name],
            texts=texts,
            questions=len(questions),
            choices=int((~np.isnan(self.scores)).sum()),
            truncated=(self.encoded.truncated, truncated),
            encoded_apart=self.encoded.encoded_apart,
            apart=tuple(Apart(questions[i].id, apart[i], float(np.nanmax(difference[i]))) for i in sorted(apart)),
            largest=float(np.nanmax(inside)),
            mean=float(np.nanmean(inside)),
            accuracies=(float((np.nanargmax(self.scores, axis=1) == answers).mean()), float(np.mean(hits))),
        )


def _differences(scores: Floats, replies: Sequence[Sequence[Reply]]) -> Floats:
    """|ours - lm-eval's| (N, C), NaN where there is no option."""
    theirs = np.full(scores.shape, np.nan)
    for i, reply in enumerate(replies):
        theirs[i, : len(reply)] = [log_likelihood for log_likelihood, _ in reply]
    assert np.array_equal(np.isnan(theirs), np.isnan(scores)), "the two sides have other numbers of choices"
    return np.asarray(np.abs(scores - theirs), dtype=np.float64)


# The report


def report(findings: Sequence[TaskFindings], model: str, dtype: str, command: str) -> str:
    """The outcome as Markdown."""
    agrees = all(f.agrees for f in findings)
    conditions = _conditions(model, dtype, command)
    lines = ["# Parity with lm-eval", "", _verdict(agrees), "", *conditions, "", *_table(findings)]
    for found in findings:
        lines += _remarks(found)
    return "\n".join(lines) + "\n"


def _verdict(agrees: bool) -> str:
    if agrees:
        return f"Every choice that is not set apart below agrees within {TOLERANCE:g} nats."
    return f"**The two do NOT agree**: see the differences above {TOLERANCE:g} nats, refusals and answers."


def _conditions(model: str, dtype: str, command: str) -> list[str]:
    versions = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "lm-eval": lm_eval.__version__,
    }
    return [
        f"- made by `{command}` on {datetime.date.today().isoformat()}, {os.cpu_count()} CPU cores, "
        f"{torch.get_num_threads()} thread(s)",
        "- " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"- model `{model}`, {dtype} on both sides; ours batched by {MAX_TOKENS} tokens, lm-eval by {BATCH_ROWS} rows, "
        "`logits_cache=False`; each side adds the tokenizer's own default BOS",
        "- texts `ours`: our contexts and continuations through `HFLM.loglikelihood`; texts `lm-eval's`: the requests "
        "of lm-eval's own task definition over the same files (where they are ours word for word, the same replies "
        "count)",
        "- truncated: rows that lost tokens from the left, ours / lm-eval's (for letters lm-eval has a row a letter)",
        "- max and mean: |ours - lm-eval's| of a choice's log-likelihood, in nats, without the questions set apart",
    ]


def _table(findings: Sequence[TaskFindings]) -> list[str]:
    heads = "task, method, texts, questions, choices, truncated, encoded apart, max, mean, set apart, max of these"
    names = [*heads.split(", "), "accuracy ours", "accuracy lm-eval's"]
    lines = ["| " + " | ".join(names) + " |", "|---|---|---|" + "---:|" * (len(names) - 3)]
    for c in (c for found in findings for c in found.comparisons):
        cells = [c.task, c.method, c.texts, f"{c.questions:,}", f"{c.choices:,}", "{:,} / {:,}".format(*c.truncated)]
        worst = f"{max(a.difference for a in c.apart):.2e}" if c.apart else ""
        cells += [f"{c.encoded_apart}", f"{c.largest:.2e}", f"{c.mean:.2e}", f"{len(c.apart):,}", worst]
        cells += [f"{accuracy:.6f}" for accuracy in c.accuracies]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _remarks(found: TaskFindings) -> list[str]:
    """What is to be said about one task beside its rows of the table."""
    name = found.comparisons[0].task
    lines = []
    if found.letters == "A":
        lines.append(
            "The tokenizer has no single token for ` A`: ours asks for `A`, and so did lm-eval here, in place of its "
            "own ` A`."
        )
    for ids, what in (
        (found.refused, "not compared: a choice alone has more tokens than the model takes, and lm-eval stops there"),
        (found.ours_refuse, "refused by ours and scored by lm-eval"),
        (found.answers_differ, "whose right answer lm-eval reads otherwise"),
    ):
        if ids:
            lines.append(f"{len(ids)} question(s) {what}: {', '.join(ids)}.")
    first, second = found.comparisons
    lines += _set_apart(first, "both" if first.apart == second.apart else "our")
    lines += [] if first.apart == second.apart else _set_apart(second, "lm-eval's")
    return ["", f"## {name}", "", *lines] if lines else []


def _set_apart(c: Comparison, texts: str) -> list[str]:
    """The questions set apart, one paragraph a reason."""
    lines = []
    for reason in dict.fromkeys(a.reason for a in c.apart):
        these = [a for a in c.apart if a.reason == reason]
        worst = max(a.difference for a in these)
        names = ", ".join(f"{a.id} ({a.difference:.1e})" for a in these[:LISTED])
        more = f" and {len(these) - LISTED:,} more" if len(these) > LISTED else ""
        head = f"Set apart on {texts} texts, {len(these):,} question(s), largest difference {worst:.2e}: {reason}."
        lines += ["", head, "", names + more]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder with a checkpoint and its tokenizer")
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with arc_easy, piqa and mmlu")
    parser.add_argument("--limit", type=int, help="the first N questions of each task (default: all)")
    parser.add_argument("--per-subject", type=int, metavar="N", help="of MMLU the first N of each subject")
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"), help="what both sides compute in")
    parser.add_argument("--out", type=Path, help="write the report there too")
    arguments = parser.parse_args()
    ours, harness = Ours.open(arguments.model, arguments.dtype), Harness(arguments.model, arguments.dtype)
    findings = []
    for name in METHODS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        sizes = (arguments.limit, arguments.per_subject)
        findings.append(compare_task(name, ours, harness, arguments.data_dir, *sizes))
    limited = f" --limit {arguments.limit}" if arguments.limit else ""
    limited += f" --per-subject {arguments.per_subject}" if arguments.per_subject else ""
    limited += "" if arguments.dtype == "float64" else f" --dtype {arguments.dtype}"
    command = f"python tools/{Path(__file__).name} --model {arguments.model.name} --data-dir {arguments.data_dir.name}"
    text = report(findings, arguments.model.name, arguments.dtype, command + limited)
    print(text)
    if arguments.out:
        with written_whole(arguments.out) as partial:
            partial.write_text(text, encoding="utf-8")
    return 0 if all(found.agrees for found in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
