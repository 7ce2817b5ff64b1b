"""A small network that fits into a ResNet-18 (`training/transplant.py`), and costs a fiftieth of it to train.

Tiles have 28 pixels a side; enlarged to 224 they hold no more. This network has the teacher's convolutions on 28 pixels
and ends as a ResNet does: in average pooling and one linear layer.
"""

import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from handler.classes import NUM_CLASSES
from handler.model.preprocess import Preprocessing, network_input
from training.teachers import SimpleCNN, block

# Weight of the squared norm in the regression of the last layer.
PENALTY = 10.0
BATCH = 256


class CompactCNN(nn.Module):
    """Three blocks of two 3x3 convolutions, max-pools between them, average pooling, one linear layer."""

    def __init__(self, widths: tuple[int, int, int], spec: Preprocessing) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = block(3, first)
        self.conv2 = block(first, second)
        self.conv3 = block(second, third)[:-1]
        self.fc = nn.Linear(third, NUM_CLASSES)
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `[N, 9]` of inputs `[N, 3, 28, 28]`, normalised as for the ResNet."""
        logits: Tensor = self.fc(self.pooled(inputs))
        return logits

    def pooled(self, inputs: Tensor) -> Tensor:
        """The last map's mean, `[N, third width]`."""
        tiles = inputs * self.get_buffer("std") + self.get_buffer("mean")
        features: Tensor = self.conv3(self.conv2(self.conv1(2 * tiles - 1)))
        return features.mean(dim=(2, 3))


def from_teacher(teacher: SimpleCNN, tiles: Tensor, spec: Preprocessing) -> CompactCNN:
    """The teacher's convolutions, and ridge regression to its logits on tiles `[N, 3, 28, 28]` in [0, 1]."""
    compact = CompactCNN(teacher.widths, spec).eval()
    for name in ("conv1", "conv2", "conv3"):
        compact.get_submodule(name).load_state_dict(teacher.get_submodule(name).state_dict())
    with torch.no_grad():
        pooled = torch.cat([compact.pooled(network_input(batch, spec)) for batch in tiles.split(BATCH)])
        logits = torch.cat([teacher(batch) for batch in tiles.split(BATCH)])
        spread, mean = torch.std_mean(pooled, dim=0, correction=0)
        spread = spread.clamp(min=1e-6)
        ridge = Ridge(PENALTY).fit(((pooled - mean) / spread).numpy(), logits.numpy())
        weight = torch.from_numpy(ridge.coef_).float() / spread
        compact.fc.weight.copy_(weight)
        compact.fc.bias.copy_(torch.from_numpy(ridge.intercept_).float() - weight @ mean)
    return compact
