"""ARC (Clark et al. 2018, arXiv 1803.05457): science questions of grade schools, 3 to 5 options.

Files: `arc_easy/test.jsonl` or the official `ARC-Easy/ARC-Easy-Test.jsonl`, also below `ARC-V1-Feb2018-2/`;
`arc_challenge` and `ARC-Challenge` in the same way; worked examples from `train.jsonl` and `-Train.jsonl`,
questions to select by from `dev.jsonl` and `-Dev.jsonl`. A line is
`{"id": ..., "question": {"stem": ..., "choices": [{"text": ..., "label": ...}, ...]}, "answerKey": ...}`,
with labels A, B, ... or 1, 2, ...; other keys are ignored.
Hub: `allenai/ai2_arc`, a row `{"id", "question", "choices": {"text": [...], "label": [...]}, "answerKey"}`.
"""

from collections.abc import Sequence
from pathlib import Path

from merge_calib.errors import InputError
from merge_calib.tasks.benchmark import Benchmark, Draft, Part
from merge_calib.tasks.hub import HubData
from merge_calib.tasks.lines import Rows, Values, objects, read_objects, require_object, required, text, texts


def read(paths: Sequence[Path]) -> Rows:
    """The lines of one ARC file."""
    return read_objects(paths[0])


def parse(values: Values) -> Draft:
    """One line of an original file."""
    body = require_object(required(values, "question"), "'question'")
    options = [require_object(option, "a choice") for option in objects(body, "choices")]
    choices = [text(option, "text") for option in options]
    labels = [text(option, "label") for option in options]
    return Draft(text(body, "stem"), choices, _answer(labels, text(values, "answerKey")), id=text(values, "id"))


def parse_hub(values: Values) -> Draft:
    """One row of the hub's data set."""
    options = require_object(required(values, "choices"), "'choices'")
    choices, labels = texts(options, "text"), texts(options, "label")
    if len(choices) != len(labels):
        raise InputError(f"'choices' has {len(choices)} texts and {len(labels)} labels")
    return Draft(text(values, "question"), choices, _answer(labels, text(values, "answerKey")), id=text(values, "id"))


def _answer(labels: Sequence[str], key: str) -> int:
    if labels.count(key) != 1:
        raise InputError(f"answerKey {key!r} must be one of the labels, which are {', '.join(labels)}")
    return labels.index(key)


def _part(ours: str, official: str, file: str, split: str) -> Part:
    official_file = f"{official}/{official}-{file.capitalize()}.jsonl"
    layouts = ((f"{ours}/{file}.jsonl",), (official_file,), (f"ARC-V1-Feb2018-2/{official_file}",))
    return Part(layouts, split)


def _benchmark(name: str, official: str, description: str) -> Benchmark:
    asked, shown = (_part(name, official, split, split) for split in ("test", "train"))
    validation = _part(name, official, "dev", "validation")
    hub = HubData("allenai/ai2_arc", ((official,),))
    rest = read, parse, hub, parse_hub
    return Benchmark(name, "select", description, asked, shown, *rest, validation=validation, may_vary=True)


ARC_EASY = _benchmark("arc_easy", "ARC-Easy", "ARC-Easy, test: grade-school science")
ARC_CHALLENGE = _benchmark(
    "arc_challenge", "ARC-Challenge", "ARC-Challenge, test: the science questions that retrieval gets wrong"
)
