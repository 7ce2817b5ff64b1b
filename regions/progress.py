"""How far a command is: a bar for people, and progress.json for programs."""

import sys
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from regions.errors import RegionError
from regions.files import write_json

FILE = "progress.json"
State = Literal["running", "done", "failed"]


class Progress:
    """Counts tiles of the grids, glass included. `progress.json` is whole at every moment."""

    def __init__(self, output: Path) -> None:
        self._path = output / FILE
        self._errors: list[dict[str, str | None]] = []
        # Its own count: a bar that is not shown does not count.
        self._done = self._total = 0
        self._bar = tqdm(total=0, unit=" tiles", disable=None, file=sys.stderr)
        self._write("running")

    def expect(self, tiles: int) -> None:
        self._total += tiles
        self._bar.total = self._total
        self._write("running")

    def advance(self, tiles: int) -> None:
        self._done += tiles
        self._bar.update(tiles)
        self._write("running")

    def fail(self, path: Path | None, error: RegionError) -> None:
        """Record that an input has no map, or that none can have one."""
        print(f"regions: {f'{path}: ' if path else ''}{error.message}", file=sys.stderr)
        self._errors.append({"input": str(path) if path else None, "code": error.code, "message": error.message})
        self._write("running")

    def finish(self) -> bool:
        """Write the last state; returns whether every input has its map."""
        self._bar.close()
        self._write("failed" if self._errors else "done")
        return not self._errors

    def _write(self, state: State) -> None:
        counts: dict[str, Any] = {"state": state, "done": self._done, "total": self._total}
        write_json({**counts, "errors": self._errors}, self._path)
