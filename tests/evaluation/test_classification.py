import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.classification import (
    class_distribution,
    predict_probabilities,
    read_probabilities,
    scores,
    worst_predictions,
    write_report,
)
from handler.classes import CODES
from handler.model.checkpoint import Model
from serving.supervisor import ROOT
from training.checkpoint import SHIPPED
from training.data import DataError, PathMNIST, Split
from training.synthetic import generate


def test_scores_of_a_case_done_by_hand() -> None:
    labels = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    predicted = np.array([0, 1, 1, 2, 3, 4, 5, 6, 5, 8])
    found = scores(np.eye(9)[predicted], labels)
    assert found["accuracy"] == 0.8
    assert found["recall"]["ADI"] == 0.5
    assert found["recall"]["STR"] == 0.0
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 7) / 9, abs=1e-4)
    assert found["confusion_matrix"][7][5] == 1


def test_a_large_tile_and_its_reduction_by_pillow_score_the_same(model: Model) -> None:
    tiles = generate(9, seed=5)
    pictures = [Image.fromarray(tile).resize((224, 224), Image.Resampling.BICUBIC) for tile in tiles.images]
    large = Split(np.stack([np.asarray(picture) for picture in pictures]), tiles.labels)
    reduced = [np.asarray(picture.resize((28, 28), Image.Resampling.BILINEAR)) for picture in pictures]
    small = Split(np.stack(reduced), tiles.labels)
    found, expected = (predict_probabilities(model.network, split, model.preprocessing) for split in (large, small))
    assert np.allclose(found, expected, atol=1e-4)


def test_test_time_augmentation_is_the_mean_over_turned_and_mirrored_tiles(model: Model) -> None:
    split = generate(4, seed=6)
    turned = [
        np.rot90(images, turns, axes=(1, 2))
        for images in (split.images, split.images[:, :, ::-1])
        for turns in range(4)
    ]
    single = [
        predict_probabilities(model.network, Split(images.copy(), split.labels), model.preprocessing)
        for images in turned
    ]
    found = predict_probabilities(model.network, split, model.preprocessing, views=8)
    assert np.allclose(found, np.mean(single, axis=0), atol=1e-6)
    assert not np.allclose(found, single[0], atol=1e-3)


def test_published_scores_give_the_published_accuracy(shared: Path, real_data: PathMNIST) -> None:
    """A ResNet-18 whose publisher states 0.910 on the whole test split, joined by official index."""
    index = np.loadtxt(shared / "pathmnist_test_official_index.csv", dtype=int)
    table = np.loadtxt(shared / "resnet18_28_test_scores.csv", delimiter=",")
    assert scores(table[index, 1:], real_data.test.labels)["accuracy"] == pytest.approx(0.91, abs=0.01)


def test_the_command_scores_a_file_of_probabilities(shared: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "evaluation.classification",
        "--data",
        str(shared / "pathmnist.npz"),
        "--split",
        "test",
    ]
    command += ["--scores", str(shared / "resnet18_28_test_scores.csv")]
    command += ["--index", str(shared / "pathmnist_test_official_index.csv")]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert found["accuracy"]["value"] == pytest.approx(0.91, abs=0.01)
    assert found["auc"]["value"] == pytest.approx(0.99, abs=0.01)


@pytest.mark.parametrize(
    ("rows", "index", "problem"),
    [
        (np.full((4, 9), 1 / 9), [0, 1], "2 rows of probabilities for 3 images"),
        (np.full((4, 9), 1 / 9), [0, 1, 4], "the index goes from 0 to 4"),
        (np.full((3, 5), 0.2), None, "5 columns"),
        (np.full((3, 9), 0.5), None, "does not hold probabilities"),
        (np.full((3, 9), np.nan), None, "does not hold probabilities"),
    ],
)
def test_probabilities_that_do_not_fit_are_refused(
    rows: np.ndarray, index: list[int] | None, problem: str, tmp_path: Path
) -> None:
    np.savetxt(tmp_path / "scores.csv", rows, delimiter=",")
    if index is not None:
        np.savetxt(tmp_path / "index.csv", index, fmt="%d")
    with pytest.raises(DataError, match=problem):
        read_probabilities(tmp_path / "scores.csv", None if index is None else tmp_path / "index.csv", 3)


@pytest.mark.parametrize("content", [b"", b"a,b\n", b"0.1,0.2\n0.3\n", b"\x00\xff\xfe", None])
def test_a_file_that_holds_no_table_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"scores\.csv"):
        read_probabilities(path, None, 3)


def test_a_report_is_written_with_its_figures(model: Model, tmp_path: Path) -> None:
    splits = {name: generate(18, seed=seed) for seed, name in enumerate(("train", "val", "test"))}
    result = write_report(model, PathMNIST(**splits, digest="generated"), tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"evaluation.json", "evaluation.md", "confusion.svg", "classes.svg", "worst.png"}
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result
    accuracy = {name: found["accuracy"]["value"] for name, found in result["splits"].items()}
    assert result["accuracy_gap"]["val to test"] == pytest.approx(accuracy["val"] - accuracy["test"], abs=1e-4)
    assert f"| test | 18 | {accuracy['test']:.4f}" in (tmp_path / "evaluation.md").read_text()
    assert result["classes"]["images"]["train"] == dict.fromkeys(CODES, 2)
    probabilities = predict_probabilities(model.network, splits["test"], model.preprocessing)
    for item in result["worst_test_predictions"]:
        truth, predicted = splits["test"].labels[item["index"]], probabilities[item["index"]].argmax()
        assert (item["truth"], item["predicted"]) == (CODES[truth], CODES[predicted])
        assert truth != predicted


def test_the_worst_predictions_are_the_surest_wrong_ones() -> None:
    probabilities = np.eye(9)[[0, 1, 2]] * [[0.6], [0.9], [0.99]] + 0.001
    found = worst_predictions(probabilities, np.array([5, 5, 2]), count=5)
    assert [item["index"] for item in found] == [1, 0]


def test_a_shift_of_classes_is_the_share_that_would_have_to_change() -> None:
    images = np.zeros((10, 28, 28, 3), dtype=np.uint8)
    even, moved = np.arange(10) % 2, np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 3])
    data = PathMNIST(Split(images, even), Split(images, even), Split(images, moved), "x")
    assert class_distribution(data)["shift_from_train"] == {"val": 0, "test": 0.1}


def test_the_command_agrees_with_the_shipped_card_on_a_tenth_of_the_test_split(shared: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "evaluation.classification",
        "--data",
        str(shared / "pathmnist.npz"),
        "--split",
        "test",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    card = json.loads((SHIPPED / "pathmnist_resnet18.json").read_text())
    found, expected = json.loads(result.stdout), card["evaluation"]["test"]
    assert (found["images"], expected["images"]) == (718, 7180)
    # Every one of these tiles has its place in the matrix of the whole split.
    assert (np.array(found["confusion_matrix"]) <= np.array(expected["confusion_matrix"])).all()
    variance = expected["accuracy"] * (1 - expected["accuracy"]) / found["images"]
    assert abs(found["accuracy"] - expected["accuracy"]) <= 3 * variance**0.5
    assert list(found["recall"]) == list(expected["recall"]) == list(CODES)
