"""A file that holds every answer and is only appended to. `python -m serving.gateway.audit FILE` checks one."""

import argparse
import hashlib
import mmap
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

# Pictures and raw maps in the compact JSON of an answer. They never come first in their object, and base64 and numbers
# hold neither quotes nor braces.
DRAWN = re.compile(rb',"(?:heatmap|overlay)":"[^"]*"|,"attribution":\{[^}]*\}')


class AuditTrail:
    """Every answer, without pictures and maps. Each line holds the SHA-256 of the line before it, so that a line that
    was changed or removed shows."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        last = _last_line(path)
        self._previous = _digest(last) if last else ""

    def write(self, record: Mapping[str, Any], body: bytes) -> None:
        """Append one answer, compact JSON; raises `OSError` if it cannot be written."""
        answer = orjson.Fragment(DRAWN.sub(b"", body))
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


def _last_line(path: Path) -> bytes:
    """Found from the end: a trail may be long."""
    if path.stat().st_size == 0:
        return b""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = len(content) - (content[-1:] == b"\n")
        return content[content.rfind(b"\n", 0, end) + 1 : end]


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def main() -> None:
    """Exit with an error if an audit trail was changed."""
    parser = argparse.ArgumentParser(description="Check that an audit trail is complete and unchanged.")
    parser.add_argument("file", type=Path)
    broken = first_broken_line(parser.parse_args().file)
    if broken is not None:
        sys.exit(f"line {broken} does not follow from the one before it")
    print("whole")


if __name__ == "__main__":
    main()
