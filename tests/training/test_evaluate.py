import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from handler.model import Model
from handler.tissue import CODES
from serving.server import ROOT
from training.checkpoint import SHIPPED
from training.data import PathMNIST, Split
from training.evaluate import predict_probabilities, scores
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


def test_larger_tiles_of_the_same_content_score_the_same(model: Model) -> None:
    small = generate(9, seed=5)
    large = Split(small.images.repeat(4, axis=1).repeat(4, axis=2), small.labels)
    found, expected = (predict_probabilities(model.network, split, model.preprocessing) for split in (large, small))
    assert np.allclose(found, expected, atol=1e-4)


def test_published_scores_give_the_published_accuracy(shared: Path, real_data: PathMNIST) -> None:
    """A ResNet-18 whose publisher states 0.910 on the whole test split, joined by official index."""
    index = np.loadtxt(shared / "pathmnist_test_official_index.csv", dtype=int)
    table = np.loadtxt(shared / "resnet18_28_test_scores.csv", delimiter=",")
    assert scores(table[index, 1:], real_data.test.labels)["accuracy"] == pytest.approx(0.91, abs=0.01)


def test_the_command_reproduces_the_shipped_card_to_the_digit(shared: Path) -> None:
    command = [sys.executable, "-m", "training.evaluate", "--data", str(shared / "pathmnist.npz"), "--split", "test"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    card = json.loads((SHIPPED / "pathmnist_resnet18.json").read_text())
    assert json.loads(result.stdout) == card["evaluation"]["test"]
    assert list(card["evaluation"]["test"]["recall"]) == list(CODES)
