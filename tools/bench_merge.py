"""Measure how fast a merged checkpoint is written: merge-calib against mergekit and against the disk alone.

    python tools/bench_merge.py --work DIR --mergekit mergekit-yaml [--gb 3] [--repeat 3] [--out FILE.md]

Both commands merge the same pair, two random Llamas in bf16, sharded, at linear lambda 0.4, into shards of one size.
The pair is made once in DIR. In each repetition every command runs with the parents in the system's memory (`warm`:
both are read whole just before) and without them (`cold`: the system is told to drop their pages); the order turns with
every repetition. merge-calib's time holds the SHA-256 of both parents and the wait until all is on the disk; mergekit
does neither, so the wait for its files is measured after it and stands beside. `hashes known` is merge-calib once more
on parents whose hashes it has kept from an earlier command.

The disk alone: as many bytes as a merged checkpoint has, written in order with buffers of 1 MiB, and fsync; measured
before, amid and after each repetition. Peak memory is the high-water mark that the system keeps for the program (VmHWM,
read every 20 ms), which counts pages of mapped files; `own` is the largest of as many samples of what is not of files.
(What getrusage says of a child would begin with the memory of this script.) Start-up is the time of the same command on
a pair of a few kilobytes. The outputs must be equal bit for bit, or the exit code is 1.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

import merge_calib
from merge_calib.checkpoints.checkpoint import Checkpoint
from merge_calib.checkpoints.fingerprint import fingerprint
from merge_calib.checkpoints.shards import Stored, plan_shards
from merge_calib.files import sync, written_whole

LAMBDA = 0.4
BUFFER = 1 << 20
SIDES = ("base", "aligned")
OURS, KNOWN, THEIRS = "merge-calib", "merge-calib, hashes known", "mergekit"
WANTED_RATIO = 5.0
WANTED_SHARDS, WANTED_MORE = 1.5, 1 << 30  # peak memory: so many of the largest shard, and so many bytes


@dataclass(frozen=True)
class Run:
    """One command. wall, user, system, flush: seconds, flush until its files are on the disk; peak, own: bytes, own
    without mapped files."""

    wall: float
    user: float
    system: float
    flush: float
    peak: int
    own: int


@dataclass(frozen=True)
class Setup:
    """Where everything lies, and the commands."""

    work: Path
    ours: Path
    mergekit: Path
    shard_bytes: int

    def command(self, name: str, pair: Path, out: Path) -> list[str]:
        if name == THEIRS:
            config = self.work / f"{pair.name}.yaml"
            config.write_text(_mergekit_config(pair), encoding="utf-8")
            return [str(self.mergekit), str(config), str(out), "--out-shard-size", str(self.shard_bytes)]
        parents = [word for side in SIDES for word in (f"--{side}", str(pair / side))]
        sizes = ["--shard-size", str(self.shard_bytes)]
        return [str(self.ours), "merge", *parents, "--lambda", str(LAMBDA), "--out", str(out), *sizes]

    @property
    def cache(self) -> Path:
        """Where merge-calib keeps hashes."""
        return self.work / "cache"


def make_pair(folder: Path, layers: int, hidden: int, vocabulary: int, shard_bytes: int) -> None:
    """Two random Llamas in bf16 with the tokenizer of the demo pair, unless they are there."""
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 256),
        vocab_size=vocabulary,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    tokenizer = Path(merge_calib.__file__).parent / "demo_pair" / "aligned"
    for seed, side in enumerate(SIDES):
        if (folder / side).is_dir():
            continue
        with written_whole(folder / side) as partial:
            partial.mkdir(parents=True)
            config.save_pretrained(partial)
            for path in tokenizer.glob("tokenizer*"):
                shutil.copyfile(path, partial / path.name)
            _write_random(partial, shapes, shard_bytes, seed)


def _write_random(folder: Path, shapes: dict[str, tuple[int, ...]], shard_bytes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shards = plan_shards({name: Stored(shape, torch.bfloat16) for name, shape in shapes.items()}, shard_bytes)
    for shard in shards:
        values = {n: torch.empty(shapes[n]).normal_(0, 0.02, generator=generator).bfloat16() for n in shard.places}
        save_file(values, folder / shard.file, metadata={"format": "pt"})
    if len(shards) > 1:
        index = {"metadata": {}, "weight_map": {name: shard.file for shard in shards for name in shard.places}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _mergekit_config(pair: Path) -> str:
    weights = {"base": 1 - LAMBDA, "aligned": LAMBDA}
    models = "".join(f"  - model: {pair / side}\n    parameters: {{weight: {weights[side]}}}\n" for side in SIDES)
    return f"models:\n{models}merge_method: linear\ndtype: bfloat16\n"


def measure(command: Sequence[str], out: Path, cache: Path) -> Run:
    """Run a command that writes `out`, and wait until that is on the disk; `out` is left there."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(cache)}
    with (out.parent / "output.log").open("wb") as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        with _sampled(process.pid) as memory:
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{(out.parent / 'output.log').read_text()[-3000:]}")
    start = time.perf_counter()
    for path in (*out.iterdir(), out):
        sync(path)
    flush = time.perf_counter() - start
    return Run(wall, usage.ru_utime, usage.ru_stime, flush, memory["VmHWM"], memory["RssAnon"])


@contextlib.contextmanager
def _sampled(pid: int) -> Iterator[dict[str, int]]:
    """Collect the largest VmHWM and RssAnon of a process in bytes, while it runs."""
    found = {"VmHWM": 0, "RssAnon": 0}
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    key, _, value = line.partition(":")
                    if key in found:
                        found[key] = max(found[key], int(value.split()[0]) * 1024)

    thread = threading.Thread(target=sample)
    thread.start()
    yield found
    ended.set()
    thread.join()


def disk_seconds(folder: Path, size: int) -> float:
    """How long the disk takes to have `size` bytes, written in order."""
    path, buffer = folder / "disk", os.urandom(BUFFER)
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(size // BUFFER):
            file.write(buffer)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds


def warm(pair: Path) -> None:
    """Read both parents whole."""
    buffer = bytearray(BUFFER)
    for path in sorted(pair.rglob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def cool(pair: Path) -> None:
    """Have the system drop what it holds of both parents."""
    for path in pair.rglob("*.safetensors"):
        sync(path)
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def settle() -> None:
    """Let the disk come to rest."""
    os.sync()
    time.sleep(2)


class Bench:
    """All runs, by command and state of the system's memory."""

    def __init__(self, setup: Setup, pair: Path, tiny: Path) -> None:
        self._setup, self._pair, self._tiny = setup, pair, tiny
        self.runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
        self.disk: list[float] = []
        self.hashes: set[str] = set()
        self.largest = max(path.stat().st_size for path in pair.rglob("*.safetensors"))
        self.size = sum(path.stat().st_size for path in (pair / "base").glob("*.safetensors"))

    def repeat(self, number: int) -> None:
        commands = [THEIRS, OURS, KNOWN] if number % 2 else [OURS, KNOWN, THEIRS]
        for state in ("warm", "cold"):
            self._write_alone()
            for name in commands:
                self.hashes.add(self._run(name, state, self._pair))
        self._write_alone()
        for name in (OURS, THEIRS):
            self._run(name, "tiny", self._tiny)

    def _write_alone(self) -> None:
        self.disk.append(disk_seconds(self._setup.work, self.size))
        settle()

    def _run(self, name: str, state: str, pair: Path) -> str:
        """Run a command, and give the hash of what it wrote; that is removed, so that no command finds less memory."""
        out = self._setup.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        if name == OURS:
            shutil.rmtree(self._setup.cache, ignore_errors=True)
        cool(pair) if state == "cold" else warm(pair)
        run = measure(self._setup.command(name, pair, out), out, self._setup.cache)
        self.runs[name, state].append(run)
        print(f"{name}, {state}: {run}", file=sys.stderr, flush=True)
        written = fingerprint(Checkpoint.open(out))
        shutil.rmtree(out)
        settle()
        return written

    def median(self, name: str, state: str, field: str) -> float:
        return float(statistics.median(getattr(run, field) for run in self.runs[name, state]))

    def report(self) -> str:
        return "\n".join([self._heading(), self._goals(), self._table(), self._every()])

    def _heading(self) -> str:
        options = vars(_arguments().parse_args())
        rate = f"{self.size / statistics.median(self.disk) / 1e9:.2f} GB/s ({_listed(self.disk)} s)"
        return (
            "# Writing a merged checkpoint\n\n"
            f"- made by `python tools/bench_merge.py --gb {options['gb']:g} --repeat {options['repeat']}` on "
            f"{datetime.date.today()}, {_machine()}\n"
            f"- Python {platform.python_version()}, torch {torch.__version__}; a random Llama pair in bf16, "
            f"{self.size / 1e9:.2f} GB each, linear at lambda {LAMBDA}, shards of {self._setup.shard_bytes / 1e9:g} "
            "GB\n"
            f"- the disk alone: {rate} for as many bytes, 1 MiB at once, and fsync\n"
            "- seconds are medians; merge-calib's hold the hashes of both parents and fsync, mergekit's neither; "
            "`flush` is what it takes after the command until its files are on the disk\n"
            "- warm: both parents were read whole just before; cold: their pages were dropped (posix_fadvise)\n"
            "- peak memory counts pages of mapped files, `own` is without them\n"
            f"- all outputs are {'equal bit for bit' if len(self.hashes) == 1 else '**NOT equal**'}\n"
        )

    def _goals(self) -> str:
        lines = []
        for state in ("warm", "cold"):
            ratio = self._body(THEIRS, state) / self._body(OURS, state)
            lines.append(_goal(f"times mergekit, {state}, less start-up", WANTED_RATIO, ratio, ratio >= WANTED_RATIO))
            ratio = self._body(THEIRS, state) / self._body(KNOWN, state)
            what = f"the same with hashes known, {state}"
            lines.append(_goal(what, WANTED_RATIO, ratio, ratio >= WANTED_RATIO))
        peak = max(run.peak for run in self.runs[OURS, "warm"] + self.runs[OURS, "cold"]) / 1e9
        most = (WANTED_SHARDS * self.largest + WANTED_MORE) / 1e9
        lines.append(_goal("peak memory GB, at most", most, peak, peak <= most))
        return "| goal | wanted | found |  |\n|---|---:|---:|---:|\n" + "".join(lines)

    def _body(self, name: str, state: str) -> float:
        """Seconds of the whole command without its start-up."""
        return self.median(name, state, "wall") - self.median(THEIRS if name == THEIRS else OURS, "tiny", "wall")

    def _table(self) -> str:
        head = "| command | parents | s | of it start-up | flush s | GB/s | CPU s | peak GB | own GB |\n"
        lines = [head, "|---|---|---:|---:|---:|---:|---:|---:|---:|\n"]
        for state in ("warm", "cold"):
            for name in (OURS, KNOWN, THEIRS):
                wall, flush, user, system, peak, own = (
                    self.median(name, state, field) for field in ("wall", "flush", "user", "system", "peak", "own")
                )
                start = wall - self._body(name, state)
                rate = self.size / self._body(name, state) / 1e9
                lines.append(
                    f"| {name} | {state} | {wall:.2f} | {start:.2f} | {flush:.2f} | {rate:.2f} | {user + system:.1f} | "
                    f"{peak / 1e9:.2f} | {own / 1e9:.2f} |\n"
                )
        return "".join(lines)

    def _every(self) -> str:
        lines = ["## Every repetition\n\n| command | parents | s |\n|---|---|---:|\n"]
        lines += [
            f"| {name} | {state} | {_listed([run.wall for run in runs])} |\n"
            for (name, state), runs in self.runs.items()
        ]
        return "".join(lines)


def _goal(what: str, wanted: float, found: float, reached: bool) -> str:
    return f"| {what} | {wanted:.2f} | {found:.2f} | {'reached' if reached else '**missed**'} |\n"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} cores of {model or platform.processor()}, {memory:.0f} GB of memory"


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the pair and the outputs, on the disk to measure"
    )
    parser.add_argument("--mergekit", type=Path, required=True, help="mergekit-yaml")
    parser.add_argument("--ours", type=Path, default=Path(sys.executable).parent / "merge-calib", help="merge-calib")
    parser.add_argument("--gb", type=float, default=3.0, help="of each parent at least")
    parser.add_argument("--shard-gb", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, help="Markdown file for the tables, besides stdout")
    return parser


def main() -> None:
    options = _arguments().parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(work / "own-cache")  # hashes of outputs are nobody else's
    setup = Setup(work, options.ours, options.mergekit, int(options.shard_gb * 1e9))
    hidden, vocabulary = 2048, 32000
    a_layer = 2 * (2.5 * hidden * hidden + 3 * 4 * hidden * hidden)  # bytes
    layers = max(1, -int(-(options.gb * 1e9 - 4 * hidden * vocabulary) // a_layer))
    pair, tiny = work / f"pair-{layers}", work / "pair-tiny"
    make_pair(pair, layers, hidden, vocabulary, setup.shard_bytes)
    make_pair(tiny, 1, 64, 320, setup.shard_bytes)
    bench = Bench(setup, pair, tiny)
    for number in range(options.repeat):
        bench.repeat(number)
    report = bench.report()
    print(report)
    if options.out:
        options.out.write_text(report, encoding="utf-8")
    sys.exit(0 if len(bench.hashes) == 1 else 1)


if __name__ == "__main__":
    main()
