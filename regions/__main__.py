"""Map regions and slides: `python -m regions INPUT [INPUT ...] --output DIR`.

Every input gets a folder in DIR with map.json, tiles.parquet, map.geojson.gz, cells.npz, heat.ome.tiff, overlay.png and
run.json (docs/regions.md). A command that was ended continues if it is given again; finished maps are skipped.
"""

import argparse
import sys
from pathlib import Path

from regions.backend import Backend
from regions.errors import RegionError
from regions.grid import READ_MPP
from regions.inputs import files_of
from regions.job import Run, Settings
from regions.progress import Progress
from regions.run import in_this_process, run, versions
from regions.server_backend import ServerBackend

ARCHIVE = Path(__file__).parents[1] / "model_store" / "pathmnist.mar"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m regions", description=__doc__)
    parser.add_argument("input", type=Path, nargs="+", help="a slide, an image, or a folder of them")
    parser.add_argument("--output", type=Path, required=True, help="folder of the maps")
    parser.add_argument("--mpp", type=float, help="micrometres per pixel; default: what the file says")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--archive", type=Path, default=ARCHIVE, help="model archive, run in this process (%(default)s)")
    model.add_argument("--server", help="URL of a running server, which classifies instead")
    parser.add_argument("--all-tiles", action="store_true", help="classify glass too")
    parser.add_argument("--detections", action="store_true", help="every tile into the GeoJSON, with its probabilities")
    parser.add_argument(
        "--read-mpp", type=float, default=READ_MPP, help="coarsest resolution to read, in micrometres (%(default)s)"
    )
    return parser


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    settings = Settings(arguments.mpp, arguments.all_tiles, arguments.read_mpp, arguments.detections)
    progress = Progress(arguments.output)
    try:
        backend = _backend(arguments)
        common = Run(settings, backend.identity(), versions(), sys.argv[1:] if words is None else words)
        run(files_of(arguments.input), arguments.output, common, in_this_process(backend), progress)
    except RegionError as error:
        progress.fail(None, error)
    return 0 if progress.finish() else 1


def _backend(arguments: argparse.Namespace) -> Backend:
    if arguments.server:
        return ServerBackend(arguments.server)
    # Imported only if needed, because it brings PyTorch with it.
    from regions.local_backend import LocalBackend

    return LocalBackend(arguments.archive)


if __name__ == "__main__":
    sys.exit(main())
