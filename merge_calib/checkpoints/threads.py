"""Threads that compute side by side."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def lone_threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads in each of which torch computes alone: its own threads would fight over the same cores.

    What was not begun is dropped at the end.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, name, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
