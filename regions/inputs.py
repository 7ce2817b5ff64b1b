"""Which files are mapped, and in which folder each has its map."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

SLIDES = (".svs", ".ndpi", ".mrxs", ".tif", ".tiff", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".dcm")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
# In the folder of a map: the path of its input, so that inputs of the same name do not overwrite each other.
OWNER = ".input"


def files_of(inputs: Iterable[Path]) -> list[Path]:
    """The files, and those in folders and their subfolders that may be slides, without repetitions.

    The DICOM files of a folder are one slide, of which the first by name stands for all.
    """
    found: dict[Path, None] = {}
    for path in inputs:
        found |= dict.fromkeys(item.absolute() for item in (_slides_in(path) if path.is_dir() else [path]))
    return list(found)


def _slides_in(folder: Path) -> Iterator[Path]:
    series: set[Path] = set()
    for path in sorted(folder.rglob("*")):
        suffix = path.suffix.lower()
        if suffix not in SLIDES + PICTURES or not path.is_file() or (suffix == ".dcm" and path.parent in series):
            continue
        if suffix == ".dcm":
            series.add(path.parent)
        yield path


def claim(output: Path, path: Path) -> Path:
    """The folder of an input: its name without the suffix, with a number if another input has it."""
    for number in count(1):
        folder = output / (_stem(path) if number == 1 else f"{_stem(path)}-{number}")
        if _claimed(folder, path):
            return folder
    raise AssertionError("counting does not end")


def _claimed(folder: Path, path: Path) -> bool:
    owner = folder / OWNER
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return owner.is_file() and owner.read_text() == str(path)
    owner.write_text(str(path))
    return True


def _stem(path: Path) -> str:
    name = path.name.removesuffix(path.suffix)
    return name[:-4] if name.lower().endswith(".ome") else name


def digest_of(path: Path) -> str:
    """SHA-256 of a file, and of the files beside an MRXS in its folder of the same name."""
    total = hashlib.sha256()
    companions = sorted(path.with_suffix("").rglob("*")) if path.suffix.lower() == ".mrxs" else []
    for part in [path, *(item for item in companions if item.is_file())]:
        with part.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
