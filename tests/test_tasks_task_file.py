"""Task files: records in any schema become questions, and whatever cannot be meant is one message."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from merge_calib.errors import InputError
from merge_calib.questions import Question, TaskSet, content_id
from merge_calib.tasks import Library, known_tasks, load_task

RECORD = {"stem": "2 + 2?", "a": "3", "b": "4", "key": "B", "number": 2, "options": ["3", "4"], "index": 1}
PLAIN = {"file": "records.jsonl", "question": "{stem}", "choices": ["{a}", "{b}"], "answer": "{index}"}


def toml(values: dict[str, Any]) -> str:
    """The texts and lists of texts that task files hold are the same in TOML and in JSON."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None)


def write(folder: Path, records: str | list[dict[str, Any]] | None = None, **changed: Any) -> Path:
    """A task file `quiz.toml`, its keys changed, or left out where None, beside its file of records."""
    values = PLAIN | changed
    lines = [RECORD] if records is None else records
    content = lines if isinstance(lines, str) else "".join(json.dumps(line) + "\n" for line in lines)
    (folder / str(values["file"])).write_text(content)
    path = folder / "quiz.toml"
    path.write_text(toml(values))
    return path


def quiz(folder: Path) -> TaskSet:
    return load_task("quiz", Library(task_dir=folder))


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        quiz(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_task_is_named_after_its_file_and_asked_plainly(tmp_path: Path) -> None:
    path = write(tmp_path)
    task = quiz(tmp_path)
    assert (task.name, task.style, task.prompt) == ("quiz", "plain", "")
    assert task.source == f"{tmp_path / 'records.jsonl'} by {path}"
    made = content_id("quiz", "2 + 2?", ["3", "4"])
    assert task.questions == (Question(made, "2 + 2?", ("3", "4"), 1),)


@pytest.mark.parametrize(
    ("answer_is", "answer", "record"),
    [
        (None, "{index}", {}),
        (None, "index", {}),
        ("index", "index", {"index": "1"}),
        ("letter", "key", {}),
        ("letter", "key", {"key": "b"}),
        ("text", "{b}", {}),
        ("text", "key", {"key": 4}),
        ("number from 1", "number", {}),
        ("number from 1", "number", {"number": "2"}),
    ],
)
def test_an_answer_is_what_the_file_says_it_is(
    answer_is: str | None, answer: str, record: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path, [RECORD | record], answer=answer, answer_is=answer_is)
    assert quiz(tmp_path).questions[0].answer == 1


@pytest.mark.parametrize("choices", ["{options}", ["{options}"], ["{a}", "{b}"]])
def test_choices_are_templates_or_one_field_that_is_a_list(choices: Any, tmp_path: Path) -> None:
    write(tmp_path, choices=choices)
    assert quiz(tmp_path).questions[0].choices == ("3", "4")


def test_templates_reach_into_objects_and_lists_and_write_braces(tmp_path: Path) -> None:
    record = {"q": {"stem": "2 + 2?", "choices": [{"t": 3}, {"t": 4.5}]}, "index": 0}
    write(tmp_path, [record], question="{{{q.stem}}} = ", choices="{q.choices.t}", context="{q.stem} it is")
    (question,) = quiz(tmp_path).questions
    assert (question.question, question.choices) == ("{2 + 2?} = ", ("3", "4.5"))
    assert question.context == "2 + 2? it is"


def test_what_a_record_says_is_never_evaluated(tmp_path: Path) -> None:
    record = RECORD | {"stem": "{b} {stem.__class__} {0}", "a[0]": "by its key"}
    write(tmp_path, [record], choices=["{a[0]}", "{b}"])
    (question,) = quiz(tmp_path).questions
    assert (question.question, question.choices[0]) == ("{b} {stem.__class__} {0}", "by its key")


def test_id_subject_and_examples_are_taken_from_their_templates(tmp_path: Path) -> None:
    shown = RECORD | {"stem": "1 + 3?", "subject": "sums", "number": 9}
    (tmp_path / "shown.jsonl").write_text(json.dumps(shown) + "\n")
    write(tmp_path, [RECORD | {"subject": "sums"}], id="n-{number}", subject="{subject}", examples="shown.jsonl")
    task = quiz(tmp_path)
    assert [(q.id, q.subject) for q in task.questions] == [("n-2", "sums")]
    assert [(q.id, q.question) for q in task.shots(task.questions[0], 1)] == [("n-9", "1 + 3?")]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (
            "records.jsonl",
            '{"stem": "a, b?", "a": "x", "b": "y", "index": 0}\n{"stem": "c?", "a": "z", "b": "w", "index": 1}',
        ),
        (
            "records.json",
            '[{"stem": "a, b?", "a": "x", "b": "y", "index": 0}, {"stem": "c?", "a": "z", "b": "w", "index": 1}]',
        ),
        ("records.csv", 'stem,a,b,index\n"a, b?",x,y,0\nc?,z,w,1\n'),
        ("records.csv", '\ufeffindex,b,a,stem\r\n0,y,x,"a, b?"\r\n1,w,z,c?'),
    ],
)
def test_records_are_the_same_in_every_format(file: str, content: str, tmp_path: Path) -> None:
    write(tmp_path, content, file=file)
    asked = [(q.question, q.choices, q.answer) for q in quiz(tmp_path).questions]
    assert asked == [("a, b?", ("x", "y"), 0), ("c?", ("z", "w"), 1)]


@pytest.mark.parametrize("style", ["plain", "mmlu", "medmcqa", "select"])
def test_a_style_may_be_one_of_the_benchmarks(style: str, tmp_path: Path) -> None:
    write(tmp_path, style=style, subject="sums")
    assert quiz(tmp_path).style == style


def test_a_prompt_of_its_own_makes_the_style_custom(tmp_path: Path) -> None:
    write(tmp_path, prompt="{question}\n{options}\n=>")
    assert (quiz(tmp_path).style, quiz(tmp_path).prompt) == ("custom", "{question}\n{options}\n=>")


BAD_FILES: list[tuple[dict[str, Any], str]] = [
    ({"file": "records.parquet"}, "records.parquet: the file's name must end in one of .jsonl, .json, .csv"),
    ({"question": None}, "quiz.toml: key 'question' is missing; here are: 'file', 'choices', 'answer'"),
    ({"choices": None}, "quiz.toml: key 'choices' is missing"),
    ({"answer": None}, "quiz.toml: key 'answer' is missing"),
    ({"anwser_is": "letter"}, "quiz.toml: unknown key 'anwser_is': there are file, .*; did you mean 'answer_is'?"),
    ({"question": 3}, "quiz.toml: 'question' must be a text, not 3"),
    ({"question": "{stem"}, "quiz.toml: 'question': '{stem': expected '}' before end of string"),
    ({"question": "{stem!r}"}, "quiz.toml: 'question': .* only the name of a field may stand"),
    ({"question": "{}"}, "quiz.toml: 'question': .* only the name of a field may stand"),
    ({"answer": "{index"}, "quiz.toml: 'answer': "),
    ({"answer": ""}, "quiz.toml: 'answer': .* only the name of a field may stand"),
    ({"id": "{"}, "quiz.toml: 'id': "),
    ({"choices": 3}, "quiz.toml: 'choices': must be a list of templates, or the one field that is a list, not 3"),
    ({"choices": ["{a}", 3]}, "quiz.toml: 'choices': must be a list of templates"),
    ({"choices": ["{a} or {b}"]}, "quiz.toml: 'choices': a single choice must be a field that is a list"),
    ({"choices": "a"}, "quiz.toml: 'choices': a single choice must be a field that is a list"),
    ({"answer_is": "number"}, "quiz.toml: 'answer_is' must be one of 'index', 'letter', 'text', 'number from 1', not"),
    ({"style": "custom"}, "quiz.toml: 'style' must be one of 'mmlu', 'medmcqa', 'select', 'plain', not"),
    ({"style": "mmlu"}, "quiz.toml: the letter prompt names the subject, so the key 'subject' is needed"),
    ({"prompt": "{question}{options}{subject}"}, "quiz.toml: the letter prompt names the subject"),
    ({"prompt": "{question}"}, "quiz.toml: 'prompt': the prompt lacks {options}"),
    ({"prompt": "{question}{options}{key}"}, "quiz.toml: 'prompt': the prompt has a field {key}"),
    ({"prompt": ""}, "quiz.toml: 'prompt': the prompt lacks {question}"),
    ({"prompt": "{question}{options}", "style": "plain"}, "quiz.toml: 'style' and 'prompt' both say"),
    ({"examples": "absent.jsonl"}, "absent.jsonl: cannot be read: No such file"),
    ({"question": "{step}"}, "records.jsonl:1: there is no field 'step'; here are: 'stem', 'a', 'b'"),
    (
        {"question": "{stem.text}"},
        "records.jsonl:1: the field 'stem.text' cannot be found: 'text' would be inside the text",
    ),
    ({"question": "{options}"}, "records.jsonl:1: the field 'options' must be a text or a number, not a list"),
    ({"question": "{stem.__class__}"}, "records.jsonl:1: the field 'stem.__class__' cannot be found"),
    ({"choices": "{a}"}, "records.jsonl:1: the field 'a' must be a list, not the text '3'"),
    ({"choices": []}, "records.jsonl:1: a question needs at least 2 choices, this one has 0"),
    ({"answer": "key"}, "records.jsonl:1: the answer must be a whole number, not the text 'B'"),
    ({"answer": "number"}, r"records.jsonl:1: answer 2 is outside the choices 0\.\.1"),
    ({"answer": "index", "answer_is": "letter"}, "records.jsonl:1: the answer must be a letter, not the text '1'"),
    ({"answer": "C{{", "answer_is": "letter"}, "records.jsonl:1: the answer must be a letter"),
    ({"answer": "key", "answer_is": "text"}, "must be the text of one choice, 'B' is the text of 0"),
    ({"answer": "a", "answer_is": "text", "choices": ["{a}", "{a}"]}, "'3' is the text of 2"),
    ({"answer": "{number}{number}", "answer_is": "number from 1"}, "must be a number from 1 to 2, not 22"),
]


@pytest.mark.parametrize(("changed", "reason"), BAD_FILES)
def test_a_task_file_that_cannot_be_meant_is_refused(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    write(tmp_path, **changed)
    message = refusal(tmp_path)
    assert message.startswith(str(tmp_path))
    assert re.search(reason.replace("{", r"\{"), message), message


@pytest.mark.parametrize(("value", "words"), [(None, "null"), (True, "true"), ({"x": 1}, "an object")])
def test_a_field_that_is_no_text_is_refused_at_its_record(value: Any, words: str, tmp_path: Path) -> None:
    write(tmp_path, [RECORD, RECORD | {"stem": value}])
    reason = f"the field 'stem' must be a text or a number, not {words}"
    assert refusal(tmp_path) == f"{tmp_path / 'records.jsonl'}:2: {reason}"


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ("stem,a,b,index\nq,1,2\n", ":2", "the header names 4 columns, here are 3"),
        ("stem,a,a,index\nq,1,2,0\n", ":1", "the header names 'a' more than once"),
        ("stem,a,b,index\nq,1,,0\n", ":2", r"choice 1 \(of 0 to 1\) is empty"),
        ("stem,a,b,index\nq,1,2,\n", ":2", "the answer must be a whole number, not the text ''"),
        ('stem,a,b,index\n"q,1,2,0\n', ":2", "not valid CSV"),
        ("stem,a,b,index\n", " ", "holds no questions"),
        ("", ":1", "the file is empty"),
    ],
)
def test_a_bad_table_is_refused_at_its_line(content: str, place: str, reason: str, tmp_path: Path) -> None:
    write(tmp_path, content, file="records.csv")
    message = refusal(tmp_path)
    assert f"{tmp_path / 'records.csv'}{place}" in message
    assert re.search(reason, message)


@pytest.mark.parametrize("content", ["file = ", "= 3", "file = 'a'\nfile = 'b'"])
def test_a_file_that_is_not_toml_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "quiz.toml").write_text(content)
    assert refusal(tmp_path).startswith(f"{tmp_path / 'quiz.toml'}: not valid TOML: ")


def test_an_id_given_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    write(tmp_path, [RECORD, RECORD | {"a": "5"}], id="{number}")
    records = tmp_path / "records.jsonl"
    assert refusal(tmp_path) == f"{records}:2: id '2' stands already at {records}:1"


@pytest.mark.parametrize("name", ["mmlu", "mmlu_stem", "mmlu_virology", "clm", "facts", "arc_easy"])
def test_a_task_file_named_like_a_built_in_task_is_refused_whatever_is_asked(name: str, tmp_path: Path) -> None:
    write(tmp_path).rename(tmp_path / f"{name}.toml")
    with pytest.raises(InputError, match=f"{name}.toml: '{name}' is the name of a task that is built in"):
        quiz(tmp_path)


def test_a_slip_in_the_name_of_a_task_file_is_noticed(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match=r"unknown task 'quitz'.* quiz in --task-dir, .*did you mean quiz\?"):
        load_task("quitz", Library(task_dir=tmp_path))


def test_task_files_stand_in_the_list_of_known_tasks(tmp_path: Path) -> None:
    write(tmp_path, description="sums of all kinds")
    known = {task.name: task for task in known_tasks(Library(task_dir=tmp_path))}
    assert (known["quiz"].description, known["quiz"].held) == ("sums of all kinds", True)
