"""A limit on the requests of each client."""

import time
from collections.abc import Callable


class RateLimit:
    """A token bucket for each client: `rate` requests a second, and up to `burst` at once after a rest.

    Stores one timestamp for each client: when its bucket is full again. Older entries are dropped.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / rate
        self._depth = burst / rate
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._sweep_at = 0.0

    def wait(self, client: str) -> float:
        """Count a request and return 0 if it may pass; otherwise return the seconds until one may."""
        now = self._clock()
        self._drop_full(now)
        full_at = max(now, self._full_at.get(client, now)) + self._interval
        if full_at - now > self._depth * (1 + 1e-9):
            return full_at - now - self._depth
        self._full_at[client] = full_at
        return 0

    def charge(self, client: str, requests: int) -> None:
        """Count requests that are served in any case. The client pays by a longer wait."""
        now = self._clock()
        self._full_at[client] = max(now, self._full_at.get(client, now)) + requests * self._interval

    @property
    def clients(self) -> int:
        """How many timestamps are stored."""
        return len(self._full_at)

    def _drop_full(self, now: float) -> None:
        if now < self._sweep_at:
            return
        self._full_at = {client: moment for client, moment in self._full_at.items() if moment > now}
        self._sweep_at = now + self._depth
