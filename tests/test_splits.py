"""Splits: halves are halves, whatever the subjects; which side a question is on depends on the ids asked."""

import hashlib

import numpy as np
import pytest

from merge_calib.inference.splits import FEWEST, Fold, codes, cross_fit, divide


def ids_of(n: int) -> list[str]:
    return [f"task-{i}" for i in range(n)]


def digest(id: str) -> bytes:
    return hashlib.sha256(id.encode()).digest()


def sides(fold: Fold, ids) -> dict[str, bool]:
    return dict(zip(ids, fold.select.tolist(), strict=True))


def is_balanced(fold: Fold, subjects, fraction: float) -> bool:
    """Whether every subject is divided as the whole is, to one question, and the whole to a rounding."""
    subjects = np.array(subjects)
    counts = [(fold.select[subjects == s].sum(), (subjects == s).sum()) for s in set(subjects.tolist())]
    whole = abs(fold.select.sum() - fraction * len(subjects)) <= 0.5
    return bool(whole and all(abs(chosen - fold.select.mean() * n) <= 1 for chosen, n in counts))


def test_the_first_half_by_the_hash_of_the_id_selects():
    ids = ids_of(6)
    first = sorted(ids, key=digest)[:3]
    fold = divide(ids, [""] * 6, 0.5)
    assert sides(fold, ids) == {id: id in first for id in ids}
    assert (fold.select ^ fold.report).all()


def test_a_subject_is_divided_by_the_ranks_of_its_own_questions():
    ids, subjects = ids_of(8), ["b", "a"] * 4
    fold = divide(ids, subjects, 0.5)
    for subject in "ab":
        own = sorted((id for id, s in zip(ids, subjects, strict=True) if s == subject), key=digest)
        assert [sides(fold, ids)[id] for id in own] == [True, True, False, False]


SUBJECTS = {
    "one": lambda rng: ["law"] * 301,
    "of many sizes": lambda rng: [f"s{s}" for s in rng.integers(0, 57, 1000) ** 2 // 57],
    "of one question each": lambda rng: [f"s{i}" for i in rng.permutation(101)],
    "of two": lambda rng: [f"s{i // 2}" for i in range(100)],
    "of three": lambda rng: [f"s{i % 33}" for i in range(99)],
    "one large, many of one question": lambda rng: ["law"] * 50 + [f"s{i}" for i in range(50)],
}


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize("fraction", [0.5, 0.2, 0.83])
def test_subjects_and_the_whole_are_divided_alike(kind, fraction):
    subjects = SUBJECTS[kind](np.random.default_rng(0))
    assert is_balanced(divide(ids_of(len(subjects)), subjects, fraction), subjects, fraction)


def test_a_split_by_the_order_of_questions_would_not_be_balanced():
    subjects = ["a"] * 50 + ["b"] * 50
    first = np.arange(100) < 50
    assert not is_balanced(Fold(first, ~first), subjects, 0.5)


@pytest.mark.parametrize("make", [lambda i, s: divide(i, s, 0.3), lambda i, s: cross_fit(i, s, 5)[2]])
def test_the_order_of_questions_changes_nothing(make):
    ids, subjects = ids_of(200), [f"s{i % 7}" for i in range(200)]
    order = np.random.default_rng(1).permutation(200)
    moved = make([ids[i] for i in order], [subjects[i] for i in order])
    assert (moved.select == make(ids, subjects).select[order]).all()
    assert (make(ids, subjects).select == make(ids, subjects).select).all()


def test_other_ids_give_another_split():
    none = [""] * 200
    assert (divide(ids_of(200), none, 0.5).select != divide([f"x{i}" for i in ids_of(200)], none, 0.5).select).any()


def test_sides_that_questions_bring_along_are_kept():
    given = ["select", "report", "", "select"]
    fold = divide(ids_of(4), [""] * 4, 0.9, given)
    assert fold.select.tolist() == [True, False, False, True]
    assert fold.report.tolist() == [False, True, True, False]
    assert divide(ids_of(4), [""] * 4, 0.5, [""] * 4).select.sum() == 2  # nothing is given


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_two_questions_are_one_on_either_side(fraction):
    assert sorted(divide(ids_of(2), ["", ""], fraction).select.tolist()) == [False, True]


def test_one_question_leaves_no_one_to_judge():
    assert not divide(ids_of(1), [""], 0.5).report.any()


@pytest.mark.parametrize("count", [2, 5, 100])
def test_each_question_judges_once_and_never_chooses_for_itself(count):
    subjects = [f"s{i % 6}" for i in range(203)]
    folds = cross_fit(ids_of(203), subjects, count)
    assert (np.sum([fold.report for fold in folds], axis=0) == 1).all()
    assert all((fold.select ^ fold.report).all() for fold in folds)
    for subject in set(subjects):
        own = np.array(subjects) == subject
        assert np.ptp([fold.report[own].sum() for fold in folds]) <= 1
    assert np.ptp([fold.report.sum() for fold in folds]) <= 1


def test_more_folds_than_questions_leave_some_without_a_judge():
    assert [fold.report.sum() for fold in cross_fit(ids_of(3), [""] * 3, 5)] == [1, 1, 1, 0, 0]


def test_codes_are_the_ranks_of_names():
    assert codes(["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]
    assert codes(["", ""]).tolist() == [0, 0]


def test_nothing_is_claimed_of_fewer_than_50_questions():
    assert FEWEST == 50
