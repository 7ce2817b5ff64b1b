"""Classify every image of a folder, or of an npz file of any size, into a table: `python -m deploy.ray.classify`.

Each input becomes a row: `input` (the path within the folder, or the array and index), `class`, `confidence`,
`probabilities` by class, `ood_score`, `in_distribution`, `fit` and `fit_reasons` (is the picture fit to be judged),
`field_microns` (the side of what was classified, if the size of a pixel is known), `model_digest`, and `error`, the
reason if the other columns are empty.
"""

import argparse
import logging
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import ray
from numpy.lib import format as npy
from numpy.typing import NDArray

from deploy.ray.archive import ARCHIVE, connect, open_classifier
from deploy.ray.serve import MAX_REQUEST_SIZE
from handler.api.errors import RequestError
from handler.api.field import PLAUSIBLE, Field, view
from handler.api.image import DecodedImage, ImageLimits, check_size, decode_image
from handler.classes import CODES
from handler.isolation import together_or_alone
from handler.model.fit import Fit
from handler.model.prediction import Prediction

logger = logging.getLogger(__name__)

BATCH = 32
# Files per task, and bytes per block of decoded npz: small enough to keep all workers busy.
SHARE = 256
BLOCK_BYTES = 4 * 1024 * 1024
ROWS_PER_FILE = 10_000
# An image is a file, or uint8 pixels of shape `[H, W, 3]` or `[H, W]`.
IMAGES = pa.schema(
    [
        ("input", pa.string()),
        ("file", pa.binary()),
        ("pixels", pa.binary()),
        ("shape", pa.list_(pa.int64())),
        ("error", pa.string()),
    ]
)
RESULTS = pa.schema(
    [
        ("input", pa.string()),
        ("class", pa.string()),
        ("confidence", pa.float64()),
        ("probabilities", pa.struct([(code, pa.float64()) for code in CODES])),
        ("ood_score", pa.float64()),
        ("in_distribution", pa.bool_()),
        ("fit", pa.string()),
        ("fit_reasons", pa.list_(pa.string())),
        ("field_microns", pa.float64()),
        ("model_digest", pa.string()),
        ("error", pa.string()),
    ]
)
UNKNOWN = Field()


@dataclass(eq=False)
class Item:
    """An image, uint8 RGB `[H, W, 3]`, and its field of view, or the error if it cannot be decoded; its prediction and
    its fitness when available."""

    name: str
    image: NDArray[np.uint8] | None = None
    field: Field = UNKNOWN
    error: str | None = None
    prediction: Prediction | None = None
    fit: Fit | None = None

    def fail(self, error: Exception) -> None:
        logger.error("%s could not be classified", self.name, exc_info=error)
        self.error = "internal_error: The image could not be classified."


class Classify:
    """A worker with the model of an archive. Converts images to results; `mpp` is the micrometres a pixel, if known."""

    def __init__(self, archive: Path, mpp: float | None = None) -> None:
        self._mpp = mpp
        self._folder = TemporaryDirectory()
        self._classifier, settings = open_classifier(archive, Path(self._folder.name))
        self._limits = ImageLimits(**settings["image_limits"])

    def __call__(self, images: pa.Table) -> pa.Table:
        """`IMAGES` to `RESULTS`, row by row."""
        items = [self._decode(row) for row in images.to_pylist()]
        together_or_alone([item for item in items if item.image is not None], self._predict, Item.fail)
        return pa.Table.from_pylist([self._result(item) for item in items], schema=RESULTS)

    def _decode(self, row: dict[str, Any]) -> Item:
        if row["error"]:
            return Item(row["input"], error=row["error"])
        try:
            image = read_image(row, self._limits)
            return Item(row["input"], *view(image.pixels, self._mpp, image.scale))
        except RequestError as error:
            return Item(row["input"], error=f"{error.code}: {error.message}")

    def _predict(self, items: Sequence[Item]) -> None:
        images = [item.image for item in items if item.image is not None]
        predictions = self._classifier.predict(images)
        fits = self._classifier.fits(images, predictions)
        for item, prediction, fit in zip(items, predictions, fits, strict=True):
            item.prediction, item.fit = prediction, fit

    def _result(self, item: Item) -> dict[str, Any]:
        prediction, fit = item.prediction, item.fit
        if prediction is None or fit is None:
            return {"input": item.name, "error": item.error}
        return {
            "input": item.name,
            "class": prediction.tissue.code,
            "confidence": prediction.probability if prediction.calibrated else None,
            "probabilities": dict(zip(CODES, prediction.probabilities.tolist(), strict=True)),
            "ood_score": prediction.ood_score,
            "in_distribution": prediction.in_distribution,
            "fit": fit.verdict,
            "fit_reasons": list(fit.reasons),
            "field_microns": item.field.microns,
            "model_digest": self._classifier.model.digest,
        }


def read_image(row: dict[str, Any], limits: ImageLimits) -> DecodedImage:
    """The image of a row of `IMAGES`. Raises `RequestError` if the server would refuse it."""
    if row["file"] is not None:
        return decode_image(row["file"], limits)
    height, width, *channels = row["shape"]
    check_size(width, height, limits)
    pixels = np.frombuffer(row["pixels"], np.uint8).reshape(height, width, -1)
    return DecodedImage(np.repeat(pixels, 1 if channels else 3, axis=2))


def read_files(names: pa.Table, folder: Path) -> pa.Table:
    """The files of a folder, by their names in `input`. If a file cannot be read, its row contains the error."""
    return pa.Table.from_pylist([_read_file(folder, name) for name in names["input"].to_pylist()], schema=IMAGES)


def _read_file(folder: Path, name: str) -> dict[str, Any]:
    try:
        if (folder / name).stat().st_size > MAX_REQUEST_SIZE:
            return {"input": name, "error": f"request_too_large: The file has more than {MAX_REQUEST_SIZE} bytes."}
        return {"input": name, "file": (folder / name).read_bytes()}
    except OSError as error:
        return {"input": name, "error": f"file_unreadable: {error.strerror}"}


def read_npz(path: Path) -> Iterator[pa.Table]:
    """Every array of images in an npz file, in batches, so that memory does not grow with the file.

    Skips other arrays, such as labels, and never unpickles. Raises `ValueError` if the file ends early.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as stream:
                yield from _stack(cast(BinaryIO, stream), member.removesuffix(".npy"))


def _stack(stream: BinaryIO, name: str) -> Iterator[pa.Table]:
    """uint8 `[N, H, W, 3]` or `[N, H, W]` in batches. Yields nothing for other arrays."""
    read_header = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read_header(stream)
    if dtype != np.uint8 or fortran_order or not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)):
        return
    bytes_each = int(np.prod(shape[1:]))
    for start in range(0, shape[0], BATCH):
        count = min(BATCH, shape[0] - start)
        data = stream.read(count * bytes_each)
        images = np.frombuffer(data, np.uint8).reshape(count, *shape[1:])
        rows = [
            {"input": f"{name}[{start + index}]", "pixels": image.tobytes(), "shape": image.shape}
            for index, image in enumerate(images)
        ]
        yield pa.Table.from_pylist(rows, schema=IMAGES)


def images_of(source: Path) -> ray.data.Dataset:
    """`IMAGES` of a folder or an npz file, read lazily. Raises `ValueError` for anything else."""
    if source.is_dir():
        names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if not path.is_dir())
        if not names:
            raise ValueError(f"{source} contains no files")
        tables = [pa.table({"input": names[start : start + SHARE]}) for start in range(0, len(names), SHARE)]
        files = ray.data.from_arrow(tables)
        return files.map_batches(partial(read_files, folder=source), batch_format="pyarrow", batch_size=BATCH)
    if zipfile.is_zipfile(source):
        file = ray.data.from_items([{"path": str(source)}])
        return file.map_batches(lambda _: read_npz(source), batch_format="pyarrow", batch_size=None)
    raise ValueError(f"{source} is neither a folder nor an npz file")


def classify(
    images: ray.data.Dataset, archive: Path, workers: int, gpus: float = 0, mpp: float | None = None
) -> ray.data.Dataset:
    """A row of `RESULTS` for each row of `IMAGES`, by up to `workers` processes with one core and `gpus` each.

    `mpp` is the size of a pixel of every image, in micrometres; None means what each file states.

    If a worker dies, Ray retries its rows on another.
    """
    return images.map_batches(
        Classify,
        fn_constructor_args=(archive, mpp),
        batch_format="pyarrow",
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=1,
        num_gpus=gpus,
    )


def write(results: ray.data.Dataset, output: Path, file_format: str) -> tuple[int, int]:
    """Write Parquet or JSON lines; returns the number of rows and of rows with an error."""
    if file_format == "parquet":
        results.write_parquet(str(output), min_rows_per_file=ROWS_PER_FILE)
    else:
        results.write_json(str(output), min_rows_per_file=ROWS_PER_FILE)
    written = pa.dataset.dataset(output, format=file_format, schema=RESULTS)
    return written.count_rows(), written.count_rows(filter=pa.dataset.field("error").is_valid())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="folder of image files, or npz file")
    parser.add_argument("--output", type=Path, required=True, help="folder, empty or new")
    parser.add_argument("--format", choices=("parquet", "json"), default="parquet", help="json: one object per line")
    parser.add_argument("--archive", type=Path, default=ARCHIVE, help="at the same path on every node, like the input")
    parser.add_argument("--workers", type=int, help="maximum; default: the cluster's cores minus one")
    parser.add_argument("--gpus", type=float, default=0, help="for each worker; 0.25 puts four on one GPU")
    parser.add_argument("--mpp", type=float, help="micrometres a pixel, of every image; default: what each file states")
    arguments = parser.parse_args()
    if arguments.mpp is not None and not PLAUSIBLE[0] <= arguments.mpp <= PLAUSIBLE[1]:
        parser.error(f"--mpp takes {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} micrometres")
    output = arguments.output.resolve()
    if output.is_dir() and any(output.iterdir()):
        parser.error(f"{arguments.output} is not empty: choose another folder for the results")
    connect()
    ray.data.DataContext.get_current().target_max_block_size = BLOCK_BYTES
    workers = arguments.workers or max(1, int(ray.cluster_resources()["CPU"]) - 1)
    try:
        images = images_of(arguments.input.resolve())
    except ValueError as error:
        sys.exit(f"classify: {error}")
    results = classify(images, arguments.archive.resolve(), workers, arguments.gpus, arguments.mpp)
    rows, errors = write(results, output, arguments.format)
    print(f"{rows} inputs, {errors} of them with an error: {arguments.output}")


if __name__ == "__main__":
    main()
