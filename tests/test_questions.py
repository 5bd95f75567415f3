"""Sets of questions and of texts: limits, worked examples, prompts of their own, hashes."""

import hashlib
import json
from dataclasses import replace

import pytest

from merge_calib.errors import InputError
from merge_calib.questions import Passage, PassageSet, Question, TaskSet

QUESTIONS = tuple(Question(f"q{i}", f"What is {i}?", ("this", "that"), i % 2, "ab"[i % 2]) for i in range(100))
SHOTS = tuple(Question(f"e{i}", f"Which is {i}?", ("this", "that"), 0) for i in range(4))
TASK = TaskSet("quiz", "plain", QUESTIONS)
TEXTS = PassageSet("texts", tuple(Passage(f"p{i}", f"text {i}", at=i / 100) for i in range(100)))


def test_a_limit_keeps_the_first() -> None:
    assert TASK.limited(7).questions == QUESTIONS[:7]
    assert TASK.limited(None) == TASK.limited(1000) == TASK
    assert TEXTS.limited(7).passages == TEXTS.passages[:7]


def test_a_limit_keeps_everything_else_of_a_set() -> None:
    task = TaskSet("quiz", "custom", QUESTIONS, "file", {"": SHOTS}, "{question}{options}", "beside it")
    assert replace(task.limited(3, 1), questions=QUESTIONS) == task
    assert replace(TEXTS.limited(3, 1), passages=TEXTS.passages) == TEXTS


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_a_sample_keeps_the_order_and_does_not_depend_on_it(seed: int) -> None:
    sample = TASK.limited(10, seed).questions
    assert len(sample) == 10
    assert list(sample) == [q for q in QUESTIONS if q in sample]
    turned = TaskSet("quiz", "plain", QUESTIONS[::-1]).limited(10, seed).questions
    assert turned == sample[::-1]


def test_samples_of_one_seed_are_nested_and_of_two_seeds_differ() -> None:
    assert set(TASK.limited(10, 3).questions) < set(TASK.limited(20, 3).questions)
    assert TASK.limited(10, 3).questions != TASK.limited(10, 4).questions
    assert TASK.limited(1000, 3) == TASK


def test_a_sample_is_the_smallest_hashes_of_seed_and_id() -> None:
    ranked = sorted(QUESTIONS, key=lambda q: hashlib.sha256(f"5 {q.id}".encode()).hexdigest())
    assert set(TASK.limited(8, 5).questions) == set(ranked[:8])


def test_every_question_is_sampled_about_as_often() -> None:
    counts = dict.fromkeys((q.id for q in QUESTIONS), 0)
    for seed in range(400):
        for q in TASK.limited(25, seed).questions:
            counts[q.id] += 1
    assert all(abs(count - 100) < 5 * (400 * 0.25 * 0.75) ** 0.5 for count in counts.values())  # 5 standard deviations


def test_shots_are_the_first_examples_of_the_subject_or_of_none() -> None:
    task = TaskSet("quiz", "plain", QUESTIONS, examples={"a": SHOTS[:3], "": SHOTS[2:]})
    assert task.shots(QUESTIONS[0], 2) == SHOTS[:2]
    assert task.shots(QUESTIONS[1], 2) == SHOTS[2:]
    assert task.shots(QUESTIONS[0], 0) == TASK.shots(QUESTIONS[0], 0) == ()


def test_too_few_shots_are_refused_with_task_subject_and_source() -> None:
    task = TaskSet("quiz", "plain", QUESTIONS, examples={"a": SHOTS[:3]}, examples_source="quiz.fewshot.jsonl")
    expected = (
        "task quiz: 4 worked examples of the subject 'a' are needed, 3 are there; they are read from quiz.fewshot"
    )
    with pytest.raises(InputError, match=f"^{expected}"):
        task.shots(QUESTIONS[0], 4)
    with pytest.raises(InputError, match="'b' are needed, 0 are there"):
        task.shots(QUESTIONS[1], 1)


def test_a_question_is_never_its_own_worked_example() -> None:
    same = replace(QUESTIONS[1], id="e9", subject="")
    task = TaskSet("quiz", "plain", QUESTIONS, examples={"": (SHOTS[0], same)})
    assert task.shots(QUESTIONS[1], 1) == SHOTS[:1]
    assert task.shots(QUESTIONS[0], 2) == (SHOTS[0], same)
    with pytest.raises(InputError, match="^task quiz: question 'q1' is itself the worked example 'e9'$"):
        task.shots(QUESTIONS[1], 2)


def test_sha256_is_the_hash_of_style_and_fields() -> None:
    fields = [json.dumps([q.id, q.question, list(q.choices), q.answer, q.subject, q.context]) for q in QUESTIONS]
    assert TASK.sha256 == hashlib.sha256(("plain" + "".join(fields)).encode()).hexdigest()


def test_sha256_knows_the_prompt_but_not_examples_or_source() -> None:
    custom = TaskSet("quiz", "custom", QUESTIONS, prompt="{question}{options}")
    assert custom.sha256 != TASK.sha256
    assert custom.sha256 != replace(custom, prompt="{question} {options}").sha256
    assert replace(TASK, source="elsewhere", examples={"": SHOTS}).sha256 == TASK.sha256


def test_a_set_can_be_hashed_with_examples() -> None:
    assert hash(replace(TASK, examples={"": SHOTS})) == hash(TASK)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("{question}", "the prompt lacks {options}"),
        ("{options}", "the prompt lacks {question}"),
        ("{question}{options}{answer}", "the prompt has a field {answer}; there are {question}, {options}, {subject}"),
        ("{question}{options}{question.__class__}", "the prompt has a field {question.__class__}"),
        ("{question[0]}{options}", "the prompt has a field {question[0]}"),
        ("{question!r}{options}", "between braces only the name of a field may stand"),
        ("{question:>9}{options}", "between braces only the name of a field may stand"),
        ("{}{question}{options}", "between braces only the name of a field may stand"),
        ("{question}{options", "expected '}' before end of string; a brace that is text is written twice"),
        ("{question}{options}}", "Single '}' encountered in format string"),
    ],
)
def test_a_prompt_that_cannot_be_filled_in_is_refused(prompt: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        TaskSet("quiz", "custom", QUESTIONS, prompt=prompt)
    assert reason in str(caught.value)


def test_str_format_fills_in_every_prompt_that_is_accepted() -> None:
    task = TaskSet("quiz", "custom", QUESTIONS, prompt="{{{subject}}} {question}\n{options}\n=>")
    assert task.prompt.format(question="{x}?", options="A. {0}", subject="s") == "{s} {x}?\nA. {0}\n=>"


@pytest.mark.parametrize(("style", "prompt"), [("custom", ""), ("plain", "{question}{options}")])
def test_a_prompt_and_the_custom_style_belong_together(style: str, prompt: str) -> None:
    with pytest.raises(InputError, match="task quiz: the style 'custom' has a prompt"):
        TaskSet("quiz", style, QUESTIONS, prompt=prompt)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "either a place in it or an answer"),
        ({"at": 0.5, "answer": "x"}, "either a place in it or an answer"),
        ({"at": 1.0}, "the place 1.0 in a text must be at least 0 and below 1"),
        ({"at": -0.1}, "the place -0.1"),
        ({"at": float("nan")}, "the place nan"),
        ({"at": 0.5, "text": " \n"}, "the text is empty"),
        ({"at": 0.5, "id": ""}, "id is empty"),
        ({"answer": ""}, "the answer is empty"),
        ({"answer": " x"}, "blanks around its beginning"),
        ({"answer": "x", "text": "It is "}, "blanks around its beginning"),
    ],
)
def test_a_passage_that_cannot_be_asked_is_refused(fields: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Passage(**({"id": "p", "text": "It is"} | fields))


def test_a_place_of_a_passage_is_always_a_token_after_the_first() -> None:
    for at in (0.0, 0.5, 1 - 2**-53):
        for n in (2, 3, 1000):
            assert 1 <= 1 + int(Passage("p", "x", at=at).at * (n - 1)) <= n - 1


def test_a_set_of_passages_is_checked_as_a_set_of_questions_is() -> None:
    with pytest.raises(InputError, match="task texts: a.jsonl holds no texts"):
        PassageSet("texts", (), "a.jsonl")
    with pytest.raises(InputError, match=r"task texts: 1 text id\(s\) occur twice, the first is 'p'"):
        PassageSet("texts", (Passage("p", "x", at=0), Passage("p", "y", at=0)))
    with pytest.raises(InputError, match="task quiz: a.jsonl holds no questions"):
        TaskSet("quiz", "plain", (), "a.jsonl")


def test_the_hash_of_passages_knows_place_and_answer_but_not_the_source() -> None:
    one = PassageSet("texts", (Passage("p", "x", at=0.5),))
    assert one.sha256 == replace(one, source="elsewhere").sha256
    others = [Passage("p", "x", at=0.25), Passage("p", "x", answer="y"), Passage("p", "z", at=0.5)]
    assert len({one.sha256, *(PassageSet("texts", (p,)).sha256 for p in others)}) == 4
