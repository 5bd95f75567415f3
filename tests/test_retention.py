"""What points retain of the alignment: against plain loops over saved checkpoints, and through every interruption."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer, save_model, tiny_llama, write_questions
from scipy.special import rel_entr
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import merge_calib
from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.opening import Parents
from merge_calib.errors import InputError, RunDirectoryError
from merge_calib.merging.point import MergePoint
from merge_calib.plan import SweepPlan
from merge_calib.retention import Retained, measuring, retained
from merge_calib.run_directory import RunDirectory
from merge_calib.scoring import distributions, head, responses
from merge_calib.scoring.budget import Budget
from merge_calib.scoring.distributions import compare, kl_divergence, log_probabilities, top_ids
from merge_calib.scoring.instructions import SHIPPED, encode_prompts, end_tokens, read_prompts
from merge_calib.scoring.model import LanguageModel
from merge_calib.scoring.responses import MOST_BYTES, MOST_NEW, Response, affordable, cost, respond
from merge_calib.sweep import sweep

PAIR = Path(merge_calib.__file__).parent / "demo_pair"
CPU = torch.device("cpu")
BASE, HALF, ALIGNED = (MergePoint("linear", lam) for lam in (0.0, 0.5, 1.0))
PROMPTS = ("Say it.", "What is red?", "Why?", "Tell me about the old mill and the harbour.", "é ü", "One two three")
ENDS = frozenset({1})


def opened(folder, dtype=torch.float32, attention=None) -> LanguageModel:
    model = LanguageModel(Checkpoint.open(folder), CPU, dtype)
    if attention == "rows":
        model.use_rows()
    return model


def encoded(prompts=PROMPTS) -> list[np.ndarray]:
    return encode_prompts(byte_tokenizer(), prompts, 512)[0]


def rows_of(answers):
    return [response.row(i) for i, response in enumerate(answers)]


def plain_log_probabilities(model, response) -> np.ndarray:
    """Log-probabilities (P, V) where each token of the response was written: one row, one pass, float64."""
    fed = np.concatenate([response.prompt, response.written])[:-1]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(fed[None]), use_cache=False).logits[0].double()
    return torch.log_softmax(logits, -1).numpy()[len(response.prompt) - 1 :]


def plain_answer(model, prompt, most_new) -> list[int]:
    """Greedy, one row, one token a pass."""
    ids = prompt.tolist()
    while len(ids) - len(prompt) < most_new and ids[-1] not in ENDS:
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


# The distance


def test_the_divergence_of_a_worked_example():
    """KL of (1/2, 1/2) from (9/10, 1/10) is 1/2 log(5/9) + 1/2 log 5; the other way round it is another number."""
    p, q = (torch.tensor([values]).log() for values in ([0.5, 0.5], [0.9, 0.1]))
    expected = 0.5 * math.log(5 / 9) + 0.5 * math.log(5)
    assert kl_divergence(p, q).item() == pytest.approx(expected, abs=1e-6)
    assert kl_divergence(q, p).item() == pytest.approx(0.9 * math.log(9 / 5) + 0.1 * math.log(1 / 5), abs=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 3.0])
def test_the_divergence_equals_that_of_scipy_in_float64(scale):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20, 5000))
    p, q = (torch.log_softmax(torch.tensor(z), -1) for z in (logits, logits + rng.normal(0, scale, logits.shape)))
    expected = rel_entr(p.exp().numpy(), q.exp().numpy()).sum(1)
    np.testing.assert_allclose(
        kl_divergence(p.float(), q.float()).numpy(), expected, rtol=2e-3 if scale < 0.01 else 1e-4
    )


def test_the_divergence_is_zero_for_the_same_bits_and_never_below():
    p = torch.log_softmax(torch.randn(50, 3000, generator=torch.Generator().manual_seed(0)), -1)
    assert kl_divergence(p, p).eq(0).all()
    assert kl_divergence(p, p.nextafter(torch.zeros(()))).ge(0).all()


def test_tokens_that_a_model_rules_out_count_as_they_must():
    """What p rules out costs nothing; what q alone rules out is infinitely far."""
    ruled_out = torch.tensor([[0.5, 0.5, 0.0]]).log()
    free = torch.tensor([[0.25, 0.25, 0.5]]).log()
    assert kl_divergence(ruled_out, free).item() == pytest.approx(math.log(2), abs=1e-6)
    assert kl_divergence(ruled_out, ruled_out).item() == 0
    assert kl_divergence(free, ruled_out).item() == math.inf


# What is recorded of a point


def test_a_worked_example_of_what_is_retained():
    """Two responses of 2 and 6 tokens: 1 + 3 nats over 8 tokens, 2 + 4 of them agree."""
    found = Retained.of([1.0, 3.0], [2, 4], [2, 6])
    assert (found.kl, found.agreement, found.tokens, found.prompts) == (0.5, 0.75, 8, 2)
    assert (found.kl_low, found.kl_high) == (0.5, 0.5)  # both have half a nat a token, so every draw has
    assert (found.agreement_low, found.agreement_high) == (4 / 6, 1.0)


def test_the_interval_equals_a_slow_loop_over_the_same_draws():
    rng = np.random.default_rng(1)
    kl, tokens = rng.gamma(1, 2, 9), rng.integers(1, 30, 9)
    found = Retained.of(kl, np.minimum(tokens, 5), tokens)
    means = []
    for draw in np.random.default_rng(0).integers(9, size=(2000, 9)):
        means.append(sum(kl[i] for i in draw) / sum(tokens[i] for i in draw))
    assert [found.kl_low, found.kl_high] == pytest.approx(np.quantile(means, [0.025, 0.975]), rel=1e-12)


def test_the_interval_covers_the_truth_where_tokens_of_a_prompt_are_alike():
    """As the tokens of a prompt belong together, an interval that drew single tokens would be far too narrow."""
    rng = np.random.default_rng(2)
    hits, narrow = 0, 0
    for _ in range(200):
        of_prompt, tokens = rng.gamma(4, 0.25, 24), np.full(24, 16)
        found = Retained.of(of_prompt * tokens, tokens, tokens)
        hits += found.kl_low <= 1.0 <= found.kl_high
        narrow += abs(found.kl - 1.0) <= 1.96 * of_prompt.std() / math.sqrt(24 * 16)
    assert 0.88 <= hits / 200 <= 0.98
    assert narrow / 200 < 0.6


def test_a_single_prompt_has_no_interval_and_the_order_of_prompts_does_not_matter():
    assert Retained.of([1.0], [3], [4]).kl_low is None
    one, other = Retained.of([1, 2, 3], [1, 1, 2], [2, 4, 6]), Retained.of([3, 2, 1], [2, 1, 1], [6, 4, 2])
    assert (one.kl, one.agreement) == (other.kl, other.agreement)


# Responses


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tiny_llama(3), tmp_path_factory.mktemp("model"), torch.float32)


@pytest.fixture(scope="module", params=["llama", "gemma2", "mistral", "granite", "gpt_neox", "mamba"])
def architecture(request, tmp_path_factory):
    """Soft caps, windows, scaled logits, another layout, no attention at all."""
    return save_model(tiny_model(request.param), tmp_path_factory.mktemp(request.param), torch.float32)


@pytest.mark.parametrize("attention", [None, "rows"])
def test_responses_and_distributions_equal_a_plain_loop(architecture, attention):
    reference = AutoModelForCausalLM.from_pretrained(architecture, dtype=torch.float32).eval()
    model = opened(architecture, attention=attention)
    answers = respond(model, encoded(), 6, ENDS, Budget(2048))
    assert [answer.written.tolist() for answer in answers] == [plain_answer(reference, ids, 6) for ids in encoded()]
    expected = np.concatenate([plain_log_probabilities(reference, answer) for answer in answers])
    for at_once in (1, 60, 2048):
        found = log_probabilities(model, rows_of(answers), Budget(at_once))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_distributions_are_read_whatever_the_pieces_of_positions(folder, monkeypatch):
    model = opened(folder)
    rows = rows_of(respond(model, encoded(), 6, ENDS, Budget(2048)))
    whole = log_probabilities(model, rows, Budget(2048))
    monkeypatch.setattr(head, "WHOLE", 3 * 263)
    monkeypatch.setattr(head, "CHUNK_ON_CPU", 100)
    np.testing.assert_allclose(log_probabilities(model, rows, Budget(2048)), whole, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(top_ids(model, rows, Budget(2048)), whole.argmax(1))


def test_a_response_ends_with_its_end_token(folder):
    model = opened(folder)
    free = respond(model, encoded(), 8, frozenset(), Budget(2048))
    end = int(free[0].written[2])
    for answer, unended in zip(respond(model, encoded(), 8, frozenset({end}), Budget(2048)), free, strict=True):
        written = unended.written.tolist()
        assert answer.written.tolist() == written[: written.index(end) + 1 if end in written else None]
    assert {len(answer.written) for answer in free} == {8}


def test_a_response_that_is_read_otherwise_at_once_ends_where_it_differs(folder, monkeypatch):
    """Where single steps decide a tie otherwise, what is compared is what is read at once."""
    model, honest = opened(folder), responses.top_ids
    calls = []

    def rounding(model, rows, budget):
        calls.append(len(rows))
        found = honest(model, rows, budget)
        if len(calls) == 3:  # the third token of the second response, as if it had been tied
            found[1] = (found[1] + 1) % 263
        return found

    monkeypatch.setattr(responses, "top_ids", rounding)
    settled = respond(model, encoded(), 6, frozenset(), Budget(2048))
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert len(settled[1].written) == 3
    for answer, ids in zip(settled, encoded(), strict=True):
        assert answer.written.tolist() == plain_answer(reference, ids, 6)[: len(answer.written)]
    _, agrees = compare(model, rows_of(settled), log_probabilities(model, rows_of(settled), Budget(2048)), Budget(2048))
    assert agrees.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_at_no_distance_from_itself_and_another_one_is(pair_folders, dtype):
    model, other = (opened(folder, dtype) for folder in reversed(pair_folders))
    rows = rows_of(respond(model, encoded(), 8, ENDS, Budget(2048)))
    reference = log_probabilities(model, rows, Budget(2048))
    distances, agrees = compare(model, rows, reference, Budget(2048))
    assert (distances == 0).all()
    assert agrees.all()
    distances, agrees = compare(other, rows, reference, Budget(2048))
    assert distances.mean() > 0.1
    assert agrees.mean() < 0.9


def test_memory_that_runs_out_is_no_end(folder, monkeypatch):
    model = opened(folder)
    rows = rows_of(respond(model, encoded(), 6, ENDS, Budget(2048)))
    whole = log_probabilities(model, rows, Budget(2048))
    original, budget = model.read_whole, Budget(2048)

    def small(batch, hear):
        if batch.size > 60:
            raise torch.OutOfMemoryError("too much")
        original(batch, hear)

    monkeypatch.setattr(model, "read_whole", small)
    np.testing.assert_allclose(log_probabilities(model, rows, budget), whole, rtol=0, atol=1e-4)
    assert budget.shrunk > 0
    monkeypatch.setattr(model, "read_whole", lambda batch, hear: small(type("Large", (), {"size": 99})(), hear))
    with pytest.raises(InputError, match="too small to compare .* give --no-retained"):
        log_probabilities(model, rows, Budget(2048))


# How many prompts and tokens


def test_the_cost_of_a_worked_example():
    """Prompts of 3 and 5 tokens, 2 new ones, 4 points: 4 + 6 at a point; 3 + 4 and 5 + 6 to write, then 10 twice."""
    assert cost([3, 5], 2, 4) == 10 + (18 + 20) / 4


def test_the_cost_is_what_the_model_is_given(folder, monkeypatch):
    """All tokens of all rows that are read for responses that do not end early, shared beginnings counted each time."""
    model, given = opened(folder), []
    original = model.plan

    def counting(rows, groups, max_tokens):
        given.append(sum(len(row.tokens) for row in rows))
        return original(rows, groups, max_tokens)

    monkeypatch.setattr(type(model), "plan", property(lambda _model: counting))
    answers = respond(model, encoded(), 5, frozenset(), Budget(2048))
    reference = log_probabilities(model, rows_of(answers), Budget(2048))
    for _ in range(3):
        compare(model, rows_of(answers), reference, Budget(2048))
    assert sum(given) / 3 == pytest.approx(cost([len(ids) for ids in encoded()], 5, 3))


def test_what_is_affordable_is_afforded_and_nothing_more():
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths = rng.integers(1, 80, int(rng.integers(1, 30))).tolist()
        limit, points = float(rng.integers(1, 20_000)), int(rng.integers(2, 40))
        count, new = affordable(lengths, 1000, limit, points)
        assert 1 <= count <= len(lengths)
        fits = cost(lengths[:count], new, points) <= limit
        assert fits or (count, new) == (1, 1)
        if fits and new < MOST_NEW:  # a longer response was not possible for all, or not even for one prompt
            more = lengths if new >= 8 else lengths[:1]
            assert cost(more, 2 * new, points) > limit
        if fits and count < len(lengths):
            assert new <= 8
            assert cost(lengths[: count + 1], new, points) > limit


def test_plenty_of_questions_afford_everything_and_none_afford_one_token():
    assert affordable([20] * 24, 150_000, 1e9, 16) == (24, MOST_NEW)
    assert affordable([20] * 24, 150_000, 0.0, 16) == (1, 1)


def test_what_is_kept_of_large_vocabularies_is_bounded():
    count, new = affordable([20] * 24, 262_144, 1e9, 16)
    assert (count, new) == (24, 16)
    assert count * new * 262_144 * 4 <= MOST_BYTES
    count, new = affordable([20] * 10_000, 152_064, 1e9, 16)
    assert count * new * 152_064 * 4 <= MOST_BYTES < (count + 1) * new * 152_064 * 4


# Prompts


def test_prompts_are_read_from_both_kinds_of_files(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "One?\\nTwo."}\n{"prompt": "Three", "id": 3}\n', encoding="utf-8")
    (tmp_path / "a.txt").write_text("One?\n Three é \n", encoding="utf-8")
    assert read_prompts(tmp_path / "a.jsonl").texts == ("One?\nTwo.", "Three")
    assert read_prompts(tmp_path / "a.txt").texts == ("One?", "Three é")
    assert read_prompts(tmp_path / "a.txt").is_given


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", "", r"p.jsonl:1: the file is empty"),
        ("p.txt", "", r"p.txt:1: the file is empty"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": \n', r"p.jsonl:2: not valid JSON"),
        ("p.jsonl", '{"prompt": "a"}\n\n', r"p.jsonl:2: the line is empty"),
        ("p.jsonl", '["a"]\n', r"p.jsonl:1: the line must be a JSON object"),
        ("p.jsonl", '{"text": "a"}\n', r"p.jsonl:1: key 'prompt' is missing; here are: 'text'"),
        ("p.jsonl", '{"prompt": 3}\n', r"p.jsonl:1: 'prompt' must be a text, not 3"),
        ("p.jsonl", '{"prompt": "  "}\n', r"p.jsonl:1: the prompt is empty"),
        ("p.txt", "a\n\nb\n", r"p.txt:2: the prompt is empty"),
        ("p.txt", "a\nb\na\n", r"p.txt:3: the prompt stands already at .*p.txt:1"),
        ("p.txt", b"a\n\xff\n", r"p.txt:2: not UTF-8 text"),
        ("p.csv", "a\n", r"p.csv: a file of .* ends in .jsonl, one of plain lines in .txt"),
    ],
)
def test_what_is_wrong_with_a_prompt_file_is_said_with_its_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"--prompts.*{message}"):
        read_prompts(path)


def test_a_prompt_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"--prompts.*none.txt: cannot be read: No such file"):
        read_prompts(tmp_path / "none.txt")


def test_the_shipped_prompts_are_two_dozen_short_ones():
    prompts = read_prompts(None)
    assert not prompts.is_given
    assert len(prompts.texts) == 24
    assert max(map(len, prompts.texts)) < 120


def test_the_prompts_of_the_demo_are_in_the_words_of_its_world():
    """Bytes would show words that the demo's models never saw."""
    tokenizer = AutoTokenizer.from_pretrained(PAIR / "aligned")
    prompts = read_prompts(PAIR / "prompts.jsonl").texts
    ids, is_chat = encode_prompts(tokenizer, prompts, 512)
    assert is_chat
    assert len(prompts) == 24
    assert not [token for each in ids for token in tokenizer.convert_ids_to_tokens(each) if token.startswith("<0x")]


def test_both_prompt_files_are_packaged():
    text = (Path(merge_calib.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"prompts.jsonl"' in text
    assert '"demo_pair/**/*"' in text
    assert SHIPPED.is_file()


def test_prompts_go_through_a_chat_template_where_there_is_one_that_takes_them():
    tokenizer = byte_tokenizer()
    plain = tokenizer("Why?")["input_ids"]
    assert [ids.tolist() for ids in encode_prompts(tokenizer, ["Why?"], 512)[0]] == [plain]
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    ids, is_chat = encode_prompts(tokenizer, ["Why?"], 512)
    assert is_chat
    assert ids[0].tolist() == tokenizer("[user]Why?[assistant]", add_special_tokens=False)["input_ids"]
    tokenizer.chat_template = "{{ raise_exception('only with a system message') }}"
    ids, is_chat = encode_prompts(tokenizer, ["Why?"], 512)
    assert not is_chat
    assert ids[0].tolist() == plain


def test_a_response_ends_where_any_of_the_models_files_says_so(tmp_path):
    assert end_tokens(byte_tokenizer(), tmp_path, {}) == {1}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 8]}')
    assert end_tokens(byte_tokenizer(), tmp_path, {"eos_token_id": 5}) == {1, 5, 7, 8}


# Sweeps


@pytest.fixture(scope="module")
def quiz(tmp_path_factory):
    """Enough questions to afford several prompts."""
    return write_questions(tmp_path_factory.mktemp("quiz") / "quiz.jsonl", 200)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"{prompt}\n" for prompt in PROMPTS), encoding="utf-8")
    return path


def plan(folders, questions, out, lambdas=(0.0, 0.5, 1.0), **options) -> SweepPlan:
    parents = Parents(base=str(folders[0]), aligned=(str(folders[1]),), **options.pop("parents", {}))
    return SweepPlan(parents=parents, out=out, tasks=(str(questions),), lambdas=lambdas, **options)


@pytest.fixture(scope="module")
def swept(pair_folders, quiz, tmp_path_factory):
    """A run that every test may read and none may change."""
    root = tmp_path_factory.mktemp("swept")
    path = root / "prompts.txt"
    path.write_text("".join(f"{prompt}\n" for prompt in PROMPTS), encoding="utf-8")
    sweep(plan(pair_folders, quiz, root / "out", (0.0, 0.25, 0.5, 0.75, 1.0, 1.5), prompts=path))
    return root / "out"


@pytest.fixture
def run_copy(swept, tmp_path):
    """The same run, to be damaged."""
    return shutil.copytree(swept, tmp_path / "out")


@pytest.fixture
def watched(monkeypatch):
    """Lists what is put to the model: `respond`, `reference`, and `compare` for each point."""
    done = []
    for name in ("respond", "log_probabilities", "compare"):
        monkeypatch.setattr(measuring, name, noting(done, name, getattr(measuring, name)))
    return done


def noting(done: list, name: str, original):
    """`original`, with its calls noted."""

    def called(*arguments):
        done.append(name)
        return original(*arguments)

    return called


def content(out) -> dict:
    return json.loads((out / "retained" / "responses.json").read_text(encoding="utf-8"))


def everything(out) -> dict[float, Retained]:
    run = RunDirectory.open(out)
    return {point.lam: retained(run, point) for point in run.points()}


def test_what_a_sweep_measures_equals_a_plain_loop_over_merged_checkpoints(swept, pair_folders):
    parents = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in pair_folders]
    answers = [Response(np.array(a["prompt_ids"]), np.array(a["ids"])) for a in content(swept)["responses"]]
    found = everything(swept)
    assert found[0.5].prompts == len(answers) > 1
    for lam in (0.0, 0.5, 1.5):
        point = AutoModelForCausalLM.from_pretrained(pair_folders[1], dtype=torch.float32).eval()
        for name, tensor in point.state_dict().items():
            one, other = (parent.state_dict()[name] for parent in parents)
            tensor.copy_(((1 - lam) * one + lam * other).to(torch.bfloat16))
        distances, agrees = [], []
        for answer in answers:
            p, q = (plain_log_probabilities(model, answer) for model in (parents[1], point))
            distances += rel_entr(np.exp(p), np.exp(q)).sum(1).tolist()
            agrees += (q.argmax(1) == answer.written).tolist()
        assert found[lam].tokens == len(distances)
        assert found[lam].kl == pytest.approx(np.mean(distances), rel=1e-4)
        assert found[lam].agreement == np.mean(agrees)


def test_the_aligned_model_retains_all_and_others_less_the_farther_they_are(swept):
    found = everything(swept)
    assert (found[1.0].kl, found[1.0].agreement) == (0.0, 1.0)
    assert found[0.0].kl > found[0.5].kl > found[0.75].kl > 0
    assert found[1.5].kl > 0
    assert all(
        r.kl_low <= r.kl <= r.kl_high and r.agreement_low <= r.agreement <= r.agreement_high for r in found.values()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_aligned_model_retains_all_in_half_precision(pair_folders, quiz, prompts, tmp_path, dtype):
    sweep(plan(pair_folders, quiz, tmp_path / "out", (0.0, 1.0), prompts=prompts, dtype=dtype))
    found = everything(tmp_path / "out")
    assert (found[1.0].kl, found[1.0].agreement) == (0.0, 1.0)
    assert found[0.0].kl > 0.1


def test_the_responses_are_kept_as_a_person_reads_them(swept, pair_folders):
    kept = content(swept)
    tokenizer = AutoTokenizer.from_pretrained(pair_folders[1])
    for answer, prompt in zip(kept["responses"], PROMPTS, strict=False):
        assert answer["prompt"] == prompt
        assert answer["prompt_ids"] == tokenizer(prompt)["input_ids"]
        assert answer["text"] == tokenizer.decode(answer["ids"])
    assert kept["chat_template"] is False
    assert kept["tokens_of_a_point"] <= 0.04 * kept["tokens_of_its_questions"]
    assert kept["prompts"]["in_file"] == len(PROMPTS)


def test_a_finished_run_measures_nothing_and_loads_no_model(pair_folders, quiz, run_copy, watched, monkeypatch):
    monkeypatch.setattr(LanguageModel, "__init__", lambda *_, **__: pytest.fail("a model was loaded"))
    sweep(plan(pair_folders, quiz, run_copy))
    assert watched == []


def test_points_that_are_added_are_measured_on_the_responses_that_are_there(pair_folders, quiz, run_copy, watched):
    before = everything(run_copy)
    sweep(plan(pair_folders, quiz, run_copy, (0.0, 0.1, 1.0)))
    assert watched == ["compare"]
    after = everything(run_copy)
    assert before.items() <= after.items()
    assert after[0.1].kl > after[0.25].kl


def test_a_run_that_was_made_without_is_measured_everywhere_when_it_goes_on(
    pair_folders, quiz, tmp_path, watched, swept
):
    out = tmp_path / "out"
    sweep(plan(pair_folders, quiz, out, (0.0, 0.25, 0.5, 0.75, 1.0, 1.5), retained=False))
    assert not (out / "retained").exists()
    assert set(everything(out).values()) == {None}
    assert watched == []
    sweep(plan(pair_folders, quiz, out, (0.0, 1.0), prompts=swept.parent / "prompts.txt"))
    assert watched == ["respond", "log_probabilities", *["compare"] * 6]
    assert everything(out).keys() == everything(swept).keys()
    assert None not in everything(out).values()


class StoppedError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("stop", ["respond", "log_probabilities", "write_responses", "write_log_probabilities"])
def test_a_run_that_is_cut_off_while_the_aligned_model_answers_goes_on(
    pair_folders, quiz, swept, tmp_path, monkeypatch, stop
):
    out, arguments = (
        tmp_path / "out",
        {"lambdas": (0.0, 0.25, 0.5, 0.75, 1.0, 1.5), "prompts": swept.parent / "prompts.txt"},
    )

    def stopping(*_):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(measuring, stop, stopping)
        with pytest.raises(StoppedError):
            sweep(plan(pair_folders, quiz, out, **arguments))
    sweep(plan(pair_folders, quiz, out, **arguments))
    assert everything(out) == everything(swept)
    assert (out / "retained" / "aligned.npy").read_bytes() == (swept / "retained" / "aligned.npy").read_bytes()


def test_only_what_lacks_is_measured_after_an_interruption(pair_folders, quiz, run_copy, swept, watched):
    (run_copy / "retained" / "points" / "linear-lambda-0.5000.json").unlink()
    sweep(plan(pair_folders, quiz, run_copy))
    assert watched == ["compare"]
    assert everything(run_copy) == everything(swept)


@pytest.mark.parametrize("left", [None, b"", b"\x93NUMPY\x01\x00"])
def test_log_probabilities_that_are_gone_need_no_second_generation(pair_folders, quiz, run_copy, swept, watched, left):
    (run_copy / "retained" / "points" / "linear-lambda-0.5000.json").unlink()
    kept = run_copy / "retained" / "aligned.npy"
    kept.unlink() if left is None else kept.write_bytes(left)
    sweep(plan(pair_folders, quiz, run_copy))
    assert watched == ["log_probabilities", "compare"]
    assert everything(run_copy) == everything(swept)


def test_other_prompts_are_refused_and_unnamed_ones_are_those_of_the_run(
    pair_folders, quiz, run_copy, tmp_path, watched
):
    before = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    other = tmp_path / "other.txt"
    other.write_text("Something else\n", encoding="utf-8")
    with pytest.raises(
        RunDirectoryError, match=r"--prompts .*other.txt: .* holds the retained alignment on other prompts"
    ):
        sweep(plan(pair_folders, quiz, run_copy, (0.0, 0.1, 1.0), prompts=other))
    assert {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()} == before
    same = tmp_path / "same.jsonl"  # the same prompts in another form
    same.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS), encoding="utf-8")
    sweep(plan(pair_folders, quiz, run_copy, prompts=same))
    sweep(plan(pair_folders, quiz, run_copy))
    assert watched == []


def test_other_prompts_are_measured_after_the_old_ones_are_deleted(pair_folders, quiz, run_copy, tmp_path):
    before = everything(run_copy)
    shutil.rmtree(run_copy / "retained")
    other = tmp_path / "other.txt"
    other.write_text("Something else\nAnd more of it\n", encoding="utf-8")
    sweep(plan(pair_folders, quiz, run_copy, prompts=other))
    after = everything(run_copy)
    assert after.keys() == before.keys()
    assert after[0.5] not in (None, before[0.5])


def test_what_was_measured_on_responses_that_are_gone_does_not_count(run_copy, pair_folders, quiz, watched):
    responses_file = run_copy / "retained" / "responses.json"
    responses_file.unlink()
    assert set(everything(run_copy).values()) == {None}
    sweep(plan(pair_folders, quiz, run_copy))  # other prompts, the shipped ones: all points are measured on them
    assert watched == ["respond", "log_probabilities", *["compare"] * 6]


@pytest.mark.parametrize(
    ("place", "damage", "message"),
    [
        ("responses.json", lambda kept: "[]", "responses.json is damaged"),
        (
            "responses.json",
            lambda kept: json.dumps(kept | {"responses": [{}]}),
            "responses.json is damaged .'prompt_ids'",
        ),
        ("responses.json", lambda kept: json.dumps(kept | {"responses": kept["responses"][1:]}), "its hash is another"),
        ("points/linear-lambda-0.5000.json", lambda kept: "[]", "0.5000.json is damaged .it holds no JSON object"),
    ],
)
def test_damage_is_named_by_its_file(pair_folders, quiz, run_copy, place, damage, message):
    path = run_copy / "retained" / place
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(RunDirectoryError, match=message):
        sweep(plan(pair_folders, quiz, run_copy, (0.0, 0.1, 0.5, 1.0)))


@pytest.mark.parametrize("sums", [None, {}, {"kl": "many"}, {"kl": [1.0], "agreed": [1], "tokens": []}])
def test_a_record_that_does_not_hold_its_sums_is_named(run_copy, sums):
    path = run_copy / "retained" / "points" / "linear-lambda-0.5000.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of_each_prompt": sums}))
    with pytest.raises(RunDirectoryError, match=r"0.5000.json is damaged \(.*delete linear-lambda-0.5000.json"):
        retained(RunDirectory.open(run_copy), HALF)


def test_a_point_whose_distance_is_not_finite_says_so_once(pair_folders, quiz, run_copy, monkeypatch, watched):
    (run_copy / "retained" / "points" / "linear-lambda-0.5000.json").unlink()
    original = distributions.kl_divergence
    monkeypatch.setattr(distributions, "kl_divergence", lambda p, q: original(p, q) * math.inf)
    sweep(plan(pair_folders, quiz, run_copy))
    assert retained(RunDirectory.open(run_copy), HALF) is None
    assert "not finite" in (run_copy / "retained/points/linear-lambda-0.5000.json").read_text()
    sweep(plan(pair_folders, quiz, run_copy))
    assert watched == ["compare"]


def test_an_aligned_model_that_says_nothing_finite_leaves_no_responses(pair_folders, quiz, run_copy, monkeypatch):
    shutil.rmtree(run_copy / "retained")
    original = measuring.log_probabilities
    monkeypatch.setattr(measuring, "log_probabilities", lambda *given: original(*given) * np.nan)
    sweep(plan(pair_folders, quiz, run_copy))
    assert not (run_copy / "retained").exists()


def test_few_questions_afford_one_prompt(pair_folders, tmp_path):
    questions = write_questions(tmp_path / "few.jsonl", 4)
    sweep(plan(pair_folders, questions, tmp_path / "out"))
    kept = content(tmp_path / "out")
    assert kept["prompts"]["source"] == "shipped with merge-calib"
    assert len(kept["responses"]) == kept["most_new_tokens"] == 1
    assert everything(tmp_path / "out")[0.5].kl_low is None


def test_prompts_that_the_model_does_not_take_are_left_out(pair_folders, quiz, tmp_path):
    """The model takes 512 tokens; a byte is a token."""
    path = tmp_path / "long.txt"
    path.write_text(f"{'a' * 600}\nWhy?\n", encoding="utf-8")
    sweep(plan(pair_folders, quiz, tmp_path / "out", (0.0, 1.0), prompts=path))
    kept = content(tmp_path / "out")
    assert (kept["do_not_fit"], [answer["prompt"] for answer in kept["responses"]]) == (1, ["Why?"])
    path.write_text(f"{'a' * 600}\n", encoding="utf-8")
    sweep(plan(pair_folders, quiz, tmp_path / "none", (0.0, 1.0), prompts=path))
    assert set(everything(tmp_path / "none").values()) == {None}
    assert content(tmp_path / "none")["responses"] == []


@pytest.mark.parametrize("vocab", ["aligned", "base"])
def test_parents_with_different_vocabularies(quiz, prompts, tmp_path, vocab):
    """The aligned model has four tokens more; the merge, and all that is compared, has the vocabulary of its host."""
    folders = [save_model(tiny_llama(s, n), tmp_path / str(s), torch.bfloat16) for s, n in ((1, 263), (2, 267))]
    sweep(plan(folders, quiz, tmp_path / "out", prompts=prompts, parents={"vocab": vocab}))
    found = everything(tmp_path / "out")
    assert (found[1.0].kl, found[1.0].agreement) == (0.0, 1.0)
    assert found[0.0].kl > 0
    assert np.load(tmp_path / "out" / "retained" / "aligned.npy").shape[1] == {"aligned": 267, "base": 263}[vocab]


def test_the_chat_template_of_the_aligned_model_is_used(pair_folders, quiz, prompts, tmp_path):
    aligned = shutil.copytree(pair_folders[1], tmp_path / "aligned")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    tokenizer.save_pretrained(aligned)
    sweep(plan((pair_folders[0], aligned), quiz, tmp_path / "out", (0.0, 1.0), prompts=prompts))
    kept = content(tmp_path / "out")
    assert kept["chat_template"] is True
    assert tokenizer.decode(kept["responses"][0]["prompt_ids"]) == f"[user]{PROMPTS[0]}[assistant]"


# The command


@pytest.fixture
def planned(call, monkeypatch):
    """The plan that a command makes of its flags, which is not carried out; None where it is refused."""

    def planning(command, *flags):
        plans = []
        monkeypatch.setattr(f"merge_calib.cli.{command}.execute", plans.append)
        code, _, said = call(command, *flags)
        assert (code == 0) == bool(plans), said
        return plans[0] if plans else said

    return planning


def test_flags_and_recipes_say_what_is_retained(planned, tmp_path):
    sweep_of = ["sweep", "--base", "x", "--aligned", "y"]
    (tmp_path / "recipe.toml").write_text("retained = false\n")
    assert (planned(*sweep_of).retained, planned(*sweep_of).prompts) == (True, None)
    assert planned(*sweep_of, "--prompts", "p.txt").prompts == Path("p.txt")
    assert not planned(*sweep_of, "--no-retained").retained
    assert not planned(*sweep_of, "--recipe", tmp_path / "recipe.toml").retained
    assert "with --no-retained it is not" in planned(*sweep_of, "--no-retained", "--prompts", "p.txt")


def test_the_demo_has_prompts_of_its_own(planned):
    assert planned("demo").prompts == PAIR / "prompts.jsonl"
    assert planned("demo", "--prompts", "p.txt").prompts == Path("p.txt")
    assert planned("demo", "--no-retained").prompts is None


def test_a_bad_prompt_file_is_refused_before_anything_is_written(call, pair_folders, quiz, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("Why?\n\n")
    command = ["sweep", "--base", pair_folders[0], "--aligned", pair_folders[1], "--tasks", quiz]
    code, printed, said = call(*command, "--prompts", path, "--out", tmp_path / "out")
    assert (code, printed) == (1, "")
    assert f"{path}:2: the prompt is empty" in said
    assert not (tmp_path / "out").exists()


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_measures_what_the_cpu_does_and_the_aligned_model_retains_all(
    pair_folders, quiz, prompts, tmp_path, dtype, swept
):
    sweep(plan(pair_folders, quiz, tmp_path / "out", prompts=prompts, dtype=dtype, device=torch.device("cuda")))
    found = everything(tmp_path / "out")
    assert (found[1.0].kl, found[1.0].agreement) == (0.0, 1.0)
    rel = 1e-3 if dtype == torch.float32 else 0.1
    assert found[0.5].kl == pytest.approx(everything(swept)[0.5].kl, rel=rel)
