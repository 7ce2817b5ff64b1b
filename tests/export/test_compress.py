"""Compressed files keep their types, and are shipped only if they are accurate."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import export.compress
from export.compress import Cost, compress, measure, open_session, predict, write_faithful_int8, write_int8
from handler.model.checkpoint import file_digest
from tests.conftest import Pixels
from training.checkpoint import SHIPPED
from training.data import PathMNIST, Split

BLACK = np.zeros((2, 28, 28, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test judges a time."""
    monkeypatch.setattr(export.compress, "TIMED_ROUNDS", 1)


def types(path: Path) -> list[tuple[str, str]]:
    session = open_session(path)
    return [(item.name, item.type) for item in (*session.get_inputs(), *session.get_outputs())]


def int8_convolutions(path: Path) -> list[bool]:
    """Whether each convolution of a file has weights in int8, from the first to the last."""
    nodes = onnx.load(path).graph.node
    dequantised = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return [node.input[1] in dequantised for node in nodes if node.op_type == "Conv"]


@pytest.mark.parametrize("floating", [0, 5])
def test_an_int8_file_answers_as_the_float32_file_does(
    floating: int, model_store: Path, real_data: PathMNIST, tmp_path: Path
) -> None:
    source, path = model_store / "pathmnist.onnx", tmp_path / "int8.onnx"
    write_int8(source, real_data.train.spread(32), path, floating)
    convolutions = len(int8_convolutions(source))
    assert int8_convolutions(path)[: convolutions - 1] == [False] * floating + [True] * (convolutions - 1 - floating)
    images = real_data.test.spread(32)
    cost = measure(source, path, Split(images, predict(open_session(source), images)))
    assert types(path) == types(source)
    assert path.stat().st_size < source.stat().st_size / 3
    assert cost.top1_agreement > 0.9
    assert cost.accuracy_drop == pytest.approx(1 - cost.top1_agreement)
    assert cost.speed_up > 0


def test_convolutions_are_spared_until_validation_tiles_keep_their_class(
    model_store: Path, tiles: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges learned from black tiles ruin int8, the less the more of it is left out."""
    source, path = model_store / "pathmnist.onnx", tmp_path / "int8.onnx"
    monkeypatch.setattr(export.compress, "FLOATING", (0, 19))
    assert write_faithful_int8(source, BLACK, tiles, path) == 19
    (logits,) = open_session(source).run(["logits"], {"image": tiles})
    second, best = np.sort(logits, axis=1)[:, -2:].T
    # Of all tiles but one the class is clear.
    clear = tiles[best - second > 0.05]
    assert len(clear) >= len(tiles) - 1
    assert (predict(open_session(path), clear) == predict(open_session(source), clear)).all()


def test_what_is_inaccurate_is_not_shipped(
    model_store: Path, tiles: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges learned from black tiles ruin int8; float16 needs none."""
    monkeypatch.setattr(export.compress, "FLOATING", (0,))
    source = tmp_path / "pathmnist.onnx"
    for name in (source.name, "manifest.json"):
        shutil.copy(model_store / name, tmp_path)
    test = Split(tiles, predict(open_session(source), tiles))
    compress(SHIPPED, tmp_path, BLACK, tiles, test)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert not manifest["compressed"]["int8"]["shipped"]
    assert manifest["compressed"]["int8"]["float_convolutions"] == 0
    assert not (tmp_path / "pathmnist_int8.onnx").exists()
    assert "pathmnist_int8.onnx" not in manifest["artifacts"]
    assert manifest["compressed"]["fp16"]["shipped"]
    path = tmp_path / "pathmnist_fp16.onnx"
    assert manifest["artifacts"][path.name]["sha256"] == file_digest(path)
    assert types(path) == types(source)
    # The last layers stay in float32.
    assert path.stat().st_size < source.stat().st_size * 0.52


@pytest.mark.parametrize(("drop", "shipped"), [(0.0051, False), (0.005, True), (-0.01, True), (float("nan"), False)])
def test_half_a_point_is_the_limit(drop: float, shipped: bool) -> None:
    assert Cost(718, 0.86, drop, 0.99, 1.5).shipped is shipped


def test_a_store_of_another_model_is_refused(model_store: Path, tiles: Pixels, tmp_path: Path) -> None:
    manifest = json.loads((model_store / "manifest.json").read_text())
    manifest["model"]["digest"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="another model"):
        compress(SHIPPED, tmp_path, tiles, tiles, Split(tiles, np.zeros(len(tiles), dtype=np.int64)))
