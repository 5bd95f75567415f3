"""The counts and the arithmetic of the benchmark, on made-up rows; its timings are for the tool."""

import importlib

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer


@pytest.fixture(scope="module")
def bench():
    return importlib.import_module("bench_scoring")


def counted_by_prefixes(rows):
    """The slow twin: prefixes as tuples in sets."""
    prefixes = {tuple(ids[: end + 1]) for ids, _ in rows for end in range(len(ids))}
    read = {tuple(ids[: end + 1]) for ids, first in rows for end in range(first, len(ids))}
    return len(prefixes), len(read), sum(len(ids) for ids in {tuple(ids) for ids, _ in rows})


def test_counts_of_two_choices_by_hand(bench):
    """Context 1 2 3 is shared, and so is the choices' first token 4; both read after 3 and after 4, one after 5."""
    rows = [([1, 2, 3, 4, 5], 2), ([1, 2, 3, 4], 2)]
    assert bench.count_question(rows) == bench.Work(unique=5, scored=3, fed=9)


def test_letters_of_a_question_are_one_row(bench):
    rows = [([1, 2, 3], 2)] * 4
    assert bench.count_question(rows) == bench.Work(unique=3, scored=1, fed=3)


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_a_set_of_prefixes(bench, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(rng.integers(1, 8)):
        ids = rng.integers(0, 2, rng.integers(1, 9)).tolist()
        rows.append((ids, int(rng.integers(0, len(ids)))))
    work = bench.count_question(rows)
    assert (work.unique, work.scored, work.fed) == counted_by_prefixes(rows)
    assert bench.count_question(rows[::-1]) == work
    assert bench.count_question(rows * 2) == work


def test_rows_are_the_texts_without_their_last_token(bench):
    tokenizer = byte_tokenizer()
    texts = [[("ab", " A"), ("ab", " cd")], [("x", " B"), ("x", " C")]]
    rows = bench.rows_of(tokenizer, texts, 512)
    bos, a, b = tokenizer("ab")["input_ids"]
    blank, c, _ = tokenizer(" cd", add_special_tokens=False)["input_ids"]
    assert rows[0] == [([bos, a, b], 2), ([bos, a, b, blank, c], 2)]
    assert [len(ids) for ids, _ in rows[1]] == [2, 2]
    assert bench.count(tokenizer, texts, 512) == bench.Work(unique=5 + 2, scored=3 + 1, fed=3 + 5 + 2)


def test_long_rows_lose_tokens_from_the_left(bench):
    tokenizer = byte_tokenizer()
    whole, cut = (bench.rows_of(tokenizer, [[("abcd", " efg")]], longest)[0][0] for longest in (512, 4))
    assert cut[0] == whole[0][-4:]
    assert cut[0][cut[1]] == whole[0][whole[1]]


def test_operations_of_a_llama_are_two_a_parameter_a_token(bench):
    """Against the parameters of the module itself: every matrix but the embedding."""
    settings = bench.SIZES["tiny"].settings
    with torch.device("meta"):
        model = bench.LlamaForCausalLM(bench.LlamaConfig(**settings | {"tie_word_embeddings": False}))
    matrices = {name: p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name}
    head = matrices.pop("lm_head.weight")
    flops = bench.Shapes.of(settings).flops(bench.Work(unique=10, scored=3, fed=99))
    assert flops == (2 * 10 * sum(matrices.values()), 2 * 3 * head)


def test_bound_adds_the_times_of_body_and_head(bench):
    assert bench.Rate(body=100.0, head=50.0).seconds((300.0, 100.0)) == 5.0


def test_goals_are_ratios_and_shares_of_sums(bench):
    """ARC-Easy 40 s against 10 s; the products of both tasks would take 4.35 + 10.15 of the 9 + 20 seconds."""
    rate, slower = bench.Rate(body=2.0, head=1.0), bench.Rate(body=1.0, head=1.0)
    rows = [made_up(bench, "arc_easy", (9.0, 11.0), (40.0, 40.0), 8.7, slower)]
    rows += [made_up(bench, "piqa", (20.0, 20.0), (30.0, 30.0), 20.3, rate)]
    found = {goal.what: goal for goal in bench.goals("100m", rows, torch.device("cpu"), None)}
    assert [goal.found for goal in found.values()] == ["4.00", "1.50", "50.0%"]
    assert [goal.is_reached for goal in found.values()] == [True, False, False]
    text = bench.report(rows, list(found.values()), None, ["here"])
    assert "| share of the bound, overall | at least 70% | 50.0% | **missed** |" in text


def made_up(bench, task, ours, theirs, operations, rate):
    return bench.Measured(
        task=task,
        method=bench.TEXTS,
        questions=1,
        work=bench.Work(1, 1, 1),
        flops=(operations, 0.0),
        ours=ours,
        theirs=theirs,
        rates=(rate, rate),
        batch_size=1,
        encoding=0.0,
        difference=0.0,
    )


def test_the_sweep_is_points_times_scoring_and_change(bench):
    assert bench.Sweep(tokens=1, seconds=100.0, change=9.0).minutes == pytest.approx(11 * 109 / 60)


def test_the_rate_of_products_is_that_of_a_machine(bench):
    shapes = bench.Shapes.of(bench.SIZES["tiny"].settings | {"vocab_size": 512})
    rate = bench.measure_rate(shapes, torch.device("cpu"), torch.float32, repetitions=1)
    assert 1e8 < rate.body < 1e13
    assert 1e8 < rate.head < 1e13
