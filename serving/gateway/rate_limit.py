"""How often one client may ask."""

import time
from collections.abc import Callable


class RateLimit:
    """A token bucket for each client: `rate` requests a second, and up to `burst` at once after a rest.

    Of a client only the moment is kept at which its bucket is full again, and nothing after that moment.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / rate
        self._depth = burst / rate
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._sweep_at = 0.0

    def wait(self, client: str) -> float:
        """Count a request; returns 0 where it may pass, else the seconds until one may, and counts nothing."""
        now = self._clock()
        self._forget_rested(now)
        full_at = max(now, self._full_at.get(client, now)) + self._interval
        if full_at - now > self._depth * (1 + 1e-9):
            return full_at - now - self._depth
        self._full_at[client] = full_at
        return 0

    @property
    def clients(self) -> int:
        """How many are remembered."""
        return len(self._full_at)

    def _forget_rested(self, now: float) -> None:
        if now < self._sweep_at:
            return
        self._full_at = {client: moment for client, moment in self._full_at.items() if moment > now}
        self._sweep_at = now + self._depth
