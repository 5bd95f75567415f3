"""What can be asked is found in the data folder, and what cannot is said with the flag that gives it."""

import shutil
from pathlib import Path

import pytest

from merge_calib.errors import InputError
from merge_calib.tasks import BENCHMARKS, available_tasks, load_task

DATA = Path(__file__).parent / "fixtures" / "tasks"


def test_all_benchmarks_of_a_full_folder_are_available_in_the_tables_order() -> None:
    assert available_tasks(DATA) == ["arc_easy", "arc_challenge", "hellaswag", "medmcqa", "mmlu", "piqa"]
    assert available_tasks(DATA) == list(BENCHMARKS)


def test_a_benchmark_with_one_of_two_files_is_not_available(tmp_path: Path) -> None:
    (tmp_path / "piqa").mkdir()
    shutil.copy(DATA / "piqa" / "valid.jsonl", tmp_path / "piqa")
    assert available_tasks(tmp_path) == []


def test_without_a_data_folder_nothing_is_available() -> None:
    assert available_tasks(None) == []


def test_a_data_folder_may_hold_links_to_folders(tmp_path: Path) -> None:
    (tmp_path / "mmlu").symlink_to(DATA / "mmlu")
    assert len(load_task("mmlu", tmp_path)) == 6


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_limit_keeps_the_first_questions(name: str) -> None:
    assert load_task(name, DATA, limit=2).questions == load_task(name, DATA).questions[:2]


def test_a_limit_above_the_number_of_questions_keeps_all() -> None:
    assert load_task("piqa", DATA, limit=1000) == load_task("piqa", DATA)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(InputError, match=f"^--limit {limit}: at least one"):
        load_task("piqa", DATA, limit)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_a_missing_file_is_named_with_the_flag(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_task(name, tmp_path)
    assert f"--data-dir {tmp_path}" in str(caught.value)
    for layout in BENCHMARKS[name].layouts:
        assert all(file in str(caught.value) for file in layout)


def test_a_benchmark_without_a_data_folder_asks_for_the_flag() -> None:
    expected = "task piqa needs --data-dir, a folder with piqa/valid.jsonl and piqa/valid-labels.lst"
    with pytest.raises(InputError, match=f"^{expected}$"):
        load_task("piqa", None)


def test_a_data_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for ask in (lambda: load_task("piqa", absent), lambda: available_tasks(absent)):
        with pytest.raises(InputError, match=r"--data-dir .*absent: there is no such folder"):
            ask()


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown task 'mmul' in --tasks: there are arc_easy, .* NAME\.jsonl"):
        load_task("mmul", DATA)


def test_a_benchmarks_name_means_the_benchmark_beside_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mmlu").write_text("not questions")
    monkeypatch.chdir(tmp_path)
    assert load_task("mmlu", DATA).style == "mmlu"
