"""Where studies are kept: journal files, SQLite and a real PostgreSQL server, whole and broken."""

import fcntl
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from postgres import PASSWORD, QUOTED, USER
from postgres import postgres as postgres
from test_study import LINE, MIXED, Bench, answer, drive

from merge_calib.errors import InputError, MergeCalibError, OutputError, RunDirectoryError
from merge_calib.merging.point import MergePoint
from merge_calib.search.storage import masked, open_storage, open_study
from merge_calib.search.study import StudySearch, directions

OBJECTIVES = ("accuracy", "sce")


def opened(where, tmp_path=Path("nowhere"), workers=1):
    return open_storage(None if where is None else str(where), tmp_path / "study.journal", workers=workers)


def search(where, trials=9, seed=0, space=LINE, run_id="run", **more):
    study = open_study(opened(where), "study", run_id, directions(OBJECTIVES))
    return StudySearch(space, OBJECTIVES, study, trials, seed, "tpe", **more)


def said(call, *kinds):
    """The message of a user's fault, which is one line and has no password."""
    with pytest.raises(kinds or MergeCalibError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert PASSWORD not in text
    assert QUOTED not in text
    return text


@pytest.fixture
def journal(tmp_path):
    """A journal with a study of a few trials, one of them running."""
    path = tmp_path / "study.journal"
    drive(search(path), 4)
    search(path).propose()
    return path


class TestJournal:
    def test_none_is_the_journal_in_a_folder_that_is_made(self, tmp_path):
        storage = open_storage(None, tmp_path / "run" / "study.journal", workers=3)
        study = open_study(storage, "study", "run", directions(OBJECTIVES))
        assert study.trials == []
        assert (tmp_path / "run" / "study.journal").is_file()

    def test_opening_a_study_again_writes_nothing(self, journal):
        before = journal.read_bytes()
        search(journal)
        assert journal.read_bytes() == before

    def test_cut_at_every_byte_of_its_last_record_it_goes_on(self, journal):
        """What kill -9 leaves in the middle of an append, or a full disk."""
        whole = drive(Bench().search(LINE, trials=9))
        content = journal.read_bytes()
        begin = content.rindex(b"\n", 0, -1) + 1
        for end in range(begin, len(content) + 1):
            journal.write_bytes(content[:end])
            storage = opened(journal)  # reads it, and cuts off the torn record
            assert journal.read_bytes() == (content if end == len(content) else content[:begin])
            if (end - begin) % 120 == 7 or end > len(content) - 2:
                one = search(journal)
                assert one.propose() == whole[4]
                assert drive(one) == whole[4:]
                assert one.done
                optuna.load_study(study_name="study", storage=opened(journal))
                assert len(search(journal)._read()) == len(whole)
            del storage

    def test_a_record_torn_while_others_go_on_is_cut_off_by_the_next_writer(self, journal):
        one = search(journal)
        with journal.open("ab") as file:
            file.write(b'{"op_code":8,"worker_id":"killed')
        point = one.propose()
        one.hear(point, answer(point))
        assert b"killed" not in journal.read_bytes()
        assert drive(one) == drive(Bench().search(LINE, trials=9))[5:]
        assert all(json.loads(line) for line in journal.read_bytes().splitlines())

    @pytest.mark.parametrize("zeros", [1, 100])
    def test_zeros_that_a_power_failure_left_are_cut_off(self, journal, zeros):
        before = journal.read_bytes()
        journal.write_bytes(before + b'{"op_' + b"\0" * zeros)
        opened(journal)
        assert journal.read_bytes() == before

    def test_a_file_damaged_in_the_middle_names_its_line_and_what_to_do(self, journal):
        lines = journal.read_bytes().splitlines(keepends=True)
        lines[3] = lines[3][:10] + b"\n"
        journal.write_bytes(b"".join(lines))
        text = said(lambda: opened(journal), RunDirectoryError)
        assert f"--storage {journal} is damaged (line 4 is no record); delete it" in text

    @pytest.mark.parametrize("line", [b"3\n", b"[]\n", b'{"op_code":5}\n', b'{"op_code":99}\n'])
    def test_a_line_that_follows_from_nothing_is_damage(self, journal, line):
        journal.write_bytes(journal.read_bytes() + line)
        assert "is damaged" in said(lambda: opened(journal), RunDirectoryError)

    @pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"no end", b"\x00\x01binary", b"SQLite format 3\x00", b"{}\n"])
    def test_a_file_of_another_kind_is_refused_and_left_as_it_is(self, tmp_path, content):
        path = tmp_path / "results.csv"
        path.write_bytes(content)
        text = said(lambda: opened(path), InputError)
        assert f"--storage {path} exists and is not a journal of Optuna" in text
        assert path.read_bytes() == content

    def test_an_empty_file_is_an_empty_journal(self, tmp_path):
        (tmp_path / "empty").touch()
        assert drive(search(tmp_path / "empty"), 3)

    def test_a_folder_is_no_journal(self, tmp_path):
        assert f"--storage {tmp_path} cannot be used: Is a directory" in said(lambda: opened(tmp_path), InputError)

    def test_a_folder_that_is_not_there_is_not_made(self, tmp_path):
        text = said(lambda: opened(f"{tmp_path}/postgres//{USER}:{PASSWORD}@host/db"), InputError)
        assert "it lies in a folder that does not exist" in text
        assert list(tmp_path.iterdir()) == []

    def test_a_journal_that_cannot_be_written_says_so(self, journal, monkeypatch):
        original = Path.open

        def read_only(path, mode="r", *arguments, **named):
            if path == journal and "+" in mode:
                raise PermissionError(13, "Permission denied", str(path))
            return original(path, mode, *arguments, **named)

        one = search(journal)
        monkeypatch.setattr(Path, "open", read_only)
        assert f"--storage {journal} cannot be used: Permission denied" in said(lambda: opened(journal), InputError)
        text = said(lambda: one.hear(one.propose(), None), OutputError)
        assert f"cannot write --storage {journal}: Permission denied" in text

    def test_a_full_disk_is_said_and_nothing_is_lost(self, journal):
        """A process that may write no more than so many bytes, as a real limit."""
        size = journal.stat().st_size
        script = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from test_storage import search, answer
from merge_calib.errors import OutputError
one = search({str(journal)!r})
point = one.propose()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size} + 50, {size} + 50))
try:
    one.hear(point, answer(point))
except OutputError as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert f"cannot write --storage {journal}: File too large" in done.stdout
        assert drive(search(journal)) == drive(Bench().search(LINE, trials=9))[4:]

    def test_a_lock_that_a_killed_process_held_is_free_at_once(self, journal):
        holder = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import fcntl, time\nf = open({str(journal)!r}, 'r+b')\nfcntl.flock(f, fcntl.LOCK_EX)\n"
                "print('held', flush=True)\ntime.sleep(60)",
            ],
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with journal.open("r+b") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill()
        holder.wait()
        began = time.monotonic()
        search(journal).hear(search(journal).propose(), None)
        assert time.monotonic() - began < 3  # Optuna's own lock waits 30 seconds
        holder.stdout.close()

    def test_what_optunas_own_lock_left_behind_is_nobodys(self, journal):
        Path(f"{journal}.lock").symlink_to(journal)
        began = time.monotonic()
        search(journal).hear(search(journal).propose(), None)
        assert time.monotonic() - began < 3


class TestSqlite:
    def test_a_search_ends_as_in_memory(self, tmp_path):
        url = f"sqlite:///{tmp_path}/study.db"
        whole = drive(Bench().search(MIXED, trials=10))
        assert drive(search(url, 10, space=MIXED), 5) + drive(search(url, 10, space=MIXED)) == whole
        assert len(optuna.load_study(study_name="study", storage=url).best_trials) > 0

    def test_it_is_for_one_worker(self, tmp_path):
        text = said(lambda: opened(f"sqlite:///{tmp_path}/study.db", workers=2), InputError)
        assert "--storage" in text
        assert "SQLite is for one worker alone" in text
        assert not (tmp_path / "study.db").exists()

    def test_a_file_that_is_no_database_is_refused(self, tmp_path):
        (tmp_path / "notes").write_text("no database at all, but long enough to be looked at" * 20)
        text = said(lambda: opened(f"sqlite:///{tmp_path}/notes"), InputError)
        assert "cannot be used: file is not a database" in text

    def test_a_folder_that_is_not_there_is_said(self, tmp_path):
        text = said(lambda: opened(f"sqlite:///{tmp_path}/none/study.db"), InputError)
        assert "unable to open database file" in text

    def test_a_database_that_is_read_only_is_said(self, tmp_path):
        drive(search(f"sqlite:///{tmp_path}/study.db"), 2)
        url = f"sqlite:///file:{tmp_path}/study.db?mode=ro&uri=true"
        one = search(url)
        assert "attempt to write a readonly database" in said(lambda: one.propose(), RunDirectoryError)

    def test_tables_of_another_version_are_refused(self, tmp_path):
        import sqlite3

        drive(search(f"sqlite:///{tmp_path}/study.db"), 2)
        with sqlite3.connect(tmp_path / "study.db") as database:
            database.execute("UPDATE version_info SET schema_version = 3")
            database.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
        database.close()
        text = said(lambda: opened(f"sqlite:///{tmp_path}/study.db"), InputError)
        assert "no longer compatible with the table schema" in text


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("redis://host/0", "--storage redis://host/0 is of an unknown kind; allowed: a path of a journal file"),
            ("https://host/db", "is of an unknown kind"),
            ("postgresql+nonsense://host/db", "the driver nonsense is unknown; allowed: psycopg, psycopg2"),
            (f"postgresql://{USER}:{PASSWORD}@host:port/db", "is not a URL"),
            ("://", "is not a URL"),
        ],
    )
    def test_a_url_that_is_none_is_said_without_its_password(self, url, message):
        assert message in said(lambda: opened(url), InputError)

    @pytest.mark.parametrize(
        ("url", "package"),
        [
            ("postgresql://host/db", "psycopg[binary]"),
            ("postgresql+psycopg2://host/db", "psycopg2-binary"),
            ("mysql://host/db", "PyMySQL"),
            ("mysql+mysqldb://host/db", "mysqlclient"),
        ],
    )
    def test_a_driver_that_is_missing_is_named_with_its_package(self, url, package, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        text = said(lambda: opened(url), InputError)
        assert f"pip install '{package}'" in text

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
            ("postgresql+psycopg://me:se:c@r/et@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
            ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
            ("mysql://me@host/db", "mysql://me@host/db"),
            (
                "postgresql://host/db?user=me&password=secret&sslmode=require",
                "postgresql://host/db?user=me&password=***&sslmode=require",
            ),
            ("sqlite:////home/a:b@c/study.db", "sqlite:////home/a:b@c/study.db"),
            ("runs/study.journal", "runs/study.journal"),
        ],
    )
    def test_masked_hides_the_password_and_nothing_else(self, url, shown):
        assert masked(url) == shown

    def test_a_server_that_is_not_there_is_said_at_once(self):
        pytest.importorskip("psycopg")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            text = said(lambda: opened(f"postgresql://{USER}:{QUOTED}@127.0.0.1:{port}/db"), InputError)
        assert f"--storage postgresql+psycopg://{USER}:***@127.0.0.1:{port}/db cannot be used" in text
        assert "refused" in text


def work(url, folder, kill_at, most):
    """A worker: claims what is proposed by a file of its own, measures, tells; as killed after so many claims."""
    claims = Path(folder)

    def alone():
        file = (claims / "alone").open("a")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    one = search(url, most, alone=alone)
    while not one.done:
        busy = [MergePoint.read(json.loads(path.read_text())) for path in claims.glob("*.claim")]
        point = one.propose(busy)
        if point is None:
            time.sleep(0.02)
            continue
        partial = claims / f"{point.name}.{os.getpid()}"
        partial.write_text(json.dumps(point.record()))
        try:
            os.link(partial, claims / f"{point.name}.claim")  # whole and by one only
        except FileExistsError:
            continue
        finally:
            partial.unlink()
        kill_at -= 1
        if kill_at == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)
        one.hear(point, answer(point))


def run_workers(url, folder, kills, trials):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(url, str(folder), kill, trials)) for kill in kills]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    return [worker.exitcode for worker in workers]


def checked(url, trials):
    """The trials, each point once and in the order of their numbers."""
    found = open_study(opened(url), "study", "run", directions(OBJECTIVES)).trials
    assert [trial.number for trial in found] == list(range(trials + 2))
    names = [trial.user_attrs["point"] for trial in found]
    assert len(set(names)) == len(names)
    return found


class TestSeveralProcesses:
    def test_two_workers_on_a_journal_share_the_points(self, tmp_path):
        path = tmp_path / "study.journal"
        assert run_workers(path, tmp_path, [0, 0], 9) == [0, 0]
        found = checked(path, 9)
        assert {trial.state for trial in found} == {TrialState.COMPLETE}


class TestPostgres:
    def test_a_search_ends_as_in_memory(self, postgres):
        url = postgres.url(postgres.fresh())
        whole = drive(Bench().search(MIXED, trials=12))
        assert drive(search(url, 12, space=MIXED), 5) + drive(search(url, 12, space=MIXED)) == whole

    def test_contract_basics(self, postgres):
        url = postgres.url(postgres.fresh(), driver="postgresql+psycopg")
        one = search(url)
        left = one.propose()
        assert search(url).propose() == left
        one.hear(left, None)
        search(url).hear(left, answer(left))
        alike = Bench().search(LINE, trials=9)
        alike.hear(alike.propose(), None)
        assert drive(one) == drive(alike)
        assert one.done
        assert one.record()["failed"] == 1
        assert one.record()["storage"] == masked(url)

    def test_another_run_and_another_space_are_refused(self, postgres):
        url = postgres.url(postgres.fresh())
        drive(search(url), 2)
        assert 'its run is "run", not "other"' in said(lambda: search(url, run_id="other"), RunDirectoryError)
        assert "holds another study" in said(lambda: search(url, space=MIXED), RunDirectoryError)

    def test_two_processes_that_begin_a_new_database_together_get_different_trials(self, postgres, tmp_path):
        url = postgres.url(postgres.fresh())
        assert run_workers(url, tmp_path, [0, 0], 9) == [0, 0]
        assert {trial.state for trial in checked(url, 9)} == {TrialState.COMPLETE}

    def test_what_a_killed_worker_left_is_finished_by_the_next(self, postgres, tmp_path):
        url = postgres.url(postgres.fresh())
        assert run_workers(url, tmp_path, [3], 9) == [-signal.SIGKILL]
        whole = drive(Bench().search(LINE, trials=9))
        assert drive(search(url)) == whole[2:]
        assert [trial.user_attrs["point"] for trial in checked(url, 9)] == [point.name for point in whole]

    def test_no_connection_is_kept_between_operations(self, postgres):
        database = postgres.fresh()
        one = search(postgres.url(database))
        drive(one, 3)
        with postgres.connected() as connection:
            [count] = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [database]
            ).fetchone()
        assert count == 0

    def test_a_wrong_password_is_said_and_not_shown(self, postgres):
        text = said(lambda: opened(postgres.url(password="wr0ng")), InputError)
        assert f"--storage postgresql+psycopg://{USER}:***@127.0.0.1:{postgres.port}/postgres cannot be used" in text
        assert "password authentication failed" in text
        assert "wr0ng" not in text

    def test_a_database_that_does_not_exist_is_said(self, postgres):
        assert 'database "none" does not exist' in said(lambda: opened(postgres.url("none")), InputError)

    def test_a_user_who_may_only_read_is_told(self, postgres):
        url = postgres.url(postgres.fresh())
        drive(search(url), 2)
        with postgres.connected() as connection:
            connection.execute(f"ALTER ROLE {USER} SET default_transaction_read_only = on")
        try:
            assert "read-only transaction" in said(lambda: search(url).propose(), RunDirectoryError)
            assert "read-only transaction" in said(lambda: opened(postgres.url()), InputError)
        finally:
            with postgres.connected() as connection:
                connection.execute("SET default_transaction_read_only = off")
                connection.execute(f"ALTER ROLE {USER} RESET default_transaction_read_only")

    def test_a_server_that_goes_away_is_said_and_the_search_goes_on_when_it_is_back(self, postgres):
        url = postgres.url(postgres.fresh())
        one = search(url)
        before = drive(one, 4)
        point = one.propose()
        postgres.stop()
        try:
            text = said(lambda: one.hear(point, answer(point)), RunDirectoryError)
            assert f"--storage postgresql+psycopg://{USER}:***@127.0.0.1:{postgres.port}/" in text
            assert "start again to go on" in text
        finally:
            postgres.start()
        assert before + drive(one) == drive(Bench().search(LINE, trials=9))
