"""The command without a server gives the server's answers, maps, pictures and errors."""

import base64
import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from export.predict import main
from export.predictor import CLASSIFYING, EXPLAINING, METHODS
from handler.api.service import Service
from handler.explain.registry import METHODS as SERVER_METHODS
from serving.supervisor import ROOT
from tests.conftest import Pixels
from tests.support.answers import answer, raw_map
from training.data import PathMNIST

Answers = list[dict[str, Any]]
Predict = Callable[..., tuple[int, Answers]]

# The relative error of a gradient map of noise: between float32 implementations, rounding moves it this much.
MAP_ERROR = 0.05
# Prints the exit status, the imported packages outside the standard library, and the peak of memory in MB.
MEASURED = """
import sys
from pathlib import Path
before = set(sys.modules)
from export.predict import main
status = main(sys.argv[1:])
new = {name: sys.modules[name] for name in set(sys.modules) - before}
files = {name: getattr(module, "__file__", None) or "" for name, module in new.items()}
print(status, file=sys.stderr)
print(*{name.partition(".")[0] for name, file in files.items() if "site-packages" in file}, file=sys.stderr)
# Of this process alone: the peak that `getrusage` gives starts with the parent's.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024, file=sys.stderr)
"""
# Pillow, NumPy and ONNX Runtime with what they themselves import.
ALLOWED = {"PIL", "numpy", "onnxruntime", "flatbuffers", "google", "packaging"}


@pytest.fixture
def predict(model_store: Path, capsys: pytest.CaptureFixture[str]) -> Predict:
    def run(*words: str | Path) -> tuple[int, Answers]:
        status = main(["--models", str(model_store), *map(str, words)])
        return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture
def files(tiles: Pixels, tmp_path: Path) -> list[Path]:
    """A tile of each class, in several formats, one of them grey with 16 bits and one not square."""
    paths = [tmp_path / f"{index}.{kind}" for index, kind in enumerate(("png", "jpg", "tif", "bmp", "webp") * 2)]
    for path, tile in zip(paths, tiles, strict=False):
        Image.fromarray(tile).resize((96, 60 if path.suffix == ".bmp" else 96)).save(path)
    grey = np.asarray(Image.fromarray(tiles[0]).convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "2.tif")
    return paths


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A tile without near-equal neighbours, between which rounding would decide."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(path)
    return path


def served(service: Service, path: Path, **options: Any) -> dict[str, Any]:
    return answer(service, {"body": path.read_bytes(), **options}, explain="method" in options)


def map_error(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def assert_same_answer(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in ("class_id", "code", "name", "calibrated"):
        assert found["prediction"][name] == expected["prediction"][name]
    assert found["logits"] == pytest.approx(expected["logits"], abs=1e-3)
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
    assert found["ood_score"] == pytest.approx(expected["ood_score"], rel=1e-2)
    assert found["verdict"]["tumour_share"] == pytest.approx(expected["verdict"]["tumour_share"], abs=1e-4)
    for name in ("state", "classes", "tumour_related", "test_tiles"):
        assert found["verdict"][name] == expected["verdict"][name]
    for name in ("prediction_set", "in_distribution", "risk", "field", "fit"):
        assert found[name] == expected[name]
    assert found.get("notes") == expected.get("notes")


def test_every_format_gets_the_servers_answer(predict: Predict, files: list[Path], service: Service) -> None:
    status, found = predict(*files, "--coverage", "0.95")
    assert status == 0
    for path, body in zip(files, found, strict=True):
        expected = served(service, path, coverage="0.95")
        assert_same_answer(body, expected)
        assert set(body) == {"file", *expected}
        assert {**body["model"], "engine": None} == {**expected["model"], "engine": None}


def test_real_tiles_get_the_servers_classes_and_maps(
    predict: Predict, real_data: PathMNIST, service: Service, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(128)]
    for path, tile in zip(paths, real_data.test.spread(128), strict=True):
        Image.fromarray(tile).save(path)
    status, found = predict(*paths, "--explain", "gradcam")
    assert status == 0
    for path, body in zip(paths, found, strict=True):
        expected = served(service, path, explain="gradcam", **{"return": "raw"})
        assert_same_answer(body, expected)
        (explanation,), (same,) = body["explanations"], expected["explanations"]
        assert np.abs(raw_map(explanation) - raw_map(same)).max() < 1e-4


def test_the_field_of_view_is_cut_and_refused_as_by_the_server(
    predict: Predict, tiles: Pixels, service: Service, tmp_path: Path
) -> None:
    tile, small = tmp_path / "tile.png", tmp_path / "small.tif"
    Image.fromarray(np.pad(tiles[0], ((20, 20), (30, 30), (0, 0)), mode="symmetric")).save(tile)
    Image.fromarray(tiles[0]).save(small, dpi=(50800, 50800))
    status, (body, refused) = predict(tile, small, "--mpp", "2.5")
    assert status == 1
    expected = served(service, tile, mpp="2.5")
    assert_same_answer(body, expected)
    assert body["field"]["cut"] == {"left": 21, "top": 11, "width": 45, "height": 45}
    assert refused["error"]["code"] == "field_too_small"
    # Without the option, the file's own word counts, which makes it smaller still.
    _, (by_file,) = predict(small)
    assert "(tiff)" in by_file["error"]["message"]


@pytest.mark.parametrize("words", [[], ["--target", "TUM"], ["--target", "7", "--contrast", "MUS"]])
def test_maps_are_the_servers(words: list[str], predict: Predict, noise: Path, service: Service) -> None:
    names = dict(zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True))
    fixed = {"n_steps": "3", "baseline": "white", "return": "raw"}
    expected = served(service, noise, method=",".join(METHODS), **fixed, **names)["explanations"]
    _, (body,) = predict(noise, "--explain", ",".join(METHODS), "--n-steps", "3", "--baseline", "white", *words)
    for explanation, same in zip(body["explanations"], expected, strict=True):
        for name in ("method", "target", "contrast", "unit", "rule", "baseline", "n_steps", "gradient_evaluations"):
            assert explanation.get(name) == same.get(name)
        assert map_error(raw_map(explanation), raw_map(same)) < MAP_ERROR
        if explanation["method"] == "integrated_gradients":
            assert explanation["completeness_residual"] == pytest.approx(same["completeness_residual"], rel=0.1)


def test_maps_are_shown_as_the_server_shows_them() -> None:
    assert {name: SERVER_METHODS[name].display for name in METHODS} == METHODS


@pytest.mark.parametrize("contrast", [[], ["--contrast", "STR"]])
def test_pictures_are_the_servers(
    contrast: list[str], predict: Predict, files: list[Path], service: Service, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    _, found = predict(*files[:4], "--explain", "gradcam", "--pictures", folder, *contrast)
    options = {"contrast": contrast[1]} if contrast else {}
    for path, body in zip(files, found, strict=False):
        (expected,) = served(service, path, explain="gradcam", colormap="evidence", **options)["explanations"]
        for name in ("heatmap", "overlay"):
            same = Image.open(io.BytesIO(base64.b64decode(expected[name]))).convert("RGBA")
            picture = Image.open(body["explanations"][0][name]).convert("RGBA")
            assert picture.size == same.size
            # A strength near a bound between two levels may round to either.
            assert np.abs(np.asarray(picture, int) - np.asarray(same, int)).mean() < 1
    assert len(list(folder.iterdir())) == 8


def test_files_of_one_name_get_pictures_of_their_own(predict: Predict, tiles: Pixels, tmp_path: Path) -> None:
    paths = [tmp_path / folder / "tile.png" for folder in "ab"]
    for path, tile in zip(paths, tiles, strict=False):
        path.parent.mkdir()
        Image.fromarray(tile).save(path)
    _, found = predict(*paths, "--explain", "gradcam", "--pictures", tmp_path / "pictures")
    assert len({body["explanations"][0]["overlay"] for body in found}) == 2


def test_a_damaged_file_gets_the_servers_error_and_costs_the_others_nothing(
    predict: Predict, files: list[Path], tmp_path: Path
) -> None:
    cut, text = tmp_path / "cut.png", tmp_path / "text.png"
    cut.write_bytes(files[0].read_bytes()[:-200])
    text.write_text("no image")
    status, found = predict(files[0], cut, text, tmp_path / "missing.png", tmp_path, files[1])
    assert status == 1
    codes = [body.get("error", {}).get("code") for body in found]
    assert codes == [None, "image_truncated", "image_unreadable", "file_unreadable", "file_unreadable", None]
    assert found[-1]["prediction"] == predict(files[1])[1][0]["prediction"]


def test_the_table_holds_the_same_answers(
    predict: Predict, model_store: Path, files: list[Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [*map(str, files), str(tmp_path / "missing.png")]
    _, found = predict(*words)
    assert main(["--models", str(model_store), "--format", "csv", *words]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == words
    assert rows[-1]["error"] == "file_unreadable"
    for row, body in zip(rows[:-1], found[:-1], strict=True):
        assert row["error"] == ""
        assert (row["code"], row["verdict"]) == (body["prediction"]["code"], body["verdict"]["state"])
        assert (row["fit"], row["fit_reasons"].split()) == (body["fit"]["verdict"] or "", body["fit"]["reasons"])
        assert float(row["p_TUM"]) == body["probabilities"]["TUM"]
        codes = body["prediction_set"]["codes"] if body["prediction_set"] else []
        assert row["prediction_set"].split() == codes
        assert row["risk"] == (body["risk"]["level"] if body["risk"] else "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--explain", "layercam"], "is no method"),
        (["--explain", "gradcam,gradcam"], "named twice"),
        (["--explain", "gradcam", "--target", "9"], "is no class"),
        (["--explain", "saliency", "--n-steps", "257"], "from 1 to 256"),
        (["--target", "TUM"], "without --explain"),
        (["--pictures", "folder"], "without --explain"),
        (["--explain", "gradcam", "--format", "csv"], "add --pictures"),
    ],
)
def test_arguments_without_meaning_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["tile.png", *words])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_model_file_is_named(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--models", str(tmp_path), str(files[0])]) == 2
    assert CLASSIFYING in capsys.readouterr().err


def test_files_of_different_weights_are_refused(
    model_store: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / CLASSIFYING).symlink_to(model_store / CLASSIFYING)
    other = onnx.load(model_store / EXPLAINING)
    (digest,) = [item for item in other.metadata_props if item.key == "weights_sha256"]
    digest.value = "0" * 64
    onnx.save(other, tmp_path / EXPLAINING)
    assert main(["--models", str(tmp_path), str(files[0]), "--explain", "saliency"]) == 2
    assert "different weights" in capsys.readouterr().err


def test_only_onnx_runtime_numpy_and_pillow_are_imported_and_memory_stays_below_400_mb(
    model_store: Path, files: list[Path], tmp_path: Path
) -> None:
    words = [
        *map(str, files),
        "--explain",
        ",".join(METHODS),
        "--n-steps",
        "2",
        "--pictures",
        str(tmp_path / "pictures"),
    ]
    command = [sys.executable, "-c", MEASURED, "--models", str(model_store), *words]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    status, packages, megabytes = finished.stderr.splitlines()[-3:]
    assert status == "0", finished.stderr
    assert {"PIL", "numpy", "onnxruntime"} <= set(packages.split()) <= ALLOWED
    assert int(megabytes) < 400
