"""The text form of HellaSwag becomes the official schema, or one error at its line."""

import bz2
import json
import re
import sys
from collections import Counter
from pathlib import Path

import hellaswag_from_text as tool
import pytest

from merge_calib.errors import InputError
from merge_calib.tasks import Library, load_task

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "hellaswag" / "hellaswag_val_full.txt.bz2"
ITEM = "Sailing: A man: old. he\n2\neats it.\nfolds it.\npulls it up.\ntunes it.\n"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["hellaswag_from_text.py", *map(str, arguments)])
    return int(tool.main())


@pytest.mark.parametrize("packed", [False, True])
def test_an_item_is_written_in_the_official_schema(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "source", tmp_path / "hellaswag" / "hellaswag_val.jsonl"
    source.write_bytes(bz2.compress(ITEM.encode()) if packed else ITEM.encode())
    assert run(monkeypatch, source, out) == 0
    assert json.loads(out.read_text()) == {
        "ind": 0,
        "activity_label": "Sailing",
        "ctx_a": "A man: old. he",
        "ctx_b": "",
        "ctx": "A man: old. he",
        "split": "val",
        "label": 2,
        "endings": ["eats it.", "folds it.", "pulls it up.", "tunes it."],
    }
    (question,) = load_task("hellaswag", Library(tmp_path)).questions
    assert (question.context, question.answer) == ("Sailing: A man: old. he", 2)


@pytest.mark.parametrize(
    ("content", "number", "reason"),
    [
        (ITEM + "Rowing: A man\n0\n", 8, "the file ends inside an item: 8 lines are no multiple of 6"),
        (ITEM + ITEM.replace("\n2\n", "\n4\n"), 8, "the label must be 0 to 3, not '4'"),
        (ITEM.replace("\n2\n", "\nC\n"), 2, "the label must be 0 to 3, not 'C'"),
        (ITEM.replace("folds it.", " "), 4, "the line is empty"),
        (ITEM.replace(":", ""), 1, "no ': ' between activity label and context"),
    ],
)
def test_a_bad_item_is_refused_at_its_line(content: str, number: int, reason: str, tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(source))}:{number}: {re.escape(reason)}"):
        tool.parse_items(source)


@pytest.mark.parametrize("content", [bz2.compress(ITEM.encode())[:-9], b"BZh9 no archive", b"\xff\n" * 6])
def test_a_damaged_file_is_one_message_and_writes_nothing(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "source", tmp_path / "out.jsonl"
    source.write_bytes(content)
    with pytest.raises(SystemExit, match=f"^error: {re.escape(str(source))}: "):
        run(monkeypatch, source, out)
    assert not out.exists()


@pytest.mark.skipif(not REAL.is_file(), reason="the real text is not beside the checkout")
def test_the_real_text_becomes_the_10042_validation_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, REAL, tmp_path / "hellaswag" / "hellaswag_val.jsonl") == 0
    questions = load_task("hellaswag", Library(tmp_path)).questions
    assert len(questions) == len({q.id for q in questions}) == 10042
    assert Counter(q.answer for q in questions) == {0: 2515, 1: 2485, 2: 2584, 3: 2458}
    assert all(len(set(q.choices)) == 4 for q in questions)
