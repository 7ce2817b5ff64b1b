"""The generator's formulas against closed forms, and its commands with a few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation.memorising import memorising, nearest_distances, read_samples
from handler.classes import CODES
from handler.model.checkpoint import file_digest
from training.data import DataError
from training.diffusion import diffusion_loss, levels, sample
from training.generator import WEIGHTS, load_generator, parse_arguments, run, write_samples
from training.synthetic import generate, write_dataset
from training.unet import UNet


class Oracle(nn.Module):
    """Returns the exact velocity for data with one tile per class."""

    def __init__(self, tiles: Tensor) -> None:
        super().__init__()
        self.tiles = torch.cat([tiles, torch.zeros_like(tiles[:1])])

    def forward(self, noisy: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        signal, noise = levels(time)
        clean = self.tiles[labels]
        return signal * (noisy - signal * clean) / noise - noise * clean


def test_signal_and_noise_share_the_variance() -> None:
    signal, noise = levels(torch.linspace(0, 1, 11))
    assert torch.allclose(signal**2 + noise**2, torch.ones(11, 1, 1, 1))
    assert (signal[0].item(), noise[0].item()) == (1, 0)


def test_ddim_with_the_exact_velocity_finds_the_tile() -> None:
    images = generate(9, seed=0).images
    tiles = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    labels = torch.tensor([7, 2, 2])
    assert np.array_equal(sample(Oracle(tiles), labels, seed=0, steps=7, guidance=1), images[labels])


def test_the_exact_velocity_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.diffusion.UNLABELLED", 0.0)
    tiles = torch.from_numpy(generate(9, seed=0).images).permute(0, 3, 1, 2) / 127.5 - 1
    torch.manual_seed(0)
    assert diffusion_loss(Oracle(tiles), tiles, torch.arange(9)) < 1e-6


def test_an_untrained_network_predicts_nothing() -> None:
    torch.manual_seed(0)
    velocity = UNet()(torch.randn(2, 3, 28, 28), torch.tensor([0.1, 0.9]), torch.tensor([0, 8]))
    assert velocity.shape == (2, 3, 28, 28)
    assert not velocity.any()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "generated.npz"
    write_dataset(path, (36, 9, 9), seed=0)
    return path


def train(data: Path, output: Path, *options: str) -> str:
    fixed = ["train", "--data", str(data), "--output", str(output), "--steps", "6", "--batch-size", "4"]
    run(parse_arguments([*fixed, *options]))
    return file_digest(output / WEIGHTS)


def test_a_stopped_generator_ends_as_an_unbroken_one(data: Path, tmp_path: Path) -> None:
    unbroken = train(data, tmp_path / "unbroken")
    with pytest.raises(ValueError, match="nothing to resume"):
        train(data, tmp_path / "broken", "--resume")
    train(data, tmp_path / "broken", "--stop-after", "3")
    with pytest.raises(ValueError, match="another seed"):
        train(data, tmp_path / "broken", "--resume", "--seed", "1")
    assert train(data, tmp_path / "broken", "--resume") == unbroken


def test_samples_are_files_named_by_their_class(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, "--stop-after", "1")
    options = ["--weights", str(tmp_path / WEIGHTS), "--output", str(tmp_path / "tiles"), "--per-class", "2"]
    run(parse_arguments(["sample", *options, "--steps", "2"]))
    assert {file.name for file in (tmp_path / "tiles").iterdir()} == {
        f"{code}-0{i}.png" for code in CODES for i in (0, 1)
    }
    assert read_samples(tmp_path / "tiles").images.shape == (18, 28, 28, 3)


def test_the_same_seed_gives_the_same_samples(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, "--stop-after", "2")
    network, labels = load_generator(tmp_path / WEIGHTS), torch.tensor([0, 8])
    first, again, other = (sample(network, labels, seed, steps=2) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_distances_are_to_the_nearest_tile_in_any_turn() -> None:
    images, others = generate(4, seed=0).images, generate(9, seed=1).images
    copies = np.stack([np.rot90(others[3]), others[5][:, ::-1], images[0], images[1]])
    distances = nearest_distances(copies, others)
    assert distances[:2] == pytest.approx([0, 0], abs=1e-3)
    turned = [np.rot90(flipped, k) for flipped in (images[0], images[0][:, ::-1]) for k in range(4)]
    exact = min(np.sqrt(((view.astype(float) - other) ** 2).mean()) for view in turned for other in others)
    assert distances[2] == pytest.approx(exact, rel=1e-4)


def test_copies_of_training_tiles_are_seen(tmp_path: Path) -> None:
    learned, unseen = generate(36, seed=0), {"test tiles": generate(18, seed=1)}
    write_samples(learned.images[:9], learned.labels[:9], tmp_path)
    report = memorising(read_samples(tmp_path), learned, unseen)
    assert report["samples"]["percentiles"]["50"] < 0.1 < 5 < report["test tiles"]["percentiles"]["50"]
    assert set(report["samples"]["class medians"]) == set(CODES)


def test_a_folder_without_samples_and_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no PNG files"):
        read_samples(tmp_path)
    torch.save({}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="cannot be read"):
        load_generator(tmp_path / "other.safetensors")
