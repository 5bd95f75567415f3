"""Whatever is wrong in a question file is one InputError that begins with FILE:LINE."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from merge_calib.errors import InputError
from merge_calib.tasks import Library, load_task

OWN = {"id": "a", "question": "2 + 2?", "choices": ["3", "4"], "answer": 1}
ARC = {
    "id": "a",
    "question": {"stem": "2 + 2?", "choices": [{"text": "3", "label": "A"}, {"text": "4", "label": "B"}]},
    "answerKey": "B",
}
HELLASWAG = {
    "activity_label": "Sums",
    "ctx_a": "She adds.",
    "ctx_b": "she",
    "endings": ["naps.", "gets 4."],
    "label": 1,
}
MEDMCQA = {
    "id": "a",
    "question": "2 + 2?",
    "opa": "1",
    "opb": "2",
    "opc": "3",
    "opd": "4",
    "cop": 4,
    "subject_name": "S",
}
PIQA = {"goal": "Add.", "sol1": "Nap.", "sol2": "Count."}

SCIQ = {"question": "q", "correct_answer": "a", "distractor1": "b", "distractor2": "c", "distractor3": "d"}

FILES = {
    "arc_easy": "arc_easy/test.jsonl",
    "arc_challenge": "ARC-Challenge/ARC-Challenge-Test.jsonl",
    "hellaswag": "hellaswag/hellaswag_val.jsonl",
    "medmcqa": "medmcqa/dev.json",
    "piqa": "piqa/valid.jsonl",
    "mmlu": "mmlu/test/sums_test.csv",
    "sciq": "sciq/test.json",
}


def refusal(name: str, folder: Path) -> str:
    """The message with which a task is refused."""
    with pytest.raises(InputError) as caught:
        load_task(name, Library(folder))
    return str(caught.value)


def write(folder: Path, file: str, content: str | bytes) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def line(values: dict[str, Any], **changed: Any) -> str:
    """`values` as a line of JSON, with keys changed, or left out where None."""
    return json.dumps({key: value for key, value in (values | changed).items() if value is not None}) + "\n"


GOOD = line(OWN)
BAD_OWN: list[tuple[str, str | bytes, int, str]] = [
    ("an empty file", "", 1, "the file is empty"),
    ("only a byte-order mark", b"\xef\xbb\xbf", 1, "the file is empty"),
    ("only a newline", "\n", 1, "the line is empty"),
    ("an empty line between", GOOD + "\n" + GOOD, 2, "the line is empty"),
    ("a line of blanks", GOOD + " \t\n", 2, "the line is empty"),
    ("two newlines at the end", GOOD + "\n", 2, "the line is empty"),
    ("a cut line", GOOD + GOOD[:20], 2, "not valid JSON: .* at column"),
    ("a trailing comma", GOOD[:-2] + ",}\n", 1, "not valid JSON: .* at column"),
    ("a comma after the object", GOOD[:-1] + ",\n", 1, "not valid JSON: .* at column"),
    ("brackets without end", "[" * 100_000, 1, "not valid JSON"),
    ("a number without end", '{"answer": ' + "1" * 5000 + "}", 1, "not valid JSON"),
    ("a list", "[1, 2]\n", 1, r"the line must be a JSON object \{\.\.\.\}, not a list"),
    ("a text", '"x"\n', 1, "the line must be a JSON object .* not the text 'x'"),
    ("null", GOOD + "null\n", 2, "the line must be a JSON object .* not null"),
    ("not UTF-8", GOOD.encode() + b'{"id": "\xe9"}\n', 2, "not UTF-8 text: byte 0xe9 at column 9"),
    ("UTF-16", GOOD.encode("utf-16"), 1, "not UTF-8 text"),
    ("no question", line(OWN, question=None), 1, "key 'question' is missing; here are: 'id', 'choices', 'answer'"),
    ("no choices", line(OWN, choices=None), 1, "key 'choices' is missing; here are: 'id', 'question', 'answer'"),
    ("a slip in a key", line(OWN, answer=None, anwser=1), 1, "key 'answer' is missing; here are: .*'anwser'"),
    ("no key at all", "{}\n", 1, "key 'question' is missing; here are: no key"),
    ("a number as question", line(OWN, question=3), 1, "'question' must be a text, not 3"),
    ("an empty question", line(OWN, question=""), 1, "the question is empty"),
    ("a blank question", line(OWN, question=" \n"), 1, "the question is empty"),
    ("choices in a text", line(OWN, choices="3, 4"), 1, "'choices' must be a list, not the text '3, 4'"),
    ("choices in an object", line(OWN, choices={"A": "3"}), 1, "'choices' must be a list, not an object"),
    ("a number as choice", line(OWN, choices=["3", 4]), 1, "'choices' must be a list of texts, its item 1 is 4"),
    ("null as choice", '{"question": "q", "choices": ["3", null], "answer": 0}', 1, "its item 1 is null"),
    ("an empty choice", line(OWN, choices=["3", ""]), 1, r"choice 1 \(of 0 to 1\) is empty"),
    ("a blank choice", line(OWN, choices=[" ", "4"]), 1, r"choice 0 \(of 0 to 1\) is empty"),
    ("no choice", line(OWN, choices=[]), 1, "a question needs at least 2 choices, this one has 0"),
    ("one choice", line(OWN, choices=["4"], answer=0), 1, "a question needs at least 2 choices, this one has 1"),
    ("27 choices", line(OWN, choices=[str(i) for i in range(27)]), 1, "at most 26 choices"),
    ("an index above", line(OWN, answer=2), 1, r"answer 2 is outside the choices 0\.\.1"),
    ("an index below", line(OWN, answer=-1), 1, r"answer -1 is outside the choices 0\.\.1"),
    ("a letter above", line(OWN, answer="C"), 1, "answer 'C' is outside the 2 choices"),
    ("two letters", line(OWN, answer="AB"), 1, "'answer' must be a 0-based index or a letter, not the text 'AB'"),
    ("a letter that unfolds to two", line(OWN, answer="\ufb06"), 1, "'answer' must be a 0-based index or a letter"),
    ("an empty answer", line(OWN, answer=""), 1, "'answer' must be a 0-based index or a letter, not the text ''"),
    ("a digit in quotes", line(OWN, answer="1"), 1, "'answer' must be a 0-based index or a letter, not the text '1'"),
    ("true", line(OWN, answer=True), 1, "'answer' must be a 0-based index or a letter, not true"),
    ("a fraction", line(OWN, answer=1.0), 1, "'answer' must be a 0-based index or a letter, not 1.0"),
    ("a list of answers", line(OWN, answer=[1]), 1, "'answer' must be a 0-based index or a letter, not a list"),
    ("a fraction as id", line(OWN, id=7.5), 1, "'id' must be a text, not 7.5"),
    ("an empty id", line(OWN, id=""), 1, "the question's id is empty"),
    ("a number as context", line(OWN, context=7), 1, "'context' must be a text, not 7"),
    ("a list as subject", line(OWN, subject=["x"]), 1, "'subject' must be a text, not a list"),
    ("half a surrogate pair", GOOD + line(OWN, question="\ud83d"), 2, "half of a surrogate pair"),
]


@pytest.mark.parametrize(("content", "number", "reason"), [case[1:] for case in BAD_OWN], ids=[c[0] for c in BAD_OWN])
def test_a_bad_own_file_is_refused_at_its_line(content: str | bytes, number: int, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, "own.jsonl", content)
    message = refusal(str(path), tmp_path)
    assert message.startswith(f"{path}:{number}: ")
    assert re.search(reason, message)
    assert "\n" not in message


def test_an_id_given_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    path = write(tmp_path, "own.jsonl", GOOD + line(OWN, id="b") + line(OWN, question="3 + 1?"))
    assert refusal(str(path), tmp_path) == f"{path}:3: id 'a' stands already at {path}:1"


@pytest.mark.parametrize("name", FILES)
def test_an_empty_benchmark_file_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, FILES[name], "")
    write(tmp_path, "piqa/valid-labels.lst", "0\n")
    assert refusal(name, tmp_path) == f"{path}:1: the file is empty"


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("mmlu", "sciq")])
@pytest.mark.parametrize(
    ("content", "reason"), [("\n\n", "the line is empty"), ("{,}\n", "not valid JSON"), ("{}\n", "is missing")]
)
def test_a_bad_line_of_a_benchmark_is_refused_at_its_place(
    name: str, content: str, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path, FILES[name], content)
    write(tmp_path, "piqa/valid-labels.lst", "0\n" * content.count("\n"))
    message = refusal(name, tmp_path)
    assert message.startswith(f"{path}:1: ")
    assert reason in message


def arc(*choices: tuple[Any, Any], key: Any = "A", stem: Any = "q") -> str:
    options = [{"text": text, "label": label} for text, label in choices]
    return line(ARC, question={"stem": stem, "choices": options}, answerKey=key)


BAD_LINES = [
    ("arc_easy", arc(("3", "A"), ("4", "B"), key="C"), "answerKey 'C' must be one of the labels, which are A, B"),
    ("arc_easy", arc(("3", "1"), ("4", "2"), key="A"), "answerKey 'A' must be one of the labels, which are 1, 2"),
    ("arc_easy", arc(("3", "A"), ("4", "A")), "answerKey 'A' must be one of the labels, which are A, A"),
    ("arc_easy", arc(("3", 1), ("4", 2)), "'label' must be a text, not 1"),
    ("arc_easy", arc(("3", "A"), ("4", "B"), key=0), "'answerKey' must be a text, not 0"),
    ("arc_easy", arc(("3", "A")), "a question needs at least 2 choices, this one has 1"),
    ("arc_easy", arc(("3", "A"), (None, "B")), "'text' must be a text, not null"),
    ("arc_easy", arc(("3", "A"), ("", "B")), r"choice 1 \(of 0 to 1\) is empty"),
    ("arc_easy", arc(("3", "A"), ("4", "B"), stem=" "), "the question is empty"),
    ("arc_easy", line(ARC, question="2 + 2?"), "'question' must be a JSON object .* not the text '2 \\+ 2\\?'"),
    ("arc_easy", line(ARC, question={"stem": "q", "choices": ["3", "4"]}), "a choice must be a JSON object"),
    ("arc_easy", line(ARC, id=None), "key 'id' is missing"),
    ("hellaswag", line(HELLASWAG, label=2), r"answer 2 is outside the choices 0\.\.1"),
    ("hellaswag", line(HELLASWAG, label="1"), "'label' must be a whole number, not the text '1'"),
    ("hellaswag", line(HELLASWAG, label=True), "'label' must be a whole number, not true"),
    ("hellaswag", line(HELLASWAG, label=1.0), "'label' must be a whole number, not 1.0"),
    ("hellaswag", line(HELLASWAG, ctx_b=None), "key 'ctx_b' is missing"),
    ("hellaswag", line(HELLASWAG, endings=["naps.", "[step]"]), r"choice 1 \(of 0 to 1\) is empty"),
    ("hellaswag", line(HELLASWAG, endings="naps."), "'endings' must be a list"),
    ("medmcqa", line(MEDMCQA, cop=0), "'cop' must be 1 to 4, not 0"),
    ("medmcqa", line(MEDMCQA, cop=5), "'cop' must be 1 to 4, not 5"),
    ("medmcqa", line(MEDMCQA, cop="4"), "'cop' must be a whole number, not the text '4'"),
    ("medmcqa", line(MEDMCQA, cop=None), "key 'cop' is missing"),
    ("medmcqa", line(MEDMCQA, opd=None), "key 'opd' is missing"),
    ("medmcqa", line(MEDMCQA, opd=""), r"choice 3 \(of 0 to 3\) is empty"),
    ("piqa", line(PIQA, sol2=None), "key 'sol2' is missing"),
    ("piqa", line(PIQA, sol1=" "), r"choice 0 \(of 0 to 1\) is empty"),
]
GOOD_LINES = {"arc_easy": line(ARC), "hellaswag": line(HELLASWAG), "medmcqa": line(MEDMCQA), "piqa": line(PIQA)}


@pytest.mark.parametrize(("name", "bad", "reason"), BAD_LINES)
def test_a_bad_question_of_a_benchmark_is_refused_at_its_line(name: str, bad: str, reason: str, tmp_path: Path) -> None:
    good = GOOD_LINES[name].replace('"id": "a"', '"id": "first"')
    path = write(tmp_path, FILES[name], good + bad)
    write(tmp_path, "piqa/valid-labels.lst", "0\n1\n")
    message = refusal(name, tmp_path)
    assert message.startswith(f"{path}:2: ")
    assert re.search(reason, message)


@pytest.mark.parametrize("name", ["arc_easy", "medmcqa"])
def test_a_benchmarks_own_id_given_twice_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, FILES[name], GOOD_LINES[name] * 2)
    assert refusal(name, tmp_path) == f"{path}:2: id 'a' stands already at {path}:1"


@pytest.mark.parametrize(
    ("labels", "number", "reason"),
    [
        ("0\n2\n", 2, "a label must be 0 or 1, not '2'"),
        ("A\n1\n", 1, "a label must be 0 or 1, not 'A'"),
        ("0\n\n", 2, "a label must be 0 or 1, not ''"),
        ("", 1, "the file is empty"),
        ("0\n", 1, "the file ends here with 1 labels, .*valid.jsonl has 2 questions"),
        ("0\n1\n1\n", 3, "the file ends here with 3 labels, .*valid.jsonl has 2 questions"),
    ],
)
def test_bad_piqa_labels_are_refused_at_their_line(labels: str, number: int, reason: str, tmp_path: Path) -> None:
    write(tmp_path, FILES["piqa"], line(PIQA) * 2)
    path = write(tmp_path, "piqa/valid-labels.lst", labels)
    message = refusal("piqa", tmp_path)
    assert message.startswith(f"{path}:{number}: ")
    assert re.search(reason, message)


@pytest.mark.parametrize(
    ("content", "number", "reason"),
    [
        ("q,1,2,3,A\n", 1, "6 columns are needed .* here are 5"),
        ("q,1,2,3,4,A\nq, with a comma,1,2,3,4,A\n", 2, "6 columns are needed .* here are 7"),
        ("q,1,2,3,4,A\n\nq,1,2,3,4,A\n", 2, "6 columns are needed .* here are 0"),
        ('"two\nlines",1,2,3,4,A\nq,1,2,3,4\n', 3, "here are 5"),
        ('q,1,2,3,4,A\n"three\n\nlines",1,2,3,4,E\n', 2, "the answer must be one of A, B, C, D, not 'E'"),
        ("q,1,2,3,4,a\n", 1, "the answer must be one of A, B, C, D, not 'a'"),
        ("q,1,2,3,4,1\n", 1, "the answer must be one of A, B, C, D, not '1'"),
        ("q,1,2,3,4,\n", 1, "the answer must be one of A, B, C, D, not ''"),
        ("q,1,,3,4,A\n", 1, r"choice 1 \(of 0 to 3\) is empty"),
        (",1,2,3,4,A\n", 1, "the question is empty"),
        ('q,1,2,3,4,A\n"never closed,1,2,3,4,A\nq,1,2,3,4,A\n', 2, "not valid CSV"),
        ('q,1,2,3,4,A\n"quoted"not,1,2,3,4,A\n', 2, "not valid CSV"),
        (b"q,1,2,3,4,A\nq,\xff,2,3,4,A\n", 2, "not UTF-8 text: byte 0xff at column 3"),
    ],
)
def test_bad_mmlu_rows_are_refused_where_they_begin(
    content: str | bytes, number: int, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path, FILES["mmlu"], content)
    message = refusal("mmlu", tmp_path)
    assert message.startswith(f"{path}:{number}: ")
    assert re.search(reason, message)


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ("[", ":1", "not valid JSON: Expecting value at column 2"),
        ('[\n{"question": "q",}]', ":2", "not valid JSON: .* at column 18"),
        ("{}", "", r"the file must hold a JSON array \[...\], not an object"),
        ("[" * 100_000, "", "not valid JSON"),
        ("[]", "", "holds no questions"),
        ("[3]", "[0]", r"the item must be a JSON object \{...\}, not 3"),
        (f"[{line(SCIQ)}, {line(SCIQ, distractor2=None)}]", "[1]", "key 'distractor2' is missing"),
        (f"[{line(SCIQ, correct_answer=' ')}]", "[0]", r"choice \d \(of 0 to 3\) is empty"),
    ],
)
def test_a_bad_sciq_file_is_refused_at_its_item(content: str, place: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, FILES["sciq"], content)
    message = refusal("sciq", tmp_path)
    assert f"{path}{place}" in message
    assert re.search(reason, message)
