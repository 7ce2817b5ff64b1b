from pathlib import Path

import pytest
import torch
from torch import Tensor

from handler.model.preprocess import Preprocessing, network_input
from training.compact import from_teacher
from training.data import PathMNIST, as_tiles
from training.synthetic import generate
from training.teachers import SimpleCNN, load_teacher

SPEC = Preprocessing(input_size=28)


@pytest.fixture(scope="module")
def teacher() -> SimpleCNN:
    torch.manual_seed(0)
    return SimpleCNN((4, 5, 6), hidden=8).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tiles() -> Tensor:
    return as_tiles(generate(18, seed=5))


@torch.no_grad()
def test_its_maps_are_the_teachers(teacher: SimpleCNN, tiles: Tensor) -> None:
    compact = from_teacher(teacher, tiles, SPEC)
    wanted = teacher.conv3[:6](teacher.conv2(teacher.conv1(2 * tiles - 1))).mean(dim=(2, 3))
    torch.testing.assert_close(compact.pooled(network_input(tiles, SPEC)), wanted)


@torch.no_grad()
def test_the_real_teachers_answers_survive(real_data: PathMNIST, shared: Path) -> None:
    teacher = load_teacher(shared / "teacher" / "pathmnist_simple_cnn.safetensors")
    compact = from_teacher(teacher, as_tiles(real_data.train), SPEC)
    tiles = as_tiles(real_data.val)
    found, taught = (answers.argmax(dim=1) for answers in (compact(network_input(tiles, SPEC)), teacher(tiles)))
    assert (found == taught).float().mean() > 0.95
