"""A small public PathMNIST network used as a teacher for distillation.

The weights are those of SimDrift's simple CNN (MIT licence): 28-pixel RGB in, nine logits out. They are not part
of this repository.
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from handler.classes import NUM_CLASSES

TILE_SIZE = 28


class SimpleCNN(nn.Module):
    """Three blocks of two 3x3 convolutions and a max-pool, then two linear layers."""

    def __init__(self, widths: tuple[int, int, int], hidden: int) -> None:
        super().__init__()
        self.widths = widths
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
        """Logits `[N, 9]` of tiles `[N, 3, 28, 28]` in [0, 1]."""
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


def load_teacher(path: Path) -> SimpleCNN:
    """Read the teacher's safetensors file; frozen, in eval mode."""
    state = load_file(path)
    widths = (
        len(state["conv1.0.weight"]),
        len(state["conv2.0.weight"]),
        len(state["conv3.0.weight"]),
    )
    teacher = SimpleCNN(widths, hidden=len(state["fc.1.weight"]))
    teacher.load_state_dict(state)
    return teacher.eval().requires_grad_(False)
