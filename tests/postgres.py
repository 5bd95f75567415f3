"""A real PostgreSQL server for the tests that need one."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "tester", "s3cret/word"
QUOTED = "s3cret%2Fword"


@dataclass
class Server:
    """A server in a folder of its own, on a free port of this host and a socket.

    binaries: the folder of its programs; account: what it runs as, for it refuses to run as root
    """

    binaries: Path
    folder: Path
    account: str | None
    port: int = field(default=0)
    process: "subprocess.Popen[bytes] | None" = None

    def prepare(self) -> None:
        """Make the data folder, in which USER logs in by PASSWORD."""
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "socket").mkdir()
        if self.account is not None:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, self.account)
        options = ["--username", USER, "--auth=scram-sha-256", f"--pwfile={self.folder / 'password'}"]
        plain = ["--no-sync", "--locale=C", "--encoding=UTF8"]
        made = subprocess.run(
            [str(self.binaries / "initdb"), "-D", str(self.folder / "data"), *options, *plain],
            capture_output=True,
            text=True,
            **self._as_account,
        )
        if made.returncode:
            pytest.skip(f"initdb failed: {made.stderr.strip()}")

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.port = self.port or _free_port()
        settings = ["listen_addresses=127.0.0.1", "fsync=off", "full_page_writes=off", "max_connections=20"]
        self.process = subprocess.Popen(
            [
                str(self.binaries / "postgres"),
                *("-D", str(self.folder / "data"), "-k", str(self.folder / "socket"), "-p", str(self.port)),
                *(word for setting in settings for word in ("-c", setting)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as_account,
        )
        self._wait()

    def stop(self) -> None:
        """Stop it at once, as if its host were gone; what it had committed stays in its folder."""
        if self.process is not None:
            self.process.send_signal(3)  # SIGQUIT: without waiting for anybody
            self.process.wait(30)
            self.process = None

    def url(self, database: str = "postgres", password: str = QUOTED, driver: str = "postgresql") -> str:
        """The address of a database on it."""
        return f"{driver}://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def fresh(self) -> str:
        """The name of a new, empty database."""
        name = f"db_{uuid.uuid4().hex[:12]}"
        with self.connected() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name

    def connected(self) -> Any:
        """A connection of psycopg that commits each statement."""
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres", autocommit=True
        )

    @property
    def _as_account(self) -> dict[str, Any]:
        # It may enter its own folder only, so that it must not start in ours.
        own = {"user": self.account, "group": self.account, "extra_groups": []} if self.account else {}
        return {"cwd": self.folder, **own}

    def _wait(self) -> None:
        import psycopg

        last = None
        for _ in range(200):
            assert self.process is not None
            if self.process.poll() is not None:
                pytest.skip(f"the PostgreSQL server ended with {self.process.returncode}")
            try:
                self.connected().close()
                return
            except psycopg.OperationalError as error:
                last = error
                time.sleep(0.05)
        pytest.skip(f"the PostgreSQL server does not answer: {last}")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """A running server; skips where PostgreSQL or psycopg is not installed."""
    pytest.importorskip("psycopg")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (no initdb and postgres in /usr/lib/postgresql/*/bin or PATH)")
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path has 107 characters at most
    server = Server(binaries, folder, _account())
    try:
        server.prepare()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    """The folder of the newest server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name.split(".")[0]))
    found += [Path(path).parent for path in [shutil.which("postgres")] if path]
    return next((p for p in reversed(found) if (p / "postgres").exists() and (p / "initdb").exists()), None)


def _account() -> str | None:
    """Whom to run the server as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
            return name
        except KeyError:
            continue
    pytest.skip("the server does not run as root, and there is no user postgres or nobody")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
