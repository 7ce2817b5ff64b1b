"""The same file in every runtime: `python -m export.runtimes --data FILE.npz` prints a table as JSON.

Each runtime that is here classifies the same tiles from their raw bytes, and is compared with PyTorch. Images per
second are from the median time of a batch, after one that is not counted.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import openvino
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from export.archive import MODEL_NAME
from export.chromium import chromium_page, link, serve_folder
from export.npm import PACKAGES, MissingRuntimeError
from export.parity import split_batches
from handler.model.checkpoint import Model, load_model
from handler.model.engine import Engine
from training.checkpoint import SHIPPED, write_json
from training.data import add_data_argument, load_or_exit

BATCH_SIZE = 16
# What computes each convolution in NumPy takes seconds for a tile.
SLOW_TILES = 9
FOLDER = Path(__file__).parent

Tiles = NDArray[np.uint8]
Logits = NDArray[np.float32]
Classify = Callable[[Tiles], Logits]


@dataclass(frozen=True)
class Answer:
    """`logits` `[N, 9]`, and the seconds each batch took."""

    version: str
    logits: Logits
    seconds: list[float]


@dataclass(frozen=True)
class Row:
    """One runtime against PyTorch."""

    runtime: str
    version: str
    tiles: int
    max_logit_difference: float
    top1_agreement: float
    images_per_second: float


def in_batches(label: str, tiles: Tiles, classify: Classify) -> Answer:
    """Run a runtime that is called from Python."""
    batches = split_batches(tiles, BATCH_SIZE)
    classify(batches[0])
    logits, seconds = [], []
    for batch in batches:
        start = time.perf_counter()
        logits.append(np.array(classify(batch)))
        seconds.append(time.perf_counter() - start)
    return Answer(label, np.concatenate(logits), seconds)


def onnx_runtime(path: Path, tiles: Tiles, provider: str) -> Answer:
    if provider not in onnxruntime.get_available_providers():
        raise MissingRuntimeError(f"this onnxruntime has no {provider}")
    session = onnxruntime.InferenceSession(path, providers=[provider])
    return in_batches(onnxruntime.__version__, tiles, lambda batch: session.run(["logits"], {"image": batch})[0])


def open_vino(path: Path, tiles: Tiles) -> Answer:
    """In float32: left to itself OpenVINO computes in bfloat16 where the processor can."""
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return in_batches(version("openvino"), tiles, lambda batch: model({"image": batch})["logits"])


def open_cv(path: Path, tiles: Tiles) -> Answer:
    network = cv2.dnn.readNetFromONNX(str(path), cv2.dnn.ENGINE_NEW)

    def classify(batch: Tiles) -> Logits:
        network.setInput(batch, "image")
        return np.asarray(network.forward("logits"), dtype=np.float32)

    return in_batches(cv2.__version__, tiles, classify)


def reference(path: Path, tiles: Tiles) -> Answer:
    evaluator = ReferenceEvaluator(str(path))

    def classify(batch: Tiles) -> Logits:
        (logits,) = evaluator.run(["logits"], {"image": batch})
        return np.asarray(logits)

    return in_batches(version("onnx"), tiles[:SLOW_TILES], classify)


def node(path: Path, tiles: Tiles) -> Answer:
    program = node_program()
    label = f"{web_version()}, Node {_output([program, '--version'])}"
    with tempfile.NamedTemporaryFile() as file:
        file.write(np.ascontiguousarray(tiles).tobytes())
        file.flush()
        command = [program, str(FOLDER / "measure.mjs"), str(path), file.name, *_numbers(tiles)]
        return _parse(label, json.loads(_output(command)))


def node_program() -> str:
    program = shutil.which("node")
    if program is None:
        raise MissingRuntimeError("no node on this machine (apt-get install nodejs)")
    return program


def browser(path: Path, tiles: Tiles) -> Answer:
    label = web_version()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        link(folder, model=path, dist=PACKAGES / "onnxruntime-web" / "dist", **{"measure.mjs": FOLDER / "measure.mjs"})
        (folder / "tiles").write_bytes(np.ascontiguousarray(tiles).tobytes())
        (folder / "index.html").write_text("<!doctype html><title>parity</title>")
        with serve_folder(folder) as address, chromium_page() as page:
            page.goto(f"{address}/index.html")
            label += f", Chromium {page.context.browser.version if page.context.browser else ''}"
            script = f"""async () => {{
                const ort = await import("{address}/dist/ort.wasm.bundle.min.mjs");
                const {{ measure }} = await import("{address}/measure.mjs");
                const tiles = new Uint8Array(await (await fetch("{address}/tiles")).arrayBuffer());
                return await measure(ort, "{address}/model", tiles, {", ".join(_numbers(tiles))});
            }}"""
            return _parse(label, page.evaluate(script))


def web_version() -> str:
    """Raises `MissingRuntimeError` before `npm ci`."""
    package = PACKAGES / "onnxruntime-web" / "package.json"
    if not package.is_file():
        raise MissingRuntimeError("npm packages are not installed (npm ci --prefix export)")
    found: str = json.loads(package.read_text())["version"]
    return found


def _numbers(tiles: Tiles) -> list[str]:
    return [str(number) for number in (len(tiles), tiles.shape[1], BATCH_SIZE)]


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _parse(label: str, answer: dict[str, Any]) -> Answer:
    return Answer(label, np.array(answer["logits"], dtype=np.float32).reshape(-1, 9), answer["seconds"])


def server(path: Path, tiles: Tiles) -> Answer:
    """The worker's engine with MNN, from the archive beside the ONNX file."""
    with tempfile.TemporaryDirectory() as name:
        with zipfile.ZipFile(path.with_suffix(".mar")) as archive:
            archive.extractall(name)
        device = torch.device("cpu")
        engine = Engine(load_model(Path(name), device), device, "mnn", Path(name))
    return in_batches(version("mnn"), tiles, lambda batch: engine.forward(list(batch)).logits.numpy())


RUNTIMES: dict[str, Callable[[Path, Tiles], Answer]] = {
    "the server's worker, MNN": server,
    "ONNX Runtime, CPU": lambda path, tiles: onnx_runtime(path, tiles, "CPUExecutionProvider"),
    "ONNX Runtime, CUDA": lambda path, tiles: onnx_runtime(path, tiles, "CUDAExecutionProvider"),
    "ONNX Runtime, TensorRT": lambda path, tiles: onnx_runtime(path, tiles, "TensorrtExecutionProvider"),
    "OpenVINO, CPU": open_vino,
    "OpenCV DNN": open_cv,
    "onnx.reference": reference,
    "ONNX Runtime Web in Node": node,
    "ONNX Runtime Web in Chromium": browser,
}


def expected_logits(model: Model, tiles: Tiles) -> Logits:
    """PyTorch's answers."""
    engine = Engine(model, torch.device("cpu"))
    batches = split_batches(tiles, BATCH_SIZE)
    return np.concatenate([engine.forward(list(batch)).logits.numpy() for batch in batches])


def compare(runtime: str, path: Path, tiles: Tiles, expected: Logits) -> Row:
    """Raises `MissingRuntimeError` where the runtime is not on this machine."""
    answer = RUNTIMES[runtime](path, tiles)
    count = len(answer.logits)
    expected = expected[:count]
    return Row(
        runtime=runtime,
        version=answer.version,
        tiles=count,
        max_logit_difference=float(np.abs(answer.logits - expected).max()),
        top1_agreement=float((answer.logits.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        images_per_second=min(BATCH_SIZE, count) / float(np.median(answer.seconds)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--file", type=Path, default=Path("model_store", f"{MODEL_NAME}.onnx"))
    parser.add_argument("--tiles", type=int, default=256, help="spread evenly over the split")
    parser.add_argument("--runtimes", nargs="+", choices=list(RUNTIMES), default=list(RUNTIMES), metavar="NAME")
    parser.add_argument("--output", type=Path, help="JSON file to write as well")
    arguments = parser.parse_args()
    tiles = load_or_exit(arguments.data).test.spread(arguments.tiles)
    expected = expected_logits(load_model(arguments.checkpoint), tiles)
    rows: list[dict[str, Any]] = []
    for runtime in arguments.runtimes:
        try:
            rows.append(asdict(compare(runtime, arguments.file, tiles, expected)))
        except MissingRuntimeError as error:
            rows.append({"runtime": runtime, "missing": str(error)})
    print(json.dumps(rows, indent=2))
    if arguments.output:
        write_json(arguments.output, {"rows": rows})


if __name__ == "__main__":
    main()
