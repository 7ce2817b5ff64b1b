"""Lets the tiles of regions pass when no client waits for a prediction, and few at a time."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

# Tiles that are with the model at once: half of a batch of config.properties, which is what a prediction waits for.
TILES = 4
# Seconds for which a tile lets clients pass, so that a region ends under any load.
PATIENCE = 1.0


class Priority:
    """Counts the clients' questions under way."""

    def __init__(self) -> None:
        self._clients = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._slots = asyncio.Semaphore(TILES)

    @contextmanager
    def client(self) -> Iterator[None]:
        """A client's question: it passes at once."""
        self._clients += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._clients -= 1
            if not self._clients:
                self._idle.set()

    @asynccontextmanager
    async def tile(self) -> AsyncIterator[None]:
        """A tile of a region: it waits until it is its turn."""
        async with self._slots:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._idle.wait()
            except TimeoutError:
                pass
            yield
