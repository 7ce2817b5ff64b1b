"""ResNet-18 (He et al., arXiv 1512.03385), with torchvision's parameter names and its results to the last bit.

torchvision itself is not imported: its operators and what they pull in take 1.5 s and 90 MB of every worker.
"""

from torch import Tensor, nn

CHANNELS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a strided 1x1 convolution if the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels:
            convolution = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(channels))

    def forward(self, maps: Tensor) -> Tensor:
        shortcut = maps if self.downsample is None else self.downsample(maps)
        inner = self.relu(self.bn1(self.conv1(maps)))
        result: Tensor = self.relu(self.bn2(self.conv2(inner)) + shortcut)
        return result


class ResNet(nn.Module):
    """Images `[N, 3, H, W]` to logits `[N, num_classes]`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        first, *_, last = CHANNELS
        self.conv1 = nn.Conv2d(3, first, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(BasicBlock(before, channels, stride), BasicBlock(channels, channels, 1))
            for before, channels, stride in zip((first, *CHANNELS), CHANNELS, (1, 2, 2, 2), strict=False)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, num_classes)

    def blocks(self) -> list[BasicBlock]:
        """The eight blocks in the order in which they are passed."""
        return [module for module in self.modules() if isinstance(module, BasicBlock)]

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.maxpool(self.relu(self.bn1(self.conv1(inputs))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        logits: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return logits
