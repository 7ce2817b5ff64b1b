"""One line of JSON for each request: a log that rotates, and an audit trail that only grows."""

import argparse
import hashlib
import logging
import mmap
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import orjson

LOG_BYTES, LOG_FILES = 64 * 2**20, 5
# Of an answer, what is a picture or a map and not a statement.
DRAWN = ("heatmap", "overlay", "attribution")


class RequestLog:
    """Lines of at most `LOG_FILES` files of `LOG_BYTES` each; the oldest go."""

    def __init__(self, path: Path) -> None:
        self._handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1)

    def write(self, record: dict[str, Any]) -> None:
        line = orjson.dumps(record).decode()
        self._handler.emit(logging.LogRecord("requests", logging.INFO, "", 0, line, None, None))


class AuditTrail:
    """Every answer with what it said, but for pictures and maps, in a file that is only ever appended to.

    Each line holds the SHA-256 of the line before it, so that a line that was changed or taken out shows
    (`python -m serving.gateway.request_log FILE`).
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        last = _last_line(path)
        self._previous = _digest(last) if last else ""

    def write(self, record: dict[str, Any], body: bytes) -> None:
        answer = orjson.loads(body)
        for explanation in answer.get("explanations", []):
            for name in DRAWN:
                explanation.pop(name, None)
        line = orjson.dumps({**record, "answer": answer, "previous": self._previous})
        self._file.write(line + b"\n")
        self._previous = _digest(line)


def first_broken_line(path: Path) -> int | None:
    """The number, from 1, of the first line of an audit trail that does not follow from the one before it."""
    previous = ""
    with path.open("rb") as lines:
        for number, ended in enumerate(lines, start=1):
            line = ended.rstrip(b"\n")
            try:
                if orjson.loads(line)["previous"] != previous:
                    return number
            except (ValueError, KeyError, TypeError):
                return number
            previous = _digest(line)
    return None


def timestamp() -> str:
    """The moment, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _last_line(path: Path) -> bytes:
    """Without reading the rest: a trail is never cut."""
    if path.stat().st_size == 0:
        return b""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = len(content) - (content[-1:] == b"\n")
        return content[content.rfind(b"\n", 0, end) + 1 : end]


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def main() -> None:
    """Exit with an error where an audit trail was changed."""
    parser = argparse.ArgumentParser(description="Whether an audit trail is whole.")
    parser.add_argument("file", type=Path)
    broken = first_broken_line(parser.parse_args().file)
    if broken is not None:
        sys.exit(f"line {broken} does not follow from the one before it")
    print("whole")


if __name__ == "__main__":
    main()
