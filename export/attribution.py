"""How close the explaining ONNX graph comes to Captum's maps: `python -m export.attribution --data FILE.npz`.

A map's error is the norm of its difference from the reference over the reference's norm. In float32, rounding decides
which of near-equal maxima in the stem receives a gradient, so maps of smooth tiles differ by far more than rounding.
Captum's own float32 maps differ from float64 in the same way, and are the yardstick. Images of noise have no near-equal
maxima.
"""

import argparse
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from captum.attr import IntegratedGradients, Saliency
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from export.archive import MODEL_NAME
from export.parity import ParityError
from handler.model.checkpoint import Model, load_model
from handler.model.preprocess import normalise, preprocess
from handler.model.resnet import ResNet
from training.checkpoint import SHIPPED, write_json
from training.data import add_data_argument, load_or_exit

MAPS = ("saliency", "integrated_gradients")
BLACK = np.zeros(3, dtype=np.float32)
BATCH_SIZE = 32
MAX_MAP_ERROR = 0.05
Maps = dict[str, NDArray[np.float64]]


def runtime_maps(session: onnxruntime.InferenceSession, tile: NDArray[np.uint8], target: int, n_steps: int) -> Maps:
    """The graph's maps `[3, I, I]` of one tile uint8 `[H, W, 3]`, from black."""
    feed = {"image": tile[None], "target": np.array([target]), "n_steps": np.array(n_steps), "baseline": BLACK}
    outputs = session.run(list(MAPS), feed)
    return {name: np.asarray(values[0], dtype=np.float64) for name, values in zip(MAPS, outputs, strict=True)}


def captum_maps(network: ResNet, inputs: Tensor, start: Tensor, target: int, n_steps: int) -> Maps:
    """Captum's maps of one input `[1, 3, I, I]`, in the network's precision."""
    inputs = inputs.clone().requires_grad_()
    saliency = Saliency(network).attribute(inputs, target=target, abs=False)
    maps = IntegratedGradients(network).attribute(
        inputs, start, target=target, n_steps=n_steps, method="gausslegendre", internal_batch_size=BATCH_SIZE
    )
    return {name: values[0].detach().double().numpy() for name, values in zip(MAPS, (saliency, maps), strict=True)}


def map_errors(maps: Maps, reference: Maps) -> dict[str, float]:
    """The relative error of each map."""
    return {
        name: float(np.linalg.norm(maps[name] - values) / np.linalg.norm(values)) for name, values in reference.items()
    }


def compare(
    model: Model, path: Path, tiles: NDArray[np.uint8], n_steps: int, yardstick: bool = False
) -> list[dict[str, Any]]:
    """Errors of the graph's maps under ONNX Runtime against Captum in float32, for each tile's predicted class.

    `tiles` are uint8 `[N, S, S, 3]`. With `yardstick` also the errors of both against Captum in float64.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    double = deepcopy(model.network).double()
    rows = []
    for tile in tqdm(tiles, disable=None):
        inputs = preprocess([torch.from_numpy(tile)], model.preprocessing)
        start = normalise(torch.zeros_like(inputs), model.preprocessing)
        target = int(model.network(inputs).argmax())
        graph = runtime_maps(session, tile, target, n_steps)
        single = captum_maps(model.network, inputs, start, target, n_steps)
        row = {"graph against Captum": map_errors(graph, single)}
        if yardstick:
            exact = captum_maps(double, inputs.double(), start.double(), target, n_steps)
            row["graph against float64"] = map_errors(graph, exact)
            row["Captum against float64"] = map_errors(single, exact)
        rows.append(row)
    return rows


def require_maps(rows: list[dict[str, Any]]) -> None:
    """Raise `ParityError` if any map of noise differs from Captum's, or is NaN."""
    worst = max((error for row in rows for error in row["graph against Captum"].values()), key=lambda e: (e != e, e))
    if not worst <= MAX_MAP_ERROR:
        raise ParityError(f"the explaining graph and Captum differ by {worst:.2e} of a map (allowed {MAX_MAP_ERROR})")


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Percentiles over tiles."""
    shares = {"median": 50, "p90": 90, "p99": 99, "max": 100}
    summary: dict[str, Any] = {"tiles": len(rows)}
    for pair in rows[0]:
        errors = {name: np.array([row[pair][name] for row in rows]) for name in MAPS}
        summary[pair] = {
            name: {label: float(f"{np.percentile(values, share):.3g}") for label, share in shares.items()}
            for name, values in errors.items()
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--file", type=Path, default=Path("model_store", f"{MODEL_NAME}_explain.onnx"))
    parser.add_argument("--tiles", type=int, default=45, help="spread evenly over the split")
    parser.add_argument("--n-steps", type=int, default=8)
    parser.add_argument("--output", type=Path, help="JSON file for the summary and every tile's errors")
    arguments = parser.parse_args()
    tiles = load_or_exit(arguments.data).test.spread(arguments.tiles)
    rows = compare(load_model(arguments.checkpoint), arguments.file, tiles, arguments.n_steps, yardstick=True)
    summary = {"n_steps": arguments.n_steps, **summarise(rows)}
    print(json.dumps(summary, indent=2))
    if arguments.output:
        write_json(arguments.output, {"summary": summary, "tiles": rows})


if __name__ == "__main__":
    main()
