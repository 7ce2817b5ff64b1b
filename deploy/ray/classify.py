"""`python -m deploy.ray.classify`: every image of a folder, or of an npz file of any size, into a table.

One row for each input: `input` (the path within the folder, or the array and index), `class`, `confidence`,
`probabilities` by class, `ood_score`, `in_distribution`, `model_digest`, and `error`, which says why the rest is empty.
"""

import argparse
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.dataset
import ray
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from deploy.ray.archive import ARCHIVE, connect, open_service
from deploy.ray.serve import MAX_REQUEST_SIZE
from handler.api.request import RawRequest
from handler.api.service import Response
from handler.classes import CODES

BATCH = 32
# Files that a worker is given at a time, and bytes of decoded npz: small enough that all workers have some.
SHARE = 256
BLOCK_BYTES = 4 * 1024 * 1024
ROWS_PER_FILE = 10_000
IMAGES = pa.schema([("input", pa.string()), ("data", pa.binary()), ("error", pa.string())])
RESULTS = pa.schema(
    [
        ("input", pa.string()),
        ("class", pa.string()),
        ("confidence", pa.float64()),
        ("probabilities", pa.struct([(code, pa.float64()) for code in CODES])),
        ("ood_score", pa.float64()),
        ("in_distribution", pa.bool_()),
        ("model_digest", pa.string()),
        ("error", pa.string()),
    ]
)


class Classify:
    """One worker with the model of an archive: images to results."""

    def __init__(self, archive: Path) -> None:
        self._folder = TemporaryDirectory()
        self._service = open_service(archive, Path(self._folder.name))

    def __call__(self, images: pa.Table) -> pa.Table:
        """`IMAGES` to `RESULTS`, row by row."""
        rows = images.to_pylist()
        readable = [row for row in rows if row["error"] is None]
        requests = [RawRequest({"body": row["data"], "include": "confidence,ood"}) for row in readable]
        responses = iter(self._service.respond(requests))
        results = [
            {"input": row["input"], "error": row["error"]} if row["error"] else _result(row["input"], next(responses))
            for row in rows
        ]
        return pa.Table.from_pylist(results, schema=RESULTS)


def _result(name: str, response: Response) -> dict[str, Any]:
    body = orjson.loads(response.body)
    if response.status != 200:
        return {"input": name, "error": "{code}: {message}".format(**body["error"])}
    return {
        "input": name,
        "class": body["prediction"]["code"],
        "confidence": body["confidence"],
        "probabilities": body["probabilities"],
        "ood_score": body["ood_score"],
        "in_distribution": body["in_distribution"],
        "model_digest": body["model"]["digest"],
    }


def read_files(names: pa.Table, folder: Path) -> pa.Table:
    """The files of a folder, by their names in `input`. One that cannot be read keeps its row, with the error."""
    return pa.Table.from_pylist([_read_file(folder, name) for name in names["input"].to_pylist()], schema=IMAGES)


def _read_file(folder: Path, name: str) -> dict[str, Any]:
    try:
        if (folder / name).stat().st_size > MAX_REQUEST_SIZE:
            return {"input": name, "error": f"request_too_large: The file has more than {MAX_REQUEST_SIZE} bytes."}
        return {"input": name, "data": (folder / name).read_bytes()}
    except OSError as error:
        return {"input": name, "error": f"file_unreadable: {error.strerror}"}


def read_npz(path: Path) -> Iterator[pa.Table]:
    """Every stack of images in an npz file, a batch at a time, never the whole; raises `ValueError` for a file that
    ends early. Arrays of other kinds, labels for instance, are left out; nothing is unpickled."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as stream:
                yield from _stack(cast(BinaryIO, stream), member.removesuffix(".npy"))


def _stack(stream: BinaryIO, name: str) -> Iterator[pa.Table]:
    """uint8 `[N, H, W, 3]` or `[N, H, W]` in batches; nothing for other arrays."""
    read_header = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read_header(stream)
    if dtype != np.uint8 or fortran_order or not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)):
        return
    bytes_each = int(np.prod(shape[1:]))
    for start in range(0, shape[0], BATCH):
        count = min(BATCH, shape[0] - start)
        data = stream.read(count * bytes_each)
        images = np.frombuffer(data, np.uint8).reshape(count, *shape[1:])
        rows = [{"input": f"{name}[{start + index}]", "data": _file(image)} for index, image in enumerate(images)]
        yield pa.Table.from_pylist(rows, schema=IMAGES)


def _file(image: NDArray[np.uint8]) -> bytes:
    """The pixels as an image file, since a request holds one."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "BMP")
    return buffer.getvalue()


def images_of(source: Path) -> ray.data.Dataset:
    """The rows of a folder or an npz file, read when they are asked for. Raises `ValueError` for anything else."""
    if source.is_dir():
        names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if not path.is_dir())
        if not names:
            raise ValueError(f"{source} holds no files")
        tables = [pa.table({"input": names[start : start + SHARE]}) for start in range(0, len(names), SHARE)]
        files = ray.data.from_arrow(tables)
        return files.map_batches(partial(read_files, folder=source), batch_format="pyarrow", batch_size=BATCH)
    if zipfile.is_zipfile(source):
        file = ray.data.from_items([{"path": str(source)}])
        return file.map_batches(lambda _: read_npz(source), batch_format="pyarrow", batch_size=None)
    raise ValueError(f"{source} is neither a folder nor an npz file")


def classify(images: ray.data.Dataset, archive: Path, workers: int, gpus: float = 0) -> ray.data.Dataset:
    """A row of `RESULTS` for each row of `IMAGES`, by up to `workers` processes with a core and `gpus` each. What a
    worker holds when it dies, Ray hands to another."""
    return images.map_batches(
        Classify,
        fn_constructor_args=(archive,),
        batch_format="pyarrow",
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=1,
        num_gpus=gpus,
    )


def write(results: ray.data.Dataset, output: Path, file_format: str) -> tuple[int, int]:
    """Write Parquet or JSON lines, and count the rows and those with an error."""
    if file_format == "parquet":
        results.write_parquet(str(output), min_rows_per_file=ROWS_PER_FILE)
    else:
        results.write_json(str(output), min_rows_per_file=ROWS_PER_FILE)
    written = pa.dataset.dataset(output, format=file_format, schema=RESULTS)
    return written.count_rows(), written.count_rows(filter=pa.dataset.field("error").is_valid())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="folder of image files, or npz file")
    parser.add_argument("--output", type=Path, required=True, help="folder, empty or not there")
    parser.add_argument("--format", choices=("parquet", "json"), default="parquet", help="json: one object a line")
    parser.add_argument("--archive", type=Path, default=ARCHIVE, help="at the same path on every node, as is the input")
    parser.add_argument("--workers", type=int, help="at most; default: one for each core of the cluster but one")
    parser.add_argument("--gpus", type=float, default=0, help="of each worker; 0.25 puts four on one GPU")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    if output.is_dir() and any(output.iterdir()):
        parser.error(f"{arguments.output} is not empty: results would stand there twice")
    connect()
    ray.data.DataContext.get_current().target_max_block_size = BLOCK_BYTES
    workers = arguments.workers or max(1, int(ray.cluster_resources()["CPU"]) - 1)
    try:
        images = images_of(arguments.input.resolve())
    except ValueError as error:
        sys.exit(f"classify: {error}")
    results = classify(images, arguments.archive.resolve(), workers, arguments.gpus)
    rows, errors = write(results, output, arguments.format)
    print(f"{rows} inputs, {errors} of them with an error: {arguments.output}")


if __name__ == "__main__":
    main()
