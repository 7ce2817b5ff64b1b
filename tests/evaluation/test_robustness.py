import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.robustness import (
    CHANGES,
    blur,
    brightness,
    change_all,
    hue,
    jpeg,
    markdown,
    plot,
    report,
    saturation,
    stain,
)
from handler.model.checkpoint import Model
from tests.conftest import Pixels
from training.synthetic import generate


@pytest.fixture
def picture(tiles: Pixels) -> Image.Image:
    return Image.fromarray(tiles[8])


def distance(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).mean())


def test_changes_of_no_strength_change_nothing(picture: Image.Image) -> None:
    assert distance(stain(picture, (1.0, 1.0)), picture) < 1
    assert distance(hue(picture, 0.0), picture) < 2
    assert distance(brightness(picture, 1.0), picture) == 0
    assert distance(saturation(picture, 1.0), picture) == 0


def test_stronger_changes_change_more(picture: Image.Image) -> None:
    for weak, strong in (
        (jpeg(picture, 90), jpeg(picture, 10)),
        (blur(picture, 0.4), blur(picture, 2.0)),
        (brightness(picture, 0.9), brightness(picture, 0.5)),
        (hue(picture, 0.02), hue(picture, 0.2)),
        (stain(picture, (1.1, 1.0)), stain(picture, (1.6, 1.0))),
    ):
        assert distance(weak, picture) < distance(strong, picture)


def test_more_haematoxylin_is_darker_and_less_is_lighter(picture: Image.Image) -> None:
    means = [np.asarray(stain(picture, (amount, 1.0))).mean() for amount in (0.5, 1.0, 1.5)]
    assert means == sorted(means, reverse=True)


def test_every_change_gives_images_of_one_size(tiles: Pixels) -> None:
    for kind, strengths in CHANGES.items():
        for strength, change in strengths.items():
            changed = change_all(tiles[:2], change)
            side = int(strength) if kind == "size" else 28
            assert changed.shape == (2, side, side, 3), kind
            assert changed.dtype == np.uint8


def test_a_report_holds_every_change(model: Model, tmp_path: Path) -> None:
    split = generate(18, seed=3)
    chosen = {kind: dict(list(strengths.items())[:1]) for kind, strengths in CHANGES.items() if kind != "size"}
    result = report(model, split, chosen)
    assert set(result["changes"]) == {"unchanged", *chosen}
    for strengths in result["changes"].values():
        for row in strengths.values():
            assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
            assert 0 <= row["in_distribution"] <= 1
    json.dumps(result, allow_nan=False)
    assert markdown(result).count("\n| ") == 2 + len(chosen)
    plot(result, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000
