"""A compact network (`training/compact.py`) written into a ResNet-18, channel by channel.

Three blocks of two convolutions on 28 pixels fit into a ResNet-18 on 224 pixels: from `layer2` on its maps have the
same grids, and a residual block whose identity holds one map while its branch adds to it is half a max-pool,
`max(a, b) = a + relu(b - a)`. From the first map on every number is the same. Before it, the stem's own max-pool can be
undone only in part, so the first map is fitted by least squares.

Channels that hold nothing keep random weights that the others do not see: they cost nothing in accuracy, and a training
that goes on from here can use them.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet

from handler.model.network import build_network
from handler.model.preprocess import Preprocessing, network_input
from training.compact import CompactCNN

# Weight of the squared norm in the regression of the first map.
PENALTY = 1.0
BATCH = 64
HERE, RIGHT, BELOW, BELOW_RIGHT = (1, 1), (1, 2), (2, 1), (2, 2)
BRIGHT, DARK = slice(0, 3), slice(3, 6)


class Scribe:
    """Writes into rows (output channels) of a network's convolutions and remembers which."""

    def __init__(self, network: ResNet) -> None:
        self.network = network
        self._written: dict[nn.BatchNorm2d, Tensor] = {}
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                self._written[module] = torch.zeros(module.num_features, dtype=torch.bool)
                _buffer(module.running_var).fill_(1 - module.eps)

    def write(self, name: str, rows: slice, weight: Tensor, inputs: slice, bias: Tensor | None = None) -> None:
        """Let `rows` of a convolution be `weight` `[rows, inputs, k, k]` of `inputs` plus `bias`, and nothing else."""
        convolution, norm = self._pair(name)
        convolution.weight[rows] = 0
        convolution.weight[rows, inputs] = weight
        norm.bias[rows] = 0 if bias is None else bias
        self._written[norm][rows] = True

    def clear(self, name: str, rows: slice) -> None:
        """Let `rows` give zero."""
        convolution, _ = self._pair(name)
        self.write(name, rows, torch.zeros_like(convolution.weight[rows]), slice(None))

    def normalise(self, inputs: Tensor) -> None:
        """Give each BatchNorm the statistics of these inputs: written rows compute what they did, others are scaled."""

        def measure(norm: nn.Module, arguments: tuple[Tensor]) -> None:
            assert isinstance(norm, nn.BatchNorm2d)
            variance, mean = torch.var_mean(arguments[0], dim=(0, 2, 3), correction=0)
            written, scale = self._written[norm], (variance + norm.eps).sqrt()
            norm.bias.copy_(torch.where(written, norm.bias + mean, 0.0))
            norm.weight.copy_(torch.where(written, scale, 1.0))
            _buffer(norm.running_mean).copy_(mean)
            _buffer(norm.running_var).copy_(variance)

        handles = [norm.register_forward_pre_hook(measure) for norm in self._written]
        self.network(inputs)
        for handle in handles:
            handle.remove()

    def _pair(self, name: str) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """The convolution of this name and the BatchNorm behind it."""
        behind = name[:-1] + "1" if name.endswith("downsample.0") else name.replace("conv", "bn")
        convolution, norm = self.network.get_submodule(name), self.network.get_submodule(behind)
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return convolution, norm


def transplant(compact: CompactCNN, tiles: Tensor, spec: Preprocessing) -> ResNet:
    """The network, in eval mode; `tiles` `[N, 3, 28, 28]` in [0, 1] serve its regression and its batch statistics."""
    if (spec.canonical_size, spec.input_size) != (28, 224):
        raise ValueError(f"no place for {spec.canonical_size} pixels enlarged to {spec.input_size}")
    scribe = Scribe(build_network().eval())
    convolutions = [_folded(block, at) for block in (compact.conv1, compact.conv2, compact.conv3) for at in (0, 3)]
    with torch.no_grad():
        _write_stem(scribe, spec)
        _write_first_map(scribe, convolutions[0], tiles, spec)
        last = _write_maps(scribe, convolutions)
        scribe.normalise(network_input(tiles[:BATCH], spec))
        scribe.network.fc.weight.zero_()
        scribe.network.fc.weight[:, last] = compact.fc.weight
        scribe.network.fc.bias.copy_(compact.fc.bias)
    return scribe.network


def _folded(block: nn.Sequential, at: int) -> nn.Conv2d:
    convolution, norm = block[at], block[at + 1]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm)


def _write_stem(scribe: Scribe, spec: Preprocessing) -> None:
    """Each colour and its negative, so that the max-pool gives an upper and a lower value of the neighbourhood.

    On the pooled grid the centre of tile pixel k is half an input pixel right of position 2k's last tap; between two
    centres the enlarged tile is linear, so two taps reach it.
    """
    reach = torch.tensor([0, 0, 0, 0, 0, -0.5, 1.5])
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    colours = torch.diag(std)[:, :, None, None] * torch.outer(reach, reach)
    scribe.write("conv1", BRIGHT, colours, slice(0, 3), mean)
    scribe.write("conv1", DARK, -colours, slice(0, 3), 1 - mean)


def _write_first_map(scribe: Scribe, convolution: nn.Conv2d, tiles: Tensor, spec: Preprocessing) -> None:
    """The first map, beside the colours, from copies of them shifted by half a pixel each way.

    A copy is the middle between upper and lower value, minus the grey that the compact network pads with, in two
    rectified parts.
    """
    middle = torch.cat([torch.eye(3), -torch.eye(3)], dim=1) / 2
    taps = [_tap(sign * middle, (row, column)) for row in range(3) for column in range(3) for sign in (1, -1)]
    copies = slice(0, 3 * len(taps))
    scribe.write("layer1.0.conv1", copies, torch.cat(taps), slice(0, 6))
    width = convolution.out_channels
    weight, bias = _least_squares(scribe.network, copies, convolution, tiles, spec)
    first = slice(DARK.stop, DARK.stop + width)
    scribe.clear("layer1.0.conv2", slice(0, DARK.stop))
    scribe.write("layer1.0.conv2", first, weight, copies, bias)
    scribe.clear("conv1", first)
    scribe.clear("layer1.1.conv2", first)


def _least_squares(
    network: ResNet, copies: slice, convolution: nn.Conv2d, tiles: Tensor, spec: Preprocessing
) -> tuple[Tensor, Tensor]:
    """Weight `[rows, copies, 3, 3]` and bias that come nearest to a convolution of the tiles, at every tile pixel."""
    block = network.layer1[0]
    size = (copies.stop - copies.start) * 9 + 1
    rows = convolution.out_channels
    gram, moment = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, rows, dtype=torch.float64)
    for batch in tiles.split(BATCH):
        stem = network.maxpool(network.bn1(network.conv1(network_input(batch, spec))).relu())
        seen = block.bn1(block.conv1(stem)).relu()[:, copies]
        # Every second position is the centre of a tile pixel.
        patches = unfold(seen, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1)
        patches = pad(patches, (0, 1), value=1.0)
        wanted = convolution(2 * batch - 1).flatten(2).transpose(1, 2).flatten(0, 1)
        gram += (patches.T @ patches).double()
        moment += (patches.T @ wanted).double()
    penalty = torch.eye(size, dtype=torch.float64) * PENALTY
    penalty[-1, -1] = 0
    solution = torch.linalg.solve(gram + penalty, moment).float()
    return solution[:-1].T.unflatten(1, (-1, 3, 3)), solution[-1]


def _write_maps(scribe: Scribe, convolutions: list[nn.Conv2d]) -> slice:
    """The second to sixth map and the max-pools between them; returns the last map's channels."""
    _, second, third, fourth, fifth, sixth = convolutions
    w1, w2, w3 = second.out_channels, fourth.out_channels, sixth.out_channels
    one, two = torch.eye(w1), torch.eye(w2)
    a, b = slice(0, w1), slice(w1, w1 + w2)

    scribe.write("layer2.0.conv1", a, _tap(one, HERE), slice(DARK.stop, DARK.stop + w1))
    scribe.write("layer2.0.conv2", a, second.weight, a, second.bias)
    scribe.clear("layer2.0.downsample.0", a)
    _write_pair_maximum(scribe, "layer2.1", a, RIGHT)

    _write_pair_maximum(scribe, "layer3.0", a, BELOW)
    scribe.write("layer3.0.downsample.0", a, one[:, :, None, None], a)
    scribe.clear("layer3.0.conv2", b)
    scribe.clear("layer3.0.downsample.0", b)
    hidden = slice(0, w2)
    scribe.write("layer3.1.conv1", hidden, third.weight, a, third.bias)
    scribe.write("layer3.1.conv2", b, fourth.weight, hidden, fourth.bias)

    # Both rows' maxima at once: the upper, and by how much the lower exceeds it. The next map sees their sum.
    upper, excess = slice(0, w2), slice(w2, 2 * w2)
    scribe.write("layer4.0.conv1", slice(0, w2), _tap(two, RIGHT) - _tap(two, HERE), b)
    scribe.write("layer4.0.conv1", slice(w2, 2 * w2), _tap(two, BELOW), b)
    scribe.write("layer4.0.conv1", slice(2 * w2, 3 * w2), _tap(two, BELOW_RIGHT) - _tap(two, BELOW), b)
    scribe.write("layer4.0.conv2", upper, _tap(two, HERE), slice(0, w2))
    scribe.write("layer4.0.conv2", excess, _tap(torch.cat([-two, two, two], dim=1), HERE), slice(0, 3 * w2))
    scribe.write("layer4.0.downsample.0", upper, two[:, :, None, None], b)
    scribe.write("layer4.0.downsample.0", excess, -two[:, :, None, None], b)
    last = slice(2 * w2, 2 * w2 + w3)
    scribe.clear("layer4.0.conv2", last)
    scribe.clear("layer4.0.downsample.0", last)
    hidden = slice(0, w3)
    scribe.write("layer4.1.conv1", hidden, fifth.weight.repeat(1, 2, 1, 1), slice(0, 2 * w2), fifth.bias)
    scribe.write("layer4.1.conv2", last, sixth.weight, hidden, sixth.bias)
    return last


def _write_pair_maximum(scribe: Scribe, block: str, channels: slice, neighbour: tuple[int, int]) -> None:
    """Let a block with these channels in its identity give the larger of each position and its neighbour."""
    one = torch.eye(channels.stop - channels.start)
    scribe.write(f"{block}.conv1", channels, _tap(one, neighbour) - _tap(one, HERE), channels)
    scribe.write(f"{block}.conv2", channels, _tap(one, HERE), channels)


def _tap(matrix: Tensor, at: tuple[int, int]) -> Tensor:
    """A 3x3 kernel `[out, in, 3, 3]` that is this matrix at one place and zero elsewhere."""
    kernel = torch.zeros(*matrix.shape, 3, 3)
    kernel[:, :, at[0], at[1]] = matrix
    return kernel


def _buffer(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
