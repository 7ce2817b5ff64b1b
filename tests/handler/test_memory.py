"""A worker's free memory returns to the system once it is idle."""

import ctypes

import numpy as np
import psutil
import pytest

from handler.memory import IdleTrim
from tests.support.waiting import wait_for

# Pieces that glibc takes from its heap, which shrinks by itself only at its upper end.
PIECE, COUNT = 2**16, 3000


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_free_memory_returns_once_no_batch_comes() -> None:
    pieces = [np.ones(PIECE, np.uint8) for _ in range(COUNT)]
    last = np.ones(PIECE, np.uint8)
    full = psutil.Process().memory_info().rss
    pieces.clear()
    IdleTrim(idle_seconds=0.1).touch()
    wait_for(lambda: psutil.Process().memory_info().rss < full - PIECE * COUNT / 2)
    assert last.all()
