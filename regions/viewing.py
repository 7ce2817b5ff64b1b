"""Pixels of regions and slides, for whoever shows them: Deep Zoom tiles, and single places.

`python -m regions.viewing` reads a line of JSON for each picture from its input, with `path`, `want` and numbers:

- `shape`: nothing else; the answer is JSON with the size, micrometres per pixel, and the levels;
- `tile`: `level`, `column`, `row`; the answer is a JPEG file;
- `place`: `x`, `y`, `width`, `height` in pixels of level 0; the answer is a PNG file of at most `MAX_PLACE` pixels.

It writes a line of JSON, `{"bytes": N}` or `{"error": {"code", "message", "field", "status"}}`, and then the N bytes.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from regions.errors import RegionError
from regions.source import Source, open_source

TILE_SIDE = 256
MAX_PLACE = 1024
# Pixels that are read for one tile at most. Levels that would need more are not offered.
MAX_READ = 4096 * 4096
JPEG_QUALITY = 85
# Files that stay open. A picture is in memory as a whole.
OPEN_FILES = 1
# For what needs no size of a pixel.
ANY_MPP = 1.0


@dataclass(frozen=True)
class Area:
    """A place in pixels of level 0, and the size of its picture."""

    x: float
    y: float
    width: float
    height: float
    size: tuple[int, int]


def main() -> None:
    for line in sys.stdin.buffer:
        _answer(json.loads(line), sys.stdout.buffer)


def _answer(question: Mapping[str, Any], output: BinaryIO) -> None:
    try:
        body = WANTS[question["want"]](_open(question["path"]), question)
        output.write(json.dumps({"bytes": len(body)}).encode() + b"\n" + body)
    except RegionError as error:
        status = 404 if error.code == "picture_missing" else 400
        content = {"code": error.code, "message": error.message, "field": None, "status": status}
        output.write(json.dumps({"error": content}).encode() + b"\n")
    output.flush()


@lru_cache(OPEN_FILES)
def _open(path: str) -> Source:
    return open_source(Path(path), ANY_MPP)


def shape(source: Source, _: Mapping[str, Any]) -> bytes:
    stated = source.reader.mpp
    found = {
        "width": source.width,
        "height": source.height,
        "mpp": None if stated is None else max(stated.x, stated.y),
        "tile_size": TILE_SIDE,
        "min_level": _min_level(source),
        "max_level": _max_level(source),
    }
    return json.dumps(found).encode()


def tile(source: Source, question: Mapping[str, Any]) -> bytes:
    """Deep Zoom: level `max_level` is the image itself, each other one half the next."""
    level, column, row = (int(question[name]) for name in ("level", "column", "row"))
    if not _min_level(source) <= level <= _max_level(source):
        raise RegionError("picture_missing", "There is no such level.")
    scale = 2.0 ** (_max_level(source) - level)
    x, y = column * TILE_SIDE * scale, row * TILE_SIDE * scale
    if x >= source.width or y >= source.height:
        raise RegionError("picture_missing", "There is no such tile.")
    width, height = min(TILE_SIDE * scale, source.width - x), min(TILE_SIDE * scale, source.height - y)
    size = max(1, round(width / scale)), max(1, round(height / scale))
    return _file(_picture(source, Area(x, y, width, height, size)), "JPEG", quality=JPEG_QUALITY)


def place(source: Source, question: Mapping[str, Any]) -> bytes:
    x, y = min(question["x"], source.width - 1), min(question["y"], source.height - 1)
    width, height = min(question["width"], source.width - x), min(question["height"], source.height - y)
    if width < 1 or height < 1:
        raise RegionError("picture_missing", "The place is empty.")
    largest = max(width, height)
    scale = max(1.0, largest / MAX_PLACE)
    size = max(1, round(width / scale)), max(1, round(height / scale))
    return _file(_picture(source, Area(x, y, width, height, size)), "PNG")


WANTS: dict[str, Callable[[Source, Mapping[str, Any]], bytes]] = {"shape": shape, "tile": tile, "place": place}


def _picture(source: Source, area: Area) -> Image.Image:
    """From the coarsest level that is as fine as the picture."""
    index = source.level_for(ANY_MPP * area.width / area.size[0])
    level = source.reader.levels[index]
    left, top = int(area.x / level.scale_x + 1e-6), int(area.y / level.scale_y + 1e-6)
    right = min(level.width, round((area.x + area.width) / level.scale_x))
    bottom = min(level.height, round((area.y + area.height) / level.scale_y))
    pixels = source.reader.read(index, left, top, max(1, right - left), max(1, bottom - top))
    picture = Image.fromarray(pixels)
    return picture if picture.size == area.size else picture.resize(area.size, Image.Resampling.BILINEAR)


def _max_level(source: Source) -> int:
    return (max(source.width, source.height) - 1).bit_length()


def _min_level(source: Source) -> int:
    """The coarsest level whose tiles need at most `MAX_READ` pixels."""
    coarsest = source.reader.levels[-1]
    side = min(TILE_SIDE * 2.0 ** _max_level(source), max(source.width, source.height))
    level = 0
    while (side / coarsest.scale_x) * (side / coarsest.scale_y) > MAX_READ:
        level += 1
        side = TILE_SIDE * 2.0 ** (_max_level(source) - level)
    return level


def _file(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
