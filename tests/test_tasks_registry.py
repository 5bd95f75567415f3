"""What can be asked is found in the data folder, and what cannot is said with the flag that gives it."""

import shutil
from pathlib import Path

import pytest

from merge_calib.errors import InputError
from merge_calib.tasks import BENCHMARKS, Library, available_tasks, known_tasks, load_task

DATA = Path(__file__).parent / "fixtures" / "tasks"
LIBRARY = Library(DATA)


def test_all_benchmarks_of_a_full_folder_are_available_in_the_tables_order() -> None:
    assert available_tasks(LIBRARY) == ["arc_easy", "arc_challenge", "hellaswag", "medmcqa", "mmlu", "piqa", "sciq"]
    assert available_tasks(LIBRARY) == list(BENCHMARKS)


def test_a_benchmark_with_one_of_two_files_is_not_available(tmp_path: Path) -> None:
    (tmp_path / "piqa").mkdir()
    shutil.copy(DATA / "piqa" / "valid.jsonl", tmp_path / "piqa")
    assert available_tasks(Library(tmp_path)) == []


def test_without_a_data_folder_nothing_is_available() -> None:
    assert available_tasks() == []


def test_with_the_hub_every_whole_benchmark_is_available_and_nothing_else() -> None:
    assert available_tasks(Library(hub=True)) == list(BENCHMARKS)


def test_the_list_of_known_tasks_names_parts_passages_and_whether_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "clm").mkdir()
    shutil.copytree(DATA / "piqa", tmp_path / "piqa")
    known = {task.name: task for task in known_tasks(Library(tmp_path))}
    assert [name for name, task in known.items() if task.held] == ["piqa", "clm"]
    assert {"mmlu_stem", "mmlu_humanities", "mmlu_social_sciences", "mmlu_other", "mmlu_SUBJECT", "facts"} < set(known)
    assert all(task.description for task in known.values())


def test_a_data_folder_may_hold_links_to_folders(tmp_path: Path) -> None:
    (tmp_path / "mmlu").symlink_to(DATA / "mmlu")
    assert len(load_task("mmlu", Library(tmp_path))) == 6


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_limit_keeps_the_first_questions(name: str) -> None:
    assert load_task(name, LIBRARY, limit=2).questions == load_task(name, LIBRARY).questions[:2]


def test_a_limit_above_the_number_of_questions_keeps_all() -> None:
    assert load_task("piqa", LIBRARY, limit=1000) == load_task("piqa", LIBRARY)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(InputError, match=f"^--limit {limit}: at least one"):
        load_task("piqa", LIBRARY, limit)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_a_missing_file_is_named_with_the_flag(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_task(name, Library(tmp_path))
    assert f"--data-dir {tmp_path}" in str(caught.value)
    for layout in BENCHMARKS[name].asked.layouts:
        assert all(file in str(caught.value) for file in layout)


def test_a_benchmark_without_a_data_folder_asks_for_the_flag() -> None:
    files = "a folder with piqa/valid.jsonl and piqa/valid-labels.lst, or the saved data set baber/piqa"
    with pytest.raises(
        InputError, match=f"^task piqa needs --data-dir, {files}; .*pip install 'merge-calib\\[hub\\]'$"
    ):
        load_task("piqa")


def test_a_data_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(InputError, match=r"--data-dir .*absent: there is no such folder"):
        Library(absent)
    with pytest.raises(InputError, match=r"--task-dir .*absent: there is no such folder"):
        Library(task_dir=absent)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mmul", "; did you mean mmlu"),
        ("ARC-Easy", "; did you mean arc_easy?"),
        ("mmlu_abstract_algebr", "; did you mean mmlu_abstract_algebra?"),
        ("mmlu_STEM", "; did you mean mmlu_stem?"),
        ("fact", "; did you mean facts?"),
        ("nothing like it", "NAME.jsonl"),
    ],
)
def test_an_unknown_task_is_refused_with_the_known_ones(name: str, meant: str) -> None:
    with pytest.raises(InputError) as caught:
        load_task(name, LIBRARY)
    message = str(caught.value)
    assert message.startswith(f"unknown task {name!r} in --tasks: there are arc_easy, ")
    assert "mmlu_stem, mmlu_humanities, mmlu_social_sciences, mmlu_other, mmlu_SUBJECT, clm, facts" in message
    assert meant in message


def test_a_benchmarks_name_means_the_benchmark_beside_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mmlu").write_text("not questions")
    monkeypatch.chdir(tmp_path)
    assert load_task("mmlu", LIBRARY).style == "mmlu"


def test_a_sampled_limit_depends_on_its_seed() -> None:
    samples = {tuple(q.id for q in load_task("mmlu", LIBRARY, 3, seed).questions) for seed in range(20)}
    assert {len(sample) for sample in samples} == {3}
    assert len(samples) > 5
