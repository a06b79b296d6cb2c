"""Drawing batches in other processes, ahead of the steps that need them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Result = TypeVar("Result")


def results_in_order(
    pool: Executor, draw: Callable[..., Result], items: Iterable[tuple], *, ahead: int
) -> Iterator[Result]:
    """The results of ``draw(*item)`` in the order of `items`, which may never end, at most `ahead` of them early."""
    coming = iter(items)
    waiting: deque[Future] = deque(pool.submit(draw, *item) for item in itertools.islice(coming, ahead))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(draw, *item) for item in itertools.islice(coming, 1))
