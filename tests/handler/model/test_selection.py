import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from handler.model import backends
from handler.model.backends import NETWORK_MNN, NETWORK_ONNX
from handler.model.checkpoint import Model
from handler.model.engine import Engine
from handler.model.gate import NOISE, PROBE_TILES
from handler.model.network import build_network, feature_map, for_inference
from handler.model.preprocess import preprocess
from handler.model.selection import candidates, open_engine, select_engine
from serving.supervisor import ROOT
from training.checkpoint import SHIPPED

CPU = torch.device("cpu")
GATE = {"tolerance": 1e-3, "reduced_tolerance": 0.05, "agreement": 0.99, "probability": 0.01}


def settings(*names: str) -> dict[str, Any]:
    return {"cpu": list(names), "gate": GATE}


def add_backend(monkeypatch: pytest.MonkeyPatch, name: str, run: Callable[[Model, Tensor], Tensor]) -> None:
    monkeypatch.setitem(backends.BACKENDS, name, lambda model, folder, device: lambda inputs: run(model, inputs))


def slowly(model: Model, inputs: Tensor) -> Tensor:
    time.sleep(0.3 * len(inputs))
    return feature_map(model.network, inputs)


def _other(content: dict[str, Any]) -> str:
    """A measured engine that is not the fastest."""
    return next(item["name"] for item in content["candidates"] if item["name"] != content["engine"])


@pytest.fixture
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which no timing decides."""
    monkeypatch.setattr("handler.model.selection.ROUNDS", 1)


@pytest.fixture(scope="module")
def some_probes(engine_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an archive with a quarter of the shipped archive's tiles."""
    folder = tmp_path_factory.mktemp("probes")
    np.save(folder / PROBE_TILES, np.load(engine_files / PROBE_TILES)[::4])
    return folder


@pytest.fixture
def slow_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    add_backend(monkeypatch, "slow", slowly)


def test_the_fastest_of_those_that_keep_the_gate_serves(
    model: Model, engine_files: Path, tmp_path: Path, slow_backend: None, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["slow", "openvino", "onnxruntime", "mnn", "torch"]
    chosen = select_engine(model, CPU, engine_files, settings(*names), kept=tmp_path)
    (file,) = tmp_path.glob("engines-*.json")
    assert {item["name"] for item in json.loads(file.read_text())["candidates"]} == set(names)
    assert "the engine slow is left out: it takes" in caplog.text
    seconds = {}
    inputs = preprocess([torch.from_numpy(NOISE[1])] * 8, model.preprocessing)
    for name in names[1:]:
        engine = Engine(model, CPU, name, engine_files)
        engine.run(inputs)
        start = time.perf_counter()
        for _ in range(3):
            engine.run(inputs)
        seconds[name] = time.perf_counter() - start
    # Other programs disturb both timings.
    assert seconds[chosen.backend] < 2 * min(seconds.values())


def test_a_later_start_believes_the_selection_and_measures_nothing(
    model: Model, engine_files: Path, tmp_path: Path, one_round: None, caplog: pytest.LogCaptureFixture
) -> None:
    first = select_engine(model, CPU, engine_files, settings("onnxruntime", "torch"), kept=tmp_path)
    (file,) = tmp_path.glob("engines-*.json")
    written = file.stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        second = select_engine(model, CPU, engine_files, settings("onnxruntime", "torch"), kept=tmp_path)
    assert second.backend == first.backend
    assert file.stat().st_mtime_ns == written
    assert "as measured before" in caplog.text


@pytest.fixture(scope="module")
def archive(engine_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with its engines' files."""
    folder = tmp_path_factory.mktemp("archive")
    for file in (*SHIPPED.iterdir(), *engine_files.iterdir()):
        shutil.copy(file, folder)
    return folder


def test_a_process_that_serves_opens_the_selected_engine_only(archive: Path, tmp_path: Path) -> None:
    """The others are measured in a process of their own, so that none of them stays in memory."""
    program = """if True:
        import json, sys
        from pathlib import Path
        import torch
        from handler.model.selection import open_engine
        folder, kept, settings = sys.argv[1:]
        engine = open_engine(Path(folder), torch.device("cpu"), json.loads(settings), Path(kept))
        print(json.dumps([engine.backend, [name for name in ("onnxruntime", "MNN") if name in sys.modules]]))
    """
    names = ["onnxruntime", "mnn"]
    command = [sys.executable, "-c", program, str(archive), str(tmp_path), json.dumps(settings(*names))]
    process = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    serves, imported = json.loads(process.stdout.splitlines()[-1])
    assert [name.lower() for name in imported] == [name for name in names if name == serves]
    (file,) = tmp_path.glob("engines-*.json")
    assert {item["name"] for item in json.loads(file.read_text())["candidates"]} == {*names, "torch"}


def test_pytorch_serves_if_an_engine_crashes_the_process_that_measures(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    assert open_engine(archive, CPU, settings("onnxruntime", "mnn"), tmp_path).backend == "torch"
    assert "ended with status -11" in caplog.text


@pytest.fixture(scope="module")
def kept(model: Model, engine_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a selection between ONNX Runtime and PyTorch."""
    folder = tmp_path_factory.mktemp("kept")
    select_engine(model, CPU, engine_files, settings("onnxruntime"), kept=folder)
    return folder


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content["conditions"].update(threads=99),
        lambda content: content.update(engine="abacus"),
        lambda content: content.pop("candidates"),
        lambda content: content["candidates"].append({"name": "x", "speed": 1}),
        lambda content: content["candidates"][0].update(images_per_second="fast"),
        lambda content: content["candidates"][0].update(images_per_second={"1": -1}),
        lambda content: content.update(engine=_other(content)),
        lambda content: content.clear(),
    ],
)
def test_a_wrong_selection_is_not_believed(
    damage: Callable[[dict[str, Any]], None],
    model: Model,
    engine_files: Path,
    kept: Path,
    tmp_path: Path,
    one_round: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (file,) = shutil.copytree(kept, tmp_path / "kept").glob("engines-*.json")
    right = json.loads(file.read_text())
    wrong = json.loads(file.read_text())
    damage(wrong)
    file.write_text(json.dumps(wrong))
    with caplog.at_level(logging.WARNING):
        select_engine(model, CPU, engine_files, settings("onnxruntime"), kept=file.parent)
    assert "is not used" in caplog.text
    assert json.loads(file.read_text())["conditions"] == right["conditions"]


def test_a_kept_engine_that_is_damaged_since_is_replaced(
    model: Model, engine_files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (NETWORK_ONNX, NETWORK_MNN):
        (tmp_path / name).write_bytes((engine_files / name).read_bytes())
    names = settings("onnxruntime", "slow-torch")
    assert select_engine(model, CPU, tmp_path, names, choice="onnxruntime", kept=tmp_path).backend == "onnxruntime"
    (tmp_path / NETWORK_ONNX).write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert select_engine(model, CPU, tmp_path, names, choice="onnxruntime", kept=tmp_path).backend == "torch"
    assert "onnxruntime is left out" in caplog.text


def test_an_engine_of_other_answers_is_left_out(
    model: Model, engine_files: Path, one_round: None, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    other = replace(model, network=for_inference(build_network()))
    with caplog.at_level(logging.WARNING):
        assert select_engine(other, CPU, engine_files, settings("mnn", "torch")).backend == "torch"
    assert "mnn is left out: its logits are" in caplog.text


def test_missing_and_damaged_files_leave_pytorch_to_serve(model: Model, engine_files: Path, tmp_path: Path) -> None:
    (tmp_path / NETWORK_ONNX).write_bytes((engine_files / NETWORK_ONNX).read_bytes()[:1000])
    assert select_engine(model, CPU, tmp_path, settings("onnxruntime", "openvino", "mnn", "torch")).backend == "torch"


@pytest.mark.parametrize(
    ("shift", "problem"), [(0.0, ""), (0.2, "tiles get PyTorch's class"), (0.004, "probabilities differ")]
)
def test_reduced_precision_is_judged_by_its_answers(
    shift: float,
    problem: str,
    model: Model,
    some_probes: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`shift` turns the feature map towards one class, by that share of its norm."""

    def turned(model: Model, inputs: Tensor) -> Tensor:
        features = feature_map(model.network, inputs)
        direction = model.network.fc.weight[4] / model.network.fc.weight[4].norm()
        return features + shift * features.norm(dim=1, keepdim=True) * direction[:, None, None]

    add_backend(monkeypatch, "turned", turned)
    monkeypatch.setattr("handler.model.gate.REDUCED", {"turned"})
    gate = {**GATE, "reduced_tolerance": 10.0, "probability": 1.0 if "class" in problem else 1e-4}
    if "probabilities" in problem:
        gate["agreement"] = 0.0
    with caplog.at_level(logging.WARNING):
        engine = select_engine(model, CPU, some_probes, {"cpu": ["turned"], "gate": gate}, choice="turned")
    assert engine.backend == ("torch" if problem else "turned")
    assert problem in caplog.text


def test_reduced_precision_needs_the_archives_tiles(
    model: Model, some_probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_backend(monkeypatch, "same", lambda model, inputs: feature_map(model.network, inputs))
    monkeypatch.setattr("handler.model.gate.REDUCED", {"same"})
    names = {"cpu": ["same"], "gate": GATE}
    assert select_engine(model, CPU, some_probes, names, choice="same").backend == "same"
    assert select_engine(model, CPU, tmp_path, names, choice="same").backend == "torch"
    np.save(tmp_path / PROBE_TILES, np.zeros((0,), object), allow_pickle=True)
    assert select_engine(model, CPU, tmp_path, names, choice="same").backend == "torch"


def test_an_operator_can_pin_an_engine_or_ask_for_float32(caplog: pytest.LogCaptureFixture) -> None:
    names = ["openvino-bf16", "mnn", "torch"]
    assert candidates(names, "auto") == names
    assert candidates(names, "mnn") == ["mnn"]
    assert candidates(names, "exact") == ["mnn", "torch"]
    assert candidates(["mnn"], "exact") == ["mnn", "torch"]
    # The workers that explain have no other engine than PyTorch.
    assert candidates(["torch"], "mnn") == ["torch"]
    assert candidates(names, "abacus") == names
    assert "there is no engine 'abacus'" in caplog.text
