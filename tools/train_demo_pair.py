"""Trains the small base and aligned model that `merge-calib demo` interpolates, and draws their held-out questions.

The world: short reports by sources that disagree, then a four-option question about what is true. For each question
p ~ Dirichlet(0.5) over the four options; the reports and the true answer are independent draws from p. The best
possible forecaster is the posterior predictive (count + 0.5) / (n + 2): honest probabilities exist and the best
reachable accuracy is well below 1. The base is trained on such documents from scratch. The aligned model is the base
fine-tuned on fresh questions that are always answered with the most reported option.

Run: `python tools/train_demo_pair.py` (seeded; the same machine and number of threads give the same weights).
"""

import argparse
import hashlib
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OPTIONS = 4
CONCENTRATION = 0.5
REPORTS = range(2, 11)
BINS = 10
GROUP = 64  # documents with the same number of reports: no padding
WARMUP = 50
FRESH = 20_000
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Plan:
    """All that decides the weights and the questions."""

    seed: int = 0
    threads: int = 1
    held_out: int = 4000
    base_steps: int = 485
    base_decay: int = 180
    base_rate: float = 4e-3
    batch: int = 256
    tune_questions: int = 8192
    tune_epochs: int = 3
    tune_rate: float = 2e-4
    tune_batch: int = 128


# The world


@dataclass(frozen=True)
class Topic:
    """One kind of question: `asks` is its last sentence, the options come from `values`."""

    subject: str
    asks: str
    things: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One question with its evidence: `counts[k]` reports name option k, `answer` was drawn from the same p."""

    question: str
    choices: tuple[str, ...]
    counts: tuple[int, ...]
    answer: int
    subject: str

    @property
    def prompt(self) -> str:
        """The text that a letter answers."""
        options = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=False))
        return f"{self.question}{options}\nAnswer:"


def topic(subject: str, asks: str, things: str, values: str) -> Topic:
    """A topic from two strings of words."""
    return Topic(subject, asks, tuple(things.split()), tuple(values.split()))


OPENING = "About the {thing}:"
TOPICS = (
    topic(
        "colors",
        "What color is it?",
        "kite hat boat door car chair lamp flag",
        "red blue green white black yellow",
    ),
    topic(
        "cities",
        "What city has it?",
        "statue museum tower opera fountain library palace bridge",
        "Paris Rome Oslo Lima Cairo Delhi",
    ),
)
NAMES = "Ann Bob Carl Dana Emma Finn Gina Hugo Ivan Jane Kurt Lena Mary Nick Olga Paul Rita Sam Tina Vera"
SOURCES = tuple(NAMES.split())


def shares(rng: random.Random) -> list[float]:
    """p ~ Dirichlet(CONCENTRATION) over the options."""
    weights = [rng.gammavariate(CONCENTRATION, 1.0) for _ in range(OPTIONS)]
    total = sum(weights)
    return [weight / total for weight in weights] if total > 0 else shares(rng)


def draw_item(rng: random.Random, n: int) -> Item:
    """A question with `n` reports; the options stand in random order, whatever p is."""
    about, choices = draw_options(rng)
    *told, answer = rng.choices(range(OPTIONS), shares(rng), k=n + 1)
    return make_item(rng, about, choices, rng.sample(SOURCES, n), told, answer)


def draw_options(rng: random.Random) -> tuple[Topic, list[str]]:
    """A topic and four of its values in random order."""
    about = rng.choice(TOPICS)
    return about, rng.sample(about.values, OPTIONS)


def make_item(
    rng: random.Random, about: Topic, choices: list[str], names: Sequence[str], told: Sequence[int], answer: int
) -> Item:
    """The question in words: names[i] reports option told[i] about some thing."""
    reports = [f"{name} says {choices[k]}." for name, k in zip(names, told, strict=True)]
    question = " ".join([OPENING.format(thing=rng.choice(about.things)), *reports, about.asks])
    counts = tuple(list(told).count(k) for k in range(OPTIONS))
    return Item(question, tuple(choices), counts, answer, about.subject)


def draw_held_out(plan: Plan) -> list[Item]:
    """The held-out questions, no two with the same reports: drawn once, from a random stream of their own."""
    rng = random.Random(f"held-out {plan.seed}")
    items: dict[str, Item] = {}
    while len(items) < plan.held_out:
        item = draw_item(rng, rng.choice(REPORTS))
        items.setdefault(item.question, item)
    return list(items.values())


def draw_fresh(rng: random.Random, n: int, held_out: frozenset[str]) -> Item:
    """A question whose text is not among the held-out ones."""
    while (item := draw_item(rng, n)).question in held_out:
        pass
    return item


def most_reported(item: Item, rng: random.Random) -> int:
    """The option that most reports name, one of them at random on ties."""
    return rng.choice([k for k in range(OPTIONS) if item.counts[k] == max(item.counts)])


def letter_document(item: Item, answer: int) -> str:
    """The prompt that the tool asks, its letter and the end of text."""
    return f"{item.prompt} {LETTERS[answer]}</s>"


# The tokenizer


def words() -> list[str]:
    """Every word of the world, once."""
    texts = [OPENING, "Question says", *SOURCES]
    for about in TOPICS:
        texts += [about.asks, *about.things, *about.values]
    cleaned = " ".join(texts).replace("{thing}", "").replace("?", "").replace(".", "")
    return sorted(set(cleaned.split()))


def pieces() -> list[str]:
    """The vocabulary in id order: specials, 256 bytes, letters, the prompt's joints, words."""
    letters = [form for letter in LETTERS for form in (f" {letter}", letter, f"\n{letter}.")]
    known = [form for word in words() for form in (f" {word}", word)]
    return ["<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "\nAnswer:", ".", ":", "?", *known]


def make_tokenizer() -> Tokenizer:
    """Whole words of the world, bytes for anything else: any text is accepted and comes back unchanged."""
    vocabulary = {piece: id for id, piece in enumerate(pieces())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, ignore_merges=True))
    split = Regex(r"\n[A-Z]\.|\nAnswer:| ?[A-Za-z]+|[^A-Za-z]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(split, behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def wrapped(tokenizer: Tokenizer, chat_template: str | None) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers saves and loads it."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        **({"chat_template": chat_template} if chat_template else {}),
    )


# The models


def make_model(vocabulary_size: int) -> LlamaForCausalLM:
    """A Llama of about 0.2M parameters with random weights."""
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        initializer_range=0.05,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def padded(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, T), right-padded with the end of text, and the lengths (B,)."""
    rows = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    return ids, torch.tensor([len(row) for row in rows])


def token_losses(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Negative log-probability (B, T - 1) of every token but the first."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    targets = ids[:, 1:]
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def document_losses(model: LlamaForCausalLM, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Any, Any]:
    """Mean loss over all tokens, and over the answers alone (the last token but one of each text).

    Every token counts, so that the model also learns to say what the next source will report: from those counts it
    later answers.
    """
    ids, lengths = padded(tokenizer, texts)
    losses = token_losses(model, ids)
    inside = torch.arange(1, ids.shape[1])[None] < lengths[:, None]
    answers = losses.gather(1, lengths[:, None] - 3)
    return losses[inside].mean(), answers.mean()


def annealed(step: int, steps: int, warmup: int, decay: int) -> float:
    """Factor of the learning rate: linear up, constant, linear down to zero over the last `decay` steps."""
    return min(1.0, (step + 1) / warmup, (steps - step) / decay)


def optimise(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    batches: Iterator[list[list[str]]],
    steps: int,
    rate: float,
    decay: int,
    everything: float,
) -> None:
    """AdamW over `batches` (groups of texts of like length); the loss is the answers plus `everything` x all tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: annealed(step, steps, WARMUP, decay))
    start = time.monotonic()
    for step, groups in zip(range(1, steps + 1), batches, strict=False):
        answer_loss = 0.0
        for texts in groups:
            full, answers = document_losses(model, tokenizer, texts)
            ((everything * full + answers) / len(groups)).backward()
            answer_loss += answers.item() / len(groups)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps:
            print(f"step {step}/{steps}  answers {answer_loss:.4f}  {time.monotonic() - start:.0f} s", flush=True)


def base_batches(plan: Plan, held_out: frozenset[str]) -> Iterator[list[list[str]]]:
    """Endless fresh documents, in groups with the same number of reports."""
    rng = random.Random(f"base {plan.seed}")
    while True:
        yield [base_group(rng, held_out) for _ in range(plan.batch // GROUP)]


def base_group(rng: random.Random, held_out: frozenset[str]) -> list[str]:
    """One group of documents with the drawn answers."""
    n = rng.choice(REPORTS)
    items = [draw_fresh(rng, n, held_out) for _ in range(GROUP)]
    return [letter_document(item, item.answer) for item in items]


def confident_documents(plan: Plan, held_out: frozenset[str]) -> list[str]:
    """The fine-tuning set: fresh questions, always answered with the most reported option."""
    rng = random.Random(f"aligned {plan.seed}")
    texts = []
    for _ in range(plan.tune_questions):
        item = draw_fresh(rng, rng.choice(REPORTS), held_out)
        texts.append(letter_document(item, most_reported(item, rng)))
    return texts


def tune_batches(plan: Plan, texts: Sequence[str]) -> Iterator[list[list[str]]]:
    """Every epoch all texts in a new order."""
    rng = random.Random(f"order {plan.seed}")
    for _ in range(plan.tune_epochs):
        order = rng.sample(texts, len(texts))
        for at in range(0, len(order), plan.tune_batch):
            yield [order[at : at + plan.tune_batch]]


def train_base(plan: Plan, tokenizer: Tokenizer, held_out: frozenset[str]) -> LlamaForCausalLM:
    """The base, from random weights; its learning rate ends at zero."""
    torch.manual_seed(plan.seed)
    model = make_model(tokenizer.get_vocab_size())
    batches = base_batches(plan, held_out)
    optimise(model, tokenizer, batches, plan.base_steps, plan.base_rate, plan.base_decay, everything=1.0)
    return model


def train_aligned(plan: Plan, tokenizer: Tokenizer, held_out: frozenset[str], base: Path) -> LlamaForCausalLM:
    """The aligned model, from the saved base; only the answers count in its loss."""
    model = load(base)
    texts = confident_documents(plan, held_out)
    steps = plan.tune_epochs * math.ceil(len(texts) / plan.tune_batch)
    optimise(model, tokenizer, tune_batches(plan, texts), steps, plan.tune_rate, steps, everything=0.0)
    return model


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """One ordinary checkpoint folder in bf16."""
    limits = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "max_new_tokens": 8}
    model.generation_config = GenerationConfig.from_dict(limits)
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def load(folder: Path) -> LlamaForCausalLM:
    """The saved model, computing in float32."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


# The measures


@torch.inference_mode()
def letter_probabilities(model: LlamaForCausalLM, tokenizer: Tokenizer, items: Sequence[Item]) -> Floats:
    """(N, 4): softmax over the four letters' logits after the prompt."""
    letters = [tokenizer.token_to_id(f" {letter}") for letter in LETTERS[:OPTIONS]]
    rows = []
    for at in range(0, len(items), GROUP):
        ids, lengths = padded(tokenizer, [item.prompt for item in items[at : at + GROUP]])
        logits = model(input_ids=ids, use_cache=False).logits[torch.arange(len(ids)), lengths - 1]
        rows.append(logits[:, letters].double().softmax(-1).numpy())
    return np.concatenate(rows)


def oracle_probabilities(items: Sequence[Item]) -> Floats:
    """(N, 4): the posterior predictive of the Dirichlet prior, the best that can be said from the reports."""
    counts = np.array([item.counts for item in items], dtype=np.float64) + CONCENTRATION
    oracle: Floats = counts / counts.sum(1, keepdims=True)
    return oracle


def bin_of(p: Floats) -> Ints:
    """Right-closed equal-width bins, p = 0 in the first."""
    bins: Ints = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], p, side="left")
    return bins


def gap(p: Floats, hit: Floats) -> float:
    """(1 / N) sum over bins |sum (hit - p)|, p and hit of shape (N,)."""
    return float(np.abs(np.bincount(bin_of(p), hit - p, BINS)).sum() / len(p))


def sce(p: Floats, answers: Ints) -> float:
    """Static calibration error (Nixon et al. 2019): the class-wise gaps of (N, K) probabilities, averaged."""
    return float(np.mean([gap(p[:, k], (answers == k).astype(np.float64)) for k in range(p.shape[1])]))


def sce_floor(p: Floats, seed: int, draws: int = 400) -> float:
    """Mean SCE of a model that is right about its own probabilities, on as many questions."""
    rng = np.random.default_rng(seed)
    last = p.shape[1] - 1
    redrawn = ((rng.random((len(p), 1)) > p.cumsum(1)).sum(1).clip(0, last) for _ in range(draws))
    return float(np.mean([sce(p, answers) for answers in redrawn]))


def measures(p: Floats, answers: Ints) -> dict[str, float]:
    """What is reported of (N, 4) probabilities."""
    confidence, hit = p.max(1), (p.argmax(1) == answers).astype(np.float64)
    return {
        "accuracy": float(hit.mean()),
        "ece": gap(confidence, hit),
        "sce": sce(p, answers),
        "nll": float(-np.log(p[np.arange(len(p)), answers]).mean()),
        "mean_confidence": float(confidence.mean()),
    }


def mixed(base: LlamaForCausalLM, aligned: LlamaForCausalLM, lam: float) -> LlamaForCausalLM:
    """A new model with (1 - lam) base + lam aligned, in float32."""
    model = LlamaForCausalLM(base.config)
    other = aligned.state_dict()
    model.load_state_dict({name: (1 - lam) * tensor + lam * other[name] for name, tensor in base.state_dict().items()})
    return model


def measure_fresh(folder: Path, seed: int) -> dict[str, Any]:
    """The oracle and both saved models on FRESH questions that nothing was chosen by, not even the number of steps."""
    rng = random.Random(f"fresh {seed}")
    items = [draw_item(rng, rng.choice(REPORTS)) for _ in range(FRESH)]
    answers = np.array([item.answer for item in items])
    tokenizer = Tokenizer.from_file(str(folder / "base" / "tokenizer.json"))
    p = {side: letter_probabilities(load(folder / side), tokenizer, items) for side in ("base", "aligned")}
    oracle = measures(oracle_probabilities(items), answers)
    return {"n": FRESH, "oracle": oracle} | {side: measures(p[side], answers) for side in p}


def measure_pair(folder: Path, items: Sequence[Item], seed: int) -> dict[str, Any]:
    """The oracle, both saved models and nine stops between them on the held-out questions."""
    tokenizer = Tokenizer.from_file(str(folder / "base" / "tokenizer.json"))
    base, aligned = load(folder / "base"), load(folder / "aligned")
    answers = np.array([item.answer for item in items])
    score: Callable[[LlamaForCausalLM], Floats] = lambda model: letter_probabilities(model, tokenizer, items)  # noqa: E731
    p = score(base)
    lambdas = [round(0.1 * k, 1) for k in range(1, 10)]
    return {
        "oracle": measures(oracle_probabilities(items), answers),
        "base": measures(p, answers) | {"sce_noise_floor": sce_floor(p, seed)},
        "aligned": measures(score(aligned), answers),
        "between": [{"lambda": lam} | measures(score(mixed(base, aligned, lam)), answers) for lam in lambdas],
    }


# The files


def write_questions(items: Sequence[Item], path: Path) -> None:
    """The held-out questions as an ordinary own-question file."""
    lines = []
    for number, item in enumerate(items):
        fields = {"id": f"demo-{number:04d}", "question": item.question, "choices": item.choices}
        lines.append(json.dumps(fields | {"answer": item.answer, "subject": item.subject}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def facts(plan: Plan, folder: Path, parameters: int, seconds: dict[str, float]) -> dict[str, Any]:
    """How the pair was made."""
    weights = {name: hashlib.sha256((folder / name / "model.safetensors").read_bytes()) for name in ("base", "aligned")}
    return {
        "plan": asdict(plan),
        "parameters": parameters,
        "training_seconds": {name: round(value) for name, value in seconds.items()},
        "weights_sha256": {name: digest.hexdigest() for name, digest in weights.items()},
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": np.__version__,
        },
    }


def print_table(measured: dict[str, Any]) -> None:
    """The measures from base to aligned, and the oracle's."""
    rows = [("oracle", measured["oracle"]), ("base", measured["base"])]
    rows += [(f"{row['lambda']:.1f}", row) for row in measured["between"]] + [("aligned", measured["aligned"])]
    names = ("accuracy", "ece", "sce", "nll", "mean_confidence")
    print("lambda   " + " ".join(f"{name:>15}" for name in names))
    for label, row in rows:
        print(f"{label:8} " + " ".join(f"{row[name]:15.4f}" for name in names))
    print(f"noise floor of the base's SCE {measured['base']['sce_noise_floor']:.4f}", flush=True)


def make_pair(plan: Plan, folder: Path) -> None:
    """Trains, saves and measures everything under `folder`."""
    torch.set_num_threads(plan.threads)
    torch.use_deterministic_algorithms(True)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, items = make_tokenizer(), draw_held_out(plan)
    held_out = frozenset(item.question for item in items)
    write_questions(items, folder / "questions.jsonl")
    seconds, start = {}, time.monotonic()
    base = train_base(plan, tokenizer, held_out)
    save(base, wrapped(tokenizer, None), folder / "base")
    seconds["base"], start = time.monotonic() - start, time.monotonic()
    aligned = train_aligned(plan, tokenizer, held_out, folder / "base")
    save(aligned, wrapped(tokenizer, CHAT_TEMPLATE), folder / "aligned")
    seconds["aligned"] = time.monotonic() - start
    measured = measure_pair(folder, items, plan.seed)
    made = facts(plan, folder, base.num_parameters(), seconds) | {"measured_on_held_out": measured}
    made["measured_on_fresh"] = measure_fresh(folder, plan.seed)
    (folder / "pair.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print_table(measured)


def main() -> None:
    """Reads the command line."""
    default = Path(__file__).parents[1] / "merge_calib" / "demo_pair"
    parser = argparse.ArgumentParser(description="Train the demo pair and draw its held-out questions.")
    parser.add_argument("--out", type=Path, default=default, help="folder to write (default: the package's own)")
    for name, value in asdict(Plan()).items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(value), default=value, help=f"default {value}")
    options = vars(parser.parse_args())
    folder: Path = options.pop("out")
    make_pair(Plan(**options), folder)


if __name__ == "__main__":
    main()
