"""What stands around a question: chat templates, worked examples, next tokens; and rows that are kept on disk."""

import numpy as np
import pytest
from conftest import byte_tokenizer

from merge_calib.errors import InputError, ScoringError
from merge_calib.questions import Passage, PassageSet, Question, TaskSet
from merge_calib.scoring import questionnaire as questionnaire_module
from merge_calib.scoring.encoder import Dress, Encoder
from merge_calib.scoring.kept_rows import keep_rows, load_rows
from merge_calib.scoring.prompts import choice_prompt, continuation_context
from merge_calib.scoring.questionnaire import Questionnaire, methods_for

TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
)


def chat_tokenizer(template=TEMPLATE):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def quiz(style="plain", **fields) -> TaskSet:
    questions = (
        Question("q0", "What is red?", ("a mill", "blue"), 0, "things"),
        Question("q1", "Where?", ("here", "there", "nowhere"), 2, "places"),
    )
    return TaskSet("quiz", style, questions, **fields)


def text(tokenizer, row) -> str:
    return tokenizer.decode(row.tokens)


def test_a_chat_holds_the_question_as_the_user_says_it_and_bos_once():
    tokenizer = chat_tokenizer()
    encoded = Encoder(tokenizer, 512, Dress(is_chat=True, system="Be brief.")).choice(quiz())
    prompt = choice_prompt(quiz(), quiz().questions[0])
    assert text(tokenizer, encoded.rows[0]) == f"<s>[system]Be brief.[user]{prompt}[assistant]"
    assert encoded.rows[0].tokens.tolist().count(0) == 1
    assert encoded.letters == "A"  # the answer begins right after the template


def test_a_chat_scores_the_choice_without_a_leading_space():
    tokenizer = chat_tokenizer()
    encoded = Encoder(tokenizer, 512, Dress(is_chat=True)).continuations(quiz())
    first = encoded.rows[0]
    assert tokenizer.decode(first.candidates[:, 0]) == "a mill"
    plain = Encoder(tokenizer, 512).continuations(quiz()).rows[0]
    assert tokenizer.decode(plain.candidates[:, 0]) == " a mill"


@pytest.mark.parametrize(
    ("template", "said"),
    [(None, "has no chat template"), (NO_SYSTEM, "System role not supported")],
)
def test_a_chat_that_cannot_be_made_is_said(template, said):
    with pytest.raises(ScoringError, match=f"--apply-chat-template: .*{said}"):
        Encoder(chat_tokenizer(template), 512, Dress(is_chat=True, system="Be brief.")).choice(quiz())


@pytest.mark.parametrize(
    ("template", "start"), [(TEMPLATE, "<s>[system]{header}[user]"), (NO_SYSTEM, "[user]{header}")]
)
def test_the_header_of_mmlu_is_the_system_message_of_a_chat_that_has_one(template, start):
    tokenizer = chat_tokenizer(template)
    task = quiz("mmlu")
    prompt = text(tokenizer, Encoder(tokenizer, 512, Dress(is_chat=True)).choice(task).rows[0])
    header = "The following are multiple choice questions (with answers) about things.\n\n"
    assert prompt.startswith(start.format(header=header) + "What is red?\nA. a mill")


def test_worked_examples_stand_after_the_header_each_with_its_answer():
    examples = {"things": (Question("e", "What is dry? ", ("sand", "sea"), 0, "things"),)}
    task = TaskSet("quiz", "mmlu", quiz().questions[:1], examples=examples)
    assert choice_prompt(task, task.questions[0], task.shots(task.questions[0], 1)) == (
        "The following are multiple choice questions (with answers) about things.\n\n"
        "What is dry?\nA. sand\nB. sea\nAnswer: A\n\n"
        "What is red?\nA. a mill\nB. blue\nAnswer:"
    )
    assert continuation_context(task.questions[0], examples["things"]) == (
        "Question: What is dry? \nAnswer: sand\n\nQuestion: What is red?\nAnswer:"
    )


def test_too_few_worked_examples_are_said_with_the_task():
    with pytest.raises(InputError, match="task quiz: 2 worked examples.*0 are there"):
        Encoder(byte_tokenizer(), 512, Dress(shots=2)).choice(quiz())


def test_a_task_with_its_own_prompt_is_asked_in_its_own_words():
    task = quiz("custom", prompt="{subject} {{x}}\nQ: {question}\n{options}\nA:")
    assert choice_prompt(task, task.questions[0]) == "things {x}\nQ: What is red?\nA. a mill\nB. blue\nA:"


def test_braces_in_a_question_are_text():
    task = TaskSet("quiz", "custom", (Question("q", "{options} {0}", ("{", "}"), 0),), prompt="{question}|{options}")
    assert choice_prompt(task, task.questions[0]) == "{options} {0}|A. {\nB. }"


@pytest.mark.parametrize(("at", "place"), [(0.0, 1), (0.5, 3), (0.999, 4)])
def test_a_text_is_asked_for_the_token_at_its_place(at, place):
    tokenizer = byte_tokenizer()
    task = PassageSet("clm", (Passage("p", "abcde", at=at),))
    [row] = Encoder(tokenizer, 512).next_tokens(task).rows
    assert text(tokenizer, row) == "<s>" + "abcde"[:place]
    assert tokenizer.decode(row.candidates[0]) == "abcde"[place]


def test_a_fact_is_asked_for_the_first_token_of_its_answer():
    tokenizer = byte_tokenizer(words=(" A", " Paris"))
    task = PassageSet("facts", (Passage("p", "The capital is", answer="Paris"),))
    [row] = Encoder(tokenizer, 512).next_tokens(task).rows
    assert text(tokenizer, row) == "<s>The capital is"
    assert tokenizer.decode(row.candidates[0]) == " Paris"


def test_finish_prompts_stand_on_a_line_before_and_change_no_target():
    tokenizer = byte_tokenizer()
    task = PassageSet("both", (Passage("p", "abcde", at=0.5), Passage("q", "It is", answer="so")))
    plain = Encoder(tokenizer, 512).next_tokens(task).rows
    dressed = Encoder(tokenizer, 512, Dress(finishes=True)).next_tokens(task).rows
    assert [text(tokenizer, row) for row in dressed] == [
        "<s>Finish this sentence:\nabc",
        "<s>Finish this Wikipedia description:\nIt is",
    ]
    assert [row.candidates.tolist() for row in dressed] == [row.candidates.tolist() for row in plain]


def test_a_text_of_one_token_has_nothing_to_ask():
    with pytest.raises(ScoringError, match="task clm, 'p': a text of 1 token"):
        Encoder(byte_tokenizer(), 512).next_tokens(PassageSet("clm", (Passage("p", "a", at=0.5),)))


def test_methods_apply_to_the_tasks_they_are_made_for():
    assert methods_for(quiz(), ["choice", "continuation-min"]) == ("choice", "continuation-min")
    assert methods_for(PassageSet("clm", (Passage("p", "ab", at=0.5),)), ["choice"]) == ("next-token",)


def same(one, other) -> bool:
    parts = [(r.tokens, r.candidates, [r.first, r.question, r.choice]) for r in one.rows]
    others = [(r.tokens, r.candidates, [r.first, r.question, r.choice]) for r in other.rows]
    alike = all(np.array_equal(a, b) for p, q in zip(parts, others, strict=True) for a, b in zip(p, q, strict=True))
    return alike and one.sha256 == other.sha256 and (one.letters, one.truncated) == (other.letters, other.truncated)


@pytest.mark.parametrize("way", ["choice", "continuation"])
def test_rows_that_are_kept_come_back_as_they_were(way):
    encoded = Encoder(byte_tokenizer(), 40).encode(quiz(), way)
    keep_rows("key", encoded)
    kept = load_rows("key")
    assert kept is not None
    assert same(kept, encoded)


def test_a_task_is_encoded_once_for_all_time(monkeypatch):
    first = Questionnaire(Encoder(byte_tokenizer(), 512)).encoded(quiz(), "choice")
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("encoded again"))
    assert same(Questionnaire(Encoder(byte_tokenizer(), 512)).encoded(quiz(), "choice"), first)


@pytest.mark.parametrize(
    "encoder",
    [
        lambda: Encoder(byte_tokenizer(words=(" A", " B", " C")), 512),
        lambda: Encoder(byte_tokenizer(), 30),
        lambda: Encoder(chat_tokenizer(), 512, Dress(is_chat=True)),
        lambda: Encoder(byte_tokenizer(), 512, Dress(finishes=True)),
    ],
)
def test_another_tokenizer_limit_or_dress_has_rows_of_its_own(encoder):
    kept = Questionnaire(Encoder(byte_tokenizer(), 512))._key(quiz(), "choice")
    assert Questionnaire(encoder())._key(quiz(), "choice") != kept


def test_other_questions_or_prompts_have_rows_of_their_own(monkeypatch):
    questionnaire = Questionnaire(Encoder(byte_tokenizer(), 512))
    keys = {questionnaire._key(quiz(style), "choice") for style in ("plain", "mmlu")}
    keys.add(questionnaire._key(quiz(), "continuation"))
    monkeypatch.setattr(questionnaire_module, "PROMPTS", 99)
    keys.add(questionnaire._key(quiz(), "choice"))
    assert len(keys) == 4


def test_rows_that_were_damaged_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    questionnaire = Questionnaire(Encoder(byte_tokenizer(), 512))
    first = questionnaire.encoded(quiz(), "choice")
    [path] = (tmp_path / "merge-calib" / "rows").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert same(Questionnaire(Encoder(byte_tokenizer(), 512)).encoded(quiz(), "choice"), first)


def test_a_chat_whose_template_names_another_token_has_rows_of_its_own():
    def fingerprint(**names):
        tokenizer = chat_tokenizer()
        for key, value in names.items():
            setattr(tokenizer, key, value)
        return Encoder(tokenizer, 512, Dress(is_chat=True)).fingerprint

    assert fingerprint() == fingerprint()
    assert fingerprint(eos_token="<s>") != fingerprint()


def test_a_template_that_tells_the_date_tells_the_same_every_day():
    template = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}{{ messages[0]['content'] }}"
    tokenizer = chat_tokenizer(template)
    assert text(tokenizer, Encoder(tokenizer, 512, Dress(is_chat=True)).choice(quiz()).rows[0]).startswith(
        "26 Jul 2024"
    )
