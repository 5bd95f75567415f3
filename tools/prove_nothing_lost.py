"""Sweeps that are cut off at random moments lose nothing, measure nothing twice and end with the same bytes.

Sweeps the demo pair by each search. A round is one run directory: the sweep is started, cut off (kill -9, SIGINT,
SIGTERM, or a disk that is full from then on) and started again, a few times, and at last left alone. Then results.csv,
search.json, frontier.json, the checkpoint and every file of scores must be those of a sweep that nobody cut off, byte
for byte; every file that a start leaves must stay as it is; and no point may be measured whose record is there.
Moments are drawn from a seed: times over the whole run, times in its first second, single events (a file that is
opened, synced, renamed or removed, a lease that is taken), and such events while results are written. Rounds that are
done are kept in --work, so the proof goes on where it was. Exits with 1 where anything was lost.

    python tools/prove_nothing_lost.py --work DIR --out tools/results/prove_nothing_lost.md
"""

import argparse
import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import merge_calib

PAIR = Path(merge_calib.__file__).parent / "demo_pair"
SEARCHES = {
    "grid": ("--limit", "400", "--lambdas", "0:1.5:0.25"),
    "adaptive": ("--limit", "400", "--search", "adaptive", "--tolerance", "0.02"),
    "optuna": ("--limit", "400", "--search", "optuna", "--sampler", "tpe", "--trials", "10"),
    "optuna, early stopping": (
        *("--limit", "800", "--search", "optuna", "--sampler", "tpe", "--trials", "10"),
        *("--objectives", "sce,nll", "--early-stopping", "0.9"),
    ),
}
SIGNALS = {"kill -9": signal.SIGKILL, "SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}
FULL = "full disk"
RESULTS = "event of the results"
MOMENTS = ("time", "first second", "event", RESULTS)
MOST_CUTS = 5  # of one round
OUTSIDE = 99  # exit code of a process that was interrupted before or after its command
_CUT = {"kill -9": (-9,), "SIGINT": (130, OUTSIDE), "SIGTERM": (-15, 143), FULL: (1,)}
_EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.utime", "fsync")
_FILLING = ("os.link", "os.mkdir", "fsync")  # what a full disk refuses
_PRELOADED = ("merge_calib.sweep", "merge_calib.report", "merge_calib.report.summary")
_MODELS = ("transformers.models.llama.modeling_llama", "optuna.samplers", "optuna.samplers._tpe.sampler")
_PATIENCE = 300.0  # seconds that a command may take


@dataclass(frozen=True)
class Cut:
    """What ends a command: one of SIGNALS or FULL, after `seconds`, or else at the event number `event`."""

    by: str
    moment: str
    seconds: float | None = None
    event: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said on stdout and stderr together."""

    code: int
    said: str
    seconds: float

    def was_cut(self, by: str) -> bool:
        """Whether it ended as one does that is cut off so; a full disk is said in one message."""
        said = self.said.strip().splitlines()
        is_clear = by != FULL or (said[-1:] and said[-1].startswith("Error: ") and "Traceback" not in self.said)
        return self.code in _CUT[by] and bool(is_clear)


@dataclass
class Events:
    """How many there were in a process: all, from the first of results.csv on, and those that need space."""

    all: int = 0
    results: int = 0
    filling: int = 0


class Starter:
    """Starts commands of merge-calib as processes of their own that have all imports done.

    trace: a file to which all of them append what they measure
    """

    def __init__(self, folder: Path) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*_PRELOADED, *_MODELS])
        self._folder = folder
        self.trace = folder / "trace"
        folder.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        arguments: Sequence[str],
        out: Path,
        cut: Cut | None = None,
        said: str = "said",
        environment: Mapping[str, str] | None = None,
    ) -> multiprocessing.process.BaseProcess:
        """Start `merge-calib ARGUMENTS`, whose run directory is `out`; what it says goes into the file `said`."""
        own = {"XDG_CACHE_HOME": str(self._folder / "cache"), "HF_HUB_OFFLINE": "1", **(environment or {})}
        process = self._context.Process(
            target=command, args=(list(arguments), out, self._folder / said, self.trace, cut, own)
        )
        (self._folder / said).unlink(missing_ok=True)
        process.start()
        while not (self._folder / said).exists() and process.is_alive():
            time.sleep(0.001)  # what comes earlier is not merge-calib's
        return process

    def said(self, said: str = "said") -> str:
        """What a command wrote to stdout and stderr."""
        return (self._folder / said).read_text(encoding="utf-8", errors="replace")

    def run(self, arguments: Sequence[str], out: Path, cut: Cut | None = None) -> Ended:
        """Start a command, cut it off, and wait for its end."""
        began = time.perf_counter()
        process = self.start(arguments, out, cut)
        if cut is not None and cut.seconds is not None:
            process.join(cut.seconds)
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, SIGNALS[cut.by])
        process.join(_PATIENCE)
        assert process.exitcode is not None, f"{arguments} does not end"
        return Ended(process.exitcode, self.said(), time.perf_counter() - began)

    def events(self, said: str = "said") -> Events:
        """What happened to the files of a command that has ended."""
        return Events(**json.loads((self._folder / said).with_suffix(".events").read_text(encoding="utf-8")))

    def measured(self) -> list[list[str]]:
        """What was measured so far, as lines [process, point, `whole` or `choosing`, `new` or `again`]."""
        return [line.split() for line in self.trace.read_text().splitlines()] if self.trace.exists() else []


def command(
    arguments: Sequence[str], out: Path, said: Path, trace: Path, cut: Cut | None, environment: Mapping[str, str]
) -> None:
    """The process: `merge-calib ARGUMENTS` without its report, which is derived from what is compared here."""
    code = OUTSIDE
    try:
        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        import merge_calib.report
        from merge_calib.cli.main import run

        merge_calib.report.write_report = lambda results: None  # noqa: ARG005
        trace_measuring(trace)
        _watch_events(out, cut)
        sys.argv = ["merge-calib", *arguments]
        run()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        said.with_suffix(".events").write_text(json.dumps(asdict(_counted)), encoding="utf-8")
        os._exit(code)


def trace_measuring(trace: Path) -> None:
    """Have this process append to `trace` whatever it measures, and whether the run had a record of it already."""
    from merge_calib.experiment import Experiment

    original = Experiment.measure

    def measure(self: Experiment, point: Any, *, whole: bool, **others: Any) -> str | None:
        record = self._run.path / "points" / f"{point.name}.json"
        held = json.loads(record.read_bytes()) if record.exists() else {}
        had = held.get("scores") if whole else held.get("scores") or held.get("select") or held.get("stopped")
        line = f"{os.getpid()} {point.name} {'whole' if whole else 'choosing'} {'again' if had else 'new'}\n"
        with trace.open("a", encoding="utf-8") as file:
            file.write(line)
        return original(self, point, whole=whole, **others)

    Experiment.measure = measure  # type: ignore[method-assign]


_counted = Events()


def _watch_events(out: Path, cut: Cut | None) -> None:
    """Count what happens to the files below `out`, and end the process, or fill the disk, at the event of `cut`."""
    original = os.fsync

    def fsync(fd: int | Any) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        sys.audit("fsync", str(Path(f"/proc/self/fd/{number}").readlink()))
        original(fd)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or not str(arguments[0]).startswith(str(out)):
            return
        _counted.all += 1
        _counted.filling += event in _FILLING
        _counted.results += _counted.results > 0 or "results.csv" in str(arguments[0])
        if cut is None or cut.event is None:
            return
        if cut.by == FULL and event in _FILLING and _counted.filling >= cut.event:
            _tear(event, str(arguments[0]))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reached = _counted.results if cut.moment == RESULTS else _counted.all
        if cut.by != FULL and reached == cut.event:
            os.kill(os.getpid(), SIGNALS[cut.by])

    os.fsync = fsync
    sys.addaudithook(hook)


def _tear(event: str, path: str) -> None:
    """Only half of what was written has reached a disk that is full."""
    if event == "fsync" and Path(path).is_file():
        os.truncate(path, Path(path).stat().st_size // 2)


def content(out: Path) -> dict[str, bytes]:
    """All that must be the same in a sweep that was cut off, by path."""
    single = [out / name for name in ("results.csv", "frontier.json", "search.json")]
    many = [path for name in ("scores", "checkpoints") for path in sorted((out / name).rglob("*"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in (*single, *many) if path.is_file()}


def files_of(out: Path) -> set[str]:
    """The files of a run but for leases, the study and what workers said, which tell of starts."""
    found = (str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith((".leases", "study.journal", "workers"))}


def stamps(out: Path) -> dict[str, tuple[int, int, bytes]]:
    """Inode, time and bytes of each record and each file of scores that a record names."""
    records = sorted((out / "points").glob("*.json"))
    named = []
    for record in records:
        held = json.loads(record.read_bytes())
        parts = [held.get(key, {}) for key in ("scores", "select", "some")]
        named += [out / each["file"] for part in parts for task in part.values() for each in task.values()]
    return {
        str(p.relative_to(out)): (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in (*records, *named)
    }


def rewritten(before: Mapping[str, tuple[int, int, bytes]], after: Mapping[str, tuple[int, int, bytes]]) -> list[str]:
    """The files that are gone, or that were written again with the bytes that they had, or scores with others."""
    return [
        name
        for name, (inode, changed, held) in before.items()
        if name not in after
        or ((inode, changed) != after[name][:2] and (held == after[name][2] or name.startswith("scores")))
    ]


def draw(rng: random.Random, seconds: float, events: Events, by: Sequence[str]) -> Cut:
    """A cut at a random moment of a run of this length."""
    kind = rng.choice(by)
    if kind == FULL:
        return Cut(FULL, "event", event=rng.randint(1, events.filling))
    moment = rng.choice(MOMENTS)
    if moment == "time":
        return Cut(kind, moment, seconds=rng.uniform(0, seconds))
    if moment == "first second":
        return Cut(kind, moment, seconds=rng.uniform(0, min(1.0, seconds)))
    return Cut(kind, moment, event=rng.randint(1, events.results if moment == RESULTS else events.all))


def prove_round(
    starter: Starter, arguments: Sequence[str], out: Path, cuts: Sequence[Cut], whole: Path
) -> dict[str, Any]:
    """Start a sweep, cut it off at each of `cuts` in turn while it lasts, let it end; how it compares with `whole`."""
    shutil.rmtree(out, ignore_errors=True)
    starter.trace.unlink(missing_ok=True)
    made, faults = [], []
    line = [*arguments, "--out", str(out)]
    for cut in (*cuts, None):
        before = stamps(out)
        ended = starter.run(line, out, cut)
        faults += [f"{name} was written again or lost after {cut}" for name in rewritten(before, stamps(out))]
        if ended.code == 0:
            break
        if cut is None or not ended.was_cut(cut.by):
            faults.append(f"{cut} ended with {ended.code}: {ended.said[-500:]}")
            break
        if cut.by == FULL:
            faults += [f"{path} is left by {cut}" for path in out.rglob("*.partial-*")]
        made.append(asdict(cut))
    faults += differences(whole, out)
    faults += [f"measured again: {line}" for line in starter.measured() if line[3] == "again"]
    return {"cuts": made, "faults": faults, "measured": len(starter.measured())}


def differences(whole: Path, out: Path) -> list[str]:
    """The files that are not the same in both run directories, or are in one of them only."""
    expected, found = content(whole), content(out)
    other = [f"{name} differs" for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    return other + [f"{name} is in one only" for name in sorted(files_of(whole) ^ files_of(out))]


def prove_search(work: Path, name: str, wanted: Mapping[str, int], seed: int) -> list[dict[str, Any]]:
    """Rounds with as many cuts as `wanted`, by signals and by a full disk; those that `work` keeps stay."""
    folder = work / name.replace(", ", "-").replace(" ", "-")
    starter, whole = Starter(folder), folder / "whole"
    arguments = command_line(SEARCHES[name])
    shutil.rmtree(whole, ignore_errors=True)
    starter.run([*arguments, "--out", str(whole)], whole)  # fills caches and imports what the first one imports late
    shutil.rmtree(whole)
    ended = starter.run([*arguments, "--out", str(whole)], whole)
    assert ended.code == 0, ended.said
    events = starter.events()
    rounds: list[dict[str, Any]] = []
    for kind, by in (("signals", tuple(SIGNALS)), ("full", (FULL,))):
        done, number = 0, 0
        while done < wanted[kind]:
            kept = folder / f"{kind}-{number}.json"
            if not kept.exists():
                rng = random.Random(f"{seed} {name} {kind} {number}")
                cuts = [draw(rng, ended.seconds, events, by) for _ in range(min(MOST_CUTS, wanted[kind] - done))]
                found = {"kind": kind, **prove_round(starter, arguments, folder / "cut", cuts, whole)}
                kept.write_text(json.dumps(found), encoding="utf-8")
                print(name, kind, number, len(found["cuts"]), *found["faults"], flush=True)
            rounds.append(json.loads(kept.read_text(encoding="utf-8")))
            done, number = done + len(rounds[-1]["cuts"]), number + 1
    return rounds


def command_line(search: Sequence[str]) -> list[str]:
    """A sweep of the demo pair, without --out."""
    pair = ["--base", str(PAIR / "base"), "--aligned", str(PAIR / "aligned"), "--tasks", str(PAIR / "questions.jsonl")]
    return ["sweep", *pair, "--no-retained", "--device", "cpu", "--draws", "100", *search]


def describe(rounds: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The outcome as a page."""
    lines = [
        "# Nothing is lost",
        "",
        f"Made by `tools/prove_nothing_lost.py` with merge-calib {merge_calib.__version__} on the CPU. Sweeps of the",
        "demo pair, started, cut off at random moments, started again, and at last left alone. Each round is one run",
        "directory. Cut off: a signal came, or the disk was full from then on, before the sweep was done. A fault is",
        "anything that differs from a sweep that nobody cut off: a byte of results.csv, frontier.json, search.json,",
        "the checkpoint or the scores, a file too many or too few, a record or a file of scores that was written",
        "again, a point that was measured although its record was there, or an end with another exit code or message",
        "than belongs to the cut.",
        "",
        f"| search | rounds | cuts | {' | '.join(SIGNALS)} | {FULL} | in the first second | in the results | faults |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, made in rounds.items():
        cuts = [cut for each in made for cut in each["cuts"]]
        by, moments = Counter(cut["by"] for cut in cuts), Counter(cut["moment"] for cut in cuts)
        counted = [len(made), len(cuts), *(by[kind] for kind in (*SIGNALS, FULL))]
        counted += [moments["first second"], moments[RESULTS], sum(len(each["faults"]) for each in made)]
        lines.append(f"| {name} | {' | '.join(map(str, counted))} |")
    faults = [f"- {name}: {fault}" for name, made in rounds.items() for each in made for fault in each["faults"]]
    return "\n".join([*lines, *([""] if faults else []), *faults]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for runs; rounds that are done are kept there")
    parser.add_argument("--out", type=Path, required=True, help="where the outcome is written")
    parser.add_argument("--moments", type=int, default=50, help="signals for each search")
    parser.add_argument("--full", type=int, default=20, help="full disks for each search")
    parser.add_argument("--searches", nargs="+", default=tuple(SEARCHES), choices=tuple(SEARCHES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wanted = {"signals": options.moments, "full": options.full}
    rounds = {name: prove_search(options.work.resolve(), name, wanted, options.seed) for name in options.searches}
    report = describe(rounds)
    options.out.write_text(report, encoding="utf-8")
    print(report)
    sys.exit(1 if any(each["faults"] for made in rounds.values() for each in made) else 0)


if __name__ == "__main__":
    main()
