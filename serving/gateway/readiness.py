"""Readiness: whether the model answers the golden tile as it did at its export."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Seconds for which a verdict is valid, and for which an answer is awaited.
FRESH = 1.0
PATIENCE = 10.0


class NotReadyError(Exception):
    """Why requests should go elsewhere."""


@dataclass(frozen=True)
class GoldenTile:
    """A tile, and the answer of the model with the SHA-256 `digest` to it: a class and nine logits, each of which may
    differ by `tolerance`."""

    image: bytes
    digest: str
    class_id: int
    logits: tuple[float, ...]
    tolerance: float

    def require(self, answer: dict[str, Any]) -> None:
        """Raise `NotReadyError` if a prediction is not the one of this tile."""
        if answer["model"]["digest"] != self.digest:
            raise NotReadyError("The server answers with another model than the manifest's.")
        if answer["prediction"]["class_id"] != self.class_id:
            raise NotReadyError("The golden tile gets another class than at export.")
        gap = max(abs(one - other) for one, other in zip(answer["logits"], self.logits, strict=True))
        if not gap <= self.tolerance:
            raise NotReadyError(f"The golden tile's logits differ by {gap:.3g} from those at export.")


def read_golden(manifest: Path) -> GoldenTile:
    """The golden tile of an export; raises `NotReadyError` if the manifest has none."""
    try:
        content = json.loads(manifest.read_text())
        golden = content["golden"]
        return GoldenTile(
            base64.b64decode(golden["image"]),
            content["model"]["digest"],
            golden["class_id"],
            tuple(golden["logits"]),
            golden["tolerance"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotReadyError("manifest.json has no golden tile; run `python -m export`.") from error


class Readiness:
    """Asks the model with the manifest's golden tile, at most once in `FRESH` seconds.

    `predict` sends an image file to the model and returns its answer; it raises `NotReadyError` if there is none.
    """

    def __init__(self, manifest: Path, predict: Callable[[bytes], Awaitable[dict[str, Any]]]) -> None:
        self._manifest = manifest
        self._predict = predict
        self._lock = asyncio.Lock()
        self._reason: str | None = None
        self._fresh_until = 0.0

    async def reason(self) -> str | None:
        """Why the server is not ready; None if it is."""
        async with self._lock:
            if time.monotonic() >= self._fresh_until:
                self._reason = await self._check()
                self._fresh_until = time.monotonic() + FRESH
            return self._reason

    async def _check(self) -> str | None:
        try:
            # An update of the model replaces the manifest of a running server.
            golden = read_golden(self._manifest)
            golden.require(await asyncio.wait_for(self._predict(golden.image), PATIENCE))
        except NotReadyError as error:
            return str(error)
        except TimeoutError:
            return f"The model does not answer within {PATIENCE:.0f} s."
        except (KeyError, TypeError, ValueError):
            return "The model's answer is malformed."
        return None
