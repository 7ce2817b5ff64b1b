from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtest.tiles import Tile, generate, load_tiles


def test_generated_tiles_depend_on_the_seed_alone() -> None:
    assert generate(3) == generate(3) != generate(4)
    assert Image.open(BytesIO(generate(3))).size == (224, 224)
    assert [tile.image for tile in load_tiles(None, 2, seed=3)] == [generate(3), generate(4)]


def test_a_medmnist_file_gives_its_test_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", test_images=images)
    found = [np.asarray(Image.open(BytesIO(tile.image))) for tile in load_tiles(tmp_path / "x.npz", 9, seed=0)]
    assert {picture.tobytes() for picture in found} == {image.tobytes() for image in images}


def test_a_folder_gives_its_files_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(generate(1))
    (tmp_path / "notes.txt").write_text("x")
    assert load_tiles(tmp_path, 9, seed=0) == [Tile(generate(1))]


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        load_tiles(tmp_path, 9, seed=0)
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match="test_images"):
        load_tiles(tmp_path / "x.npz", 9, seed=0)
