"""Work spread over threads, with its results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

A = TypeVar("A")
R = TypeVar("R")


def one_thread() -> None:
    """Makes the calling thread compute alone: OpenMP counts threads per thread: each worker has to ask for one itself."""
    torch.set_num_threads(1)


def ordered_map(pool: ThreadPoolExecutor, function: Callable[[A], R], items: Iterable[A], window: int) -> Iterator[R]:
    """Results in order, computed by `pool`, at most `window` of them ahead of the reader; on an error the rest is cancelled."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
