"""Task files: a TOML file says how the records of a file become questions. The task is named after the TOML file.

    file = "questions.csv"                  # .jsonl, .json (one array) or .csv (with a header), relative to this file
    question = "{stem}"
    choices = ["{a}", "{b}", "{c}"]         # a template each, or "{options}", a field that is a list
    answer = "{key}"                        # a template, or just the name of a field
    answer_is = "letter"                    # "index" (from 0, the default), "letter", "text" or "number from 1"

Optional: `id` and `subject`; `context`, the text that the continuation methods score verbatim before each choice;
`split`, which must come out as "select" (a sweep may choose the point by the question) or "report" (it may not);
`examples`, a file with the same fields that holds worked examples; `description`; and for the letter prompt either
`style` ("plain", the default, "mmlu", "medmcqa" or "select") or `prompt`, a template with {question}, {options} (a line
each, with its letter) and {subject}. Templates are described in `template.py`.
"""

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from merge_calib.errors import InputError
from merge_calib.questions import PromptStyle, TaskSet, check_prompt, template_fields
from merge_calib.tasks.benchmark import Draft, group_by_subject, make_questions
from merge_calib.tasks.lines import Values, kind, located, read_lines, required, text
from merge_calib.tasks.own import letter_index, optional_text, safe_name
from merge_calib.tasks.records import read_records
from merge_calib.tasks.template import ListTemplate, Template

REQUIRED = ("file", "question", "choices", "answer")
OPTIONAL = ("answer_is", "id", "subject", "context", "split", "style", "prompt", "examples", "description")
ANSWERS = ("index", "letter", "text", "number from 1")
STYLES = tuple(style for style in get_args(PromptStyle) if style != "custom")


def answer_index(answer: str, answer_is: str, choices: list[str]) -> int:
    """The 0-based index that an answer means; Question refuses one that is too large."""
    if answer_is == "letter":
        return letter_index(answer, len(choices))
    if answer_is == "text":
        if choices.count(answer) != 1:
            count = choices.count(answer)
            raise InputError(f"the answer must be the text of one choice, {answer!r} is the text of {count}")
        return choices.index(answer)
    if not re.fullmatch("[0-9]{1,9}", answer):
        raise InputError(f"the answer must be a whole number, not {kind(answer)}")
    if answer_is == "number from 1" and not 1 <= int(answer) <= len(choices):
        raise InputError(f"the answer must be a number from 1 to {len(choices)}, not {answer}")
    return int(answer) - 1 if answer_is == "number from 1" else int(answer)


@dataclass(frozen=True)
class TaskFile:
    """What a task file says, read and checked; the questions themselves are not read yet."""

    name: str
    path: Path
    file: Path
    question: Template
    choices: ListTemplate
    answer: Template
    answer_is: str
    id: Template | None
    subject: Template | None
    context: Template | None
    split: Template | None
    style: PromptStyle
    prompt: str
    examples: Path | None
    description: str

    def load(self) -> TaskSet:
        """All questions, and the worked examples."""
        questions = make_questions(self.name, read_records(self.file), self.parse)
        given = make_questions(self.name, read_records(self.examples), self.parse) if self.examples else []
        where = str(self.examples or f"the file that {self.path} names as `examples`")
        source, examples = f"{self.file} by {self.path}", group_by_subject(given)
        return TaskSet(self.name, self.style, tuple(questions), source, examples, self.prompt, where)

    def parse(self, values: Values) -> Draft:
        """One record."""
        choices = self.choices.fill(values)
        answer = answer_index(self.answer.fill(values), self.answer_is, choices)
        id, subject, context, split = (
            None if template is None else template.fill(values)
            for template in (self.id, self.subject, self.context, self.split)
        )
        question = self.question.fill(values)
        return Draft(question, choices, answer, id=id, subject=subject or "", context=context, split=split or "")


def read_task_file(path: Path) -> TaskFile:
    """A task file; raises InputError for whatever cannot be meant."""
    source = "\n".join(read_lines(path))
    with located(path):
        try:
            values = tomllib.loads(source)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"not valid TOML: {error}") from error
        _check_keys(values)
        return _task_file(path, values)


def _check_keys(values: Values) -> None:
    for key in values:
        if key not in REQUIRED + OPTIONAL:
            alike = get_close_matches(key, REQUIRED + OPTIONAL, n=1)
            meant = f"; did you mean {alike[0]!r}?" if alike else ""
            raise InputError(f"unknown key {key!r}: there are {', '.join(REQUIRED + OPTIONAL)}{meant}")
    for key in REQUIRED:
        required(values, key)
    if "style" in values and "prompt" in values:
        raise InputError("'style' and 'prompt' both say what the letter prompt is: give one of them")


def _task_file(path: Path, values: Values) -> TaskFile:
    examples = optional_text(values, "examples")
    style = _one_of(values, "style", STYLES, "plain")
    prompt = _prompt(values)
    if "subject" not in values and (style == "mmlu" or "subject" in template_fields(prompt)):
        raise InputError("the letter prompt names the subject, so the key 'subject' is needed")
    return TaskFile(
        name=safe_name(path),
        path=path,
        file=path.parent / text(values, "file"),
        question=_template(values, "question"),
        choices=_choices(values["choices"]),
        answer=_answer(values),
        answer_is=_one_of(values, "answer_is", ANSWERS, "index"),
        id=_optional_template(values, "id"),
        subject=_optional_template(values, "subject"),
        context=_optional_template(values, "context"),
        split=_optional_template(values, "split"),
        style="custom" if prompt else style,
        prompt=prompt,
        examples=path.parent / examples if examples else None,
        description=optional_text(values, "description") or "",
    )


def _prompt(values: Values) -> str:
    if "prompt" not in values:
        return ""
    prompt = text(values, "prompt")
    with located("'prompt'"):
        check_prompt(prompt)
    return prompt


def _one_of(values: Values, key: str, allowed: tuple[str, ...], default: str) -> Any:
    value = values.get(key, default)
    if value not in allowed:
        raise InputError(f"{key!r} must be one of {', '.join(map(repr, allowed))}, not {kind(value)}")
    return value


def _template(values: Values, key: str) -> Template:
    template = text(values, key)
    with located(f"{key!r}"):
        return Template(template)


def _optional_template(values: Values, key: str) -> Template | None:
    return _template(values, key) if key in values else None


def _answer(values: Values) -> Template:
    answer = text(values, "answer")
    bare = "{" not in answer and "}" not in answer
    return _template(values | {"answer": f"{{{answer}}}"} if bare else values, "answer")


def _choices(value: Any) -> ListTemplate:
    with located("'choices'"):
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            raise InputError(f"must be a list of templates, or the one field that is a list, not {kind(value)}")
        templates = tuple(Template(item) for item in listed)
        if len(templates) != 1:
            return ListTemplate(templates)
        field = templates[0].only_field()
        if field is None:
            raise InputError(f"a single choice must be a field that is a list, as '{{options}}', not {kind(listed[0])}")
        return ListTemplate(field=field)
