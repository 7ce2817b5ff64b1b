"""Returns free memory to the system while a worker has nothing to do.

glibc keeps what an explanation's batches allocated: after Integrated Gradients a worker holds a gigabyte that it does
not use. `malloc_trim` returns it. After each batch that would cost explanations up to a fifth of their time, so it
waits until no batch has come for a while.
"""

import ctypes
import threading

IDLE_SECONDS = 2.0


class IdleTrim:
    """Trims the heap once, `idle_seconds` after the last `touch`. Does nothing without glibc."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._touched = threading.Event()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            threading.Thread(target=self._run, args=(trim,), name="trim", daemon=True).start()

    def touch(self) -> None:
        """Note that a batch has ended."""
        self._touched.set()

    def _run(self, trim: "ctypes._NamedFuncPointer") -> None:
        while self._touched.wait():
            self._touched.clear()
            if not self._touched.wait(self._idle_seconds):
                trim(0)
