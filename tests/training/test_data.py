import zipfile
from io import BytesIO
from pathlib import Path

import medmnist
import numpy as np
import pytest
import torch

from handler.model.checkpoint import file_digest
from training.data import SPLITS, DataError, TileStream, load, read_npz
from training.synthetic import generate, write_dataset


@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, np.ndarray]:
    write_dataset(tmp_path / "data.npz", (18, 9, 9), seed=0)
    with np.load(tmp_path / "data.npz") as file:
        return dict(file)


def read(arrays: dict[str, np.ndarray], folder: Path) -> None:
    np.savez(folder / "changed.npz", allow_pickle=False, **arrays)
    read_npz(folder / "changed.npz")


def test_generated_data_has_medmnists_schema(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    data = read_npz(tmp_path / "data.npz")
    assert (len(data.train), len(data.val), len(data.test)) == (18, 9, 9)
    assert data.train.images.shape == (18, 28, 28, 3)
    assert set(data.train.labels.tolist()) == set(range(9))
    assert arrays["train_labels"].shape == (18, 1)


def test_the_same_seed_gives_the_same_tiles() -> None:
    assert np.array_equal(generate(9, seed=3).images, generate(9, seed=3).images)
    assert not np.array_equal(generate(9, seed=3).images, generate(9, seed=4).images)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_images", None, "missing key 'train_images'"),
        ("val_labels", None, "missing key 'val_labels'"),
        ("train_images", np.zeros((18, 28, 28, 3), np.float32), "train_images has dtype float32"),
        ("train_images", np.zeros((18, 28, 28), np.uint8), r"train_images has shape \(18, 28, 28\)"),
        ("train_images", np.zeros((18, 28, 27, 3), np.uint8), "train_images has shape"),
        ("test_images", np.zeros((9, 64, 64, 3), np.uint8), r"splits differ in tile size: \[28, 64\]"),
        ("test_images", np.zeros((0, 28, 28, 3), np.uint8), "test_labels has shape"),
        ("val_labels", np.zeros((9, 1), np.float32), "val_labels has dtype float32"),
        ("val_labels", np.zeros((8, 1), np.uint8), r"val_labels has shape \(8, 1\)"),
        ("val_labels", np.full((9, 1), 9, np.uint8), "val_labels range from 9 to 9"),
        ("val_labels", np.arange(9, dtype=np.uint8) % 7, r"val_labels has no tile of the classes \[7, 8\]"),
    ],
)
def test_what_does_not_fit_is_named(
    key: str, value: np.ndarray | None, message: str, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    changed = {name: array for name, array in arrays.items() if name != key}
    if value is not None:
        changed[key] = value
    with pytest.raises(DataError, match=message):
        read(changed, tmp_path)


def test_what_is_no_npz_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_npz(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="not a readable npz"):
        read_npz(tmp_path / "text.npz")
    np.save(tmp_path / "array.npy", np.zeros((9, 28, 28, 3), np.uint8))
    with pytest.raises(DataError, match="a single array"):
        read_npz(tmp_path / "array.npy")


def test_a_member_that_is_no_array_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        for name in SPLITS:
            archive.writestr(f"{name}_images", b"hello")
            archive.writestr(f"{name}_labels", b"hello")
    with pytest.raises(DataError, match="train_images or train_labels is not an array"):
        read_npz(tmp_path / "data.npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_damage_anywhere_is_a_data_error_or_harmless(
    compression: int, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    whole = BytesIO()
    with zipfile.ZipFile(whole, "w", compression) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    random, path = np.random.default_rng(0), tmp_path / "damaged.npz"
    refused = 0
    for _ in range(150):
        content = bytearray(whole.getvalue())
        at = int(random.integers(len(content)))
        content[at : at + 4] = random.bytes(4)
        path.write_bytes(content if random.random() < 0.5 else content[:at])
        try:
            read_npz(path)
        except DataError:
            refused += 1
    assert refused > 50


def test_pickled_arrays_are_refused(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    arrays["train_images"] = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "pickled.npz", allow_pickle=True, **arrays)
    with pytest.raises(DataError):
        read_npz(tmp_path / "pickled.npz")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MedMNIST's cache folder with a small file instead of the official one, and no download."""
    folder = tmp_path / ".medmnist"
    folder.mkdir()
    write_dataset(folder / "pathmnist.npz", (18, 9, 9), seed=0)
    monkeypatch.setattr(medmnist.info, "DEFAULT_ROOT", str(folder))
    monkeypatch.setitem(medmnist.INFO["pathmnist"], "url", "http://127.0.0.1:9/pathmnist.npz")
    monkeypatch.setitem(medmnist.INFO["pathmnist"], "MD5", file_digest(folder / "pathmnist.npz", "md5"))
    return folder


def test_a_file_in_medmnists_cache_is_not_downloaded_again(cache: Path) -> None:
    assert load("medmnist").digest == file_digest(cache / "pathmnist.npz")


def test_a_changed_file_in_the_cache_is_refused_if_it_cannot_be_replaced(cache: Path) -> None:
    (cache / "pathmnist.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match="Automatic download failed") as failure:
        load("medmnist")
    assert "\n" not in str(failure.value)


def test_a_stream_is_one_permutation_after_another() -> None:
    split = generate(18, seed=0)
    tiles, labels = TileStream(split, seed=0).read(0, 36)
    for part in (slice(18), slice(18, 36)):
        contents = {tile.numpy().tobytes() for tile in tiles[part].permute(0, 2, 3, 1).contiguous()}
        assert contents == {image.tobytes() for image in split.images}
    assert labels[:18].tolist() != labels[18:].tolist()


def test_a_stream_reads_the_same_at_a_position_however_it_came_there() -> None:
    split = generate(18, seed=0)
    whole = TileStream(split, seed=1).read(0, 50)
    part = TileStream(split, seed=1).read(31, 10)
    assert torch.equal(part[0], whole[0][31:41])
    assert torch.equal(part[1], whole[1][31:41])
    assert not torch.equal(TileStream(split, seed=2).read(0, 50)[1], whole[1])
