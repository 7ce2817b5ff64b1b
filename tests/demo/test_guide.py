import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.guide import GUIDANCE, ROLES, SOURCES, DataError, downloaded_tiles, generated_tiles, panel
from handler.classes import CODES, NUM_CLASSES, TISSUES
from tests.conftest import Pixels
from training.data import PathMNIST
from training.synthetic import PICTURE_SIZE, generate, write_dataset


def pixels(tile: str) -> Pixels:
    return np.asarray(Image.open(BytesIO(base64.b64decode(tile))))


def test_every_tissue_has_a_role_with_sources_and_its_risk_group_a_guidance() -> None:
    assert list(ROLES) == list(CODES)
    assert {key for role in ROLES.values() for key in role.sources} == set(SOURCES)
    assert all(role.sources for role in ROLES.values())
    assert {tissue.risk for tissue in TISSUES} == set(GUIDANCE)
    assert all(re.fullmatch(r"10\.\d{4,5}/\S+", source.doi) for source in SOURCES.values())


def test_the_guide_shows_every_tissue_with_its_picture() -> None:
    text = panel(generated_tiles(), "generated")
    for tissue in TISSUES:
        assert f'alt="Example tile: {tissue.name}"' in text
        assert f"risk group: {tissue.risk}" in text


def test_example_tiles_are_the_generated_ones() -> None:
    expected = generate(NUM_CLASSES, seed=8, size=PICTURE_SIZE).images
    for code, image in zip(CODES, expected, strict=True):
        assert np.array_equal(pixels(generated_tiles()[code]), image)


def test_tiles_can_come_from_the_users_own_download(tmp_path: Path) -> None:
    write_dataset(tmp_path / "own.npz", (9, 9, 18), seed=3)
    with np.load(tmp_path / "own.npz") as arrays:
        expected = arrays["test_images"][:NUM_CLASSES]
    found = downloaded_tiles(tmp_path / "own.npz")
    assert list(found) == list(CODES)
    for tile, image in zip(found.values(), expected, strict=True):
        assert np.array_equal(pixels(tile), image)


def test_real_tiles_are_read_by_class(shared: Path, real_data: PathMNIST) -> None:
    found = downloaded_tiles(shared / "pathmnist.npz")
    for class_id, code in enumerate(CODES):
        first = np.flatnonzero(real_data.test.labels == class_id)[0]
        assert np.array_equal(pixels(found[code]), real_data.test.images[first])


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"other\.npz"):
        downloaded_tiles(tmp_path / "other.npz")
