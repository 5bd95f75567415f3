"""The scorer against a plain loop, and what must not change a score."""

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer, save_model, tiny_llama
from plain_loop import choice_log_probabilities
from tiny_models import ARCHITECTURES, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.errors import CheckpointError, InputError, ScoringError
from merge_calib.questions import Question, TaskSet
from merge_calib.scoring import attention, head
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.encoder import Dress, Encoder
from merge_calib.scoring.loading import longest_context
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.prompts import choice_prompt, continuation, continuation_context
from merge_calib.scoring.questionnaire import CONFIDENCE_METHODS, NEXT_TOKEN, Questionnaire
from merge_calib.scoring.scorer import score

CPU = torch.device("cpu")
METHODS = [method for method in CONFIDENCE_METHODS if method != NEXT_TOKEN]


def quiz(style="plain", **fields) -> TaskSet:
    texts = [
        ("What is red?", ("the mill", "a very long answer with many words in it", "blue", "x")),
        ("Which one of these is a longer question than the others, by far?", ("one", "two", "three")),
        ("Where?", ("here", "there", "nowhere", "everywhere at the same time", "é ü")),
    ] * 3
    questions = [Question(f"q{i}", q, c, i % len(c), "small things", **fields) for i, (q, c) in enumerate(texts)]
    return TaskSet("quiz", style, tuple(questions))


def opened(folder, attention=None) -> LanguageModel:
    """The model in `folder`, made to read padded rows where `attention` is `rows`."""
    model = LanguageModel(Checkpoint.open(folder), CPU, torch.float32)
    if attention == "rows":
        model.use_rows()
    return model


def scored(folder, task, max_tokens=4096, max_length=512, attention=None, dress=None):
    questionnaire = Questionnaire(Encoder(byte_tokenizer(), max_length, dress))
    return score(opened(folder, attention), questionnaire, task, METHODS, Budget(max_tokens))


def plain(folder, task, shots=0):
    """Scores by the reference loop, as scored() gives them."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = byte_tokenizer()
    wide = (len(task), max(len(q.choices) for q in task.questions))
    found = {confidence: np.full(wide, np.nan) for confidence in METHODS}
    for i, q in enumerate(task.questions):
        examples = task.shots(q, shots)
        for k, choice in enumerate(q.choices):
            letter = choice_log_probabilities(model, tokenizer, choice_prompt(task, q, examples), " " + "ABCDE"[k])
            context = continuation_context(q, examples)
            tokens = choice_log_probabilities(model, tokenizer, context, continuation(choice))
            found["choice"][i, k] = letter[0]
            found["continuation-sum"][i, k] = sum(tokens)
            found["continuation-min"][i, k] = min(tokens)
            found["continuation-mean"][i, k] = sum(tokens) / len(tokens)
            found["continuation-norm"][i, k] = sum(tokens) / len(choice)
    return found


def assert_same(scores, reference):
    for confidence in METHODS:
        np.testing.assert_allclose(scores[confidence].logprobs, reference[confidence], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tiny_llama(3), tmp_path_factory.mktemp("model"), torch.float32)


@pytest.mark.parametrize("style", ["plain", "mmlu", "medmcqa", "select"])
def test_scores_equal_a_plain_loop_for_every_prompt_style(folder, style):
    assert_same(scored(folder, quiz(style)), plain(folder, quiz(style)))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request, tmp_path_factory):
    """One architecture after the other: its name, a folder with a tiny model, and what the plain loop says."""
    folder = save_model(tiny_model(request.param), tmp_path_factory.mktemp(request.param), torch.float32)
    return request.param, folder, plain(folder, quiz())


@pytest.fixture(scope="module", params=["blocks", "rows"])
def reader(request, architecture):
    """The model of an architecture as it reads packs and as it reads rows, opened once: each time it is proved anew."""
    name, folder, _ = architecture
    model = opened(folder, request.param)
    assert model.attention == ("rows" if name in ("bloom", "mamba") else request.param)
    return model


@pytest.mark.parametrize("max_tokens", [1, 300, 1_000_000])
def test_scores_equal_a_plain_loop_packed_or_padded_whatever_the_batch(architecture, reader, max_tokens):
    questionnaire = Questionnaire(Encoder(byte_tokenizer(), 512))
    assert_same(score(reader, questionnaire, quiz(), METHODS, Budget(max_tokens)), architecture[2])


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "mistral"])
def test_the_window_of_these_models_matters_to_the_scores(name, tmp_path):
    """Negative control: with a window as long as the text the scores are others, so the tests above see it."""
    folder = save_model(tiny_model(name), tmp_path / "narrow", torch.float32)
    wide = save_model(tiny_model(name, sliding_window=512), tmp_path / "wide", torch.float32)
    one, other = (scored(f, quiz())["continuation-sum"].logprobs for f in (folder, wide))
    assert np.nanmax(np.abs(one - other)) > 1e-2


def test_a_mask_that_leaks_changes_the_scores_and_is_refused(folder, monkeypatch):
    """Each token is let see all that stands before it in the pack, its question's other choices included."""
    reference = scored(folder, quiz())

    def leaky(layout, window, dtype):
        size = layout.pack.width
        causal = torch.full((size, size), -torch.inf).triu(1)
        return torch.nn.functional.pad(causal, (layout.pack.head, 0))[None, None]

    honest = opened(folder)
    monkeypatch.setattr(attention._Layout, "_mask", leaky)
    questionnaire = Questionnaire(Encoder(byte_tokenizer(), 512))
    leaked = score(honest, questionnaire, quiz(), METHODS, Budget(4096))
    difference = leaked["continuation-sum"].logprobs - reference["continuation-sum"].logprobs
    assert np.nanmax(np.abs(difference)) > 1e-2
    assert opened(folder).attention == "rows"
    assert_same(scored(folder, quiz()), {c: reference[c].logprobs for c in METHODS})


@pytest.mark.parametrize("wrong", ["depths", "ends"])
def test_packs_with_wrong_positions_or_wrong_families_are_refused(folder, monkeypatch, wrong):
    original = attention.Pack.table

    def shifted(pack, name):
        values = original(pack, name)
        plain = np.broadcast_to(np.arange(pack.width), values.shape).copy()
        return plain if name == wrong == "depths" else values + 10 * (name == wrong == "ends")

    monkeypatch.setattr(attention.Pack, "table", shifted)
    assert opened(folder).attention == "rows"


def test_the_sum_over_the_vocabulary_is_taken_in_chunks_of_any_size(folder, monkeypatch):
    reference = scored(folder, quiz())
    monkeypatch.setattr(head, "CHUNK_ON_CPU", 50)
    monkeypatch.setattr(head, "ROWS", 3)
    assert_same(scored(folder, quiz()), {c: reference[c].logprobs for c in METHODS})


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_the_head_agrees_with_a_softmax_over_all_logits(chunk, monkeypatch):
    """Large logits in the first chunk and in the last, and a tie across chunks, which goes to the smaller id."""
    monkeypatch.setattr(head, "CHUNK_ON_CPU", chunk)
    logits = torch.tensor([[90.0, -3.0, 0.0, 90.0, 1.0], [-50.0, -60.0, -70.0, 2.0, 80.0]])
    scored_head = head.ScoredHead(torch.nn.Linear(5, 5, bias=False))
    scored_head.head.weight = torch.nn.Parameter(torch.eye(5), requires_grad=False)
    scored_head.hidden = logits
    slots, ids = torch.tensor([0, 1, 1, 0, 0]), torch.tensor([4, 0, 4, 0, 2])
    read = scored_head.read(slots, ids, lambda logits: logits)
    exact = torch.log_softmax(logits.double(), -1)
    np.testing.assert_allclose(read.logprobs, exact[slots, ids].numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(read.top_logprobs, exact.max(1).values[slots].numpy(), rtol=0, atol=1e-6)
    assert read.top_ids.tolist() == [0, 4, 4, 0, 0]


def kernel(query, key, value, cu_seq_q, cu_seq_k, window, scale):
    """Variable-length attention by a slow loop; window (left, 0) counts tokens before the query, -1 all of them."""
    out = torch.empty_like(query)
    for b in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[b] : cu_seq_q[b + 1]]
        k, v = (part[cu_seq_k[b] : cu_seq_k[b + 1]] for part in (key, value))
        k, v = (part.repeat_interleave(query.shape[1] // key.shape[1], 1) for part in (k, v))
        back = torch.arange(len(q))[:, None] + len(k) - len(q) - torch.arange(len(k))
        hidden = (back < 0) | ((window[0] >= 0) & (back > window[0]))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        out[cu_seq_q[b] : cu_seq_q[b + 1]] = torch.einsum(
            "hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v
        )
    return out


def varlen_of_torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False):
    assert is_causal
    return kernel(query, key, value, cu_seq_q, cu_seq_k, (-1, 0), query.shape[-1] ** -0.5)


def varlen_of_torch_2_13(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    assert window_size[1] == 0
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return kernel(query, key, value, cu_seq_q, cu_seq_k, window_size, scale)


@pytest.mark.parametrize(
    ("name", "varlen", "expected"),
    [
        ("llama", varlen_of_torch_2_10, "varlen"),
        ("llama", varlen_of_torch_2_13, "varlen"),
        ("granite", varlen_of_torch_2_10, "varlen"),
        ("mistral", varlen_of_torch_2_13, "varlen"),
        ("gemma3", varlen_of_torch_2_13, "varlen"),
        ("mistral", varlen_of_torch_2_10, "blocks"),  # has no window
        ("gemma2", varlen_of_torch_2_13, "blocks"),  # has no soft cap
    ],
)
def test_the_arguments_of_variable_length_attention_mean_what_they_say(tmp_path, monkeypatch, name, varlen, expected):
    folder = save_model(tiny_model(name), tmp_path / "model", torch.float32)
    reference = scored(folder, quiz("mmlu"), 400, attention="rows")
    monkeypatch.setattr(attention, "_varlen_function", lambda: varlen)
    monkeypatch.setattr("merge_calib.scoring.model.has_varlen", lambda device, dtype: True)
    model = opened(folder)
    assert model.attention == expected
    found = score(model, Questionnaire(Encoder(byte_tokenizer(), 512)), quiz("mmlu"), METHODS, Budget(400))
    assert_same(found, {c: reference[c].logprobs for c in METHODS})


def test_a_soft_cap_on_the_logits_is_kept(tmp_path):
    """Negative control for the replaced head: without the cap the scores would be others."""
    capped, free = (
        save_model(tiny_model("gemma2", final_logit_softcapping=cap), tmp_path / str(cap), torch.float32)
        for cap in (3.0, None)
    )
    one, other = (scored(f, quiz())["choice"].logprobs for f in (capped, free))
    assert np.nanmax(np.abs(one - other)) > 1e-3


@pytest.mark.parametrize("attention", ["blocks", "rows"])
def test_worked_examples_stand_before_each_question(folder, attention):
    examples = {"small things": (Question("e1", "What is one?", ("two", "one"), 1, "small things"),) * 2}
    task = quiz("mmlu")
    task = TaskSet(task.name, task.style, task.questions, examples=examples)
    assert "one?\nA. two\nB. one\nAnswer: B\n\nWhat is one?" in choice_prompt(
        task, task.questions[0], examples["small things"]
    )
    found = scored(folder, task, 300, attention=attention, dress=Dress(shots=2))
    assert_same(found, plain(folder, task, shots=2))


def test_methods_asked_together_give_what_they_give_alone(folder):
    task = quiz("medmcqa")  # whose two prompts begin alike and are read as one tree
    together = scored(folder, task)
    for method in METHODS:
        alone = score(opened(folder), Questionnaire(Encoder(byte_tokenizer(), 512)), task, [method], Budget(4096))
        np.testing.assert_allclose(alone[method].logprobs, together[method].logprobs, rtol=0, atol=1e-4)


class Starved:
    """A model whose memory holds `limit` tokens at once."""

    def __init__(self, model, limit):
        self._model, self._limit, self.sizes = model, limit, []

    def __getattr__(self, name):
        return getattr(self._model, name)

    def read(self, batch):
        if batch.size > self._limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes.append(batch.size)
        return self._model.read(batch)


@pytest.mark.parametrize("attention", ["blocks", "rows"])
def test_running_out_of_memory_shrinks_the_batches_and_reads_nothing_twice(folder, attention):
    reference = scored(folder, quiz(), attention=attention)
    model, budget = Starved(opened(folder, attention), 250), Budget(4096)
    heard = []
    questionnaire = Questionnaire(Encoder(byte_tokenizer(), 512))
    found = score(model, questionnaire, quiz(), METHODS, budget, heard.append)
    assert_same(found, {c: reference[c].logprobs for c in METHODS})
    assert budget.tokens <= 250
    assert budget.shrunk > 1
    assert sum(heard) == questionnaire.sheet(quiz(), METHODS).tokens


def test_memory_too_small_for_a_single_question_is_said(folder):
    with pytest.raises(InputError, match="task quiz: the memory of cpu is too small for .* tokens at once"):
        score(Starved(opened(folder), 20), Questionnaire(Encoder(byte_tokenizer(), 512)), quiz(), METHODS, Budget(4096))


def test_scores_do_not_depend_on_the_order_of_questions(folder):
    task = quiz()
    turned = TaskSet("quiz", "plain", task.questions[::-1])
    reference, scores = scored(folder, task), scored(folder, turned)
    assert_same(scores, {c: reference[c].logprobs[::-1] for c in METHODS})


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
    with pytest.raises(ScoringError, match="task quiz: .*single token of its own for the letter 'C'"):
        Encoder(Letters(), 512).choice(task)


def test_letters_that_are_all_unknown_are_refused():
    """A vocabulary of words without letters: each would be the same unknown token, and every question a tie."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "what": 1, "Answer": 2, ":": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    task = TaskSet("quiz", "plain", (Question("q", "what", ("x", "y"), 0),))
    with pytest.raises(ScoringError, match="task quiz: .*no single token of its own for the letter 'A'"):
        Encoder(fast, 512).choice(task)


def test_rotary_embeddings_that_change_with_length_are_read_up_to_where_they_do(tmp_path):
    factors = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    model = tiny_model("phi3", rope_parameters=rope, original_max_position_embeddings=64)
    folder = save_model(model, tmp_path / "model", torch.float32)
    assert longest_context(folder, byte_tokenizer()) == 64
    task = quiz("plain")
    alone = scored(folder, task, max_tokens=1, max_length=64, attention="rows")
    assert_same(scored(folder, task, max_length=64), {c: alone[c].logprobs for c in METHODS})


def test_a_model_that_does_not_read_from_left_to_right_is_refused(tmp_path):
    folder = save_model(tiny_model("xlnet"), tmp_path / "model", torch.float32)
    with pytest.raises(CheckpointError, match="XLNet.*only causal language models"):
        opened(folder)


def test_a_tokenizer_that_gives_nothing_for_a_text_is_refused():
    def silent(text, **_):
        return {"input_ids": [[] for _ in text] if isinstance(text, list) else [0]}

    with pytest.raises(ScoringError, match="does not say what it puts before a text"):
        Encoder(silent, 512)


def test_letters_without_a_space_are_used_where_those_with_one_are_several_tokens():
    encoder = Encoder(byte_tokenizer(words=()), 512)
    assert encoder.choice(quiz()).letters == "A"
    assert Encoder(byte_tokenizer(), 512).choice(quiz()).letters == " A"


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


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def scored_on_gpu(folder, dtype, attention=None):
    model = LanguageModel(Checkpoint.open(folder), torch.device("cuda"), dtype)
    if attention == "rows":
        model.use_rows()
    questionnaire = Questionnaire(Encoder(byte_tokenizer(), 512))
    return model, score(model, questionnaire, quiz("mmlu"), METHODS, Budget.of(model, None))


@needs_gpu
def test_a_gpu_gives_the_scores_of_the_cpu_in_float32(folder):
    model, found = scored_on_gpu(folder, torch.float32)
    assert model.attention == "blocks"
    assert_same(found, {c: s.logprobs for c, s in scored(folder, quiz("mmlu")).items()})


@needs_gpu
def test_a_gpu_reads_packs_in_half_precision_as_it_reads_rows(folder):
    model, found = scored_on_gpu(folder, torch.bfloat16)
    _, rows = scored_on_gpu(folder, torch.bfloat16, "rows")
    assert model.attention == "varlen"
    for method in METHODS:
        difference = found[method].logprobs - rows[method].logprobs
        assert np.nanmean(np.abs(difference)) < 0.1 * np.nanstd(rows[method].logprobs)
