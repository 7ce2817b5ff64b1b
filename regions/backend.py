"""What classifies tiles: the model in this process, or a running server."""

import os
from pathlib import Path
from typing import Any, Protocol

from regions.answers import Answers
from regions.server_backend import ServerBackend
from regions.source import Pixels


class Backend(Protocol):
    """Classifies tiles. May be called by one thread at a time."""

    def identity(self) -> dict[str, Any]:
        """The model that answers, with its digest and engine, as in a response of the server, and what runs it."""

    def classify(self, tiles: Pixels) -> Answers:
        """The answers for uint8 tiles `[N, 28, 28, 3]`, in order. Raises `RegionError` if there are none."""


def open_backend(archive: Path, server: str | None, engine: str | None = None) -> Backend:
    """A server if there is a URL, otherwise the model of an archive, by a certain engine if one is named.

    Raises `RegionError`.
    """
    if server:
        return ServerBackend(server)
    if engine:
        os.environ["PATHMNIST_ENGINE"] = engine
    # Imported here alone, because it brings PyTorch, which a server's client does without.
    from regions.local_backend import LocalBackend

    return LocalBackend.of_archive(archive)
