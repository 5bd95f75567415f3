"""Where a study is kept: a journal file, SQLite, or a database server."""

import fcntl
import importlib.util
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study, StudyDirection
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from merge_calib.errors import InputError, OutputError, RunDirectoryError

SECONDS_TO_CONNECT = 10
ALLOWED = "a path of a journal file, sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE or mysql://..."
# For each kind of server the drivers of SQLAlchemy: module to look for and what pip installs, the first one preferred.
_DRIVERS = {
    "postgresql": {"psycopg": ("psycopg", "psycopg[binary]"), "psycopg2": ("psycopg2", "psycopg2-binary")},
    "mysql": {"pymysql": ("pymysql", "PyMySQL"), "mysqldb": ("MySQLdb", "mysqlclient")},
}
_RECORD = b'{"op_code":'  # how each line of a journal begins


def open_storage(url_or_path: str | None, default: Path, *, workers: int) -> BaseStorage:
    """The storage that --storage names: a URL, a journal file's path, or None for the journal at `default`.

    A journal is for workers on one host, a server for any; SQLite for one worker. A server's storage has no open
    connection between two operations, so that none is shared with a forked process or lost in a long measurement; but
    each process opens its own storage. Raises InputError for what cannot be used and RunDirectoryError for a journal
    that is damaged; passwords are in no message.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url_or_path is None:
        default.parent.mkdir(parents=True, exist_ok=True)
        return _open_journal(default, default.name)
    if not url_or_path:
        raise InputError(f"--storage {url_or_path!r} is no file; allowed: {ALLOWED}")
    if "://" not in url_or_path:
        return _open_journal(Path(url_or_path), masked(url_or_path))
    return _open_database(url_or_path, workers)


def open_study(storage: BaseStorage, name: str, run_id: str, directions: Sequence[StudyDirection]) -> Study:
    """The study called `name`, made if it is not there; it remembers the run that it belongs to.

    Raises RunDirectoryError where a study of this name belongs to another run or has other directions.
    """
    with reachable(_place(storage)):
        if name in optuna.get_all_study_names(storage):
            study = optuna.load_study(study_name=name, storage=storage)
        else:
            study = optuna.create_study(
                study_name=name, storage=storage, directions=list(directions), load_if_exists=True
            )
        if study.directions != list(directions):
            here, asked = (" and ".join(d.name.lower() for d in ds) for ds in (study.directions, directions))
            raise _other_study(study, f"its objectives are to {here}, not to {asked}")
    require_same(study, "run", run_id)
    return study


def require_own(storage: BaseStorage, name: str, run_id: str | None) -> None:
    """Raise RunDirectoryError where the storage has a study called `name` that is not of the run; None is a new run."""
    with reachable(_place(storage)):
        if name not in optuna.get_all_study_names(storage):
            return
        study = optuna.load_study(study_name=name, storage=storage)
        if study.user_attrs.get("run") != run_id:
            raise _other_study(study, "it belongs to another run")


def require_same(study: Study, key: str, value: Any) -> None:
    """Let a new study remember `value`, a JSON value; raises RunDirectoryError where it remembers another one."""
    with reachable(place_of(study)):
        known = study.user_attrs.get(key)
        if known is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(key, value)
        elif known != value:
            raise _other_study(study, f"its {key} is {_short(known)}, not {_short(value)}")


def place_of(study: Study) -> str:
    """Where the study is kept, for people: the URL without its password or the journal's file."""
    return _place(study._storage)


def masked(url: str) -> str:
    """The URL with *** for its password."""
    hidden = re.sub(r"(//[^:/@]*):.*@", r"\1:***@", url)
    return re.sub(r"(password|passwd|pwd)=[^&]*", r"\1=***", hidden, flags=re.IGNORECASE)


@contextmanager
def reachable(place: str) -> Iterator[None]:
    """Turn what a storage raises when it is lost or refuses to write into one clear message."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise RunDirectoryError(
            f"--storage {place} cannot be used: {_reason(error)}. What it had heard is kept: start again to go on"
        ) from None
    except OSError as error:
        raise OutputError(f"cannot write --storage {place}: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise _damaged(place, str(error)) from error


class _Journal(JournalFileBackend):
    """Optuna's journal file, which says where it is."""

    def __init__(self, path: Path, label: str) -> None:
        super().__init__(str(path), _JournalLock(path, label))
        self.label = label


class _JournalLock(JournalFileOpenLock):
    """The system's lock on a journal, whose last record is whole once it is taken.

    Optuna's own locks are files, which a killed process leaves behind: the next one waits 30 seconds for them. This
    one goes with its process. A process that was killed while it wrote leaves a part of a record without a line end;
    whoever takes the lock next cuts it off, before anything is appended to it.
    """

    def __init__(self, path: Path, label: str) -> None:
        super().__init__(str(path))
        self._path = path
        self._label = label
        self._held: BinaryIO | None = None

    def acquire(self) -> bool:
        file = self._path.open("r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            _cut_torn_record(file, self._label)
        except BaseException:
            file.close()
            raise
        self._held = file
        return True

    def release(self) -> None:
        assert self._held is not None
        self._held.close()
        self._held = None


def _open_journal(path: Path, label: str) -> BaseStorage:
    try:
        if not path.parent.is_dir():
            raise InputError(f"--storage {label}: it lies in a folder that does not exist; allowed: {ALLOWED}")
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise _not_a_journal(label)
        journal = _Journal(path, label)
        lock = _JournalLock(path, label)
        lock.acquire()
        try:
            _require_journal(path, label)
        finally:
            lock.release()
        return JournalStorage(journal)
    except OSError as error:
        raise InputError(f"--storage {label} cannot be used: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        # The lines are records, but do not follow from one another.
        raise _damaged(label, f"{type(error).__name__}: {error}") from error


def _require_journal(path: Path, label: str) -> None:
    """Raise unless each line is a record: InputError for another kind of file, RunDirectoryError for a damaged one."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                assert "op_code" in json.loads(line)
            except (ValueError, AssertionError, TypeError) as error:
                if number == 1 and not line.startswith(_RECORD):
                    raise _not_a_journal(label) from error
                raise _damaged(label, f"line {number} is no record") from error


def _cut_torn_record(file: BinaryIO, label: str) -> None:
    """Drop a last line that has no end; raises InputError where it is not the beginning of a record."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read() in (b"", b"\n"):
        return
    file.seek(0)
    whole = file.read()
    end = whole.rfind(b"\n") + 1
    torn = whole[end:].rstrip(b"\0")  # a machine that lost its power may leave zeros
    if not (torn.startswith(_RECORD) or _RECORD.startswith(torn)):
        raise _not_a_journal(label)
    file.truncate(end)
    os.fsync(file.fileno())


def _open_database(url: str, workers: int) -> BaseStorage:
    label = masked(url)
    parsed = _parsed(url)
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        if workers > 1:
            raise InputError(
                f"--storage {label}: SQLite is for one worker alone: several wait for one another's locks and fail; "
                "give a journal file's path, or the URL of a PostgreSQL or MySQL server"
            )
        _require_sqlite_file(parsed, label)
        return _connected(lambda: RDBStorage(url), parsed)
    if kind not in _DRIVERS:
        raise InputError(f"--storage {label} is of an unknown kind; allowed: {ALLOWED}")
    parsed = _with_driver(parsed)
    patience = {} if "connect_timeout" in parsed.query else {"connect_timeout": SECONDS_TO_CONNECT}
    full = parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # a template to Optuna
    return _connected(lambda: RDBStorage(full, {"poolclass": NullPool, "connect_args": patience}), parsed)


def _require_sqlite_file(url: URL, label: str) -> None:
    """Raise InputError for a database in memory, which ends with the process, and for one of another program."""
    if url.database in (None, "", ":memory:"):
        raise InputError(f"--storage {label} names no file; allowed: sqlite:///FILE")
    path = Path(str(url.database))
    if path.is_file() and path.stat().st_size:
        engine = create_engine(url)
        try:
            tables = inspect(engine).get_table_names()
        except SQLAlchemyError as error:
            raise _unusable(url, error) from None
        finally:
            engine.dispose()
        if tables and "version_info" not in tables:
            raise InputError(f"--storage {label} is another program's database; it is left as it is")


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        if "@" in (parsed.host or ""):
            raise ValueError("an @ that is part of the password")
        return parsed
    except (ArgumentError, ValueError):
        # What they say may quote the password.
        raise InputError(
            f"--storage {masked(url)} is not a URL; allowed: {ALLOWED}; special characters in a password are written "
            "as %XX"
        ) from None


def _with_driver(url: URL) -> URL:
    """The URL with a driver that is installed, where it names none; raises InputError saying what to install."""
    drivers = _DRIVERS[url.get_backend_name()]
    named = url.drivername.partition("+")[2]
    if named and named not in drivers:
        raise InputError(f"--storage: the driver {named} is unknown; allowed: {', '.join(drivers)}")
    for driver, (module, _) in drivers.items():
        if named in ("", driver) and importlib.util.find_spec(module):
            return url.set(drivername=f"{url.get_backend_name()}+{driver}")
    package = drivers[named or next(iter(drivers))][1]
    raise InputError(
        f"--storage {masked(str(url))} needs a driver that is not installed: python -m pip install '{package}'"
    )


def _connected(make: Callable[[], RDBStorage], url: URL) -> RDBStorage:
    for attempt in range(5):
        try:
            return make()
        except (IntegrityError, ProgrammingError) as error:
            # Workers that start together make the tables of a new database at the same time; all but one fail.
            if attempt == 4:
                raise _unusable(url, error) from None
            time.sleep(0.2)
        except (SQLAlchemyError, StorageInternalError, RuntimeError, OSError, ImportError) as error:
            raise _unusable(url, error) from None
    raise AssertionError


def _unusable(url: URL, error: Exception) -> InputError:
    reason = _reason(error)
    if url.password:
        reason = reason.replace(str(url.password), "***")
    return InputError(f"--storage {masked(str(url))} cannot be used: {reason}")


def _reason(error: BaseException) -> str:
    """What the database said, on one line, without what SQLAlchemy and Optuna add."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return "; ".join(line.strip() for line in lines if line.strip()) or type(error).__name__


def _place(storage: BaseStorage) -> str:
    inner = getattr(storage, "_backend", storage)  # Optuna puts a cache around a database
    if isinstance(inner, _Journal):
        return inner.label
    return masked(inner.url) if isinstance(inner, RDBStorage) else "memory"


def _damaged(label: str, reason: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"--storage {label} is damaged ({reason}); delete it: measured points are kept and heard again"
    )


def _not_a_journal(label: str) -> InputError:
    return InputError(
        f"--storage {label} exists and is not a journal of Optuna; it is left as it is. Allowed: {ALLOWED}"
    )


def _other_study(study: Study, what: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"--storage {place_of(study)} holds another study called {study.study_name!r}: {what}; give another --storage, "
        "or delete that study"
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
