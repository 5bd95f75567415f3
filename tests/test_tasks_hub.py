"""Data sets of the hub, saved on disk in the hub's schema, give the same questions as the original files."""

import csv
import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from merge_calib.errors import InputError
from merge_calib.questions import TaskSet
from merge_calib.tasks import Library, available_tasks, load_task

datasets = pytest.importorskip("datasets")

ORIGINALS = Path(__file__).parent / "fixtures" / "tasks"
TEXT, NUMBER = datasets.Value("string"), datasets.Value("int64")
LETTERS = datasets.ClassLabel(names=["A", "B", "C", "D"])
Row = dict[str, Any]

# name: repository and configuration, split of the questions, original file of the questions, of worked examples
PLACES = {
    "arc_easy": ("allenai/ai2_arc/ARC-Easy", "test", "arc_easy/test.jsonl", "arc_easy/train.jsonl"),
    "hellaswag": ("Rowan/hellaswag", "validation", "hellaswag/hellaswag_val.jsonl", "hellaswag/hellaswag_train.jsonl"),
    "medmcqa": ("openlifescienceai/medmcqa", "validation", "medmcqa/dev.json", "medmcqa/train.json"),
    "piqa": ("baber/piqa", "validation", "piqa/valid.jsonl", "piqa/train.jsonl"),
    "sciq": ("allenai/sciq", "test", "sciq/test.json", "sciq/train.json"),
    "mmlu": ("cais/mmlu/all", "test", "mmlu/test", "mmlu/dev"),
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def hub_arc(path: Path) -> list[Row]:
    rows = []
    for item in json_lines(path):
        options = item["question"]["choices"]
        choices = {key: [option[key] for option in options] for key in ("text", "label")}
        rows.append(item | {"question": item["question"]["stem"], "choices": choices})
    return rows


def hub_hellaswag(path: Path) -> list[Row]:
    return [item | {"label": str(item["label"])} for item in json_lines(path)]


def hub_medmcqa(path: Path) -> list[Row]:
    return [item | {"cop": item["cop"] - 1} for item in json_lines(path)]


def hub_piqa(path: Path) -> list[Row]:
    labels = path.with_name(path.stem + "-labels.lst").read_text().split()
    return [item | {"label": int(label)} for item, label in zip(json_lines(path), labels, strict=True)]


def hub_sciq(path: Path) -> list[Row]:
    return json.loads(path.read_text())


def hub_mmlu(folder: Path) -> list[Row]:
    """All subjects, in an order that is not that of their names."""
    rows = []
    for path in sorted(folder.glob("*.csv"), reverse=True):
        subject = path.name.removesuffix(f"_{folder.name}.csv")
        with path.open(encoding="utf-8", newline="") as file:
            for question, *choices, letter in csv.reader(file):
                row = {"question": question, "subject": subject, "choices": choices, "answer": "ABCD".index(letter)}
                rows.append(row)
    return rows


TO_HUB = {
    "arc_easy": hub_arc,
    "hellaswag": hub_hellaswag,
    "medmcqa": hub_medmcqa,
    "piqa": hub_piqa,
    "sciq": hub_sciq,
    "mmlu": hub_mmlu,
}
SCHEMA = {
    "medmcqa": {"cop": LETTERS},
    "piqa": {"label": datasets.ClassLabel(names=["0", "1"])},
    "mmlu": {"answer": LETTERS},
}


def json_lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def data_set(name: str, rows: list[Row], **options: Any) -> Any:
    made = datasets.Dataset.from_list(rows, **options)
    for column, feature in SCHEMA.get(name, {}).items():
        made = made.cast_column(column, feature)
    return made


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """The fixtures as original files, the questions turned into worked examples under other names."""
    folder = tmp_path / "originals"
    shutil.copytree(ORIGINALS, folder)
    for _, _, asked, shown in PLACES.values():
        if (folder / asked).is_file():
            shutil.copy(folder / asked, folder / shown)
    shutil.copy(folder / "piqa" / "valid-labels.lst", folder / "piqa" / "train-labels.lst")
    (folder / "mmlu" / "dev").mkdir()
    for path in (folder / "mmlu" / "test").iterdir():
        shutil.copy(path, folder / "mmlu" / "dev" / path.name.replace("_test.csv", "_dev.csv"))
    return folder


def save(name: str, originals: Path, folder: Path, *, alone: bool = False) -> Path:
    """Save the benchmark as the hub has it, with its worked examples or as the one split that is asked."""
    place, split, asked, shown = PLACES[name]
    whole = data_set(name, TO_HUB[name](originals / asked))
    examples = data_set(name, TO_HUB[name](originals / shown))
    both = datasets.DatasetDict({split: whole, "dev" if name == "mmlu" else "train": examples})
    (whole if alone else both).save_to_disk(str(folder / place))
    return folder / place


def comparable(task: TaskSet) -> TaskSet:
    return replace(task, source="", examples=dict(task.examples))


@pytest.mark.parametrize("name", PLACES)
def test_a_saved_data_set_gives_the_same_task_as_the_original_files(name: str, originals: Path, tmp_path: Path) -> None:
    saved = save(name, originals, tmp_path / "saved")
    ours, hubs = load_task(name, Library(originals)), load_task(name, Library(tmp_path / "saved"))
    assert comparable(hubs) == comparable(ours)
    assert hubs.sha256 == ours.sha256
    assert hubs.source == str(saved / PLACES[name][1])
    assert sum(map(len, hubs.examples.values())) == len(ours)
    assert available_tasks(Library(tmp_path / "saved")) == [name]


@pytest.mark.parametrize("name", PLACES)
def test_one_split_saved_alone_is_read_too(name: str, originals: Path, tmp_path: Path) -> None:
    save(name, originals, tmp_path, alone=True)
    assert load_task(name, Library(tmp_path)).questions == load_task(name, Library(originals)).questions


@pytest.mark.parametrize("name", PLACES)
def test_the_hub_is_asked_for_repository_configuration_and_split(
    name: str, originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, split, asked, _ = PLACES[name]
    asked_for = []

    def load_dataset(repo: str, config: str | None, split: str) -> Any:
        asked_for.append(("/".join(filter(None, (repo, config))), split))
        return data_set(name, TO_HUB[name](originals / asked))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = load_task(name, Library(hub=True))
    assert task.questions == load_task(name, Library(originals)).questions
    assert asked_for == [(place, split)]
    assert task.shots(task.questions[0], 0) == ()  # no worked example, no second request
    assert len(asked_for) == 1
    assert task.examples
    assert asked_for[1:] == [(place, "dev" if name == "mmlu" else "train")]


def test_a_subject_of_mmlu_is_read_from_all_or_from_its_own_configuration(tmp_path: Path) -> None:
    def row(subject: str, i: int) -> Row:
        return {"question": f"{subject} {i}?", "subject": subject, "choices": ["1", "2", "3", "4"], "answer": i}

    everything = [row(subject, i) for subject in ("virology", "anatomy", "astronomy") for i in range(2)]
    data_set("mmlu", everything).save_to_disk(str(tmp_path / "a" / "cais/mmlu/all"))
    data_set("mmlu", everything[2:4]).save_to_disk(str(tmp_path / "b" / "cais/mmlu/anatomy"))
    from_all, from_own = (load_task("mmlu_anatomy", Library(tmp_path / folder)) for folder in "ab")
    assert from_all.questions == from_own.questions
    assert [q.question for q in from_all.questions] == ["anatomy 0?", "anatomy 1?"]
    stem = load_task("mmlu_stem", Library(tmp_path / "a"))
    assert [q.subject for q in stem.questions] == ["anatomy", "anatomy", "astronomy", "astronomy"]
    with pytest.raises(InputError, match="task mmlu_humanities: .* holds no questions"):
        load_task("mmlu_humanities", Library(tmp_path / "a"))


def test_original_files_come_before_a_saved_data_set_and_that_before_the_hub(originals: Path, tmp_path: Path) -> None:
    save("sciq", originals, originals)
    assert load_task("sciq", Library(originals, hub=True)).source == str(originals / "sciq" / "test.json")
    save("sciq", originals, tmp_path / "saved")
    assert "saved" in load_task("sciq", Library(tmp_path / "saved", hub=True)).source


ARC_ROW = {"id": "a", "question": "2 + 2?", "choices": {"text": ["3", "4"], "label": ["A", "B"]}, "answerKey": "B"}
HELLASWAG_ROW = {"activity_label": "Sums", "ctx_a": "She adds.", "ctx_b": "she", "endings": ["naps.", "adds."]}
MEDMCQA_ROW = {"id": "a", "question": "q", "opa": "1", "opb": "2", "opc": "3", "opd": "4", "subject_name": "S"}
MMLU_ROW = {"question": "q", "subject": "anatomy", "choices": ["1", "2", "3", "4"], "answer": 0}
PIQA_ROW = {"goal": "Add.", "sol1": "Nap.", "sol2": "Count."}
BAD_ROWS = [
    ("arc_easy", ARC_ROW | {"answerKey": "C"}, "answerKey 'C' must be one of the labels, which are A, B"),
    ("arc_easy", ARC_ROW | {"answerKey": None}, "'answerKey' must be a text, not null"),
    ("arc_easy", ARC_ROW | {"choices": ["3", "4"]}, r"'choices' must be a JSON object .* not a list"),
    ("arc_easy", ARC_ROW | {"choices": {"text": ["3"], "label": ["A", "B"]}}, "'choices' has 1 texts and 2 labels"),
    ("hellaswag", HELLASWAG_ROW | {"label": ""}, "'label' must be the number of an ending, not the text ''"),
    ("hellaswag", HELLASWAG_ROW | {"label": None}, "'label' must be a text, not null"),
    ("hellaswag", HELLASWAG_ROW | {"label": "2"}, r"answer 2 is outside the choices 0\.\.1"),
    ("medmcqa", MEDMCQA_ROW | {"cop": -1}, "'cop' must be 0 to 3, not -1"),
    ("medmcqa", MEDMCQA_ROW | {"cop": 4}, "'cop' must be 0 to 3, not 4"),
    ("mmlu", MMLU_ROW | {"answer": None}, "'answer' must be a whole number, not null"),
    ("mmlu", MMLU_ROW | {"answer": 4}, r"answer 4 is outside the choices 0\.\.3"),
    ("mmlu", MMLU_ROW | {"choices": ["1", "2", "3"]}, "4 choices are needed, here are 3"),
    ("piqa", PIQA_ROW | {"label": 2}, r"answer 2 is outside the choices 0\.\.1"),
    ("piqa", PIQA_ROW | {"label": 0.5}, r"'label' must be a whole number, not 0\.5"),
    ("piqa", PIQA_ROW | {"label": 0, "sol1": " "}, r"choice 0 \(of 0 to 1\) is empty"),
    ("sciq", {"question": "q"}, "key 'correct_answer' is missing; here are: 'question'"),
]


@pytest.mark.parametrize(("name", "row", "reason"), BAD_ROWS)
def test_a_bad_row_is_refused_with_repository_configuration_split_and_number(
    name: str, row: Row, reason: str, originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, split, asked, _ = PLACES[name]
    good = TO_HUB[name](originals / asked)[0]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [good, row])
    with pytest.raises(InputError, match=reason) as caught:
        load_task(name, Library(hub=True))
    repo, _, config = place.partition("/")[2].partition("/")
    where = f"{place.partition('/')[0]}/{repo}[{', '.join(filter(None, (config, split)))}] row 1: "
    assert str(caught.value).startswith(where)


def test_a_bad_row_of_a_saved_data_set_is_refused_with_its_folder_and_number(tmp_path: Path) -> None:
    datasets.Dataset.from_list([PIQA_ROW | {"label": -1}]).save_to_disk(str(tmp_path / "baber/piqa"))
    with pytest.raises(InputError) as caught:
        load_task("piqa", Library(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / 'baber/piqa'} row 0: answer -1 is outside")


@pytest.mark.parametrize(
    "error",
    [ConnectionError("Couldn't reach 'baber/piqa' on the Hub\nmore"), datasets.exceptions.DatasetNotFoundError("no")],
)
def test_a_hub_that_gives_nothing_is_one_message_with_a_way_out(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError) as caught:
        load_task("piqa", Library(hub=True))
    message = str(caught.value)
    assert message.startswith(f"baber/piqa[validation] of the hub cannot be read: {type(error).__name__}: ")
    assert message.endswith("a folder with the files can be given with --data-dir, see merge-calib tasks")
    assert "\n" not in message


@pytest.mark.parametrize("hub", [True, False])
def test_without_the_package_its_extra_is_named(hub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.Dataset.from_list([PIQA_ROW | {"label": 0}]).save_to_disk(str(tmp_path / "baber/piqa"))
    real = importlib.import_module

    def import_module(name: str) -> Any:
        if name == "datasets":
            raise ModuleNotFoundError("No module named 'datasets'")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    library = Library(hub=True) if hub else Library(tmp_path)
    with pytest.raises(InputError, match=r"package datasets: pip install 'merge-calib\[hub\]'"):
        load_task("piqa", library)


def test_another_split_saved_alone_is_not_taken_for_the_questions(tmp_path: Path) -> None:
    rows = [PIQA_ROW | {"label": 0}]
    folder = tmp_path / "baber/piqa"
    datasets.Dataset.from_list(rows, split=datasets.NamedSplit("train")).save_to_disk(str(folder))
    assert available_tasks(Library(tmp_path)) == []
    with pytest.raises(InputError, match=r"task piqa: --data-dir .* does not hold .* the saved data set baber/piqa"):
        load_task("piqa", Library(tmp_path))


def test_a_dictionary_without_the_split_is_not_taken_for_the_questions(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([PIQA_ROW | {"label": 0}])
    datasets.DatasetDict(train=rows).save_to_disk(str(tmp_path / "baber/piqa"))
    assert available_tasks(Library(tmp_path)) == []


@pytest.mark.parametrize("content", ["", "[]", "{", "\udcff"])
def test_a_damaged_state_of_a_saved_data_set_is_one_message(content: str, tmp_path: Path) -> None:
    folder = tmp_path / "baber/piqa"
    folder.mkdir(parents=True)
    (folder / "state.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"state\.json: not the state of a saved data set"):
        load_task("piqa", Library(tmp_path))


def test_a_damaged_saved_data_set_is_one_message(tmp_path: Path) -> None:
    datasets.Dataset.from_list([PIQA_ROW | {"label": 0}]).save_to_disk(str(tmp_path / "baber/piqa"))
    next((tmp_path / "baber/piqa").glob("*.arrow")).write_bytes(b"no arrow")
    with pytest.raises(InputError, match=r"the saved data set .*baber/piqa cannot be read: "):
        load_task("piqa", Library(tmp_path))
