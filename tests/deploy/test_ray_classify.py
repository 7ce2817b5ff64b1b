"""Bulk classification on a Ray cluster of two nodes: each input has one row, with the result it gets alone."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as parquet
import pytest
from ray.cluster_utils import Cluster

from deploy.ray.classify import classify, images_of, main, read_image, read_npz, write
from handler.api.errors import RequestError
from handler.api.image import ImageLimits
from handler.api.request import RawRequest
from handler.api.service import Service
from serving.supervisor import ROOT
from tests.conftest import Pixels


def assert_answers(row: dict[str, Any], image: bytes, service: Service) -> None:
    """Assert that the row equals the service's response to this image alone."""
    (response,) = service.respond([RawRequest({"body": image})])
    body = orjson.loads(response.body)
    assert row["error"] is None
    assert row["class"] == body["prediction"]["code"]
    assert row["confidence"] == pytest.approx(body["confidence"], abs=1e-4)
    assert row["probabilities"] == pytest.approx(body["probabilities"], abs=1e-4)
    assert row["ood_score"] == pytest.approx(body["ood_score"], rel=1e-3)
    assert row["in_distribution"] == body["in_distribution"]
    assert (row["fit"], row["fit_reasons"]) == (body["fit"]["verdict"], body["fit"]["reasons"])
    assert row["field_microns"] == body["field"]["microns"]
    assert row["model_digest"] == body["model"]["digest"]


def test_a_folder_becomes_a_table_in_which_nothing_is_lost(
    cluster: Cluster, archive: Path, service: Service, tiles: Pixels, encode: Callable[..., bytes], tmp_path: Path
) -> None:
    source = tmp_path / "images"
    images = {f"{index % 3}/{index}.png": encode(tile) for index, tile in enumerate(tiles)}
    broken = {"cut.png": encode(tiles[0])[:300], "empty.png": b"", "notes.txt": b"no image"}
    for name, content in {**images, **broken}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / "gone.png").symlink_to("nowhere")
    command = [sys.executable, "-m", "deploy.ray.classify", "--archive", str(archive)]
    command += ["--input", str(source), "--output", str(tmp_path / "table")]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"{len(images) + 4} inputs, 4 of them with an error" in result.stdout
    rows = parquet.read_table(tmp_path / "table").to_pylist()
    assert sorted(row["input"] for row in rows) == sorted([*images, *broken, "gone.png"])
    for row in rows:
        if row["input"] in images:
            assert_answers(row, images[row["input"]], service)
    errors = {row["input"]: row["error"].split(":")[0] for row in rows if row["error"]}
    assert errors == {
        "cut.png": "image_truncated",
        "empty.png": "image_missing",
        "gone.png": "file_unreadable",
        "notes.txt": "image_unreadable",
    }


def test_an_npz_becomes_json_lines(
    cluster: Cluster, archive: Path, service: Service, tiles: Pixels, encode: Callable[..., bytes], tmp_path: Path
) -> None:
    images = np.concatenate([tiles] * 4)
    np.savez_compressed(tmp_path / "set.npz", test_images=images, test_labels=np.zeros((len(images), 1), np.uint8))
    results = classify(images_of(tmp_path / "set.npz"), archive, workers=2)
    assert write(results, tmp_path / "lines", "json") == (len(images), 0)
    files = (tmp_path / "lines").iterdir()
    rows = {row["input"]: row for path in files for row in map(json.loads, path.read_text().splitlines())}
    assert rows.keys() == {f"test_images[{index}]" for index in range(len(images))}
    for index, tile in enumerate(tiles):
        assert_answers({"error": None, **rows[f"test_images[{index + len(tiles)}]"]}, encode(tile), service)


def test_an_npz_is_read_a_batch_at_a_time_and_without_pickles(tmp_path: Path, tiles: Pixels) -> None:
    secret = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "set.npz", images=tiles, grey=tiles[..., 0], labels=np.zeros((3, 1)), objects=secret)
    batches = list(read_npz(tmp_path / "set.npz"))
    assert sum(len(batch) for batch in batches) == 2 * len(tiles)
    assert {name.split("[")[0] for batch in batches for name in batch["input"].to_pylist()} == {"images", "grey"}


def test_a_truncated_npz_is_an_error(tmp_path: Path, tiles: Pixels) -> None:
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        np.save(tmp_path / "images.npy", tiles)
        archive.writestr("images.npy", (tmp_path / "images.npy").read_bytes()[:-1])
    with pytest.raises(ValueError, match="reshape"):
        list(read_npz(tmp_path / "set.npz"))


def pixel_row(pixels: Pixels) -> dict[str, Any]:
    return {"input": "images[0]", "file": None, "pixels": pixels.tobytes(), "shape": list(pixels.shape)}


def test_pixels_are_read_as_they_are_and_grey_ones_as_rgb(tiles: Pixels) -> None:
    assert np.array_equal(read_image(pixel_row(tiles[0]), ImageLimits()).pixels, tiles[0])
    grey = read_image(pixel_row(tiles[0][..., 1]), ImageLimits()).pixels
    assert np.array_equal(grey, np.stack([tiles[0][..., 1]] * 3, axis=2))


@pytest.mark.parametrize(("side", "code"), [(15, "image_too_small"), (65, "image_too_large")])
def test_pixels_that_the_server_would_refuse_are_refused(side: int, code: str) -> None:
    with pytest.raises(RequestError) as error:
        read_image(pixel_row(np.zeros((side, side, 3), np.uint8)), ImageLimits(min_side=16, max_pixels=64 * 64))
    assert error.value.code == code


@pytest.mark.parametrize("content", [b"", b"PK no zip"])
def test_a_source_that_is_neither_folder_nor_npz_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(ValueError, match="neither a folder nor an npz file"):
        images_of(tmp_path / "set.npz")


def test_an_output_folder_that_is_not_empty_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "part-0.parquet").touch()
    monkeypatch.setattr(sys, "argv", ["classify", "--input", str(ROOT / "docs"), "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "is not empty" in capsys.readouterr().err
