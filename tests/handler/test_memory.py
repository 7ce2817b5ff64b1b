"""A worker's free memory returns to the system, when it is idle and while it is busy."""

import ctypes
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from handler.memory import Trim
from tests.support.waiting import wait_for

# Pieces that glibc takes from its heap, which shrinks by itself only at its upper end.
PIECE, COUNT = 2**16, 3000

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")


@pytest.fixture
def full() -> Iterator[int]:
    """The memory of this process before three thousand pieces of its heap became free."""
    pieces = [np.ones(PIECE, np.uint8) for _ in range(COUNT)]
    last = np.ones(PIECE, np.uint8)
    used = psutil.Process().memory_info().rss
    pieces.clear()
    yield used
    assert last.all()


def has_returned(full: int) -> bool:
    return psutil.Process().memory_info().rss < full - PIECE * COUNT / 2


def test_free_memory_returns_once_no_batch_comes(full: int) -> None:
    Trim(idle_seconds=0.1, busy_seconds=3600).touch()
    wait_for(lambda: has_returned(full))


def test_free_memory_returns_while_batches_never_pause(full: int) -> None:
    trim = Trim(idle_seconds=3600, busy_seconds=0.2)

    def returned_after_a_batch() -> bool:
        trim.touch()
        return has_returned(full)

    wait_for(returned_after_a_batch)


def test_a_busy_worker_is_not_trimmed_before_its_time(full: int) -> None:
    trim = Trim(idle_seconds=3600, busy_seconds=3600)
    for _ in range(100):
        trim.touch()
    assert not has_returned(full)
