"""ARC (Clark et al. 2018, arXiv 1803.05457): science questions of grade schools, 3 to 5 options.

Files: `arc_easy/test.jsonl` or the official `ARC-Easy/ARC-Easy-Test.jsonl`, also below `ARC-V1-Feb2018-2/`;
`arc_challenge` and `ARC-Challenge` in the same way. A line is
`{"id": ..., "question": {"stem": ..., "choices": [{"text": ..., "label": ...}, ...]}, "answerKey": ...}`,
with labels A, B, ... or 1, 2, ...; other keys are ignored.
"""

from collections.abc import Sequence
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.tasks.benchmark import Benchmark, QuestionList
from merge_calib.tasks.lines import Values, located, objects, read_objects, require_object, required, text


def read(asked: QuestionList, paths: Sequence[Path]) -> None:
    """Add the questions of one ARC file."""
    for place, values in read_objects(paths[0]):
        with located(place):
            body = require_object(required(values, "question"), "'question'")
            options = [require_object(option, "a choice") for option in objects(body, "choices")]
            choices = [text(option, "text") for option in options]
            answer = _answer(options, text(values, "answerKey"))
            asked.add(place, text(body, "stem"), choices, answer, id=text(values, "id"))


def _answer(options: Sequence[Values], key: str) -> int:
    labels = [text(option, "label") for option in options]
    if labels.count(key) != 1:
        raise InputError(f"answerKey {key!r} must be one of the labels, which are {', '.join(labels)}")
    return labels.index(key)


def _layouts(ours: str, official: str) -> tuple[tuple[str, ...], ...]:
    official_file = f"{official}/{official}-Test.jsonl"
    return ((f"{ours}/test.jsonl",), (official_file,), (f"ARC-V1-Feb2018-2/{official_file}",))


ARC_EASY = Benchmark(
    "arc_easy", "select", "ARC-Easy, test: grade-school science", _layouts("arc_easy", "ARC-Easy"), read
)
ARC_CHALLENGE = Benchmark(
    "arc_challenge",
    "select",
    "ARC-Challenge, test: the science questions that retrieval gets wrong",
    _layouts("arc_challenge", "ARC-Challenge"),
    read,
)
