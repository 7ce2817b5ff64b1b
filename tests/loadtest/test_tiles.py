from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtest.tiles import Tile, TilesError, generate, load_tiles


def test_generated_tiles_depend_on_the_seed_alone() -> None:
    assert generate(3) == generate(3) != generate(4)
    assert Image.open(BytesIO(generate(3))).size == (224, 224)
    assert [tile.image for tile in load_tiles(None, 2, seed=3)] == [generate(3), generate(4)]


def test_a_medmnist_file_gives_its_test_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", test_images=images)
    pictures = [np.asarray(Image.open(BytesIO(tile.image))) for tile in load_tiles(tmp_path / "x.npz", 9, seed=0)]
    assert {picture.tobytes() for picture in pictures} == {image.tobytes() for image in images}


def test_a_folder_gives_its_images_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(generate(1))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "damaged.png").write_bytes(generate(2)[:200])
    assert load_tiles(tmp_path, 9, seed=0) == [Tile(generate(1), (224, 224))]


def test_a_folder_for_each_class_gives_images_of_all(tmp_path: Path) -> None:
    for number in range(9):
        folder = tmp_path / f"class-{number}"
        folder.mkdir()
        for count in range(3):
            (folder / f"{count}.jpg").write_bytes(generate(10 * number + count))
    assert {tile.image for tile in load_tiles(tmp_path, 99, seed=0)} == {
        generate(10 * number + count) for number in range(9) for count in range(3)
    }
    assert len(load_tiles(tmp_path, 5, seed=0)) == 5


@pytest.mark.parametrize(("orientation", "size"), [(1, (300, 200)), (6, (200, 300))])
def test_a_tile_knows_its_size_as_it_is_shown(orientation: int, size: tuple[int, int], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (300, 200)).save(tmp_path / "tile.png", exif=exif)
    (tile,) = load_tiles(tmp_path, 9, seed=0)
    assert tile.size == size


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TilesError, match="no images"):
        load_tiles(tmp_path, 9, seed=0)
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(TilesError, match="test_images"):
        load_tiles(tmp_path / "x.npz", 9, seed=0)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty", "missing", "npy", "floats", "classes"])
def test_a_damaged_file_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, test_images=np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8))
    whole = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "flipped":
            path.write_bytes(whole[:2000] + bytes(byte ^ 255 for byte in whole[2000:3000]) + whole[3000:])
        case "text":
            path.write_text("test_images")
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "npy":
            path.write_bytes(b"\x93NUMPY\x01\x00")
        case "floats":
            np.savez(path, test_images=np.zeros((2, 28, 28, 3)))
        case "classes":
            np.savez(path, test_images=np.zeros(5, np.uint8))
    with pytest.raises(TilesError, match=r"x\.npz"):
        load_tiles(path, 9, seed=0)
