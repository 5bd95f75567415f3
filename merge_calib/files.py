"""Files that are written whole or not at all."""

import csv
import glob
import io
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from merge_calib.errors import OutputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write a file or a folder under; rename it to `path` at the end.

    If anything fails, the temporary is removed and `path` is as it was. Raises OutputError when the system refuses
    to write (a full disk, a read-only folder).
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path)
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


def _remove_orphans(path: Path) -> None:
    """Remove what processes that are gone left of `path`."""
    begin = f".{path.name}.partial-"
    for orphan in path.parent.glob(f"{glob.escape(begin)}*"):
        number = orphan.name.removeprefix(begin)
        if number.isdecimal() and int(number) != os.getpid() and not _is_running(int(number)):
            _remove(orphan)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is there, and somebody else's
    return True


def remove_partial(folder: Path) -> None:
    """Remove what `written_whole` was writing below `folder` when its process was killed."""
    for path in list(folder.rglob(".*.partial-*")):
        _remove(path)


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
