"""The pair that ships with the package is what it is said to be: checked on its saved files with plain transformers."""

import hashlib
import importlib.util
import json
import sys
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[1]
PAIR = ROOT / "merge_calib" / "demo_pair"
TEXTS = [
    "",
    " ",
    "Reports on the kite disagree. Ann says red.",
    "  two  spaces,\ttabs\n\nand lines\r\n",
    "wörld, naïve, 日本語, עברית, e\u0301",
    "\U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467 \x00 \x7f",
    "\nA. x\nB.y\nAnswer:  A\nAnswer: <0x41> <unk> [INST]",
    " A B C reddish Red RED .5? :;",
]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_demo_pair", ROOT / "tools" / "train_demo_pair.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return load_script()


@pytest.fixture(scope="module")
def facts():
    return json.loads((PAIR / "pair.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def questions():
    return [json.loads(line) for line in (PAIR / "questions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module", params=["base", "aligned"])
def tokenizer(request):
    return AutoTokenizer.from_pretrained(PAIR / request.param)


def prompt_of(question):
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", question["choices"], strict=True))
    return f"{question['question']}\n{options}\nAnswer:"


# The tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_unchanged(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


def test_a_letter_adds_exactly_one_token_to_a_prompt(tokenizer, questions):
    for question in questions[:50]:
        prompt = tokenizer(prompt_of(question)).input_ids
        for letter in "ABCD":
            answered = tokenizer(f"{prompt_of(question)} {letter}").input_ids
            assert answered[:-1] == prompt
            assert tokenizer.decode(answered[-1:]) == f" {letter}"


def test_the_world_is_tokenised_in_whole_words(tokenizer, questions):
    texts = [prompt_of(q) for q in questions] + [
        f"Question: {q['question']}\nAnswer: {q['choices'][0]}" for q in questions
    ]
    used = {id for ids in tokenizer(texts).input_ids for id in ids}
    assert not [piece for piece in tokenizer.convert_ids_to_tokens(sorted(used)) if piece.startswith("<0x")]


def test_both_have_one_tokenizer_and_only_the_aligned_model_has_a_chat_template():
    assert (PAIR / "base" / "tokenizer.json").read_bytes() == (PAIR / "aligned" / "tokenizer.json").read_bytes()
    assert AutoTokenizer.from_pretrained(PAIR / "base").chat_template is None
    chat = AutoTokenizer.from_pretrained(PAIR / "aligned")
    assert chat.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False) == "Hello"


# The files


@pytest.mark.parametrize("name", ["base", "aligned"])
def test_each_model_is_small_and_is_the_one_described(name, facts):
    files = list((PAIR / name).iterdir())
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in files}
    assert sum(f.stat().st_size for f in files) <= 4_000_000
    weights = (PAIR / name / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == facts["weights_sha256"][name]


def test_the_questions_are_well_formed(questions):
    assert len(questions) >= 2000
    assert len({q["id"] for q in questions}) == len({q["question"] for q in questions}) == len(questions)
    for question in questions:
        assert set(question) == {"id", "question", "choices", "answer", "subject"}
        assert len(set(question["choices"])) == 4
        assert question["answer"] in range(4)


def test_the_answers_are_spread_evenly_over_the_letters(questions):
    n = len(questions)
    counts = Counter(q["answer"] for q in questions)
    assert all(abs(counts[k] - n / 4) < 4 * (n * 3 / 16) ** 0.5 for k in range(4))  # 4 standard deviations


def test_the_defaults_of_the_script_are_the_plan_that_made_the_pair(script, facts):
    assert facts["plan"] == asdict(script.Plan())


def test_the_script_draws_the_shipped_questions(script, tmp_path):
    script.write_questions(script.draw_held_out(script.Plan()), tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (PAIR / "questions.jsonl").read_bytes()


def test_no_held_out_question_is_trained_on(script, questions):
    held_out = frozenset(q["question"] for q in questions)
    batches = script.base_batches(script.Plan(), held_out)
    texts = [text for _ in range(20) for group in next(batches) for text in group]
    texts += script.confident_documents(script.Plan(), held_out)
    trained = {text.removeprefix("Question: ").split("\n")[0] for text in texts}
    assert len(trained) > 8000
    assert not trained & held_out


def test_a_held_out_question_is_drawn_again(script):
    first = script.draw_item(script.random.Random(5), 2)
    fresh = script.draw_fresh(script.random.Random(5), 2, frozenset([first.question]))
    assert fresh.question != first.question


def test_the_aligned_model_is_told_the_most_reported_option(script):
    item = script.Item("?", ("a", "b", "c", "d"), (1, 3, 0, 3), 0, "s")
    told = {script.most_reported(item, script.random.Random(seed)) for seed in range(20)}
    assert told == {1, 3}


# The behaviour of the saved weights


@torch.inference_mode()
def letter_probabilities(name, questions):
    """One plain float32 forward per batch of prompts of one length: no padding, no mask."""
    tokenizer = AutoTokenizer.from_pretrained(PAIR / name)
    model = AutoModelForCausalLM.from_pretrained(PAIR / name, dtype=torch.float32)
    letters = [tokenizer(f" {letter}", add_special_tokens=False).input_ids[0] for letter in "ABCD"]
    by_length = defaultdict(list)
    for row, ids in enumerate(tokenizer([prompt_of(q) for q in questions]).input_ids):
        by_length[len(ids)].append((row, ids))
    p = np.empty((len(questions), 4))
    for rows in by_length.values():
        logits = model(torch.tensor([ids for _, ids in rows]), logits_to_keep=1).logits[:, -1, letters]
        p[[row for row, _ in rows]] = torch.softmax(logits.double(), -1).numpy()
    return p


def slow_sce(p, answers):
    """Class-wise calibration error by its definition: bins ((m - 1) / 10, m / 10], |hits - mean p| weighted."""
    total = 0.0
    for k in range(4):
        for m in range(10):
            inside = (p[:, k] > m / 10) & (p[:, k] <= (m + 1) / 10)
            if inside.any():
                total += inside.mean() * abs((answers[inside] == k).mean() - p[inside, k].mean())
    return total / 4


def noise_floor(p, draws=200):
    """Mean SCE over answers redrawn from the probabilities themselves."""
    rng = np.random.default_rng(1)
    edges = p.cumsum(1)[:, :3]
    return np.mean([slow_sce(p, (rng.random((len(p), 1)) > edges).sum(1)) for _ in range(draws)])


@pytest.fixture(scope="module")
def measured(questions):
    answers = np.array([q["answer"] for q in questions])
    result = {}
    for name in ("base", "aligned"):
        p = letter_probabilities(name, questions)
        nll = -np.log(p[np.arange(len(p)), answers]).mean()
        result[name] = {"accuracy": (p.argmax(1) == answers).mean(), "sce": slow_sce(p, answers), "nll": nll, "p": p}
    return result


def test_the_measured_facts_are_those_of_the_saved_weights(measured, facts):
    for name in ("base", "aligned"):
        for quantity in ("accuracy", "sce", "nll"):  # batches of other shapes round differently
            said = facts["measured_on_held_out"][name][quantity]
            assert measured[name][quantity] == pytest.approx(said, abs=5e-4)


def test_the_base_is_above_chance_and_near_calibrated(measured):
    base = measured["base"]
    assert base["accuracy"] > 0.45
    assert base["sce"] <= 2 * noise_floor(base["p"])


def test_the_aligned_model_is_more_accurate_and_over_confident(measured):
    base, aligned = measured["base"], measured["aligned"]
    assert 0.02 <= aligned["accuracy"] - base["accuracy"] <= 0.06
    assert aligned["sce"] >= 3 * base["sce"]
    assert aligned["nll"] > base["nll"]
    assert aligned["p"].max(1).mean() > aligned["accuracy"] + 0.1
