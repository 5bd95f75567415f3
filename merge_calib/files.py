"""Files that are written whole or not at all."""

import csv
import glob
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from merge_calib.errors import OutputError

_MARK = ".partial-"
_DAY = 86_400.0  # seconds: what another host left half-written for so long is nobody's any more


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write a file or a folder under; rename it to `path` at the end.

    If anything fails, the temporary is removed and `path` is as it was. Raises OutputError when the system refuses
    to write (a full disk, a read-only folder).
    """
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path)
        _remove(partial)  # of a process that is gone and had our number, as the first process of a container has
        yield partial
        _sync(partial)
        partial.replace(path)
        sync(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {reason}. It was not written; all else is as it was.") from error
    finally:
        with suppress(OSError):
            _remove(partial)


@contextmanager
def ended_gently() -> Iterator[None]:
    """Make SIGTERM raise SystemExit within, so that what is half written is removed; exit code 143 as without."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one must not cut the cleaning up short
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with newlines as they are."""
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN is an error, absent numbers are null."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The text of a CSV file; floats are written so that they read back exactly, None as an empty field."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()


def partial_of(path: Path) -> Path:
    """The name that this process writes `path` under until it is whole: `.NAME.partial-HOST-PID`."""
    return path.with_name(f".{path.name}{_MARK}{this_host()}-{os.getpid()}")


@cache
def this_host() -> str:
    """A name for where process numbers mean what they mean here; letters, digits, `_` and `-`.

    Hosts may share a name, and containers of one host count their own processes: a hash of the kernel's start and of
    the process namespace tells them apart.
    """
    name = re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())[:16]
    known = ""
    with suppress(OSError):  # there is no /proc everywhere
        known = f"{Path('/proc/sys/kernel/random/boot_id').read_text()} {Path('/proc/self/ns/pid').readlink()}"
    return f"{name}-{hashlib.sha256(known.encode()).hexdigest()[:8]}" if known else name


def is_running(process: int) -> bool:
    """Whether a process of this host lives; one that was killed and not yet waited for does not."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it is there, and somebody else's
    return process_state(process)[:1] not in (["Z"], ["X"])


def process_state(process: int) -> list[str]:
    """What /proc/PID/stat says after the name of the process, the state first; empty where it cannot be read."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return []


def remove_partial(folder: Path) -> None:
    """Remove what processes that are gone were writing below `folder`."""
    for parent, folders, files in os.walk(folder):  # unlike rglob it bears that others rename and remove meanwhile
        for name in [name for name in (*folders, *files) if name.startswith(".") and _MARK in name]:
            _remove_orphan(Path(parent, name))
        folders[:] = [name for name in folders if not (name.startswith(".") and _MARK in name)]


def _remove_orphans(path: Path) -> None:
    """Remove what processes that are gone left of `path`."""
    for partial in path.parent.glob(f"{glob.escape(f'.{path.name}{_MARK}')}*"):
        _remove_orphan(partial)


def _remove_orphan(partial: Path) -> None:
    """Remove it where its process is gone; of another host nobody can say that, so there a day must have passed."""
    host, _, process = partial.name.rpartition(_MARK)[2].rpartition("-")
    with suppress(OSError):  # it may have got its final name by now
        if host == this_host() and process.isdecimal():
            is_orphan = not is_running(int(process))
        else:
            is_orphan = time.time() - _last_change(partial) > _DAY
        if is_orphan:
            _remove(partial)


def _last_change(path: Path) -> float:
    """When a file, or anything in a folder, was last written to."""
    return max(inner.lstat().st_mtime for inner in (path, *path.rglob("*")))


def sync(path: Path) -> None:
    """Wait until what was written to a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    if path.is_dir():
        for child in path.rglob("*"):
            sync(child)
    sync(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
