"""The scorer against a plain loop, and what must not change a score."""

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer, save_model, tiny_llama
from plain_loop import choice_log_probabilities
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.errors import CheckpointError, ScoringError
from merge_calib.questions import Question, TaskSet
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.prompts import choice_prompt, continuation, continuation_context
from merge_calib.scoring.rows import Encoder, batches
from merge_calib.scoring.scorer import CONFIDENCE_METHODS, Questionnaire, score

CPU = torch.device("cpu")


def quiz(style="plain", **fields) -> TaskSet:
    texts = [
        ("What is red?", ("the mill", "a very long answer with many words in it", "blue", "x")),
        ("Which one of these is a longer question than the others, by far?", ("one", "two", "three")),
        ("Where?", ("here", "there", "nowhere", "everywhere at the same time", "é ü")),
    ] * 3
    questions = [Question(f"q{i}", q, c, i % len(c), "small things", **fields) for i, (q, c) in enumerate(texts)]
    return TaskSet("quiz", style, tuple(questions))


def scored(folder, task, max_tokens=4096, max_length=512):
    model = LanguageModel(Checkpoint.open(folder), CPU, torch.float32)
    questionnaire = Questionnaire(Encoder(byte_tokenizer(), max_length), [task])
    return score(model, questionnaire, task, CONFIDENCE_METHODS, max_tokens)


def plain(folder, task):
    """Scores by the reference loop, as scored() gives them."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = byte_tokenizer()
    wide = (len(task), max(len(q.choices) for q in task.questions))
    found = {confidence: np.full(wide, np.nan) for confidence in CONFIDENCE_METHODS}
    for i, q in enumerate(task.questions):
        for k, choice in enumerate(q.choices):
            letter = choice_log_probabilities(model, tokenizer, choice_prompt(task, q), " " + "ABCDE"[k])
            tokens = choice_log_probabilities(model, tokenizer, continuation_context(q), continuation(choice))
            found["choice"][i, k] = letter[0]
            found["continuation-sum"][i, k] = sum(tokens)
            found["continuation-min"][i, k] = min(tokens)
    return found


def assert_same(scores, reference):
    for confidence in CONFIDENCE_METHODS:
        np.testing.assert_allclose(scores[confidence].logprobs, reference[confidence], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tiny_llama(3), tmp_path_factory.mktemp("model"), torch.float32)


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 263,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def other_architecture(name):
    torch.manual_seed(0)
    if name == "gemma2":
        small = SMALL | {"num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 3.0}
        return Gemma2ForCausalLM(Gemma2Config(**small))
    if name == "opt":
        return OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=512))
    if name == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, max_position_embeddings=512))
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2))


@pytest.mark.parametrize("style", ["plain", "mmlu", "medmcqa", "select"])
def test_scores_equal_a_plain_loop_for_every_prompt_style(folder, style):
    assert_same(scored(folder, quiz(style)), plain(folder, quiz(style)))


@pytest.mark.parametrize("name", ["gemma2", "opt", "gpt_neox", "qwen2"])
def test_scores_equal_a_plain_loop_for_other_architectures(tmp_path, name):
    model = other_architecture(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    folder = save_model(model, tmp_path / name, torch.float32)
    assert_same(scored(folder, quiz()), plain(folder, quiz()))


def test_a_soft_cap_on_the_logits_is_kept(tmp_path):
    """Negative control for the replaced head: without the cap the scores would be others."""
    model = other_architecture("gemma2")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(40)
    folder = save_model(model, tmp_path / "capped", torch.float32)
    capped = scored(folder, quiz())["choice"].logprobs
    config = (
        (folder / "config.json")
        .read_text()
        .replace('"final_logit_softcapping": 3.0', '"final_logit_softcapping": null')
    )
    (folder / "config.json").write_text(config)
    assert np.nanmax(np.abs(scored(folder, quiz())["choice"].logprobs - capped)) > 1e-3


@pytest.mark.parametrize("max_tokens", [1, 100, 1_000_000])
def test_scores_do_not_depend_on_the_batch_size(folder, max_tokens):
    reference, scores = scored(folder, quiz()), scored(folder, quiz(), max_tokens)
    assert_same(scores, {c: reference[c].logprobs for c in CONFIDENCE_METHODS})


def test_scores_do_not_depend_on_the_order_of_questions(folder):
    task = quiz()
    turned = TaskSet("quiz", "plain", task.questions[::-1])
    reference, scores = scored(folder, task), scored(folder, turned)
    assert_same(scores, {c: reference[c].logprobs[::-1] for c in CONFIDENCE_METHODS})


def test_a_context_that_is_too_long_loses_tokens_from_the_left_and_is_counted(tmp_path):
    model = tiny_llama(3)
    model.config.max_position_embeddings = 48
    folder = save_model(model, tmp_path / "short", torch.float32)
    task = quiz()
    assert_same(scored(folder, task, max_length=48), plain(folder, task))
    encoded = Encoder(byte_tokenizer(), 48).continuations(task)
    texts = [continuation_context(q) + continuation(c) for q in task.questions for c in q.choices]
    assert 0 < encoded.truncated == sum(len(byte_tokenizer()(text).input_ids) - 1 > 48 for text in texts) < len(texts)
    assert max(len(row.tokens) for row in encoded.rows) == 48


def test_a_choice_longer_than_the_model_takes_is_scored_in_windows_each_token_once(tmp_path):
    model = tiny_llama(3)
    model.config.max_position_embeddings = 16
    folder = save_model(model, tmp_path / "short", torch.float32)
    text = " a choice that has far more tokens than sixteen"
    task = TaskSet("quiz", "plain", (Question("q", "What?", (text.strip(), "x"), 0),))
    found = scored(folder, task, max_length=16)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = choice_log_probabilities(loaded, byte_tokenizer(), "Question: What?\nAnswer:", text)
    assert len(expected) == len(byte_tokenizer()(text, add_special_tokens=False).input_ids) > 16
    assert found["continuation-sum"].logprobs[0, 0] == pytest.approx(sum(expected), abs=1e-4)
    assert found["continuation-min"].logprobs[0, 0] == pytest.approx(min(expected), abs=1e-4)


def test_a_context_given_verbatim_is_scored_as_it_is(folder):
    task = quiz(context="The story begins")
    assert_same(scored(folder, task), plain(folder, task))


def test_an_empty_context_is_scored_after_bos(folder):
    task = quiz(context="")
    assert_same(scored(folder, task), plain(folder, task))


def test_an_empty_context_without_bos_is_refused():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(ScoringError, match="question 'q0'.*BOS"):
        Encoder(tokenizer, 512).continuations(quiz(context=""))


def test_a_letter_that_is_not_one_token_is_named():
    # Neither " B" nor "B" would fail: single bytes are tokens. Letters beyond a byte's reach need another tokenizer.
    class Letters:
        def __call__(self, text, **_):
            ids = [self._ids(t) for t in text] if isinstance(text, list) else self._ids(text)
            return {"input_ids": ids}

        def _ids(self, text):
            return [id for letter in text for id in ([ord(letter), 0] if letter == "C" else [ord(letter)])]

    task = TaskSet("quiz", "plain", (Question("q", "what", ("x", "y", "z"), 0),))
    with pytest.raises(ScoringError, match="task quiz: .*single token for the letter 'C'"):
        Encoder(Letters(), 512).choice(task)


def test_a_tokenizer_that_gives_nothing_for_a_text_is_refused():
    def silent(text, **_):
        return {"input_ids": [[] for _ in text] if isinstance(text, list) else [0]}

    with pytest.raises(ScoringError, match="does not say what it puts before a text"):
        Encoder(silent, 512)


def test_letters_without_a_space_are_used_where_those_with_one_are_several_tokens():
    encoder = Encoder(byte_tokenizer(words=()), 512)
    assert encoder.choice(quiz()).letters == "A"
    assert Encoder(byte_tokenizer(), 512).choice(quiz()).letters == " A"


def test_batches_hold_every_row_once_within_the_budget():
    rows = Encoder(byte_tokenizer(), 512).continuations(quiz()).rows
    grouped = list(batches(rows, 300, 40))
    assert sorted(i for batch in grouped for i in batch) == list(range(len(rows)))
    for batch in ([rows[i] for i in indices] for indices in grouped):
        assert len(batch) == 1 or max(len(r.tokens) for r in batch) * len(batch) <= 300
        assert len(batch) == 1 or sum(len(r.candidates) for r in batch) <= 40


def test_a_checkpoint_that_lacks_a_tensor_of_its_model_is_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor.*model\.layers\.1\.mlp\.up_proj\.weight"):
        LanguageModel(Checkpoint.open(broken), CPU, torch.float32)
