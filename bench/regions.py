"""Rate and memory of `python -m regions` on a slide of 50,000 x 50,000 pixels: `python -m bench.regions`.

The slide is a pyramidal JPEG TIFF of generated tiles at 0.5 micrometres a pixel, with a level at 4; all but a strip of
it is glass. The pipeline and the engine alone take turns on the same tiles with the same model, so that their ratio
holds on a busy machine. Memory is that of the command in a process of its own.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from regions.backend import open_backend
from regions.job import Run, Settings
from regions.local_backend import BATCH
from regions.progress import Progress
from regions.run import in_this_process, run
from serving.supervisor import ROOT
from training.synthetic import generate

Pixels = NDArray[np.uint8]
# 223 tiles of 224 pixels are 49,952 pixels.
SIDE, TILE = 223, 224
GLASS = 243


def write_slide(path: Path, tissue_rows: int) -> None:
    """A slide whose first rows of tiles are tissue."""
    tiles = generate(54, seed=9).images
    coded = [_jpeg(tile) for tile in tiles]
    glass = _jpeg(np.full((28, 28, 3), GLASS, np.uint8))
    choice = np.random.default_rng(0).integers(0, len(tiles), (tissue_rows, SIDE))
    coarse = np.full((SIDE, SIDE, 28, 28, 3), GLASS, np.uint8)
    coarse[:tissue_rows] = tiles[choice]
    pixels = SIDE * TILE
    options: dict[str, Any] = {
        "photometric": "ycbcr",
        "compression": "jpeg",
        "metadata": None,
        "resolutionunit": "CENTIMETER",
    }
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        data: Iterator[bytes] = (
            coded[choice[row, column]] if row < tissue_rows else glass for row in range(SIDE) for column in range(SIDE)
        )
        file.write(
            data, shape=(pixels, pixels, 3), dtype=np.uint8, tile=(TILE, TILE), resolution=(20000, 20000),
            subsampling=(2, 2), **options,
        )  # fmt: skip
        # Encoded here: tifffile's own JPEG takes the pixels for YCbCr already.
        margin = -SIDE * 28 % TILE
        level = coarse.swapaxes(1, 2).reshape(SIDE * 28, SIDE * 28, 3)
        level = np.pad(level, ((0, margin), (0, margin), (0, 0)))
        pieces = level.reshape(len(level) // TILE, TILE, -1, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
        file.write(
            (_jpeg(piece) for piece in pieces), shape=(SIDE * 28, SIDE * 28, 3), dtype=np.uint8, tile=(TILE, TILE),
            subfiletype=1, resolution=(2500, 2500), subsampling=(2, 2), **options,
        )  # fmt: skip


def _jpeg(tile: Pixels) -> bytes:
    buffer = BytesIO()
    Image.fromarray(tile).resize((TILE, TILE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85, subsampling=2)
    return buffer.getvalue()


def rates(slide: Path, archive: Path, rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Tiles per second of the pipeline and of the engine alone, round by round, of the same number of tiles."""
    backend = open_backend(archive, None)
    common = Run(Settings(), backend.identity(), {}, [])
    batch = generate(BATCH, seed=10).images
    backend.classify(batch)
    pipeline, alone = [], []
    for number in range(rounds):
        output = folder / str(number)
        output.mkdir()
        start = time.perf_counter()
        run([slide], output, common, in_this_process(backend), Progress(output))
        seconds = time.perf_counter() - start
        tiles = _tiles_in(output)
        pipeline.append(tiles / seconds)
        start = time.perf_counter()
        for _ in range(tiles // BATCH):
            backend.classify(batch)
        alone.append(tiles // BATCH * BATCH / (time.perf_counter() - start))
    return pipeline, alone


def _tiles_in(output: Path) -> int:
    (cells,) = output.glob("*/cells.npz")
    with np.load(cells) as arrays:
        return len(arrays["rows"])


def peak_megabytes(slide: Path, archive: Path, output: Path) -> float:
    """The largest resident memory of the command, in MiB."""
    command = [sys.executable, "-m", "regions", str(slide), "--archive", str(archive), "--output", str(output)]
    subprocess.run(command, cwd=ROOT, check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ROOT / "model_store" / "pathmnist.mar")
    parser.add_argument("--rows", type=int, default=10, help="rows of 223 tiles that are tissue; 223 are a full slide")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = folder / "slide.tif"
        write_slide(slide, arguments.rows)
        print(f"slide: {SIDE * TILE} x {SIDE * TILE} pixels, {slide.stat().st_size / 2**20:.0f} MiB")
        print(f"peak memory of the command: {peak_megabytes(slide, arguments.archive, folder / 'command'):.0f} MiB")
        pipeline, alone = rates(slide, arguments.archive, arguments.rounds, folder)
    for name, values in (("pipeline", pipeline), ("engine alone", alone)):
        print(f"{name}: {', '.join(f'{value:.1f}' for value in values)} tiles a second")
    print(f"ratio: {statistics.median(a / b for a, b in zip(pipeline, alone, strict=True)):.2f}")


if __name__ == "__main__":
    main()
