"""Files that are written whole: whose a partial file is, and who may remove it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from merge_calib.errors import OutputError
from merge_calib.files import is_running, partial_of, remove_partial, this_host, write_text, written_whole

DAY = 86_400


@pytest.fixture
def ended():
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def living():
    """The number of another process, which lives."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def left(folder, name, host, process, age=0.0):
    """What somebody left half-written `age` seconds ago."""
    path = folder / f".{name}.partial-{host}-{process}"
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_partial_file_says_whose_it_is(tmp_path):
    path = tmp_path / "record.json"
    with written_whole(path) as partial:
        assert partial == partial_of(path)
        assert partial.name == f".record.json.partial-{this_host()}-{os.getpid()}"
        partial.write_text("whole")
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_the_name_of_a_host_is_safe_in_a_file_name(monkeypatch):
    for name in ("node-7.cluster.example", "a/b c\n.partial-x", "x" * 300, "größe"):
        this_host.cache_clear()
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        assert set(this_host()) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        assert len(this_host()) <= 25
    this_host.cache_clear()


def test_processes_of_one_host_agree_on_its_name():
    code = "from merge_calib.files import this_host; print(this_host())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == this_host()


def test_a_killed_process_that_nobody_waited_for_is_gone(ended):
    with subprocess.Popen(["sleep", "60"]) as process:
        assert is_running(process.pid)
        process.send_signal(signal.SIGSTOP)
        assert is_running(process.pid)
        process.kill()
        deadline = time.monotonic() + 10
        while is_running(process.pid) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not is_running(process.pid)
        os.kill(process.pid, 0)  # the system alone would say that it is there
    assert not is_running(ended)
    assert not is_running(10**30)
    assert is_running(os.getpid())


@pytest.mark.parametrize("clean", ["the folder", "the next writer"])
def test_only_what_nobody_is_writing_is_removed(tmp_path, ended, living, clean):
    gone = [
        left(tmp_path, "a", this_host(), ended),
        left(tmp_path, "a", "elsewhere-1", living, age=DAY + 60),
        left(tmp_path, "a", "elsewhere-1", ended, age=DAY + 60),
        left(tmp_path, "a", "no_number", "x", age=DAY + 60),
    ]
    stay = [
        left(tmp_path, "a", this_host(), living, age=DAY + 60),
        left(tmp_path, "a", this_host(), os.getppid()),
        left(tmp_path, "a", "elsewhere-2", ended, age=DAY - 60),
        left(tmp_path, "a", "no_number", "y"),
    ]
    plain = tmp_path / "a.partial-1"  # no partial file: it has no dot
    plain.write_text("mine")
    if clean == "the folder":
        remove_partial(tmp_path)
    else:
        write_text(tmp_path / "a", "whole")
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in [*stay, plain])


def test_a_folder_that_another_host_is_still_filling_stays(tmp_path):
    folder = tmp_path / "checkpoints" / ".merged.partial-elsewhere-7"
    inner = folder / "shards" / "one"
    inner.parent.mkdir(parents=True)
    inner.write_text("half")
    for path in (inner.parent, folder):
        os.utime(path, (time.time() - 2 * DAY,) * 2)
    remove_partial(tmp_path)
    assert inner.exists()
    os.utime(inner, (time.time() - 2 * DAY,) * 2)
    remove_partial(tmp_path)
    assert not folder.exists()


def test_the_folder_may_change_while_it_is_cleaned(tmp_path, ended, monkeypatch):
    """Another worker's file gets its final name between the listing and the look at it."""
    left(tmp_path, "a", "elsewhere-1", ended, age=DAY + 60)
    orphan = left(tmp_path, "b", this_host(), ended)

    def renamed(path):
        path.rename(tmp_path / "a")
        return path.stat().st_mtime

    monkeypatch.setattr("merge_calib.files._last_change", renamed)
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert not orphan.exists()
    remove_partial(tmp_path / "not there")


def test_what_an_earlier_process_of_our_number_left_is_in_nobodys_way(tmp_path):
    """The first process of a container has the same number each time."""
    orphan = partial_of(tmp_path / "merged")
    orphan.mkdir()
    (orphan / "half").write_text("half")
    with written_whole(tmp_path / "merged") as partial:
        partial.mkdir()
        (partial / "whole").write_text("whole")
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["whole"]


def test_a_folder_that_refuses_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file/record\.json: File exists"):
        write_text(tmp_path / "file" / "record.json", "x")
