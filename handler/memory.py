"""Returns free memory to the system while a worker has nothing to do, and once a minute while it is busy.

glibc keeps what an explanation's batches allocated: after Integrated Gradients a worker holds a gigabyte that it does
not use. `malloc_trim` returns it. After each batch that would cost explanations up to a fifth of their time, so it
waits until no batch has come for a while. Under load that never pauses, the gaps in the heap would grow for hours.
"""

import ctypes
import threading
import time

IDLE_SECONDS = 2.0
BUSY_SECONDS = 60.0


class Trim:
    """Trims the heap `idle_seconds` after the last `touch`, and every `busy_seconds` if they do not pause.

    Does nothing without glibc.
    """

    def __init__(self, idle_seconds: float = IDLE_SECONDS, busy_seconds: float = BUSY_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._busy_seconds = busy_seconds
        self._touched = threading.Event()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            threading.Thread(target=self._run, args=(trim,), name="trim", daemon=True).start()

    def touch(self) -> None:
        """Note that a batch has ended."""
        self._touched.set()

    def _run(self, trim: "ctypes._NamedFuncPointer") -> None:
        trimmed = time.monotonic()
        while self._touched.wait():
            self._touched.clear()
            busy = self._touched.wait(self._idle_seconds)
            if not busy or time.monotonic() - trimmed > self._busy_seconds:
                trim(0)
                trimmed = time.monotonic()
