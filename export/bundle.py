"""The model for other programs: `python -m export.bundle --for wsinfer --output DIR`, after `python -m export`.

| `--for` | what reads the folder |
|---|---|
| `wsinfer` | WSInfer, and QuPath by its WSInfer extension |
| `hub` | the Hugging Face Hub |
| `triton` | NVIDIA Triton Inference Server |
| `openvino` | OpenVINO, OpenVINO Model Server |

Every folder holds the model card (`README.md`), the licence, the notice, and `SHA256SUMS`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from evaluation.reports import ReportError
from export.archive import ROOT
from export.bundles.hub import write_hub
from export.bundles.openvino import write_openvino
from export.bundles.source import BundleError, Source, read_source
from export.bundles.triton import write_triton
from export.bundles.wsinfer import write_wsinfer
from training.checkpoint import SHIPPED

WRITERS: dict[str, Callable[[Source, Path], None]] = {
    "wsinfer": write_wsinfer,
    "hub": write_hub,
    "triton": write_triton,
    "openvino": write_openvino,
}


def bundle(source: Source, home: str, output: Path) -> None:
    """Write the folder for one program. Raises `BundleError` if `output` is not empty."""
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()):
        raise BundleError(f"{output} is not empty")
    WRITERS[home](source, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--for", dest="home", required=True, choices=WRITERS)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to, absent or empty")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder `python -m export` wrote")
    parser.add_argument("--card", type=Path, default=ROOT / "MODEL_CARD.md", help="the model card")
    parser.add_argument("--reports", type=Path, default=ROOT / "docs" / "evaluation", help="folder of the reports")
    arguments = parser.parse_args()
    try:
        source = read_source(arguments.checkpoint, arguments.store, arguments.card, arguments.reports)
        bundle(source, arguments.home, arguments.output)
    except (BundleError, ReportError) as error:
        sys.exit(f"bundle: {error}")


if __name__ == "__main__":
    main()
