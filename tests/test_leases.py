"""Leases: one holder of a name at any time, among processes that are killed, suspended, or on other hosts."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from merge_calib.errors import MergeCalibError, OutputError
from merge_calib.files import remove_partial, this_host
from merge_calib.leases import BEAT, GRACE, LeaseLostError, Leases

LONG = "dare_ties-density-0.5-lambda-0.4000=" + "x" * 164


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / ".leases"


def write_lease(folder, file, **holder):
    """A lease as another worker wrote it."""
    content = {"worker": "other", "host": "elsewhere", "pid": 1, "started": "1"} | holder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(content))
    return folder / file


def takes(leases, name):
    """Whether `leases` gets `name`, which it gives back at once."""
    with leases.take(name) as lease:
        return lease is not None


# One process


def test_a_name_has_one_holder_until_it_is_given_back(folder):
    one, other = Leases(folder), Leases(folder)
    with one.take("p") as lease:
        assert lease.name == "p"
        lease.check()
        assert one.held("p")
        assert not other.held("p")
        assert not takes(other, "p")
        assert not takes(one, "p")
        assert (one.busy(), other.busy()) == (set(), {"p"})
        assert takes(other, "q")
    assert not one.held("p")
    assert other.busy() == set()
    assert takes(other, "p")
    assert takes(one, "p")
    with pytest.raises(LeaseLostError):
        lease.check()


def test_a_name_is_given_back_when_its_work_fails(folder):
    one, other = Leases(folder), Leases(folder)
    with pytest.raises(ZeroDivisionError), one.take("p"):
        1 / 0  # noqa: B018
    with pytest.raises(ZeroDivisionError), one.wait_alone("p"):
        1 / 0  # noqa: B018
    assert takes(other, "p")


def test_names_do_not_get_into_each_others_way(folder):
    names = ["p", "p.0", "p.0.1", "1", "0.0", ".hidden", "a@b+c=d_e-f", LONG, "linear-lambda-0.4000"]
    one, other = Leases(folder), Leases(folder)
    assert len(LONG) == 200
    with ExitStack() as stack:
        for name in names:
            assert stack.enter_context(one.take(name)) is not None
        assert other.busy() == set(names)
        assert not any(takes(other, name) for name in names)
    assert all(takes(other, name) for name in names)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 201, "a\n", "é"])
def test_what_is_no_name_is_our_own_fault(folder, name):
    with pytest.raises(AssertionError, match="cannot be the name of a lease"), Leases(folder).take(name):
        pass


def test_a_holder_must_be_heard_before_its_lease_lapses(folder):
    assert 2 * BEAT < GRACE
    with pytest.raises(AssertionError, match="must be heard"):
        Leases(folder, beat=30, grace=60)


def test_what_is_in_the_folder_besides_does_no_harm(folder):
    for file in ("README", "p.x", "p.", ".0", "p.²", "a b.3", "p.-1"):
        write_lease(folder, file)
    (folder / "p.1.d").mkdir()
    leases = Leases(folder)
    assert leases.busy() == set()
    assert takes(leases, "p")
    assert (folder / "p.0").exists()


def test_past_files_do_not_pile_up(folder):
    leases = Leases(folder)
    for _ in range(60):
        with leases.wait_alone("study"):
            pass
    assert sorted(int(path.suffix[1:]) for path in folder.iterdir()) == [*range(43, 60)]


def test_a_sign_of_life_is_given_while_a_name_is_held_and_not_after(folder):
    leases = Leases(folder, beat=0.02)
    with leases.take("p"):
        seen = set()
        deadline = time.monotonic() + 10
        while len(seen) < 4 and time.monotonic() < deadline:
            seen.add((folder / "p.0").stat().st_mtime_ns)
        assert len(seen) == 4
    threads = threading.active_count()
    time.sleep(0.1)
    assert (folder / "p.0").stat().st_mtime_ns == 0
    assert threading.active_count() == threads
    assert not any(thread.name.endswith("(_give_signs)") for thread in threading.enumerate())


def test_threads_that_take_turns_never_meet(folder):
    """Each turn is a new generation, so that past files are removed while others list the folder."""
    inside, met, turns = [], [], []

    def work(leases):
        for _ in range(40):
            with leases.wait_alone("study"):
                inside.append(leases)
                met.append(len(inside))
                turns.append(leases)
                inside.remove(leases)

    workers = [Leases(folder) for _ in range(4)]
    threads = [threading.Thread(target=work, args=(leases,)) for leases in [*workers, workers[0]]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("merge_calib.leases._POLL", 0.001)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(turns) == 200
    assert set(met) == {1}
    assert len([*folder.iterdir()]) == 17


# Silence


def test_a_lease_of_another_host_lapses_when_it_is_silent(folder, clock):
    write_lease(folder, "p.0")
    leases = Leases(folder, clock=clock)
    for _ in range(12):
        assert not takes(leases, "p")
        assert leases.busy() == {"p"}
        clock.now += 5
    assert leases.busy() == set()
    with leases.take("p") as lease:
        lease.check()
        assert (folder / "p.1").exists()


def test_a_sign_of_life_begins_the_wait_anew(folder, clock):
    path = write_lease(folder, "p.0")
    leases = Leases(folder, clock=clock)
    for sign in range(1, 40):
        for _ in range(11):
            assert not takes(leases, "p")
            clock.now += 5
        os.utime(path, ns=(sign, sign))  # another time, whatever the other clock thinks it is
    for _ in range(13):
        clock.now += 5
        leases.busy()
    assert takes(leases, "p")


@pytest.mark.parametrize("changed", [1, 2_000_000_000, 5_000_000_000])
def test_the_clocks_of_two_hosts_are_not_compared(folder, clock, changed):
    path = write_lease(folder, "p.0")
    os.utime(path, (changed, changed))
    leases = Leases(folder, clock=clock)
    assert not takes(leases, "p")
    clock.now += 29
    assert not takes(leases, "p")
    clock.now += 29
    assert not takes(leases, "p")
    clock.now += 2
    assert takes(leases, "p")


def test_a_pause_of_who_looks_is_no_silence_of_the_holder(folder, clock):
    """All were stopped together for an hour: the sign of life that is due has its time."""
    write_lease(folder, "p.0")
    leases = Leases(folder, clock=clock)
    assert leases.busy() == {"p"}
    clock.now += 3600
    assert leases.busy() == {"p"}
    clock.now += 29
    assert leases.busy() == {"p"}
    clock.now += 1
    assert leases.busy() == set()


def test_a_holder_that_is_heard_again_holds_its_name(folder, clock):
    path = write_lease(folder, "p.0")
    leases = Leases(folder, clock=clock)
    for _ in range(3):
        leases.busy()
        clock.now += 30
    assert leases.busy() == set()
    os.utime(path)
    assert leases.busy() == {"p"}
    assert not takes(leases, "p")


def test_who_looks_first_has_not_seen_any_silence(folder, clock):
    path = write_lease(folder, "p.0")
    os.utime(path, (1, 1))
    assert Leases(folder, clock=clock).busy() == {"p"}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b'{"worker": "a"}', b"[1]", b"null", b"\xff\xfe", b"\0" * 80),
        b'{"worker": "a", "host": "b", "pid": "x", "started": null}',
        b'{"worker": "a", "host": "b", "pid": -1, "started": null}',
    ],
)
def test_a_torn_lease_lapses_by_its_silence(folder, clock, content):
    folder.mkdir(parents=True)
    (folder / "p.3").write_bytes(content)
    leases = Leases(folder, clock=clock)
    for _ in range(2):
        assert leases.busy() == {"p"}
        clock.now += 30
    with leases.take("p") as lease:
        assert lease.generation == 4


def test_our_own_lease_does_not_lapse_for_ourselves(folder, clock):
    leases = Leases(folder, clock=clock)
    with leases.take("p"):
        for _ in range(100):
            assert not takes(leases, "p")
            assert leases.held("p")
            clock.now += 30


def test_a_worker_that_was_silent_too_long_finds_out(folder, clock):
    """Its beats are slow, so that to the other one it is silent; the process lives all the time."""
    slow, other = Leases(folder, clock=clock), Leases(folder, clock=clock)
    with slow.take("p") as lost:
        lost.check()
        assert not takes(other, "p")
        for _ in range(2):
            clock.now += 30
            other.busy()
        with other.take("p") as lease:
            lease.check()
            with pytest.raises(LeaseLostError, match=r"p is no longer this worker's: .* for 60 s") as fault:
                lost.check()
            assert isinstance(fault.value, MergeCalibError)
            assert not slow.held("p")
            assert slow.busy() == {"p"}
    with other.take("p") as lease:
        lease.check()  # the loser gave back nothing that was not its own
    with slow.take("p") as lease:
        lease.check()


def test_a_loser_gives_nothing_back(folder, clock):
    slow, other = Leases(folder, clock=clock), Leases(folder, clock=clock)
    with ExitStack() as stack:
        with slow.take("p"):
            other.busy()
            for _ in range(2):
                clock.now += 30
                other.busy()
            lease = stack.enter_context(other.take("p"))
        lease.check()
        assert not takes(slow, "p")
        assert not takes(Leases(folder), "p")


# Processes of this host


def test_a_lease_of_a_process_that_is_gone_lapses_at_once(folder, clock):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_lease(folder, "gone.0", host=this_host(), pid=ended.pid)
    write_lease(folder, "another.0", host=this_host(), pid=os.getppid(), started="1")
    write_lease(folder, "unknown_start.0", host=this_host(), pid=os.getppid(), started=None)
    write_lease(folder, "elsewhere.0", pid=ended.pid)
    leases = Leases(folder, clock=clock)
    assert leases.busy() == {"unknown_start", "elsewhere"}
    assert takes(leases, "gone")
    assert takes(leases, "another")
    assert not takes(leases, "elsewhere")


HOLD = """
import os, sys, time
from pathlib import Path
from merge_calib.leases import LeaseLostError, Leases
with Leases(Path(sys.argv[1]), beat=.05, grace=1).take("p") as lease:
    print("held", flush=True)
    sys.stdin.readline()
    try:
        lease.check()
    except LeaseLostError:
        print("lost", flush=True)
    else:
        print("still held", flush=True)
"""


@pytest.fixture
def holder(folder):
    """Another process that holds `p`."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_a_suspended_process_loses_its_lease_and_finds_out(folder, holder):
    leases = Leases(folder, beat=0.05, grace=1)
    holder.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: takes(leases, "p"))
    assert time.monotonic() - began >= 1
    holder.send_signal(signal.SIGCONT)
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "lost\n"


def test_a_process_that_works_on_keeps_its_lease(folder, holder):
    leases = Leases(folder, beat=0.05, grace=1)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert not takes(leases, "p")
        assert leases.busy() == {"p"}
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "still held\n"


def test_a_killed_process_gives_its_name_back_before_anybody_waited_for_it(folder, holder):
    leases = Leases(folder)
    assert leases.busy() == {"p"}
    holder.kill()
    began = time.monotonic()
    with leases.wait_alone("p") as lease:
        lease.check()
    assert time.monotonic() - began < 5


def test_a_forked_process_neither_uses_nor_gives_back_what_its_parent_holds(folder):
    code = """
import os, sys
from pathlib import Path
from merge_calib.leases import Leases
leases, other = Leases(Path(sys.argv[1])), Leases(Path(sys.argv[1]))
with leases.take("p") as lease:
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        lease.check()
        with other.take("p") as none:
            assert none is None
    else:
        try:
            lease.check()
        except AssertionError as error:
            assert "was forked" in str(error)
        else:
            os._exit(1)
        with Leases(Path(sys.argv[1])).take("p") as none:
            assert none is None
print("done")
"""
    found = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert found.stdout == "done\ndone\n"


# Races: what another one does between a look and a deed


@pytest.fixture
def meanwhile(monkeypatch):
    """Have something done just before the next lease is made."""

    def set_up(deed):
        original = os.link

        def link(source, target):
            monkeypatch.setattr(os, "link", original)
            deed()
            original(source, target)

        monkeypatch.setattr(os, "link", link)

    return set_up


def test_who_comes_second_has_nothing(folder, meanwhile):
    one, other = Leases(folder), Leases(folder)
    with ExitStack() as stack:
        meanwhile(lambda: stack.enter_context(other.take("p")))
        assert not takes(one, "p")
        assert other.held("p")
        assert one.busy() == {"p"}


@pytest.mark.parametrize("turns", [0, 1, 5, 16, 17, 40])
def test_one_who_saw_a_lapsed_lease_long_ago_has_nothing(folder, meanwhile, turns):
    """Since that look others took the name, gave it back and took it again; the past files are gone by then."""
    write_lease(folder, "p.0", host=this_host(), pid=os.getpid(), started="another process")
    late, other = Leases(folder), Leases(folder)
    with ExitStack() as stack:

        def work():
            for _ in range(turns):
                assert takes(other, "p")
            stack.enter_context(other.take("p"))

        meanwhile(work)
        assert not takes(late, "p")
        assert other.held("p")
        assert not takes(Leases(folder), "p")
        files = {path.name for path in folder.iterdir()}
    assert files == {f"p.{generation}" for generation in range(max(0, turns + 1 - 16), turns + 2)}


def test_what_the_system_says_of_a_repeated_request_is_not_believed(folder, monkeypatch):
    """NFS may carry out a request twice: the second answer is that the file exists."""
    original = os.link

    def link_twice(source, target):
        original(source, target)
        original(source, target)

    monkeypatch.setattr(os, "link", link_twice)
    leases = Leases(folder)
    with leases.take("p") as lease:
        lease.check()


def test_an_emptied_folder_is_begun_anew(folder):
    one, other = Leases(folder), Leases(folder)
    with ExitStack() as stack:
        with one.take("p") as lost:
            for path in folder.iterdir():
                path.unlink()
            lease = stack.enter_context(other.take("p"))
            with pytest.raises(LeaseLostError):
                lost.check()
        lease.check()
        assert not takes(one, "p")
    assert takes(one, "p")
    assert takes(other, "p")


# Systems that refuse


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    leases = Leases(tmp_path / "file" / ".leases")
    for ask in (lambda: takes(leases, "p"), leases.busy):
        with pytest.raises(OutputError, match=r"in .*/file/\.leases: Not a directory"):
            ask()


@pytest.mark.parametrize("reason", ["No space left on device", "Read-only file system", "Operation not permitted"])
def test_a_disk_that_refuses_leaves_nothing_behind(folder, monkeypatch, reason):
    leases = Leases(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(28, reason)))
        with pytest.raises(OutputError, match=rf"cannot keep the leases of workers in .*\.leases: {reason}"):
            takes(leases, "p")
    assert [*folder.iterdir()] == []
    assert takes(leases, "p")


def test_a_lease_is_given_back_on_a_full_disk(folder, monkeypatch):
    """What is held is checked and given back without writing anything new."""
    one, other = Leases(folder), Leases(folder)
    with monkeypatch.context() as patch, one.take("p") as lease:
        patch.setattr("pathlib.Path.touch", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        lease.check()
    assert takes(other, "p")


def test_a_lease_that_cannot_be_given_back_hides_no_fault(folder, monkeypatch):
    leases = Leases(folder)

    def fail():
        monkeypatch.setattr(os, "utime", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), leases.take("p"):
        fail()
    assert not leases.held("p")


def test_what_a_worker_that_was_killed_while_taking_left_is_removed(folder):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    half = folder / f".abc.partial-{this_host()}-{ended.pid}"
    folder.mkdir(parents=True)
    half.write_text("{")
    assert Leases(folder).busy() == set()
    remove_partial(folder.parent)
    assert not half.exists()


# Many processes

BEGIN = """
import os, random, signal, sys, time
from contextlib import nullcontext
from pathlib import Path
import merge_calib.leases as module

root = Path(sys.argv[1])
leases = module.Leases(root / ".leases")
(root / f"ready-{os.getpid()}").touch()
while not (root / "go").exists():
    time.sleep(.002)
"""
WORK = """
names, me, dies_at, is_guarded = map(int, sys.argv[2:])
log = root / "log"
chance = random.Random(me)
descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
say = lambda word, name: os.write(descriptor, f"{word} {name} {me}\\n".encode())
finished = lambda: {line.split()[1] for line in log.read_text().splitlines() if line.startswith("finish")}
taken = 0
while (left := sorted({f"point-{i}" for i in range(names)} - finished())) or dies_at:
    if not left or (not dies_at and len(left) <= 30 and not (root / "dead").exists()):
        time.sleep(.002)  # who is to be killed shall find something to do until then
        continue
    busy = leases.busy()
    name = chance.choice([name for name in left if name not in busy] or left)
    with leases.take(name) if is_guarded else nullcontext(True) as lease:
        if lease is None or name in finished():
            continue
        say("begin", name)
        time.sleep(chance.uniform(0, .01))
        taken += 1
        if taken == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if is_guarded:
            lease.check()
        say("finish", name)
"""
NEVER = 10**6


def start_together(root, code, arguments):
    """Processes that begin when all are ready."""
    command = [sys.executable, "-c", BEGIN + code, str(root)]
    processes = [
        subprocess.Popen([*command, *map(str, each)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for each in arguments
    ]
    wait_for(lambda: len([*root.glob("ready-*")]) == len(processes), seconds=60)
    (root / "go").touch()
    return processes


def ended(process):
    """The code of a process that ends."""
    said = process.communicate(timeout=60)[1].decode()
    return process.returncode, said


def work_together(root, names, deaths, is_guarded=True):
    """The lines of the log of workers that each measure what nobody has.

    deaths: at which name each worker kills itself, 0 where it lives; NEVER where it is killed at any moment
    """
    log = root / "log"
    processes = start_together(root, WORK, [(names, me, dies_at, int(is_guarded)) for me, dies_at in enumerate(deaths)])
    for me, dies_at in enumerate(deaths):
        if dies_at == NEVER:
            wait_for(lambda me=me: f" {me}\n" in log.read_text())
            time.sleep(random.uniform(0, 0.03))
            processes[me].kill()
        if dies_at:
            assert ended(processes[me]) == (-signal.SIGKILL, "")
    (root / "dead").touch()
    for process, dies_at in zip(processes, deaths, strict=True):
        if not dies_at:
            assert ended(process) == (0, "")
    return [line.split() for line in log.read_text().splitlines()]


def faults(lines, names, killed):
    """What a log tells against the leases: a name begun by two at once, finished twice, or by nobody."""
    found, holders, finished = [], {}, []
    for word, name, worker in lines:
        if word == "begin":
            if holders.get(name, worker) not in (worker, *killed):
                found.append(f"{name} had two holders")
            holders[name] = worker
        else:
            if holders.pop(name, None) != worker:
                found.append(f"{name} was finished by one that did not hold it")
            finished.append(name)
    if sorted(finished) != sorted(f"point-{i}" for i in range(names)):
        found.append("not every name was finished once")
    return found


def test_of_many_processes_each_name_is_finished_by_one(tmp_path):
    deaths = [0, 0, 0, 0, 3, 1, 2, NEVER]
    lines = work_together(tmp_path, 80, deaths)
    assert faults(lines, 80, killed={"4", "5", "6", "7"}) == []
    begun = {(name, worker) for word, name, worker in lines if word == "begin"}
    assert len(begun) >= 80 + 3  # three died while they held a name, which another one finished


def test_without_leases_the_same_work_is_done_twice(tmp_path):
    lines = work_together(tmp_path, 80, [0] * 4 + [1], is_guarded=False)
    assert any("two holders" in fault for fault in faults(lines, 80, killed={"4"}))


COUNT = """
module._POLL = .002
counter = root / "counter"
for _ in range(20):
    with leases.wait_alone("study") if sys.argv[2] == "alone" else nullcontext():
        number = int(counter.read_text() or 0)
        time.sleep(.001)
        counter.write_text(str(number + 1))
"""


@pytest.mark.parametrize("way", ["alone", "together"])
def test_those_who_wait_for_each_other_count_right(tmp_path, way):
    counter = tmp_path / "counter"
    counter.write_text("0")
    codes = [ended(process) for process in start_together(tmp_path, COUNT, [(way,)] * 4)]
    assert codes == [(0, "")] * 4
    assert (int(counter.read_text() or 0) == 80) == (way == "alone")
