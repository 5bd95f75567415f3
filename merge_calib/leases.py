"""Who is at what: leases on names, among workers of one host or of several that share a folder.

A lease on NAME is a file NAME.G of the folder, G = 0, 1, ...: the highest G counts. It is given back by setting its
time of change to 0, and it lapses when its holder is gone or silent; either way the next holder makes NAME.G+1, which
the file system lets only one do. The highest file of a name is never removed or renamed, so G only grows: one who made
a file on the ground of an older listing finds a higher one then, and has nothing. Were what is given back removed,
numbers would come again, and one who saw NAME.0 lapse long ago could make NAME.1 beside a new NAME.0.
"""

import json
import os
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from merge_calib.errors import MergeCalibError, OutputError
from merge_calib.files import is_running, partial_of, process_state, this_host

BEAT = 10.0  # seconds between two signs of life of a holder
GRACE = 60.0  # seconds without one, by the clock of who looks, after which a lease is free
_POLL = 0.05  # seconds between two tries of one who waits
_KEPT = 16  # past files of a name that stay: fewer are made while anybody lists the folder once
_GIVEN_BACK = 0  # ns since 1970: the time of change of a lease that was given back; setting it needs no space on disk
_NAME = re.compile(r"[A-Za-z0-9._@+=-]{1,200}")
_STARTED = 19  # where a process's state says when it began


class LeaseLostError(MergeCalibError):
    """A lease that another worker took over, because its holder was silent for too long."""


@dataclass(frozen=True)
class _Holder:
    """Who made a lease: a word that no other worker has, and its process.

    started: when the process began, in the kernel's ticks, None where that is unknown; process numbers are used again
    """

    worker: str
    host: str
    pid: int
    started: str | None

    @classmethod
    def read(cls, content: bytes) -> "_Holder | None":
        """The holder as a file says it, None where the file is torn."""
        try:
            holder = cls(**json.loads(content))
        except (ValueError, TypeError):
            return None
        return holder if isinstance(holder.pid, int) and holder.pid > 0 else None

    @property
    def is_gone(self) -> bool:
        """Whether it is known that the process is no more; of another host's it is not."""
        if self.host != this_host():
            return False
        started = _started(self.pid)
        return not is_running(self.pid) or (None not in (self.started, started) and self.started != started)


@dataclass
class _Silence:
    """For how long (seconds) one and the same file was seen without a sign of life."""

    file: tuple[int, int]  # generation and time of change
    looked: float
    seconds: float = 0.0


@dataclass(frozen=True)
class Lease:
    """A name that this worker holds."""

    name: str
    generation: int
    _leases: "Leases" = field(repr=False)

    def check(self) -> None:
        """Raise LeaseLostError where another worker has taken the name over; to be asked before anything is recorded.

        One that is suspended after this, before its next step, cannot know: recording twice must do no harm.
        """
        if not self._leases.holds(self):
            raise LeaseLostError(
                f"{self.name} is no longer this worker's: it gave no sign of life for {self._leases.grace:g} s, and "
                "another one took over"
            )


class Leases:
    """The leases of one worker in `folder`, which is made when it is first needed.

    beat: seconds between two signs of life, given by a thread as long as a lease is held
    grace: seconds of silence after which a lease is free for others; more than two beats
    clock: seconds that only grow; the clocks of two hosts are never compared
    Of the time between two looks at a silent lease at most half of `grace` counts: a host that slept, a group of
    processes that was stopped and a file server that did not answer leave time for the sign of life that is due.
    Several threads may use one object, several processes may not: each makes its own.
    Raises OutputError naming the folder where the system refuses to write or to read there.
    """

    def __init__(
        self, folder: Path, *, beat: float = BEAT, grace: float = GRACE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        assert 0 < 2 * beat < grace, "a holder must be heard before its lease lapses"
        self.folder = folder
        self.grace = grace
        self._beat = beat
        self._clock = clock
        self._me = _Holder(secrets.token_hex(8), this_host(), os.getpid(), _started(os.getpid()))
        self._held: dict[str, Lease] = {}
        self._made: dict[str, int] = {}  # the highest generation that is known to have been made
        self._free: dict[str, int] = {}  # the highest generation that nobody can hold any more
        self._silences: dict[str, _Silence] = {}
        self._lock = threading.RLock()

    @contextmanager
    def take(self, name: str) -> Iterator[Lease | None]:
        """Hold `name` within, where nobody does; None where somebody does, another thread of this worker included."""
        lease = self._take(name)
        if lease is None:
            yield None
        else:
            with self._giving_back(lease):
                yield lease

    @contextmanager
    def wait_alone(self, name: str) -> Iterator[Lease]:
        """Hold `name` within, after those who hold it; one who asks for it again within waits for ever."""
        jitter = random.Random(self._me.worker)  # those who wait together must not try together
        while (lease := self._take(name)) is None:
            time.sleep(_POLL * jitter.uniform(0.5, 1.5))
        with self._giving_back(lease):
            yield lease

    def busy(self) -> set[str]:
        """The names that other workers hold."""
        with self._at_work():
            holders = {name: self._holder(name, max(files)) for name, files in self._files().items()}
        return {name for name, worker in holders.items() if worker not in (None, self._me.worker)}

    def held(self, name: str) -> bool:
        """Whether this worker holds `name`, and nobody took it over."""
        lease = self._held.get(name)
        return lease is not None and self.holds(lease)

    def holds(self, lease: Lease) -> bool:
        """Whether this worker holds `lease` still."""
        with self._at_work():
            self._refresh()
            return (
                self._held.get(lease.name) is lease
                and self._highest(lease.name) == lease.generation
                and self._holder(lease.name, lease.generation) == self._me.worker
            )

    def _take(self, name: str) -> Lease | None:
        assert _NAME.fullmatch(name), f"{name!r} cannot be the name of a lease"
        with self._at_work():
            generation = self._highest(name)
            if self._holder(name, generation) is not None or not self._make(name, generation + 1):
                return None
            self._forget_past(name)
            self._held[name] = Lease(name, generation + 1, self)
            return self._held[name]

    def _make(self, name: str, generation: int) -> bool:
        """Make NAME.GENERATION with all its content at once; False where another has been first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, partial = self._path(name, generation), self._partial
        try:
            partial.write_text(json.dumps(asdict(self._me)), encoding="ascii")
            with suppress(FileExistsError):
                os.link(partial, path)
            self._made[name] = generation  # by this worker or by another
            if partial.stat().st_nlink != 2:  # what link() says is not sure: NFS may send one request twice
                return False
        finally:
            with suppress(OSError):
                partial.unlink()
        if self._highest(name) == generation:
            return True
        path.unlink(missing_ok=True)  # it took the place of one long past, and never counted
        return False

    @contextmanager
    def _giving_back(self, lease: Lease) -> Iterator[None]:
        """Give signs of life within, and give `lease` back in the end."""
        stop = threading.Event()
        path = self._path(lease.name, lease.generation)
        thread = threading.Thread(target=_give_signs, args=(path, self._beat, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            if os.getpid() == self._me.pid:  # a process that was forked within gives nothing back
                stop.set()
                thread.join()  # a sign of life after the return would take the name again
                self._give_back(lease)

    def _give_back(self, lease: Lease) -> None:
        path = self._path(lease.name, lease.generation)
        with self._lock, suppress(OSError):  # what cannot be given back lapses
            if self._held.get(lease.name) is lease:  # else this worker lost the name, and took it again meanwhile
                del self._held[lease.name]
            holder = _Holder.read(path.read_bytes())
            if holder is not None and holder.worker == self._me.worker:  # not if the folder was emptied and begun anew
                os.utime(path, ns=(_GIVEN_BACK, _GIVEN_BACK))

    def _holder(self, name: str, generation: int) -> str | None:
        """The worker that holds `name` by this file; None where nobody does, "" where a torn file does not say who."""
        if generation <= self._free.get(name, -1):  # -1: there was none
            return None
        try:
            with self._path(name, generation).open("rb") as file:  # what is opened is fresh, on NFS too
                changed = os.fstat(file.fileno()).st_mtime_ns
                holder = _Holder.read(file.read())
        except FileNotFoundError:
            return None  # whoever makes the next one first has the name
        if changed == _GIVEN_BACK or (holder is not None and holder.is_gone):
            self._free[name] = generation
            return None
        worker = "" if holder is None else holder.worker
        is_silent = worker != self._me.worker and self._silence(name, (generation, changed)) >= self.grace
        return None if is_silent else worker

    def _silence(self, name: str, file: tuple[int, int]) -> float:
        """For how many seconds this worker has seen `file` as it is."""
        now = self._clock()
        silence = self._silences.get(name)
        if silence is None or silence.file != file:
            silence = self._silences[name] = _Silence(file, now)
        silence.seconds += min(now - silence.looked, self.grace / 2)
        silence.looked = now
        return silence.seconds

    def _files(self) -> dict[str, list[int]]:
        """The generations of every name that the folder holds, and the highest that it is known to have held."""
        found = {name: [generation] for name, generation in self._made.items()}
        with suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                name, _, generation = path.name.rpartition(".")
                if _NAME.fullmatch(name) and generation.isascii() and generation.isdecimal():
                    found.setdefault(name, []).append(int(generation))
        self._made = {name: max(generations) for name, generations in found.items()}
        return found

    def _highest(self, name: str) -> int:
        """The highest generation of `name`, -1 where there was none."""
        self._files()
        return self._made.get(name, -1)

    def _forget_past(self, name: str) -> None:
        """Remove the files of `name` that are long past."""
        for generation in sorted(set(self._files()[name]))[: -_KEPT - 1]:
            with suppress(OSError):
                self._path(name, generation).unlink()

    def _refresh(self) -> None:
        """Change the folder: NFS lists it from memory for up to a minute, unless this host has changed it."""
        with suppress(OSError):
            self._partial.touch()
            self._partial.unlink()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """One thread at a time, in the process that made this object; what the system refuses is an OutputError."""
        assert os.getpid() == self._me.pid, "a process that was forked makes leases of its own"
        with self._lock:
            try:
                yield
            except OSError as error:
                reason = error.strerror or str(error)
                raise OutputError(f"cannot keep the leases of workers in {self.folder}: {reason}") from error

    @property
    def _partial(self) -> Path:
        return partial_of(self.folder / self._me.worker)

    def _path(self, name: str, generation: int) -> Path:
        return self.folder / f"{name}.{generation}"


def _give_signs(path: Path, beat: float, stop: threading.Event) -> None:
    """Set the time of change of `path` to now, every `beat` seconds."""
    while not stop.wait(beat):
        with suppress(OSError):  # the next one may succeed; a file that is gone was lost to others
            os.utime(path)


def _started(process: int) -> str | None:
    """When a process began, None where nothing says it."""
    state = process_state(process)
    return state[_STARTED] if len(state) > _STARTED else None
