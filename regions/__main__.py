"""Map regions and slides: `python -m regions INPUT [INPUT ...] --output DIR`.

Every input gets a folder in DIR with map.json, tiles.parquet, map.geojson.gz, cells.npz, heat.ome.tiff, overlay.png and
run.json (docs/regions.md). A command that was ended continues if it is given again; finished maps are skipped.
"""

import argparse
import logging
import sys
from pathlib import Path

from regions.backend import Backend, open_backend
from regions.errors import RegionError
from regions.grid import READ_MPP
from regions.inputs import files_of
from regions.job import Run, Settings
from regions.progress import Progress
from regions.run import Classify, in_this_process, run, versions

logger = logging.getLogger(__name__)

ARCHIVE = Path(__file__).parents[1] / "model_store" / "pathmnist.mar"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m regions", description=__doc__)
    parser.add_argument("input", type=Path, nargs="+", help="a slide, an image, or a folder of them")
    parser.add_argument("--output", type=Path, required=True, help="folder of the maps")
    parser.add_argument("--mpp", type=float, help="micrometres per pixel; default: what the file says")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--archive", type=Path, default=ARCHIVE, help="model archive, run in this process (%(default)s)")
    model.add_argument("--server", help="URL of a running server, which classifies instead")
    parser.add_argument("--workers", type=int, default=0, help="processes on Ray, at RAY_ADDRESS or on this machine")
    parser.add_argument("--gpus", type=float, default=0, help="for each worker; 0.25 puts four on one GPU")
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
        backend = open_backend(arguments.archive, arguments.server)
        common = Run(settings, backend.identity(), versions(), sys.argv[1:] if words is None else words)
        run(files_of(arguments.input), arguments.output, common, _classify(arguments, backend), progress)
    except RegionError as error:
        progress.fail(None, error)
    except Exception:
        logger.exception("the command failed")
        progress.fail(None, RegionError("internal_error", "The command failed; the reason is in the log above."))
    return 0 if progress.finish() else 1


def _classify(arguments: argparse.Namespace, backend: Backend) -> Classify:
    if not arguments.workers:
        return in_this_process(backend)
    # Ray is needed here alone.
    from regions.cluster import Workers, on_workers

    workers = Workers(arguments.workers, arguments.gpus)
    return on_workers(arguments.archive.absolute(), arguments.server, backend.identity(), workers)


if __name__ == "__main__":
    sys.exit(main())
