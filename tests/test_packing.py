"""The packing plan: every distinct token once, and each seen by its own descendants alone."""

import numpy as np
import pytest

from merge_calib.scoring.batches import block_batches, joined_batches, padded_batches, reading_starts
from merge_calib.scoring.packing import LEAST_TREES, pack
from merge_calib.scoring.rows import Row


def row(tokens, targets, question, choice=0) -> Row:
    """A row that scores `targets` after `tokens`."""
    ids = np.array([*tokens, *targets[:-1]], dtype=np.int64)
    return Row(ids, len(tokens) - 1, np.array(targets, dtype=np.int64)[:, None], question, choice)


def random_rows(seed, questions=30, head=40) -> tuple[list[Row], list[list[int]]]:
    """Questions after a common head; choices of one token, equal choices and choices that begin alike among them."""
    rng = np.random.default_rng(seed)
    common = rng.integers(0, 50, head).tolist()
    rows, groups = [], []
    for question in range(questions):
        context = common + rng.integers(0, 50, rng.integers(1, 12)).tolist()
        group = []
        for choice in range(rng.integers(2, 5)):
            targets = rng.integers(0, 3, rng.integers(1, 6)).tolist()  # few ids, so that choices begin alike
            group.append(len(rows))
            rows.append(row(context, targets, question, choice))
        groups.append(group)
    return rows, groups


def sequences(packs) -> dict[int, list[list[int]]]:
    """For each row, what its last token sees, spelled out by walking up the tree token by token."""
    found: dict[int, list[list[int]]] = {}
    head: list[int] = []
    for each in packs:
        if each.remembers:
            head = each.joined("tokens").tolist()
        for tree in each.trees:
            for i, last in zip(tree.rows, tree.last, strict=True):
                seen = [j for j in range(last + 1) if j <= last < tree.ends[j]]
                before = head[: each.head]
                assert tree.depths[seen].tolist() == list(range(len(before), len(before) + len(seen)))
                found.setdefault(int(i), []).append(before + tree.tokens[seen].tolist())
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_tokens", [1, 64, 10_000])
def test_every_row_is_read_once_and_sees_exactly_its_own_tokens(seed, max_tokens):
    rows, groups = random_rows(seed)
    found = sequences(pack(rows, groups, max_tokens))
    assert found == {i: [r.tokens.tolist()] for i, r in enumerate(rows)}


def test_a_question_holds_each_distinct_prefix_once():
    rows, groups = random_rows(1, head=0)
    trees = [tree for each in pack(rows, groups, 100) for tree in each.trees]
    for tree in trees:
        prefixes = {tuple(rows[i].tokens[: n + 1]) for i in tree.rows for n in range(len(rows[i].tokens))}
        assert len(tree.tokens) == len(prefixes)


def test_a_long_common_beginning_is_read_once_for_all_questions():
    rows, groups = random_rows(2, questions=30, head=40)
    packs = list(pack(rows, groups, 64))
    assert next(each.size for each in packs if each.remembers) >= 40
    assert sum(each.remembers for each in packs) == 1
    assert all(each.head >= 40 for each in packs if not each.remembers)


def test_two_subjects_have_a_head_each():
    one, other = random_rows(3, head=60), random_rows(4, head=60)
    rows = [*one[0], *other[0]]
    groups = [*one[1], *([len(one[0]) + i for i in group] for group in other[1])]
    packs = list(pack(rows, groups, 500))
    assert sum(each.remembers for each in packs) == 2
    assert sequences(packs) == {i: [r.tokens.tolist()] for i, r in enumerate(rows)}


def test_a_row_that_was_cut_at_the_front_does_not_take_the_head_from_the_others():
    rows, groups = random_rows(5)
    cut = row(rows[0].tokens[7:20], [1, 2], len(groups))
    packs = list(pack([*rows, cut], [*groups, [len(rows)]], 500))
    assert sum(each.remembers for each in packs) == 1
    assert sequences(packs)[len(rows)] == [cut.tokens.tolist()]


def test_few_questions_share_no_head():
    rows, groups = random_rows(6, questions=LEAST_TREES - 1)
    assert not any(each.remembers for each in pack(rows, groups, 500))


def test_choices_of_one_token_are_read_off_the_context():
    rows = [row([1, 2, 3], [4], 0, 0), row([1, 2, 3], [5], 0, 1), row([1, 2, 3], [4], 0, 2)]
    [batch] = block_batches(rows, [[0, 1, 2]], 100)
    assert batch.tokens.tolist() == [[1, 2, 3]]
    assert batch.places.tolist() == [2]
    assert dict(zip(batch.reads.tolist(), batch.ids.tolist(), strict=True)) == {0: 4, 1: 5, 2: 4}
    [padded] = padded_batches(rows, [[0, 1, 2]], 100)
    assert padded.tokens.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("make", [joined_batches, block_batches, padded_batches])
def test_batches_read_everything_once_within_the_budget(make):
    rows, groups = random_rows(7)
    batches = list(make(rows, groups, 200))
    reads = np.concatenate([batch.reads for batch in batches])
    assert sorted(reads.tolist()) == list(range(reading_starts(rows)[-1]))
    for batch in batches:
        parts = len(batch.tokens) if batch.pack is None else len(batch.pack.trees)
        assert parts == 1 or batch.size <= 200
    assert sum(batch.tokens_of_rows for batch in batches) == sum(len(r.tokens) for r in rows)


@pytest.mark.parametrize("make", [joined_batches, block_batches, padded_batches])
def test_each_reading_follows_its_own_prefix(make):
    """The token before each reading, and the candidate, are those of the row: checked token by token."""
    rows, groups = random_rows(8, head=0)
    starts = reading_starts(rows)
    owner = np.repeat(np.arange(len(rows)), np.diff(starts))
    for batch in make(rows, groups, 150):
        flat = batch.tokens.reshape(-1)
        for read, slot, id in zip(batch.reads, batch.slots, batch.ids, strict=True):
            r = rows[owner[read]]
            p = read - starts[owner[read]]
            assert flat[batch.places[slot]] == r.tokens[r.first + p]
            assert id == r.candidates[p, 0]
