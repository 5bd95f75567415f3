"""Each benchmark's original schema becomes the questions that are asked; the fixtures' questions are invented."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from merge_calib.questions import Question, content_id
from merge_calib.tasks import BENCHMARKS, Library, load_task
from merge_calib.tasks.hellaswag import clean

DATA = Path(__file__).parent / "fixtures" / "tasks"
LIBRARY = Library(DATA)
SCIQ = json.loads((DATA / "sciq" / "test.json").read_text())
SCIQ_KEYS = ("correct_answer", "distractor1", "distractor2", "distractor3")


def test_arc_maps_letters_and_digits_to_the_right_choice() -> None:
    task = load_task("arc_easy", LIBRARY)
    assert [q.choices[q.answer] for q in task.questions] == ["a thermometer", "water", "milk", "a wren"]
    assert [len(q.choices) for q in task.questions] == [4, 4, 3, 5]
    assert task.questions[1] == Question(
        "Invented_2", "What does a bean plant take from the soil?", ("light", "water", "wind", "sound"), 1
    )


@pytest.mark.parametrize("folder", [".", "ARC-V1-Feb2018-2"])
def test_arc_is_found_in_the_official_layout(folder: str, tmp_path: Path) -> None:
    official = DATA / "ARC-Challenge" / "ARC-Challenge-Test.jsonl"
    copy = tmp_path / folder / "ARC-Challenge" / official.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(official.read_bytes())
    task = load_task("arc_challenge", Library(tmp_path))
    assert [q.id for q in task.questions] == ["Invented_5", "Invented_6", "Invented_7"]
    assert task.source == str(copy)
    assert task.sha256 == load_task("arc_challenge", LIBRARY).sha256


def test_hellaswag_context_is_label_and_both_halves_cleaned_up() -> None:
    first, second, third = load_task("hellaswag", LIBRARY).questions
    assert first.context == "Potting plants: A woman stands at a bench with pots. She and anna's son"
    assert second.context == "Home and Garden: How to rest a bread dough. Cover the bowl. Use a damp towel."
    assert third.context == "Sailing: A man ties a rope to a mast. He"
    assert all(q.question == q.context for q in (first, second, third))
    assert [q.answer for q in (first, second, third)] == [0, 1, 2]


def test_hellaswag_endings_are_cleaned_up_too() -> None:
    second = load_task("hellaswag", LIBRARY).questions[1]
    assert second.choices == (
        " Paint the towel.",  # the blank after a mark stays, as in the reference harness
        "Leave it in a warm corner. Wait an hour.",
        "Post the bowl. Stamp it.",
        "Let the oven sleep.",
    )


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (" a ", "a"),
        ("Wash. [title] Rinse.", "Wash.. Rinse."),
        ("[title] Rinse.", " Rinse."),
        ("a [b] c [d] e", "a c e"),
        ("a   b", "a  b"),
        ("a    b", "a  b"),
    ],
)
def test_clean_takes_the_steps_of_the_reference_in_their_order(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_medmcqa_counts_the_right_option_from_one() -> None:
    task = load_task("medmcqa", LIBRARY)
    assert [q.choices[q.answer] for q in task.questions] == ["Ulna", "D", "Two", "Ear"]
    assert [q.subject for q in task.questions] == ["Anatomy", "Biochemistry", "Physiology", "ENT"]
    assert task.questions[0].id == "00000000-invented-1"


def test_equal_choices_are_accepted_because_the_real_benchmarks_have_them() -> None:
    assert load_task("medmcqa", LIBRARY).questions[2].choices == ("Two", "One", "None", "None")


def test_mmlu_joins_the_subjects_in_the_order_of_their_names() -> None:
    task = load_task("mmlu", LIBRARY)
    assert [q.subject for q in task.questions] == ["garden law"] * 4 + ["kitchen physics"] * 2
    assert [q.answer for q in task.questions] == [0, 1, 0, 0, 2, 3]
    assert task.source == f"2 files in {DATA / 'mmlu' / 'test'}"


def test_mmlu_questions_keep_quoted_commas_quotes_and_line_ends() -> None:
    first, second, *_ = load_task("mmlu", LIBRARY).questions
    assert first.choices[1] == "The neighbour, always"
    assert second.question == 'Read the rule.\nA hedge may be 2 m high, a "screen" 3 m.\n\nHow high may a hedge be?'


def test_mmlu_files_may_end_lines_with_cr_and_lack_the_last_newline() -> None:
    last = load_task("mmlu", LIBRARY).questions[-1]
    assert (last.choices, last.answer) == (("never", "later", "as before", "sooner"), 3)


def test_hidden_files_beside_the_subjects_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "mmlu" / "test"
    folder.mkdir(parents=True)
    (folder / "cooking_test.csv").write_text("q,1,2,3,4,A\n")
    (folder / "._cooking_test.csv").write_bytes(b"\x00\x05\x16\x07")
    assert len(load_task("mmlu", Library(tmp_path))) == 1


def test_a_question_asked_twice_gets_numbered_ids() -> None:
    third, fourth = load_task("mmlu", LIBRARY).questions[2:4]
    made = content_id("mmlu", "Who mows a shared lawn?", ["Both", "One", "None", "All"], "garden law")
    assert (third.id, fourth.id) == (made, f"{made}-2")


def test_piqa_joins_goals_and_labels_line_by_line() -> None:
    task = load_task("piqa", LIBRARY)
    assert [q.choices[q.answer] for q in task.questions] == [
        "Put a wedge under it.",
        "Fill it with newspaper. ",  # blanks at the ends of a text are the benchmark's own
        "Use a magnet.",
    ]
    assert task.questions[0].id == content_id("piqa", "Keep a door open.", task.questions[0].choices)


@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("arc_easy", "select"),
        ("arc_challenge", "select"),
        ("hellaswag", "select"),
        ("piqa", "select"),
        ("sciq", "select"),
        ("mmlu", "mmlu"),
        ("medmcqa", "medmcqa"),
    ],
)
def test_each_benchmark_is_asked_in_its_own_style(name: str, style: str) -> None:
    task = load_task(name, LIBRARY)
    assert (task.name, task.style) == (name, style) == (name, BENCHMARKS[name].style)


def test_only_hellaswag_gives_a_context() -> None:
    for name in set(BENCHMARKS) - {"hellaswag"}:
        assert all(q.context is None for q in load_task(name, LIBRARY).questions)


def test_sciq_asks_its_options_in_a_shuffled_order_that_never_changes() -> None:
    task = load_task("sciq", LIBRARY)
    assert [q.choices[q.answer] for q in task.questions] == ["honey", "root", "ice"]
    assert {frozenset(q.choices) for q in task.questions} == {
        frozenset({"honey", "wax paper", "resin", "silk"}),
        frozenset({"root", "leaf", "seed", "petal"}),
        frozenset({"ice", "steam", "fog", "dew"}),
    }
    for q in task.questions:  # the oracle: hashes of content and number, in their order
        listed = next([row[key] for key in SCIQ_KEYS] for row in SCIQ if row["question"] == q.question)
        seed = content_id("sciq", q.question, listed)
        ranked = sorted(listed, key=lambda text: hashlib.sha256(f"{seed} {listed.index(text)}".encode()).hexdigest())
        assert (q.choices, q.id) == (tuple(ranked), content_id("sciq", q.question, ranked))


def test_sciq_puts_the_answer_at_every_place_about_as_often(tmp_path: Path) -> None:
    rows = [dict(zip((*SCIQ_KEYS, "question"), (*"abcd", f"Question {i}?"), strict=True)) for i in range(2000)]
    (tmp_path / "sciq").mkdir()
    (tmp_path / "sciq" / "test.json").write_text(json.dumps(rows))
    places = Counter(q.answer for q in load_task("sciq", Library(tmp_path)).questions)
    assert all(abs(places[i] - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5 for i in range(4))  # five standard deviations


def test_arc_with_four_options_leaves_out_the_others_and_says_so() -> None:
    task = load_task("arc_easy", Library(DATA, four_options=True))
    assert [q.id for q in task.questions] == [
        q.id for q in load_task("arc_easy", LIBRARY).questions if len(q.choices) == 4
    ]
    assert task.source.endswith("test.jsonl; 2 questions without exactly 4 options are left out")


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - {"arc_easy"}))
def test_four_options_change_no_other_task(name: str) -> None:
    assert load_task(name, Library(DATA, four_options=True)) == load_task(name, LIBRARY)
