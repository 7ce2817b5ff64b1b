"""Maps that were computed before, on disk, shared by all workers of a host."""

import hashlib
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import diskcache
import numpy as np
import torch
from numpy.typing import NDArray

from handler.explain.types import Attribution, Parameters
from handler.model.checkpoint import Model

# Seconds to wait for another worker's write before answering without the cache.
LOCK_TIMEOUT = 1.0
# Entries to evict for each one written to a full cache: more than one, to fall below the limit again.
EVICTED_AT_ONCE = 2

logger = logging.getLogger(__name__)


class _PlainDisk(diskcache.Disk):
    """Stores bytes, and refuses to unpickle."""

    def fetch(self, mode: int, filename: str, value: Any, read: bool) -> Any:
        if mode == diskcache.core.MODE_PICKLE:
            raise ValueError("the cache holds an entry that is not plain bytes")
        return super().fetch(mode, filename, value, read)


class AttributionCache:
    """Maps by exact key, at most `size_limit` bytes; the least recently used are evicted first.

    A failure of the disk or a damaged entry is logged and counts as a miss; nothing is raised.
    """

    def __init__(self, folder: Path, size_limit: int) -> None:
        self._entries = diskcache.Cache(
            str(folder),
            timeout=LOCK_TIMEOUT,
            disk=_PlainDisk,
            size_limit=size_limit,
            eviction_policy="least-recently-used",
            cull_limit=EVICTED_AT_ONCE,
        )

    def get(self, key: bytes) -> Attribution | None:
        try:
            entry = self._entries.get(key)
            return None if entry is None else _decode(entry)
        except (diskcache.Timeout, sqlite3.Error, OSError, ValueError, KeyError):
            logger.exception("the cache could not be read")
            return None

    def put(self, key: bytes, attribution: Attribution) -> None:
        try:
            self._entries.set(key, _encode(attribution))
        except (diskcache.Timeout, sqlite3.Error, OSError):
            logger.exception("the cache could not be written")

    def volume(self) -> int:
        """Bytes on disk."""
        return int(self._entries.volume())

    def close(self) -> None:
        self._entries.close()


def open_cache(folder: Path, size_limit: int) -> AttributionCache | None:
    """A cache in a folder; None, and a line in the log, if the folder cannot be used."""
    try:
        return AttributionCache(folder, size_limit)
    except (diskcache.Timeout, sqlite3.Error, OSError):
        logger.exception("explanations are not cached: %s cannot be used", folder.name)
        return None


def attribution_key(
    model: Model, pixels: NDArray[Any], method: str, parameters: Parameters, target: int, contrast: int | None
) -> bytes:
    """A SHA-256 of everything that decides a map: the model and its preprocessing, every pixel, and the explanation."""
    head = {
        "digest": model.digest,
        "preprocessing": model.preprocessing.to_json(),
        "pixels": [pixels.dtype.str, *pixels.shape],
        "method": method,
        "parameters": dict(parameters),
        "target": target,
        "contrast": contrast,
    }
    key = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    key.update(np.ascontiguousarray(pixels).data)
    return key.digest()


def _encode(attribution: Attribution) -> bytes:
    """A line of JSON, then the map as float32."""
    values = attribution.values.detach().cpu().numpy().astype("<f4")
    head = {"shape": values.shape, "unit": attribution.unit, "details": attribution.details}
    return json.dumps(head).encode() + b"\n" + np.ascontiguousarray(values).tobytes()


def _decode(entry: bytes) -> Attribution:
    line, _, data = entry.partition(b"\n")
    head = json.loads(line)
    values = np.frombuffer(data, "<f4").reshape(head["shape"])
    return Attribution(torch.from_numpy(values.copy()), head["unit"], head["details"])
