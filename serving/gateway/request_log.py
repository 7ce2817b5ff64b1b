"""One line of JSON for each request, in files that rotate."""

import logging
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import orjson

LOG_BYTES, LOG_FILES = 64 * 2**20, 5


class RequestLog:
    """At most `LOG_FILES` files of `LOG_BYTES` each; the oldest is deleted."""

    def __init__(self, path: Path) -> None:
        self._handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1)

    def write(self, record: Mapping[str, Any]) -> None:
        line = orjson.dumps(record).decode()
        self._handler.emit(logging.LogRecord("requests", logging.INFO, "", 0, line, None, None))
