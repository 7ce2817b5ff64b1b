"""The slides of a configured folder, by their names below it."""

import os
from pathlib import Path

from serving.gateway.policy import RefusedError

# What OpenSlide reads.
SUFFIXES = {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi", ".dcm"}


class Slides:
    """Slides below a folder; none without a folder. The folder is read each time, so new slides appear at once."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder.resolve() if folder else None

    def names(self) -> list[str]:
        """Paths relative to the folder. Files that a link places outside of it are left out."""
        if self._folder is None:
            return []
        files = (Path(folder, name) for folder, _, found in os.walk(self._folder) for name in found)
        slides = (path for path in files if path.suffix.lower() in SUFFIXES and self._holds(path))
        return sorted(path.relative_to(self._folder).as_posix() for path in slides)

    def path(self, name: str) -> Path:
        """The file of a slide; raises `RefusedError` unless `names` lists it, so no other file can be reached."""
        if self._folder is None or name not in self.names():
            raise RefusedError(404, f"There is no slide {name[:80]!r}.", "slide_unknown", "slide")
        return self._folder / name

    def _holds(self, path: Path) -> bool:
        return self._folder is not None and path.resolve().is_relative_to(self._folder) and path.is_file()
