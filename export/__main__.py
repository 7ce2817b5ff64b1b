"""Export a checkpoint: `python -m export` writes the .mar, the ONNX file and the manifest to model_store/."""

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.archive import MODEL_NAME, write_archive
from export.attribution import compare, require_maps
from export.backends import write_backend_files
from export.contract import about
from export.explanation import write_explanation
from export.golden import golden_answer
from export.graph import write_onnx
from export.onnx_file import OPSET, describe
from export.parity import Parity, ParityError, measure_parity, require_parity
from export.ranges import RangesError, read_ranges
from handler.model.checkpoint import CARD, Model, file_digest, load_model
from handler.model.gate import PROBE_TILES
from training.checkpoint import SHIPPED, write_json
from training.data import load_or_exit
from training.synthetic import generate

PACKAGES = (
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "torch-model-archiver",
)
# Generated tiles in the archive, on which a server compares engines.
PROBE_COUNT = 108
# Noise, whose maps are compared before anything is shipped: where neighbours are near-equal, rounding moves a map.
NOISE = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)


def export(checkpoint: Path, output: Path, tiles: NDArray[np.uint8]) -> dict[str, Any]:
    """Write all artifacts; returns the manifest. Raises `ParityError` before the manifest is written."""
    output.mkdir(parents=True, exist_ok=True)
    manifest_file = output / "manifest.json"
    # With the manifest go its signature and every file of another checkpoint (`export.compress` writes some).
    for stale in (manifest_file, output / "model.sig", *output.glob(f"{MODEL_NAME}*.onnx")):
        stale.unlink(missing_ok=True)
    model = load_model(checkpoint)
    onnx_file, archive = output / f"{MODEL_NAME}.onnx", output / f"{MODEL_NAME}.mar"
    explain_file = output / f"{MODEL_NAME}_explain.onnx"
    metadata = describe(model, checkpoint)
    write_onnx(model, metadata, onnx_file)
    parity = measure_parity(model, onnx_file, tiles)
    require_parity(parity)
    write_explanation(model, metadata, explain_file)
    require_maps(compare(model, explain_file, NOISE, n_steps=2))
    with tempfile.TemporaryDirectory() as folder:
        write_backend_files(model, metadata, read_ranges(checkpoint, model.digest), Path(folder))
        np.save(Path(folder, PROBE_TILES), generate(PROBE_COUNT, seed=3).images)
        write_archive(checkpoint, model.version, archive, Path(folder))
    card = json.loads((checkpoint / CARD).read_text())
    manifest = {**make_manifest(model, [onnx_file, explain_file, archive], parity), "about": about(model, card)}
    write_json(manifest_file, manifest)
    return manifest


def make_manifest(model: Model, files: list[Path], parity: Parity) -> dict[str, Any]:
    """Digests, sizes, the golden tile, versions and parity figures."""
    return {
        "model": model.identity(),
        "artifacts": {file.name: {"sha256": file_digest(file), "bytes": file.stat().st_size} for file in files},
        "golden": golden_answer(model),
        "onnx": {
            "opset": OPSET,
            "parity": {"runtime": "onnxruntime CPU", **parity.to_json()},
        },
        "packages": {name: version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--output", type=Path, default=Path("model_store"), help="folder to write to")
    parser.add_argument(
        "--data",
        metavar="medmnist|FILE.npz",
        help="data whose test tiles the parity check uses; default: generated tiles",
    )
    arguments = parser.parse_args()
    tiles = load_or_exit(arguments.data).test.images if arguments.data else generate(72, seed=0).images
    try:
        manifest = export(arguments.checkpoint, arguments.output, tiles)
    except (ParityError, RangesError) as error:
        sys.exit(f"export: {error}")
    print(json.dumps(manifest, indent=2))


if __name__ == "__main__":
    main()
