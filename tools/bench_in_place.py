"""What a change of lambda in place costs: seconds, against a plain copy, and host memory beyond the working copy.

    python tools/bench_in_place.py BASE ALIGNED [--methods linear,slerp] [--threads 2]

Prints a Markdown table. Memory is anonymous memory (RssAnon), sampled every two milliseconds: pages of files that the
system may drop at any time are not counted. Linux only.
"""

import argparse
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from merge_calib.checkpoints.pair import ModelPair
from merge_calib.merging.merger import Merger
from merge_calib.merging.methods import METHODS
from merge_calib.merging.point import MergePoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("aligned", type=Path)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pair = ModelPair.open(options.base, options.aligned)
    targets = {name: torch.ones(slot.shape, dtype=slot.dtype) for name, slot in pair.slots.items()}
    largest = max(slot.bytes for slot in pair.slots.values())
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, torch {torch.__version__}.")
    print(f"{pair.parameters / 1e9:.2f} G parameters, {pair.aligned.bytes / 1e9:.2f} GB a parent.")
    print(f"Largest tensor {largest / 1e6:.0f} MB.\n")
    print("| method | first lambda | next lambda | memory beyond the working copy |\n| :-- | --: | --: | --: |")
    print(f"| reading both parents, copying one | | {reading(pair, targets):.1f} s | |", flush=True)
    merger, before = Merger(pair), anonymous()
    for method in options.methods.split(","):
        print(row(merger, method, targets, before), flush=True)


def row(merger: Merger, method: str, targets: dict[str, torch.Tensor], before: int) -> str:
    """One line of the table; before: bytes in use when there was nothing but the working copy."""
    with peak_memory(before) as peak:
        first = seconds(merger, MergePoint(method, 0.4), targets)
        second = seconds(merger, MergePoint(method, 0.7), targets)
    return f"| {method} | {first:.1f} s | {second:.1f} s | {peak[0] / 1e6:.0f} MB |"


def seconds(merger: Merger, point: MergePoint, targets: dict[str, torch.Tensor]) -> float:
    began = time.perf_counter()
    merger.apply(point, targets)
    return time.perf_counter() - began


def reading(pair: ModelPair, targets: dict[str, torch.Tensor]) -> float:
    """Seconds that the same reads and writes take without any arithmetic."""
    began = time.perf_counter()
    for name, slot in pair.slots.items():
        step = max(1, (1 << 19) // max(slot.row_size, 1))
        for start in range(0, slot.rows, step):
            stop = min(start + step, slot.rows)
            pair.read("base", name, start, stop)
            targets[name][start:stop].copy_(pair.read("aligned", name, start, stop))
    return time.perf_counter() - began


@contextmanager
def peak_memory(before: int) -> Iterator[list[int]]:
    """The most anonymous memory within, in bytes beyond `before`, in a list of one."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def anonymous() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
